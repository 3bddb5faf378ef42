// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package jobserver

import (
	"errors"
	"os"
	"os/exec"
	"time"
)

type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error
}

func startProcess(*os.File, string, ...string) (*process, error) {
	return nil, errors.New("only Unix has the process groups by which it is ended; start it by hand, and name its endpoint")
}

func (p *process) stop() {}

// OwnGroup does nothing where there are no process groups.
func OwnGroup(*exec.Cmd, time.Duration) {}

func become(string, []string, []string, *os.File) error {
	return errors.New("a process can't become another program here; use LOOPBACK")
}
