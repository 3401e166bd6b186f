package rest

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// losable are keys in an HSM that does not answer while it is away.
type losable struct {
	*keystore.Store
	away atomic.Bool
}

func (l *losable) lost() error {
	if l.away.Load() {
		return fmt.Errorf("pkcs11: C_Sign: %w", keystore.ErrUnavailable)
	}
	return nil
}

func (l *losable) Sign(id sm.Digest, msg []byte) ([]byte, error) {
	if err := l.lost(); err != nil {
		return nil, err
	}
	return l.Store.Sign(id, msg)
}

func (l *losable) Unwrap(id sm.Digest, sealed []byte) ([]byte, error) {
	if err := l.lost(); err != nil {
		return nil, err
	}
	return l.Store.Unwrap(id, sealed)
}

// TestLostHSM: 503 with Retry-After on every route that needs a key, nothing
// stored, and the same requests work when the HSM is back.
func TestLostHSM(t *testing.T) {
	o := newOffice(t, 0)
	id := o.sent("before")
	o.hsm.away.Store(true)
	busy := func(what string, a *answer) {
		t.Helper()
		p := a.problem()
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || p.Code != exchange.CodeTemporary {
			t.Errorf("%s: %d %v %s", what, a.status, a.header, a.body)
		}
		if strings.Contains(string(a.body), "pkcs11") {
			t.Errorf("%s: the problem shows the module's words: %s", what, a.body)
		}
	}
	submit := func() *answer {
		return o.send("while", part{"document", "", o.meta(nil)}, part{"body", "正文.ofd", "the body"})
	}
	accept := func() *answer {
		return o.do("yi", http.MethodPost, "/v1/inbox/"+id+"/accept", strings.NewReader(`{"actor":{"name":"值班员"}}`),
			map[string]string{"Content-Type": "application/json"})
	}
	file := func() *answer { return o.do("yi", http.MethodGet, "/v1/inbox/"+id+"/files/0", nil, nil) }
	busy("submit", submit())
	busy("collect", file())
	busy("sign for", accept())
	if a := o.do("yi", http.MethodGet, "/v1/inbox", nil, nil); a.status != http.StatusOK {
		t.Errorf("the inbox needs no HSM: %d %s", a.status, a.body)
	}
	o.hsm.away.Store(false)
	for what, a := range map[string]*answer{"submit": submit(), "collect": file(), "sign for": accept()} {
		if a.status/100 != 2 {
			t.Errorf("%s afterwards: %d %s", what, a.status, a.body)
		}
	}
}
