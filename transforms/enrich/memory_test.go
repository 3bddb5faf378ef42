// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package enrich_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/enrich"
)

func TestWhatIsKeptIsNotAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &script{}
		h := newHarness(t, source, enrich.KeepMissing, batchasync.Cache(100, time.Minute), batchasync.BatchSize(3))
		run(t, h, "A-B", "x")
		out := run(t, h, "A", "B-A", "x-A", "B-C", "C-y", "x", "", "A-A")
		require.Equal(t, [][]string{{"A", "B", "x"}, {"C", "y"}}, source.lookups, "nor is what isn't there")
		require.EqualValues(t, 1, out.Counter(batchasync.MetricsNamespace, "batches"), "what is kept takes no place in a batch")
		require.EqualValues(t, 6, out.Counter(batchasync.MetricsNamespace, "cache_hits"))
		require.EqualValues(t, 1+2+2+1+0+2+1, out.Counter(enrich.MetricsNamespace, "keys_kept"))
		require.EqualValues(t, 3, out.Counter(enrich.MetricsNamespace, "missing"))

		time.Sleep(time.Minute)
		run(t, h, "A-x")
		require.Equal(t, []string{"A", "x"}, source.lookups[2])
	})
}

func TestAnElementIsDroppedOrFailedByWhatIsKept(t *testing.T) {
	for missing, want := range map[enrich.Missing]int{enrich.DropMissing: 0, enrich.DeadLetterMissing: 1} {
		source := &script{}
		h := newHarness(t, source, missing, batchasync.Cache(100, time.Minute))
		for range 2 {
			out, err := h.Bundle(batchasynctest.Values("A", "x")...)
			require.NoError(t, err)
			require.Len(t, out.Failures(), want)
			require.EqualValues(t, 1, out.Counter(enrich.MetricsNamespace, "missing"))
			require.EqualValues(t, 1-want, out.Counter(enrich.MetricsNamespace, "dropped"))
		}
		require.Len(t, source.lookups, 1)
	}
}

// An answer is never older than the time to live, however long its call took.
func TestTheTimeToLiveCountsFromTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &script{lookup: func(_ context.Context, keys []string) (map[string]place, error) {
			time.Sleep(20 * time.Second)
			return rows(keys), nil
		}}
		h := newHarness(t, source, enrich.KeepMissing, batchasync.Cache(100, time.Minute))
		run(t, h, "A")
		time.Sleep(39 * time.Second)
		run(t, h, "A")
		require.Len(t, source.lookups, 1)
		time.Sleep(time.Second)
		run(t, h, "A")
		require.Len(t, source.lookups, 2)
	})
}

// measured is a source that says what its values weigh, and which may be kept.
type measured struct{ script }

func (*measured) ValueSize(p place) int { return 100 * len(p.Name) / len("town A") }

func (*measured) Cacheable(p place, found bool) bool {
	if p.Name == "town P" {
		panic("P")
	}
	return found && p.Name != "town Q"
}

func TestTheSourceSaysWhatIsKept(t *testing.T) {
	source := &measured{}
	h := batchasynctest.NewHarness(t, batchasync.New(enrich.New(source, route{}, enrich.KeepMissing), batchasync.Cache(100, time.Minute)))
	run(t, h, "A", "P", "Q", "x")
	run(t, h, "A", "P", "Q", "x")
	require.Equal(t, [][]string{{"A", "P", "Q", "x"}, {"P", "Q", "x"}}, source.lookups)
}

func TestTheCacheIsBounded(t *testing.T) {
	letters := strings.Split("ABCDEFGHIJKLMNORSTUVWXYZ", "")
	for name, test := range map[string]struct {
		opts []batchasync.Option
		most int // entries
	}{
		"in entries":                    {[]batchasync.Option{batchasync.Cache(10, time.Hour)}, 10},
		"in bytes":                      {[]batchasync.Option{batchasync.Cache(1000, time.Hour), batchasync.CacheBytes(1010)}, 10},
		"in entries, with room for all": {[]batchasync.Option{batchasync.Cache(10, time.Hour), batchasync.CacheBytes(1_000_000)}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			source := &measured{}
			h := batchasynctest.NewHarness(t, batchasync.New(enrich.New(source, route{}, enrich.KeepMissing), test.opts...))
			run(t, h, letters...)
			run(t, h, strings.Join(letters, "-"))
			require.Eventually(t, func() bool { // otter evicts in the background
				before := len(source.lookups)
				run(t, h, letters...)
				kept := len(letters) - len(slices.Concat(source.lookups[before:]...))
				return kept > 0 && kept <= test.most
			}, 10*time.Second, time.Millisecond)
		})
	}
}

// two are two bundles' instances of one transform in one worker.
func two(t *testing.T, source *script, opts ...batchasync.Option) (a, b *batchasynctest.Harness) {
	a = newHarness(t, source, enrich.KeepMissing, append([]batchasync.Option{batchasync.MaxInFlight(8)}, opts...)...)
	_, err := a.Bundle()
	require.NoError(t, err)
	return a, a.Clone(t)
}

func TestAKeyThatAnotherBatchAsksForIsNotAskedForAgain(t *testing.T) {
	for _, opt := range []batchasync.Option{batchasync.Dedup(), batchasync.Cache(100, time.Minute)} {
		synctest.Test(t, func(t *testing.T) {
			source := &script{lookup: func(_ context.Context, keys []string) (map[string]place, error) {
				time.Sleep(time.Second)
				return rows(keys), nil
			}}
			a, b := two(t, source, opt)
			var running sync.WaitGroup
			running.Go(func() { run(t, a, "A-B", "C", "x") })
			running.Go(func() {
				time.Sleep(500 * time.Millisecond)
				start := time.Now()
				out := run(t, b, "B-D", "A", "x-x")
				require.Equal(t, time.Second, time.Since(start), "it waits for its own call, and no longer for another's")
				require.EqualValues(t, 3, out.Counter(enrich.MetricsNamespace, "keys_shared"))
			})
			running.Wait()
			require.Equal(t, [][]string{{"A", "B", "C", "x"}, {"D"}}, source.lookups)
		})
	}
}

func TestAKeyIsAskedForAgainIfTheOtherBatchGetsNoAnswer(t *testing.T) {
	for name, first := range map[string]func(keys []string) (map[string]place, error){
		"the call fails":  func([]string) (map[string]place, error) { return nil, errors.New("wrong") },
		"the call panics": func([]string) (map[string]place, error) { panic("wrong") },
		"the key fails": func(keys []string) (map[string]place, error) {
			var failed batchasync.BatchError
			failed.Fail(slices.Index(keys, "A"), errors.New("wrong"))
			return rows(keys), failed.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				source := &script{}
				source.lookup = func(_ context.Context, keys []string) (map[string]place, error) {
					mine := calls.Add(1)
					time.Sleep(time.Second)
					if mine == 1 {
						return first(keys)
					}
					return rows(keys), nil
				}
				a, b := two(t, source, batchasync.Dedup())
				var running sync.WaitGroup
				running.Go(func() { require.Contains(t, failures(run(t, a, "A", "B"))["A"], "wrong") })
				running.Go(func() {
					time.Sleep(time.Millisecond)
					require.Empty(t, run(t, b, "A-A").Failures())
				})
				running.Wait()
				require.Equal(t, [][]string{{"A", "B"}, {"A"}}, source.lookups)
			})
		})
	}
}

// A call that ignores its context keeps nobody else from the keys, nor its own
// retry; what it comes back with is not kept, and takes no key from who asks for it
// by then.
func TestACallThatHangsHoldsNoKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		source := &script{}
		source.lookup = func(_ context.Context, keys []string) (map[string]place, error) {
			switch calls.Add(1) {
			case 1:
				time.Sleep(time.Hour)
				return map[string]place{"A": {"of old"}}, nil
			case 3:
				time.Sleep(20 * time.Second)
			}
			return rows(keys), nil
		}
		a, b := two(t, source, batchasync.Cache(100, 30*time.Minute), batchasync.Timeout(time.Minute), batchasync.RetryInterval(time.Second))
		began := time.Now()
		var running sync.WaitGroup
		ask := func(h *batchasynctest.Harness, after, took time.Duration) {
			running.Go(func() {
				time.Sleep(after)
				start := time.Now()
				require.Empty(t, run(t, h, "A").Failures())
				require.Equal(t, took, time.Since(start))
			})
		}
		ask(a, 0, 61*time.Second)
		ask(b, 30*time.Second, 30*time.Second) // it asks when the call is over for which it waited
		running.Wait()
		require.Len(t, source.lookups, 2, "the second is for both")

		ask(a, time.Until(began.Add(time.Hour-10*time.Second)), 20*time.Second)
		ask(b, time.Until(began.Add(time.Hour+5*time.Second)), 5*time.Second) // the first has come back
		running.Wait()
		require.Len(t, source.lookups, 3, "the third is for both")
	})
}

// A hedge asks for the keys that the call asks for beside which it is made: it
// would be of no use otherwise.
func TestAHedgeAsksForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		source := &script{}
		source.lookup = func(ctx context.Context, keys []string) (map[string]place, error) {
			if calls.Add(1) == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return rows(keys), nil
		}
		h := newHarness(t, source, enrich.KeepMissing, batchasync.Cache(100, time.Minute), batchasync.Hedge(time.Second))
		start := time.Now()
		out := run(t, h, "A", "B")
		require.Equal(t, time.Second, time.Since(start))
		require.EqualValues(t, 1, out.Counter(batchasync.MetricsNamespace, "hedges"))
		require.Equal(t, [][]string{{"A", "B"}, {"A", "B"}}, source.lookups)
	})
}

func TestAWaitForAnotherBatchEndsWithItsOwnTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &script{lookup: func(ctx context.Context, keys []string) (map[string]place, error) {
			time.Sleep(10 * time.Second)
			return rows(keys), nil
		}}
		a, b := two(t, source, batchasync.Dedup())
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		b.WithContext(ctx)
		var running sync.WaitGroup
		running.Go(func() { run(t, a, "A") })
		running.Go(func() {
			time.Sleep(time.Millisecond)
			start := time.Now()
			_, err := b.Bundle(batchasynctest.Values("A")...)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Less(t, time.Since(start), time.Second)
		})
		running.Wait()
	})
}

// Many bundles at once, with keys in common and a source that fails now and then:
// each element ends once, with its own answer, and no Lookup has a key twice.
func TestBundlesWithKeysInCommon(t *testing.T) {
	for name, opts := range map[string][]batchasync.Option{
		"alone":          nil,
		"dedup":          {batchasync.Dedup()},
		"cache":          {batchasync.Cache(10, 50*time.Millisecond)},
		"across bundles": {batchasync.Cache(10, 50*time.Millisecond), batchasync.AcrossBundles(), batchasync.Ordered()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				n := 0
				source := &script{}
				source.lookup = func(ctx context.Context, keys []string) (map[string]place, error) {
					mu.Lock()
					n++
					mine := n
					mu.Unlock()
					if distinct := slices.Compact(slices.Sorted(slices.Values(keys))); len(distinct) != len(keys) {
						return nil, batchasync.Permanent(fmt.Errorf("keys twice: %q", keys))
					}
					time.Sleep(time.Duration(mine%7) * 5 * time.Millisecond)
					switch {
					case mine%5 == 0:
						return nil, errors.New("connection lost")
					case mine%3 == 0:
						var failed batchasync.BatchError
						failed.Fail(mine%len(keys), errors.New("row is locked"))
						return rows(keys), failed.Err()
					}
					return rows(keys), nil
				}
				opts := append([]batchasync.Option{batchasync.BatchSize(4), batchasync.MaxInFlight(4), batchasync.Linger(time.Millisecond),
					batchasync.Backoff(time.Millisecond, 8*time.Millisecond), batchasync.MaxAttempts(100)}, opts...)
				first := newHarness(t, source, enrich.KeepMissing, opts...)
				var running sync.WaitGroup
				for b := range 8 {
					h := first.Clone(t)
					if b == 0 {
						h = first
						_, err := h.Bundle() // the one whose source is used
						require.NoError(t, err)
					}
					running.Go(func() {
						for round := range 5 {
							var elements []string
							for i := range 23 {
								k := (b*i + round*7 + i) % 40
								elements = append(elements, fmt.Sprintf("%c-%c", 'A'+k, 'A'+k*k%40))
							}
							require.Empty(t, run(t, h, elements...).Failures())
						}
					})
				}
				running.Wait()
			})
		})
	}
}
