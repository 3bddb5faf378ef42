// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/metrics"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/batchasync/beam-batchasync/batchasync/internal/attempt"
	"github.com/batchasync/beam-batchasync/batchasync/internal/guard"
	"github.com/batchasync/beam-batchasync/batchasync/internal/pool"
	"github.com/batchasync/beam-batchasync/batchasync/internal/ring"
)

// A sender sends a bundle's batches. It is what the batches under way hold on
// to, and it does not hold the bundle: so the collector can tell when a runner
// has dropped that.
type sender[K, In, Out any] struct {
	config   *config
	pool     *pool.Pool
	methods  *methods[In, Out]
	ring     *ring.Ring[entry[K, In], answered[Out]]
	policy   attempt.Policy
	throttle throttle

	hub *hub[K, In, Out] // of the bundles that share the ring; nil: it is one bundle's

	// orphaned is set by the collector when a runner has dropped the bundle.
	// A flag and no more, for its goroutine is a stranger to the timers and
	// channels of a testing/synctest bubble.
	orphaned atomic.Bool

	// Of the bundle at hand, set before its first element arrives.
	ctx                  context.Context
	cancel               context.CancelFunc
	bundleID, pTransform string
}

func newSender[K, In, Out any](config *config, p *pool.Pool, m *methods[In, Out]) *sender[K, In, Out] {
	s := &sender[K, In, Out]{
		config:  config,
		pool:    p,
		methods: m,
		policy:  config.Settings.policy(),
	}
	limits := config.Settings.limits()
	if config.Settings.Sizes != nil {
		limits.NextSize = p.NextSize
	}
	s.ring = ring.New(limits, s.dispatch)
	return s
}

func (s *sender[K, In, Out]) begin(ctx context.Context) {
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.bundleID, s.pTransform = metrics.GetBundleID(ctx), metrics.GetTransformID(ctx)
}

// abandon ends the calls that obey their context, and lets no other start.
func (s *sender[K, In, Out]) abandon() {
	s.ring.Abandon()
	s.cancel()
}

// dispatch has a batch sent as soon as the pool permits. It may run on the
// timer's goroutine.
func (s *sender[K, In, Out]) dispatch(slot *slot[K, In, Out]) {
	b := &sending[K, In, Out]{sender: s, slot: slot, ready: time.Now(), ctx: s.ctx}
	if slot.Reason != ring.Linger && s.hub == nil && s.methods.answers == nil {
		b.first = b.gather()
	}
	s.throttle.begin()
	s.pool.Go(b)
}

// A sending is a batch on its way: all that it needs from dispatch until it is
// complete. It is the attempt.Service of the batch.
type sending[K, In, Out any] struct {
	*sender[K, In, Out]
	slot   *slot[K, In, Out]
	ready  time.Time
	ctx    context.Context
	permit *pool.Permit
	call   *callContext // of the attempt at hand, or of the last; not of a hedge

	// first is what the first call gets. A full batch is read by dispatch,
	// on the core that has just written it.
	first  []In
	shared *sharing[Out] // if equal keys are asked for once; nil: they are not

	tally tally
	given []bool // elements that have been given back early; nil: none
}

// element is the i-th of those that are asked for.
func (b *sending[K, In, Out]) element(i int) In {
	if b.shared != nil {
		i = b.shared.first[b.shared.asked[i]]
	}
	return b.slot.Items[i].in
}

// gather copies the elements that are asked for.
func (b *sending[K, In, Out]) gather() []In {
	n := len(b.slot.Items)
	if b.shared != nil {
		n = len(b.shared.asked)
	}
	elements := make([]In, n)
	for i := range elements {
		elements[i] = b.element(i)
	}
	return elements
}

// Run sends the batch. The pool calls it.
func (b *sending[K, In, Out]) Run(permit *pool.Permit) {
	b.permit = permit
	b.throttle.end()
	if b.orphaned.Load() || !b.ring.Seal(b.slot) {
		permit.Return()
		return
	}
	if b.hub != nil {
		b.hub.begin(b)
		if len(b.slot.Items) == 0 { // all of them have been abandoned
			b.complete(attempt.Outcome[Out]{})
			return
		}
	}
	b.tally.size, b.tally.bytes = len(b.slot.Items), b.slot.Bytes
	b.tally.wait = time.Since(b.ready)
	// The bundle has set the caller up; but if nobody has used it since, it
	// may be down again.
	if err := b.use(b.ctx); err != nil {
		b.complete(attempt.Outcome[Out]{Err: err})
		return
	}
	if b.methods.answers != nil {
		b.shared = b.share()
		b.ask()
		return
	}
	if b.first == nil {
		b.first = b.gather()
	}
	attempt.Run(b.ctx, len(b.first), &b.policy, b)
}

// Elements implements attempt.Service.
func (b *sending[K, In, Out]) Elements(group []int) []In {
	if group == nil {
		elements := b.first
		b.first = nil
		if elements == nil {
			elements = b.gather()
		}
		return elements
	}
	elements := make([]In, len(group))
	for i, index := range group {
		elements[i] = b.element(index)
	}
	return elements
}

// Admit implements attempt.Service.
func (b *sending[K, In, Out]) Admit(ctx context.Context) (probe bool, err error) {
	b.throttle.begin()
	defer b.throttle.end()
	if err := b.permit.Resume(ctx); err != nil {
		return false, err
	}
	if err := b.hold(ctx); err != nil {
		return false, err
	}
	if probe, err = b.pool.Admit(ctx); err != nil {
		return false, err
	}
	if err := b.wanted(); err != nil {
		b.pool.Cut()
		return false, err
	}
	return probe, nil
}

// hold waits for as long as the caller says that the service wants no call. It
// keeps its permit: those behind it are not wanted either.
func (b *sending[K, In, Out]) hold(ctx context.Context) error {
	for {
		wait := b.held()
		if wait <= 0 {
			return nil
		}
		// And ask again: another answer may have moved the time.
		if err := pool.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// held is how long no call may begin. A HoldUntil that panics holds nothing.
func (b *sending[K, In, Out]) held() time.Duration {
	if b.methods.holdUntil == nil {
		return 0
	}
	until, err := guard.Run("HoldUntil", func() (time.Time, error) { return b.methods.holdUntil(), nil })
	if err != nil {
		log.Warnf(b.ctx, "batchasync: %s: %v", b.config.Transform, err)
		return 0
	}
	return time.Until(until)
}

// wanted returns an error when nobody waits for the batch any more.
func (b *sending[K, In, Out]) wanted() error {
	if b.orphaned.Load() || b.hub != nil && !living(b.slot) {
		return context.Canceled
	}
	return nil
}

// Begin implements attempt.Service.
func (b *sending[K, In, Out]) Begin(ctx context.Context, info attempt.Info) context.Context {
	call := b.callContext(ctx, info.BatchID, info.Attempt)
	if callOf(ctx) == nil { // it is no hedge
		b.call = call
		b.permit.Begin()
		if info.Attempt == 1 {
			b.pool.First()
		}
	}
	// Ended by Call, however long that runs. Here, where the batch still
	// holds the caller: Call may begin late.
	b.pool.Shared.Again()
	return call
}

// Call implements attempt.Service. It lets go of the shared caller when the
// caller's Call returns, even if that is long after its timeout.
func (b *sending[K, In, Out]) Call(ctx context.Context, batch []In) ([]Out, error) {
	defer b.pool.Shared.Done()
	defer callOf(ctx).seat.returned()
	ctx, span := tracer.Start(ctx, "batchasync.Call", ofClient...)
	defer span.End()
	results, err := b.methods.call(ctx, batch)
	err = withoutEmpty(err)
	if span.IsRecording() {
		describe(span, InfoFrom(ctx), len(batch), err)
	}
	return results, err
}

// Hedge implements attempt.Service.
func (b *sending[K, In, Out]) Hedge() (ended func()) {
	if b.held() > 0 {
		return nil
	}
	permit := b.pool.Try()
	if permit == nil {
		return nil
	}
	return permit.Return
}

// Late implements attempt.Service.
func (b *sending[K, In, Out]) Late() { b.pool.Late() }

// End implements attempt.Service.
func (b *sending[K, In, Out]) End(end attempt.End) {
	b.tally.calls = append(b.tally.calls, end.Took)
	outcome := b.judge(end)
	if b.call.seat.isEmpty() {
		b.permit.End(end.Size, outcome)
	} else {
		left := b.permit.Leave()
		b.call.seat.leave(func() { left.End(end.Size, outcome) })
	}
	if !end.Answered {
		return // it may still be counting
	}
	if store := callOf(end.Context).counted(); store != nil {
		b.tally.users = append(b.tally.users, store)
	}
}

// judge tells the limits how a call ended, and says what that means for the
// number of calls in flight. Who says that an element is bad, or a row locked, is
// well; who does not answer, or asks to come back later, has too much to do; and
// who fails for now may have.
func (b *sending[K, In, Out]) judge(end attempt.End) pool.Outcome {
	switch {
	case end.Cut:
		b.pool.Cut()
		return pool.Ignored
	case end.Err == nil:
		b.pool.Report(true)
		if end.Attempt == 1 {
			b.pool.Took(end.Size, end.Took)
		}
		return pool.Answered
	case end.Verdict.TooLarge:
		b.pool.TooLarge(end.Size)
	case end.Verdict.RetryAfter > 0, end.Verdict.Elements == nil && !end.Verdict.Permanent:
		b.pool.Report(false)
		if _, late := end.Err.(*attempt.TimeoutError); late || end.Verdict.RetryAfter > 0 {
			return pool.Overloaded
		}
		return pool.Failed
	}
	b.pool.Report(true)
	return pool.Ignored
}

// Classify implements attempt.Service.
func (b *sending[K, In, Out]) Classify(err error, n int) attempt.Verdict {
	return b.methods.classify(err, n)
}

// Pause implements attempt.Service.
func (b *sending[K, In, Out]) Pause(ctx context.Context, d time.Duration) error {
	b.throttle.begin()
	defer b.throttle.end()
	if err := b.permit.Pause(ctx, d); err != nil {
		return err
	}
	return b.wanted()
}

// Progress implements attempt.Service.
func (b *sending[K, In, Out]) Progress(outcome *attempt.Outcome[Out], open []bool) {
	if b.shared != nil {
		b.shared.take(outcome, open)
		some, open := b.shared.outcome()
		b.hub.give(b, &some, open)
		return
	}
	b.hub.give(b, outcome, open)
}

// Done implements attempt.Service.
func (b *sending[K, In, Out]) Done(outcome *attempt.Outcome[Out]) {
	if b.shared != nil {
		b.asked(outcome)
		return
	}
	b.pool.Shared.Done()
	b.complete(*outcome)
}

func (b *sending[K, In, Out]) complete(outcome attempt.Outcome[Out]) {
	b.permit.Return()
	if b.hub != nil {
		b.hub.end(b, &outcome)
		return
	}
	b.slot.Result = answered[Out]{outcome, b.tally}
	b.ring.Complete(b.slot)
}

func (s *sender[K, In, Out]) callContext(ctx context.Context, batchID string, attempt int) *callContext {
	return &callContext{
		Context:    ctx,
		info:       Info{batchID, attempt, s.bundleID, s.config.Transform},
		pTransform: s.pTransform,
	}
}
