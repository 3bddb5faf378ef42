// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/sqlwrite"
)

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

func TestSQLiteWritersWaitInOrder(t *testing.T) {
	s := sqlite(t)
	w := s.numbers()
	w.Database.DSN += "?_pragma=busy_timeout(1)"
	out := write(t, w, numbersTo(5000), batchasync.BatchSize(10))
	require.Len(t, out.Results(), 5000)
	require.Zero(t, out.Counter(batchasync.MetricsNamespace, "retries"))
}
