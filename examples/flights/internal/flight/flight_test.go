// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package flight_test

import (
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/batchasync/beam-batchasync/examples/flights/internal/flight"
)

func TestParseTellsWhyALineIsNoFlight(t *testing.T) {
	for _, test := range []struct {
		name, text, want string
	}{
		{"no JSON", `oops`, "not JSON: invalid character 'o' looking for beginning of value"},
		{"cut off", `{"date":`, "not JSON: unexpected end of JSON input"},
		{"a number", `42`, "not a flight: a JSON number in place of an object"},
		{"empty", `{}`, "not a flight: without date, delay, distance, origin, destination"},
		{"null", `null`, "not a flight: without date, delay, distance, origin, destination"},
		{"no destination", `{"date":"2001/01/01 00:47","delay":0,"distance":0,"origin":"DTW"}`, "not a flight: without destination"},
		{"an empty origin", `{"date":"2001/01/01 00:47","delay":0,"distance":0,"origin":"","destination":"LAS"}`, "not a flight: without origin"},
		{"half a minute", `{"date":"2001/01/01 00:47","delay":6.5,"distance":0,"origin":"DTW","destination":"LAS"}`, "not a flight: delay is a number 6.5 in place of a whole number"},
		{"a number for a code", `{"date":"2001/01/01 00:47","delay":6,"distance":0,"origin":1,"destination":"LAS"}`, "not a flight: origin is a number in place of a string"},
		{"no such day", `{"date":"2001/02/30 00:47","delay":6,"distance":0,"origin":"DTW","destination":"LAS"}`, `not a flight: date "2001/02/30 00:47" is not of the form 2006/01/02 15:04`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := flight.Parse([]byte(test.text))
			require.EqualError(t, err, test.want)
		})
	}
}

func TestParseReadsTheDateAsUTC(t *testing.T) {
	f, date, err := flight.Parse([]byte(`{"date":"2001/01/31 23:59","delay":-6,"distance":377,"origin":"MHT","destination":"BWI"}`))
	require.NoError(t, err)
	require.Equal(t, flight.Flight{Date: "2001/01/31 23:59", Delay: -6, Distance: 377, Origin: "MHT", Destination: "BWI"}, f)
	require.Equal(t, time.Date(2001, 1, 31, 23, 59, 0, 0, time.UTC), date)
}

func TestSplitTakesTheInputApart(t *testing.T) {
	const open = "not a flight: the array is not closed; the input has been cut off here, or a quote or a bracket is missing"
	for _, test := range []struct {
		name, input string
		want        []flight.Record
	}{
		{"nothing", "", nil},
		{"blanks", " \r\n\t\n", nil},
		{"an empty array", " [ ] ", nil},
		{"lines, with empty ones between", "{\"a\":1}\r\n\n  {\"a\":2}", []flight.Record{{Position: "line 1", Text: `{"a":1}`}, {Position: "line 3", Text: `{"a":2}`}}},
		{"a byte order mark", "\ufeff[1]", []flight.Record{{Position: "element 1, line 1", Text: "1"}}},
		{"an array", "[{\"a\":1},\n {\"a\":[2,3]} ]\n", []flight.Record{{Position: "element 1, line 1", Text: `{"a":1}`}, {Position: "element 2, line 2", Text: `{"a":[2,3]}`}}},
		{"brackets, commas and quotes in a string", `["],{\",\\",2]`, []flight.Record{{Position: "element 1, line 1", Text: `"],{\",\\"`}, {Position: "element 2, line 1", Text: "2"}}},
		{"a bad element between good ones", `[1, oops ,3]`, []flight.Record{{Position: "element 1, line 1", Text: "1"}, {Position: "element 2, line 1", Text: "oops"}, {Position: "element 3, line 1", Text: "3"}}},
		{"an array that is cut off in an element", `[{"a":1},{"a":`, []flight.Record{{Position: "element 1, line 1", Text: `{"a":1}`}, {Position: "element 2, line 1", Text: `{"a":`, Broken: open}}},
		{"an array that is cut off behind a comma", `[{"a":1},`, []flight.Record{{Position: "element 1, line 1", Text: `{"a":1}`}, {Position: "element 2, line 1", Broken: open}}},
		{"a missing quote", "[{\"a\":\"x},\n{\"a\":\"y\"}]", []flight.Record{{Position: "element 1, line 1", Text: `{"a":"x},`, Broken: "not a flight: a quote is missing"}, {Position: "element 2, line 2", Text: `{"a":"y"}`}}},
		{"more behind the array", "[1]\n2", []flight.Record{{Position: "element 1, line 1", Text: "1"}, {Position: "behind the array", Text: "2", Broken: "not a flight: it is behind the end of the array"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, split(t, test.input))
		})
	}
}

func TestSplitLosesNothingOfAnArrayThatIsDamaged(t *testing.T) {
	letters := func(text string) string {
		return strings.Map(func(r rune) rune {
			if strings.ContainsRune("[], \n", r) {
				return -1
			}
			return r
		}, text)
	}
	rapid.Check(t, func(t *rapid.T) {
		input := "[" + rapid.StringOf(rapid.RuneFrom([]rune("[]{},:\"\\ \nab1"))).Draw(t, "array")
		var all strings.Builder
		if err := flight.Split(strings.NewReader(input), func(r flight.Record) { all.WriteString(r.Text) }); err != nil {
			t.Fatal(err)
		}
		if got, want := letters(all.String()), letters(input); got != want {
			t.Fatalf("of %q there is %q", want, got)
		}
	})
}

func TestSplitReportsAReadError(t *testing.T) {
	for _, start := range []string{"", "[", "x"} {
		input := iotest.DataErrReader(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(start + "12"))))
		require.ErrorIs(t, flight.Split(input, func(flight.Record) {}), iotest.ErrTimeout)
	}
}

func split(t *testing.T, input string) (records []flight.Record) {
	require.NoError(t, flight.Split(iotest.OneByteReader(strings.NewReader(input)), func(r flight.Record) { records = append(records, r) }))
	return records
}

func TestMiles(t *testing.T) {
	equator := flight.Airport{}
	for _, test := range []struct {
		name string
		to   flight.Airport
		want float64
	}{
		{"to itself", flight.Airport{}, 0},
		{"to the pole, a quarter of the circumference", flight.Airport{Latitude: 90}, 6218.5},
		{"to the other side of the earth", flight.Airport{Longitude: 180}, 12437.0},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.InDelta(t, test.want, flight.Miles(equator, test.to), 0.1)
			require.InDelta(t, test.want, flight.Miles(test.to, equator), 0.1)
		})
	}
}
