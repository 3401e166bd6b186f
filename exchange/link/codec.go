// Package link carries items between two neighbouring nodes in bundles: one
// numbered, SM2-signed batch of items at a time (docs/spec/bundle-v1.md). Over
// https a request is a bundle and its response another.
//
// codec.go knows bytes only, secure.go keys, [Session] numbering and
// acknowledgements. The package owns no goroutine and no socket: adapters
// carry what [Session.Next] gives and hand what comes to [Session.Receive].
//
// One document through the package: the sender's Next asks node.Outgoing what
// goes next, fixes the list under a number, signs and seals; the receiver's
// Receive checks the bundle, then each item on its own through node.Intake,
// and its next bundle says of each item what became of it; the sender's
// Receive hands that to node.Settle.
package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Limits of a bundle; all are checked before anything is allocated.
const (
	MaxClearHeader = 8 << 10  // bytes, signed
	MaxSection     = 12 << 20 // bytes of the sealed section
	MaxItems       = 4096     // items in a bundle
	MaxBundle      = 96 << 20 // bytes
	MaxAcks        = 64       // bundles acknowledged at once
	MaxHeads       = 16
	FillBytes      = 4 << 20 // what a sender puts in, a single larger item aside
	FillItems      = 2000
)

const (
	magic      = "YZB1"
	footMagic  = "YZBE"
	footerSize = 12
	bundleType = "yizhan-bundle"
	innerType  = "yizhan-bundle-inner"
)

// ErrFault marks a bundle that cannot be used as a whole: damaged, forged or
// not for us. Nothing of it was taken; the neighbour still holds everything.
var ErrFault = errors.New("link: the bundle cannot be used")

// ErrNewer marks a fault of the moment: the neighbour signs with a certificate
// that only a newer directory than ours lists, and did not bring that one,
// since it does not know what we have. Answer with a [Notice].
var ErrNewer = fmt.Errorf("%w: it is signed under a newer directory, which did not come along", ErrFault)

func fault(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFault, fmt.Sprintf(format, args...))
}

// Clear is the signed header in front of a bundle. Everything behind it is
// covered: the section by its SM3, the parts by their digests in the section.
type Clear struct {
	Type      string          `json:"type"`
	V         int             `json:"v"`
	Crit      []string        `json:"crit,omitempty"`
	Domain    string          `json:"domain"`
	Link      string          `json:"link"`
	From      string          `json:"from"`
	To        string          `json:"to"`
	Epoch     string          `json:"epoch"`
	Seq       uint64          `json:"seq"`
	Created   strictjson.Time `json:"created"`
	Directory uint64          `json:"directory"`
	Key       []byte          `json:"key"`  // the epoch's secret, SM2-wrapped
	Cert      sm.Digest       `json:"cert"` // for which certificate
	Salt      []byte          `json:"salt"`
	Sealed    Extent          `json:"sealed"`
	Parts     PartsExtent     `json:"parts"`
	Extra     strictjson.Extra
}

// Extent is a run of bytes and their SM3.
type Extent struct {
	Size  int64     `json:"size"`
	SM3   sm.Digest `json:"sm3"`
	Extra strictjson.Extra
}

// PartsExtent counts the payload parts behind the section.
type PartsExtent struct {
	Count int   `json:"count"`
	Size  int64 `json:"size"`
	Extra strictjson.Extra
}

// Inner is the head of the sealed section: what is acknowledged, how the
// ledgers stand, and which items follow.
type Inner struct {
	Type       string          `json:"type"`
	V          int             `json:"v"`
	Crit       []string        `json:"crit,omitempty"`
	Acks       []Ack           `json:"acks"`
	Seen       *SeenHead       `json:"seen,omitempty"`
	Checkpoint *ProvenHead     `json:"checkpoint,omitempty"`
	Restored   []byte          `json:"restored,omitempty"` // a signed node.RestoreNotice
	Passage    *Passage        `json:"passage,omitempty"`  // on a ferry
	Status     []byte          `json:"status,omitempty"`   // a signed node.Status
	Heads      [][]byte        `json:"heads"`
	Inside     bool            `json:"inside,omitempty"` // the parts lie in the section as well
	Items      []ManifestEntry `json:"items"`
	Secret     []byte          `json:"secret,omitempty"` // over a link of one way
	Extra      strictjson.Extra
}

// Ack says what became of each item of one bundle. Header is the SM3 of that
// bundle's clear header: an ack for other content under the same number is
// not an ack.
type Ack struct {
	Epoch  string    `json:"epoch"`
	Seq    uint64    `json:"seq"`
	Header sm.Digest `json:"header"`
	Items  []AckItem `json:"items"`
	Extra  strictjson.Extra
}

// AckItem is one item's outcome; an empty status is not answered.
type AckItem struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
	Extra  strictjson.Extra
}

// SeenHead is what the sender of the bundle remembers of the receiver's ledger.
type SeenHead struct {
	Ledger string    `json:"ledger"`
	Size   uint64    `json:"size"`
	Root   sm.Digest `json:"root"`
	Extra  strictjson.Extra
}

// ProvenHead is the sender's own checkpoint with a consistency proof.
type ProvenHead struct {
	CMS   []byte      `json:"cms"`
	From  uint64      `json:"from"`
	Proof []sm.Digest `json:"proof"`
	Extra strictjson.Extra
}

// ManifestEntry names one item. Digest is the SM3 of its bytes, of a part the
// digest of its subtree.
type ManifestEntry struct {
	Kind     string    `json:"kind"`
	ID       string    `json:"id"`
	Size     int64     `json:"size"`
	Digest   sm.Digest `json:"sm3"`
	Critical bool      `json:"critical,omitempty"`
	Extra    strictjson.Extra
}

// parseClear reads and checks the JSON of a clear header.
func parseClear(b []byte) (*Clear, error) {
	var c Clear
	if err := strictjson.Unmarshal(b, &c); err != nil {
		return nil, fault("clear header: %v", err)
	}
	switch {
	case c.Type != bundleType || c.V != 1:
		return nil, fault("not a %s of version 1", bundleType)
	case c.Sealed.Size < sm.Overhead || c.Sealed.Size > MaxSection:
		return nil, fault("a sealed section of %d bytes", c.Sealed.Size)
	case c.Parts.Count < 0 || c.Parts.Count > MaxItems || c.Parts.Size < 0 || c.Parts.Size > MaxBundle:
		return nil, fault("%d parts of %d bytes", c.Parts.Count, c.Parts.Size)
	case len(c.Key) > 512 || len(c.Salt) != 16 || len(c.Epoch) != 32:
		return nil, fault("key, salt or epoch")
	}
	return &c, nil
}

// parseInner reads the head of a section and gives the bytes of its items.
func parseInner(section []byte) (*Inner, []byte, error) {
	if len(section) < 4 {
		return nil, nil, fault("a section without head")
	}
	n := int64(binary.BigEndian.Uint32(section))
	if n > int64(len(section)-4) {
		return nil, nil, fault("a section's head longer than the section")
	}
	var in Inner
	if err := strictjson.Unmarshal(section[4:4+n], &in); err != nil {
		return nil, nil, fault("section: %v", err)
	}
	body := section[4+n:]
	return &in, body, in.check(int64(len(body)))
}

func (in *Inner) check(body int64) error {
	if in.Type != innerType || in.V != 1 {
		return fault("not a %s of version 1", innerType)
	}
	if len(in.Acks) > MaxAcks || len(in.Heads) > MaxHeads || len(in.Items) > MaxItems {
		return fault("too many acks, heads or items")
	}
	var small int64
	for _, e := range in.Items {
		if e.Size < 0 || e.Size > MaxBundle || len(e.ID) > 256 {
			return fault("an item of %d bytes", e.Size)
		}
		if e.Kind != node.KindPart || in.Inside {
			small += e.Size
		}
	}
	if small != body {
		return fault("items of %d bytes in %d", small, body)
	}
	return nil
}

// checkParts compares the manifest with the clear header.
func (in *Inner) checkParts(p PartsExtent) error {
	count, size := 0, int64(0)
	for _, e := range in.Items {
		if e.Kind == node.KindPart && !in.Inside {
			count++
			size += e.Size
		}
	}
	if count != p.Count || size != p.Size {
		return fault("the parts are not those the header announces")
	}
	return nil
}

// joinSection is the reverse of parseInner. It leaves room for what sealing adds.
func joinSection(in *Inner, items []byte) ([]byte, error) {
	in.Type, in.V = innerType, 1
	head, err := strictjson.Marshal(in)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(head)+len(items)+tagSize), uint32(len(head)))
	return append(append(out, head...), items...), nil
}

// appendFrame writes magic and signed clear header.
func appendFrame(signed []byte) []byte {
	out := append([]byte(magic), 0, 0, 0, 0)
	binary.BigEndian.PutUint32(out[4:], uint32(len(signed)))
	return append(out, signed...)
}

// readFrame reads magic and signed clear header.
func readFrame(r io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil || string(head[:4]) != magic {
		return nil, fault("it does not begin like a bundle")
	}
	n := binary.BigEndian.Uint32(head[4:])
	if n > MaxClearHeader {
		return nil, fault("a clear header of %d bytes, at most %d are possible", n, MaxClearHeader)
	}
	signed := make([]byte, n)
	if _, err := io.ReadFull(r, signed); err != nil {
		return nil, fault("it ends in its header")
	}
	return signed, nil
}

func footer(total int64) []byte {
	return binary.BigEndian.AppendUint64([]byte(footMagic), uint64(total))
}

// whole says whether a footer for this total length comes next: without it
// the bundle was cut off.
func whole(r io.Reader, total int64) bool {
	var got [footerSize]byte
	_, err := io.ReadFull(r, got[:])
	return err == nil && string(got[:]) == string(footer(total))
}
