package evidence

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// relabelledTo exports the shared evidence and gives its objects.
func relabelledTo(t *testing.T, dir string) []Object {
	t.Helper()
	f := sharedWorld(t).copyFile(t)
	if _, err := f.WriteRelabelled(dir, nil); err != nil {
		t.Fatal(err)
	}
	return must[[]Object](t)(f.Relabelled())
}

func TestRelabelledHoldsEverySignedObject(t *testing.T) {
	w := sharedWorld(t)
	dir := filepath.Join(t.TempDir(), "out")
	objects := relabelledTo(t, dir)
	var names []string
	for _, o := range objects {
		names = append(names, o.Name)
		written := must[[]byte](t)(os.ReadFile(filepath.Join(dir, o.Name+".der")))
		if !bytes.Equal(written, o.DER) {
			t.Errorf("%s.der is something else", o.Name)
		}
		if _, err := cms.Parse(o.DER, len(o.DER)); err == nil {
			t.Errorf("%s is in the form of GB/T 35275", o.Name)
		}
		// No title, no name of a person or file gets into a file name or the list.
		if strings.Trim(o.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Errorf("file name %q", o.Name)
		}
	}
	want := "directory header receipt-00000 receipt-00001 receipt-00002 receipt-00003 checkpoint"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("objects %s, want %s", got, want)
	}
	if at := objects[1].Received; !at.Equal(start) {
		t.Errorf("the header was received at %v", at)
	}
	beside := 2 // authority.pem and objects.txt
	for _, there := range []bool{len(w.file.Timestamp) > 0, len(w.ours.directory.Issuers()) > 0} {
		if there {
			beside++
		}
	}
	if n := len(must[[]os.DirEntry](t)(os.ReadDir(dir))); n != 2*len(objects)+beside+len(w.file.CRLs) {
		t.Errorf("%d files", n)
	}
	if _, err := w.copyFile(t).WriteRelabelled(dir, nil); exchange.CodeOf(err) != exchange.CodeConflict {
		t.Errorf("into a folder that is not empty: %v", err)
	}
}

func TestRelabelNamesWhatIsNoSignedObject(t *testing.T) {
	w := sharedWorld(t)
	for name, spoil := range map[string]func(f *File){
		"header":        func(f *File) { f.Header = f.Header[1:] },
		"receipt-00002": func(f *File) { f.Receipts[collected].CMS = nil },
		"checkpoint":    func(f *File) { f.Checkpoint = append(f.Checkpoint, 0) },
	} {
		f := w.copyFile(t)
		spoil(f)
		dir := filepath.Join(t.TempDir(), "out")
		_, err := f.WriteRelabelled(dir, nil)
		if exchange.CodeOf(err) != exchange.CodeBadRequest || !strings.Contains(fmt.Sprint(err), name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: a folder was made", name)
		}
	}
}

// documentedScript is the script that docs/verify-with-other-tools.md tells
// auditors to run.
func documentedScript(t *testing.T) []byte {
	t.Helper()
	doc := must[[]byte](t)(os.ReadFile(filepath.Join("..", "..", "docs", "verify-with-other-tools.md")))
	_, rest, ok := bytes.Cut(doc, []byte("```sh\n"))
	script, _, closed := bytes.Cut(rest, []byte("```\n"))
	if !ok || !closed {
		t.Fatal("the document has no script")
	}
	return script
}

// check runs the script in an exported folder.
func check(t *testing.T, script []byte, dir string) (string, error) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "check.sh"), script, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-e", "check.sh")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestTheDocumentedCommandsVerify runs what the documentation says, so that it
// cannot go stale: an implementation that is not ours verifies every object,
// and none after a change.
func TestTheDocumentedCommandsVerify(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed; with it (Debian: apt-get install openssl) this test runs the documented commands")
	}
	script := documentedScript(t)
	dir := filepath.Join(t.TempDir(), "good")
	objects := relabelledTo(t, dir)
	out, err := check(t, script, dir)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, o := range objects {
		if !strings.Contains(out, o.Name+" verified\n") {
			t.Errorf("%s was not verified:\n%s", o.Name, out)
		}
	}
	for name, spoil := range map[string]func(t *testing.T, dir string, o *Object){
		"content changed":   func(t *testing.T, _ string, o *Object) { flipIn(t, o.DER, "yizhan-receipt") },
		"attribute changed": func(t *testing.T, _ string, o *Object) { flipIn(t, o.DER, "261123080000Z") },
		"signature changed": func(_ *testing.T, _ string, o *Object) { o.DER[len(o.DER)-1] ^= 1 },
		"another's certificate": func(t *testing.T, dir string, _ *Object) {
			b := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "header.pem")))
			must[any](t)(nil, os.WriteFile(filepath.Join(dir, "receipt-00003.pem"), b, 0o600))
		},
		"another authority": func(t *testing.T, dir string, _ *Object) {
			b := pemOf(sharedWorld(t).other.directory.Authority())
			must[any](t)(nil, os.WriteFile(filepath.Join(dir, AuthorityFile), b, 0o600))
		},
		"expired": func(t *testing.T, dir string, o *Object) {
			list := must[[]byte](t)(os.ReadFile(filepath.Join(dir, ObjectList)))
			list = bytes.ReplaceAll(list, fmt.Append(nil, o.Received.Unix()), fmt.Append(nil, o.Received.AddDate(6, 0, 0).Unix()))
			must[any](t)(nil, os.WriteFile(filepath.Join(dir, ObjectList), list, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "bad")
			o := &relabelledTo(t, dir)[5] // the last receipt
			spoil(t, dir, o)
			must[any](t)(nil, os.WriteFile(filepath.Join(dir, o.Name+".der"), o.DER, 0o600))
			if out, err := check(t, script, dir); err == nil || strings.Contains(out, o.Name+" verified") {
				t.Errorf("it verifies:\n%s", out)
			}
		})
	}
}

// TestTheDocumentedCommandsFollowASuccession: an auditor who trusts the
// authority's first certificate verifies what its heir signed, and nothing by
// an heir that it did not name.
func TestTheDocumentedCommandsFollowASuccession(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed; with it (Debian: apt-get install openssl) this test runs the documented commands")
	}
	w := sharedWorld(t)
	pass := []byte("succession")
	a := must[*certs.Authority](t)(certs.InitAuthority(filepath.Join(t.TempDir(), "ca"), "test", pass, w.other.random, start))
	old := a.Certificate()
	must[[]byte](t)(a.Publish(start))
	must[any](t)(nil, a.Succeed(start))
	f := w.copyFile(t)
	f.Directory = must[[]byte](t)(a.Publish(start.Add(time.Hour)))
	for name, trusted := range map[string][]byte{"the first certificate": old, "a stranger's": w.ours.directory.Authority()} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "out")
			must[[]string](t)(f.WriteRelabelled(dir, trusted))
			list := must[[]byte](t)(os.ReadFile(filepath.Join(dir, ObjectList)))
			lines := bytes.SplitAfterN(list, []byte("\n"), 3)
			must[any](t)(nil, os.WriteFile(filepath.Join(dir, ObjectList), bytes.Join(lines[:2], nil), 0o600)) // the other objects are of another domain
			out, err := check(t, documentedScript(t), dir)
			good := err == nil && strings.Contains(out, "succession-00000 verified") && strings.Contains(out, "directory verified")
			if good != bytes.Equal(trusted, old) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
