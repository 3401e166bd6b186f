package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"

	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
)

// Imported says what a file brought.
type Imported struct {
	Bundles   int  `json:"bundles"`
	Items     int  `json:"items"`
	Notes     int  `json:"notes"`
	Settled   int  `json:"settled"` // bundles of ours that the neighbour has
	Faults    int  `json:"faults"`  // places where no bundle could be read
	Truncated bool `json:"truncated"`

	owes bool // the neighbour waits for an answer
}

// Import takes the bundles of a file. Behind one that cannot be read it looks for
// the next. What it says is durable when it returns; a file that is imported again
// changes nothing.
func (f *Ferry) Import(ctx context.Context, file io.ReaderAt, size int64) (got Imported, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.way() == node.WayOut { // nobody can have sent it
		return Imported{Faults: 1}, nil
	}
	err = f.importAll(ctx, file, size, &got)
	if errors.Is(err, ErrNewer) { // the directory may have come behind what needs it
		got = Imported{}
		err = f.importAll(ctx, file, size, &got)
	}
	// A note is owed for what came, and to one who waits; else two sides would answer
	// each other for ever.
	f.noted = f.noted && got.Bundles == 0 && !got.owes
	return got, err
}

func (f *Ferry) importAll(ctx context.Context, file io.ReaderAt, size int64, got *Imported) error {
	var newer error
	for at := int64(0); at < size && got.Faults <= maxResyncing; {
		r := &counted{r: io.NewSectionReader(file, at, size-at)}
		err := f.take(ctx, r, got)
		switch {
		case err == nil:
			at += r.n
			continue
		case errors.Is(err, ErrNewer):
			newer = err
		case errors.Is(err, ErrFault):
			got.Faults++
		default:
			return err
		}
		if at, err = nextBundle(file, at+1, size); err != nil {
			return err
		}
	}
	return newer
}

// nextBundle finds where the next bundle may begin.
func nextBundle(file io.ReaderAt, at, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for at < size {
		n, err := file.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if i := bytes.Index(buf[:n], []byte(magic)); i >= 0 {
			return at + int64(i), nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return size, err
		}
		if at += int64(n) - int64(len(magic)-1); n < len(magic) {
			break
		}
	}
	return size, nil
}

type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// take takes one bundle.
func (f *Ferry) take(ctx context.Context, r io.Reader, got *Imported) error {
	s := f.s
	b, err := s.open(ctx, r)
	if err != nil {
		return err
	}
	if _, err := s.takeHeads(ctx, b.inner); err != nil {
		return err
	}
	if b.inner.Passage != nil {
		got.Notes++
		if err := f.hear(ctx, b.clear.Epoch, b.inner.Passage, got); err != nil {
			return err
		}
	}
	if err := f.checkSecret(b); err != nil {
		return err
	}
	if b.clear.Seq == 0 {
		if !whole(b.rest, b.total) {
			got.Truncated = true
		}
		return nil
	}
	if _, held := s.node.LinkHold(s.link); held {
		return ErrHeld
	}
	outcomes, err := s.takeItems(ctx, b)
	if err != nil {
		return err
	}
	got.Bundles++
	got.Items += len(outcomes)
	if err := s.node.CountArrived(ctx, s.link, outcomes); err != nil {
		return err
	}
	if !whole(b.rest, b.total) { // what is missing comes again with the whole
		got.Truncated = true
		return nil
	}
	// Asked again: the directory that took the way back away may have been in this bundle.
	if err := f.checkSecret(b); err != nil {
		return err
	}
	if f.way() != node.WayIn {
		return s.node.FerryArrived(ctx, s.link, b.clear.Epoch, b.clear.Seq, outcomes)
	}
	if err := s.node.FerryOpened(ctx, s.link, b.clear.Epoch, b.clear.Seq, outcomes, b.inner.Secret); err != nil {
		return err
	}
	_, _, err = f.advance(ctx)
	return err
}

// checkSecret refuses a bundle whose arrival no code could prove.
func (f *Ferry) checkSecret(b *bundle) error {
	if f.way() == node.WayIn && b.clear.Seq > 0 && len(b.inner.Secret) != secretSize {
		return fault("a bundle without a secret of %d bytes, over a link that has no way back", secretSize)
	}
	return nil
}

// hear applies a neighbour's note.
func (f *Ferry) hear(ctx context.Context, epoch string, p *Passage, got *Imported) error {
	n, link := f.s.node, f.s.link
	if len(p.Ranges) > node.MaxFerryRanges || len(p.Lacks) > node.MaxFerryLacks {
		return fault("a note of %d ranges and %d lacks", len(p.Ranges), len(p.Lacks))
	}
	if f.way() == node.WayIn {
		return f.heard(ctx, epoch, p)
	}
	got.owes = got.owes || p.From <= p.Last
	if err := n.FerryHeard(ctx, link, epoch, p.Round, p.From); err != nil {
		return err
	}
	if p.Epoch != f.s.epoch {
		return nil
	}
	if last := f.s.last(); p.UpTo > last || slices.ContainsFunc(p.Ranges, func(r Range) bool { return r.To > last }) {
		return fault("it acknowledges bundles that were never made")
	}
	all, err := f.outstanding(ctx, func(*records.FerryBundle) bool { return true })
	if err != nil {
		return err
	}
	var lost []node.NumberedBundle
	for _, b := range all {
		switch {
		case p.has(b.Seq) && b.Row.Left > 0:
			if err := f.settle(ctx, b, p); err != nil {
				return err
			}
			got.Settled++
		case b.Row.Left > 0 && b.Row.Left < p.Heard && !b.Row.Lost:
			lost = append(lost, b)
		}
	}
	return n.FerryLost(ctx, link, lost)
}

func (p *Passage) has(seq uint64) bool {
	return seq <= p.UpTo || slices.ContainsFunc(p.Ranges, func(r Range) bool { return r.From <= seq && seq <= r.To })
}

// settle applies what the neighbour says of a bundle; nil is that it has all.
func (f *Ferry) settle(ctx context.Context, b node.NumberedBundle, p *Passage) error {
	var said []node.Outcome
	if p != nil {
		if i := slices.IndexFunc(p.Lacks, func(l Lack) bool { return l.Seq == b.Seq }); i >= 0 {
			for _, item := range p.Lacks[i].Items {
				said = append(said, node.Outcome{Status: item.Status, Reason: item.Reason})
			}
		}
	}
	b, ok, err := f.row(ctx, b.Seq)
	if !ok || err != nil {
		return err
	}
	if err := f.s.node.SettleLoad(ctx, f.s.link, b, said); errors.Is(err, node.ErrNotItsItems) {
		return fault("%v", err)
	} else if err != nil {
		return err
	}
	return f.keep.Remove(f.name(b.Seq, b.Row.Header))
}

// BeginsLikeABundle and EndsLikeABundle tell a file that may be whole from one that
// is something else, or is still being written.
func BeginsLikeABundle(r io.ReaderAt) bool {
	var b [len(magic)]byte
	_, err := r.ReadAt(b[:], 0)
	return (err == nil || errors.Is(err, io.EOF)) && string(b[:]) == magic
}

// EndsLikeABundle looks at the last bytes of a file.
func EndsLikeABundle(r io.ReaderAt, size int64) bool {
	var b [footerSize]byte
	if size < int64(len(b)) {
		return false
	}
	_, err := r.ReadAt(b[:], size-int64(len(b)))
	return (err == nil || errors.Is(err, io.EOF)) && string(b[:len(footMagic)]) == footMagic
}
