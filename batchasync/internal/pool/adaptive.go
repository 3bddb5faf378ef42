// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"math"
	"time"
)

// adaptive is a limit on the calls in flight that finds what the service bears
// best, and follows it when it moves. It is not safe for concurrent use, and
// it never reads the clock.
//
// Two views of the service are combined, and the more careful one decides:
//
//   - What the calls of this pool do to their own latency. At intervals the
//     limit gives way by a tenth for a round of calls (a probe); when that
//     lowers the latency by more than tolerated, the limit goes down, and when
//     it doesn't, up. By Little's law throughput is concurrency over latency,
//     so this climbs to where it stops rising. Nothing is compared with a
//     minimum that may be long out of date, as TCP Vegas does (Brakmo and
//     Peterson, 1995); BBR probes, too (Cardwell et al., 2016).
//   - What all pools together do, which a pool among many can't find out by
//     probing: how far the latency is from a target, and whether calls are
//     refused. All pools see the same latency, and follow the law
//     d ln(limit) = gain (fairness ln(1 + 1/limit) - price), whose one
//     equilibrium is the same limit for all (Kelly, Maulloo and Tan, 1998, for
//     another utility; this one makes the noise of the share the same
//     at each number of pools).
//
// Below one call the limit is a share of a call: starts are paced.
type adaptive struct {
	min, max float64
	target   float64 // ln of seconds; +Inf: none
	random   func() float64

	value    float64 // the limit
	inFlight int

	// Slow start: the limit doubles with each round of calls until the
	// latency rises or a call is refused, or it is back at half of what it
	// was before an outage.
	starting bool
	resume   float64

	// Latencies are kept as logarithms: congestion multiplies them, and the
	// logarithm of a heavy tail is a light one.
	level   float64 // of the calls at the limit, lately
	base    float64 // of the calls in the probes
	based   float64 // how many samples base is made of
	probed  float64 // of the calls in the last probe
	typical float64 // seconds of any call, lately; zero: none was answered
	probing bool
	phase   float64 // starts left of the probe, or of the time between two

	// The tracking signal of Trigg and Leach (1967), |error| / deviation, is
	// near one when errors agree, and near zero when they are noise.
	err, deviation float64

	lows    float64 // samples in a row below three calls
	refused int     // in a row
	calm    float64 // rounds of calls since the last refusal

	// Pacing: starts are allowed while debt (in seconds of a call) is zero.
	debt      float64
	at        time.Time // when debt was brought up to date
	lastStart time.Time

	cost fit // of a call by its size
	size float64
}

// soon is a wait that a timer would make longer: what is owed stays owed, and is
// waited for when there is more of it.
const soon = 100 * time.Microsecond

// patience is how long a pool waits for its first answer before it makes another
// call.
const patience = time.Second

const (
	// By its own latency.
	probeDepth = 0.9  // of the limit
	probeEvery = 6    // rounds of calls; a probe is one
	tolerated  = 0.06 // rise of ln latency from the probe to the limit
	growth     = 0.12 // of ln limit in a round without a rise, times the gain
	outlier    = 0.5  // of ln latency: what is more counts as that (Huber, 1964)
	memory     = 32   // samples of base
	gain       = 0.1  // when errors are noise
	fastGain   = 0.4  // when they agree

	// Among other pools.
	sharedGain   = 0.05
	fairness     = 0.06
	slack        = 0.16    // ln of the target over the latency of a single pool
	refusedShare = 1.5     // the refusals that a pool bears, in shares
	calmAfter    = 100     // rounds without a refusal: there is no other pool
	shareOfCall  = 1. / 64 // the least limit
	mostOwed     = 10      // calls

	// When it starts.
	startRise  = 0.4    // of ln latency that ends slow start
	startOver  = 0.2    // ... over the aim, when there is a target
	startShare = 1. / 4 // the least that a late pool begins with
	unknown    = 0.1    // seconds of a call, before one was answered
	outage     = 8      // refusals in a row that are one

	failedFloor = 8 // calls, below which a mere failure is no sign of load
)

// newAdaptive returns a limit between low and high, which begins at low. If low
// is 1 the limit may go below one call. A call may take up to target on a
// healthy service; 0: not known. random is rand.Float64, or like it.
func newAdaptive(low, high int, target time.Duration, random func() float64) *adaptive {
	a := &adaptive{
		min: float64(low), max: float64(high), target: math.Inf(1), random: random,
		value: float64(low), starting: true, resume: math.Inf(1), calm: math.Inf(1),
	}
	if low <= 1 {
		a.min, a.value = shareOfCall, 1
	}
	if target > 0 {
		a.target = math.Log(target.Seconds())
	}
	return a
}

// limit is the number of calls that may be in flight, or the share of one.
func (a *adaptive) limit() float64 { return a.value }

// A flight is what the limit remembers of a call in flight.
type flight struct {
	at    time.Time
	since float64 // seconds since the start before
	probe bool
	full  bool // the limit was used
}

// An Outcome is what a call says of the service.
type Outcome uint8

// The outcomes of calls.
const (
	Answered   Outcome = iota
	Overloaded         // asked to come back later, or timed out
	Failed             // in a way that another attempt may help: from load, or not
	Ignored            // failed for reasons of its own: its duration means nothing
)

// ready says after how long the next call may start; negative: not before one
// has ended.
func (a *adaptive) ready(now time.Time) time.Duration {
	a.advance(now)
	allowed := a.allowed()
	if !a.paced() {
		switch {
		case a.inFlight == 0 || float64(a.inFlight+1) <= allowed:
			return 0
		case a.typical == 0 && float64(a.inFlight) < a.max:
			// None has been answered: one that hangs must not hold up
			// all others.
			return max(0, patience-now.Sub(a.lastStart))
		}
		return -1
	}
	if float64(a.inFlight) >= math.Ceil(allowed) {
		return -1
	}
	wait := time.Duration(math.Ceil(a.debt / allowed * 1e9))
	if wait < soon {
		return 0
	}
	return wait
}

// started begins a call, which ready has allowed.
func (a *adaptive) started(now time.Time) flight {
	a.advance(now)
	a.inFlight++
	allowed := a.allowed()
	if a.paced() {
		a.owe(1)
	}
	c := flight{
		at:    now,
		since: now.Sub(a.lastStart).Seconds(),
		probe: a.probing,
		full:  float64(a.inFlight) >= 0.75*math.Floor(allowed),
	}
	a.lastStart = now
	if c.full && !a.starting {
		a.phase--
		if a.phase <= 0 {
			a.probing = !a.probing && a.value >= 2
			a.phase = math.Max(4, a.value)
			if !a.probing {
				a.phase *= probeEvery
			}
		}
	}
	return c
}

// ended ends a call, of so many elements.
func (a *adaptive) ended(now time.Time, c flight, size int, o Outcome) {
	a.advance(now)
	a.inFlight--
	took := math.Max(now.Sub(c.at).Seconds(), 1e-6) // it has a logarithm
	switch o {
	case Overloaded:
		a.overload(took)
	case Failed:
		// A service that is busy may say so by failing; but where calls fail
		// whatever the load is, fewer of them help nothing.
		if least := math.Min(failedFloor, a.max); a.value > least {
			a.overload(took)
			a.set(math.Max(a.value, least))
		}
	case Answered:
		a.answer(c, took, size)
	}
}

func (a *adaptive) overload(took float64) {
	if a.calm > 2 {
		a.resume = a.value / 2
	}
	a.refused++
	a.calm = 0
	step := a.refusedGain()
	switch {
	case a.starting:
		a.begin(false)
		step = math.Ln2 * math.Max(1, a.value)
	case took > 2*a.healthy():
		step = math.Ln2 // it was paid for with its time
	}
	a.step(-step)
}

func (a *adaptive) answer(c flight, took float64, size int) {
	if a.refused >= outage && a.value < a.resume {
		a.begin(true)
		a.calm = math.Inf(1)
	}
	a.refused = 0
	a.calm += 1 / math.Max(1, a.value)
	y := a.normalised(took, size)
	if a.typical == 0 {
		a.level, a.base, a.probed, a.typical = y, y, y, took
	}
	a.typical += (took - a.typical) / 8
	if a.paced() {
		// As for a limit of whole calls, slower calls are fewer calls; and
		// more so when there are many pools, for they notice late.
		weight := math.Min(3, 1+0.1/a.value)
		a.owe(weight * (took/a.healthy() - 1))
	}
	if !c.full {
		return
	}
	switch {
	case a.starting:
		a.start(y)
	case c.probe:
		a.learn(y)
	default:
		a.follow(y, c)
	}
}

// start is slow start.
func (a *adaptive) start(y float64) {
	rise, most := y-a.base, startRise
	if a.aims() {
		rise, most = y-a.aim(), startOver
	}
	if a.based == 0 {
		a.err = rise
	}
	a.err += (rise - a.err) / 4
	a.based = math.Min(a.based+1, memory)
	if a.err > most {
		if a.aims() {
			// Where all latency is queueing, this share of the limit is
			// what the target allows.
			a.set(math.Max(a.value*math.Exp(-rise), math.Min(a.value, startShare)))
		} else {
			a.set(a.value / 2)
		}
		a.begin(false)
		return
	}
	a.level += (y - a.level) / a.window()
	a.base += (y - a.base) / a.based
	a.set(math.Min(2*a.value, a.value+1))
	if a.value == a.max || a.value >= a.resume {
		a.begin(false)
	}
}

// learn takes a sample of a probe.
func (a *adaptive) learn(y float64) {
	a.probed += clip(y-a.probed) / math.Max(4, a.value/2)
	// Far above the base, a probe that is better than the limit says that
	// there is congestion, and nothing of the latency without it. If it is no
	// better, then the service has become slower.
	far := math.Max(a.level, a.probed) > a.base+2*tolerated+0.1
	if far && a.level-a.probed > tolerated/2 {
		return
	}
	a.based = math.Min(a.based+1, memory)
	a.base += clip(y-a.base) / a.based
}

// follow takes a sample of a call at the limit.
func (a *adaptive) follow(y float64, c flight) {
	a.level += clip(y-a.level) / a.window()
	share := a.share()
	alone := !a.aims() && a.calm >= calmAfter
	if a.value >= 3 {
		a.lows = 0
	} else if a.lows++; alone && a.lows > 2*a.window() && a.level > a.base+4*tolerated {
		// There is nothing below to compare with: what is measured here is
		// what the service takes now.
		a.base, a.resume = a.level, math.Inf(1)
		a.set(1)
		a.begin(true)
		return
	}
	var err float64
	g := sharedGain
	// The view is chosen by the level, not by y: the lesser of two errors that
	// have the same noise is biased.
	own := a.own(a.level) + share
	switch {
	case a.aim()-a.level < own:
		err = a.aim() - y
	case a.calm < calmAfter && own > 0:
		err = refusedShare * share
		g = a.refusedGain()
	default:
		err = a.own(y) + share
		g = gain
	}
	a.err += (err - a.err) / a.window()
	a.deviation += (math.Abs(err) - a.deviation) / a.window()
	if alone {
		signal := a.err / a.deviation
		g = math.Max(g, fastGain*signal*signal)
	} else {
		// Each sample speaks for the time since the start before: slow
		// calls are fewer, but not less true.
		g *= math.Min(4, c.since/a.healthy()*a.value)
	}
	a.step(g * err)
}

// own is the error by the effect of this pool's own calls.
func (a *adaptive) own(y float64) float64 {
	if a.value < 2 {
		return growth
	}
	return growth * (1 - clip(y-a.base)/tolerated)
}

// refusedGain grows with the limit: a larger one has so many more samples, and
// so many fewer refusals.
func (a *adaptive) refusedGain() float64 { return math.Min(0.5, sharedGain*(1+a.value)) }

func (a *adaptive) share() float64 { return fairness * math.Log1p(1/a.value) }

func (a *adaptive) aims() bool { return !math.IsInf(a.target, 1) }

// aim is the latency that this limit deserves: a bit more for a lower one.
func (a *adaptive) aim() float64 { return a.target - slack + a.share() }

// step changes the logarithm of the limit, by so much for a round of calls.
func (a *adaptive) step(d float64) { a.set(a.value * math.Exp(d/math.Max(1, a.value))) }

func (a *adaptive) set(value float64) { a.value = math.Max(a.min, math.Min(value, a.max)) }

func (a *adaptive) begin(starting bool) {
	a.starting, a.probing, a.err = starting, false, 0
	a.phase = probeEvery * math.Max(4, a.value)
}

func (a *adaptive) window() float64 { return math.Max(12, a.value) }

// allowed is the limit, or what is left of it in a probe.
func (a *adaptive) allowed() float64 {
	if a.probing && a.value >= 2 {
		return math.Floor(math.Min(probeDepth*a.value, math.Ceil(a.value)-1))
	}
	return a.value
}

func (a *adaptive) paced() bool { return a.allowed() < 2 && !a.starting }

func (a *adaptive) advance(now time.Time) {
	a.debt = math.Max(0, a.debt-a.allowed()*now.Sub(a.at).Seconds())
	a.at = now
}

// owe adds so many calls to the debt; but about so many, for pools that start
// together must not stay together.
func (a *adaptive) owe(calls float64) {
	call := a.healthy()
	a.debt = math.Min(a.debt+calls*call*2*a.random(), mostOwed*call)
}

// healthy is what a call takes, in seconds, but no more than the target.
func (a *adaptive) healthy() float64 {
	if a.typical == 0 {
		return unknown
	}
	return math.Min(a.typical, math.Exp(a.target))
}

func clip(x float64) float64 { return math.Max(-outlier, math.Min(x, outlier)) }

// normalised is the logarithm of what a call of the usual size would have
// taken: a larger one is slower, and that is no congestion.
func (a *adaptive) normalised(took float64, size int) float64 {
	if a.typical == 0 {
		a.size = float64(size)
	}
	usual := a.cost.of(a.size)
	a.size += (float64(size) - a.size) / memory
	y := math.Log(took)
	if usual > 0 {
		now := a.cost.of(a.size)
		// What is known is of the size that was usual.
		change := math.Log(now / usual)
		a.level, a.base, a.probed = a.level+change, a.base+change, a.probed+change
		y += math.Log(now / a.cost.of(float64(size)))
	}
	if a.typical > 0 {
		a.cost.add(size, took/math.Exp(a.level)) // congestion is no cost
	}
	return y
}
