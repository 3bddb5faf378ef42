// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// prices asks a price service, here a map, for many articles at once.
type prices struct{ Currency string }

func (p *prices) Call(ctx context.Context, articles []string) ([]string, error) {
	table := map[string]int{"tea": 3, "rice": 2}
	out := make([]string, len(articles))
	var failed batchasync.BatchError
	for i, a := range articles {
		if price, ok := table[a]; ok {
			out[i] = fmt.Sprintf("%s: %d %s", a, price, p.Currency)
		} else {
			failed.Fail(i, batchasync.Permanent(errors.New("no such article")))
		}
	}
	return out, failed.Err()
}

func printFn(line string) { fmt.Println(line) }

func init() {
	batchasync.Register(&prices{})
	register.Function1x0(printFn)
}

// A whole pipeline: elements are asked for in batches of 200, with at most four
// calls at once.
func Example() {
	p, s := beam.NewPipelineWithRoot()
	articles := beam.Create(s, "tea")
	priced, _ := batchasync.ParDoWithFailures(s, &prices{Currency: "EUR"}, articles,
		batchasync.BatchSize(200), batchasync.MaxInFlight(4))
	beam.ParDo0(s, printFn, priced)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Output: tea: 3 EUR
}

// Elements that fail for good come out of the second output.
func ExampleParDoWithFailures() {
	p, s := beam.NewPipelineWithRoot()
	_, failures := batchasync.ParDoWithFailures(s, &prices{Currency: "EUR"}, beam.Create(s, "tea", "unobtainium"))
	beam.ParDo0(s, printFailure, failures)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Output: unobtainium: no such article (attempts: 1, permanent: true)
}

func printFailure(f batchasync.Failure[string]) {
	fmt.Printf("%s: %s (attempts: %d, permanent: %v)\n", f.Element, f.Error, f.Attempts, f.Permanent)
}

// A plain function is a caller too.
func ExampleFunc() {
	p, s := beam.NewPipelineWithRoot()
	beam.ParDo0(s, printFn, batchasync.ParDo(s, batchasync.Func(greet), beam.Create(s, "Ada")))
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Output: hello Ada
}

func greet(_ context.Context, names []string) ([]string, error) {
	out := slices.Clone(names)
	for i, name := range names {
		out[i] = "hello " + name
	}
	return out, nil
}

// A call that fails for some of its elements tells which; the others keep their
// results, and only what failed is sent again.
func ExampleBatchError() {
	var failed batchasync.BatchError
	failed.Fail(2, errors.New("row is locked"))
	failed.Fail(7, batchasync.Permanent(errors.New("no such column")))
	fmt.Println(failed.Err())
	// Output: 2 elements failed; element 2: row is locked; element 7: no such column
}

func init() {
	register.Function1x0(printFailure)
	batchasync.RegisterFunc(greet)
}
