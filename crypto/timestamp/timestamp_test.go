package timestamp_test

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
)

var when = time.Date(2026, 11, 25, 8, 0, 0, 250_000_000, time.UTC)

func now() time.Time { return when }

func random(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// stamp asks an authority for a token over a text.
func stamp(t testing.TB, a *tsatest.TSA, text string) (*timestamp.Request, []byte) {
	t.Helper()
	r := must[*timestamp.Request](t)(timestamp.NewRequest(sm.Sum([]byte(text)), random(9)))
	query := must[[]byte](t)(r.Marshal())
	answer := must[[]byte](t)(a.Respond(query))
	return r, must[[]byte](t)(timestamp.ParseResponse(answer))
}

func TestRequestIssueParseVerify(t *testing.T) {
	a := must[*tsatest.TSA](t)(tsatest.New(random(1), now))
	r, der := stamp(t, a, "checkpoint")
	token := must[*timestamp.Token](t)(timestamp.Parse(der))
	if err := r.Match(token); err != nil {
		t.Error(err)
	}
	if err := token.Verify(a.Certificate()); err != nil {
		t.Error(err)
	}
	if !token.Time.Equal(when) || token.Accuracy != time.Second || !token.Policy.Equal(tsatest.Policy) || token.Imprint != sm.Sum([]byte("checkpoint")) {
		t.Errorf("%+v", token)
	}
	if !bytes.Equal(token.Raw(), der) {
		t.Error("Raw is not what was parsed")
	}
}

// A request survives its own codec, with and without what is optional.
func TestRequestCodec(t *testing.T) {
	for name, r := range map[string]*timestamp.Request{
		"all":  {Imprint: sm.Sum([]byte("x")), Nonce: []byte{1, 2, 3}, Policy: tsatest.Policy, CertReq: true},
		"none": {Imprint: sm.Sum([]byte("x"))},
	} {
		der := must[[]byte](t)(r.Marshal())
		again := must[*timestamp.Request](t)(timestamp.ParseRequest(der))
		if !bytes.Equal(must[[]byte](t)(again.Marshal()), der) {
			t.Errorf("%s: another encoding", name)
		}
		if _, err := timestamp.ParseRequest(append(der, 0)); !errors.Is(err, timestamp.ErrMalformed) {
			t.Errorf("%s: trailing byte: %v", name, err)
		}
	}
	if _, err := timestamp.ParseRequest(make([]byte, timestamp.MaxRequest+1)); !errors.Is(err, timestamp.ErrMalformed) {
		t.Errorf("too large: %v", err)
	}
}

// Every way in which the authority lies or fails ends in the error that names
// it.
func TestALyingAuthorityIsNamed(t *testing.T) {
	a := must[*tsatest.TSA](t)(tsatest.New(random(1), now))
	r := must[*timestamp.Request](t)(timestamp.NewRequest(sm.Sum([]byte("x")), random(9)))
	query := must[[]byte](t)(r.Marshal())
	for fault, want := range map[tsatest.Fault]error{
		tsatest.Refuses: timestamp.ErrRefused, tsatest.Garbage: timestamp.ErrMalformed, tsatest.Huge: timestamp.ErrMalformed,
		tsatest.WrongNonce: timestamp.ErrMismatch, tsatest.OtherImprint: timestamp.ErrMismatch, tsatest.OtherKey: timestamp.ErrSigner,
	} {
		a.Fail(fault)
		der, err := timestamp.ParseResponse(must[[]byte](t)(a.Respond(query)))
		if err == nil {
			var token *timestamp.Token
			if token, err = timestamp.Parse(der); err == nil {
				err = errors.Join(r.Match(token), token.Verify(a.Certificate()))
			}
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", fault, err, want)
		}
	}
	a.Fail(tsatest.None)
	r.Policy = asn1.ObjectIdentifier{1, 2, 3}
	_, der := stamp(t, a, "x")
	if err := r.Match(must[*timestamp.Token](t)(timestamp.Parse(der))); !errors.Is(err, timestamp.ErrMismatch) {
		t.Errorf("another policy: %v", err)
	}
}

// Only a certificate that is one of a timestamp authority, and valid at the
// token's time, may have signed.
func TestWhoMayTimestamp(t *testing.T) {
	for name, c := range brokenCertificates(t) {
		key := must[*tsatest.Key](t)(tsatest.NewKey(random(3), c))
		issuer := timestamp.Issuer{Signer: key, Policy: tsatest.Policy}
		if _, err := issuer.Issue(&timestamp.Request{Imprint: sm.Sum(nil)}, 1, when); !errors.Is(err, timestamp.ErrSigner) {
			t.Errorf("%s: issued: %v", name, err)
		}
	}
	key := must[*tsatest.Key](t)(tsatest.NewKey(random(4), tsatest.Template(when)))
	issuer := timestamp.Issuer{Signer: key, Policy: tsatest.Policy}
	for _, at := range []time.Time{when.AddDate(-2, 0, 0), when.AddDate(11, 0, 0)} {
		answer := must[[]byte](t)(issuer.Issue(&timestamp.Request{Imprint: sm.Sum(nil)}, 1, at))
		token := must[*timestamp.Token](t)(timestamp.Parse(must[[]byte](t)(timestamp.ParseResponse(answer))))
		if err := token.Verify(key.DER); !errors.Is(err, timestamp.ErrSigner) {
			t.Errorf("token of %v: %v", at, err)
		}
	}
}

// Every single bit of what the signature covers, or of what says who signed,
// matters. The version of SignedData is covered by nothing and may be 1 or 3.
func TestEveryFlipIsNoticed(t *testing.T) {
	a := must[*tsatest.TSA](t)(tsatest.New(random(1), now))
	_, der := stamp(t, a, "checkpoint")
	var survived []int
	for i := range der {
		for bit := range 8 {
			bad := bytes.Clone(der)
			bad[i] ^= 1 << bit
			token, err := timestamp.Parse(bad)
			if err == nil && token.Verify(a.Certificate()) == nil {
				survived = append(survived, i)
			}
		}
	}
	version := bytes.Index(der, []byte{2, 1, 3, 0x31}) + 2
	if len(survived) != 1 || survived[0] != version {
		t.Errorf("flips that verify are in bytes %v, want only the version at %d", survived, version)
	}
}
