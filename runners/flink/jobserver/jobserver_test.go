// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package jobserver

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners" // the flag, for go test ./runners/... -runner=flink
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
)

// jobs is a job service that keeps what it is asked.
type jobs struct {
	jobpb.UnimplementedJobServiceServer
	prepared *jobpb.PrepareJobRequest
}

func (j *jobs) Prepare(_ context.Context, req *jobpb.PrepareJobRequest) (*jobpb.PrepareJobResponse, error) {
	j.prepared = req
	return &jobpb.PrepareJobResponse{PreparationId: "id"}, nil
}

func TestOptionsAreAddedToAJobUnlessItHasThem(t *testing.T) {
	var j jobs
	listener, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	jobpb.RegisterJobServiceServer(server, &j)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-served)
	})

	options, err := parseOptions(map[string]string{"max_bundle_size": "1000", "parallelism": "7", "state_backend": "rocksdb", "finish_bundle_before_checkpointing": "true"})
	require.NoError(t, err)
	p, err := startProxy(listener.Addr().String(), options)
	require.NoError(t, err)
	t.Cleanup(p.stop)
	conn, err := dial(p.endpoint())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	own, err := structpb.NewStruct(map[string]any{"beam:option:parallelism:v1": 2})
	require.NoError(t, err)
	response, err := jobpb.NewJobServiceClient(conn).Prepare(t.Context(), &jobpb.PrepareJobRequest{JobName: "prices", PipelineOptions: own})
	require.NoError(t, err)
	require.Equal(t, "id", response.GetPreparationId())
	require.Equal(t, "prices", j.prepared.GetJobName())
	require.Equal(t, map[string]any{
		"beam:option:max_bundle_size:v1": 1000.0, "beam:option:parallelism:v1": 2.0, "beam:option:state_backend:v1": "rocksdb",
		"beam:option:finish_bundle_before_checkpointing:v1": true,
	}, j.prepared.GetPipelineOptions().AsMap())
}

func TestWhatCannotStartSaysWhatToDo(t *testing.T) {
	empty := t.TempDir()
	for _, test := range []struct {
		name   string
		env    map[string]string
		config Config
		want   string
	}{
		{"there is no Java", map[string]string{"PATH": empty, "JAVA_HOME": ""}, Config{}, "install a Java runtime, version 11 or 17, or set JAVA_HOME"},
		{"JAVA_HOME is wrong", map[string]string{"JAVA_HOME": empty}, Config{}, "there is no bin/java in it; correct it, or unset it"},
		{"an option's name", map[string]string{"JAVA_HOME": fakeJava(t), "PATH": empty}, Config{Options: map[string]string{"maxBundleSize": "1"}}, `pipeline option "maxBundleSize": must be a name in small letters, such as max_bundle_size`},
		{"a class path", map[string]string{"JAVA_HOME": fakeJava(t), "PATH": empty}, Config{ClassPath: filepath.Join(empty, "server.jar")}, "name its jar, or leave it out to have Maven fetch it"},
		{"there is no Maven", map[string]string{"JAVA_HOME": fakeJava(t), "PATH": empty}, Config{Cache: empty}, "install Apache Maven, or name the job server's class path or endpoint"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			_, err := Start(t.Context(), test.config)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func fakeJava(t *testing.T) string {
	home := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(home, "bin"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(home, "bin", "java"), []byte("#!/bin/sh\necho no such class\nexit 3\n"), 0o700))
	return home
}

func TestAServerThatEndsAtOnceTellsTheEndOfItsLog(t *testing.T) {
	t.Setenv("JAVA_HOME", fakeJava(t))
	jar := filepath.Join(t.TempDir(), "server.jar")
	require.NoError(t, os.WriteFile(jar, nil, 0o600))
	_, err := Start(t.Context(), Config{ClassPath: jar})
	require.ErrorContains(t, err, "the job server did not come up: java has ended: exit status 3; the end of its log:\nno such class")
}

func TestAProcessEndsWithAllThatItStarted(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, out.Close()) })
	p, err := startProcess(out, "/bin/sh", "-c", "trap : TERM; sleep 600 & echo up; while :; do wait; done")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(out.Name())
		return err == nil && len(text) > 0
	}, 10*time.Second, 10*time.Millisecond)
	p.stop()
	<-p.ended
	require.Error(t, p.err)
	// What has ended may wait for its status to be asked for, by a process
	// that is none of ours.
	require.Eventually(t, func() bool {
		return syscall.Kill(-p.cmd.Process.Pid, 0) != nil || len(running(t, p.cmd.Process.Pid)) == 0
	}, 5*time.Second, 10*time.Millisecond)
}

// running are the processes of a group that have not ended.
func running(t *testing.T, group int) []string {
	out, err := exec.Command("ps", "-A", "-o", "pgid=,stat=,args=").Output()
	require.NoError(t, err)
	var processes []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); f[0] == strconv.Itoa(group) && !strings.HasPrefix(f[1], "Z") {
			processes = append(processes, line)
		}
	}
	return processes
}
