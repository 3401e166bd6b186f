package link

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Kind is what a bundle is for. Over https the dialer pushes and polls, the
// listener replies to a push and answers a poll. Each direction's items and
// acks travel on one of them only, so that an ack never races the question
// whether to send again:
//
//	Push    dialer's items          Reply   acks for them
//	Poll    acks for the Answer     Answer  listener's items
//
// A Notice carries neither; it tells a neighbour which directory is in force
// here when its bundle cannot be read yet (ErrNewer).
type Kind int

// The kinds.
const (
	Push Kind = iota
	Poll
	Reply
	Answer
	Notice
)

func (k Kind) carriesItems() bool { return k == Push || k == Answer }

// remembered is how many of our bundles stay acknowledgeable after a later
// one was made, and how many numbers of the neighbour are remembered.
const (
	remembered    = 8
	numbersKept   = 64
	epochHexBytes = 16
)

// runsKept is how many processes of the neighbour are remembered, and stragglers
// how many bundles of one that has ended may still arrive: one that ends has a
// push and a poll under way, and the wire may repeat them.
const (
	runsKept   = 16
	stragglers = 4
)

// Session is one neighbour as seen from this node: numbering, what is under
// way, what is to be acknowledged. It lives as long as the process; a new one
// begins a new epoch. Its two directions may be used concurrently, each by
// one caller at a time.
type Session struct {
	node      *node.Node
	link      string
	neighbour string
	epoch     string

	mu        sync.Mutex
	seq       uint64
	key       *epochKey
	underway  []sent
	acks      []Ack
	seen      *SeenHead
	numbers   []number
	runs      []run  // of the neighbour, the newest last
	theirs    uint64 // the neighbour's directory version
	tells     bool   // every bundle made now tells how this node is, as a ferry's notes do
	unwrapped struct {
		id     sm.Digest
		secret []byte
	}
}

// sent is what is remembered of a bundle until it is acked: what its items
// are, and none of their bytes, since a link may be idle for long.
type sent struct {
	seq    uint64
	header sm.Digest
	outs   []node.Out
}

// number is a bundle number the neighbour used, with what it stood for.
type number struct {
	epoch  string
	seq    uint64
	header sm.Digest
}

// NewSession begins an epoch on a link: the node's clock in milliseconds, so
// that epochs rise, and eight random bytes.
func NewSession(n *node.Node, link string) (*Session, error) {
	l, ok := n.Directory().Link(link)
	if !ok || l.A != n.ID() && l.B != n.ID() {
		return nil, fmt.Errorf("link: %q is not a link of node %s", link, n.ID())
	}
	epoch, err := newEpoch(n)
	if err != nil {
		return nil, err
	}
	return &Session{node: n, link: link, neighbour: l.Neighbour(n.ID()), epoch: epoch}, nil
}

func newEpoch(n *node.Node) (string, error) {
	var random [8]byte
	_, err := io.ReadFull(n.Rand(), random[:])
	return fmt.Sprintf("%016x%s", uint64(n.Now().UnixMilli()), hex.EncodeToString(random[:])), err
}

// Link is the link's name.
func (s *Session) Link() string { return s.link }

// Neighbour is the node at the other end.
func (s *Session) Neighbour() string { return s.neighbour }

// Outgoing is a bundle ready to leave. Its content is fixed: sending it again
// sends the same bytes.
type Outgoing struct {
	s      *Session
	kind   Kind
	frame  []byte
	header sm.Digest
	seq    uint64
	sealed []byte
	outs   []node.Out
	parts  []node.Out
	acks   []Ack
	size   int64
	inside bool      // the parts go into the section
	tells  bool      // it says how this node is
	ends   node.Ends // of the lanes, before it was filled

	mu     sync.Mutex
	broken *node.Out // a part of ours that could not be read
}

// Size is the bundle's length, bytes.
func (o *Outgoing) Size() int64 { return o.size }

// HasItems says whether the bundle carries items, and so has a number and
// expects an ack.
func (o *Outgoing) HasItems() bool { return len(o.outs) > 0 }

// Next makes the next bundle of a kind. Push and Answer are nil when no item
// waits; but an Answer to a neighbour with a newer directory than ours says at
// least which one is in force here, so that the newer one comes, and one of a
// restored node that it is one. What may leave is noted last, when the bundle is
// signed; if an entry was parked or ended meanwhile, the bundle is thrown away
// and another one made.
func (s *Session) Next(ctx context.Context, kind Kind) (*Outgoing, error) {
	return s.next(ctx, kind, nil)
}

// Following makes the Push that follows one which is under way, while that is: of
// what the other carries nothing is in it. It must not leave before the other is
// answered, and not when something more urgent has come ([Session.Outdated]); then it
// is Lost.
func (s *Session) Following(ctx context.Context, o *Outgoing) (*Outgoing, error) {
	return s.next(ctx, Push, o.outs)
}

// Outdated says that a bundle which has not left is to be made anew.
func (s *Session) Outdated(ctx context.Context, o *Outgoing) (bool, error) {
	if _, held := s.node.LinkHold(s.link); held {
		return true, nil
	}
	return s.node.Urgent(ctx, s.link, o.outs, o.ends)
}

func (s *Session) next(ctx context.Context, kind Kind, underWay []node.Out) (*Outgoing, error) {
	for {
		o, err := s.make(ctx, kind, underWay)
		if o == nil || err != nil {
			return nil, err
		}
		ok, err := s.node.Offer(ctx, o.outs)
		if err == nil && ok {
			s.remember(o)
			return o, nil
		}
		if s.Lost(ctx, o); err != nil {
			return nil, err
		}
	}
}

func (s *Session) make(ctx context.Context, kind Kind, underWay []node.Out) (*Outgoing, error) {
	o := &Outgoing{s: s, kind: kind}
	if kind.carriesItems() {
		var err error
		if kind == Push {
			if o.ends, err = s.node.LaneEnds(ctx, s.link); err != nil {
				return nil, err
			}
		}
		if o.outs, err = s.node.Outgoing(ctx, s.link, FillBytes, FillItems, underWay...); err != nil {
			return nil, err
		}
		if len(o.outs) == 0 && !(kind == Answer && (s.behind() || s.node.Unheard(s.link))) {
			return nil, nil
		}
	}
	in, items, err := s.inner(ctx, o)
	if err != nil {
		return nil, err
	}
	section, err := joinSection(in, items)
	if err != nil {
		return nil, err
	}
	s.number(o)
	if err := o.finish(section); err != nil {
		s.Lost(ctx, o)
		return nil, err
	}
	return o, nil
}

// behind says whether the neighbour's newest bundle showed a newer directory.
func (s *Session) behind() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.theirs > s.node.Directory().Version()
}

// inner gathers what the sealed section says and the bytes of its items.
func (s *Session) inner(ctx context.Context, o *Outgoing) (*Inner, []byte, error) {
	in := &Inner{Acks: []Ack{}, Heads: [][]byte{}, Inside: o.inside, Items: []ManifestEntry{}}
	head, err := s.node.Head(ctx, s.link)
	if err != nil {
		return nil, nil, err
	}
	if head.Checkpoint != nil {
		in.Checkpoint = &ProvenHead{CMS: head.Checkpoint, From: head.From, Proof: head.Proof}
		in.Restored = head.Notice
	}
	if !o.inside { // else it would leave again when it is old
		if in.Status, err = s.node.StatusFor(ctx, s.link, s.tells); err != nil {
			return nil, nil, err
		}
		o.tells = in.Status != nil
	}
	items := make([]byte, 0, o.within())
	for _, out := range o.outs {
		in.Items = append(in.Items, ManifestEntry{Kind: out.Kind, ID: out.ID, Size: out.Size, Digest: out.Digest})
		if out.Kind == node.KindPart && !o.inside {
			o.parts = append(o.parts, out)
			continue
		}
		if items, err = appendItem(ctx, items, out); err != nil {
			return nil, nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in.Seen = s.seen
	if o.kind == Poll || o.kind == Reply {
		o.acks, s.acks = s.acks, nil
		in.Acks = append(in.Acks, o.acks...)
	}
	return in, items, nil
}

// within is how many bytes of items go into the sealed section.
func (o *Outgoing) within() (n int64) {
	for i := range o.outs {
		if o.outs[i].Kind != node.KindPart || o.inside {
			n += o.outs[i].Size
		}
	}
	return n
}

func appendItem(ctx context.Context, items []byte, out node.Out) ([]byte, error) {
	r, err := out.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	at := len(items)
	items = slices.Grow(items, int(out.Size))[:at+int(out.Size)]
	_, err = io.ReadFull(r, items[at:])
	return items, err
}

// number gives a bundle with items the next number. From here on the number
// stands for exactly this bundle.
func (s *Session) number(o *Outgoing) {
	if !o.HasItems() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	o.seq = s.seq
}

// remember keeps what an ack of the bundle is read by.
func (s *Session) remember(o *Outgoing) {
	if o.seq == 0 {
		return
	}
	one := sent{seq: o.seq, header: o.header, outs: slices.Clone(o.outs)}
	for i := range one.outs {
		one.outs[i].Open = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.underway {
		node.Again(s.underway[i].outs, one.outs)
	}
	s.underway = append(s.underway, one)
	if len(s.underway) > remembered {
		s.underway = slices.Clone(s.underway[1:])
	}
}

// finish seals the section and signs the header.
func (o *Outgoing) finish(section []byte) error {
	s := o.s
	key, err := s.currentKey()
	if err != nil {
		return err
	}
	d := s.node.Directory()
	c := &Clear{
		Type: bundleType, V: 1, Domain: d.Domain(), Link: s.link, From: s.node.ID(), To: s.neighbour,
		Epoch: s.epoch, Seq: o.seq, Created: strictjson.TimeOf(s.node.Now()), Directory: d.Version(),
		Key: key.wrapped, Cert: key.cert, Salt: make([]byte, 16),
	}
	if _, err := io.ReadFull(s.node.Rand(), c.Salt); err != nil {
		return err
	}
	for _, p := range o.parts {
		c.Parts.Count++
		c.Parts.Size += p.Size
	}
	if o.sealed, err = sealSection(key.secret, c, section); err != nil {
		return err
	}
	c.Sealed = Extent{Size: int64(len(o.sealed)), SM3: sm.Sum(o.sealed)}
	signer, err := s.node.Signer()
	if err != nil {
		return err
	}
	if o.header, o.frame, err = signClear(signer, c); err != nil {
		return err
	}
	o.size = int64(len(o.frame)) + c.Sealed.Size + c.Parts.Size + footerSize
	return nil
}

// currentKey is the epoch's key, made anew when the neighbour's certificate
// changed.
func (s *Session) currentKey() (*epochKey, error) {
	neighbour, ok := s.node.Directory().Node(s.neighbour)
	if !ok {
		return nil, fmt.Errorf("link: node %s is not in the directory", s.neighbour)
	}
	cert, err := neighbour.Current("encrypt", s.node.Now())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.key == nil || s.key.cert != sm.Sum(cert.DER) {
		if s.key, err = newEpochKey(s.node.Rand(), cert); err != nil {
			s.key = nil
			return nil, err
		}
	}
	return s.key, nil
}

// WriteTo writes the bundle, opening one part at a time. After an error
// nothing can be said about what arrived: call Lost.
func (o *Outgoing) WriteTo(w io.Writer) (int64, error) {
	return o.writeTo(context.Background(), w)
}

func (o *Outgoing) writeTo(ctx context.Context, w io.Writer) (total int64, err error) {
	for _, b := range [][]byte{o.frame, o.sealed} {
		n, err := w.Write(b)
		if total += int64(n); err != nil {
			return total, err
		}
	}
	for i := range o.parts {
		n, err := o.copyPart(ctx, w, &o.parts[i])
		if total += n; err != nil {
			return total, err
		}
	}
	n, err := w.Write(footer(o.size))
	return total + int64(n), err
}

func (o *Outgoing) copyPart(ctx context.Context, w io.Writer, p *node.Out) (int64, error) {
	var n int64
	r, err := p.Open(ctx)
	if err == nil {
		defer r.Close()
		if n, err = io.CopyN(w, r, p.Size); err == nil || !errors.Is(err, io.EOF) {
			return n, err
		}
	}
	o.mu.Lock()
	o.broken = p
	o.mu.Unlock()
	return n, fmt.Errorf("link: a stored part cannot be read: %w", err)
}

// Lost says that a bundle did not arrive, or that nobody knows. Its items
// never left their lanes; the next bundle takes a new number. Acks in it are
// given again.
func (s *Session) Lost(ctx context.Context, o *Outgoing) {
	s.mu.Lock()
	s.acks = append(o.acks, s.acks...)
	s.acks = s.acks[max(0, len(s.acks)-MaxAcks):]
	o.acks = nil
	s.mu.Unlock()
	if o.tells {
		s.node.Untold(s.link)
	}
	o.mu.Lock()
	broken := o.broken
	o.mu.Unlock()
	if broken != nil {
		s.node.Unreadable(ctx, s.link, *broken)
	}
}

// settle applies one ack to the bundle it speaks of. An ack for a number we
// did not give, or for other content, changes nothing.
func (s *Session) settle(ctx context.Context, a Ack) (bool, error) {
	s.mu.Lock()
	i := slices.IndexFunc(s.underway, func(o sent) bool {
		return a.Epoch == s.epoch && a.Seq == o.seq && a.Header == o.header
	})
	var o sent
	if i >= 0 {
		o = s.underway[i]
	}
	s.mu.Unlock()
	if i < 0 || len(a.Items) != len(o.outs) {
		return false, nil
	}
	outcomes := make([]node.Outcome, len(a.Items))
	for k, item := range a.Items {
		outcomes[k] = node.Outcome{Status: item.Status, Reason: item.Reason}
	}
	return true, s.node.Settle(ctx, s.link, o.outs, outcomes)
}
