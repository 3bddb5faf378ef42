// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Flights looks up both airports of 20,000 flights in an SQLite database, with
// one query for many flights, and writes each flight with its airports and the
// great-circle distance between them, and a table of the delays by month.
//
//	go run ./examples/flights
//
// Its exit status is 0 if all flights are in the output, 1 if the job could not
// run, 2 if a flag is wrong, and 3 if some flights are in the failures.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners" // the flag -runner

	"github.com/batchasync/beam-batchasync/examples/flights/data"
	"github.com/batchasync/beam-batchasync/internal/joberror"
)

// Exit statuses.
const (
	allWritten = 0
	notRun     = 1
	wrongFlag  = 2 // as the flag package has it
	someFailed = 3
)

// options are the program's flags.
type options struct {
	flights, airports string // empty: what comes with the program
	output, failures  string
	batchSize         int
	linger            time.Duration
	maxInFlight       int
	runner, endpoint  string
	dryRun            bool
}

func main() {
	var o options
	flag.StringVar(&o.flights, "flights", "", "file of flights, a JSON array or one a line (default: the 20,000 that come with the program)")
	flag.StringVar(&o.airports, "airports", "", "CSV file of airports (default: the 3,376 that come with the program)")
	flag.StringVar(&o.output, "output", "flights-enriched.jsonl", "file for the flights with their airports, one a line")
	flag.StringVar(&o.failures, "failures", "flights-failures.jsonl", "file for what could not be read or looked up, one a line")
	flag.IntVar(&o.batchSize, "batch_size", 100, "most flights in a query")
	flag.DurationVar(&o.linger, "linger", 50*time.Millisecond, "how long a query waits for more flights; 0: until it is full")
	flag.IntVar(&o.maxInFlight, "max_in_flight", 8, "most queries at once")
	verbose := flag.Bool("verbose", false, "show what Beam logs")
	flag.Parse()

	log.LogLevel = "warn"
	o.dryRun = isDryRun()
	if *verbose || o.dryRun { // which logs what would be sent
		log.LogLevel = "info"
	}
	beam.Init() // in a worker, it does not return

	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "flights: it takes flags alone, but there is %q; see -help\n", flag.Arg(0))
		os.Exit(wrongFlag)
	}
	o.runner, o.endpoint = cmp.Or(*runners.Runner, linked[0]), *jobopts.Endpoint
	if o.runner == "prism" && !*verbose {
		// Prism returns the job's error, but logs it five times as well.
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the job, a second one the program.
	context.AfterFunc(ctx, stop)
	status, err := run(ctx, o, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "flights:", err)
	}
	os.Exit(status)
}

// check returns what is wrong with the flags.
func (o options) check() error {
	switch {
	case o.batchSize < 1 || o.batchSize > maxBatchSize:
		return fmt.Errorf("-batch_size %d: must be from 1 to %d", o.batchSize, maxBatchSize)
	case o.linger < 0:
		return fmt.Errorf("-linger %v: must not be negative", o.linger)
	case o.maxInFlight < 1:
		return fmt.Errorf("-max_in_flight %d: must be at least 1", o.maxInFlight)
	case o.output == "" || o.failures == "":
		return errors.New("-output and -failures must not be empty")
	case !slices.Contains(linked, o.runner):
		return fmt.Errorf("-runner %s: this program has %s; README.md beside its source tells how to add one", o.runner, strings.Join(linked[:len(linked)-1], ", ")+" and "+linked[len(linked)-1])
	case o.runner == "flink" && o.endpoint == "":
		return errors.New("-runner flink: -endpoint must name its job server, host:port; or let runners/flink start one: go run ./runners/flink -- go run ./examples/flights")
	case o.runner == "dataflow" && !o.dryRun:
		return errors.New("-runner dataflow: with -dry_run=true alone, for this program reads and writes files of this machine")
	}
	files := map[string]string{}
	for _, f := range []struct{ flag, path string }{
		{"-flights", o.flights}, {"-airports", o.airports}, {"-output", o.output}, {"-failures", o.failures},
	} {
		if f.path == "" {
			continue
		}
		path := filepath.Clean(f.path)
		if other, ok := files[path]; ok {
			return fmt.Errorf("%s and %s are both %s: name two files", other, f.flag, f.path)
		}
		files[path] = f.flag
	}
	return nil
}

// run runs the job, and prints the table and the summary on stdout; meanwhile the
// progress is on terminal, if it is one.
func run(ctx context.Context, o options, stdout io.Writer, terminal *os.File) (status int, err error) {
	start := time.Now()
	if err := o.check(); err != nil {
		return wrongFlag, err
	}
	// All that can be known to go wrong is found out before the job begins.
	if err := readable(o.flights); err != nil {
		return notRun, fmt.Errorf("-flights %s: %w; name a file, or leave the flag out for the flights that come with the program", o.flights, reason(err))
	}
	written, err := newOutput(o.output)
	if err != nil {
		return notRun, fmt.Errorf("-output %s: %w; name a file that can be written to", o.output, reason(err))
	}
	defer func() { err = errors.Join(err, written.discard()) }()
	failures, err := newOutput(o.failures)
	if err != nil {
		return notRun, fmt.Errorf("-failures %s: %w; name a file that can be written to", o.failures, reason(err))
	}
	defer func() { err = errors.Join(err, failures.discard()) }()

	dir, err := os.MkdirTemp("", "flights-")
	if err != nil {
		return notRun, err
	}
	// Where an open file can't be removed, the database stays in the temporary
	// folder: on Prism it is open until the program ends.
	defer func() { _ = os.RemoveAll(dir) }()
	at := paths{
		flights:  o.flights,
		database: filepath.Join(dir, "airports.sqlite"),
		output:   written.staged,
		failures: failures.staged,
		months:   filepath.Join(dir, "months.jsonl"),
	}
	if err := openAirports(ctx, at.database, o.airports); err != nil {
		return notRun, cmp.Or(context.Cause(ctx), err)
	}
	if err := os.WriteFile(at.months, nil, 0o600); err != nil {
		return notRun, err
	}

	p, s := beam.NewPipelineWithRoot()
	build(s, at, o.batchSize, o.linger, o.maxInFlight)
	live.reset()
	stop := startProgress(terminal)
	result, err := beam.Run(ctx, o.runner, p)
	stop()
	if err != nil {
		return notRun, fmt.Errorf("nothing has been written, for the job has failed: %s (-verbose tells more)", joberror.Cause(cmp.Or(context.Cause(ctx), err)))
	}
	if o.dryRun {
		return allWritten, nil
	}

	total := summarize(result, time.Since(start))
	if err := total.check(); err != nil {
		return notRun, err
	}
	months, err := readMonths(at.months)
	if err != nil {
		return notRun, err
	}
	if err := errors.Join(written.commit(), failures.commit()); err != nil {
		return notRun, err
	}
	if _, err := fmt.Fprintf(stdout, "%s\n%s", table(months), total.text(o.output, o.failures)); err != nil {
		return notRun, err
	}
	if total.failed > 0 {
		return someFailed, fmt.Errorf("%d of %d flights failed; %s tells where each was in the input, and why", total.failed, total.read, o.failures)
	}
	return allWritten, nil
}

// isDryRun tells whether a runner was told to translate the pipeline alone.
func isDryRun() bool {
	f := flag.Lookup("dry_run") // Dataflow's, which is not always linked
	return f != nil && f.Value.String() == "true"
}

// readable returns why a file of the input can't be read.
func readable(path string) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		if err == nil && info.IsDir() {
			err = errors.New("is a folder")
		}
		return err // a pipe can be opened once only, which is the job's to do
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	return file.Close()
}

// reason is an error without the path, which a message about a flag has already.
func reason(err error) error {
	if at := new(fs.PathError); errors.As(err, &at) {
		return at.Err
	}
	return err
}

// openAirports makes the database.
func openAirports(ctx context.Context, database, path string) error {
	if path == "" {
		return loadAirports(ctx, database, bytes.NewReader(data.Airports))
	}
	file, err := os.Open(path)
	if err == nil {
		err = errors.Join(loadAirports(ctx, database, file), file.Close())
	}
	if err != nil {
		return fmt.Errorf("-airports %s: %w; name a CSV file with the columns %s, or leave the flag out for the airports that come with the program", path, reason(err), strings.Join(columns, ","))
	}
	return nil
}
