package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// A node whose store was put back to an earlier state lacks what happened
// since: what its neighbours gave it, and what it had signed. The neighbours
// have both. It goes on under a new ledger id, says so to each neighbour in a
// signed notice beside its checkpoint, and each gives again what lies behind
// what the restored store knew of its ledger (replay.go):
//
//	restored                          neighbour
//	Head: checkpoint of the new       Witness: the notice names the ledger
//	ledger, notice                →   that is known: adopted, replay begins
//	                              ←   own receipts, own headers
//	adoptReceipt, adoptHeader
//	                              ←   documents handed over since
//	deliver: finds the receipt it
//	signed before, signs no other
//
// Nothing is done twice: what had not been lost is answered duplicate, what
// was signed before the loss comes back as the bytes it was.

// RestoreNotice is the signed statement of a node that its store was put back
// to an earlier state.
type RestoreNotice struct {
	Type   string   `json:"type"`
	V      int      `json:"v"`
	Crit   []string `json:"crit,omitempty"`
	Domain string   `json:"domain"`
	Node   string   `json:"node"`
	Link   string   `json:"link"`
	// Ledger is the new one. Old names those before it, the newest first, each
	// as far as the restored store has it.
	Ledger string      `json:"ledger"`
	Old    []LedgerEnd `json:"old"`
	// Have is the neighbour's ledger as far as the restored store knows it: what
	// the neighbour did before that is in the store.
	Have  *LedgerEnd      `json:"have,omitempty"`
	Time  strictjson.Time `json:"time"`
	Extra strictjson.Extra
}

// LedgerEnd is the state of a ledger at a size.
type LedgerEnd struct {
	Ledger string    `json:"ledger"`
	Size   uint64    `json:"size"`
	Root   sm.Digest `json:"root"`
	Extra  strictjson.Extra
}

const (
	restoreNoticeType = "yizhan-restore-notice"
	// MaxRestoreNotice bounds the signed notice, bytes.
	MaxRestoreNotice = 8 << 10
	maxOldLedgers    = 16
)

// ParseRestoreNotice reads the one encoding.
func ParseRestoreNotice(b []byte) (*RestoreNotice, error) {
	var r RestoreNotice
	if len(b) > MaxRestoreNotice {
		return nil, exchange.Fail(exchange.CodeTooLarge, "restore notice: %d bytes, at most %d are possible", len(b), MaxRestoreNotice)
	}
	if err := strictjson.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	if r.Type != restoreNoticeType || r.V != 1 || r.Node == "" || r.Ledger == "" || len(r.Old) == 0 || len(r.Old) > maxOldLedgers {
		return nil, exchange.Fail(exchange.CodeBadRequest, "restore notice: type %s version 1 with 1 to %d old ledgers is expected", restoreNoticeType, maxOldLedgers)
	}
	return &r, nil
}

// restored is the copy of the store's Restored row, and the notices signed from
// it, for each link.
type restored struct {
	row     *records.Restored
	mu      sync.Mutex
	notices map[string][]byte
	heard   map[string]bool // the neighbour knows the new ledger
}

// BeginAgain gives a store that was put back to an earlier state a new ledger
// id, under which the leaves go on, and the leaf that says so. It is for a
// stopped node, before its first bundle. A crash leaves the store as it was or
// begun again; repeating it begins once more, which neighbours follow as well.
func (n *Node) BeginAgain(ctx context.Context) (LedgerEnd, error) {
	if err := n.keepHeads(ctx); err != nil {
		return LedgerEnd{}, err
	}
	id := n.newID()
	var old LedgerEnd
	err := n.c.Store.Update(ctx, func(tx queue.Tx) error {
		identity, err := records.Identity.Lock(tx)
		if err != nil {
			return err
		}
		row, err := records.RestoredRow.Lock(tx)
		if err != nil {
			return err
		}
		old = LedgerEnd{Ledger: identity.Ledger}
		if old.Size, err = n.ledger.Size(tx); err != nil {
			return err
		}
		if old.Root, err = n.ledger.Root(tx, old.Size); err != nil {
			return err
		}
		return n.beginAgainIn(tx, identity, row, old, id)
	})
	if err != nil {
		return LedgerEnd{}, err
	}
	n.ledgerID = id
	return old, n.readRestored(ctx)
}

// keepHeads notes how far the store knows the ledgers of others, in steps. A
// crash in between leaves notes that the next attempt overwrites.
func (n *Node) keepHeads(ctx context.Context) error {
	const step = 200
	for behind := ""; ; {
		var nodes []string
		var heads []records.LedgerEnd
		err := n.view(ctx, func(tx queue.Tx) error {
			nodes, heads = nil, nil
			return records.Heads.EachBehind(tx, step, func(key []byte, h *records.Head) bool {
				nodes = append(nodes, records.Heads.Name(key))
				heads = append(heads, records.LedgerEnd{Ledger: h.Ledger, Size: h.Size, Root: h.Root})
				return true
			}, nil, behind)
		})
		if err != nil || len(nodes) == 0 {
			return err
		}
		err = n.c.Store.Update(ctx, func(tx queue.Tx) error {
			for i, node := range nodes {
				if _, err := records.HadHeads.Lock(tx, node); err != nil {
					return err
				}
				if err := records.HadHeads.Put(tx, &heads[i], node); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		behind = nodes[len(nodes)-1]
	}
}

func (n *Node) beginAgainIn(tx queue.Tx, identity *records.NodeIdentity, row *records.Restored, old LedgerEnd, id string) error {
	last := merkle.Checkpoint{Domain: n.Directory().Domain(), Ledger: old.Ledger, Node: n.c.ID, Size: old.Size, Root: old.Root, Time: n.now()}
	b, err := last.Marshal()
	if err != nil {
		return err
	}
	if _, err := n.append(tx, &merkle.Leaf{Event: eventRestored, Object: sm.Sum(b), At: n.now()}); err != nil {
		return err
	}
	end := records.LedgerEnd{Ledger: old.Ledger, Size: old.Size, Root: old.Root}
	identity.Ledger = id
	if err := records.Identity.Put(tx, identity); err != nil {
		return err
	}
	if row == nil {
		return records.RestoredRow.Insert(tx, &records.Restored{At: n.now(), Last: b, Old: []records.LedgerEnd{end}})
	}
	row.At, row.Last = n.now(), b
	row.Old = slices.Insert(row.Old, 0, end)
	row.Old = row.Old[:min(len(row.Old), maxOldLedgers)]
	return records.RestoredRow.Put(tx, row)
}

func (n *Node) readRestored(ctx context.Context) error {
	return n.view(ctx, func(tx queue.Tx) (err error) {
		n.restored.row, err = records.RestoredRow.Get(tx)
		return err
	})
}

// notice gives the restore notice for a link, until its neighbour has shown
// that it knows the new ledger; nil for a node that was never restored.
func (n *Node) notice(ctx context.Context, link string) ([]byte, error) {
	r := &n.restored
	if r.row == nil {
		return nil, nil
	}
	r.mu.Lock()
	signed, heard := r.notices[link], r.heard[link]
	r.mu.Unlock()
	if heard || signed != nil {
		return signed, nil
	}
	signed, err := n.signNotice(ctx, link)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.notices == nil {
		r.notices = map[string][]byte{}
	}
	r.notices[link] = signed
	return signed, nil
}

// signNotice signs it over what the store knew of the neighbour's ledger when it
// was put back: a head that came since says nothing of what was lost.
func (n *Node) signNotice(ctx context.Context, link string) ([]byte, error) {
	neighbour, err := n.neighbour(link)
	if err != nil {
		return nil, err
	}
	var have *records.LedgerEnd
	err = n.view(ctx, func(tx queue.Tx) (err error) {
		have, err = records.HadHeads.Get(tx, neighbour.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	notice := RestoreNotice{Type: restoreNoticeType, V: 1, Domain: n.Directory().Domain(), Node: n.c.ID, Link: link, Ledger: n.ledgerID, Time: n.restored.row.At}
	for _, o := range n.restored.row.Old {
		notice.Old = append(notice.Old, LedgerEnd{Ledger: o.Ledger, Size: o.Size, Root: o.Root})
	}
	if have != nil {
		notice.Have = &LedgerEnd{Ledger: have.Ledger, Size: have.Size, Root: have.Root}
	}
	b, err := strictjson.Marshal(&notice)
	if err != nil {
		return nil, err
	}
	signer, err := n.Signer()
	if err != nil {
		return nil, err
	}
	return cms.Sign(signer, b, n.c.Now())
}

// Unheard says whether a neighbour has yet to hear that this node was restored.
func (n *Node) Unheard(link string) bool {
	r := &n.restored
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.row != nil && !r.heard[link]
}

// heardOf notes that a neighbour knows our ledger.
func (r *restored) heardOf(link string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.heard == nil {
		r.heard = map[string]bool{}
	}
	r.heard[link] = true
	delete(r.notices, link)
}

// ownReceipt takes back a receipt that this node, or an agency it serves, had
// signed before its store was put back, of a document that is not here yet: the
// document follows. It is not sent home: whoever gives it back has it.
func (n *Node) ownReceipt(ctx context.Context, r *signedReceipt, s *cms.Signed) (Outcome, error) {
	if n.restored.row == nil {
		return Outcome{}, nil
	}
	d := n.Directory()
	list := n.ownCertificates(d, r.body)
	switch {
	case list == nil && n.c.Now().Sub(n.restored.row.At.Time()) > comesBackWithin:
		return Outcome{}, nil
	case list == nil:
		return Outcome{Damaged, reasonDocumentMissing}, nil
	}
	if err := exchange.CheckSigner(list, s.Certificate, s, n.c.Now()); err != nil {
		return Outcome{}, nil
	}
	out := Outcome{Taken, ""}
	err := n.update(ctx, func(tx queue.Tx) error {
		out.Status = Taken
		fresh, err := n.putReceipt(tx, r.body.Header, r, eventReceipt)
		if !fresh {
			out.Status = Duplicate
		}
		return err
	})
	if err != nil {
		return Outcome{}, err
	}
	return out, nil
}

// comesBackWithin is how long after a restore a receipt from elsewhere waits at
// the neighbour for its document, which another neighbour may have to bring.
const comesBackWithin = 7 * 24 * time.Hour

// reasonDocumentMissing asks a neighbour to bring a receipt again later: the
// document it speaks of is on its way.
const reasonDocumentMissing = "document_missing"

// ownCertificates are those of whoever here signed a receipt; nil when it was
// signed elsewhere.
func (n *Node) ownCertificates(d *certs.Directory, r *exchange.Receipt) []certs.Certificate {
	if !r.Stage.ByAgency() {
		if self, ok := d.Node(n.c.ID); ok && r.Node == n.c.ID {
			return self.Certificates
		}
		return nil
	}
	if a, ok := d.Agency(r.Agency); ok && a.Node == n.c.ID {
		return a.Certificates
	}
	return nil
}

// past is what was signed here of one delivery before the store was put back.
type past struct{ inspected, delivered, collected, acted, adopted, completed, ended *storedReceipt }

// again is the stored receipt as one to be stored; nil for none.
func (s *storedReceipt) again() *signedReceipt {
	if s == nil {
		return nil
	}
	return &signedReceipt{id: s.id, cms: s.row.CMS, detail: s.row.Detail, body: s.body}
}

func (n *Node) pastOf(ctx context.Context, hh sm.Digest, agency string) (p past, err error) {
	if n.restored.row == nil {
		return past{}, nil
	}
	var list []*storedReceipt
	err = n.view(ctx, func(tx queue.Tx) (err error) {
		list, err = n.receiptsOf(tx, hh)
		return err
	})
	return n.pastIn(list, agency), err
}

func (n *Node) pastIn(list []*storedReceipt, agency string) (p past) {
	for _, s := range list {
		switch {
		case s.body.Stage == exchange.StageInspected && s.body.Node == n.c.ID && s.body.Concerns(agency):
			p.inspected = s
		case s.body.Stage == exchange.StageDelivered && s.body.Node == n.c.ID && s.body.Concerns(agency):
			p.delivered = s
		case !s.body.Stage.ByAgency() && s.body.Stage.End() && s.body.Node == n.c.ID && len(s.body.Recipients) > 0 && s.body.Concerns(agency):
			p.ended = s
		case s.body.Agency != agency:
		case s.body.Stage == exchange.StageCollected:
			p.collected = s
		case s.body.Stage == exchange.StageAdopted:
			p.adopted = s
		case s.body.Stage == exchange.StageCompleted:
			p.completed = s
		case s.body.Stage.End():
			p.acted = s
		}
	}
	return p
}

// apply enters what the agency had done in its inbox row.
func (p past) apply(row *records.InboxRow) {
	for _, s := range []*storedReceipt{p.collected, p.acted, p.adopted, p.completed} {
		if s != nil {
			*receiptAt(row, s.body.Stage) = s.id
			row.Stage = higher(row.Stage, s.body.Stage)
		}
	}
}

func higher(a, b exchange.Stage) exchange.Stage {
	if b.Rank() > a.Rank() {
		return b
	}
	return a
}

// ownActComesBack enters an act in the inbox of the agency that had signed it.
func (n *Node) ownActComesBack(tx queue.Tx, r *signedReceipt) error {
	agency := r.body.Agency
	if r.body.Stage == exchange.StageRecalled && r.body.Node == n.c.ID && len(r.body.Recipients) == 1 {
		agency = r.body.Recipients[0]
	}
	if n.restored.row == nil || agency == "" {
		return nil
	}
	row, err := records.Inbox.Lock(tx, agency, r.body.Header)
	if err != nil || row == nil {
		return err
	}
	// What follows a signature may come before it.
	said := receiptAt(row, r.body.Stage)
	if row.Stage.Rank() >= r.body.Stage.Rank() && (r.body.Stage.Rank() < exchange.StageSignedFor.Rank() || !said.IsZero()) {
		return nil
	}
	*said, row.Stage = r.id, higher(row.Stage, r.body.Stage)
	return errors.Join(records.Inbox.Put(tx, row, agency, r.body.Header), waits(tx, agency, r.body.Header, row))
}

// intakeOwnHeader takes back the header of a document that was submitted here
// before the store was put back: its receipts have a place again, and its
// sender can trace it. Files and title are with the recipients.
func (n *Node) intakeOwnHeader(ctx context.Context, link string, it Item, b []byte) (Outcome, error) {
	e, routing, ok := parseHeader(b, it)
	if !ok {
		return n.damaged(ctx, link, it, "unparsable", b)
	}
	d := n.Directory()
	sender, known := d.Agency(e.Header.Sender)
	if n.restored.row == nil || !known || sender.Node != n.c.ID {
		return Outcome{Refused, "not_expected"}, nil
	}
	if reason, err := n.verifyHeader(d, e, n.c.Now()); err != nil || reason != "" {
		return n.faulty(ctx, link, it, errors.Join(err, exchange.Fail(exchange.CodeSignatureInvalid, "%s", reason)), b)
	}
	env, err := n.newEnvelope(ctx, d, link, e, b, routing)
	if err != nil {
		return Outcome{}, err
	}
	document := &records.Document{Header: e.Hash, Created: routing.Created, Expires: routing.Expires, Recipients: len(exchange.Recipients(e))}
	out := Outcome{Taken, ""}
	err = n.update(ctx, func(tx queue.Tx) error {
		out.Status = Taken
		err := n.putOwnHeader(tx, e.Hash, env, document)
		if errors.Is(err, queue.ErrExists) {
			out.Status = Duplicate
			return errNothingNew
		}
		return err
	})
	if errors.Is(err, errNothingNew) {
		return Outcome{Duplicate, ""}, n.dropBody(ctx, env.Header)
	}
	if err != nil {
		return Outcome{}, err
	}
	return out, nil
}

func (n *Node) putOwnHeader(tx queue.Tx, hh sm.Digest, env *records.Envelope, doc *records.Document) error {
	if err := records.FirstHeader.Insert(tx, &hh, env.Sender, env.ID); err != nil {
		return err
	}
	if err := records.Documents.Insert(tx, doc, env.Sender, env.ID); err != nil {
		return err
	}
	if err := records.SentOrder.Insert(tx, &env.ID, env.Sender, newestFirst(doc.Created), env.ID); err != nil {
		return err
	}
	if err := n.putEnvelope(tx, hh, env); err != nil {
		return err
	}
	_, err := n.leaf(tx, eventTaken, hh, hh)
	return err
}
