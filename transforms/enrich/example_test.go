// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package enrich_test

import (
	"context"
	"fmt"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/enrich"
)

type City struct{ Name, Country string }

// cities answers postcodes with their cities; here the table is a map.
type cities struct{ Table string }

func (c *cities) Lookup(_ context.Context, postcodes []string) (map[string]City, error) {
	table := map[string]City{"80331": {"München", "DE"}, "1010": {"Wien", "AT"}}
	found := map[string]City{}
	for _, p := range postcodes {
		if city, ok := table[p]; ok {
			found[p] = city
		}
	}
	return found, nil
}

type Parcel struct {
	Number   int
	From, To string // postcodes
}

// addCities joins a parcel with the cities that it comes from and goes to.
type addCities struct{}

func (addCities) Keys(p Parcel) []string { return []string{p.From, p.To} }

func (addCities) Join(p Parcel, cities enrich.Found[string, City]) (string, error) {
	from, _ := cities.Get(p.From)
	to, _ := cities.Get(p.To)
	return fmt.Sprintf("parcel %d: %s (%s) to %s (%s)", p.Number, from.Name, from.Country, to.Name, to.Country), nil
}

func printLine(line string) { fmt.Println(line) }

func init() {
	enrich.Register(&cities{}, addCities{})
	register.Function1x0(printLine)
	register.Function1x0(printLost)
}

// A whole pipeline: parcels are joined with two cities each. Postcodes are asked for
// in bulk, each once, and kept for an hour.
func Example() {
	p, s := beam.NewPipelineWithRoot()
	parcels := beam.Create(s, Parcel{7, "80331", "1010"})
	routed, _ := enrich.ParDoWithFailures(s, &cities{Table: "city"}, addCities{}, enrich.DeadLetterMissing, parcels,
		batchasync.BatchSize(500), batchasync.Cache(10_000, time.Hour))
	beam.ParDo0(s, printLine, routed)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Output: parcel 7: München (DE) to Wien (AT)
}

// A parcel with a postcode that the table does not have is a dead letter.
func ExampleMissingKeyError() {
	p, s := beam.NewPipelineWithRoot()
	parcels := beam.Create(s, Parcel{8, "1010", "0000"})
	_, lost := enrich.ParDoWithFailures(s, &cities{Table: "city"}, addCities{}, enrich.DeadLetterMissing, parcels)
	beam.ParDo0(s, printLost, lost)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Output: parcel 8: the source has no value for the key "0000"
}

func printLost(f batchasync.Failure[Parcel]) {
	fmt.Printf("parcel %d: %s\n", f.Element.Number, f.Error)
}

// A Join is tested without a source.
func ExampleFoundOf() {
	line, err := addCities{}.Join(Parcel{9, "1010", "1010"}, enrich.FoundOf(map[string]City{"1010": {"Wien", "AT"}}))
	fmt.Println(line, err)
	// Output: parcel 9: Wien (AT) to Wien (AT) <nil>
}
