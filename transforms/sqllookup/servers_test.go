// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqllookup_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/internal/sqltest"
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

func (a *asking[K, V]) Call(ctx context.Context, keys []K) ([]answer[V], error) {
	sqltest.Attempted(ctx)
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

// A server is one that the suite runs on.
type server struct {
	sqltest.Server
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
			s.Server = s.Server.Without(t, "city", "t", "n", "tag")
			test(t, s)
		})
	}
}

func sqlite(t *testing.T) server { return server{Server: sqltest.SQLite(t)} }

func postgres(t *testing.T, settings ...string) server {
	return server{Server: sqltest.Postgres(t, settings...)}
}

func mariadb(t *testing.T, options ...string) server {
	return server{Server: sqltest.MariaDB(t, options...)}
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
	s.T.Helper()
	for _, row := range rows {
		marks := make([]string, len(row))
		for i := range row {
			marks[i] = "?"
			if s.Database.Driver == sqldb.PostgreSQL {
				marks[i] = fmt.Sprintf("$%d", i+1)
			}
		}
		s.Run("INSERT INTO "+table+" VALUES ("+strings.Join(marks, ",")+")", row...)
	}
}
