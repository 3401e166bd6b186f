package strictjson

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

type inner struct {
	A     string `json:"a"`
	Extra Extra
}

type object struct {
	Type  string   `json:"type"`
	V     int      `json:"v"`
	Crit  []string `json:"crit,omitempty"`
	Name  string   `json:"name"`
	Count uint64   `json:"count"`
	Small int8     `json:"small,omitempty"`
	Flag  bool     `json:"flag,omitempty"`
	Data  []byte   `json:"data,omitempty"`
	List  []inner  `json:"list"`
	One   *inner   `json:"one,omitempty"`
	At    Time     `json:"at,omitempty"`
	Any   Raw      `json:"any,omitempty"`
	Extra Extra
}

// vector is one case of testdata/vectors.json, for any implementation of the
// encoding with the members of object above.
type vector struct {
	Name  string `json:"name"`
	JSON  string `json:"json"`
	Class string `json:"class"` // ok, encoding, critical
}

func vectors(t testing.TB) []vector {
	b, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var out []vector
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			var o object
			err := Unmarshal([]byte(v.JSON), &o)
			class := "ok"
			switch {
			case errors.Is(err, ErrCritical):
				class = "critical"
			case errors.Is(err, ErrEncoding):
				class = "encoding"
			case err != nil:
				t.Fatalf("an error of no class: %v", err)
			}
			if class != v.Class {
				t.Fatalf("%s (%v), want %s", class, err, v.Class)
			}
			if err == nil {
				again, err := Marshal(&o)
				if err != nil || string(again) != v.JSON {
					t.Fatalf("marshals to %s, %v", again, err)
				}
			}
		})
	}
}

func TestMarshalRefusesWhatHasNoEncoding(t *testing.T) {
	for name, v := range map[string]any{
		"integer beyond 2^53-1": &object{Count: 1 << 53},
		"not UTF-8":             &object{Name: "\xff"},
		"float": &struct {
			F float64 `json:"f"`
		}{1},
		"map": &struct {
			M map[string]int `json:"m"`
		}{map[string]int{}},
		"nil pointer": &struct {
			P *inner `json:"p"`
		}{},
		"year 10000":           &object{At: TimeOf(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))},
		"raw with white space": &object{Any: Raw(`{"a": 1}`)},
		"extra out of order":   &object{Extra: Extra{{"y", Raw("1")}, {"x", Raw("1")}}},
		"extra like a member":  &object{Extra: Extra{{"Name", Raw("1")}}},
	} {
		if b, err := Marshal(v); err == nil {
			t.Errorf("%s: %s", name, b)
		}
	}
}

func TestErrorsShowNoValue(t *testing.T) {
	var o object
	err := Unmarshal([]byte(`{"type":"t","v":1,"name":"绝密标题" ,"count":0,"list":[]}`), &o)
	if err == nil || strings.Contains(err.Error(), "绝密") {
		t.Errorf("%v", err)
	}
}

func TestDepthIsBounded(t *testing.T) {
	deep := `{"type":"t","v":1,"name":"n","count":0,"list":[],"any":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + `}`
	var o object
	if err := Unmarshal([]byte(deep), &o); !errors.Is(err, ErrEncoding) {
		t.Errorf("%v", err)
	}
}

func TestObjectMembers(t *testing.T) {
	list, err := ObjectMembers(Raw(`{"b":1,"a":[true,{"x":"y"}]}`))
	if err != nil || len(list) != 2 || list[0].Name != "b" || string(list[1].Value) != `[true,{"x":"y"}]` {
		t.Errorf("%v, %v", list, err)
	}
	for _, bad := range []string{``, `[]`, `{"a":1}x`, `{"a":1,"a":2}`, `{"a":1,"A":2}`, `{"a" :1}`, `{"a":null}`, `{"a":1.5}`} {
		if _, err := ObjectMembers(Raw(bad)); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// FuzzUnmarshal: what is accepted has exactly these bytes.
func FuzzUnmarshal(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add([]byte(v.JSON))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var o object
		if err := Unmarshal(b, &o); err != nil {
			if !errors.Is(err, ErrEncoding) && !errors.Is(err, ErrCritical) {
				t.Fatalf("an error without a class: %v", err)
			}
			return
		}
		again, err := Marshal(&o)
		if err != nil || string(again) != string(b) {
			t.Fatalf("%q was accepted and marshals to %q, %v", b, again, err)
		}
		if !json.Valid(b) {
			t.Fatalf("%q was accepted and is not JSON", b)
		}
	})
}
