package trust

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// ledger stands for a node whose ledger the test lets grow. It verifies tokens
// as a node does.
type ledger struct {
	tsa     *tsatest.TSA
	size    uint64
	marked  uint64
	waiting []node.Unstamped
	stamped []uint64
	broken  error
}

func (l *ledger) MarkForStamp(context.Context) (bool, error) {
	if l.size == l.marked {
		return false, l.broken
	}
	l.marked = l.size
	cp := []byte{byte(l.size)}
	l.waiting = append(l.waiting, node.Unstamped{Size: l.size, Checkpoint: cp, Imprint: sm.Sum(cp)})
	return true, nil
}

func (l *ledger) Unstamped(context.Context, int) ([]node.Unstamped, error) {
	return slices.Clone(l.waiting), l.broken
}

func (l *ledger) Stamped(_ context.Context, size uint64, token []byte) error {
	t, err := timestamp.Parse(token)
	if err == nil {
		err = t.Verify(l.tsa.Certificate())
	}
	if err == nil && t.Time.Year() > 2026 {
		err = errors.New("far off")
	}
	if err != nil || size == 13 { // one that can never be stamped
		return &exchange.Error{Code: exchange.CodeSignatureInvalid, Err: err}
	}
	l.stamped = append(l.stamped, size)
	l.waiting = slices.DeleteFunc(l.waiting, func(u node.Unstamped) bool { return u.Size == size })
	return nil
}

// clockwork is a stamper with its authority and a clock in the test's hands.
type clockwork struct {
	*testing.T
	at time.Time
	l  *ledger
	s  *Stamper
}

func newClockwork(t *testing.T, more ...string) *clockwork {
	c := &clockwork{T: t, at: testNow}
	tsa, err := tsatest.New(rand.NewChaCha8([32]byte{1}), func() time.Time { return c.at })
	must(t, err)
	server := httptest.NewServer(tsa)
	t.Cleanup(server.Close)
	c.l = &ledger{tsa: tsa}
	urls := append(more, server.URL)
	c.s = NewStamper(StampConfig{
		Node: c.l, URLs: func() []string { return urls }, AllowLocal: true, Timeout: 200 * time.Millisecond,
		Now: func() time.Time { return c.at }, Rand: rand.NewChaCha8([32]byte{2}),
	})
	return c
}

// pass lets time go by in steps of the loop; the ledger grows by one a minute.
func (c *clockwork) pass(d time.Duration) {
	for end := c.at.Add(d); c.at.Before(end); c.at = c.at.Add(5 * time.Second) {
		if c.at.Second() == 0 {
			c.l.size++
		}
		c.s.Round(c.Context())
	}
}

// An authority that is away for two hours holds up nothing: checkpoints are
// marked as ever, and stamped in their order once it is back.
func TestWhatWaitsIsCaughtUp(t *testing.T) {
	c := newClockwork(t)
	c.pass(30 * time.Minute)
	if len(c.l.stamped) != 3 || len(c.l.waiting) != 0 {
		t.Fatalf("stamped %v, %d wait", c.l.stamped, len(c.l.waiting))
	}
	c.l.tsa.Fail(tsatest.Down)
	c.pass(2 * time.Hour)
	status := c.s.Status()
	if len(c.l.waiting) != 12 || len(c.l.stamped) != 3 || status.Failed == 0 || !strings.Contains(status.Error, "503") {
		t.Fatalf("%d wait, stamped %v, %+v", len(c.l.waiting), c.l.stamped, status)
	}
	if status.Failed > 20 {
		t.Errorf("asked %d times in two hours", status.Failed)
	}
	c.l.tsa.Fail(tsatest.None)
	c.pass(11 * time.Minute)
	if len(c.l.waiting) != 0 || !slices.IsSorted(c.l.stamped) || len(c.l.stamped) < 15 {
		t.Errorf("%d wait, stamped %v", len(c.l.waiting), c.l.stamped)
	}
	if s := c.s.Status(); s.Failed != 0 || s.Error != "" || s.Stamped.IsZero() || s.Authorities != 1 {
		t.Errorf("%+v", s)
	}
}

// Whatever the authority does wrong, nothing of it is taken, and it is shown.
func TestALyingAuthorityIsNotBelieved(t *testing.T) {
	for _, fault := range tsatest.Faults {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			c := newClockwork(t)
			c.l.tsa.Fail(fault)
			c.pass(time.Minute)
			if s := c.s.Status(); len(c.l.stamped) > 0 || s.Failed == 0 || s.Error == "" {
				t.Errorf("stamped %v, %+v", c.l.stamped, s)
			}
			c.l.tsa.Fail(tsatest.None)
			c.at = c.at.Add(askAgain)
			c.pass(time.Minute)
			if len(c.l.waiting) > 0 {
				t.Errorf("%d wait after it came to its senses: %+v", len(c.l.waiting), c.s.Status())
			}
		})
	}
}

// A checkpoint whose token is refused does not hold up those behind it.
func TestOneThatCannotBeStampedIsPassedBy(t *testing.T) {
	c := newClockwork(t)
	c.l.size = 12
	c.pass(40 * time.Minute)
	if len(c.l.waiting) != 1 || c.l.waiting[0].Size != 13 || len(c.l.stamped) != 3 {
		t.Errorf("waiting %v, stamped %v", c.l.waiting, c.l.stamped)
	}
	if issued := c.l.tsa.Issued(); issued > 5 {
		t.Errorf("asked %d times", issued)
	}
}

// Of several authorities another one is tried when one fails.
func TestAnotherAuthorityTakesOver(t *testing.T) {
	dead := httptest.NewServer(nil)
	dead.Close()
	c := newClockwork(t, dead.URL)
	c.pass(time.Minute)
	if len(c.l.stamped) != 1 {
		t.Errorf("stamped %v: %+v", c.l.stamped, c.s.Status())
	}
}

// Without an authority nothing is marked; trouble of the store is shown.
func TestNoAuthorityAndNoStore(t *testing.T) {
	c := newClockwork(t)
	none := NewStamper(StampConfig{Node: c.l, URLs: func() []string { return nil }})
	c.l.size = 5
	none.Round(t.Context())
	if c.l.marked != 0 || none.Status().Authorities != 0 {
		t.Error("marked without an authority")
	}
	c.l.broken = errors.New("the disk is full")
	c.s.Round(t.Context())
	if s := c.s.Status(); !strings.Contains(s.Error, "disk is full") {
		t.Errorf("%+v", s)
	}
	local := NewStamper(StampConfig{Node: c.l, URLs: func() []string { return []string{"http://127.0.0.1:1"} }, Now: func() time.Time { return c.at }})
	c.l.broken = nil
	local.Round(t.Context())
	if s := local.Status(); !strings.Contains(s.Error, "allow_local") {
		t.Errorf("%+v", s)
	}
}
