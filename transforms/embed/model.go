// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package embed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/transforms/httpcall"
)

// A Model is an embedding model behind a server that has OpenAI's
// /v1/embeddings: OpenAI itself, vLLM, Text Embeddings Inference, llama.cpp,
// Ollama, LiteLLM and others. It is a batchasync.Caller from texts to Vectors;
// ParDo and its siblings here apply it with its limits.
type Model struct {
	// The URL is the whole one, such as https://api.openai.com/v1/embeddings.
	// Bearer says where the API key is.
	httpcall.Endpoint

	// Name is the model's, as the server knows it.
	Name string

	// Dimensions is how many the vectors are to have, for models that can
	// shorten theirs. Default: the model's own number.
	Dimensions int

	// Base64 asks for the vectors in base64, which is a third of the bytes
	// and faster to read. Some servers don't know it.
	Base64 bool

	// MaxItems is the most texts a call. OpenAI takes 2048. Default: 256.
	MaxItems int

	// MaxTokens is the most tokens a call, of all its texts together. They
	// are counted by Counter, or else as 2 for each text and 1 for each byte
	// of it. No tokenizer in use makes more of a text; it is some 4 times
	// what English has, so a Counter fills calls better. Default: 300,000,
	// which is what OpenAI takes.
	MaxTokens int

	// Counter is the name that RegisterCounter has been given a function
	// under that counts a text's tokens. MaxTextTokens is the most that the
	// model reads of one text: one with more, by Counter, fails alone, and is
	// not sent. Without a Counter nothing is sure before the server says so;
	// then too it fails alone. Default: 0, the server says.
	Counter       string
	MaxTextTokens int
}

// A Vector is a text with its embedding.
type Vector struct {
	Text      string
	Embedding []float32
}

// counters are the registered functions by name.
var counters sync.Map

// RegisterCounter lets Model.Counter name a function that counts the tokens of a
// text: exactly, with the model's tokenizer, or rather too many than too few. Call
// it in an init function, for the workers need it as well. count is called by
// several goroutines at once.
func RegisterCounter(name string, count func(text string) int) {
	if name == "" || count == nil {
		panic(fmt.Sprintf("embed.RegisterCounter(%q): give a name and a function", name))
	}
	if _, loaded := counters.LoadOrStore(name, count); loaded {
		panic(fmt.Sprintf("embed.RegisterCounter(%q): the name is taken", name))
	}
}

func (m *Model) maxItems() int  { return orElse(m.MaxItems, 256) }
func (m *Model) maxTokens() int { return orElse(m.MaxTokens, 300_000) }

func orElse(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// Validate says what is wrong with the fields.
func (m *Model) Validate() error {
	if err := m.Endpoint.Validate(); err != nil {
		return err
	}
	if m.Name == "" {
		return errors.New("the model has no Name: give the model's name, as the server knows it")
	}
	for _, field := range []struct {
		name  string
		value int
	}{{"Dimensions", m.Dimensions}, {"MaxItems", m.MaxItems}, {"MaxTokens", m.MaxTokens}, {"MaxTextTokens", m.MaxTextTokens}} {
		if field.value < 0 {
			return fmt.Errorf("%s is %d: it must be at least 1, or 0 for the default", field.name, field.value)
		}
	}
	if _, ok := counters.Load(m.Counter); m.Counter != "" && !ok {
		return fmt.Errorf("the Counter %q is not registered; add to an init function: embed.RegisterCounter(%q, function)", m.Counter, m.Counter)
	}
	if m.MaxTextTokens > 0 && m.Counter == "" {
		return fmt.Errorf("MaxTextTokens is %d, but without a Counter nobody knows how many a text has: set Counter, or leave it to the server to refuse texts that are too long", m.MaxTextTokens)
	}
	return nil
}

// ElementSize is the tokens of a text, for batchasync.BatchBytes: more than it
// has, if there is no Counter.
func (m *Model) ElementSize(text string) int {
	if count, ok := counters.Load(m.Counter); ok {
		return count.(func(string) int)(text)
	}
	// Byte-level and byte-fallback tokenizers make at most a token of each
	// byte, word pieces fewer; models add one at the begin and one at the end.
	return len(text) + 2
}

// Key is the text, for batchasync.Dedup and batchasync.Cache.
func (m *Model) Key(text string) string { return text }

// ResultSize is about what a Vector takes in memory, for batchasync.CacheBytes.
func (m *Model) ResultSize(v Vector) int { return len(v.Text) + 4*len(v.Embedding) }

// Idempotent is true: an embedding changes nothing, so batchasync.Hedge may be
// used. It costs, though.
func (m *Model) Idempotent() bool { return true }

// tokens counts those that the server says it has read.
var tokens = beam.NewCounter("embed", "tokens")

type request struct {
	Model      string   `json:"model"`
	Input      []string `json:"input"`
	Dimensions int      `json:"dimensions,omitempty"`
	Encoding   string   `json:"encoding_format"`
}

// Call embeds the texts with one request.
func (m *Model) Call(ctx context.Context, texts []string) ([]Vector, error) {
	var failed batchasync.BatchError
	send := make([]string, 0, len(texts))
	at := make([]int, 0, len(texts)) // of each text that is sent, in the batch
	estimate := 0
	for i, text := range texts {
		n := m.ElementSize(text)
		switch {
		case text == "":
			failed.Fail(i, batchasync.Permanent(errors.New("the text is empty: it has no embedding")))
			continue
		case m.MaxTextTokens > 0 && n > m.MaxTextTokens:
			failed.Fail(i, batchasync.Permanent(fmt.Errorf("the text has %d tokens, more than the %d of MaxTextTokens: split it before", n, m.MaxTextTokens)))
			continue
		}
		estimate += n
		send, at = append(send, text), append(at, i)
	}
	if len(send) == 0 {
		return nil, failed.Err()
	}
	// Options may have set other limits than ours.
	if len(send) > m.maxItems() {
		return nil, batchasync.TooLarge(fmt.Errorf("%d texts are more than the %d of MaxItems", len(send), m.maxItems()))
	}
	if estimate > m.maxTokens() && len(send) > 1 {
		return nil, batchasync.TooLarge(fmt.Errorf("%d tokens are more than the %d of MaxTokens", estimate, m.maxTokens()))
	}
	r := request{Model: m.Name, Input: send, Dimensions: m.Dimensions, Encoding: "float"}
	if m.Base64 {
		r.Encoding = "base64"
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, batchasync.Permanent(err) // there is none for strings
	}
	answer, err := m.Post(ctx, "application/json", body)
	if err != nil {
		return nil, m.refused(err, estimate)
	}
	embeddings, used, err := m.read(answer, len(send))
	if err != nil {
		return nil, err
	}
	if used > 0 {
		tokens.Inc(ctx, int64(used))
		estimate = used
	}
	m.Hold(shortage(answer.Header, estimate))
	vectors := make([]Vector, len(texts))
	for k, i := range at {
		if err := embeddings[k].err; err != nil {
			failed.Fail(i, err)
			continue
		}
		vectors[i] = Vector{Text: texts[i], Embedding: embeddings[k].values}
	}
	return vectors, failed.Err()
}

// refused says what an error of Post means for a batch of texts.
func (m *Model) refused(err error, estimate int) error {
	status, ok := errors.AsType[*httpcall.StatusError](err)
	if !ok {
		return err
	}
	var body struct {
		Error struct{ Param, Code any }
	}
	if json.Unmarshal([]byte(status.Body), &body) != nil {
		body.Error.Param = nil // it is no error as OpenAI's: it says nothing
	}
	switch status.Status {
	case http.StatusTooManyRequests:
		if body.Error.Code == "insufficient_quota" {
			return batchasync.Permanent(err) // it is not time that helps, but money
		}
		if status.Header.Get("Retry-After") == "" {
			m.Hold(shortage(status.Header, estimate))
		}
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		// What OpenAI calls the input may be input, input[3] or $.input; a
		// server that names nothing is given the benefit of the doubt.
		param, named := body.Error.Param.(string)
		if !named || param == "" || strings.Contains(param, "input") {
			return batchasync.Halve(err)
		}
	}
	return err
}
