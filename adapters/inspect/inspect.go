// Package inspect looks into the files of a document: what they really are,
// whether they are whole, whether anything in them would run or unfold, and, with
// a scanner, whether they are known to be harmful. It reads through an
// [io.ReaderAt] and keeps no file: what it holds in memory is bounded by
// [Limits], whatever the file claims.
//
// A verdict is about the file. An error is about us (the file could not be read,
// the scanner does not answer): nothing was decided, and the same file is to be
// looked at again. No error ever means that a file may pass.
package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// Limits bound what a file may unfold to. Zero fields have the values of
// [DefaultLimits].
type Limits struct {
	Size     int64 // of a file, bytes
	Entries  int   // of an archive, with those of the archives in it
	Unpacked int64 // bytes of all entries, likewise
	Ratio    int64 // unpacked to packed bytes of an entry above 1 MiB
	Nesting  int   // archives within archives
	Nested   int64 // bytes of such an archive, which is held in memory
	XML      int64 // bytes of a file that describes the structure
	Depth    int   // of its elements
	Pixels   int64 // of an image
}

// DefaultLimits fit what offices produce with room to spare.
var DefaultLimits = Limits{
	Size: 16 << 30, Entries: 10_000, Unpacked: 2 << 30, Ratio: 200, Nesting: 1, Nested: 16 << 20,
	XML: 16 << 20, Depth: 64, Pixels: 1 << 28,
}

func (l Limits) filled() Limits {
	d := DefaultLimits
	for _, f := range []struct{ have, other *int64 }{
		{&l.Size, &d.Size}, {&l.Unpacked, &d.Unpacked}, {&l.Ratio, &d.Ratio}, {&l.Nested, &d.Nested}, {&l.XML, &d.XML}, {&l.Pixels, &d.Pixels},
	} {
		if *f.have == 0 {
			*f.have = *f.other
		}
	}
	for _, f := range []struct{ have, other *int }{{&l.Entries, &d.Entries}, {&l.Nesting, &d.Nesting}, {&l.Depth, &d.Depth}} {
		if *f.have == 0 {
			*f.have = *f.other
		}
	}
	return l
}

// Scanner searches a file for what is known to be harmful. It gives the name of
// what it found, or "". An error means that it does not know.
type Scanner interface {
	Scan(ctx context.Context, content io.Reader) (found string, err error)
}

// Inspector looks into files. Without a Scanner none is asked. Kinds are the
// kinds that may pass; empty is all that this package knows. AtOnce is how many
// files are looked into at a time; others wait for a moment and are then to come
// again, so that long looks hold up nothing else; 0 is any number. It is safe for
// concurrent use and not changed once it is used.
type Inspector struct {
	Limits  Limits
	Scanner Scanner
	Kinds   []string
	AtOnce  int

	once  sync.Once
	turns chan struct{}
}

// turnWait is how long a look waits for its turn.
const turnWait = 5 * time.Second

// enter waits for a turn.
func (i *Inspector) enter(ctx context.Context) (leave func(), err error) {
	if i.AtOnce == 0 {
		return func() {}, nil
	}
	i.once.Do(func() { i.turns = make(chan struct{}, i.AtOnce) })
	select {
	case i.turns <- struct{}{}:
		return func() { <-i.turns }, nil
	case <-time.After(turnWait):
		return nil, exchange.Fail(exchange.CodeTemporary, "%d files are being looked into already", i.AtOnce)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// refusal is a verdict on its way out of the depths of a file.
type refusal struct{ reason, detail string }

func (r *refusal) Error() string { return r.reason + ": " + r.detail }

func refuse(reason, detail string, args ...any) error {
	return &refusal{reason, fmt.Sprintf(detail, args...)}
}

// source marks trouble with reading the file, which is no verdict on it.
type source struct{ error }

func (s source) Unwrap() error { return s.error }

// faithful reads the file and tells its troubles apart from the file's own.
type faithful struct {
	ctx context.Context
	r   io.ReaderAt
}

func (f faithful) ReadAt(b []byte, off int64) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, source{err}
	}
	n, err := f.r.ReadAt(b, off)
	if err != nil && !errors.Is(err, io.EOF) {
		err = source{err}
	}
	return n, err
}

// Inspect judges one file: first what it is, then what is in it, then what the
// scanner says.
func (i *Inspector) Inspect(ctx context.Context, name, media string, content io.ReaderAt, size int64) (exchange.Verdict, error) {
	leave, err := i.enter(ctx)
	if err != nil {
		return exchange.Verdict{}, err
	}
	defer leave()
	l := i.Limits.filled()
	look := &look{Limits: l, entries: l.Entries, unpacked: l.Unpacked}
	// A file that names a place outside of itself is damaged: only what is
	// inside is asked for.
	r := faithful{ctx, io.NewSectionReader(content, 0, size)}
	kind, err := i.judge(look, name, media, r, size)
	if err == nil && i.Scanner != nil {
		err = i.scan(ctx, io.NewSectionReader(r, 0, size))
	}
	return verdict(kind, err)
}

func verdict(kind string, err error) (exchange.Verdict, error) {
	v := exchange.Verdict{Kind: kind}
	if r := (*refusal)(nil); errors.As(err, &r) {
		v.Reason, v.Detail = r.reason, r.detail
		return v, nil
	}
	if s := (source{}); errors.As(err, &s) {
		return v, s.error
	}
	return v, err
}

func (i *Inspector) scan(ctx context.Context, r io.Reader) error {
	found, err := i.Scanner.Scan(ctx, r)
	if err != nil {
		return err
	}
	switch {
	case strings.HasPrefix(found, "Heuristics.Limits.Exceeded"): // it looked at a part
		return refuse(exchange.CodeContentTooLarge, "%s", found)
	case found != "":
		return refuse(exchange.CodeContentMalware, "%s", found)
	}
	return nil
}

// look is one look into one file, with what may still be unfolded.
type look struct {
	Limits
	entries  int
	unpacked int64
	depth    int
}

func (i *Inspector) judge(l *look, name, media string, r io.ReaderAt, size int64) (string, error) {
	if size > l.Size {
		return "", refuse(exchange.CodeContentTooLarge, "%d bytes, at most %d are looked into", size, l.Size)
	}
	head, err := headOf(r, size)
	if err != nil {
		return "", err
	}
	if what := executable(head); what != "" {
		return what, refuse(exchange.CodeContentActive, "it is a program (%s)", what)
	}
	kind, err := l.kindOf(path.Ext(strings.ToLower(name)), head, r, size)
	if err != nil {
		return kind, err
	}
	if err := i.fits(kind, name, media); err != nil {
		return kind, err
	}
	return kind, l.content(kind, r, size)
}

// content looks into a file of a kind.
func (l *look) content(kind string, r io.ReaderAt, size int64) error {
	switch kind {
	case KindOFD, KindOOXML:
		return nil // its structure was followed to find out what it is
	case KindPDF:
		return l.pdf(r, size)
	case KindPNG, KindJPEG:
		return l.image(kind, r, size)
	case KindText:
		return l.text(r, size)
	case KindXML:
		return l.walkXML(io.NewSectionReader(r, 0, size), nil)
	}
	return nil // opaque: its kind is all that can be said
}
