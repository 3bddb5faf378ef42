// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package httpcall_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/runtime/graphx"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	//lint:ignore SA1019 Prism is to replace it, but it is still what many tests run on.
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/direct"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/testing/passert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
	"github.com/batchasync/beam-batchasync/transforms/httpcall"
)

// cut answers one request in three as it should, and breaks the others off.
func cut(t *testing.T, how func(n int, w http.ResponseWriter, conn func() net.Conn) bool) *service {
	return serve(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
		if n%3 != 0 && how(n, w, func() net.Conn {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return nil
			}
			return conn
		}) {
			return
		}
		measure(n, w, r, body)
	})
}

func TestFaultsOfTheConnectionAreTriedAgain(t *testing.T) {
	for name, how := range map[string]func(n int, w http.ResponseWriter, conn func() net.Conn) bool{
		"reset": func(_ int, _ http.ResponseWriter, conn func() net.Conn) bool {
			c := conn()
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
			return true
		},
		"closed without an answer": func(_ int, _ http.ResponseWriter, conn func() net.Conn) bool {
			_ = conn().Close()
			return true
		},
		"a body that breaks off": func(_ int, w http.ResponseWriter, _ func() net.Conn) bool {
			w.Header().Set("Content-Length", "1000")
			write(w, `[{"id":"0","n":0}`)
			return true
		},
		"chunks that break off": func(_ int, w http.ResponseWriter, conn func() net.Conn) bool {
			c := conn()
			write(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n")
			_ = c.Close()
			return true
		},
		"a compressed body that breaks off": func(_ int, w http.ResponseWriter, _ func() net.Conn) bool {
			w.Header().Set("Content-Encoding", "gzip")
			write(w, "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x8a")
			return true
		},
		"no HTTP": func(_ int, _ http.ResponseWriter, conn func() net.Conn) bool {
			c := conn()
			write(c, "220 mail.example.com ESMTP t0p-secret\r\n")
			_ = c.Close()
			return true
		},
		"a page in the place of JSON": func(_ int, w http.ResponseWriter, _ func() net.Conn) bool {
			w.Header().Set("Content-Type", "text/html")
			write(w, "<html>one moment, please</html>")
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := cut(t, how)
			s.Config.ErrorLog = discard
			in := someWords(200)
			out, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL}},
				fast(batchasync.BatchSize(10), batchasync.MaxInFlight(4), batchasync.MaxAttempts(100))...)).Bundle(in...)
			require.NoError(t, err)
			batchasynctest.RequireExactlyOnce(t, in, out, measured)
			require.Empty(t, out.Failures())
			require.Greater(t, s.asked(), 20)
		})
	}
}

func TestASlowAnswerIsTriedAgain(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
		if n == 1 {
			select {
			case <-release:
			case <-r.Context().Done(): // the client gave it up
			}
			return
		}
		if n < 4 { // the header is quick, the body is not
			w.WriteHeader([]int{2: 200, 3: 400}[n])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		measure(n, w, r, body)
	})
	defer close(release)
	out, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL}}, fast(batchasync.Timeout(200*time.Millisecond))...)).Bundle(someWords(5)...)
	require.NoError(t, err)
	batchasynctest.RequireExactlyOnce(t, someWords(5), out, measured)
	require.Equal(t, int64(3), out.Counter("batchasync", "timeouts"))
	require.Equal(t, 4, s.asked())
}

// A stoppable server stops, and starts at the same address again.
type stoppable struct {
	address string
	handler http.Handler
	server  *http.Server
	ended   chan struct{}
}

func (s *stoppable) start(t *testing.T) {
	listener, err := net.Listen("tcp", s.address)
	require.NoError(t, err)
	s.address = listener.Addr().String()
	s.server, s.ended = &http.Server{Handler: s.handler, ErrorLog: discard}, make(chan struct{})
	go func() {
		defer close(s.ended)
		_ = s.server.Serve(listener)
	}()
}

func (s *stoppable) stop(t *testing.T) {
	require.NoError(t, s.server.Close())
	<-s.ended
}

var (
	engines = []string{"direct", "prism"}
)

func init() {
	register.Function1x1(toWord)
	register.Function1x1(idOf)
	register.Function2x1(keyed)
	register.Function1x2(byKey)
	register.Function1x1(failedID)
}

func toWord(i int) word                          { return word{fmt.Sprint(i), strings.Repeat("日", i%5)} }
func idOf(l length) string                       { return l.ID }
func keyed(key string, l length) string          { return key + "=" + l.ID }
func byKey(w word) (string, word)                { return "k" + w.ID, w }
func failedID(f batchasync.Failure[word]) string { return f.Element.ID }
func upTo(n int) (numbers []int, ids []any) {
	for i := range n {
		numbers, ids = append(numbers, i), append(ids, fmt.Sprint(i))
	}
	return numbers, ids
}

// run runs a pipeline, but no longer than a minute.
func run(t *testing.T, engine string, p *beam.Pipeline) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := beam.Run(ctx, engine, p)
	return err
}

func TestAPipelineOutlivesItsServer(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			s := &stoppable{address: "127.0.0.1:0"}
			half, again := make(chan struct{}), make(chan struct{})
			var asked atomic.Int64
			inner := (&service{conns: map[string]bool{}}).handler(t, measure)
			s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) == 20 {
					close(half)
				}
				inner.ServeHTTP(w, r)
			})
			s.start(t)
			url := "http://" + s.address
			go func() {
				defer close(again)
				<-half
				s.stop(t)
				s.start(t)
			}()
			numbers, ids := upTo(5000)
			p, scope := beam.NewPipelineWithRoot()
			in := beam.ParDo(scope, toWord, beam.CreateList(scope, numbers))
			answers := batchasync.ParDo(scope, &words{Endpoint: httpcall.Endpoint{URL: url}, IDField: "id"}, in,
				batchasync.MaxInFlight(4), batchasync.MaxAttempts(50), batchasync.BatchSize(50), batchasync.Backoff(time.Millisecond, 50*time.Millisecond))
			passert.Equals(scope, beam.ParDo(scope, idOf, answers), ids...)
			require.NoError(t, run(t, engine, p))
			<-again
			s.stop(t)
		})
	}
}

func TestPipelinesWithFailuresAndKeys(t *testing.T) {
	s := serve(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
		if strings.Contains(body, `"13"`) {
			w.WriteHeader(413)
			return
		}
		measure(n, w, r, body)
	})
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			numbers, ids := upTo(100)
			p, scope := beam.NewPipelineWithRoot()
			in := beam.ParDo(scope, toWord, beam.CreateList(scope, numbers))
			answers, failed := batchasync.ParDoWithFailures(scope, &words{Endpoint: httpcall.Endpoint{URL: s.URL}}, in)
			passert.Equals(scope, beam.ParDo(scope, idOf, answers), append(append([]any{}, ids[:13]...), ids[14:]...)...)
			passert.Equals(scope, beam.ParDo(scope, failedID, failed), "13")

			byKeys := batchasync.ParDoKV[string](scope, &words{Endpoint: httpcall.Endpoint{URL: s.URL}},
				beam.ParDo(scope, byKey, beam.ParDo(scope, toWord, beam.Create(scope, 1, 2))))
			passert.Equals(scope, beam.ParDo(scope, keyed, byKeys), "k1=1", "k2=2")
			require.NoError(t, run(t, engine, p))
		})
	}
}

const token = "t0p-s3cret/\"token"

func TestSecretsAreInNoErrorAndNotInThePipeline(t *testing.T) {
	file := filepath.Join(os.TempDir(), "httpcall-test")
	t.Cleanup(func() { require.NoError(t, os.Remove(file)) })
	require.NoError(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
	t.Setenv("HTTPCALL_TEST", token)
	for name, secret := range map[string]httpcall.Secret{
		"an environment variable": {Env: "HTTPCALL_TEST"},
		"a file":                  {File: file},
		"a function":              {Func: "test"},
	} {
		t.Run(name, func(t *testing.T) {
			// A service that quotes all that it got, and breaks off in the
			// middle of the secret.
			s := serve(t, func(n int, w http.ResponseWriter, r *http.Request, _ string) {
				auth := r.Header.Get("Authorization")
				w.Header().Set("Location", "https://elsewhere.example/"+r.Header.Get("X-Api-Key"))
				w.Header().Set("Content-Type", r.Header.Get("X-Api-Key"))
				w.WriteHeader([]int{200, 400, 401, 302, 429}[n%5])
				for range 400 {
					write(w, auth+" x ")
				}
				write(w, auth)
			})
			c := &words{Endpoint: httpcall.Endpoint{URL: s.URL, Bearer: secret, SecretHeaders: map[string]httpcall.Secret{"X-Api-Key": secret}}}
			out, err := batchasynctest.NewHarness(t, batchasync.New(c, fast(batchasync.BatchSize(1), batchasync.MaxAttempts(2))...)).Bundle(someWords(10)...)
			require.NoError(t, err)
			require.Len(t, out.Failures(), 10)
			for _, f := range out.Failures() {
				text := f.Value.(batchasync.Failure[word]).Error
				require.NotContains(t, text, "t0p")
				require.NotContains(t, text, "s3cret")
				require.NotContains(t, text, "oken")
				require.Less(t, len(text), 800)
			}
			require.Equal(t, "Bearer "+token, s.requests[0].Header.Get("Authorization"))

			p, scope := beam.NewPipelineWithRoot()
			batchasync.ParDo(scope, c, beam.ParDo(scope, toWord, beam.Create(scope, 1)))
			edges, _, err := p.Build()
			require.NoError(t, err)
			env, err := graphx.CreateEnvironment(context.Background(), "beam:env:external:v1", func(context.Context) string { return "localhost:1" })
			require.NoError(t, err)
			pipeline, err := graphx.Marshal(edges, &graphx.Options{Environment: env})
			require.NoError(t, err)
			encoded, err := proto.Marshal(pipeline)
			require.NoError(t, err)
			graph := decodeAll(string(encoded))
			require.Contains(t, graph, strings.TrimPrefix(s.URL, "http://"), "this is the graph with the caller's fields")
			require.NotContains(t, graph, "s3cret")
		})
	}
}

func TestASecretThatTheBeginningOfAnAnswerBreaksOffIsHidden(t *testing.T) {
	t.Setenv("HTTPCALL_TEST", token)
	for _, before := range []int{0, 1, 8, len(token)} {
		s := serve(t, always(400, strings.Repeat(".", 8<<10-before)+token+"..."))
		c := &words{Endpoint: httpcall.Endpoint{URL: s.URL, Bearer: httpcall.Secret{Env: "HTTPCALL_TEST"}}}
		_, err := batchasynctest.NewHarness(t, batchasync.New(c, batchasync.FailBundle())).Bundle(someWords(1)...)
		answer, ok := errors.AsType[*httpcall.StatusError](err)
		require.True(t, ok)
		require.Empty(t, strings.TrimLeft(answer.Body, "."))
	}
}

func TestAnErrorIsOneLineOfValidText(t *testing.T) {
	s := serve(t, always(400, "\xffno\x00\x1b[31m\x7f\nway\u0085\xc3"))
	_, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL}}, batchasync.FailBundle())).Bundle(someWords(1)...)
	require.ErrorContains(t, err, "400 Bad Request: \uFFFDno [31m way \uFFFD")
}

func TestASecretIsHiddenInEachFormThatAServiceMayQuoteItIn(t *testing.T) {
	const token = `a/b"c\d<e>&f ghi'+`
	t.Setenv("HTTPCALL_TEST", token)
	encoded, err := json.Marshal(token)
	require.NoError(t, err)
	for name, quoted := range map[string]string{
		"as it is":              token,
		"in a query":            url.QueryEscape(token),
		"in a path":             url.PathEscape(token),
		"in a page":             html.EscapeString(token),
		"in JSON":               string(encoded),
		"in JSON for people":    strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(token),
		"in JSON of PHP":        strings.NewReplacer(`\`, `\\`, `"`, `\"`, "/", `\/`).Replace(token),
		"without what it is of": strings.TrimPrefix(token, `a/b"c\d<e>&f `), // Authorization's scheme
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, always(400, "got <<"+quoted+">>"))
			c := &words{Endpoint: httpcall.Endpoint{URL: s.URL, SecretHeaders: map[string]httpcall.Secret{"X-Api-Key": {Env: "HTTPCALL_TEST"}}}}
			_, err := batchasynctest.NewHarness(t, batchasync.New(c, batchasync.FailBundle())).Bundle(someWords(1)...)
			require.ErrorContains(t, err, "[secret]")
			require.NotContains(t, err.Error(), strings.Trim(quoted, `"`))
		})
	}
}

func init() {
	httpcall.RegisterSecret("empty", func(context.Context) (string, error) { return " \n", nil })
	httpcall.RegisterSecret("test", func(context.Context) (string, error) { return token, nil })
}

func TestAMissingSecretFailsTheBundleAtOnce(t *testing.T) {
	s := serve(t, measure)
	for want, secret := range map[string]httpcall.Secret{
		"a secret, from the environment variable HTTPCALL_TEST_UNSET: it is empty on this worker, or not set": {Env: "HTTPCALL_TEST_UNSET"},
		"a secret, from the file /nowhere/token: open /nowhere/token: no such file or directory":              {File: "/nowhere/token"},
		"a secret, from the function registered as empty: it is empty on this worker":                         {Func: "empty"},
		"holds a secret that no HTTP header can hold":                                                         {Env: "HTTPCALL_TEST_TOKEN"},
	} {
		t.Setenv("HTTPCALL_TEST_TOKEN", "t0p\nsecret")
		h := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL, Bearer: secret}}))
		_, err := h.Bundle(someWords(5)...)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "t0p")
	}
	require.Zero(t, s.asked())
}

func TestATokenInAFileIsReadAnew(t *testing.T) {
	file := t.TempDir() + "/token"
	s := serve(t, measure)
	h := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL, Bearer: httpcall.Secret{File: file}}}))
	for i := range 3 {
		require.NoError(t, os.WriteFile(file, fmt.Append(nil, "token-", i, "\r\n"), 0o600))
		_, err := h.Bundle(someWords(5)...)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint("Bearer token-", i), s.requests[i].Header.Get("Authorization"))
	}
}

func TestRedirectsTakeNothingElsewhere(t *testing.T) {
	t.Setenv("HTTPCALL_TEST_TOKEN", "t0p-secret")
	elsewhere := serve(t, measure)
	for status, followed := range map[int]bool{301: false, 302: false, 303: false, 307: true, 308: true} {
		for name, target := range map[string]string{"the same host": "/moved", "another host": elsewhere.URL + "/x?sig=1", "another scheme": "https://HOST/moved", "a host that has the secret": "https://t0p-secret.example"} {
			t.Run(fmt.Sprint(status, " to ", name), func(t *testing.T) {
				s := serve(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
					if r.URL.Path != "/moved" {
						http.Redirect(w, r, strings.Replace(target, "HOST", r.Host, 1), status)
						return
					}
					measure(n, w, r, body)
				})
				h := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: s.URL, Bearer: httpcall.Secret{Env: "HTTPCALL_TEST_TOKEN"}}}, fast(batchasync.FailBundle())...))
				out, err := h.Bundle(someWords(5)...)
				if followed && name == "the same host" {
					require.NoError(t, err)
					batchasynctest.RequireExactlyOnce(t, someWords(5), out, measured)
					require.Equal(t, http.MethodPost, s.requests[1].Method)
					require.Equal(t, "Bearer t0p-secret", s.requests[1].Header.Get("Authorization"))
					return
				}
				require.ErrorContains(t, err, "is not followed, so that nothing is sent to a host, or in a way, that you have not chosen")
				require.ErrorContains(t, err, "after 1 attempt")
				require.NotContains(t, err.Error(), "sig=1")
				require.NotContains(t, err.Error(), "t0p-secret")
				require.Equal(t, 1, s.asked())
			})
		}
	}
	require.Zero(t, elsewhere.asked())
	circle := serve(t, func(_ int, w http.ResponseWriter, r *http.Request, _ string) {
		http.Redirect(w, r, "/again", http.StatusTemporaryRedirect)
	})
	_, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: httpcall.Endpoint{URL: circle.URL}}, batchasync.FailBundle())).Bundle(someWords(1)...)
	require.ErrorContains(t, err, "307")
	require.Equal(t, 6, circle.asked())
}

func TestWhatIsWrongIsSaidAtConstruction(t *testing.T) {
	for want, c := range map[string]*words{
		`URL is "://": it must begin with https://, or http://, and a host`:                   {},
		`URL is "ftp://x/y": it must begin`:                                                   {Endpoint: httpcall.Endpoint{URL: "ftp://x/y"}},
		"URL holds a user or a password, which would be a part of the pipeline's description": {Endpoint: httpcall.Endpoint{URL: "https://me:t0psecret@x/y"}},
		"URL can't be parsed (it is not shown here, for it may hold a secret)":                {Endpoint: httpcall.Endpoint{URL: "https://me:t0psecret%@x/\x00"}},
		`the parameter "api_key" in URL looks like a secret`:                                  {Endpoint: httpcall.Endpoint{URL: "https://x/?api_key=t0psecret"}},
		`the parameter "user_pass" in URL looks like a secret`:                                {Endpoint: httpcall.Endpoint{URL: "https://x/?user_pass=t0psecret"}},
		`the parameter "sig" in URL looks like a secret`:                                      {Endpoint: httpcall.Endpoint{URL: "https://x/?sv=1&sig=t0psecret"}},
		"a part behind #": {Endpoint: httpcall.Endpoint{URL: "https://x/#y"}},
		`the header "authorization" looks like a secret`:                      {Endpoint: httpcall.Endpoint{URL: "https://x", Headers: map[string]string{"authorization": "t0psecret"}}},
		`the header "X-Api-Key" looks like a secret`:                          {Endpoint: httpcall.Endpoint{URL: "https://x", Headers: map[string]string{"X-Api-Key": "t0psecret"}}},
		`the header "X-Auth-Token" looks like a secret`:                       {Endpoint: httpcall.Endpoint{URL: "https://x", Headers: map[string]string{"X-Auth-Token": "t0psecret"}}},
		`the header "Cookie" looks like a secret`:                             {Endpoint: httpcall.Endpoint{URL: "https://x", Headers: map[string]string{"Cookie": "t0psecret"}}},
		`the header "X-Who" looks like a secret`:                              {Endpoint: httpcall.Endpoint{URL: "https://x", Headers: map[string]string{"X-Who": "Bearer t0psecret"}}},
		`the header "Idempotency-Key" is set by httpcall`:                     {Endpoint: httpcall.Endpoint{URL: "https://x", Headers: map[string]string{"Idempotency-Key": "1"}}},
		`the header "a b", or its value, is none that HTTP can send`:          {Endpoint: httpcall.Endpoint{URL: "https://x", Headers: map[string]string{"a b": "1"}}},
		`the header "A", or its value, is none that HTTP can send`:            {Endpoint: httpcall.Endpoint{URL: "https://x", Headers: map[string]string{"A": "1\r\nB: 2"}}},
		"Bearer: the value of Env is not the name of an environment variable": {Endpoint: httpcall.Endpoint{URL: "https://x", Bearer: httpcall.Secret{Env: "sk-t0psecret"}}},
		"Bearer: the value of Func is not the name of a registered function":  {Endpoint: httpcall.Endpoint{URL: "https://x", Bearer: httpcall.Secret{Func: "t0psecret"}}},
		"Bearer: 2 of Env, File and Func are set: set one":                    {Endpoint: httpcall.Endpoint{URL: "https://x", Bearer: httpcall.Secret{Env: "A", File: "b"}}},
		`SecretHeaders["X-Key"]: 0 of Env, File and Func are set`:             {Endpoint: httpcall.Endpoint{URL: "https://x", SecretHeaders: map[string]httpcall.Secret{"X-Key": {}}}},
		"are the same header: leave one out":                                  {Endpoint: httpcall.Endpoint{URL: "https://x", Bearer: httpcall.Secret{Env: "A"}, SecretHeaders: map[string]httpcall.Secret{"authorization": {Env: "A"}}}},
		"URL http://x would send a secret unencrypted":                        {Endpoint: httpcall.Endpoint{URL: "http://x", Bearer: httpcall.Secret{Env: "A"}}},
		`the header "idempotency-key" is set by httpcall`:                     {Endpoint: httpcall.Endpoint{URL: "https://x", Headers: map[string]string{"idempotency-key": "1"}}},
		"URL http://y would send a secret unencrypted":                        {Endpoint: httpcall.Endpoint{URL: "http://y", SecretHeaders: map[string]httpcall.Secret{"X-Key": {Env: "A"}}}},
		`the secret header "a b" is none that HTTP can send`:                  {Endpoint: httpcall.Endpoint{URL: "https://x", SecretHeaders: map[string]httpcall.Secret{"a b": {Env: "A"}}}},
		`the secret header "host" is none that HTTP can send, or is set by`:   {Endpoint: httpcall.Endpoint{URL: "https://x", SecretHeaders: map[string]httpcall.Secret{"host": {Env: "A"}}}},
		"CertFile and KeyFile belong together":                                {Endpoint: httpcall.Endpoint{URL: "https://x", CertFile: "a"}},
		"MaxAnswerBytes is -1":                                                {Endpoint: httpcall.Endpoint{URL: "https://x", MaxAnswerBytes: -1}},
		`ResponseField is "a..b": it must be the name of a member`:            {Endpoint: httpcall.Endpoint{URL: "https://x"}, ResponseField: "a..b"},
		"the value of File is not a name":                                     {Endpoint: httpcall.Endpoint{URL: "https://x", Bearer: httpcall.Secret{File: "t0psecret\n"}}},
		"NDJSON has a line an element, and no object around them: leave Requ": {Endpoint: httpcall.Endpoint{URL: "https://x"}, NDJSON: true, ResponseField: "a"},
		"NDJSON has a line an element":                                        {Endpoint: httpcall.Endpoint{URL: "https://x"}, NDJSON: true, RequestField: "a"},
		"RequestMembers need an object to be members of":                      {Endpoint: httpcall.Endpoint{URL: "https://x"}, RequestMembers: map[string]any{"a": 1}},
		`RequestMembers["a"] is where RequestField has the elements`:          {Endpoint: httpcall.Endpoint{URL: "https://x"}, RequestField: "a.b", RequestMembers: map[string]any{"a": 1}},
		`RequestMembers["api_key"] looks like a secret`:                       {Endpoint: httpcall.Endpoint{URL: "https://x"}, RequestField: "a", RequestMembers: map[string]any{"api_key": "t0psecret"}},
	} {
		t.Run(want, func(t *testing.T) {
			defer func() {
				text := fmt.Sprint(recover())
				require.Contains(t, text, want)
				require.Contains(t, text, "batchasync.New(")
				require.NotContains(t, text, "t0psecret")
			}()
			batchasync.New(c)
		})
	}
	for _, allowed := range []*words{
		{Endpoint: httpcall.Endpoint{URL: "http://localhost:1/x", Bearer: httpcall.Secret{Env: "A"}}},
		{Endpoint: httpcall.Endpoint{URL: "http://[::1]:1/x", Bearer: httpcall.Secret{Env: "A"}}},
		{Endpoint: httpcall.Endpoint{URL: "http://models:8000", AllowHTTP: true, SecretHeaders: map[string]httpcall.Secret{"Authorization": {File: "/run/secrets/basic"}}}},
		{Endpoint: httpcall.Endpoint{URL: "https://x/y?page=1", Headers: map[string]string{"X-Team": "risk", "Content-Type": "application/vnd.api+json"}}},
	} {
		require.NotPanics(t, func() { batchasync.New(allowed) })
	}
}

func TestAClientCertificateIsShown(t *testing.T) {
	s := &service{conns: map[string]bool{}}
	s.Server = httptest.NewUnstartedServer(s.handler(t, measure))
	s.Config.ErrorLog = discard
	certFile, keyFile := selfSigned(t)
	s.TLS = requireClient(t, certFile)
	s.StartTLS()
	t.Cleanup(s.Close)
	ep := httpcall.Endpoint{URL: s.URL, CAFile: certificate(t, s.Server)}
	_, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: ep}, fast(batchasync.FailBundle(), batchasync.MaxAttempts(1))...)).Bundle(someWords(5)...)
	require.Error(t, err)
	ep.CertFile, ep.KeyFile = certFile, keyFile
	out, err := batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: ep})).Bundle(someWords(5)...)
	require.NoError(t, err)
	require.Len(t, out.Results(), 5)
	ep.KeyFile = certFile
	_, err = batchasynctest.NewHarness(t, batchasync.New(&words{Endpoint: ep}, batchasync.FailBundle())).Bundle(someWords(5)...)
	require.ErrorContains(t, err, "read CertFile and KeyFile")
}
