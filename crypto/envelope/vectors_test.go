package envelope

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/emmansun/gmsm/sm2"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

var update = flag.Bool("update", false, "write testdata anew")

var vectorPath = filepath.Join("testdata", "envelope-v1.json")

// vectorFile is testdata/envelope-v1.json; crypto/sm/testdata/README.md says
// what its members mean to another implementation.
type vectorFile struct {
	About    string    `json:"about"`
	Agencies []*agency `json:"agencies"`
	Vectors  []*vector `json:"vectors"`
}

// agency is one party; its keys exist for this file only.
type agency struct {
	Name        string `json:"name"`
	Code        string `json:"code"`
	SignCert    []byte `json:"sign_certificate"`
	SignKey     []byte `json:"sign_key"`
	EncryptCert []byte `json:"encrypt_certificate"`
	EncryptKey  []byte `json:"encrypt_key"`
}

func (a *agency) unwrap(slot []byte) ([]byte, error) {
	key, err := sm2.NewPrivateKey(a.EncryptKey)
	if err != nil {
		return nil, err
	}
	return sm.Decrypt(key, slot)
}

// vector is one envelope as it reaches its readers.
type vector struct {
	Name    string   `json:"name"`
	Comment string   `json:"comment"`
	Result  string   `json:"result"` // valid or invalid
	Class   string   `json:"class,omitempty"`
	Step    string   `json:"step,omitempty"` // the one that refuses
	Opens   []reads  `json:"opens"`
	Header  []byte   `json:"header"`
	Slots   [][]byte `json:"slots"`
	Payload payload  `json:"payload"`
	Inside  *inside  `json:"inside,omitempty"`
}

// reads says which agency opens the envelope with which slot.
type reads struct {
	Agency string `json:"agency"`
	Slot   int    `json:"slot"`
}

// payload is the stored ciphertext: the pieces one after the other, or, where
// there are none, what sealing the inside gives.
type payload struct {
	Size   int       `json:"size"`
	SM3    sm.Digest `json:"sm3"`
	Pieces []piece   `json:"pieces,omitempty"`
}

// piece is bytes, or a range of the ciphertext of another vector.
type piece struct {
	Bytes  []byte `json:"bytes,omitempty"`
	Of     string `json:"of,omitempty"`
	From   int    `json:"from,omitempty"`
	Length int    `json:"length,omitempty"`
}

// inside is what a valid envelope is made of.
type inside struct {
	FileKey    string      `json:"file_key"`
	Salt       sm.Digest   `json:"salt"`
	SM4Key     string      `json:"sm4_key"`
	Prefix     string      `json:"nonce_prefix"`
	Commitment sm.Digest   `json:"commitment"`
	HeaderJSON string      `json:"header_json"`
	HeaderHash sm.Digest   `json:"header_hash"`
	Files      []content   `json:"files"`
	Manifest   string      `json:"manifest"`
	Leaves     []sm.Digest `json:"leaves"`
	Parts      []sm.Digest `json:"parts"`
	Root       sm.Digest   `json:"root"`
	Fields     []committed `json:"fields"`
	Commits    sm.Digest   `json:"fields_root"`
}

// content is one file: its bytes, or length bytes of which byte i is i mod 251.
type content struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Bytes  []byte `json:"bytes,omitempty"`
	Length int    `json:"length,omitempty"`
}

func (c *content) all() []byte {
	if c.Length == 0 {
		return c.Bytes
	}
	b := make([]byte, c.Length)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

// committed is one leaf of the field commitment.
type committed struct {
	Name  string    `json:"name"`
	Salt  sm.Digest `json:"salt"`
	Value string    `json:"value"`
	Hash  sm.Digest `json:"hash"`
}

func (f *vectorFile) agency(match func(*agency) bool) *agency {
	if i := slices.IndexFunc(f.Agencies, match); i >= 0 {
		return f.Agencies[i]
	}
	return &agency{}
}

func (f *vectorFile) vector(name string) *vector {
	return f.Vectors[slices.IndexFunc(f.Vectors, func(v *vector) bool { return v.Name == name })]
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ciphertext puts the stored payload together.
func (f *vectorFile) ciphertext(t *testing.T, v *vector) []byte {
	t.Helper()
	var out []byte
	if v.Inside != nil && len(v.Payload.Pieces) == 0 {
		s, err := sm.NewStream(unhex(t, v.Inside.SM4Key), unhex(t, v.Inside.Prefix))
		if err != nil {
			t.Fatal(err)
		}
		out = inOrder(s, v.Inside.plain())
	}
	for _, p := range v.Payload.Pieces {
		if p.Of != "" {
			p.Bytes = f.ciphertext(t, f.vector(p.Of))[p.From : p.From+p.Length]
		}
		out = append(out, p.Bytes...)
	}
	if len(out) != v.Payload.Size || sm.Sum(out) != v.Payload.SM3 {
		t.Fatalf("%s: the payload cannot be put together", v.Name)
	}
	return out
}

func (in *inside) plain() []byte {
	var out []byte
	for i := range in.Files {
		out = append(out, in.Files[i].all()...)
	}
	return append(out, in.Manifest...)
}

// judge takes an envelope through the steps of the specification and gives
// the one that refuses it.
func (f *vectorFile) judge(ctx context.Context, v *vector, stored []byte, r reads) (step string, o *Opened, err error) {
	src := &memory{[][]byte{stored}}
	e, err := ParseHeader(v.Header)
	if err != nil {
		return "header", nil, err
	}
	sender := f.agency(func(a *agency) bool { return a.Code == e.Header.Sender })
	if err := e.Verify(sender.SignCert); err != nil {
		return "signature", nil, err
	}
	if err := e.VerifySlot(r.Slot, v.Slots[r.Slot]); err != nil {
		return "slot", nil, err
	}
	if err := VerifyPayload(ctx, e, src); err != nil {
		return "payload", nil, err
	}
	reader := f.agency(func(a *agency) bool { return a.Name == r.Agency })
	if o, err = Open(ctx, e, reader.unwrap, v.Slots[r.Slot], src); err != nil {
		return "open", nil, err
	}
	for i := range o.Manifest.Files {
		if err := readFile(ctx, o, i, io.Discard); err != nil {
			return "open", nil, err
		}
	}
	return "document", o, contradiction(&e.Header, o.Manifest)
}

func readFile(ctx context.Context, o *Opened, i int, into io.Writer) error {
	r, err := o.File(ctx, i)
	if err != nil {
		return err
	}
	_, err = io.Copy(into, r)
	return errors.Join(err, r.Close())
}

// contradiction is the last step, which lies with whoever uses this package:
// what the document says of its routing is what the header says.
func contradiction(h *Header, m *Manifest) error {
	inner, outer := map[string]string{}, map[string]string{}
	for _, of := range []struct {
		raw  strictjson.Raw
		into map[string]string
	}{{m.Document, inner}, {h.Routing, outer}} {
		members, err := strictjson.ObjectMembers(of.raw)
		if err != nil {
			return err
		}
		for _, member := range members {
			of.into[member.Name] = string(member.Value)
		}
	}
	outer["sender"], outer["to"] = fmt.Sprintf("%q", h.Sender), addressed(h)
	for _, name := range []string{"sender", "to", "label", "kind", "urgency"} {
		if inner[name] != outer[name] {
			return fmt.Errorf("%s: %s in the document, %s in the header", name, inner[name], outer[name])
		}
	}
	return nil
}

// addressed is the member "to" that a document for the header's recipients has.
func addressed(h *Header) string {
	var b bytes.Buffer
	for _, s := range h.Recipients {
		if s.Role == RoleRecipient {
			fmt.Fprintf(&b, `,{"agency":%q}`, s.Agency)
		}
	}
	return "[" + b.String()[min(1, b.Len()):] + "]"
}

// committedVectors reads the file, after writing it when asked to, and fails
// when it is not what the generator gives.
func committedVectors(t *testing.T) *vectorFile {
	t.Helper()
	b, err := json.MarshalIndent(makeVectors(t), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, '\n')
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorPath, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(vectorPath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, b) {
		t.Errorf("%s is made differently now: a change of the format is a version 2", vectorPath)
	}
	f := new(vectorFile)
	if err := json.Unmarshal(have, f); err != nil {
		t.Fatal(err)
	}
	return f
}

// Every envelope is accepted or refused, at the step that its vector names.
func TestEnvelopesAreJudgedAsTheVectorsSay(t *testing.T) {
	f := committedVectors(t)
	seen, classes, valid := map[string]bool{}, map[string]bool{}, 0
	for _, v := range f.Vectors {
		if seen[v.Name] || len(v.Opens) == 0 {
			t.Errorf("%s stands twice or is opened by nobody", v.Name)
		}
		seen[v.Name], classes[v.Class] = true, true
		stored := f.ciphertext(t, v)
		for _, r := range v.Opens {
			step, o, err := f.judge(t.Context(), v, stored, r)
			if v.Result == "valid" {
				valid++
				v.compare(t, o, err)
				continue
			}
			v.compareRefusal(t, step, err)
		}
	}
	for _, c := range []string{
		"SLOT_OF_ANOTHER", "HEADER_ID_CHANGED", "COMMITMENT_CHANGED", "LAST_FLAG_MISSING", "TRUNCATED",
		"CHUNKS_REORDERED", "LABEL_DIFFERS", "RESIGNED_BY_ANOTHER", "TRAILING_BYTES",
	} {
		if !classes[c] {
			t.Errorf("no vector of class %s", c)
		}
	}
	if valid < 8 {
		t.Errorf("%d openings of valid envelopes", valid)
	}
}

func (v *vector) compareRefusal(t *testing.T, step string, err error) {
	t.Helper()
	if err == nil || step != v.Step {
		t.Errorf("%s: %v at step %s, want %s at step %s", v.Name, err, step, v.Class, v.Step)
	}
	if step == "open" && err != nil && err.Error() != ErrOpen.Error() {
		t.Errorf("%s: %v tells more than that it does not open", v.Name, err)
	}
}

// compare checks what a valid envelope holds.
func (v *vector) compare(t *testing.T, o *Opened, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", v.Name, err)
		return
	}
	e, err := ParseHeader(v.Header)
	if err != nil || e.Hash != v.Inside.HeaderHash || sm.Sum([]byte(v.Inside.HeaderJSON)) != e.Hash {
		t.Errorf("%s: the header hash is %s, %v", v.Name, e.Hash, err)
	}
	if err := e.VerifyParts(v.Inside.Parts); err != nil {
		t.Errorf("%s: %v", v.Name, err)
	}
	if m, err := strictjson.Marshal(o.Manifest); err != nil || string(m) != v.Inside.Manifest {
		t.Errorf("%s: the manifest is %s, %v", v.Name, m, err)
	}
	for i := range v.Inside.Files {
		var got bytes.Buffer
		if err := readFile(t.Context(), o, i, &got); err != nil || !bytes.Equal(got.Bytes(), v.Inside.Files[i].all()) {
			t.Errorf("%s: file %d: %v", v.Name, i, err)
		}
	}
	leaves, err := o.Disclose()
	if err != nil || len(leaves) != len(v.Inside.Fields) || VerifyDisclosure(&e.Header, leaves) != nil {
		t.Fatalf("%s: %d leaves, %v", v.Name, len(leaves), err)
	}
	for i, l := range leaves {
		if want := v.Inside.Fields[i]; l.Name != want.Name || l.Salt != want.Salt || string(l.Value) != want.Value {
			t.Errorf("%s: leaf %d is %s", v.Name, i, l.Name)
		}
	}
}
