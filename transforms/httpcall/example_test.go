// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package httpcall_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/httpcall"
)

type Payment struct {
	ID     string  `json:"id"`
	Amount float64 `json:"amount"`
}

type Verdict struct {
	ID   string  `json:"id"`
	Risk float64 `json:"risk"`
}

func showNumber(n int)                          { fmt.Println(n) }
func showVerdict(v Verdict)                     { fmt.Printf("%s: %.1f\n", v.ID, v.Risk) }
func showRefused(f batchasync.Failure[Payment]) { fmt.Printf("%s: %s\n", f.Element.ID, f.Error) }

func init() {
	batchasync.Register(&httpcall.Caller[Payment, Verdict]{})
	register.Function1x0(showVerdict)
	register.Function1x0(showRefused)
	register.Function1x0(showNumber)
}

// riskService answers {"items": […]} with {"results": […]}, last one first.
func riskService(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+os.Getenv("RISK_TOKEN") {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var request struct{ Items []Payment }
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	results := []any{}
	for _, p := range request.Items {
		var result any = Verdict{p.ID, min(p.Amount/1000, 1)}
		if p.Amount < 0 {
			result = map[string]any{"id": p.ID, "error": map[string]any{"status": 422, "message": "a payment is not negative"}}
		}
		results = append([]any{result}, results...)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"results": results})
}

func Example() {
	_ = os.Setenv("RISK_TOKEN", "for the example") // on the workers; never in the pipeline
	server := httptest.NewServer(http.HandlerFunc(riskService))
	defer server.Close()

	p, s := beam.NewPipelineWithRoot()
	payments := beam.Create(s, Payment{"a", 300}, Payment{"b", -1}, Payment{"c", 7000})
	verdicts, refused := batchasync.ParDoWithFailures(s, &httpcall.Caller[Payment, Verdict]{
		Endpoint: httpcall.Endpoint{
			URL:    server.URL,
			Bearer: httpcall.Secret{Env: "RISK_TOKEN"},
		},
		RequestField:  "items",
		ResponseField: "results",
		IDField:       "id",
	}, payments, batchasync.BatchSize(200), batchasync.MaxInFlight(8))
	beam.ParDo0(s, showVerdict, verdicts)
	beam.ParDo0(s, showRefused, refused)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Unordered output:
	// a: 0.3
	// c: 1.0
	// b: the service refused the element: a payment is not negative
}

// square is a caller for a service with a format of its own: a number a line.
type square struct{ httpcall.Endpoint }

func (c *square) Call(ctx context.Context, batch []int) ([]int, error) {
	var body []byte
	for _, n := range batch {
		body = fmt.Appendln(body, n)
	}
	answer, err := c.Post(ctx, "text/plain", body)
	if err != nil {
		return nil, err
	}
	lines := strings.Fields(string(answer.Body))
	squares := make([]int, len(lines))
	for i, line := range lines {
		if squares[i], err = strconv.Atoi(line); err != nil {
			return nil, answer.Wrong(err)
		}
	}
	return squares, nil
}

func init() { batchasync.Register(&square{}) }

func ExampleEndpoint() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for n := 0; ; {
			if _, err := fmt.Fscan(r.Body, &n); err != nil {
				return
			}
			_, _ = fmt.Fprintln(w, n*n)
		}
	}))
	defer server.Close()
	p, s := beam.NewPipelineWithRoot()
	squares := batchasync.ParDo(s, &square{httpcall.Endpoint{URL: server.URL}}, beam.Create(s, 2, 3))
	beam.ParDo0(s, showNumber, squares)
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Unordered output:
	// 4
	// 9
}
