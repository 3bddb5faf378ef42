// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package pool is what all bundles of one transform share in a worker
// process: the permits for calls, and the caller that was set up. A transform
// has many DoFn instances there, so a limit of an instance would be none.
package pool

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"golang.org/x/time/rate"
)

// A Pool belongs to one transform in one process. Its zero value is not ready;
// see For.
type Pool struct {
	Shared *Shared // the transform's caller

	breaker *breaker      // nil: none
	rate    *rate.Limiter // nil: none
	budget  *budget       // nil: none
	late    atomic.Int64  // answers that nobody waited for

	Lonely atomic.Int64 // bundles of one element in a row, as the bundles count them

	common struct {
		sync.Once
		value any
	}

	mu    sync.Mutex
	limit limiter
	timer *time.Timer // for the next start, if that is paced
	armed bool
	sizes *batchSize // nil: fixed
	// Those who wait for a permit: batches that were under way already
	// before batches that have yet to start, so that what is begun is ended.
	resuming, starting waiters
}

// A Task needs a permit. It is run in a goroutine of its own once it has it,
// and gives it back by Permit.Return.
type Task interface{ Run(*Permit) }

// A waiter waits for its permit, to start a task, or to resume the goroutine
// that holds resumed.
type waiter struct {
	permit  *Permit
	task    Task
	resumed chan struct{}

	own  Permit // of a task
	next *waiter
}

// waiters are a queue. It allocates nothing, unlike a slice that is appended to at
// one end and cut at the other.
type waiters struct{ first, last *waiter }

func (q *waiters) push(w *waiter) {
	if q.first == nil {
		q.first = w
	} else {
		q.last.next = w
	}
	q.last = w
}

// pop returns the first waiter, or nil.
func (q *waiters) pop() *waiter {
	w := q.first
	if w == nil {
		return nil
	}
	q.first, w.next = w.next, nil
	if q.first == nil {
		q.last = nil // for the collector
	}
	return w
}

// remove takes w out, and reports whether it stood there.
func (q *waiters) remove(w *waiter) (found bool) {
	rest := *q
	*q = waiters{}
	for other := rest.pop(); other != nil; other = rest.pop() {
		if other == w {
			found = true
		} else {
			q.push(other)
		}
	}
	return found
}

// A limiter decides when the next call may start. The pool's lock guards it.
type limiter interface {
	// ready says after how long that is; negative: not before one has ended.
	ready(now time.Time) time.Duration
	started(now time.Time) flight
	// ended ends a call of so many elements.
	ended(now time.Time, f flight, size int, o Outcome)
}

// static is a limit that stays.
type static struct{ limit, inFlight int }

func (s *static) ready(time.Time) time.Duration {
	if s.inFlight < s.limit {
		return 0
	}
	return -1
}

func (s *static) started(time.Time) flight {
	s.inFlight++
	return flight{}
}

func (s *static) ended(time.Time, flight, int, Outcome) { s.inFlight-- }

var (
	poolsMu sync.Mutex
	// Weak, so that a process that runs pipeline after pipeline doesn't keep
	// the pools of all of them. The DoFn instances, the batches under way
	// and the idle timer of the caller hold a pool.
	pools = map[string]weak.Pointer[Pool]{}
)

// Limits are what a pool lets through.
type Limits struct {
	InFlight    int             // calls at once
	Adaptive    *Adaptive       // in place of InFlight; nil: none
	Sizes       *Sizes          // of batches; nil: fixed
	Breaker     *BreakerConfig  // nil: none
	Opened      func(open bool) // hears when the breaker opens or closes; nil: nobody does
	PerSecond   float64         // calls a second; 0: any number
	Burst       int             // calls at once after a pause, with PerSecond
	RetryBudget float64         // retries, as a share of all first attempts; 0: any number
}

// Adaptive bounds a limit that finds the number of calls that the service bears
// best. Target is what a call may take on a healthy service; 0: not known.
type Adaptive struct {
	Min, Max int
	Target   time.Duration
}

// Sizes bounds a batch size that keeps a call near Target.
type Sizes struct {
	Min, Max int
	Target   time.Duration
}

// For returns the pool of the transform with that id, made by its first user
// from limits and newShared.
func For(id string, limits Limits, newShared func() *Shared) *Pool {
	poolsMu.Lock()
	defer poolsMu.Unlock()
	if p := pools[id].Value(); p != nil {
		return p
	}
	p := &Pool{
		Shared:  newShared(),
		limit:   &static{limit: limits.InFlight},
		breaker: newBreaker(limits.Breaker, limits.Opened),
		rate:    newRate(limits.PerSecond, limits.Burst),
		budget:  newBudget(limits.RetryBudget),
	}
	if a := limits.Adaptive; a != nil {
		p.limit = newAdaptive(a.Min, a.Max, a.Target, rand.Float64)
	}
	if z := limits.Sizes; z != nil {
		p.sizes = newBatchSize(z.Min, z.Max, z.Target)
	}
	p.Shared.keep = p
	pools[id] = weak.Make(p)
	runtime.AddCleanup(p, forget, id)
	return p
}

func forget(id string) {
	poolsMu.Lock()
	defer poolsMu.Unlock()
	// Another pool may have the id by now.
	if pools[id].Value() == nil {
		delete(pools, id)
	}
}

// A Permit is the right to have one call in flight. It is used by one
// goroutine at a time.
type Permit struct {
	pool   *Pool
	held   bool
	flight flight
}

// Go runs t as soon as a permit is free. It does not block.
func (p *Pool) Go(t Task) {
	w := &waiter{task: t, own: Permit{pool: p}}
	w.permit = &w.own
	p.mu.Lock()
	p.starting.push(w)
	granted := p.grant()
	p.mu.Unlock()
	wake(granted)
}

// grant gives permits to those who wait, as many as may start now.
func (p *Pool) grant() (granted waiters) {
	for p.someWait() {
		now := time.Now()
		switch wait := p.limit.ready(now); {
		case wait == 0:
			w := p.next()
			w.permit.held, w.permit.flight = true, p.limit.started(now)
			granted.push(w)
			continue
		case wait > 0 && !p.armed:
			p.armed = true
			if p.timer == nil {
				p.timer = time.AfterFunc(wait, p.expire)
			} else {
				p.timer.Reset(wait)
			}
		}
		break
	}
	return granted
}

// expire grants what was put off.
func (p *Pool) expire() {
	p.mu.Lock()
	p.armed = false
	granted := p.grant()
	p.mu.Unlock()
	wake(granted)
}

func wake(granted waiters) {
	for w := granted.pop(); w != nil; w = granted.pop() {
		if w.task != nil {
			go w.task.Run(w.permit)
		} else {
			close(w.resumed)
		}
	}
}

// Try returns a permit if one is free now and nobody waits for it, and nil
// otherwise. It is for a call that is not needed, as a hedge: the rate and the
// budget of retries must have room for it too.
func (p *Pool) Try() *Permit {
	permit := &Permit{pool: p}
	p.mu.Lock()
	now := time.Now()
	if !p.someWait() && p.limit.ready(now) == 0 {
		permit.held, permit.flight = true, p.limit.started(now)
	}
	p.mu.Unlock()
	if !permit.held {
		return nil
	}
	if p.breaker != nil && !p.breaker.IsClosed() ||
		p.budget != nil && p.budget.withdraw() > 0 ||
		p.rate != nil && !p.rate.Allow() {
		permit.Return()
		return nil
	}
	return permit
}

// Common returns a value that the transform's bundles have in common, made by
// the first that asks.
func (p *Pool) Common(first func() any) any {
	p.common.Do(func() { p.common.value = first() })
	return p.common.value
}

// Admit waits until the breaker and the rate let a call through, and says
// whether that is a probe of the breaker's. Whoever is let through calls Report
// or Cut.
func (p *Pool) Admit(ctx context.Context) (probe bool, err error) {
	if p.breaker != nil {
		if probe, err = p.breaker.admit(ctx); err != nil {
			return false, err
		}
	}
	if p.rate != nil {
		if err := p.rate.Wait(ctx); err != nil {
			p.Cut()
			return false, err
		}
	}
	return probe, nil
}

// First hears of a batch's first attempt: it pays for retries.
func (p *Pool) First() {
	if p.budget != nil {
		p.budget.deposit()
	}
}

// Report hears whether the service was well when it answered a call.
func (p *Pool) Report(well bool) {
	switch {
	case p.breaker == nil:
	case well:
		p.breaker.RecordSuccess()
	default:
		p.breaker.RecordFailure()
	}
}

// Cut hears, in the place of Report, that a call was not made, or came to no
// end: that says nothing of the service.
func (p *Pool) Cut() {
	if p.breaker != nil && p.breaker.IsHalfOpen() {
		p.breaker.RecordFailure() // it was the probe, and another has to be made
	}
}

// Late hears of an answer that nobody waits for.
func (p *Pool) Late() { p.late.Add(1) }

// TakeLate returns how often Late was called since.
func (p *Pool) TakeLate() int64 { return p.late.Swap(0) }

// Breaker returns the state of the circuit breaker: 0 closed, 1 open, 2
// half-open; ok is false if there is none.
func (p *Pool) Breaker() (state int64, ok bool) {
	if p.breaker == nil {
		return 0, false
	}
	return int64(p.breaker.State()), true
}

// Pause waits for d and for the budget of retries, without the permit: a batch
// in its backoff is no call in flight. When ctx ends first it returns the cause.
func (p *Permit) Pause(ctx context.Context, d time.Duration) error {
	p.Return()
	if err := Sleep(ctx, d); err != nil {
		return err
	}
	if p.pool.budget != nil {
		return p.pool.budget.admit(ctx)
	}
	return nil
}

// Resume gets the permit again, before all who have yet to start. When ctx ends
// first it returns the cause, and the permit is not held.
func (p *Permit) Resume(ctx context.Context) error {
	if p.held {
		return nil
	}
	w := &waiter{permit: p, resumed: make(chan struct{})}
	pool := p.pool
	pool.mu.Lock()
	pool.resuming.push(w)
	granted := pool.grant()
	pool.mu.Unlock()
	wake(granted)

	select {
	case <-w.resumed:
		return nil
	case <-ctx.Done():
	}
	if !pool.leave(w) {
		// It was granted at the same moment: hand it on.
		<-w.resumed
		p.Return()
	}
	return context.Cause(ctx)
}

// leave takes w out of the queue, and reports whether it still stood there.
func (p *Pool) leave(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.resuming.remove(w)
}

// Begin says that the call begins now: what went before was no fault of the
// service.
func (p *Permit) Begin() { p.flight.at = time.Now() }

// End gives the permit back after a call of so many elements that ended so.
func (p *Permit) End(size int, o Outcome) { p.giveBack(size, o) }

// Return gives the permit back, if it is held, without a call that says
// anything of the service.
func (p *Permit) Return() {
	if p.held {
		p.giveBack(0, Ignored)
	}
}

// Leave returns the permit's place as a permit of its own, for a call that has not
// returned: p is not held any more.
func (p *Permit) Leave() *Permit {
	left := *p
	p.held = false
	return &left
}

func (p *Permit) giveBack(size int, o Outcome) {
	p.held = false
	pool := p.pool
	pool.mu.Lock()
	pool.limit.ended(time.Now(), p.flight, size, o)
	granted := pool.grant()
	pool.mu.Unlock()
	wake(granted)
}

func (p *Pool) someWait() bool { return p.resuming.first != nil || p.starting.first != nil }

func (p *Pool) next() *waiter {
	if w := p.resuming.pop(); w != nil {
		return w
	}
	return p.starting.pop()
}

// Limit returns the number of calls that an adaptive limit permits now; ok is
// false if the limit is not adaptive.
func (p *Pool) Limit() (limit float64, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.limit.(*adaptive)
	if !ok {
		return 0, false
	}
	return a.limit(), true
}

// NextSize returns the size of the batch that is to be filled next. Sizes must
// be set.
func (p *Pool) NextSize() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sizes.next()
}

// Took hears of a first attempt that succeeded.
func (p *Pool) Took(size int, took time.Duration) {
	if p.sizes == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sizes.answered(size, took)
}

// TooLarge hears that the service refused a call for its size.
func (p *Pool) TooLarge(size int) {
	if p.sizes == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sizes.tooLarge(size)
}
