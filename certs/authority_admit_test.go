package certs

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// everyEntry gives the bytes of all entries and notes of an authority.
func everyEntry(t *testing.T, a *Authority) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{entriesDir, admittedDir} {
		err := fs.WalkDir(os.DirFS(a.dir), dir, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && e.IsDir() {
				return nil
			}
			b, err := os.ReadFile(filepath.Join(a.dir, path))
			all.WriteString(path + string(b))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// asks makes the request for new keys of the node and its agency.
func (m *member) asks(t *testing.T, keys Keys, at time.Time) *Request {
	t.Helper()
	b, err := ChangeRequest(keys, m.d, "jia", Change{RenewNode: true, Renew: []string{m.code}}, at)
	m.must(err)
	return parsed(t, b)
}

// TestAdmitTakesNothingOver: who names a listed node or agency in a request
// without a key that it is listed with changes nothing.
func TestAdmitTakesNothingOver(t *testing.T) {
	later := testNow.Add(time.Hour)
	for name, c := range map[string]struct {
		at      time.Time
		prepare func(t *testing.T, m *member)
		request func(t *testing.T, m *member) *Request
		says    string
	}{
		"a stranger's keys": {later, nil, func(t *testing.T, m *member) *Request {
			spec := agencySpec(t, "11520300000000001", "示范单位甲")
			b, err := NewRequest(m.forge.keys(), testDomain, NodeSpec{ID: "jia", URL: "https://thief.example", TLSPin: [32]byte{9}}, []AgencySpec{spec}, later)
			m.must(err)
			return parsed(t, b)
		}, "node jia is listed already"},
		"a stranger's keystore": {later, nil, func(t *testing.T, m *member) *Request {
			return m.asks(t, m.forge.keys(), later)
		}, "node jia is listed already"},
		"the node's key for its agency": {later, nil, func(t *testing.T, m *member) *Request {
			r := m.asks(t, m.keys, later)
			r.Renews[1].Key, r.Renews[1].Signature = r.Renews[0].Key, r.Renews[0].Signature
			m.prove(r)
			return r
		}, "agency 11520300000000001"},
		"the node's key alone": {later, nil, func(t *testing.T, m *member) *Request {
			r := m.asks(t, m.keys, later)
			r.Renews = r.Renews[:1]
			m.prove(r)
			return r
		}, "agency 11520300000000001"},
		"each other's signatures": {later, nil, func(t *testing.T, m *member) *Request {
			r := m.asks(t, m.keys, later)
			r.Renews[0].Holder, r.Renews[1].Holder = r.Renews[1].Holder, r.Renews[0].Holder
			m.prove(r)
			return r
		}, "node jia is listed already"},
		"its address changed on the way": {later, nil, func(t *testing.T, m *member) *Request {
			r := m.asks(t, m.keys, later)
			r.TLSPin = strings.Repeat("0", 64)
			m.prove(r)
			return r
		}, "does not verify"},
		"an expired key": {testNow.AddDate(6, 0, 0), nil, func(t *testing.T, m *member) *Request {
			return m.asks(t, m.keys, later)
		}, "no valid key"},
		"a revoked key": {later, func(t *testing.T, m *member) {
			n, _ := m.d.Node("jia")
			for _, c := range n.Certificates {
				m.must(m.a.Revoke(c.DER, testNow, ReasonSuperseded))
			}
		}, func(t *testing.T, m *member) *Request { return m.asks(t, m.keys, later) }, "no valid key"},
		"a key that will be revoked as stolen": {later, func(t *testing.T, m *member) {
			n, _ := m.d.Node("jia")
			for _, c := range n.Certificates {
				m.must(m.a.Revoke(c.DER, later.AddDate(0, 1, 0), ReasonKeyCompromise))
			}
		}, func(t *testing.T, m *member) *Request { return m.asks(t, m.keys, later) }, "no valid key"},
		"not in the entries, but published": {later, func(t *testing.T, m *member) {
			m.must(os.Remove(m.a.entryPath(nodeFile("jia"))))
		}, func(t *testing.T, m *member) *Request { return m.asks(t, m.forge.keys(), later) }, "node jia is listed already"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMember(t)
			r := c.request(t, m)
			if c.prepare != nil {
				c.prepare(t, m)
			}
			before := everyEntry(t, m.a)
			admission, err := m.a.Admission(c.at)
			m.must(err)
			err = admission.Add(parsed(t, encoded(t, r)))
			if again := admission.Commit(); again == nil {
				t.Error("committed what was refused")
			}
			wantCode(t, err, codeUnproven)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			if everyEntry(t, m.a) != before {
				t.Error("something was written")
			}
			replace(t, m.a, r, c.at) // the operator made sure
		})
	}
}

func encoded(t *testing.T, r *Request) []byte {
	t.Helper()
	b, err := strictjson.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAdmissionShowsEachHolder: what is done to each holder is said before
// anything is written, with the keys and certificates before and after.
func TestAdmissionShowsEachHolder(t *testing.T) {
	m := newMember(t)
	node, _ := m.d.Node("jia")
	later := testNow.Add(time.Minute)
	add := func(r *Request, replace bool) *Admission {
		t.Helper()
		admission, err := m.a.Admission(later)
		m.must(err)
		admission.Replace = replace
		m.must(admission.Add(r))
		return admission
	}
	actions := func(a *Admission) (out string) {
		for _, h := range a.Holders {
			out += h.Holder + " " + h.Action + "; "
		}
		return out
	}
	before := everyEntry(t, m.a)

	b, err := ChangeRequest(m.keys, m.d, "jia", Change{Renew: []string{m.code}}, later)
	m.must(err)
	got := add(parsed(t, b), false)
	if actions(got) != "node jia unchanged; agency "+m.code+" renews; " {
		t.Errorf("got %s", actions(got))
	}
	if list := parsed(t, b).Unproven(m.d, later); len(list) > 0 {
		t.Errorf("not proven for %q", list)
	}
	agency, _ := m.d.Agency(m.code)
	for i, use := range []string{UseSign, UseEncrypt} {
		k, had := got.Holders[1].Keys[i], must(newest(agency.Certificates, use))
		if k.Use != use || !bytes.Equal(k.Had.DER, had.DER) || k.Has.KeyID == k.Had.KeyID || k.Has.KeyID.IsZero() {
			t.Errorf("%s: %+v", use, k)
		}
		if use == UseSign && got.Holders[1].ProvenBy != had.KeyID {
			t.Error("another key proves it")
		}
	}

	// Keys were lost: an operator says so, and it is shown as what it is.
	spec := NodeSpec{ID: "jia", Zone: "政务外网", URL: "https://jia.example", TLSPin: [32]byte{2}}
	b, err = NewRequest(m.forge.keys(), testDomain, spec, []AgencySpec{agencySpec(t, "11520300000000002", "示范单位乙")}, later)
	m.must(err)
	if list := parsed(t, b).Unproven(m.d, later); len(list) != 1 || list[0] != "node jia" {
		t.Errorf("not proven for %q", list)
	}
	got = add(parsed(t, b), true)
	if actions(got) != "node jia replaces; agency "+got.Holders[1].Holder[len("agency "):]+" new; " || got.Holders[1].Keys[0].Had != nil {
		t.Errorf("got %s", actions(got))
	}
	if h := got.Holders[0]; strings.Join(h.Changes, ",") != "url,tls_pin" || !h.ProvenBy.IsZero() {
		t.Errorf("changes %v", h.Changes)
	}
	if everyEntry(t, m.a) != before {
		t.Error("something was written before Commit")
	}
	m.must(got.Commit())
	m.d = published(t, m.a, 0)
	if after, _ := m.d.Node("jia"); len(after.Certificates) != 4 || !after.Holds(UseSign, node.Certificates[0].DER) && !after.Holds(UseSign, node.Certificates[1].DER) {
		t.Error("what the node had before is gone")
	}
}

func newest(list []Certificate, use string) (*Certificate, bool) {
	for i := range list {
		if list[i].Use == use {
			return &list[i], true
		}
	}
	return nil, false
}

// TestAdmitRefusesOldRequests: an old request, whose keys are listed and prove
// their possession for ever, does not put an old address back.
func TestAdmitRefusesOldRequests(t *testing.T) {
	a, dir := newAuthority(t)
	f := newForge(t, "replay")
	keys := f.keys()
	ask := func(pin byte, at time.Time) *Request {
		b, err := NewRequest(keys, testDomain, NodeSpec{ID: "jia", TLSPin: [32]byte{pin}}, nil, at)
		f.must(err)
		return parsed(t, b)
	}
	old := ask(1, testNow)
	f.must(a.Admit(old, testNow))
	b, err := ChangeRequest(keys, published(t, a, 0), "jia", Change{RenewNode: true}, testNow.Add(time.Hour))
	f.must(err)
	renewed := parsed(t, b)
	f.must(a.Admit(renewed, testNow.Add(time.Hour)))
	f.must(a.Admit(renewed, testNow.Add(2*time.Hour))) // after a crash, say
	a, err = OpenAuthority(dir, testPassphrase, rand.Reader)
	f.must(err)
	before := everyEntry(t, a)
	for _, replace := range []bool{false, true} {
		m, err := a.Admission(testNow.Add(2 * time.Hour))
		f.must(err)
		m.Replace = replace
		if err = m.Add(old); err == nil || !strings.Contains(err.Error(), "an old one again") {
			t.Errorf("replace %v: %v", replace, err)
		}
		wantCode(t, err, codeRequest)
	}
	// One from a node whose clock is far ahead would keep all others out.
	wantCode(t, a.Admit(ask(2, testNow.AddDate(1, 0, 0)), testNow), codeRequest)
	if everyEntry(t, a) != before {
		t.Error("something was written")
	}
	f.must(os.WriteFile(filepath.Join(dir, admittedDir, "jia.json"), []byte("{}"), 0o600))
	wantCode(t, a.Admit(renewed, testNow.Add(time.Hour)), codeContent)
}

// TestRenewsIsNoPossession: neither signature stands in for the other.
func TestRenewsIsNoPossession(t *testing.T) {
	m := newMember(t)
	r := m.asks(t, m.keys, testNow)
	msg, err := r.proven()
	m.must(err)
	r.Renews[0].Signature, err = m.keys.Sign(r.Renews[0].Key, msg)
	m.must(err)
	m.prove(r)
	wantCode(t, m.a.Admit(parsed(t, encoded(t, r)), testNow), codeUnproven)
}
