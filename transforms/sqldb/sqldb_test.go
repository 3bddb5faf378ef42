// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqldb_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/internal/servertest"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
)

func init() {
	sqldb.RegisterDSN("rotating", rotating)
	sqldb.RegisterDSN("empty", func(context.Context) (string, error) { return "", nil })
	sqldb.RegisterDSN("broken", func(context.Context) (string, error) {
		return "", errors.New("the secret store is away")
	})
}

var rotatingDSN string

func rotating(context.Context) (string, error) { return rotatingDSN, nil }

func TestDSNWithAPasswordIsRefusedWithAdvice(t *testing.T) {
	const secret = "hunter2"
	for _, d := range []sqldb.Database{
		{Driver: sqldb.PostgreSQL, DSN: "postgres://joe:hunter2@db/air"},
		{Driver: sqldb.PostgreSQL, DSN: "postgresql://joe:hunter2@db/air?sslmode=disable"},
		{Driver: sqldb.PostgreSQL, DSN: "postgres://joe@db/air?password=hunter2"},
		{Driver: sqldb.PostgreSQL, DSN: "postgres://joe@db/air?pass%77ord=hunter2"},
		{Driver: sqldb.PostgreSQL, DSN: "postgres://joe@db/air?sslpassword=hunter2"},
		{Driver: sqldb.PostgreSQL, DSN: "host=db user=joe password=hunter2"},
		{Driver: sqldb.PostgreSQL, DSN: "host=db user=joe PASSWORD = 'hunter2'"},
		{Driver: sqldb.PostgreSQL, DSN: "postgres://joe:hunter2%@db/air"}, // can't be parsed
		{Driver: sqldb.MySQL, DSN: "joe:hunter2@tcp(db:3306)/air"},
		{Driver: sqldb.MySQL, DSN: "joe:hunter2@/"},
		{Driver: sqldb.MySQL, DSN: "joe:hunter2@db:3306"}, // can't be parsed
		{Driver: sqldb.SQLite, DSN: "file:air.db?_auth_password=hunter2"},
		{Driver: sqldb.PostgreSQL, DSNEnv: "postgres://joe:hunter2@db/air"}, // in the wrong field
	} {
		err := d.Validate()
		require.Error(t, err, d.DSN)
		require.NotContains(t, err.Error(), secret)
		if !strings.Contains(err.Error(), "no data source name") {
			require.ErrorContains(t, err, "DSNEnv", d.DSN)
		}
		_, err = d.Open(t.Context())
		require.Error(t, err, d.DSN)
		require.NotContains(t, err.Error(), secret)
	}
	for _, d := range []sqldb.Database{
		{Driver: sqldb.PostgreSQL, DSN: "postgres://joe@db/air?sslmode=verify-full&passfile=/run/pgpass"},
		{Driver: sqldb.PostgreSQL, DSN: "host=db user=joe dbname=air"},
		{Driver: sqldb.MySQL, DSN: "joe@tcp(db:3306)/air?tls=true"},
		{Driver: sqldb.SQLite, DSN: "file:/data/air.db?mode=ro"},
		{Driver: sqldb.PostgreSQL, DSNEnv: "AIR_DSN"},
	} {
		require.NoError(t, d.Validate(), d.DSN)
	}
}

func TestDatabaseSaysWhatIsWrongWithIt(t *testing.T) {
	for want, d := range map[string]sqldb.Database{
		"the value of DSNFile is not a name (it is not shown here, for it may be the secret itself)":                {Driver: sqldb.PostgreSQL, DSNFile: "postgres://joe:hunter2@db/air"},
		"the value of DSNFunc is not a name (it is not shown here, for it may be the secret itself)":                {Driver: sqldb.MySQL, DSNFunc: "joe:hunter2@tcp(db)/air"},
		`the Driver is "oracle": make it sqldb.SQLite, sqldb.PostgreSQL or sqldb.MySQL`:                             {Driver: "oracle", DSN: "x"},
		"0 of DSN, DSNEnv, DSNFile and DSNFunc are set: set one of them":                                            {Driver: sqldb.SQLite},
		"2 of DSN, DSNEnv, DSNFile and DSNFunc are set: set one of them":                                            {Driver: sqldb.SQLite, DSN: "x", DSNEnv: "X"},
		"the MaxConns are -1: allowed are 0 (no limit) and more":                                                    {Driver: sqldb.SQLite, DSN: "x", MaxConns: -1},
		`DSNFunc: the function "nobody" is not registered; add to an init function: sqldb.RegisterDSN("nobody", …)`: {Driver: sqldb.SQLite, DSNFunc: "nobody"},
	} {
		require.EqualError(t, d.Validate(), want)
	}
}

func TestDSNIsReadOnTheWorkerFromWhereItIs(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "dsn")
	dsn := "file:" + filepath.Join(dir, "air.db")
	require.NoError(t, os.WriteFile(file, []byte(dsn+"\n"), 0o600))
	t.Setenv("SQLDB_TEST_DSN", dsn)
	rotatingDSN = dsn
	for _, d := range []sqldb.Database{
		{Driver: sqldb.SQLite, DSN: dsn},
		{Driver: sqldb.SQLite, DSNEnv: "SQLDB_TEST_DSN"},
		{Driver: sqldb.SQLite, DSNFile: file},
		{Driver: sqldb.SQLite, DSNFunc: "rotating"},
	} {
		pool, err := d.Open(t.Context())
		require.NoError(t, err)
		var name string
		require.NoError(t, pool.QueryRowContext(t.Context(), "SELECT file FROM pragma_database_list").Scan(&name))
		require.Equal(t, filepath.Join(dir, "air.db"), name)
		require.NoError(t, pool.Close())
	}
	for want, d := range map[string]sqldb.Database{
		"the data source name, from the environment variable SQLDB_TEST_UNSET (DSNEnv): it is empty on this worker, or not set": {Driver: sqldb.SQLite, DSNEnv: "SQLDB_TEST_UNSET"},
		"open the sqlite database, by the DSN file:/nowhere/air.db?mode=ro: unable to open database file":                       {Driver: sqldb.SQLite, DSN: "file:/nowhere/air.db?mode=ro"},
		"(a file that is not there on this worker, or a folder: with mode=ro or mode=rw none is made)":                          {Driver: sqldb.SQLite, DSN: "file:/nowhere/air.db?mode=ro"},
		"no such file or directory": {Driver: sqldb.SQLite, DSNFile: file + "-not"},
		`the data source name, from the function "empty" (DSNFunc): it is empty on this worker, or not set`:                                                  {Driver: sqldb.SQLite, DSNFunc: "empty"},
		`the data source name, from the function "broken" (DSNFunc): the secret store is away`:                                                               {Driver: sqldb.SQLite, DSNFunc: "broken"},
		"the environment variable SQLDB_TEST_DSN (DSNEnv) is no data source name of postgres: it should be like postgres://user:password@host:5432/database": {Driver: sqldb.PostgreSQL, DSNEnv: "SQLDB_TEST_DSN"},
	} {
		_, err := d.Open(t.Context())
		require.ErrorContains(t, err, want)
	}
}

func TestConnectionsAreKeptAndNeverMoreThanMaxConns(t *testing.T) {
	for most, want := range map[int]int{0: 5, 3: 3, 100: 5} {
		pool, err := sqldb.Database{Driver: sqldb.SQLite, DSN: "file:" + filepath.Join(t.TempDir(), "air.db"), MaxConns: most}.Open(t.Context())
		require.NoError(t, err)
		require.Equal(t, most, pool.Stats().MaxOpenConnections)
		var held []*sql.Conn
		for range want {
			conn, err := pool.Conn(t.Context())
			require.NoError(t, err)
			held = append(held, conn)
		}
		for _, conn := range held {
			require.NoError(t, conn.Close())
		}
		require.Equal(t, want, pool.Stats().Idle)
		for _, err := range []error{pg("42P01", ""), pg("40P01", ""), my(1146, ""), context.DeadlineExceeded} {
			require.Error(t, pool.Error(err))
			require.Equal(t, want, pool.Stats().Idle, "%v is of a connection that works", err)
		}
		// A server that is gone takes them along; the next ones are kept again.
		for _, err := range []error{
			pg("08006", ""), pg("25006", ""), pg("57P01", ""), my(1053, ""), my(1290, "--read-only"), my(1927, ""),
			io.EOF, io.ErrUnexpectedEOF, driver.ErrBadConn, mysql.ErrInvalidConn, &net.OpError{Op: "dial", Err: io.ErrClosedPipe},
		} {
			require.NoError(t, pool.Ping(t.Context()))
			require.NotZero(t, pool.Stats().Idle)
			require.Error(t, pool.Error(err))
			require.Zero(t, pool.Stats().Idle, err)
		}
		require.NoError(t, pool.Close())
	}
}

func TestPostgreSQLUsesTLSWhereTheServerOffersItAndHidesItsSecrets(t *testing.T) {
	server := servertest.Postgres(t)
	plain := strings.Replace(server.DSN, "sslmode=disable", "", 1)
	encrypted := func(pool *sqldb.Pool) (on bool) {
		require.NoError(t, pool.QueryRowContext(t.Context(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&on))
		return on
	}
	testTLS(t, server, sqldb.PostgreSQL, plain, encrypted, plain+"sslmode=verify-full&sslrootcert="+server.CAFile, plain+"sslmode=verify-full")

	rotatingDSN = plain + "default_query_exec_mode=simple_protocol"
	_, err := sqldb.Database{Driver: sqldb.PostgreSQL, DSNFunc: "rotating"}.Open(t.Context())
	require.ErrorContains(t, err, "say exec")
}

func TestMySQLUsesTLSWhereTheServerOffersItAndHidesItsSecrets(t *testing.T) {
	server := servertest.MariaDB(t)
	plain := strings.Replace(server.DSN, "?tls=false", "", 1)
	encrypted := func(pool *sqldb.Pool) bool {
		var name, cipher string
		require.NoError(t, pool.QueryRowContext(t.Context(), "SHOW SESSION STATUS LIKE 'Ssl_cipher'").Scan(&name, &cipher))
		return cipher != ""
	}
	testTLS(t, server, sqldb.MySQL, plain, encrypted, plain+"?tls=skip-verify", plain+"?tls=true")
}

func TestMySQLPutsNoValueIntoAStatementAndNothingIntoALog(t *testing.T) {
	var logged strings.Builder
	require.NoError(t, mysql.SetLogger(log.New(&logged, "", 0)))
	defer func() { require.NoError(t, mysql.SetLogger(log.New(os.Stderr, "[mysql] ", log.LstdFlags))) }()
	rotatingDSN = servertest.MariaDB(t).DSN + "&interpolateParams=true"
	pool, err := sqldb.Database{Driver: sqldb.MySQL, DSNFunc: "rotating", MaxConns: 1}.Open(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, pool.Close()) }()
	prepared := func() (n int) {
		var name string
		require.NoError(t, pool.QueryRowContext(t.Context(), "SHOW SESSION STATUS LIKE 'Com_stmt_prepare'").Scan(&name, &n))
		return n
	}
	before := prepared()
	var got string
	require.NoError(t, pool.QueryRowContext(t.Context(), "SELECT ?", "'; DROP TABLE city").Scan(&got))
	require.Equal(t, "'; DROP TABLE city", got)
	require.Equal(t, before+1, prepared())

	err = pool.Do(t.Context(), func(conn *sql.Conn) error {
		_, err := conn.ExecContext(t.Context(), "KILL CONNECTION_ID()")
		if err != nil {
			_, err = conn.ExecContext(t.Context(), "SELECT 1")
		}
		return err
	})
	require.Error(t, err)
	require.Zero(t, prepared(), "in a new session")
	require.Empty(t, logged.String())
}

func TestSQLiteWaitsForALockAsLongAsTheDSNSays(t *testing.T) {
	for options, want := range map[string]int{"": 5000, "?mode=rwc": 5000, "?_pragma=busy_timeout(7)": 7, "?mode=rwc&_pragma=busy_timeout(7)": 7} {
		pool, err := sqldb.Database{Driver: sqldb.SQLite, DSN: "file:" + filepath.Join(t.TempDir(), "air.db") + options}.Open(t.Context())
		require.NoError(t, err)
		var got int
		require.NoError(t, pool.QueryRowContext(t.Context(), "PRAGMA busy_timeout").Scan(&got))
		require.Equal(t, want, got, options)
		require.NoError(t, pool.Close())
	}
}

func TestMySQLDefaultsHoldWhateverThePasswordIs(t *testing.T) {
	server := servertest.MariaDB(t, "--max-allowed-packet=1M")
	admin, err := sql.Open("mysql", server.AdminDSN)
	require.NoError(t, err)
	const password = "?tls=false&parseTime=false&sql_mode=x"
	_, err = admin.ExecContext(t.Context(), "ALTER USER "+server.User+" IDENTIFIED BY '"+password+"'")
	require.NoError(t, err)
	require.NoError(t, admin.Close())
	rotatingDSN = strings.Replace(strings.TrimSuffix(server.DSN, "?tls=false"), server.Password, password, 1)
	pool, err := sqldb.Database{Driver: sqldb.MySQL, DSNFunc: "rotating"}.Open(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, pool.Close()) }()
	var name, cipher, mode string
	var at time.Time
	require.NoError(t, pool.QueryRowContext(t.Context(), "SHOW SESSION STATUS LIKE 'Ssl_cipher'").Scan(&name, &cipher))
	require.NotEmpty(t, cipher)
	require.NoError(t, pool.QueryRowContext(t.Context(), "SELECT @@sql_mode, TIMESTAMP '2020-01-02 03:04:05'").Scan(&mode, &at))
	require.Contains(t, mode, "STRICT_ALL_TABLES")
	_, err = pool.ExecContext(t.Context(), "SELECT '"+strings.Repeat("x", 2<<20)+"'")
	require.ErrorIs(t, err, mysql.ErrPktTooLarge)

	// And give way to what the data source name says.
	rotatingDSN = strings.TrimSuffix(rotatingDSN, "?tls=false") + "?maxAllowedPacket=2000&sql_mode=%27%27&parseTime=false"
	other, err := sqldb.Database{Driver: sqldb.MySQL, DSNFunc: "rotating"}.Open(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()
	require.NoError(t, other.QueryRowContext(t.Context(), "SELECT @@sql_mode").Scan(&mode))
	require.Empty(t, mode)
	require.Error(t, other.QueryRowContext(t.Context(), "SELECT TIMESTAMP '2020-01-02 03:04:05'").Scan(&at))
	_, err = other.ExecContext(t.Context(), "SELECT '"+strings.Repeat("x", 3000)+"'")
	require.ErrorIs(t, err, mysql.ErrPktTooLarge)
}

// testTLS is what a server's tests of TLS and of its password have in common.
// Nobody vouches for the certificate with the data source name unverified.
func testTLS(t *testing.T, server *servertest.Server, kind sqldb.Driver, dsn string, encrypted func(*sqldb.Pool) bool, verified, unverified string) {
	open := func(dsn string) (*sqldb.Pool, error) {
		rotatingDSN = dsn
		return sqldb.Database{Driver: kind, DSNFunc: "rotating", MaxConns: 1}.Open(t.Context())
	}
	for name, c := range map[string]struct {
		dsn  string
		want bool
	}{
		"by default": {dsn, true}, "verified": {verified, true}, "without": {server.DSN, false},
	} {
		pool, err := open(c.dsn)
		require.NoError(t, err, name)
		require.Equal(t, c.want, encrypted(pool), name)

		// The password is rotated: a new connection takes the new one.
		rotatingDSN = strings.Replace(dsn, server.Password, "wrong-"+server.Password, 1)
		pool.SetMaxIdleConns(-1)
		err = pool.Ping(t.Context())
		require.Error(t, err)
		require.NotContains(t, err.Error(), server.Password)
		rotatingDSN = c.dsn
		require.NoError(t, pool.Ping(t.Context()))
		require.NoError(t, pool.Close())
	}
	_, err := open(unverified)
	require.Error(t, err)
	require.NotContains(t, err.Error(), server.Password)
	_, err = open(strings.Replace(dsn, server.Addr, server.Addr+"x", 1))
	require.Error(t, err)
	require.NotContains(t, err.Error(), server.Password)
}

func TestAConnectionThatIsReadOnlyOrLostIsNotUsedAgain(t *testing.T) {
	rotatingDSN = servertest.Postgres(t).DSN
	pool, err := sqldb.Database{Driver: sqldb.PostgreSQL, DSNFunc: "rotating", MaxConns: 1}.Open(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, pool.Close()) }()
	// backend tells which connection it is, and then fails by a statement.
	backend := func(statement string) (pid int) {
		err := pool.Do(t.Context(), func(conn *sql.Conn) error {
			if err := conn.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
				return err
			}
			_, err := conn.ExecContext(t.Context(), statement)
			return err
		})
		require.Error(t, err)
		return pid
	}
	first := backend("SELECT 1 FROM nowhere")
	require.Equal(t, first, backend("BEGIN READ ONLY; CREATE TABLE x ()"))
	second := backend("SELECT pg_terminate_backend(pg_backend_pid())")
	require.NotEqual(t, first, second, "the first had become read-only")
	require.NotEqual(t, second, backend("SELECT 1 FROM nowhere"), "the second was killed")
}

func TestACallThatWaitsForAConnectionGetsNoneThatIsReadOnly(t *testing.T) {
	rotatingDSN = servertest.Postgres(t).DSN
	pool, err := sqldb.Database{Driver: sqldb.PostgreSQL, DSNFunc: "rotating", MaxConns: 1}.Open(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, pool.Close()) }()
	var first, second int
	pid := func(conn *sql.Conn, to *int) error {
		return conn.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(to)
	}
	waited := make(chan error, 1)
	err = pool.Do(t.Context(), func(conn *sql.Conn) error {
		if err := pid(conn, &first); err != nil {
			return err
		}
		go func() {
			waited <- pool.Do(t.Context(), func(conn *sql.Conn) error { return pid(conn, &second) })
		}()
		require.Eventually(t, func() bool { return pool.Stats().WaitCount > 0 }, time.Minute, time.Millisecond)
		if _, err := conn.ExecContext(t.Context(), "SET default_transaction_read_only = on"); err != nil {
			return err
		}
		_, err := conn.ExecContext(t.Context(), "CREATE TABLE x ()")
		return err
	})
	require.ErrorContains(t, err, "read-only transaction")
	require.NoError(t, <-waited)
	require.NotEqual(t, first, second)
}

func TestQuoteKeepsAnyNameAName(t *testing.T) {
	require.Equal(t, `"public"."my ""table"""`, sqldb.PostgreSQL.Quote("public", `my "table"`))
	require.Equal(t, "`air`.`a``b`", sqldb.MySQL.Quote("air", "a`b"))
	require.Equal(t, `"a; DROP TABLE x"`, sqldb.SQLite.Quote("a; DROP TABLE x"))
}
