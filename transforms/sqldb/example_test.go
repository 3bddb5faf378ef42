// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqldb_test

import (
	"context"
	"fmt"

	"github.com/batchasync/beam-batchasync/transforms/sqldb"
)

func init() {
	sqldb.RegisterDSN("airports", func(context.Context) (string, error) {
		return "postgres://app:secret-of-today@db.internal/airports", nil // say, from a secret store
	})
}

// RegisterDSN is for a password that rotates, or that only a program can get: the
// function runs on the worker, for each connection anew, and its name is all that
// travels.
func ExampleRegisterDSN() {
	database := sqldb.Database{Driver: sqldb.PostgreSQL, DSNFunc: "airports"}
	fmt.Println(database.Validate())
	// Output: <nil>
}

// A data source name with a password in it would be shown by the runner, with the
// pipeline's description: it is refused before the pipeline runs.
func ExampleDatabase_Validate() {
	database := sqldb.Database{Driver: sqldb.PostgreSQL, DSN: "postgres://app:secret@db.internal/airports"}
	fmt.Println(database.Validate())
	fmt.Println(sqldb.Database{Driver: sqldb.PostgreSQL, DSNEnv: "AIRPORTS_DSN"}.Validate())
	// Output:
	// the DSN has a password in it, and would travel in the pipeline's description, which runners store and show: put it into an environment variable of the workers (DSNEnv), a file (DSNFile) or a function (DSNFunc, sqldb.RegisterDSN)
	// <nil>
}
