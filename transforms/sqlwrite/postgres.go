// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
)

// postgres writes to PostgreSQL: by INSERT … SELECT from one array for each column,
// which is one statement for all sizes of batches, or by COPY.
type postgres[Row any] struct {
	*layout[Row]
	pool           *sqldb.Pool
	copyFrom       int // rows; -1: never
	insert         string
	stage          string // creates the temporary table
	fromStage      string
	copyEverything bool // there is an array among the columns, which unnest would take apart
}

// stageName is of a temporary table, which a connection has for itself.
const stageName = "sqlwrite_stage"

func openPostgres[Row any](ctx context.Context, pool *sqldb.Pool, l *layout[Row], table string, from int) (store[Row], error) {
	s := &postgres[Row]{layout: l, pool: pool, copyFrom: from}
	if from == 0 {
		s.copyFrom = copyFrom
	}
	err := s.native(ctx, func(conn *pgx.Conn) error {
		columns, err := describe(ctx, conn, table)
		if err != nil {
			return err
		}
		if err := s.build(table, columns); err != nil {
			return err
		}
		// It is planned, and not carried out: so a Key that no unique index has is
		// known before the first row.
		const d = sqldb.PostgreSQL
		_, err = conn.Exec(ctx, fmt.Sprintf("EXPLAIN INSERT INTO %s (%s) SELECT NULL%s%s",
			quoteTable(d, table), s.names(d), strings.Repeat(", NULL", len(s.columns)-1), s.onConflict(d)))
		return err
	})
	return s, err
}

// A column is one of the table's.
type column struct {
	typ   string // without a length: a value that is too long is to be an error, and a cast would cut it
	known bool   // to pgx, so that it can encode its values
	array bool
}

func describe(ctx context.Context, conn *pgx.Conn, table string) (map[string]column, error) {
	// Of a domain the type below it, for a cast to the domain would cut a value, too.
	rows, err := conn.Query(ctx, `SELECT a.attname, format_type(t.oid, -1), t.typarray, t.typcategory = 'A'
		FROM pg_attribute a, LATERAL (
			WITH RECURSIVE below AS (
				SELECT * FROM pg_type WHERE oid = a.atttypid
				UNION ALL SELECT t.* FROM below, pg_type t WHERE below.typtype = 'd' AND t.oid = below.typbasetype
			) SELECT * FROM below WHERE typtype <> 'd') t
		WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped`, quoteTable(sqldb.PostgreSQL, table))
	if err != nil {
		return nil, err
	}
	columns := map[string]column{}
	var name, typ string
	var arrayOID uint32
	var array bool
	_, err = pgx.ForEachRow(rows, []any{&name, &typ, &arrayOID, &array}, func() error {
		_, known := conn.TypeMap().TypeForOID(arrayOID)
		columns[name] = column{typ, known || array, array}
		return nil
	})
	return columns, err
}

// build writes the statements. What pgx can't encode (an enum, a type of an
// extension) is sent as text, and made what it is by the server.
func (s *postgres[Row]) build(table string, columns map[string]column) error {
	const d = sqldb.PostgreSQL
	var arrays, definitions, selected []string
	for i, name := range s.columns {
		c, ok := columns[name]
		if !ok {
			return batchasync.Permanent(fmt.Errorf("it has no column %q, which the row has", name))
		}
		quoted := d.Quote(name)
		value := quoted
		if !c.known {
			value, c.typ = quoted+"::"+c.typ, "text"
		}
		s.copyEverything = s.copyEverything || c.array
		arrays = append(arrays, fmt.Sprintf("$%d::%s[]", i+1, c.typ))
		definitions = append(definitions, quoted+" "+c.typ)
		selected = append(selected, value)
	}
	into := fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM ", quoteTable(d, table), s.names(d), strings.Join(selected, ", "))
	s.insert = fmt.Sprintf("%sunnest(%s) AS row (%s)%s", into, strings.Join(arrays, ", "), s.names(d), s.onConflict(d))
	s.stage = fmt.Sprintf("CREATE TEMPORARY TABLE IF NOT EXISTS %s (%s) ON COMMIT DELETE ROWS", stageName, strings.Join(definitions, ", "))
	s.fromStage = into + "pg_temp." + stageName + s.onConflict(d)
	if s.copyEverything && s.copyFrom == -1 {
		return batchasync.Permanent(errors.New("it has a column that is an array, which can only be written by COPY: CopyFrom must not be -1"))
	}
	return nil
}

func (s *postgres[Row]) close() error { return s.pool.Close() }

func (s *postgres[Row]) write(ctx context.Context, rows []Row) error {
	err := s.native(ctx, func(conn *pgx.Conn) error {
		if s.copyEverything || s.copyFrom > 0 && len(rows) >= s.copyFrom {
			return s.copy(ctx, conn, rows)
		}
		_, err := conn.Exec(ctx, s.insert, s.arrays(rows)...)
		return err
	})
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "21000" {
		// Keys that are equal to the server alone: by a collation that doesn't tell
		// upper from lower case, or in a column that rounds.
		return batchasync.Halve(err)
	}
	return err
}

// native calls f with a connection of pgx's own kind.
func (s *postgres[Row]) native(ctx context.Context, f func(*pgx.Conn) error) error {
	return s.pool.Do(ctx, func(conn *sql.Conn) error {
		return conn.Raw(func(raw any) error { return f(raw.(*stdlib.Conn).Conn()) })
	})
}

func (s *postgres[Row]) arrays(rows []Row) []any {
	all := reflect.ValueOf(rows)
	parameters := make([]any, len(s.columns))
	for column, index := range s.fields {
		t := reflect.TypeFor[Row]().FieldByIndex(index).Type
		values := reflect.MakeSlice(reflect.SliceOf(t), len(rows), len(rows))
		for i := range rows {
			values.Index(i).Set(all.Index(i).FieldByIndex(index))
		}
		parameters[column] = values.Interface()
	}
	return parameters
}

// staged is what a connection is marked with once it has the temporary table.
const staged = "sqlwrite.staged"

func (s *postgres[Row]) copy(ctx context.Context, conn *pgx.Conn, rows []Row) error {
	if marks := conn.PgConn().CustomData(); marks[staged] == nil {
		if _, err := conn.Exec(ctx, s.stage); err != nil {
			return err
		}
		marks[staged] = true
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		i := -1
		values := make([]any, len(s.columns))
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"pg_temp", stageName}, s.columns, pgx.CopyFromFunc(func() ([]any, error) {
			if i++; i == len(rows) {
				return nil, nil
			}
			row := reflect.ValueOf(&rows[i]).Elem()
			for column := range s.columns {
				values[column] = s.value(row, column).Interface()
			}
			return values, nil
		})); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, s.fromStage)
		return err
	})
}
