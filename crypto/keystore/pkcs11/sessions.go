//go:build cgo

package pkcs11

import (
	"errors"
	"fmt"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// maxSessions bounds the sessions in use, and with them the operations side by
// side: enough to hide a network's latency, and few beside what modules have.
const maxSessions = 16

// sessionsOf reads a bound that a token gives, which counts those of all
// programs; many tokens say nothing, or that there is none.
func sessionsOf(most uint) int {
	if most == pkcs11.CK_UNAVAILABLE_INFORMATION || most == pkcs11.CK_EFFECTIVELY_INFINITE || most > maxSessions {
		return maxSessions
	}
	return max(1, int(most)-1)
}

func useKey[T any](k *native, id sm.Digest, fn func(*login, pkcs11.SessionHandle, pkcs11.ObjectHandle) (T, error)) (T, error) {
	return useLogin(k, func(l *login, s pkcs11.SessionHandle) (out T, err error) {
		l.mu.RLock()
		key, ok := l.keys[id]
		l.mu.RUnlock()
		if !ok {
			return out, fmt.Errorf("%w: %s", keystore.ErrNoKey, id)
		}
		return fn(l, s, key)
	})
}

// useLogin runs fn in a session of its own. When the module fails the login is
// thrown away, and everybody gets ErrModule until a new one works. A token
// without a free session is waited for.
func useLogin[T any](k *native, fn func(*login, pkcs11.SessionHandle) (T, error)) (out T, err error) {
	enough := time.NewTimer(k.login.patience)
	defer enough.Stop()
	for {
		l, err := k.login.enter()
		if err != nil {
			return out, err
		}
		s, open, err := l.login.take(l.gone, enough.C)
		if err != nil {
			k.login.leave(l, false)
			return out, err
		}
		out, err = call(k.login, l, func(l *login) (T, error) { return run(l, s, open, fn) })
		switch {
		case err == nil || errors.Is(err, keystore.ErrNoKey):
			return out, err
		case isNumbers(err):
			return out, fmt.Errorf("%w: %w", ErrNumbers, err)
		case !isFull(err):
			return out, fmt.Errorf("%w: %w", ErrModule, err)
		}
	}
}

// take gives an idle session, or else the place to open one. It waits while
// all are in use: until the login is gone, or it was enough.
func (l *login) take(gone <-chan struct{}, enough <-chan time.Time) (s pkcs11.SessionHandle, open bool, err error) {
	select {
	case s = <-l.idle:
		return s, false, nil
	default:
	}
	select {
	case s = <-l.idle:
		return s, false, nil
	case <-l.places:
		return 0, true, nil
	case <-gone:
		return 0, false, ErrModule
	case <-enough:
		return 0, false, fmt.Errorf("%w: all its sessions are in use", ErrModule)
	}
}

// run gives back the session, or its place after a failure. A place that the
// token had no session for is held back for a while: other programs may have
// taken them, and give them back.
func run[T any](l *login, s pkcs11.SessionHandle, open bool, fn func(*login, pkcs11.SessionHandle) (T, error)) (out T, err error) {
	if open {
		if s, err = l.session(); err != nil {
			pause := time.Duration(0)
			if isFull(err) {
				pause = retryAfter
			}
			time.AfterFunc(pause, func() { l.places <- struct{}{} })
			return out, err
		}
	}
	if out, err = fn(l, s); err == nil {
		l.idle <- s
		return out, nil
	}
	err = errors.Join(err, l.m.CloseSession(s))
	l.places <- struct{}{}
	return out, err
}

// isFull says whether the token has no more sessions to give: it is at work,
// and not lost.
func isFull(err error) bool { return errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_COUNT)) }
