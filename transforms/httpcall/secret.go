// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package httpcall

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/batchasync/beam-batchasync/transforms/internal/secret"
)

// A Secret says where a worker finds a token or a key. Exactly one of its fields
// is set, to a name: the secret itself must not be in the pipeline's
// description, which runners store and show.
type Secret struct {
	Env  string // an environment variable of the worker
	File string // a file on the worker, read for each call, so that it may be rotated; spaces around its content are cut off
	Func string // a function that RegisterSecret has been given under that name
}

var secretFuncs = secret.Funcs[func(context.Context) (string, error)]{Verb: "httpcall.RegisterSecret"}

// RegisterSecret lets Secret.Func name a function that gets a secret, from a
// secret manager or an OAuth token source. Call it in an init function, for the
// workers need it as well. get is called for each call, by several goroutines at
// once, so it should remember what it got until that expires. Its error must not
// show a secret.
func RegisterSecret(name string, get func(ctx context.Context) (string, error)) {
	secretFuncs.Register(name, get)
}

func (s Secret) isZero() bool { return s == Secret{} }

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
	if err := secret.CheckEnv("Env", s.Env); err != nil {
		return err
	}
	if err := secret.CheckName("File", s.File); err != nil {
		return err
	}
	if s.Func != "" {
		if _, err := secretFuncs.Get(s.Func); err != nil {
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
func (s Secret) get(ctx context.Context) (value string, err error) {
	switch {
	case s.Env != "":
		value, err = secret.Env(s.Env)
	case s.File != "":
		value, err = secret.File(s.File)
	default:
		var get func(context.Context) (string, error)
		if get, err = secretFuncs.Get(s.Func); err == nil {
			value, err = get(ctx)
		}
		if value = strings.TrimSpace(value); err == nil && value == "" {
			err = secret.ErrEmpty
		}
	}
	if err != nil {
		return "", fmt.Errorf("a secret, from %v: %w", s, err)
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
	for _, word := range []string{"authorization", "secret", "password", "passwd", "passphrase", "credential", "cookie", "signature"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	for _, end := range []string{"token", "key", "auth", "jwt", "pass", "pwd"} {
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
