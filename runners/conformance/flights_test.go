// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The main example is a program of its own, so it is run as one. Whatever the
// runner, it writes the same lines, in whatever order, and prints the same table.
func TestTheExampleFlightsWritesTheSameOnEachEngine(t *testing.T) {
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../examples/flights", "../../examples/flights/check")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	var first *written
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			w := flights(t, bin, engine)
			if first == nil {
				first = &w
			}
			require.True(t, w.table == first.table, "another table:\n%s\nthan:\n%s", w.table, first.table)
			require.True(t, slices.Equal(w.lines, first.lines), "other lines than on %s", engines[0])
			require.Len(t, w.lines, 20_000)
			require.Empty(t, w.failures)
		})
	}
}

// written is what a run of flights has left.
type written struct {
	table           string
	lines, failures []string
}

// flights runs the example on an engine, and its checker on what that wrote.
func flights(t *testing.T, bin, engine string) written {
	dir := t.TempDir()
	output, failures := filepath.Join(dir, "output.jsonl"), filepath.Join(dir, "failures.jsonl")
	args := []string{"-runner=" + engine, "-output=" + output, "-failures=" + failures}
	if engine == "flink" {
		args = append(args, "-endpoint="+flink.endpoint, "-environment_type=LOOPBACK")
	}
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	printed, err := exec.CommandContext(ctx, filepath.Join(bin, "flights"), args...).Output()
	require.NoError(t, err)
	checked, err := exec.CommandContext(ctx, filepath.Join(bin, "check"), output, failures).CombinedOutput()
	require.NoError(t, err, "%s", checked)
	require.Contains(t, string(checked), "20000 passed, 0 failed")
	table, _, _ := strings.Cut(string(printed), "\n\n")
	require.Equal(t, 4, len(strings.Split(table, "\n")), "a head, and three months")
	return written{table, sortedLines(t, output), sortedLines(t, failures)}
}

func sortedLines(t *testing.T, path string) []string {
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return slices.Sorted(strings.Lines(string(text)))
}
