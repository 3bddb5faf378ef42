// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package attempt

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/batchasync/beam-batchasync/batchasync/internal/guard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errBusy = errors.New("the service is busy")
	errBad  = &marked{error: errors.New("no such row"), permanent: true}
)

// marked is an error with what the Classify of these tests makes of it.
type marked struct {
	error
	permanent bool
	after     time.Duration
	elements  map[int]error
}

func part(elements map[int]error) error {
	return &marked{error: fmt.Errorf("%d elements failed", len(elements)), elements: elements}
}

func after(d time.Duration) error { return &marked{error: errBusy, after: d} }

func classify(err error, _ int) Verdict {
	var m *marked
	if errors.As(err, &m) {
		return Verdict{Permanent: m.permanent, RetryAfter: m.after, Elements: m.elements}
	}
	return Verdict{}
}

// An asked is what the service was asked, and how that attempt ended.
type asked struct {
	Info
	batch    []int
	at       time.Duration // since the first attempt
	answered bool
	took     time.Duration
}

// A step answers one call.
type step func(ctx context.Context, batch []int) ([]string, error)

// A scripted service answers call n with its n-th step, and all that follow
// with its last.
type scripted struct {
	steps   []step
	permits time.Duration // the wait for a permit, on top of each pause

	mu     sync.Mutex
	began  time.Time
	calls  []*asked
	pauses []time.Duration

	elements []int
	judge    func(error, int) Verdict                   // in place of classify
	pause    func(context.Context, time.Duration) error // in place of a wait
	done     chan Outcome[string]
	admit    func(context.Context) error
	probes   func() bool // nil: no attempt is a probe
	hedge    func() bool
	hedged   atomic.Int32
	late     atomic.Int32
	ends     []End
	progress []progress
}

// A progress is what Progress was told.
type progress struct {
	results []string
	failed  []int
	open    []bool
}

type callKey struct{}

// Run is the life of a batch, waited for.
func (s *scripted) Run(ctx context.Context, batch []int, policy Policy) Outcome[string] {
	s.began = time.Now()
	s.elements = batch
	s.done = make(chan Outcome[string], 1)
	go Run(ctx, len(batch), &policy, s)
	return <-s.done
}

func (s *scripted) Elements(group []int) []int {
	if group == nil {
		return slices.Clone(s.elements)
	}
	var elements []int
	for _, i := range group {
		elements = append(elements, s.elements[i])
	}
	return elements
}

func (s *scripted) Begin(ctx context.Context, info Info) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.calls)
	s.calls = append(s.calls, &asked{Info: info, at: time.Since(s.began)})
	return context.WithValue(ctx, callKey{}, n)
}

func (s *scripted) End(end End) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.calls) - 1
	if end.Answered {
		n = end.Context.Value(callKey{}).(int)
	}
	s.calls[n].answered, s.calls[n].took = end.Answered, end.Took
	s.ends = append(s.ends, end)
}

func (s *scripted) Admit(ctx context.Context) (probe bool, err error) {
	if s.admit != nil {
		err = s.admit(ctx)
	}
	return s.probes != nil && s.probes(), err
}

func (s *scripted) Hedge() (ended func()) {
	if s.hedge != nil && !s.hedge() {
		return nil
	}
	return func() { s.hedged.Add(1) }
}

func (s *scripted) Late() { s.late.Add(1) }

func (s *scripted) Call(ctx context.Context, batch []int) ([]string, error) {
	n := ctx.Value(callKey{}).(int)
	s.mu.Lock()
	s.calls[n].batch = slices.Clone(batch)
	s.mu.Unlock()
	return s.steps[min(n, len(s.steps)-1)](ctx, batch)
}

func (s *scripted) Classify(err error, n int) Verdict {
	if s.judge != nil {
		return s.judge(err, n)
	}
	return classify(err, n)
}

func (s *scripted) Pause(ctx context.Context, d time.Duration) error {
	s.pauses = append(s.pauses, d)
	if s.pause != nil {
		return s.pause(ctx, d)
	}
	select {
	case <-time.After(d + s.permits):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *scripted) Progress(outcome *Outcome[string], open []bool) {
	s.progress = append(s.progress, progress{slices.Clone(outcome.Results), indices(outcome.Failures), slices.Clone(open)})
}

func (s *scripted) Done(outcome *Outcome[string]) { s.done <- *outcome }

// batches is what was sent, call by call.
func (s *scripted) batches() [][]int {
	var all [][]int
	for _, c := range s.calls {
		all = append(all, c.batch)
	}
	return all
}

// attempts is the number of each call's attempt.
func (s *scripted) attempts() []int {
	var all []int
	for _, c := range s.calls {
		all = append(all, c.Attempt)
	}
	return all
}

// ids numbers the batch ids in the order of their first use.
func (s *scripted) ids() []int {
	var all []int
	seen := map[string]int{}
	for _, c := range s.calls {
		if _, ok := seen[c.BatchID]; !ok {
			seen[c.BatchID] = len(seen)
		}
		all = append(all, seen[c.BatchID])
	}
	return all
}

// input is a batch of n elements, which are not equal to their indices.
func input(n int) []int {
	batch := make([]int, n)
	for i := range batch {
		batch[i] = 100 + i
	}
	return batch
}

// right is what the service answers when it does well.
func right(batch []int) []string {
	results := make([]string, len(batch))
	for i, in := range batch {
		results[i] = fmt.Sprint("result of ", in)
	}
	return results
}

func succeeds(_ context.Context, batch []int) ([]string, error) { return right(batch), nil }

func fails(err error) step {
	return func(context.Context, []int) ([]string, error) { return nil, err }
}

// failsFor fails for the elements at these positions, and answers the others.
func failsFor(err error, positions ...int) step {
	return func(_ context.Context, batch []int) ([]string, error) {
		elements := map[int]error{}
		for _, position := range positions {
			elements[position] = err
		}
		return right(batch), part(elements)
	}
}

// hangs obeys its context.
func hangs(ctx context.Context, _ []int) ([]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// ignores answers after d, whatever its context says, and then with nonsense.
func ignores(d time.Duration) step {
	return func(_ context.Context, batch []int) ([]string, error) {
		time.Sleep(d)
		return make([]string, len(batch)), nil
	}
}

// rejects fails for good as a whole if one of these elements is in the batch.
func rejects(bad ...int) step {
	return func(_ context.Context, batch []int) ([]string, error) {
		for _, in := range batch {
			if slices.Contains(bad, in) {
				return nil, errBad
			}
		}
		return right(batch), nil
	}
}

// policy is the tests' usual one.
func policy() Policy {
	return Policy{Timeout: 10 * time.Second, MaxAttempts: 4, Fixed: time.Second}
}

// indices are those of the failures.
func indices(failures []Failure) []int {
	var all []int
	for _, f := range failures {
		all = append(all, f.Index)
	}
	return all
}

// results is what right answers for n elements, but for the failed ones.
func results(n int, failed ...int) []string {
	all := right(input(n))
	for _, i := range failed {
		all[i] = ""
	}
	return all
}

// living runs a test in a bubble.
func living(t *testing.T, steps []step, test func(t *testing.T, s *scripted)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer time.Sleep(longest) // or calls that run on would be told as a deadlock
		test(t, &scripted{steps: steps})
	})
}

// longest is more than any call of these tests runs on.
const longest = 24 * time.Hour

func TestABatchThatSucceedsIsSentOnce(t *testing.T) {
	slow := func(_ context.Context, batch []int) ([]string, error) {
		time.Sleep(3 * time.Second)
		return right(batch), nil
	}
	living(t, []step{slow}, func(t *testing.T, s *scripted) {
		o := s.Run(t.Context(), input(3), policy())
		require.Equal(t, Outcome[string]{Results: results(3), Calls: 1}, o)
		require.Empty(t, s.pauses)
		c := s.calls[0]
		require.NoError(t, uuid.Validate(c.BatchID))
		require.Equal(t, &asked{
			Info: Info{BatchID: c.BatchID, Attempt: 1, Size: 3}, batch: input(3),
			answered: true, took: 3 * time.Second,
		}, c)
	})
}

func TestABatchThatFailsAsAWholeIsSentAgain(t *testing.T) {
	for name, test := range map[string]struct {
		steps    []step
		attempts []int
		pauses   []time.Duration
		failed   bool
	}{
		"until it succeeds": {
			steps:    []step{fails(errBusy), fails(errBusy), succeeds},
			attempts: []int{1, 2, 3},
			pauses:   []time.Duration{time.Second, time.Second},
		},
		"at most MaxAttempts times": {
			steps:    []step{fails(errBusy)},
			attempts: []int{1, 2, 3, 4},
			pauses:   []time.Duration{time.Second, time.Second, time.Second},
			failed:   true,
		},
		"after the time that the service asks for": {
			steps:    []step{fails(after(7 * time.Second)), fails(errBusy), fails(after(time.Minute)), succeeds},
			attempts: []int{1, 2, 3, 4},
			pauses:   []time.Duration{7 * time.Second, time.Second, time.Minute},
		},
		"with results that come beside an error ignored": {
			steps: []step{func(_ context.Context, batch []int) ([]string, error) {
				return make([]string, len(batch)), errBusy
			}, succeeds},
			attempts: []int{1, 2},
			pauses:   []time.Duration{time.Second},
		},
		"but not if its error is permanent": {
			steps:    []step{fails(errBad), succeeds},
			attempts: []int{1},
			failed:   true,
		},
		"but no more once its error is permanent": {
			steps:    []step{fails(errBusy), fails(errBad), succeeds},
			attempts: []int{1, 2},
			pauses:   []time.Duration{time.Second},
			failed:   true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			living(t, test.steps, func(t *testing.T, s *scripted) {
				o := s.Run(t.Context(), input(3), policy())
				require.NoError(t, o.Err)
				require.Equal(t, test.attempts, s.attempts())
				require.Equal(t, test.pauses, s.pauses)
				require.Equal(t, len(test.attempts), o.Calls)
				require.Equal(t, len(test.pauses), o.Retries)
				for n, batch := range s.batches() {
					require.Equal(t, input(3), batch)
					require.Zero(t, s.ids()[n], "the same elements have the same id")
				}
				if test.failed {
					require.Equal(t, []int{0, 1, 2}, indices(o.Failures))
					require.Empty(t, o.Results)
					return
				}
				require.Empty(t, o.Failures)
				require.Equal(t, results(3), o.Results)
			})
		})
	}
}

func TestAFailureTellsAllOfItsElement(t *testing.T) {
	for name, test := range map[string]struct {
		step      step
		err       error
		permanent bool
		attempts  int
		elapsed   time.Duration
	}{
		"that ran out of attempts": {step: fails(errBusy), err: errBusy, attempts: 4, elapsed: 3 * time.Second},
		"that failed for good":     {step: fails(errBad), err: errBad, permanent: true, attempts: 1},
	} {
		t.Run(name, func(t *testing.T) {
			living(t, []step{test.step}, func(t *testing.T, s *scripted) {
				o := s.Run(t.Context(), input(2), policy())
				want := Failure{
					Err: test.err, Permanent: test.permanent, Attempts: test.attempts,
					BatchID: s.calls[0].BatchID, BatchSize: 2, At: s.began.Add(test.elapsed), Elapsed: test.elapsed,
				}
				for i, f := range o.Failures {
					want.Index = i
					require.True(t, want.At.Equal(f.At))
					f.At = want.At
					require.Equal(t, want, f)
				}
				require.Len(t, o.Failures, 2)
			})
		})
	}
}

func TestAVerdictMaySayMoreThanTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{steps: []step{fails(errBusy)}}
		more := fmt.Errorf("asked about: %w", errBusy)
		s.judge = func(err error, n int) Verdict {
			require.Equal(t, errBusy, err)
			require.Equal(t, 3, n)
			return Verdict{Permanent: true, Err: more}
		}
		o := s.Run(t.Context(), input(3), policy())
		require.Equal(t, more, o.Failures[0].Err)
	})
}

// bound is min(most, initial·2^(n-1)), without overflow.
func bound(initial, most time.Duration, n int) time.Duration {
	if initial == 0 {
		return 0
	}
	if n-1+bits.Len64(uint64(initial)) > 63 {
		return most
	}
	return min(most, initial<<(n-1))
}

func TestBackoffStaysWithinItsBound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := Policy{Max: time.Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(rt, "max"))}
		p.Initial = time.Duration(rapid.Int64Range(0, int64(p.Max)).Draw(rt, "initial"))
		n := rapid.IntRange(1, 100).Draw(rt, "n")
		for range 50 {
			d := p.Backoff(n)
			require.GreaterOrEqual(rt, d, time.Duration(0))
			require.LessOrEqual(rt, d, bound(p.Initial, p.Max, n))
		}
	})
}

func TestBackoffHasFullJitter(t *testing.T) {
	const initial, most = 100 * time.Millisecond, 10 * time.Second
	for _, n := range []int{1, 2, 3, 7, 8, 30, 31, 32, 60, 64, 65, 1000} {
		t.Run(fmt.Sprint("after attempt ", n), func(t *testing.T) {
			limit := bound(initial, most, n)
			low, high := limit, time.Duration(0)
			for range 3000 {
				d := Policy{Initial: initial, Max: most}.Backoff(n)
				low, high = min(low, d), max(high, d)
			}
			// That 3000 draws miss a hundredth of the range is less likely
			// than one in ten trillions.
			require.Less(t, low, limit/100)
			require.Greater(t, high, limit-limit/100)
			require.LessOrEqual(t, high, limit)
		})
	}
	require.Equal(t, time.Minute, Policy{Initial: initial, Max: most, Fixed: time.Minute}.Backoff(60), "a fixed wait has none")
}

func TestTheBackoffGrowsWithTheAttempts(t *testing.T) {
	living(t, []step{fails(errBusy)}, func(t *testing.T, s *scripted) {
		p := Policy{Timeout: time.Second, MaxAttempts: 60, Initial: time.Millisecond, Max: time.Minute}
		o := s.Run(t.Context(), input(1), p)
		require.Equal(t, 60, o.Calls)
		require.Len(t, s.pauses, 59)
		for i, d := range s.pauses {
			require.LessOrEqual(t, d, bound(p.Initial, p.Max, i+1))
		}
		require.Greater(t, slices.Max(s.pauses), time.Second)
	})
}

func TestMaxElapsedBoundsTheLifeOfABatch(t *testing.T) {
	const most = 15 * time.Second
	slow := func(d time.Duration, answer step) step {
		return func(ctx context.Context, batch []int) ([]string, error) {
			select {
			case <-time.After(d):
				return answer(ctx, batch)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	for name, test := range map[string]struct {
		steps    []step
		change   func(*Policy)
		permits  time.Duration
		starts   []time.Duration
		elapsed  time.Duration
		err      error
		attempts []int // of the failures
	}{
		"an attempt gets no more than what is left": {
			steps:  []step{hangs},
			starts: []time.Duration{0, 11 * time.Second}, elapsed: most,
			err: &TimeoutError{After: 4 * time.Second}, attempts: []int{2, 2},
		},
		"nor does one that ignores its context": {
			steps:  []step{ignores(time.Minute)},
			starts: []time.Duration{0, 11 * time.Second}, elapsed: most,
			err: &TimeoutError{After: 4 * time.Second}, attempts: []int{2, 2},
		},
		"a wait that would end later is not begun": {
			steps:  []step{slow(8*time.Second, fails(after(8*time.Second)))},
			starts: []time.Duration{0}, elapsed: 8 * time.Second,
			err: after(8 * time.Second), attempts: []int{1, 1},
		},
		"a wait that ends in time is": {
			steps:  []step{slow(8*time.Second, fails(after(7*time.Second-time.Nanosecond))), fails(errBad)},
			starts: []time.Duration{0, most - time.Nanosecond}, elapsed: most - time.Nanosecond,
			err: errBad, attempts: []int{2, 2},
		},
		"nor begins an attempt later because its permit came late": {
			steps: []step{fails(errBusy)}, permits: time.Minute,
			starts: []time.Duration{0}, elapsed: time.Minute + time.Second,
			err: errBusy, attempts: []int{1, 1},
		},
		"nor the second half of a batch, which fails as the whole did": {
			steps: []step{fails(errBad), hangs}, change: func(p *Policy) { p.Bisect, p.Timeout = true, time.Minute },
			starts: []time.Duration{0, 0}, elapsed: most,
			attempts: []int{2, 1},
		},
		"but a batch is halved as long as there is time, whatever a wait would take": {
			steps: []step{fails(errBad)}, change: func(p *Policy) { p.Bisect, p.Fixed = true, time.Minute },
			starts: []time.Duration{0, 0, 0}, err: errBad, attempts: []int{2, 2},
		},
		"and not when there is none": {
			steps: []step{hangs}, change: func(p *Policy) { p.Bisect, p.Timeout = true, time.Minute },
			starts: []time.Duration{0}, elapsed: most,
			err: &TimeoutError{After: most}, attempts: []int{1, 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			living(t, test.steps, func(t *testing.T, s *scripted) {
				s.permits = test.permits
				p := policy()
				p.MaxElapsed = most
				if test.change != nil {
					test.change(&p)
				}
				o := s.Run(t.Context(), input(2), p)
				require.NoError(t, o.Err)
				require.Equal(t, test.elapsed, time.Since(s.began))
				synctest.Wait() // or a call might not yet have begun
				var starts []time.Duration
				for _, c := range s.calls {
					starts = append(starts, c.at)
				}
				require.Equal(t, test.starts, starts)
				require.Equal(t, []int{0, 1}, indices(o.Failures))
				for i, f := range o.Failures {
					require.Equal(t, test.attempts[i], f.Attempts)
					if test.err != nil {
						require.Equal(t, test.err, f.Err)
					}
					require.Equal(t, lastWith(s.calls, 100+i).BatchID, f.BatchID)
				}
				require.Equal(t, len(test.starts), o.Calls)
			})
		})
	}
}

// lastWith is the last call that an element was in.
func lastWith(calls []*asked, in int) *asked {
	for _, c := range slices.Backward(calls) {
		if slices.Contains(c.batch, in) {
			return c
		}
	}
	return nil
}

func TestWithoutMaxElapsedOnlyTheAttemptsCount(t *testing.T) {
	living(t, []step{fails(after(24 * time.Hour)), succeeds}, func(t *testing.T, s *scripted) {
		o := s.Run(t.Context(), input(2), policy())
		require.Equal(t, results(2), o.Results)
	})
}

func TestABatchThatFailsInPartIsSentAgainInPart(t *testing.T) {
	const n = 5
	for name, test := range map[string]struct {
		steps    []step
		batches  [][]int
		ids      []int
		pauses   []time.Duration
		failed   []int // indices
		attempts []int // of the failures
		sizes    []int // of the failures' batches
	}{
		"for the elements that failed, with the others' results kept": {
			steps:   []step{failsFor(errBusy, 1, 3), succeeds},
			batches: [][]int{{100, 101, 102, 103, 104}, {101, 103}},
			ids:     []int{0, 1},
			pauses:  []time.Duration{time.Second},
		},
		"for ever fewer": {
			steps:   []step{failsFor(errBusy, 0, 2, 4), failsFor(errBusy, 1, 2), failsFor(errBusy, 1), succeeds},
			batches: [][]int{{100, 101, 102, 103, 104}, {100, 102, 104}, {102, 104}, {104}},
			ids:     []int{0, 1, 2, 3},
			pauses:  []time.Duration{time.Second, time.Second, time.Second},
		},
		"with the same id as long as all have failed": {
			steps:   []step{failsFor(errBusy, 0, 1, 2, 3, 4), failsFor(errBusy, 4), failsFor(errBusy, 0), succeeds},
			batches: [][]int{{100, 101, 102, 103, 104}, {100, 101, 102, 103, 104}, {104}, {104}},
			ids:     []int{0, 0, 1, 1},
			pauses:  []time.Duration{time.Second, time.Second, time.Second},
		},
		"but not for those that failed for good": {
			steps: []step{func(_ context.Context, batch []int) ([]string, error) {
				return right(batch), part(map[int]error{0: errBad, 2: errBusy, 4: errBad})
			}, succeeds},
			batches: [][]int{{100, 101, 102, 103, 104}, {102}},
			ids:     []int{0, 1},
			pauses:  []time.Duration{time.Second},
			failed:  []int{0, 4}, attempts: []int{1, 1}, sizes: []int{5, 5},
		},
		"and not at all if all that failed did so for good": {
			steps:   []step{failsFor(errBad, 0, 4), succeeds},
			batches: [][]int{{100, 101, 102, 103, 104}},
			ids:     []int{0},
			failed:  []int{0, 4}, attempts: []int{1, 1}, sizes: []int{5, 5},
		},
		"and not if the mark around them says so": {
			steps: []step{func(_ context.Context, batch []int) ([]string, error) {
				return right(batch), &marked{error: errBusy, permanent: true, elements: map[int]error{1: errBusy}}
			}, succeeds},
			batches: [][]int{{100, 101, 102, 103, 104}},
			ids:     []int{0},
			failed:  []int{1}, attempts: []int{1}, sizes: []int{5},
		},
		"until the attempts are used up": {
			steps:   []step{failsFor(errBusy, 1, 2), failsFor(errBusy, 1), failsFor(errBusy, 0)},
			batches: [][]int{{100, 101, 102, 103, 104}, {101, 102}, {102}, {102}},
			ids:     []int{0, 1, 2, 2},
			pauses:  []time.Duration{time.Second, time.Second, time.Second},
			failed:  []int{2}, attempts: []int{4}, sizes: []int{1},
		},
		"after the longest time that one of them asks for": {
			steps: []step{func(_ context.Context, batch []int) ([]string, error) {
				return right(batch), part(map[int]error{
					0: after(2 * time.Second), 1: after(5 * time.Second), 2: errBusy,
					3: &marked{error: errBusy, permanent: true, after: time.Hour},
				})
			}, succeeds},
			batches: [][]int{{100, 101, 102, 103, 104}, {100, 101, 102}},
			ids:     []int{0, 1},
			pauses:  []time.Duration{5 * time.Second},
			failed:  []int{3}, attempts: []int{1}, sizes: []int{5},
		},
		"also if it failed as a whole before, and does so after": {
			steps:   []step{fails(errBusy), failsFor(errBusy, 0, 2), fails(errBusy), succeeds},
			batches: [][]int{{100, 101, 102, 103, 104}, {100, 101, 102, 103, 104}, {100, 102}, {100, 102}},
			ids:     []int{0, 0, 1, 1},
			pauses:  []time.Duration{time.Second, time.Second, time.Second},
		},
		"also if all have failed and there are no results": {
			steps: []step{func(_ context.Context, batch []int) ([]string, error) {
				return nil, part(map[int]error{0: errBusy, 1: errBusy, 2: errBad, 3: errBusy, 4: errBusy})
			}, succeeds},
			batches: [][]int{{100, 101, 102, 103, 104}, {100, 101, 103, 104}},
			ids:     []int{0, 1},
			pauses:  []time.Duration{time.Second},
			failed:  []int{2}, attempts: []int{1}, sizes: []int{5},
		},
		"with the results of the failed ones ignored": {
			steps: []step{func(_ context.Context, batch []int) ([]string, error) {
				answers := right(batch)
				answers[3] = "nonsense"
				return answers, part(map[int]error{3: errBad})
			}},
			batches: [][]int{{100, 101, 102, 103, 104}},
			ids:     []int{0},
			failed:  []int{3}, attempts: []int{1}, sizes: []int{5},
		},
	} {
		t.Run(name, func(t *testing.T) {
			living(t, test.steps, func(t *testing.T, s *scripted) {
				o := s.Run(t.Context(), input(n), policy())
				require.NoError(t, o.Err)
				require.Equal(t, test.batches, s.batches())
				require.Equal(t, test.ids, s.ids())
				require.Equal(t, test.pauses, s.pauses)
				require.Equal(t, results(n, test.failed...), o.Results)
				require.Equal(t, test.failed, indices(o.Failures))
				for i, f := range o.Failures {
					require.Equal(t, test.attempts[i], f.Attempts)
					require.Equal(t, test.sizes[i], f.BatchSize)
					require.Equal(t, lastWith(s.calls, 100+f.Index).BatchID, f.BatchID)
				}
				for i, c := range s.calls {
					require.Equal(t, i+1, c.Attempt, "it goes on")
					require.Equal(t, len(c.batch), c.Size)
				}
			})
		})
	}
}

func TestEachElementFailsWithItsOwnError(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	for name, mark := range map[string]bool{"for good": true, "when the attempts are used up": false} {
		t.Run(name, func(t *testing.T) {
			answer := func(_ context.Context, batch []int) ([]string, error) {
				return right(batch), &marked{error: errBusy, permanent: mark, elements: map[int]error{1: first, 2: second}}
			}
			living(t, []step{answer}, func(t *testing.T, s *scripted) {
				p := policy()
				p.MaxAttempts = 1
				o := s.Run(t.Context(), input(3), p)
				require.Equal(t, []int{1, 2}, indices(o.Failures))
				require.Equal(t, first, o.Failures[0].Err)
				require.Equal(t, second, o.Failures[1].Err)
				require.Equal(t, mark, o.Failures[0].Permanent)
			})
		})
	}
}

func TestAWrongNumberOfResultsFailsForGood(t *testing.T) {
	answer := func(results int, err error) step {
		return func(context.Context, []int) ([]string, error) { return make([]string, results), err }
	}
	for name, test := range map[string]struct {
		steps   []step
		count   CountError
		failed  []int
		calls   int
		wrapped bool // the error that came with it can be found
	}{
		"too few":                           {steps: []step{answer(2, nil)}, count: CountError{2, 3}, failed: []int{0, 1, 2}, calls: 1},
		"none":                              {steps: []step{fails(nil)}, count: CountError{0, 3}, failed: []int{0, 1, 2}, calls: 1},
		"too many":                          {steps: []step{answer(4, nil)}, count: CountError{4, 3}, failed: []int{0, 1, 2}, calls: 1},
		"too few beside a part that failed": {steps: []step{answer(2, part(map[int]error{1: errBusy}))}, count: CountError{2, 3}, failed: []int{0, 1, 2}, calls: 1, wrapped: true},
		"none beside a part that failed":    {steps: []step{answer(0, part(map[int]error{1: errBusy, 2: errBusy}))}, count: CountError{0, 3}, failed: []int{0, 1, 2}, calls: 1, wrapped: true},
		"only of the part that is sent again": {
			steps: []step{failsFor(errBusy, 0, 2), answer(3, nil)}, count: CountError{3, 2}, failed: []int{0, 2}, calls: 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			living(t, test.steps, func(t *testing.T, s *scripted) {
				o := s.Run(t.Context(), input(3), policy())
				require.Equal(t, test.calls, o.Calls)
				require.Equal(t, test.failed, indices(o.Failures))
				for _, f := range o.Failures {
					require.True(t, f.Permanent)
					var count *CountError
					require.ErrorAs(t, f.Err, &count)
					require.Equal(t, test.count, *count)
					require.ErrorContains(t, f.Err, fmt.Sprintf("%d results for %d elements", count.Results, count.Elements))
					if test.wrapped {
						var m *marked
						require.ErrorAs(t, f.Err, &m)
					}
				}
			})
		})
	}
}

func sinkingCall(value any) { panic(value) }

func TestACallThatPanicsFailsForGood(t *testing.T) {
	t.Run("with its stack", func(t *testing.T) {
		living(t, []step{func(context.Context, []int) ([]string, error) { sinkingCall(errBusy); return nil, nil }}, func(t *testing.T, s *scripted) {
			o := s.Run(t.Context(), input(2), policy())
			require.Equal(t, 1, o.Calls)
			require.Equal(t, []int{0, 1}, indices(o.Failures))
			require.True(t, o.Failures[0].Permanent)
			var panics *guard.PanicError
			require.ErrorAs(t, o.Failures[0].Err, &panics)
			require.Equal(t, "Call", panics.In)
			require.Contains(t, string(panics.Stack), "sinkingCall")
			require.ErrorIs(t, o.Failures[0].Err, errBusy)
			require.True(t, s.calls[0].answered)
		})
	})
	t.Run("by ending its goroutine", func(t *testing.T) {
		living(t, []step{func(context.Context, []int) ([]string, error) { runtime.Goexit(); return nil, nil }}, func(t *testing.T, s *scripted) {
			o := s.Run(t.Context(), input(2), policy())
			require.Equal(t, 1, o.Calls)
			require.Equal(t, []int{0, 1}, indices(o.Failures))
			require.True(t, o.Failures[0].Permanent)
			var exits *guard.GoexitError
			require.ErrorAs(t, o.Failures[0].Err, &exits)
		})
	})
}

func TestACallThatTakesTooLongIsTriedAgain(t *testing.T) {
	for name, test := range map[string]struct {
		step     step
		answered bool
	}{
		"when it obeys its context":   {step: hangs, answered: true},
		"when it ignores its context": {step: ignores(time.Hour)},
		"when it wraps what its context says": {answered: true, step: func(ctx context.Context, _ []int) ([]string, error) {
			<-ctx.Done()
			return nil, fmt.Errorf("query: %w", ctx.Err())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			living(t, []step{test.step, test.step, succeeds}, func(t *testing.T, s *scripted) {
				o := s.Run(t.Context(), input(2), policy())
				require.Equal(t, Outcome[string]{Results: results(2), Calls: 3, Retries: 2, Timeouts: 2}, o)
				require.Equal(t, 22*time.Second, time.Since(s.began), "twice the timeout, and a second")
				for _, c := range s.calls[:2] {
					require.Equal(t, 10*time.Second, c.took)
				}
				if !test.answered {
					require.False(t, s.calls[0].answered)
				}
				require.True(t, s.calls[2].answered)
			})
			living(t, []step{test.step}, func(t *testing.T, s *scripted) {
				o := s.Run(t.Context(), input(2), policy())
				require.Equal(t, 4, o.Timeouts)
				for _, f := range o.Failures {
					require.Equal(t, &TimeoutError{After: 10 * time.Second}, f.Err)
					require.ErrorIs(t, f.Err, context.DeadlineExceeded)
					require.ErrorContains(t, f.Err, "no answer within 10s")
					require.False(t, f.Permanent)
				}
			})
		})
	}
}

func TestATimeoutIsTriedAgainWhateverClassifyMakesOfErrors(t *testing.T) {
	living(t, []step{hangs, ignores(time.Hour), succeeds}, func(t *testing.T, s *scripted) {
		s.judge = func(error, int) Verdict { return Verdict{Permanent: true} }
		o := s.Run(t.Context(), input(2), policy())
		require.Equal(t, Outcome[string]{Results: results(2), Calls: 3, Retries: 2, Timeouts: 2}, o)
	})
}

func TestADeadlineOfTheCallersOwnIsNoTimeout(t *testing.T) {
	living(t, []step{fails(context.DeadlineExceeded), succeeds}, func(t *testing.T, s *scripted) {
		o := s.Run(t.Context(), input(2), policy())
		require.Equal(t, Outcome[string]{Results: results(2), Calls: 2, Retries: 1}, o)
	})
}

func TestALateAnswerIsDropped(t *testing.T) {
	// The first call answers in the middle of the second one.
	slow := func(_ context.Context, batch []int) ([]string, error) {
		time.Sleep(8 * time.Second)
		return right(batch), nil
	}
	living(t, []step{ignores(15 * time.Second), slow}, func(t *testing.T, s *scripted) {
		o := s.Run(t.Context(), input(2), policy())
		require.Equal(t, Outcome[string]{Results: results(2), Calls: 2, Retries: 1, Timeouts: 1}, o)
		time.Sleep(time.Minute)
		require.Equal(t, results(2), o.Results)
	})
}

func TestAnAnswerInTheInstantOfItsTimeoutCountsOnceOrNotAtAll(t *testing.T) {
	late := func(_ context.Context, batch []int) ([]string, error) {
		time.Sleep(10 * time.Second)
		return right(batch), nil
	}
	for range 300 {
		living(t, []step{late}, func(t *testing.T, s *scripted) {
			p := policy()
			p.MaxAttempts = 1
			o := s.Run(t.Context(), input(2), p)
			require.NoError(t, o.Err)
			if s.calls[0].answered {
				require.Equal(t, Outcome[string]{Results: results(2), Calls: 1}, o)
				return
			}
			require.Empty(t, o.Results)
			require.Equal(t, []int{0, 1}, indices(o.Failures))
			require.Equal(t, 1, o.Timeouts)
			require.Equal(t, &TimeoutError{After: 10 * time.Second}, o.Failures[0].Err)
		})
	}
}

func TestABatchEndsAtOnceWithItsContext(t *testing.T) {
	dropped := errors.New("the bundle was dropped")
	for name, test := range map[string]struct {
		steps  []step
		change func(*Policy)
		cancel time.Duration
		calls  int
	}{
		"in a call that obeys it":   {steps: []step{hangs}, cancel: 3 * time.Second, calls: 1},
		"in a call that ignores it": {steps: []step{ignores(time.Minute)}, cancel: 3 * time.Second, calls: 1},
		"in a call that answers it with an error of its own": {
			steps: []step{func(ctx context.Context, _ []int) ([]string, error) {
				<-ctx.Done()
				return nil, errBad
			}}, cancel: 3 * time.Second, calls: 1,
		},
		"in a call that answers it with a part": {
			steps: []step{func(ctx context.Context, batch []int) ([]string, error) {
				<-ctx.Done()
				return right(batch), part(map[int]error{0: ctx.Err()})
			}}, cancel: 3 * time.Second, calls: 1,
		},
		"in a wait between two attempts": {steps: []step{fails(after(time.Minute)), succeeds}, cancel: 3 * time.Second, calls: 1},
		"in the first half, and sends no second": {
			steps: []step{fails(errBad), hangs}, change: func(p *Policy) { p.Bisect = true }, cancel: 3 * time.Second, calls: 2,
		},
		"before its first call": {steps: []step{succeeds}, calls: 0},
	} {
		t.Run(name, func(t *testing.T) {
			living(t, test.steps, func(t *testing.T, s *scripted) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if test.cancel > 0 {
					time.AfterFunc(test.cancel, func() { cancel(dropped) })
				} else {
					cancel(dropped)
				}
				p := policy()
				if test.change != nil {
					test.change(&p)
				}
				o := s.Run(ctx, input(4), p)
				require.Equal(t, dropped, o.Err)
				require.Equal(t, test.cancel, time.Since(s.began))
				synctest.Wait()
				require.Len(t, s.calls, test.calls)
				require.Equal(t, test.calls, o.Calls)
				require.Empty(t, o.Failures, "it is cut off, and has not failed")
				require.Zero(t, o.Timeouts)
			})
		})
	}
}

func TestABatchEndsWhenItsPauseDoesThoughItsContextHasNot(t *testing.T) {
	orphaned := errors.New("the bundle is gone")
	for name, test := range map[string]struct {
		steps  []step
		bisect bool
		calls  int
	}{
		"and is not sent again":                 {steps: []step{fails(errBusy)}, calls: 1},
		"nor is the part of it that failed":     {steps: []step{failsFor(errBusy, 1)}, calls: 1},
		"nor its second half, if it was halved": {steps: []step{fails(errBad), fails(errBusy)}, bisect: true, calls: 2},
	} {
		t.Run(name, func(t *testing.T) {
			living(t, test.steps, func(t *testing.T, s *scripted) {
				s.pause = func(context.Context, time.Duration) error { return orphaned }
				p := policy()
				p.Bisect = test.bisect
				o := s.Run(t.Context(), input(4), p)
				require.Equal(t, orphaned, o.Err)
				require.Equal(t, test.calls, o.Calls)
				require.Zero(t, o.Retries)
				require.Empty(t, o.Failures)
			})
		})
	}
}

func TestAnAnswerCountsThoughTheContextEndsMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &scripted{steps: []step{func(_ context.Context, batch []int) ([]string, error) {
			defer cancel()
			return right(batch), nil
		}}}
		o := s.Run(ctx, input(2), policy())
		if o.Err == nil { // who is first is a race; half an answer there is not
			require.Equal(t, results(2), o.Results)
			return
		}
		require.Empty(t, o.Results)
	})
}

func TestBisectFindsTheElementsThatFail(t *testing.T) {
	for name, test := range map[string]struct {
		n   int
		bad []int // indices
	}{
		"one of two":           {n: 2, bad: []int{1}},
		"the first":            {n: 7, bad: []int{0}},
		"the last":             {n: 7, bad: []int{6}},
		"one in the middle":    {n: 100, bad: []int{50}},
		"two neighbours":       {n: 16, bad: []int{7, 8}},
		"two far apart":        {n: 16, bad: []int{0, 15}},
		"all":                  {n: 5, bad: []int{0, 1, 2, 3, 4}},
		"all of two":           {n: 2, bad: []int{0, 1}},
		"the only one":         {n: 1, bad: []int{0}},
		"none, without halves": {n: 8},
	} {
		t.Run(name, func(t *testing.T) {
			var bad []int
			for _, i := range test.bad {
				bad = append(bad, 100+i)
			}
			living(t, []step{rejects(bad...)}, func(t *testing.T, s *scripted) {
				p := policy()
				p.Bisect = true
				o := s.Run(t.Context(), input(test.n), p)
				require.NoError(t, o.Err)
				require.Equal(t, test.bad, indices(o.Failures))
				for _, f := range o.Failures {
					require.Equal(t, 1, f.BatchSize, "it stood alone")
					require.Equal(t, errBad, f.Err)
					require.True(t, f.Permanent)
					made := 0
					for _, c := range s.calls {
						if slices.Contains(c.batch, 100+f.Index) {
							made++
						}
					}
					require.Equal(t, made, f.Attempts)
				}
				if len(test.bad) < test.n {
					require.Equal(t, results(test.n, test.bad...), o.Results)
				}
				require.Equal(t, 1+2*o.Bisections, o.Calls)
				require.Empty(t, s.pauses, "what failed for good is not waited for")
				for _, attempt := range s.attempts() {
					require.Equal(t, 1, attempt)
				}
				ids := s.ids()
				slices.Sort(ids)
				require.Len(t, slices.Compact(ids), o.Calls, "each half is another request")
			})
		})
	}
}

func TestBisectFindsOneOfAHundredWithFifteenCalls(t *testing.T) {
	for bad := range 100 {
		living(t, []step{rejects(100 + bad)}, func(t *testing.T, s *scripted) {
			p := policy()
			p.Bisect = true
			o := s.Run(t.Context(), input(100), p)
			require.Equal(t, []int{bad}, indices(o.Failures))
			// The halves of 100 are 50, 25, 12 or 13, 6 or 7, 3 or 4, 1 or 2, 1.
			require.LessOrEqual(t, o.Calls, 15)
			require.GreaterOrEqual(t, o.Calls, 13)
		})
	}
}

func TestBisectComesAfterTheAttempts(t *testing.T) {
	t.Run("of each half", func(t *testing.T) {
		living(t, []step{fails(errBusy)}, func(t *testing.T, s *scripted) {
			p := policy()
			p.Bisect, p.MaxAttempts = true, 2
			o := s.Run(t.Context(), input(2), p)
			require.Equal(t, [][]int{{100, 101}, {100, 101}, {100}, {100}, {101}, {101}}, s.batches())
			require.Equal(t, []int{1, 2, 1, 2, 1, 2}, s.attempts())
			require.Equal(t, []int{0, 0, 1, 1, 2, 2}, s.ids())
			require.Equal(t, []int{0, 1}, indices(o.Failures))
			require.Equal(t, 4, o.Failures[0].Attempts)
			require.Equal(t, 4, o.Failures[1].Attempts)
			require.Equal(t, 3, o.Retries)
			require.Equal(t, 1, o.Bisections)
		})
	})
	t.Run("and not if the service told which elements failed", func(t *testing.T) {
		living(t, []step{failsFor(errBusy, 0, 1)}, func(t *testing.T, s *scripted) {
			p := policy()
			p.Bisect, p.MaxAttempts = true, 2
			o := s.Run(t.Context(), input(4), p)
			require.Equal(t, [][]int{{100, 101, 102, 103}, {100, 101}}, s.batches())
			require.Equal(t, []int{0, 1}, indices(o.Failures))
			require.Zero(t, o.Bisections)
		})
	})
	t.Run("of the part that then failed as a whole", func(t *testing.T) {
		living(t, []step{failsFor(errBusy, 1, 3, 4), rejects(103)}, func(t *testing.T, s *scripted) {
			p := policy()
			p.Bisect = true
			o := s.Run(t.Context(), input(5), p)
			require.Equal(t, [][]int{input(5), {101, 103, 104}, {101}, {103, 104}, {103}, {104}}, s.batches())
			require.Equal(t, []int{3}, indices(o.Failures))
			require.Equal(t, 4, o.Failures[0].Attempts)
			require.Equal(t, results(5, 3), o.Results)
		})
	})
	t.Run("also of a call that panics", func(t *testing.T) {
		trips := func(ctx context.Context, batch []int) ([]string, error) {
			if slices.Contains(batch, 102) {
				panic("no nil rows, please")
			}
			return right(batch), nil
		}
		living(t, []step{trips}, func(t *testing.T, s *scripted) {
			p := policy()
			p.Bisect = true
			o := s.Run(t.Context(), input(5), p)
			require.Equal(t, []int{2}, indices(o.Failures))
			require.Equal(t, results(5, 2), o.Results)
		})
	})
}

func TestWithoutBisectABatchThatIsRejectedFailsAsAWhole(t *testing.T) {
	living(t, []step{rejects(101)}, func(t *testing.T, s *scripted) {
		o := s.Run(t.Context(), input(3), policy())
		require.Equal(t, []int{0, 1, 2}, indices(o.Failures))
		require.Equal(t, 1, o.Calls)
		require.Zero(t, o.Bisections)
	})
}

func TestFailFastStopsAtTheFirstElementThatFailsForGood(t *testing.T) {
	for name, test := range map[string]struct {
		steps   []step
		bisect  bool
		batches [][]int
		failed  []int
	}{
		"of a part, and does not send the rest again": {
			steps: []step{func(_ context.Context, batch []int) ([]string, error) {
				return right(batch), part(map[int]error{1: errBad, 2: errBusy})
			}},
			batches: [][]int{{100, 101, 102, 103}}, failed: []int{1},
		},
		"of a half, and does not send the other": {
			steps: []step{rejects(100, 103)}, bisect: true,
			batches: [][]int{{100, 101, 102, 103}, {100, 101}, {100}}, failed: []int{0},
		},
		"of the other half, when the one was good": {
			steps: []step{rejects(102)}, bisect: true,
			batches: [][]int{{100, 101, 102, 103}, {100, 101}, {102, 103}, {102}}, failed: []int{2},
		},
		"and not at one that another attempt may save": {
			steps:   []step{failsFor(errBusy, 1), succeeds},
			batches: [][]int{{100, 101, 102, 103}, {101}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			living(t, test.steps, func(t *testing.T, s *scripted) {
				p := policy()
				p.FailFast, p.Bisect = true, test.bisect
				o := s.Run(t.Context(), input(4), p)
				require.NoError(t, o.Err)
				require.Equal(t, test.batches, s.batches())
				require.Equal(t, test.failed, indices(o.Failures))
			})
		})
	}
}

func TestFailuresComeInTheOrderOfTheirIndex(t *testing.T) {
	// The last elements fail first, and the first ones last.
	partly := func(elements map[int]error) step {
		return func(_ context.Context, batch []int) ([]string, error) { return right(batch), part(elements) }
	}
	steps := []step{
		partly(map[int]error{0: errBusy, 1: errBusy, 3: errBad, 4: errBad}),
		partly(map[int]error{0: errBusy, 1: errBad}),
		partly(map[int]error{0: errBad}),
	}
	living(t, steps, func(t *testing.T, s *scripted) {
		o := s.Run(t.Context(), input(5), policy())
		require.Equal(t, []int{0, 1, 3, 4}, indices(o.Failures))
		var attempts []int
		for _, f := range o.Failures {
			attempts = append(attempts, f.Attempts)
		}
		require.Equal(t, []int{3, 2, 1, 1}, attempts)
	})
}

// A move is what the service of the property test does with a call.
type move struct {
	kind     string
	failing  []bool // by position, for a part
	forGood  []bool // of these
	results  int    // for a wrong number: that many more or fewer
	duration time.Duration
}

func drawMove(t *rapid.T) move {
	return move{
		kind: rapid.SampledFrom([]string{
			"answer", "answer", "slow", "tie", "busy", "after", "bad", "part", "part", "part",
			"miscount", "partMiscount", "panic", "goexit", "hang", "ignore",
		}).Draw(t, "kind"),
		failing:  rapid.SliceOfN(rapid.Bool(), 8, 8).Draw(t, "failing"),
		forGood:  rapid.SliceOfN(rapid.Bool(), 8, 8).Draw(t, "forGood"),
		results:  rapid.SampledFrom([]int{-8, -1, 1}).Draw(t, "results"),
		duration: time.Duration(rapid.IntRange(0, 30).Draw(t, "duration")) * time.Second,
	}
}

// step is the move, and tells told which elements it answered.
func (m move) step(timeout time.Duration, told func(ins ...int)) step {
	return func(ctx context.Context, batch []int) ([]string, error) {
		all := right(batch)
		switch m.kind {
		case "slow":
			time.Sleep(timeout - 1)
			fallthrough
		case "answer":
			told(batch...)
			return all, nil
		case "tie":
			time.Sleep(timeout)
			return all, nil
		case "busy":
			return nil, errBusy
		case "after":
			return nil, after(m.duration)
		case "bad":
			return nil, errBad
		case "miscount":
			return make([]string, max(len(batch)+m.results, 0)), nil
		case "panic":
			panic("as scripted")
		case "goexit":
			runtime.Goexit()
		case "hang":
			<-ctx.Done()
			return nil, ctx.Err()
		case "ignore":
			time.Sleep(timeout + m.duration + 1)
			for i := range batch {
				batch[i], all[i] = -1, "late"
			}
			return all, nil
		}
		// A part, all or none of which may fail.
		elements := map[int]error{}
		for i, in := range batch {
			switch {
			case !m.failing[i] && m.kind == "part":
				told(in)
			case !m.failing[i]:
			case m.forGood[i]:
				elements[i] = errBad
			default:
				elements[i] = after(m.duration)
			}
		}
		if m.kind == "partMiscount" {
			return make([]string, max(len(batch)+m.results, 0)), part(elements)
		}
		if len(elements) == len(batch) {
			return nil, part(elements)
		}
		return all, part(elements)
	}
}

func TestEachElementHasAResultOrAFailureWhateverTheServiceDoes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(rt, "n")
		seconds := rapid.Map(rapid.IntRange(0, 60), func(n int) time.Duration { return time.Duration(n) * time.Second })
		p := Policy{
			Timeout:     10 * time.Second,
			MaxElapsed:  rapid.OneOf(rapid.Just(time.Duration(0)), seconds).Draw(rt, "maxElapsed"),
			MaxAttempts: rapid.IntRange(1, 4).Draw(rt, "maxAttempts"),
			Fixed:       seconds.Draw(rt, "fixed"),
			Initial:     time.Second,
			Max:         30 * time.Second,
			Bisect:      rapid.Bool().Draw(rt, "bisect"),
			FailFast:    rapid.Bool().Draw(rt, "failFast"),
		}
		permits := rapid.OneOf(rapid.Just(time.Duration(0)), seconds).Draw(rt, "permits")
		moves := rapid.SliceOfN(rapid.Custom(drawMove), 1, 12).Draw(rt, "moves")

		// The bubble observes only: if it failed, rapid could not shrink.
		s := &scripted{permits: permits}
		var o Outcome[string]
		var elapsed time.Duration
		answered := map[int]int{} // by element
		synctest.Test(t, func(*testing.T) {
			for _, m := range moves {
				s.steps = append(s.steps, m.step(p.Timeout, func(ins ...int) {
					s.mu.Lock()
					defer s.mu.Unlock()
					for _, in := range ins {
						answered[in]++
					}
				}))
			}
			o = s.Run(context.Background(), input(n), p)
			elapsed = time.Since(s.began)
			time.Sleep(longest)
		})

		require.NoError(rt, o.Err)
		require.Len(rt, s.calls, o.Calls)
		failed := map[int]Failure{}
		for i, f := range o.Failures {
			require.NotContains(rt, failed, f.Index, "it failed twice")
			failed[f.Index] = f
			if i > 0 {
				require.Greater(rt, f.Index, o.Failures[i-1].Index)
			}
			require.Error(rt, f.Err)
		}
		made := map[int]int{}
		same := map[string][]int{}
		for _, c := range s.calls {
			require.LessOrEqual(rt, c.Attempt, p.MaxAttempts)
			require.Equal(rt, len(c.batch), c.Size)
			if p.MaxElapsed > 0 {
				require.Less(rt, c.at, p.MaxElapsed)
				require.LessOrEqual(rt, c.at+c.took, p.MaxElapsed)
			}
			if batch, ok := same[c.BatchID]; ok {
				require.Equal(rt, batch, c.batch, "the id is another's")
			}
			same[c.BatchID] = c.batch
			for _, in := range c.batch {
				made[in]++
			}
		}
		for i, in := range input(n) {
			f, bad := failed[i]
			switch {
			case bad:
				require.Equal(rt, made[in], f.Attempts)
				require.Equal(rt, lastWith(s.calls, in).BatchID, f.BatchID)
				require.Equal(rt, lastWith(s.calls, in).Size, f.BatchSize)
				require.LessOrEqual(rt, f.Elapsed, elapsed)
				if len(o.Results) > 0 {
					require.Empty(rt, o.Results[i], "a failure and a result")
				}
			case p.FailFast && len(failed) > 0:
			default:
				require.Equal(rt, right([]int{in})[0], o.Results[i])
			}
			require.LessOrEqual(rt, answered[in], 1, "it was sent again though it had its answer")
		}
		if p.MaxElapsed == 0 && (!p.FailFast || len(failed) == 0) {
			require.Equal(rt, 1+o.Retries+2*o.Bisections, o.Calls)
		}
	})
}

func TestBisectIsolatesWhateverElementsFail(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 64).Draw(rt, "n")
		bad := rapid.SliceOfDistinct(rapid.IntRange(100, 100+n-1), rapid.ID[int]).Draw(rt, "bad")
		slices.Sort(bad)
		s := &scripted{steps: []step{rejects(bad...)}}
		p := policy()
		p.Bisect = true
		var o Outcome[string]
		synctest.Test(t, func(*testing.T) { o = s.Run(context.Background(), input(n), p) })

		require.Len(rt, o.Failures, len(bad))
		for i, f := range o.Failures {
			require.Equal(rt, bad[i]-100, f.Index)
			require.Equal(rt, 1, f.BatchSize)
		}
		for i, in := range input(n) {
			if !slices.Contains(bad, in) {
				require.Equal(rt, right([]int{in})[0], o.Results[i])
			}
		}
		// Each level holds at most one failing group for each bad element,
		// and each of them makes two calls.
		require.LessOrEqual(rt, o.Calls, 1+2*len(bad)*bits.Len(uint(n-1)))
		require.LessOrEqual(rt, o.Calls, 2*n-1)
	})
}
