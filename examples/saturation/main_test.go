// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/testing/batchasynctest"
)

func TestMain(m *testing.M) {
	log.LogLevel = "error"
	beam.Init()
	os.Exit(m.Run())
}

// onEach runs a test on each runner that is linked in.
func onEach(t *testing.T, test func(t *testing.T, runner string)) {
	for _, runner := range linked {
		t.Run(runner, func(t *testing.T) { test(t, runner) })
	}
}

// testOptions are for runs of no time: 400 elements each, 1 and 4 at once.
func testOptions(t *testing.T, runner string) options {
	dir := t.TempDir()
	return options{
		elements: 400, capacity: 2, k: 2, runner: runner,
		svg: filepath.Join(dir, "chart.svg"), json: filepath.Join(dir, "figures.json"),
		base: 100 * time.Microsecond, perElement: time.Microsecond, levels: []int{1, 4},
	}
}

func TestEachElementIsAskedForOnceInEachRun(t *testing.T) {
	onEach(t, func(t *testing.T, runner string) {
		o := testOptions(t, runner)
		var out strings.Builder
		status, err := saturate(t.Context(), o, &out)
		require.NoError(t, err)
		require.Equal(t, allMeasured, status)

		text, err := os.ReadFile(o.json)
		require.NoError(t, err)
		var figures struct {
			Service struct {
				Capacity int
				Limit1   float64 `json:"limit_one_element_a_call"`
				Limit100 float64 `json:"limit_100_elements_a_call"`
			}
			Runs runs
		}
		require.NoError(t, json.Unmarshal(text, &figures))
		require.Equal(t, 2, figures.Service.Capacity)
		require.InDelta(t, 2/101e-6, figures.Service.Limit1, 1)
		require.InDelta(t, 200/200e-6, figures.Service.Limit100, 1)

		var got []setting
		for _, r := range figures.Runs {
			got = append(got, r.setting)
			require.EqualValues(t, 400, r.Elements)
			require.InDelta(t, 400, float64(r.Requests)*r.MeanBatch, 1e-6, "no element was sent twice")
			require.InDelta(t, 400, r.PerSecond*r.Seconds, 1e-6)
			if r.MaxInFlight > 0 {
				require.LessOrEqual(t, r.MostCalls, r.MaxInFlight)
			}
			switch r.Approach {
			case single:
				require.EqualValues(t, 400, r.Requests)
				require.InDelta(t, figures.Service.Limit1, r.Limit, 1e-6)
			default: // a batch may linger on a busy machine
				require.GreaterOrEqual(t, r.Requests, int64(4))
				require.Less(t, r.Requests, int64(100))
			}
			require.Contains(t, out.String(), r.row()+"\n")
		}
		require.Equal(t, []setting{{single, 1}, {single, 4}, {batches, 1}, {batches, 4}, {unset, 0}}, got)
		require.Equal(t, 1, figures.Runs[0].MostCalls)
		require.Contains(t, out.String(), "\n"+figures.Runs.summary())
		require.Contains(t, out.String(), "chart    "+o.svg+"\nfigures  "+o.json+"\n")

		svg, err := os.ReadFile(o.svg)
		require.NoError(t, err)
		require.Len(t, points(t, svg), 5)
	})
}

// points are the titles of a chart's points; the chart must be XML.
func points(t *testing.T, svg []byte) (titles []string) {
	decoder := xml.NewDecoder(strings.NewReader(string(svg)))
	for {
		_, err := decoder.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
	}
	for _, match := range regexp.MustCompile(`<title>([^<]*)</title>`).FindAllSubmatch(svg, -1) {
		titles = append(titles, string(match[1]))
	}
	return titles
}

// testRuns are runs with figures that were made up.
func testRuns() runs {
	of := func(a approach, n int, perSecond float64) run {
		return run{setting: setting{a, n}, Elements: 1000, Requests: 10, MeanBatch: 100, MostCalls: n, MeanCalls: 0.9 * float64(n), PerSecond: perSecond, Limit: 2000}
	}
	auto := of(unset, 0, 1800)
	auto.MostCalls, auto.MeanCalls = 9, 7.25
	return runs{of(single, 1, 100), of(single, 16, 150.4), of(single, 256, 90), of(batches, 1, 1000), of(batches, 16, 1987.6), of(batches, 256, 900), auto}
}

func TestTheTable(t *testing.T) {
	all := testRuns()
	require.Equal(t, `                      at once   elements  requests   batch  seen at once  elements/s      limit  share`, header())
	require.Equal(t, `one element a call         16      1,000        10   100.0            16         150      2,000    8 %`, all[1].row())
	require.Equal(t, `100 elements a call        16      1,000        10   100.0            16       1,988      2,000   99 %`, all[4].row())
	require.Equal(t, `nothing set                 –      1,000        10   100.0             9       1,800      2,000   90 %`, all[6].row())
	require.Equal(t, `one element a call: 150/s at best, with 16 calls at once; with 256 it is 90/s.
100 elements a call: 1,990/s at best, with 16 calls at once; with 256 it is 900/s.
nothing set: 1,800/s, 90 % of the limit, with 7.2 calls at once on average.
`, all.summary())
}

func TestThePicture(t *testing.T) {
	config := options{base: base, perElement: perElement, capacity: 16, k: 2}.service()
	svg, err := testRuns().picture(config)
	require.NoError(t, err)
	require.Equal(t, []string{"1: 1,000", "16: 1,988", "256: 900", "1: 100", "16: 150", "256: 90", "7.25: 1,800"}, points(t, svg))
	for _, text := range []string{
		"A call takes 10 ms + 0.04 ms an element; the service slows down beyond 16 calls at once.",
		"100 elements a call:", "1,990/s at best", "one element a call:", "150/s at best", "nothing set:", "1,800/s",
		"114,000/s", "1,590/s", "capacity 16", "calls at once", "elements/s",
	} {
		require.Contains(t, string(svg), ">"+text+"</text>")
	}
}

func TestARateHasThreeDigits(t *testing.T) {
	for perSecond, want := range map[float64]string{0.4: "0/s", 7: "7/s", 99.6: "100/s", 1593.6: "1,590/s", 114285.7: "114,000/s"} {
		require.Equal(t, want, rate(perSecond))
	}
}

func TestARunHasTheElementsThatItsTimeIsFor(t *testing.T) {
	config := options{base: base, perElement: perElement, capacity: 16, k: 2}.service()
	for _, test := range []struct {
		name    string
		setting setting
		seconds float64
		want    float64
	}{
		{"below the capacity", setting{single, 4}, 2, 2 * 4 / 0.01004},
		{"in batches", setting{batches, 16}, 2, 2 * 16 * 100 / 0.014},
		{"beyond the capacity", setting{batches, 48}, 2, 2 * 48 * 100 / (0.014 * 5)},
		{"with many calls, 8 rounds of them at least", setting{single, 256}, 0.1, 8 * 256},
		{"nothing set, twice the time", setting{Approach: unset}, 2, 4 * 16 * 100 / 0.014},
	} {
		t.Run(test.name, func(t *testing.T) {
			batch := 100
			if test.setting.Approach == single {
				batch = 1
			}
			got := test.setting.elements(config, time.Duration(test.seconds*float64(time.Second)))
			require.InEpsilon(t, test.want, got, 0.02)
			require.Zero(t, got%batch, "whole batches")
		})
	}
}

func TestAllRunsTakeLessThanTwoMinutesAndQuickOnesLessThanTwentySeconds(t *testing.T) {
	for _, test := range []struct {
		quick  bool
		levels []int
		most   time.Duration
	}{
		{false, allLevels, 90 * time.Second}, // the rest is for the noise, and for Beam
		{true, quickLevels, 15 * time.Second},
	} {
		o := options{base: base, perElement: perElement, capacity: 16, k: 2, quick: test.quick}
		var sum float64
		for _, s := range settings(test.levels) {
			batch, inFlight := batchSize, s.MaxInFlight
			if s.Approach == single {
				batch = 1
			}
			if s.Approach == unset {
				inFlight = 4 // if it finds no more
			}
			seconds := batchasynctest.NewService(o.service()).CallTime(batch).Seconds()
			seconds *= 1 + 2*float64(max(0, inFlight-16))/16
			sum += float64(s.elements(o.service(), o.duration())) / float64(batch*inFlight) * seconds
		}
		require.Less(t, sum, test.most.Seconds(), "quick: %v", test.quick)
	}
}

func TestABadFlagIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		name   string
		set    func(*options)
		status int
		want   string
	}{
		{"elements below 0", func(o *options) { o.elements = -1 }, wrongFlag, "-elements -1: must be from 1 to 10000000, or left out for as many as take -seconds"},
		{"too many elements", func(o *options) { o.elements = 10_000_001 }, wrongFlag, "-elements 10000001: must be from 1 to 10000000, or left out for as many as take -seconds"},
		{"seconds below 0", func(o *options) { o.seconds = -1 }, wrongFlag, "-seconds -1: must be more than 0 and at most 60"},
		{"seconds that are no number", func(o *options) { o.seconds = math.NaN() }, wrongFlag, "-seconds NaN: must be more than 0 and at most 60"},
		{"elements and seconds", func(o *options) { o.seconds = 2 }, wrongFlag, "-elements 400 and -seconds 2 exclude each other: leave one out"},
		{"no capacity", func(o *options) { o.capacity = 0 }, wrongFlag, "-capacity 0: must be from 1 to 256"},
		{"too much capacity", func(o *options) { o.capacity = 257 }, wrongFlag, "-capacity 257: must be from 1 to 256"},
		{"a k below 1", func(o *options) { o.k = 0.5 }, wrongFlag, "-k 0.5: must be at least 1, with which the service's throughput stays; 2 halves it in the end"},
		{"a k without end", func(o *options) { o.k = math.Inf(1) }, wrongFlag, "-k +Inf: must be at least 1, with which the service's throughput stays; 2 halves it in the end"},
		{"one file for both", func(o *options) { o.svg, o.json = "x", "./x" }, wrongFlag, "-svg and -json are both x: name two files"},
		{"an unknown runner", func(o *options) { o.runner = "none" }, wrongFlag, "-runner none: this program has prism and direct, which run the workers in this process, where the service is"},
		{"a chart that is a folder", func(o *options) { o.svg = dir }, notMeasured, "-svg " + dir + ": is a folder; name a file that can be written to"},
		{"a folder that is missing", func(o *options) { o.json = dir + "/none/x" }, notMeasured, "-json " + dir + "/none/x: no such file or directory; name a file that can be written to"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := testOptions(t, "direct")
			outputs := filepath.Dir(o.svg)
			test.set(&o)
			var out strings.Builder
			status, err := saturate(t.Context(), o, &out)
			require.EqualError(t, err, test.want)
			require.Equal(t, test.status, status)
			require.Empty(t, out.String(), "nothing was measured")
			left, err := os.ReadDir(outputs)
			require.NoError(t, err)
			require.Empty(t, left, "nothing is left behind")
		})
	}
}

func TestThereIsNoFileThatWasNotAskedFor(t *testing.T) {
	t.Chdir(t.TempDir())
	o := testOptions(t, "direct")
	o.svg, o.json = "", ""
	status, err := saturate(t.Context(), o, io.Discard)
	require.NoError(t, err)
	require.Equal(t, allMeasured, status)
	left, err := os.ReadDir(".")
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestAnInterruptEndsIt(t *testing.T) {
	onEach(t, func(t *testing.T, runner string) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("interrupt"))
		o := testOptions(t, runner)
		require.NoError(t, os.WriteFile(o.svg, []byte("before"), 0o600))
		status, err := saturate(ctx, o, io.Discard)
		require.EqualError(t, err, "one element a call, 1 at once: the job has failed: interrupt")
		require.Equal(t, notMeasured, status)
		text, err := os.ReadFile(o.svg)
		require.NoError(t, err)
		require.Equal(t, "before", string(text))
		require.NoFileExists(t, o.json)
	})
}

func TestABadAnswerIsAnError(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int
		body   string
		want   string
	}{
		{"an error of the service", 503, "try later\n", "503 Service Unavailable: try later"},
		{"an error of the request", 400, "what?\n", "400 Bad Request: what?"},
		{"no JSON", 200, "names", "answer of URL: invalid character 'a' in literal null (expecting 'u')"},
		{"too few names", 200, `["a"]`, "answer of URL: 1 names for 2 customers"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				if _, err := io.WriteString(w, test.body); err != nil {
					t.Error(err)
				}
			}))
			defer server.Close()
			e := &Enrich{URL: server.URL}
			require.NoError(t, e.Setup(t.Context()))
			_, err := e.Call(t.Context(), []int{1, 2})
			require.EqualError(t, err, strings.ReplaceAll(test.want, "URL", server.URL))
			require.NoError(t, e.Teardown(t.Context()))
		})
	}
}

func TestTheServiceRefusesWhatIsNoBatch(t *testing.T) {
	s, err := serve(batchasynctest.ServiceConfig{})
	require.NoError(t, err)
	response, err := http.Post(s.url, "application/json", strings.NewReader("{}"))
	require.NoError(t, err)
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusBadRequest, response.StatusCode)
	require.Contains(t, string(text), "send a JSON array of numbers")
	require.NoError(t, s.close())
}

func TestAWrongNameIsFound(t *testing.T) {
	onEach(t, func(t *testing.T, runner string) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var ids []int
			if err := json.NewDecoder(r.Body).Decode(&ids); err != nil {
				t.Error(err)
			}
			if err := json.NewEncoder(w).Encode(slices.Repeat([]string{"nobody"}, len(ids))); err != nil {
				t.Error(err)
			}
		}))
		defer server.Close()
		p, s := beam.NewPipelineWithRoot()
		enrich(s, server.URL, 3)
		_, err := beam.Run(t.Context(), runner, p)
		require.ErrorContains(t, err, "want empty collection")
		require.ErrorContains(t, err, "nobody")
	})
}
