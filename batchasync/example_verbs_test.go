// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// words answers a text with its words: none, one or many. It stands for a search, a
// join with several rows, a model that finds things.
type words struct{}

func (words) Call(_ context.Context, texts []string) ([][]string, error) {
	out := make([][]string, len(texts))
	var failed batchasync.BatchError
	for i, text := range texts {
		if out[i] = strings.Fields(text); text == "?" {
			failed.Fail(i, batchasync.Permanent(errors.New("no language")))
		}
	}
	return out, failed.Err()
}

func printKV(key, line string) { fmt.Printf("%s: %s\n", key, line) }

func printKVFailure(key string, f batchasync.Failure[string]) {
	fmt.Printf("%s: %s: %s\n", key, f.Element, f.Error)
}

// orders makes a PCollection<KV<string, string>> of customers and articles.
func orders(customerAndArticle string, emit func(customer, article string)) {
	customer, article, _ := strings.Cut(customerAndArticle, " ")
	emit(customer, article)
}

func init() {
	batchasync.RegisterKV[string](&prices{})
	batchasync.RegisterFlat(words{})
	batchasync.RegisterFlatKV[string](words{})
	beam.RegisterFunction(orders)
	register.Emitter2[string, string]()
	register.Function2x0(printKV)
	register.Function2x0(printKVFailure)
}

// run runs a pipeline on Prism, which is in the program. A program of yours calls
// beam.Init first, and beamx.Run or beam.Run with the runner that its flags name.
func run(p *beam.Pipeline) {
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
}

// ParDo is the first choice: each element has one result, and an element that fails for
// good fails the pipeline.
func ExampleParDo() {
	p, s := beam.NewPipelineWithRoot()
	articles := beam.Create(s, "tea", "rice")
	priced := batchasync.ParDo(s, &prices{Currency: "EUR"}, articles)
	beam.ParDo0(s, printFn, priced)
	run(p)
	// Unordered output:
	// tea: 3 EUR
	// rice: 2 EUR
}

// FlatParDo is for callers with any number of outputs an element.
func ExampleFlatParDo() {
	p, s := beam.NewPipelineWithRoot()
	found := batchasync.FlatParDo(s, words{}, beam.Create(s, "green tea", "", "rice"))
	beam.ParDo0(s, printFn, found)
	run(p)
	// Unordered output:
	// green
	// tea
	// rice
}

// FlatParDoWithFailures is both: an element has any number of outputs, or it is a
// failure. An element without an output is no failure.
func ExampleFlatParDoWithFailures() {
	p, s := beam.NewPipelineWithRoot()
	found, failures := batchasync.FlatParDoWithFailures(s, words{}, beam.Create(s, "green tea", "", "?"))
	beam.ParDo0(s, printFn, found)
	beam.ParDo0(s, printFailure, failures)
	run(p)
	// Unordered output:
	// green
	// tea
	// ?: no language (attempts: 1, permanent: true)
}

// ParDoKV asks about the values of a PCollection of KVs; each key stays with its value's
// result. The key is not shown to the caller.
func ExampleParDoKV() {
	p, s := beam.NewPipelineWithRoot()
	ordered := beam.ParDo(s, orders, beam.Create(s, "Ada tea", "Bob rice"))
	priced := batchasync.ParDoKV[string](s, &prices{Currency: "EUR"}, ordered)
	beam.ParDo0(s, printKV, priced)
	run(p)
	// Unordered output:
	// Ada: tea: 3 EUR
	// Bob: rice: 2 EUR
}

// ParDoKVWithFailures keeps the key of a failure too.
func ExampleParDoKVWithFailures() {
	p, s := beam.NewPipelineWithRoot()
	ordered := beam.ParDo(s, orders, beam.Create(s, "Ada tea", "Bob unobtainium"))
	priced, failures := batchasync.ParDoKVWithFailures[string](s, &prices{Currency: "EUR"}, ordered)
	beam.ParDo0(s, printKV, priced)
	beam.ParDo0(s, printKVFailure, failures)
	run(p)
	// Unordered output:
	// Ada: tea: 3 EUR
	// Bob: unobtainium: no such article
}

// FlatParDoKV gives each of a value's outputs the value's key.
func ExampleFlatParDoKV() {
	p, s := beam.NewPipelineWithRoot()
	texts := beam.ParDo(s, orders, beam.Create(s, "Ada green tea"))
	beam.ParDo0(s, printKV, batchasync.FlatParDoKV[string](s, words{}, texts))
	run(p)
	// Unordered output:
	// Ada: green
	// Ada: tea
}

// FlatParDoKVWithFailures has it all: keys, any number of outputs, failures.
func ExampleFlatParDoKVWithFailures() {
	p, s := beam.NewPipelineWithRoot()
	texts := beam.ParDo(s, orders, beam.Create(s, "Ada tea", "Bob ?"))
	found, failures := batchasync.FlatParDoKVWithFailures[string](s, words{}, texts)
	beam.ParDo0(s, printKV, found)
	beam.ParDo0(s, printKVFailure, failures)
	run(p)
	// Unordered output:
	// Ada: tea
	// Bob: ?: no language
}

// New is the DoFn itself: for a test with the harness, or a transform of your own. Its
// outputs are the results and the failures.
func ExampleNew() {
	p, s := beam.NewPipelineWithRoot()
	fn := batchasync.New(&prices{Currency: "EUR"}, batchasync.BatchSize(500))
	priced, failures := beam.ParDo2(s, fn, beam.Create(s, "tea", "unobtainium"))
	beam.ParDo0(s, printFn, priced)
	beam.ParDo0(s, printFailure, failures)
	run(p)
	// Unordered output:
	// tea: 3 EUR
	// unobtainium: no such article (attempts: 1, permanent: true)
}

// Register makes a caller known to Beam, in an init function: workers find it by its
// type. What isn't registered is refused when the pipeline is made, with the line to
// add.
func ExampleRegister() {
	type forgotten struct{ prices }
	defer func() { fmt.Println(recover()) }()
	batchasync.New(&forgotten{})
	// Output: batchasync.New(*batchasync_test.forgotten): the caller *batchasync_test.forgotten is not registered for this transform; add to an init function: batchasync.Register(&batchasync_test.forgotten{})
}
