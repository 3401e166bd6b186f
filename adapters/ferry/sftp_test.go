package ferry

import (
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// sftpHost serves one side's spool over SFTP, as the machine of a node does for a gate.
type sftpHost struct {
	addr string
	key  ssh.PublicKey
}

const sftpPassword = "of the gate's user"

func serveSFTP(t *testing.T, dir string) *sftpHost {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	check(t, err)
	config := &ssh.ServerConfig{PasswordCallback: func(_ ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
		if string(password) != sftpPassword {
			return nil, errors.New("another password")
		}
		return &ssh.Permissions{}, nil
	}}
	config.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	var served sync.WaitGroup
	t.Cleanup(func() { l.Close(); served.Wait() })
	served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { serveOne(conn, config, dir) })
		}
	})
	return &sftpHost{l.Addr().String(), signer.PublicKey()}
}

// serveOne serves a connection until its client ends it, or breaks it.
func serveOne(conn net.Conn, config *ssh.ServerConfig, dir string) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		channel, asked, err := c.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range asked {
				_ = r.Reply(r.Type == "subsystem", nil) // who is gone needs none
			}
		}()
		if s, err := sftp.NewServer(channel, sftp.WithServerWorkingDirectory(dir)); err == nil {
			_ = s.Serve() // ends with the connection
			_ = s.Close()
		}
	}
}

// sftpGate carries from one host to the other, and is asked once a minute.
type sftpGate struct {
	*testing.T
	hosts    [2]*sftpHost
	from, to *sftp.Client
	conns    []*ssh.Client
	visits   int
	took     map[string][]byte // what it has, by name
	open     map[string]*sftp.File
}

func (g *sftpGate) dial(h *sftpHost) *sftp.Client {
	conn, err := ssh.Dial("tcp", h.addr, &ssh.ClientConfig{
		User: "gate", Auth: []ssh.AuthMethod{ssh.Password(sftpPassword)}, HostKeyCallback: ssh.FixedHostKey(h.key), Timeout: time.Minute,
	})
	check(g.T, err)
	c, err := sftp.NewClient(conn)
	check(g.T, err)
	g.conns = append(g.conns, conn)
	return c
}

// connect begins anew: what was open is lost.
func (g *sftpGate) connect() {
	for _, c := range g.conns {
		c.Close()
	}
	g.conns, g.open = nil, map[string]*sftp.File{}
	g.from, g.to = g.dial(g.hosts[0]), g.dial(g.hosts[1])
}

// pull fetches what lies in out/ and deletes it there. Hidden names are not for it.
func (g *sftpGate) pull(remove bool, do func(name string, b []byte)) {
	list, err := g.from.ReadDir(outFolder)
	check(g.T, err)
	for _, info := range list {
		if info.IsDir() || strings.HasPrefix(info.Name(), ".") {
			continue
		}
		b := g.get(path.Join(outFolder, info.Name()))
		if remove {
			check(g.T, g.from.Remove(path.Join(outFolder, info.Name())))
		}
		g.took[info.Name()] = b
		do(info.Name(), b)
	}
}

func (g *sftpGate) get(name string) []byte {
	f, err := g.from.Open(name)
	check(g.T, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	check(g.T, err)
	return b
}

// put uploads under a name of in/, from the start.
func (g *sftpGate) put(name string, b []byte) {
	f, err := g.to.OpenFile(path.Join(inFolder, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	check(g.T, err)
	_, err = f.Write(b)
	check(g.T, errors.Join(err, f.Close()))
}

// write goes on with a file that is kept open until all of it is there.
func (g *sftpGate) write(name string, pieces int) {
	b := g.took[name]
	f := g.open[name]
	if f == nil {
		var err error
		f, err = g.to.OpenFile(path.Join(inFolder, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		check(g.T, err)
		g.open[name] = f
	}
	at, err := f.Seek(0, io.SeekCurrent)
	check(g.T, err)
	_, err = f.Write(b[at:min(int64(len(b)), at+int64(len(b)/pieces)+1)])
	check(g.T, err)
	if at, err = f.Seek(0, io.SeekCurrent); at == int64(len(b)) {
		check(g.T, errors.Join(err, f.Close()))
		delete(g.open, name)
		delete(g.took, name)
	}
}

// resume goes on behind what the other side has of a file, and begins again with one
// that is not there any more.
func (g *sftpGate) resume(name string) {
	have, b := int64(0), g.took[name]
	info, err := g.to.Stat(path.Join(inFolder, name))
	if !errors.Is(err, fs.ErrNotExist) {
		check(g.T, err)
		have = info.Size()
	}
	f, err := g.to.OpenFile(path.Join(inFolder, name), os.O_WRONLY|os.O_CREATE)
	check(g.T, err)
	_, err = f.Seek(have, io.SeekStart)
	check(g.T, err)
	_, err = f.Write(b[have:])
	check(g.T, errors.Join(err, f.Close()))
	delete(g.took, name)
}

func (g *sftpGate) names() []string { return slices.Sorted(maps.Keys(g.took)) }

var sftpGates = map[string]struct {
	minute func(g *sftpGate)
	step   time.Duration
	left   int  // files that may lie in out/ at the end
	halves bool // that nobody finishes
}{
	"renames when it is whole": {minute: func(g *sftpGate) {
		g.pull(true, func(name string, b []byte) {
			g.put(name+".filepart", b)
			check(g.T, g.to.PosixRename(path.Join(inFolder, name+".filepart"), path.Join(inFolder, name)))
		})
	}},
	"writes slowly under the final name": {step: 20 * time.Second, minute: func(g *sftpGate) {
		for _, name := range g.names() {
			g.write(name, 4)
		}
		g.pull(true, func(name string, _ []byte) { g.write(name, 4) })
	}},
	"grabs .part": {halves: true, minute: func(g *sftpGate) {
		g.pull(true, func(name string, b []byte) {
			g.put(name+partial, b[:len(b)/2])
			g.put(name, b)
		})
	}},
	"deletes nothing and brings it again": {left: 1, minute: func(g *sftpGate) { g.pull(false, g.put) }},
	"resumes what broke off": {step: 20 * time.Second, minute: func(g *sftpGate) {
		g.connect()
		for _, name := range g.names() {
			g.resume(name)
		}
		g.pull(true, func(name string, _ []byte) { g.write(name, 2) })
	}},
	"resumes what was given up": {halves: true, minute: func(g *sftpGate) {
		if g.visits++; g.visits%3 != 1 {
			return
		}
		g.connect()
		for _, name := range g.names() {
			g.resume(name)
		}
		g.pull(true, func(name string, _ []byte) { g.write(name, 2) })
	}},
}

// TestSFTP: a gate fetches from one side's server and brings to the other's, over real
// SSH, in the ways that its programs have. Everything arrives once and is proven, and
// both sides fall silent.
func TestSFTP(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(sftpGates)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they wait for the disk
			kind := sftpGates[name]
			jia, yi := piers(t)
			ways := sftpBetween(t, jia, yi)
			minute := func(g *gate) { kind.minute(ways[g]) }
			var order [2]*gate
			for g := range ways {
				if g.from == jia.dir {
					order[0] = g
				} else {
					order[1] = g
				}
			}
			var ids []string
			for i := range 2 {
				ids = append(ids, jia.send(yi))
				yi.send(jia)
				pass(t, minute, kind.step, order, jia, yi, 3+i)
			}
			pass(t, minute, cmp.Or(kind.step, time.Minute), order, jia, yi, 14)
			arrivedOnce(t, jia, yi, ids)
			for _, p := range []*pier{jia, yi} {
				p.settled(kind.left)
				if names := p.list(quarantineFolder); len(names) > 0 != kind.halves {
					t.Errorf("in the quarantine: %v", names)
				}
			}
		})
	}
}

func arrivedOnce(t *testing.T, jia, yi *pier, ids []string) {
	t.Helper()
	if jia.inbox() != len(ids) || yi.inbox() != len(ids) {
		t.Fatalf("%d and %d documents came", jia.inbox(), yi.inbox())
	}
	for _, id := range ids {
		tr, err := jia.node.Trace(t.Context(), jia.agency, id)
		check(t, err)
		if !tr.ReceiptsVerified || tr.Recipients[0].Stage != exchange.StageDelivered {
			t.Errorf("%+v", tr.Recipients)
		}
	}
}

func sftpBetween(t *testing.T, jia, yi *pier) map[*gate]*sftpGate {
	t.Helper()
	a, b := serveSFTP(t, jia.dir), serveSFTP(t, yi.dir)
	ways := map[*gate]*sftpGate{}
	for from, hosts := range map[string][2]*sftpHost{jia.dir: {a, b}, yi.dir: {b, a}} {
		g := &sftpGate{T: t, hosts: hosts, took: map[string][]byte{}}
		g.connect()
		t.Cleanup(func() {
			for _, c := range g.conns {
				c.Close()
			}
		})
		ways[&gate{T: t, from: from}] = g
	}
	return ways
}

// TestSFTPWhileItIsWritten: a gate fetches whatever it sees in a directory of its own,
// hidden names too, in the middle of a file, and brings that as something whole. It
// goes to the quarantine, and the file itself comes.
func TestSFTPWhileItIsWritten(t *testing.T) {
	jia, yi := piers(t)
	jia.gate.Out = jia.at(outFolder, "") // so that partial files lie in it
	jia.open()
	id := jia.send(yi)
	ways := sftpBetween(t, jia, yi)
	var g *sftpGate
	for at, over := range ways {
		if at.from == jia.dir {
			g = over
		}
	}
	grab := func() {
		list, err := g.from.ReadDir(outFolder)
		check(t, err)
		for _, info := range list {
			if strings.HasSuffix(info.Name(), partial) {
				g.put("grabbed.yzb", g.get(path.Join(outFolder, info.Name())))
			}
		}
	}
	_, _, err := jia.spool.exported(jia.spool.out, func(place placing) (link.Exported, error) {
		return jia.spool.f.Export(t.Context(), jia.spool.limits(), true, func(name string, write func(io.Writer) error) error {
			return place(name, func(w io.Writer) error { return write(&watched{w: w, half: grab}) })
		})
	})
	check(t, err)
	for range 2 {
		yi.take()
		*yi.clock = yi.clock.Add(patience)
	}
	if names := yi.list(quarantineFolder); len(names) != 2 || yi.inbox() != 0 {
		t.Fatalf("%v, %d in the inbox", names, yi.inbox())
	}
	g.pull(true, g.put)
	yi.take()
	yi.export()
	for from, over := range ways {
		if from.from == yi.dir {
			over.pull(true, over.put)
		}
	}
	jia.take()
	if tr, err := jia.node.Trace(t.Context(), jia.agency, id); err != nil || yi.inbox() != 1 || tr.Recipients[0].Stage != exchange.StageDelivered {
		t.Errorf("%d in the inbox, %v", yi.inbox(), err)
	}
}

// watched lets somebody look when half of the first piece is written.
type watched struct {
	w    io.Writer
	half func()
}

func (w *watched) Write(p []byte) (int, error) {
	n := 0
	if half := w.half; half != nil {
		w.half = nil
		var err error
		if n, err = w.w.Write(p[:len(p)/2]); err != nil {
			return n, err
		}
		half()
	}
	m, err := w.w.Write(p[n:])
	return n + m, err
}
