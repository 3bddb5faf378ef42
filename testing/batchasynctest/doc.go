// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package batchasynctest helps to test what is built on batchasync: a Service
// that behaves like a bulk service under load, a Harness that drives a DoFn
// through bundles without a runner, and assertions. All of it works inside
// testing/synctest, so that tests of timeouts and backoffs take no time and
// are exact.
package batchasynctest
