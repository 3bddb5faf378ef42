// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package redislookup

import (
	"errors"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// transient are the beginnings of the errors of Redis that another attempt may
// help: the server starts, fails over, or has too much to do. go-redis knows them
// too, but says so of none but to itself, and not of OOM, BUSY and redirections
// that it has given up on. Whatever else Redis says is wrong would be wrong again.
var transient = []string{
	"LOADING ", "READONLY ", "MASTERDOWN ", "CLUSTERDOWN ", "TRYAGAIN ", "MOVED ", "ASK ",
	"OOM ", "BUSY ", "max number of clients ", // reached, or + cluster connections reached
}

// notCluster are the beginnings of the errors that a node of a cluster has for who
// takes it for a server of its own.
var notCluster = []string{"MOVED ", "ASK ", "CROSSSLOT "}

// judge marks an error that is not worth another attempt. One that is not Redis's
// is of the connection, and is: a restart, a time-out, a pool that is used up.
func (s *Server) judge(err error) error {
	var said redis.Error
	begins := func(beginning string) bool { return redis.HasErrorPrefix(said, beginning) }
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &said):
		// The network's own errors often don't say whom they were about.
		return fmt.Errorf("ask Redis at %s: %w", s.Address, err)
	case !s.Cluster && slices.ContainsFunc(notCluster, begins):
		return batchasync.Permanent(fmt.Errorf("%w (the server is a node of a cluster: set Cluster)", err))
	case slices.ContainsFunc(transient, begins):
		return err
	}
	return batchasync.Permanent(err)
}

// wrongType reports whether an error speaks of what is at one key.
func wrongType(err error) bool { return redis.HasErrorPrefix(err, "WRONGTYPE") }

// An answer gathers what a Lookup has found.
type answer[V any] struct {
	server *Server
	values map[string]V
	failed batchasync.BatchError
	// Commands that failed, and not for what is at their key.
	causes map[string]int // by what they said
	cause  error          // one of them
}

func newAnswer[V any](s *Server, keys int) *answer[V] {
	return &answer[V]{server: s, values: make(map[string]V, keys), causes: map[string]int{}}
}

// fail takes in that the command for a key has failed.
func (a *answer[V]) fail(i int, err error) {
	err = a.server.judge(err)
	a.failed.Fail(i, err)
	if !wrongType(err) {
		a.cause = err
		a.causes[err.Error()]++
	}
}

// result is that of Lookup. Where all commands failed for one and the same reason,
// it was not for their keys: then the call has failed, and counts as one with
// batchasync's breaker and limits.
func (a *answer[V]) result(keys int) (map[string]V, error) {
	if a.cause != nil && a.causes[a.cause.Error()] == keys {
		return nil, a.cause
	}
	return a.values, a.failed.Err()
}
