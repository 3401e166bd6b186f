// Package queue is what a node keeps its state in: ordered key-value
// transactions ([Store], [Tx]), write-once blobs ([Blobs]), and above the
// transactions FIFO lanes and the rows of a Merkle ledger. It knows nothing of
// documents. Engines live below (badgerstore, blob) and pass the contract
// suites storetest and blobtest.
package queue

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Limits of every engine.
const (
	MaxKey   = 256      // bytes of a key
	MaxValue = 64 << 10 // bytes of a value
	MaxOps   = 1000     // writes in a transaction
	MaxTx    = 4 << 20  // bytes written in a transaction
)

// The errors of the contract. An absent row is no error: its value is nil.
var (
	ErrExists   = errors.New("queue: the row exists")
	ErrTooLarge = errors.New("queue: larger than the limit")
	ErrClosed   = errors.New("queue: the store is closed")
	// ErrUnknown: the transaction may or may not have happened. Repeat the
	// use case; Insert and Lock make that safe.
	ErrUnknown = errors.New("queue: outcome unknown")
	ErrNoBlob  = errors.New("queue: no such blob")
)

// Store runs ordered key-value transactions.
type Store interface {
	// Update runs fn and makes its writes durable before it returns nil; when
	// fn fails, nothing is written and its error is returned. fn may run more
	// than once and must not keep anything of an earlier run.
	Update(ctx context.Context, fn func(Tx) error) error
	// View runs fn over one consistent state. Writing in it fails.
	View(ctx context.Context, fn func(Tx) error) error
	Close() error
}

// Tx is one transaction. Byte slices given to it may be reused after the call;
// slices it gives are the caller's.
type Tx interface {
	// Now is the engine's clock, for leases.
	Now() time.Time
	// Get reads a row to look at it. A decision on a row that exists needs
	// Lock: another transaction may otherwise change it meanwhile.
	Get(k []byte) ([]byte, error)
	// Lock is Get that keeps the row unchanged until the transaction ends.
	Lock(k []byte) ([]byte, error)
	// Insert writes a row that must not exist, else ErrExists: the only way
	// to decide on absence. After ErrExists the transaction may go on.
	Insert(k, v []byte) error
	Put(k, v []byte) error
	Delete(k []byte) error
	// Scan gives the rows with lo ≤ key < hi in key order, at most limit of
	// them; limit 0 is no limit, hi nil is no upper bound.
	Scan(lo, hi []byte, limit int) iter.Seq2[KV, error]
}

// KV is a row.
type KV struct{ Key, Value []byte }

// Ref names a blob: at most 64 printable ASCII characters.
type Ref string

// Blobs keep write-once byte strings.
type Blobs interface {
	// Put stores what r yields and must not return before it is durable. More
	// than atMost bytes is ErrTooLarge and leaves nothing behind.
	Put(ctx context.Context, r io.Reader, atMost int64) (Ref, error)
	// Open reads a blob from an offset; ErrNoBlob when there is none.
	Open(ctx context.Context, ref Ref, off int64) (io.ReadCloser, error)
	// Delete removes a blob; one that is gone is no error.
	Delete(ctx context.Context, ref Ref) error
}
