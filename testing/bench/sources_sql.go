// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/batchasync/beam-batchasync/internal/servertest"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
	"github.com/batchasync/beam-batchasync/transforms/sqllookup"
)

const (
	postgresQuery = "SELECT code, name, people, latitude FROM town WHERE code = ANY($1)"
	listQuery     = "SELECT code, name, people, latitude FROM town WHERE code IN (?)"
	townTable     = "CREATE TABLE town (code VARCHAR(20) PRIMARY KEY, name VARCHAR(40) NOT NULL, people BIGINT NOT NULL, latitude DOUBLE PRECISION NOT NULL)"
)

// check ends a scene if there is an error.
func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sourceOf is a source that is set up until the scene ends.
func sourceOf(ctx context.Context, t testing.TB, driver sqldb.Driver, dsn, query string) lookup {
	t.Helper()
	const variable = "BENCH_DSN"
	check(t, os.Setenv(variable, dsn))
	source := &sqllookup.Source[string, town]{
		Database: sqldb.Database{Driver: driver, DSNEnv: variable, MaxConns: lookupers},
		Query:    query,
	}
	check(t, source.Setup(ctx))
	t.Cleanup(func() {
		if err := source.Teardown(ctx); err != nil {
			t.Error(err)
		}
	})
	return source.Lookup
}

func postgres(ctx context.Context, t testing.TB) []match {
	server := servertest.Postgres(t, "shared_buffers=128MB")
	config, err := pgxpool.ParseConfig(server.DSN)
	check(t, err)
	config.MaxConns = lookupers
	pool, err := pgxpool.NewWithConfig(ctx, config)
	check(t, err)
	t.Cleanup(pool.Close)
	for _, statement := range []string{
		townTable,
		fmt.Sprintf("INSERT INTO town SELECT 'code-' || i, 'the name of ' || i, i, i / 7.0 FROM generate_series(0, %d) i", townRows-1),
		"VACUUM ANALYZE town", // or whoever comes first would tidy up
	} {
		_, err := pool.Exec(ctx, statement)
		check(t, err)
	}
	return []match{{
		"PostgreSQL, pgx",
		sourceOf(ctx, t, sqldb.PostgreSQL, server.DSN, postgresQuery),
		func(ctx context.Context, keys []string) (map[string]town, error) {
			rows, err := pool.Query(ctx, postgresQuery, keys)
			if err != nil {
				return nil, err
			}
			towns := make(map[string]town, len(keys))
			var row town
			_, err = pgx.ForEachRow(rows, []any{&row.Code, &row.Name, &row.People, &row.Latitude}, func() error {
				towns[row.Code] = row
				return nil
			})
			return towns, err
		},
		func(ctx context.Context, keys []string) (map[string]town, error) {
			towns := make(map[string]town, len(keys))
			for _, key := range keys {
				var row town
				err := pool.QueryRow(ctx, "SELECT code, name, people, latitude FROM town WHERE code = $1", key).
					Scan(&row.Code, &row.Name, &row.People, &row.Latitude)
				if err != nil {
					return nil, err
				}
				towns[row.Code] = row
			}
			return towns, nil
		},
	}}
}

func sqlite(ctx context.Context, t testing.TB) []match {
	dir, err := os.MkdirTemp("", "bench-sqlite-")
	check(t, err)
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	dsn := "file:" + filepath.Join(dir, "town.db")
	return []match{listMatch(ctx, t, "SQLite, modernc.org/sqlite", "sqlite", sqldb.SQLite, dsn+"?_pragma=busy_timeout(5000)", dsn)}
}

func mariadb(ctx context.Context, t testing.TB) []match {
	server := servertest.MariaDB(t)
	return []match{listMatch(ctx, t, "MariaDB, go-sql-driver", "mysql", sqldb.MySQL, server.DSN, server.DSN)}
}

// listMatch is for the databases that have no arrays: by hand it is a statement
// prepared for the number of keys.
func listMatch(ctx context.Context, t testing.TB, name, driverName string, driver sqldb.Driver, dsn, sourceDSN string) match {
	db, err := sql.Open(driverName, dsn)
	check(t, err)
	closing := func(close func() error) {
		t.Cleanup(func() {
			if err := close(); err != nil {
				t.Error(err)
			}
		})
	}
	closing(db.Close)
	db.SetMaxOpenConns(lookupers)
	db.SetMaxIdleConns(lookupers)
	check(t, fillTowns(ctx, db))
	many, err := db.PrepareContext(ctx, strings.Replace(listQuery, "(?)", "(?"+strings.Repeat(",?", lookups-1)+")", 1))
	check(t, err)
	closing(many.Close)
	one, err := db.PrepareContext(ctx, "SELECT code, name, people, latitude FROM town WHERE code = ?")
	check(t, err)
	closing(one.Close)
	return match{
		name,
		sourceOf(ctx, t, driver, sourceDSN, listQuery),
		func(ctx context.Context, keys []string) (_ map[string]town, err error) {
			args := make([]any, len(keys))
			for i, key := range keys {
				args[i] = key
			}
			rows, err := many.QueryContext(ctx, args...)
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, rows.Close()) }()
			towns := make(map[string]town, len(keys))
			for rows.Next() {
				var row town
				if err := rows.Scan(&row.Code, &row.Name, &row.People, &row.Latitude); err != nil {
					return nil, err
				}
				towns[row.Code] = row
			}
			return towns, rows.Err()
		},
		func(ctx context.Context, keys []string) (map[string]town, error) {
			towns := make(map[string]town, len(keys))
			for _, key := range keys {
				var row town
				if err := one.QueryRowContext(ctx, key).Scan(&row.Code, &row.Name, &row.People, &row.Latitude); err != nil {
					return nil, err
				}
				towns[row.Code] = row
			}
			return towns, nil
		},
	}
}

// fillTowns makes the table.
func fillTowns(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, townTable); err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	const rows = 500
	insert, err := tx.PrepareContext(ctx, "INSERT INTO town VALUES (?,?,?,?)"+strings.Repeat(",(?,?,?,?)", rows-1))
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	for i := 0; i < townRows; i += rows {
		var args []any
		for j := range rows {
			r := townOf(i + j)
			args = append(args, r.Code, r.Name, r.People, r.Latitude)
		}
		if _, err := insert.ExecContext(ctx, args...); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}
