// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Check verifies what the flights example has written of its own data: each
// flight once, with both airports, and nothing in the failures.
//
//	go run ./examples/flights/check flights-enriched.jsonl flights-failures.jsonl
//
// It prints what is wrong, and how many flights passed; its exit status is 1 if
// anything is wrong.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/batchasync/beam-batchasync/examples/flights/data"
	"github.com/batchasync/beam-batchasync/examples/flights/internal/flight"
)

// near reports whether the great-circle distance is plausible beside the reported
// one: in this data they differ by 1 % at most, or by a mile on short routes.
func near(e flight.Enriched) bool {
	return math.Abs(e.GreatCircle-float64(e.Distance)) <= max(1, float64(e.Distance)/100)
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: check OUTPUT FAILURES")
		os.Exit(2)
	}
	wrong, err := verify(os.Args[1], os.Args[2], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(1)
	}
	if wrong > 0 {
		os.Exit(1)
	}
}

// verify reports on out, and returns the number of what is wrong.
func verify(outputPath, failuresPath string, out io.Writer) (wrong int, err error) {
	output, err := os.ReadFile(outputPath)
	if err != nil {
		return 0, err
	}
	failures, err := os.ReadFile(failuresPath)
	if err != nil {
		return 0, err
	}
	var report strings.Builder
	fail := func(format string, args ...any) {
		if wrong++; wrong <= 10 {
			fmt.Fprintf(&report, format+"\n", args...)
		}
	}

	// How often each flight is still to come.
	expected := map[flight.Flight]int{}
	err = flight.Split(bytes.NewReader(data.Flights), func(r flight.Record) {
		f, _, err := flight.Parse([]byte(r.Text))
		if err != nil {
			fail("the data itself, %s: %v", r.Position, err)
			return
		}
		expected[f]++
	})
	if err != nil {
		return 0, err
	}

	passed, number := 0, 0
	for line := range bytes.Lines(output) {
		number++
		var e flight.Enriched
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&e); err != nil {
			fail("%s, line %d: %v", outputPath, number, err)
			continue
		}
		f := e.Flight()
		if expected[f] == 0 {
			fail("%s, line %d: the data has no such flight, or not that often: %+v", outputPath, number, f)
			continue
		}
		expected[f]--
		switch {
		case !complete(e.Origin) || !complete(e.Destination):
			fail("%s, line %d: an airport is incomplete: %s", outputPath, number, bytes.TrimSpace(line))
		case !near(e):
			fail("%s, line %d: %s to %s is %v miles, but was reported as %d", outputPath, number, f.Origin, f.Destination, e.GreatCircle, e.Distance)
		default:
			passed++
		}
	}
	for f, n := range expected {
		for range n {
			fail("%s: the flight is missing, or not as it should be: %+v", outputPath, f)
		}
	}
	number = 0
	for line := range bytes.Lines(failures) {
		number++
		fail("%s, line %d: %s", failuresPath, number, bytes.TrimSpace(line))
	}
	if wrong > 10 {
		fmt.Fprintf(&report, "… and %d more\n", wrong-10)
	}
	fmt.Fprintf(&report, "%d passed, %d failed\n", passed, wrong)
	_, err = io.WriteString(out, report.String())
	return wrong, err
}

func complete(a flight.Airport) bool {
	return a.IATA != "" && a.Name != "" && a.City != "" && a.State != "" && a.Latitude != 0 && a.Longitude != 0
}
