// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/metrics"
	"github.com/batchasync/beam-batchasync/batchasync/internal/attempt"
)

// A hub is what the bundles of a transform in this process share with
// AcrossBundles: one sender with one ring. A bundle is a member of it, and puts
// its elements into the common batches; when a batch has been answered, each
// member gets its own part of it. The slot is free again at once, so that a
// bundle that is slow to take its results never holds up another: what it has
// not taken is bounded by itself, since it takes no more in then.
type hub[K, In, Out any] struct {
	sender *sender[K, In, Out]
	most   int // elements that a member may have outstanding

	mu     sync.Mutex
	sent   map[*sending[K, In, Out]]context.CancelFunc
	hungry []*member[K, In, Out] // wait for a free slot
}

// hubOf returns the hub of a bundle's transform.
func hubOf[K, In, Out any](b *bundle[K, In, Out]) *hub[K, In, Out] {
	return b.pool.Common(func() any {
		s := newSender[K, In, Out](b.config, b.pool, b.methods())
		// Of no bundle: one that was made first may be over long before.
		s.ctx, s.pTransform = context.Background(), metrics.GetTransformID(b.ctx)
		limits := b.config.Settings.limits()
		s.hub = &hub[K, In, Out]{
			sender: s,
			most:   limits.Slots * limits.Size,
			sent:   map[*sending[K, In, Out]]context.CancelFunc{},
		}
		return s.hub
	}).(*hub[K, In, Out])
}

func (h *hub[K, In, Out]) join() *member[K, In, Out] {
	return &member[K, In, Out]{hub: h, changed: make(chan struct{}, 1)}
}

// owner returns the member that an element is of.
func owner[K, In, Out any](e *entry[K, In]) *member[K, In, Out] {
	return e.at.owner.(*member[K, In, Out])
}

// living reports whether a member still waits for an element of the slot.
func living[K, In, Out any](s *slot[K, In, Out]) bool {
	for i := range s.Items {
		if !owner[K, In, Out](&s.Items[i]).gone.Load() {
			return true
		}
	}
	return false
}

// begin takes the elements out that nobody waits for any more, and gives the
// batch a context that ends when that is true of all of them.
func (h *hub[K, In, Out]) begin(b *sending[K, In, Out]) {
	b.slot.Items = slices.DeleteFunc(b.slot.Items, func(e entry[K, In]) bool { return owner[K, In, Out](&e).gone.Load() })
	var cancel context.CancelFunc
	b.ctx, cancel = context.WithCancel(b.ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent[b] = cancel
}

// end gives back what has not been given yet, and makes the slot free.
func (h *hub[K, In, Out]) end(b *sending[K, In, Out], outcome *attempt.Outcome[Out]) {
	h.give(b, outcome, nil)
	h.mu.Lock()
	h.sent[b]()
	delete(h.sent, b)
	h.mu.Unlock()
	ring := h.sender.ring
	ring.Complete(b.slot)
	ring.Release(ring.Take()) // this one or another that has been given back
	h.mu.Lock()
	hungry := h.hungry
	h.hungry = nil
	h.mu.Unlock()
	for _, m := range hungry {
		m.wake()
	}
}

// give gives the members their parts of what has ended of a batch. Elements that
// are open have not; nil: none of them is.
func (h *hub[K, In, Out]) give(b *sending[K, In, Out], outcome *attempt.Outcome[Out], open []bool) {
	failures := make(map[int]attempt.Failure, len(outcome.Failures))
	for _, f := range outcome.Failures {
		failures[f.Index] = f
	}
	if open != nil && b.given == nil {
		b.given = make([]bool, len(b.slot.Items))
	}
	var parts []*part[K, In, Out]
	of := map[*member[K, In, Out]]*part[K, In, Out]{}
	for i := range b.slot.Items {
		if open != nil && open[i] || b.given != nil && b.given[i] {
			continue
		}
		if b.given != nil {
			b.given[i] = true
		}
		e := b.slot.Items[i]
		m := owner[K, In, Out](&e)
		p := of[m]
		if p == nil || h.sender.config.Settings.Ordered { // the elements between may still be open
			p = &part[K, In, Out]{member: m}
			p.Reason = b.slot.Reason
			p.Result.Err = outcome.Err
			of[m] = p
			parts = append(parts, p)
		}
		p.add(e, outcome, i, failures)
	}
	if open == nil && len(parts) > 0 {
		// Counted once, by one of the bundles.
		first := &parts[0].Result
		first.tally = b.tally
		first.Calls, first.Retries, first.Timeouts = outcome.Calls, outcome.Retries, outcome.Timeouts
		first.Bisections, first.Hedges = outcome.Bisections, outcome.Hedges
	}
	for _, p := range parts {
		p.member.put(&p.slot)
	}
}

// A part is what a batch has of one member.
type part[K, In, Out any] struct {
	member *member[K, In, Out]
	slot[K, In, Out]
}

// add adds the i-th element of a batch.
func (p *part[K, In, Out]) add(e entry[K, In], outcome *attempt.Outcome[Out], i int, failures map[int]attempt.Failure) {
	var result Out
	if f, failed := failures[i]; failed {
		f.Index = len(p.Items)
		p.Result.Failures = append(p.Result.Failures, f)
	} else if i < len(outcome.Results) {
		result = outcome.Results[i]
	}
	p.Items = append(p.Items, e)
	p.Result.Results = append(p.Result.Results, result)
}

// A member is a bundle's part of a hub: its feed. All but put and wake belong to
// the bundle's goroutine.
type member[K, In, Out any] struct {
	hub     *hub[K, In, Out]
	gone    atomic.Bool   // the bundle has failed, or its runner has dropped it
	changed chan struct{} // holds one token

	outstanding int    // elements that were taken in and not yet taken out
	seen, mine  *place // the last element's place, and that with its owner
	appended    uint64 // elements ever
	taken       uint64

	mu   sync.Mutex
	done []*slot[K, In, Out]
}

// Append implements feed.
func (m *member[K, In, Out]) Append(e entry[K, In], size int) (appended, finished bool) {
	if m.outstanding >= m.hub.most {
		return false, m.canTake()
	}
	if m.seen != e.at.place || m.hub.sender.config.Settings.Ordered {
		m.seen = e.at.place
		m.mine = &place{windows: m.seen.windows, pane: m.seen.pane, owner: m, seq: m.appended}
	}
	e.at.place = m.mine
	appended, _ = m.hub.sender.ring.Append(e, size)
	if !appended {
		// Once more when it is known who waits, or a slot that was freed
		// meanwhile would wake nobody.
		m.hub.mu.Lock()
		m.hub.hungry = append(m.hub.hungry, m)
		m.hub.mu.Unlock()
		appended, _ = m.hub.sender.ring.Append(e, size)
	}
	if appended {
		m.appended++
		m.outstanding++
	}
	return appended, m.canTake()
}

// Flush implements feed: other bundles may go on filling the batch, until its
// linger is over.
func (m *member[K, In, Out]) Flush() {
	if m.hub.sender.config.Settings.Linger == 0 {
		m.hub.sender.ring.Flush()
	}
}

// Outstanding implements feed, in elements.
func (m *member[K, In, Out]) Outstanding() int { return m.outstanding }

// Wait implements feed.
func (m *member[K, In, Out]) Wait(ctx context.Context) error {
	if m.canTake() {
		return nil
	}
	select {
	case <-m.changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *member[K, In, Out]) canTake() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.next() != nil
}

// next returns what is to be taken next, if it is there.
func (m *member[K, In, Out]) next() *slot[K, In, Out] {
	if len(m.done) == 0 || m.hub.sender.config.Settings.Ordered && m.done[0].Items[0].at.seq != m.taken {
		return nil
	}
	return m.done[0]
}

// Take implements feed.
func (m *member[K, In, Out]) Take() *slot[K, In, Out] {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.next()
	if s != nil {
		m.done = slices.Delete(m.done, 0, 1)
		m.taken += uint64(len(s.Items))
		m.outstanding -= len(s.Items)
	}
	return s
}

// Release implements feed.
func (m *member[K, In, Out]) Release(*slot[K, In, Out]) {}

// Abandon implements feed: it ends the calls that are made for nobody else.
func (m *member[K, In, Out]) Abandon() {
	m.gone.Store(true)
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	for b, cancel := range m.hub.sent {
		if !living(b.slot) {
			cancel()
		}
	}
}

// put gives the member its part of a batch.
func (m *member[K, In, Out]) put(s *slot[K, In, Out]) {
	m.mu.Lock()
	at := len(m.done)
	if m.hub.sender.config.Settings.Ordered {
		at, _ = slices.BinarySearchFunc(m.done, s.Items[0].at.seq, func(d *slot[K, In, Out], seq uint64) int {
			return cmp.Compare(d.Items[0].at.seq, seq)
		})
	}
	m.done = slices.Insert(m.done, at, s)
	m.mu.Unlock()
	m.wake()
}

func (m *member[K, In, Out]) wake() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}
