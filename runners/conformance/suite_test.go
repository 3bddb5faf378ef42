// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/metrics"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners" // the flag -runner
	//lint:ignore SA1019 Prism is to replace it, but pipelines and their tests still run on it
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/direct"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/flink"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/runners/flink/jobserver"
)

// engines are the runners that the suite runs on.
var engines = []string{"direct", "prism"}

func TestMain(m *testing.M) {
	jobserver.Boot()
	flag.Parse()
	log.LogLevel = "error"
	beam.Init() // in a worker process, it does not return
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		status = 1
	}
	os.Exit(status)
}

// run runs the suite on -runner, if it is given. Flink gets a job server, unless
// there is an -endpoint.
func run(m *testing.M) (status int, err error) {
	if *runners.Runner != "" {
		engines = strings.Split(*runners.Runner, ",")
	}
	if testedOn("flink") {
		flink = job{*jobopts.Endpoint, cmp.Or(*jobopts.EnvironmentType, "LOOPBACK")}
		if flink.endpoint == "" {
			server, err := jobserver.Start(context.Background(), jobserver.Config{Notice: func(format string, args ...any) {
				fmt.Printf("conformance: "+format+"\n", args...)
			}})
			if err != nil {
				return 1, err
			}
			defer func() { err = errors.Join(err, server.Stop()) }()
			flink.endpoint = server.Endpoint()
		}
	}
	return m.Run(), nil
}

func testedOn(engine string) bool { return slices.Contains(engines, engine) }

func TestTheSuiteRunsOnFlink(t *testing.T) {
	if !testedOn("flink") {
		t.Skip("the suite ran on " + strings.Join(engines, " and ") + " alone; for Flink, with java and mvn: go test ./runners/... -runner=flink")
	}
	require.NotEmpty(t, flink.endpoint)
}

// A result is what a pipeline has counted. Beam names a metric's transform by the
// runner's id of it, which is another one on each runner.
type result struct {
	beam.PipelineResult
	engine string
}

// counters are the counters namespace/name of the transforms, in the order of their
// size.
func (r result) counters(name string) []int64 {
	var values []int64
	for _, c := range r.Metrics().AllMetrics().Counters() {
		if c.Namespace()+"/"+c.Name() == name {
			values = append(values, c.Result())
		}
	}
	slices.Sort(values)
	return values
}

// sum is the sum of counters.
func (r result) sum(name string) int64 {
	var sum int64
	for _, v := range r.counters(name) {
		sum += v
	}
	return sum
}

// own is sum for a counter of batchasync's, and each is counters for one.
func (r result) own(name string) int64 { return r.sum(batchasync.MetricsNamespace + "/" + name) }
func (r result) each(name string) []int64 {
	return r.counters(batchasync.MetricsNamespace + "/" + name)
}

// distribution is that of batchasync's distributions of one name; a test that
// asks for it has one transform.
func (r result) distribution(name string) metrics.DistributionValue {
	all := metrics.DistributionValue{}
	for _, d := range r.Metrics().AllMetrics().Distributions() {
		if v := d.Result(); d.Namespace() == batchasync.MetricsNamespace && d.Name() == name && v.Count > 0 {
			all = v
		}
	}
	return all
}

// onEachEngine runs the pipeline that build makes, and each check with its
// result.
func onEachEngine(t *testing.T, build func(t *testing.T, s beam.Scope), checks ...func(t *testing.T, r result)) {
	onEngines(t, engines, build, checks...)
}

// onPortable is onEachEngine without the direct runner, for what that has not.
func onPortable(t *testing.T, why string, build func(t *testing.T, s beam.Scope), checks ...func(t *testing.T, r result)) {
	var portable []string
	for _, engine := range engines {
		if engine == "direct" {
			t.Run(engine, func(t *testing.T) { t.Skip("not on the direct runner: " + why) })
			continue
		}
		portable = append(portable, engine)
	}
	onEngines(t, portable, build, checks...)
}

func onEngines(t *testing.T, engines []string, build func(t *testing.T, s beam.Scope), checks ...func(t *testing.T, r result)) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			p, s := beam.NewPipelineWithRoot()
			build(t, s)
			r, err := execute(t, engine, p)
			require.NoError(t, err)
			for _, check := range checks {
				check(t, result{r, engine})
			}
		})
	}
}

// A job is what Beam's flags say of where a pipeline runs.
type job struct{ endpoint, environment string }

// Prism's is empty until it has started itself, which it says in the flags.
var flink, prism job

// execute runs a pipeline, which must end within a time that none needs.
func execute(t *testing.T, engine string, p *beam.Pipeline) (beam.PipelineResult, error) {
	at := map[string]*job{"flink": &flink, "prism": &prism}[engine]
	if at != nil {
		*jobopts.Endpoint, *jobopts.EnvironmentType = at.endpoint, at.environment
		defer func() { *at = job{*jobopts.Endpoint, *jobopts.EnvironmentType} }()
	}
	ctx, stop := context.WithTimeoutCause(t.Context(), 3*time.Minute, errors.New("the pipeline hangs"))
	defer stop()
	return beam.Run(ctx, engine, p)
}
