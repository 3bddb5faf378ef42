// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package embed

import (
	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/batchasync/beam-batchasync/batchasync"
)

func init() { batchasync.Register(&Model{}) }

// RegisterKV makes ParDoKV and ParDoKVWithFailures known to Beam for keys of type
// K. Call it in an init function.
func RegisterKV[K any]() { batchasync.RegisterKV[K](&Model{}) }

// options are the model's limits. Those that are given come behind, and win.
func (m *Model) options(opts []batchasync.Option) []batchasync.Option {
	return append([]batchasync.Option{batchasync.BatchSize(m.maxItems()), batchasync.BatchBytes(m.maxTokens())}, opts...)
}

// ParDo embeds the texts of col, a PCollection<string>, and returns a
// PCollection<Vector>. A text that fails for good fails its bundle. The options
// are batchasync's, with the model's limits as BatchSize and BatchBytes.
func ParDo(s beam.Scope, m *Model, col beam.PCollection, opts ...batchasync.Option) beam.PCollection {
	return batchasync.ParDo(s.Scope("embed.ParDo"), m, col, m.options(opts)...)
}

// ParDoWithFailures is ParDo with a second output for the texts that fail for
// good, such as those that are too long: a PCollection<batchasync.Failure[string]>.
func ParDoWithFailures(s beam.Scope, m *Model, col beam.PCollection, opts ...batchasync.Option) (vectors, failures beam.PCollection) {
	return batchasync.ParDoWithFailures(s.Scope("embed.ParDoWithFailures"), m, col, m.options(opts)...)
}

// ParDoKV embeds the values of col, a PCollection<KV<K, string>>, and returns a
// PCollection<KV<K, Vector>>: K is what the text is of, such as a document's id.
// RegisterKV it.
func ParDoKV[K any](s beam.Scope, m *Model, col beam.PCollection, opts ...batchasync.Option) beam.PCollection {
	return batchasync.ParDoKV[K](s.Scope("embed.ParDoKV"), m, col, m.options(opts)...)
}

// ParDoKVWithFailures is ParDoKV with a second output, a
// PCollection<KV<K, batchasync.Failure[string]>>.
func ParDoKVWithFailures[K any](s beam.Scope, m *Model, col beam.PCollection, opts ...batchasync.Option) (vectors, failures beam.PCollection) {
	return batchasync.ParDoKVWithFailures[K](s.Scope("embed.ParDoKVWithFailures"), m, col, m.options(opts)...)
}
