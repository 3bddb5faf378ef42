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
	"time"
	"weak"
)

// A Pool belongs to one transform in one process. Its zero value is not ready;
// see For.
type Pool struct {
	Shared *Shared // the transform's caller

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

// For returns the pool of the transform with that id, made by its first user
// from limit (permits) and newShared.
func For(id string, limit int, newShared func() *Shared) *Pool {
	poolsMu.Lock()
	defer poolsMu.Unlock()
	if p := pools[id].Value(); p != nil {
		return p
	}
	p := &Pool{Shared: newShared(), limit: limit}
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

func (p *Pool) start(t Task) {
	go t.Run(&Permit{pool: p, held: true})
}

// Pause gives the permit back, waits for d, and gets a permit again, before
// all who have yet to start: a batch in its backoff is no call in flight. When
// ctx ends first it returns the cause, and the permit is not held any more.
func (p *Permit) Pause(ctx context.Context, d time.Duration) error {
	p.Return()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
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
