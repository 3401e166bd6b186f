package inspect

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// Clamd asks a ClamAV daemon over its socket (command INSTREAM: the daemon needs
// no access to any file). Every trouble with it is temporary: nothing passes
// unseen, and nothing is refused because the scanner is away.
type Clamd struct {
	network, address string
	timeout          time.Duration

	mu      sync.Mutex
	rest    time.Time // until when it is not asked again
	because error
}

// clamdRest is how long a daemon that did not answer is left alone: one that
// hangs would cost every file the whole timeout.
const clamdRest = 10 * time.Second

// resting gives the trouble that the daemon is left alone for.
func (c *Clamd) resting(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.rest) {
		return c.because
	}
	return nil
}

func (c *Clamd) leave(now time.Time, because error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rest, c.because = now.Add(clamdRest), because
	return because
}

// DefaultClamdTimeout is how long the daemon may take for one answer, and for
// taking one chunk.
const DefaultClamdTimeout = 2 * time.Minute

const (
	clamdChunk = 64 << 10
	clamdReply = 4 << 10
	clamdName  = 128 // of what was found
)

// NewClamd reads an address as unix:/run/clamav/clamd.ctl or tcp:host:port. A
// timeout of 0 is DefaultClamdTimeout.
func NewClamd(address string, timeout time.Duration) (*Clamd, error) {
	network, rest, _ := strings.Cut(address, ":")
	c := &Clamd{network: network, address: rest, timeout: timeout}
	if c.timeout == 0 {
		c.timeout = DefaultClamdTimeout
	}
	switch network {
	case "unix":
		if strings.HasPrefix(rest, "/") {
			return c, nil
		}
	case "tcp":
		if host, port, err := net.SplitHostPort(rest); err == nil && host != "" && port != "" {
			return c, nil
		}
	}
	return nil, exchange.Fail(exchange.CodeBadRequest, "clamav %.100q is neither unix:/path/of/socket nor tcp:host:port", address)
}

func away(err error, detail string, args ...any) error {
	return &exchange.Error{Code: exchange.CodeTemporary, Temporary: true, Detail: "the virus scanner " + fmt.Sprintf(detail, args...), Err: err}
}

// Ping asks whether the daemon is there.
func (c *Clamd) Ping(ctx context.Context) error {
	conn, err := c.dial(ctx, "zPING\x00")
	if err != nil {
		return err
	}
	defer conn.Close()
	b, err := c.reply(conn)
	if err == nil && string(b) != "PONG\x00" {
		err = away(nil, "answers in another way than clamd does")
	}
	return err
}

// Scan gives a file to the daemon and says what it found, "" for nothing.
func (c *Clamd) Scan(ctx context.Context, content io.Reader) (found string, err error) {
	if err := c.resting(time.Now()); err != nil {
		return "", err
	}
	conn, err := c.dial(ctx, "zINSTREAM\x00")
	if err != nil {
		return "", c.leave(time.Now(), err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	fault, broken := c.send(conn, content)
	if fault != nil {
		return "", fault
	}
	// A daemon that has enough says why and hangs up: its word comes before the
	// error of writing to it.
	b, err := c.reply(conn)
	if err != nil && ctx.Err() == nil {
		return "", c.leave(time.Now(), errors.Join(err, broken))
	}
	if err != nil {
		return "", err
	}
	found, err = parseReply(b)
	if err == nil && found == "" && broken != nil {
		err = away(broken, "did not take the whole file")
	}
	return found, err
}

func (c *Clamd) dial(ctx context.Context, command string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: c.timeout}).DialContext(ctx, c.network, c.address)
	if err != nil {
		return nil, away(err, "does not answer")
	}
	_ = conn.SetDeadline(time.Now().Add(c.timeout))
	if _, err := io.WriteString(conn, command); err != nil {
		_ = conn.Close()
		return nil, away(err, "does not answer")
	}
	return conn, nil
}

// send writes the file in chunks. fault is trouble with the file, broken trouble
// with the daemon.
func (c *Clamd) send(conn net.Conn, content io.Reader) (fault, broken error) {
	b := make([]byte, 4+clamdChunk)
	for {
		n, err := io.ReadFull(content, b[4:])
		if n > 0 {
			binary.BigEndian.PutUint32(b, uint32(n))
			_ = conn.SetDeadline(time.Now().Add(c.timeout))
			if _, broken := conn.Write(b[:4+n]); broken != nil {
				return nil, broken
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			_, broken = conn.Write(make([]byte, 4)) // a chunk of nothing is the end
			return nil, broken
		}
		if err != nil {
			return err, nil
		}
	}
}

func (c *Clamd) reply(conn net.Conn) ([]byte, error) {
	_ = conn.SetDeadline(time.Now().Add(c.timeout))
	var all []byte
	b := make([]byte, clamdReply)
	for {
		n, err := conn.Read(b[len(all):])
		if all = b[:len(all)+n]; bytes.IndexByte(all, 0) >= 0 {
			return all, nil
		}
		if len(all) == len(b) {
			return nil, away(nil, "gives an answer without end")
		}
		if err != nil {
			return nil, away(err, "gave no answer")
		}
	}
}

// parseReply reads the one line that answers INSTREAM: "stream: OK", "stream:
// NAME FOUND", or why there is no result. Anything else is no result either.
func parseReply(b []byte) (found string, err error) {
	line, ok := bytes.CutSuffix(b, []byte{0})
	if !ok || bytes.ContainsAny(line, "\x00\r\n") {
		return "", away(nil, "gives an answer that is not understood")
	}
	if bytes.HasPrefix(line, []byte("INSTREAM size limit exceeded")) {
		return "", away(nil, "does not take files of this size: raise StreamMaxLength, MaxScanSize and MaxFileSize in clamd.conf")
	}
	text, ok := bytes.CutPrefix(line, []byte("stream: "))
	switch name, bad := bytes.CutSuffix(text, []byte(" FOUND")); {
	case !ok:
	case string(text) == "OK":
		return "", nil
	case bad && len(name) > 0:
		return printable(name), nil
	}
	return "", away(nil, "gives no result")
}

// printable bounds a name that comes from outside: it goes into a receipt.
func printable(b []byte) string {
	b = bytes.Clone(b[:min(len(b), clamdName)])
	for i, c := range b {
		if c <= ' ' || c > '~' {
			b[i] = '_'
		}
	}
	return string(b)
}
