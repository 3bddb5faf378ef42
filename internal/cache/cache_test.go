// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAValueIsKeptUntilItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New[string](10, 0, nil)
		c.Keep("a", 1, time.Now().Add(time.Second))
		value, ok := c.Get("a")
		require.True(t, ok)
		require.Equal(t, 1, value)
		time.Sleep(time.Second)
		_, ok = c.Get("a")
		require.False(t, ok)
	})
}

func TestACacheIsBounded(t *testing.T) {
	byLength := func(_ int, value any) int { return len(value.(string)) }
	for name, test := range map[string]struct {
		cache *Cache[int]
		most  int
	}{
		"in entries":                   {New[int](10, 0, nil), 10},
		"in bytes":                     {New(100, 30, byLength), 10},
		"in entries, beside the bytes": {New(10, 3_000, byLength), 10},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range 1000 {
				test.cache.Keep(i, "abc", time.Now().Add(time.Hour))
			}
			test.cache.otter.CleanUp()
			require.LessOrEqual(t, test.cache.otter.EstimatedSize(), test.most)
		})
	}
}

func TestNoCacheKeepsNothing(t *testing.T) {
	var c *Cache[string]
	c.Keep("a", 1, time.Now().Add(time.Hour))
	_, ok := c.Get("a")
	require.False(t, ok)
}
