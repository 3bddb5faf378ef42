// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package redislookup_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/internal/servertest"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/enrich"
	"github.com/batchasync/beam-batchasync/transforms/redislookup"
)

func TestMain(m *testing.M) {
	beam.Init()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // or Prism tells each job's life
	redis.SetLogger(discard{})
	os.Exit(m.Run())
}

type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}

func init() {
	batchasync.Register(enrich.New(&watched{}, named{}, ""))
	batchasync.Register(enrich.New(&watchedHashes{}, named{}, ""))
	enrich.Register(&watched{}, named{})
	register.Function1x1(elementOf)
}

// A row is a value: JSON in a string, or the fields of a hash.
type row struct {
	N    int        `json:"n" redis:"n"`
	Name string     `json:"name" redis:"name"`
	Day  *time.Time `json:"day"`
}

// watched is a source that tells a test of each of its calls. The test is found
// by its name, for the source travels.
type watched struct {
	redislookup.Strings[row]
	Test string
}

func (w *watched) Lookup(ctx context.Context, keys []string) (map[string]row, error) {
	return tell(ctx, w.Test, keys, w.Strings.Lookup)
}

type watchedHashes struct {
	redislookup.Hashes[row]
	Test string
}

func (w *watchedHashes) Lookup(ctx context.Context, keys []string) (map[string]row, error) {
	return tell(ctx, w.Test, keys, w.Hashes.Lookup)
}

var watchers sync.Map

// watch has f called before each call of the test's sources, and with how it
// ended after it.
func watch(t *testing.T, before func(), after func(err error)) {
	watchers.Store(t.Name(), [2]any{before, after})
}

func tell(ctx context.Context, test string, keys []string, lookup func(context.Context, []string) (map[string]row, error)) (map[string]row, error) {
	w, ok := watchers.Load(test)
	if !ok {
		return lookup(ctx, keys)
	}
	w.([2]any)[0].(func())()
	values, err := lookup(ctx, keys)
	w.([2]any)[1].(func(error))(err)
	return values, err
}

// named joins a key with the row that it has.
type named struct{}

func (named) Keys(key string) []string { return []string{key} }

func (named) Join(key string, rows enrich.Found[string, row]) (string, error) {
	r, ok := rows.Get(key)
	return fmt.Sprint(key, " ", ok, " ", r.N, " ", r.Name), nil
}

// A store is a Redis to test with.
type store struct {
	redislookup.Server
	client redis.UniversalClient // to fill it with
	real   *servertest.Server    // nil: it is not ours to stop
	mini   *miniredis.Miniredis
}

func newMini(t *testing.T) *store {
	m := miniredis.RunT(t)
	return &store{Server: redislookup.Server{Address: m.Addr()}, client: newClient(t, m.Addr()), mini: m}
}

func newReal(t *testing.T, options ...string) *store {
	s := servertest.Redis(t, options...)
	return &store{Server: redislookup.Server{Address: s.Addr}, client: newClient(t, s.Addr), real: s}
}

func newClient(t *testing.T, addr string) redis.UniversalClient {
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// onEachStore runs a test on the stand-in and on the real server: one that runs at
// BATCHASYNC_REDIS, host:port, in whose database 0 the tests' keys begin with
// "batchasync-test:", or one that the test starts.
func onEachStore(t *testing.T, test func(t *testing.T, s *store)) {
	t.Run("miniredis", func(t *testing.T) { test(t, newMini(t)) })
	t.Run("redis", func(t *testing.T) {
		if addr := os.Getenv("BATCHASYNC_REDIS"); addr != "" {
			test(t, &store{Server: redislookup.Server{Address: addr}, client: newClient(t, addr)})
			return
		}
		test(t, newReal(t))
	})
}

const prefix = "batchasync-test:"

// set fills a store; a value is that of a string, or a hash.
func (s *store) set(t *testing.T, values map[string]any) {
	t.Helper()
	ctx := context.Background()
	for key, value := range values {
		require.NoError(t, s.client.Del(ctx, prefix+key).Err())
		switch v := value.(type) {
		case string:
			require.NoError(t, s.client.Set(ctx, prefix+key, v, 0).Err())
		case map[string]string:
			require.NoError(t, s.client.HSet(ctx, prefix+key, v).Err())
		default:
			require.NoError(t, s.client.SAdd(ctx, prefix+key, "a", "b").Err())
		}
		t.Cleanup(func() { s.client.Del(ctx, prefix+key) })
	}
}

// fill sets the rows k0 to kn, but each seventh, as strings or hashes.
func (s *store) fill(t *testing.T, n int, hashes bool) {
	_, err := s.client.Pipelined(context.Background(), func(p redis.Pipeliner) error {
		for i := range n {
			switch {
			case i%7 == 0:
			case hashes:
				p.HSet(context.Background(), prefix+keyOf(i), "n", i, "name", "é")
			default:
				p.Set(context.Background(), prefix+keyOf(i), fmt.Sprintf(`{"n":%d,"name":"é"}`, i), 0)
			}
		}
		return nil
	})
	require.NoError(t, err)
}

func keyOf(i int) string { return fmt.Sprint("k", i) }

// filled is what named makes of such a key.
func filled(key any) any {
	i, _ := strconv.Atoi(key.(string)[1:])
	if i%7 == 0 {
		return []string{fmt.Sprint(key, " false 0 ")}
	}
	return []string{fmt.Sprint(key, " true ", i, " é")}
}

func keys(n int) []batchasynctest.Element {
	elements := make([]batchasynctest.Element, n)
	for i := range elements {
		elements[i].Value = keyOf(i)
	}
	return elements
}

func elementOf(i int) string { return keyOf(i) }

// looker is a source that a test sets up and asks by itself.
type looker[V any] interface {
	Setup(context.Context) error
	Teardown(context.Context) error
	Lookup(context.Context, []string) (map[string]V, error)
}

func lookup[V any](t *testing.T, source looker[V], keys ...string) (map[string]V, error) {
	t.Helper()
	require.NoError(t, source.Setup(t.Context()))
	defer func() { require.NoError(t, source.Teardown(context.Background())) }()
	return source.Lookup(t.Context(), keys)
}

// strange are keys that are long, empty or hostile.
var strange = []string{
	"", " ", "'; DROP TABLE airports; --", "a b", "*", "a\r\nDEL b\r\n", "\x00\xff", "日本語", "{user}:1", "{}", "%s",
	strings.Repeat("long", 1<<18), "$(id)", "k\n",
}

func TestAnyKeyIsLookedUpAsItIs(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		values := map[string]any{}
		for i, key := range strange {
			values[key] = fmt.Sprint("value ", i)
		}
		s.set(t, values)
		got, err := lookup(t, &redislookup.Strings[string]{Server: s.Server, Prefix: prefix}, append(strange, "missing", "a\r\nDEL")...)
		require.NoError(t, err)
		require.Len(t, got, len(strange))
		for key, value := range values {
			require.Equal(t, value, got[key])
		}
		got, err = lookup(t, &redislookup.Strings[string]{Server: s.Server, Prefix: prefix}, "missing", "missing too")
		require.NoError(t, err)
		require.Empty(t, got, "a key that isn't there is no error")
	})
}

func TestAValueIsDecodedByItsType(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		type text string
		type raw []byte
		big := strings.Repeat("x", 1<<20)
		s.set(t, map[string]any{"row": `{"n":7,"name":"tea"}`, "number": "7", "list": "[1,2]", "big": big, "empty": "", "binary": "\x00\xff\r\n"})
		strings := redislookup.Strings[string]{Server: s.Server, Prefix: prefix}
		all := []string{"row", "number", "list", "big", "empty", "binary"}

		got, err := lookup(t, &strings, all...)
		require.NoError(t, err)
		require.Equal(t, map[string]string{"row": `{"n":7,"name":"tea"}`, "number": "7", "list": "[1,2]", "big": big, "empty": "", "binary": "\x00\xff\r\n"}, got)
		bytes, err := lookup(t, &redislookup.Strings[[]byte]{Server: s.Server, Prefix: prefix}, "binary", "empty")
		require.NoError(t, err)
		require.Equal(t, map[string][]byte{"binary": []byte("\x00\xff\r\n"), "empty": {}}, bytes)
		texts, err := lookup(t, &redislookup.Strings[text]{Server: s.Server, Prefix: prefix}, "number")
		require.NoError(t, err)
		require.Equal(t, map[string]text{"number": "7"}, texts)
		raws, err := lookup(t, &redislookup.Strings[raw]{Server: s.Server, Prefix: prefix}, "number")
		require.NoError(t, err)
		require.Equal(t, map[string]raw{"number": raw("7")}, raws)
		rows, err := lookup(t, &redislookup.Strings[row]{Server: s.Server, Prefix: prefix}, "row")
		require.NoError(t, err)
		require.Equal(t, map[string]row{"row": {N: 7, Name: "tea"}}, rows)
		pointers, err := lookup(t, &redislookup.Strings[*row]{Server: s.Server, Prefix: prefix}, "row")
		require.NoError(t, err)
		require.Equal(t, map[string]*row{"row": {N: 7, Name: "tea"}}, pointers)
		lists, err := lookup(t, &redislookup.Strings[[]int]{Server: s.Server, Prefix: prefix}, "list")
		require.NoError(t, err)
		require.Equal(t, map[string][]int{"list": {1, 2}}, lists)
	})
}

// keyErrors are the errors of a BatchError, by key.
func keyErrors(err error, keys []string) map[string]string {
	errs := map[string]string{}
	for i, e := range batchasync.Failed(err) {
		errs[keys[i]] = e.Error()
	}
	return errs
}

func TestAKeyWithTheWrongTypeOrValueFailsAlone(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		s.set(t, map[string]any{"row": `{"n":7}`, "bad": `{"n":"secret"}`, "cut": `{"n":`, "huge": `{"n":41111111111111111111}`, "day": `{"day":"secret"}`, "set": nil, "hash": map[string]string{"n": "8"},
			"misfit": map[string]string{"name": "x", "n": "secret"}})
		all := []string{"row", "set", "none", "bad", "hash", "cut", "huge", "day", "misfit"}
		rows, err := lookup(t, &redislookup.Strings[row]{Server: s.Server, Prefix: prefix}, all...)
		require.Equal(t, map[string]row{"row": {N: 7}}, rows)
		require.Equal(t, map[string]string{
			"set":    "WRONGTYPE: it holds a set, in place of a string",
			"hash":   "WRONGTYPE: it holds a hash, in place of a string",
			"misfit": "WRONGTYPE: it holds a hash, in place of a string",
			"bad":    "the value is not the JSON of a redislookup_test.row: json: cannot unmarshal string into Go struct field row.n of type int",
			"cut":    "the value is not the JSON of a redislookup_test.row: unexpected end of JSON input",
			"huge":   "the value is not the JSON of a redislookup_test.row: json: cannot unmarshal number into Go struct field row.n of type int",
			"day":    "the value is not the JSON of a redislookup_test.row: *time.ParseError",
		}, keyErrors(err, all))

		const wrong = "WRONGTYPE Operation against a key holding the wrong kind of value"
		rows, err = lookup(t, &redislookup.Hashes[row]{Server: s.Server, Prefix: prefix}, all...)
		require.Equal(t, map[string]row{"hash": {N: 8}}, rows)
		require.Equal(t, map[string]string{
			"row": wrong, "set": wrong, "bad": wrong, "cut": wrong, "huge": wrong, "day": wrong, "misfit": `the field "n" of the hash does not fit redislookup_test.row`,
		}, keyErrors(err, all))

		// Each is permanent, also where nothing else was answered.
		for name, h := range map[string]*batchasynctest.Harness{
			"strings": harness(t, &watched{Strings: redislookup.Strings[row]{Server: s.Server, Prefix: prefix}}),
			"hashes":  harness(t, &watchedHashes{Hashes: redislookup.Hashes[row]{Server: s.Server, Prefix: prefix}}),
		} {
			out, err := h.Bundle(batchasynctest.Values("set", "cut", "misfit")...)
			require.NoError(t, err)
			require.Len(t, out.Failures(), 3, name)
			for _, e := range out.Failures() {
				f := e.Value.(batchasync.Failure[string])
				require.Equal(t, 1, f.Attempts)
				require.True(t, f.Permanent)
				require.Contains(t, f.Error, fmt.Sprintf("key %q: ", f.Element))
			}
		}
	})
}

func harness[S enrich.Source[string, row]](t *testing.T, source S, opts ...batchasync.Option) *batchasynctest.Harness {
	return batchasynctest.NewHarness(t, batchasync.New(enrich.New(source, named{}, enrich.KeepMissing), opts...))
}

func TestHashesAreLookedUpAsAWholeOrByFields(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		s.set(t, map[string]any{"tea": map[string]string{"n": "7", "name": "tea", "more": "x"}, "rice": map[string]string{"name": "rice"}, "other": map[string]string{"more": "y"}})
		all := []string{"tea", "rice", "other", "missing"}
		rows, err := lookup(t, &redislookup.Hashes[row]{Server: s.Server, Prefix: prefix}, all...)
		require.NoError(t, err)
		require.Equal(t, map[string]row{"tea": {N: 7, Name: "tea"}, "rice": {Name: "rice"}, "other": {}}, rows)
		rows, err = lookup(t, &redislookup.Hashes[row]{Server: s.Server, Prefix: prefix, Fields: []string{"n", "name"}}, all...)
		require.NoError(t, err)
		require.Equal(t, map[string]row{"tea": {N: 7, Name: "tea"}, "rice": {Name: "rice"}}, rows)
		maps, err := lookup(t, &redislookup.Hashes[map[string]string]{Server: s.Server, Prefix: prefix}, all...)
		require.NoError(t, err)
		require.Equal(t, map[string]map[string]string{"tea": {"n": "7", "name": "tea", "more": "x"}, "rice": {"name": "rice"}, "other": {"more": "y"}}, maps)
		maps, err = lookup(t, &redislookup.Hashes[map[string]string]{Server: s.Server, Prefix: prefix, Fields: []string{"n", "name"}}, all...)
		require.NoError(t, err)
		require.Equal(t, map[string]map[string]string{"tea": {"n": "7", "name": "tea"}, "rice": {"name": "rice"}}, maps)
	})
}

func TestADatabaseIsNamedByItsNumber(t *testing.T) {
	onEachStore(t, func(t *testing.T, s *store) {
		s.set(t, map[string]any{"here": "0"})
		for _, other := range []redislookup.Server{{Address: "redis://" + s.Address + "/3"}, {Address: s.Address, DB: 3}, {Address: "redis://" + s.Address, DB: 3}} {
			got, err := lookup(t, &redislookup.Strings[string]{Server: other, Prefix: prefix}, "here")
			require.NoError(t, err)
			require.Empty(t, got)
		}
	})
}

// What Redis says is judged by its beginning: each of these is an answer to every
// command. miniredis gives them as they are; on the real server, faults do.
func TestWhatIsTransientIsAskedForAgain(t *testing.T) {
	for said, attempts := range map[string]int{
		"LOADING Redis is loading the dataset in memory":                    3,
		"READONLY You can't write against a read only replica.":             3,
		"MASTERDOWN Link with MASTER is down":                               3,
		"CLUSTERDOWN The cluster is down":                                   3,
		"TRYAGAIN Multiple keys request during rehashing of slot":           3,
		"OOM command not allowed when used memory > 'maxmemory'.":           3,
		"BUSY Redis is busy running a script.":                              3,
		"ERR max number of clients reached":                                 3,
		"ERR max number of clients + cluster connections reached":           3,
		"NOAUTH Authentication required.":                                   1,
		"WRONGPASS invalid username-password pair or user is disabled.":     1,
		"NOPERM this user has no permissions to run the 'mget' command":     1,
		"ERR unknown command 'MGET'":                                        1,
		"MOVED 3999 127.0.0.1:6381":                                         1,
		"CROSSSLOT Keys in request don't hash to the same slot":             1,
		"ERR Protocol error: invalid bulk length, or whatever else is odd.": 1,
	} {
		t.Run(said, func(t *testing.T) {
			s := newMini(t)
			s.mini.SetError(said)
			for name, h := range map[string]*batchasynctest.Harness{
				"strings": harness(t, &watched{Strings: redislookup.Strings[row]{Server: s.Server}}, batchasync.MaxAttempts(3), batchasync.RetryInterval(1)),
				"hashes":  harness(t, &watchedHashes{Hashes: redislookup.Hashes[row]{Server: s.Server}}, batchasync.MaxAttempts(3), batchasync.RetryInterval(1)),
			} {
				out, err := h.Bundle(keys(5)...)
				require.NoError(t, err)
				require.Len(t, out.Failures(), 5, name)
				for _, e := range out.Failures() {
					f := e.Value.(batchasync.Failure[string])
					require.Contains(t, f.Error, said)
					require.Equal(t, attempts == 1, f.Permanent, name)
					require.Equal(t, attempts, f.Attempts, name)
					require.Equal(t, strings.HasPrefix(said, "MOVED") || strings.HasPrefix(said, "CROSSSLOT"), strings.Contains(f.Error, "set Cluster"))
				}
			}
		})
	}
}

// The client follows so many redirections, while a cluster is changed; then a later
// attempt will find the node.
func TestARedirectionThatAClustersClientGivesUpIsTriedAgain(t *testing.T) {
	s := newMini(t)
	s.mini.SetError("MOVED 3999 " + s.Address)
	s.Server.Cluster = true
	out, err := harness(t, &watched{Strings: redislookup.Strings[row]{Server: s.Server}}, batchasync.MaxAttempts(3), batchasync.RetryInterval(1)).Bundle(keys(5)...)
	require.NoError(t, err)
	require.Len(t, out.Failures(), 5)
	f := out.Failures()[0].Value.(batchasync.Failure[string])
	require.Contains(t, f.Error, "MOVED")
	require.NotContains(t, f.Error, "set Cluster")
	require.False(t, f.Permanent)
	require.Equal(t, 3, f.Attempts)
}

func TestMissingKeysCostOneMoreCommand(t *testing.T) {
	s := newReal(t)
	_, err := lookup(t, &redislookup.Strings[string]{Server: s.Server, Prefix: prefix}, "a", "b", "c")
	require.NoError(t, err)
	stats, err := s.client.Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	require.Contains(t, stats, "cmdstat_exists:calls=1,")
	require.NotContains(t, stats, "cmdstat_type:")
}

func TestAServerThatIsNotThereIsAskedAgain(t *testing.T) {
	s := newMini(t)
	s.fill(t, 10, false)
	s.mini.Close()
	attempts := 0
	watch(t, func() {
		if attempts++; attempts == 3 {
			require.NoError(t, s.mini.Restart())
		}
	}, func(err error) { require.Equal(t, attempts < 3, err != nil, "%v", err) })
	h := harness(t, &watched{Strings: redislookup.Strings[row]{Server: s.Server, Prefix: prefix}, Test: t.Name()}, batchasync.RetryInterval(1))
	out, err := h.Bundle(keys(10)...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, keys(10), out, filled)
	require.Empty(t, out.Failures())
}

func TestACallEndsWithItsContext(t *testing.T) {
	s := newMini(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	source := &redislookup.Strings[string]{Server: s.Server}
	require.NoError(t, source.Setup(ctx))
	_, err := source.Lookup(ctx, []string{"a"})
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, errors.As(err, new(redis.Error)))
	require.NoError(t, source.Teardown(ctx))
}

// dialed is a server that treats its connections as serve does, and counts them.
func dialed(t *testing.T, serve func(net.Conn)) (redislookup.Server, *atomic.Int64) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	count, done := new(atomic.Int64), make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			serve(conn)
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		<-done
	})
	return redislookup.Server{Address: listener.Addr().String()}, count
}

// silent is a server's side of connections on which it says nothing.
type silent struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (s *silent) serve(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, conn)
}

func (s *silent) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
}

func TestACallIsOneAttempt(t *testing.T) {
	server, dials := dialed(t, func(conn net.Conn) { _ = conn.Close() })
	_, err := lookup(t, &redislookup.Strings[string]{Server: server}, "a")
	require.Error(t, err)
	require.Equal(t, int64(1), dials.Load(), "retries are batchasync's")
}

func TestACallToAServerThatIsSilentEndsWithItsContext(t *testing.T) {
	var conns silent
	defer conns.close()
	server, _ := dialed(t, conns.serve)
	source := &redislookup.Strings[string]{Server: server}
	require.NoError(t, source.Setup(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := source.Lookup(ctx, []string{"a"})
	require.Error(t, err)
	require.Less(t, time.Since(start), 30*time.Second, "and not with the client's own minute")
	require.NoError(t, source.Teardown(context.Background()))
}

func TestEachCallHasAConnectionUpToTheMost(t *testing.T) {
	for most, want := range map[int]int64{0: 64, 3: 3} {
		for name, source := range map[string]func(redislookup.Server) looker[map[string]string]{
			"strings": func(s redislookup.Server) looker[map[string]string] {
				return &redislookup.Strings[map[string]string]{Server: s}
			},
			"hashes": func(s redislookup.Server) looker[map[string]string] {
				return &redislookup.Hashes[map[string]string]{Server: s}
			},
		} {
			t.Run(fmt.Sprint(name, " ", most), func(t *testing.T) {
				var conns silent
				server, dials := dialed(t, conns.serve)
				server.Connections = most
				source := source(server)
				require.NoError(t, source.Setup(t.Context()))
				ctx, cancel := context.WithCancel(t.Context())
				var calls sync.WaitGroup
				for range 64 {
					calls.Go(func() {
						_, err := source.Lookup(ctx, []string{"a"})
						if err == nil {
							t.Error("nobody has answered")
						}
					})
				}
				require.Eventually(t, func() bool { return dials.Load() >= want }, time.Minute, time.Millisecond)
				require.Equal(t, want, dials.Load())
				cancel() // for those that wait for a connection
				conns.close()
				calls.Wait()
				require.NoError(t, source.Teardown(context.Background()))
			})
		}
	}
}
