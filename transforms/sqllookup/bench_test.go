// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqllookup_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/internal/servertest"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
	"github.com/batchasync/beam-batchasync/transforms/sqllookup"
)

const (
	benchmarkRows  = 100_000
	benchmarkBatch = 100
	benchmarkCalls = 8 // at once
	benchmarkQuery = "SELECT code, name, people, latitude FROM town WHERE code = ANY($1)"
)

type town struct {
	Code     string
	Name     string
	People   int64
	Latitude float64
}

// BenchmarkLookup compares a Source with what one would write by hand with pgx for
// the same query and struct, on the same server, and with look-ups one by one. An
// operation is a batch of 100 keys; 8 are under way at once.
func BenchmarkLookup(b *testing.B) {
	server := servertest.Postgres(b, "shared_buffers=128MB")
	ctx := context.Background()
	config, err := pgxpool.ParseConfig(server.DSN)
	require.NoError(b, err)
	config.MaxConns = benchmarkCalls
	pool, err := pgxpool.NewWithConfig(ctx, config)
	require.NoError(b, err)
	defer pool.Close()
	for _, statement := range []string{
		"CREATE TABLE town (code TEXT PRIMARY KEY, name TEXT NOT NULL, people BIGINT NOT NULL, latitude DOUBLE PRECISION NOT NULL)",
		fmt.Sprintf("INSERT INTO town SELECT 'code-' || i, 'the name of ' || i, i, i / 7.0 FROM generate_series(0, %d) i", benchmarkRows-1),
		"VACUUM ANALYZE town", // or whoever comes first would tidy up
	} {
		_, err := pool.Exec(ctx, statement)
		require.NoError(b, err)
	}

	b.Setenv("SQLLOOKUP_BENCH_DSN", server.DSN)
	source := &sqllookup.Source[string, town]{
		Database: sqldb.Database{Driver: sqldb.PostgreSQL, DSNEnv: "SQLLOOKUP_BENCH_DSN", MaxConns: benchmarkCalls},
		Query:    benchmarkQuery,
	}
	require.NoError(b, source.Setup(ctx))
	defer func() { require.NoError(b, source.Teardown(ctx)) }()

	// What is first must not find a cold server.
	warm := make([]string, benchmarkRows)
	for i := range warm {
		warm[i] = fmt.Sprint("code-", i)
	}
	_, err = byHand(ctx, pool, warm)
	require.NoError(b, err)

	for _, way := range []struct {
		name   string
		lookup func([]string) (map[string]town, error)
	}{
		{"source", func(keys []string) (map[string]town, error) { return source.Lookup(ctx, keys) }},
		{"by hand", func(keys []string) (map[string]town, error) { return byHand(ctx, pool, keys) }},
		{"one by one", func(keys []string) (map[string]town, error) { return oneByOne(ctx, pool, keys) }},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(benchmarkCalls / 2) // times the two cores that it is measured on
			b.RunParallel(func(p *testing.PB) {
				keys := make([]string, benchmarkBatch)
				for p.Next() {
					first := rand.IntN(benchmarkRows)
					for i := range keys {
						keys[i] = fmt.Sprint("code-", (first+i*577)%benchmarkRows)
					}
					towns, err := way.lookup(keys)
					if err != nil || len(towns) != benchmarkBatch {
						b.Errorf("%d of %d: %v", len(towns), benchmarkBatch, err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)*benchmarkBatch/b.Elapsed().Seconds(), "keys/s")
		})
	}
}

// byHand is the best that we know to write with pgx.
func byHand(ctx context.Context, pool *pgxpool.Pool, keys []string) (map[string]town, error) {
	rows, err := pool.Query(ctx, benchmarkQuery, keys)
	if err != nil {
		return nil, err
	}
	towns := make(map[string]town, len(keys))
	var t town
	_, err = pgx.ForEachRow(rows, []any{&t.Code, &t.Name, &t.People, &t.Latitude}, func() error {
		towns[t.Code] = t
		return nil
	})
	return towns, err
}

func oneByOne(ctx context.Context, pool *pgxpool.Pool, keys []string) (map[string]town, error) {
	towns := make(map[string]town, len(keys))
	for _, key := range keys {
		var t town
		err := pool.QueryRow(ctx, "SELECT code, name, people, latitude FROM town WHERE code = $1", key).
			Scan(&t.Code, &t.Name, &t.People, &t.Latitude)
		if err != nil {
			return nil, err
		}
		towns[t.Code] = t
	}
	return towns, nil
}
