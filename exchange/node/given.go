package node

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// GivenApproval is what an administrator signed, and whether it counts by the
// directory in force: he is named there, his certificate was valid when it came, and
// nobody with the same key has spoken before. Of one that is damaged nothing can be read
// but whose it is.
type GivenApproval struct {
	ID            sm.Digest       `json:"id"`
	Administrator string          `json:"administrator"`
	Name          string          `json:"name,omitempty"`
	Verdict       string          `json:"verdict"`
	Reason        string          `json:"reason,omitempty"`
	Time          strictjson.Time `json:"time"`
	At            strictjson.Time `json:"received"`
	Leaf          uint64          `json:"leaf"`
	Counts        bool            `json:"counts"`
	Damaged       bool            `json:"damaged,omitempty"`

	key []byte
}

// approvalRow is one as it is stored; the row is nil when it cannot be read.
type approvalRow struct {
	administrator string
	row           *records.Approval
}

// approvalRows reads each row for itself: one that is damaged hides no other.
func approvalRows(tx queue.Tx, hh sm.Digest, link string) (rows []approvalRow, err error) {
	lo := records.Approvals.Key(hh, link)
	for kv, err := range tx.Scan(lo, queue.PrefixEnd(lo), 0) {
		if err != nil {
			return nil, err
		}
		r := approvalRow{administrator: linkOf(kv.Key[len(lo):])}
		if row := new(records.Approval); json.Unmarshal(kv.Value, row) == nil {
			r.row = row
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// approvalsOf reads what administrators signed about a document and a link, in the
// order in which it came, and judges it by the directory in force.
func (n *Node) approvalsOf(ctx context.Context, hh sm.Digest, link string) ([]GivenApproval, error) {
	var rows []approvalRow
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		rows, err = approvalRows(tx, hh, link)
		return err
	})
	if err != nil {
		return nil, err
	}
	d, given := n.Directory(), []GivenApproval{}
	for _, r := range rows {
		g, err := n.readApproval(d, r, hh, link)
		if err != nil {
			n.ShowDamage(ctx, fmt.Sprintf("approval of %s over %s by %s", hh, link, r.administrator), err)
		}
		given = append(given, *g)
	}
	slices.SortStableFunc(given, func(a, b GivenApproval) int { return cmp.Compare(a.Leaf, b.Leaf) })
	var spoken [][]byte
	for i := range given {
		g := &given[i]
		if g.Counts = g.Counts && !slices.ContainsFunc(spoken, func(had []byte) bool { return bytes.Equal(had, g.key) }); g.Counts {
			spoken = append(spoken, g.key)
		}
	}
	return given, nil
}

// readApproval reads one, and says whether it counts if nobody with the same key has
// spoken before. With an error it is damaged.
func (n *Node) readApproval(d *certs.Directory, r approvalRow, hh sm.Digest, link string) (*GivenApproval, error) {
	g := &GivenApproval{Administrator: r.administrator, Damaged: true}
	who := administrator(d, r.administrator)
	if who != nil {
		g.Name = who.Name
	}
	if r.row == nil {
		return g, records.ErrUnreadable
	}
	g.Leaf, g.At = r.row.Leaf, r.row.At
	s, a, err := openApproval(r.row.CMS)
	if err != nil {
		return g, fmt.Errorf("%w: %w", records.ErrUnreadable, err)
	}
	if a.Header != hh || a.Link != link || a.Administrator != r.administrator {
		return g, fmt.Errorf("%w: it is another approval", records.ErrUnreadable)
	}
	if g.key, err = keyOf(s.Certificate); err != nil {
		return g, fmt.Errorf("%w: %w", records.ErrUnreadable, err)
	}
	g.ID, g.Verdict, g.Reason, g.Time, g.Damaged = s.ID(), a.Verdict, a.Reason, a.Time, false
	g.Counts = who != nil && a.Domain == d.Domain() && a.Node == n.c.ID && exchange.CheckSigner(who.Certificates, s.Certificate, s, r.row.At.Time()) == nil
	return g, nil
}

func openApproval(signed []byte) (*cms.Signed, *exchange.GuardApproval, error) {
	s, err := cms.Parse(signed, exchange.MaxGuardApprovalCMS)
	if err != nil {
		return nil, nil, &exchange.Error{Code: exchange.CodeGuardApproval, Detail: "it is no signed object", Err: err}
	}
	a, err := exchange.ParseGuardApproval(s.Content)
	return s, a, err
}

// keyOf gives the public key of a certificate, to tell holders apart.
func keyOf(der []byte) ([]byte, error) {
	cert, err := cms.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return cert.RawSubjectPublicKeyInfo, nil
}

func administrator(d *certs.Directory, id string) *certs.Administrator {
	list := d.Administrators()
	if i := slices.IndexFunc(list, func(a *certs.Administrator) bool { return a.ID == id }); i >= 0 {
		return list[i]
	}
	return nil
}
