// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
	"github.com/batchasync/beam-batchasync/transforms/sqlwrite"
)

// A Station is a row: each field goes to a column.
type Station struct {
	ID   int64
	Name string `db:"full_name"`
}

func init() {
	sqlwrite.Register[Station]()
	register.Function1x0(ignore)
	register.Function1x0(showFailure)
}

func ignore(Station) {}

func showFailure(f batchasync.Failure[Station]) {
	fmt.Println(f.Element.Name, "failed:", f.Error)
}

// A whole pipeline. For PostgreSQL, the Database would be {Driver:
// sqldb.PostgreSQL, DSNEnv: "STATIONS_DSN"}: the name of the environment variable in
// which the workers have the data source name.
func Example() {
	dir, err := os.MkdirTemp("", "stations")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "stations.db")
	db, err := sql.Open("sqlite", file)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := db.Exec("CREATE TABLE station (id INTEGER PRIMARY KEY CHECK (id > 0), full_name TEXT NOT NULL)"); err != nil {
		fmt.Println(err)
		return
	}

	p, s := beam.NewPipelineWithRoot()
	stations := beam.Create(s, Station{1, "Chur"}, Station{2, "Basel"}, Station{-1, "Nowhere"})
	writer := &sqlwrite.Writer[Station]{
		Database: sqldb.Database{Driver: sqldb.SQLite, DSN: "file:" + file},
		Table:    "station",
		Key:      []string{"id"},
	}
	written, failures := sqlwrite.WriteWithFailures(s, writer, stations, batchasync.BatchSize(1000))
	beam.ParDo0(s, ignore, written)
	beam.ParDo0(s, showFailure, failures)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	var count int
	if err := db.QueryRow("SELECT COUNT(*) FROM station").Scan(&count); err != nil {
		fmt.Println(err)
	}
	fmt.Println(count, "stations are in the table")
	if err := db.Close(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// Nowhere failed: constraint failed: CHECK constraint failed: id > 0 (275)
	// 2 stations are in the table
}
