// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/internal/cache"
)

// A memory is what a worker process knows of a source: the answers that are
// kept, by key, and the keys that are being asked for. It does for keys what
// batchasync does for elements, with the same cache, for the same reasons: see
// its answers.go. A key that isn't there is an answer too.
type memory[K comparable, V any] struct {
	ttl   time.Duration
	cache *cache.Cache[K] // of answer[V]; nil: nothing is kept
	keeps func(value V, found bool) bool

	mu     sync.Mutex
	asking map[K]*asking[K, V]
}

// An asking is a Lookup under way. Its answers are to be read when it is done; a
// key that has none is to be asked for again.
type asking[K comparable, V any] struct {
	call    context.Context // after whose end nobody waits for it
	batch   string
	done    chan struct{}
	answers map[K]answer[V]
}

func newMemory[K comparable, V, S any](source *S, m batchasync.Memory) (*memory[K, V], error) {
	memory := &memory[K, V]{ttl: m.TTL, asking: map[K]*asking[K, V]{}}
	memory.keeps = func(V, bool) bool { return true }
	if s, ok := optional[CachingSource[V]](source); ok {
		memory.keeps = s.Cacheable
	}
	if m.Entries == 0 {
		return memory, nil
	}
	var weight func(K, any) int
	if m.Bytes > 0 {
		size, err := sizeOf[V](source)
		if err != nil {
			return nil, fmt.Errorf("CacheBytes(%d): %w", m.Bytes, err)
		}
		weight = func(key K, value any) int {
			weight := keySize(key)
			if a := value.(answer[V]); a.state == found {
				// What it panics at weighs nothing, as it is not known.
				n, _ := guarded("ValueSize", func() (int, error) { return size(a.value), nil })
				weight += max(n, 0)
			}
			return weight
		}
	}
	memory.cache = cache.New(m.Entries, m.Bytes, weight)
	return memory, nil
}

// sizeOf measures values, in bytes.
func sizeOf[V, S any](source *S) (func(V) int, error) {
	if s, ok := optional[ValueSizer[V]](source); ok {
		return s.ValueSize, nil
	}
	switch t := reflect.TypeFor[V](); {
	case t.Kind() == reflect.String, t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return func(v V) int { return reflect.ValueOf(v).Len() }, nil
	default:
		return nil, fmt.Errorf("the size of a %v is not known: give the source %v a method ValueSize(%v) int", t, reflect.TypeFor[S](), t)
	}
}

// keySize is the bytes of a key, without what it points to.
func keySize[K comparable](key K) int {
	if v := reflect.ValueOf(key); v.IsValid() && v.Kind() == reflect.String {
		return v.Len()
	}
	return int(reflect.TypeFor[K]().Size())
}

// get returns what is kept of a key.
func (m *memory[K, V]) get(key K) answer[V] {
	value, ok := m.cache.Get(key)
	if !ok {
		return answer[V]{}
	}
	return value.(answer[V])
}

// answer has a question answered: from what is kept, by what others ask for at
// the moment, and by lookup for the rest. It asks for its own keys before it waits
// for others, so that no two wait for each other.
func (m *memory[K, V]) answer(ctx context.Context, q *question[K, V], lookup func(ctx context.Context, q *question[K, V], asked []int) error) error {
	for {
		asked, mine, follows := m.divide(ctx, q)
		if len(asked) > 0 {
			if err := m.ask(ctx, q, asked, mine, lookup); err != nil {
				return err
			}
		}
		if len(follows) == 0 {
			return nil
		}
		for n, other := range follows {
			a, err := other.wait(ctx, q.keys[n])
			if err != nil {
				return err
			}
			if a.state != unknown {
				q.answers[n] = a
				sharedCounter.Inc(ctx, 1)
			}
		}
		// Once more for those whose call has failed, or was given up.
	}
}

// divide finds out which of the open keys are kept, which are to be asked for
// here, and which others ask for.
func (m *memory[K, V]) divide(ctx context.Context, q *question[K, V]) (asked []int, mine *asking[K, V], follows map[int]*asking[K, V]) {
	mine = &asking[K, V]{call: ctx, batch: batchasync.InfoFrom(ctx).BatchID, done: make(chan struct{})}
	follows = map[int]*asking[K, V]{}
	hits := 0
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, key := range q.keys {
		if !q.open(n) {
			continue
		}
		if a := m.get(key); a.state != unknown {
			q.answers[n] = a
			hits++
			continue
		}
		if other := m.asking[key]; other != nil && other.bears(mine) {
			follows[n] = other
			continue
		}
		m.asking[key] = mine
		asked = append(asked, n)
	}
	if hits > 0 {
		keptCounter.Inc(ctx, int64(hits))
	}
	return asked, mine, follows
}

// bears reports whether a call may wait for a, and not ask itself. A hedge may
// not wait for the call that it is to outrun, nor a retry for the one that has
// been given up.
func (a *asking[K, V]) bears(call *asking[K, V]) bool {
	return a.call.Err() == nil && (a.batch == "" || a.batch != call.batch)
}

// ask asks for keys, and gives the answers to all who wait for them.
func (m *memory[K, V]) ask(ctx context.Context, q *question[K, V], asked []int, mine *asking[K, V], lookup func(context.Context, *question[K, V], []int) error) error {
	until := time.Now().Add(m.ttl)
	defer func() { // even if lookup panics
		answers := make(map[K]answer[V], len(asked))
		for _, n := range asked {
			if a := q.answers[n]; a.state != unknown {
				answers[q.keys[n]] = a
			}
		}
		if ctx.Err() == nil { // what is late may be old
			m.keep(answers, until)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, n := range asked {
			if key := q.keys[n]; m.asking[key] == mine {
				delete(m.asking, key)
			}
		}
		mine.answers = answers
		close(mine.done)
	}()
	return lookup(ctx, q, asked)
}

// keep keeps the answers that may be. What the source's Cacheable panics at may
// not.
func (m *memory[K, V]) keep(answers map[K]answer[V], until time.Time) {
	if m.cache == nil {
		return
	}
	for key, a := range answers {
		keep, err := guarded("Cacheable", func() (bool, error) { return m.keeps(a.value, a.state == found), nil })
		if keep && err == nil {
			m.cache.Keep(key, a, until)
		}
	}
}

// wait waits for the answer of a key; it is unknown if there is none.
func (a *asking[K, V]) wait(ctx context.Context, key K) (answer[V], error) {
	select {
	case <-a.done:
		return a.answers[key], nil
	case <-a.call.Done():
		select {
		case <-a.done: // its end and that of its context come together
			return a.answers[key], nil
		default:
			return answer[V]{}, nil
		}
	case <-ctx.Done():
		return answer[V]{}, ctx.Err()
	}
}
