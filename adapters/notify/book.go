package notify

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// Config of a Book.
type Config struct {
	Dir      string // made when it is missing
	Source   Source
	Outbound *Outbound
	Sealer   Sealer
	Logger   *slog.Logger
	Now      func() time.Time // nil: the machine's clock
}

// Book is all webhooks of a node.
type Book struct {
	c Config

	mu    sync.Mutex
	hooks map[string]*Hook
	poke  map[string]chan struct{} // to the worker of each
	start func(id string)          // nil until Run
	// Damaged lists files that could not be read; they are left as they are.
	damaged []string
}

// oldSecret is how long the secret before stays valid when a new one is made.
const oldSecret = 24 * time.Hour

// Open reads what is there.
func Open(c Config) (*Book, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	b := &Book{c: c, hooks: map[string]*Hook{}, poke: map[string]chan struct{}{}}
	if err := durable.OS.MkdirAll(c.Dir); err != nil {
		return nil, err
	}
	names, err := durable.OS.ReadDir(c.Dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		id, ok := strings.CutSuffix(name, ".hook")
		if !ok {
			continue
		}
		h, err := b.load(id)
		if err != nil {
			c.Logger.Error("a webhook cannot be read and rests", "webhook", id, "error", err)
			b.damaged = append(b.damaged, id)
			continue
		}
		b.hooks[id], b.poke[id] = h, make(chan struct{}, 1)
	}
	return b, nil
}

func (b *Book) file(id string) string { return filepath.Join(b.c.Dir, id+".hook") }

// Damaged lists webhooks whose files could not be read.
func (b *Book) Damaged() []string { return slices.Clone(b.damaged) }

// Create makes a webhook that begins with the next event. The secret is shown this
// once.
func (b *Book) Create(ctx context.Context, agency, url string, types []string, algorithm string) (Hook, string, error) {
	if err := b.c.Outbound.Check(url); err != nil {
		return Hook{}, "", err
	}
	secret, err := newSecret(rand.Reader)
	if err != nil {
		return Hook{}, "", err
	}
	last, err := b.c.Source.Newest(ctx)
	if err != nil {
		return Hook{}, "", err
	}
	h := &Hook{
		ID: strings.ToLower(rand.Text()), Agency: agency, URL: url, Types: types, Algorithm: cmp.Or(algorithm, SHA256),
		Secrets: []string{secret}, Created: b.c.Now().UTC(), Cursor: last,
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.of(agency)) >= MaxHooks {
		return Hook{}, "", ErrTooMany
	}
	if err := b.save(h); err != nil {
		return Hook{}, "", err
	}
	b.hooks[h.ID], b.poke[h.ID] = h, make(chan struct{}, 1)
	if b.start != nil {
		b.start(h.ID)
	}
	return h.shown(), secret, nil
}

// shown is a copy without secrets.
func (h *Hook) shown() Hook {
	c := *h
	c.Secrets, c.Types, c.Kept, c.Log = nil, slices.Clone(h.Types), slices.Clone(h.Kept), slices.Clone(h.Log)
	return c
}

func (b *Book) of(agency string) []*Hook {
	var out []*Hook
	for _, h := range b.hooks {
		if h.Agency == agency {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(x, y *Hook) int { return cmp.Or(x.Created.Compare(y.Created), strings.Compare(x.ID, y.ID)) })
	return out
}

// List gives the agency's webhooks, oldest first, without secrets.
func (b *Book) List(agency string) []Hook {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Hook
	for _, h := range b.of(agency) {
		out = append(out, h.shown())
	}
	return out
}

// Get gives one of the agency's webhooks, without secrets.
func (b *Book) Get(agency, id string) (Hook, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, err := b.mine(agency, id)
	if err != nil {
		return Hook{}, err
	}
	return h.shown(), nil
}

func (b *Book) mine(agency, id string) (*Hook, error) {
	h := b.hooks[id]
	if h == nil || h.Agency != agency {
		return nil, ErrNoHook
	}
	return h, nil
}

// Delete removes a webhook; a call under way ends by itself.
func (b *Book) Delete(agency, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.mine(agency, id); err != nil {
		return err
	}
	if err := os.Remove(b.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	delete(b.hooks, id)
	close(b.poke[id])
	delete(b.poke, id)
	return durable.OS.SyncDir(b.c.Dir)
}

// Rotate makes a new secret; calls carry signatures under both for a day.
func (b *Book) Rotate(agency, id string) (secret string, err error) {
	secret, err = newSecret(rand.Reader)
	if err != nil {
		return "", err
	}
	return secret, b.change(agency, id, func(h *Hook) {
		h.Secrets, h.OldUntil = []string{secret, h.Secrets[0]}, b.c.Now().Add(oldSecret)
	})
}

// Enable lets a webhook go on with what it has kept, all at once.
func (b *Book) Enable(agency, id string) error {
	err := b.change(agency, id, func(h *Hook) {
		h.Disabled, h.Failures, h.FailingSince, h.Pause = "", 0, time.Time{}, time.Time{}
		for i := range h.Kept {
			h.Kept[i].Next = b.c.Now()
		}
	})
	if err == nil {
		b.wake(id)
	}
	return err
}

func (b *Book) change(agency, id string, do func(*Hook)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, err := b.mine(agency, id)
	if err != nil {
		return err
	}
	next := *h
	next.Kept, next.Log = slices.Clone(h.Kept), slices.Clone(h.Log)
	do(&next)
	if err := b.save(&next); err != nil {
		return err
	}
	*h = next
	return nil
}

func (b *Book) wake(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.poke[id] <- struct{}{}:
	default: // it is woken already, or is gone
	}
}

// Resend sends an event of the log once more, and Test a made-up one, now; what
// the receiver said is in the delivery.
func (b *Book) Resend(ctx context.Context, agency, id, msg string) (Delivery, error) {
	h, err := b.Get(agency, id)
	if err != nil {
		return Delivery{}, err
	}
	at := slices.IndexFunc(h.Log, func(d Delivery) bool { return d.Message == msg && d.Event != "" })
	if at < 0 {
		return Delivery{}, fmt.Errorf("%w: message", ErrNoHook)
	}
	e, err := b.c.Source.Event(ctx, agency, h.Log[at].Event)
	if err != nil {
		return Delivery{}, err
	}
	if e == nil {
		return Delivery{}, fmt.Errorf("%w: the event is no longer there", ErrNoHook)
	}
	return b.now(ctx, id, e)
}

// Test sends an event of type TypeTest.
func (b *Book) Test(ctx context.Context, agency, id string) (Delivery, error) {
	if _, err := b.Get(agency, id); err != nil {
		return Delivery{}, err
	}
	return b.now(ctx, id, &Event{Type: TypeTest, Time: b.c.Now().UTC()})
}

func (b *Book) now(ctx context.Context, id string, e *Event) (Delivery, error) {
	h := b.snapshot(id)
	if h == nil {
		return Delivery{}, ErrNoHook
	}
	o := b.call(ctx, h, e)
	if ctx.Err() != nil {
		return Delivery{}, ctx.Err()
	}
	return o.d, b.take(id, "", []outcome{o})
}
