// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite_test

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
	"github.com/batchasync/beam-batchasync/transforms/sqlwrite"
)

func init() {
	sqlwrite.Register[narrow]()
	sqlwrite.Register[moment]()
	sqlwrite.Register[oddKey]()
	sqlwrite.Register[document]()
	sqlwrite.Register[exotic]()
}

type narrow struct {
	ID    uint64
	Small int64
	Text  string
}

// A value out of range is found by the server, by the driver, or by pgx in the middle
// of a COPY.
func valueOutOfRangeFailsAlone(t *testing.T, s server) {
	s.Run("CREATE TABLE n (id BIGINT PRIMARY KEY, small SMALLINT CHECK (small < 40000), text TEXT)")
	w := sqlwrite.Writer[narrow]{Database: s.Database, Table: "n", Key: []string{"id"}, CopyFrom: s.copyFrom}
	out := write(t, w, []narrow{{1, 1, ""}, {2, 704117, ""}, {math.MaxUint64, 3, ""}, {4, 4, "fine"}, {5, 5, ""}})
	require.Len(t, out.Results(), 3)
	require.Len(t, out.Failures(), 2)
	for _, e := range out.Failures() {
		failure := e.Value.(batchasync.Failure[narrow])
		require.True(t, failure.Permanent, failure.Error)
		require.NotContains(t, failure.Error, "704117")
		require.NotContains(t, failure.Error, "1844674407")
	}
	require.Zero(t, out.Counter(batchasync.MetricsNamespace, "retries"))
	require.Equal(t, 3, s.Count("n"))
}

type moment struct {
	At   time.Time
	Name string
}

// A runner may hand over a time in another zone when it retries a bundle.
func timeIsTheSameKeyInAnyZone(t *testing.T, s server) {
	s.Run("CREATE TABLE n (at " + s.timestamp() + " PRIMARY KEY, name TEXT)")
	w := sqlwrite.Writer[moment]{Database: s.Database, Table: "n", Key: []string{"at"}, CopyFrom: s.copyFrom}
	at := time.Date(2020, 1, 2, 3, 4, 5, 6000, time.UTC)
	there := at.In(time.FixedZone("there", 5400))
	for _, rows := range [][]moment{{{at, "a"}, {there, "b"}}, {{there, "c"}}, {{at, "d"}}} {
		out := write(t, w, rows)
		require.Len(t, out.Results(), len(rows))
		require.Zero(t, out.Counter(batchasync.MetricsNamespace, "bisections"))
	}
	var got time.Time
	var name string
	require.NoError(t, s.QueryRowContext(t.Context(), "SELECT at, name FROM n").Scan(sqlTime{&got}, &name))
	require.Equal(t, at, got.UTC())
	require.Equal(t, "d", name)
	require.Equal(t, 1, s.Count("n"))
}

// timestamp is the type of a column of times.
func (s server) timestamp() string {
	switch s.Database.Driver {
	case sqldb.PostgreSQL:
		return "TIMESTAMPTZ"
	case sqldb.MySQL:
		return "DATETIME(6)"
	}
	return "TIMESTAMP"
}

// code is a driver.Valuer, which a nil pointer to it can't be asked for its value.
type code struct{ Text string }

func (c code) Value() (driver.Value, error) {
	if c.Text == "odd" {
		return nil, fmt.Errorf("an odd code")
	}
	return c.Text, nil
}

type oddKey struct {
	A *code
	B []byte
}

func keyOfAnOddKindFailsAlone(t *testing.T, s server) {
	s.Run("CREATE TABLE n (a VARCHAR(20), b " + map[bool]string{true: "BYTEA", false: "VARBINARY(20)"}[s.Database.Driver == sqldb.PostgreSQL] + ", UNIQUE (a, b))")
	w := sqlwrite.Writer[oddKey]{Database: s.Database, Table: "n", Key: []string{"a", "b"}, CopyFrom: s.copyFrom}
	out := write(t, w, []oddKey{{&code{"x"}, []byte{0}}, {nil, []byte{0}}, {&code{"x"}, nil}, {&code{"odd"}, []byte{0}}, {&code{"x"}, []byte{0}}, {&code{""}, []byte{}}})
	require.Len(t, out.Results(), 3)
	var errs []string
	for _, e := range out.Failures() {
		errs = append(errs, e.Value.(batchasync.Failure[oddKey]).Error)
	}
	require.Len(t, errs, 3)
	require.Contains(t, errs[0], `the key's column "a" is NULL`)
	require.Contains(t, errs[1], `the key's column "b" is NULL`)
	require.Contains(t, errs[2], `the key's column "a": an odd code`)
	require.Zero(t, out.Counter(batchasync.MetricsNamespace, "bisections"))
	require.Equal(t, 2, s.Count("n"))
}

func TestKeysOfSeveralColumnsAreToldApart(t *testing.T) {
	s := sqlite(t)
	s.Run("CREATE TABLE city (code TEXT, name TEXT, people BIGINT, PRIMARY KEY (code, name))")
	w := sqlwrite.Writer[nullable]{Database: s.Database, Table: "city", Key: []string{"code", "name"}}
	var rows []nullable
	for _, key := range [][2]string{{"a", "bc"}, {"ab", "c"}, {"a:", "b"}, {"a", ":b"}, {"1", "aaaaaaaaa0"}, {"10aaaaaaaaa", ""}} {
		rows = append(rows, nullable{new(key[0]), sql.NullString{String: key[1], Valid: true}, 1})
	}
	require.Len(t, write(t, w, rows).Results(), len(rows))
	require.Equal(t, len(rows), s.Count("city"))
}

type document struct {
	ID   int64
	Text string
}
