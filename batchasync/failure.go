// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
)

// A Failure is an element that failed for good, with what is needed to look
// into it or to send it again: the element type of the failures output. It has
// the windows, the timestamp and the pane of its element.
type Failure[In any] struct {
	Element   In
	Error     string    // the last attempt's error
	Attempts  int       // calls that the element was in; 0 if it never got into one
	BatchID   string    // as InfoFrom told it to the last of them
	BatchSize int       // elements in the last of them
	Permanent bool      // whether the error, and not the number of attempts, ended it
	FailedAt  time.Time // in the worker's clock
}

// failureCode is a Failure on its way between workers.
type failureCode struct {
	Element   []byte // in the coder of its own type
	Error     string
	Attempts  int
	BatchID   string
	BatchSize int
	Permanent bool
	FailedAt  time.Time
}

// encode encodes the element with the coder that its type has by itself, so
// that what can be an element of a PCollection (a protocol buffer, a type with
// a coder of its own) can be one of a Failure. The row coder, which Beam would
// infer for Failure, can't do that.
func (f Failure[In]) encode() ([]byte, error) {
	var b bytes.Buffer
	if err := beam.NewElementEncoder(reflect.TypeFor[In]()).Encode(f.Element, &b); err != nil {
		return nil, fmt.Errorf("encode the element of a %T: %w", f, err)
	}
	return json.Marshal(failureCode{b.Bytes(), f.Error, f.Attempts, f.BatchID, f.BatchSize, f.Permanent, f.FailedAt})
}

func (Failure[In]) decode(data []byte) (any, error) {
	var c failureCode
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("decode a %v: %w", reflect.TypeFor[Failure[In]](), err)
	}
	element, err := beam.NewElementDecoder(reflect.TypeFor[In]()).Decode(bytes.NewReader(c.Element))
	if err != nil {
		return nil, fmt.Errorf("decode the element of a %v: %w", reflect.TypeFor[Failure[In]](), err)
	}
	return Failure[In]{element.(In), c.Error, c.Attempts, c.BatchID, c.BatchSize, c.Permanent, c.FailedAt}, nil
}

// One pair of functions serves the Failures of all element types: Beam finds a
// coder's functions by their symbol, which all instances of a generic function
// share.

type anyFailure interface {
	encode() ([]byte, error)
	decode([]byte) (any, error)
}

func encodeFailure(failure beam.T) ([]byte, error) {
	return failure.(anyFailure).encode()
}

func decodeFailure(t reflect.Type, data []byte) (beam.T, error) {
	return reflect.Zero(t).Interface().(anyFailure).decode(data)
}
