package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// whole writes the first file of the evidence vectors and its authority's
// certificate.
func whole(t *testing.T) (evidence, authority string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "exchange", "evidence", "testdata", "evidence-v1.json"))
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Authority []byte
		Vectors   []struct{ Pieces []struct{ Text string } }
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Authority})
	return write("proof.json", []byte(f.Vectors[0].Pieces[0].Text)), write("authority.crt", certificate)
}

func TestExitCodes(t *testing.T) {
	evidence, authority := whole(t)
	b, err := os.ReadFile(evidence)
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(t.TempDir(), "changed.json")
	if err := os.WriteFile(changed, bytes.Replace(b, []byte(`"seen":"2026`), []byte(`"seen":"1926`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
	}{
		{"all is well", []string{"-authority", authority, evidence}, 0},
		{"something does not verify", []string{"-authority", authority, changed}, 6},
		{"a file that was not sealed", []string{"-authority", authority, evidence, authority}, 6},
		{"no argument", nil, 2},
		{"unknown flag", []string{"-nonsense", evidence}, 2},
		{"no such file", []string{"-authority", authority, evidence + "x"}, 1},
		{"no evidence", []string{authority}, 1},
	} {
		var out, problem bytes.Buffer
		if got := run(c.args, &out, &problem); got != c.code {
			t.Errorf("%s: exit code %d, want %d: %s", c.name, got, c.code, &problem)
		}
	}
}

func TestRelabelWritesANewFolder(t *testing.T) {
	evidence, authority := whole(t)
	dir := filepath.Join(t.TempDir(), "out")
	var out, problem bytes.Buffer
	if code := run([]string{"-authority", authority, "-relabel", dir, evidence}, &out, &problem); code != 0 {
		t.Fatalf("exit code %d: %s", code, &problem)
	}
	for _, name := range []string{"authority.pem", "objects.txt", "header.der", "header.pem", "checkpoint.der"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if code := run([]string{"-relabel", dir, evidence}, &out, &problem); code != 1 || !strings.Contains(problem.String(), "not empty") {
		t.Errorf("again into the same folder: exit code %d: %s", code, &problem)
	}
}

// TestConfirmed: what an operator confirmed verifies with that person's certificate in
// the directory, and says so; under another name, or as an other stage, it does not.
func TestConfirmed(t *testing.T) {
	authority := filepath.Join("testdata", "confirmed-authority.crt")
	good, err := os.ReadFile(filepath.Join("testdata", "confirmed.json"))
	if err != nil {
		t.Fatal(err)
	}
	judge := func(b []byte) (code int, said string) {
		path := filepath.Join(t.TempDir(), "proof.json")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var out, trouble bytes.Buffer
		code = run([]string{"-authority", authority, path}, &out, &trouble)
		return code, out.String()
	}
	if code, said := judge(good); code != 0 || !strings.Contains(said, "CONFIRMED") {
		t.Errorf("exit code %d: %s", code, said)
	}
	var f struct {
		Receipts []struct {
			CMS string `json:"cms"`
		} `json:"receipts"`
	}
	if err := json.Unmarshal(good, &f); err != nil {
		t.Fatal(err)
	}
	last := f.Receipts[len(f.Receipts)-1].CMS
	der, err := base64.StdEncoding.DecodeString(last)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{{"zhang-san", "zhang-sam"}, {"CONFIRMED", "DELIVERED"}} {
		if !bytes.Contains(der, []byte(change[0])) {
			t.Fatalf("the last receipt does not say %s", change[0])
		}
		bad := base64.StdEncoding.EncodeToString(bytes.Replace(der, []byte(change[0]), []byte(change[1]), 1))
		if code, said := judge(bytes.Replace(good, []byte(last), []byte(bad), 1)); code != 6 {
			t.Errorf("%s for %s: exit code %d: %s", change[1], change[0], code, said)
		}
	}
}
