// Package tsatest is a small timestamp authority for tests: real tokens under
// a key of its own, over HTTP or by a call, and made to fail, to be slow or to
// lie at will.
package tsatest

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"net/http"
	"sync"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp"
)

// Fault is what the authority does wrong.
type Fault string

// The faults. Each is answered with a response that a client must not take.
const (
	None         Fault = ""
	Down         Fault = "down"          // HTTP 503
	Slow         Fault = "slow"          // answers when the client has gone
	Refuses      Fault = "refuses"       // status 2
	Garbage      Fault = "garbage"       // bytes that are no response
	Huge         Fault = "huge"          // more than any response may have
	WrongNonce   Fault = "wrong-nonce"   // an old answer, played again
	OtherImprint Fault = "other-imprint" // a token for something else
	OtherKey     Fault = "other-key"     // signed by somebody else
	FarOff       Fault = "far-off"       // its clock is a year ahead
)

// Faults lists all of them.
var Faults = []Fault{Down, Slow, Refuses, Garbage, Huge, WrongNonce, OtherImprint, OtherKey, FarOff}

// Policy is the policy that tokens are issued under: an arc for examples.
var Policy = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 1}

// Key is a timestamp authority's key with its certificate. It is a signer for
// [timestamp.Issuer].
type Key struct {
	Private *sm.PrivateKey
	DER     []byte
	rand    io.Reader
}

// Certificate is the certificate's DER.
func (k *Key) Certificate() []byte { return k.DER }

// Sign signs as the holder of the certificate.
func (k *Key) Sign(msg []byte) ([]byte, error) { return sm.Sign(k.rand, k.Private, msg) }

// WithRandom is the same key with another source of randomness.
func (k *Key) WithRandom(rand io.Reader) *Key { return &Key{k.Private, k.DER, rand} }

// Template is the certificate of a timestamp authority as it should be, valid
// from a year before a time to ten years after it.
func Template(at time.Time) *smx509.Certificate {
	timeStamping := []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}}
	usage, err := asn1.Marshal(timeStamping)
	if err != nil {
		panic(err) // a constant
	}
	return &smx509.Certificate{
		SerialNumber: big.NewInt(at.Unix()), Subject: pkix.Name{CommonName: "示范时间戳机构"},
		NotBefore: at.AddDate(-1, 0, 0), NotAfter: at.AddDate(10, 0, 0), KeyUsage: smx509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}},
	}
}

// NewKey makes a key and lets it sign its own certificate after a template.
// The same random bytes give the same key.
func NewKey(rand io.Reader, template *smx509.Certificate) (*Key, error) {
	return IssueKey(rand, template, nil)
}

// IssueKey is NewKey with a certificate that another key issues.
func IssueKey(rand io.Reader, template *smx509.Certificate, by *Key) (*Key, error) {
	private, err := sm.GenerateKey(rand)
	if err != nil {
		return nil, err
	}
	parent, signer := template, private
	if by != nil {
		if parent, err = smx509.ParseCertificate(by.DER); err != nil {
			return nil, err
		}
		signer = by.Private
	}
	der, err := smx509.CreateCertificate(rand, template, parent, &private.PublicKey, signer)
	return &Key{Private: private, DER: der, rand: rand}, err
}

// TSA is the authority. It is safe for concurrent use.
type TSA struct {
	mu     sync.Mutex
	key    *Key
	other  *Key
	now    func() time.Time
	fault  Fault
	serial int64
	issued int
}

// New makes an authority whose certificate is valid around now().
func New(rand io.Reader, now func() time.Time) (*TSA, error) {
	key, err := NewKey(rand, Template(now()))
	if err != nil {
		return nil, err
	}
	other, err := NewKey(rand, Template(now()))
	return &TSA{key: key, other: other, now: now, serial: 1}, err
}

// Certificate is the authority's certificate, DER.
func (t *TSA) Certificate() []byte { return t.key.DER }

// Fail makes it do wrong from now on, or right again with None.
func (t *TSA) Fail(f Fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fault = f
}

// Issued is how many requests were answered rightly.
func (t *TSA) Issued() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.issued
}

// Respond answers a request. Of Down and Slow it knows nothing: they are about
// the connection.
func (t *TSA) Respond(query []byte) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, err := timestamp.ParseRequest(query)
	if err != nil {
		return timestamp.Refusal(2, "bad request"), nil
	}
	by, at := t.key, t.now()
	switch t.fault {
	case Refuses:
		return timestamp.Refusal(2, "not today"), nil
	case Garbage:
		return []byte("<html>502 Bad Gateway</html>"), nil
	case Huge:
		return make([]byte, 1<<20), nil
	case WrongNonce:
		r.Nonce = []byte{0x2a}
	case OtherImprint:
		r.Imprint[0] ^= 1
	case OtherKey:
		by = t.other
	case FarOff:
		at = at.AddDate(1, 0, 0)
	case None:
		t.issued++
	}
	t.serial++
	issuer := timestamp.Issuer{Signer: by, Policy: Policy, Accuracy: time.Second}
	return issuer.Issue(r, t.serial, at)
}

// ServeHTTP is RFC 3161, 3.4.
func (t *TSA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query, err := io.ReadAll(io.LimitReader(r.Body, timestamp.MaxRequest+1))
	t.mu.Lock()
	fault := t.fault
	t.mu.Unlock()
	switch fault {
	case Down:
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	case Slow: // the server notices that the client has gone because the body was read
		<-r.Context().Done()
		return
	}
	if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/timestamp-query" {
		http.Error(w, "a timestamp query is posted", http.StatusBadRequest)
		return
	}
	answer, err := t.Respond(query)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	_, _ = w.Write(answer)
}
