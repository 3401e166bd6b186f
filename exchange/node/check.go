package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// A check walks all rows in steps and holds each against the others that it
// speaks of, inside one View: commits keep rows true to one another, so what
// does not fit there is damage, also while the node works. Blobs are opened, and
// on demand read; the ledger's tree is computed anew from its leaves.

// Problem is one thing that does not fit. Key names the row without content.
type Problem struct {
	Table string `json:"table"`
	Key   string `json:"key"`
	What  string `json:"what"`
}

// CheckReport says what was looked at, by table, and what was found. At most
// MaxProblems are listed; Found counts all.
type CheckReport struct {
	OK       bool             `json:"ok"`
	Checked  map[string]int64 `json:"checked"`
	Bytes    int64            `json:"bytes_read"` // of blobs
	Found    int64            `json:"found"`
	Problems []Problem        `json:"problems"`
}

// MaxProblems bounds the list of a report.
const MaxProblems = 1000

// CheckOptions say how a check goes. ReadData reads every blob and compares it
// with the digests of its document. Still says that nobody else uses the store,
// so that counts can be compared as well. Step is called between two steps: it
// may wait.
type CheckOptions struct {
	ReadData bool
	Still    bool
	Step     func(*CheckReport) error
}

const checkStep = 200

type check struct {
	n      *Node
	o      CheckOptions
	report *CheckReport
	blobs  []blobToRead
	stand  map[string]uint64            // entries in each lane
	under  map[string]*records.UnderWay // bundles of each ferry link
}

// blobToRead is a blob that a step met, to be opened outside the View.
type blobToRead struct {
	table, key string
	ref        queue.Ref
	verify     func(r io.Reader) error // nil: that it is there is enough
}

// Check compares everything that is stored.
func (n *Node) Check(ctx context.Context, o CheckOptions) (*CheckReport, error) {
	c := &check{n: n, o: o, report: &CheckReport{Checked: map[string]int64{}, Problems: []Problem{}}, stand: map[string]uint64{}, under: map[string]*records.UnderWay{}}
	if o.Step == nil {
		c.o.Step = func(*CheckReport) error { return nil }
	}
	if err := c.rows(ctx); err != nil {
		return nil, err
	}
	if err := c.ledger(ctx); err != nil {
		return nil, err
	}
	c.report.OK = c.report.Found == 0
	return c.report, nil
}

func (c *check) bad(table, key, what string, args ...any) {
	c.report.Found++
	if len(c.report.Problems) < MaxProblems {
		c.report.Problems = append(c.report.Problems, Problem{table, key, fmt.Sprintf(what, args...)})
	}
}

// rows walks the store from its first row to its last.
func (c *check) rows(ctx context.Context) error {
	for behind := []byte(nil); ; {
		count := 0
		c.blobs = nil
		err := c.n.view(ctx, func(tx queue.Tx) error {
			count, c.blobs = 0, nil
			for kv, err := range tx.Scan(append(behind, 0), nil, checkStep) {
				if err != nil {
					return err
				}
				count++
				behind = kv.Key
				if err := c.row(tx, kv); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || count == 0 {
			return err
		}
		if err := c.readBlobs(ctx); err != nil {
			return err
		}
		if err := c.o.Step(c.report); err != nil {
			return err
		}
	}
}

// row holds one row against those it speaks of.
func (c *check) row(tx queue.Tx, kv queue.KV) error {
	k := &keyReader{b: kv.Key}
	table := k.str()
	c.report.Checked[table]++
	look, known := checkers[table]
	if !known || k.bad {
		c.bad(table, k.shown(), "a row of no table")
		return nil
	}
	what, err := look(c, tx, k, kv.Value)
	switch {
	case errors.Is(err, records.ErrUnreadable):
		what = "unreadable"
	case err != nil:
		return err
	case k.bad || len(k.b) > 0 && what == "":
		what = "its key is not one of this table"
	}
	if what != "" {
		c.bad(table, k.shown(), "%s", what)
	}
	return nil
}

// readBlobs opens what the step has met. A blob that is gone by now is damage
// only when its row still stands.
func (c *check) readBlobs(ctx context.Context) error {
	for _, b := range c.blobs {
		err := c.readBlob(ctx, b)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		still := false
		e := c.n.view(ctx, func(tx queue.Tx) error {
			owner, err := tx.Get(records.BlobOwners.Key(string(b.ref)))
			still = owner != nil
			return err
		})
		if e != nil {
			return e
		}
		if still {
			c.bad(b.table, b.key, "blob %s: %v", b.ref, err)
		}
	}
	return nil
}

func (c *check) readBlob(ctx context.Context, b blobToRead) error {
	r, err := c.n.c.Blobs.Open(ctx, b.ref, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	if b.verify == nil {
		return nil
	}
	counted := &countingReader{r: r}
	err = b.verify(counted)
	c.report.Bytes += counted.n
	return err
}

type countingReader struct {
	r io.Reader
	n int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n += int64(n)
	return n, err
}

// keyReader takes a key apart as queue.Key put it together.
type keyReader struct {
	b    []byte
	said []string
	bad  bool
}

func (k *keyReader) str() string {
	var s []byte
	for i := 0; i+1 < len(k.b); i++ {
		switch {
		case k.b[i] != 0:
			s = append(s, k.b[i])
		case k.b[i+1] == 0xff:
			s = append(s, 0)
			i++
		default:
			k.b = k.b[i+2:]
			k.said = append(k.said, string(s))
			return string(s)
		}
	}
	k.bad, k.b = true, nil
	return ""
}

func (k *keyReader) digest() (d sm.Digest) {
	if len(k.b) < sm.Size {
		k.bad, k.b = true, nil
		return d
	}
	d, k.b = sm.Digest(k.b[:sm.Size]), k.b[sm.Size:]
	k.said = append(k.said, d.String())
	return d
}

func (k *keyReader) num() (v uint64) {
	if len(k.b) < 8 {
		k.bad, k.b = true, nil
		return 0
	}
	for _, b := range k.b[:8] {
		v = v<<8 | uint64(b)
	}
	k.b = k.b[8:]
	k.said = append(k.said, fmt.Sprint(v))
	return v
}

// shown is the key as an operator can read it, without its table.
func (k *keyReader) shown() string {
	if len(k.said) < 2 {
		return ""
	}
	s := k.said[1]
	for _, p := range k.said[2:] {
		s += "/" + p
	}
	return s
}

// ledger computes the tree anew from the leaves and holds every stored node of
// it against what comes out, and each leaf against the receipt it speaks of.
func (c *check) ledger(ctx context.Context) error {
	for next := uint64(0); ; {
		done := false
		err := c.n.view(ctx, func(tx queue.Tx) error {
			size, err := c.n.ledger.Size(tx)
			if err != nil {
				c.bad("ledger", "size", "unreadable")
				done = true
				return nil
			}
			for to := min(size, next+checkStep); next < to; next++ {
				if err := c.leaf(tx, next); err != nil {
					return err
				}
			}
			if done = next == size; !done {
				return nil
			}
			if _, err := c.n.ledger.Leaf(tx, size); err == nil {
				c.bad("ledger", "size", "there are leaves behind it")
			}
			return nil
		})
		if err != nil || done {
			return err
		}
		if err := c.o.Step(c.report); err != nil {
			return err
		}
	}
}

func (c *check) leaf(tx queue.Tx, i uint64) error {
	c.report.Checked["leaf"]++
	shown := fmt.Sprint(i)
	b, err := c.n.ledger.Leaf(tx, i)
	if err != nil {
		c.bad("leaf", shown, "missing")
		return nil
	}
	leaf, err := merkle.ParseLeaf(b)
	if err != nil {
		c.bad("leaf", shown, "unreadable")
	} else if err := c.leafSpeaks(tx, shown, leaf); err != nil {
		return err
	}
	bad, err := c.n.ledger.Recompute(tx, i, b)
	if bad != "" {
		c.bad("leaf", shown, "%s", bad)
	}
	return err
}

// leafSpeaks: the receipt that a leaf names is there.
func (c *check) leafSpeaks(tx queue.Tx, shown string, leaf *merkle.Leaf) error {
	switch leaf.Event {
	case eventAccepted, eventDelivered, eventActed, eventReceipt, eventInspected:
	default:
		return nil
	}
	hh, err := sm.ParseDigest(leaf.Envelope)
	if err != nil {
		c.bad("leaf", shown, "names no envelope")
		return nil
	}
	row, err := records.Receipts.Get(tx, hh, leaf.Object)
	if errors.Is(err, records.ErrUnreadable) { // said of the row itself
		return nil
	}
	if err == nil && row == nil {
		c.bad("leaf", shown, "the receipt that it speaks of is missing")
	}
	return err
}

// decodes is the check of a row that speaks of no other.
func decodes[T any](keys ...func(*keyReader)) checker {
	return func(_ *check, _ queue.Tx, k *keyReader, value []byte) (string, error) {
		for _, take := range keys {
			take(k)
		}
		var v T
		if json.Unmarshal(value, &v) != nil {
			return "unreadable", nil
		}
		return "", nil
	}
}

func aString(k *keyReader) { k.str() }
func aDigest(k *keyReader) { k.digest() }
func aNumber(k *keyReader) { k.num() }
