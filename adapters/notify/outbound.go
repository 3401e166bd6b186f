package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Limits of a call.
const (
	callTime    = 15 * time.Second
	maxAnswer   = 4 << 10 // bytes read of an answer's body, to use the connection again
	maxHeaders  = 16 << 10
	maxURL      = 2048
	maxAfter    = time.Hour // of a Retry-After
	idleForHost = 2
)

// internal lists the networks that are no public address (RFC 6890 and what came
// since), and those that carry another address in themselves.
var internal = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
	"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	"5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// Outbound calls addresses that others chose. The address that a name resolves to is
// looked at when the connection is made, so a name that changes its mind gains
// nothing; no proxy is used and no redirect followed.
type Outbound struct {
	client *http.Client
	allow  []netip.Prefix
	plain  bool
}

// NewOutbound allows the internal networks that are listed, trusts roots (nil: the
// system's), and http besides https where plain says so.
func NewOutbound(allow []netip.Prefix, roots *x509.CertPool, plain bool) *Outbound {
	o := &Outbound{allow: allow, plain: plain}
	dialer := &net.Dialer{Timeout: callTime, ControlContext: o.control}
	o.client = &http.Client{
		Timeout: callTime,
		Transport: &http.Transport{
			Proxy: nil, DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true, MaxResponseHeaderBytes: maxHeaders, MaxIdleConnsPerHost: idleForHost, IdleConnTimeout: time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return o
}

func (o *Outbound) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !o.permits(at.Addr()) {
		return ErrForbidden
	}
	return nil
}

func (o *Outbound) permits(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	within := func(p netip.Prefix) bool { return p.Contains(a) }
	return slices.ContainsFunc(o.allow, within) || !slices.ContainsFunc(internal, within)
}

// Check says whether an address may be called, as far as its text tells.
func (o *Outbound) Check(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || len(raw) > maxURL || u.Host == "" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return ErrURL
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !o.plain) {
		return ErrURL
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && !o.permits(a) {
		return ErrForbidden
	}
	return nil
}

// Answer is what a receiver said.
type Answer struct {
	Status int
	After  time.Duration // of a Retry-After; 0: none
}

// Post calls once.
func (o *Outbound) Post(ctx context.Context, to string, header http.Header, body []byte) (Answer, error) {
	if err := o.Check(to); err != nil {
		return Answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return Answer{}, ErrURL
	}
	req.Header = header
	res, err := o.client.Do(req)
	if err != nil {
		return Answer{}, reason(err)
	}
	defer res.Body.Close()
	// What the receiver writes is its own affair; it is read to use the connection again.
	_, _ = io.CopyN(io.Discard, res.Body, maxAnswer)
	a := Answer{Status: res.StatusCode, After: after(res.Header.Get("Retry-After"))}
	if res.StatusCode >= 300 && res.StatusCode < 400 {
		return a, ErrRedirect
	}
	return a, nil
}

// reason is what went wrong without the address, which may hold a secret of the
// receiver's.
func reason(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	if errors.Is(err, ErrForbidden) {
		return ErrForbidden
	}
	return err
}

func after(s string) time.Duration {
	seconds, err := strconv.Atoi(s)
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(min(seconds, 1<<20))*time.Second, maxAfter)
}
