// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

// The service of the comparison: a call takes baseLatency, and perElement for each
// of at most batchSize elements. It serves capacity calls side by side; with n
// beyond that each takes 1 + 2(n−capacity)/capacity times as long.
const (
	baseLatency = 5 * time.Millisecond
	perElement  = 20 * time.Microsecond
	batchSize   = 100
	capacity    = 16
)

func serviceConfig(failShare float64) batchasynctest.ServiceConfig {
	return batchasynctest.ServiceConfig{
		BaseLatency: baseLatency, PerElement: perElement, MaxBatch: batchSize,
		Capacity: capacity, Overload: batchasynctest.Degrade, DegradeFactor: 2,
		FailShare: failShare, Seed: 1,
	}
}

// limit is the most elements a second that the service can answer.
var limit = batchasynctest.NewService(serviceConfig(0)).MaxThroughput(batchSize)

// nameOf is what the service knows.
func nameOf(id int) string { return "customer " + strconv.Itoa(id) }

// serve is the process of the service: it prints its address, and ends when its
// standard input does, which is when its parent has ended.
func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var current atomic.Pointer[batchasynctest.Service]
	mux := http.NewServeMux()
	mux.HandleFunc("POST /names", func(w http.ResponseWriter, r *http.Request) {
		var ids []int
		if err := json.NewDecoder(r.Body).Decode(&ids); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		names, _, err := batchasynctest.Call(r.Context(), current.Load(), ids, func(id int) (string, error) { return nameOf(id), nil })
		if _, ok := errors.AsType[*batchasynctest.TooLargeError](err); ok {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(names) // if the client is gone, it knows
	})
	mux.HandleFunc("POST /new", func(w http.ResponseWriter, r *http.Request) {
		failShare, err := strconv.ParseFloat(r.FormValue("fail"), 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		current.Store(batchasynctest.NewService(serviceConfig(failShare)))
	})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(current.Load().Stats())
	})
	served := make(chan error, 1)
	go func() { served <- http.Serve(listener, mux) }()
	fmt.Println("http://" + listener.Addr().String())
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		ended <- err
	}()
	select {
	case err := <-served:
		return err
	case err := <-ended:
		return err
	}
}

// A server is the process of the service, as its parent sees it.
type server struct {
	url string
	cmd *exec.Cmd
	end io.Closer
}

func startServer(ctx context.Context) (*server, error) {
	cmd, err := self(ctx, "-serve")
	if err != nil {
		return nil, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, end: stdin}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the service: %w", err), s.close())
	}
	s.url = strings.TrimSpace(line)
	return s, nil
}

func (s *server) close() error { return errors.Join(s.end.Close(), s.cmd.Wait()) }

// renew begins a service anew, of whose calls such a share fails.
func (s *server) renew(ctx context.Context, failShare float64) error {
	return s.do(ctx, http.MethodPost, "/new?fail="+strconv.FormatFloat(failShare, 'g', -1, 64), nil)
}

func (s *server) stats(ctx context.Context) (stats batchasynctest.ServiceStats, err error) {
	return stats, s.do(ctx, http.MethodGet, "/stats", &stats)
}

func (s *server) do(ctx context.Context, method, path string, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the service: %s: %s", response.Status, body)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(body, answer)
}

// self is this program, for a child process that ends with ctx.
func self(ctx context.Context, args ...string) (*exec.Cmd, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stderr = os.Stderr
	return cmd, nil
}
