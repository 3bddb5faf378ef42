// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package redislookup_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/internal/servertest"
	"github.com/batchasync/beam-batchasync/transforms/redislookup"
)

// BenchmarkLookup compares the sources with what is written by hand for go-redis,
// and with one command after the other, for batches of 100 rows on one server.
func BenchmarkLookup(b *testing.B) {
	const batch = 100
	server := servertest.Redis(b)
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	ctx := context.Background()
	keys := make([]string, batch)
	for i := range keys {
		keys[i] = fmt.Sprint("k", i)
		require.NoError(b, client.Set(ctx, keys[i], fmt.Sprintf(`{"n":%d,"name":"tea"}`, i), 0).Err())
		require.NoError(b, client.HSet(ctx, "h"+keys[i], "n", i, "name", "tea").Err())
	}
	strings := &redislookup.Strings[row]{Server: redislookup.Server{Address: server.Addr}}
	hashes := &redislookup.Hashes[row]{Server: redislookup.Server{Address: server.Addr}, Prefix: "h"}
	require.NoError(b, strings.Setup(ctx))
	require.NoError(b, hashes.Setup(ctx))
	b.Cleanup(func() {
		require.NoError(b, strings.Teardown(ctx))
		require.NoError(b, hashes.Teardown(ctx))
		require.NoError(b, client.Close())
	})
	for _, bench := range []struct {
		name   string
		lookup func() (map[string]row, error)
	}{
		{"strings/source", func() (map[string]row, error) { return strings.Lookup(ctx, keys) }},
		{"strings/hand-written", func() (map[string]row, error) {
			values, err := client.MGet(ctx, keys...).Result()
			if err != nil {
				return nil, err
			}
			rows := make(map[string]row, batch)
			for i, value := range values {
				var r row
				if text, ok := value.(string); ok {
					if err := json.Unmarshal([]byte(text), &r); err != nil {
						return nil, err
					}
					rows[keys[i]] = r
				}
			}
			return rows, nil
		}},
		{"strings/one by one", func() (map[string]row, error) {
			rows := make(map[string]row, batch)
			for _, key := range keys {
				var r row
				text, err := client.Get(ctx, key).Bytes()
				if err == nil {
					err = json.Unmarshal(text, &r)
				}
				if err != nil {
					return nil, err
				}
				rows[key] = r
			}
			return rows, nil
		}},
		{"hashes/source", func() (map[string]row, error) { return hashes.Lookup(ctx, keys) }},
		{"hashes/hand-written", func() (map[string]row, error) {
			commands, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
				for _, key := range keys {
					p.HGetAll(ctx, "h"+key)
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
			rows := make(map[string]row, batch)
			for i, command := range commands {
				var r row
				if err := command.(*redis.MapStringStringCmd).Scan(&r); err != nil {
					return nil, err
				}
				rows[keys[i]] = r
			}
			return rows, nil
		}},
		{"hashes/one by one", func() (map[string]row, error) {
			rows := make(map[string]row, batch)
			for _, key := range keys {
				var r row
				if err := client.HGetAll(ctx, "h"+key).Scan(&r); err != nil {
					return nil, err
				}
				rows[key] = r
			}
			return rows, nil
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rows, err := bench.lookup()
				if err != nil || len(rows) != batch {
					b.Fatal(len(rows), err)
				}
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
