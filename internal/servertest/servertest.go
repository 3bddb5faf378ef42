// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package servertest starts real servers for tests: PostgreSQL, MariaDB and
// Redis, each with data of its own in a temporary folder, on a free port of the
// loopback address, until the test ends.
//
//	func TestLookup(t *testing.T) {
//		server := servertest.Redis(t)
//		client := redis.NewClient(&redis.Options{Addr: server.Addr})
//		…
//		server.Stop()  // an orderly shutdown; Kill is a crash
//		server.Start() // the same port, the same data
//	}
//
// Where a server isn't installed, the test is skipped, with the name of Debian's
// package in the message; `make services` installs all of them. With
// BATCHASYNC_SERVICES=required in the environment, as in CI, the test fails
// instead.
//
// The servers' own executables are run, with no library between: those that
// there are want a container engine, or bring binaries of their own.
package servertest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a server may take to start or to stop.
const patience = time.Minute

// A Server is one that runs for a test.
type Server struct {
	Addr     string // 127.0.0.1 and Port
	Port     int
	TLSAddr  string // where it takes TLS: Redis has a port of its own for that
	CAFile   string // the PEM file of the certificate that it shows, which is valid for 127.0.0.1
	DSN      string // for the server's Go driver, with User's password, without TLS; "" for Redis
	AdminDSN string // the same for the superuser
	User     string // an ordinary user, who owns Database; "" for Redis
	Password string // User's and the superuser's; "" for Redis
	Database string
	Dir      string // temporary, and the server may write to it

	t           testing.TB
	command     []string
	ready       []byte         // what it prints once it takes connections
	stop, crash syscall.Signal // the fastest orderly end, and the opposite
	log         log
	process     *process
}

type process struct {
	*os.Process
	ended chan struct{}
}

// newServer returns a server that has a folder and a port, but no command yet.
func newServer(t testing.TB, name string) *Server {
	t.Helper()
	// Not t.TempDir: other users, as which the servers run, can't get into it.
	dir, err := os.MkdirTemp("", "servertest-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		t: t, Dir: dir,
		stop: syscall.SIGTERM, crash: syscall.SIGKILL,
		CAFile: filepath.Join(dir, "cert.pem"),
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s.Port = freePort(t)
	s.Addr = "127.0.0.1:" + strconv.Itoa(s.Port)
	s.TLSAddr = s.Addr
	s.check(writeCertificate(s.CAFile, s.keyFile()))
	s.check(chownAll(dir))
	return s
}

func (s *Server) keyFile() string { return filepath.Join(s.Dir, "key.pem") }

// Start starts the server again, at the same port and with the same data, and
// returns when it takes connections. It does nothing if the server runs.
func (s *Server) Start() {
	s.t.Helper()
	if s.process != nil {
		return
	}
	// After a crash, PostgreSQL refuses to start until its last child is gone.
	deadline := time.Now().Add(patience)
	for {
		err := s.start(time.Until(deadline))
		if err == nil {
			return
		}
		if time.Now().After(deadline) || !s.log.has("shared memory block") {
			s.t.Fatalf("%v; its log:\n%s", err, s.log.String())
		}
	}
}

func (s *Server) start(patience time.Duration) error {
	s.log.reset(s.ready)
	cmd := exec.Command(s.command[0], s.command[1:]...)
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), "TMPDIR="+s.Dir) // for root's may be root's only
	cmd.SysProcAttr = attributes(s.crash)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	cmd.WaitDelay = time.Second // children may keep the output open
	started, ended := make(chan error), make(chan struct{})
	go run(cmd, started, ended)
	if err := <-started; err != nil {
		return err
	}
	s.process = &process{cmd.Process, ended}
	select {
	case <-s.log.found:
		return nil
	case <-ended:
		s.process = nil
		return fmt.Errorf("%s ended before it was ready", filepath.Base(s.command[0]))
	case <-time.After(patience):
		s.Kill()
		return fmt.Errorf("%s was not ready after %v", filepath.Base(s.command[0]), patience)
	}
}

// Stop shuts the server down in good order, without a wait for its clients, and
// returns when it has ended. It does nothing if the server has been stopped.
func (s *Server) Stop() {
	s.t.Helper()
	s.end(s.stop)
}

// Kill lets the server crash.
func (s *Server) Kill() {
	s.t.Helper()
	s.end(s.crash)
}

func (s *Server) end(signal syscall.Signal) {
	s.t.Helper()
	p := s.process
	if p == nil {
		return
	}
	s.process = nil
	if err := p.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Error(err)
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		s.t.Errorf("%s did not end after %v; its log:\n%s", filepath.Base(s.command[0]), patience, s.log.String())
		_ = p.Kill()
		<-p.ended
	}
}

// Log is what the server has printed since it was started last.
func (s *Server) Log() string { return s.log.String() }

// open starts a server for the first time.
func (s *Server) open() *Server {
	s.t.Helper()
	s.t.Cleanup(s.Kill)
	s.Start()
	return s
}

// tool runs a program that ends, as the user that the server runs as.
func (s *Server) tool(command ...string) {
	s.t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), "TMPDIR="+s.Dir) // for root's may be root's only
	cmd.SysProcAttr = attributes(syscall.SIGKILL)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	started, ended := make(chan error), make(chan struct{})
	go run(cmd, started, ended)
	if err := <-started; err != nil {
		s.t.Fatal(err)
	}
	<-ended
	if !cmd.ProcessState.Success() {
		s.t.Fatalf("%s: %v:\n%s", filepath.Base(command[0]), cmd.ProcessState, output.String())
	}
}

func (s *Server) file(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	s.check(os.WriteFile(path, []byte(content), 0o600))
	s.check(chownAll(path))
	return path
}

func (s *Server) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// executable finds a program in PATH or where Debian hides it. Otherwise it
// skips the test, or fails it where servers are required.
func executable(t testing.TB, name, debianPackage string, globs ...string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, glob := range append(globs, "/usr/sbin") {
		// The last in order is the newest version. A bad pattern finds nothing.
		paths, _ := filepath.Glob(filepath.Join(glob, name))
		if len(paths) > 0 {
			return slices.Max(paths)
		}
	}
	message := fmt.Sprintf("%s isn't installed: `make services`, or apt-get install %s", name, debianPackage)
	if os.Getenv("BATCHASYNC_SERVICES") == "required" {
		t.Fatal(message + " (BATCHASYNC_SERVICES=required forbids to skip)")
	}
	t.Skip(message)
	return ""
}

// freePort is one that nobody listens at. It is below those that the kernel gives
// to outgoing connections, for one of them could take it while the server is
// stopped; and so low that 10,000 more, where a node of a Redis cluster listens
// too, is so as well.
func freePort(t testing.TB) int {
	t.Helper()
	var err error
	for range 100 {
		port := 10000 + rand.IntN(12000)
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return port
		}
	}
	t.Fatalf("no free port: %v", err)
	return 0
}

// A log keeps what a server prints, and tells when a text has been in it.
type log struct {
	mu    sync.Mutex
	text  bytes.Buffer
	want  []byte
	found chan struct{}
}

func (l *log) reset(want []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Reset()
	l.want, l.found = want, make(chan struct{})
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.text.Write(p)
	if l.want != nil && bytes.Contains(l.text.Bytes(), l.want) {
		l.want = nil
		close(l.found)
	}
	return n, err
}

func (l *log) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.text.Bytes(), []byte(text))
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
