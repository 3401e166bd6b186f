package peer

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// cast is a domain: jia and bing dial yi, which listens at one address for
// all tests. Version 1 of its directory has no links yet.
type cast struct {
	address  string
	keys     map[string]*keystore.Store
	tls      map[string]tls.Certificate
	agencies map[string]string
	before   *certs.Directory // version 1: no links
	now      *certs.Directory
}

// theCast is made once: its keys are what takes time.
var theCast = sync.OnceValues(newCast)

var castDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "yizhan-peer-")
	if err != nil {
		panic(err)
	}
	castDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func newCast() (*cast, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	c := &cast{address: l.Addr().String(), keys: map[string]*keystore.Store{}, tls: map[string]tls.Certificate{}, agencies: map[string]string{}}
	begin, pass := time.Now().AddDate(0, -1, 0), []byte("peer tests")
	authority, err := certs.InitAuthority(filepath.Join(castDir, "ca"), "test", pass, rand.Reader, begin)
	if err != nil {
		return nil, err
	}
	for i, id := range []string{"jia", "yi", "bing"} {
		if err := c.admit(authority, i, id, pass, begin); err != nil {
			return nil, err
		}
	}
	if c.before, err = publish(authority, begin); err != nil {
		return nil, err
	}
	for _, dialer := range []string{"jia", "bing"} {
		l := certs.Link{ID: dialer + "-yi", A: dialer, B: "yi", Dialer: dialer, Kind: "https", Ceiling: "work_secret"}
		if err := authority.AddLink(l); err != nil {
			return nil, err
		}
	}
	c.now, err = publish(authority, begin)
	return c, err
}

func publish(a *certs.Authority, at time.Time) (*certs.Directory, error) {
	file, err := a.Publish(at)
	if err != nil {
		return nil, err
	}
	return certs.LoadDirectory(file, a.Certificate(), 0, time.Now())
}

func (c *cast) admit(a *certs.Authority, i int, id string, pass []byte, at time.Time) error {
	keys, err := keystore.Create(filepath.Join(castDir, id), pass, rand.Reader)
	if err != nil {
		return err
	}
	code, err := certs.MakeAgencyCode(fmt.Sprintf("11520000000000%02dX", i))
	if err != nil {
		return err
	}
	cert, key, pin, err := GenerateTLS(rand.Reader)
	if err != nil {
		return err
	}
	if c.tls[id], err = tls.X509KeyPair(cert, key); err != nil {
		return err
	}
	c.keys[id], c.agencies[id] = keys, string(code)
	spec := certs.NodeSpec{ID: id, Zone: "z", TLSPin: pin}
	if id == "yi" {
		spec.URL = "https://" + c.address
	}
	request, err := certs.NewRequest(keys, "test", spec, []certs.AgencySpec{{Code: code, Name: "示范单位" + id}}, at)
	if err != nil {
		return err
	}
	parsed, err := certs.ParseRequest(request)
	if err != nil {
		return err
	}
	return a.Admit(parsed, at)
}

// station is a running node: engine, worker and peer.
type station struct {
	t         *testing.T
	id        string
	agency    string
	cast      *cast
	directory atomic.Pointer[certs.Directory]
	node      *node.Node
	peer      *Peer
	looks     *looks
	stop      context.CancelFunc
	ctx       context.Context
	wait      sync.WaitGroup
}

// open starts a node and its work, on real engines; nothing serves or dials.
func open(t *testing.T, id string) *station {
	t.Helper()
	c, err := theCast()
	if err != nil {
		t.Fatal(err)
	}
	s := &station{t: t, id: id, agency: c.agencies[id], cast: c}
	s.directory.Store(c.now)
	dir := t.TempDir()
	quiet := slog.New(slog.DiscardHandler)
	store, err := badgerstore.Open(filepath.Join(dir, "store"), badgerstore.Options{Logger: quiet})
	s.must(err)
	s.looks = &looks{Store: store}
	blobs, err := blob.Open(durable.OS, filepath.Join(dir, "blobs"))
	s.must(err)
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.node, err = node.New(s.ctx, node.Config{ID: id, Store: s.looks, Blobs: blobs, Keys: c.keys[id], Directory: s.directory.Load, Together: sideBySide})
	s.must(err)
	s.peer = New(Config{Node: s.node, Certificate: c.tls[id], Logger: quiet})
	s.wait.Go(s.work)
	t.Cleanup(func() {
		s.stop()
		s.wait.Wait()
		store.Close()
	})
	return s
}

func sideBySide(n int, do func(int)) {
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { do(i) })
	}
	wait.Wait()
}

func (s *station) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *station) work() {
	for s.ctx.Err() == nil {
		changed := s.node.Changed()
		if did, err := s.node.Work(s.ctx); did && err == nil {
			continue
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		case <-s.ctx.Done():
		}
	}
}

// serve listens at the cast's address until the function it gives is called.
func (s *station) serve() (stop func()) {
	s.t.Helper()
	var l net.Listener
	s.eventually("the address is free", func() bool {
		var err error
		l, err = net.Listen("tcp", s.cast.address)
		return err == nil
	})
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan error, 1)
	s.wait.Go(func() { done <- s.peer.Serve(ctx, l) })
	return func() {
		s.t.Helper()
		cancel()
		s.must(<-done)
	}
}

func (s *station) dial() { s.wait.Go(func() { s.peer.Run(s.ctx) }) }

// eventually waits for something that must come; how long it takes decides
// nothing.
func (s *station) eventually(what string, is func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	s.t.Fatalf("%s never: %s", s.id, what)
}

// submit hands in a document for another node's agency.
func (s *station) submit(to string, size int) (id string) {
	s.t.Helper()
	body := make([]byte, size)
	_, _ = rand.Read(body)
	doc := exchange.Document{
		Label: exchange.Internal, Kind: exchange.Official, Urgency: exchange.Normal, Title: "关于测试的通知",
		To: []exchange.Addressee{{Agency: s.cast.agencies[to]}},
	}
	files := func(yield func(envelope.File, error) bool) {
		yield(envelope.File{Role: envelope.RoleBody, Name: "正文.ofd", Type: "application/ofd", Content: bytes.NewReader(body)}, nil)
	}
	got, err := s.node.Submit(s.ctx, node.Submission{Agency: s.agency, Document: doc, Files: files})
	s.must(err)
	return got.ID
}

// signFor signs for a document once it is here.
func (s *station) signFor(id string) {
	s.t.Helper()
	s.eventually("document "+id, func() bool {
		_, err := s.node.InboxItem(s.ctx, s.agency, id)
		return err == nil
	})
	_, err := s.node.Act(s.ctx, s.agency, id, node.Action{Stage: exchange.StageSignedFor, Actor: exchange.Actor{Name: "值班员"}})
	s.must(err)
}

func (s *station) signedFor(id string) {
	s.t.Helper()
	s.eventually("the receipt for "+id, func() bool {
		trace, err := s.node.Trace(s.ctx, s.agency, id)
		s.must(err)
		return trace.Recipients[0].Stage == exchange.StageSignedFor
	})
}

func (s *station) status() Status {
	s.t.Helper()
	for _, st := range s.peer.Status() {
		if st.Link == "jia-yi" {
			return st
		}
	}
	s.t.Fatal("no status for the link")
	return Status{}
}
