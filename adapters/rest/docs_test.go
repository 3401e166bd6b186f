package rest

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// TestDocsPage: the page names every operation and every problem, loads nothing,
// runs nothing, and its policy permits its own style alone.
func TestDocsPage(t *testing.T) {
	o := newOffice(t, 0)
	a := o.do("", http.MethodGet, "/docs", nil, nil)
	page := string(a.body)
	for path, item := range o.rest.OpenAPI().Paths {
		if item.Get != nil && !strings.Contains(page, `id="`+item.Get.OperationID+`"`) || item.Post != nil && !strings.Contains(page, `id="`+item.Post.OperationID+`"`) {
			t.Errorf("%s is not on the page", path)
		}
	}
	for code := range statusOf {
		if !strings.Contains(page, `id="problem-`+code+`"`) || !strings.Contains(page, exchange.Explain(code, "zh").Title) {
			t.Errorf("problem %s is not on the page", code)
		}
	}
	for _, bad := range []string{"<script", "<img", "<link", "@import", "url(", "ZgotmplZ"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	if m := regexp.MustCompile(`(src|href)="[^#/]`).FindString(page); m != "" {
		t.Errorf("the page refers to elsewhere: %s", m)
	}
	style := page[strings.Index(page, "<style>")+len("<style>") : strings.Index(page, "</style>")]
	sum := sha256.Sum256([]byte(style))
	policy := a.header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") || !strings.HasPrefix(policy, "default-src 'none'") {
		t.Errorf("the policy %s does not fit the style", policy)
	}
}
