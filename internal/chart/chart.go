// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

// Package chart draws line charts as SVG, for the documents: one file
// for light and dark pages, with labels at the lines in place of a legend.
package chart

import (
	"cmp"
	"errors"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// A Chart is 720 pixels wide. "\n" in a label begins another line.
type Chart struct {
	Title, Subtitle string
	X, Y            Axis
	Lines           []Line   // at most as many as there are Colours
	Limits          []Marker // dashed, at a height
	Marks           []Marker // dotted, at a place of the x axis
}

// An Axis is linear from 0, or, with a Base above 1, logarithmic with ticks at
// the powers of the base. Its end is found from what is drawn.
type Axis struct {
	Title string
	Base  float64
}

// A Line connects its points; one that has a single point is its marker alone.
type Line struct {
	Label  string
	Place  Place
	Points []Point
}

// A Point is a value at a place of the x axis.
type Point struct{ X, Y float64 }

// A Marker is a value of an axis that has a meaning.
type Marker struct {
	Label string
	Value float64
}

// Place says where a line's label is.
type Place int

const (
	// Margin is to the right of the chart, beside the line's last point.
	Margin Place = iota

	// Left is to the left of the line's first point, inside the chart.
	Left

	// Right is to the right of the line's last point, inside the chart.
	Right
)

// The size of the whole, and what the axes are inset by.
const (
	width, height = 720.0, 430.0
	left, right   = 88.0, 186.0
	top, bottom   = 96.0, 52.0
	lineHeight    = 16.0
)

// SVG draws the chart. What can't be drawn (no point, or one that is no number,
// or not on a logarithmic axis) is an error.
func (c Chart) SVG() ([]byte, error) {
	if len(c.Lines) > len(Colours) {
		return nil, fmt.Errorf("chart %q has %d lines, but there are %d colours: draw two charts", c.Title, len(c.Lines), len(Colours))
	}
	var xs, ys []float64
	for _, line := range c.Lines {
		if len(line.Points) == 0 {
			return nil, fmt.Errorf("chart %q: the line %q has no points: give it some, or leave it out", c.Title, line.Label)
		}
		for _, p := range line.Points {
			xs, ys = append(xs, p.X), append(ys, p.Y)
		}
	}
	for _, m := range c.Limits {
		ys = append(ys, m.Value)
	}
	for _, m := range c.Marks {
		xs = append(xs, m.Value)
	}
	x, err := c.X.scale(xs, left, width-right)
	if err != nil {
		return nil, fmt.Errorf("chart %q, x axis: %w", c.Title, err)
	}
	y, err := c.Y.scale(ys, height-bottom, top)
	if err != nil {
		return nil, fmt.Errorf("chart %q, y axis: %w", c.Title, err)
	}

	d := &drawing{}
	d.open(height, c.Title, c.Subtitle)

	for _, tick := range y.ticks {
		d.add(`<path class="grid" d="M%.1f %.1fH%.1f"/>`, left, y.at(tick), width-right)
		d.text(left-8, y.at(tick)+4, "quiet end", number(tick))
	}
	d.text(20, top-14, "quiet", c.Y.Title)
	for _, tick := range x.ticks {
		d.add(`<path class="grid" d="M%.1f %.1fv5"/>`, x.at(tick), height-bottom)
		d.text(x.at(tick), height-bottom+19, "quiet middle", number(tick))
	}
	d.text((left+width-right)/2, height-bottom+40, "quiet middle", c.X.Title)

	var labels []label
	for _, m := range c.Marks {
		d.add(`<path class="mark" d="M%.1f %.1fV%.1f"/>`, x.at(m.Value), height-bottom, top)
		d.text(x.at(m.Value), top-6, "quiet middle", m.Label)
	}
	for _, m := range c.Limits {
		d.add(`<path class="limit" d="M%.1f %.1fH%.1f"/>`, left, y.at(m.Value), width-right)
		labels = append(labels, label{y.at(m.Value), "quiet", m.Label})
	}
	for i, line := range c.Lines {
		d.line(i, line, x, y)
		first, last := line.Points[0], line.Points[len(line.Points)-1]
		class := fmt.Sprintf("label c%d", i)
		switch line.Place {
		case Margin:
			labels = append(labels, label{y.at(last.Y), class, line.Label})
		case Left:
			d.text(x.at(first.X)-12, y.at(first.Y)-lineHeight/2, class+" end", line.Label)
		case Right:
			d.text(x.at(last.X)+12, y.at(last.Y)-lineHeight/2, class, line.Label)
		}
	}
	for i, middle := range spread(labels) {
		d.add(`<path class="leader" d="M%.1f %.1fL%.1f %.1f"/>`, width-right+6, labels[i].y, width-right+18, middle)
		d.text(width-right+24, middle-labels[i].height()/2+12, labels[i].class, labels[i].text)
	}
	d.add("</svg>")
	return []byte(d.String()), nil
}

// A scale maps values to pixels.
type scale struct {
	ticks    []float64
	lo, hi   float64 // values, or their logarithms
	from, to float64 // pixels
	log      bool
}

func (s scale) at(value float64) float64 {
	if s.log {
		value = math.Log(value)
	}
	return s.from + (value-s.lo)/(s.hi-s.lo)*(s.to-s.from)
}

func (a Axis) scale(values []float64, from, to float64) (scale, error) {
	if len(values) == 0 {
		return scale{}, errors.New("there is nothing to draw")
	}
	s := scale{from: from, to: to, log: a.Base > 1}
	for _, v := range values {
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0):
			return s, fmt.Errorf("the value %v can't be drawn", v)
		case s.log && v <= 0:
			return s, fmt.Errorf("the value %v is not on a logarithmic axis: make the axis linear, or leave the value out", v)
		case v < 0:
			return s, fmt.Errorf("the value %v is below 0, where the axis begins", v)
		}
	}
	least, most := slices.Min(values), slices.Max(values)
	if s.log {
		// The least slack, so that 1000 is the third power of 10.
		power := func(v float64) float64 { return math.Log(v) / math.Log(a.Base) }
		low, high := math.Floor(power(least)+1e-9), math.Ceil(power(most)-1e-9)
		high = max(high, low+1)
		for i := low; i <= high; i++ {
			s.ticks = append(s.ticks, math.Pow(a.Base, i))
		}
		s.lo, s.hi = low*math.Log(a.Base), high*math.Log(a.Base)
		return s, nil
	}
	if most == 0 {
		most = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for _, part := range []float64{0.1, 0.2, 0.5} {
		if most/(step*part) <= 6 {
			step *= part
			break
		}
	}
	for i := range int(math.Ceil(most/step)) + 1 {
		s.ticks = append(s.ticks, float64(i)*step)
	}
	s.hi = s.ticks[len(s.ticks)-1]
	return s, nil
}

// A label is one of the margin's, with the height of what it belongs to.
type label struct {
	y     float64
	class string
	text  string
}

func (l label) height() float64 {
	return float64(1+strings.Count(l.text, "\n")) * lineHeight
}

// spread returns where the middles of the labels are, each as near to its own
// height as it can be without covering another.
func spread(labels []label) []float64 {
	slices.SortStableFunc(labels, func(a, b label) int { return cmp.Compare(a.y, b.y) })
	const gap = 6.0
	middles := make([]float64, len(labels))
	edge := math.Inf(-1)
	for i, l := range labels {
		middles[i] = max(l.y, edge+gap+l.height()/2)
		edge = middles[i] + l.height()/2
	}
	// What has been pushed out below pushes back.
	edge = height - bottom + lineHeight + gap
	for i := len(labels) - 1; i >= 0; i-- {
		half := labels[i].height() / 2
		middles[i] = min(middles[i], edge-gap-half)
		edge = middles[i] - half
	}
	return middles
}

// A drawing is the text of an SVG.
type drawing struct{ strings.Builder }

func (d *drawing) add(format string, args ...any) {
	fmt.Fprintf(&d.Builder, format+"\n", args...)
}

// open begins the page.
func (d *drawing) open(height float64, title, subtitle string) {
	d.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img" aria-labelledby="title subtitle">`, width, height, width, height)
	d.add("<style>\n%s</style>", style())
	d.add(`<rect class="page" x="0.5" y="0.5" width="%.0f" height="%.0f" rx="6"/>`, width-1, height-1)
	d.add(`<text id="title" class="title" x="20" y="32">%s</text>`, html.EscapeString(title))
	d.add(`<text id="subtitle" class="quiet" x="20" y="53">%s</text>`, html.EscapeString(subtitle))
}

// text writes lines of text, the first at that baseline.
func (d *drawing) text(x, y float64, class, text string) {
	for i, line := range strings.Split(text, "\n") {
		d.add(`<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y+float64(i)*lineHeight, html.EscapeString(line))
	}
}

// line draws a line and its points, which have their values as titles.
func (d *drawing) line(i int, line Line, x, y scale) {
	var path []string
	for _, p := range line.Points {
		path = append(path, fmt.Sprintf("%.1f %.1f", x.at(p.X), y.at(p.Y)))
	}
	shape := shapes[i%len(shapes)]
	if len(line.Points) > 1 {
		d.add(`<path class="line s%d" d="M%s"/>`, i, strings.Join(path, "L"))
	} else {
		shape = "M0-8L8 0L0 8L-8 0Z" // it stands alone, so it is larger
	}
	for j, p := range line.Points {
		d.add(`<path class="point c%d" transform="translate(%s)" d="%s"><title>%s: %s</title></path>`, i, path[j], shape, number(p.X), number(p.Y))
	}
}

// shapes tell the lines apart for those who can't by colour.
var shapes = []string{
	"M-4 0A4 4 0 1 1 4 0A4 4 0 1 1-4 0Z", // a circle
	"M-3.6-3.6H3.6V3.6H-3.6Z",            // a square
	"M0-5L5 3.7H-5Z",                     // a triangle
	"M0-5L5 0L0 5L-5 0Z",                 // a diamond
}

// number is v with a comma behind each three digits, or with three digits if it
// is small and has decimals.
func number(v float64) string {
	if v < 100 && v != math.Trunc(v) {
		return fmt.Sprintf("%.3g", v)
	}
	digits := fmt.Sprintf("%.0f", v)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
