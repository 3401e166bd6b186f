// Package evidence is the proof file of one document: everything needed to
// verify, offline and without any private key, that the document was sent,
// what its receipts say and who signed them, and that the delivered files are
// the ones that were sealed (promise I3; docs/spec/evidence-v1.md).
//
// The package knows no store: node gathers a [File], anybody verifies it.
package evidence

import (
	"fmt"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// File is an evidence file, version 1.
type File struct {
	Type       string    `json:"type"`
	V          int       `json:"v"`
	Crit       []string  `json:"crit,omitempty"`
	Domain     string    `json:"domain"`
	Authority  []byte    `json:"authority"` // certificate of the domain's authority, for comparison by fingerprint
	Directory  []byte    `json:"directory"` // the directory file in force at export
	Header     []byte    `json:"header"`
	Disclosed  []Leaf    `json:"disclosed,omitempty"` // manifest fields and files with their salts
	Receipts   []Receipt `json:"receipts"`
	Checkpoint []byte    `json:"checkpoint"`
	Timestamp  []byte    `json:"timestamp,omitempty"` // RFC 3161 token over the checkpoint
	CRLs       [][]byte  `json:"crls,omitempty"`      // revocation lists of issuers, as the exporting node had them
	Extra      strictjson.Extra
}

// Leaf discloses one field or file of the manifest.
type Leaf struct {
	Name  string         `json:"name"`
	Salt  sm.Digest      `json:"salt"`
	Value strictjson.Raw `json:"value"`
	Extra strictjson.Extra
}

// Receipt is a receipt with its place in the exporting node's ledger. Seen is
// when that node first received it: signatures are judged at that time. It is
// the leaf's own time, to which the checkpoint's signature holds the node.
type Receipt struct {
	CMS   []byte          `json:"cms"`
	Seen  strictjson.Time `json:"seen"`
	Index uint64          `json:"index"`
	Leaf  []byte          `json:"leaf"`
	Proof []sm.Digest     `json:"proof"`
	Extra strictjson.Extra
}

// FileType is the "type" member; MaxFile bounds an evidence file, bytes.
const (
	FileType = "yizhan-evidence"
	MaxFile  = 96 << 20
)

// Marshal gives the one encoding.
func (f *File) Marshal() ([]byte, error) {
	f.Type, f.V = FileType, 1
	return strictjson.Marshal(f)
}

// Parse reads the one encoding; nothing is verified yet.
func Parse(b []byte) (*File, error) {
	if len(b) > MaxFile {
		return nil, exchange.Fail(exchange.CodeTooLarge, "evidence: %d bytes, at most %d are possible", len(b), MaxFile)
	}
	var f File
	if err := strictjson.Unmarshal(b, &f); err != nil {
		return nil, &exchange.Error{Code: exchange.CodeBadRequest, Detail: "not an evidence file", Err: err}
	}
	if f.Type != FileType || f.V != 1 {
		return nil, exchange.Fail(exchange.CodeBadRequest, "not an evidence file of version 1")
	}
	return &f, nil
}

// Delivered is a file as it was received, to be compared with what was sealed.
type Delivered struct {
	Name string
	Size int64
	SM3  sm.Digest
}

// Report is the result of verifying an evidence file. BytesMatch is true only
// when delivered files were given and each is one that was sealed, and all
// that was sealed is there.
type Report struct {
	Document         string                    `json:"document"`
	Header           sm.Digest                 `json:"header"`
	Sender           string                    `json:"sender"`
	SenderName       string                    `json:"sender_name"`
	State            exchange.State            `json:"state"`
	Recipients       []exchange.RecipientState `json:"recipients"`
	Receipts         int                       `json:"receipts"`
	ReceiptsVerified bool                      `json:"receipts_verified"`
	LedgerVerified   bool                      `json:"ledger_verified"`
	Timestamp        string                    `json:"timestamp"`    // when the checkpoint existed, proven; empty when nothing proves it
	TimePending      bool                      `json:"time_pending"` // a timestamp authority is named, and has not stamped it yet
	BytesMatch       bool                      `json:"bytes_match"`
	Authority        string                    `json:"authority"` // fingerprint: SM3 of the certificate
	AuthorityTrusted bool                      `json:"authority_trusted"`
	Problems         []string                  `json:"problems"`
}

// OK says whether nothing is wrong.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

func (r *Report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// Verify checks an evidence file. authority is the certificate (DER) of the
// domain's authority from a source the verifier trusts; without it the one in
// the file is used and AuthorityTrusted is false: compare the fingerprint with
// the authority by other means. An error means that the file cannot be read;
// what does not verify is a problem in the Report.
func Verify(b, authority []byte, delivered []Delivered) (*Report, error) {
	f, err := Parse(b)
	if err != nil {
		return nil, err
	}
	r := &Report{AuthorityTrusted: authority != nil, Problems: []string{}}
	if authority == nil {
		authority = f.Authority
	}
	r.Authority = sm.Sum(authority).String()
	v := &verifier{f: f, r: r}
	if !v.directory(authority) || !v.header() {
		return r, nil
	}
	v.receipts()
	v.ledger()
	v.files(delivered)
	return r, nil
}

type verifier struct {
	f            *File
	r            *Report
	d            *certs.Directory
	e            *envelope.Envelope
	headerSigned bool // by the sender, whenever that was
}

func (v *verifier) directory(authority []byte) bool {
	d, err := certs.LoadDirectory(v.f.Directory, authority, 0, v.exported())
	if err != nil {
		v.r.problem("directory: %v", err)
		return false
	}
	v.d = v.withCRLs(d)
	return true
}

// exported is the newest time the file itself names.
func (v *verifier) exported() time.Time {
	var newest strictjson.Time
	for _, r := range v.f.Receipts {
		newest = max(newest, r.Seen)
	}
	return newest.Time()
}

func (v *verifier) header() bool {
	e, err := envelope.ParseHeader(v.f.Header)
	if err != nil {
		v.r.problem("header: %v", err)
		return false
	}
	v.e = e
	v.r.Document, v.r.Header, v.r.Sender = e.Header.ID, e.Hash, e.Header.Sender
	sender, ok := v.d.Agency(e.Header.Sender)
	if !ok {
		v.r.problem("header: the sender %s is not in the directory", e.Header.Sender)
		return false
	}
	v.r.SenderName = sender.Name
	if !sender.Holds("sign", e.SignerCertificate()) {
		v.r.problem("header: not signed with a certificate of %s", e.Header.Sender)
	} else if err := e.Verify(e.SignerCertificate()); err != nil {
		v.r.problem("header: %v", err)
	} else {
		v.headerSigned = true
	}
	return true
}

// receipts verifies each receipt and folds the good ones.
func (v *verifier) receipts() {
	var good []*exchange.Receipt
	for i := range v.f.Receipts {
		body, err := v.receipt(&v.f.Receipts[i])
		if err != nil {
			v.r.problem("receipt %d: %v", i, err)
			continue
		}
		good = append(good, body)
	}
	v.headerSigner(good)
	v.r.Receipts = len(v.f.Receipts)
	v.r.ReceiptsVerified = len(good) == len(v.f.Receipts) && len(good) > 0
	v.r.State, v.r.Recipients = exchange.Fold(exchange.Recipients(v.e), good)
	for i := range v.r.Recipients {
		if a, ok := v.d.Agency(v.r.Recipients[i].Agency); ok {
			v.r.Recipients[i].Name = a.Name
		}
	}
}

func (v *verifier) receipt(r *Receipt) (*exchange.Receipt, error) {
	signed, err := cms.Parse(r.CMS, exchange.MaxReceiptCMS)
	if err != nil {
		return nil, err
	}
	body, err := exchange.ParseReceipt(signed.Content)
	if err != nil {
		return nil, err
	}
	leaf, err := merkle.ParseLeaf(r.Leaf)
	if err != nil {
		return nil, err
	}
	// The leaf is in the ledger that the node signed, and seen is not: were it
	// judged by, whoever holds the file could move it to before a revocation.
	if r.Seen != leaf.At {
		return nil, exchange.Fail(exchange.CodeSignatureInvalid, "its leaf in the ledger is of another time than seen says")
	}
	return body, exchange.Judge(v.d, v.e, body, signed, leaf.At.Time())
}

// ledger checks the signed checkpoint and each receipt's leaf in its tree.
func (v *verifier) ledger() {
	cp, err := v.checkpoint()
	if err != nil {
		v.r.problem("checkpoint: %v", err)
		return
	}
	ok := true
	for i := range v.f.Receipts {
		if err := v.leaf(&v.f.Receipts[i], cp); err != nil {
			v.r.problem("ledger: receipt %d: %v", i, err)
			ok = false
		}
	}
	v.r.LedgerVerified = ok && len(v.f.Receipts) > 0
}

func (v *verifier) checkpoint() (*merkle.Checkpoint, error) {
	signed, err := cms.Parse(v.f.Checkpoint, exchange.MaxCheckpointCMS)
	if err != nil {
		return nil, err
	}
	cp, err := merkle.ParseCheckpoint(signed.Content)
	if err != nil {
		return nil, err
	}
	stamped := v.stamp()
	if err := v.checkpointSigner(signed, cp, stamped); err != nil {
		return nil, err
	}
	return cp, signed.Verify(signed.Certificate)
}

func (v *verifier) leaf(r *Receipt, cp *merkle.Checkpoint) error {
	leaf, err := merkle.ParseLeaf(r.Leaf)
	if err != nil {
		return err
	}
	signed, err := cms.Parse(r.CMS, exchange.MaxReceiptCMS)
	if err != nil {
		return err
	}
	if leaf.Object != signed.ID() {
		return fmt.Errorf("the leaf names another object")
	}
	body, err := exchange.ParseReceipt(signed.Content)
	if err != nil {
		return err
	}
	if leaf.Envelope != body.Header.String() || !proves(leaf.Event, body.Stage) {
		return fmt.Errorf("the leaf is of another event than that this receipt of its document came")
	}
	return merkle.VerifyInclusion(merkle.LeafHash(r.Leaf), r.Index, cp.Size, r.Proof, cp.Root)
}

// proves says whether a leaf of an event is one for a receipt of a stage
// (docs/spec/ledger-v1.md).
func proves(event string, stage exchange.Stage) bool {
	switch event {
	case "accepted":
		return stage == exchange.StageAccepted
	case "delivered":
		return stage == exchange.StageDelivered
	case "relayed":
		return stage == exchange.StageRelayed
	case "acted":
		return stage.ByAgency()
	case "inspected":
		return stage == exchange.StageInspected
	case "ferried":
		return stage == exchange.StageFerried
	case "confirmed":
		return stage == exchange.StageConfirmed
	case "recall_refused":
		return stage == exchange.StageRecallRefused
	case "ended", "conflict":
		return !stage.ByAgency()
	}
	return event == "receipt" || event == "deferred"
}

// files compares delivered files with the disclosed manifest.
func (v *verifier) files(delivered []Delivered) {
	if len(v.f.Disclosed) == 0 {
		if len(delivered) > 0 {
			v.r.problem("files: the evidence discloses no manifest to compare with")
		}
		return
	}
	leaves := make([]envelope.Leaf, len(v.f.Disclosed))
	for i, l := range v.f.Disclosed {
		leaves[i] = envelope.Leaf{Name: l.Name, Salt: l.Salt, Value: l.Value}
	}
	if err := envelope.VerifyDisclosure(&v.e.Header, leaves); err != nil {
		v.r.problem("manifest: %v", err)
		return
	}
	sealed, err := sealedFiles(leaves)
	if err != nil {
		v.r.problem("manifest: %v", err)
		return
	}
	if len(delivered) > 0 {
		v.compare(sealed, delivered)
	}
}

func sealedFiles(leaves []envelope.Leaf) ([]envelope.FileInfo, error) {
	var out []envelope.FileInfo
	for _, l := range leaves {
		if len(l.Name) < 6 || l.Name[:6] != "files/" {
			continue
		}
		var f envelope.FileInfo
		if err := strictjson.Unmarshal(l.Value, &f); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// compare pairs files by content; names may have been changed on the way to
// the disk.
func (v *verifier) compare(sealed []envelope.FileInfo, delivered []Delivered) {
	ok := true
	for i, f := range sealed {
		at := slices.IndexFunc(delivered, func(d Delivered) bool { return d.SM3 == f.SM3 && d.Size == f.Size })
		if at < 0 {
			v.r.problem("files: sealed file %d is not among the delivered ones", i)
			ok = false
			continue
		}
		delivered = slices.Delete(slices.Clone(delivered), at, at+1)
	}
	for range delivered {
		v.r.problem("files: a delivered file was not sealed in this document")
		ok = false
	}
	v.r.BytesMatch = ok
}

// Sum describes delivered bytes.
func Sum(content []byte) Delivered {
	return Delivered{Size: int64(len(content)), SM3: sm.Sum(content)}
}
