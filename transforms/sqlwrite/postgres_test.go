// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/sqlwrite"
)

func TestPostgreSQLTimestampHasTheClockOfTheTimesZone(t *testing.T) {
	s := postgres(t)
	s.Run("CREATE TABLE n (at TIMESTAMP PRIMARY KEY, name TEXT)")
	there := time.Date(2020, 1, 2, 23, 4, 5, 0, time.FixedZone("there", 5400))
	write(t, sqlwrite.Writer[moment]{Database: s.Database, Table: "n", Key: []string{"at"}}, []moment{{there, "a"}})
	var got string
	require.NoError(t, s.QueryRowContext(t.Context(), "SELECT at::text FROM n").Scan(&got))
	require.Equal(t, "2020-01-02 23:04:05", got)
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
		copies := func() int { return strings.Count(s.Log(), `copy "pg_temp"`) } // which may come later
		if !test.copied {
			require.Zero(t, copies(), "%+v", test)
		}
		if test.copied { // the second one finds the temporary table, and nothing in it
			_, err := w.Call(t.Context(), numbersTo(5000))
			require.NoError(t, err)
			require.Eventually(t, func() bool { return copies() == 2 }, time.Minute, time.Millisecond)
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
		require.Zero(t, write(t, w, []exotic{{1, 255, "0/1", "1", "a"}, {3, 0, "0/1", "1", "a"}}).Counter(batchasync.MetricsNamespace, "bisections"))
		var sum int
		require.NoError(t, s.QueryRowContext(t.Context(), "SELECT SUM(small) FROM n").Scan(&sum))
		require.Equal(t, 255, sum)
		s.Run("DELETE FROM n WHERE id = 3")
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
