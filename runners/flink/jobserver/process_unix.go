// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package jobserver

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// supervise runs its arguments as a command, and kills it, with all of the
// process group, when file descriptor 3 ends: that is a pipe whose other end is
// with us alone, so that it ends when we do, by SIGKILL too. A SIGTERM to the
// group lets the command end first.
const supervise = `
"$@" </dev/null 3<&- &
command=$!
{ read -r _ <&3; kill -s KILL 0; } 3<&3 &
watch=$!
exec 3<&-
trap : TERM
wait $command
status=$?
while kill -0 $command 2>/dev/null; do
	wait $command
	status=$?
done
kill $watch 2>/dev/null
exit $status
`

// A process is a command in a process group of its own, which ends with us.
type process struct {
	cmd   *exec.Cmd
	alive *os.File      // open as long as the command is to run
	ended chan struct{} // closed when it has ended
	err   error         // how; to be read when ended is closed
}

func startProcess(output *os.File, name string, args ...string) (*process, error) {
	watched, alive, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", supervise, "sh", name}, args...)...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = []*os.File{watched}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	if err := errors.Join(err, watched.Close()); err != nil {
		return nil, errors.Join(err, alive.Close())
	}
	p := &process{cmd: cmd, alive: alive, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// stop asks the group to end, and after a few seconds makes it.
func (p *process) stop() {
	// Each fails only for a group that has ended.
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
	_ = p.alive.Close()
}

// OwnGroup lets cmd, which is made by exec.CommandContext, run in a process group
// of its own, and has all of that group end when cmd's context does: asked at
// first, and made to after wait.
func OwnGroup(cmd *exec.Cmd, wait time.Duration) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = wait
	cmd.Cancel = func() error {
		group := -cmd.Process.Pid
		time.AfterFunc(wait, func() {
			// It fails only for a group that has ended.
			_ = syscall.Kill(group, syscall.SIGKILL)
		})
		return syscall.Kill(group, syscall.SIGTERM)
	}
}

// become runs a program in the place of this one.
func become(binary string, args, environ []string, output *os.File) error {
	for _, standard := range []int{1, 2} {
		if err := unix.Dup2(int(output.Fd()), standard); err != nil {
			return err
		}
	}
	return syscall.Exec(binary, append([]string{binary}, args...), environ)
}
