// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package enrich_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/enrich"
)

func init() {
	batchasync.Register(enrich.New(&script{}, route{}, ""))
	batchasync.Register(enrich.New(&script{}, &broken{}, ""))
	batchasync.Register(enrich.New(lasting{}, route{}, ""))
	batchasync.Register(enrich.New(&measured{}, route{}, ""))
	batchasync.Register(enrich.New(&limited{}, route{}, ""))
	batchasync.Register(enrich.New(floats{}, parse{}, ""))
	batchasync.Register(enrich.New(anything{}, mixed{}, ""))
}

// script is a source whose Lookup is a test's. It can't travel; the harness uses
// it as it is.
type script struct {
	lookup func(ctx context.Context, keys []string) (map[string]place, error)

	mu      sync.Mutex
	lookups [][]string
}

func (s *script) Lookup(ctx context.Context, keys []string) (map[string]place, error) {
	s.mu.Lock()
	s.lookups = append(s.lookups, slices.Clone(keys))
	s.mu.Unlock()
	if s.lookup == nil {
		return rows(keys), nil
	}
	return s.lookup(ctx, keys)
}

func (*script) Idempotent() bool { return true }

func (*script) Retryable(err error) bool { return !strings.Contains(err.Error(), "wrong") }

// joined is what route makes of a string, with the rows of table.
func joined(v any) any {
	out, _ := route{}.Join(v.(string), enrich.FoundOf(rows(route{}.Keys(v.(string)))))
	return []string{out}
}

func newHarness(t *testing.T, source *script, missing enrich.Missing, opts ...batchasync.Option) *batchasynctest.Harness {
	return batchasynctest.NewHarness(t, batchasync.New(enrich.New(source, route{}, missing), opts...))
}

// run runs a bundle, each of whose elements has to end exactly once.
func run(t *testing.T, h *batchasynctest.Harness, elements ...string) *batchasynctest.Outputs {
	t.Helper()
	out, err := h.Bundle(batchasynctest.Values(elements...)...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, batchasynctest.Values(elements...), out, joined)
	return out
}

// failures are the elements that failed, with their errors and attempts.
func failures(out *batchasynctest.Outputs) map[string]string {
	errs := map[string]string{}
	for _, e := range out.Failures() {
		f := e.Value.(batchasync.Failure[string])
		errs[f.Element] = fmt.Sprintf("%s (%d)", f.Error, f.Attempts)
	}
	return errs
}

// In Beam Python's Enrichment, elements of a batch with equal keys overwrite each
// other, and all but the last are lost (apache/beam issue 38035).
func TestElementsWithEqualKeysEachGetTheirAnswer(t *testing.T) {
	source := &script{}
	out := run(t, newHarness(t, source, enrich.KeepMissing), "A", "A", "A-B", "A-x", "B-A", "A", "x", "A-A")
	require.Len(t, out.Results(), 8)
	require.Equal(t, [][]string{{"A", "B", "x"}}, source.lookups, "each key is asked for once")
	require.EqualValues(t, 3, out.Counter(enrich.MetricsNamespace, "keys"))
	require.EqualValues(t, 1, out.Counter(enrich.MetricsNamespace, "lookups"))
}

// In Beam Python's Enrichment, a batch for which the service has no row at all
// fails the bundle (apache/beam issue 36791).
func TestABatchWithoutAnyAnswerFailsNothing(t *testing.T) {
	for name, none := range map[string]map[string]place{"nil": nil, "empty": {}} {
		for missing, ends := range map[enrich.Missing]int{enrich.KeepMissing: 3, enrich.DropMissing: 3, enrich.DeadLetterMissing: 0} {
			t.Run(name+", "+string(missing), func(t *testing.T) {
				source := &script{lookup: func(context.Context, []string) (map[string]place, error) { return none, nil }}
				out, err := newHarness(t, source, missing).Bundle(batchasynctest.Values("x", "y", "x-y")...)
				require.NoError(t, err)
				require.Len(t, out.Results(), ends)
				require.Len(t, out.Failures(), 3-ends)
				for _, e := range out.Results() {
					require.Len(t, e.Value, map[enrich.Missing]int{enrich.KeepMissing: 1}[missing])
				}
				require.Len(t, source.lookups, 1, "and nothing is tried again")
			})
		}
	}
}

func TestABatchWithoutKeysAsksForNothing(t *testing.T) {
	source := &script{}
	for _, opts := range [][]batchasync.Option{nil, {batchasync.Dedup()}, {batchasync.Cache(10, time.Minute)}} {
		run(t, newHarness(t, source, enrich.DeadLetterMissing, opts...), "", "")
	}
	require.Empty(t, source.lookups)
}

func TestASourceFailsSomeKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &script{lookup: func(_ context.Context, keys []string) (map[string]place, error) {
			values := rows(keys)
			var failed batchasync.BatchError
			for i, key := range keys {
				switch key {
				case "B":
					failed.Fail(i, batchasync.Permanent(errors.New("bad row")))
				case "C":
					failed.Fail(i, errors.New("row is locked"))
				case "D":
					failed.Fail(i, errors.New("wrong row"))
				}
			}
			slices.Sort(keys) // they are the source's own
			return values, failed.Err()
		}}
		out := run(t, newHarness(t, source, enrich.KeepMissing, batchasync.MaxAttempts(2)), "E-A", "A-B", "C-C", "C-B", "D", "C-y", "A", "y")
		require.Equal(t, map[string]string{
			"A-B": `key "B": bad row (1)`, "C-C": `key "C": row is locked (2)`, "C-B": "key \"C\": row is locked\nkey \"B\": bad row (1)",
			"D": `key "D": wrong row (1)`, "C-y": `key "C": row is locked (2)`,
		}, failures(out), "an element fails with its keys; what is permanent decides; the source's Retryable is asked")
		require.Equal(t, [][]string{{"E", "A", "B", "C", "D", "y"}, {"C", "y"}}, source.lookups, "only what failed is asked for again")
	})
}

func TestAMarkAroundABatchErrorSpeaksOfItsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &script{lookup: func(_ context.Context, keys []string) (map[string]place, error) {
			var failed batchasync.BatchError
			failed.Fail(slices.Index(keys, "B"), errors.New("no right"))
			return rows(keys), fmt.Errorf("query: %w", batchasync.Permanent(failed.Err()))
		}}
		out := run(t, newHarness(t, source, enrich.KeepMissing), "A", "B", "C")
		require.Equal(t, map[string]string{"B": `key "B": no right (1)`}, failures(out))
	})
}

func TestAnIndexOutOfRangeIsTold(t *testing.T) {
	for _, index := range []int{-1, 2} {
		source := &script{lookup: func(_ context.Context, keys []string) (map[string]place, error) {
			var failed batchasync.BatchError
			failed.Fail(index, errors.New("bad row"))
			return rows(keys), failed.Err()
		}}
		out := run(t, newHarness(t, source, enrich.KeepMissing), "A", "B", "A-B")
		require.Equal(t, fmt.Sprintf("BatchError.Fail(%d, …) is out of range: Lookup was asked for 2 keys: bad row (1)", index), failures(out)["A"])
		require.Len(t, out.Failures(), 3)
	}
}

func TestASourceThatFailsAsAWholeIsAskedAgain(t *testing.T) {
	for _, opts := range [][]batchasync.Option{nil, {batchasync.Dedup()}, {batchasync.Cache(10, time.Minute)}} {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			source := &script{lookup: func(_ context.Context, keys []string) (map[string]place, error) {
				switch calls++; calls {
				case 1:
					return nil, batchasync.RetryAfter(errors.New("busy"), time.Hour)
				case 2:
					return nil, &batchasync.BatchError{} // says nothing
				case 3:
					return nil, batchasync.Permanent(errors.New("no such table"))
				case 4:
					return nil, errors.New("wrong query")
				}
				panic("a row of another world")
			}}
			h := newHarness(t, source, enrich.KeepMissing, opts...)
			start := time.Now()
			out, err := h.Bundle(batchasynctest.Values("A", "B")...)
			require.NoError(t, err)
			require.Equal(t, time.Hour, time.Since(start))
			require.Len(t, out.Results(), 2)
			require.Equal(t, map[string]string{"C": "no such table (1)", "D": "no such table (1)"}, failures(run(t, h, "C", "D")))
			require.Equal(t, map[string]string{"C": "wrong query (1)", "D": "wrong query (1)"}, failures(run(t, h, "C", "D")))
			require.Contains(t, failures(run(t, h, "C"))["C"], "panic in Call: a row of another world")
		})
	}
}

// TooLarge passes, so that a source may refuse more keys than it can bear.
func TestASourceMayRefuseABatchForItsSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &script{lookup: func(_ context.Context, keys []string) (map[string]place, error) {
			if len(keys) > 2 {
				return nil, batchasync.TooLarge(errors.New("too many keys"))
			}
			return rows(keys), nil
		}}
		out := run(t, newHarness(t, source, enrich.KeepMissing), "A", "B", "C", "D", "E-F-G")
		require.Equal(t, map[string]string{"E-F-G": "too many keys (4)"}, failures(out), "of 5, 3, 2 and 1 elements")
	})
}

// broken is an enricher that fails in each of its ways.
type broken struct{ route }

func (b *broken) Keys(s string) []string {
	if s == "keys" {
		panic("no keys in it")
	}
	return b.route.Keys(s)
}

func (b *broken) Join(s string, places enrich.Found[string, place]) (string, error) {
	switch s {
	case "A-error":
		return "", errors.New("can't be joined")
	case "A-panic":
		panic("can't be joined at all")
	}
	return b.route.Join(s, places)
}

func TestWhatAnEnricherFailsAtFailsAlone(t *testing.T) {
	for name, opts := range map[string][]batchasync.Option{"plain": nil, "cache": {batchasync.Cache(10, time.Minute)}} {
		t.Run(name, func(t *testing.T) {
			source := &script{}
			h := batchasynctest.NewHarness(t, batchasync.New(enrich.New(source, &broken{}, enrich.KeepMissing), opts...))
			for range 2 { // the second time, by the cache
				out := run(t, h, "A", "keys", "A-error", "B", "A-panic")
				errs := failures(out)
				require.Len(t, errs, 3)
				require.Contains(t, errs["A-error"], "can't be joined (")
				require.Contains(t, errs["A-panic"], "panic in Join: can't be joined at all")
				require.Contains(t, errs["A-panic"], "caller_test.go:", "with its stack")
				require.Contains(t, errs["keys"], "panic in Keys: no keys in it")
				for _, e := range out.Failures() {
					require.True(t, e.Value.(batchasync.Failure[string]).Permanent)
				}
			}
			require.Len(t, source.lookups, map[string]int{"plain": 2, "cache": 1}[name])
		})
	}
}

func TestAMissingKeyErrorNamesTheKeysButNotAllOfALongOne(t *testing.T) {
	source := &script{lookup: func(context.Context, []string) (map[string]place, error) { return nil, nil }}
	long := strings.Repeat("é", 500_000)
	hostile := "'; DROP TABLE airports\n\x00\xff"
	out := run(t, newHarness(t, source, enrich.DeadLetterMissing), long, hostile, "a-b-c-d-a", "日本")
	require.Equal(t, map[string]string{
		long:        noValue + `"` + strings.Repeat("é", 50) + `"… (1000000 bytes) (1)`,
		hostile:     noValue + `"'; DROP TABLE airports\n\x00\xff" (1)`,
		"a-b-c-d-a": noValue + `"a", "b", "c", … (4 keys) (1)`,
		"日本":        noValue + `"日本" (1)`,
	}, failures(out))
	require.ElementsMatch(t, []string{long, hostile, "a", "b", "c", "d", "日本"}, source.lookups[0], "they reach the source as they are")

	require.Equal(t, noValue+"{Shop:7 Item:tea}", (&enrich.MissingKeyError{Keys: []any{struct {
		Shop int
		Item string
	}{7, "tea"}}}).Error())
}

// lasting is a source that is passed by value, with methods on its pointer.
type lasting struct{ Name string }

func (l *lasting) Setup(context.Context) error    { tell("set up " + l.Name); return nil }
func (l *lasting) Teardown(context.Context) error { tell("tear down " + l.Name); return nil }

func (lasting) Lookup(_ context.Context, keys []string) (map[string]place, error) {
	tell("look up")
	return rows(keys), nil
}

var story []string

func tell(line string) { story = append(story, line) }

func TestASourceIsSetUpAndTornDown(t *testing.T) {
	story = nil
	h := batchasynctest.NewHarness(t, batchasync.New(enrich.New(lasting{"one"}, route{}, enrich.KeepMissing)))
	clone := h.Clone(t)
	run(t, clone, "A", "B")
	run(t, h, "A")
	require.NoError(t, h.Teardown())
	require.NoError(t, clone.Teardown())
	require.Equal(t, []string{"set up one", "look up", "look up", "tear down one"}, story)
}

func TestAHedgeNeedsASourceThatSaysItIsIdempotent(t *testing.T) {
	defer func() {
		require.Contains(t, fmt.Sprint(recover()), "Hedge(1s): the caller does not say that a call may be made twice")
	}()
	batchasync.New(enrich.New(lasting{"one"}, route{}, enrich.KeepMissing), batchasync.Hedge(time.Second))
}

// limited is a source with a quota, and one limit that its fields must keep.
type limited struct {
	script
	Rows int
	hold time.Time
}

func (l *limited) Validate() error {
	if l.Rows < 0 {
		return fmt.Errorf("Rows is %d: must not be negative", l.Rows)
	}
	return nil
}

func (l *limited) HoldUntil() time.Time { return l.hold }

func TestASourceIsValidatedAndMayHoldTheCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := batchasynctest.NewHarness(t, batchasync.New(enrich.New(&limited{hold: time.Now().Add(time.Hour)}, route{}, enrich.KeepMissing)))
		start := time.Now()
		run(t, h, "A")
		require.Equal(t, time.Hour, time.Since(start))
		defer func() {
			require.Contains(t, fmt.Sprint(recover()), "the source *enrich_test.limited: Rows is -1: must not be negative")
		}()
		batchasync.New(enrich.New(&limited{Rows: -1}, route{}, enrich.KeepMissing))
	})
}

// floats answers numbers; that which equals no number, itself included, can't be
// found in any map.
type floats struct{}

func (floats) Lookup(_ context.Context, keys []float64) (map[float64]place, error) {
	values := map[float64]place{}
	for _, key := range keys {
		values[key] = place{fmt.Sprint(key)}
	}
	return values, nil
}

type parse struct{}

func (parse) Keys(s string) []float64 {
	var f float64
	_, _ = fmt.Sscan(s, &f)
	return []float64{f}
}

func (parse) Join(s string, places enrich.Found[float64, place]) (string, error) {
	for _, p := range places.All() {
		return s + ": " + p.Name, nil
	}
	return s + ": nowhere", nil
}

func TestAKeyThatIsNotANumberIsMissing(t *testing.T) {
	for _, opts := range [][]batchasync.Option{nil, {batchasync.Cache(10, time.Minute)}} {
		h := batchasynctest.NewHarness(t, batchasync.New(enrich.New(floats{}, parse{}, enrich.DeadLetterMissing), opts...))
		out, err := h.Bundle(batchasynctest.Values("1.5", "NaN", "2", "NaN")...)
		require.NoError(t, err)
		require.Len(t, out.Results(), 2)
		require.Equal(t, map[string]string{"NaN": noValue + "NaN (1)"}, failures(out))
	}
}

// anything has keys of any type.
type anything struct{}

func (anything) Lookup(_ context.Context, keys []any) (map[any]string, error) {
	values := map[any]string{}
	for _, key := range keys {
		values[key] = fmt.Sprint(key)
	}
	return values, nil
}

type mixed struct{}

func (mixed) Keys(s string) []any {
	if s == "slice" {
		return []any{"A", []int{1}}
	}
	return []any{s, len(s)}
}

func (mixed) Join(s string, values enrich.Found[any, string]) (string, error) {
	n, _ := values.Get(len(s))
	return n, nil
}

func TestAKeyThatCannotBeOneFailsItsElement(t *testing.T) {
	for _, opts := range [][]batchasync.Option{nil, {batchasync.Dedup()}, {batchasync.Cache(10, time.Minute)}} {
		h := batchasynctest.NewHarness(t, batchasync.New(enrich.New(anything{}, mixed{}, enrich.KeepMissing), opts...))
		out, err := h.Bundle(batchasynctest.Values("a", "slice", "bc")...)
		require.NoError(t, err)
		require.Len(t, out.Results(), 2)
		require.Len(t, out.Failures(), 1)
		require.Contains(t, failures(out)["slice"], "hash of unhashable type")
	}
}
