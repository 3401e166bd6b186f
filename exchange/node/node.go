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
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/guard"
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
	IDs() []sm.Digest
	SealRow(row, plain []byte) ([]byte, error)
	OpenRow(row, sealed []byte) ([]byte, error)
	MAC(parts ...[]byte) sm.Digest
}

// Config is everything a node stands on. Directory must always give a
// verified directory; it may give a newer one at any call. Rand must be safe
// for concurrent use; nil is crypto/rand. Clock names the source of Now in
// receipts; empty is "system". Without Directories the node neither passes on
// directories nor takes any from neighbours. CRLs, if set, gives the revocation
// lists (DER) that Directory was made with, for evidence; nil for none.
// DeadLetterAfter is how long a neighbour may take until a delivery is parked;
// 0 is DefaultDeadLetterAfter. Together runs do(0) to do(n-1), which do not need
// one another, side by side and returns when all are done: so the signatures
// of many documents keep every core busy and their commits share one disk
// flush; nil runs them one after the other. Room says why no new work may begin
// now, cheaply, since it is asked for every item; nil is never. Inspector looks into
// documents where the directory names this node an inspection point. Guard is
// what may pass the node's links; nil: what the directory's ceilings let pass. About is what the program tells neighbours of itself,
// asked about once a minute; nil is nothing.
type Config struct {
	ID          string
	Store       queue.Store
	Blobs       queue.Blobs
	Keys        Keys
	Directory   func() *certs.Directory
	Directories Directories
	Now         func() time.Time
	Rand        io.Reader
	Clock       string
	CRLs        func() [][]byte
	Together    func(n int, do func(i int))
	Room        func() error
	Inspector   Inspector
	Guard       *guard.Policies
	About       func() About

	DeadLetterAfter time.Duration
}

// Node is one gateway identity. Its methods are safe for concurrent use.
type Node struct {
	c        Config
	ledger   queue.Ledger
	ledgerID string

	mu      sync.Mutex
	changed chan struct{}
	fresh   map[string]bool   // links whose lanes grew
	grown   map[string]uint64 // how often they did
	came    map[string]uint64 // how often something came into an agency's inbox

	running  sync.Map // idempotency keys whose submission is under way
	lanes    laneCursors
	pauses   pauses
	heads    headState
	shown    shownState
	waiting  waitingState
	stamps   stampCursor
	holds    holds
	dead     deadSweep
	expiries expirySweep
	guarded  guardSweep
	headers  headerCache

	restored restored
	events   memory // of what the newest leaves tell
	replays  replays
	offered  offeredMarks
	told     statusPace
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
	if c.DeadLetterAfter == 0 {
		c.DeadLetterAfter = DefaultDeadLetterAfter
	}
	n := &Node{c: c, ledger: queue.Ledger{Name: "main"}, changed: make(chan struct{}), fresh: map[string]bool{}, grown: map[string]uint64{}, came: map[string]uint64{}}
	n.lanes.init(c.Rand)
	n.pauses.init(c.Rand)
	n.shown = shownState{
		version: map[string]uint64{}, apart: map[string]apart{}, refused: map[string]string{}, full: map[string]bool{},
	}
	if err := n.identify(ctx); err != nil {
		return nil, err
	}
	if err := n.readHolds(ctx); err != nil {
		return nil, err
	}
	if err := n.readRestored(ctx); err != nil {
		return nil, err
	}
	if err := n.openBooks(ctx); err != nil {
		return nil, err
	}
	return n, n.readReplays(ctx)
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
		return exchange.Fail(exchange.CodeSetupConflict, "the store belongs to node %q, not to %q: give each node its own data directory", have.Node, n.c.ID)
	}
	n.ledgerID = have.Ledger
	return nil
}

// Together runs tasks that do not need one another's outcome, as the node was
// configured to.
func (n *Node) Together(tasks int, do func(i int)) {
	if n.c.Together != nil && tasks > 1 {
		n.c.Together(tasks, do)
		return
	}
	for i := range tasks {
		do(i)
	}
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

// Fresh names the links whose lanes grew since the last call, so that nobody
// has to look at all links after every commit. It is for one caller; what it
// says is a hint, and after a commit with an unknown outcome it may be missing.
func (n *Node) Fresh() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := slices.Sorted(maps.Keys(n.fresh))
	clear(n.fresh)
	return list
}

// Growth stands for what may be waiting for a link: as long as it stays the
// same, and nothing is [Node.Held], another look finds nothing more. Like Fresh
// it is a hint.
type Growth struct{ lanes, ours, theirs, holds uint64 }

// Growth gives it for a link.
func (n *Node) Growth(link string) Growth {
	g := Growth{ours: n.Directory().Version(), holds: n.HoldChanges()}
	n.mu.Lock()
	g.lanes = n.grown[link]
	n.mu.Unlock()
	n.shown.mu.Lock()
	defer n.shown.mu.Unlock()
	g.theirs = n.shown.version[link]
	return g
}

// Arrivals stands for what is in an agency's inbox: as long as it stays the same,
// nothing new is there. It is a hint, and begins anew with the process.
func (n *Node) Arrivals(agency string) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.came[agency]
}

// growing is a transaction that notes the links whose lanes grow in it, and the
// agencies whose inboxes do.
type growing struct {
	queue.Tx
	links   []string
	inboxes []string
}

func comes(tx queue.Tx, agency string) {
	if g, ok := tx.(*growing); ok {
		g.inboxes = append(g.inboxes, agency)
	}
}

func grows(tx queue.Tx, link string) {
	if g, ok := tx.(*growing); ok {
		g.links = append(g.links, link)
	}
}

// update commits and wakes whoever waits for work.
func (n *Node) update(ctx context.Context, fn func(queue.Tx) error) error {
	var links, inboxes []string
	err := n.c.Store.Update(ctx, func(tx queue.Tx) error {
		g := &growing{Tx: tx}
		err := fn(g)
		links, inboxes = g.links, g.inboxes
		return err
	})
	if err != nil { // it may still be running: links are not ours
		return err
	}
	n.mu.Lock()
	for _, link := range links {
		n.fresh[link] = true
		n.grown[link]++
	}
	for _, agency := range inboxes {
		n.came[agency]++
	}
	n.mu.Unlock()
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
	return n.signer(&self.Holder)
}

func (n *Node) agencySigner(code string) (cms.Signer, error) {
	agency, ok := n.Directory().Agency(code)
	if !ok {
		return nil, exchange.Fail(exchange.CodeForbidden, "agency %s is not in the directory", code)
	}
	return n.signer(&agency.Holder)
}

// signer signs with a holder's newest certificate that is valid now and whose
// key is here. The directory may list a renewed certificate before its key has
// come into this keystore, and the other way round: until both are here the
// one before it goes on signing.
func (n *Node) signer(h *certs.Holder) (cms.Signer, error) {
	now := n.c.Now()
	for i := range h.Certificates {
		c := &h.Certificates[i]
		if exchange.MaySign(c, now) == nil && n.c.Keys.Has(c.KeyID) {
			return certs.Signer(n.c.Keys, c), nil
		}
	}
	c, err := h.Current(certs.UseSign, now)
	if err != nil {
		return nil, certificateError(err)
	}
	return nil, exchange.Fail(exchange.CodeForbidden, "this node does not hold the signing key %s", c.KeyID)
}

// UnwrapNode opens an SM2 ciphertext made for one of this node's encryption
// certificates: of any year, and also one that only the neighbour's newer
// directory lists.
func (n *Node) UnwrapNode(sealed []byte) ([]byte, error) {
	self, ok := n.Directory().Node(n.c.ID)
	if !ok {
		return nil, sm.ErrDecrypt
	}
	plain, err := n.unwrapAny(self.Certificates, sealed)
	if !errors.Is(err, sm.ErrDecrypt) {
		return plain, err
	}
	return n.unwrapUnlisted(self, sealed)
}

// unwrapUnlisted tries the keys that no certificate in the directory names:
// they were made for a renewal that has not come into force here.
func (n *Node) unwrapUnlisted(self *certs.Node, sealed []byte) ([]byte, error) {
	named := map[sm.Digest]bool{}
	note := func(list []certs.Certificate) {
		for _, c := range list {
			named[c.KeyID] = true
		}
	}
	note(self.Certificates)
	for _, a := range n.Directory().Agencies() {
		note(a.Certificates)
	}
	err := error(sm.ErrDecrypt)
	for _, id := range n.c.Keys.IDs() {
		if named[id] {
			continue
		}
		plain, e := n.c.Keys.Unwrap(id, sealed)
		if e == nil {
			return plain, nil
		}
		if !errors.Is(e, sm.ErrDecrypt) {
			err = e
		}
	}
	return nil, err
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
		// A key that could not be asked may be the right one: that goes before
		// the answer of those that are not.
		if !errors.Is(e, sm.ErrDecrypt) {
			err = e
		}
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
