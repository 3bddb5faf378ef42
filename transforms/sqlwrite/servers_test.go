// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite_test

import (
	"log/slog"
	"os"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/batchasync/beam-batchasync/transforms/internal/sqltest"
)

func TestMain(m *testing.M) {
	beam.Init()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // or Prism tells each job's life
	os.Exit(m.Run())
}

// A server is one that the suite runs on.
type server struct {
	sqltest.Server
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
			s.Server = s.Server.Without(t, "city", "n", "odd")
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
