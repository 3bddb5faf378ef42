// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

// An Enricher says which keys an element has, and how it is joined with what a
// Source answers for them. It is a struct, whose exported fields travel to the
// workers as JSON. Both methods are called for many elements, by several
// goroutines at once; what panics in them, or what Join returns as an error, fails
// their element for good.
//
// Type parameters are inferred from the methods:
//
//	func (addAirports) Keys(f Flight) []string {
//		return []string{f.Origin, f.Destination}
//	}
//
//	func (addAirports) Join(f Flight, airports enrich.Found[string, Airport]) (Enriched, error) {
//		from, _ := airports.Get(f.Origin)
//		to, _ := airports.Get(f.Destination)
//		return Enriched{Flight: f, From: from, To: to}, nil
//	}
type Enricher[In any, K comparable, V, Out any] interface {
	// Keys returns the element's keys: one, several or none. Equal ones are
	// asked for once.
	Keys(element In) []K
	// Join makes the output of an element. All of its keys are in found,
	// except with KeepMissing. The values in it are shared with other elements
	// that have the same key: Join must not change what they point to.
	Join(element In, found Found[K, V]) (Out, error)
}

// Found is what a source has answered for the keys of one element.
type Found[K comparable, V any] struct {
	keys    []K
	at      []int       // of each key in answers
	answers []answer[V] // those of the whole batch
}

// FoundOf is a Found with these values, for tests of Join.
func FoundOf[K comparable, V any](values map[K]V) Found[K, V] {
	var f Found[K, V]
	for key, value := range values {
		f.at = append(f.at, len(f.keys))
		f.keys = append(f.keys, key)
		f.answers = append(f.answers, answer[V]{value, found})
	}
	return f
}

// Get returns the value of one of the element's keys, and whether it is there.
// For any other key there is none.
func (f Found[K, V]) Get(key K) (V, bool) {
	for i, k := range f.keys { // they are few
		if k == key {
			a := &f.answers[f.at[i]]
			return a.value, a.state == found
		}
	}
	var none V
	return none, false
}

// All yields the keys that are there, in the order of Keys, with their values.
func (f Found[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for i, key := range f.keys {
			if a := &f.answers[f.at[i]]; a.state == found && !yield(key, a.value) {
				return
			}
		}
	}
}

// missing returns the keys that aren't there.
func (f Found[K, V]) missing() []K {
	var keys []K
	for i, key := range f.keys {
		if f.answers[f.at[i]].state != found && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// An answer is what is known of a key.
type answer[V any] struct {
	value V
	state state
}

type state uint8

const (
	unknown state = iota
	found
	notThere
)

// Missing says what becomes of an element of which a key is not in the source.
type Missing string

const (
	// KeepMissing joins the element with what is there: a left join.
	KeepMissing Missing = "keep"
	// DropMissing leaves the element out, which is counted: an inner join.
	DropMissing Missing = "drop"
	// FailMissing fails the bundle with a *MissingKeyError, and so the pipeline.
	// It is for ParDo and ParDoKV.
	FailMissing Missing = "fail"
	// DeadLetterMissing emits the element as a batchasync.Failure, whose error
	// is that of a *MissingKeyError. It is for ParDoWithFailures and
	// ParDoKVWithFailures.
	DeadLetterMissing Missing = "dead letter"
)

// A MissingKeyError says that an element has keys that are not in the source. It
// is permanent.
type MissingKeyError struct {
	Keys []any // each a K
}

// Error names the first three keys.
func (e *MissingKeyError) Error() string {
	var b strings.Builder
	b.WriteString("the source has no value for the key ")
	for i, key := range e.Keys {
		if i > 0 {
			b.WriteString(", ")
		}
		if i == 3 {
			fmt.Fprintf(&b, "… (%d keys)", len(e.Keys))
			break
		}
		b.WriteString(quoted(key))
	}
	return b.String()
}

// mostQuoted is how much of a key is put into an error, in bytes: a key may be
// a whole document.
const mostQuoted = 100

func quoted(key any) string {
	text, isString := key.(string)
	if !isString {
		text = fmt.Sprintf("%+v", key)
	}
	length, rest := len(text), ""
	if length > mostQuoted {
		cut := mostQuoted
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text, rest = text[:cut], fmt.Sprintf("… (%d bytes)", length)
	}
	if isString {
		text = fmt.Sprintf("%q", text)
	}
	return text + rest
}
