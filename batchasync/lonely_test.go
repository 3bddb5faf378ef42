// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"strings"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// logged is a logger that keeps what is logged.
type logged struct{ lines []string }

func (l *logged) Log(_ context.Context, _ log.Severity, _ int, msg string) {
	l.lines = append(l.lines, msg)
}

func TestBundlesOfOneElementAreWarnedOfOnce(t *testing.T) {
	for _, test := range []struct {
		name    string
		options []batchasync.Option
		bundles []int // so many of one element each, between bundles of two
		want    int
	}{
		{"a hundred in a row, and more", nil, []int{250}, 1},
		{"again and again", nil, []int{100, 100, 100}, 1},
		{"fewer in a row", nil, []int{99, 99, 99}, 0},
		{"batches across bundles", []batchasync.Option{batchasync.AcrossBundles(), batchasync.Linger(0)}, []int{250}, 0},
		{"batches of one are what was asked for", []batchasync.Option{batchasync.BatchSize(1)}, []int{250}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var l logged
			log.SetLogger(&l)
			t.Cleanup(func() { log.SetLogger(&log.Standard{}) })
			h := batchasynctest.NewHarness(t, batchasync.New(&script{}, test.options...))
			for _, n := range test.bundles {
				for range n {
					_, err := h.Bundle(batchasynctest.Values(1)...)
					require.NoError(t, err)
				}
				_, err := h.Bundle(batchasynctest.Values(1, 2)...)
				require.NoError(t, err)
			}
			require.Len(t, l.lines, test.want)
			for _, line := range l.lines {
				require.True(t, strings.HasSuffix(line, "the last 100 bundles had one element each, so each call has one: put a beam.Reshuffle before the transform, so that the runner makes larger bundles; or, if the worker has several bundles open at once, use AcrossBundles"), line)
			}
		})
	}
}
