// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"hash/fnv"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/state"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/batchasync/beam-batchasync/batchasync"
)

func init() {
	beam.RegisterDoFn(reflect.TypeFor[countFn]())
	beam.RegisterDoFn(reflect.TypeFor[stampFn]())
	beam.RegisterDoFn(reflect.TypeFor[ungroupFn]())
	beam.RegisterDoFn(reflect.TypeFor[placeFn]())
	beam.RegisterDoFn(reflect.TypeFor[plainFn]())
	beam.RegisterDoFn(reflect.TypeFor[whyFn]())
	beam.RegisterDoFn(reflect.TypeFor[parityFn]())
	beam.RegisterDoFn(reflect.TypeFor[joinFn]())
	beam.RegisterDoFn(reflect.TypeFor[joinFailureFn]())
	beam.RegisterDoFn(reflect.TypeFor[bundleFn]())
	beam.RegisterDoFn(reflect.TypeFor[orderFn]())
	beam.RegisterDoFn(reflect.TypeFor[textFn]())
	beam.RegisterDoFn(reflect.TypeFor[numberFn]())
	beam.RegisterDoFn(reflect.TypeFor[digestFn]())
	beam.RegisterDoFn(reflect.TypeFor[hashFn]())
	beam.RegisterDoFn(reflect.TypeFor[spreadFn]())
	beam.RegisterDoFn(reflect.TypeFor[nowFn]())
	beam.RegisterDoFn(reflect.TypeFor[lengthFn]())
	beam.RegisterDoFn(reflect.TypeFor[sumFn]())
	beam.RegisterDoFn(reflect.TypeFor[serialFn]())
	beam.RegisterDoFn(reflect.TypeFor[failedFn]())
	beam.RegisterDoFn(reflect.TypeFor[timeFn]())
	beam.RegisterDoFn(reflect.TypeFor[showPaneFn]())
	beam.RegisterDoFn(reflect.TypeFor[patientFn]())
	register.Emitter1[int]()
	register.Emitter1[string]()
	register.Emitter2[beam.EventTime, int]()
	register.Iter1[int]()
}

// countFn emits the numbers below N, all in one bundle unless the runner splits
// it.
type countFn struct{ N int }

func (f *countFn) ProcessElement(_ []byte, emit func(int)) {
	for v := range f.N {
		emit(v)
	}
}

func numbers(s beam.Scope, n int) beam.PCollection {
	return beam.ParDo(s, &countFn{N: n}, beam.Impulse(s))
}

// stampFn sets an element's timestamp to as many seconds as it says.
type stampFn struct{}

func (*stampFn) ProcessElement(v int, emit func(beam.EventTime, int)) {
	emit(mtime.FromTime(time.Unix(int64(v), 0)), v)
}

// ungroupFn undoes a GroupByKey; what it emits is in the pane of the group.
type ungroupFn struct{}

func (*ungroupFn) ProcessElement(_ int, next func(*int) bool, emit func(int)) {
	var v int
	for next(&v) {
		emit(v)
	}
}

// placeFn makes the place of an element a part of it.
type placeFn struct{}

func (*placeFn) ProcessElement(p beam.PaneInfo, w beam.Window, t beam.EventTime, v string, emit func(string)) {
	emit(fmt.Sprintf("%s in %v at %v in pane %+v", v, w, t, p))
}

// plainFn is what batchasync is compared with.
type plainFn struct{}

func (*plainFn) ProcessElement(v int) string { return fmt.Sprintf("<%d>", v) }

// failedFn makes of a failure what a plain ParDo would make of its element.
type failedFn struct{}

func (*failedFn) ProcessElement(f batchasync.Failure[int]) string {
	return fmt.Sprintf("<%d>", f.Element)
}

type timeFn struct{}

func (*timeFn) ProcessElement(t beam.EventTime, v string) string {
	return fmt.Sprintf("%s at %d", v, t.ToTime().Unix())
}

// whyFn tells a failure, but for its BatchID and its time, of which it tells if
// they are there.
type whyFn struct{}

func (*whyFn) ProcessElement(f batchasync.Failure[int]) string {
	return fmt.Sprintf("%d: %s; attempts %d, permanent %v, batch id %v, in a batch %v, at a time %v",
		f.Element, f.Error, f.Attempts, f.Permanent, len(f.BatchID) == 36, f.BatchSize > 0, !f.FailedAt.IsZero())
}

type parityFn struct{}

func (*parityFn) ProcessElement(v int) (string, int) { return []string{"even", "odd"}[v%2], v }

type joinFn struct{}

func (*joinFn) ProcessElement(k, v string) string { return k + "=" + v }

type joinFailureFn struct{}

func (*joinFailureFn) ProcessElement(k string, f batchasync.Failure[int]) string {
	return fmt.Sprint(k, "=", f.Element)
}

// What the DoFns count.
var (
	bundlesCounter  = beam.NewCounter("suite", "bundles")
	disorderCounter = beam.NewCounter("suite", "disorder")
	seenCounter     = beam.NewCounter("suite", "seen")
	sumCounter      = beam.NewCounter("suite", "sum")
	hashCounter     = beam.NewCounter("suite", "hash")
)

// bundleFn counts the bundles that are not empty.
type bundleFn struct{ begun bool }

func (f *bundleFn) StartBundle(context.Context) { f.begun = false }

func (f *bundleFn) ProcessElement(ctx context.Context, v int) int {
	if !f.begun {
		f.begun = true
		bundlesCounter.Inc(ctx, 1)
	}
	return v
}

// orderFn counts the elements of a bundle that are less than the one before.
type orderFn struct {
	last     int
	disorder int64
}

func (f *orderFn) StartBundle(context.Context) { f.last, f.disorder = -1, 0 }

func (f *orderFn) ProcessElement(v int) {
	if v < f.last {
		f.disorder++
	}
	f.last = v
}

func (f *orderFn) FinishBundle(ctx context.Context) { disorderCounter.Inc(ctx, f.disorder) }

// textFn makes a text of v%7 letters, and for a multiple of 100 one of 500.
type textFn struct{}

func (*textFn) ProcessElement(v int) string {
	if v%100 == 0 {
		return strings.Repeat("x", 500)
	}
	return strings.Repeat("x", v%7)
}

// numberFn is the reverse of quotes.
type numberFn struct{}

func (*numberFn) ProcessElement(s string) (int, error) {
	return strconv.Atoi(strings.Trim(s, "<>"))
}

// digestFn counts elements, and sums them and hashes of them up.
type digestFn struct{ seen, sum, hash int64 }

func (f *digestFn) StartBundle(context.Context) { *f = digestFn{} }

func (f *digestFn) ProcessElement(s string) {
	f.seen++
	f.sum += number(s)
	f.hash += hash(s)
}

func (f *digestFn) FinishBundle(ctx context.Context) {
	seenCounter.Inc(ctx, f.seen)
	sumCounter.Inc(ctx, f.sum)
	hashCounter.Inc(ctx, f.hash)
}

func number(s string) int64 {
	n, err := strconv.Atoi(strings.Trim(s, "<>"))
	if err != nil {
		return -1 << 32 // which no sum makes good
	}
	return int64(n)
}

// hashFn counts elements, and sums hashes of them up, whatever they are.
type hashFn struct{}

func (*hashFn) ProcessElement(ctx context.Context, s string) {
	seenCounter.Inc(ctx, 1)
	hashCounter.Inc(ctx, hash(s))
}

// spreadFn gives the numbers two keys.
type spreadFn struct{}

func (*spreadFn) ProcessElement(v int) (int, int) { return v % 2, v }

// nowFn makes a number of an impulse.
type nowFn struct{}

func (*nowFn) ProcessElement([]byte) int { return int(ordinal.Add(1)) }

var ordinal atomic.Int64

// hash is short enough for sums of a million not to overflow.
func hash(s string) int64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s)) // it has no errors
	return int64(h.Sum32())
}

type lengthFn struct{}

func (*lengthFn) ProcessElement(s string) (string, int) { return fmt.Sprint(len(s)), 1 }

// sumFn adds up what a GroupByKey has gathered.
type sumFn struct{}

func (*sumFn) ProcessElement(k string, next func(*int) bool) string {
	var v, sum int
	for next(&v) {
		sum += v
	}
	return fmt.Sprint(k, ": ", sum)
}

// serialFn numbers the elements of each key, by the state that it keeps.
type serialFn struct{ Seen state.Value[int] }

func (f *serialFn) ProcessElement(p state.Provider, k string, v int, emit func(string)) error {
	n, _, err := f.Seen.Read(p)
	if err != nil {
		return err
	}
	if err := f.Seen.Write(p, n+v); err != nil {
		return err
	}
	emit(fmt.Sprint(k, " number ", n+v))
	return nil
}

// showPaneFn counts the panes that placeFn has seen, by the counters' names.
type showPaneFn struct{}

func (*showPaneFn) ProcessElement(ctx context.Context, place string) {
	_, pane, _ := strings.Cut(place, " in pane ")
	beam.NewCounter("panes", pane).Inc(ctx, 1)
}

// patientFn emits 0, and 1 when an answering of the same test has been called.
type patientFn struct{ Test string }

func (f *patientFn) ProcessElement(ctx context.Context, _ []byte, emit func(int)) {
	emit(0)
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	select {
	case <-called(f.Test):
	case <-timer.C:
		lateCounter.Inc(ctx, 1)
	}
	emit(1)
}
