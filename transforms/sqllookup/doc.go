// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package sqllookup asks SQLite, PostgreSQL or MySQL (and MariaDB) for many keys
// with one query.
package sqllookup
