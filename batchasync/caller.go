// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"context"
	"fmt"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/batchasync/beam-batchasync/batchasync/internal/guard"
)

// A Caller answers a batch of inputs with one bulk call: a query, a request, a
// run of a model. It is a struct, and its exported fields are its
// configuration: they travel to the workers as JSON. What it opens there (a
// client, a connection pool) it keeps in unexported fields, filled by Setup.
//
// Call returns one result for each element of batch, at the same index. The
// slice is the caller's own, to sort, change or keep. Call runs in a goroutine
// of its own, and several run at once. Its ctx ends after Timeout, and with the
// bundle; a Call that runs on all the same is not waited for, and its answer is
// dropped: to keep a part of the answers, return before ctx's deadline. InfoFrom
// tells the attempt and the batch's id. Beam metrics that Call's own goroutine
// counts with ctx, before it returns, reach the pipeline's result.
//
// Give each transform a caller of its own. Where a DoFn does not travel, as on
// the direct runner, a pointer that two share would be set up twice.
//
// An error fails the whole batch, and it is tried again, unless the error is
// Permanent; with a *BatchError only some of its elements fail.
//
// These optional methods are recognized too: Setup, Teardown, ElementSize, Key,
// Retryable, Idempotent, Cacheable, ResultSize, Remember, Recall, Validate and
// HoldUntil; see SetupCaller and the interfaces beside it. The word is from Beam
// Java's RequestResponseIO.
type Caller[In, Out any] interface {
	Call(ctx context.Context, batch []In) ([]Out, error)
}

// A SetupCaller prepares itself on the worker: Setup runs once for each worker
// process and transform, before the first call, and again if the caller has
// been torn down in between. If it fails it is called again, as Call is: up to
// MaxAttempts and within MaxElapsed, after a backoff or what RetryAfter says, unless
// the error is Permanent or Retryable refuses it. Then the bundle fails, and the next
// one begins anew. ctx does not end with the bundle, so clients may keep it.
type SetupCaller interface {
	Setup(ctx context.Context) error
}

// A TeardownCaller cleans up after itself: Teardown runs when the last DoFn of
// the transform in the process is torn down, or when the caller has not been
// used for 10 minutes, since portable workers never tear down a DoFn. It never
// runs while a call is under way.
type TeardownCaller interface {
	Teardown(ctx context.Context) error
}

// An ElementSizer tells the bytes that an element adds to a call, for
// BatchBytes. Without it, the length of a string or []byte counts.
type ElementSizer[In any] interface {
	ElementSize(element In) int
}

// A KeyedCaller tells the key of an element, for Dedup and Cache: elements with
// equal keys have equal answers.
type KeyedCaller[In any] interface {
	Key(element In) string
}

// A RetryClassifier says which errors of Call, or of a single element of a
// *BatchError, are worth another attempt. It is not asked for errors marked
// with Permanent (never) or RetryAfter (always), nor for a timeout (always) or
// a panic (never). Without it, every other error is retried.
type RetryClassifier interface {
	Retryable(err error) bool
}

// An IdempotentCaller says whether a call that is made twice, even at the same
// time, does no more than one: Hedge needs that.
type IdempotentCaller interface {
	Idempotent() bool
}

// A CachingCaller says which answers Cache may keep. It is asked for each result,
// with a nil err, and for each element whose error is permanent, with that error and
// no result; what failed since its attempts were over is never kept. Without it,
// results are kept and failures are not.
type CachingCaller[Out any] interface {
	Cacheable(result Out, err error) bool
}

// A ResultSizer tells the bytes of a result, for CacheBytes. Without it, the
// length of a string or []byte counts.
type ResultSizer[Out any] interface {
	ResultSize(result Out) int
}

// A ValidatingCaller says what is wrong with its exported fields, before the
// pipeline runs: the transform's construction panics with that error. It is not
// asked on the worker.
type ValidatingCaller interface {
	Validate() error
}

// A HoldingCaller says until when the service wants to be left alone, as it may
// in the answer to a call: no attempt of any batch begins in this process before
// that time. The wait costs neither an attempt nor Timeout, and counts as
// throttling; MaxElapsed runs on for batches that have been tried before. It is
// asked before each attempt, by several goroutines at once. A time that has
// passed, as the zero Time has, holds nothing back.
type HoldingCaller interface {
	HoldUntil() time.Time
}

// A RememberingCaller keeps answers itself, since an answer of its has no one
// Key: an element that is joined with two rows has two. Dedup, Cache and
// CacheBytes are its own to carry out; it needs no Key and no ResultSize.
type RememberingCaller[In, Out any] interface {
	// Remember says what those options ask for, if they ask for anything: when
	// the pipeline is constructed, where an error is refused with a panic, and
	// once in a worker process, before Setup.
	Remember(memory Memory) error
	// Recall returns the result of an element that needs no call. It is asked
	// with Cache only, for each element before it is put into a batch. An
	// error fails the element for good. ctx is the bundle's, for metrics.
	Recall(ctx context.Context, element In) (result Out, known bool, err error)
}

// Memory is what Dedup, Cache and CacheBytes ask for.
type Memory struct {
	Entries int           // 0: nothing is kept; keys in flight are asked for once
	TTL     time.Duration // of an entry
	Bytes   int           // of all entries; 0: no bound
}

// optional returns the caller as a T, if it is one. C itself may lack what *C has: a
// struct that is passed by value and has a Setup on its pointer.
func optional[T, C any](cell *C) (T, bool) {
	if m, ok := any(cell).(T); ok {
		return m, true
	}
	m, ok := any(*cell).(T)
	return m, ok
}

// methods are a caller's, as functions; nil where it has none.
type methods[In, Out any] struct {
	call            func(context.Context, []In) ([]Out, error)
	setup, teardown func(context.Context) error
	elementSize     func(In) int
	key             func(In) string
	retryable       func(error) bool
	idempotent      func() bool
	cacheable       func(Out, error) bool
	resultSize      func(Out) int
	validate        func() error
	holdUntil       func() time.Time
	remember        func(Memory) error
	recall          func(context.Context, In) (Out, bool, error)

	answers *answers[Out] // of the process; nil: each element is asked for
}

func methodsOf[In, Out any, C Caller[In, Out]](cell *C) *methods[In, Out] {
	m := &methods[In, Out]{
		// By way of the cell: Setup may have changed what it holds.
		call: func(ctx context.Context, batch []In) ([]Out, error) { return (*cell).Call(ctx, batch) },
	}
	if c, ok := optional[SetupCaller](cell); ok {
		m.setup = c.Setup
	}
	if c, ok := optional[TeardownCaller](cell); ok {
		m.teardown = c.Teardown
	}
	if c, ok := optional[ElementSizer[In]](cell); ok {
		m.elementSize = c.ElementSize
	}
	if c, ok := optional[KeyedCaller[In]](cell); ok {
		m.key = c.Key
	}
	if c, ok := optional[RetryClassifier](cell); ok {
		m.retryable = c.Retryable
	}
	if c, ok := optional[IdempotentCaller](cell); ok {
		m.idempotent = c.Idempotent
	}
	if c, ok := optional[CachingCaller[Out]](cell); ok {
		m.cacheable = c.Cacheable
	}
	if c, ok := optional[ResultSizer[Out]](cell); ok {
		m.resultSize = c.ResultSize
	}
	if c, ok := optional[ValidatingCaller](cell); ok {
		m.validate = c.Validate
	}
	if c, ok := optional[HoldingCaller](cell); ok {
		m.holdUntil = c.HoldUntil
	}
	if c, ok := optional[RememberingCaller[In, Out]](cell); ok {
		m.remember, m.recall = c.Remember, c.Recall
	}
	return m
}

// check returns an error for a method of C that has the name of an optional
// one, but another signature: it would silently be ignored.
func (m *methods[In, Out]) check(caller reflect.Type) error {
	for _, method := range []struct {
		name, want string
		found      bool
	}{
		{"Setup", "Setup(context.Context) error", m.setup != nil},
		{"Teardown", "Teardown(context.Context) error", m.teardown != nil},
		{"ElementSize", fmt.Sprintf("ElementSize(%v) int", reflect.TypeFor[In]()), m.elementSize != nil},
		{"Key", fmt.Sprintf("Key(%v) string", reflect.TypeFor[In]()), m.key != nil},
		{"Retryable", "Retryable(error) bool", m.retryable != nil},
		{"Idempotent", "Idempotent() bool", m.idempotent != nil},
		{"Cacheable", fmt.Sprintf("Cacheable(%v, error) bool", reflect.TypeFor[Out]()), m.cacheable != nil},
		{"ResultSize", fmt.Sprintf("ResultSize(%v) int", reflect.TypeFor[Out]()), m.resultSize != nil},
		{"Validate", "Validate() error", m.validate != nil},
		{"HoldUntil", "HoldUntil() time.Time", m.holdUntil != nil},
		{"Remember", fmt.Sprintf("Remember(batchasync.Memory) error, beside a Recall(context.Context, %v) (%v, bool, error)", reflect.TypeFor[In](), reflect.TypeFor[Out]()), m.remember != nil},
	} {
		_, onValue := caller.MethodByName(method.name)
		_, onPointer := reflect.PointerTo(caller).MethodByName(method.name)
		if (onValue || onPointer) && !method.found {
			return fmt.Errorf("%v has a method %s with another signature, which would be ignored: make it %s, or give it another name", caller, method.name, method.want)
		}
	}
	return nil
}

// sizeOf guards a caller's ElementSize, or measures a string or []byte.
func sizeOf[In any](elementSize func(In) int) func(In) (int, error) {
	if elementSize == nil {
		return func(in In) (int, error) {
			switch in := any(in).(type) {
			case string:
				return len(in), nil
			case []byte:
				return len(in), nil
			}
			return reflect.ValueOf(in).Len(), nil
		}
	}
	return func(in In) (int, error) {
		n, err := guard.Run("ElementSize", func() (int, error) { return elementSize(in), nil })
		if err == nil && n < 0 {
			err = fmt.Errorf("ElementSize returned %d: it must not be negative", n)
		}
		return n, err
	}
}

// hasSize reports whether the size of a type is known without ElementSize.
func hasSize(t reflect.Type) bool {
	return t.Kind() == reflect.String || t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

// loggedTeardown is teardown, with a log line for an error that comes when no
// DoFn is there to return it.
func (m *methods[In, Out]) loggedTeardown(transform string) func(context.Context) error {
	if m.teardown == nil {
		return nil
	}
	return func(ctx context.Context) error {
		err := m.teardown(ctx)
		if err != nil {
			log.Warnf(ctx, "batchasync: %s: tear down the caller: %v", transform, err)
		}
		return err
	}
}

// A FuncCaller is a plain function as a Caller; see Func. The function's name
// travels, so it must be registered on the worker as well, by RegisterFunc.
type FuncCaller[In, Out any] struct {
	Name string
}

// Func makes a plain function a Caller. It must have been registered with
// RegisterFunc, in an init function.
func Func[In, Out any](f func(context.Context, []In) ([]Out, error)) FuncCaller[In, Out] {
	name := funcName(f)
	if closure.MatchString(name) {
		panic(fmt.Sprintf("batchasync.Func: %s is a function literal, which can't travel: declare it by a name in its package, and register that", name))
	}
	if got, ok := funcs.Load(name); !ok || reflect.ValueOf(got).Pointer() != reflect.ValueOf(f).Pointer() {
		panic(fmt.Sprintf("batchasync.Func: %s is not registered; add to an init function: batchasync.RegisterFunc(%s)", name, shortName(name)))
	}
	return FuncCaller[In, Out]{Name: name}
}

// Call calls the function.
func (c FuncCaller[In, Out]) Call(ctx context.Context, batch []In) ([]Out, error) {
	f, ok := funcs.Load(c.Name)
	if !ok {
		return nil, Permanent(fmt.Errorf("function %s is not registered in this worker; add to an init function: batchasync.RegisterFunc(%s)", c.Name, shortName(c.Name)))
	}
	return f.(func(context.Context, []In) ([]Out, error))(ctx, batch)
}

// funcs are the registered functions by name.
var funcs sync.Map

// closure is how Go names function literals.
var closure = regexp.MustCompile(`\.func\d+(\.\d+)*$`)

func funcName(f any) string {
	v := reflect.ValueOf(f)
	if v.IsNil() {
		panic("batchasync: the function is nil; pass a function declared at package level")
	}
	return runtime.FuncForPC(v.Pointer()).Name()
}

func registerFunc(f any) {
	name := funcName(f)
	if other, loaded := funcs.LoadOrStore(name, f); loaded &&
		(reflect.TypeOf(other) != reflect.TypeOf(f) || reflect.ValueOf(other).Pointer() != reflect.ValueOf(f).Pointer()) {
		panic(fmt.Sprintf("batchasync.RegisterFunc: two functions are named %s (instances of a generic function share a name); wrap each in a function of its own", name))
	}
}

func shortName(function string) string {
	function, _, _ = strings.Cut(function, "[")
	return function[strings.LastIndexByte(function, '.')+1:]
}
