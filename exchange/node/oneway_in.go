package node

import (
	"context"
	"slices"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// What comes over a link of one way is never asked for again by this node. A bundle
// counts as here when all of it is, or was refused for good; its secret goes into a
// chain, in the order of the numbers, out of which the code is made that a person
// reads to the other side. Secrets of bundles behind a gap wait in rows.

// chainStep is how many secrets go into the chain in one commit.
const chainStep = 200

// FerryOpened notes a bundle that came whole over a link of one way, with its secret.
// One of which something is not here is not noted: the other side lets it leave again
// when its operator is told. The row and the secret are one commit; a crash before it
// lets the bundle be imported again.
func (n *Node) FerryOpened(ctx context.Context, link, epoch string, seq uint64, outcomes []Outcome, secret []byte) error {
	if slices.ContainsFunc(outcomes, func(o Outcome) bool { return !has(o) && o.Status != Refused }) {
		return nil
	}
	var said []byte
	if slices.ContainsFunc(outcomes, func(o Outcome) bool { return o.Status == Refused }) {
		said = []byte("[]") // nobody is told what: its number is shown
	}
	sealed, err := n.c.Keys.SealRow(secretRow(link, epoch, seq), secret)
	if err != nil {
		return err
	}
	return n.changeArrivals(ctx, link, epoch, func(tx queue.Tx, row *records.FerryIn) error {
		if isHere(row, seq) || !noteHere(row, seq, said) {
			return nil
		}
		if len(row.Lacks) > MaxFerryLacks { // the newest are shown
			row.Lacks = row.Lacks[len(row.Lacks)-MaxFerryLacks:]
		}
		return records.FerrySecrets.Put(tx, &records.FerrySecret{Sealed: sealed}, link, epoch, seq)
	})
}

func secretRow(link, epoch string, seq uint64) []byte {
	return queue.Key("ferry secret", link, epoch, seq)
}
func arrivedRow(link, epoch string) []byte { return queue.Key("ferry arrived", link, epoch) }

// FerryLetGo says which bundles below a number are not here: the neighbour of an epoch
// does not keep them any more.
func (n *Node) FerryLetGo(ctx context.Context, link, epoch string, from uint64) (lost [][2]uint64, err error) {
	row, err := n.FerryArrivals(ctx, link)
	switch {
	case err != nil || from == 0 || epoch < row.Epoch:
		return nil, err
	case epoch > row.Epoch:
		row = new(records.FerryIn)
	}
	return gapsOf(row, from-1), nil
}

// FerryAnnounced notes what a note over a link of one way says: the neighbour's last
// bundle, and the lowest that it keeps, with the chain before that. Whatever is below
// never comes again, and the chain goes on from there.
func (n *Node) FerryAnnounced(ctx context.Context, link, epoch string, round, from, last uint64, base []byte) error {
	sealed, err := n.c.Keys.SealRow(arrivedRow(link, epoch), base)
	if err != nil {
		return err
	}
	return n.changeArrivals(ctx, link, epoch, func(_ queue.Tx, row *records.FerryIn) error {
		row.Round, row.Last = max(row.Round, round), max(row.Last, last)
		if from == 0 || from-1 <= row.UpTo || len(base) != sm.Size {
			return nil
		}
		row.UpTo, row.Chain, row.ChainTo = from-1, sealed, from-1
		row.Ranges = joined(row.Ranges, &row.UpTo)
		return nil
	})
}

// gapsOf are the bundles up to a number that are not here.
func gapsOf(row *records.FerryIn, upTo uint64) (gaps [][2]uint64) {
	next := row.UpTo + 1
	for _, r := range row.Ranges {
		if r[0] > upTo {
			break
		}
		if r[0] > next {
			gaps = append(gaps, [2]uint64{next, r[0] - 1})
		}
		next = r[1] + 1
	}
	if next <= upTo {
		gaps = append(gaps, [2]uint64{next, upTo})
	}
	return gaps
}

// Missing are the bundles of the neighbour that are not here, as far as it said which
// is its last.
func Missing(row *records.FerryIn) [][2]uint64 {
	last := row.Last
	if n := len(row.Ranges); n > 0 {
		last = max(last, row.Ranges[n-1][1])
	}
	return gapsOf(row, last)
}

// AdvanceChain takes the secrets of the bundles that came in order into the chain,
// and gives how far it is; next is the chain behind bundle n, and a prev of nil its
// beginning. Secrets are opened outside of any transaction; a crash in between lets
// it be done again from where the row stands.
func (n *Node) AdvanceChain(ctx context.Context, link string, next func(epoch string, prev []byte, n uint64, secret []byte) []byte) (row *records.FerryIn, chain []byte, err error) {
	for {
		if row, err = n.FerryArrivals(ctx, link); err != nil {
			return nil, nil, err
		}
		if chain = nil; len(row.Chain) > 0 {
			if chain, err = n.c.Keys.OpenRow(arrivedRow(link, row.Epoch), row.Chain); err != nil {
				return nil, nil, err
			}
		}
		moved, gone, err := n.linkSecrets(ctx, link, row, chain, next)
		if err != nil || len(gone) == 0 {
			return row, chain, err
		}
		if err := n.keepChain(ctx, link, row, moved, gone); err != nil {
			return nil, nil, err
		}
	}
}

// secretAt is a row of secrets.
type secretAt struct {
	epoch  string
	seq    uint64
	sealed []byte
}

// linkSecrets goes some bundles on; gone are the rows that are not needed any more.
func (n *Node) linkSecrets(ctx context.Context, link string, row *records.FerryIn, chain []byte, next func(string, []byte, uint64, []byte) []byte) (moved *records.FerryIn, gone []secretAt, err error) {
	var rows []secretAt
	err = n.view(ctx, func(tx queue.Tx) error {
		rows = nil
		prefix := len(records.FerrySecrets.Key(link))
		return records.FerrySecrets.Each(tx, chainStep, func(key []byte, s *records.FerrySecret) bool {
			rows = append(rows, secretAt{linkOf(key[prefix:]), lastNumber(key), s.Sealed})
			return true
		}, link)
	})
	if err != nil {
		return nil, nil, err
	}
	to := row.ChainTo
	for _, s := range rows { // by epoch, then by number
		switch {
		case s.epoch == row.Epoch && s.seq == to+1 && s.seq <= row.UpTo:
			secret, err := n.c.Keys.OpenRow(secretRow(link, s.epoch, s.seq), s.sealed)
			if err != nil {
				return nil, nil, err
			}
			to, chain = s.seq, next(s.epoch, chain, s.seq, secret)
		case s.epoch == row.Epoch && s.seq > to:
			continue // behind a gap
		}
		gone = append(gone, s)
	}
	if to == row.ChainTo {
		return row, gone, nil
	}
	sealed, err := n.c.Keys.SealRow(arrivedRow(link, row.Epoch), chain)
	after := *row
	after.Chain, after.ChainTo = sealed, to
	return &after, gone, err
}

func (n *Node) keepChain(ctx context.Context, link string, before, after *records.FerryIn, gone []secretAt) error {
	return n.update(ctx, func(tx queue.Tx) error {
		row, err := records.FerryIns.Lock(tx, link)
		if row == nil || err != nil || row.Epoch != before.Epoch || row.ChainTo != before.ChainTo {
			return err // another one did it
		}
		for _, s := range gone {
			if err := records.FerrySecrets.Delete(tx, link, s.epoch, s.seq); err != nil {
				return err
			}
		}
		row.Chain, row.ChainTo = after.Chain, after.ChainTo
		return records.FerryIns.Put(tx, row, link)
	})
}
