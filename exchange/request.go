package exchange

import (
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Wish is what a sending agency asks for about a document that it sent.
type Wish string

// The wishes.
const (
	WishRecall Wish = "RECALL" // 撤回: it is not to be used, and not to be delivered
	WishRemind Wish = "REMIND" // 催办: it is to be dealt with
)

var wishes = map[Wish]struct{ chinese, english string }{
	WishRecall: {"撤回", "recall"},
	WishRemind: {"催办", "remind"},
}

// Known says whether the wish is one of version 1.
func (w Wish) Known() bool { _, ok := wishes[w]; return ok }

// Chinese gives the official word.
func (w Wish) Chinese() string { return wishes[w].chinese }

// English gives the word for a person.
func (w Wish) English() string { return wishes[w].english }

// Request is one wish, signed by the sending agency. It names the recipients it
// is about, since it may come before the header that names all of them.
type Request struct {
	Type       string          `json:"type"`
	V          int             `json:"v"`
	Crit       []string        `json:"crit,omitempty"`
	Domain     string          `json:"domain"`
	Wish       Wish            `json:"kind"`
	Envelope   string          `json:"envelope"`
	Header     sm.Digest       `json:"header"`
	Recipients []string        `json:"recipients"`
	Agency     string          `json:"agency"`
	Actor      *Actor          `json:"actor,omitempty"`
	Time       strictjson.Time `json:"time"`
	Clock      string          `json:"clock"`
	Directory  uint64          `json:"directory"`
	Reason     string          `json:"reason,omitempty"`
	Extra      strictjson.Extra
}

// RequestType is the "type" member of a Request. MaxRequest bounds its JSON,
// MaxRequestCMS the signed form.
const (
	RequestType          = "yizhan-request"
	MaxRequest           = 28 << 10
	MaxRequestCMS        = MaxRequest + 8<<10
	MaxRequestRecipients = 1000
)

// Marshal gives the request's one encoding.
func (r *Request) Marshal() ([]byte, error) {
	r.Type, r.V = RequestType, 1
	return strictjson.Marshal(r)
}

// ParseRequest reads the one encoding. Who may ask is judged by [JudgeRequest].
func ParseRequest(b []byte) (*Request, error) {
	var r Request
	if len(b) > MaxRequest {
		return nil, Fail(CodeTooLarge, "request: %d bytes, at most %d are possible", len(b), MaxRequest)
	}
	if err := strictjson.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	switch {
	case r.Type != RequestType || r.V != 1:
		return nil, Fail(CodeBadRequest, "request: type %s version 1 is expected", RequestType)
	case !r.Wish.Known():
		return nil, Fail(CodeBadRequest, "request: unknown kind")
	case len(r.Recipients) == 0 || len(r.Recipients) > MaxRequestRecipients:
		return nil, Fail(CodeBadRequest, "request: 1 to %d recipients are expected", MaxRequestRecipients)
	case r.Agency == "" || r.Envelope == "":
		return nil, Fail(CodeBadRequest, "request: agency or envelope is missing")
	}
	return &r, nil
}

// JudgeRequest says whether an agency signed a request. at is when this node
// first received it, as for [Judge].
func JudgeRequest(d *certs.Directory, r *Request, s *cms.Signed, at time.Time) error {
	agency, ok := d.Agency(r.Agency)
	if !ok || r.Domain != d.Domain() {
		return Fail(CodeSignatureInvalid, "agency %s may not ask for anything here", r.Agency)
	}
	return CheckSigner(agency.Certificates, s.Certificate, s, at)
}

// About says whether a request is its sender's about this envelope. One that
// is not asks for something that is somebody else's.
func (r *Request) About(e *envelope.Envelope) bool {
	return r.Header == e.Hash && r.Envelope == e.Header.ID && r.Agency == e.Header.Sender && r.Domain == e.Header.Domain &&
		!slices.ContainsFunc(r.Recipients, func(a string) bool { return !isRecipient(e, a) })
}
