// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/batchasync/beam-batchasync/internal/joberror"
)

// run runs generator and pipeline until ctx ends, or for as long as the flag says,
// and then until all that has been published has ended. What it does is on stdout.
func run(ctx context.Context, o options, stdout io.Writer) (status int, err error) {
	if err := o.check(); err != nil {
		return wrongFlag, err
	}
	var opened closers
	defer func() {
		if err = errors.Join(err, opened.close()); err != nil {
			status = cmp.Or(status, notRun)
		}
	}()
	name := uuid.NewString()[:8]
	js, at, closeNATS, err := openNATS(ctx, o)
	if err != nil {
		return notRun, fmt.Errorf("NATS: %w", err)
	}
	opened.add(closeNATS)
	server, closeRedis, err := openRedis(ctx, o, name)
	if err != nil {
		return notRun, fmt.Errorf("redis: %w", err)
	}
	opened.add(closeRedis)
	database, pool, err := openDatabase(ctx, o)
	if err != nil {
		return notRun, fmt.Errorf("database: %w", err)
	}
	opened.add(func() error { return closeDatabase(pool) })

	subject := subjects + name
	p, s := beam.NewPipelineWithRoot()
	build(s, name, &readFn{URL: at, Credentials: o.natsCreds, Stream: streamName, Subject: subject}, server, database, o)

	// When ctx ends the generator stops, with a message that says so, and the
	// pipeline ends when it has read that. It is broken off only when it would
	// wait for a message that can't come.
	running, breakOff := context.WithCancelCause(context.WithoutCancel(ctx))
	publishing, stop := context.WithCancel(ctx)
	if o.length > 0 {
		defer time.AfterFunc(o.length, stop).Stop()
	}
	live.reset()
	start := time.Now()
	var generated error
	var wg sync.WaitGroup
	wg.Go(func() {
		if generated = generate(publishing, js, name, subject, o.rate); generated != nil {
			breakOff(generated)
		}
	})
	progress, endProgress := context.WithCancel(running)
	wg.Go(func() { report(progress, stdout, start, o.every) })
	result, failed := beam.Run(running, "prism", p)
	stop()
	endProgress()
	wg.Wait()
	breakOff(nil)
	if generated != nil {
		return notRun, fmt.Errorf("generator: %w", generated)
	}
	if failed != nil {
		return notRun, fmt.Errorf("the job has failed: %s (-verbose tells more)", joberror.Cause(failed))
	}
	// The messages have done their part.
	if err := purge(context.WithoutCancel(ctx), js, subject); err != nil {
		return notRun, fmt.Errorf("NATS: %w", err)
	}
	total, err := account(context.WithoutCancel(ctx), pool, name)
	if err != nil {
		return notRun, err
	}
	if _, err := fmt.Fprint(stdout, total.text(result, time.Since(start), o)); err != nil {
		return notRun, err
	}
	if err := total.check(); err != nil {
		return notRun, err
	}
	return allAccounted, nil
}

// purge removes a run's messages from the stream.
func purge(ctx context.Context, js jetstream.JetStream, subject string) error {
	stream, err := js.Stream(ctx, streamName)
	if err != nil {
		return err
	}
	return stream.Purge(ctx, jetstream.WithPurgeSubject(subject))
}
