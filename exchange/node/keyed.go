package node

import (
	"context"
	"errors"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Acts are idempotent by what they do: a repeat gives the same receipts. A key that
// comes with one says besides that it is the same act, so a key that is used for
// another request is refused; submissions and acts of an agency share their keys.
// Keys are kept as long as the store.

// Keyed is an act under a key.
type Keyed struct {
	Replayed bool // the same act succeeded before under the key

	n      *Node
	agency string
	row    records.Idempotent
	index  sm.Digest
	leave  func()
}

// BeginKeyed admits one act per key at a time, and refuses a key that was used for
// another. request is what makes up the act. End has to follow.
func (n *Node) BeginKeyed(ctx context.Context, agency, key string, request ...[]byte) (*Keyed, error) {
	leave, err := n.enter(agency, key)
	if err != nil {
		return nil, err
	}
	k := &Keyed{n: n, agency: agency, index: n.idempotencyIndex(key), leave: leave}
	k.row = records.Idempotent{Fingerprint: n.c.Keys.MAC(append([][]byte{[]byte("act")}, request...)...), At: n.now()}
	var used *records.Idempotent
	err = n.view(ctx, func(tx queue.Tx) (err error) {
		used, err = records.Idempotency.Get(tx, agency, k.index)
		return err
	})
	if err == nil && used != nil && used.Fingerprint != k.row.Fingerprint {
		err = exchange.Fail(exchange.CodeIdempotencyMismatch, "")
	}
	if err != nil {
		leave()
		return nil, err
	}
	k.Replayed = used != nil
	return k, nil
}

// End remembers an act that succeeded. A crash before its commit forgets what the
// key was for, and nothing of what was done.
func (k *Keyed) End(ctx context.Context, done bool) error {
	defer k.leave()
	if !done || k.Replayed {
		return nil
	}
	return k.n.c.Store.Update(ctx, func(tx queue.Tx) error {
		err := records.Idempotency.Insert(tx, &k.row, k.agency, k.index)
		if errors.Is(err, queue.ErrExists) {
			return nil
		}
		return err
	})
}

// askedUnder gives what an agency asked for under a key, of the part i of its
// recipients; nil when it is new.
func (n *Node) askedUnder(ctx context.Context, agency, key string, hh sm.Digest, i int) (one *Asked, err error) {
	if key == "" {
		return nil, nil
	}
	err = n.view(ctx, func(tx queue.Tx) error {
		one = nil
		id, err := records.AskedUnder.Get(tx, agency, n.idempotencyIndex(key), uint64(i))
		if id == nil || err != nil {
			return err
		}
		row, err := records.Requests.Get(tx, hh, *id)
		if err != nil || row == nil { // the key was used for another document
			return err
		}
		r, err := openRequest(row)
		if err == nil {
			one = &Asked{*id, r.body.Recipients, row.CMS}
		}
		return err
	})
	return one, err
}
