// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqldb

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"strings"
	"sync"

	"github.com/go-sql-driver/mysql"
)

var dsnFuncs sync.Map

// RegisterDSN makes a function known by a name, for Database.DSNFunc: it returns
// the data source name on the worker, say from a secret store, and is called for
// each connection that is opened. Call RegisterDSN in an init function. It panics
// if the name is taken.
func RegisterDSN(name string, f func(context.Context) (string, error)) {
	if name == "" || f == nil {
		panic("sqldb.RegisterDSN: give a name and a function")
	}
	if other, loaded := dsnFuncs.LoadOrStore(name, f); loaded && reflect.ValueOf(other).Pointer() != reflect.ValueOf(f).Pointer() {
		panic(fmt.Sprintf("sqldb.RegisterDSN: two functions are named %q", name))
	}
}

// origin tells where the data source name comes from, since errors can't show it.
func (d Database) origin() string {
	switch {
	case d.DSNEnv != "":
		return "the environment variable " + d.DSNEnv + " (DSNEnv)"
	case d.DSNFile != "":
		return "the file " + d.DSNFile + " (DSNFile)"
	case d.DSNFunc != "":
		return fmt.Sprintf("what the function %q (DSNFunc) returned", d.DSNFunc)
	}
	return "the DSN"
}

func (d Database) dsn(ctx context.Context) (string, error) {
	dsn := d.DSN
	switch {
	case d.DSNEnv != "":
		dsn = os.Getenv(d.DSNEnv)
	case d.DSNFile != "":
		text, err := os.ReadFile(d.DSNFile)
		if err != nil {
			return "", fmt.Errorf("the data source name (DSNFile): %w", err)
		}
		dsn = strings.TrimSpace(string(text))
	case d.DSNFunc != "":
		f, _ := dsnFuncs.Load(d.DSNFunc)
		var err error
		if dsn, err = f.(func(context.Context) (string, error))(ctx); err != nil {
			return "", fmt.Errorf("the data source name, from the function %q (DSNFunc): %w", d.DSNFunc, err)
		}
	}
	if dsn == "" {
		return "", fmt.Errorf("%s is empty on this worker: it must be the data source name", d.origin())
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

// cutLast is strings.Cut at the last of the separators.
func cutLast(s string, separator byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, separator); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}
