// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// linear is a colour's light of each primary, 0 to 1.
func linear(t *testing.T, colour string) (rgb [3]float64) {
	var bytes [3]uint8
	_, err := fmt.Sscanf(colour, "#%02x%02x%02x", &bytes[0], &bytes[1], &bytes[2])
	require.NoError(t, err)
	for i, b := range bytes {
		v := float64(b) / 255
		if v <= 0.04045 {
			rgb[i] = v / 12.92
		} else {
			rgb[i] = math.Pow((v+0.055)/1.055, 2.4)
		}
	}
	return rgb
}

// contrast is that of WCAG 2: 4.5 is what text needs.
func contrast(a, b [3]float64) float64 {
	luminance := func(c [3]float64) float64 { return 0.2126*c[0] + 0.7152*c[1] + 0.0722*c[2] }
	la, lb := luminance(a)+0.05, luminance(b)+0.05
	return max(la, lb) / min(la, lb)
}

// modes are the two ways in which a chart is seen.
var modes = map[string]func(Colour) string{
	"light": func(c Colour) string { return c.Light },
	"dark":  func(c Colour) string { return c.Dark },
}

func TestTextCanBeRead(t *testing.T) {
	for mode, of := range modes {
		for _, c := range append([]Colour{ink, quiet}, Colours...) {
			require.GreaterOrEqual(t, contrast(linear(t, of(c)), linear(t, of(page))), 4.5, "%s on a %s page", of(c), mode)
		}
	}
}

// The colours as they are seen without one of the three kinds of cones, after
// Machado, Oliveira and Fernandes (2009).
var sights = map[string][3][3]float64{
	"all cones":    {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
	"protanopia":   {{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}},
	"deuteranopia": {{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}},
	"tritanopia":   {{1.255528, -0.076749, -0.178779}, {-0.078411, 0.930809, 0.147602}, {0.004733, 0.691367, 0.303900}},
}

// lab is a colour in CIELAB, where a distance of 2 can just be seen.
func lab(rgb [3]float64) [3]float64 {
	f := func(v float64) float64 {
		if v > 216.0/24389 {
			return math.Cbrt(v)
		}
		return (24389.0/27*v + 16) / 116
	}
	x := f((0.4124*rgb[0] + 0.3576*rgb[1] + 0.1805*rgb[2]) / 0.9505)
	y := f(0.2126*rgb[0] + 0.7152*rgb[1] + 0.0722*rgb[2])
	z := f((0.0193*rgb[0] + 0.1192*rgb[1] + 0.9505*rgb[2]) / 1.089)
	return [3]float64{116*y - 16, 500 * (x - y), 200 * (y - z)}
}

func TestTheColourBlindCanTellTheLinesApart(t *testing.T) {
	for mode, of := range modes {
		for sight, matrix := range sights {
			seen := func(c Colour) (rgb [3]float64) {
				from := linear(t, of(c))
				for i, row := range matrix {
					rgb[i] = min(1, max(0, row[0]*from[0]+row[1]*from[1]+row[2]*from[2]))
				}
				return lab(rgb)
			}
			for i, a := range Colours {
				for _, b := range Colours[:i] {
					p, q := seen(a), seen(b)
					distance := math.Sqrt((p[0]-q[0])*(p[0]-q[0]) + (p[1]-q[1])*(p[1]-q[1]) + (p[2]-q[2])*(p[2]-q[2]))
					require.Greater(t, distance, 20.0, "%s and %s, %s page, %s", of(a), of(b), mode, sight)
				}
			}
		}
	}
}
