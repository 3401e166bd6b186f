package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

func TestDirectoryIsIndexed(t *testing.T) {
	f := newForge(t, "indexed")
	usual := f.usual()
	file := f.sign(f.draft(usual...))
	d, err := LoadDirectory(file, f.root.Raw, 7, testNow)
	f.must(err)
	jia := usual[3].(*agencyEntry)
	if d.Domain() != testDomain || d.Version() != 7 || !bytes.Equal(d.Raw(), file) || !bytes.Equal(d.Authority(), f.root.Raw) {
		t.Error("head")
	}
	if !d.Issued().Equal(testNow) || !d.NextUpdate().Equal(testNow.AddDate(0, 1, 0)) {
		t.Error("times")
	}
	a, ok := d.Agency(jia.Code)
	if !ok || a.Name != "示范单位甲" || a.Node != "jia" || len(a.Certificates) != 2 {
		t.Fatalf("agency: %+v", a)
	}
	for i, use := range []string{UseSign, UseEncrypt} {
		c, err := a.Current(use, testNow)
		if err != nil || !a.Holds(use, jia.Certs[i].Cert) || !bytes.Equal(c.DER, jia.Certs[i].Cert) {
			t.Errorf("%s: %v", use, err)
		}
		cert, err := smx509.ParseCertificate(c.DER)
		f.must(err)
		if c.KeyID != sm.KeyID(cert.PublicKey.(*ecdsa.PublicKey)) || !c.NotBefore.Equal(cert.NotBefore) || !c.NotAfter.Equal(cert.NotAfter) {
			t.Errorf("%s: key id or validity", use)
		}
	}
	if a.Holds(UseSign, jia.Certs[1].Cert) {
		t.Error("holds its encryption certificate to sign with")
	}
	n, ok := d.Node("yi")
	if !ok || n.Zone != "政务外网" || n.URL != "https://yi.example:8443" || n.TLSPin == [32]byte{} || len(n.Certificates) != 2 {
		t.Errorf("node: %+v", n)
	}
	if l, ok := d.Link("jia-yi"); !ok || l.A != "jia" || l.B != "yi" || l.Dialer != "jia" || l.Kind != "https" || l.Ceiling != "work_secret" || l.Neighbour("jia") != "yi" || l.Neighbour("yi") != "jia" {
		t.Errorf("link: %+v", l)
	}
	if l, ok := d.LinkBetween("yi", "jia"); !ok || l.ID != "jia-yi" {
		t.Error("link between")
	}
	if _, ok := d.LinkBetween("jia", "bing"); ok {
		t.Error("a link that is not there")
	}
	if got := d.LinksOf("yi"); len(got) != 2 || got[0].ID != "jia-yi" || got[1].ID != "yi-bing" {
		t.Errorf("links of yi: %v", got)
	}
	for _, absent := range []bool{has(d.Agency("x")), has(d.Node("x")), has(d.Link("x"))} {
		if absent {
			t.Error("found what is not there")
		}
	}
}

func has[T any](_ T, ok bool) bool { return ok }

func TestNextHop(t *testing.T) {
	f := newForge(t, "hops")
	usual := f.usual()
	usual = append(usual, f.node("island"), f.agency("11520300000000004", "示范单位丁", "island"))
	d, err := f.load(f.draft(usual...))
	f.must(err)
	code := func(i int) string { return usual[i].(*agencyEntry).Code }
	tests := []struct {
		name, from, agency string
		next, link         string
		code               string
	}{
		{"served here", "jia", code(3), "jia", "", ""},
		{"direct", "jia", code(4), "yi", "jia-yi", ""},
		{"over a route", "jia", code(5), "yi", "jia-yi", ""},
		{"last step", "yi", code(5), "bing", "yi-bing", ""},
		{"no way back", "bing", code(3), "", "", "no_route"},
		{"to an island", "jia", code(10), "", "", "no_route"},
		{"unknown agency", "jia", "91350100M000100Y43", "", "", "no_route"},
		{"unknown node", "nowhere", code(3), "", "", "no_route"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, next, err := d.NextHop(tt.from, tt.agency)
			wantCode(t, err, tt.code)
			if next != tt.next || (l != nil) != (tt.link != "") || l != nil && l.ID != tt.link {
				t.Errorf("got %v, %q", l, next)
			}
		})
	}
}

func TestSearch(t *testing.T) {
	f := newForge(t, "search")
	finance := f.agency("11520300000000005", "示范市财政局", "jia")
	finance.Aliases = []string{"市财政局", "CaiZheng"}
	d, err := f.load(f.draft(append(f.usual(), finance)...))
	f.must(err)
	tests := []struct {
		query string
		limit int
		want  int
	}{
		{"", -1, 4}, {"", 2, 2}, {"", 0, 0}, {"示范单位", 10, 3}, {"财政", 10, 1}, {"caizheng", 10, 1},
		{"  caiz ", 10, 1}, {"1152030000000000", 10, 4}, {finance.Code, 10, 1}, {"不存在", 10, 0},
	}
	for _, tt := range tests {
		if got := d.Search(tt.query, tt.limit); len(got) != tt.want {
			t.Errorf("%q, %d: %d found, want %d", tt.query, tt.limit, len(got), tt.want)
		}
	}
	if !slices.IsSortedFunc(d.Agencies(), func(a, b *Agency) int { return strings.Compare(a.Code, b.Code) }) {
		t.Error("agencies are not in the order of their codes")
	}
}

func TestRollback(t *testing.T) {
	f := newForge(t, "rollback")
	file := f.sign(f.draft(f.usual()...)) // version 7
	for _, tt := range []struct {
		atLeast uint64
		code    string
	}{{0, ""}, {6, ""}, {7, ""}, {8, "directory_rollback"}, {1 << 60, "directory_rollback"}} {
		_, err := LoadDirectory(file, f.root.Raw, tt.atLeast, testNow)
		wantCode(t, err, tt.code)
	}
}

// TestTimeIsNoLoadError: what verified once verifies for ever, so staleness
// and expiry are asked for, not imposed.
func TestTimeIsNoLoadError(t *testing.T) {
	f := newForge(t, "time")
	file := f.sign(f.draft(f.usual()...))
	for _, now := range []time.Time{{}, testNow.AddDate(-30, 0, 0), testNow.AddDate(50, 0, 0)} {
		d, err := LoadDirectory(file, f.root.Raw, 0, now)
		f.must(err)
		if d.Stale(testNow) || !d.Stale(testNow.AddDate(0, 1, 1)) {
			t.Error("stale at the wrong time")
		}
		if err := d.Fresh(testNow.AddDate(0, 2, 0)); err == nil {
			t.Error("a stale directory is fresh")
		} else {
			wantCode(t, err, "directory_stale")
		}
		n, _ := d.Node("jia")
		_, err = n.Current(UseSign, testNow.AddDate(6, 0, 0))
		wantCode(t, err, "certificate_expired")
		_, err = n.Current(UseSign, testNow.AddDate(-2, 0, 0))
		wantCode(t, err, "certificate_expired")
	}
}

// raw is an entry given as text.
func raw(s string) strictjson.Raw { return strictjson.Raw(s) }

// changed gives the usual directory with one entry changed.
func changed[T any](f *forge, i int, change func(T)) *draft {
	usual := f.usual()
	change(usual[i].(T))
	return f.draft(usual...)
}

func TestUnknownEntriesAreKept(t *testing.T) {
	f := newForge(t, "unknown")
	for _, text := range []string{
		`{"type":"something-else","v":1,"domain":"示范域","zulu":1,"alpha":[true,"x"]}`,
		`{"type":"yizhan-watch","v":1,"node":"yi","cert":"AA=="}`,
		`{"type":"something-later","v":9,"b":{},"a":""}`,
	} {
		d, err := f.load(f.draft(append(f.usual(), raw(text))...))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if !bytes.Contains(d.Raw(), []byte(text)) {
			t.Errorf("%s was not kept", text)
		}
	}
}

func TestUnknownMembersAreKept(t *testing.T) {
	f := newForge(t, "members")
	d := f.draft(f.usual()...)
	d.list.Extra = strictjson.Extra{{Name: "note", Value: raw(`"later"`)}}
	agency := f.agency("11520300000000006", "示范单位戊", "jia")
	agency.Parent, agency.Branch, agency.Groups, agency.Successor = d.codes[0], BranchGovernment, []string{"各县区政府"}, d.codes[1]
	agency.From, agency.Until = strictjson.TimeOf(testNow), strictjson.TimeOf(testNow.AddDate(1, 0, 0))
	agency.Extra = strictjson.Extra{{Name: "zulu", Value: raw(`{"a":1}`)}}
	agency.Certs[0].Extra = strictjson.Extra{{Name: "note", Value: raw(`true`)}}
	d.add(t, agency)
	got, err := f.load(d)
	f.must(err)
	a, _ := got.Agency(agency.Code)
	if a == nil || a.Parent != agency.Parent || a.Branch != "government" || a.Groups[0] != "各县区政府" || a.Successor != agency.Successor || a.From != agency.From || a.Until != agency.Until {
		t.Errorf("got %+v", a)
	}
}

func TestRefusedDirectories(t *testing.T) {
	f := newForge(t, "refused")
	stranger := newForge(t, "stranger")
	tests := []struct {
		name  string
		draft func() *draft
		code  string
		says  string
	}{
		{"list of another type", func() *draft { d := f.draft(f.usual()...); d.list.Type = "yizhan-receipt"; return d }, "directory_content", ""},
		{"list of version 2", func() *draft { d := f.draft(f.usual()...); d.list.V = 2; return d }, "directory_content", ""},
		{"version 0", func() *draft { d := f.draft(f.usual()...); d.list.Version = 0; return d }, "directory_content", ""},
		{"critical member unknown", func() *draft {
			d := f.draft(f.usual()...)
			d.list.Crit, d.list.Extra = []string{"later"}, strictjson.Extra{{Name: "later", Value: raw("1")}}
			return d
		}, "directory_content", "later"},
		{"entry missing", func() *draft { d := f.draft(f.usual()...); d.entries = d.entries[:8]; return d }, "directory_content", "8 entries"},
		{"entry too many", func() *draft {
			d := f.draft(f.usual()...)
			d.entries = append(d.entries, d.entries[0])
			return d
		}, "directory_content", "10 entries"},
		{"entries out of order", func() *draft {
			d := f.draft(f.usual()...)
			d.entries[0], d.entries[1] = d.entries[1], d.entries[0]
			return d
		}, "directory_content", "entry 0"},
		{"entry exchanged", func() *draft {
			d := f.draft(f.usual()...)
			d.entries[8] = f.draft(route("yi", "jia", "jia")).entries[0]
			return d
		}, "directory_content", "entry 8"},
		{"unknown entry twice", func() *draft {
			e := raw(`{"type":"later","v":1}`)
			return f.draft(append(f.usual(), e, e)...)
		}, "directory_content", "twice"},

		{"agency twice", func() *draft {
			return f.draft(append(f.usual(), f.agency("11520300000000001", "另一个甲", "yi"))...)
		}, "directory_content", "twice"},
		{"node twice", func() *draft { return f.draft(append(f.usual(), f.node("jia"))...) }, "directory_content", "twice"},
		{"link twice", func() *draft { return f.draft(append(f.usual(), link("jia-yi", "jia", "bing"))...) }, "directory_content", "twice"},
		{"route twice", func() *draft { return f.draft(append(f.usual(), route("jia", "bing", "bing"))...) }, "directory_content", "twice"},

		{"agency on no node", func() *draft { return changed(f, 3, func(e *agencyEntry) { e.Node = "nowhere" }) }, "directory_content", "nowhere"},
		{"agency of another domain", func() *draft { return changed(f, 3, func(e *agencyEntry) { e.Domain = "x" }) }, "directory_content", "domain"},
		{"agency of version 2", func() *draft { return changed(f, 3, func(e *agencyEntry) { e.V = 2 }) }, "directory_content", "version"},
		{"agency without a name", func() *draft { return changed(f, 3, func(e *agencyEntry) { e.Name = "" }) }, "directory_content", "name"},
		{"agency named by a control character", func() *draft { return changed(f, 3, func(e *agencyEntry) { e.Name = "a\nb" }) }, "directory_content", "control"},
		{"agency with a long alias", func() *draft {
			return changed(f, 3, func(e *agencyEntry) { e.Aliases = []string{strings.Repeat("长", maxText+1)} })
		}, "directory_content", "alias"},
		{"wrong check digit", func() *draft { return changed(f, 3, func(e *agencyEntry) { e.Code = "91350100M000100Y44" }) }, "agency_code", "check digit"},
		{"lower-case code", func() *draft {
			return changed(f, 3, func(e *agencyEntry) { e.Code = strings.ToLower("91350100M000100Y43") })
		}, "agency_code", ""},
		{"node of another domain", func() *draft { return changed(f, 0, func(e *nodeEntry) { e.Domain = "x" }) }, "directory_content", "domain"},
		{"node with a bad id", func() *draft { return f.draft(append(f.usual(), f.node("Ding"))...) }, "directory_content", "id"},
		{"node with a short pin", func() *draft { return changed(f, 0, func(e *nodeEntry) { e.TLSPin = e.TLSPin[2:] }) }, "directory_content", "tls_pin"},
		{"node with a pin in capitals", func() *draft {
			return changed(f, 0, func(e *nodeEntry) { e.TLSPin = strings.ToUpper(e.TLSPin) })
		}, "directory_content", "tls_pin"},
		{"two nodes with one TLS key", func() *draft {
			n := f.node("ding")
			return f.draft(append(f.usual(), n, func() *nodeEntry { m := f.node("wu"); m.TLSPin = n.TLSPin; return m }())...)
		}, "directory_content", "TLS key of node ding"},
		{"node with a plain URL", func() *draft { return changed(f, 0, func(e *nodeEntry) { e.URL = "http://a" }) }, "directory_content", "URL"},
		{"node with a password in its URL", func() *draft { return changed(f, 0, func(e *nodeEntry) { e.URL = "https://a:b@c" }) }, "directory_content", "URL"},

		{"link to no node", func() *draft { return f.draft(append(f.usual(), link("l", "jia", "nowhere"))...) }, "directory_content", "nowhere"},
		{"link to itself", func() *draft { return f.draft(append(f.usual(), link("l", "jia", "jia"))...) }, "directory_content", "link l"},
		{"dialer elsewhere", func() *draft { return changed(f, 6, func(e *linkEntry) { e.Dialer = "bing" }) }, "directory_content", "dials"},
		{"link of unknown kind", func() *draft { return changed(f, 6, func(e *linkEntry) { e.Kind = "pigeon" }) }, "directory_content", "pigeon"},
		{"one way from a node that is none of its two", func() *draft { return changed(f, 6, oneWay("bing")) }, "directory_content", "one of its two nodes"},
		{"one way over https", func() *draft { return changed(f, 6, oneWay("jia")) }, "directory_content", "of kind ferry"},
		{"one way that is not critical", func() *draft {
			return changed(f, 6, func(e *linkEntry) { oneWay("jia")(e); e.Kind, e.Crit = "ferry", nil })
		}, "directory_content", "crit"},
		{"no way that is critical", func() *draft { return changed(f, 6, func(e *linkEntry) { e.Crit = []string{"oneway"} }) }, "directory_content", "crit"},
		{"link with a bad id", func() *draft { return changed(f, 6, func(e *linkEntry) { e.ID = "-a" }) }, "directory_content", "id"},
		{"route to no node", func() *draft { return f.draft(append(f.usual(), route("jia", "nowhere", "yi"))...) }, "directory_content", "route"},
		{"route over no node", func() *draft { return f.draft(append(f.usual(), route("bing", "jia", "nowhere"))...) }, "directory_content", "route"},
		{"route without a link", func() *draft { return f.draft(append(f.usual(), route("bing", "yi", "jia"))...) }, "directory_content", "no link"},
		{"route to itself", func() *draft { return f.draft(append(f.usual(), route("jia", "jia", "yi"))...) }, "directory_content", "route"},
		{"routes in a circle", func() *draft {
			return f.draft(append(f.usual(), f.node("ding"), route("jia", "ding", "yi"), route("yi", "ding", "jia"))...)
		}, "directory_content", "circle"},
		{"default routes in a circle", func() *draft {
			return f.draft(append(f.usual(), route("jia", "*", "yi"), route("yi", "*", "jia"))...)
		}, "directory_content", "circle"},

		{"entry without type", func() *draft { return f.draft(append(f.usual(), raw(`{"v":1,"type":"later"}`))...) }, "directory_content", "type"},
		{"entry of numeric type", func() *draft { return f.draft(append(f.usual(), raw(`{"type":12,"v":1}`))...) }, "directory_content", "type"},
		{"entry without version", func() *draft { return f.draft(append(f.usual(), raw(`{"type":"later"}`))...) }, "directory_content", "type"},
		{"entry that is an array", func() *draft { return f.draft(append(f.usual(), raw(`["later",1]`))...) }, "directory_content", "type"},
		{"unknown entry that is critical", func() *draft {
			return f.draft(append(f.usual(), raw(`{"type":"later","v":1,"crit":["x"],"x":1}`))...)
		}, "directory_content", "upgrade"},
		{"agency with a critical member", func() *draft {
			return changed(f, 3, func(e *agencyEntry) {
				e.Crit, e.Extra = []string{"later"}, strictjson.Extra{{Name: "later", Value: raw("1")}}
			})
		}, "directory_content", "later"},

		{"signed by another authority", func() *draft { d := f.draft(f.usual()...); d.by = stranger.self(); return d }, "directory_signature", ""},
		{"signed by a node", func() *draft {
			d := f.draft(f.usual()...)
			key := f.newKey()
			d.by = keySigner{f, key, f.cert(&key.PublicKey, signUsage, nil)}
			return d
		}, "directory_signature", ""},
		{"signed by the authority's key under another certificate", func() *draft {
			d := f.draft(f.usual()...)
			d.by = keySigner{f, f.key, f.selfSigned(f.key, func(*smx509.Certificate) {}).Raw}
			return d
		}, "directory_signature", ""},
		{"signed by another key under the authority's certificate", func() *draft {
			d := f.draft(f.usual()...)
			d.by = keySigner{f, f.newKey(), f.root.Raw}
			return d
		}, "directory_signature", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := f.load(tt.draft())
			wantCode(t, err, tt.code)
			if err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v does not say %q", err, tt.says)
			}
			if err == nil {
				t.Errorf("accepted with %d agencies", len(d.Agencies()))
			}
		})
	}
}

func TestRefusedCertificates(t *testing.T) {
	f := newForge(t, "certificates")
	stranger := newForge(t, "stranger")
	stranger.root.RawSubject, stranger.root.Subject = f.root.RawSubject, f.root.Subject
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.must(err)
	pub := func() *ecdsa.PublicKey { return &f.newKey().PublicKey }
	shared := pub()
	tests := []struct {
		name  string
		certs func() []certEntry
		code  string
		says  string
	}{
		{"good", f.dual, "", ""},
		{"none at all", func() []certEntry { return nil }, "", ""},
		{"only digitalSignature", func() []certEntry {
			return []certEntry{{Use: UseSign, Cert: f.cert(pub(), smx509.KeyUsageDigitalSignature, nil)}}
		}, "", ""},
		{"with keyAgreement to encrypt", func() []certEntry {
			return []certEntry{{Use: UseEncrypt, Cert: f.cert(pub(), encryptUsage|smx509.KeyUsageKeyAgreement, nil)}}
		}, "", ""},
		{"swapped", func() []certEntry {
			d := f.dual()
			d[0].Use, d[1].Use = d[1].Use, d[0].Use
			return d
		}, "certificate_usage", "swapped"},
		{"signing certificate to encrypt", func() []certEntry {
			return []certEntry{{Use: UseEncrypt, Cert: f.cert(pub(), signUsage, nil)}}
		}, "certificate_usage", "is a signing certificate"},
		{"encryption certificate to sign", func() []certEntry {
			return []certEntry{{Use: UseSign, Cert: f.cert(pub(), encryptUsage, nil)}}
		}, "certificate_usage", "is an encryption certificate"},
		{"for both", func() []certEntry {
			return []certEntry{{Use: UseSign, Cert: f.cert(pub(), signUsage|encryptUsage, nil)}}
		}, "certificate_usage", "both"},
		{"no key usage", func() []certEntry {
			return []certEntry{{Use: UseSign, Cert: f.cert(pub(), 0, nil)}}
		}, "certificate_usage", "lacks"},
		{"only nonRepudiation", func() []certEntry {
			return []certEntry{{Use: UseSign, Cert: f.cert(pub(), smx509.KeyUsageContentCommitment, nil)}}
		}, "certificate_usage", "lacks"},
		{"unknown use", func() []certEntry {
			return []certEntry{{Use: "wave", Cert: f.cert(pub(), signUsage, nil)}}
		}, "certificate_usage", "wave"},
		{"the authority's own", func() []certEntry {
			return []certEntry{{Use: UseSign, Cert: f.root.Raw}}
		}, "certificate_usage", "authority"},
		{"a CA", func() []certEntry {
			return []certEntry{{Use: UseSign, Cert: f.cert(pub(), signUsage, func(c *smx509.Certificate) { c.IsCA = true })}}
		}, "certificate_usage", "authority"},
		{"not SM2", func() []certEntry {
			return []certEntry{{Use: UseSign, Cert: f.cert(&p256.PublicKey, signUsage, nil)}}
		}, "certificate_usage", "SM2"},
		{"of another authority of the same name", func() []certEntry {
			return []certEntry{{Use: UseSign, Cert: stranger.cert(pub(), signUsage, nil)}}
		}, "certificate_chain", ""},
		{"issued by a holder", func() []certEntry {
			middle := f.newKey()
			cert, err := smx509.ParseCertificate(f.cert(&middle.PublicKey, signUsage|smx509.KeyUsageCertSign, nil))
			f.must(err)
			sub := &forge{t: t, rand: f.rand, key: middle, root: cert}
			return []certEntry{{Use: UseSign, Cert: sub.cert(pub(), signUsage, nil)}}
		}, "certificate_chain", ""},
		{"begins before the authority's", func() []certEntry {
			return []certEntry{{Use: UseSign, Cert: f.cert(pub(), signUsage, func(c *smx509.Certificate) { c.NotBefore = testNow.AddDate(-5, 0, 0) })}}
		}, "certificate_chain", ""},
		{"never valid", func() []certEntry {
			return []certEntry{{Use: UseSign, Cert: f.cert(pub(), signUsage, func(c *smx509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Hour) })}}
		}, "certificate_expired", "never"},
		{"not a certificate", func() []certEntry { return []certEntry{{Use: UseSign, Cert: []byte("x")}} }, "certificate_chain", "read"},
		{"with bytes after it", func() []certEntry {
			return []certEntry{{Use: UseSign, Cert: append(f.cert(pub(), signUsage, nil), 0)}}
		}, "certificate_chain", "read"},
		{"one key for both uses", func() []certEntry {
			return []certEntry{{Use: UseSign, Cert: f.cert(shared, signUsage, nil)}, {Use: UseEncrypt, Cert: f.cert(shared, encryptUsage, nil)}}
		}, "directory_content", "same key"},
		{"too many", func() []certEntry { return slices.Repeat(f.dual(), maxCertificates/2+1) }, "directory_content", "64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := changed(f, 3, func(e *agencyEntry) { e.Certs = tt.certs() })
			_, err := f.load(d)
			wantCode(t, err, tt.code)
			if err != nil && (!strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "agency 1152")) {
				t.Errorf("%v does not say %q and of whom", err, tt.says)
			}
		})
	}
}

// TestKeysBelongToOneHolder: who signs with another's key would speak in its
// name.
func TestKeysBelongToOneHolder(t *testing.T) {
	f := newForge(t, "keys")
	usual := f.usual()
	usual[4].(*agencyEntry).Certs = usual[3].(*agencyEntry).Certs
	_, err := f.load(f.draft(usual...))
	wantCode(t, err, "directory_content")
	// A renewed certificate for the same key is no matter.
	usual = f.usual()
	a := usual[3].(*agencyEntry)
	cert, err := smx509.ParseCertificate(a.Certs[0].Cert)
	f.must(err)
	a.Certs = append(a.Certs, certEntry{Use: UseSign, Cert: f.cert(cert.PublicKey.(*ecdsa.PublicKey), signUsage, nil)})
	_, err = f.load(f.draft(usual...))
	wantCode(t, err, "")
}

// TestNewestCertificateFirst: the order of an entry's certificates does not
// matter.
func TestNewestCertificateFirst(t *testing.T) {
	f := newForge(t, "newest")
	var certs []certEntry
	for _, years := range []int{0, 2, 1} {
		certs = append(certs, certEntry{Use: UseSign, Cert: f.cert(&f.newKey().PublicKey, signUsage, func(c *smx509.Certificate) {
			c.NotBefore = testNow.AddDate(years, 0, 0)
		})})
	}
	d := changed(f, 3, func(e *agencyEntry) { e.Certs = certs })
	got, err := f.load(d)
	f.must(err)
	a := got.Agencies()[0]
	for at, want := range map[int]int{0: 0, 1: 2, 2: 1, 3: 1} {
		c, err := a.Current(UseSign, testNow.AddDate(at, 1, 0))
		if err != nil || !bytes.Equal(c.DER, certs[want].Cert) {
			t.Errorf("in %d years: not certificate %d, %v", at, want, err)
		}
	}
}

func TestRefusedAuthorities(t *testing.T) {
	f := newForge(t, "authority")
	file := f.sign(f.draft(f.usual()...))
	tests := []struct {
		name string
		cert []byte
	}{
		{"none", nil},
		{"garbage", []byte("x")},
		{"another", newForge(t, "another").root.Raw},
		{"a holder's", f.cert(&f.newKey().PublicKey, signUsage, nil)},
		{"the same key, another certificate", f.selfSigned(f.key, func(*smx509.Certificate) {}).Raw},
		{"bytes after it", append(bytes.Clone(f.root.Raw), 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := LoadDirectory(file, tt.cert, 0, testNow); err == nil {
				t.Error("accepted")
			}
		})
	}
	// The same key and the same entries under a certificate that is no CA's.
	for name, change := range map[string]func(*smx509.Certificate){
		"no CA":       func(c *smx509.Certificate) { c.IsCA = false },
		"no certSign": func(c *smx509.Certificate) { c.KeyUsage = smx509.KeyUsageDigitalSignature },
	} {
		t.Run(name, func(t *testing.T) {
			d := f.draft(f.usual()...)
			cert := f.selfSigned(f.key, change).Raw
			d.by = keySigner{f, f.key, cert}
			_, err := LoadDirectory(f.sign(d), cert, 0, testNow)
			wantCode(t, err, "certificate_usage")
		})
	}
}

// TestBitFlips (I8): not one bit of a directory file can change unnoticed.
func TestBitFlips(t *testing.T) {
	f := newForge(t, "flips")
	file := f.sign(f.draft(f.usual()...))
	for at := 0; at < len(file); at += 97 {
		for bit := range 8 {
			bad := bytes.Clone(file)
			bad[at] ^= 1 << bit
			if _, err := LoadDirectory(bad, f.root.Raw, 0, testNow); err == nil {
				t.Errorf("bit %d of byte %d flipped: accepted", bit, at)
			}
		}
	}
	for at := 0; at < len(file); at += 97 {
		if _, err := LoadDirectory(file[:at], f.root.Raw, 0, testNow); err == nil {
			t.Errorf("cut at %d: accepted", at)
		}
		if _, err := LoadDirectory(slices.Insert(bytes.Clone(file), at, ' '), f.root.Raw, 0, testNow); err == nil {
			t.Errorf("a space at %d: accepted", at)
		}
	}
}

func TestSizeIsBounded(t *testing.T) {
	_, err := LoadDirectory(make([]byte, MaxDirectory+1), nil, 0, testNow)
	wantCode(t, err, "directory_content")
	f := newForge(t, "size")
	d := f.draft(append(f.usual(), raw(fmt.Sprintf(`{"type":"later","v":1,"x":%q}`, strings.Repeat("x", maxEntry))))...)
	_, err = f.load(d)
	wantCode(t, err, "directory_content")
}

func TestDirectoryIsItsOwnCopy(t *testing.T) {
	f := newForge(t, "copy")
	file, authority := f.sign(f.draft(f.usual()...)), bytes.Clone(f.root.Raw)
	d, err := LoadDirectory(file, authority, 0, testNow)
	f.must(err)
	want, print := bytes.Clone(file), d.Fingerprint()
	clear(file)
	clear(authority)
	if !bytes.Equal(d.Raw(), want) || !bytes.Equal(d.Authority(), f.root.Raw) || d.Fingerprint() != print {
		t.Error("a directory changed with the caller's buffer")
	}
	n, _ := d.Node("jia")
	if c, err := n.Current(UseSign, testNow); err != nil || len(c.DER) == 0 || c.DER[0] != 0x30 {
		t.Error("a certificate changed with the caller's buffer")
	}
	if len(print) != 64+15 || strings.Count(print, " ") != 15 {
		t.Errorf("fingerprint %q", print)
	}
}

func oneWay(from string) func(*linkEntry) {
	return func(e *linkEntry) { e.OneWay, e.Crit = from, []string{"oneway"} }
}
