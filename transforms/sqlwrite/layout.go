// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package sqlwrite

import (
	"cmp"
	"database/sql/driver"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jmoiron/sqlx/reflectx"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// mapper knows which column a field goes to, as sqlx does: by the tag db, or by
// the name in lower case.
var mapper = reflectx.NewMapperFunc("db", strings.ToLower)

// A layout is which column each field of a Row goes to.
type layout[Row any] struct {
	columns []string
	fields  [][]int // of each column
	keys    []int   // columns that are the key
}

func newLayout[Row any](key []string) (*layout[Row], error) {
	t := reflect.TypeFor[Row]()
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("a row is a %v: make it a struct, with a field for each column", t)
	}
	l := &layout[Row]{}
	if err := l.add(mapper.TypeMap(t).Tree); err != nil {
		return nil, fmt.Errorf("the row %v: %w", t, err)
	}
	if len(l.columns) == 0 {
		return nil, fmt.Errorf("the row %v has no exported fields", t)
	}
	if len(key) == 0 {
		return nil, fmt.Errorf("the Key is empty: name the columns of the table's primary key or of a unique constraint, by which a row is known when a bundle is retried")
	}
	for _, column := range key {
		i := slices.Index(l.columns, column)
		if i < 0 || slices.Contains(l.keys, i) {
			return nil, fmt.Errorf("the Key has the column %q, which must be one of the row's, once: %s", column, strings.Join(l.columns, ", "))
		}
		l.keys = append(l.keys, i)
	}
	return l, nil
}

func (l *layout[Row]) add(parent *reflectx.FieldInfo) error {
	for _, f := range parent.Children {
		switch {
		case f == nil: // the tag is "-", or the field is not exported
		case f.Embedded && f.Field.Type.Kind() == reflect.Pointer:
			return fmt.Errorf("the field %s is an embedded pointer: embed the struct itself", f.Field.Name)
		case f.Embedded:
			if err := l.add(f); err != nil {
				return err
			}
		default:
			if slices.Contains(l.columns, f.Name) {
				return fmt.Errorf("two fields are named %q: give one of them another name, by the tag db", f.Name)
			}
			l.columns = append(l.columns, f.Name)
			l.fields = append(l.fields, f.Index)
		}
	}
	return nil
}

func (l *layout[Row]) value(row reflect.Value, column int) reflect.Value {
	return row.FieldByIndex(l.fields[column])
}

// isKey tells whether a column is one of the key's.
func (l *layout[Row]) isKey(column int) bool { return slices.Contains(l.keys, column) }

// distinct returns the rows in the order of their keys, and of those with the same
// key the last. The order is the same in all batches, so that two of them which are
// written at once wait for each other's rows, and never both. A row that lacks a
// part of the key is known by nothing when it is written again, and fails.
func (l *layout[Row]) distinct(batch []Row) ([]Row, *batchasync.BatchError) {
	var failed batchasync.BatchError
	type keyed struct {
		key string
		row int
	}
	all := make([]keyed, 0, len(batch))
	var buffer []byte
	for i := range batch {
		var err error
		buffer, err = l.appendKey(buffer[:0], reflect.ValueOf(&batch[i]).Elem())
		if err != nil {
			failed.Fail(i, batchasync.Permanent(err))
			continue
		}
		all = append(all, keyed{string(buffer), i})
	}
	slices.SortFunc(all, func(a, b keyed) int { return cmp.Or(strings.Compare(a.key, b.key), cmp.Compare(a.row, b.row)) })
	rows := make([]Row, 0, len(all))
	for i, k := range all {
		if i+1 < len(all) && all[i+1].key == k.key {
			continue
		}
		rows = append(rows, batch[k.row])
	}
	return rows, &failed
}

// appendKey appends the key's values, each after its length.
func (l *layout[Row]) appendKey(to []byte, row reflect.Value) ([]byte, error) {
	for _, column := range l.keys {
		field := l.value(row, column).Interface()
		value, err := driver.DefaultParameterConverter.ConvertValue(field)
		if err != nil {
			if _, ok := field.(driver.Valuer); ok {
				return nil, fmt.Errorf("sqlwrite: the key's column %q: %w", l.columns[column], err)
			}
			value = field // of a type that only pgx knows
		}
		if isNull(value) {
			return nil, fmt.Errorf("sqlwrite: the key's column %q is NULL: the row could be written twice when its bundle is retried", l.columns[column])
		}
		var text string
		switch v := value.(type) {
		case string:
			text = v
		case int64:
			text = strconv.FormatInt(v, 10)
		case time.Time:
			text = v.UTC().Format(time.RFC3339Nano) // the same one, whatever its zone
		default:
			text = fmt.Sprint(v)
		}
		to = strconv.AppendInt(to, int64(len(text)), 10)
		to = append(to, ':')
		to = append(to, text...)
	}
	return to, nil
}

func isNull(value any) bool {
	switch v := reflect.ValueOf(value); v.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return v.IsNil()
	}
	return false
}
