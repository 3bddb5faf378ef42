// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
)

func TestFailuresTellWhatFailedAndWhy(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		_, failures := batchasync.ParDoWithFailures(s, refusing(3), beam.Create(s, 1, 2, 3, 4, 5, 6))
		var want []any
		for _, v := range []int{3, 6} {
			want = append(want, fmt.Sprintf("%d: %d is refused; attempts 1, permanent true, batch id true, in a batch true, at a time true", v, v))
		}
		passert.Equals(s, beam.ParDo(s, &whyFn{}, failures), want...)
	})
}

func TestAFailureTellsTheAttemptsThatWereMade(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		results, failures := batchasync.ParDoWithFailures(s, &outage{Calls: 1 << 32}, beam.Create(s, 5),
			batchasync.MaxAttempts(3), batchasync.RetryInterval(time.Millisecond))
		passert.Empty(s, results)
		passert.Equals(s, beam.ParDo(s, &whyFn{}, failures),
			"5: out of service; attempts 3, permanent false, batch id true, in a batch true, at a time true")
	}, func(t *testing.T, r result) {
		require.EqualValues(t, 3, r.own("calls"))
		require.EqualValues(t, 2, r.own("retries"))
	})
}

// The service is down for a number of calls, not for a time, so it is known how
// often batches are tried again: the caller's state in the process tells.
func TestRetriesOutlastAnOutage(t *testing.T) {
	onEachEngine(t, func(t *testing.T, s beam.Scope) {
		results := batchasync.ParDo(s, &outage{Calls: 25}, numbers(s, 1000), batchasync.BatchSize(10), batchasync.MaxInFlight(8),
			batchasync.MaxAttempts(100), batchasync.RetryInterval(time.Millisecond))
		beam.ParDo0(s, &digestFn{}, beam.ParDo(s, &plainFn{}, results))
	}, func(t *testing.T, r result) {
		require.EqualValues(t, 25, r.own("retries"))
		require.EqualValues(t, r.own("batches")+25, r.own("calls"))
		requireOnce(t, r, 1000)
	})
}

func TestAFailedCallFailsThePipelineWithTheWholeError(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			p, s := beam.NewPipelineWithRoot()
			batchasync.ParDo(s.Scope("prices"), refusing(3), beam.Create(s, 3))
			_, err := execute(t, engine, p)
			require.ErrorContains(t, err, "prices/batchasync.ParDo: batch ")
			require.ErrorContains(t, err, "of 1 element failed after 1 attempt")
			require.ErrorContains(t, err, "3 is refused (not retried, for the error is permanent")
		})
	}
}
