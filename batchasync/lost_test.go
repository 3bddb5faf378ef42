// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package batchasync_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/log"
	"github.com/stretchr/testify/require"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// luggage is a caller with fields of all kinds.
type luggage struct {
	Table  string
	Since  time.Time
	Tags   []string `json:",omitempty"`
	Inner  pocket
	Behind *pocket
	Hidden string `json:"-"`

	mu    sync.Mutex
	table string
}

type pocket struct {
	Open   string
	closed string
}

func (l *luggage) Call(context.Context, []int) ([]int, error) { return nil, nil }

func init() {
	batchasync.Register(&luggage{})
	batchasync.RegisterKV[int](&luggage{})
}

func TestFieldsThatDoNotTravelAreWarnedOf(t *testing.T) {
	locked := &luggage{}
	locked.mu.Lock()
	for name, test := range map[string]struct {
		caller *luggage
		want   []string
	}{
		"nothing is set":                {&luggage{}, nil},
		"all that is set travels":       {&luggage{Table: "t", Since: time.Now(), Tags: []string{"a"}, Inner: pocket{Open: "x"}, Behind: &pocket{Open: "x"}}, nil},
		"an empty slice is as good":     {&luggage{Tags: []string{}}, nil},
		"an unexported field":           {&luggage{table: "t"}, []string{"*batchasync_test.luggage.table"}},
		"a field that JSON leaves out":  {&luggage{Hidden: "t"}, []string{"*batchasync_test.luggage.Hidden"}},
		"a field of a struct":           {&luggage{Inner: pocket{Open: "x", closed: "y"}}, []string{"*batchasync_test.luggage.Inner.closed"}},
		"a field of a struct by itself": {&luggage{Inner: pocket{closed: "y"}}, []string{"*batchasync_test.luggage.Inner"}},
		"a field behind a pointer":      {&luggage{Behind: &pocket{closed: "y"}}, []string{"*batchasync_test.luggage.Behind.closed"}},
		"a field of another package":    {locked, []string{"*batchasync_test.luggage.mu"}},
	} {
		t.Run(name, func(t *testing.T) {
			var l logged
			log.SetLogger(&l)
			t.Cleanup(func() { log.SetLogger(&log.Standard{}) })
			_, s := beam.NewPipelineWithRoot()
			ints := beam.Create(s, 1)
			batchasync.ParDo(s, test.caller, ints)
			batchasync.ParDoKV[int](s, test.caller, beam.AddFixedKey(s, ints))
			var want []string
			for _, verb := range []string{"ParDo", "ParDoKV"} {
				for _, field := range test.want {
					want = append(want, "root/batchasync."+verb+": "+field+" is set, but does not travel to the workers as JSON: export it, or fill it in Setup")
				}
			}
			require.Equal(t, want, l.lines)
		})
	}
}
