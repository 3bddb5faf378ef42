// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A line is a service whose calls cost so much, and so much an element.
type line struct{ fixed, element float64 }

// send fills and sends so many batches, and returns the size of the last one
// that was no exploration.
func (l *line) send(b *batchSize, batches int, noise func() float64) int {
	largest := 0
	for i := range batches {
		size := b.next()
		if i >= batches-exploreFirst {
			largest = max(largest, size)
		}
		b.answered(size, time.Duration((l.fixed+l.element*float64(size))*noise()*1e6))
	}
	return largest
}

func TestBatchSizeFindsTheTarget(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	exact := func() float64 { return 1 }
	jitter := func() float64 { return 0.7 + 0.3*random.ExpFloat64() }
	outliers := func() float64 {
		if random.IntN(5) == 0 {
			return 20
		}
		return jitter()
	}
	for _, test := range []struct {
		name       string
		line       line // ms
		target     time.Duration
		noise      func() float64
		want, bear float64
	}{
		{"the target binds", line{10, 1}, 110 * ms, exact, 100, 1},
		{"the overhead binds", line{1, 1}, time.Second, exact, 19, 1},
		{"nothing but the most binds", line{1, 0.001}, time.Second, exact, 500, 0},
		{"no cost of an element is seen", line{20, 0}, time.Second, exact, 500, 0},
		{"not even the least is near the target", line{200, 10}, 100 * ms, exact, 5, 0},
		{"with jitter", line{10, 1}, 110 * ms, jitter, 100, 35},
		{"with outliers", line{10, 1}, 110 * ms, outliers, 100, 45},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBatchSize(5, 500, test.target)
			require.InDelta(t, test.want, test.line.send(b, 200, test.noise), test.bear)
		})
	}
}

// Where little of a call's cost is fixed, noise must not pass for none of it being so:
// then the least batches would do.
func TestBatchSizeStaysNearTheTargetInNoise(t *testing.T) {
	const seeds = 300
	for name, outliers := range map[string]int{"jitter": 0, "one call in five takes twenty times as long": 5} {
		t.Run(name, func(t *testing.T) {
			small, sum := 0, 0
			for seed := range uint64(seeds) {
				random := rand.New(rand.NewPCG(seed, 1))
				b := newBatchSize(5, 500, 110*ms) // so 100 elements
				(&line{10, 1}).send(b, 400, func() float64 {
					if outliers > 0 && random.IntN(outliers) == 0 {
						return 20
					}
					return 0.7 + 0.3*random.ExpFloat64()
				})
				if b.best() < 50 {
					small++
				}
				sum += b.best()
			}
			require.LessOrEqual(t, small, seeds/100)
			require.InDelta(t, 100, sum/seeds, 12)
		})
	}
}

func TestBatchSizeStartsSmallAndDoubles(t *testing.T) {
	b := newBatchSize(4, 1000, time.Second)
	l := line{100, 1}
	largest := 0
	for range 200 {
		size := b.next()
		require.LessOrEqual(t, size, max(8, 2*largest), "no further than it can know")
		largest = max(largest, size)
		b.answered(size, time.Duration((l.fixed+l.element*float64(size))*1e6))
	}
	require.InDelta(t, 900, largest, 10)
}

func TestBatchSizeForgets(t *testing.T) {
	b := newBatchSize(1, 1000, 100*ms)
	exact := func() float64 { return 1 }
	require.InDelta(t, 90, (&line{10, 1}).send(b, 100, exact), 2)
	require.InDelta(t, 22, (&line{10, 4}).send(b, 100, exact), 2)
	require.InDelta(t, 180, (&line{10, 0.5}).send(b, 100, exact), 5)
}

func TestBatchSizeLearnsTheServicesOwnLimit(t *testing.T) {
	b := newBatchSize(10, 1000, time.Second)
	tooLarge := 0
	for range 300 {
		size := b.next()
		if size > 137 {
			tooLarge++
			b.tooLarge(size)
			continue
		}
		b.answered(size, time.Duration(size)*10*time.Microsecond+ms)
	}
	refused := b.max
	require.GreaterOrEqual(t, refused, 69, "half of what is allowed")
	require.LessOrEqual(t, refused, 137)
	require.Equal(t, 1, tooLarge, "a refused batch is a lost call")

	b.tooLarge(1000) // a call that was under way
	require.Equal(t, refused, b.max)
	b.tooLarge(b.largest) // its limit has changed
	require.Equal(t, refused/2, b.max)
	for range 10 {
		b.tooLarge(b.max)
	}
	require.Equal(t, 1, b.next(), "even the least is refused")
}

func TestFitNeedsTwoSizes(t *testing.T) {
	var f fit
	for range 100 {
		f.add(7, 3)
	}
	require.Zero(t, f.of(7))
	for range refitEvery {
		f.add(10, 3.3)
	}
	require.Zero(t, f.of(7), "they are too near to each other")
	for range refitEvery {
		f.add(14, 3.7)
	}
	require.InDelta(t, 4, f.of(17), 1e-9)
}

func TestBatchSizeIsWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.IntRange(1, 100).Draw(t, "min")
		high := rapid.IntRange(low, 1000).Draw(t, "max")
		b := newBatchSize(low, high, time.Duration(rapid.Int64Range(1, 1e10).Draw(t, "target")))
		for range rapid.IntRange(0, 100).Draw(t, "batches") {
			size := b.next()
			require.GreaterOrEqual(t, size, b.min)
			require.LessOrEqual(t, size, min(b.max, high))
			if rapid.IntRange(0, 20).Draw(t, "refused") == 0 {
				b.tooLarge(size)
				require.True(t, b.max < size || size == 1)
			} else {
				b.answered(size, time.Duration(rapid.Int64Range(0, 1e11).Draw(t, "took")))
			}
		}
	})
}
