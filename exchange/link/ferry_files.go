package link

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
)

// Filed is what one file of an export carries: for lists that people read, never for
// a decision.
type Filed struct {
	Bundles   []FiledBundle
	Documents int // that are not named, because there are too many
}

// FiledBundle is a bundle in a file, and the documents that something in it is about.
type FiledBundle struct {
	Seq       uint64   `json:"seq"`
	Bytes     int64    `json:"bytes"`
	Documents []string `json:"documents"`
}

// maxFiled bounds the documents that are named of one export.
const maxFiled = 100_000

// filed reads what the bundles of a file are about. It comes before anybody can have
// acknowledged them. room is how many documents may still be named.
func (f *Ferry) filed(ctx context.Context, bundles []node.NumberedBundle, room *int) (out Filed, err error) {
	for _, b := range bundles {
		b, ok, err := f.row(ctx, b.Seq)
		if err != nil {
			return out, err
		}
		if !ok {
			continue
		}
		ids, err := f.s.node.FerryDocuments(ctx, f.s.link, b)
		if err != nil {
			return out, err
		}
		named := ids[:min(len(ids), *room)]
		*room -= len(named)
		out.Documents += len(ids) - len(named)
		out.Bundles = append(out.Bundles, FiledBundle{b.Seq, b.Row.Size, append([]string{}, named...)})
	}
	return out, nil
}

// sweep removes the kept bytes that no row speaks of: of a commit that failed or was
// not answered, of a bundle that was settled just before a crash, of an older epoch.
func (f *Ferry) sweep(ctx context.Context) error {
	var stale []string
	err := f.keep.Each(func(name string, _ int64) error {
		epoch, rest, _ := strings.Cut(name, "-")
		number, _, _ := strings.Cut(rest, "-")
		seq, err := strconv.ParseUint(number, 16, 64)
		if err != nil || seq == 0 || len(epoch) != len(f.s.epoch) {
			return nil // nothing of ours
		}
		b, ok, err := f.row(ctx, seq)
		if err == nil && (!ok || f.name(seq, b.Row.Header) != name) {
			stale = append(stale, name)
		}
		return err
	})
	for _, name := range stale {
		if err == nil {
			err = f.keep.Remove(name)
		}
	}
	return err
}

// gone are the wanted bundles of which the bytes that were kept are missing, or are fewer
// or more than there were: nobody can carry them, and they would stop every export. They
// are shown.
func (f *Ferry) gone(ctx context.Context, wanted func(*records.FerryBundle) bool) (gone []node.NumberedBundle, err error) {
	list, err := f.outstanding(ctx, wanted)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	sizes := map[string]int64{}
	err = f.keep.Each(func(name string, size int64) error {
		sizes[name] = size
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, b := range list {
		if size, kept := sizes[f.name(b.Seq, b.Row.Header)]; kept && size == b.Row.Size {
			continue
		}
		if err := f.s.node.Quarantine(ctx, f.s.link, fmt.Sprintf("bundle %d", b.Seq), node.ReasonStored, nil); err != nil {
			return nil, err
		}
		gone = append(gone, b)
	}
	return gone, nil
}

// Spent says of which rounds nothing is outstanding: whatever of them the carrier has
// not taken, nobody waits for. The last round is never spent, its note is the newest.
func (f *Ferry) Spent(ctx context.Context) (spent func(round uint64) bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	own, err := f.s.node.FerryState(ctx, f.s.link, func() string { return f.s.epoch })
	if err != nil {
		return nil, err
	}
	waits := map[uint64]bool{}
	const step = 100
	for after := uint64(0); ; {
		some, err := f.s.node.FerryBundles(ctx, f.s.link, after, step)
		if err != nil {
			return nil, err
		}
		for _, b := range some {
			after, waits[b.Row.Left] = b.Seq, true
		}
		if len(some) < step {
			return func(round uint64) bool { return round < own.Round && !waits[round] }, nil
		}
	}
}

// FileRound reads from a file's name in which round this side wrote it.
func (f *Ferry) FileRound(name string) (round uint64, ok bool) {
	name, own := strings.CutPrefix(name, f.mark()+"-")
	number, _, cut := strings.Cut(name, "-")
	round, err := strconv.ParseUint(number, 10, 64)
	return round, own && cut && err == nil
}
