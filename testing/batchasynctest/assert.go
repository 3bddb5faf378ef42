// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasynctest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// RequireExactlyOnce fails the test at once unless each input of a bundle has
// ended exactly once: as answer(value) among the results, or as a Failure of
// the value among the failures, with the input's own key, windows, timestamp
// and pane. It is not for callers with several outputs an element.
func RequireExactlyOnce(t testing.TB, inputs []Element, outputs *Outputs, answer func(value any) any) {
	t.Helper()
	results := count(outputs.Results(), func(v any) any { return v })
	failures := count(outputs.Failures(), func(v any) any { return reflect.ValueOf(v).FieldByName("Element").Interface() })
	var wrong []string
	for _, in := range inputs {
		result, failure := place(in, answer(in.Value)), place(in, in.Value)
		switch {
		// Failures first: which input failed is certain, while inputs may have
		// equal answers.
		case failures[failure] > 0:
			failures[failure]--
		case results[result] > 0:
			results[result]--
		default:
			wrong = append(wrong, "lost: "+failure)
		}
	}
	for _, extra := range []map[string]int{results, failures} {
		for key, n := range extra {
			if n > 0 {
				wrong = append(wrong, fmt.Sprintf("emitted %d times too often, or in the wrong place: %s", n, key))
			}
		}
	}
	if len(wrong) == 0 {
		return
	}
	slices.Sort(wrong)
	t.Fatalf("%d inputs, %d results, %d failures: %d elements did not end exactly once:\n%s", len(inputs),
		len(outputs.Results()), len(outputs.Failures()), len(wrong), strings.Join(wrong[:min(len(wrong), 10)], "\n"))
}

func count(elements []Element, value func(any) any) map[string]int {
	counts := map[string]int{}
	for _, e := range elements {
		counts[place(e, value(e.Value))]++
	}
	return counts
}

// place is an element with its place in event time, as text.
func place(e Element, value any) string {
	windows := make([]string, max(len(e.Windows), 1))
	windows[0] = "[*]" // how Beam writes the global window
	for i, w := range e.Windows {
		windows[i] = fmt.Sprint(w)
	}
	return fmt.Sprintf("key %#v, value %#v, windows %v, timestamp %v, pane %+v", e.Key, value, windows, e.Timestamp, e.Pane)
}
