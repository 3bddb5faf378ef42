// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strings"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/examples/flights/internal/flight"
)

func init() {
	batchasync.Register(&AirportLookup{})
}

// maxBatchSize keeps a query with both airports of each flight within the
// number of parameters that SQLite takes, 32,766.
const maxBatchSize = 32766 / 2

// AirportLookup answers flights with both of their airports: one query for a
// batch.
type AirportLookup struct {
	Database    string // path of the SQLite database
	Connections int    // that are kept open between calls

	db *sql.DB
}

// Setup opens the database, once for the worker process.
func (l *AirportLookup) Setup(ctx context.Context) error {
	db, err := sql.Open("sqlite", dataSource(l.Database, "ro"))
	if err != nil {
		return err
	}
	db.SetMaxIdleConns(l.Connections)
	if err := db.PingContext(ctx); err != nil {
		return errors.Join(fmt.Errorf("open the airports' database %s: %w", l.Database, err), db.Close())
	}
	l.db = db
	return nil
}

// Teardown closes the database.
func (l *AirportLookup) Teardown(context.Context) error {
	return l.db.Close()
}

// Call asks for the airports of all flights of the batch. A flight whose airport
// is not there fails alone, and for good: asking again would not help.
func (l *AirportLookup) Call(ctx context.Context, batch []flight.Flight) ([]flight.Enriched, error) {
	defer live.call()()

	airports, err := l.airports(ctx, batch)
	if err != nil {
		return nil, err
	}
	results := make([]flight.Enriched, len(batch))
	var failed batchasync.BatchError
	for i, f := range batch {
		origin, ok := airports[f.Origin]
		if !ok {
			failed.Fail(i, batchasync.Permanent(fmt.Errorf("origin airport %q is unknown", f.Origin)))
			continue
		}
		destination, ok := airports[f.Destination]
		if !ok {
			failed.Fail(i, batchasync.Permanent(fmt.Errorf("destination airport %q is unknown", f.Destination)))
			continue
		}
		results[i] = flight.Enriched{
			Date: f.Date, Delay: f.Delay, Distance: f.Distance,
			GreatCircle: math.Round(flight.Miles(origin, destination)*10) / 10,
			Origin:      origin, Destination: destination,
		}
	}
	return results, failed.Err()
}

func (l *AirportLookup) airports(ctx context.Context, batch []flight.Flight) (_ map[string]flight.Airport, err error) {
	airports := make(map[string]flight.Airport, 2*len(batch))
	var codes []any
	for _, f := range batch {
		for _, code := range []string{f.Origin, f.Destination} {
			if _, ok := airports[code]; !ok {
				airports[code] = flight.Airport{}
				codes = append(codes, code)
			}
		}
	}
	clear(airports)

	query := "SELECT iata, name, city, state, latitude, longitude FROM airports WHERE iata IN (?" +
		strings.Repeat(",?", len(codes)-1) + ")"
	rows, err := l.db.QueryContext(ctx, query, codes...)
	if err != nil {
		return nil, err
	}
	defer func() {
		if closed := rows.Close(); err == nil {
			err = closed
		}
	}()
	for rows.Next() {
		var a flight.Airport
		if err := rows.Scan(&a.IATA, &a.Name, &a.City, &a.State, &a.Latitude, &a.Longitude); err != nil {
			return nil, err
		}
		airports[a.IATA] = a
	}
	return airports, rows.Err()
}

// dataSource is the name of a database for sql.Open; mode is SQLite's: ro or rwc.
func dataSource(path, mode string) string {
	name := url.URL{Scheme: "file", Path: path, RawQuery: "mode=" + mode}
	return name.String()
}
