// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
)

// A Pool is a worker process's connections to a database.
type Pool struct {
	*sql.DB
	Driver Driver
	idle   int
}

// Do calls f with a connection that is its own until then, and returns its error
// as Error does. A connection that is lost or has become read-only is not used
// again.
func (p *Pool) Do(ctx context.Context, f func(*sql.Conn) error) error {
	conn, err := p.Conn(ctx)
	if err != nil {
		return p.Error(err)
	}
	failed := f(conn)
	if failed != nil && gone(failed) {
		// The error is the only way to have database/sql close a connection.
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	// It fails for a connection only that has been closed.
	_ = conn.Close()
	return p.Error(failed)
}

// Ping opens a connection if there is none, and asks the server for an answer.
func (p *Pool) Ping(ctx context.Context) error {
	return p.Error(p.PingContext(ctx))
}

// Error returns what a call should return for err: see Classify. If the server is
// gone or has become read-only, the connections that wait for use have most likely
// gone the same way, and are closed, so that an attempt does not fail for each.
func (p *Pool) Error(err error) error {
	if err != nil && gone(err) {
		p.SetMaxIdleConns(-1)
		p.SetMaxIdleConns(p.idle)
	}
	return Classify(err)
}
