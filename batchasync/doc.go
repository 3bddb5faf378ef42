// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package batchasync lets an Apache Beam Go pipeline ask an external service
// about its elements: in batches, with several calls at once, without
// overloading the service, and with each answer in its element's own window.
//
// # How to use it
//
// Write a [Caller], whose Call answers a batch of elements with one bulk call,
// [Register] it in an init function, and apply it with [ParDo]. The package
// example is a whole pipeline.
//
// # How it works
//
// ProcessElement puts an element, with its windows, timestamp and pane, into
// the open one of the bundle's batch slots. A batch is ready when it holds
// [BatchSize] elements or [BatchBytes] bytes, when its first element has waited
// for [Linger], or when the bundle ends. It is sent as soon as the process may
// make another call: as many at once as the service bears best, which
// [AdaptiveInFlight] finds out without being told, or [MaxInFlight]. An expired
// batch for which there is no call yet goes on to grow. Results are matched to
// their elements by index and emitted on the bundle's goroutine, by the next
// ProcessElement or by FinishBundle, which waits for all of them. While all slots
// are taken, ProcessElement waits: a bundle holds at most two batches more than
// there may be calls.
//
// # What ends how
//
// Each element ends exactly once: as its result, or as a [Failure], or with its
// bundle. An attempt that fails is repeated, after a backoff, up to
// [MaxAttempts] and within [MaxElapsed]; a [BatchError] repeats only the
// elements that failed, [Permanent] repeats nothing, [RetryAfter] says when,
// [TooLarge] halves the batch, and [Bisect] finds the elements for which a batch
// fails as a whole. What then has failed for good fails the bundle with a
// [CallError] (ParDo), or goes to the failures output (ParDoWithFailures). A bundle that fails is retried by
// the runner as a whole, so that calls are made at least once: a service that
// writes should be given Info.BatchID, or better a key of the element's own, as
// its idempotency key.
//
// # Dependencies
//
// Beyond Beam there are github.com/google/uuid, for ids that need no
// coordination; failsafe-go, whose circuit breaker can be asked without making
// the call for us; golang.org/x/time/rate; and otter, the cache that keeps the
// most hits for its memory. The retry loop, its budget and the hedge are our own,
// for no retry library knows of attempts that succeed in part; the words are
// those of cenkalti/backoff.
package batchasync
