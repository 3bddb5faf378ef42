// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

//go:build dataflow

package main

import _ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/dataflow"

// Behind a build tag, for it takes a minute more to compile: Google's client
// libraries come with it.
func init() { linked = append(linked, "dataflow") }
