package rest

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// TestKeysOfActs: under a key a repeat is the same act, a reminder included, and
// another body or another path is refused, whoever used the key for what.
func TestKeysOfActs(t *testing.T) {
	o := newOffice(t, 0)
	first, second := o.sent("k1"), o.sent("k2")
	under := func(who, key, path, body string) *answer {
		t.Helper()
		a := o.do(who, http.MethodPost, path, strings.NewReader(body), map[string]string{"Content-Type": "application/json", "Idempotency-Key": key})
		o.settle()
		return a
	}
	remind := under("jia", "r1", "/v1/documents/"+first+"/remind", someone)
	again := under("jia", "r1", "/v1/documents/"+first+"/remind", someone)
	o.ok(remind)
	if !bytes.Equal(remind.body, again.body) || again.header.Get("Idempotent-Replayed") != "true" || remind.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("reminded by %s, then by %s", remind.body, again.body)
	}
	o.ok(under("jia", "r2", "/v1/documents/"+first+"/remind", someone))
	if in := into[Received](o, o.do("yi", http.MethodGet, "/v1/inbox/"+first, nil, nil)); in.Reminders != 2 {
		t.Errorf("%d reminders", in.Reminders)
	}
	o.ok(under("yi", "a1", "/v1/inbox/"+first+"/accept", someone))
	for name, c := range map[string]struct{ who, key, path, body string }{
		"another body":            {"yi", "a1", "/v1/inbox/" + first + "/accept", `{"actor":{"name":"李"}}`},
		"another document":        {"yi", "a1", "/v1/inbox/" + second + "/accept", someone},
		"another act":             {"yi", "a1", "/v1/inbox/" + first + "/adopt", someone},
		"the key of a document":   {"jia", "k1", "/v1/documents/" + first + "/recall", someone},
		"the key of a reminder":   {"jia", "r1", "/v1/documents/" + first + "/recall", someone},
		"a reminder's, resent":    {"jia", "r2", "/v1/documents/" + first + "/remind", `{"actor":{"name":"李"}}`},
		"of a batch, for another": {"yi", "a1", "/v1/inbox/accept", fmt.Sprintf(`{"documents":[%q],"actor":{"name":"x"}}`, first)},
	} {
		if a := under(c.who, c.key, c.path, c.body); a.status != 422 || a.problem().Code != exchange.CodeIdempotencyMismatch {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := under("yi", strings.Repeat("k", 256), "/v1/inbox/"+first+"/accept", someone); a.status != 400 || a.problem().Code != exchange.CodeIdempotencyMissing {
		t.Errorf("an endless key: %d %s", a.status, a.body)
	}
	// What failed took no key.
	if a := under("yi", "late", "/v1/inbox/"+second+"/adopt", someone); a.status != 409 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	o.ok(under("yi", "late", "/v1/inbox/"+second+"/accept", someone))
	body, contentType := form([]part{{"document", "", o.meta(nil)}, {"body", "正文.ofd", "x"}})
	submit := o.do("jia", http.MethodPost, "/v1/documents", bytes.NewReader(body), map[string]string{"Content-Type": contentType, "Idempotency-Key": "r1"})
	if submit.status != 422 || submit.problem().Code != exchange.CodeIdempotencyMismatch {
		t.Errorf("a document under a reminder's key: %d %s", submit.status, submit.body)
	}
}

// TestOneActPerKeyAtATime: the second one hears that the first is under way.
func TestOneActPerKeyAtATime(t *testing.T) {
	o := newOffice(t, 0)
	id := o.sent("k")
	k, err := o.node.BeginKeyed(t.Context(), o.yi, "a", []byte("another request"))
	o.must(err)
	with := map[string]string{"Content-Type": "application/json", "Idempotency-Key": "a"}
	if a := o.do("yi", http.MethodPost, "/v1/inbox/"+id+"/accept", strings.NewReader(someone), with); a.status != 409 || a.problem().Code != exchange.CodeIdempotencyInUse {
		t.Errorf("%d %s", a.status, a.body)
	}
	o.must(k.End(t.Context(), false))
	o.ok(o.do("yi", http.MethodPost, "/v1/inbox/"+id+"/accept", strings.NewReader(someone), with))
}

// TestIfMatch: an act on a state that is over does nothing.
func TestIfMatch(t *testing.T) {
	o := newOffice(t, 0)
	id := o.sent("k")
	inbox, state := "/v1/inbox/"+id, "/v1/documents/"+id
	match := func(who, path, tag string) *answer {
		t.Helper()
		a := o.do(who, http.MethodPost, path, strings.NewReader(someone), map[string]string{"Content-Type": "application/json", "If-Match": tag})
		o.settle()
		return a
	}
	tag := func(who, path string) string {
		t.Helper()
		tag := o.do(who, http.MethodGet, path, nil, nil).header.Get("ETag")
		if len(tag) < 10 || o.do(who, http.MethodGet, path, nil, nil).header.Get("ETag") != tag {
			t.Fatalf("the ETag of %s is %s", path, tag)
		}
		return tag
	}
	of, mine := tag("yi", inbox), tag("jia", state)
	o.ok(match("jia", state+"/remind", mine))
	for who, path := range map[string]string{"yi": inbox + "/accept", "jia": state + "/recall"} {
		if a := match(who, path, map[string]string{"yi": of, "jia": mine}[who]); a.status != 412 || a.problem().Code != exchange.CodePrecondition {
			t.Errorf("%s with an old tag: %d %s", path, a.status, a.body)
		}
	}
	o.ok(match("yi", inbox+"/accept", `"other", `+tag("yi", inbox)))
	o.ok(match("yi", inbox+"/complete", "*"))
	tr := into[node.Trace](o, o.do("jia", http.MethodGet, state+"/trace", nil, nil))
	if tr.Recipients[0].Stage != exchange.StageCompleted {
		t.Errorf("it stands at %s", tr.Recipients[0].Stage)
	}
}
