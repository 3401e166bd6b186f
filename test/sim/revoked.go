package sim

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
	"github.com/yizhan-gateway/yizhan/queue"
)

// An agency that has not heard of its own key's revocation goes on signing
// with it. What another node first received before the revocation took effect
// counts for ever; what came later is void: refused, or taken by a node that
// had not heard of it either and not counted any more. This file says exactly
// what may be void in a run; everything else must hold.

// evidence is the evidence file of a document.
func (w *world) evidence(d *submission) []byte {
	var b bytes.Buffer
	w.must(d.host.node.Evidence(w.ctx, d.sender, d.id, &b), "evidence")
	return b.Bytes()
}

func (w *world) parsed(proof []byte) *evidence.File {
	f, err := evidence.Parse(proof)
	w.must(err, "evidence")
	return f
}

// bad says whether something is signed with a certificate that the newest
// directory of this run calls revoked.
func (w *world) bad(der []byte) bool {
	return w.last >= versionRevoked && w.cast.revoked[sm.Sum(der)]
}

func (w *world) late(at time.Time) bool { return !at.Before(w.cast.effective) }

// void says whether a receipt of an evidence file does not count.
func (w *world) void(r *evidence.Receipt) bool {
	signed, err := cms.Parse(r.CMS, exchange.MaxReceiptCMS)
	w.must(err, "receipt")
	return w.bad(signed.Certificate) && w.late(r.Seen.Time())
}

func (w *world) statement(r *evidence.Receipt) (sm.Digest, *exchange.Receipt) {
	signed, err := cms.Parse(r.CMS, exchange.MaxReceiptCMS)
	w.must(err, "receipt")
	body, err := exchange.ParseReceipt(signed.Content)
	w.must(err, "receipt")
	return signed.ID(), body
}

// excused says why a delivery need not stand where its agency put it: the
// agency's word is void, or the sender's own header was. Empty when neither.
func (w *world) excused(d *submission, agency string) string {
	f := w.parsed(w.evidence(d))
	for i := range f.Receipts {
		_, body := w.statement(&f.Receipts[i])
		if w.void(&f.Receipts[i]) && body.Concerns(agency) {
			return "what it said is void"
		}
	}
	switch {
	case w.hostOf(agency) == d.host:
	case w.headerRefused(d, f, w.hostOf(agency)):
		return "the header was refused"
	case w.wordRefused(d, agency):
		return "what it said was refused"
	}
	return ""
}

// headerRefused says whether a host refused the document's header with good
// reason: it first came there when its key was revoked.
func (w *world) headerRefused(d *submission, f *evidence.File, at *host) bool {
	e, err := envelope.ParseHeader(f.Header)
	w.must(err, "header")
	if !w.bad(e.SignerCertificate()) {
		return false
	}
	return slices.ContainsFunc(f.Receipts, func(r evidence.Receipt) bool {
		_, body := w.statement(&r)
		return body.Stage == exchange.StageRejected && body.Reason == exchange.CodeCertificateRevoked && body.Node == at.id &&
			w.late(body.Time.Time()) && !w.knew(at, e.Hash)
	})
}

// wordRefused says whether the sender's node refused something the agency
// signed, with good reason, and shows it.
func (w *world) wordRefused(d *submission, agency string) bool {
	tr, err := w.hostOf(agency).node.Trace(w.ctx, agency, d.id)
	if err != nil {
		return false
	}
	rows, err := d.host.node.Quarantined(w.ctx, 10000)
	w.must(err, "quarantine")
	for _, row := range rows {
		id, isReceipt := strings.CutPrefix(row.What, "receipt ")
		if !isReceipt || row.Reason != exchange.CodeCertificateRevoked || !w.late(row.At.Time()) {
			continue
		}
		for _, ev := range tr.Events {
			if ev.Receipt.String() == id && ev.Agency == agency && !w.knew(d.host, ev.Receipt) {
				return true
			}
		}
	}
	return false
}

// knew says whether a host's ledger proves that an object was there before the
// revocation took effect.
func (w *world) knew(h *host, object sm.Digest) (knew bool) {
	ledger := queue.Ledger{Name: "main"}
	w.must(h.store.View(w.ctx, func(tx queue.Tx) error {
		size, err := ledger.Size(tx)
		for i := uint64(0); i < size && err == nil; i++ {
			var b []byte
			if b, err = ledger.Leaf(tx, i); err != nil {
				break
			}
			var l *merkle.Leaf
			if l, err = merkle.ParseLeaf(b); err == nil && l.Object == object && !w.late(l.At.Time()) {
				knew = true
			}
		}
		return err
	}), "ledger")
	return knew
}

// allVoid says whether each problem an auditor finds is about something void.
func (w *world) allVoid(d *submission, f *evidence.File, report *evidence.Report) bool {
	expected := map[string]bool{}
	e, err := envelope.ParseHeader(f.Header)
	w.must(err, "header")
	headerLate := w.bad(e.SignerCertificate())
	for i := range f.Receipts {
		if w.void(&f.Receipts[i]) {
			expected[fmt.Sprintf("receipt %d: ", i)] = true
		}
		if _, body := w.statement(&f.Receipts[i]); body.Node != d.host.id && !w.late(body.Time.Time()) {
			headerLate = false // another node had it in time
		}
	}
	for _, p := range report.Problems {
		about, _, _ := strings.Cut(p, exchange.CodeCertificateRevoked)
		if about == p || !expected[about] && !(headerLate && strings.HasPrefix(about, "header")) {
			return false
		}
	}
	return true
}
