package certs

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// judgeAfter reads a file as a reader does that has another one in force.
func judgeAfter(t *testing.T, v vector, trusted, b []byte) error {
	t.Helper()
	in, err := os.ReadFile(filepath.Join("testdata", v.After))
	if err != nil {
		t.Fatal(err)
	}
	s := openShelf(t, emptyDisk(1))
	if _, err := s.Trust(trusted, in); err != nil {
		t.Fatal(err)
	}
	if v.Kind == "delta" {
		_, err = s.Take(b)
	} else {
		_, err = s.Install(b)
	}
	return err
}

// newerVectors are those of issuers, revocations, approvals, successions and
// updates.
type newerVectors struct {
	f, stranger *forge
	usual       []any
	add         func(vector, []byte)
	files       map[string][]byte
}

func (n *newerVectors) with(more ...any) *draft {
	return n.f.draft(append(n.usual[:len(n.usual):len(n.usual)], more...)...)
}

func (n *newerVectors) directory(file, expect, why string, d *draft) {
	n.add(vector{File: file, Kind: "directory", Expect: expect, Why: why}, n.f.sign(d))
}

func (n *newerVectors) trust() {
	f := n.f
	outside := f.agency("11520300000000009", "示范单位壬", "jia")
	outside.Certs = n.stranger.dual()
	n.directory("issuer.yzd", "accept", "certificates of an outside CA that the directory names after them", n.with(outside, issuer(n.stranger)))
	n.directory("issuer-twice.yzd", "directory_content", "an issuer twice", n.with(issuer(n.stranger), func() any { e := issuer(n.stranger); e.CRL = ""; return e }()))
	n.directory("issuer-authority.yzd", "directory_content", "the authority as an issuer besides itself", n.with(issuer(f)))
	holder := issuer(n.stranger)
	holder.Cert = outside.Certs[0].Cert
	n.directory("issuer-no-ca.yzd", "certificate_usage", "an issuer that is no CA", n.with(holder))
	file := issuer(n.stranger)
	file.CRL = "file:///etc/passwd"
	n.directory("issuer-url.yzd", "directory_content", "a revocation list that is not fetched by http or https", n.with(file))

	cert := n.usual[3].(*agencyEntry).Certs[0].Cert
	n.directory("revocation.yzd", "accept", "the first agency's signing certificate is revoked", n.with(revocation(cert, testNow)))
	n.directory("revocation-twice.yzd", "directory_content", "a certificate revoked twice", n.with(revocation(cert, testNow), revocation(cert, testNow.AddDate(0, 0, 1))))
	mood := revocation(cert, testNow)
	mood.Reason = "mood"
	n.directory("revocation-reason.yzd", "directory_content", "an unknown reason", n.with(mood))
	n.directory("revocation-authority.yzd", "directory_content", "the certificate that signs the list is revoked in it", n.with(revocation(f.root.Raw, testNow)))

	n.directory("tsa.yzd", "accept", "a timestamp authority of an outside CA", n.with(n.stranger.tsa(nil)))
	n.directory("tsa-usage.yzd", "certificate_usage", "a timestamp authority whose certificate is for servers, too", n.with(f.tsa(func(c *smx509.Certificate) {
		c.ExtKeyUsage = append(c.ExtKeyUsage, smx509.ExtKeyUsageServerAuth)
	})))
}

func (n *newerVectors) places() {
	change := func(what func(jia, yi *agencyEntry)) *draft {
		list := slices.Clone(n.usual)
		jia, yi := *list[3].(*agencyEntry), *list[4].(*agencyEntry)
		what(&jia, &yi)
		list[3], list[4] = &jia, &yi
		return n.f.draft(list...)
	}
	n.directory("place.yzd", "accept", "aliases, groups, branch, parent, dates and successor", change(func(jia, yi *agencyEntry) {
		jia.Branch, jia.Aliases, jia.Groups = BranchGovernment, []string{"甲"}, []string{"各县区政府"}
		yi.Parent, yi.Successor = jia.Code, jia.Code
		yi.From, yi.Until = strictjson.TimeOf(testNow), strictjson.TimeOf(testNow.AddDate(1, 0, 0))
	}))
	n.directory("place-circle.yzd", "directory_content", "each the other's parent", change(func(jia, yi *agencyEntry) { jia.Parent, yi.Parent = yi.Code, jia.Code }))
	n.directory("place-stray.yzd", "directory_content", "a parent that is not in the directory", change(func(jia, _ *agencyEntry) { jia.Parent = "91350100M000100Y43" }))
	n.directory("place-branch.yzd", "directory_content", "a branch in Chinese", change(func(jia, _ *agencyEntry) { jia.Branch = "党委" }))
	n.directory("place-dates.yzd", "directory_content", "an end before the beginning", change(func(jia, _ *agencyEntry) {
		jia.From, jia.Until = strictjson.TimeOf(testNow), strictjson.TimeOf(testNow.AddDate(-1, 0, 0))
	}))
}

func (n *newerVectors) oneWay() {
	change := func(what func(l *linkEntry)) *draft {
		list := slices.Clone(n.usual)
		l := *list[6].(*linkEntry)
		l.Kind, l.OneWay, l.Crit = "ferry", l.A, []string{"oneway"}
		what(&l)
		list[6] = &l
		return n.f.draft(list...)
	}
	n.directory("oneway.yzd", "accept", "a link over which only one node sends", change(func(*linkEntry) {}))
	n.directory("oneway-crit.yzd", "directory_content", "one way only, and nothing says that it must be understood", change(func(l *linkEntry) { l.Crit = nil }))
	n.directory("oneway-node.yzd", "directory_content", "the node that sends is none of the link's", change(func(l *linkEntry) { l.OneWay = "bing" }))
	n.directory("oneway-https.yzd", "directory_content", "one way only over https", change(func(l *linkEntry) { l.Kind = "https" }))
}

func (n *newerVectors) approvals() {
	f := n.f
	zhang, byZhang := f.person("zhang-san")
	li, byLi := f.person("li-si")
	with := func(change func(*approval), by ...approver) *draft {
		d := n.with(zhang, li, policy(2))
		d.approve, d.misplace = by, change
		return d
	}
	n.directory("approved.yzd", "accept", "two administrators approve", with(nil, byZhang, byLi))
	n.directory("approval-missing.yzd", "directory_approval", "one of two approves", with(nil, byZhang))
	n.directory("approval-twice.yzd", "directory_approval", "one approves twice", with(nil, byZhang, byZhang))
	n.directory("approval-name.yzd", "directory_approval", "one approves in the other's name, too", with(nil, byZhang, approver{"li-si", byZhang.by}))
	n.directory("approval-list.yzd", "directory_approval", "approvals of another list", with(func(a *approval) { a.List[0] ^= 1 }, byZhang, byLi))
	n.directory("approval-version.yzd", "directory_approval", "approvals of another version", with(func(a *approval) { a.Version++ }, byZhang, byLi))
	n.directory("approval-type.yzd", "directory_approval", "something else that they signed", with(func(a *approval) { a.Type = listType }, byZhang, byLi))
	revoked := with(nil, byZhang, byLi)
	revoked.add(f.t, revocation(byLi.by.Certificate(), testNow))
	n.directory("approval-revoked.yzd", "directory_approval", "one of them is revoked when the list is issued", revoked)
	n.directory("policy-twice.yzd", "directory_content", "two policies", n.with(policy(0), func() any { e := policy(0); e.Extra = strictjson.Extra{{Name: "note", Value: raw("1")}}; return e }()))
	n.directory("policy-unmet.yzd", "directory_content", "a policy that nobody can meet", n.with(zhang, policy(2)))

	next := func(more ...any) *draft {
		d := n.with(more...)
		d.list.Version, d.list.Previous = 8, n.idOf("approved.yzd")
		return d
	}
	n.add(vector{File: "policy-left-out.yzd", Kind: "directory", After: "approved.yzd", Expect: "directory_approval", Why: "the policy in force counts, though the new version has none"}, f.sign(next()))
	n.add(vector{File: "policy-left-out.yzd", Kind: "directory", Expect: "accept", Why: "the same for a reader without a version in force"}, f.sign(next()))
}

// idOf is the SM3 of the list of a file.
func (n *newerVectors) idOf(file string) sm.Digest {
	list, err := SignedList(n.files[file])
	n.f.must(err)
	s, err := cms.Parse(list, MaxDirectory)
	n.f.must(err)
	return s.ID()
}

func (n *newerVectors) successions() {
	second, to2 := n.f.heir()
	third, to3 := second.heir()
	thief, byThief := n.f.heir()
	n.files["heir.crt"] = pemOf(second.root.Raw)
	list := func(by *forge, succession ...[]byte) []byte {
		d := by.draft(append(by.usual(), issuer(n.f))...)
		d.list.Succession = succession
		return by.sign(d)
	}
	one := list(second, to2)
	n.add(vector{File: "heir.yzd", Kind: "directory", Expect: "accept", Why: "signed by the heir"}, one)
	n.add(vector{File: "heir.yzd", Kind: "directory", Trust: "heir.crt", Expect: "accept", Why: "for who trusts the heir already"}, one)
	two := list(third, to2, to3)
	n.add(vector{File: "heir-2.yzd", Kind: "directory", Expect: "accept", Why: "two successions at once"}, two)
	n.add(vector{File: "heir-2.yzd", Kind: "directory", Trust: "heir.crt", Expect: "accept", Why: "the second of two"}, two)
	n.add(vector{File: "heir-gap.yzd", Kind: "directory", Expect: "directory_signature", Why: "the first of two is missing"}, list(third, to3))
	n.add(vector{File: "heir-order.yzd", Kind: "directory", Expect: "directory_signature", Why: "in the wrong order"}, list(third, to3, to2))
	n.add(vector{File: "heir-none.yzd", Kind: "directory", Expect: "directory_signature", Why: "signed by the heir without a succession"}, list(second))
	n.add(vector{File: "heir-thief.yzd", Kind: "directory", Trust: "heir.crt", Expect: "directory_signature", Why: "the old key names another heir, for who trusts the true one"}, list(thief, byThief))
	n.add(vector{File: "good.yzd", Kind: "directory", Trust: "heir.crt", Expect: "directory_signature", Why: "the old key, for who trusts the heir"}, n.files["good.yzd"])
}

func (n *newerVectors) after() {
	f := n.f
	next := func(change func(*list)) []byte {
		d := n.with(f.node("next"))
		d.list.Version, d.list.Previous = 8, n.idOf("good.yzd")
		d.list.Issued++
		if change != nil {
			change(&d.list)
		}
		return f.sign(d)
	}
	file := func(name, expect, why string, b []byte) {
		n.add(vector{File: name, Kind: "directory", After: "good.yzd", Expect: expect, Why: why}, b)
	}
	good := next(nil)
	file("next.yzd", "accept", "the next version", good)
	file("next-fork.yzd", "directory_fork", "it follows another version 7", next(func(l *list) { l.Previous[0] ^= 1 }))
	file("next-same.yzd", "directory_fork", "another version 7", next(func(l *list) { l.Version = 7 }))
	file("next-earlier.yzd", "directory_fork", "issued before the version before", next(func(l *list) { l.Issued -= 2 }))
	file("next-older.yzd", "directory_rollback", "version 6", next(func(l *list) { l.Version = 6 }))
	file("next-skips.yzd", "accept", "version 9: what is before it is not known here", next(func(l *list) { l.Version, l.Previous = 9, sm.Sum([]byte("8")) }))

	before, err := listed(n.files["good.yzd"])
	f.must(err)
	d, err := LoadDirectory(good, f.root.Raw, 0, testNow)
	f.must(err)
	update, err := d.deltaFrom(7, before)
	f.must(err)
	vec := func(name, expect, why string, change func(*delta)) {
		u, err := parseDelta(update)
		f.must(err)
		if change != nil {
			change(u)
		}
		b, err := strictjson.Marshal(u)
		f.must(err)
		n.add(vector{File: name, Kind: "delta", After: "good.yzd", Expect: expect, Why: why}, b)
	}
	vec("delta.json", "accept", "from version 7 to 8", nil)
	vec("delta-missing.json", "directory_delta", "the new entry is not there", func(u *delta) { u.Entries = nil })
	vec("delta-more.json", "directory_delta", "an entry that the list does not name", func(u *delta) { u.Entries = append(u.Entries, raw(`{"type":"later","v":1}`)) })
	vec("delta-twice.json", "directory_delta", "an entry twice", func(u *delta) { u.Entries = append(u.Entries, u.Entries[0]) })
	vec("delta-version.json", "directory_delta", "version 2 of the format", func(u *delta) { u.V = 2 })
	vec("delta-stranger.json", "directory_signature", "a list by another authority", func(u *delta) {
		list, err := SignedList(n.files["stranger.yzd"])
		f.must(err)
		u.List = list
	})
}

// requests are those of a node that is listed already.
func (n *newerVectors) requests() {
	f, keys := n.f, n.f.keys()
	node := f.node("wu")
	for i, usage := range []smx509.KeyUsage{signUsage, encryptUsage} {
		pub, err := keys.Generate()
		f.must(err)
		node.Certs[i].Cert = f.cert(pub, usage, nil)
	}
	d := n.with(node)
	n.directory("listed.yzd", "accept", "a further node, which renews", d)
	listed, err := f.load(d)
	f.must(err)
	add := func(file, expect, why string, spoil func(*Request)) {
		b, err := ChangeRequest(keys, listed, "wu", Change{RenewNode: true}, testNow)
		f.must(err)
		r, err := ParseRequest(b)
		f.must(err)
		if spoil != nil {
			spoil(r)
			r.Proofs = nil
			b, err = r.prove(keys)
			f.must(err)
		}
		n.add(vector{File: file, Kind: "request", After: "listed.yzd", Expect: expect, Why: why}, b)
	}
	add("request-renews.json", "accept", "new keys, for which the listed key signed", nil)
	add("request-unproven.json", "request_unproven", "new keys, for which no listed key signed", func(r *Request) { r.Renews = nil })
	add("request-changed.json", "request_unproven", "another TLS key than the listed key signed", func(r *Request) { r.TLSPin = node.TLSPin[1:] + "0" })
	add("request-renewal-of-another.json", "request_content", "the signature for a holder that the request does not name", func(r *Request) { r.Renews[0].Holder = "node jia" })
}
