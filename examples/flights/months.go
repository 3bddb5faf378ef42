// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/batchasync/beam-batchasync/examples/flights/internal/flight"
)

func init() {
	register.Combiner2[delays, flight.Enriched](&sumFlightsFn{})
	register.Combiner1[delays](&sumDelaysFn{})
	register.DoFn2x2[beam.Window, delays, string, delays](&monthOfFn{})
	register.DoFn2x2[string, delays, string, error](&monthFn{})
}

// minFlights is how many flights a route must have in a month to be its worst.
const minFlights = 3

// delays are those of each route, origin→destination. Their sums are of whole
// minutes, so that they don't depend on the order of arrival.
type delays struct {
	Routes map[string]delay
}

type delay struct {
	Flights, Minutes int
}

func (d delays) add(route string, more delay) {
	sum := d.Routes[route]
	d.Routes[route] = delay{sum.Flights + more.Flights, sum.Minutes + more.Minutes}
}

// delaysByMonth returns a line for each month. Beam has no window of a calendar
// month, since all fixed windows are of one length; but a day is in one month. So
// the flights are summed up in their windows, which are days, then the windows
// become months, and the days of a month are summed up.
func delaysByMonth(s beam.Scope, flights beam.PCollection) beam.PCollection {
	s = s.Scope("delaysByMonth")
	days := beam.Combine(s, &sumFlightsFn{}, flights)
	days = inGlobalWindow(s, beam.ParDo(s, &monthOfFn{}, days))
	months := beam.CombinePerKey(s, &sumDelaysFn{}, days)
	return beam.ParDo(s, &monthFn{}, months)
}

// sumFlightsFn sums up the delays of flights.
type sumFlightsFn struct{ sumDelaysFn }

func (*sumFlightsFn) AddInput(sum delays, f flight.Enriched) delays {
	sum.add(f.Origin.IATA+"→"+f.Destination.IATA, delay{1, f.Delay})
	return sum
}

// sumDelaysFn sums up sums.
type sumDelaysFn struct{}

func (*sumDelaysFn) CreateAccumulator() delays {
	return delays{Routes: map[string]delay{}}
}

func (*sumDelaysFn) AddInput(sum, more delays) delays {
	for route, d := range more.Routes {
		sum.add(route, d)
	}
	return sum
}

func (fn *sumDelaysFn) MergeAccumulators(sum, more delays) delays {
	return fn.AddInput(sum, more)
}

// monthOfFn finds the month of a day's delays by their window.
type monthOfFn struct{}

func (*monthOfFn) ProcessElement(day beam.Window, d delays) (string, delays) {
	return day.MaxTimestamp().ToTime().UTC().Format("2006-01"), d
}

// A month is a row of the table.
type month struct {
	Month   string
	Flights int
	Minutes int    // sum of their delays
	Route   string // the worst; empty if no route had enough flights
	Of      delay  // the worst route's
}

// monthFn makes a line of a month's delays, for main to read.
type monthFn struct{}

func (*monthFn) ProcessElement(name string, d delays) (string, error) {
	m := month{Month: name}
	for route, d := range d.Routes {
		m.Flights += d.Flights
		m.Minutes += d.Minutes
		if d.Flights < minFlights {
			continue
		}
		// Means are compared without dividing. Of equal ones the first in
		// the alphabet is worst, so that the table is always the same.
		worse := cmp.Or(cmp.Compare(d.Minutes*m.Of.Flights, m.Of.Minutes*d.Flights), cmp.Compare(m.Route, route))
		if m.Route == "" || worse > 0 {
			m.Route, m.Of = route, d
		}
	}
	line, err := json.Marshal(m)
	return string(line), err
}

// readMonths reads the months that the pipeline has written.
func readMonths(path string) ([]month, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the table by month: %w", err)
	}
	var months []month
	for line := range strings.Lines(string(file)) {
		var m month
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			return nil, fmt.Errorf("read the table by month: %w", err)
		}
		months = append(months, m)
	}
	slices.SortFunc(months, func(a, b month) int { return strings.Compare(a.Month, b.Month) })
	return months, nil
}

// table shows the months, one a line.
func table(months []month) string {
	var b strings.Builder
	const row = "%-7s  %8s  %10s   %s\n"
	fmt.Fprintf(&b, row, "month", "flights", "mean delay", fmt.Sprintf("worst route (%d flights or more)", minFlights))
	for _, m := range months {
		worst := "–"
		if m.Route != "" {
			worst = fmt.Sprintf("%s, %s in %d flights", m.Route, m.Of.mean(), m.Of.Flights)
		}
		fmt.Fprintf(&b, row, m.Month, thousands(int64(m.Flights)), delay{m.Flights, m.Minutes}.mean(), worst)
	}
	return b.String()
}

func (d delay) mean() string {
	return fmt.Sprintf("%.1f min", float64(d.Minutes)/float64(d.Flights))
}
