package client_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/rest"
	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/client"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// site is a node with agencies, 甲, 乙, 丙 and so on, that runs in this process and is
// reached over HTTP. All tests and examples share it: making keys takes its time.
type site struct {
	dir    string
	server *httptest.Server
	url    string
	codes  map[string]string
	keys   map[string]string
	handle http.Handler
	stop   func()
}

var (
	siteOnce sync.Once
	theSite  *site
)

func TestMain(m *testing.M) {
	code := m.Run()
	if theSite != nil {
		theSite.stop()
	}
	os.Exit(code)
}

// start gives the site; it runs until all tests have ended.
func start() *site {
	siteOnce.Do(func() { theSite = build() })
	return theSite
}

func must(err error) {
	if err != nil {
		log.Fatal(err) // there is no test without a site
	}
}

func build() *site {
	dir, err := os.MkdirTemp("", "yizhan-client")
	must(err)
	s := &site{dir: dir, codes: map[string]string{}, keys: map[string]string{}}
	now, pass := time.Now(), []byte("test")
	authority, err := certs.InitAuthority(filepath.Join(dir, "ca"), "test", pass, rand.Reader, now)
	must(err)
	keys, err := keystore.Create(filepath.Join(dir, "keys"), pass, rand.Reader)
	must(err)
	var specs []certs.AgencySpec
	for i, name := range []string{"甲", "乙", "丙", "戊", "己", "庚"} {
		code, err := certs.MakeAgencyCode(fmt.Sprintf("11520000000000%03d", i+1))
		must(err)
		s.codes[name] = string(code)
		specs = append(specs, certs.AgencySpec{Code: code, Name: "示范单位" + name, Aliases: []string{"示范" + name}})
	}
	request, err := certs.NewRequest(keys, "test", certs.NodeSpec{ID: "n1", Zone: "政务外网"}, specs, now)
	must(err)
	parsed, err := certs.ParseRequest(request)
	must(err)
	must(authority.Admit(parsed, now))
	group := []string{"各示范单位"}
	for _, name := range []string{"甲", "乙", "丙"} {
		must(authority.ChangeAgency(s.codes[name], certs.AgencyChange{Groups: &group}))
	}
	file, err := authority.Publish(now)
	must(err)
	directory, err := certs.LoadDirectory(file, authority.Certificate(), 0, now)
	must(err)
	s.serve(keys, directory, now)
	return s
}

func (s *site) serve(keys *keystore.Store, directory *certs.Directory, now time.Time) {
	quiet := slog.New(slog.DiscardHandler)
	store, err := badgerstore.Open(filepath.Join(s.dir, "store"), badgerstore.Options{Logger: quiet})
	must(err)
	blobs, err := blob.Open(durable.OS, filepath.Join(s.dir, "blobs"))
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	n, err := node.New(ctx, node.Config{
		ID: "n1", Store: store, Blobs: blobs, Keys: keys, Directory: func() *certs.Directory { return directory },
	})
	must(err)
	ring, err := rest.OpenKeyRing(filepath.Join(s.dir, "api-keys.json"))
	must(err)
	for name, code := range s.codes {
		s.keys[name], _, err = ring.Create(rand.Reader, certs.AgencyCode(code), rest.Scopes, nil, name, now)
		must(err)
	}
	ending := make(chan struct{})
	s.handle = rest.New(rest.Config{Node: n, Keys: ring, Logger: quiet, Ending: ending}).Handler()
	s.server = httptest.NewServer(s.handle)
	s.url = s.server.URL
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		work(ctx, n)
	}()
	s.stop = func() {
		close(ending)
		s.server.Close()
		cancel()
		<-worked
		must(store.Close())
		must(os.RemoveAll(s.dir))
	}
}

// work does what the engine of a served node does.
func work(ctx context.Context, n *node.Node) {
	for ctx.Err() == nil {
		changed := n.Changed()
		did, err := n.Work(ctx)
		if err != nil && ctx.Err() == nil {
			log.Print(err)
		}
		if did {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// as gives a client of an agency.
func (s *site) as(name string) *client.Client {
	c, err := client.New(client.Config{Server: s.url, Key: s.keys[name]})
	must(err)
	return c
}
