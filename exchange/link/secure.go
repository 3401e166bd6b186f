package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// epochKey is the secret under which a direction's sections are sealed, as
// long as an epoch lasts. It is wrapped once; every bundle has its own salt
// and therefore its own key and nonce.
type epochKey struct {
	secret  []byte
	wrapped []byte
	cert    sm.Digest
}

func newEpochKey(rand io.Reader, to *certs.Certificate) (*epochKey, error) {
	k := &epochKey{secret: make([]byte, 32), cert: sm.Sum(to.DER)}
	if _, err := io.ReadFull(rand, k.secret); err != nil {
		return nil, err
	}
	pub, err := to.PublicKey()
	if err != nil {
		return nil, err
	}
	k.wrapped, err = sm.Encrypt(rand, pub, k.secret)
	return k, err
}

// sectionKey derives key and nonce of one bundle's section; the associated
// data binds both ends, epoch and number.
func sectionKey(secret []byte, c *Clear) (key, nonce, aad []byte) {
	aad = []byte("yizhan/v1/bundle\x00" + c.From + "\x00" + c.To + "\x00" + c.Epoch)
	material := sm.HKDF(secret, c.Salt, aad, 16+12)
	return material[:16], material[16:], binary.BigEndian.AppendUint64(aad, c.Seq)
}

const tagSize = 16 // that sealing adds to a section

// sealSection seals a section in its place.
func sealSection(secret []byte, c *Clear, section []byte) ([]byte, error) {
	key, nonce, aad := sectionKey(secret, c)
	aead, err := sm.NewGCM(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(section[:0], nonce, section, aad), nil
}

func openSection(secret []byte, c *Clear, sealed []byte) ([]byte, error) {
	key, nonce, aad := sectionKey(secret, c)
	aead, err := sm.NewGCM(key)
	if err != nil {
		return nil, err
	}
	section, err := aead.Open(sealed[:0], nonce, sealed, aad)
	if err != nil {
		return nil, fault("the section does not open")
	}
	return section, nil
}

// signClear finishes a clear header: its JSON, and its framed signed form.
func signClear(s cms.Signer, c *Clear) (digest sm.Digest, frame []byte, err error) {
	content, err := strictjson.Marshal(c)
	if err != nil {
		return digest, nil, err
	}
	signed, err := cms.Sign(s, content, c.Created.Time())
	if err != nil {
		return digest, nil, err
	}
	if len(signed) > MaxClearHeader {
		return digest, nil, errors.New("link: the clear header is too large")
	}
	return sm.Sum(content), appendFrame(signed), nil
}

// errStranger marks a bundle that is whole and signed, by a certificate that
// our directory does not list for the neighbour and a newer one may.
var errStranger = errors.New("link: signed with a certificate that is not in our directory")

// openClear checks who signed a bundle and whom it is for. With errStranger
// it gives what the header says; nothing of it is to be believed yet.
func (s *Session) openClear(signed []byte) (*Clear, sm.Digest, error) {
	o, err := cms.Parse(signed, MaxClearHeader)
	if err != nil {
		return nil, sm.Digest{}, fault("clear header: %v", err)
	}
	d := s.node.Directory()
	neighbour, ok := d.Node(s.neighbour)
	if !ok {
		return nil, sm.Digest{}, fault("node %s is not in the directory", s.neighbour)
	}
	judged := exchange.CheckSigner(neighbour.Certificates, o.Certificate, o, s.node.Now())
	stranger := !neighbour.Holds(certs.UseSign, o.Certificate) && o.Holds()
	if judged != nil && !stranger {
		return nil, sm.Digest{}, fault("%v", judged)
	}
	c, err := parseClear(o.Content)
	if err != nil {
		return nil, sm.Digest{}, err
	}
	if judged != nil && c.Directory <= d.Version() {
		return nil, sm.Digest{}, fault("%v", judged)
	}
	if c.Domain != d.Domain() || c.Link != s.link || c.From != s.neighbour || c.To != s.node.ID() {
		return nil, sm.Digest{}, fault("it is for another link")
	}
	if judged != nil {
		return c, o.ID(), errStranger
	}
	return c, o.ID(), nil
}

// errShown marks a fault that the operator was shown where it was found.
var errShown = errors.New("see the quarantine")

// introduce takes, out of a bundle whose signer we do not know, the directory
// item and nothing else: that one is signed by the authority, whoever carries
// it. Then the bundle's signer is judged again, by the directory it brought.
// So a node whose keys were renewed is never locked out by a neighbour that
// has not heard of it.
func (s *Session) introduce(ctx context.Context, signed []byte, b *bundle) error {
	if len(b.inner.Items) == 0 || b.inner.Items[0].Kind != node.KindDirectory {
		return ErrNewer
	}
	e := b.inner.Items[0]
	item := node.Item{Kind: e.Kind, ID: e.ID, Size: e.Size, Digest: e.Digest}
	out, err := s.node.Intake(ctx, s.link, item, bytes.NewReader(b.small[:e.Size]))
	if err != nil {
		return err
	}
	if out.Status == node.Refused {
		return fmt.Errorf("%w: the directory it brings is refused: %s (%w)", ErrFault, out.Reason, errShown)
	}
	if out.Status != node.Taken && out.Status != node.Duplicate {
		return fault("the directory it brings is %s: %s", out.Status, out.Reason)
	}
	if _, _, err = s.openClear(signed); errors.Is(err, errStranger) {
		return ErrNewer
	}
	return err
}

// secretOf unwraps the epoch secret of a bundle; the last one is remembered,
// since a neighbour uses it for a whole epoch.
func (s *Session) secretOf(c *Clear) ([]byte, error) {
	s.mu.Lock()
	id, secret := s.unwrapped.id, s.unwrapped.secret
	s.mu.Unlock()
	if id == sm.Sum(c.Key) {
		return secret, nil
	}
	secret, err := s.node.UnwrapNode(c.Key)
	if err != nil {
		if errors.Is(err, sm.ErrDecrypt) {
			return nil, fault("its key does not open")
		}
		return nil, err
	}
	s.mu.Lock()
	s.unwrapped.id, s.unwrapped.secret = sm.Sum(c.Key), secret
	s.mu.Unlock()
	return secret, nil
}
