// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package enrich_test

import (
	"context"
	"fmt"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/batchasync/beam-batchasync/transforms/enrich"
)

// KeepMissing is a left join: an element with a key that isn't there is joined with the
// zero value. Found.Get's second result tells it apart from a row of zeros.
func ExampleParDo() {
	p, s := beam.NewPipelineWithRoot()
	parcels := beam.Create(s, Parcel{1, "80331", "1010"}, Parcel{2, "1010", "0000"})
	routed := enrich.ParDo(s, &cities{Table: "city"}, addCities{}, enrich.KeepMissing, parcels)
	beam.ParDo0(s, printLine, routed)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Unordered output:
	// parcel 1: München (DE) to Wien (AT)
	// parcel 2: Wien (AT) to  ()
}

// DropMissing is an inner join: an element with a key that isn't there has no output.
// The metric enrich/dropped counts those.
func ExampleParDo_innerJoin() {
	p, s := beam.NewPipelineWithRoot()
	parcels := beam.Create(s, Parcel{1, "80331", "1010"}, Parcel{2, "1010", "0000"})
	routed := enrich.ParDo(s, &cities{Table: "city"}, addCities{}, enrich.DropMissing, parcels)
	beam.ParDo0(s, printLine, routed)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Output: parcel 1: München (DE) to Wien (AT)
}
