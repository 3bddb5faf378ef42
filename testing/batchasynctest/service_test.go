// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasynctest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const ms = time.Millisecond

var errBad = errors.New("bad element")

func double(n int) (int, error) { return 2 * n, nil }

// An outcome is how a call ended, and when: counted from the start of its test.
type outcome struct {
	At  time.Duration
	Err error
}

// callOnce calls s with a batch of that size.
func callOnce(ctx context.Context, s *Service, size int) outcome {
	_, _, err := Call(ctx, s, make([]int, size), double)
	return outcome{time.Since(s.start), err}
}

// callTogether begins n calls of one element at the same moment, in the order
// of the outcomes.
func callTogether(s *Service, n int) []outcome {
	outcomes := make([]outcome, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { outcomes[i] = callOnce(context.Background(), s, 1) })
		synctest.Wait() // until it has its place in the order
	}
	wg.Wait()
	return outcomes
}

// callForLong has clients that make so many calls between them, each the next as
// soon as it has its answer, and returns the elements answered a second.
func callForLong(tb testing.TB, s *Service, clients, calls, size int) float64 {
	start := time.Now()
	var begun atomic.Int64
	var wg sync.WaitGroup
	batch := make([]int, size)
	for range clients {
		wg.Go(func() {
			for begun.Add(1) <= int64(calls) {
				if _, _, err := Call(context.Background(), s, batch, double); err != nil {
					tb.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return float64(calls*size) / time.Since(start).Seconds()
}

func TestServiceAnswersEachElementInItsPlace(t *testing.T) {
	for _, size := range []int{0, 1, 100} {
		t.Run(fmt.Sprintf("%d elements", size), func(t *testing.T) {
			batch, want := make([]int, size), make([]string, size)
			for i := range batch {
				batch[i], want[i] = i, fmt.Sprint(i)
			}
			got, errs, err := Call(t.Context(), NewService(ServiceConfig{}), batch,
				func(n int) (string, error) { return fmt.Sprint(n), nil })
			require.NoError(t, err)
			require.Nil(t, errs, "no element failed")
			require.Equal(t, want, got)
		})
	}
}

func TestServiceTakesItsBaseLatencyAndMoreForEachElement(t *testing.T) {
	tests := []struct {
		name   string
		config ServiceConfig
		size   int
		want   time.Duration
	}{
		{"no time by default", ServiceConfig{}, 100, 0},
		{"the base latency for an empty batch", ServiceConfig{BaseLatency: 5 * ms, PerElement: ms}, 0, 5 * ms},
		{"both for a batch", ServiceConfig{BaseLatency: 5 * ms, PerElement: 20 * time.Microsecond}, 100, 7 * ms},
		{"only the cost of elements", ServiceConfig{PerElement: 3 * ms}, 7, 21 * ms},
		{"the same with a capacity", ServiceConfig{BaseLatency: time.Hour, Capacity: 1}, 1, time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewService(tt.config)
				require.Equal(t, outcome{tt.want, nil}, callOnce(t.Context(), s, tt.size))
				require.Equal(t, tt.want, s.CallTime(tt.size))
				require.Equal(t, tt.want, s.Stats().Busy)
			})
		})
	}
}

func TestServiceDegradesBeyondItsCapacity(t *testing.T) {
	tests := []struct {
		name   string
		factor float64
		want   []time.Duration // of calls that begin together
	}{
		{"in proportion by default", 0, []time.Duration{100 * ms, 100 * ms, 100 * ms, 100 * ms, 125 * ms, 150 * ms, 175 * ms, 200 * ms}},
		{"in proportion", 1, []time.Duration{100 * ms, 100 * ms, 100 * ms, 100 * ms, 125 * ms, 150 * ms, 175 * ms, 200 * ms}},
		{"beyond proportion", 3, []time.Duration{100 * ms, 100 * ms, 100 * ms, 100 * ms, 175 * ms, 250 * ms, 325 * ms, 400 * ms}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewService(ServiceConfig{BaseLatency: 100 * ms, Capacity: 4, Overload: Degrade, DegradeFactor: tt.factor})
				var want []outcome
				for _, at := range tt.want {
					want = append(want, outcome{at, nil})
				}
				require.Equal(t, want, callTogether(s, len(want)))
				require.Equal(t, 8, s.Stats().MaxInFlight)
			})
		})
	}
}

func TestServiceThroughputUnderLoad(t *testing.T) {
	tests := []struct {
		name    string
		clients int
		config  ServiceConfig
		want    float64 // share of MaxThroughput
	}{
		{"grows with the calls in flight", 4, ServiceConfig{Capacity: 16}, 0.25},
		{"is greatest at capacity", 16, ServiceConfig{Capacity: 16}, 1},
		{"stays with a queue", 64, ServiceConfig{Capacity: 16}, 1},
		{"stays when calls share the service", 64, ServiceConfig{Capacity: 16, Overload: Degrade, DegradeFactor: 1}, 1},
		{"falls to two thirds with factor 2 at twice the capacity", 32, ServiceConfig{Capacity: 16, Overload: Degrade, DegradeFactor: 2}, 2. / 3},
		{"collapses towards 1/k", 96, ServiceConfig{Capacity: 16, Overload: Degrade, DegradeFactor: 4}, 6. / (1 + 4*5)},
		{"doesn't change with jitter", 16, ServiceConfig{Capacity: 16, Jitter: 0.5}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.config.BaseLatency, tt.config.PerElement = 5*ms, 20*time.Microsecond
				s := NewService(tt.config)
				require.InDelta(t, 16*100/0.007, s.MaxThroughput(100), 1e-6)
				require.InEpsilon(t, tt.want, callForLong(t, s, tt.clients, 400*tt.clients, 100)/s.MaxThroughput(100), 0.01)
			})
		})
	}
	require.Equal(t, math.Inf(1), NewService(ServiceConfig{BaseLatency: ms}).MaxThroughput(100), "any number of calls at once")
	require.Equal(t, math.Inf(1), NewService(ServiceConfig{Capacity: 16}).MaxThroughput(100), "calls take no time")
}

func TestServiceRefusesCallsBeyondItsCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewService(ServiceConfig{BaseLatency: 100 * ms, Capacity: 2, Overload: Refuse, RetryAfter: time.Second})
		refused := &OverloadError{InFlight: 2, Capacity: 2, RetryAfter: time.Second}
		require.EqualError(t, refused, "service overloaded: 2 calls in flight, capacity 2 (retry after 1s)")
		require.Equal(t, []outcome{{100 * ms, nil}, {100 * ms, nil}, {0, refused}, {0, refused}}, callTogether(s, 4))
		require.Equal(t, outcome{200 * ms, nil}, callOnce(t.Context(), s, 1), "there is a place again")
		require.Equal(t, ServiceStats{Calls: 5, Elements: 5, Answered: 3, Refused: 2, MaxInFlight: 2, Busy: 300 * ms}, s.Stats())
	})
}

func TestServiceQueuesCallsInTheOrderOfTheirArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewService(ServiceConfig{BaseLatency: 100 * ms, Capacity: 2})
		require.Equal(t, []outcome{
			{100 * ms, nil}, {100 * ms, nil}, {200 * ms, nil}, {200 * ms, nil}, {300 * ms, nil},
		}, callTogether(s, 5))
		require.Equal(t, ServiceStats{Calls: 5, Elements: 5, Answered: 5, MaxInFlight: 5, Busy: 500 * ms}, s.Stats())
	})
}

func TestServiceForgetsACallThatLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewService(ServiceConfig{BaseLatency: 100 * ms, Capacity: 1})
		ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		var outcomes [3]outcome
		var wg sync.WaitGroup
		for i, ctx := range []context.Context{t.Context(), ctx, t.Context()} {
			wg.Go(func() { outcomes[i] = callOnce(ctx, s, 1) })
			synctest.Wait()
		}
		wg.Wait()
		require.Equal(t, [3]outcome{{100 * ms, nil}, {50 * ms, context.DeadlineExceeded}, {200 * ms, nil}}, outcomes)
		require.Equal(t, ServiceStats{Calls: 3, Elements: 3, Answered: 2, Late: 1, MaxInFlight: 3, Busy: 200 * ms}, s.Stats())
	})
}

// A call's turn may come in the moment in which it gives up waiting. No schedule
// brings that about every time, so the steps are taken by hand.
func TestServicePassesOnThePlaceOfACallThatHasGivenUpWaiting(t *testing.T) {
	s := NewService(ServiceConfig{Capacity: 1})
	var visits [3]*visit
	for i := range visits {
		var err error
		visits[i], err = s.arrive(t.Context(), 1)
		require.NoError(t, err)
	}
	hasItsTurn := func(v *visit) bool {
		select {
		case <-v.turn:
			return true
		default:
			return false
		}
	}
	s.leave(visits[0])
	require.True(t, hasItsTurn(visits[1]))
	require.False(t, hasItsTurn(visits[2]))
	s.leave(visits[1]) // without having looked at its turn
	require.True(t, hasItsTurn(visits[2]))
	s.leave(visits[2])
	require.Zero(t, s.serving)
}

func TestServiceJitter(t *testing.T) {
	const calls = 5000
	times := func(t *testing.T, jitter float64, seed uint64) (times []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			s := NewService(ServiceConfig{BaseLatency: 100 * ms, Jitter: jitter, Seed: seed})
			for range calls {
				before := time.Now()
				callOnce(t.Context(), s, 1)
				times = append(times, time.Since(before))
			}
		})
		return times
	}
	mean := func(times []time.Duration) float64 {
		var sum time.Duration
		for _, d := range times {
			sum += d
		}
		return sum.Seconds() / float64(len(times))
	}
	for _, seed := range []uint64{0, 1, 2} {
		t.Run(fmt.Sprintf("from seed %d", seed), func(t *testing.T) {
			half, all := times(t, 0.5, seed), times(t, 1, seed)
			require.Equal(t, half, times(t, 0.5, seed), "the same seed gives the same times")
			require.NotEqual(t, half, times(t, 0.5, seed+1), "another seed gives others")
			require.InDelta(t, 0.1, mean(half), 0.005)
			require.InDelta(t, 0.1, mean(all), 0.005)
			require.GreaterOrEqual(t, slices.Min(half), 50*ms, "the other half is fixed")
			require.Less(t, slices.Min(all), ms)
			slices.Sort(all)
			require.InDelta(t, 0.1*math.Ln2, all[calls/2].Seconds(), 0.005, "the median of an exponential distribution")
		})
	}
}

func TestServiceFailures(t *testing.T) {
	errHook := errors.New("no such table")
	unavailable := func(call int64) error { return &ServiceError{Call: call, Msg: "unavailable"} }
	tests := []struct {
		name   string
		config ServiceConfig
		want   []error // of calls one after the other, with 1, 2, 3… elements
	}{
		{"none", ServiceConfig{}, []error{nil, nil, nil}},
		{"of the first calls", ServiceConfig{FailFirst: 2}, []error{unavailable(1), unavailable(2), nil, nil}},
		{"of all calls", ServiceConfig{FailShare: 1}, []error{unavailable(1), unavailable(2), unavailable(3)}},
		{"of calls of a certain number", ServiceConfig{FailCall: func(c ServiceCall) error {
			if c.Number%2 == 0 {
				return errHook
			}
			return nil
		}}, []error{nil, errHook, nil, errHook}},
		{"of calls of a certain size", ServiceConfig{FailCall: func(c ServiceCall) error {
			if c.Size > 2 {
				return errHook
			}
			return nil
		}}, []error{nil, nil, errHook, errHook}},
		{"the schedule goes before the function", ServiceConfig{FailFirst: 1, FailCall: func(ServiceCall) error { return errHook }},
			[]error{unavailable(1), errHook}},
		{"with the time after which to try again", ServiceConfig{FailFirst: 1, RetryAfter: time.Minute},
			[]error{&ServiceError{Call: 1, Msg: "unavailable", RetryAfter: time.Minute}, nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.config.BaseLatency = 100 * ms
				s := NewService(tt.config)
				var failed int64
				for i, want := range tt.want {
					at := time.Duration(i+1) * 100 * ms // failed calls take their time too
					require.Equal(t, outcome{at, want}, callOnce(t.Context(), s, i+1), "call %d", i+1)
					if want != nil {
						failed++
					}
				}
				require.Equal(t, failed, s.Stats().Failed)
				require.Equal(t, int64(len(tt.want))-failed, s.Stats().Answered)
			})
		})
	}
}

func TestServiceFailsTheShareOfCallsThatItWasTold(t *testing.T) {
	fates := func(share float64, seed uint64) (failed []bool) {
		s := NewService(ServiceConfig{FailShare: share, Seed: seed})
		for range 5000 {
			failed = append(failed, callOnce(t.Context(), s, 1).Err != nil)
		}
		return failed
	}
	for _, share := range []float64{0, 0.01, 0.2, 0.5, 1} {
		for _, seed := range []uint64{0, 1, 2} {
			t.Run(fmt.Sprintf("%v from seed %d", share, seed), func(t *testing.T) {
				got := fates(share, seed)
				var failed float64
				for _, f := range got {
					if f {
						failed++
					}
				}
				// Four standard deviations; the seeds are fixed, so it fails always or never.
				require.InDelta(t, share, failed/5000, 4*math.Sqrt(share*(1-share)/5000))
				require.Equal(t, got, fates(share, seed), "the same seed fails the same calls")
			})
		}
	}
	require.NotEqual(t, fates(0.5, 1), fates(0.5, 2), "another seed fails others")
}

func TestServiceTellsItsHooksHowManyCallsAreInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls []ServiceCall
		s := NewService(ServiceConfig{BaseLatency: 100 * ms, Capacity: 2, FailCall: func(c ServiceCall) error {
			calls = append(calls, c)
			return nil
		}})
		callTogether(s, 3)
		callOnce(t.Context(), s, 5)
		require.Equal(t, []ServiceCall{
			{Number: 1, Size: 1, InFlight: 1}, {Number: 2, Size: 1, InFlight: 2}, {Number: 3, Size: 1, InFlight: 3},
			{Number: 4, Size: 5, InFlight: 1},
		}, calls)
	})
}

func TestServiceIsOutOfServiceInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewService(ServiceConfig{BaseLatency: 10 * ms, RetryAfter: time.Second,
			Outages: []Outage{{100 * ms, 200 * ms}, {300 * ms, 301 * ms}}})
		tests := []struct {
			name string
			at   time.Duration
			down bool
		}{
			{"before", 0, false},
			{"a call that has begun before", 99 * ms, false},
			{"from its beginning", 110 * ms, true},
			{"to its last moment", 200*ms - 1, true},
			{"at its end", 200 * ms, false},
			{"at the beginning of the next", 300 * ms, true},
			{"after all", 301 * ms, false},
		}
		for i, tt := range tests {
			<-time.After(tt.at - time.Since(s.start))
			want := outcome{At: tt.at + 10*ms}
			if tt.down {
				want = outcome{tt.at, &ServiceError{Call: int64(i + 1), Msg: "out of service", RetryAfter: time.Second}}
			}
			require.Equal(t, want, callOnce(t.Context(), s, 1), tt.name)
		}
		require.EqualError(t, &ServiceError{Call: 3, Msg: "out of service", RetryAfter: time.Second},
			"service: call 3: out of service (retry after 1s)")
		require.Equal(t, ServiceStats{Calls: 7, Elements: 7, Answered: 4, Failed: 3, MaxInFlight: 1, Busy: 40 * ms}, s.Stats())
	})
}

func TestServiceFailsBadElements(t *testing.T) {
	isBad := func(element any) error {
		if element == 13 {
			return errBad
		}
		return nil
	}
	tests := []struct {
		name     string
		config   ServiceConfig
		batch    []int
		outs     []int
		errs     []error
		err      error
		answered []int // what answer was called with; it finds 14 bad
	}{
		{"none of them is bad", ServiceConfig{FailElement: isBad}, []int{1, 2}, []int{2, 4}, nil, nil, []int{1, 2}},
		{"FailElement finds one", ServiceConfig{FailElement: isBad}, []int{1, 13, 2}, []int{2, 0, 4}, []error{nil, errBad, nil}, nil, []int{1, 2}},
		{"answer finds one", ServiceConfig{}, []int{14, 1}, []int{0, 2}, []error{errBad, nil}, nil, []int{14, 1}},
		{"both find one", ServiceConfig{FailElement: isBad}, []int{13, 14}, []int{0, 0}, []error{errBad, errBad}, nil, []int{14}},
		{"all or nothing, none is bad", ServiceConfig{FailElement: isBad, AllOrNothing: true}, []int{1, 2}, []int{2, 4}, nil, nil, []int{1, 2}},
		{"all or nothing, FailElement finds one", ServiceConfig{FailElement: isBad, AllOrNothing: true}, []int{1, 13}, nil, nil, errBad, nil},
		{"all or nothing, answer finds one", ServiceConfig{AllOrNothing: true}, []int{1, 14}, nil, nil, errBad, []int{1, 14}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.config.PerElement = 10 * ms
				s := NewService(tt.config)
				var answered []int
				outs, errs, err := Call(t.Context(), s, tt.batch, func(n int) (int, error) {
					answered = append(answered, n)
					if n == 14 {
						return -1, errBad
					}
					return 2 * n, nil
				})
				require.Equal(t, tt.outs, outs)
				require.Equal(t, tt.errs, errs)
				require.Equal(t, tt.err, err)
				require.Equal(t, tt.answered, answered)
				require.Equal(t, time.Duration(len(tt.batch))*10*ms, time.Since(s.start), "bad elements take their time too")
				require.Equal(t, err != nil, s.Stats().Failed == 1)
				require.Equal(t, err == nil, s.Stats().Answered == 1)
			})
		})
	}
}

func TestServiceRefusesBatchesThatAreTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewService(ServiceConfig{BaseLatency: 10 * ms, MaxBatch: 3, Record: true})
		require.Equal(t, outcome{10 * ms, nil}, callOnce(t.Context(), s, 3))
		refused := &TooLargeError{Size: 4, Max: 3}
		require.Equal(t, outcome{10 * ms, refused}, callOnce(t.Context(), s, 4))
		require.EqualError(t, refused, "batch of 4 elements is too large for the service, which takes at most 3")
		require.Equal(t, ServiceStats{Calls: 2, Elements: 7, Answered: 1, Refused: 1, MaxInFlight: 1, Busy: 10 * ms}, s.Stats())
		require.Equal(t, 3.5, s.Stats().MeanBatch())
	})
	require.Zero(t, ServiceStats{}.MeanBatch(), "of no calls")
}

func TestServiceWhenAContextEnds(t *testing.T) {
	errCause := errors.New("the user went away")
	hang := func(ServiceCall) bool { return true }
	tests := []struct {
		name    string
		config  ServiceConfig
		timeout time.Duration // of the call's ctx; 0: it has ended before
		want    outcome
		late    bool
		busy    time.Duration
	}{
		{"after the answer", ServiceConfig{}, 101 * ms, outcome{100 * ms, nil}, false, 100 * ms},
		{"before the answer", ServiceConfig{}, 99 * ms, outcome{99 * ms, errCause}, true, 99 * ms},
		{"before the call", ServiceConfig{}, 0, outcome{0, errCause}, true, 0},
		{"before a failure", ServiceConfig{FailFirst: 1}, 99 * ms, outcome{99 * ms, errCause}, true, 99 * ms},
		{"before the answer, and is ignored", ServiceConfig{IgnoreContext: true}, 99 * ms, outcome{100 * ms, nil}, true, 100 * ms},
		{"before the call, and is ignored", ServiceConfig{IgnoreContext: true}, 0, outcome{100 * ms, nil}, true, 100 * ms},
		{"before a failure, and is ignored", ServiceConfig{IgnoreContext: true, FailFirst: 1}, 99 * ms,
			outcome{100 * ms, &ServiceError{Call: 1, Msg: "unavailable"}}, true, 100 * ms},
		{"in a call that hangs", ServiceConfig{Hang: hang}, time.Hour, outcome{time.Hour, errCause}, true, time.Hour},
		{"in a call that hangs, and is ignored", ServiceConfig{Hang: hang, IgnoreContext: true}, time.Hour,
			outcome{time.Hour, errCause}, true, time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.config.BaseLatency = 100 * ms
				s := NewService(tt.config)
				ctx, cancel := context.WithTimeoutCause(t.Context(), tt.timeout, errCause)
				defer cancel()
				require.Equal(t, tt.want, callOnce(ctx, s, 1))
				stats := s.Stats()
				require.Equal(t, tt.late, stats.Late == 1)
				require.Equal(t, !tt.late, stats.Answered == 1)
				require.Equal(t, int64(1), stats.Answered+stats.Failed+stats.Refused+stats.Late)
				require.Zero(t, stats.InFlight)
				require.Equal(t, tt.busy, stats.Busy)
			})
		})
	}
}

func TestServiceDoesNotAnswerACallWhoseContextHasEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := NewService(ServiceConfig{FailCall: func(ServiceCall) error {
		cancel()
		return nil
	}})
	_, _, err := Call(ctx, s, []int{1}, func(int) (int, error) { panic("not to be called") })
	require.Equal(t, context.Canceled, err)
	require.Equal(t, int64(1), s.Stats().Late)
}

func TestServiceStatsOfCallsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewService(ServiceConfig{BaseLatency: 100 * ms, Capacity: 30})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { callOnce(t.Context(), s, 7) })
		}
		synctest.Wait()
		require.Equal(t, ServiceStats{Calls: 100, Elements: 700, InFlight: 100, MaxInFlight: 100}, s.Stats())
		<-time.After(150 * ms)
		require.Equal(t, ServiceStats{Calls: 100, Elements: 700, Answered: 30, InFlight: 70, MaxInFlight: 100, Busy: 3 * time.Second}, s.Stats())
		wg.Wait()
		require.Equal(t, ServiceStats{Calls: 100, Elements: 700, Answered: 100, MaxInFlight: 100, Busy: 10 * time.Second}, s.Stats())
	})
}

// In real time, for the race detector.
func TestServiceCounts100CallsAtOnce(t *testing.T) {
	s := NewService(ServiceConfig{BaseLatency: ms, Jitter: 1, Capacity: 10, FailShare: 0.5, Record: true})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			for range 10 {
				_, _, _ = Call(t.Context(), s, []int{i, -1}, double) // its fate is counted below
				s.Stats()
			}
		})
	}
	wg.Wait()
	stats := s.Stats()
	require.Equal(t, int64(1000), stats.Calls)
	require.Equal(t, int64(2000), stats.Elements)
	require.Equal(t, int64(1000), stats.Answered+stats.Failed)
	require.Zero(t, stats.InFlight)
	require.Equal(t, 10, s.Asked(99))
	require.Equal(t, 1000, s.Asked(-1))
}

func TestServiceStaysSoundWhateverComes(t *testing.T) {
	type client struct{ Size, Arrives, Timeout int }
	rapid.Check(t, func(rt *rapid.T) {
		millis := rapid.IntRange(0, 10)
		config := ServiceConfig{
			BaseLatency:   time.Duration(millis.Draw(rt, "base latency")) * ms,
			PerElement:    time.Duration(millis.Draw(rt, "per element")) * ms,
			Jitter:        rapid.SampledFrom([]float64{0, 0.5, 1}).Draw(rt, "jitter"),
			Capacity:      rapid.IntRange(1, 5).Draw(rt, "capacity"),
			Overload:      rapid.SampledFrom([]Overload{Queue, Refuse, Degrade}).Draw(rt, "overload"),
			MaxBatch:      rapid.IntRange(1, 5).Draw(rt, "max batch"),
			FailShare:     rapid.SampledFrom([]float64{0, 0.5}).Draw(rt, "fail share"),
			IgnoreContext: rapid.Bool().Draw(rt, "ignore context"),
			Outages:       []Outage{{5 * ms, 10 * ms}},
			Record:        true,
		}
		clients := rapid.SliceOf(rapid.Custom(func(rt *rapid.T) client {
			return client{rapid.IntRange(0, 6).Draw(rt, "size"), millis.Draw(rt, "arrives"), 5 * millis.Draw(rt, "timeout")}
		})).Draw(rt, "clients")
		if rapid.Bool().Draw(rt, "hangs") {
			config.Hang = func(c ServiceCall) bool { return c.Number%3 == 0 }
		}

		var s *Service
		var elapsed time.Duration
		var elements, answered int
		synctest.Test(t, func(t *testing.T) {
			s = NewService(config)
			var mu sync.Mutex
			var wg sync.WaitGroup
			for _, c := range clients {
				elements += c.Size
				wg.Go(func() {
					<-time.After(time.Duration(c.Arrives) * ms)
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.Timeout)*ms)
					defer cancel()
					_, _, err := Call(ctx, s, make([]int, c.Size), double)
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						answered++
					}
				})
			}
			wg.Wait()
			elapsed = time.Since(s.start)
		})

		stats := s.Stats()
		require.Equal(rt, int64(len(clients)), stats.Calls)
		require.Equal(rt, int64(elements), stats.Elements)
		require.Equal(rt, elements, s.Asked(0))
		require.Equal(rt, stats.Calls, stats.Answered+stats.Failed+stats.Refused+stats.Late, "each call ends in one way")
		require.GreaterOrEqual(rt, int64(answered), stats.Answered)
		if !config.IgnoreContext {
			require.Equal(rt, int64(answered), stats.Answered)
		}
		require.Zero(rt, stats.InFlight)
		require.Zero(rt, s.serving)
		require.Zero(rt, s.queue.Len())
		if config.Overload != Degrade {
			require.LessOrEqual(rt, stats.Busy, time.Duration(config.Capacity)*elapsed, "no more places than the capacity")
		}
	})
}

func TestServiceTakesAPlaceBackFromACallThatPanics(t *testing.T) {
	tests := []struct {
		name   string
		config ServiceConfig
	}{
		{"in answer", ServiceConfig{}},
		{"in FailElement", ServiceConfig{FailElement: func(any) error { panic("oh") }}},
		{"in FailCall", ServiceConfig{FailCall: func(ServiceCall) error { panic("oh") }}},
		{"in Hang", ServiceConfig{Hang: func(ServiceCall) bool { panic("oh") }}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.Capacity = 1
			s := NewService(tt.config)
			require.PanicsWithValue(t, "oh", func() {
				_, _, _ = Call(t.Context(), s, []int{1}, func(int) (int, error) { panic("oh") })
			})
			require.Zero(t, s.serving)
			require.Zero(t, s.Stats().InFlight)
			require.Equal(t, int64(1), s.Stats().Failed)
		})
	}
}

func TestServiceRecordsWhatItWasAsked(t *testing.T) {
	type point struct{ X, Y int }
	s := NewService(ServiceConfig{Record: true, FailFirst: 1})
	ask := func(batch ...any) {
		_, _, _ = Call(t.Context(), s, batch, func(any) (any, error) { return nil, nil }) // the first one fails
	}
	ask("a", "b", "a", point{1, 2}, nil)
	ask("a", []string{"s"}, 1)
	tests := []struct {
		element any
		want    int
	}{
		{"a", 3}, {"b", 1}, {"c", 0}, {point{1, 2}, 1}, {point{2, 1}, 0}, {nil, 1}, {1, 1}, {int64(1), 0},
		{[]string{"s"}, 1}, {[]string{"t"}, 0}, {[]any{"s"}, 0},
	}
	for _, tt := range tests {
		require.Equal(t, tt.want, s.Asked(tt.element), "%T %v", tt.element, tt.element)
	}
	require.PanicsWithValue(t, "batchasynctest: Service.Asked needs ServiceConfig.Record",
		func() { NewService(ServiceConfig{}).Asked("a") })
}

func TestServiceMakesGoodWhatItsTimersWereLateBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewService(ServiceConfig{BaseLatency: 5 * ms})
		s.late = 1500 * time.Microsecond // in a bubble, timers aren't late
		require.Equal(t, 4*ms, callOnce(t.Context(), s, 1).At, "at most a millisecond at a time")
		require.Equal(t, 8500*time.Microsecond, callOnce(t.Context(), s, 1).At, "the rest")
		require.Equal(t, 13500*time.Microsecond, callOnce(t.Context(), s, 1).At, "no more than that")
	})
}

func TestNewServicePanicsOnAConfigThatMakesNoSense(t *testing.T) {
	tests := []struct {
		config ServiceConfig
		want   string
	}{
		{ServiceConfig{BaseLatency: -ms}, "BaseLatency is -1ms: it must be at least 0"},
		{ServiceConfig{PerElement: -ms}, "PerElement is -1ms: it must be at least 0"},
		{ServiceConfig{Jitter: 1.5}, "Jitter is 1.5: it must be from 0 to 1"},
		{ServiceConfig{Jitter: math.NaN()}, "Jitter is NaN: it must be from 0 to 1"},
		{ServiceConfig{Capacity: -1}, "Capacity is -1: it must be at least 1, or 0 for any number of calls"},
		{ServiceConfig{Capacity: 1, Overload: 7}, "Overload is 7: it must be Queue, Refuse or Degrade"},
		{ServiceConfig{Overload: Refuse}, "Overload is set without a Capacity"},
		{ServiceConfig{DegradeFactor: 2, Capacity: 1}, "DegradeFactor is 2 without Overload: Degrade"},
		{ServiceConfig{DegradeFactor: 0.5, Capacity: 1, Overload: Degrade}, "DegradeFactor is 0.5: it must be at least 1, or 0 for 1"},
		{ServiceConfig{DegradeFactor: math.Inf(1), Capacity: 1, Overload: Degrade}, "DegradeFactor is +Inf: it must be at least 1, or 0 for 1"},
		{ServiceConfig{MaxBatch: -1}, "MaxBatch is -1: it must be at least 1, or 0 for any number of elements"},
		{ServiceConfig{FailFirst: -1}, "FailFirst is -1: it must be at least 0"},
		{ServiceConfig{FailShare: -0.5}, "FailShare is -0.5: it must be from 0 to 1"},
		{ServiceConfig{RetryAfter: -ms}, "RetryAfter is -1ms: it must be at least 0"},
		{ServiceConfig{Outages: []Outage{{0, ms}, {2 * ms, 2 * ms}}},
			"Outages[1] is from 2ms to 2ms: it must begin at 0 or later, and end after that"},
		{ServiceConfig{Outages: []Outage{{-ms, ms}}}, "Outages[0] is from -1ms to 1ms: it must begin at 0 or later, and end after that"},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			require.PanicsWithValue(t, "batchasynctest.NewService: "+tt.want, func() { NewService(tt.config) })
		})
	}
}

// BenchmarkServiceThroughput measures in real time how near the service comes to
// the throughput that it claims, when its clients do nothing but call it.
func BenchmarkServiceThroughput(b *testing.B) {
	for _, clients := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("in-flight=%d", clients), func(b *testing.B) {
			b.ReportAllocs()
			s := NewService(ServiceConfig{BaseLatency: 5 * ms, PerElement: 20 * time.Microsecond, Capacity: clients})
			throughput := callForLong(b, s, clients, b.N, 100)
			b.ReportMetric(100*throughput/s.MaxThroughput(100), "%max")
		})
	}
}
