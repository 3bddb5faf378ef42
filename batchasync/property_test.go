// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/typex"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

var (
	worlds    = flag.Int("worlds", 1000, "random worlds of TestWhatMustHoldInRandomWorlds, each with a few bundles")
	worldSeed = flag.Uint64("world", 0, "the seed of the only world to run, as a failed run has printed it")
)

// TestWhatMustHoldInRandomWorlds draws options, bundles, windows and a service's
// behaviour at random, and checks in each world that:
//
//   - each input ends exactly once, as its own result or failure, with its own
//     windows, timestamp and pane, or its bundle fails, and only if it may;
//   - the calls keep the limits: elements, bytes, calls at once;
//   - what a bundle holds is bounded, and no bundle hangs (in a bubble of
//     synctest a hang is a deadlock, which panics);
//   - no goroutine is left when the last call has ended;
//   - a bundle that was abandoned leaves nothing to the next one.
func TestWhatMustHoldInRandomWorlds(t *testing.T) {
	if *worldSeed != 0 {
		synctest.Test(t, func(t *testing.T) { newWorld(t, *worldSeed).live() })
		return
	}
	first := rand.Uint64() >> 1
	for i := range *worlds {
		seed := first + uint64(i)
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			defer func() {
				if v := recover(); v != nil {
					t.Errorf("panic: %v", v)
				}
			}()
			synctest.Test(t, func(t *testing.T) { newWorld(t, seed).live() })
		})
		if !ok {
			t.Fatalf("to run this world again: go test ./batchasync -run TestWhatMustHoldInRandomWorlds -world %d", seed)
		}
	}
}

type world struct {
	t *testing.T

	seed uint64
	rng  *rand.Rand // for all but the calls, before the first of them

	mu sync.Mutex
	// inCall are the contexts of the calls that have not returned.
	inCall map[int]context.Context
	calls  int
	// tries counts the calls with the same elements.
	tries map[string]uint64

	size, bytes, inFlight int
	ordered, dedup, fails bool
	options               []batchasync.Option
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, seed: seed, tries: map[string]uint64{}, rng: rand.New(rand.NewPCG(seed, 0)), inCall: map[int]context.Context{}}
	w.size = 1 + w.rng.IntN(12)
	w.inFlight = 1 + w.rng.IntN(4)
	w.options = []batchasync.Option{
		batchasync.BatchSize(w.size),
		batchasync.MaxAttempts(1 + w.rng.IntN(4)),
		batchasync.Timeout(w.between(20, 200)),
	}
	if w.rng.IntN(2) == 0 {
		w.option(batchasync.MaxInFlight(w.inFlight))
	} else {
		w.option(batchasync.AdaptiveInFlight(1+w.rng.IntN(w.inFlight), w.inFlight))
		w.maybe(func() { w.option(batchasync.TargetLatency(w.between(1, 100))) })
	}
	w.maybe(func() { w.option(batchasync.AdaptiveBatchSize(1, w.size+w.rng.IntN(5), w.between(1, 100))) })
	w.maybe(func() { w.bytes = 1 + w.rng.IntN(60); w.option(batchasync.BatchBytes(w.bytes)) })
	w.maybe(func() { w.option(batchasync.Linger(w.between(0, 30))) })
	w.maybe(func() { w.option(batchasync.MaxElapsed(w.between(100, 900))) })
	w.maybe(func() { w.option(batchasync.RetryInterval(w.between(1, 50))) })
	w.maybe(func() { w.ordered = true; w.option(batchasync.Ordered()) })
	w.maybe(func() { w.dedup = true; w.option(batchasync.Dedup()) })
	w.maybe(func() { w.dedup = true; w.option(batchasync.Cache(1+w.rng.IntN(50), w.between(1, 1000))) })
	w.maybe(func() { w.option(batchasync.Bisect()) })
	w.maybe(func() { w.fails = true; w.option(batchasync.FailBundle()) })
	w.maybe(func() { w.option(batchasync.AcrossBundles()) })
	w.maybe(func() { w.option(batchasync.Hedge(w.between(1, 19))) })
	w.maybe(func() { w.option(batchasync.CircuitBreaker(1+w.rng.IntN(3), 3+w.rng.IntN(5), w.between(1, 100))) })
	w.maybe(func() { w.option(batchasync.RateLimit(float64(20+w.rng.IntN(500)), 1+w.rng.IntN(5))) })
	w.maybe(func() { w.option(batchasync.RetryBudget(w.rng.Float64()/2 + 0.01)) })
	return w
}

func (w *world) between(low, high int) time.Duration {
	return milliseconds(w.rng, low, high)
}

func milliseconds(rng *rand.Rand, low, high int) time.Duration {
	return time.Duration(low+rng.IntN(high-low+1)) * time.Millisecond
}

func (w *world) maybe(f func()) {
	if w.rng.IntN(2) == 0 {
		f()
	}
}

func (w *world) option(o batchasync.Option) { w.options = append(w.options, o) }

func (w *world) live() {
	first := batchasynctest.NewHarness(w.t, batchasync.New(&script{
		call:        w.call,
		elementSize: func(v int) int { return v % 20 },
		key:         func(v int) string { return fmt.Sprint(v) },
	}, w.options...))
	// Several bundles at once share the caller of the first instance.
	instances := []*batchasynctest.Harness{first}
	_, err := first.Bundle()
	require.NoError(w.t, err)
	for range w.rng.IntN(3) {
		instances = append(instances, first.Clone(w.t))
	}
	plans := make([][]func(), len(instances))
	for p, h := range instances {
		bundles := make([]func(), 1+w.rng.IntN(3))
		for i := range bundles {
			elements, pauses := w.bundle()
			abandonAt := -1
			if w.rng.IntN(6) == 0 {
				abandonAt = w.rng.IntN(len(elements) + 1)
			}
			bundles[i] = func() { w.run(h, elements, pauses, abandonAt) }
		}
		plans[p] = bundles
	}
	var running sync.WaitGroup
	for _, bundles := range plans {
		running.Go(func() {
			for _, run := range bundles {
				run()
			}
		})
	}
	running.Wait()
	// Nothing but calls that are deaf to their context may still run; the
	// bubble does not end before they have.
	require.NoError(w.t, pass(w.t.Context(), 24*time.Hour))
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Empty(w.t, w.inCall)
}

// bundle draws the elements of a bundle, and the pauses before them.
func (w *world) bundle() ([]batchasynctest.Element, []time.Duration) {
	n := []int{0, 1, w.rng.IntN(10), w.rng.IntN(150)}[w.rng.IntN(4)]
	elements, pauses := make([]batchasynctest.Element, n), make([]time.Duration, n)
	for i := range elements {
		e := batchasynctest.Element{Value: w.rng.IntN(40), Timestamp: mtime.Time(i)} // the timestamp tells equal values apart
		for range w.rng.IntN(4) {
			start := mtime.Time(w.rng.IntN(1000))
			e.Windows = append(e.Windows, window.IntervalWindow{Start: start, End: start + 1 + mtime.Time(w.rng.IntN(1000))})
		}
		if len(e.Windows) == 0 {
			e.Windows = []beam.Window{window.GlobalWindow{}}
		}
		e.Pane = typex.PaneInfo{Timing: typex.PaneTiming(w.rng.IntN(4)), Index: int64(w.rng.IntN(5)), IsLast: w.rng.IntN(2) == 0}
		elements[i] = e
		if w.rng.IntN(10) == 0 {
			pauses[i] = w.between(0, 40)
		}
	}
	return elements, pauses
}

func (w *world) run(h *batchasynctest.Harness, elements []batchasynctest.Element, pauses []time.Duration, abandonAt int) {
	err := h.Start()
	for i := 0; i < len(elements) && err == nil; i++ {
		if i == abandonAt {
			h.Abandon()
			return
		}
		if pauses[i] > 0 && pass(w.t.Context(), pauses[i]) != nil {
			return
		}
		err = h.Process(elements[i])
		held := i + 1 - len(h.Outputs().Results()) - len(h.Outputs().Failures())
		if most := (w.inFlight + 2) * w.size; err == nil && held > most {
			w.t.Errorf("the bundle holds %d elements, more than %d", held, most)
		}
	}
	if err == nil {
		err = h.Finish()
	}
	if err != nil {
		var call *batchasync.CallError
		if !w.fails || !errors.As(err, &call) {
			w.t.Errorf("the bundle failed: %v", err)
		}
		return
	}
	batchasynctest.RequireExactlyOnce(w.t, elements, h.Outputs(), quotedValue)
	if w.ordered {
		for _, out := range [][]batchasynctest.Element{h.Outputs().Results(), h.Outputs().Failures()} {
			if !slices.IsSortedFunc(out, func(a, b batchasynctest.Element) int { return int(a.Timestamp - b.Timestamp) }) {
				w.t.Error("the results are not in the order of arrival")
			}
		}
	}
}

// call is the service: it behaves in one of the ways that are known from
// services, each a little worse than the one before.
func (w *world) call(ctx context.Context, batch []int) ([]string, error) {
	w.mu.Lock()
	w.calls++
	number := w.calls
	w.inCall[number] = ctx
	inFlight, bytes := 0, 0
	for _, other := range w.inCall {
		if other.Err() == nil {
			inFlight++
		}
	}
	for _, v := range batch {
		bytes += v % 20
	}
	// What a call meets is drawn from its elements, not from the order of
	// the calls, which the scheduler decides: so a seed can be tried again.
	name := fmt.Sprint(batch)
	hash := fnv.New64a()
	hash.Write([]byte(name))
	rng := rand.New(rand.NewPCG(w.seed, hash.Sum64()+w.tries[name]))
	w.tries[name]++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.inCall, number)
		w.mu.Unlock()
	}()

	if len(batch) == 0 || len(batch) > w.size || inFlight > w.inFlight || w.bytes > 0 && len(batch) > 1 && bytes > w.bytes && !w.dedup {
		w.t.Errorf("a call of %d elements and %d bytes, %d in flight: more than allowed", len(batch), bytes, inFlight)
	}
	delay := []time.Duration{0, milliseconds(rng, 0, 10), milliseconds(rng, 0, 300)}[rng.IntN(3)]
	deaf := rng.IntN(4) == 0
	results := quoted(batch)
	if deaf {
		ctx = context.WithoutCancel(ctx)
	}
	if err := pass(ctx, delay); err != nil {
		return nil, err
	}
	var failed batchasync.BatchError
	switch rng.IntN(24) {
	case 0:
		return nil, errors.New("connection reset")
	case 1:
		return nil, batchasync.Permanent(errors.New("no such table"))
	case 2:
		return nil, batchasync.RetryAfter(errors.New("too many requests"), milliseconds(rng, 0, 150))
	case 3:
		return results[1:], nil
	case 4:
		return append(results, "one more"), nil
	case 13:
		return nil, batchasync.TooLarge(errors.New("too many rows"))
	case 5:
		return nil, nil
	case 6:
		panic("boom")
	case 7:
		runtime.Goexit()
	case 8:
		clear(batch) // its own copy
		return results, errors.New("answered and failed")
	case 9, 10, 11, 12:
		for i := range batch {
			switch rng.IntN(4) {
			case 0:
				failed.Fail(i, errors.New("this row is locked"))
				results[i] = "must not be used"
			case 1:
				failed.Fail(i, batchasync.Permanent(errors.New("this row is bad")))
				results[i] = "must not be used"
			}
		}
	}
	return results, failed.Err()
}
