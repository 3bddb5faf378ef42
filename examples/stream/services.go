// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"github.com/batchasync/beam-batchasync/transforms/redislookup"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
)

const (
	streamName    = "BATCHASYNC_EXAMPLE"
	subjects      = "batchasync.example." // and the run
	redisPassword = "REDIS_PASSWORD"
	patience      = 10 * time.Second // with NATS: for its start, and for a message to be stored
)

// openNATS connects to NATS, to a server of its own if no other is named, and makes
// the stream. It returns the server's URL too.
func openNATS(ctx context.Context, o options) (js jetstream.JetStream, at string, closeAll func() error, err error) {
	var closers closers
	defer func() {
		if err != nil {
			err = errors.Join(err, closers.close())
		}
	}()
	at = o.nats
	if at == "" {
		dir, err := os.MkdirTemp("", "stream-nats-")
		if err != nil {
			return nil, "", nil, err
		}
		closers.add(func() error { return os.RemoveAll(dir) })
		s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true})
		if err != nil {
			return nil, "", nil, err
		}
		s.Start()
		closers.add(func() error { s.Shutdown(); s.WaitForShutdown(); return nil })
		if !s.ReadyForConnections(patience) {
			return nil, "", nil, fmt.Errorf("the embedded NATS server was not ready after %v", patience)
		}
		at = s.ClientURL()
	}
	if js, err = connect(at, o.natsCreds, jetstream.WithPublishAsyncTimeout(patience)); err != nil {
		return nil, "", nil, err
	}
	closers.add(func() error { js.Conn().Close(); return nil })
	_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: streamName, Subjects: []string{subjects + "*"}, MaxAge: time.Hour})
	return js, at, closers.close, err
}

// openRedis puts the customers into Redis, into a server of its own if no other is
// named, and takes them out again at the end.
func openRedis(ctx context.Context, o options, run string) (at redislookup.Server, closeAll func() error, err error) {
	var closers closers
	defer func() {
		if err != nil {
			err = errors.Join(err, closers.close())
		}
	}()
	at = redislookup.Server{Address: o.redis}
	if os.Getenv(redisPassword) != "" {
		at.Credentials.PasswordEnv = redisPassword
	}
	if o.redis == "" {
		s, err := miniredis.Run()
		if err != nil {
			return at, nil, err
		}
		closers.add(func() error { s.Close(); return nil })
		at = redislookup.Server{Address: s.Addr()}
	}
	if err := at.Validate(); err != nil {
		return at, nil, err
	}
	options := &redis.Options{Addr: at.Address}
	if strings.Contains(at.Address, "://") {
		if options, err = redis.ParseURL(at.Address); err != nil {
			return at, nil, err
		}
	}
	if at.Credentials.PasswordEnv != "" {
		options.Password = os.Getenv(redisPassword)
	}
	client := redis.NewClient(options)
	closers.add(client.Close)
	var keys []string
	_, err = client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range customers {
			key, c := customer(i)
			text, err := json.Marshal(c)
			if err != nil {
				return err
			}
			keys = append(keys, prefix(run)+key)
			p.Set(ctx, prefix(run)+key, text, 0)
		}
		return nil
	})
	closers.add(func() error { return client.Unlink(context.WithoutCancel(ctx), keys...).Err() })
	return at, closers.close, err
}

// prefix is that of the customers' keys.
func prefix(run string) string { return "batchasync:example:" + run + ":" }

// openDatabase makes the tables.
func openDatabase(ctx context.Context, o options) (sqldb.Database, *sqldb.Pool, error) {
	database := sqldb.Database{Driver: sqldb.PostgreSQL, DSNEnv: o.postgresDSNEnv}
	if o.postgresDSNEnv == "" {
		// With a write-ahead log a commit need not wait for the disk: a crash of the
		// machine then loses the last rows, but breaks nothing.
		file := url.URL{Path: filepath.ToSlash(o.sqlite)}
		database = sqldb.Database{Driver: sqldb.SQLite, DSN: "file:" + file.EscapedPath() + "?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_time_format=sqlite"}
	}
	pool, err := database.Open(ctx)
	if err != nil {
		return database, nil, err
	}
	for _, statement := range tables {
		if _, err := pool.ExecContext(ctx, statement); err != nil {
			return database, nil, errors.Join(err, pool.Close())
		}
	}
	return database, pool, nil
}

// closeDatabase leaves all rows in the SQLite file itself: the workers keep connections
// for a while, and with them the write-ahead log.
func closeDatabase(pool *sqldb.Pool) (err error) {
	if pool.Driver == sqldb.SQLite {
		_, err = pool.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	}
	return errors.Join(err, pool.Close())
}

// closers are called in the opposite order.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c closers) close() error {
	var errs []error
	for i := len(c) - 1; i >= 0; i-- {
		errs = append(errs, c[i]())
	}
	return errors.Join(errs...)
}
