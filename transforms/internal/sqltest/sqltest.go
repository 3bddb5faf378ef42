// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package sqltest is what the tests of sqllookup and sqlwrite share: the databases
// that their suites run on, and a bundle in the middle of which something happens.
package sqltest

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/internal/servertest"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
)

// A Server is one that a suite runs on.
type Server struct {
	*servertest.Server // nil for SQLite
	sqldb.Database
	*sql.DB // for the tests' own statements
	T       *testing.T
}

// SQLite is a database in a file.
func SQLite(t *testing.T) Server {
	return open(t, nil, "sqlite", sqldb.Database{Driver: sqldb.SQLite, DSN: "file:" + filepath.Join(t.TempDir(), "test.db")})
}

// Postgres starts a PostgreSQL.
func Postgres(t *testing.T, settings ...string) Server {
	return OfPostgres(t, servertest.Postgres(t, settings...))
}

// OfPostgres is a PostgreSQL that has been started.
func OfPostgres(t *testing.T, s *servertest.Server) Server {
	return open(t, s, "pgx", Named(t, sqldb.PostgreSQL, s))
}

// MariaDB starts a MariaDB.
func MariaDB(t *testing.T, options ...string) Server {
	s := servertest.MariaDB(t, options...)
	return open(t, s, "mysql", Named(t, sqldb.MySQL, s))
}

// Named puts the server's data source name, which has a password, into the
// environment.
func Named(t *testing.T, driver sqldb.Driver, s *servertest.Server) sqldb.Database {
	variable := strings.ToUpper(string(driver)) + "_TEST_DSN"
	t.Setenv(variable, s.DSN)
	return sqldb.Database{Driver: driver, DSNEnv: variable}
}

func open(t *testing.T, s *servertest.Server, driver string, d sqldb.Database) Server {
	dsn := d.DSN + "?_pragma=busy_timeout(10000)" // for calls of the test before that are under way
	if s != nil {
		dsn = s.DSN
	}
	db, err := sql.Open(driver, dsn)
	require.NoError(t, err)
	db.SetMaxIdleConns(-1) // faults end what is idle
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return Server{s, d, db, t}
}

// Without returns the server for a test that finds none of these tables there.
func (s Server) Without(t *testing.T, tables ...string) Server {
	s.T = t
	for _, table := range tables {
		s.Run("DROP TABLE IF EXISTS " + table)
	}
	return s
}

// Run executes a statement.
func (s Server) Run(statement string, args ...any) {
	s.T.Helper()
	_, err := s.ExecContext(s.T.Context(), statement, args...)
	require.NoError(s.T, err, statement)
}

// Count returns the number of a table's rows.
func (s Server) Count(table string) (n int) {
	s.T.Helper()
	require.NoError(s.T, s.QueryRowContext(s.T.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n))
	return n
}

// Text is the type of a column of text that tells any two strings apart.
func (s Server) Text() string {
	if s.Database.Driver == sqldb.MySQL {
		return "VARCHAR(500) COLLATE utf8mb4_nopad_bin"
	}
	return "TEXT"
}

// onAttempt, if set, is told the attempt of each call.
var onAttempt atomic.Pointer[func(int)]

// Attempted says that a call has begun, with ctx. The callers of Through call it.
func Attempted(ctx context.Context) {
	if told := onAttempt.Load(); told != nil {
		(*told)(batchasync.InfoFrom(ctx).Attempt)
	}
}

// Through drives inputs through a DoFn, and calls fault, if it isn't nil, in the
// middle of the bundle, with a channel that is closed once a call is made for the
// third time. Nothing may be lost, doubled or failed.
func (s Server) Through(fn any, inputs []batchasynctest.Element, answer func(any) any, fault func(third <-chan struct{})) *batchasynctest.Outputs {
	third := make(chan struct{})
	var once sync.Once
	onAttempt.Store(new(func(attempt int) {
		if attempt == 3 {
			once.Do(func() { close(third) })
		}
	}))
	defer onAttempt.Store(nil)
	h := batchasynctest.NewHarness(s.T, fn).Clone(s.T)
	require.NoError(s.T, h.Start())
	for i, e := range inputs {
		if i == len(inputs)/2 && fault != nil {
			fault(third)
		}
		require.NoError(s.T, h.Process(e))
	}
	require.NoError(s.T, h.Finish())
	batchasynctest.RequireExactlyOnce(s.T, inputs, h.Outputs(), answer)
	require.Empty(s.T, h.Outputs().Failures())
	return h.Outputs()
}

// Restart is a fault for Through: the server ends, and is started again when a call
// is made for the third time. The second function waits until it has started.
func (s Server) Restart(end func(*servertest.Server)) (fault func(third <-chan struct{}), wait func()) {
	started := make(chan struct{})
	fault = func(third <-chan struct{}) {
		end(s.Server)
		go func() {
			defer close(started)
			<-third
			s.Server.Start()
		}()
	}
	return fault, func() { <-started }
}

// Retries is what a bundle has counted of them.
func Retries(o *batchasynctest.Outputs) int64 {
	return o.Counter(batchasync.MetricsNamespace, "retries")
}
