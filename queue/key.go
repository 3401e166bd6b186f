package queue

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Key encodes parts so that keys sort as their parts do: strings end with
// 00 01 and have 00 written as 00 ff, uint64 are big-endian, byte slices and
// byte arrays stand as they are (use fixed lengths, or put them last).
func Key(parts ...any) []byte { return AppendKey(make([]byte, 0, usualKey), parts...) }

const usualKey = 112 // bytes; three digests, a name and their ends

// AppendKey appends parts to a key.
func AppendKey(k []byte, parts ...any) []byte {
	for _, p := range parts {
		switch v := p.(type) {
		case string:
			k = append(appendString(k, v), 0, 1)
		case sm.Digest:
			k = append(k, v[:]...)
		case uint64:
			k = binary.BigEndian.AppendUint64(k, v)
		case []byte:
			k = append(k, v...)
		default:
			k = appendArray(k, reflect.ValueOf(p))
		}
	}
	return k
}

func appendString(k []byte, s string) []byte {
	for {
		zero := strings.IndexByte(s, 0)
		if zero < 0 {
			return append(k, s...)
		}
		k, s = append(append(k, s[:zero]...), 0, 0xff), s[zero+1:]
	}
}

func appendArray(k []byte, v reflect.Value) []byte {
	if v.Kind() != reflect.Array || v.Type().Elem().Kind() != reflect.Uint8 {
		panic(fmt.Sprintf("queue: %s cannot be a part of a key", v.Type()))
	}
	for i := range v.Len() {
		k = append(k, byte(v.Index(i).Uint()))
	}
	return k
}

// PrefixEnd is the smallest key above all keys with the prefix; nil when
// there is none.
func PrefixEnd(prefix []byte) []byte {
	end := append([]byte{}, prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
