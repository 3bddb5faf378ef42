// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite_test

import (
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/sqldb"
	"github.com/batchasync/beam-batchasync/transforms/sqlwrite"
)

func init() {
	sqlwrite.Register[city]()
	sqlwrite.Register[onlyKey]()
	sqlwrite.Register[number]()
	sqlwrite.Register[odd]()
	sqlwrite.Register[typed]()
	sqlwrite.Register[label]()
	sqlwrite.Register[nullable]()
}

type city struct {
	Code    string
	Name    string `db:"full_name"`
	People  *int64
	Founded time.Time
	Local   string `db:"-"`
	Place
}

type Place struct{ Latitude float64 }

func (s server) cities() {
	s.Run("CREATE TABLE city (code " + s.Text() + " PRIMARY KEY, full_name VARCHAR(20) NOT NULL CHECK (full_name <> 'forbidden'), people BIGINT, founded TIMESTAMP NULL, latitude DOUBLE PRECISION NOT NULL)")
}

func (s server) writer(table string, key ...string) sqlwrite.Writer[city] {
	return sqlwrite.Writer[city]{Database: s.Database, Table: table, Key: key, CopyFrom: s.copyFrom}
}

func cityOf(code, name string) city {
	return city{Code: code, Name: name, People: new(int64(len(name))), Founded: time.Date(2000, 2, 3, 4, 5, 6, 0, time.UTC), Place: Place{0.5}}
}

// names are what the table has.
func (s server) names() map[string]string {
	s.T.Helper()
	rows, err := s.QueryContext(s.T.Context(), "SELECT code, full_name FROM city")
	require.NoError(s.T, err)
	names := map[string]string{}
	for rows.Next() {
		var code, name string
		require.NoError(s.T, rows.Scan(&code, &name))
		names[code] = name
	}
	require.NoError(s.T, rows.Err())
	require.NoError(s.T, rows.Close())
	return names
}

// write writes rows in one bundle.
func write[Row any](t *testing.T, w sqlwrite.Writer[Row], rows []Row, opts ...batchasync.Option) *batchasynctest.Outputs {
	t.Helper()
	out, err := harness(t, w, opts...).Bundle(batchasynctest.Values(rows...)...)
	require.NoError(t, err)
	return out
}

func harness[Row any](t *testing.T, w sqlwrite.Writer[Row], opts ...batchasync.Option) *batchasynctest.Harness {
	fn := batchasync.New(&w, append([]batchasync.Option{batchasync.Bisect(), batchasync.MaxInFlight(8), batchasync.MaxAttempts(2), batchasync.RetryInterval(1)}, opts...)...)
	return batchasynctest.NewHarness(t, fn).Clone(t)
}

func same(row any) any { return row }

func TestWriterOnEachServer(t *testing.T) {
	onEach(t, map[string]func(*testing.T, server){
		"Rows are inserted and replaced":                           rowsAreInsertedAndReplaced,
		"Values arrive as they are":                                valuesArriveAsTheyAre,
		"Row of a key only":                                        rowOfAKeyOnly,
		"A bad row fails alone with the servers message":           badRowFailsAlone,
		"A row without a key fails alone":                          rowWithoutAKeyFailsAlone,
		"A value out of range fails alone":                         valueOutOfRangeFailsAlone,
		"A time is the same key in any zone":                       timeIsTheSameKeyInAnyZone,
		"A key of an odd kind fails alone":                         keyOfAnOddKindFailsAlone,
		"A bundle that is retried after the write changes nothing": retriedBundle,
		"Names are quoted":                                         namesAreQuoted,
		"What is wrong is not tried again":                         whatIsWrong,
		"Batches with the same keys at once":                       sameKeysAtOnce,
		"Two hundred thousand rows":                                twoHundredThousandRows,
	})
}

func rowsAreInsertedAndReplaced(t *testing.T, s server) {
	s.cities()
	w := s.writer("city", "code")
	rows := []city{cityOf("a", "old"), cityOf("b", "old"), cityOf("'; DROP TABLE city; --", "hostile"), cityOf("", "empty"), cityOf("東京", "Tokyo")}
	out := write(t, w, rows)
	batchasynctest.RequireExactlyOnce(t, batchasynctest.Values(rows...), out, same)
	require.Empty(t, out.Failures())

	// Of rows with the same key in a batch, the last one counts.
	out = write(t, w, []city{cityOf("b", "new"), cityOf("c", "first"), cityOf("c", "second"), cityOf("b", "newer")}, batchasync.BatchSize(4))
	require.Len(t, out.Results(), 4)
	require.Zero(t, out.Counter(batchasync.MetricsNamespace, "bisections"), "PostgreSQL refuses a statement with a key twice")
	require.Equal(t, map[string]string{"a": "old", "b": "newer", "c": "second", "'; DROP TABLE city; --": "hostile", "": "empty", "東京": "Tokyo"}, s.names())
}

func valuesArriveAsTheyAre(t *testing.T, s server) {
	s.cities()
	w := s.writer("city", "code")
	row := cityOf("a", "Å'\"\\%")
	row.Latitude = 1.0 / 3
	write(t, w, []city{row, {Code: "b", Founded: row.Founded}})
	var got city
	var people sql.NullInt64
	require.NoError(t, s.QueryRowContext(t.Context(), "SELECT full_name, people, founded, latitude FROM city WHERE code = 'a'").Scan(&got.Name, &people, sqlTime{&got.Founded}, &got.Latitude))
	require.Equal(t, row.Name, got.Name)
	require.Equal(t, sql.NullInt64{Int64: *row.People, Valid: true}, people)
	require.Equal(t, row.Founded, got.Founded.UTC())
	require.Equal(t, row.Latitude, got.Latitude)
	require.NoError(t, s.QueryRowContext(t.Context(), "SELECT people FROM city WHERE code = 'b'").Scan(&people))
	require.False(t, people.Valid)
}

// sqlTime scans a time, which MariaDB's driver returns as text without parseTime.
type sqlTime struct{ *time.Time }

func (s sqlTime) Scan(value any) (err error) {
	switch v := value.(type) {
	case time.Time:
		*s.Time = v
	case []byte:
		*s.Time, err = time.Parse("2006-01-02 15:04:05.999999", string(v))
	default:
		err = fmt.Errorf("%T", v)
	}
	return err
}

type onlyKey struct {
	A string
	B int64
}

func rowOfAKeyOnly(t *testing.T, s server) {
	s.Run("CREATE TABLE n (a " + s.Text() + ", b BIGINT, PRIMARY KEY (a, b))")
	w := sqlwrite.Writer[onlyKey]{Database: s.Database, Table: "n", Key: []string{"b", "a"}, CopyFrom: s.copyFrom}
	rows := []onlyKey{{"x", 1}, {"x", 2}, {"x", 1}, {"", 0}}
	for range 2 {
		require.Len(t, write(t, w, rows).Results(), 4)
	}
	require.Equal(t, 3, s.Count("n"))
}

func badRowFailsAlone(t *testing.T, s server) {
	s.cities()
	w := s.writer("city", "code")
	var rows []city
	for i := range 50 {
		rows = append(rows, cityOf(fmt.Sprint(i), "fine"))
	}
	rows[17].Name = "forbidden"
	bad := map[string]bool{"17": true}
	if s.Database.Driver != sqldb.SQLite { // which has no limits
		rows[18].Name = strings.Repeat("SECRET", 10)
		bad["18"] = true
	}
	if s.Database.Driver == sqldb.PostgreSQL {
		rows[19].Name = "SECRET\x00"
		bad["19"] = true
	}
	rows[20].Code = megabyte()
	bad[rows[20].Code] = s.Database.Driver != sqldb.SQLite
	out := write(t, w, rows)
	batchasynctest.RequireExactlyOnce(t, batchasynctest.Values(rows...), out, same)
	maps.DeleteFunc(bad, func(_ string, is bool) bool { return !is })
	require.Len(t, out.Failures(), len(bad))
	for _, e := range out.Failures() {
		failure := e.Value.(batchasync.Failure[city])
		require.True(t, bad[failure.Element.Code], failure.Element.Code)
		require.True(t, failure.Permanent)
		require.Equal(t, 1, failure.BatchSize)
		require.NotContains(t, failure.Error, "SECRET")
		require.NotContains(t, failure.Error, rows[20].Code[:20])
		if failure.Element.Code == "17" {
			require.Regexp(t, `(?i)constraint`, failure.Error)
		}
		t.Log(failure.Error)
	}
	require.Equal(t, 50-len(bad), s.Count("city"))
}

// megabyte is a key that can't be compressed.
func megabyte() string {
	random := rand.NewChaCha8([32]byte{})
	key := make([]byte, 1<<19)
	_, _ = random.Read(key) // it returns no error
	return hex.EncodeToString(key)
}

type nullable struct {
	Code   *string
	Name   sql.NullString
	People int64
}

func rowWithoutAKeyFailsAlone(t *testing.T, s server) {
	s.Run("CREATE TABLE city (code " + s.Text() + ", name " + s.Text() + ", people BIGINT, UNIQUE (code, name))")
	w := sqlwrite.Writer[nullable]{Database: s.Database, Table: "city", Key: []string{"code", "name"}, CopyFrom: s.copyFrom}
	name := sql.NullString{String: "x", Valid: true}
	out := write(t, w, []nullable{{new("a"), name, 1}, {nil, name, 2}, {new("b"), sql.NullString{}, 3}})
	require.Len(t, out.Results(), 1)
	require.Len(t, out.Failures(), 2)
	require.True(t, out.Failures()[0].Value.(batchasync.Failure[nullable]).Permanent)
	require.Contains(t, out.Failures()[0].Value.(batchasync.Failure[nullable]).Error, `"code" is NULL`)
	require.Contains(t, out.Failures()[1].Value.(batchasync.Failure[nullable]).Error, `"name" is NULL`)
	require.Equal(t, 1, s.Count("city"))
	out = write(t, w, []nullable{{nil, name, 2}})
	require.Contains(t, out.Failures()[0].Value.(batchasync.Failure[nullable]).Error, `"code" is NULL`)
}

func retriedBundle(t *testing.T, s server) {
	s.cities()
	w := s.writer("city", "code")
	var rows []city
	want := map[string]string{}
	for i := range 500 {
		rows = append(rows, cityOf(fmt.Sprint("city ", i), fmt.Sprint("name ", i)))
		want[rows[i].Code] = rows[i].Name
	}
	h := harness(t, w, batchasync.BatchSize(50))
	// All is written, and then another transform of the bundle fails.
	require.NoError(t, h.Start())
	for _, e := range batchasynctest.Values(rows...) {
		require.NoError(t, h.Process(e))
	}
	require.NoError(t, h.Finish())
	require.Equal(t, want, s.names())
	// The runner retries the bundle, which fails half-way.
	require.NoError(t, h.Start())
	for _, e := range batchasynctest.Values(rows[:300]...) {
		require.NoError(t, h.Process(e))
	}
	h.Abandon()
	// And again, in another worker process.
	h = harness(t, w, batchasync.BatchSize(70))
	out, err := h.Bundle(batchasynctest.Values(rows...)...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, batchasynctest.Values(rows...), out, same)
	require.Empty(t, out.Failures())
	require.Equal(t, want, s.names())
	require.Equal(t, len(rows), s.Count("city"))
}

type odd struct {
	Key   string "db:\"a \\\"k`ey; DROP TABLE city\""
	Value string `db:"select"`
}

func namesAreQuoted(t *testing.T, s server) {
	s.Run("CREATE TABLE city (code INT)")
	const table = "odd \"t`able'; DROP TABLE city; --"
	d := s.Database.Driver
	key := "a \"k`ey; DROP TABLE city"
	s.Run("DROP TABLE IF EXISTS " + d.Quote(table))
	s.Run(fmt.Sprintf("CREATE TABLE %s (%s %s PRIMARY KEY, %s TEXT)", d.Quote(table), d.Quote(key), s.Text(), d.Quote("select")))
	w := sqlwrite.Writer[odd]{Database: s.Database, Table: table, Key: []string{key}, CopyFrom: s.copyFrom}
	for range 2 {
		require.Len(t, write(t, w, []odd{{"k", "v"}}).Results(), 1)
	}
	require.Equal(t, 1, s.Count(d.Quote(table)))
	require.Zero(t, s.Count("city"))
}

func whatIsWrong(t *testing.T, s server) {
	s.cities()
	for name, w := range map[string]sqlwrite.Writer[city]{
		"no such table":  s.writer("nowhere", "code"),
		"no unique key":  s.writer("city", "full_name"),
		"half of a key":  s.writer("city", "code", "full_name"),
		"no such column": s.writer("city", "code"),
		"no such schema": s.writer("nowhere.city", "code"),
	} {
		if name == "no such column" {
			s.Run("ALTER TABLE city DROP COLUMN people")
			defer s.Run("DROP TABLE city")
		}
		_, err := harness(t, w).Bundle(batchasynctest.Values(cityOf("SECRET", "SECRET"))...)
		require.ErrorContains(t, err, "set up the caller", "%s: known before the first row", name)
		require.NotContains(t, err.Error(), "SECRET")
		t.Log(name, "→", err)
	}
}

func sameKeysAtOnce(t *testing.T, s server) {
	s.cities()
	w := s.writer("city", "code")
	var rows []city
	for i := range 4000 {
		code := i % 100
		if i/100%2 == 1 {
			code = 99 - code // the other way round
		}
		rows = append(rows, cityOf(fmt.Sprint(code), "fine"))
	}
	out := write(t, w, rows, batchasync.BatchSize(100), batchasync.MaxAttempts(20))
	batchasynctest.RequireExactlyOnce(t, batchasynctest.Values(rows...), out, same)
	require.Empty(t, out.Failures())
	require.Equal(t, 100, s.Count("city"))
}

type number struct{ ID, Twice int64 }

func (s server) numbers() sqlwrite.Writer[number] {
	s.Run("CREATE TABLE n (id BIGINT PRIMARY KEY, twice BIGINT)")
	return sqlwrite.Writer[number]{Database: s.Database, Table: "n", Key: []string{"id"}, CopyFrom: s.copyFrom}
}

// hasNumbers looks whether the table has all numbers below count, once.
func (s server) hasNumbers(count int) {
	s.T.Helper()
	var rows, ids, sum int
	require.NoError(s.T, s.QueryRowContext(s.T.Context(), "SELECT COUNT(*), COUNT(DISTINCT id), SUM(twice) FROM n").Scan(&rows, &ids, &sum))
	require.Equal(s.T, []int{count, count, count * (count - 1)}, []int{rows, ids, sum})
}

func numbersTo(count int) []number {
	rows := make([]number, count)
	for i := range rows {
		rows[i] = number{int64(i), 2 * int64(i)}
	}
	return rows
}

func twoHundredThousandRows(t *testing.T, s server) {
	w := s.numbers()
	rows := numbersTo(200_000)
	out := write(t, w, rows, batchasync.BatchSize(2000))
	batchasynctest.RequireExactlyOnce(t, batchasynctest.Values(rows...), out, same)
	require.Empty(t, out.Failures())
	s.hasNumbers(200_000)
}

// typed has what only PostgreSQL has.
type typed struct {
	ID     int64
	Small  uint8
	Mood   string
	Tags   []string
	Price  string
	Data   json.RawMessage
	Bytes  []byte
	Maybe  sql.NullString
	Birth  *time.Time
	Detail struct{ A int }
}

func TestPostgreSQLTypes(t *testing.T) {
	s := postgres(t)
	s.Run("CREATE TYPE mood AS ENUM ('sad', 'happy')")
	s.Run("CREATE TABLE city (id BIGINT PRIMARY KEY, small SMALLINT, mood mood, tags TEXT[], price NUMERIC(10,2), data JSONB, bytes BYTEA, maybe TEXT, birth TIMESTAMPTZ, detail JSONB)")
	born := time.Date(2020, 1, 2, 3, 4, 5, 6000, time.UTC)
	row := typed{1, 200, "happy", []string{"a", "b,c"}, "12.34", json.RawMessage(`{"a": 1}`), []byte{0, 255}, sql.NullString{String: "x", Valid: true}, &born, struct{ A int }{7}}
	check := func() {
		var text string
		require.NoError(t, s.QueryRowContext(t.Context(), "SELECT row(city.*)::text FROM city").Scan(&text))
		require.Equal(t, `(1,200,happy,"{a,""b,c""}",12.34,"{""a"": 1}","\\x00ff",x,"2020-01-02 03:04:05.000006+00",`, text[:strings.Index(text, `"{""A`)])
	}
	s.Run("ALTER ROLE CURRENT_USER SET timezone = 'UTC'")
	w := sqlwrite.Writer[typed]{Database: s.Database, Table: "city", Key: []string{"id"}}
	out := write(t, w, []typed{row})
	require.Empty(t, out.Failures())
	check()
	bad := row
	bad.Mood = "SECRET"
	failures := write(t, w, []typed{row, bad}[1:]).Failures()
	require.Len(t, failures, 1)
	require.Contains(t, failures[0].Value.(batchasync.Failure[typed]).Error, "invalid input value for enum mood")
	require.NotContains(t, failures[0].Value.(batchasync.Failure[typed]).Error, "SECRET")

	w.CopyFrom = -1
	_, err := harness(t, w).Bundle(batchasynctest.Values(row)...)
	require.ErrorContains(t, err, "CopyFrom must not be -1")
}

type label struct {
	ID   int64
	Mood string
	Name string
	Data json.RawMessage
}

func TestPostgreSQLEnumsAndLengthsByArraysAndByCopy(t *testing.T) {
	s := postgres(t)
	s.Run("CREATE TYPE mood AS ENUM ('sad', 'happy')")
	s.Run("CREATE TABLE city (id BIGINT PRIMARY KEY, mood mood, name CHAR(3), data JSONB)")
	for _, from := range []int{-1, 1} {
		w := sqlwrite.Writer[label]{Database: s.Database, Table: "public.city", Key: []string{"id"}, CopyFrom: from}
		out := write(t, w, []label{{1, "sad", "abc", json.RawMessage("[1]")}, {2, "happy", "abcd", nil}, {3, "none", "abc", nil}, {4, "happy", "ab", json.RawMessage("null")}})
		require.Len(t, out.Results(), 2)
		require.Len(t, out.Failures(), 2)
		require.Contains(t, out.Failures()[0].Value.(batchasync.Failure[label]).Error, "value too long")
		require.Contains(t, out.Failures()[1].Value.(batchasync.Failure[label]).Error, "enum mood")
		require.Equal(t, 2, s.Count("city"))
		s.Run("DELETE FROM city")
	}
}

func TestMySQLRefusesATableInWhichARowCouldOverwriteAnother(t *testing.T) {
	s := mariadb(t)
	s.Run("CREATE TABLE city (code VARCHAR(20), full_name VARCHAR(20), people BIGINT, founded DATETIME, latitude DOUBLE, id BIGINT AUTO_INCREMENT PRIMARY KEY, UNIQUE (code))")
	w := s.writer("city", "code")
	require.Len(t, write(t, w, []city{cityOf("a", "x")}).Results(), 1, "the number that the server gives is no danger")
	s.Run("CREATE UNIQUE INDEX by_name ON city (full_name)")
	_, err := harness(t, w).Bundle(batchasynctest.Values(cityOf("b", "x"))...)
	require.ErrorContains(t, err, "unique index by_name besides the Key")
	require.Equal(t, 1, s.Count("city"))
	s.Run("DROP INDEX by_name ON city")
	s.Run("DROP INDEX code ON city")
	s.Run("CREATE UNIQUE INDEX by_code ON city (code(2))")
	_, err = harness(t, w).Bundle(batchasynctest.Values(cityOf("b", "x"))...)
	require.ErrorContains(t, err, "no primary key or unique index of exactly the Key's columns")
}

func TestMoreRowsThanAStatementTakesAreOneTransaction(t *testing.T) {
	s := sqlite(t)
	s.Run("CREATE TABLE n (id BIGINT PRIMARY KEY, twice BIGINT CHECK (twice < 80000))")
	w := sqlwrite.Writer[number]{Database: s.Database, Table: "n", Key: []string{"id"}}
	require.NoError(t, w.Setup(t.Context()))
	defer func() { require.NoError(t, w.Teardown(t.Context())) }()
	_, err := w.Call(t.Context(), numbersTo(40_001))
	require.ErrorContains(t, err, "CHECK constraint failed")
	require.Zero(t, s.Count("n"), "the whole batch must have been rolled back")
	_, err = w.Call(t.Context(), numbersTo(40_000))
	require.NoError(t, err)
	s.hasNumbers(40_000)
}

func TestConstructionRefusesWhatCantWorkAndPasswords(t *testing.T) {
	lite := sqldb.Database{Driver: sqldb.SQLite, DSN: "file:x"}
	type embedded struct{ *Place }
	type twice struct {
		A string `db:"x"`
		B string `db:"x"`
	}
	type none struct{ a int }
	_ = none{}.a
	for want, w := range map[string]any{
		"DSNEnv":                          &sqlwrite.Writer[city]{Database: sqldb.Database{Driver: sqldb.MySQL, DSN: "joe:hunter2@tcp(h)/d"}, Table: "city", Key: []string{"code"}},
		"the Table is \"\"":               &sqlwrite.Writer[city]{Database: lite, Key: []string{"code"}},
		"the Table is \"a..b\"":           &sqlwrite.Writer[city]{Database: lite, Table: "a..b", Key: []string{"code"}},
		"the Key is empty":                &sqlwrite.Writer[city]{Database: lite, Table: "city"},
		"the Key has the column \"name\"": &sqlwrite.Writer[city]{Database: lite, Table: "city", Key: []string{"name"}},
		"the Key has the column \"code\"": &sqlwrite.Writer[city]{Database: lite, Table: "city", Key: []string{"code", "code"}},
		"CopyFrom is -2":                  &sqlwrite.Writer[city]{Database: lite, Table: "city", Key: []string{"code"}, CopyFrom: -2},
		"make it a struct":                &sqlwrite.Writer[string]{Database: lite, Table: "city", Key: []string{"code"}},
		"embedded pointer":                &sqlwrite.Writer[embedded]{Database: lite, Table: "city", Key: []string{"code"}},
		"two fields are named \"x\"":      &sqlwrite.Writer[twice]{Database: lite, Table: "city", Key: []string{"x"}},
		"has no exported fields":          &sqlwrite.Writer[none]{Database: lite, Table: "city", Key: []string{"x"}},
	} {
		_, err := json.Marshal(w)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
	}
}
