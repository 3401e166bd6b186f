package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// cryptoSizes are those of a run of Crypto.
type cryptoSizes struct {
	bulk   int64         // bytes of the large document
	slice  time.Duration // for each primitive
	rounds int
}

var (
	quickCrypto = cryptoSizes{256 << 20, 120 * time.Millisecond, 3}
	fullCrypto  = cryptoSizes{1 << 30, 500 * time.Millisecond, 5}
)

const (
	smallDocument  = 10_000
	manyRecipients = 1000
	memoryBound    = 32 // MiB
	// quickBudget is when a quick run stops to repeat itself; quickBulk is how
	// long it wants to seal its large document.
	quickBudget = 15 * time.Second
	quickBulk   = 1500 * time.Millisecond
)

// Options of a run. Temporary files go to Dir, which needs room for one large
// document. Bulk, when not zero, is its size in MiB instead of the usual one.
type Options struct {
	Dir   string
	Quick bool
	Bulk  int64
	// Waiting, when not zero, is how many deliveries wait in backlog and restart.
	Waiting int
	// Documents, when not zero, is how many small documents accept and exchange send.
	Documents int
}

// cryptoRun is one run of Crypto.
type cryptoRun struct {
	dir    string
	bulk   int64
	sender *party
	to     *party
	stored *stored
}

// Crypto measures sealing, opening, and keys under an HSM.
func Crypto(ctx context.Context, o Options) (*Report, error) {
	if o.Quick {
		return o.crypto(ctx, quickCrypto, time.Now().Add(quickBudget))
	}
	return o.crypto(ctx, fullCrypto, time.Time{})
}

func (o Options) crypto(ctx context.Context, sizes cryptoSizes, until time.Time) (report *Report, err error) {
	r := &runner{slice: sizes.slice, rounds: sizes.rounds, until: until}
	if r.primitives, err = primitives(); err != nil {
		return nil, err
	}
	c, err := newCryptoRun(ctx, o, sizes.bulk)
	if err != nil {
		return nil, err
	}
	figures, err := c.figures(ctx)
	if err != nil {
		return nil, err
	}
	report = &Report{Results: []Result{}}
	for _, f := range figures {
		results, err := r.measure(ctx, f)
		if err != nil {
			return nil, err
		}
		report.Results = append(report.Results, results...)
	}
	results, err := wrappedMode(ctx, r, o.Dir)
	report.Results = append(report.Results, results...)
	return report, err
}

func newCryptoRun(ctx context.Context, o Options, bulk int64) (c *cryptoRun, err error) {
	c = &cryptoRun{dir: o.Dir, bulk: bulk}
	if c.sender, err = newParty("91110000600037341L"); err != nil {
		return nil, err
	}
	if c.to, err = newParty("91350100M000100Y43"); err != nil {
		return nil, err
	}
	switch {
	case o.Bulk > 0:
		c.bulk = o.Bulk << 20
	case o.Quick:
		if c.bulk, err = c.affordable(ctx, bulk); err != nil {
			return nil, err
		}
	}
	c.stored, err = c.store(ctx)
	return c, err
}

// affordable is the size of a large document that a quick run has time for.
func (c *cryptoRun) affordable(ctx context.Context, most int64) (int64, error) {
	const probe = 16 << 20
	seconds, _, err := timed(func() error { _, err := c.seal(ctx, probe, 1, discard); return err })
	return max(2*probe, min(most, int64(probe*quickBulk.Seconds()/seconds))), err
}

// figures: a document of bulk bytes is hashed for its manifest, encrypted, and
// hashed again as ciphertext; opening it does the same in reverse. A small one
// costs the SM2 operations besides, and each recipient one SM2 encryption.
func (c *cryptoRun) figures(ctx context.Context) ([]figure, error) {
	size := float64(c.bulk)
	openSmall, err := c.small(ctx)
	if err != nil {
		return nil, err
	}
	sealSmall := func(n int) func(context.Context) error {
		return func(ctx context.Context) error { _, err := c.seal(ctx, smallDocument, n, discard); return err }
	}
	sealPasses := func(n int) []pass {
		return []pass{
			{opWrap, float64(n + 1), "the file key, to recipients and sender"}, {opSign, 1, "the header"},
			{opSM3, smallDocument, "plaintext"}, {opSeal, smallDocument, ""}, {opSM3, smallDocument, "ciphertext"},
		}
	}
	return []figure{
		{"seal_bulk", "MB/s", size / 1e6, true, false, []pass{
			{opSM3, size, "plaintext"}, {opSeal, size, ""}, {opSM3, size, "ciphertext"},
		}, func(ctx context.Context) error { _, err := c.seal(ctx, c.bulk, 1, discard); return err }},
		{"open_bulk", "MB/s", size / 1e6, true, false, []pass{
			{opSM3, size, "ciphertext"}, {opOpen, size, ""}, {opSM3, size, "plaintext"},
		}, c.openBulk},
		{"seal_10k", "documents/s", 1, false, false, sealPasses(1), sealSmall(1)},
		{"open_10k", "documents/s", 1, false, false, []pass{
			{opVerify, 1, "the header"}, {opUnwrap, 1, "the file key"},
			{opSM3, smallDocument, "ciphertext"}, {opOpen, smallDocument, ""}, {opSM3, smallDocument, "plaintext"},
		}, func(context.Context) error { return openSmall() }},
		{fmt.Sprintf("seal_10k_%d_recipients", manyRecipients), "documents/s", 1, false, true, sealPasses(manyRecipients), sealSmall(manyRecipients)},
	}, nil
}

// openBulk verifies what lies on the disk against the header, opens it and
// checks the file's SM3.
func (c *cryptoRun) openBulk(ctx context.Context) error {
	if err := envelope.VerifyPayload(ctx, c.stored.e, c.stored); err != nil {
		return err
	}
	return openAll(ctx, c.stored.e, c.to, c.stored.slot, c.stored)
}

// party is an agency of the measurement with its dual certificates.
type party struct {
	code          string
	sign, encrypt *sm.PrivateKey
	signCert      []byte
	encryptCert   []byte
}

func newParty(code string) (p *party, err error) {
	p = &party{code: code}
	if p.sign, p.signCert, err = selfSigned(smx509.KeyUsageDigitalSignature); err != nil {
		return nil, err
	}
	p.encrypt, p.encryptCert, err = selfSigned(smx509.KeyUsageKeyEncipherment)
	return p, err
}

func selfSigned(usage smx509.KeyUsage) (*sm.PrivateKey, []byte, error) {
	key, err := sm.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &smx509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, KeyUsage: usage,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := smx509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return key, der, err
}

func (p *party) Certificate() []byte                { return p.signCert }
func (p *party) Sign(msg []byte) ([]byte, error)    { return sm.Sign(rand.Reader, p.sign, msg) }
func (p *party) unwrap(slot []byte) ([]byte, error) { return sm.Decrypt(p.encrypt, slot) }

// plan is a document of size bytes to n recipients and the sender itself.
func (c *cryptoRun) plan(size int64, n int) envelope.Plan {
	p := envelope.Plan{
		Domain: "bench", ID: "01ARZ3NDEKTSV4RRFFQ69G5FAV", Sender: c.sender.code, Directory: 1,
		Routing: strictjson.Raw(`{}`), Document: strictjson.Raw(`{}`),
		Files: func(yield func(envelope.File, error) bool) {
			yield(envelope.File{Role: envelope.RoleBody, Name: "body.ofd", Type: "application/ofd", Content: io.LimitReader(pattern{}, size)}, nil)
		},
	}
	for i := range n {
		code := c.to.code
		if i > 0 {
			code = fmt.Sprintf("%s%05d", code[:13], i)
		}
		p.Recipients = append(p.Recipients, envelope.Recipient{Agency: code, Role: envelope.RoleRecipient, Certificate: c.to.encryptCert})
	}
	p.Recipients = append(p.Recipients, envelope.Recipient{Agency: c.sender.code, Role: envelope.RoleSelf, Certificate: c.sender.encryptCert})
	return p
}

// pattern yields bytes at the speed of copying.
type pattern struct{}

var patternBytes = bytes.Repeat([]byte("official document "), 4<<10)

func (pattern) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		n += copy(b[n:], patternBytes)
	}
	return n, nil
}

func discard(ctx context.Context, _ int, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return errors.Join(err, ctx.Err())
}

func (c *cryptoRun) seal(ctx context.Context, size int64, n int, put envelope.PutPart) (*envelope.Sealed, error) {
	return envelope.Seal(ctx, c.plan(size, n), c.sender, time.Now(), rand.Reader, put)
}

// stored is the large document as it lies on a disk.
type stored struct {
	path string
	e    *envelope.Envelope
	slot []byte
}

func (s *stored) OpenAt(ctx context.Context, off int64) (io.ReadCloser, error) {
	f, err := os.Open(s.path)
	if err == nil {
		_, err = f.Seek(off, io.SeekStart)
	}
	return &untilStopped{f, ctx}, err
}

// untilStopped ends a long run when its user does.
type untilStopped struct {
	*os.File
	ctx context.Context
}

func (u *untilStopped) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.File.Read(p)
}

func (c *cryptoRun) store(ctx context.Context) (*stored, error) {
	s := &stored{path: filepath.Join(c.dir, "payload")}
	f, err := os.Create(s.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sealed, err := c.seal(ctx, c.bulk, 1, func(ctx context.Context, _ int, r io.Reader) error {
		_, err := io.Copy(f, r)
		return errors.Join(err, ctx.Err())
	})
	if err != nil {
		return nil, err
	}
	s.slot = sealed.Slots[0]
	s.e, err = envelope.ParseHeader(sealed.Header)
	return s, err
}

func openAll(ctx context.Context, e *envelope.Envelope, p *party, slot []byte, src envelope.Source) error {
	opened, err := envelope.Open(ctx, e, p.unwrap, slot, src)
	if err != nil {
		return err
	}
	for i := range opened.Manifest.Files {
		r, err := opened.File(ctx, i)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	return nil
}

// memory is a small payload in memory.
type memory []byte

func (m memory) OpenAt(_ context.Context, off int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m[off:])), nil
}

// small seals a small document and gives what its recipient does with it.
func (c *cryptoRun) small(ctx context.Context) (open func() error, err error) {
	var payload bytes.Buffer
	sealed, err := c.seal(ctx, smallDocument, 1, func(_ context.Context, _ int, r io.Reader) error {
		_, err := payload.ReadFrom(r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return func() error {
		e, err := envelope.ParseHeader(sealed.Header)
		if err != nil {
			return err
		}
		if err := e.Verify(c.sender.signCert); err != nil {
			return err
		}
		if err := envelope.VerifyPayload(ctx, e, memory(payload.Bytes())); err != nil {
			return err
		}
		return openAll(ctx, e, c.to, sealed.Slots[0], memory(payload.Bytes()))
	}, nil
}
