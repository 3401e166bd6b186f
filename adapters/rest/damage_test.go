package rest

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// TestDamageAtRestHasOneAnswer: a stored document that was changed, cut or
// taken away on the disk is never given out, and whoever asks learns the same.
func TestDamageAtRestHasOneAnswer(t *testing.T) {
	answers := map[string]string{}
	for name, damage := range map[string]func(path string, b []byte) error{
		"first byte changed": func(path string, b []byte) error { b[0] ^= 1; return os.WriteFile(path, b, 0o600) },
		"last byte changed":  func(path string, b []byte) error { b[len(b)-1] ^= 1; return os.WriteFile(path, b, 0o600) },
		"every byte changed": func(path string, b []byte) error {
			for i := range b {
				b[i] ^= 0x55
			}
			return os.WriteFile(path, b, 0o600)
		},
		"cut in half": func(path string, b []byte) error { return os.WriteFile(path, b[:len(b)/2], 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, 1<<20)
			document := o.sent("damaged")
			path := "/v1/inbox/" + document + "/files/0"
			if a := o.do("yi", http.MethodGet, path, nil, nil); a.status != http.StatusOK {
				t.Fatalf("undamaged: %d %s", a.status, a.body)
			}
			n := 0
			o.must(filepath.WalkDir(filepath.Join(o.dir, "blobs"), func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				b, err := os.ReadFile(path)
				b = bytes.TrimRight(b, "\x00") // the unused rest of a segment
				if err != nil || len(b) == 0 {
					return err
				}
				n++
				return damage(path, b)
			}))
			if n == 0 {
				t.Fatal("nothing is stored")
			}
			a := o.do("yi", http.MethodGet, path, nil, nil)
			p := a.problem()
			answers[name] = fmt.Sprint(a.status, " ", p.Code, " ", p.Title, " ", p.Fix)
		})
	}
	for name, answer := range answers {
		if answer != answers["last byte changed"] || answer[0] == '2' {
			t.Errorf("%s: %s; last byte changed: %s", name, answer, answers["last byte changed"])
		}
	}
	t.Log(answers["last byte changed"])
}
