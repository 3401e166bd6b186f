package link

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/guard"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// boundary is three nodes in a row: jia sends, yi is the node at the boundary, bing
// receives. over is yi's end of the link to bing.
type boundary struct {
	*world
	jia, yi, over, bing *host
	admins              map[string]*keystore.Store
}

// theBoundary is the domain of the tests that leave the directory as it is.
var theBoundary struct {
	sync.Mutex
	cast   *cast
	admins map[string]*keystore.Store
}

func newBoundary(t *testing.T) *boundary {
	theBoundary.Lock()
	defer theBoundary.Unlock()
	w := newWorld(t)
	if theBoundary.cast == nil {
		b := ownBoundary(t)
		theBoundary.cast, theBoundary.admins = b.cast, b.admins
	}
	w.cast = theBoundary.cast
	b := &boundary{world: w, admins: theBoundary.admins}
	b.hosts()
	return b
}

// ownBoundary has a domain of its own, with administrators zhang and li.
func ownBoundary(t *testing.T) *boundary {
	w := ownWorld(t)
	b := &boundary{world: w, admins: map[string]*keystore.Store{}}
	w.must(w.cast.authority.AddRoute("jia", "bing", "yi"))
	w.must(w.cast.authority.AddRoute("bing", "jia", "yi"))
	for _, id := range []string{"zhang", "li"} {
		keys, err := keystore.Create(filepath.Join(t.TempDir(), id), []byte("administrator"), w.rand)
		w.must(err)
		w.must(w.cast.authority.AddAdministrator(id, "管理员"+id, keys, start.AddDate(0, -1, 0)))
		b.admins[id] = keys
	}
	w.publish()
	b.hosts()
	return b
}

func (b *boundary) hosts() {
	b.jia, b.yi, b.bing = b.host("jia", "jia-yi", nil, nil), b.host("yi", "jia-yi", nil, nil), b.host("bing", "yi-bing", nil, nil)
	b.restart()
}

// policy gives a node a policy, and starts it anew.
func (b *boundary) policy(h *host, toml string) {
	b.t.Helper()
	var err error
	h.guard, err = guard.Parse("guard.toml", []byte(toml))
	b.must(err)
	h.restart()
	b.restart()
}

// restart makes yi's end of the other link over what is yi now.
func (b *boundary) restart() {
	b.t.Helper()
	s, err := NewSession(b.yi.node, "yi-bing")
	b.must(err)
	over := *b.yi
	over.link, over.Session = "yi-bing", s
	b.over = &over
}

// flow exchanges over both links until nothing moves.
func (b *boundary) flow() {
	b.t.Helper()
	b.exchange(b.jia, b.yi)
	b.exchange(b.over, b.bing)
	b.exchange(b.jia, b.yi)
}

// send submits a document of a size to several.
func (b *boundary) send(change func(*node.Submission), size int, to ...string) string {
	b.t.Helper()
	got, err := b.trySend(change, size, to...)
	b.must(err)
	b.jia.work()
	return got.ID
}

func (b *boundary) trySend(change func(*node.Submission), size int, to ...string) (*node.Accepted, error) {
	body := bytes.Repeat([]byte("公文"), size/6+1)[:size]
	s := b.submission(b.jia, to[0], "", body)
	for _, id := range to[1:] {
		s.Document.To = append(s.Document.To, exchange.Addressee{Agency: b.cast.agencies[id]})
	}
	if change != nil {
		change(&s)
	}
	got, err := b.jia.node.Submit(b.ctx, s)
	if err == nil {
		b.files[got.ID] = [][]byte{body}
	}
	return got, err
}

// stages are how the sender sees each recipient, by name.
func (b *boundary) stages(id string) (out []string) {
	b.t.Helper()
	tr, err := b.jia.node.Trace(b.ctx, b.cast.agencies["jia"], id)
	b.must(err)
	if !tr.ReceiptsVerified || !tr.LedgerVerified {
		b.t.Fatalf("receipts verified %v, ledger %v", tr.ReceiptsVerified, tr.LedgerVerified)
	}
	for _, r := range tr.Recipients {
		for name, code := range b.cast.agencies {
			if code == r.Agency {
				out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", name, r.Stage, r.Reason)))
			}
		}
	}
	slices.Sort(out)
	return out
}

func (b *boundary) sound() {
	b.t.Helper()
	for _, h := range []*host{b.jia, b.yi, b.bing} {
		if r := h.check(); !r.OK {
			b.t.Fatalf("%s: %+v", h.id, r.Problems)
		}
	}
}

func (b *boundary) waitsForApproval() []node.GuardItem {
	b.t.Helper()
	list, err := b.yi.node.GuardItems(b.ctx, "", 100)
	b.must(err)
	return list
}

// signed is what an administrator signs about an item, changed.
func (b *boundary) signed(who string, item *node.GuardItem, verdict string, change func(*exchange.GuardApproval)) []byte {
	b.t.Helper()
	a := exchange.GuardApproval{
		Domain: "test", Node: "yi", Link: item.Link, Header: item.Header, Verdict: verdict, Administrator: who, Time: strictjson.TimeOf(b.clock),
	}
	if verdict == exchange.VerdictRefuse {
		a.Reason = "不宜外发"
	}
	if change != nil {
		change(&a)
	}
	content, err := a.Marshal()
	b.must(err)
	list := b.cast.directory.Administrators()
	i := slices.IndexFunc(list, func(a *certs.Administrator) bool { return a.ID == who })
	signed, err := cms.Sign(certs.Signer(b.admins[who].WithRandom(b.rand), &list[i].Certificates[0]), content, b.clock)
	b.must(err)
	return signed
}

func (b *boundary) takes(signed []byte, code string) {
	b.t.Helper()
	err := b.yi.node.Approve(b.ctx, signed)
	if code == "" {
		b.must(err)
	} else if exchange.CodeOf(err) != code {
		b.t.Fatalf("%v, want %s", err, code)
	}
}

const between = "[[link]]\nlink = \"%s\"\ndirection = \"%s\"\n%s\n"

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

// only gives the one event of a stage.
func (h *host) only(id string, stage exchange.Stage) node.Event {
	h.w.t.Helper()
	tr, err := h.node.Trace(h.w.ctx, h.w.cast.agencies[h.id], id)
	h.w.must(err)
	list := slices.DeleteFunc(tr.Events, func(e node.Event) bool { return e.Stage != stage })
	if len(list) != 1 {
		h.w.t.Fatalf("%d receipts say %s", len(list), stage)
	}
	return list[0]
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

const twoEyes = "[link.approval]\nadministrators = 2\n"

// TestApprovals: a document waits until two administrators approve it, over restarts
// between each two steps; one word of one of them counts once.
func TestApprovals(t *testing.T) {
	b := newBoundary(t)
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes))
	id := b.send(nil, 100, "yi", "bing")
	b.flow()
	b.yi.delivered(id)
	b.bing.delivered()
	list := b.waitsForApproval()
	if len(list) != 1 || list[0].Needed != 2 || list[0].Document != id || !slices.Equal(list[0].Recipients, []string{b.cast.agencies["bing"]}) || list[0].ID != "yi-bing/normal/1" {
		t.Fatalf("%+v", list)
	}
	item := &list[0]
	if q := b.over.backlog(); q.Guarded != 1 || q.Waiting+q.Parked != 0 {
		t.Errorf("%+v", q)
	}
	first := b.signed("zhang", item, exchange.VerdictApprove, nil)
	b.takes(first, "")
	b.takes(first, "") // the same again changes nothing
	b.takes(b.signed("zhang", item, exchange.VerdictApprove, func(a *exchange.GuardApproval) { a.Reason = "再批" }), exchange.CodeGuardApproval)
	b.takes(b.signed("zhang", item, exchange.VerdictRefuse, nil), exchange.CodeGuardApproval)
	leaves := func() (n int) {
		for _, e := range b.yi.events() {
			if e == "approval" {
				n++
			}
		}
		return n
	}
	if leaves() != 1 {
		t.Errorf("%d leaves of approvals", leaves())
	}
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes)) // a crash
	b.flow()
	b.bing.delivered()
	b.sound()
	b.takes(b.signed("li", item, exchange.VerdictApprove, nil), "")
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes)) // a crash before it goes on
	if len(b.waitsForApproval()) != 1 {
		t.Error("it went on without the work")
	}
	b.yi.work()
	b.flow()
	b.bing.delivered(id)
	if leaves() != 2 || len(b.waitsForApproval()) != 0 {
		t.Errorf("%d leaves of approvals, %d wait", leaves(), len(b.waitsForApproval()))
	}
	b.takes(b.signed("li", item, exchange.VerdictRefuse, nil), exchange.CodeGuardApproval)
	b.takes(first, "")
	b.flow()
	if got := b.stages(id); !slices.Equal(got, []string{"bing COLLECTED", "yi COLLECTED"}) {
		t.Errorf("the sender sees %q", got)
	}
	b.sound()
}

// TestApprovalsThatDoNotCount: for another document, link, node or domain, by nobody
// the directory names, or by one person under two names.
func TestApprovalsThatDoNotCount(t *testing.T) {
	b := newBoundary(t)
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes))
	id := b.send(nil, 100, "bing")
	b.flow()
	item := &b.waitsForApproval()[0]
	for name, change := range map[string]func(*exchange.GuardApproval){
		"another domain":        func(a *exchange.GuardApproval) { a.Domain = "other" },
		"another node":          func(a *exchange.GuardApproval) { a.Node = "bing" },
		"another administrator": func(a *exchange.GuardApproval) { a.Administrator = "li" },
		"nobody":                func(a *exchange.GuardApproval) { a.Administrator = "wang" },
	} {
		t.Run(name, func(*testing.T) {
			b.takes(b.signed("zhang", item, exchange.VerdictApprove, change), exchange.CodeGuardApproval)
		})
	}
	b.takes(b.signed("zhang", item, exchange.VerdictApprove, func(a *exchange.GuardApproval) { a.Link = "jia-yi" }), exchange.CodeNotFound)
	b.takes(b.signed("zhang", item, exchange.VerdictApprove, func(a *exchange.GuardApproval) { a.Header[0]++ }), exchange.CodeNotFound)
	good := b.signed("zhang", item, exchange.VerdictApprove, nil)
	b.takes(append([]byte{}, good[:len(good)-1]...), exchange.CodeGuardApproval)
	broken := slices.Clone(good)
	broken[len(broken)-3] ^= 1
	if b.yi.node.Approve(b.ctx, broken) == nil {
		t.Error("a broken signature counts")
	}
	b.takes(good, "")
	b.yi.work()
	b.flow()
	b.bing.delivered()
	b.sound()
	b.takes(b.signed("li", item, exchange.VerdictApprove, nil), "")
	b.yi.work()
	b.flow()
	b.bing.delivered(id)
}

// TestOneRefusalEnds: REJECTED with the administrator's reason, sealed for the sender,
// over a crash between the word and the end.
func TestOneRefusalEnds(t *testing.T) {
	b := newBoundary(t)
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes))
	id := b.send(nil, 100, "yi", "bing")
	b.flow()
	item := &b.waitsForApproval()[0]
	b.takes(b.signed("zhang", item, exchange.VerdictApprove, nil), "")
	b.takes(b.signed("li", item, exchange.VerdictRefuse, nil), "")
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes))
	b.yi.work()
	b.flow()
	if got := b.stages(id); !slices.Equal(got, []string{"bing REJECTED guard_refused", "yi DELIVERED"}) {
		t.Fatalf("the sender sees %q", got)
	}
	if e := b.jia.only(id, exchange.StageRejected); e.Node != "yi" || e.Detail == nil || e.Detail.Reason != "不宜外发" {
		t.Errorf("%+v", e)
	}
	b.bing.delivered()
	if q := b.over.backlog(); q.Guarded+q.Parked+q.Waiting != 0 {
		t.Errorf("%+v", q)
	}
	b.sound()
}

// TestARetryDoesNotLetPass: what an administrator refused, and whose end could not be
// signed yet, is parked; an operator who puts it back sends it to its end.
func TestARetryDoesNotLetPass(t *testing.T) {
	b := newBoundary(t)
	keys := &losable{Store: b.cast.keys["yi"].WithRandom(b.rand)}
	b.watch = func(h *host, had node.Keys) node.Keys {
		if h.id == "yi" {
			return keys
		}
		return had
	}
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes))
	id := b.send(nil, 100, "bing")
	b.flow()
	b.takes(b.signed("li", &b.waitsForApproval()[0], exchange.VerdictRefuse, nil), "")
	keys.away.Store(true)
	for range 3 {
		b.clock = b.clock.Add(time.Minute)
		_, _ = b.yi.node.Work(b.ctx)
	}
	if q := b.over.backlog(); q.Parked != 1 || q.Waiting+q.Guarded != 0 {
		t.Fatalf("%+v", q)
	}
	if n, err := b.yi.node.Requeue(b.ctx, node.Pick{}, node.Who{By: "值班员"}, nil); n != 1 || err != nil {
		t.Fatalf("%d requeued, %v", n, err)
	}
	if q := b.over.backlog(); q.Guarded != 1 || q.Waiting+q.Parked != 0 {
		t.Fatalf("a retry let it pass: %+v", q)
	}
	keys.away.Store(false)
	b.clock = b.clock.Add(time.Minute)
	b.yi.work()
	b.flow()
	if got := b.stages(id); !slices.Equal(got, []string{"bing REJECTED guard_refused"}) {
		t.Fatalf("the sender sees %q", got)
	}
	b.bing.delivered()
	b.sound()
}

// TestOnePersonCountsOnce: with another certificate of the same administrator, too.
func TestOnePersonCountsOnce(t *testing.T) {
	b := ownBoundary(t)
	keys := b.admins["zhang"]
	old := b.cast.directory.Administrators()
	pub, err := keys.Generate()
	b.must(err)
	_, err = b.cast.authority.Issue(&certs.CSR{PublicKey: pub, KeyID: sm.KeyID(pub), Use: certs.UseSign}, certs.Purpose{Administrator: "zhang", Use: certs.UseSign}, start.AddDate(0, 0, -1))
	b.must(err)
	b.publish()
	for _, h := range []*host{b.jia, b.yi, b.bing} {
		h.shelf.inForce = b.cast.directory
	}
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes))
	b.send(nil, 100, "bing")
	b.flow()
	item := &b.waitsForApproval()[0]
	b.takes(b.signed("zhang", item, exchange.VerdictApprove, nil), "")
	i := slices.IndexFunc(old, func(a *certs.Administrator) bool { return a.ID == "zhang" })
	a := exchange.GuardApproval{
		Domain: "test", Node: "yi", Link: item.Link, Header: item.Header, Verdict: exchange.VerdictApprove, Administrator: "zhang", Time: strictjson.TimeOf(b.clock),
	}
	content, err := a.Marshal()
	b.must(err)
	again, err := cms.Sign(certs.Signer(keys.WithRandom(b.rand), &old[i].Certificates[0]), content, b.clock.Add(time.Second))
	b.must(err)
	b.takes(again, "") // the same words: they are here
	a.Reason = "再批"
	content, err = a.Marshal()
	b.must(err)
	again, err = cms.Sign(certs.Signer(keys.WithRandom(b.rand), &old[i].Certificates[0]), content, b.clock)
	b.must(err)
	b.takes(again, exchange.CodeGuardApproval)
	b.flow()
	b.bing.delivered()
	if given := b.waitsForApproval()[0].Given; len(given) != 1 {
		t.Errorf("%d approvals are kept", len(given))
	}
}

// TestAStoredApprovalIsChecked: fsck finds one that was changed, and it lets nothing
// pass.
func TestAStoredApprovalIsChecked(t *testing.T) {
	b := newBoundary(t)
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes))
	b.send(nil, 100, "bing")
	b.flow()
	item := &b.waitsForApproval()[0]
	b.takes(b.signed("zhang", item, exchange.VerdictApprove, nil), "")
	b.sound()
	other := b.signed("zhang", item, exchange.VerdictApprove, func(a *exchange.GuardApproval) { a.Header[0]++ })
	b.must(b.yi.store.Update(b.ctx, func(tx queue.Tx) error {
		row, err := records.Approvals.Get(tx, item.Header, item.Link, "zhang")
		b.must(err)
		if row == nil {
			t.Fatal("no row")
		}
		row.CMS = other
		return records.Approvals.Put(tx, row, item.Header, item.Link, "zhang")
	}))
	r := b.yi.check()
	if r.Found != 1 || r.Problems[0].Table != "gap" || r.Problems[0].What != "it is another approval" {
		t.Errorf("%+v", r.Problems)
	}
	b.takes(b.signed("li", item, exchange.VerdictApprove, nil), "")
	b.yi.work()
	b.flow()
	b.bing.delivered()
}

// TestWhatWaitsForApprovalEnds: by its time and by a recall as anything else that did
// not leave; an operator's retry does not let it pass.
func TestWhatWaitsForApprovalEnds(t *testing.T) {
	for name, stage := range map[string]exchange.Stage{"expiry": exchange.StageExpired, "recall": exchange.StageRecalled} {
		t.Run(name, func(t *testing.T) {
			b := newBoundary(t)
			b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes))
			id := b.send(func(s *node.Submission) { s.Expires = b.clock.Add(life) }, 100, "bing")
			b.flow()
			item := &b.waitsForApproval()[0]
			if n, err := b.yi.node.Requeue(b.ctx, node.Pick{}, node.Who{By: "值班员"}, nil); n != 0 || err != nil {
				t.Errorf("%d requeued, %v", n, err)
			}
			b.takes(b.signed("zhang", item, exchange.VerdictApprove, nil), "")
			if stage == exchange.StageExpired {
				b.clock = b.clock.Add(life)
				b.yi.work()
			} else {
				b.jia.ask(exchange.WishRecall, id)
				b.jia.work()
			}
			b.flow()
			if got := b.stages(id); !slices.Equal(got, []string{"bing " + string(stage)}) {
				t.Fatalf("the sender sees %q", got)
			}
			b.takes(b.signed("li", item, exchange.VerdictApprove, nil), exchange.CodeNotFound)
			b.flow()
			b.bing.delivered()
			b.sound()
		})
	}
}

// TestAnotherPolicyAfterAStart: one that asks for nobody lets what waits pass, one that
// refuses it ends it.
func TestAnotherPolicyAfterAStart(t *testing.T) {
	for name, c := range map[string]struct{ policy, want string }{
		"no approval":   {"", "bing DELIVERED"},
		"one is enough": {"[link.approval]\nadministrators = 1\n", "bing DELIVERED"},
		"refused":       {"ceiling = \"public\"\n" + twoEyes, "bing REJECTED label_ceiling"},
		"as before":     {twoEyes, "bing RELAYED"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBoundary(t)
			b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes))
			id := b.send(nil, 100, "bing")
			b.flow()
			b.takes(b.signed("zhang", &b.waitsForApproval()[0], exchange.VerdictApprove, nil), "")
			b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", c.policy))
			b.yi.work()
			b.flow()
			if got := b.stages(id); len(got) != 1 || got[0] != c.want && !(c.want == "bing RELAYED" && strings.HasPrefix(got[0], "bing ACCEPTED")) {
				t.Fatalf("the sender sees %q, want %q", got, c.want)
			}
			b.sound()
		})
	}
}

// TestTheSendersOwnApproval: the first node parks, too, what was submitted to it.
func TestTheSendersOwnApproval(t *testing.T) {
	b := newBoundary(t)
	b.policy(b.jia, fmt.Sprintf(between, "jia-yi", "out", "[link.approval]\nadministrators = 1\nfrom_label = \"internal\"\n"))
	waits := b.send(nil, 100, "yi")
	goes := b.send(func(s *node.Submission) { s.Document.Label = exchange.Public }, 100, "yi")
	b.flow()
	b.yi.delivered(goes)
	list, err := b.jia.node.GuardItems(b.ctx, "jia-yi", 10)
	b.must(err)
	if len(list) != 1 || list[0].Document != waits {
		t.Fatalf("%+v", list)
	}
	signed := b.signed("li", &list[0], exchange.VerdictApprove, func(a *exchange.GuardApproval) { a.Node = "jia" })
	b.must(b.jia.node.Approve(b.ctx, signed))
	b.jia.work()
	b.flow()
	b.yi.delivered(goes, waits)
	b.sound()
	if err := b.jia.node.Approve(b.ctx, []byte("x")); exchange.CodeOf(err) != exchange.CodeGuardApproval || errors.Is(err, nil) {
		t.Errorf("%v", err)
	}
}
