// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// startProgress shows one line on a terminal, until stop is called, which clears
// it. It shows nothing if out is no terminal.
func startProgress(out *os.File) (stop func()) {
	if out == nil || !term.IsTerminal(int(out.Fd())) {
		return func() {}
	}
	start := time.Now()
	// It is not known how many flights the file has: a spinner.
	line := progressbar.NewOptions(-1,
		progressbar.OptionSetWriter(out),
		progressbar.OptionSpinnerType(14),
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionClearOnFinish(),
	)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				line.Describe(progress(time.Since(start)))
			case <-quit:
				// A terminal that can't be written to is no reason to
				// fail, here and above.
				_ = line.Finish()
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

func progress(elapsed time.Duration) string {
	elements := live.answered.Load() + live.failed.Load()
	return fmt.Sprintf("%s flights, %s calls, %d in flight, %s flights/s, %s failed",
		thousands(elements), thousands(live.calls.Load()), live.inFlight.Load(),
		thousands(int64(float64(elements)/elapsed.Seconds())), thousands(live.failed.Load()))
}
