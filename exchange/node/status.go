package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Neighbours tell each other how they are, so that an operator on one side of a
// gap sees the other: a small signed object in the head of a bundle's section
// (docs/spec/bundle-v1.md, "Status"). It rides along with whatever leaves anyhow:
// it causes no bundle and no file, is not acknowledged, and when it is lost a later
// one says the same. It counts and says no more: no document, no agency.

// Status is what a node says of itself to the neighbour of one link.
type Status struct {
	Type      string          `json:"type"`
	V         int             `json:"v"`
	Crit      []string        `json:"crit,omitempty"`
	Domain    string          `json:"domain"`
	Link      string          `json:"link"`
	Node      string          `json:"node"`
	Time      strictjson.Time `json:"time"`
	Clock     string          `json:"clock"`   // where the time is from
	Program   string          `json:"program"` // its version
	Formats   []string        `json:"formats"`
	Directory uint64          `json:"directory"` // version in force
	Backlog   StatusBacklog   `json:"backlog"`
	Here      StatusBacklog   `json:"here"`     // of it, what is for the link
	Disk      string          `json:"disk"`     // ok or low
	Warnings  []string        `json:"warnings"` // empty: all is well
	Extra     strictjson.Extra
}

// StatusBacklog counts what waits in lanes, and the dead letters.
type StatusBacklog struct {
	Waiting uint64          `json:"waiting"`
	Parked  uint64          `json:"parked"`
	Oldest  strictjson.Time `json:"oldest,omitzero"` // when the first of what waits came
	Extra   strictjson.Extra
}

const (
	statusType  = "yizhan-status"
	maxWarnings = 16
	maxWord     = 64 // bytes of a version, a format, a warning
	// MaxStatus bounds the signed status, bytes.
	MaxStatus = 4 << 10

	storeUnreadable = "store_unreadable"

	// DiskOK and DiskLow are what a status says of the disk.
	DiskOK  = "ok"
	DiskLow = "low"
)

// spoken are the formats that this program reads and writes.
var spoken = []string{"yizhan-bundle/1", "yizhan-envelope/1", "yizhan-receipt/1", "yizhan-request/1", "yizhan-directory/1", "yizhan-status/1"}

// About is what the program around a node tells of itself: its version, whether the
// disk is low, and codes of what an operator should look at.
type About struct {
	Program  string
	DiskLow  bool
	Warnings []string
}

// errNewerStatus: it is of a version that this program does not read, which is no
// fault of the link.
var errNewerStatus = errors.New("node: a status of another version")

// ParseStatus reads the one encoding.
func ParseStatus(b []byte) (*Status, error) {
	var s Status
	if len(b) > MaxStatus {
		return nil, exchange.Fail(exchange.CodeTooLarge, "status: %d bytes, at most %d are possible", len(b), MaxStatus)
	}
	if err := strictjson.Unmarshal(b, &s); errors.Is(err, strictjson.ErrCritical) {
		return nil, errNewerStatus
	} else if err != nil {
		return nil, err
	}
	if s.Type == statusType && s.V > 1 {
		return nil, errNewerStatus
	}
	long := func(w string) bool { return len(w) > maxWord || !printable(w) }
	if s.Type != statusType || s.V != 1 || s.Node == "" || s.Link == "" || s.Time <= 0 || long(s.Clock) || long(s.Program) || long(s.Disk) ||
		len(s.Warnings) > maxWarnings || len(s.Formats) > maxWarnings || slices.ContainsFunc(s.Warnings, long) || slices.ContainsFunc(s.Formats, long) {
		return nil, exchange.Fail(exchange.CodeBadRequest, "status: type %s version 1 with short words is expected", statusType)
	}
	return &s, nil
}

// The pace of a link's statuses: one at least so far behind the last, and one when
// something that an operator would look at has changed, but not more often than
// once in a while.
const (
	statusEvery  = 15 * time.Minute
	statusAtMost = time.Minute
)

// statusPace is what was told to whom. It begins anew with the process.
type statusPace struct {
	mu      sync.Mutex
	links   map[string]toldStatus
	backlog StatusBacklog // of the whole node, counted once a minute
	trouble bool          // it could not be
	alarms  []string
	counted time.Time
}

type toldStatus struct {
	at   time.Time
	said string // what an operator would look at
}

// StatusFor gives the status to send along with a bundle on a link; nil when it is
// too early for another one. always is for a ferry, whose bundles are few.
func (n *Node) StatusFor(ctx context.Context, link string, always bool) ([]byte, error) {
	now := n.c.Now()
	n.told.mu.Lock()
	last := n.told.links[link]
	n.told.mu.Unlock()
	since := now.Sub(last.at).Abs() // clocks are put back
	if !always && since < statusAtMost {
		return nil, nil
	}
	s := n.status(ctx, link)
	said := strings.Join(append(slices.Clone(s.Warnings), s.Disk, s.Program), " ")
	if !always && since < statusEvery && said == last.said {
		return nil, nil
	}
	here, err := n.Queues(ctx, link)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err == nil:
		s.Here = backlogOf(here)
	case len(s.Warnings) < maxWarnings && !slices.Contains(s.Warnings, storeUnreadable):
		s.Warnings = append(s.Warnings, storeUnreadable)
	}
	b, err := strictjson.Marshal(s)
	if err != nil {
		return nil, err
	}
	signer, err := n.Signer()
	if err != nil {
		return nil, err
	}
	signed, err := cms.Sign(signer, b, now)
	if err != nil || len(signed) > MaxStatus {
		return nil, err // a certificate so large that there is no room: nobody is told
	}
	n.told.mu.Lock()
	defer n.told.mu.Unlock()
	if n.told.links == nil {
		n.told.links = map[string]toldStatus{}
	}
	n.told.links[link] = toldStatus{now, said}
	return signed, nil
}

// Untold says that the bundle with the last status of a link was lost, perhaps: the
// next one brings another.
func (n *Node) Untold(link string) {
	n.told.mu.Lock()
	defer n.told.mu.Unlock()
	delete(n.told.links, link)
}

// status puts together how this node is, but for what waits on the link: that is asked
// for only when a status leaves. What cannot be read now is a warning, and
// no reason to stop a link.
func (n *Node) status(ctx context.Context, link string) *Status {
	about := About{}
	if n.c.About != nil {
		about = n.c.About()
	}
	d := n.Directory()
	s := &Status{
		Type: statusType, V: 1, Domain: d.Domain(), Link: link, Node: n.c.ID, Time: n.now(), Clock: cut(n.c.Clock), Program: cut(about.Program),
		Formats: spoken, Directory: d.Version(), Disk: DiskOK, Warnings: []string{},
	}
	warn := func(is bool, code string) {
		if is && len(s.Warnings) < maxWarnings {
			s.Warnings = append(s.Warnings, cut(code))
		}
	}
	if about.DiskLow {
		s.Disk = DiskLow
	}
	var trouble bool
	var alarms []string
	s.Backlog, alarms, trouble = n.wholeBacklog(ctx)
	warn(about.DiskLow, "disk_low")
	warn(trouble, storeUnreadable)
	warn(n.Alarm() != nil, "ledger")
	warn(d.Stale(n.c.Now()), "directory_stale")
	for _, w := range append(alarms, about.Warnings...) {
		warn(!slices.Contains(s.Warnings, w), w)
	}
	return s
}

func cut(word string) string {
	if len(word) > maxWord || !printable(word) {
		return ""
	}
	return word
}

// wholeBacklog counts what waits on the node, once a minute for all links.
func (n *Node) wholeBacklog(ctx context.Context) (b StatusBacklog, alarms []string, trouble bool) {
	p := &n.told
	now := n.c.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.counted.IsZero() && now.Sub(p.counted).Abs() < statusAtMost {
		return p.backlog, p.alarms, p.trouble
	}
	all, err := n.Queues(ctx, "")
	if err != nil && ctx.Err() != nil { // whoever asked went away: it says nothing of the store
		return p.backlog, p.alarms, p.trouble
	}
	p.counted, p.trouble, p.alarms = now, err != nil, nil
	if err != nil {
		return p.backlog, p.alarms, p.trouble
	}
	p.backlog = backlogOf(all)
	if p.backlog.Parked > 0 {
		p.alarms = append(p.alarms, "dead_letters")
	}
	if slices.ContainsFunc(all.Links, func(q LinkQueues) bool { return q.Hold != nil }) {
		p.alarms = append(p.alarms, "link_held")
	}
	return p.backlog, p.alarms, p.trouble
}

func backlogOf(all *Backlog) (b StatusBacklog) {
	for i := range all.Links {
		q := &all.Links[i]
		b.Waiting, b.Parked = b.Waiting+q.Waiting, b.Parked+q.Parked
		for _, one := range q.Queues {
			if one.Oldest != 0 && (b.Oldest == 0 || one.Oldest < b.Oldest) {
				b.Oldest = one.Oldest
			}
		}
	}
	return b
}

// TakeStatus remembers what a neighbour says of itself, if it is newer than what is
// known. A crash before the commit forgets it; a later one comes. One of a version
// that is not known here is left alone.
func (n *Node) TakeStatus(ctx context.Context, link string, signed []byte) error {
	neighbour, err := n.neighbour(link)
	if err != nil {
		return err
	}
	s, err := n.openStatus(neighbour.ID, link, signed)
	if errors.Is(err, errNewerStatus) {
		return nil
	}
	if err != nil {
		return &exchange.Error{Code: exchange.CodeSignatureInvalid, Detail: "status", Err: err}
	}
	row := &records.Status{CMS: signed, Time: s.Time, Heard: n.now()}
	return n.c.Store.Update(ctx, func(tx queue.Tx) error {
		known, err := records.Statuses.Lock(tx, link)
		if errors.Is(err, records.ErrUnreadable) {
			return records.Statuses.Put(tx, row, link) // nothing is decided on it
		}
		if err != nil {
			return err
		}
		switch {
		case known == nil:
			return records.Statuses.Insert(tx, row, link)
		case string(known.CMS) == string(signed) || ranked(row) < ranked(known):
			return nil
		}
		return records.Statuses.Put(tx, row, link)
	})
}

// skewSlack is how far ahead of this node's clock a status counts by its own time.
const skewSlack = 10 * time.Minute

// ranked is the time by which statuses are ordered: a clock that once was far ahead
// must not keep what is said after it was set right from being heard.
func ranked(row *records.Status) strictjson.Time {
	return min(row.Time, row.Heard+strictjson.Time(skewSlack/time.Millisecond))
}

func (n *Node) openStatus(node, link string, signed []byte) (*Status, error) {
	neighbour, ok := n.Directory().Node(node)
	if !ok {
		return nil, exchange.Fail(exchange.CodeSignatureInvalid, "status: node %s is not in the directory", node)
	}
	c, err := cms.Parse(signed, MaxStatus)
	if err != nil {
		return nil, err
	}
	if !neighbour.Holds("sign", c.Certificate) {
		return nil, exchange.Fail(exchange.CodeSignatureInvalid, "status: not signed by node %s", node)
	}
	if err := c.Verify(c.Certificate); err != nil {
		return nil, err
	}
	s, err := ParseStatus(c.Content)
	if err != nil {
		return nil, err
	}
	if s.Node != node || s.Link != link || s.Domain != n.Directory().Domain() {
		return nil, exchange.Fail(exchange.CodeSignatureInvalid, "status: it speaks for another node, link or domain")
	}
	return s, nil
}

// NeighbourState is what a neighbour last said of itself. Heard is when, by this
// node's clock, Time when by the neighbour's. Skew is how far the neighbour's clock
// is ahead of ours, in seconds: over https both ways, over a ferry, where a status
// is on its way for hours, only when it comes out of the future.
type NeighbourState struct {
	Heard     strictjson.Time `json:"heard"`
	Time      strictjson.Time `json:"time"`
	Skew      int64           `json:"clock_skew_seconds"`
	Clock     string          `json:"clock,omitempty"`
	Program   string          `json:"program,omitempty"`
	Formats   []string        `json:"formats"`
	Directory uint64          `json:"directory"`
	Health    string          `json:"health"` // ok or warnings
	Warnings  []string        `json:"warnings"`
	Disk      string          `json:"disk"`
	Backlog   BacklogCounts   `json:"backlog"`
	Here      BacklogCounts   `json:"here"` // of it, what is for this link
}

// BacklogCounts are those of a StatusBacklog.
type BacklogCounts struct {
	Waiting uint64          `json:"waiting"`
	Parked  uint64          `json:"parked"`
	Oldest  strictjson.Time `json:"oldest,omitzero"`
}

func countsOf(b StatusBacklog) BacklogCounts { return BacklogCounts{b.Waiting, b.Parked, b.Oldest} }

// readStatus reads what the neighbour of a link last said over it.
func (s *LinkState) readStatus(tx queue.Tx) error {
	row, err := records.Statuses.Get(tx, s.Link)
	if errors.Is(err, records.ErrUnreadable) { // the next one takes its place
		return nil
	}
	if row == nil || err != nil {
		return err
	}
	c, err := cms.Parse(row.CMS, MaxStatus)
	if err != nil {
		return nil
	}
	said, err := ParseStatus(c.Content)
	if err != nil || said.Node != s.Neighbour {
		return nil // or the link leads elsewhere by now
	}
	s.Status = &NeighbourState{
		Heard: row.Heard, Time: said.Time, Skew: skewOf(row, s.Kind == "ferry"), Clock: said.Clock, Program: said.Program, Formats: said.Formats,
		Directory: said.Directory, Health: "ok", Warnings: said.Warnings, Disk: said.Disk, Backlog: countsOf(said.Backlog), Here: countsOf(said.Here),
	}
	if len(said.Warnings) > 0 || said.Disk != DiskOK {
		s.Status.Health = "warnings"
	}
	return nil
}

func skewOf(row *records.Status, ferry bool) int64 {
	skew := int64(row.Time.Time().Sub(row.Heard.Time()) / time.Second)
	if ferry {
		return max(0, skew)
	}
	return skew
}

// checkStatus: it says what it was when it was taken.
func checkStatus(_ *check, _ queue.Tx, k *keyReader, b []byte) (string, error) {
	link := k.str()
	row, err := value[records.Status](b)
	if err != nil {
		return "", err
	}
	c, err := cms.Parse(row.CMS, MaxStatus)
	if err != nil || c.Verify(c.Certificate) != nil {
		return "its signature does not hold", nil
	}
	s, err := ParseStatus(c.Content)
	if err != nil || s.Time != row.Time || s.Link != link {
		return "it is another status", nil
	}
	return "", nil
}
