// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/graph/mtime"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/core/sdf"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/io/rtrackers/offsetrange"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func init() {
	register.DoFn5x2[context.Context, *sdf.ManualWatermarkEstimator, *sdf.LockRTracker, []byte, func(beam.EventTime, Message), sdf.ProcessContinuation, error](&readFn{})
	register.Emitter2[beam.EventTime, Message]()
}

const (
	// A bundle of the source ends after so long, or so many messages: Prism
	// hands on what a bundle has emitted when the bundle ends. With shorter ones
	// messages wait less, but each bundle costs the runner about a millisecond.
	bundleTime = 10 * time.Millisecond
	bundleSize = 1000

	// While there is no message, the watermark follows the clock at this distance.
	// It has to be more than the clocks of the server and of the worker differ by.
	idleLag = time.Second

	// A message with this header is the last one of its subject.
	lastHeader = "Stream-Last"
)

// A Message is what the source reads.
type Message struct {
	ID        string // the header Nats-Msg-Id, or else the place in the stream
	Data      []byte
	Published time.Time // when JetStream stored it, by its server's clock
}

// readFn reads the messages of a subject of JetStream, from the first one to the one
// with lastHeader, each at the time at which it was published.
//
// It stands in for Beam's io/natsio, which can't be used on Prism for a stream that
// does not pause. A bundle of natsio ends when its runner splits it, which Prism does
// not do while elements come, or after three seconds without a message; and until then
// nothing of it leaves the source. Of 500 messages a second for ten seconds, the first
// came out 16 seconds after it was published, with all others. After a pause natsio
// is away for five seconds. It takes no notice of its context: it read on when
// beam.Run had returned, for as long as messages came. And it has no end but a place
// in the stream that is known beforehand. This one ends its bundle itself, asks to be
// called again at once, and ends with a message.
//
// As in natsio, nothing is acknowledged. The place in the stream is the restriction,
// which a runner with checkpoints keeps together with what has been emitted.
type readFn struct {
	URL, Credentials string // Credentials is a file of the workers; empty: none
	Stream, Subject  string

	// All of this is kept from bundle to bundle.
	nc       *nats.Conn
	consumer jetstream.Consumer
	messages jetstream.MessagesContext
	next     int64     // the place in the stream where messages go on
	seen     time.Time // all that was published before has been read
}

func (f *readFn) CreateInitialRestriction([]byte) offsetrange.Restriction {
	return offsetrange.Restriction{Start: 1, End: math.MaxInt64 - 1} // one less, for the tracker adds one
}

func (f *readFn) CreateTracker(r offsetrange.Restriction) *sdf.LockRTracker {
	return sdf.NewLockRTracker(&wholeTracker{offsetrange.NewTracker(r)})
}

// wholeTracker lets a bundle end, but nobody share the rest of the stream: that which
// is yet to come can't be read beside that which comes now. And it knows no end,
// though the last place in a stream has a number.
type wholeTracker struct{ *offsetrange.Tracker }

func (t *wholeTracker) IsBounded() bool { return false }

func (t *wholeTracker) TrySplit(fraction float64) (primary, residual any, err error) {
	if fraction > 0 {
		return t.GetRestriction(), nil, nil
	}
	return t.Tracker.TrySplit(fraction)
}

func (f *readFn) RestrictionSize([]byte, offsetrange.Restriction) float64 { return 1 }

func (f *readFn) SplitRestriction(_ []byte, r offsetrange.Restriction) []offsetrange.Restriction {
	return []offsetrange.Restriction{r}
}

// TruncateRestriction drops what has not been read when a job drains.
func (f *readFn) TruncateRestriction(*sdf.LockRTracker, []byte) offsetrange.Restriction {
	return offsetrange.Restriction{}
}

func (f *readFn) CreateWatermarkEstimator() *sdf.ManualWatermarkEstimator {
	return &sdf.ManualWatermarkEstimator{}
}

func (f *readFn) ProcessElement(ctx context.Context, watermark *sdf.ManualWatermarkEstimator, tracker *sdf.LockRTracker, _ []byte, emit func(beam.EventTime, Message)) (sdf.ProcessContinuation, error) {
	bundle, cancel := context.WithTimeout(ctx, bundleTime)
	defer cancel()
	from := tracker.GetRestriction().(offsetrange.Restriction).Start
	if err := f.open(ctx, from); err != nil {
		f.close()
		return sdf.StopProcessing(), fmt.Errorf("read %s from %d on: %w", f.Subject, from, err)
	}
	defer func() { watermark.UpdateWatermark(f.seen) }()
	for read := range bundleSize {
		message, err := f.messages.Next(jetstream.NextContext(bundle))
		if ctx.Err() != nil {
			f.close()
			return sdf.StopProcessing(), context.Cause(ctx)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			if read == 0 {
				f.idle(ctx)
			}
			break
		}
		if err != nil {
			f.close()
			return sdf.StopProcessing(), fmt.Errorf("read %s: %w", f.Subject, err)
		}
		at, err := message.Metadata()
		if err != nil {
			return sdf.StopProcessing(), err
		}
		if message.Headers().Get(lastHeader) != "" {
			f.close()
			tracker.TryClaim(tracker.GetRestriction().(offsetrange.Restriction).End) // there is nothing behind it
			return sdf.StopProcessing(), tracker.GetError()
		}
		if !tracker.TryClaim(int64(at.Sequence.Stream)) {
			f.close() // it is another bundle's, which has to get it again
			return sdf.StopProcessing(), tracker.GetError()
		}
		f.next = int64(at.Sequence.Stream) + 1
		f.seen = at.Timestamp
		id := cmp.Or(message.Headers().Get(nats.MsgIdHdr), strconv.FormatInt(f.next-1, 10))
		emit(mtime.FromTime(at.Timestamp), Message{ID: id, Data: message.Data(), Published: at.Timestamp})
	}
	return sdf.ResumeProcessingIn(0), nil
}

// idle lets seen follow the clock when there is nothing to read, so that windows close
// though nothing is published. That no message has come does not mean that there is
// none: the server is asked, once a second. If it doesn't answer, windows wait.
func (f *readFn) idle(ctx context.Context) {
	now := time.Now()
	if now.Sub(f.seen) < 2*idleLag {
		return
	}
	info, err := f.consumer.Info(ctx)
	if err == nil && info.NumPending == 0 && int64(info.Delivered.Stream) < f.next {
		f.seen = now.Add(-idleLag)
	}
}

// connect connects to JetStream, with a file of credentials if one is named.
func connect(url, credentials string, opts ...jetstream.JetStreamOpt) (jetstream.JetStream, error) {
	var options []nats.Option
	if credentials != "" {
		options = append(options, nats.UserCredentials(credentials))
	}
	nc, err := nats.Connect(url, options...)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, opts...)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return js, nil
}

// open makes messages begin at a place in the stream, if that isn't where they are.
func (f *readFn) open(ctx context.Context, from int64) error {
	if f.messages != nil && f.next == from {
		return nil
	}
	f.close()
	js, err := connect(f.URL, f.Credentials)
	if err != nil {
		return err
	}
	f.nc = js.Conn()
	// An ordered consumer finds out about a message that it has missed, and goes
	// back for it.
	f.consumer, err = js.OrderedConsumer(ctx, f.Stream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{f.Subject}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: uint64(from),
	})
	if err != nil {
		return err
	}
	f.messages, err = f.consumer.Messages()
	f.next = from
	return err
}

func (f *readFn) close() {
	if f.messages != nil {
		f.messages.Stop()
		f.messages = nil
	}
	if f.nc != nil {
		f.nc.Close()
		f.nc = nil
	}
}

func (f *readFn) Teardown() { f.close() }
