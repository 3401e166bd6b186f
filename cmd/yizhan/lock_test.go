package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// refusal runs a command with --json and gives the code and detail of its
// error; empty when there is none.
func refusal(t *testing.T, args ...string) (code, detail string) {
	t.Helper()
	var out bytes.Buffer
	if run(append(args, "--json"), io.Discard, &out) == exitOK {
		return "", ""
	}
	var said struct {
		Error struct{ Code, Detail, Fix_en, Fix_zh string }
	}
	if err := json.Unmarshal(out.Bytes(), &said); err != nil {
		t.Fatalf("%s: %v", out.String(), err)
	}
	if said.Error.Code == exchange.CodeSetupConflict && (said.Error.Fix_en == exchange.Explain("", "en").Fix || said.Error.Fix_zh == exchange.Explain("", "zh").Fix) {
		t.Error("no next step is named")
	}
	return said.Error.Code, said.Error.Detail
}

func initArgs(dir, node string) []string {
	return []string{"init", "--data", dir, "--node", node, "--domain", "示范域", "--zone", "政务外网"}
}

// TestSetupsDoNotMix: of commands that begin, or change, a setup at once one
// goes through as a whole; the others say what is there and leave it alone.
func TestSetupsDoNotMix(t *testing.T) {
	t.Setenv(passphraseEnv, "a passphrase for tests")
	dir := filepath.Join(t.TempDir(), "n")
	var wait sync.WaitGroup
	codes := make([]string, 4)
	for i := range codes {
		wait.Go(func() { codes[i], _ = refusal(t, initArgs(dir, fmt.Sprintf("n%d", i))...) })
	}
	wait.Wait()
	through := -1
	for i, code := range codes {
		switch {
		case code == "" && through < 0:
			through = i
		case code != exchange.CodeSetupConflict:
			t.Errorf("init %d: code %q", i, code)
		}
	}
	d := dataDir(dir)
	s, err := d.settings()
	if err != nil || through < 0 || s.Node != fmt.Sprintf("n%d", through) {
		t.Fatalf("init %d went through, and the settings are %+v, %v", through, s, err)
	}
	b, err := os.ReadFile(d.path(requestFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := certs.ParseRequest(b); err != nil || !bytes.Contains(b, []byte(s.Node)) {
		t.Errorf("the request is not of node %s: %v", s.Node, err)
	}
	code, detail := refusal(t, initArgs(dir, "another")...)
	if code != exchange.CodeSetupConflict || !strings.Contains(detail, "holds node "+s.Node+" of domain 示范域") {
		t.Errorf("%s: %s", code, detail)
	}

	agency, err := certs.MakeAgencyCode("11520000000000001")
	if err != nil {
		t.Fatal(err)
	}
	const many = 12
	for range many {
		wait.Go(func() {
			if code, detail := refusal(t, "key", "create", "--data", dir, "--agency", string(agency)); code != "" {
				t.Errorf("%s: %s", code, detail)
			}
		})
	}
	wait.Wait()
	ring, err := openKeyRing(dir)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := ring.List(); err != nil || len(list) != many {
		t.Errorf("%d of %d keys are there, %v", len(list), many, err)
	}
}

// TestSetupConflict: each way of getting at a setup that is another's, or in
// another's hands, has the one code.
func TestSetupConflict(t *testing.T) {
	t.Setenv(passphraseEnv, "a passphrase for tests")
	dir := t.TempDir()
	data, other, ca := filepath.Join(dir, "n"), filepath.Join(dir, "other"), filepath.Join(dir, "ca")
	must := func(args ...string) {
		t.Helper()
		if code, detail := refusal(t, args...); code != "" {
			t.Fatalf("%v: %s: %s", args, code, detail)
		}
	}
	must(initArgs(data, "jia")...)
	for _, domain := range []string{"示范域", "别的域"} {
		at := ca + domain
		must("ca", "init", at, "--domain", domain)
		must(append(initArgs(other+domain, "jia")[:6], domain, "--zone", "政务外网")...)
		must("ca", "admit", at, filepath.Join(other+domain, requestFile))
		must("ca", "publish", at)
	}
	file := func(domain string) string { return filepath.Join(ca+domain, "directory.yzd") }
	authority := filepath.Join(ca+"别的域", "authority.crt")
	if err := os.Rename(filepath.Join(other+"别的域", configFile), filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	// A node whose directory is installed, and which somebody serves.
	here := other + "示范域"
	must("init", "--data", here, "--directory", file("示范域"), "--authority", filepath.Join(ca+"示范域", "authority.crt"))
	release, err := dataDir(here).hold(serveLock, 0, "%s")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		says string
	}{
		"an authority over another":     {[]string{"ca", "init", ca + "示范域", "--domain", "x"}, "holds a keystore already"},
		"over an init that broke off":   {initArgs(other+"别的域", "jia"), "holds a keystore already"},
		"a directory of another domain": {[]string{"init", "--data", data, "--directory", file("别的域"), "--authority", authority}, "this is a node of 示范域"},
		"serving what is served":        {[]string{"serve", "--data", here, "--rest-listen", "no-address"}, "another process serves"},
	} {
		if code, detail := refusal(t, tt.args...); code != exchange.CodeSetupConflict || !strings.Contains(detail, tt.says) {
			t.Errorf("%s: %s: %s", name, code, detail)
		}
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if release, err = dataDir(here).hold(setupLock, 0, "%s"); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	for name, args := range map[string][]string{
		"joining":      {"init", "--data", here, "--directory", file("示范域")},
		"making a key": {"key", "create", "--data", here, "--agency", "91350100M000100Y43"},
	} {
		if code, detail := refusal(t, args...); code != exchange.CodeSetupConflict || !strings.Contains(detail, "is changing the setup") {
			t.Errorf("%s while something else is changed: %s: %s", name, code, detail)
		}
	}
	if time.Since(begun) < setupPatience {
		t.Error("it did not wait for the other change")
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	must("init", "--data", here, "--directory", file("示范域"))
}

// TestAnotherUsersDirectory is not opened: what root makes there the node cannot
// write.
func TestAnotherUsersDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a directory another user's")
	}
	dir := t.TempDir()
	if err := dataDir(dir).checkOwner(); err != nil {
		t.Errorf("one's own: %v", err)
	}
	if err := os.Chown(dir, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if err := dataDir(dir).checkOwner(); exchange.CodeOf(err) != exchange.CodeWrongUser {
		t.Errorf("another user's: %v", err)
	}
}
