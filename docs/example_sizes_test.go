// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// The service of the page: 10 ms a call, 0.04 ms an element, 16 calls side by side.
func pageService() *batchasynctest.Service {
	return batchasynctest.NewService(batchasynctest.ServiceConfig{
		BaseLatency: 10 * time.Millisecond, PerElement: 40 * time.Microsecond, Capacity: 16,
	})
}

func Example_batchSizes() {
	service := pageService()
	fmt.Println("elements   a call takes   fixed part   most elements/s")
	for _, n := range []int{1, 10, 100, 1000, 4750, 10_000} {
		took := service.CallTime(n)
		fmt.Printf("%8d   %12v   %8.0f %%   %15.0f\n", n, took, 100*float64(service.CallTime(0))/float64(took), service.MaxThroughput(n))
	}
	// Output:
	// elements   a call takes   fixed part   most elements/s
	//        1        10.04ms        100 %              1594
	//       10         10.4ms         96 %             15385
	//      100           14ms         71 %            114286
	//     1000           50ms         20 %            320000
	//     4750          200ms          5 %            380000
	//    10000          410ms          2 %            390244
}

func Example_linger() {
	const perSecond = 200.0 // elements that arrive in a bundle that stays open
	fmt.Println("linger   elements a batch")
	for _, linger := range []time.Duration{10 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond, time.Second} {
		synctest.Test(&testing.T{}, func(t *testing.T) {
			h := batchasynctest.NewHarness(t, batchasync.New(double{}, batchasync.Linger(linger)))
			require.NoError(t, h.Start())
			for range 1000 {
				require.NoError(t, h.Process(batchasynctest.Element{Value: 1}))
				time.Sleep(time.Second / perSecond)
			}
			require.NoError(t, h.Finish())
			fmt.Printf("%6v   %16d\n", linger, 1000/h.Outputs().Counter(batchasync.MetricsNamespace, "batches"))
		})
	}
	// Output:
	// linger   elements a batch
	//   10ms                  2
	//   50ms                 10
	//  200ms                 40
	//     1s                100
}
