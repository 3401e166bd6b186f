package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
)

// The states of an authority's certificates. Who joins compares the one that
// signed the directory file; it is never one that is to come.
const (
	stateNext    = "next"    // it signs the next publication
	stateCurrent = "current" // it signed this directory
	stateFormer  = "former"  // nodes that trust it follow to the current one
)

type authorityCertificateView struct {
	Fingerprint string          `json:"fingerprint"`
	State       string          `json:"state"`
	From        time.Time       `json:"from"`
	Until       time.Time       `json:"until"`
	Revoked     *revocationView `json:"revoked,omitempty"`
}

// authoritiesOf gives the certificates of the authority that a directory knows.
func authoritiesOf(d *certs.Directory) []authorityCertificateView {
	out := []authorityCertificateView{authorityCertificate(d.Authority(), stateCurrent)}
	for _, der := range slices.Backward(d.Former()) {
		v := authorityCertificate(der, stateFormer)
		for _, i := range d.Issuers() {
			if bytes.Equal(i.DER, der) {
				v.Revoked = revokedView(i.Revoked)
			}
		}
		out = append(out, v)
	}
	return out
}

func authorityCertificate(der []byte, state string) authorityCertificateView {
	v := authorityCertificateView{Fingerprint: certs.Fingerprint(der), State: state}
	if c, err := certs.Describe(der); err == nil {
		v.From, v.Until = c.NotBefore.UTC(), c.NotAfter.UTC()
	}
	return v
}

// addHeir adds the certificate that an authority has made since it published:
// what comes to join with this file is compared with the one before.
func (v *directoryView) addHeir(path string, d *certs.Directory) error {
	if !isFolder(path) {
		return nil
	}
	der, err := certs.ReadCertificate(filepath.Join(path, authorityFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && bytes.Equal(der, d.Authority()) {
		return nil
	}
	if err != nil {
		return err
	}
	v.Authorities = slices.Insert(v.Authorities, 0, authorityCertificate(der, stateNext))
	return nil
}

// otherAuthorities says which certificates there are beside the one whose
// fingerprint is shown as the directory's.
func (v *directoryView) otherAuthorities(say func(en, zh string) string) string {
	var b strings.Builder
	for _, c := range v.Authorities {
		switch c.State {
		case stateNext:
			fmt.Fprintf(&b, say("from the next publication on: %s\n", "自下次发布起：%s\n"), c.Fingerprint)
		case stateFormer:
			fmt.Fprintf(&b, say("formerly: %s (%s to %s)\n", "原指纹：%s（%s 至 %s）\n"), c.Fingerprint, c.From.Format(time.DateOnly), c.Until.Format(time.DateOnly))
			if c.Revoked != nil {
				fmt.Fprintf(&b, say("    revoked since %s (%s)\n", "    自 %s 起吊销（%s）\n"), minute(c.Revoked.Effective), c.Revoked.Reason)
			}
		}
	}
	return b.String()
}

// authorityView is what a comparison says of an authority.
type authorityView struct {
	Fingerprint string   `json:"fingerprint"`
	Successions int      `json:"successions"`
	Former      []string `json:"former,omitempty"`
}

func (v *directoryView) authority() authorityView {
	out := authorityView{Fingerprint: v.Fingerprint, Successions: v.Successions}
	for _, c := range v.Authorities {
		if c.State == stateFormer {
			out.Former = append(out.Former, c.Fingerprint)
		}
	}
	return out
}
