// Package strictjson is the one encoding of signed objects: members in the
// order of their specification, no white space, minimal escapes, integers
// only, unknown members kept at the end in the order of their names. A value
// has exactly one encoding, and everything else is refused, so that the bytes
// that were signed are the only bytes that can be shown for a value
// (docs/spec/json-and-cms-v1.md).
//
// Strictness is by re-encoding: what was parsed is marshalled again and must
// give the same bytes.
package strictjson

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"
)

// MaxDepth is how deep arrays and objects may nest.
const MaxDepth = 32

// maxInt is the largest integer magnitude, 2^53-1: every JSON reader keeps it.
const maxInt = 1<<53 - 1

// ErrEncoding marks bytes that are not the one encoding of a value;
// ErrCritical an object that requires a member this reader does not know.
var (
	ErrEncoding = errors.New("strictjson: not the one encoding")
	ErrCritical = errors.New("strictjson: a critical member is not known")
)

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrEncoding, fmt.Sprintf(format, args...))
}

// Raw is one value in its one encoding, carried byte for byte.
type Raw []byte

// Member is a member of an object.
type Member struct {
	Name  string
	Value Raw
}

// Extra as the last field of a struct keeps the members the struct does not
// declare.
type Extra []Member

// Time is a point in time in Unix milliseconds; its text form is
// 2026-11-23T08:05:09.123Z.
type Time int64

const timeForm = "2006-01-02T15:04:05.000Z"

// TimeOf cuts t to milliseconds.
func TimeOf(t time.Time) Time { return Time(t.UnixMilli()) }

// Time gives the point in time in UTC.
func (t Time) Time() time.Time { return time.UnixMilli(int64(t)).UTC() }

// MarshalText gives the text form; years outside 0 to 9999 have none.
func (t Time) MarshalText() ([]byte, error) {
	return t.AppendText(make([]byte, 0, len(timeForm)))
}

// AppendText implements encoding.TextAppender.
func (t Time) AppendText(b []byte) ([]byte, error) {
	u := t.Time()
	if u.Year() < 0 || u.Year() > 9999 {
		return nil, broken("a time outside the years 0 to 9999")
	}
	return u.AppendFormat(b, timeForm), nil
}

// UnmarshalText accepts exactly the text form.
func (t *Time) UnmarshalText(b []byte) error {
	var again [len(timeForm)]byte
	u, err := time.Parse(timeForm, string(b))
	if err != nil || string(u.AppendFormat(again[:0], timeForm)) != string(b) {
		return broken("a time is written like %s", timeForm)
	}
	*t = TimeOf(u)
	return nil
}

// Marshal gives the one encoding of v, a struct or a pointer to one. Fields
// are strings, booleans, integers, []byte (base64), text marshalers, Raw,
// structs, pointers to structs with omitempty, and slices of these.
func Marshal(v any) ([]byte, error) {
	return encode(make([]byte, 0, 256), reflect.ValueOf(v), 0)
}

// Unmarshal reads the one encoding into the struct v points to. Errors say
// where and why and never show a value.
func Unmarshal(data []byte, v any) error {
	target := reflect.ValueOf(v)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return errors.New("strictjson: Unmarshal needs a pointer")
	}
	s := &scanner{data: data}
	if err := s.decode(target.Elem(), 0); err != nil {
		return err
	}
	if s.pos != len(data) {
		return broken("bytes after the value, at %d", s.pos)
	}
	if err := sameAgain(data, target); err != nil {
		return err
	}
	return checkCritical(target.Elem())
}

// encodings are buffers for what is compared and thrown away.
var encodings = sync.Pool{New: func() any { return new([]byte) }}

const largestPooled = 64 << 10

func sameAgain(data []byte, target reflect.Value) error {
	buffer := encodings.Get().(*[]byte)
	again, err := encode((*buffer)[:0], target, 0)
	if err == nil && !bytes.Equal(again, data) {
		err = broken("differs from its re-encoding at byte %d", firstDifference(again, data))
	}
	if cap(again) <= largestPooled {
		*buffer = again
		encodings.Put(buffer)
	}
	return err
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func checkCritical(v reflect.Value) error {
	if v.Kind() != reflect.Struct {
		return nil
	}
	crit := v.FieldByName("Crit")
	if !crit.IsValid() {
		return nil
	}
	names, ok := crit.Interface().([]string)
	if !ok {
		return nil
	}
	known := shapeOf(v.Type()).fields
	for _, name := range names {
		if !slices.ContainsFunc(known, func(f field) bool { return f.name == name }) {
			return fmt.Errorf("%w: %.64q", ErrCritical, name)
		}
	}
	return nil
}

// ObjectMembers lists the members of one object in its one encoding.
func ObjectMembers(raw Raw) ([]Member, error) {
	s := &scanner{data: raw}
	var out []Member
	err := s.object(0, func(name []byte) error {
		value, err := s.raw(1)
		out = append(out, Member{string(name), value})
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.pos != len(raw) {
		return nil, broken("bytes after the object, at %d", s.pos)
	}
	return out, nil
}
