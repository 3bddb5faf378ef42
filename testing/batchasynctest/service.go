// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// This file must not import batchasync, nor Beam: batchasync's own tests use the
// service too. For the same reason its errors are plain types, which a caller
// turns into Permanent and RetryAfter.

package batchasynctest

import (
	"container/list"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"
)

// Overload says what a Service does with calls beyond its capacity.
type Overload int

const (
	// Queue lets a call wait for a free place, first come, first served.
	Queue Overload = iota

	// Refuse answers with an OverloadError at once.
	Refuse

	// Degrade serves every call, but slower: see ServiceConfig.DegradeFactor.
	Degrade
)

// A ServiceConfig says how a Service behaves. The zero value answers everything
// at once.
type ServiceConfig struct {
	// A call takes BaseLatency, and PerElement more for each element.
	BaseLatency time.Duration
	PerElement  time.Duration

	// Jitter is the share, 0 to 1, of that time that varies from call to call.
	// It is distributed exponentially, as time spent in queues is. The mean
	// stays what it is.
	Jitter float64

	// Seed is what Jitter and FailShare are drawn from. A call's draw depends on
	// the seed and the call's number only, so that a run can be repeated however
	// its goroutines were scheduled.
	Seed uint64

	// Capacity is the number of calls that are served side by side at full speed;
	// 0 means any number. Overload says what happens beyond it.
	Capacity int
	Overload Overload

	// DegradeFactor is the k of Degrade: with n calls in flight, a call takes
	// 1 + k(n−C)/C times as long. At 1, which 0 stands for, the calls share the
	// service, and its throughput stays that of the capacity C. Above 1 it
	// collapses: at 2 and twice the capacity, two thirds of it are left, and in
	// the end 1/k. Less than 1 would be throughput beyond the capacity. n is
	// counted once, when the call begins, itself included.
	DegradeFactor float64

	// MaxBatch is the most elements a call may have; 0 means any number. A
	// greater batch is refused with a TooLargeError at once.
	MaxBatch int

	// FailFirst is the number of calls, counted from the first, that fail with a
	// ServiceError after their latency.
	FailFirst int

	// FailShare is the share of calls, 0 to 1, that fail in the same way.
	FailShare float64

	// FailCall, if set, is asked about each call when it begins. If it returns an
	// error, the call fails with that error after its latency.
	FailCall func(call ServiceCall) error

	// FailElement, if set, is asked about each element. Those for which it
	// returns an error fail with that error; the others are answered.
	FailElement func(element any) error

	// AllOrNothing lets a call fail as a whole, as a transaction does, with the
	// error of its first bad element, whether FailElement found it or answer.
	AllOrNothing bool

	// Outages are the times in which a call that arrives fails at once with a
	// ServiceError. Calls that have begun before are answered.
	Outages []Outage

	// RetryAfter is what OverloadErrors and ServiceErrors ask the client to wait.
	RetryAfter time.Duration

	// Hang, if set, is asked about each call when it begins. A call for which it
	// returns true is never answered: it keeps its place until its ctx ends, even
	// with IgnoreContext.
	Hang func(call ServiceCall) bool

	// IgnoreContext lets calls return with the service's answer, however long
	// their ctx has ended before, as callers do that don't look at their ctx.
	IgnoreContext bool

	// Record lets the service count how often it was asked for each element; see
	// Service.Asked.
	Record bool
}

// An Outage begins and ends at these times since NewService; To is not in it.
type Outage struct{ From, To time.Duration }

// A ServiceCall is what the functions of a ServiceConfig learn of a call. They
// are called by the goroutines that call the service, several at once.
type ServiceCall struct {
	Number   int64 // from 1, in the order of arrival; refused calls count
	Size     int   // elements
	InFlight int   // calls in flight when it arrived, itself included
}

// problem returns what is wrong with c, or nothing.
func (c ServiceConfig) problem() string {
	switch {
	case c.BaseLatency < 0:
		return fmt.Sprintf("BaseLatency is %v: it must be at least 0", c.BaseLatency)
	case c.PerElement < 0:
		return fmt.Sprintf("PerElement is %v: it must be at least 0", c.PerElement)
	case !(c.Jitter >= 0 && c.Jitter <= 1): // in this form it finds NaN too
		return fmt.Sprintf("Jitter is %v: it must be from 0 to 1", c.Jitter)
	case c.Capacity < 0:
		return fmt.Sprintf("Capacity is %d: it must be at least 1, or 0 for any number of calls", c.Capacity)
	case c.Overload < Queue || c.Overload > Degrade:
		return fmt.Sprintf("Overload is %d: it must be Queue, Refuse or Degrade", c.Overload)
	case c.Overload != Queue && c.Capacity == 0:
		return "Overload is set without a Capacity"
	case c.DegradeFactor != 0 && c.Overload != Degrade:
		return fmt.Sprintf("DegradeFactor is %v without Overload: Degrade", c.DegradeFactor)
	case c.DegradeFactor != 0 && !(c.DegradeFactor >= 1 && c.DegradeFactor <= math.MaxFloat64):
		return fmt.Sprintf("DegradeFactor is %v: it must be at least 1, or 0 for 1", c.DegradeFactor)
	case c.MaxBatch < 0:
		return fmt.Sprintf("MaxBatch is %d: it must be at least 1, or 0 for any number of elements", c.MaxBatch)
	case c.FailFirst < 0:
		return fmt.Sprintf("FailFirst is %d: it must be at least 0", c.FailFirst)
	case !(c.FailShare >= 0 && c.FailShare <= 1):
		return fmt.Sprintf("FailShare is %v: it must be from 0 to 1", c.FailShare)
	case c.RetryAfter < 0:
		return fmt.Sprintf("RetryAfter is %v: it must be at least 0", c.RetryAfter)
	}
	for i, o := range c.Outages {
		if o.From < 0 || o.To <= o.From {
			return fmt.Sprintf("Outages[%d] is from %v to %v: it must begin at 0 or later, and end after that", i, o.From, o.To)
		}
	}
	return ""
}

// A Service simulates a service that answers bulk calls: a database, a key-value
// store, a model server. Call calls it.
//
// In a testing/synctest bubble its times are exact; make the Service within the
// bubble. In real time Go's timers on Linux fire up to a millisecond late (they
// wait in epoll, which counts in milliseconds), and a service with calls of a
// few milliseconds would seem to be a tenth slower than it is. What a call was
// late by, up to a millisecond, is therefore taken off calls that follow: single
// calls may be a millisecond too short or too long, throughput is right to one
// percent on a quiet machine (BenchmarkServiceThroughput). Only the timers'
// lateness is made good, not what clients spend between their calls.
type Service struct {
	config ServiceConfig
	start  time.Time

	mu      sync.Mutex // for bookkeeping only: nobody waits while holding it
	stats   ServiceStats
	serving int           // calls that have a place; they may exceed Capacity under Degrade only
	queue   list.List     // of *visit: calls that wait for a place
	late    time.Duration // what timers were late by, and no call has made good yet
	asked   map[any]int
}

// NewService returns a service that behaves as config says. It panics if that
// makes no sense.
func NewService(config ServiceConfig) *Service {
	if problem := config.problem(); problem != "" {
		panic("batchasynctest.NewService: " + problem)
	}
	if config.DegradeFactor == 0 {
		config.DegradeFactor = 1
	}
	return &Service{config: config, start: time.Now(), asked: map[any]int{}}
}

// ServiceStats are what has happened to a service. Each call is counted in Calls
// and, once it has ended, in exactly one of Answered, Failed, Refused and Late.
type ServiceStats struct {
	Calls    int64
	Elements int64 // in all calls, however they ended

	Answered int64 // if only in part
	Failed   int64 // as a whole
	Refused  int64 // beyond the capacity, or too large
	Late     int64 // its ctx had ended before the answer, even if that was returned

	InFlight    int // calls that are being served or wait in the queue
	MaxInFlight int // the most of them at once

	// Busy is the sum of the times that calls have spent in their places: all
	// calls that have ended, without their time in the queue. Divided by the time
	// gone by, it is the mean number of calls at once.
	Busy time.Duration
}

// MeanBatch is the mean number of elements a call; 0 if there was none.
func (s ServiceStats) MeanBatch() float64 {
	if s.Calls == 0 {
		return 0
	}
	return float64(s.Elements) / float64(s.Calls)
}

// Stats returns what has happened so far.
func (s *Service) Stats() ServiceStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Asked returns how often the service was asked for element, however those calls
// ended. It needs ServiceConfig.Record, and panics without. An element that Go
// can't compare, such as a slice, is known by the text that %+v makes of it.
func (s *Service) Asked(element any) int {
	if !s.config.Record {
		panic("batchasynctest: Service.Asked needs ServiceConfig.Record")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[recordKey(element)]
}

// recordKey is what an element is counted by.
func recordKey(element any) any {
	if !reflect.ValueOf(element).Comparable() {
		return fmt.Sprintf("%T %+v", element, element)
	}
	return element
}

// CallTime returns what a call with that many elements takes on average, as long
// as there are no more calls than the service has capacity.
func (s *Service) CallTime(batch int) time.Duration {
	return s.config.BaseLatency + time.Duration(batch)*s.config.PerElement
}

// MaxThroughput returns the most elements a second that the service can answer
// in batches of that size: capacity × batch ÷ call time. It is infinite if the
// capacity is, or if a call takes no time.
func (s *Service) MaxThroughput(batch int) float64 {
	if s.config.Capacity == 0 || s.CallTime(batch) == 0 {
		return math.Inf(1)
	}
	return float64(s.config.Capacity) * float64(batch) / s.CallTime(batch).Seconds()
}

// Call asks the service to answer batch: after the simulated latency it calls
// answer with each element. If ctx ends before, it returns the cause at once.
//
// The third result is set if the call failed as a whole. Otherwise the first has
// an answer for each element, and the second is nil, or has an error for each
// element that failed. In a caller this becomes, with the service in a variable
// of the package, for the caller itself travels as JSON:
//
//	func (Lookup) Call(ctx context.Context, batch []string) ([]int, error) {
//		answers, errs, err := batchasynctest.Call(ctx, service, batch, answer)
//		if overload, ok := errors.AsType[*batchasynctest.OverloadError](err); ok {
//			return nil, batchasync.RetryAfter(err, overload.RetryAfter)
//		}
//		if err != nil {
//			return nil, err
//		}
//		var failed batchasync.BatchError
//		for i, err := range errs {
//			if err != nil {
//				failed.Fail(i, err)
//			}
//		}
//		return answers, failed.Err()
//	}
func Call[In, Out any](ctx context.Context, s *Service, batch []In, answer func(In) (Out, error)) ([]Out, []error, error) {
	if s.config.Record {
		record(s, batch)
	}
	var outs []Out
	var errs []error
	err := s.call(ctx, len(batch), func() (err error) {
		outs, errs, err = answerAll(s.config, batch, answer)
		return err
	})
	return outs, errs, err
}

func record[In any](s *Service, batch []In) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range batch {
		s.asked[recordKey(in)]++
	}
}

// answerAll asks FailElement about all elements before it has the first one
// answered: a transaction with a bad element leaves no traces.
func answerAll[In, Out any](config ServiceConfig, batch []In, answer func(In) (Out, error)) ([]Out, []error, error) {
	var errs []error
	fail := func(i int, err error) {
		if errs == nil {
			errs = make([]error, len(batch))
		}
		errs[i] = err
	}
	if config.FailElement != nil {
		for i, in := range batch {
			err := config.FailElement(in)
			if err != nil && config.AllOrNothing {
				return nil, nil, err
			}
			if err != nil {
				fail(i, err)
			}
		}
	}
	outs := make([]Out, len(batch))
	for i, in := range batch {
		if errs != nil && errs[i] != nil {
			continue
		}
		out, err := answer(in)
		if err != nil && config.AllOrNothing {
			return nil, nil, err
		}
		if err != nil {
			fail(i, err)
			continue
		}
		outs[i] = out
	}
	return outs, errs, nil
}

// A visit is one call's stay at the service.
type visit struct {
	ServiceCall
	end   *int64        // the field of stats that counts how it ended
	turn  chan struct{} // closed when it has its place; nil if it had one at once
	place *list.Element // its place in the queue; nil outside; guarded by mu
	began time.Time     // zero as long as it has had no turn
}

// call is Call without type parameters.
func (s *Service) call(ctx context.Context, size int, answer func() error) error {
	v, err := s.arrive(ctx, size)
	if err != nil {
		return err
	}
	defer s.leave(v) // in a defer, for answer and the hooks may panic
	done := ctx.Done()
	if s.config.IgnoreContext {
		done = nil
	}
	late := func() error {
		v.end = &s.stats.Late
		return context.Cause(ctx)
	}

	if v.turn != nil {
		select {
		case <-v.turn:
		case <-done:
			return late()
		}
	}
	v.began = time.Now()
	if s.config.Hang != nil && s.config.Hang(v.ServiceCall) {
		<-ctx.Done()
		return late()
	}
	duration, err := s.draw(v.ServiceCall)
	if err == nil && s.config.FailCall != nil {
		err = s.config.FailCall(v.ServiceCall)
	}
	if !s.spend(done, v.began, duration) || done != nil && ctx.Err() != nil {
		return late()
	}
	if err == nil {
		err = answer()
	}
	switch {
	case ctx.Err() != nil:
		v.end = &s.stats.Late
	case err == nil:
		v.end = &s.stats.Answered
	}
	return err
}

// arrive lets a call in. Those that end at once never come to hold a place.
func (s *Service) arrive(ctx context.Context, size int) (*visit, error) {
	age := time.Since(s.start)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Calls++
	s.stats.Elements += int64(size)
	v := &visit{
		ServiceCall: ServiceCall{Number: s.stats.Calls, Size: size, InFlight: s.stats.InFlight + 1},
		end:         &s.stats.Failed,
	}

	if ctx.Err() != nil && !s.config.IgnoreContext {
		s.stats.Late++
		return nil, context.Cause(ctx)
	}
	for _, o := range s.config.Outages {
		if age >= o.From && age < o.To {
			s.stats.Failed++
			return nil, &ServiceError{Call: v.Number, Msg: "out of service", RetryAfter: s.config.RetryAfter}
		}
	}
	if s.config.MaxBatch > 0 && size > s.config.MaxBatch {
		s.stats.Refused++
		return nil, &TooLargeError{Size: size, Max: s.config.MaxBatch}
	}
	full := s.config.Capacity > 0 && s.serving >= s.config.Capacity
	if full && s.config.Overload == Refuse {
		s.stats.Refused++
		return nil, &OverloadError{InFlight: s.stats.InFlight, Capacity: s.config.Capacity, RetryAfter: s.config.RetryAfter}
	}

	s.stats.InFlight++
	s.stats.MaxInFlight = max(s.stats.MaxInFlight, s.stats.InFlight)
	if full && s.config.Overload == Queue {
		v.turn = make(chan struct{})
		v.place = s.queue.PushBack(v)
	} else {
		s.serving++
	}
	return v, nil
}

// leave gives the call's place to the first one in the queue. A call that ends
// in the queue may have been given a place at the same time: v.place tells, and
// the place goes on to the next.
func (s *Service) leave(v *visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*v.end++
	s.stats.InFlight--
	if !v.began.IsZero() {
		s.stats.Busy += time.Since(v.began)
	}
	if v.place != nil {
		s.queue.Remove(v.place)
		return
	}
	first := s.queue.Front()
	if first == nil {
		s.serving--
		return
	}
	next := s.queue.Remove(first).(*visit)
	next.place = nil
	close(next.turn)
}

// draw returns how long the call takes, and the error that FailFirst and
// FailShare have in store for it.
func (s *Service) draw(call ServiceCall) (time.Duration, error) {
	duration := float64(s.CallTime(call.Size))
	if over := call.InFlight - s.config.Capacity; s.config.Overload == Degrade && over > 0 {
		duration *= 1 + s.config.DegradeFactor*float64(over)/float64(s.config.Capacity)
	}
	fail := call.Number <= int64(s.config.FailFirst)
	if s.config.Jitter > 0 || s.config.FailShare > 0 {
		draws := rand.New(rand.NewPCG(s.config.Seed, uint64(call.Number)))
		fail = draws.Float64() < s.config.FailShare || fail
		duration *= 1 - s.config.Jitter + s.config.Jitter*draws.ExpFloat64()
	}
	if fail {
		return time.Duration(duration), &ServiceError{Call: call.Number, Msg: "unavailable", RetryAfter: s.config.RetryAfter}
	}
	return time.Duration(duration), nil
}

// timerGrain is how late a timer may fire for reasons of its own. What is beyond
// that comes from a machine that is too busy, and it would be dishonest to make
// it good.
const timerGrain = time.Millisecond

// spend waits until the call has taken that long, or returns false if done is
// closed before. It begins by making good what earlier timers were late by.
func (s *Service) spend(done <-chan struct{}, began time.Time, duration time.Duration) bool {
	s.mu.Lock()
	credit := min(s.late, timerGrain, duration)
	s.late -= credit
	s.mu.Unlock()
	until := began.Add(duration - credit)
	wait := time.Until(until)
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
		return false
	}
	late := min(time.Since(until), timerGrain)
	s.mu.Lock()
	// No more than the calls in flight can make good at once: a rush must not
	// shorten the calls of a quiet hour.
	s.late = min(s.late+late, time.Duration(s.stats.InFlight)*timerGrain)
	s.mu.Unlock()
	return true
}

// An OverloadError is how a service with Refuse refuses a call that it has no
// place for.
type OverloadError struct {
	InFlight   int // the calls that have the places
	Capacity   int
	RetryAfter time.Duration
}

func (e *OverloadError) Error() string {
	return fmt.Sprintf("service overloaded: %d calls in flight, capacity %d%s", e.InFlight, e.Capacity, retryAfter(e.RetryAfter))
}

// A ServiceError is how a call fails by FailFirst, by FailShare or in an outage.
// FailCall may return one too.
type ServiceError struct {
	Call       int64 // its number
	Msg        string
	RetryAfter time.Duration
}

func (e *ServiceError) Error() string {
	return fmt.Sprintf("service: call %d: %s%s", e.Call, e.Msg, retryAfter(e.RetryAfter))
}

func retryAfter(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf(" (retry after %v)", d)
}

// A TooLargeError is how a service refuses a batch beyond MaxBatch. To call
// again with the same batch is of no use.
type TooLargeError struct{ Size, Max int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("batch of %d elements is too large for the service, which takes at most %d", e.Size, e.Max)
}
