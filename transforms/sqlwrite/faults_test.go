// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/internal/servertest"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/internal/sqltest"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
	"github.com/batchasync/beam-batchasync/transforms/sqlwrite"
)

func init() { batchasync.Register(&watched{}) }

// watched is a Writer that tells of its attempts.
type watched struct {
	Writer *sqlwrite.Writer[number]
}

func (w *watched) Setup(ctx context.Context) error    { return w.Writer.Setup(ctx) }
func (w *watched) Teardown(ctx context.Context) error { return w.Writer.Teardown(ctx) }

func (w *watched) Call(ctx context.Context, rows []number) ([]number, error) {
	sqltest.Attempted(ctx)
	return w.Writer.Call(ctx, rows)
}

// through writes count numbers, with fault in the middle: see sqltest.
func (s server) through(w sqlwrite.Writer[number], count int, fault func(third <-chan struct{}), opts ...batchasync.Option) *batchasynctest.Outputs {
	fn := batchasync.New(&watched{&w}, append([]batchasync.Option{
		batchasync.BatchSize(100), batchasync.MaxInFlight(8), batchasync.Bisect(),
		batchasync.MaxAttempts(100), batchasync.Backoff(10*time.Millisecond, 200*time.Millisecond),
	}, opts...)...)
	return s.Through(fn, batchasynctest.Values(numbersTo(count)...), same, fault)
}

func TestFaultsOnRealServers(t *testing.T) {
	tests := map[string]func(*testing.T, server){
		"Server stops in the middle and starts again":   restart((*servertest.Server).Stop),
		"Server crashes in the middle and starts again": restart((*servertest.Server).Kill),
		"Connections are killed":                        connectionsKilled,
		"A row is locked for a while":                   rowLocked,
		"Fewer connections than calls at once":          tooManyConnections,
		"Server is read-only for a while":               readOnly,
	}
	t.Run("PostgreSQL", func(t *testing.T) { each(t, postgres(t, "max_connections=20"), tests) })
	t.Run("PostgreSQL by COPY", func(t *testing.T) {
		s := postgres(t, "max_connections=20")
		s.copyFrom = 1
		each(t, s, tests)
	})
	t.Run("MariaDB", func(t *testing.T) { each(t, mariadb(t, "--max-connections=20"), tests) })
}

func restart(end func(*servertest.Server)) func(*testing.T, server) {
	return func(t *testing.T, s server) {
		w := s.numbers()
		fault, wait := s.Restart(end)
		s.through(w, 20_000, fault)
		wait()
		s.hasNumbers(20_000)
	}
}

func connectionsKilled(t *testing.T, s server) {
	w := s.numbers()
	kill := "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tester'"
	if s.Database.Driver == sqldb.MySQL {
		kill = "KILL CONNECTION USER tester"
	}
	s.through(w, 20_000, func(<-chan struct{}) { s.admin(kill) })
	s.hasNumbers(20_000)
}

// admin executes a statement as the superuser.
func (s server) admin(statement string) {
	s.T.Helper()
	driver := map[sqldb.Driver]string{sqldb.PostgreSQL: "pgx", sqldb.MySQL: "mysql"}[s.Database.Driver]
	db, err := sql.Open(driver, s.AdminDSN)
	require.NoError(s.T, err)
	_, err = db.ExecContext(context.WithoutCancel(s.T.Context()), statement)
	require.NoError(s.T, err)
	require.NoError(s.T, db.Close())
}

func rowLocked(t *testing.T, s server) {
	w := s.numbers()
	s.Run("INSERT INTO n VALUES (1500, 0)")
	lock, err := s.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = lock.ExecContext(t.Context(), "UPDATE n SET twice = -1 WHERE id = 1500")
	require.NoError(t, err)
	unlocked := make(chan error, 1)
	out := s.through(w, 2_000, func(third <-chan struct{}) {
		go func() {
			<-third
			unlocked <- lock.Rollback()
		}()
	}, batchasync.Timeout(200*time.Millisecond))
	require.NoError(t, <-unlocked)
	require.Positive(t, out.Counter(batchasync.MetricsNamespace, "timeouts"))
	s.hasNumbers(2_000)
}

func tooManyConnections(t *testing.T, s server) {
	w := s.numbers()
	// All but three of the server's are taken. A superuser has some to himself.
	free := 20 - 3
	if s.Database.Driver == sqldb.PostgreSQL {
		free -= 3
	}
	var held []*sql.Conn
	for range free {
		conn, err := s.Conn(t.Context())
		require.NoError(t, err)
		held = append(held, conn)
	}
	out := s.through(w, 5_000, nil)
	require.Positive(t, sqltest.Retries(out), "eight calls at once found three connections")
	for _, conn := range held {
		require.NoError(t, conn.Close())
	}
	s.hasNumbers(5_000)
}

func readOnly(t *testing.T, s server) {
	w := s.numbers()
	set := func(on string) {
		if s.Database.Driver == sqldb.MySQL {
			s.admin("SET GLOBAL read_only = " + on)
			return
		}
		s.admin("ALTER ROLE tester SET default_transaction_read_only = " + on)
		// It is for new connections.
		s.admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'tester'")
	}
	done := make(chan struct{})
	s.through(w, 5_000, func(third <-chan struct{}) {
		set("on")
		go func() {
			defer close(done)
			<-third
			set("off")
		}()
	})
	<-done
	s.hasNumbers(5_000)
}

func TestReplicaIsWrittenToOnceItIsPromoted(t *testing.T) {
	s := postgres(t)
	w := s.numbers()
	replica := servertest.PostgresReplica(t, s.Server.Server)
	promoted := server{Server: sqltest.OfPostgres(t, replica)}
	w.Database = promoted.Database
	done := make(chan struct{})
	promoted.through(w, 2_000, func(third <-chan struct{}) {
		go func() {
			defer close(done)
			<-third
			admin, err := sql.Open("pgx", replica.AdminDSN)
			if err == nil {
				_, err = admin.Exec("SELECT pg_promote()")
			}
			if err != nil {
				t.Error(err)
				return
			}
			if err := admin.Close(); err != nil {
				t.Error(err)
			}
		}()
	})
	<-done
	promoted.hasNumbers(2_000)
	require.Zero(t, s.Count("n"), "the old primary must have got nothing")
}

func TestSQLiteLockedByAnotherIsTriedAgain(t *testing.T) {
	s := sqlite(t)
	w := s.numbers()
	w.Database.DSN += "?_pragma=busy_timeout(1)"
	lock, err := s.Conn(t.Context())
	require.NoError(t, err)
	unlocked := make(chan error, 1)
	s.through(w, 2_000, func(third <-chan struct{}) {
		// Another writer may have it; the driver of this connection waits.
		_, err := lock.ExecContext(t.Context(), "PRAGMA busy_timeout = 5000")
		require.NoError(t, err)
		_, err = lock.ExecContext(t.Context(), "BEGIN EXCLUSIVE")
		require.NoError(t, err)
		go func() {
			<-third
			_, err := lock.ExecContext(context.WithoutCancel(t.Context()), "ROLLBACK")
			unlocked <- err
		}()
	})
	require.NoError(t, <-unlocked)
	require.NoError(t, lock.Close())
	s.hasNumbers(2_000)
}
