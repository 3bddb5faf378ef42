// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"fmt"
	"testing"
)

// Redis starts a Redis server, which keeps its data when it is stopped or killed
// and started again. Its options are such as "--maxmemory", "1mb", or "--replicaof",
// "127.0.0.1 6379", or "--requirepass", "…", or "--cluster-enabled", "yes".
func Redis(t testing.TB, options ...string) *Server {
	t.Helper()
	server := executable(t, "redis-server", "redis-server")
	s := newServer(t, "redis")
	tlsPort := freePort(t)
	s.TLSAddr = fmt.Sprintf("127.0.0.1:%d", tlsPort)
	s.ready = []byte("Ready to accept connections")
	s.command = append([]string{server,
		"--port", fmt.Sprint(s.Port), "--bind", "127.0.0.1", "--dir", s.Dir, "--daemonize", "no",
		"--tls-port", fmt.Sprint(tlsPort), "--tls-cert-file", s.CAFile, "--tls-key-file", s.keyFile(),
		"--tls-ca-cert-file", s.CAFile, "--tls-auth-clients", "no",
		"--save", "", "--appendonly", "yes", "--appendfsync", "no", "--repl-diskless-sync-delay", "0"}, options...)
	return s.open()
}

// RedisSentinel starts a sentinel that watches a server of Redis under the name
// of "main". It takes the server for down after a second.
func RedisSentinel(t testing.TB, master *Server) *Server {
	t.Helper()
	server := executable(t, "redis-server", "redis-server")
	s := newServer(t, "sentinel")
	config := s.file("sentinel.conf", fmt.Sprintf(`port %d
bind 127.0.0.1
dir %q
sentinel monitor main 127.0.0.1 %d 1
sentinel down-after-milliseconds main 1000
sentinel failover-timeout main 5000
`, s.Port, s.Dir, master.Port))
	s.ready = []byte("+monitor")
	s.command = []string{server, config, "--sentinel"}
	return s.open()
}
