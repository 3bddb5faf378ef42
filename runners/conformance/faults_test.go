// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package conformance

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // a database that outlives its workers, and needs no server

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/internal/ticks"
	"github.com/batchasync/beam-batchasync/runners/flink/jobserver"
)

func init() {
	batchasync.Register(&writeRows{})
	beam.RegisterDoFn(reflect.TypeFor[stumbleFn]())
}

// A fault happens at a call of the whole job, whatever worker makes it.
const (
	none       = ""
	killWorker = "the worker is killed"
	down       = "the service is down"
	slow       = "the service is slow"
	stumble    = "a transform behind fails"
)

const (
	faultAt   = 3  // the call at which the fault begins
	faultyFor = 25 // calls for which the service is down: more than all attempts of a bundle
)

// writeRows writes numbers to a table, whose key they are, so that to write one again
// changes nothing but the count of its writes.
type writeRows struct{ Path, Fault string }

func (w *writeRows) Call(ctx context.Context, batch []int) (_ []int, err error) {
	db, err := openRows(w.Path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var call int
	if err := db.QueryRowContext(ctx, "UPDATE calls SET n = n + 1 RETURNING n").Scan(&call); err != nil {
		return nil, err
	}
	if w.Fault == down && call >= faultAt && call < faultAt+faultyFor {
		return nil, fmt.Errorf("call %d: out of service", call)
	}
	if w.Fault == slow {
		timer := time.NewTimer(700 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	written := batch
	if w.Fault == killWorker && call == faultAt {
		written = batch[:len(batch)/2]
	}
	for _, v := range written {
		if _, err := db.ExecContext(ctx, "INSERT INTO rows VALUES (?, 1) ON CONFLICT (id) DO UPDATE SET writes = writes + 1", v); err != nil {
			return nil, err
		}
	}
	if w.Fault == killWorker && call == faultAt {
		return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return batch, nil
}

// stumbleFn fails at one element of the job, which has been written by then.
type stumbleFn struct{ Path, Fault string }

func (f *stumbleFn) ProcessElement(ctx context.Context, v int) (err error) {
	if f.Fault != stumble || v != 30 {
		return nil
	}
	db, err := openRows(f.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var stumbles int
	if err := db.QueryRowContext(ctx, "UPDATE calls SET stumbles = stumbles + 1 RETURNING stumbles").Scan(&stumbles); err != nil {
		return err
	}
	if stumbles == 1 {
		return errors.New("a stumble")
	}
	return nil
}

func openRows(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)")
	if err == nil {
		db.SetMaxOpenConns(1)
	}
	return db, err
}

// newRows makes the table.
func newRows(t *testing.T) (path string, db *sql.DB) {
	path = filepath.Join(t.TempDir(), "rows.sqlite")
	db, err := openRows(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.Exec(`CREATE TABLE rows (id INTEGER PRIMARY KEY, writes INTEGER NOT NULL);
		CREATE TABLE calls (n INTEGER NOT NULL, stumbles INTEGER NOT NULL);
		INSERT INTO calls VALUES (0, 0)`)
	require.NoError(t, err)
	return path, db
}

func query(t *testing.T, db *sql.DB, what string) int {
	var n int
	require.NoError(t, db.QueryRow("SELECT coalesce("+what+", 0) FROM rows, calls").Scan(&n))
	return n
}

// startServer starts a job server for a test, and requires that nothing of it is left
// in the end.
func startServer(t *testing.T, options map[string]string) *jobserver.Server {
	if !testedOn("flink") {
		t.Skip("not tested without -runner=flink")
	}
	server, err := jobserver.Start(t.Context(), jobserver.Config{Options: options})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(server.LogTail(60))
		}
		require.NoError(t, server.Stop())
		require.Empty(t, processesOf(t, server.Group()), "processes of the server's are left")
	})
	return server
}

// processesOf returns what runs in a process group. A process that has ended counts
// no more, whether or not somebody has asked for its status yet.
func processesOf(t *testing.T, group int) []string {
	out, err := exec.CommandContext(context.Background(), "ps", "-A", "-o", "pgid=,stat=,args=").Output()
	require.NoError(t, err)
	var running []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); f[0] == fmt.Sprint(group) && !strings.HasPrefix(f[1], "Z") {
			running = append(running, line)
		}
	}
	return running
}

// launch runs a pipeline on a server, and returns the channel of how it ends.
func launch(ctx context.Context, t *testing.T, server *jobserver.Server, p *beam.Pipeline, processes bool, parallelism int) <-chan error {
	before := [...]string{*jobopts.Endpoint, *jobopts.EnvironmentType, *jobopts.EnvironmentConfig, *jobopts.WorkerBinary}
	flags := server.Flags()
	if processes {
		self, err := os.Executable()
		require.NoError(t, err)
		flags, err = server.ProcessFlags(self)
		require.NoError(t, err)
	}
	for _, flag := range flags {
		name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		switch name {
		case "endpoint":
			*jobopts.Endpoint = value
		case "environment_type":
			*jobopts.EnvironmentType = value
		case "environment_config":
			*jobopts.EnvironmentConfig = value
		case "worker_binary":
			*jobopts.WorkerBinary = value
		}
	}
	*jobopts.Parallelism = parallelism
	ended := make(chan error, 1)
	go func() {
		_, err := beam.Run(ctx, "flink", p)
		ended <- err
	}()
	t.Cleanup(func() {
		*jobopts.Endpoint, *jobopts.EnvironmentType, *jobopts.EnvironmentConfig, *jobopts.WorkerBinary = before[0], before[1], before[2], before[3]
		*jobopts.Parallelism = -1
	})
	return ended
}

// requireQuiet requires that no goroutine of the package's, and no call, is left in
// this process.
func requireQuiet(t *testing.T) {
	t.Helper()
	var left string
	require.Eventually(t, func() bool {
		left = ""
		stacks := make([]byte, 1<<22)
		for _, g := range bytes.Split(stacks[:runtime.Stack(stacks, true)], []byte("\n\n")) {
			if bytes.Contains(g, []byte("beam-batchasync/batchasync")) && !bytes.Contains(g, []byte("requireQuiet")) {
				left += string(g) + "\n\n"
			}
		}
		return left == ""
	}, 20*time.Second, 50*time.Millisecond)
	require.Empty(t, left)
}

func TestFaultsLeaveEachRowOnce(t *testing.T) {
	const n = 400
	for _, test := range []struct {
		fault       string
		processes   bool // each worker is one
		parallelism int
		opts        []batchasync.Option
		again       bool // some rows are written again
	}{
		{none, false, 1, nil, false},
		{killWorker, true, 1, nil, true},
		{killWorker, true, 2, []batchasync.Option{batchasync.AcrossBundles()}, true},
		{down, false, 2, nil, false},
		{slow, false, 1, nil, false},
		{stumble, false, 1, nil, true},
	} {
		t.Run(fmt.Sprintf("%s, parallelism %d", cmp.Or(test.fault, "nothing breaks"), test.parallelism), func(t *testing.T) {
			if testing.Short() && (test.fault != killWorker || test.parallelism > 1) {
				t.Skip("not with -short")
			}
			server := startServer(t, map[string]string{
				"checkpointing_interval": "500", "finish_bundle_before_checkpointing": "true", "max_bundle_time_mills": "200",
			})
			path, db := newRows(t)
			p, s := beam.NewPipelineWithRoot()
			col := beam.Reshuffle(s, ticks.Count(s, time.Now(), n, 100))
			opts := append(test.opts, batchasync.BatchSize(10), batchasync.MaxInFlight(4), batchasync.Timeout(5*time.Second),
				batchasync.MaxAttempts(2), batchasync.RetryInterval(10*time.Millisecond))
			results := batchasync.ParDo(s, &writeRows{Path: path, Fault: test.fault}, col, opts...)
			beam.ParDo0(s, &stumbleFn{Path: path, Fault: test.fault}, results)

			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ended := launch(ctx, t, server, p, test.processes, test.parallelism)
			require.Eventually(t, func() bool {
				return len(ended) > 0 || query(t, db, "count(DISTINCT id)") == n && (test.fault != stumble || query(t, db, "max(stumbles)") > 1)
			}, 2*time.Minute, 100*time.Millisecond, "not all rows are there")
			select {
			case err := <-ended:
				t.Fatalf("the job has ended: %v", err)
			default:
			}
			require.Equal(t, n-1, query(t, db, "max(id)"))
			writes, calls := query(t, db, "sum(writes)"), query(t, db, "max(n)")
			t.Logf("%d rows written %d times in %d calls", n, writes, calls)
			require.GreaterOrEqual(t, writes, n)
			if test.again {
				require.Greater(t, writes, n, "the fault did not happen: nothing was written again")
			}
			if test.fault == down {
				require.GreaterOrEqual(t, calls, faultAt+faultyFor)
			}
			stop()
			require.Error(t, <-ended) // nobody waits for it any more
			require.NoError(t, server.Stop())
			requireQuiet(t)
		})
	}
}

// The program hears of it at once, and what its own workers were doing ends.
func TestFaultsOfTheJobServerEndTheProgramsJob(t *testing.T) {
	server := startServer(t, nil)
	path, db := newRows(t)
	p, s := beam.NewPipelineWithRoot()
	batchasync.ParDo(s, &writeRows{Path: path, Fault: slow}, beam.Reshuffle(s, numbers(s, 10_000)),
		batchasync.BatchSize(10), batchasync.MaxInFlight(4), batchasync.Timeout(5*time.Second))
	ended := launch(t.Context(), t, server, p, false, 1)
	require.Eventually(t, func() bool { return query(t, db, "max(n)") > 4 }, time.Minute, 20*time.Millisecond)
	require.NoError(t, syscall.Kill(-server.Group(), syscall.SIGKILL))
	select {
	case err := <-ended:
		require.Error(t, err)
	case <-time.After(30 * time.Second):
		t.Fatal("the program hangs")
	}
	requireQuiet(t)
	require.Equal(t, query(t, db, "count(DISTINCT id)"), query(t, db, "sum(writes)"), "no row was written twice")
}

// Without checkpoints nothing is tried again: the job fails, and says why.
func TestFaultsOfAWorkerFailABatchJob(t *testing.T) {
	if testing.Short() {
		t.Skip("not with -short")
	}
	server := startServer(t, nil)
	path, _ := newRows(t)
	p, s := beam.NewPipelineWithRoot()
	batchasync.ParDo(s, &writeRows{Path: path, Fault: killWorker}, numbers(s, 1000), batchasync.BatchSize(10), batchasync.MaxInFlight(4))
	select {
	case err := <-launch(t.Context(), t, server, p, true, 1):
		require.Error(t, err)
	case <-time.After(time.Minute):
		t.Fatal("the job hangs")
	}
}
