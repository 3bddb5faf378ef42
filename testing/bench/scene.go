// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"testing"
)

// A scene is the testing.TB that this repository's servers and harness want, in a
// program that is no test. It has what they use.
type scene struct {
	testing.TB
	cleanups []func()
	errs     []error
}

// play calls f with a scene, ends what f has started, and returns what went wrong.
func play(f func(testing.TB)) error {
	s := &scene{}
	func() {
		defer s.end()
		f(s)
	}()
	return errors.Join(s.errs...)
}

// A cut is what Fatal and Skip end a scene with.
type cut struct{}

func (s *scene) end() {
	if v := recover(); v != nil {
		if _, ok := v.(cut); !ok {
			s.errs = append(s.errs, fmt.Errorf("panic: %v", v))
		}
	}
	for i := len(s.cleanups) - 1; i >= 0; i-- {
		s.cleanups[i]()
	}
}

func (s *scene) Helper()          {}
func (s *scene) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *scene) Error(args ...any) { s.errs = append(s.errs, errors.New(fmt.Sprint(args...))) }

func (s *scene) Errorf(format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf(format, args...))
}

func (s *scene) Fatal(args ...any) {
	s.Error(args...)
	panic(cut{})
}

func (s *scene) Fatalf(format string, args ...any) {
	s.Errorf(format, args...)
	panic(cut{})
}

func (s *scene) Skip(args ...any) { s.Fatal(args...) }
