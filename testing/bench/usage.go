// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"syscall"
	"time"
)

// A usage is what this process has used until a time.
type usage struct {
	at  time.Time
	cpu time.Duration // of the user and of the system
}

func usageNow() usage {
	var r syscall.Rusage
	// It fails for a bad argument only.
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return usage{time.Now(), time.Duration(r.Utime.Nano() + r.Stime.Nano())}
}

// watchHeap looks at the heap's size every five milliseconds, until stop is called, which
// returns how much it has grown at most.
func watchHeap() (stop func() (bytes int64)) {
	runtime.GC()
	debug.FreeOSMemory()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	size := func() int64 {
		metrics.Read(sample)
		return int64(sample[0].Value.Uint64())
	}
	start := size()
	done, most := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		peak := start
		for {
			select {
			case <-tick.C:
				peak = max(peak, size())
			case <-done:
				most <- peak - start
				return
			}
		}
	}()
	return func() int64 {
		close(done)
		return <-most
	}
}
