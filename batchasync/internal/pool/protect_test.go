// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// newGated is a pool with limits, of the test alone.
func newGated(limits Limits) *Pool {
	limits.InFlight = max(limits.InFlight, 100)
	return For(newID(), limits, newPlain)
}

func admit(ctx context.Context, p *Pool) error {
	_, err := p.Admit(ctx)
	return err
}

// admitted admits n calls at once, and counts them as they are let through.
func admitted(ctx context.Context, p *Pool, n int) *journal {
	var j journal
	for range n {
		go func() {
			if _, err := p.Admit(ctx); err == nil {
				j.note("in")
			} else {
				j.note("out")
			}
		}()
	}
	synctest.Wait()
	return &j
}

func breakerState(t *testing.T, p *Pool) int64 {
	t.Helper()
	s, ok := p.Breaker()
	require.True(t, ok)
	return s
}

func TestABreakerOpensWaitsAndProbes(t *testing.T) {
	const delay = 10 * time.Second
	synctest.Test(t, func(t *testing.T) {
		p := newGated(Limits{Breaker: &BreakerConfig{Failures: 3, Of: 4, Delay: delay}})
		for _, well := range []bool{false, true, false, false} {
			require.NoError(t, admit(t.Context(), p))
			require.Zero(t, breakerState(t, p))
			p.Report(well)
		}
		require.EqualValues(t, 1, breakerState(t, p), "3 of the last 4 failed")

		waiting := admitted(t.Context(), p, 20)
		time.Sleep(delay * 7 / 10)
		synctest.Wait()
		require.Empty(t, waiting.read())
		time.Sleep(delay * 6 / 10)
		synctest.Wait()
		require.Equal(t, []string{"in"}, waiting.read(), "one probe")
		require.EqualValues(t, 2, breakerState(t, p))

		p.Report(false)
		synctest.Wait()
		require.EqualValues(t, 1, breakerState(t, p))
		time.Sleep(delay * 7 / 10)
		synctest.Wait()
		require.Len(t, waiting.read(), 1)
		time.Sleep(delay * 6 / 10)
		synctest.Wait()
		require.Len(t, waiting.read(), 2, "and one more")

		p.Cut()
		require.EqualValues(t, 1, breakerState(t, p), "a probe that came to no end says nothing")
		time.Sleep(delay * 13 / 10)
		synctest.Wait()
		require.Len(t, waiting.read(), 3)

		p.Report(true)
		synctest.Wait()
		require.Zero(t, breakerState(t, p))
		require.Len(t, waiting.read(), 20, "all that waited")
	})
}

func TestAWaitForABreakerEndsWithItsContext(t *testing.T) {
	gone := errors.New("gone")
	synctest.Test(t, func(t *testing.T) {
		p := newGated(Limits{Breaker: &BreakerConfig{Failures: 1, Of: 1, Delay: time.Hour}})
		p.Report(false)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		require.Equal(t, gone, admit(ctx, p))
	})
}

func TestCutSaysNothingToAClosedBreaker(t *testing.T) {
	p := newGated(Limits{Breaker: &BreakerConfig{Failures: 1, Of: 1, Delay: time.Hour}})
	p.Cut()
	require.Zero(t, breakerState(t, p))
}

func TestCallsStartAtTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newGated(Limits{PerSecond: 10, Burst: 5})
		calls := admitted(t.Context(), p, 50)
		require.Len(t, calls.read(), 5, "the burst")
		for second := 1; second <= 4; second++ {
			time.Sleep(time.Second)
			synctest.Wait()
			require.Len(t, calls.read(), 5+10*second)
		}
		time.Sleep(10 * time.Second)
	})
}

func TestACallThatEndsBeforeItsRateAllowsGivesItsProbeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newGated(Limits{PerSecond: 0.001, Burst: 1, Breaker: &BreakerConfig{Failures: 1, Of: 1, Delay: time.Second}})
		require.NoError(t, admit(t.Context(), p))
		p.Report(false)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.Error(t, admit(ctx, p))
		require.EqualValues(t, 1, breakerState(t, p), "open, not half-open with a probe that nobody makes")
	})
}

// retried lets n retries of batches come that have begun, and counts them.
func retried(p *Pool, n int) *journal {
	var j journal
	for range n {
		start(p, func(permit *Permit) {
			if takeABreak(permit, context.Background(), time.Millisecond) == nil {
				j.note("again")
			}
		})
	}
	return &j
}

func TestTheBudgetBoundsTheShareOfRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newGated(Limits{InFlight: 300, RetryBudget: 0.2})
		for range 50 {
			p.First()
		}
		retries := retried(p, 100)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		require.Len(t, retries.read(), 11, "a fifth of 50, and the one it begins with")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Len(t, retries.read(), 16, "and one a second")
		for range 10 {
			p.First()
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		require.Len(t, retries.read(), 18, "others' first attempts let the waiting ones through")
		time.Sleep(100 * time.Second)
		synctest.Wait()
		require.Len(t, retries.read(), 100, "none is stuck")
	})
}

func TestTheBudgetDoesNotSaveForAStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newGated(Limits{InFlight: 300, RetryBudget: 0.2})
		for range 10_000 {
			p.First()
		}
		time.Sleep(time.Hour)
		retries := retried(p, 100)
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		require.Len(t, retries.read(), 20)
		time.Sleep(100 * time.Second)
	})
}

func TestAWaitForTheBudgetEndsWithItsContext(t *testing.T) {
	gone := errors.New("gone")
	synctest.Test(t, func(t *testing.T) {
		p := newGated(Limits{RetryBudget: 0.001})
		ctx, cancel := context.WithCancelCause(t.Context())
		var ended journal
		for range 3 {
			start(p, func(permit *Permit) {
				err := takeABreak(permit, ctx, 0)
				if err != nil {
					ended.note(err.Error())
				}
			})
			synctest.Wait()
		}
		cancel(gone)
		synctest.Wait()
		require.Equal(t, []string{"gone", "gone"}, ended.read())
		require.Equal(t, 100, usable(p))
	})
}

func TestTryTakesOnlyWhatIsLeftOver(t *testing.T) {
	for name, test := range map[string]struct {
		limits  Limits
		prepare func(p *Pool)
		want    int // permits that Try grants, of 10
	}{
		"all permits are free":        {want: 10},
		"seven are held":              {prepare: func(p *Pool) { hold(p, 97) }, want: 3},
		"somebody waits":              {prepare: func(p *Pool) { hold(p, 101) }},
		"the breaker is open":         {limits: Limits{Breaker: &BreakerConfig{Failures: 1, Of: 1, Delay: time.Hour}}, prepare: func(p *Pool) { p.Report(false) }},
		"the rate has room for two":   {limits: Limits{PerSecond: 0.001, Burst: 2}, want: 2},
		"the budget has room for one": {limits: Limits{RetryBudget: 0.1}, want: 1},
		"the budget has room for four": {limits: Limits{RetryBudget: 0.1}, prepare: func(p *Pool) {
			hold(p, 0)
			for range 30 {
				p.First()
			}
		}, want: 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newGated(test.limits)
				if test.prepare != nil {
					test.prepare(p)
				}
				var got []*Permit
				for range 10 {
					if permit := p.Try(); permit != nil {
						got = append(got, permit)
					}
				}
				require.Len(t, got, test.want)
				for _, permit := range got {
					permit.Return()
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				require.Equal(t, 100, usable(p))
			})
		})
	}
}

// hold holds n permits for a second.
func hold(p *Pool, n int) {
	for range n {
		start(p, func(*Permit) { time.Sleep(time.Second) })
	}
	synctest.Wait()
}

func TestLateAnswersAreCountedOnce(t *testing.T) {
	p := newGated(Limits{})
	p.Late()
	p.Late()
	require.EqualValues(t, 2, p.TakeLate())
	require.Zero(t, p.TakeLate())
	_, ok := p.Breaker()
	require.False(t, ok)
	require.NoError(t, admit(t.Context(), p))
	p.Report(false)
	p.Cut()
	p.First()
}
