// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package embed

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/httpcall"
)

// An embedding is a vector, or why there is none.
type embedding struct {
	values []float32
	err    error
}

// UnmarshalJSON reads either encoding, for servers may ignore which was asked
// for. It keeps what is wrong to itself: that is one text's. It reads floats by
// hand, as encoding/json takes four times as long.
func (e *embedding) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case '"':
		e.values, e.err = fromBase64(b)
	case '[':
		e.values, e.err = fromFloats(b)
	case 'n': // null
	default:
		e.err = errors.New("the embedding is neither an array nor a string")
	}
	return nil
}

func fromBase64(b []byte) ([]float32, error) {
	var raw []byte // in JSON, that is base64
	if err := json.Unmarshal(b, &raw); err != nil || len(raw)%4 != 0 {
		return nil, errors.New("the embedding is not the base64 of 32-bit floats")
	}
	values := make([]float32, len(raw)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		if v := float64(values[i]); math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("dimension %d of the embedding is %v", i, v)
		}
	}
	return values, nil
}

func fromFloats(b []byte) ([]float32, error) {
	b = bytes.TrimSpace(b[1 : len(b)-1]) // valid JSON, as encoding/json has seen
	if len(b) == 0 {
		return nil, nil
	}
	values := make([]float32, 0, bytes.Count(b, comma)+1)
	for {
		number, rest, more := bytes.Cut(b, comma)
		v, err := strconv.ParseFloat(string(bytes.TrimSpace(number)), 32)
		if err != nil {
			return nil, fmt.Errorf("dimension %d of the embedding is no 32-bit float", len(values))
		}
		values = append(values, float32(v))
		if !more {
			return values, nil
		}
		b = rest
	}
}

var comma = []byte{','}

// read returns the embeddings of n texts in the order of the texts, and the
// tokens that the server has counted.
func (m *Model) read(a *httpcall.Answer, n int) ([]embedding, int, error) {
	var body struct {
		Data []struct {
			Index     *int
			Embedding embedding
			Error     json.RawMessage
		}
		Usage struct {
			PromptTokens int `json:"prompt_tokens"`
		}
	}
	if err := json.Unmarshal(a.Body, &body); err != nil {
		err = a.Wrong(fmt.Errorf("the answer is not that of /v1/embeddings: %w", err))
		if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return nil, 0, batchasync.Permanent(err)
		}
		if bytes.Contains(a.Body, []byte("NaN")) || bytes.Contains(a.Body, []byte("Infinity")) {
			// What Python writes for a vector that a model has failed to
			// make of one of the texts.
			return nil, 0, batchasync.Halve(err)
		}
		return nil, 0, err // no JSON: a proxy's page, or it has broken off
	}
	embeddings := make([]embedding, n)
	found := make([]int, n)
	size := m.Dimensions
	for i, item := range body.Data {
		index := i // servers that leave it out keep the order
		if item.Index != nil {
			index = *item.Index
		} else if len(body.Data) != n {
			return nil, 0, batchasync.Permanent(a.Wrong(fmt.Errorf("%d embeddings for %d texts, and no index", len(body.Data), n)))
		}
		if index < 0 || index >= n {
			return nil, 0, batchasync.Permanent(a.Wrong(fmt.Errorf("embedding %d has the index %d, but there are %d texts", i, index, n)))
		}
		found[index]++
		e := item.Embedding
		failure := a.Failure(item.Error)
		switch {
		case failure != nil:
			e.err = failure
		case e.err != nil:
			e.err = batchasync.Permanent(e.err)
		case len(e.values) == 0:
			e.err = batchasync.Permanent(errors.New("the server's answer has an empty embedding for the text"))
		case m.Dimensions > 0 && len(e.values) != m.Dimensions:
			e.err = batchasync.Permanent(fmt.Errorf("the embedding has %d dimensions, and not the %d of Dimensions: the model, or the server, can't shorten it", len(e.values), m.Dimensions))
		case size == 0:
			size = len(e.values)
		case len(e.values) != size:
			return nil, 0, batchasync.Permanent(a.Wrong(fmt.Errorf("embeddings of %d and of %d dimensions are in one answer", size, len(e.values))))
		}
		embeddings[index] = e
	}
	for index, times := range found {
		switch {
		case times == 0:
			embeddings[index].err = batchasync.Permanent(fmt.Errorf("the server's answer has no embedding with the text's index, %d", index))
		case times > 1:
			embeddings[index].err = batchasync.Permanent(fmt.Errorf("the server's answer has %d embeddings with the text's index, %d", times, index))
		}
	}
	return embeddings, body.Usage.PromptTokens, nil
}
