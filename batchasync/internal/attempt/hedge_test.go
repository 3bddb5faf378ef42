// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package attempt

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// takes answers after d, unless its context ends before.
func takes(d time.Duration, then step) step {
	return func(ctx context.Context, batch []int) ([]string, error) {
		select {
		case <-time.After(d):
			return then(ctx, batch)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func TestAHedgeAnswersInThePlaceOfASlowCall(t *testing.T) {
	const hedge = 2 * time.Second
	exits := func(context.Context, []int) ([]string, error) { runtime.Goexit(); return nil, nil }
	panics := func(context.Context, []int) ([]string, error) { panic("no") }
	for name, test := range map[string]struct {
		steps    []step
		refused  bool // by Hedge
		answered int  // which call; -1: none
		took     time.Duration
		calls    int
		hedges   int
		late     int32
		fails    error
	}{
		"a call that is quick has none":              {steps: []step{takes(time.Second, succeeds)}, took: time.Second, calls: 1},
		"the hedge is first":                         {steps: []step{takes(9*time.Second, succeeds), takes(time.Second, succeeds)}, answered: 1, took: 3 * time.Second, calls: 2, hedges: 1, late: 1},
		"the first call is first":                    {steps: []step{takes(3*time.Second, succeeds), takes(5*time.Second, succeeds)}, took: 3 * time.Second, calls: 2, hedges: 1, late: 1},
		"none is let in":                             {steps: []step{takes(5*time.Second, succeeds), takes(time.Second, succeeds)}, refused: true, took: 5 * time.Second, calls: 1},
		"the first fails, the hedge answers":         {steps: []step{takes(3*time.Second, fails(errBad)), takes(4*time.Second, succeeds)}, answered: 1, took: 6 * time.Second, calls: 2, hedges: 1},
		"the hedge fails, the first answers":         {steps: []step{takes(5*time.Second, succeeds), takes(time.Second, fails(errBad))}, took: 5 * time.Second, calls: 2, hedges: 1},
		"the hedge ends its goroutine":               {steps: []step{takes(5*time.Second, succeeds), takes(time.Second, exits)}, took: 5 * time.Second, calls: 2, hedges: 1},
		"the hedge panics":                           {steps: []step{takes(5*time.Second, succeeds), takes(time.Second, panics)}, took: 5 * time.Second, calls: 2, hedges: 1},
		"the first ends its goroutine":               {steps: []step{takes(3*time.Second, exits), takes(4*time.Second, succeeds)}, answered: 1, took: 6 * time.Second, calls: 2, hedges: 1},
		"both fail: the last error counts":           {steps: []step{takes(3*time.Second, fails(errBusy)), takes(4*time.Second, fails(errBad))}, answered: 1, took: 6 * time.Second, calls: 2, hedges: 1, fails: errBad},
		"the first fails before the hedge is due":    {steps: []step{takes(time.Second, fails(errBad))}, took: time.Second, calls: 1, fails: errBad},
		"both ignore their context, and answer late": {steps: []step{ignores(time.Minute)}, answered: -1, took: 10 * time.Second, calls: 2, hedges: 1, late: 2, fails: context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			living(t, test.steps, func(t *testing.T, s *scripted) {
				s.hedge = func() bool { return !test.refused }
				p := policy()
				p.Hedge, p.MaxAttempts = hedge, 1
				o := s.Run(t.Context(), input(3), p)
				if test.fails == nil {
					require.Equal(t, results(3), o.Results)
					require.Empty(t, o.Failures)
				} else {
					require.Len(t, o.Failures, 3)
					require.ErrorIs(t, o.Failures[0].Err, test.fails)
				}
				require.Equal(t, test.hedges, o.Hedges)
				require.Equal(t, 1, o.Calls, "an attempt is one, with or without a hedge")
				require.Len(t, s.ends, 1)
				require.Equal(t, test.took, s.ends[0].Took)
				if test.answered < 0 {
					require.False(t, s.ends[0].Answered)
				} else {
					require.Equal(t, test.answered, s.ends[0].Context.Value(callKey{}))
				}
				time.Sleep(longest / 2)
				require.Len(t, s.calls, test.calls)
				for _, c := range s.calls {
					require.Equal(t, s.calls[0].BatchID, c.BatchID, "the same request")
					require.Equal(t, 1, c.Attempt)
					require.Equal(t, input(3), c.batch)
				}
				require.EqualValues(t, test.hedges, s.hedged.Load(), "what let it in hears of its end")
				require.Equal(t, test.late, s.late.Load())
			})
		})
	}
}

// The first call may spoil its batch before the hedge is due.
func TestAHedgeHasABatchOfItsOwn(t *testing.T) {
	spoils := func(_ context.Context, batch []int) ([]string, error) {
		clear(batch)
		time.Sleep(5 * time.Second)
		return nil, nil
	}
	living(t, []step{spoils, succeeds}, func(t *testing.T, s *scripted) {
		p := policy()
		p.Hedge = time.Second
		o := s.Run(t.Context(), input(3), p)
		require.Equal(t, results(3), o.Results)
	})
}

func TestAnAttemptBeginsWhenItIsAdmitted(t *testing.T) {
	living(t, []step{fails(errBusy), succeeds}, func(t *testing.T, s *scripted) {
		s.admit = func(context.Context) error { time.Sleep(time.Minute); return nil }
		p := policy()
		p.MaxElapsed = 90 * time.Second // the wait before the first attempt is not in it
		o := s.Run(t.Context(), input(3), p)
		require.Equal(t, results(3), o.Results)
		require.Equal(t, []time.Duration{time.Minute, 2*time.Minute + time.Second}, []time.Duration{s.calls[0].at, s.calls[1].at})
	})
}

func TestAnAttemptThatIsNotAdmittedInTimeIsNotMade(t *testing.T) {
	waits := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	refuses := func(ctx context.Context) error {
		if _, bounded := ctx.Deadline(); bounded {
			return errors.New("would exceed the deadline")
		}
		return nil
	}
	for name, again := range map[string]func(context.Context) error{"waits for its time": waits, "sees it coming": refuses} {
		t.Run(name, func(t *testing.T) {
			living(t, []step{fails(errBusy)}, func(t *testing.T, s *scripted) {
				first := true
				s.admit = func(ctx context.Context) error {
					if first {
						first = false
						return nil
					}
					return again(ctx)
				}
				p := policy()
				p.MaxElapsed = 90 * time.Second
				o := s.Run(t.Context(), input(2), p)
				require.NoError(t, o.Err)
				require.Len(t, s.calls, 1)
				require.Len(t, o.Failures, 2)
				require.Equal(t, errBusy, o.Failures[1].Err)
				require.Equal(t, 1, o.Failures[1].Attempts)
				require.Equal(t, s.calls[0].BatchID, o.Failures[1].BatchID)
				require.LessOrEqual(t, o.Failures[1].Elapsed, 90*time.Second)
			})
		})
	}
}

func TestAProbeThatFailsIsNoAttemptThatCounts(t *testing.T) {
	p := policy()
	p.MaxAttempts = 3
	fail := fails(errBusy)
	living(t, []step{fail, fail, fail, fail, succeeds}, func(t *testing.T, s *scripted) {
		probes := []bool{false, true, true, false, false}
		s.probes = func() bool { return probes[len(s.calls)] }
		o := s.Run(t.Context(), input(2), p)
		require.Equal(t, results(2), o.Results)
		require.Equal(t, 5, o.Calls)
		require.Equal(t, 5, s.calls[4].Attempt)
	})
	living(t, []step{fail, fail, fail, fail, succeeds}, func(t *testing.T, s *scripted) {
		probes := []bool{false, true, false, false}
		s.probes = func() bool { return probes[len(s.calls)] }
		o := s.Run(t.Context(), input(2), p)
		require.Len(t, s.calls, 4)
		require.Equal(t, 4, o.Failures[0].Attempts)
	})
}

func TestABatchEndsWithItsContextBeforeItIsAdmitted(t *testing.T) {
	gone := errors.New("gone")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		s := &scripted{admit: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		o := s.Run(ctx, input(2), policy())
		require.Equal(t, gone, o.Err)
		require.Empty(t, s.calls)
	})
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{admit: func(context.Context) error { return gone }}
		o := s.Run(t.Context(), input(2), policy())
		require.Equal(t, gone, o.Err, "what admits may know that nobody waits any more")
		require.Empty(t, s.calls)
	})
}

func TestTheEndOfAnAttemptTellsWhatItsErrorMeans(t *testing.T) {
	for name, test := range map[string]struct {
		step step
		want Verdict
		err  bool
	}{
		"a result":    {step: succeeds},
		"busy":        {step: fails(errBusy), err: true},
		"bad":         {step: fails(errBad), want: Verdict{Permanent: true}, err: true},
		"wait":        {step: fails(after(time.Minute)), want: Verdict{RetryAfter: time.Minute}, err: true},
		"wrong count": {step: func(context.Context, []int) ([]string, error) { return nil, nil }, want: Verdict{Permanent: true}, err: true},
	} {
		t.Run(name, func(t *testing.T) {
			living(t, []step{test.step, succeeds}, func(t *testing.T, s *scripted) {
				s.Run(t.Context(), input(2), policy())
				require.Equal(t, test.want, s.ends[0].Verdict)
				require.Equal(t, test.err, s.ends[0].Err != nil)
				require.Equal(t, 2, s.ends[0].Size)
			})
		})
	}
}

func TestProgressTellsOfElementsThatHaveEnded(t *testing.T) {
	part := part(map[int]error{0: errBusy, 2: errBad})
	living(t, []step{func(_ context.Context, batch []int) ([]string, error) { return right(batch), part }, succeeds}, func(t *testing.T, s *scripted) {
		p := policy()
		s.Run(t.Context(), input(3), p)
		require.Empty(t, s.progress, "unless it is wanted")
	})
	living(t, []step{func(_ context.Context, batch []int) ([]string, error) { return right(batch), part }, succeeds}, func(t *testing.T, s *scripted) {
		p := policy()
		p.Early = true
		s.Run(t.Context(), input(3), p)
		require.Equal(t, []progress{{results: results(3, 0, 2), failed: []int{2}, open: []bool{true, false, false}}}, s.progress)
	})
	living(t, []step{rejects(102)}, func(t *testing.T, s *scripted) {
		p := policy()
		p.Early, p.Bisect = true, true
		o := s.Run(t.Context(), input(4), p)
		require.Equal(t, []int{2}, indices(o.Failures))
		require.Equal(t, []progress{
			{results: results(4, 2, 3), open: []bool{false, false, true, true}},
			{results: results(4, 2, 3), failed: []int{2}, open: []bool{false, false, false, true}},
		}, s.progress)
	})
}
