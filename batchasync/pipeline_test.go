// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/direct"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/ptest"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// The real engines on which the pipeline tests run.
var engines = []string{"direct", "prism"}

func TestMain(m *testing.M) {
	beam.Init()
	os.Exit(m.Run())
}

func init() {
	batchasync.Register(&quote{})
	batchasync.RegisterFlat(&letters{})
	batchasync.RegisterKV[string](&quote{})
	register.DoFn2x0[int, func(beam.EventTime, int)](&stampFn{})
	register.DoFn4x0[beam.Window, beam.EventTime, string, func(string)](&showFn{})
	register.Emitter1[string]()
	register.Emitter2[beam.EventTime, int]()
}

// asked counts the elements that a test's calls have got, by the test's name:
// what a worker does is not to be seen in the caller that the test holds.
var asked counters

type counters struct{ byName [64]struct{ n atomic.Int64 } }

// quote quotes numbers.
type quote struct{ Test int }

func (q *quote) Call(_ context.Context, batch []int) ([]string, error) {
	asked.byName[q.Test].n.Add(int64(len(batch)))
	out := make([]string, len(batch))
	for i, v := range batch {
		out[i] = fmt.Sprintf("<%d>", v)
	}
	return out, nil
}

// letters answers a number n with n letters.
type letters struct{}

func (*letters) Call(_ context.Context, batch []int) ([][]string, error) {
	out := make([][]string, len(batch))
	for i, n := range batch {
		for range n {
			out[i] = append(out[i], fmt.Sprint(n))
		}
	}
	return out, nil
}

// stampFn sets an element's timestamp to as many seconds as it says.
type stampFn struct{}

func (*stampFn) ProcessElement(v int, emit func(beam.EventTime, int)) {
	emit(mtime.FromTime(time.Unix(int64(v), 0)), v)
}

// showFn makes the window and the timestamp of an element a part of it.
type showFn struct{}

func (*showFn) ProcessElement(w beam.Window, t beam.EventTime, s string, emit func(string)) {
	emit(fmt.Sprintf("%s %v %v", s, w, t.ToTime().Unix()))
}

func TestResultsKeepTheWindowsAndTimestampsOfTheirElements(t *testing.T) {
	for i, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			p, s := beam.NewPipelineWithRoot()
			col := beam.ParDo(s, &stampFn{}, beam.Create(s, 1, 5, 12))
			col = beam.WindowInto(s, window.NewSlidingWindows(10*time.Second, 20*time.Second), col)
			out := batchasync.ParDo(s, &quote{Test: i}, col, batchasync.BatchSize(2))
			shown := beam.WindowInto(s, window.NewGlobalWindows(), beam.ParDo(s, &showFn{}, out))
			passert.Equals(s, shown,
				"<1> [-10000:10000) 1", "<1> [0:20000) 1",
				"<5> [-10000:10000) 5", "<5> [0:20000) 5",
				"<12> [0:20000) 12", "<12> [10000:30000) 12",
			)
			_, err := beam.Run(context.Background(), engine, p)
			require.NoError(t, err)
			require.EqualValues(t, 3, asked.byName[i].n.Load(), "each element is asked once, not once a window")
		})
	}
}

var _ = ptest.Run
