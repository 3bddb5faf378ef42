// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite_test

import (
	"database/sql"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/internal/servertest"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
)

func TestMain(m *testing.M) {
	beam.Init()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // or Prism tells each job's life
	os.Exit(m.Run())
}

// A server is one that the suite runs on, with a table of cities.
type server struct {
	*servertest.Server // nil for SQLite
	sqldb.Database
	*sql.DB  // for the tests' own statements
	t        *testing.T
	copyFrom int // of the Writer
}

// onEach runs tests on SQLite and on the real servers, of which each is started once.
func onEach(t *testing.T, tests map[string]func(*testing.T, server)) {
	for name, start := range map[string]func(*testing.T) server{
		"SQLite":     sqlite,
		"PostgreSQL": func(t *testing.T) server { return postgres(t) },
		"PostgreSQL by COPY": func(t *testing.T) server {
			s := postgres(t)
			s.copyFrom = 1
			return s
		},
		"MariaDB": func(t *testing.T) server { return mariadb(t) },
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
			for _, table := range []string{"city", "n", "odd"} {
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
	return server{s, d, db, t, 0}
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

func (s server) count(table string) (n int) {
	s.t.Helper()
	require.NoError(s.t, s.QueryRowContext(s.t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n))
	return n
}
