// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
)

func TestABadOptionPanicsWithItsNameItsValueAndWhatIsAllowed(t *testing.T) {
	for want, opts := range map[string][]batchasync.Option{
		"BatchSize(0): must be at least 1":                                  {batchasync.BatchSize(0)},
		"BatchBytes(-1): must be at least 1":                                {batchasync.BatchBytes(-1)},
		"Linger(-1s): must not be negative":                                 {batchasync.Linger(-time.Second)},
		"MaxInFlight(0): must be at least 1":                                {batchasync.MaxInFlight(0)},
		"MaxAttempts(0): must be at least 1":                                {batchasync.MaxAttempts(0)},
		"Timeout(0s): must be more than 0; leave it out for 30s":            {batchasync.Timeout(0)},
		"MaxElapsed(0s): must be more than 0; leave it out for no limit":    {batchasync.MaxElapsed(0)},
		"Backoff(0s, 1s): the initial wait must be more than 0":             {batchasync.Backoff(0, time.Second)},
		"Backoff(2s, 1s): the initial wait must be more than 0 and at most": {batchasync.Backoff(2*time.Second, time.Second)},
		"RetryInterval(0s): must be more than 0":                            {batchasync.RetryInterval(0)},
		"Cache(0, 1s): the entries must be at least 1":                      {batchasync.Cache(0, time.Second)},
		"Cache(1, 0s): the entries must be at least 1 and the time more":    {batchasync.Cache(1, 0)},
		"CacheBytes(0): must be at least 1":                                 {batchasync.Cache(1, time.Second), batchasync.CacheBytes(0)},
		"CacheBytes(5): there is no cache to bound":                         {batchasync.CacheBytes(5)},
		"AdaptiveInFlight(0, 5): the first must be at least 1":              {batchasync.AdaptiveInFlight(0, 5)},
		"AdaptiveInFlight(6, 5): the first must be at least 1 and at most":  {batchasync.AdaptiveInFlight(6, 5)},
		"AdaptiveInFlight and MaxInFlight exclude each other":               {batchasync.AdaptiveInFlight(1, 5), batchasync.MaxInFlight(4)},
		"TargetLatency(0s): must be more than 0":                            {batchasync.AdaptiveInFlight(1, 5), batchasync.TargetLatency(0)},
		"TargetLatency(1s): it steers the adaptive limit":                   {batchasync.MaxInFlight(4), batchasync.TargetLatency(time.Second)},
		"AdaptiveBatchSize(0, 5, 1s): the first must be at least 1":         {batchasync.AdaptiveBatchSize(0, 5, time.Second)},
		"AdaptiveBatchSize(6, 5, 1s): the first must be at least 1 and":     {batchasync.AdaptiveBatchSize(6, 5, time.Second)},
		"AdaptiveBatchSize(1, 5, 0s): ":                                     {batchasync.AdaptiveBatchSize(1, 5, 0)},
		"CircuitBreaker(0, 5, 1s): failures must be at least 1":             {batchasync.CircuitBreaker(0, 5, time.Second)},
		"CircuitBreaker(6, 5, 1s): failures must be at least 1 and at most": {batchasync.CircuitBreaker(6, 5, time.Second)},
		"CircuitBreaker(5, 5, 0s): ":                                        {batchasync.CircuitBreaker(5, 5, 0)},
		"RateLimit(0, 1): the rate must be more than 0":                     {batchasync.RateLimit(0, 1)},
		"RateLimit(NaN, 1): the rate must be more than 0":                   {batchasync.RateLimit(math.NaN(), 1)},
		"RateLimit(5, 0): the rate must be more than 0 and the burst at":    {batchasync.RateLimit(5, 0)},
		"RetryBudget(0): must be more than 0 and at most 1":                 {batchasync.RetryBudget(0)},
		"RetryBudget(1.5): must be more than 0 and at most 1":               {batchasync.RetryBudget(1.5)},
		"Hedge(0s): must be more than 0 and less than Timeout(30s)":         {batchasync.Hedge(0)},
		"Hedge(30s): must be more than 0 and less than Timeout(30s)":        {batchasync.Hedge(30 * time.Second)},
		"RetryInterval(1s) and Backoff(1s, 2s) exclude each other":          {batchasync.RetryInterval(time.Second), batchasync.Backoff(time.Second, 2*time.Second)},
	} {
		t.Run(want, func(t *testing.T) {
			require.Contains(t, panics(t, func() { batchasync.New(&script{}, opts...) }), "batchasync.New(*batchasync_test.script): "+want)
		})
	}
}

// unknown is never registered.
type unknown struct{}

func (*unknown) Call(context.Context, []int) ([]int, error) { return nil, nil }

// odd has methods that look like optional ones.
type odd struct{}

func (*odd) Call(context.Context, []int) ([]string, error) { return nil, nil }
func (*odd) Setup() error                                  { return nil }

// stuck can't travel.
type stuck struct{ Ready chan int }

func (*stuck) Call(context.Context, []int) ([]string, error) { return nil, nil }

// sizeless elements have no size that is known by itself, and no key.
type sizeless struct{}

func (sizeless) Call(context.Context, []int) ([]string, error) { return nil, nil }

// valued is registered by its pointer.
type valued struct{}

func (valued) Call(context.Context, []int) ([]string, error) { return nil, nil }

func init() {
	batchasync.Register(&valued{})
	batchasync.Register(&odd{})
	batchasync.Register(&stuck{})
	batchasync.Register(sizeless{})
}

func TestAMistakeInThePipelinePanicsAtConstructionWithItsRemedy(t *testing.T) {
	_, s := beam.NewPipelineWithRoot()
	ints, kvs := beam.Create(s, 1), beam.ParDo(s, &parityFn{}, beam.Create(s, 1))
	for want, build := range map[string]func(){
		"*batchasync_test.unknown is not registered for this transform; add to an init function: batchasync.Register(&batchasync_test.unknown{})": func() {
			batchasync.ParDo(s, &unknown{}, ints)
		},
		"add to an init function: batchasync.RegisterKV[string](&batchasync_test.script{})": func() {
			batchasync.ParDoKV[string](s, &script{}, kvs)
		},
		"batchasync.Func: github.com/batchasync/beam-batchasync/batchasync_test.unregistered is not registered; add to an init function: batchasync.RegisterFunc(unregistered)": func() {
			batchasync.Func(unregistered)
		},
		"batchasync.Func: github.com/batchasync/beam-batchasync/batchasync_test.TestAMistakeInThePipelinePanicsAtConstructionWithItsRemedy.func4.1 is a function literal, which can't travel: declare it by a name in its package, and register that": func() {
			batchasync.Func(func(context.Context, []int) ([]int, error) { return nil, nil })
		},
		"the caller's type is *batchasync_test.sizeless, but registered is batchasync_test.sizeless: pass that, or add to an init function: batchasync.Register(&batchasync_test.sizeless{})": func() {
			batchasync.ParDo(s, &sizeless{}, ints)
		},
		"the caller's type is batchasync_test.valued, but registered is *batchasync_test.valued: pass that, or add to an init function: batchasync.Register(batchasync_test.valued{})": func() {
			batchasync.ParDo(s, valued{}, ints)
		},
		"Hedge(1s): the caller does not say that a call may be made twice: give it a method Idempotent() bool": func() {
			batchasync.New(sizeless{}, batchasync.Hedge(time.Second))
		},
		"option 2 of 2 is nil: leave it out": func() { batchasync.New(&script{}, batchasync.Bisect(), nil) },
		"the caller is nil":                  func() { batchasync.ParDo(s, (*script)(nil), ints) },
		"*batchasync_test.odd has a method Setup with another signature, which would be ignored: make it Setup(context.Context) error": func() {
			batchasync.New(&odd{})
		},
		"can't travel to the workers as JSON": func() { batchasync.New(&stuck{}) },
		"BatchBytes(5): the size of a int is not known: give the caller a method ElementSize(int) int": func() {
			batchasync.New(sizeless{}, batchasync.BatchBytes(5))
		},
		"Dedup(): the key of a int is not known: give the caller a method Key(int) string": func() {
			batchasync.New(sizeless{}, batchasync.Dedup())
		},
		"FailBundle() and a failures output exclude each other": func() {
			batchasync.ParDoWithFailures(s, &script{}, ints, batchasync.FailBundle())
		},
		"the PCollection holds KV<string,int>, but the caller *batchasync_test.script takes int: use ParDoKV": func() {
			batchasync.ParDo(s, &script{}, kvs)
		},
		"the PCollection holds string, but the caller *batchasync_test.script takes int": func() {
			batchasync.ParDo(s, &script{}, beam.Create(s, "x"))
		},
		"the PCollection holds int, but the caller *batchasync_test.quote and its key take KV<string,int>": func() {
			batchasync.ParDoKV[string](s, &quote{}, ints)
		},
		"the PCollection is invalid": func() { batchasync.ParDo(s, &script{}, beam.PCollection{}) },
	} {
		t.Run(want[:min(len(want), 40)], func(t *testing.T) {
			require.Contains(t, panics(t, build), want)
		})
	}
}

func TestRegisterAfterInitTellsWhatToDo(t *testing.T) {
	if !runtime.Initialized() {
		beam.Init()
	}
	for verb, register := range map[string]func(){
		"Register":       func() { batchasync.Register(&unknown{}) },
		"RegisterKV":     func() { batchasync.RegisterKV[string](&unknown{}) },
		"RegisterFlat":   func() { batchasync.RegisterFlat(&unknownFlat{}) },
		"RegisterFlatKV": func() { batchasync.RegisterFlatKV[string](&unknownFlat{}) },
	} {
		require.Contains(t, panics(t, register), "batchasync."+verb+"(&batchasync_test.unknown")
		require.Contains(t, panics(t, register), "{}) came after beam.Init: call it in an init function")
	}
}

type unknownFlat struct{}

func (*unknownFlat) Call(context.Context, []int) ([][]int, error) { return nil, nil }

func unregistered(context.Context, []int) ([]int, error) { return nil, nil }

func panics(t *testing.T, f func()) (message string) {
	defer func() {
		v := recover()
		require.NotNil(t, v, "it should have panicked")
		message = strings.TrimSpace(v.(string))
	}()
	f()
	return ""
}

func TestAWorkerOfAnotherVersionRefusesAnOptionThatItDoesNotKnow(t *testing.T) {
	text, err := json.Marshal(batchasync.New(&script{}, batchasync.BatchSize(7)))
	require.NoError(t, err)
	known := new(batchasync.BatchAsyncDoFn[int, string, *script])
	require.NoError(t, json.Unmarshal(text, known))
	later := strings.Replace(string(text), `"BatchSize":7`, `"BatchSize":7,"BatchWeight":8`, 1)
	require.NotEqual(t, string(text), later)
	require.ErrorContains(t, json.Unmarshal([]byte(later), known), `build both from the same source): json: unknown field "BatchWeight"`)
}
