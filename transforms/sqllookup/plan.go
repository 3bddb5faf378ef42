// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqllookup

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jmoiron/sqlx/reflectx"

	"github.com/batchasync/beam-batchasync/transforms/sqldb"
)

// mapper knows which field of a struct a column goes to, as sqlx does: by the tag
// db, or by the name in lower case.
var mapper = reflectx.NewMapperFunc("db", strings.ToLower)

// mostParameters is how many a statement takes.
var mostParameters = map[sqldb.Driver]int{sqldb.SQLite: 32766, sqldb.MySQL: 65535}

// mostKeys bounds the length of a statement.
const mostKeys = 1 << 12

// placeholder is where the keys go, if not into arrays.
const placeholder = "(?)"

// A plan is what can be known of a query, its keys and its values before it is
// asked.
type plan[K comparable, V any] struct {
	driver sqldb.Driver
	query  string
	fields [][]int // of K, one for each column of the key; nil if K is one column itself
	most   int     // keys a query
	texts  bool    // whether there are strings in the key
	value  valuePlan
}

func newPlan[K comparable, V any](d sqldb.Driver, query string) (*plan[K, V], error) {
	p := &plan[K, V]{driver: d, query: query}
	k := reflect.TypeFor[K]()
	columns := []reflect.Type{k}
	if k.Kind() == reflect.Struct && !isColumn(k) {
		columns = nil
		for i := range k.NumField() {
			f := k.Field(i)
			if !f.IsExported() {
				return nil, fmt.Errorf("the field %s of the key %v is not exported, so it can't be bound or scanned", f.Name, k)
			}
			p.fields = append(p.fields, f.Index)
			columns = append(columns, f.Type)
		}
		if len(columns) == 0 {
			return nil, fmt.Errorf("the key %v has no fields", k)
		}
	}
	for _, t := range columns {
		if err := checkKeyColumn(t); err != nil {
			return nil, err
		}
		p.texts = p.texts || t.Kind() == reflect.String
	}
	if most, ok := mostParameters[d]; ok {
		for p.most = mostKeys; p.most*len(columns) > most; {
			p.most /= 2
		}
	}
	var err error
	p.value, err = newValuePlan(reflect.TypeFor[V]())
	if err != nil {
		return nil, err
	}
	return p, p.checkQuery(len(columns))
}

func (p *plan[K, V]) checkQuery(columns int) error {
	if p.driver == sqldb.PostgreSQL {
		for i := range columns {
			if parameter := fmt.Sprintf("$%d", i+1); !strings.Contains(p.query, parameter) {
				return fmt.Errorf("the Query has no %s, the array of the key's values: WHERE id = ANY($1), or for a key of several columns JOIN unnest($1::text[], $2::int[]) AS k(a, b) ON (t.a, t.b) = (k.a, k.b)", parameter)
			}
		}
		return nil
	}
	if n := strings.Count(p.query, placeholder); n != 1 {
		return fmt.Errorf("the Query has %d times %s, which stands for the keys, but must have it once: WHERE id IN %s, or for a key of several columns WHERE (a, b) IN %s", n, placeholder, placeholder, placeholder)
	}
	return nil
}

// isColumn tells whether a type that is no plain one is scanned from one column.
func isColumn(t reflect.Type) bool {
	return t == reflect.TypeFor[time.Time]() || reflect.PointerTo(t).Implements(reflect.TypeFor[sql.Scanner]())
}

func checkKeyColumn(t reflect.Type) error {
	if t == reflect.TypeFor[time.Time]() {
		return fmt.Errorf("a key can't be a time.Time: two that are the same time can differ for Go; make it a string or a number, and convert in the query")
	}
	if isColumn(t) {
		if !t.Implements(reflect.TypeFor[driver.Valuer]()) {
			return fmt.Errorf("the key's type %v has a Scan, but no Value method to bind it with", t)
		}
		return nil
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return nil
	case reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 && t.Len() == 16 { // pgx takes it for a uuid
			return nil
		}
	}
	return fmt.Errorf("a key, or a field of it, can't be a %v: allowed are strings, numbers, bool, what has the methods Scan and Value, and a struct of these", t)
}

// sendable is keys without those that PostgreSQL can't even be asked for: no text
// there has a zero byte or is other than UTF-8, so they are not in the table, and
// should not fail the others.
func (p *plan[K, V]) sendable(keys []K) []K {
	if !p.texts {
		return keys
	}
	bad := func(key K) bool { return !p.isText(key) }
	if texts, ok := any(keys).([]string); ok && !slices.ContainsFunc(texts, func(s string) bool { return !isText(s) }) ||
		!ok && !slices.ContainsFunc(keys, bad) {
		return keys
	}
	return slices.DeleteFunc(slices.Clone(keys), bad)
}

func (p *plan[K, V]) isText(key K) bool {
	v := reflect.ValueOf(key)
	if p.fields == nil {
		return isText(v.String())
	}
	for _, index := range p.fields {
		if f := v.FieldByIndex(index); f.Kind() == reflect.String && !isText(f.String()) {
			return false
		}
	}
	return true
}

func isText(s string) bool { return strings.IndexByte(s, 0) < 0 && utf8.ValidString(s) }

// arrays are the query's parameters: one for each column of the key.
func (p *plan[K, V]) arrays(keys []K) []any {
	if p.fields == nil {
		return []any{array(reflect.ValueOf(keys))}
	}
	all := reflect.ValueOf(keys)
	parameters := make([]any, len(p.fields))
	for i, index := range p.fields {
		column := reflect.MakeSlice(reflect.SliceOf(reflect.TypeFor[K]().FieldByIndex(index).Type), len(keys), len(keys))
		for j := range keys {
			column.Index(j).Set(all.Index(j).FieldByIndex(index))
		}
		parameters[i] = array(column)
	}
	return parameters
}

// array is a slice as pgx takes it for an array: one of bytes would be a bytea.
func array(slice reflect.Value) any {
	if slice.Type().Elem().Kind() != reflect.Uint8 {
		return slice.Interface()
	}
	numbers := make([]int16, slice.Len())
	for i := range numbers {
		numbers[i] = int16(slice.Index(i).Uint())
	}
	return numbers
}

// expand writes the query for n keys.
func (p *plan[K, V]) expand(n int) string {
	var list string
	if p.fields == nil {
		list = "?" + strings.Repeat(",?", n-1)
	} else {
		row := "(?" + strings.Repeat(",?", len(p.fields)-1) + ")"
		list = row + strings.Repeat(","+row, n-1)
		if p.driver == sqldb.SQLite {
			list = "VALUES " + list
		}
	}
	return strings.Replace(p.query, placeholder, "("+list+")", 1)
}

// list are the parameters of the query for n keys, at least as many as there are.
func (p *plan[K, V]) list(keys []K, n int) []any {
	parameters := make([]any, 0, n*max(1, len(p.fields)))
	for i := range n {
		key := keys[min(i, len(keys)-1)]
		if p.fields == nil {
			parameters = append(parameters, key)
			continue
		}
		v := reflect.ValueOf(key)
		for _, index := range p.fields {
			parameters = append(parameters, v.FieldByIndex(index).Interface())
		}
	}
	return parameters
}
