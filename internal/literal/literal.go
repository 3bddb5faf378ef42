// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package literal writes values as a program would.
package literal

import (
	"reflect"
	"regexp"
)

// own is how the types of package main are not written there.
var own = regexp.MustCompile(`\bmain\.`)

// Of is how an init function would write a value of a type.
func Of(t reflect.Type) string {
	pointer := ""
	if t.Kind() == reflect.Pointer {
		pointer, t = "&", t.Elem()
	}
	return pointer + own.ReplaceAllString(t.String(), "") + "{}"
}
