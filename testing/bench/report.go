// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/batchasync/beam-batchasync/internal/chart"
)

// table is in Markdown, and can be read as it is.
func table(all []row) string {
	lines := [][]string{{"", "elements/s", "of the limit", "elements", "requests", "mean batch", "calls at once", "peak heap, MB", "CPU µs/element", "windows kept", "timestamps kept", "lost", "lost with retries"}}
	for _, r := range all {
		share, batch := fmt.Sprintf("%.1f %%", 100*r.Share), fmt.Sprintf("%.1f", r.MeanBatch)
		lost := fmt.Sprint(r.RetryLost)
		if r.ofBatchasync() {
			lost = "built in"
		}
		if r.Contestant == none {
			share, batch, lost = "–", "–", "–"
		}
		lines = append(lines, []string{
			r.Contestant, thousands(rounded(r.PerSecond)), share, thousands(float64(r.Elements)), thousands(float64(r.Requests)), batch,
			fmt.Sprint(r.MostCalls), fmt.Sprintf("%.0f", float64(r.PeakHeap)/1e6), fmt.Sprintf("%.2f", r.CPUMicros),
			yes(r.Windows), yes(r.Timestamps), fmt.Sprintf("%s of %s", thousands(float64(r.Lost)), thousands(float64(r.LostOf))), lost,
		})
	}
	return markdown(lines)
}

// markdown is a table, its columns as wide as they have to be, all but the first
// aligned to the right.
func markdown(lines [][]string) string {
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	write := func(line []string) {
		for i, cell := range line {
			if i == 0 {
				fmt.Fprintf(&b, "| %-*s ", widths[i], cell)
			} else {
				fmt.Fprintf(&b, "| %*s ", widths[i], cell)
			}
		}
		b.WriteString("|\n")
	}
	write(lines[0])
	rule := make([]string, len(widths))
	for i, w := range widths {
		rule[i] = strings.Repeat("-", w-1) + ":"
	}
	rule[0] = strings.Repeat("-", widths[0])
	write(rule)
	for _, line := range lines[1:] {
		write(line)
	}
	return b.String()
}

func yes(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

// rounded is v with the three digits that a measurement is good for.
func rounded(v float64) float64 {
	if v == 0 {
		return 0
	}
	unit := math.Pow(10, max(0, math.Floor(math.Log10(v))-2))
	return math.Round(v/unit) * unit
}

// thousands is v with a comma behind each three digits.
func thousands(v float64) string {
	digits := fmt.Sprintf("%.0f", v)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// picture is the chart of the comparison.
func picture(all []row) map[string]svg {
	bars := chart.Bars{
		Title:    "Elements a second, for the same job",
		Subtitle: fmt.Sprintf("A call takes %d ms + %d µs a key; the service slows down beyond %d calls at once.", baseLatency.Milliseconds(), perElement.Microseconds(), capacity),
		Limit:    chart.Marker{Label: "the service's limit", Value: rounded(limit)},
	}
	for _, r := range all {
		if r.Contestant == none {
			continue
		}
		bar := chart.Bar{Label: r.Contestant, Value: rounded(r.PerSecond)}
		if !r.ofBatchasync() {
			bar.Colour = 1
		}
		bars.Bars = append(bars.Bars, bar)
	}
	return map[string]svg{"compare": bars}
}

// An svg is a chart.
type svg interface{ SVG() ([]byte, error) }

// write writes the figures and the charts, each by its name, where they are wanted.
func (o options) write(name string, figures any, charts map[string]svg) error {
	if o.json != "" {
		text, err := json.MarshalIndent(figures, "", "  ")
		if err != nil {
			return err
		}
		if err := os.MkdirAll(o.json, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(o.json, name+".json"), append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.svg == "" {
		return nil
	}
	if err := os.MkdirAll(o.svg, 0o755); err != nil {
		return err
	}
	for name, c := range charts {
		text, err := c.SVG()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(o.svg, name+".svg"), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// progress tells a terminal what is being measured.
func (o options) progress(format string, args ...any) {
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		fmt.Fprintf(os.Stderr, "\r\x1b[K"+format, args...)
	}
}
