package link

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

var update = flag.Bool("update", false, "write testdata/bundle-v1.json anew")

const vectorFile = "testdata/bundle-v1.json"

// vectors are bundles with what a reader must say of them, for other
// implementations to check themselves with (docs/spec/bundle-v1.md, "Vectors").
// Their keys exist for this file only.
type vectors struct {
	About string `json:"about"`
	// Signer is the certificate (DER) of the node the bundles come from.
	Signer []byte `json:"signer_certificate"`
	// Receiver is the encryption certificate (DER) of the node they are for,
	// Key its private key (32 bytes, big-endian).
	Receiver []byte   `json:"receiver_certificate"`
	Key      []byte   `json:"receiver_key"`
	Vectors  []vector `json:"vectors"`
}

type vector struct {
	Name string `json:"name"`
	// Expect is "ok", "truncated" (items are taken one by one, the footer is
	// missing) or "fault" (nothing is taken).
	Expect string `json:"expect"`
	// Items says of each item whether its bytes match the manifest: "good" or
	// "damaged".
	Items  []string `json:"items,omitempty"`
	Bundle []byte   `json:"bundle"`
	// What the bundle is made of, for those that can be opened.
	Clear   string `json:"clear,omitempty"`
	Secret  []byte `json:"secret,omitempty"`
	Section []byte `json:"section,omitempty"`
}

func readVectors(t testing.TB) *vectors {
	b, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	v := new(vectors)
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	all := readVectors(t)
	key, err := sm2.NewPrivateKey(all.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			got := v.read(all, key)
			if got.Expect != v.Expect || strings.Join(got.Items, " ") != strings.Join(v.Items, " ") {
				t.Fatalf("%s %v, want %s %v", got.Expect, got.Items, v.Expect, v.Items)
			}
			if v.Expect != "fault" && (got.Clear != v.Clear || !bytes.Equal(got.Section, v.Section) || !bytes.Equal(got.Secret, v.Secret)) {
				t.Fatal("opened to something else")
			}
		})
	}
}

// unsealed is a vector's bundle, up to what lies behind its section.
type unsealed struct {
	clear           *Clear
	content         string
	secret, section []byte
	in              *Inner
	small           []byte
	frame           int64 // bytes in front of the section
}

// unseal is the reader's side of the specification with this package's codec; nil when
// nothing of a bundle may be taken.
func unseal(r *bytes.Reader, signer []byte, key *sm.PrivateKey) *unsealed {
	signed, err := readFrame(r)
	if err != nil {
		return nil
	}
	o, err := cms.Parse(signed, MaxClearHeader)
	if err != nil || o.Verify(signer) != nil {
		return nil
	}
	c, err := parseClear(o.Content)
	if err != nil || c.Domain != "vectors" || c.Link != "jia-yi" || c.From != "jia" || c.To != "yi" {
		return nil
	}
	u := &unsealed{clear: c, content: string(o.Content), frame: int64(len(signed)) + 8}
	sealed := make([]byte, c.Sealed.Size)
	if _, err := io.ReadFull(r, sealed); err != nil || sm.Sum(sealed) != c.Sealed.SM3 {
		return nil
	}
	if u.secret, err = sm.Decrypt(key, c.Key); err != nil {
		return nil
	}
	if u.section, err = openSection(u.secret, c, sealed); err != nil {
		return nil
	}
	u.in, u.small, err = parseInner(u.section)
	if err != nil || u.in.checkParts(c.Parts) != nil || u.in.checkKinds() != nil || c.Seq == 0 && len(u.in.Items) > 0 {
		return nil
	}
	return u
}

// read is what a reader finds in a bundle of a session.
func (v *vector) read(all *vectors, key *sm.PrivateKey) (got vector) {
	r := bytes.NewReader(v.Bundle)
	u := unseal(r, all.Signer, key)
	if u == nil {
		return vector{Expect: "fault"}
	}
	got = vector{Expect: "truncated", Clear: u.content, Secret: u.secret, Section: u.section}
	small := u.small
	for _, e := range u.in.Items {
		one := small[:min(e.Size, int64(len(small)))]
		if e.Kind == node.KindPart {
			one, _ = io.ReadAll(io.LimitReader(r, e.Size))
		} else {
			small = small[len(one):]
		}
		got.Items = append(got.Items, stateOf(e, one))
	}
	if whole(r, u.frame+u.clear.Sealed.Size+u.clear.Parts.Size+footerSize) {
		got.Expect = "ok"
	}
	return got
}

func stateOf(e ManifestEntry, b []byte) string {
	if itemDigest(e.Kind, b) != e.Digest {
		return "damaged"
	}
	return "good"
}

func itemDigest(kind string, b []byte) sm.Digest {
	if kind != node.KindPart {
		return sm.Sum(b)
	}
	h := merkle.NewPayloadHash()
	_, _ = h.Write(b)
	return h.Sum()
}

// maker makes vectors from a fixed seed.
type maker struct {
	t      testing.TB
	rand   *rand.ChaCha8
	sign   *sm.PrivateKey
	signer []byte
	key    *sm.PrivateKey
	cert   *certs.Certificate
}

func (m *maker) Certificate() []byte { return m.signer }
func (m *maker) Sign(msg []byte) ([]byte, error) {
	return sm.Sign(m.rand, m.sign, msg)
}

func (m *maker) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func newMaker(t testing.TB) *maker {
	m := &maker{t: t, rand: rand.NewChaCha8(sha256.Sum256([]byte("bundle vectors")))}
	issue := func(usage smx509.KeyUsage, name string) (*sm.PrivateKey, []byte) {
		key, err := sm.GenerateKey(m.rand)
		m.must(err)
		template := &smx509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, KeyUsage: usage,
			NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(9, 0, 0),
		}
		der, err := smx509.CreateCertificate(m.rand, template, template, &key.PublicKey, key)
		m.must(err)
		return key, der
	}
	m.sign, m.signer = issue(smx509.KeyUsageDigitalSignature|smx509.KeyUsageContentCommitment, "jia")
	var der []byte
	m.key, der = issue(smx509.KeyUsageKeyEncipherment|smx509.KeyUsageDataEncipherment, "yi")
	m.cert = &certs.Certificate{Use: certs.UseEncrypt, DER: der}
	return m
}

// item is one item of a vector; its bytes mean nothing.
type item struct {
	kind, id string
	bytes    []byte
	critical bool
}

// bundle makes one; change may spoil the clear header before the section is
// sealed, spoil before it is signed.
func (m *maker) bundle(k *epochKey, in *Inner, change func(*Clear), items ...item) vector {
	return m.spoilt(k, in, change, nil, items...)
}

func (m *maker) spoilt(k *epochKey, in *Inner, change, spoil func(*Clear), items ...item) vector {
	var small, parts []byte
	c := m.clear(k, fmt.Sprintf("%016x", start.UnixMilli()), 1)
	for _, i := range items {
		e := i.entry()
		if i.kind == node.KindPart {
			parts = append(parts, i.bytes...)
			c.Parts.Count++
			c.Parts.Size += e.Size
		} else {
			small = append(small, i.bytes...)
		}
		in.Items = append(in.Items, e)
	}
	if change != nil {
		change(c)
	}
	b, section := m.sealed(k, c, in, small, spoil)
	content, err := strictjson.Marshal(c)
	m.must(err)
	b = append(b, parts...)
	return vector{Bundle: append(b, footer(int64(len(b)+footerSize))...), Clear: string(content), Secret: k.secret, Section: section}
}

// clear is a clear header without what is sealed; the epoch begins with its counter.
func (m *maker) clear(k *epochKey, counter string, seq uint64) *Clear {
	c := &Clear{
		Type: bundleType, V: 1, Domain: "vectors", Link: "jia-yi", From: "jia", To: "yi",
		Epoch: counter + "0123456789abcdef", Seq: seq, Created: strictjson.TimeOf(start), Directory: 7,
		Key: k.wrapped, Cert: k.cert, Salt: make([]byte, 16),
	}
	_, _ = m.rand.Read(c.Salt)
	return c
}

func (i *item) entry() ManifestEntry {
	return ManifestEntry{Kind: i.kind, ID: i.id, Size: int64(len(i.bytes)), Digest: itemDigest(i.kind, i.bytes), Critical: i.critical}
}

// sealed is a bundle up to the end of its section; spoil may change the clear header
// before it is signed.
func (m *maker) sealed(k *epochKey, c *Clear, in *Inner, small []byte, spoil func(*Clear)) (b, section []byte) {
	section, err := joinSection(in, small)
	m.must(err)
	sealed, err := sealSection(k.secret, c, section)
	m.must(err)
	c.Sealed = Extent{Size: int64(len(sealed)), SM3: sm.Sum(sealed)}
	if spoil != nil {
		spoil(c)
	}
	_, frame, err := signClear(m, c)
	m.must(err)
	return append(frame, sealed...), section
}

func noItems() *Inner { return &Inner{Acks: []Ack{}, Heads: [][]byte{}, Items: []ManifestEntry{}} }

func writeVectors(t *testing.T) {
	m := newMaker(t)
	k, err := newEpochKey(m.rand, m.cert)
	m.must(err)
	var d [32]byte
	m.key.D.FillBytes(d[:])
	out := &vectors{
		About:  "Bundles, version 1: see docs/spec/bundle-v1.md. The keys are public and protect nothing. Byte strings are base64.",
		Signer: m.signer, Receiver: m.cert.DER, Key: d[:],
	}
	add := func(name, expect string, v vector, states ...string) {
		v.Name, v.Expect, v.Items = name, expect, states
		if expect == "fault" {
			v.Clear, v.Secret, v.Section = "", nil, nil
		}
		out.Vectors = append(out.Vectors, v)
	}
	mixed := []item{
		{kind: "header", id: strings.Repeat("ab", 32), bytes: []byte("a header")},
		{kind: "part", id: strings.Repeat("ab", 32) + "/0", bytes: bytes.Repeat([]byte("part 0 "), 20)},
		{kind: "receipt", id: strings.Repeat("cd", 32), bytes: []byte("a receipt")},
		{kind: "part", id: strings.Repeat("ab", 32) + "/1", bytes: []byte("the last part")},
	}
	good := m.bundle(k, noItems(), nil, mixed...)
	add("items and parts", "ok", good, "good", "good", "good", "good")
	talk := noItems()
	talk.Acks = []Ack{{
		Epoch: strings.Repeat("0f", 16), Seq: 12, Header: sm.Sum([]byte("a clear header")),
		Items: []AckItem{{Status: "taken"}, {Status: "damaged", Reason: "digest"}, {Status: "refused", Reason: "unknown_kind"}, {Status: ""}},
	}}
	talk.Seen = &SeenHead{Ledger: "01KAQ5Z1W0000000000000000", Size: 9, Root: sm.Sum([]byte("root"))}
	talk.Checkpoint = &ProvenHead{CMS: []byte("a signed checkpoint"), From: 4, Proof: []sm.Digest{sm.Sum([]byte("node"))}}
	talk.Heads = [][]byte{[]byte("another node's")}
	add("acks and heads, no items", "ok", m.bundle(k, talk, func(c *Clear) { c.Seq = 0 }))
	add("an item of an unknown kind", "ok", m.bundle(k, noItems(), nil, append([]item{{kind: "hologram", id: "h", bytes: []byte("?")}}, mixed...)...),
		"good", "good", "good", "good", "good")
	unknown := noItems()
	unknown.Extra = strictjson.Extra{{Name: "zz_later", Value: strictjson.Raw(`{"a":[1,true]}`)}}
	add("unknown members", "ok", m.bundle(k, unknown, func(c *Clear) {
		c.Extra = strictjson.Extra{{Name: "zz_later", Value: strictjson.Raw(`"x"`)}}
	}, mixed[0]), "good")

	cut := func(v vector, n int) vector { v.Bundle = v.Bundle[:n]; return v }
	flip := func(v vector, at int) vector {
		v.Bundle = bytes.Clone(v.Bundle)
		v.Bundle[at] ^= 0x10
		return v
	}
	n := len(good.Bundle)
	add("without footer", "truncated", cut(good, n-footerSize), "good", "good", "good", "good")
	add("cut in the footer", "truncated", cut(good, n-1), "good", "good", "good", "good")
	add("cut in the last part", "truncated", cut(good, n-footerSize-1), "good", "good", "good", "damaged")
	add("cut before the parts", "truncated", cut(good, n-footerSize-13-140), "good", "damaged", "good", "damaged")
	add("a bit flipped in part 0", "ok", flip(good, n-footerSize-13-140+70), "good", "damaged", "good", "good")
	add("another length in the footer", "truncated", flip(good, n-1), "good", "good", "good", "good")

	add("a bit flipped in the magic", "fault", flip(good, 0))
	add("a bit flipped in the length", "fault", flip(good, 7))
	add("a bit flipped in the signed header", "fault", flip(good, 300))
	add("a bit flipped in the section", "fault", flip(good, n-footerSize-13-140-5))
	add("cut in the section", "fault", cut(good, n-footerSize-13-140-1))
	add("empty", "fault", vector{Bundle: []byte{}})
	add("a critical item of an unknown kind", "fault", m.bundle(k, noItems(), nil, item{kind: "hologram", id: "h", bytes: []byte("?"), critical: true}))
	add("a critical member that is unknown", "fault", m.bundle(k, noItems(), func(c *Clear) {
		c.Crit, c.Extra = []string{"zz_later"}, strictjson.Extra{{Name: "zz_later", Value: strictjson.Raw(`"x"`)}}
	}, mixed[0]))
	add("items without a number", "fault", m.bundle(k, noItems(), func(c *Clear) { c.Seq = 0 }, mixed[0]))
	add("for another node", "fault", m.bundle(k, noItems(), func(c *Clear) { c.To = "bing" }, mixed[0]))
	add("for another link", "fault", m.bundle(k, noItems(), func(c *Clear) { c.Link = "yi-bing" }, mixed[0]))
	add("version 2", "fault", m.bundle(k, noItems(), func(c *Clear) { c.V = 2 }, mixed[0]))
	add("parts other than announced", "fault", m.bundle(k, noItems(), func(c *Clear) { c.Parts.Size++ }, mixed...))
	add("sealed under another number", "fault", m.spoilt(k, noItems(), nil, func(c *Clear) { c.Seq = 2 }, mixed[0]))
	stranger := newMaker(t)
	stranger.rand = rand.NewChaCha8(sha256.Sum256([]byte("a stranger")))
	stranger.sign, err = sm.GenerateKey(stranger.rand)
	m.must(err)
	add("signed with another key", "fault", stranger.bundle(k, noItems(), nil, mixed[0]))

	// Added later, behind the others, whose bytes stay as they are.
	directory := item{kind: "directory", id: "43", bytes: []byte("an update of the directory"), critical: true}
	add("a directory before what is judged by it", "ok", m.bundle(k, noItems(), func(c *Clear) { c.Directory = 43 }, directory, mixed[0]), "good", "good")
	add("a notice: neither items nor acks", "ok", m.bundle(k, noItems(), func(c *Clear) { c.Seq = 0 }))

	b, err := json.MarshalIndent(out, "", " ")
	m.must(err)
	m.must(os.MkdirAll("testdata", 0o755))
	m.must(os.WriteFile(vectorFile, append(b, '\n'), 0o644))
}
