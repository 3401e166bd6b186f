//go:build cgo

package pkcs11

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
)

const (
	// retryAfter: at most so often a lost module is logged in to again.
	retryAfter = time.Second
	// patience is how long anybody waits for the module: for a session, for an
	// operation, for a login. A hundred times what the slowest token needs to
	// make a key pair, and no longer than clients wait for an answer.
	patience = 30 * time.Second
	// maxHung calls that never returned, each of which holds a thread, are
	// enough to give up new logins until some return.
	maxHung = 4 * maxSessions
)

var (
	errHung   = errors.New("it has not answered for too long")
	errClosed = fmt.Errorf("%w: it was closed", ErrModule)
)

// holder keeps one login to a module, throws it away when the module fails and
// gets a new one. Calls into a module cannot be interrupted, so each runs in a
// goroutine of its own and its caller waits for a bounded time; the lock is
// never held while the module is at work. A call that never returns costs its
// goroutine, its session and, when a new login works, the memory of the old.
type holder[L any] struct {
	logIn    func() (L, error)
	release  func(L) error
	lost     func(error) bool // whether an error of a call costs the login
	patience time.Duration

	mu      sync.Mutex
	current *held[L] // nil while the module is lost
	leaving *held[L] // thrown away last, and not yet released
	logging bool     // somebody is at it
	hung    int      // calls that nobody waits for any more
	tried   time.Time
	// refused: the token did not take the PIN. It is not offered again.
	refused bool
	closed  bool
}

// held is one login. Whoever is done last with one that was thrown away
// releases it: a module must not be let go under an operation.
type held[L any] struct {
	login    L
	users    int           // under the holder's lock, like released
	gone     chan struct{} // closed when it is thrown away
	since    time.Time     // when that was
	released bool
	done     chan struct{} // closed when it is released
	err      error         // of that, to be read after done
}

// hold logs in for the first time; the errors are those of logIn.
func hold[L any](h *holder[L]) (*holder[L], error) {
	if h.patience == 0 {
		h.patience = patience
	}
	h.logging, h.tried = true, time.Now()
	if err := within(h.patience, h.renew); err != nil {
		_ = h.close() // should the login come later
		return nil, err
	}
	return h, nil
}

// within runs fn and waits for it, at most limit: then fn is left alone and
// the answer is errHung, which is ErrModule.
func within(limit time.Duration, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("%w: %w", ErrModule, errHung)
	}
}

// renew logs in; only one does at a time.
func (h *holder[L]) renew() error {
	login, err := h.logIn()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.logging = false
	if err != nil {
		h.refused = errors.Is(err, ErrPIN)
		return err
	}
	l := &held[L]{login: login, gone: make(chan struct{}), done: make(chan struct{})}
	if h.closed { // nobody waited for it
		l.released = true
		go h.finish(l)
		return errClosed
	}
	h.current = l
	return nil
}

// enter gives the login, to be given back with leave. While there is none one
// caller logs in again and the others get ErrModule at once.
func (h *holder[L]) enter() (*held[L], error) {
	for {
		h.mu.Lock()
		l, err := h.current, error(nil)
		switch {
		case l != nil:
			l.users++
		case h.closed:
			err = errClosed
		case h.logging || time.Since(h.tried) < retryAfter:
			err = ErrModule
		case h.hung >= maxHung:
			err = ErrModule
		// To begin anew the module must first be let go; but not for ever, when
		// an operation hangs.
		case h.leaving != nil && time.Since(h.leaving.since) < h.patience:
			err = ErrModule
		case h.refused:
			err = lostError(ErrPIN)
		default:
			h.logging, h.tried = true, time.Now()
		}
		h.mu.Unlock()
		if l != nil || err != nil {
			return l, err
		}
		if err := within(h.patience, h.renew); err != nil {
			return nil, lostError(err)
		}
	}
}

// lostError is what a running node makes of a failed login: nothing but a loss
// that may pass. A token may come back first without its key, and then with it.
func lostError(err error) error {
	if errors.Is(err, keystore.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrModule, err)
}

// leave gives a login back, drop says that it has failed.
func (h *holder[L]) leave(l *held[L], drop bool) {
	h.mu.Lock()
	l.users--
	if drop {
		h.throwAway(l)
	}
	last := l.users == 0 && h.current != l && !l.released
	l.released = l.released || last
	h.mu.Unlock()
	if last {
		h.finish(l)
	}
}

// throwAway makes everybody else log in anew. The lock is held.
func (h *holder[L]) throwAway(l *held[L]) {
	if h.current == l {
		h.current, h.leaving = nil, l
		l.since = time.Now()
		close(l.gone)
	}
}

func (h *holder[L]) finish(l *held[L]) {
	l.err = h.release(l.login)
	close(l.done)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leaving == l {
		h.leaving = nil
	}
}

// call runs fn with a login that was entered, and leaves it when fn is done.
func call[L, T any](h *holder[L], l *held[L], fn func(L) (T, error)) (T, error) {
	var out T
	result := make(chan T, 1) // not a variable: fn may still be at it when nobody waits any more
	over := make(chan struct{})
	err := within(h.patience, func() error {
		defer close(over)
		got, err := fn(l.login)
		result <- got
		h.leave(l, err != nil && h.lost(err))
		return err
	})
	if errors.Is(err, errHung) {
		h.abandon(l, over)
		return out, err
	}
	return <-result, err
}

// abandon throws away a login of which a call hangs, until that is over. The
// others need not wait for it: it had its time.
func (h *holder[L]) abandon(l *held[L], over <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hung++
	l.users++
	h.throwAway(l)
	l.since = time.Time{}
	go func() {
		<-over
		h.mu.Lock()
		h.hung--
		h.mu.Unlock()
		h.leave(l, false)
	}()
}

// close lets the module go when those who use it are done; it does not wait
// longer than anybody does.
func (h *holder[L]) close() error {
	h.mu.Lock()
	h.closed = true
	l := h.leaving
	if h.current != nil {
		l = h.current
		l.users++
		h.throwAway(l)
		go h.leave(l, false)
	}
	h.mu.Unlock()
	if l == nil {
		return nil
	}
	return within(h.patience, func() error { <-l.done; return l.err })
}
