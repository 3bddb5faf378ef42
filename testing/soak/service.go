// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// A service doubles numbers, over HTTP, and fails at random.
type service struct {
	server      *httptest.Server
	calls       atomic.Int64
	faults      atomic.Int64
	connections atomic.Int64

	mu   sync.Mutex
	rand *rand.Rand
}

func newService(seed uint64) *service {
	s := &service{rand: rand.New(rand.NewPCG(seed, seed))}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.handle))
	s.server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.connections.Add(1)
		case http.StateClosed, http.StateHijacked:
			s.connections.Add(-1)
		}
	}
	s.server.Start()
	return s
}

func (s *service) url() string { return s.server.URL }

func (s *service) close() error {
	s.server.CloseClientConnections()
	s.server.Close()
	return nil
}

// A reply has an answer for each number, or, at its index, an error.
type reply struct {
	Answers []int
	Errors  map[int]string
}

func (s *service) handle(w http.ResponseWriter, r *http.Request) {
	s.calls.Add(1)
	s.mu.Lock()
	fault, latency := s.rand.Float64(), time.Duration(s.rand.ExpFloat64()*float64(5*time.Millisecond))
	s.mu.Unlock()
	var numbers []int
	if err := json.NewDecoder(r.Body).Decode(&numbers); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pause(r.Context(), latency)
	if fault < 0.10 {
		s.faults.Add(1)
	}
	answer := reply{Errors: map[int]string{}}
	for i, v := range numbers {
		if v%997 == 0 {
			answer.Errors[i] = "refused" // for good
		}
		answer.Answers = append(answer.Answers, 2*v)
	}
	switch {
	case fault < 0.02:
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	case fault < 0.04:
		w.Header().Set("Retry-After", "0.02")
		http.Error(w, "too much", http.StatusTooManyRequests)
		return
	case fault < 0.05:
		pause(r.Context(), time.Minute) // until the caller has had enough
		return
	case fault < 0.06:
		panic(http.ErrAbortHandler) // the connection breaks
	case fault < 0.07:
		answer.Answers = answer.Answers[1:] // too few
	case fault < 0.08:
		if _, err := io.WriteString(w, `{"Answers":[`); err != nil {
			return
		}
		return
	case fault < 0.10:
		answer.Errors[0] = "busy" // this one, this time
	}
	// Who does not wait for it any more gets no answer.
	_ = json.NewEncoder(w).Encode(answer)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// client calls the service.
type client struct {
	URL string

	http *http.Client
}

func (c *client) Setup(context.Context) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 32
	c.http = &http.Client{Transport: transport}
	return nil
}

func (c *client) Teardown(context.Context) error {
	c.http.CloseIdleConnections()
	return nil
}

func (c *client) Call(ctx context.Context, batch []int) (_ []int, err error) {
	body, err := json.Marshal(batch)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		err := fmt.Errorf("the service answers %s", resp.Status)
		if after, parsed := strconv.ParseFloat(resp.Header.Get("Retry-After"), 64); parsed == nil {
			return nil, batchasync.RetryAfter(err, time.Duration(after*float64(time.Second)))
		}
		return nil, err
	}
	var answer reply
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	var failed batchasync.BatchError
	for i, text := range answer.Errors {
		err := errors.New(text)
		if text == "refused" {
			err = batchasync.Permanent(err)
		}
		failed.Fail(i, err)
	}
	return answer.Answers, failed.Err()
}
