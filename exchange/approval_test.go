package exchange

import (
	"bytes"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

func anApproval(change func(*GuardApproval)) *GuardApproval {
	a := &GuardApproval{
		Domain: "示范域", Node: "jia", Link: "jia-yi", Header: sm.Sum([]byte("header")),
		Verdict: VerdictRefuse, Administrator: "zhang-san", Reason: "不宜外发", Time: 1_795_000_000_000,
	}
	if change != nil {
		change(a)
	}
	return a
}

func approvalBytes(t testing.TB, a *GuardApproval) []byte {
	t.Helper()
	b, err := a.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseGuardApproval(t *testing.T) {
	good := approvalBytes(t, anApproval(nil))
	if a, err := ParseGuardApproval(good); err != nil || a.Reason != "不宜外发" {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, err := ParseGuardApproval(approvalBytes(t, anApproval(func(a *GuardApproval) { a.Verdict, a.Reason = VerdictApprove, "" }))); err != nil {
		t.Error(err)
	}
	for name, b := range map[string][]byte{
		"another verdict":     approvalBytes(t, anApproval(func(a *GuardApproval) { a.Verdict = "perhaps" })),
		"no reason":           approvalBytes(t, anApproval(func(a *GuardApproval) { a.Reason = "" })),
		"a long reason":       approvalBytes(t, anApproval(func(a *GuardApproval) { a.Reason = strings.Repeat("因", 501) })),
		"a control character": approvalBytes(t, anApproval(func(a *GuardApproval) { a.Reason = "a\x1b[2J" })),
		"no administrator":    approvalBytes(t, anApproval(func(a *GuardApproval) { a.Administrator = "张三" })),
		"no link":             approvalBytes(t, anApproval(func(a *GuardApproval) { a.Link = "a/b" })),
		"another type":        []byte(strings.Replace(string(good), GuardApprovalType, RequestType, 1)),
		"another version":     []byte(strings.Replace(string(good), `"v":1`, `"v":2`, 1)),
		"a critical member":   []byte(strings.Replace(string(good), `"v":1`, `"v":1,"crit":["x"]`, 1)),
		"too large":           bytes.Repeat([]byte(" "), MaxGuardApproval+1),
		"white space":         append(bytes.Clone(good), '\n'),
		"nothing":             nil,
	} {
		if _, err := ParseGuardApproval(b); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func FuzzParseGuardApproval(f *testing.F) {
	f.Add(approvalBytes(f, anApproval(nil)))
	f.Add(approvalBytes(f, anApproval(func(a *GuardApproval) { a.Verdict, a.Reason = VerdictApprove, "" })))
	f.Add([]byte(strings.TrimSuffix(string(approvalBytes(f, anApproval(nil))), "}") + `,"zz":{"a":[1,true]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseGuardApproval(b)
		if err != nil {
			return
		}
		if again := approvalBytes(t, a); !bytes.Equal(again, b) {
			t.Fatalf("parse then marshal gives %q", again)
		}
		if a.Verdict == VerdictRefuse && a.Reason == "" || a.Administrator == "" {
			t.Fatalf("accepted %+v", a)
		}
	})
}
