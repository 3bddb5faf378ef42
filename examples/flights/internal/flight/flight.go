// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package flight holds what the flights example and its check agree on: what a
// flight is, how it is read, and what the job writes of it.
package flight

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"
)

// DateLayout is how a flight's date is written, in UTC.
const DateLayout = "2006/01/02 15:04"

// A Flight is a flight as the data has it.
type Flight struct {
	Position    string `json:"-"` // where in the input it was, for messages
	Date        string `json:"date"`
	Delay       int    `json:"delay"`    // minutes; negative if it was early
	Distance    int    `json:"distance"` // miles, as reported
	Origin      string `json:"origin"`   // IATA code
	Destination string `json:"destination"`
}

// An Airport is a row of the database.
type Airport struct {
	IATA      string  `json:"iata"`
	Name      string  `json:"name"`
	City      string  `json:"city"`
	State     string  `json:"state"`
	Latitude  float64 `json:"latitude"`
	Longitude float64 `json:"longitude"`
}

// An Enriched flight is a line of the output: a flight with both airports.
type Enriched struct {
	Date        string  `json:"date"`
	Delay       int     `json:"delay"`
	Distance    int     `json:"distance"`
	GreatCircle float64 `json:"great_circle"` // miles, rounded to a tenth
	Origin      Airport `json:"origin"`
	Destination Airport `json:"destination"`
}

// Flight returns the flight without what was looked up.
func (e Enriched) Flight() Flight {
	return Flight{Date: e.Date, Delay: e.Delay, Distance: e.Distance, Origin: e.Origin.IATA, Destination: e.Destination.IATA}
}

// A Rejected record is a line of the failures: a piece of the input that is no
// flight, or a flight that could not be looked up.
type Rejected struct {
	Position string  `json:"position"`
	Error    string  `json:"error"`
	Input    string  `json:"input,omitempty"`    // what was read, if it is no flight
	Flight   *Flight `json:"flight,omitempty"`   // the flight, if it is one
	Attempts int     `json:"attempts,omitempty"` // calls that it was in
}

// Parse reads a flight, and its date.
func Parse(text []byte) (Flight, time.Time, error) {
	// Pointers tell a missing field from a zero.
	var raw struct {
		Date        *string `json:"date"`
		Delay       *int    `json:"delay"`
		Distance    *int    `json:"distance"`
		Origin      *string `json:"origin"`
		Destination *string `json:"destination"`
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		if wrong := new(json.UnmarshalTypeError); errors.As(err, &wrong) {
			if wrong.Field == "" {
				return Flight{}, time.Time{}, fmt.Errorf("not a flight: a JSON %s in place of an object", wrong.Value)
			}
			want := "string"
			if wrong.Type.Kind() == reflect.Int {
				want = "whole number"
			}
			return Flight{}, time.Time{}, fmt.Errorf("not a flight: %s is a %s in place of a %s", wrong.Field, wrong.Value, want)
		}
		return Flight{}, time.Time{}, fmt.Errorf("not JSON: %w", err)
	}
	var missing []string
	for _, field := range []struct {
		name  string
		found bool
	}{
		{"date", raw.Date != nil},
		{"delay", raw.Delay != nil},
		{"distance", raw.Distance != nil},
		{"origin", raw.Origin != nil && *raw.Origin != ""},
		{"destination", raw.Destination != nil && *raw.Destination != ""},
	} {
		if !field.found {
			missing = append(missing, field.name)
		}
	}
	if len(missing) > 0 {
		return Flight{}, time.Time{}, fmt.Errorf("not a flight: without %s", strings.Join(missing, ", "))
	}
	date, err := time.ParseInLocation(DateLayout, *raw.Date, time.UTC)
	if err != nil {
		return Flight{}, time.Time{}, fmt.Errorf("not a flight: date %q is not of the form %s", *raw.Date, DateLayout)
	}
	return Flight{
		Date: *raw.Date, Delay: *raw.Delay, Distance: *raw.Distance,
		Origin: *raw.Origin, Destination: *raw.Destination,
	}, date, nil
}

// earthRadius is the mean radius of the earth, in miles.
const earthRadius = 3958.8

// Miles is the great-circle distance of two airports, by the haversine formula.
func Miles(a, b Airport) float64 {
	radians := func(degrees float64) float64 { return degrees * math.Pi / 180 }
	latA, latB := radians(a.Latitude), radians(b.Latitude)
	sinLat := math.Sin((latB - latA) / 2)
	sinLon := math.Sin(radians(b.Longitude-a.Longitude) / 2)
	h := sinLat*sinLat + math.Cos(latA)*math.Cos(latB)*sinLon*sinLon
	return 2 * earthRadius * math.Asin(math.Sqrt(min(h, 1)))
}
