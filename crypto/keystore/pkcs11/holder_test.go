//go:build cgo

package pkcs11

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// signing is a node's key in a fake HSM.
type signing struct {
	*testing.T
	hsm *fakeHSM
	c   *native
	id  sm.Digest
}

func newSigning(t *testing.T, hsm *fakeHSM) signing {
	t.Helper()
	c, err := openNative(nativeConfig, hsm.n, hsm.load)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := c.Generate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return signing{t, hsm, c, sm.KeyID(pub)}
}

func (s signing) sign() error {
	_, err := s.c.Sign(nil, s.id, []byte("m"))
	return err
}

func (s signing) wantLoss(when string, err error) {
	s.Helper()
	if !errors.Is(err, keystore.ErrUnavailable) {
		s.Errorf("%s: %v", when, err)
	}
}

// released closes and sees that every login was let go.
func (s signing) released() {
	s.Helper()
	if err := s.c.Close(); err != nil {
		s.Error(err)
	}
	eventually(s.T, func() error {
		s.hsm.mu.Lock()
		defer s.hsm.mu.Unlock()
		if s.hsm.loads != s.hsm.releases {
			return keystore.ErrUnavailable
		}
		return nil
	})
}

// TestMoreCallersThanSessions: a token without a free session is at work, and
// not lost.
func TestMoreCallersThanSessions(t *testing.T) {
	for name, tells := range map[string]bool{"the token tells": true, "the token does not": false} {
		t.Run(name, func(t *testing.T) {
			hsm := newFakeHSM(Profiles["tass"])
			hsm.most, hsm.tells = 4, tells
			s := newSigning(t, hsm)
			var wait sync.WaitGroup
			for range 12 {
				wait.Go(func() {
					for range 50 {
						if err := s.sign(); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wait.Wait()
			if hsm.loads != 1 || tells && hsm.full > 0 {
				t.Errorf("logged in %d times, met the bound %d times", hsm.loads, hsm.full)
			}
			s.released()
		})
	}
}

// TestSixteenSideBySide: as many operations are in the module at once, and no
// more sessions than that are opened.
func TestSixteenSideBySide(t *testing.T) {
	hsm := newFakeHSM(Profiles["tass"])
	s := newSigning(t, hsm)
	gate := make(chan struct{})
	hsm.set(func() { hsm.hang = gate })
	var wait sync.WaitGroup
	for range 3 * maxSessions {
		wait.Go(func() {
			if err := s.sign(); err != nil {
				t.Error(err)
			}
		})
	}
	opened := func() (n int) {
		hsm.set(func() { n = len(hsm.sessions) })
		return n
	}
	for opened() < maxSessions+1 {
		time.Sleep(time.Millisecond)
	}
	close(gate)
	wait.Wait()
	if n := opened(); n != maxSessions+1 {
		t.Errorf("%d sessions", n)
	}
	s.released()
}

// TestOthersHaveTheSessions: other programs may have them all, for a while;
// the login stays, and goes on when there is a session again.
func TestOthersHaveTheSessions(t *testing.T) {
	hsm := newFakeHSM(Profiles["tass"])
	s := newSigning(t, hsm)
	hsm.set(func() {
		hsm.most = len(hsm.sessions)
		for h := range hsm.sessions { // the one that is idle
			if h != s.c.login.current.login.first {
				delete(hsm.sessions, h)
			}
		}
		hsm.most = 1
	})
	<-s.c.login.current.login.idle
	s.c.login.current.login.places <- struct{}{}
	s.c.login.patience = 50 * time.Millisecond
	s.wantLoss("without a session", s.sign())
	hsm.set(func() { hsm.most = 0 })
	s.c.login.patience = patience
	if err := s.sign(); err != nil || hsm.loads != 1 {
		t.Errorf("with sessions again, after %d logins: %v", hsm.loads, err)
	}
	s.released()
}

// TestHangingOperation: whoever made the call gets an answer, everybody else
// goes on with a new login, and what hung is let go when it returns.
func TestHangingOperation(t *testing.T) {
	hsm := newFakeHSM(Profiles["tass"])
	s := newSigning(t, hsm)
	s.c.login.patience = 100 * time.Millisecond
	gate := make(chan struct{})
	hsm.set(func() { hsm.hang = gate })
	var wait sync.WaitGroup
	for range 2 * maxSessions {
		wait.Go(func() { s.wantLoss("hanging", s.sign()) })
	}
	wait.Wait()
	hsm.set(func() { hsm.hang = nil })
	eventually(t, s.sign)
	if s.c.login.hung == 0 || hsm.releases != 0 {
		t.Errorf("%d calls hang, %d logins were released under them", s.c.login.hung, hsm.releases)
	}
	close(gate)
	s.released()
}

// TestHangingCallsAreBounded: a module that hangs again and again does not get
// a thread for each try.
func TestHangingCallsAreBounded(t *testing.T) {
	hsm := newFakeHSM(Profiles["tass"])
	s := newSigning(t, hsm)
	s.c.login.patience = 10 * time.Millisecond
	gate := make(chan struct{})
	hsm.set(func() { hsm.hang = gate })
	for range 100 {
		var wait sync.WaitGroup
		for range 2 * maxSessions {
			wait.Go(func() { s.wantLoss("hanging", s.sign()) })
		}
		wait.Wait()
		s.c.login.mu.Lock()
		s.c.login.tried = time.Time{}
		s.c.login.mu.Unlock()
	}
	s.c.login.mu.Lock()
	n := s.c.login.hung
	s.c.login.mu.Unlock()
	if n < maxHung || n >= maxHung+maxSessions {
		t.Errorf("%d calls hang", n)
	}
	hsm.set(func() { hsm.hang = nil })
	close(gate)
	s.c.login.patience = patience
	eventually(t, s.sign)
	s.released()
}

// TestHangingLogin: one waits for it, for a bounded time, and the others have
// their answer at once; so has a close.
func TestHangingLogin(t *testing.T) {
	hsm := newFakeHSM(Profiles["tass"])
	s := newSigning(t, hsm)
	hsm.setDown(true)
	s.wantLoss("lost", s.sign())
	gate := make(chan struct{})
	hsm.set(func() { hsm.hangLoad = gate })
	hsm.setDown(false)
	s.c.login.mu.Lock()
	s.c.login.tried, s.c.login.patience = time.Time{}, 50*time.Millisecond
	s.c.login.mu.Unlock()
	s.wantLoss("logging in", s.sign())
	s.c.login.mu.Lock()
	s.c.login.tried, s.c.login.patience = time.Time{}, time.Hour
	s.c.login.mu.Unlock()
	for range 100 {
		s.wantLoss("while another logs in", s.sign())
	}
	hsm.set(func() { hsm.hangLoad = nil })
	close(gate)
	eventually(t, s.sign)
	s.released()
}

// TestHangingStart: opening has its end, too, and a login that comes after it
// is let go.
func TestHangingStart(t *testing.T) {
	gate := make(chan struct{})
	var released atomic.Int32
	_, err := hold(&holder[int]{
		patience: 20 * time.Millisecond,
		logIn:    func() (int, error) { <-gate; return 1, nil },
		release:  func(int) error { released.Add(1); return nil },
	})
	if !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	close(gate)
	eventually(t, func() error {
		if released.Load() != 1 {
			return keystore.ErrUnavailable
		}
		return nil
	})
}

// TestHangingClose: a node stops although its module does not answer.
func TestHangingClose(t *testing.T) {
	hsm := newFakeHSM(Profiles["tass"])
	s := newSigning(t, hsm)
	s.c.login.patience = 100 * time.Millisecond
	gate := make(chan struct{})
	hsm.set(func() { hsm.hang = gate })
	answer := make(chan error)
	go func() { answer <- s.sign() }()
	for inside := false; !inside; time.Sleep(time.Millisecond) {
		s.c.login.mu.Lock()
		inside = s.c.login.current == nil || s.c.login.current.users > 0
		s.c.login.mu.Unlock()
	}
	s.wantLoss("close", s.c.Close())
	close(gate)
	<-answer
	s.released()
}

// faulty is a cipher in a module that answers as the test says.
type faulty struct {
	panicking
	answer func() error
}

func (f faulty) Seal(_, _, _, _ []byte) []byte          { panic(f.answer()) }
func (f faulty) Open(_, _, _, _ []byte) ([]byte, error) { return nil, f.answer() }

// TestGuardWithoutASession: the same of mode wrapped. Above all the bytes are
// not called damaged for it.
func TestGuardWithoutASession(t *testing.T) {
	c := token(t)
	if err := GenerateKey(c); err != nil {
		t.Fatal(err)
	}
	g := opened(t, c)
	sealed, err := g.Wrap("name", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	login := g.login.current
	good, times := login.login.aead, 0
	login.login.aead = faulty{answer: func() error {
		if times++; times%3 == 0 {
			login.login.aead = good
		}
		return p11.Error(p11.CKR_SESSION_COUNT)
	}}
	bad := login.login.aead
	if back, err := g.Unwrap("name", sealed); err != nil || string(back) != "secret" {
		t.Errorf("unwrap: %q, %v", back, err)
	}
	login.login.aead = bad
	again, err := g.Wrap("name", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if back, err := g.Unwrap("name", again); err != nil || string(back) != "secret" {
		t.Errorf("what was wrapped at the third try: %q, %v", back, err)
	}
	if g.login.current != login || times != 6 {
		t.Errorf("%d tries, or another login", times)
	}
}

// TestGuardHangs: the call has its end, and the others a new login.
func TestGuardHangs(t *testing.T) {
	c := token(t)
	if err := GenerateKey(c); err != nil {
		t.Fatal(err)
	}
	g := opened(t, c)
	sealed, err := g.Wrap("name", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{})
	g.login.current.login.aead = faulty{answer: func() error { <-gate; return errors.New("late") }}
	g.login.patience = 50 * time.Millisecond
	if _, err := g.Unwrap("name", sealed); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("hanging: %v", err)
	}
	g.login.patience = patience
	eventually(t, func() error { _, err := g.Unwrap("name", sealed); return err })
	close(gate)
	eventually(t, func() error {
		g.login.mu.Lock()
		defer g.login.mu.Unlock()
		if g.login.hung > 0 {
			return keystore.ErrUnavailable
		}
		return nil
	})
	if back, err := g.Unwrap("name", sealed); err != nil || string(back) != "secret" {
		t.Errorf("after the old login was let go: %q, %v", back, err)
	}
}
