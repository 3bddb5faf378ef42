// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"math"
	"slices"
	"time"
)

// A fit tells what a call costs by its size: a fixed part, and a part for each
// element. Its line is that of Theil (1950) and Sen (1968), the median of the
// slopes between all pairs of samples: almost a third of them may be outliers.
// It knows the last samples only.
type fit struct {
	samples        [64]sample
	added          int
	fixed, element float64
}

type sample struct{ size, cost float64 }

const (
	// refitEvery bounds what the 2,016 slopes cost: some 5 µs a sample.
	refitEvery = 16
	// The slope between two sizes that are nearly the same is noise: they are as
	// many times apart, or they don't count.
	apart = 1.5
)

func (f *fit) add(size int, cost float64) {
	f.samples[f.added%len(f.samples)] = sample{float64(size), cost}
	f.added++
	if f.added%refitEvery == 0 || f.added == refitEvery/2 {
		f.refit()
	}
}

func (f *fit) refit() {
	samples := f.samples[:min(f.added, len(f.samples))]
	values := make([]float64, 0, len(samples)*(len(samples)-1)/2)
	for i, a := range samples {
		for _, b := range samples[:i] {
			if max(a.size, b.size) >= apart*min(a.size, b.size) {
				values = append(values, (a.cost-b.cost)/(a.size-b.size))
			}
		}
	}
	if len(values) == 0 {
		return // one size only: it tells nothing of the others
	}
	f.element = max(0, median(values))
	values = values[:0]
	for _, s := range samples {
		values = append(values, s.cost-f.element*s.size)
	}
	f.fixed = max(0, median(values))
}

// of returns the cost of a call of that size; zero: not known yet.
func (f *fit) of(size float64) float64 { return f.fixed + f.element*size }

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// batchSize finds the number of elements a call that keeps a call near a
// target duration and its fixed cost below a twentieth of it, as BatchElements
// of Beam's Python SDK does. It is to be fed with the first attempts that
// succeeded, and is not safe for concurrent use.
type batchSize struct {
	min, max int
	target   float64 // seconds

	cost    fit
	largest int // that was answered, lately
	asked   int
}

const (
	overhead = 0.05 // of a call's duration, that its fixed cost may be
	// One batch in so many has another size, for a line through one is none: at
	// first, and when the line is made of as many samples as it can be. It is so
	// much smaller, since the fixed cost is best seen where there is little else;
	// near the minimum it is twice as large.
	exploreFirst, exploreLater = 4, 12
	exploreRatio               = 8
)

func newBatchSize(min, max int, target time.Duration) *batchSize {
	return &batchSize{min: min, max: max, target: target.Seconds()}
}

// answered adds a call that succeeded at its first attempt.
func (b *batchSize) answered(size int, took time.Duration) {
	b.cost.add(size, took.Seconds())
	b.largest = max(b.largest, size)
}

// tooLarge says that the service refused a call for its size. None will be
// larger than midway between that and the largest that was answered: a refused
// call is a lost one, so nothing tries for the exact limit.
func (b *batchSize) tooLarge(size int) {
	if size > b.max {
		return
	}
	if b.largest >= size {
		b.largest = 0 // its limit is not in elements, or has changed
	}
	b.max = max(1, (b.largest+size)/2)
	b.min = min(b.min, b.max)
}

// next is the size of the batch that is to be filled next.
func (b *batchSize) next() int {
	b.asked++
	size, every := max(b.best(), b.min), exploreFirst
	if b.cost.added >= len(b.cost.samples) {
		every = exploreLater
	}
	if b.asked%every == 0 {
		if small := max(size/exploreRatio, b.min); 2*small <= size {
			size = small
		} else {
			size *= 2
		}
	}
	return max(b.min, min(size, b.max))
}

func (b *batchSize) best() int {
	if b.cost.of(1) == 0 {
		return 2 * b.min // half of it, the minimum, is the other size of the first line
	}
	// Twice what was tried is as far as the line is trusted.
	size := float64(2 * b.largest)
	if b.cost.element > 0 {
		size = math.Min(size, (b.target-b.cost.fixed)/b.cost.element)
		size = math.Min(size, b.cost.fixed/b.cost.element*(1/overhead-1))
	}
	return int(math.Max(size, 0))
}
