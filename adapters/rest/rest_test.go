package rest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// office is a node serving two agencies, with its REST interface.
type office struct {
	t        testing.TB
	dir      string
	node     *node.Node
	store    queue.Store
	blobs    *blob.Store
	url      string
	keys     map[string]string
	hsm      *losable
	ring     *KeyRing
	rest     *Server
	handler  http.Handler
	seen     func(operation string, a *answer)
	maxBytes int64

	*cast
	directory atomic.Pointer[certs.Directory]
}

func newOffice(t testing.TB, maxUpload int64) *office {
	t.Helper()
	return newOfficeWith(t, Config{MaxUpload: maxUpload})
}

// cast is who there is: an authority, and the keys of a node with two agencies. Making
// one derives two keys from passphrases, which takes most of a short test.
type cast struct {
	authority *certs.Authority
	store     *keystore.Store
	jia, yi   string
}

var (
	castDir   string
	everybody = sync.OnceValues(func() (*cast, error) { return newCast(castDir) })
)

func TestMain(m *testing.M) {
	var err error
	if castDir, err = os.MkdirTemp("", "yizhan-rest"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(castDir)
	os.Exit(code)
}

func newCast(dir string) (*cast, error) {
	now, pass := time.Now(), []byte("test")
	authority, err := certs.InitAuthority(filepath.Join(dir, "ca"), "test", pass, rand.Reader, now)
	if err != nil {
		return nil, err
	}
	keys, err := keystore.Create(filepath.Join(dir, "keys"), pass, rand.Reader)
	if err != nil {
		return nil, err
	}
	var specs []certs.AgencySpec
	for i, name := range []string{"示范单位甲", "示范单位乙"} {
		code, err := certs.MakeAgencyCode(fmt.Sprintf("11520000000000%03d", i+1))
		if err != nil {
			return nil, err
		}
		specs = append(specs, certs.AgencySpec{Code: code, Name: name, Aliases: []string{"市财政局"}[:i]})
	}
	request, err := certs.NewRequest(keys, "test", certs.NodeSpec{ID: "n1", Zone: "政务外网"}, specs, now)
	if err != nil {
		return nil, err
	}
	parsed, err := certs.ParseRequest(request)
	if err != nil {
		return nil, err
	}
	return &cast{authority, keys, string(specs[0].Code), string(specs[1].Code)}, authority.Admit(parsed, now)
}

// newOfficeWith fills in what every office has.
func newOfficeWith(t testing.TB, c Config) *office {
	t.Helper()
	return newOfficeOf(t, c, nil)
}

// newOfficeOf is an office of a cast of its own; nil is the one that tests share.
func newOfficeOf(t testing.TB, c Config, own *cast) *office {
	t.Helper()
	maxUpload := c.MaxUpload
	o := &office{t: t, dir: t.TempDir(), keys: map[string]string{}, maxBytes: maxUpload}
	o.cast = own
	if o.cast == nil {
		var err error
		o.cast, err = everybody()
		o.must(err)
	}
	o.publish()
	quiet := slog.New(slog.DiscardHandler)
	var err error
	o.store, err = badgerstore.Open(filepath.Join(o.dir, "store"), badgerstore.Options{Logger: quiet})
	o.must(err)
	o.blobs, err = blob.Open(durable.OS, filepath.Join(o.dir, "blobs"))
	o.must(err)
	o.hsm = &losable{Store: o.cast.store}
	o.node, err = node.New(t.Context(), node.Config{
		ID: "n1", Store: o.store, Blobs: o.blobs, Keys: o.hsm, Directory: o.directory.Load,
	})
	o.must(err)
	o.ring, err = OpenKeyRing(filepath.Join(o.dir, "api-keys.json"))
	o.must(err)
	for name, code := range map[string]string{"jia": o.jia, "yi": o.yi} {
		secret, _, err := o.ring.Create(rand.Reader, certs.AgencyCode(code), Scopes, nil, name, time.Now())
		o.must(err)
		o.keys[name] = secret
	}
	c.Node, c.Keys, c.Logger = o.node, o.ring, quiet
	c.Staging, c.Webhooks = stagingAt(t, filepath.Join(o.dir, "uploads")), &hooks{of: map[string][]Webhook{}}
	o.rest = New(c)
	o.handler = o.rest.Handler()
	server := httptest.NewServer(o.handler)
	o.url = server.URL
	t.Cleanup(func() {
		server.Close()
		o.must(o.store.Close())
	})
	return o
}

// publish puts a new version of the directory in force.
func (o *office) publish() {
	o.t.Helper()
	file, err := o.authority.Publish(time.Now())
	o.must(err)
	d, err := certs.LoadDirectory(file, o.authority.Certificate(), 0, time.Now())
	o.must(err)
	o.directory.Store(d)
}

func (o *office) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

// settle lets the node do all its work.
func (o *office) settle() {
	o.t.Helper()
	for did := true; did; {
		var err error
		did, err = o.node.Work(o.t.Context())
		o.must(err)
	}
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a *answer) problem() (p Problem) {
	_ = json.Unmarshal(a.body, &p)
	return p
}

func (o *office) do(who, method, path string, body io.Reader, header map[string]string) *answer {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, o.url+path, body)
	o.must(err)
	if who != "" {
		req.Header.Set("Authorization", "Bearer "+o.keys[who])
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	o.must(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	o.must(err)
	a := &answer{res.StatusCode, res.Header, b}
	if operation := described(o.t, req, a); o.seen != nil {
		o.seen(operation, a)
	}
	return a
}

// part is one part of a multipart body.
type part struct{ name, file, content string }

func form(parts []part) (body []byte, contentType string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		disposition := fmt.Sprintf(`form-data; name=%q`, p.name)
		if p.file != "" {
			disposition += fmt.Sprintf(`; filename=%q`, p.file)
		}
		f, _ := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {disposition}})
		_, _ = f.Write([]byte(p.content))
	}
	_ = w.Close()
	return b.Bytes(), w.FormDataContentType()
}

func (o *office) meta(change map[string]any) string {
	m := map[string]any{"title": "关于试点的通知", "to": []string{o.yi}, "label": "内部"}
	for k, v := range change {
		if v == nil {
			delete(m, k)
		} else {
			m[k] = v
		}
	}
	b, err := json.Marshal(m)
	o.must(err)
	return string(b)
}

func (o *office) send(key string, parts ...part) *answer {
	o.t.Helper()
	body, contentType := form(parts)
	return o.do("jia", http.MethodPost, "/v1/documents", bytes.NewReader(body), map[string]string{"Content-Type": contentType, "Idempotency-Key": key})
}

func (o *office) sent(key string) string {
	o.t.Helper()
	a := o.send(key, part{"document", "", o.meta(nil)}, part{"body", "正文.ofd", "the body of " + key}, part{"attachment", "附件 1.pdf", "attached"})
	if a.status != http.StatusCreated {
		o.t.Fatalf("%d %s", a.status, a.body)
	}
	var r SubmitResult
	o.must(json.Unmarshal(a.body, &r))
	o.settle()
	return r.Document
}

// TestTheWayOfADocument is the whole life over HTTP.
func TestTheWayOfADocument(t *testing.T) {
	o := newOffice(t, 0)
	id := o.sent("k1")
	a := o.do("yi", http.MethodGet, "/v1/inbox", nil, nil)
	var in list[Received]
	o.must(json.Unmarshal(a.body, &in))
	if len(in.Items) != 1 || in.Items[0].Document != id || in.Items[0].Title != "关于试点的通知" || len(in.Items[0].Files) != 2 {
		t.Fatalf("inbox: %s", a.body)
	}
	if got := o.do("yi", http.MethodGet, "/v1/inbox/"+id+"/files/1", nil, nil); string(got.body) != "attached" ||
		!strings.Contains(got.header.Get("Content-Disposition"), "%E9%99%84%E4%BB%B6%201.pdf") || len(got.header.Get("Yizhan-SM3")) != 64 {
		t.Errorf("file: %q %v", got.body, got.header)
	}
	act := `{"actor":{"name":"值班员"},"opinion":"已阅","number":"收〔2026〕1号"}`
	jsonType := map[string]string{"Content-Type": "application/json"}
	first := o.do("yi", http.MethodPost, "/v1/inbox/"+id+"/accept", strings.NewReader(act), jsonType)
	again := o.do("yi", http.MethodPost, "/v1/inbox/"+id+"/accept", strings.NewReader(act), jsonType)
	if first.status != http.StatusOK || !bytes.Equal(first.body, again.body) {
		t.Errorf("sign for: %d %s, then %d %s", first.status, first.body, again.status, again.body)
	}
	if a := o.do("yi", http.MethodPost, "/v1/inbox/"+id+"/return", strings.NewReader(`{"actor":{"name":"x"},"reason":"误送"}`), jsonType); a.status != 409 || a.problem().Code != exchange.CodeConflict {
		t.Errorf("returning what was signed for: %d %s", a.status, a.body)
	}
	var tr node.Trace
	o.must(json.Unmarshal(o.do("jia", http.MethodGet, "/v1/documents/"+id+"/trace", nil, nil).body, &tr))
	if tr.State != exchange.StateSignedFor || !tr.ReceiptsVerified || !tr.LedgerVerified || tr.Receipts != 4 {
		t.Errorf("trace: %+v", tr)
	}
	last := tr.Events[len(tr.Events)-1]
	if last.Detail == nil || last.Detail.Opinion != "已阅" {
		t.Errorf("the sender does not see the opinion: %+v", last)
	}
	if a := o.do("jia", http.MethodGet, "/v1/documents/"+id+"/receipts/"+last.Receipt.String(), nil, nil); a.status != 200 || a.body[0] != 0x30 {
		t.Errorf("receipt bytes: %d", a.status)
	}
	for _, path := range []string{"/v1/documents", "/v1/documents/" + id, "/v1/documents/" + id + "/receipts", "/v1/documents/" + id + "/evidence", "/v1/directory/agencies?q=财政", "/openapi.json"} {
		if a := o.do("jia", http.MethodGet, path, nil, nil); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// TestWhatASenderAsksFor: reminding, recalling before and after the signature,
// and sending again, over HTTP.
func TestWhatASenderAsksFor(t *testing.T) {
	o := newOffice(t, 0)
	jsonType := map[string]string{"Content-Type": "application/json"}
	ask := func(who, id, what, body string) *answer {
		t.Helper()
		a := o.do(who, http.MethodPost, "/v1/documents/"+id+"/"+what, strings.NewReader(body), map[string]string{"Content-Type": "application/json", "Idempotency-Key": what + id})
		o.settle()
		return a
	}
	const actor = `{"actor":{"name":"王伟","role":"机要员"}}`
	id := o.sent("k1")
	if a := ask("jia", id, "remind", actor); a.status != 200 {
		t.Fatalf("remind: %d %s", a.status, a.body)
	}
	var in Received
	o.must(json.Unmarshal(o.do("yi", http.MethodGet, "/v1/inbox/"+id, nil, nil).body, &in))
	if in.Reminders != 1 || in.Reminded == nil {
		t.Errorf("the inbox says %+v", in)
	}
	var first, again AskResult
	o.must(json.Unmarshal(ask("jia", id, "recall", actor).body, &first))
	o.must(json.Unmarshal(ask("jia", id, "recall", actor).body, &again))
	if first.Kind != "RECALL" || len(first.Requests) != 1 || len(again.Requests) != 1 || again.Requests[0] != first.Requests[0] {
		t.Errorf("recalled as %+v, then as %+v", first, again)
	}
	if a := o.do("yi", http.MethodGet, "/v1/inbox/"+id+"/files/0", nil, nil); a.status != 410 || a.problem().Code != exchange.CodeRecalled {
		t.Errorf("reading what was recalled: %d %s", a.status, a.body)
	}
	var tr node.Trace
	o.must(json.Unmarshal(o.do("jia", http.MethodGet, "/v1/documents/"+id+"/trace", nil, nil).body, &tr))
	if tr.Recipients[0].Stage != exchange.StageRecalled || !tr.ReceiptsVerified || len(tr.Requests) != 2 {
		t.Errorf("the trace says %+v", tr)
	}

	a := ask("jia", id, "resend", `{}`)
	var sent SubmitResult
	o.must(json.Unmarshal(a.body, &sent))
	if a.status != 201 || a.header.Get("Location") != "/v1/documents/"+sent.Document {
		t.Fatalf("resend: %d %s", a.status, a.body)
	}
	if b := ask("jia", id, "resend", `{}`); !bytes.Equal(a.body, b.body) || b.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("once more: %d %s", b.status, b.body)
	}
	if got := o.do("yi", http.MethodGet, "/v1/inbox/"+sent.Document+"/files/1", nil, nil); string(got.body) != "attached" {
		t.Errorf("the second copy has %q", got.body)
	}
	o.do("yi", http.MethodPost, "/v1/inbox/"+sent.Document+"/accept", strings.NewReader(actor), jsonType)
	ask("jia", sent.Document, "recall", actor)
	o.must(json.Unmarshal(o.do("jia", http.MethodGet, "/v1/documents/"+sent.Document+"/trace", nil, nil).body, &tr))
	if tr.Recipients[0].Stage != exchange.StageSignedFor || tr.Events[len(tr.Events)-1].Stage != exchange.StageRecallRefused {
		t.Errorf("the trace says %+v", tr)
	}
	for name, c := range map[string]struct {
		who, id, what, body string
		status              int
	}{
		"by a recipient":         {"yi", id, "recall", actor, 404},
		"without a name":         {"jia", id, "recall", `{"actor":{"name":""}}`, 422},
		"for no recipient":       {"jia", id, "remind", `{"actor":{"name":"x"},"recipients":["` + o.jia + `"]}`, 422},
		"nothing to resend":      {"jia", sent.Document, "resend", `{}`, 409},
		"supplement for nobody":  {"jia", id, "supplement", `{}`, 422},
		"supplement for the old": {"jia", id, "supplement", `{"recipients":["` + o.yi + `"]}`, 422},
	} {
		if a := ask(c.who, c.id, c.what, c.body); a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// TestBadSubmissions: each a specific problem in two languages, nothing stored.
func TestBadSubmissions(t *testing.T) {
	o := newOffice(t, 2<<20)
	body := part{"body", "正文.ofd", "content"}
	doc := func(change map[string]any) part { return part{"document", "", o.meta(change)} }
	unknown, err := certs.MakeAgencyCode("11520000000000999")
	o.must(err)
	for i, c := range []struct {
		name   string
		parts  []part
		status int
		code   string
		detail string
	}{
		{"unknown recipient", []part{doc(map[string]any{"to": []string{string(unknown)}}), body}, 422, exchange.CodeUnknownRecipient, string(unknown)},
		{"wrong check digit", []part{doc(map[string]any{"to": []string{o.yi[:17] + "0"}}), body}, 422, exchange.CodeAgencyCode, "check digit"},
		{"code too short", []part{doc(map[string]any{"to": []string{"123"}}), body}, 422, exchange.CodeAgencyCode, "18"},
		{"no body", []part{doc(nil)}, 422, exchange.CodeMissingBody, ""},
		{"attachment before the body", []part{doc(nil), {"attachment", "a", "x"}}, 422, exchange.CodeMissingBody, ""},
		{"two bodies", []part{doc(nil), body, body}, 422, exchange.CodeMissingBody, ""},
		{"empty body", []part{doc(nil), {"body", "a.ofd", ""}}, 422, exchange.CodeEmptyFile, ""},
		{"empty attachment", []part{doc(nil), body, {"attachment", "a", ""}}, 422, exchange.CodeEmptyFile, ""},
		{"秘密", []part{doc(map[string]any{"label": "秘密"}), body}, 422, exchange.CodeStateSecret, "label"},
		{"机密", []part{doc(map[string]any{"label": "机密"}), body}, 422, exchange.CodeStateSecret, "label"},
		{"绝密", []part{doc(map[string]any{"label": "top_secret"}), body}, 422, exchange.CodeStateSecret, "label"},
		{"a mark in the title", []part{doc(map[string]any{"title": "人事安排（机密★10年）"}), body}, 422, exchange.CodeClassificationMark, "title"},
		{"a mark in a file name", []part{doc(nil), body, {"attachment", "名单_机密.xlsx", "x"}}, 422, exchange.CodeClassificationMark, "file 2"},
		{"unknown label", []part{doc(map[string]any{"label": "geheim"}), body}, 422, exchange.CodeInvalidDocument, "label"},
		{"no title", []part{doc(map[string]any{"title": nil}), body}, 422, exchange.CodeInvalidDocument, "title"},
		{"no recipient", []part{doc(map[string]any{"to": nil}), body}, 422, exchange.CodeInvalidDocument, "to"},
		{"unknown member", []part{doc(map[string]any{"tilte": "x"}), body}, 400, exchange.CodeBadRequest, "tilte"},
		{"wrong type", []part{doc(map[string]any{"title": 7}), body}, 400, exchange.CodeBadRequest, "title"},
		{"broken JSON", []part{{"document", "", "{"}, body}, 400, exchange.CodeBadRequest, "document"},
		{"metadata not first", []part{body, doc(nil)}, 400, exchange.CodeBadMultipart, "first"},
		{"no part at all", nil, 400, exchange.CodeBadMultipart, ""},
		{"foreign part", []part{doc(nil), body, {"virus", "x", "y"}}, 400, exchange.CodeBadMultipart, ""},
		{"oversized metadata", []part{{"document", "", strings.Repeat(" ", maxMetadata+1)}, body}, 413, exchange.CodeTooLarge, ""},
		{"oversized request", []part{doc(nil), {"body", "a", strings.Repeat("x", 2<<20)}}, 413, exchange.CodeTooLarge, ""},
		{"a file name that is a path", []part{doc(nil), {"body", "..", "x"}}, 422, exchange.CodeInvalidDocument, "file 0"},
		{"expired already", []part{doc(map[string]any{"expires": "2020-01-01T00:00:00Z"}), body}, 422, exchange.CodeInvalidDocument, "expires"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := o.send(fmt.Sprintf("bad-%d", i), c.parts...)
			p := a.problem()
			if a.status != c.status || p.Code != c.code || !strings.Contains(p.Detail, c.detail) {
				t.Fatalf("%d %s %q, want %d %s naming %q", a.status, p.Code, p.Detail, c.status, c.code, c.detail)
			}
			if a.header.Get("Content-Type") != problemMedia || p.TitleZH == "" || p.FixZH == "" || p.TitleEN == "" || p.FixEN == "" {
				t.Errorf("an incomplete problem: %s", a.body)
			}
			if strings.Contains(string(a.body), "试点") {
				t.Error("the problem shows the title")
			}
		})
	}
	o.nothingStored()
}

// nothingStored: no document, no inbox row, no blob.
func (o *office) nothingStored() {
	o.t.Helper()
	o.settle()
	for who, path := range map[string]string{"jia": "/v1/documents", "yi": "/v1/inbox"} {
		if a := o.do(who, http.MethodGet, path, nil, nil); strings.Contains(string(a.body), `"document"`) {
			o.t.Errorf("%s: %s", path, a.body)
		}
	}
	_, err := o.blobs.Each(o.t.Context(), func(ref queue.Ref, size int64) error {
		o.t.Errorf("left behind: %s of %d bytes", ref, size)
		return nil
	})
	o.must(err)
}

func TestBrokenUploads(t *testing.T) {
	o := newOffice(t, 0)
	whole, contentType := form([]part{{"document", "", o.meta(nil)}, {"body", "a.ofd", strings.Repeat("content ", 1000)}})
	head := map[string]string{"Content-Type": contentType, "Idempotency-Key": "broken"}
	for _, cut := range []int{10, 200, 500, 4000, len(whole) - 10} {
		a := o.do("jia", http.MethodPost, "/v1/documents", bytes.NewReader(whole[:cut]), head)
		if a.status != 400 || a.problem().Code != exchange.CodeBadMultipart {
			t.Errorf("cut at %d of %d: %d %s", cut, len(whole), a.status, a.body)
		}
	}
	a := o.do("jia", http.MethodPost, "/v1/documents", strings.NewReader("{}"), map[string]string{"Content-Type": "text/json", "Idempotency-Key": "x"})
	if a.status != 400 || a.problem().Code != exchange.CodeBadMultipart {
		t.Errorf("text in place of multipart: %d %s", a.status, a.body)
	}
	o.nothingStored()
}

func TestIdempotency(t *testing.T) {
	o := newOffice(t, 0)
	parts := []part{{"document", "", o.meta(nil)}, {"body", "a.ofd", "content"}}
	first := o.send("same", parts...)
	again := o.send("same", parts...)
	if first.status != 201 || again.status != 201 || !bytes.Equal(first.body, again.body) || again.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%d %s, then %d %s", first.status, first.body, again.status, again.body)
	}
	other := o.send("same", part{"document", "", o.meta(nil)}, part{"body", "a.ofd", "other content"})
	if other.status != 422 || other.problem().Code != exchange.CodeIdempotencyMismatch {
		t.Errorf("another body under the key: %d %s", other.status, other.body)
	}
	for _, key := range []string{"", strings.Repeat("k", 256)} {
		if a := o.send(key, parts...); a.status != 400 || a.problem().Code != exchange.CodeIdempotencyMissing {
			t.Errorf("key of %d characters: %d %s", len(key), a.status, a.body)
		}
	}
	o.settle()
	var in list[Received]
	o.must(json.Unmarshal(o.do("yi", http.MethodGet, "/v1/inbox", nil, nil).body, &in))
	if len(in.Items) != 1 {
		t.Errorf("%d documents arrived", len(in.Items))
	}
}

func TestKeys(t *testing.T) {
	o := newOffice(t, 0)
	past := time.Now().Add(-time.Hour)
	var err error
	o.keys["expired"], _, err = o.ring.Create(rand.Reader, certs.AgencyCode(o.jia), Scopes, &past, "", time.Now())
	o.must(err)
	var sendOnly Key
	o.keys["send only"], sendOnly, err = o.ring.Create(rand.Reader, certs.AgencyCode(o.jia), []string{ScopeSend}, nil, "", time.Now())
	o.must(err)
	o.keys["wrong"] = o.keys["jia"] + "x"
	for _, c := range []struct {
		who, path string
		status    int
		code      string
	}{
		{"", "/v1/inbox", 401, exchange.CodeUnauthenticated},
		{"wrong", "/v1/inbox", 401, exchange.CodeUnauthenticated},
		{"expired", "/v1/inbox", 401, exchange.CodeUnauthenticated},
		{"send only", "/v1/inbox", 403, exchange.CodeForbidden},
		{"send only", "/v1/inbox/01ARZ3NDEKTSV4RRFFQ69G5FAV/files/0", 403, exchange.CodeForbidden},
		{"", "/v1/documents/01ARZ3NDEKTSV4RRFFQ69G5FAV/evidence", 401, exchange.CodeUnauthenticated},
		{"", "/v1/directory/agencies", 401, exchange.CodeUnauthenticated},
	} {
		if a := o.do(c.who, http.MethodGet, c.path, nil, nil); a.status != c.status || a.problem().Code != c.code {
			t.Errorf("%q at %s: %d %s", c.who, c.path, a.status, a.body)
		}
	}
	if a := o.do("send only", http.MethodGet, "/v1/documents", nil, nil); a.status != 200 {
		t.Errorf("a key with scope send: %d", a.status)
	}
	o.must(o.ring.Revoke(sendOnly.ID))
	if a := o.do("send only", http.MethodGet, "/v1/documents", nil, nil); a.status != 401 {
		t.Errorf("a revoked key: %d", a.status)
	}
	b, err := os.ReadFile(filepath.Join(o.dir, "api-keys.json"))
	o.must(err)
	for who, secret := range o.keys {
		if who != "" && strings.Contains(string(b), secret) {
			t.Errorf("the key of %s lies in clear", who)
		}
	}
}

// TestAgenciesSeeOnlyTheirOwn: another agency's document does not exist.
func TestAgenciesSeeOnlyTheirOwn(t *testing.T) {
	o := newOffice(t, 0)
	third, err := certs.MakeAgencyCode("11520000000000777")
	o.must(err)
	o.keys["third"], _, err = o.ring.Create(rand.Reader, third, Scopes, nil, "", time.Now())
	o.must(err)
	id := o.sent("k")
	for _, path := range []string{"/v1/documents/" + id, "/v1/documents/" + id + "/trace", "/v1/documents/" + id + "/evidence", "/v1/inbox/" + id, "/v1/inbox/" + id + "/files/0"} {
		a := o.do("third", http.MethodGet, path, nil, nil)
		none := o.do("third", http.MethodGet, strings.Replace(path, id, "01ARZ3NDEKTSV4RRFFQ69G5FAV", 1), nil, nil)
		if a.status != 404 || none.status != 404 {
			t.Errorf("%s: %d, and of no document %d", path, a.status, none.status)
		}
	}
	if a := o.do("jia", http.MethodGet, "/v1/inbox/"+id, nil, nil); a.status != 404 {
		t.Errorf("the sender finds it in its inbox: %d", a.status)
	}
}

func TestEdges(t *testing.T) {
	o := newOffice(t, 0)
	id := o.sent("k")
	jsonType := map[string]string{"Content-Type": "application/json"}
	for _, c := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"unknown path", "GET", "/v2", "", 404},
		{"double slash", "POST", "/v1//documents", "", 404},
		{"wrong method", "DELETE", "/v1/documents", "", 405},
		{"no such file", "GET", "/v1/inbox/" + id + "/files/9", "", 404},
		{"file number", "GET", "/v1/inbox/" + id + "/files/x", "", 404},
		{"bad receipt id", "GET", "/v1/documents/" + id + "/receipts/zz", "", 400},
		{"unknown receipt", "GET", "/v1/documents/" + id + "/receipts/" + strings.Repeat("0", 64), "", 404},
		{"limit", "GET", "/v1/inbox?limit=0", "", 400},
		{"act without a name", "POST", "/v1/inbox/" + id + "/accept", `{"actor":{"name":""}}`, 400},
		{"act with unknown member", "POST", "/v1/inbox/" + id + "/accept", `{"actor":{"name":"x"},"x":1}`, 400},
		{"return without reason", "POST", "/v1/inbox/" + id + "/return", `{"actor":{"name":"x"}}`, 400},
		{"huge JSON", "POST", "/v1/inbox/" + id + "/accept", `{"actor":{"name":"` + strings.Repeat("x", 1<<20) + `"}}`, 413},
	} {
		a := o.do("yi", c.method, c.path, strings.NewReader(c.body), jsonType)
		if want := c.status; a.status != want && !(want == 400 && a.status == 422) || a.problem().Code == "" {
			t.Errorf("%s: %d %s, want %d", c.name, a.status, a.body, want)
		}
		if a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers are missing", c.name)
		}
	}
	zh := o.do("", http.MethodGet, "/v1/inbox", nil, map[string]string{"Accept-Language": "zh-CN,zh;q=0.9"})
	if p := zh.problem(); p.Title != exchange.Explain(exchange.CodeUnauthenticated, "zh").Title {
		t.Errorf("Chinese was asked for: %s", zh.body)
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if a := o.do("", http.MethodGet, path, nil, nil); a.status != 200 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}

// TestInboxWaits: a waiting inbox answers as soon as a document is there.
func TestInboxWaits(t *testing.T) {
	o := newOffice(t, 0)
	got := make(chan *answer, 1)
	go func() { got <- o.do("yi", http.MethodGet, "/v1/inbox?wait=20", nil, nil) }()
	time.Sleep(50 * time.Millisecond)
	id := o.sent("k")
	if a := <-got; !strings.Contains(string(a.body), id) {
		t.Errorf("the waiting inbox gave %s", a.body)
	}
}

// TestNoPlaintextAtRest: neither title nor file names nor content lie
// readable in the node's data (I6).
func TestNoPlaintextAtRest(t *testing.T) {
	o := newOffice(t, 0)
	a := o.send("k", part{"document", "", o.meta(map[string]any{"title": "绝无仅有的标题", "number": "稀有字号"})}, part{"body", "罕见文件名.ofd", "UNIQUE-CONTENT-MARK"})
	if a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	o.settle()
	act := o.do("yi", http.MethodGet, "/v1/inbox", nil, nil)
	var in list[Received]
	o.must(json.Unmarshal(act.body, &in))
	o.do("yi", http.MethodPost, "/v1/inbox/"+in.Items[0].Document+"/accept", strings.NewReader(`{"actor":{"name":"x"},"opinion":"密闻意见"}`), map[string]string{"Content-Type": "application/json"})
	err := filepath.WalkDir(o.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, mark := range []string{"绝无仅有的标题", "稀有字号", "罕见文件名", "UNIQUE-CONTENT-MARK", "密闻意见"} {
			if bytes.Contains(b, []byte(mark)) {
				t.Errorf("%s lies in clear in %s", mark, filepath.Base(path))
			}
		}
		return err
	})
	o.must(err)
}
