// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package attempt is the life of one batch: its attempts with their timeout,
// the waits between them, the elements that failed in part, and the search for
// the elements that make a batch fail. It knows nothing of Beam or of rings.
package attempt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync/internal/guard"
	"github.com/google/uuid"
)

// A Policy says how long and how often a batch is tried.
type Policy struct {
	Timeout     time.Duration // of one attempt
	MaxElapsed  time.Duration // from the first attempt to the end of the last; 0: no limit
	MaxAttempts int           // including the first
	Initial     time.Duration // upper bound of the first wait
	Max         time.Duration // upper bound of any wait
	Fixed       time.Duration // wait that replaces the backoff, if it is not 0
	Bisect      bool          // halve a batch that fails as a whole for good
	FailFast    bool          // the first element that fails for good ends the batch
}

// backoff is the wait after the n-th attempt. Full jitter, as in Marc Brooker's
// "Exponential Backoff And Jitter": it spreads the retries of many workers
// better than a wait of which only a part is random.
func (p Policy) backoff(n int) time.Duration {
	if p.Fixed > 0 {
		return p.Fixed
	}
	ceiling := p.Max
	// 2^30 times any initial wait is above any maximum that makes sense;
	// the bound keeps the shift from overflowing.
	if shift := min(n-1, 30); p.Initial <= p.Max>>shift {
		ceiling = p.Initial << shift
	}
	return rand.N(ceiling + 1)
}

// Info names one attempt.
type Info struct {
	BatchID string // the same for as long as the elements are the same
	Attempt int    // from 1
	Size    int    // elements
}

// A Verdict says what an error of a call means.
type Verdict struct {
	Permanent  bool          // another attempt has no chance
	RetryAfter time.Duration // what the service asks to wait, if it does
	Elements   map[int]error // the elements that failed, by position, if the others have their results
	Err        error         // says more than the error that was judged, if it is set
}

// A Service is what the life of a batch needs from outside. All but Call run
// in the batch's own goroutine.
type Service[In, Out any] struct {
	// Call asks for the answers. It may run on after ctx has ended; then its
	// answer is dropped.
	Call func(ctx context.Context, batch []In) ([]Out, error)
	// Begin makes an attempt's context. end hears how it went; answered is
	// false if Call had not returned when the attempt ended.
	Begin func(ctx context.Context, info Info) (attemptCtx context.Context, end func(answered bool, took time.Duration))
	// Classify judges an error that Call returned for n elements.
	Classify func(err error, n int) Verdict
	// Pause waits between two attempts, not holding what limits the calls.
	Pause func(ctx context.Context, d time.Duration) error
}

// A Failure is an element that failed for good.
type Failure struct {
	Index     int // in the batch
	Err       error
	Permanent bool
	Attempts  int // calls that the element was in
	BatchID   string
	BatchSize int
	At        time.Time
	Elapsed   time.Duration // since the batch's first attempt
}

// An Outcome is how a batch ended: each element has its result or a failure,
// unless Err says that the batch was cut off, or Policy.FailFast was set.
type Outcome[Out any] struct {
	Results  []Out     // by index; the zero value where the element failed
	Failures []Failure // in the order of their index
	Err      error     // ctx ended

	Calls, Retries, Timeouts, Bisections int
}

// A TimeoutError says that a call had not returned within its time.
type TimeoutError struct{ After time.Duration }

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("no answer within %v (Timeout, or what was left of MaxElapsed)", e.After)
}

// Unwrap makes a TimeoutError what a caller that obeys its context returns.
func (e *TimeoutError) Unwrap() error { return context.DeadlineExceeded }

// A CountError says that a call did not answer each of its elements.
type CountError struct{ Results, Elements int }

func (e *CountError) Error() string {
	return fmt.Sprintf("Call returned %d results for %d elements: it must return one result an element, at the element's index; report elements that have none with a BatchError", e.Results, e.Elements)
}

// Run sends batch until each of its elements has an answer or has failed for
// good.
func Run[In, Out any](ctx context.Context, batch []In, policy Policy, service Service[In, Out]) Outcome[Out] {
	l := &life[In, Out]{ctx: ctx, batch: batch, policy: policy, service: service, start: time.Now()}
	l.send(nil, 0)
	slices.SortFunc(l.outcome.Failures, func(a, b Failure) int { return a.Index - b.Index })
	return l.outcome
}

type life[In, Out any] struct {
	ctx     context.Context
	batch   []In
	policy  Policy
	service Service[In, Out]
	start   time.Time
	outcome Outcome[Out]
}

// send tries the elements of group (indices into the batch; nil: all) until
// none is left to try. made is the number of calls that they were in already.
func (l *life[In, Out]) send(group []int, made int) {
	info := Info{BatchID: uuid.NewString(), Size: l.size(group)}
	for info.Attempt = 1; ; info.Attempt++ {
		if cause := context.Cause(l.ctx); cause != nil {
			l.outcome.Err = cause // before a call is begun for nobody
			return
		}
		made++
		results, err := l.try(group, info)
		if err == nil {
			l.keep(group, results)
			return
		}
		if cause := context.Cause(l.ctx); cause != nil {
			l.outcome.Err = cause
			return
		}
		verdict := l.judge(err, len(results), info.Size)
		if verdict.Err != nil {
			err = verdict.Err
		}
		errs := verdict.Elements
		if errs != nil {
			group, errs = l.split(group, results, &verdict, made, info)
			if len(group) == 0 || l.over() {
				return
			}
		}
		wait := verdict.RetryAfter
		if wait == 0 {
			wait = l.policy.backoff(info.Attempt)
		}
		switch {
		case !verdict.Permanent && !l.spent(wait) && info.Attempt < l.policy.MaxAttempts:
		case errs == nil && l.policy.Bisect && !l.spent(verdict.RetryAfter) && info.Size > 1:
			l.bisect(group, err, verdict.Permanent, made, info)
			return
		default:
			l.failAll(group, errs, err, verdict.Permanent, made, info)
			return
		}
		if cause := l.service.Pause(l.ctx, wait); cause != nil {
			l.outcome.Err = cause
			return
		}
		if l.spent(0) { // the pause may have taken longer than wait
			l.failAll(group, errs, err, false, made, info)
			return
		}
		l.outcome.Retries++
		if errs != nil && len(group) < info.Size {
			// What is left is another request: a service that remembers
			// the first one by its id must not answer this one so.
			info.BatchID, info.Size = uuid.NewString(), len(group)
		}
	}
}

func (l *life[In, Out]) size(group []int) int {
	if group == nil {
		return len(l.batch)
	}
	return len(group)
}

// at is the index in the batch of the element at position in group. Nearly
// every batch is answered as a whole, so that group is worth leaving out.
func at(group []int, position int) int {
	if group == nil {
		return position
	}
	return group[position]
}

// over reports whether there is no use in going on.
func (l *life[In, Out]) over() bool {
	return l.outcome.Err != nil || l.policy.FailFast && len(l.outcome.Failures) > 0
}

// spent reports whether MaxElapsed will be over after wait.
func (l *life[In, Out]) spent(wait time.Duration) bool {
	return l.policy.MaxElapsed > 0 && wait >= l.policy.MaxElapsed-time.Since(l.start)
}

// try makes one attempt. The call gets a copy of the elements: it may sort,
// change or keep it, and one that has been given up may go on to read it,
// while the batch is tried again.
func (l *life[In, Out]) try(group []int, info Info) ([]Out, error) {
	l.outcome.Calls++
	var elements []In
	if group == nil {
		elements = slices.Clone(l.batch)
	} else {
		elements = make([]In, len(group))
		for i, index := range group {
			elements[i] = l.batch[index]
		}
	}
	timeout := l.policy.Timeout
	if l.policy.MaxElapsed > 0 {
		timeout = min(timeout, max(l.policy.MaxElapsed-time.Since(l.start), 0))
	}
	ctx, end := l.service.Begin(l.ctx, info)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	started := time.Now()
	answers := guard.Start("Call", func() ([]Out, error) {
		results, err := l.service.Call(ctx, elements)
		if ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
			// Unwrapped here, where a panic is caught: a typed nil
			// can't be.
			err = context.DeadlineExceeded
		}
		return results, err
	})
	var answer guard.Answer[[]Out]
	answered := true
	select {
	case answer = <-answers:
	case <-ctx.Done():
		select {
		case answer = <-answers: // both at once: an answer is an answer
		default:
			answered = false
			answer.Err = ctx.Err()
		}
	}
	end(answered, time.Since(started))
	switch {
	case answer.Err == nil && len(answer.Value) != info.Size:
		answer.Err = &CountError{Results: len(answer.Value), Elements: info.Size}
	case ctx.Err() != nil && answer.Err == context.DeadlineExceeded:
		// Whether the call noticed its end or we did must not matter.
		l.outcome.Timeouts++
		answer.Err = &TimeoutError{After: timeout}
	}
	return answer.Value, answer.Err
}

// judge is Classify, but for the errors that are not the caller's.
func (l *life[In, Out]) judge(err error, results, size int) Verdict {
	// By type: try has made these and wrapped none, while what a caller has
	// made may panic when it is unwrapped.
	switch err.(type) {
	case *TimeoutError:
		return Verdict{}
	case *CountError, *guard.PanicError, *guard.GoexitError:
		// The same call would end in the same way: this is a mistake in
		// the caller, or in how it takes one of the elements.
		return Verdict{Permanent: true}
	}
	v := l.service.Classify(err, size)
	if v.Elements != nil && results != size && len(v.Elements) < size {
		return Verdict{Permanent: true, Err: fmt.Errorf("%w: %w", &CountError{Results: results, Elements: size}, err)}
	}
	return v
}

// keep stores the results of a group that has been answered as a whole.
func (l *life[In, Out]) keep(group []int, results []Out) {
	if group == nil {
		l.outcome.Results = results
		return
	}
	for i, index := range group {
		l.result(index, results[i])
	}
}

func (l *life[In, Out]) result(index int, result Out) {
	if l.outcome.Results == nil {
		l.outcome.Results = make([]Out, len(l.batch))
	}
	l.outcome.Results[index] = result
}

// split stores the results of a call that failed in part, and the elements
// that failed for good. It returns the others with their errors, by position,
// and notes in v how long they ask to wait.
func (l *life[In, Out]) split(group []int, results []Out, v *Verdict, made int, info Info) (rest []int, errs map[int]error) {
	errs = map[int]error{}
	for position := range info.Size {
		index := at(group, position)
		err, failed := v.Elements[position]
		if !failed {
			l.result(index, results[position])
			continue
		}
		one := l.service.Classify(err, 1)
		if v.Permanent || one.Permanent {
			l.fail(index, err, true, made, info)
			continue
		}
		v.RetryAfter = max(v.RetryAfter, one.RetryAfter)
		errs[len(rest)] = err
		rest = append(rest, index)
	}
	return rest, errs
}

// bisect halves a group that fails as a whole, so that in the end only the
// elements fail that are the reason, each alone. err is what the whole failed
// with, in the attempt that info names.
func (l *life[In, Out]) bisect(group []int, err error, permanent bool, made int, info Info) {
	if group == nil {
		group = make([]int, len(l.batch))
		for i := range group {
			group[i] = i
		}
	}
	l.outcome.Bisections++
	middle := len(group) / 2
	l.send(group[:middle:middle], made)
	switch {
	case l.over():
	case l.spent(0): // by the first half
		l.failAll(group[middle:], nil, err, permanent, made, info)
	default:
		l.send(group[middle:], made)
	}
}

// failAll ends the elements of group with errs, by position, or all with err.
func (l *life[In, Out]) failAll(group []int, errs map[int]error, err error, permanent bool, made int, info Info) {
	for position := range l.size(group) {
		index := at(group, position)
		if errs != nil {
			err = errs[position]
		}
		l.fail(index, err, permanent, made, info)
	}
}

func (l *life[In, Out]) fail(index int, err error, permanent bool, made int, info Info) {
	now := time.Now()
	l.outcome.Failures = append(l.outcome.Failures, Failure{
		Index: index, Err: err, Permanent: permanent, Attempts: made,
		BatchID: info.BatchID, BatchSize: info.Size, At: now, Elapsed: now.Sub(l.start),
	})
}
