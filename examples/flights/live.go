// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// live is what the progress line shows, and the call times, of which a Beam
// metric keeps no quantiles. DoFns and caller count here because on Prism and on
// the direct runner they are in main's process; workers elsewhere count for
// nobody, and the summary then does without.
var live = counts{times: newTimes()}

type counts struct {
	answered, failed, calls, inFlight atomic.Int64

	mu    sync.Mutex
	times *hdrhistogram.Histogram // microseconds
}

func newTimes() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, time.Hour.Microseconds(), 3)
}

func (c *counts) reset() {
	for _, n := range []*atomic.Int64{&c.answered, &c.failed, &c.calls, &c.inFlight} {
		n.Store(0)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.times = newTimes()
}

// call counts a call that begins; the function that it returns, its end.
func (c *counts) call() (end func()) {
	start := time.Now()
	c.calls.Add(1)
	c.inFlight.Add(1)
	return func() {
		c.inFlight.Add(-1)
		c.mu.Lock()
		defer c.mu.Unlock()
		// A call longer than the histogram's range counts as the longest.
		_ = c.times.RecordValue(min(time.Since(start).Microseconds(), c.times.HighestTrackableValue()))
	}
}

// quantile is the time within which so many percent of the calls ended; false
// if none was made in this process.
func (c *counts) quantile(percent float64) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.times.ValueAtQuantile(percent)) * time.Microsecond, c.times.TotalCount() > 0
}
