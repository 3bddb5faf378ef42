// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import "github.com/apache/beam/sdks/v2/go/pkg/beam/log"

// manyLonely bundles of one element in a row are no accident.
const manyLonely = 100

// warnOfLonely warns, once in a process, when bundle after bundle holds a single
// element: then each call has one, whatever the batch size, and nothing in the
// pipeline's result says why. It is what a streaming source does that is fused with
// the transform. The remedy, a Reshuffle, is left to the pipeline's author: it costs
// a shuffle, and where elements are few it helps nothing.
func (b *bundle[K, In, Out]) warnOfLonely() {
	s := &b.config.Settings
	if s.AcrossBundles || s.limits().Size == 1 {
		return
	}
	lonely := &b.pool.Lonely
	n := lonely.Load()
	switch {
	case n >= manyLonely:
	case b.arrived > 1:
		if n > 0 {
			lonely.CompareAndSwap(n, 0)
		}
	case lonely.Add(1) == manyLonely:
		log.Warnf(b.ctx, "batchasync: %s: the last %d bundles had one element each, so each call has one: put a beam.Reshuffle before the transform, so that the runner makes larger bundles; or, if the worker has several bundles open at once, use AcrossBundles",
			b.config.Transform, manyLonely)
	}
}
