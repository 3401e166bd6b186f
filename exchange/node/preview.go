package node

import (
	"context"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// Hop is one link on the way to a recipient, as the directory has it. Over a link
// of one way nothing comes back.
type Hop struct {
	Link   string `json:"link"`
	Kind   string `json:"kind"`
	Node   string `json:"node"`
	Zone   string `json:"zone,omitempty"`
	OneWay bool   `json:"one_way,omitempty"`
}

// Preview is what would become of a submission: whom it reaches and how, how its
// metadata are understood, what is wrong with it and what is strange.
type Preview struct {
	Acceptable bool               `json:"acceptable"`
	Document   PreviewDocument    `json:"document"`
	Recipients []PreviewRecipient `json:"recipients"`
	Errors     exchange.Faults    `json:"errors"`
	Warnings   exchange.Faults    `json:"warnings"`
	Directory  uint64             `json:"directory"`
}

// PreviewDocument is how the metadata are understood.
type PreviewDocument struct {
	Label       exchange.Label   `json:"label,omitempty"`
	LabelZH     string           `json:"label_zh,omitempty"`
	LabelTerm   string           `json:"label_term,omitempty"`
	Kind        exchange.Kind    `json:"kind,omitempty"`
	KindZH      string           `json:"kind_zh,omitempty"`
	Urgency     exchange.Urgency `json:"urgency,omitempty"`
	UrgencyZH   string           `json:"urgency_zh,omitempty"`
	UrgencyMark string           `json:"urgency_mark,omitempty"`
	DocType     string           `json:"doc_type,omitempty"`
	Number      *PreviewNumber   `json:"number,omitempty"`
	WrittenOn   string           `json:"written_on,omitempty"`
	PrintedOn   string           `json:"printed_on,omitempty"`
	DueAt       string           `json:"due_at,omitempty"`
	Expires     time.Time        `json:"expires"`
}

// PreviewNumber is a 发文字号; without a prefix it is of no known form.
type PreviewNumber struct {
	Prefix  string `json:"prefix,omitempty"`
	Year    int64  `json:"year,omitempty"`
	Serial  int64  `json:"serial,omitempty"`
	Display string `json:"display"`
}

// PreviewRecipient is one receiving agency. Field is where the submission names it;
// Receipts says whether receipts can come back; Approval is how many administrators
// have to approve it at this node first.
type PreviewRecipient struct {
	Agency   string         `json:"agency"`
	Name     string         `json:"name"`
	Role     string         `json:"role"`
	Field    string         `json:"field"`
	By       string         `json:"by"`
	Group    string         `json:"group,omitempty"`
	Copies   *exchange.Span `json:"copies,omitempty"`
	Print    int64          `json:"print_quota,omitempty"`
	Node     string         `json:"node,omitempty"`
	Zone     string         `json:"zone,omitempty"`
	Route    []Hop          `json:"route"`
	Receipts bool           `json:"receipts"`
	Approval int            `json:"approval,omitempty"`
	Refused  string         `json:"refused,omitempty"`
}

// Preview judges a submission without its files as Submit does, and stores nothing.
// What only the files or another node can decide is not known.
func (n *Node) Preview(_ context.Context, s Submission) (*Preview, error) {
	d := n.Directory()
	j, err := n.judge(d, &s, n.c.Now())
	if err != nil {
		return nil, err
	}
	doc := &j.document
	p := &Preview{
		Acceptable: len(j.faults) == 0, Recipients: []PreviewRecipient{}, Errors: append(exchange.Faults{}, j.faults.Told()...), Warnings: append(exchange.Faults{}, j.warnings...), Directory: d.Version(),
		Document: PreviewDocument{
			Label: doc.Label, LabelZH: doc.Label.Chinese(), LabelTerm: doc.LabelTerm, Kind: doc.Kind, KindZH: doc.Kind.Chinese(),
			Urgency: doc.Urgency, UrgencyZH: doc.Urgency.Chinese(), UrgencyMark: doc.UrgencyMark, DocType: doc.DocType,
			WrittenOn: doc.WrittenOn, PrintedOn: doc.PrintedOn, DueAt: doc.DueAt, Expires: j.routing.Expires.Time(),
		},
	}
	if no := doc.Number; no != nil {
		p.Document.Number = &PreviewNumber{no.Prefix, no.Year, no.Serial, no.Display}
	}
	for i := range j.recipients {
		p.Recipients = append(p.Recipients, j.recipient(i))
	}
	return p, nil
}

func (j *judged) recipient(i int) PreviewRecipient {
	to := &j.recipients[i]
	r := PreviewRecipient{
		Agency: to.Agency, Role: "to", Field: to.Field, By: to.By, Group: to.Group,
		Copies: to.Span(), Print: to.Print, Route: []Hop{},
	}
	if i >= len(j.document.To) {
		r.Role = "cc"
	}
	if i >= len(j.reached) {
		return r
	}
	at := &j.reached[i]
	r.Name, r.Node, r.Zone, r.Approval, r.Receipts = at.name, at.node, at.zone, at.approval, at.refused == nil
	r.Route = append(r.Route, at.route...)
	for _, hop := range at.route {
		r.Receipts = r.Receipts && !hop.OneWay
	}
	if at.refused != nil {
		r.Refused = at.refused.Code
	}
	return r
}

// route follows the directory to an agency's node; it ends where no link leads on.
func (n *Node) route(d *certs.Directory, agency string) (hops []Hop) {
	at := n.c.ID
	for {
		link, next, err := d.NextHop(at, agency)
		if err != nil || link == nil {
			return hops
		}
		hop := Hop{Link: link.ID, Kind: link.Kind, Node: next, OneWay: link.OneWay != ""}
		if node, ok := d.Node(next); ok {
			hop.Zone = node.Zone
		}
		hops, at = append(hops, hop), next
	}
}
