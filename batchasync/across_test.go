// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// An across is a transform with AcrossBundles, several bundles of which run at
// once.
type across struct {
	t     *testing.T
	first *batchasynctest.Harness
}

func newAcross(t *testing.T, caller *script, opts ...batchasync.Option) *across {
	a := &across{t: t, first: batchasynctest.NewHarness(t, batchasync.New(caller, append(opts, batchasync.AcrossBundles())...))}
	_, err := a.first.Bundle() // the caller is that of the first instance: it can't travel
	require.NoError(t, err)
	return a
}

// bundle is a harness of its own for a bundle, in the worker of the others.
func (a *across) bundle() *batchasynctest.Harness { return a.first.Clone(a.t) }

// element is one whose window and timestamp tell it from all others.
func element(v int) batchasynctest.Element {
	return batchasynctest.Element{
		Value:     v,
		Timestamp: mtime.Time(v),
		Windows:   []beam.Window{window.IntervalWindow{Start: mtime.Time(v), End: mtime.Time(v + 1)}},
	}
}

func TestTinyBundlesShareBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bundles, linger, call = 200, 10 * time.Millisecond, 5 * time.Millisecond
		var seen calls
		a := newAcross(t, &script{call: func(_ context.Context, batch []int) ([]string, error) {
			seen.record(batch)
			time.Sleep(call)
			return quoted(batch), nil
		}}, batchasync.BatchSize(100), batchasync.Linger(linger))
		var running sync.WaitGroup
		var batches, elements atomic.Int64
		for i := range bundles {
			h := a.bundle()
			running.Go(func() {
				start := time.Now()
				out, err := h.Bundle(element(i))
				require.NoError(t, err)
				batchasynctest.RequireExactlyOnce(t, []batchasynctest.Element{element(i)}, out, quotedValue)
				require.LessOrEqual(t, time.Since(start), linger+call, "one linger longer than without")
				batches.Add(out.Counter(batchasync.MetricsNamespace, "batches"))
				elements.Add(out.Counter(batchasync.MetricsNamespace, "elements"))
			})
		}
		running.Wait()
		require.Len(t, seen.batches, 2)
		require.EqualValues(t, 2, batches.Load(), "each batch is counted by one bundle")
		require.EqualValues(t, bundles, elements.Load())
	})
}

func TestABundleOfTheSharedRingWaitsForItsLingerOnly(t *testing.T) {
	for name, test := range map[string]struct {
		linger, want time.Duration
	}{
		"a linger":  {50 * time.Millisecond, 50 * time.Millisecond},
		"no linger": {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAcross(t, &script{}, batchasync.Linger(test.linger))
				start := time.Now()
				_, err := a.bundle().Bundle(numbers(3)...)
				require.NoError(t, err)
				require.Equal(t, test.want, time.Since(start))
			})
		})
	}
}

// poisoned fails a batch as a whole, in the way of fail, if -1 is in it.
func poisoned(seen *calls, fail func() ([]string, error)) *script {
	return &script{call: func(_ context.Context, batch []int) ([]string, error) {
		seen.record(batch)
		if slices.Contains(batch, -1) {
			return fail()
		}
		return quoted(batch), nil
	}}
}

func TestOneBundlesElementFailsNoOtherBundle(t *testing.T) {
	for name, fail := range map[string]func() ([]string, error){
		"for good":                 func() ([]string, error) { return nil, batchasync.Permanent(errors.New("bad")) },
		"until no attempt is left": func() ([]string, error) { return nil, errors.New("internal error") },
		"with a wrong count":       func() ([]string, error) { return nil, nil },
		"with a panic":             func() ([]string, error) { panic("bad") },
		"with Goexit":              func() ([]string, error) { runtime.Goexit(); return nil, nil },
	} {
		for _, failBundle := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", FailBundle ", failBundle), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var seen calls
					opts := []batchasync.Option{batchasync.BatchSize(20), batchasync.RetryInterval(time.Second)}
					if failBundle {
						opts = append(opts, batchasync.FailBundle())
					}
					a := newAcross(t, poisoned(&seen, fail), opts...)
					var running sync.WaitGroup
					for i := range 10 {
						h := a.bundle()
						elements := []batchasynctest.Element{element(2 * i), element(2*i + 1)}
						if i == 4 {
							elements[0].Value = -1
						}
						running.Go(func() {
							out, err := h.Bundle(elements...)
							switch {
							case i != 4:
								require.NoError(t, err)
								require.Empty(t, out.Failures())
								batchasynctest.RequireExactlyOnce(t, elements, out, quotedValue)
							case failBundle:
								var call *batchasync.CallError
								require.ErrorAs(t, err, &call)
							default:
								require.NoError(t, err)
								require.Len(t, out.Failures(), 1)
								require.Equal(t, -1, out.Failures()[0].Value.(batchasync.Failure[int]).Element)
								batchasynctest.RequireExactlyOnce(t, elements, out, quotedValue)
							}
						})
					}
					running.Wait()
					require.Len(t, seen.batches[0], 20, "all of them were in one batch")
				})
			})
		}
	}
}

// Those that have their answers do not wait for others' retries.
func TestOneBundlesRetriesDelayNoOtherBundle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAcross(t, &script{call: func(_ context.Context, batch []int) ([]string, error) {
			var failed batchasync.BatchError
			for i, v := range batch {
				if v == 3 {
					failed.Fail(i, errors.New("locked"))
				}
			}
			return quoted(batch), failed.Err()
		}}, batchasync.BatchSize(10), batchasync.RetryInterval(time.Minute))
		var running sync.WaitGroup
		for i := range 10 {
			h := a.bundle()
			running.Go(func() {
				start := time.Now()
				out, err := h.Bundle(element(i))
				require.NoError(t, err)
				if i == 3 {
					require.Len(t, out.Failures(), 1)
					require.Equal(t, 3*time.Minute, time.Since(start))
				} else {
					require.Zero(t, time.Since(start))
					batchasynctest.RequireExactlyOnce(t, []batchasynctest.Element{element(i)}, out, quotedValue)
				}
			})
		}
		running.Wait()
	})
}

func TestABundleThatFailsTakesItsUnsentElementsOut(t *testing.T) {
	for name, end := range map[string]func(h *batchasynctest.Harness, cancel context.CancelFunc) error{
		"its context ends": func(h *batchasynctest.Harness, cancel context.CancelFunc) error {
			cancel()
			return h.Finish()
		},
		"the next one starts": func(h *batchasynctest.Harness, cancel context.CancelFunc) error {
			defer cancel()
			if err := h.Start(); err != nil {
				return err
			}
			return errors.Join(h.Finish(), errors.New("so this one has ended"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen calls
				a := newAcross(t, poisoned(&seen, nil), batchasync.Linger(time.Second))
				ctx, cancel := context.WithCancel(context.Background())
				failing, other := a.bundle().WithContext(ctx), a.bundle()
				require.NoError(t, failing.Start())
				require.NoError(t, other.Start())
				for i := range 5 {
					require.NoError(t, failing.Process(element(100+i)))
					require.NoError(t, other.Process(element(i)))
				}
				require.Error(t, end(failing, cancel))
				require.NoError(t, other.Finish())
				require.Equal(t, [][]int{{0, 1, 2, 3, 4}}, seen.batches)
			})
		})
	}
}

func TestABatchThatNobodyWaitsForIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		a := newAcross(t, poisoned(&seen, nil), batchasync.Linger(time.Second))
		ctx, cancel := context.WithCancel(context.Background())
		h := a.bundle().WithContext(ctx)
		require.NoError(t, h.Start())
		require.NoError(t, h.Process(element(1)))
		cancel()
		require.Error(t, h.Finish())
		time.Sleep(time.Minute)
		require.Empty(t, seen.batches)
		out, err := a.bundle().Bundle(element(2))
		require.NoError(t, err)
		batchasynctest.RequireExactlyOnce(t, []batchasynctest.Element{element(2)}, out, quotedValue)
	})
}

// A call is ended when the last of its bundles has failed, and not before.
func TestACallIsEndedWithTheLastBundleThatWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended time.Duration
		start := time.Now()
		a := newAcross(t, &script{call: func(ctx context.Context, _ []int) ([]string, error) {
			<-ctx.Done()
			ended = time.Since(start)
			return nil, ctx.Err()
		}}, batchasync.BatchSize(2))
		var running sync.WaitGroup
		for i := range 2 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i+1)*time.Second)
			defer cancel()
			h := a.bundle().WithContext(ctx)
			running.Go(func() {
				_, err := h.Bundle(element(i))
				require.ErrorIs(t, err, context.DeadlineExceeded)
			})
		}
		running.Wait()
		synctest.Wait()
		require.Equal(t, 2*time.Second, ended)
	})
}

// A bundle that does not come to take its results holds up nobody.
func TestAnIdleBundleHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAcross(t, &script{}, batchasync.BatchSize(2), batchasync.MaxInFlight(1))
		idle := a.bundle()
		require.NoError(t, idle.Start())
		for i := range 3 {
			require.NoError(t, idle.Process(element(i)))
		}
		out, err := a.bundle().Bundle(numbers(10_000)...)
		require.NoError(t, err)
		batchasynctest.RequireExactlyOnce(t, numbers(10_000), out, quotedValue)
		require.NoError(t, idle.Finish())
		require.Len(t, idle.Outputs().Results(), 3)
	})
}

func TestAnOrderedBundleOfTheSharedRingKeepsItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := map[int]int{}
		var mu sync.Mutex
		a := newAcross(t, &script{call: func(_ context.Context, batch []int) ([]string, error) {
			mu.Lock()
			defer mu.Unlock()
			var failed batchasync.BatchError
			for i, v := range batch {
				if tries[v]++; v%7 == 0 && tries[v] < 3 {
					failed.Fail(i, errors.New("busy"))
				}
			}
			return quoted(batch), failed.Err()
		}}, batchasync.BatchSize(10), batchasync.Ordered(), batchasync.RetryInterval(time.Second))
		var running sync.WaitGroup
		for b := range 3 {
			h := a.bundle()
			var elements []batchasynctest.Element
			for i := range 100 {
				elements = append(elements, element(1000*b+i))
			}
			running.Go(func() {
				out, err := h.Bundle(elements...)
				require.NoError(t, err)
				batchasynctest.RequireExactlyOnce(t, elements, out, quotedValue)
				require.True(t, slices.IsSortedFunc(out.Results(), func(a, b batchasynctest.Element) int { return int(a.Timestamp - b.Timestamp) }))
			})
		}
		running.Wait()
	})
}

func TestWhatACallCountsIsCountedByOneOfItsBundles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := beam.NewCounter("mine", "asked")
		a := newAcross(t, &script{call: func(ctx context.Context, batch []int) ([]string, error) {
			asked.Inc(ctx, int64(len(batch)))
			require.Equal(t, batchasync.Info{BatchID: batchasync.InfoFrom(ctx).BatchID, Attempt: 1, Transform: batchasync.InfoFrom(ctx).Transform}, batchasync.InfoFrom(ctx))
			return quoted(batch), nil
		}})
		var running sync.WaitGroup
		var counted atomic.Int64
		for i := range 50 {
			h := a.bundle()
			running.Go(func() {
				out, err := h.Bundle(element(i), element(i+50), element(i+100))
				require.NoError(t, err)
				counted.Add(out.Counter("mine", "asked"))
			})
		}
		running.Wait()
		require.EqualValues(t, 150, counted.Load())
	})
}

// What an ordered bundle can't take out yet is in its memory, and no longer in the
// ring's.
func TestABundleOfTheSharedRingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slots = 2 + 2 // MaxInFlight and two more
		var seen calls
		first := make(chan struct{})
		a := newAcross(t, &script{call: func(_ context.Context, batch []int) ([]string, error) {
			seen.record(batch)
			if batch[0] == 0 {
				<-first
			}
			return quoted(batch), nil
		}}, batchasync.BatchSize(1), batchasync.MaxInFlight(2), batchasync.Ordered())
		h := a.bundle()
		done := make(chan struct{})
		go func() {
			defer close(done)
			out, err := h.Bundle(numbers(100)...)
			require.NoError(t, err)
			batchasynctest.RequireExactlyOnce(t, numbers(100), out, quotedValue)
		}()
		synctest.Wait()
		require.Len(t, seen.batches, slots)
		close(first)
		<-done
		require.Len(t, seen.batches, 100)
	})
}

// A batch is counted once, though its elements are given back one after the other.
func TestABatchThatIsGivenBackInPartsIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		tries := map[int]int{}
		a := newAcross(t, &script{call: func(_ context.Context, batch []int) ([]string, error) {
			mu.Lock()
			defer mu.Unlock()
			var failed batchasync.BatchError
			for i, v := range batch {
				if tries[v]++; tries[v] <= v {
					failed.Fail(i, errors.New("busy"))
				}
			}
			return quoted(batch), failed.Err()
		}}, batchasync.BatchSize(4), batchasync.RetryInterval(time.Second))
		names := []string{"batches", "flush_size", "calls", "retries"}
		var counted [4]atomic.Int64
		var running sync.WaitGroup
		for i := range 4 {
			h := a.bundle()
			running.Go(func() {
				out, err := h.Bundle(element(i))
				require.NoError(t, err)
				for n, name := range names {
					counted[n].Add(out.Counter(batchasync.MetricsNamespace, name))
				}
			})
		}
		running.Wait()
		for n, want := range []int64{1, 1, 4, 3} {
			require.Equal(t, want, counted[n].Load(), names[n])
		}
	})
}
