// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package httpcall

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// An Endpoint is where calls are posted, and how: the part of a Caller that
// knows HTTP and nothing of elements. A caller for a service with another wire
// format embeds it, and calls Post:
//
//	type caller struct{ httpcall.Endpoint }
//
//	func (c *caller) Call(ctx context.Context, batch []string) ([]int, error) {
//		answer, err := c.Post(ctx, "text/csv", encode(batch))
//		if err != nil {
//			return nil, err
//		}
//		return decode(answer.Body)
//	}
//
// Its exported fields travel to the workers as a part of the pipeline's
// description, so none of them may hold a secret.
type Endpoint struct {
	// URL is posted to. It must not hold a password, a token or a key.
	URL string

	// Headers go with each call. Those that look like a secret are refused.
	Headers map[string]string

	// Bearer is the token of the header Authorization: Bearer …, if it is
	// set. SecretHeaders are for services that want a key in another header,
	// or another kind of Authorization: each is the header's whole value.
	Bearer        Secret
	SecretHeaders map[string]Secret

	// AllowHTTP permits secrets to be sent unencrypted, to a URL that begins
	// with http:// and is not on this machine.
	AllowHTTP bool

	// CAFile is a file on the worker with the certificates (PEM) that the
	// service's is signed with, if not with one that the system trusts.
	// CertFile and KeyFile are the client's own, if the service asks for
	// that; they are read for each connection, so that they may be rotated.
	CAFile, CertFile, KeyFile string

	// Gzip compresses the requests. (Answers are always welcome compressed.)
	Gzip bool

	// MaxAnswerBytes is the most that an answer may have, uncompressed. One
	// that has more is treated as a 413: the batch is halved, and one element
	// alone fails. Default: 32 MiB.
	MaxAnswerBytes int64

	conn *connection // set by Setup

	// dial replaces the network in tests of what takes time.
	dial func(context.Context, string, string) (net.Conn, error)
}

// An Answer is what the service answered, with a status of 2xx.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte // uncompressed

	hide  hidden
	shown string // the URL in errors
}

// Show makes text, a part of the answer, fit for an error or a log: cut short, on
// one line, and without the secrets that were sent.
func (a *Answer) Show(text string) string {
	return excerpt(a.hide.beginning([]byte(text[:min(len(text), beginningBytes)])))
}

// Wrong wraps an error about the answer, with its beginning as Show shows it.
func (a *Answer) Wrong(err error) error {
	return fmt.Errorf("POST %s: %w; the answer (%d, Content-Type %q) begins: %s", a.shown, err, a.Status,
		a.Show(a.Header.Get("Content-Type")), a.Show(string(a.Body[:min(len(a.Body), beginningBytes)])))
}

// A connection is the run-time state of an Endpoint.
type connection struct {
	client *http.Client
	shown  string // the URL in errors
	most   int64

	mu    sync.Mutex
	until time.Time
}

// Validate says what is wrong with the fields. batchasync calls it when the
// pipeline is constructed.
func (e *Endpoint) Validate() error {
	u, err := url.Parse(e.URL)
	switch {
	case err != nil:
		return errors.New("URL can't be parsed (it is not shown here, for it may hold a secret)")
	case u.User != nil:
		return errors.New("URL holds a user or a password, which would be a part of the pipeline's description, for all to see: take it out, and name an environment variable, a file or a registered function in Bearer or SecretHeaders")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return fmt.Errorf("URL is %q: it must begin with https://, or http://, and a host", showURL(u))
	case u.Fragment != "":
		return fmt.Errorf("URL %s has a part behind #, which is never sent: take it out", showURL(u))
	}
	for name := range u.Query() {
		if secretive(name) {
			return fmt.Errorf("the parameter %q in URL looks like a secret, which would be a part of the pipeline's description, for all to see: send it as a header, from Bearer or SecretHeaders", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		switch value := e.Headers[name]; {
		case !fieldName(name) || !fieldValue(value):
			return fmt.Errorf("the header %q, or its value, is none that HTTP can send", name)
		case own[textproto.CanonicalMIMEHeaderKey(name)]:
			return fmt.Errorf("the header %q is set by httpcall: leave it out", name)
		case secretive(name) || secretValue(value):
			return fmt.Errorf("the header %q looks like a secret, which would be a part of the pipeline's description, for all to see: name an environment variable, a file or a registered function for it in Bearer or SecretHeaders", name)
		}
	}
	if !e.Bearer.isZero() {
		if err := e.Bearer.validate(); err != nil {
			return fmt.Errorf("the secret Bearer: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.SecretHeaders)) {
		header := textproto.CanonicalMIMEHeaderKey(name)
		switch err := e.SecretHeaders[name].validate(); {
		case !fieldName(name) || own[header]:
			return fmt.Errorf("the secret header %q is none that HTTP can send, or is set by httpcall", name)
		case header == "Authorization" && !e.Bearer.isZero():
			return fmt.Errorf("the secrets Bearer and SecretHeaders[%q] are the same header: leave one out", name)
		case err != nil:
			return fmt.Errorf("SecretHeaders[%q]: %w", name, err)
		}
	}
	if u.Scheme == "http" && !e.AllowHTTP && (!e.Bearer.isZero() || len(e.SecretHeaders) > 0) && !loopback(u.Hostname()) {
		return fmt.Errorf("URL %s would send a secret unencrypted: use https://, or set AllowHTTP if the network is safe", showURL(u))
	}
	if (e.CertFile == "") != (e.KeyFile == "") {
		return errors.New("CertFile and KeyFile belong together: set both or none")
	}
	if e.MaxAnswerBytes < 0 {
		return fmt.Errorf("MaxAnswerBytes is %d: it must be at least 1, or 0 for 32 MiB", e.MaxAnswerBytes)
	}
	return nil
}

// own are the headers that are not the user's.
var own = map[string]bool{
	"Accept-Encoding": true, "Connection": true, "Content-Encoding": true, "Content-Length": true,
	"Host": true, "Idempotency-Key": true, "Transfer-Encoding": true,
}

func fieldName(s string) bool {
	for _, r := range s {
		if !strings.ContainsRune("!#$%&'*+-.^_`|~", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return s != ""
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Setup makes the connection pool and looks whether the secrets are there.
// batchasync calls it, once for each worker process.
func (e *Endpoint) Setup(ctx context.Context) error {
	if err := e.Validate(); err != nil {
		return err // it may have been made without a pipeline
	}
	u, err := url.Parse(e.URL)
	if err != nil {
		return errors.New("URL can't be parsed")
	}
	if _, _, err := e.header(ctx); err != nil {
		return err
	}
	config, err := e.tls()
	if err != nil {
		return err
	}
	dial := e.dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	transport := &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		DialContext:     dial,
		TLSClientConfig: config,
		// A pool never has more connections than there have been calls at
		// once, so that all of them may stay: Go's default keeps 2 and
		// dials for the others anew, each time.
		MaxIdleConnsPerHost:   math.MaxInt,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
		// All calls share one connection of HTTP/2. If the network has
		// lost it, each retry would use it again and time out; so it is
		// pinged when it is silent.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 10 * time.Second},
	}
	most := e.MaxAnswerBytes
	if most == 0 {
		most = 32 << 20
	}
	e.conn = &connection{
		client: &http.Client{Transport: transport, CheckRedirect: follow},
		shown:  showURL(u),
		most:   most,
	}
	return nil
}

// follow follows what keeps the method, the host and the encryption: then the
// secrets and the elements go where they have been sent to.
func follow(next *http.Request, via []*http.Request) error {
	if next.Method != http.MethodPost || next.URL.Scheme != via[0].URL.Scheme || next.URL.Host != via[0].URL.Host || len(via) > 5 {
		return http.ErrUseLastResponse
	}
	return nil
}

func (e *Endpoint) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CAFile != "" {
		pem, err := os.ReadFile(e.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CAFile: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CAFile %s holds no certificate in PEM form", e.CAFile)
		}
	}
	if e.CertFile != "" {
		read := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(e.CertFile, e.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("read CertFile and KeyFile: %w", err)
			}
			return &pair, nil
		}
		if _, err := read(); err != nil {
			return nil, err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return read() }
	}
	return config, nil
}

// Teardown closes the idle connections.
func (e *Endpoint) Teardown(context.Context) error {
	if e.conn != nil {
		e.conn.client.CloseIdleConnections()
	}
	return nil
}

// HoldUntil is the time until which the service, or Hold, wants no call.
// batchasync waits for it before each attempt.
func (e *Endpoint) HoldUntil() time.Time {
	if e.conn == nil {
		return time.Time{}
	}
	e.conn.mu.Lock()
	defer e.conn.mu.Unlock()
	return e.conn.until
}

// Hold lets no call of this process begin for d, at most MaxRetryAfter. Post
// calls it for a 429 with a Retry-After; a caller may for what it has read in an
// answer, such as that a quota is used up.
func (e *Endpoint) Hold(d time.Duration) {
	if e.conn == nil {
		return
	}
	until := time.Now().Add(min(d, MaxRetryAfter))
	e.conn.mu.Lock()
	defer e.conn.mu.Unlock()
	if until.After(e.conn.until) {
		e.conn.until = until
	}
}

// header returns the headers of a call, and the secrets in them.
func (e *Endpoint) header(ctx context.Context) (http.Header, hidden, error) {
	h := http.Header{"User-Agent": {"beam-batchasync"}}
	for name, value := range e.Headers {
		h.Set(name, value)
	}
	hide := hidden{sources: "no secret was sent: set Bearer or SecretHeaders"}
	var from []string
	add := func(name, prefix string, secret Secret) error {
		value, err := secret.get(ctx)
		if err != nil {
			return err
		}
		hide.values = append(hide.values, value)
		// The credentials without the scheme, should the answer quote them so.
		if _, credentials, ok := strings.Cut(value, " "); ok && len(credentials) > 3 {
			hide.values = append(hide.values, credentials)
		}
		from = append(from, fmt.Sprintf("%s from %v", name, secret))
		h.Set(name, prefix+value)
		return nil
	}
	if !e.Bearer.isZero() {
		if err := add("Authorization", "Bearer ", e.Bearer); err != nil {
			return nil, hide, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.SecretHeaders)) {
		if err := add(name, "", e.SecretHeaders[name]); err != nil {
			return nil, hide, err
		}
	}
	if len(from) > 0 {
		hide.sources = "sent were " + strings.Join(from, ", ")
	}
	return h, hide, nil
}

// compressors are gzip.Writers, of which each has tables of many kilobytes.
var compressors = sync.Pool{New: func() any { return gzip.NewWriter(io.Discard) }}

func compress(body []byte) ([]byte, error) {
	w := compressors.Get().(*gzip.Writer)
	defer compressors.Put(w)
	var b bytes.Buffer
	w.Reset(&b)
	if _, err := w.Write(body); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Post posts body, with the batch's id as the Idempotency-Key: ctx must be that
// of Call. The error of an answer other than 2xx is a *StatusError, marked with
// what batchasync is to do: 408, 425, 429, 5xx, and a 409 in a repeated attempt,
// are tried again, after Retry-After if the answer has it; 413 halves the batch;
// the others are permanent. What goes wrong below that (no connection, an answer
// that breaks off) is tried again, a certificate that is not trusted is not.
func (e *Endpoint) Post(ctx context.Context, contentType string, body []byte) (*Answer, error) {
	if e.conn == nil {
		return nil, batchasync.Permanent(errors.New("httpcall: Post before Setup: a type that embeds Endpoint and has a Setup of its own must call Endpoint.Setup there"))
	}
	header, hide, err := e.header(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"Content-Type", "Accept"} {
		if header.Get(name) == "" {
			header.Set(name, contentType)
		}
	}
	if e.Gzip {
		if body, err = compress(body); err != nil {
			return nil, fmt.Errorf("compress the request: %w", err)
		}
		header.Set("Content-Encoding", "gzip")
	}
	info := batchasync.InfoFrom(ctx)
	if info.BatchID != "" {
		// It also lets net/http send once more what an idle connection,
		// closed by the service at that moment, did not carry.
		header.Set("Idempotency-Key", info.BatchID)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(body))
	if err != nil {
		return nil, batchasync.Permanent(errors.New("URL can't be parsed"))
	}
	request.Header = header
	response, err := e.conn.client.Do(request)
	if err != nil {
		return nil, e.broken(ctx, "", err, hide)
	}
	answer, err := e.read(ctx, response, info, hide)
	// What is left unread would cost the connection; but not at any price. An answer
	// that is fine has been read to its end, and neither can fail.
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10)
	_ = response.Body.Close()
	return answer, err
}

func (e *Endpoint) read(ctx context.Context, r *http.Response, info batchasync.Info, hide hidden) (*Answer, error) {
	if r.StatusCode < 200 || r.StatusCode > 299 {
		body, err := io.ReadAll(io.LimitReader(r.Body, beginningBytes))
		if err != nil && ctx.Err() != nil {
			return nil, e.broken(ctx, "", err, hide) // or a timeout would pass as its answer
		}
		status := newStatusError(r, e.conn.shown, body, hide)
		if status.Status == http.StatusTooManyRequests {
			e.Hold(retryAfter(r.Header))
		}
		return nil, status.mark(info.Attempt)
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" && !r.Uncompressed {
		return nil, batchasync.Permanent(fmt.Errorf("POST %s: the answer is compressed as %q, which it was not asked for", e.conn.shown, hide.in(encoding)))
	}
	var b bytes.Buffer
	if n := min(r.ContentLength, e.conn.most, 1<<20); n > 0 {
		b.Grow(int(n) + bytes.MinRead)
	}
	n, err := b.ReadFrom(io.LimitReader(r.Body, e.conn.most+1))
	switch {
	case err != nil:
		return nil, e.broken(ctx, fmt.Sprintf("the answer broke off after %d bytes: ", n), err, hide)
	case n > e.conn.most:
		return nil, batchasync.TooLarge(fmt.Errorf("POST %s: the answer has more than the %d bytes of MaxAnswerBytes: ask for fewer elements a call (BatchSize), or raise it", e.conn.shown, e.conn.most))
	}
	return &Answer{Status: r.StatusCode, Header: r.Header, Body: b.Bytes(), hide: hide, shown: e.conn.shown}, nil
}

// broken is an error below that of an answer.
func (e *Endpoint) broken(ctx context.Context, what string, err error, hide hidden) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // its text has the URL, and with it the query
	}
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = ctx.Err() // which net/http tells in other words, at times
	}
	text := fmt.Sprintf("POST %s: %s%v", e.conn.shown, what, err)
	shown := &shownError{text: hide.in(text), err: err}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		shown.text += " (set CAFile if the service's certificate is signed by an authority of your own)"
		return batchasync.Permanent(shown)
	}
	return shown
}
