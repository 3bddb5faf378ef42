// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/jmoiron/sqlx"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/enrich"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
)

// live is what generator and DoFns count. They are all in this process, as Prism's
// workers are.
var live counts

type counts struct {
	published, failed atomic.Int64

	mu       sync.Mutex
	all      *hdrhistogram.Histogram // microseconds from JetStream to the table
	interval *hdrhistogram.Histogram // the same since the last line of figures
}

func (c *counts) reset() {
	c.published.Store(0)
	c.failed.Store(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = hdrhistogram.New(1, time.Hour.Microseconds(), 3)
	c.interval = hdrhistogram.New(1, time.Hour.Microseconds(), 3)
}

func (c *counts) rowWritten(took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range []*hdrhistogram.Histogram{c.all, c.interval} {
		// What is beyond the range counts as its end.
		_ = h.RecordValue(min(max(took.Microseconds(), 1), h.HighestTrackableValue()))
	}
}

// latency is that of rows: how long half of them took, and 99 of 100, and all.
type latency struct {
	rows          int64
	p50, p99, max time.Duration
}

func latencyOf(h *hdrhistogram.Histogram) latency {
	at := func(quantile float64) time.Duration {
		return (time.Duration(h.ValueAtQuantile(quantile)) * time.Microsecond).Round(time.Millisecond)
	}
	return latency{h.TotalCount(), at(50), at(99), at(100)}
}

// sinceLast returns the latency since it was called last, and how many rows there are
// in all.
func (c *counts) sinceLast() (l latency, written int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l = latencyOf(c.interval)
	c.interval.Reset()
	return l, c.all.TotalCount()
}

func (c *counts) sinceStart() latency {
	c.mu.Lock()
	defer c.mu.Unlock()
	return latencyOf(c.all)
}

// report prints a line of figures now and then until ctx ends.
func report(ctx context.Context, to io.Writer, start time.Time, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l, written := live.sinceLast()
		// If nobody reads it, the stream goes on.
		_, _ = fmt.Fprintf(to, "%4.0f s  published %-8d written %-8d failed %-6d p50 %-8v p99 %v\n",
			time.Since(start).Seconds(), live.published.Load(), written, live.failed.Load(), l.p50, l.p99)
	}
}

// A summary is what came of a run: what was published, what is in the tables, and
// what was seen on the way there.
type summary struct {
	published                   int64
	written, failed, both       int64 // rows of sale and of dead_letter; in both
	totals, totalled            int64 // rows of total, and the sales in them
	rowsWritten, lettersWritten int64
	latency                     latency
}

// account counts the rows of a run.
func account(ctx context.Context, pool *sqldb.Pool, run string) (summary, error) {
	s := summary{published: live.published.Load(), lettersWritten: live.failed.Load(), latency: live.sinceStart()}
	s.rowsWritten = s.latency.rows
	bind := sqlx.BindType("sqlite3")
	if pool.Driver == sqldb.PostgreSQL {
		bind = sqlx.BindType("pgx")
	}
	for _, q := range []struct {
		to    *int64
		query string
	}{
		{&s.written, "SELECT COUNT(*) FROM sale WHERE run = ?"},
		{&s.failed, "SELECT COUNT(*) FROM dead_letter WHERE run = ?"},
		{&s.both, "SELECT COUNT(*) FROM sale JOIN dead_letter ON sale.id = dead_letter.id WHERE sale.run = ?"},
		{&s.totals, "SELECT COUNT(*) FROM total WHERE run = ?"},
		{&s.totalled, "SELECT COALESCE(SUM(sales), 0) FROM total WHERE run = ?"},
	} {
		if err := pool.QueryRowContext(ctx, sqlx.Rebind(bind, q.query), run).Scan(q.to); err != nil {
			return s, fmt.Errorf("%s: %w", q.query, err)
		}
	}
	return s, nil
}

// check returns an error unless each order that was published has ended once.
func (s summary) check() error {
	var errs []error
	for _, c := range []struct {
		what      string
		got, want int64
	}{
		{"rows and dead letters, of what was published", s.written + s.failed, s.published},
		{"orders that are both a row and a dead letter", s.both, 0},
		{"writes of a row, in place of one each", s.rowsWritten, s.written},
		{"writes of a dead letter, in place of one each", s.lettersWritten, s.failed},
		{"sales in the totals, of those that were written", s.totalled, s.written},
	} {
		if c.got != c.want {
			errs = append(errs, fmt.Errorf("%d %s: should be %d", c.got, c.what, c.want))
		}
	}
	return errors.Join(errs...)
}

func (s summary) text(result beam.PipelineResult, elapsed time.Duration, o options) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("orders", "%d published = %d written + %d failed", s.published, s.written, s.failed)
	line("latency", "p50 %v, p99 %v, longest %v", s.latency.p50, s.latency.p99, s.latency.max)
	lookUps, writes := batchesOf(result)
	line("look-ups", "%s", lookUps.text("orders"))
	line("writes", "%s", writes.text("rows of all tables"))
	line("totals", "%d, of each country in windows of %v", s.totals, o.window)
	line("elapsed", "%v", elapsed.Round(10*time.Millisecond))
	return b.String()
}

// batches are how many there were, and what was in them.
type batches struct{ batches, elements int64 }

func (b batches) text(unit string) string {
	mean := 0.0
	if b.batches > 0 {
		mean = float64(b.elements) / float64(b.batches)
	}
	return fmt.Sprintf("%d batches, %.1f %s on average", b.batches, mean, unit)
}

// batchesOf tells those of the look-ups from those of the writers: metrics are known
// by a transform's id, not by its name, but only the look-ups have some of enrich's.
func batchesOf(result beam.PipelineResult) (lookUps, writes batches) {
	all := result.Metrics().AllMetrics()
	of := map[string]*batches{}
	for _, c := range all.Counters() {
		if c.Namespace() == enrich.MetricsNamespace {
			of[c.Transform()] = &lookUps
		}
	}
	for _, d := range all.Distributions() {
		if d.Namespace() != batchasync.MetricsNamespace || d.Name() != "batch_size" {
			continue
		}
		to := cmp.Or(of[d.Transform()], &writes)
		to.batches += d.Result().Count
		to.elements += d.Result().Sum
	}
	return lookUps, writes
}
