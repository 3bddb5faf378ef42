// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package httpcall asks services that take elements in bulk as JSON over HTTP.
// Caller is a batchasync.Caller for types of yours: all of batchasync's verbs and
// options apply to it. The package example is a whole pipeline, but for beam.Init, which main calls first.
//
//	type Payment struct {
//		ID     string  `json:"id"`
//		Amount float64 `json:"amount"`
//	}
//	type Verdict struct {
//		ID   string  `json:"id"`
//		Risk float64 `json:"risk"`
//	}
//
//	func init() { batchasync.Register(&httpcall.Caller[Payment, Verdict]{}) }
//
//	verdicts, refused := batchasync.ParDoWithFailures(s, &httpcall.Caller[Payment, Verdict]{
//		Endpoint: httpcall.Endpoint{
//			URL:    "https://risk.example.com/v1/score",
//			Bearer: httpcall.Secret{Env: "RISK_TOKEN"},
//		},
//		RequestField:  "items",   // POST {"items": [{"id": "a", "amount": 12}, …]}
//		ResponseField: "results", // → {"results": [{"id": "a", "risk": 0.1}, …]}
//		IDField:       "id",      // in any order
//	}, payments, batchasync.BatchSize(200), batchasync.MaxInFlight(8))
//
// # Which fields for which service
//
//	[…] → […], in the order of the elements     none
//	[…] → […], in another order, with an id     IDField
//	{"items": […]} → {"results": […]}           RequestField, ResponseField
//	{"model": "m", "instances": […]} → {"predictions": […]}
//	                                            RequestField, RequestMembers, ResponseField
//	{"data": {"items": […]}} → the same         RequestField and ResponseField "data.items"
//	a line for each element and each answer     NDJSON
//	[…] → 204                                   an Out that is struct{}, of a type of yours
//	another                                     embed Endpoint, and call its Post
//
// # What ends how
//
//   - 408, 425, 429 and 5xx are tried again: after Retry-After, in seconds or as a
//     date, but at most MaxRetryAfter. A 429 with a Retry-After holds all calls of
//     the process back for that time.
//   - 413, and an answer that is larger than MaxAnswerBytes, halve the batch until
//     it fits; an element that does not fit alone fails.
//   - Other 4xx are permanent, and so are redirects to another host or scheme, or
//     such as would turn the POST into a GET. (409 is tried again if it answers a
//     repeat: a service that knows the Idempotency-Key may still be at work.)
//   - A connection that fails or breaks off, and an answer that is not JSON, are
//     tried again. A certificate that is not trusted is permanent.
//   - An answer's item with an error in it fails that element alone; see
//     Caller.ErrorField. So does an item that is null or no Out, and an id that is
//     missing or twice there. An answer with an id that no element has, or of
//     another number of items without ids, is not this call's: all of its elements
//     fail for good.
//   - An element that can't be written as JSON fails alone, and is not sent.
//
// # Writing
//
// A call may be made more than once: its answer may be lost on the way. Each
// carries the batch's id as its Idempotency-Key, the same in every attempt to
// send the same elements, so that a service that knows that header does its work
// once. When a batch is retried in part or halved, what is sent is another
// request, and has another key. When the runner retries the bundle the batches
// are others: for that, let the service know each element by an id of its own.
//
// # Secrets
//
// An Endpoint's fields travel in the pipeline's description, which runners store
// and show. So a token is never a field; Secret says where the worker finds it. A
// URL with a password or a key in it, and a header that looks like one, are
// refused when the pipeline is constructed. Errors show the beginning of what a
// service answers (200 characters, in which it may quote what it was sent), but
// not the secrets, even if the service sends them back.
//
// # Text
//
// Strings that are not valid UTF-8 are sent with U+FFFD in the place of what is
// not, as JSON can hold nothing else.
//
// # Dependencies
//
// github.com/tidwall/gjson finds the members that fields name without decoding
// the rest: it is read for that, and given only what encoding/json has found
// valid, for its own check recurses without a bound.
package httpcall
