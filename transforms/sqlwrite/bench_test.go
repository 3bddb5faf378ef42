// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/internal/servertest"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
	"github.com/batchasync/beam-batchasync/transforms/sqlwrite"
)

// BenchmarkCopyOrInsert shows from which size on COPY by way of a temporary table
// is faster than arrays: the default of Writer.CopyFrom. An operation is a batch that
// replaces rows.
func BenchmarkCopyOrInsert(b *testing.B) {
	server := servertest.Postgres(b)
	b.Setenv("SQLWRITE_BENCH_DSN", server.DSN)
	db, err := sql.Open("pgx", server.DSN)
	require.NoError(b, err)
	defer func() { require.NoError(b, db.Close()) }()
	_, err = db.Exec("CREATE TABLE station (id BIGINT PRIMARY KEY, full_name TEXT)")
	require.NoError(b, err)
	for _, size := range []int{100, 1000, 5000, 20_000} {
		rows := make([]Station, size)
		for i := range rows {
			rows[i] = Station{int64(i), fmt.Sprint("the name of ", i)}
		}
		for name, from := range map[string]int{"insert": -1, "copy": 1} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				w := &sqlwrite.Writer[Station]{
					Database: sqldb.Database{Driver: sqldb.PostgreSQL, DSNEnv: "SQLWRITE_BENCH_DSN"},
					Table:    "station", Key: []string{"id"}, CopyFrom: from,
				}
				ctx := context.Background()
				require.NoError(b, w.Setup(ctx))
				defer func() { require.NoError(b, w.Teardown(ctx)) }()
				_, err := db.Exec("TRUNCATE station")
				require.NoError(b, err)
				for b.Loop() {
					_, err := w.Call(ctx, rows)
					require.NoError(b, err)
				}
				b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}
