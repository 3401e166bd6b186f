package strictjson

import (
	"encoding"
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// encode appends the one encoding of v. What it gives with an error is to be
// thrown away.
func encode(b []byte, v reflect.Value, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return b, broken("nested deeper than %d", MaxDepth)
	}
	s := shapeOf(v.Type())
	switch {
	case s.raw:
		return encodeRaw(b, v.Bytes(), depth)
	case s.bytes:
		b = base64.StdEncoding.AppendEncode(append(b, '"'), v.Bytes())
		return append(b, '"'), nil
	case s.text:
		return encodeText(b, v, s)
	}
	switch v.Kind() {
	case reflect.String:
		return encodeString(b, v.String())
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool()), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return encodeInt(b, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if v.Uint() > maxInt {
			return b, broken("an integer above 2^53-1")
		}
		return encodeInt(b, int64(v.Uint()))
	case reflect.Slice:
		return encodeSlice(b, v, depth)
	case reflect.Pointer:
		if v.IsNil() {
			return b, broken("a nil pointer without omitempty")
		}
		return encode(b, v.Elem(), depth)
	case reflect.Struct:
		return encodeStruct(b, v, s, depth)
	}
	return b, fmt.Errorf("strictjson: %s has no encoding", v.Type())
}

func encodeText(b []byte, v reflect.Value, s *shape) ([]byte, error) {
	var text []byte
	var err error
	if s.appends && v.CanAddr() {
		var room [64]byte // a digest; longer texts get their own
		text, err = v.Addr().Interface().(encoding.TextAppender).AppendText(room[:0])
	} else {
		text, err = v.Interface().(encoding.TextMarshaler).MarshalText()
	}
	if err != nil {
		return b, err
	}
	return encodeString(b, text)
}

func encodeInt(b []byte, n int64) ([]byte, error) {
	if n > maxInt || n < -maxInt {
		return b, broken("an integer beyond 2^53-1")
	}
	return strconv.AppendInt(b, n, 10), nil
}

func encodeRaw(b, raw []byte, depth int) ([]byte, error) {
	s := &scanner{data: raw}
	if err := s.skip(depth); err != nil {
		return b, err
	}
	if s.pos != len(raw) {
		return b, broken("bytes after a raw value")
	}
	return append(b, raw...), nil
}

func encodeSlice(b []byte, v reflect.Value, depth int) (_ []byte, err error) {
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = encode(b, v.Index(i), depth+1); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

func encodeStruct(b []byte, v reflect.Value, s *shape, depth int) (_ []byte, err error) {
	b = append(b, '{')
	first := true
	for i := range s.fields {
		f := &s.fields[i]
		value := v.Field(f.index)
		if f.omit && empty(value) {
			continue
		}
		b = append(comma(b, first), f.head...)
		first = false
		if b, err = encode(b, value, depth+1); err != nil {
			return b, err
		}
	}
	if s.extra >= 0 && v.Field(s.extra).Len() > 0 {
		if b, err = encodeExtra(b, v.Field(s.extra).Interface().(Extra), s.fields, first, depth); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

func comma(b []byte, first bool) []byte {
	if first {
		return b
	}
	return append(b, ',')
}

func encodeExtra(b []byte, members Extra, fields []field, first bool, depth int) (_ []byte, err error) {
	last := ""
	for i, m := range members {
		if i > 0 && m.Name <= last {
			return b, broken("unknown members out of order")
		}
		last = m.Name
		if slices.ContainsFunc(fields, func(f field) bool { return strings.EqualFold(f.name, m.Name) }) {
			return b, broken("an unknown member named like a known one")
		}
		if b, err = encodeString(comma(b, first && i == 0), m.Name); err != nil {
			return b, err
		}
		if b, err = encodeRaw(append(b, ':'), m.Value, depth+1); err != nil {
			return b, err
		}
	}
	return b, nil
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

func encodeString[T string | []byte](b []byte, s T) ([]byte, error) {
	b = append(b, '"')
	from, ascii := 0, true
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			ascii = ascii && c < utf8.RuneSelf
			continue
		}
		b = appendEscape(append(b, s[from:i]...), c)
		from = i + 1
	}
	if !ascii && !utf8.ValidString(string(s)) {
		return b, broken("a string that is not UTF-8")
	}
	return append(append(b, s[from:]...), '"'), nil
}

// appendEscape writes a character that does not stand for itself.
func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, `\b`...)
	case '\t':
		return append(b, `\t`...)
	case '\n':
		return append(b, `\n`...)
	case '\f':
		return append(b, `\f`...)
	case '\r':
		return append(b, `\r`...)
	}
	return append(append(b, `\u00`...), hexDigits[c>>4], hexDigits[c&15])
}
