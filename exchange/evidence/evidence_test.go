package evidence

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

func tempDir() (string, func(), error) {
	dir, err := os.MkdirTemp("", "yizhan-evidence-")
	return dir, func() { _ = os.RemoveAll(dir) }, err
}

func TestEvidenceProvesReceiptsLedgerAndFiles(t *testing.T) {
	w := sharedWorld(t)
	r := w.verify(t, w.copyFile(t), Sum(w.doc.body))
	if !r.OK() || !r.ReceiptsVerified || !r.LedgerVerified || !r.BytesMatch || !r.AuthorityTrusted {
		t.Fatalf("an untouched file does not verify: %+v", r)
	}
	if r.Document != w.doc.e.Header.ID || r.Header != w.doc.e.Hash || r.Sender != w.ours.agency["jia"] || r.SenderName != "示范单位jia" {
		t.Errorf("the report speaks of another document: %+v", r)
	}
	if r.State != exchange.StateSignedFor || r.Receipts != 4 || len(r.Recipients) != 1 {
		t.Fatalf("state %s of %d receipts, %d recipients", r.State, r.Receipts, len(r.Recipients))
	}
	if to := r.Recipients[0]; to.Stage != exchange.StageSignedFor || to.Name != "示范单位yi" || to.At != strictjson.TimeOf(start) {
		t.Errorf("recipient %+v", to)
	}
}

func TestEvidenceWithoutATrustedAuthoritySaysSo(t *testing.T) {
	w := sharedWorld(t)
	r, err := Verify(w.raw, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK() || r.AuthorityTrusted || r.BytesMatch {
		t.Errorf("trusted %v, bytes match %v, problems %v", r.AuthorityTrusted, r.BytesMatch, r.Problems)
	}
	if want := sm.Sum(w.ours.directory.Authority()).String(); r.Authority != want {
		t.Errorf("fingerprint %s, want %s", r.Authority, want)
	}
}

func TestEvidenceWithoutDisclosureStillProvesReceipts(t *testing.T) {
	w := sharedWorld(t)
	f := w.copyFile(t)
	f.Disclosed = nil
	if r := w.verify(t, f); !r.OK() || !r.ReceiptsVerified || !r.LedgerVerified || r.BytesMatch {
		t.Errorf("%+v", r)
	}
}

// A recipient's export holds only the receipts about itself, so fewer
// receipts are no fault; they must then prove less.
func TestARemovedReceiptProvesNothing(t *testing.T) {
	w := sharedWorld(t)
	for _, c := range []struct {
		without int
		state   exchange.State
		stage   exchange.Stage
	}{
		{accepted, exchange.StateSignedFor, exchange.StageSignedFor},
		{delivered, exchange.StateSignedFor, exchange.StageSignedFor},
		{collected, exchange.StateSignedFor, exchange.StageSignedFor},
		{signedFor, exchange.StateInDelivery, exchange.StageCollected},
	} {
		f := w.copyFile(t)
		f.Receipts = slices.Delete(f.Receipts, c.without, c.without+1)
		r := w.verify(t, f)
		if r.Receipts != 3 || r.State != c.state || r.Recipients[0].Stage != c.stage {
			t.Errorf("without %d: %d receipts, %s, %s", c.without, r.Receipts, r.State, r.Recipients[0].Stage)
		}
	}
}

func TestWithoutAnyReceiptNothingIsVerified(t *testing.T) {
	w := sharedWorld(t)
	f := w.copyFile(t)
	f.Receipts = []Receipt{}
	r := w.verify(t, f)
	if r.ReceiptsVerified || r.LedgerVerified || r.State != exchange.StateRegistered {
		t.Errorf("%+v", r)
	}
}

// tampering is one way to spoil a file, and what the report must say of it.
type tampering struct {
	name  string
	spoil func(t *testing.T, w *world, f *File)
	says  string
}

func runTamperings(t *testing.T, list []tampering) {
	w := sharedWorld(t)
	for _, c := range list {
		t.Run(c.name, func(t *testing.T) {
			f := w.copyFile(t)
			c.spoil(t, w, f)
			r := w.verify(t, f, Sum(w.doc.body))
			if r.OK() || !strings.Contains(strings.Join(r.Problems, "\n"), c.says) {
				t.Fatalf("problems %q, want one that says %q", r.Problems, c.says)
			}
		})
	}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// flipIn changes one bit of the first occurrence of what in b.
func flipIn(t testing.TB, b []byte, what string) {
	t.Helper()
	at := strings.Index(string(b), what)
	if at < 0 {
		t.Fatalf("%q is not there to be changed", what)
	}
	b[at] ^= 1
}

func TestATamperedReceiptIsNamed(t *testing.T) {
	runTamperings(t, []tampering{
		{"ACCEPTED flipped", func(t *testing.T, _ *world, f *File) { flipIn(t, f.Receipts[accepted].CMS, `"clock":"test`) }, "receipt 0: "},
		{"DELIVERED flipped", func(t *testing.T, _ *world, f *File) {
			f.Receipts[delivered].CMS[len(f.Receipts[delivered].CMS)-1] ^= 1
		}, "receipt 1: signature_invalid"},
		{"COLLECTED flipped", func(t *testing.T, _ *world, f *File) { flipIn(t, f.Receipts[collected].CMS, "王伟") }, "receipt 2: "},
		{"SIGNED_FOR flipped", func(t *testing.T, _ *world, f *File) { flipIn(t, f.Receipts[signedFor].CMS, "yizhan-receipt") }, "receipt 3: "},
		{"SIGNED_FOR by the node", resigned(signedFor, byNode, nil), "receipt 3: signature_invalid"},
		{"SIGNED_FOR by another agency's key", resigned(signedFor, bySender, nil), "receipt 3: signature_invalid"},
		{"SIGNED_FOR by the sender for itself", resigned(signedFor, bySender, func(w *world, r *exchange.Receipt) { r.Agency = w.ours.agency["jia"] }), "may not say SIGNED_FOR here"},
		{"SIGNED_FOR in a stranger's domain", resigned(signedFor, byStranger, nil), "receipt 3: signature_invalid"},
		{"SIGNED_FOR of another domain", resigned(signedFor, byRecipient, func(_ *world, r *exchange.Receipt) { r.Domain = "other" }), "speaks of another document"},
		{"SIGNED_FOR of another id", resigned(signedFor, byRecipient, func(w *world, r *exchange.Receipt) { r.Envelope = w.second.e.Header.ID }), "speaks of another document"},
		{"SIGNED_FOR about a stranger", resigned(signedFor, byRecipient, func(w *world, r *exchange.Receipt) { r.Recipients[0] = w.ours.agency["jia"] }), "whom the header does not"},
		{"DELIVERED by the sender's node", resigned(delivered, bySendersNode, func(_ *world, r *exchange.Receipt) { r.Node = "jia" }), "node jia may not say DELIVERED here"},
		{"ACCEPTED by the recipient's node", resigned(accepted, byNode, func(_ *world, r *exchange.Receipt) { r.Node = "yi" }), "node yi may not say ACCEPTED here"},
		{"came before the certificate began", cameAt(signedFor, start.AddDate(-1, 0, 0)), "receipt 3: certificate_expired"},
		{"came after the certificate ended", cameAt(signedFor, start.AddDate(6, 0, 0)), "receipt 3: certificate_expired"},
		{"seen moved by a millisecond", func(_ *testing.T, _ *world, f *File) {
			f.Receipts[signedFor].Seen = strictjson.TimeOf(start.Add(-time.Millisecond))
		}, "receipt 3: signature_invalid: its leaf in the ledger is of another time"},
		{"receipt of another document", addSecond, "receipt 4: signature_invalid: the receipt speaks of another document"},
		{"a receipt that is none", func(_ *testing.T, _ *world, f *File) { f.Receipts[0].CMS = f.Checkpoint }, "receipt 0: "},
	})
}

var stageOf = []exchange.Stage{exchange.StageAccepted, exchange.StageDelivered, exchange.StageCollected, exchange.StageSignedFor}

func byNode(w *world) cms.Signer        { return w.ours.byNode("yi") }
func bySendersNode(w *world) cms.Signer { return w.ours.byNode("jia") }
func byRecipient(w *world) cms.Signer   { return w.ours.byAgency("yi") }
func bySender(w *world) cms.Signer      { return w.ours.byAgency("jia") }
func byStranger(w *world) cms.Signer    { return w.other.byAgency("yi") }

// resigned puts a receipt in the place of one, with a good signature by
// somebody and a true place in the ledger: only who says what is wrong.
func resigned(i int, by func(*world) cms.Signer, change func(*world, *exchange.Receipt)) func(*testing.T, *world, *File) {
	return func(t *testing.T, w *world, f *File) {
		signed := must[[]byte](t)(w.ours.says(w.doc, stageOf[i], by(w), func(r *exchange.Receipt) {
			if change != nil {
				change(w, r)
			}
		}))
		mine := &world{ours: w.ours, leaves: slices.Clone(w.leaves)}
		r := must[*Receipt](t)(mine.enter(signed))
		f.Receipts[i] = *r
		must[any](t)(nil, mine.prove(f))
	}
}

// cameAt makes the exporting node's ledger say that a receipt came at a time.
func cameAt(i int, at time.Time) func(*testing.T, *world, *File) {
	return func(t *testing.T, w *world, f *File) { came(t, w, f, i, f.Receipts[i].CMS, "receipt", at) }
}

// came puts a receipt, and a true place in the ledger, in the place of one.
func came(t *testing.T, w *world, f *File, i int, signed []byte, event string, at time.Time) {
	t.Helper()
	mine := &world{ours: w.ours, leaves: slices.Clone(w.leaves)}
	f.Receipts[i] = *must[*Receipt](t)(mine.enterAt(signed, event, at))
	must[any](t)(nil, mine.prove(f))
}

// A thief of a revoked key who also has a file cannot make his receipt older
// than the leaf that the node's signed ledger holds of it.
func TestAReceiptIsJudgedByItsLeafAndNotBySeen(t *testing.T) {
	w := sharedWorld(t)
	voided := must[[]byte](t)(w.ours.says(w.doc, exchange.StageVoided, bySender(w), func(r *exchange.Receipt) {
		r.Agency, r.Node = w.ours.agency["jia"], "jia"
	}))
	for name, c := range map[string]struct {
		leaf, seen time.Time
		ok         bool
	}{
		"before the revocation":        {revokedFrom.Add(-time.Millisecond), revokedFrom.Add(-time.Millisecond), true},
		"when it takes effect":         {revokedFrom, revokedFrom, false},
		"after it, seen moved before":  {revokedFrom.Add(48 * time.Hour), start, false},
		"before it, seen moved after":  {start, revokedFrom.Add(48 * time.Hour), false},
		"before it, seen moved before": {start, start.Add(-time.Hour), false},
	} {
		t.Run(name, func(t *testing.T) {
			f := w.copyFile(t)
			f.Directory = w.ours.revoked
			came(t, w, f, signedFor, voided, "receipt", c.leaf)
			f.Receipts[signedFor].Seen = strictjson.TimeOf(c.seen)
			if r := w.verify(t, f); r.OK() != c.ok || r.ReceiptsVerified != c.ok || !r.LedgerVerified {
				t.Errorf("receipts verified %v, ledger %v, problems %q, want %v", r.ReceiptsVerified, r.LedgerVerified, r.Problems, c.ok)
			}
		})
	}
}

// A leaf proves that this receipt of this document came, and nothing else.
func TestALeafIsOfTheReceiptsOwnEvent(t *testing.T) {
	w := sharedWorld(t)
	for _, c := range []struct {
		receipt int
		event   string
		ok      bool
	}{
		{accepted, "accepted", true}, {accepted, "delivered", false}, {accepted, "acted", false}, {accepted, "ended", true},
		{delivered, "delivered", true}, {delivered, "accepted", false}, {delivered, "deferred", true}, {delivered, "receipt", true},
		{signedFor, "acted", true}, {signedFor, "deferred", true}, {signedFor, "ended", false}, {signedFor, "conflict", false},
		{signedFor, "taken", false}, {signedFor, "handed", false}, {signedFor, "directory", false}, {signedFor, "restored", false}, {signedFor, "later", false},
		{delivered, "recall_refused", false}, {delivered, "asked", false}, {delivered, "inspected", false}, {accepted, "inspected", false}, {delivered, "relayed", false},
	} {
		f := w.copyFile(t)
		came(t, w, f, c.receipt, f.Receipts[c.receipt].CMS, c.event, start)
		if r := w.verify(t, f); r.OK() != c.ok || r.LedgerVerified != c.ok {
			t.Errorf("receipt %d, event %s: %q, want %v", c.receipt, c.event, r.Problems, c.ok)
		}
	}
	f := w.copyFile(t)
	mine := &world{ours: w.ours, leaves: slices.Clone(w.leaves)}
	leaf := must[*merkle.Leaf](t)(merkle.ParseLeaf(f.Receipts[signedFor].Leaf))
	leaf.Envelope = w.second.e.Hash.String()
	mine.leaves[f.Receipts[signedFor].Index] = must[[]byte](t)(leaf.Marshal())
	f.Receipts[signedFor].Leaf = mine.leaves[f.Receipts[signedFor].Index]
	must[any](t)(nil, mine.prove(f))
	if r := w.verify(t, f); r.OK() || !strings.Contains(strings.Join(r.Problems, "\n"), "ledger: receipt 3: the leaf is of another event") {
		t.Errorf("a leaf of another document: %q", r.Problems)
	}
}

// addSecond adds the other document's ACCEPTED, which is in the same ledger.
func addSecond(t *testing.T, w *world, f *File) {
	signed := must[[]byte](t)(w.ours.says(w.second, exchange.StageAccepted, w.ours.byNode("jia"), nil))
	f.Receipts = append(f.Receipts, Receipt{
		CMS: signed, Seen: strictjson.TimeOf(start), Index: 0, Leaf: w.leaves[0], Proof: merkle.Inclusion(w.hashes(), 0),
	})
}

func TestATamperedLedgerIsNamed(t *testing.T) {
	signed := func(change func(hashes []sm.Digest) []sm.Digest, node string, by func(*world) cms.Signer) func(*testing.T, *world, *File) {
		return func(t *testing.T, w *world, f *File) {
			f.Checkpoint = must[[]byte](t)(checkpoint(change(w.hashes()), node, by(w)))
		}
	}
	same := func(h []sm.Digest) []sm.Digest { return h }
	runTamperings(t, []tampering{
		{"checkpoint flipped in its content", func(t *testing.T, _ *world, f *File) { flipIn(t, f.Checkpoint, "01K000") }, "checkpoint: "},
		{"checkpoint flipped in its signature", func(_ *testing.T, _ *world, f *File) { f.Checkpoint[len(f.Checkpoint)-1] ^= 1 }, "checkpoint: cms: "},
		{"checkpoint signed by another node", signed(same, "jia", byNode), "not signed by node jia"},
		{"checkpoint signed by an agency", signed(same, "jia", bySender), "not signed by node jia"},
		{"checkpoint of an unknown node", signed(same, "bing", byNode), "not signed by node bing"},
		{"checkpoint of another history", signed(func(h []sm.Digest) []sm.Digest { h[0][0] ^= 1; return h }, "jia", bySendersNode), "ledger: receipt 0: "},
		{"checkpoint of a longer history", signed(func(h []sm.Digest) []sm.Digest { return append(h, sm.Sum([]byte("more"))) }, "jia", bySendersNode), "ledger: receipt 0: "},
		{"checkpoint of a shorter history", signed(func(h []sm.Digest) []sm.Digest { return h[:4] }, "jia", bySendersNode), "ledger: receipt 3: "},
		{"no checkpoint", func(_ *testing.T, _ *world, f *File) { f.Checkpoint = nil }, "checkpoint: "},
		{"a header for a checkpoint", func(_ *testing.T, w *world, f *File) { f.Checkpoint = w.doc.header }, "checkpoint: "},
		{"proof flipped", func(_ *testing.T, _ *world, f *File) { f.Receipts[delivered].Proof[1][31] ^= 0x80 }, "ledger: receipt 1: "},
		{"proof cut", func(_ *testing.T, _ *world, f *File) { f.Receipts[delivered].Proof = f.Receipts[delivered].Proof[1:] }, "ledger: receipt 1: "},
		{"proof lengthened", func(_ *testing.T, _ *world, f *File) {
			f.Receipts[delivered].Proof = append(f.Receipts[delivered].Proof, sm.Digest{})
		}, "ledger: receipt 1: "},
		{"proof of a neighbour", func(_ *testing.T, _ *world, f *File) { f.Receipts[delivered].Proof = f.Receipts[collected].Proof }, "ledger: receipt 1: "},
		{"index moved", func(_ *testing.T, _ *world, f *File) { f.Receipts[collected].Index++ }, "ledger: receipt 2: "},
		{"index beyond the end", func(_ *testing.T, _ *world, f *File) { f.Receipts[collected].Index = 1 << 40 }, "ledger: receipt 2: "},
		{"leaf changed", func(t *testing.T, _ *world, f *File) { flipIn(t, f.Receipts[accepted].Leaf, "eceipt") }, "ledger: receipt 0: "},
		{"leaf of another receipt", func(_ *testing.T, _ *world, f *File) {
			a, b := &f.Receipts[accepted], &f.Receipts[delivered]
			a.Leaf, a.Index, a.Proof = b.Leaf, b.Index, b.Proof
		}, "ledger: receipt 0: the leaf names another object"},
		{"leaf that is none", func(_ *testing.T, _ *world, f *File) { f.Receipts[accepted].Leaf = []byte("{}") }, "ledger: receipt 0: merkle: "},
	})
}

func TestATamperedHeaderDirectoryOrManifestIsNamed(t *testing.T) {
	runTamperings(t, []tampering{
		{"header of another document", func(_ *testing.T, w *world, f *File) { f.Header = w.second.header }, "receipt 0: signature_invalid: the receipt speaks of another document"},
		{"header and manifest of another document", func(_ *testing.T, w *world, f *File) {
			f.Header, f.Disclosed = w.second.header, w.second.disclosed
		}, "receipt 3: signature_invalid: the receipt speaks of another document"},
		{"header flipped in its signature", func(_ *testing.T, _ *world, f *File) { f.Header[len(f.Header)-1] ^= 1 }, "header: cms: the signature does not verify"},
		{"header that is none", func(_ *testing.T, _ *world, f *File) { f.Header = f.Checkpoint }, "header: envelope: malformed"},
		{"no header", func(_ *testing.T, _ *world, f *File) { f.Header = nil }, "header: envelope: malformed"},
		{"directory of another domain's authority", func(_ *testing.T, w *world, f *File) { f.Directory = w.other.directory.Raw() }, "directory: "},
		{"directory and authority of another domain", func(_ *testing.T, w *world, f *File) {
			f.Directory, f.Authority = w.other.directory.Raw(), w.other.directory.Authority()
		}, "directory: "},
		{"directory entry changed", func(t *testing.T, _ *world, f *File) { flipIn(t, f.Directory, "示范单位") }, "directory: "},
		{"no directory", func(_ *testing.T, _ *world, f *File) { f.Directory = nil }, "directory: "},
		{"title rewritten", func(t *testing.T, _ *world, f *File) { flipIn(t, leafOf(t, f, "document/title").Value, "试点") }, "manifest: "},
		{"file digest rewritten", func(t *testing.T, w *world, f *File) { flipIn(t, leafOf(t, f, "files/0").Value, hexOf(w.doc.body)) }, "manifest: "},
		{"salt changed", func(t *testing.T, _ *world, f *File) { leafOf(t, f, "files/0").Salt[0] ^= 1 }, "manifest: "},
		{"field renamed", func(t *testing.T, _ *world, f *File) { leafOf(t, f, "document/title").Name = "document/titlf" }, "manifest: "},
		{"field left out", func(_ *testing.T, _ *world, f *File) { f.Disclosed = f.Disclosed[1:] }, "manifest: "},
		{"fields in another order", func(_ *testing.T, _ *world, f *File) {
			f.Disclosed[0], f.Disclosed[1] = f.Disclosed[1], f.Disclosed[0]
		}, "manifest: "},
		{"nothing disclosed to compare with", func(_ *testing.T, _ *world, f *File) { f.Disclosed = nil }, "files: the evidence discloses no manifest"},
	})
}

func hexOf(b []byte) string { return sm.Sum(b).String() }

func leafOf(t *testing.T, f *File, name string) *Leaf {
	t.Helper()
	for i := range f.Disclosed {
		if f.Disclosed[i].Name == name {
			return &f.Disclosed[i]
		}
	}
	t.Fatalf("%s is not disclosed", name)
	return nil
}

// A forger who brings his own authority is caught by the fingerprint alone;
// with our header he cannot even make his own file whole.
func TestAStrangersDirectoryDoesNotCarryOurHeader(t *testing.T) {
	w := sharedWorld(t)
	f := w.copyFile(t)
	f.Directory, f.Authority = w.other.directory.Raw(), w.other.directory.Authority()
	b := must[[]byte](t)(f.Marshal())
	r := must[*Report](t)(Verify(b, nil, nil))
	if r.OK() || !strings.Contains(r.Problems[0], "header: not signed with a certificate of") || r.AuthorityTrusted || r.ReceiptsVerified {
		t.Errorf("%+v", r)
	}
}

func TestDeliveredFilesMustBeExactlyTheSealedOnes(t *testing.T) {
	w := sharedWorld(t)
	good := Sum(w.doc.body)
	changed := Sum(append(slices.Clone(w.doc.body[:len(w.doc.body)-1]), 0))
	shorter := good
	shorter.Size--
	for _, c := range []struct {
		name  string
		given []Delivered
		says  string
	}{
		{"changed", []Delivered{changed}, "files: sealed file 0 is not among the delivered ones"},
		{"another size", []Delivered{shorter}, "files: sealed file 0 is not among the delivered ones"},
		{"one more", []Delivered{good, changed}, "files: a delivered file was not sealed in this document"},
		{"the same twice", []Delivered{good, good}, "files: a delivered file was not sealed in this document"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := w.verify(t, w.copyFile(t), c.given...)
			if r.OK() || r.BytesMatch || !slices.Contains(r.Problems, c.says) {
				t.Errorf("match %v, problems %q", r.BytesMatch, r.Problems)
			}
		})
	}
	renamed := good
	renamed.Name = "下载 (1).ofd"
	if r := w.verify(t, w.copyFile(t), renamed); !r.BytesMatch {
		t.Errorf("a file under another name: %q", r.Problems)
	}
}

func TestParseRefusesOtherObjects(t *testing.T) {
	w := sharedWorld(t)
	for name, change := range map[string]func(b string) string{
		"another type":      func(b string) string { return strings.Replace(b, FileType, "yizhan-receipt", 1) },
		"another version":   func(b string) string { return strings.Replace(b, `"v":1`, `"v":2`, 1) },
		"a critical member": func(b string) string { return strings.Replace(b, `"v":1`, `"v":1,"crit":["seal"]`, 1) },
		"white space":       func(b string) string { return b + "\n" },
		"a truncated file":  func(b string) string { return b[:len(b)-1] },
		"two files":         func(b string) string { return b + b },
		"a member twice":    func(b string) string { return strings.Replace(b, `"v":1`, `"v":1,"v":1`, 1) },
		"members misordered": func(b string) string {
			return strings.Replace(b, `"type":"yizhan-evidence","v":1`, `"v":1,"type":"yizhan-evidence"`, 1)
		},
		"nothing": func(string) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			spoiled := change(string(w.raw))
			if _, err := Parse([]byte(spoiled)); exchange.CodeOf(err) != exchange.CodeBadRequest {
				t.Errorf("got %v, want %s", err, exchange.CodeBadRequest)
			}
			if _, err := Verify([]byte(spoiled), nil, nil); err == nil {
				t.Error("Verify reads what Parse does not")
			}
		})
	}
	if _, err := Parse(make([]byte, MaxFile+1)); exchange.CodeOf(err) != exchange.CodeTooLarge {
		t.Errorf("too large: %v", err)
	}
}

// TestALeafOfAFerryProvesItsStageAlone: one of FERRIED is none of CONFIRMED, and neither of
// anything else.
func TestALeafOfAFerryProvesItsStageAlone(t *testing.T) {
	for _, stage := range []exchange.Stage{exchange.StageFerried, exchange.StageConfirmed, exchange.StageDelivered, exchange.StageSignedFor} {
		if proves("ferried", stage) != (stage == exchange.StageFerried) || proves("confirmed", stage) != (stage == exchange.StageConfirmed) {
			t.Errorf("a leaf proves %s", stage)
		}
		if !proves("receipt", stage) {
			t.Errorf("%s that came from elsewhere is not proven", stage)
		}
	}
}
