// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"context"
	"reflect"
	"sync"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/metrics"
)

// Info is what a call may know of itself.
type Info struct {
	// BatchID is a UUID that is the same in every attempt to send the same
	// elements: an idempotency key. When a batch is retried for those of its
	// elements that failed, or halved by Bisect, what is sent is another
	// request, and has another id.
	BatchID   string
	Attempt   int    // from 1; it goes on when a batch is retried in part
	Bundle    string // Beam's id of the bundle
	Transform string // the transform's full name in the pipeline
}

type infoKey struct{}

// InfoFrom returns the Info of the call that ctx was given to, and the zero
// Info for any other ctx.
func InfoFrom(ctx context.Context) Info {
	info, _ := ctx.Value(infoKey{}).(Info)
	return info
}

// A callContext is what an attempt's call gets: its Info, and a metrics store
// of its own, so that the caller may count while the bundle's goroutine counts
// in the bundle's. The store costs more than all the rest of a batch, and most
// callers count nothing: it is made when Beam's metrics first ask for it.
type callContext struct {
	context.Context
	info       Info
	pTransform string
	seat       seat

	meter   sync.Once
	metered context.Context
}

// callOf returns the callContext that ctx was made from, or nil.
func callOf(ctx context.Context) *callContext {
	c, _ := ctx.Value(callKey{}).(*callContext)
	return c
}

type callKey struct{}

func (c *callContext) Value(key any) any {
	switch {
	case key == callKey{}:
		return c
	case key == infoKey{}:
		return c.info
	case reflect.TypeOf(key) == metricsKey:
		c.meter.Do(func() {
			c.metered = metrics.SetPTransformID(metrics.SetBundleID(unmetered{c.Context}, c.info.Bundle), c.pTransform)
		})
		return c.metered.Value(key)
	}
	return c.Context.Value(key)
}

// counted returns the store, or nil if nothing has been counted. The call must
// have returned.
func (c *callContext) counted() *metrics.Store {
	if c.metered == nil {
		return nil
	}
	return metrics.GetStore(c.metered)
}

// unmetered hides the bundle's metrics store, which a new one would otherwise
// find and use in its own place.
type unmetered struct{ context.Context }

func (u unmetered) Value(key any) any {
	if reflect.TypeOf(key) == metricsKey {
		return nil
	}
	return u.Context.Value(key)
}

// metricsKey is the type, which Beam does not export, of the keys by which its
// metrics are found in a context.
var metricsKey = func() (t reflect.Type) {
	metrics.GetTransformID(keyProbe{Context: context.Background(), seen: func(key any) { t = reflect.TypeOf(key) }})
	return t
}()

type keyProbe struct {
	context.Context
	seen func(key any)
}

func (p keyProbe) Value(key any) any {
	p.seen(key)
	return nil
}

// A seat is a call's place among those in flight. A call whose context has ended
// keeps it until it has returned, or at most for the grace: otherwise another call
// would be there before this one is gone.
type seat struct {
	mu    sync.Mutex
	empty bool
	free  func() // nil: the attempt is not over
}

const grace = 100 * time.Millisecond

func (s *seat) isEmpty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.empty
}

// returned says that the call has returned.
func (s *seat) returned() {
	s.mu.Lock()
	s.empty = true
	free := s.free
	s.mu.Unlock()
	if free != nil {
		free()
	}
}

// leave says that the attempt is over: free is called when the call has returned,
// or after the grace.
func (s *seat) leave(free func()) {
	free = sync.OnceFunc(free)
	s.mu.Lock()
	empty := s.empty
	s.free = free
	s.mu.Unlock()
	if empty {
		free()
		return
	}
	time.AfterFunc(grace, free)
}
