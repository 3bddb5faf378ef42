// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqldb

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/batchasync/beam-batchasync/transforms/internal/secret"
)

var dsnFuncs = secret.Funcs[func(context.Context) (string, error)]{Verb: "sqldb.RegisterDSN"}

// RegisterDSN makes a function known by a name, for Database.DSNFunc: it returns
// the data source name on the worker, say from a secret store, and is called for
// each connection that is opened. Call RegisterDSN in an init function. It panics
// if the name is taken.
func RegisterDSN(name string, f func(context.Context) (string, error)) { dsnFuncs.Register(name, f) }

// origin tells where the data source name comes from, since errors can't show it.
func (d Database) origin() string {
	switch {
	case d.DSNEnv != "":
		return "the environment variable " + d.DSNEnv + " (DSNEnv)"
	case d.DSNFile != "":
		return "the file " + d.DSNFile + " (DSNFile)"
	case d.DSNFunc != "":
		return fmt.Sprintf("the function %q (DSNFunc)", d.DSNFunc)
	}
	if d.Driver == SQLite {
		return "the DSN " + d.DSN // a file
	}
	return "the DSN"
}

func (d Database) dsn(ctx context.Context) (dsn string, err error) {
	switch {
	case d.DSNEnv != "":
		dsn, err = secret.Env(d.DSNEnv)
	case d.DSNFile != "":
		dsn, err = secret.File(d.DSNFile)
	case d.DSNFunc != "":
		var get func(context.Context) (string, error)
		if get, err = dsnFuncs.Get(d.DSNFunc); err == nil {
			dsn, err = get(ctx)
		}
		if err == nil && dsn == "" {
			err = secret.ErrEmpty
		}
	default:
		return d.DSN, nil
	}
	if err != nil {
		return "", fmt.Errorf("the data source name, from %s: %w", d.origin(), err)
	}
	return dsn, nil
}

// examples are what a data source name looks like.
var examples = map[Driver]string{
	PostgreSQL: "postgres://user:password@host:5432/database",
	MySQL:      "user:password@tcp(host:3306)/database",
}

// unreadable takes the place of the drivers' own errors, which may quote a part
// of the name, and with it of the password.
func unreadable(d Driver, origin string) error {
	return fmt.Errorf("%s is no data source name of %s: it should be like %s", origin, d, examples[d])
}

// secretWord is a parameter whose name says that its value is a secret.
var secretWord = regexp.MustCompile(`(?i)(password|passwd|passphrase|\bpwd|secret|token)[a-z_]*\s*=\s*[^\s&;]`)

func refusePassword(d Driver, dsn string) error {
	refusal := errors.New("the DSN has a password in it, and would travel in the pipeline's description, which runners store and show: " +
		"put it into an environment variable of the workers (DSNEnv), a file (DSNFile) or a function (DSNFunc, sqldb.RegisterDSN)")
	unescaped, err := url.QueryUnescape(dsn)
	if err != nil {
		unescaped = dsn
	}
	if secretWord.MatchString(dsn) || secretWord.MatchString(unescaped) {
		return refusal
	}
	switch d {
	case PostgreSQL:
		if strings.Contains(dsn, "://") {
			u, err := url.Parse(dsn)
			if err != nil {
				return unreadable(d, "the DSN")
			}
			if _, ok := u.User.Password(); ok {
				return refusal
			}
		}
	case MySQL:
		config, err := mysql.ParseDSN(dsn)
		if err != nil {
			return unreadable(d, "the DSN")
		}
		if config.Passwd != "" {
			return refusal
		}
	}
	return nil
}
