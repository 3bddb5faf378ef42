// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/batchasync/beam-batchasync/internal/literal"
	"github.com/google/uuid"
)

// config is what travels of a transform.
type config struct {
	// Caller is the caller as JSON, and not the caller itself: Beam makes a
	// schema of a DoFn's fields, and refuses many that JSON can take.
	Caller    string
	ID        string // made at construction: the limits of a process are found by it
	Transform string // full name, for errors
	Settings  settings
}

// UnmarshalJSON refuses what it does not know. The program that makes the pipeline and
// the one that works may be of two versions, and an option that the worker left out
// would be missed by nobody.
func (c *config) UnmarshalJSON(text []byte) error {
	type plain config
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode((*plain)(c)); err != nil {
		return fmt.Errorf("batchasync: the worker is of another version than the program that made the pipeline (build both from the same source): %w", err)
	}
	return nil
}

// newConfig panics if anything is wrong that can be known before the pipeline
// runs, as Beam's own transforms do at construction.
func newConfig[In, Out any, C Caller[In, Out]](transform string, fn any, caller C, register string, opts []Option) config {
	refuse := func(format string, args ...any) {
		panic(transform + ": " + fmt.Sprintf(format, args...))
	}
	t := reflect.TypeFor[C]()
	switch v := reflect.ValueOf(caller); {
	case !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil():
		refuse("the caller is nil; pass a %v that is made", t)
	case t.Kind() == reflect.Interface:
		refuse("the caller's type is the interface %v: pass it as its own type, for that is what is registered", t)
	}
	if _, ok := registered.Load(reflect.TypeOf(fn).Elem()); !ok {
		other := reflect.PointerTo(t)
		if t.Kind() == reflect.Pointer {
			other = t.Elem()
		}
		if _, ok := callers.Load(other); ok {
			refuse("the caller's type is %v, but registered is %v: pass that, or add to an init function: batchasync.%s%s)", t, other, register, literal.Of(t))
		}
		refuse("the caller %v is not registered for this transform; add to an init function: batchasync.%s%s)", t, register, literal.Of(t))
	}
	cell := new(C)
	*cell = caller
	m := methodsOf[In, Out](cell)
	if err := m.check(t); err != nil {
		refuse("%v", err)
	}
	if m.validate != nil {
		if err := m.validate(); err != nil {
			refuse("%T: %v", caller, err)
		}
	}
	encoded, err := json.Marshal(caller)
	if err == nil {
		err = json.Unmarshal(encoded, new(C))
	}
	if err != nil {
		refuse("the caller %v can't travel to the workers as JSON and back (open what can't in Setup, and keep it in an unexported field): %v", t, err)
	}
	settings := newSettings(opts)
	in := reflect.TypeFor[In]()
	if err := settings.validate(abilities{
		in:         in,
		sized:      m.elementSize != nil || hasSize(in),
		keyed:      m.key != nil || m.remember != nil,
		out:        reflect.TypeFor[Out](),
		weighed:    m.resultSize != nil || m.remember != nil || hasSize(reflect.TypeFor[Out]()),
		idempotent: m.idempotent != nil && m.idempotent(),
	}); err != nil {
		refuse("%v", err)
	}
	if memory, wanted := settings.memory(); wanted && m.remember != nil {
		if err := m.remember(memory); err != nil {
			refuse("%v", err)
		}
	}
	return config{Caller: string(encoded), ID: uuid.NewString(), Transform: transform, Settings: *settings}
}

// logBreaker says aloud why nothing moves, and when it does again.
func (c *config) logBreaker(open bool) {
	ctx, of := context.Background(), c.Settings.Breaker
	if open {
		log.Warnf(ctx, "batchasync: %s: the circuit breaker has opened, for %d of the last %d calls failed: batches wait until the service answers a probe, which is made each %v",
			c.Transform, of.Failures, of.Of, of.Delay)
		return
	}
	log.Infof(ctx, "batchasync: %s: the circuit breaker has closed: the service has answered a probe", c.Transform)
}
