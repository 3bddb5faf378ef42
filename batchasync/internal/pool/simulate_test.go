// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"time"
)

// A world is one service and the pools that call it, in virtual time: discrete
// events, exact, and the same for the same seed.
type world struct {
	now      time.Time
	random   *rand.Rand
	service  service
	inFlight int
	pools    []*client
	events   events
	seq      int
	answers  []int // in each tenth of a second
	calls    int
	refused  int
	most     int // in flight at once
}

// A service says what a call of that size takes that is one of n in flight.
type service func(w *world, n, size int) (time.Duration, Outcome)

// A client has a pool's limit, and calls waiting. Like the backlog of 256
// senders, that of -1 has no end.
type client struct {
	limit    limiter
	inFlight int
	backlog  int
	size     func() int
	answered float64
	wake     time.Time
	left     bool
}

const bin = 100 * time.Millisecond

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(seed uint64, s service) *world {
	return &world{now: epoch, random: rand.New(rand.NewPCG(seed, 1)), service: s}
}

func (w *world) add(l limiter) *client {
	c := &client{limit: l, backlog: -1}
	w.pools = append(w.pools, c)
	w.pump(c)
	return c
}

func (w *world) adaptive(target time.Duration) *adaptive {
	return newAdaptive(1, 64, target, w.random.Float64)
}

// pump starts what c may start.
func (w *world) pump(c *client) {
	for c.backlog != 0 && !c.left {
		wait := c.limit.ready(w.now)
		if wait < 0 {
			return
		}
		if wait > 0 {
			at := w.now.Add(wait)
			if !c.wake.After(w.now) || at.Before(c.wake) {
				c.wake = at
				w.at(at, func() {
					if c.wake.Equal(at) {
						w.pump(c)
					}
				})
			}
			return
		}
		w.call(c)
	}
}

func (w *world) call(c *client) {
	size := 1
	if c.size != nil {
		size = c.size()
	}
	if c.backlog > 0 {
		c.backlog--
	}
	w.calls++
	c.inFlight++
	w.inFlight++
	w.most = max(w.most, w.inFlight)
	f := c.limit.started(w.now)
	took, o := w.service(w, w.inFlight, size)
	w.at(w.now.Add(took), func() {
		c.inFlight--
		w.inFlight--
		switch o {
		case Answered:
			c.answered++
			i := int(w.now.Sub(epoch) / bin)
			for len(w.answers) <= i {
				w.answers = append(w.answers, 0)
			}
			w.answers[i]++
		case Overloaded, Failed:
			w.refused++
		}
		c.limit.ended(w.now, f, size, o)
		w.pump(c)
	})
}

// run lets so much time go by.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.events) > 0 && !w.events[0].at.After(end) {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
}

// rate is the answers a second in the last d.
func (w *world) rate(d time.Duration) float64 { return w.rateAt(w.now.Sub(epoch)-d, d) }

func (w *world) rateAt(from, d time.Duration) float64 {
	sum := 0
	for i := int(from / bin); i < int((from+d)/bin) && i < len(w.answers); i++ {
		sum += w.answers[i]
	}
	return float64(sum) / d.Seconds()
}

// worst is the rate in the worst of the last seconds.
func (w *world) worst(seconds int) float64 {
	worst := math.Inf(1)
	for i := range seconds {
		worst = min(worst, w.rateAt(w.now.Sub(epoch)-time.Duration(i+1)*time.Second, time.Second))
	}
	return worst
}

func (w *world) at(t time.Time, do func()) {
	w.seq++
	heap.Push(&w.events, event{t, w.seq, do})
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type events []event

func (e events) Len() int      { return len(e) }
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].seq < e[j].seq
}
func (e *events) Push(x any) { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// jain is the fairness index of Jain, Chiu and Hawe (1984): 1 when all have
// the same, 1/n when one has all.
func jain(shares []float64) float64 {
	sum, squares := 0., 0.
	for _, s := range shares {
		sum += s
		squares += s * s
	}
	return sum * sum / (float64(len(shares)) * squares)
}

// A knee is a service whose calls take longer by the factor 1 + k (n-c)/c when
// n of them, more than c, are in flight.
type knee struct {
	c, k   float64
	call   time.Duration
	jitter float64 // times a draw from the exponential distribution
}

func (s *knee) serve(w *world, n, _ int) (time.Duration, Outcome) {
	return time.Duration(float64(s.call) * congestion(n, s.c, s.k) * (1 + s.jitter*w.random.ExpFloat64())), Answered
}

// best is the answers a second at the best static limit, which is c.
func (s *knee) best() float64 { return s.c / s.call.Seconds() / (1 + s.jitter) }

func congestion(n int, c, k float64) float64 { return 1 + k*max(0, float64(n)-c)/c }

// A door lets c calls in, and refuses all others at once.
type door knee

func (s *door) serve(w *world, n, size int) (time.Duration, Outcome) {
	if float64(n) > s.c {
		return time.Millisecond, Overloaded
	}
	return (*knee)(s).serve(w, n, size)
}

// A queue is that of M/G/c: c servers, and who finds none waits for one.
type queue struct {
	free []time.Time // when each server is
	draw func(*rand.Rand) time.Duration
}

func (s *queue) serve(w *world, _, _ int) (time.Duration, Outcome) {
	next := 0
	for i := range s.free {
		if s.free[i].Before(s.free[next]) {
			next = i
		}
	}
	begin := w.now
	if s.free[next].After(begin) {
		begin = s.free[next]
	}
	s.free[next] = begin.Add(s.draw(w.random))
	return s.free[next].Sub(w.now), Answered
}

// foreign are services that the limit was not made for. Their capacity is 16,
// where they have one, and a call takes 20 ms.
var foreign = []struct {
	name  string
	least float64 // of the best static limit
	serve func() service
}{
	{"M_M_16", 0.8, func() service {
		return (&queue{make([]time.Time, 16), func(r *rand.Rand) time.Duration {
			return time.Duration(20e6 * r.ExpFloat64())
		}}).serve
	}},
	{"M_G_4", 0.95, func() service {
		return (&queue{make([]time.Time, 4), func(r *rand.Rand) time.Duration {
			return time.Duration(20e6 * (1 + 0.3*r.ExpFloat64()))
		}}).serve
	}},
	{"rises_by_0.3_below_capacity", 0.9, each(func(r *rand.Rand, n int) float64 {
		return (1 + 0.3*float64(n)/16) * congestion(n, 16, 2) * small(r)
	})},
	{"doubles_below_capacity", 0.85, each(func(r *rand.Rand, n int) float64 {
		return (1 + float64(n)/16) * congestion(n, 16, 2) * small(r)
	})},
	{"rises_smoothly", 0.7, each(func(r *rand.Rand, n int) float64 {
		return (1 + float64(n)/16 + float64(n*n)/1600) * small(r)
	})},
	{"collapses", 0.9, each(func(r *rand.Rand, n int) float64 {
		return math.Pow(max(1, float64(n)/16), 4) * small(r)
	})},
	{"k_10", 0.85, each(func(r *rand.Rand, n int) float64 { return congestion(n, 16, 10) * small(r) })},
	{"k_0.5", 0.8, each(func(r *rand.Rand, n int) float64 { return congestion(n, 16, 0.5) * small(r) })},
	{"without_jitter", 0.93, each(func(_ *rand.Rand, n int) float64 { return congestion(n, 16, 2) })},
	{"lognormal_0.5", 0.85, each(func(r *rand.Rand, n int) float64 {
		return congestion(n, 16, 2) * math.Exp(0.5*r.NormFloat64())
	})},
	{"lognormal_1", 0.6, each(func(r *rand.Rand, n int) float64 {
		return congestion(n, 16, 2) * math.Exp(r.NormFloat64())
	})},
	{"Pareto_1.5", 0.75, each(func(r *rand.Rand, n int) float64 {
		return congestion(n, 16, 2) * math.Pow(1-r.Float64(), -1/1.5)
	})},
	{"one_in_100_takes_10_times", 0.9, each(func(r *rand.Rand, n int) float64 {
		x := congestion(n, 16, 2) * small(r)
		if r.IntN(100) == 0 {
			x *= 10
		}
		return x
	})},
	{"pauses_for_100ms_a_second", 0.85, func() service {
		return func(w *world, n, _ int) (time.Duration, Outcome) {
			took := time.Duration(20e6 * congestion(n, 16, 2) * small(w.random))
			begin := w.now.Sub(epoch)
			for s := begin.Truncate(time.Second); s <= begin+took; s += time.Second {
				if end := s + 100*time.Millisecond; begin < end {
					took += min(100*time.Millisecond, end-begin)
				}
			}
			return took, Answered
		}
	}},
	{"without_limit", 0.95, each(func(r *rand.Rand, _ int) float64 { return small(r) })},
	{"capacity_1", 0.55, each(func(r *rand.Rand, n int) float64 { return congestion(n, 1, 2) * small(r) })},
	{"capacity_2", 0.9, each(func(r *rand.Rand, n int) float64 { return congestion(n, 2, 2) * small(r) })},
}

func each(factor func(r *rand.Rand, n int) float64) func() service {
	return func() service {
		return func(w *world, n, _ int) (time.Duration, Outcome) {
			return time.Duration(20e6 * factor(w.random, n)), Answered
		}
	}
}

func small(r *rand.Rand) float64 { return 1 + 0.3*r.ExpFloat64() }
