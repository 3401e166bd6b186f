package link

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/guard"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// TestTheGuardRefuses: on the way in and on the way out, by what a header shows, each
// recipient for itself; the sender has one signed receipt for each, with the reason.
func TestTheGuardRefuses(t *testing.T) {
	bing := func(b *boundary) string { return b.cast.agencies["bing"] }
	notice := func(s *node.Submission) { s.Document.Kind = exchange.Notice }
	for _, c := range []struct {
		name           string
		link, way      string
		policy         func(*boundary) string
		change         func(*node.Submission)
		size           int
		yi, bing       string
		headersRefused int // whole, at yi
	}{
		{"nothing", "jia-yi", "in", func(*boundary) string { return "" }, nil, 100, "yi DELIVERED", "bing DELIVERED", 0},
		{"in: a kind", "jia-yi", "in", func(*boundary) string { return `kinds = ["official"]` }, notice, 100, "yi REJECTED guard_kind", "bing REJECTED guard_kind", 1},
		{"in: the ceiling", "jia-yi", "in", func(*boundary) string { return `ceiling = "public"` }, nil, 100, "yi REJECTED label_ceiling", "bing REJECTED label_ceiling", 1},
		{"in: the size", "jia-yi", "in", func(*boundary) string { return `max_mib = 1` }, nil, 2 << 20, "yi REJECTED guard_size", "bing REJECTED guard_size", 1},
		{"in: one pair", "jia-yi", "in", func(b *boundary) string {
			return "[[link.rule]]\nverdict = \"deny\"\nto = \"" + bing(b) + "\"\n[[link.rule]]\nverdict = \"allow\"\n"
		}, nil, 100, "yi DELIVERED", "bing REJECTED guard_pair", 0},
		{"in: every pair", "jia-yi", "in", func(b *boundary) string {
			return "[[link.rule]]\nverdict = \"deny\"\nfrom = \"" + b.cast.agencies["jia"] + "\"\n"
		}, nil, 100, "yi REJECTED guard_pair", "bing REJECTED guard_pair", 1},
		{"out: a kind", "yi-bing", "out", func(*boundary) string { return `kinds = ["official"]` }, notice, 100, "yi DELIVERED", "bing REJECTED guard_kind", 0},
		{"out: the size", "yi-bing", "out", func(*boundary) string { return `max_mib = 1` }, nil, 2 << 20, "yi DELIVERED", "bing REJECTED guard_size", 0},
		{"out: the ceiling", "yi-bing", "out", func(*boundary) string { return `ceiling = "public"` }, nil, 100, "yi DELIVERED", "bing REJECTED label_ceiling", 0},
		{"out: a pair of another kind", "yi-bing", "out", func(b *boundary) string {
			return "[[link.rule]]\nverdict = \"allow\"\nto = \"" + bing(b) + "\"\nkinds = [\"official\"]\n"
		}, notice, 100, "yi DELIVERED", "bing REJECTED guard_pair", 0},
		{"out: the other direction's", "yi-bing", "in", func(*boundary) string { return `kinds = ["official"]` }, notice, 100, "yi DELIVERED", "bing DELIVERED", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBoundary(t)
			b.policy(b.yi, fmt.Sprintf(between, c.link, c.way, c.policy(b)))
			id := b.send(c.change, c.size, "yi", "bing")
			b.flow()
			if got := b.stages(id); !slices.Equal(got, []string{c.bing, c.yi}) {
				t.Fatalf("the sender sees %q, want %q", got, []string{c.bing, c.yi})
			}
			n := 0
			for _, q := range b.yi.quarantined() {
				if strings.HasPrefix(q, "header: ") {
					n++
				}
			}
			if n != c.headersRefused {
				t.Errorf("%d headers were refused whole, want %d: %v", n, c.headersRefused, b.yi.quarantined())
			}
			b.sound()
		})
	}
}

// TestARefusedHeaderConcernsItsWay: what a guard refuses with the header ends for the
// recipients behind it, and for nobody whose copy goes another way.
func TestARefusedHeaderConcernsItsWay(t *testing.T) {
	b := newBoundary(t)
	b.policy(b.bing, fmt.Sprintf(between, "yi-bing", "in", `ceiling = "public"`))
	id := b.send(nil, 100, "yi", "bing")
	b.flow()
	if got := b.stages(id); !slices.Equal(got, []string{"bing REJECTED label_ceiling", "yi DELIVERED"}) {
		t.Fatalf("the sender sees %q", got)
	}
	e := b.jia.only(id, exchange.StageRejected)
	if !slices.Equal(e.Recipients, []string{b.cast.agencies["bing"]}) || e.Node != "bing" {
		t.Errorf("REJECTED of %v by %s", e.Recipients, e.Node)
	}
	b.sound()
}

// TestTheSecondLinksGuard: a header that is known already from one link passes no guard of
// another by that: who comes over the second is judged by its policy, whichever of the
// two is first, and whoever comes over the first is none of its business.
func TestTheSecondLinksGuard(t *testing.T) {
	c := rejoining(t).cast
	for name, second := range map[string]string{"known from the open link": "xi", "refused over the guarded one": "dong"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.cast = c
			jia, dong, xi := w.host("jia", "jia-dong", nil, nil), w.host("dong", "jia-dong", nil, nil), w.host("xi", "jia-xi", nil, nil)
			he, yi, bing := w.host("he", "dong-he", nil, nil), w.host("yi", "he-yi", nil, nil), w.host("bing", "he-bing", nil, nil)
			var err error
			he.guard, err = guard.Parse("guard.toml", []byte(fmt.Sprintf(between, "xi-he", "in", `kinds = ["notice"]`)))
			w.must(err)
			he.restart()
			id := w.submitToBoth(jia)
			ways := []func(){
				func() { w.exchange(jia, dong); w.exchange(dong.over("dong-he"), he) },
				func() { w.exchange(jia.over("jia-xi"), xi); w.exchange(xi.over("xi-he"), he.over("xi-he")) },
			}
			if second == "dong" {
				slices.Reverse(ways)
			}
			for range 2 { // the second round brings the receipts home
				for _, carry := range ways {
					carry()
				}
				w.exchange(he.over("he-yi"), yi)
				w.exchange(he.over("he-bing"), bing)
			}
			for _, carry := range ways {
				carry()
			}
			yi.delivered(id)
			bing.delivered()
			if e := jia.only(id, exchange.StageRejected); e.Node != "he" || e.Reason != exchange.CodeGuardKind || !slices.Equal(e.Recipients, []string{w.cast.agencies["bing"]}) {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestNobodyIsLeftOutOfARefusal: while the neighbour has another directory, and may
// send others this way, a header that would be refused for some stays with it.
func TestNobodyIsLeftOutOfARefusal(t *testing.T) {
	b := ownBoundary(t)
	b.policy(b.bing, fmt.Sprintf(between, "yi-bing", "in", `ceiling = "public"`))
	id := b.send(nil, 100, "yi", "bing")
	older := b.cast.directory
	b.publish()
	b.bing.shelf.inForce, b.yi.shelf.refuse, b.jia.shelf.refuse = b.cast.directory, true, true
	for _, h := range []*host{b.yi, b.jia} {
		h.shelf.inForce = older
	}
	b.exchange(b.jia, b.yi)
	for range 3 {
		b.clock = b.clock.Add(2 * time.Minute)
		if push, bytes := b.over.next(Push); push != nil {
			b.bing.receive(bytes)
			_, reply := b.bing.next(Reply)
			b.over.receive(reply)
		}
	}
	if q := b.over.backlog(); q.Waiting != 1 {
		t.Fatalf("%d wait", q.Waiting)
	}
	b.yi.shelf.inForce, b.jia.shelf.inForce = b.cast.directory, b.cast.directory
	b.flow()
	if got := b.stages(id); !slices.Equal(got, []string{"bing REJECTED label_ceiling", "yi DELIVERED"}) {
		t.Fatalf("the sender sees %q", got)
	}
	b.sound()
}

// TestTheSenderIsToldAtOnce: what its own node's guard refuses is not accepted.
func TestTheSenderIsToldAtOnce(t *testing.T) {
	b := newBoundary(t)
	b.policy(b.jia, fmt.Sprintf(between, "jia-yi", "out", "max_mib = 1\nkinds = [\"official\"]\n[[link.rule]]\nverdict = \"allow\"\nto = \""+b.cast.agencies["yi"]+"\"\n"))
	before := b.jia.store.facts()
	for code, try := range map[string]func() error{
		exchange.CodeGuardPair: func() error { _, err := b.trySend(nil, 100, "yi", "bing"); return err },
		exchange.CodeGuardKind: func() error {
			_, err := b.trySend(func(s *node.Submission) { s.Document.Kind = exchange.Notice }, 100, "yi")
			return err
		},
		exchange.CodeGuardSize: func() error { _, err := b.trySend(nil, 2<<20, "yi"); return err },
	} {
		if err := try(); exchange.CodeOf(err) != code {
			t.Errorf("%v, want %s", err, code)
		}
	}
	if !sameRows(before, b.jia.store.facts()) {
		t.Error("a refused submission left something behind")
	}
	id := b.send(nil, 100, "yi")
	b.flow()
	b.yi.delivered(id)
}

// TestMarksAreRefused: in title, number and file names, whatever stands in them.
func TestMarksAreRefused(t *testing.T) {
	b := newBoundary(t)
	before := b.jia.store.facts()
	file := func(name string) func(*node.Submission) {
		return func(s *node.Submission) {
			s.Files = func(yield func(envelope.File, error) bool) {
				_ = yield(envelope.File{Role: envelope.RoleBody, Name: "正文.ofd", Type: "application/ofd", Content: strings.NewReader("正文")}, nil) &&
					yield(envelope.File{Role: envelope.RoleAttachment, Name: name, Type: "application/pdf", Content: strings.NewReader("附件")}, nil)
			}
		}
	}
	for name, change := range map[string]func(*node.Submission){
		"title": func(s *node.Submission) { s.Document.Title = "关于人事的通知（机密★10年）" },
		"number": func(s *node.Submission) {
			s.Document.Number = &exchange.Number{Display: "【秘密】黔发〔2026〕1号"}
		},
		"file": file("名单_机密.pdf"),
	} {
		_, err := b.trySend(change, 100, "yi")
		if exchange.CodeOf(err) != exchange.CodeClassificationMark {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "密名") {
			t.Errorf("%s: the error shows it: %v", name, err)
		}
	}
	if !sameRows(before, b.jia.store.facts()) {
		t.Error("a refused submission left something behind")
	}
	b.send(func(s *node.Submission) {
		s.Document.Title = "关于商业秘密保护的通知"
		file("国家秘密保护.pdf")(s)
	}, 100, "yi")
}

// TestUnknownCriticalMember: a header that asks for what is not known is refused, and
// its sender told; it is no damage that another copy would mend.
func TestUnknownCriticalMember(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.pair()
	w.submit(jia, "yi", 100)
	e, _ := w.headerOf(jia)
	h := e.Header
	h.Crit = []string{"later"}
	content, err := strictjson.Marshal(&h)
	w.must(err)
	signed, err := cms.Sign(w.signs("jia"), content, w.clock)
	w.must(err)
	hash := sm.Sum(content)
	for range 2 { // and again, by the stored bytes
		if out := w.hand(yi, "jia-yi", node.KindHeader, hash.String(), signed); out.Status != node.Refused || out.Reason != exchange.CodeUnknownCritical {
			t.Fatalf("%+v", out)
		}
	}
	if n := yi.rowsOf("rcp"); n != 1 {
		t.Errorf("%d receipts", n)
	}
	forged := w.forgedHeader(e, func(h *envelope.Header) { h.Crit = []string{"even later"} })
	s, err := cms.Parse(forged, envelope.MaxHeader)
	w.must(err)
	if out := w.hand(yi, "jia-yi", node.KindHeader, s.ID().String(), forged); out.Status != node.Damaged {
		t.Errorf("one that the sender did not sign: %+v", out)
	}
}

// TestHours: outside them documents stay in their lanes, and receipts and requests go;
// nothing is parked for having waited, and all leaves when they begin.
func TestHours(t *testing.T) {
	b := newBoundary(t)
	hours := "hours = [{ days = \"mon-fri\", from = \"17:00\", to = \"18:00\" }]\nhours_exempt = \"very_urgent\""
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", hours)) // it is Monday, 16:00
	first := b.send(nil, 100, "bing")
	urgent := b.send(func(s *node.Submission) { s.Document.Urgency = exchange.Urgent }, 100, "bing")
	most := b.send(func(s *node.Submission) { s.Document.Urgency = exchange.VeryUrgent }, 100, "bing")
	b.flow()
	b.bing.delivered(most)
	q := b.over.backlog()
	if q.Waiting != 2 || q.ClosedBelow != "very_urgent" || !q.ClosedUntil.Time().Equal(start.Add(time.Hour)) {
		t.Fatalf("%d wait, closed below %q until %s", q.Waiting, q.ClosedBelow, q.ClosedUntil.Time())
	}
	if !b.yi.node.Held("yi-bing") || b.yi.node.Held("jia-yi") {
		t.Error("nobody will look again when the hours begin, or everybody does")
	}
	b.signFor(b.bing, most)
	b.flow()
	if got := b.stages(most); !slices.Equal(got, []string{"bing SIGNED_FOR"}) {
		t.Errorf("receipts did not pass: %q", got)
	}
	b.clock = start.Add(14*24*time.Hour + 30*time.Minute) // a fortnight without a connection, hours included
	b.yi.work()
	if q := b.over.backlog(); q.Parked != 0 || q.Waiting != 2 {
		t.Fatalf("%d parked outside the hours", q.Parked)
	}
	b.clock = start.Add(14*24*time.Hour + 61*time.Minute)
	b.yi.work()
	if q := b.over.backlog(); q.Parked != 0 || q.ClosedBelow != "" {
		t.Fatalf("%d parked as soon as the hours began, closed below %q", q.Parked, q.ClosedBelow)
	}
	b.flow()
	b.bing.delivered(most, urgent, first)
	b.sound()
}

// TestHoursOfAFerry: the same for what goes into files.
func TestHoursOfAFerry(t *testing.T) {
	w := newWorld(t)
	jia, yi := w.bank("jia"), w.bank("yi")
	var err error
	jia.guard, err = guard.Parse("guard.toml", []byte(fmt.Sprintf(between, "jia-yi", "out", "hours = [{ from = \"17:00\", to = \"18:00\" }]")))
	w.must(err)
	jia.board()
	id := w.submit(jia.host, "yi", 100)
	back := w.submit(yi.host, "jia", 100)
	carry := func() {
		for range 3 {
			w.clock = w.clock.Add(time.Minute)
			for _, way := range [][2]*bank{{jia, yi}, {yi, jia}} {
				way[0].exportAnyhow(true)
				for _, file := range way[0].out {
					way[1].load(file)
				}
				way[0].out = nil
			}
		}
	}
	carry()
	yi.delivered()
	jia.delivered(back)
	w.wantStage(yi.host, back, "DELIVERED") // the receipt went
	w.clock = start.Add(time.Hour)
	carry()
	yi.delivered(id)
}
