// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package literal

import (
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type generic[T any] struct{}

func TestAValueIsWrittenAsInAProgram(t *testing.T) {
	require.Equal(t, "strings.Builder{}", Of(reflect.TypeFor[strings.Builder]()))
	require.Equal(t, "&literal.generic[int]{}", Of(reflect.TypeFor[*generic[int]]()))
	require.Equal(t, "Lookup[Row]{}", own.ReplaceAllString("main.Lookup[main.Row]{}", ""))
	require.Equal(t, "domain.Lookup{}", own.ReplaceAllString("domain.Lookup{}", ""))
}
