package main

import (
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// certFlags are what the commands about a node's certificates share.
type certFlags struct {
	data, passFile string
	agency         string
	node           bool
	use, output    string
}

func (f *certFlags) common(c *cobra.Command) {
	c.Flags().StringVar(&f.data, "data", "", "the node's data directory")
	c.Flags().StringVar(&f.passFile, "passphrase-file", "", "file with the keystore's passphrase (or set "+passphraseEnv+")")
}

func (a *app) certCommand() *cobra.Command {
	c := &cobra.Command{Use: "cert", Short: "A node's certificates: list, renew, request, import · 证书"}
	c.AddCommand(a.certList(), a.certRenew(), a.certRequest(), a.certImport())
	return c
}

// holding is a node with its keys and the directory it judges by.
type holding struct {
	dir       dataDir
	settings  *settings
	keys      *keystore.Store
	directory *certs.Directory
}

func (f *certFlags) open() (*holding, error) {
	if f.data == "" {
		return nil, usage("--data DIR is needed")
	}
	h := &holding{dir: dataDir(f.data)}
	var err error
	if h.settings, err = h.dir.settings(); err != nil {
		return nil, err
	}
	if h.directory, _, err = h.dir.revocations(h.settings, time.Now); err != nil {
		return nil, err
	}
	h.keys, err = h.dir.openKeys(f.passFile)
	return h, err
}

// with runs a command on an open node and lets its keys go.
func (f *certFlags) with(do func(*holding) error) error {
	h, err := f.open()
	if err != nil {
		return err
	}
	return errors.Join(do(h), h.keys.Close())
}

// holders gives the node and the agencies it serves, as the directory has them.
func (h *holding) holders() []namedHolder {
	var out []namedHolder
	if n, ok := h.directory.Node(h.settings.Node); ok {
		out = append(out, namedHolder{"node " + n.ID, &n.Holder})
	}
	for _, g := range h.directory.Agencies() {
		if g.Node == h.settings.Node {
			out = append(out, namedHolder{"agency " + g.Code, &g.Holder})
		}
	}
	return out
}

type namedHolder struct {
	name string
	*certs.Holder
}

func (a *app) certList() *cobra.Command {
	f := new(certFlags)
	c := &cobra.Command{
		Use: "list --data DIR", Short: "List the certificates of a node and of its agencies · 列出证书", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return f.with(func(h *holding) error {
				var out []certificateLine
				for _, holder := range h.holders() {
					for i := range holder.Certificates {
						l := lineOf(holder.name, &holder.Certificates[i], a.now())
						here := h.keys.Has(holder.Certificates[i].KeyID)
						l.KeyHere = &here
						out = append(out, l)
					}
				}
				return a.printCertificates("certificates", out, "")
			})
		},
	}
	f.common(c)
	return c
}

func (a *app) certRenew() *cobra.Command {
	f := new(certFlags)
	var agencies []string
	c := &cobra.Command{
		Use: "renew --data DIR [--agency CODE...] [--node]", Short: "Make new keys and the request for their certificates · 更换密钥",
		Long: `Makes new keys beside those in use, and request.json, which the authority admits
with "yizhan ca admit" and publishes. The running node goes on with what it has;
when the new directory is in force, it signs with the new keys. Old ones stay in
the keystore: what was sealed to them still opens.

Without --agency and --node everything is renewed: the node and its agencies.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return f.with(func(h *holding) error {
				change := certs.Change{RenewNode: f.node, Renew: agencies}
				if !f.node && len(agencies) == 0 {
					change = certs.Change{RenewNode: true, Renew: h.agencies()}
				}
				return a.requestChange(h, change)
			})
		},
	}
	f.common(c)
	c.Flags().StringArrayVar(&agencies, "agency", nil, "code of an agency to renew (repeatable)")
	c.Flags().BoolVar(&f.node, "node", false, "renew the node's own keys")
	return c
}

func (h *holding) agencies() []string {
	var out []string
	for _, g := range h.directory.Agencies() {
		if g.Node == h.settings.Node {
			out = append(out, g.Code)
		}
	}
	return out
}

// requestChange writes the join request for a change. The keys are durable
// before it: a crash between the two leaves keys that nothing names.
func (a *app) requestChange(h *holding, change certs.Change) error {
	request, err := certs.ChangeRequest(h.keys, h.directory, h.settings.Node, change, a.now())
	if err != nil {
		return err
	}
	r, err := certs.ParseRequest(request)
	if err != nil {
		return err
	}
	path := h.dir.path(requestFile)
	if err := h.dir.changing(func() error { return durable.WriteFile(durable.OS, path, request) }); err != nil {
		return err
	}
	keys, err := a.sayKeys(r)
	if err != nil {
		return err
	}
	unproven := append([]string{}, r.Unproven(h.directory, a.now())...)
	for _, holder := range unproven {
		if err := a.say("%s\n", both("%s: no valid key that it is listed with signed this; the authority compares the fingerprints above over another channel and admits it with --replace",
			"%s：没有在册有效密钥为此请求签名；请名录机构经其他渠道核对以上指纹后用 --replace 登记", holder)); err != nil {
			return err
		}
	}
	return a.print(map[string]any{"request": path, "keys": keys, "unproven": unproven}, "request: %s\nnext: yizhan ca admit CA-DIR %s, then yizhan ca publish CA-DIR\n", path, path)
}

func (a *app) certRequest() *cobra.Command {
	f := new(certFlags)
	c := &cobra.Command{
		Use: "request --data DIR (--agency CODE | --node) --use sign", Short: "Make a key and a certification request (PKCS#10) for an outside CA · 证书申请", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return f.with(func(h *holding) error {
				name, err := f.subject(h)
				if err != nil {
					return err
				}
				der, err := newCSR(h.keys, name, f.use)
				if err != nil {
					return err
				}
				text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
				if f.output == "" {
					return a.print(map[string]string{"csr": string(text)}, "%s", text)
				}
				if err := durable.WriteFile(durable.OS, f.output, text); err != nil {
					return err
				}
				return a.print(map[string]string{"file": f.output}, "request: %s\nnext: have it certified, then yizhan cert import\n", f.output)
			})
		},
	}
	f.common(c)
	f.holder(c)
	c.Flags().StringVar(&f.use, "use", certs.UseSign, "sign or encrypt")
	c.Flags().StringVarP(&f.output, "output", "o", "", "file for the request, PEM (default: it is printed)")
	return c
}

func (f *certFlags) holder(c *cobra.Command) {
	c.Flags().StringVar(&f.agency, "agency", "", "code of an agency that the node serves")
	c.Flags().BoolVar(&f.node, "node", false, "the node itself")
}

// subject names the holder as an outside CA shall see it.
func (f *certFlags) subject(h *holding) (pkix.Name, error) {
	switch {
	case f.agency != "" && !f.node:
		g, ok := h.directory.Agency(f.agency)
		if !ok || g.Node != h.settings.Node {
			return pkix.Name{}, exchange.Fail(exchange.CodeNotFound, "agency %.40q is not one that this node serves", f.agency)
		}
		return pkix.Name{Country: []string{"CN"}, Organization: []string{g.Name}, CommonName: g.Name, SerialNumber: g.Code}, nil
	case f.node && f.agency == "":
		return pkix.Name{Country: []string{"CN"}, Organization: []string{h.settings.Domain}, CommonName: h.settings.Node}, nil
	}
	return pkix.Name{}, usage("--agency CODE or --node is needed")
}

func newCSR(keys *keystore.Store, name pkix.Name, use string) ([]byte, error) {
	if use != certs.UseSign && use != certs.UseEncrypt {
		return nil, usage("--use %q: sign or encrypt is expected", use)
	}
	pub, err := keys.Generate()
	if err != nil {
		return nil, err
	}
	signer, err := keys.Signer(sm.KeyID(pub))
	if err != nil {
		return nil, err
	}
	return certs.NewCSR(signer, name, use, rand.Reader)
}

// importFlags name what an outside CA delivered.
type importFlags struct {
	certFlags
	sign, encrypt, enveloped string
}

func (a *app) certImport() *cobra.Command {
	f := new(importFlags)
	c := &cobra.Command{
		Use: "import --data DIR (--agency CODE | --node) --sign FILE [--encrypt FILE [--enveloped-key FILE]]", Short: "Take certificates that an outside CA issued · 导入证书",
		Long: `Takes the signing certificate for a key that "yizhan cert request" made, and the
encryption certificate, whose key the CA may have made and delivers in an
SM2EnvelopedKey (GB/T 35276) for the signing key. Files are PEM or DER; a file
may hold the chain, too. The result is request.json, with which the domain's
authority lists these certificates, when it names their issuer ("yizhan ca issuer").`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if f.sign == "" && f.encrypt == "" || f.enveloped != "" && f.encrypt == "" {
				return usage("--sign FILE or --encrypt FILE is needed, and --enveloped-key FILE goes with --encrypt")
			}
			return f.with(func(h *holding) error { return f.run(a, h) })
		},
	}
	f.common(c)
	f.holder(c)
	c.Flags().StringVar(&f.sign, "sign", "", "signing certificate")
	c.Flags().StringVar(&f.encrypt, "encrypt", "", "encryption certificate")
	c.Flags().StringVar(&f.enveloped, "enveloped-key", "", "private key of the encryption certificate, enveloped for the signing key")
	return c
}

func (f *importFlags) run(a *app, h *holding) error {
	if _, err := f.subject(h); err != nil {
		return err
	}
	var got certs.Imported
	if f.sign != "" {
		c, err := leaf(f.sign, certs.UseSign)
		if err != nil {
			return err
		}
		if !h.keys.Has(c.KeyID) {
			return exchange.Fail(exchange.CodeNotFound, "certificate %s of %s is for a key that is not in this keystore: import it where yizhan cert request was run", c.Serial, f.sign)
		}
		got.Sign = c.DER
	}
	if f.encrypt != "" {
		c, err := leaf(f.encrypt, certs.UseEncrypt)
		if err != nil {
			return err
		}
		if err := f.encryptionKey(h, c, got.Sign); err != nil {
			return err
		}
		got.Encrypt = c.DER
	}
	if f.node {
		return a.requestChange(h, certs.Change{ImportNode: &got})
	}
	return a.requestChange(h, certs.Change{Imported: map[string]certs.Imported{f.agency: got}})
}

// leaf gives the one certificate of a file that is for a use; others in it are
// its issuers'.
func leaf(path, use string) (*certs.Certificate, error) {
	b, err := durable.ReadFile(durable.OS, path, certs.MaxCertificateFile)
	if err != nil {
		return nil, err
	}
	list, err := certs.ParseCertificates(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var found *certs.Certificate
	var why error
	for _, der := range list {
		c, err := certs.DescribeFor(use, der)
		if err != nil {
			why = err
			continue
		}
		if found != nil {
			return nil, usage("%s holds several certificates to %s with: one is expected", path, use)
		}
		found = c
	}
	if found == nil {
		return nil, fmt.Errorf("%s: %w", path, why)
	}
	now := time.Now()
	if now.Before(found.NotBefore) || now.After(found.NotAfter) {
		return nil, exchange.Fail(exchange.CodeCertificateExpired, "certificate %s of %s is valid %s to %s", found.Serial, path, found.NotBefore.Format(time.DateOnly), found.NotAfter.Format(time.DateOnly))
	}
	return found, nil
}

// encryptionKey sees to it that the private key of an encryption certificate
// is here: it was made here, or it comes in an envelope for the signing key.
// Once it is imported it is durable.
func (f *importFlags) encryptionKey(h *holding, c *certs.Certificate, signing []byte) error {
	if f.enveloped == "" {
		if h.keys.Has(c.KeyID) {
			return nil
		}
		return exchange.Fail(exchange.CodeNotFound, "the key of the encryption certificate %s is not in this keystore: give the --enveloped-key that the CA delivered with it", c.Serial)
	}
	b, err := durable.ReadFile(durable.OS, f.enveloped, certs.MaxEnvelopedKey)
	if err != nil {
		return err
	}
	by, err := f.unwrapper(h, signing)
	if err != nil {
		return err
	}
	key, err := certs.OpenEnvelopedKey(b, h.keys, by)
	if err != nil {
		return fmt.Errorf("%s: %w", f.enveloped, err)
	}
	if sm.KeyID(&key.PublicKey) != c.KeyID {
		return fmt.Errorf("%s holds another key than the one of the encryption certificate %s: the two were not delivered together", f.enveloped, c.Serial)
	}
	if h.keys.Has(c.KeyID) {
		return nil
	}
	if err := h.keys.Import(key); err != nil {
		return fmt.Errorf("the encryption key cannot be taken into this keystore: %w", err)
	}
	return nil
}

// unwrapper is the signing key that the envelope was made for: that of the
// certificate that comes along, or the one in the directory.
func (f *importFlags) unwrapper(h *holding, signing []byte) (sm.Digest, error) {
	if len(signing) > 0 {
		c, err := certs.Describe(signing)
		if err != nil {
			return sm.Digest{}, err
		}
		return c.KeyID, nil
	}
	want := "node " + h.settings.Node
	if f.agency != "" {
		want = "agency " + f.agency
	}
	for _, holder := range h.holders() {
		if strings.EqualFold(holder.name, want) {
			c, err := holder.Current(certs.UseSign, time.Now())
			if err != nil {
				return sm.Digest{}, err
			}
			return c.KeyID, nil
		}
	}
	return sm.Digest{}, usage("--sign FILE is needed: the enveloped key is for that certificate's key")
}
