// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/typex"
)

// ParDo asks caller for the elements of col, in batches, and returns the
// results, each in the windows and at the timestamp of its element. An element
// that fails for good fails its bundle with a *CallError, and with it, on most
// runners after some retries of the bundle, the pipeline.
func ParDo[In, Out any, C Caller[In, Out]](s beam.Scope, caller C, col beam.PCollection, opts ...Option) beam.PCollection {
	s = s.Scope("batchasync.ParDo")
	takes[In](s, caller, col)
	results, _ := beam.ParDo2(s, newPlain[In, Out](s.String(), caller, failing(opts)), col)
	return results
}

// ParDoWithFailures is ParDo, but an element that fails for good fails nothing:
// it is emitted into failures, a PCollection<Failure[In]>.
func ParDoWithFailures[In, Out any, C Caller[In, Out]](s beam.Scope, caller C, col beam.PCollection, opts ...Option) (results, failures beam.PCollection) {
	s = s.Scope("batchasync.ParDoWithFailures")
	takes[In](s, caller, col)
	return beam.ParDo2(s, newPlain[In, Out](s.String(), caller, keeping(s, opts)), col)
}

// FlatParDo is ParDo for a caller that answers an element with any number of
// outputs, none included.
func FlatParDo[In, Out any, C Caller[In, []Out]](s beam.Scope, caller C, col beam.PCollection, opts ...Option) beam.PCollection {
	s = s.Scope("batchasync.FlatParDo")
	takes[In](s, caller, col)
	results, _ := beam.ParDo2(s, newFlat[In, Out](s.String(), caller, failing(opts)), col)
	return results
}

// FlatParDoWithFailures is FlatParDo with the failures output of
// ParDoWithFailures.
func FlatParDoWithFailures[In, Out any, C Caller[In, []Out]](s beam.Scope, caller C, col beam.PCollection, opts ...Option) (results, failures beam.PCollection) {
	s = s.Scope("batchasync.FlatParDoWithFailures")
	takes[In](s, caller, col)
	return beam.ParDo2(s, newFlat[In, Out](s.String(), caller, keeping(s, opts)), col)
}

// ParDoKV is ParDo for the values of a PCollection<KV<K, In>>; the result is a
// PCollection<KV<K, Out>>, in which each key has its value's result.
func ParDoKV[K, In, Out any, C Caller[In, Out]](s beam.Scope, caller C, col beam.PCollection, opts ...Option) beam.PCollection {
	s = s.Scope("batchasync.ParDoKV")
	takesKV[K, In](s, caller, col)
	results, _ := beam.ParDo2(s, newKV[K, In, Out](s.String(), caller, failing(opts)), col)
	return results
}

// ParDoKVWithFailures is ParDoKV with a failures output, which keeps the keys
// too: a PCollection<KV<K, Failure[In]>>.
func ParDoKVWithFailures[K, In, Out any, C Caller[In, Out]](s beam.Scope, caller C, col beam.PCollection, opts ...Option) (results, failures beam.PCollection) {
	s = s.Scope("batchasync.ParDoKVWithFailures")
	takesKV[K, In](s, caller, col)
	return beam.ParDo2(s, newKV[K, In, Out](s.String(), caller, keeping(s, opts)), col)
}

// FlatParDoKV is ParDoKV for a caller that answers a value with any number of
// outputs, none included; each has the key.
func FlatParDoKV[K, In, Out any, C Caller[In, []Out]](s beam.Scope, caller C, col beam.PCollection, opts ...Option) beam.PCollection {
	s = s.Scope("batchasync.FlatParDoKV")
	takesKV[K, In](s, caller, col)
	results, _ := beam.ParDo2(s, newFlatKV[K, In, Out](s.String(), caller, failing(opts)), col)
	return results
}

// FlatParDoKVWithFailures is FlatParDoKV with the failures output of
// ParDoKVWithFailures.
func FlatParDoKVWithFailures[K, In, Out any, C Caller[In, []Out]](s beam.Scope, caller C, col beam.PCollection, opts ...Option) (results, failures beam.PCollection) {
	s = s.Scope("batchasync.FlatParDoKVWithFailures")
	takesKV[K, In](s, caller, col)
	return beam.ParDo2(s, newFlatKV[K, In, Out](s.String(), caller, keeping(s, opts)), col)
}

// New returns the DoFn by itself, for beam.ParDo2: its outputs are the results
// and the failures. With FailBundle it fails its bundle in place of emitting a
// failure.
func New[In, Out any, C Caller[In, Out]](caller C, opts ...Option) *BatchAsyncDoFn[In, Out, C] {
	return newPlain[In, Out](fmt.Sprintf("batchasync.New(%T)", caller), caller, opts)
}

func newPlain[In, Out any, C Caller[In, Out]](transform string, caller C, opts []Option) *BatchAsyncDoFn[In, Out, C] {
	fn := &BatchAsyncDoFn[In, Out, C]{caller: &caller}
	fn.Config = newConfig[In, Out](transform, fn, caller, "Register(", opts)
	return fn
}

func newFlat[In, Out any, C Caller[In, []Out]](transform string, caller C, opts []Option) *flatFn[In, Out, C] {
	fn := &flatFn[In, Out, C]{caller: &caller}
	fn.Config = newConfig[In, []Out](transform, fn, caller, "RegisterFlat(", opts)
	return fn
}

func newKV[K, In, Out any, C Caller[In, Out]](transform string, caller C, opts []Option) *kvFn[K, In, Out, C] {
	fn := &kvFn[K, In, Out, C]{caller: &caller}
	register := fmt.Sprintf("RegisterKV[%v](", reflect.TypeFor[K]())
	fn.Config = newConfig[In, Out](transform, fn, caller, register, opts)
	return fn
}

func newFlatKV[K, In, Out any, C Caller[In, []Out]](transform string, caller C, opts []Option) *flatKVFn[K, In, Out, C] {
	fn := &flatKVFn[K, In, Out, C]{caller: &caller}
	register := fmt.Sprintf("RegisterFlatKV[%v](", reflect.TypeFor[K]())
	fn.Config = newConfig[In, []Out](transform, fn, caller, register, opts)
	return fn
}

func failing(opts []Option) []Option {
	return append(slices.Clone(opts), FailBundle())
}

func keeping(s beam.Scope, opts []Option) []Option {
	if newSettings(opts).FailBundle {
		panic(s.String() + ": FailBundle() and a failures output exclude each other: use ParDo, or leave the option out")
	}
	return opts
}

// takes panics, in words that Beam's own check does not have, if col does not
// hold what the caller takes.
func takes[In any](s beam.Scope, caller any, col beam.PCollection) {
	warnOfLost(s, caller)
	want := reflect.TypeFor[In]()
	if !col.IsValid() {
		panic(s.String() + ": the PCollection is invalid")
	}
	if t := col.Type(); typex.IsKV(t) {
		panic(fmt.Sprintf("%v: the PCollection holds %v, but the caller %T takes %v: use ParDoKV, which keeps the key", s, t, caller, want))
	} else if t.Type() != want {
		panic(fmt.Sprintf("%v: the PCollection holds %v, but the caller %T takes %v", s, t, caller, want))
	}
}

func takesKV[K, In any](s beam.Scope, caller any, col beam.PCollection) {
	warnOfLost(s, caller)
	if !col.IsValid() {
		panic(s.String() + ": the PCollection is invalid")
	}
	t := col.Type()
	if !typex.IsKV(t) || t.Components()[0].Type() != reflect.TypeFor[K]() || t.Components()[1].Type() != reflect.TypeFor[In]() {
		panic(fmt.Sprintf("%v: the PCollection holds %v, but the caller %T and its key take KV<%v,%v>", s, t, caller, reflect.TypeFor[K](), reflect.TypeFor[In]()))
	}
}
