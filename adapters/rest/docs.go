package rest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // the page
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// The page at /docs is the description for people: one file without a script,
// made of the OpenAPI document, so it works where nothing else can be reached.

//go:embed docs.html
var docsPage string

//go:embed docs.css
var docsStyle string

var docsTemplate = template.Must(template.New("docs").Parse(docsPage))

// docsPolicy lets the page do nothing but show its own style.
var docsPolicy = func() string {
	sum := sha256.Sum256([]byte(docsStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

type docs struct {
	Title, Version string
	Introduction   []string
	Style          template.CSS
	Groups         []docsGroup
	Problems       []docsProblem
}

type docsGroup struct {
	Description string
	Operations  []docsOperation
}

type docsOperation struct {
	Method, Path, ID, Summary, Notes string
	Open                             bool
	Scopes                           []string
	Parameters                       []docsField
	Call                             string
	Body                             *docsBody
	Answers                          []docsAnswer
}

type docsField struct {
	Name, Kind, About string
	Required          bool
	Depth             int
}

type docsBody struct {
	Media, Example string
	Fields         []docsField
}

type docsAnswer struct {
	docsBody
	Status  string
	Good    bool
	About   []string
	Codes   []string
	Headers []docsField
}

type docsProblem struct {
	Code   string
	Status int
	ZH, EN exchange.Text
}

func (s *Server) docs() http.HandlerFunc {
	made := sync.OnceValues(func() ([]byte, error) {
		var b bytes.Buffer
		err := docsTemplate.Execute(&b, s.docsOf(s.OpenAPI()))
		return b.Bytes(), err
	})
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := made()
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", docsPolicy)
		_, _ = w.Write(b) // the client is gone if this fails
	}
}

func (s *Server) docsOf(api *huma.OpenAPI) *docs {
	d := &docs{
		Title: api.Info.Title, Version: api.Info.Version, Introduction: strings.Split(api.Info.Description, "\n\n"),
		Style: template.CSS(docsStyle), //nolint:gosec // our own file
	}
	for _, tag := range api.Tags {
		g := docsGroup{Description: tag.Description}
		for _, path := range slices.Sorted(maps.Keys(api.Paths)) {
			item := api.Paths[path]
			for _, op := range []*huma.Operation{item.Get, item.Head, item.Post} {
				if op != nil && slices.Contains(op.Tags, tag.Name) {
					g.Operations = append(g.Operations, s.docsOperation(op))
				}
			}
		}
		d.Groups = append(d.Groups, g)
	}
	for _, code := range api.Components.Schemas.Map()["Problem"].Properties["code"].Enum {
		c := code.(string)
		d.Problems = append(d.Problems, docsProblem{c, statusFor(c), exchange.Explain(c, "zh"), exchange.Explain(c, "en")})
	}
	return d
}

func (s *Server) docsOperation(op *huma.Operation) docsOperation {
	out := docsOperation{
		Method: op.Method, Path: op.Path, ID: op.OperationID, Summary: op.Summary, Notes: op.Description, Open: len(op.Security) == 0,
		Call: curl(op),
	}
	if !out.Open {
		out.Scopes = op.Security[0]["key"]
	}
	for _, p := range op.Parameters {
		f := docsField{Name: p.Name, Kind: p.In + ": " + kindOf(p.Schema), About: cmp.Or(p.Description, p.Schema.Description), Required: p.Required}
		out.Parameters = append(out.Parameters, f)
	}
	if op.RequestBody != nil {
		b := s.docsBody(op.RequestBody.Content)
		out.Body = &b
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[status]
		a := docsAnswer{Status: status, Good: status < "400", About: strings.Split(r.Description, "\n\n")}
		if a.Good {
			a.docsBody = s.docsBody(r.Content)
		}
		for _, line := range a.About {
			if code, _, ok := strings.Cut(strings.TrimPrefix(line, "`"), "`: "); ok {
				a.Codes = append(a.Codes, code)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
			a.Headers = append(a.Headers, docsField{Name: name, About: r.Headers[name].Description})
		}
		out.Answers = append(out.Answers, a)
	}
	return out
}

func (s *Server) docsBody(content map[string]*huma.MediaType) (b docsBody) {
	for _, media := range slices.Sorted(maps.Keys(content)) {
		m := content[media]
		b.Media = media
		if m.Example != nil {
			if text, err := json.MarshalIndent(m.Example, "", "  "); err == nil {
				b.Example = string(text)
			}
		}
		b.Fields = s.docsFields(m.Schema, 0, nil)
	}
	return b
}

// maxDocsDepth bounds how deep the members of an object are listed.
const maxDocsDepth = 3

func (s *Server) docsFields(of *huma.Schema, depth int, out []docsField) []docsField {
	if of = s.resolved(of); of == nil || depth > maxDocsDepth {
		return out
	}
	for _, name := range slices.Sorted(maps.Keys(of.Properties)) {
		p := s.resolved(of.Properties[name])
		out = append(out, docsField{
			Name: name, Kind: kindOf(p), About: p.Description, Required: slices.Contains(of.Required, name), Depth: depth,
		})
		inner := p
		if p.Type == huma.TypeArray {
			inner = p.Items
		}
		out = s.docsFields(inner, depth+1, out)
	}
	if of.Type == huma.TypeArray {
		return s.docsFields(of.Items, depth, out)
	}
	return out
}

func (s *Server) resolved(of *huma.Schema) *huma.Schema {
	if of != nil && of.Ref != "" {
		return s.api.OpenAPI().Components.Schemas.SchemaFromRef(of.Ref)
	}
	return of
}

// kindOf says in a word what a value may be.
func kindOf(s *huma.Schema) string {
	kind := s.Type
	if s.Format != "" {
		kind += " " + s.Format
	}
	if s.ContentEncoding != "" {
		kind += " " + s.ContentEncoding
	}
	if s.MaxLength != nil {
		kind += fmt.Sprintf(", ≤ %d", *s.MaxLength)
	}
	if s.MaxItems != nil {
		kind += fmt.Sprintf(", ≤ %d", *s.MaxItems)
	}
	if s.Minimum != nil && s.Maximum != nil {
		kind += fmt.Sprintf(", %g–%g", *s.Minimum, *s.Maximum)
	}
	if s.Default != nil {
		kind += fmt.Sprintf(", = %v", s.Default)
	}
	return kind
}

// curl is one use of an operation on the command line.
func curl(op *huma.Operation) string {
	var b strings.Builder
	b.WriteString("curl ")
	if op.Method == http.MethodHead {
		b.WriteString("--head ")
	}
	if len(op.Security) > 0 {
		b.WriteString(`-H "Authorization: Bearer $YIZHAN_KEY" `)
	}
	path := op.Path
	for _, p := range op.Parameters {
		switch {
		case p.In == "path":
			path = strings.ReplaceAll(path, "{"+p.Name+"}", exampleOr(p.Schema, exampleID))
		case p.Required && p.In == "header":
			fmt.Fprintf(&b, "-H '%s: %s' ", p.Name, exampleOr(p.Schema, "…"))
		}
	}
	if op.RequestBody != nil {
		if m := op.RequestBody.Content["application/json"]; m != nil {
			text, err := json.Marshal(m.Example)
			if err == nil {
				fmt.Fprintf(&b, "\\\n  -H 'Content-Type: application/json' -d '%s' ", text)
			}
		} else {
			b.WriteString("\\\n  -F 'document=@document.json;type=application/json' -F 'body=@正文.ofd' -F 'attachment=@附件1.pdf' ")
		}
	}
	return b.String() + `"$YIZHAN_SERVER` + path + `"`
}

func exampleOr(s *huma.Schema, other string) string {
	if s != nil && len(s.Examples) > 0 {
		return fmt.Sprint(s.Examples[0])
	}
	return other
}
