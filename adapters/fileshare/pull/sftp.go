package pull

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path"
	"strings"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// SFTP is a folder on an SSH server.
type SFTP struct {
	dir    string
	ssh    *ssh.Client
	client *sftp.Client
}

// Login says where a share is, and who we are there. HostKey is the fingerprint
// of the server's key as ssh-keygen -l shows it: SHA256:…
type Login struct {
	Address  string // HOST:PORT
	User     string
	HostKey  string
	Key      []byte // a private key as OpenSSH writes it; or
	Password string
	Dir      string
	Plain    bool // FTP: everything goes in clear
}

// silence is how long a server may say nothing.
const silence = time.Minute

// DialSFTP logs in. A server with another key than the one that is known gets neither
// password nor signature.
func DialSFTP(l Login) (*SFTP, error) {
	auth, err := l.auth()
	if err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout("tcp", l.Address, silence)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	p := &patient{conn}
	c, channels, requests, err := ssh.NewClientConn(p, l.Address, &ssh.ClientConfig{
		User: l.User, Auth: []ssh.AuthMethod{auth}, HostKeyCallback: l.known, Timeout: silence,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pull: %s: %w", l.Address, err), conn.Close())
	}
	s := &SFTP{dir: l.Dir, ssh: ssh.NewClient(c, channels, requests)}
	if s.client, err = sftp.NewClient(s.ssh); err != nil {
		return nil, errors.Join(fmt.Errorf("pull: %s: %w", l.Address, err), s.ssh.Close())
	}
	return s, nil
}

func (l *Login) auth() (ssh.AuthMethod, error) {
	if len(l.Key) == 0 {
		return ssh.Password(l.Password), nil
	}
	signer, err := ssh.ParsePrivateKey(l.Key)
	if err != nil {
		return nil, errors.New("pull: the private key cannot be read; it must have no passphrase")
	}
	return ssh.PublicKeys(signer), nil
}

// known compares the server's key with the one that somebody has looked at.
func (l *Login) known(_ string, _ net.Addr, key ssh.PublicKey) error {
	got := ssh.FingerprintSHA256(key)
	if subtle.ConstantTimeCompare([]byte(got), []byte(l.HostKey)) != 1 {
		return fmt.Errorf("the server's key is %s and not the one of the profile; compare it with its operator before you enter it", got)
	}
	return nil
}

// patient gives each read and write its own time.
type patient struct{ net.Conn }

func (p *patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

// Close ends the session. The connection goes first: a server that does not answer the
// end of a session is not waited for, and nothing is under way that could be lost.
func (s *SFTP) Close() error {
	_, _ = s.ssh.Close(), s.client.Close()
	return nil
}

func (s *SFTP) at(p string) string { return path.Join(s.dir, p) }

// List implements Source.
func (s *SFTP) List(dir string) ([]fs.FileInfo, error) { return s.client.ReadDir(s.at(dir)) }

// Stat implements Source.
func (s *SFTP) Stat(at string) (fs.FileInfo, error) { return s.client.Lstat(s.at(at)) }

// Fetch implements Source.
func (s *SFTP) Fetch(at string, into io.Writer) error {
	f, err := s.client.Open(s.at(at))
	if err != nil {
		return err
	}
	_, err = f.WriteTo(into)
	return errors.Join(err, f.Close())
}

// Remove implements Source.
func (s *SFTP) Remove(at string) error { return s.client.Remove(s.at(at)) }

// Connection is a Source that is logged in to.
type Connection interface {
	Source
	io.Closer
}

// Dial logs in, over FTP if that is what the URL says.
func Dial(l Login) (Connection, error) {
	if l.Plain {
		return DialFTP(l)
	}
	return DialSFTP(l)
}

// ParseURL reads sftp://USER@HOST[:PORT]/DIR, or the same with ftp.
func ParseURL(s string) (Login, error) {
	rest, ok := strings.CutPrefix(s, "sftp://")
	usual := "22"
	plain := false
	if !ok {
		rest, plain = strings.CutPrefix(s, "ftp://")
		ok, usual = plain, "21"
	}
	host, dir, _ := strings.Cut(rest, "/")
	user, address, hasUser := strings.Cut(host, "@")
	if !ok || !hasUser || user == "" || address == "" || strings.Contains(user, ":") {
		return Login{}, errors.New("pull: sftp://USER@HOST/DIR or ftp://USER@HOST/DIR is expected, without a password")
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), usual)
	}
	return Login{Address: address, User: user, Dir: "/" + dir, Plain: plain}, nil
}
