// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite_test

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
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

func TestPostgreSQLTimestampHasTheClockOfTheTimesZone(t *testing.T) {
	s := postgres(t)
	s.Run("CREATE TABLE n (at TIMESTAMP PRIMARY KEY, name TEXT)")
	there := time.Date(2020, 1, 2, 23, 4, 5, 0, time.FixedZone("there", 5400))
	write(t, sqlwrite.Writer[moment]{Database: s.Database, Table: "n", Key: []string{"at"}}, []moment{{there, "a"}})
	var got string
	require.NoError(t, s.QueryRowContext(t.Context(), "SELECT at::text FROM n").Scan(&got))
	require.Equal(t, "2020-01-02 23:04:05", got)
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

func TestMySQLTakesWhatIsLargerThanItsLargestPacket(t *testing.T) {
	s := mariadb(t, "--max-allowed-packet=1M")
	s.Run("CREATE TABLE n (id BIGINT PRIMARY KEY, text LONGTEXT)")
	w := sqlwrite.Writer[document]{Database: s.Database, Table: "n", Key: []string{"id"}}
	var rows []document
	for i := range 64 {
		rows = append(rows, document{int64(i), strings.Repeat("x", 100_000)})
	}
	rows[7].Text = strings.Repeat("SECRET", 1<<20)
	rows[9].Text = strings.Repeat("x", 1<<20)
	for range 2 { // what is too large spoils no statement for the others
		out := write(t, w, rows, batchasync.BatchSize(32), batchasync.MaxInFlight(1))
		require.Len(t, out.Results(), 63)
		require.Len(t, out.Failures(), 1)
		require.Equal(t, `sqlwrite: the column "text" has a value of 6291456 bytes, more than the 1048576 of the server's max_allowed_packet`,
			out.Failures()[0].Value.(batchasync.Failure[document]).Error)
		require.Zero(t, out.Counter(batchasync.MetricsNamespace, "retries"))
	}
	require.Equal(t, 63, s.Count("n"))
}

func TestMySQLStatementOfASizeIsPreparedOnce(t *testing.T) {
	s := mariadb(t)
	w := s.numbers()
	prepared := func() (n int) {
		var name string
		require.NoError(t, s.QueryRowContext(t.Context(), "SHOW GLOBAL STATUS LIKE 'Com_stmt_prepare'").Scan(&name, &n))
		return n
	}
	require.NoError(t, w.Setup(t.Context()))
	before := prepared()
	for range 20 {
		_, err := w.Call(t.Context(), numbersTo(10))
		require.NoError(t, err)
	}
	require.Equal(t, 1, prepared()-before)
	for size := range 30 { // more than are kept
		_, err := w.Call(t.Context(), numbersTo(size))
		require.NoError(t, err)
	}
	s.hasNumbers(29)
	require.NoError(t, w.Teardown(t.Context()))
}

func TestPostgreSQLBatchesAreCopiedFrom5000RowsOn(t *testing.T) {
	s := postgres(t, "log_statement=all")
	w := s.numbers()
	for _, test := range []struct {
		from, size int
		copied     bool
	}{{-1, 6000, false}, {0, 4999, false}, {0, 5000, true}} {
		w.CopyFrom = test.from
		require.NoError(t, w.Setup(t.Context()))
		_, err := w.Call(t.Context(), numbersTo(test.size))
		require.NoError(t, err)
		require.Equal(t, test.copied, strings.Contains(s.Log(), `copy "pg_temp"`), "%+v", test)
		if test.copied { // the second one finds the temporary table, and nothing in it
			_, err := w.Call(t.Context(), numbersTo(5000))
			require.NoError(t, err)
			require.Equal(t, 2, strings.Count(s.Log(), `copy "pg_temp"`))
			require.Equal(t, 1, strings.Count(s.Log(), "CREATE TEMPORARY TABLE"))
		}
		require.NoError(t, w.Teardown(t.Context()))
	}
	s.hasNumbers(6000)
}

func TestPostgreSQLTableOfTheTemporaryOnesName(t *testing.T) {
	s := postgres(t)
	s.Run("CREATE TABLE sqlwrite_stage (id BIGINT, twice BIGINT)")
	s.Run("INSERT INTO sqlwrite_stage VALUES (-1, -2)")
	s.Run("ALTER ROLE CURRENT_USER SET search_path = public, pg_temp")
	w := s.numbers()
	w.CopyFrom = 1
	require.Empty(t, write(t, w, numbersTo(10)).Failures())
	s.hasNumbers(10)
	require.Equal(t, 1, s.Count("public.sqlwrite_stage"))
}

func TestSetupThatFailsLeavesNoConnection(t *testing.T) {
	s := postgres(t)
	w := s.writer("nowhere", "code")
	require.ErrorContains(t, w.Setup(t.Context()), "the table nowhere")
	require.Eventually(t, func() bool { return s.Count("pg_stat_activity WHERE usename = CURRENT_USER") == 1 }, time.Minute, 10*time.Millisecond)
	require.NoError(t, w.Teardown(t.Context()))
}

func TestSQLiteWritersWaitInOrder(t *testing.T) {
	s := sqlite(t)
	w := s.numbers()
	w.Database.DSN += "?_pragma=busy_timeout(1)"
	out := write(t, w, numbersTo(5000), batchasync.BatchSize(10))
	require.Len(t, out.Results(), 5000)
	require.Zero(t, out.Counter(batchasync.MetricsNamespace, "retries"))
}

type exotic struct {
	ID     int64
	Small  uint8
	Lsn    string
	Amount string
	Words  string
}

func TestPostgreSQLTypesThatTheDriverDoesNotKnow(t *testing.T) {
	s := postgres(t)
	s.Run("CREATE TABLE n (id BIGINT PRIMARY KEY, small SMALLINT, lsn PG_LSN, amount MONEY, words TSQUERY)")
	for _, from := range []int{-1, 1} {
		w := sqlwrite.Writer[exotic]{Database: s.Database, Table: "n", Key: []string{"id"}, CopyFrom: from}
		out := write(t, w, []exotic{{1, 200, "16/B374D848", "$1.50", "fat & rat"}, {2, 2, "SECRET", "1", "cat"}})
		require.Len(t, out.Results(), 1)
		require.Len(t, out.Failures(), 1)
		require.NotContains(t, out.Failures()[0].Value.(batchasync.Failure[exotic]).Error, "SECRET")
		var all string
		require.NoError(t, s.QueryRowContext(t.Context(), "SELECT row(n.*)::text FROM n").Scan(&all))
		require.Equal(t, `(1,200,16/B374D848,$1.50,"'fat' & 'rat'")`, all)
		s.Run("DELETE FROM n")
	}
}

func TestPostgreSQLKeysThatAreEqualToTheServerAlone(t *testing.T) {
	s := postgres(t)
	s.Run("CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
	s.Run("CREATE TABLE city (code TEXT COLLATE anycase PRIMARY KEY, full_name TEXT, people BIGINT, founded TIMESTAMP, latitude DOUBLE PRECISION)")
	for _, from := range []int{-1, 1} {
		w := s.writer("city", "code")
		w.CopyFrom = from
		// As Write does it, without Bisect.
		h := batchasynctest.NewHarness(t, batchasync.New(&w, batchasync.FailBundle(), batchasync.MaxAttempts(1))).Clone(t)
		out, err := h.Bundle(batchasynctest.Values(cityOf("a", "x"), cityOf("b", "x"), cityOf("A", "x"), cityOf("c", "x"))...)
		require.NoError(t, err)
		require.Len(t, out.Results(), 4)
		require.Equal(t, 3, s.Count("city"))
	}
}

func TestPostgreSQLDomainCutsNothing(t *testing.T) {
	s := postgres(t)
	s.Run("CREATE DOMAIN code AS VARCHAR(3) CHECK (value <> 'no')")
	s.Run("CREATE DOMAIN strict_code AS code CHECK (value <> 'nay')")
	s.Run("CREATE TABLE n (id BIGINT PRIMARY KEY, text strict_code)")
	for _, from := range []int{-1, 1} {
		w := sqlwrite.Writer[document]{Database: s.Database, Table: "n", Key: []string{"id"}, CopyFrom: from}
		out := write(t, w, []document{{1, "abcdef"}, {2, "no"}, {3, "abc"}, {4, "nay"}})
		require.Len(t, out.Results(), 1)
		require.Len(t, out.Failures(), 3)
		require.Contains(t, out.Failures()[0].Value.(batchasync.Failure[document]).Error, "value too long")
		require.Equal(t, 1, s.Count("n"))
	}
}
