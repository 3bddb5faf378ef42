// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"html"
)

// Bars are values side by side, a line each, with its label before it and its value
// behind it; from 0, linear, for a bar that begins elsewhere lies.
type Bars struct {
	Title, Subtitle string
	Bars            []Bar
	Limit           Marker // dashed; none without a label
}

// A Bar has one of Colours, by its index.
type Bar struct {
	Label  string
	Value  float64
	Colour int
}

// Where the bars are.
const (
	barsLeft, barsRight = 236.0, 96.0
	barsTop, barPitch   = 84.0, 27.0
	barHeight           = 17.0
)

// SVG draws them. What can't be drawn is an error.
func (b Bars) SVG() ([]byte, error) {
	values := []float64{}
	for _, bar := range b.Bars {
		if bar.Colour < 0 || bar.Colour >= len(Colours) {
			return nil, fmt.Errorf("chart %q: the bar %q has colour %d, but there are %d", b.Title, bar.Label, bar.Colour, len(Colours))
		}
		values = append(values, bar.Value)
	}
	if b.Limit.Label != "" {
		values = append(values, b.Limit.Value)
	}
	x, err := Axis{}.scale(values, barsLeft, width-barsRight)
	if err != nil {
		return nil, fmt.Errorf("chart %q: %w", b.Title, err)
	}
	bottom := barsTop + barPitch*float64(len(b.Bars))

	d := &drawing{}
	d.open(bottom+16, b.Title, b.Subtitle)
	if b.Limit.Label != "" {
		d.add(`<path class="limit" d="M%.1f %.1fV%.1f"/>`, x.at(b.Limit.Value), barsTop-4, bottom)
		d.text(x.at(b.Limit.Value), barsTop-10, "quiet middle", b.Limit.Label+": "+number(b.Limit.Value))
	}
	// After the line, so that the values cover it where they meet.
	for i, bar := range b.Bars {
		y := barsTop + barPitch*float64(i)
		d.text(barsLeft-10, y+13, "end", bar.Label)
		d.add(`<rect class="c%d" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s: %s</title></rect>`,
			bar.Colour, barsLeft, y, max(1, x.at(bar.Value)-barsLeft), barHeight, html.EscapeString(bar.Label), number(bar.Value))
		d.text(x.at(bar.Value)+7, y+13, fmt.Sprintf("label c%d", bar.Colour), number(bar.Value))
	}
	d.add("</svg>")
	return []byte(d.String()), nil
}
