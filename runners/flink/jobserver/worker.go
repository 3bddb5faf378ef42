// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package jobserver

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/apache/beam/sdks/v2/go/container/tools"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/util/grpcx"
)

// What Boot is told by the environment of the process.
const (
	workerBinary = "BEAM_BATCHASYNC_WORKER_BINARY"
	workerLog    = "BEAM_BATCHASYNC_WORKER_LOG"
)

// ProcessFlags are Flags for workers that are processes of their own, each running
// binary: the program itself, or one that has registered the same. The server starts
// and ends them. It starts the program that calls ProcessFlags, so that must have
// Boot at its beginning. What the workers print is in the server's log.
func (s *Server) ProcessFlags(binary string) ([]string, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if _, err := exec.LookPath(binary); err != nil {
		return nil, fmt.Errorf("the workers' program: %w; name a binary, such as go build makes", err)
	}
	boot, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]any{
		"command": boot,
		"env":     map[string]string{workerBinary: binary, workerLog: s.Log()},
	})
	if err != nil {
		return nil, err
	}
	// Beam stages a copy of the program for the workers, which have it already.
	none := filepath.Join(s.dir, "nothing-to-stage")
	if err := os.WriteFile(none, nil, 0o600); err != nil {
		return nil, err
	}
	return []string{"--runner=flink", "--endpoint=" + s.endpoint, "--environment_type=PROCESS",
		"--environment_config=" + string(config), "--worker_binary=" + none}, nil
}

// Boot returns at once, unless the job server has started this process to be a
// worker; then the process becomes one, and Boot does not return. It is what the
// boot program is in a container of Beam's: the server says where it can be asked,
// and a Go worker wants to be told by flags.
func Boot() {
	binary := os.Getenv(workerBinary)
	if binary == "" {
		return
	}
	if err := boot(binary, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

func boot(binary string, args []string) error {
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	id := flags.String("id", "", "")
	endpoint := flags.String("provision_endpoint", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(grpcx.WriteWorkerID(context.Background(), *id), time.Minute)
	defer stop()
	info, err := tools.ProvisionInfo(ctx, *endpoint)
	if err != nil {
		return fmt.Errorf("ask %s what to do: %w", *endpoint, err)
	}
	logs, err := os.OpenFile(os.Getenv(workerLog), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	// Or a program that is its own worker would begin here again.
	if err := os.Unsetenv(workerBinary); err != nil {
		return err
	}
	environ := append(os.Environ(), "RUNNER_CAPABILITIES="+strings.Join(info.GetRunnerCapabilities(), " "))
	if status := info.GetStatusEndpoint().GetUrl(); status != "" {
		environ = append(environ, "STATUS_ENDPOINT="+status)
	}
	return become(binary, []string{
		"--worker", "--id=" + *id,
		"--logging_endpoint=" + info.GetLoggingEndpoint().GetUrl(),
		"--control_endpoint=" + info.GetControlEndpoint().GetUrl(),
	}, environ, logs)
}
