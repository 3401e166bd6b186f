package merkle

import (
	"errors"
	"fmt"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// The "type" members and bounds of what this package encodes, bytes.
const (
	CheckpointType = "yizhan-checkpoint"
	LeafType       = "yizhan-leaf"
	MaxCheckpoint  = 2 << 10
	MaxLeaf        = 1 << 10
)

// ErrMalformed is what is not a leaf or a checkpoint in its one encoding.
var ErrMalformed = errors.New("merkle: malformed")

// Checkpoint is the head of a ledger: its size and root at a time. It is
// signed by the node as a CMS object.
type Checkpoint struct {
	Type   string          `json:"type"`
	V      int             `json:"v"`
	Crit   []string        `json:"crit,omitempty"`
	Domain string          `json:"domain"`
	Ledger string          `json:"ledger"`
	Node   string          `json:"node"`
	Size   uint64          `json:"size"`
	Root   sm.Digest       `json:"root"`
	Time   strictjson.Time `json:"time"`
	Extra  strictjson.Extra
}

// Marshal gives the one encoding.
func (c *Checkpoint) Marshal() ([]byte, error) {
	c.Type, c.V = CheckpointType, 1
	return strictjson.Marshal(c)
}

// ParseCheckpoint reads the one encoding.
func ParseCheckpoint(b []byte) (*Checkpoint, error) {
	var c Checkpoint
	if err := parse(b, MaxCheckpoint, &c); err != nil {
		return nil, fmt.Errorf("%w: checkpoint: %w", ErrMalformed, err)
	}
	if c.Type != CheckpointType || c.V != 1 || c.Ledger == "" || c.Node == "" {
		return nil, fmt.Errorf("%w: not a %s of version 1", ErrMalformed, CheckpointType)
	}
	return &c, nil
}

// Leaf is one state change in a ledger: what happened, to which envelope
// (header hash; empty when to none), and the SM3 of the object that proves it.
type Leaf struct {
	Type     string          `json:"type"`
	V        int             `json:"v"`
	Crit     []string        `json:"crit,omitempty"`
	Event    string          `json:"event"`
	Envelope string          `json:"envelope,omitempty"`
	Object   sm.Digest       `json:"object"`
	At       strictjson.Time `json:"at"`
	Extra    strictjson.Extra
}

// Marshal gives the one encoding.
func (l *Leaf) Marshal() ([]byte, error) {
	l.Type, l.V = LeafType, 1
	return strictjson.Marshal(l)
}

// ParseLeaf reads the one encoding.
func ParseLeaf(b []byte) (*Leaf, error) {
	var l Leaf
	if err := parse(b, MaxLeaf, &l); err != nil {
		return nil, fmt.Errorf("%w: leaf: %w", ErrMalformed, err)
	}
	if l.Type != LeafType || l.V != 1 || l.Event == "" {
		return nil, fmt.Errorf("%w: not a %s of version 1", ErrMalformed, LeafType)
	}
	return &l, nil
}

func parse(b []byte, atMost int, into any) error {
	if len(b) > atMost {
		return fmt.Errorf("%d bytes, at most %d are possible", len(b), atMost)
	}
	return strictjson.Unmarshal(b, into)
}
