// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package ticks is an unbounded source for the suite, the probe and the faults. Beam's
// own, transforms/periodic, asks its runner to call it again when the next element
// is due, which makes a bundle of each element, and many empty ones. This one waits
// for a moment itself, and asks to be called again at once.
package ticks

import (
	"context"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/rtrackers/offsetrange"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
)

func init() {
	register.DoFn5x2[context.Context, *sdf.ManualWatermarkEstimator, *sdf.LockRTracker, []byte, func(beam.EventTime, int), sdf.ProcessContinuation, error](&tickFn{})
	register.Emitter2[beam.EventTime, int]()
}

// patience is how long a call waits for the next tick.
const patience = 50 * time.Millisecond

// Count returns the numbers below n, perSecond of them a second, each at the time at
// which it is due; the first is due at start.
func Count(s beam.Scope, start time.Time, n, perSecond int) beam.PCollection {
	return beam.ParDo(s.Scope("ticks.Count"), &tickFn{Start: start.UnixNano(), N: n, Interval: time.Second / time.Duration(perSecond)}, beam.Impulse(s))
}

type tickFn struct {
	Start    int64
	N        int
	Interval time.Duration
}

func (f *tickFn) CreateInitialRestriction([]byte) offsetrange.Restriction {
	return offsetrange.Restriction{End: int64(f.N)}
}

func (f *tickFn) CreateTracker(r offsetrange.Restriction) *sdf.LockRTracker {
	return sdf.NewLockRTracker(offsetrange.NewTracker(r))
}

func (f *tickFn) RestrictionSize(_ []byte, r offsetrange.Restriction) float64 { return r.Size() }

func (f *tickFn) SplitRestriction(_ []byte, r offsetrange.Restriction) []offsetrange.Restriction {
	return []offsetrange.Restriction{r}
}

// TruncateRestriction drops what is not due yet, when a job drains.
func (f *tickFn) TruncateRestriction(*sdf.LockRTracker, []byte) offsetrange.Restriction {
	return offsetrange.Restriction{}
}

func (f *tickFn) CreateWatermarkEstimator() *sdf.ManualWatermarkEstimator {
	return &sdf.ManualWatermarkEstimator{}
}

func (f *tickFn) ProcessElement(ctx context.Context, watermark *sdf.ManualWatermarkEstimator, tracker *sdf.LockRTracker, _ []byte, emit func(beam.EventTime, int)) (sdf.ProcessContinuation, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for i := tracker.GetRestriction().(offsetrange.Restriction).Start; ; i++ {
		due := time.Unix(0, f.Start).Add(time.Duration(i) * f.Interval)
		watermark.UpdateWatermark(due)
		if wait := time.Until(due); wait > 0 && i < int64(f.N) {
			next := time.NewTimer(wait)
			select {
			case <-next.C:
			case <-timer.C:
				next.Stop()
				return sdf.ResumeProcessingIn(0), nil
			case <-ctx.Done():
				next.Stop()
				return sdf.StopProcessing(), context.Cause(ctx)
			}
		}
		if !tracker.TryClaim(i) {
			return sdf.StopProcessing(), tracker.GetError()
		}
		emit(mtime.FromTime(due), int(i))
	}
}
