package timestamp_test

import (
	"bytes"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
)

// FuzzResponse: nothing panics, and what verifies is for the imprint that was
// asked for and at the time that was stamped.
func FuzzResponse(f *testing.F) {
	a, err := tsatest.New(random(1), now)
	if err != nil {
		f.Fatal(err)
	}
	r := &timestamp.Request{Imprint: sm.Sum([]byte("x")), Nonce: []byte{1}, CertReq: true}
	query, err := r.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	good, err := a.Respond(query)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(timestamp.Refusal(2, "no"))
	f.Fuzz(func(t *testing.T, b []byte) {
		der, err := timestamp.ParseResponse(b)
		if err != nil {
			der = b // perhaps a bare token
		}
		token, err := timestamp.Parse(der)
		if err != nil || token.Verify(a.Certificate()) != nil {
			return
		}
		if token.Imprint != r.Imprint || !token.Time.Equal(when) {
			t.Fatal("forged")
		}
	})
}

// FuzzRequest: what is accepted encodes to exactly these bytes.
func FuzzRequest(f *testing.F) {
	for _, r := range []*timestamp.Request{
		{Imprint: sm.Sum([]byte("x")), Nonce: []byte{1}, CertReq: true, Policy: tsatest.Policy}, {},
	} {
		der, err := r.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := timestamp.ParseRequest(b)
		if err != nil {
			return
		}
		again, err := r.Marshal()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatal("accepted in another encoding")
		}
	})
}
