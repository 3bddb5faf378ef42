// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package embed

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/batchasync/beam-batchasync/transforms/httpcall"
)

// shortage is how long it takes until the server's quotas have room for another
// call of so many tokens, by the headers of its answer; 0 if they have, or say
// nothing. They are OpenAI's x-ratelimit-remaining-, -limit- and -reset-requests
// and -tokens.
func shortage(h http.Header, tokens int) time.Duration {
	return max(short(h, "requests", 1), short(h, "tokens", tokens))
}

func short(h http.Header, what string, need int) time.Duration {
	remaining, err := strconv.Atoi(strings.TrimSpace(h.Get("X-Ratelimit-Remaining-" + what)))
	if err != nil || remaining >= need {
		return 0
	}
	reset := untilReset(h.Get("X-Ratelimit-Reset-" + what))
	// A quota fills bit by bit, and is full after reset: wait for as much of
	// that as the next call needs.
	limit, err := strconv.Atoi(strings.TrimSpace(h.Get("X-Ratelimit-Limit-" + what)))
	if err != nil || limit < need {
		return reset
	}
	return time.Duration(float64(reset) * float64(need-remaining) / float64(limit-remaining))
}

// untilReset reads a time in the forms in which servers write it: 6m0s, 20ms, a
// number of seconds, or a time. It is at most httpcall.MaxRetryAfter.
func untilReset(s string) time.Duration {
	s = strings.TrimSpace(s)
	var d time.Duration
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		if seconds > 1e8 { // more than three years: since 1970
			seconds -= float64(time.Now().Unix())
		}
		if !(seconds > 0) {
			return 0
		}
		d = time.Duration(min(seconds, httpcall.MaxRetryAfter.Seconds()) * float64(time.Second))
	} else if parsed, err := time.ParseDuration(s); err == nil {
		d = parsed
	} else if at, err := time.Parse(time.RFC3339, s); err == nil {
		d = time.Until(at)
	}
	return min(max(d, 0), httpcall.MaxRetryAfter)
}
