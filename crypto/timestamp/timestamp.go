// Package timestamp is RFC 3161 with SM2 and SM3: requests to a timestamp
// authority, its responses, and the tokens that prove that an object existed
// at a time (docs/spec/ledger-v1.md says what they are used for).
//
// The reader is strict: DER, SM3 imprints, exactly one SM2/SM3 signer with
// signed attributes, nothing unsigned. Where authorities differ and the
// signature does not cover the difference, all that is met is accepted: the
// outer type of RFC 5652 or of GB/T 35275, SignedData of version 1 or 3,
// algorithm identifiers with or without NULL, a chain of certificates beside
// the signer's. So two tokens may differ in bytes and say the same: what
// identifies a token is what its signature covers.
//
// Trust is not decided here: Verify takes the certificate that the caller's
// directory names for the authority.
package timestamp

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Bounds, bytes. A token with its signer's certificate takes about 1.2 KiB,
// with a chain of two about 2.5 KiB.
const (
	MaxRequest  = 1 << 10
	MaxToken    = 16 << 10
	MaxResponse = MaxToken + 2<<10

	maxNumber = 20 // serial numbers and nonces
	nonceSize = 8
)

// The failure classes, for errors.Is.
var (
	// ErrMalformed: not the DER of such an object, or not with SM2 and SM3.
	ErrMalformed = errors.New("timestamp: malformed")
	// ErrRefused: the authority answered that it does not give a token.
	ErrRefused = errors.New("timestamp: refused by the authority")
	// ErrMismatch: a token, and not for what was asked or shown.
	ErrMismatch = errors.New("timestamp: of something else")
	// ErrSigner: not signed with the certificate given, or it may not
	// timestamp, or it was not valid at the token's time.
	ErrSigner = errors.New("timestamp: not an acceptable signer")
	// ErrSignature: the signature or the digest of the content does not hold.
	ErrSignature = errors.New("timestamp: the signature does not verify")
)

func malformed(detail string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(detail, args...))
}

// Request asks for a token over an SM3 imprint. Nonce and policy are empty
// when there is none.
type Request struct {
	Imprint sm.Digest
	Nonce   []byte // big-endian, no leading zero
	Policy  asn1.ObjectIdentifier
	CertReq bool // the token shall carry its signer's certificate
}

// NewRequest asks for the time of a digest, with a fresh nonce of 64 bits, and
// for the signer's certificate in the token.
func NewRequest(imprint sm.Digest, rand io.Reader) (*Request, error) {
	nonce := make([]byte, nonceSize)
	if _, err := io.ReadFull(rand, nonce); err != nil {
		return nil, fmt.Errorf("timestamp: nonce: %w", err)
	}
	nonce[0] |= 0x80 // no leading zero
	return &Request{Imprint: imprint, Nonce: nonce, CertReq: true}, nil
}

// Marshal gives the DER.
func (r *Request) Marshal() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		addImprint(b, r.Imprint)
		if len(r.Policy) > 0 {
			b.AddASN1ObjectIdentifier(r.Policy)
		}
		if len(r.Nonce) > 0 {
			b.AddASN1BigInt(new(big.Int).SetBytes(r.Nonce))
		}
		if r.CertReq {
			b.AddASN1Boolean(true)
		}
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("timestamp: request: %w", err)
	}
	return der, nil
}

// ParseRequest reads the DER, for an authority. Extensions are refused: none
// that must be understood is known here.
func ParseRequest(der []byte) (*Request, error) {
	if len(der) > MaxRequest {
		return nil, malformed("request: %d bytes, at most %d are possible", len(der), MaxRequest)
	}
	var r Request
	var seq cryptobyte.String
	var version int
	in := cryptobyte.String(der)
	if !in.ReadASN1(&seq, tag.SEQUENCE) || !in.Empty() || !seq.ReadASN1Integer(&version) || version != 1 {
		return nil, malformed("request: not a TimeStampReq of version 1")
	}
	if err := readImprint(&seq, &r.Imprint); err != nil {
		return nil, err
	}
	if seq.PeekASN1Tag(tag.OBJECT_IDENTIFIER) && !seq.ReadASN1ObjectIdentifier(&r.Policy) {
		return nil, malformed("request: policy")
	}
	if seq.PeekASN1Tag(tag.INTEGER) {
		if !readNumber(&seq, &r.Nonce) || len(r.Nonce) == 0 {
			return nil, malformed("request: nonce")
		}
	}
	if seq.PeekASN1Tag(tag.BOOLEAN) {
		if !seq.ReadASN1Boolean(&r.CertReq) || !r.CertReq {
			return nil, malformed("request: certReq") // DER leaves the default out
		}
	}
	if !seq.Empty() {
		return nil, malformed("request: extensions, or bytes left over")
	}
	return &r, nil
}

func addImprint(b *cryptobyte.Builder, d sm.Digest) {
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		addAlgorithm(b, oidSM3)
		b.AddASN1OctetString(d[:])
	})
}

// addAlgorithm writes NULL parameters, as other implementations with SM2 do.
func addAlgorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier) {
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1NULL()
	})
}

// readImprint reads a MessageImprint with SM3.
func readImprint(in *cryptobyte.String, d *sm.Digest) error {
	var imprint, hash cryptobyte.String
	if !in.ReadASN1(&imprint, tag.SEQUENCE) {
		return malformed("message imprint")
	}
	if !readAlgorithm(&imprint, oidSM3) {
		return malformed("message imprint: not with SM3")
	}
	if !imprint.ReadASN1(&hash, tag.OCTET_STRING) || len(hash) != sm.Size || !imprint.Empty() {
		return malformed("message imprint")
	}
	copy(d[:], hash)
	return nil
}

// readAlgorithm reads an AlgorithmIdentifier that must be one of these, with
// no parameters or NULL.
func readAlgorithm(in *cryptobyte.String, allowed ...asn1.ObjectIdentifier) bool {
	var seq, null cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !in.ReadASN1(&seq, tag.SEQUENCE) || !seq.ReadASN1ObjectIdentifier(&oid) {
		return false
	}
	if !seq.Empty() && (!seq.ReadASN1(&null, tag.NULL) || !null.Empty() || !seq.Empty()) {
		return false
	}
	for _, one := range allowed {
		if oid.Equal(one) {
			return true
		}
	}
	return false
}

// readNumber reads an INTEGER that is not negative and has at most maxNumber
// bytes; zero is empty.
func readNumber(in *cryptobyte.String, into *[]byte) bool {
	var n []byte
	if !in.ReadASN1Integer(&n) || len(n) > maxNumber {
		return false
	}
	*into = bytes.Clone(n)
	return true
}

// Match checks that a token answers this request: the same imprint, nonce and,
// where one was asked for, policy. Its signature is checked by Verify.
func (r *Request) Match(t *Token) error {
	switch {
	case t.Imprint != r.Imprint:
		return fmt.Errorf("%w: the imprint is another one than was sent", ErrMismatch)
	case !bytes.Equal(t.Nonce, r.Nonce):
		return fmt.Errorf("%w: the nonce is another one than was sent: an old answer was played again, or the authority mixes up requests", ErrMismatch)
	case len(r.Policy) > 0 && !t.Policy.Equal(r.Policy):
		return fmt.Errorf("%w: issued under policy %v, %v was asked for", ErrMismatch, t.Policy, r.Policy)
	}
	return nil
}

// maxStatusText bounds what is shown of an authority's words, bytes.
const maxStatusText = 200

// ParseResponse reads a TimeStampResp and gives the token's DER, or an error
// of class ErrRefused with the status and the words of the authority.
func ParseResponse(der []byte) ([]byte, error) {
	if len(der) > MaxResponse {
		return nil, malformed("response: %d bytes, at most %d are possible", len(der), MaxResponse)
	}
	var seq, status, token cryptobyte.String
	in := cryptobyte.String(der)
	if !in.ReadASN1(&seq, tag.SEQUENCE) || !in.Empty() || !seq.ReadASN1(&status, tag.SEQUENCE) {
		return nil, malformed("response: not a TimeStampResp")
	}
	granted, err := readStatus(status)
	if err != nil {
		return nil, err
	}
	if !granted || !seq.ReadASN1Element(&token, tag.SEQUENCE) || !seq.Empty() {
		return nil, malformed("response: granted, and no token or more than one")
	}
	return bytes.Clone(token), nil
}

// readStatus says whether a token was granted, with or without modifications
// (what was modified shows when the token is matched with the request).
func readStatus(status cryptobyte.String) (bool, error) {
	var code int
	if !status.ReadASN1Integer(&code) || code < 0 {
		return false, malformed("response: status")
	}
	words, err := readFreeText(&status)
	if err != nil {
		return false, err
	}
	if status.PeekASN1Tag(tag.BIT_STRING) && !status.SkipASN1(tag.BIT_STRING) || !status.Empty() {
		return false, malformed("response: failure information")
	}
	if code > 1 {
		return false, fmt.Errorf("%w: status %d, it says %q", ErrRefused, code, words)
	}
	return true, nil
}

func readFreeText(status *cryptobyte.String) (string, error) {
	var list, one cryptobyte.String
	if !status.PeekASN1Tag(tag.SEQUENCE) {
		return "", nil
	}
	var text []byte
	ok := status.ReadASN1(&list, tag.SEQUENCE)
	for ok && !list.Empty() {
		if ok = list.ReadASN1(&one, tag.UTF8String); ok && len(text) < maxStatusText {
			text = append(append(text, one...), ' ')
		}
	}
	if !ok {
		return "", malformed("response: status text")
	}
	return string(bytes.TrimSpace(text[:min(len(text), maxStatusText)])), nil
}
