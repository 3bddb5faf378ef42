// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// First is the pipeline of the README, whole: it looks one city up, on Prism in the
// same process.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"github.com/batchasync/beam-batchasync/batchasync"
)

type Lookup struct{ Table string } // exported fields travel to the workers

// Call answers a whole batch with one query: SELECT … WHERE id IN (…).
func (l *Lookup) Call(ctx context.Context, ids []int) ([]string, error) {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = fmt.Sprintf("row %d of %s", id, l.Table)
	}
	return names, nil
}

func show(name string) { fmt.Println(name) }

func init() {
	batchasync.Register(&Lookup{})
	register.Function1x0(show)
}

func main() {
	flag.Parse()
	beam.Init()
	p, s := beam.NewPipelineWithRoot()
	names := batchasync.ParDo(s, &Lookup{Table: "city"}, beam.Create(s, 7),
		batchasync.BatchSize(500), batchasync.Linger(100*time.Millisecond))
	beam.ParDo0(s, show, names)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		log.Fatal(err)
	}
}
