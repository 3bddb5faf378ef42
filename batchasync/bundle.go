// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync/internal/attempt"
	"github.com/batchasync/beam-batchasync/batchasync/internal/pool"
	"github.com/batchasync/beam-batchasync/batchasync/internal/ring"
)

// callerIdle is how long a caller stays set up when nobody uses it.
const callerIdle = 10 * time.Minute

// An entry is an element in its batch.
type entry[K, In any] struct {
	key K // of a KV; otherwise K is an empty struct
	in  In
	at  origin
}

// answered is how a batch ended, as its goroutine hands it to the bundle's.
type answered[Out any] struct {
	attempt.Outcome[Out]
	tally
}

// A slot holds a batch, or a bundle's part of one.
type slot[K, In, Out any] = ring.Slot[entry[K, In], answered[Out]]

// A feed takes a bundle's elements in, and gives them back in batches that have
// been answered. It is a ring of the bundle's own, or its part of one that many
// bundles share.
type feed[K, In, Out any] interface {
	Append(e entry[K, In], size int) (appended, finished bool)
	Flush()
	Outstanding() int
	Wait(ctx context.Context) error // may return before there is anything to take
	Take() *slot[K, In, Out]
	Release(*slot[K, In, Out])
	Abandon()
}

// A bundle is the run-time state of a DoFn instance: it serves one bundle after
// the other, for each form of input and output. It belongs to the goroutine
// that Beam runs the bundle on, and alone emits and counts.
//
// What holds for each bundle: an element that Append took in is in one slot;
// that slot is taken once; each of its elements is then emitted as a result or
// as a failure, or the bundle fails.
type bundle[K, In, Out any] struct {
	config *config
	pool   *pool.Pool
	size   func(In) (int, error) // nil if BatchBytes is not set

	keyed  bool                           // elements are values of a KV
	result func(*entry[K, In], Out) error // emits an answer

	results, failures *output
	ctx               context.Context // Beam's, for emitting and counting
	sender            *sender[K, In, Out]
	feed              feed[K, In, Out]
	begun             bool // an element has arrived
	arrived           int64
	answered          int64
	failed            int64
	hits              int64 // answered from the cache, without a batch
}

// setUp is called in a DoFn's Setup, and makes its bundle. The caller that the
// instance brings (nil stands for the one in config) is used if it is the first
// of its transform in this process.
func setUp[K, In, Out any, C Caller[In, Out]](at **bundle[K, In, Out], config config, caller *C) error {
	if *at != nil {
		return nil
	}
	cell := new(C)
	if caller != nil {
		*cell = *caller
	} else if err := json.Unmarshal([]byte(config.Caller), cell); err != nil {
		return fmt.Errorf("batchasync: %s: decode the caller %T from JSON: %w", config.Transform, *cell, err)
	}
	// The config and the cell are copies: what the batches under way and the
	// pool hold on to must not hold the DoFn instance.
	b := &bundle[K, In, Out]{config: &config}
	b.result = func(e *entry[K, In], out Out) error { return b.put(b.results, e, out) }
	limits := config.Settings.poolLimits()
	limits.Opened = config.logBreaker
	b.pool = pool.For(config.ID, limits, func() *pool.Shared {
		m := methodsOf[In, Out](cell)
		setup := m.setup
		if memory, wanted := config.Settings.memory(); wanted && m.remember != nil {
			setup = m.remembering(memory)
		} else if wanted {
			m.answers = newAnswers(&config.Settings, m)
		}
		return pool.NewShared(m, setup, m.loggedTeardown(config.Transform), callerIdle)
	})
	b.pool.Shared.Join()
	if config.Settings.BatchBytes > 0 {
		b.size = sizeOf(b.methods().elementSize)
	}
	*at = b
	return nil
}

func (b *bundle[K, In, Out]) methods() *methods[In, Out] {
	return b.pool.Shared.Value.(*methods[In, Out])
}

// start begins a bundle. One that has been left unfinished is abandoned, as a
// runner does with a bundle in which another transform has failed.
func (b *bundle[K, In, Out]) start(ctx context.Context, results, failures *output) {
	if b.begun {
		b.abandon()
	}
	b.ctx, b.results, b.failures = ctx, results, failures
	results.observe = true
	b.arrived, b.answered, b.failed, b.hits = 0, 0, 0, 0
}

// begin prepares for the bundle's first element; an empty bundle costs nothing.
func (b *bundle[K, In, Out]) begin() error {
	// A runner drops a bundle that has failed elsewhere without a word. The
	// calls under way end by themselves; what is queued or would be retried
	// ends here, with the collector's next round.
	switch {
	case b.sender != nil:
	case b.config.Settings.AcrossBundles:
		h := hubOf(b)
		m := h.join()
		b.sender, b.feed = h.sender, m
		runtime.AddCleanup(b, func(m *member[K, In, Out]) { m.gone.Store(true) }, m)
	default:
		b.sender = newSender[K, In, Out](b.config, b.pool, b.methods())
		b.feed = b.sender.ring
		runtime.AddCleanup(b, func(s *sender[K, In, Out]) { s.orphaned.Store(true) }, b.sender)
	}
	if !b.config.Settings.AcrossBundles {
		b.sender.begin(b.ctx)
	}
	b.begun = true
	// A caller that can't be set up is told of before the first batch is full.
	if err := b.sender.use(b.ctx); err != nil {
		b.abandon()
		return b.wrap(err)
	}
	b.pool.Shared.Done()
	return nil
}

func (b *bundle[K, In, Out]) wrap(err error) error {
	return fmt.Errorf("batchasync: %s: %w", b.config.Transform, err)
}

// process takes an element in. While the ring is full it takes out what has
// been answered, and waits for more.
func (b *bundle[K, In, Out]) process(key K, in In) error {
	if !b.begun {
		if err := b.begin(); err != nil {
			return err
		}
	}
	b.arrived++
	e := entry[K, In]{key: key, in: in, at: b.results.now}
	size, done, err := b.look(&e)
	if done || err != nil {
		return err
	}
	for {
		appended, finished := b.feed.Append(e, size)
		if !appended && !finished {
			if err := b.wait(); err != nil {
				return err
			}
			finished = true
		}
		if finished {
			if err := b.deliver(); err != nil {
				return err
			}
		}
		if appended {
			return nil
		}
	}
}

// look asks the caller for an element's size, if there is a bound on that, and
// the cache for its answer, if there is a cache. It reports whether the element
// is done with that.
func (b *bundle[K, In, Out]) look(arrived *entry[K, In]) (size int, done bool, err error) {
	cached := b.config.Settings.CacheEntries > 0
	if b.size == nil && !cached {
		return 0, false, nil
	}
	e := *arrived // or each element would go to the heap
	// For this moment, since the bundle may be open for longer than a caller
	// stays set up without a call.
	if err := b.sender.use(b.ctx); err != nil {
		b.abandon()
		return 0, false, b.wrap(err)
	}
	var found answer[Out]
	if cached && (!b.config.Settings.Ordered || b.feed.Outstanding() == 0) {
		found, done, err = b.methods().known(b.ctx, e.in)
	}
	if err == nil && !done && b.size != nil {
		size, err = b.size(e.in)
	}
	b.pool.Shared.Done()
	switch {
	case err != nil:
		found.failure, done = &attempt.Failure{Err: err, Permanent: true, At: time.Now()}, true
	case !done:
		return size, false, nil
	default:
		b.hits++
	}
	return 0, true, b.guarded(func() error {
		if found.failure != nil {
			return b.fail(&e, *found.failure)
		}
		b.answered++
		return b.result(&e, found.result)
	})
}

// finish sends what is left, and waits until everything has been emitted.
func (b *bundle[K, In, Out]) finish() error {
	if !b.begun {
		return nil
	}
	b.feed.Flush()
	for b.feed.Outstanding() > 0 {
		if err := b.wait(); err != nil {
			return err
		}
		if err := b.deliver(); err != nil {
			return err
		}
	}
	if !b.config.Settings.AcrossBundles {
		b.sender.cancel()
	}
	b.begun = false
	elementsCounter.Inc(b.ctx, b.arrived)
	resultsCounter.Inc(b.ctx, b.answered)
	countSome(b.ctx, failuresCounter, b.failed)
	countSome(b.ctx, hitsCounter, b.hits)
	b.countThrottling()
	b.warnOfLonely()
	if b.arrived != b.answered+b.failed {
		return b.wrap(fmt.Errorf("%d elements arrived, but %d were answered and %d failed: this is a mistake in batchasync, please report it",
			b.arrived, b.answered, b.failed))
	}
	return nil
}

func (b *bundle[K, In, Out]) wait() error {
	if err := b.feed.Wait(b.ctx); err != nil {
		b.abandon()
		return b.wrap(fmt.Errorf("the bundle's context ended with batches under way: %w", err))
	}
	return nil
}

// deliver emits all batches that have been answered.
func (b *bundle[K, In, Out]) deliver() error {
	return b.guarded(func() error {
		for slot := b.feed.Take(); slot != nil; slot = b.feed.Take() {
			if err := b.emit(slot); err != nil {
				return err
			}
			b.feed.Release(slot)
		}
		return nil
	})
}

// guarded abandons the bundle if f, which emits, fails or panics: a transform
// behind this one may do either.
func (b *bundle[K, In, Out]) guarded(f func() error) (err error) {
	emitted := false
	defer func() {
		if !emitted && b.begun {
			b.abandon()
		}
	}()
	err = f()
	emitted = err == nil
	return err
}

func (b *bundle[K, In, Out]) emit(slot *slot[K, In, Out]) error {
	outcome := &slot.Result
	if err := b.count(slot); err != nil {
		return err
	}
	if outcome.Err != nil {
		return b.wrap(outcome.Err)
	}
	failures := outcome.Failures
	if len(failures) > 0 && b.config.Settings.FailBundle {
		return b.callError(&failures[0])
	}
	for i := range slot.Items {
		e := &slot.Items[i]
		if len(failures) > 0 && failures[0].Index == i {
			if err := b.fail(e, failures[0]); err != nil {
				return err
			}
			failures = failures[1:]
			continue
		}
		if err := b.result(e, outcome.Results[i]); err != nil {
			return err
		}
		b.answered++
	}
	return nil
}

// put emits a value for an element into one of the outputs.
func (b *bundle[K, In, Out]) put(to *output, e *entry[K, In], value any) error {
	if b.keyed {
		return to.emit(&e.at, e.key, value)
	}
	return to.emit(&e.at, value, nil)
}

// fail ends an element as a failure, or the bundle with it.
func (b *bundle[K, In, Out]) fail(e *entry[K, In], f attempt.Failure) error {
	if b.config.Settings.FailBundle {
		return b.callError(&f)
	}
	b.failed++
	return b.put(b.failures, e, Failure[In]{
		Element:   e.in,
		Error:     fmt.Sprint(f.Err), // which survives an Error method that panics
		Attempts:  f.Attempts,
		BatchID:   f.BatchID,
		BatchSize: f.BatchSize,
		Permanent: f.Permanent,
		FailedAt:  f.At.UTC(),
	})
}

func (b *bundle[K, In, Out]) callError(f *attempt.Failure) error {
	return &CallError{
		Transform: b.config.Transform,
		BatchID:   f.BatchID,
		Size:      f.BatchSize,
		Attempts:  f.Attempts,
		Elapsed:   f.Elapsed,
		Permanent: f.Permanent,
		Err:       f.Err,
	}
}

// count is the one place that counts a batch.
func (b *bundle[K, In, Out]) count(slot *slot[K, In, Out]) error {
	o := &slot.Result
	if o.size == 0 {
		return nil
	}
	batchesCounter.Inc(b.ctx, 1)
	flushCounters[slot.Reason].Inc(b.ctx, 1)
	batchSizes.Update(b.ctx, int64(o.size))
	if b.size != nil {
		batchBytes.Update(b.ctx, int64(o.bytes))
	}
	b.countThrottling()
	waitTimes.Update(b.ctx, o.wait.Milliseconds())
	callsCounter.Inc(b.ctx, int64(o.Calls))
	for _, took := range o.calls {
		callTimes.Update(b.ctx, took.Milliseconds())
	}
	countSome(b.ctx, retriesCounter, int64(o.Retries))
	countSome(b.ctx, timeoutsCounter, int64(o.Timeouts))
	countSome(b.ctx, bisectionsCounter, int64(o.Bisections))
	if b.config.Settings.CacheEntries > 0 {
		countSome(b.ctx, hitsCounter, int64(o.hits))
		countSome(b.ctx, missesCounter, int64(o.misses))
	}
	countSome(b.ctx, hedgesCounter, int64(o.Hedges))
	countSome(b.ctx, lateCounter, b.pool.TakeLate())
	if limit, ok := b.pool.Limit(); ok {
		limitGauge.Set(b.ctx, int64(100*limit))
	}
	if state, ok := b.pool.Breaker(); ok {
		breakerGauge.Set(b.ctx, state)
	}
	for _, store := range o.users {
		if err := replay(b.ctx, store); err != nil {
			return b.wrap(fmt.Errorf("count the caller's metrics: %w", err))
		}
	}
	return nil
}

// countThrottling counts as it goes, for a bundle may be a whole stage, and a
// runner wants to scale before that is over.
func (b *bundle[K, In, Out]) countThrottling() {
	countSome(b.ctx, throttlingCounter, b.sender.throttle.take())
}

// abandon ends a bundle that has failed. The next one gets a new sender, for
// the calls of this one may still be under way.
func (b *bundle[K, In, Out]) abandon() {
	b.begun = false
	if b.config.Settings.AcrossBundles {
		b.feed.Abandon()
	} else {
		b.sender.abandon()
	}
	b.sender, b.feed = nil, nil
}

// tearDown is called in a DoFn's Teardown.
func tearDown[K, In, Out any](at **bundle[K, In, Out]) error {
	b := *at
	if b == nil {
		return nil
	}
	*at = nil
	if b.begun {
		b.abandon()
	}
	return b.pool.Shared.Leave()
}
