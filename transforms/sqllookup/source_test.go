// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqllookup_test

import (
	"database/sql"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
	"github.com/batchasync/beam-batchasync/transforms/sqllookup"
)

func init() {
	batchasync.Register(&asking[string, city]{})
	batchasync.Register(&asking[string, *city]{})
	batchasync.Register(&asking[string, []city]{})
	batchasync.Register(&asking[string, string]{})
	batchasync.Register(&asking[string, []string]{})
	batchasync.Register(&asking[string, int64]{})
	batchasync.Register(&asking[string, struct{}]{})
	batchasync.Register(&asking[string, visit]{})
	batchasync.Register(&asking[pair, visit]{})
	batchasync.Register(&asking[int64, int64]{}) // the faults' too
	batchasync.Register(&asking[uint8, string]{})
}

type city struct {
	Code   string
	Name   string `db:"full_name"`
	People *int64
	place
}

type place struct{ Latitude float64 }

type pair struct {
	A string
	B int64
}

type visit struct {
	A    string
	B    int64
	Note sql.NullString
	At   time.Time
}

var hostile = []string{
	"'; DROP TABLE city; --", `" OR ""="`, "' OR '1'='1", "\\", "\\'", "%", "_", "$1", "?", "(?)", "{a,b}", "NULL", "null",
	"a\nb", "\t", "`", "/* */", "a,b", `{"a":1}`, "🦆", "Zürich", "東京", "e\u0301", "\u202e", "\ufeff",
}

// never are keys that no table has, for the ones that are refused or changed on the
// way most easily.
var never = []string{"", " ", "missing", "zürich", "ZÜRICH", "\u00e9", "a\x00b", "\x00", "\xff\xfe", "city\xc3", strings.Repeat("long ", 20_000)}

func (s server) cities() {
	s.Run("CREATE TABLE city (code " + s.Text() + " PRIMARY KEY, full_name " + s.Text() + " NOT NULL, people BIGINT, latitude DOUBLE PRECISION NOT NULL)")
}

func TestSourceOnEachServer(t *testing.T) {
	onEach(t, map[string]func(*testing.T, server){
		"Keys of any kind are answered exactly":                         keysOfAnyKindAreAnsweredExactly,
		"Key of several columns":                                        keyOfSeveralColumns,
		"Values of each form":                                           valuesOfEachForm,
		"Bytes and numbers as keys":                                     bytesAndNumbersAsKeys,
		"More rows than one fail their key unless the value is a slice": moreRowsThanOneFailTheirKeyUnlessTheValueIsASlice,
		"What is wrong is not tried again and tells no values":          whatIsWrongIsNotTriedAgainAndTellsNoValues,
	})
}

func keysOfAnyKindAreAnsweredExactly(t *testing.T, s server) {
	s.cities()
	var keys []string
	for i, code := range hostile {
		var people any
		if i%2 == 0 {
			people = int64(i)
		}
		s.insert("city", []any{code, "name of " + code, people, float64(i) / 2})
		keys = append(keys, code, code) // twice
	}
	s.insert("city", []any{"not asked for", "nobody", nil, 1.0})
	keys = append(keys, never...)

	query := "SELECT code, full_name, people, latitude FROM city WHERE " + s.keys("code")
	for _, size := range []int{1, 3, 100} {
		out := ask[string, city](t, s.Database, query, keys, batchasync.BatchSize(size), batchasync.Ordered())
		require.Empty(t, out.Failures())
		require.Len(t, out.Results(), len(keys))
		for i, key := range keys {
			got := out.Results()[i].Value.(answer[city])
			if i >= 2*len(hostile) {
				require.Equal(t, answer[city]{}, got, "%q", key)
				continue
			}
			want := city{Code: key, Name: "name of " + key, place: place{float64(i/2) / 2}}
			if i/2%2 == 0 {
				want.People = new(int64(i / 2))
			}
			require.Equal(t, answer[city]{want, true}, got, "%q", key)
		}
	}
	require.Equal(t, len(hostile)+1, s.Count("city"))
}

func keyOfSeveralColumns(t *testing.T, s server) {
	s.Run("CREATE TABLE t (a " + s.Text() + ", b BIGINT, note " + s.Text() + ", at TIMESTAMP NULL, PRIMARY KEY (a, b))")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s.insert("t", []any{"x", 1, "x1", at}, []any{"x", 2, nil, at}, []any{"'; --", -1, "hostile", at})
	keys := []pair{{"x", 1}, {"x", 2}, {"x", 3}, {"y", 1}, {"'; --", -1}, {"x", 1}, {"", 0}, {"\x00", 1}}
	out := ask[pair, visit](t, s.Database, "SELECT t.a, t.b, t.note, t.at FROM t "+s.pairs(), keys, batchasync.Ordered())
	require.Empty(t, out.Failures())
	got := map[pair]answer[visit]{}
	for i, key := range keys {
		v := out.Results()[i].Value.(answer[visit])
		v.Value.At = v.Value.At.UTC()
		got[key] = v
	}
	note := func(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }
	require.Equal(t, map[pair]answer[visit]{
		{"x", 1}:      {visit{"x", 1, note("x1"), at}, true},
		{"x", 2}:      {visit{"x", 2, note(""), at}, true},
		{"'; --", -1}: {visit{"'; --", -1, note("hostile"), at}, true},
		{"x", 3}:      {}, {"y", 1}: {}, {"", 0}: {}, {"\x00", 1}: {},
	}, withoutTimes(got))
}

// withoutTimes takes the time off answers that are not there, which UTC has
// changed.
func withoutTimes(got map[pair]answer[visit]) map[pair]answer[visit] {
	for key, a := range got {
		if !a.Found {
			got[key] = answer[visit]{}
		}
	}
	return got
}

func valuesOfEachForm(t *testing.T, s server) {
	s.cities()
	s.insert("city", []any{"a", "A", 1, 0.5}, []any{"b", "B", 2, 1.5})
	keys := []string{"a", "b", "c"}
	results := func(out *batchasynctest.Outputs) (values []any) {
		require.Empty(t, out.Failures())
		for _, e := range out.Results() {
			values = append(values, e.Value)
		}
		return values
	}
	where := " FROM city WHERE " + s.keys("code")
	require.Equal(t, []any{answer[string]{"A", true}, answer[string]{"B", true}, answer[string]{}},
		results(ask[string, string](t, s.Database, "SELECT code, full_name"+where, keys)))
	require.Equal(t, []any{answer[int64]{1, true}, answer[int64]{2, true}, answer[int64]{}},
		results(ask[string, int64](t, s.Database, "SELECT code, people"+where, keys)))
	require.Equal(t, []any{answer[struct{}]{struct{}{}, true}, answer[struct{}]{struct{}{}, true}, answer[struct{}]{}},
		results(ask[string, struct{}](t, s.Database, "SELECT code"+where, keys)))
	pointers := results(ask[string, *city](t, s.Database, "SELECT code, full_name"+where, keys))
	require.Equal(t, &city{Code: "a", Name: "A"}, pointers[0].(answer[*city]).Value)
	require.Equal(t, &city{Code: "b", Name: "B"}, pointers[1].(answer[*city]).Value, "each row must have a value of its own")
}

func bytesAndNumbersAsKeys(t *testing.T, s server) {
	s.Run("CREATE TABLE n (id BIGINT PRIMARY KEY, twice BIGINT, name " + s.Text() + ")")
	s.insert("n", []any{int64(1) << 62, 2, "big"}, []any{7, 14, "seven"}, []any{-7, -14, "minus"})
	out := ask[int64, int64](t, s.Database, "SELECT id, twice FROM n WHERE "+s.keys("id"), []int64{7, -7, 1 << 62, 8})
	require.Empty(t, out.Failures())
	require.Equal(t, answer[int64]{14, true}, out.Results()[0].Value)
	require.Equal(t, answer[int64]{-14, true}, out.Results()[1].Value)
	require.Equal(t, answer[int64]{2, true}, out.Results()[2].Value)
	require.Equal(t, answer[int64]{}, out.Results()[3].Value)

	out = ask[uint8, string](t, s.Database, "SELECT id, name FROM n WHERE "+s.keys("id"), []uint8{7, 8})
	require.Empty(t, out.Failures())
	require.Equal(t, answer[string]{"seven", true}, out.Results()[0].Value)
}

func moreRowsThanOneFailTheirKeyUnlessTheValueIsASlice(t *testing.T, s server) {
	s.Run("CREATE TABLE tag (city " + s.Text() + ", tag " + s.Text() + ")")
	s.insert("tag", []any{"a", "old"}, []any{"a", "wet"}, []any{"a", "old"}, []any{"b", "new"})
	query := "SELECT city, tag FROM tag WHERE " + s.keys("city") + " ORDER BY tag"
	keys := []string{"b", "a", "c"}

	out := ask[string, []string](t, s.Database, query, keys, batchasync.Ordered())
	require.Empty(t, out.Failures())
	require.Equal(t, answer[[]string]{[]string{"new"}, true}, out.Results()[0].Value)
	require.Equal(t, answer[[]string]{[]string{"old", "old", "wet"}, true}, out.Results()[1].Value)
	require.Equal(t, answer[[]string]{}, out.Results()[2].Value)

	out = ask[string, string](t, s.Database, query, keys)
	require.Len(t, out.Results(), 2)
	require.Len(t, out.Failures(), 1)
	failure := out.Failures()[0].Value.(batchasync.Failure[string])
	require.Equal(t, "a", failure.Element)
	require.True(t, failure.Permanent)
	require.Contains(t, failure.Error, "more than one row for the key")
	require.NotContains(t, failure.Error, "wet")
}

func whatIsWrongIsNotTriedAgainAndTellsNoValues(t *testing.T, s server) {
	s.cities()
	s.insert("city", []any{"a", "SECRET", nil, 0.5})
	from := " FROM city WHERE " + s.keys("code")
	for name, out := range map[string]*batchasynctest.Outputs{
		"no such table":  ask[string, string](t, s.Database, "SELECT code, full_name FROM nowhere WHERE "+s.keys("code"), []string{"a"}),
		"no such column": ask[string, string](t, s.Database, "SELECT code, nothing"+from, []string{"a"}),
		"no field":       ask[string, city](t, s.Database, "SELECT code, full_name AS other"+from, []string{"a"}),
		"no key":         ask[string, string](t, s.Database, "SELECT full_name"+from, []string{"a"}),
		"another type":   ask[string, int64](t, s.Database, "SELECT code, full_name"+from, []string{"a"}),
		"NULL":           ask[string, int64](t, s.Database, "SELECT code, people"+from, []string{"a"}),
	} {
		require.Len(t, out.Failures(), 1, name)
		failure := out.Failures()[0].Value.(batchasync.Failure[string])
		require.True(t, failure.Permanent, "%s: %s", name, failure.Error)
		require.NotContains(t, failure.Error, "SECRET", name)
		if s.Server.Server != nil {
			require.NotContains(t, failure.Error, s.Server.Password)
		}
		t.Log(name, "→", failure.Error)
	}
}

func TestRowsWithAnotherSpellingOfTheKeyAreIgnoredAndCounted(t *testing.T) {
	s := mariadb(t)
	s.Run("CREATE TABLE city (code VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, full_name VARCHAR(20))")
	s.insert("city", []any{"Ulm", "Ulm"}, []any{"Bern", "Bern"})
	out := ask[string, string](t, s.Database, "SELECT code, full_name FROM city WHERE code IN (?)", []string{"ULM", "ulm ", "Bern"})
	require.Empty(t, out.Failures())
	require.Equal(t, answer[string]{}, out.Results()[0].Value)
	require.Equal(t, answer[string]{}, out.Results()[1].Value)
	require.Equal(t, answer[string]{"Bern", true}, out.Results()[2].Value)
	require.EqualValues(t, 1, out.Counter("sqllookup", "rows_with_other_keys"))
}

func TestAKeyThatTheServerCantTakeFailsNoOther(t *testing.T) {
	// PostgreSQL refuses a whole statement for a zero byte in one key.
	s := postgres(t)
	s.cities()
	s.insert("city", []any{"a", "A", 1, 0.5})
	out := ask[string, string](t, s.Database, "SELECT code, full_name FROM city WHERE code = ANY($1)", []string{"\x00", "a", "\xff"}, batchasync.Ordered())
	require.Empty(t, out.Failures())
	require.Equal(t, answer[string]{"A", true}, out.Results()[1].Value)
}

func TestStatementsAreFewWhateverTheSizes(t *testing.T) {
	t.Run("PostgreSQL prepares one", func(t *testing.T) {
		s := postgres(t)
		s.cities()
		s.Database.MaxConns = 1
		source := &sqllookup.Source[string, int64]{Database: s.Database, Query: "SELECT $1::text[] ->> 0, 1 WHERE '' = ANY($1)"}
		// The only connection tells of itself.
		source.Query = "SELECT '', count(*) FROM pg_prepared_statements WHERE $1::text[] IS NOT NULL"
		require.NoError(t, source.Setup(t.Context()))
		for n := 1; n <= 50; n++ {
			values, err := source.Lookup(t.Context(), make([]string, n))
			require.NoError(t, err)
			require.EqualValues(t, 1, values[""], "after %d sizes", n)
		}
		require.NoError(t, source.Teardown(t.Context()))
	})
	t.Run("MariaDB prepares one for each power of two, and for what comes twice in a row", func(t *testing.T) {
		s := mariadb(t)
		s.Run("CREATE TABLE city (code INT PRIMARY KEY, name INT)")
		source := &sqllookup.Source[int64, int64]{Database: s.Database, Query: "SELECT code, name FROM city WHERE code IN (?)"}
		source.Database.MaxConns = 1
		require.NoError(t, source.Setup(t.Context()))
		lookup := func(n int) {
			keys := make([]int64, n)
			for i := range keys {
				keys[i] = int64(i)
			}
			_, err := source.Lookup(t.Context(), keys)
			require.NoError(t, err)
		}
		prepared := func() (statements int) {
			var name string
			require.NoError(t, s.QueryRowContext(t.Context(), "SHOW GLOBAL STATUS LIKE 'Com_stmt_prepare'").Scan(&name, &statements))
			return statements
		}
		for n := 1; n <= 100; n++ {
			lookup(n)
		}
		require.Equal(t, 8, prepared(), "1, 2, 4 … 128")
		for range 3 {
			lookup(100)
		}
		require.Equal(t, 9, prepared(), "100, too")
		lookup(99)
		lookup(100)
		require.Equal(t, 9, prepared())
		for n := 101; n <= 120; n++ {
			lookup(n)
			lookup(n)
		}
		require.Equal(t, 9+7, prepared(), "8 of them in all")
		require.NoError(t, source.Teardown(t.Context()))
	})
}

func TestMoreKeysThanAStatementTakes(t *testing.T) {
	s := sqlite(t)
	s.Run("CREATE TABLE n (id BIGINT PRIMARY KEY, twice BIGINT)")
	s.Run("INSERT INTO n WITH RECURSIVE i(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM i WHERE i < 39999) SELECT i, 2 * i FROM i")
	source := &sqllookup.Source[int64, int64]{Database: s.Database, Query: "SELECT id, twice FROM n WHERE id IN (?)"}
	require.NoError(t, source.Setup(t.Context()))
	defer func() { require.NoError(t, source.Teardown(t.Context())) }()
	keys := make([]int64, 40_000)
	for i := range keys {
		keys[i] = int64(i)
	}
	values, err := source.Lookup(t.Context(), keys)
	require.NoError(t, err)
	require.Len(t, values, len(keys))
}

func TestConstructionRefusesWhatCantWorkAndPasswords(t *testing.T) {
	lite := sqldb.Database{Driver: sqldb.SQLite, DSN: "file:x"}
	pg := sqldb.Database{Driver: sqldb.PostgreSQL, DSNEnv: "X"}
	type private struct{ a string }
	_ = private{}.a
	for want, source := range map[string]any{
		"DSNEnv":                        &sqllookup.Source[string, string]{Database: sqldb.Database{Driver: sqldb.PostgreSQL, DSN: "postgres://joe:hunter2@h/d"}, Query: "SELECT $1"},
		"the Query has 0 times (?)":     &sqllookup.Source[string, string]{Database: lite, Query: "SELECT 1"},
		"the Query has 2 times (?)":     &sqllookup.Source[string, string]{Database: lite, Query: "SELECT (?) (?)"},
		"the Query has no $1":           &sqllookup.Source[string, string]{Database: pg, Query: "SELECT 1"},
		"the Query has no $2":           &sqllookup.Source[pair, string]{Database: pg, Query: "SELECT $1"},
		"can't be a time.Time":          &sqllookup.Source[time.Time, string]{Database: pg, Query: "SELECT $1"},
		"the field a of the key":        &sqllookup.Source[private, string]{Database: pg, Query: "SELECT $1"},
		"can't be a complex128":         &sqllookup.Source[complex128, string]{Database: pg, Query: "SELECT $1"},
		"a row can't be scanned into a": &sqllookup.Source[string, chan int]{Database: pg, Query: "SELECT $1"},
		"the Driver is":                 sqllookup.Source[string, string]{},
	} {
		_, err := json.Marshal(source)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
	}
	require.Panics(t, func() {
		batchasync.New(&asking[string, string]{&sqllookup.Source[string, string]{
			Database: sqldb.Database{Driver: sqldb.PostgreSQL, DSN: "postgres://joe:hunter2@h/d"}, Query: "SELECT a, b FROM c WHERE a = ANY($1)"}})
	})
}
