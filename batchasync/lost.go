// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"context"
	"encoding"
	"encoding/json"
	"reflect"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
)

// warnOfLost warns of what a pipeline's caller will lack on the workers. It is no
// error, for Setup may make it anew; and New does not warn, for a test's caller may
// well have something that does not travel.
func warnOfLost(s beam.Scope, caller any) {
	encoded, err := json.Marshal(caller)
	if err != nil || caller == nil {
		return // which newConfig refuses
	}
	t := reflect.TypeOf(caller)
	arrived := reflect.New(t)
	if json.Unmarshal(encoded, arrived.Interface()) != nil {
		return // likewise
	}
	for _, field := range lost(reflect.ValueOf(caller), arrived.Elem(), t.String()) {
		log.Warnf(context.Background(), "%v: %s is set, but does not travel to the workers as JSON: export it, or fill it in Setup", s, field)
	}
}

// lost returns the fields of a caller, by their path, that were set when it was sent
// and are empty where it arrived: nothing else would tell of them.
func lost(sent, arrived reflect.Value, path string) []string {
	if sent.Kind() == reflect.Pointer && !arrived.IsNil() {
		return lost(sent.Elem(), arrived.Elem(), path)
	}
	if sent.Kind() != reflect.Struct || travelsByItself(sent.Type()) {
		return nil
	}
	var fields []string
	for i := range sent.NumField() {
		name := path + "." + sent.Type().Field(i).Name
		switch from, to := sent.Field(i), arrived.Field(i); {
		case from.IsZero(), (from.Kind() == reflect.Slice || from.Kind() == reflect.Map) && from.Len() == 0:
		case to.IsZero():
			fields = append(fields, name)
		default:
			fields = append(fields, lost(from, to, name)...)
		}
	}
	return fields
}

// travelsByItself tells of a type, as time.Time, that says itself what it is as JSON:
// what of it arrives is its own business.
func travelsByItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[json.Marshaler]()) || p.Implements(reflect.TypeFor[encoding.TextMarshaler]())
}
