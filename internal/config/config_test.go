package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type duration time.Duration

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

type sample struct {
	Node   string   `toml:"node"`
	Port   int      `toml:"port"`
	Wait   duration `toml:"wait"`
	Hidden string   `toml:"-"`
	Peer   struct {
		Listen string `toml:"listen"`
		TLS    bool   `toml:"tls"`
	} `toml:"peer"`
	Keys []struct {
		Name string `toml:"name"`
	} `toml:"keys"`
}

func TestParse(t *testing.T) {
	tests := []struct {
		name, text   string
		line, column int // 0: accepted
		key          string
		problem      string
		hint         string
	}{
		{name: "empty", text: ""},
		{name: "full", text: "node = \"a\"\nport = 7\nwait = \"30s\"\n[peer]\nlisten = \":1\"\ntls = true\n[[keys]]\nname = \"x\"\n"},
		{"unknown key", "node = \"a\"\nfoo_bar_baz = 1\n", 2, 1, "foo_bar_baz", "not an option", "remove it"},
		{"misspelt", "nodd = \"a\"\n", 1, 1, "nodd", "not an option", `did you mean "node"?`},
		{"misspelt in a table", "[peer]\nlisen = \":1\"\n", 2, 1, "peer.lisen", "not an option", `did you mean "peer.listen"?`},
		{"misspelt in a list", "[[keys]]\nnam = \"k\"\n", 2, 1, "keys.nam", "not an option", `did you mean "keys.name"?`},
		{"misspelt table", "[pear]\nlisten = \":1\"\n", 1, 2, "pear", "not an option", `did you mean "peer"?`},
		{"hidden field", "Hidden = \"a\"\n", 1, 1, "Hidden", "not an option", "remove it"},
		{"text for a number", "node = \"a\"\nport = \"7\"\n", 2, 8, "port", "wrong kind", "double quotes"},
		{"number for text", "node = 7\n", 1, 8, "node", "wrong kind", "double quotes"},
		{"bad duration", "wait = \"soon\"\n", 1, 8, "wait", "wrong kind", "30s"},
		{"twice", "node = \"a\"\nnode = \"b\"\n", 2, 1, "", "", ""},
		{"no value", "node =\n", 1, 7, "", "", "quotes"},
		{"bom", "\xef\xbb\xbfnode = \"a\"\n", 1, 1, "", "byte order mark", "without BOM"},
		{"gbk", "node = \"a\"\n# \xb9\xab\xce\xc4\n", 2, 3, "", "not UTF-8", "GBK"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s sample
			err := Parse("node.toml", []byte(tt.text), &s)
			if tt.line == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want an *Error", err)
			}
			if e.Line != tt.line || tt.column != 0 && e.Column != tt.column {
				t.Errorf("at %d:%d, want %d:%d (%v)", e.Line, e.Column, tt.line, tt.column, err)
			}
			if tt.key != "" && e.Key != tt.key {
				t.Errorf("key %q, want %q", e.Key, tt.key)
			}
			if !strings.Contains(e.Problem, tt.problem) || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("got %v", err)
			}
			if !strings.HasPrefix(err.Error(), "node.toml:") {
				t.Errorf("%v does not name the file", err)
			}
		})
	}
}

func TestAllUnknownKeysAreNamed(t *testing.T) {
	var s sample
	err := Parse("node.toml", []byte("alpha = 1\nbeta = 2\n"), &s)
	if err == nil || !strings.Contains(err.Error(), ":1:1:") || !strings.Contains(err.Error(), ":2:1:") {
		t.Errorf("got %v", err)
	}
}

func TestDefaultsStay(t *testing.T) {
	s := sample{Port: 9, Node: "z"}
	if err := Parse("node.toml", []byte("node = \"a\"\n"), &s); err != nil {
		t.Fatal(err)
	}
	if s.Port != 9 || s.Node != "a" {
		t.Errorf("got %+v", s)
	}
}

// TestNoValues: whatever is wrong with a file, its values stay out of errors.
func TestNoValues(t *testing.T) {
	const secret = "hunter2hunter2"
	for _, text := range []string{
		"port = \"" + secret + "\"\n",
		"wait = \"" + secret + "\"\n",
		"other = \"" + secret + "\"\n",
		"node = " + secret + "\n",
		"node = \"" + secret + "\n",
		"node = \"" + secret + "\\q\"\n",
		"node = \"a\" " + secret + "\n",
		"port = 1" + secret + "\n",
		"[peer]\ntls = \"" + secret + "\"\n",
		"node = [\"" + secret + "\"]\n",
	} {
		var s sample
		err := Parse("node.toml", []byte(text), &s)
		if err == nil {
			t.Errorf("accepted %q", text)
		} else if strings.Contains(err.Error(), "hunter") {
			t.Errorf("the error shows a value: %v", err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	var s sample
	if err := Load(filepath.Join(dir, "absent.toml"), &s); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	path := filepath.Join(dir, "node.toml")
	if err := os.WriteFile(path, []byte("port = 8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Load(path, &s); err != nil || s.Port != 8 {
		t.Errorf("got %+v, %v", s, err)
	}
	if err := os.WriteFile(path, make([]byte, MaxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Load(path, &s); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "node = \"a\"", "[peer]\ntls = true", "[[keys]]\nname = \"x\"", "nodd = 1", "a.b.c = {d = 1}", "\xff", "port = 99999999999999999999"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s sample
		err := Parse("node.toml", b, &s)
		if err == nil {
			return
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("%T is no *Error: %v", err, err)
		}
		if e.Line < 0 || e.Column < 0 || e.Problem == "" {
			t.Fatalf("%+v", e)
		}
	})
}
