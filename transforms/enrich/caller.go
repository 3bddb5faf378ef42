// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"context"
	"fmt"
	"reflect"
	"runtime/debug"
	"slices"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// MetricsNamespace is the namespace of this package's counters, beside those of
// batchasync: lookups (calls of Lookup), keys (that they asked for), keys_kept
// (answered from the cache), keys_shared (answered by another batch's call),
// missing (elements of which a key is not in the source) and dropped (those of
// them that were left out).
const MetricsNamespace = "enrich"

var (
	lookupsCounter = beam.NewCounter(MetricsNamespace, "lookups")
	keysCounter    = beam.NewCounter(MetricsNamespace, "keys")
	keptCounter    = beam.NewCounter(MetricsNamespace, "keys_kept")
	sharedCounter  = beam.NewCounter(MetricsNamespace, "keys_shared")
	missingCounter = beam.NewCounter(MetricsNamespace, "missing")
	droppedCounter = beam.NewCounter(MetricsNamespace, "dropped")
)

// Caller joins elements with a source: a batchasync.Caller with one output for
// an element, or none. New makes it; ParDo and its siblings do so by themselves.
type Caller[In any, K comparable, V, Out any, S Source[K, V], E Enricher[In, K, V, Out]] struct {
	Source   S
	Enricher E
	Missing  Missing

	memory *memory[K, V] // nil: each batch asks for all of its keys
}

// New returns the caller by itself, for tests and for transforms of one's own.
func New[In any, K comparable, V, Out any, S Source[K, V], E Enricher[In, K, V, Out]](source S, enricher E, missing Missing) *Caller[In, K, V, Out, S, E] {
	return &Caller[In, K, V, Out, S, E]{Source: source, Enricher: enricher, Missing: missing}
}

// Setup sets the source up, if it has a Setup.
func (c *Caller[In, K, V, Out, S, E]) Setup(ctx context.Context) error {
	if s, ok := optional[batchasync.SetupCaller](&c.Source); ok {
		return s.Setup(ctx)
	}
	return nil
}

// Teardown tears the source down, if it has a Teardown.
func (c *Caller[In, K, V, Out, S, E]) Teardown(ctx context.Context) error {
	if s, ok := optional[batchasync.TeardownCaller](&c.Source); ok {
		return s.Teardown(ctx)
	}
	return nil
}

// Retryable asks the source, if it has a Retryable.
func (c *Caller[In, K, V, Out, S, E]) Retryable(err error) bool {
	if s, ok := optional[batchasync.RetryClassifier](&c.Source); ok {
		return s.Retryable(err)
	}
	return true
}

// Idempotent asks the source, if it has an Idempotent.
func (c *Caller[In, K, V, Out, S, E]) Idempotent() bool {
	s, ok := optional[batchasync.IdempotentCaller](&c.Source)
	return ok && s.Idempotent()
}

// HoldUntil asks the source, if it has a HoldUntil.
func (c *Caller[In, K, V, Out, S, E]) HoldUntil() time.Time {
	if s, ok := optional[batchasync.HoldingCaller](&c.Source); ok {
		return s.HoldUntil()
	}
	return time.Time{}
}

// Remember carries out batchasync.Dedup, Cache and CacheBytes, by key.
func (c *Caller[In, K, V, Out, S, E]) Remember(m batchasync.Memory) (err error) {
	c.memory, err = newMemory[K, V](&c.Source, m)
	return err
}

// Recall joins an element all of whose keys are in the cache.
func (c *Caller[In, K, V, Out, S, E]) Recall(ctx context.Context, element In) (outs []Out, known bool, err error) {
	keys, err := c.keys(element)
	if err != nil {
		return nil, false, err
	}
	f := Found[K, V]{keys, make([]int, len(keys)), make([]answer[V], len(keys))}
	for i, key := range keys {
		f.at[i] = i
		if f.answers[i] = c.memory.get(key); f.answers[i].state == unknown {
			return nil, false, nil
		}
	}
	keptCounter.Inc(ctx, int64(len(keys)))
	outs, err = c.join(ctx, element, f, nil)
	return outs, err == nil, err
}

// Call asks the source for the keys of all elements, each once, and joins.
func (c *Caller[In, K, V, Out, S, E]) Call(ctx context.Context, batch []In) ([][]Out, error) {
	q := newQuestion[K, V]()
	elements := make([]struct {
		keys []K
		at   []int
		err  error
	}, len(batch))
	for i, element := range batch {
		e := &elements[i]
		if e.keys, e.err = c.keys(element); e.err == nil {
			e.at, e.err = q.add(e.keys)
		}
	}
	if err := c.answer(ctx, q); err != nil {
		return nil, err
	}
	results := make([][]Out, len(batch))
	outs := make([]Out, 0, len(batch)) // of all elements: one allocation
	var failed batchasync.BatchError
	for i, element := range batch {
		e := &elements[i]
		if e.err == nil {
			e.err = q.failure(e.at)
		}
		if e.err == nil {
			results[i], e.err = c.join(ctx, element, Found[K, V]{e.keys, e.at, q.answers}, outs[len(outs):])
			outs = outs[:len(outs)+len(results[i])]
		}
		if e.err != nil {
			failed.Fail(i, e.err)
		}
	}
	return results, failed.Err()
}

// answer has the question answered, by the memory if there is one.
func (c *Caller[In, K, V, Out, S, E]) answer(ctx context.Context, q *question[K, V]) error {
	if c.memory != nil {
		return c.memory.answer(ctx, q, c.lookup)
	}
	if len(q.keys) == 0 {
		return nil
	}
	return c.lookup(ctx, q, q.all())
}

// lookup asks the source for some of the keys of a question.
func (c *Caller[In, K, V, Out, S, E]) lookup(ctx context.Context, q *question[K, V], asked []int) error {
	keys := make([]K, len(asked)) // the source may do with them what it likes
	for i, n := range asked {
		keys[i] = q.keys[n]
	}
	lookupsCounter.Inc(ctx, 1)
	keysCounter.Inc(ctx, int64(len(keys)))
	values, err := c.Source.Lookup(ctx, keys)
	failed := batchasync.Failed(err)
	if err != nil && failed == nil {
		if empty, ok := err.(*batchasync.BatchError); !ok || empty.Len() > 0 {
			return err
		}
	}
	for i, err := range failed {
		if i < 0 || i >= len(asked) {
			return batchasync.Permanent(fmt.Errorf("BatchError.Fail(%d, …) is out of range: Lookup was asked for %d keys: %w", i, len(asked), err))
		}
		q.fail(asked[i], err)
	}
	for _, n := range asked {
		if q.failed[n] != nil {
			continue
		}
		q.answers[n].state = notThere
		if value, ok := values[q.keys[n]]; ok {
			q.answers[n] = answer[V]{value, found}
		}
	}
	return nil
}

// join makes the outputs of an element, at the front of room.
func (c *Caller[In, K, V, Out, S, E]) join(ctx context.Context, element In, f Found[K, V], room []Out) ([]Out, error) {
	if missing := f.missing(); len(missing) > 0 {
		missingCounter.Inc(ctx, 1)
		switch c.Missing {
		case KeepMissing:
		case DropMissing:
			droppedCounter.Inc(ctx, 1)
			return nil, nil
		default:
			err := &MissingKeyError{}
			for _, key := range missing {
				err.Keys = append(err.Keys, key)
			}
			return nil, batchasync.Permanent(err)
		}
	}
	out, err := guarded("Join", func() (Out, error) { return c.Enricher.Join(element, f) })
	if err != nil {
		return nil, batchasync.Permanent(err)
	}
	return append(room, out)[:1:1], nil
}

// keys asks the enricher.
func (c *Caller[In, K, V, Out, S, E]) keys(element In) ([]K, error) {
	keys, err := guarded("Keys", func() ([]K, error) { return c.Enricher.Keys(element), nil })
	return keys, batchasync.Permanent(err)
}

// guarded makes an error of a panic, so that it fails one element, and not its
// batch.
func guarded[T any](method string, f func() (T, error)) (result T, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic in %s: %v\n%s", method, v, debug.Stack())
		}
	}()
	return f()
}

// optional returns the source as a T, if it is one. S itself may lack what *S
// has: a struct that is passed by value and has a Setup on its pointer.
func optional[T, S any](source *S) (T, bool) {
	if m, ok := any(source).(T); ok {
		return m, true
	}
	m, ok := any(*source).(T)
	return m, ok
}

// Validate says what is wrong with the source, the enricher or the policy. It asks
// the source, if that has a Validate.
func (c *Caller[In, K, V, Out, S, E]) Validate() error {
	for _, part := range []struct {
		name  string
		value reflect.Value
		of    reflect.Type
	}{
		{"source", reflect.ValueOf(c.Source), reflect.TypeFor[S]()},
		{"enricher", reflect.ValueOf(c.Enricher), reflect.TypeFor[E]()},
	} {
		switch v := part.value; {
		case !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil():
			return fmt.Errorf("the %s is nil: pass one that is made", part.name)
		case part.of.Kind() == reflect.Interface:
			return fmt.Errorf("the %s's type is the interface %v: pass it as its own type, for that is what is registered", part.name, part.of)
		}
	}
	source := reflect.TypeFor[S]()
	v := reflect.TypeFor[V]()
	for _, method := range []struct {
		name, want string
		found      bool
	}{
		{"Setup", "Setup(context.Context) error", has[batchasync.SetupCaller](&c.Source)},
		{"Teardown", "Teardown(context.Context) error", has[batchasync.TeardownCaller](&c.Source)},
		{"Retryable", "Retryable(error) bool", has[batchasync.RetryClassifier](&c.Source)},
		{"Idempotent", "Idempotent() bool", has[batchasync.IdempotentCaller](&c.Source)},
		{"Validate", "Validate() error", has[batchasync.ValidatingCaller](&c.Source)},
		{"HoldUntil", "HoldUntil() time.Time", has[batchasync.HoldingCaller](&c.Source)},
		{"Cacheable", fmt.Sprintf("Cacheable(%v, bool) bool", v), has[CachingSource[V]](&c.Source)},
		{"ValueSize", fmt.Sprintf("ValueSize(%v) int", v), has[ValueSizer[V]](&c.Source)},
	} {
		_, onValue := source.MethodByName(method.name)
		_, onPointer := reflect.PointerTo(source).MethodByName(method.name)
		if (onValue || onPointer) && !method.found {
			return fmt.Errorf("%v has a method %s with another signature, which would be ignored: make it %s, or give it another name", source, method.name, method.want)
		}
	}
	if policies := []Missing{KeepMissing, DropMissing, FailMissing, DeadLetterMissing}; !slices.Contains(policies, c.Missing) {
		return fmt.Errorf("Missing %q: must be one of %q", c.Missing, policies)
	}
	if s, ok := optional[batchasync.ValidatingCaller](&c.Source); ok {
		if err := s.Validate(); err != nil {
			return fmt.Errorf("the source %v: %w", source, err)
		}
	}
	return nil
}

func has[T, S any](source *S) bool {
	_, ok := optional[T](source)
	return ok
}
