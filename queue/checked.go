package queue

import (
	"context"
	"fmt"
)

// Checked wraps a store for tests: a transaction that writes over a row which
// exists and which it has read with Get but not with Lock fails. Badger's
// single writer would hide that mistake, a database would not.
func Checked(s Store) Store { return checked{s} }

type checked struct{ Store }

func (c checked) Update(ctx context.Context, fn func(Tx) error) error {
	return c.Store.Update(ctx, func(tx Tx) error {
		t := &checkedTx{Tx: tx, read: map[string]bool{}, locked: map[string]bool{}}
		if err := fn(t); err != nil {
			return err
		}
		return t.err
	})
}

type checkedTx struct {
	Tx
	read, locked map[string]bool
	err          error
}

func (t *checkedTx) Get(k []byte) ([]byte, error) {
	v, err := t.Tx.Get(k)
	if v != nil {
		t.read[string(k)] = true
	}
	return v, err
}

func (t *checkedTx) Lock(k []byte) ([]byte, error) {
	t.locked[string(k)] = true
	return t.Tx.Lock(k)
}

func (t *checkedTx) Insert(k, v []byte) error {
	t.locked[string(k)] = true
	return t.Tx.Insert(k, v)
}

func (t *checkedTx) Put(k, v []byte) error {
	t.check(k)
	return t.Tx.Put(k, v)
}

func (t *checkedTx) Delete(k []byte) error {
	t.check(k)
	return t.Tx.Delete(k)
}

func (t *checkedTx) check(k []byte) {
	if t.read[string(k)] && !t.locked[string(k)] && t.err == nil {
		t.err = fmt.Errorf("queue: a decision on row %.80q without Lock", k)
	}
}
