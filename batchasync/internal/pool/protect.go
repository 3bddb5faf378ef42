// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"golang.org/x/time/rate"
)

// A BreakerConfig opens a circuit breaker when Failures of the last Of calls
// have failed. It stays open for Delay, and then lets one call through.
type BreakerConfig struct {
	Failures, Of int
	Delay        time.Duration
}

// A breaker is one of failsafe-go, which has the states and the counting; here
// are those who wait for it, where failsafe-go would fail them.
type breaker struct {
	circuitbreaker.CircuitBreaker[any]

	turn chan struct{} // holds one token, for the first of those who wait

	mu      sync.Mutex
	changed chan struct{} // closed with the next change of state
}

func newBreaker(c *BreakerConfig, changed func(open bool)) *breaker {
	if c == nil {
		return nil
	}
	b := &breaker{turn: make(chan struct{}, 1), changed: make(chan struct{})}
	b.turn <- struct{}{}
	b.CircuitBreaker = circuitbreaker.NewBuilder[any]().
		WithFailureThresholdRatio(uint(c.Failures), uint(c.Of)).
		WithSuccessThreshold(1).
		WithDelay(c.Delay).
		// The probes of a thousand workers must not come at once.
		WithJitterFactor(0.2).
		OnStateChanged(func(e circuitbreaker.StateChangedEvent) {
			b.mu.Lock()
			close(b.changed)
			b.changed = make(chan struct{})
			b.mu.Unlock()
			// That a probe has failed is no news.
			if changed != nil && (e.OldState == circuitbreaker.ClosedState || e.NewState == circuitbreaker.ClosedState) {
				changed(e.NewState == circuitbreaker.OpenState)
			}
		}).Build()
	return b
}

func (b *breaker) change() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// admit waits until the breaker lets a call through, and says whether that is a
// probe. Those who wait are let through in the order in which they came.
func (b *breaker) admit(ctx context.Context) (probe bool, err error) {
	if b.IsClosed() && b.TryAcquirePermit() {
		return false, nil
	}
	select {
	case <-b.turn:
		defer func() { b.turn <- struct{}{} }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	for {
		changed := b.change() // before it is asked, or a change could be missed
		if b.TryAcquirePermit() {
			return b.IsHalfOpen(), nil
		}
		var over <-chan time.Time
		stop := func() bool { return true }
		if b.IsOpen() {
			timer := time.NewTimer(b.RemainingDelay())
			over, stop = timer.C, timer.Stop
		}
		select {
		case <-changed:
		case <-over:
		case <-ctx.Done():
		}
		stop()
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
}

// A budget bounds the retries to a share of the calls: each first attempt adds
// the share to it, each retry takes 1 out. It holds at most as much as 100
// calls add, so that a long time without failures does not pay for a storm, and
// gains 1 a second, so that the last batches of all are not stuck. failsafe-go
// has a budget too, but for its own executors only, and it denies where a
// batch had better wait.
type budget struct {
	share float64

	mu      sync.Mutex
	balance float64
	at      time.Time // when balance was that
}

func newBudget(share float64) *budget {
	if share == 0 {
		return nil
	}
	return &budget{share: share, balance: 1, at: time.Now()}
}

func (b *budget) most() float64 { return max(100*b.share, 1) }

func (b *budget) deposit() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.balance = min(b.balance+b.share, b.most())
}

// withdraw takes 1 out, or returns how long it will take until it can at the
// latest.
func (b *budget) withdraw() (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.balance = min(b.balance+now.Sub(b.at).Seconds(), b.most())
	b.at = now
	if b.balance < 1 {
		return time.Duration((1-b.balance)*float64(time.Second)) + 1
	}
	b.balance--
	return 0
}

// admit waits for a retry's turn. It looks again soon, for other batches' calls
// may pay for it.
func (b *budget) admit(ctx context.Context) error {
	for {
		wait := b.withdraw()
		if wait == 0 {
			return nil
		}
		if err := Sleep(ctx, min(wait, 100*time.Millisecond)); err != nil {
			return err
		}
	}
}

// Sleep waits for d. When ctx ends first it returns the cause.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func newRate(perSecond float64, burst int) *rate.Limiter {
	if perSecond == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), burst)
}
