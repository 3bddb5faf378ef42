// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package embed

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAResetIsReadInEachForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where it is the year 2000
		for form, want := range map[string]time.Duration{
			"1s": time.Second, "1m30s": 90 * time.Second, "20ms": 20 * time.Millisecond, "12": 12 * time.Second, "0.25": 250 * time.Millisecond,
			"24h0m0s": 5 * time.Minute, "": 0, "soon": 0, "-3": 0, "-3s": 0, "NaN": 0, "1e300": 5 * time.Minute,
			"2000-01-01T00:00:40Z": 40 * time.Second, "1999-01-01T00:00:40Z": 0, "1700000000": 5 * time.Minute, "946684830": 30 * time.Second,
		} {
			require.Equal(t, want, untilReset(form), form)
		}
	})
}

func TestAShortageLastsUntilThereIsRoomForAnotherCall(t *testing.T) {
	for name, test := range map[string]struct {
		headers string
		want    time.Duration
	}{
		"nothing said":                {"", 0},
		"room":                        {"remaining-tokens=1000 reset-tokens=60s limit-tokens=10000", 0},
		"just enough":                 {"remaining-tokens=1000 reset-tokens=60s", 0},
		"the last request":            {"remaining-requests=1 reset-requests=60s", 0},
		"one too few":                 {"remaining-tokens=999 reset-tokens=60s", 60 * time.Second},
		"no room":                     {"remaining-tokens=100 reset-tokens=60s", 60 * time.Second},
		"a tenth of it fills by":      {"remaining-tokens=0 reset-tokens=60s limit-tokens=10000", 6 * time.Second},
		"more than there is ever":     {"remaining-tokens=500 reset-tokens=60s limit-tokens=900", 60 * time.Second},
		"a request":                   {"remaining-requests=0 reset-requests=60s limit-requests=60", time.Second},
		"the longer one":              {"remaining-requests=0 reset-requests=60s limit-requests=60 remaining-tokens=0 reset-tokens=2s", 2 * time.Second},
		"no number":                   {"remaining-tokens=many reset-tokens=60s", 0},
		"no reset":                    {"remaining-tokens=0", 0},
		"a limit that makes no sense": {"remaining-tokens=100 reset-tokens=60s limit-tokens=50", 60 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			h := http.Header{}
			for _, pair := range strings.Fields(test.headers) {
				key, value, _ := strings.Cut(pair, "=")
				h.Set("x-ratelimit-"+key, value)
			}
			require.Equal(t, test.want, shortage(h, 1000))
		})
	}
}
