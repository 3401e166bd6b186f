package link

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

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

// TestAnApprovalThatStoppedCounting makes room for a new one of the same administrator;
// one that counts does not.
func TestAnApprovalThatStoppedCounting(t *testing.T) {
	b := ownBoundary(t)
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes))
	id := b.send(nil, 100, "bing")
	b.flow()
	item := &b.waitsForApproval()[0]
	b.takes(b.signed("zhang", item, exchange.VerdictApprove, nil), "")

	keys, list := b.admins["zhang"], b.cast.directory.Administrators()
	old := list[slices.IndexFunc(list, func(a *certs.Administrator) bool { return a.ID == "zhang" })].Certificates[0]
	b.must(b.cast.authority.Revoke(old.DER, start.Add(-time.Hour), certs.ReasonKeyCompromise))
	pub, err := keys.Generate()
	b.must(err)
	_, err = b.cast.authority.Issue(&certs.CSR{PublicKey: pub, KeyID: sm.KeyID(pub), Use: certs.UseSign}, certs.Purpose{Administrator: "zhang", Use: certs.UseSign}, start.AddDate(0, 0, -1))
	b.must(err)
	b.clock = b.clock.Add(time.Minute)
	b.publish()
	for _, h := range []*host{b.jia, b.yi, b.bing} {
		h.shelf.inForce = b.cast.directory
	}
	if given := b.waitsForApproval()[0].Given; len(given) != 1 || given[0].Counts {
		t.Fatalf("%+v", given)
	}
	fresh := func(reason string) []byte {
		list := b.cast.directory.Administrators()
		who := list[slices.IndexFunc(list, func(a *certs.Administrator) bool { return a.ID == "zhang" })]
		i := slices.IndexFunc(who.Certificates, func(c certs.Certificate) bool { return !bytes.Equal(c.DER, old.DER) })
		a := exchange.GuardApproval{
			Domain: "test", Node: "yi", Link: item.Link, Header: item.Header, Verdict: exchange.VerdictApprove, Administrator: "zhang", Reason: reason, Time: strictjson.TimeOf(start),
		}
		content, err := a.Marshal()
		b.must(err)
		signed, err := cms.Sign(certs.Signer(keys.WithRandom(b.rand), &who.Certificates[i]), content, b.clock)
		b.must(err)
		return signed
	}
	b.takes(fresh(""), "") // the same words as before, under another certificate
	if given := b.waitsForApproval()[0].Given; len(given) != 1 || !given[0].Counts {
		t.Fatalf("%+v", given)
	}
	b.takes(fresh("再批"), exchange.CodeGuardApproval)
	b.sound()
	b.flow()
	b.bing.delivered()
	b.takes(b.signed("li", item, exchange.VerdictApprove, nil), "")
	b.yi.work()
	b.flow()
	b.bing.delivered(id)
	b.sound()
}

// TestADamagedApproval hides nothing beside it. What waits for its document does not pass
// until its administrator has spoken anew, for it may have been a refusal.
func TestADamagedApproval(t *testing.T) {
	for name, damage := range map[string]func(*records.Approval) []byte{
		"row": func(*records.Approval) []byte { return []byte("{") },
		"signed object": func(row *records.Approval) []byte {
			row.CMS = row.CMS[:len(row.CMS)-1]
			b, _ := json.Marshal(row)
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBoundary(t)
			b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", "[link.approval]\nadministrators = 1\n"))
			first, second := b.send(nil, 100, "bing"), b.send(nil, 200, "bing")
			b.flow()
			list := b.waitsForApproval()
			b.takes(b.signed("zhang", &list[0], exchange.VerdictRefuse, nil), "")
			b.must(b.yi.store.Update(b.ctx, func(tx queue.Tx) error {
				row, err := records.Approvals.Get(tx, list[0].Header, list[0].Link, "zhang")
				b.must(err)
				return tx.Put(records.Approvals.Key(list[0].Header, list[0].Link, "zhang"), damage(row))
			}))
			b.takes(b.signed("li", &list[0], exchange.VerdictApprove, nil), "")
			b.yi.work()
			b.takes(b.signed("li", &list[1], exchange.VerdictApprove, nil), "")
			b.yi.work()
			b.flow()
			b.bing.delivered(second)
			if list = b.waitsForApproval(); len(list) != 1 || list[0].Document != first || len(list[0].Given) != 2 {
				t.Fatalf("%+v", list)
			}
			if i := slices.IndexFunc(list[0].Given, func(g node.GivenApproval) bool { return g.Damaged }); i < 0 || list[0].Given[i].Administrator != "zhang" || list[0].Given[i].Counts {
				t.Fatalf("%+v", list[0].Given)
			}
			if q := b.yi.quarantined(); len(q) != 1 || !strings.HasPrefix(q[0], "approval: ") {
				t.Errorf("shown: %v", q)
			}
			b.takes(b.signed("zhang", &list[0], exchange.VerdictApprove, nil), "")
			b.yi.work()
			b.flow()
			b.bing.delivered(first, second)
			b.sound()
		})
	}
}

// TestWhatWaitsAndCannotBeRead is listed as damaged, and hides nothing beside it.
func TestWhatWaitsAndCannotBeRead(t *testing.T) {
	b := newBoundary(t)
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes))
	b.send(nil, 100, "bing")
	good := b.send(nil, 200, "bing")
	b.flow()
	list := b.waitsForApproval()
	b.must(b.yi.store.Update(b.ctx, func(tx queue.Tx) error { return tx.Delete(records.Headers.Key(list[0].Header)) }))
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes))
	after := b.waitsForApproval()
	if len(after) != 2 || !after[0].Damaged || after[0].ID != list[0].ID || after[1].Damaged || after[1].Document != good {
		t.Fatalf("%+v", after)
	}
	if q := b.yi.quarantined(); len(q) != 1 {
		t.Errorf("shown: %v", q)
	}
}

// TestNothingIsSignedInVain: what waits for approval is distributed by the work, and RELAYED
// is signed there, once.
func TestNothingIsSignedInVain(t *testing.T) {
	b := newBoundary(t)
	signed, opened := 0, 0
	b.watch = func(h *host, keys node.Keys) node.Keys {
		if h.id == "yi" {
			return countedKeys{keys, &signed, &opened}
		}
		return keys
	}
	b.policy(b.yi, fmt.Sprintf(between, "yi-bing", "out", twoEyes))
	b.send(nil, 100, "bing")
	_, push := b.jia.next(Push)
	signed = 0
	b.yi.receive(push)
	b.yi.work()
	if len(b.waitsForApproval()) != 1 || signed != 1 {
		t.Errorf("%d signatures for one document", signed)
	}
}
