// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/stretchr/testify/require"

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

func Example_readme() {
	p, s := beam.NewPipelineWithRoot()
	names := batchasync.ParDo(s, &Lookup{Table: "city"}, beam.Create(s, 7),
		batchasync.BatchSize(500), batchasync.Linger(100*time.Millisecond))
	beam.ParDo0(s, show, names)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Output: row 7 of city
}

func TestTheReadmeShowsTheCodeThatIsTestedHere(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	source, err := os.ReadFile("example_readme_test.go")
	require.NoError(t, err)
	_, code, found := strings.Cut(string(readme), "```go\n")
	require.True(t, found)
	code, _, _ = strings.Cut(code, "```")
	lines := 0
	for line := range strings.Lines(code) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		lines++
		line = strings.Replace(line, "func main()", "func Example_readme()", 1)
		require.Contains(t, string(source), line)
	}
	require.LessOrEqual(t, lines, 25)
}
