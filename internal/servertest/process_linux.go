// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// attributes let a server end with the test binary, however that ends, and run
// as the user that chownAll gives its files to.
func attributes(atEnd syscall.Signal) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: atEnd, Setpgid: true}
	if uid, gid, ok := servant(); ok {
		a.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return a
}

// run starts cmd and waits for it. The kernel sends Pdeathsig when the thread
// that started the process ends, so it stays the goroutine's own until then.
func run(cmd *exec.Cmd, started chan<- error, ended chan<- struct{}) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	started <- err
	if err != nil {
		return
	}
	// How it ended is in the ProcessState and in the log.
	_ = cmd.Wait()
	close(ended)
}
