// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"context"
	"fmt"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/batchasync/beam-batchasync/batchasync/internal/guard"
	"github.com/batchasync/beam-batchasync/batchasync/internal/pool"
)

// use makes sure that the shared caller is set up, and holds it until
// Shared.Done. A Setup that fails is tried again as a call is: a service that is
// restarted at that moment should not fail a bundle, and with it, on some runners, the
// pipeline.
func (s *sender[K, In, Out]) use(ctx context.Context) error {
	if s.pool.Shared.TryUse() {
		return nil
	}
	// Clients keep the context that they were made with: Setup's does not end
	// with the bundle.
	setup := s.callContext(context.WithoutCancel(ctx), "", 0)
	start := time.Now()
	for n := 1; ; n++ {
		err := s.pool.Shared.Use(ctx, setup)
		if err == nil {
			return nil
		}
		wait, again := s.again(err, n, start)
		if !again || ctx.Err() != nil {
			return fmt.Errorf("set up the caller, %s: %w", count(n, "attempt"), err)
		}
		log.Warnf(ctx, "batchasync: %s: the caller's Setup has failed, and is tried again in %v: %v", s.config.Transform, wait.Round(time.Millisecond), err)
		if err := pool.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// again reports whether Setup is to be called again after its n-th error, and when.
func (s *sender[K, In, Out]) again(err error, n int, start time.Time) (wait time.Duration, again bool) {
	switch err.(type) {
	case *guard.PanicError, *guard.GoexitError:
		return 0, false // it would do so again
	}
	verdict := s.methods.classify(err, 0)
	wait = s.policy.Backoff(n)
	if verdict.RetryAfter > 0 {
		wait = verdict.RetryAfter
	}
	if verdict.Permanent || n >= s.policy.MaxAttempts ||
		s.policy.MaxElapsed > 0 && time.Since(start)+wait >= s.policy.MaxElapsed {
		return 0, false
	}
	return wait, true
}
