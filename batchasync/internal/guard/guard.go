// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package guard runs the user's code in a goroutine of its own, so that
// neither a panic nor a runtime.Goexit in it (which is what t.FailNow does)
// can end the goroutine of a bundle or of a batch: a bundle whose goroutine is
// gone never answers its runner, and the pipeline hangs.
package guard

import (
	"fmt"
	"runtime/debug"
)

// A PanicError is a panic in the user's code.
type PanicError struct {
	In    string // the method that panicked
	Value any    // what it panicked with
	Stack []byte // where
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("panic in %s: %v\n%s", e.In, e.Value, e.Stack)
}

// Panicked is for a deferred function that has recovered value.
func Panicked(in string, value any) *PanicError {
	return &PanicError{In: in, Value: value, Stack: debug.Stack()}
}

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// A GoexitError says that the user's code ended its goroutine.
type GoexitError struct{ In string }

func (e *GoexitError) Error() string {
	return fmt.Sprintf("%s called runtime.Goexit (as testing.T.FailNow does); return an error in its place", e.In)
}

// Start runs f in a goroutine of its own. The channel has room for the answer,
// so the goroutine ends even if nobody waits for it any more.
func Start[T any](in string, f func() (T, error)) <-chan Answer[T] {
	answers := make(chan Answer[T], 1)
	go func() {
		var a Answer[T]
		returned := false
		defer func() {
			if !returned {
				if v := recover(); v != nil {
					a.Err = Panicked(in, v)
				} else {
					a.Err = &GoexitError{In: in}
				}
			}
			answers <- a
		}()
		a.Value, a.Err = f()
		returned = true
	}()
	return answers
}

// An Answer is what a guarded function returned, or how it ended.
type Answer[T any] struct {
	Value T
	Err   error
}

// Run is Start, waited for.
func Run[T any](in string, f func() (T, error)) (T, error) {
	a := <-Start(in, f)
	return a.Value, a.Err
}
