package certs

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

var testNow = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

const testDomain = "示范域"

// forge makes directories, right and wrong ones, from a fixed seed: an
// authority without a disk that signs whatever a test wants signed.
type forge struct {
	t      testing.TB
	rand   *rand.ChaCha8
	key    *sm.PrivateKey
	root   *smx509.Certificate
	serial int64
}

func newForge(t testing.TB, seed string) *forge {
	f := &forge{t: t, rand: rand.NewChaCha8(sha256.Sum256([]byte(seed)))}
	f.key = f.newKey()
	f.root = f.selfSigned(f.key, func(*smx509.Certificate) {})
	return f
}

func (f *forge) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *forge) newKey() *sm.PrivateKey {
	key, err := sm.GenerateKey(f.rand)
	f.must(err)
	return key
}

func (f *forge) selfSigned(key *sm.PrivateKey, change func(*smx509.Certificate)) *smx509.Certificate {
	f.t.Helper()
	f.serial++
	template := &smx509.Certificate{
		SerialNumber: big.NewInt(f.serial), Subject: pkix.Name{CommonName: testDomain},
		NotBefore: testNow.AddDate(-1, 0, 0), NotAfter: testNow.AddDate(19, 0, 0),
		KeyUsage: smx509.KeyUsageCertSign | smx509.KeyUsageDigitalSignature,
		IsCA:     true, BasicConstraintsValid: true,
	}
	change(template)
	der, err := smx509.CreateCertificate(f.rand, template, template, &key.PublicKey, key)
	f.must(err)
	cert, err := smx509.ParseCertificate(der)
	f.must(err)
	return cert
}

// cert issues a certificate; change may spoil the template.
func (f *forge) cert(pub *ecdsa.PublicKey, usage smx509.KeyUsage, change func(*smx509.Certificate)) []byte {
	f.t.Helper()
	f.serial++
	template := &smx509.Certificate{
		SerialNumber: big.NewInt(f.serial), Subject: pkix.Name{CommonName: "holder"},
		NotBefore: testNow.AddDate(0, -1, 0), NotAfter: testNow.AddDate(5, 0, 0),
		KeyUsage: usage, BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	der, err := smx509.CreateCertificate(f.rand, template, f.root, pub, f.key)
	f.must(err)
	return der
}

// dual gives the two certificates of a holder, with fresh keys.
func (f *forge) dual() []certEntry {
	f.t.Helper()
	return []certEntry{
		{Use: UseSign, Cert: f.cert(&f.newKey().PublicKey, signUsage, nil)},
		{Use: UseEncrypt, Cert: f.cert(&f.newKey().PublicKey, encryptUsage, nil)},
	}
}

func (f *forge) node(id string) *nodeEntry {
	f.t.Helper()
	pin := sha256.Sum256([]byte(id))
	return &nodeEntry{
		Type: nodeType, V: 1, Domain: testDomain, ID: id, Zone: "政务外网", URL: "https://" + id + ".example:8443",
		TLSPin: hex.EncodeToString(pin[:]), Certs: f.dual(),
	}
}

func (f *forge) agency(first17, name, node string) *agencyEntry {
	f.t.Helper()
	code, err := MakeAgencyCode(first17)
	f.must(err)
	return &agencyEntry{Type: agencyType, V: 1, Domain: testDomain, Code: string(code), Name: name, Node: node, Certs: f.dual()}
}

func link(id, a, b string) *linkEntry {
	return &linkEntry{Type: linkType, V: 1, Domain: testDomain, ID: id, A: a, B: b, Dialer: a, Kind: "https", Ceiling: "work_secret"}
}

func route(from, to, next string) *routeEntry {
	return &routeEntry{Type: routeType, V: 1, Domain: testDomain, From: from, To: to, Next: next}
}

// draft is a directory about to be signed.
type draft struct {
	list     list
	entries  []strictjson.Raw
	codes    []string   // of the agencies
	by       cms.Signer // nil: the authority
	approve  []approver
	misplace func(*approval) // changes each approval before it is signed
}

// approver is an administrator with a key.
type approver struct {
	id string
	by cms.Signer
}

// draft is the directory of two agencies on two linked nodes, and a third node
// behind the second.
func (f *forge) draft(entries ...any) *draft {
	f.t.Helper()
	d := &draft{list: list{
		Type: listType, V: 1, Domain: testDomain, Version: 7, Previous: sm.Sum([]byte("previous")),
		Issued: strictjson.TimeOf(testNow), NextUpdate: strictjson.TimeOf(testNow.AddDate(0, 1, 0)),
	}}
	for _, e := range entries {
		d.add(f.t, e)
	}
	return d
}

func (d *draft) add(t testing.TB, entry any) {
	t.Helper()
	if e, ok := entry.(*agencyEntry); ok {
		d.codes = append(d.codes, e.Code)
	}
	raw, ok := entry.(strictjson.Raw)
	if !ok {
		b, err := strictjson.Marshal(entry)
		if err != nil {
			t.Fatal(err)
		}
		raw = b
	}
	d.entries = append(d.entries, raw)
	d.list.Entries = append(d.list.Entries, sm.Sum(raw))
}

func (f *forge) usual() []any {
	return []any{
		f.node("jia"), f.node("yi"), f.node("bing"),
		f.agency("11520300000000001", "示范单位甲", "jia"), f.agency("11520300000000002", "示范单位乙", "yi"),
		f.agency("11520300000000003", "示范单位丙", "bing"),
		link("jia-yi", "jia", "yi"), link("yi-bing", "yi", "bing"), route("jia", "bing", "yi"),
	}
}

// person gives the entry of an administrator and the person who approves.
func (f *forge) person(id string) (*administratorEntry, approver) {
	f.t.Helper()
	key := f.newKey()
	cert := f.cert(&key.PublicKey, signUsage, nil)
	return &administratorEntry{
		Type: administratorType, V: 1, Domain: testDomain, ID: id, Name: "管理员" + id, Certs: []certEntry{{Use: UseSign, Cert: cert}},
	}, approver{id, keySigner{f, key, cert}}
}

// heir is the authority with a new key and certificate, which issues and signs
// from then on, and the signed object that says so.
func (f *forge) heir() (*forge, []byte) {
	f.t.Helper()
	next := &forge{t: f.t, rand: f.rand, serial: f.serial + 1000}
	next.key = next.newKey()
	next.root = next.selfSigned(next.key, func(*smx509.Certificate) {})
	signed, err := cms.Sign(f.self(), next.root.Raw, testNow)
	f.must(err)
	return next, signed
}

// self is the authority as a signer of lists.
func (f *forge) self() cms.Signer { return keySigner{f, f.key, f.root.Raw} }

type keySigner struct {
	f    *forge
	key  *sm.PrivateKey
	cert []byte
}

func (s keySigner) Certificate() []byte             { return s.cert }
func (s keySigner) Sign(msg []byte) ([]byte, error) { return sm.Sign(s.f.rand, s.key, msg) }

func (f *forge) sign(d *draft) []byte {
	f.t.Helper()
	content, err := strictjson.Marshal(&d.list)
	f.must(err)
	by := d.by
	if by == nil {
		by = f.self()
	}
	file := &directoryFile{Type: fileType, V: 1, Entries: d.entries}
	file.List, err = cms.Sign(by, content, testNow)
	f.must(err)
	for _, a := range d.approve {
		what := approval{Type: approvalType, V: 1, Domain: d.list.Domain, Version: d.list.Version, List: sm.Sum(content), Administrator: a.id, Time: strictjson.TimeOf(testNow)}
		if d.misplace != nil {
			d.misplace(&what)
		}
		text, err := strictjson.Marshal(&what)
		f.must(err)
		signed, err := cms.Sign(a.by, text, testNow)
		f.must(err)
		file.Approvals = append(file.Approvals, signed)
	}
	b, err := strictjson.Marshal(file)
	f.must(err)
	return b
}

func (f *forge) load(d *draft) (*Directory, error) {
	f.t.Helper()
	return LoadDirectory(f.sign(d), f.root.Raw, 0, testNow)
}

// memoryKeys are private keys for requests.
type memoryKeys struct {
	f    *forge
	keys map[sm.Digest]*sm.PrivateKey
}

func (f *forge) keys() *memoryKeys { return &memoryKeys{f, map[sm.Digest]*sm.PrivateKey{}} }

func (m *memoryKeys) Generate() (*ecdsa.PublicKey, error) {
	key := m.f.newKey()
	m.keys[sm.KeyID(&key.PublicKey)] = key
	return &key.PublicKey, nil
}

func (m *memoryKeys) Sign(id sm.Digest, msg []byte) ([]byte, error) {
	key := m.keys[id]
	if key == nil {
		return nil, errors.New("no such key")
	}
	return sm.Sign(m.f.rand, key, msg)
}

// wantCode checks that an error is an *Error of a code; empty wants none.
func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var e *Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

// wantSome checks that an error is an *Error of some code.
func wantSome(t testing.TB, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code == "" {
		t.Errorf("%T without a code: %v", err, err)
	}
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
