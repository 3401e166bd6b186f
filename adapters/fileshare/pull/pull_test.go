package pull

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
)

// server is an SSH server of this process with a folder.
type server struct {
	*testing.T
	dir, address, fingerprint string
	asked                     atomic.Int64 // for a password
	cut                       atomic.Int64 // bytes after which the connection ends; 0: never
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{T: t, dir: t.TempDir()}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	signer, err := ssh.NewSignerFromKey(key)
	check(t, err)
	s.fingerprint = ssh.FingerprintSHA256(signer.PublicKey())
	c := &ssh.ServerConfig{PasswordCallback: func(m ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
		s.asked.Add(1)
		if m.User() != "oa" || string(p) != "secret" {
			return nil, errors.New("no")
		}
		return nil, nil
	}}
	c.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s.address = l.Addr().String()
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(&scissors{Conn: conn, s: s}, c)
		}
	}()
	return s
}

// scissors cut a connection after so many bytes.
type scissors struct {
	net.Conn
	s    *server
	sent int64
}

func (c *scissors) Write(b []byte) (int, error) {
	c.sent += int64(len(b))
	if most := c.s.cut.Load(); most > 0 && c.sent > most {
		c.Conn.Close()
	}
	return c.Conn.Write(b)
}

func (s *server) serve(conn net.Conn, c *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, c)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for n := range channels {
		channel, requests, err := n.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				_ = r.Reply(r.Type == "subsystem", nil)
			}
		}()
		sub, err := sftp.NewServer(channel)
		if err != nil {
			return
		}
		_ = sub.Serve() // ends with its connection
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *server) write(name, content string) {
	s.Helper()
	at := filepath.Join(s.dir, name)
	check(s.T, os.MkdirAll(filepath.Dir(at), 0o700))
	check(s.T, os.WriteFile(at, []byte(content), 0o600))
}

func (s *server) login() Login {
	return Login{Address: s.address, User: "oa", HostKey: s.fingerprint, Password: "secret", Dir: s.dir}
}

// puller is a Puller with a clock and a local folder.
type puller struct {
	*Puller
	dir   string
	clock time.Time
}

func (s *server) puller(ledger queue.Store) *puller {
	s.Helper()
	from, err := DialSFTP(s.login())
	check(s.T, err)
	s.Cleanup(func() { from.Close() })
	p := &puller{dir: s.T.TempDir(), clock: time.Now()}
	p.Puller = New(Config{
		From: from, Into: p.dir, Sentinel: "标志", Depth: 2, Skip: func(n string) bool { return strings.HasPrefix(n, "~$") },
		Quiet: 10 * time.Second, MaxFile: 1 << 20, Ledger: ledger, Now: func() time.Time { return p.clock },
	})
	return p
}

func ledger(t *testing.T) queue.Store {
	t.Helper()
	store, err := badgerstore.Open(t.TempDir(), badgerstore.Options{Logger: slog.New(slog.DiscardHandler)})
	check(t, err)
	t.Cleanup(func() { store.Close() })
	return queue.Checked(store)
}

// round looks, waits, looks and pulls.
func (p *puller) round(ctx context.Context) (Report, error) {
	for range 2 {
		if err := p.Look(ctx); err != nil {
			return Report{}, err
		}
		p.clock = p.clock.Add(10 * time.Second)
	}
	return p.Pull(ctx)
}

func (p *puller) tree() (out []string) {
	_ = filepath.WalkDir(p.dir, func(at string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(p.dir, at)
			out = append(out, rel)
		}
		return err
	})
	return out
}

const gbkName = "\xcd\xa8\xd6\xaa.ofd" // 通知.ofd in GBK

// TestAShareOnAnSSHServer: files come as they are named, once each; what changed comes
// again, and what is no file never.
func TestAShareOnAnSSHServer(t *testing.T) {
	s := newServer(t)
	s.write("标志", "x")
	s.write(gbkName, "正文")
	s.write("附件/表.xls", "附件")
	s.write("~$草稿.doc", "x")
	s.write("a/b/c/deep.ofd", "x")
	s.write("大.bin", strings.Repeat("x", 1<<20+1))
	check(t, os.Symlink("/etc/passwd", filepath.Join(s.dir, "链接.ofd")))
	p := s.puller(ledger(t))
	r, err := p.round(t.Context())
	if err != nil || r != (Report{Fetched: 2, Refused: 1}) {
		t.Fatalf("%+v %v", r, err)
	}
	if got := p.tree(); !slices.Equal(got, []string{gbkName, "附件/表.xls"}) {
		t.Fatalf("%q", got)
	}
	check(t, os.Remove(filepath.Join(p.dir, gbkName))) // the import put it away
	if r, err := p.round(t.Context()); err != nil || r.Fetched != 0 {
		t.Errorf("once more: %+v %v", r, err)
	}
	s.write(gbkName, "正文，更正")
	if err := p.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, err := p.Pull(t.Context()); err != nil || r.Fetched != 0 || r.Waiting != 1 {
		t.Errorf("while it is new: %+v %v", r, err)
	}
	if r, err := p.round(t.Context()); err != nil || r.Fetched != 1 {
		t.Errorf("what changed: %+v %v", r, err)
	}
	if b, err := os.ReadFile(filepath.Join(p.dir, gbkName)); err != nil || string(b) != "正文，更正" {
		t.Errorf("%q %v", b, err)
	}
}

// TestASourceThatIsGone is no empty one.
func TestASourceThatIsGone(t *testing.T) {
	s := newServer(t)
	s.write("a.ofd", "x")
	p := s.puller(ledger(t))
	if _, err := p.round(t.Context()); !errors.Is(err, ErrGone) {
		t.Errorf("without its sentinel: %v", err)
	}
	l := s.login()
	l.Address = "127.0.0.1:1"
	if _, err := DialSFTP(l); !errors.Is(err, ErrGone) {
		t.Errorf("nobody answers: %v", err)
	}
}

// TestAnotherServer gets no password.
func TestAnotherServer(t *testing.T) {
	s := newServer(t)
	l := s.login()
	l.HostKey = "SHA256:" + strings.Repeat("A", 43)
	if _, err := DialSFTP(l); err == nil || !strings.Contains(err.Error(), s.fingerprint) || s.asked.Load() > 0 {
		t.Errorf("%v, asked %d times", err, s.asked.Load())
	}
	l = s.login()
	l.Password = "wrong"
	if _, err := DialSFTP(l); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Error(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("x"))
	check(t, err)
	l.Key = pem.EncodeToMemory(block)
	if _, err := DialSFTP(l); err == nil || !strings.Contains(err.Error(), "passphrase") {
		t.Error(err)
	}
}

// TestAConnectionThatIsCut leaves nothing that looks whole, and the next one goes on.
func TestAConnectionThatIsCut(t *testing.T) {
	s := newServer(t)
	s.write("标志", "x")
	content := strings.Repeat("0123456789", 80_000)
	s.write("大.ofd", content)
	store := ledger(t)
	p := s.puller(store)
	s.cut.Store(300_000)
	if _, err := p.round(t.Context()); err == nil || slices.Contains(p.tree(), "大.ofd") {
		t.Fatalf("%v %q", err, p.tree())
	}
	s.cut.Store(0)
	again := s.puller(store)
	again.c.Into, again.dir = p.dir, p.dir
	if r, err := again.round(t.Context()); err != nil || r.Fetched != 1 {
		t.Fatalf("%+v %v", r, err)
	}
	if b, err := os.ReadFile(filepath.Join(p.dir, "大.ofd")); err != nil || string(b) != content || len(again.tree()) != 1 {
		t.Errorf("%d bytes, %v, %q", len(b), err, again.tree())
	}
}

// forgetful is a ledger whose process ends before a row is written.
type forgetful struct {
	queue.Store
	now bool
}

func (f *forgetful) Update(ctx context.Context, fn func(queue.Tx) error) error {
	if f.now {
		return errors.New("the process ends here")
	}
	return f.Store.Update(ctx, fn)
}

// TestRemovedWhenItIsHere, and not before.
func TestRemovedWhenItIsHere(t *testing.T) {
	s := newServer(t)
	s.write("标志", "x")
	s.write("a.ofd", "x")
	store := &forgetful{Store: ledger(t), now: true}
	p := s.puller(store)
	p.c.Remove = true
	if _, err := p.round(t.Context()); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(filepath.Join(s.dir, "a.ofd")); err != nil {
		t.Fatalf("it was removed before the ledger knew it: %v", err)
	}
	store.now = false
	if _, err := p.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "a.ofd")); !errors.Is(err, fs.ErrNotExist) || !slices.Equal(p.tree(), []string{"a.ofd"}) {
		t.Errorf("%v %q", err, p.tree())
	}
	if _, err := os.Stat(filepath.Join(s.dir, "标志")); err != nil {
		t.Error(err)
	}
}

// liar is a source that says what it likes.
type liar struct {
	names []string
	size  int64
	grow  bool
}

type entry struct {
	fs.FileInfo
	name string
	size int64
}

func (e entry) Name() string       { return e.name }
func (e entry) Size() int64        { return e.size }
func (e entry) Mode() fs.FileMode  { return 0o600 }
func (e entry) IsDir() bool        { return false }
func (e entry) ModTime() time.Time { return time.Unix(1, 0) }

func (l *liar) List(string) (out []fs.FileInfo, err error) {
	for _, n := range l.names {
		out = append(out, entry{name: n, size: l.size})
	}
	return out, nil
}
func (l *liar) Stat(at string) (fs.FileInfo, error) { return entry{name: at, size: l.size}, nil }
func (l *liar) Remove(string) error                 { return nil }
func (l *liar) Fetch(_ string, w io.Writer) error {
	n := l.size
	if l.grow {
		n++
	}
	_, err := w.Write(make([]byte, n))
	return err
}

// TestASourceThatLies leads nowhere, and fills no disk.
func TestASourceThatLies(t *testing.T) {
	outside := t.TempDir()
	into := filepath.Join(outside, "into")
	check(t, os.Mkdir(into, 0o700))
	l := &liar{names: []string{"../x", "..", "a/b", "", "好", "x\x00y"}, size: 3}
	clock := time.Now()
	p := New(Config{From: l, Into: into, Sentinel: "s", Skip: func(string) bool { return false }, MaxFile: 100, Ledger: ledger(t), Now: func() time.Time { return clock }})
	check(t, p.Look(t.Context()))
	if r, err := p.Pull(t.Context()); err != nil || r.Fetched != 1 {
		t.Errorf("%+v %v", r, err)
	}
	if list, err := os.ReadDir(outside); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
	l.names, l.grow = []string{"长"}, true
	check(t, p.Look(t.Context()))
	if _, err := p.Pull(t.Context()); err == nil {
		t.Error("more came than was told")
	}
	if _, err := os.Stat(filepath.Join(into, "长")); err == nil {
		t.Error("it is taken for whole")
	}
}

// TestURLs of profiles.
func TestURLs(t *testing.T) {
	for s, want := range map[string]Login{
		"sftp://oa@host/a/b":      {Address: "host:22", User: "oa", Dir: "/a/b"},
		"ftp://oa@host/a":         {Address: "host:21", User: "oa", Dir: "/a"},
		"sftp://oa@host:2222/":    {Address: "host:2222", User: "oa", Dir: "/"},
		"sftp://oa@[::1]/a":       {Address: "[::1]:22", User: "oa", Dir: "/a"},
		"sftp://oa@[::1]:2222/中文": {Address: "[::1]:2222", User: "oa", Dir: "/中文"},
	} {
		got, err := ParseURL(s)
		if err != nil || got.Address != want.Address || got.User != want.User || got.Dir != want.Dir || got.Plain != strings.HasPrefix(s, "ftp") {
			t.Errorf("%s: %+v %v", s, got, err)
		}
	}
	for _, s := range []string{"", "http://a@b/c", "sftp://host/a", "sftp://a:b@host/c", "sftp://@host/"} {
		if _, err := ParseURL(s); err == nil {
			t.Errorf("%s is taken", s)
		}
	}
}
