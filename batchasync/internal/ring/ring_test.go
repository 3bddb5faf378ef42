// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type slot = Slot[int, string]

// A recorded ring keeps the slots that were made ready, in that order, for the
// test to act as their sender.
type recorded struct {
	*Ring[int, string]

	mu    sync.Mutex
	ready []*slot
}

func record(limits Limits) *recorded {
	r := &recorded{}
	r.Ring = New(limits, func(s *slot) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ready = append(r.ready, s)
	})
	return r
}

// readied is what has been made ready so far.
func (r *recorded) readied() []*slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ready)
}

// add appends elements of one byte, for which there is room.
func (r *recorded) add(t *testing.T, elements ...int) {
	t.Helper()
	for _, e := range elements {
		appended, _ := r.Append(e, 1)
		require.True(t, appended, "element %d", e)
	}
}

// send seals a slot and completes it.
func (r *recorded) send(t *testing.T, s *slot, result string) {
	t.Helper()
	require.True(t, r.Seal(s))
	s.Result = result
	r.Complete(s)
}

// recycle takes a slot and releases it, and returns what its batch held.
func (r *recorded) recycle(t *testing.T) []int {
	t.Helper()
	s := r.Take()
	require.NotNil(t, s)
	items := slices.Clone(s.Items)
	r.Release(s)
	return items
}

func items(slots []*slot) [][]int {
	var all [][]int
	for _, s := range slots {
		all = append(all, slices.Clone(s.Items))
	}
	return all
}

func reasons(slots []*slot) []Reason {
	var all []Reason
	for _, s := range slots {
		all = append(all, s.Reason)
	}
	return all
}

func TestAppendFillsBatchesUpToTheirLimits(t *testing.T) {
	for name, test := range map[string]struct {
		size, bytes int
		sizes       []int // of the elements 0, 1, 2…
		readyAfter  []int // batches that are ready after each element
		batches     [][]int
		reasons     []Reason
		batchBytes  []int
	}{
		"a batch closes with its last element": {
			size: 3, sizes: []int{1, 1, 1, 1, 1, 1, 1},
			readyAfter: []int{0, 0, 1, 1, 1, 2, 2},
			batches:    [][]int{{0, 1, 2}, {3, 4, 5}},
			reasons:    []Reason{Size, Size},
			batchBytes: []int{3, 3},
		},
		"a batch of one element closes at once": {
			size: 1, sizes: []int{1, 1},
			readyAfter: []int{1, 2},
			batches:    [][]int{{0}, {1}},
			reasons:    []Reason{Size, Size},
			batchBytes: []int{1, 1},
		},
		"without a limit of bytes they are counted and no more": {
			size: 2, sizes: []int{1 << 40, 1 << 40},
			readyAfter: []int{0, 1},
			batches:    [][]int{{0, 1}},
			reasons:    []Reason{Size},
			batchBytes: []int{1 << 41},
		},
		"a batch that is exactly full of bytes closes at once": {
			size: 10, bytes: 10, sizes: []int{5, 5, 5},
			readyAfter: []int{0, 1, 1},
			batches:    [][]int{{0, 1}},
			reasons:    []Reason{Bytes},
			batchBytes: []int{10},
		},
		"an element that would overshoot the bytes begins the next batch": {
			size: 10, bytes: 10, sizes: []int{6, 5, 5},
			readyAfter: []int{0, 1, 2},
			batches:    [][]int{{0}, {1, 2}},
			reasons:    []Reason{Bytes, Bytes},
			batchBytes: []int{6, 10},
		},
		"an oversized element goes alone and closes two batches in one call": {
			size: 10, bytes: 10, sizes: []int{3, 11, 3},
			readyAfter: []int{0, 2, 2},
			batches:    [][]int{{0}, {1}},
			reasons:    []Reason{Bytes, Bytes},
			batchBytes: []int{3, 11},
		},
		"an oversized element that comes first goes alone": {
			size: 10, bytes: 10, sizes: []int{11, 3},
			readyAfter: []int{1, 1},
			batches:    [][]int{{0}},
			reasons:    []Reason{Bytes},
			batchBytes: []int{11},
		},
		"an overshooting element closes two batches of one element": {
			size: 2, bytes: 10, sizes: []int{6, 10},
			readyAfter: []int{0, 2},
			batches:    [][]int{{0}, {1}},
			reasons:    []Reason{Bytes, Bytes},
			batchBytes: []int{6, 10},
		},
		"elements without bytes count as elements": {
			size: 2, bytes: 10, sizes: []int{0, 0, 0},
			readyAfter: []int{0, 1, 1},
			batches:    [][]int{{0, 1}},
			reasons:    []Reason{Size},
			batchBytes: []int{0},
		},
		"size is told before bytes where both are reached": {
			size: 2, bytes: 10, sizes: []int{5, 5},
			readyAfter: []int{0, 1},
			batches:    [][]int{{0, 1}},
			reasons:    []Reason{Size},
			batchBytes: []int{10},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := record(Limits{Slots: 10, Size: test.size, Bytes: test.bytes})
			var readyAfter []int
			for e, size := range test.sizes {
				appended, finished := r.Append(e, size)
				require.True(t, appended)
				require.False(t, finished)
				readyAfter = append(readyAfter, len(r.ready))
			}
			require.Equal(t, test.readyAfter, readyAfter)
			require.Equal(t, test.batches, items(r.ready))
			require.Equal(t, test.reasons, reasons(r.ready))
			for i, s := range r.ready {
				require.Equal(t, test.batchBytes[i], s.Bytes)
			}
		})
	}
}

func TestAFullRingTakesElementsInAgainWhenASlotIsReleased(t *testing.T) {
	for name, slots := range map[string]int{"one slot": 1, "two slots": 2, "five slots": 5} {
		t.Run(name, func(t *testing.T) {
			r := record(Limits{Slots: slots, Size: 2})
			for e := range 2 * slots {
				r.add(t, e)
			}
			next := 2 * slots
			for round := range 3 * slots {
				appended, finished := r.Append(next, 1)
				require.False(t, appended)
				require.False(t, finished, "nothing has been answered")

				r.send(t, r.ready[round], "")
				appended, finished = r.Append(next, 1)
				require.False(t, appended, "answered, but not taken")
				require.True(t, finished)

				s := r.Take()
				require.Equal(t, []int{2 * round, 2*round + 1}, s.Items)
				appended, finished = r.Append(next, 1)
				require.False(t, appended, "taken, but not released")
				require.False(t, finished)

				r.Release(s)
				r.add(t, next, next+1)
				next += 2
			}
		})
	}
}

func TestAnElementThatOvershootsTheOnlySlotClosesItAndWaits(t *testing.T) {
	r := record(Limits{Slots: 1, Size: 10, Bytes: 10})
	r.add(t, 0)
	appended, _ := r.Append(1, 11)
	require.False(t, appended)
	require.Equal(t, [][]int{{0}}, items(r.ready), "it must be sent, or the owner waits for ever")

	r.send(t, r.ready[0], "")
	require.Equal(t, []int{0}, r.recycle(t))
	appended, _ = r.Append(1, 11)
	require.True(t, appended)
	require.Equal(t, []int{1}, r.ready[1].Items)
}

func TestNoMoreSlotsAreAllocatedThanAreNeeded(t *testing.T) {
	for name, test := range map[string]struct{ slots, atOnce, want int }{
		"one, when each batch is released before the next": {slots: 8, atOnce: 1, want: 1},
		"as many as batches at once":                       {slots: 8, atOnce: 3, want: 3},
		"never more than Slots":                            {slots: 8, atOnce: 8, want: 8},
	} {
		t.Run(name, func(t *testing.T) {
			r := record(Limits{Slots: test.slots, Size: 1})
			seen := map[*slot]bool{}
			for range 10 {
				r.ready = nil
				for e := range test.atOnce {
					r.add(t, e)
				}
				for _, s := range r.ready {
					seen[s] = true
					r.send(t, s, "")
					r.recycle(t)
				}
			}
			require.Len(t, seen, test.want)
		})
	}
}

func TestAReleasedSlotHoldsNothingOfItsBatch(t *testing.T) {
	var ready []*Slot[*int, *int]
	r := New(Limits{Slots: 2, Size: 3, Linger: time.Hour}, func(s *Slot[*int, *int]) { ready = append(ready, s) })
	defer r.Abandon()
	for i := range 3 {
		r.Append(&i, 100)
	}
	s := ready[0]
	require.True(t, r.Seal(s))
	s.Result = new(int)
	r.Complete(s)
	require.Same(t, s, r.Take())
	r.Release(s)

	for _, held := range s.Items[:cap(s.Items)] {
		require.Nil(t, held)
	}
	require.GreaterOrEqual(t, cap(s.Items), 3, "the room is kept for the next batch")
	s.Items = nil
	require.Equal(t, Slot[*int, *int]{}, *s)
	for _, done := range r.done[:cap(r.done)] {
		require.Nil(t, done)
	}
}

// linger is the linger of the tests below.
const linger = 50 * time.Millisecond

// lingering runs a test in a bubble with a ring that is abandoned at its end.
func lingering(t *testing.T, limits Limits, test func(t *testing.T, r *recorded)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := record(limits)
		defer r.Abandon()
		test(t, r)
	})
}

// readyIn requires that the n-th batch becomes ready after exactly d more.
func (r *recorded) readyIn(t *testing.T, d time.Duration, n int) *slot {
	t.Helper()
	time.Sleep(d - time.Nanosecond)
	synctest.Wait()
	require.Len(t, r.readied(), n-1, "a nanosecond before")
	time.Sleep(time.Nanosecond)
	synctest.Wait()
	ready := r.readied()
	require.Len(t, ready, n)
	return ready[n-1]
}

func TestLingerIsCountedFromTheFirstElement(t *testing.T) {
	lingering(t, Limits{Slots: 2, Size: 10, Linger: linger}, func(t *testing.T, r *recorded) {
		time.Sleep(time.Hour) // an empty ring has no batch to seal
		synctest.Wait()
		require.Empty(t, r.readied())

		r.add(t, 0)
		time.Sleep(linger - time.Millisecond)
		r.add(t, 1)
		s := r.readyIn(t, time.Millisecond, 1)
		require.Equal(t, Linger, s.Reason)
		require.Equal(t, []int{0, 1}, s.Items)
	})
}

func TestAStaleTimerNeverSealsTheNextBatch(t *testing.T) {
	for name, test := range map[string]struct {
		slots  int
		closes func(t *testing.T, r *recorded) // the first batch, which holds one element
		pause  time.Duration                   // until the next batch begins
	}{
		"when size closed the one before": {
			slots: 2, pause: 10 * time.Millisecond,
			closes: func(t *testing.T, r *recorded) { r.add(t, 1, 2) },
		},
		"when bytes closed the one before": {
			slots: 2, pause: 10 * time.Millisecond,
			closes: func(t *testing.T, r *recorded) {
				appended, _ := r.Append(1, 100)
				require.True(t, appended)
				r.send(t, r.readied()[1], "") // the large element's own batch
				r.recycle(t)
			},
		},
		"when it was flushed": {
			slots: 2, pause: 10 * time.Millisecond,
			closes: func(_ *testing.T, r *recorded) { r.Flush() },
		},
		"when the next one begins in the instant": {
			slots:  2,
			closes: func(_ *testing.T, r *recorded) { r.Flush() },
		},
		"when the next one begins as the timer fires": {
			slots: 2, pause: linger - 10*time.Millisecond,
			closes: func(_ *testing.T, r *recorded) { r.Flush() },
		},
		"when the timer fired into an empty ring": {
			slots: 2, pause: linger,
			closes: func(_ *testing.T, r *recorded) { r.Flush() },
		},
		"in the same slot": {
			slots: 1, pause: 10 * time.Millisecond,
			closes: func(t *testing.T, r *recorded) {
				r.Flush()
				r.send(t, r.readied()[0], "")
				r.recycle(t)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			lingering(t, Limits{Slots: test.slots, Size: 3, Bytes: 99, Linger: linger}, func(t *testing.T, r *recorded) {
				r.add(t, 0)
				time.Sleep(10 * time.Millisecond)
				test.closes(t, r)
				before := len(r.readied())
				time.Sleep(test.pause)
				r.add(t, 10)
				s := r.readyIn(t, linger, before+1)
				require.Equal(t, Linger, s.Reason)
				require.Equal(t, []int{10}, s.Items)
			})
		})
	}
}

func TestEachOfManyBatchesGetsItsOwnLinger(t *testing.T) {
	lingering(t, Limits{Slots: 3, Size: 10, Linger: linger}, func(t *testing.T, r *recorded) {
		for n := range 20 {
			r.add(t, n)
			s := r.readyIn(t, linger, n+1)
			require.Equal(t, []int{n}, s.Items)
			r.send(t, s, "")
			r.recycle(t)
			time.Sleep(time.Duration(n) * 7 * time.Millisecond)
		}
	})
}

func TestWithoutALingerTimeSealsNothing(t *testing.T) {
	lingering(t, Limits{Slots: 1, Size: 2}, func(t *testing.T, r *recorded) {
		r.add(t, 0)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		require.Empty(t, r.readied())
	})
}

func TestAnExpiredBatchGrowsUntilItIsSealed(t *testing.T) {
	limits := Limits{Slots: 2, Size: 4, Bytes: 6, Linger: linger}
	expired := func(t *testing.T, test func(t *testing.T, r *recorded, s *slot)) {
		lingering(t, limits, func(t *testing.T, r *recorded) {
			r.add(t, 0)
			s := r.readyIn(t, linger, 1)
			r.add(t, 1) // grown
			test(t, r, s)
			require.Equal(t, Linger, s.Reason)
		})
	}
	t.Run("by its sender, who gets what came meanwhile", func(t *testing.T) {
		expired(t, func(t *testing.T, r *recorded, s *slot) {
			require.True(t, r.Seal(s))
			require.Equal(t, []int{0, 1}, s.Items)
			r.add(t, 2)
			require.Equal(t, []int{0, 1}, s.Items, "nothing is added any more")
			next := r.readyIn(t, linger, 2)
			require.NotSame(t, s, next)
			require.Equal(t, []int{2}, next.Items)
		})
	})
	t.Run("at most up to its size", func(t *testing.T) {
		expired(t, func(t *testing.T, r *recorded, s *slot) {
			r.add(t, 2, 3, 4)
			require.Equal(t, []int{0, 1, 2, 3}, s.Items)
			require.Len(t, r.readied(), 1, "it was handed over already")
		})
	})
	t.Run("at most up to its bytes", func(t *testing.T) {
		expired(t, func(t *testing.T, r *recorded, s *slot) {
			appended, _ := r.Append(2, 5)
			require.True(t, appended)
			require.Equal(t, []int{0, 1}, s.Items)
			require.Len(t, r.readied(), 1, "it was handed over already")
		})
	})
	t.Run("at most until a flush", func(t *testing.T) {
		expired(t, func(t *testing.T, r *recorded, s *slot) {
			r.Flush()
			r.add(t, 2)
			require.Equal(t, []int{0, 1}, s.Items)
			require.Len(t, r.readied(), 1, "it was handed over already")
		})
	})
	t.Run("and is not handed over a second time by its timer", func(t *testing.T) {
		expired(t, func(t *testing.T, r *recorded, _ *slot) {
			time.Sleep(10 * linger)
			synctest.Wait()
			require.Len(t, r.readied(), 1)
		})
	})
}

func TestFlush(t *testing.T) {
	for name, test := range map[string]struct {
		elements []int
		batches  [][]int
		reasons  []Reason
	}{
		"of an empty ring does nothing":                 {},
		"hands a partly filled batch over":              {elements: []int{0, 1}, batches: [][]int{{0, 1}}, reasons: []Reason{Flush}},
		"does nothing when the last batch was full":     {elements: []int{0, 1, 2}, batches: [][]int{{0, 1, 2}}, reasons: []Reason{Size}},
		"hands over what a full batch has not room for": {elements: []int{0, 1, 2, 3}, batches: [][]int{{0, 1, 2}, {3}}, reasons: []Reason{Size, Flush}},
	} {
		t.Run(name, func(t *testing.T) {
			lingering(t, Limits{Slots: 2, Size: 3, Linger: linger}, func(t *testing.T, r *recorded) {
				r.add(t, test.elements...)
				r.Flush()
				r.Flush() // a second time has nothing to do
				time.Sleep(10 * linger)
				synctest.Wait()
				require.Equal(t, test.batches, items(r.readied()))
				require.Equal(t, test.reasons, reasons(r.readied()))
			})
		})
	}
}

// The timer, the last element and the flush come in the same instant, on two
// goroutines.
func TestABatchIsHandedOverOnceWhoeverWinsTheRace(t *testing.T) {
	for name, closes := range map[string]func(t *testing.T, r *recorded){
		"linger against size":           func(t *testing.T, r *recorded) { r.add(t, 1) },
		"linger against flush":          func(_ *testing.T, r *recorded) { r.Flush() },
		"linger against size and flush": func(t *testing.T, r *recorded) { r.add(t, 1); r.Flush() },
		"linger against bytes": func(t *testing.T, r *recorded) {
			appended, _ := r.Append(1, 100)
			require.True(t, appended)
		},
	} {
		t.Run(name, func(t *testing.T) {
			lingering(t, Limits{Slots: 2, Size: 2, Bytes: 50, Linger: linger}, func(t *testing.T, r *recorded) {
				for range 200 {
					r.mu.Lock()
					r.ready = nil
					r.mu.Unlock()
					r.add(t, 0)
					time.Sleep(linger)
					closes(t, r)
					r.Flush()
					synctest.Wait()
					ready := r.readied()
					held := map[*slot]bool{}
					for _, s := range ready {
						require.False(t, held[s], "handed over twice")
						held[s] = true
						r.send(t, s, "")
					}
					require.EqualValues(t, len(ready), r.Outstanding())
					for range ready {
						r.recycle(t)
					}
				}
			})
		})
	}
}

func TestTakeReturnsBatchesInTheOrderThatWasAskedFor(t *testing.T) {
	for name, test := range map[string]struct {
		ordered  bool
		complete []int   // batches, in the order of their answers
		take     [][]int // what can be taken after each
	}{
		"unordered: as they are answered": {
			complete: []int{2, 0, 1}, take: [][]int{{2}, {0}, {1}},
		},
		"ordered: as they arrived, however they are answered": {
			ordered: true, complete: []int{2, 1, 0, 4, 3}, take: [][]int{nil, nil, {0, 1, 2}, nil, {3, 4}},
		},
		"ordered: at once where they are answered so": {
			ordered: true, complete: []int{0, 1, 2}, take: [][]int{{0}, {1}, {2}},
		},
		"ordered: a gap holds only those behind it": {
			ordered: true, complete: []int{3, 0, 2, 1}, take: [][]int{nil, {0}, nil, {1, 2, 3}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := record(Limits{Slots: 6, Size: 1, Ordered: test.ordered})
			for e := range len(test.complete) {
				r.add(t, e)
			}
			e := len(test.complete)
			for i, batch := range test.complete {
				r.send(t, r.ready[batch], "")
				if r.Outstanding() < 6 {
					_, finished := r.Append(e, 1)
					require.Equal(t, len(test.take[i]) > 0, finished)
					e++
				}
				var taken []int
				for s := r.Take(); s != nil; s = r.Take() {
					taken = append(taken, s.Items...)
				}
				require.Equal(t, test.take[i], taken)
			}
		})
	}
}

func TestABatchKeepsItsResult(t *testing.T) {
	r := record(Limits{Slots: 3, Size: 1})
	r.add(t, 0, 1, 2)
	r.send(t, r.ready[1], "one")
	r.send(t, r.ready[0], "zero")
	s := r.Take()
	require.Equal(t, []int{1}, s.Items)
	require.Equal(t, "one", s.Result)
	s = r.Take()
	require.Equal(t, []int{0}, s.Items)
	require.Equal(t, "zero", s.Result)
}

func TestOutstandingCountsWhatIsOpenedAndNotTaken(t *testing.T) {
	r := record(Limits{Slots: 3, Size: 2})
	require.Zero(t, r.Outstanding())
	r.add(t, 0)
	require.Equal(t, 1, r.Outstanding(), "open")
	r.add(t, 1, 2)
	require.Equal(t, 2, r.Outstanding(), "one is ready, one open")
	r.send(t, r.ready[0], "")
	require.Equal(t, 2, r.Outstanding(), "one is answered")
	s := r.Take()
	require.Equal(t, 1, r.Outstanding(), "one is taken")
	r.Release(s)
	require.Equal(t, 1, r.Outstanding(), "and released")
}

func TestWait(t *testing.T) {
	dropped := errors.New("the bundle was dropped")
	for name, test := range map[string]struct {
		ordered bool
		before  []int                 // batches that are answered before
		after   map[time.Duration]int // and later
		cancel  time.Duration         // when ctx ends, if it does
		took    time.Duration
		err     error
	}{
		"returns at once when a batch can be taken": {before: []int{1}},
		"wakes when a batch is answered":            {after: map[time.Duration]int{time.Second: 1}, took: time.Second},
		"ends with ctx and tells the cause":         {cancel: time.Second, took: time.Second, err: dropped},
		"an answer counts though ctx has ended":     {before: []int{0}, cancel: -1},
		"ordered: sleeps on past a younger batch":   {ordered: true, before: []int{1}, after: map[time.Duration]int{time.Second: 2, 3 * time.Second: 0}, took: 3 * time.Second},
		"ordered: ends with ctx past younger ones":  {ordered: true, before: []int{1}, after: map[time.Duration]int{time.Second: 2}, cancel: 2 * time.Second, took: 2 * time.Second, err: dropped},
		"ordered: returns at once for the oldest":   {ordered: true, before: []int{2, 0}},
		"ended ctx and nothing to take: no waiting": {cancel: -1, err: dropped},
	} {
		t.Run(name, func(t *testing.T) {
			lingering(t, Limits{Slots: 3, Size: 1, Ordered: test.ordered}, func(t *testing.T, r *recorded) {
				r.add(t, 0, 1, 2)
				for _, batch := range test.before {
					r.send(t, r.ready[batch], "")
				}
				for at, batch := range test.after {
					time.AfterFunc(at, func() {
						r.Seal(r.ready[batch])
						r.Complete(r.ready[batch])
					})
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				switch {
				case test.cancel > 0:
					time.AfterFunc(test.cancel, func() { cancel(dropped) })
				case test.cancel < 0:
					cancel(dropped)
				}
				started := time.Now()
				require.Equal(t, test.err, r.Wait(ctx))
				require.Equal(t, test.took, time.Since(started))
				require.Equal(t, test.err == nil, r.Take() != nil)
			})
		})
	}
}

// One token wakes the owner for many batches: he must find them all.
func TestWaitAndTakeLoseNoWakeUp(t *testing.T) {
	lingering(t, Limits{Slots: 50, Size: 1}, func(t *testing.T, r *recorded) {
		for e := range 50 {
			r.add(t, e)
		}
		for _, s := range r.readied() {
			go func() {
				r.Seal(s)
				r.Complete(s)
			}()
		}
		taken := 0
		for r.Outstanding() > 0 {
			require.NoError(t, r.Wait(t.Context()))
			for s := r.Take(); s != nil; s = r.Take() {
				taken++
			}
		}
		require.Equal(t, 50, taken)
	})
}

func TestAnAbandonedRing(t *testing.T) {
	limits := Limits{Slots: 3, Size: 2, Linger: linger}
	t.Run("hands nothing over when its linger is over", func(t *testing.T) {
		lingering(t, limits, func(t *testing.T, r *recorded) {
			r.add(t, 0)
			r.Abandon()
			time.Sleep(10 * linger)
			synctest.Wait()
			require.Empty(t, r.readied())
		})
	})
	t.Run("hands nothing over when the timer has fired and not yet run", func(t *testing.T) {
		lingering(t, limits, func(t *testing.T, r *recorded) {
			r.add(t, 0)
			r.Abandon()
			r.expire()
			require.Empty(t, r.readied())
		})
	})
	t.Run("leaves no timer behind", func(t *testing.T) {
		lingering(t, limits, func(t *testing.T, r *recorded) {
			r.add(t, 0)
			r.Abandon()
			require.False(t, r.timer.Stop(), "it was stopped")
		})
	})
	t.Run("hands nothing over when it is flushed", func(t *testing.T) {
		lingering(t, limits, func(t *testing.T, r *recorded) {
			r.add(t, 0)
			r.Abandon()
			r.Flush()
			require.Empty(t, r.readied())
		})
	})
	t.Run("lets no batch be sealed", func(t *testing.T) {
		lingering(t, limits, func(t *testing.T, r *recorded) {
			r.add(t, 0, 1, 2)
			expired := r.readyIn(t, linger, 2)
			full := r.readied()[0]
			r.Abandon()
			require.False(t, r.Seal(full))
			require.False(t, r.Seal(expired))
		})
	})
	t.Run("lets a sender that is under way complete into nothing", func(t *testing.T) {
		lingering(t, limits, func(t *testing.T, r *recorded) {
			r.add(t, 0, 1, 2, 3)
			for _, s := range r.readied() {
				require.True(t, r.Seal(s))
			}
			r.Abandon()
			for _, s := range r.readied() {
				r.Complete(s) // must not block, though nobody takes
			}
		})
	})
}

// An arrival is an element of the property test below.
type arrival struct {
	gap   time.Duration // since the one before
	bytes int
	flush bool // the owner flushes after it
}

// A plan is what the property test draws. It runs in a bubble that must not
// fail, for a failing bubble would fail the test for good and not let rapid
// look for a smaller plan: so a run observes, and is judged afterwards.
type plan struct {
	limits   Limits
	senders  int
	arrivals []arrival
	calls    []time.Duration // used in turn
}

func draw(t *rapid.T) plan {
	milliseconds := func(from, to int) *rapid.Generator[time.Duration] {
		return rapid.Map(rapid.IntRange(from, to), func(n int) time.Duration { return time.Duration(n) * time.Millisecond })
	}
	return plan{
		limits: Limits{
			Slots:   rapid.IntRange(1, 4).Draw(t, "slots"),
			Size:    rapid.IntRange(1, 5).Draw(t, "size"),
			Bytes:   rapid.OneOf(rapid.Just(0), rapid.IntRange(1, 20)).Draw(t, "bytes"),
			Linger:  rapid.OneOf(rapid.Just(time.Duration(0)), milliseconds(1, 20)).Draw(t, "linger"),
			Ordered: rapid.Bool().Draw(t, "ordered"),
		},
		senders: rapid.IntRange(1, 3).Draw(t, "senders"),
		arrivals: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) arrival {
			return arrival{
				gap:   rapid.OneOf(rapid.Just(time.Duration(0)), milliseconds(0, 15)).Draw(t, "gap"),
				bytes: rapid.IntRange(0, 25).Draw(t, "bytes"),
				flush: rapid.IntRange(0, 9).Draw(t, "flush") == 0,
			}
		}), 0, 60).Draw(t, "arrivals"),
		calls: rapid.SliceOfN(milliseconds(0, 30), 1, 10).Draw(t, "calls"),
	}
}

// A batch is one that the property test has seen taken.
type batch struct {
	items  []int
	bytes  int
	reason Reason
	result string
}

type observed struct {
	batches []batch
	readies int         // calls of the ready function
	readyAt []time.Time // by first element
	arrived []time.Time // by element
	slots   map[*slot]bool
	waitErr error
}

func (p plan) run() *observed {
	o := &observed{
		slots:   map[*slot]bool{},
		readyAt: make([]time.Time, len(p.arrivals)),
		arrived: make([]time.Time, len(p.arrivals)),
	}
	var mu sync.Mutex
	permits := make(chan struct{}, p.senders)
	var r *Ring[int, string]
	r = New(p.limits, func(s *slot) {
		now := time.Now()
		mu.Lock()
		took := p.calls[o.readies%len(p.calls)]
		o.readies++
		o.slots[s] = true
		mu.Unlock()
		go func() {
			permits <- struct{}{}
			defer func() { <-permits }()
			if !r.Seal(s) {
				return
			}
			mu.Lock()
			o.readyAt[s.Items[0]] = now
			mu.Unlock()
			s.Result = fmt.Sprint(s.Items)
			time.Sleep(took)
			r.Complete(s)
		}()
	})
	take := func() {
		for s := r.Take(); s != nil; s = r.Take() {
			o.batches = append(o.batches, batch{slices.Clone(s.Items), s.Bytes, s.Reason, s.Result})
			r.Release(s)
		}
	}
	// Virtual: if the ring lost a batch, this is how the test would know.
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for e, a := range p.arrivals {
		time.Sleep(a.gap)
		for {
			o.arrived[e] = time.Now()
			appended, finished := r.Append(e, a.bytes)
			if !appended && !finished {
				if o.waitErr = r.Wait(ctx); o.waitErr != nil {
					return o
				}
				finished = true
			}
			if finished {
				take()
			}
			if appended {
				break
			}
		}
		if a.flush {
			r.Flush()
		}
	}
	r.Flush()
	for r.Outstanding() > 0 {
		if o.waitErr = r.Wait(ctx); o.waitErr != nil {
			return o
		}
		take()
	}
	r.Abandon()
	return o
}

func TestEachElementIsTakenOnceWithinTheLimits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := draw(rt)
		var o *observed
		synctest.Test(t, func(*testing.T) { o = p.run() })

		require.NoError(rt, o.waitErr, "a batch was lost")
		require.Len(rt, o.batches, o.readies, "each batch was handed over once")
		require.LessOrEqual(rt, len(o.slots), p.limits.Slots)
		var taken []int
		for _, b := range o.batches {
			require.NotEmpty(rt, b.items)
			require.Equal(rt, fmt.Sprint(b.items), b.result, "the answer to these elements")
			require.LessOrEqual(rt, len(b.items), p.limits.Size)
			sum := 0
			for i, e := range b.items {
				require.Equal(rt, b.items[0]+i, e, "order of arrival, without a gap")
				sum += p.arrivals[e].bytes
			}
			require.Equal(rt, sum, b.bytes)
			if p.limits.Bytes > 0 && len(b.items) > 1 {
				require.LessOrEqual(rt, sum, p.limits.Bytes)
			}
			waited := o.readyAt[b.items[0]].Sub(o.arrived[b.items[0]])
			switch b.reason {
			case Size:
				require.Len(rt, b.items, p.limits.Size)
			case Bytes:
				require.Positive(rt, p.limits.Bytes)
			case Linger:
				require.Equal(rt, p.limits.Linger, waited)
			}
			if p.limits.Linger > 0 {
				require.LessOrEqual(rt, waited, p.limits.Linger)
			}
			taken = append(taken, b.items...)
		}
		if p.limits.Ordered {
			require.IsIncreasing(rt, append([]int{-2, -1}, taken...))
		}
		slices.Sort(taken)
		require.Len(rt, taken, len(p.arrivals))
		for i, e := range taken {
			require.Equal(rt, i, e, "taken once")
		}
	})
}
