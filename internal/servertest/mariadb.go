// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"fmt"
	"path/filepath"
	"testing"
)

// MariaDB starts a MariaDB server. Its options are such as
// "--max-connections=5".
func MariaDB(t testing.TB, options ...string) *Server {
	t.Helper()
	server := executable(t, "mariadbd", "mariadb-server")
	install := executable(t, "mariadb-install-db", "mariadb-server")
	s := newServer(t, "mariadb")
	s.tool(install, "--no-defaults", "--datadir="+s.data(), "--auth-root-authentication-method=normal", "--skip-test-db")
	s.User, s.Password, s.Database = testUser, testPassword, testDatabase
	s.DSN = fmt.Sprintf("%s:%s@tcp(%s)/%s?tls=false", testUser, testPassword, s.Addr, testDatabase)
	s.AdminDSN = fmt.Sprintf("admin:%s@tcp(%s)/%s?tls=false", testPassword, s.Addr, testDatabase)
	// At each start: all of it may be there already.
	script := s.file("init.sql", fmt.Sprintf(`
CREATE DATABASE IF NOT EXISTS %[3]s CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS '%[1]s'@'%%' IDENTIFIED BY '%[2]s';
CREATE USER IF NOT EXISTS 'admin'@'%%' IDENTIFIED BY '%[2]s';
GRANT ALL ON %[3]s.* TO '%[1]s'@'%%';
GRANT ALL ON *.* TO 'admin'@'%%';
`, testUser, testPassword, testDatabase))
	s.ready = []byte("ready for connections")
	s.command = append([]string{server, "--no-defaults", "--datadir=" + s.data(), "--port=" + fmt.Sprint(s.Port),
		"--bind-address=127.0.0.1", "--socket=" + filepath.Join(s.Dir, "socket"), "--pid-file=" + filepath.Join(s.Dir, "pid"),
		"--init-file=" + script, "--skip-name-resolve", "--innodb-buffer-pool-size=64M",
		"--ssl-cert=" + s.CAFile, "--ssl-key=" + s.keyFile(), "--ssl-ca=" + s.CAFile,
		// A crash of the server, unlike one of the machine, loses nothing with it.
		"--innodb-flush-log-at-trx-commit=2"}, options...)
	return s.open()
}
