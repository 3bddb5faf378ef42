// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

func Example() {
	main()
	// Output: row 7 of city
}

func TestLookupAnswersABatch(t *testing.T) {
	h := batchasynctest.NewHarness(t, batchasync.New(&Lookup{Table: "city"})).Clone(t)
	out, err := h.Bundle(batchasynctest.Values(7, 8)...)
	require.NoError(t, err)
	require.Len(t, out.Results(), 2)
}

func TestTheReadmeShowsThisProgram(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	_, code, found := strings.Cut(string(readme), "```go\n")
	require.True(t, found)
	code, _, _ = strings.Cut(code, "```")
	lines := 0
	for line := range strings.Lines(code) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		lines++
		require.Contains(t, string(source), line)
	}
	require.LessOrEqual(t, lines, 25)
}
