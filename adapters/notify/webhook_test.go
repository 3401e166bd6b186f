package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

const agency = "91350100M000100Y43"

// sequence is a source in memory.
type sequence struct {
	mu      sync.Mutex
	events  []Event
	changed chan struct{}
}

func newSequence() *sequence { return &sequence{changed: make(chan struct{})} }

func (s *sequence) add(n int, kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		at := place(len(s.events) + 1)
		s.events = append(s.events, Event{At: at, Type: kind, Time: start, Document: "01M00000000000000000000" + at[2:]})
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// place is a position: L-0001 is the first event's.
func place(n int) string { return fmt.Sprintf("L-%04d", n) }

func (s *sequence) index(at string) (n int) {
	_, _ = fmt.Sscanf(at, "L-%d", &n)
	return n
}

func (s *sequence) Events(_ context.Context, of, after string, limit int) ([]Event, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := s.index(after)
	if of != agency || from >= len(s.events) {
		return nil, after, nil
	}
	list := s.events[from:][:min(limit, len(s.events)-from)]
	return append([]Event{}, list...), list[len(list)-1].At, nil
}

func (s *sequence) Event(_ context.Context, _, at string) (*Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.events[s.index(at)-1]
	return &e, nil
}

func (s *sequence) Newest(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return place(len(s.events)), nil
}

func (s *sequence) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// receiver is an agency's system. It checks signatures with code of its own.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	secret   string
	answer   func(w http.ResponseWriter, n int) // nil: 204
	calls    int
	taken    map[string]int // by webhook-id, what was answered 2xx
	unsigned int
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{taken: map[string]int{}}
	r.Server = httptest.NewTLSServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if err != nil || !r.signed(q.Header, body) {
		r.unsigned++
	}
	code := &recorder{ResponseWriter: w, code: http.StatusNoContent}
	if r.answer == nil {
		code.WriteHeader(http.StatusNoContent)
	} else {
		r.answer(code, r.calls)
	}
	if code.code < 300 {
		r.taken[q.Header.Get("webhook-id")]++
	}
}

type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *receiver) signed(h http.Header, body []byte) bool {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.secret, "whsec_"))
	if err != nil || len(key) != 32 {
		return false
	}
	for _, one := range strings.Fields(h.Get("webhook-signature")) {
		version, value, _ := strings.Cut(one, ",")
		hashes := map[string]func() hash.Hash{"v1": sha256.New, "v1sm3": sm.New}
		if hashes[version] == nil {
			return false
		}
		mac := hmac.New(hashes[version], key)
		fmt.Fprintf(mac, "%s.%s.%s", h.Get("webhook-id"), h.Get("webhook-timestamp"), body)
		if got, err := base64.StdEncoding.DecodeString(value); err == nil && hmac.Equal(got, mac.Sum(nil)) {
			return true
		}
	}
	return false
}

// plainSealer marks what it sealed; that secrets are encrypted is the keystore's test.
type plainSealer struct{}

func (plainSealer) SealRow(row, plain []byte) ([]byte, error) {
	mask := sm.Sum(row)
	out := append([]byte{}, plain...)
	for i := range out {
		out[i] ^= mask[i%len(mask)]
	}
	return append(out, mask[:4]...), nil
}

func (s plainSealer) OpenRow(row, sealed []byte) ([]byte, error) {
	mask := sm.Sum(row)
	body, tag := sealed[:max(0, len(sealed)-4)], sealed[max(0, len(sealed)-4):]
	if !bytes.Equal(tag, mask[:4]) {
		return nil, errors.New("does not open")
	}
	out, err := s.SealRow(row, body)
	return out[:len(body)], err
}

var start = time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)

type scene struct {
	*sequence
	*receiver
	b   *Book
	now time.Time
	dir string
	id  string
}

func newScene(t *testing.T, algorithm string) *scene {
	t.Helper()
	s := &scene{sequence: newSequence(), receiver: newReceiver(t), now: start, dir: t.TempDir()}
	s.reopen(t)
	h, secret, err := s.b.Create(t.Context(), agency, s.URL, nil, algorithm)
	if err != nil {
		t.Fatal(err)
	}
	s.id, s.secret = h.ID, secret
	return s
}

func (s *scene) reopen(t *testing.T) {
	t.Helper()
	roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	b, err := Open(Config{
		Dir: s.dir, Source: s.sequence, Sealer: plainSealer{}, Now: func() time.Time { return s.now },
		Outbound: NewOutbound([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, roots, false),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.b = b
}

// rounds works for a while of the book's clock, as the worker would.
func (s *scene) rounds(t *testing.T, during time.Duration) {
	t.Helper()
	for end := s.now.Add(during); ; {
		wait, err := s.b.round(t.Context(), s.id)
		if err != nil {
			t.Fatal(err)
		}
		if s.now = s.now.Add(wait); s.now.After(end) {
			s.now = end
			return
		}
	}
}

func (s *scene) hook(t *testing.T) Hook {
	t.Helper()
	h, err := s.b.Get(agency, s.id)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestEachEventIsSignedAndTakenOnce(t *testing.T) {
	for _, algorithm := range []string{SHA256, SM3} {
		t.Run(algorithm, func(t *testing.T) {
			s := newScene(t, algorithm)
			s.add(150, TypeReceived)
			s.rounds(t, time.Minute)
			if len(s.taken) != 150 || s.calls != 150 || s.unsigned != 0 {
				t.Fatalf("%d taken by %d calls, %d not signed", len(s.taken), s.calls, s.unsigned)
			}
			s.reopen(t)
			s.rounds(t, time.Minute)
			if s.calls != 150 {
				t.Fatalf("%d calls after a restart", s.calls)
			}
		})
	}
}

// What is not saved is repeated under the same id, and nothing is left out.
func TestACrashRepeatsUnderTheSameID(t *testing.T) {
	s := newScene(t, SHA256)
	s.add(3, TypeReceived)
	before, err := os.ReadFile(s.b.file(s.id))
	if err != nil {
		t.Fatal(err)
	}
	s.rounds(t, time.Minute)
	if err := os.WriteFile(s.b.file(s.id), before, 0o600); err != nil {
		t.Fatal(err)
	}
	s.reopen(t)
	s.rounds(t, time.Minute)
	if len(s.taken) != 3 || s.calls != 6 {
		t.Fatalf("%v", s.taken)
	}
}

// A receiver that is away for hours gets everything when it is back, and few calls
// meanwhile.
func TestAReceiverThatIsAway(t *testing.T) {
	s := newScene(t, SHA256)
	s.answer = func(w http.ResponseWriter, _ int) { w.WriteHeader(http.StatusBadGateway) }
	s.add(100, TypeReceived)
	s.rounds(t, 8*time.Hour)
	if s.calls > 150 {
		t.Errorf("%d calls while it was away", s.calls)
	}
	s.answer = nil
	s.rounds(t, 48*time.Hour)
	if len(s.taken) != 100 || s.unsigned != 0 {
		t.Fatalf("%d of 100 taken", len(s.taken))
	}
	if h := s.hook(t); len(h.Kept) != 0 || h.Failures != 0 || h.Disabled != "" {
		t.Fatalf("%+v", h.Kept)
	}
}

// One event that the receiver never takes holds up no other, and is given up.
func TestAnEventThatIsNeverTaken(t *testing.T) {
	s := newScene(t, SHA256)
	bad := ""
	s.add(20, TypeReceived)
	bad = message(s.id, place(7))
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("webhook-id") == bad {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		s.receiver.ServeHTTP(w, q)
	})
	s.rounds(t, time.Second)
	if len(s.taken) != 19 {
		t.Fatalf("%d others taken at once", len(s.taken))
	}
	for range 40 { // something else is always taken, so the hook stays enabled
		s.add(1, TypeReceived)
		s.rounds(t, 4*time.Hour)
	}
	h := s.hook(t)
	if len(h.Kept) != 0 || h.Disabled != "" {
		t.Fatalf("%v %q", h.Kept, h.Disabled)
	}
	gave := 0
	for _, d := range h.Log {
		if d.GaveUp {
			gave++
		}
	}
	if gave != 1 {
		t.Fatalf("given up %d times", gave)
	}
	bad = ""
	d, err := s.b.Resend(t.Context(), agency, s.id, message(s.id, place(7)))
	if err != nil || d.Status != http.StatusNoContent {
		t.Fatalf("%+v %v", d, err)
	}
}

func TestGoneDisables(t *testing.T) {
	s := newScene(t, SHA256)
	s.answer = func(w http.ResponseWriter, n int) { w.WriteHeader(http.StatusGone) }
	s.add(5, TypeReceived)
	s.rounds(t, 24*time.Hour)
	if h := s.hook(t); h.Disabled != DisabledGone || s.calls > roundAtOnce+1 && s.calls > 5 {
		t.Fatalf("%q after %d calls", h.Disabled, s.calls)
	}
	s.answer = nil
	s.add(2, TypeStage)
	if err := s.b.Enable(agency, s.id); err != nil {
		t.Fatal(err)
	}
	s.rounds(t, time.Minute)
	if len(s.taken) != 7 {
		t.Fatalf("%d of 7 taken", len(s.taken))
	}
}

// A receiver that is away over a long holiday gets everything when it is back.
func TestAReceiverThatIsAwayForAWeek(t *testing.T) {
	s := newScene(t, SHA256)
	s.answer = func(w http.ResponseWriter, _ int) { w.WriteHeader(http.StatusInternalServerError) }
	s.add(70, TypeReceived)
	s.rounds(t, 9*24*time.Hour)
	s.add(30, TypeReceived)
	s.answer = nil
	s.rounds(t, 25*time.Hour)
	if h := s.hook(t); len(s.taken) != 100 || h.Disabled != "" || len(h.Kept) != 0 {
		t.Fatalf("%d of 100 taken, %+v", len(s.taken), h.Kept)
	}
}

func TestRetryAfterIsHeeded(t *testing.T) {
	s := newScene(t, SHA256)
	s.answer = func(w http.ResponseWriter, n int) {
		if n == 1 {
			w.Header().Set("Retry-After", "600")
			w.WriteHeader(http.StatusTooManyRequests)
		} else {
			w.WriteHeader(http.StatusOK)
		}
	}
	s.add(1, TypeReceived)
	s.rounds(t, 9*time.Minute)
	if s.calls != 1 {
		t.Fatalf("%d calls within the time", s.calls)
	}
	s.rounds(t, 2*time.Minute)
	if len(s.taken) != 1 {
		t.Fatal("not repeated")
	}
}

func TestOldAndNewSecretForADay(t *testing.T) {
	s := newScene(t, SHA256)
	old := s.secret
	secret, err := s.b.Rotate(agency, s.id)
	if err != nil || secret == old {
		t.Fatal(err)
	}
	s.add(1, TypeReceived)
	s.rounds(t, time.Minute) // the receiver still has the old one
	s.secret = secret
	s.add(1, TypeReceived)
	s.rounds(t, time.Minute)
	if s.unsigned != 0 || len(s.taken) != 2 {
		t.Fatalf("%d unsigned", s.unsigned)
	}
	s.now, s.secret = s.now.Add(oldSecret), old
	s.add(1, TypeReceived)
	s.rounds(t, time.Minute)
	if s.unsigned != 1 {
		t.Fatal("the old secret still signs")
	}
}

func TestOnlyTheTypesAskedFor(t *testing.T) {
	s := newScene(t, SHA256)
	h, _, err := s.b.Create(t.Context(), agency, s.URL, []string{TypeStage}, "")
	if err != nil {
		t.Fatal(err)
	}
	s.id = h.ID
	s.add(3, TypeReceived)
	s.add(2, TypeStage)
	s.rounds(t, time.Minute)
	if s.calls != 2 {
		t.Fatalf("%d calls", s.calls)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	s := newScene(t, SHA256)
	other := newReceiver(t)
	s.answer = func(w http.ResponseWriter, _ int) {
		w.Header().Set("Location", other.URL)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
	s.add(1, TypeReceived)
	s.rounds(t, time.Minute)
	if h := s.hook(t); other.calls != 0 || len(h.Log) == 0 || h.Log[0].Problem != ErrRedirect.Error() {
		t.Fatalf("%d calls, %+v", other.calls, h.Log)
	}
}

// An endless answer costs what is read of it.
func TestAnEndlessAnswer(t *testing.T) {
	s := newScene(t, SHA256)
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	s.add(1, TypeReceived)
	s.rounds(t, time.Second)
	if h := s.hook(t); len(h.Log) != 1 || h.Log[0].Status != http.StatusOK {
		t.Fatalf("%+v", h.Log)
	}
}

func TestInternalAddresses(t *testing.T) {
	o := NewOutbound([]netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}, nil, true)
	for url, want := range map[string]error{
		"https://169.254.169.254/latest/meta-data":       ErrForbidden,
		"https://127.0.0.1/":                             ErrForbidden,
		"https://[::1]/":                                 ErrForbidden,
		"https://[::ffff:10.0.0.1]/":                     ErrForbidden,
		"https://[64:ff9b::7f00:1]/":                     ErrForbidden,
		"https://[2002:7f00:1::]/":                       ErrForbidden,
		"https://[fe80::1%25lo]/":                        ErrForbidden,
		"https://0.0.0.0/":                               ErrForbidden,
		"https://100.64.1.1/":                            ErrForbidden,
		"https://255.255.255.255/":                       ErrForbidden,
		"https://10.19.0.1/":                             ErrForbidden,
		"https://10.20.0.1/":                             nil,
		"http://10.20.0.1/":                              nil,
		"https://[::ffff:10.20.0.1]/":                    nil,
		"https://1.2.4.8/hook?key=1":                     nil,
		"ftp://1.2.4.8/":                                 ErrURL,
		"file:///etc/passwd":                             ErrURL,
		"https://":                                       ErrURL,
		"https://user:pass@1.2.4.8/":                     ErrURL,
		"https:opaque":                                   ErrURL,
		"https://1.2.4.8/#x":                             ErrURL,
		"https://1.2.4.8/" + strings.Repeat("x", maxURL): ErrURL,
		"\x00": ErrURL,
	} {
		if got := o.Check(url); !errors.Is(got, want) {
			t.Errorf("%.60q: %v, want %v", url, got, want)
		}
	}
	if err := NewOutbound(nil, nil, false).Check("http://1.2.4.8/"); !errors.Is(err, ErrURL) {
		t.Errorf("http: %v", err)
	}
}

// A name that resolves to an internal address is refused when the connection is
// made, whatever its text looks like.
func TestANameForAnInternalAddress(t *testing.T) {
	r := newReceiver(t)
	o := NewOutbound(nil, nil, true)
	port := r.URL[strings.LastIndex(r.URL, ":"):]
	if _, err := o.Post(t.Context(), "https://localhost"+port, http.Header{}, nil); !errors.Is(err, ErrForbidden) || r.calls != 0 {
		t.Fatalf("%v, %d calls", err, r.calls)
	}
	for _, resolved := range []string{"127.0.0.1:443", "[::1]:443", "[fe80::1%lo]:443", "169.254.169.254:80", "nothing"} {
		if err := o.control(t.Context(), "tcp", resolved, nil); !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v", resolved, err)
		}
	}
	if err := o.control(t.Context(), "tcp", "1.2.4.8:443", nil); err != nil {
		t.Error(err)
	}
}

// The worker sees events as they come, hooks made while it runs, and ends.
func TestTheWorker(t *testing.T) {
	s := newScene(t, SHA256)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { s.b.Run(ctx); close(done) }()
	s.add(5, TypeReceived)
	s.waitFor(t, 5)
	second, secret, err := s.b.Create(t.Context(), agency, s.URL, nil, SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.b.Delete(agency, s.id); err != nil {
		t.Fatal(err)
	}
	s.receiver.mu.Lock()
	s.secret = secret
	s.receiver.mu.Unlock()
	s.add(3, TypeReceived)
	s.waitFor(t, 8)
	cancel()
	<-done
	if got := s.b.List(agency); len(got) != 1 || got[0].ID != second.ID || got[0].Secrets != nil {
		t.Fatalf("%+v", got)
	}
	if _, err := os.Stat(filepath.Join(s.dir, s.id+".hook")); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("its file is still there")
	}
}

func (s *scene) waitFor(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		s.receiver.mu.Lock()
		have := len(s.taken)
		s.receiver.mu.Unlock()
		if have >= n {
			return
		}
	}
	t.Fatalf("not %d taken", n)
}

func TestHooksOfOthers(t *testing.T) {
	s := newScene(t, SHA256)
	other := "91350100M000100Y44"
	_, get := s.b.Get(other, s.id)
	_, rotate := s.b.Rotate(other, s.id)
	_, resend := s.b.Resend(t.Context(), other, s.id, message(s.id, place(1)))
	_, test := s.b.Test(t.Context(), other, s.id)
	for name, err := range map[string]error{
		"get": get, "rotate": rotate, "resend": resend, "test": test, "delete": s.b.Delete(other, s.id), "enable": s.b.Enable(other, s.id),
	} {
		if !errors.Is(err, ErrNoHook) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(s.b.List(other)) != 0 {
		t.Error("listed")
	}
}

func TestBounds(t *testing.T) {
	s := newScene(t, SHA256)
	for range MaxHooks - 1 {
		if _, _, err := s.b.Create(t.Context(), agency, s.URL, nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.b.Create(t.Context(), agency, s.URL, nil, ""); !errors.Is(err, ErrTooMany) {
		t.Fatal(err)
	}
	s.add(maxKept+500, TypeReceived)
	h := s.b.hooks[s.id]
	for i := range maxKept {
		h.Kept = append(h.Kept, Kept{Event: place(i + 1), Attempts: 1, Next: s.now.Add(time.Hour)})
	}
	h.Cursor = place(maxKept)
	s.rounds(t, time.Minute)
	if got := s.hook(t); got.Cursor != place(maxKept) || s.calls != 0 {
		t.Fatalf("went on to %s with %d kept", got.Cursor, len(got.Kept))
	}
}

func TestADamagedFileRests(t *testing.T) {
	s := newScene(t, SHA256)
	if err := os.WriteFile(s.b.file(s.id), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.reopen(t)
	if got := s.b.Damaged(); len(got) != 1 || got[0] != s.id || len(s.b.List(agency)) != 0 {
		t.Fatalf("%v", got)
	}
}

func TestNoSecretInTheClear(t *testing.T) {
	s := newScene(t, SHA256)
	b, err := os.ReadFile(s.b.file(s.id))
	if err != nil || bytes.Contains(b, []byte(s.secret)) || bytes.Contains(b, []byte("whsec_")) {
		t.Fatal(err)
	}
	shown, err := json.Marshal(s.hook(t))
	if err != nil || bytes.Contains(shown, []byte("whsec_")) {
		t.Fatal(err)
	}
}

func TestATestEvent(t *testing.T) {
	s := newScene(t, SHA256)
	d, err := s.b.Test(t.Context(), agency, s.id)
	if err != nil || d.Status != http.StatusNoContent || d.Type != TypeTest || s.calls != 1 {
		t.Fatalf("%+v %v", d, err)
	}
	s.answer = func(w http.ResponseWriter, _ int) { w.WriteHeader(http.StatusTeapot) }
	if d, err = s.b.Test(t.Context(), agency, s.id); err != nil || d.Status != http.StatusTeapot || len(s.hook(t).Kept) != 0 {
		t.Fatalf("%+v %v", d, err)
	}
}
