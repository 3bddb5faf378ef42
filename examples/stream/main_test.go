// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"database/sql"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/batchasync/beam-batchasync/internal/servertest"
)

// asProgram has the test's executable run main, for tests of the process.
const asProgram = "STREAM_EXAMPLE_RUNS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main() // it exits
	}
	log.LogLevel = "error"
	beam.Init()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // Prism's
	os.Exit(m.Run())
}

// testOptions are the flags' defaults, but for a short run.
func testOptions(t *testing.T) options {
	return options{
		rate: 400, length: 3 * time.Second, window: time.Second, batchSize: 100, across: true, linger: 20 * time.Millisecond,
		sqlite: filepath.Join(t.TempDir(), "stream # 1.sqlite"), every: time.Second,
	}
}

// open opens the database that a run has written to.
func open(t *testing.T, o options) *sql.DB {
	_, pool, err := openDatabase(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	return pool.DB
}

func number(t *testing.T, db *sql.DB, query string) (n int64) {
	require.NoError(t, db.QueryRowContext(t.Context(), query).Scan(&n), query)
	return n
}

// figures are the numbers in a line of the summary.
func figures(t *testing.T, out, line string) (all []float64) {
	text := regexp.MustCompile(`(?m)^` + line + ` .*$`).FindString(out)
	for _, s := range regexp.MustCompile(`[0-9.]+(m?s)?`).FindAllString(text, -1) {
		if d, err := time.ParseDuration(s); err == nil {
			all = append(all, d.Seconds())
		} else if n, err := strconv.ParseFloat(s, 64); err == nil {
			all = append(all, n)
		}
	}
	require.NotEmpty(t, all, out)
	return all
}

// requireAll requires that each order of the only run in the database has ended once,
// in the way that it has to.
func requireAll(t *testing.T, o options, out string) {
	db := open(t, o)
	orders := figures(t, out, "orders")
	require.Len(t, orders, 3, out)
	published := int64(orders[0])
	require.InDelta(t, float64(o.rate)*o.length.Seconds(), float64(published), float64(o.rate)*0.2)
	rows, dead := number(t, db, "SELECT COUNT(*) FROM sale"), number(t, db, "SELECT COUNT(*) FROM dead_letter")
	require.Equal(t, []int64{rows, dead}, []int64{int64(orders[1]), int64(orders[2])})
	require.Equal(t, published, rows+dead)

	// The generator's nth order has n in its id.
	ended := map[string]string{}
	each(t, db, "SELECT id, error FROM dead_letter", func(id, why string) { ended[id] = why })
	each(t, db, "SELECT id, customer || ' ' || name || ' ' || country FROM sale", func(id, who string) {
		require.NotContains(t, ended, id)
		ended[id] = who
	})
	var run string
	require.NoError(t, db.QueryRow("SELECT DISTINCT run FROM sale").Scan(&run))
	for n := range published {
		got := ended[run+"-"+strconv.FormatInt(n, 10)]
		key, c := customer(int(n % customers))
		switch kind := n % ofThousand; {
		case kind < unknownUntil:
			require.Equal(t, `the source has no value for the key "nobody"`, got, n)
		case kind < refusedUntil:
			require.Regexp(t, `(?i)check constraint`, got, n)
		case kind < brokenUntil:
			require.Contains(t, got, "no order: invalid character 'o'", n)
		default:
			require.Equal(t, key+" "+c.Name+" "+c.Country, got, n)
		}
	}

	// The totals are those of the rows in their windows.
	require.Equal(t, rows, number(t, db, "SELECT SUM(sales) FROM total"))
	require.Equal(t, number(t, db, "SELECT SUM(cents) FROM sale"), number(t, db, "SELECT SUM(cents) FROM total"))
	require.Equal(t, byWindow(t, db, o, "SELECT published, country, 1 FROM sale"), byWindow(t, db, o, "SELECT opens, country, sales FROM total"))

	latency := figures(t, out, "latency") // p50, …, p99, …, longest
	p50, p99, longest := latency[1], latency[3], latency[4]
	require.Greater(t, p50, 0.0)
	require.LessOrEqual(t, p50, p99)
	require.LessOrEqual(t, p99, longest)
	require.Less(t, longest, 10.0)
	require.Greater(t, figures(t, out, "look-ups")[1], 1.0, "elements share batches")
}

func each(t *testing.T, db *sql.DB, query string, f func(a, b string)) {
	rows, err := db.QueryContext(t.Context(), query)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	for rows.Next() {
		var a, b string
		require.NoError(t, rows.Scan(&a, &b))
		f(a, b)
	}
	require.NoError(t, rows.Err())
}

// byWindow adds up by country and window.
func byWindow(t *testing.T, db *sql.DB, o options, query string) map[string]int64 {
	rows, err := db.QueryContext(t.Context(), query)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	sums := map[string]int64{}
	for rows.Next() {
		var column any
		var country string
		var n int64
		require.NoError(t, rows.Scan(&column, &country, &n))
		at, ok := column.(time.Time)
		if !ok { // SQLite has none
			at, err = time.Parse("2006-01-02 15:04:05.999999999-07:00", column.(string))
			require.NoError(t, err)
		}
		sums[country+" "+at.UTC().Truncate(o.window).String()] += n
	}
	require.NoError(t, rows.Err())
	return sums
}

func TestEachOrderEndsOnceOnEmbeddedServers(t *testing.T) {
	for name, across := range map[string]bool{"bundles share batches": true, "a batch is of one bundle": false} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			o.across = across
			var out syncBuffer
			status, err := run(t.Context(), o, &out)
			require.NoError(t, err)
			require.Equal(t, allAccounted, status)
			if log, err := os.Stat(o.sqlite + "-wal"); !errors.Is(err, fs.ErrNotExist) {
				require.NoError(t, err)
				require.Zero(t, log.Size(), "all rows are in the file itself")
			}
			requireAll(t, o, out.String())
		})
	}
}

func TestEachOrderEndsOnceOnRedisAndPostgreSQL(t *testing.T) {
	redis, postgres := servertest.Redis(t), servertest.Postgres(t)
	o := testOptions(t)
	o.redis, o.postgresDSNEnv = redis.Addr, "STREAM_TEST_DSN"
	t.Setenv("STREAM_TEST_DSN", postgres.DSN)
	var out syncBuffer
	status, err := run(t.Context(), o, &out)
	require.NoError(t, err)
	require.Equal(t, allAccounted, status)
	requireAll(t, o, out.String())
	require.NotContains(t, out.String(), postgres.Password)
	client := goredis.NewClient(&goredis.Options{Addr: redis.Addr})
	defer func() { require.NoError(t, client.Close()) }()
	left, err := client.DBSize(t.Context()).Result()
	require.NoError(t, err)
	require.Zero(t, left, "the customers are taken out again")
}

func TestASignalEndsTheStreamWithAllThatWasPublished(t *testing.T) {
	o := testOptions(t)
	o.length, o.every = 0, 500*time.Millisecond
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt)
	defer stop()
	before := goleak.IgnoreCurrent()
	out := syncBuffer{atLine: 3, then: func() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGINT)
	}}
	status, err := run(ctx, o, &out)
	require.NoError(t, err)
	require.Equal(t, allAccounted, status)
	require.Error(t, ctx.Err(), "it was the signal that ended it")
	// What batchasync keeps for ten minutes, for the next bundle: the writers'
	// connections.
	require.NoError(t, goleak.Find(before,
		goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"), goleak.IgnoreTopFunction("database/sql.(*DB).connectionCleaner")))
	o.length = 1500 * time.Millisecond // three lines
	requireAll(t, o, out.String())
}

func TestTheProgramEndsWithSuccessAfterASignal(t *testing.T) {
	o := testOptions(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-rate", "400", "-window", "1s", "-every", "500ms", "-sqlite", o.sqlite)
	cmd.Env = append(os.Environ(), asProgram+"=yes")
	out := syncBuffer{atLine: 3, then: func() { _ = cmd.Process.Signal(os.Interrupt) }}
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	require.NoError(t, cmd.Run(), stderr.String())
	require.Empty(t, stderr.String())
	o.length = 1500 * time.Millisecond
	requireAll(t, o, out.String())
}

func TestAStreamWhoseServerIsGoneEndsWithAnError(t *testing.T) {
	js, at, closeNATS, err := openNATS(t.Context(), options{})
	require.NoError(t, err)
	defer js.Conn().Close()
	o := testOptions(t)
	o.nats, o.length = at, 0
	var once sync.Once
	out := syncBuffer{atLine: 1, then: func() { once.Do(func() { go func() { _ = closeNATS() }() }) }}
	status, err := run(t.Context(), o, &out)
	require.Equal(t, notRun, status)
	require.ErrorContains(t, err, "generator: ")
	require.NotContains(t, out.String(), "orders ")
}

func TestARunIsAccountedForByItsOwnRows(t *testing.T) {
	o := testOptions(t)
	o.length = time.Second
	for range 2 {
		var out syncBuffer
		status, err := run(t.Context(), o, &out)
		require.NoError(t, err)
		require.Equal(t, allAccounted, status)
	}
	require.EqualValues(t, 2, number(t, open(t, o), "SELECT COUNT(DISTINCT run) FROM sale"))
}

func TestTheFiguresAreChecked(t *testing.T) {
	good := summary{published: 10, written: 8, failed: 2, totalled: 8, rowsWritten: 8, lettersWritten: 2}
	require.NoError(t, good.check())
	for _, test := range []struct {
		name  string
		spoil func(*summary)
		want  string
	}{
		{"an order is lost", func(s *summary) { s.published++ }, "10 rows and dead letters, of what was published: should be 11"},
		{"an order has ended in both ways", func(s *summary) { s.both = 1 }, "1 orders that are both a row and a dead letter: should be 0"},
		{"a row was written twice", func(s *summary) { s.rowsWritten = 9 }, "9 writes of a row, in place of one each: should be 8"},
		{"a dead letter was written twice", func(s *summary) { s.lettersWritten = 3 }, "3 writes of a dead letter, in place of one each: should be 2"},
		{"a sale is in no total", func(s *summary) { s.totalled = 7 }, "7 sales in the totals, of those that were written: should be 8"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := good
			test.spoil(&s)
			require.EqualError(t, s.check(), test.want)
		})
	}
}

func TestAWrongFlagIsRefused(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(*options)
		want  string
	}{
		{"no rate", func(o *options) { o.rate = 0 }, "-rate 0: must be at least 1"},
		{"a negative time", func(o *options) { o.length = -1 }, "-for -1ns: must not be negative"},
		{"no window", func(o *options) { o.window = 0 }, "-window 0s: must be at least 1ms"},
		{"no batch", func(o *options) { o.batchSize = 0 }, "-batch_size 0: must be at least 1"},
		{"a negative linger", func(o *options) { o.linger = -1 }, "-linger -1ns: must not be negative"},
		{"no interval", func(o *options) { o.every = 0 }, "-every 0s: must be more than 0"},
		{"no database", func(o *options) { o.sqlite = "" }, "-sqlite must not be empty"},
		{"a variable that isn't set", func(o *options) { o.postgresDSNEnv = "STREAM_UNSET" }, "-postgres_dsn_env STREAM_UNSET: the environment variable is not set"},
		{"a password for NATS", func(o *options) { o.nats = "nats://me:hunter2@there:4222" },
			"-nats: there is a user or a token in the URL, and it would travel in the pipeline's description: put it into a file, and name that by -nats_creds"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := testOptions(t)
			test.spoil(&o)
			status, err := run(t.Context(), o, &syncBuffer{})
			require.Equal(t, wrongFlag, status)
			require.EqualError(t, err, test.want)
		})
	}
	t.Run("a password for Redis", func(t *testing.T) {
		o := testOptions(t)
		o.redis = "redis://me:hunter2@there:6379"
		status, err := run(t.Context(), o, &syncBuffer{})
		require.Equal(t, notRun, status)
		require.ErrorContains(t, err, "the Address has a user or a password in it")
		require.NotContains(t, err.Error(), "hunter2")
	})
}

// syncBuffer keeps what is written to it, and calls a function at a line.
type syncBuffer struct {
	mu     sync.Mutex
	text   strings.Builder
	lines  int
	atLine int
	then   func()
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.lines
	b.lines += bytes.Count(p, []byte("\n"))
	if b.then != nil && before < b.atLine && b.lines >= b.atLine {
		b.then()
	}
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
