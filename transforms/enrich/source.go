// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package enrich

import "context"

// A Source answers keys in bulk: a table, a key-value store, a service. It is a
// struct, and its exported fields are its configuration: they travel to the
// workers as JSON. So no secret may be one of them; what Setup opens is kept in
// unexported fields.
//
// The keys of a Lookup are distinct. A key that is missing in the map is a key
// that isn't there, which is no error; keys in the map that were not asked for
// are ignored. Several Lookups run at once, and ctx ends with the call's timeout.
// The slice is the source's own, to sort, change or keep.
//
// An error fails all keys, and they are asked for again unless the error is
// batchasync.Permanent; a batchasync.RetryAfter says when. A
// *batchasync.BatchError fails some keys, which it names by their index in keys:
// the map then has the answers of the others.
//
// These optional methods are recognized, as those of a batchasync.Caller: Setup,
// Teardown, Retryable, Idempotent, Validate and HoldUntil; and Cacheable and
// ValueSize, see below.
type Source[K comparable, V any] interface {
	Lookup(ctx context.Context, keys []K) (map[K]V, error)
}

// A CachingSource says which answers batchasync.Cache may keep; it is asked with
// the zero V for a key that isn't there. Without it, all are kept.
type CachingSource[V any] interface {
	Cacheable(value V, found bool) bool
}

// A ValueSizer tells the bytes of a value, for batchasync.CacheBytes. Without it,
// the length of a string or []byte counts.
type ValueSizer[V any] interface {
	ValueSize(value V) int
}
