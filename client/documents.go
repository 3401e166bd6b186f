package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Document is the metadata of a document that is to be sent. Title, To and Label are
// needed. Words may stand as on paper, in Chinese or English: a label 内部, an
// urgency 特急, a number 遵府办发[2026]012号.
type Document struct {
	Title          string      `json:"title"`
	To             []Recipient `json:"to"`
	Cc             []Recipient `json:"cc,omitempty"`
	Label          string      `json:"label"`
	LabelTerm      string      `json:"label_term,omitempty"`
	Kind           string      `json:"kind,omitempty"`
	Urgency        string      `json:"urgency,omitempty"`
	DocType        string      `json:"doc_type,omitempty"`
	Number         string      `json:"number,omitempty"`
	IssuerMark     string      `json:"issuer_mark,omitempty"`
	Signatory      string      `json:"signatory,omitempty"`
	SignedBy       []string    `json:"signed_by,omitempty"`
	WrittenOn      string      `json:"written_on,omitempty"`
	AttachmentNote string      `json:"attachment_note,omitempty"`
	Remark         string      `json:"remark,omitempty"`
	PrintedBy      string      `json:"printed_by,omitempty"`
	PrintedOn      string      `json:"printed_on,omitempty"`
	ReleaseScope   string      `json:"release_scope,omitempty"`
	Sealed         bool        `json:"sealed,omitempty"`
	Contact        string      `json:"contact,omitempty"`
	DueAt          string      `json:"due_at,omitempty"`
	Expires        *time.Time  `json:"expires,omitempty"`
	RelatesTo      string      `json:"relates_to,omitempty"`
}

// Recipient is an agency by its code, name or alias, or a group. Copies is the range
// of 份号 meant for it, Print how many it may print; 0 says nothing.
type Recipient struct {
	Agency string  `json:"agency"`
	Copies *Copies `json:"copies,omitempty"`
	Print  int64   `json:"print_quota,omitempty"`
}

// Copies is a range of copies, both ends included.
type Copies struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// To names recipients of which nothing else is to be said.
func To(names ...string) (out []Recipient) {
	for _, name := range names {
		out = append(out, Recipient{Agency: name})
	}
	return out
}

// Sent is what a node accepted: it is on the node's disk, and will be delivered or
// end in a signed receipt. Receipt is that of the acceptance, in CMS.
type Sent struct {
	Document string  `json:"document"`
	State    string  `json:"state"`
	Receipt  []byte  `json:"receipt"`
	Warnings []Fault `json:"warnings"`
	Replayed bool    `json:"-"` // the same call had been accepted before
}

// Submit hands a document in; its first file is the body. The files are streamed,
// and read again at each try.
func (c *Client) Submit(ctx context.Context, d *Document, body File, attachments ...File) (*Sent, error) {
	return c.SubmitWith(ctx, d, append([]File{body}, attachments...))
}

// SubmitWith is Submit with options.
func (c *Client) SubmitWith(ctx context.Context, d *Document, files []File, options ...Option) (*Sent, error) {
	u, err := newUpload(d, files)
	if err != nil {
		return nil, err
	}
	q := &call{method: http.MethodPost, path: "/v1/documents", body: u.open, long: true}
	q.header = setting(q.header, "Content-Type", u.contentType())
	// A refusal for what the request's head says comes before its files leave.
	q.header.Set("Expect", "100-continue")
	return c.sent(ctx, q.with(options), nil)
}

func (c *Client) sent(ctx context.Context, q *call, in any) (*Sent, error) {
	out := new(Sent)
	q.answered = func(h http.Header) { out.Replayed = h.Get("Idempotent-Replayed") == "true" }
	if err := c.json(ctx, q, in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// Preview is what would become of a submission.
type Preview struct {
	Acceptable bool                 `json:"acceptable"`
	Document   Understood           `json:"document"`
	Recipients []PreviewedRecipient `json:"recipients"`
	Errors     []Fault              `json:"errors"`
	Warnings   []Fault              `json:"warnings"`
	Directory  uint64               `json:"directory"` // its version
}

// Understood is how the metadata of a document are read.
type Understood struct {
	Label       string    `json:"label"`
	LabelZH     string    `json:"label_zh"`
	LabelTerm   string    `json:"label_term"`
	Kind        string    `json:"kind"`
	KindZH      string    `json:"kind_zh"`
	Urgency     string    `json:"urgency"`
	UrgencyZH   string    `json:"urgency_zh"`
	UrgencyMark string    `json:"urgency_mark"`
	DocType     string    `json:"doc_type"`
	Number      *Number   `json:"number"`
	WrittenOn   string    `json:"written_on"`
	PrintedOn   string    `json:"printed_on"`
	DueAt       string    `json:"due_at"`
	Expires     time.Time `json:"expires"`
}

// Number is a 发文字号. One of another form than 代字〔YYYY〕N号 has Display alone.
type Number struct {
	Prefix  string `json:"prefix"`
	Year    int    `json:"year"`
	Serial  int    `json:"serial"`
	Display string `json:"display"`
}

// PreviewedRecipient is one agency that would receive the document: named in Field by
// its code, name, alias or group.
type PreviewedRecipient struct {
	Agency   string  `json:"agency"`
	Name     string  `json:"name"`
	Role     string  `json:"role"` // to or cc
	Field    string  `json:"field"`
	By       string  `json:"by"`
	Group    string  `json:"group"`
	Copies   *Copies `json:"copies"`
	Print    int64   `json:"print_quota"`
	Node     string  `json:"node"`
	Zone     string  `json:"zone"`
	Route    []Hop   `json:"route"`
	Receipts bool    `json:"receipts"` // whether receipts can come back
	Approval int     `json:"approval"` // administrators who have to approve first
	Refused  string  `json:"refused"`  // a code; empty: it would be sent
}

// Hop is one link on the way.
type Hop struct {
	Link   string `json:"link"`
	Kind   string `json:"kind"`
	Node   string `json:"node"`
	Zone   string `json:"zone"`
	OneWay bool   `json:"one_way"`
}

// Preview judges metadata without files and stores nothing.
func (c *Client) Preview(ctx context.Context, d *Document) (*Preview, error) {
	out := new(Preview)
	return out, c.json(ctx, &call{method: http.MethodPost, path: "/v1/documents/preview"}, d, out)
}

// SentLine is one line of the list of sent documents.
type SentLine struct {
	Document   string    `json:"document"`
	Title      string    `json:"title"`
	Number     string    `json:"number"`
	Created    time.Time `json:"created"`
	State      string    `json:"state"`
	StateZH    string    `json:"state_zh"`
	Recipients int       `json:"recipients"`
	SignedFor  int       `json:"signed_for"`
}

// Sent lists sent documents, newest first, behind the document after (empty: from
// the newest on), at most limit of them, 1 to 500.
func (c *Client) Sent(ctx context.Context, after string, limit int) ([]SentLine, error) {
	q := url.Values{"limit": {number(limit)}}
	if after != "" {
		q.Set("after", after)
	}
	return items[SentLine](ctx, c, "/v1/documents", q)
}

func items[T any](ctx context.Context, c *Client, path string, q url.Values) ([]T, error) {
	var out struct {
		Items []T `json:"items"`
	}
	err := c.json(ctx, &call{method: http.MethodGet, path: path, query: q}, nil, &out)
	return out.Items, err
}

func documentPath(document string, more ...string) string {
	path := "/v1/documents/" + url.PathEscape(document)
	for _, m := range more {
		path += "/" + m
	}
	return path
}

// Status is how a document stands.
type Status struct {
	Document   string           `json:"document"`
	State      string           `json:"state"`
	StateZH    string           `json:"state_zh"`
	Recipients []RecipientState `json:"recipients"`
	Receipts   int              `json:"receipts"`
}

// RecipientState is where one delivery stands. PENDING is of which no receipt
// speaks: not known, never delivered.
type RecipientState struct {
	Agency string    `json:"agency"`
	Name   string    `json:"name"`
	Stage  string    `json:"stage"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

// Status gives the state of a document that was sent or received.
func (c *Client) Status(ctx context.Context, document string) (*Status, error) {
	out := new(Status)
	return out, c.json(ctx, &call{method: http.MethodGet, path: documentPath(document)}, nil, out)
}

// Trace is every stage of a document with its receipts, each verified again by the
// node.
type Trace struct {
	Document         string           `json:"document"`
	Header           string           `json:"header"`
	Title            string           `json:"title"`
	Number           string           `json:"number"`
	Sender           string           `json:"sender"`
	SenderName       string           `json:"sender_name"`
	Label            string           `json:"label"`
	Urgency          string           `json:"urgency"`
	Kind             string           `json:"kind"`
	Created          time.Time        `json:"created"`
	Expires          time.Time        `json:"expires"`
	RelatesTo        string           `json:"relates_to"`
	State            string           `json:"state"`
	StateZH          string           `json:"state_zh"`
	Recipients       []RecipientState `json:"recipients"`
	Events           []Event          `json:"events"`
	Receipts         int              `json:"receipts"`
	ReceiptsVerified bool             `json:"receipts_verified"`
	LedgerVerified   bool             `json:"ledger_verified"`
}

// Event is one receipt of a trace.
type Event struct {
	Time       time.Time `json:"time"`
	Stage      string    `json:"stage"`
	ZH         string    `json:"zh"`
	EN         string    `json:"en"`
	Node       string    `json:"node"`
	Agency     string    `json:"agency"`
	AgencyName string    `json:"agency_name"`
	Actor      *Person   `json:"actor"`
	Recipients []string  `json:"recipients"`
	Reason     string    `json:"reason"`
	ReasonZH   string    `json:"reason_zh"`
	Detail     *Detail   `json:"detail"` // only the sender sees it
	Receipt    string    `json:"receipt"`
	Verified   bool      `json:"verified"`
}

// Detail is what a recipient said to the sender alone.
type Detail struct {
	Opinion string `json:"opinion"`
	Number  string `json:"number"`
	Reason  string `json:"reason"`
}

// Trace gives the way of a document.
func (c *Client) Trace(ctx context.Context, document string) (*Trace, error) {
	out := new(Trace)
	return out, c.json(ctx, &call{method: http.MethodGet, path: documentPath(document, "trace")}, nil, out)
}

// ReceiptLine names one receipt by its SM3.
type ReceiptLine struct {
	Receipt  string    `json:"receipt"`
	Stage    string    `json:"stage"`
	StageZH  string    `json:"stage_zh"`
	Time     time.Time `json:"time"`
	Verified bool      `json:"verified"`
}

// Receipts lists the receipts of a document.
func (c *Client) Receipts(ctx context.Context, document string) ([]ReceiptLine, error) {
	return items[ReceiptLine](ctx, c, documentPath(document, "receipts"), nil)
}

// Receipt gives the signed bytes of a receipt, CMS in DER.
func (c *Client) Receipt(ctx context.Context, document, receipt string) ([]byte, error) {
	var b bytes.Buffer
	err := c.stream(ctx, documentPath(document, "receipts", url.PathEscape(receipt)), &b)
	return b.Bytes(), err
}

// Evidence writes the evidence file of a document, which yzverify checks offline. It
// is whole when there is no error, and only then.
func (c *Client) Evidence(ctx context.Context, document string, to io.Writer) error {
	return c.stream(ctx, documentPath(document, "evidence"), to)
}

func (c *Client) stream(ctx context.Context, path string, to io.Writer) error {
	res, err := c.do(ctx, &call{method: http.MethodGet, path: path, long: true})
	if err != nil {
		return err
	}
	_, err = io.Copy(to, res.Body)
	return errors.Join(err, res.Body.Close())
}

// Person is who acts for the agency.
type Person struct {
	Name string `json:"name"`
	Role string `json:"role,omitempty"`
}

// Asked names the signed requests that a recall or a reminder made. What comes of
// them is in the trace.
type Asked struct {
	Document string   `json:"document"`
	Kind     string   `json:"kind"`
	KindZH   string   `json:"kind_zh"`
	Requests []string `json:"requests"`
}

type askBody struct {
	Actor      Person   `json:"actor"`
	Recipients []string `json:"recipients,omitempty"`
}

// Recall asks for a document back (撤回), from some of its recipients or, with none
// named, from all. Before it is signed for that is done, afterwards it is refused.
func (c *Client) Recall(ctx context.Context, document string, by Person, recipients ...string) (*Asked, error) {
	return c.ask(ctx, document, "recall", by, recipients)
}

// Remind reminds recipients of a document (催办), all when none is named.
func (c *Client) Remind(ctx context.Context, document string, by Person, recipients ...string) (*Asked, error) {
	return c.ask(ctx, document, "remind", by, recipients)
}

func (c *Client) ask(ctx context.Context, document, what string, by Person, recipients []string) (*Asked, error) {
	out := new(Asked)
	return out, c.json(ctx, &call{method: http.MethodPost, path: documentPath(document, what)}, askBody{by, recipients}, out)
}

type againBody struct {
	Recipients []string `json:"recipients,omitempty"`
}

// Resend sends a document again (重发), as a new one that relates to it: to some of
// its recipients or, with none named, to all whose delivery ended without a signature.
func (c *Client) Resend(ctx context.Context, document string, recipients []string, options ...Option) (*Sent, error) {
	q := &call{method: http.MethodPost, path: documentPath(document, "resend")}
	return c.sent(ctx, q.with(options), againBody{recipients})
}

// Supplement sends a document to further recipients (补发), by their codes.
func (c *Client) Supplement(ctx context.Context, document string, recipients []string, options ...Option) (*Sent, error) {
	q := &call{method: http.MethodPost, path: documentPath(document, "supplement")}
	return c.sent(ctx, q.with(options), againBody{recipients})
}

// Agency is one agency of the directory.
type Agency struct {
	Code    string   `json:"code"`
	Name    string   `json:"name"`
	Aliases []string `json:"aliases"`
	Node    string   `json:"node"`
	Zone    string   `json:"zone"`
}

// Agencies searches the directory by code, name or alias; at most limit, 1 to 500.
func (c *Client) Agencies(ctx context.Context, query string, limit int) ([]Agency, error) {
	return items[Agency](ctx, c, "/v1/directory/agencies", url.Values{"q": {query}, "limit": {number(limit)}})
}
