// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// What the sources are asked for, in the same way as those beside them.
const (
	townRows  = 100_000
	lookups   = 100 // keys a batch
	lookupers = 8   // batches at once
)

// A town is a row.
type town struct {
	Code     string  `json:"code"     redis:"code"`
	Name     string  `json:"name"     redis:"name"`
	People   int64   `json:"people"   redis:"people"`
	Latitude float64 `json:"latitude" redis:"latitude"`
}

func townOf(i int) town {
	return town{codeOf(i), fmt.Sprint("the name of ", i), int64(i), float64(i) / 7}
}

func codeOf(i int) string { return fmt.Sprint("code-", i) }

// A lookup answers a batch of keys.
type lookup func(ctx context.Context, keys []string) (map[string]town, error)

// A match is a source of this repository, the best that we know to write by hand with
// the same driver, and the driver without batches.
type match struct {
	name                     string
	source, byHand, oneByOne lookup
}

// A sourceRow is what came of a match.
type sourceRow struct {
	Source             string
	KeysPerSecond      float64 // of the source, the median
	ByHand, OneByOne   float64 // so
	OfByHand           float64 // source ÷ by hand, the median of the rounds' ratios
	OfOneByOne         float64 // source ÷ one by one, so
	LowRatio, TopRatio float64 // source ÷ by hand, the quartiles
	CPU                float64 // ns a key in this process; of the source, the median
	CPUByHand          float64 // so
}

// sources measures them on servers of their own, which it starts.
func sources(ctx context.Context, o options) error {
	var all []sourceRow
	lines := [][]string{{"", "keys/s", "by hand", "one by one", "÷ by hand", "its quartiles", "÷ one by one", "CPU, ns/key", "by hand"}}
	err := play(func(t testing.TB) {
		for _, begin := range []func(context.Context, testing.TB) []match{sqlite, postgres, mariadb, redisServer} {
			if err := play(func(t testing.TB) {
				for _, m := range begin(ctx, t) {
					o.progress("%s", m.name)
					r, err := m.measure(ctx, o)
					if err != nil {
						t.Fatalf("%s: %v", m.name, err)
					}
					all = append(all, r)
					lines = append(lines, []string{
						r.Source, thousands(rounded(r.KeysPerSecond)), thousands(rounded(r.ByHand)), thousands(rounded(r.OneByOne)),
						fmt.Sprintf("%.3f", r.OfByHand), fmt.Sprintf("%.3f to %.3f", r.LowRatio, r.TopRatio), fmt.Sprintf("%.1f", r.OfOneByOne),
						thousands(rounded(r.CPU)), thousands(rounded(r.CPUByHand)),
					})
				}
			}); err != nil {
				t.Error(err)
			}
		}
	})
	o.progress("")
	fmt.Print(markdown(lines))
	return errors.Join(err, o.write("sources", all, nil))
}

// measure lets the three take turns, in another order each round: what was before
// leaves caches and garbage behind.
func (m match) measure(ctx context.Context, o options) (sourceRow, error) {
	ways := []lookup{m.source, m.byHand, m.oneByOne}
	rates, cpu := make([][]float64, len(ways)), make([][]float64, len(ways))
	turn := time.Duration(o.seconds * float64(time.Second))
	for round := range o.rounds + 1 {
		for _, way := range rand.Perm(len(ways)) {
			before := usageNow()
			keys, err := askFor(ctx, ways[way], turn)
			if err != nil {
				return sourceRow{}, err
			}
			after := usageNow()
			if round > 0 { // the first is to warm up
				rates[way] = append(rates[way], float64(keys)/after.at.Sub(before.at).Seconds())
				cpu[way] = append(cpu[way], float64(after.cpu-before.cpu)/float64(keys))
			}
		}
	}
	ratios := func(by int) (ratios []float64) {
		for i, rate := range rates[0] {
			ratios = append(ratios, rate/rates[by][i])
		}
		return ratios
	}
	return sourceRow{
		Source:        m.name,
		KeysPerSecond: quantile(rates[0], 0.5), ByHand: quantile(rates[1], 0.5), OneByOne: quantile(rates[2], 0.5),
		OfByHand: quantile(ratios(1), 0.5), OfOneByOne: quantile(ratios(2), 0.5),
		LowRatio: quantile(ratios(1), 0.25), TopRatio: quantile(ratios(1), 0.75),
		CPU: quantile(cpu[0], 0.5), CPUByHand: quantile(cpu[1], 0.5),
	}, nil
}

func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

// askFor asks for batches, several at once, for as long as a turn is, and returns how
// many keys have come back.
func askFor(ctx context.Context, look lookup, turn time.Duration) (int, error) {
	start := time.Now()
	var running sync.WaitGroup
	counts, errs := make([]int, lookupers), make([]error, lookupers)
	for i := range lookupers {
		running.Go(func() {
			keys := make([]string, lookups)
			for time.Since(start) < turn {
				first := rand.IntN(townRows)
				for i := range keys {
					keys[i] = codeOf((first + i*577) % townRows)
				}
				towns, err := look(ctx, keys)
				if err == nil && len(towns) != lookups {
					err = fmt.Errorf("%d of %d keys have come back", len(towns), lookups)
				}
				if err != nil {
					errs[i] = err
					return
				}
				counts[i] += lookups
			}
		})
	}
	running.Wait()
	keys := 0
	for _, n := range counts {
		keys += n
	}
	return keys, errors.Join(errs...)
}
