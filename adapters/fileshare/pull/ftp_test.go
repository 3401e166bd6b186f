package pull

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// ftpServer is an old server with a folder; modern ones list with facts.
type ftpServer struct {
	*server
	modern bool
	cut    bool // every file ends in the middle
	lies   bool // it names another host for data
}

func newFTPServer(t *testing.T, modern bool) *ftpServer {
	t.Helper()
	s := &ftpServer{server: &server{T: t, dir: t.TempDir()}, modern: modern}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	s.address = l.Addr().String()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.talk(conn)
		}
	}()
	return s
}

func (s *ftpServer) talk(conn net.Conn) {
	defer conn.Close()
	say := func(text string) { fmt.Fprintf(conn, "%s\r\n", text) }
	say("220-welcome\r\n220 ready")
	var data net.Listener
	in := bufio.NewScanner(conn)
	for in.Scan() {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		info, statErr := os.Lstat(rest)
		switch verb {
		case "USER":
			say("331 password")
		case "PASS":
			if rest != "secret" {
				say("530 no")
				return
			}
			say("230 in")
		case "TYPE":
			say("200 ok")
		case "FEAT":
			if s.modern {
				say("211-Features:\r\n MLST type*;size*;modify*;\r\n211 End")
			} else {
				say("502 what?")
			}
		case "EPSV", "PASV":
			if verb == "EPSV" && !s.modern {
				say("500 what?")
				continue
			}
			data, _ = net.Listen("tcp", "127.0.0.1:0")
			n := data.Addr().(*net.TCPAddr).Port
			host := "127,0,0,1"
			if s.lies {
				host = "169,254,169,254"
			}
			if verb == "EPSV" {
				say(fmt.Sprintf("229 passive (|||%d|)", n))
			} else {
				say(fmt.Sprintf("227 passive (%s,%d,%d)", host, n>>8, n&255))
			}
		case "MLSD", "NLST", "RETR":
			say("150 here")
			c, err := data.Accept()
			data.Close()
			if err == nil {
				s.give(c, verb, rest)
				c.Close()
			}
			say("226 done")
		case "SIZE":
			if statErr != nil || info.IsDir() {
				say("550 no")
			} else {
				say(fmt.Sprint("213 ", info.Size()))
			}
		case "MDTM":
			say("213 " + info.ModTime().UTC().Format("20060102150405"))
		case "CWD":
			if statErr != nil || !info.IsDir() {
				say("550 no")
			} else {
				say("250 there")
			}
		case "DELE":
			if os.Remove(rest) != nil {
				say("550 no")
			} else {
				say("250 gone")
			}
		default:
			say("500 what?")
		}
	}
}

func (s *ftpServer) give(c net.Conn, verb, at string) {
	if verb == "RETR" {
		b, _ := os.ReadFile(at)
		if s.cut {
			b = b[:len(b)/2]
		}
		_, _ = c.Write(b)
		return
	}
	entries, _ := os.ReadDir(at)
	for _, e := range entries {
		info, err := e.Info()
		switch {
		case err != nil:
		case verb == "NLST":
			fmt.Fprintf(c, "%s\r\n", filepath.Join(at, e.Name()))
		case e.IsDir():
			fmt.Fprintf(c, "type=dir;modify=20260101000000; %s\r\n", e.Name())
		case info.Mode().IsRegular():
			fmt.Fprintf(c, "Type=file;Size=%d;Modify=%s; %s\r\n", info.Size(), info.ModTime().UTC().Format("20060102150405"), e.Name())
		default:
			fmt.Fprintf(c, "type=OS.unix=slink; %s\r\n", e.Name())
		}
	}
}

func (s *ftpServer) puller(t *testing.T) *puller {
	t.Helper()
	from, err := Dial(Login{Address: s.address, User: "oa", Password: "secret", Dir: s.dir, Plain: true})
	check(t, err)
	t.Cleanup(func() { from.Close() })
	p := &puller{dir: t.TempDir(), clock: time.Now()}
	p.Puller = New(Config{From: from, Into: p.dir, Sentinel: "标志", Depth: 2, Skip: func(string) bool { return false }, Quiet: 10 * time.Second, MaxFile: 1 << 20, Ledger: ledger(t), Now: func() time.Time { return p.clock }})
	return p
}

// TestAnFTPServer of either kind, with names in GBK.
func TestAnFTPServer(t *testing.T) {
	for _, modern := range []bool{true, false} {
		s := newFTPServer(t, modern)
		s.lies = true // the address it tells is not gone to
		s.write("标志", "x")
		s.write(gbkName, "正文")
		s.write("夹/附件 1.xls", "附件")
		p := s.puller(t)
		p.c.Remove = true
		for n, want := range []int{2, 0} {
			if r, err := p.round(t.Context()); err != nil || r != (Report{Fetched: want}) {
				t.Fatalf("modern %t, round %d: %+v %v", modern, n, r, err)
			}
		}
		if got := p.tree(); !slices.Equal(got, []string{"夹/附件 1.xls", gbkName}) && !slices.Equal(got, []string{gbkName, "夹/附件 1.xls"}) {
			t.Errorf("%q", got)
		}
		if b, err := os.ReadFile(filepath.Join(p.dir, gbkName)); err != nil || string(b) != "正文" {
			t.Errorf("%q %v", b, err)
		}
		if _, err := os.Stat(filepath.Join(s.dir, gbkName)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is still there: %v", err)
		}
		s.cut = true
		s.write("长.ofd", "0123456789")
		if r, err := p.round(t.Context()); err == nil || r.Fetched != 0 || slices.Contains(p.tree(), "长.ofd") {
			t.Errorf("cut: %+v %v", r, err)
		}
	}
}

// TestFTPServersThatAreOdd are refused, and what they say is bounded.
func TestFTPServersThatAreOdd(t *testing.T) {
	s := newFTPServer(t, true)
	if _, err := DialFTP(Login{Address: s.address, User: "oa", Password: "wrong", Dir: s.dir}); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Error(err)
	}
	if _, err := s.puller(t).round(t.Context()); !errors.Is(err, ErrGone) {
		t.Errorf("without a sentinel: %v", err)
	}
	f, err := DialFTP(Login{Address: s.address, User: "oa", Password: "secret", Dir: s.dir})
	check(t, err)
	defer f.Close()
	if _, err := f.Stat("a\r\nDELE x"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a name with a line break: %v", err)
	}
	for _, said := range []string{strings.Repeat("2", maxReply+1), strings.Repeat("220-x\r\n", maxLines+1), "hello\r\n", "22\r\n", "\r\n"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		go func() {
			if c, err := l.Accept(); err == nil {
				_, _ = io.WriteString(c, said)
				c.Close()
			}
		}()
		if _, err := DialFTP(Login{Address: l.Addr().String(), User: "oa", Dir: "/"}); err == nil {
			t.Errorf("%.20q is taken", said)
		}
		l.Close()
	}
}

// FuzzFacts: whatever a server lists is a file, a folder or nothing.
func FuzzFacts(f *testing.F) {
	f.Add("type=file;size=3;modify=20260102030405; 通知.ofd")
	f.Add("Type=dir; x y")
	f.Fuzz(func(t *testing.T, line string) {
		if r := parseFact(line); r != nil && (r.name == "" || r.size < 0 && !r.IsDir()) {
			t.Fatalf("%+v", r)
		}
	})
}
