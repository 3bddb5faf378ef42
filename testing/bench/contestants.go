// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/transforms/batch"

	"github.com/batchasync/beam-batchasync/batchasync"
)

func init() {
	batchasync.Register(&Lookup{})
	register.DoFn1x2[int, string, int](&keyFn{})
	register.DoFn4x1[context.Context, string, []int, func(Customer), error](&groupFn{})
	register.DoFn1x1[int, Customer](&nothingFn{})
}

// Those that the checks and the table know.
const (
	none       = "no call at all"
	oneByOne   = "one call an element"
	goroutines = "a goroutine for each element"
	grouped    = "GroupIntoBatches and a ParDo"
	ours       = "batchasync"
	adaptive   = ours + ", adaptive"
)

func (r row) ofBatchasync() bool { return strings.HasPrefix(r.Contestant, ours) }

// A contestant is one way to do the job.
type contestant struct {
	Name string // in the table
	// About how many elements a second it does, which gives the number of
	// elements that its run has.
	rate  float64
	apply func(s beam.Scope, service service, ids beam.PCollection) beam.PCollection
}

// contestants are all, in the order of the table. The first one makes no call, and
// shows what Beam takes for itself.
var contestants = []contestant{
	{none, 1e6, func(s beam.Scope, _ service, ids beam.PCollection) beam.PCollection {
		return beam.ParDo(s, &nothingFn{}, ids)
	}},
	{oneByOne, 800, func(s beam.Scope, service service, ids beam.PCollection) beam.PCollection {
		return beam.ParDo(s, &oneByOneFn{Service: service}, ids)
	}},
	{goroutines, 1600, func(s beam.Scope, service service, ids beam.PCollection) beam.PCollection {
		return beam.ParDo(s, &goroutinesFn{Service: service}, ids)
	}},
	{grouped, 5000, func(s beam.Scope, service service, ids beam.PCollection) beam.PCollection {
		keyed := beam.ParDo(s, &keyFn{}, ids)
		groups := batch.GroupIntoBatches(s, batch.Params{BatchSize: batchSize}, keyed)
		return beam.ParDo(s, &groupFn{Service: service}, groups)
	}},
	{"a buffer by hand", 50_000, func(s beam.Scope, service service, ids beam.PCollection) beam.PCollection {
		return beam.ParDo(s, &bufferFn{Service: service}, ids)
	}},
	{"… and 16 goroutines an instance", 150_000, func(s beam.Scope, service service, ids beam.PCollection) beam.PCollection {
		return beam.ParDo(s, &asyncBufferFn{Service: service}, ids)
	}},
	{"… and 16 goroutines a process", 200_000, func(s beam.Scope, service service, ids beam.PCollection) beam.PCollection {
		return beam.ParDo(s, &asyncBufferFn{Service: service, Shared: true}, ids)
	}},
	ofBatchasync(ours + ", nothing set"),
	ofBatchasync(ours+", tuned",
		batchasync.BatchSize(batchSize), batchasync.MaxInFlight(capacity)),
	ofBatchasync(adaptive,
		// 1.5 times what a call of the largest batch takes.
		batchasync.TargetLatency(3*(baseLatency+batchSize*perElement)/2),
		batchasync.AdaptiveInFlight(1, 64), batchasync.AdaptiveBatchSize(10, batchSize, 10*time.Millisecond)),
	ofBatchasync(ours+", across bundles", batchasync.AcrossBundles()),
}

func ofBatchasync(name string, opts ...batchasync.Option) contestant {
	return contestant{name, 200_000, func(s beam.Scope, service service, ids beam.PCollection) beam.PCollection {
		return batchasync.ParDo(s, &Lookup{URL: service.URL}, ids, opts...)
	}}
}

// nothingFn knows the answer.
type nothingFn struct{}

func (*nothingFn) ProcessElement(id int) Customer { return Customer{ID: id, Name: nameOf(id)} }

// Lookup is the caller for batchasync.
type Lookup struct {
	URL    string
	client *http.Client
}

// Setup makes the client.
func (l *Lookup) Setup(context.Context) error {
	l.client = newClient()
	return nil
}

// Teardown closes the connections.
func (l *Lookup) Teardown(context.Context) error {
	l.client.CloseIdleConnections()
	return nil
}

// Call asks for the names of a batch.
func (l *Lookup) Call(ctx context.Context, ids []int) ([]Customer, error) {
	return ask(ctx, l.client, l.URL, ids)
}

// keyFn spreads the elements over as many keys as there may be calls at once, since
// GroupIntoBatches groups by key, of a type whose coder is deterministic.
type keyFn struct{}

func (*keyFn) ProcessElement(id int) (string, int) { return strconv.Itoa(id % capacity), id }

// groupFn makes a call for each group.
type groupFn struct{ Service service }

func (f *groupFn) Setup()    { f.Service.Setup() }
func (f *groupFn) Teardown() { f.Service.Teardown() }

func (f *groupFn) ProcessElement(ctx context.Context, _ string, ids []int, emit func(Customer)) error {
	customers, err := f.Service.ask(ctx, ids)
	if err != nil {
		return err
	}
	for _, c := range customers {
		emit(c)
	}
	return nil
}
