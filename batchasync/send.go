// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/metrics"
	"github.com/batchasync/beam-batchasync/batchasync/internal/attempt"
	"github.com/batchasync/beam-batchasync/batchasync/internal/guard"
	"github.com/batchasync/beam-batchasync/batchasync/internal/pool"
	"github.com/batchasync/beam-batchasync/batchasync/internal/ring"
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
	s.ring = ring.New(config.Settings.limits(), s.dispatch)
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
func (s *sender[K, In, Out]) dispatch(slot *ring.Slot[entry[K, In], answered[Out]]) {
	ready := time.Now()
	// A full batch is read here, on the core that has just written it.
	var batch []In
	if slot.Reason != ring.Linger {
		batch = inputs(slot.Items)
	}
	s.throttle.begin()
	s.pool.Go(func(permit *pool.Permit) {
		s.throttle.end()
		if s.orphaned.Load() || !s.ring.Seal(slot) {
			return
		}
		wait := time.Since(ready)
		if batch == nil {
			batch = inputs(slot.Items)
		}
		slot.Result = s.send(permit, batch)
		slot.Result.wait = wait
		s.ring.Complete(slot)
	})
}

func inputs[K, In any](items []entry[K, In]) []In {
	batch := make([]In, len(items))
	for i := range items {
		batch[i] = items[i].in
	}
	return batch
}

func (s *sender[K, In, Out]) send(permit *pool.Permit, batch []In) answered[Out] {
	var a answered[Out]
	// The bundle has set the caller up; but if nobody has used it since, it
	// may be down again.
	if a.Err = s.use(s.ctx); a.Err != nil {
		return a
	}
	defer s.pool.Shared.Done()
	if s.config.Settings.Dedup {
		unique, copies := s.dedup(batch)
		if len(unique) > 0 {
			a = s.run(permit, unique)
		}
		a.Outcome = spread(copies, a.Outcome)
		return a
	}
	return s.run(permit, batch)
}

// run is the life of a batch.
func (s *sender[K, In, Out]) run(permit *pool.Permit, batch []In) (a answered[Out]) {
	a.Outcome = attempt.Run(s.ctx, batch, s.policy, attempt.Service[In, Out]{
		Call:     s.call,
		Classify: s.classify,
		Begin: func(ctx context.Context, info attempt.Info) (context.Context, func(bool, time.Duration)) {
			call := s.callContext(ctx, info.BatchID, info.Attempt)
			// Ended by call, however long that runs. Here, where the
			// batch still holds the caller: call may begin late.
			s.pool.Shared.Again()
			return call, func(answered bool, took time.Duration) {
				a.calls = append(a.calls, took)
				if !answered {
					return // it may still be counting
				}
				if store := call.counted(); store != nil {
					a.users = append(a.users, store)
				}
			}
		},
		Pause: func(ctx context.Context, d time.Duration) error {
			s.throttle.begin()
			defer s.throttle.end()
			if err := permit.Pause(ctx, d); err != nil {
				return err
			}
			if s.orphaned.Load() {
				return context.Canceled
			}
			return nil
		},
	})
	return a
}

func (s *sender[K, In, Out]) callContext(ctx context.Context, batchID string, attempt int) *callContext {
	return &callContext{
		Context:    ctx,
		info:       Info{batchID, attempt, s.bundleID, s.config.Transform},
		pTransform: s.pTransform,
	}
}

// use makes sure that the shared caller is set up, and holds it until
// Shared.Done.
func (s *sender[K, In, Out]) use(ctx context.Context) error {
	if s.pool.Shared.TryUse() {
		return nil
	}
	// Clients keep the context that they were made with: Setup's does not end
	// with the bundle.
	setup := s.callContext(context.WithoutCancel(ctx), "", 0)
	if err := s.pool.Shared.Use(ctx, setup); err != nil {
		return fmt.Errorf("set up the caller: %w", err)
	}
	return nil
}

// call lets go of the shared caller when the call returns, even if that is long
// after its timeout.
func (s *sender[K, In, Out]) call(ctx context.Context, batch []In) ([]Out, error) {
	defer s.pool.Shared.Done()
	results, err := s.methods.call(ctx, batch)
	return results, withoutEmpty(err)
}

// classify asks the caller, guarded.
func (s *sender[K, In, Out]) classify(err error, n int) attempt.Verdict {
	verdict, broken := guard.Run("Retryable", func() (attempt.Verdict, error) {
		return classify(err, n, s.methods.retryable), nil
	})
	if broken != nil {
		return attempt.Verdict{Permanent: true, Err: fmt.Errorf("%w, asked about: %w", broken, err)}
	}
	return verdict
}
