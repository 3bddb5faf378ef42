// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package httpcall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
)

// A Secret says where a worker finds a token or a key. Exactly one of its fields
// is set, to a name: the secret itself must not be in the pipeline's
// description, which runners store and show.
type Secret struct {
	Env  string // an environment variable of the worker
	File string // a file on the worker, read for each call, so that it may be rotated; spaces around its content are cut off
	Func string // a function that RegisterSecret has been given under that name
}

// secrets are the registered functions by name.
var secrets sync.Map

// RegisterSecret lets Secret.Func name a function that gets a secret, from a
// secret manager or an OAuth token source. Call it in an init function, for the
// workers need it as well. get is called for each call, by several goroutines at
// once, so it should remember what it got until that expires. Its error must not
// show a secret.
func RegisterSecret(name string, get func(ctx context.Context) (string, error)) {
	if name == "" || get == nil {
		panic(fmt.Sprintf("httpcall.RegisterSecret(%q): give a name and a function", name))
	}
	if _, loaded := secrets.LoadOrStore(name, get); loaded {
		panic(fmt.Sprintf("httpcall.RegisterSecret(%q): the name is taken", name))
	}
}

func (s Secret) isZero() bool { return s == Secret{} }

// variable is what a shell takes as a variable's name: most tokens are none.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// validate names no value in its error, for that may be the secret itself.
func (s Secret) validate() error {
	set := 0
	for _, name := range []string{s.Env, s.File, s.Func} {
		if name != "" {
			set++
		}
	}
	if set != 1 {
		return fmt.Errorf("%d of Env, File and Func are set: set one", set)
	}
	if s.Env != "" && !variable.MatchString(s.Env) {
		return errors.New("the value of Env is not the name of an environment variable (it is not shown here, for it may be the secret itself): give the variable's name, and set the variable on the workers")
	}
	if strings.ContainsAny(s.File, "\r\n") {
		return errors.New("the value of File is not the name of a file (it is not shown here, for it may be the secret itself)")
	}
	if s.Func != "" {
		if _, ok := secrets.Load(s.Func); !ok {
			return errors.New("the value of Func is not the name of a registered function (it is not shown here, for it may be the secret itself); add to an init function: httpcall.RegisterSecret(name, function)")
		}
	}
	return nil
}

// String says where the secret comes from.
func (s Secret) String() string {
	switch {
	case s.Env != "":
		return "the environment variable " + s.Env
	case s.File != "":
		return "the file " + s.File
	case s.Func != "":
		return "the function registered as " + s.Func
	}
	return "nowhere"
}

// get reads the secret.
func (s Secret) get(ctx context.Context) (string, error) {
	var value string
	switch {
	case s.Env != "":
		value = os.Getenv(s.Env)
	case s.File != "":
		content, err := os.ReadFile(s.File)
		if err != nil {
			return "", fmt.Errorf("read a secret: %w", err)
		}
		value = string(content)
	default:
		get, ok := secrets.Load(s.Func)
		if !ok {
			return "", fmt.Errorf("no secret is registered as %s in this worker; add to an init function: httpcall.RegisterSecret(%q, function)", s.Func, s.Func)
		}
		var err error
		if value, err = get.(func(context.Context) (string, error))(ctx); err != nil {
			return "", fmt.Errorf("get the secret %s: %w", s.Func, err)
		}
	}
	value = strings.TrimSpace(value)
	if value == "" {
		return "", fmt.Errorf("%v holds no secret: it is not set on this worker, or empty", s)
	}
	if !fieldValue(value) {
		return "", fmt.Errorf("%v holds a secret that no HTTP header can hold: it has a line break or another control character in it", s)
	}
	return value, nil
}

// fieldValue reports whether an HTTP header may have that value.
func fieldValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// secretive reports whether what has that name, a header or a member of a
// request or a query, is likely to be a secret. Who is suspected wrongly can
// still be sent, as a Secret.
func secretive(name string) bool {
	name = strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(name))
	for _, word := range []string{"authorization", "secret", "password", "passwd", "credential", "cookie", "signature"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	for _, end := range []string{"token", "key", "auth", "jwt", "pwd"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return name == "sig"
}

// secretValue reports whether a header's value looks like a secret.
func secretValue(value string) bool {
	value = strings.ToLower(strings.TrimSpace(value))
	for _, begin := range []string{"bearer ", "basic ", "sk-", "eyj"} {
		if strings.HasPrefix(value, begin) {
			return true
		}
	}
	return false
}
