// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"context"
	"reflect"
	"sync"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime/exec"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/typex"
)

// This file is the only one that knows how Beam emits. An emitter that a DoFn
// gets is a function, which emits with the windows, the timestamp and the pane
// that Beam has set last; in FinishBundle those are the global window and the
// Unix epoch, whatever the element (apache/beam issue 23963). But an
// emitter's maker can be registered for a named function type, and it is given
// the node behind the output. So the functions below emit nothing: calling one
// hands over its output, once a bundle, and the output emits where it is told.

// Emit is the type of an output parameter of a BatchAsyncDoFn, in the place of
// func(O). It is of no use outside this package.
type Emit[O any] func(O)

// EmitKV is Emit for an output of KV<K, O>.
type EmitKV[K, O any] func(K, O)

// An origin is where an element is in event time: it goes with the element
// from its arrival to its result.
type origin struct {
	timestamp typex.EventTime
	*place
}

// A place is what an element shares with its neighbours: most come in the
// windows of the one before, so that a batch holds a pointer for each of them,
// and not the windows that a runner has decoded for each anew.
type place struct {
	windows []typex.Window
	pane    typex.PaneInfo

	// Where bundles share batches, it also tells whose the element is, and
	// which of its elements in an ordered bundle. (Here, since it costs
	// nothing where they don't.)
	owner any
	seq   uint64
}

func (p *place) is(windows []typex.Window, pane typex.PaneInfo) bool {
	if p == nil || len(p.windows) != len(windows) || p.pane != pane {
		return false
	}
	if len(windows) > 0 && &p.windows[0] == &windows[0] {
		return true
	}
	for i, w := range windows {
		if !p.windows[i].Equals(w) {
			return false
		}
	}
	return true
}

// An output emits into one output of the DoFn. Like the emitters that it
// replaces, it belongs to the goroutine of the bundle.
type output struct {
	next  exec.ElementProcessor
	fn    any // the DoFn's parameter
	ctx   context.Context
	value exec.FullValue

	// now is the origin of the element that is being processed, if observe
	// is set: one output of a DoFn is enough to tell it.
	observe bool
	now     origin
}

// Init is called by Beam before each call of a method of the DoFn, so for each
// element: it writes no more pointers than it has to.
func (o *output) Init(ctx context.Context, pane typex.PaneInfo, windows []typex.Window, timestamp typex.EventTime) error {
	if o.ctx != ctx {
		o.ctx = ctx
	}
	if !o.observe {
		return nil
	}
	o.now.timestamp = timestamp
	if !o.now.is(windows, pane) {
		o.now.place = &place{windows: windows, pane: pane}
	}
	return nil
}

// Value returns the DoFn's parameter.
func (o *output) Value() any { return o.fn }

// emit passes a value, or a key and a value, on to the next transform.
func (o *output) emit(at *origin, element, element2 any) error {
	// The next node must copy what it keeps, as with any value of Beam's, so
	// that one FullValue serves all. Its other fields are never set.
	v := &o.value
	v.Elm, v.Elm2, v.Windows, v.Timestamp, v.Pane = element, element2, at.windows, at.timestamp, at.pane
	return o.next.ProcessElement(o.ctx, v)
}

var handover struct {
	sync.Mutex
	output *output
}

// outputOf returns the output behind an emitter that Beam made; call calls the
// emitter with zero values.
func outputOf(call func()) *output {
	handover.Lock()
	defer handover.Unlock()
	call()
	o := handover.output
	handover.output = nil // or a dropped bundle would never be collected
	return o
}

func (o *output) handOver() { handover.output = o }

func (e Emit[O]) output() *output {
	var zero O
	return outputOf(func() { e(zero) })
}

func (e EmitKV[K, O]) output() *output {
	var key K
	var zero O
	return outputOf(func() { e(key, zero) })
}

func registerEmit[O any]() {
	exec.RegisterEmitter(reflect.TypeFor[Emit[O]](), func(next exec.ElementProcessor) exec.ReusableEmitter {
		o := &output{next: next}
		o.fn = Emit[O](func(O) { o.handOver() })
		return o
	})
}

func registerEmitKV[K, O any]() {
	exec.RegisterEmitter(reflect.TypeFor[EmitKV[K, O]](), func(next exec.ElementProcessor) exec.ReusableEmitter {
		o := &output{next: next}
		o.fn = EmitKV[K, O](func(K, O) { o.handOver() })
		return o
	})
}
