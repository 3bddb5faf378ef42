// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package enrich joins the elements of a PCollection with rows of a bulk source:
// a database, a key-value store, a service.
package enrich
