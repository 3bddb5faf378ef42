// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqllookup

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jmoiron/sqlx/reflectx"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// A valuePlan says how a row becomes a V.
type valuePlan struct {
	slice  bool         // V is a slice: all rows of a key, of which each is an element
	row    reflect.Type // what a row is scanned into
	fresh  bool         // a row is a pointer, or has pointers on the way to its fields
	fields bool         // a row is a struct, and each column goes to a field
}

func newValuePlan(v reflect.Type) (valuePlan, error) {
	p := valuePlan{row: v}
	if v.Kind() == reflect.Slice && v.Elem().Kind() != reflect.Uint8 && !isColumn(v) {
		p.slice, p.row = true, v.Elem()
	}
	t := p.row
	if t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct && !isColumn(t.Elem()) {
		p.fresh, t = true, t.Elem()
	}
	p.fields = t.Kind() == reflect.Struct && !isColumn(t)
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return p, fmt.Errorf("a row can't be scanned into a %v", t)
	}
	return p, nil
}

// rows are those of database/sql or of pgx.
type rows interface {
	Next() bool
	Scan(into ...any) error
	Err() error
}

// An answer collects the rows for a Lookup's keys.
type answer[K comparable, V any] struct {
	plan      *plan[K, V]
	values    map[K]V
	repeated  map[K]bool // keys with more rows than they may have
	keyColumn string
}

func newAnswer[K comparable, V any](p *plan[K, V], keys int) *answer[K, V] {
	return &answer[K, V]{plan: p, values: make(map[K]V, keys)}
}

// read takes all rows. They are scanned into the same key and value again and
// again, which are copied into the map: nothing is looked up by reflection for
// each row.
func (a *answer[K, V]) read(columns []string, from rows) error {
	var key K
	var value V
	row := reflect.ValueOf(&value).Elem()
	if a.plan.value.slice {
		row = reflect.New(a.plan.value.row).Elem()
	}
	into, err := a.destinations(columns, &key, row)
	if err != nil {
		// A connection that was lost looks like a query without columns, until
		// the first row is asked for.
		from.Next()
		if lost := from.Err(); lost != nil {
			return lost
		}
		return batchasync.Permanent(err)
	}
	for from.Next() {
		// What is behind a pointer or slice must not be the last row's.
		row.SetZero()
		if into.fresh {
			if into, err = a.destinations(columns, &key, row); err != nil {
				return batchasync.Permanent(err)
			}
		}
		if err := from.Scan(into.pointers...); err != nil {
			// database/sql closes rows whose ctx ends, and then can't scan.
			if ended := from.Err(); errors.Is(ended, context.Canceled) || errors.Is(ended, context.DeadlineExceeded) {
				return ended
			}
			return batchasync.Permanent(&scanError{columns: columns, into: into.pointers, err: err})
		}
		for _, c := range into.copies {
			c.copy()
		}
		if a.plan.value.slice {
			a.append(key, row)
		} else {
			a.add(key, value)
		}
	}
	return from.Err()
}

// append adds a row to the others of its key.
func (a *answer[K, V]) append(key K, row reflect.Value) {
	value := a.values[key]
	all := reflect.ValueOf(&value).Elem()
	all.Set(reflect.Append(all, row))
	a.values[key] = value
}

// add adds the only row of a key.
func (a *answer[K, V]) add(key K, value V) {
	before := len(a.values)
	a.values[key] = value
	if len(a.values) == before {
		if a.repeated == nil {
			a.repeated = map[K]bool{}
		}
		a.repeated[key] = true
	}
}

// destinations are what the columns of a row are scanned into.
type destinations struct {
	pointers []any
	copies   []copied // key columns that the value has a field for, too
	fresh    bool     // to be found anew for each row
}

type copied struct {
	from, to reflect.Value
	same     bool // their types are one, so that nothing need be allocated
}

func (c copied) copy() {
	if c.same {
		c.to.Set(c.from)
	} else {
		c.to.Set(c.from.Convert(c.to.Type()))
	}
}

// destinations finds them for a key and a row. The first columns are the key's, in
// the order of its fields.
func (a *answer[K, V]) destinations(columns []string, key *K, row reflect.Value) (destinations, error) {
	d := destinations{fresh: a.plan.value.fresh}
	keys := max(1, len(a.plan.fields))
	if len(columns) < keys {
		return d, fmt.Errorf("sqllookup: the query returns %d columns, but the first %d must be the key's, a %T", len(columns), keys, *key)
	}
	a.keyColumn = columns[0]
	k := reflect.ValueOf(key).Elem()
	for i := range keys {
		column := k
		if a.plan.fields != nil {
			column = k.FieldByIndex(a.plan.fields[i])
		}
		d.pointers = append(d.pointers, column.Addr().Interface())
	}

	if !a.plan.value.fields {
		if len(columns) != keys+1 {
			return d, fmt.Errorf("sqllookup: the query returns %d columns, but a %v takes one behind the %d of the key: return %d, or make the value a struct", len(columns), row.Type(), keys, keys+1)
		}
		d.pointers = append(d.pointers, row.Addr().Interface())
		return d, nil
	}
	if row.Kind() == reflect.Pointer {
		row.Set(reflect.New(row.Type().Elem()))
		row = row.Elem()
	}
	for i, traversal := range mapper.TraversalsByName(row.Type(), columns) {
		if len(traversal) == 0 {
			if i < keys {
				continue // the value needs no key
			}
			return d, fmt.Errorf("sqllookup: the query returns a column %q, for which %v has no field: rename it (AS …), leave it out, or add a field with the tag `db:%q`", columns[i], row.Type(), columns[i])
		}
		d.fresh = d.fresh || throughPointer(row.Type(), traversal)
		field := reflectx.FieldByIndexes(row, traversal)
		if i >= keys {
			d.pointers = append(d.pointers, field.Addr().Interface())
			continue
		}
		from := reflect.ValueOf(d.pointers[i]).Elem()
		if from.Kind() != field.Kind() || !from.Type().ConvertibleTo(field.Type()) {
			return d, fmt.Errorf("sqllookup: the key's column %q is a %v in the key and a %v in %v: the query's first columns must be the key's (SELECT id, …); if it is, make them one type", columns[i], from.Type(), field.Type(), row.Type())
		}
		d.copies = append(d.copies, copied{from, field, from.Type() == field.Type()})
	}
	return d, nil
}

// throughPointer tells whether there is a pointer on the way to a field.
func throughPointer(t reflect.Type, traversal []int) bool {
	for _, i := range traversal[:len(traversal)-1] {
		if t = t.Field(i).Type; t.Kind() == reflect.Pointer {
			return true
		}
	}
	return false
}

// A scanError says which column can't be scanned into what. The driver's own text
// would show the row's value.
type scanError struct {
	columns []string
	into    []any
	err     error
}

// scanIndex is where database/sql tells the column.
var scanIndex = regexp.MustCompile(`^sql: Scan error on column index (\d+)`)

func (e *scanError) Error() string {
	column := -1
	var native pgx.ScanArgError
	if errors.As(e.err, &native) {
		column = native.ColumnIndex
	} else if m := scanIndex.FindStringSubmatch(e.err.Error()); m != nil {
		column, _ = strconv.Atoi(m[1])
	}
	if column < 0 || column >= len(e.columns) || column >= len(e.into) {
		return "sqllookup: a row can't be scanned"
	}
	return fmt.Sprintf("sqllookup: the column %q can't be scanned into a %v: its type is another, or it is NULL, which only a pointer or a sql.Null takes",
		e.columns[column], reflect.TypeOf(e.into[column]).Elem())
}
