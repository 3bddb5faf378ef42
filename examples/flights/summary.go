// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/metrics"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// A summary is what the job did, by the pipeline's own metrics.
type summary struct {
	read, written, failed int64
	asked                 int64 // flights whose airports were looked up
	batches, calls        int64
	retries               int64
	elapsed               time.Duration
}

// summarize takes the job's metrics, which are counted for each transform,
// together.
func summarize(result beam.PipelineResult, elapsed time.Duration) summary {
	s := summary{elapsed: elapsed}
	to := map[string]*int64{
		namespace + "/read":                       &s.read,
		namespace + "/written":                    &s.written,
		namespace + "/failed":                     &s.failed,
		batchasync.MetricsNamespace + "/elements": &s.asked,
		batchasync.MetricsNamespace + "/batches":  &s.batches,
		batchasync.MetricsNamespace + "/calls":    &s.calls,
		batchasync.MetricsNamespace + "/retries":  &s.retries,
	}
	found := result.Metrics().Query(func(r metrics.SingleResult) bool {
		return to[r.Namespace()+"/"+r.Name()] != nil
	})
	for _, c := range found.Counters() {
		*to[c.Namespace()+"/"+c.Name()] += c.Result()
	}
	return s
}

// check returns an error if a flight is not accounted for.
func (s summary) check() error {
	if s.read != s.written+s.failed {
		return fmt.Errorf("the figures don't add up: %d read, but %d written and %d failed", s.read, s.written, s.failed)
	}
	return nil
}

func (s summary) text(written, failures string) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	lookUps := 2 * s.asked
	line("flights", "%s read = %s written + %s failed", thousands(s.read), thousands(s.written), thousands(s.failed))
	line("calls", "%s for %s look-ups: %s saved", thousands(s.calls), thousands(lookUps), thousands(lookUps-s.calls))
	line("batch", "%s flights on average", ratio(s.asked, s.batches))
	line("call time", "p50 %s, p99 %s", quantile(50), quantile(99))
	line("retries", "%s", thousands(s.retries))
	line("elapsed", "%v", s.elapsed.Round(time.Millisecond))
	line("output", "%s", written)
	line("failures", "%s", failures)
	return b.String()
}

// quantile tells a call's time, or that it is not known; see live.
func quantile(percent float64) string {
	d, ok := live.quantile(percent)
	if !ok {
		return "–"
	}
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

func ratio(a, b int64) string {
	if b == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f", float64(a)/float64(b))
}

// thousands is n with a comma behind each three digits.
func thousands(n int64) string {
	digits := fmt.Sprint(max(n, -n))
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if n < 0 {
		return "-" + digits
	}
	return digits
}
