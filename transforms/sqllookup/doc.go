// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package sqllookup asks SQLite, PostgreSQL, MySQL or MariaDB for many keys with one
// query. A Source is what package enrich joins a PCollection with:
//
//	type Airport struct {
//		IATA      string
//		Name      string `db:"full_name"`
//		Elevation *int64 // nil is NULL
//	}
//
//	source := &sqllookup.Source[string, Airport]{
//		Database: sqldb.Database{Driver: sqldb.PostgreSQL, DSNEnv: "AIRPORTS_DSN"},
//		Query:    "SELECT iata, full_name, elevation FROM airports WHERE iata = ANY($1)",
//	}
//
// # Queries
//
// A query is in the database's own SQL, and any that only reads: with joins,
// functions, several tables. With PostgreSQL, $1 is the array of all keys. With the
// others, (?) stands once for the list of them. A key of several columns is a struct,
// whose fields are bound in their order:
//
//	type Leg struct {
//		Carrier string
//		Number  int32
//	}
//
//	PostgreSQL  SELECT t.carrier, t.number, t.gate FROM legs t
//	            JOIN unnest($1::text[], $2::int[]) AS k(carrier, number)
//	              ON t.carrier = k.carrier AND t.number = k.number
//	others      SELECT carrier, number, gate FROM legs WHERE (carrier, number) IN (?)
//
// Keys are always bound, and never a part of the statement's text. They are strings,
// numbers, bool, types with the methods Scan and Value (a uuid.UUID), and structs of
// these.
//
// PostgreSQL prepares the query once for each connection, whatever the number of
// keys. For the others that number is rounded up to a power of two, by repeating the
// last key, so that a handful of statements serve all batches; the size of full
// batches gets a statement of its own. More than 4096 keys take more queries than one.
//
// # Rows
//
// The first columns of the result are the key's, one for each of its fields. The
// others are the value's: of a struct, each goes to the field that the tag db names,
// or that has the column's name in lower case, as in sqlx; a field for a column of the
// key is filled too. Any other value takes the one column behind the key. A column
// without a field is an error; so is a NULL, but for pointers and sql.Null.
//
// A key without a row is missing in the answer, which is no error. A key with more
// rows than one fails, alone and for good, unless the value is a slice: that has
// all of them, in the order of the query.
//
// Keys are equal if Go says so. A column that compares more loosely (in MySQL most
// do, by upper and lower case and blanks at the end) finds rows for keys with another
// spelling; they are ignored, counted in the metric rows_with_other_keys and warned of
// once. Give the column or the query an exact collation, or bring the keys into the
// table's form.
//
// # When something fails
//
// What the server calls transient is tried again, see sqldb.Classify: a connection
// that is lost, too many of them, a deadlock, a lock, a restart. What it calls wrong
// is permanent, with its message, which shows no values. See package sqldb for
// passwords, which are never in a field, and for TLS.
//
// Rows are scanned through sqlx's reflectx, for it tells the fields that it maps
// columns to: a key is scanned beside its value, with no reflection for each row.
package sqllookup
