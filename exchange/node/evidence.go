package node

import (
	"context"
	"errors"
	"io"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Evidence writes the proof file of a document for an agency that sent or
// received it: header, receipts with their ledger proofs, the directory, and
// the manifest's fields and files when a key to open them is here.
func (n *Node) Evidence(ctx context.Context, agency, document string, w io.Writer) error {
	d, err := n.load(ctx, agency, document)
	if err != nil {
		return err
	}
	dir := n.Directory()
	f := &evidence.File{Domain: dir.Domain(), Authority: dir.Authority(), Directory: dir.Raw()}
	if n.c.CRLs != nil {
		f.CRLs = atMostCRLs(n.c.CRLs())
	}
	if f.Header, err = n.headerBytes(ctx, d.hh, d.env); err != nil {
		return err
	}
	if f.Disclosed, err = n.disclose(ctx, d, agency); err != nil {
		return err
	}
	if err := n.proveReceipts(ctx, d.visible(agency), f); err != nil {
		return err
	}
	b, err := f.Marshal()
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// atMostCRLs keeps an evidence file within its bounds. A list that is left out
// does not make anything true: it can only make a verifier accept what this
// node, which knows the list, refused long before.
func atMostCRLs(list [][]byte) (out [][]byte) {
	total := 0
	for _, b := range list {
		if total += len(b); len(out) == evidence.MaxCRLs || total > evidence.MaxCRLBytes {
			break
		}
		out = append(out, b)
	}
	return out
}

// proveReceipts adds receipts, leaves and inclusion proofs, all against one
// checkpoint: the oldest one with a timestamp that covers all of them, else the
// newest, which is then time-pending or, where nothing is stamped, as old as
// the node says.
func (n *Node) proveReceipts(ctx context.Context, list []*storedReceipt, f *evidence.File) error {
	stamp, err := n.stampFor(ctx, list)
	if err != nil {
		return err
	}
	var size uint64
	var root sm.Digest
	err = n.view(ctx, func(tx queue.Tx) (err error) {
		f.Receipts = nil
		if stamp != nil {
			size = stamp.Size
		} else if size, err = n.ledger.Size(tx); err != nil {
			return err
		}
		if root, err = n.ledger.Root(tx, size); err != nil {
			return err
		}
		for _, s := range list {
			r := evidence.Receipt{CMS: s.row.CMS, Seen: s.row.At, Index: s.row.Leaf}
			if r.Leaf, err = n.ledger.Leaf(tx, s.row.Leaf); err != nil {
				return err
			}
			if r.Proof, err = n.ledger.Inclusion(tx, s.row.Leaf, size); err != nil {
				return err
			}
			f.Receipts = append(f.Receipts, r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if stamp != nil {
		f.Checkpoint, f.Timestamp = stamp.CMS, stamp.Token
		return nil
	}
	f.Checkpoint, err = n.checkpoint(size, root)
	return err
}

// stampFor finds the oldest stamped checkpoint that covers all receipts and
// whose token counts. One whose authority the directory no longer names, or
// names as revoked, would only spoil the file; a later one, by another
// authority, proves the same with a later time. Those that count are looked for
// by halves: there may be many that do not, and they are the older ones.
func (n *Node) stampFor(ctx context.Context, list []*storedReceipt) (found *records.Stamp, err error) {
	var leaf, size uint64
	for _, s := range list {
		leaf = max(leaf, s.row.Leaf)
	}
	if err := n.view(ctx, func(tx queue.Tx) (err error) { size, err = n.ledger.Size(tx); return err }); err != nil {
		return nil, err
	}
	at := leaf // the oldest first: it is nearly always the one
	for low, high := leaf, size; low < high; at = low + (high-low)/2 {
		var stamp *records.Stamp
		err := n.view(ctx, func(tx queue.Tx) (err error) {
			stamp, err = n.stampCovering(tx, at)
			return err
		})
		switch {
		case err != nil:
			return nil, err
		case stamp == nil:
			high = at
		case n.counts(stamp):
			found, high = stamp, at
		default:
			low = stamp.Size
		}
	}
	return found, nil
}

func (n *Node) counts(s *records.Stamp) bool {
	_, err := evidence.VerifyStamp(n.Directory(), s.CMS, s.Token)
	return err == nil
}

// disclose opens the manifest with the asker's slot. Without the key nothing
// is disclosed; the receipts still verify.
func (n *Node) disclose(ctx context.Context, d *dossier, agency string) ([]evidence.Leaf, error) {
	i, slot, err := n.slotOf(ctx, d, agency)
	if err != nil || slot == nil {
		return nil, err
	}
	if _, here := n.encryptionKey(d.e.Header.Recipients[i]); !here {
		return nil, nil
	}
	opened, err := n.open(ctx, d.e, i, slot)
	if err != nil && !errors.Is(err, envelope.ErrOpen) {
		return nil, err
	}
	if err != nil {
		return nil, exchange.Fail(exchange.CodeUnreadable, "document %s", d.env.ID)
	}
	leaves, err := opened.Disclose()
	if err != nil {
		return nil, err
	}
	out := make([]evidence.Leaf, len(leaves))
	for k, l := range leaves {
		out[k] = evidence.Leaf{Name: l.Name, Salt: l.Salt, Value: l.Value}
	}
	return out, nil
}

// slotOf finds the asker's slot among the consignments stored here: the self
// slot of the sender, the recipient slot of a receiver.
func (n *Node) slotOf(ctx context.Context, d *dossier, agency string) (int, []byte, error) {
	role := envelope.RoleRecipient
	if d.sender {
		role = envelope.RoleSelf
	}
	for i, r := range d.e.Header.Recipients {
		if r.Agency != agency || r.Role != role {
			continue
		}
		slot, err := n.findSlot(ctx, d.hh, i)
		return i, slot, err
	}
	return 0, nil, nil
}

func (n *Node) findSlot(ctx context.Context, hh sm.Digest, i int) ([]byte, error) {
	var bodies []records.Body
	err := n.view(ctx, func(tx queue.Tx) error {
		bodies = nil
		return records.Incoming.Each(tx, 0, func(_ []byte, c *records.Consignment) bool {
			bodies = append(bodies, c.Body)
			return true
		}, hh)
	})
	if err != nil {
		return nil, err
	}
	for _, body := range bodies {
		b, err := body.Load(ctx, n.c.Blobs)
		if err != nil {
			return nil, err
		}
		item, err := ParseConsignment(b)
		if err != nil {
			return nil, err
		}
		if slot := item.Slot(i); slot != nil {
			return slot, nil
		}
	}
	return nil, nil
}
