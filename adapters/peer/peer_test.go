package peer

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange/link"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// Both directions over one link of which only one side dials, receipts home.
func TestDocumentsCross(t *testing.T) {
	jia, yi := open(t, "jia"), open(t, "yi")
	yi.serve()
	jia.dial()
	out, large, back := jia.submit("yi", 1000), jia.submit("yi", 3<<20), yi.submit("jia", 1000)
	yi.signFor(out)
	yi.signFor(large)
	jia.signFor(back)
	jia.signedFor(out)
	jia.signedFor(large)
	yi.signedFor(back)
	for _, s := range []*station{jia, yi} {
		s.eventually("connected", func() bool { return s.status().Connected })
		if st := s.status(); st.Failures != 0 || st.LastError != "" || st.LastSuccess.IsZero() || st.Dialer != (s == jia) {
			t.Fatalf("%s: %+v", s.id, st)
		}
	}
}

// What comes while a link is idle is pushed at once, and not when somebody
// happens to look.
func TestAnIdleLinkPushesAtOnce(t *testing.T) {
	jia, yi := open(t, "jia"), open(t, "yi")
	yi.serve()
	jia.dial()
	jia.eventually("connected", func() bool { return jia.status().Connected })
	for range 3 {
		time.Sleep(50 * time.Millisecond)
		begin := time.Now()
		id := jia.submit("yi", 1000)
		yi.signFor(id)
		if took := time.Since(begin); took > lookIdle/3 {
			t.Fatalf("a document took %v", took)
		}
	}
}

// Documents wait for a neighbour that is away, and cross when it is back; the
// one that came back may have been away in the middle of anything.
func TestNeighbourComesBack(t *testing.T) {
	jia, yi := open(t, "jia"), open(t, "yi")
	jia.dial()
	first := jia.submit("yi", 1000)
	jia.eventually("a failed attempt", func() bool { return jia.status().Failures > 1 })
	if st := jia.status(); st.Connected || st.LastError == "" || st.RetryAt.IsZero() {
		t.Fatalf("%+v", st)
	}
	stop := yi.serve()
	yi.signFor(first)
	jia.signedFor(first)
	stop()
	second := jia.submit("yi", 1000)
	jia.eventually("noticed", func() bool { return !jia.status().Connected })
	yi.serve()
	yi.signFor(second)
	jia.signedFor(second)
}

// A dead neighbour costs one attempt per back-off, however much waits.
func TestDeadNeighbour(t *testing.T) {
	jia := open(t, "jia")
	l, err := net.Listen("tcp", jia.cast.address)
	jia.must(err)
	defer l.Close()
	var attempts atomic.Int32
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			attempts.Add(1)
			conn.Close()
		}
	}()
	for range 30 {
		jia.submit("yi", 100)
	}
	jia.dial()
	jia.eventually("five failed polls", func() bool { return jia.status().Failures >= 5 })
	// One for each that failed, and one that may be under way.
	if got, polls := int(attempts.Load()), jia.status().Failures; got > polls+1 {
		t.Fatalf("%d attempts for %d failures with 30 documents waiting", got, polls)
	}
}

func TestBackoff(t *testing.T) {
	for failures := range 40 {
		bound := maxPause
		if failures < 10 {
			bound = min(maxPause, firstPause<<failures)
		}
		low, high := maxPause, time.Duration(0)
		for range 2000 {
			d := backoff(failures, mrand.N[time.Duration])
			if d < bound/10 || d > bound {
				t.Fatalf("pause %v after %d failures, want %v to %v", d, failures, bound/10, bound)
			}
			low, high = min(low, d), max(high, d)
		}
		if high-low < bound/2 {
			t.Errorf("after %d failures pauses only from %v to %v: no jitter", failures, low, high)
		}
	}
	if backoff(0, mrand.N[time.Duration]) > 100*time.Millisecond {
		t.Error("the first pause is too long")
	}
}

// What fails always is tried less and less often, although the other kind of
// call succeeds all the time.
func TestCallsFailApart(t *testing.T) {
	l := new(line)
	for range 8 {
		l.failed(push, errors.New("refused"), time.Now(), mrand.N[time.Duration])
		l.succeeded(poll)
	}
	if n := l.calls[push].failures; n != 8 {
		t.Fatalf("%d failures counted", n)
	}
	var s Status
	s.Dialer = true
	if l.fill(&s); s.LastError != "refused" || s.Failures != 8 {
		t.Fatalf("%+v", s)
	}
	l.succeeded(push)
	s = Status{Dialer: true}
	if l.fill(&s); s.LastError != "" || s.Failures != 0 || !s.Connected {
		t.Fatalf("%+v", s)
	}
}

// clientOf is a hand-made neighbour.
func (c *cast) clientOf(id string, change func(*tls.Config)) *http.Client {
	config := &tls.Config{InsecureSkipVerify: true}
	if id != "" {
		config.Certificates = []tls.Certificate{c.tls[id]}
	}
	if change != nil {
		change(config)
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
}

func stranger(t *testing.T) tls.Certificate {
	t.Helper()
	cert, key, _, err := GenerateTLS(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// The listener speaks TLS 1.3 with pinned neighbours and with nobody else.
func TestWhoMayCall(t *testing.T) {
	yi := open(t, "yi")
	yi.serve()
	for _, c := range []struct {
		name, as string
		change   func(*tls.Config)
		ok       bool
	}{
		{"a neighbour", "jia", nil, true},
		{"another neighbour", "bing", nil, true},
		{"nobody", "", nil, false},
		{"a stranger", "", func(c *tls.Config) { c.Certificates = []tls.Certificate{stranger(t)} }, false},
		{"itself", "yi", nil, false},
		{"TLS 1.2", "jia", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, false},
		{"a stolen certificate", "jia", func(c *tls.Config) {
			c.Certificates = []tls.Certificate{{Certificate: yi.cast.tls["jia"].Certificate, PrivateKey: stranger(t).PrivateKey}}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, err := yi.cast.clientOf(c.as, c.change).Post("https://"+yi.cast.address+"/v1/link/none/push", bundleMedia, nil)
			if (err == nil) != c.ok {
				t.Fatalf("%v, want admitted %v", err, c.ok)
			}
			if err == nil {
				res.Body.Close()
			}
		})
	}
}

// The directory in force at the handshake decides, with no restart.
func TestDirectoryIsReadAtEachHandshake(t *testing.T) {
	yi := open(t, "yi")
	yi.serve()
	call := func() error {
		res, err := yi.cast.clientOf("jia", nil).Post("https://"+yi.cast.address+"/v1/link/none/push", bundleMedia, nil)
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	for _, links := range []bool{true, false, true} {
		yi.directory.Store(yi.cast.before)
		if links {
			yi.directory.Store(yi.cast.now)
		}
		if err := call(); (err == nil) != links {
			t.Fatalf("with a link in the directory %v: %v", links, err)
		}
	}
}

// impostor listens where yi should, with TLS of its own.
func impostor(s *station, config *tls.Config) (handled *atomic.Int32) {
	handled = new(atomic.Int32)
	l, err := net.Listen("tcp", s.cast.address)
	s.must(err)
	server := &http.Server{
		TLSConfig: config, ErrorLog: nil, ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handled.Add(1)
			w.WriteHeader(http.StatusNoContent)
		}),
	}
	go func() { _ = server.ServeTLS(l, "", "") }()
	s.t.Cleanup(func() { server.Close() })
	return handled
}

// The dialer gives nothing to a listener that does not show the pinned key, or
// does not speak TLS 1.3.
func TestWhoIsCalled(t *testing.T) {
	c, err := theCast()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []struct {
		name   string
		config *tls.Config
		ok     bool
	}{
		{"the neighbour", &tls.Config{Certificates: []tls.Certificate{c.tls["yi"]}, ClientAuth: tls.RequestClientCert}, true},
		{"a stranger", &tls.Config{Certificates: []tls.Certificate{stranger(t)}}, false},
		{"another node", &tls.Config{Certificates: []tls.Certificate{c.tls["bing"]}}, false},
		{"TLS 1.2", &tls.Config{Certificates: []tls.Certificate{c.tls["yi"]}, MaxVersion: tls.VersionTLS12}, false},
	} {
		t.Run(i.name, func(t *testing.T) {
			jia := open(t, "jia")
			handled := impostor(jia, i.config)
			l, err := jia.peer.line("jia-yi")
			jia.must(err)
			err = jia.peer.newCaller(l, "yi").poll(jia.ctx)
			if (err == nil) != i.ok || (handled.Load() > 0) != i.ok {
				t.Fatalf("%v, %d requests given; want ok %v", err, handled.Load(), i.ok)
			}
			if err != nil && !errors.Is(err, errNoAnswer) {
				t.Fatalf("%v", err)
			}
		})
	}
}

// No environment variable and no answer sends a bundle elsewhere.
func TestNoProxyNoRedirect(t *testing.T) {
	jia := open(t, "jia")
	l, err := jia.peer.line("jia-yi")
	jia.must(err)
	c := jia.peer.newCaller(l, "yi")
	if c.client.Transport.(*http.Transport).Proxy != nil {
		t.Fatal("a proxy is used")
	}
	elsewhere := make(chan struct{}, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere <- struct{}{} }))
	defer server.Close()
	listener, err := net.Listen("tcp", jia.cast.address)
	jia.must(err)
	yi := &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{jia.cast.tls["yi"]}}, ReadHeaderTimeout: time.Minute,
		Handler: http.RedirectHandler(server.URL, http.StatusTemporaryRedirect),
	}
	go func() { _ = yi.ServeTLS(listener, "", "") }()
	defer yi.Close()
	if err := c.poll(jia.ctx); err == nil || !strings.Contains(err.Error(), "307") {
		t.Fatalf("got %v", err)
	}
	select {
	case <-elsewhere:
		t.Fatal("the redirect was followed")
	default:
	}
}

// push makes a bundle of jia's with a document in it.
func (s *station) push() []byte {
	s.t.Helper()
	id := s.submit("yi", 1000)
	l, err := s.peer.line("jia-yi")
	s.must(err)
	var o *link.Outgoing
	s.eventually("something to push of "+id, func() bool {
		o, err = l.session.Next(s.ctx, link.Push)
		s.must(err)
		return o != nil
	})
	var b bytes.Buffer
	_, err = o.WriteTo(&b)
	s.must(err)
	l.session.Lost(s.ctx, o)
	return b.Bytes()
}

// What a request is answered, by who calls and with what.
func TestRequests(t *testing.T) {
	jia, yi := open(t, "jia"), open(t, "yi")
	yi.serve()
	bundle := jia.push()
	flipped := bytes.Clone(bundle)
	flipped[200] ^= 1
	for _, c := range []struct {
		name, as, method, path string
		body                   []byte
		status                 int
		text                   string
	}{
		{"no such link", "jia", "POST", "/v1/link/none/push", bundle, 404, "no such link"},
		{"another's link", "bing", "POST", "/v1/link/jia-yi/push", bundle, 403, "pinned"},
		{"another's bundle", "bing", "POST", "/v1/link/bing-yi/push", bundle, 400, "link fault"},
		{"another method", "jia", "GET", "/v1/link/jia-yi/push", nil, 405, ""},
		{"another path", "jia", "POST", "/v1/link/jia-yi/pull", bundle, 404, ""},
		{"nothing", "jia", "POST", "/v1/link/jia-yi/push", nil, 400, "link fault"},
		{"no bundle", "jia", "POST", "/v1/link/jia-yi/push", []byte("hello, hello"), 400, "link fault"},
		{"damaged", "jia", "POST", "/v1/link/jia-yi/push", flipped, 400, "link fault"},
		{"cut in the head", "jia", "POST", "/v1/link/jia-yi/push", bundle[:300], 400, "link fault"},
		{"a push", "jia", "POST", "/v1/link/jia-yi/push", bundle, 200, "YZB1"},
		{"the same again", "jia", "POST", "/v1/link/jia-yi/push", bundle, 200, "YZB1"},
		{"cut in the end", "jia", "POST", "/v1/link/jia-yi/push", bundle[:len(bundle)-3], 200, "YZB1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(yi.ctx, c.method, "https://"+yi.cast.address+c.path, bytes.NewReader(c.body))
			yi.must(err)
			res, err := yi.cast.clientOf(c.as, nil).Do(req)
			yi.must(err)
			defer res.Body.Close()
			text, err := io.ReadAll(res.Body)
			yi.must(err)
			if res.StatusCode != c.status || !bytes.Contains(text, []byte(c.text)) {
				t.Fatalf("%d %.200q, want %d %q", res.StatusCode, text, c.status, c.text)
			}
		})
	}
}

// A dialer is not called, and a request that came by no TLS is not answered.
func TestWrongSide(t *testing.T) {
	jia := open(t, "jia")
	call := func(state *tls.ConnectionState) int {
		r := httptest.NewRequest("POST", "/v1/link/jia-yi/push", strings.NewReader("x"))
		r.TLS = state
		w := httptest.NewRecorder()
		jia.peer.Handler().ServeHTTP(w, r)
		return w.Code
	}
	yi := jia.cast.tls["yi"].Leaf
	if got := call(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{yi}}); got != http.StatusConflict {
		t.Errorf("a dialer answers its listener with %d", got)
	}
	if got := call(&tls.ConnectionState{}); got != http.StatusForbidden {
		t.Errorf("without a certificate: %d", got)
	}
	if got := call(nil); got != http.StatusForbidden {
		t.Errorf("without TLS: %d", got)
	}
}

// A bundle may be as large as a bundle and no larger.
func TestBodyIsBounded(t *testing.T) {
	jia, yi := open(t, "jia"), open(t, "yi")
	yi.serve()
	head := jia.push()
	body := io.MultiReader(bytes.NewReader(head[:len(head)-12]), io.LimitReader(zeros{}, 2*link.MaxBundle))
	res, err := yi.cast.clientOf("jia", nil).Post("https://"+yi.cast.address+"/v1/link/jia-yi/push", bundleMedia, body)
	if err == nil { // the server may hang up before the client is done
		res.Body.Close()
	}
	books, err := yi.node.LinkBooks(yi.ctx, "jia-yi")
	yi.must(err)
	if books.Arrived != 3 || books.Accepted != 3 {
		t.Fatalf("%+v", books)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// heldPoll is a poll that waits at the listener; its answer is read by
// nobody unless read is called.
type heldPoll struct {
	conn *tls.Conn
}

func (s *station) holdPoll(poll []byte) *heldPoll {
	s.t.Helper()
	conn, err := tls.Dial("tcp", s.cast.address, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{s.cast.tls["jia"]}})
	s.must(err)
	s.t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "POST /v1/link/jia-yi/poll HTTP/1.1\r\nHost: x\r\n%s: 25\r\nContent-Length: %d\r\n\r\n%s", waitHeader, len(poll), poll)
	s.must(err)
	return &heldPoll{conn}
}

func (s *station) pollBundle() []byte {
	s.t.Helper()
	l, err := s.peer.line("jia-yi")
	s.must(err)
	o, err := l.session.Next(s.ctx, link.Poll)
	s.must(err)
	var b bytes.Buffer
	_, err = o.WriteTo(&b)
	s.must(err)
	return b.Bytes()
}

// A dialer whose connection died polls again; the listener does not let it
// wait until the dead connection times out, not even in the middle of an
// answer that nobody reads.
func TestNewPollEndsTheOld(t *testing.T) {
	for _, inAnswer := range []bool{false, true} {
		t.Run(fmt.Sprintf("in the answer %v", inAnswer), func(t *testing.T) {
			jia, yi := open(t, "jia"), open(t, "yi")
			yi.serve()
			if inAnswer {
				yi.submit("jia", 30<<20) // more than sockets buffer
			}
			for range 4 {
				jia.holdPoll(jia.pollBundle())
			}
			small := yi.submit("jia", 10)
			jia.dial()
			jia.signFor(small)
			yi.signedFor(small)
		})
	}
}

// A push that stops in the middle does not hold up the next one.
func TestNewPushEndsTheOld(t *testing.T) {
	jia, yi := open(t, "jia"), open(t, "yi")
	yi.serve()
	bundle := jia.push()
	conn, err := tls.Dial("tcp", yi.cast.address, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{jia.cast.tls["jia"]}})
	yi.must(err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST /v1/link/jia-yi/push HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(bundle))
	yi.must(err)
	_, err = conn.Write(bundle[:len(bundle)-100])
	yi.must(err)
	yi.eventually("the first push is under way", func() bool {
		books, err := yi.node.Quarantined(yi.ctx, 1)
		yi.must(err)
		l, err := yi.peer.line("jia-yi")
		yi.must(err)
		l.turns[push].mu.Lock()
		defer l.turns[push].mu.Unlock()
		return len(books) == 0 && l.turns[push].end != nil
	})
	id := jia.submit("yi", 500)
	jia.dial()
	yi.signFor(id)
	jia.signedFor(id)
}

// Polls that wait and links that dial end with their context.
func TestShutdown(t *testing.T) {
	jia, yi := open(t, "jia"), open(t, "yi")
	stop := yi.serve()
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(jia.ctx)
	go func() { jia.peer.Run(ctx); close(done) }()
	jia.eventually("connected", func() bool { return !yi.status().LastSuccess.IsZero() })
	stop() // a poll is waiting here
	cancel()
	<-done
}

// Links that are not used yet are listed, too.
func TestStatusListsAllLinks(t *testing.T) {
	yi := open(t, "yi")
	var got []string
	for _, s := range yi.peer.Status() {
		got = append(got, fmt.Sprint(s.Link, " ", s.Neighbour, " ", s.Dialer, " ", s.Connected))
	}
	if len(got) != 2 || !strings.Contains(strings.Join(got, ","), "jia-yi jia false false") {
		t.Fatalf("%v", got)
	}
}

// A connection on which nothing moves is given up; one on which bytes leave is
// not, though nothing comes back.
func TestPatience(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	p := &patient{near, 50 * time.Millisecond}
	if _, err := p.Read(make([]byte, 1)); !isTimeout(err) {
		t.Fatalf("reading from a silent connection: %v", err)
	}
	if _, err := p.Write(make([]byte, 1)); !isTimeout(err) {
		t.Fatalf("writing to a silent connection: %v", err)
	}
	p.idle = time.Hour
	read := make(chan error, 1)
	go func() {
		_, err := p.Read(make([]byte, 1))
		read <- err
	}()
	go func() { _, _ = io.Copy(io.Discard, far) }()
	if _, err := p.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	far.Close()
	if err := <-read; isTimeout(err) {
		t.Fatalf("reading while bytes leave: %v", err)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// A link that its dialer holds is not called, one that its listener holds
// takes nothing and says so; released, it goes on at once.
func TestHeldLinks(t *testing.T) {
	jia, yi := open(t, "jia"), open(t, "yi")
	yi.serve()
	who := node.Who{By: "值班员", Reason: "检修"}
	jia.must(jia.node.HoldLink(jia.ctx, "jia-yi", who))
	jia.dial()
	first := jia.submit("yi", 1000)
	time.Sleep(300 * time.Millisecond)
	if st := yi.status(); !st.LastSuccess.IsZero() {
		t.Fatalf("a dialer that holds its link called: %+v", st)
	}
	jia.must(jia.node.ReleaseLink(jia.ctx, "jia-yi", who))
	yi.signFor(first)
	jia.signedFor(first)

	yi.must(yi.node.HoldLink(yi.ctx, "jia-yi", who))
	second, back := jia.submit("yi", 1000), yi.submit("jia", 1000)
	jia.eventually("hears of the hold", func() bool { return strings.Contains(jia.status().LastError, "holds the link") })
	if _, err := yi.node.InboxItem(yi.ctx, yi.agency, second); err == nil {
		t.Fatal("a held link took a document")
	}
	if _, err := jia.node.InboxItem(jia.ctx, jia.agency, back); err == nil {
		t.Fatal("a held link gave a document")
	}
	yi.must(yi.node.ReleaseLink(yi.ctx, "jia-yi", who))
	yi.signFor(second)
	jia.signedFor(second)
	jia.signFor(back)
	yi.signedFor(back)

	jia.must(jia.node.HoldLink(jia.ctx, "jia-yi", who)) // while its poll is open
	third := yi.submit("jia", 1000)
	time.Sleep(300 * time.Millisecond)
	if _, err := jia.node.InboxItem(jia.ctx, jia.agency, third); err == nil {
		t.Fatal("a held link took a document")
	}
	jia.must(jia.node.ReleaseLink(jia.ctx, "jia-yi", who))
	jia.signFor(third)
	yi.signedFor(third)
}
