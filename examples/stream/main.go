// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Stream reads orders from NATS JetStream, looks up their customers in Redis, and
// writes them into SQLite or PostgreSQL, with a total for each country and window,
// until it is interrupted. A generator publishes the orders.
//
//	go run ./examples/stream
//
// All servers are embedded, unless flags name others. Its exit status is 0 if each
// order that was published has ended once, as a row or as a dead letter, 1 if not or
// if the job could not run, and 2 if a flag is wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/enrich"
	"github.com/batchasync/beam-batchasync/transforms/redislookup"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
	"github.com/batchasync/beam-batchasync/transforms/sqlwrite"
)

func init() {
	enrich.Register(&redislookup.Strings[Customer]{}, addCustomer{})
	sqlwrite.Register[Sale]()
	sqlwrite.Register[DeadLetter]()
	sqlwrite.Register[Total]()
}

// build makes the pipeline. run is what the rows of this run are known by.
func build(s beam.Scope, run string, source *readFn, server redislookup.Server, database sqldb.Database, o options) {
	messages := beam.ParDo(s, source, beam.Impulse(s))
	orders, broken := beam.ParDo2(s, &parseFn{Run: run}, messages)
	// Without this, what follows would be a part of the source's bundles, of which
	// there is one at a time. Behind it several are open at once.
	orders = beam.WindowInto(s, window.NewFixedWindows(o.window), beam.Reshuffle(s, orders))

	batches := []batchasync.Option{batchasync.BatchSize(o.batchSize), batchasync.Linger(o.linger)}
	if o.across {
		batches = append(batches, batchasync.AcrossBundles()) // for bundles are small
	}
	customers := &redislookup.Strings[Customer]{Server: server, Prefix: prefix(run)}
	sales, unknown := enrich.ParDoWithFailures(s, customers, addCustomer{Run: run}, enrich.DeadLetterMissing, orders, batches...)

	table := &sqlwrite.Writer[Sale]{Database: database, Table: "sale", Key: []string{"id"}}
	written, refused := sqlwrite.WriteWithFailures(s, table, sales, batches...)

	letters := beam.Flatten(s,
		beam.WindowInto(s, window.NewFixedWindows(o.window), broken),
		beam.ParDo(s, &unknownFn{Run: run}, unknown),
		beam.ParDo(s, &refusedFn{Run: run}, refused))
	buried := sqlwrite.Write(s, &sqlwrite.Writer[DeadLetter]{Database: database, Table: "dead_letter", Key: []string{"id"}}, letters)
	// While a bundle without any output waits, for a call say, Prism keeps a processor
	// busy. This makes one: the stage ends here, and not with buriedFn.
	beam.ParDo0(s, &buriedFn{}, beam.Reshuffle(s, buried))

	byCountry := beam.CombinePerKey(s, addUp, beam.ParDo(s, &writtenFn{}, written)) // in each window
	totals := beam.ParDo(s, &totalFn{Run: run}, byCountry)
	sqlwrite.Write(s, &sqlwrite.Writer[Total]{Database: database, Table: "total", Key: []string{"run", "opens", "country"}}, totals)
}

// Exit statuses.
const (
	allAccounted = 0
	notRun       = 1
	wrongFlag    = 2 // as the flag package has it
)

// options are the program's flags.
type options struct {
	rate            int
	length          time.Duration
	window          time.Duration
	batchSize       int
	across          bool
	linger          time.Duration
	nats, natsCreds string // empty: an embedded server
	redis           string // empty: an embedded server
	sqlite          string
	postgresDSNEnv  string // empty: SQLite
	every           time.Duration
}

func main() {
	var o options
	flag.IntVar(&o.rate, "rate", 500, "orders that are published a second")
	flag.DurationVar(&o.length, "for", 0, "how long orders are published; 0: until the program is interrupted")
	flag.DurationVar(&o.window, "window", 10*time.Second, "length of a window, for which each country's total is written")
	flag.IntVar(&o.batchSize, "batch_size", 100, "most orders in a call to Redis, and most rows in a statement")
	flag.DurationVar(&o.linger, "linger", 20*time.Millisecond, "how long a call waits for more orders")
	flag.BoolVar(&o.across, "across_bundles", true, "let bundles share batches")
	flag.StringVar(&o.nats, "nats", "", "URL of a NATS server with JetStream, nats://host:port (default: one in the program)")
	flag.StringVar(&o.natsCreds, "nats_creds", "", "file with the credentials for it")
	flag.StringVar(&o.redis, "redis", "", "Redis, host:port or rediss://host:port, with its password, if any, in the environment variable "+redisPassword+" (default: one in the program)")
	flag.StringVar(&o.sqlite, "sqlite", "stream.sqlite", "SQLite file to write to")
	flag.StringVar(&o.postgresDSNEnv, "postgres_dsn_env", "", "environment variable with the DSN of a PostgreSQL database to write to, in place of SQLite")
	flag.DurationVar(&o.every, "every", 5*time.Second, "how often to print a line of figures")
	verbose := flag.Bool("verbose", false, "show what Beam logs")
	flag.Parse()

	log.LogLevel = "warn"
	if *verbose {
		log.LogLevel = "info"
	}
	beam.Init() // in a worker, it does not return
	if !*verbose {
		slog.SetDefault(slog.New(slog.DiscardHandler)) // Prism's, which logs errors that it also returns
	}
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "stream: it takes flags alone, but there is %q; see -help\n", flag.Arg(0))
		os.Exit(wrongFlag)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the stream, a second one the program.
	context.AfterFunc(ctx, stop)
	status, err := run(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "stream:", err)
	}
	os.Exit(status)
}

// check returns what is wrong with the flags.
func (o options) check() error {
	switch {
	case o.rate < 1:
		return fmt.Errorf("-rate %d: must be at least 1", o.rate)
	case o.length < 0:
		return fmt.Errorf("-for %v: must not be negative", o.length)
	case o.window < time.Millisecond:
		return fmt.Errorf("-window %v: must be at least 1ms", o.window)
	case o.batchSize < 1:
		return fmt.Errorf("-batch_size %d: must be at least 1", o.batchSize)
	case o.linger < 0:
		return fmt.Errorf("-linger %v: must not be negative", o.linger)
	case o.every <= 0:
		return fmt.Errorf("-every %v: must be more than 0", o.every)
	case strings.Contains(o.nats, "@"):
		// It isn't quoted, for this is shown.
		return errors.New("-nats: there is a user or a token in the URL, and it would travel in the pipeline's description: put it into a file, and name that by -nats_creds")
	case o.postgresDSNEnv != "" && os.Getenv(o.postgresDSNEnv) == "":
		return fmt.Errorf("-postgres_dsn_env %s: the environment variable is not set", o.postgresDSNEnv)
	case o.postgresDSNEnv == "" && o.sqlite == "":
		return errors.New("-sqlite must not be empty")
	}
	return nil
}
