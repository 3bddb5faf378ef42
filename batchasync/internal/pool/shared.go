// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"sync"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync/internal/guard"
)

// Shared is a value that a worker process sets up once, on its first use, and
// tears down when its last user has left or nobody has used it for a while:
// a portable worker never tells its DoFns that they are at their end.
type Shared struct {
	Value any

	setup, teardown func(context.Context) error
	idle            time.Duration

	// keep holds the pool for as long as the idle timer holds its value:
	// otherwise the next bundle would find a new pool and set up once more.
	keep *Pool

	mu      sync.Mutex
	state   state
	turn    *turn // the last change of state
	members int   // DoFn instances
	uses    int   // calls under way
	lastUse time.Time
	timer   *time.Timer
	leaving bool // the last member has left during a call or a set-up
}

type state uint8

const (
	down state = iota
	turning
	up
)

// A turn is a set-up or a tear-down.
type turn struct {
	ended chan struct{}
	err   error // to be read when it has ended
}

// NewShared returns value, down. setup and teardown may be nil.
func NewShared(value any, setup, teardown func(context.Context) error, idle time.Duration) *Shared {
	return &Shared{Value: value, setup: setup, teardown: teardown, idle: idle}
}

// Join adds a member.
func (s *Shared) Join() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members++
	s.leaving = false
}

// Leave takes a member away. The last one tears the value down, or leaves that
// to the last call that is under way.
func (s *Shared) Leave() error {
	s.mu.Lock()
	s.members--
	if s.members > 0 || s.state == down {
		s.mu.Unlock()
		return nil
	}
	if s.uses > 0 || s.state == turning {
		s.leaving = true
		s.mu.Unlock()
		return nil
	}
	t := s.turnDown()
	s.mu.Unlock()
	<-t.ended
	return t.err
}

// Use sets the value up if it is down, waits while another user does so, and
// counts a use. It returns the error of that set-up (the next Use tries
// again), or the cause of ctx's end. setupCtx is what the set-up gets: it must
// outlive the bundle, for clients keep it.
func (s *Shared) Use(ctx, setupCtx context.Context) error {
	for {
		s.mu.Lock()
		if s.state == up {
			s.uses++
			s.mu.Unlock()
			return nil
		}
		settingUp := s.state == down
		if settingUp {
			s.turnUp(setupCtx)
		}
		t := s.turn
		s.mu.Unlock()
		select {
		case <-t.ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		// Who waited for somebody else's turn looks again: that was a
		// tear-down, or he tries the set-up for himself.
		if settingUp && t.err != nil {
			return t.err
		}
	}
}

// TryUse counts a use if the value is up.
func (s *Shared) TryUse() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != up {
		return false
	}
	s.uses++
	return true
}

// Again counts one more use for who uses the value already.
func (s *Shared) Again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses++
}

// Done ends a use.
func (s *Shared) Done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uses--
	if s.uses > 0 || s.state != up {
		return
	}
	if s.leaving && s.members == 0 {
		s.turnDown()
		return
	}
	s.rest()
}

// rest begins the idle time. One timer runs for each idle time, not one for
// each use.
func (s *Shared) rest() {
	s.lastUse = time.Now()
	if s.timer == nil {
		s.timer = time.AfterFunc(s.idle, s.expire)
	}
}

// expire tears the value down if it has been idle long enough.
func (s *Shared) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = nil
	if s.state != up || s.uses > 0 {
		return // the last use sets the timer again
	}
	if rest := s.idle - time.Since(s.lastUse); rest > 0 {
		s.timer = time.AfterFunc(rest, s.expire)
		return
	}
	s.turnDown()
}

func (s *Shared) turnUp(ctx context.Context) {
	s.turnTo(up, func() error { return call(ctx, "Setup", s.setup) })
}

func (s *Shared) turnDown() *turn {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	return s.turnTo(down, func() error { return call(context.Background(), "Teardown", s.teardown) })
}

// turnTo changes the state by f; a change that fails leaves the value down.
func (s *Shared) turnTo(to state, f func() error) *turn {
	t := &turn{ended: make(chan struct{})}
	s.state, s.turn, s.leaving = turning, t, false
	go func() {
		t.err = f()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.state = to
		if t.err != nil {
			s.state = down
		}
		if s.state == up {
			s.rest() // who asked for it may have given up waiting
		}
		close(t.ended)
	}()
	return t
}

func call(ctx context.Context, in string, f func(context.Context) error) error {
	if f == nil {
		return nil
	}
	_, err := guard.Run(in, func() (struct{}, error) { return struct{}{}, f(ctx) })
	return err
}
