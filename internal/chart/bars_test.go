// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func exampleBars() Bars {
	return Bars{
		Title: "Rate & share", Subtitle: "of a service",
		Bars:  []Bar{{"<slow>", 500, 1}, {"fast", 1000, 0}, {"none", 0, 1}},
		Limit: Marker{"limit", 1500},
	}
}

func TestABarIsAsLongAsItsValue(t *testing.T) {
	svg, err := exampleBars().SVG()
	require.NoError(t, err)
	// 0 to 1,500 from 236 to 624.
	require.Equal(t, []string{"258.7"}, attributes(t, svg, "c0", "width"))
	require.Equal(t, []string{"129.3", "1.0"}, attributes(t, svg, "c1", "width"), "one that is nothing can be seen")
	require.Equal(t, []string{"M624.0 80.0V165.0"}, attributes(t, svg, "limit", "d"))
	require.Equal(t, []string{"<slow>: 500", "fast: 1,000", "none: 0"}, elements(t, svg, "title"))
	require.Subset(t, elements(t, svg, "text"), []string{"Rate & share", "of a service", "<slow>", "1,000", "limit: 1,500"})
	require.Contains(t, string(svg), "@media (prefers-color-scheme:dark)")
}

func TestBarsThatCannotBeDrawnAreAnError(t *testing.T) {
	for _, test := range []struct {
		name string
		set  func(*Bars)
		want string
	}{
		{"none", func(b *Bars) { *b = Bars{Title: "T"} }, `chart "T": there is nothing to draw`},
		{"a value that is no number", func(b *Bars) { b.Bars[0].Value = math.NaN() }, `chart "T": the value NaN can't be drawn`},
		{"less than 0", func(b *Bars) { b.Limit.Value = -1 }, `chart "T": the value -1 is below 0, where the axis begins`},
		{"a colour that there isn't", func(b *Bars) { b.Bars[0].Colour = 4 }, `chart "T": the bar "<slow>" has colour 4, but there are 4`},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := exampleBars()
			b.Title = "T"
			test.set(&b)
			_, err := b.SVG()
			require.EqualError(t, err, test.want)
		})
	}
}
