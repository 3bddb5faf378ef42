// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package conformance is the suite that batchasync passes on each runner. It is
// tests alone:
//
//	go test ./runners/...                # on the direct runner and on Prism
//	go test ./runners/... -runner=flink  # on Flink, with a job server of its own
//
// What a test finds out it has from the pipeline: by passert, or by metrics. So
// it holds wherever the workers are, and not only in the test's own process.
package conformance
