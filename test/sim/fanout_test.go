package sim

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/durable/crashfs"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// memoryKeys are a node's keys without files: thousands of them would each
// cost a key derivation. Rows are sealed by a real keystore.
type memoryKeys struct {
	*keystore.Store
	rand io.Reader
	keys map[sm.Digest]*sm.PrivateKey
}

func (m *memoryKeys) Generate() (*ecdsa.PublicKey, error) {
	key, err := sm.GenerateKey(m.rand)
	if err != nil {
		return nil, err
	}
	m.keys[sm.KeyID(&key.PublicKey)] = key
	return &key.PublicKey, nil
}

func (m *memoryKeys) Has(id sm.Digest) bool { return m.keys[id] != nil }
func (m *memoryKeys) Sign(id sm.Digest, msg []byte) ([]byte, error) {
	return sm.Sign(m.rand, m.keys[id], msg)
}
func (m *memoryKeys) Unwrap(id sm.Digest, b []byte) ([]byte, error) {
	return sm.Decrypt(m.keys[id], b)
}

// machine is a node on a disk that forgets, with its own random crashes.
type machine struct {
	t     *testing.T
	id    string
	keys  *memoryKeys
	store *store
	disk  *crashfs.FS
	node  *node.Node
	dir   *certs.Directory
	now   time.Time
	boots int
	looks int
}

// Inspect implements node.Inspector: every file may pass.
func (m *machine) Inspect(_ context.Context, _, _ string, content io.ReaderAt, size int64) (exchange.Verdict, error) {
	m.looks++
	_, err := io.ReadAll(io.NewSectionReader(content, 0, size))
	return exchange.Verdict{Kind: "text"}, err
}

func (m *machine) boot() {
	m.boots++
	blobs, err := blob.OpenSized(m.disk, "blobs", 16<<10)
	if err != nil {
		m.t.Fatal(err)
	}
	m.node, err = node.New(context.Background(), node.Config{
		ID: m.id, Store: m.store, Blobs: blobs, Keys: m.keys, Rand: m.keys.rand,
		Directory: func() *certs.Directory { return m.dir }, Now: func() time.Time { return m.now }, Inspector: m,
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// maxBoots is far more than any run here needs.
const maxBoots = 2000

// survive runs fn until it ends without the power going.
func (m *machine) survive(fn func() error) {
	m.t.Helper()
	for {
		cut, err := m.attempt(fn)
		if err != nil {
			m.t.Fatal(err)
		}
		if !cut {
			return
		}
		if m.boots > maxBoots {
			m.t.Fatalf("%s makes no progress: the power went %d times", m.id, m.boots)
		}
		m.disk.Crash()
		before := m.store.cut
		m.store.cut = nil
		m.boot()
		m.store.cut = before
	}
}

func (m *machine) attempt(fn func() error) (cut bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			if _, cut = p.(crash); !cut {
				panic(p)
			}
		}
	}()
	return false, fn()
}

// everyCommit cuts the power before and after every single commit: none ever
// ends in peace, and what is to happen must happen all the same.
func everyCommit() func(after bool) bool {
	before := false
	return func(after bool) bool {
		if !after && before {
			return false
		}
		before = !after
		return true
	}
}

const (
	fanNodes    = 2
	fanAgencies = 1500 // on each
)

func fanMachines(t *testing.T) (sender *machine, receivers []*machine, agency string, recipients []string) {
	t.Helper()
	dir := t.TempDir()
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	random := rand.NewChaCha8([32]byte{7})
	authority, err := certs.InitAuthority(filepath.Join(dir, "ca"), "fan", []byte("x"), random, now)
	if err != nil {
		t.Fatal(err)
	}
	var all []*machine
	for i := range fanNodes + 1 {
		file, err := keystore.Create(filepath.Join(dir, fmt.Sprint(i)), []byte("x"), random)
		if err != nil {
			t.Fatal(err)
		}
		m := &machine{t: t, id: fmt.Sprintf("n%d", i), keys: &memoryKeys{file, random, map[sm.Digest]*sm.PrivateKey{}}, now: now}
		m.disk = crashfs.New(rand.New(rand.NewPCG(uint64(i), 1)))
		m.store = newStore(func() time.Time { return m.now }, &faults{})
		n := fanAgencies
		if i == 0 {
			n = 1
		}
		var specs []certs.AgencySpec
		for k := range n {
			code, err := certs.MakeAgencyCode(fmt.Sprintf("1152000%02d000%05d", i, k))
			if err != nil {
				t.Fatal(err)
			}
			specs = append(specs, certs.AgencySpec{Code: code, Name: fmt.Sprintf("单位%d-%d", i, k)})
			if i == 0 {
				agency = string(code)
			} else {
				recipients = append(recipients, string(code))
			}
		}
		admitMachine(t, authority, m, specs, byte(i), now)
		all = append(all, m)
	}
	for _, m := range all[1:] {
		link := certs.Link{A: all[0].id, B: m.id, Dialer: all[0].id, Kind: "https", Ceiling: "work_secret"}
		if err := authority.AddLink(link); err != nil {
			t.Fatal(err)
		}
	}
	if err := authority.AddInspection(certs.Inspection{Node: all[1].id}); err != nil {
		t.Fatal(err)
	}
	file, err := authority.Publish(now)
	if err != nil {
		t.Fatal(err)
	}
	directory, err := certs.LoadDirectory(file, authority.Certificate(), 0, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		m.dir = directory
		m.boot()
	}
	return all[0], all[1:], agency, recipients
}

func admitMachine(t *testing.T, authority *certs.Authority, m *machine, specs []certs.AgencySpec, pin byte, now time.Time) {
	t.Helper()
	request, err := certs.NewRequest(m.keys, "fan", certs.NodeSpec{ID: m.id, Zone: "z", URL: "https://127.0.0.1:1", TLSPin: [32]byte{pin + 1}}, specs, now)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := certs.ParseRequest(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Admit(parsed, now); err != nil {
		t.Fatal(err)
	}
}

// TestFanOutSurvivesEveryCrash: one document to 3,000 recipients on two nodes, of
// which one looks into it, the power cut before and after every single commit of
// distributing it; each recipient has it exactly once.
func TestFanOutSurvivesEveryCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: admits 3,000 agencies; scripts/test runs it")
	}
	if raced {
		t.Skip("-race: one goroutine, ten times slower; scripts/test runs it in its step of 2,000 seeds")
	}
	sender, receivers, agency, recipients := fanMachines(t)
	doc := exchange.Document{Label: exchange.Internal, Kind: exchange.Official, Urgency: exchange.Normal, Title: "关于全省各单位的通知"}
	for _, r := range recipients {
		doc.To = append(doc.To, exchange.Addressee{Agency: r})
	}
	ctx := context.Background()
	id := ""
	sender.store.cut = everyCommit()
	sender.survive(func() error {
		got, err := sender.node.Submit(ctx, node.Submission{Agency: agency, IdempotencyKey: "one", Document: doc, Files: oneFile([]byte("正文"))})
		if err == nil {
			id = got.ID
		}
		return err
	})
	for more := true; more; {
		sender.survive(func() (err error) { more, err = sender.node.Work(ctx); return err })
	}
	fanBoots := sender.boots
	sender.store.cut = nil
	for _, to := range receivers {
		carry(t, sender, to)
		to.store.cut = everyCommit()
		for more := true; more; {
			to.survive(func() (err error) { more, err = to.node.Work(ctx); return err })
		}
		to.store.cut = nil
	}
	for i, r := range recipients {
		to := receivers[i/fanAgencies]
		items, err := to.node.Inbox(ctx, r, 0, 10)
		if err != nil || len(items) != 1 || items[0].ID != id {
			t.Fatalf("%s has %d documents, %v", r, len(items), err)
		}
	}
	inspectedOnce(t, receivers[0], recipients[:fanAgencies], id)
	boots := 0
	for _, to := range receivers {
		boots += to.boots
	}
	t.Logf("%d recipients; the power went %d times while fanning out and %d times while delivering", len(recipients), fanBoots-1, boots-len(receivers))
	if fanBoots < 60 || boots < 100 {
		t.Errorf("only %d and %d power cuts: the test does not bite", fanBoots, boots)
	}
}

// inspectedOnce: what was found holds for all steps of the distribution, and each
// recipient is named by one receipt.
func inspectedOnce(t *testing.T, point *machine, recipients []string, id string) {
	t.Helper()
	for i := 0; i < len(recipients); i += 10 { // half of a step's
		tr, err := point.node.Trace(context.Background(), recipients[i], id)
		if err != nil {
			t.Fatal(err)
		}
		named := 0
		for _, e := range tr.Events {
			if e.Stage == exchange.StageInspected {
				named++
			}
		}
		if named != 1 || !tr.ReceiptsVerified {
			t.Fatalf("%d INSPECTED receipts name %s", named, recipients[i])
		}
	}
	if point.looks == 0 || point.looks > 3 { // again only as long as the first step is not committed
		t.Errorf("it was looked into %d times", point.looks)
	}
}

// carry hands everything that waits for a node's link over, as a link does.
func carry(t *testing.T, from, to *machine) {
	t.Helper()
	ctx := context.Background()
	name := from.id + "-" + to.id
	for {
		outs, err := from.node.Outgoing(ctx, name, 4<<20, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(outs) == 0 {
			return
		}
		outcomes := make([]node.Outcome, len(outs))
		for i, o := range outs {
			r, err := o.Open(ctx)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			if outcomes[i], err = to.node.Intake(ctx, name, o.Item, bytes.NewReader(b)); err != nil || outcomes[i].Status != node.Taken {
				t.Fatalf("%s: %+v, %v", o.Kind, outcomes[i], err)
			}
		}
		if err := from.node.Settle(ctx, name, outs, outcomes); err != nil {
			t.Fatal(err)
		}
	}
}
