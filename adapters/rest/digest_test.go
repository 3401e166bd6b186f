package rest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

func fieldOf(b []byte) (sha, sm3, both string) {
	h, s := sha256.Sum256(b), sm.Sum(b)
	sha = "sha-256=:" + base64.StdEncoding.EncodeToString(h[:]) + ":"
	sm3 = "sm3=:" + base64.StdEncoding.EncodeToString(s[:]) + ":"
	return sha, sm3, sha + ", " + sm3
}

// TestDigestsOfUploads: a body that is not what its digest says is refused before
// anything is accepted, whichever digest it is; one that is, is accepted.
func TestDigestsOfUploads(t *testing.T) {
	o := newOffice(t, 0)
	body, contentType := form([]part{{"document", "", o.meta(nil)}, {"body", "正文.ofd", "content"}})
	longer := append(bytes.Clone(body), []byte("\r\nan epilogue")...)
	sha, sm3, both := fieldOf(body)
	_, _, other := fieldOf([]byte("something else"))
	send := func(key, name, value string, body []byte) *answer {
		return o.do("jia", http.MethodPost, "/v1/documents", bytes.NewReader(body), map[string]string{"Content-Type": contentType, "Idempotency-Key": key, name: value})
	}
	for name, c := range map[string]struct {
		header, value string
		body          []byte
		code          string
	}{
		"another body":      {"Content-Digest", other, body, exchange.CodeDigestMismatch},
		"another sm3":       {"Repr-Digest", sha + ", " + strings.Split(other, ", ")[1], body, exchange.CodeDigestMismatch},
		"behind the end":    {"Content-Digest", both, longer, exchange.CodeDigestMismatch},
		"no digest":         {"Content-Digest", "sha-256=abc", body, exchange.CodeBadRequest},
		"a short one":       {"Content-Digest", "sm3=:AAAA:", body, exchange.CodeBadRequest},
		"an endless header": {"Content-Digest", strings.Repeat("x=:AA:, ", 1000) + sm3, body, exchange.CodeBadRequest},
	} {
		if a := send("bad "+fmt.Sprintf("%x", name), c.header, c.value, c.body); a.status != 400 || a.problem().Code != c.code {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	o.nothingStored()
	for i, value := range []string{sha, sm3, both, "unixsum=:AA==:, " + sha} {
		if a := send(fmt.Sprint("good ", i), "Content-Digest", value, body); a.status != 201 {
			t.Errorf("%s: %d %s", value, a.status, a.body)
		}
	}
	_, _, whole := fieldOf(longer)
	o.ok(send("epilogue", "Content-Digest", whole, longer))
}

// TestDigestsOfParts: a part may bring its own.
func TestDigestsOfParts(t *testing.T) {
	o := newOffice(t, 0)
	sha, _, _ := fieldOf([]byte("content"))
	upload := func(key, content string) *answer {
		boundary := "edge"
		body := "--edge\r\nContent-Disposition: form-data; name=\"document\"\r\n\r\n" + o.meta(nil) +
			"\r\n--edge\r\nContent-Disposition: form-data; name=\"body\"; filename=\"a.ofd\"\r\nContent-Digest: " + sha + "\r\n\r\n" + content + "\r\n--edge--\r\n"
		return o.do("jia", http.MethodPost, "/v1/documents", strings.NewReader(body), map[string]string{"Content-Type": "multipart/form-data; boundary=" + boundary, "Idempotency-Key": key})
	}
	if a := upload("1", "contend"); a.status != 400 || a.problem().Code != exchange.CodeDigestMismatch || !strings.Contains(a.problem().Detail, "part body") {
		t.Errorf("another part: %d %s", a.status, a.body)
	}
	o.nothingStored()
	o.ok(upload("2", "content"))
}

// TestDigestsOfAnswers: files and evidence say theirs, acts are held against theirs.
func TestDigestsOfAnswers(t *testing.T) {
	o := newOffice(t, 0)
	id := o.sent("1")
	_, _, both := fieldOf([]byte("attached"))
	if a := o.do("yi", http.MethodGet, "/v1/inbox/"+id+"/files/1", nil, map[string]string{"Range": "bytes=1-3"}); a.status != 206 || a.header.Get("Repr-Digest") != both {
		t.Errorf("a range of a file: %d %s", a.status, a.header.Get("Repr-Digest"))
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, o.url+"/v1/documents/"+id+"/evidence", nil)
	o.must(err)
	req.Header.Set("Authorization", "Bearer "+o.keys["jia"])
	res, err := http.DefaultClient.Do(req)
	o.must(err)
	defer res.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(res.Body)
	o.must(err)
	if _, _, want := fieldOf(b.Bytes()); res.Trailer.Get("Repr-Digest") != want || res.Trailer.Get("Content-Digest") != want {
		t.Errorf("the evidence's trailer is %v, want %s", res.Trailer, want)
	}
	for digest, status := range map[string]int{both: 400, func() string { s, _, _ := fieldOf([]byte(someone)); return s }(): 200} {
		with := map[string]string{"Content-Type": "application/json", "Content-Digest": digest}
		if a := o.do("yi", http.MethodPost, "/v1/inbox/"+id+"/accept", strings.NewReader(someone), with); a.status != status {
			t.Errorf("an act with %s: %d %s", digest, a.status, a.body)
		}
	}
}
