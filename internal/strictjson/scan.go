package strictjson

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
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

// object calls member for each name, with the scanner before its value.
// Duplicate names, also in other case, are refused.
func (s *scanner) object(depth int, member func(name string) error) error {
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
	seen := map[string]bool{}
	for {
		name, err := s.str()
		if err != nil {
			return err
		}
		if folded := strings.ToLower(name); seen[folded] {
			return broken("a member twice, at %d", s.pos)
		} else {
			seen[folded] = true
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
	var err error
	switch c := s.peek(); {
	case c == '{':
		err = s.object(depth, func(string) error { _, err := s.raw(depth + 1); return err })
	case c == '[':
		err = s.array(depth, func() error { _, err := s.raw(depth + 1); return err })
	case c == '"':
		err = s.canonicalString()
	case c == 't' || c == 'f':
		_, err = s.boolean()
	default:
		_, err = s.integer()
	}
	return bytes.Clone(s.data[from:s.pos]), err
}

func (s *scanner) canonicalString() error {
	from := s.pos
	text, err := s.str()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := encodeString(&b, text); err != nil {
		return err
	}
	if !bytes.Equal(b.Bytes(), s.data[from:s.pos]) {
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
	text := string(s.data[from:s.pos])
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > maxInt || n < -maxInt || strconv.FormatInt(n, 10) != text {
		return 0, broken("an integer is expected at %d", from)
	}
	return n, nil
}

// str reads a string.
func (s *scanner) str() (string, error) {
	if err := s.expect('"'); err != nil {
		return "", err
	}
	var out []byte
	for {
		if s.pos >= len(s.data) {
			return "", broken("a string ends early")
		}
		c := s.data[s.pos]
		s.pos++
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return "", broken("a string that is not UTF-8, before %d", s.pos)
			}
			return string(out), nil
		case c < 0x20:
			return "", broken("a control character at %d", s.pos-1)
		case c == '\\':
			r, err := s.escape()
			if err != nil {
				return "", err
			}
			out = append(out, r)
		default:
			out = append(out, c)
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
	switch {
	case v.Type() == rawType:
		raw, err := s.raw(depth)
		v.SetBytes(raw)
		return err
	case v.Type() == bytesType:
		return s.decodeBytes(v)
	case v.Kind() != reflect.Pointer && v.CanAddr() && v.Addr().Type().Implements(unmarshal):
		text, err := s.str()
		if err != nil {
			return err
		}
		err = v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
		if err != nil && !errors.Is(err, ErrEncoding) {
			err = fmt.Errorf("%w: %w", ErrEncoding, err) // a digest, a label: every refusal has its class
		}
		return err
	}
	switch v.Kind() {
	case reflect.String:
		text, err := s.str()
		v.SetString(text)
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
		return s.decodeStruct(v, depth)
	}
	return broken("%s has no encoding", v.Type())
}

func (s *scanner) decodeBytes(v reflect.Value) error {
	text, err := s.str()
	if err != nil {
		return err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
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
		element := reflect.New(v.Type().Elem()).Elem()
		if err := s.decode(element, depth+1); err != nil {
			return err
		}
		v.Set(reflect.Append(v, element))
		return nil
	})
}

func (s *scanner) decodeStruct(v reflect.Value, depth int) error {
	fields := fieldsOf(v.Type())
	v.SetZero()
	return s.object(depth, func(name string) error {
		for _, f := range fields {
			if f.name == name {
				return s.decode(v.Field(f.index), depth+1)
			}
		}
		extra, ok := extraOf(v)
		if !ok {
			return broken("an unknown member before %d", s.pos)
		}
		value, err := s.raw(depth + 1)
		extra.Set(reflect.Append(extra, reflect.ValueOf(Member{name, value})))
		return err
	})
}
