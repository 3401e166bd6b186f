package evidence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"
	"github.com/oklog/ulid/v2"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// The package may not know nodes (they stand above it), so these tests make
// what a node makes with the same parts: a directory, a sealed document,
// receipts by those who may give them, and a ledger over all of it.

var start = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// domain is one authority, two nodes with one agency each, and their keys.
type domain struct {
	directory *certs.Directory
	keys      map[string]holding // by node
	agency    map[string]string  // by node
	random    io.Reader
	ca, tsa   *tsatest.Key // an outside authority, and the timestamp authority it certified
	revoked   []byte       // the next directory, in which the sender's certificate is revoked
}

// holding is what a keystore does for these tests.
type holding interface {
	Sign(id sm.Digest, msg []byte) ([]byte, error)
	Unwrap(id sm.Digest, sealed []byte) ([]byte, error)
}

// paper is a sealed document with what its sender can disclose.
type paper struct {
	e         *envelope.Envelope
	header    []byte
	body      []byte
	slots     [][]byte
	stored    []byte // ciphertext
	disclosed []Leaf
}

// world is a domain, a stranger that calls itself the same, two documents,
// and the evidence of the first.
type world struct {
	ours, other *domain
	doc, second *paper
	file        *File
	leaves      [][]byte // the exporting node's ledger
	raw         []byte
}

var theWorld = sync.OnceValues(newWorld)

func sharedWorld(t testing.TB) *world {
	t.Helper()
	w, err := theWorld()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func newWorld() (w *world, err error) {
	w = new(world)
	if w.ours, err = newDomain("ours"); err != nil {
		return nil, err
	}
	if w.other, err = newDomain("other"); err != nil {
		return nil, err
	}
	if w.doc, err = w.ours.seal(1, "关于开展公文交换试点的通知"); err != nil {
		return nil, err
	}
	if w.second, err = w.ours.seal(2, "关于节假日安排的通知"); err != nil {
		return nil, err
	}
	if w.file, err = w.export(); err != nil {
		return nil, err
	}
	w.raw, err = w.file.Marshal()
	return w, err
}

func newDomain(seed string) (*domain, error) {
	dir, remove, err := tempDir()
	if err != nil {
		return nil, err
	}
	defer remove()
	d := &domain{
		random: rand.NewChaCha8(sha256.Sum256([]byte("evidence " + seed))),
		keys:   map[string]holding{}, agency: map[string]string{},
	}
	pass, begin := []byte("evidence tests"), start.AddDate(0, -1, 0)
	authority, err := certs.InitAuthority(filepath.Join(dir, "ca"), "test", pass, d.random, begin)
	if err != nil {
		return nil, err
	}
	for i, id := range []string{"jia", "yi"} {
		if err := d.admit(authority, filepath.Join(dir, id), i, id, pass, begin); err != nil {
			return nil, err
		}
	}
	entries := filepath.Join(dir, "ca", "entries")
	if err := d.nameTSA(entries); err != nil {
		return nil, err
	}
	file, err := authority.Publish(begin)
	if err != nil {
		return nil, err
	}
	if d.directory, err = certs.LoadDirectory(file, authority.Certificate(), 0, start); err != nil {
		return nil, err
	}
	entry := fmt.Sprintf(`{"type":"yizhan-revocation","v":1,"domain":"test","cert":"%s","effective":"%s","reason":"key_compromise"}`,
		sm.Sum(d.byAgency("jia").Certificate()), revokedFrom.Format("2006-01-02T15:04:05.000Z"))
	if err := os.WriteFile(filepath.Join(entries, "revocation.json"), []byte(entry), 0o600); err != nil {
		return nil, err
	}
	d.revoked, err = authority.Publish(begin)
	return d, err
}

// revokedFrom is an hour after all that the file speaks of.
var revokedFrom = start.Add(time.Hour)

// nameTSA adds an outside issuer to the directory, and a timestamp authority
// that it certified.
func (d *domain) nameTSA(entries string) (err error) {
	template := &smx509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "示范外部机构"}, NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(10, 0, 0),
		KeyUsage: smx509.KeyUsageCertSign | smx509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true, SubjectKeyId: []byte{1},
	}
	if d.ca, err = tsatest.NewKey(d.random, template); err != nil {
		return err
	}
	if d.tsa, err = tsatest.IssueKey(d.random, tsatest.Template(start), d.ca); err != nil {
		return err
	}
	for name, der := range map[string][]byte{"issuer": d.ca.DER, "tsa": d.tsa.DER} {
		entry := fmt.Sprintf(`{"type":"yizhan-%s","v":1,"domain":"test","cert":"%s"}`, name, base64.StdEncoding.EncodeToString(der))
		if err := os.WriteFile(filepath.Join(entries, name+".json"), []byte(entry), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// stamp is a token over the SM3 of an object.
func stamp(by cms.Signer, object []byte, at time.Time) ([]byte, error) {
	issuer := timestamp.Issuer{Signer: by, Policy: tsatest.Policy}
	answer, err := issuer.Issue(&timestamp.Request{Imprint: sm.Sum(object), CertReq: true}, 1, at)
	if err != nil {
		return nil, err
	}
	return timestamp.ParseResponse(answer)
}

func (d *domain) admit(authority *certs.Authority, dir string, i int, id string, pass []byte, at time.Time) error {
	keys, err := keystore.Create(dir, pass, d.random)
	if err != nil {
		return err
	}
	code, err := certs.MakeAgencyCode(fmt.Sprintf("115200000000000%02d", i))
	if err != nil {
		return err
	}
	d.keys[id], d.agency[id] = keys, string(code)
	spec := certs.NodeSpec{ID: id, Zone: "政务外网", URL: "https://127.0.0.1:1"}
	request, err := certs.NewRequest(keys, "test", spec, []certs.AgencySpec{{Code: code, Name: "示范单位" + id}}, at)
	if err != nil {
		return err
	}
	parsed, err := certs.ParseRequest(request)
	if err != nil {
		return err
	}
	return authority.Admit(parsed, at)
}

// byNode and byAgency sign as a node, and as the agency it serves.
func (d *domain) byNode(id string) cms.Signer {
	n, _ := d.directory.Node(id)
	return d.signer(id, &n.Holder)
}

func (d *domain) byAgency(id string) cms.Signer {
	a, _ := d.directory.Agency(d.agency[id])
	return d.signer(id, &a.Holder)
}

func (d *domain) signer(id string, h *certs.Holder) cms.Signer {
	c, err := h.Current(certs.UseSign, start)
	if err != nil {
		panic(err)
	}
	return certs.Signer(d.keys[id], c)
}

func (d *domain) encryption(id string) *certs.Certificate {
	a, _ := d.directory.Agency(d.agency[id])
	c, err := a.Current(certs.UseEncrypt, start)
	if err != nil {
		panic(err)
	}
	return c
}

// seal makes a document from jia's agency to yi's.
func (d *domain) seal(number uint64, title string) (*paper, error) {
	p := &paper{body: bytes.Repeat([]byte(title), 200)}
	doc := exchange.Document{
		Sender: d.agency["jia"], To: []exchange.Addressee{{Agency: d.agency["yi"]}},
		Label: exchange.Internal, Kind: exchange.Official, Urgency: exchange.Normal, Title: title,
	}
	document, err := doc.Marshal()
	if err != nil {
		return nil, err
	}
	routing, err := strictjson.Marshal(&exchange.Routing{
		Label: doc.Label, Urgency: doc.Urgency, Kind: doc.Kind,
		Created: strictjson.TimeOf(start), Expires: strictjson.TimeOf(start.Add(exchange.DefaultLife)),
	})
	if err != nil {
		return nil, err
	}
	var stored bytes.Buffer
	put := func(_ context.Context, _ int, r io.Reader) error { _, err := io.Copy(&stored, r); return err }
	sealed, err := envelope.Seal(context.Background(), envelope.Plan{
		Domain: "test", ID: ulid.MustNew(ulid.Timestamp(start)+number, d.random).String(), Sender: doc.Sender, Directory: 1,
		Recipients: []envelope.Recipient{
			{Agency: d.agency["yi"], Role: envelope.RoleRecipient, Certificate: d.encryption("yi").DER},
			{Agency: doc.Sender, Role: envelope.RoleSelf, Certificate: d.encryption("jia").DER},
		},
		Routing: routing, Document: document, Files: p.files,
	}, d.byAgency("jia"), start, d.random, put)
	if err != nil {
		return nil, err
	}
	p.header, p.slots, p.stored = sealed.Header, sealed.Slots, stored.Bytes()
	if p.e, err = envelope.ParseHeader(sealed.Header); err != nil {
		return nil, err
	}
	return p, p.disclose(d, sealed.Slots[1], stored.Bytes())
}

func (p *paper) files(yield func(envelope.File, error) bool) {
	yield(envelope.File{Role: envelope.RoleBody, Name: "正文.ofd", Type: "application/ofd", Content: bytes.NewReader(p.body)}, nil)
}

type ciphertext []byte

func (c ciphertext) OpenAt(_ context.Context, off int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(c[off:])), nil
}

func (p *paper) disclose(d *domain, slot, stored []byte) error {
	unwrap := func(b []byte) ([]byte, error) { return d.keys["jia"].Unwrap(d.encryption("jia").KeyID, b) }
	opened, err := envelope.Open(context.Background(), p.e, unwrap, slot, ciphertext(stored))
	if err != nil {
		return err
	}
	leaves, err := opened.Disclose()
	for _, l := range leaves {
		p.disclosed = append(p.disclosed, Leaf{Name: l.Name, Salt: l.Salt, Value: l.Value})
	}
	return err
}

// says makes a receipt of a stage about a document.
func (d *domain) says(p *paper, stage exchange.Stage, by cms.Signer, change func(*exchange.Receipt)) ([]byte, error) {
	r := &exchange.Receipt{
		Domain: "test", Stage: stage, Envelope: p.e.Header.ID, Header: p.e.Hash, Node: "jia",
		Time: strictjson.TimeOf(start), Clock: "test", Directory: 1,
	}
	if stage != exchange.StageAccepted {
		r.Node, r.Recipients = "yi", []string{d.agency["yi"]}
	}
	if stage.ByAgency() {
		r.Agency, r.Actor = d.agency["yi"], &exchange.Actor{Role: "机要员", Name: "王伟"}
	}
	if change != nil {
		change(r)
	}
	content, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	return cms.Sign(by, content, start)
}

// The order of the receipts in the exported file.
const (
	accepted = iota
	delivered
	collected
	signedFor
)

// export is the evidence of the first document by jia's node, whose ledger
// holds the second document's ACCEPTED as well.
func (w *world) export() (*File, error) {
	d := w.ours
	f := &File{
		Domain: "test", Authority: d.directory.Authority(), Directory: d.directory.Raw(),
		Header: w.doc.header, Disclosed: w.doc.disclosed,
	}
	for _, one := range []struct {
		p     *paper
		stage exchange.Stage
		by    cms.Signer
	}{
		{w.second, exchange.StageAccepted, d.byNode("jia")},
		{w.doc, exchange.StageAccepted, d.byNode("jia")},
		{w.doc, exchange.StageDelivered, d.byNode("yi")},
		{w.doc, exchange.StageCollected, d.byAgency("yi")},
		{w.doc, exchange.StageSignedFor, d.byAgency("yi")},
	} {
		signed, err := d.says(one.p, one.stage, one.by, nil)
		if err != nil {
			return nil, err
		}
		r, err := w.enter(signed)
		if err != nil {
			return nil, err
		}
		f.Receipts = append(f.Receipts, *r)
	}
	err := w.prove(f)
	f.Receipts = f.Receipts[1:]
	return f, err
}

// enter appends the leaf of a receipt that came at the start to the ledger.
func (w *world) enter(signed []byte) (*Receipt, error) { return w.enterAt(signed, "receipt", start) }

func (w *world) enterAt(signed []byte, event string, at time.Time) (*Receipt, error) {
	s, err := cms.Parse(signed, exchange.MaxReceiptCMS)
	if err != nil {
		return nil, err
	}
	body, err := exchange.ParseReceipt(s.Content)
	if err != nil {
		return nil, err
	}
	leaf := merkle.Leaf{Event: event, Envelope: body.Header.String(), Object: s.ID(), At: strictjson.TimeOf(at)}
	b, err := leaf.Marshal()
	if err != nil {
		return nil, err
	}
	w.leaves = append(w.leaves, b)
	return &Receipt{CMS: signed, Seen: leaf.At, Index: uint64(len(w.leaves) - 1), Leaf: b}, nil
}

// prove gives every receipt its inclusion proof under a new checkpoint.
func (w *world) prove(f *File) error {
	hashes := w.hashes()
	for i := range f.Receipts {
		f.Receipts[i].Proof = merkle.Inclusion(hashes, int(f.Receipts[i].Index))
	}
	signed, err := checkpoint(hashes, "jia", w.ours.byNode("jia"))
	f.Checkpoint = signed
	return err
}

func (w *world) hashes() []sm.Digest {
	var hashes []sm.Digest
	for _, leaf := range w.leaves {
		hashes = append(hashes, merkle.LeafHash(leaf))
	}
	return hashes
}

func checkpoint(hashes []sm.Digest, node string, by cms.Signer) ([]byte, error) {
	cp := merkle.Checkpoint{
		Domain: "test", Ledger: "01K0000000000000000000000A", Node: node,
		Size: uint64(len(hashes)), Root: merkle.Root(hashes), Time: strictjson.TimeOf(start),
	}
	b, err := cp.Marshal()
	if err != nil {
		return nil, err
	}
	return cms.Sign(by, b, start)
}

// copyFile gives a copy that a test may spoil.
func (w *world) copyFile(t testing.TB) *File {
	t.Helper()
	f, err := Parse(w.raw)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// verify judges a file as an auditor does who has our authority's certificate.
func (w *world) verify(t testing.TB, f *File, given ...Delivered) *Report {
	t.Helper()
	b, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	report, err := Verify(b, w.ours.directory.Authority(), given)
	if err != nil {
		t.Fatal(err)
	}
	return report
}
