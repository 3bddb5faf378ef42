// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Bench compares batchasync with what one would do without it, on one service and
// in one run:
//
//	make compare            # from the root: the table
//	go run . -scale         # here: what grows with the elements, calls, batches, bundles
//	go run . -sources       # here: sources against their drivers, on real servers
//
// The service, over HTTP on the loopback address, and each contestant run in
// processes of their own, which this program starts, so that the heap and the CPU
// time are the contestant's alone, with Beam's.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
)

// options are what the user may choose.
type options struct {
	scale, sources, smoke bool
	seconds               float64
	rounds                int
	json, svg             string // folders; empty: none
}

func main() {
	var o options
	flag.BoolVar(&o.scale, "scale", false, "measure what grows with the elements, the calls at once, the batches and the bundles")
	flag.BoolVar(&o.sources, "sources", false, "measure the sources for SQL and Redis against their drivers")
	flag.BoolVar(&o.smoke, "smoke", false, "few elements, and a check of the table's exact columns")
	flag.Float64Var(&o.seconds, "seconds", 0, "about how long a contestant runs in a round (default 3; with -sources 0.1)")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds, of which the medians are shown (default 3; with -sources 51)")
	flag.StringVar(&o.json, "json", "", "folder for all figures (default: none)")
	flag.StringVar(&o.svg, "svg", "", "folder for the charts (default: none)")
	serving := flag.Bool("serve", false, "internal: be the service")
	ordered := flag.String("run", "", "internal: run one contestant, as JSON says")
	pointed := flag.String("point", "", "internal: measure one point, as JSON says")
	profile := flag.String("cpuprofile", "", "internal: file for a CPU profile of -run or -point")
	flag.Parse()
	log.LogLevel = "error"
	slog.SetDefault(slog.New(slog.DiscardHandler)) // Prism's
	beam.Init()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the run, a second one the program.
	context.AfterFunc(ctx, stop)
	switch {
	case o.smoke:
		o.seconds, o.rounds = 0.02, 1
	case o.sources:
		o.seconds, o.rounds = cmp.Or(o.seconds, 0.1), cmp.Or(o.rounds, 51)
	default:
		o.seconds, o.rounds = cmp.Or(o.seconds, 3), cmp.Or(o.rounds, 3)
	}
	err := startProfile(*profile)
	switch {
	case err != nil:
	case *serving:
		err = serve()
	case *ordered != "":
		err = child(ctx, *ordered, obey)
	case *pointed != "":
		err = child(ctx, *pointed, func(ctx context.Context, p point) (measured, error) { return p.take(ctx) })
	case flag.NArg() > 0:
		err = fmt.Errorf("it takes flags alone, but there is %q; see -help", flag.Arg(0))
	case !(o.seconds > 0 && o.seconds <= 60) || o.rounds < 1:
		err = fmt.Errorf("-seconds %v -rounds %d: must be more than 0 and at most 60, and at least 1", o.seconds, o.rounds)
	case o.scale:
		err = scale(ctx, o)
	case o.sources:
		err = sources(ctx, o)
	default:
		err = compare(ctx, o)
	}
	pprof.StopCPUProfile()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// startProfile starts one, if there is a file for it.
func startProfile(path string) error {
	if path == "" {
		return nil
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	return pprof.StartCPUProfile(file)
}

// child does what a parent wants of this process.
func child[Order, Result any](ctx context.Context, text string, do func(context.Context, Order) (Result, error)) error {
	var o Order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	r, err := do(ctx, o)
	return errors.Join(err, answer(r))
}
