// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqldb

import "strings"

// Quote quotes a name for a statement: of a column, or, in parts, of a schema and
// its table.
func (d Driver) Quote(parts ...string) string {
	mark := `"`
	if d == MySQL {
		mark = "`"
	}
	quoted := make([]string, len(parts))
	for i, part := range parts {
		quoted[i] = mark + strings.ReplaceAll(part, mark, mark+mark) + mark
	}
	return strings.Join(quoted, ".")
}
