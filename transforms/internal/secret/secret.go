// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package secret reads secrets on the worker, from where they are named: a caller's
// fields travel in the pipeline's description, which runners store and show, so that
// a secret itself must not be one. No error of this package holds a secret.
package secret

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"sync"
)

// ErrEmpty says that there is nothing where the secret should be.
var ErrEmpty = errors.New("it is empty on this worker, or not set")

// variable is what a shell takes as a variable's name: most secrets are none.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// CheckEnv returns an error if what a field has, if it has something, can't be a
// variable's name: then it may be the secret itself, so the error doesn't show it.
func CheckEnv(field, name string) error {
	if name == "" || variable.MatchString(name) {
		return nil
	}
	return fmt.Errorf("the value of %s is not the name of an environment variable (it is not shown here, for it may be the secret itself): give the variable's name, and set the variable on the workers", field)
}

// notName is what a file's or a function's name seldom has, and a data source name or a
// key has.
var notName = regexp.MustCompile(`://|@[a-z]*\(|(?i:password|passwd|token)\s*=|[\r\n]`)

// CheckName is CheckEnv for the name of a file or of a function.
func CheckName(field, name string) error {
	if !notName.MatchString(name) {
		return nil
	}
	return fmt.Errorf("the value of %s is not a name (it is not shown here, for it may be the secret itself)", field)
}

// Env returns what an environment variable holds, without the white space around it.
func Env(variable string) (string, error) { return filled(os.Getenv(variable)) }

// File returns what a file holds, without the white space around it.
func File(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return filled(string(text))
}

func filled(value string) (string, error) {
	if value = strings.TrimSpace(value); value == "" {
		return "", ErrEmpty
	}
	return value, nil
}

// Funcs are functions that get a secret, by their names, which travel in their place.
type Funcs[F any] struct {
	Verb string // by which a user registers one, for errors

	byName sync.Map
}

// Register is called in an init function. It panics if the name is taken by another
// function.
func (s *Funcs[F]) Register(name string, f F) {
	v := reflect.ValueOf(f)
	if name == "" || v.IsNil() {
		panic(fmt.Sprintf("%s(%q, …): give a name and a function", s.Verb, name))
	}
	if other, taken := s.byName.LoadOrStore(name, f); taken && reflect.ValueOf(other).Pointer() != v.Pointer() {
		panic(fmt.Sprintf("%s(%q, …): the name is taken by another function", s.Verb, name))
	}
}

// Get returns the function of that name, or an error that tells the line to add.
func (s *Funcs[F]) Get(name string) (F, error) {
	f, ok := s.byName.Load(name)
	if !ok {
		var none F
		return none, fmt.Errorf("the function %q is not registered; add to an init function: %s(%q, …)", name, s.Verb, name)
	}
	return f.(F), nil
}
