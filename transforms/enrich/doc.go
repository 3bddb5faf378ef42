// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package enrich joins the elements of a PCollection with rows of a bulk source: a
// database, a key-value store, a service. Each element gets its own answer, in its
// own windows and at its own timestamp, and a key is asked for once, however many
// elements of a batch have it.
//
// # How to use it
//
// Take or write a [Source], which answers keys in bulk, and write an [Enricher],
// which says what an element's keys are and makes an output of the element and the
// answers:
//
//	// cities is a table of cities by their postcode.
//	type cities struct{ Table string }
//
//	func (c *cities) Lookup(ctx context.Context, postcodes []string) (map[string]City, error) {
//		… // SELECT … WHERE postcode = ANY($1)
//	}
//
//	// addCities joins a parcel with the cities that it comes from and goes to.
//	type addCities struct{}
//
//	func (addCities) Keys(p Parcel) []string { return []string{p.From, p.To} }
//
//	func (addCities) Join(p Parcel, cities enrich.Found[string, City]) (Routed, error) {
//		from, _ := cities.Get(p.From)
//		to, _ := cities.Get(p.To)
//		return Routed{Parcel: p, From: from, To: to}, nil
//	}
//
//	func init() { enrich.Register(&cities{}, addCities{}) }
//
//	func build(s beam.Scope, parcels beam.PCollection) {
//		routed, lost := enrich.ParDoWithFailures(s, &cities{Table: "city"}, addCities{}, enrich.DeadLetterMissing, parcels,
//			batchasync.BatchSize(500), batchasync.Cache(10_000, time.Hour))
//		…
//	}
//
// The package example is a whole pipeline, but for beam.Init, which main calls first. Ready sources are in the packages beside
// this one.
//
// # A key that isn't there
//
// It is no error of the source. What becomes of an element with such a key is the
// transform's policy: [KeepMissing] is a left join and [DropMissing] an inner one;
// [FailMissing] fails the pipeline, and [DeadLetterMissing] emits the element as a
// failure with a [MissingKeyError]. An element without any key is joined with
// nothing, whatever the policy.
//
// # How many keys a call
//
// BatchSize counts elements. A Lookup gets the distinct keys of a batch, so at most
// BatchSize times the keys that an element has, and fewer where keys repeat or are
// kept. A source that bears fewer divides them by itself, or answers with
// batchasync.TooLarge, for which the batch is halved.
//
// # Cache
//
// [batchasync.Cache], CacheBytes and Dedup work here by the source's key and not by
// the element's: two elements with a key in common share its answer, whatever else
// they have. A key that another batch of the worker process is asking for is not
// asked for again; with Cache answers are kept, those that say that a key isn't
// there among them, each for its time to live from the moment in which it was asked
// for. An element all of whose keys are kept takes no place in a batch.
//
// # Beside Beam Python
//
// The idea is that of Enrichment in Beam's Python SDK, whose handlers ask for one
// element at a time or, with some services, for a batch. There elements of a batch
// with equal keys overwrite each other (apache/beam issue 38035), and a batch
// without any answer fails its bundle (issue 36791); here both are tests. There an
// element has one key and the cache is a server of its own; here it may have
// several, and the cache is in the worker.
//
// # Dependencies
//
// The cache is otter's, as that of batchasync, which says why.
package enrich
