package node

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Trace is the way of one document as far as this node can prove it.
type Trace struct {
	Document         string                    `json:"document"`
	Header           sm.Digest                 `json:"header"`
	Title            string                    `json:"title,omitempty"`
	Number           string                    `json:"number,omitempty"`
	Sender           string                    `json:"sender"`
	SenderName       string                    `json:"sender_name"`
	Label            exchange.Label            `json:"label"`
	Urgency          exchange.Urgency          `json:"urgency"`
	Kind             exchange.Kind             `json:"kind"`
	Created          strictjson.Time           `json:"created"`
	Expires          strictjson.Time           `json:"expires"`
	RelatesTo        string                    `json:"relates_to,omitempty"`
	State            exchange.State            `json:"state"`
	StateChinese     string                    `json:"state_zh"`
	Recipients       []exchange.RecipientState `json:"recipients"`
	Events           []Event                   `json:"events"`
	Requests         []RequestLine             `json:"requests,omitempty"`
	Receipts         int                       `json:"receipts"`
	ReceiptsVerified bool                      `json:"receipts_verified"`
	LedgerVerified   bool                      `json:"ledger_verified"`
}

// Event is one receipt in a Trace. Verified: its signature is by whoever the
// directory allows to say this, and the document it names is this one. Leaf
// is its place in this node's ledger.
type Event struct {
	Time       strictjson.Time `json:"time"`
	Stage      exchange.Stage  `json:"stage"`
	Chinese    string          `json:"zh"`
	English    string          `json:"en"`
	Node       string          `json:"node"`
	Agency     string          `json:"agency,omitempty"`
	AgencyName string          `json:"agency_name,omitempty"`
	Actor      *exchange.Actor `json:"actor,omitempty"`
	Recipients []string        `json:"recipients,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	ReasonZH   string          `json:"reason_zh,omitempty"`
	ReasonEN   string          `json:"reason_en,omitempty"`
	Detail     *ActDetail      `json:"detail,omitempty"`
	Receipt    sm.Digest       `json:"receipt"`
	After      []sm.Digest     `json:"after,omitempty"` // what it builds on: receipts, a request
	Verified   bool            `json:"verified"`
	Leaf       uint64          `json:"leaf"`
}

// RequestLine is one request of the sender in a Trace. Its signature was
// verified when it came.
type RequestLine struct {
	Request    sm.Digest       `json:"request"`
	Wish       exchange.Wish   `json:"kind"`
	Chinese    string          `json:"zh"`
	English    string          `json:"en"`
	Time       strictjson.Time `json:"time"`
	Actor      *exchange.Actor `json:"actor,omitempty"`
	Recipients []string        `json:"recipients"`
}

// dossier is everything stored about one document that a party may see.
type dossier struct {
	hh       sm.Digest
	env      *records.Envelope
	e        *envelope.Envelope
	routing  *exchange.Routing
	sealed   []byte
	receipts []*storedReceipt
	requests []*storedRequest
	sender   bool // the asker is the sender
}

// load finds a document among what the agency sent or received. Other
// agencies get the same answer as for a document that does not exist.
func (n *Node) load(ctx context.Context, agency, document string) (*dossier, error) {
	d := new(dossier)
	err := n.view(ctx, func(tx queue.Tx) error {
		*d = dossier{}
		if err := d.find(tx, agency, document); err != nil {
			return err
		}
		var err error
		if d.env, err = records.Envelopes.Get(tx, d.hh); err != nil {
			return err
		}
		if d.requests, err = requestsIn(tx, d.hh); err != nil {
			return err
		}
		d.receipts, err = n.receiptsOf(tx, d.hh)
		return err
	})
	if err != nil {
		return nil, err
	}
	if d.env == nil {
		return nil, absent(true, "envelope")
	}
	if d.e, err = n.loadHeader(ctx, d.hh, d.env); err != nil {
		return nil, err
	}
	slices.SortFunc(d.receipts, byTime)
	d.routing, err = exchange.ParseRouting(d.e.Header.Routing)
	return d, err
}

func (d *dossier) find(tx queue.Tx, agency, document string) error {
	sent, err := records.Documents.Get(tx, agency, document)
	if err != nil {
		return err
	}
	if sent != nil {
		d.hh, d.sealed, d.sender = sent.Header, sent.Sealed, true
		return nil
	}
	hh, err := records.InboxByID.Get(tx, agency, document)
	if err != nil {
		return err
	}
	if hh == nil {
		return exchange.Fail(exchange.CodeNotFound, "document %s", document)
	}
	row, err := records.Inbox.Get(tx, agency, *hh)
	if err != nil || row == nil {
		return errors.Join(err, absent(row == nil, "inbox row"))
	}
	d.hh, d.sealed = *hh, row.Sealed
	return nil
}

// byTime orders receipts for a person; equal times by stage, then by id, so
// that every look gives the same list.
func byTime(a, b *storedReceipt) int {
	if a.body.Time != b.body.Time {
		return int(a.body.Time - b.body.Time)
	}
	if a.body.Stage.Rank() != b.body.Stage.Rank() {
		return a.body.Stage.Rank() - b.body.Stage.Rank()
	}
	return strings.Compare(a.id.String(), b.id.String())
}

// visible limits a recipient to the receipts about itself; the sender sees
// all.
func (d *dossier) visible(agency string) []*storedReceipt {
	if d.sender {
		return d.receipts
	}
	return slices.DeleteFunc(slices.Clone(d.receipts), func(s *storedReceipt) bool {
		return !s.body.Concerns(agency)
	})
}

// Trace tells an agency the way of a document it sent or received; every
// receipt is verified again.
func (n *Node) Trace(ctx context.Context, agency, document string) (*Trace, error) {
	d, err := n.load(ctx, agency, document)
	if err != nil {
		return nil, err
	}
	s, err := n.openSummary(d.hh, d.sealed)
	if err != nil {
		return nil, err
	}
	t := &Trace{
		Document: d.env.ID, Header: d.hh, Title: s.Title, Number: s.Number,
		Sender: d.env.Sender, SenderName: n.agencyName(d.env.Sender),
		Label: d.routing.Label, Urgency: d.routing.Urgency, Kind: d.routing.Kind,
		Created: d.routing.Created, Expires: d.routing.Expires, RelatesTo: d.routing.RelatesTo, ReceiptsVerified: true,
	}
	if err := n.addEvents(t, d, agency); err != nil {
		return nil, err
	}
	t.addRequests(d, agency)
	t.LedgerVerified, err = n.leavesHold(ctx, d.visible(agency))
	return t, err
}

func (n *Node) addEvents(t *Trace, d *dossier, agency string) error {
	var good []*exchange.Receipt
	for _, s := range d.visible(agency) {
		r := s.body
		ev := Event{
			Time: r.Time, Stage: r.Stage, Chinese: r.Stage.ChineseFor(r.Reason), English: r.Stage.EnglishFor(r.Reason), Node: r.Node,
			Agency: r.Agency, AgencyName: n.agencyName(r.Agency), Actor: r.Actor, Recipients: r.Recipients,
			Reason: r.Reason, ReasonZH: exchange.Reason(r.Reason, "zh"), ReasonEN: exchange.Reason(r.Reason, "en"), Receipt: s.id, After: r.After, Leaf: s.row.Leaf,
			Verified: exchange.Judge(n.Directory(), d.e, r, s.signed, s.row.At.Time()) == nil,
		}
		if d.sender {
			var err error
			if ev.Detail, err = n.openDetail(d.hh, d.env.Sender, s.row.Detail); err != nil {
				return err
			}
		}
		if ev.Verified {
			good = append(good, r)
		}
		t.ReceiptsVerified = t.ReceiptsVerified && ev.Verified
		t.Events = append(t.Events, ev)
	}
	recipients := exchange.Recipients(d.e)
	if !d.sender {
		recipients = []string{agency}
	}
	t.Receipts = len(t.Events)
	t.State, t.Recipients = exchange.Fold(recipients, good)
	t.StateChinese = t.State.Chinese()
	for i := range t.Recipients {
		t.Recipients[i].Name = n.agencyName(t.Recipients[i].Agency)
	}
	return nil
}

// addRequests lists the sender's requests, to a recipient those about it.
func (t *Trace) addRequests(d *dossier, agency string) {
	for _, r := range d.requests {
		b := r.body
		if !b.About(d.e) || !d.sender && !slices.Contains(b.Recipients, agency) {
			continue
		}
		line := RequestLine{Request: r.id, Wish: b.Wish, Chinese: b.Wish.Chinese(), English: b.Wish.English(), Time: b.Time, Actor: b.Actor, Recipients: b.Recipients}
		if !d.sender {
			line.Recipients = []string{agency}
		}
		t.Requests = append(t.Requests, line)
	}
	slices.SortFunc(t.Requests, func(a, b RequestLine) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), strings.Compare(a.Request.String(), b.Request.String()))
	})
}

// leavesHold checks that each receipt's leaf names it and that the leaf is in
// the ledger's tree.
func (n *Node) leavesHold(ctx context.Context, list []*storedReceipt) (bool, error) {
	holds := true
	err := n.view(ctx, func(tx queue.Tx) error {
		size, err := n.ledger.Size(tx)
		if err != nil {
			return err
		}
		root, err := n.ledger.Root(tx, size)
		if err != nil {
			return err
		}
		for _, s := range list {
			ok, err := n.leafHolds(tx, s, size, root)
			if err != nil {
				return err
			}
			holds = holds && ok
		}
		return nil
	})
	return holds, err
}

func (n *Node) leafHolds(tx queue.Tx, s *storedReceipt, size uint64, root sm.Digest) (bool, error) {
	b, err := n.ledger.Leaf(tx, s.row.Leaf)
	if err != nil {
		return false, err
	}
	leaf, err := merkle.ParseLeaf(b)
	if err != nil || leaf.Object != s.id {
		return false, nil
	}
	proof, err := n.ledger.Inclusion(tx, s.row.Leaf, size)
	if err != nil {
		return false, err
	}
	return merkle.VerifyInclusion(merkle.LeafHash(b), s.row.Leaf, size, proof, root) == nil, nil
}

// Receipt gives a receipt's stored CMS bytes.
func (n *Node) Receipt(ctx context.Context, agency, document string, id sm.Digest) ([]byte, error) {
	d, err := n.load(ctx, agency, document)
	if err != nil {
		return nil, err
	}
	for _, s := range d.visible(agency) {
		if s.id == id {
			return s.row.CMS, nil
		}
	}
	return nil, exchange.Fail(exchange.CodeNotFound, "receipt %s", id)
}

// Summary is one line of an agency's list of sent documents.
type Summary struct {
	ID         string
	Title      string
	Number     string
	Kind       exchange.Kind
	Urgency    exchange.Urgency
	Created    strictjson.Time
	State      exchange.State
	Recipients int
	SignedFor  int
}

// Sent lists what an agency sent, newest first, beginning behind the
// document id after (empty: the newest).
func (n *Node) Sent(ctx context.Context, agency, after string, limit int) ([]Summary, error) {
	var rows []*records.Document
	var ids []string
	var receipts [][]*storedReceipt
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		rows, receipts = nil, nil
		if ids, err = sentIDs(tx, agency, after, limit); err != nil {
			return err
		}
		for _, id := range ids {
			row, err := records.Documents.Get(tx, agency, id)
			if err != nil || row == nil {
				return errors.Join(err, absent(row == nil, "document"))
			}
			list, err := n.receiptsOf(tx, row.Header)
			if err != nil {
				return err
			}
			rows, receipts = append(rows, row), append(receipts, list)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([]Summary, len(rows))
	for i, row := range rows {
		if out[i], err = n.summaryLine(ctx, ids[i], row, receipts[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func sentIDs(tx queue.Tx, agency, after string, limit int) (ids []string, err error) {
	collect := func(_ []byte, id *string) bool {
		ids = append(ids, *id)
		return true
	}
	if after == "" {
		return ids, records.SentOrder.Each(tx, limit, collect, agency)
	}
	last, err := records.Documents.Get(tx, agency, after)
	if err != nil {
		return nil, err
	}
	if last == nil {
		return nil, exchange.Fail(exchange.CodeNotFound, "document %s", after)
	}
	err = records.SentOrder.EachBehind(tx, limit, collect, []any{agency}, newestFirst(last.Created), after)
	return ids, err
}

// newestFirst turns a time into a key part that sorts later times first.
func newestFirst(t strictjson.Time) uint64 { return ^uint64(t) }

func (n *Node) summaryLine(ctx context.Context, id string, row *records.Document, receipts []*storedReceipt) (Summary, error) {
	s, err := n.openSummary(row.Header, row.Sealed)
	if err != nil {
		return Summary{}, err
	}
	env, err := n.envelopeRow(ctx, row.Header)
	if err != nil || env == nil {
		return Summary{}, errors.Join(err, absent(env == nil, "envelope"))
	}
	e, err := n.loadHeader(ctx, row.Header, env)
	if err != nil {
		return Summary{}, err
	}
	var bodies []*exchange.Receipt
	for _, r := range receipts {
		bodies = append(bodies, r.body)
	}
	state, recipients := exchange.Fold(exchange.Recipients(e), bodies)
	line := Summary{ID: id, Title: s.Title, Number: s.Number, Kind: s.Kind, Urgency: s.Urg, Created: row.Created, State: state, Recipients: len(recipients)}
	for _, r := range recipients {
		if r.Stage.Rank() >= exchange.StageSignedFor.Rank() {
			line.SignedFor++
		}
	}
	return line, nil
}
