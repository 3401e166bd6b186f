package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

var update = flag.Bool("update", false, "write the vectors in testdata anew")

// receiptVectors is testdata/receipt-v1.json; crypto/sm/testdata/README.md says
// what its members mean to another implementation.
type receiptVectors struct {
	About     string          `json:"about"`
	Authority []byte          `json:"authority"`
	Directory []byte          `json:"directory"`
	Later     []byte          `json:"later_directory"` // revokes the sender's signing certificate
	Header    []byte          `json:"header"`
	Vectors   []receiptVector `json:"vectors"`
}

type receiptVector struct {
	Name    string          `json:"name"`
	Result  string          `json:"result"`
	Class   string          `json:"class,omitempty"`
	Step    string          `json:"step,omitempty"` // of what is invalid: cms, statement or judge
	Seen    strictjson.Time `json:"seen"`
	Receipt []byte          `json:"receipt"`
	// Revoked says that the directory to judge by is the later one.
	Revoked bool `json:"revoked,omitempty"`
}

// judge takes a receipt through the steps of receipt-v1, "Verifying a receipt".
func (v *receiptVector) judge(d *certs.Directory, e *envelope.Envelope) (step string, err error) {
	signed, err := cms.Parse(v.Receipt, exchange.MaxReceiptCMS)
	if err != nil {
		return "cms", err
	}
	body, err := exchange.ParseReceipt(signed.Content)
	if err != nil {
		return "statement", err
	}
	return "judge", exchange.Judge(d, e, body, signed, v.Seen.Time())
}

// receiptMaker collects vectors about the first document.
type receiptMaker struct {
	t    *testing.T
	w    *world
	a    *attacker
	list []receiptVector
}

func (m *receiptMaker) good(name string, stage exchange.Stage, by cms.Signer, change func(*exchange.Receipt)) {
	der := must[[]byte](m.t)(m.w.ours.says(m.w.doc, stage, by, change))
	m.list = append(m.list, receiptVector{Name: name, Result: "valid", Seen: strictjson.TimeOf(start), Receipt: der})
}

func (m *receiptMaker) bad(name, class, step string, der []byte) {
	m.list = append(m.list, receiptVector{Name: name, Result: "invalid", Class: class, Step: step, Seen: strictjson.TimeOf(start), Receipt: der})
}

// says adds a well signed receipt that must be refused.
func (m *receiptMaker) says(name, class string, stage exchange.Stage, by cms.Signer, change func(*exchange.Receipt)) {
	m.bad(name, class, "judge", must[[]byte](m.t)(m.w.ours.says(m.w.doc, stage, by, change)))
}

// text changes the JSON of SIGNED_FOR and has its agency sign that.
func (m *receiptMaker) text(name, class, old, now string) {
	o := m.a.take(m.w.file.Receipts[signedFor].CMS)
	if !bytes.Contains(o.content, []byte(old)) {
		m.t.Fatalf("%q is not in %q", old, o.content)
	}
	content := bytes.Replace(o.content, []byte(old), []byte(now), 1)
	m.bad(name, class, "statement", m.a.object(m.a.who[o.speaker], content, start))
}

func makeReceiptVectors(t *testing.T, w *world) any {
	m := &receiptMaker{t: t, w: w, a: newAttacker(t, w, 3)}
	m.valid()
	m.wrapped()
	m.statements()
	m.judged()
	return &receiptVectors{
		About:     "Receipts of receipt-v1 about one document: see crypto/sm/testdata/README.md. Byte strings are base64.",
		Authority: w.ours.directory.Authority(), Directory: w.ours.directory.Raw(), Later: w.ours.revoked, Header: w.doc.header, Vectors: m.list,
	}
}

func (m *receiptMaker) valid() {
	d := m.w.ours
	jia, yi := d.agency["jia"], d.agency["yi"]
	m.good("ACCEPTED by the sender's node", exchange.StageAccepted, d.byNode("jia"), nil)
	m.good("RELAYED by any node", exchange.StageRelayed, d.byNode("jia"), func(r *exchange.Receipt) { r.Node = "jia" })
	m.good("DELIVERED by the recipient's node", exchange.StageDelivered, d.byNode("yi"), func(r *exchange.Receipt) { r.Form = exchange.FormOpened })
	m.good("COLLECTED by the agency", exchange.StageCollected, d.byAgency("yi"), nil)
	m.good("SIGNED_FOR by the agency", exchange.StageSignedFor, d.byAgency("yi"), func(r *exchange.Receipt) { r.Detail = sm.Sum([]byte("detail")).String() })
	m.good("RETURNED by the agency, with a reason", exchange.StageReturned, d.byAgency("yi"), func(r *exchange.Receipt) { r.Reason = "misdirected" })
	m.good("REJECTED by a node, for all recipients", exchange.StageRejected, d.byNode("yi"), func(r *exchange.Receipt) { r.Recipients, r.Reason = nil, "label_ceiling" })
	m.good("VOIDED by the sender", exchange.StageVoided, d.byAgency("jia"), func(r *exchange.Receipt) { r.Agency, r.Node, r.Recipients = jia, "jia", []string{yi} })
	o := m.a.take(m.w.file.Receipts[signedFor].CMS)
	content := append(bytes.TrimSuffix(bytes.Clone(o.content), []byte("}")), `,"zz":{"later":[1,true]}}`...)
	m.list = append(m.list, receiptVector{
		Name: "with a member of a later version", Result: "valid", Seen: strictjson.TimeOf(start),
		Receipt: m.a.object(m.a.who[o.speaker], content, start),
	})
}

// wrapped: the wrapping is at fault.
func (m *receiptMaker) wrapped() {
	o, other := m.a.take(m.w.file.Receipts[signedFor].CMS), m.a.take(m.w.file.Receipts[collected].CMS)
	flip := func(i int) []byte { b := bytes.Clone(o.der); b[i] ^= 1; return b }
	rfc := must[[]byte](m.t)(cms.Relabel(o.der))
	m.bad("nothing", "EMPTY", "cms", []byte{})
	m.bad("last byte missing", "TRUNCATED", "cms", o.der[:len(o.der)-1])
	m.bad("byte behind", "TRAILING_BYTES", "cms", append(bytes.Clone(o.der), 0))
	m.bad("RFC 5652 label", "WRONG_LABEL", "cms", rfc)
	m.bad("content changed on the way", "CONTENT_CHANGED", "cms", flip(bytes.Index(o.der, []byte("yizhan-receipt"))))
	m.bad("signature changed", "SIGNATURE_CHANGED", "judge", flip(len(o.der)-1))
	object := func(f forged, content []byte, at time.Time) []byte { return m.a.object(f, content, at) }
	m.bad("no signature", "SIGNATURE_STRIPPED", "judge", object(forged{o.cert, nil}, o.content, start))
	m.bad("r and s of 0", "SIGNATURE_STRIPPED", "judge", object(forged{o.cert, []byte{0x30, 6, 2, 1, 0, 2, 1, 0}}, o.content, start))
	m.bad("signature of another receipt of the agency", "SIGNATURE_OF_ANOTHER", "judge", object(forged{o.cert, other.signature}, o.content, start))
	m.bad("other statement under the signature", "SIGNATURE_OF_ANOTHER", "judge", object(forged{o.cert, o.signature}, bytes.Replace(o.content, []byte("SIGNED_FOR"), []byte("RETURNED"), 1), start))
	m.bad("signing time moved back", "BACKDATED", "judge", object(forged{o.cert, o.signature}, o.content, start.Add(-time.Hour)))
	m.bad("certificate of the sender beside the signature", "CERTIFICATE_SWAPPED", "judge", object(forged{m.w.ours.byAgency("jia").Certificate(), o.signature}, o.content, start))
}

// statements: the JSON is at fault, and signed so.
func (m *receiptMaker) statements() {
	m.text("another type", "WRONG_TYPE", "yizhan-receipt", "yizhan-request")
	m.text("version 2", "WRONG_VERSION", `"v":1`, `"v":2`)
	m.text("unknown critical member", "UNKNOWN_CRITICAL", `"v":1`, `"v":1,"crit":["later"]`)
	m.text("unknown stage", "UNKNOWN_STAGE", "SIGNED_FOR", "SIGNED")
	m.text("the stage of no receipt", "UNKNOWN_STAGE", "SIGNED_FOR", string(exchange.StagePending))
	m.text("white space", "NON_CANONICAL_JSON", `"v":1`, `"v": 1`)
	m.text("member twice", "NON_CANONICAL_JSON", `"v":1`, `"v":1,"v":1`)
	m.text("escaped letter", "NON_CANONICAL_JSON", "SIGNED_FOR", `\u0053IGNED_FOR`)
	m.text("digest in capitals", "NON_CANONICAL_JSON", m.w.doc.e.Hash.String(), strings.ToUpper(m.w.doc.e.Hash.String()))
	m.text("empty optional member", "NON_CANONICAL_JSON", `"clock":"test"`, `"clock":"test","reason":""`)
	m.text("agency stage without agency", "MEMBER_MISSING", `"agency":"`+m.w.ours.agency["yi"]+`",`, "")
	m.text("no node", "MEMBER_MISSING", `"node":"yi"`, `"node":""`)
	m.text("node stage with an agency", "AGENCY_UNEXPECTED", "SIGNED_FOR", "DELIVERED")
	many := strings.Repeat(`"`+m.w.ours.agency["yi"]+`",`, 1001)
	m.text("1,001 recipients", "TOO_MANY", `"recipients":["`+m.w.ours.agency["yi"]+`"]`, `"recipients":[`+many[:len(many)-1]+`]`)
	header := m.a.take(m.w.doc.header)
	m.bad("the document's header", "WRONG_TYPE", "statement", header.der)
	m.bad("a checkpoint", "WRONG_TYPE", "statement", m.w.file.Checkpoint)
	m.bad("a request", "WRONG_TYPE", "statement", m.a.request())
}

// judged: well formed and well signed, by or about the wrong one.
func (m *receiptMaker) judged() {
	d := m.w.ours
	jia, yi := d.agency["jia"], d.agency["yi"]
	m.says("header hash of another document", "ANOTHER_DOCUMENT", exchange.StageSignedFor, d.byAgency("yi"), func(r *exchange.Receipt) { r.Header = m.w.second.e.Hash })
	m.says("id of another document", "ANOTHER_DOCUMENT", exchange.StageSignedFor, d.byAgency("yi"), func(r *exchange.Receipt) { r.Envelope = m.w.second.e.Header.ID })
	m.says("another domain", "ANOTHER_DOCUMENT", exchange.StageSignedFor, d.byAgency("yi"), func(r *exchange.Receipt) { r.Domain = "other" })
	m.says("about no recipient", "NOT_A_RECIPIENT", exchange.StageRejected, d.byNode("yi"), func(r *exchange.Receipt) { r.Recipients = []string{jia} })
	m.says("agency for another", "WRONG_SPEAKER", exchange.StageSignedFor, d.byAgency("jia"), func(r *exchange.Receipt) { r.Agency = jia })
	m.says("agency for all", "WRONG_SPEAKER", exchange.StageSignedFor, d.byAgency("yi"), func(r *exchange.Receipt) { r.Recipients = nil })
	m.says("agency that the directory does not name", "WRONG_SPEAKER", exchange.StageSignedFor, d.byAgency("yi"), func(r *exchange.Receipt) { r.Agency = "91350100M000100Y43" })
	m.says("VOIDED by a recipient", "WRONG_SPEAKER", exchange.StageVoided, d.byAgency("yi"), nil)
	m.says("ACCEPTED by the recipient's node", "WRONG_SPEAKER", exchange.StageAccepted, d.byNode("yi"), func(r *exchange.Receipt) { r.Node = "yi" })
	m.says("DELIVERED by the sender's node", "WRONG_SPEAKER", exchange.StageDelivered, d.byNode("jia"), func(r *exchange.Receipt) { r.Node = "jia" })
	m.says("DELIVERED for nobody", "WRONG_SPEAKER", exchange.StageDelivered, d.byNode("yi"), func(r *exchange.Receipt) { r.Recipients = nil })
	m.says("node that the directory does not name", "WRONG_SPEAKER", exchange.StageRelayed, d.byNode("yi"), func(r *exchange.Receipt) { r.Node = "bing" })
	m.says("SIGNED_FOR with the node's certificate", "SIGNED_BY_ANOTHER", exchange.StageSignedFor, d.byNode("yi"), nil)
	m.says("SIGNED_FOR with the sender's certificate", "SIGNED_BY_ANOTHER", exchange.StageSignedFor, d.byAgency("jia"), nil)
	m.says("a stranger of the same name", "SIGNED_BY_STRANGER", exchange.StageSignedFor, m.w.other.byAgency("yi"), nil)
	key := impostor{d.byAgency("yi").Certificate(), d.byAgency("jia")}
	m.says("the right certificate, another key", "SIGNATURE_CHANGED", exchange.StageSignedFor, key, nil)
	for _, c := range []struct {
		name, class string
		seen        time.Time
	}{
		{"seen before the certificate began", "NOT_YET_VALID", start.AddDate(-1, 0, 0)},
		{"seen after the certificate ended", "EXPIRED", start.AddDate(6, 0, 0)},
	} {
		m.says(c.name, c.class, exchange.StageSignedFor, d.byAgency("yi"), func(r *exchange.Receipt) { r.Agency = yi })
		m.list[len(m.list)-1].Seen = strictjson.TimeOf(c.seen)
	}
	m.revocation()
}

// revocation: the sender's certificate is revoked in the later directory; what
// was seen before that took effect verifies for ever.
func (m *receiptMaker) revocation() {
	jia, yi := m.w.ours.agency["jia"], m.w.ours.agency["yi"]
	voided := func(r *exchange.Receipt) { r.Agency, r.Node, r.Recipients = jia, "jia", []string{yi} }
	last := func(at time.Time) {
		v := &m.list[len(m.list)-1]
		v.Revoked, v.Seen = true, strictjson.TimeOf(at)
	}
	m.good("seen a millisecond before the revocation", exchange.StageVoided, m.w.ours.byAgency("jia"), voided)
	last(revokedFrom.Add(-time.Millisecond))
	m.says("seen when the revocation takes effect", "REVOKED", exchange.StageVoided, m.w.ours.byAgency("jia"), voided)
	last(revokedFrom)
	m.says("seen a year after the revocation", "REVOKED", exchange.StageVoided, m.w.ours.byAgency("jia"), voided)
	last(revokedFrom.AddDate(1, 0, 0))
	m.good("another's certificate, seen after the revocation", exchange.StageSignedFor, m.w.ours.byAgency("yi"), nil)
	last(revokedFrom.AddDate(1, 0, 0))
}

// vectorFile reads a file of vectors, after writing it when asked to. It is not
// compared with what the tests make now: their world may change, what was
// valid once must verify for ever.
func vectorFile(t *testing.T, name string, make func(t *testing.T, w *world) any) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		b, err := json.MarshalIndent(make(t, sharedWorld(t)), "", " ")
		if err == nil {
			err = errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, append(b, '\n'), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return have
}

func verdictOf(bad bool) string {
	if bad {
		return "invalid"
	}
	return "valid"
}

func TestReceiptVectors(t *testing.T) {
	have := vectorFile(t, "receipt-v1.json", makeReceiptVectors)
	var f receiptVectors
	if err := json.Unmarshal(have, &f); err != nil {
		t.Fatal(err)
	}
	d := must[*certs.Directory](t)(certs.LoadDirectory(f.Directory, f.Authority, 0, start))
	later := must[*certs.Directory](t)(certs.LoadDirectory(f.Later, f.Authority, 0, start))
	e, err := envelope.ParseHeader(f.Header)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range f.Vectors {
		by := d
		if v.Revoked {
			by = later
		}
		step, err := v.judge(by, e)
		if verdictOf(err != nil) != v.Result || err != nil && step != v.Step || (v.Class == "") != (err == nil) {
			t.Errorf("%s: step %s: %v, want %s %s at %s", v.Name, step, err, v.Result, v.Class, v.Step)
		}
	}
	t.Logf("receipt-v1.json: %d vectors ran", len(f.Vectors))
}

// evidenceVectors is testdata/evidence-v1.json.
type evidenceVectors struct {
	About     string           `json:"about"`
	Authority []byte           `json:"authority"` // whom the verifier trusts
	Vectors   []evidenceVector `json:"vectors"`
}

// evidenceVector is one file, made of pieces of the first, and what verifying
// it must say. Delivered is the SM3 and size of files as they were received.
type evidenceVector struct {
	Name      string          `json:"name"`
	Result    string          `json:"result"`
	Class     string          `json:"class,omitempty"`
	Part      string          `json:"part,omitempty"` // of what is invalid: which part of the report says so
	Delivered []deliveredFile `json:"delivered"`
	Pieces    []evidencePiece `json:"pieces"`
}

type deliveredFile struct {
	Size int64     `json:"size"`
	SM3  sm.Digest `json:"sm3"`
}

// evidencePiece is text, or length bytes of the first vector from a place on.
type evidencePiece struct {
	Text   string `json:"text,omitempty"`
	From   int    `json:"from,omitempty"`
	Length int    `json:"length,omitempty"`
}

// piecesOf describes b by what it shares with base at both ends.
func piecesOf(base, b []byte) (list []evidencePiece) {
	n := min(len(base), len(b))
	head, tail := 0, 0
	for head < n && base[head] == b[head] {
		head++
	}
	for tail < n-head && base[len(base)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	// A piece of text never begins or ends within a character.
	for head > 0 && base[head-1] >= utf8.RuneSelf {
		head--
	}
	for tail > 0 && base[len(base)-tail] >= utf8.RuneSelf {
		tail--
	}
	if head > 0 {
		list = append(list, evidencePiece{Length: head})
	}
	if middle := b[head : len(b)-tail]; len(middle) > 0 {
		list = append(list, evidencePiece{Text: string(middle)})
	}
	if tail > 0 {
		list = append(list, evidencePiece{From: len(base) - tail, Length: tail})
	}
	return list
}

func (v *evidenceVector) file(base []byte) (out []byte) {
	for _, p := range v.Pieces {
		if p.Text != "" {
			out = append(out, p.Text...)
			continue
		}
		out = append(out, base[p.From:p.From+p.Length]...)
	}
	return out
}

// flipped changes one bit of the last byte, which in a signed object is the
// signature's.
func flipped(b []byte) { b[len(b)-1] ^= 1 }

// spoiled lists the faults: what is wrong, its class, and the part of the
// report that must name it.
func spoiled() []struct {
	name, class, part string
	spoil             func(t *testing.T, w *world, f *File)
} {
	return []struct {
		name, class, part string
		spoil             func(t *testing.T, w *world, f *File)
	}{
		{"directory of a stranger", "ANOTHER_AUTHORITY", "directory", func(_ *testing.T, w *world, f *File) { f.Directory = w.other.directory.Raw() }},
		{"directory entry changed", "DIRECTORY_CHANGED", "directory", func(t *testing.T, _ *world, f *File) { flipIn(t, f.Directory, "示范单位") }},
		{"header of another document", "ANOTHER_DOCUMENT", "receipt", func(_ *testing.T, w *world, f *File) { f.Header, f.Disclosed = w.second.header, nil }},
		{"signature of the header changed", "SIGNATURE_CHANGED", "header", func(_ *testing.T, _ *world, f *File) { flipped(f.Header) }},
		{"checkpoint in place of the header", "WRONG_TYPE", "header", func(_ *testing.T, _ *world, f *File) { f.Header = f.Checkpoint }},
		{"signature of a receipt changed", "SIGNATURE_CHANGED", "receipt", func(_ *testing.T, _ *world, f *File) { flipped(f.Receipts[signedFor].CMS) }},
		{"SIGNED_FOR by the sender's key", "SIGNED_BY_ANOTHER", "receipt", resigned(signedFor, bySender, nil)},
		{"DELIVERED by the sender's node", "WRONG_SPEAKER", "receipt", resigned(delivered, bySendersNode, func(_ *world, r *exchange.Receipt) { r.Node = "jia" })},
		{"receipt of another document", "ANOTHER_DOCUMENT", "receipt", addSecond},
		{"seen before the certificate began", "NOT_YET_VALID", "receipt", cameAt(signedFor, start.AddDate(-1, 0, 0))},
		{"seen after the certificate ended", "EXPIRED", "receipt", cameAt(signedFor, start.AddDate(6, 0, 0))},
		{"seen is not the time of the leaf", "SEEN_CHANGED", "receipt", func(_ *testing.T, _ *world, f *File) {
			f.Receipts[signedFor].Seen = strictjson.TimeOf(start.Add(-time.Hour))
		}},
		{"seen moved before the revocation", "SEEN_CHANGED", "receipt", func(t *testing.T, w *world, f *File) {
			f.Directory = w.ours.revoked
			signed := must[[]byte](t)(w.ours.says(w.doc, exchange.StageVoided, bySender(w), func(r *exchange.Receipt) { r.Agency, r.Node = w.ours.agency["jia"], "jia" }))
			came(t, w, f, signedFor, signed, "receipt", revokedFrom.AddDate(0, 0, 2))
			f.Receipts[signedFor].Seen = strictjson.TimeOf(start)
		}},
		{"leaf of another event", "LEAF_CHANGED", "ledger", func(t *testing.T, w *world, f *File) {
			came(t, w, f, signedFor, f.Receipts[signedFor].CMS, "handed", start)
		}},
		{"signature of the checkpoint changed", "SIGNATURE_CHANGED", "checkpoint", func(_ *testing.T, _ *world, f *File) { flipped(f.Checkpoint) }},
		{"checkpoint signed by an agency", "SIGNED_BY_ANOTHER", "checkpoint", func(t *testing.T, w *world, f *File) {
			f.Checkpoint = must[[]byte](t)(checkpoint(w.hashes(), "jia", bySender(w)))
		}},
		{"checkpoint of another history", "FORK", "ledger", func(t *testing.T, w *world, f *File) {
			hashes := w.hashes()
			hashes[0][0] ^= 1
			f.Checkpoint = must[[]byte](t)(checkpoint(hashes, "jia", bySendersNode(w)))
		}},
		{"leaf of another receipt", "LEAF_CHANGED", "ledger", func(_ *testing.T, _ *world, f *File) {
			a, b := &f.Receipts[accepted], &f.Receipts[delivered]
			a.Leaf, a.Index, a.Proof = b.Leaf, b.Index, b.Proof
		}},
		{"proof changed", "PROOF_CHANGED", "ledger", func(_ *testing.T, _ *world, f *File) { f.Receipts[delivered].Proof[1][31] ^= 1 }},
		{"index moved", "WRONG_PLACE", "ledger", func(_ *testing.T, _ *world, f *File) { f.Receipts[collected].Index++ }},
		{"first received after the sender's certificate was revoked", "REVOKED", "header", afterRevocation},
		{"signature of the timestamp changed", "SIGNATURE_CHANGED", "timestamp", func(t *testing.T, w *world, f *File) { *f = *w.stamped(t); flipped(f.Timestamp) }},
		{"timestamp over something else", "ANOTHER_IMPRINT", "timestamp", func(t *testing.T, w *world, f *File) {
			f.Timestamp = must[[]byte](t)(stamp(w.ours.tsa, f.Header, start.Add(10*time.Minute)))
		}},
		{"receipt seen after the timestamp", "NOT_YET_SEEN", "timestamp", func(t *testing.T, w *world, f *File) {
			w.cameAfterToken(t, f)
		}},
		{"timestamp by a revoked authority", "REVOKED", "timestamp", func(t *testing.T, w *world, f *File) {
			*f = *w.stamped(t)
			cert := must[[]byte](t)(w.ours.tsa.Certificate(), nil)
			f.CRLs = [][]byte{w.ours.crl(t, must[*big.Int](t)(serialOf(cert)))}
		}},
		{"revocation list of a stranger", "ANOTHER_AUTHORITY", "revocation", func(t *testing.T, w *world, f *File) { f.CRLs = [][]byte{w.other.crl(t)} }},
		{"title rewritten", "FIELDS_CHANGED", "manifest", func(t *testing.T, _ *world, f *File) { flipIn(t, leafOf(t, f, "document/title").Value, "试点") }},
		{"salt changed", "FIELDS_CHANGED", "manifest", func(t *testing.T, _ *world, f *File) { leafOf(t, f, "files/0").Salt[0] ^= 1 }},
		{"field left out", "FIELDS_CHANGED", "manifest", func(_ *testing.T, _ *world, f *File) { f.Disclosed = f.Disclosed[1:] }},
	}
}

// fine lists changes that leave a file whole.
func fine() []struct {
	name   string
	change func(t *testing.T, w *world, f *File)
} {
	return []struct {
		name   string
		change func(t *testing.T, w *world, f *File)
	}{
		{"with a timestamp", func(t *testing.T, w *world, f *File) { *f = *w.stamped(t) }},
		{"with a revocation list that does not concern it", func(t *testing.T, w *world, f *File) { f.CRLs = [][]byte{w.ours.crl(t, big.NewInt(99))} }},
		{"received before the sender's certificate was revoked", func(_ *testing.T, w *world, f *File) { f.Directory = w.ours.revoked }},
	}
}

// afterRevocation makes every other node first speak after the sender's
// certificate was revoked.
func afterRevocation(t *testing.T, w *world, f *File) {
	f.Directory = w.ours.revoked
	mine := &world{ours: w.ours, leaves: slices.Clone(w.leaves)}
	for _, i := range []int{delivered, collected, signedFor} {
		by := w.ours.byAgency("yi")
		if i == delivered {
			by = w.ours.byNode("yi")
		}
		signed := must[[]byte](t)(w.ours.says(w.doc, stageOf[i], by, func(r *exchange.Receipt) {
			r.Time = strictjson.TimeOf(revokedFrom.Add(time.Minute))
		}))
		f.Receipts[i] = *must[*Receipt](t)(mine.enter(signed))
	}
	must[any](t)(nil, mine.prove(f))
}

func makeEvidenceVectors(t *testing.T, w *world) any {
	f := &evidenceVectors{
		About:     "Evidence files of evidence-v1: see crypto/sm/testdata/README.md. The first vector is whole; the others are made of its pieces.",
		Authority: w.ours.directory.Authority(),
	}
	sealed := []deliveredFile{{int64(len(w.doc.body)), sm.Sum(w.doc.body)}}
	add := func(name, class, part string, given []deliveredFile, b []byte) {
		v := evidenceVector{Name: name, Result: verdictOf(class != ""), Class: class, Part: part, Delivered: given, Pieces: piecesOf(w.raw, b)}
		if len(f.Vectors) == 0 {
			v.Pieces = []evidencePiece{{Text: string(b)}}
		}
		f.Vectors = append(f.Vectors, v)
	}
	add("whole", "", "", sealed, w.raw)
	add("without the files", "", "", []deliveredFile{}, w.raw)
	for _, c := range fine() {
		file := w.copyFile(t)
		c.change(t, w, file)
		add(c.name, "", "", sealed, must[[]byte](t)(file.Marshal()))
	}
	for _, c := range spoiled() {
		file := w.copyFile(t)
		c.spoil(t, w, file)
		add(c.name, c.class, c.part, sealed, must[[]byte](t)(file.Marshal()))
	}
	other := deliveredFile{sealed[0].Size, sm.Sum([]byte("another"))}
	add("another file was delivered", "FILE_DIGEST", "files", []deliveredFile{other}, w.raw)
	add("one file too many", "FILE_DIGEST", "files", append(slices.Clone(sealed), other), w.raw)
	text := func(name, class, old, now string) {
		add(name, class, "file", sealed, bytes.Replace(w.raw, []byte(old), []byte(now), 1))
	}
	text("another type", "WRONG_TYPE", FileType, "yizhan-envelope")
	text("version 2", "WRONG_VERSION", `"v":1`, `"v":2`)
	text("unknown critical member", "UNKNOWN_CRITICAL", `"v":1`, `"v":1,"crit":["later"]`)
	text("white space", "NON_CANONICAL_JSON", `"v":1`, `"v": 1`)
	add("bytes behind", "TRAILING_BYTES", "file", sealed, append(bytes.Clone(w.raw), '\n'))
	add("cut", "TRUNCATED", "file", sealed, w.raw[:len(w.raw)-1])
	add("nothing", "EMPTY", "file", sealed, nil)
	return f
}

// verdict verifies a vector's file; part is the first that is at fault.
func (v *evidenceVector) verdict(base, authority []byte) (part string, ok bool) {
	var given []Delivered
	for _, d := range v.Delivered {
		given = append(given, Delivered{Size: d.Size, SM3: d.SM3})
	}
	r, err := Verify(v.file(base), authority, given)
	if err != nil {
		return "file", false
	}
	if r.OK() {
		return "", r.BytesMatch == (len(given) > 0)
	}
	part, _, _ = strings.Cut(r.Problems[0], ":")
	part, _, _ = strings.Cut(part, " ")
	return part, false
}

func TestEvidenceVectors(t *testing.T) {
	have := vectorFile(t, "evidence-v1.json", makeEvidenceVectors)
	var f evidenceVectors
	if err := json.Unmarshal(have, &f); err != nil {
		t.Fatal(err)
	}
	base := f.Vectors[0].file(nil)
	for _, v := range f.Vectors {
		part, ok := v.verdict(base, f.Authority)
		if verdictOf(!ok) != v.Result || part != v.Part {
			t.Errorf("%s: part %q at fault, want %s %s in %q", v.Name, part, v.Result, v.Class, v.Part)
		}
	}
	t.Logf("evidence-v1.json: %d vectors ran", len(f.Vectors))
}
