// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite

import (
	"fmt"
	"strings"

	"github.com/batchasync/beam-batchasync/transforms/sqldb"
)

// quoteTable quotes the name of a table, with what it has of a schema before it.
func quoteTable(d sqldb.Driver, table string) string {
	return d.Quote(strings.Split(table, ".")...)
}

// names lists the columns of a row.
func (l *layout[Row]) names(d sqldb.Driver) string {
	names := make([]string, len(l.columns))
	for i, column := range l.columns {
		names[i] = d.Quote(column)
	}
	return strings.Join(names, ", ")
}

// updates are the columns that are not the key's.
func (l *layout[Row]) updates() []int {
	var updates []int
	for i := range l.columns {
		if !l.isKey(i) {
			updates = append(updates, i)
		}
	}
	return updates
}

// onConflict is how SQLite and PostgreSQL replace what is there.
func (l *layout[Row]) onConflict(d sqldb.Driver) string {
	keys := make([]string, len(l.keys))
	for i, column := range l.keys {
		keys[i] = d.Quote(l.columns[column])
	}
	target := " ON CONFLICT (" + strings.Join(keys, ", ") + ") DO "
	var updates []string
	for _, column := range l.updates() {
		name := d.Quote(l.columns[column])
		updates = append(updates, fmt.Sprintf("%s = excluded.%s", name, name))
	}
	if len(updates) == 0 {
		return target + "NOTHING"
	}
	return target + "UPDATE SET " + strings.Join(updates, ", ")
}
