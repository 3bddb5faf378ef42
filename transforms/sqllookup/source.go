// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqllookup

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
)

// A Source answers keys from a database, with one query for all of them; it is a
// source for package enrich. See the package's documentation for Query, K and V.
type Source[K comparable, V any] struct {
	Database sqldb.Database
	Query    string

	*running[K, V]
}

// running is what a Source has on the worker, after Setup.
type running[K comparable, V any] struct {
	pool *sqldb.Pool
	plan *plan[K, V]

	mu         sync.Mutex
	statements map[int]*sql.Stmt // by the number of keys
	last       int               // keys of the query before
	usual      map[int]bool      // numbers of keys that have a statement of their own

	warn sync.Once
}

// Validate says what is wrong with the Database, the Query, K or V.
func (s *Source[K, V]) Validate() error {
	_, err := s.validate()
	return err
}

func (s *Source[K, V]) validate() (*plan[K, V], error) {
	if err := s.Database.Validate(); err != nil {
		return nil, fmt.Errorf("the Database: %w", err)
	}
	return newPlan[K, V](s.Database.Driver, s.Query)
}

// MarshalJSON refuses to let a Source travel that can't work or that has a password
// in it, whatever it is a part of.
func (s Source[K, V]) MarshalJSON() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	type fields struct {
		Database sqldb.Database
		Query    string
	}
	return json.Marshal(fields{s.Database, s.Query})
}

// Setup opens the pool of connections, one for the worker process.
func (s *Source[K, V]) Setup(ctx context.Context) error {
	p, err := s.validate()
	if err != nil {
		return fmt.Errorf("sqllookup: %w", err)
	}
	pool, err := s.Database.Open(ctx)
	if err != nil {
		return err
	}
	s.running = &running[K, V]{pool: pool, plan: p, statements: map[int]*sql.Stmt{}, usual: map[int]bool{}}
	return nil
}

// Teardown closes it.
func (s *Source[K, V]) Teardown(context.Context) error {
	if s.running == nil {
		return nil
	}
	return s.pool.Close()
}

// Idempotent says that a second query does no harm, for batchasync.Hedge.
func (s *Source[K, V]) Idempotent() bool { return true }

// Lookup answers keys. A key with more rows than one fails by itself and for good,
// unless V is a slice.
func (s *Source[K, V]) Lookup(ctx context.Context, keys []K) (map[K]V, error) {
	a := newAnswer(s.plan, len(keys))
	var err error
	if s.Database.Driver == sqldb.PostgreSQL {
		err = s.lookupArrays(ctx, s.plan.sendable(keys), a)
	} else {
		err = s.lookupLists(ctx, keys, a)
	}
	if err != nil {
		return nil, err
	}
	if len(a.values) < len(keys) {
		s.warnOfOthers(ctx, keys, a)
	}
	return a.values, s.tooMany(keys, a)
}

// lookupArrays sends one array for each field of the key: the statement is the
// same for any number of keys, and each connection prepares it once. It goes past
// database/sql, which would turn each value into one of its own types first.
func (s *Source[K, V]) lookupArrays(ctx context.Context, keys []K, a *answer[K, V]) error {
	if len(keys) == 0 {
		return nil
	}
	return s.pool.Do(ctx, func(conn *sql.Conn) error {
		return conn.Raw(func(raw any) error {
			rows, err := raw.(*stdlib.Conn).Conn().Query(ctx, s.Query, s.plan.arrays(keys)...)
			if err != nil {
				return err
			}
			defer rows.Close()
			descriptions := rows.FieldDescriptions()
			columns := make([]string, len(descriptions))
			for i, d := range descriptions {
				columns[i] = d.Name
			}
			return a.read(columns, rows)
		})
	})
}

// lookupLists sends a parameter for each key, and more queries than one if they are
// more than the database takes.
func (s *Source[K, V]) lookupLists(ctx context.Context, keys []K, a *answer[K, V]) error {
	for chunk := range slices.Chunk(keys, s.plan.most) {
		if err := s.lookupList(ctx, chunk, s.parameters(len(chunk)), a); err != nil {
			return s.pool.Error(err)
		}
	}
	return nil
}

// mostUsual numbers of keys have a statement of their own.
const mostUsual = 8

// parameters is for how many keys the statement is that n keys are asked with: the
// last of them is repeated. So that there are few statements to prepare, it is a
// power of two; but a number that comes twice in a row is most likely that of a full
// batch, for which a quarter more of keys would be a tenth more of time.
func (r *running[K, V]) parameters(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n == r.last && len(r.usual) < mostUsual {
		r.usual[n] = true
	}
	r.last = n
	if r.usual[n] {
		return n
	}
	power := 1
	for power < n {
		power *= 2
	}
	return power
}

func (s *Source[K, V]) lookupList(ctx context.Context, keys []K, n int, a *answer[K, V]) (err error) {
	statement, err := s.statement(ctx, n)
	if err != nil {
		return err
	}
	rows, err := statement.QueryContext(ctx, s.plan.list(keys, n)...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	return a.read(columns, rows)
}

// statement returns the query for n keys; database/sql prepares it on each
// connection that it is used on.
func (s *Source[K, V]) statement(ctx context.Context, n int) (*sql.Stmt, error) {
	s.mu.Lock()
	statement := s.statements[n]
	s.mu.Unlock()
	if statement != nil {
		return statement, nil
	}
	// Not under the lock: other calls need not wait for this one's connection.
	statement, err := s.pool.PrepareContext(ctx, s.plan.expand(n))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.statements[n]; other != nil {
		return other, statement.Close()
	}
	s.statements[n] = statement
	return statement, nil
}

// tooMany fails the keys that have more rows than one.
func (s *Source[K, V]) tooMany(keys []K, a *answer[K, V]) error {
	if len(a.repeated) == 0 {
		return nil
	}
	var failed batchasync.BatchError
	for i, key := range keys {
		if a.repeated[key] {
			failed.Fail(i, batchasync.Permanent(fmt.Errorf("sqllookup: the query returned more than one row for the key: let it return one, or make the value a slice, []%T", *new(V))))
		}
	}
	return failed.Err()
}
