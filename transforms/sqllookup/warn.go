// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqllookup

import (
	"context"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
)

// otherKeys counts the rows whose key nobody asked for. They are no error: what a
// key's spelling does must not depend on the keys that it was asked for with.
var otherKeys = beam.NewCounter("sqllookup", "rows_with_other_keys")

// warnOfOthers looks for rows whose key nobody asked for, and warns of them once.
func (s *Source[K, V]) warnOfOthers(ctx context.Context, keys []K, a *answer[K, V]) {
	others := len(a.values)
	for _, key := range keys {
		if _, ok := a.values[key]; ok {
			others--
		}
	}
	if others == 0 {
		return
	}
	otherKeys.Inc(ctx, int64(others))
	s.warn.Do(func() {
		log.Warnf(ctx, "sqllookup: the query returns rows whose key, in its column %s, nobody asked for, and they are ignored: the database compares more loosely than Go (upper and lower case, blanks at the end, numbers in text); compare exactly there, or bring the keys into the table's form", a.keyColumn)
	})
}
