// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package jobserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"regexp"

	jobpb "github.com/apache/beam/sdks/v2/go/pkg/beam/model/jobmanagement_v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"
)

var optionName = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// parseOptions returns pipeline options as a job carries them.
func parseOptions(options map[string]string) (map[string]*structpb.Value, error) {
	parsed := map[string]*structpb.Value{}
	for _, name := range sorted(options) {
		if !optionName.MatchString(name) {
			return nil, fmt.Errorf("pipeline option %q: must be a name in small letters, such as max_bundle_size", name)
		}
		var v any
		if err := json.Unmarshal([]byte(options[name]), &v); err != nil {
			v = options[name]
		}
		value, err := structpb.NewValue(v)
		if err != nil {
			return nil, fmt.Errorf("pipeline option %s=%s: %w", name, options[name], err)
		}
		parsed["beam:option:"+name+":v1"] = value
	}
	return parsed, nil
}

// dial connects to a job service.
func dial(endpoint string) (*grpc.ClientConn, error) {
	return grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
}

// probe returns when the job service at endpoint answers.
func probe(ctx context.Context, endpoint string) (err error) {
	conn, err := dial(endpoint)
	if err != nil {
		return err
	}
	defer func() {
		// It was only read from.
		_ = conn.Close()
	}()
	_, err = jobpb.NewJobServiceClient(conn).GetJobs(ctx, &jobpb.GetJobsRequest{}, grpc.WaitForReady(true))
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// A proxy is a job service that passes all on to another one, and adds options
// to each job on the way.
type proxy struct {
	jobpb.UnimplementedJobServiceServer

	client   jobpb.JobServiceClient
	options  map[string]*structpb.Value
	conn     *grpc.ClientConn
	listener net.Listener
	server   *grpc.Server
	served   chan struct{} // closed when server has ended
}

func startProxy(endpoint string, options map[string]*structpb.Value) (*proxy, error) {
	conn, err := dial(endpoint)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{
		client:   jobpb.NewJobServiceClient(conn),
		options:  options,
		conn:     conn,
		listener: listener,
		server:   grpc.NewServer(grpc.MaxRecvMsgSize(math.MaxInt32)),
		served:   make(chan struct{}),
	}
	jobpb.RegisterJobServiceServer(p.server, p)
	go func() {
		defer close(p.served)
		// It ends by stop alone.
		_ = p.server.Serve(listener)
	}()
	return p, nil
}

func (p *proxy) endpoint() string { return p.listener.Addr().String() }

func (p *proxy) stop() {
	p.server.Stop()
	<-p.served
	// There is nothing left that could be lost.
	_ = p.conn.Close()
}

// Prepare adds the options; one that the program has set itself stays.
func (p *proxy) Prepare(ctx context.Context, req *jobpb.PrepareJobRequest) (*jobpb.PrepareJobResponse, error) {
	if req.PipelineOptions == nil {
		req.PipelineOptions = &structpb.Struct{}
	}
	if req.PipelineOptions.Fields == nil {
		req.PipelineOptions.Fields = map[string]*structpb.Value{}
	}
	for name, value := range p.options {
		if _, set := req.PipelineOptions.Fields[name]; !set {
			req.PipelineOptions.Fields[name] = value
		}
	}
	return p.client.Prepare(ctx, req)
}

func (p *proxy) Run(ctx context.Context, req *jobpb.RunJobRequest) (*jobpb.RunJobResponse, error) {
	return p.client.Run(ctx, req)
}

func (p *proxy) GetJobs(ctx context.Context, req *jobpb.GetJobsRequest) (*jobpb.GetJobsResponse, error) {
	return p.client.GetJobs(ctx, req)
}

func (p *proxy) GetState(ctx context.Context, req *jobpb.GetJobStateRequest) (*jobpb.JobStateEvent, error) {
	return p.client.GetState(ctx, req)
}

func (p *proxy) GetPipeline(ctx context.Context, req *jobpb.GetJobPipelineRequest) (*jobpb.GetJobPipelineResponse, error) {
	return p.client.GetPipeline(ctx, req)
}

func (p *proxy) Cancel(ctx context.Context, req *jobpb.CancelJobRequest) (*jobpb.CancelJobResponse, error) {
	return p.client.Cancel(ctx, req)
}

func (p *proxy) GetJobMetrics(ctx context.Context, req *jobpb.GetJobMetricsRequest) (*jobpb.GetJobMetricsResponse, error) {
	return p.client.GetJobMetrics(ctx, req)
}

func (p *proxy) DescribePipelineOptions(ctx context.Context, req *jobpb.DescribePipelineOptionsRequest) (*jobpb.DescribePipelineOptionsResponse, error) {
	return p.client.DescribePipelineOptions(ctx, req)
}

func (p *proxy) GetStateStream(req *jobpb.GetJobStateRequest, to jobpb.JobService_GetStateStreamServer) error {
	from, err := p.client.GetStateStream(to.Context(), req)
	if err != nil {
		return err
	}
	return pass(from.Recv, to.Send)
}

func (p *proxy) GetMessageStream(req *jobpb.JobMessagesRequest, to jobpb.JobService_GetMessageStreamServer) error {
	from, err := p.client.GetMessageStream(to.Context(), req)
	if err != nil {
		return err
	}
	return pass(from.Recv, to.Send)
}

// pass sends what it receives.
func pass[T any](receive func() (T, error), send func(T) error) error {
	for {
		message, err := receive()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := send(message); err != nil {
			return err
		}
	}
}
