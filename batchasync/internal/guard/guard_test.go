// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package guard_test

import (
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/batchasync/beam-batchasync/batchasync/internal/guard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunReturnsWhatTheFunctionReturned(t *testing.T) {
	for name, want := range map[string]guard.Answer[int]{
		"a value":                     {Value: 7},
		"an error":                    {Err: io.EOF},
		"a value beside an error":     {Value: 7, Err: io.EOF},
		"the zero value and no error": {},
	} {
		t.Run(name, func(t *testing.T) {
			value, err := guard.Run("Call", func() (int, error) { return want.Value, want.Err })
			require.Equal(t, want.Value, value)
			require.Equal(t, want.Err, err, "the error itself, not wrapped")
		})
	}
}

// sinkingFunction is what a stack has to name.
func sinkingFunction(value any) { panic(value) }

func sinkingFunctionOfTheRuntime(row []string, column int) string { return row[column] }

func TestRunTurnsAPanicIntoAnError(t *testing.T) {
	for name, test := range map[string]struct {
		panics func()
		is     func(t *testing.T, err *guard.PanicError)
		says   string
	}{
		"with a string": {
			panics: func() { sinkingFunction("no such table") },
			is: func(t *testing.T, err *guard.PanicError) {
				require.Equal(t, "no such table", err.Value)
				require.NoError(t, errors.Unwrap(err))
			},
			says: "no such table",
		},
		"with an error, which can be found": {
			panics: func() { sinkingFunction(io.ErrClosedPipe) },
			is: func(t *testing.T, err *guard.PanicError) {
				require.ErrorIs(t, err, io.ErrClosedPipe)
			},
			says: io.ErrClosedPipe.Error(),
		},
		"with nil": {
			panics: func() { sinkingFunction(nil) },
			is: func(t *testing.T, err *guard.PanicError) {
				var nilError *runtime.PanicNilError
				require.ErrorAs(t, err, &nilError)
			},
			says: "panic called with nil",
		},
		"of the runtime": {
			panics: func() { sinkingFunctionOfTheRuntime(nil, 1) },
			is: func(t *testing.T, err *guard.PanicError) {
				var runtimeError runtime.Error
				require.ErrorAs(t, err, &runtimeError)
			},
			says: "index out of range [1] with length 0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := guard.Run("Setup", func() (int, error) {
				test.panics()
				return 0, nil
			})
			var panicError *guard.PanicError
			require.ErrorAs(t, err, &panicError)
			require.Equal(t, "Setup", panicError.In)
			require.Contains(t, string(panicError.Stack), "sinkingFunction")
			require.ErrorContains(t, err, "panic in Setup: ")
			require.ErrorContains(t, err, test.says)
			require.ErrorContains(t, err, "sinkingFunction", "the message has the stack")
			test.is(t, panicError)
		})
	}
}

func TestRunTurnsGoexitIntoAnError(t *testing.T) {
	for name, exits := range map[string]func(){
		"of the function": runtime.Goexit,
		"of what it calls, through its deferred recover": func() {
			defer func() { _ = recover() }()
			runtime.Goexit()
		},
	} {
		t.Run(name, func(t *testing.T) {
			value, err := guard.Run("Call", func() (int, error) {
				exits()
				return 7, nil
			})
			require.Zero(t, value)
			var exit *guard.GoexitError
			require.ErrorAs(t, err, &exit)
			require.Equal(t, "Call", exit.In)
			require.ErrorContains(t, err, "Call called runtime.Goexit")
		})
	}
}

func TestAPanicThatTheFunctionRecoversIsNoError(t *testing.T) {
	value, err := guard.Run("Call", func() (value int, err error) {
		defer func() {
			_ = recover()
			value = 7
		}()
		sinkingFunction("caught")
		return 0, io.EOF
	})
	require.NoError(t, err)
	require.Equal(t, 7, value)
}

// A bubble of synctest fails if a goroutine of it is left blocked for ever.
func TestTheGoroutineEndsThoughNobodyReads(t *testing.T) {
	for name, f := range map[string]func() (int, error){
		"after a value": func() (int, error) { return 1, nil },
		"after a panic": func() (int, error) { panic("late") },
		"after a Goexit": func() (int, error) {
			runtime.Goexit()
			return 0, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(*testing.T) {
				guard.Start("Call", f)
				synctest.Wait()
			})
		})
	}
}

func TestStartDoesNotWaitForTheFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		answers := guard.Start("Call", func() (int, error) {
			<-release
			return 7, nil
		})
		synctest.Wait()
		require.Empty(t, answers)
		close(release)
		require.Equal(t, guard.Answer[int]{Value: 7}, <-answers)
	})
}
