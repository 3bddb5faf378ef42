// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/util/reflectx"

	"github.com/batchasync/beam-batchasync/internal/literal"
)

// registered are the types of DoFn that Register and its siblings have made
// known to Beam, and callers the types of caller.
var registered, callers sync.Map

// Register makes a type of caller known to Beam, for ParDo, ParDoWithFailures
// and New. Call it in an init function, as you do Beam's register.DoFn1x1 and
// its like; only the type of caller matters:
//
//	func init() { batchasync.Register(&lookup{}) }
func Register[In, Out any, C Caller[In, Out]](caller C) {
	begin[C]("Register")
	registerPlain[In, Out](&BatchAsyncDoFn[In, Out, C]{})
	registerTypes[In, Out]()
}

// RegisterFlat is Register for FlatParDo and FlatParDoWithFailures.
func RegisterFlat[In, Out any, C Caller[In, []Out]](caller C) {
	begin[C]("RegisterFlat")
	registerPlain[In, Out](&flatFn[In, Out, C]{})
	registerTypes[In, Out]()
}

// RegisterKV is Register for ParDoKV and ParDoKVWithFailures, for keys of type
// K:
//
//	func init() { batchasync.RegisterKV[string](&lookup{}) }
func RegisterKV[K, In, Out any, C Caller[In, Out]](caller C) {
	begin[C]("RegisterKV")
	registerKeyed[K, In, Out](&kvFn[K, In, Out, C]{})
	registerTypes[In, Out]()
}

// RegisterFlatKV is RegisterKV for FlatParDoKV and FlatParDoKVWithFailures.
func RegisterFlatKV[K, In, Out any, C Caller[In, []Out]](caller C) {
	begin[C]("RegisterFlatKV")
	registerKeyed[K, In, Out](&flatKVFn[K, In, Out, C]{})
	registerTypes[In, Out]()
}

// RegisterFunc is Register for a plain function; see Func.
func RegisterFunc[In, Out any](f func(context.Context, []In) ([]Out, error)) {
	registerFunc(f)
	Register(FuncCaller[In, Out]{})
}

// begin panics if it is too late to register a type, in words that Beam's own panic
// does not have.
func begin[C any](verb string) {
	if runtime.Initialized() {
		panic(fmt.Sprintf("batchasync.%s(%s) came after beam.Init: call it in an init function", verb, literal.Of(reflect.TypeFor[C]())))
	}
	callers.Store(reflect.TypeFor[C](), true)
}

func registerTypes[In, Out any]() {
	registerType[In]()
	registerType[Out]()
	registerType[Failure[In]]()
	beam.RegisterCoder(reflect.TypeFor[Failure[In]](), encodeFailure, decodeFailure)
}

func registerType[T any]() {
	t := reflect.TypeFor[T]()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Name() != "" && t.PkgPath() != "" {
		beam.RegisterType(t)
	}
}

func init() {
	beam.RegisterFunction(encodeFailure)
	beam.RegisterFunction(decodeFailure)
}

// Beam's register.DoFn3x1 and its like would make the DoFns known too, but each of
// them instantiates ten thousand functions, for all the methods that a DoFn may
// have: ten seconds of compilation for each type of caller. Here are the five that
// ours have.

// aFn is what the four types of DoFn have in common; StartBundle and FinishBundle
// get the outputs R and F.
type aFn[R, F any] interface {
	Setup(context.Context) error
	StartBundle(context.Context, R, F) error
	FinishBundle(context.Context, R, F) error
	Teardown(context.Context) error
}

type plainFn[In, R, F any] interface {
	aFn[R, F]
	ProcessElement(In, R, F) error
}

type keyedFn[K, In, R, F any] interface {
	aFn[R, F]
	ProcessElement(K, In, R, F) error
}

func registerPlain[In, Out any](fn plainFn[In, Emit[Out], Emit[Failure[In]]]) {
	registerEmit[Out]()
	registerEmit[Failure[In]]()
	registerFn(fn, func(fn any) (aFn[Emit[Out], Emit[Failure[In]]], reflectx.Func) {
		f := fn.(plainFn[In, Emit[Out], Emit[Failure[In]]])
		return f, &method3[In, Emit[Out], Emit[Failure[In]]]{f.ProcessElement}
	})
}

func registerKeyed[K, In, Out any](fn keyedFn[K, In, EmitKV[K, Out], EmitKV[K, Failure[In]]]) {
	registerType[K]()
	registerEmitKV[K, Out]()
	registerEmitKV[K, Failure[In]]()
	registerFn(fn, func(fn any) (aFn[EmitKV[K, Out], EmitKV[K, Failure[In]]], reflectx.Func) {
		f := fn.(keyedFn[K, In, EmitKV[K, Out], EmitKV[K, Failure[In]]])
		return f, &method4[K, In, EmitKV[K, Out], EmitKV[K, Failure[In]]]{f.ProcessElement}
	})
}

// registerFn makes a type of DoFn known to Beam. process returns an instance of it,
// and its ProcessElement.
func registerFn[R, F any](fn any, process func(fn any) (aFn[R, F], reflectx.Func)) {
	t := reflect.TypeOf(fn).Elem()
	if _, twice := registered.LoadOrStore(t, true); twice {
		return
	}
	beam.RegisterType(t)
	reflectx.RegisterStructWrapper(t, func(fn any) map[string]reflectx.Func {
		f, processElement := process(fn)
		return map[string]reflectx.Func{
			"Setup":          &method1{f.Setup},
			"StartBundle":    &method3[context.Context, R, F]{f.StartBundle},
			"ProcessElement": processElement,
			"FinishBundle":   &method3[context.Context, R, F]{f.FinishBundle},
			"Teardown":       &method1{f.Teardown},
		}
	})
}

// A method1 is a method as Beam calls it without reflection: a reflectx.Func1x1.
type method1 struct{ fn func(context.Context) error }

func (m *method1) Name() string              { return reflectx.FunctionName(m.fn) }
func (m *method1) Type() reflect.Type        { return reflect.TypeOf(m.fn) }
func (m *method1) Call(args []any) []any     { return []any{m.Call1x1(args[0])} }
func (m *method1) Call1x1(ctx any) (err any) { return m.fn(ctx.(context.Context)) }

// A method3 is a reflectx.Func3x1.
type method3[A, B, C any] struct{ fn func(A, B, C) error }

func (m *method3[A, B, C]) Name() string          { return reflectx.FunctionName(m.fn) }
func (m *method3[A, B, C]) Type() reflect.Type    { return reflect.TypeOf(m.fn) }
func (m *method3[A, B, C]) Call(args []any) []any { return []any{m.Call3x1(args[0], args[1], args[2])} }
func (m *method3[A, B, C]) Call3x1(a, b, c any) (err any) {
	return m.fn(a.(A), b.(B), c.(C))
}

// A method4 is a reflectx.Func4x1.
type method4[A, B, C, D any] struct{ fn func(A, B, C, D) error }

func (m *method4[A, B, C, D]) Name() string       { return reflectx.FunctionName(m.fn) }
func (m *method4[A, B, C, D]) Type() reflect.Type { return reflect.TypeOf(m.fn) }
func (m *method4[A, B, C, D]) Call(args []any) []any {
	return []any{m.Call4x1(args[0], args[1], args[2], args[3])}
}
func (m *method4[A, B, C, D]) Call4x1(a, b, c, d any) (err any) {
	return m.fn(a.(A), b.(B), c.(C), d.(D))
}
