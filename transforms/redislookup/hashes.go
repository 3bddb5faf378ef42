// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package redislookup

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// Hashes is a source of Redis hashes: one pipeline for a batch, or in a cluster one
// to each node, of HGETALL, or of HMGET if Fields are given. V is a struct, whose
// fields have tags such as `redis:"name"`, or a map[string]string.
//
// A hash that does not fit V, and a key that holds something else than a hash,
// fail for good. With Fields, a hash that has none of them counts as one that isn't
// there.
type Hashes[V any] struct {
	Server
	Prefix string   // goes before each key
	Fields []string // those that are asked for; none: all
}

// Validate says what is wrong with the fields.
func (s *Hashes[V]) Validate() error {
	t := reflect.TypeFor[V]()
	switch {
	case t == reflect.TypeFor[map[string]string]():
	case t.Kind() != reflect.Struct:
		return fmt.Errorf("its values are of type %v: must be a struct or map[string]string", t)
	case !slices.ContainsFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Tag.Get("redis") != "" }):
		return fmt.Errorf("its values are of type %v, in which no field has a tag: name the hash's field that each is of, such as `redis:\"price\"`", t)
	}
	return s.Server.Validate()
}

// Lookup implements enrich.Source.
func (s *Hashes[V]) Lookup(ctx context.Context, keys []string) (map[string]V, error) {
	// Each command has its own error.
	commands, _ := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range keys {
			if len(s.Fields) == 0 {
				p.HGetAll(ctx, s.Prefix+key)
			} else {
				p.HMGet(ctx, s.Prefix+key, s.Fields...)
			}
		}
		return nil
	})
	a := newAnswer[V](&s.Server, len(keys))
	for i, command := range commands {
		if err := command.Err(); err != nil {
			a.fail(i, err)
			continue
		}
		hash := s.hash(command)
		if len(hash) == 0 {
			continue // it isn't there
		}
		value, err := scan[V](hash)
		if err != nil {
			a.failed.Fail(i, batchasync.Permanent(err))
			continue
		}
		a.values[keys[i]] = value
	}
	return a.result(len(keys))
}

// hash is what a command has answered.
func (s *Hashes[V]) hash(command redis.Cmder) map[string]string {
	switch c := command.(type) {
	case *redis.MapStringStringCmd:
		return c.Val()
	case *redis.SliceCmd:
		hash := make(map[string]string, len(s.Fields))
		for i, value := range c.Val() {
			if text, ok := value.(string); ok {
				hash[s.Fields[i]] = text
			}
		}
		return hash
	}
	return nil
}

// scan makes a V of a hash, by go-redis's scanner.
func scan[V any](hash map[string]string) (value V, err error) {
	if m, ok := any(&value).(*map[string]string); ok {
		*m = hash
		return value, nil
	}
	if redis.NewMapStringStringResult(hash, nil).Scan(&value) == nil {
		return value, nil
	}
	// Its error has a value in it; what is told is the field.
	var none V
	for field, text := range hash {
		if redis.NewMapStringStringResult(map[string]string{field: text}, nil).Scan(new(V)) != nil {
			return none, fmt.Errorf("the field %q of the hash does not fit %T", field, none)
		}
	}
	return none, fmt.Errorf("the hash does not fit %T", none)
}
