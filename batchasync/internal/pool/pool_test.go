// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newID is a transform's id that no other test, nor another run of it, has.
func newID() string { return uuid.NewString() }

// newPool is a pool of the test alone, with a caller that needs no set-up.
func newPool(limit int) *Pool { return For(newID(), Limits{InFlight: limit}, newPlain) }

func newPlain() *Shared { return NewShared(nil, nil, nil, time.Minute) }

// A gauge counts what runs at once.
type gauge struct {
	mu        sync.Mutex
	now, most int
	ended     int
}

func (g *gauge) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now++
	g.most = max(g.most, g.now)
}

func (g *gauge) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now--
	g.ended++
}

// A journal is what happened, in that order.
type journal struct {
	mu      sync.Mutex
	entries []string
}

func (j *journal) note(entry string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, entry)
}

func (j *journal) read() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.entries)
}

// task is a function that is a Task, and gives its permit back at its end.
type task func(*Permit)

func (t task) Run(permit *Permit) {
	defer permit.Return()
	t(permit)
}

func start(p *Pool, f func(*Permit)) { p.Go(task(f)) }

// takeABreak is what comes between two calls of a task.
func takeABreak(permit *Permit, ctx context.Context, d time.Duration) error {
	if err := permit.Pause(ctx, d); err != nil {
		return err
	}
	return permit.Resume(ctx)
}

// usable counts the permits that can be had at once, which must be all of them
// when nobody holds one. It is for use in a bubble.
func usable(p *Pool) int {
	var running atomic.Int64
	release := make(chan struct{})
	for range p.limit.(*static).limit + 1 {
		start(p, func(*Permit) {
			running.Add(1)
			<-release
		})
	}
	synctest.Wait()
	n := int(running.Load())
	close(release)
	synctest.Wait()
	return n
}

func TestNoMoreCallsRunAtOnceThanPermitted(t *testing.T) {
	for name, limit := range map[string]int{"one": 1, "three": 3, "sixteen": 16} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const calls = 100
				p := newPool(limit)
				var g gauge
				started := time.Now()
				for range calls {
					go start(p, func(*Permit) {
						g.begin()
						time.Sleep(time.Second)
						g.end()
					})
				}
				rounds := (calls + limit - 1) / limit
				time.Sleep(time.Duration(rounds) * time.Second)
				synctest.Wait()
				require.Equal(t, calls, g.ended, "no permit was left unused")
				require.Equal(t, limit, g.most)
				require.Equal(t, time.Duration(rounds)*time.Second, time.Since(started))
				require.Equal(t, limit, usable(p))
			})
		})
	}
}

func TestCallsStartInTheOrderInWhichTheyCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(1)
		var order, want []int
		for n := range 50 {
			want = append(want, n)
			start(p, func(*Permit) {
				order = append(order, n) // one at a time, so that no lock is needed
				time.Sleep(time.Millisecond)
			})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, want, order)
	})
}

func TestGoDoesNotBlockThoughNoPermitIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(1)
		release := make(chan struct{})
		ran := false
		start(p, func(*Permit) { <-release })
		start(p, func(*Permit) { ran = true })
		synctest.Wait()
		require.False(t, ran)
		close(release)
		synctest.Wait()
		require.True(t, ran)
	})
}

func TestPauseLendsThePermitToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(1)
		var j journal
		start(p, func(permit *Permit) {
			j.note("a calls")
			require.NoError(t, takeABreak(permit, t.Context(), 10*time.Second))
			j.note("a calls again")
			time.Sleep(time.Second)
			j.note("a ends")
		})
		start(p, func(*Permit) {
			j.note("b calls")
			time.Sleep(11 * time.Second)
			j.note("b ends")
		})
		start(p, func(*Permit) { j.note("c calls") })
		time.Sleep(time.Minute)
		synctest.Wait()
		// a's wait was over after 10 seconds, but b had the permit for 11.
		require.Equal(t, []string{"a calls", "b calls", "b ends", "a calls again", "a ends", "c calls"}, j.read())
		require.Equal(t, 1, usable(p))
	})
}

func TestPauseTakesItsTime(t *testing.T) {
	for name, d := range map[string]time.Duration{"none": 0, "a second": time.Second, "a negative time is none": -time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPool(1)
				start(p, func(permit *Permit) {
					started := time.Now()
					require.NoError(t, takeABreak(permit, t.Context(), d))
					require.Equal(t, max(d, 0), time.Since(started))
				})
				synctest.Wait()
				time.Sleep(time.Second)
				synctest.Wait()
				require.Equal(t, 1, usable(p))
			})
		})
	}
}

func TestThePausedAreResumedInTheirOrderAndBeforeThoseWhoHaveYetToStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(1)
		var j journal
		for name, pause := range map[string]time.Duration{"second": 2 * time.Second, "first": time.Second, "third": 3 * time.Second} {
			start(p, func(permit *Permit) {
				require.NoError(t, takeABreak(permit, t.Context(), pause))
				j.note(name)
				time.Sleep(time.Second)
			})
		}
		synctest.Wait()
		start(p, func(*Permit) { time.Sleep(10 * time.Second) })
		for range 3 {
			start(p, func(*Permit) { j.note("new") })
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{"first", "second", "third", "new", "new", "new"}, j.read())
		require.Equal(t, 1, usable(p))
	})
}

func TestAPauseThatIsCutOffTellsTheCauseAndHoldsNoPermit(t *testing.T) {
	dropped := errors.New("the bundle was dropped")
	for name, test := range map[string]struct {
		cancel time.Duration // when ctx ends; negative: before the pause
		busy   time.Duration // how long another call holds the only permit
		took   time.Duration
	}{
		"before it begins":                   {cancel: -1, took: 0},
		"while it waits for its time":        {cancel: 2 * time.Second, took: 2 * time.Second},
		"while it waits for its permit":      {cancel: 7 * time.Second, busy: 10 * time.Second, took: 7 * time.Second},
		"while it waits, with others behind": {cancel: 7 * time.Second, busy: 20 * time.Second, took: 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPool(1)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if test.cancel < 0 {
					cancel(dropped)
				} else {
					time.AfterFunc(test.cancel, func() { cancel(dropped) })
				}
				var g gauge
				ended := false
				start(p, func(permit *Permit) {
					started := time.Now()
					require.Equal(t, dropped, takeABreak(permit, ctx, 5*time.Second))
					require.Equal(t, test.took, time.Since(started))
					require.False(t, permit.held)
					// What it does now is no call: it may take its time.
					time.Sleep(time.Minute)
					ended = true
				})
				synctest.Wait()
				for range 3 {
					start(p, func(*Permit) {
						g.begin()
						time.Sleep(test.busy)
						g.end()
					})
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				require.True(t, ended)
				require.Equal(t, 3, g.ended)
				require.Equal(t, 1, g.most)
				require.Equal(t, 1, usable(p))
			})
		})
	}
}

// In one instant a call gives its permit to a paused one, and the paused one's
// context ends. Whoever wins, the permit must not be lost, nor be there twice.
func TestAPauseThatIsCutOffAsItIsGrantedLosesNoPermit(t *testing.T) {
	for name, first := range map[string]func(cancel, release func()){
		"the cut first":   func(cancel, release func()) { cancel(); release() },
		"the grant first": func(cancel, release func()) { release(); cancel() },
		"at once":         func(cancel, release func()) { go cancel(); release() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPool(1)
				for range 300 {
					ctx, cancel := context.WithCancel(t.Context())
					release := make(chan struct{})
					var g gauge
					start(p, func(permit *Permit) {
						if takeABreak(permit, ctx, time.Second) == nil {
							g.begin()
							time.Sleep(time.Second)
							g.end()
						}
					})
					synctest.Wait()
					start(p, func(*Permit) {
						g.begin()
						<-release
						g.end()
					})
					time.Sleep(2 * time.Second) // the first waits for the permit now
					synctest.Wait()
					start(p, func(*Permit) {
						g.begin()
						time.Sleep(time.Second)
						g.end()
					})
					first(cancel, func() { close(release) })
					time.Sleep(10 * time.Second)
					synctest.Wait()
					require.Equal(t, 1, g.most)
					require.GreaterOrEqual(t, g.ended, 2)
					require.Equal(t, 1, usable(p))
				}
			})
		})
	}
}

// A job is a batch of the property test below: it comes after a while, and
// calls and pauses in turn, until its context ends.
type job struct {
	gap    time.Duration
	steps  []time.Duration // call, pause, call, pause, …
	cancel time.Duration   // since it came; 0: never
}

func TestWhateverTheJobsDoThePermitsAreKept(t *testing.T) {
	seconds := func(from, to int) *rapid.Generator[time.Duration] {
		return rapid.Map(rapid.IntRange(from, to), func(n int) time.Duration { return time.Duration(n) * time.Second })
	}
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 4).Draw(rt, "limit")
		jobs := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) job {
			return job{
				gap:    seconds(0, 3).Draw(rt, "gap"),
				steps:  rapid.SliceOfN(seconds(0, 5), 0, 6).Draw(rt, "steps"),
				cancel: seconds(0, 20).Draw(rt, "cancel"),
			}
		}), 0, 20).Draw(rt, "jobs")

		// The bubble observes only: if it failed, rapid could not shrink.
		var g, all gauge
		left := 0
		synctest.Test(t, func(t *testing.T) {
			p := newPool(limit)
			for _, j := range jobs {
				time.Sleep(j.gap)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if j.cancel > 0 {
					time.AfterFunc(j.cancel, cancel)
				}
				start(p, func(permit *Permit) {
					all.begin()
					defer all.end()
					for i, d := range j.steps {
						if i%2 == 1 {
							if takeABreak(permit, ctx, d) != nil {
								return
							}
							continue
						}
						g.begin()
						time.Sleep(d)
						g.end()
					}
				})
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			left = usable(p)
		})
		require.LessOrEqual(rt, g.most, limit)
		require.Equal(rt, len(jobs), all.ended, "each job has run and ended")
		require.Equal(rt, limit, left, "permits that are there in the end")
	})
}

func TestATransformHasOnePoolInTheProcess(t *testing.T) {
	id := newID()
	var made atomic.Int64
	newShared := func() *Shared {
		made.Add(1)
		return newPlain()
	}
	pools := make([]*Pool, 100)
	var wg sync.WaitGroup
	for i := range pools {
		wg.Go(func() { pools[i] = For(id, Limits{InFlight: 3}, newShared) })
	}
	wg.Wait()
	for _, p := range pools {
		require.Same(t, pools[0], p)
	}
	require.EqualValues(t, 1, made.Load(), "the first user makes what is shared")
	require.Equal(t, &static{limit: 3}, pools[0].limit)

	other := For(newID(), Limits{InFlight: 5}, newShared)
	require.NotSame(t, pools[0], other)
	require.NotSame(t, pools[0].Shared, other.Shared)
	require.Equal(t, &static{limit: 5}, other.limit)
	require.EqualValues(t, 2, made.Load())
	require.Same(t, pools[0], For(id, Limits{InFlight: 9}, newShared), "what the first user asked for holds")
	require.Equal(t, &static{limit: 3}, pools[0].limit)
}

// registered reports whether a transform's pool is in the registry.
func registered(id string) bool {
	poolsMu.Lock()
	defer poolsMu.Unlock()
	_, ok := pools[id]
	return ok
}

// collected reports whether the registry forgets a pool when the collector
// runs. Clean-ups run a little after it, on a goroutine of the runtime.
func collected(id string) bool {
	for range 1000 {
		runtime.GC()
		if !registered(id) {
			return true
		}
		runtime.Gosched()
	}
	return false
}

func TestAPoolIsForgottenWhenItsUsersAreGone(t *testing.T) {
	id := newID()
	func() {
		p := For(id, Limits{InFlight: 1}, newPlain)
		for range 3 {
			runtime.GC()
			require.Same(t, p, For(id, Limits{InFlight: 2}, newPlain), "as long as it is used")
		}
		runtime.KeepAlive(p)
	}()
	require.True(t, collected(id))
	require.Equal(t, 2, For(id, Limits{InFlight: 2}, newPlain).limit.(*static).limit, "its next user makes another")
}

func TestAPoolThatIsMadeAnewIsNotForgottenWithTheOldOne(t *testing.T) {
	id := newID()
	p := For(id, Limits{InFlight: 1}, newPlain)
	forget(id) // the clean-up of an old pool that comes late
	require.True(t, registered(id))
	require.Same(t, p, For(id, Limits{InFlight: 1}, newPlain))
}

func TestAPoolIsKeptForTheCallerThatIsStillUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id := newID()
		var teardowns atomic.Int64
		newShared := func() *Shared {
			return NewShared(nil, nil, func(context.Context) error { teardowns.Add(1); return nil }, time.Minute)
		}
		func() {
			p := For(id, Limits{InFlight: 1}, newShared)
			require.NoError(t, p.Shared.Use(t.Context(), t.Context()))
			p.Shared.Done()
		}()
		for range 3 {
			runtime.GC()
		}
		poolsMu.Lock()
		kept := pools[id].Value() != nil
		poolsMu.Unlock()
		require.True(t, kept, "or the next bundle would set up a second caller")
		require.Zero(t, teardowns.Load())
		time.Sleep(time.Minute)
		synctest.Wait()
		require.EqualValues(t, 1, teardowns.Load())
		require.True(t, collected(id))
	})
}
