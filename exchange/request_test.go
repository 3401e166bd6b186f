package exchange

import (
	"bytes"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// aRequest is a request with every member filled in.
func aRequest(wish Wish) *Request {
	return &Request{
		Domain: "test", Wish: wish, Envelope: "01K0000000000000000000000A", Header: sm.Sum([]byte("header")),
		Recipients: []string{"11520000000000002X"}, Agency: "11520000000000001X",
		Actor: &Actor{Role: "机要员", Name: "王伟"}, Time: 1, Clock: "system", Directory: 7, Reason: "misdirected",
	}
}

func requestBytes(t testing.TB, r *Request) []byte {
	t.Helper()
	b, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseRequest(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(r *Request, b string) string
		code   string
	}{
		{"a recall", func(*Request, string) string { return "" }, ""},
		{"a reminder", func(r *Request, _ string) string { r.Wish = WishRemind; return "" }, ""},
		{"as many recipients as possible", func(r *Request, _ string) string {
			r.Recipients = strings.Split(strings.Repeat("11520000000000002X ", MaxRequestRecipients-1)+"11520000000000002X", " ")
			return ""
		}, ""},
		{"another type", func(_ *Request, b string) string { return strings.Replace(b, RequestType, ReceiptType, 1) }, CodeBadRequest},
		{"another version", func(_ *Request, b string) string { return strings.Replace(b, `"v":1`, `"v":2`, 1) }, CodeBadRequest},
		{"an unknown kind", func(_ *Request, b string) string { return strings.Replace(b, "RECALL", "FORGET", 1) }, CodeBadRequest},
		{"for nobody", func(r *Request, _ string) string { r.Recipients = nil; return "" }, CodeBadRequest},
		{"for too many", func(r *Request, _ string) string { r.Recipients = make([]string, MaxRequestRecipients+1); return "" }, CodeBadRequest},
		{"of nobody", func(r *Request, _ string) string { r.Agency = ""; return "" }, CodeBadRequest},
		{"about nothing", func(r *Request, _ string) string { r.Envelope = ""; return "" }, CodeBadRequest},
		{"too long", func(r *Request, _ string) string { r.Clock = strings.Repeat("x", MaxRequest); return "" }, CodeTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := aRequest(WishRecall)
			b := c.change(r, string(requestBytes(t, r)))
			if b == "" {
				b = string(requestBytes(t, r))
			}
			got, err := ParseRequest([]byte(b))
			if (err == nil) != (c.code == "") || err != nil && CodeOf(err) != c.code {
				t.Fatalf("got %v, want %q", err, c.code)
			}
			if err == nil && !bytes.Equal(requestBytes(t, got), []byte(b)) {
				t.Fatal("parse then marshal differs")
			}
		})
	}
	for wish := range wishes {
		if wish.Chinese() == "" || wish.English() == "" {
			t.Errorf("%s has no words for a person", wish)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	for wish := range wishes {
		f.Add(requestBytes(f, aRequest(wish)))
	}
	f.Add([]byte(strings.TrimSuffix(string(requestBytes(f, aRequest(WishRecall))), "}") + `,"zz":{"a":[1,true]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if err != nil {
			wantClass(t, err)
			return
		}
		if again := requestBytes(t, r); !bytes.Equal(again, b) {
			t.Fatalf("parse then marshal gives %q", again)
		}
		if !r.Wish.Known() || r.Agency == "" || len(r.Recipients) == 0 {
			t.Fatalf("accepted %+v", r)
		}
	})
}
