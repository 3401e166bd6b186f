package strictjson

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"unicode/utf8"
)

// scanner reads values in their one encoding. It accepts a little more than
// that one encoding (Unmarshal compares afterwards), never panics, and never
// allocates more than the input is long.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func (s *scanner) expect(c byte) error {
	if s.pos >= len(s.data) {
		return broken("ends early")
	}
	if s.data[s.pos] != c {
		return broken("%q is expected at %d", string(c), s.pos)
	}
	s.pos++
	return nil
}

// object calls member for each name, with the scanner before its value; the name
// is only to be looked at. Duplicate names, also in other case, are refused.
func (s *scanner) object(depth int, member func(name []byte) error) error {
	if depth > MaxDepth {
		return broken("nested deeper than %d", MaxDepth)
	}
	if err := s.expect('{'); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.pos++
		return nil
	}
	var seen names
	for {
		name, _, err := s.text()
		if err != nil {
			return err
		}
		if !seen.add(name) {
			return broken("a member twice, at %d", s.pos)
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		if err := member(name); err != nil {
			return err
		}
		if s.peek() != ',' {
			return s.expect('}')
		}
		s.pos++
	}
}

// names are those that an object has shown: few in a list, more in a map.
type names struct {
	few  [24][]byte
	n    int
	many map[string]bool
}

// add says whether a name is new, whatever its case.
func (l *names) add(name []byte) bool {
	folded := lower(name)
	for _, have := range l.few[:l.n] {
		if bytes.Equal(have, folded) {
			return false
		}
	}
	if l.n < len(l.few) {
		l.few[l.n] = folded
		l.n++
		return true
	}
	if l.many == nil {
		l.many = map[string]bool{}
	}
	if l.many[string(folded)] {
		return false
	}
	l.many[string(folded)] = true
	return true
}

func lower(name []byte) []byte {
	for _, c := range name {
		if c >= utf8.RuneSelf || c >= 'A' && c <= 'Z' {
			return bytes.ToLower(name)
		}
	}
	return name
}

func (s *scanner) array(depth int, element func() error) error {
	if depth > MaxDepth {
		return broken("nested deeper than %d", MaxDepth)
	}
	if err := s.expect('['); err != nil {
		return err
	}
	if s.peek() == ']' {
		s.pos++
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if s.peek() != ',' {
			return s.expect(']')
		}
		s.pos++
	}
}

// raw reads one value of any kind and gives its bytes, checking that it is in
// the one encoding a value of unknown type has.
func (s *scanner) raw(depth int) (Raw, error) {
	from := s.pos
	err := s.skip(depth)
	return bytes.Clone(s.data[from:s.pos]), err
}

// skip is raw for what is only to be checked.
func (s *scanner) skip(depth int) (err error) {
	switch c := s.peek(); {
	case c == '{':
		return s.object(depth, func([]byte) error { return s.skip(depth + 1) })
	case c == '[':
		return s.array(depth, func() error { return s.skip(depth + 1) })
	case c == '"':
		return s.canonicalString()
	case c == 't' || c == 'f':
		_, err = s.boolean()
	default:
		_, err = s.integer()
	}
	return err
}

func (s *scanner) canonicalString() error {
	from := s.pos
	text, escaped, err := s.text()
	if err != nil || !escaped {
		return err
	}
	again, err := encodeString(nil, text)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, s.data[from:s.pos]) {
		return broken("a string with needless escapes at %d", from)
	}
	return nil
}

func (s *scanner) boolean() (bool, error) {
	rest := s.data[s.pos:]
	switch {
	case bytes.HasPrefix(rest, []byte("true")):
		s.pos += 4
		return true, nil
	case bytes.HasPrefix(rest, []byte("false")):
		s.pos += 5
		return false, nil
	}
	return false, broken("true or false is expected at %d", s.pos)
}

func (s *scanner) integer() (int64, error) {
	from := s.pos
	if s.peek() == '-' {
		s.pos++
	}
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.pos++
	}
	text := s.data[from:s.pos]
	var again [20]byte
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || n > maxInt || n < -maxInt || !bytes.Equal(strconv.AppendInt(again[:0], n, 10), text) {
		return 0, broken("an integer is expected at %d", from)
	}
	return n, nil
}

// text reads a string. What it gives is only to be looked at: without escapes it
// is a piece of the input.
func (s *scanner) text() (text []byte, escaped bool, err error) {
	if err := s.expect('"'); err != nil {
		return nil, false, err
	}
	from, ascii := s.pos, true
	for {
		if s.pos >= len(s.data) {
			return nil, escaped, broken("a string ends early")
		}
		c := s.data[s.pos]
		s.pos++
		switch {
		case c == '"':
			if !escaped {
				text = s.data[from : s.pos-1]
			}
			if !ascii && !utf8.Valid(text) {
				return nil, escaped, broken("a string that is not UTF-8, before %d", s.pos)
			}
			return text, escaped, nil
		case c < 0x20:
			return nil, escaped, broken("a control character at %d", s.pos-1)
		case c == '\\':
			if !escaped {
				text, escaped = bytes.Clone(s.data[from:s.pos-1]), true
			}
			r, err := s.escape()
			if err != nil {
				return nil, escaped, err
			}
			text = append(text, r)
		default:
			ascii = ascii && c < utf8.RuneSelf
			if escaped {
				text = append(text, c)
			}
		}
	}
}

// escape reads what follows a backslash: only the escapes that Marshal writes.
func (s *scanner) escape() (byte, error) {
	at := s.pos
	c := s.peek()
	s.pos++
	switch c {
	case '"', '\\':
		return c, nil
	case 'b':
		return '\b', nil
	case 't':
		return '\t', nil
	case 'n':
		return '\n', nil
	case 'f':
		return '\f', nil
	case 'r':
		return '\r', nil
	case 'u':
		if len(s.data)-s.pos >= 4 && string(s.data[s.pos:s.pos+2]) == "00" {
			n, err := strconv.ParseUint(string(s.data[s.pos+2:s.pos+4]), 16, 8)
			s.pos += 4
			if err == nil && n < 0x20 {
				return byte(n), nil
			}
		}
	}
	return 0, broken("a needless or unknown escape at %d", at)
}

// decode reads the value for v.
func (s *scanner) decode(v reflect.Value, depth int) error {
	shape := shapeOf(v.Type())
	switch {
	case shape.raw:
		raw, err := s.raw(depth)
		v.SetBytes(raw)
		return err
	case shape.bytes:
		return s.decodeBytes(v)
	case shape.textual && v.CanAddr():
		text, _, err := s.text()
		if err != nil {
			return err
		}
		err = v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText(text)
		if err != nil && !errors.Is(err, ErrEncoding) {
			err = fmt.Errorf("%w: %w", ErrEncoding, err) // a digest, a label: every refusal has its class
		}
		return err
	}
	switch v.Kind() {
	case reflect.String:
		text, _, err := s.text()
		v.SetString(string(text))
		return err
	case reflect.Bool:
		is, err := s.boolean()
		v.SetBool(is)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return s.decodeInt(v)
	case reflect.Slice:
		return s.decodeSlice(v, depth)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return s.decode(v.Elem(), depth)
	case reflect.Struct:
		return s.decodeStruct(v, shape, depth)
	}
	return broken("%s has no encoding", v.Type())
}

func (s *scanner) decodeBytes(v reflect.Value) error {
	text, _, err := s.text()
	if err != nil {
		return err
	}
	b, err := base64.StdEncoding.Strict().AppendDecode(make([]byte, 0, base64.StdEncoding.DecodedLen(len(text))), text)
	if err != nil {
		return broken("base64 before %d", s.pos)
	}
	v.SetBytes(b)
	return nil
}

func (s *scanner) decodeInt(v reflect.Value) error {
	n, err := s.integer()
	if err != nil {
		return err
	}
	if v.CanInt() {
		if v.OverflowInt(n) {
			return broken("an integer out of range, before %d", s.pos)
		}
		v.SetInt(n)
		return nil
	}
	if n < 0 || v.OverflowUint(uint64(n)) {
		return broken("an integer out of range, before %d", s.pos)
	}
	v.SetUint(uint64(n))
	return nil
}

func (s *scanner) decodeSlice(v reflect.Value, depth int) error {
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	return s.array(depth, func() error {
		n := v.Len()
		v.Grow(1)
		v.SetLen(n + 1)
		return s.decode(v.Index(n), depth+1)
	})
}

func (s *scanner) decodeStruct(v reflect.Value, shape *shape, depth int) error {
	v.SetZero()
	next := 0 // members mostly come in the order of the fields
	return s.object(depth, func(name []byte) error {
		for range shape.fields {
			f := &shape.fields[next]
			next = (next + 1) % len(shape.fields)
			if f.name == string(name) {
				return s.decode(v.Field(f.index), depth+1)
			}
		}
		if shape.extra < 0 {
			return broken("an unknown member before %d", s.pos)
		}
		value, err := s.raw(depth + 1)
		extra := v.Field(shape.extra)
		extra.Set(reflect.Append(extra, reflect.ValueOf(Member{string(name), value})))
		return err
	})
}
