// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package jobserver runs a Beam job server for Flink, with a Flink cluster
// inside its own process, for as long as a test or a command needs it.
//
// Maven fetches the server's jars when they are first needed, into the user's
// cache directory. The server runs in a process group of its own, and ends with
// the process that started it, however that ends.
package jobserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// mainClass is the job server's, in a shaded jar too.
const mainClass = "org.apache.beam.runners.flink.FlinkJobServerDriver"

// opened are the packages of the JDK into which Flink 1.16 and Kryo reach by
// reflection, which Java 17 forbids unless it is told otherwise.
var opened = []string{
	"java.lang", "java.lang.reflect", "java.net", "java.nio", "java.text", "java.time", "java.util",
	"java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks",
	"sun.net.util", "sun.nio.ch",
}

// A Config says what to start. Its zero value is a server from Maven.
type Config struct {
	// ClassPath holds the job server: a shaded jar, or jars in Java's own
	// notation. Empty: what Maven fetches into Cache.
	ClassPath string

	// Cache is the folder for the jars. Empty: beam-batchasync in the user's
	// cache directory.
	Cache string

	// FlinkMaster is the Flink cluster. Empty: [local], in the server itself.
	FlinkMaster string

	// FlinkConfDir is a folder with a flink-conf.yaml, for a [local] cluster
	// too. Empty: Flink's defaults.
	FlinkConfDir string

	// Options are added to the pipeline options of each job, for Beam Go sends
	// none of Flink's own but parallelism: max_bundle_size, for one. A value is
	// sent as JSON if it is JSON, otherwise as a string.
	Options map[string]string

	// Timeout is how long the server may take to serve. 0: one minute.
	Timeout time.Duration

	// Notice gets what may take longer than a person likes to wait in silence.
	// nil: nobody.
	Notice func(format string, args ...any)
}

// A Server is a job server that runs.
type Server struct {
	endpoint string
	dir      string // of its log and of what is staged
	process  *process
	proxy    *proxy // nil if there are no options to add
}

// Start starts a job server and returns when it serves. The server runs until
// Stop; ctx bounds the start alone.
func Start(ctx context.Context, c Config) (_ *Server, err error) {
	java, err := javaCommand()
	if err != nil {
		return nil, err
	}
	options, err := parseOptions(c.Options)
	if err != nil {
		return nil, err
	}
	if c.ClassPath == "" {
		if c.ClassPath, err = fetch(ctx, c); err != nil {
			return nil, err
		}
	} else if err := readable(c.ClassPath); err != nil {
		return nil, err
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	dir, err := os.MkdirTemp("", "flink-job-server-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()

	logs, err := os.OpenFile(s.Log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	s.process, err = startProcess(logs, java, arguments(c, dir)...)
	if err := errors.Join(err, logs.Close()); err != nil {
		return nil, fmt.Errorf("start the job server: %w", err)
	}
	serving, stop := context.WithTimeoutCause(ctx, c.Timeout, fmt.Errorf("it did not serve within %v", c.Timeout))
	defer stop()
	if err := s.await(serving); err != nil {
		return nil, fmt.Errorf("the job server did not come up: %w; the end of its log:\n%s", err, s.LogTail(30))
	}
	if len(options) > 0 {
		if s.proxy, err = startProxy(s.endpoint, options); err != nil {
			return nil, fmt.Errorf("add pipeline options to jobs: %w", err)
		}
		s.endpoint = s.proxy.endpoint()
	}
	return s, nil
}

// arguments are those of java. Port 0 is a free one, which the log then names.
func arguments(c Config, dir string) []string {
	var args []string
	for _, p := range opened {
		args = append(args, "--add-opens", "java.base/"+p+"=ALL-UNNAMED")
	}
	master := c.FlinkMaster
	if master == "" {
		master = "[local]"
	}
	// Flink leaves files of some 30 MB behind: all go with dir.
	args = append(args, "-Djava.io.tmpdir="+dir, "-Xmx2g", "-cp", c.ClassPath, mainClass,
		"--job-host=localhost", "--job-port=0", "--artifact-port=0", "--expansion-port=0",
		"--artifacts-dir="+filepath.Join(dir, "artifacts"), "--flink-master="+master)
	if c.FlinkConfDir != "" {
		args = append(args, "--flink-conf-dir="+c.FlinkConfDir)
	}
	return args
}

// serves is what the log says before the job service's address.
const serves = "JobService started on "

// await waits until the server has said where it serves.
func (s *Server) await(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(s.Log())
		if err != nil {
			return err
		}
		if _, after, ok := strings.Cut(string(text), serves); ok {
			if address, _, whole := strings.Cut(after, "\n"); whole {
				s.endpoint = strings.TrimSpace(address)
				return probe(ctx, s.endpoint)
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.process.ended:
			return fmt.Errorf("java has ended: %v", s.process.err)
		case <-tick.C:
		}
	}
}

// Endpoint is where the server takes jobs: host and port.
func (s *Server) Endpoint() string { return s.endpoint }

// Flags are Beam's flags by which a Go program runs its pipeline on the server,
// with its workers in the program itself.
func (s *Server) Flags() []string { return Flags(s.endpoint) }

// Flags are Server.Flags for a server that runs already.
func Flags(endpoint string) []string {
	return []string{"--runner=flink", "--endpoint=" + endpoint, "--environment_type=LOOPBACK"}
}

// Group is the id of the server's process group, by which a test can kill it.
func (s *Server) Group() int { return s.process.cmd.Process.Pid }

// Ended is closed when the server's process has ended.
func (s *Server) Ended() <-chan struct{} { return s.process.ended }

// Log is the path of the server's log; Stop removes it.
func (s *Server) Log() string { return filepath.Join(s.dir, "server.log") }

// LogTail returns the last lines of the server's log.
func (s *Server) LogTail(lines int) string {
	text, err := os.ReadFile(s.Log())
	if err != nil {
		return fmt.Sprintf("(%v)", err)
	}
	return tail(string(text), lines)
}

// Stop ends the server and all that it started, and removes what it staged. It
// may be called again.
func (s *Server) Stop() error {
	if s.proxy != nil {
		s.proxy.stop()
	}
	if s.process != nil {
		s.process.stop()
	}
	return os.RemoveAll(s.dir)
}

// javaCommand finds Java as its own tools do.
func javaCommand() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java := filepath.Join(home, "bin", "java")
		if _, err := exec.LookPath(java); err != nil {
			return "", fmt.Errorf("JAVA_HOME is %s, but there is no bin/java in it; correct it, or unset it to use the java in PATH", home)
		}
		return java, nil
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return "", fmt.Errorf("no java in PATH (%w); install a Java runtime, version 11 or 17, or set JAVA_HOME", err)
	}
	return java, nil
}

// readable returns an error for a class path whose files are not there.
func readable(classPath string) error {
	for _, path := range filepath.SplitList(classPath) {
		if base := filepath.Base(path); base == "*" {
			path = filepath.Dir(path)
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("the job server's class path: %w; name its jar, or leave it out to have Maven fetch it", err)
		}
	}
	return nil
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// sorted are the names of options, for messages.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
