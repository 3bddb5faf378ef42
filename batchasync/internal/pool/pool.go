// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package pool is what all bundles of one transform share in a worker
// process: the permits for calls, and the caller that was set up. A transform
// has many DoFn instances there, so a limit of an instance would be none.
package pool

import (
	"context"
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

	common struct {
		sync.Once
		value any
	}

	mu       sync.Mutex
	limit    int
	inFlight int
	// Those who wait for a permit: batches that were under way already
	// before batches that have yet to start, so that what is begun is ended.
	resuming, starting []*waiter
}

// A Task needs a permit. It is run in a goroutine of its own once it has it,
// and gives it back by Permit.Return.
type Task interface{ Run(*Permit) }

// A waiter waits to start a task, or to resume the goroutine that holds
// resumed.
type waiter struct {
	task    Task
	resumed chan struct{}
}

var (
	poolsMu sync.Mutex
	// Weak, so that a process that runs pipeline after pipeline doesn't keep
	// the pools of all of them. The DoFn instances, the batches under way
	// and the idle timer of the caller hold a pool.
	pools = map[string]weak.Pointer[Pool]{}
)

// Limits are what a pool lets through.
type Limits struct {
	InFlight    int            // calls at once
	Breaker     *BreakerConfig // nil: none
	PerSecond   float64        // calls a second; 0: any number
	Burst       int            // calls at once after a pause, with PerSecond
	RetryBudget float64        // retries, as a share of all first attempts; 0: any number
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
		limit:   limits.InFlight,
		breaker: newBreaker(limits.Breaker),
		rate:    newRate(limits.PerSecond, limits.Burst),
		budget:  newBudget(limits.RetryBudget),
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
	pool *Pool
	held bool
}

// Go runs t as soon as a permit is free. It does not block.
func (p *Pool) Go(t Task) {
	p.mu.Lock()
	if p.inFlight >= p.limit {
		p.starting = append(p.starting, &waiter{task: t})
		p.mu.Unlock()
		return
	}
	p.inFlight++
	p.mu.Unlock()
	p.start(t)
}

// Try returns a permit if one is free now and nobody waits for it, and nil
// otherwise. It is for a call that is not needed, as a hedge: the rate and the
// budget of retries must have room for it too.
func (p *Pool) Try() *Permit {
	p.mu.Lock()
	free := p.inFlight < p.limit && len(p.resuming) == 0 && len(p.starting) == 0
	if free {
		p.inFlight++
	}
	p.mu.Unlock()
	if !free {
		return nil
	}
	permit := &Permit{pool: p, held: true}
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

// Gated reports whether Admit may have to wait.
func (p *Pool) Gated() bool { return p.breaker != nil || p.rate != nil }

// Admit waits until the breaker and the rate let a call through. Whoever is let
// through calls Report or Cut.
func (p *Pool) Admit(ctx context.Context) error {
	if p.breaker != nil {
		if err := p.breaker.admit(ctx); err != nil {
			return err
		}
	}
	if p.rate != nil {
		if err := p.rate.Wait(ctx); err != nil {
			p.Cut()
			return err
		}
	}
	return nil
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

func (p *Pool) start(t Task) {
	go t.Run(&Permit{pool: p, held: true})
}

// Pause gives the permit back, waits for d and for the budget of retries, and
// gets a permit again, before all who have yet to start: a batch in its backoff
// is no call in flight. When ctx ends first it returns the cause, and the permit
// is not held any more.
func (p *Permit) Pause(ctx context.Context, d time.Duration) error {
	p.Return()
	if err := sleep(ctx, d); err != nil {
		return err
	}
	if p.pool.budget != nil {
		if err := p.pool.budget.admit(ctx); err != nil {
			return err
		}
	}
	return p.resume(ctx)
}

func (p *Permit) resume(ctx context.Context) error {
	w := &waiter{resumed: make(chan struct{})}
	pool := p.pool
	pool.mu.Lock()
	if pool.inFlight < pool.limit {
		pool.inFlight++
		pool.mu.Unlock()
		p.held = true
		return nil
	}
	pool.resuming = append(pool.resuming, w)
	pool.mu.Unlock()

	select {
	case <-w.resumed:
		p.held = true
		return nil
	case <-ctx.Done():
	}
	if !pool.leave(w) {
		// It was granted at the same moment: hand it on.
		p.held = true
		p.Return()
	}
	return context.Cause(ctx)
}

// leave takes w out of the line, and reports whether it still stood there.
func (p *Pool) leave(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, other := range p.resuming {
		if other == w {
			p.resuming = append(p.resuming[:i], p.resuming[i+1:]...)
			return true
		}
	}
	return false
}

// Return gives the permit back, if it is held.
func (p *Permit) Return() {
	if !p.held {
		return
	}
	p.held = false
	pool := p.pool
	pool.mu.Lock()
	pool.inFlight--
	var next *waiter
	if pool.inFlight < pool.limit {
		if next = pool.next(); next != nil {
			pool.inFlight++
		}
	}
	pool.mu.Unlock()
	switch {
	case next == nil:
	case next.task != nil:
		pool.start(next.task)
	default:
		close(next.resumed)
	}
}

func (p *Pool) next() *waiter {
	for _, line := range []*[]*waiter{&p.resuming, &p.starting} {
		if len(*line) > 0 {
			w := (*line)[0]
			(*line)[0] = nil // for the collector
			*line = (*line)[1:]
			return w
		}
	}
	return nil
}
