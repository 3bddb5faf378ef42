// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package redislookup has sources for transforms/enrich over Redis: [Strings], as
// they are or as JSON, and [Hashes].
//
// # How to use it
//
// A source is registered, and handed over, with an enricher; the rows' type is
// whatever fits:
//
//	type User struct {
//		Name string `json:"name"`
//	}
//
//	// addUser joins an event with the user that caused it.
//	type addUser struct{}
//
//	func (addUser) Keys(e Event) []string { return []string{e.UserID} }
//
//	func (addUser) Join(e Event, users enrich.Found[string, User]) (Line, error) {
//		user, _ := users.Get(e.UserID)
//		return Line{Event: e, User: user}, nil
//	}
//
//	func init() { enrich.Register(&redislookup.Strings[User]{}, addUser{}) }
//
//	func build(s beam.Scope, events beam.PCollection) beam.PCollection {
//		users := &redislookup.Strings[User]{
//			Server: redislookup.Server{
//				Address:     "rediss://redis.internal:6379",
//				Credentials: redislookup.Credentials{PasswordEnv: "REDIS_PASSWORD"},
//			},
//			Prefix: "user:",
//		}
//		return enrich.ParDo(s, users, addUser{}, enrich.KeepMissing, events)
//	}
//
// The package example is a whole pipeline, but for beam.Init, which main calls first.
//
// # Servers
//
// [Server] is one server, a cluster, or a master that sentinels watch. In a cluster
// each node is asked for the keys of its slots, at the same time; what a node that
// is away has not answered is asked for again, and nothing else.
//
// # Secrets
//
// The fields travel in the pipeline's description, which runners store and show.
// A user and a password are therefore named by [Credentials], and read on the
// worker. An Address with a password in it is refused.
//
// Redis can't offer TLS at the port of plain connections, so that it is on if
// [Server] says so, and a password goes as plain as the connection is. The user needs
// the right to MGET, EXISTS and TYPE (with [Strings]; GET in a cluster) or to HGETALL
// or HMGET, all of which are in +@read, and to +@connection.
//
// # Errors
//
// A key that isn't there is no error. One that holds something of another type, or
// a value that can't be decoded, fails for good, alone. What a server says while it
// starts, fails over or has too much to do (LOADING, READONLY, MASTERDOWN,
// CLUSTERDOWN, TRYAGAIN, OOM, BUSY, too many clients) is tried again, as is a
// connection that is lost, by the rules of batchasync; anything else that it says,
// such as NOAUTH, is permanent. No error shows a value or a password.
//
// # Dependencies
//
// The client is go-redis, Redis's own, which knows clusters and sentinels. Its
// retries are turned off, since those are batchasync's.
package redislookup
