// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package httpcall_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/httpcall"
)

const (
	benchElements = 20_000
	benchBatch    = 100
	benchInFlight = 8
)

// hand is a caller that is written by hand for one service.
type hand struct {
	URL    string
	client *http.Client
}

func (h *hand) Setup(context.Context) error {
	h.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchInFlight}}
	return nil
}

func (h *hand) Call(ctx context.Context, batch []word) ([]length, error) {
	body, err := json.Marshal(batch)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := h.client.Do(request)
	if err != nil {
		return nil, err
	}
	var out []length
	err = json.NewDecoder(response.Body).Decode(&out)
	return out, errors.Join(err, response.Body.Close())
}

func init() { batchasync.Register(&hand{}) }

// BenchmarkCaller sends the same elements to the same server: one by one, with
// the best that can be written by hand for it, without Beam and as a caller of
// batchasync's, and with the Caller, all with as many calls in flight. The server
// takes latency for a call.
func BenchmarkCaller(b *testing.B) {
	for _, latency := range []time.Duration{0, 5 * time.Millisecond} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var in []word
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				w.WriteHeader(400)
				return
			}
			time.Sleep(latency)
			out := make([]length, len(in))
			for i, e := range in {
				out[i] = length{e.ID, len(e.Text)}
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(out)
		}))
		in := make([]word, benchElements)
		for i := range in {
			in[i] = word{fmt.Sprint("element-", i), "some text of an ordinary length, such as there is in a record"}
		}
		b.Run(fmt.Sprint("latency=", latency, "/one-by-one"), func(b *testing.B) { byHand(b, server.URL, in[:benchElements/20], 1) })
		b.Run(fmt.Sprint("latency=", latency, "/by-hand"), func(b *testing.B) { byHand(b, server.URL, in, benchBatch) })
		b.Run(fmt.Sprint("latency=", latency, "/caller-by-hand"), func(b *testing.B) { byCaller(b, &hand{URL: server.URL}, in) })
		b.Run(fmt.Sprint("latency=", latency, "/httpcall"), func(b *testing.B) { byCaller(b, &words{Endpoint: httpcall.Endpoint{URL: server.URL}}, in) })
		b.Run(fmt.Sprint("latency=", latency, "/httpcall-by-id"), func(b *testing.B) {
			byCaller(b, &words{Endpoint: httpcall.Endpoint{URL: server.URL}, IDField: "id"}, in)
		})
		server.Close()
	}
}

func byHand(b *testing.B, url string, in []word, size int) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchInFlight}}
	defer client.CloseIdleConnections()
	before := processor(b)
	for b.Loop() {
		batches := make(chan []word)
		var mu sync.Mutex
		answered := 0
		var workers sync.WaitGroup
		for range benchInFlight {
			workers.Go(func() {
				for batch := range batches {
					body, err := json.Marshal(batch)
					if err != nil {
						b.Error(err)
						continue
					}
					response, err := client.Post(url, "application/json", bytes.NewReader(body))
					if err != nil {
						b.Error(err)
						continue
					}
					var out []length
					err = json.NewDecoder(response.Body).Decode(&out)
					if closeErr := response.Body.Close(); err != nil || closeErr != nil {
						b.Error(err, closeErr)
					}
					mu.Lock()
					answered += len(out)
					mu.Unlock()
				}
			})
		}
		for from := 0; from < len(in); from += size {
			batches <- in[from : from+size]
		}
		close(batches)
		workers.Wait()
		require.Equal(b, len(in), answered)
	}
	report(b, len(in), before)
}

func byCaller[C batchasync.Caller[word, length]](b *testing.B, c C, in []word) {
	elements := batchasynctest.Values(in...)
	h := batchasynctest.NewHarness(b, batchasync.New[word, length](c, batchasync.BatchSize(benchBatch), batchasync.MaxInFlight(benchInFlight), batchasync.FailBundle()))
	before := processor(b)
	for b.Loop() {
		out, err := h.Bundle(elements...)
		require.NoError(b, err)
		require.Len(b, out.Results(), len(in))
	}
	report(b, len(in), before)
}

// report reports the throughput, and the processor time that was spent, by the
// server too: on a machine that has other things to do, only that tells much.
func report(b *testing.B, n int, before time.Duration) {
	b.ReportMetric(float64((processor(b)-before).Nanoseconds())/float64(n*b.N), "cpu-ns/element")
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "elements/s")
	b.ReportMetric(0, "ns/op")
}

// processor is the processor time that the process has had.
func processor(b *testing.B) time.Duration {
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
