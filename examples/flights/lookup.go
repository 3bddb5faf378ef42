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

	"github.com/batchasync/beam-batchasync/examples/flights/internal/flight"
	"github.com/batchasync/beam-batchasync/transforms/enrich"
)

func init() {
	enrich.Register(&AirportTable{}, addAirports{})
}

// maxBatchSize keeps a query with both airports of each flight within the
// number of parameters that SQLite takes, 32,766.
const maxBatchSize = 32766 / 2

// AirportTable answers IATA codes with their airports: one query for all of
// them.
type AirportTable struct {
	Database    string // path of the SQLite database
	Connections int    // that are kept open between calls

	db *sql.DB
}

// Setup opens the database, once for the worker process.
func (t *AirportTable) Setup(ctx context.Context) error {
	db, err := sql.Open("sqlite", dataSource(t.Database, "ro"))
	if err != nil {
		return err
	}
	db.SetMaxIdleConns(t.Connections)
	if err := db.PingContext(ctx); err != nil {
		return errors.Join(fmt.Errorf("open the airports' database %s: %w", t.Database, err), db.Close())
	}
	t.db = db
	return nil
}

// Teardown closes the database.
func (t *AirportTable) Teardown(context.Context) error {
	return t.db.Close()
}

// Lookup asks for the airports. A code that is not in the table is not in the
// answer.
func (t *AirportTable) Lookup(ctx context.Context, codes []string) (_ map[string]flight.Airport, err error) {
	defer live.call()()

	query := "SELECT iata, name, city, state, latitude, longitude FROM airports WHERE iata IN (?" +
		strings.Repeat(",?", len(codes)-1) + ")"
	args := make([]any, len(codes))
	for i, code := range codes {
		args[i] = code
	}
	rows, err := t.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() {
		if closed := rows.Close(); err == nil {
			err = closed
		}
	}()
	airports := make(map[string]flight.Airport, len(codes))
	for rows.Next() {
		var a flight.Airport
		if err := rows.Scan(&a.IATA, &a.Name, &a.City, &a.State, &a.Latitude, &a.Longitude); err != nil {
			return nil, err
		}
		airports[a.IATA] = a
	}
	return airports, rows.Err()
}

// addAirports joins a flight with both of its airports.
type addAirports struct{}

func (addAirports) Keys(f flight.Flight) []string {
	return []string{f.Origin, f.Destination}
}

// Join says itself which of the airports is unknown. The flight then fails alone,
// and for good: asking again would not help.
func (addAirports) Join(f flight.Flight, airports enrich.Found[string, flight.Airport]) (flight.Enriched, error) {
	origin, ok := airports.Get(f.Origin)
	if !ok {
		return flight.Enriched{}, fmt.Errorf("origin airport %q is unknown", f.Origin)
	}
	destination, ok := airports.Get(f.Destination)
	if !ok {
		return flight.Enriched{}, fmt.Errorf("destination airport %q is unknown", f.Destination)
	}
	return flight.Enriched{
		Date: f.Date, Delay: f.Delay, Distance: f.Distance,
		GreatCircle: math.Round(flight.Miles(origin, destination)*10) / 10,
		Origin:      origin, Destination: destination,
	}, nil
}

// dataSource is the name of a database for sql.Open; mode is SQLite's: ro or rwc.
func dataSource(path, mode string) string {
	name := url.URL{Scheme: "file", Path: path, RawQuery: "mode=" + mode}
	return name.String()
}
