// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package data holds the example's data, so that the program finds it from
// wherever it is run. README.md beside it says where it is from.
package data

import _ "embed"

// Flights are 20,000 flights of 2001, a JSON array.
//
//go:embed flights-20k.json
var Flights []byte

// Airports are 3,376 airports, as CSV with a header.
//
//go:embed airports.csv
var Airports []byte
