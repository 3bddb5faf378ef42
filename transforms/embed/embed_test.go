// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package embed_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	//lint:ignore SA1019 Prism is to replace it, but it is still what many tests run on.
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/direct"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/embed"
	"github.com/batchasync/beam-batchasync/transforms/httpcall"
)

func TestMain(m *testing.M) {
	beam.Init()
	os.Exit(m.Run())
}

func init() {
	embed.RegisterKV[string]()
	embed.RegisterCounter("words", func(text string) int { return len(strings.Fields(text)) })
	register.Function1x1(described)
	register.Function2x1(describedKV)
	register.Function1x1(failedText)
	register.Function1x2(split)
}

// described tells a vector, for passert can't compare slices of floats.
func described(v embed.Vector) string                { return fmt.Sprintf("%s %v", v.Text, v.Embedding) }
func describedKV(key string, v embed.Vector) string  { return key + ": " + described(v) }
func failedText(f batchasync.Failure[string]) string { return f.Element }
func split(s string) (string, string)                { key, text, _ := strings.Cut(s, ":"); return key, text }

// A model server has OpenAI's /v1/embeddings, a limit on a text's tokens (of one
// byte each), and one on those of a call.
type modelServer struct {
	*httptest.Server
	mu        sync.Mutex
	calls     [][]string
	at        []time.Time
	headers   []http.Header
	maxText   int
	maxTokens int
	before    func(n int, w http.ResponseWriter) (answered bool)
	change    func(answer map[string]any)
	last      call
}

type call struct {
	Model      string
	Input      []string
	Dimensions int
	Encoding   string `json:"encoding_format"`
}

// values is the embedding of a text: something that no other text of a test has.
func values(text string) []float32 {
	sum := 0
	for i, b := range []byte(text) {
		sum += (i + 1) * int(b)
	}
	return []float32{float32(len(text)), float32(sum) + 0.25, -1.5e-7}
}

func vector(text any) any { return embed.Vector{Text: text.(string), Embedding: values(text.(string))} }

func serve(t testing.TB) *modelServer {
	s := &modelServer{maxText: 8192, maxTokens: 300_000}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *modelServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var c call
	if body, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(body, &c) != nil {
		w.WriteHeader(400)
		return
	}
	s.mu.Lock()
	s.calls = append(s.calls, c.Input)
	s.last = c
	s.at = append(s.at, time.Now())
	s.headers = append(s.headers, r.Header)
	n := len(s.calls)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if s.before != nil && s.before(n, w) {
		return
	}
	total := 0
	var data []any
	for i, text := range c.Input {
		total += len(text)
		if len(text) > s.maxText {
			refuse(w, 400, fmt.Sprintf("This model's maximum context length is %d tokens, however you requested %d tokens", s.maxText, len(text)), "", nil)
			return
		}
		var embedding any = values(text)
		if c.Encoding == "base64" {
			var raw []byte
			for _, v := range values(text) {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
			}
			embedding = base64.StdEncoding.EncodeToString(raw)
		}
		data = append(data, map[string]any{"object": "embedding", "index": i, "embedding": embedding})
	}
	if total > s.maxTokens || len(c.Input) > 2048 {
		refuse(w, 400, "too many tokens a call", "", nil)
		return
	}
	slices.Reverse(data) // only the index counts
	answer := map[string]any{"object": "list", "model": c.Model, "data": data, "usage": map[string]any{"prompt_tokens": total, "total_tokens": total}}
	if s.change != nil {
		s.change(answer)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func refuse(w http.ResponseWriter, status int, message, code string, param any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": message, "type": "invalid_request_error", "param": param, "code": code}})
}

func (s *modelServer) model() *embed.Model {
	return &embed.Model{Endpoint: httpcall.Endpoint{URL: s.URL + "/v1/embeddings"}, Name: "m"}
}

func texts(n int) []batchasynctest.Element {
	elements := make([]batchasynctest.Element, n)
	for i := range elements {
		elements[i].Value = fmt.Sprintf("text %d 日本語 '; DROP TABLE \"\x01<%s", i, strings.Repeat("x", i%50))
	}
	return elements
}

func fast(opts ...batchasync.Option) []batchasync.Option {
	return append([]batchasync.Option{batchasync.Backoff(time.Microsecond, time.Microsecond), batchasync.MaxInFlight(4)}, opts...)
}

func TestTextsBecomeVectors(t *testing.T) {
	for _, encoded := range []bool{false, true} {
		s := serve(t)
		m := s.model()
		m.Base64, m.Dimensions = encoded, 3
		m.Bearer = httpcall.Secret{Env: "EMBED_TEST_KEY"}
		t.Setenv("EMBED_TEST_KEY", "sk-t0psecret")
		in := texts(1000)
		out, err := batchasynctest.NewHarness(t, batchasync.New(m, fast(batchasync.BatchSize(64))...)).Bundle(in...)
		require.NoError(t, err)
		batchasynctest.RequireExactlyOnce(t, in, out, vector)
		require.Len(t, out.Results(), 1000)
		require.Len(t, s.calls, 16)
		require.Equal(t, 3, s.last.Dimensions)
		require.Equal(t, "m", s.last.Model)
		require.Equal(t, "Bearer sk-t0psecret", s.headers[0].Get("Authorization"))
		var total int64
		for _, e := range in {
			total += int64(len(e.Value.(string)))
		}
		require.Equal(t, total, out.Counter("embed", "tokens"))
	}
}

func TestACallKeepsTheLimits(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*embed.Model)
		most   int // bytes of a call
		items  int
	}{
		"by bytes":                 {func(m *embed.Model) { m.MaxTokens = 1000 }, 1000, 256},
		"by a counter":             {func(m *embed.Model) { m.MaxTokens, m.Counter = 60, "words" }, 10_000, 10},
		"by the number":            {func(m *embed.Model) { m.MaxItems = 7 }, 100_000, 7},
		"by the number, by option": {func(m *embed.Model) { m.MaxItems = 7 }, 100_000, 7},
		"by bytes, by option":      {func(m *embed.Model) { m.MaxTokens = 1000 }, 1000, 256},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			m := s.model()
			test.change(m)
			opts := []batchasync.Option{batchasync.BatchSize(orElse(m.MaxItems, 256)), batchasync.BatchBytes(orElse(m.MaxTokens, 300_000))}
			if strings.HasSuffix(name, "by option") {
				opts = []batchasync.Option{batchasync.BatchSize(500)}
			}
			in := texts(500)
			out, err := batchasynctest.NewHarness(t, batchasync.New(m, fast(opts...)...)).Bundle(in...)
			require.NoError(t, err)
			batchasynctest.RequireExactlyOnce(t, in, out, vector)
			require.Empty(t, out.Failures())
			largest := 0
			for _, c := range s.calls {
				require.LessOrEqual(t, len(strings.Join(c, "")), test.most)
				require.LessOrEqual(t, len(c), test.items)
				largest = max(largest, len(c))
			}
			require.Greater(t, largest, test.items/30)
		})
	}
}

func orElse(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

func TestATextThatIsTooLongFailsAlone(t *testing.T) {
	long := strings.Repeat("w ", 5000)
	for name, test := range map[string]struct {
		change func(*embed.Model)
		status int
		want   string
		calls  int // with the long text
	}{
		"by the counter":                 {func(m *embed.Model) { m.Counter, m.MaxTextTokens = "words", 4000 }, 400, "the text has 5000 tokens, more than the 4000 of MaxTextTokens: split it before", 0},
		"as the server says, with a 400": {func(*embed.Model) {}, 400, "400 Bad Request: {\"error\":{\"code\":\"\",\"message\":\"This model's maximum context length is 8192 tokens, however you requested 10000 tokens\"", 7},
		"as the server says, with a 413": {func(*embed.Model) {}, 413, "413 Request Entity Too Large", 7},
		"as the server says, with a 422": {func(*embed.Model) {}, 422, "422 Unprocessable Entity", 7},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			s.before = func(n int, w http.ResponseWriter) bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				if test.status != 400 && slices.Contains(s.calls[n-1], long) {
					w.WriteHeader(test.status)
					return true
				}
				return false
			}
			m := s.model()
			test.change(m)
			in := texts(128)
			in[77].Value = long
			out, err := batchasynctest.NewHarness(t, batchasync.New(m, fast(batchasync.BatchSize(64))...)).Bundle(in...)
			require.NoError(t, err)
			batchasynctest.RequireExactlyOnce(t, in, out, vector)
			require.Len(t, out.Failures(), 1)
			f := out.Failures()[0].Value.(batchasync.Failure[string])
			require.Equal(t, long, f.Element)
			require.True(t, f.Permanent)
			require.Contains(t, f.Error, test.want)
			with := 0
			for _, c := range s.calls {
				if slices.Contains(c, long) {
					with++
				}
			}
			require.Equal(t, test.calls, with)
		})
	}
}

func TestARefusalIsHalvedUnlessItNamesAnotherParameter(t *testing.T) {
	for name, test := range map[string]struct {
		body   string
		halved bool
	}{
		"another parameter": {`{"error": {"param": "dimensions"}}`, false},
		"the input":         {`{"error": {"param": "input"}}`, true},
		"one of the inputs": {`{"error": {"param": "$.input[3]"}}`, true},
		"none":              {`{"error": {"param": null}}`, true},
		"an empty one":      {`{"error": {"param": ""}}`, true},
		"no parameter's":    {`{"error": {"param": ["dimensions"]}}`, true},
		"an odd error":      {`{"error": "too long"}`, true},
		"no JSON":           {`too long`, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			s.before = func(_ int, w http.ResponseWriter) bool {
				w.WriteHeader(400)
				_, _ = io.WriteString(w, test.body)
				return true
			}
			out, err := batchasynctest.NewHarness(t, batchasync.New(s.model(), fast()...)).Bundle(texts(8)...)
			require.NoError(t, err)
			require.Len(t, out.Failures(), 8)
			require.True(t, out.Failures()[0].Value.(batchasync.Failure[string]).Permanent)
			require.Len(t, s.calls, map[bool]int{false: 1, true: 15}[test.halved])
		})
	}
}

func TestATextAtTheLimitsIsSent(t *testing.T) {
	s := serve(t)
	s.maxText = 1 << 20
	m := s.model()
	m.Counter, m.MaxTextTokens, m.MaxTokens = "words", 5000, 4000
	// One that is more than a call may have is the server's to refuse.
	in := batchasynctest.Values("a", strings.Repeat("w ", 5000), "b")
	out, err := batchasynctest.NewHarness(t, batchasync.New(m)).Bundle(in...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, in, out, vector)
	require.Empty(t, out.Failures())
	require.Equal(t, 3+2*4, (&embed.Model{}).ResultSize(embed.Vector{Text: "日", Embedding: []float32{1, 2}}))
	require.Equal(t, 5, (&embed.Model{}).ElementSize("日"), "a token a byte, one at the begin and one at the end")
}

func TestAVectorThatPythonWritesAsNaNFailsAlone(t *testing.T) {
	for _, number := range []string{"NaN", "-Infinity"} {
		s := serve(t)
		s.before = func(n int, w http.ResponseWriter) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !slices.Contains(s.calls[n-1], "odd") {
				return false
			}
			_, _ = io.WriteString(w, `{"data": [{"index": 0, "embedding": [0.5, `+number+`]}]}`)
			return true
		}
		in := texts(20)
		in[7].Value = "odd"
		out, err := batchasynctest.NewHarness(t, batchasync.New(s.model(), fast()...)).Bundle(in...)
		require.NoError(t, err)
		batchasynctest.RequireExactlyOnce(t, in, out, vector)
		require.Len(t, out.Failures(), 1)
		require.Equal(t, "odd", out.Failures()[0].Value.(batchasync.Failure[string]).Element)
		require.Zero(t, out.Counter(batchasync.MetricsNamespace, "retries"))
	}
}

func TestAnAnswerInNoJSONIsAskedForAgain(t *testing.T) {
	s := serve(t)
	s.before = func(n int, w http.ResponseWriter) bool {
		if n > 2 {
			return false
		}
		_, _ = io.WriteString(w, "<html>one moment, please</html>")
		return true
	}
	out, err := batchasynctest.NewHarness(t, batchasync.New(s.model(), fast()...)).Bundle(texts(5)...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, texts(5), out, vector)
	require.Empty(t, out.Failures())
	require.Len(t, s.calls, 3)
}

func TestNumbersMayHaveSpacesAroundThem(t *testing.T) {
	s := serve(t)
	s.before = func(_ int, w http.ResponseWriter) bool {
		_, _ = io.WriteString(w, `{"data": [{"index": 0, "embedding": [ 0.5 , -1e-3,`+"\n"+`3 ]}]}`)
		return true
	}
	out, err := batchasynctest.NewHarness(t, batchasync.New(s.model())).Bundle(batchasynctest.Values("a")...)
	require.NoError(t, err)
	require.Equal(t, embed.Vector{Text: "a", Embedding: []float32{0.5, -1e-3, 3}}, out.Results()[0].Value)
}

func TestEmptyTextsAreNotSent(t *testing.T) {
	s := serve(t)
	in := batchasynctest.Values("a", "", "b", "")
	out, err := batchasynctest.NewHarness(t, batchasync.New(s.model())).Bundle(in...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, in, out, vector)
	require.Len(t, out.Failures(), 2)
	require.Equal(t, [][]string{{"a", "b"}}, s.calls)
	out, err = batchasynctest.NewHarness(t, batchasync.New(s.model())).Bundle(batchasynctest.Values("")...)
	require.NoError(t, err)
	require.Equal(t, "the text is empty: it has no embedding", out.Failures()[0].Value.(batchasync.Failure[string]).Error)
}

func TestWrongAnswersAreClearErrors(t *testing.T) {
	nan := base64.StdEncoding.EncodeToString([]byte{0, 0, 0xc0, 0x7f})
	item := func(index any, embedding any) map[string]any {
		return map[string]any{"index": index, "embedding": embedding}
	}
	good := []float32{1, 2, 3}
	for name, test := range map[string]struct {
		data   any
		failed map[string]string // by text; "*": each
	}{
		"a missing one":         {[]any{item(0, good), item(2, good)}, map[string]string{"b": "the server's answer has no embedding with the text's index, 1"}},
		"a doubled one":         {[]any{item(0, good), item(2, good), item(1, good), item(2, good)}, map[string]string{"c": "the server's answer has 2 embeddings with the text's index, 2"}},
		"an unknown index":      {[]any{item(0, good), item(3, good), item(1, good)}, map[string]string{"*": "embedding 1 has the index 3, but there are 3 texts"}},
		"a negative index":      {[]any{item(-1, good)}, map[string]string{"*": "embedding 0 has the index -1"}},
		"no index, and too few": {[]any{item(nil, good)}, map[string]string{"*": "1 embeddings for 3 texts, and no index"}},
		"another size":          {[]any{item(0, good), item(1, []float32{1, 2}), item(2, good)}, map[string]string{"b": "the embedding has 2 dimensions, and not the 3 of Dimensions"}},
		"null":                  {[]any{item(0, good), item(1, nil), item(2, good)}, map[string]string{"b": "the server's answer has an empty embedding for the text"}},
		"an empty one":          {[]any{item(0, good), item(1, good), item(2, []float32{})}, map[string]string{"c": "the server's answer has an empty embedding for the text"}},
		"not a number":          {[]any{item(0, nan), item(1, good), item(2, good)}, map[string]string{"a": "dimension 0 of the embedding is NaN"}},
		"too large a number":    {[]any{item(0, []any{1, 1e300, 2}), item(1, good), item(2, good)}, map[string]string{"a": "dimension 1 of the embedding is no 32-bit float"}},
		"texts for numbers":     {[]any{item(0, []any{1, "x", 2}), item(1, good), item(2, good)}, map[string]string{"a": "dimension 1 of the embedding is no 32-bit float"}},
		"no base64":             {[]any{item(0, "AAA"), item(1, "*"), item(2, good)}, map[string]string{"a": "the embedding is not the base64 of 32-bit floats", "b": "the embedding is not the base64 of 32-bit floats"}},
		"half a number":         {[]any{item(0, "AAAA"), item(1, good), item(2, "AAAAAAAAAAAAAA==")}, map[string]string{"a": "the embedding is not the base64 of 32-bit floats", "c": "the embedding is not the base64 of 32-bit floats"}},
		"infinity":              {[]any{item(0, good), item(1, base64.StdEncoding.EncodeToString([]byte{0, 0, 0x80, 0x3f, 0, 0, 0x80, 0xff, 0, 0, 0, 0})), item(2, good)}, map[string]string{"b": "dimension 1 of the embedding is -Inf"}},
		"errors that are none":  {[]any{map[string]any{"index": 0, "embedding": good, "error": nil}, map[string]any{"index": 1, "embedding": good, "error": ""}, map[string]any{"index": 2, "embedding": []float32{1}, "error": false}}, map[string]string{"c": "the embedding has 1 dimensions"}},
		"a vector of vectors":   {[]any{item(0, [][]float32{good}), item(1, good), item(2, good)}, map[string]string{"a": "dimension 0 of the embedding is no 32-bit float"}},
		"an object":             {[]any{item(0, map[string]any{}), item(1, good), item(2, good)}, map[string]string{"a": "the embedding is neither an array nor a string"}},
		"an error of one text":  {[]any{item(0, good), map[string]any{"index": 1, "error": map[string]any{"message": "flagged", "code": 400}}, item(2, good)}, map[string]string{"b": "the service refused the element: flagged"}},
		"something else":        {"oops", map[string]string{"*": "the answer is not that of /v1/embeddings: json: cannot unmarshal string"}},
		"no data":               {nil, map[string]string{"*": "the server's answer has no embedding with the text's index"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			s.change = func(answer map[string]any) { answer["data"] = test.data }
			m := s.model()
			m.Dimensions = 3
			out, err := batchasynctest.NewHarness(t, batchasync.New(m, fast()...)).Bundle(batchasynctest.Values("a", "b", "c")...)
			require.NoError(t, err)
			failed := map[string]string{}
			for _, f := range out.Failures() {
				failure := f.Value.(batchasync.Failure[string])
				failed[failure.Element] = failure.Error
				require.True(t, failure.Permanent)
			}
			for _, text := range []string{"a", "b", "c"} {
				want, ok := test.failed[text]
				if every, all := test.failed["*"]; all {
					want, ok = every, true
				}
				if ok {
					require.Contains(t, failed[text], want)
				} else {
					require.NotContains(t, failed, text)
				}
			}
			require.Equal(t, 3, len(out.Results())+len(failed))
			require.Len(t, s.calls, 1)
		})
	}
}

func TestServersThatLeaveTheIndexOutKeepTheOrder(t *testing.T) {
	s := serve(t)
	s.change = func(answer map[string]any) {
		data := answer["data"].([]any)
		slices.Reverse(data)
		for _, item := range data {
			delete(item.(map[string]any), "index")
		}
	}
	out, err := batchasynctest.NewHarness(t, batchasync.New(s.model())).Bundle(texts(20)...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, texts(20), out, vector)
	require.Empty(t, out.Failures())
}

func TestVectorsOfDifferentSizesAreNotTaken(t *testing.T) {
	s := serve(t)
	s.change = func(answer map[string]any) { answer["data"].([]any)[1].(map[string]any)["embedding"] = []float32{1} }
	out, err := batchasynctest.NewHarness(t, batchasync.New(s.model())).Bundle(texts(3)...)
	require.NoError(t, err)
	require.Len(t, out.Failures(), 3)
	require.Contains(t, out.Failures()[0].Value.(batchasync.Failure[string]).Error, "embeddings of 3 and of 1 dimensions are in one answer")
}

func TestQuotasAreObeyed(t *testing.T) {
	for name, test := range map[string]struct {
		header map[string]string
		status int
	}{
		"no requests left":                          {map[string]string{"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}, 200},
		"too few tokens left":                       {map[string]string{"x-ratelimit-remaining-tokens": "1", "x-ratelimit-reset-tokens": "0.3"}, 200},
		"a 429 with a reset":                        {map[string]string{"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}, 429},
		"a 429 with Retry-After, which comes first": {map[string]string{"Retry-After": "0.3", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1h"}, 429},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			s.before = func(n int, w http.ResponseWriter) bool {
				if n != 1 {
					return false
				}
				for key, value := range test.header {
					w.Header().Set(key, value)
				}
				if test.status != 200 {
					refuse(w, test.status, "slow down", "rate_limit_exceeded", nil)
				}
				return test.status != 200
			}
			out, err := batchasynctest.NewHarness(t, batchasync.New(s.model(), batchasync.MaxInFlight(1), batchasync.BatchSize(10), batchasync.MaxAttempts(2))).Bundle(texts(40)...)
			require.NoError(t, err)
			batchasynctest.RequireExactlyOnce(t, texts(40), out, vector)
			require.Empty(t, out.Failures())
			require.GreaterOrEqual(t, s.at[1].Sub(s.at[0]), 290*time.Millisecond)
			require.Less(t, s.at[len(s.at)-1].Sub(s.at[0]), 20*time.Second)
			require.Positive(t, out.Counter("beam-throttling-metrics", "throttling-msecs"))
		})
	}
}

func TestAQuotaIsMeasuredByTheTokensThatTheServerCounts(t *testing.T) {
	s := serve(t)
	s.change = func(answer map[string]any) { answer["usage"] = map[string]any{"prompt_tokens": 1} }
	s.before = func(_ int, w http.ResponseWriter) bool {
		w.Header().Set("x-ratelimit-remaining-tokens", "1")
		w.Header().Set("x-ratelimit-reset-tokens", "1h")
		return false
	}
	m := s.model()
	require.NoError(t, m.Setup(t.Context()))
	_, err := m.Call(t.Context(), []string{"a", "b"})
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), m.HoldUntil(), time.Minute)
	s.change = nil
	_, err = m.Call(t.Context(), []string{"a", "b"})
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(httpcall.MaxRetryAfter), m.HoldUntil(), time.Minute)
	require.NoError(t, m.Teardown(t.Context()))
}

func TestAQuotaThatIsPaidUpIsNotTriedAgain(t *testing.T) {
	s := serve(t)
	s.before = func(_ int, w http.ResponseWriter) bool {
		refuse(w, 429, "You exceeded your current quota", "insufficient_quota", nil)
		return true
	}
	out, err := batchasynctest.NewHarness(t, batchasync.New(s.model(), fast()...)).Bundle(texts(5)...)
	require.NoError(t, err)
	require.Len(t, out.Failures(), 5)
	require.Len(t, s.calls, 1)
}

func TestEqualTextsMayBeAskedForOnce(t *testing.T) {
	s := serve(t)
	in := batchasynctest.Values("a", "b", "a", "a", "b")
	out, err := batchasynctest.NewHarness(t, batchasync.New(s.model(), batchasync.Cache(100, time.Hour), batchasync.CacheBytes(1<<20))).Bundle(in...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, in, out, vector)
	require.Equal(t, [][]string{{"a", "b"}}, s.calls)
}

func TestAPipelineOfEachKind(t *testing.T) {
	s := serve(t)
	s.maxText = 10
	for _, engine := range []string{"direct", "prism"} {
		t.Run(engine, func(t *testing.T) {
			p, scope := beam.NewPipelineWithRoot()
			all := embed.ParDo(scope, s.model(), beam.Create(scope, "a", "日本"))
			passert.Equals(scope, beam.ParDo(scope, described, all), described(vector("a").(embed.Vector)), described(vector("日本").(embed.Vector)))

			some, tooLong := embed.ParDoWithFailures(scope, s.model(), beam.Create(scope, "a", "much too long", "b"))
			passert.Equals(scope, beam.ParDo(scope, described, some), described(vector("a").(embed.Vector)), described(vector("b").(embed.Vector)))
			passert.Equals(scope, beam.ParDo(scope, failedText, tooLong), "much too long")

			keyed := beam.ParDo(scope, split, beam.Create(scope, "k:a", "l:b"))
			passert.Equals(scope, beam.ParDo(scope, describedKV, embed.ParDoKV[string](scope, s.model(), keyed)),
				describedKV("k", vector("a").(embed.Vector)), describedKV("l", vector("b").(embed.Vector)))
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, err := beam.Run(ctx, engine, p)
			require.NoError(t, err)
		})
	}
}

func TestBatchesAreMadeByTheModelsLimits(t *testing.T) {
	for name, limit := range map[string]func(*embed.Model){
		"texts":  func(m *embed.Model) { m.MaxItems = 7 },
		"tokens": func(m *embed.Model) { m.MaxTokens = 60 },
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			m := s.model()
			limit(m)
			var all []string
			for i := range 50 {
				all = append(all, fmt.Sprint("text ", i))
			}
			p, scope := beam.NewPipelineWithRoot()
			embed.ParDo(scope, m, beam.CreateList(scope, all))
			result, err := beam.Run(t.Context(), "prism", p)
			require.NoError(t, err)
			require.GreaterOrEqual(t, len(s.calls), 50/7)
			for _, counter := range result.Metrics().AllMetrics().Counters() {
				require.NotEqual(t, "bisections", counter.Name(), "a batch was more than the model takes")
			}
		})
	}
}

func TestWhatIsWrongIsSaidAtConstruction(t *testing.T) {
	for want, m := range map[string]*embed.Model{
		"the model has no Name: give the model's name":  {},
		"Dimensions is -1: it must be at least 1, or 0": {Name: "m", Dimensions: -1},
		"MaxItems is -1": {Name: "m", MaxItems: -1},
		`the Counter "cl100k" is not registered; add to an init function: embed.RegisterCounter("cl100k", function)`: {Name: "m", Counter: "cl100k"},
		"MaxTextTokens is 9, but without a Counter nobody knows":                                                     {Name: "m", MaxTextTokens: 9},
		"the header \"Api-Key\" looks like a secret":                                                                 {Name: "m", Endpoint: httpcall.Endpoint{Headers: map[string]string{"Api-Key": "t0psecret"}}},
	} {
		t.Run(want, func(t *testing.T) {
			defer func() {
				text := fmt.Sprint(recover())
				require.Contains(t, text, want)
				require.NotContains(t, text, "t0psecret")
			}()
			m.URL = "https://models.example/v1/embeddings"
			_, s := beam.NewPipelineWithRoot()
			embed.ParDo(s, m, beam.Create(s, "a"))
		})
	}
}
