// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// A server is the simulated service behind HTTP: a POST of customers' numbers,
// a JSON array, is answered with their names.
type server struct {
	service *batchasynctest.Service
	url     string
	http    http.Server
	served  chan error

	mu          sync.Mutex
	first, last time.Time // of the requests: when it came, when it was answered
}

// serve starts a server on the loopback address.
func serve(config batchasynctest.ServiceConfig) (*server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the service: %w", err)
	}
	s := &server{
		service: batchasynctest.NewService(config),
		url:     "http://" + listener.Addr().String(),
		served:  make(chan error, 1),
	}
	s.http.Handler = s
	go func() { s.served <- s.http.Serve(listener) }()
	return s, nil
}

// close ends the server, and all its connections.
func (s *server) close() error {
	err := s.http.Close()
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// ServeHTTP answers one bulk call.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.first.IsZero() {
		s.first = time.Now()
	}
	s.mu.Unlock()

	var ids []int
	if err := json.NewDecoder(r.Body).Decode(&ids); err != nil {
		http.Error(w, fmt.Sprintf("%v: send a JSON array of numbers", err), http.StatusBadRequest)
		return
	}
	names, _, err := batchasynctest.Call(r.Context(), s.service, ids, func(id int) (string, error) { return nameOf(id), nil })
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if err := json.NewEncoder(w).Encode(names); err != nil {
		return // the client is gone, and knows
	}

	s.mu.Lock()
	s.last = time.Now()
	s.mu.Unlock()
}

// elapsed is the time from the first request to the last answer.
func (s *server) elapsed() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.Sub(s.first)
}

// nameOf is what the service knows.
func nameOf(id int) string { return "customer " + strconv.Itoa(id) }
