// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package httpcall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

func init() { batchasync.Register(&Caller[int, int]{}) }

// pipes is a network in memory, in which a test's time is synctest's.
type pipes chan net.Conn

func (p pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.IPAddr{} }

// inBubble runs test with an endpoint behind which handler serves, in synctest's
// time.
func inBubble(t *testing.T, handler func(n int, w http.ResponseWriter, batch []int), test func(t *testing.T, e Endpoint)) {
	synctest.Test(t, func(t *testing.T) {
		network := make(pipes)
		var mu sync.Mutex
		n := 0
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			n++
			mine := n
			mu.Unlock()
			body, err := io.ReadAll(r.Body)
			var batch []int
			if err != nil || json.Unmarshal(body, &batch) != nil {
				w.WriteHeader(400)
				return
			}
			handler(mine, w, batch)
		})}
		done := make(chan error)
		go func() { done <- server.Serve(network) }()
		test(t, Endpoint{URL: "http://service.example/bulk", dial: network.dial})
		close(network)
		require.ErrorIs(t, <-done, net.ErrClosed)
		require.NoError(t, server.Close())
	})
}

func echo(w http.ResponseWriter, batch []int) {
	_, _ = io.WriteString(w, strings.ReplaceAll(fmt.Sprint(batch), " ", ","))
}

func ints(n int) []batchasynctest.Element {
	elements := make([]batchasynctest.Element, n)
	for i := range elements {
		elements[i].Value = i
	}
	return elements
}

func TestRetryAfterIsObeyedInBothForms(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		value  func() string
		wait   time.Duration
	}{
		"seconds":             {503, func() string { return "20" }, 20 * time.Second},
		"a date":              {503, func() string { return time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat) }, 90 * time.Second},
		"seconds of a 429":    {429, func() string { return " 45 " }, 45 * time.Second},
		"a day":               {503, func() string { return "86400" }, MaxRetryAfter},
		"more than fits":      {503, func() string { return "1e300" }, MaxRetryAfter},
		"a date in 100 years": {429, func() string { return time.Now().AddDate(100, 0, 0).UTC().Format(http.TimeFormat) }, MaxRetryAfter},
		"a date that is over": {503, func() string { return "Thu, 21 Oct 1999 07:28:00 GMT" }, 3 * time.Second},
		"what is neither":     {503, func() string { return "soon" }, 3 * time.Second},
		"a negative number":   {503, func() string { return "-5" }, 3 * time.Second},
		"no number":           {503, func() string { return "NaN" }, 3 * time.Second},
		"nothing":             {503, func() string { return "" }, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(n int, w http.ResponseWriter, batch []int) {
				if n == 1 {
					w.Header().Set("Retry-After", test.value())
					w.WriteHeader(test.status)
					return
				}
				echo(w, batch)
			}, func(t *testing.T, e Endpoint) {
				start := time.Now()
				h := batchasynctest.NewHarness(t, batchasync.New(&Caller[int, int]{Endpoint: e}, batchasync.RetryInterval(3*time.Second)))
				out, err := h.Bundle(ints(5)...)
				require.NoError(t, err)
				batchasynctest.RequireExactlyOnce(t, ints(5), out, func(v any) any { return v })
				require.Equal(t, test.wait, time.Since(start))
				require.NoError(t, h.Teardown())
			})
		})
	}
}

func TestADateCountsByTheServicesClock(t *testing.T) {
	h := http.Header{"Date": {"Wed, 21 Oct 2015 07:28:00 GMT"}, "Retry-After": {"Wed, 21 Oct 2015 07:28:30 GMT"}}
	require.Equal(t, 30*time.Second, retryAfter(h))
}

func TestAHoldIsBoundedAndNeverShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &Endpoint{URL: "https://x"}
		e.Hold(time.Minute) // before Setup there is nothing to hold
		require.Zero(t, e.HoldUntil())
		require.NoError(t, e.Setup(t.Context()))
		e.Hold(time.Minute)
		e.Hold(time.Second)
		e.Hold(-time.Second)
		require.Equal(t, time.Minute, time.Until(e.HoldUntil()))
		e.Hold(24 * time.Hour)
		require.Equal(t, MaxRetryAfter, time.Until(e.HoldUntil()))
		require.NoError(t, e.Teardown(t.Context()))
	})
}

func TestACallThatItsContextEndedSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := &Endpoint{conn: &connection{shown: "https://x"}}
	odd := errors.New("net/http: in other words")
	require.EqualError(t, e.broken(ctx, "", odd, hidden{}), "POST https://x: net/http: in other words")
	cancel()
	err := e.broken(ctx, "", odd, hidden{})
	require.ErrorIs(t, err, context.Canceled)
	require.EqualError(t, err, "POST https://x: context canceled")
}

func TestA429HoldsAllCallsAndA503OnlyItsOwn(t *testing.T) {
	for status, held := range map[int]bool{429: true, 503: false} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			var mu sync.Mutex
			var at []time.Time
			inBubble(t, func(n int, w http.ResponseWriter, batch []int) {
				mu.Lock()
				at = append(at, time.Now())
				mu.Unlock()
				if n == 1 {
					w.Header().Set("Retry-After", "60")
					w.WriteHeader(status)
					return
				}
				time.Sleep(time.Second)
				echo(w, batch)
			}, func(t *testing.T, e Endpoint) {
				h := batchasynctest.NewHarness(t, batchasync.New(&Caller[int, int]{Endpoint: e}, batchasync.MaxInFlight(1), batchasync.BatchSize(1)))
				out, err := h.Bundle(ints(5)...)
				require.NoError(t, err)
				require.Len(t, out.Results(), 5)
				wait := at[1].Sub(at[0])
				if held {
					require.GreaterOrEqual(t, wait, time.Minute)
				} else {
					require.Less(t, wait, time.Second)
				}
				require.NoError(t, h.Teardown())
			})
		})
	}
}
