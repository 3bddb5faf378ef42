// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"time"

	"github.com/batchasync/beam-batchasync/batchasync/internal/attempt"
	"github.com/batchasync/beam-batchasync/batchasync/internal/guard"
)

// A deduplication tells where the elements of a batch have gone.
type deduplication struct {
	asked    []int             // the index among those that are asked, for each element; -1 for those below
	rejected []attempt.Failure // elements that have no key
}

// dedup returns the first element of each key in batch.
func (s *sender[K, In, Out]) dedup(batch []In) (unique []In, d deduplication) {
	at := make(map[string]int, len(batch))
	d.asked = make([]int, len(batch))
	for i := 0; i < len(batch); i++ {
		// One goroutine for all of them, and one more for each that panics.
		_, err := guard.Run("Key", func() (struct{}, error) {
			for ; i < len(batch); i++ {
				key := s.methods.key(batch[i])
				n, seen := at[key]
				if !seen {
					n = len(unique)
					at[key] = n
					unique = append(unique, batch[i])
				}
				d.asked[i] = n
			}
			return struct{}{}, nil
		})
		if err != nil {
			d.asked[i] = -1
			d.rejected = append(d.rejected, attempt.Failure{Index: i, Err: err, Permanent: true, At: time.Now()})
		}
	}
	return unique, d
}

// spread gives each element of the batch the result or the failure of the one
// that was asked for it.
func spread[Out any](d deduplication, asked attempt.Outcome[Out]) attempt.Outcome[Out] {
	failures := make(map[int]attempt.Failure, len(asked.Failures))
	for _, f := range asked.Failures {
		failures[f.Index] = f
	}
	out := asked
	out.Results = make([]Out, len(d.asked))
	out.Failures = nil
	rejected := d.rejected
	for i, n := range d.asked {
		if n < 0 {
			out.Failures = append(out.Failures, rejected[0])
			rejected = rejected[1:]
		} else if f, failed := failures[n]; failed {
			f.Index = i
			out.Failures = append(out.Failures, f)
		} else if n < len(asked.Results) {
			out.Results[i] = asked.Results[n]
		}
	}
	return out
}
