package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// Files that a process holds while it works in a data directory. The system
// lets go of them when the process ends, however it does.
const (
	setupLock = "setup.lock" // while the setup is changed: all but what is in the store
	serveLock = "serve.lock" // while the node serves
)

// setupPatience is how long a change waits for another one, which takes
// moments. Nobody asks an HSM of a running node while holding the lock.
const setupPatience = 5 * time.Second

// servePatience is how long a starting node waits for a command that looks at
// it while it is stopped, such as yizhan queue ls; that takes moments.
const servePatience = 3 * time.Second

// changing makes a change to the setup while no other process makes one. Two at
// once would each write a part of it.
func (d dataDir) changing(change func() error) (err error) {
	release, err := d.hold(setupLock, setupPatience, "another command, or the running node, is changing the setup in %s")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	return change()
}

// checkOwner refuses to open a data directory as another user than the node's, root
// included: the store and the blobs make files that the node could not write
// afterwards.
func (d dataDir) checkOwner() error {
	info, err := os.Stat(string(d))
	if err != nil {
		return err
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
		return exchange.Fail(exchange.CodeWrongUser, "%s belongs to user %d, this runs as %d", d, s.Uid, os.Geteuid())
	}
	return nil
}

// hold takes a lock of the data directory, or says whose it is.
func (d dataDir) hold(name string, patience time.Duration, taken string) (release func() error, err error) {
	f, err := os.OpenFile(d.path(name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return f.Close, nil
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("%s: %w", f.Name(), err), f.Close())
		case !time.Now().Before(end):
			busy := exchange.Fail(exchange.CodeSetupConflict, taken, string(d))
			busy.Temporary = true
			return nil, errors.Join(busy, f.Close())
		}
	}
}
