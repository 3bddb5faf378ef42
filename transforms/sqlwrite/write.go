// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite

import (
	"slices"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// Register makes a type of row known to Beam, for Write and WriteWithFailures. Call
// it in an init function:
//
//	func init() { sqlwrite.Register[city]() }
func Register[Row any]() {
	batchasync.Register(&Writer[Row]{})
}

// Write writes the rows of col, in batches, and returns those that have been
// written, each in the windows and at the timestamp that it had. A row that the
// database refuses fails its bundle. The options are batchasync's.
func Write[Row any](s beam.Scope, w *Writer[Row], col beam.PCollection, opts ...batchasync.Option) beam.PCollection {
	return batchasync.ParDo(s.Scope("sqlwrite.Write"), w, col, opts...)
}

// WriteWithFailures is Write, but a row that the database refuses fails nothing: a
// batch that has one is halved until it stands alone (batchasync.Bisect), and it is
// emitted into failures, a PCollection<batchasync.Failure[Row]>, with the server's
// message.
func WriteWithFailures[Row any](s beam.Scope, w *Writer[Row], col beam.PCollection, opts ...batchasync.Option) (written, failures beam.PCollection) {
	opts = append(slices.Clone(opts), batchasync.Bisect())
	return batchasync.ParDoWithFailures(s.Scope("sqlwrite.WriteWithFailures"), w, col, opts...)
}
