// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/rtrackers/offsetrange"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
)

func init() {
	register.DoFn3x2[*sdf.LockRTracker, []byte, func(beam.EventTime, int), sdf.ProcessContinuation, error](&numbersFn{})
	register.DoFn4x0[beam.Window, beam.EventTime, Customer, func(int)](&checkFn{})
	register.DoFn1x0[int](&nowhereFn{})
	register.Emitter1[int]()
	register.Emitter2[beam.EventTime, int]()
}

// bundles is how many bundles the input comes in, at the same time.
const bundles = 4

// job is the pipeline of all contestants: the numbers below n, each with its name.
// With windows, the numbers are in sliding windows.
func job(s beam.Scope, n int, windows bool, apply func(beam.Scope, beam.PCollection) beam.PCollection) {
	ids := beam.ParDo(s, &numbersFn{N: int64(n)}, beam.Impulse(s))
	if windows {
		ids = beam.WindowInto(s, window.NewSlidingWindows(windowPeriod, windowSize), ids)
	}
	wrong := beam.ParDo(s, &checkFn{Windows: windows}, apply(s, ids))
	// Behind a reshuffle is another stage: while one without outputs runs,
	// Prism 2.77 takes a whole core to wait for it.
	beam.ParDo0(s, &nowhereFn{}, beam.Reshuffle(s, wrong))
}

// Where and when the numbers are in event time: each is in two windows.
const (
	windowSize   = 2 * time.Second
	windowPeriod = time.Second
	interval     = 37 * time.Millisecond
)

func stampOf(id int) beam.EventTime {
	return mtime.FromTime(time.Unix(0, 0).Add(time.Duration(id) * interval))
}

// numbersFn is a source of as many shards as there are to be bundles. Prism makes one
// bundle of all that is there, so each shard asks to be called again a moment after
// the one before: that makes it a bundle of its own.
type numbersFn struct{ N int64 }

const moment = 30 * time.Millisecond

func (f *numbersFn) CreateInitialRestriction([]byte) offsetrange.Restriction {
	return offsetrange.Restriction{End: f.N}
}

func (f *numbersFn) SplitRestriction(_ []byte, r offsetrange.Restriction) []offsetrange.Restriction {
	return r.EvenSplits(bundles)
}

func (f *numbersFn) RestrictionSize(_ []byte, r offsetrange.Restriction) float64 { return r.Size() }

func (f *numbersFn) CreateTracker(r offsetrange.Restriction) *sdf.LockRTracker {
	return sdf.NewLockRTracker(offsetrange.NewTracker(r))
}

func (f *numbersFn) ProcessElement(tracker *sdf.LockRTracker, _ []byte, emit func(beam.EventTime, int)) (sdf.ProcessContinuation, error) {
	r := tracker.GetRestriction().(offsetrange.Restriction)
	due := tally.start().Add(moment * time.Duration(1+r.Start*bundles/f.N))
	if wait := time.Until(due); wait > 0 {
		return sdf.ResumeProcessingIn(wait), nil
	}
	tally.begin()
	defer tally.running.Add(-1)
	for id := r.Start; tracker.TryClaim(id); id++ {
		emit(stampOf(int(id)), int(id))
	}
	return sdf.StopProcessing(), tracker.GetError()
}

// tally is what has come out; the DoFns are in this process.
var tally ledger

type ledger struct {
	seen    []atomic.Uint32 // how often, by id
	running atomic.Int64    // shards
	most    atomic.Int64    // of them at once

	looked       atomic.Pointer[time.Time]
	began, ended atomic.Pointer[usage]

	wrongName, wrongWindow, wrongTime atomic.Int64
}

func newLedger(n int) ledger { return ledger{seen: make([]atomic.Uint32, n)} }

// start is when the first shard was looked at.
func (l *ledger) start() time.Time {
	now := time.Now()
	if l.looked.CompareAndSwap(nil, &now) {
		return now
	}
	return *l.looked.Load()
}

// begin is called when a shard begins.
func (l *ledger) begin() {
	now := usageNow()
	l.began.CompareAndSwap(nil, &now)
	running := l.running.Add(1)
	for most := l.most.Load(); running > most && !l.most.CompareAndSwap(most, running); most = l.most.Load() {
	}
}

func (l *ledger) end() {
	now := usageNow()
	l.ended.Store(&now)
}

// checkFn takes the customers down.
type checkFn struct{ Windows bool }

func (f *checkFn) ProcessElement(w beam.Window, at beam.EventTime, c Customer, _ func(int)) {
	tally.seen[c.ID].Add(1)
	if c.Name != nameOf(c.ID) {
		tally.wrongName.Add(1)
	}
	if !f.Windows {
		return
	}
	if at != stampOf(c.ID) {
		tally.wrongTime.Add(1)
	}
	// The window is judged by the number: the timestamp may be wrong as well.
	own, ok := w.(window.IntervalWindow)
	if !ok || own.Start > stampOf(c.ID) || own.End <= stampOf(c.ID) || own.End.Subtract(windowSize) != own.Start {
		tally.wrongWindow.Add(1)
	}
}

func (*checkFn) FinishBundle(func(int)) { tally.end() }

type nowhereFn struct{}

func (*nowhereFn) ProcessElement(id int) { panic(fmt.Sprint("nothing comes here, but ", id)) }
