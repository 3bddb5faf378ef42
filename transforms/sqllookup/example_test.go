// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqllookup_test

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
	"github.com/batchasync/beam-batchasync/transforms/enrich"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
	"github.com/batchasync/beam-batchasync/transforms/sqllookup"
)

type Landing struct {
	Flight string
	At     string // the airport's code
}

type Airport struct {
	IATA string // the column iata
	Name string `db:"full_name"`
}

// withAirport adds the airport's name to a landing.
type withAirport struct{}

func (withAirport) Keys(l Landing) []string { return []string{l.At} }

func (withAirport) Join(l Landing, airports enrich.Found[string, Airport]) (string, error) {
	airport, _ := airports.Get(l.At)
	return fmt.Sprintf("%s: %s (%s)", l.Flight, airport.Name, airport.IATA), nil
}

func init() {
	enrich.Register(&sqllookup.Source[string, Airport]{}, withAirport{})
	register.Function1x0(show)
}

func show(text string) { fmt.Println(text) }

// A whole pipeline. With PostgreSQL, the Query would end in WHERE iata = ANY($1),
// and the Database be {Driver: sqldb.PostgreSQL, DSNEnv: "AIRPORTS_DSN"}: the name
// of the environment variable in which the workers have the data source name.
func Example() {
	file, err := airports()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(filepath.Dir(file)) }()

	p, s := beam.NewPipelineWithRoot()
	landings := beam.Create(s, Landing{"XA 1", "ZRH"}, Landing{"XA 2", "'; DROP TABLE airports; --"})
	source := &sqllookup.Source[string, Airport]{
		Database: sqldb.Database{Driver: sqldb.SQLite, DSN: "file:" + file + "?mode=ro"},
		Query:    "SELECT iata, full_name FROM airports WHERE iata IN (?)",
	}
	joined := enrich.ParDo(s, source, withAirport{}, enrich.DropMissing, landings, batchasync.BatchSize(500))
	beam.ParDo0(s, show, joined)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Output: XA 1: Zürich (ZRH)
}

// airports makes a database with one.
func airports() (string, error) {
	dir, err := os.MkdirTemp("", "airports")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "airports.db")
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return "", err
	}
	if _, err := db.Exec("CREATE TABLE airports (iata TEXT PRIMARY KEY, full_name TEXT); INSERT INTO airports VALUES ('ZRH', 'Zürich')"); err != nil {
		return "", err
	}
	return file, db.Close()
}
