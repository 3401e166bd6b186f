package main

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// expiryThresholds are the days before a certificate's end at which it is
// warned of it, once each.
var expiryThresholds = []int{60, 30, 14, 7, 1}

// held is the certificate that a holder uses, or used last, for something: the
// newest that is not revoked. Older ones end in their time and are not missed.
type held struct {
	kind  string // node, agency; authority, timestamp, issuer, administrator
	id    string // name, code; domain, serial number, subject, id
	whose string // in words, where the id does not tell a person
	use   string
	cert  *certs.Certificate // nil: there is none at all
}

// stops says whether something stops when the certificate has ended. What an
// issuer issued goes on to count, and other administrators approve.
func (h *held) stops() bool { return h.kind != "issuer" && h.kind != "administrator" }

// of names the holder for people, behind a text in whatever language.
func (h *held) of() string {
	if h.whose == "" {
		return ""
	}
	return " (" + visible(h.whose) + ")"
}

// heldBy gives what a node and the agencies it serves hold, signing and
// encryption each.
func heldBy(d *certs.Directory, node string, now time.Time) []held {
	var list []held
	add := func(kind, id string, h *certs.Holder) {
		for _, use := range []string{certs.UseSign, certs.UseEncrypt} {
			list = append(list, held{kind: kind, id: id, use: use, cert: newest(h, use, now)})
		}
	}
	if n, ok := d.Node(node); ok {
		add("node", n.ID, &n.Holder)
	}
	for _, a := range d.Agencies() {
		if a.Node == node {
			add("agency", a.Code, &a.Holder)
		}
	}
	return list
}

// watched is heldBy with what the node depends on and does not hold itself: the
// certificates of the authority, of the timestamp authorities and issuers that
// the directory names, and of the administrators.
func watched(d *certs.Directory, node string, now time.Time) []held {
	list := heldBy(d, node, now)
	if cert, err := cms.ParseCertificate(d.Authority()); err == nil {
		own := &certs.Certificate{Use: certs.UseSign, DER: cert.Raw, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter}
		list = append(list, held{kind: "authority", id: d.Domain(), use: certs.UseSign, cert: own})
	}
	list = append(list, timestampers(d, now)...)
	list = append(list, issuers(d, now)...)
	for _, a := range d.Administrators() {
		list = append(list, held{"administrator", a.ID, a.Name, certs.UseSign, newest(&a.Holder, certs.UseSign, now)})
	}
	return list
}

// timestampers gives the newest certificate of each timestamp authority: those
// before it stay in the directory for the tokens that they signed.
func timestampers(d *certs.Directory, now time.Time) (list []held) {
	for _, t := range d.TSAs() {
		if t.Certificate.RevokedAt(now) {
			continue
		}
		h := held{"timestamp", t.Certificate.Serial, "", certs.UseSign, &t.Certificate}
		if cert, err := cms.ParseCertificate(t.Certificate.DER); err == nil {
			h.whose = cert.Subject.String()
		}
		list = latest(list, h)
	}
	return list
}

// issuers gives the newest certificate of each outside issuer. Former ones of
// the authority are issuers, too, and their end is nobody's trouble.
func issuers(d *certs.Directory, now time.Time) (list []held) {
	former := d.Former()
	for _, i := range d.Issuers() {
		if i.Revoked != nil && !now.Before(i.Revoked.Effective) || slices.ContainsFunc(former, func(der []byte) bool { return bytes.Equal(der, i.DER) }) {
			continue
		}
		cert := &certs.Certificate{Use: certs.UseSign, DER: i.DER, NotBefore: i.NotBefore, NotAfter: i.NotAfter}
		list = latest(list, held{"issuer", visible(i.Subject), i.Subject, certs.UseSign, cert})
	}
	return list
}

// latest adds a certificate to a list, unless the same holder has a later one.
func latest(list []held, h held) []held {
	i := slices.IndexFunc(list, func(had held) bool { return had.whose == h.whose })
	if i < 0 || h.whose == "" {
		return append(list, h)
	}
	if h.cert.NotAfter.After(list[i].cert.NotAfter) {
		list[i] = h
	}
	return list
}

func newest(h *certs.Holder, use string, now time.Time) *certs.Certificate {
	if c, err := h.Current(use, now); err == nil {
		return c
	}
	var last *certs.Certificate
	for i := range h.Certificates {
		c := &h.Certificates[i]
		if c.Use == use && !c.RevokedAt(now) && (last == nil || c.NotAfter.After(last.NotAfter)) {
			last = c
		}
	}
	return last
}

// days until the certificate ends; negative when it has.
func (h *held) days(now time.Time) float64 { return h.cert.NotAfter.Sub(now).Hours() / 24 }

// threshold gives the smallest threshold that was crossed; 0 when it has
// ended, and false when there is time.
func (h *held) threshold(now time.Time) (int, bool) {
	days := h.days(now)
	if days <= 0 {
		return 0, true
	}
	crossed, any := 0, false
	for _, t := range expiryThresholds {
		if days <= float64(t) {
			crossed, any = t, true
		}
	}
	return crossed, any
}

// remedy says who does what.
func (h *held) remedy() string {
	switch h.kind {
	case "authority":
		return both("the authority makes its successor with yizhan ca succeed and publishes", "请名录机构用 yizhan ca succeed 更换密钥并发布名录")
	case "timestamp":
		return both("the authority names the timestamp authority's next certificate with yizhan ca tsa and publishes", "请名录机构用 yizhan ca tsa 列入时间戳机构的新证书并发布名录")
	case "issuer":
		return both("the authority names the issuer's next certificate with yizhan ca issuer and publishes; what it issued goes on to count", "请名录机构用 yizhan ca issuer 列入该机构的新证书并发布名录；其已签发的证书继续有效")
	case "administrator":
		return both("the authority gives the administrator a further key with yizhan directory administrator, and publishes; the old key approves that as long as it is valid", "请名录机构用 yizhan directory administrator 为该管理员增设密钥并发布名录；旧密钥在有效期内仍可批准该次发布")
	}
	return both("renew with yizhan cert renew and have the authority admit the request", "请用 yizhan cert renew 生成新密钥，并请名录机构登记")
}

// expiryWatch remembers of which certificate and threshold it was told.
type expiryWatch map[expiryMark]bool

type expiryMark struct {
	cert      sm.Digest
	threshold int
}

// warn calls tell once for each certificate and threshold that was crossed.
func (w expiryWatch) warn(list []held, now time.Time, tell func(h *held, threshold int)) {
	for i := range list {
		h := &list[i]
		if h.cert == nil {
			continue
		}
		t, crossed := h.threshold(now)
		mark := expiryMark{sm.Sum(h.cert.DER), t}
		if !crossed || w[mark] {
			continue
		}
		w[mark] = true
		tell(h, t)
	}
}

// warnOfExpiry logs certificates that come to their end: at the start, and
// then looks every ten minutes.
func (g *gateway) warnOfExpiry(ctx context.Context) {
	seen := expiryWatch{}
	for {
		now := time.Now()
		seen.warn(watched(g.directory.Load(), g.settings.Node, now), now, func(h *held, threshold int) {
			if threshold == 0 {
				level := slog.LevelError
				if !h.stops() {
					level = slog.LevelWarn
				}
				g.log.Log(ctx, level, "a certificate has expired: "+h.remedy(), "kind", h.kind, "holder", h.id, "use", h.use, "ended", h.cert.NotAfter.UTC().Format(time.DateOnly))
				return
			}
			g.log.Warn("a certificate expires soon: "+h.remedy(), "kind", h.kind, "holder", h.id, "use", h.use,
				"within_days", threshold, "days", math.Floor(h.days(now)), "ends", h.cert.NotAfter.UTC().Format(time.DateOnly))
		})
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Minute):
		}
	}
}
