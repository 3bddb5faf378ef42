// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqldb

import (
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// Classify returns err as a batchasync caller should return it. What the server
// calls wrong (a missing table, no right, a value that does not fit) is marked as
// batchasync.Permanent, a statement that is too large as batchasync.TooLarge. The
// rest is worth another attempt: a lost or refused connection, too many
// connections, a serialization failure, a deadlock, a lock or a statement that
// timed out, a server that starts, stops, is out of resources or read-only, as
// one is before a failover.
//
// The text is the driver's without the values that it repeats. The driver's own
// error is wrapped: errors.As finds a *pgconn.PgError, *mysql.MySQLError or
// *sqlite.Error, in whose fields the server may tell of values.
func Classify(err error) error {
	if err == nil {
		return nil
	}
	told := &serverError{err: err, text: err.Error()}
	kind := transient
	var pg *pgconn.PgError
	var my *mysql.MySQLError
	var lite *sqlite.Error
	switch {
	case errors.As(err, &pg):
		kind = postgresKind(pg)
		switch {
		case strings.HasPrefix(pg.Code, "22"): // data exceptions quote the value
			told.text = quoted.ReplaceAllString(told.text, "$1…$2")
		case copyRefused(pg):
			told.hideClientSide()
		}
	case errors.As(err, &my):
		kind = mysqlKind(my)
		for _, pattern := range mysqlValues {
			if pattern.MatchString(told.text) {
				told.text = pattern.ReplaceAllString(told.text, "$1…$2")
				break
			}
		}
	case errors.As(err, &lite):
		kind = sqliteKind(lite.Code())
	case errors.Is(err, mysql.ErrPktTooLarge):
		kind = tooLarge
	case told.hideClientSide():
		kind = permanent
	}
	switch kind {
	case permanent:
		return batchasync.Permanent(told)
	case tooLarge:
		return batchasync.TooLarge(told)
	}
	return told
}

// serverError is an error without the values that its text repeats.
type serverError struct {
	err  error
	text string
}

func (e *serverError) Error() string { return e.text }
func (e *serverError) Unwrap() error { return e.err }

// hideClientSide reports whether the error is one of clientSide, and then hides the
// value in its text.
func (e *serverError) hideClientSide() bool {
	for _, pattern := range clientSide {
		if pattern.MatchString(e.text) {
			e.text = pattern.ReplaceAllString(e.text, "$1…$2")
			return true
		}
	}
	return false
}

type kind int

const (
	transient kind = iota
	permanent
	tooLarge
)

var (
	// Greedy: a value may have quotes in it. PostgreSQL quotes as its lc_messages do.
	quoted      = regexp.MustCompile(`(?s)(["“”„«»]).*(["“”„«»])`)
	mysqlValues = []*regexp.Regexp{
		regexp.MustCompile(`(?s)((?:entry|value:?|argument) ').*(' for (?:key|column) .*)$`),
		regexp.MustCompile(`(?s)((?:entry|value:?|argument) ').*(')`),
		regexp.MustCompile(`(?s)(no partition for value ).*()`),
	}

	// What the drivers can't send, or database/sql can't convert: they print it.
	clientSide = []*regexp.Regexp{
		regexp.MustCompile(`(?s)(unable to encode ).*( into (?:binary|text) format for .* \(OID \d+\)).*$`),
		regexp.MustCompile(`(?s)(unable to encode )[^…].*()$`),
		regexp.MustCompile(`(?s)(parsing ").*(": (?:invalid syntax|value out of range))`),
		regexp.MustCompile(`(?s)(sql: converting argument ).*( type: .*)`),
	}
)

// postgresKind goes by SQLSTATE; see "PostgreSQL Error Codes" in its manual.
func postgresKind(err *pgconn.PgError) kind {
	if copyRefused(err) {
		return permanent
	}
	switch err.Code {
	case "40002": // an integrity constraint, the one of its class that stays
		return permanent
	case "55P03", "55006", // a lock not available, an object in use
		"57014", "57P01", "57P02", "57P03", "57P05", // a timeout, shutdown, crash, start
		"25006",          // read-only
		"25P03", "25P04", // idle in a transaction, transaction timeout
		"26000": // a prepared statement that is gone, behind a pooler
		return transient
	case "0A000": // pgx prepares it anew
		if strings.Contains(err.Message, "cached plan must not change result type") {
			return transient
		}
	case "54000":
		if strings.Contains(err.Message, "row") { // one of the batch, or a key of its
			return permanent
		}
		return tooLarge
	}
	switch err.Code[:min(2, len(err.Code))] {
	case "08", // connection
		"40", // serialization failure, deadlock
		"53", // too many connections, out of memory, disk full
		"58": // an error of the system below
		return transient
	}
	return permanent
}

// copyRefused tells whether it was pgx that ended a COPY, since it can't encode a value.
// Its own error comes back from the server only, as a statement that was cancelled.
func copyRefused(err *pgconn.PgError) bool {
	return err.Code == "57014" && strings.HasPrefix(err.Message, "COPY from stdin failed: ")
}

// mysqlKind goes by the numbers of MySQL's and MariaDB's error references.
func mysqlKind(err *mysql.MySQLError) kind {
	switch err.Number {
	case 1290: // the server runs with an option that forbids it; one passes
		if strings.Contains(strings.ReplaceAll(err.Message, "_", "-"), "read-only") {
			return transient
		}
	case 1153:
		return tooLarge
	case 1020, // the record has changed since it was read
		1021, 1037, 1038, 1041, // out of disk or memory
		1040, 1203, 1226, // too many connections
		1047,             // a cluster's node that isn't ready
		1053, 1077, 1080, // shutdown
		1158, 1159, 1160, 1161, 1184, // the network
		1205, 1206, 1213, 1613, 1614, 3572, // locks and deadlocks
		1243, 1412, 1615, // a prepared statement or table definition that is gone
		1317, 1969, 3024, // interrupted, timed out
		1792, 1836, // read-only
		1927, 4031: // the connection was killed
		return transient
	}
	return permanent
}

func sqliteKind(code int) kind {
	switch code & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR,
		sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_FULL, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_SCHEMA:
		return transient
	case sqlite3.SQLITE_TOOBIG:
		return tooLarge
	}
	return permanent
}

// gone tells whether an error means that the server, or this connection to it, is
// of no use any more.
func gone(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "25006", "57P01", "57P02", "57P03":
			return true
		}
		return strings.HasPrefix(pg.Code, "08")
	}
	var my *mysql.MySQLError
	if errors.As(err, &my) {
		switch my.Number {
		case 1053, 1077, 1290, 1792, 1836, 1927:
			return true
		}
		return false
	}
	var network *net.OpError
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn)
}
