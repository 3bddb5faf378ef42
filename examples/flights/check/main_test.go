// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/examples/flights/data"
	"github.com/batchasync/beam-batchasync/examples/flights/internal/flight"
)

func TestTheCheckFindsWhatIsWrong(t *testing.T) {
	right := rightLines(t)
	for _, test := range []struct {
		name     string
		change   func(lines []string) []string
		failures string
		want     string
	}{
		{
			name: "nothing is wrong",
			want: "20000 passed, 0 failed\n",
		}, {
			name:   "a flight is missing",
			change: func(lines []string) []string { return lines[1:] },
			want:   "19999 passed, 1 failed\n",
		}, {
			name:   "a flight is there twice",
			change: func(lines []string) []string { return append(lines, lines[0]) },
			want:   "20000 passed, 1 failed\n",
		}, {
			name:   "an airport has no name",
			change: edit(`"name":"Detroit Metropolitan-Wayne County"`, `"name":""`),
			want:   "19999 passed, 1 failed\n",
		}, {
			name:   "the distance belongs to another airport",
			change: edit(`"great_circle":1745.1`, `"great_circle":1845.1`),
			want:   "19999 passed, 1 failed\n",
		}, {
			name:   "the delay is another one",
			change: edit(`"delay":66`, `"delay":67`),
			want:   "19999 passed, 2 failed\n", // one too many, one missing
		}, {
			name:     "there are failures",
			failures: "{}\n",
			want:     "20000 passed, 1 failed\n",
		}, {
			name:   "a line is no JSON",
			change: edit(`{"date"`, `"date"`),
			want:   "19999 passed, 2 failed\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			lines := append([]string(nil), right...)
			if test.change != nil {
				lines = test.change(lines)
			}
			output, failures := filepath.Join(t.TempDir(), "output"), filepath.Join(t.TempDir(), "failures")
			require.NoError(t, os.WriteFile(output, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
			require.NoError(t, os.WriteFile(failures, []byte(test.failures), 0o600))
			var report strings.Builder
			wrong, err := verify(output, failures, &report)
			require.NoError(t, err)
			require.True(t, strings.HasSuffix(report.String(), test.want), "it ended with %q", last(report.String()))
			require.Equal(t, strings.HasSuffix(test.want, " 0 failed\n"), wrong == 0)
		})
	}
}

// edit changes the first line.
func edit(from, to string) func([]string) []string {
	return func(lines []string) []string {
		lines[0] = strings.Replace(lines[0], from, to, 1)
		return lines
	}
}

func last(report string) string {
	return report[max(0, len(report)-200):]
}

// rightLines is what the job should write, by another way than the job's.
func rightLines(t *testing.T) []string {
	rows, err := csv.NewReader(bytes.NewReader(data.Airports)).ReadAll()
	require.NoError(t, err)
	airports := map[string]flight.Airport{}
	for _, row := range rows[1:] {
		latitude, err := strconv.ParseFloat(row[5], 64)
		require.NoError(t, err)
		longitude, err := strconv.ParseFloat(row[6], 64)
		require.NoError(t, err)
		airports[row[0]] = flight.Airport{IATA: row[0], Name: row[1], City: row[2], State: row[3], Latitude: latitude, Longitude: longitude}
	}
	var flights []flight.Flight
	require.NoError(t, json.Unmarshal(data.Flights, &flights))
	var lines []string
	for _, f := range flights {
		e := flight.Enriched{Date: f.Date, Delay: f.Delay, Distance: f.Distance, Origin: airports[f.Origin], Destination: airports[f.Destination]}
		e.GreatCircle = math.Round(flight.Miles(e.Origin, e.Destination)*10) / 10
		line, err := json.Marshal(e)
		require.NoError(t, err)
		lines = append(lines, string(line))
	}
	return lines
}
