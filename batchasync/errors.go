// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync/internal/attempt"
	"github.com/batchasync/beam-batchasync/batchasync/internal/guard"
)

// Permanent marks an error of Call, or of one element, as one that another
// attempt would only repeat: bad input, a missing table, no right. It is not
// retried. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }

// RetryAfter marks an error of Call, or of one element, with the time after
// which the service asks to be tried again: it replaces the backoff. The
// attempt counts towards MaxAttempts; if MaxElapsed would be over by then, the
// batch is given up at once. Without MaxElapsed the wait has no bound, and the
// bundle waits with it: cap what a service may ask for. A d of 0 or less leaves the backoff as it is.
// RetryAfter(nil, d) is nil.
func RetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{error: err, after: max(d, 0)}
}

type retryAfterError struct {
	error
	after time.Duration
}

func (e *retryAfterError) Unwrap() error { return e.error }

// TooLarge marks an error of Call that the service has refused the batch with
// for its size, such as HTTP's 413: it is not sent again as it is, but in halves,
// with or without Bisect, and AdaptiveBatchSize learns of it. A single element
// that is too large fails for good. TooLarge(nil) is nil.
func TooLarge(err error) error {
	if err == nil {
		return nil
	}
	return &tooLargeError{err}
}

type tooLargeError struct{ error }

func (e *tooLargeError) Unwrap() error { return e.error }

// Halve marks an error of Call that some elements of the batch are the reason
// for, and it is not known which: the batch is not sent again as it is, but in
// halves, as Bisect would, until the bad elements stand alone; those fail for
// good. Unlike Bisect it does so for this error alone, and not for a service
// that is down; unlike TooLarge it says nothing of the batch's size. Halve(nil)
// is nil.
func Halve(err error) error {
	if err == nil {
		return nil
	}
	return &halveError{err}
}

type halveError struct{ error }

func (e *halveError) Unwrap() error { return e.error }

// A BatchError reports a call that failed for some of its elements. Call
// returns it with the results, of which those of the failed elements are
// ignored; if all failed, the results may be nil. The others' results are kept,
// and only the elements that failed are tried again, or end as failures if
// their error is Permanent. Its zero value is ready for use:
//
//	var failed batchasync.BatchError
//	for i, row := range rows {
//		if row.Err != nil {
//			failed.Fail(i, row.Err)
//		}
//	}
//	return results, failed.Err()
type BatchError struct {
	failed map[int]error
}

// Fail records that the element at index i of the batch failed. The last error
// of an index counts.
func (e *BatchError) Fail(i int, err error) {
	if err == nil {
		err = errors.New("the element failed without an error")
	}
	if e.failed == nil {
		e.failed = map[int]error{}
	}
	e.failed[i] = err
}

// Len is the number of elements that failed.
func (e *BatchError) Len() int {
	if e == nil {
		return 0
	}
	return len(e.failed)
}

// Err is e if an element failed, and nil otherwise.
func (e *BatchError) Err() error {
	if e.Len() == 0 {
		return nil
	}
	return e
}

// Error tells the number of failed elements, and the first three of them.
func (e *BatchError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d elements failed", e.Len())
	for n, i := range e.indices() {
		if n == 3 {
			b.WriteString("; …")
			break
		}
		fmt.Fprintf(&b, "; element %d: %v", i, e.failed[i])
	}
	return b.String()
}

// Unwrap returns the elements' errors in the order of their index.
func (e *BatchError) Unwrap() []error {
	var errs []error
	for _, i := range e.indices() {
		errs = append(errs, e.failed[i])
	}
	return errs
}

// Failed returns the errors of a *BatchError in err by their index, or nil if
// there is none: for a caller that is made of another. The marks that stand
// around the *BatchError are put on each of the errors, for they speak of all.
func Failed(err error) map[int]error {
	var failed map[int]error
	mark := func(e error) error { return e }
	walk(err, func(e error) bool {
		inner := mark
		switch e := e.(type) {
		case *permanentError:
			mark = func(e error) error { return inner(Permanent(e)) }
		case *tooLargeError:
			mark = func(e error) error { return inner(TooLarge(e)) }
		case *halveError:
			mark = func(e error) error { return inner(Halve(e)) }
		case *retryAfterError:
			mark = func(of error) error { return inner(RetryAfter(of, e.after)) }
		case *BatchError:
			if e.Len() == 0 {
				return true
			}
			failed = make(map[int]error, e.Len())
			for i, err := range e.failed {
				failed[i] = mark(err)
			}
			return false
		}
		return true
	})
	return failed
}

func (e *BatchError) indices() []int {
	if e == nil {
		return nil
	}
	indices := make([]int, 0, len(e.failed))
	for i := range e.failed {
		indices = append(indices, i)
	}
	slices.Sort(indices)
	return indices
}

// A CallError is what a bundle fails with when a batch, or an element of it,
// has failed for good and there is no failures output to take it.
type CallError struct {
	Transform string        // the transform's full name in the pipeline
	BatchID   string        // as InfoFrom told it to the last attempt
	Size      int           // elements in the last attempt
	Attempts  int           // calls that were made with the element
	Elapsed   time.Duration // since the batch's first attempt
	Permanent bool          // whether the error, and not the number of attempts, ended it
	Err       error         // the last attempt's error
}

// Error tells all of it, and what can be done.
func (e *CallError) Error() string {
	advice := "raise Timeout, MaxAttempts or MaxElapsed if the service needs longer, or use the verb's form WithFailures to go on without these elements"
	if e.Permanent {
		advice = "not retried, for the error is permanent; the verb's form WithFailures would go on without these elements"
	}
	if e.Attempts == 0 {
		return fmt.Sprintf("batchasync: %s: an element was refused before any call: %v (%s)", e.Transform, e.Err, advice)
	}
	return fmt.Sprintf("batchasync: %s: batch %s of %s failed after %s in %v: %v (%s)",
		e.Transform, e.BatchID, count(e.Size, "element"), count(e.Attempts, "attempt"), e.Elapsed.Round(time.Millisecond), e.Err, advice)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Unwrap returns Err.
func (e *CallError) Unwrap() error { return e.Err }

// classify asks the caller as well, guarded.
func (m *methods[In, Out]) classify(err error, n int) attempt.Verdict {
	verdict, broken := guard.Run("Retryable", func() (attempt.Verdict, error) {
		return classify(err, n, m.retryable), nil
	})
	if broken != nil {
		return attempt.Verdict{Permanent: true, Err: fmt.Errorf("%w, asked about: %w", broken, err)}
	}
	return verdict
}

// classify judges an error that Call returned for n elements. The outermost
// mark counts: Permanent(&BatchError{…}) says that none of its elements is
// worth another attempt, while the marks inside of it speak for one element.
func classify(err error, n int, retryable func(error) bool) attempt.Verdict {
	var v attempt.Verdict
	marked := false
	walk(err, func(e error) bool {
		switch e := e.(type) {
		case *permanentError:
			v.Permanent, marked = true, true
		case *tooLargeError:
			v.TooLarge, v.Permanent, marked = true, true, true
		case *halveError:
			v.Halve, v.Permanent, marked = true, true, true
		case *retryAfterError:
			v.RetryAfter, marked = max(v.RetryAfter, e.after), true
		case *BatchError:
			if e.Len() == 0 {
				return true // it says nothing; what it was joined with may
			}
			marked = true
			v.Elements = map[int]error{}
			for _, i := range e.indices() {
				if i < 0 || i >= n {
					v = attempt.Verdict{Permanent: true, Err: fmt.Errorf("BatchError.Fail(%d, …) is out of range: the batch has %d elements: %w", i, n, e.failed[i])}
					return false
				}
				v.Elements[i] = e.failed[i]
			}
			return false
		}
		return true
	})
	if !marked && retryable != nil {
		v.Permanent = !retryable(err)
	}
	return v
}

// walk calls visit for err and for all that it wraps, outermost first, as long
// as visit returns true.
func walk(err error, visit func(error) bool) bool {
	if err == nil {
		return true
	}
	if !visit(err) {
		return false
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if !walk(inner, visit) {
				return false
			}
		}
	}
	return true
}

// withoutEmpty is err, or nil if err is a *BatchError in which no element
// failed: a caller that returns &failed in place of failed.Err().
func withoutEmpty(err error) error {
	if part, ok := err.(*BatchError); ok {
		return part.Err()
	}
	return err
}
