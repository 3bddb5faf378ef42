// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

func TestEachCallIsASpan(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	defer otel.SetTracerProvider(before)
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		h := batchasynctest.NewHarness(t, batchasync.New(&script{call: func(ctx context.Context, batch []int) ([]string, error) {
			ids = append(ids, batchasync.InfoFrom(ctx).BatchID)
			require.True(t, trace.SpanFromContext(ctx).IsRecording(), "what the call starts is a part of it")
			time.Sleep(time.Second)
			if len(ids) == 1 {
				return nil, errors.New("busy")
			}
			return quoted(batch), nil
		}}))
		_, err := h.Bundle(numbers(3)...)
		require.NoError(t, err)
		require.Len(t, spans.Ended(), 2)
		for i, span := range spans.Ended() {
			require.Equal(t, "batchasync.Call", span.Name())
			require.Equal(t, []codes.Code{codes.Error, codes.Unset}[i], span.Status().Code)
			require.Equal(t, time.Second, span.EndTime().Sub(span.StartTime()))
			require.Subset(t, span.Attributes(), []attribute.KeyValue{
				attribute.String("batchasync.batch_id", ids[i]),
				attribute.Int("batchasync.batch_size", 3),
				attribute.Int("batchasync.attempt", i+1),
			})
		}
	})
}
