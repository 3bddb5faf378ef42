// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"strings"
)

// A Colour is one of a line and its label, on light and on dark pages.
type Colour struct{ Light, Dark string }

// Colours are those of the lines: each can be read as text on its page, and the
// colour-blind can tell each from the others; see TestTextCanBeRead and
// TestTheColourBlindCanTellTheLinesApart.
var Colours = []Colour{
	{"#0969da", "#4a98f5"}, // blue
	{"#b85a10", "#d9781a"}, // orange
	{"#1f4d2e", "#6eeaae"}, // green
	{"#6b1f85", "#ecc8fa"}, // purple
}

// The colours of everything else.
var (
	page  = Colour{"#ffffff", "#0d1117"}
	ink   = Colour{"#1f2328", "#f0f6fc"}
	quiet = Colour{"#59636e", "#9198a1"}
	grid  = Colour{"#d1d9e0", "#30363d"}
)

// style has all colours twice. The page is coloured too: where a site is dark and
// the reader's system is not, or the other way round, the chart can be read.
func style() string {
	var b strings.Builder
	b.WriteString(`text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif}
.title{font-size:17px;font-weight:600}
.label{font-weight:600;paint-order:stroke;stroke-width:4px;stroke-linejoin:round}
.middle{text-anchor:middle}
.end{text-anchor:end}
.line,.limit,.mark,.leader,.grid{fill:none}
.line{stroke-width:2.5;stroke-linejoin:round}
.point{stroke-width:1.5}
.limit{stroke-width:1.5;stroke-dasharray:6 4}
.mark{stroke-width:1.5;stroke-dasharray:2 4}
`)
	write := func(of func(Colour) string) {
		fmt.Fprintf(&b, ".page{fill:%s;stroke:%s}\n", of(page), of(grid))
		fmt.Fprintf(&b, "text{fill:%s}\n", of(ink))
		fmt.Fprintf(&b, ".quiet{fill:%s}\n", of(quiet))
		fmt.Fprintf(&b, ".limit,.mark{stroke:%s}\n", of(quiet))
		fmt.Fprintf(&b, ".grid,.leader{stroke:%s}\n", of(grid))
		fmt.Fprintf(&b, ".point,.label{stroke:%s}\n", of(page))
		for i, c := range Colours {
			fmt.Fprintf(&b, ".c%d{fill:%s}.s%d{stroke:%s}\n", i, of(c), i, of(c))
		}
	}
	write(func(c Colour) string { return c.Light })
	b.WriteString("@media (prefers-color-scheme:dark){\n")
	write(func(c Colour) string { return c.Dark })
	b.WriteString("}\n")
	return b.String()
}
