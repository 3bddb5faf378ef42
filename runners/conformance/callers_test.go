// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/batchasync/beam-batchasync/batchasync"
)

func init() {
	batchasync.Register(&quote{})
	batchasync.RegisterKV[string](&quote{})
	batchasync.Register(&spare{})
	batchasync.RegisterFlat(&letters{})
	batchasync.RegisterFunc(double)
	batchasync.Register(&outage{})
	batchasync.Register(&echo{})
	batchasync.Register(&wide{})
	batchasync.Register(&narrow{})
	batchasync.Register(&answering{})
}

// What the callers count of their own, in Call and with Call's ctx.
var (
	rowsCounter   = beam.NewCounter("suite", "rows")
	setupsCounter = beam.NewCounter("suite", "setups")
	lateCounter   = beam.NewCounter("suite", "late")
)

// quote quotes numbers, but for those that are a multiple of Refuse.
type quote struct {
	Left, Right string
	Refuse      int

	fresh atomic.Bool // set up, and not called yet
}

func (q *quote) Setup(context.Context) error {
	q.fresh.Store(true)
	return nil
}

func (q *quote) Call(ctx context.Context, batch []int) ([]string, error) {
	rowsCounter.Inc(ctx, int64(len(batch)))
	if q.fresh.CompareAndSwap(true, false) {
		setupsCounter.Inc(ctx, 1)
	}
	var failed batchasync.BatchError
	out := make([]string, len(batch))
	for i, v := range batch {
		out[i] = fmt.Sprint(q.Left, v, q.Right)
		if q.Refuse > 0 && v%q.Refuse == 0 {
			failed.Fail(i, batchasync.Permanent(fmt.Errorf("%d is refused", v)))
		}
	}
	return out, failed.Err()
}

func quotes() *quote { return &quote{Left: "<", Right: ">"} }

func refusing(multiples int) *quote {
	q := quotes()
	q.Refuse = multiples
	return q
}

// spare is quote without counters, for where quote is counted already.
type spare struct{ Refuse int }

func (q *spare) Call(_ context.Context, batch []int) ([]string, error) {
	var failed batchasync.BatchError
	out := make([]string, len(batch))
	for i, v := range batch {
		out[i] = fmt.Sprintf("<%d>", v)
		if q.Refuse > 0 && v%q.Refuse == 0 {
			failed.Fail(i, batchasync.Permanent(fmt.Errorf("%d is refused", v)))
		}
	}
	return out, failed.Err()
}

// letters answers a number n with n outputs.
type letters struct{}

func (*letters) Call(_ context.Context, batch []int) ([][]string, error) {
	out := make([][]string, len(batch))
	for i, n := range batch {
		for range n {
			out[i] = append(out[i], fmt.Sprint(n))
		}
	}
	return out, nil
}

func double(_ context.Context, batch []int) ([]int, error) {
	out := make([]int, len(batch))
	for i, v := range batch {
		out[i] = 2 * v
	}
	return out, nil
}

// outage is a service that is down for so many calls in the worker process.
type outage struct {
	Calls int64

	made atomic.Int64
}

func (o *outage) Call(_ context.Context, batch []int) ([]int, error) {
	if o.made.Add(1) <= o.Calls {
		return nil, errors.New("out of service")
	}
	return batch, nil
}

// echo answers each number with itself. Of its batches, which hold Batch numbers
// in a row, each fourth one waits until the two behind it have been answered.
type echo struct {
	Batch int

	answered [1 << 16]atomic.Bool // by the batch's number
}

func (e *echo) Call(ctx context.Context, batch []int) ([]int, error) {
	number := batch[0] / e.Batch
	if number%4 == 0 {
		// In a bundle that ends before, there are none behind it.
		wait, stop := context.WithTimeout(ctx, 100*time.Millisecond)
		defer stop()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for !e.answered[number+1].Load() || !e.answered[number+2].Load() {
			select {
			case <-tick.C:
				continue
			case <-wait.Done():
				lateCounter.Inc(ctx, 1)
			}
			break
		}
	}
	e.answered[number].Store(true)
	return batch, nil
}

// wide answers with the length of a text, and refuses calls of more bytes, but
// for one that is longer by itself.
type wide struct{ Bytes int }

func (w *wide) Call(_ context.Context, batch []string) ([]int, error) {
	out, sum := make([]int, len(batch)), 0
	for i, text := range batch {
		out[i] = len(text)
		sum += len(text)
	}
	if sum > w.Bytes && len(batch) > 1 {
		return nil, batchasync.Permanent(fmt.Errorf("%d bytes in %d texts: more than %d", sum, len(batch), w.Bytes))
	}
	return out, nil
}

// narrow refuses more calls at once than Limit, in the whole worker process.
type narrow struct {
	Limit int64

	calls atomic.Int64
}

func (n *narrow) Call(ctx context.Context, batch []int) ([]int, error) {
	defer n.calls.Add(-1)
	if now := n.calls.Add(1); now > n.Limit {
		return nil, batchasync.Permanent(fmt.Errorf("%d calls at once: more than %d", now, n.Limit))
	}
	timer := time.NewTimer(time.Millisecond) // as long as a call takes
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return batch, nil
}

// answering answers each number with itself, and lets a patientFn know.
type answering struct{ Test string }

func (a *answering) Call(_ context.Context, batch []int) ([]int, error) {
	signalsMu.Lock()
	defer signalsMu.Unlock()
	if signal := signalOf(a.Test); !closed(signal) {
		close(signal)
	}
	return batch, nil
}

// The signals are closed at the first call of a test's answering, in the worker
// process.
var (
	signalsMu sync.Mutex
	signals   = map[string]chan struct{}{}
)

func called(test string) <-chan struct{} {
	signalsMu.Lock()
	defer signalsMu.Unlock()
	return signalOf(test)
}

func signalOf(test string) chan struct{} {
	if signals[test] == nil {
		signals[test] = make(chan struct{})
	}
	return signals[test]
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
