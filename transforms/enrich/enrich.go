// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"fmt"
	"reflect"
	"sync"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/internal/literal"
)

// registered are the types of callers that Register and RegisterKV have made
// known, with the key of the KV if there is one.
var registered sync.Map

type registration struct{ caller, key reflect.Type }

// Register makes a source and an enricher known to Beam, for ParDo and
// ParDoWithFailures. Call it in an init function; only their types matter:
//
//	func init() { enrich.Register(&airportTable{}, addAirports{}) }
func Register[In any, K comparable, V, Out any, S Source[K, V], E Enricher[In, K, V, Out]](source S, enricher E) {
	batchasync.RegisterFlat(New(source, enricher, ""))
	registered.Store(registration{reflect.TypeFor[Caller[In, K, V, Out, S, E]](), nil}, true)
}

// RegisterKV is Register for ParDoKV and ParDoKVWithFailures, for a PCollection
// whose keys are of type Key:
//
//	func init() { enrich.RegisterKV[string](&airportTable{}, addAirports{}) }
func RegisterKV[Key, In any, K comparable, V, Out any, S Source[K, V], E Enricher[In, K, V, Out]](source S, enricher E) {
	batchasync.RegisterFlatKV[Key](New(source, enricher, ""))
	registered.Store(registration{reflect.TypeFor[Caller[In, K, V, Out, S, E]](), reflect.TypeFor[Key]()}, true)
}

// ParDo joins the elements of col with source, as enricher says, and returns the
// joined ones, each in the windows and at the timestamp of its element; missing
// says what becomes of an element of which a key is not there. The source is asked
// for the keys of a batch at a time, by the rules of batchasync.ParDo and its
// options; see the package's documentation for BatchSize and Cache. An element
// that fails for good fails its bundle.
func ParDo[In any, K comparable, V, Out any, S Source[K, V], E Enricher[In, K, V, Out]](s beam.Scope, source S, enricher E, missing Missing, col beam.PCollection, opts ...batchasync.Option) beam.PCollection {
	s = s.Scope("enrich.ParDo")
	caller := checked[In, K, V, Out](s, nil, source, enricher, missing, DeadLetterMissing)
	return batchasync.FlatParDo(s, caller, col, opts...)
}

// ParDoWithFailures is ParDo, but an element that fails for good fails nothing:
// it is emitted into failures, a PCollection<batchasync.Failure[In]>.
func ParDoWithFailures[In any, K comparable, V, Out any, S Source[K, V], E Enricher[In, K, V, Out]](s beam.Scope, source S, enricher E, missing Missing, col beam.PCollection, opts ...batchasync.Option) (joined, failures beam.PCollection) {
	s = s.Scope("enrich.ParDoWithFailures")
	caller := checked[In, K, V, Out](s, nil, source, enricher, missing, FailMissing)
	return batchasync.FlatParDoWithFailures(s, caller, col, opts...)
}

// ParDoKV is ParDo for the values of a PCollection<KV<Key, In>>; each keeps its
// key, which has nothing to do with the keys that the source is asked for.
func ParDoKV[Key, In any, K comparable, V, Out any, S Source[K, V], E Enricher[In, K, V, Out]](s beam.Scope, source S, enricher E, missing Missing, col beam.PCollection, opts ...batchasync.Option) beam.PCollection {
	s = s.Scope("enrich.ParDoKV")
	caller := checked[In, K, V, Out](s, reflect.TypeFor[Key](), source, enricher, missing, DeadLetterMissing)
	return batchasync.FlatParDoKV[Key](s, caller, col, opts...)
}

// ParDoKVWithFailures is ParDoKV with a failures output, which keeps the keys
// too: a PCollection<KV<Key, batchasync.Failure[In]>>.
func ParDoKVWithFailures[Key, In any, K comparable, V, Out any, S Source[K, V], E Enricher[In, K, V, Out]](s beam.Scope, source S, enricher E, missing Missing, col beam.PCollection, opts ...batchasync.Option) (joined, failures beam.PCollection) {
	s = s.Scope("enrich.ParDoKVWithFailures")
	caller := checked[In, K, V, Out](s, reflect.TypeFor[Key](), source, enricher, missing, FailMissing)
	return batchasync.FlatParDoKVWithFailures[Key](s, caller, col, opts...)
}

// checked returns the caller, and panics if anything is wrong with it that can be
// known before the pipeline runs. key is that of a KV, or nil; the policy other
// is for other verbs.
func checked[In any, K comparable, V, Out any, S Source[K, V], E Enricher[In, K, V, Out]](s beam.Scope, key reflect.Type, source S, enricher E, missing, other Missing) *Caller[In, K, V, Out, S, E] {
	refuse := func(format string, args ...any) {
		panic(s.String() + ": " + fmt.Sprintf(format, args...))
	}
	c := New(source, enricher, missing)
	if err := c.Validate(); err != nil {
		refuse("%v", err)
	}
	if missing == other {
		refuse("the policy %q is not for this verb: FailMissing is for those without a failures output, DeadLetterMissing for those with one", missing)
	}
	if _, ok := registered.Load(registration{reflect.TypeFor[Caller[In, K, V, Out, S, E]](), key}); !ok {
		verb := "Register"
		if key != nil {
			verb = fmt.Sprintf("RegisterKV[%v]", key)
		}
		refuse("the source %T and the enricher %T are not registered; add to an init function: enrich.%s(%s, %s)", source, enricher, verb, literal.Of(reflect.TypeOf(source)), literal.Of(reflect.TypeOf(enricher)))
	}
	return c
}
