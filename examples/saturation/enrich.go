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
	"net/http"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/metrics"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"

	"github.com/batchasync/beam-batchasync/batchasync"
)

func init() {
	batchasync.Register(&Enrich{})
	register.DoFn2x0[[]byte, func(int)](&numbersFn{})
	register.DoFn3x0[context.Context, Customer, func(Customer)](&checkFn{})
	register.Emitter1[int]()
	register.Emitter1[Customer]()
}

// namedCounter counts the elements that came out with the right name.
var namedCounter = beam.NewCounter("saturation", "named")

// A Customer is an enriched element.
type Customer struct {
	ID   int
	Name string
}

// Enrich asks a service for the names of customers, with one POST for a batch.
type Enrich struct {
	URL    string
	client *http.Client
}

// connections is more than the most calls at once: with fewer idle ones, each
// further call would open a connection of its own.
const connections = 1024

// Setup makes the client.
func (e *Enrich) Setup(context.Context) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = connections, connections
	e.client = &http.Client{Transport: transport}
	return nil
}

// Teardown closes the connections.
func (e *Enrich) Teardown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// Call asks for the names of a batch.
func (e *Enrich) Call(ctx context.Context, ids []int) ([]Customer, error) {
	body, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(body))
	if err != nil {
		return nil, batchasync.Permanent(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := e.client.Do(request)
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
		return nil, fmt.Errorf("answer of %s: %w", e.URL, err)
	}
	if len(names) != len(ids) {
		return nil, fmt.Errorf("answer of %s: %d names for %d customers", e.URL, len(names), len(ids))
	}
	customers := make([]Customer, len(ids))
	for i, id := range ids {
		customers[i] = Customer{ID: id, Name: names[i]}
	}
	return customers, nil
}

// enrich is the pipeline: the numbers below count, each with its name.
func enrich(s beam.Scope, url string, count int, opts ...batchasync.Option) {
	ids := beam.ParDo(s, &numbersFn{Count: count}, beam.Impulse(s))
	customers := batchasync.ParDo(s, &Enrich{URL: url}, ids, opts...)
	wrong := beam.ParDo(s, &checkFn{}, customers)
	// Behind a reshuffle is another stage: while one without outputs runs,
	// Prism 2.77 takes a whole core to wait for it.
	passert.Empty(s, beam.Reshuffle(s, wrong))
}

// numbersFn makes the elements.
type numbersFn struct{ Count int }

func (f *numbersFn) ProcessElement(_ []byte, emit func(int)) {
	for id := range f.Count {
		emit(id)
	}
}

// checkFn counts the customers with their right names, and emits the others.
type checkFn struct{}

func (*checkFn) ProcessElement(ctx context.Context, c Customer, wrong func(Customer)) {
	if c.Name == nameOf(c.ID) {
		namedCounter.Inc(ctx, 1)
	} else {
		wrong(c)
	}
}

// named is what checkFn has counted.
func named(result beam.PipelineResult) (sum int64) {
	found := result.Metrics().Query(func(r metrics.SingleResult) bool {
		return r.Namespace() == "saturation" && r.Name() == "named"
	})
	for _, c := range found.Counters() {
		sum += c.Result()
	}
	return sum
}
