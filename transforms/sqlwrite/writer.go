// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/batchasync/beam-batchasync/transforms/sqldb"
)

// A Writer writes rows into a table: a row whose key is there already replaces
// what the table has in the columns of Row, any other is inserted. It is a
// batchasync.Caller, whose answer for a row is the row. See the package's
// documentation for Row.
type Writer[Row any] struct {
	Database sqldb.Database

	// Table is the table's name, as it is in the database, without quotes; schema.table
	// names one of another schema.
	Table string

	// Key are the columns of the table's primary key, or of a unique constraint or
	// index, by which a row is known when it is written again.
	Key []string

	// CopyFrom is the number of rows from which a batch is sent to PostgreSQL by COPY,
	// by way of a temporary table. 0 stands for 5000, and -1 for never, which
	// a pooler that changes connections between transactions needs.
	CopyFrom int `json:",omitempty"`

	layout *layout[Row]
	store  store[Row]
}

// copyFrom is from where on COPY was faster, see BenchmarkCopyOrInsert.
const copyFrom = 5000

// store is what writes to a kind of database.
type store[Row any] interface {
	write(ctx context.Context, rows []Row) error
	close() error
}

// Validate says what is wrong with the Database, the Table, the Key, CopyFrom or Row.
func (w *Writer[Row]) Validate() error {
	_, err := w.validate()
	return err
}

func (w *Writer[Row]) validate() (*layout[Row], error) {
	if err := w.Database.Validate(); err != nil {
		return nil, fmt.Errorf("the Database: %w", err)
	}
	if w.Table == "" || slices.Contains(strings.Split(w.Table, "."), "") {
		return nil, fmt.Errorf("the Table is %q: name the table, or schema.table", w.Table)
	}
	if w.CopyFrom < -1 {
		return nil, fmt.Errorf("CopyFrom is %d: allowed are a number of rows, 0 (the default) and -1 (never)", w.CopyFrom)
	}
	return newLayout[Row](w.Key)
}

// MarshalJSON refuses to let a Writer travel that can't work or that has a password
// in it, whatever it is a part of.
func (w Writer[Row]) MarshalJSON() ([]byte, error) {
	if err := w.Validate(); err != nil {
		return nil, err
	}
	type fields Writer[Row]
	return json.Marshal(fields(w))
}

// Setup opens the pool of connections, one for the worker process, and looks at
// the table.
func (w *Writer[Row]) Setup(ctx context.Context) error {
	l, err := w.validate()
	if err != nil {
		return fmt.Errorf("sqlwrite: %w", err)
	}
	w.layout = l
	db := w.Database
	if db.Driver == sqldb.SQLite && db.MaxConns == 0 {
		db.MaxConns = 1 // it has one writer at a time; here they wait in order
	}
	pool, err := db.Open(ctx)
	if err != nil {
		return err
	}
	switch db.Driver {
	case sqldb.PostgreSQL:
		w.store, err = openPostgres(ctx, pool, l, w.Table, w.CopyFrom)
	default:
		w.store, err = openLists(ctx, pool, l, w.Table)
	}
	if err != nil {
		// The reason is more use than what becomes of the pool.
		_ = pool.Close()
		return fmt.Errorf("sqlwrite: the table %s: %w", w.Table, err)
	}
	return nil
}

// Teardown closes the pool.
func (w *Writer[Row]) Teardown(context.Context) error {
	if w.store == nil {
		return nil
	}
	return w.store.close()
}

// Idempotent says that to write rows twice leaves what once leaves, for
// batchasync.Hedge.
func (w *Writer[Row]) Idempotent() bool { return true }

// Call writes a batch as one: all of its rows or, with an error, none, but for those
// without a key, which fail by themselves. Of rows with the same key the last one
// counts.
func (w *Writer[Row]) Call(ctx context.Context, batch []Row) ([]Row, error) {
	rows, failed := w.layout.distinct(batch)
	if len(rows) > 0 {
		if err := w.store.write(ctx, rows); err != nil {
			return nil, err
		}
	}
	return batch, failed.Err()
}
