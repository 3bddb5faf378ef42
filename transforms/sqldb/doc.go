// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package sqldb is what sqllookup and sqlwrite share: which database, how a
// worker gets the right to it, and which of its errors are worth another attempt.
// A caller of one's own that speaks SQL can use it too:
//
//	func (c *caller) Setup(ctx context.Context) (err error) {
//		c.db, err = c.Database.Open(ctx) // c.Database is a sqldb.Database
//		return err
//	}
//
// # Secrets
//
// A Database travels in the pipeline's description, which runners store and
// show. So a data source name with a password in it is refused as a DSN; name
// instead an environment variable of the workers (DSNEnv), a file on them
// (DSNFile) or a function in the program (DSNFunc, RegisterDSN). It is read on the
// worker, for each connection anew, so that a password may be rotated while the
// pipeline runs. No error shows a data source name or a value of a row; for that,
// the servers' messages are cut where they repeat a value.
//
// # TLS
//
// Connections to PostgreSQL and MySQL use TLS where the server offers it, and
// take whatever certificate it shows: that keeps out who only listens. To be sure
// of the server, say sslmode=verify-full&sslrootcert=… (PostgreSQL), or
// tls=true (MySQL; for a certificate authority of one's own, register its
// tls.Config with the driver's RegisterTLSConfig), in the data source name.
//
// # Drivers
//
// The drivers are github.com/jackc/pgx, for its binary protocol, arrays and COPY;
// github.com/go-sql-driver/mysql, MySQL's and MariaDB's most used one; and
// modernc.org/sqlite, which needs no C compiler. All three are linked into a
// program that imports this package.
package sqldb
