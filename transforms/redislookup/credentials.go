// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package redislookup

import (
	"context"
	"fmt"

	"github.com/batchasync/beam-batchasync/transforms/internal/secret"
)

// Credentials name a user and a password: they are read on the worker, for each
// connection that is made; those of sentinels once, by Setup. Redis needs no user if
// only its default user's password is set.
type Credentials struct {
	UsernameEnv  string `json:",omitempty"` // the environment variable of the workers that it is in
	UsernameFile string `json:",omitempty"` // or the file; white space around it is ignored
	PasswordEnv  string `json:",omitempty"`
	PasswordFile string `json:",omitempty"`
	Func         string `json:",omitempty"` // or the function that returns both, by its name; see RegisterCredentials
}

var credentialsFuncs = secret.Funcs[func(context.Context) (username, password string, err error)]{Verb: "redislookup.RegisterCredentials"}

// RegisterCredentials makes a function known by a name, for Credentials.Func: it
// returns the user (empty for the default user) and the password, say from a
// secret store, and is called for each connection that is made. Call
// RegisterCredentials in an init function. It panics if the name is taken.
func RegisterCredentials(name string, f func(context.Context) (username, password string, err error)) {
	credentialsFuncs.Register(name, f)
}

func (c Credentials) validate(field string) error {
	named := Credentials{Func: c.Func}
	switch {
	case c.Func != "" && c != named:
		return fmt.Errorf("%s has Func and others: the function returns both the user and the password", field)
	case c.UsernameEnv != "" && c.UsernameFile != "":
		return fmt.Errorf("%s has UsernameEnv and UsernameFile: set one of them", field)
	case c.PasswordEnv != "" && c.PasswordFile != "":
		return fmt.Errorf("%s has PasswordEnv and PasswordFile: set one of them", field)
	case c != named && c.PasswordEnv == "" && c.PasswordFile == "":
		return fmt.Errorf("%s has a user, but no password: set PasswordEnv or PasswordFile", field)
	}
	for _, env := range []struct{ field, name string }{{"UsernameEnv", c.UsernameEnv}, {"PasswordEnv", c.PasswordEnv}} {
		if err := secret.CheckEnv(field+"."+env.field, env.name); err != nil {
			return err
		}
	}
	if c.Func != "" {
		if _, err := credentialsFuncs.Get(c.Func); err != nil {
			return fmt.Errorf("%s.Func: %w", field, err)
		}
	}
	return nil
}

// read reads them. What it returns as an error never holds them.
func (c Credentials) read(ctx context.Context) (username, password string, err error) {
	if c.Func != "" {
		get, err := credentialsFuncs.Get(c.Func)
		if err == nil {
			username, password, err = get(ctx)
		}
		if err != nil {
			return "", "", fmt.Errorf("the credentials, from the function %q: %w", c.Func, err)
		}
		return username, password, nil
	}
	if username, err = value("Username", c.UsernameEnv, c.UsernameFile); err != nil {
		return "", "", err
	}
	password, err = value("Password", c.PasswordEnv, c.PasswordFile)
	return username, password, err
}

func value(what, env, file string) (value string, err error) {
	switch {
	case env != "":
		what += "Env " + env
		value, err = secret.Env(env)
	case file != "":
		what += "File " + file
		value, err = secret.File(file)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	return value, nil
}
