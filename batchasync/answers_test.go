// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

func init() { batchasync.Register(&keeping{}) }

// keeping is a script that says what may be kept, and what it weighs.
type keeping struct{ *script }

func (*keeping) Cacheable(result string, err error) bool {
	return err == nil && result != "<7>" || err != nil && strings.Contains(err.Error(), "no such row")
}

func (*keeping) ResultSize(result string) int { return 100 }

// two are two bundles' instances of one transform in one worker.
func two(t *testing.T, caller *script, opts ...batchasync.Option) (a, b *batchasynctest.Harness) {
	opts = append([]batchasync.Option{batchasync.MaxInFlight(8)}, opts...)
	a = batchasynctest.NewHarness(t, batchasync.New(caller, opts...))
	_, err := a.Bundle()
	require.NoError(t, err)
	return a, a.Clone(t)
}

func TestAKeyThatAnotherBatchAsksForIsNotAskedForAgain(t *testing.T) {
	for _, opt := range []batchasync.Option{batchasync.Dedup(), batchasync.Cache(100, time.Minute)} {
		synctest.Test(t, func(t *testing.T) {
			var seen calls
			a, b := two(t, &script{call: func(_ context.Context, batch []int) ([]string, error) {
				seen.record(batch)
				time.Sleep(time.Second)
				return quoted(batch), nil
			}}, opt)
			var running sync.WaitGroup
			run := func(h *batchasynctest.Harness, after time.Duration, values ...int) {
				running.Go(func() {
					time.Sleep(after)
					start := time.Now()
					out, err := h.Bundle(batchasynctest.Values(values...)...)
					require.NoError(t, err)
					batchasynctest.RequireExactlyOnce(t, batchasynctest.Values(values...), out, quotedValue)
					require.Equal(t, time.Second, time.Since(start), "each waits for its own call, and no longer for another's")
				})
			}
			run(a, 0, 1, 2, 2, 3)
			run(b, 500*time.Millisecond, 3, 4, 4, 1)
			running.Wait()
			require.Equal(t, [][]int{{1, 2, 3}, {4}}, seen.batches)
		})
	}
}

// It waits without a permit: what it waits for may need that.
func TestWaitingForAnotherBatchHoldsNoPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		a, b := two(t, &script{call: func(_ context.Context, batch []int) ([]string, error) {
			if seen.record(batch) == 1 {
				return nil, errors.New("busy")
			}
			return quoted(batch), nil
		}}, batchasync.Dedup(), batchasync.MaxInFlight(1), batchasync.RetryInterval(time.Minute))
		var running sync.WaitGroup
		for i, h := range []*batchasynctest.Harness{a, b} {
			running.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				out, err := h.Bundle(numbers(3)...)
				require.NoError(t, err)
				batchasynctest.RequireExactlyOnce(t, numbers(3), out, quotedValue)
			})
		}
		running.Wait()
		require.Len(t, seen.batches, 2, "the second is the first one's retry")
	})
}

func TestAKeyFailsForAllWhoWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		a, b := two(t, &script{call: func(_ context.Context, batch []int) ([]string, error) {
			seen.record(batch)
			time.Sleep(time.Second)
			var failed batchasync.BatchError
			failed.Fail(slices.Index(batch, 1), batchasync.Permanent(errors.New("no such row")))
			return quoted(batch), failed.Err()
		}}, batchasync.Dedup())
		var running sync.WaitGroup
		for i, h := range []*batchasynctest.Harness{a, b} {
			running.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				out, err := h.Bundle(numbers(3)...)
				require.NoError(t, err)
				batchasynctest.RequireExactlyOnce(t, numbers(3), out, quotedValue)
				require.Len(t, out.Failures(), 1)
				require.Equal(t, 1, out.Failures()[0].Value.(batchasync.Failure[int]).Element)
			})
		}
		running.Wait()
		require.Len(t, seen.batches, 1)
	})
}

// A bundle that ends takes its calls with it; who waited for them asks himself.
func TestAKeyIsAskedForAgainIfItsBundleFails(t *testing.T) {
	for name, opts := range map[string][]batchasync.Option{"its context ends": nil, "another element fails": {batchasync.FailBundle()}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen calls
				a, b := two(t, &script{call: func(ctx context.Context, batch []int) ([]string, error) {
					seen.record(batch)
					if err := pass(ctx, 2*time.Second); err != nil {
						return nil, err
					}
					var failed batchasync.BatchError
					if i := slices.Index(batch, -1); i >= 0 {
						failed.Fail(i, batchasync.Permanent(errors.New("no such row")))
					}
					return quoted(batch), failed.Err()
				}}, append(opts, batchasync.Dedup())...)
				ctx, cancel := context.WithCancel(context.Background())
				if opts == nil {
					time.AfterFunc(time.Second, cancel)
				}
				a.WithContext(ctx)
				var running sync.WaitGroup
				running.Go(func() {
					_, err := a.Bundle(batchasynctest.Values(-1, 1, 2)...)
					require.Error(t, err)
				})
				running.Go(func() {
					time.Sleep(time.Millisecond)
					out, err := b.Bundle(batchasynctest.Values(2, 1)...)
					require.NoError(t, err)
					batchasynctest.RequireExactlyOnce(t, batchasynctest.Values(2, 1), out, quotedValue)
				})
				running.Wait()
				cancel()
				require.Equal(t, [][]int{{-1, 1, 2}, {2, 1}}, seen.batches)
			})
		})
	}
}

func TestAWaitForAnotherBatchEndsWithTheBundle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := two(t, &script{call: func(_ context.Context, batch []int) ([]string, error) {
			time.Sleep(10 * time.Second)
			return quoted(batch), nil
		}}, batchasync.Dedup())
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		b.WithContext(ctx)
		var running sync.WaitGroup
		running.Go(func() {
			_, err := a.Bundle(numbers(1)...)
			require.NoError(t, err)
		})
		running.Go(func() {
			time.Sleep(time.Millisecond)
			start := time.Now()
			_, err := b.Bundle(numbers(1)...)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Less(t, time.Since(start), time.Second)
		})
		running.Wait()
	})
}

func TestAnAnswerIsKeptForItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		a, b := two(t, poisoned(&seen, nil), batchasync.Cache(100, time.Minute), batchasync.BatchSize(2))
		ask := func(h *batchasynctest.Harness, hits int, values ...int) {
			out, err := h.Bundle(batchasynctest.Values(values...)...)
			require.NoError(t, err)
			batchasynctest.RequireExactlyOnce(t, batchasynctest.Values(values...), out, quotedValue)
			require.EqualValues(t, hits, out.Counter(batchasync.MetricsNamespace, "cache_hits"))
			require.EqualValues(t, len(values), out.Counter(batchasync.MetricsNamespace, "elements"))
			require.EqualValues(t, len(values), out.Counter(batchasync.MetricsNamespace, "results"))
		}
		ask(a, 0, 1, 2)
		ask(b, 4, 1, 2, 2, 1) // by another instance
		ask(a, 3, 3, 1, 1, 2, 4)
		require.Equal(t, [][]int{{1, 2}, {3, 4}}, seen.batches, "a hit takes no place in a batch")
		time.Sleep(time.Minute)
		ask(a, 0, 1)
		require.Equal(t, []int{1}, seen.batches[2])
	})
}

func TestAHitKeepsItsPlaceInEventTimeAndItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(_ context.Context, batch []int) ([]string, error) {
			seen.record(batch)
			time.Sleep(time.Second)
			return quoted(batch), nil
		}}, batchasync.Cache(100, time.Minute), batchasync.Ordered(), batchasync.BatchSize(4)))
		_, err := h.Bundle(numbers(10)...)
		require.NoError(t, err)
		require.Len(t, seen.batches, 3)
		var elements []batchasynctest.Element
		for i := range 20 {
			elements = append(elements, element(19-i))
		}
		for i := range elements {
			elements[i].Timestamp = element(i).Timestamp
		}
		out, err := h.Bundle(elements...)
		require.NoError(t, err)
		batchasynctest.RequireExactlyOnce(t, elements, out, quotedValue)
		require.True(t, slices.IsSortedFunc(out.Results(), func(a, b batchasynctest.Element) int { return int(a.Timestamp - b.Timestamp) }))
		for _, batch := range seen.batches[3:] {
			for _, v := range batch {
				require.GreaterOrEqual(t, v, 10, "only what is not kept is asked for")
			}
		}
	})
}

func TestTheCallerSaysWhatIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		call := func(_ context.Context, batch []int) ([]string, error) {
			seen.record(batch)
			var failed batchasync.BatchError
			for i, v := range batch {
				switch v {
				case 1:
					failed.Fail(i, batchasync.Permanent(errors.New("no such row")))
				case 2:
					failed.Fail(i, batchasync.Permanent(errors.New("bad")))
				case 3:
					failed.Fail(i, errors.New("no such row, said a replica"))
				}
			}
			return quoted(batch), failed.Err()
		}
		h := batchasynctest.NewHarness(t, batchasync.New(&keeping{&script{call: call}}, batchasync.Cache(100, time.Minute), batchasync.MaxAttempts(1)))
		for range 2 {
			out, err := h.Bundle(batchasynctest.Values(0, 1, 2, 3, 7)...)
			require.NoError(t, err)
			batchasynctest.RequireExactlyOnce(t, batchasynctest.Values(0, 1, 2, 3, 7), out, quotedValue)
			require.Len(t, out.Failures(), 3)
		}
		require.Equal(t, [][]int{{0, 1, 2, 3, 7}, {2, 3, 7}}, seen.batches)
	})
}

func TestTheCacheIsBounded(t *testing.T) {
	for name, test := range map[string]struct {
		opts []batchasync.Option
		most int // entries
	}{
		"in entries":                    {[]batchasync.Option{batchasync.Cache(50, time.Hour)}, 50},
		"in bytes":                      {[]batchasync.Option{batchasync.Cache(1000, time.Hour), batchasync.CacheBytes(2000)}, 20},
		"in entries, with room for all": {[]batchasync.Option{batchasync.Cache(10, time.Hour), batchasync.CacheBytes(1_000_000)}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := batchasynctest.NewHarness(t, batchasync.New(&keeping{&script{}}, append(test.opts, batchasync.BatchSize(1000))...))
				_, err := h.Bundle(numbers(999)...)
				require.NoError(t, err)
				synctest.Wait()
				out, err := h.Bundle(numbers(999)...) // none is kept before all have been looked up
				require.NoError(t, err)
				hits := out.Counter(batchasync.MetricsNamespace, "cache_hits")
				require.Positive(t, hits)
				require.LessOrEqual(t, hits, int64(test.most))
			})
		})
	}
}

// An element whose call failed never gets an answer from another time.
func TestAFailedCallIsNotAnsweredFromTheCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := false
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(_ context.Context, batch []int) ([]string, error) {
			if down {
				return quoted(batch), errors.New("down")
			}
			return quoted(batch), nil
		}}, batchasync.Cache(100, time.Minute)))
		_, err := h.Bundle(numbers(3)...)
		require.NoError(t, err)
		down = true
		time.Sleep(time.Minute)
		out, err := h.Bundle(numbers(3)...)
		require.NoError(t, err)
		require.Empty(t, out.Results())
		require.Len(t, out.Failures(), 3)
	})
}

func TestAKeyThatPanicsFailsItsElementOnly(t *testing.T) {
	for _, opt := range []batchasync.Option{batchasync.Dedup(), batchasync.Cache(100, time.Minute)} {
		synctest.Test(t, func(t *testing.T) {
			h := batchasynctest.NewHarness(t, batchasync.New(&script{key: func(v int) string {
				switch v {
				case 2:
					panic("two")
				case 5:
					runtime.Goexit()
				}
				return fmt.Sprint(v % 4)
			}}, opt))
			out, err := h.Bundle(numbers(8)...)
			require.NoError(t, err)
			require.Len(t, out.Results(), 6)
			require.Len(t, out.Failures(), 2)
			for i, e := range out.Failures() {
				require.Equal(t, []int{2, 5}[i], e.Value.(batchasync.Failure[int]).Element)
			}
		})
	}
}
