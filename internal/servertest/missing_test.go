// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// verdict is a test that remembers how it was ended.
type verdict struct {
	testing.TB
	skipped, failed string
}

func (v *verdict) Helper() {}

func (v *verdict) Skip(args ...any) {
	v.skipped = fmt.Sprint(args...)
	runtime.Goexit()
}

func (v *verdict) Fatal(args ...any) {
	v.failed = fmt.Sprint(args...)
	runtime.Goexit()
}

func TestMissingServerSkipsAloudOrFailsWhereItIsRequired(t *testing.T) {
	ask := func() *verdict {
		v, done := &verdict{TB: t}, make(chan struct{})
		go func() {
			defer close(done)
			executable(v, "no-such-server", "its-package")
		}()
		<-done
		return v
	}
	const advice = "no-such-server isn't installed: `make services`, or apt-get install its-package"

	t.Setenv("BATCHASYNC_SERVICES", "")
	v := ask()
	require.Equal(t, advice, v.skipped)
	require.Empty(t, v.failed)

	t.Setenv("BATCHASYNC_SERVICES", "required")
	v = ask()
	require.Empty(t, v.skipped)
	require.Contains(t, v.failed, advice)
}
