// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/metrics"
	"github.com/batchasync/beam-batchasync/batchasync/internal/ring"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// MetricsNamespace is the namespace of this package's metrics. They are
// counted when a batch's results are taken out, for each transform:
//
//   - counters elements (that arrived), results (elements with a result),
//     failures (elements that failed for good), batches, calls (attempts),
//     retries, timeouts, bisections, hedges (second calls beside a slow one),
//     late_answers (dropped, since the attempt was over), cache_hits and
//     cache_misses (with Cache: keys; transforms/enrich, which caches by itself, has
//     elements there, and its own metrics for keys), and flush_size,
//     flush_bytes, flush_linger and flush_bundle: what made a batch ready;
//   - distributions batch_size (elements), batch_bytes (only with BatchBytes),
//     call_ms (an attempt, in milliseconds) and wait_ms (from ready to the
//     start of the first attempt, in milliseconds);
//   - the gauges in_flight_limit, with AdaptiveInFlight, in hundredths of a
//     call, and breaker_state, with CircuitBreaker: 0 closed, 1 open, 2
//     half-open.
//
// Each call is an OpenTelemetry span, batchasync.Call, of the global provider.
//
// The time in which the service or the limits held a bundle's batches back is
// counted where runners look for it before they scale, as
// beam-throttling-metrics/throttling-msecs.
const MetricsNamespace = "batchasync"

var (
	elementsCounter   = beam.NewCounter(MetricsNamespace, "elements")
	resultsCounter    = beam.NewCounter(MetricsNamespace, "results")
	failuresCounter   = beam.NewCounter(MetricsNamespace, "failures")
	batchesCounter    = beam.NewCounter(MetricsNamespace, "batches")
	callsCounter      = beam.NewCounter(MetricsNamespace, "calls")
	retriesCounter    = beam.NewCounter(MetricsNamespace, "retries")
	timeoutsCounter   = beam.NewCounter(MetricsNamespace, "timeouts")
	bisectionsCounter = beam.NewCounter(MetricsNamespace, "bisections")
	hedgesCounter     = beam.NewCounter(MetricsNamespace, "hedges")
	lateCounter       = beam.NewCounter(MetricsNamespace, "late_answers")
	limitGauge        = beam.NewGauge(MetricsNamespace, "in_flight_limit")
	hitsCounter       = beam.NewCounter(MetricsNamespace, "cache_hits")
	missesCounter     = beam.NewCounter(MetricsNamespace, "cache_misses")
	breakerGauge      = beam.NewGauge(MetricsNamespace, "breaker_state")
	flushCounters     = [...]beam.Counter{
		ring.Size:   beam.NewCounter(MetricsNamespace, "flush_size"),
		ring.Bytes:  beam.NewCounter(MetricsNamespace, "flush_bytes"),
		ring.Linger: beam.NewCounter(MetricsNamespace, "flush_linger"),
		ring.Flush:  beam.NewCounter(MetricsNamespace, "flush_bundle"),
	}
	batchSizes = beam.NewDistribution(MetricsNamespace, "batch_size")
	batchBytes = beam.NewDistribution(MetricsNamespace, "batch_bytes")
	callTimes  = beam.NewDistribution(MetricsNamespace, "call_ms")
	waitTimes  = beam.NewDistribution(MetricsNamespace, "wait_ms")

	throttlingCounter = beam.NewCounter("beam-throttling-metrics", "throttling-msecs")
)

// tracer is that of OpenTelemetry's global provider. If none is set, a span costs
// next to nothing.
var tracer, ofClient = otel.Tracer("github.com/batchasync/beam-batchasync/batchasync"),
	[]trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient)}

// describe tells a span of the call that it stands for.
func describe(span trace.Span, info Info, size int, err error) {
	span.SetAttributes(
		attribute.String("batchasync.transform", info.Transform),
		attribute.String("batchasync.batch_id", info.BatchID),
		attribute.Int("batchasync.batch_size", size),
		attribute.Int("batchasync.attempt", info.Attempt),
	)
	if err != nil {
		span.SetStatus(codes.Error, fmt.Sprint(err)) // which survives an Error method that panics
	}
}

// countSome keeps counters that stay at 0 out of the pipeline's result.
func countSome(ctx context.Context, counter beam.Counter, n int64) {
	if n > 0 {
		counter.Inc(ctx, n)
	}
}

// A tally is what the goroutine of a batch notes for the bundle's metrics,
// which only the bundle's goroutine may touch.
type tally struct {
	size  int // elements of the batch; 0: it is counted elsewhere
	bytes int
	wait  time.Duration
	calls []time.Duration
	// Keys that were answered by the cache, or that were asked for.
	hits, misses int
	users        []*metrics.Store // what the caller counted in each attempt
}

// replay counts in ctx what the caller counted in store.
func replay(ctx context.Context, store *metrics.Store) error {
	return metrics.Extractor{
		SumInt64: func(l metrics.Labels, v int64) {
			metrics.NewCounter(l.Namespace(), l.Name()).Inc(ctx, v)
		},
		DistributionInt64: func(l metrics.Labels, count, sum, low, high int64) {
			d := metrics.NewDistribution(l.Namespace(), l.Name())
			d.Update(ctx, low)
			if count == 1 {
				return
			}
			d.Update(ctx, high)
			// The values between are not known, but their number and sum
			// are, and no more is kept of a distribution: their mean,
			// rounded up as often as needed, lies between low and high.
			between, rest := count-2, sum-low-high
			for ; between > 0; between-- {
				v := rest / between
				d.Update(ctx, v)
				rest -= v
			}
		},
		GaugeInt64: func(l metrics.Labels, v int64, _ time.Time) {
			metrics.NewGauge(l.Namespace(), l.Name()).Set(ctx, v)
		},
	}.ExtractFrom(store)
}

// A throttle measures how long a bundle was held back: the time in which at
// least one of its batches waited for a permit or in a backoff. The sum over
// the batches would be many times what the clock shows, and a runner compares
// it with the clock.
type throttle struct {
	mu      sync.Mutex
	waiting int
	since   time.Time
	total   time.Duration
}

func (t *throttle) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting == 0 {
		t.since = time.Now()
	}
	t.waiting++
}

func (t *throttle) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting--
	if t.waiting == 0 {
		t.total += time.Since(t.since)
	}
}

// take returns the whole milliseconds since the last take.
func (t *throttle) take() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting > 0 {
		now := time.Now()
		t.total += now.Sub(t.since)
		t.since = now
	}
	ms := t.total.Milliseconds()
	t.total -= time.Duration(ms) * time.Millisecond
	return ms
}
