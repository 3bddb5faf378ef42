// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package sqlwrite writes the rows of a PCollection into a table of SQLite,
// PostgreSQL, MySQL or MariaDB: in batches, each with one statement, so that a row
// that is written again is there once.
//
//	type City struct {
//		Code   string `db:"code"`
//		Name   string `db:"full_name"`
//		People *int64 // nil is NULL
//	}
//
//	func init() { sqlwrite.Register[City]() }
//
//	written, failures := sqlwrite.WriteWithFailures(s, &sqlwrite.Writer[City]{
//		Database: sqldb.Database{Driver: sqldb.PostgreSQL, DSNEnv: "CITIES_DSN"},
//		Table:    "city",
//		Key:      []string{"code"},
//	}, cities, batchasync.BatchSize(1000))
//
// # Rows
//
// A row is a struct. Each exported field goes to the column that its tag db names,
// or that has its name in lower case, as in sqlx; the tag db:"-" leaves it out, and
// the fields of an embedded struct are the row's own. A column of the table that no
// field goes to keeps what it has, or gets its default. Names are quoted, so upper
// and lower case count, and they come from the type and the Writer only: values
// are bound.
//
// # What is written
//
// A row whose Key is in the table replaces the other columns of the row there (INSERT
// … ON CONFLICT DO UPDATE; with MySQL ON DUPLICATE KEY UPDATE), and any other is
// inserted. So a batch, or a bundle, that is written a second time changes nothing,
// and what is delivered at least once is in the table exactly once. This needs a
// unique constraint on the Key, which PostgreSQL and SQLite insist on by
// themselves and Setup looks for in MySQL; there it also refuses a table in which a
// row could overwrite another one, by a second unique index.
//
// A batch is written as a whole or not at all. Of rows with the same key in one
// batch the last counts; of those in different batches, which are written at once
// and may be tried again, any may be the last, and so may any of those whose keys are
// the same only to the database (by a collation, or in a column that rounds). If that
// matters, reduce them to one a key before, with a Combine.
//
// A time is the same instant in any zone, and MySQL and SQLite have it in UTC. But
// PostgreSQL's TIMESTAMP and DATE, unlike TIMESTAMPTZ, get what the clock of its zone
// shows, as pgx does it: give such columns times in UTC.
//
// # PostgreSQL
//
// Batches are sent as one array for each column, by the same prepared statement for
// every size, and from CopyFrom rows on by COPY to a temporary table. Types that the
// driver doesn't know, such as an enum's, are sent as text. A table with arrays among
// its columns is always written by COPY.
//
// # When something fails
//
// A row that the database refuses fails for good, with the server's message without
// its values: alone with WriteWithFailures, and with its bundle otherwise. A row
// with a NULL in its Key is refused too: it could not be known again. See
// sqldb.Classify for what is tried again, and package sqldb for passwords, which are
// never in a field, and TLS. The package's field names are sqlx's because the mapping
// is its reflectx, which sqllookup scans with as well.
package sqlwrite
