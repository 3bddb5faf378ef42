// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const ms = time.Millisecond

func half() float64 { return 0.5 }

// steady is a service whose calls take 20 ms each, whatever is in flight.
func steady(*world, int, int) (time.Duration, Outcome) { return 20 * ms, Answered }

func TestAdaptiveStartsFast(t *testing.T) {
	w := newWorld(1, steady)
	a := w.adaptive(0)
	w.add(a)
	require.Equal(t, 1., a.limit())
	w.run(21 * ms)
	require.Equal(t, 2., a.limit())
	w.run(140 * ms)
	require.Equal(t, 64., a.limit(), "after eight rounds")
	w.run(10 * time.Second)
	require.Equal(t, 64., a.limit())
	require.Equal(t, 64, w.most)
}

func TestAdaptiveStopsItsStartWhenRefused(t *testing.T) {
	w := newWorld(1, func(_ *world, n, _ int) (time.Duration, Outcome) {
		if n > 10 {
			return ms, Overloaded
		}
		return 20 * ms, Answered
	})
	a := w.adaptive(0)
	w.add(a)
	w.run(90 * ms)
	require.InDelta(t, 8, a.limit(), 3)
	w.run(10 * time.Second)
	require.InDelta(t, 10, a.limit(), 2)
	require.Less(t, float64(w.refused)/float64(w.calls), 0.05)
}

func TestAdaptiveStaysWithinItsBounds(t *testing.T) {
	w := newWorld(1, func(*world, int, int) (time.Duration, Outcome) { return ms, Overloaded })
	a := newAdaptive(3, 10, 0, half)
	require.Equal(t, 3., a.limit())
	w.add(a)
	w.run(time.Second)
	require.Equal(t, 3., a.limit())
	w.service = steady
	w.run(5 * time.Second)
	require.Equal(t, 10., a.limit())
}

func TestAdaptiveIgnoresCallsThatFailForReasonsOfTheirOwn(t *testing.T) {
	w := newWorld(1, steady)
	a := w.adaptive(0)
	w.add(a)
	w.run(30 * ms)
	limit := a.limit()
	w.service = func(*world, int, int) (time.Duration, Outcome) { return ms, Ignored }
	w.run(20 * ms)
	before := a.limit()
	require.Greater(t, before, limit-1)
	w.run(time.Second)
	require.Equal(t, before, a.limit())
}

// A limit that nobody comes near is neither confirmed nor refuted.
func TestAdaptiveStaysWhenItIsNotUsed(t *testing.T) {
	s := knee{16, 2, 20 * ms, 0.3}
	w := newWorld(1, s.serve)
	a := w.adaptive(0)
	c := w.add(a)
	w.run(5 * time.Second)
	limit := a.limit()
	require.InDelta(t, 16, limit, 4)

	c.backlog = 0
	var arrive func()
	arrive = func() {
		c.backlog++
		w.pump(c)
		w.at(w.now.Add(time.Duration(10e6*w.random.ExpFloat64())), arrive)
	}
	arrive()
	w.run(100 * ms) // the last of the calls that it was full with
	limit = a.limit()
	w.run(time.Minute)
	require.Equal(t, limit, a.limit())
}

func TestAdaptivePacesBelowOneCall(t *testing.T) {
	w := newWorld(1, steady)
	a := newAdaptive(1, 64, 0, w.random.Float64)
	a.starting = false
	a.typical = 0.02
	c := &client{limit: frozen{a, 0.25}, backlog: -1}
	w.pump(c)
	w.run(20 * time.Second)
	require.InDelta(t, 20*0.25/0.02, c.answered, 20, "a quarter of a call in flight")
	require.Equal(t, 1, w.most)

	w.most, c.answered = 0, 0
	c.limit = frozen{a, 1.5}
	w.run(20 * time.Second)
	require.InDelta(t, 20*1.5/0.02, c.answered, 150)
	require.Equal(t, 2, w.most)
}

// frozen never changes its limit.
type frozen struct {
	*adaptive
	limit float64
}

func (f frozen) ready(now time.Time) time.Duration {
	f.value = f.limit
	return f.adaptive.ready(now)
}

// A call that is slower for its size tells of no congestion.
func TestAdaptiveKnowsTheSizeOfBatches(t *testing.T) {
	for _, fixed := range []float64{1, 5, 20} {
		run := func(limit limiter) float64 {
			w := newWorld(1, func(w *world, n, size int) (time.Duration, Outcome) {
				return time.Duration((fixed + 0.4*float64(size)) * congestion(n, 16, 2) * small(w.random) * 1e6), Answered
			})
			c := w.add(limit)
			c.size = func() int { return 1 + w.random.IntN(100) }
			w.run(20 * time.Second)
			return w.rate(17 * time.Second)
		}
		best := run(&static{limit: 16})
		require.Greater(t, run(newAdaptive(1, 64, 0, rand.New(rand.NewPCG(1, 1)).Float64)), 0.93*best, "fixed cost %g ms", fixed)
	}
}

// And when all batches become larger at once, that is none either.
func TestAdaptiveFollowsTheUsualSize(t *testing.T) {
	w := newWorld(1, func(w *world, n, size int) (time.Duration, Outcome) {
		return time.Duration((5 + 0.4*float64(size)) * congestion(n, 16, 2) * small(w.random) * 1e6), Answered
	})
	a := w.adaptive(0)
	least, span := 1, 10
	c := w.add(a)
	c.size = func() int { return least + w.random.IntN(span) }
	w.run(5 * time.Second)
	require.InDelta(t, 16, a.limit(), 4)
	least, span = 60, 40
	w.run(5 * time.Second)
	require.InDelta(t, 16, a.limit(), 4)
}

func TestAdaptiveForgetsWhatTheServiceTook(t *testing.T) {
	for _, factor := range []float64{2, 3, 0.5} {
		s := knee{16, 2, 20 * ms, 0.3}
		w := newWorld(1, s.serve)
		w.add(w.adaptive(0))
		w.run(5 * time.Second)
		s.call = time.Duration(float64(s.call) * factor)
		w.run(10 * time.Second)
		require.Greater(t, w.rate(5*time.Second)/s.best(), 0.9, "calls take %g times as long", factor)
	}
}

func TestAdaptiveInAnOutage(t *testing.T) {
	for _, fails := range []time.Duration{ms, time.Second} {
		s := knee{16, 2, 20 * ms, 0.3}
		w := newWorld(1, s.serve)
		a := w.adaptive(0)
		w.add(a)
		w.run(5 * time.Second)

		w.service = func(*world, int, int) (time.Duration, Outcome) { return fails, Overloaded }
		w.most = 0
		w.run(20 * time.Second)
		require.Less(t, a.limit(), 0.1)
		calls := w.calls
		w.run(10 * time.Second)
		require.Less(t, w.calls-calls, 30, "hardly any call while it is down")
		require.Greater(t, w.calls-calls, 2, "enough of them to see that it is back")

		w.service = s.serve
		w.run(4 * time.Second)
		require.Less(t, w.most, 24, "never above what it was")
		w.run(2 * time.Second)
		require.Greater(t, w.rate(2*time.Second)/s.best(), 0.85)
	}
}

// Whatever the service does, some call may start some time, and the limit is a
// number within its bounds.
func TestAdaptiveNeverStops(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.IntRange(1, 4).Draw(t, "min")
		high := rapid.IntRange(low, 20).Draw(t, "max")
		target := time.Duration(rapid.SampledFrom([]int64{0, 1, 1e6, 1e9}).Draw(t, "target"))
		a := newAdaptive(low, high, target, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)).Float64)
		now := epoch
		var flights []flight
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			wait := a.ready(now)
			switch {
			case wait == 0 && rapid.Bool().Draw(t, "start"):
				flights = append(flights, a.started(now))
			case len(flights) == 0:
				require.GreaterOrEqual(t, wait, time.Duration(0), "nothing is in flight")
				require.Less(t, wait, 1000*time.Hour)
				now = now.Add(wait)
			default:
				now = now.Add(time.Duration(rapid.Int64Range(0, 1e10).Draw(t, "later")))
				i := rapid.IntRange(0, len(flights)-1).Draw(t, "which")
				a.ended(now, flights[i], rapid.IntRange(1, 100).Draw(t, "size"), Outcome(rapid.IntRange(0, 2).Draw(t, "outcome")))
				flights = append(flights[:i], flights[i+1:]...)
			}
			require.GreaterOrEqual(t, a.limit(), a.min)
			require.LessOrEqual(t, a.limit(), float64(high))
			require.LessOrEqual(t, len(flights), high)
		}
	})
}

// Goroutines, a mutex and a clock, as in Pool; the service is the issue's.
func TestAdaptiveWithGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		freed := sync.NewCond(&mu)
		a := newAdaptive(1, 64, 0, rand.New(rand.NewPCG(1, 2)).Float64)
		service := rand.New(rand.NewPCG(3, 4))
		inFlight, answers, counting := 0, 0, false
		end := time.Now().Add(8 * time.Second)
		var senders sync.WaitGroup
		for range 256 {
			senders.Go(func() {
				mu.Lock()
				defer mu.Unlock()
				for time.Now().Before(end) {
					if wait := a.ready(time.Now()); wait < 0 {
						freed.Wait()
						continue
					} else if wait > 0 {
						mu.Unlock()
						time.Sleep(wait) // of the bubble's clock
						mu.Lock()
						continue
					}
					f := a.started(time.Now())
					inFlight++
					took := time.Duration(20e6 * congestion(inFlight, 16, 2) * small(service))
					mu.Unlock()
					time.Sleep(took)
					mu.Lock()
					inFlight--
					if counting {
						answers++
					}
					a.ended(time.Now(), f, 1, Answered)
					freed.Broadcast()
				}
			})
		}
		time.Sleep(3 * time.Second)
		mu.Lock()
		counting = true
		mu.Unlock()
		senders.Wait()
		s := knee{16, 2, 20 * ms, 0.3}
		require.Greater(t, float64(answers)/5/s.best(), 0.9)
	})
}

// Until one is answered, a call that hangs does not hold up the others.
func TestAdaptiveStartsThoughTheFirstCallHangs(t *testing.T) {
	calls := 0
	w := newWorld(1, func(*world, int, int) (time.Duration, Outcome) {
		if calls++; calls == 1 {
			return time.Hour, Answered
		}
		return 20 * ms, Answered
	})
	w.add(w.adaptive(0))
	w.run(999 * ms)
	require.Equal(t, 1, calls)
	w.run(5 * time.Second)
	require.Greater(t, calls, 1000)
}

func TestAdaptiveIsSlowWithAServiceThatHangs(t *testing.T) {
	calls := 0
	w := newWorld(1, func(*world, int, int) (time.Duration, Outcome) { calls++; return time.Hour, Answered })
	w.add(w.adaptive(0))
	w.run(9500 * ms)
	require.Equal(t, 10, calls)
	w.run(time.Hour / 2)
	require.Equal(t, 64, calls, "its maximum")
}

// One call in ten fails, whatever the load: fewer of them would help nothing.
func TestAdaptiveBearsFailuresThatLoadIsNoReasonFor(t *testing.T) {
	for _, share := range []float64{0.1, 0.5} {
		w := newWorld(1, func(w *world, _, _ int) (time.Duration, Outcome) {
			if w.random.Float64() < share {
				return 20 * ms, Failed
			}
			return 20 * ms, Answered
		})
		a := w.adaptive(0)
		w.add(a)
		w.run(time.Minute)
		require.GreaterOrEqual(t, a.limit(), float64(failedFloor))
	}
}

// A service that fails what is too much, and does not say why, is still asked less.
func TestAdaptiveGivesWayToFailuresAtManyCalls(t *testing.T) {
	const capacity = 24
	w := newWorld(1, func(w *world, n, _ int) (time.Duration, Outcome) {
		if n > capacity {
			return ms, Failed
		}
		return 20 * ms, Answered
	})
	w.add(w.adaptive(0))
	w.run(10 * time.Second)
	calls, refused := w.calls, w.refused
	w.run(time.Minute)
	require.Less(t, float64(w.refused-refused)/float64(w.calls-calls), 0.1)
	require.Greater(t, float64(w.calls-calls-(w.refused-refused)), 0.8*capacity*60/0.02)
}
