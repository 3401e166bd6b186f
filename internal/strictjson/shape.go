package strictjson

import (
	"encoding"
	"reflect"
	"strings"
	"sync"
)

// shape is what is known of a type before any value of it: looking it up is much
// cheaper than asking reflect for its methods and tags with every value.
type shape struct {
	raw, bytes bool
	text       bool // written with MarshalText
	appends    bool // or with AppendText, if its address is at hand
	textual    bool // read with UnmarshalText
	fields     []field
	extra      int // the field of members that are not declared; -1 for none
}

// field is how a struct field is written.
type field struct {
	name  string
	head  []byte // the name as it is written, with its colon
	index int
	omit  bool
}

var (
	extraType = reflect.TypeFor[Extra]()
	rawType   = reflect.TypeFor[Raw]()
	bytesType = reflect.TypeFor[[]byte]()
	marshaler = reflect.TypeFor[encoding.TextMarshaler]()
	appender  = reflect.TypeFor[encoding.TextAppender]()
	unmarshal = reflect.TypeFor[encoding.TextUnmarshaler]()
)

var shapes sync.Map // reflect.Type to *shape

func shapeOf(t reflect.Type) *shape {
	if known, ok := shapes.Load(t); ok {
		return known.(*shape)
	}
	s := &shape{raw: t == rawType, bytes: t == bytesType, extra: -1}
	if t.Kind() != reflect.Pointer {
		s.text = t.Implements(marshaler)
		s.appends = s.text && reflect.PointerTo(t).Implements(appender)
		s.textual = reflect.PointerTo(t).Implements(unmarshal)
	}
	if t.Kind() == reflect.Struct {
		s.fields = fieldsOf(t)
		if n := t.NumField(); n > 0 && t.Field(n-1).Type == extraType {
			s.extra = n - 1
		}
	}
	shapes.Store(t, s)
	return s
}

func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("json")
		if !ok || tag == "-" || f.Type == extraType {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		head, err := encodeString(nil, name)
		if err != nil {
			panic("strictjson: the name of a field of " + t.String() + ": " + err.Error()) // a constant of the source
		}
		out = append(out, field{name, append(head, ':'), i, options == "omitempty"})
	}
	return out
}
