// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/window"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/enrich"
)

func init() {
	register.DoFn3x0[Message, func(Order), func(DeadLetter)](&parseFn{})
	register.DoFn1x1[batchasync.Failure[Order], DeadLetter](&unknownFn{})
	register.DoFn1x1[batchasync.Failure[Sale], DeadLetter](&refusedFn{})
	register.DoFn2x0[Sale, func(string, sums)](&writtenFn{})
	register.Function2x1(addUp)
	register.DoFn3x1[beam.Window, string, sums, Total](&totalFn{})
	register.DoFn1x0[DeadLetter](&buriedFn{})
	register.Emitter1[Order]()
	register.Emitter1[DeadLetter]()
	register.Emitter2[string, sums]()
}

// An Order is an event: what a message has as JSON.
type Order struct {
	ID        string    `json:"-"` // the message's, which is unique
	Customer  string    `json:"customer"`
	Cents     int64     `json:"cents"`
	Published time.Time `json:"-"`
}

// A Customer is what Redis has, as JSON.
type Customer struct {
	Name    string `json:"name"`
	Country string `json:"country"`
}

// A Sale is an order with its customer: a row of the table sale.
type Sale struct {
	ID, Run   string
	Customer  string
	Name      string
	Country   string
	Cents     int64
	Published time.Time
}

// A DeadLetter is an order, or a message that is none, that can't be written: a row of
// the table dead_letter.
type DeadLetter struct {
	ID, Run string
	Error   string
}

// A Total is what was sold to a country in a window: a row of the table total.
type Total struct {
	Run     string
	Opens   time.Time // the window's start
	Country string
	Sales   int64
	Cents   int64
}

// parseFn makes orders of messages. One that is no order must not end the pipeline.
type parseFn struct{ Run string }

func (f *parseFn) ProcessElement(m Message, order func(Order), dead func(DeadLetter)) {
	o := Order{ID: m.ID, Published: m.Published}
	if err := json.Unmarshal(m.Data, &o); err != nil {
		dead(DeadLetter{ID: m.ID, Run: f.Run, Error: "no order: " + err.Error()})
		return
	}
	order(o)
}

// addCustomer joins an order with its customer.
type addCustomer struct{ Run string }

func (addCustomer) Keys(o Order) []string { return []string{o.Customer} }

func (a addCustomer) Join(o Order, customers enrich.Found[string, Customer]) (Sale, error) {
	c, _ := customers.Get(o.Customer)
	return Sale{ID: o.ID, Run: a.Run, Customer: o.Customer, Name: c.Name, Country: c.Country, Cents: o.Cents, Published: o.Published}, nil
}

// unknownFn makes a dead letter of an order that has not been joined.
type unknownFn struct{ Run string }

func (f *unknownFn) ProcessElement(failure batchasync.Failure[Order]) DeadLetter {
	return DeadLetter{ID: failure.Element.ID, Run: f.Run, Error: failure.Error}
}

// refusedFn makes a dead letter of a row that the database has refused.
type refusedFn struct{ Run string }

func (f *refusedFn) ProcessElement(failure batchasync.Failure[Sale]) DeadLetter {
	return DeadLetter{ID: failure.Element.ID, Run: f.Run, Error: failure.Error}
}

// writtenFn counts a row that has been written, and emits what its total is made of.
type writtenFn struct{}

func (*writtenFn) ProcessElement(s Sale, emit func(string, sums)) {
	live.rowWritten(time.Since(s.Published))
	emit(s.Country, sums{1, s.Cents})
}

// buriedFn counts a dead letter that has been written.
type buriedFn struct{}

func (*buriedFn) ProcessElement(DeadLetter) { live.failed.Add(1) }

// sums are what is added up for a country in a window.
type sums struct{ Sales, Cents int64 }

func addUp(a, b sums) sums { return sums{a.Sales + b.Sales, a.Cents + b.Cents} }

// totalFn makes a row of the sums of a country in a window.
type totalFn struct{ Run string }

func (f *totalFn) ProcessElement(w beam.Window, country string, s sums) Total {
	return Total{Run: f.Run, Opens: w.(window.IntervalWindow).Start.ToTime(), Country: country, Sales: s.Sales, Cents: s.Cents}
}

// tables make the tables, in words that SQLite and PostgreSQL have in common.
var tables = []string{`
CREATE TABLE IF NOT EXISTS sale (
	id        TEXT PRIMARY KEY,
	run       TEXT NOT NULL,
	customer  TEXT NOT NULL,
	name      TEXT NOT NULL,
	country   TEXT NOT NULL,
	cents     BIGINT NOT NULL CHECK (cents > 0),
	published TIMESTAMP WITH TIME ZONE NOT NULL
)`, `
CREATE TABLE IF NOT EXISTS dead_letter (
	id    TEXT PRIMARY KEY,
	run   TEXT NOT NULL,
	error TEXT NOT NULL
)`, `
CREATE TABLE IF NOT EXISTS total (
	run     TEXT NOT NULL,
	opens   TIMESTAMP WITH TIME ZONE NOT NULL,
	country TEXT NOT NULL,
	sales   BIGINT NOT NULL,
	cents   BIGINT NOT NULL,
	PRIMARY KEY (run, opens, country)
)`}
