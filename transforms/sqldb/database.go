// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"modernc.org/sqlite" // registers itself as "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/batchasync/beam-batchasync/transforms/internal/secret"
)

// A Driver names the kind of a database.
type Driver string

// The drivers. MySQL is MariaDB's too.
const (
	SQLite     Driver = "sqlite"
	PostgreSQL Driver = "postgres"
	MySQL      Driver = "mysql"
)

// A Database says which database, and how the worker gets the data source name:
// by exactly one of DSN, DSNEnv, DSNFile and DSNFunc. It is in the words of the
// driver:
//
//	PostgreSQL  postgres://user:password@host:5432/database
//	MySQL       user:password@tcp(host:3306)/database
//	SQLite      file:/path/to/file?mode=ro
//
// Defaults are, with MySQL, parseTime=true, so that dates are scanned into a
// time.Time, and a strict sql_mode, in which a value that does not fit is an error;
// with SQLite, _pragma=busy_timeout(5000).
type Database struct {
	Driver Driver

	DSN     string `json:",omitempty"` // the data source name itself; refused if there is a password in it
	DSNEnv  string `json:",omitempty"` // the environment variable that it is in
	DSNFile string `json:",omitempty"` // the file that it is in; white space around it is cut off
	DSNFunc string `json:",omitempty"` // the name of the function of RegisterDSN that returns it

	// MaxConns is the most connections that a worker process opens. Calls that find
	// none wait for one. 0 stands for as many as there are calls at once, which
	// batchasync.MaxInFlight or AdaptiveInFlight bounds.
	MaxConns int `json:",omitempty"`
}

// maxIdle is how many connections are kept between calls at least, if they have been
// opened: as many as calls at once that batchasync makes by default at most.
const maxIdle = 64

// Validate returns an error that says what is wrong, and what to write instead,
// for a Database that can't work or that has a password in it.
func (d Database) Validate() error {
	if d.Driver != SQLite && d.Driver != PostgreSQL && d.Driver != MySQL {
		return fmt.Errorf("the Driver is %q: make it sqldb.SQLite, sqldb.PostgreSQL or sqldb.MySQL", string(d.Driver))
	}
	if d.MaxConns < 0 {
		return fmt.Errorf("the MaxConns are %d: allowed are 0 (no limit) and more", d.MaxConns)
	}
	given := 0
	for _, way := range []string{d.DSN, d.DSNEnv, d.DSNFile, d.DSNFunc} {
		if way != "" {
			given++
		}
	}
	if given != 1 {
		return fmt.Errorf("%d of DSN, DSNEnv, DSNFile and DSNFunc are set: set one of them", given)
	}
	if err := secret.CheckEnv("DSNEnv", d.DSNEnv); err != nil {
		return err
	}
	if err := errors.Join(secret.CheckName("DSNFile", d.DSNFile), secret.CheckName("DSNFunc", d.DSNFunc)); err != nil {
		return err
	}
	if d.DSNFunc != "" {
		if _, err := dsnFuncs.Get(d.DSNFunc); err != nil {
			return fmt.Errorf("DSNFunc: %w", err)
		}
	}
	if d.DSN != "" {
		return refusePassword(d.Driver, d.DSN)
	}
	return nil
}

// Open opens the pool of connections, and tries one of them. What it returns is
// for one worker process, and closed with Close.
func (d Database) Open(ctx context.Context) (*Pool, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("sqldb: %w", err)
	}
	p := &Pool{DB: sql.OpenDB(connector{d}), Driver: d.Driver, idle: max(maxIdle, d.MaxConns)}
	p.SetMaxOpenConns(d.MaxConns)
	p.SetMaxIdleConns(p.idle)
	p.SetConnMaxIdleTime(time.Minute)
	if err := p.Ping(ctx); err != nil {
		hint := ""
		if lite, ok := errors.AsType[*sqlite.Error](err); ok && lite.Code()&0xff == sqlite3.SQLITE_CANTOPEN {
			hint = " (a file that is not there on this worker, or a folder: with mode=ro or mode=rw none is made)"
		}
		return nil, errors.Join(fmt.Errorf("open the %s database, by %s: %w%s", d.Driver, d.origin(), Classify(err), hint), p.Close())
	}
	return p, nil
}

// connector opens a connection with the data source name of that moment.
type connector struct{ database Database }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	dsn, err := c.database.dsn(ctx)
	if err != nil {
		return nil, err
	}
	switch c.database.Driver {
	case PostgreSQL:
		return connectPostgreSQL(ctx, dsn, c.database.origin())
	case MySQL:
		return connectMySQL(ctx, dsn, c.database.origin())
	}
	return c.Driver().Open(sqliteDSN(dsn))
}

// Driver returns the driver that is registered: SQLite's has the functions and
// collations that the program has registered there.
func (c connector) Driver() driver.Driver {
	switch c.database.Driver {
	case PostgreSQL:
		return stdlib.GetDefaultDriver()
	case MySQL:
		return mysql.MySQLDriver{}
	}
	db, err := sql.Open("sqlite", "")
	if err != nil {
		panic(err) // the import above has registered it
	}
	defer func() { _ = db.Close() }() // nothing was opened
	return db.Driver()
}

func connectPostgreSQL(ctx context.Context, dsn, origin string) (driver.Conn, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, unreadable(PostgreSQL, origin)
	}
	if config.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
		return nil, fmt.Errorf("%s says default_query_exec_mode=simple_protocol, which puts values into the statement's text: say exec, which works with a pooler as well", origin)
	}
	return stdlib.GetConnector(*config).Connect(ctx)
}

func connectMySQL(ctx context.Context, dsn, origin string) (driver.Conn, error) {
	config, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, unreadable(MySQL, origin)
	}
	if config.TLSConfig == "" {
		config.TLSConfig = "preferred"
	}
	// Behind the last slash, as the driver sees it: a password may have any character.
	_, params, _ := strings.Cut(dsn[strings.LastIndexByte(dsn, '/'):], "?")
	if !strings.Contains(params, "parseTime=") {
		config.ParseTime = true
	}
	if !strings.Contains(params, "maxAllowedPacket=") {
		// The server's own. To it, what is larger is an error that costs the
		// connection; here it is known for what it is.
		config.MaxAllowedPacket = 0
	}
	if !strings.Contains(params, "sql_mode=") {
		// What does not fit is an error, and not cut off, whatever the server's default.
		if config.Params == nil {
			config.Params = map[string]string{}
		}
		config.Params["sql_mode"] = "CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')"
	}
	config.InterpolateParams = false           // it would put values into the statement's text
	config.Logger = log.New(io.Discard, "", 0) // all that it says is in the errors too
	c, err := mysql.NewConnector(config)
	if err != nil {
		return nil, unreadable(MySQL, origin)
	}
	return c.Connect(ctx)
}

func sqliteDSN(dsn string) string {
	separator := "?" // behind a busy_timeout of the name's own, which counts
	if strings.Contains(dsn, "?") {
		separator = "&"
	}
	return dsn + separator + "_pragma=busy_timeout(5000)"
}
