// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/examples/flights/data"
	"github.com/batchasync/beam-batchasync/examples/flights/internal/flight"
)

func TestMain(m *testing.M) {
	log.LogLevel = "error"
	beam.Init()
	os.Exit(m.Run())
}

// onEach runs a test on each runner that needs no server. On Flink it is
// runners/conformance that runs this program.
func onEach(t *testing.T, test func(t *testing.T, runner string)) {
	for _, runner := range []string{"prism", "direct"} {
		t.Run(runner, func(t *testing.T) { test(t, runner) })
	}
}

// testOptions are the flags' defaults, with outputs of the test's own.
func testOptions(t *testing.T, runner string) options {
	dir := t.TempDir()
	return options{
		output: filepath.Join(dir, "output.jsonl"), failures: filepath.Join(dir, "failures.jsonl"),
		batchSize: 100, linger: 50 * time.Millisecond, maxInFlight: 8, runner: runner,
	}
}

func write(t *testing.T, name, text string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// lines are those of a file, in the order of the alphabet: elements have none.
func lines(t *testing.T, path string) []string {
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return slices.Sorted(strings.Lines(string(text)))
}

const airports = `iata,name,city,state,country,latitude,longitude
AAA,Null Island,Nowhere,NA,USA,0,0
BBB,"Quarter, of the Earth",Somewhere,NY,USA,0,90
CCC,Tenth,Elsewhere,TX,USA,0,10
`

func TestTheJobWritesEachFlightWithItsAirports(t *testing.T) {
	onEach(t, func(t *testing.T, runner string) {
		o := testOptions(t, runner)
		o.airports = write(t, "airports.csv", airports)
		o.flights = write(t, "flights.jsonl", `{"date":"2001/01/31 23:59","delay":66,"distance":6219,"origin":"AAA","destination":"BBB"}
{"date":"2001/02/01 00:00","delay":-5,"distance":690,"origin":"CCC","destination":"AAA"}
`)
		var out strings.Builder
		status, err := run(t.Context(), o, &out, nil)
		require.NoError(t, err)
		require.Equal(t, allWritten, status)
		require.Equal(t, []string{
			`{"date":"2001/01/31 23:59","delay":66,"distance":6219,"great_circle":6218.5,` +
				`"origin":{"iata":"AAA","name":"Null Island","city":"Nowhere","state":"NA","latitude":0,"longitude":0},` +
				`"destination":{"iata":"BBB","name":"Quarter, of the Earth","city":"Somewhere","state":"NY","latitude":0,"longitude":90}}` + "\n",
			`{"date":"2001/02/01 00:00","delay":-5,"distance":690,"great_circle":690.9,` +
				`"origin":{"iata":"CCC","name":"Tenth","city":"Elsewhere","state":"TX","latitude":0,"longitude":10},` +
				`"destination":{"iata":"AAA","name":"Null Island","city":"Nowhere","state":"NA","latitude":0,"longitude":0}}` + "\n",
		}, lines(t, o.output))
		require.Empty(t, lines(t, o.failures))
		require.True(t, strings.HasPrefix(out.String(), `month     flights  mean delay   worst route (3 flights or more)
2001-01         1    66.0 min   –
2001-02         1    -5.0 min   –

flights    2 read = 2 written + 0 failed
calls      1 for 4 look-ups: 3 saved
batch      2.0 flights on average
`), out.String())
	})
}

func TestAFlightThatCannotBeWrittenIsInTheFailures(t *testing.T) {
	const good = `{"date":"2001/01/31 23:59","delay":66,"distance":6219,"origin":"AAA","destination":"BBB"}`
	for _, test := range []struct {
		name, flights, want string
	}{
		{
			"a line that is no flight", good + "\n\noops\n" + good,
			`{"position":"line 3","error":"not JSON: invalid character 'o' looking for beginning of value","input":"oops"}`,
		}, {
			"an element that is no flight", "[" + good + ",\n{\"date\":\"yesterday\"}," + good + "]",
			`{"position":"element 2, line 2","error":"not a flight: without delay, distance, origin, destination","input":"{\"date\":\"yesterday\"}"}`,
		}, {
			"an array that is cut off", "[" + good + ",\n" + good + `,{"date`,
			`{"position":"element 3, line 2","error":"not a flight: the array is not closed; the input has been cut off here, or a quote or a bracket is missing","input":"{\"date"}`,
		}, {
			"an unknown origin", good + "\n" + `{"date":"2001/01/31 23:59","delay":66,"distance":6219,"origin":"ZZZ","destination":"BBB"}` + "\n" + good,
			`{"position":"line 2","error":"origin airport \"ZZZ\" is unknown","flight":{"date":"2001/01/31 23:59","delay":66,"distance":6219,"origin":"ZZZ","destination":"BBB"},"attempts":1}`,
		}, {
			"an unknown destination", good + "\n" + `{"date":"2001/01/31 23:59","delay":66,"distance":6219,"origin":"AAA","destination":"'; DROP TABLE airports"}` + "\n" + good,
			`{"position":"line 2","error":"destination airport \"'; DROP TABLE airports\" is unknown","flight":{"date":"2001/01/31 23:59","delay":66,"distance":6219,"origin":"AAA","destination":"'; DROP TABLE airports"},"attempts":1}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			onEach(t, func(t *testing.T, runner string) {
				o := testOptions(t, runner)
				o.airports = write(t, "airports.csv", airports)
				o.flights = write(t, "flights", test.flights)
				var out strings.Builder
				status, err := run(t.Context(), o, &out, nil)
				require.EqualError(t, err, "1 of 3 flights failed; "+o.failures+" tells where each was in the input, and why")
				require.Equal(t, someFailed, status)
				require.Equal(t, []string{test.want + "\n"}, lines(t, o.failures))
				require.Len(t, lines(t, o.output), 2)
				require.Contains(t, out.String(), "\nflights    3 read = 2 written + 1 failed\n")
			})
		})
	}
}

func TestWhatCannotRunIsToldBeforeTheJobBegins(t *testing.T) {
	file, dir := write(t, "file", ""), t.TempDir()
	const (
		flightsRemedy  = "; name a file, or leave the flag out for the flights that come with the program"
		airportsRemedy = "; name a CSV file with the columns iata,name,city,state,latitude,longitude, or leave the flag out for the airports that come with the program"
		outputRemedy   = "; name a file that can be written to"
	)
	for _, test := range []struct {
		name   string
		set    func(*options)
		status int
		want   string
	}{
		{"the flights are missing", func(o *options) { o.flights = "none" }, notRun, "-flights none: no such file or directory" + flightsRemedy},
		{"the flights are a folder", func(o *options) { o.flights = dir }, notRun, "-flights " + dir + ": is a folder" + flightsRemedy},
		{"the airports are missing", func(o *options) { o.airports = "none" }, notRun, "-airports none: no such file or directory" + airportsRemedy},
		{"the airports are empty", func(o *options) { o.airports = file }, notRun, "-airports " + file + ": the file is empty" + airportsRemedy},
		{"the output's folder is a file", func(o *options) { o.output = file + "/x" }, notRun, "-output " + file + "/x: not a directory" + outputRemedy},
		{"the output's folder is missing", func(o *options) { o.output = dir + "/none/x" }, notRun, "-output " + dir + "/none/x: no such file or directory" + outputRemedy},
		{"the output is a folder", func(o *options) { o.output = dir }, notRun, "-output " + dir + ": is a folder" + outputRemedy},
		{"the failures are not local", func(o *options) { o.failures = "gs://bucket/x" }, notRun, "-failures gs://bucket/x: is not a local file" + outputRemedy},
		{"both outputs are one file", func(o *options) { o.output, o.failures = "x", "./x" }, wrongFlag, "-output and -failures are both ./x: name two files"},
		{"an output is the input", func(o *options) { o.flights, o.failures = file, file }, wrongFlag, "-flights and -failures are both " + file + ": name two files"},
		{"no name for the failures", func(o *options) { o.failures = "" }, wrongFlag, "-output and -failures must not be empty"},
		{"a batch of none", func(o *options) { o.batchSize = 0 }, wrongFlag, "-batch_size 0: must be from 1 to 16383"},
		{"a batch that is too large for SQLite", func(o *options) { o.batchSize = 16384 }, wrongFlag, "-batch_size 16384: must be from 1 to 16383"},
		{"a negative linger", func(o *options) { o.linger = -1 }, wrongFlag, "-linger -1ns: must not be negative"},
		{"no call at all", func(o *options) { o.maxInFlight = 0 }, wrongFlag, "-max_in_flight 0: must be at least 1"},
		{"Flink without a job server", func(o *options) { o.runner = "flink" }, wrongFlag, "-runner flink: -endpoint must name its job server, host:port; or let runners/flink start one: go run ./runners/flink -- go run ./examples/flights"},
		{"an unknown runner", func(o *options) { o.runner = "none" }, wrongFlag, "-runner none: this program has prism, direct and flink; README.md beside its source tells how to add one"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := testOptions(t, "direct")
			outputs := filepath.Dir(o.output)
			test.set(&o)
			status, err := run(t.Context(), o, io.Discard, nil)
			require.EqualError(t, err, test.want)
			require.Equal(t, test.status, status)
			left, err := os.ReadDir(outputs)
			require.NoError(t, err)
			require.Empty(t, left, "nothing is left behind")
		})
	}
}

func TestBadAirportsAreRefused(t *testing.T) {
	for _, test := range []struct {
		name, file, want string
	}{
		{"a column is missing", "iata,name,city,state,latitude\n", "line 1: the column longitude is missing"},
		{"a row is short", airports + "DDD,x\n", "record on line 5: wrong number of fields"},
		{"a latitude is no number", airports + "DDD,x,x,x,x,north,0\n", `line 5: the latitude "north" is no number from -90 to 90`},
		{"a longitude is out of range", airports + "DDD,x,x,x,x,0,181\n", `line 5: the longitude "181" is no number from -180 to 180`},
		{"a longitude is not a number in the sense of IEEE 754", airports + "DDD,x,x,x,x,0,NaN\n", `line 5: the longitude "NaN" is no number from -180 to 180`},
		{"an airport is there twice", airports + "AAA,x,x,x,x,0,0\n", `line 5: airport "AAA" is in line 2 already`},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := loadAirports(t.Context(), filepath.Join(t.TempDir(), "x"), strings.NewReader(test.file))
			require.EqualError(t, err, test.want)
		})
	}
}

func TestAJobThatFailsLeavesTheOutputAsItWas(t *testing.T) {
	onEach(t, func(t *testing.T, runner string) {
		o := testOptions(t, runner)
		require.NoError(t, os.WriteFile(o.output, []byte("before\n"), 0o600))
		o.failures = "/dev/full"
		if _, err := os.Stat(o.failures); err != nil {
			t.Skip("this system has no /dev/full")
		}
		o.flights = write(t, "flights", "oops\n")
		status, err := run(t.Context(), o, io.Discard, nil)
		require.ErrorContains(t, err, "nothing has been written, for the job has failed: ")
		require.ErrorContains(t, err, "write /dev/full: no space left on device")
		require.Equal(t, notRun, status)
		require.Equal(t, []string{"before\n"}, lines(t, o.output))
		left, err := os.ReadDir(filepath.Dir(o.output))
		require.NoError(t, err)
		require.Len(t, left, 1)
	})
}

func TestAJobThatIsInterruptedSaysSo(t *testing.T) {
	onEach(t, func(t *testing.T, runner string) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(fmt.Errorf("interrupt"))
		o := testOptions(t, runner)
		status, err := run(ctx, o, io.Discard, nil)
		require.EqualError(t, err, "interrupt")
		require.Equal(t, notRun, status)
		require.NoFileExists(t, o.output)
	})
}

// If the service itself can't be reached, no flight is lost either.
func TestFlightsAreFailuresIfTheDatabaseIsOfNoUse(t *testing.T) {
	dir := t.TempDir()
	at := paths{
		flights:  write(t, "flights", strings.Repeat(`{"date":"2001/01/31 23:59","delay":66,"distance":6219,"origin":"AAA","destination":"BBB"}`+"\n", 3)),
		database: write(t, "airports.sqlite", ""), // a database without a table
		output:   filepath.Join(dir, "output"), failures: filepath.Join(dir, "failures"), months: filepath.Join(dir, "months"),
	}
	p, s := beam.NewPipelineWithRoot()
	build(s, at, 2, 0, 1)
	result, err := beam.Run(t.Context(), "direct", p)
	require.NoError(t, err)
	total := summarize(result, 0)
	require.NoError(t, total.check())
	require.EqualValues(t, 3, total.failed)
	require.EqualValues(t, 6, total.retries, "3 for each of the 2 batches")
	require.Len(t, lines(t, at.failures), 3)
	require.Contains(t, lines(t, at.failures)[0], "no such table: airports")
}

func TestTheJobFailsIfTheDatabaseIsNotThere(t *testing.T) {
	dir := t.TempDir()
	at := paths{
		flights: write(t, "flights", `{"date":"2001/01/31 23:59","delay":66,"distance":6219,"origin":"AAA","destination":"BBB"}`), database: filepath.Join(dir, "none"),
		output: filepath.Join(dir, "output"), failures: filepath.Join(dir, "failures"), months: filepath.Join(dir, "months"),
	}
	p, s := beam.NewPipelineWithRoot()
	build(s, at, 1, 0, 1)
	_, err := beam.Run(t.Context(), "direct", p)
	require.ErrorContains(t, err, "open the airports' database "+at.database+": ")
}

func TestTheTableIsThatOfTheFlightsDates(t *testing.T) {
	var flights []flight.Flight
	require.NoError(t, json.Unmarshal(data.Flights, &flights))
	want := monthsOf(flights)
	onEach(t, func(t *testing.T, runner string) {
		var tables []string
		for _, batchSize := range []int{100, 7} {
			o := testOptions(t, runner)
			o.batchSize = batchSize
			var out strings.Builder
			status, err := run(t.Context(), o, &out, nil)
			require.NoError(t, err)
			require.Equal(t, allWritten, status)
			require.Contains(t, out.String(), "\nflights    20,000 read = 20,000 written + 0 failed\n")
			before, _, _ := strings.Cut(out.String(), "\n\n")
			tables = append(tables, before+"\n")
		}
		require.Equal(t, table(want), tables[0])
		require.Equal(t, tables[0], tables[1], "another run, with other batches, gives the same table")
	})
}

// monthsOf is the table by another way than the pipeline's.
func monthsOf(flights []flight.Flight) []month {
	byMonth := map[string]*month{}
	routes := map[string]map[string]delay{}
	for _, f := range flights {
		name := strings.ReplaceAll(f.Date[:7], "/", "-")
		if byMonth[name] == nil {
			byMonth[name], routes[name] = &month{Month: name}, map[string]delay{}
		}
		byMonth[name].Flights++
		byMonth[name].Minutes += f.Delay
		route := f.Origin + "→" + f.Destination
		d := routes[name][route]
		routes[name][route] = delay{d.Flights + 1, d.Minutes + f.Delay}
	}
	var months []month
	for name, m := range byMonth {
		var names []string
		for route, d := range routes[name] {
			if d.Flights >= minFlights {
				names = append(names, route)
			}
		}
		mean := func(route string) float64 {
			d := routes[name][route]
			return float64(d.Minutes) / float64(d.Flights)
		}
		m.Route = slices.MinFunc(names, func(a, b string) int {
			return cmp.Or(cmp.Compare(mean(b), mean(a)), cmp.Compare(a, b))
		})
		m.Of = routes[name][m.Route]
		months = append(months, *m)
	}
	slices.SortFunc(months, func(a, b month) int { return cmp.Compare(a.Month, b.Month) })
	return months
}

func TestTheWorstRoute(t *testing.T) {
	for _, test := range []struct {
		name   string
		routes map[string]delay
		want   string
	}{
		{"no route has enough flights", map[string]delay{"A→B": {2, 100}, "B→A": {1, 7}}, ""},
		{"the highest mean, not the highest sum", map[string]delay{"A→B": {3, 30}, "B→A": {10, 90}, "B→C": {2, 1000}}, "A→B"},
		{"of equal means the first in the alphabet", map[string]delay{"C→A": {3, 30}, "A→C": {6, 60}, "B→A": {3, 30}}, "A→C"},
		{"all are early", map[string]delay{"A→B": {3, -30}, "B→A": {3, -3}}, "B→A"},
		{"all are in time", map[string]delay{"B→A": {3, 0}, "A→B": {3, 0}}, "A→B"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 20 { // the order of a map is another one each time
				line, err := (&monthFn{}).ProcessElement("2001-01", delays{test.routes})
				require.NoError(t, err)
				var m month
				require.NoError(t, json.Unmarshal([]byte(line), &m))
				require.Equal(t, test.want, m.Route)
			}
		})
	}
}

func TestAFlightThatIsNotAccountedForIsAnError(t *testing.T) {
	require.NoError(t, summary{read: 3, written: 2, failed: 1}.check())
	require.EqualError(t, summary{read: 3, written: 2}.check(), "the figures don't add up: 3 read, but 2 written and 0 failed")
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 20000: "20,000", 1234567: "1,234,567", -39800: "-39,800"} {
		require.Equal(t, want, thousands(n))
	}
}
