// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package joberror is for the programs of this repository that tell why a job of Beam's
// has failed.
package joberror

import "strings"

// Cause is what matters of an error of Beam's, which begins with the whole plan,
// and after a panic ends with the stack.
func Cause(err error) string {
	const mark = "caused by:\n"
	text := err.Error()
	if i := strings.LastIndex(text, mark); i >= 0 {
		text = text[i+len(mark):]
	}
	text, _, _ = strings.Cut(text, " goroutine ")
	return strings.Join(strings.Fields(text), " ")
}
