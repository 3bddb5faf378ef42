// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package httpcall_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/httpcall"
)

func TestMain(m *testing.M) {
	beam.Init()
	os.Exit(m.Run())
}

// A word is sent, and its Length is what the service answers.
type word struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

type length struct {
	ID string `json:"id"`
	N  int    `json:"n"`
}

// nothing is the Out of who wants to know no more than that it was taken.
type nothing struct{}

type (
	words   = httpcall.Caller[word, length]
	strs    = httpcall.Caller[string, int]
	floats  = httpcall.Caller[float64, float64]
	raws    = httpcall.Caller[word, *length]
	events  = httpcall.Caller[word, nothing]
	texts   = httpcall.Caller[string, string]
	numbers = httpcall.Caller[int, length]
)

func init() {
	batchasync.Register(&words{})
	batchasync.Register(&strs{})
	batchasync.Register(&floats{})
	batchasync.Register(&raws{})
	batchasync.Register(&events{})
	batchasync.Register(&texts{})
	batchasync.RegisterKV[string](&words{})
}

// A service is a real HTTP server, which remembers what it was asked.
type service struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
	conns    map[string]bool
}

// serve starts a server whose answers are made by answer, from the n-th request
// (from 1) and its body.
func serve(t testing.TB, answer func(n int, w http.ResponseWriter, r *http.Request, body string)) *service {
	t.Helper()
	s := &service{conns: map[string]bool{}}
	s.Server = httptest.NewServer(s.handler(t, answer))
	t.Cleanup(s.Close)
	return s
}

func (s *service) handler(t testing.TB, answer func(n int, w http.ResponseWriter, r *http.Request, body string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // it was cut off
		}
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			if body, err = io.ReadAll(z); err != nil {
				t.Error(err)
				return
			}
		}
		s.mu.Lock()
		s.requests = append(s.requests, r)
		s.bodies = append(s.bodies, string(body))
		s.conns[r.RemoteAddr] = true
		n := len(s.requests)
		s.mu.Unlock()
		answer(n, w, r, string(body))
	})
}

func (s *service) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// always answers each request with the same.
func always(status int, body string) func(int, http.ResponseWriter, *http.Request, string) {
	return func(_ int, w http.ResponseWriter, _ *http.Request, _ string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		write(w, body)
	}
}

// write answers a client that may be gone.
func write(w io.Writer, body string) { _, _ = io.WriteString(w, body) }

// measure answers each word with its length, in order.
func measure(_ int, w http.ResponseWriter, _ *http.Request, body string) {
	var batch []word
	if err := json.Unmarshal([]byte(body), &batch); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	out := make([]length, len(batch))
	for i, e := range batch {
		out[i] = length{e.ID, len(e.Text)}
	}
	encoded, err := json.Marshal(out)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	write(w, string(encoded))
}

func measured(v any) any { return length{v.(word).ID, len(v.(word).Text)} }

func someWords(n int) []batchasynctest.Element {
	elements := make([]batchasynctest.Element, n)
	for i := range elements {
		elements[i].Value = word{fmt.Sprint(i), strings.Repeat("é<", i%7)}
	}
	return elements
}

// fast are options with which a test does not wait.
func fast(opts ...batchasync.Option) []batchasync.Option {
	return append([]batchasync.Option{batchasync.Backoff(time.Microsecond, time.Microsecond), batchasync.Timeout(20 * time.Second)}, opts...)
}

func TestABatchIsOneRequest(t *testing.T) {
	s := serve(t, measure)
	h := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL, Headers: map[string]string{"X-Team": "risk", "accept": "application/json, */*;q=0.1"}}}, batchasync.BatchSize(10)))
	out, err := h.Bundle(someWords(100)...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, someWords(100), out, measured)
	require.Len(t, out.Results(), 100)
	require.Equal(t, 10, s.asked())
	keys := map[string]bool{}
	for _, r := range s.requests {
		keys[r.Header.Get("Idempotency-Key")] = true
		require.Equal(t, "application/json", r.Header.Get("Content-Type"))
		require.Equal(t, "application/json, */*;q=0.1", r.Header.Get("Accept"))
		require.Equal(t, "gzip", r.Header.Get("Accept-Encoding"))
		require.Equal(t, "risk", r.Header.Get("X-Team"))
	}
	require.Len(t, keys, 10, "a key for each batch")
	require.NotContains(t, keys, "")
	require.Contains(t, strings.Join(s.bodies, ""), `"é<é<"`, "nothing is escaped that need not be")
}

func TestTheWireFormatIsWhatTheFieldsSay(t *testing.T) {
	one := []batchasynctest.Element{{Value: word{"a", "x"}}, {Value: word{"b", "xy"}}}
	for name, test := range map[string]struct {
		caller         words
		request, reply string
	}{
		"an array": {words{}, `[{"id":"a","text":"x"},{"id":"b","text":"xy"}]`, `[{"id":"a","n":1},{"id":"b","n":2}]`},
		"an object with the array in it": {words{RequestField: "items", ResponseField: "results"},
			`{"items":[{"id":"a","text":"x"},{"id":"b","text":"xy"}]}`, `{"took":3,"results":[{"id":"a","n":1},{"id":"b","n":2}]}`},
		"an object with other members, and paths": {words{RequestField: "data.items", RequestMembers: map[string]any{"model": "m"}, ResponseField: "data.items"},
			`{"model":"m","data":{"items":[{"id":"a","text":"x"},{"id":"b","text":"xy"}]}}`, `{"data":{"items":[{"id":"a","n":1},{"id":"b","n":2}]}}`},
		"names that mean something in paths": {words{RequestField: "@items#", ResponseField: "it*ms|@x"},
			`{"@items#":[{"id":"a","text":"x"},{"id":"b","text":"xy"}]}`, `{"itms|@x":[],"it*ms|@x":[{"id":"a","n":1},{"id":"b","n":2}]}`},
		"lines":                              {words{NDJSON: true}, "{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":\"b\",\"text\":\"xy\"}\n", "{\"id\":\"a\",\"n\":1}\r\n\n{\"id\":\"b\",\"n\":2}"},
		"by id":                              {words{IDField: "id"}, `[{"id":"a","text":"x"},{"id":"b","text":"xy"}]`, `[{"id":"b","n":2},{"id":"a","n":1}]`},
		"lines by id":                        {words{NDJSON: true, IDField: "id"}, "{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":\"b\",\"text\":\"xy\"}\n", "{\"id\":\"b\",\"n\":2}\n{\"id\":\"a\",\"n\":1}\n"},
		"members that say there is no error": {words{}, `[{"id":"a","text":"x"},{"id":"b","text":"xy"}]`, `[{"id":"a","n":1,"error":null},{"id":"b","n":2,"error":""}]`},
		"a number or a list that says it":    {words{}, `[{"id":"a","text":"x"},{"id":"b","text":"xy"}]`, `[{"id":"a","n":1,"error":0},{"id":"b","n":2,"error":[]}]`},
		"false or an object that says it":    {words{}, `[{"id":"a","text":"x"},{"id":"b","text":"xy"}]`, `[{"id":"a","n":1,"error":false},{"id":"b","n":2,"error":{}}]`},
		"an error that is none":              {words{ErrorField: "-"}, `[{"id":"a","text":"x"},{"id":"b","text":"xy"}]`, `[{"id":"a","n":1,"error":"low"},{"id":"b","n":2,"error":"high"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, always(200, test.reply))
			for _, zip := range []bool{false, true} {
				test.caller.URL, test.caller.Gzip = s.URL, zip
				out, err := batchasynctest.NewHarness(t, batchasync.New(&test.caller)).Bundle(one...)
				require.NoError(t, err)
				batchasynctest.RequireExactlyOnce(t, one, out, measured)
				require.Empty(t, out.Failures())
			}
			require.Equal(t, []string{test.request, test.request}, s.bodies)
		})
	}
}

func TestElementsMayBeTheirOwnID(t *testing.T) {
	s := serve(t, always(200, `[{"id":9007199254740993,"n":2},{"id":7,"n":1}]`))
	c := &numbers{Endpoint: httpcall.Endpoint{URL: s.URL}, IDField: "id"}
	require.NoError(t, c.Setup(t.Context()))
	var out []struct{ N int }
	answers, err := (&httpcall.Caller[int64, struct{ N int }]{Endpoint: c.Endpoint, IDField: "id"}).Call(t.Context(), []int64{7, 9007199254740993, 7})
	require.NoError(t, err)
	out = answers
	require.Equal(t, []struct{ N int }{{1}, {2}, {1}}, out)
	require.Equal(t, []string{"[7,9007199254740993]"}, s.bodies, "equal elements are asked for once")
}

func TestBytesAreNumbers(t *testing.T) {
	s := serve(t, always(200, `[4,9]`))
	c := &httpcall.Caller[uint8, uint8]{Endpoint: httpcall.Endpoint{URL: s.URL}}
	require.NoError(t, c.Setup(t.Context()))
	answers, err := c.Call(t.Context(), []uint8{2, 3})
	require.NoError(t, err)
	require.Equal(t, []uint8{4, 9}, answers)
	require.Equal(t, []string{"[2,3]"}, s.bodies, "and not the base64 that encoding/json makes of []byte")
}

func TestElementsThatDifferAndShareAnIDAreSentApart(t *testing.T) {
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request, body string) { measure(n, w, r, body) })
	in := []batchasynctest.Element{
		{Value: word{"a", "x"}}, {Value: word{"a", "xy"}}, {Value: word{"b", ""}}, {Value: word{"a", "xyz"}},
		{Value: word{"b", ""}}, {Value: word{"c", "x"}}, {Value: word{"a", "xyz"}},
	}
	out, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL}, IDField: "id"})).Bundle(in...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, in, out, measured)
	require.Len(t, out.Results(), 7)
	for _, body := range s.bodies {
		require.LessOrEqual(t, strings.Count(body, `"a"`), 1, body)
	}
}

// failures maps the text of each failed word to its error.
func failures(out *batchasynctest.Outputs) map[string]batchasync.Failure[word] {
	m := map[string]batchasync.Failure[word]{}
	for _, e := range out.Failures() {
		f := e.Value.(batchasync.Failure[word])
		m[f.Element.ID] = f
	}
	return m
}

func TestAnswersThatDoNotMatchAreClearErrors(t *testing.T) {
	in := []batchasynctest.Element{{Value: word{"a", "x"}}, {Value: word{"b", "xy"}}, {Value: word{"c", "z"}}}
	for name, test := range map[string]struct {
		caller words
		reply  string
		failed map[string]string // by id; "*": each
		calls  int
	}{
		"too few":                      {words{}, `[{"n":1}]`, map[string]string{"*": "1 answers for 3 elements: without IDField it must have one for each, in the order of the elements; the answer (200, Content-Type \"application/json\") begins: [{\"n\":1}]"}, 1},
		"too many":                     {words{}, `[{},{},{},{}]`, map[string]string{"*": "4 answers for 3 elements"}, 1},
		"none":                         {words{}, `[]`, map[string]string{"*": "0 answers for 3 elements"}, 1},
		"an object":                    {words{}, `{"items":[]}`, map[string]string{"*": `the answer is no array: set ResponseField to the member that has it; the answer (200, Content-Type "application/json") begins: {"items":[]}`}, 1},
		"no such member":               {words{ResponseField: "items"}, `{"error":{"message":"the model is cold"}}`, map[string]string{"*": `no array in the member "items"`}, 1},
		"a missing id":                 {words{IDField: "id"}, `[{"id":"c","n":1},{"id":"a","n":1}]`, map[string]string{"b": `the service's answer has no item with the id "b"`}, 1},
		"a doubled id":                 {words{IDField: "id"}, `[{"id":"c","n":1},{"id":"a","n":1},{"id":"b","n":2},{"id":"c","n":1}]`, map[string]string{"c": `the service's answer has 2 items with the id "c": it is not known which one counts`}, 1},
		"an unknown id":                {words{IDField: "id"}, `[{"id":"c","n":1},{"id":"a","n":1},{"id":"B","n":2}]`, map[string]string{"*": `answer 2 has the id "B", which no element of the call has`}, 1},
		"an id of other type":          {words{IDField: "id"}, `[{"id":{},"n":1}]`, map[string]string{"*": `answer 0 has something else than a string or a number in the member "id", which IDField says`}, 1},
		"no id":                        {words{IDField: "id"}, `[{"n":1}]`, map[string]string{"*": `answer 0 has no member "id", which IDField says`}, 1},
		"an id that the elements lack": {words{IDField: "key"}, `[]`, map[string]string{"*": `the element has no member "key", which IDField says`}, 0},
		"null":                         {words{}, `[{"n":1},null,{"n":3}]`, map[string]string{"b": "the service's answer for the element is null, which a httpcall_test.length can't be"}, 1},
		"an item of other type":        {words{}, `[{"id":"a","n":1},{"id":"b","n":"two"},{"id":"c","n":1}]`, map[string]string{"b": `the service's answer for the element is no httpcall_test.length: json: cannot unmarshal string into Go struct field length.n of type int: {"id":"b","n":"two"}`}, 1},
		"failed in part, by order":     {words{}, `[{"id":"a","n":1},{"error":{"status":422,"message":"too short"}},{"id":"c","n":1}]`, map[string]string{"b": "the service refused the element: too short"}, 1},
		"failed in part, by id":        {words{IDField: "id"}, `[{"id":"c","n":1},{"id":"b","status":"404","error":"gone"},{"id":"a","n":1}]`, map[string]string{"b": "the service refused the element: gone"}, 1},
		"failed, and no answer":        {words{}, `[{"id":"a","n":1},{"id":"b","n":"x","status":404,"error":"gone"},{"id":"c","n":1}]`, map[string]string{"b": "the service refused the element: gone"}, 1},
		"failed in part, in a member":  {words{ResponseField: "x", IDField: "id"}, `{"x":[{"id":"c","n":1},{"id":"b","status":404,"error":"gone"},{"id":"a","n":1}]}`, map[string]string{"b": "the service refused the element: gone"}, 1},
		"a code that is not HTTP's":    {words{}, `[{"id":"a","n":1},{"status":404,"error":{"code":1234,"message":"no"}},{"id":"c","n":1}]`, map[string]string{"b": "the service refused the element: no"}, 1},
		"an error elsewhere":           {words{ErrorField: "problem.text"}, `[{"id":"a","n":1},{"id":"b","problem":{"text":"bad"},"code":400},{"id":"c","n":1}]`, map[string]string{"b": "the service refused the element: bad"}, 1},
		"an error with an odd name":    {words{ErrorField: "err*-or"}, `[{"id":"a","n":1},{"id":"b","err*-or":"bad","code":400},{"id":"c","n":1}]`, map[string]string{"b": "the service refused the element: bad"}, 1},
		"an error whose name is written with escapes": {words{}, `[{"id":"a","n":1},{"id":"b","\u0065rror":"bad","code":400},{"id":"c","n":1}]`, map[string]string{"b": "the service refused the element: bad"}, 1},
		"a page":                      {words{}, `<html>we'll be back</html>`, map[string]string{"*": "the answer is not JSON: invalid character '<' looking for beginning of value; the answer (200, Content-Type \"application/json\") begins: <html>we'll be back</html>"}, 3},
		"nothing":                     {words{}, ``, map[string]string{"*": "the answer is not JSON: it is empty"}, 3},
		"broken off":                  {words{}, `[{"id":"a","n":1},{"id`, map[string]string{"*": "the answer is not JSON: unexpected end of JSON input"}, 3},
		"broken off behind the array": {words{ResponseField: "items"}, `{"items":[{"id":"a"},{"id":"b"},{"id":"c"}]`, map[string]string{"*": "the answer is not JSON: unexpected end of JSON input"}, 3},
		"a broken line":               {words{NDJSON: true}, "{\"n\":1}\n{\"n\"", map[string]string{"*": "the answer is not JSON"}, 3},
		"nested too deeply":           {words{ResponseField: "a"}, strings.Repeat("[", 1<<20), map[string]string{"*": "the answer is not JSON: invalid character '[' exceeded max depth"}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, always(200, test.reply))
			test.caller.URL = s.URL
			out, err := batchasynctest.NewHarness(t, batchasync.New(&test.caller, fast(batchasync.MaxAttempts(3))...)).Bundle(in...)
			require.NoError(t, err)
			failed := failures(out)
			for _, id := range []string{"a", "b", "c"} {
				want, ok := test.failed[id]
				if every, all := test.failed["*"]; all {
					want, ok = every, true
				}
				if ok {
					require.Contains(t, failed[id].Error, want)
					require.Equal(t, test.calls < 2, failed[id].Permanent)
				} else {
					require.NotContains(t, failed, id)
				}
			}
			require.Equal(t, 3, len(out.Results())+len(failed))
			require.Equal(t, test.calls, s.asked())
		})
	}
}

func TestAnElementThatIsTriedAgainIsSentAlone(t *testing.T) {
	for _, failure := range []string{`"busy"`, `{"status":503}`, `{"code":429,"message":"slow down"}`} {
		testAnElementThatIsTriedAgain(t, failure)
	}
}

func testAnElementThatIsTriedAgain(t *testing.T, failure string) {
	s := serve(t, func(n int, w http.ResponseWriter, _ *http.Request, _ string) {
		if n == 1 {
			write(w, `[{"id":"0"},{"error":`+failure+`},{"id":"2","n":4}]`)
			return
		}
		write(w, `[{"id":"1","n":3}]`)
	})
	out, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL}}, fast()...)).Bundle(someWords(3)...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, someWords(3), out, func(v any) any {
		l := measured(v).(length)
		l.N = []int{0, 3, 4}[slices.Index([]string{"0", "1", "2"}, l.ID)]
		return l
	})
	require.Equal(t, []string{`[{"id":"0","text":""},{"id":"1","text":"é<"},{"id":"2","text":"é<é<"}]`, `[{"id":"1","text":"é<"}]`}, s.bodies)
	require.NotEqual(t, s.requests[0].Header.Get("Idempotency-Key"), s.requests[1].Header.Get("Idempotency-Key"), "what is sent is another request")
}

func TestWhatCanNotBeWrittenAsJSONFailsAlone(t *testing.T) {
	s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request, body string) { write(w, body) })
	in := batchasynctest.Values(1.5, math.NaN(), 2, math.Inf(1))
	out, err := batchasynctest.NewHarness(t, batchasync.New(&floats{Endpoint: httpcall.Endpoint{URL: s.URL}}, batchasync.BatchBytes(1000), batchasync.Dedup())).Bundle(in...)
	require.NoError(t, err)
	require.Len(t, out.Results(), 2)
	require.Len(t, out.Failures(), 2)
	require.Equal(t, []string{"[1.5,2]"}, s.bodies)
	require.Contains(t, out.Failures()[0].Value.(batchasync.Failure[float64]).Error, "the element can't be written as JSON: json: unsupported value: NaN")
	out, err = batchasynctest.NewHarness(t, batchasync.New(&floats{Endpoint: httpcall.Endpoint{URL: s.URL}})).Bundle(batchasynctest.Values(math.NaN())...)
	require.NoError(t, err)
	require.Len(t, out.Failures(), 1)
	require.Equal(t, 1, s.asked(), "nothing is no request")
}

func TestNullIsAnAnswerWhereItCanBeOne(t *testing.T) {
	s := serve(t, always(200, `[null,{"id":"1","n":3}]`))
	out, err := batchasynctest.NewHarness(t, batchasync.New(&raws{Endpoint: httpcall.Endpoint{URL: s.URL}})).Bundle(someWords(2)...)
	require.NoError(t, err)
	require.Len(t, out.Results(), 2)
	require.Nil(t, out.Results()[0].Value)
	require.Equal(t, &length{"1", 3}, out.Results()[1].Value)
}

func TestNoAnswerIsFineWhereNoneIsWanted(t *testing.T) {
	s := serve(t, always(204, ""))
	out, err := batchasynctest.NewHarness(t, batchasync.New(&events{Endpoint: httpcall.Endpoint{URL: s.URL}})).Bundle(someWords(3)...)
	require.NoError(t, err)
	require.Len(t, out.Results(), 3)
}

func TestHostileTextArrivesAsItIs(t *testing.T) {
	s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request, body string) { write(w, body) })
	in := batchasynctest.Values("'; DROP TABLE users; --", "\"}],\"x\":[{", "日本語 \U0001F9E8", "\x00\x1b[31m\r\nX: y", "</script>&\u2028", strings.Repeat("long ", 100_000), "", "null", "[1]")
	for _, c := range []*texts{{}, {NDJSON: true}, {RequestField: "in", ResponseField: "in"}, {IDField: "id"}, {Endpoint: httpcall.Endpoint{Gzip: true}}} {
		c.URL = s.URL
		out, err := batchasynctest.NewHarness(t, batchasync.New(c)).Bundle(in...)
		require.NoError(t, err)
		batchasynctest.RequireExactlyOnce(t, in, out, func(v any) any { return v })
		require.Empty(t, out.Failures())
	}
}

func TestEachStatusIsTreatedAsItSays(t *testing.T) {
	for status, calls := range map[int]int{
		300: 1, 301: 1, 304: 1, 400: 1, 401: 1, 403: 1, 404: 1, 405: 1, 409: 1, 410: 1, 415: 1, 422: 1, 451: 1, 499: 1,
		408: 3, 425: 3, 429: 3, 500: 3, 501: 3, 502: 3, 503: 3, 504: 3, 529: 3, 599: 3,
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := serve(t, always(status, `{"message": "no \u0000"}`+"\n\tX"))
			h := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL + "/v1?q=1"}}, fast(batchasync.MaxAttempts(3), batchasync.FailBundle())...))
			_, err := h.Bundle(someWords(4)...)
			call, ok := errors.AsType[*batchasync.CallError](err)
			require.True(t, ok)
			require.Equal(t, calls == 1, call.Permanent)
			answer, ok := errors.AsType[*httpcall.StatusError](err)
			require.True(t, ok)
			require.Equal(t, status, answer.Status)
			require.Equal(t, s.URL+"/v1", answer.URL)
			require.Contains(t, answer.Error(), fmt.Sprintf("POST %s/v1: %d ", s.URL, status))
			if status != 304 { // has no body
				require.Contains(t, answer.Error(), `{"message": "no \u0000"} X`)
			}
			require.Equal(t, calls, s.asked())
			for _, r := range s.requests {
				require.Equal(t, s.requests[0].Header.Get("Idempotency-Key"), r.Header.Get("Idempotency-Key"), "each attempt has the same key")
			}
		})
	}
}

func TestA409OfARepeatIsTriedAgain(t *testing.T) {
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
		switch n {
		case 1:
			w.WriteHeader(504)
		case 2:
			w.WriteHeader(409)
		default:
			measure(n, w, r, body)
		}
	})
	out, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL}}, fast()...)).Bundle(someWords(4)...)
	require.NoError(t, err)
	require.Len(t, out.Results(), 4)
}

func TestA413HalvesTheBatchAndEachElementIsTakenOnce(t *testing.T) {
	var mu sync.Mutex
	taken := map[string]int{}
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
		var batch []word
		if json.Unmarshal([]byte(body), &batch) != nil || len(batch) > 7 || strings.Contains(body, `"77"`) {
			w.WriteHeader(413)
			return
		}
		mu.Lock()
		for _, e := range batch {
			taken[e.ID]++
		}
		mu.Unlock()
		measure(n, w, r, body)
	})
	in := someWords(500)
	out, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL}}, batchasync.BatchSize(50))).Bundle(in...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, in, out, measured)
	require.Len(t, out.Failures(), 1)
	require.Contains(t, failures(out)["77"].Error, "413 Request Entity Too Large")
	require.Len(t, taken, 499)
	for id, n := range taken {
		require.Equal(t, 1, n, id)
	}
	require.GreaterOrEqual(t, s.asked(), 150, "10 × (1 + 2 + 4 + 8)")
}

func TestAnAnswerInAnEncodingThatNobodyAskedForIsRefused(t *testing.T) {
	for encoding, taken := range map[string]bool{"identity": true, "br": false} {
		s := serve(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
			w.Header().Set("Content-Encoding", encoding)
			measure(n, w, r, body)
		})
		_, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL}}, fast(batchasync.FailBundle())...)).Bundle(someWords(3)...)
		if taken {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, `the answer is compressed as "br", which it was not asked for`)
		require.ErrorContains(t, err, "after 1 attempt")
	}
}

func TestAnErrorOfTheConnectionShowsNoQuery(t *testing.T) {
	s := serve(t, measure)
	s.Close()
	_, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL + "/v1?tenant=private"}}, fast(batchasync.FailBundle())...)).Bundle(someWords(3)...)
	require.ErrorContains(t, err, "POST "+s.URL+"/v1: dial tcp")
	require.NotContains(t, err.Error(), "private")
	require.ErrorContains(t, err, "after 4 attempts")
}

func TestAnAnswerMayHaveAsManyBytesAsItsMost(t *testing.T) {
	const answer = `["a"]`
	s := serve(t, always(200, answer))
	for most, taken := range map[int64]bool{int64(len(answer)): true, int64(len(answer)) - 1: false} {
		c := &texts{Endpoint: httpcall.Endpoint{URL: s.URL, MaxAnswerBytes: most}}
		_, err := batchasynctest.NewHarness(t, batchasync.New(c, batchasync.FailBundle())).Bundle(batchasynctest.Values("a")...)
		require.Equal(t, taken, err == nil, "%d: %v", most, err)
	}
}

func TestA413TellsTheBatchSize(t *testing.T) {
	var refused atomic.Int64
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
		if strings.Count(body, `"id"`) > 7 {
			refused.Add(1)
			w.WriteHeader(413)
			return
		}
		measure(n, w, r, body)
	})
	out, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL}},
		batchasync.AdaptiveBatchSize(1, 50, time.Second), batchasync.MaxInFlight(1))).Bundle(someWords(2000)...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, someWords(2000), out, measured)
	require.Less(t, refused.Load(), int64(40), "and not 7 times for each 50")
	t.Log(refused.Load())
}

func TestAnAnswerThatIsTooLargeHalvesTheBatch(t *testing.T) {
	for name, zip := range map[string]bool{"plain": false, "compressed": true} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request, body string) {
				reply := strings.ReplaceAll(body, `"x"`, `"`+strings.Repeat("x", 1000)+`"`)
				if strings.Contains(body, "endless") {
					reply = `["` + strings.Repeat(" ", 10_000_000)
				}
				if !zip {
					write(w, reply)
					return
				}
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				write(z, reply)
				_ = z.Close()
			})
			c := &texts{Endpoint: httpcall.Endpoint{URL: s.URL, MaxAnswerBytes: 4096}}
			out, err := batchasynctest.NewHarness(t, batchasync.New(c)).Bundle(batchasynctest.Values("x", "x", "x", "x", "x", "endless", "x", "x", "x", "x")...)
			require.NoError(t, err)
			require.Len(t, out.Results(), 9)
			require.Len(t, out.Failures(), 1)
			require.Equal(t, "POST "+s.URL+": the answer has more than the 4096 bytes of MaxAnswerBytes: ask for fewer elements a call (BatchSize), or raise it",
				out.Failures()[0].Value.(batchasync.Failure[string]).Error)
		})
	}
}

func certificate(t *testing.T, s *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	return file
}

func TestHTTP2(t *testing.T) {
	s := &service{conns: map[string]bool{}}
	s.Server = httptest.NewUnstartedServer(s.handler(t, measure))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = discard
	s.StartTLS()
	t.Cleanup(s.Close)
	in := someWords(2000)
	c := &words{Endpoint: httpcall.Endpoint{URL: s.URL, CAFile: certificate(t, s.Server), Bearer: httpcall.Secret{Env: "HTTPCALL_TEST_TOKEN"}, Gzip: true}}
	t.Setenv("HTTPCALL_TEST_TOKEN", "t0p-secret")
	out, err := batchasynctest.NewHarness(t, batchasync.New(c, batchasync.BatchSize(10), batchasync.MaxInFlight(20))).Bundle(in...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, in, out, measured)
	require.Empty(t, out.Failures())
	require.Equal(t, 200, s.asked())
	for _, r := range s.requests {
		require.Equal(t, "HTTP/2.0", r.Proto)
		require.Equal(t, "Bearer t0p-secret", r.Header.Get("Authorization"))
	}
	require.LessOrEqual(t, len(s.conns), 2, "the calls share a connection")

	untrusting := &words{Endpoint: httpcall.Endpoint{URL: s.URL}}
	_, err = batchasynctest.NewHarness(t, batchasync.New(untrusting, fast(batchasync.FailBundle())...)).Bundle(in...)
	require.ErrorContains(t, err, "set CAFile if the service's certificate is signed by an authority of your own")
	require.ErrorContains(t, err, "after 1 attempt")
}

func TestTheConnectionsAreThoseOfTheCallsInFlight(t *testing.T) {
	s := serve(t, measure)
	in := someWords(3000)
	out, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL}}, batchasync.BatchSize(10), batchasync.MaxInFlight(16))).Bundle(in...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, in, out, measured)
	require.Equal(t, 300, s.asked())
	require.LessOrEqual(t, len(s.conns), 2*16, "with Go's default there are more than 100")
	t.Log(len(s.conns), "connections")
}

// discard takes what a server logs about clients that a test makes fail.
var discard = log.New(io.Discard, "", 0)

func TestNothingIsLeftAfterTeardown(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
		if n%2 == 0 {
			<-r.Context().Done() // longer than its timeout
			return
		}
		measure(n, w, r, body)
	})
	h := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL}}, fast(batchasync.BatchSize(10), batchasync.MaxInFlight(4), batchasync.Timeout(100*time.Millisecond), batchasync.MaxAttempts(100))...))
	out, err := h.Bundle(someWords(200)...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, someWords(200), out, measured)
	require.NoError(t, h.Teardown())
	s.Close()
	require.NoError(t, goleak.Find(before))
}
