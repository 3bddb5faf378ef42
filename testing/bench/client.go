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
	"net/http"
	"strings"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// A Customer is what the service knows of a number.
type Customer struct {
	ID   int
	Name string
}

// connections is more than most contestants use at once: with fewer idle ones,
// each further call would open a connection of its own.
const connections = 1024

func newClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = connections, connections
	return &http.Client{Transport: transport}
}

// ask is what all contestants call: one POST for all ids.
func ask(ctx context.Context, client *http.Client, url string, ids []int) ([]Customer, error) {
	body, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	// Read to its end, so that the connection serves the next call too.
	answer, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		err := fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(answer)))
		if response.StatusCode < http.StatusInternalServerError {
			return nil, batchasync.Permanent(err) // it is the request that is wrong
		}
		return nil, err
	}
	var names []string
	if err := json.Unmarshal(answer, &names); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	if len(names) != len(ids) {
		return nil, fmt.Errorf("answer: %d names for %d ids", len(names), len(ids))
	}
	customers := make([]Customer, len(ids))
	for i, id := range ids {
		customers[i] = Customer{ID: id, Name: names[i]}
	}
	return customers, nil
}

// A service is what those written by hand keep of it.
type service struct {
	URL string

	// Attempts is the most that are made of a call: 1, or as many as
	// batchasync's default for those that have a retry loop too.
	Attempts int

	client *http.Client
}

func (s *service) Setup() { s.client = newClient() }

func (s *service) Teardown() { s.client.CloseIdleConnections() }

// ask is the loop around a call that one writes by hand: exponential backoff with
// full jitter, as batchasync's is.
func (s *service) ask(ctx context.Context, ids []int) ([]Customer, error) {
	for attempt := 1; ; attempt++ {
		customers, err := ask(ctx, s.client, s.URL, ids)
		if err == nil || attempt >= s.Attempts {
			return customers, err
		}
		backoff := time.NewTimer(rand.N(100 * time.Millisecond << (attempt - 1)))
		select {
		case <-backoff.C:
		case <-ctx.Done():
			backoff.Stop()
			return nil, context.Cause(ctx)
		}
	}
}
