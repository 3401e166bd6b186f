package trust

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"
)

const maxRedirects = 3

// newClient makes a client that goes where the directory says and nowhere
// else: no proxy from the environment, no redirect to another host, no
// cookies, and no address by which a name could lead to services of this
// machine or of the cloud it runs in.
func newClient(allowLocal bool, timeout time.Duration) *http.Client {
	dialer := &net.Dialer{Timeout: timeout, Control: func(_, address string, _ syscall.RawConn) error {
		return checkAddress(address, allowLocal)
	}}
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, DisableKeepAlives: true, DisableCompression: true,
			TLSHandshakeTimeout: timeout, ResponseHeaderTimeout: timeout, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			first := via[0].URL
			if len(via) > maxRedirects || next.URL.Scheme != first.Scheme || next.URL.Host != first.Host || next.URL.User != nil {
				return errors.New("it redirects to another place than the directory names")
			}
			return nil
		},
	}
}

// metadata are addresses at which clouds tell a machine its secrets, besides
// the link-local ones.
var metadata = []netip.Prefix{
	netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("fd00:ec2::254/128"),
}

// nat64 is the prefix behind which an IPv6 address is an IPv4 address.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// checkAddress judges the very address that is about to be dialled: a name
// that resolves to another one the second time gains nothing.
func checkAddress(address string, allowLocal bool) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := to.Addr().Unmap().WithZone("")
	if nat64.Contains(ip) {
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	if ip.IsLoopback() && allowLocal {
		return nil
	}
	local := ip.IsLoopback() || ip.IsLinkLocalUnicast()
	for _, p := range metadata {
		local = local || p.Contains(ip)
	}
	never := ip.IsUnspecified() || ip.IsMulticast() || ip.Is4() && ip.As4()[0] == 0
	if never || local && !allowLocal {
		return fmt.Errorf("%s is an address of this machine or its link, and no source outside: [trust] allow_local permits it", ip)
	}
	return nil
}

// fetch gets at most atMost bytes; body nil asks with GET, else POST.
func (w *Watcher) fetch(ctx context.Context, r *http.Request, atMost int64) ([]byte, error) {
	return fetch(ctx, w.client, r, atMost)
}

func fetch(ctx context.Context, client *http.Client, r *http.Request, atMost int64) ([]byte, error) {
	u := r.URL
	if err := checkURL(u); err != nil {
		return nil, err
	}
	resp, err := client.Do(r.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("trust: %s answers %d", u.Host, resp.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, atMost+1))
	if err != nil {
		return nil, fmt.Errorf("trust: %s: %w", u.Host, err)
	}
	if int64(len(b)) > atMost {
		return nil, fmt.Errorf("trust: %s answers more than %d bytes", u.Host, atMost)
	}
	return b, nil
}

// checkURL accepts what the directory accepts; it is judged again because
// whoever calls may have it from elsewhere.
func checkURL(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return fmt.Errorf("trust: a source is at http or https, without a user: %.10q", u.Scheme)
	}
	return nil
}
