package main

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// directoryView is a directory as "directory show --json" prints it.
type directoryView struct {
	Domain         string              `json:"domain"`
	Version        uint64              `json:"version"`
	Fingerprint    string              `json:"fingerprint"`
	Issued         time.Time           `json:"issued"`
	NextUpdate     time.Time           `json:"next_update"`
	Stale          bool                `json:"stale"`
	Successions    int                 `json:"successions"`
	ApprovedBy     []string            `json:"approved_by"`
	Policy         policyView          `json:"policy"`
	Administrators []administratorView `json:"administrators"`
	Agencies       []agencyView        `json:"agencies"`
	Nodes          []nodeView          `json:"nodes"`
	Links          []linkView          `json:"links"`
	Routes         []routeView         `json:"routes"`
	Inspections    []inspectionView    `json:"inspections"`
	Issuers        []issuerView        `json:"issuers"`
	TSAs           []tsaView           `json:"timestamp_authorities"`
	Revocations    []revocationView    `json:"revocations"`

	Authorities []authorityCertificateView `json:"authority_certificates"` // the newest first
}

type policyView struct {
	Approvals int      `json:"approvals"`
	Able      int      `json:"administrators_able,omitempty"` // who have a valid certificate
	Unable    []string `json:"administrators_not_able,omitempty"`
	Missing   int      `json:"administrators_missing,omitempty"`
}

func policyViewOf(q *certs.Quorum) policyView {
	return policyView{q.Needed, len(q.Able), q.Unable, q.Missing()}
}

// unmet says that nothing can be approved any more, and why; empty when it can.
func (p *policyView) unmet(say func(en, zh string) string) string {
	if p.Missing == 0 {
		return ""
	}
	return fmt.Sprintf(say("the policy cannot be met: it asks for %[1]d approvals, and %[2]d of %[3]d administrators have a certificate that is valid and not revoked (not: %[4]s); %[5]d are missing",
		"批准策略无法满足：要求 %[1]d 名管理员批准，%[3]d 名管理员中仅 %[2]d 名的证书有效且未吊销（无效：%[4]s），缺 %[5]d 名"),
		p.Approvals, p.Able, p.Able+len(p.Unable), or(strings.Join(p.Unable, ", "), "-"), p.Missing)
}

type administratorView struct {
	ID           string            `json:"id"`
	Name         string            `json:"name"`
	Certificates []certificateView `json:"certificates"`
}

type agencyView struct {
	Code         string            `json:"code"`
	Name         string            `json:"name"`
	Aliases      []string          `json:"aliases,omitempty"`
	Groups       []string          `json:"groups,omitempty"`
	Branch       string            `json:"branch,omitempty"`
	Parent       string            `json:"parent,omitempty"`
	Node         string            `json:"node"`
	From         *time.Time        `json:"from,omitempty"`
	Until        *time.Time        `json:"until,omitempty"`
	Successor    string            `json:"successor,omitempty"`
	Certificates []certificateView `json:"certificates"`
}

type nodeView struct {
	ID           string            `json:"id"`
	Zone         string            `json:"zone"`
	URL          string            `json:"url,omitempty"`
	TLSPin       string            `json:"tls_pin"`
	Certificates []certificateView `json:"certificates"`
}

type linkView struct {
	ID      string `json:"id"`
	A       string `json:"a"`
	B       string `json:"b"`
	Dialer  string `json:"dialer"`
	Kind    string `json:"kind"`
	Ceiling string `json:"ceiling"`
	OneWay  string `json:"oneway,omitempty"` // who sends; absent: both
}

type routeView struct {
	From string `json:"from"`
	To   string `json:"to"`
	Next string `json:"next"`
}

type inspectionView struct {
	Node string `json:"node"`
	Link string `json:"link"` // empty: all links of the node
}

type certificateView struct {
	Use         string          `json:"use"`
	Serial      string          `json:"serial"`
	From        time.Time       `json:"from"`
	Until       time.Time       `json:"until"`
	Revoked     *revocationView `json:"revoked,omitempty"`
	Fingerprint string          `json:"fingerprint"` // SM3 of its DER
	KeyID       string          `json:"key_id"`
}

type revocationView struct {
	Certificate string    `json:"certificate,omitempty"` // SM3 of its DER
	Effective   time.Time `json:"effective"`
	Reason      string    `json:"reason"`
	Source      string    `json:"source,omitempty"`
}

type issuerView struct {
	Subject     string          `json:"subject"`
	Fingerprint string          `json:"fingerprint"`
	CRL         string          `json:"crl,omitempty"`
	OCSP        string          `json:"ocsp,omitempty"`
	From        time.Time       `json:"from"`
	Until       time.Time       `json:"until"`
	Revoked     *revocationView `json:"revoked,omitempty"`
}

type tsaView struct {
	URL         string          `json:"url,omitempty"`
	Fingerprint string          `json:"fingerprint"`
	Certificate certificateView `json:"certificate"`
}

func viewOf(d *certs.Directory, now time.Time) *directoryView {
	v := &directoryView{
		Domain: d.Domain(), Version: d.Version(), Fingerprint: d.Fingerprint(),
		Issued: d.Issued(), NextUpdate: d.NextUpdate(), Stale: d.Stale(now),
		Successions: d.Successions(), ApprovedBy: append([]string{}, d.Approvals()...), Policy: policyViewOf(d.Quorum(now)),
		Administrators: []administratorView{}, Agencies: []agencyView{}, Nodes: []nodeView{}, Links: []linkView{},
		Routes: []routeView{}, Inspections: []inspectionView{}, Issuers: []issuerView{}, TSAs: []tsaView{}, Revocations: []revocationView{},
	}
	v.Authorities = authoritiesOf(d)
	for _, x := range d.Administrators() {
		v.Administrators = append(v.Administrators, administratorView{x.ID, x.Name, certificateViews(x.Certificates)})
	}
	for _, x := range d.Agencies() {
		v.Agencies = append(v.Agencies, agencyView{
			Code: x.Code, Name: x.Name, Aliases: x.Aliases, Groups: x.Groups, Branch: x.Branch, Parent: x.Parent, Node: x.Node,
			From: timeView(x.From), Until: timeView(x.Until), Successor: x.Successor, Certificates: certificateViews(x.Certificates),
		})
	}
	for _, x := range d.Nodes() {
		v.Nodes = append(v.Nodes, nodeView{x.ID, x.Zone, x.URL, hex.EncodeToString(x.TLSPin[:]), certificateViews(x.Certificates)})
	}
	for _, x := range d.Links() {
		v.Links = append(v.Links, linkView{x.ID, x.A, x.B, x.Dialer, x.Kind, x.Ceiling, x.OneWay})
	}
	for _, x := range d.Routes() {
		v.Routes = append(v.Routes, routeView(x))
	}
	for _, x := range d.Inspections() {
		v.Inspections = append(v.Inspections, inspectionView(x))
	}
	for _, x := range d.Issuers() {
		v.Issuers = append(v.Issuers, issuerView{x.Subject, certs.Fingerprint(x.DER), x.CRL, x.OCSP, x.NotBefore, x.NotAfter, revokedView(x.Revoked)})
	}
	for _, x := range d.TSAs() {
		v.TSAs = append(v.TSAs, tsaView{x.URL, certs.Fingerprint(x.Certificate.DER), certificateViews([]certs.Certificate{x.Certificate})[0]})
	}
	for _, x := range d.Revocations() {
		r := revokedView(&x.Revocation)
		r.Certificate, r.Source = x.Certificate.String(), ""
		v.Revocations = append(v.Revocations, *r)
	}
	return v
}

func timeView(t strictjson.Time) *time.Time {
	if t == 0 {
		return nil
	}
	at := t.Time()
	return &at
}

func certificateViews(list []certs.Certificate) []certificateView {
	out := []certificateView{}
	for _, c := range list {
		out = append(out, certificateView{c.Use, c.Serial, c.NotBefore.UTC(), c.NotAfter.UTC(), revokedView(c.Revoked), certs.Fingerprint(c.DER), inFours(c.KeyID)})
	}
	return out
}

func revokedView(r *certs.Revocation) *revocationView {
	if r == nil {
		return nil
	}
	return &revocationView{Effective: r.Effective.UTC(), Reason: r.Reason, Source: r.Source}
}

// words gives the headings of the text in one of two languages.
func words(lang string) func(en, zh string) string {
	return func(en, zh string) string {
		if lang == "zh" {
			return zh
		}
		return en
	}
}

// text is the directory for people, in English or Chinese.
func (v *directoryView) text(lang string) string {
	say := words(lang)
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(say("%s, version %d", "%s，第 %d 版"), v.Domain, v.Version)
	line(say("fingerprint: %s", "指纹：%s"), v.Fingerprint)
	b.WriteString(v.otherAuthorities(say))
	line(say("issued %s, next update by %s", "发布于 %s，应于 %s 前更新"), minute(v.Issued), minute(v.NextUpdate))
	if v.Stale {
		line("%s", say("it is stale: get the newest from the authority", "名录已过期：请向名录机构索取最新版本"))
	}
	if v.Successions > 0 {
		line(say("the authority's key was replaced %d times", "名录机构密钥已更换 %d 次"), v.Successions)
	}
	line(say("approvals needed: %d; approved by: %s", "需 %d 名管理员批准；已批准：%s"), v.Policy.Approvals, or(strings.Join(v.ApprovedBy, ", "), "-"))
	if unmet := v.Policy.unmet(say); unmet != "" {
		line("%s", unmet)
	}
	section := func(title string, n int) {
		if n > 0 {
			line("\n%s (%d)", title, n)
		}
	}
	section(say("agencies", "单位"), len(v.Agencies))
	v.tree(&b, say, "", 1)
	section(say("nodes", "节点"), len(v.Nodes))
	for _, n := range v.Nodes {
		line("  %s  %s  %s", n.ID, n.Zone, or(n.URL, "-"))
		certificateLines(&b, say, n.Certificates, "    ")
	}
	section(say("links", "链路"), len(v.Links))
	for _, l := range v.Links {
		line(say("  %s  %s – %s  %s, %s dials, up to %s", "  %s  %s – %s  %s，由 %s 拨号，上限 %s"), l.ID, l.A, l.B, l.Kind, l.Dialer, l.Ceiling)
		if l.OneWay != "" {
			line(say("    one way: only %s sends, nothing comes back", "    单向：仅 %s 发送，无回执通道"), l.OneWay)
		}
	}
	section(say("routes", "路由"), len(v.Routes))
	for _, r := range v.Routes {
		line(say("  from %s to %s by %s", "  从 %s 到 %s 经 %s"), r.From, r.To, r.Next)
	}
	section(say("inspection points", "检查点"), len(v.Inspections))
	for _, x := range v.Inspections {
		line("  %s  %s", x.Node, or(x.Link, say("all its links", "其全部链路")))
	}
	section(say("administrators", "管理员"), len(v.Administrators))
	for _, x := range v.Administrators {
		line("  %s  %s", x.ID, x.Name)
		certificateLines(&b, say, x.Certificates, "    ")
	}
	section(say("issuers besides the authority", "其他签发机构"), len(v.Issuers))
	for _, x := range v.Issuers {
		line("  %s\n    %s", x.Subject, x.Fingerprint)
		if x.CRL+x.OCSP != "" {
			line("    CRL %s  OCSP %s", or(x.CRL, "-"), or(x.OCSP, "-"))
		}
		if x.Revoked != nil {
			line(say("    revoked since %s (%s)", "    自 %s 起吊销（%s）"), minute(x.Revoked.Effective), x.Revoked.Reason)
		}
	}
	section(say("timestamp authorities", "时间戳机构"), len(v.TSAs))
	for _, x := range v.TSAs {
		line("  %s  %s", or(x.URL, "-"), x.Fingerprint)
	}
	section(say("revocations", "吊销"), len(v.Revocations))
	for _, r := range v.Revocations {
		line(say("  %s since %s (%s)", "  %s 自 %s 起（%s）"), r.Certificate, minute(r.Effective), r.Reason)
	}
	return b.String()
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04Z") }

// tree writes the agencies below one, those without a parent first.
func (v *directoryView) tree(b *strings.Builder, say func(en, zh string) string, parent string, depth int) {
	indent := strings.Repeat("  ", depth)
	for _, x := range v.Agencies {
		if x.Parent != parent {
			continue
		}
		fmt.Fprintf(b, "%s%s  %s  (%s)", indent, x.Code, x.Name, x.Node)
		for _, part := range []struct{ name, text string }{
			{"", say(x.Branch, certs.BranchName(x.Branch))},
			{say("also ", "又名 "), strings.Join(x.Aliases, ", ")},
			{say("in ", "属于 "), strings.Join(x.Groups, ", ")},
			{say("from ", "自 "), dayOf(x.From)}, {say("until ", "至 "), dayOf(x.Until)},
			{say("then ", "其后 "), x.Successor},
		} {
			if part.text != "" {
				fmt.Fprintf(b, "; %s%s", part.name, part.text)
			}
		}
		b.WriteString("\n")
		certificateLines(b, say, x.Certificates, indent+"  ")
		v.tree(b, say, x.Code, depth+1)
	}
}

func dayOf(t *time.Time) string {
	if t == nil {
		return ""
	}
	return minute(*t)
}

// certificateLines writes what a person needs of certificates: the newest of
// each use, and whichever is revoked.
func certificateLines(b *strings.Builder, say func(en, zh string) string, list []certificateView, indent string) {
	var seen []string
	for _, c := range list {
		if slices.Contains(seen, c.Use) && c.Revoked == nil {
			continue
		}
		seen = append(seen, c.Use)
		fmt.Fprintf(b, say("%s%s %s, valid %s to %s", "%s%s %s，有效期 %s 至 %s"), indent, c.Use, c.Serial, c.From.Format(time.DateOnly), c.Until.Format(time.DateOnly))
		if c.Revoked != nil {
			fmt.Fprintf(b, say(", revoked since %s (%s, %s)", "，自 %s 起吊销（%s，%s）"), minute(c.Revoked.Effective), c.Revoked.Reason, c.Revoked.Source)
		}
		b.WriteString("\n")
	}
}
