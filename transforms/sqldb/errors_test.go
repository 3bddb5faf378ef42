// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqldb_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
)

func init() {
	batchasync.Register(failing{})
}

// failing fails with the error at an index of failures, classified.
type failing struct{}

var failures []error

func (failing) Call(_ context.Context, batch []int) ([]int, error) {
	return nil, sqldb.Classify(failures[batch[0]])
}

func pg(code, message string) error {
	return &pgconn.PgError{Severity: "ERROR", Code: code, Message: message, Detail: "Failing row contains (SECRET)."}
}

func my(number uint16, message string) error {
	return &mysql.MySQLError{Number: number, Message: message}
}

// snapshotLost is a SQLITE_BUSY_SNAPSHOT: one of those whose code has a part beside
// SQLITE_BUSY.
func snapshotLost(t *testing.T) error {
	pool, err := sqldb.Database{Driver: sqldb.SQLite, DSN: "file:" + filepath.Join(t.TempDir(), "x.db") + "?_pragma=journal_mode(wal)"}.Open(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, pool.Close()) }()
	_, err = pool.ExecContext(t.Context(), "CREATE TABLE n (id INTEGER)")
	require.NoError(t, err)
	tx, err := pool.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback()) }()
	var n int
	require.NoError(t, tx.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM n").Scan(&n))
	_, err = pool.ExecContext(t.Context(), "INSERT INTO n VALUES (1)")
	require.NoError(t, err)
	_, lost := tx.ExecContext(t.Context(), "INSERT INTO n VALUES (2)")
	require.ErrorContains(t, lost, "(517)")
	return lost
}

func TestWhatIsTransientIsTriedAgainAndWhatIsWrongIsNot(t *testing.T) {
	encoding := func(value any) error {
		_, err := pgtype.NewMap().Encode(pgtype.Int4OID, pgtype.BinaryFormatCode, value, nil)
		require.Error(t, err)
		return fmt.Errorf("failed to encode args[0]: %w", err)
	}
	again := []error{
		pg("40001", "could not serialize access"), pg("40P01", "deadlock detected"), pg("08006", "connection failure"),
		pg("53300", "too many clients"), pg("55P03", "lock not available"), pg("57014", "statement timeout"),
		pg("57P01", "terminating connection due to administrator command"), pg("57P03", "the database system is starting up"),
		pg("25006", "cannot execute INSERT in a read-only transaction"), pg("0A000", "cached plan must not change result type"),
		my(1040, "Too many connections"), my(1205, "Lock wait timeout exceeded"), my(1213, "Deadlock found"),
		my(1290, "The MariaDB server is running with the --read-only option so it cannot execute this statement"),
		my(1290, "The MySQL server is running with the --super_read_only=ON option so it cannot execute this statement"),
		my(1927, "Connection was killed"), snapshotLost(t), my(1053, "Server shutdown in progress"),
		io.EOF, io.ErrUnexpectedEOF, driver.ErrBadConn, mysql.ErrInvalidConn, context.DeadlineExceeded,
	}
	never := []error{
		pg("42P01", `relation "city" does not exist`), pg("42601", "syntax error"), pg("42501", "permission denied"),
		pg("28P01", `password authentication failed for user "joe"`), pg("40002", "integrity"), pg("0A000", "not supported"),
		pg("22P02", `invalid input syntax for type integer: "SE"CRET"`), pg("23505", `duplicate key value violates unique constraint "city_pkey"`),
		pg("22001", "value too long for type character varying(3)"),
		pg("54000", "row is too big: size 9000, maximum size 8160"), pg("54000", `index row size 2800 exceeds btree version 4 maximum 2704 for index "city_pkey"`),
		pg("22P02", "ungültige Eingabesyntax für Typ integer: »SECRET«"), pg("22P02", "syntaxe en entrée invalide pour le type integer : « SE»CRET »"),
		pg("57014", "COPY from stdin failed: "+encoding("SECRET").Error()), pg("57014", "COPY from stdin failed: "+encoding("SECRET\n into binary format for x (OID 1): CRET").Error()),
		pg("57014", "COPY from stdin failed: the row's own Value is at odds with itself"),
		my(1146, "Table 'air.city' doesn't exist"), my(1064, "You have an error in your SQL syntax"), my(1045, "Access denied"),
		my(1290, "The server is running with the --secure-file-priv option"),
		my(1062, "Duplicate entry 'SECRET' for key 'PRIMARY'"), my(1062, "Duplicate entry 'SE' for key 'CRET' for key 'PRIMARY'"),
		my(1366, "Incorrect integer value: 'SECRET' for column `test`.`city`.`people` at row 1"),
		my(1292, "Truncated incorrect DOUBLE value: 'SECRET'"), my(1526, "Table has no partition for value SECRET"),
		encoding("SECRET"), encoding([]string{"SECRET", "into binary format"}),
		errors.New(`strconv.ParseInt: parsing "SECRET": invalid syntax`),
	}
	halved := []error{pg("54000", "out of memory"), my(1153, "Got a packet bigger than 'max_allowed_packet' bytes"), mysql.ErrPktTooLarge}

	failures = append(append(append([]error{}, again...), never...), halved...)
	for i, err := range failures {
		h := batchasynctest.NewHarness(t, batchasync.New(failing{}, batchasync.MaxAttempts(2), batchasync.RetryInterval(1)))
		out, bundle := h.Bundle(batchasynctest.Values(i, i)...)
		require.NoError(t, bundle)
		require.Len(t, out.Failures(), 2)
		calls := 1
		switch {
		case i < len(again):
			calls = 2
		case i >= len(again)+len(never):
			calls = 3
		}
		require.Equal(t, int64(calls), out.Counter(batchasync.MetricsNamespace, "calls"), "%v", err)
		failure := out.Failures()[0].Value.(batchasync.Failure[int])
		require.Equal(t, i >= len(again), failure.Permanent, "%v: %+v", err, failure)
		require.NotContains(t, failure.Error, "CRET", "%v", err)
		require.NotEmpty(t, failure.Error)
	}
}

func TestClassifyKeepsTheServersWordsAndItsError(t *testing.T) {
	require.NoError(t, sqldb.Classify(nil))
	err := sqldb.Classify(pg("42P01", `relation "city" does not exist`))
	require.ErrorContains(t, err, `relation "city" does not exist`)
	var server *pgconn.PgError
	require.ErrorAs(t, err, &server)
	require.Equal(t, "42P01", server.Code)

	require.EqualError(t, sqldb.Classify(my(1062, "Duplicate entry 'x' for key 'PRIMARY'")), "Error 1062: Duplicate entry '…' for key 'PRIMARY'")
	require.ErrorContains(t, sqldb.Classify(pg("22P02", `invalid input syntax for type integer: "x"`)), `invalid input syntax for type integer: "…"`)
}
