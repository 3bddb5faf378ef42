// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"context"
	"sync"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync/internal/attempt"
	"github.com/batchasync/beam-batchasync/batchasync/internal/guard"
	"github.com/batchasync/beam-batchasync/internal/cache"
)

// answers are those of a transform in this process, by key: the ones that are
// kept, and the ones that are being asked for. A key that is asked for once is
// answered for all who want it meanwhile; who waits for another batch's answer
// has asked for its own keys before, so that no two batches wait for each other.
type answers[Out any] struct {
	methods interface {
		keeps(Out, error) bool
	}
	ttl   time.Duration
	cache *cache.Cache[string] // of answer[Out]; nil: nothing is kept

	mu     sync.Mutex
	asking map[string]*asking[Out]
}

// An answer is a result or a failure.
type answer[Out any] struct {
	result  Out
	failure *attempt.Failure
}

// An asking is what one batch asks for. Its answers are to be read when it is
// done; a key that has none is to be asked for again, since its batch was cut
// off.
type asking[Out any] struct {
	done    chan struct{}
	answers map[string]answer[Out]
}

func newAnswers[In, Out any](s *settings, m *methods[In, Out]) *answers[Out] {
	a := &answers[Out]{methods: m, ttl: s.CacheTTL, asking: map[string]*asking[Out]{}}
	if s.CacheEntries > 0 {
		a.cache = cache.New(s.CacheEntries, s.CacheBytes, func(key string, value any) int {
			return len(key) + m.weight(value.(answer[Out]).result)
		})
	}
	return a
}

// get returns the answer that is kept for a key.
func (a *answers[Out]) get(key string) (answer[Out], bool) {
	value, ok := a.cache.Get(key)
	if !ok {
		return answer[Out]{}, false
	}
	return value.(answer[Out]), true
}

// keep keeps those of a batch's answers that may be.
func (a *answers[Out]) keep(answered map[string]answer[Out]) {
	if a.cache == nil {
		return
	}
	until := time.Now().Add(a.ttl)
	for key, answer := range answered {
		var err error
		if f := answer.failure; f != nil {
			if err = f.Err; !f.Permanent {
				continue
			}
		}
		if a.methods.keeps(answer.result, err) {
			a.cache.Keep(key, answer, until)
		}
	}
}

// keeps asks the caller, guarded, whether an answer may be kept: results may,
// and failures may not, if it does not say.
func (m *methods[In, Out]) keeps(result Out, err error) bool {
	if m.cacheable == nil {
		return err == nil
	}
	keep, broken := guard.Run("Cacheable", func() (bool, error) { return m.cacheable(result, err), nil })
	return keep && broken == nil
}

// weight is the bytes of a result, as far as it is known.
func (m *methods[In, Out]) weight(result Out) int {
	if m.resultSize != nil {
		n, err := guard.Run("ResultSize", func() (int, error) { return m.resultSize(result), nil })
		if err != nil || n < 0 {
			return 0
		}
		return n
	}
	n, _ := sizeOf[Out](nil)(result)
	return n
}

// known returns an element's answer if no call is needed for it.
func (m *methods[In, Out]) known(ctx context.Context, in In) (a answer[Out], ok bool, err error) {
	if m.recall != nil {
		a.result, err = guard.Run("Recall", func() (result Out, err error) {
			result, ok, err = m.recall(ctx, in)
			return result, err
		})
		return a, ok, err
	}
	key, err := guard.Run("Key", func() (string, error) { return m.key(in), nil })
	if err != nil {
		return a, false, err
	}
	a, ok = m.answers.get(key)
	return a, ok, nil
}

// remembering is setup for a caller that has a memory of its own.
func (m *methods[In, Out]) remembering(memory Memory) func(context.Context) error {
	told := false
	return func(ctx context.Context) error {
		if !told { // what it has kept outlives a tear-down
			if err := m.remember(memory); err != nil {
				return err
			}
			told = true
		}
		if m.setup == nil {
			return nil
		}
		return m.setup(ctx)
	}
}

// A sharing is the life of a batch whose keys are asked for once.
type sharing[Out any] struct {
	answers *answers[Out]
	of      []int             // the key of each element, as an index; -1: it has none
	keyless []attempt.Failure // the elements that have none

	keys    []string
	first   []int          // the element that stands for each key
	known   []*answer[Out] // by key; nil: not yet
	asked   []int          // the keys that the batch asks for itself
	mine    *asking[Out]
	follows map[int]*asking[Out] // the keys that others ask for
	total   attempt.Outcome[Out] // what was counted
}

// share finds the keys of a batch.
func (b *sending[K, In, Out]) share() *sharing[Out] {
	s := &sharing[Out]{answers: b.methods.answers, of: make([]int, len(b.slot.Items))}
	at := make(map[string]int, len(s.of))
	for i := 0; i < len(s.of); i++ {
		// One goroutine for all of them, and one more for each that panics.
		_, err := guard.Run("Key", func() (struct{}, error) {
			for ; i < len(s.of); i++ {
				key := b.methods.key(b.slot.Items[i].in)
				n, seen := at[key]
				if !seen {
					n = len(s.keys)
					at[key] = n
					s.keys = append(s.keys, key)
					s.first = append(s.first, i)
				}
				s.of[i] = n
			}
			return struct{}{}, nil
		})
		if err != nil {
			s.of[i] = -1
			s.keyless = append(s.keyless, attempt.Failure{Index: i, Err: err, Permanent: true, At: time.Now()})
		}
	}
	s.known = make([]*answer[Out], len(s.keys))
	return s
}

// sort finds out which of the keys are known, which others ask for, and which
// are to be asked for here.
func (s *sharing[Out]) sort(t *tally) {
	s.asked, s.follows = nil, map[int]*asking[Out]{}
	s.mine = &asking[Out]{done: make(chan struct{}), answers: map[string]answer[Out]{}}
	s.answers.mu.Lock()
	defer s.answers.mu.Unlock()
	for n, key := range s.keys {
		if s.known[n] != nil {
			continue
		}
		if answer, ok := s.answers.get(key); ok {
			s.known[n] = &answer
			t.hits++
			continue
		}
		if other := s.answers.asking[key]; other != nil {
			s.follows[n] = other
			continue
		}
		s.answers.asking[key] = s.mine
		s.asked = append(s.asked, n)
	}
}

// take takes in what the batch's own calls have answered: of all that it asked
// for, or but for what is open.
func (s *sharing[Out]) take(outcome *attempt.Outcome[Out], open []bool) {
	failures := make(map[int]*attempt.Failure, len(outcome.Failures))
	for i := range outcome.Failures {
		failures[outcome.Failures[i].Index] = &outcome.Failures[i]
	}
	for i, n := range s.asked {
		switch f := failures[i]; {
		case open != nil && open[i] || s.known[n] != nil:
		case f != nil:
			s.known[n] = &answer[Out]{failure: f}
		case i < len(outcome.Results):
			s.known[n] = &answer[Out]{result: outcome.Results[i]}
		}
	}
}

// tell gives what was asked for to all who wait for it.
func (s *sharing[Out]) tell() {
	for _, n := range s.asked {
		if known := s.known[n]; known != nil {
			s.mine.answers[s.keys[n]] = *known
		}
	}
	s.answers.keep(s.mine.answers)
	s.answers.mu.Lock()
	defer s.answers.mu.Unlock()
	for _, n := range s.asked {
		delete(s.answers.asking, s.keys[n])
	}
	close(s.mine.done)
}

// wait waits for what others ask for, and reports whether all keys are known
// then.
func (s *sharing[Out]) wait(ctx context.Context) (all bool, err error) {
	all = true
	for n, other := range s.follows {
		select {
		case <-other.done:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
		if answer, ok := other.answers[s.keys[n]]; ok {
			s.known[n] = &answer
		} else {
			all = false
		}
	}
	return all, nil
}

// outcome is that of the elements, as far as their keys are known; open says
// which are not.
func (s *sharing[Out]) outcome() (o attempt.Outcome[Out], open []bool) {
	o = s.total
	o.Results, open = make([]Out, len(s.of)), make([]bool, len(s.of))
	keyless := s.keyless
	for i, n := range s.of {
		switch {
		case n < 0:
			o.Failures = append(o.Failures, keyless[0])
			keyless = keyless[1:]
		case s.known[n] == nil:
			open[i] = true
		case s.known[n].failure != nil:
			f := *s.known[n].failure
			f.Index = i
			o.Failures = append(o.Failures, f)
		default:
			o.Results[i] = s.known[n].result
		}
	}
	return o, open
}

// ask asks for those keys of the batch that nobody else asks for.
func (b *sending[K, In, Out]) ask() {
	s := b.shared
	s.sort(&b.tally)
	b.tally.misses += len(s.asked)
	if len(s.asked) == 0 {
		b.asked(&attempt.Outcome[Out]{})
		return
	}
	b.first = nil
	attempt.Run(b.ctx, len(s.asked), &b.policy, b)
}

// asked goes on when the batch's own calls are over.
func (b *sending[K, In, Out]) asked(outcome *attempt.Outcome[Out]) {
	s := b.shared
	s.total.Calls += outcome.Calls
	s.total.Retries += outcome.Retries
	s.total.Timeouts += outcome.Timeouts
	s.total.Bisections += outcome.Bisections
	s.total.Hedges += outcome.Hedges
	cut := outcome.Err != nil || b.policy.FailFast && len(outcome.Failures) > 0
	if cut {
		// What has no failure may have no result either.
		outcome.Results = nil
	}
	s.take(outcome, nil)
	s.tell()
	all, err := true, outcome.Err
	if !cut {
		b.permit.Return() // or the batches that are waited for could lack it
		all, err = s.wait(b.ctx)
	}
	if err == nil && !all {
		b.ask() // again: others were cut off
		return
	}
	whole, _ := s.outcome()
	whole.Err = err
	b.pool.Shared.Done()
	b.complete(whole)
}
