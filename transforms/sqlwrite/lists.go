// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
)

// mostParameters is how many a statement takes.
var mostParameters = map[sqldb.Driver]int{sqldb.SQLite: 32766, sqldb.MySQL: 65535}

// mostStatements is how many are kept prepared, for as many sizes of batches. Most
// batches are full ones; what has another size is prepared for itself.
const mostStatements = 16

// lists writes to SQLite, MySQL and MariaDB: INSERT … VALUES (…), (…).
type lists[Row any] struct {
	*layout[Row]
	pool  *sqldb.Pool
	table string
	most  int // rows a statement
	// largest is the most bytes that MySQL takes in a value; 0: there is no such limit.
	largest int

	mu         sync.Mutex
	statements map[int]*sql.Stmt // by the number of rows
}

func openLists[Row any](ctx context.Context, pool *sqldb.Pool, l *layout[Row], table string) (store[Row], error) {
	s := &lists[Row]{layout: l, pool: pool, table: table, most: mostParameters[pool.Driver] / len(l.columns), statements: map[int]*sql.Stmt{}}
	if pool.Driver == sqldb.MySQL {
		if err := s.checkUnique(ctx); err != nil {
			return nil, err
		}
		if err := pool.QueryRowContext(ctx, "SELECT @@max_allowed_packet").Scan(&s.largest); err != nil {
			return nil, pool.Error(err)
		}
	}
	// What is wrong with the table or a column is known before the first row.
	if _, err := s.prepared(ctx, 1); err != nil {
		return nil, pool.Error(err)
	}
	return s, nil
}

// checkUnique makes sure of what MySQL, unlike the others, doesn't: that a row is
// found again by the key, and by nothing else.
func (s *lists[Row]) checkUnique(ctx context.Context) (err error) {
	schema, table, found := strings.Cut(s.table, ".")
	if !found {
		schema, table = "", s.table
	}
	rows, err := s.pool.QueryContext(ctx, `SELECT index_name, column_name, sub_part IS NOT NULL FROM information_schema.statistics
		WHERE non_unique = 0 AND table_schema = COALESCE(NULLIF(?, ''), DATABASE()) AND table_name = ?`, schema, table)
	if err != nil {
		return s.pool.Error(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	unique := map[string][]string{}
	partial := map[string]bool{}
	for rows.Next() {
		var index, column string
		var prefix bool
		if err := rows.Scan(&index, &column, &prefix); err != nil {
			return err
		}
		unique[index] = append(unique[index], strings.ToLower(column))
		partial[index] = partial[index] || prefix
	}
	if err := rows.Err(); err != nil {
		return s.pool.Error(err)
	}
	var key, written []string
	for i, column := range s.columns {
		written = append(written, strings.ToLower(column))
		if s.isKey(i) {
			key = append(key, strings.ToLower(column))
		}
	}
	known, other := false, ""
	for index, columns := range unique {
		if !partial[index] && sameSet(columns, key) {
			known = true
		} else if !slices.ContainsFunc(columns, func(c string) bool { return !slices.Contains(written, c) }) {
			other = index
		}
	}
	if !known {
		return batchasync.Permanent(fmt.Errorf("it is not there, or has no primary key or unique index of exactly the Key's columns (%s), by which a row is known when it is written again", strings.Join(key, ", ")))
	}
	if other != "" {
		return batchasync.Permanent(fmt.Errorf("it has a unique index %s besides the Key, and a row that meets another one there would overwrite it (ON DUPLICATE KEY UPDATE goes by all of them): leave the index's columns out of the row, or write to a table without it", other))
	}
	return nil
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

func (s *lists[Row]) close() error { return s.pool.Close() }

// write writes the rows in one statement, or, if they are more than one takes, in
// one transaction.
func (s *lists[Row]) write(ctx context.Context, rows []Row) error {
	parameters, err := s.parameters(rows)
	if err != nil {
		return err
	}
	if len(rows) <= s.most {
		return s.pool.Error(s.insert(ctx, len(rows), parameters))
	}
	tx, err := s.pool.BeginTx(ctx, nil)
	if err != nil {
		return s.pool.Error(err)
	}
	for chunk := range slices.Chunk(parameters, s.most*len(s.columns)) {
		if _, err := tx.ExecContext(ctx, s.statement(len(chunk)/len(s.columns)), chunk...); err != nil {
			// Its error would tell no more than the first one.
			_ = tx.Rollback()
			return s.pool.Error(err)
		}
	}
	return s.pool.Error(tx.Commit())
}

func (s *lists[Row]) insert(ctx context.Context, n int, parameters []any) error {
	prepared, err := s.prepared(ctx, n)
	if err != nil {
		return err
	}
	if prepared == nil {
		_, err = s.pool.ExecContext(ctx, s.statement(n), parameters...)
	} else {
		_, err = prepared.ExecContext(ctx, parameters...)
	}
	return err
}

// prepared returns the statement for n rows, or nil if there are too many.
func (s *lists[Row]) prepared(ctx context.Context, n int) (*sql.Stmt, error) {
	s.mu.Lock()
	statement, room := s.statements[n], len(s.statements) < mostStatements
	s.mu.Unlock()
	if statement != nil || !room {
		return statement, nil
	}
	// Not under the lock: other calls need not wait for this one's connection.
	statement, err := s.pool.PrepareContext(ctx, s.statement(n))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.statements[n]; other != nil {
		return other, statement.Close()
	}
	s.statements[n] = statement
	return statement, nil
}

func (s *lists[Row]) parameters(rows []Row) ([]any, error) {
	parameters := make([]any, 0, len(rows)*len(s.columns))
	for i := range rows {
		row := reflect.ValueOf(&rows[i]).Elem()
		for column, name := range s.columns {
			parameter := s.value(row, column).Interface()
			size := 0
			// What can't be converted is the driver's to refuse.
			switch value, _ := driver.DefaultParameterConverter.ConvertValue(parameter); v := value.(type) {
			case string:
				size = len(v)
			case []byte:
				size = len(v)
			case time.Time:
				if s.pool.Driver == sqldb.SQLite {
					// It keeps a time as text, and in another zone it would
					// be another key.
					parameter = v.UTC()
				}
			}
			if s.largest > 0 && size > s.largest {
				// MySQL would refuse the prepared statement from then on, with
				// any value.
				return nil, batchasync.Halve(fmt.Errorf("sqlwrite: the column %q has a value of %d bytes, more than the %d of the server's max_allowed_packet", name, size, s.largest))
			}
			parameters = append(parameters, parameter)
		}
	}
	return parameters, nil
}

func (s *lists[Row]) statement(n int) string {
	d := s.pool.Driver
	var b strings.Builder
	fmt.Fprintf(&b, "INSERT INTO %s (%s) VALUES ", quoteTable(d, s.table), s.names(d))
	row := "(?" + strings.Repeat(",?", len(s.columns)-1) + ")"
	b.WriteString(row)
	for range n - 1 {
		b.WriteByte(',')
		b.WriteString(row)
	}
	if d != sqldb.MySQL {
		b.WriteString(s.onConflict(d))
		return b.String()
	}
	b.WriteString(" ON DUPLICATE KEY UPDATE ")
	updates := s.updates()
	if len(updates) == 0 {
		updates = s.keys[:1] // to what it is: something must be there
	}
	for i, column := range updates {
		if i > 0 {
			b.WriteString(", ")
		}
		name := d.Quote(s.columns[column])
		fmt.Fprintf(&b, "%s = VALUES(%s)", name, name)
	}
	return b.String()
}
