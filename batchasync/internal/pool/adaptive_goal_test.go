// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// alone runs one pool, and returns its share of the best static limit on
// average from the third second on, and in the worst second. After eight
// seconds the capacity changes, if it does; then it counts from the third
// second after that.
func alone(seed uint64, s knee, change float64) (mean, worst float64) {
	w := newWorld(seed, s.serve)
	w.add(w.adaptive(0))
	if change != 1 {
		w.run(8 * time.Second)
		s.c *= change
	}
	w.run(8 * time.Second)
	return w.rate(5*time.Second) / s.best(), w.worst(5) / s.best()
}

// many runs n pools for a minute, and returns what they got in the ten seconds
// after it, as a share of the best static limit, and how evenly. With change,
// half of the pools leave after the minute, or half as many join, and it counts
// after 30 seconds more.
func many(seed uint64, n int, serve service, best float64, target time.Duration, change int) (share, fairness float64) {
	w := newWorld(seed, serve)
	for range n {
		w.add(w.adaptive(target))
	}
	w.run(time.Minute)
	switch change {
	case leave:
		for i := range n / 2 {
			w.pools[i].left = true
		}
	case join:
		for range (n + 1) / 2 {
			w.add(w.adaptive(target))
		}
	}
	if change != stay {
		w.run(30 * time.Second)
	}
	for _, p := range w.pools {
		p.answered = 0
	}
	w.run(10 * time.Second)
	var shares []float64
	for _, p := range w.pools {
		if !p.left {
			shares = append(shares, p.answered)
		}
	}
	return w.rate(10*time.Second) / best, jain(shares)
}

const (
	stay = iota
	leave
	join
)

func TestAdaptiveFindsTheBestStaticLimit(t *testing.T) {
	const seeds = 3
	sum, cases := 0., 0
	for _, call := range []time.Duration{5, 20, 50} {
		for _, c := range []float64{4, 16, 64} {
			if call == 5 && c > 4 {
				continue // the more calls, the easier, and the slower is the test
			}
			for _, k := range []float64{1, 2, 4} {
				for _, change := range []float64{1, 0.5, 2} {
					if c*change < 4 || c*change > 64 {
						continue
					}
					mean := 0.
					for seed := range uint64(seeds) {
						m, _ := alone(seed, knee{c, k, call * time.Millisecond, 0.3}, change)
						mean += m / seeds
					}
					require.Greater(t, mean, 0.85, "T=%d C=%g k=%g, then %g times C", call, c, k, change)
					sum += mean
					cases++
				}
			}
		}
	}
	require.Greater(t, sum/float64(cases), 0.94)
}

func TestAdaptiveOnForeignServices(t *testing.T) {
	for _, s := range foreign {
		t.Run(s.name, func(t *testing.T) {
			require.Greater(t, ofBestStatic(s.serve, 1), s.least)
		})
	}
}

// ofBestStatic is the average from the fifth second to the 25th.
func ofBestStatic(serve func() service, seed uint64) float64 {
	best := 0.
	for _, n := range []int{1, 2, 3, 4, 8, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, 64} {
		best = max(best, shareOf(newWorld(seed, serve()), &static{limit: n}))
	}
	w := newWorld(seed, serve())
	return shareOf(w, w.adaptive(0)) / best
}

func shareOf(w *world, l limiter) float64 {
	w.add(l)
	w.run(25 * time.Second)
	return w.rate(20 * time.Second)
}

func TestManyPoolsShareAService(t *testing.T) {
	plain := knee{64, 2, 20 * time.Millisecond, 0}
	noisy := knee{64, 2, 20 * time.Millisecond, 0.3}
	refusing := door(noisy)
	for _, signal := range []struct {
		name   string
		serve  service
		best   float64
		target time.Duration
	}{
		{"a target of 1.5 calls", plain.serve, plain.best(), 30 * time.Millisecond},
		{"a target of 1.5 calls with jitter", noisy.serve, noisy.best(), 39 * time.Millisecond},
		{"refusals", refusing.serve, noisy.best(), 0},
	} {
		for _, at := range []struct {
			pools, change   int
			share, fairness float64
		}{
			{1, stay, 0.95, 1},
			{10, stay, 0.85, 0.85},
			{100, stay, 0.84, 0.85},
			{100, leave, 0.85, 0.93},
			{100, join, 0.83, 0.88},
			{1000, stay, 0.79, 0.79},
		} {
			if at.pools == 1000 && signal.target == 39*time.Millisecond {
				continue // the slowest, and like the one without jitter
			}
			share, fairness := many(1, at.pools, signal.serve, signal.best, signal.target, at.change)
			require.Greater(t, share, at.share, "%s, %d pools, change %d", signal.name, at.pools, at.change)
			require.GreaterOrEqual(t, fairness, at.fairness, "%s, %d pools, change %d", signal.name, at.pools, at.change)
		}
	}
}

// A target that the unloaded service barely meets must not strangle it.
func TestManyPoolsWithATightTarget(t *testing.T) {
	s := knee{64, 2, 20 * time.Millisecond, 0.3} // 26 ms on average
	for _, pools := range []int{1, 10, 100} {
		share, _ := many(1, pools, s.serve, s.best(), 30*time.Millisecond, stay)
		require.Greater(t, share, 0.85, "%d pools", pools)
	}
}

func BenchmarkAdaptiveInFlight(b *testing.B) {
	// The average is over the runs; the worst is that of any of them.
	report := func(b *testing.B, of string, run func(seed uint64) (float64, float64)) {
		mean, worst, n := 0., 1., 0
		for b.Loop() {
			m, w := run(uint64(n))
			mean += m
			worst = min(worst, w)
			n++
		}
		b.ReportMetric(100*mean/float64(n), "%best")
		b.ReportMetric(100*worst, "%best-worst-"+of)
		b.ReportMetric(0, "ns/op") // of virtual time: it says nothing
	}
	for _, call := range []time.Duration{5, 20, 50} {
		for _, c := range []float64{4, 8, 16, 32, 64} {
			for _, k := range []float64{1, 2, 4} {
				for _, change := range []float64{1, 0.5, 2} {
					if c*change < 4 || c*change > 64 {
						continue
					}
					b.Run(fmt.Sprintf("T=%dms/C=%g/k=%g/then=%g", call, c, k, c*change), func(b *testing.B) {
						report(b, "second", func(seed uint64) (float64, float64) {
							return alone(seed, knee{c, k, call * time.Millisecond, 0.3}, change)
						})
					})
				}
			}
		}
	}
	for _, s := range foreign {
		b.Run("service="+s.name, func(b *testing.B) {
			report(b, "run", func(seed uint64) (float64, float64) {
				share := ofBestStatic(s.serve, seed)
				return share, share
			})
		})
	}
}

func BenchmarkManyPools(b *testing.B) {
	plain := knee{64, 2, 20 * time.Millisecond, 0}
	noisy := knee{64, 2, 20 * time.Millisecond, 0.3}
	refusing := door(noisy)
	for _, signal := range []struct {
		name   string
		serve  service
		best   float64
		target time.Duration
	}{
		{"target", plain.serve, plain.best(), 30 * time.Millisecond},
		{"target-with-jitter", noisy.serve, noisy.best(), 39 * time.Millisecond},
		{"tight-target-with-jitter", noisy.serve, noisy.best(), 30 * time.Millisecond},
		{"refusals", refusing.serve, noisy.best(), 0},
		{"neither", noisy.serve, noisy.best(), 0},
	} {
		for change, name := range []string{"stay", "half-leave", "half-as-many-join"} {
			for _, pools := range []int{1, 10, 100, 1000} {
				if pools == 1 && change == leave {
					continue
				}
				b.Run(strings.Join([]string{"signal=" + signal.name, name, fmt.Sprintf("pools=%d", pools)}, "/"), func(b *testing.B) {
					share, fairness, n := 0., 0., 0
					for b.Loop() {
						s, f := many(uint64(n), pools, signal.serve, signal.best, signal.target, change)
						share += s
						fairness += f
						n++
					}
					b.ReportMetric(100*share/float64(n), "%best")
					b.ReportMetric(fairness/float64(n), "jain")
					b.ReportMetric(0, "ns/op")
				})
			}
		}
	}
}
