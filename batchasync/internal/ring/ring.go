// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package ring holds the open and the sent batches of a bundle in a fixed
// number of slots. It knows nothing of Beam, of retry or of callers.
//
// A slot goes one way: it is opened by the first Append, filled, handed to the
// ready function once, sealed, completed by its sender, taken by the owner of
// the ring, and released for the next batch. It is no channel of batches for
// three reasons: an open batch has to stay visible, so that the bundle's end,
// its linger and a free sender may each seal it; results come back into the
// slot that already holds the elements' windows, so that nothing is matched by
// key; and a full ring has to make its owner do something useful (take
// finished batches out) where a full channel would just block it, which is how
// such designs deadlock.
package ring

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"
)

// A Reason says what made a batch ready to be sent.
type Reason uint8

// The reasons, in the order in which the ring checks them.
const (
	Size   Reason = iota // it held Limits.Size elements
	Bytes                // the next element would have overshot Limits.Bytes
	Linger               // its first element had waited for Limits.Linger
	Flush                // its owner called Flush
)

// Limits bound a ring. Size and Slots are at least 1; a zero Bytes or Linger
// stands for no such limit.
type Limits struct {
	// NextSize, if it is set, is asked for the elements of each batch that is
	// opened, at least 1, in place of Size. The ring's lock is held.
	NextSize func() int

	Slots   int           // batches that are open, sent or waiting to be taken
	Size    int           // elements a batch
	Bytes   int           // bytes a batch, but for one element that is larger by itself
	Linger  time.Duration // from a batch's first element until it is ready
	Ordered bool          // slots are taken in the order in which they were opened
}

// A Slot holds one batch. Its fields belong to the ring while it is open, to
// the sender from Seal to Complete, and to the ring's owner from Take to
// Release, so that no lock is needed to read them.
type Slot[E, R any] struct {
	Items  []E
	Bytes  int
	Reason Reason
	Result R

	size     int       // elements that make it full
	number   uint64    // position in the order of opening
	deadline time.Time // when linger makes it ready; only if there is a linger
	ready    bool      // handed to the ready function
}

// A Ring is used by one owner, who appends, takes and releases, and by many
// senders, who seal and complete.
type Ring[E, R any] struct {
	limits Limits
	ready  func(*Slot[E, R])

	// changed wakes the owner; one token is enough, for the owner looks at
	// everything when it wakes. A channel and no sync.Cond, so that the
	// owner can wait for its context as well.
	changed chan struct{}

	mu     sync.Mutex
	free   []*Slot[E, R]
	made   int // slots allocated so far: a small bundle never pays for a large ring
	open   *Slot[E, R]
	done   []*Slot[E, R]
	opened uint64 // slots ever opened
	taken  uint64 // slots ever taken
	timer  *time.Timer
	armed  bool
	dead   bool
}

// New returns an empty ring. ready is called once for each batch that may be
// sent, without the ring's lock, by whoever made it ready: the owner or the
// linger timer. It must not block.
func New[E, R any](limits Limits, ready func(*Slot[E, R])) *Ring[E, R] {
	return &Ring[E, R]{limits: limits, ready: ready, changed: make(chan struct{}, 1)}
}

// Append adds e, which counts as size bytes, to the open batch. It reports
// whether e was taken in (false: no slot is free; take and release one, then
// call again) and whether a finished batch can be taken.
func (r *Ring[E, R]) Append(e E, size int) (appended, finished bool) {
	var full, next *Slot[E, R]
	r.mu.Lock()
	if s := r.open; s != nil && r.limits.Bytes > 0 && s.Bytes+size > r.limits.Bytes {
		full = r.closeOpen(Bytes)
	}
	if r.open != nil || r.openSlot() {
		s := r.open
		s.Items = append(s.Items, e)
		s.Bytes += size
		appended = true
		if len(s.Items) >= s.size {
			next = r.closeOpen(Size)
		} else if r.limits.Bytes > 0 && s.Bytes >= r.limits.Bytes {
			next = r.closeOpen(Bytes)
		}
	}
	finished = r.canTake()
	r.mu.Unlock()
	// A batch of one element can close two slots in one call.
	if full != nil {
		r.ready(full)
	}
	if next != nil {
		r.ready(next)
	}
	return appended, finished
}

// openSlot opens the next free slot, if there is one.
func (r *Ring[E, R]) openSlot() bool {
	var s *Slot[E, R]
	switch n := len(r.free); {
	case n > 0:
		s = r.free[n-1]
		r.free = r.free[:n-1]
	case r.made < r.limits.Slots:
		r.made++
		s = &Slot[E, R]{}
	default:
		return false
	}
	s.size = r.limits.Size
	if r.limits.NextSize != nil {
		s.size = r.limits.NextSize()
	}
	s.number = r.opened
	r.opened++
	r.open = s
	if r.limits.Linger > 0 {
		s.deadline = time.Now().Add(r.limits.Linger)
		// A timer that is still pending for an earlier batch is left
		// alone: when it fires, it looks at the batch that is open then.
		// So a fast ring sets one timer a linger, not one a batch.
		if !r.armed {
			r.arm(r.limits.Linger)
		}
	}
	return true
}

func (r *Ring[E, R]) arm(d time.Duration) {
	r.armed = true
	if r.timer == nil {
		r.timer = time.AfterFunc(d, r.expire)
		return
	}
	r.timer.Reset(d)
}

// expire makes the open batch ready if its own linger is over. The batch for
// which the timer was set may be long gone: a later one is not its business,
// and gets the rest of its time.
func (r *Ring[E, R]) expire() {
	r.mu.Lock()
	r.armed = false
	s := r.open
	if r.dead || s == nil || s.ready {
		r.mu.Unlock()
		return
	}
	if rest := time.Until(s.deadline); rest > 0 {
		r.arm(rest)
		r.mu.Unlock()
		return
	}
	// It stays open: until a sender is free it may as well grow.
	s.ready, s.Reason = true, Linger
	r.mu.Unlock()
	r.ready(s)
}

// closeOpen lets no more elements into the open slot, and returns it if it has
// still to be handed over.
func (r *Ring[E, R]) closeOpen(reason Reason) *Slot[E, R] {
	s := r.open
	r.open = nil
	if s.ready {
		return nil
	}
	s.ready, s.Reason = true, reason
	return s
}

// Flush makes the open batch ready, whatever it holds.
func (r *Ring[E, R]) Flush() {
	r.mu.Lock()
	var s *Slot[E, R]
	if r.open != nil {
		s = r.closeOpen(Flush)
	}
	r.mu.Unlock()
	if s != nil {
		r.ready(s)
	}
}

// Seal gives s to its sender: from now on nothing is appended to it. It
// reports false if the ring has been abandoned; then s must not be touched.
func (r *Ring[E, R]) Seal(s *Slot[E, R]) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == s {
		r.open = nil
	}
	return !r.dead
}

// Complete gives s, with its Result, back to the owner.
func (r *Ring[E, R]) Complete(s *Slot[E, R]) {
	r.mu.Lock()
	if r.limits.Ordered {
		i, _ := slices.BinarySearchFunc(r.done, s.number, func(d *Slot[E, R], n uint64) int {
			return cmp.Compare(d.number, n)
		})
		r.done = slices.Insert(r.done, i, s)
	} else {
		r.done = append(r.done, s)
	}
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *Ring[E, R]) canTake() bool {
	return len(r.done) > 0 && (!r.limits.Ordered || r.done[0].number == r.taken)
}

// Take returns a completed slot, or nil if there is none (in an ordered ring:
// if the oldest is not completed).
func (r *Ring[E, R]) Take() *Slot[E, R] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.canTake() {
		return nil
	}
	s := r.done[0]
	r.done = slices.Delete(r.done, 0, 1)
	r.taken++
	return s
}

// Release makes a taken slot free. What it held is cleared for the collector.
func (r *Ring[E, R]) Release(s *Slot[E, R]) {
	clear(s.Items)
	*s = Slot[E, R]{Items: s.Items[:0]}
	r.mu.Lock()
	r.free = append(r.free, s)
	r.mu.Unlock()
}

// Wait returns when a slot can be taken, or with the cause of ctx's end.
func (r *Ring[E, R]) Wait(ctx context.Context) error {
	for {
		r.mu.Lock()
		ok := r.canTake()
		r.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-r.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Outstanding is the number of batches that were opened and not yet taken.
func (r *Ring[E, R]) Outstanding() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int(r.opened - r.taken)
}

// Abandon ends the ring: its timer is stopped, and no batch of it is sealed any
// more. A sender that is under way completes into nothing.
func (r *Ring[E, R]) Abandon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead = true
	r.open = nil
	if r.timer != nil {
		r.timer.Stop()
	}
}
