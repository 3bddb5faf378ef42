// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package httpcall

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// MaxRetryAfter is the longest that a service's Retry-After is followed: one
// that asks for more is tried again after that time.
const MaxRetryAfter = 5 * time.Minute

// excerptRunes is how much of an answer an error shows.
const excerptRunes = 200

// beginningBytes is how much of an answer is read for an error.
const beginningBytes = 8 << 10

// A StatusError says that the service answered with a status other than 2xx.
type StatusError struct {
	Status int         // such as 429
	URL    string      // without its query
	Header http.Header // of the answer
	Body   string      // its beginning, without the secrets that were sent

	message string
}

// Error tells the URL, the status and the beginning of the answer, in which the
// secrets that were sent read [secret].
func (e *StatusError) Error() string { return e.message }

func newStatusError(r *http.Response, shown string, body []byte, hide hidden) *StatusError {
	e := &StatusError{Status: r.StatusCode, URL: shown, Header: r.Header, Body: hide.beginning(body)}
	e.message = fmt.Sprintf("POST %s: %d %s", shown, r.StatusCode, http.StatusText(r.StatusCode))
	if text := excerpt(e.Body); text != "" {
		e.message += ": " + text
	}
	switch {
	case r.StatusCode >= 300 && r.StatusCode < 400:
		e.message += fmt.Sprintf(" (a redirect to %s is not followed, so that nothing is sent to a host, or in a way, that you have not chosen; set URL to it if it is right)", hide.in(showLocation(r)))
	case r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusForbidden:
		e.message += " (" + hide.sources + ")"
	case r.StatusCode == http.StatusUnsupportedMediaType && r.Request.Header.Get("Content-Encoding") != "":
		e.message += " (the service may not take what is compressed: leave Gzip out)"
	}
	return e
}

// mark says what the status means for the batch.
func (e *StatusError) mark(attempt int) error {
	switch {
	case e.Status == http.StatusRequestEntityTooLarge:
		return batchasync.TooLarge(e)
	case retryable(e.Status):
		return batchasync.RetryAfter(e, retryAfter(e.Header))
	case e.Status == http.StatusConflict && attempt > 1:
		// A service that knows Idempotency-Key says so while it is still
		// at work on an attempt that has timed out here.
		return batchasync.RetryAfter(e, retryAfter(e.Header))
	}
	return batchasync.Permanent(e)
}

// retryable reports whether a status says that another attempt may help.
func retryable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500
}

// retryAfter is what the answer asks to wait, at most MaxRetryAfter; 0 if it
// asks nothing.
func retryAfter(h http.Header) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseFloat(value, 64); err == nil {
		if !(seconds > 0) {
			return 0
		}
		return time.Duration(min(seconds, MaxRetryAfter.Seconds()) * float64(time.Second))
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	// By the service's own clock, for the two may differ by more than that.
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(at.Sub(now), 0), MaxRetryAfter)
}

// showURL is a URL without what may be secret in it.
func showURL(u *url.URL) string {
	return u.Scheme + "://" + u.Host + u.EscapedPath()
}

// showLocation is where a redirect goes, without its path: the service may have
// quoted a secret there in one of many forms.
func showLocation(r *http.Response) string {
	location, err := r.Location()
	if err != nil {
		return "nowhere"
	}
	return location.Scheme + "://" + location.Host
}

// hidden are the secrets of a call, to be kept out of all that is shown.
type hidden struct {
	values  []string
	sources string // where they come from
}

// in is s without the secrets, and as valid UTF-8 without control characters:
// Beam carries errors in protocol buffers, and logs have lines.
func (h hidden) in(s string) string {
	for _, value := range h.values {
		for _, form := range forms(value) {
			s = strings.ReplaceAll(s, form, "[secret]")
		}
	}
	return strings.Map(func(r rune) rune { // what is no UTF-8 is U+FFFD by then
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// forms are how a service may quote a secret: as it is, and in a URL, a page or JSON,
// of which some writers escape more than they have to.
func forms(value string) []string {
	inJSON := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)
	escaped, err := json.Marshal(value)
	if err != nil {
		escaped = []byte(`""`) // there is none for strings
	}
	return []string{
		value, url.QueryEscape(value), url.PathEscape(value), html.EscapeString(value),
		inJSON, strings.ReplaceAll(inJSON, "/", `\/`), string(escaped[1 : len(escaped)-1]),
	}
}

// beginning is in for the beginning of an answer, whose end may be a part of a
// secret.
func (h hidden) beginning(body []byte) string {
	if len(body) < beginningBytes {
		return h.in(string(body))
	}
	text := string(body[:beginningBytes])
	for _, value := range h.values {
		for n := min(len(value), len(text)); n > 0; n-- {
			if strings.HasSuffix(text, value[:n]) {
				text = text[:len(text)-n]
				break
			}
		}
	}
	return h.in(text)
}

// excerpt is as much of a text as an error shows, on one line.
func excerpt(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	n := 0
	for i := range text {
		if n++; n > excerptRunes {
			return text[:i] + "…"
		}
	}
	return text
}

// A shownError is what went wrong below the answers, without the secrets.
type shownError struct {
	text string
	err  error
}

func (e *shownError) Error() string { return e.text }
func (e *shownError) Unwrap() error { return e.err }
