// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
)

// A row is what came of a contestant.
type row struct {
	Contestant string
	Elements   int
	Bundles    int64   // at once
	PerSecond  float64 // elements; the median of the rounds
	Share      float64 // of the service's limit
	Requests   int64
	MeanBatch  float64
	MostCalls  int   // at once, as the service saw them
	PeakHeap   int64 // in bytes
	CPUMicros  float64
	Windows    bool // each element came out in its own
	Timestamps bool // so, too

	// Elements of LostOf that have not come out when a call in fifty fails.
	// RetryLost is that with a retry loop around the calls of those that are
	// written by hand.
	LostOf, Lost, RetryLost int
	Failure                 string `json:",omitempty"` // of the job in which Lost were lost
}

// elements is how many a run takes, to last for about so long: whole batches in
// each bundle.
func (c contestant) elements(seconds float64) int {
	const whole = bundles * batchSize
	return whole * max(1, int(math.Round(c.rate*seconds/whole)))
}

// rows measures all contestants, each of them once a round, so that what else the
// machine does meets all.
func rows(ctx context.Context, o options) (all []row, err error) {
	s, err := startServer(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	rounds := make([][]row, len(contestants))
	for n := range o.rounds {
		for i, c := range contestants {
			o.progress("round %d of %d: %s", n+1, o.rounds, c.Name)
			r, err := c.race(ctx, s, o)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name, err)
			}
			rounds[i] = append(rounds[i], r)
		}
	}
	for i, c := range contestants {
		o.progress("windows and losses: %s", c.Name)
		slices.SortFunc(rounds[i], func(a, b row) int { return cmp.Compare(a.PerSecond, b.PerSecond) })
		r := rounds[i][len(rounds[i])/2]
		if err := c.judge(ctx, s, o, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		all = append(all, r)
	}
	o.progress("")
	return all, nil
}

// run lets a contestant do its job with a service of its own.
func (c contestant) run(ctx context.Context, s *server, failShare float64, o order) (result, error) {
	if err := s.renew(ctx, failShare); err != nil {
		return result{}, err
	}
	o.Contestant, o.URL = c.Name, s.url+"/names"
	r, err := command[order, result](ctx, "-run", o)
	if err == nil && r.WrongNames > 0 {
		err = fmt.Errorf("%d elements have another's name", r.WrongNames)
	}
	return r, err
}

// race measures the speed.
func (c contestant) race(ctx context.Context, s *server, o options) (row, error) {
	elements := c.elements(o.seconds)
	got, err := c.run(ctx, s, 0, order{Elements: elements, Attempts: 1})
	if err != nil {
		return row{}, err
	}
	if got.Failed != "" || got.Missing+got.Doubled > 0 {
		return row{}, fmt.Errorf("of %d elements %d have not come out, and %d twice: %s", elements, got.Missing, got.Doubled, got.Failed)
	}
	stats, err := s.stats(ctx)
	if err != nil {
		return row{}, err
	}
	perSecond := float64(elements) / got.Seconds
	return row{
		Contestant: c.Name, Elements: elements, Bundles: got.Bundles,
		PerSecond: perSecond, Share: perSecond / limit,
		Requests: stats.Calls, MeanBatch: stats.MeanBatch(), MostCalls: stats.MaxInFlight,
		PeakHeap: got.PeakHeap, CPUMicros: got.CPU / float64(elements) * 1e6,
	}, nil
}

// judge finds out what is kept of the windows, and when calls fail.
func (c contestant) judge(ctx context.Context, s *server, o options, r *row) error {
	const inWindows = 444 // each bundle is a batch, and a part of one
	got, err := c.run(ctx, s, 0, order{Elements: inWindows, Attempts: 1, Windows: true})
	if err != nil {
		return err
	}
	r.Windows = got.Failed == "" && got.WrongWindows == 0 && got.Missing+got.Doubled == 0
	r.Timestamps = got.Failed == "" && got.WrongTimes == 0

	r.LostOf = c.elements(min(o.seconds, 0.5))
	if r.MeanBatch > 1 {
		r.LostOf = max(r.LostOf, 40*batchSize) // of 40 calls, the 24th fails
	}
	for attempts, lost := range map[int]*int{1: &r.Lost, retryAttempts: &r.RetryLost} {
		if attempts > 1 && (r.ofBatchasync() || r.Contestant == none) {
			continue
		}
		got, err := c.run(ctx, s, 0.02, order{Elements: r.LostOf, Attempts: attempts})
		if err != nil {
			return err
		}
		*lost = got.Missing
		if got.Failed != "" {
			*lost = r.LostOf // what has come out of a job that fails is dropped
			if attempts == 1 {
				r.Failure = got.Failed
			}
		}
	}
	return nil
}

// retryAttempts is batchasync's default.
const retryAttempts = 4

func compare(ctx context.Context, o options) error {
	all, err := rows(ctx, o)
	if err != nil {
		return err
	}
	fmt.Print(table(all))
	fmt.Println("\nThe slow ones get fewer elements; what is said an element, or a second, is of those.")
	if err := o.write("compare", all, picture(all)); err != nil || !o.smoke {
		return err
	}
	return exact(all)
}

// exact returns an error unless the columns that are no measurements have what they
// must have.
func exact(all []row) error {
	var errs []error
	for _, r := range all {
		wrong := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s: %s", r.Contestant, fmt.Sprintf(format, args...)))
		}
		least, most := int64(r.Elements/batchSize), int64(r.Elements/batchSize)+4*bundles
		switch r.Contestant {
		case none:
			least, most = 0, 0
		case oneByOne, goroutines:
			least, most = int64(r.Elements), int64(r.Elements)
		case adaptive:
			most = int64(r.Elements) // it begins with small batches
		}
		// A busy machine may let Prism split a bundle, or a batch linger.
		if r.Requests < least || r.Requests > most {
			wrong("%d requests for %d elements, but it should be %d to %d", r.Requests, r.Elements, least, most)
		}
		if want := r.Contestant == none || r.Contestant == oneByOne || r.ofBatchasync() || r.Contestant == grouped; r.Windows != want {
			wrong("windows kept: %t, but it should be %t", r.Windows, want)
		}
		lost := r.LostOf
		if r.Contestant == none || r.ofBatchasync() {
			lost = 0
		}
		if r.Lost != lost {
			wrong("%d of %d elements lost, but it should be %d", r.Lost, r.LostOf, lost)
		}
		if r.RetryLost != 0 {
			wrong("%d elements lost in spite of retries", r.RetryLost)
		}
	}
	return errors.Join(errs...)
}
