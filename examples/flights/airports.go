// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"database/sql"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	_ "modernc.org/sqlite" // pure Go: the example needs no C compiler
)

// columns are what the CSV file must have, in whatever order, and the database
// gets.
var columns = []string{"iata", "name", "city", "state", "latitude", "longitude"}

// loadAirports makes the database at path from a CSV file with a header. It is
// strict: an airport that is skipped here would
// make failures of its flights, for a reason that nobody would find.
func loadAirports(ctx context.Context, path string, file io.Reader) (err error) {
	db, err := sql.Open("sqlite", dataSource(path, "rwc"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.ExecContext(ctx, `CREATE TABLE airports (
		iata TEXT PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL, state TEXT NOT NULL,
		latitude REAL NOT NULL, longitude REAL NOT NULL) WITHOUT ROWID`); err != nil {
		return fmt.Errorf("make the airports' database: %w", err)
	}
	// One transaction: SQLite waits for the disk once, not for each row.
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// The database is thrown away anyway.
			_ = tx.Rollback()
		}
	}()
	insert, err := tx.PrepareContext(ctx, "INSERT INTO airports VALUES (?,?,?,?,?,?)")
	if err != nil {
		return err
	}
	if err := readAirports(file, func(values []any) error {
		_, err := insert.ExecContext(ctx, values...)
		return err
	}); err != nil {
		return err
	}
	return tx.Commit()
}

func readAirports(file io.Reader, insert func([]any) error) error {
	in := csv.NewReader(file)
	header, err := in.Read()
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty")
	}
	if err != nil {
		return err
	}
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	at := make([]int, len(columns))
	for i, column := range columns {
		if at[i] = slices.Index(header, column); at[i] < 0 {
			return fmt.Errorf("line 1: the column %s is missing", column)
		}
	}
	lines := map[string]int{} // in which an airport was
	for {
		row, err := in.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err // it tells the line itself
		}
		line, _ := in.FieldPos(0)
		values := make([]any, len(columns))
		for i, column := range columns {
			text := row[at[i]]
			values[i] = text
			limit := map[string]float64{"latitude": 90, "longitude": 180}[column]
			if limit == 0 {
				continue
			}
			degrees, err := strconv.ParseFloat(text, 64)
			if err != nil || !(degrees >= -limit && degrees <= limit) {
				return fmt.Errorf("line %d: the %s %q is no number from -%v to %v", line, column, text, limit, limit)
			}
			values[i] = degrees
		}
		iata := row[at[0]]
		if before, ok := lines[iata]; ok {
			return fmt.Errorf("line %d: airport %q is in line %d already", line, iata, before)
		}
		lines[iata] = line
		if err := insert(values); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
	}
}
