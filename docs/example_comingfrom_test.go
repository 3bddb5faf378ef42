// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/enrich"
)

// Lookup answers the ids of cities with their names.
type Lookup struct {
	Table string // travels to the workers

	db *database // does not: Setup opens it there
}

// Setup runs once in a worker process.
func (l *Lookup) Setup(ctx context.Context) (err error) {
	l.db, err = open(ctx, l.Table)
	return err
}

// Call answers a whole batch with one query.
func (l *Lookup) Call(ctx context.Context, ids []int) ([]string, error) {
	rows, err := l.db.query(ctx, ids)
	if err != nil {
		return nil, err // all of them are tried again
	}
	names := make([]string, len(ids))
	var failed batchasync.BatchError
	for i, id := range ids {
		name, ok := rows[id]
		if !ok {
			failed.Fail(i, batchasync.Permanent(errNoCity)) // this one is not
		}
		names[i] = name
	}
	return names, failed.Err()
}

// Teardown runs when nobody needs the caller any more.
func (l *Lookup) Teardown(context.Context) error { return l.db.close() }

// Key says which elements have the same answer, for Dedup and Cache.
func (l *Lookup) Key(id int) string { return strconv.Itoa(id) }

func init() { batchasync.Register(&Lookup{}) }

func asInFlink(s beam.Scope, ids beam.PCollection) (names, lost beam.PCollection) {
	return batchasync.ParDoWithFailures(s, &Lookup{Table: "city"}, ids,
		batchasync.BatchSize(100), batchasync.Linger(20*time.Millisecond),
		batchasync.MaxInFlight(8),
		batchasync.MaxElapsed(10*time.Second),
		batchasync.MaxAttempts(4), batchasync.RetryInterval(100*time.Millisecond))
}

func asInScio(s beam.Scope, ids beam.PCollection) (names, lost beam.PCollection) {
	return batchasync.ParDoWithFailures(s, &Lookup{Table: "city"}, ids,
		batchasync.BatchSize(100), batchasync.MaxInFlight(8),
		batchasync.Cache(10_000, time.Hour)) // includes Dedup
}

func asInBeamJava(s beam.Scope, ids beam.PCollection) (names, lost beam.PCollection) {
	return batchasync.ParDoWithFailures(s, &Lookup{Table: "city"}, ids)
}

func asWithBatchElements(s beam.Scope, ids beam.PCollection) beam.PCollection {
	return batchasync.ParDo(s, &Lookup{Table: "city"}, ids,
		batchasync.AdaptiveBatchSize(1, 10_000, time.Second))
}

// Visit is what is enriched.
type Visit struct {
	Who  string
	City int
}

// cityTable is the source: it answers keys in bulk, and leaves out those that aren't there.
type cityTable struct {
	Table string

	db *database
}

func (c *cityTable) Setup(ctx context.Context) (err error) {
	c.db, err = open(ctx, c.Table)
	return err
}

func (c *cityTable) Lookup(ctx context.Context, ids []int) (map[int]string, error) {
	return c.db.query(ctx, ids)
}

// addCity is the join.
type addCity struct{}

func (addCity) Keys(v Visit) []int { return []int{v.City} }

func (addCity) Join(v Visit, cities enrich.Found[int, string]) (string, error) {
	name, _ := cities.Get(v.City)
	return v.Who + " in " + name, nil
}

func init() { enrich.Register(&cityTable{}, addCity{}) }

func asWithEnrichment(s beam.Scope, visits beam.PCollection) beam.PCollection {
	return enrich.ParDo(s, &cityTable{Table: "city"}, addCity{}, enrich.KeepMissing, visits,
		batchasync.Cache(10_000, time.Hour))
}

// database stands for yours.
type database struct{ rows map[int]string }

var errNoCity = errors.New("no such city")

func open(context.Context, string) (*database, error) {
	return &database{rows: map[int]string{1: "Wien", 2: "Graz"}}, nil
}

func (d *database) query(_ context.Context, ids []int) (map[int]string, error) {
	found := map[int]string{}
	for _, id := range ids {
		if name, ok := d.rows[id]; ok {
			found[id] = name
		}
	}
	return found, nil
}

func (d *database) close() error { return nil }

func showName(name string) { fmt.Println(name) }

func showLost(f batchasync.Failure[int]) { fmt.Println(f.Element, "is lost:", f.Error) }

func init() {
	beam.RegisterFunction(showName)
	beam.RegisterFunction(showLost)
}

// The code of the page, run.
func Example_comingFrom() {
	p, s := beam.NewPipelineWithRoot()
	ids := beam.Create(s, 1, 3)
	for _, same := range []func(beam.Scope, beam.PCollection) (beam.PCollection, beam.PCollection){asInFlink, asInScio, asInBeamJava} {
		names, lost := same(s, ids)
		beam.ParDo0(s, showName, names)
		beam.ParDo0(s, showLost, lost)
	}
	beam.ParDo0(s, showName, asWithBatchElements(s, beam.Create(s, 2)))
	beam.ParDo0(s, showName, asWithEnrichment(s, beam.Create(s, Visit{"Ada", 1})))
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Unordered output:
	// Wien
	// Wien
	// Wien
	// 3 is lost: no such city
	// 3 is lost: no such city
	// 3 is lost: no such city
	// Graz
	// Ada in Wien
}
