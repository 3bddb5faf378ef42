// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/internal/joberror"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// An approach is one way to use the service.
type approach string

const (
	single  approach = "one element a call"
	batches approach = "100 elements a call"
	unset   approach = "nothing set"
)

// batchSize of batches, and of unset as far as is known before it runs.
const batchSize = 100

// A setting is what one run is made with.
type setting struct {
	Approach    approach `json:"approach"`
	MaxInFlight int      `json:"max_in_flight,omitempty"` // 0: not set
}

func (s setting) options() []batchasync.Option {
	switch s.Approach {
	case single:
		return []batchasync.Option{batchasync.BatchSize(1), batchasync.MaxInFlight(s.MaxInFlight)}
	case batches:
		return []batchasync.Option{batchasync.BatchSize(batchSize), batchasync.MaxInFlight(s.MaxInFlight)}
	default:
		return nil
	}
}

// settings are those of all runs, in the order of the table.
func settings(levels []int) (all []setting) {
	for _, a := range []approach{single, batches} {
		for _, n := range levels {
			all = append(all, setting{a, n})
		}
	}
	return append(all, setting{Approach: unset})
}

// elements is how many a run takes, by the service's own figures, to last for so
// long: whole batches, and enough of them to fill the calls in flight many times.
func (s setting) elements(config batchasynctest.ServiceConfig, duration time.Duration) int {
	batch, inFlight := batchSize, s.MaxInFlight
	if s.Approach == single {
		batch = 1
	}
	if s.Approach == unset {
		// It may have to find its limit first, which is to be a small
		// part of the whole.
		inFlight, duration = config.Capacity, 2*duration
	}
	seconds := batchasynctest.NewService(config).CallTime(batch).Seconds()
	if over := inFlight - config.Capacity; over > 0 {
		seconds *= 1 + config.DegradeFactor*float64(over)/float64(config.Capacity)
	}
	const rounds = 8
	return batch * inFlight * max(rounds, int(math.Ceil(duration.Seconds()/seconds)))
}

// A run is what came of a setting.
type run struct {
	setting
	Elements  int64   `json:"elements"`
	Requests  int64   `json:"requests"`
	MeanBatch float64 `json:"mean_batch"`
	MostCalls int     `json:"most_calls"` // at once, as the service saw them; so MeanCalls
	MeanCalls float64 `json:"mean_calls"`
	Seconds   float64 `json:"seconds"`    // from the first request to the last answer
	PerSecond float64 `json:"per_second"` // elements
	Limit     float64 `json:"limit"`      // the service's own, at that batch size
}

// share of the service's limit.
func (r run) share() float64 { return r.PerSecond / r.Limit }

// measure runs a pipeline with a service of its own.
func measure(ctx context.Context, runner string, config batchasynctest.ServiceConfig, s setting, elements int) (r run, err error) {
	server, err := serve(config)
	if err != nil {
		return run{}, err
	}
	defer func() { err = errors.Join(err, server.close()) }()

	p, root := beam.NewPipelineWithRoot()
	enrich(root, server.url, elements, s.options()...)
	result, err := beam.Run(ctx, runner, p)
	if err != nil {
		return run{}, fmt.Errorf("the job has failed: %s", joberror.Cause(cmp.Or(context.Cause(ctx), err)))
	}
	if got := named(result); got != int64(elements) {
		return run{}, fmt.Errorf("the figures don't add up: %d elements, but %d with the right name", elements, got)
	}
	return newRun(s, elements, server.service, server.elapsed()), nil
}

func newRun(s setting, elements int, service *batchasynctest.Service, elapsed time.Duration) run {
	stats := service.Stats()
	return run{
		setting:   s,
		Elements:  int64(elements),
		Requests:  stats.Calls,
		MeanBatch: stats.MeanBatch(),
		MostCalls: stats.MaxInFlight,
		MeanCalls: stats.Busy.Seconds() / elapsed.Seconds(),
		Seconds:   elapsed.Seconds(),
		PerSecond: float64(elements) / elapsed.Seconds(),
		Limit:     service.MaxThroughput(int(math.Round(stats.MeanBatch()))),
	}
}
