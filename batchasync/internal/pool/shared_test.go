// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/batchasync/beam-batchasync/batchasync/internal/guard"
)

const idle = 10 * time.Minute

var errUnreachable = errors.New("the database can't be reached")

// A caller is a Shared whose set-ups and tear-downs are recorded, and scripted.
type caller struct {
	*Shared
	began time.Time
	takes time.Duration // each set-up and tear-down

	mu                sync.Mutex
	setup, teardown   func(n int) error // n counts from 1; nil: they succeed
	setups, teardowns int
	up                bool
	wrong             string // what must not happen, and has
	downAt            time.Duration
}

func newCaller() *caller {
	c := &caller{began: time.Now()}
	c.Shared = NewShared(c, c.setUp, c.tearDown, idle)
	return c
}

func (c *caller) setUp(context.Context) error {
	c.mu.Lock()
	c.setups++
	n, script := c.setups, c.setup
	if c.up {
		c.wrong = "set up while it was up"
	}
	c.mu.Unlock()
	time.Sleep(c.takes)
	if script != nil {
		if err := script(n); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.up = true
	c.mu.Unlock()
	return nil
}

func (c *caller) tearDown(context.Context) error {
	c.mu.Lock()
	c.teardowns++
	n, script := c.teardowns, c.teardown
	if !c.up {
		c.wrong = "torn down while it was down"
	}
	c.up = false
	c.downAt = time.Since(c.began)
	c.mu.Unlock()
	time.Sleep(c.takes)
	if script != nil {
		return script(n)
	}
	return nil
}

// counts returns the numbers of set-ups and tear-downs that have begun.
func (c *caller) counts() [2]int {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return [2]int{c.setups, c.teardowns}
}

func (c *caller) use(t *testing.T) {
	t.Helper()
	require.NoError(t, c.Use(t.Context(), t.Context()))
}

// sharing runs a test in a bubble. In its end what is still up is left to its
// idle timer, so that no timer is ever forgotten.
func sharing(t *testing.T, test func(t *testing.T, c *caller)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCaller()
		test(t, c)
		time.Sleep(2 * idle)
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		require.Empty(t, c.wrong)
		require.False(t, c.up, "nobody uses it, and it is still up")
	})
}

func TestTheFirstUseSetsUpForAll(t *testing.T) {
	sharing(t, func(t *testing.T, c *caller) {
		c.takes = time.Second
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				started := time.Now()
				c.use(t)
				require.Equal(t, time.Second, time.Since(started))
				require.True(t, c.Value.(*caller).up)
				c.Done()
			})
		}
		wg.Wait()
		c.use(t) // at once, now
		c.Done()
		require.Equal(t, [2]int{1, 0}, c.counts())
		require.Equal(t, time.Second, time.Since(c.began))
	})
}

func TestASharedValueNeedsNeitherSetupNorTeardown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewShared("value", nil, nil, idle)
		s.Join()
		require.NoError(t, s.Use(t.Context(), t.Context()))
		require.Equal(t, "value", s.Value)
		s.Done()
		require.NoError(t, s.Leave())
	})
}

func TestAFailingSetupIsToldToWhoTriedItAndTriedAnewByTheNext(t *testing.T) {
	for name, test := range map[string]struct {
		setup func()
		is    func(t *testing.T, err error)
	}{
		"an error": {
			setup: nil,
			is:    func(t *testing.T, err error) { require.Equal(t, errUnreachable, err) },
		},
		"a panic": {
			setup: func() { panic(errUnreachable) },
			is: func(t *testing.T, err error) {
				var panics *guard.PanicError
				require.ErrorAs(t, err, &panics)
				require.Equal(t, "Setup", panics.In)
				require.ErrorIs(t, err, errUnreachable)
			},
		},
		"a Goexit": {
			setup: runtime.Goexit,
			is: func(t *testing.T, err error) {
				var exits *guard.GoexitError
				require.ErrorAs(t, err, &exits)
				require.Equal(t, "Setup", exits.In)
			},
		},
	} {
		fails := func(n int) error {
			if n > 1 {
				return nil
			}
			if test.setup != nil {
				test.setup()
			}
			return errUnreachable
		}
		t.Run(name+", with no other user", func(t *testing.T) {
			sharing(t, func(t *testing.T, c *caller) {
				c.setup = fails
				test.is(t, c.Use(t.Context(), t.Context()))
				require.Equal(t, [2]int{1, 0}, c.counts(), "it is not tried again for the same user")
				c.use(t)
				c.Done()
				require.Equal(t, [2]int{2, 0}, c.counts(), "what was never up is not torn down")
			})
		})
		t.Run(name+", with others who wait for it", func(t *testing.T) {
			sharing(t, func(t *testing.T, c *caller) {
				c.takes = time.Second
				c.setup = fails
				var wg sync.WaitGroup
				wg.Go(func() { test.is(t, c.Use(t.Context(), t.Context())) })
				synctest.Wait()
				for range 10 {
					wg.Go(func() {
						c.use(t)
						c.Done()
					})
				}
				wg.Wait()
				require.Equal(t, [2]int{2, 0}, c.counts())
				require.Equal(t, 2*time.Second, time.Since(c.began))
			})
		})
	}
}

func TestEachUserTriesASetupThatKeepsFailingOnce(t *testing.T) {
	sharing(t, func(t *testing.T, c *caller) {
		c.takes = time.Second
		c.setup = func(n int) error { return fmt.Errorf("set-up %d", n) }
		seen := map[string]bool{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				err := c.Use(t.Context(), t.Context())
				mu.Lock()
				defer mu.Unlock()
				seen[err.Error()] = true
			})
		}
		wg.Wait()
		require.Equal(t, [2]int{10, 0}, c.counts())
		require.Len(t, seen, 10, "each got the error of his own")
	})
}

func TestUseEndsWithItsContextThoughTheSetupHangs(t *testing.T) {
	dropped := errors.New("the bundle was dropped")
	synctest.Test(t, func(t *testing.T) {
		c := newCaller()
		hang := make(chan struct{})
		c.setup = func(int) error { <-hang; return nil }
		var wg sync.WaitGroup
		for n := range 3 { // the first begins the set-up, the others wait for it
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			after := time.Duration(n+1) * time.Second
			time.AfterFunc(after, func() { cancel(dropped) })
			wg.Go(func() {
				require.Equal(t, dropped, c.Use(ctx, t.Context()))
				require.Equal(t, after, time.Since(c.began))
			})
			synctest.Wait()
		}
		wg.Wait()
		require.Equal(t, [2]int{1, 0}, c.counts(), "it is the same set-up for all")

		// Who has more patience gets what it made in the end.
		wg.Go(func() {
			c.use(t)
			c.Done()
		})
		synctest.Wait()
		close(hang)
		wg.Wait()
		require.Equal(t, [2]int{1, 0}, c.counts())
		time.Sleep(idle)
		require.Equal(t, [2]int{1, 1}, c.counts())
	})
}

func TestASetupThatNobodyWaitsForAnyMoreIsTornDownWhenItIsIdle(t *testing.T) {
	for name, before := range map[string]func(t *testing.T, c *caller){
		"with a member who stays":    func(*testing.T, *caller) {},
		"when its members have left": func(t *testing.T, c *caller) { require.NoError(t, c.Leave()) },
	} {
		t.Run(name, func(t *testing.T) {
			sharing(t, func(t *testing.T, c *caller) {
				c.takes = time.Minute
				c.Join()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.ErrorIs(t, c.Use(ctx, t.Context()), context.DeadlineExceeded)
				before(t, c)
				time.Sleep(time.Minute + idle - time.Second - time.Nanosecond)
				require.Equal(t, [2]int{1, 0}, c.counts())
				time.Sleep(time.Nanosecond)
				require.Equal(t, [2]int{1, 1}, c.counts())
			})
		})
	}
}

func TestSetupGetsAContextThatOutlivesItsUser(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		var got context.Context
		s := NewShared(nil, func(ctx context.Context) error { got = ctx; return nil }, nil, idle)
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "bundle"))
		require.NoError(t, s.Use(ctx, context.WithValue(t.Context(), key{}, "set-up")))
		cancel()
		require.NoError(t, got.Err())
		require.Equal(t, "set-up", got.Value(key{}))
		s.Done()
	})
}

func TestAValueIsTornDownWhenNobodyHasUsedItForAWhile(t *testing.T) {
	for name, test := range map[string]struct {
		uses   []time.Duration // how long after the one before a use comes; it ends at once
		downAt time.Duration
	}{
		"after its only use":                              {uses: []time.Duration{0}, downAt: idle},
		"counted from the last of many":                   {uses: []time.Duration{0, time.Minute, time.Minute}, downAt: 2*time.Minute + idle},
		"a use just before keeps it":                      {uses: []time.Duration{0, idle - time.Nanosecond}, downAt: 2*idle - time.Nanosecond},
		"uses less than the idle time apart keep it long": {uses: []time.Duration{0, idle / 2, idle / 2, idle / 2, idle / 2}, downAt: 3 * idle},
	} {
		t.Run(name, func(t *testing.T) {
			sharing(t, func(t *testing.T, c *caller) {
				c.Join()
				for _, after := range test.uses {
					time.Sleep(after)
					c.use(t)
					c.Done()
				}
				time.Sleep(test.downAt - time.Since(c.began) - time.Nanosecond)
				require.Equal(t, [2]int{1, 0}, c.counts())
				time.Sleep(time.Nanosecond)
				require.Equal(t, [2]int{1, 1}, c.counts())

				time.Sleep(10 * idle)
				require.Equal(t, [2]int{1, 1}, c.counts(), "once")
				c.use(t)
				require.Equal(t, [2]int{2, 1}, c.counts(), "the next use sets it up again")
				c.Done()
				time.Sleep(idle)
				require.Equal(t, [2]int{2, 2}, c.counts())
			})
		})
	}
}

func TestAValueIsNeverTornDownWhileItIsUsed(t *testing.T) {
	for name, uses := range map[string]func(t *testing.T, c *caller) (dones int){
		"by one":                     func(t *testing.T, c *caller) int { c.use(t); return 1 },
		"by two":                     func(t *testing.T, c *caller) int { c.use(t); c.use(t); return 2 },
		"by a call of the one batch": func(t *testing.T, c *caller) int { c.use(t); c.Again(); return 2 },
		"by one who came after a pause": func(t *testing.T, c *caller) int {
			c.use(t)
			c.Done()
			time.Sleep(idle - time.Minute)
			c.use(t)
			return 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			sharing(t, func(t *testing.T, c *caller) {
				c.Join()
				for dones := uses(t, c); dones > 0; dones-- {
					time.Sleep(10 * idle)
					require.Equal(t, [2]int{1, 0}, c.counts())
					c.Done()
				}
				time.Sleep(idle - time.Nanosecond)
				require.Equal(t, [2]int{1, 0}, c.counts())
				time.Sleep(time.Nanosecond)
				require.Equal(t, [2]int{1, 1}, c.counts())
			})
		})
	}
}

func TestTheLastMemberWhoLeavesTearsDown(t *testing.T) {
	t.Run("at once when no use is under way", func(t *testing.T) {
		sharing(t, func(t *testing.T, c *caller) {
			c.takes = time.Second
			c.Join()
			c.Join()
			c.use(t)
			c.Done()
			require.NoError(t, c.Leave())
			require.Equal(t, [2]int{1, 0}, c.counts(), "another member is there")
			require.NoError(t, c.Leave())
			require.Equal(t, [2]int{1, 1}, c.counts())
			require.Equal(t, 2*time.Second, time.Since(c.began), "Leave has waited for it")
			require.Nil(t, c.timer, "no timer is left behind")
		})
	})
	t.Run("with the last use that is under way", func(t *testing.T) {
		sharing(t, func(t *testing.T, c *caller) {
			c.Join()
			c.use(t)
			c.use(t)
			require.NoError(t, c.Leave())
			time.Sleep(time.Second)
			c.Done()
			require.Equal(t, [2]int{1, 0}, c.counts())
			time.Sleep(time.Second)
			c.Done()
			require.Equal(t, [2]int{1, 1}, c.counts())
		})
	})
	t.Run("with the use whose set-up was under way", func(t *testing.T) {
		sharing(t, func(t *testing.T, c *caller) {
			c.takes = time.Second
			c.Join()
			var wg sync.WaitGroup
			wg.Go(func() {
				c.use(t)
				time.Sleep(time.Second)
				c.Done()
			})
			synctest.Wait()
			require.NoError(t, c.Leave())
			wg.Wait()
			require.Equal(t, [2]int{1, 1}, c.counts())
			require.Equal(t, 2*time.Second, c.downAt)
		})
	})
	t.Run("unless another has joined meanwhile", func(t *testing.T) {
		sharing(t, func(t *testing.T, c *caller) {
			c.Join()
			c.use(t)
			require.NoError(t, c.Leave())
			c.Join()
			c.Done()
			time.Sleep(idle - time.Nanosecond)
			require.Equal(t, [2]int{1, 0}, c.counts())
			time.Sleep(time.Nanosecond)
			require.Equal(t, [2]int{1, 1}, c.counts(), "then it is the idle time's")
		})
	})
	t.Run("even if another had joined meanwhile, and left", func(t *testing.T) {
		sharing(t, func(t *testing.T, c *caller) {
			c.Join()
			c.use(t)
			require.NoError(t, c.Leave())
			c.Join()
			require.NoError(t, c.Leave())
			c.Done()
			require.Equal(t, [2]int{1, 1}, c.counts())
		})
	})
	t.Run("but not what was never set up", func(t *testing.T) {
		sharing(t, func(t *testing.T, c *caller) {
			c.Join()
			require.NoError(t, c.Leave())
			require.Equal(t, [2]int{0, 0}, c.counts())
		})
	})
	t.Run("but not what is down already", func(t *testing.T) {
		sharing(t, func(t *testing.T, c *caller) {
			c.Join()
			c.use(t)
			c.Done()
			time.Sleep(idle)
			synctest.Wait()
			require.NoError(t, c.Leave())
			require.Equal(t, [2]int{1, 1}, c.counts())
		})
	})
	t.Run("and an idle timer that fires meanwhile does not do so again", func(t *testing.T) {
		sharing(t, func(t *testing.T, c *caller) {
			c.Join()
			c.use(t)
			c.Done()
			time.Sleep(idle - time.Second)
			require.NoError(t, c.Leave())
			time.Sleep(time.Minute)
			c.expire() // Stop came too late for it
			require.Equal(t, [2]int{1, 1}, c.counts())
		})
	})
	t.Run("and a member who joins later finds it to be set up anew", func(t *testing.T) {
		sharing(t, func(t *testing.T, c *caller) {
			for round := range 3 {
				c.Join()
				c.use(t)
				c.Done()
				require.NoError(t, c.Leave())
				require.Equal(t, [2]int{round + 1, round + 1}, c.counts())
			}
		})
	})
}

func TestAFailingTeardownIsToldAndLeavesTheValueDown(t *testing.T) {
	for name, test := range map[string]struct {
		teardown func()
		is       func(t *testing.T, err error)
	}{
		"an error": {
			is: func(t *testing.T, err error) { require.Equal(t, errUnreachable, err) },
		},
		"a panic": {
			teardown: func() { panic(errUnreachable) },
			is: func(t *testing.T, err error) {
				var panics *guard.PanicError
				require.ErrorAs(t, err, &panics)
				require.Equal(t, "Teardown", panics.In)
			},
		},
		"a Goexit": {
			teardown: runtime.Goexit,
			is: func(t *testing.T, err error) {
				var exits *guard.GoexitError
				require.ErrorAs(t, err, &exits)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			sharing(t, func(t *testing.T, c *caller) {
				c.teardown = func(n int) error {
					if n > 1 {
						return nil
					}
					if test.teardown != nil {
						test.teardown()
					}
					return errUnreachable
				}
				c.Join()
				c.use(t)
				c.Done()
				test.is(t, c.Leave())
				c.use(t)
				c.Done()
				require.Equal(t, [2]int{2, 1}, c.counts())
			})
		})
	}
}

func TestAUseThatComesDuringATeardownSetsUpAfterIt(t *testing.T) {
	for name, ends := range map[string]func(t *testing.T, c *caller){
		"of the last member": func(t *testing.T, c *caller) {
			go func() { require.NoError(t, c.Leave()) }()
		},
		"of an idle value": func(*testing.T, *caller) { time.Sleep(idle) },
		"of one whose Teardown fails": func(t *testing.T, c *caller) {
			c.teardown = func(n int) error { return errUnreachable }
			go func() { require.Equal(t, errUnreachable, c.Leave()) }()
		},
	} {
		t.Run(name, func(t *testing.T) {
			sharing(t, func(t *testing.T, c *caller) {
				c.takes = time.Second
				c.Join()
				c.use(t)
				c.Done()
				ends(t, c)
				synctest.Wait()
				started := time.Now()
				c.use(t)
				require.Equal(t, 2*time.Second, time.Since(started), "a tear-down, and then a set-up")
				require.Equal(t, [2]int{2, 1}, c.counts())
				c.Done()
			})
		})
	}
}

// A user of the property test comes and goes.
type user struct {
	after, holds, calls time.Duration
	member              bool
}

func TestWhateverTheUsersDoTheValueIsUpWhileItIsUsed(t *testing.T) {
	minutes := func(from, to int) *rapid.Generator[time.Duration] {
		return rapid.Map(rapid.IntRange(from, to), func(n int) time.Duration { return time.Duration(n) * time.Minute })
	}
	rapid.Check(t, func(rt *rapid.T) {
		takes := minutes(0, 3).Draw(rt, "takes")
		users := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) user {
			return user{
				after:  minutes(0, 60).Draw(rt, "after"),
				holds:  minutes(0, 25).Draw(rt, "holds"),
				calls:  minutes(0, 25).Draw(rt, "calls"),
				member: rapid.Bool().Draw(rt, "member"),
			}
		}), 1, 12).Draw(rt, "users")
		var failing []bool
		for range 4 {
			failing = append(failing, rapid.Bool().Draw(rt, "failing"))
		}

		// The bubble observes only: if it failed, rapid could not shrink.
		var c *caller
		synctest.Test(t, func(*testing.T) {
			c = newCaller()
			c.takes = takes
			fails := func(n int) error {
				if n <= len(failing) && failing[n-1] {
					return errUnreachable
				}
				return nil
			}
			c.setup, c.teardown = fails, fails
			look := func(when string) {
				c.mu.Lock()
				defer c.mu.Unlock()
				if !c.up {
					c.wrong = "down " + when
				}
			}
			for _, u := range users {
				go func() {
					time.Sleep(u.after)
					if u.member {
						c.Join()
						defer func() { _ = c.Leave() }()
					}
					if c.Use(context.Background(), context.Background()) != nil {
						return
					}
					look("as a use begins")
					time.Sleep(u.holds)
					c.Again()
					time.Sleep(u.calls)
					look("in a use")
					c.Done()
					time.Sleep(u.calls)
					look("as a use ends")
					c.Done()
				}()
			}
			time.Sleep(24 * time.Hour)
			synctest.Wait()
		})
		require.Empty(rt, c.wrong)
		require.False(rt, c.up, "it is torn down in the end")
		require.Zero(rt, c.uses)
		require.Zero(rt, c.members)
	})
}
