// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// elements reads the whole of an SVG, and returns the texts of its elements of a
// name.
func elements(t require.TestingT, svg []byte, name string) (texts []string) {
	decoder := xml.NewDecoder(strings.NewReader(string(svg)))
	decoder.Strict = true
	in := 0
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return texts
		}
		require.NoError(t, err)
		switch token := token.(type) {
		case xml.StartElement:
			if token.Name.Local == name {
				in++
				texts = append(texts, "")
			}
		case xml.EndElement:
			if token.Name.Local == name {
				in--
			}
		case xml.CharData:
			if in > 0 {
				texts[len(texts)-1] += string(token)
			}
		}
	}
}

// attributes are those of all elements with a class.
func attributes(t *testing.T, svg []byte, class, name string) (values []string) {
	decoder := xml.NewDecoder(strings.NewReader(string(svg)))
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return values
		}
		require.NoError(t, err)
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		of := map[string]string{}
		for _, a := range start.Attr {
			of[a.Name.Local] = a.Value
		}
		if of["class"] == class {
			values = append(values, of[name])
		}
	}
}

func example() Chart {
	return Chart{
		Title: "Rate & share <by> pools", Subtitle: "of a service",
		X: Axis{Title: "pools", Base: 2}, Y: Axis{Title: "calls/s"},
		Lines: []Line{
			{Label: "<fixed>", Points: []Point{{1, 100}, {2, 200}, {4, 50}}},
			{Label: "adaptive:\nbetter", Points: []Point{{1, 90}, {2, 190}, {4, 1234}}},
			{Label: "alone", Place: Left, Points: []Point{{2.5, 300}}},
		},
		Limits: []Marker{{"limit", 1500}},
		Marks:  []Marker{{"capacity", 2}},
	}
}

func TestTheChartHasAllThatItWasGiven(t *testing.T) {
	svg, err := example().SVG()
	require.NoError(t, err)
	require.Equal(t, []string{
		"1: 100", "2: 200", "4: 50",
		"1: 90", "2: 190", "4: 1,234",
		"2.5: 300",
	}, elements(t, svg, "title"), "each point")
	texts := elements(t, svg, "text")
	require.Subset(t, texts, []string{"Rate & share <by> pools", "of a service", "pools", "calls/s"})
	require.Subset(t, texts, []string{"<fixed>", "adaptive:", "better", "alone", "limit", "capacity"})
	require.Subset(t, texts, []string{"0", "500", "1,000", "1,500", "1", "2", "4"}, "the ticks")
	require.Contains(t, string(svg), "@media (prefers-color-scheme:dark)")
	require.Len(t, attributes(t, svg, "limit", "d"), 1)
	require.Len(t, attributes(t, svg, "mark", "d"), 1)
}

func TestAPointIsDrawnWhereItsValuesAre(t *testing.T) {
	svg, err := example().SVG()
	require.NoError(t, err)
	// x is 1 to 4 in two equal steps from 88 to 534, y 0 to 1,500 from 378 to 96.
	require.Equal(t, []string{"M88.0 359.2L311.0 340.4L534.0 368.6"}, attributes(t, svg, "line s0", "d"))
	require.Empty(t, attributes(t, svg, "line s2", "d"), "a single point has no line")
	require.Equal(t, []string{"translate(382.8 321.6)"}, attributes(t, svg, "point c2", "transform"))
	require.Equal(t, []string{"M88.0 96.0H534.0"}, attributes(t, svg, "limit", "d"))
	require.Equal(t, []string{"M311.0 378.0V96.0"}, attributes(t, svg, "mark", "d"))
}

func TestAnAxisHasRoundTicks(t *testing.T) {
	for _, test := range []struct {
		name   string
		axis   Axis
		values []float64
		want   []float64
	}{
		{"linear", Axis{}, []float64{3, 114_285.7}, []float64{0, 20_000, 40_000, 60_000, 80_000, 100_000, 120_000}},
		{"linear, a value is the end", Axis{}, []float64{5}, []float64{0, 1, 2, 3, 4, 5}},
		{"linear, all is 0", Axis{}, []float64{0, 0}, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
		{"linear, small", Axis{}, []float64{0.25}, []float64{0, 0.05, 0.1, 0.15, 0.2, 0.25}},
		{"powers of 2", Axis{Base: 2}, []float64{1, 3, 256}, []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}},
		{"powers of 10, the ends between them", Axis{Base: 10}, []float64{175, 2480}, []float64{100, 1000, 10_000}},
		{"powers of 10, less than one", Axis{Base: 10}, []float64{0.5}, []float64{0.1, 1}},
		{"one value that is a power", Axis{Base: 10}, []float64{1000}, []float64{1000, 10_000}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := test.axis.scale(test.values, 0, 100)
			require.NoError(t, err)
			require.InDeltaSlice(t, test.want, s.ticks, 1e-9)
			require.InDelta(t, 0, s.at(s.ticks[0]), 1e-9)
			require.InDelta(t, 100, s.at(s.ticks[len(s.ticks)-1]), 1e-9)
		})
	}
}

func TestWhatCannotBeDrawnIsAnError(t *testing.T) {
	for _, test := range []struct {
		name string
		set  func(*Chart)
		want string
	}{
		{"nothing", func(c *Chart) { *c = Chart{Title: "T"} }, `chart "T", x axis: there is nothing to draw`},
		{"a line without points", func(c *Chart) { c.Lines[1].Points = nil }, `chart "T": the line "adaptive:\nbetter" has no points: give it some, or leave it out`},
		{"a value that is no number", func(c *Chart) { c.Lines[0].Points[1].Y = math.NaN() }, `chart "T", y axis: the value NaN can't be drawn`},
		{"a limit without end", func(c *Chart) { c.Limits[0].Value = math.Inf(1) }, `chart "T", y axis: the value +Inf can't be drawn`},
		{"0 on a logarithmic axis", func(c *Chart) { c.Marks[0].Value = 0 }, `chart "T", x axis: the value 0 is not on a logarithmic axis: make the axis linear, or leave the value out`},
		{"less than 0", func(c *Chart) { c.Lines[0].Points[0].Y = -1 }, `chart "T", y axis: the value -1 is below 0, where the axis begins`},
		{"more lines than colours", func(c *Chart) { c.Lines = append(c.Lines, c.Lines...) }, `chart "T" has 6 lines, but there are 4 colours: draw two charts`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := example()
			c.Title = "T"
			test.set(&c)
			_, err := c.SVG()
			require.EqualError(t, err, test.want)
		})
	}
}

func TestTheLabelsOfTheMarginCoverNoOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		labels := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) label {
			return label{
				y:    rapid.Float64Range(top, height-bottom).Draw(t, "y"),
				text: rapid.SampledFrom([]string{"one line", "two\nlines"}).Draw(t, "text"),
			}
		}), 1, 6).Draw(t, "labels")
		middles := spread(labels)
		for i, l := range labels {
			require.LessOrEqual(t, middles[i]+l.height()/2, height)
			require.GreaterOrEqual(t, middles[i]-l.height()/2, 0.0)
			if i > 0 {
				require.LessOrEqual(t, labels[i-1].y, l.y)
				require.LessOrEqual(t, middles[i-1]+labels[i-1].height()/2, middles[i]-l.height()/2)
			}
		}
	})
}

func TestALabelWithRoomIsBesideItsLine(t *testing.T) {
	require.Equal(t, []float64{100, 200, 300}, spread([]label{{y: 300}, {y: 100}, {y: 200, text: "\n"}}))
	require.Equal(t, []float64{100, 122, 300}, spread([]label{{y: 100}, {y: 100}, {y: 300}}), "what has none is below the one before")
	require.Equal(t, []float64{364, 386}, spread([]label{{y: 378}, {y: 378}}), "or above it, at the end of the page, a line below the axis at most")
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.25: "0.25", 7.84: "7.84", 12.345: "12.3", 16: "16", 999: "999", 1000: "1,000", 114285.7: "114,286", 1e6: "1,000,000"} {
		require.Equal(t, want, number(v))
	}
}
