// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package redislookup

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
)

// Credentials name a user and a password: they are read on the worker, for each
// connection that is made. Redis needs no user if only its default user's password
// is set.
type Credentials struct {
	UsernameEnv  string `json:",omitempty"` // the environment variable of the workers that it is in
	UsernameFile string `json:",omitempty"` // or the file; white space around it is ignored
	PasswordEnv  string `json:",omitempty"`
	PasswordFile string `json:",omitempty"`
	Func         string `json:",omitempty"` // or the function that returns both, by its name; see RegisterCredentials
}

var credentialsFuncs sync.Map

// RegisterCredentials makes a function known by a name, for Credentials.Func: it
// returns the user (empty for the default user) and the password, say from a
// secret store, and is called for each connection that is made. Call
// RegisterCredentials in an init function. It panics if the name is taken.
func RegisterCredentials(name string, f func(context.Context) (username, password string, err error)) {
	if name == "" || f == nil {
		panic("redislookup.RegisterCredentials: give a name and a function")
	}
	if other, loaded := credentialsFuncs.LoadOrStore(name, f); loaded && reflect.ValueOf(other).Pointer() != reflect.ValueOf(f).Pointer() {
		panic(fmt.Sprintf("redislookup.RegisterCredentials: two functions are named %q", name))
	}
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
	if _, ok := credentialsFuncs.Load(c.Func); c.Func != "" && !ok {
		return fmt.Errorf("%s.Func %q is not registered; add to an init function: redislookup.RegisterCredentials(%q, …)", field, c.Func, c.Func)
	}
	return nil
}

// read reads them. What it returns as an error never holds them.
func (c Credentials) read(ctx context.Context) (username, password string, err error) {
	if c.Func != "" {
		f, _ := credentialsFuncs.Load(c.Func) // validated
		username, password, err = f.(func(context.Context) (string, string, error))(ctx)
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

func value(what, env, file string) (string, error) {
	switch {
	case env != "":
		if v := os.Getenv(env); v != "" {
			return v, nil
		}
		return "", fmt.Errorf("%sEnv: the environment variable %s is empty on this worker, or not set", what, env)
	case file != "":
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("%sFile: %w", what, err)
		}
		if v := strings.TrimSpace(string(text)); v != "" {
			return v, nil
		}
		return "", fmt.Errorf("%sFile: the file %s is empty on this worker", what, file)
	}
	return "", nil
}
