// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package redislookup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// Strings is a source of the values of Redis strings: one MGET for a batch, or in a
// cluster one pipeline of GETs to each node. If V is a kind of string or []byte it
// is the value as it is; otherwise the value is JSON, which is decoded into V.
//
// A value that can't be decoded, or that is no string, fails its key for good.
type Strings[V any] struct {
	Server
	Prefix string // goes before each key
}

// Lookup implements enrich.Source.
func (s *Strings[V]) Lookup(ctx context.Context, keys []string) (map[string]V, error) {
	a := newAnswer[V](&s.Server, len(keys))
	var err error
	if s.Cluster {
		s.get(ctx, keys, a)
	} else {
		err = s.mget(ctx, keys, a)
	}
	if err != nil {
		return nil, err
	}
	return a.result(len(keys))
}

// get asks for each key; the client sends a node the keys of its slots together.
func (s *Strings[V]) get(ctx context.Context, keys []string, a *answer[V]) {
	// Each command has its own error.
	commands, _ := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range keys {
			p.Get(ctx, s.Prefix+key)
		}
		return nil
	})
	for i, command := range commands {
		value, err := command.(*redis.StringCmd).Result()
		switch {
		case errors.Is(err, redis.Nil): // it isn't there
		case err != nil:
			a.fail(i, err)
		default:
			s.take(keys[i], i, value, a)
		}
	}
}

// mget asks for all keys at once.
func (s *Strings[V]) mget(ctx context.Context, keys []string, a *answer[V]) error {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = s.Prefix + key
	}
	values, err := s.client.MGet(ctx, names...).Result()
	if err != nil {
		if redis.HasErrorPrefix(err, "NOPERM") && strings.Contains(err.Error(), "access") {
			// One key that the user may not read is enough. (The command itself
			// may be what the user may not run.)
			return batchasync.Halve(err)
		}
		return s.judge(err)
	}
	var missing []int
	for i, value := range values {
		if text, ok := value.(string); ok {
			s.take(keys[i], i, text, a)
		} else {
			missing = append(missing, i)
		}
	}
	return s.wrongTypes(ctx, names, missing, a)
}

// wrongTypes fails those of the missing keys that are there, but are no strings:
// MGET, unlike GET, says no more of them than of the others.
func (s *Strings[V]) wrongTypes(ctx context.Context, names []string, missing []int, a *answer[V]) error {
	if len(missing) == 0 {
		return nil
	}
	asked := make([]string, len(missing))
	for n, i := range missing {
		asked[n] = names[i]
	}
	there, err := s.client.Exists(ctx, asked...).Result()
	if err != nil || there == 0 {
		return s.judge(err)
	}
	commands, err := s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, name := range asked {
			p.Type(ctx, name)
		}
		return nil
	})
	if err != nil {
		return s.judge(err)
	}
	for n, command := range commands {
		switch t := command.(*redis.StatusCmd).Val(); t {
		case "none", "string": // a string has been set since
		default:
			a.failed.Fail(missing[n], batchasync.Permanent(fmt.Errorf("WRONGTYPE: it holds a %s, in place of a string", t)))
		}
	}
	return nil
}

// take takes in a value.
func (s *Strings[V]) take(key string, i int, text string, a *answer[V]) {
	value, err := decode[V](text)
	if err != nil {
		a.failed.Fail(i, batchasync.Permanent(err))
		return
	}
	a.values[key] = value
}

func decode[V any](text string) (value V, err error) {
	switch v := any(&value).(type) {
	case *string:
		*v = text
		return value, nil
	case *[]byte:
		*v = []byte(text)
		return value, nil
	}
	switch v := reflect.ValueOf(&value).Elem(); {
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		v.SetBytes([]byte(text))
	default:
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			return value, fmt.Errorf("the value is not the JSON of a %T: %s", value, shown(err))
		}
	}
	return value, nil
}

// shown is what is wrong with a value, without what is in it.
func shown(err error) string {
	switch e := err.(type) {
	case *json.SyntaxError:
		return e.Error()
	case *json.UnmarshalTypeError:
		kind, _, _ := strings.Cut(e.Value, " ") // behind which a number itself stands
		without := *e
		without.Value = kind
		return without.Error()
	}
	return fmt.Sprintf("%T", err) // of an UnmarshalJSON or UnmarshalText, which may quote it
}
