// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package servertest

import (
	"os/exec"
	"syscall"
)

// attributes has nothing portable to say: tests must not be run as root here, and
// a server outlives a test binary that is killed.
func attributes(syscall.Signal) *syscall.SysProcAttr { return nil }

func run(cmd *exec.Cmd, started chan<- error, ended chan<- struct{}) {
	err := cmd.Start()
	started <- err
	if err != nil {
		return
	}
	// How it ended is in the ProcessState and in the log.
	_ = cmd.Wait()
	close(ended)
}
