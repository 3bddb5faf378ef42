// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Soak runs a stream through batchasync for as long as it is told to, against an HTTP
// service that fails in every way, and accounts for every input:
//
//	go run ./testing/soak -minutes 10
//
// Each ten seconds it prints what the process holds and how long elements take. It
// exits with 1 if an input is lost or doubled, or if heap, goroutines or connections
// grow. The same seed gives the same faults to the same calls.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/internal/ticks"
)

func init() {
	batchasync.Register(&client{})
	register.DoFn3x0[beam.EventTime, int, func(int, int)](&answeredFn{})
	register.DoFn3x0[beam.EventTime, batchasync.Failure[int], func(int, int)](&failedFn{})
	register.DoFn2x0[int, func(*int) bool](&noneFn{})
	register.Emitter2[int, int]()
	register.Iter1[int]()
}

// account is where the DoFns, which are in this process, enter what has ended.
var account ledger

type ledger struct {
	answered, failed, wrong atomic.Int64

	mu    sync.Mutex
	ended []uint8                 // how often each input has
	took  *hdrhistogram.Histogram // microseconds since the input was due, of an interval
}

func (l *ledger) end(v int, due beam.EventTime) {
	took := time.Since(due.ToTime()).Microseconds()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended[v]++
	// What is beyond the range counts as its end.
	_ = l.took.RecordValue(min(max(took, 1), l.took.HighestTrackableValue()))
}

// interval returns the quantiles since the last call.
func (l *ledger) interval() (p50, p99 time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p50 = time.Duration(l.took.ValueAtQuantile(50)) * time.Microsecond
	p99 = time.Duration(l.took.ValueAtQuantile(99)) * time.Microsecond
	l.took.Reset()
	return p50, p99
}

// check returns an error unless each input has ended once.
func (l *ledger) check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost, doubled := 0, 0
	for _, n := range l.ended {
		switch {
		case n == 0:
			lost++
		case n > 1:
			doubled++
		}
	}
	if lost+doubled > 0 || l.wrong.Load() > 0 {
		return fmt.Errorf("of %d inputs %d are lost, %d doubled, and %d have a wrong answer", len(l.ended), lost, doubled, l.wrong.Load())
	}
	return nil
}

// Both outputs go on into a GroupByKey, with nothing in it.
type answeredFn struct{}

func (*answeredFn) ProcessElement(due beam.EventTime, v int, _ func(int, int)) {
	if v%2 != 0 { // an answer is twice its input
		account.wrong.Add(1)
		return
	}
	account.answered.Add(1)
	account.end(v/2, due)
}

type failedFn struct{}

func (*failedFn) ProcessElement(due beam.EventTime, f batchasync.Failure[int], _ func(int, int)) {
	account.failed.Add(1)
	account.end(f.Element, due)
}

type noneFn struct{}

func (*noneFn) ProcessElement(int, func(*int) bool) {}

// A sample is what the process held at a moment.
type sample struct {
	heap                    uint64 // bytes, after a collection
	goroutines, connections int
}

func (s *service) sample() sample {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return sample{m.HeapAlloc, runtime.NumGoroutine(), int(s.connections.Load())}
}

// growth returns an error if the last third of the samples is well above the second
// one; the first is for warming up.
func growth(samples []sample) error {
	third := len(samples) / 3
	if third == 0 {
		return nil
	}
	highest := func(of []sample) (h sample) {
		for _, s := range of {
			h.heap, h.goroutines, h.connections = max(h.heap, s.heap), max(h.goroutines, s.goroutines), max(h.connections, s.connections)
		}
		return h
	}
	before, after := highest(samples[third:2*third]), highest(samples[2*third:])
	var errs []error
	for _, v := range []struct {
		name          string
		before, after float64
		slack         float64
	}{
		{"the heap, in MB", float64(before.heap) / 1e6, float64(after.heap) / 1e6, 16},
		{"the number of goroutines", float64(before.goroutines), float64(after.goroutines), 50},
		{"the number of connections", float64(before.connections), float64(after.connections), 20},
	} {
		if v.after > 1.25*v.before+v.slack {
			errs = append(errs, fmt.Errorf("%s grew from %.0f to %.0f", v.name, v.before, v.after))
		}
	}
	return errors.Join(errs...)
}

func main() {
	minutes := flag.Float64("minutes", 10, "how long")
	rate := flag.Int("rate", 500, "inputs a second")
	seed := flag.Uint64("seed", 1, "of the faults")
	var c choices
	flag.BoolVar(&c.across, "across_bundles", false, "let bundles share batches")
	flag.BoolVar(&c.adaptive, "adaptive", false, "let the number of calls in flight be found, in place of 8")
	flag.Parse()
	log.LogLevel = "error"
	slog.SetDefault(slog.New(slog.DiscardHandler)) // Prism's
	beam.Init()
	n := int(*minutes * 60 * float64(*rate))
	if n < 1 || *rate < 1 {
		fmt.Fprintf(os.Stderr, "soak: -minutes %v -rate %d: must be more than 0\n", *minutes, *rate)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := soak(ctx, n, *rate, *seed, c); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// choices are options of batchasync.
type choices struct{ across, adaptive bool }

func soak(ctx context.Context, n, rate int, seed uint64, c choices) (err error) {
	account.ended = make([]uint8, n)
	account.took = hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 3)
	service := newService(seed)
	defer func() { err = errors.Join(err, service.close()) }()

	p, s := beam.NewPipelineWithRoot()
	col := ticks.Count(s, time.Now().Add(time.Second), n, rate)
	opts := []batchasync.Option{
		batchasync.BatchSize(20), batchasync.Linger(20 * time.Millisecond),
		batchasync.Timeout(500 * time.Millisecond), batchasync.MaxAttempts(3), batchasync.MaxElapsed(5 * time.Second),
		batchasync.Backoff(10*time.Millisecond, 100*time.Millisecond), batchasync.Bisect(),
	}
	if c.adaptive {
		opts = append(opts, batchasync.AdaptiveInFlight(1, 32))
	} else {
		opts = append(opts, batchasync.MaxInFlight(8))
	}
	if c.across {
		opts = append(opts, batchasync.AcrossBundles())
	}
	results, failures := batchasync.ParDoWithFailures(s, &client{URL: service.url()}, col, opts...)
	for _, ended := range []beam.PCollection{beam.ParDo(s, &answeredFn{}, results), beam.ParDo(s, &failedFn{}, failures)} {
		beam.ParDo0(s, &noneFn{}, beam.GroupByKey(s, ended))
	}

	fmt.Printf("soak: %d inputs, %d a second, seed %d\n", n, rate, seed)
	start := time.Now()
	done := make(chan error, 1)
	go func() {
		_, err := beam.Run(ctx, "prism", p)
		done <- err
	}()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	var samples []sample
	report := func() sample {
		now := service.sample()
		p50, p99 := account.interval()
		answered, failed := account.answered.Load(), account.failed.Load()
		fmt.Printf("%5.0f s  answered %-8d failed %-6d calls %-7d faults %-6d heap %5.1f MB  goroutines %-4d connections %-3d p50 %-8v p99 %v\n",
			time.Since(start).Seconds(), answered, failed, service.calls.Load(), service.faults.Load(),
			float64(now.heap)/1e6, now.goroutines, now.connections, p50.Round(time.Millisecond), p99.Round(time.Millisecond))
		return now
	}
	for {
		select {
		case <-tick.C:
			samples = append(samples, report())
		case err := <-done:
			report()
			fmt.Printf("soak: %d inputs = %d answered + %d failed; %d calls, of which %d met a fault\n",
				n, account.answered.Load(), account.failed.Load(), service.calls.Load(), service.faults.Load())
			return cmp.Or(err, errors.Join(account.check(), growth(samples)))
		}
	}
}
