// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqllookup_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/internal/servertest"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
	"github.com/batchasync/beam-batchasync/transforms/sqllookup"
)

func TestMain(m *testing.M) {
	beam.Init()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // or Prism tells each job's life
	os.Exit(m.Run())
}

// asking is a caller that answers an element with what a source has for it.
type asking[K comparable, V any] struct{ Source *sqllookup.Source[K, V] }

type answer[V any] struct {
	Value V
	Found bool
}

func (a *asking[K, V]) Setup(ctx context.Context) error    { return a.Source.Setup(ctx) }
func (a *asking[K, V]) Teardown(ctx context.Context) error { return a.Source.Teardown(ctx) }
func (a *asking[K, V]) Key(key K) string                   { return fmt.Sprint(key) }

// onAttempt, if set, is told the attempt of each call.
var onAttempt atomic.Pointer[func(int)]

func (a *asking[K, V]) Call(ctx context.Context, keys []K) ([]answer[V], error) {
	if told := onAttempt.Load(); told != nil {
		(*told)(batchasync.InfoFrom(ctx).Attempt)
	}
	values, err := a.Source.Lookup(ctx, keys)
	answers := make([]answer[V], len(keys))
	for i, key := range keys {
		answers[i].Value, answers[i].Found = values[key]
	}
	return answers, err
}

// ask asks a source for keys, in one bundle. The options come after Dedup, which
// a source relies on.
func ask[K comparable, V any](t *testing.T, db sqldb.Database, query string, keys []K, opts ...batchasync.Option) *batchasynctest.Outputs {
	source := &sqllookup.Source[K, V]{Database: db, Query: query}
	fn := batchasync.New(&asking[K, V]{source}, append([]batchasync.Option{batchasync.Dedup(), batchasync.MaxInFlight(8), batchasync.MaxAttempts(2), batchasync.RetryInterval(1)}, opts...)...)
	outputs, err := batchasynctest.NewHarness(t, fn).Clone(t).Bundle(elements(keys)...)
	require.NoError(t, err)
	return outputs
}

func elements[K any](keys []K) []batchasynctest.Element { return batchasynctest.Values(keys...) }

// A server is one that the suite runs on, with a table of cities.
type server struct {
	*servertest.Server // nil for SQLite
	sqldb.Database
	*sql.DB // for the tests' own statements
	t       *testing.T
}

// onEach runs tests on SQLite and on the real servers, of which each is started once.
func onEach(t *testing.T, tests map[string]func(*testing.T, server)) {
	for name, start := range map[string]func(*testing.T) server{
		"SQLite":     sqlite,
		"PostgreSQL": func(t *testing.T) server { return postgres(t) },
		"MariaDB":    func(t *testing.T) server { return mariadb(t) },
	} {
		t.Run(name, func(t *testing.T) { each(t, start(t), tests) })
	}
}

// each runs tests on a server, which has no tables when one begins.
func each(t *testing.T, s server, tests map[string]func(*testing.T, server)) {
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := s
			s.t = t
			for _, table := range []string{"city", "t", "n", "tag"} {
				s.exec("DROP TABLE IF EXISTS " + table)
			}
			test(t, s)
		})
	}
}

func sqlite(t *testing.T) server {
	return opened(t, nil, "sqlite", sqldb.Database{Driver: sqldb.SQLite, DSN: "file:" + filepath.Join(t.TempDir(), "test.db")})
}

func postgres(t *testing.T, settings ...string) server {
	s := servertest.Postgres(t, settings...)
	return opened(t, s, "pgx", named(t, sqldb.PostgreSQL, s))
}

func mariadb(t *testing.T, options ...string) server {
	s := servertest.MariaDB(t, options...)
	return opened(t, s, "mysql", named(t, sqldb.MySQL, s))
}

// named puts the server's data source name, which has a password, into the
// environment.
func named(t *testing.T, driver sqldb.Driver, s *servertest.Server) sqldb.Database {
	variable := strings.ToUpper(string(driver)) + "_TEST_DSN"
	t.Setenv(variable, s.DSN)
	return sqldb.Database{Driver: driver, DSNEnv: variable}
}

func opened(t *testing.T, s *servertest.Server, driver string, d sqldb.Database) server {
	dsn := d.DSN
	if s != nil {
		dsn = s.DSN
	}
	db, err := sql.Open(driver, dsn)
	require.NoError(t, err)
	db.SetMaxIdleConns(-1) // faults end what is idle
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return server{s, d, db, t}
}

func (s server) exec(statement string, args ...any) {
	s.t.Helper()
	_, err := s.ExecContext(s.t.Context(), statement, args...)
	require.NoError(s.t, err, statement)
}

// text is a column of text that tells any two strings apart.
func (s server) text() string {
	if s.Database.Driver == sqldb.MySQL {
		return "VARCHAR(500) COLLATE utf8mb4_nopad_bin"
	}
	return "TEXT"
}

// keys writes the end of a query for a key of one column.
func (s server) keys(column string) string {
	if s.Database.Driver == sqldb.PostgreSQL {
		return column + " = ANY($1)"
	}
	return column + " IN (?)"
}

// pairs joins the table t to a key of a text a and a number b.
func (s server) pairs() string {
	if s.Database.Driver == sqldb.PostgreSQL {
		return "JOIN unnest($1::text[], $2::bigint[]) AS k(a, b) ON t.a = k.a AND t.b = k.b"
	}
	return "WHERE (a, b) IN (?)"
}

// insert inserts rows, with the parameters of the driver.
func (s server) insert(table string, rows ...[]any) {
	s.t.Helper()
	for _, row := range rows {
		marks := make([]string, len(row))
		for i := range row {
			marks[i] = "?"
			if s.Database.Driver == sqldb.PostgreSQL {
				marks[i] = fmt.Sprintf("$%d", i+1)
			}
		}
		s.exec("INSERT INTO "+table+" VALUES ("+strings.Join(marks, ",")+")", row...)
	}
}

func (s server) count(table string) (n int) {
	s.t.Helper()
	require.NoError(s.t, s.QueryRowContext(s.t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n))
	return n
}
