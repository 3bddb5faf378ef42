// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// keyed is upper for elements such as "tea/3", of which only the part before the slash
// matters to the service.
type keyed struct{ upper }

func (*keyed) Key(element string) string {
	key, _, _ := strings.Cut(element, "/")
	return key
}

// Cacheable keeps that an element is not there, too, for an hour as the answers.
func (*keyed) Cacheable(_ string, err error) bool {
	return err == nil || errors.Is(err, errGone)
}

// ResultSize is what CacheBytes counts of an answer.
func (*keyed) ResultSize(answer string) int { return len(answer) }

var errGone = errors.New("gone")

func init() { batchasync.Register(&keyed{}) }

// Dedup is for elements of which many ask for the same: each key is asked for once in a
// batch and in all that are under way. The caller's Key says which are the same.
func ExampleDedup() {
	inBubble(func(t *testing.T) {
		out := bundle(t, batchasync.New(&keyed{}, batchasync.Dedup()), "tea/1", "rice/1", "tea/2")
		fmt.Println(results(out))
	})
	// Output:
	// 0s: [tea/1 rice/1]
	// [TEA/1 RICE/1 TEA/1]
}

// Cache is for keys that come again and again, and answers that may be a little old.
// It is in the memory of the worker process.
func ExampleCache() {
	inBubble(func(t *testing.T) {
		h := batchasynctest.NewHarness(t, batchasync.New(&keyed{}, batchasync.Cache(10_000, time.Hour)))
		for range 3 {
			_, err := h.Bundle(batchasynctest.Values("tea")...)
			require.NoError(t, err)
			time.Sleep(31 * time.Minute)
		}
	})
	// Output:
	// 0s: [tea]
	// 1h2m0s: [tea]
}

// CacheBytes bounds a cache whose entries differ in size by what matters, the worker's
// memory.
func ExampleCacheBytes() {
	inBubble(func(t *testing.T) {
		h := batchasynctest.NewHarness(t, batchasync.New(&keyed{},
			batchasync.Cache(10_000, time.Hour), batchasync.CacheBytes(64<<20)))
		for range 2 {
			out, err := h.Bundle(batchasynctest.Values("tea")...)
			require.NoError(t, err)
			fmt.Println("hits:", out.Counter(batchasync.MetricsNamespace, "cache_hits"))
		}
	})
	// Output:
	// 0s: [tea]
	// hits: 0
	// hits: 1
}

// A KeyedCaller says which elements have the same answer.
func ExampleKeyedCaller() {
	caller := &keyed{}
	fmt.Println(caller.Key("tea/1"), caller.Key("tea/2"))
	// Output: tea tea
}

// A CachingCaller can have failures kept that will not change soon, such as that a key
// isn't there, or answers left out that are not worth it.
func ExampleCachingCaller() {
	inBubble(func(t *testing.T) {
		caller := &keyed{*refusing(func(error) error { return batchasync.Permanent(errGone) }, "tea")}
		h := batchasynctest.NewHarness(t, batchasync.New(caller, batchasync.Cache(10_000, time.Hour)))
		for range 2 {
			out, err := h.Bundle(batchasynctest.Values("tea")...)
			require.NoError(t, err)
			printFailures(out)
		}
	})
	// Output:
	// 0s: [tea]
	// failed: tea: gone (attempts: 1)
	// failed: tea: gone (attempts: 1)
}

// A ResultSizer tells how much memory an answer takes, for CacheBytes. Strings and
// []byte need none.
func ExampleResultSizer() {
	fmt.Println((&keyed{}).ResultSize("a long answer"))
	// Output: 13
}

// phrases answers a phrase word by word, and keeps the words: Cache, which keeps whole
// elements by their key, would not know that two phrases share one.
type phrases struct {
	upper

	mu    sync.Mutex
	words map[string]string
}

// Remember is told what Cache and its like ask for. This one keeps everything for ever,
// which yours should not.
func (p *phrases) Remember(batchasync.Memory) error {
	p.words = map[string]string{}
	return nil
}

// Recall answers a phrase of which all words are known.
func (p *phrases) Recall(_ context.Context, phrase string) (answer string, known bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var answers []string
	for word := range strings.FieldsSeq(phrase) {
		answer, known := p.words[word]
		if !known {
			return "", false, nil
		}
		answers = append(answers, answer)
	}
	return strings.Join(answers, " "), true, nil
}

func (p *phrases) Call(ctx context.Context, batch []string) ([]string, error) {
	answers, err := p.upper.Call(ctx, batch)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, phrase := range batch {
		words := strings.Fields(answers[i])
		for n, word := range strings.Fields(phrase) {
			p.words[word] = words[n]
		}
	}
	return answers, err
}

func init() { batchasync.Register(&phrases{}) }

// A RememberingCaller keeps answers itself, where an element is made of several that are
// asked for: transforms/enrich is one, for elements that are joined with two rows.
func ExampleRememberingCaller() {
	inBubble(func(t *testing.T) {
		h := batchasynctest.NewHarness(t, batchasync.New(&phrases{}, batchasync.Cache(10_000, time.Hour)))
		for _, phrase := range []string{"green tea", "black rice", "green rice"} {
			out, err := h.Bundle(batchasynctest.Values(phrase)...)
			require.NoError(t, err)
			fmt.Println(results(out))
		}
	})
	// Output:
	// 0s: [green tea]
	// [GREEN TEA]
	// 0s: [black rice]
	// [BLACK RICE]
	// [GREEN RICE]
}
