// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"sync"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// These are the DoFns that one writes without batchasync. Each is written as well
// as its idea allows: connections are reused, errors fail the bundle, emitters stay
// on the bundle's goroutine, and results keep their timestamps. What an emitter of
// Beam Go's can't do is to choose the window.

func init() {
	register.DoFn3x1[context.Context, int, func(Customer), error](&oneByOneFn{})
	register.DoFn4x1[context.Context, beam.EventTime, int, func(beam.EventTime, Customer), error](&goroutinesFn{})
	register.DoFn4x1[context.Context, beam.EventTime, int, func(beam.EventTime, Customer), error](&bufferFn{})
	register.DoFn4x1[context.Context, beam.EventTime, int, func(beam.EventTime, Customer), error](&asyncBufferFn{})
	register.Emitter1[Customer]()
	register.Emitter2[beam.EventTime, Customer]()
}

// oneByOneFn makes a call an element.
type oneByOneFn struct{ Service service }

func (f *oneByOneFn) Setup()    { f.Service.Setup() }
func (f *oneByOneFn) Teardown() { f.Service.Teardown() }

func (f *oneByOneFn) ProcessElement(ctx context.Context, id int, emit func(Customer)) error {
	customers, err := f.Service.ask(ctx, []int{id})
	if err != nil {
		return err
	}
	emit(customers[0])
	return nil
}

// A stamped customer waits for its turn to be emitted.
type stamped struct {
	at beam.EventTime
	Customer
}

// goroutinesFn starts a goroutine for each element, and emits at the bundle's end.
type goroutinesFn struct {
	Service service

	running *errgroup.Group
	mu      sync.Mutex
	results []stamped
}

func (f *goroutinesFn) Setup()    { f.Service.Setup() }
func (f *goroutinesFn) Teardown() { f.Service.Teardown() }

func (f *goroutinesFn) StartBundle(context.Context, func(beam.EventTime, Customer)) error {
	f.running, f.results = new(errgroup.Group), nil
	return nil
}

func (f *goroutinesFn) ProcessElement(ctx context.Context, at beam.EventTime, id int, _ func(beam.EventTime, Customer)) error {
	f.running.Go(func() error {
		customers, err := f.Service.ask(ctx, []int{id})
		if err != nil {
			return err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.results = append(f.results, stamped{at, customers[0]})
		return nil
	})
	return nil
}

func (f *goroutinesFn) FinishBundle(_ context.Context, emit func(beam.EventTime, Customer)) error {
	if err := f.running.Wait(); err != nil {
		return err
	}
	for _, r := range f.results {
		emit(r.at, r.Customer)
	}
	f.results = nil
	return nil
}

// A buffer is the batch that a bundle is filling.
type buffer struct {
	ids []int
	at  []beam.EventTime
}

func (b *buffer) add(id int, at beam.EventTime) (full bool) {
	b.ids, b.at = append(b.ids, id), append(b.at, at)
	return len(b.ids) == batchSize
}

func (b *buffer) clear() { b.ids, b.at = b.ids[:0], b.at[:0] }

// bufferFn gathers elements, and makes a call when it has enough, and at the end.
type bufferFn struct {
	Service service

	buffer buffer
}

func (f *bufferFn) Setup()    { f.Service.Setup() }
func (f *bufferFn) Teardown() { f.Service.Teardown() }

func (f *bufferFn) StartBundle(context.Context, func(beam.EventTime, Customer)) error {
	f.buffer.clear() // a bundle that failed has left something
	return nil
}

func (f *bufferFn) ProcessElement(ctx context.Context, at beam.EventTime, id int, emit func(beam.EventTime, Customer)) error {
	if !f.buffer.add(id, at) {
		return nil
	}
	return f.flush(ctx, emit)
}

func (f *bufferFn) FinishBundle(ctx context.Context, emit func(beam.EventTime, Customer)) error {
	return f.flush(ctx, emit)
}

func (f *bufferFn) flush(ctx context.Context, emit func(beam.EventTime, Customer)) error {
	if len(f.buffer.ids) == 0 {
		return nil
	}
	customers, err := f.Service.ask(ctx, f.buffer.ids)
	if err != nil {
		return err
	}
	for i, c := range customers {
		emit(f.buffer.at[i], c)
	}
	f.buffer.clear()
	return nil
}

// asyncBufferFn is bufferFn with several calls at once: at most as many as the
// service has places, for each instance of the DoFn, as one writes it first; or,
// with Shared, for the whole worker process, as one does having seen that there are
// several instances.
type asyncBufferFn struct {
	Service service
	Shared  bool

	slots   *semaphore.Weighted
	buffer  buffer
	running *errgroup.Group
	mu      sync.Mutex
	results []stamped
}

var sharedSlots = semaphore.NewWeighted(capacity)

func (f *asyncBufferFn) Setup() {
	f.Service.Setup()
	f.slots = sharedSlots
	if !f.Shared {
		f.slots = semaphore.NewWeighted(capacity)
	}
}

func (f *asyncBufferFn) Teardown() { f.Service.Teardown() }

func (f *asyncBufferFn) StartBundle(context.Context, func(beam.EventTime, Customer)) error {
	f.buffer.clear()
	f.running, f.results = new(errgroup.Group), nil
	return nil
}

func (f *asyncBufferFn) ProcessElement(ctx context.Context, at beam.EventTime, id int, emit func(beam.EventTime, Customer)) error {
	if !f.buffer.add(id, at) {
		return nil
	}
	if err := f.send(ctx); err != nil {
		return err
	}
	f.emitAll(emit)
	return nil
}

func (f *asyncBufferFn) FinishBundle(ctx context.Context, emit func(beam.EventTime, Customer)) error {
	if len(f.buffer.ids) > 0 {
		if err := f.send(ctx); err != nil {
			return err
		}
	}
	if err := f.running.Wait(); err != nil {
		return err
	}
	f.emitAll(emit)
	return nil
}

// send waits for a slot, and makes the call in a goroutine.
func (f *asyncBufferFn) send(ctx context.Context) error {
	if err := f.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	ids, at := slices.Clone(f.buffer.ids), slices.Clone(f.buffer.at)
	f.buffer.clear()
	f.running.Go(func() error {
		defer f.slots.Release(1)
		customers, err := f.Service.ask(ctx, ids)
		if err != nil {
			return err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for i, c := range customers {
			f.results = append(f.results, stamped{at[i], c})
		}
		return nil
	})
	return nil
}

// emitAll emits what has been answered so far.
func (f *asyncBufferFn) emitAll(emit func(beam.EventTime, Customer)) {
	f.mu.Lock()
	results := f.results
	f.results = nil
	f.mu.Unlock()
	for _, r := range results {
		emit(r.at, r.Customer)
	}
}
