// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"fmt"
	"reflect"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync/internal/attempt"
	"github.com/batchasync/beam-batchasync/batchasync/internal/pool"
	"github.com/batchasync/beam-batchasync/batchasync/internal/ring"
)

// An Option sets one of a transform's settings. A value that is not allowed
// panics when the transform is constructed, with the option's name.
type Option func(*settings)

// settings are a transform's options. They travel as JSON with the DoFn.
type settings struct {
	BatchSize     int
	BatchBytes    int
	Linger        time.Duration
	MaxInFlight   int
	Adaptive      *pool.Adaptive
	TargetLatency time.Duration
	Sizes         *pool.Sizes
	Ordered       bool
	Timeout       time.Duration
	MaxElapsed    time.Duration
	MaxAttempts   int
	BackoffFrom   time.Duration
	BackoffTo     time.Duration
	RetryInterval time.Duration
	Bisect        bool
	FailBundle    bool
	AcrossBundles bool
	Dedup         bool
	CacheEntries  int
	CacheTTL      time.Duration
	CacheBytes    int
	Breaker       *pool.BreakerConfig
	PerSecond     float64
	Burst         int
	RetryBudget   float64
	Hedge         time.Duration

	// Which were given, for those that exclude each other or whose zero is
	// a value that nobody may give.
	given map[string]bool
}

func newSettings(opts []Option) *settings {
	s := &settings{
		BatchSize:   100,
		Linger:      50 * time.Millisecond,
		Timeout:     30 * time.Second,
		MaxAttempts: 4,
		BackoffFrom: 100 * time.Millisecond,
		BackoffTo:   10 * time.Second,
		given:       map[string]bool{},
	}
	for i, opt := range opts {
		if opt == nil {
			panic(fmt.Sprintf("batchasync: option %d of %d is nil: leave it out", i+1, len(opts)))
		}
		opt(s)
	}
	if !s.given["MaxInFlight"] && s.Adaptive == nil {
		s.Adaptive = &pool.Adaptive{Min: 1, Max: 64}
	}
	if s.Adaptive != nil {
		s.Adaptive.Target = s.TargetLatency
		s.MaxInFlight = s.Adaptive.Max
	}
	if s.Sizes != nil {
		if s.given["BatchSize"] {
			s.Sizes.Max = min(s.Sizes.Max, s.BatchSize)
			s.Sizes.Min = min(s.Sizes.Min, s.BatchSize)
		}
		s.BatchSize = s.Sizes.Max
	}
	return s
}

// BatchSize is the most elements in a call, at least 1. Default: 100.
func BatchSize(n int) Option {
	return func(s *settings) { s.BatchSize = n; s.given["BatchSize"] = true }
}

// BatchBytes is the most bytes in a call, at least 1: the sum of the caller's
// ElementSize, or of the lengths of strings or []byte. It is never overshot,
// except by one element that is larger by itself; that goes alone. Default: no
// limit.
func BatchBytes(n int) Option {
	return func(s *settings) { s.BatchBytes = n; s.given["BatchBytes"] = true }
}

// Linger is how long an open batch waits for more elements, counted from its
// first one; after that it is sent as soon as a call may start. 0: a batch is
// sent only when it is full or its bundle ends. Default: 50 ms.
//
// It bounds how late a result is, within what Beam allows: a result leaves in
// the ProcessElement or FinishBundle that comes next.
func Linger(d time.Duration) Option {
	return func(s *settings) { s.Linger = d }
}

// MaxInFlight is the most calls at once, at least 1, for this transform in the
// whole worker process, whatever the number of its bundles. A batch that waits
// between two attempts does not count. Nor does a call that has overrun its
// Timeout and ignores its context, from 100 ms after that on: nothing can end it.
// Default: AdaptiveInFlight(1, 64).
//
// A bundle keeps at most MaxInFlight + 2 batches in memory; with
// AdaptiveInFlight, max + 2.
func MaxInFlight(n int) Option {
	return func(s *settings) { s.MaxInFlight = n; s.given["MaxInFlight"] = true }
}

// AdaptiveInFlight finds the number of calls at once that the service bears
// best, between min and max, and follows it when it moves, in place of
// MaxInFlight. 1 ≤ min ≤ max. It looks at what its own calls do to their latency
// (for batches of the same size), and at the service's own signals: a RetryAfter or
// a timeout. An error that another attempt may help counts too, but only above 8
// calls, for it may have nothing to do with the load: a service that refuses what
// is too much should be answered for with RetryAfter. With a min of 1 the limit can
// go below one call, when many workers share a service that bears no more: then
// calls start at intervals.
//
// Many workers that start at once never see the service without load: give
// TargetLatency, if the service does not refuse what is too much. Default: 1, 64.
func AdaptiveInFlight(min, max int) Option {
	return func(s *settings) { s.Adaptive = &pool.Adaptive{Min: min, Max: max}; s.given["AdaptiveInFlight"] = true }
}

// TargetLatency is what a call may take on a healthy service, more than 0: it
// steers the adaptive limit, which keeps calls near it. A good value is 1.5 times
// what a call takes on the unloaded service. Default: none.
func TargetLatency(d time.Duration) Option {
	return func(s *settings) { s.TargetLatency = d; s.given["TargetLatency"] = true }
}

// AdaptiveBatchSize finds the number of elements a call, between min and max,
// for which a call takes about target and at most a twentieth of it is its fixed
// cost, as BatchElements of Beam's Python SDK does; by the median, so that a few
// slow calls mislead nothing. 1 ≤ min ≤ max, target > 0. It is never above
// BatchSize or BatchBytes if they are given, nor above what the service has
// refused with TooLarge. Default: BatchSize.
func AdaptiveBatchSize(min, max int, target time.Duration) Option {
	return func(s *settings) { s.Sizes = &pool.Sizes{Min: min, Max: max, Target: target} }
}

// Ordered lets the results of a bundle leave in the order in which its elements
// arrived. A slow batch then holds back those behind it. Default: batches leave
// as they are answered; the elements of one batch keep their order.
func Ordered() Option {
	return func(s *settings) { s.Ordered = true }
}

// Timeout bounds one attempt, more than 0. After it the attempt has failed, and
// is tried again as after any other error; an answer that comes later is
// dropped. Default: 30 s.
func Timeout(d time.Duration) Option {
	return func(s *settings) { s.Timeout = d }
}

// MaxElapsed bounds all attempts of a batch, with the waits between them,
// counted from the start of the first, more than 0. No attempt starts that
// would start later, and none lasts longer. Default: no limit but MaxAttempts.
func MaxElapsed(d time.Duration) Option {
	return func(s *settings) { s.MaxElapsed = d; s.given["MaxElapsed"] = true }
}

// MaxAttempts is the most calls that are made for a batch, with the first, at
// least 1. 1: no retry. Default: 4.
func MaxAttempts(n int) Option {
	return func(s *settings) { s.MaxAttempts = n }
}

// Backoff sets the waits between attempts: a random time between 0 and a
// ceiling, which is initial after the first attempt, doubles with each further
// one, and is never above max ("full jitter"). 0 < initial ≤ max. Default:
// 100 ms to 10 s.
func Backoff(initial, max time.Duration) Option {
	return func(s *settings) { s.BackoffFrom, s.BackoffTo = initial, max; s.given["Backoff"] = true }
}

// RetryInterval is a fixed wait between attempts, more than 0, in place of
// Backoff. Many workers that fail together then come back together.
func RetryInterval(d time.Duration) Option {
	return func(s *settings) { s.RetryInterval = d; s.given["RetryInterval"] = true }
}

// Bisect halves a batch that fails as a whole for good, and each half again, so
// that in the end only the elements fail that are the reason, each alone. Each
// half has MaxAttempts of its own, within the same MaxElapsed: one bad element
// among 100 costs about 14 batches more, but a service that is down is asked
// 199 times for each batch of 100, so mark with Permanent what another attempt
// can't help, and set MaxElapsed. Default: off.
func Bisect() Option {
	return func(s *settings) { s.Bisect = true }
}

// Dedup asks for elements that have the same Key once: those of a batch, and
// those that another batch of the worker process is asking for at that moment;
// each still gets its own result, or its own failure. BatchSize counts the
// elements before that. The result is one value for all of them, so what comes
// behind must not change it in place. Default: off.
func Dedup() Option {
	return func(s *settings) { s.Dedup = true }
}

// Cache keeps the last answers in the memory of the worker process, by the
// element's Key: at most so many entries, at least 1, each for at most ttl, more
// than 0. It includes Dedup. An element whose answer is kept takes no place in a
// batch (in an Ordered bundle it may, to keep its turn, but is not asked for).
// Failures are not kept, unless the caller's Cacheable says so. The result is one
// value for all, so what comes behind must not change it in place. Default: off.
//
// The cache is otter's.
func Cache(entries int, ttl time.Duration) Option {
	return func(s *settings) { s.CacheEntries, s.CacheTTL = entries, ttl; s.given["Cache"] = true }
}

// CacheBytes bounds the keys and results that Cache keeps, at least 1: by the
// caller's ResultSize, or by the lengths of strings and []byte. Default: no bound
// but the entries.
func CacheBytes(n int) Option {
	return func(s *settings) { s.CacheBytes = n; s.given["CacheBytes"] = true }
}

// CircuitBreaker stops sending when failures of the last calls calls have
// failed: timed out, or ended with an error that another attempt may help. After
// delay (and up to a fifth more or less, so that many workers don't come back
// together) one call is let through as a probe, and its success lets all of them
// go on. Batches wait meanwhile, for as long as it takes: neither that nor a probe
// that fails is an attempt of theirs. Only MaxElapsed bounds it, for those that
// have been tried before. The wait counts as throttling, and the log says when
// the breaker opens and closes. 1 ≤ failures ≤ calls, delay > 0. Default: off.
//
// The breaker is failsafe-go's. It is one for each transform and worker process,
// as the limits below are.
func CircuitBreaker(failures, calls int, delay time.Duration) Option {
	return func(s *settings) { s.Breaker = &pool.BreakerConfig{Failures: failures, Of: calls, Delay: delay} }
}

// RateLimit is the most calls a second, retries and hedges included, more than
// 0; after a pause, burst calls may start at once, at least 1. Each worker
// process has the rate for itself: divide the service's by the most workers.
// Default: no limit.
func RateLimit(perSecond float64, burst int) Option {
	return func(s *settings) { s.PerSecond, s.Burst = perSecond, burst; s.given["RateLimit"] = true }
}

// RetryBudget bounds the retries of all batches together to a share of the
// first attempts, 0 < share ≤ 1: when everything fails, retries would otherwise
// multiply the load on a service that can't bear it. A retry that has no room
// waits, until other batches' first attempts or, once a second, time makes some;
// MaxElapsed bounds that wait. Default: no bound.
func RetryBudget(share float64) Option {
	return func(s *settings) { s.RetryBudget = share; s.given["RetryBudget"] = true }
}

// Hedge makes a call a second time, with the same elements and the same batch
// id, when it has not been answered after that time, more than 0 and less than
// Timeout; the first answer counts, and the other is dropped. Set it near the
// 95th percentile of call_ms: a hedge is made only while the limit of calls at
// once (an adaptive one begins with a single call), RateLimit and RetryBudget have
// room for it. The caller must say that this does no harm, by a method
// Idempotent() bool that returns true. Default: off.
func Hedge(after time.Duration) Option {
	return func(s *settings) { s.Hedge = after; s.given["Hedge"] = true }
}

// AcrossBundles lets all bundles of the transform that are open in the worker
// process fill the same batches: where a runner hands over bundles of one or a
// few elements, as streaming runners do, batches would otherwise be as small.
// Each bundle still emits its own results, and waits in FinishBundle for these
// alone. Its last batch is not sent at its end, though, but when it is full or
// after Linger, for other bundles may fill it (with Linger(0) at its end).
//
// One bundle's elements do not harm another's: a batch that fails for good as a
// whole is halved, as by Bisect, until it is known which elements fail; those
// that have been answered don't wait for others that are tried again; and the
// elements of a bundle that has failed elsewhere are taken out before they are
// sent. InfoFrom tells no bundle. Default: each bundle fills batches of its own.
func AcrossBundles() Option {
	return func(s *settings) { s.AcrossBundles = true }
}

// FailBundle makes the first element that fails for good fail its bundle, with
// a *CallError, in place of being emitted as a Failure. It is for New; ParDo
// does it by itself, and with a failures output it makes no sense.
func FailBundle() Option {
	return func(s *settings) { s.FailBundle = true }
}

// abilities are what a caller offers beside Call.
type abilities struct {
	in         reflect.Type // its elements
	sized      bool         // BatchBytes can know their size
	keyed      bool         // Dedup and Cache can know their key
	out        reflect.Type // its results
	weighed    bool         // CacheBytes can know their size
	idempotent bool         // a call may be made twice
}

// validate returns what is wrong with the settings for such a caller.
func (s *settings) validate(caller abilities) error {
	atLeast1 := func(name string, n int) error {
		if n < 1 {
			return fmt.Errorf("%s(%d): must be at least 1", name, n)
		}
		return nil
	}
	positive := func(name string, d time.Duration, off string) error {
		if d <= 0 {
			return fmt.Errorf("%s(%v): must be more than 0; %s", name, d, off)
		}
		return nil
	}
	checks := []error{
		atLeast1("BatchSize", s.BatchSize),
		atLeast1("MaxInFlight", s.MaxInFlight),
		atLeast1("MaxAttempts", s.MaxAttempts),
		positive("Timeout", s.Timeout, "leave it out for 30s"),
	}
	if s.given["BatchBytes"] {
		checks = append(checks, atLeast1("BatchBytes", s.BatchBytes))
		if !caller.sized {
			checks = append(checks, fmt.Errorf("BatchBytes(%d): the size of a %v is not known: give the caller a method ElementSize(%v) int", s.BatchBytes, caller.in, caller.in))
		}
	}
	if s.Dedup && !caller.keyed {
		checks = append(checks, fmt.Errorf("Dedup(): the key of a %v is not known: give the caller a method Key(%v) string", caller.in, caller.in))
	}
	if s.given["Cache"] {
		if s.CacheEntries < 1 || s.CacheTTL <= 0 {
			checks = append(checks, fmt.Errorf("Cache(%d, %v): the entries must be at least 1 and the time more than 0; leave it out for none", s.CacheEntries, s.CacheTTL))
		}
		if !caller.keyed {
			checks = append(checks, fmt.Errorf("Cache(%d, %v): the key of a %v is not known: give the caller a method Key(%v) string", s.CacheEntries, s.CacheTTL, caller.in, caller.in))
		}
	}
	if s.given["CacheBytes"] {
		checks = append(checks, atLeast1("CacheBytes", s.CacheBytes))
		if !s.given["Cache"] {
			checks = append(checks, fmt.Errorf("CacheBytes(%d): there is no cache to bound: add Cache, or leave it out", s.CacheBytes))
		}
		if !caller.weighed {
			checks = append(checks, fmt.Errorf("CacheBytes(%d): the size of a %v is not known: give the caller a method ResultSize(%v) int", s.CacheBytes, caller.out, caller.out))
		}
	}
	if s.Linger < 0 {
		checks = append(checks, fmt.Errorf("Linger(%v): must not be negative; 0 means that only size and the bundle's end seal a batch", s.Linger))
	}
	if s.given["MaxElapsed"] {
		checks = append(checks, positive("MaxElapsed", s.MaxElapsed, "leave it out for no limit"))
	}
	if s.given["Backoff"] && (s.BackoffFrom <= 0 || s.BackoffFrom > s.BackoffTo) {
		checks = append(checks, fmt.Errorf("Backoff(%v, %v): the initial wait must be more than 0 and at most the second", s.BackoffFrom, s.BackoffTo))
	}
	if s.given["RetryInterval"] {
		checks = append(checks, positive("RetryInterval", s.RetryInterval, "leave it out for an exponential backoff"))
		if s.given["Backoff"] {
			checks = append(checks, fmt.Errorf("RetryInterval(%v) and Backoff(%v, %v) exclude each other: leave one out", s.RetryInterval, s.BackoffFrom, s.BackoffTo))
		}
	}
	if a := s.Adaptive; a != nil && (a.Min < 1 || a.Min > a.Max) {
		checks = append(checks, fmt.Errorf("AdaptiveInFlight(%d, %d): the first must be at least 1 and at most the second", a.Min, a.Max))
	}
	if s.given["AdaptiveInFlight"] && s.given["MaxInFlight"] {
		checks = append(checks, fmt.Errorf("AdaptiveInFlight and MaxInFlight exclude each other: leave one out"))
	}
	if s.given["TargetLatency"] {
		checks = append(checks, positive("TargetLatency", s.TargetLatency, "leave it out for none"))
		if s.Adaptive == nil {
			checks = append(checks, fmt.Errorf("TargetLatency(%v): it steers the adaptive limit, but MaxInFlight is set: use AdaptiveInFlight, or leave it out", s.TargetLatency))
		}
	}
	if z := s.Sizes; z != nil && (z.Min < 1 || z.Min > z.Max || z.Target <= 0) {
		checks = append(checks, fmt.Errorf("AdaptiveBatchSize(%d, %d, %v): the first must be at least 1 and at most the second, and the target more than 0", z.Min, z.Max, z.Target))
	}
	if b := s.Breaker; b != nil && (b.Failures < 1 || b.Failures > b.Of || b.Delay <= 0) {
		checks = append(checks, fmt.Errorf("CircuitBreaker(%d, %d, %v): failures must be at least 1 and at most calls, and delay more than 0; leave it out for none", b.Failures, b.Of, b.Delay))
	}
	if s.given["RateLimit"] && (!(s.PerSecond > 0) || s.Burst < 1) {
		checks = append(checks, fmt.Errorf("RateLimit(%v, %d): the rate must be more than 0 and the burst at least 1; leave it out for no limit", s.PerSecond, s.Burst))
	}
	if s.given["RetryBudget"] && !(s.RetryBudget > 0 && s.RetryBudget <= 1) {
		checks = append(checks, fmt.Errorf("RetryBudget(%v): must be more than 0 and at most 1; leave it out for no bound, or use MaxAttempts(1) for no retry", s.RetryBudget))
	}
	if s.given["Hedge"] {
		if s.Hedge <= 0 || s.Hedge >= s.Timeout {
			checks = append(checks, fmt.Errorf("Hedge(%v): must be more than 0 and less than Timeout(%v); leave it out for none", s.Hedge, s.Timeout))
		}
		if !caller.idempotent {
			checks = append(checks, fmt.Errorf("Hedge(%v): the caller does not say that a call may be made twice: give it a method Idempotent() bool that returns true, if that is so", s.Hedge))
		}
	}
	for _, err := range checks {
		if err != nil {
			return err
		}
	}
	return nil
}

// memory is what the options ask a RememberingCaller for, if for anything.
func (s *settings) memory() (m Memory, wanted bool) {
	return Memory{s.CacheEntries, s.CacheTTL, s.CacheBytes}, s.Dedup || s.CacheEntries > 0
}

func (s *settings) limits() ring.Limits {
	return ring.Limits{
		// Two more than can be in flight: one that is filled and one that
		// is taken out, so that neither waits for the other.
		Slots:   s.MaxInFlight + 2,
		Size:    s.BatchSize,
		Bytes:   s.BatchBytes,
		Linger:  s.Linger,
		Ordered: s.Ordered && !s.AcrossBundles, // a member puts its own in order
	}
}

func (s *settings) policy() attempt.Policy {
	return attempt.Policy{
		Timeout:     s.Timeout,
		MaxElapsed:  s.MaxElapsed,
		MaxAttempts: s.MaxAttempts,
		Initial:     s.BackoffFrom,
		Max:         s.BackoffTo,
		Fixed:       s.RetryInterval,
		Bisect:      s.Bisect || s.AcrossBundles,
		FailFast:    s.FailBundle && !s.AcrossBundles,
		Early:       s.AcrossBundles,
		Hedge:       s.Hedge,
	}
}

func (s *settings) poolLimits() pool.Limits {
	return pool.Limits{
		InFlight:    s.MaxInFlight,
		Adaptive:    s.Adaptive,
		Sizes:       s.Sizes,
		Breaker:     s.Breaker,
		PerSecond:   s.PerSecond,
		Burst:       s.Burst,
		RetryBudget: s.RetryBudget,
	}
}
