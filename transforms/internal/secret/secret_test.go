// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package secret_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/transforms/internal/secret"
)

func TestWhatIsNamedIsReadWithoutTheWhiteSpaceAroundIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	for text, want := range map[string]string{"s3cret": "s3cret", " s3 cret\r\n": "s3 cret", "": "", " \n": ""} {
		t.Setenv("SECRET_TEST", text)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		for _, read := range []func() (string, error){
			func() (string, error) { return secret.Env("SECRET_TEST") },
			func() (string, error) { return secret.File(file) },
		} {
			got, err := read()
			require.Equal(t, want, got)
			if want == "" {
				require.ErrorIs(t, err, secret.ErrEmpty)
			} else {
				require.NoError(t, err)
			}
		}
	}
	_, err := secret.File(file + "-not")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAVariablesNameIsNoSecret(t *testing.T) {
	for _, name := range []string{"", "TOKEN", "_db2_dsn"} {
		require.NoError(t, secret.CheckEnv("Env", name))
	}
	for _, name := range []string{"sk-s3cret", "postgres://joe:s3cret@db", "s3cret ", "3s3cret", "é"} {
		err := secret.CheckEnv("Env", name)
		require.ErrorContains(t, err, "the value of Env is not the name of an environment variable")
		require.NotContains(t, err.Error(), name)
	}
}

func TestWhatIsNoNameIsRefusedAndNotShown(t *testing.T) {
	for _, name := range []string{"", "vault", "/run/secrets/dsn", "C:\\secrets\\dsn", "/home/joe@work/dsn", "a=b"} {
		require.NoError(t, secret.CheckName("File", name), name)
	}
	for _, name := range []string{"postgres://joe:hunter2@db/air", "joe:hunter2@tcp(db:3306)/air", "joe:hunter2@(db)/air", "host=db password=hunter2", "host=db Password = hunter2", "hunter2\n"} {
		err := secret.CheckName("File", name)
		require.EqualError(t, err, "the value of File is not a name (it is not shown here, for it may be the secret itself)", name)
	}
}

func a() string { return "a" }
func b() string { return "b" }

func TestAFunctionIsFoundByItsName(t *testing.T) {
	funcs := secret.Funcs[func() string]{Verb: "pkg.RegisterSecret"}
	funcs.Register("a", a)
	funcs.Register("a", a) // as a package does that two programs import
	f, err := funcs.Get("a")
	require.NoError(t, err)
	require.Equal(t, "a", f())
	_, err = funcs.Get("b")
	require.EqualError(t, err, `the function "b" is not registered; add to an init function: pkg.RegisterSecret("b", …)`)
	require.PanicsWithValue(t, `pkg.RegisterSecret("a", …): the name is taken by another function`, func() { funcs.Register("a", b) })
	require.PanicsWithValue(t, `pkg.RegisterSecret("", …): give a name and a function`, func() { funcs.Register("", b) })
	require.PanicsWithValue(t, `pkg.RegisterSecret("c", …): give a name and a function`, func() { funcs.Register("c", nil) })
}
