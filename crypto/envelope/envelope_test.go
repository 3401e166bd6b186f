package envelope

import (
	"bytes"
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

var when = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// party is an agency with dual certificates.
type party struct {
	code          string
	sign, encrypt *sm.PrivateKey
	signCert      []byte
	encryptCert   []byte
	rand          io.Reader
}

func (p *party) Certificate() []byte             { return p.signCert }
func (p *party) Sign(msg []byte) ([]byte, error) { return sm.Sign(p.rand, p.sign, msg) }
func (p *party) unwrap(b []byte) ([]byte, error) { return sm.Decrypt(p.encrypt, b) }

func newParty(t testing.TB, seed byte) *party {
	t.Helper()
	r := rand.NewChaCha8([32]byte{seed})
	p := &party{code: fmt.Sprintf("11520000000000%02dXX", seed), rand: r}
	var err error
	if p.sign, err = sm.GenerateKey(r); err != nil {
		t.Fatal(err)
	}
	if p.encrypt, err = sm.GenerateKey(r); err != nil {
		t.Fatal(err)
	}
	p.signCert = certificate(t, r, p.sign, smx509.KeyUsageDigitalSignature)
	p.encryptCert = certificate(t, r, p.encrypt, smx509.KeyUsageKeyEncipherment)
	return p
}

func certificate(t testing.TB, r io.Reader, key *sm.PrivateKey, usage smx509.KeyUsage) []byte {
	t.Helper()
	template := &smx509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "x"}, KeyUsage: usage,
		NotBefore: when.AddDate(-1, 0, 0), NotAfter: when.AddDate(1, 0, 0),
	}
	der, err := smx509.CreateCertificate(r, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// memory holds the parts of one payload.
type memory struct{ parts [][]byte }

func (m *memory) put(_ context.Context, i int, r io.Reader) error {
	if i != len(m.parts) {
		return fmt.Errorf("part %d after %d", i, len(m.parts))
	}
	b, err := io.ReadAll(r)
	m.parts = append(m.parts, b)
	return err
}

func (m *memory) all() []byte { return bytes.Join(m.parts, nil) }

func (m *memory) OpenAt(_ context.Context, off int64) (io.ReadCloser, error) {
	b := m.all()
	return io.NopCloser(bytes.NewReader(b[min(off, int64(len(b))):])), nil
}

type fileSpec struct {
	role, name string
	content    []byte
}

func files(list ...fileSpec) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		for _, f := range list {
			if !yield(File{Role: f.role, Name: f.name, Type: "application/ofd", Content: bytes.NewReader(f.content)}, nil) {
				return
			}
		}
	}
}

func plan(sender *party, seq iter.Seq2[File, error], to ...*party) Plan {
	p := Plan{
		Domain: "test", ID: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Sender: sender.code, Directory: 3,
		Routing: strictjson.Raw(`{"label":"internal"}`), Document: strictjson.Raw(`{"title":"标题","number":7}`), Files: seq,
	}
	for _, r := range to {
		p.Recipients = append(p.Recipients, Recipient{r.code, RoleRecipient, r.encryptCert})
	}
	p.Recipients = append(p.Recipients, Recipient{sender.code, RoleSelf, sender.encryptCert})
	return p
}

// sealed is an envelope with everything around it.
type sealedCase struct {
	jia, yi, bing *party
	s             *Sealed
	e             *Envelope
	m             *memory
	files         []fileSpec
}

func sealCase(t testing.TB, list ...fileSpec) *sealedCase {
	t.Helper()
	c := &sealedCase{jia: newParty(t, 1), yi: newParty(t, 2), bing: newParty(t, 3), m: new(memory), files: list}
	if len(list) == 0 {
		c.files = []fileSpec{{RoleBody, "正文.ofd", bytes.Repeat([]byte("body "), 1000)}, {RoleAttachment, "附件.pdf", []byte("attached")}}
	}
	var err error
	c.s, err = Seal(t.Context(), plan(c.jia, files(c.files...), c.yi, c.bing), c.jia, when, rand.NewChaCha8([32]byte{9}), c.m.put)
	if err != nil {
		t.Fatal(err)
	}
	if c.e, err = ParseHeader(c.s.Header); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *sealedCase) open(t testing.TB, e *Envelope, p *party, slot int) (*Opened, error) {
	return Open(t.Context(), e, p.unwrap, c.s.Slots[slot], c.m)
}

func TestSealAndOpen(t *testing.T) {
	c := sealCase(t)
	if err := c.e.Verify(c.jia.signCert); err != nil {
		t.Fatal(err)
	}
	if err := c.e.VerifyParts(c.s.Parts); err != nil {
		t.Fatal(err)
	}
	if err := VerifyPayload(t.Context(), c.e, c.m); err != nil {
		t.Fatal(err)
	}
	for i, p := range []*party{c.yi, c.bing, c.jia} {
		if err := c.e.VerifySlot(i, c.s.Slots[i]); err != nil {
			t.Fatal(err)
		}
		o, err := c.open(t, c.e, p, i)
		if err != nil {
			t.Fatalf("slot %d: %v", i, err)
		}
		for k, f := range c.files {
			r, err := o.File(t.Context(), k)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, f.content) || o.Manifest.Files[k].Name != f.name {
				t.Errorf("file %d: %v", k, err)
			}
		}
	}
	if bytes.Contains(c.s.Header, []byte("标题")) || bytes.Contains(c.m.all(), []byte("body body")) {
		t.Error("title or content are readable")
	}
}

// Every edge of chunk, leaf and part.
func TestSizes(t *testing.T) {
	for _, n := range []int{1, sm.ChunkPlain - 1, sm.ChunkPlain, sm.ChunkPlain + 1, 16 * sm.ChunkPlain, 128*sm.ChunkPlain - 300, 128 * sm.ChunkPlain, 128*sm.ChunkPlain + 1} {
		content := bytes.Repeat([]byte{byte(n)}, n)
		c := sealCase(t, fileSpec{RoleBody, "b", content})
		if len(c.s.Parts) != PartCount(c.s.Payload.Size) || len(c.m.parts) != len(c.s.Parts) {
			t.Errorf("%d bytes: %d parts", n, len(c.s.Parts))
		}
		for i, p := range c.m.parts {
			h := merkle.NewPayloadHash()
			_, _ = h.Write(p)
			if int64(len(p)) != PartLength(c.s.Payload.Size, i) || h.Sum() != c.s.Parts[i] {
				t.Errorf("%d bytes: part %d", n, i)
			}
		}
		o, err := c.open(t, c.e, c.yi, 0)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		r, err := o.File(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestDeterministic(t *testing.T) {
	a, b := sealCase(t), sealCase(t)
	if !bytes.Equal(a.s.Header, b.s.Header) || !bytes.Equal(a.m.all(), b.m.all()) {
		t.Error("the same randomness gave other bytes")
	}
}

// counting checks that memory does not grow with the document: parts are
// consumed as they come and none is held.
func TestConstantMemory(t *testing.T) {
	jia, yi := newParty(t, 1), newParty(t, 2)
	const size = 64 << 20
	seq := func(yield func(File, error) bool) {
		yield(File{Role: RoleBody, Name: "b", Type: "t", Content: io.LimitReader(zeros{}, size)}, nil)
	}
	var biggest, total int64
	put := func(_ context.Context, _ int, r io.Reader) error {
		buffer := make([]byte, 32<<10)
		var n int64
		for {
			k, err := r.Read(buffer)
			n += int64(k)
			if errors.Is(err, io.EOF) {
				biggest, total = max(biggest, n), total+n
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
	allocated := testing.AllocsPerRun(1, func() {
		if _, err := Seal(t.Context(), plan(jia, seq, yi), jia, when, rand.NewChaCha8([32]byte{}), put); err != nil {
			t.Fatal(err)
		}
	})
	if biggest != PartSize || total < size {
		t.Errorf("largest part %d, %d in all", biggest, total)
	}
	// 1,025 chunks and 65 leaves: allocations per chunk would show.
	if allocated > 4000 {
		t.Errorf("%v allocations for 64 MiB", allocated)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBadPlans(t *testing.T) {
	jia, yi := newParty(t, 1), newParty(t, 2)
	body := fileSpec{RoleBody, "b", []byte("x")}
	broken := errors.New("broken upload")
	for _, c := range []struct {
		name   string
		change func(*Plan)
		want   error
	}{
		{"no file", func(p *Plan) { p.Files = files() }, ErrNoBody},
		{"no body", func(p *Plan) { p.Files = files(fileSpec{RoleAttachment, "a", []byte("x")}) }, ErrNoBody},
		{"two bodies", func(p *Plan) { p.Files = files(body, body) }, ErrNoBody},
		{"empty body", func(p *Plan) { p.Files = files(fileSpec{RoleBody, "b", nil}) }, ErrEmptyFile},
		{"empty attachment", func(p *Plan) { p.Files = files(body, fileSpec{RoleAttachment, "a", nil}) }, ErrEmptyFile},
		{"path", func(p *Plan) { p.Files = files(fileSpec{RoleBody, "../b", []byte("x")}) }, ErrInvalid},
		{"backslash", func(p *Plan) { p.Files = files(fileSpec{RoleBody, `a\b`, []byte("x")}) }, ErrInvalid},
		{"no name", func(p *Plan) { p.Files = files(fileSpec{RoleBody, "", []byte("x")}) }, ErrInvalid},
		{"long name", func(p *Plan) { p.Files = files(fileSpec{RoleBody, strings.Repeat("x", 256), []byte("x")}) }, ErrInvalid},
		{"broken decoding", func(p *Plan) { p.Files = files(fileSpec{RoleBody, "\uFFFD", []byte("x")}) }, ErrInvalid},
		{"broken source", func(p *Plan) {
			p.Files = func(yield func(File, error) bool) { yield(File{}, broken) }
		}, broken},
		{"no self slot", func(p *Plan) { p.Recipients = p.Recipients[:1] }, ErrInvalid},
		{"self slot of another", func(p *Plan) { p.Recipients[1].Agency = yi.code }, ErrInvalid},
		{"recipient twice", func(p *Plan) { p.Recipients = append(p.Recipients[:1:1], p.Recipients...) }, ErrInvalid},
		{"signing certificate to encrypt with", func(p *Plan) { p.Recipients[0].Certificate = yi.signCert }, ErrInvalid},
		{"bad id", func(p *Plan) { p.ID = "x" }, ErrInvalid},
		{"document no object", func(p *Plan) { p.Document = strictjson.Raw(`[]`) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := plan(jia, files(body), yi)
			c.change(&p)
			_, err := Seal(t.Context(), p, jia, when, rand.NewChaCha8([32]byte{}), new(memory).put)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
		})
	}
	if _, err := Seal(t.Context(), plan(jia, files(body), yi), newPartyWithoutSign(t), when, rand.NewChaCha8([32]byte{}), new(memory).put); err == nil {
		t.Error("an encryption certificate signed a header")
	}
}

type wrongUsage struct{ *party }

func (w wrongUsage) Certificate() []byte { return w.encryptCert }

func newPartyWithoutSign(t *testing.T) cms.Signer { return wrongUsage{newParty(t, 4)} }

// resign signs a changed header as somebody.
func resign(t testing.TB, h Header, by *party) *Envelope {
	t.Helper()
	content, err := strictjson.Marshal(&h)
	if err != nil {
		t.Fatal(err)
	}
	der, err := cms.Sign(by, content, when)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ParseHeader(der)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestAttacks: each gives ErrOpen and nothing else.
func TestAttacks(t *testing.T) {
	c := sealCase(t)
	refused := func(name string, o *Opened, err error) {
		t.Helper()
		if !errors.Is(err, ErrOpen) || err.Error() != ErrOpen.Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
	h := c.e.Header
	h.Recipients = append([]Slot{}, h.Recipients...)
	h.Sender, h.Recipients[2].Agency = c.bing.code+"", c.bing.code
	h.Recipients = append(h.Recipients[:1:1], h.Recipients[2])
	stolen := resign(t, h, c.bing)
	o, err := Open(t.Context(), stolen, c.yi.unwrap, c.s.Slots[0], c.m)
	refused("a stolen payload under another sender's header", o, err)

	h = c.e.Header
	h.ID = "01ARZ3NDEKTSV4RRFFQ69G5FAW"
	o, err = c.open(t, resign(t, h, c.jia), c.yi, 0)
	refused("the payload under another id", o, err)

	h = c.e.Header
	h.Commitment[0] ^= 1
	o, err = c.open(t, resign(t, h, c.jia), c.yi, 0)
	refused("another commitment", o, err)

	h = c.e.Header
	h.Fields[0] ^= 1
	o, err = c.open(t, resign(t, h, c.jia), c.yi, 0)
	refused("another field commitment", o, err)

	h = c.e.Header
	h.Payload.Manifest--
	o, err = c.open(t, resign(t, h, c.jia), c.yi, 0)
	refused("another manifest offset", o, err)

	o, err = c.open(t, c.e, c.bing, 0)
	refused("another's slot", o, err)
	o, err = Open(t.Context(), c.e, func([]byte) ([]byte, error) { return make([]byte, 31), nil }, nil, c.m)
	refused("a file key of another length", o, err)

	last := c.m.parts[len(c.m.parts)-1]
	for name, payload := range map[string][]byte{
		"cut":       last[:len(last)-1],
		"empty":     {},
		"bit":       flip(last, len(last)-20),
		"first bit": flip(last, 3),
	} {
		o, err := Open(t.Context(), c.e, c.yi.unwrap, c.s.Slots[0], &memory{[][]byte{payload}})
		if name == "first bit" && err == nil {
			continue // one chunk: cannot happen; several: found when streaming
		}
		refused("payload "+name, o, err)
		if VerifyPayload(t.Context(), c.e, &memory{[][]byte{payload}}) == nil {
			t.Errorf("payload %s verifies", name)
		}
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

// A chunk that is wrong in the middle is found before its bytes are given out.
func TestDamageInTheMiddleIsNeverGivenOut(t *testing.T) {
	content := bytes.Repeat([]byte("x"), 3*blockPlain)
	c := sealCase(t, fileSpec{RoleBody, "b", content})
	c.m.parts[0] = flip(c.m.parts[0], blockSealed+sm.ChunkSealed+5)
	o, err := c.open(t, c.e, c.yi, 0)
	if err != nil {
		t.Fatal(err) // the end is whole
	}
	r, err := o.File(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if !errors.Is(err, ErrOpen) || len(got) != blockPlain+sm.ChunkPlain {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for off, whole := range map[int64]bool{0: false, blockPlain + sm.ChunkPlain + 7: false, blockPlain + 2*sm.ChunkPlain: true, int64(len(content)): true} {
		r, err := o.Section(t.Context(), 0, off)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if (err == nil) != whole || whole && !bytes.Equal(got, content[off:]) {
			t.Errorf("from %d: %d bytes, %v", off, len(got), err)
		}
	}
	for _, off := range []int64{-1, int64(len(content)) + 1} {
		if _, err := o.Section(t.Context(), 0, off); err == nil {
			t.Errorf("byte %d of the file is there", off)
		}
	}
}

// A file that is not the one the manifest names never comes to its end, for
// whoever reads no further than its length either.
func TestAWrongFileHasNoEnd(t *testing.T) {
	for _, size := range []int{100, 2 * blockPlain} { // opened at once, and streamed
		content := bytes.Repeat([]byte("x"), size)
		c := sealCase(t, fileSpec{RoleBody, "b", content})
		o, err := c.open(t, c.e, c.yi, 0)
		if err != nil {
			t.Fatal(err)
		}
		o.Manifest.Files[0].SM3[0] ^= 1
		r, err := o.File(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.LimitReader(r, int64(size)))
		if !errors.Is(err, ErrOpen) || len(got) >= size {
			t.Errorf("%d of %d bytes, %v", len(got), size, err)
		}
	}
}

func TestDisclosure(t *testing.T) {
	c := sealCase(t)
	o, err := c.open(t, c.e, c.yi, 0)
	if err != nil {
		t.Fatal(err)
	}
	leaves, err := o.Disclose()
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyDisclosure(&c.e.Header, leaves); err != nil || len(leaves) != 4 || leaves[0].Name != "document/title" || leaves[2].Name != "files/0" {
		t.Fatalf("%v: %v", leaves, err)
	}
	for name, bad := range map[string][]Leaf{
		"a leaf missing": leaves[1:],
		"another order":  {leaves[1], leaves[0], leaves[2], leaves[3]},
		"another value":  {{leaves[0].Name, leaves[0].Salt, strictjson.Raw(`"x"`)}, leaves[1], leaves[2], leaves[3]},
		"another salt":   {{leaves[0].Name, leaves[1].Salt, leaves[0].Value}, leaves[1], leaves[2], leaves[3]},
	} {
		if VerifyDisclosure(&c.e.Header, bad) == nil {
			t.Errorf("%s passes", name)
		}
	}
}

// 2,000 mutations of header, slot and payload: none is accepted.
func TestMutationsAreNeverAccepted(t *testing.T) {
	c := sealCase(t)
	payload := c.m.all()
	rng := rand.New(rand.NewPCG(1, 1))
	mutate := func(b []byte) []byte {
		b = bytes.Clone(b)
		switch rng.IntN(3) {
		case 0:
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		case 1:
			b = b[:rng.IntN(len(b))]
		default:
			at := rng.IntN(len(b))
			b = append(b[:at:at], append([]byte{byte(rng.Uint32())}, b[at:]...)...)
		}
		return b
	}
	for i := range 2000 {
		header, slot, data := c.s.Header, c.s.Slots[0], payload
		switch i % 3 {
		case 0:
			header = mutate(header)
		case 1:
			slot = mutate(slot)
		default:
			data = mutate(data)
		}
		if bytes.Equal(header, c.s.Header) && bytes.Equal(slot, c.s.Slots[0]) && bytes.Equal(data, payload) {
			continue
		}
		if accepted(t, c, header, slot, data) {
			t.Fatalf("mutation %d was accepted", i)
		}
	}
}

func accepted(t *testing.T, c *sealedCase, header, slot, payload []byte) bool {
	e, err := ParseHeader(header)
	if err != nil || e.Verify(c.jia.signCert) != nil || e.VerifySlot(0, slot) != nil {
		return false
	}
	m := &memory{[][]byte{payload}}
	if VerifyPayload(t.Context(), e, m) != nil {
		return false
	}
	_, err = Open(t.Context(), e, c.yi.unwrap, slot, m)
	return err == nil
}

func TestDetail(t *testing.T) {
	yi, bing := newParty(t, 2), newParty(t, 3)
	sealed, err := SealDetail(rand.NewChaCha8([32]byte{}), yi.encryptCert, []byte("context"), []byte("已阅"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenDetail(yi.unwrap, []byte("context"), sealed); err != nil || string(got) != "已阅" {
		t.Fatalf("%q, %v", got, err)
	}
	for name, try := range map[string]func() ([]byte, error){
		"another key":     func() ([]byte, error) { return OpenDetail(bing.unwrap, []byte("context"), sealed) },
		"another context": func() ([]byte, error) { return OpenDetail(yi.unwrap, []byte("other"), sealed) },
		"changed":         func() ([]byte, error) { return OpenDetail(yi.unwrap, []byte("context"), flip(sealed, len(sealed)-5)) },
		"nothing":         func() ([]byte, error) { return OpenDetail(yi.unwrap, nil, nil) },
	} {
		if _, err := try(); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := SealDetail(rand.NewChaCha8([32]byte{}), yi.encryptCert, nil, make([]byte, maxDetail+1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("too large: %v", err)
	}
}

func FuzzParseHeader(f *testing.F) {
	c := sealCase(f)
	f.Add(c.s.Header)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseHeader(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("an error without a class: %v", err)
			}
			return
		}
		content, err := strictjson.Marshal(&e.Header)
		if err != nil || sm.Sum(content) != e.Hash {
			t.Fatal("accepted in another encoding")
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"type":"yizhan-manifest","v":1,"domain":"d","envelope":"e","document":{"a":1},"files":[{"role":"body","name":"n","type":"t","size":1,"sm3":"` + strings.Repeat("0", 64) + `"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err != nil {
			return
		}
		again, err := strictjson.Marshal(m)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q marshals to %q", b, again)
		}
	})
}

func FuzzOpenDetail(f *testing.F) {
	yi := newParty(f, 2)
	sealed, err := SealDetail(rand.NewChaCha8([32]byte{}), yi.encryptCert, nil, []byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := OpenDetail(yi.unwrap, nil, b); err != nil && !errors.Is(err, ErrOpen) {
			t.Fatal(err)
		}
	})
}
