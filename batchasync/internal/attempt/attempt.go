// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package attempt is the life of one batch: its attempts with their timeout,
// the waits between them, the elements that failed in part, and the search for
// the elements that make a batch fail. It knows nothing of Beam or of rings.
package attempt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
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
	Hedge       time.Duration // after which an unanswered call is made once more, if it is not 0
	FailFast    bool          // the first element that fails for good ends the batch
	Early       bool          // Service.Progress wants to hear of elements as they end
}

// Backoff is the wait after the n-th attempt. Full jitter, as in Marc Brooker's
// "Exponential Backoff And Jitter": it spreads the retries of many workers
// better than a wait of which only a part is random.
func (p Policy) Backoff(n int) time.Duration {
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
	TooLarge   bool          // fewer elements a call have a chance
	Halve      bool          // some of the elements are the reason, and not the number of them
	Elements   map[int]error // the elements that failed, by position, if the others have their results
	Err        error         // says more than the error that was judged, if it is set
}

// A Service is what the life of a batch needs from outside. Its methods are
// called one after the other, though not always by the same goroutine; only
// Call may run on when its attempt is over.
type Service[In, Out any] interface {
	// Elements returns the elements of group, which are indices into the
	// batch (nil: all of it), in a slice that the call may change and keep.
	Elements(group []int) []In
	// Admit waits until an attempt may begin, and says whether that is a
	// probe: if it fails, it is no attempt that counts. If it gives up,
	// because ctx has ended, the attempt is not made.
	Admit(ctx context.Context) (probe bool, err error)
	// Begin makes the context of a call: of one that Admit or Hedge let in.
	Begin(ctx context.Context, info Info) context.Context
	// Call asks for the answers. It may run on after ctx has ended; then its
	// answer is dropped.
	Call(ctx context.Context, batch []In) ([]Out, error)
	// Hedge says whether the attempt at hand may be hedged now, by a second
	// call beside the first: it returns a function for the moment in which
	// that has returned, or nil.
	Hedge() (ended func())
	// Late hears that a Call has returned whose answer nobody waits for.
	Late()
	// End hears how an attempt went.
	End(end End)
	// Classify judges an error that Call returned for n elements.
	Classify(err error, n int) Verdict
	// Pause waits between two attempts, not holding what limits the calls.
	Pause(ctx context.Context, d time.Duration) error
	// Progress hears that some of the elements have ended, and of all that
	// have: the others are open, by index.
	Progress(outcome *Outcome[Out], open []bool)
	// Done gets the outcome.
	Done(outcome *Outcome[Out])
}

// An End is how an attempt went.
type End struct {
	// Context is that of the call that answered, if one has.
	Context  context.Context
	Answered bool
	Took     time.Duration
	Size     int     // elements
	Attempt  int     // from 1
	Err      error   // nil: all of them have their results
	Verdict  Verdict // on Err
	Cut      bool    // the batch's own context has ended: Err is that
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

	Calls, Retries, Timeouts, Bisections, Hedges int
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

// Run sends a batch of size elements until each of them has an answer or has
// failed for good; then service.Done gets the outcome. The calls are made on
// the goroutine of Run, which costs less than one for each; but a call that
// overruns its time keeps that goroutine, and the batch goes on on another. So
// Run may return before, or long after, the batch is done.
func Run[In, Out any](ctx context.Context, size int, policy *Policy, service Service[In, Out]) {
	l := &life[In, Out]{ctx: ctx, all: size, policy: policy, service: service}
	l.work = l.fresh(nil, 0)
	l.run(true)
}

// A life belongs to one goroutine at a time: to the one that makes the call at
// hand, until the call returns or its time is over, whichever is first.
type life[In, Out any] struct {
	ctx     context.Context
	all     int // elements
	policy  *Policy
	service Service[In, Out]
	start   time.Time // of the first attempt
	work    work      // is being tried
	rest    []work    // is tried afterwards, the last one first
	outcome Outcome[Out]
}

// A work is what is sent together.
type work struct {
	group []int // indices into the batch; nil: all
	info  Info  // of the last attempt
	made  int   // calls that the elements were in
	free  int   // attempts that don't count
	probe bool  // the attempt at hand is one

	// last is how the last attempt with these elements failed, and how they
	// end if there is no time left for another. errs are those of single
	// elements, by position, if they failed in part.
	last failed
	errs map[int]error
}

// failed says how a group failed as a whole.
type failed struct {
	err       error
	permanent bool
	info      Info
}

// fresh is a group that has not been sent as such.
func (l *life[In, Out]) fresh(group []int, made int) work {
	return work{group: group, info: Info{BatchID: newID(), Size: l.size(group)}, made: made}
}

// newID returns a random UUID. It is an idempotency key and no secret, so it needs no
// entropy of the system's for each batch.
func newID() string {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // version 4, variant of RFC 9562
	return id.String()
}

func (l *life[In, Out]) run(more bool) {
	for more {
		if more = l.admit(); !more {
			break
		}
		elements := l.service.Elements(l.work.group)
		c := l.begin() // and from here on the life may go on elsewhere
		results, err := c.ask(c.ctx, elements)
		if !c.returned(err) {
			return // the batch goes on on another goroutine
		}
		more = c.end(c.ctx, true, results, err)
	}
	slices.SortFunc(l.outcome.Failures, func(a, b Failure) int { return a.Index - b.Index })
	l.service.Done(&l.outcome)
}

// admit waits until the next attempt may begin, and reports whether one may.
func (l *life[In, Out]) admit() (ok bool) {
	for {
		if cause := context.Cause(l.ctx); cause != nil {
			l.outcome.Err = cause // before a call is begun for nobody
			return false
		}
		bounded := l.policy.MaxElapsed > 0 && !l.start.IsZero()
		if !l.spent(0) {
			ctx, cancel := l.ctx, context.CancelFunc(func() {})
			if bounded {
				ctx, cancel = context.WithDeadline(ctx, l.start.Add(l.policy.MaxElapsed))
			}
			probe, err := l.service.Admit(ctx)
			cancel()
			if err == nil {
				l.work.probe = probe
				return true
			}
			if context.Cause(l.ctx) != nil {
				continue
			}
			if !bounded {
				l.outcome.Err = err
				return false
			}
		}
		// The time is over before the attempt could begin.
		l.failAll()
		if !l.next() {
			return false
		}
	}
}

// A call is one attempt: a call of the service, and the hedge beside it.
// Whoever claims it goes on with the batch: the goroutine of a call that has
// returned, or that of its context's end.
type call[In, Out any] struct {
	life    *life[In, Out]
	info    Info
	ctx     context.Context
	cancel  context.CancelFunc
	unwatch func() bool
	timeout time.Duration
	started time.Time
	timer   *time.Timer // for the hedge; nil without

	mu      sync.Mutex
	claimed bool
	running int // calls that have not returned
	hedged  bool
}

// begin begins an attempt.
func (l *life[In, Out]) begin() *call[In, Out] {
	w := &l.work
	l.outcome.Calls++
	w.made++
	w.info.Attempt++
	if w.info.Attempt > 1 {
		l.outcome.Retries++
	}
	c := &call[In, Out]{life: l, info: w.info, timeout: l.policy.Timeout, started: time.Now(), running: 1}
	if l.start.IsZero() {
		l.start = c.started
	}
	if l.policy.MaxElapsed > 0 {
		c.timeout = min(c.timeout, max(l.policy.MaxElapsed-time.Since(l.start), 0))
	}
	c.mu.Lock() // until all of it is set: a timer may be quick
	defer c.mu.Unlock()
	c.ctx, c.cancel = context.WithTimeout(l.service.Begin(l.ctx, c.info), c.timeout)
	if l.policy.Hedge > 0 {
		elements := l.service.Elements(w.group) // of its own: the first call may change what it got
		c.timer = time.AfterFunc(l.policy.Hedge, func() { c.hedge(elements) })
	}
	c.unwatch = context.AfterFunc(c.ctx, c.overrun)
	return c
}

func (c *call[In, Out]) claim() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.claimed {
		return false
	}
	c.claimed = true
	return true
}

// overrun goes on with the batch when the attempt's time is over.
func (c *call[In, Out]) overrun() {
	if c.claim() {
		c.life.run(c.end(c.ctx, false, nil, c.ctx.Err()))
	}
}

// returned claims the attempt for a call that has returned, and reports whether
// it has got it. An error leaves it to the other call, if that is under way.
func (c *call[In, Out]) returned(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	if c.claimed {
		c.life.service.Late()
		return false
	}
	c.claimed = err == nil || c.running == 0
	return c.claimed
}

// hedge makes the call a second time, beside the first: whichever answers first
// counts.
func (c *call[In, Out]) hedge(elements []In) {
	service := c.life.service
	ended := service.Hedge()
	if ended == nil {
		return
	}
	ctx := c.join()
	if ctx == nil {
		ended()
		return
	}
	results, err := func() ([]Out, error) {
		defer ended()
		return c.ask(ctx, elements)
	}()
	if c.returned(err) {
		c.life.run(c.end(ctx, true, results, err))
	}
}

// join returns the context of a second call, or nil if it is too late for one.
func (c *call[In, Out]) join() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.claimed || c.running == 0 {
		return nil
	}
	c.running++
	c.hedged = true
	return c.life.service.Begin(c.ctx, c.info)
}

// ask makes the call. If that ends its goroutine, the batch goes on on another.
func (c *call[In, Out]) ask(ctx context.Context, elements []In) (results []Out, err error) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			err = guard.Panicked("Call", v)
			return
		}
		go func() {
			err := &guard.GoexitError{In: "Call"}
			if c.returned(err) {
				c.life.run(c.end(ctx, true, nil, err))
			}
		}()
	}()
	results, err = c.life.service.Call(ctx, elements)
	if ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
		// Unwrapped here, where a panic is caught: a typed nil can't be.
		err = context.DeadlineExceeded
	}
	returned = true
	return results, err
}

// end takes in how the attempt ended, and reports whether another is to be
// made. ctx is the context of the call that returned, if one has.
func (c *call[In, Out]) end(ctx context.Context, answered bool, results []Out, err error) (more bool) {
	l := c.life
	overran := c.ctx.Err() != nil
	if answered {
		c.unwatch()
	}
	c.cancel()
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.hedged { // nothing joins what is claimed
		l.outcome.Hedges++
	}
	end := End{Context: ctx, Answered: answered, Took: time.Since(c.started), Size: c.info.Size, Attempt: c.info.Attempt}
	switch {
	case err == nil && len(results) != end.Size:
		err = &CountError{Results: len(results), Elements: end.Size}
	case overran && err == context.DeadlineExceeded:
		// Whether the call noticed its end or we did must not matter.
		l.outcome.Timeouts++
		err = &TimeoutError{After: c.timeout}
	}
	if err == nil {
		l.service.End(end)
		l.keep(l.work.group, results)
		return l.next()
	}
	cause := context.Cause(l.ctx)
	if cause == nil {
		end.Verdict = l.judge(err, len(results), end.Size)
		if end.Verdict.Err != nil {
			err = end.Verdict.Err
		}
	}
	end.Err, end.Cut = err, cause != nil
	l.service.End(end)
	if cause != nil {
		l.outcome.Err = cause
		return false
	}
	return l.failed(results, err, end.Verdict)
}

// failed decides what comes after an attempt that failed with err, and reports
// whether that is another one.
func (l *life[In, Out]) failed(results []Out, err error, verdict Verdict) (more bool) {
	w := &l.work
	w.last, w.errs = failed{err, verdict.Permanent, w.info}, nil
	if w.probe {
		w.free++
	}
	counted := w.info.Attempt - w.free
	if verdict.Elements != nil {
		l.split(results, &verdict)
		if len(w.group) == 0 || l.over() {
			return l.next()
		}
	}
	wait := verdict.RetryAfter
	if wait == 0 {
		wait = l.policy.Backoff(max(counted, 1))
	}
	switch {
	case (verdict.TooLarge || verdict.Halve) && w.info.Size > 1 && !l.spent(0):
		l.bisect()
		return true
	case !verdict.Permanent && !l.spent(wait) && counted < l.policy.MaxAttempts:
	case w.errs == nil && l.policy.Bisect && !l.spent(verdict.RetryAfter) && w.info.Size > 1:
		l.bisect()
		return true
	default:
		l.failAll()
		return l.next()
	}
	l.progress()
	if cause := l.service.Pause(l.ctx, wait); cause != nil {
		l.outcome.Err = cause
		return false
	}
	if w.errs != nil && len(w.group) < w.info.Size {
		// What is left is another request: a service that remembers the
		// first one by its id must not answer this one so.
		w.info.BatchID, w.info.Size = uuid.NewString(), len(w.group)
	}
	return true
}

// next turns to what is still to be sent, and reports whether there is any.
func (l *life[In, Out]) next() (more bool) {
	if len(l.rest) == 0 || l.over() {
		return false
	}
	last := len(l.rest) - 1
	l.work, l.rest = l.rest[last], l.rest[:last]
	l.progress()
	return true
}

func (l *life[In, Out]) progress() {
	if !l.policy.Early {
		return
	}
	open := make([]bool, l.all)
	for _, w := range append(l.rest, l.work) {
		for position := range l.size(w.group) {
			open[at(w.group, position)] = true
		}
	}
	l.service.Progress(&l.outcome, open)
}

func (l *life[In, Out]) size(group []int) int {
	if group == nil {
		return l.all
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
	return l.policy.MaxElapsed > 0 && !l.start.IsZero() && wait >= l.policy.MaxElapsed-time.Since(l.start)
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
		l.outcome.Results = make([]Out, l.all)
	}
	l.outcome.Results[index] = result
}

// split stores the results of a call that failed in part, and the elements
// that failed for good. The others stay in l.work; how long they ask to wait is
// noted in v.
func (l *life[In, Out]) split(results []Out, v *Verdict) {
	w := &l.work
	rest := []int{}
	w.errs = map[int]error{}
	for position := range w.info.Size {
		index := at(w.group, position)
		err, failed := v.Elements[position]
		if !failed {
			l.result(index, results[position])
			continue
		}
		one := l.service.Classify(err, 1)
		if v.Permanent || one.Permanent {
			l.fail(index, err, true, w.info)
			continue
		}
		v.RetryAfter = max(v.RetryAfter, one.RetryAfter)
		w.errs[len(rest)] = err
		rest = append(rest, index)
	}
	w.group = rest
}

// bisect halves what failed as a whole, so that in the end only the elements
// fail that are the reason, each alone.
func (l *life[In, Out]) bisect() {
	w := &l.work
	group := w.group
	if group == nil {
		group = make([]int, l.all)
		for i := range group {
			group[i] = i
		}
	}
	l.outcome.Bisections++
	middle := len(group) / 2
	l.rest = append(l.rest, l.half(group[middle:]))
	l.work = l.half(group[:middle:middle])
}

func (l *life[In, Out]) half(group []int) work {
	half := l.fresh(group, l.work.made)
	half.last = l.work.last
	return half
}

// failAll ends what is being tried, with the error of the last attempt.
func (l *life[In, Out]) failAll() {
	w := &l.work
	for position := range l.size(w.group) {
		err := w.last.err
		if w.errs != nil {
			err = w.errs[position]
		}
		l.fail(at(w.group, position), err, w.last.permanent, w.last.info)
	}
}

func (l *life[In, Out]) fail(index int, err error, permanent bool, info Info) {
	now := time.Now()
	l.outcome.Failures = append(l.outcome.Failures, Failure{
		Index: index, Err: err, Permanent: permanent, Attempts: l.work.made,
		BatchID: info.BatchID, BatchSize: info.Size, At: now, Elapsed: now.Sub(l.start),
	})
}
