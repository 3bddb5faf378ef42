// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package dataflow

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	pipepb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/pipeline_v1"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners" // the flag, for go test ./runners/... -runner=flink
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/dataflow"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/batchasync/beam-batchasync/batchasync"
	"github.com/batchasync/beam-batchasync/internal/ticks"
)

// price is a caller; only its exported field travels.
type price struct {
	Table string

	password string
}

func (p *price) Call(_ context.Context, batch []int) ([]string, error) {
	return make([]string, len(batch)), nil
}

func init() {
	batchasync.Register(&price{})
	batchasync.RegisterKV[int](&price{})
}

func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		"dry_run": "true", "project": "a-project", "region": "us-central1",
		"staging_location": "gs://a-bucket/staging", "worker_binary": os.Args[0],
		"sdk_container_image": "us-docker.pkg.dev/a-project/images/flights:1",
		"num_workers":         "2", "max_num_workers": "20", "autoscaling_algorithm": "THROUGHPUT_BASED",
		"worker_machine_type": "n2-standard-4", "number_of_worker_harness_threads": "12",
		"no_use_public_ips": "true", "use_public_ips": "false", "labels": `{"team":"prices"}`,
	} {
		if err := flag.Set(name, value); err != nil {
			panic(err) // a flag of Beam's that is gone
		}
	}
	flag.Parse()
	beam.Init()
	os.Exit(m.Run())
}

// printed keeps what the dry run logs: the pipeline, and the job.
type printed struct {
	mu       sync.Mutex
	messages []string
}

func (p *printed) Log(_ context.Context, _ log.Severity, _ int, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages = append(p.messages, message)
}

// job is what the test looks at of a job's JSON.
type job struct {
	Type        string
	ProjectID   string
	Labels      map[string]string
	Environment struct {
		Experiments []string
		WorkerPools []struct {
			AutoscalingSettings struct {
				Algorithm     string
				MaxNumWorkers int
			}
			IPConfiguration             string
			MachineType                 string
			NumWorkers                  int
			NumThreadsPerWorker         int
			WorkerHarnessContainerImage string
			Packages                    []struct{ Name, Location string }
		}
	}
}

// dryRun translates a pipeline.
func dryRun(t *testing.T, build func(s beam.Scope)) (*pipepb.Pipeline, job) {
	var p printed
	log.SetLogger(&p)
	t.Cleanup(func() { log.SetLogger(&log.Standard{}) })
	pipeline, s := beam.NewPipelineWithRoot()
	build(s)
	_, err := beam.Run(t.Context(), "dataflow", pipeline)
	require.NoError(t, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	return translated(t, p.messages)
}

// translated finds what a dry run logs.
func translated(t *testing.T, messages []string) (*pipepb.Pipeline, job) {
	i := slices.IndexFunc(messages, func(m string) bool { return strings.Contains(m, "Dry-run") })
	require.GreaterOrEqual(t, i, 0, "no dry run in %q", messages)
	require.Greater(t, len(messages), i+2)
	model := new(pipepb.Pipeline)
	require.NoError(t, prototext.Unmarshal([]byte(messages[i+1]), model))
	var j job
	require.NoError(t, json.Unmarshal([]byte(messages[i+2]), &j))
	return model, j
}

func TestTheJobHasTheWorkersThatTheFlagsSay(t *testing.T) {
	_, j := dryRun(t, func(s beam.Scope) {
		batchasync.ParDo(s, &price{}, beam.Create(s, 1, 2, 3))
	})
	require.Equal(t, "JOB_TYPE_BATCH", j.Type)
	require.Equal(t, map[string]string{"team": "prices"}, j.Labels)
	require.Contains(t, j.Environment.Experiments, "use_runner_v2")
	require.Len(t, j.Environment.WorkerPools, 1)
	w := j.Environment.WorkerPools[0]
	require.Equal(t, 2, w.NumWorkers)
	require.Equal(t, 20, w.AutoscalingSettings.MaxNumWorkers)
	require.Equal(t, "AUTOSCALING_ALGORITHM_BASIC", w.AutoscalingSettings.Algorithm)
	require.Equal(t, 12, w.NumThreadsPerWorker)
	require.Equal(t, "n2-standard-4", w.MachineType)
	require.Equal(t, "WORKER_IP_PRIVATE", w.IPConfiguration)
	require.Equal(t, "us-docker.pkg.dev/a-project/images/flights:1", w.WorkerHarnessContainerImage)
	require.Len(t, w.Packages, 1)
	require.Equal(t, "worker", w.Packages[0].Name)
	require.True(t, strings.HasPrefix(w.Packages[0].Location, "gs://a-bucket/staging/go-"), w.Packages[0].Location)
}

func TestAnUnboundedSourceMakesAStreamingJob(t *testing.T) {
	_, j := dryRun(t, func(s beam.Scope) {
		batchasync.ParDo(s, &price{}, beam.Reshuffle(s, ticks.Count(s, time.Now(), 1, 1)), batchasync.AcrossBundles())
	})
	require.Equal(t, "JOB_TYPE_STREAMING", j.Type)
	require.Contains(t, j.Environment.Experiments, "enable_streaming_engine")
}

// The example is a program of its own, so it is run as one, as its README says.
func TestTheExampleFlightsIsTranslated(t *testing.T) {
	program := filepath.Join(t.TempDir(), "flights")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-tags=dataflow", "-o", program, "../../examples/flights").CombinedOutput()
	require.NoError(t, err, "%s", out)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	run := exec.CommandContext(ctx, program, "--runner=dataflow", "--dry_run=true", "--project=x", "--region=us-central1",
		"--staging_location=gs://b/s", "--worker_binary="+program)
	run.Dir = t.TempDir()
	logged, err := run.CombinedOutput()
	require.NoError(t, err, "%s", logged)

	var messages []string
	for line := range strings.Lines(string(logged)) {
		_, quoted, _ := strings.Cut(strings.TrimSpace(line), " msg=")
		message, err := strconv.Unquote(quoted)
		require.NoError(t, err, "%s", line)
		messages = append(messages, message)
	}
	model, j := translated(t, messages)
	require.Equal(t, "JOB_TYPE_BATCH", j.Type)
	require.Equal(t, "x", j.ProjectID)
	var names []string
	for _, transform := range model.GetComponents().GetTransforms() {
		names = append(names, transform.GetUniqueName())
	}
	require.Contains(t, names, "enrich.ParDoWithFailures")
	require.Contains(t, names, "enrich.ParDoWithFailures/batchasync.FlatParDoWithFailures")
	left, err := os.ReadDir(run.Dir)
	require.NoError(t, err)
	require.Empty(t, left, "a dry run writes nothing")
}

func TestTheTransformsTravelWithNameCallerAndCoders(t *testing.T) {
	model, _ := dryRun(t, func(s beam.Scope) {
		col := beam.Create(s, 1, 2, 3)
		batchasync.ParDoWithFailures(s.Scope("prices"), &price{Table: "of-2026", password: "swordfish"}, col)
		batchasync.ParDoKV[int](s.Scope("keyed"), &price{}, beam.AddFixedKey(s, col))
	})
	var names []string
	coders := map[string][]string{} // of the outputs, by transform
	for _, transform := range model.GetComponents().GetTransforms() {
		name := transform.GetUniqueName()
		if !strings.Contains(name, "batchasync.") {
			continue
		}
		names = append(names, name)
		for _, id := range transform.GetOutputs() {
			coder := model.GetComponents().GetPcollections()[id].GetCoderId()
			coders[name] = append(coders[name], model.GetComponents().GetCoders()[coder].GetSpec().GetUrn())
		}
		slices.Sort(coders[name])
	}
	slices.Sort(names)
	require.Contains(t, names, "prices/batchasync.ParDoWithFailures")
	var leaf string
	for _, name := range names {
		if strings.HasPrefix(name, "prices/batchasync.ParDoWithFailures/") {
			leaf = name
		}
	}
	require.NotEmpty(t, leaf, names)
	require.Equal(t, []string{"beam:coder:length_prefix:v1", "beam:coder:string_utf8:v1"}, coders[leaf], "a failure's bytes are Go's own, a result's any SDK's")
	require.Equal(t, []string{"beam:coder:kv:v1", "beam:coder:kv:v1"}, coders["keyed/batchasync.ParDoKV"])

	text := model.String()
	require.NotContains(t, text, "swordfish", "what is not exported stays")
}
