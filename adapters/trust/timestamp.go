package trust

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// The usual times of the timestamp loop. After a failure it waits firstStamp,
// then twice that, and so on up to the interval.
const (
	DefaultStampInterval = 10 * time.Minute
	defaultStampTimeout  = 30 * time.Second
	firstStamp           = 10 * time.Second

	// askAgain is how long a checkpoint rests whose token the node refused, so
	// that one which cannot be stamped never stands in the way of the others.
	askAgain = time.Hour
	// maxRefused ends a round: an authority that lies is not asked hundreds
	// of times.
	maxRefused = 3
)

// Checkpoints is what the loop needs of a node.
type Checkpoints interface {
	MarkForStamp(ctx context.Context) (bool, error)
	Unstamped(ctx context.Context, limit int) ([]node.Unstamped, error)
	Stamped(ctx context.Context, size uint64, token []byte) error
}

// StampConfig is what a stamper stands on.
type StampConfig struct {
	Node Checkpoints
	// URLs gives the authorities to ask, tried in turn when one fails. While
	// there is none, nothing is marked and nothing waits.
	URLs func() []string
	// AllowLocal is as for [Config].
	AllowLocal bool

	Interval time.Duration    // between two checkpoints; 0: ten minutes
	Timeout  time.Duration    // of one answer; 0: 30 seconds
	Now      func() time.Time // nil: the clock
	Rand     io.Reader        // of nonces; nil: the system's
	Logger   *slog.Logger
}

// StampStatus is how the timestamps go, for people and for metrics.
type StampStatus struct {
	Authorities int       `json:"authorities"`
	Stamped     time.Time `json:"stamped,omitzero"` // when a token was last taken
	Failed      int       `json:"failed"`           // attempts in a row
	Error       string    `json:"error,omitempty"`  // of the last attempt
}

// Stamper has the ledger's checkpoints stamped by a timestamp authority
// (docs/spec/ledger-v1.md). An authority that is away or lies costs nothing
// but its back-off: what waits is in the store and is caught up, oldest first.
type Stamper struct {
	cfg    StampConfig
	client *http.Client

	mu     sync.Mutex
	mark   time.Time // when to mark next
	try    time.Time // when to ask next
	turn   int       // which authority
	rests  map[uint64]time.Time
	status StampStatus
}

// NewStamper makes a stamper; nothing is asked before Run or Round.
func NewStamper(cfg StampConfig) *Stamper {
	cfg.Interval, cfg.Timeout = cmp.Or(cfg.Interval, DefaultStampInterval), cmp.Or(cfg.Timeout, defaultStampTimeout)
	cfg.Now, cfg.Rand, cfg.Logger = surroundings(cfg.Now, cfg.Rand, cfg.Logger)
	return &Stamper{cfg: cfg, client: newClient(cfg.AllowLocal, cfg.Timeout), rests: map[uint64]time.Time{}}
}

// Run marks and asks until the context ends.
func (s *Stamper) Run(ctx context.Context) {
	for {
		s.Round(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(tick, s.cfg.Interval)):
		}
	}
}

// Status tells how it goes.
func (s *Stamper) Status() StampStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.status
	out.Authorities = len(s.cfg.URLs())
	return out
}

// Round does what is due: marks the newest checkpoint, and asks about those
// that wait. One round at a time.
func (s *Stamper) Round(ctx context.Context) {
	urls := s.cfg.URLs()
	if len(urls) == 0 {
		return
	}
	now := s.cfg.Now()
	if !now.Before(s.mark) {
		if _, err := s.cfg.Node.MarkForStamp(ctx); err != nil {
			s.note(ctx, fmt.Errorf("trust: a checkpoint was not marked for its timestamp: %w", err))
		}
		s.mark = now.Add(s.cfg.Interval)
	}
	if !now.Before(s.try) {
		s.note(ctx, s.catchUp(ctx, urls))
	}
}

// note keeps the outcome of a round and decides when to ask again.
func (s *Stamper) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, errResting) {
		return // as it was
	}
	if err == nil {
		s.status.Failed, s.status.Error = 0, ""
		return
	}
	wait := min(s.cfg.Interval, firstStamp<<min(s.status.Failed, 10))
	if s.status.Failed == 0 {
		s.cfg.Logger.Warn("timestamps fail; documents go on, checkpoints wait and are caught up", "error", err)
	}
	s.status.Failed++
	s.status.Error = strings.ToValidUTF8(err.Error(), "?")
	s.turn++ // another authority, if there is one
	s.try = s.cfg.Now().Add(wait)
}

// errResting: nothing was asked about, and something waits nevertheless.
var errResting = errors.New("trust: what waits was refused not long ago")

// catchUp asks about everything that waits, the oldest first.
func (s *Stamper) catchUp(ctx context.Context, urls []string) error {
	list, err := s.cfg.Node.Unstamped(ctx, 0)
	if err != nil {
		return err
	}
	now := s.cfg.Now()
	var refused []error
	var resting error
	for _, one := range list {
		if until, rests := s.rests[one.Size]; rests && now.Before(until) {
			resting = errResting
			continue
		}
		delete(s.rests, one.Size)
		token, err := s.ask(ctx, urls[s.turn%len(urls)], one.Imprint)
		if err != nil {
			return err
		}
		if err := s.cfg.Node.Stamped(ctx, one.Size, token); err != nil {
			if exchange.CodeOf(err) == exchange.CodeInternal {
				return err // our own store
			}
			s.rests[one.Size] = now.Add(askAgain)
			if refused = append(refused, fmt.Errorf("the checkpoint over %d leaves: %w", one.Size, err)); len(refused) == maxRefused {
				break
			}
			continue
		}
		s.mu.Lock()
		s.status.Stamped = s.cfg.Now()
		s.mu.Unlock()
	}
	if len(refused) == 0 {
		return resting
	}
	return errors.Join(refused...)
}

// ask gets one token and checks that it answers the request.
func (s *Stamper) ask(ctx context.Context, url string, imprint sm.Digest) ([]byte, error) {
	request, err := timestamp.NewRequest(imprint, s.cfg.Rand)
	if err != nil {
		return nil, err
	}
	query, err := request.Marshal()
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(query))
	if err != nil {
		return nil, fmt.Errorf("trust: timestamp authority: %w", err)
	}
	r.Header.Set("Content-Type", "application/timestamp-query")
	r.Header.Set("Accept", "application/timestamp-reply")
	answer, err := fetch(ctx, s.client, r, timestamp.MaxResponse)
	if err != nil {
		return nil, err
	}
	der, err := timestamp.ParseResponse(answer)
	if err != nil {
		return nil, err
	}
	token, err := timestamp.Parse(der)
	if err != nil {
		return nil, err
	}
	return der, request.Match(token)
}
