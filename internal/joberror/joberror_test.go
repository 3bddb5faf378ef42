// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package joberror_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/internal/joberror"
)

func TestCauseIsWhatMatters(t *testing.T) {
	for text, want := range map[string]string{
		"no such file": "no such file",
		"plan\nof\nnodes\ncaused by:\nprocess bundle\ncaused by:\nno such\n\tfile": "no such file",
		"caused by:\npanic: boom goroutine 7 [running]:\nmain.f()":                 "panic: boom",
	} {
		require.Equal(t, want, joberror.Cause(errors.New(text)))
	}
}
