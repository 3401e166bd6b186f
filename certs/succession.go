package certs

import (
	"bytes"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
)

// Bounds of a succession: how often an authority's key was replaced, and the
// bytes of one signed object that says so.
const (
	maxSuccessions = 64
	maxSmallCMS    = 16 << 10
)

// follow finds out whether a reader that trusts one certificate of the
// authority may trust the one that signed a list. It may if they are the same,
// or if the succession leads from the one to the other: each member is a signed
// object by a certificate of the authority over the next one. All of it must
// hold, whichever certificate the reader trusts: what follows after the trusted
// one was signed by it or its heirs, and what comes before it does not matter to
// this reader and must not be garbage to another.
func follow(succession [][]byte, trusted, signer []byte) error {
	if len(succession) > maxSuccessions {
		return fail(codeSignature, "more than %d successions", maxSuccessions)
	}
	reached := bytes.Equal(trusted, signer)
	var last []byte
	for i, der := range succession {
		heir, old, err := readSuccession(der)
		if err != nil {
			return err
		}
		if i > 0 && !bytes.Equal(old, last) {
			return fail(codeSignature, "succession %d is not by the heir of the one before", i)
		}
		reached = reached || bytes.Equal(trusted, old)
		last = heir
	}
	if len(succession) > 0 && !bytes.Equal(last, signer) {
		return fail(codeSignature, "the succession does not end with the certificate that signed the list")
	}
	if !reached {
		return fail(codeSignature, "the list is not signed by the trusted authority, nor by an heir of it")
	}
	return nil
}

// readSuccession reads one signed object of a succession: the new certificate
// and the old one, by which it is signed.
func readSuccession(der []byte) (heir, old []byte, err error) {
	s, err := cms.Parse(der, maxSmallCMS)
	if err == nil {
		err = s.Verify(s.Certificate)
	}
	if err != nil {
		return nil, nil, &Error{Code: codeSignature, Detail: "succession of the authority", Err: err}
	}
	before, err := readCA(s.Certificate, "a former certificate of the authority")
	if err != nil {
		return nil, nil, err
	}
	after, err := readCA(s.Content, "the certificate of the authority's heir")
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(before.RawSubject, after.RawSubject) {
		return nil, nil, fail(codeSignature, "the heir of the authority has another name")
	}
	return s.Content, s.Certificate, nil
}

// descends says whether a certificate is the authority's, or one that it
// succeeds.
func (d *Directory) descends(authority []byte) bool {
	if bytes.Equal(d.authority, authority) {
		return true
	}
	for _, der := range d.list.Succession {
		if _, old, err := readSuccession(der); err == nil && bytes.Equal(old, authority) {
			return true
		}
	}
	return false
}
