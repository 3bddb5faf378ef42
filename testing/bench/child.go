// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/batchasync/beam-batchasync/internal/joberror"
)

// An order is what a child process is to run, and a result what came of it; both
// travel as JSON.
type order struct {
	Contestant string
	URL        string
	Elements   int
	Attempts   int  // of a call, for those written by hand
	Windows    bool // to be checked
}

type result struct {
	Failed       string `json:",omitempty"` // why the job has, if it has
	Bundles      int64  // that were under way at once
	Missing      int    // numbers that have not come out
	Doubled      int    // that have come out too often
	WrongNames   int64  // elements with
	WrongWindows int64
	WrongTimes   int64
	Seconds      float64 // from the first number to the end of the last bundle
	CPU          float64 // in seconds; of this process, Beam included
	PeakHeap     int64   // in bytes, beyond the heap before
}

// obey runs one contestant in this process.
func obey(ctx context.Context, o order) (r result, err error) {
	i := slices.IndexFunc(contestants, func(c contestant) bool { return c.Name == o.Contestant })
	if i < 0 {
		return r, fmt.Errorf("there is no contestant %q", o.Contestant)
	}
	p, s := beam.NewPipelineWithRoot()
	job(s, o.Elements, o.Windows, func(s beam.Scope, ids beam.PCollection) beam.PCollection {
		return contestants[i].apply(s, service{URL: o.URL, Attempts: o.Attempts}, ids)
	})
	tally = newLedger(o.Elements)
	stop := watchHeap()
	_, err = beam.Run(ctx, "prism", p)
	r.PeakHeap = stop()
	if err != nil {
		r.Failed = joberror.Cause(err)
		r.Failed = r.Failed[:min(len(r.Failed), 300)] // Prism may add all that it knows
	}
	times := uint32(1)
	if o.Windows {
		times = uint32(windowSize / windowPeriod)
	}
	for i := range tally.seen {
		switch n := tally.seen[i].Load(); {
		case n < times:
			r.Missing++
		case n > times:
			r.Doubled++
		}
	}
	r.Bundles = tally.most.Load()
	r.WrongNames, r.WrongWindows, r.WrongTimes = tally.wrongName.Load(), tally.wrongWindow.Load(), tally.wrongTime.Load()
	if began, ended := tally.began.Load(), tally.ended.Load(); began != nil && ended != nil {
		r.Seconds, r.CPU = ended.at.Sub(began.at).Seconds(), (ended.cpu - began.cpu).Seconds()
	}
	return r, nil
}

// command runs an order in a child process, so that heap and CPU are its own.
func command[Order, Result any](ctx context.Context, flag string, o Order) (r Result, err error) {
	text, err := json.Marshal(o)
	if err != nil {
		return r, err
	}
	cmd, err := self(ctx, flag, string(text))
	if err != nil {
		return r, err
	}
	// Beam tells at length of a job that fails, as some are to do.
	var told bytes.Buffer
	cmd.Stderr = &told
	answer, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("%s %s: %w\n%s", flag, text, err, told.Bytes())
	}
	return r, json.Unmarshal(answer, &r)
}

// answer prints what a child process has to say.
func answer(r any) error { return json.NewEncoder(os.Stdout).Encode(r) }
