// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package embed_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/embed"
	"github.com/batchasync/beam-batchasync/transforms/httpcall"
)

func showVector(v embed.Vector)                { fmt.Println(v.Text, v.Embedding) }
func showTooLong(f batchasync.Failure[string]) { fmt.Println(f.Error) }

func init() {
	embed.RegisterCounter("by spaces", func(text string) int { return len(strings.Fields(text)) })
	register.Function1x0(showVector)
	register.Function1x0(showTooLong)
}

// lengths is a model for the example: how long a text is, and how many words.
func lengths(w http.ResponseWriter, r *http.Request) {
	var request struct{ Input []string }
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	data := make([]map[string]any, len(request.Input))
	for i, text := range request.Input {
		data[i] = map[string]any{"index": i, "embedding": []int{len(text), len(strings.Fields(text))}}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
}

func Example() {
	_ = os.Setenv("EXAMPLE_API_KEY", "for the example") // on the workers; never in the pipeline
	server := httptest.NewServer(http.HandlerFunc(lengths))
	defer server.Close()

	p, s := beam.NewPipelineWithRoot()
	texts := beam.Create(s, "to be or not", "that is the question whether it is nobler")
	vectors, tooLong := embed.ParDoWithFailures(s, &embed.Model{
		Endpoint: httpcall.Endpoint{
			URL:    server.URL + "/v1/embeddings",
			Bearer: httpcall.Secret{Env: "EXAMPLE_API_KEY"},
		},
		Name:          "lengths",
		Counter:       "by spaces",
		MaxTextTokens: 5,
	}, texts, batchasync.MaxInFlight(8))
	beam.ParDo0(s, showVector, vectors)
	beam.ParDo0(s, showTooLong, tooLong)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Unordered output:
	// to be or not [12 4]
	// the text has 8 tokens, more than the 5 of MaxTextTokens: split it before
}
