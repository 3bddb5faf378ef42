// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Flink runs a command with a Flink job server of its own:
//
//	go run ./runners/flink -- go run ./examples/flights
//
// It appends Beam's flags to the command, ends the server when the command has
// ended, and exits with the command's status. Without a command it says which
// flags to use, and serves until it is interrupted.
//
// Maven fetches the server's jars once, into the user's cache directory; it needs
// java, and that once mvn. The program must link the runner:
//
//	import _ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/flink"
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/batchasync/beam-batchasync/runners/flink/jobserver"
)

// Exit statuses of its own; otherwise it has the command's.
const (
	notRun    = 1
	wrongFlag = 2 // as the flag package has it
)

// options collects the flag -option.
type options map[string]string

func (o options) String() string { return "" }

func (o options) Set(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return errors.New("must be NAME=VALUE, such as max_bundle_size=1000")
	}
	o[name] = value
	return nil
}

func main() {
	jobserver.Boot()
	config := jobserver.Config{Options: options{}, Notice: notice}
	endpoint := flag.String("endpoint", "", "job server that runs already, host:port, in place of one of its own")
	flag.StringVar(&config.ClassPath, "classpath", "", "the job server's jar, or its class path (default: fetched by Maven)")
	flag.StringVar(&config.Cache, "cache", "", "folder for what Maven fetches (default: beam-batchasync in the user's cache directory)")
	flag.StringVar(&config.FlinkMaster, "flink_master", "[local]", "Flink cluster, host:port; [local]: one in the job server")
	flag.StringVar(&config.FlinkConfDir, "flink_conf_dir", "", "folder with a flink-conf.yaml")
	flag.DurationVar(&config.Timeout, "timeout", time.Minute, "how long the job server may take to serve")
	flag.Var(options(config.Options), "option", "pipeline option to add to each job, NAME=VALUE; may be given several times")
	worker := flag.String("worker", "", "program that each worker is a process of (environment PROCESS); default: workers are in the command itself (LOOPBACK)")
	flag.Usage = usage
	flag.Parse()

	if *endpoint != "" {
		var wrong []string
		flag.Visit(func(f *flag.Flag) {
			if f.Name != "endpoint" {
				wrong = append(wrong, "-"+f.Name)
			}
		})
		if len(wrong) > 0 {
			notice("-endpoint %s: that server runs already, so %s can't be set for it; leave one out", *endpoint, strings.Join(wrong, ", "))
			os.Exit(wrongFlag)
		}
	}
	status, err := run(config, *endpoint, *worker, flag.Args())
	if err != nil {
		notice("%v", err)
	}
	os.Exit(status)
}

func usage() {
	_, _ = fmt.Fprint(flag.CommandLine.Output(), `usage: go run ./runners/flink [flags] -- command [arguments]

It starts a Flink job server and runs the command with Beam's flags for it
appended; without a command it says which these are, and serves.

`)
	flag.PrintDefaults()
}

func notice(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stderr, "flink: "+format+"\n", args...)
}

// run starts the server, unless there is an endpoint, and runs the command. It
// returns the exit status.
func run(config jobserver.Config, endpoint, worker string, command []string) (status int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, orphaned := context.WithCancel(ctx)
	defer orphaned()
	go watchParent(ctx, orphaned)

	var ended <-chan struct{} // never, for a server that is not ours
	flags := jobserver.Flags(endpoint)
	if endpoint == "" {
		server, err := jobserver.Start(ctx, config)
		if err != nil {
			return notRun, err
		}
		defer func() { err = errors.Join(err, server.Stop()) }()
		flags, ended = server.Flags(), server.Ended()
		if worker != "" {
			if flags, err = server.ProcessFlags(worker); err != nil {
				return notRun, err
			}
		}
		defer func() {
			select {
			case <-ended:
				notice("the job server has ended by itself; the end of its log:\n%s", server.LogTail(30))
			default:
			}
		}()
	}
	if len(command) == 0 {
		fmt.Println(strings.Join(flags, " "))
		select {
		case <-ctx.Done():
			return 0, nil
		case <-ended:
			return notRun, errors.New("there is no server any more")
		}
	}
	return runCommand(ctx, append(command, flags...))
}

// runCommand runs a command in a process group of its own, so that a signal
// reaches all of it: go run does not pass one on.
func runCommand(ctx context.Context, command []string) (status int, err error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	jobserver.OwnGroup(cmd, 10*time.Second)
	err = cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		// A command that a signal has ended has no status of its own.
		return max(exit.ExitCode(), notRun), nil
	}
	if err != nil {
		return notRun, fmt.Errorf("run %s: %w", command[0], err)
	}
	return 0, nil
}

// watchParent calls orphaned when the process that started this one has ended:
// a signal that ends go run does not reach what it runs.
func watchParent(ctx context.Context, orphaned func()) {
	parent := os.Getppid()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for os.Getppid() == parent {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	orphaned()
}
