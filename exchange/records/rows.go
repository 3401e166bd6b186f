package records

import (
	"bytes"
	"context"
	"io"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// The tables, with the parts of their keys. hh stands for the SM3 of an
// envelope's header JSON, which names the envelope everywhere.
var (
	Documents    = Table[Document]{"doc"}      // sender agency, document id
	SentOrder    = Table[string]{"dix"}        // sender agency, newest first, document id
	Envelopes    = Table[Envelope]{"env"}      // hh
	Digests      = Table[PartDigests]{"pdg"}   // hh
	Parts        = Table[Part]{"part"}         // hh, index
	BlobOwners   = Table[Owner]{"blob"}        // blob reference
	Incoming     = Table[Consignment]{"cin"}   // hh, consignment id
	Fans         = Table[Fan]{"fan"}           // hh, consignment id
	Outgoing     = Table[Outbound]{"out"}      // hh, link, consignment id
	Receipts     = Table[Receipt]{"rcp"}       // hh, receipt id
	Delivered    = Table[Dedup]{"ddp"}         // hh, agency
	Inbox        = Table[InboxRow]{"box"}      // agency, hh
	InboxOrder   = Table[sm.Digest]{"inx"}     // agency, sequence
	InboxWaiting = Table[sm.Digest]{"inw"}     // agency, sequence: neither signed for nor returned
	InboxByID    = Table[sm.Digest]{"bid"}     // agency, document id
	InboxCounter = Table[uint64]{"inc"}        // agency
	FirstHeader  = Table[sm.Digest]{"cfl"}     // sender agency, document id
	Idempotency  = Table[Idempotent]{"idm"}    // agency, blind index of the key
	AskedUnder   = Table[sm.Digest]{"ask"}     // agency, blind index of the key, number: a request
	Heads        = Table[Head]{"head"}         // node
	Forks        = Table[Fork]{"fork"}         // node, SM3 of the other head
	BookRows     = Table[Books]{"bok"}         // link
	OutBooks     = Table[OutBook]{"obk"}       // link
	Quarantine   = Table[Quarantined]{"qua"}   // number modulo QuarantineSize
	QuarantineNo = Table[uint64]{"quc"}        //
	Deferred     = Table[DeferredItem]{"dfr"}  // kind, id
	WaitingRows  = Table[Waiting]{"dfw"}       // link
	Identity     = Table[NodeIdentity]{"node"} //
	Neighbours   = Table[Neighbour]{"nbr"}     // link
	InForce      = Table[uint64]{"dirv"}       //
	Holds        = Table[Hold]{"hold"}         // link
	Acts         = Table[OperatorAct]{"act"}   // leaf
	RestoredRow  = Table[Restored]{"rst"}      //
	HadHeads     = Table[LedgerEnd]{"rsh"}     // node
	Replays      = Table[Replay]{"rpl"}        // link
	GivenAgain   = Table[GivenOnceMore]{"rpg"} // link, hh, receipt, request or consignment; for a header hh again
	Offered      = Table[uint64]{"off"}        // lane
	Requests     = Table[Request]{"req"}       // hh, request id
	Answers      = Table[sm.Digest]{"ans"}     // request id, agency: the receipt that refuses it
	Headers      = RawTable{"hdr"}             // hh: the header of an Envelope, when it is no blob
	Expiries     = Table[Expiry]{"exp"}        // when, hh
	Inspections  = Table[Inspection]{"isp"}    // hh, agency; the verdict without one
	FerryOuts    = Table[FerryOut]{"fro"}      // link
	FerryBundles = Table[FerryBundle]{"frb"}   // link, number
	FerryIns     = Table[FerryIn]{"fri"}       // link
	Approvals    = Table[Approval]{"gap"}      // hh, link, administrator
	FerrySecrets = Table[FerrySecret]{"frs"}   // link, epoch, number
	NoWaysBack   = Table[NoWayBack]{"nwb"}     // link
	Statuses     = Table[Status]{"sts"}        // link
)

// QuarantineSize is how many newest quarantine records are kept.
const QuarantineSize = 10000

// NodeIdentity is who this store belongs to, fixed at its first start.
type NodeIdentity struct {
	Node   string
	Ledger string
}

// Neighbour is what a link's neighbour has told of itself: the version of the
// directory that it has in force.
type Neighbour struct{ Directory uint64 }

// Hold says that an operator holds a link, and in which leaf, or when he last
// released it.
type Hold struct {
	Leaf     uint64          `json:"leaf"`
	By       string          `json:"by"`
	Reason   string          `json:"reason"`
	At       strictjson.Time `json:"at"`
	Released strictjson.Time `json:"released,omitzero"`
}

// OperatorAct is what an operator told a node to do. The leaf it is stored
// under has the SM3 of its JSON.
type OperatorAct struct {
	What   string          `json:"what"` // the leaf's event
	Link   string          `json:"link"`
	Item   string          `json:"item,omitempty"`
	By     string          `json:"by"`
	Reason string          `json:"reason,omitempty"`
	At     strictjson.Time `json:"at"`
}

// Restored says that this store was put back to an earlier state: when, the old
// ledger's last checkpoint, and the ledgers it had before, the newest first.
type Restored struct {
	At   strictjson.Time
	Last []byte
	Old  []LedgerEnd
}

// LedgerEnd is a ledger at a size.
type LedgerEnd struct {
	Ledger string
	Size   uint64
	Root   sm.Digest
}

// Replay is the work of giving a restored neighbour again what lies in our
// ledger from Next up to End: first what it had signed (Own), then, when the
// receipts up to entry After of its lane have left, what it had been given.
type Replay struct {
	Node   string
	Ledger string // the neighbour's new one
	From   uint64
	Next   uint64
	End    uint64
	Own    bool
	After  uint64
}

// GivenOnceMore is what a replay gave again, so that another one does not give it twice:
// where it last stood, and the leaf of its last coming, 0 for none.
type GivenOnceMore struct {
	Seq  uint64
	Leaf uint64
}

// Document is the sender's record of a submission.
type Document struct {
	Header     sm.Digest
	Created    strictjson.Time
	Expires    strictjson.Time
	Recipients int
	Sealed     []byte // summary, under the storage key
}

// Envelope is the record of one sealed document on this node.
type Envelope struct {
	ID        string
	Sender    string
	Size      int64 // ciphertext bytes
	Parts     int
	Have      []byte // one bit for each part that is durable here
	Header    Body   // without bytes and blob: in Headers
	Link      string // where it came from; empty: submitted here
	Directory uint64 // the version it was judged with
	At        strictjson.Time
	Expires   strictjson.Time
	Deferred  bool // its directory is newer than ours: not verified yet
	Complete  bool
}

// Expiry says when what is left of a document ends.
type Expiry struct{ At strictjson.Time }

// Body is a piece of up to a few MiB: in the row when small, else a blob.
type Body struct {
	Inline []byte    `json:",omitempty"`
	Ref    queue.Ref `json:",omitempty"`
	Size   int64
}

const inlineBody = 16 << 10

// StoreBody keeps data so that it is durable no later than the transaction
// that writes the Body. A crash in between leaves an unreferenced blob, which
// the sweep removes.
func StoreBody(ctx context.Context, blobs queue.Blobs, data []byte) (Body, error) {
	if len(data) <= inlineBody {
		return Body{Inline: data, Size: int64(len(data))}, nil
	}
	ref, err := blobs.Put(ctx, bytes.NewReader(data), int64(len(data)))
	return Body{Ref: ref, Size: int64(len(data))}, err
}

// Load reads the body back.
func (b Body) Load(ctx context.Context, blobs queue.Blobs) ([]byte, error) {
	if b.Ref == "" {
		return b.Inline, nil
	}
	r, err := blobs.Open(ctx, b.Ref, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data := make([]byte, b.Size)
	_, err = io.ReadFull(r, data)
	return data, err
}

// Own notes whom the body's blob belongs to, so that the sweep spares it.
func (b Body) Own(tx queue.Tx, hh sm.Digest) error {
	if b.Ref == "" {
		return nil
	}
	return BlobOwners.Put(tx, &Owner{Envelope: hh}, string(b.Ref))
}

// PartDigests are the subtree digests of an envelope's parts, one after the
// other.
type PartDigests struct{ Digests []byte }

// At gives the digest of part i.
func (p *PartDigests) At(i int) (d sm.Digest) {
	copy(d[:], p.Digests[i*sm.Size:])
	return d
}

// Len is the number of parts.
func (p *PartDigests) Len() int { return len(p.Digests) / sm.Size }

// List gives all digests.
func (p *PartDigests) List() []sm.Digest {
	out := make([]sm.Digest, p.Len())
	for i := range out {
		out[i] = p.At(i)
	}
	return out
}

// JoinDigests is the reverse of List.
func JoinDigests(list []sm.Digest) *PartDigests {
	var p PartDigests
	for _, d := range list {
		p.Digests = append(p.Digests, d[:]...)
	}
	return &p
}

// Part says where one part of a payload lies.
type Part struct{ Ref queue.Ref }

// Owner says which envelope a blob belongs to.
type Owner struct{ Envelope sm.Digest }

// Consignment is a consignment item as it arrived (or was made at submission).
type Consignment struct {
	Body Body
	Link string
	Back int `json:",omitempty"` // how often it came back after it was handed on
}

// Fan is the progress of distributing one incoming consignment.
type Fan struct {
	Next int    // first recipient of the consignment not yet handled
	Work uint64 // its entry in the work lane; 0 while parts are missing
}

// Outbound is one envelope on its way over one link.
type Outbound struct {
	Recipients []int  // indexes into the header's recipients
	Header     bool   // taken by the neighbour
	Slots      bool   // the consignment item was taken
	Parts      []byte // one bit for each part taken
	Count      int    // of parts
	Lane       string
	Seq        uint64
	State      string // one of those below
	Reason     string
	Left       bool `json:",omitempty"` // it may have left before it came to its place
	Declined   bool `json:",omitempty"` // parked: the neighbour answered that it does not take it
	Guarded    bool `json:",omitempty"` // it may not leave before administrators approve it

	// Over a link of one way: the receipts, one for a thousand recipients.
	Ferried   []sm.Digest `json:",omitempty"`
	Confirmed []sm.Digest `json:",omitempty"` // zero: not yet
}

// The states of an Outbound.
const (
	StateQueued   = "queued"
	StateHanded   = "handed"
	StateRefused  = "refused"
	StateParked   = "parked"
	StateGuarded  = "guarded"
	StateFailed   = "failed"
	StateExpired  = "expired"
	StateRecalled = "recalled"

	StateUnconfirmed = "unconfirmed" // it left without a way back, and nobody confirmed it in time
)

// Inspection is what a look into a document came to: without an agency the
// verdict, with one the INSPECTED receipt that names it.
type Inspection struct {
	Reason  string    `json:",omitempty"` // why it may not pass
	Receipt sm.Digest `json:",omitzero"`
}

// Approval is what an administrator signed about a document that is to go over a
// link, and in which leaf. At is when it came here.
type Approval struct {
	CMS  []byte
	Leaf uint64
	At   strictjson.Time
}

// Receipt is a receipt's stored bytes.
type Receipt struct {
	CMS    []byte
	Detail []byte `json:",omitempty"` // sealed to the sender
	Leaf   uint64 // where the ledger says so
	At     strictjson.Time
}

// Dedup is the mark that a delivery took effect here. One with a Request and
// no Receipt is the tombstone of a document that was recalled before it came.
type Dedup struct {
	Stage   exchange.Stage
	Receipt sm.Digest
	Request sm.Digest `json:",omitzero"`
}

// Pending says whether the mark stands for a document that has yet to come.
func (d *Dedup) Pending() bool { return d.Receipt.IsZero() }

// Request is a request's stored bytes. Link is where it came from; empty: it was
// made here.
type Request struct {
	CMS    []byte
	Agency string // whose it is
	Link   string
	At     strictjson.Time
}

// InboxRow is one document in a receiving agency's inbox.
type InboxRow struct {
	Seq         uint64
	ID          string
	Sender      string
	Slot        int       // index of the agency's slot in the header
	Consignment sm.Digest // which consignment holds the slot
	Received    strictjson.Time
	Stage       exchange.Stage
	Delivered   sm.Digest // receipts
	Collected   sm.Digest
	Acted       sm.Digest
	Adopted     sm.Digest `json:",omitzero"`
	Completed   sm.Digest `json:",omitzero"`
	Sealed      []byte    // summary, under the storage key

	Reminder  sm.Digest       `json:",omitzero"` // the last request
	Reminded  strictjson.Time `json:",omitzero"`
	Reminders int             `json:",omitempty"`
}

// Idempotent remembers what an Idempotency-Key was used for.
type Idempotent struct {
	Document    string
	Header      sm.Digest
	Fingerprint sm.Digest
	At          strictjson.Time
}

// Head is the newest checkpoint of another node's ledger that was verified, and
// the ledgers that this one goes on from.
type Head struct {
	CMS    []byte
	Ledger string
	Size   uint64
	Root   sm.Digest
	Before []string        `json:",omitempty"`
	Since  strictjson.Time // of the notice by which it was adopted; 0 for none
}

// Fork keeps two signed heads of one ledger that contradict each other.
type Fork struct{ Known, Other []byte }

// Books count items on a link: Arrived is the sum of the others.
type Books struct {
	Arrived, Accepted, Duplicate, Refused, Deferred, Damaged uint64
}

// OutBook counts what was given to a link to carry: of Exported, Acked was handed
// over, Ended was refused or ended in another way; what is neither stands in the
// link's lanes, or among its dead letters.
type OutBook struct {
	Exported, Acked, Ended uint64
}

// Quarantined is what could not be used, kept for the operator.
type Quarantined struct {
	At     strictjson.Time
	Link   string
	What   string
	Reason string
	Sample []byte // at most SampleSize bytes of what arrived
}

// SampleSize bounds a quarantine sample.
const SampleSize = 4 << 10

// DeferredItem is an item that waits for a newer directory. At is when it
// first came, the time as of which its signature will be judged; Leaf is where
// the ledger says so. A header is in its Envelope; Body is a receipt item.
// Bytes is what it counts for in the Waiting of its link.
type DeferredItem struct {
	Kind      string
	Link      string
	Directory uint64
	Envelope  sm.Digest
	At        strictjson.Time
	Leaf      uint64
	Body      Body
	Bytes     int64
}

// Waiting counts the deferred items of a link.
type Waiting struct{ Items, Bytes int64 }

// FerryOut is how far a ferry link has come on its way out. Its epoch stays as
// long as the ledger that it was begun under.
type FerryOut struct {
	Epoch  string
	Ledger string
	Seq    uint64    // of the last bundle
	Round  uint64    // of the last export
	Heard  uint64    // the last of our rounds that the neighbour has seen
	After  [5]uint64 // for each rank, the last entry of the lane that is in a bundle whole
	Part   [5]int    // of the entry that PartOf names, the parts that are in bundles
	PartOf [5]uint64 // 0: of the first behind After, in the row of an earlier version
	Under  UnderWay

	// Of a link of one way.
	OneWay    bool            `json:",omitempty"`
	Chain     []byte          `json:",omitempty"` // behind the last bundle, sealed; none at the beginning
	Said      uint64          `json:",omitempty"` // all bundles up to here have left, and FERRIED is signed
	Confirmed uint64          `json:",omitempty"` // how many were
	Ended     uint64          `json:",omitempty"` // how many nobody confirmed in time
	Directory uint64          `json:",omitempty"` // the last version that is in a bundle
	Wrong     int             `json:",omitempty"` // codes in a row
	Pause     int64           `json:",omitempty"` // milliseconds
	Until     strictjson.Time `json:",omitzero"`  // the end of that pause
}

// UnderWay counts the bundles of a ferry link that are not acknowledged.
type UnderWay struct {
	Bundles uint64
	Bytes   int64
	Lost    uint64 // of the bundles
}

// FerryBundle is a bundle that the neighbour has not acknowledged: what it
// carries, and in which round it left last (0: not yet).
type FerryBundle struct {
	Header  sm.Digest
	Size    int64
	Made    strictjson.Time
	Entries []FerryEntry
	Left    uint64
	Lost    bool // the neighbour has seen that round, and not the bundle
	Again   int  // times it left again

	LeftAt strictjson.Time `json:",omitzero"`  // last; of a link of one way
	Chain  []byte          `json:",omitempty"` // before it, and its secret; sealed
}

// FerryEntry is what a bundle carries of one lane entry. A directory has rank -1
// and its version as number.
type FerryEntry struct {
	Rank   int    `json:"r"`
	Seq    uint64 `json:"s"`
	Header bool   `json:"h,omitempty"` // of a document, what of it; anything else is one item
	Slots  bool   `json:"c,omitempty"`
	From   int    `json:"f,omitempty"` // parts From up to To
	To     int    `json:"t,omitempty"`
	Items  int    `json:"n"`
}

// Status is the newest status that a link's neighbour sent: its signed bytes, the
// time it names, and when it came, by this node's clock.
type Status struct {
	CMS   []byte
	Time  strictjson.Time
	Heard strictjson.Time
}

// FerryIn is how far a ferry link has come on its way in: which bundles of the
// neighbour's epoch are here.
type FerryIn struct {
	Epoch  string
	Round  uint64      // the last that was seen
	UpTo   uint64      // all up to here are
	Ranges [][2]uint64 // and these, in rising order
	Lacks  []FerryTrouble
	At     strictjson.Time // when a note was last seen

	// Of a link of one way.
	Last    uint64 `json:",omitempty"` // the neighbour's last bundle, as far as it said
	Chain   []byte `json:",omitempty"` // behind bundle ChainTo, sealed; none at the beginning
	ChainTo uint64 `json:",omitempty"`
}

// FerrySecret is the secret of a bundle that came over a link of one way, until the
// chain has reached it.
type FerrySecret struct{ Sealed []byte }

// NoWayBack counts what had to go over a link of one way against its direction. It
// is kept with its document and goes nowhere.
type NoWayBack struct {
	Kept uint64
	At   strictjson.Time // the last
}

// FerryTrouble is a bundle of which not every item is here.
type FerryTrouble struct {
	Seq      uint64
	Outcomes []byte // JSON
}
