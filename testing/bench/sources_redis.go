// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/batchasync/beam-batchasync/internal/servertest"
	"github.com/batchasync/beam-batchasync/transforms/redislookup"
)

func redisServer(ctx context.Context, t testing.TB) []match {
	server := servertest.Redis(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr, PoolSize: lookupers, PipelinePoolSize: -1})
	texts := &redislookup.Strings[town]{Server: redislookup.Server{Address: server.Addr, Connections: lookupers}}
	hashes := &redislookup.Hashes[town]{Server: redislookup.Server{Address: server.Addr, Connections: lookupers}, Prefix: "h"}
	check(t, texts.Setup(ctx))
	check(t, hashes.Setup(ctx))
	t.Cleanup(func() {
		for _, end := range []func() error{
			client.Close,
			func() error { return texts.Teardown(ctx) },
			func() error { return hashes.Teardown(ctx) },
		} {
			if err := end(); err != nil {
				t.Error(err)
			}
		}
	})
	const chunk = 1000
	for i := 0; i < townRows; i += chunk {
		_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for j := range chunk {
				row := townOf(i + j)
				text, err := json.Marshal(row)
				if err != nil {
					return err
				}
				p.Set(ctx, row.Code, text, 0)
				p.HSet(ctx, "h"+row.Code, row)
			}
			return nil
		})
		check(t, err)
	}
	return []match{
		{
			"Redis, JSON with MGET", texts.Lookup,
			func(ctx context.Context, keys []string) (map[string]town, error) {
				values, err := client.MGet(ctx, keys...).Result()
				if err != nil {
					return nil, err
				}
				towns := make(map[string]town, len(keys))
				for i, value := range values {
					text, ok := value.(string)
					if !ok {
						continue
					}
					var row town
					if err := json.Unmarshal([]byte(text), &row); err != nil {
						return nil, err
					}
					towns[keys[i]] = row
				}
				return towns, nil
			},
			func(ctx context.Context, keys []string) (map[string]town, error) {
				towns := make(map[string]town, len(keys))
				for _, key := range keys {
					text, err := client.Get(ctx, key).Bytes()
					if err != nil {
						return nil, err
					}
					var row town
					if err := json.Unmarshal(text, &row); err != nil {
						return nil, err
					}
					towns[key] = row
				}
				return towns, nil
			},
		},
		{
			"Redis, hashes in a pipeline", hashes.Lookup,
			func(ctx context.Context, keys []string) (map[string]town, error) {
				commands, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
					for _, key := range keys {
						p.HGetAll(ctx, "h"+key)
					}
					return nil
				})
				if err != nil {
					return nil, err
				}
				towns := make(map[string]town, len(keys))
				for i, command := range commands {
					var row town
					if err := command.(*redis.MapStringStringCmd).Scan(&row); err != nil {
						return nil, err
					}
					towns[keys[i]] = row
				}
				return towns, nil
			},
			func(ctx context.Context, keys []string) (map[string]town, error) {
				towns := make(map[string]town, len(keys))
				for _, key := range keys {
					var row town
					if err := client.HGetAll(ctx, "h"+key).Scan(&row); err != nil {
						return nil, err
					}
					towns[key] = row
				}
				return towns, nil
			},
		},
	}
}
