// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package redislookup_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/enrich"
	"github.com/batchasync/beam-batchasync/transforms/redislookup"
)

// secret is what must be shown nowhere.
const secret = "hunter2"

func init() {
	redislookup.RegisterCredentials("vault", func(context.Context) (string, string, error) { return "reader", secret, nil })
	redislookup.RegisterCredentials("sealed", func(context.Context) (string, string, error) {
		return "", "", errors.New("the secret store is sealed")
	})
}

func TestAMistakeInTheFieldsIsRefusedAtConstruction(t *testing.T) {
	password := redislookup.Credentials{PasswordEnv: "P"}
	for want, server := range map[string]redislookup.Server{
		"Address is empty, or a part of it: make it host:port": {},
		"Address is empty": {Address: "a:1,", Cluster: true},
		`Address "redis": must be host:port, such as "redis:6379"`:                    {Address: "redis"},
		`Address "redis:x": the port must be a number up to 65535`:                    {Address: "redis:x"},
		`Address "http://a": must be host:port, redis://host:port/db`:                 {Address: "http://a"},
		`Address "redis://a/x": must be host:port`:                                    {Address: "redis://a/x"},
		`Address "unix:///tmp/redis": must be host:port`:                              {Address: "unix:///tmp/redis"},
		`Address "redis://a/2": names another database than 1`:                        {Address: "redis://a/2", DB: 1},
		"Address has a user or a password in it":                                      {Address: "redis://reader:" + secret + "@a:1"},
		"put them into environment variables of the workers":                          {Address: ":" + secret + "@a:1"},
		"Address has a user or a password in it, and would travel":                    {Address: "redis://a:1,redis://:" + secret + "%@b", Cluster: true},
		"Address has parameters, which would be ignored":                              {Address: "redis://a:1?password=" + secret},
		"Address has 2 parts: set Cluster or Master":                                  {Address: "a:1,b:1"},
		"Cluster and Master exclude each other":                                       {Address: "a:1", Cluster: true, Master: "main"},
		"DB is 1: a cluster has no database but 0":                                    {Address: "a:1", Cluster: true, DB: 1},
		"DB is -1: must not be negative":                                              {Address: "a:1", DB: -1},
		"the field Replicas is set: that is for Cluster and Master":                   {Address: "a:1", Replicas: true},
		"Connections are -1: must be at least 1, or 0 for 64":                         {Address: "a:1", Connections: -1},
		"the CertFile and the KeyFile belong together":                                {Address: "a:1", CertFile: "x"},
		"SentinelCredentials are set, but Master is not":                              {Address: "a:1", SentinelCredentials: password},
		"Credentials has Func and others":                                             {Address: "a:1", Credentials: redislookup.Credentials{Func: "vault", PasswordEnv: "P"}},
		"Credentials has UsernameEnv and UsernameFile":                                {Address: "a:1", Credentials: redislookup.Credentials{UsernameEnv: "U", UsernameFile: "f", PasswordEnv: "P"}},
		"Credentials has PasswordEnv and PasswordFile":                                {Address: "a:1", Credentials: redislookup.Credentials{PasswordEnv: "P", PasswordFile: "f"}},
		"SentinelCredentials has a user, but no password":                             {Address: "a:1", Master: "main", SentinelCredentials: redislookup.Credentials{UsernameEnv: "U"}},
		"the value of Credentials.PasswordEnv is not the name of an environment var":  {Address: "a:1", Credentials: redislookup.Credentials{PasswordEnv: secret + "!"}},
		"the value of SentinelCredentials.UsernameEnv is not the name":                {Address: "a:1", Master: "main", SentinelCredentials: redislookup.Credentials{UsernameEnv: secret + "!", PasswordEnv: "P"}},
		`Credentials.Func: the function "none" is not registered; add to an init fun`: {Address: "a:1", Credentials: redislookup.Credentials{Func: "none"}},
	} {
		t.Run(want, func(t *testing.T) {
			defer func() {
				said := fmt.Sprint(recover())
				require.Contains(t, said, "the source *redislookup_test.watched: ")
				require.Contains(t, said, want)
				require.NotContains(t, said, secret)
			}()
			_, s := beam.NewPipelineWithRoot()
			enrich.ParDo(s, &watched{Strings: redislookup.Strings[row]{Server: server}}, named{}, enrich.KeepMissing, beam.Create(s, "a"))
		})
	}
	for _, server := range []redislookup.Server{
		{Address: "[::1]:6379"}, {Address: "redis://a"}, {Address: "rediss://a:1/2"}, {Address: "a:1, b:2", Cluster: true, Replicas: true},
		{Address: "a:1,b:1", Master: "main", SentinelCredentials: password, Replicas: true}, {Address: "a:1", Credentials: redislookup.Credentials{Func: "vault"}},
	} {
		require.NoError(t, server.Validate())
	}
	require.EqualError(t, (&redislookup.Hashes[int]{Server: redislookup.Server{Address: "a:1"}}).Validate(), "its values are of type int: must be a struct or map[string]string")
	require.ErrorContains(t, (&redislookup.Hashes[struct{ Price int }]{}).Validate(), "in which no field has a tag: name the hash's field that each is of, such as `redis:\"price\"`")
	require.ErrorContains(t, (&redislookup.Hashes[row]{}).Validate(), "Address is empty")
	require.ErrorContains(t, (&redislookup.Hashes[map[string]string]{}).Validate(), "Address is empty")
}

func TestCredentialsAreReadOnTheWorker(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "secret")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	t.Setenv("TEST_REDIS_USER", "reader")
	t.Setenv("TEST_REDIS_PASSWORD", secret)
	t.Setenv("TEST_REDIS_WRONG", "wrong-"+secret)
	t.Setenv("TEST_REDIS_EMPTY", "")
	stores := map[string]func(t *testing.T) *store{
		"miniredis": func(t *testing.T) *store {
			s := newMini(t)
			s.set(t, map[string]any{"a": "1"})
			s.mini.RequireUserAuth("reader", secret)
			s.mini.RequireAuth(secret)
			return s
		},
		"redis": func(t *testing.T) *store {
			s := newReal(t)
			s.set(t, map[string]any{"a": "1"})
			require.NoError(t, s.client.Do(t.Context(), "ACL", "SETUSER", "reader", "on", ">"+secret, "~"+prefix+"*", "+@read", "+@connection").Err())
			require.NoError(t, s.client.ConfigSet(t.Context(), "requirepass", secret).Err())
			return s
		},
	}
	for _, test := range []struct {
		name        string
		credentials redislookup.Credentials
		setup, call string // the error, if there is one
	}{
		{"of the environment", redislookup.Credentials{UsernameEnv: "TEST_REDIS_USER", PasswordEnv: "TEST_REDIS_PASSWORD"}, "", ""},
		{"of files", redislookup.Credentials{UsernameFile: file("reader"), PasswordFile: file(secret + "\n")}, "", ""},
		{"of a function", redislookup.Credentials{Func: "vault"}, "", ""},
		{"a password alone", redislookup.Credentials{PasswordEnv: "TEST_REDIS_PASSWORD"}, "", ""},
		{"none", redislookup.Credentials{}, "", "NOAUTH"},
		{"wrong", redislookup.Credentials{PasswordEnv: "TEST_REDIS_WRONG"}, "", "WRONGPASS"},
		{"an empty variable", redislookup.Credentials{PasswordEnv: "TEST_REDIS_EMPTY"}, "PasswordEnv TEST_REDIS_EMPTY: it is empty on this worker, or not set", ""},
		{"an empty file", redislookup.Credentials{PasswordFile: file(" \n")}, "is empty on this worker", ""},
		{"no file", redislookup.Credentials{UsernameFile: "/none", PasswordEnv: "TEST_REDIS_PASSWORD"}, "UsernameFile /none: open /none: no such file or directory", ""},
		{"a function that fails", redislookup.Credentials{Func: "sealed"}, `the credentials, from the function "sealed": the secret store is sealed`, ""},
	} {
		for name, start := range stores {
			t.Run(test.name+"/"+name, func(t *testing.T) {
				s := start(t)
				server := redislookup.Server{Address: s.Address, Credentials: test.credentials}
				source := &watched{Strings: redislookup.Strings[row]{Server: server, Prefix: prefix}}
				travels, err := json.Marshal(batchasync.New(enrich.New(source, named{}, enrich.KeepMissing)))
				require.NoError(t, err)
				require.NotContains(t, string(travels), secret)
				out, err := harness(t, source).Bundle(batchasynctest.Values("b")...)
				if test.setup != "" {
					require.ErrorContains(t, err, test.setup)
					require.NotContains(t, err.Error(), secret)
					return
				}
				require.NoError(t, err)
				if test.call == "" {
					require.Empty(t, out.Failures())
					return
				}
				f := out.Failures()[0].Value.(batchasync.Failure[string])
				require.Contains(t, f.Error, test.call)
				require.NotContains(t, f.Error, secret)
				require.True(t, f.Permanent)
				require.Equal(t, 1, f.Attempts)
			})
		}
	}
}

func TestAPasswordIsReadForEachConnection(t *testing.T) {
	s := newReal(t)
	s.set(t, map[string]any{"a": "1"})
	ctx := t.Context()
	source := &redislookup.Strings[string]{Server: redislookup.Server{Address: s.Address, Credentials: redislookup.Credentials{PasswordEnv: "TEST_REDIS_PASSWORD"}}, Prefix: prefix}
	for i, password := range []string{"first-" + secret, "second-" + secret} {
		t.Setenv("TEST_REDIS_PASSWORD", password)
		require.NoError(t, s.client.ConfigSet(ctx, "requirepass", password).Err())
		if i == 0 {
			require.NoError(t, source.Setup(ctx))
		} else {
			require.NoError(t, s.client.Do(ctx, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Err())
			// It may find the old connection, and that it is lost.
			_, _ = source.Lookup(ctx, []string{"a"})
		}
		got, err := source.Lookup(ctx, []string{"a"})
		require.NoError(t, err)
		require.Equal(t, map[string]string{"a": "1"}, got)
	}
	require.NoError(t, s.client.ConfigSet(ctx, "requirepass", "").Err()) // or nothing can be cleaned up
	require.NoError(t, source.Teardown(context.Background()))
}

func TestAServerMayWantACertificate(t *testing.T) {
	s := newReal(t, "--tls-auth-clients", "yes")
	s.set(t, map[string]any{"a": "1"})
	server := redislookup.Server{Address: s.real.TLSAddr, CAFile: s.real.CAFile}
	_, err := lookup(t, &redislookup.Strings[string]{Server: server, Prefix: prefix}, "a")
	require.ErrorContains(t, err, "certificate required")
	server.CertFile, server.KeyFile = s.real.CAFile, filepath.Join(s.real.Dir, "key.pem")
	got, err := lookup(t, &redislookup.Strings[string]{Server: server, Prefix: prefix}, "a")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "1"}, got)
}

// A user that may read some of the keys only: with MGET, one is enough to have all
// of them refused.
func TestAKeyThatTheUserMayNotReadFailsAlone(t *testing.T) {
	s := newReal(t)
	s.fill(t, 10, false)
	require.NoError(t, s.client.Do(t.Context(), "ACL", "SETUSER", "reader", "on", ">"+secret, "~"+prefix+"*", "+@read", "+@connection").Err())
	source := &watched{Strings: redislookup.Strings[row]{Server: redislookup.Server{Address: s.Address, Credentials: redislookup.Credentials{Func: "vault"}}}}
	elements := batchasynctest.Values(prefix+"k1", "other", prefix+"k2", prefix+"k3", "another")
	out, err := harness(t, source).Bundle(elements...)
	require.NoError(t, err)
	require.Len(t, out.Results(), 3)
	require.Len(t, out.Failures(), 2)
	for _, e := range out.Failures() {
		f := e.Value.(batchasync.Failure[string])
		require.Contains(t, f.Error, "NOPERM")
		require.Contains(t, f.Element, "other")
	}
}

func TestConnectionsAreEncrypted(t *testing.T) {
	s := newReal(t)
	s.set(t, map[string]any{"a": "1"})
	none := filepath.Join(t.TempDir(), "none.pem")
	require.NoError(t, os.WriteFile(none, []byte("no certificate"), 0o600))
	for name, test := range map[string]struct {
		server      redislookup.Server
		setup, call string
	}{
		"by the URL":                 {redislookup.Server{Address: "rediss://" + s.real.TLSAddr, CAFile: s.real.CAFile}, "", ""},
		"by the URL alone":           {redislookup.Server{Address: "rediss://" + s.real.TLSAddr}, "", "certificate"},
		"by the CA alone":            {redislookup.Server{Address: s.real.TLSAddr, CAFile: s.real.CAFile}, "", ""},
		"by the system's CAs":        {redislookup.Server{Address: s.real.TLSAddr, TLS: true}, "", "certificate"},
		"a plain connection to it":   {redislookup.Server{Address: s.real.TLSAddr}, "", "EOF"},
		"no CA":                      {redislookup.Server{Address: s.real.TLSAddr, CAFile: "/none"}, "CAFile: open /none: no such file or directory", ""},
		"a CA that is none":          {redislookup.Server{Address: s.real.TLSAddr, CAFile: none}, "there is no certificate in it", ""},
		"a certificate that is none": {redislookup.Server{Address: s.real.TLSAddr, CertFile: none, KeyFile: none}, "the CertFile and the KeyFile: ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			source := &redislookup.Strings[string]{Server: test.server, Prefix: prefix}
			err := source.Setup(t.Context())
			if test.setup != "" {
				require.ErrorContains(t, err, test.setup)
				return
			}
			require.NoError(t, err)
			got, err := source.Lookup(t.Context(), []string{"a"})
			if test.call != "" {
				require.ErrorContains(t, err, test.call)
			} else {
				require.NoError(t, err)
				require.Equal(t, map[string]string{"a": "1"}, got)
			}
			require.NoError(t, source.Teardown(t.Context()))
		})
	}
}
