// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqllookup_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/internal/servertest"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/internal/sqltest"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
	"github.com/batchasync/beam-batchasync/transforms/sqllookup"
)

// numbers makes a table n in which each id below count has its double.
func (s server) numbers(count int) {
	s.Run("CREATE TABLE n (id BIGINT PRIMARY KEY, twice BIGINT)")
	series := "SELECT i, 2 * i FROM generate_series(0, %d) i"
	switch s.Database.Driver {
	case sqldb.MySQL:
		series = "SELECT seq, 2 * seq FROM seq_0_to_%d"
	case sqldb.SQLite:
		series = "WITH RECURSIVE i(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM i WHERE i < %d) SELECT i, 2 * i FROM i"
	}
	s.Run("INSERT INTO n " + fmt.Sprintf(series, count-1))
}

// double is what the table n answers.
func double(count int64) func(any) any {
	return func(key any) any {
		id := key.(int64)
		if id < 0 || id >= count {
			return answer[int64]{}
		}
		return answer[int64]{2 * id, true}
	}
}

// through asks for count ids, with fault in the middle: see sqltest.
func (s server) through(db sqldb.Database, count int, fault func(third <-chan struct{}), opts ...batchasync.Option) *batchasynctest.Outputs {
	keys := make([]int64, count)
	for i := range keys {
		keys[i] = int64(i) - 10 // ten are not there
	}
	source := &sqllookup.Source[int64, int64]{Database: db, Query: "SELECT id, twice FROM n WHERE " + s.keys("id")}
	fn := batchasync.New(&asking[int64, int64]{source}, append([]batchasync.Option{
		batchasync.BatchSize(100), batchasync.MaxInFlight(8),
		batchasync.MaxAttempts(100), batchasync.Backoff(10*time.Millisecond, 200*time.Millisecond),
	}, opts...)...)
	return s.Through(fn, elements(keys), double(int64(count)), fault)
}

// onReal runs tests on the real servers.
func onReal(t *testing.T, tests map[string]func(*testing.T, server)) {
	t.Run("PostgreSQL", func(t *testing.T) { each(t, postgres(t, "max_connections=20"), tests) })
	t.Run("MariaDB", func(t *testing.T) { each(t, mariadb(t, "--max-connections=20"), tests) })
}

func TestFaultsOnRealServers(t *testing.T) {
	onReal(t, map[string]func(*testing.T, server){
		"Server stops in the middle and starts again":   restart((*servertest.Server).Stop),
		"Server crashes in the middle and starts again": restart((*servertest.Server).Kill),
		"Connections are killed":                        connectionsKilled,
		"Table is locked for a while":                   tableLocked,
		"Fewer connections than calls at once":          tooManyConnections,
	})
}

func restart(end func(*servertest.Server)) func(*testing.T, server) {
	return func(t *testing.T, s server) {
		s.numbers(20_000)
		fault, wait := s.Restart(end)
		out := s.through(s.Database, 20_000, fault)
		wait()
		require.Positive(t, sqltest.Retries(out), "the server was down, so calls must have failed")
	}
}

func connectionsKilled(t *testing.T, s server) {
	s.numbers(20_000)
	killed := 0
	s.through(s.Database, 20_000, func(<-chan struct{}) { killed = s.killAll() })
	require.Positive(t, killed)
}

// killAll kills the connections of the user, but its own, and returns how many.
func (s server) killAll() int {
	s.T.Helper()
	if s.Database.Driver == sqldb.PostgreSQL {
		var n int
		require.NoError(s.T, s.QueryRowContext(s.T.Context(),
			"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()").Scan(&n))
		return n
	}
	rows, err := s.QueryContext(s.T.Context(), "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID()")
	require.NoError(s.T, err)
	var ids []int
	for rows.Next() {
		var id int
		require.NoError(s.T, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(s.T, rows.Err())
	require.NoError(s.T, rows.Close())
	for _, id := range ids {
		// It may have ended by itself.
		_, _ = s.ExecContext(s.T.Context(), fmt.Sprintf("KILL %d", id))
	}
	return len(ids)
}

func tableLocked(t *testing.T, s server) {
	s.numbers(2_000)
	lock, err := s.Conn(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, lock.Close()) }()
	run := func(statement string) {
		_, err := lock.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	unlocked := make(chan struct{})
	out := s.through(s.Database, 2_000, func(third <-chan struct{}) {
		if s.Database.Driver == sqldb.PostgreSQL {
			run("BEGIN")
			run("LOCK TABLE n IN ACCESS EXCLUSIVE MODE")
		} else {
			run("LOCK TABLES n WRITE")
		}
		go func() {
			defer close(unlocked)
			<-third
			if s.Database.Driver == sqldb.PostgreSQL {
				run("ROLLBACK")
			} else {
				run("UNLOCK TABLES")
			}
		}()
	}, batchasync.Timeout(100*time.Millisecond))
	<-unlocked
	require.Positive(t, out.Counter(batchasync.MetricsNamespace, "timeouts"))
}

func tooManyConnections(t *testing.T, s server) {
	s.numbers(5_000)
	// All but three of the server's are taken. A superuser has some to himself.
	free := 20 - 3
	if s.Database.Driver == sqldb.PostgreSQL {
		free -= 3
	}
	s.SetMaxIdleConns(-1)
	for range free {
		conn, err := s.Conn(t.Context())
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
	}
	out := s.through(s.Database, 5_000, nil)
	require.Positive(t, sqltest.Retries(out), "eight calls at once found three connections")
}

func TestReplicaAnswersWhatItsPrimaryHas(t *testing.T) {
	s := postgres(t)
	s.numbers(2_000)
	replica := servertest.PostgresReplica(t, s.Server.Server)
	s.through(sqltest.Named(t, sqldb.PostgreSQL, replica), 2_000, func(<-chan struct{}) { s.Server.Stop() })
}

func TestSQLiteLockedByAnotherIsTriedAgain(t *testing.T) {
	s := sqlite(t)
	s.numbers(2_000)
	lock, err := s.Conn(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, lock.Close()) }()
	_, err = lock.ExecContext(t.Context(), "PRAGMA busy_timeout = 60000")
	require.NoError(t, err) // for calls that are under way
	db := s.Database
	db.DSN += "?_pragma=busy_timeout(1)"
	unlocked := make(chan error, 1)
	out := s.through(db, 2_000, func(third <-chan struct{}) {
		_, err := lock.ExecContext(t.Context(), "BEGIN EXCLUSIVE")
		require.NoError(t, err)
		go func() {
			<-third
			_, err := lock.ExecContext(context.WithoutCancel(t.Context()), "ROLLBACK")
			unlocked <- err
		}()
	})
	require.NoError(t, <-unlocked)
	require.Positive(t, sqltest.Retries(out))
}

func TestTwoHundredThousandRows(t *testing.T) {
	onEach(t, map[string]func(*testing.T, server){
		"in batches of 1000": func(t *testing.T, s server) {
			s.numbers(200_000)
			out := s.through(s.Database, 200_000, nil, batchasync.BatchSize(1000))
			require.Zero(t, sqltest.Retries(out))
		},
	})
}
