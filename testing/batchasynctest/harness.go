// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasynctest

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"runtime/debug"
	"testing"
	"time"
	"unsafe"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/funcx"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/metrics"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime/exec"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/typex"
)

// An Element is an input or an output of a bundle. No Windows stand for the
// global window; the zero Timestamp is the Unix epoch.
type Element struct {
	Key       any // of a KV; nil otherwise
	Value     any
	Windows   []beam.Window
	Timestamp beam.EventTime
	Pane      typex.PaneInfo
}

// Values returns an Element in the global window for each value.
func Values[T any](values ...T) []Element {
	elements := make([]Element, len(values))
	for i, v := range values {
		elements[i] = Element{Value: v}
	}
	return elements
}

// A Harness drives one instance of a DoFn through bundles without a runner, in
// the way in which a worker of Beam's does it: it is built on the same execution
// node. The goroutine that calls it is the bundle's. It works inside
// testing/synctest, where a linger or a backoff of minutes takes no time.
type Harness struct {
	ctx     context.Context
	fn      any
	graph   *graph.DoFn
	node    *exec.ParDo
	outputs *Outputs
	bundle  int
	open    bool // between Start and Finish
}

// NewHarness drives fn: a pointer to a registered DoFn, such as batchasync.New
// returns. The DoFn is set up by its first bundle. It is torn down when the test
// ends, unless its last bundle failed: runners drop it then. Use Clone for a second instance of it.
func NewHarness(t testing.TB, fn any) *Harness {
	t.Helper()
	dofn, err := graph.NewDoFn(fn)
	if err != nil {
		t.Fatalf("batchasynctest: %T is no DoFn: %v", fn, err)
	}
	h := &Harness{ctx: context.Background(), fn: fn, graph: dofn, outputs: &Outputs{}}
	t.Cleanup(func() {
		if err := h.Teardown(); err != nil {
			t.Errorf("batchasynctest: tear down %T: %v", fn, err)
		}
	})
	return h
}

// Clone returns a harness for another instance of the DoFn, which has travelled
// as JSON, as on its way to a worker: what is not in an exported field is lost.
func (h *Harness) Clone(t testing.TB) *Harness {
	t.Helper()
	data, err := json.Marshal(h.fn)
	if err != nil {
		t.Fatalf("batchasynctest: encode %T: %v", h.fn, err)
	}
	fn := reflect.New(reflect.TypeOf(h.fn).Elem()).Interface()
	if err := json.Unmarshal(data, fn); err != nil {
		t.Fatalf("batchasynctest: decode %T: %v", h.fn, err)
	}
	return NewHarness(t, fn)
}

// WithContext lets the bundles that start from now on run with ctx.
func (h *Harness) WithContext(ctx context.Context) *Harness {
	h.ctx = ctx
	return h
}

// Bundle runs a whole bundle. Its error is the first that a method of the DoFn
// returned, or a panic in one. A bundle that failed gets no FinishBundle; its
// outputs, which a runner would throw away, are returned all the same.
func (h *Harness) Bundle(elements ...Element) (*Outputs, error) {
	if err := h.Start(); err != nil {
		return h.outputs, err
	}
	for _, e := range elements {
		if err := h.Process(e); err != nil {
			return h.outputs, err
		}
	}
	return h.outputs, h.Finish()
}

// Start starts a bundle, and forgets the outputs of the one before. A bundle
// that has failed or has not been finished is dropped without a word, as
// runners do. They drop the instance with it; here it is set up and used again,
// which a DoFn has to bear.
func (h *Harness) Start() error {
	h.bundle++
	id := fmt.Sprintf("bundle-%d", h.bundle)
	ctx := metrics.SetBundleID(h.ctx, id)
	h.outputs = &Outputs{store: metrics.GetStore(ctx)}
	if h.open {
		h.node = nil
	}
	if h.node == nil {
		node := &exec.ParDo{UID: 1, PID: "harness", Fn: h.graph}
		emits := h.graph.ProcessElementFn().Params(funcx.FnEmit)
		for i := range emits {
			node.Out = append(node.Out, &sink{id: exec.UnitID(i + 2), harness: h, index: i})
		}
		if err := guard(func() error { return node.Up(h.ctx) }); err != nil {
			return err
		}
		h.node = node
	}
	h.outputs.elements = make([][]Element, len(h.node.Out))
	h.open = true
	return h.step(func() error { return h.node.StartBundle(ctx, id, exec.DataContext{}) })
}

// Process hands over an element.
func (h *Harness) Process(e Element) error {
	value := &exec.FullValue{Elm: e.Value, Windows: e.Windows, Timestamp: e.Timestamp, Pane: e.Pane}
	if e.Key != nil {
		value.Elm, value.Elm2 = e.Key, e.Value
	}
	if len(value.Windows) == 0 {
		value.Windows = window.SingleGlobalWindow
	}
	return h.step(func() error { return h.node.ProcessElement(h.ctx, value) })
}

// Finish finishes the bundle.
func (h *Harness) Finish() error {
	h.open = false
	return h.step(func() error { return h.node.FinishBundle(h.ctx) })
}

// Abandon drops the bundle as a runner does in which another transform has
// failed: the DoFn is told nothing.
func (h *Harness) Abandon() { h.node = nil }

// Teardown tears the DoFn down. NewHarness has it called at the end of the
// test.
func (h *Harness) Teardown() error {
	if h.node == nil {
		return nil
	}
	node := h.node
	h.node = nil
	return guard(func() error { return node.Down(h.ctx) })
}

// Outputs returns what the bundle at hand has emitted so far.
func (h *Harness) Outputs() *Outputs { return h.outputs }

// step makes one step of the bundle; a bundle that failed goes no further.
func (h *Harness) step(f func() error) error {
	if h.node == nil {
		return fmt.Errorf("batchasynctest: no bundle is open: call Start first")
	}
	err := guard(f)
	if err != nil {
		h.node = nil
	}
	return err
}

// guard turns a panic into an error, and takes the DoFn's own error out of
// Beam's, which hides it from errors.As.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	err = f()
	v := reflect.ValueOf(err)
	if v.Kind() == reflect.Pointer && v.Type().String() == "*exec.doFnError" {
		field := v.Elem().FieldByName("err")
		return *(*error)(unsafe.Pointer(field.UnsafeAddr()))
	}
	return err
}

// Outputs are what a bundle has emitted.
type Outputs struct {
	elements [][]Element
	store    *metrics.Store
}

// OutputsOf returns the Outputs of a bundle that was driven in another way, for
// the assertions: the elements of the first output, of the second, and so on.
func OutputsOf(elements ...[]Element) *Outputs { return &Outputs{elements: elements} }

// Of returns what went to the output with that index, in the order of emission.
func (o *Outputs) Of(index int) []Element {
	if index >= len(o.elements) {
		return nil
	}
	return o.elements[index]
}

// Results are the elements of a batchasync DoFn's first output.
func (o *Outputs) Results() []Element { return o.Of(0) }

// Failures are the elements of a batchasync DoFn's second output.
func (o *Outputs) Failures() []Element { return o.Of(1) }

// Counter returns what the bundle has counted; 0 if nothing.
func (o *Outputs) Counter(namespace, name string) int64 {
	var n int64
	o.extract(metrics.Extractor{SumInt64: func(l metrics.Labels, v int64) {
		if l.Namespace() == namespace && l.Name() == name {
			n += v
		}
	}})
	return n
}

// A Distribution is what Beam keeps of one.
type Distribution struct{ Count, Sum, Min, Max int64 }

// Distribution returns what the bundle has recorded.
func (o *Outputs) Distribution(namespace, name string) Distribution {
	var d Distribution
	o.extract(metrics.Extractor{DistributionInt64: func(l metrics.Labels, count, sum, low, high int64) {
		if l.Namespace() == namespace && l.Name() == name {
			d = Distribution{count, sum, low, high}
		}
	}})
	return d
}

// Gauge returns the value that the bundle has set last.
func (o *Outputs) Gauge(namespace, name string) int64 {
	var g int64
	o.extract(metrics.Extractor{GaugeInt64: func(l metrics.Labels, v int64, _ time.Time) {
		if l.Namespace() == namespace && l.Name() == name {
			g = v
		}
	}})
	return g
}

func (o *Outputs) extract(e metrics.Extractor) {
	if o.store == nil {
		return
	}
	if err := e.ExtractFrom(o.store); err != nil {
		panic(err) // an Extractor with no function
	}
}

// A sink is the node behind an output.
type sink struct {
	id      exec.UnitID
	harness *Harness
	index   int
}

func (s *sink) ID() exec.UnitID                                             { return s.id }
func (s *sink) Up(context.Context) error                                    { return nil }
func (s *sink) StartBundle(context.Context, string, exec.DataContext) error { return nil }
func (s *sink) FinishBundle(context.Context) error                          { return nil }
func (s *sink) Down(context.Context) error                                  { return nil }

// ProcessElement copies the value, for the node before may use it again.
func (s *sink) ProcessElement(_ context.Context, v *exec.FullValue, _ ...exec.ReStream) error {
	e := Element{Value: v.Elm, Windows: v.Windows, Timestamp: v.Timestamp, Pane: v.Pane}
	if v.Elm2 != nil {
		e.Key, e.Value = v.Elm, v.Elm2
	}
	outs := s.harness.outputs.elements
	outs[s.index] = append(outs[s.index], e)
	return nil
}
