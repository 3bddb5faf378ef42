// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

func init() {
	batchasync.Register(&script{})
	batchasync.Register(&recorder{})
}

// script is a caller whose methods are a test's. It can't travel; the harness
// uses it as it is.
type script struct {
	call        func(ctx context.Context, batch []int) ([]string, error)
	setup       func(context.Context) error
	teardown    func(context.Context) error
	elementSize func(int) int
	key         func(int) string
	retryable   func(error) bool
}

func (s *script) Call(ctx context.Context, batch []int) ([]string, error) {
	if s.call == nil {
		return quoted(batch), nil
	}
	return s.call(ctx, batch)
}

func (s *script) Setup(ctx context.Context) error {
	if s.setup == nil {
		return nil
	}
	return s.setup(ctx)
}

func (s *script) Teardown(ctx context.Context) error {
	if s.teardown == nil {
		return nil
	}
	return s.teardown(ctx)
}

func (s *script) ElementSize(v int) int {
	if s.elementSize == nil {
		return 8
	}
	return s.elementSize(v)
}

func (s *script) Key(v int) string {
	if s.key == nil {
		return fmt.Sprint(v)
	}
	return s.key(v)
}

func (*script) Idempotent() bool { return true }

func (s *script) Retryable(err error) bool { return s.retryable == nil || s.retryable(err) }

func quoted(batch []int) []string {
	out := make([]string, len(batch))
	for i, v := range batch {
		out[i] = fmt.Sprintf("<%d>", v)
	}
	return out
}

func quotedValue(v any) any { return fmt.Sprintf("<%d>", v) }

func numbers(n int) []batchasynctest.Element {
	values := make([]int, n)
	for i := range values {
		values[i] = i
	}
	return batchasynctest.Values(values...)
}

// calls records the batches of a script.
type calls struct {
	mu      sync.Mutex
	batches [][]int
}

func (c *calls) record(batch []int) (number int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batches = append(c.batches, append([]int(nil), batch...))
	return len(c.batches)
}

func pass(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestABundleEndsWithEveryElementAnsweredOnce(t *testing.T) {
	for _, n := range []int{0, 1, 99, 100, 101, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			h := batchasynctest.NewHarness(t, batchasync.New(&script{}))
			out, err := h.Bundle(numbers(n)...)
			require.NoError(t, err)
			batchasynctest.RequireExactlyOnce(t, numbers(n), out, quotedValue)
			require.EqualValues(t, n, out.Counter(batchasync.MetricsNamespace, "elements"))
		})
	}
}

func TestABatchThatFailsInPartIsSentAgainForTheElementsThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		var infos []batchasync.Info
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
			infos = append(infos, batchasync.InfoFrom(ctx))
			var failed batchasync.BatchError
			if seen.record(batch) == 1 {
				failed.Fail(1, errors.New("busy"))
				failed.Fail(3, batchasync.Permanent(errors.New("bad")))
			}
			return quoted(batch), failed.Err()
		}}))
		out, err := h.Bundle(numbers(5)...)
		require.NoError(t, err)
		require.Equal(t, [][]int{{0, 1, 2, 3, 4}, {1}}, seen.batches)
		batchasynctest.RequireExactlyOnce(t, numbers(5), out, quotedValue)
		require.Len(t, out.Failures(), 1)
		failure := out.Failures()[0].Value.(batchasync.Failure[int])
		require.Equal(t, 3, failure.Element)
		require.Equal(t, "bad", failure.Error)
		require.True(t, failure.Permanent)
		require.Equal(t, 1, failure.Attempts)
		require.Equal(t, 2, infos[1].Attempt)
		require.NotEqual(t, infos[0].BatchID, infos[1].BatchID, "another request must not have the same idempotency key")
	})
}

func TestAFailedBundleSaysWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("connection refused")
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(context.Context, []int) ([]string, error) {
			return nil, broken
		}}, batchasync.FailBundle(), batchasync.RetryInterval(time.Second)))
		_, err := h.Bundle(numbers(7)...)
		require.ErrorIs(t, err, broken)
		var call *batchasync.CallError
		require.ErrorAs(t, err, &call)
		require.Equal(t, 7, call.Size)
		require.Equal(t, 4, call.Attempts)
		require.Equal(t, 3*time.Second, call.Elapsed)
		require.False(t, call.Permanent)

		// The same instance serves the next bundle.
		_, err = h.Bundle(numbers(1)...)
		require.ErrorIs(t, err, broken)
	})
}

func TestAWholeBatchIsRetriedWithTheSameIDAndTheNextAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var infos []batchasync.Info
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
			infos = append(infos, batchasync.InfoFrom(ctx))
			if len(infos) < 3 {
				return nil, errors.New("busy")
			}
			return quoted(batch), nil
		}}))
		out, err := h.Bundle(numbers(3)...)
		require.NoError(t, err)
		batchasynctest.RequireExactlyOnce(t, numbers(3), out, quotedValue)
		require.Len(t, infos, 3)
		for i, info := range infos {
			require.Equal(t, infos[0].BatchID, info.BatchID)
			require.Equal(t, i+1, info.Attempt)
			require.Equal(t, "bundle-1", info.Bundle)
			require.Contains(t, info.Transform, "script")
		}
		require.EqualValues(t, 3, out.Counter(batchasync.MetricsNamespace, "calls"))
		require.EqualValues(t, 2, out.Counter(batchasync.MetricsNamespace, "retries"))
		require.Zero(t, batchasync.InfoFrom(t.Context()))
	})
}

func TestTheWaitForABackoffAndForAPermitIsCountedAsThrottling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
			if seen.record(batch) == 1 {
				return nil, batchasync.RetryAfter(errors.New("429"), 7*time.Second)
			}
			return quoted(batch), pass(ctx, time.Second)
		}}, batchasync.MaxInFlight(1), batchasync.BatchSize(1)))
		out, err := h.Bundle(numbers(1)...)
		require.NoError(t, err)
		require.EqualValues(t, 7000, out.Counter("beam-throttling-metrics", "throttling-msecs"))

		// Three calls of a second, one at a time: the others wait for two.
		out, err = h.Bundle(numbers(3)...)
		require.NoError(t, err)
		require.EqualValues(t, 2000, out.Counter("beam-throttling-metrics", "throttling-msecs"))
	})
}

func TestAnAnswerThatComesAfterItsTimeoutIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(_ context.Context, batch []int) ([]string, error) {
			if seen.record(batch) == 1 {
				_ = pass(context.Background(), 3*time.Second) // deaf to its context
				clear(batch)
				return []string{"late", "late"}, nil
			}
			return quoted(batch), nil
		}}, batchasync.Timeout(time.Second), batchasync.RetryInterval(time.Second)))
		out, err := h.Bundle(numbers(2)...)
		require.NoError(t, err)
		batchasynctest.RequireExactlyOnce(t, numbers(2), out, quotedValue)
		require.EqualValues(t, 1, out.Counter(batchasync.MetricsNamespace, "timeouts"))
		require.NoError(t, pass(t.Context(), time.Minute)) // until the late call has ended
	})
}

func TestATimeoutAtTheMomentOfTheAnswerLeavesOneOfThem(t *testing.T) {
	for i := range 200 {
		synctest.Test(t, func(t *testing.T) {
			h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
				return quoted(batch), pass(context.WithoutCancel(ctx), time.Second)
			}}, batchasync.Timeout(time.Second), batchasync.MaxAttempts(1+i%3), batchasync.BatchSize(2), batchasync.MaxInFlight(3)))
			out, err := h.Bundle(numbers(9)...)
			require.NoError(t, err)
			batchasynctest.RequireExactlyOnce(t, numbers(9), out, quotedValue)
			require.NoError(t, pass(t.Context(), time.Minute))
		})
	}
}

func TestACallThatNeverReturnsFailsAfterItsAttemptsAndHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(_ context.Context, batch []int) ([]string, error) {
			if batch[0] == 0 {
				<-stuck
			}
			return quoted(batch), nil
		}}, batchasync.Timeout(time.Second), batchasync.MaxAttempts(2), batchasync.MaxInFlight(1), batchasync.BatchSize(1)))
		out, err := h.Bundle(numbers(20)...)
		require.NoError(t, err)
		batchasynctest.RequireExactlyOnce(t, numbers(20), out, quotedValue)
		require.Len(t, out.Failures(), 1)
		failure := out.Failures()[0].Value.(batchasync.Failure[int])
		require.Equal(t, "no answer within 1s (Timeout, or what was left of MaxElapsed)", failure.Error)
		require.Equal(t, 2, failure.Attempts)
		require.False(t, failure.Permanent)
		close(stuck)
	})
}

func TestAnAbandonedBundleLeavesNoGoroutineBehind(t *testing.T) {
	// The bubble of synctest.Test can't end while a goroutine is left in it.
	synctest.Test(t, func(t *testing.T) {
		var called atomic.Int64
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
			called.Add(1)
			return nil, pass(ctx, time.Hour)
		}}, batchasync.BatchSize(2), batchasync.MaxInFlight(2), batchasync.Timeout(time.Minute), batchasync.MaxAttempts(1)))
		require.NoError(t, h.Start())
		for _, e := range numbers(7) {
			require.NoError(t, h.Process(e))
		}
		h.Abandon()
		start := time.Now()
		synctest.Wait()
		require.NoError(t, pass(t.Context(), time.Minute))
		synctest.Wait()
		require.Equal(t, time.Minute, time.Since(start))
		require.LessOrEqual(t, called.Load(), int64(4))

		// The instance serves the next bundle, and nothing of the old one
		// gets into it.
		require.NoError(t, h.Start())
		require.Empty(t, h.Outputs().Results())
	})
}

func TestTheCollectorStopsTheRetriesOfADroppedBundle(t *testing.T) {
	for name, opts := range map[string][]batchasync.Option{
		"its own ring":  nil,
		"a shared ring": {batchasync.AcrossBundles()},
	} {
		t.Run(name, func(t *testing.T) {
			var called atomic.Int64
			func() {
				// No harness here: it would hold the instance.
				fn := batchasync.New(&script{call: func(context.Context, []int) ([]string, error) {
					called.Add(1)
					return nil, errors.New("down")
				}}, append(opts, batchasync.BatchSize(1), batchasync.RetryInterval(time.Millisecond), batchasync.MaxAttempts(1_000_000_000))...)
				h := batchasynctest.NewHarness(discardCleanup{t}, fn)
				require.NoError(t, h.Start())
				require.NoError(t, h.Process(batchasynctest.Element{Value: 1}))
			}()
			require.Eventually(t, func() bool { return called.Load() > 3 }, 10*time.Second, time.Millisecond)
			require.Eventually(t, func() bool {
				runtime.GC()
				before := called.Load()
				time.Sleep(20 * time.Millisecond) // 20 retries, if it were alive
				return called.Load() == before
			}, 20*time.Second, time.Millisecond)
		})
	}
}

// discardCleanup is a test that keeps no hold of what is to be cleaned up.
type discardCleanup struct{ testing.TB }

func (discardCleanup) Cleanup(func()) {}

func TestABundleThatFailsCancelsItsOtherCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var cancelled atomic.Int64
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
			if batch[0] == 0 {
				return nil, errors.Join(pass(ctx, time.Second), batchasync.Permanent(errors.New("bad")))
			}
			err := pass(ctx, time.Hour)
			if err != nil {
				cancelled.Add(1)
			}
			return quoted(batch), err
		}}, batchasync.BatchSize(1), batchasync.MaxInFlight(8), batchasync.FailBundle(), batchasync.Timeout(2*time.Hour)))
		_, err := h.Bundle(numbers(5)...)
		var call *batchasync.CallError
		require.ErrorAs(t, err, &call)
		require.True(t, call.Permanent)
		synctest.Wait()
		require.EqualValues(t, 4, cancelled.Load())
		require.Equal(t, time.Second, time.Since(start))
	})
}

func TestABundleWhoseContextEndsIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
			return nil, pass(ctx, time.Hour)
		}}, batchasync.Timeout(2*time.Hour))).WithContext(ctx)
		shutdown := errors.New("worker is shut down")
		time.AfterFunc(time.Second, func() { cancel(shutdown) })
		_, err := h.Bundle(numbers(5)...)
		require.ErrorIs(t, err, shutdown)
	})
}

func TestTheSmallestRingsDoNotDeadlock(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			opts := []batchasync.Option{batchasync.BatchSize(1), batchasync.MaxInFlight(1), batchasync.Linger(0)}
			if ordered {
				opts = append(opts, batchasync.Ordered())
			}
			h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
				return quoted(batch), pass(ctx, time.Millisecond)
			}}, opts...))
			out, err := h.Bundle(numbers(100)...)
			require.NoError(t, err)
			batchasynctest.RequireExactlyOnce(t, numbers(100), out, quotedValue)
		})
	}
}

func TestOrderedResultsLeaveInTheOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slowFirst := &script{call: func(ctx context.Context, batch []int) ([]string, error) {
			return quoted(batch), pass(ctx, time.Duration(100-batch[0])*time.Millisecond)
		}}
		var want []any
		for i := range 50 {
			want = append(want, quotedValue(i))
		}
		values := func(out *batchasynctest.Outputs) (got []any) {
			for _, e := range out.Results() {
				got = append(got, e.Value)
			}
			return got
		}
		ordered, err := batchasynctest.NewHarness(t, batchasync.New(slowFirst, batchasync.BatchSize(3), batchasync.Ordered())).Bundle(numbers(50)...)
		require.NoError(t, err)
		require.Equal(t, want, values(ordered))
		free, err := batchasynctest.NewHarness(t, batchasync.New(slowFirst, batchasync.BatchSize(3))).Bundle(numbers(50)...)
		require.NoError(t, err)
		require.NotEqual(t, want, values(free), "or the test shows nothing")
	})
}

func TestABatchIsSentWhenItsFirstElementHasLingered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		var at []time.Duration
		start := time.Now()
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(_ context.Context, batch []int) ([]string, error) {
			seen.record(batch)
			at = append(at, time.Since(start))
			return quoted(batch), nil
		}}, batchasync.BatchSize(3), batchasync.Linger(10*time.Millisecond)))
		require.NoError(t, h.Start())
		for _, e := range numbers(3) { // full before its linger is over, after 9 ms
			require.NoError(t, h.Process(e))
			require.NoError(t, pass(t.Context(), 3*time.Millisecond))
		}
		// The old timer fires at 10 ms; this batch has until 19 ms.
		require.NoError(t, h.Process(batchasynctest.Element{Value: 3}))
		require.NoError(t, pass(t.Context(), 5*time.Millisecond))
		require.NoError(t, h.Process(batchasynctest.Element{Value: 4}))
		require.NoError(t, pass(t.Context(), time.Second))
		require.NoError(t, h.Finish())
		require.Equal(t, [][]int{{0, 1, 2}, {3, 4}}, seen.batches)
		require.Equal(t, []time.Duration{6 * time.Millisecond, 19 * time.Millisecond}, at)
		require.EqualValues(t, 1, h.Outputs().Counter(batchasync.MetricsNamespace, "flush_linger"))
		require.EqualValues(t, 1, h.Outputs().Counter(batchasync.MetricsNamespace, "flush_size"))
	})
}

func TestAnExpiredBatchGrowsWhileNoCallMayStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
			seen.record(batch)
			return quoted(batch), pass(ctx, time.Second)
		}}, batchasync.BatchSize(5), batchasync.Linger(time.Millisecond), batchasync.MaxInFlight(1)))
		require.NoError(t, h.Start())
		for _, e := range numbers(8) {
			require.NoError(t, h.Process(e))
			require.NoError(t, pass(t.Context(), 10*time.Millisecond))
		}
		require.NoError(t, h.Finish())
		require.Equal(t, [][]int{{0}, {1, 2, 3, 4, 5}, {6, 7}}, seen.batches)
	})
}

func TestBatchBytesIsNeverOvershot(t *testing.T) {
	var seen calls
	h := batchasynctest.NewHarness(t, batchasync.New(&script{
		elementSize: func(v int) int { return v },
		call: func(_ context.Context, batch []int) ([]string, error) {
			seen.record(batch)
			return quoted(batch), nil
		},
	}, batchasync.BatchBytes(10), batchasync.Linger(0), batchasync.MaxInFlight(1), batchasync.Ordered()))
	out, err := h.Bundle(batchasynctest.Values(4, 5, 2, 8, 30, 1, 10, 0, 0)...)
	require.NoError(t, err)
	require.Equal(t, [][]int{{4, 5}, {2, 8}, {30}, {1}, {10}, {0, 0}}, seen.batches)
	require.EqualValues(t, 5, out.Counter(batchasync.MetricsNamespace, "flush_bytes"))
	require.Equal(t, batchasynctest.Distribution{Count: 6, Sum: 60, Min: 0, Max: 30}, out.Distribution(batchasync.MetricsNamespace, "batch_bytes"))
}

func TestUserCodeThatPanicsOrEndsItsGoroutineFailsWithAnErrorThatSaysWhere(t *testing.T) {
	breaks := map[string]struct {
		do   func()
		want string
	}{
		"panic":  {func() { panic("boom") }, "panic in %s: boom"},
		"goexit": {func() { runtime.Goexit() }, "%s called runtime.Goexit"},
	}
	for how, broken := range breaks {
		for in, caller := range map[string]*script{
			"Call":        {call: func(context.Context, []int) ([]string, error) { broken.do(); return nil, nil }},
			"Setup":       {setup: func(context.Context) error { broken.do(); return nil }},
			"ElementSize": {elementSize: func(int) int { broken.do(); return 0 }},
			"Key":         {key: func(int) string { broken.do(); return "" }},
			"Retryable": {
				call:      func(context.Context, []int) ([]string, error) { return nil, errors.New("x") },
				retryable: func(error) bool { broken.do(); return true },
			},
		} {
			t.Run(in+" "+how, func(t *testing.T) {
				opts := []batchasync.Option{batchasync.BatchBytes(100), batchasync.Dedup()}
				_, err := batchasynctest.NewHarness(t, batchasync.New(caller, append(opts, batchasync.FailBundle())...)).Bundle(numbers(3)...)
				require.ErrorContains(t, err, fmt.Sprintf(broken.want, in))
				if how == "panic" {
					require.ErrorContains(t, err, "bundle_test.go", "the stack")
				}
				out, err := batchasynctest.NewHarness(t, batchasync.New(caller, opts...)).Bundle(numbers(3)...)
				if in == "Setup" {
					require.ErrorContains(t, err, "set up the caller")
					return
				}
				require.NoError(t, err)
				require.Len(t, out.Failures(), 3)
				batchasynctest.RequireExactlyOnce(t, numbers(3), out, quotedValue)
			})
		}
	}
}

func TestAPanicInTearDownIsAnError(t *testing.T) {
	h := batchasynctest.NewHarness(t, batchasync.New(&script{teardown: func(context.Context) error { panic("boom") }}))
	_, err := h.Bundle(numbers(1)...)
	require.NoError(t, err)
	require.ErrorContains(t, h.Teardown(), "panic in Teardown: boom")
}

func TestAWrongNumberOfResultsIsAnErrorWithBothNumbers(t *testing.T) {
	for _, n := range []int{0, 2, 4} {
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(context.Context, []int) ([]string, error) {
			return make([]string, n), nil
		}}, batchasync.FailBundle()))
		_, err := h.Bundle(numbers(3)...)
		require.ErrorContains(t, err, fmt.Sprintf("Call returned %d results for 3 elements", n))
	}
}

func TestBisectLeavesTheBadElementsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(_ context.Context, batch []int) ([]string, error) {
			seen.record(batch)
			for _, v := range batch {
				if v == 17 || v == 80 {
					return nil, batchasync.Permanent(fmt.Errorf("row %d violates a constraint", v))
				}
			}
			return quoted(batch), nil
		}}, batchasync.Bisect()))
		out, err := h.Bundle(numbers(100)...)
		require.NoError(t, err)
		batchasynctest.RequireExactlyOnce(t, numbers(100), out, quotedValue)
		require.Len(t, out.Failures(), 2)
		for _, e := range out.Failures() {
			f := e.Value.(batchasync.Failure[int])
			require.Equal(t, fmt.Sprintf("row %d violates a constraint", f.Element), f.Error)
			require.Equal(t, 1, f.BatchSize)
		}
		require.Less(t, len(seen.batches), 30)
	})
}

func TestDedupAsksEachKeyOnceAndAnswersEachElement(t *testing.T) {
	var seen calls
	h := batchasynctest.NewHarness(t, batchasync.New(&script{
		key: func(v int) string { return fmt.Sprint(v % 10) },
		call: func(_ context.Context, batch []int) ([]string, error) {
			seen.record(batch)
			var failed batchasync.BatchError
			failed.Fail(3, batchasync.Permanent(errors.New("no 3")))
			out := make([]string, len(batch))
			for i, v := range batch {
				out[i] = fmt.Sprint("k", v%10)
			}
			return out, failed.Err()
		},
	}, batchasync.Dedup()))
	out, err := h.Bundle(numbers(100)...)
	require.NoError(t, err)
	require.Equal(t, [][]int{{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}, seen.batches)
	require.Len(t, out.Failures(), 10)
	batchasynctest.RequireExactlyOnce(t, numbers(100), out, func(v any) any { return fmt.Sprint("k", v.(int)%10) })
}

func TestTheLimitOfCallsHoldsForAllBundlesOfTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inFlight, most atomic.Int64
		h := batchasynctest.NewHarness(t, batchasync.New(&recorder{}, batchasync.MaxInFlight(3), batchasync.BatchSize(2)))
		recorded = func(ctx context.Context) error {
			n := inFlight.Add(1)
			defer inFlight.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			return pass(ctx, time.Second)
		}
		var bundles sync.WaitGroup
		for range 5 {
			instance := h.Clone(t)
			bundles.Go(func() {
				out, err := instance.Bundle(numbers(20)...)
				if err != nil {
					t.Error(err)
					return
				}
				batchasynctest.RequireExactlyOnce(t, numbers(20), out, quotedValue)
			})
		}
		bundles.Wait()
		require.EqualValues(t, 3, most.Load())
	})
}

// recorder is a caller that can travel; recorded runs in each of its calls.
type recorder struct{}

var recorded func(context.Context) error

func (*recorder) Call(ctx context.Context, batch []int) ([]string, error) {
	return quoted(batch), recorded(ctx)
}

func TestTheCallerIsSetUpOnceForAllInstancesAndTornDownWithTheLast(t *testing.T) {
	var setups, teardowns atomic.Int64
	fn := batchasync.New(&script{
		setup:    func(context.Context) error { setups.Add(1); return nil },
		teardown: func(context.Context) error { teardowns.Add(1); return nil },
	})
	first := batchasynctest.NewHarness(t, fn)
	second := first.Clone(t)
	for range 3 {
		for _, h := range []*batchasynctest.Harness{first, second} {
			out, err := h.Bundle(numbers(3)...)
			require.NoError(t, err)
			batchasynctest.RequireExactlyOnce(t, numbers(3), out, quotedValue)
		}
	}
	require.EqualValues(t, 1, setups.Load())
	require.NoError(t, first.Teardown())
	require.Zero(t, teardowns.Load())
	require.NoError(t, second.Teardown())
	require.EqualValues(t, 1, teardowns.Load())
}

func TestACallerThatNobodyUsesIsTornDownAndSetUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var setups, teardowns atomic.Int64
		h := batchasynctest.NewHarness(t, batchasync.New(&script{
			setup:    func(context.Context) error { setups.Add(1); return nil },
			teardown: func(context.Context) error { teardowns.Add(1); return nil },
		}))
		bundle := func() {
			_, err := h.Bundle(numbers(3)...)
			require.NoError(t, err)
		}
		bundle()
		require.NoError(t, pass(t.Context(), 9*time.Minute))
		bundle()
		require.NoError(t, pass(t.Context(), 9*time.Minute))
		require.Zero(t, teardowns.Load())
		require.NoError(t, pass(t.Context(), 2*time.Minute))
		require.EqualValues(t, 1, teardowns.Load())
		bundle()
		require.EqualValues(t, 2, setups.Load())

		// A bundle that stays open longer than that finds the caller up too.
		require.NoError(t, h.Start())
		require.NoError(t, h.Process(batchasynctest.Element{Value: 1}))
		require.NoError(t, pass(t.Context(), time.Hour))
		require.NoError(t, h.Process(batchasynctest.Element{Value: 2}))
		require.NoError(t, h.Finish())
		require.EqualValues(t, 3, setups.Load())
	})
}

func TestSetupGetsAContextThatOutlivesTheBundle(t *testing.T) {
	var kept context.Context
	ctx, cancel := context.WithCancel(t.Context())
	h := batchasynctest.NewHarness(t, batchasync.New(&script{setup: func(ctx context.Context) error {
		kept = ctx
		return nil
	}})).WithContext(ctx)
	_, err := h.Bundle(numbers(1)...)
	require.NoError(t, err)
	cancel()
	require.NoError(t, kept.Err())
}

var (
	userCounter      = beam.NewCounter("user", "rows")
	userDistribution = beam.NewDistribution("user", "sizes")
	userGauge        = beam.NewGauge("user", "last")
)

func TestACallersOwnMetricsAreExact(t *testing.T) {
	h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
		userCounter.Inc(ctx, int64(len(batch)))
		for _, v := range batch {
			userDistribution.Update(ctx, int64(v))
		}
		userGauge.Set(ctx, 42)
		return quoted(batch), nil
	}}, batchasync.BatchSize(7)))
	out, err := h.Bundle(numbers(1000)...)
	require.NoError(t, err)
	require.EqualValues(t, 1000, out.Counter("user", "rows"))
	require.Equal(t, batchasynctest.Distribution{Count: 1000, Sum: 999 * 500, Min: 0, Max: 999}, out.Distribution("user", "sizes"))
	require.EqualValues(t, 42, out.Gauge("user", "last"))
}

func TestTenThousandBundlesLeaveNothingBehind(t *testing.T) {
	h := batchasynctest.NewHarness(t, batchasync.New(&script{}))
	run := func(bundles int) {
		for i := range bundles {
			_, err := h.Bundle(numbers(i % 3)...)
			require.NoError(t, err)
		}
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	run(1000)
	before, goroutines := heap(), runtime.NumGoroutine()
	run(10_000)
	require.Less(t, heap()-before, int64(256<<10), "bytes more after 10,000 bundles")
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines+1)
}

func TestBatchErrorEdges(t *testing.T) {
	for name, tt := range map[string]struct {
		call func(batch []int) ([]string, error)
		want string // of the error; empty: none
	}{
		"a typed nil is no error": {func(b []int) ([]string, error) {
			var none *batchasync.BatchError
			return quoted(b), none
		}, ""},
		"one without failures is no error": {func(b []int) ([]string, error) {
			return quoted(b), &batchasync.BatchError{}
		}, ""},
		"an index beyond the batch is refused": {func(b []int) ([]string, error) {
			var failed batchasync.BatchError
			failed.Fail(3, errors.New("x"))
			return quoted(b), &failed
		}, "BatchError.Fail(3, …) is out of range: the batch has 3 elements"},
		"missing results beside a part failure are refused": {func(b []int) ([]string, error) {
			var failed batchasync.BatchError
			failed.Fail(0, errors.New("x"))
			return nil, &failed
		}, "Call returned 0 results for 3 elements"},
		"results may be missing if all failed": {func(b []int) ([]string, error) {
			var failed batchasync.BatchError
			for i := range b {
				failed.Fail(i, batchasync.Permanent(errors.New("all")))
			}
			return nil, fmt.Errorf("bulk: %w", &failed)
		}, "all"},
		"a part failure that is permanent as a whole is not retried": {func(b []int) ([]string, error) {
			var failed batchasync.BatchError
			failed.Fail(0, errors.New("first"))
			return quoted(b), batchasync.Permanent(&failed)
		}, "first"},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(_ context.Context, b []int) ([]string, error) {
				n++
				return tt.call(b)
			}}, batchasync.FailBundle()))
			_, err := h.Bundle(numbers(3)...)
			if tt.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tt.want)
			}
			require.Equal(t, 1, n)
		})
	}
}

// vagueError panics when it is asked anything while it is nil.
type vagueError struct{ inner error }

func (e *vagueError) Error() string { return e.inner.Error() }
func (e *vagueError) Unwrap() error { return e.inner }

func TestATypedNilErrorDoesNotEndTheWorker(t *testing.T) {
	for name, err := range map[string]error{
		"by itself":           (*vagueError)(nil),
		"marked as permanent": batchasync.Permanent((*vagueError)(nil)),
	} {
		t.Run(name, func(t *testing.T) {
			h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(context.Context, []int) ([]string, error) {
				return nil, err
			}}, batchasync.MaxAttempts(1)))
			out, err := h.Bundle(numbers(3)...)
			require.NoError(t, err)
			require.Len(t, out.Failures(), 3)
		})
	}
}

func TestAnEmptyBatchErrorHidesNoOtherError(t *testing.T) {
	h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(_ context.Context, b []int) ([]string, error) {
		return quoted(b), errors.Join(&batchasync.BatchError{}, errors.New("the connection is broken"))
	}}, batchasync.MaxAttempts(1), batchasync.FailBundle()))
	_, err := h.Bundle(numbers(3)...)
	require.ErrorContains(t, err, "the connection is broken")
}

func TestABisectedBatchDoesNotOverrunARetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen calls
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(_ context.Context, b []int) ([]string, error) {
			seen.record(b)
			return nil, batchasync.RetryAfter(errors.New("not now"), time.Hour)
		}}, batchasync.Bisect(), batchasync.MaxElapsed(time.Minute)))
		_, err := h.Bundle(numbers(4)...)
		require.NoError(t, err)
		require.Len(t, seen.batches, 1)
	})
}

func TestElementSizeFindsTheCallerSetUpHoweverLongTheBundleIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		h := batchasynctest.NewHarness(t, batchasync.New(&script{
			setup:    func(context.Context) error { up.Store(true); return nil },
			teardown: func(context.Context) error { up.Store(false); return nil },
			elementSize: func(int) int {
				if !up.Load() {
					panic("closed")
				}
				return 1
			},
		}, batchasync.BatchBytes(100)))
		require.NoError(t, h.Start())
		require.NoError(t, h.Process(batchasynctest.Element{Value: 1}))
		require.NoError(t, pass(t.Context(), time.Hour))
		require.NoError(t, h.Process(batchasynctest.Element{Value: 2}))
		require.NoError(t, h.Finish())
		require.Len(t, h.Outputs().Results(), 2)
	})
}

func TestAnElementThatGotIntoNoCallIsToldSo(t *testing.T) {
	h := batchasynctest.NewHarness(t, batchasync.New(&script{elementSize: func(int) int { return -1 }},
		batchasync.BatchBytes(100), batchasync.FailBundle()))
	_, err := h.Bundle(numbers(1)...)
	require.ErrorContains(t, err, "an element was refused before any call: ElementSize returned -1: it must not be negative")
}

func TestThrottlingIsCountedWhileTheBundleGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, b []int) ([]string, error) {
			return quoted(b), pass(ctx, time.Second)
		}}, batchasync.BatchSize(1), batchasync.MaxInFlight(1)))
		require.NoError(t, h.Start())
		for _, e := range numbers(10) {
			require.NoError(t, h.Process(e))
		}
		require.Positive(t, h.Outputs().Counter("beam-throttling-metrics", "throttling-msecs"))
		require.NoError(t, h.Finish())
		require.EqualValues(t, 9000, h.Outputs().Counter("beam-throttling-metrics", "throttling-msecs"))
	})
}

func TestAStartOnAnOpenBundleDropsThat(t *testing.T) {
	h := batchasynctest.NewHarness(t, batchasync.New(&script{}))
	require.NoError(t, h.Start())
	require.NoError(t, h.Process(batchasynctest.Element{Value: 1}))
	out, err := h.Bundle(numbers(3)...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, numbers(3), out, quotedValue)
}

// A caller may sort, change or keep the batch that it was given: what is sent
// again, and what is told of an element that failed, is what arrived.
func TestACallMayDoWithItsBatchWhatItLikes(t *testing.T) {
	spoil := func(batch []int) {
		for i := range batch {
			batch[i] = -1
		}
	}
	for name, first := range map[string]func(ctx context.Context, batch []int) ([]string, error){
		"change it and fail": func(_ context.Context, batch []int) ([]string, error) {
			spoil(batch)
			return nil, errors.New("busy")
		},
		"change it and fail in part": func(_ context.Context, batch []int) ([]string, error) {
			answers := quoted(batch)
			spoil(batch)
			var failed batchasync.BatchError
			failed.Fail(1, errors.New("busy"))
			failed.Fail(2, errors.New("busy"))
			return answers, failed.Err()
		},
		"keep it and change it, while the batch is sent again": func(_ context.Context, batch []int) ([]string, error) {
			time.Sleep(13 * time.Second)
			spoil(batch)
			return nil, nil
		},
	} {
		for _, opts := range [][]batchasync.Option{nil, {batchasync.Dedup()}} {
			t.Run(fmt.Sprint(name, ", options ", len(opts)), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var seen calls
					h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
						n := seen.record(batch)
						if n == 1 {
							return first(ctx, batch)
						}
						time.Sleep(5 * time.Second)
						answers := quoted(batch)
						var failed batchasync.BatchError
						if n == 2 {
							failed.Fail(1, errors.New("busy"))
						}
						if n == 3 {
							failed.Fail(0, batchasync.Permanent(errors.New("bad")))
						}
						spoil(batch)
						return answers, failed.Err()
					}}, append(opts, batchasync.Timeout(10*time.Second), batchasync.RetryInterval(time.Second))...))
					out, err := h.Bundle(numbers(4)...)
					require.NoError(t, err)
					require.Len(t, seen.batches, 3)
					last := seen.batches[2][0]
					require.Len(t, out.Results(), 3)
					for _, result := range out.Results() {
						require.NotContains(t, result.Value, "-1")
					}
					require.Len(t, out.Failures(), 1)
					require.Equal(t, last, out.Failures()[0].Value.(batchasync.Failure[int]).Element)
					time.Sleep(time.Minute) // the call that was given up ends
				})
			})
		}
	}
}
