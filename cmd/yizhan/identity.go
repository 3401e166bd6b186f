package main

import (
	"encoding/hex"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// holdIdentity lets one process of this machine be a node. The serve lock is of
// a directory, and a copy of the directory has another one: two processes would
// sign two histories of one ledger. What is held is a name in the kernel that
// ends with the process; it is made of the node's TLS key, which a copy shares
// and two nodes do not. On two machines it is the neighbours who notice.
func holdIdentity(tlsKey []byte, node string, patience time.Duration) (release func() error, err error) {
	print := sm.Sum([]byte("yizhan node\x00"), tlsKey)
	name := "@yizhan/" + hex.EncodeToString(print[:])
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		l, err := net.Listen("unix", name)
		switch {
		case err == nil:
			return l.Close, nil
		case !errors.Is(err, syscall.EADDRINUSE):
			return nil, err
		case !time.Now().Before(end):
			busy := exchange.Fail(exchange.CodeSetupConflict, "another process on this machine is node %s, from another data directory; a copy is never started beside its original", node)
			busy.Temporary = true
			return nil, busy
		}
	}
}
