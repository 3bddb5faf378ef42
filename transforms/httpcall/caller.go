// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package httpcall

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Caller is a batchasync.Caller that posts a batch of In as JSON, and reads a
// Out for each from the answer. Register it for its types in an init function,
// and apply it with any of batchasync's verbs:
//
//	func init() { batchasync.Register(&httpcall.Caller[Payment, Verdict]{}) }
//
// Its zero value, with a URL, posts an array and expects an array, with the
// answers in the order of the elements:
//
//	POST [{"amount": 12}, {"amount": 7}]  →  [{"risk": 0.1}, {"risk": 0.7}]
//
// With an Out that is a struct without fields, an answer with an empty body is
// fine too: a status of 2xx says then that all elements were taken.
type Caller[In, Out any] struct {
	Endpoint

	// RequestField is for a service that takes an object with the array in
	// it: the name of that member, or a path of names with dots between.
	// RequestMembers are the object's other members. With RequestField
	// "items" and RequestMembers {"model": "m2"}:
	//
	//	{"model": "m2", "items": [{"amount": 12}, {"amount": 7}]}
	RequestField   string
	RequestMembers map[string]any

	// ResponseField is where the answer has its array, in the same form.
	ResponseField string

	// NDJSON posts a line for each element, and reads a line for each answer.
	NDJSON bool

	// IDField matches the answers by an id, and not by their order: it is the
	// member, or the path with dots, that both In and the answer's items have,
	// with a string or a number in it. An In that is itself a string or a
	// number is its own id. Elements that are equal as JSON are sent once;
	// others with an id in common are sent in separate calls.
	IDField string

	// ErrorField is the member of an answer's item that says that this
	// element failed, if there is one and it is not null, false, 0, "", [] or
	// {}: the others keep their answers. Is it, or the item, an object with
	// a number in the member "status" or "code", then that counts as HTTP's:
	// 408, 425, 429 and 5xx are tried again, other 4xx are not. Without one
	// the element is tried again. Default: "error"; "-": there is none.
	ErrorField string

	// ReadOnly says that calls change nothing in the service, so that one may
	// be made twice at once: batchasync.Hedge needs that.
	ReadOnly bool
}

// Validate says what is wrong with the fields.
func (c *Caller[In, Out]) Validate() error {
	if err := c.Endpoint.Validate(); err != nil {
		return err
	}
	for _, field := range []struct{ name, path string }{
		{"RequestField", c.RequestField}, {"ResponseField", c.ResponseField}, {"IDField", c.IDField}, {"ErrorField", c.ErrorField},
	} {
		if field.path != "" && slices.Contains(strings.Split(field.path, "."), "") {
			return fmt.Errorf("%s is %q: it must be the name of a member, or names with a dot between each two", field.name, field.path)
		}
	}
	if c.NDJSON && (c.RequestField != "" || c.ResponseField != "") {
		return errors.New("NDJSON has a line an element, and no object around them: leave RequestField and ResponseField out")
	}
	if len(c.RequestMembers) > 0 && c.RequestField == "" {
		return errors.New("RequestMembers need an object to be members of: set RequestField")
	}
	for _, name := range slices.Sorted(maps.Keys(c.RequestMembers)) {
		if secretive(name) {
			return fmt.Errorf("RequestMembers[%q] looks like a secret, which would be a part of the pipeline's description, for all to see: send it as a header, from Bearer or SecretHeaders", name)
		}
		if first, _, _ := strings.Cut(c.RequestField, "."); name == first {
			return fmt.Errorf("RequestMembers[%q] is where RequestField has the elements: leave one out", name)
		}
	}
	return nil
}

// Idempotent reports ReadOnly, for batchasync.Hedge.
func (c *Caller[In, Out]) Idempotent() bool { return c.ReadOnly }

// ElementSize is the length of the element as JSON, for batchasync.BatchBytes.
func (c *Caller[In, Out]) ElementSize(element In) int {
	item, err := encodeItem(element)
	if err != nil {
		return 0 // Call tells
	}
	return len(item)
}

// Key is the element as JSON, for batchasync.Dedup and batchasync.Cache.
func (c *Caller[In, Out]) Key(element In) string {
	item, err := encodeItem(element)
	if err != nil {
		return fmt.Sprintf("%T %+v", element, element)
	}
	return string(item)
}

// Call posts the batch.
func (c *Caller[In, Out]) Call(ctx context.Context, batch []In) ([]Out, error) {
	r, err := encode(c.format(), batch)
	if err != nil {
		return nil, err
	}
	if r.items == 0 {
		return nil, r.failed.Err() // none of them can be sent
	}
	contentType := "application/json"
	if c.NDJSON {
		contentType = "application/x-ndjson"
	}
	answer, err := c.Post(ctx, contentType, r.body)
	if err != nil {
		return nil, err
	}
	outs, failed, err := decode[Out](c.format(), r, answer)
	if err != nil {
		return nil, err
	}
	return spread(r, outs, failed)
}

func (c *Caller[In, Out]) format() format {
	failure := c.ErrorField
	switch failure {
	case "":
		failure = "error"
	case "-":
		failure = ""
	}
	return format{
		request: c.RequestField, members: c.RequestMembers, response: path(c.ResponseField), lines: c.NDJSON,
		id: path(c.IDField), failure: path(failure), failureName: failure[strings.LastIndexByte(failure, '.')+1:],
	}
}
