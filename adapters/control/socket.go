package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// SocketName is the socket's name in a data directory.
const SocketName = "control.sock"

// A socket's address holds 107 bytes and data directories may lie deeper, so
// the directory is opened and the socket named below its descriptor.
func below(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

// listener removes its name when it closes. Closing it again does nothing.
type listener struct {
	net.Listener
	close func() error
}

func (l *listener) Close() error { return l.close() }

// Listen makes the socket of a data directory. The caller holds the directory's
// serve lock, so that a socket found there is of a process that is gone.
//
// The socket is made under another name and renamed when its mode is right: at
// no moment may others connect, and a name that was left behind is replaced in
// one step. A crash in between leaves the other name, which the next start
// removes.
func Listen(dataDir string) (net.Listener, error) {
	path := filepath.Join(dataDir, SocketName)
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, exchange.Fail(exchange.CodeSetupConflict, "%s is not a socket; move it away", path)
	}
	dir, err := os.Open(dataDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fresh := SocketName + ".new"
	if err := os.Remove(filepath.Join(dataDir, fresh)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: below(dir, fresh)})
	if err != nil {
		return nil, fmt.Errorf("control socket in %s: %w", dataDir, err)
	}
	l.SetUnlinkOnClose(false) // its name will be another one
	err = os.Chmod(filepath.Join(dataDir, fresh), 0o600)
	if err == nil {
		err = os.Rename(filepath.Join(dataDir, fresh), path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &listener{l, sync.OnceValue(func() error { return errors.Join(os.Remove(path), l.Close()) })}, nil
}

// ErrNotRunning says that no process listens on a data directory's socket.
var ErrNotRunning = errors.New("control: no node is running here")

// dial connects to the socket of a data directory.
func dial(ctx context.Context, dataDir string) (net.Conn, error) {
	dir, err := os.Open(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", below(dir, SocketName))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNotRunning
	case errors.Is(err, fs.ErrPermission):
		return nil, exchange.Fail(exchange.CodeForbidden, "the socket of %s belongs to another user; run this as the node's user or as root", dataDir)
	}
	return c, err
}

// allowed says whether the process at the other end is of this user or root.
func allowed(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	var peer *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	return err == nil && failed == nil && mayAsk(peer.Uid, os.Geteuid())
}

func mayAsk(peer uint32, self int) bool { return peer == 0 || int(peer) == self }
