package main

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// out runs a command that must succeed and gives what it prints.
func out(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(args, &stdout, &stderr); code != exitOK {
		t.Fatalf("%v: exit code %d: %s", args, code, stderr.String())
	}
	return stdout.String()
}

// TestQuarantineIsListed: newest first, of one link if asked, with a sample's
// digest and never its bytes.
func TestQuarantineIsListed(t *testing.T) {
	t.Setenv(passphraseEnv, "a passphrase for tests")
	top := t.TempDir()
	dir, ca := filepath.Join(top, strings.Repeat("深", 30), strings.Repeat("深", 30), "n"), filepath.Join(top, "ca")
	out(t, "ca", "init", ca, "--domain", "示范域")
	out(t, append(initArgs(dir, "n"), "--agency", "11520000000000001Q=示范单位")...)
	out(t, "ca", "admit", ca, filepath.Join(dir, "request.json"))
	out(t, "ca", "publish", ca)
	out(t, "init", "--data", dir, "--directory", filepath.Join(ca, "directory.yzd"), "--authority", filepath.Join(ca, "authority.crt"))
	a := &app{out: io.Discard, err: io.Discard, now: time.Now}
	s, err := a.openStopped(t.Context(), dataDir(dir), withoutKeys)
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"", "jia-yi", "jia-yi"} {
		if err := s.node.Quarantine(t.Context(), link, "header x", "digest", []byte("secret sample")); err != nil {
			t.Fatal(err)
		}
	}
	if _, detail := refusal(t, "queue", "ls", "--data", dir, "--quarantine", "--limit", "0"); detail == "" {
		t.Error("a limit of 0 passes")
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if got := out(t, "queue", "ls", "--data", dir, "--quarantine", "--link", "jia-yi", "--limit", "1", "--json"); !strings.HasPrefix(got, `{"quarantined":2,"items":[{"at":"`) || strings.Count(got, "header x") != 1 || strings.Contains(got, "secret") {
		t.Error(got)
	}
	if got := out(t, "queue", "ls", "--data", dir, "--quarantine"); strings.Count(got, "header x: digest") != 3 || !strings.Contains(got, "隔离区：3") {
		t.Error(got)
	}
	if got := out(t, "queue", "ls", "--data", dir); !strings.Contains(got, "in quarantine: 3") {
		t.Error(got)
	}
}
