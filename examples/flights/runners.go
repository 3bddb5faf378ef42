// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	//lint:ignore SA1019 it shows that the pipeline needs nothing of Prism
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/direct"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/flink"
	_ "github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
)

// linked are the runners that -runner can name, the default first. For another
// one, add its name here and its import above.
var linked = []string{"prism", "direct", "flink"}
