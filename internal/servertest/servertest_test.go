// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package servertest_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/internal/servertest"
)

func TestPostgresKeepsItsDataOverAStopAndACrash(t *testing.T) {
	keepsItsData(t, "pgx", servertest.Postgres(t))
}

func TestMariaDBKeepsItsDataOverAStopAndACrash(t *testing.T) {
	keepsItsData(t, "mysql", servertest.MariaDB(t))
}

func keepsItsData(t *testing.T, driver string, server *servertest.Server) {
	dir := server.Dir
	db, err := sql.Open(driver, server.DSN)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = db.ExecContext(t.Context(), "CREATE TABLE kept (id INT PRIMARY KEY)")
	require.NoError(t, err)
	for i, end := range []func(){server.Stop, server.Kill} {
		_, err := db.ExecContext(t.Context(), fmt.Sprintf("INSERT INTO kept VALUES (%d)", i))
		require.NoError(t, err)
		end()
		require.Error(t, db.PingContext(t.Context()), "the server should be down")
		server.Start()
		var rows int
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM kept").Scan(&rows))
		require.Equal(t, i+1, rows)
	}
	admin, err := sql.Open(driver, server.AdminDSN)
	require.NoError(t, err)
	require.NoError(t, admin.PingContext(t.Context()))
	require.NoError(t, admin.Close())
	require.DirExists(t, dir)
}

func TestPostgresReplicaFollowsAndIsReadOnly(t *testing.T) {
	primary := servertest.Postgres(t)
	db, err := sql.Open("pgx", primary.DSN)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = db.ExecContext(t.Context(), "CREATE TABLE kept (id INT PRIMARY KEY)")
	require.NoError(t, err)

	replica, err := sql.Open("pgx", servertest.PostgresReplica(t, primary).DSN)
	require.NoError(t, err)
	defer func() { require.NoError(t, replica.Close()) }()
	var rows int
	require.NoError(t, replica.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM kept").Scan(&rows))
	_, err = replica.ExecContext(t.Context(), "INSERT INTO kept VALUES (1)")
	require.ErrorContains(t, err, "read-only")
}

func TestRedisKeepsItsDataOverAStopAndACrash(t *testing.T) {
	server := servertest.Redis(t)
	require.Equal(t, "+OK", redis(t, server.Addr, "SET", "key", "value"))
	for _, end := range []func(){server.Stop, server.Kill} {
		end()
		_, err := net.Dial("tcp", server.Addr)
		require.Error(t, err, "the server should be down")
		server.Start()
		require.Equal(t, "$5", redis(t, server.Addr, "GET", "key"))
	}
	pem, err := os.ReadFile(server.CAFile)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(pem))
	conn, err := tls.Dial("tcp", server.TLSAddr, &tls.Config{RootCAs: roots})
	require.NoError(t, err)
	require.NoError(t, conn.Close())
}

func TestRedisSentinelTellsTheMaster(t *testing.T) {
	master := servertest.Redis(t)
	sentinel := servertest.RedisSentinel(t, master)
	require.Equal(t, "*2", redis(t, sentinel.Addr, "SENTINEL", "get-master-addr-by-name", "main"))
}

// redis sends one command and returns the first line of the reply.
func redis(t *testing.T, addr string, command ...string) string {
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = fmt.Fprintf(conn, "%s\r\n", strings.Join(command, " "))
	require.NoError(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line)
}

func TestFolderIsGoneAfterTheTest(t *testing.T) {
	var dir string
	t.Run("with a server", func(t *testing.T) { dir = servertest.Redis(t).Dir })
	if dir != "" {
		require.NoDirExists(t, dir)
	}
}
