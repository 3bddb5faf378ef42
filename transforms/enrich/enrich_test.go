// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package enrich_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	//lint:ignore SA1019 Prism is to replace it, but it is still what many tests run on, and hands over elements in its own way.
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/direct"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/enrich"
)

func TestMain(m *testing.M) {
	beam.Init()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // or Prism tells each job's life
	os.Exit(m.Run())
}

func init() {
	enrich.Register(&table{}, route{})
	enrich.RegisterKV[int](&table{}, route{})
	beam.RegisterDoFn(reflect.TypeFor[stampFn]())
	beam.RegisterDoFn(reflect.TypeFor[showFn]())
	beam.RegisterDoFn(reflect.TypeFor[failureFn]())
	beam.RegisterDoFn(reflect.TypeFor[lengthFn]())
	beam.RegisterDoFn(reflect.TypeFor[pairFn]())
	beam.RegisterDoFn(reflect.TypeFor[pairFailureFn]())
	register.Emitter1[string]()
	register.Emitter2[beam.EventTime, string]()
}

// A place is a row: what a key is answered with.
type place struct{ Name string }

// table has a row for each key of one upper-case letter.
type table struct{ Test string }

// asked counts the keys that the tables of a test were asked for, by the test's
// name: the table itself travels.
var asked sync.Map

func askedFor(test string) *atomic.Int64 {
	n, _ := asked.LoadOrStore(test, new(atomic.Int64))
	return n.(*atomic.Int64)
}

func (t *table) Lookup(_ context.Context, keys []string) (map[string]place, error) {
	askedFor(t.Test).Add(int64(len(keys)))
	return rows(keys), nil
}

func rows(keys []string) map[string]place {
	var found map[string]place // nil if there is none
	for _, key := range keys {
		if len(key) == 1 && key[0] >= 'A' && key[0] <= 'Z' {
			if found == nil {
				found = map[string]place{}
			}
			found[key] = place{"town " + key}
		}
	}
	return found
}

// route joins "A-B" with what A and B are.
type route struct{}

func (route) Keys(route string) []string {
	if route == "" {
		return nil
	}
	return strings.Split(route, "-")
}

func (route) Join(route string, places enrich.Found[string, place]) (string, error) {
	parts := []string{}
	for _, key := range strings.Split(route, "-") {
		p, ok := places.Get(key)
		if !ok {
			p.Name = "nowhere"
		}
		parts = append(parts, p.Name)
	}
	return route + ": " + strings.Join(parts, ", "), nil
}

type stampFn struct{}

// ProcessElement sets an element's timestamp to as many seconds as it is long.
func (*stampFn) ProcessElement(s string, emit func(beam.EventTime, string)) {
	emit(mtime.FromTime(time.Unix(int64(len(s)), 0)), s)
}

type showFn struct{}

func (*showFn) ProcessElement(w beam.Window, t beam.EventTime, s string, emit func(string)) {
	emit(fmt.Sprintf("%s %v %v", s, w, t.ToTime().Unix()))
}

type failureFn struct{}

func (*failureFn) ProcessElement(f batchasync.Failure[string]) string {
	return fmt.Sprintf("%s! %s", f.Element, f.Error)
}

type lengthFn struct{}

func (*lengthFn) ProcessElement(s string) (int, string) { return len(s), s }

type pairFn struct{}

func (*pairFn) ProcessElement(n int, s string) string { return fmt.Sprintf("%d %s", n, s) }

type pairFailureFn struct{}

func (*pairFailureFn) ProcessElement(n int, f batchasync.Failure[string]) string {
	return fmt.Sprintf("%d %s! %s", n, f.Element, f.Error)
}

var engines = []string{"direct", "prism"}

// onEachEngine runs the pipeline that build makes.
func onEachEngine(t *testing.T, build func(t *testing.T, s beam.Scope), checks ...func(t *testing.T, counters map[string]int64)) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			p, s := beam.NewPipelineWithRoot()
			build(t, s)
			result, err := beam.Run(context.Background(), engine, p)
			require.NoError(t, err)
			counters := map[string]int64{}
			for _, c := range result.Metrics().AllMetrics().Counters() {
				counters[c.Namespace()+"/"+c.Name()] += c.Result()
			}
			for _, check := range checks {
				check(t, counters)
			}
		})
	}
}

// equals compares in the global window.
func equals(s beam.Scope, col beam.PCollection, want ...string) {
	values := make([]any, len(want))
	for i, w := range want {
		values[i] = w
	}
	col = beam.WindowInto(s, window.NewGlobalWindows(), col)
	if len(values) == 0 {
		passert.Empty(s, col)
		return
	}
	passert.Equals(s, col, values...)
}

const noValue = "the source has no value for the key "

func TestThePolicySaysWhatBecomesOfAnElementWithAMissingKey(t *testing.T) {
	elements := []any{"A", "A-B", "B-x", "y", "y-x-y", "A-A", ""}
	joined := []string{"A: town A", "A-B: town A, town B", "A-A: town A, town A", ": nowhere"}
	for _, test := range []struct {
		missing          enrich.Missing
		joined, failures []string
		dropped          int
	}{
		{enrich.KeepMissing, append(joined, "B-x: town B, nowhere", "y: nowhere", "y-x-y: nowhere, nowhere, nowhere"), nil, 0},
		{enrich.DropMissing, joined, nil, 3},
		{enrich.DeadLetterMissing, joined, []string{"B-x! " + noValue + `"x"`, "y! " + noValue + `"y"`, "y-x-y! " + noValue + `"y", "x"`}, 0},
	} {
		t.Run(string(test.missing), func(t *testing.T) {
			count := func(t *testing.T, counters map[string]int64) {
				require.EqualValues(t, 3, counters["enrich/missing"])
				require.EqualValues(t, test.dropped, counters["enrich/dropped"])
			}
			onEachEngine(t, func(t *testing.T, s beam.Scope) {
				joined, failures := enrich.ParDoWithFailures(s, &table{}, route{}, test.missing, beam.Create(s, elements...))
				equals(s, joined, test.joined...)
				equals(s, beam.ParDo(s, &failureFn{}, failures), test.failures...)
			}, count)
			if test.missing != enrich.DeadLetterMissing {
				onEachEngine(t, func(t *testing.T, s beam.Scope) {
					equals(s, enrich.ParDo(s, &table{}, route{}, test.missing, beam.Create(s, elements...)), test.joined...)
				}, count)
			}
		})
	}
}

func TestAMissingKeyFailsThePipeline(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			p, s := beam.NewPipelineWithRoot()
			col := beam.Create(s, "A", "y", "A-B")
			enrich.ParDo(s, &table{}, route{}, enrich.FailMissing, col)
			_, err := beam.Run(context.Background(), engine, p)
			require.ErrorContains(t, err, "enrich.ParDo/batchasync.FlatParDo: batch ")
			require.ErrorContains(t, err, noValue+`"y" (not retried, for the error is permanent`)
		})
	}
}

func TestJoinedElementsAndFailuresKeepTheirWindowsAndTimestamps(t *testing.T) {
	for name, windows := range map[string]*window.Fn{
		"global":  window.NewGlobalWindows(),
		"fixed":   window.NewFixedWindows(2 * time.Second),
		"sliding": window.NewSlidingWindows(time.Second, 3*time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, s beam.Scope) {
				asked.Delete(t.Name())
				col := beam.ParDo(s, &stampFn{}, beam.Create(s, "A", "B", "A-B", "C-y", "D-E-F"))
				col = beam.WindowInto(s, windows, col)
				joined, failures := enrich.ParDoWithFailures(s, &table{t.Name()}, route{}, enrich.DeadLetterMissing, col, batchasync.BatchSize(50))
				var want, wantFailed []string
				for element, show := range map[string]string{"A": "A: town A", "B": "B: town B", "A-B": "A-B: town A, town B", "D-E-F": "D-E-F: town D, town E, town F"} {
					want = append(want, placed(windows, element, show)...)
				}
				wantFailed = placed(windows, "C-y", "C-y! "+noValue+`"y"`)
				equals(s, beam.ParDo(s, &showFn{}, joined), want...)
				equals(s, beam.ParDo(s, &showFn{}, beam.ParDo(s, &failureFn{}, failures)), wantFailed...)
			}, func(t *testing.T, counters map[string]int64) {
				require.EqualValues(t, counters["enrich/keys"], askedFor(t.Name()).Load())
				if strings.HasSuffix(t.Name(), "/direct") { // the one bundle is one batch
					require.EqualValues(t, 7, counters["enrich/keys"], "each key is asked for once, not once a window")
				}
			})
		})
	}
}

// placed is what showFn makes of an element, by the definitions of Beam's model.
func placed(fn *window.Fn, element, show string) (lines []string) {
	second := int64(len(element))
	line := func(w beam.Window) { lines = append(lines, fmt.Sprintf("%s %v %v", show, w, second)) }
	interval := func(start, size int64) {
		line(window.IntervalWindow{Start: mtime.Time(start * 1000), End: mtime.Time((start + size) * 1000)})
	}
	switch fn.Kind {
	case window.FixedWindows:
		interval(second-second%2, 2)
	case window.SlidingWindows:
		for start := second - 2; start <= second; start++ {
			interval(start, 3)
		}
	default:
		line(window.GlobalWindow{})
	}
	return lines
}

func TestAKVKeepsItsKey(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		col := beam.ParDo(s, &lengthFn{}, beam.Create(s, "A", "B", "A-B", "A-y", "yy"))
		joined, failures := enrich.ParDoKVWithFailures[int](s, &table{}, route{}, enrich.DeadLetterMissing, col)
		equals(s, beam.ParDo(s, &pairFn{}, joined), "1 A: town A", "1 B: town B", "3 A-B: town A, town B")
		equals(s, beam.ParDo(s, &pairFailureFn{}, failures), "3 A-y! "+noValue+`"y"`, "2 yy! "+noValue+`"yy"`)
		dropped := enrich.ParDoKV[int](s, &table{}, route{}, enrich.DropMissing, col)
		equals(s, beam.ParDo(s, &pairFn{}, dropped), "1 A: town A", "1 B: town B", "3 A-B: town A, town B")
	})
}

func TestAMistakeInThePipelinePanicsAtConstructionWithItsRemedy(t *testing.T) {
	_, s := beam.NewPipelineWithRoot()
	col := beam.Create(s, "A")
	kvs := beam.ParDo(s, &lengthFn{}, col)
	var source enrich.Source[string, place] = &table{}
	for want, build := range map[string]func(){
		"root/enrich.ParDo: the source *enrich_test.unknown and the enricher enrich_test.route are not registered; add to an init function: enrich.Register(&enrich_test.unknown{}, enrich_test.route{})": func() {
			enrich.ParDo(s, &unknown{}, route{}, enrich.DropMissing, col)
		},
		"add to an init function: enrich.RegisterKV[string](&enrich_test.table{}, enrich_test.route{})": func() {
			enrich.ParDoKV[string](s, &table{}, route{}, enrich.DropMissing, kvs)
		},
		"the source is nil: pass one that is made": func() {
			enrich.ParDo(s, (*table)(nil), route{}, enrich.DropMissing, col)
		},
		"the source's type is the interface enrich.Source[string,": func() {
			enrich.ParDo(s, source, route{}, enrich.DropMissing, col)
		},
		`Missing "perhaps": must be one of ["keep" "drop" "fail" "dead letter"]`: func() {
			enrich.ParDo(s, &table{}, route{}, "perhaps", col)
		},
		`the policy "dead letter" is not for this verb: FailMissing is for those without a failures output, DeadLetterMissing for those with one`: func() {
			enrich.ParDo(s, &table{}, route{}, enrich.DeadLetterMissing, col)
		},
		`the policy "fail" is not for this verb`: func() {
			enrich.ParDoWithFailures(s, &table{}, route{}, enrich.FailMissing, col)
		},
		`the policy "dead letter" is not for this verb: `: func() {
			enrich.ParDoKV[int](s, &table{}, route{}, enrich.DeadLetterMissing, kvs)
		},
		"root/enrich.ParDoKVWithFailures: ": func() {
			enrich.ParDoKVWithFailures[int](s, &table{}, route{}, enrich.FailMissing, kvs)
		},
		"*enrich_test.odd has a method Setup with another signature, which would be ignored: make it Setup(context.Context) error": func() {
			enrich.ParDo(s, &odd{}, route{}, enrich.DropMissing, col)
		},
		"CacheBytes(100): the size of a enrich_test.place is not known: give the source *enrich_test.table a method ValueSize(enrich_test.place) int": func() {
			enrich.ParDo(s, &table{}, route{}, enrich.DropMissing, col, batchasync.Cache(10, time.Minute), batchasync.CacheBytes(100))
		},
		"the PCollection holds KV<int,string>": func() { enrich.ParDo(s, &table{}, route{}, enrich.DropMissing, kvs) },
	} {
		t.Run(want[:min(len(want), 40)], func(t *testing.T) {
			defer func() {
				require.Contains(t, fmt.Sprint(recover()), want)
			}()
			build()
		})
	}
}

type unknown struct{ table }

type odd struct{ table }

func (*odd) Setup() {}

func TestAFoundIsMadeForATest(t *testing.T) {
	found := enrich.FoundOf(map[string]place{"A": {"Amsterdam"}, "B": {"Bern"}})
	line, err := route{}.Join("A-B-C", found)
	require.NoError(t, err)
	require.Equal(t, "A-B-C: Amsterdam, Bern, nowhere", line)
	var keys []string
	for key, p := range found.All() {
		require.Equal(t, key, p.Name[:1])
		keys = append(keys, key)
	}
	require.ElementsMatch(t, []string{"A", "B"}, keys)
	for range found.All() {
		break
	}
	_, ok := enrich.FoundOf[string, place](nil).Get("A")
	require.False(t, ok)
}
