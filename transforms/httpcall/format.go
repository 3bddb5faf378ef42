// Copyright 2026 The beam-batchasync authors
// SPDX-License-Identifier: Apache-2.0

package httpcall

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/batchasync/beam-batchasync/batchasync"
)

// A format is how batches and answers are written. The paths in it are gjson's.
type format struct {
	request  string // names with dots
	members  map[string]any
	response string
	id       string // "": by order
	failure  string // "": there is none
	// failureName is the last name in failure, as it stands in JSON.
	failureName string
	lines       bool
}

// path is names with dots between them as a path of gjson's, in which many
// characters have a meaning of their own.
func path(names string) string {
	if names == "" {
		return ""
	}
	parts := strings.Split(names, ".")
	for i, name := range parts {
		parts[i] = gjson.Escape(name)
	}
	return strings.Join(parts, ".")
}

// A request is a batch as it is sent. Its items are the elements that can be
// sent, those that are equal but once.
type request struct {
	body   []byte
	items  int
	item   []int          // the item of each element; -1: it has failed
	ids    []string       // of each item
	byID   map[string]int // items
	failed batchasync.BatchError
}

func (r *request) fail(element int, err error) {
	r.item[element] = -1
	r.failed.Fail(element, err)
}

// encode writes a batch. Elements that can't be sent fail alone.
func encode[In any](f format, batch []In) (*request, error) {
	begin, end, err := f.frame()
	if err != nil {
		return nil, err
	}
	r := &request{item: make([]int, len(batch)), items: len(batch)}
	var b bytes.Buffer
	b.WriteString(begin)
	if !f.lines && f.id == "" && reflect.TypeFor[In]().Kind() != reflect.Uint8 && newEncoder(&b).Encode(batch) == nil {
		// All at once, as mostly can be done; []byte would be base64.
		for i := range r.item {
			r.item[i] = i
		}
		b.Truncate(b.Len() - 1)
		b.WriteString(end)
		r.body = b.Bytes()
		return r, nil
	}
	b.Truncate(len(begin))
	if !f.lines {
		b.WriteByte('[')
	}
	if err := encodeEach(r, f, &b, batch); err != nil {
		return nil, err
	}
	if !f.lines {
		b.WriteByte(']')
	}
	b.WriteString(end)
	r.body = b.Bytes()
	return r, nil
}

// encodeEach writes the elements one by one.
func encodeEach[In any](r *request, f format, b *bytes.Buffer, batch []In) error {
	r.items, r.byID = 0, map[string]int{}
	encoder := newEncoder(b)
	var spans [][2]int // where the items are; by id only
	for i := range batch {
		before := b.Len()
		if r.items > 0 && !f.lines {
			b.WriteByte(',')
		}
		from := b.Len()
		// By its address, as in a slice: its MarshalJSON may need that.
		if err := encoder.Encode(&batch[i]); err != nil {
			b.Truncate(before)
			r.fail(i, batchasync.Permanent(fmt.Errorf("the element can't be written as JSON: %w", err)))
			continue
		}
		to := b.Len() - 1 // before the line's end
		if f.id != "" {
			id, err := idOf(gjson.ParseBytes(b.Bytes()[from:to]), f.id)
			if err != nil {
				b.Truncate(before)
				r.fail(i, batchasync.Permanent(fmt.Errorf("the element %w", err)))
				continue
			}
			if first, ok := r.byID[id]; ok {
				if span := spans[first]; !bytes.Equal(b.Bytes()[from:to], b.Bytes()[span[0]:span[1]]) {
					// An answer could be the one's or the other's.
					return batchasync.Halve(fmt.Errorf("two elements that differ have the id %s: they can't be in one call", id))
				}
				b.Truncate(before)
				r.item[i] = first
				continue
			}
			r.byID[id] = r.items
			r.ids = append(r.ids, id)
			spans = append(spans, [2]int{from, to})
		}
		if !f.lines {
			b.Truncate(to)
		}
		r.item[i] = r.items
		r.items++
	}
	return nil
}

// frame is what stands around the array of items.
func (f format) frame() (begin, end string, err error) {
	if f.request == "" {
		return "", "", nil
	}
	begin = "{"
	if len(f.members) > 0 {
		members, err := json.Marshal(f.members)
		if err != nil {
			return "", "", batchasync.Permanent(fmt.Errorf("write RequestMembers as JSON: %w", err))
		}
		begin = string(members[:len(members)-1]) + ","
	}
	for i, name := range strings.Split(f.request, ".") {
		if i > 0 {
			begin += "{"
		}
		begin += string(gjson.AppendJSONString(nil, name)) + ":"
		end += "}"
	}
	return begin, end, nil
}

// newEncoder writes JSON without the escapes that only browsers need.
func newEncoder(b *bytes.Buffer) *json.Encoder {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	return e
}

func encodeItem[In any](element In) ([]byte, error) {
	var b bytes.Buffer
	if err := newEncoder(&b).Encode(&element); err != nil {
		return nil, err
	}
	return b.Bytes()[:b.Len()-1], nil
}

// idOf is an item's id, as JSON, in one form for each string.
func idOf(item gjson.Result, path string) (string, error) {
	id := item
	if item.IsObject() {
		id = item.Get(path)
	}
	switch {
	case id.Type == gjson.String:
		return string(gjson.AppendJSONString(nil, id.Str)), nil
	case id.Type == gjson.Number:
		return id.Raw, nil
	case !id.Exists() || item.IsArray():
		return "", fmt.Errorf("has no member %q, which IDField says", path)
	}
	return "", fmt.Errorf("has something else than a string or a number in the member %q, which IDField says", path)
}

// decode reads the answers of a request's items, and the errors of those that
// failed.
func decode[Out any](f format, r *request, a *Answer) ([]Out, map[int]error, error) {
	if reflect.TypeFor[Out]().Size() == 0 && len(bytes.TrimSpace(a.Body)) == 0 {
		return make([]Out, r.items), nil, nil
	}
	// All at once, as if there were nothing to see to: mostly there is not.
	outs := make([]Out, 0, r.items)
	plain := !f.lines && f.response == "" && json.Unmarshal(a.Body, &outs) == nil
	if plain && len(outs) == r.items && f.harmless(a.Body, takesNull[Out]()) {
		return outs, nil, nil
	}
	array, items, err := f.split(r, a, plain)
	if err != nil {
		return nil, nil, err
	}
	if len(items) != r.items && f.id == "" {
		return nil, nil, batchasync.Permanent(a.Wrong(fmt.Errorf("%d answers for %d elements: without IDField it must have one for each, in the order of the elements", len(items), r.items)))
	}
	failed := map[int]error{} // by item
	of := make([]int, len(items))
	null := takesNull[Out]()
	for i, item := range items {
		of[i] = i
		if f.id != "" {
			id, err := idOf(item, f.id)
			if err != nil {
				return nil, nil, batchasync.Permanent(a.Wrong(fmt.Errorf("answer %d %w", i, err)))
			}
			at, ok := r.byID[id]
			if !ok {
				return nil, nil, batchasync.Permanent(a.Wrong(fmt.Errorf("answer %d has the id %s, which no element of the call has", i, a.Show(id))))
			}
			of[i] = at
		}
		switch {
		case item.Type == gjson.Null && !null:
			failed[of[i]] = batchasync.Permanent(fmt.Errorf("the service's answer for the element is null, which a %v can't be", reflect.TypeFor[Out]()))
		case f.failure != "" && item.IsObject():
			if failure := item.Get(f.failure); fails(failure) {
				failed[of[i]] = a.failure(item, failure)
			}
		}
	}
	if f.id != "" {
		r.reconcile(of, failed, a)
	}
	if !plain && array != "" {
		plain = json.Unmarshal([]byte(array), &outs) == nil
	}
	if plain {
		return sorted(outs, of, f.id != "", r.items), failed, nil
	}
	// One by one, to see which of them are no Outs.
	outs = make([]Out, r.items)
	for i, item := range items {
		if failed[of[i]] != nil {
			continue
		}
		if err := json.Unmarshal([]byte(item.Raw), &outs[of[i]]); err != nil {
			failed[of[i]] = batchasync.Permanent(fmt.Errorf("the service's answer for the element is no %v: %s: %s", reflect.TypeFor[Out](), a.Show(err.Error()), a.Show(item.Raw)))
		}
	}
	return outs, failed, nil
}

// harmless reports whether an answer in valid JSON, by order, can have no item
// with an error or a null in it: to look for a word is much faster than to look
// at each item.
func (f format) harmless(body []byte, null bool) bool {
	if f.id != "" || !null && bytes.Contains(body, []byte("null")) {
		return false
	}
	// A name may be written with escapes.
	return f.failure == "" || !bytes.Contains(body, []byte(`"`+f.failureName+`"`)) && !bytes.ContainsRune(body, '\\')
}

// split finds the items of an answer, which may be known to be valid JSON, and
// the array that they are in, if that is only a part of it.
func (f format) split(r *request, a *Answer, valid bool) (array string, items []gjson.Result, err error) {
	items = make([]gjson.Result, 0, r.items)
	broken := func(part []byte) error {
		// No permanent error: it is a proxy's page, or has broken off,
		// more often than not.
		var value json.RawMessage
		err := json.Unmarshal(part, &value)
		if len(bytes.TrimSpace(part)) == 0 {
			err = errors.New("it is empty")
		}
		return a.Wrong(fmt.Errorf("the answer is not JSON: %w", err))
	}
	if f.lines {
		for line := range bytes.Lines(a.Body) {
			line = bytes.TrimSpace(line)
			if len(line) == 0 {
				continue
			}
			if !json.Valid(line) {
				return "", nil, broken(line)
			}
			items = append(items, gjson.ParseBytes(line))
		}
		return "", items, nil
	}
	if !valid && !json.Valid(a.Body) {
		return "", nil, broken(a.Body)
	}
	found := gjson.ParseBytes(a.Body)
	if f.response != "" {
		found = found.Get(f.response)
		array = found.Raw
		if !found.IsArray() {
			return "", nil, batchasync.Permanent(a.Wrong(fmt.Errorf("the answer has no array in the member %q, which ResponseField says", f.response)))
		}
	}
	if !found.IsArray() {
		return "", nil, batchasync.Permanent(a.Wrong(errors.New("the answer is no array: set ResponseField to the member that has it")))
	}
	found.ForEach(func(_, item gjson.Result) bool {
		items = append(items, item)
		return true
	})
	return array, items, nil
}

// reconcile notes the items that have no answer, or several.
func (r *request) reconcile(of []int, failed map[int]error, a *Answer) {
	answers := make([]int, r.items)
	for _, item := range of {
		answers[item]++
	}
	for item, n := range answers {
		switch {
		case n == 0:
			failed[item] = batchasync.Permanent(fmt.Errorf("the service's answer has no item with the id %s", a.Show(r.ids[item])))
		case n > 1:
			failed[item] = batchasync.Permanent(fmt.Errorf("the service's answer has %d items with the id %s: it is not known which one counts", n, a.Show(r.ids[item])))
		}
	}
}

// sorted brings answers into the order of the items.
func sorted[Out any](outs []Out, of []int, byID bool, items int) []Out {
	if !byID {
		return outs
	}
	in := make([]Out, items)
	for i, item := range of {
		in[item] = outs[i]
	}
	return in
}

// spread gives each element of the batch the answer of its item.
func spread[Out any](r *request, outs []Out, failed map[int]error) ([]Out, error) {
	if len(r.item) == r.items && len(failed) == 0 {
		return outs, nil
	}
	all := make([]Out, len(r.item))
	for i, item := range r.item {
		switch {
		case item < 0:
		case failed[item] != nil:
			r.failed.Fail(i, failed[item])
		default:
			all[i] = outs[item]
		}
	}
	return all, r.failed.Err()
}

// takesNull reports whether null is a value of an Out: json leaves what can't
// be null as it is, and a zero would pass for an answer.
func takesNull[Out any]() bool {
	switch t := reflect.TypeFor[Out](); t.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Map, reflect.Slice:
		return true
	default:
		return reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())
	}
}

// fails reports whether the member for an item's error has one.
func fails(member gjson.Result) bool {
	switch member.Type {
	case gjson.Null, gjson.False:
		return false
	case gjson.String:
		return member.Str != ""
	case gjson.Number:
		return member.Num != 0
	case gjson.JSON:
		empty := true
		member.ForEach(func(gjson.Result, gjson.Result) bool { empty = false; return false })
		return !empty
	}
	return member.Exists()
}

// Failure is the error of one element, which the answer has as JSON: it is tried
// again, but for one with a number in the member "status" or "code" that is a 4xx
// and says otherwise. It is nil if there is none; see Caller.ErrorField.
func (a *Answer) Failure(failure []byte) error {
	member := gjson.ParseBytes(failure)
	if !fails(member) {
		return nil
	}
	return a.failure(gjson.Result{}, member)
}

// failure is Failure for an error that is a member of item.
func (a *Answer) failure(item, member gjson.Result) error {
	text := member.String()
	if message := member.Get("message"); message.Type == gjson.String {
		text = message.Str
	}
	err := fmt.Errorf("the service refused the element: %s", a.Show(text))
	for _, place := range []gjson.Result{member.Get("status"), member.Get("code"), item.Get("status"), item.Get("code")} {
		if status := place.Int(); status >= 400 && status < 600 {
			if retryable(int(status)) {
				return err
			}
			return batchasync.Permanent(err)
		}
	}
	return err
}
