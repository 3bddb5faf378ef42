// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package flight

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// A Record is a piece of the input that should be a flight.
type Record struct {
	Position string
	Text     string
	Broken   string // why it is none, if that is known already
}

// Split takes the input apart: a JSON array into its elements, or lines, of
// which the empty ones don't count. Each record has its position, and nothing is
// skipped, whatever is wrong with the input: what can't be taken apart is a
// record too.
func Split(input io.Reader, emit func(Record)) error {
	in := bufio.NewReader(input)
	switch start, err := in.Peek(3); {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case string(start) == "\ufeff":
		if _, err := in.Discard(3); err != nil {
			return err
		}
	}
	for {
		switch b, err := in.ReadByte(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case b == '[':
			return splitArray(in, emit)
		case b != ' ' && b != '\t' && b != '\r' && b != '\n':
			if err := in.UnreadByte(); err != nil {
				return err
			}
			return splitLines(in, emit)
		}
	}
}

func splitLines(in *bufio.Reader, emit func(Record)) error {
	for line := 1; ; line++ {
		text, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if text = bytes.TrimSpace(text); len(text) > 0 {
			emit(Record{Position: fmt.Sprintf("line %d", line), Text: string(text)})
		}
		if err != nil {
			return nil
		}
	}
}

// splitArray cuts at the commas of the array itself, in place of decoding one
// element after the other: so a malformed element does not hide those behind it.
func splitArray(in *bufio.Reader, emit func(Record)) error {
	var (
		text    []byte
		element = 1
		line    = 1
		start   = 1 // line in which text begins
		depth   = 0
		quoted  = false
		escaped = false
	)
	cut := func(broken string) {
		text = bytes.TrimSpace(text)
		emit(Record{Position: fmt.Sprintf("element %d, line %d", element, start), Text: string(text), Broken: broken})
		text = text[:0]
		element++
	}
	for {
		b, err := in.ReadByte()
		if errors.Is(err, io.EOF) {
			cut("not a flight: the array is not closed; the input has been cut off here, or a quote or a bracket is missing")
			return nil
		}
		if err != nil {
			return err
		}
		if b == '\n' {
			line++
		}
		switch {
		case quoted && b == '\n':
			// No JSON string runs over a line. What is behind it is
			// read as if the quote had been there.
			cut("not a flight: a quote is missing")
			quoted, escaped, depth = false, false, 0
			continue
		case escaped:
			escaped = false
		case quoted:
			escaped = b == '\\'
			quoted = b != '"'
		case b == '"':
			quoted = true
		case b == '{' || b == '[':
			depth++
		case depth > 0 && (b == '}' || b == ']'):
			depth--
		case depth == 0 && b == ',':
			cut("")
			continue
		case depth == 0 && b == ']':
			if element > 1 || len(bytes.TrimSpace(text)) > 0 {
				cut("")
			}
			return splitRest(in, emit)
		}
		if len(text) == 0 {
			if b == ' ' || b == '\t' || b == '\r' || b == '\n' {
				continue
			}
			start = line
		}
		text = append(text, b)
	}
}

// splitRest makes a record of what is behind the array, if there is anything.
func splitRest(in *bufio.Reader, emit func(Record)) error {
	rest, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if rest = bytes.TrimSpace(rest); len(rest) > 0 {
		emit(Record{Position: "behind the array", Text: string(rest), Broken: "not a flight: it is behind the end of the array"})
	}
	return nil
}
