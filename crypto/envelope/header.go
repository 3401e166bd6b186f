// Package envelope is the sealed form of a document: a signed header that
// relays may read, one key slot for each recipient, and an encrypted payload
// of any size (docs/spec/envelope-v1.md).
//
// One document through the package: [Seal] reads the files once, writes
// ciphertext parts of 8 MiB to its caller, and signs a header over everything.
// [ParseHeader], [Envelope.Verify], [Envelope.VerifySlot] and
// [Envelope.VerifyParts] need no private key; [Open] takes one recipient's key,
// proves that slot, key commitment and the end of the payload are right, and
// then streams the files.
//
// The routing facts and the document's metadata pass through as opaque bytes:
// what they mean is for package exchange.
package envelope

import (
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Limits of an envelope.
const (
	MaxHeader     = 1 << 20 // bytes of the signed header
	MaxRecipients = 4000    // slots, the self slot included
	MaxFiles      = 1000
	MaxManifest   = 4 << 20 // bytes of plaintext
	PartSize      = 8 << 20 // bytes of ciphertext; the last part may be shorter
	maxSlot       = 512
	maxFileName   = 255
)

// The failure classes. ErrOpen is the only one that a wrong key, slot or
// payload gives, so that nobody learns from the difference.
var (
	ErrMalformed = errors.New("envelope: malformed")
	ErrOpen      = errors.New("envelope: does not open")
	ErrEmptyFile = errors.New("envelope: a file is empty")
	ErrNoBody    = errors.New("envelope: exactly one body is needed, before the attachments")
	ErrInvalid   = errors.New("envelope: cannot be sealed")
)

// Role says what a key slot is for.
type Role string

// The roles. There is exactly one self slot, the last: with it the sender can
// re-wrap the file key and prove what was sent.
const (
	RoleRecipient  Role = "recipient"
	RoleInspection Role = "inspection"
	RoleSelf       Role = "self"
)

const (
	headerType   = "yizhan-envelope"
	manifestType = "yizhan-manifest"
)

// Slot is what the header says of one key slot: whose it is (an agency's code, or
// the id of the node that is an inspection point), the SM3 of the
// encryption certificate it was made for, and the SM3 of its bytes.
type Slot struct {
	Agency      string    `json:"agency"`
	Role        Role      `json:"role"`
	Certificate sm.Digest `json:"cert"`
	Slot        sm.Digest `json:"slot"`
	Extra       strictjson.Extra
}

// Payload describes the ciphertext: its length, where the manifest begins in
// the plaintext, and the root of the SM3 tree over its 1 MiB leaves.
type Payload struct {
	Size     int64     `json:"size"`
	Manifest int64     `json:"manifest"`
	Root     sm.Digest `json:"root"`
	Extra    strictjson.Extra
}

// Header is the signed statement of an envelope.
type Header struct {
	Type       string         `json:"type"`
	V          int            `json:"v"`
	Crit       []string       `json:"crit,omitempty"`
	Domain     string         `json:"domain"`
	ID         string         `json:"id"`
	Directory  uint64         `json:"directory"`
	Sender     string         `json:"sender"`
	Recipients []Slot         `json:"recipients"`
	Routing    strictjson.Raw `json:"routing"`
	Payload    Payload        `json:"payload"`
	Salt       sm.Digest      `json:"salt"`
	Commitment sm.Digest      `json:"commitment"`
	Fields     sm.Digest      `json:"fields"`
	Extra      strictjson.Extra
}

// Envelope is a well-formed header. Its signature is not checked before
// Verify.
type Envelope struct {
	Header Header
	Hash   sm.Digest // SM3 of the header's JSON: names the envelope
	signed *cms.Signed
}

var (
	idForm     = regexp.MustCompile(`^[0-7][0-9A-HJKMNP-TV-Z]{25}$`)
	senderForm = regexp.MustCompile(`^[0-9A-Z]{18}$`)
	nodeForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
)

// ParseHeader reads a signed header. One that is well formed and asks for
// something that is not known here is given with its error, for whoever is to
// refuse it.
func ParseHeader(der []byte) (*Envelope, error) {
	s, err := cms.Parse(der, MaxHeader)
	if err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	e := &Envelope{Hash: s.ID(), signed: s}
	critical := strictjson.Unmarshal(s.Content, &e.Header)
	if critical != nil && !errors.Is(critical, strictjson.ErrCritical) {
		return nil, fmt.Errorf("%w: header: %w", ErrMalformed, critical)
	}
	if err := e.Header.check(); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	if critical != nil {
		return e, fmt.Errorf("%w: header: %w", ErrMalformed, critical)
	}
	return e, nil
}

func (h *Header) check() error {
	if h.Type != headerType || h.V != 1 {
		return fmt.Errorf("not a %s of version 1", headerType)
	}
	if !idForm.MatchString(h.ID) || !senderForm.MatchString(h.Sender) {
		return errors.New("id or sender")
	}
	if len(h.Routing) == 0 || h.Routing[0] != '{' {
		return errors.New("routing is not an object")
	}
	if err := h.checkSlots(); err != nil {
		return err
	}
	plain, err := sm.PlainSize(h.Payload.Size)
	if err != nil {
		return err
	}
	if m := h.Payload.Manifest; m <= 0 || m >= plain || plain-m > MaxManifest {
		return errors.New("manifest offset")
	}
	return nil
}

func (h *Header) checkSlots() error {
	n := len(h.Recipients)
	if n < 2 || n > MaxRecipients {
		return fmt.Errorf("%d slots, 2 to %d are possible", n, MaxRecipients)
	}
	seen := make(map[string]bool, n)
	for i, s := range h.Recipients {
		last := i == n-1
		if last != (s.Role == RoleSelf) || last && s.Agency != h.Sender {
			return errors.New("the last slot, and only it, is the sender's own")
		}
		if s.Role != RoleSelf && s.Role != RoleRecipient && s.Role != RoleInspection {
			return errors.New("unknown role")
		}
		key := string(s.Role) + s.Agency
		point := s.Role == RoleInspection && nodeForm.MatchString(s.Agency)
		if !point && !senderForm.MatchString(s.Agency) || seen[key] {
			return errors.New("a slot's agency")
		}
		seen[key] = true
	}
	return nil
}

// Verify checks that exactly this certificate of the sender signed the header.
func (e *Envelope) Verify(senderCert []byte) error { return e.signed.Verify(senderCert) }

// Holds says whether the signature is by the certificate shown, whatever that
// may be used for; it is never enough to rely on a header.
func (e *Envelope) Holds() bool { return e.signed.Holds() }

// SignerCertificate is the certificate embedded in the header.
func (e *Envelope) SignerCertificate() []byte { return e.signed.Certificate }

// SignedAt is the time the sender claims to have signed.
func (e *Envelope) SignedAt() time.Time { return e.signed.Time }

// VerifySlot checks the bytes of a slot against the header.
func (e *Envelope) VerifySlot(i int, slot []byte) error {
	if i < 0 || i >= len(e.Header.Recipients) || len(slot) > maxSlot || sm.Sum(slot) != e.Header.Recipients[i].Slot {
		return fmt.Errorf("%w: slot %d is not the one the header names", ErrMalformed, i)
	}
	return nil
}

// VerifyParts checks the subtree digests of all parts against the header.
func (e *Envelope) VerifyParts(parts []sm.Digest) error {
	if len(parts) != PartCount(e.Header.Payload.Size) || merkle.Root(parts) != e.Header.Payload.Root {
		return fmt.Errorf("%w: the parts are not those the header names", ErrMalformed)
	}
	return nil
}

// PartCount is the number of parts of a ciphertext.
func PartCount(size int64) int { return int((size + PartSize - 1) / PartSize) }

// PartLength is the length of part i.
func PartLength(size int64, i int) int64 {
	return max(0, min(PartSize, size-int64(i)*PartSize))
}

// secrets are derived from the file key; they bind the payload to the
// envelope's id and sender, so that a payload signed again by another opens
// for nobody.
type secrets struct {
	stream     *sm.Stream
	commitment sm.Digest
	prk        []byte // of file key and salt
}

func derive(fileKey []byte, salt sm.Digest, id, sender string) (*secrets, error) {
	info := []byte("yizhan/v1/payload" + id + sender)
	prk := sm.Extract(fileKey, salt[:])
	material := sm.Expand(prk, info, 16+7+sm.Size)
	stream, err := sm.NewStream(material[:16], material[16:23])
	if err != nil {
		return nil, err
	}
	return &secrets{stream, sm.Digest(material[23:]), prk}, nil
}

// fieldSalts gives the salts of the fields, by number. They keep relays from
// guessing a field behind the commitment.
func (s *secrets) fieldSalts() func(i int) sm.Digest {
	salts := sm.NewExpander(s.prk)
	return func(i int) sm.Digest {
		return salts.Digest(binary.BigEndian.AppendUint32([]byte("yizhan/v1/field"), uint32(i)))
	}
}
