package sim

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/link"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// submission is a client that retries with its idempotency key until it is
// told that its document is accepted.
type submission struct {
	key        string
	host       *host
	sender     string
	recipients []string
	files      [][]byte
	urgency    exchange.Urgency
	expires    time.Time // zero: long after the run
	id         string    // once acknowledged
	recalled   bool      // its sender asked for that
	promised   bool      // and was told that the recall is on its way
}

// step does one thing, drawn from the seed.
func (w *world) step(maxDocs int) {
	w.clock = w.clock.Add(time.Duration(1+w.rng.IntN(60)) * time.Millisecond)
	p := w.pairs[w.rng.IntN(len(w.pairs))]
	h := w.hosts[w.rng.IntN(len(w.hosts))]
	if w.jumps {
		w.jump(h)
	} else if w.rng.IntN(20) == 0 {
		w.stamp(h)
		return
	}
	if w.rng.IntN(40) == 0 || h.held(p.link) && w.rng.IntN(10) == 0 {
		w.operate(h, p)
		return
	}
	if w.rng.IntN(50) == 0 {
		w.requeue(h)
		return
	}
	if w.rng.IntN(50) == 0 {
		w.giveUp(h)
		return
	}
	if w.rng.IntN(60) == 0 {
		w.ask()
		return
	}
	switch n := w.rng.IntN(100); {
	case n < 12:
		w.submit(maxDocs)
	case n < 32:
		w.work(h)
	case n < 34:
		w.publish(h)
	case n < 48:
		w.startCall(p, false)
	case n < 62:
		w.startCall(p, true)
	case n < 88:
		w.deliverMessage()
	case n < 94:
		w.act(h)
	case n < 97:
		w.expireCalls()
	case n < 99:
		w.attack()
	default:
		if w.faults.hit(3) {
			w.restart(h)
		}
	}
}

// submit lets a waiting client try (again), or a new one appear.
func (w *world) submit(maxDocs int) {
	var s *submission
	for _, d := range w.docs {
		if d.id == "" && (s == nil || w.rng.IntN(2) == 0) {
			s = d
		}
	}
	if s == nil || w.rng.IntN(3) == 0 && len(w.docs) < maxDocs {
		if len(w.docs) == maxDocs {
			return
		}
		s = w.newSubmission()
	}
	w.guarded(s.host, func() { w.trySubmit(s) })
}

func (w *world) newSubmission() *submission {
	h := w.hosts[w.rng.IntN(len(w.hosts))]
	w.keys++
	s := &submission{
		key: fmt.Sprintf("key-%d", w.keys), host: h,
		sender:  w.cast.agencies[h.id][w.rng.IntN(2)],
		urgency: []exchange.Urgency{exchange.Normal, exchange.Urgent, exchange.VeryUrgent}[w.rng.IntN(3)],
	}
	for _, a := range w.cast.all {
		if a != s.sender && w.rng.IntN(2) == 0 {
			s.recipients = append(s.recipients, a)
		}
	}
	if len(s.recipients) == 0 {
		s.recipients = []string{w.cast.agencies[w.hosts[1-indexOf(w.hosts, h)].id][0]}
	}
	for i := range 1 + w.rng.IntN(2) {
		content := make([]byte, 1+w.rng.IntN(3000))
		sum := sha256.Sum256([]byte(fmt.Sprint(w.seed, s.key, i)))
		for k := range content {
			content[k] = sum[k%32] + byte(k)
		}
		s.files = append(s.files, content)
	}
	if w.rng.IntN(3) == 0 {
		s.expires = w.clock.Add(time.Second + time.Duration(w.rng.Int64N(int64(40*time.Second))))
	}
	w.docs = append(w.docs, s)
	return s
}

func indexOf(list []*host, h *host) int {
	for i := range list {
		if list[i] == h {
			return i
		}
	}
	return -1
}

func (s *submission) content() iter.Seq2[envelope.File, error] {
	return func(yield func(envelope.File, error) bool) {
		for i, b := range s.files {
			role := envelope.RoleAttachment
			if i == 0 {
				role = envelope.RoleBody
			}
			f := envelope.File{Role: role, Name: fmt.Sprintf("文件%d.ofd", i), Type: "application/ofd", Content: bytes.NewReader(b)}
			if !yield(f, nil) {
				return
			}
		}
	}
}

func (w *world) trySubmit(s *submission) {
	doc := exchange.Document{Label: exchange.Internal, Kind: exchange.Official, Urgency: s.urgency, Title: "关于模拟运行的通知 " + s.key}
	for _, r := range s.recipients {
		doc.To = append(doc.To, exchange.Addressee{Agency: r})
	}
	got, err := s.host.node.Submit(w.ctx, node.Submission{
		Agency: s.sender, IdempotencyKey: s.key, Document: doc, Expires: s.expires, Files: s.content(),
	})
	if err != nil && s.tooLate(s.host.now()) && exchange.CodeOf(err) == exchange.CodeInvalidDocument {
		w.docs = slices.DeleteFunc(w.docs, func(d *submission) bool { return d == s })
		w.note("%s: %s is too late", s.host.id, s.key)
		return
	}
	if err != nil {
		if !exchange.IsTemporary(err) && (w.strike == nil || !isInjected(err)) {
			w.fail("submission %s refused: %v", s.key, err)
		}
		w.note("%s: %s again later", s.host.id, s.key)
		return
	}
	// Only now does the client know. If it is told of two documents, one of
	// them was doubled.
	if s.id != "" && s.id != got.ID {
		w.fail("I2: %s was accepted as %s and as %s", s.key, s.id, got.ID)
	}
	s.id = got.ID
	w.stats.Submitted++
	w.note("%s accepts %s as %s", s.host.id, s.key, got.ID)
}

func (w *world) work(h *host) {
	w.guarded(h, func() {
		did, err := h.node.Work(w.ctx)
		w.tolerate(err, "work")
		w.note("%s works %v", h.id, did)
	})
}

// tolerate accepts the faults this world injects and nothing else.
func (w *world) tolerate(err error, what string) {
	if errors.Is(err, link.ErrNewer) { // for a moment only: quiet expects everybody to hear of it
		w.stats.Strangers++
		return
	}
	if err == nil || isInjected(err) {
		return
	}
	if (w.faults.armed || w.strike != nil) && (errors.Is(err, link.ErrFault) || exchange.IsTemporary(err)) {
		return
	}
	w.fail("%s: %v", what, err)
}

// startCall lets a dialer push or poll, unless one is under way.
func (w *world) startCall(p *pair, poll bool) {
	slot, kind := &p.push, link.Push
	if poll {
		slot, kind = &p.poll, link.Poll
	}
	if *slot != nil {
		return
	}
	var data []byte
	var o *link.Outgoing
	w.guarded(p.dialer, func() { o, data = w.next(p.dialer, p.a, kind) })
	if o == nil {
		return
	}
	w.call(p, poll, o, data)
}

// call puts a request on the wire, and now and then makes the push that follows
// while it is there, as the adapter does.
func (w *world) call(p *pair, poll bool, o *link.Outgoing, data []byte) {
	c := &call{out: o, expires: w.clock.Add(3 * time.Second)}
	slot := &p.push
	if poll {
		slot = &p.poll
	}
	*slot = c
	w.send(&message{p: p, c: c, poll: poll, boots: p.listener.boots, data: data})
	if poll || w.rng.IntN(2) == 0 {
		return
	}
	w.guarded(p.dialer, func() {
		var err error
		p.ready, err = p.a.Following(w.ctx, o)
		w.tolerate(err, "following")
	})
}

// follow lets the push leave that was made while the last one was under way.
func (w *world) follow(p *pair) {
	o := p.ready
	if p.ready = nil; o == nil {
		return
	}
	var data []byte
	w.guarded(p.dialer, func() {
		outdated, err := p.a.Outdated(w.ctx, o)
		w.tolerate(err, "outdated")
		if err != nil || outdated {
			p.a.Lost(w.ctx, o)
			return
		}
		o, data = w.written(p.dialer, p.a, o)
	})
	if data != nil {
		w.call(p, false, o, data)
	}
}

// drop gives up the push that was to follow.
func (w *world) drop(p *pair) {
	if p.ready != nil {
		p.a.Lost(w.ctx, p.ready)
		p.ready = nil
	}
}

func (w *world) next(h *host, s *link.Session, kind link.Kind) (*link.Outgoing, []byte) {
	o, err := s.Next(w.ctx, kind)
	w.tolerate(err, "next")
	if o == nil || err != nil {
		return nil, nil
	}
	return w.written(h, s, o)
}

func (w *world) written(h *host, s *link.Session, o *link.Outgoing) (*link.Outgoing, []byte) {
	var b bytes.Buffer
	n, err := o.WriteTo(&b)
	w.tolerate(err, "write")
	if err == nil && n != o.Size() {
		w.fail("a bundle announced %d bytes and wrote %d", o.Size(), n)
	}
	if o.HasItems() && h.held(s.Link()) {
		w.fail("I1: held link %s of %s gives items out", s.Link(), h.id)
	}
	w.stats.Bundles++
	return o, b.Bytes()
}

// send puts a message on the wire, which may lose, double or mangle it.
func (w *world) send(m *message) {
	w.note("wire %s poll=%v reply=%v %d bytes %x", m.p.link, m.poll, m.reply, len(m.data), sha256.Sum256(m.data))
	if w.faults.hit(8) {
		w.stats.Lost++
		return
	}
	w.wire = append(w.wire, m)
	if w.faults.hit(10) {
		w.stats.Doubled++
		w.wire = append(w.wire, m)
	}
	if w.faults.hit(10) {
		w.stats.Mangled++
		m.data = w.mangle(m.data)
	}
}

func (w *world) mangle(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) == 0 || w.rng.IntN(2) == 0 {
		return b[:w.rng.IntN(len(b)+1)]
	}
	for range 1 + w.rng.IntN(3) {
		b[w.rng.IntN(len(b))] ^= 1 << w.rng.IntN(8)
	}
	return b
}

// deliverMessage takes any message off the wire: order is not kept.
func (w *world) deliverMessage() {
	if len(w.wire) == 0 {
		return
	}
	i := w.rng.IntN(len(w.wire))
	m := w.wire[i]
	w.wire = append(w.wire[:i], w.wire[i+1:]...)
	if m.reply {
		w.deliverReply(m)
	} else {
		w.deliverRequest(m)
	}
}

func (w *world) deliverRequest(m *message) {
	p := m.p
	var o *link.Outgoing
	var data []byte
	whole := w.guarded(p.listener, func() {
		err := w.receive(p.listener, p.b, m.data)
		kind := link.Reply
		switch {
		case errors.Is(err, link.ErrNewer):
			kind = link.Notice
		case errors.Is(err, link.ErrFault), errors.Is(err, link.ErrHeld):
			return
		case m.poll:
			kind = link.Answer
		}
		o, data = w.next(p.listener, p.b, kind)
	})
	if whole && (o != nil || m.poll) {
		w.send(&message{p: p, c: m.c, poll: m.poll, reply: true, boots: p.dialer.boots, data: data})
	}
}

func (w *world) deliverReply(m *message) {
	p := m.p
	slot := &p.push
	if m.poll {
		slot = &p.poll
	}
	if p.dialer.boots != m.boots {
		return
	}
	ours := *slot == m.c
	if ours {
		if *slot = nil; !m.poll {
			w.follow(p)
		}
	}
	w.guarded(p.dialer, func() {
		if len(m.data) == 0 {
			return
		}
		err := w.receive(p.dialer, p.a, m.data)
		if err != nil && ours {
			p.a.Lost(w.ctx, m.c.out)
			if !m.poll {
				w.drop(p)
			}
		}
	})
}

// expireCalls gives up requests whose answer did not come.
func (w *world) expireCalls() {
	w.clock = w.clock.Add(time.Second)
	for _, p := range w.pairs {
		for _, slot := range []**call{&p.push, &p.poll} {
			if c := *slot; c != nil && !w.clock.Before(c.expires) {
				push := c == p.push
				*slot = nil
				w.guarded(p.dialer, func() {
					p.a.Lost(w.ctx, c.out)
					if push {
						w.drop(p)
					}
				})
			}
		}
	}
}

// act lets an agency of a node look into its inbox, collect, and sign for or
// return what it finds.
func (w *world) act(h *host) {
	agency := w.cast.agencies[h.id][w.rng.IntN(2)]
	w.guarded(h, func() {
		items, err := h.node.Inbox(w.ctx, agency, 0, 100)
		w.must(err, "inbox")
		if len(items) == 0 {
			return
		}
		item := items[w.rng.IntN(len(items))]
		d := w.document(item.ID)
		if w.rng.IntN(3) == 0 {
			w.collect(h, agency, item.ID, d)
		}
		w.decide(h, agency, item.ID)
	})
}

// intent is what an agency has decided to do with a document; it stays at it.
func intent(agency, id string) exchange.Stage {
	if sum := sha256.Sum256([]byte(id + agency)); sum[0]%5 == 0 {
		return exchange.StageReturned
	}
	return exchange.StageSignedFor
}

func (w *world) decide(h *host, agency, id string) {
	if item, err := h.node.InboxItem(w.ctx, agency, id); err == nil && item.Stage == exchange.StageRecalled {
		return
	}
	stage := intent(agency, id)
	receipt, err := h.node.Act(w.ctx, agency, id, node.Action{
		Stage: stage, Actor: exchange.Actor{Name: "值班员"}, Opinion: "已阅", Reason: "重复",
	})
	w.tolerate(err, "act")
	if err != nil {
		return
	}
	again, err := h.node.Act(w.ctx, agency, id, node.Action{Stage: stage, Actor: exchange.Actor{Name: "另一人"}, Reason: "x"})
	w.tolerate(err, "act again")
	if err == nil && !bytes.Equal(receipt, again) {
		w.fail("I2: acting twice gave two receipts for %s", id)
	}
	w.note("%s: %s says %s of %s", h.id, agency, stage, id)
}

// collect reads all files and compares them with what was sent (I8).
func (w *world) collect(h *host, agency, id string, d *submission) {
	opened, err := h.node.Collect(w.ctx, agency, id)
	if exchange.CodeOf(err) == exchange.CodeRecalled && (d == nil || d.recalled) {
		return
	}
	w.tolerate(err, "collect")
	if err != nil || d == nil {
		return
	}
	for i, want := range d.files {
		r, err := opened.File(w.ctx, i)
		w.must(err, "file")
		got, err := io.ReadAll(r)
		w.must(err, "read file")
		if !bytes.Equal(got, want) {
			w.fail("I8: file %d of %s arrived with other bytes", i, id)
		}
	}
}

// document finds the client's side of a document; nil when no client was told
// of it yet.
func (w *world) document(id string) *submission {
	for _, d := range w.docs {
		if d.id == id {
			return d
		}
	}
	return nil
}
