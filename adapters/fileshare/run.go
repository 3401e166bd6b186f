package fileshare

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// batch is what is submitted as a whole or not at all; nil is every item by itself.
type batch struct {
	mu    sync.Mutex
	first string // what is wrong in it
}

func (b *batch) bad() string {
	if b == nil {
		return ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.first
}

func (b *batch) spoil(e Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.first == "" {
		b.first = e.Place()
	}
}

// Scan says what a run would do, and changes nothing. Whether files are still being
// written it cannot know.
func (i *Import) Scan(ctx context.Context) (Summary, error) {
	return i.pass(ctx, true)
}

// Run takes in all that is there and whole. Before it looks a second time it lets the
// quiet period pass.
func (i *Import) Run(ctx context.Context) (Summary, error) {
	if i.c.Stable == Quiet || i.c.Stable == Size {
		err := i.Look(ctx)
		if err == nil {
			err = i.c.Sleep(ctx, i.c.Quiet)
		}
		if err != nil {
			return Summary{}, err
		}
	}
	return i.pass(ctx, false)
}

// Look notes how the files stand. Pass takes in what has stood still since an earlier
// look; both together, again and again, watch a share.
func (i *Import) Look(ctx context.Context) error {
	s, err := openShare(&i.c)
	if err != nil {
		return err
	}
	return errors.Join(i.look(ctx, s), s.close())
}

// Pass is a Run that waits for nothing.
func (i *Import) Pass(ctx context.Context) (Summary, error) { return i.pass(ctx, false) }

// pass walks over the share once, with several workers.
func (i *Import) pass(ctx context.Context, dry bool) (_ Summary, err error) {
	s, err := openShare(&i.c)
	if err != nil {
		return Summary{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	i.total, i.agencies = Summary{}, map[string]found{}
	i.gate.open()
	w := &walk{worker: worker{Import: i, share: s, dry: dry, notes: newNotes()}}
	if !dry && !i.c.ReadOnly {
		if err := w.goOn(ctx); err != nil {
			return Summary{}, err
		}
	}
	if i.c.Atomic == ByBatch {
		w.all = new(batch)
		if err := w.judge(ctx); err != nil {
			return Summary{}, err
		}
	}
	if err = w.run(ctx); !dry {
		err = errors.Join(err, w.tidy(ctx, err == nil))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.total, err
}

// walk is one pass: a walker that finds items, and workers that process them.
type walk struct {
	worker
	all   *batch // of the whole run
	items chan *item
	each  func(ctx context.Context, it *item) error
	stop  context.CancelCauseFunc
}

// judge walks once to see whether something is wrong anywhere.
func (w *walk) judge(ctx context.Context) error {
	trial := &walk{worker: w.worker, all: w.all}
	trial.each = func(ctx context.Context, it *item) error { return trial.try(ctx, it) }
	return trial.tree(ctx)
}

// try spoils an item's batch if it is wrong, or not whole.
func (w *walk) try(ctx context.Context, it *item) error {
	v, err := w.examine(ctx, it)
	if err != nil {
		return err
	}
	if v.outcome != "" && v.outcome != Done {
		it.batch.spoil(w.entry(it, v.outcome, v.fault, ""))
	}
	return nil
}

func (w *walk) run(ctx context.Context) error {
	ctx, w.stop = context.WithCancelCause(ctx)
	defer w.stop(nil)
	w.items = make(chan *item, w.c.Parallel)
	var workers sync.WaitGroup
	for range w.c.Parallel {
		workers.Go(func() {
			for it := range w.items {
				if ctx.Err() != nil {
					continue
				}
				if err := w.one(ctx, it); err != nil {
					w.stop(err)
				}
			}
		})
	}
	w.each = func(ctx context.Context, it *item) error {
		select {
		case w.items <- it:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := w.tree(ctx)
	close(w.items)
	workers.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (w *walk) one(ctx context.Context, it *item) error {
	e, err := w.process(ctx, it)
	var busy *Busy
	if errors.As(err, &busy) {
		w.emit(w.entry(it, Waiting, &Fault{Code: CodeBusy}, ""))
	}
	if err != nil {
		return err
	}
	w.emit(e)
	if it.list == nil {
		return nil
	}
	if e.Outcome != Submitted && e.Outcome != Done && e.Outcome != Duplicate {
		it.list.left.Add(1)
	}
	return w.leave(it.list)
}

// leave lets go of a list; the last one archives it, if nothing of it is left to do.
func (w *walk) leave(l *list) error {
	if l.open.Add(-1) > 0 || l.left.Load() > 0 || w.dry || w.c.ReadOnly {
		return nil
	}
	day := w.c.Now().In(china).Format(time.DateOnly)
	if err := w.away(l.at, path.Join(w.c.Archive, day, l.at)); err != nil {
		return err
	}
	return w.markAway(l.at, day)
}

func (w *walk) expect(n int) {
	if w.items == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total.Expected += n
}

func (i *Import) emit(e Entry) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.total.count(e.Outcome)
	if e.Outcome != Unmatched {
		i.total.Documents++
	}
	if i.c.Progress != nil {
		i.c.Progress(e.Words(), i.total)
	}
}

// tree walks over the folders.
func (w *walk) tree(ctx context.Context) error {
	err := w.folder(ctx, ".", 0, nil)
	if err != nil && ctx.Err() == nil {
		err = w.share.gone(err)
	}
	return err
}

// contents are the names in a folder that matter.
type contents struct {
	lists []string
	maybe []string // that are lists if they have the headings of one
	files []named
	below []string
}

// folder deals with one folder and those below it. above are the lists of the folders
// that it is in.
func (w *walk) folder(ctx context.Context, dir string, depth int, above []*list) error {
	c, err := w.contents(dir, depth)
	if err != nil && depth > 0 && passing(err) {
		return w.closed(dir, err)
	}
	if err != nil {
		return err
	}
	lists, broken, err := w.lists(ctx, dir, c.lists)
	if err != nil {
		return err
	}
	here := slices.Concat(above, lists)
	switch {
	case broken: // whose the files are nobody knows
	case len(here) > 0:
		err = w.unnamed(c.files, dir, here)
	default:
		err = w.ruled(ctx, dir, c.files)
	}
	for _, at := range c.below {
		if err == nil && !broken {
			err = w.folder(ctx, at, depth+1, here)
		}
	}
	return err
}

// closed passes a folder that cannot be looked into. That it is not for us is said.
func (w *walk) closed(dir string, err error) error {
	if gone := w.share.there(); gone != nil || w.items == nil || !errors.Is(err, fs.ErrPermission) {
		return gone
	}
	text, _ := shown(dir)
	w.emit(Entry{Files: []string{text + "/"}}.became(Unmatched, &Fault{Code: CodeUnreadable}, w.c.Now()))
	return nil
}

func (w *walk) contents(dir string, depth int) (*contents, error) {
	c := &contents{}
	err := w.share.list(dir, func(e fs.DirEntry) error {
		at := path.Join(dir, e.Name())
		text, ok := shown(e.Name())
		switch {
		case e.IsDir():
			if depth < w.c.Depth && w.enters(at) {
				c.below = append(c.below, at)
			}
		case w.ignored(dir, e.Name(), text):
		case ok && e.Type().IsRegular() && w.isList(text):
			c.lists = append(c.lists, e.Name())
		case ok && w.c.Detect && e.Type().IsRegular() && isKind(text) && !isAttachment(text):
			c.maybe = append(c.maybe, e.Name())
		default:
			c.files = append(c.files, named{e.Name(), text})
		}
		return nil
	})
	for _, name := range c.maybe {
		text, _ := shown(name)
		if w.hasHeadings(path.Join(dir, name), text) {
			c.lists = append(c.lists, name)
		} else {
			c.files = append(c.files, named{name, text})
		}
	}
	slices.Sort(c.lists)
	slices.Sort(c.below)
	return c, err
}

// ignored says whether a file is none of ours.
func (w *walk) ignored(dir, raw, text string) bool {
	at := path.Join(dir, raw)
	if at == w.c.Sentinel && !w.c.SentinelCounts || matches(alwaysExcluded, text) || matches(w.c.Exclude, text) {
		return true
	}
	if w.c.Stable == Marker && matches([]string{w.c.Mark}, text) {
		return true
	}
	return len(w.c.Include) > 0 && !matches(w.c.Include, text) && !matches(w.c.Manifests, text)
}

// unnamed are the files beside lists that none of them names.
func (w *walk) unnamed(files []named, dir string, lists []*list) error {
	for _, f := range files {
		s := spotOf(path.Join(dir, f.raw))
		if !slices.ContainsFunc(lists, func(l *list) bool { return l.named[s] }) {
			w.unmatched(path.Join(dir, f.raw))
		}
	}
	return nil
}

func (w *walk) unmatched(at string) {
	if w.items == nil {
		return
	}
	text, ok := shown(at)
	code := CodeUnmatched
	if !ok {
		code = CodeName
	}
	w.emit(Entry{Files: []string{text}}.became(Unmatched, &Fault{Code: code}, w.c.Now()))
}

// ruled makes items of a folder without a list.
func (w *walk) ruled(ctx context.Context, dir string, files []named) error {
	on, err := w.rulesHold(ctx, dir)
	if err != nil {
		return err
	}
	if !on {
		return w.unnamed(files, dir, nil)
	}
	items, rest := w.group(dir, files)
	w.expect(len(items))
	for _, f := range rest {
		w.unmatched(path.Join(dir, f.raw))
	}
	var b *batch
	switch w.c.Atomic {
	case ByFile:
		b = new(batch)
	case ByBatch:
		b = w.all
	}
	for _, it := range items {
		it.batch = b
		if w.c.Atomic == ByFile {
			if err := w.try(ctx, it); err != nil {
				return err
			}
		}
	}
	for _, it := range items {
		if err := w.each(ctx, it); err != nil {
			return err
		}
	}
	return nil
}

// rulesHold says whether rules are on, and neither this folder nor one above it has
// ever had a list: what such a list left over is no document.
func (w *walk) rulesHold(ctx context.Context, dir string) (bool, error) {
	if !w.c.Rules.On {
		return false, nil
	}
	for {
		had, err := w.ledger.hadList(ctx, sm.Sum([]byte(dir)))
		if had || err != nil {
			return false, err
		}
		if dir == "." {
			return true, nil
		}
		dir = path.Dir(dir)
	}
}
