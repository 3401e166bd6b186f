package node

import (
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// ConsignmentItem is what goes beside a header to one next hop: the key slots
// of the recipients behind that hop, and the digests of all payload parts.
// The digests are checked against the signed tree root at once, so damage is
// later pinned to the exact part. It is not signed: everything in it is
// bound by the header (docs/spec/bundle-v1.md).
type ConsignmentItem struct {
	Type     string      `json:"type"`
	V        int         `json:"v"`
	Crit     []string    `json:"crit,omitempty"`
	Envelope sm.Digest   `json:"envelope"`
	Again    int         `json:"again,omitempty"` // how often it set out again, after it had come back
	Parts    []sm.Digest `json:"parts"`
	Slots    []SlotItem  `json:"slots"`
	Extra    strictjson.Extra
}

// SlotItem is one key slot; I is its index in the header's recipients.
type SlotItem struct {
	I    int    `json:"i"`
	Slot []byte `json:"slot"`
}

const consignmentType = "yizhan-consignment"

// MaxConsignment bounds a consignment item, bytes: 4,000 slots and the part
// digests of a payload of 16 GiB fit.
const MaxConsignment = 2 << 20

// Marshal gives the one encoding.
func (c *ConsignmentItem) Marshal() ([]byte, error) {
	c.Type, c.V = consignmentType, 1
	return strictjson.Marshal(c)
}

// ParseConsignment reads the one encoding; slots are in rising order.
func ParseConsignment(b []byte) (*ConsignmentItem, error) {
	if len(b) > MaxConsignment {
		return nil, exchange.Fail(exchange.CodeTooLarge, "consignment: %d bytes", len(b))
	}
	var c ConsignmentItem
	if err := strictjson.Unmarshal(b, &c); err != nil {
		return nil, err
	}
	if c.Type != consignmentType || c.V != 1 {
		return nil, exchange.Fail(exchange.CodeBadRequest, "consignment: type %s version 1 is expected", consignmentType)
	}
	last := -1
	for _, s := range c.Slots {
		if s.I <= last {
			return nil, exchange.Fail(exchange.CodeBadRequest, "consignment: slots out of order")
		}
		last = s.I
	}
	if c.Again < 0 || c.Again > maxComeback {
		return nil, exchange.Fail(exchange.CodeBadRequest, "consignment: again is 1 to %d", maxComeback)
	}
	return &c, nil
}

// Verify checks the item against the header it belongs to.
func (c *ConsignmentItem) Verify(e *envelope.Envelope) error {
	if c.Envelope != e.Hash {
		return exchange.Fail(exchange.CodeBadRequest, "consignment: belongs to another envelope")
	}
	if err := e.VerifyParts(c.Parts); err != nil {
		return err
	}
	if len(c.Slots) == 0 {
		return exchange.Fail(exchange.CodeBadRequest, "consignment: names no recipient")
	}
	for _, s := range c.Slots {
		if s.I >= len(e.Header.Recipients) {
			return exchange.Fail(exchange.CodeBadRequest, "consignment: slot %d is not in the header", s.I)
		}
		if err := e.VerifySlot(s.I, s.Slot); err != nil {
			return err
		}
	}
	return nil
}

// Slot gives the slot of a header recipient; nil when it is not in here.
func (c *ConsignmentItem) Slot(i int) []byte {
	for _, s := range c.Slots {
		if s.I == i {
			return s.Slot
		}
	}
	return nil
}

// only gives the consignment for a part of the recipients.
func (c *ConsignmentItem) only(recipients []int) *ConsignmentItem {
	keep := make(map[int]bool, len(recipients))
	for _, i := range recipients {
		keep[i] = true
	}
	out := &ConsignmentItem{Envelope: c.Envelope, Again: c.Again, Parts: c.Parts}
	for _, s := range c.Slots {
		if keep[s.I] {
			out.Slots = append(out.Slots, s)
		}
	}
	return out
}

func slotsOf(indexes []int, slots [][]byte) []SlotItem {
	out := make([]SlotItem, len(indexes))
	for k, i := range indexes {
		out[k] = SlotItem{I: i, Slot: slots[i]}
	}
	return out
}

// bits are a row's set of part indexes.

func fullBits(n int) []byte {
	b := make([]byte, (n+7)/8)
	for i := range n {
		setBit(b, i)
	}
	return b
}

func setBit(b []byte, i int)      { b[i/8] |= 1 << (i % 8) }
func hasBit(b []byte, i int) bool { return i/8 < len(b) && b[i/8]&(1<<(i%8)) != 0 }

func allBits(b []byte, n int) bool {
	for i := range n {
		if !hasBit(b, i) {
			return false
		}
	}
	return true
}
