// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What the generator makes up. Of a thousand orders, five are of a customer that
// Redis does not know, two have a price that the database refuses, and one is not
// even JSON.
const (
	customers    = 1000
	ofThousand   = 1000
	unknownUntil = 5
	refusedUntil = 7
	brokenUntil  = 8
)

var countries = []string{"AT", "CH", "DE", "FR", "IT"}

func customer(n int) (key string, c Customer) {
	return fmt.Sprintf("c%04d", n), Customer{Name: fmt.Sprintf("Customer %d", n), Country: countries[n%len(countries)]}
}

// message is the nth message of a run.
func message(run, subject string, n int64) (*nats.Msg, error) {
	key, _ := customer(int(n % customers))
	order := Order{Customer: key, Cents: 100 + n%9900}
	m := nats.NewMsg(subject)
	// By this JetStream knows a message that is published again, and the table a row.
	m.Header.Set(nats.MsgIdHdr, fmt.Sprintf("%s-%d", run, n))
	switch kind := n % ofThousand; {
	case kind < unknownUntil:
		order.Customer = "nobody"
	case kind < refusedUntil:
		order.Cents = -1
	case kind < brokenUntil:
		m.Data = []byte("oops")
		return m, nil
	}
	var err error
	m.Data, err = json.Marshal(order)
	return m, err
}

// generate publishes perSecond messages a second until ctx ends, and one that says
// that it was the last. All have been stored when it returns without an error.
func generate(ctx context.Context, js jetstream.JetStream, run, subject string, perSecond int) error {
	var wg sync.WaitGroup
	var failed error
	open, giveUp := context.WithCancel(ctx)
	defer giveUp()
	sent := make(chan jetstream.PubAckFuture, perSecond)
	wg.Go(func() {
		for message := range sent {
			select {
			case <-message.Ok():
				live.published.Add(1)
			case err := <-message.Err():
				failed = cmp.Or(failed, err)
				giveUp()
			}
		}
	})
	err := publish(open, js, run, subject, perSecond, sent)
	close(sent)
	wg.Wait()
	if err := cmp.Or(err, failed); err != nil {
		return err
	}
	last := nats.NewMsg(subject)
	last.Header.Set(lastHeader, "true")
	_, err = js.PublishMsg(context.WithoutCancel(ctx), last)
	return err
}

// publish hands messages to the client until ctx ends.
func publish(ctx context.Context, js jetstream.JetStream, run, subject string, perSecond int, sent chan<- jetstream.PubAckFuture) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	n := int64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for due := int64(time.Since(start).Seconds() * float64(perSecond)); n < due && ctx.Err() == nil; n++ {
			m, err := message(run, subject, n)
			if err != nil {
				return err
			}
			stored, err := js.PublishMsgAsync(m, jetstream.WithStallWait(patience))
			if err != nil {
				return err
			}
			sent <- stored
		}
	}
}
