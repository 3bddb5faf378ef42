// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/io/filesystem/local"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/textio"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/examples/flights/data"
	"github.com/batchasync/beam-batchasync/examples/flights/internal/flight"
	"github.com/batchasync/beam-batchasync/transforms/enrich"
)

func init() {
	register.DoFn3x1[context.Context, string, func(flight.Record), error](&readFn{})
	register.DoFn3x0[flight.Record, func(beam.EventTime, flight.Flight), func(flight.Rejected)](&parseFn{})
	register.DoFn2x2[context.Context, flight.Enriched, string, error](&writtenFn{})
	register.DoFn1x1[batchasync.Failure[flight.Flight], flight.Rejected](&rejectFn{})
	register.DoFn2x2[context.Context, flight.Rejected, string, error](&rejectedFn{})
	register.Emitter1[flight.Record]()
	register.Emitter1[flight.Rejected]()
	register.Emitter2[beam.EventTime, flight.Flight]()
}

// Each record that is read is counted once more, as written or as failed: the
// summary compares.
const namespace = "flights"

var (
	readCounter    = beam.NewCounter(namespace, "read")
	writtenCounter = beam.NewCounter(namespace, "written")
	failedCounter  = beam.NewCounter(namespace, "failed")
)

// paths are the files that the workers read and write.
type paths struct {
	flights          string // empty: those that come with the program
	database         string
	output, failures string
	months           string // the table, a month a line
}

// build makes the pipeline.
func build(s beam.Scope, at paths, batchSize int, linger time.Duration, maxInFlight int) {
	records := beam.ParDo(s, &readFn{}, beam.Create(s, at.flights))
	// One worker has read the file; from here on there may be many.
	records = beam.Reshuffle(s, records)
	flights, invalid := beam.ParDo2(s, &parseFn{}, records)

	// Windows of a day of the flights' own dates. They are set before the
	// look-up, for it keeps the window and the timestamp of each element.
	days := beam.WindowInto(s, window.NewFixedWindows(24*time.Hour), flights)
	enriched, unknown := enrich.ParDoWithFailures(s,
		&AirportTable{Database: at.database, Connections: maxInFlight}, addAirports{}, enrich.KeepMissing, days,
		batchasync.BatchSize(batchSize),
		batchasync.Linger(linger),
		batchasync.MaxInFlight(maxInFlight),
	)

	// textio writes a file for each window, the one over the other: what is
	// written goes into the global window first.
	written := beam.ParDo(s, &writtenFn{}, inGlobalWindow(s, enriched))
	textio.Write(s, at.output, written)

	rejected := beam.ParDo(s, &rejectFn{}, inGlobalWindow(s, unknown))
	rejected = beam.Flatten(s, invalid, rejected)
	textio.Write(s, at.failures, beam.ParDo(s, &rejectedFn{}, rejected))

	textio.Write(s, at.months, delaysByMonth(s, enriched))
}

func inGlobalWindow(s beam.Scope, col beam.PCollection) beam.PCollection {
	return beam.WindowInto(s, window.NewGlobalWindows(), col)
}

// readFn takes a file of flights apart.
type readFn struct{}

func (*readFn) ProcessElement(ctx context.Context, path string, emit func(flight.Record)) (err error) {
	var input io.Reader = bytes.NewReader(data.Flights)
	if path != "" {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() {
			// Nothing was written, so nothing is lost if this fails.
			_ = file.Close()
		}()
		input = file
	}
	if err := flight.Split(input, func(r flight.Record) {
		readCounter.Inc(ctx, 1)
		emit(r)
	}); err != nil {
		return fmt.Errorf("read the flights: %w", err)
	}
	return nil
}

// parseFn makes a flight of a record, at the time of its date.
type parseFn struct{}

func (*parseFn) ProcessElement(r flight.Record, emit func(beam.EventTime, flight.Flight), reject func(flight.Rejected)) {
	if r.Broken != "" {
		reject(flight.Rejected{Position: r.Position, Error: r.Broken, Input: r.Text})
		return
	}
	f, date, err := flight.Parse([]byte(r.Text))
	if err != nil {
		reject(flight.Rejected{Position: r.Position, Error: err.Error(), Input: r.Text})
		return
	}
	f.Position = r.Position
	emit(mtime.FromTime(date), f)
}

// writtenFn makes a line of a flight.
type writtenFn struct{}

func (*writtenFn) ProcessElement(ctx context.Context, f flight.Enriched) (string, error) {
	writtenCounter.Inc(ctx, 1)
	live.answered.Add(1)
	line, err := json.Marshal(f)
	return string(line), err
}

// rejectFn makes of a flight that could not be looked up what is made of a
// record that is no flight.
type rejectFn struct{}

func (*rejectFn) ProcessElement(f batchasync.Failure[flight.Flight]) flight.Rejected {
	return flight.Rejected{Position: f.Element.Position, Error: f.Error, Flight: &f.Element, Attempts: f.Attempts}
}

// rejectedFn makes a line of what was rejected.
type rejectedFn struct{}

func (*rejectedFn) ProcessElement(ctx context.Context, r flight.Rejected) (string, error) {
	failedCounter.Inc(ctx, 1)
	live.failed.Add(1)
	line, err := json.Marshal(r)
	return string(line), err
}
