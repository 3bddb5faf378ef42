// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Saturation shows what batches and a bounded number of calls are good for: it
// asks a simulated service, over HTTP on the loopback address, about the same
// elements one by one and in batches, with 1 to 256 calls at once, and with
// nothing set, and prints a table and draws a chart of the elements a second.
//
//	go run ./examples/saturation
//
// It takes a minute or two. Its exit status is 0 if all has been measured and
// written, 1 if not, and 2 if a flag is wrong.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners" // the flag -runner

	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// Exit statuses.
const (
	allMeasured = 0
	notMeasured = 1
	wrongFlag   = 2 // as the flag package has it
)

// options are the program's flags, and what tests set beside them.
type options struct {
	elements  int
	seconds   float64
	quick     bool
	capacity  int
	k         float64
	svg, json string // files; empty: none
	runner    string

	base, perElement time.Duration // of a call
	levels           []int         // of calls at once
}

// The service of the chart, and the levels of calls at once.
const (
	base       = 10 * time.Millisecond
	perElement = 40 * time.Microsecond
)

var (
	allLevels   = []int{1, 2, 4, 8, 16, 32, 64, 128, 256}
	quickLevels = []int{1, 4, 16, 64, 256}
)

func main() {
	o := options{base: base, perElement: perElement}
	flag.IntVar(&o.elements, "elements", 0, "elements of each run (default: as many as take -seconds)")
	flag.Float64Var(&o.seconds, "seconds", 0, "about how long each run takes, in seconds (default 2, or 0.4 with -quick)")
	flag.BoolVar(&o.quick, "quick", false, "fewer runs, and shorter ones: 20 seconds in all, and rough figures")
	flag.IntVar(&o.capacity, "capacity", 16, "calls that the service serves side by side at full speed")
	flag.Float64Var(&o.k, "k", 2, "how the service slows down: with n calls, beyond its capacity C, each takes 1+k(n-C)/C times as long")
	flag.StringVar(&o.svg, "svg", "saturation.svg", "file for the chart; empty: none")
	flag.StringVar(&o.json, "json", "", "file for all figures as JSON (default: none)")
	verbose := flag.Bool("verbose", false, "show what Beam logs")
	flag.Parse()

	log.LogLevel = "warn"
	if *verbose {
		log.LogLevel = "info"
	}
	beam.Init() // in a worker, it does not return

	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "saturation: it takes flags alone, but there is %q; see -help\n", flag.Arg(0))
		os.Exit(wrongFlag)
	}
	o.runner = cmp.Or(*runners.Runner, linked[0])
	o.levels = allLevels
	if o.quick {
		o.levels = quickLevels
	}
	if o.runner == "prism" && !*verbose {
		// Prism returns the job's error, but logs it five times as well.
		slog.SetDefault(slog.New(slog.DiscardHandler))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the run, a second one the program.
	context.AfterFunc(ctx, stop)
	status, err := saturate(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "saturation:", err)
	}
	os.Exit(status)
}

// The most that the flags may ask for: beyond it a run would take minutes.
const (
	maxCapacity = 256
	maxElements = 10_000_000
	maxSeconds  = 60
)

// check returns what is wrong with the flags.
func (o options) check() error {
	switch {
	case o.elements < 0 || o.elements > maxElements:
		return fmt.Errorf("-elements %d: must be from 1 to %d, or left out for as many as take -seconds", o.elements, maxElements)
	case !(o.seconds >= 0 && o.seconds <= maxSeconds): // in this form it finds NaN too
		return fmt.Errorf("-seconds %v: must be more than 0 and at most %d", o.seconds, maxSeconds)
	case o.elements > 0 && o.seconds > 0:
		return fmt.Errorf("-elements %d and -seconds %v exclude each other: leave one out", o.elements, o.seconds)
	case o.capacity < 1 || o.capacity > maxCapacity:
		return fmt.Errorf("-capacity %d: must be from 1 to %d", o.capacity, maxCapacity)
	case !(o.k >= 1 && o.k <= math.MaxFloat64):
		return fmt.Errorf("-k %v: must be at least 1, with which the service's throughput stays; 2 halves it in the end", o.k)
	case o.svg != "" && filepath.Clean(o.svg) == filepath.Clean(o.json):
		return fmt.Errorf("-svg and -json are both %s: name two files", o.svg)
	case !slices.Contains(linked, o.runner):
		return fmt.Errorf("-runner %s: this program has %s, which run the workers in this process, where the service is", o.runner, strings.Join(linked, " and "))
	}
	return nil
}

func (o options) service() batchasynctest.ServiceConfig {
	return batchasynctest.ServiceConfig{
		BaseLatency: o.base, PerElement: o.perElement,
		Capacity: o.capacity, Overload: batchasynctest.Degrade, DegradeFactor: o.k,
	}
}

// duration is how long each run is to take.
func (o options) duration() time.Duration {
	seconds := 2.0
	switch {
	case o.seconds > 0:
		seconds = o.seconds
	case o.quick:
		seconds = 0.4
	}
	return time.Duration(seconds * float64(time.Second))
}

// saturate measures all settings, prints the table and writes the files.
func saturate(ctx context.Context, o options, stdout io.Writer) (status int, err error) {
	start := time.Now()
	if err := o.check(); err != nil {
		return wrongFlag, err
	}
	// What can be known to go wrong is found out before the minute is spent.
	for name, path := range map[string]string{"-svg": o.svg, "-json": o.json} {
		if err := writable(path); err != nil {
			return notMeasured, fmt.Errorf("%s %s: %w; name a file that can be written to", name, path, reason(err))
		}
	}

	if _, err := fmt.Fprintln(stdout, header()); err != nil {
		return notMeasured, err
	}
	var all runs
	for _, s := range settings(o.levels) {
		elements := cmp.Or(o.elements, s.elements(o.service(), o.duration()))
		r, err := measure(ctx, o.runner, o.service(), s, elements)
		if err != nil {
			return notMeasured, fmt.Errorf("%s, %d at once: %w", s.Approach, s.MaxInFlight, err)
		}
		all = append(all, r)
		if _, err := fmt.Fprintln(stdout, r.row()); err != nil {
			return notMeasured, err
		}
	}
	elapsed := time.Since(start)

	if _, err := fmt.Fprintf(stdout, "\n%s\nelapsed  %v\n", all.summary(), elapsed.Round(time.Second)); err != nil {
		return notMeasured, err
	}
	picture, err := all.picture(o.service())
	if err != nil {
		return notMeasured, err
	}
	figures, err := all.json(o.service(), elapsed)
	if err != nil {
		return notMeasured, err
	}
	for _, file := range []struct {
		name, path string
		content    []byte
	}{{"chart", o.svg, picture}, {"figures", o.json, figures}} {
		if file.path == "" {
			continue
		}
		if err := os.WriteFile(file.path, file.content, 0o644); err != nil {
			return notMeasured, err
		}
		if _, err := fmt.Fprintf(stdout, "%-8s %s\n", file.name, file.path); err != nil {
			return notMeasured, err
		}
	}
	return allMeasured, nil
}

// writable returns why a file can't be written to, and leaves it as it is.
func writable(path string) error {
	if path == "" {
		return nil
	}
	if info, err := os.Stat(path); err == nil {
		if info.IsDir() {
			return errors.New("is a folder")
		}
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return file.Close()
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(file.Close(), os.Remove(path))
}

// reason is an error without the path, which a message about a flag has already.
func reason(err error) error {
	if at := new(fs.PathError); errors.As(err, &at) {
		return at.Err
	}
	return err
}
