// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package cache keeps answers in memory, bounded in entries and bytes, each until a
// time of its own. The cache is otter's, whose W-TinyLFU keeps what is asked for
// often, though much else passes through. Its own expiry runs a goroutine, and would
// outlive a test's bubble.
package cache

import (
	"time"

	"github.com/maypok86/otter/v2"
)

// A Cache holds values by key. They are any, so that otter is compiled once for a
// type of key, and not for each type of value. A nil Cache keeps nothing.
type Cache[K comparable] struct {
	otter *otter.Cache[K, entry]
}

type entry struct {
	value any
	until time.Time
}

// New returns a cache for so many entries, at least 1, and so many bytes, as weight
// tells them of each; 0: any number, and weight is not needed.
func New[K comparable](entries, bytes int, weight func(key K, value any) int) *Cache[K] {
	options := &otter.Options[K, entry]{MaximumSize: entries}
	if bytes > 0 {
		// Both bounds by one weight: an entry weighs at least the share of the
		// bytes that it may have if there are as many as allowed.
		least := max(bytes/entries, 1)
		options = &otter.Options[K, entry]{
			MaximumWeight: uint64(bytes),
			Weigher: func(key K, e entry) uint32 {
				return uint32(min(max(weight(key, e.value), least), bytes))
			},
		}
	}
	return &Cache[K]{otter.Must(options)}
}

// Get returns the value of a key, if it is kept and its time is not over.
func (c *Cache[K]) Get(key K) (value any, ok bool) {
	if c == nil {
		return nil, false
	}
	e, ok := c.otter.GetIfPresent(key)
	return e.value, ok && time.Now().Before(e.until)
}

// Keep keeps a value until a time.
func (c *Cache[K]) Keep(key K, value any, until time.Time) {
	if c != nil {
		c.otter.Set(key, entry{value, until})
	}
}
