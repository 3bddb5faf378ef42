// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
)

const (
	testUser     = "tester"
	testPassword = "s3cret-of-the-test" // what no error and no log may show
	testDatabase = "test"
	postgresBin  = "/usr/lib/postgresql/*/bin"
)

// Postgres starts a PostgreSQL server. Its settings are such as
// "max_connections=5".
func Postgres(t testing.TB, settings ...string) *Server {
	t.Helper()
	postgres := executable(t, "postgres", "postgresql", postgresBin)
	s := newServer(t, "postgres")
	passwords := s.file("password", testPassword)
	s.tool(executable(t, "initdb", "postgresql", postgresBin), "--pgdata", s.data(), "--username=postgres",
		"--pwfile="+passwords, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
	// As a single user, before the server takes connections.
	script := s.file("init.sql", fmt.Sprintf("CREATE ROLE %[1]s LOGIN PASSWORD '%[2]s';\nCREATE DATABASE %[3]s OWNER %[1]s;\n", testUser, testPassword, testDatabase))
	s.tool("/bin/sh", "-c", `"$0" --single -D "$1" postgres <"$2"`, postgres, s.data(), script)
	return s.postgres(postgres, settings)
}

// PostgresReplica starts a hot standby of a server of Postgres: it is read-only,
// and follows what is written to the primary.
func PostgresReplica(t testing.TB, primary *Server, settings ...string) *Server {
	t.Helper()
	postgres := executable(t, "postgres", "postgresql", postgresBin)
	s := newServer(t, "replica")
	s.tool(executable(t, "pg_basebackup", "postgresql", postgresBin), "--pgdata", s.data(),
		"--dbname", primary.AdminDSN, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	return s.postgres(postgres, settings)
}

func (s *Server) data() string { return filepath.Join(s.Dir, "data") }

func (s *Server) postgres(executable string, settings []string) *Server {
	s.t.Helper()
	s.User, s.Password, s.Database = testUser, testPassword, testDatabase
	s.DSN = fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", testUser, testPassword, s.Addr, testDatabase)
	s.AdminDSN = fmt.Sprintf("postgres://postgres:%s@%s/%s?sslmode=disable", testPassword, s.Addr, testDatabase)
	s.ready = []byte("ready to accept") // a replica goes on with "read-only connections"
	s.stop, s.crash = syscall.SIGINT, syscall.SIGQUIT
	s.command = []string{executable, "-D", s.data(), "-p", fmt.Sprint(s.Port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "ssl=on", "-c", "ssl_cert_file=" + s.CAFile, "-c", "ssl_key_file=" + s.keyFile(),
		"-c", "logging_collector=off", "-c", "log_destination=stderr",
		// A crash of the server, unlike one of the machine, loses nothing without
		// these, and tests don't wait for the disk.
		"-c", "fsync=off", "-c", "full_page_writes=off"}
	for _, setting := range settings {
		s.command = append(s.command, "-c", setting)
	}
	return s.open()
}
