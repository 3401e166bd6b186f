package records

import "github.com/yizhan-gateway/yizhan/internal/strictjson"

// The tables of timestamps. A checkpoint is in the first or in the second,
// never in both.
var (
	Unstamped = Table[UnstampedRow]{"stw"} // ledger id, size
	Stamps    = Table[Stamp]{"stp"}        // ledger id, size
	StampBook = Table[StampCount]{"stb"}   // ledger id
)

// UnstampedRow is a signed checkpoint that waits for its timestamp.
type UnstampedRow struct {
	Size uint64
	CMS  []byte
	At   strictjson.Time // when it was signed
}

// Stamp is a signed checkpoint with its timestamp token.
type Stamp struct {
	Size  uint64
	CMS   []byte
	Token []byte
	Time  strictjson.Time // what the token proves
}

// StampCount is the newest size that was marked, and how many wait. Its row
// is locked by every change of the two tables.
type StampCount struct {
	Last    uint64
	Waiting int
}
