package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

func (a *app) caAdmit(passFile *string) *cobra.Command {
	var replace, dry bool
	c := &cobra.Command{
		Use: "admit DIR REQUEST... [--replace] [--dry-run]", Short: "Issue certificates for nodes and their agencies · 登记节点与单位",
		Long: `Issues certificates for the keys of requests and changes the entries of their nodes
and agencies, with the next publication. What each request does to each holder is
shown first, with the fingerprints (SM3) of keys and certificates before and after:

  new        the holder is not listed yet: compare the fingerprints with it
  renews     a key that it is listed with signed the request (yizhan cert renew does it)
  replaces   nothing proves that the request is the holder's: only with --replace
  unchanged  its entry stays as it is

Anybody can name a listed node or agency in a request. Without a signature of its
present key such a request is refused. When the keys are lost, or revoked, call the
holder at a number that you know, compare the fingerprints, and admit that one
request with --replace.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if replace && len(args) > 2 {
				return usage("--replace goes with one request: that of which you made sure")
			}
			authority, err := openAuthority(args[0], *passFile)
			if err != nil {
				return err
			}
			admission, err := authority.Admission(a.now())
			if err != nil {
				return err
			}
			admission.Replace = replace
			admitted, err := readRequests(admission, args[1:])
			if err != nil {
				return err
			}
			return a.admit(admission, admitted, dry)
		},
	}
	c.Flags().BoolVar(&replace, "replace", false, "the one request takes the place of what is listed, though nothing proves it: keys are lost")
	c.Flags().BoolVar(&dry, "dry-run", false, "only show what would be changed")
	return c
}

func readRequests(admission *certs.Admission, paths []string) (nodes []string, err error) {
	for _, path := range paths {
		b, err := durable.ReadFile(durable.OS, path, certs.MaxRequest)
		if err != nil {
			return nil, err
		}
		r, err := certs.ParseRequest(b)
		if err == nil {
			err = admission.Add(r)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		nodes = append(nodes, r.Node)
	}
	return nodes, nil
}

// admit shows what an admission changes, and then does it.
func (a *app) admit(admission *certs.Admission, nodes []string, dry bool) error {
	if err := admission.Check(); err != nil {
		return err
	}
	holders := []holderLine{}
	for _, h := range admission.Holders {
		l := holderLineOf(&h, dry)
		holders = append(holders, l)
		if err := a.say("%s", l.text(a.language())); err != nil {
			return err
		}
	}
	if dry {
		return a.print(map[string]any{"would_admit": nodes, "holders": holders}, "nothing was changed\n")
	}
	if err := admission.Commit(); err != nil {
		return err
	}
	return a.print(map[string]any{"admitted": nodes, "holders": holders}, "admitted: %v\nnext: yizhan ca link, then yizhan ca publish\n", nodes)
}

// say prints for a person what comes before the result of a command; with
// --json it is a part of that.
func (a *app) say(text string, args ...any) error {
	if a.json {
		return nil
	}
	_, err := fmt.Fprintf(a.out, text, args...)
	return err
}

// requestKeyLine is a key of a request, as the authority will see it.
type requestKeyLine struct {
	Holder string `json:"holder"`
	Use    string `json:"use"`
	Key    string `json:"key"`
}

// sayKeys shows the fingerprints that the authority may ask for.
func (a *app) sayKeys(r *certs.Request) (out []requestKeyLine, err error) {
	for _, k := range r.RequestKeys() {
		l := requestKeyLine{k.Holder, k.Use, inFours(k.Key)}
		out = append(out, l)
		if err := a.say("%-26s %-8s %s\n", l.Holder, l.Use, l.Key); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// holderLine is what an admission does to one holder.
type holderLine struct {
	Holder   string    `json:"holder"`
	Action   string    `json:"action"`
	ProvenBy string    `json:"proven_by,omitempty"`
	Changes  []string  `json:"changes"`
	Keys     []keyLine `json:"keys"`
}

// keyLine is one use of a holder, as fingerprints (SM3).
type keyLine struct {
	Use            string `json:"use"`
	OldKey         string `json:"old_key,omitempty"`
	OldCertificate string `json:"old_certificate,omitempty"`
	Key            string `json:"key"`
	Certificate    string `json:"certificate,omitempty"`
}

// holderLineOf shows a change. A certificate that is yet to be issued has no
// fingerprint that would stay.
func holderLineOf(h *certs.HolderChange, dry bool) holderLine {
	l := holderLine{Holder: h.Holder, Action: h.Action, Changes: append([]string{}, h.Changes...)}
	if !h.ProvenBy.IsZero() {
		l.ProvenBy = inFours(h.ProvenBy)
	}
	for _, k := range h.Keys {
		one := keyLine{Use: k.Use, Key: inFours(k.Has.KeyID), Certificate: certs.Fingerprint(k.Has.DER)}
		if k.Had != nil {
			one.OldKey, one.OldCertificate = inFours(k.Had.KeyID), certs.Fingerprint(k.Had.DER)
		}
		if dry && one.Certificate != one.OldCertificate {
			one.Certificate = ""
		}
		l.Keys = append(l.Keys, one)
	}
	return l
}

// inFours writes a digest as fingerprints are read out.
func inFours(d sm.Digest) string {
	var groups []string
	for text := d.String(); text != ""; text = text[4:] {
		groups = append(groups, text[:4])
	}
	return strings.Join(groups, " ")
}

// holderActions say what happens to a holder, in English and Chinese.
var holderActions = map[string][2]string{
	certs.HolderNew:       {"new", "新登记"},
	certs.HolderRenews:    {"renews, signed by its listed key", "更新，由其在册密钥签名"},
	certs.HolderReplaces:  {"REPLACES what is listed, with nothing that proves it", "替换在册内容，无任何证明"},
	certs.HolderUnchanged: {"unchanged", "不变"},
}

func (l *holderLine) text(lang string) string {
	words, old, from, changes := 0, "instead of", "certificate", "changes"
	if lang == "zh" {
		words, old, from, changes = 1, "原为", "证书", "变更"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", l.Holder, holderActions[l.Action][words])
	if len(l.Changes) > 0 {
		fmt.Fprintf(&b, "  %s: %s\n", changes, strings.Join(l.Changes, ", "))
	}
	for _, k := range l.Keys {
		fmt.Fprintf(&b, "  %-8s %s\n", k.Use, k.Key)
		if k.Certificate != "" {
			fmt.Fprintf(&b, "  %8s %s: %s\n", "", from, k.Certificate)
		}
		if k.OldKey != "" && (k.OldKey != k.Key || k.OldCertificate != k.Certificate) {
			fmt.Fprintf(&b, "  %8s %s %s\n  %8s %s: %s\n", "", old, k.OldKey, "", from, k.OldCertificate)
		}
	}
	return b.String()
}
