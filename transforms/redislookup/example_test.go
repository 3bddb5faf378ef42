// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package redislookup_test

import (
	"context"
	"fmt"

	"github.com/alicebob/miniredis/v2"
	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"github.com/batchasync/beam-batchasync/transforms/enrich"
	"github.com/batchasync/beam-batchasync/transforms/redislookup"
)

type User struct {
	Name string `json:"name"`
}

type Event struct{ UserID, What string }

// addUser joins an event with the user that caused it.
type addUser struct{}

func (addUser) Keys(e Event) []string { return []string{e.UserID} }

func (addUser) Join(e Event, users enrich.Found[string, User]) (string, error) {
	user, ok := users.Get(e.UserID)
	if !ok {
		user.Name = "somebody"
	}
	return user.Name + " " + e.What, nil
}

// Stock is a hash: two of its fields are asked for.
type Stock struct {
	Price int    `redis:"price"`
	Unit  string `redis:"unit"`
}

type addStock struct{}

func (addStock) Keys(article string) []string { return []string{article} }

func (addStock) Join(article string, stocks enrich.Found[string, Stock]) (string, error) {
	stock, _ := stocks.Get(article)
	return fmt.Sprintf("%s: %d a %s", article, stock.Price, stock.Unit), nil
}

func printLine(line string) { fmt.Println(line) }

func init() {
	enrich.Register(&redislookup.Strings[User]{}, addUser{})
	enrich.Register(&redislookup.Hashes[Stock]{}, addStock{})
	register.Function1x0(printLine)
}

// A whole pipeline: events are joined with their users, which Redis has as JSON.
func Example() {
	server, err := miniredis.Run() // in place of a real one
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	if err := server.Set("user:7", `{"name": "Ada"}`); err != nil {
		fmt.Println(err)
	}

	p, s := beam.NewPipelineWithRoot()
	users := &redislookup.Strings[User]{Server: redislookup.Server{Address: server.Addr()}, Prefix: "user:"}
	events := beam.Create(s, Event{"7", "logged in"})
	beam.ParDo0(s, printLine, enrich.ParDo(s, users, addUser{}, enrich.KeepMissing, events))
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Output: Ada logged in
}

// Of a hash, the fields that are wanted are asked for.
func ExampleHashes() {
	server, err := miniredis.Run()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	server.HSet("stock:tea", "price", "3", "unit", "box", "notes", "…")

	p, s := beam.NewPipelineWithRoot()
	stocks := &redislookup.Hashes[Stock]{
		Server: redislookup.Server{Address: server.Addr()}, Prefix: "stock:", Fields: []string{"price", "unit"},
	}
	beam.ParDo0(s, printLine, enrich.ParDo(s, stocks, addStock{}, enrich.DropMissing, beam.Create(s, "tea")))
	if _, err := beam.Run(context.Background(), "prism", p); err != nil {
		fmt.Println(err)
	}
	// Output: tea: 3 a box
}

// In a cluster, with TLS, a certificate authority of one's own, and a password that
// the workers have in their environment.
func ExampleServer() {
	server := redislookup.Server{
		Address:     "node-a:6379,node-b:6379",
		Cluster:     true,
		CAFile:      "/etc/ssl/redis-ca.pem",
		Credentials: redislookup.Credentials{UsernameEnv: "REDIS_USER", PasswordEnv: "REDIS_PASSWORD"},
	}
	fmt.Println(server.Validate())

	server.Address = "redis://reader:hunter2@node-a:6379"
	fmt.Println(server.Validate())
	// Output:
	// <nil>
	// the Address has a user or a password in it, and would travel in the pipeline's description, which runners store and show: put them into environment variables of the workers, files, or a function; see Credentials
}
