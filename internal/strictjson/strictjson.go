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
	"encoding"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
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
	u := t.Time()
	if u.Year() < 0 || u.Year() > 9999 {
		return nil, broken("a time outside the years 0 to 9999")
	}
	return u.AppendFormat(nil, timeForm), nil
}

// UnmarshalText accepts exactly the text form.
func (t *Time) UnmarshalText(b []byte) error {
	u, err := time.Parse(timeForm, string(b))
	if err != nil || u.Format(timeForm) != string(b) {
		return broken("a time is written like %s", timeForm)
	}
	*t = TimeOf(u)
	return nil
}

// Marshal gives the one encoding of v, a struct or a pointer to one. Fields
// are strings, booleans, integers, []byte (base64), text marshalers, Raw,
// structs, pointers to structs with omitempty, and slices of these.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	if err := encode(&b, reflect.ValueOf(v), 0); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
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
	again, err := Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return broken("differs from its re-encoding at byte %d", firstDifference(again, data))
	}
	return checkCritical(target.Elem())
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
	known := fieldsOf(v.Type())
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
	err := s.object(0, func(name string) error {
		value, err := s.raw(1)
		out = append(out, Member{name, value})
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

// field is how a struct field is written.
type field struct {
	name  string
	index int
	omit  bool
}

var (
	extraType = reflect.TypeFor[Extra]()
	rawType   = reflect.TypeFor[Raw]()
	bytesType = reflect.TypeFor[[]byte]()
	marshaler = reflect.TypeFor[encoding.TextMarshaler]()
	unmarshal = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// fieldsByType spares reading the same tags for every object of a list.
var fieldsByType sync.Map // reflect.Type to []field

func fieldsOf(t reflect.Type) []field {
	if known, ok := fieldsByType.Load(t); ok {
		return known.([]field)
	}
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("json")
		if !ok || tag == "-" || f.Type == extraType {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		out = append(out, field{name, i, options == "omitempty"})
	}
	fieldsByType.Store(t, out)
	return out
}

func extraOf(v reflect.Value) (reflect.Value, bool) {
	n := v.NumField()
	if n == 0 || v.Type().Field(n-1).Type != extraType {
		return reflect.Value{}, false
	}
	return v.Field(n - 1), true
}

func encode(b *bytes.Buffer, v reflect.Value, depth int) error {
	if depth > MaxDepth {
		return broken("nested deeper than %d", MaxDepth)
	}
	switch {
	case v.Type() == rawType:
		return encodeRaw(b, v.Bytes(), depth)
	case v.Type() == bytesType:
		b.WriteByte('"')
		b.WriteString(base64.StdEncoding.EncodeToString(v.Bytes()))
		b.WriteByte('"')
		return nil
	case v.Kind() != reflect.Pointer && v.Type().Implements(marshaler):
		text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			return err
		}
		return encodeString(b, string(text))
	}
	switch v.Kind() {
	case reflect.String:
		return encodeString(b, v.String())
	case reflect.Bool:
		b.WriteString(strconv.FormatBool(v.Bool()))
		return nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return encodeInt(b, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if v.Uint() > maxInt {
			return broken("an integer above 2^53-1")
		}
		return encodeInt(b, int64(v.Uint()))
	case reflect.Slice:
		return encodeSlice(b, v, depth)
	case reflect.Pointer:
		if v.IsNil() {
			return broken("a nil pointer without omitempty")
		}
		return encode(b, v.Elem(), depth)
	case reflect.Struct:
		return encodeStruct(b, v, depth)
	}
	return fmt.Errorf("strictjson: %s has no encoding", v.Type())
}

func encodeInt(b *bytes.Buffer, n int64) error {
	if n > maxInt || n < -maxInt {
		return broken("an integer beyond 2^53-1")
	}
	b.WriteString(strconv.FormatInt(n, 10))
	return nil
}

func encodeRaw(b *bytes.Buffer, raw []byte, depth int) error {
	s := &scanner{data: raw}
	if _, err := s.raw(depth); err != nil {
		return err
	}
	if s.pos != len(raw) {
		return broken("bytes after a raw value")
	}
	b.Write(raw)
	return nil
}

func encodeSlice(b *bytes.Buffer, v reflect.Value, depth int) error {
	b.WriteByte('[')
	for i := range v.Len() {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := encode(b, v.Index(i), depth+1); err != nil {
			return err
		}
	}
	b.WriteByte(']')
	return nil
}

func encodeStruct(b *bytes.Buffer, v reflect.Value, depth int) error {
	b.WriteByte('{')
	first := true
	name := func(s string) error {
		if !first {
			b.WriteByte(',')
		}
		first = false
		if err := encodeString(b, s); err != nil {
			return err
		}
		b.WriteByte(':')
		return nil
	}
	fields := fieldsOf(v.Type())
	for _, f := range fields {
		value := v.Field(f.index)
		if f.omit && empty(value) {
			continue
		}
		if err := name(f.name); err != nil {
			return err
		}
		if err := encode(b, value, depth+1); err != nil {
			return err
		}
	}
	if err := encodeExtra(b, v, fields, name, depth); err != nil {
		return err
	}
	b.WriteByte('}')
	return nil
}

func encodeExtra(b *bytes.Buffer, v reflect.Value, fields []field, name func(string) error, depth int) error {
	holder, ok := extraOf(v)
	if !ok {
		return nil
	}
	last := ""
	for i, m := range holder.Interface().(Extra) {
		if i > 0 && m.Name <= last {
			return broken("unknown members out of order")
		}
		last = m.Name
		if slices.ContainsFunc(fields, func(f field) bool { return strings.EqualFold(f.name, m.Name) }) {
			return broken("an unknown member named like a known one")
		}
		if err := name(m.Name); err != nil {
			return err
		}
		if err := encodeRaw(b, m.Value, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice:
		return v.Len() == 0
	default:
		return v.IsZero()
	}
}

const hexDigits = "0123456789abcdef"

func encodeString(b *bytes.Buffer, s string) error {
	if !utf8.ValidString(s) {
		return broken("a string that is not UTF-8")
	}
	b.WriteByte('"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b.WriteString(s[from:i])
		from = i + 1
		switch c {
		case '"', '\\':
			b.Write([]byte{'\\', c})
		case '\b':
			b.WriteString(`\b`)
		case '\t':
			b.WriteString(`\t`)
		case '\n':
			b.WriteString(`\n`)
		case '\f':
			b.WriteString(`\f`)
		case '\r':
			b.WriteString(`\r`)
		default:
			b.WriteString(`\u00`)
			b.Write([]byte{hexDigits[c>>4], hexDigits[c&15]})
		}
	}
	b.WriteString(s[from:])
	b.WriteByte('"')
	return nil
}
