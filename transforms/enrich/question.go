// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"errors"
	"fmt"
	"slices"
)

// A question is the distinct keys of a batch, with what is known of them.
type question[K comparable, V any] struct {
	keys    []K
	index   map[K]int
	answers []answer[V]   // by the index of their key
	failed  map[int]error // likewise
}

func newQuestion[K comparable, V any]() *question[K, V] {
	return &question[K, V]{index: map[K]int{}}
}

// add adds the keys of an element, and returns where they are.
func (q *question[K, V]) add(keys []K) (at []int, err error) {
	return guarded("Keys", func() ([]int, error) { // a K that is an interface may hold what is no key
		at := make([]int, len(keys))
		for i, key := range keys {
			n, seen := q.index[key]
			if !seen {
				n = len(q.keys)
				q.index[key] = n
				q.keys = append(q.keys, key)
				q.answers = append(q.answers, answer[V]{})
			}
			at[i] = n
		}
		return at, nil
	})
}

// all are the indices of all keys.
func (q *question[K, V]) all() []int {
	all := make([]int, len(q.keys))
	for n := range all {
		all[n] = n
	}
	return all
}

// fail takes in a key's error, and names the key in it.
func (q *question[K, V]) fail(n int, err error) {
	if q.failed == nil {
		q.failed = map[int]error{}
	}
	q.failed[n] = fmt.Errorf("key %s: %w", quoted(q.keys[n]), err)
}

// open reports whether a key is still to be asked for.
func (q *question[K, V]) open(n int) bool {
	return q.answers[n].state == unknown && q.failed[n] == nil
}

// failure is the error of an element with these keys: of those that failed. Of
// several that are joined, one that is permanent decides.
func (q *question[K, V]) failure(at []int) error {
	if q.failed == nil {
		return nil
	}
	var errs []error
	for i, n := range at {
		if err := q.failed[n]; err != nil && !slices.Contains(at[:i], n) {
			errs = append(errs, err)
		}
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}
