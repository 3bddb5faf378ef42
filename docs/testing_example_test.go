// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// names is a caller under test: it stands for one that asks a database.
type names struct {
	Table map[int]string

	service *batchasynctest.Service // the database, in some tests
}

// Setup opens what doesn't travel.
func (n *names) Setup(context.Context) error {
	if n.service == nil {
		n.service = batchasynctest.NewService(batchasynctest.ServiceConfig{})
	}
	return nil
}

func (n *names) Call(ctx context.Context, ids []int) ([]string, error) {
	found, missing, err := batchasynctest.Call(ctx, n.service, ids, func(id int) (string, error) {
		name, ok := n.Table[id]
		if !ok {
			return "", batchasync.Permanent(errors.New("no such city"))
		}
		return name, nil
	})
	if err != nil {
		return nil, err
	}
	var failed batchasync.BatchError
	for i, err := range missing {
		if err != nil {
			failed.Fail(i, err)
		}
	}
	return found, failed.Err()
}

func init() { batchasync.Register(&names{}) }

func TestNamesAnswersInTheOrderOfTheIDs(t *testing.T) {
	caller := &names{Table: map[int]string{1: "Wien", 2: "Graz"}}
	require.NoError(t, caller.Setup(t.Context()))
	found, err := caller.Call(t.Context(), []int{2, 1})
	require.NoError(t, err)
	require.Equal(t, []string{"Graz", "Wien"}, found)
}

func TestNamesSurvivesAServiceThatFailsTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := batchasynctest.NewService(batchasynctest.ServiceConfig{BaseLatency: 100 * time.Millisecond, FailFirst: 2})
		caller := &names{Table: map[int]string{1: "Wien", 2: "Graz"}, service: service}
		h := batchasynctest.NewHarness(t, batchasync.New(caller, batchasync.RetryInterval(time.Minute)))
		start := time.Now()
		inputs := batchasynctest.Values(1, 2)
		out, err := h.Bundle(inputs...)
		require.NoError(t, err)
		batchasynctest.RequireExactlyOnce(t, inputs, out, func(id any) any { return caller.Table[id.(int)] })
		require.Equal(t, 2*time.Minute+300*time.Millisecond, time.Since(start))
	})
}

func TestNamesTravels(t *testing.T) {
	h := batchasynctest.NewHarness(t, batchasync.New(&names{Table: map[int]string{1: "Wien"}})).Clone(t)
	out, err := h.Bundle(batchasynctest.Values(1)...)
	require.NoError(t, err)
	require.Equal(t, "Wien", out.Results()[0].Value)
}

func TestPipelineNamesCities(t *testing.T) {
	p, s := beam.NewPipelineWithRoot()
	cities, failures := batchasync.ParDoWithFailures(s, &names{Table: map[int]string{1: "Wien"}}, beam.Create(s, 1, 3))
	passert.Equals(s, cities, "Wien")
	passert.Count(s, failures, "cities that are not there", 1)
	_, err := beam.Run(t.Context(), "prism", p)
	require.NoError(t, err)
}
