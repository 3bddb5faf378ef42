// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package redislookup_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/internal/servertest"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/enrich"
	"github.com/batchasync/beam-batchasync/transforms/redislookup"
)

// patient are options for a service that will be away.
var patient = []batchasync.Option{batchasync.BatchSize(20), batchasync.MaxInFlight(4), batchasync.MaxAttempts(1000), batchasync.RetryInterval(20 * time.Millisecond)}

// fault lets something happen at the n-th call of a test's sources, and ends it when
// one of them has failed.
type fault struct {
	at     int64
	begin  func() // before the at-th call
	end    func() // after the first one that failed
	calls  atomic.Int64
	failed atomic.Int64
	mu     sync.Mutex // held by begin and end: a call may fail before begin is over
}

func (f *fault) beginNow() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begin()
}

func (f *fault) endNow() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end()
}

func (f *fault) watch(t *testing.T) *fault {
	watch(t, func() {
		if f.calls.Add(1) == f.at {
			f.beginNow()
		}
	}, func(err error) {
		if err != nil && f.failed.Add(1) == 1 && f.end != nil {
			f.endNow()
		}
	})
	return f
}

// await waits until a command of somebody else fails as the calls will, or one of
// these has: then it is over already.
func (f *fault) await(t *testing.T, beginning string, command func() error) {
	require.Eventually(t, func() bool {
		return f.failed.Load() > 0 || redis.HasErrorPrefix(command(), beginning)
	}, time.Minute, time.Millisecond)
}

// bundle asks for n keys in one bundle: each has to end once, with its row.
func bundle(t *testing.T, h *batchasynctest.Harness, n int) *batchasynctest.Outputs {
	t.Helper()
	out, err := h.Bundle(keys(n)...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, keys(n), out, filled)
	require.Empty(t, out.Failures())
	return out
}

func TestAServerThatIsRestartedInTheMiddle(t *testing.T) {
	for name, end := range map[string]func(*servertest.Server){"stopped": (*servertest.Server).Stop, "killed": (*servertest.Server).Kill} {
		t.Run(name, func(t *testing.T) {
			s := newReal(t)
			s.fill(t, 2000, false)
			f := (&fault{at: 50, begin: func() { end(s.real) }, end: s.real.Start}).watch(t)
			out := bundle(t, harness(t, &watched{Strings: redislookup.Strings[row]{Server: s.Server, Prefix: prefix}, Test: t.Name()}, patient...), 2000)
			require.Positive(t, f.failed.Load())
			require.Positive(t, out.Counter(batchasync.MetricsNamespace, "retries"))
		})
	}
}

func TestAPipelineSurvivesARestartOfTheServer(t *testing.T) {
	s := newReal(t)
	s.fill(t, 3000, false)
	f := (&fault{at: 30, begin: s.real.Kill, end: s.real.Start}).watch(t)
	numbers, want := make([]int, 3000), make([]any, 3000)
	for i := range numbers {
		numbers[i] = i
		want[i] = filled(keyOf(i)).([]string)[0]
	}
	p, scope := beam.NewPipelineWithRoot()
	col := beam.ParDo(scope, elementOf, beam.CreateList(scope, numbers))
	joined := enrich.ParDo(scope, &watched{Strings: redislookup.Strings[row]{Server: s.Server, Prefix: prefix}, Test: t.Name()}, named{}, enrich.KeepMissing, col, patient...)
	passert.Equals(scope, joined, want...)
	_, err := beam.Run(context.Background(), "prism", p)
	require.NoError(t, err)
	require.Positive(t, f.failed.Load())
}

func TestConnectionsThatAreKilled(t *testing.T) {
	s := newReal(t)
	s.fill(t, 2000, true)
	kill := func() {
		require.NoError(t, s.client.Do(context.Background(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err())
	}
	for at := range int64(5) {
		(&fault{at: 10 * at, begin: kill}).watch(t)
		bundle(t, harness(t, &watchedHashes{Hashes: redislookup.Hashes[row]{Server: s.Server, Prefix: prefix}, Test: t.Name()}, patient...), 2000)
	}
}

func TestAServerThatTakesNoMoreClients(t *testing.T) {
	s := newReal(t)
	s.fill(t, 200, false)
	ctx := context.Background()
	require.NoError(t, s.client.ConfigSet(ctx, "maxclients", "1").Err())
	f := (&fault{end: func() { require.NoError(t, s.client.ConfigSet(ctx, "maxclients", "1000").Err()) }}).watch(t)
	bundle(t, harness(t, &watched{Strings: redislookup.Strings[row]{Server: s.Server, Prefix: prefix}, Test: t.Name()}, patient...), 200)
	require.Positive(t, f.failed.Load())
}

// A server that has no memory left refuses to be written to; it can still be read.
func TestAServerThatIsOutOfMemory(t *testing.T) {
	s := newReal(t)
	s.fill(t, 1000, false)
	ctx := context.Background()
	full := &fault{at: 20, begin: func() { require.NoError(t, s.client.ConfigSet(ctx, "maxmemory", "1").Err()) }}
	full.watch(t)
	bundle(t, harness(t, &watched{Strings: redislookup.Strings[row]{Server: s.Server, Prefix: prefix}, Test: t.Name()}, patient...), 1000)
	err := s.client.Set(ctx, prefix+"x", "x", 0).Err()
	require.True(t, redis.HasErrorPrefix(err, "OOM"), "%v", err)
	require.Zero(t, full.failed.Load())
}

// A server that runs a script answers nothing else, until that is ended.
func TestAServerThatIsBusy(t *testing.T) {
	s := newReal(t, "--busy-reply-threshold", "10")
	s.fill(t, 200, false)
	script := make(chan error, 1)
	f := &fault{at: 5, end: func() { require.NoError(t, s.client.ScriptKill(context.Background()).Err()) }}
	f.begin = func() {
		other := newClient(t, s.Address)
		require.NoError(t, other.Ping(context.Background()).Err())
		go func() { script <- other.Eval(context.Background(), "while true do end", nil).Err() }()
		f.await(t, "BUSY", func() error { return s.client.Ping(context.Background()).Err() })
	}
	f.watch(t)
	bundle(t, harness(t, &watched{Strings: redislookup.Strings[row]{Server: s.Server, Prefix: prefix}, Test: t.Name()}, patient...), 200)
	require.Positive(t, f.failed.Load())
	require.Error(t, <-script)
}

// A replica can be read, though it is read-only; if it has lost its master, and is
// not to answer with what is old, the calls wait until it has one.
func TestAReplicaIsRead(t *testing.T) {
	master := newReal(t)
	master.fill(t, 1000, false)
	replica := newReal(t, "--replicaof", "127.0.0.1 "+fmt.Sprint(master.real.Port), "--replica-serve-stale-data", "no")
	ctx := context.Background()
	require.Eventually(t, func() bool {
		n, err := replica.client.DBSize(ctx).Result()
		return err == nil && n == 1000-143
	}, time.Minute, 10*time.Millisecond)
	require.True(t, redis.HasErrorPrefix(replica.client.Set(ctx, "x", "x", 0).Err(), "READONLY"))

	f := &fault{at: 20, end: func() { require.NoError(t, replica.client.Do(ctx, "REPLICAOF", "NO", "ONE").Err()) }}
	f.begin = func() {
		master.real.Kill()
		f.await(t, "MASTERDOWN", func() error { return replica.client.Get(ctx, "x").Err() })
	}
	f.watch(t)
	bundle(t, harness(t, &watched{Strings: redislookup.Strings[row]{Server: replica.Server, Prefix: prefix}, Test: t.Name()}, patient...), 1000)
	require.Positive(t, f.failed.Load())
}

// newCluster starts a cluster of three masters, in whose Server one is named.
func newCluster(t *testing.T) (*store, []*store) {
	ctx := context.Background()
	nodes := make([]*store, 3)
	for i := range nodes {
		nodes[i] = newReal(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no")
		require.NoError(t, nodes[i].client.(*redis.Client).ClusterAddSlotsRange(ctx, i*5461, min(i*5461+5460, 16383)+i/2).Err())
	}
	for _, n := range nodes[1:] {
		require.NoError(t, nodes[0].client.ClusterMeet(ctx, "127.0.0.1", fmt.Sprint(n.real.Port)).Err())
	}
	for _, n := range nodes {
		require.Eventually(t, func() bool {
			info, err := n.client.ClusterInfo(ctx).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3") && strings.Contains(info, "cluster_slots_assigned:16384")
		}, time.Minute, 10*time.Millisecond)
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{nodes[0].Address}})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return &store{Server: redislookup.Server{Address: nodes[0].Address, Cluster: true}, client: client}, nodes
}

func TestAClusterIsAskedByItsSlots(t *testing.T) {
	s, nodes := newCluster(t)
	s.fill(t, 1000, false)
	values := map[string]any{}
	for i, key := range strange {
		values[key] = fmt.Sprint("value ", i)
	}
	values["set"] = nil
	s.set(t, values)
	for _, n := range nodes {
		size, err := n.client.DBSize(context.Background()).Result()
		require.NoError(t, err)
		require.Greater(t, size, int64(100), "each has some of them")
	}
	asked := append([]string{"missing", "set"}, strange...)
	got, err := lookup(t, &redislookup.Strings[string]{Server: s.Server, Prefix: prefix}, asked...)
	require.Equal(t, map[string]string{"set": "WRONGTYPE Operation against a key holding the wrong kind of value"}, keyErrors(err, asked))
	require.Len(t, got, len(strange))
	for key := range got {
		require.Equal(t, values[key], got[key])
	}
	bundle(t, harness(t, &watched{Strings: redislookup.Strings[row]{Server: s.Server, Prefix: prefix}}, patient...), 1000)

	// Who takes a node for a server of its own is told.
	alone := redislookup.Server{Address: nodes[0].Address}
	_, err = lookup(t, &redislookup.Strings[string]{Server: alone, Prefix: prefix}, "k1", "k2", "k3")
	require.ErrorContains(t, err, "set Cluster")
	_, err = lookup(t, &redislookup.Hashes[row]{Server: alone, Prefix: prefix}, "k1", "k2", "k3", "k4", "k5", "k6")
	require.ErrorContains(t, err, "set Cluster")
}

// The keys of the node that is away are asked for again; the others are answered.
func TestANodeOfAClusterThatIsRestarted(t *testing.T) {
	s, nodes := newCluster(t)
	s.fill(t, 1000, true)
	f := (&fault{at: 10, begin: nodes[2].real.Kill, end: nodes[2].real.Start}).watch(t)
	var partly atomic.Int64
	watch(t, func() {
		if f.calls.Add(1) == f.at {
			f.beginNow()
		}
	}, func(err error) {
		if err == nil {
			return
		}
		if failed := new(batchasync.BatchError); errors.As(err, &failed) && failed.Len() < 20 {
			partly.Add(1)
		}
		if f.failed.Add(1) == 1 {
			f.endNow()
		}
	})
	bundle(t, harness(t, &watchedHashes{Hashes: redislookup.Hashes[row]{Server: s.Server, Prefix: prefix}, Test: t.Name()}, patient...), 1000)
	require.Positive(t, partly.Load())
}

func TestASlotThatMovesToAnotherNode(t *testing.T) {
	s, nodes := newCluster(t)
	ctx := context.Background()
	s.fill(t, 500, false)
	var ids []string
	for _, n := range nodes {
		id, err := n.client.Do(ctx, "CLUSTER", "MYID").Text()
		require.NoError(t, err)
		ids = append(ids, id)
	}
	// In the middle, the slot of a key leaves the first node.
	slot, err := nodes[0].client.ClusterKeySlot(ctx, prefix+"k1").Result()
	require.NoError(t, err)
	from := int(slot) / 5461
	to := (from + 1) % 3
	(&fault{at: 5, begin: func() {
		source, target := nodes[from], nodes[to]
		require.NoError(t, target.client.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[from]).Err())
		require.NoError(t, source.client.Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to]).Err())
		names, err := source.client.ClusterGetKeysInSlot(ctx, int(slot), 1000).Result()
		require.NoError(t, err)
		require.NotEmpty(t, names)
		for _, name := range names {
			require.NoError(t, source.client.Migrate(ctx, "127.0.0.1", fmt.Sprint(target.real.Port), name, 0, time.Second).Err())
		}
	}}).watch(t)
	h := harness(t, &watched{Strings: redislookup.Strings[row]{Server: s.Server, Prefix: prefix}, Test: t.Name()}, patient...)
	bundle(t, h, 500) // by ASK
	for _, n := range []*store{nodes[to], nodes[from]} {
		require.NoError(t, n.client.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", ids[to]).Err())
	}
	bundle(t, h, 500) // by MOVED
}

// newWatched starts a master with rows, its replica, and their sentinel.
func newWatched(t *testing.T) (master, replica *store, server redislookup.Server) {
	master = newReal(t)
	master.fill(t, 1000, false)
	replica = newReal(t, "--replicaof", "127.0.0.1 "+fmt.Sprint(master.real.Port))
	ctx := context.Background()
	require.Eventually(t, func() bool {
		n, err := replica.client.DBSize(ctx).Result()
		return err == nil && n == 1000-143
	}, time.Minute, 10*time.Millisecond)
	sentinel := servertest.RedisSentinel(t, master.real)
	watcher := redis.NewSentinelClient(&redis.Options{Addr: sentinel.Addr})
	t.Cleanup(func() { require.NoError(t, watcher.Close()) })
	require.Eventually(t, func() bool { // it knows whom to promote
		replicas, err := watcher.Replicas(ctx, "main").Result()
		return err == nil && len(replicas) == 1 && replicas[0]["flags"] == "slave"
	}, time.Minute, 10*time.Millisecond)
	return master, replica, redislookup.Server{Address: sentinel.Addr, Master: "main"}
}

func TestAMasterThatFailsOver(t *testing.T) {
	master, replica, server := newWatched(t)
	f := (&fault{at: 20, begin: master.real.Kill}).watch(t)
	bundle(t, harness(t, &watched{Strings: redislookup.Strings[row]{Server: server, Prefix: prefix}, Test: t.Name()}, patient...), 1000)
	require.Positive(t, f.failed.Load())
	require.NoError(t, replica.client.Set(context.Background(), prefix+"x", "x", 0).Err(), "it has become the master")
}

func TestReplicasAreReadOnRequest(t *testing.T) {
	_, replica, server := newWatched(t)
	ctx := context.Background()
	require.NoError(t, replica.client.ConfigSet(ctx, "replica-read-only", "no").Err())
	require.NoError(t, replica.client.Set(ctx, prefix+"k1", `{"name":"old"}`, 0).Err())
	for replicas, want := range map[bool]string{false: "é", true: "old"} {
		server.Replicas = replicas
		got, err := lookup(t, &redislookup.Strings[row]{Server: server, Prefix: prefix}, "k1")
		require.NoError(t, err)
		require.Equal(t, want, got["k1"].Name)
	}
}

func TestSentinelsMayWantCredentialsOfTheirOwn(t *testing.T) {
	_, _, server := newWatched(t)
	sentinel := redis.NewClient(&redis.Options{Addr: server.Address})
	defer func() { require.NoError(t, sentinel.Close()) }()
	require.NoError(t, sentinel.Do(t.Context(), "ACL", "SETUSER", "watcher", "on", ">"+secret, "+@all", "~*", "&*").Err())
	require.NoError(t, sentinel.Do(t.Context(), "ACL", "SETUSER", "default", "resetpass", ">other").Err())
	t.Setenv("TEST_SENTINEL_USER", "watcher")
	t.Setenv("TEST_SENTINEL_PASSWORD", secret)
	source := &redislookup.Strings[row]{Server: server, Prefix: prefix}
	_, err := lookup(t, source, "k1")
	require.Error(t, err, "without them")

	source.SentinelCredentials = redislookup.Credentials{UsernameEnv: "TEST_SENTINEL_USER", PasswordEnv: "TEST_SENTINEL_PASSWORD"}
	got, err := lookup(t, source, "k1")
	require.NoError(t, err)
	require.Equal(t, 1, got["k1"].N)

	t.Setenv("TEST_SENTINEL_PASSWORD", "")
	source.TLS = true
	require.ErrorContains(t, source.Setup(t.Context()), "PasswordEnv TEST_SENTINEL_PASSWORD: it is empty on this worker")
}
