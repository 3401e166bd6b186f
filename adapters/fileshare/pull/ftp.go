package pull

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path"
	"strconv"
	"strings"
	"time"
)

// FTP is a folder on an FTP server. Names are bytes, in whatever encoding the server
// has them. The password goes in clear, and so does everything else: it is for servers
// on the same wire that speak nothing better.
type FTP struct {
	dir  string
	host string
	conn net.Conn
	in   *bufio.Reader
	mlsd bool // it lists with facts
}

// The bounds of what a server says.
const (
	maxReply   = 4 << 10 // bytes of a line
	maxLines   = 100     // of a reply
	maxListing = 64 << 20
)

// reply is what a server answers that it will not do.
type reply struct {
	code int
	text string
}

func (r *reply) Error() string { return fmt.Sprintf("the server answered %d %s", r.code, r.text) }

// Is says whether something is not there.
func (r *reply) Is(target error) bool { return target == fs.ErrNotExist && r.code == 550 }

// DialFTP logs in.
func DialFTP(l Login) (*FTP, error) {
	conn, err := net.DialTimeout("tcp", l.Address, silence)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	p := &patient{conn}
	f := &FTP{dir: l.Dir, host: host, conn: p, in: bufio.NewReaderSize(p, maxReply)}
	if err := f.login(l); err != nil {
		return nil, errors.Join(fmt.Errorf("pull: %s: %w", l.Address, err), conn.Close())
	}
	return f, nil
}

func (f *FTP) login(l Login) error {
	if _, err := f.answer(220); err != nil {
		return err
	}
	_, err := f.ask("USER "+l.User, 331, 230)
	if err == nil {
		_, err = f.ask("PASS "+l.Password, 230)
	}
	if err == nil {
		_, err = f.ask("TYPE I", 200)
	}
	if err != nil {
		return err
	}
	features, err := f.ask("FEAT", 211)
	if said := (*reply)(nil); errors.As(err, &said) {
		return nil // it has none
	}
	f.mlsd = strings.Contains(strings.ToUpper(features), "MLSD") || strings.Contains(strings.ToUpper(features), "MLST")
	return err
}

// ask sends a command and expects one of the answers.
func (f *FTP) ask(command string, want ...int) (string, error) {
	if strings.ContainsAny(command, "\r\n\x00") {
		return "", errors.New("pull: a name with a line break")
	}
	if _, err := io.WriteString(f.conn, command+"\r\n"); err != nil {
		return "", err
	}
	return f.answer(want...)
}

// answer reads a reply, of several lines perhaps.
func (f *FTP) answer(want ...int) (string, error) {
	var all []string
	first := ""
	for range maxLines {
		line, err := f.in.ReadSlice('\n')
		if err != nil {
			return "", fmt.Errorf("pull: the server's answer is cut: %w", err)
		}
		text := strings.TrimRight(string(line), "\r\n")
		all = append(all, text)
		if first == "" {
			first = text
		}
		if len(first) < 4 || len(text) >= 4 && text[:3] == first[:3] && text[3] == ' ' {
			break
		}
	}
	last := all[len(all)-1]
	code, err := strconv.Atoi(last[:min(3, len(last))])
	if err != nil || len(last) < 3 {
		return "", errors.New("pull: this is no FTP server")
	}
	for _, w := range want {
		if code == w {
			return strings.Join(all, "\n"), nil
		}
	}
	return "", &reply{code, strings.TrimSpace(last[3:])}
}

// data opens a connection for a listing or a file. It goes to the server itself,
// whatever address the server tells.
func (f *FTP) data(command string) (net.Conn, error) {
	port, err := f.passive()
	if err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(f.host, strconv.Itoa(port)), silence)
	if err != nil {
		return nil, err
	}
	if _, err := f.ask(command, 125, 150); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &patient{conn}, nil
}

// passive asks for a port.
func (f *FTP) passive() (int, error) {
	if text, err := f.ask("EPSV", 229); err == nil { // (|||6446|)
		if parts := strings.Split(text, "|"); len(parts) >= 5 {
			return port(parts[3])
		}
	}
	text, err := f.ask("PASV", 227) // (h1,h2,h3,h4,p1,p2)
	if err != nil {
		return 0, err
	}
	_, text, _ = strings.Cut(text, "(")
	text, _, _ = strings.Cut(text, ")")
	parts := strings.Split(text, ",")
	if len(parts) != 6 {
		return 0, errors.New("pull: the server names no port")
	}
	high, err1 := strconv.ParseUint(parts[4], 10, 8)
	low, err2 := strconv.ParseUint(parts[5], 10, 8)
	return int(high<<8 | low), errors.Join(err1, err2)
}

func port(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	return int(n), err
}

// fetch gives what comes over a connection of its own.
func (f *FTP) fetch(command string, read func(io.Reader) error) error {
	conn, err := f.data(command)
	if err != nil {
		return err
	}
	if err := errors.Join(read(conn), conn.Close()); err != nil {
		// What the server says now belongs to what was cut: nothing more is asked.
		return errors.Join(err, f.conn.Close())
	}
	_, err = f.answer(226, 250)
	return err
}

// remote is a file as a server tells of it.
type remote struct {
	name string
	size int64
	mod  time.Time
	mode fs.FileMode
}

func (r *remote) Name() string       { return r.name }
func (r *remote) Size() int64        { return r.size }
func (r *remote) Mode() fs.FileMode  { return r.mode }
func (r *remote) ModTime() time.Time { return r.mod }
func (r *remote) IsDir() bool        { return r.mode.IsDir() }
func (r *remote) Sys() any           { return nil }

func (f *FTP) at(p string) string { return path.Join(f.dir, p) }

// List implements Source.
func (f *FTP) List(dir string) (out []fs.FileInfo, err error) {
	command := "NLST "
	if f.mlsd {
		command = "MLSD "
	}
	var lines []string
	err = f.fetch(command+f.at(dir), func(r io.Reader) error {
		b, err := io.ReadAll(io.LimitReader(r, maxListing+1))
		if len(b) > maxListing {
			err = errors.New("pull: the listing is too long")
		}
		lines = strings.Split(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n")
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, line := range lines {
		switch {
		case line == "":
		case f.mlsd:
			if r := parseFact(line); r != nil {
				out = append(out, r)
			}
		default:
			info, err := f.Stat(path.Join(dir, path.Base(line)))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			if err == nil {
				out = append(out, info)
			}
		}
	}
	return out, nil
}

// parseFact reads a line of MLSD (RFC 3659): facts, a space, the name. What is neither
// file nor folder is nil.
func parseFact(line string) *remote {
	facts, name, ok := strings.Cut(strings.TrimLeft(line, " "), " ")
	if !ok || name == "" {
		return nil
	}
	r := &remote{name: name, size: -1, mode: fs.ModeIrregular}
	for fact := range strings.SplitSeq(facts, ";") {
		key, value, _ := strings.Cut(fact, "=")
		switch strings.ToLower(key) {
		case "type":
			switch strings.ToLower(value) {
			case "file":
				r.mode = 0
			case "dir":
				r.mode = fs.ModeDir
			}
		case "size":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil {
				r.size = n
			}
		case "modify":
			r.mod = stamp(value)
		}
	}
	if r.mode == fs.ModeIrregular || r.mode == 0 && r.size < 0 {
		return nil
	}
	return r
}

// stamp reads YYYYMMDDHHMMSS; what is none is no time.
func stamp(s string) time.Time {
	if len(s) > 14 {
		s = s[:14]
	}
	t, err := time.Parse("20060102150405", s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Stat implements Source. What has no size is a folder, or not there.
func (f *FTP) Stat(at string) (fs.FileInfo, error) {
	r := &remote{name: path.Base(at)}
	text, err := f.ask("SIZE "+f.at(at), 213)
	if said := (*reply)(nil); errors.As(err, &said) {
		if _, e := f.ask("CWD "+f.at(at), 250); e != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		r.mode = fs.ModeDir
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if r.size, err = strconv.ParseInt(strings.TrimSpace(text[3:]), 10, 64); err != nil || r.size < 0 {
		return nil, errors.New("pull: the server tells no size")
	}
	text, err = f.ask("MDTM "+f.at(at), 213)
	if said := (*reply)(nil); errors.As(err, &said) {
		return r, nil // it tells no times: the size has to do
	}
	if err == nil {
		r.mod = stamp(strings.TrimSpace(text[3:]))
	}
	return r, err
}

// Fetch implements Source.
func (f *FTP) Fetch(at string, into io.Writer) error {
	return f.fetch("RETR "+f.at(at), func(r io.Reader) error {
		_, err := io.Copy(into, r)
		return err
	})
}

// Remove implements Source.
func (f *FTP) Remove(at string) error {
	_, err := f.ask("DELE "+f.at(at), 250)
	return err
}

// Close ends the session.
func (f *FTP) Close() error {
	_, _ = io.WriteString(f.conn, "QUIT\r\n") // the answer says nothing that matters
	return f.conn.Close()
}
