// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync

import (
	"context"
)

// BatchAsyncDoFn sends its elements to a Caller, in batches and with several
// calls at once. It has two outputs: the results, and the elements that failed
// for good. ParDo and its siblings apply it; it is public for those who build a
// transform of their own:
//
//	results, failures := beam.ParDo2(s, batchasync.New(caller), col)
//
// New makes it. Its field travels to the workers, and its methods are called by
// the runner, in the order in which they stand here.
type BatchAsyncDoFn[In, Out any, C Caller[In, Out]] struct {
	Config config

	caller *C // as New got it; nil when the DoFn has travelled
	bundle *bundle[struct{}, In, Out]
}

// Setup joins the other instances of the transform in this process. A second
// call for an instance changes nothing.
func (f *BatchAsyncDoFn[In, Out, C]) Setup(context.Context) error {
	return setUp(&f.bundle, f.Config, f.caller)
}

// StartBundle gets hold of the bundle's outputs.
func (f *BatchAsyncDoFn[In, Out, C]) StartBundle(ctx context.Context, results Emit[Out], failures Emit[Failure[In]]) error {
	f.bundle.start(ctx, results.output(), failures.output())
	return nil
}

// ProcessElement puts the element into the open batch, and emits what has been
// answered meanwhile. It waits only while the ring is full.
func (f *BatchAsyncDoFn[In, Out, C]) ProcessElement(in In, _ Emit[Out], _ Emit[Failure[In]]) error {
	return f.bundle.process(struct{}{}, in)
}

// FinishBundle sends what is left, waits for every call and emits the rest.
func (f *BatchAsyncDoFn[In, Out, C]) FinishBundle(context.Context, Emit[Out], Emit[Failure[In]]) error {
	return f.bundle.finish()
}

// Teardown leaves the other instances; the last one tears the caller down.
func (f *BatchAsyncDoFn[In, Out, C]) Teardown(context.Context) error {
	return tearDown(&f.bundle)
}

// flatFn is BatchAsyncDoFn for a caller that has any number of outputs for an
// element.
type flatFn[In, Out any, C Caller[In, []Out]] struct {
	Config config

	caller *C
	bundle *bundle[struct{}, In, []Out]
}

func (f *flatFn[In, Out, C]) Setup(context.Context) error {
	if err := setUp(&f.bundle, f.Config, f.caller); err != nil {
		return err
	}
	f.bundle.result = each(f.bundle)
	return nil
}

func (f *flatFn[In, Out, C]) StartBundle(ctx context.Context, results Emit[Out], failures Emit[Failure[In]]) error {
	f.bundle.start(ctx, results.output(), failures.output())
	return nil
}

func (f *flatFn[In, Out, C]) ProcessElement(in In, _ Emit[Out], _ Emit[Failure[In]]) error {
	return f.bundle.process(struct{}{}, in)
}

func (f *flatFn[In, Out, C]) FinishBundle(context.Context, Emit[Out], Emit[Failure[In]]) error {
	return f.bundle.finish()
}

func (f *flatFn[In, Out, C]) Teardown(context.Context) error { return tearDown(&f.bundle) }

// kvFn is BatchAsyncDoFn for the values of a PCollection<KV<K, In>>.
type kvFn[K, In, Out any, C Caller[In, Out]] struct {
	Config config

	caller *C
	bundle *bundle[K, In, Out]
}

func (f *kvFn[K, In, Out, C]) Setup(context.Context) error {
	if err := setUp(&f.bundle, f.Config, f.caller); err != nil {
		return err
	}
	f.bundle.keyed = true
	return nil
}

func (f *kvFn[K, In, Out, C]) StartBundle(ctx context.Context, results EmitKV[K, Out], failures EmitKV[K, Failure[In]]) error {
	f.bundle.start(ctx, results.output(), failures.output())
	return nil
}

func (f *kvFn[K, In, Out, C]) ProcessElement(key K, in In, _ EmitKV[K, Out], _ EmitKV[K, Failure[In]]) error {
	return f.bundle.process(key, in)
}

func (f *kvFn[K, In, Out, C]) FinishBundle(context.Context, EmitKV[K, Out], EmitKV[K, Failure[In]]) error {
	return f.bundle.finish()
}

func (f *kvFn[K, In, Out, C]) Teardown(context.Context) error { return tearDown(&f.bundle) }

// flatKVFn is flatFn for the values of a PCollection<KV<K, In>>.
type flatKVFn[K, In, Out any, C Caller[In, []Out]] struct {
	Config config

	caller *C
	bundle *bundle[K, In, []Out]
}

func (f *flatKVFn[K, In, Out, C]) Setup(context.Context) error {
	if err := setUp(&f.bundle, f.Config, f.caller); err != nil {
		return err
	}
	f.bundle.keyed, f.bundle.result = true, each(f.bundle)
	return nil
}

func (f *flatKVFn[K, In, Out, C]) StartBundle(ctx context.Context, results EmitKV[K, Out], failures EmitKV[K, Failure[In]]) error {
	f.bundle.start(ctx, results.output(), failures.output())
	return nil
}

func (f *flatKVFn[K, In, Out, C]) ProcessElement(key K, in In, _ EmitKV[K, Out], _ EmitKV[K, Failure[In]]) error {
	return f.bundle.process(key, in)
}

func (f *flatKVFn[K, In, Out, C]) FinishBundle(context.Context, EmitKV[K, Out], EmitKV[K, Failure[In]]) error {
	return f.bundle.finish()
}

func (f *flatKVFn[K, In, Out, C]) Teardown(context.Context) error { return tearDown(&f.bundle) }

// each emits an answer as as many outputs as it has.
func each[K, In, Out any](b *bundle[K, In, []Out]) func(*entry[K, In], []Out) error {
	return func(e *entry[K, In], outs []Out) error {
		for _, out := range outs {
			if err := b.put(b.results, e, out); err != nil {
				return err
			}
		}
		return nil
	}
}
