// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/rtrackers/offsetrange"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// source returns a source on an embedded server with n messages and, if the stream has
// ended, the last one.
func source(t *testing.T, n int, ended bool) *readFn {
	js, at, closeNATS, err := openNATS(t.Context(), options{})
	require.NoError(t, err)
	const subject = subjects + "test"
	for i := range n {
		_, err := js.Publish(t.Context(), subject, fmt.Append(nil, i))
		require.NoError(t, err)
	}
	if ended {
		last := nats.NewMsg(subject)
		last.Header.Set(lastHeader, "true")
		_, err := js.PublishMsg(t.Context(), last)
		require.NoError(t, err)
	}
	f := &readFn{URL: at, Stream: streamName, Subject: subject}
	t.Cleanup(func() {
		f.Teardown()
		require.NoError(t, closeNATS())
	})
	return f
}

// bundle reads until the bundle ends, and returns what was read and what is left.
func bundle(ctx context.Context, t *testing.T, f *readFn, r offsetrange.Restriction) (read []string, left any, err error) {
	tracker := f.CreateTracker(r)
	resume, err := f.ProcessElement(ctx, f.CreateWatermarkEstimator(), tracker, nil, func(_ beam.EventTime, m Message) {
		require.Equal(t, fmt.Sprint(len(read)+int(r.Start)), m.ID, "without a header, it is the place")
		read = append(read, string(m.Data))
	})
	if err != nil || !resume.ShouldResume() {
		require.True(t, err != nil || tracker.IsDone())
		return read, nil, err
	}
	_, left, err = tracker.TrySplit(0)
	require.NoError(t, err)
	return read, left, nil
}

func TestTheSourceReadsFromBundleToBundleUntilTheLastMessage(t *testing.T) {
	const n = 2*bundleSize + 500
	f := source(t, n, true)
	var all []string
	sizes := []int{}
	for r := any(f.CreateInitialRestriction(nil)); r != nil; {
		read, left, err := bundle(t.Context(), t, f, r.(offsetrange.Restriction))
		require.NoError(t, err)
		all, sizes, r = append(all, read...), append(sizes, len(read)), left
	}
	require.Len(t, all, n)
	for i, data := range all {
		require.Equal(t, fmt.Sprint(i), data)
	}
	for _, size := range sizes {
		require.LessOrEqual(t, size, bundleSize)
	}
}

func TestABundleOfTheSourceEndsWithoutMessages(t *testing.T) {
	f := source(t, 0, false)
	all := f.CreateInitialRestriction(nil)
	for range 2 {
		read, left, err := bundle(t.Context(), t, f, all)
		require.NoError(t, err)
		require.Empty(t, read)
		require.Equal(t, all, left)
		require.WithinDuration(t, time.Now().Add(-idleLag), f.seen, idleLag/2, "the watermark follows the clock")
	}
}

func TestTheWatermarkStaysBehindAMessageThatHasNotBeenRead(t *testing.T) {
	f := source(t, 3, false)
	_, _, err := bundle(t.Context(), t, f, offsetrange.Restriction{Start: 1, End: 3})
	require.NoError(t, err)
	first := f.seen
	require.NoError(t, f.open(t.Context(), 2))
	f.seen = first.Add(-time.Hour) // it is long ago that a message was read
	f.idle(t.Context())
	require.Equal(t, first.Add(-time.Hour), f.seen)
}

func TestAMessageThatIsNotTheBundlesIsReadByTheNext(t *testing.T) {
	f := source(t, 3, true)
	// The bundle may read the first two, for its runner has given the rest away.
	read, left, err := bundle(t.Context(), t, f, offsetrange.Restriction{Start: 1, End: 3})
	require.NoError(t, err)
	require.Equal(t, []string{"0", "1"}, read)
	require.Nil(t, left)
	// Another instance's bundle may come in between.
	read, _, err = bundle(t.Context(), t, f, offsetrange.Restriction{Start: 3, End: f.CreateInitialRestriction(nil).End})
	require.NoError(t, err)
	require.Equal(t, []string{"2"}, read)
}

func TestTheSourceEndsWithItsContext(t *testing.T) {
	f := source(t, 1, false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := bundle(ctx, t, f, f.CreateInitialRestriction(nil))
	require.ErrorIs(t, err, context.Canceled)
	require.Nil(t, f.nc, "the connection is closed")
}

func TestNobodySharesTheStream(t *testing.T) {
	tracker := (&readFn{}).CreateTracker(offsetrange.Restriction{Start: 1, End: 1 << 40})
	require.False(t, tracker.IsBounded())
	require.True(t, tracker.TryClaim(int64(7)))
	primary, residual, err := tracker.TrySplit(0.5)
	require.NoError(t, err)
	require.Nil(t, residual)
	require.Equal(t, offsetrange.Restriction{Start: 1, End: 1 << 40}, primary)
	_, residual, err = tracker.TrySplit(0)
	require.NoError(t, err)
	require.Equal(t, offsetrange.Restriction{Start: 8, End: 1 << 40}, residual)
}
