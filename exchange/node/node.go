// Package node is what a gateway does with documents: Submit takes one in from
// a sending agency, Intake takes items in from a neighbour, Work distributes
// and delivers, Act signs for or returns, Trace and Evidence tell and prove.
//
// Every use case is a synchronous function of (store, blobs, keys, clock,
// random, input). The package owns no goroutine, socket or timer, so the same
// code runs in production, in tests and in the simulation.
//
// # The one commit point
//
// A step becomes true in one transaction: record, lane entries, receipt and
// ledger leaf together. Payload bytes are durable before it, acknowledgements
// go out after it. Signing never happens inside a transaction: a use case
// looks (View), decides, signs, and decides again under Lock or Insert in the
// Update. When another got there first, what was signed is thrown away and
// the stored bytes count.
//
// # The way of one document
//
//	Submit   seal → parts durable → commit {document, consignment, fan, ACCEPTED, leaf}
//	Work     fan out: per next hop one Outbound and its lane entry; local recipients are delivered
//	Outgoing the link asks what goes next; Settle notes what the neighbour took
//	Intake   header, consignment, parts, each its own commit; complete → the same fan
//	Work     deliver: open, compare with the header, commit {dedup, inbox, DELIVERED, leaf, lane home}
//	Act      SIGNED_FOR or RETURNED, commit {receipt, leaf, lane home}
//	Intake   receipt at the sender: verified, stored as bytes; Trace folds them
package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Keys are the private keys a node works with: its own, those of the agencies
// it serves, and the storage key.
type Keys interface {
	Has(id sm.Digest) bool
	Sign(id sm.Digest, msg []byte) ([]byte, error)
	Unwrap(id sm.Digest, sealed []byte) ([]byte, error)
	SealRow(row, plain []byte) ([]byte, error)
	OpenRow(row, sealed []byte) ([]byte, error)
	MAC(parts ...[]byte) sm.Digest
}

// Config is everything a node stands on. Directory must always give a
// verified directory; it may give a newer one at any call. Rand must be safe
// for concurrent use; nil is crypto/rand. Clock names the source of Now in
// receipts; empty is "system".
type Config struct {
	ID        string
	Store     queue.Store
	Blobs     queue.Blobs
	Keys      Keys
	Directory func() *certs.Directory
	Now       func() time.Time
	Rand      io.Reader
	Clock     string
}

// Node is one gateway identity. Its methods are safe for concurrent use.
type Node struct {
	c        Config
	ledger   queue.Ledger
	ledgerID string

	mu      sync.Mutex
	changed chan struct{}

	running sync.Map // idempotency keys whose submission is under way
	work    workState
	lanes   laneCursors
	heads   headState
}

// New opens a node over its store. The first start fixes the node's name and
// its ledger's id in the store; a store of another node is refused.
func New(ctx context.Context, c Config) (*Node, error) {
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Clock == "" {
		c.Clock = "system"
	}
	n := &Node{c: c, ledger: queue.Ledger{Name: "main"}, changed: make(chan struct{})}
	n.work.init()
	n.lanes.init()
	if err := n.identify(ctx); err != nil {
		return nil, err
	}
	return n, nil
}

func (n *Node) identify(ctx context.Context) error {
	fresh := records.NodeIdentity{Node: n.c.ID, Ledger: n.newID()}
	var have *records.NodeIdentity
	err := n.c.Store.Update(ctx, func(tx queue.Tx) (err error) {
		if err = records.Identity.Insert(tx, &fresh); err == nil {
			have = &fresh
			return nil
		}
		if !errors.Is(err, queue.ErrExists) {
			return err
		}
		have, err = records.Identity.Get(tx)
		return err
	})
	if err != nil {
		return fmt.Errorf("node: identity: %w", err)
	}
	if have.Node != n.c.ID {
		return fmt.Errorf("node: the store belongs to node %q, not to %q: give each node its own data directory", have.Node, n.c.ID)
	}
	n.ledgerID = have.Ledger
	return nil
}

// ID is the node's name in the directory.
func (n *Node) ID() string { return n.c.ID }

// LedgerID names the node's ledger.
func (n *Node) LedgerID() string { return n.ledgerID }

// Directory is the directory in force now.
func (n *Node) Directory() *certs.Directory { return n.c.Directory() }

// Now is the node's clock.
func (n *Node) Now() time.Time { return n.c.Now() }

// Rand is the node's source of randomness.
func (n *Node) Rand() io.Reader { return n.c.Rand }

func (n *Node) now() strictjson.Time { return strictjson.TimeOf(n.c.Now()) }

func (n *Node) newID() string {
	return ulid.MustNew(ulid.Timestamp(n.c.Now()), n.c.Rand).String()
}

// Changed is closed at the next commit that may have made work, lane entries
// or something to show. Take it, then look, then wait: nothing is missed.
func (n *Node) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// Wake tells waiters to look again; for changes that come from outside the
// store, like a new directory.
func (n *Node) Wake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.changed)
	n.changed = make(chan struct{})
}

// update commits and wakes whoever waits for work.
func (n *Node) update(ctx context.Context, fn func(queue.Tx) error) error {
	if err := n.c.Store.Update(ctx, fn); err != nil {
		return err
	}
	n.Wake()
	return nil
}

func (n *Node) view(ctx context.Context, fn func(queue.Tx) error) error {
	return n.c.Store.View(ctx, fn)
}

// Signer signs as this node with its newest certificate.
func (n *Node) Signer() (cms.Signer, error) {
	self, ok := n.Directory().Node(n.c.ID)
	if !ok {
		return nil, exchange.Fail(exchange.CodeInternal, "the directory does not name this node %q; admit it and publish", n.c.ID)
	}
	cert, err := self.Current("sign", n.c.Now())
	if err != nil {
		return nil, certificateError(err)
	}
	return certs.Signer(n.c.Keys, cert), nil
}

func (n *Node) agencySigner(code string) (cms.Signer, error) {
	agency, ok := n.Directory().Agency(code)
	if !ok {
		return nil, exchange.Fail(exchange.CodeForbidden, "agency %s is not in the directory", code)
	}
	cert, err := agency.Current("sign", n.c.Now())
	if err != nil {
		return nil, certificateError(err)
	}
	if !n.c.Keys.Has(cert.KeyID) {
		return nil, exchange.Fail(exchange.CodeForbidden, "this node does not hold the signing key of %s", code)
	}
	return certs.Signer(n.c.Keys, cert), nil
}

// UnwrapNode opens an SM2 ciphertext made for one of this node's encryption
// certificates.
func (n *Node) UnwrapNode(sealed []byte) ([]byte, error) {
	self, ok := n.Directory().Node(n.c.ID)
	if !ok {
		return nil, sm.ErrDecrypt
	}
	return n.unwrapAny(self.Certificates, sealed)
}

func (n *Node) unwrapAny(list []certs.Certificate, sealed []byte) ([]byte, error) {
	err := error(sm.ErrDecrypt)
	for _, c := range list {
		if c.Use != "encrypt" || !n.c.Keys.Has(c.KeyID) {
			continue
		}
		plain, e := n.c.Keys.Unwrap(c.KeyID, sealed)
		if e == nil {
			return plain, nil
		}
		err = e
	}
	return nil, err
}

func certificateError(err error) error {
	code := exchange.CodeCertificateExpired
	var ce *certs.Error
	if errors.As(err, &ce) {
		code = ce.Code
	}
	return &exchange.Error{Code: code, Err: err}
}
