package link

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Over a ferry bundles are carried in files, by people or by a gate, late, out of
// order, twice or not at all. A [Ferry] is a Session whose numbers, lists and
// arrivals are durable. A file is any number of bundles one after the other; the
// first is a note: what is here, what is waited for, and in which round the file
// was written. Nobody waits for an answer: what the neighbour does not name although
// it has seen a later round than that in which it left goes once more, as the same bytes.

// Passage is what a note says. Round counts the exports of its sender, Last is its
// last bundle and From the lowest that it waits for, above Last when it waits for
// none; the rest speaks of the other direction:
// Heard the last round that was seen, Epoch, UpTo and Ranges the bundles that are
// here, and Lacks those of them of which something is not.
type Passage struct {
	Round  uint64  `json:"round"`
	From   uint64  `json:"from"`
	Last   uint64  `json:"last"`
	Heard  uint64  `json:"heard"`
	Epoch  string  `json:"epoch"`
	UpTo   uint64  `json:"upto"`
	Ranges []Range `json:"ranges"`
	Lacks  []Lack  `json:"lacks"`
	Base   []byte  `json:"base,omitempty"` // without a way back: the chain before From
	Extra  strictjson.Extra
}

// Range is a run of numbers, both ends included.
type Range struct {
	From  uint64 `json:"from"`
	To    uint64 `json:"to"`
	Extra strictjson.Extra
}

// Lack says what became of the items of one bundle.
type Lack struct {
	Seq   uint64    `json:"seq"`
	Items []AckItem `json:"items"`
	Extra strictjson.Extra
}

// Keeper holds the bytes of the bundles that are under way.
type Keeper interface {
	Put(name string, write func(io.Writer) error) error // durable on return, in place of what had the name
	Open(name string) (io.ReadCloser, error)
	Remove(name string) error // one that is not there is no error
	Each(do func(name string, size int64) error) error
}

// The bounds of a ferry's bundles: a bundle has a row that lists its entries.
const (
	ferryItems   = 900
	repackAfter  = 3 // times that a bundle left without arriving
	dueAtOnce    = 10_000
	besides      = 64 << 10 // bytes of a file that are not items of its only bundle
	filePiece    = 1 << 20  // bytes that are copied into a file at once
	maxResyncing = 64       // attempts to find the next bundle of a damaged file
)

// Ferry is one neighbour behind a ferry. Its methods may be called by one caller
// at a time; they wait for each other.
type Ferry struct {
	s    *Session
	keep Keeper

	mu     sync.Mutex
	noted  bool                         // the last export said all there is to say
	issued map[sm.Digest]node.Statement // to the operator, by the SM3 of the content
}

// NewFerry goes on where the last process stopped.
func NewFerry(ctx context.Context, n *node.Node, link string, keep Keeper) (*Ferry, error) {
	s, err := NewSession(n, link)
	if err != nil {
		return nil, err
	}
	st, err := n.FerryState(ctx, link, func() string { return s.epoch })
	if err != nil {
		return nil, err
	}
	s.epoch, s.seq, s.tells = st.Epoch, st.Seq, true
	f := &Ferry{s: s, keep: keep}
	return f, f.sweep(ctx)
}

// Link is the link's name.
func (f *Ferry) Link() string { return f.s.link }

// name is under which a bundle's bytes are kept. It has the bundle's SM3: whoever does
// not know whether a commit took effect may make another bundle of the same number,
// and never in place of what the row speaks of.
func (f *Ferry) name(seq uint64, header sm.Digest) string {
	return fmt.Sprintf("%s-%016x-%x", f.s.epoch, seq, header[:8])
}

// pack makes the next bundle and keeps it. Its bytes are durable before its number
// is: a crash in between leaves a file that nothing refers to.
func (f *Ferry) pack(ctx context.Context, load *node.Load) (ok bool, size int64, err error) {
	st, err := f.goOn(ctx)
	if err != nil {
		return false, 0, err
	}
	// Sealed with everything else: what is packed again then has other bytes.
	o := &Outgoing{s: f.s, kind: Push, outs: load.Outs, inside: true}
	in, items, err := f.s.inner(ctx, o)
	if err != nil {
		return false, 0, err
	}
	if f.way() == node.WayOut {
		if load.Chain, err = f.enchain(in, st); err != nil {
			return false, 0, err
		}
	}
	section, err := joinSection(in, items)
	if err != nil {
		return false, 0, err
	}
	f.s.number(o)
	if err = o.finish(section); err == nil {
		err = f.keep.Put(f.name(o.seq, o.header), func(w io.Writer) error {
			_, err := o.writeTo(ctx, w)
			return err
		})
	}
	if err == nil {
		ok, err = f.s.node.CommitLoad(ctx, f.s.link, load, o.seq, o.header, o.size)
	}
	if err == nil && !ok {
		err = f.keep.Remove(f.name(o.seq, o.header))
	}
	return ok, o.size, err
}

// goOn takes the last number from the store, which alone knows it when a commit was
// not answered.
func (f *Ferry) goOn(ctx context.Context) (*records.FerryOut, error) {
	st, err := f.state(ctx)
	if err != nil {
		return nil, err
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.seq = st.Seq
	return st, nil
}

// state is how far the link is. When a directory took its way back away, or gave it
// one, another epoch begins.
func (f *Ferry) state(ctx context.Context) (*records.FerryOut, error) {
	var drawn error
	st, err := f.s.node.FerryState(ctx, f.s.link, func() (epoch string) {
		epoch, drawn = newEpoch(f.s.node)
		return epoch
	})
	if err = errors.Join(err, drawn); err != nil {
		return nil, err
	}
	f.s.epoch = st.Epoch
	return st, nil
}

// chosen is a load, or why there is none.
type chosen struct {
	load *node.Load
	err  error
}

// packAll packs what waits, until there is about as much as may leave at once. What
// fits into a file goes into bundles that do. While one is sealed and kept, the next is
// chosen; when the lanes have changed meanwhile it is chosen anew.
func (f *Ferry) packAll(ctx context.Context, room, file int64) error {
	most := min(FillBytes, max(file-besides, besides))
	choose := func(prev *node.Load) <-chan chosen {
		c := make(chan chosen, 1)
		go func() {
			load, err := f.s.node.NextLoad(ctx, f.s.link, prev, most, ferryItems)
			c <- chosen{load, err}
		}()
		return c
	}
	next := choose(nil)
	for refused := 0; ; {
		got := <-next
		if got.err != nil || got.load.Entries() == 0 || room <= 0 || refused == 8 {
			return got.err
		}
		next = choose(got.load)
		ok, size, err := f.pack(ctx, got.load)
		if err != nil {
			<-next
			return err
		}
		if room -= size; !ok {
			<-next
			room, refused, next = room+size, refused+1, choose(nil)
		}
	}
}

// repack takes apart what left several times and never arrived, so that one false
// alarm of a scanner blocks nothing else: in halves, with other bytes. What of it does
// not stand any more has arrived or ended; what cannot be read now goes to the end of
// its lane, where it is shown.
func (f *Ferry) repack(ctx context.Context, b node.NumberedBundle) error {
	b, ok, err := f.row(ctx, b.Seq)
	if !ok || err != nil {
		return err
	}
	loads, err := f.s.node.Halves(ctx, f.s.link, b)
	if err != nil {
		return err
	}
	for _, load := range loads {
		if ok, _, err := f.pack(ctx, load); !ok || err != nil {
			return err // the next export goes on with what is left
		}
	}
	rest, ok, err := f.row(ctx, b.Seq)
	if ok && err == nil {
		err = f.s.node.PutBack(ctx, f.s.link, rest)
	}
	if err != nil {
		return err
	}
	return f.keep.Remove(f.name(b.Seq, b.Row.Header))
}

// row is a bundle with what it carries.
func (f *Ferry) row(ctx context.Context, seq uint64) (b node.NumberedBundle, ok bool, err error) {
	list, err := f.s.node.FerryBundles(ctx, f.s.link, seq-1, 1)
	if len(list) == 0 || list[0].Seq != seq {
		return b, false, err
	}
	return list[0], true, err
}

// Exported says what an export wrote.
type Exported struct {
	Files   int    `json:"files"`
	Bundles int    `json:"bundles"`
	Again   int    `json:"again"` // of them, those that had left before
	Bytes   int64  `json:"bytes"`
	Round   uint64 `json:"round"`
	Rest    int    `json:"rest,omitempty"` // bundles for which there was no room in so many files

	Filed []Filed `json:"-"` // of each file, in their order
}

// Limits are how much may leave in one export.
type Limits struct {
	FileBytes int64 // of one file; a bundle is never cut, so a part of 8 MiB makes a larger one
	Files     int
}

// Export writes what waits and what has to go once more into files, each with a
// note in front. A file is durable at its place before it counts as having left; a
// crash in between lets it leave again. When there is nothing to say no file is
// written, unless anyhow.
func (f *Ferry) Export(ctx context.Context, limits Limits, anyhow bool, place func(name string, write func(io.Writer) error) error) (got Exported, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.way() == node.WayIn {
		if anyhow {
			return got, errNotFrom(f.s.link)
		}
		return got, nil
	}
	room := limits.FileBytes * int64(limits.Files)
	due, err := f.due(ctx, room, limits.FileBytes)
	if err != nil || len(due) == 0 && f.noted && !anyhow {
		return got, err
	}
	if got, err = f.write(ctx, limits, due, place); err == nil {
		f.noted = true
	}
	return got, err
}

// write writes bundles into files, and notes that they left. Without a way back it
// says so to whoever sent what is in them.
func (f *Ferry) write(ctx context.Context, limits Limits, due []node.NumberedBundle, place func(name string, write func(io.Writer) error) error) (got Exported, err error) {
	note, round, err := f.note(ctx)
	if err != nil {
		return got, err
	}
	got.Round = round
	toName := maxFiled
	for first := true; first || len(due) > 0 && got.Files < limits.Files; first = false {
		n := fileful(due, limits.FileBytes-int64(len(note)))
		name := f.fileName(round, got.Files)
		var filed Filed
		var unnamed error
		var listed sync.WaitGroup
		listed.Go(func() { filed, unnamed = f.filed(ctx, due[:n], &toName) })
		written := int64(0)
		err := place(name, func(w io.Writer) error {
			written = 0
			return f.writeFile(ctx, w, note, due[:n], &written)
		})
		listed.Wait()
		if err = errors.Join(err, unnamed); err != nil {
			return got, err
		}
		got.Filed = append(got.Filed, filed)
		if err := f.s.node.FerryLeft(ctx, f.s.link, round, due[:n]); err != nil {
			return got, err
		}
		for _, b := range due[:n] {
			if b.Row.Left > 0 {
				got.Again++
			}
		}
		got.Files, got.Bundles, got.Bytes, due = got.Files+1, got.Bundles+n, got.Bytes+written, due[n:]
		if f.way() == node.WayOut {
			if err := f.sayFerried(ctx); err != nil {
				return got, err
			}
		}
	}
	got.Rest = len(due)
	return got, nil
}

// due packs what waits and gives the bundles that are to leave, oldest first.
func (f *Ferry) due(ctx context.Context, room, file int64) (due []node.NumberedBundle, err error) {
	if f.way() == node.WayOut {
		return f.dueOneWay(ctx, room, file)
	}
	blocked, err := f.outstanding(ctx, func(b *records.FerryBundle) bool { return b.Lost && b.Again+1 >= repackAfter })
	if err != nil {
		return nil, err
	}
	wanted := func(b *records.FerryBundle) bool { return b.Left == 0 || b.Lost }
	gone, err := f.gone(ctx, wanted)
	if err != nil {
		return nil, err
	}
	for _, b := range append(blocked, gone...) { // one that is both is done once: its row goes
		if err := f.repack(ctx, b); err != nil {
			return nil, err
		}
	}
	if due, err = f.outstanding(ctx, wanted); err != nil {
		return nil, err
	}
	for _, b := range due {
		room -= b.Row.Size
	}
	if err := f.packAll(ctx, room, file); err != nil {
		return nil, err
	}
	return f.outstanding(ctx, wanted)
}

// outstanding are bundles that are not acknowledged, of those that are wanted,
// without what they carry.
func (f *Ferry) outstanding(ctx context.Context, want func(*records.FerryBundle) bool) (list []node.NumberedBundle, err error) {
	return f.outstandingBehind(ctx, 0, want)
}

func (f *Ferry) outstandingBehind(ctx context.Context, after uint64, want func(*records.FerryBundle) bool) (list []node.NumberedBundle, err error) {
	const step = 100
	for len(list) < dueAtOnce {
		some, err := f.s.node.FerryBundles(ctx, f.s.link, after, step)
		if err != nil || len(some) == 0 {
			return list, err
		}
		after = some[len(some)-1].Seq
		for _, b := range some {
			if want(&b.Row) {
				b.Row.Entries = nil // there may be thousands
				list = append(list, b)
			}
		}
	}
	return list, nil
}

// fileful is how many bundles go into one file: one at least.
func fileful(due []node.NumberedBundle, room int64) (n int) {
	for n < len(due) && (n == 0 || due[n].Row.Size <= room) {
		room -= due[n].Row.Size
		n++
	}
	return n
}

// fileName is short, in lower case and ASCII; it says nothing to the receiver.
func (f *Ferry) fileName(round uint64, file int) string {
	return fmt.Sprintf("%s-%06d-%02d.yzb", f.mark(), round, file)
}

// mark tells the files of one side of one link from others on the same medium.
func (f *Ferry) mark() string {
	mark := sm.Sum([]byte(f.s.epoch + f.s.node.ID() + f.s.link))
	return fmt.Sprintf("yz%x", mark[:3])
}

func (f *Ferry) writeFile(ctx context.Context, w io.Writer, note []byte, bundles []node.NumberedBundle, written *int64) error {
	n, err := w.Write(note)
	*written += int64(n)
	buf := make([]byte, filePiece)
	for _, b := range bundles {
		if err != nil || ctx.Err() != nil {
			break
		}
		var r io.ReadCloser
		if r, err = f.keep.Open(f.name(b.Seq, b.Row.Header)); err != nil {
			break
		}
		var n int64
		n, err = io.CopyBuffer(w, struct{ io.Reader }{r}, buf) // else a file chooses its own, smaller pieces
		*written += n
		if err = errors.Join(err, r.Close()); err == nil && n != b.Row.Size {
			err = fmt.Errorf("link: the kept copy of bundle %d has %d bytes, not %d", b.Seq, n, b.Row.Size)
		}
	}
	return errors.Join(err, ctx.Err())
}

// note begins a round and makes the bundle that says how things stand.
func (f *Ferry) note(ctx context.Context) (b []byte, round uint64, err error) {
	round, from, last, err := f.s.node.FerryRound(ctx, f.s.link)
	if err != nil {
		return nil, 0, err
	}
	p, err := f.passage(ctx, round, from, last)
	if err != nil {
		return nil, 0, err
	}
	o := &Outgoing{s: f.s, kind: Reply}
	head, items, err := f.s.inner(ctx, o)
	if err != nil {
		return nil, 0, err
	}
	head.Passage = p
	section, err := joinSection(head, items)
	if err != nil {
		return nil, 0, err
	}
	if err := o.finish(section); err != nil {
		return nil, 0, err
	}
	var out bytes.Buffer
	_, err = o.writeTo(ctx, &out)
	return out.Bytes(), round, err
}

// passage is what a note says.
func (f *Ferry) passage(ctx context.Context, round, from, last uint64) (*Passage, error) {
	if f.way() == node.WayOut {
		return f.announcement(ctx, round, from, last)
	}
	in, err := f.s.node.FerryArrivals(ctx, f.s.link)
	if err != nil {
		return nil, err
	}
	p := &Passage{Round: round, From: from, Last: last, Heard: in.Round, Epoch: in.Epoch, UpTo: in.UpTo, Ranges: []Range{}, Lacks: []Lack{}}
	for _, r := range in.Ranges {
		p.Ranges = append(p.Ranges, Range{From: r[0], To: r[1]})
	}
	for _, t := range in.Lacks {
		var said []node.Outcome
		if err := json.Unmarshal(t.Outcomes, &said); err != nil {
			return nil, fmt.Errorf("%w: %w", records.ErrUnreadable, err)
		}
		p.Lacks = append(p.Lacks, Lack{Seq: t.Seq, Items: ackItems(said)})
	}
	return p, nil
}

func ackItems(outcomes []node.Outcome) []AckItem {
	items := make([]AckItem, len(outcomes))
	for i, o := range outcomes {
		items[i] = AckItem{Status: o.Status, Reason: o.Reason}
	}
	return items
}

// last is the last number that was given.
func (s *Session) last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq
}

// FerryStatus says how a ferry link stands. Gaps are the bundles of the neighbour
// that are missing between those that came, and over a link of one way up to the last
// that it spoke of: lost, or late.
type FerryStatus struct {
	Link        string          `json:"link"`
	Outstanding int             `json:"outstanding"` // bundles that left and were not acknowledged
	Bytes       int64           `json:"bytes"`       // of them
	Kept        int             `json:"kept"`        // files with their bytes
	KeptBytes   int64           `json:"kept_bytes"`  // on the node's disk
	Oldest      strictjson.Time `json:"oldest,omitzero"`
	Lost        int             `json:"lost"`     // of them, those that will leave again
	MostOften   int             `json:"attempts"` // how often one of them has left
	Round       uint64          `json:"round"`
	Heard       uint64          `json:"heard"` // the last of the neighbour's rounds
	UpTo        uint64          `json:"arrived_up_to"`
	Gaps        []Range         `json:"gaps"`
	Lacks       int             `json:"lacks"` // bundles that are here but for some item
	OneWay      *OneWayStatus   `json:"oneway,omitempty"`
}

// missingFrom are the bundles of the neighbour that are not here.
func missingFrom(in *records.FerryIn) []Range {
	list := []Range{}
	for _, gap := range node.Missing(in) {
		list = append(list, Range{From: gap[0], To: gap[1]})
	}
	return list
}

// Status reads how the link stands.
func (f *Ferry) Status(ctx context.Context) (st FerryStatus, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st = FerryStatus{Link: f.s.link, Gaps: []Range{}}
	all, err := f.outstanding(ctx, func(*records.FerryBundle) bool { return true })
	if err != nil {
		return st, err
	}
	for _, b := range all {
		st.Outstanding++
		st.Bytes += b.Row.Size
		if st.Oldest == 0 || b.Row.Made < st.Oldest {
			st.Oldest = b.Row.Made
		}
		if b.Row.Lost {
			st.Lost++
		}
		if b.Row.Left > 0 {
			st.MostOften = max(st.MostOften, b.Row.Again+1)
		}
	}
	err = f.keep.Each(func(_ string, size int64) error {
		st.Kept, st.KeptBytes = st.Kept+1, st.KeptBytes+size
		return nil
	})
	if err != nil {
		return st, err
	}
	own, err := f.state(ctx)
	if err != nil {
		return st, err
	}
	in, err := f.s.node.FerryArrivals(ctx, f.s.link)
	if err != nil {
		return st, err
	}
	if st.OneWay, err = f.oneWayStatus(ctx, own, in); err != nil {
		return st, err
	}
	st.Round, st.Heard, st.UpTo, st.Lacks = own.Round, in.Round, in.UpTo, len(in.Lacks)
	st.Gaps = missingFrom(in)
	return st, err
}
