// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package dataflow is a test: what would be sent to Dataflow, by the runner's own dry
// run, without credentials. README.md tells how to launch for real.
package dataflow
