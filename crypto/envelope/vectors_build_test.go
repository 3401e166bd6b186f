package envelope

import (
	"bytes"
	"cmp"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// The vectors are not made by Seal but once more from the specification, so
// that a sender can be given every fault; Seal must then make the valid ones.

func seeded(label string) *rand.ChaCha8 {
	return rand.NewChaCha8(sm.Sum([]byte("yizhan envelope vectors: " + label)))
}

func newAgency(t *testing.T, name, code string) *agency {
	t.Helper()
	r := seeded("agency " + name)
	a := &agency{Name: name, Code: code}
	a.SignCert, a.SignKey = issue(t, r, name, smx509.KeyUsageDigitalSignature|smx509.KeyUsageContentCommitment)
	a.EncryptCert, a.EncryptKey = issue(t, r, name, smx509.KeyUsageKeyEncipherment|smx509.KeyUsageDataEncipherment)
	return a
}

func issue(t *testing.T, r io.Reader, name string, usage smx509.KeyUsage) (cert, key []byte) {
	t.Helper()
	k, err := sm.GenerateKey(r)
	if err != nil {
		t.Fatal(err)
	}
	template := &smx509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, KeyUsage: usage,
		NotBefore: when.AddDate(-1, 0, 0), NotAfter: when.AddDate(9, 0, 0),
	}
	if cert, err = smx509.CreateCertificate(r, template, template, &k.PublicKey, k); err != nil {
		t.Fatal(err)
	}
	return cert, k.D.FillBytes(make([]byte, 32))
}

func (a *agency) Certificate() []byte { return a.SignCert }

func (a *agency) Sign(msg []byte) ([]byte, error) {
	key, err := sm2.NewPrivateKey(a.SignKey)
	if err != nil {
		return nil, err
	}
	return sm.Sign(seeded("signature"), key, msg)
}

// target is one entry of the header's recipients.
type target struct {
	*agency
	role Role
}

// draft is an envelope before it is sealed. The functions are what a wrong
// sender does otherwise; nil is the right way.
type draft struct {
	seed    string // drafts of one seed have the same keys
	id      string
	from    *agency
	by      *agency // signs; nil is from
	to      []target
	routing string
	meta    string // the document
	files   []content

	keySize  int // of the file key; 0 is 32
	wrapped  func(slot int, fileKey []byte) []byte
	manifest func(*Manifest)
	commits  func(*Manifest)
	seal     func(s *sm.Stream, plain []byte) []byte
	slots    func([][]byte)
	header   func(*Header)
	json     func(string) string
}

// built is what the draft becomes.
type built struct {
	header   []byte
	slots    [][]byte
	payload  []byte
	content  string
	manifest string
	fileKey  []byte
	salt     sm.Digest
	material []byte
	fields   []committed
	h        Header
}

// chunks is the plaintext cut for sealing.
func chunks(plain []byte) (list [][]byte) {
	for len(plain) > sm.ChunkPlain {
		list, plain = append(list, plain[:sm.ChunkPlain]), plain[sm.ChunkPlain:]
	}
	return append(list, plain)
}

// inOrder seals as the specification says.
func inOrder(s *sm.Stream, plain []byte) (out []byte) {
	list := chunks(plain)
	for i, c := range list {
		out = s.SealChunk(out, c, uint32(i), i == len(list)-1)
	}
	return out
}

func (d *draft) build(t *testing.T) *built {
	t.Helper()
	r := seeded(d.seed)
	b := &built{fileKey: make([]byte, cmp.Or(d.keySize, 32))}
	_, _ = r.Read(b.fileKey)
	_, _ = r.Read(b.salt[:])
	b.material = sm.HKDF(b.fileKey, b.salt[:], []byte("yizhan/v1/payload"+d.id+d.from.Code), 55)
	b.h = Header{
		Type: "yizhan-envelope", V: 1, Domain: "vectors", ID: d.id, Directory: 7, Sender: d.from.Code,
		Routing: strictjson.Raw(d.routing), Salt: b.salt, Commitment: sm.Digest(b.material[23:]),
	}
	b.wrap(t, d, r)
	b.encrypt(t, d)
	if d.header != nil {
		d.header(&b.h)
	}
	b.sign(t, d)
	return b
}

func (b *built) wrap(t *testing.T, d *draft, r io.Reader) {
	t.Helper()
	for i, to := range d.to {
		key := b.fileKey
		if d.wrapped != nil {
			key = d.wrapped(i, key)
		}
		cert, err := smx509.ParseCertificate(to.EncryptCert)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := sm.ParsePublicKey(cert.RawSubjectPublicKeyInfo[len(cert.RawSubjectPublicKeyInfo)-65:])
		if err != nil {
			t.Fatal(err)
		}
		slot, err := sm.Encrypt(r, pub, key)
		if err != nil {
			t.Fatal(err)
		}
		b.slots = append(b.slots, slot)
	}
	if d.slots != nil {
		d.slots(b.slots)
	}
	for i, to := range d.to {
		b.h.Recipients = append(b.h.Recipients, Slot{
			Agency: to.Code, Role: to.role, Certificate: sm.Sum(to.EncryptCert), Slot: sm.Sum(b.slots[i]),
		})
	}
}

func (b *built) encrypt(t *testing.T, d *draft) {
	t.Helper()
	m := Manifest{Type: "yizhan-manifest", V: 1, Domain: "vectors", Envelope: d.id, Document: strictjson.Raw(d.meta)}
	var plain []byte
	for i := range d.files {
		role, all := RoleBody, d.files[i].all()
		if i > 0 {
			role = RoleAttachment
		}
		m.Files = append(m.Files, FileInfo{Role: role, Name: d.files[i].Name, Type: d.files[i].Type, Size: int64(len(all)), SM3: sm.Sum(all)})
		plain = append(plain, all...)
	}
	offset := int64(len(plain))
	if d.manifest != nil {
		d.manifest(&m)
	}
	text, err := strictjson.Marshal(&m)
	if err != nil {
		t.Fatal(err)
	}
	b.manifest, plain = string(text), append(plain, text...)
	s, err := sm.NewStream(b.material[:16], b.material[16:23])
	if err != nil {
		t.Fatal(err)
	}
	seal := inOrder
	if d.seal != nil {
		seal = d.seal
	}
	b.payload = seal(s, plain)
	b.h.Payload = Payload{Size: int64(len(b.payload)), Manifest: offset, Root: merkle.Root(leavesOf(b.payload))}
	if d.commits != nil {
		d.commits(&m)
	}
	b.commit(t, &m)
}

// leavesOf hashes the pieces of 1 MiB.
func leavesOf(payload []byte) (list []sm.Digest) {
	for len(payload) > 1<<20 {
		list, payload = append(list, merkle.LeafHash(payload[:1<<20])), payload[1<<20:]
	}
	return append(list, merkle.LeafHash(payload))
}

// partsOf gives the root of every eight leaves.
func partsOf(leaves []sm.Digest) (list []sm.Digest) {
	for len(leaves) > 8 {
		list, leaves = append(list, merkle.Root(leaves[:8])), leaves[8:]
	}
	return append(list, merkle.Root(leaves))
}

func (b *built) commit(t *testing.T, m *Manifest) {
	t.Helper()
	members, err := strictjson.ObjectMembers(m.Document)
	if err != nil {
		t.Fatal(err)
	}
	for _, member := range members {
		b.leaf("document/"+member.Name, string(member.Value))
	}
	for i := range m.Files {
		value, err := strictjson.Marshal(&m.Files[i])
		if err != nil {
			t.Fatal(err)
		}
		b.leaf(fmt.Sprintf("files/%d", i), string(value))
	}
	hashes := make([]sm.Digest, len(b.fields))
	for i, f := range b.fields {
		hashes[i] = f.Hash
	}
	b.h.Fields = merkle.Root(hashes)
}

func (b *built) leaf(name, value string) {
	info := binary.BigEndian.AppendUint32([]byte("yizhan/v1/field"), uint32(len(b.fields)))
	salt := sm.HKDF(b.fileKey, b.salt[:], info, 32)
	data := append(binary.BigEndian.AppendUint16(bytes.Clone(salt), uint16(len(name))), name+value...)
	b.fields = append(b.fields, committed{name, sm.Digest(salt), value, merkle.LeafHash(data)})
}

func (b *built) sign(t *testing.T, d *draft) {
	t.Helper()
	content, err := strictjson.Marshal(&b.h)
	if err != nil {
		t.Fatal(err)
	}
	b.content = string(content)
	if d.json != nil {
		b.content = d.json(b.content)
	}
	by := d.by
	if by == nil {
		by = d.from
	}
	if b.header, err = cms.Sign(by, []byte(b.content), when); err != nil {
		t.Fatal(err)
	}
}

// oldSignature signs nothing: it repeats a signature over something else.
type oldSignature struct {
	*agency
	signature []byte
}

func (o oldSignature) Sign([]byte) ([]byte, error) { return o.signature, nil }

// inside lists what the envelope is made of.
func (b *built) inside(files []content) *inside {
	leaves := leavesOf(b.payload)
	return &inside{
		FileKey: hex.EncodeToString(b.fileKey), Salt: b.salt,
		SM4Key: hex.EncodeToString(b.material[:16]), Prefix: hex.EncodeToString(b.material[16:23]),
		Commitment: b.h.Commitment, HeaderJSON: b.content, HeaderHash: sm.Sum([]byte(b.content)),
		Files: files, Manifest: b.manifest, Leaves: leaves, Parts: partsOf(leaves), Root: b.h.Payload.Root,
		Fields: b.fields, Commits: b.h.Fields,
	}
}

// TestSealMakesTheEnvelopesOfTheVectors: from the same randomness Seal makes
// every byte of them.
func TestSealMakesTheEnvelopesOfTheVectors(t *testing.T) {
	for _, c := range validDrafts(agenciesOf(t)) {
		p := Plan{
			Domain: "vectors", ID: c.id, Sender: c.from.Code, Directory: 7,
			Routing: strictjson.Raw(c.routing), Document: strictjson.Raw(c.meta), Files: c.sources(),
		}
		for _, to := range c.to {
			p.Recipients = append(p.Recipients, Recipient{to.Code, to.role, to.EncryptCert})
		}
		m := new(memory)
		s, err := Seal(t.Context(), p, c.from, when, seeded(c.seed), m.put)
		if err != nil {
			t.Fatal(err)
		}
		b := c.build(t)
		if !bytes.Equal(s.Header, b.header) || !bytes.Equal(m.all(), b.payload) || len(s.Slots) != len(b.slots) {
			t.Errorf("%s: header or payload differ", c.seed)
		}
		for i := range s.Slots {
			if !bytes.Equal(s.Slots[i], b.slots[i]) {
				t.Errorf("%s: slot %d differs", c.seed, i)
			}
		}
		if fmt.Sprint(s.Parts) != fmt.Sprint(partsOf(leavesOf(b.payload))) {
			t.Errorf("%s: the parts differ", c.seed)
		}
	}
}

func (d *draft) sources() iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		for i := range d.files {
			role := RoleBody
			if i > 0 {
				role = RoleAttachment
			}
			f := File{Role: role, Name: d.files[i].Name, Type: d.files[i].Type, Content: bytes.NewReader(d.files[i].all())}
			if !yield(f, nil) {
				return
			}
		}
	}
}
