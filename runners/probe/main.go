// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Probe shows what a runner hands over to a DoFn: the sizes of its bundles, how
// many are open at once and in how many processes, whether Teardown is called,
// and what happens to a bundle that fails.
//
//	go run ./runners/probe -runner prism
//	go run ./runners/flink -- go run ./runners/probe -source stream -n 400
//
// The workers may be in other processes, but must be on the same machine: they
// write down what happens in a file, and the figures are read from it.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners" // the flag -runner
	//lint:ignore SA1019 Prism is to replace it, but it is still there to be asked
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/direct"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/flink"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"github.com/batchasync/beam-batchasync/internal/ticks"
)

func init() {
	register.DoFn2x1[context.Context, []byte, error](&probeFn{})
	register.DoFn2x0[[]byte, func([]byte)](&expandFn{})
	register.DoFn1x1[int, []byte](&bytesFn{})
	register.Emitter1[[]byte]()
}

// An event is one line of the file.
type event struct {
	What     string // setup, start, finish, teardown, fail or done
	Process  int
	Instance int64     // of the DoFn, in its process
	Bundle   int64     // in its process
	Elements int       // of a bundle that finishes
	Open     int64     // bundles that are open in the process
	At       time.Time // on the machine's clock
}

// The state of a worker process.
var (
	instances, bundles, open, elements atomic.Int64
	failed                             atomic.Bool

	mu   sync.Mutex
	file *os.File
)

// note writes an event; O_APPEND keeps the lines of several processes whole.
func note(path string, e event) error {
	e.Process, e.At = os.Getpid(), time.Now()
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	if file == nil {
		if file, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0); err != nil {
			return err
		}
	}
	_, err = file.Write(append(line, '\n'))
	return err
}

// probeFn writes down what the runner does with it.
type probeFn struct {
	Log    string
	FailAt int           // element of the process that fails, once; 0: none
	Take   time.Duration // what an element takes

	instance, bundle int64
	n                int
}

func (f *probeFn) Setup(context.Context) error {
	f.instance = instances.Add(1)
	return note(f.Log, event{What: "setup", Instance: f.instance})
}

func (f *probeFn) StartBundle(context.Context) error {
	f.n, f.bundle = 0, bundles.Add(1)
	return note(f.Log, event{What: "start", Instance: f.instance, Bundle: f.bundle, Open: open.Add(1)})
}

func (f *probeFn) ProcessElement(ctx context.Context, _ []byte) error {
	f.n++
	if f.Take > 0 {
		time.Sleep(f.Take) // it stands for a slow service
	}
	if int(elements.Add(1)) == f.FailAt && failed.CompareAndSwap(false, true) {
		open.Add(-1)
		instance, bundle, path := f.instance, f.bundle, f.Log
		context.AfterFunc(ctx, func() {
			// Nobody is left to whom an error could be told.
			_ = note(path, event{What: "done", Instance: instance, Bundle: bundle})
		})
		return errors.Join(errors.New("probe: it fails, as it was told to"),
			note(f.Log, event{What: "fail", Instance: f.instance, Bundle: f.bundle, Elements: f.n}))
	}
	return nil
}

func (f *probeFn) FinishBundle(context.Context) error {
	open.Add(-1)
	return note(f.Log, event{What: "finish", Instance: f.instance, Bundle: f.bundle, Elements: f.n})
}

func (f *probeFn) Teardown(context.Context) error {
	return note(f.Log, event{What: "teardown", Instance: f.instance})
}

// expandFn makes n elements of one.
type expandFn struct{ N int }

func (f *expandFn) ProcessElement(b []byte, emit func([]byte)) {
	for range f.N {
		emit(b)
	}
}

type bytesFn struct{}

func (*bytesFn) ProcessElement(int) []byte { return nil }

func main() {
	source := flag.String("source", "batch", "batch: elements that are there; stream: elements that come by and by")
	n := flag.Int("n", 100_000, "elements")
	rate := flag.Int("rate", 100, "elements a second, with -source stream")
	after := flag.Duration("after", 0, "how long after the job's launch the first element comes, with -source stream; what is due before the job runs comes at once")
	reshuffle := flag.Bool("reshuffle", false, "put a Reshuffle before the DoFn")
	failAt := flag.Int("fail_at", 0, "let this element fail, once in a process; 0: none")
	take := flag.Duration("take", 0, "what an element takes")
	most := flag.Duration("for", time.Hour, "how long to wait for the job's end: with checkpoints, Flink ends no stream")
	grace := flag.Duration("grace", 0, "how long to look on after the job's end, for what comes late")
	flag.Parse()
	log.LogLevel = "error"
	beam.Init() // in a worker, it does not return
	if *source != "batch" && *source != "stream" || *n < 1 || *rate < 1 {
		fmt.Fprintf(os.Stderr, "probe: -source %s -n %d -rate %d: must be batch or stream, and at least 1\n", *source, *n, *rate)
		os.Exit(2)
	}

	dir, err := os.MkdirTemp("", "probe-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
	path := filepath.Join(dir, "events.jsonl")
	err = os.WriteFile(path, nil, 0o600)
	if err == nil {
		p, s := beam.NewPipelineWithRoot()
		var col beam.PCollection
		if *source == "stream" {
			col = beam.ParDo(s, &bytesFn{}, ticks.Count(s, time.Now().Add(*after), *n, *rate))
		} else {
			col = beam.ParDo(s, &expandFn{N: *n}, beam.Impulse(s))
		}
		if *reshuffle {
			col = beam.Reshuffle(s, col)
		}
		beam.ParDo0(s, &probeFn{Log: path, FailAt: *failAt, Take: *take}, col)
		start := time.Now()
		ctx, stop := context.WithTimeout(context.Background(), *most)
		defer stop()
		_, jobErr := beam.Run(ctx, cmp.Or(*runners.Runner, "prism"), p)
		end := time.Now()
		time.Sleep(*grace)
		fmt.Printf("job         %v, %s\n", end.Sub(start).Round(time.Millisecond), outcome(jobErr))
		err = report(path, end)
	}
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func outcome(err error) string {
	if err == nil {
		return "ended well"
	}
	if strings.Contains(err.Error(), "context deadline exceeded") {
		return "goes on"
	}
	if strings.Contains(err.Error(), "as it was told to") {
		return "failed by the element that failed"
	}
	return "failed: " + err.Error()
}

// report prints the figures.
func report(path string, end time.Time) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var sizes []int
	var empty, started, setUp, tornDown, late int
	var atOnce int64
	processes := map[int]bool{}
	var failure *event
	done := "did not end while the probe ran"
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return err
		}
		processes[e.Process] = true
		switch e.What {
		case "setup":
			setUp++
		case "start":
			started++
			atOnce = max(atOnce, e.Open)
			if failure != nil && e.At.After(failure.At) {
				late++
			}
		case "finish":
			if e.Elements == 0 {
				empty++
			}
			sizes = append(sizes, e.Elements)
		case "teardown":
			tornDown++
		case "fail":
			failure = &e
		case "done":
			done = fmt.Sprintf("ended %v after the failure, %v after the job", e.At.Sub(failure.At).Round(time.Millisecond), e.At.Sub(end).Round(time.Millisecond))
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	fmt.Printf("processes   %d\n", len(processes))
	fmt.Printf("bundles     %d started, %d finished, %d of them empty, %d open at once in a process\n", started, len(sizes), empty, atOnce)
	if slices.Sort(sizes); len(sizes) > 0 {
		fmt.Printf("elements    %d smallest, %d median, %d largest bundle\n", sizes[0], sizes[len(sizes)/2], sizes[len(sizes)-1])
	}
	fmt.Printf("instances   %d set up, %d torn down\n", setUp, tornDown)
	if failure != nil {
		fmt.Printf("failure     at element %d of its bundle; its ctx %s; %d bundles started after it\n", failure.Elements, done, late)
	}
	return nil
}
