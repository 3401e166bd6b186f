package certs

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/emmansun/gmsm/smx509"
	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

func TestCRL(t *testing.T) {
	o := newOutside(t, "crl")
	key, hold := testNow.Add(-48*time.Hour), testNow.Add(time.Hour)
	long := new(big.Int).SetBytes(bytes.Repeat([]byte{0xfe}, maxSerial-1))
	list := []RevokedSerial{
		revokedSerial(300, key, "key_compromise"), revokedSerial(5, hold, "certificate_hold"),
		revokedSerial(200, testNow, "unspecified"), {long, key, "superseded"},
	}
	der, err := NewCRL(o.root.Raw, o.sign, big.NewInt(9), testNow, testNow.AddDate(0, 0, 7), list)
	o.must(err)
	for _, b := range [][]byte{der, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})} {
		c, err := ParseCRL(b, o.root.Raw)
		o.must(err)
		if c.Number.Int64() != 9 || !c.ThisUpdate.Equal(testNow) || !c.NextUpdate.Equal(testNow.AddDate(0, 0, 7)) || c.Len() != 4 {
			t.Errorf("number %s, %s to %s, %d entries", c.Number, c.ThisUpdate, c.NextUpdate, c.Len())
		}
		for _, want := range list {
			r, ok := c.Find(want.Serial)
			if !ok || !r.Effective.Equal(want.Effective) || r.Reason != want.Reason {
				t.Errorf("%x: %v %+v", want.Serial, ok, r)
			}
		}
		for _, absent := range []int64{0, -300, 1, 299, 301, 1 << 40} {
			if _, ok := c.Find(big.NewInt(absent)); ok {
				t.Errorf("serial %d is revoked", absent)
			}
		}
		if got := c.Revoked(); len(got) != 4 || c.Stale(testNow) || !c.Stale(testNow.AddDate(0, 0, 8)) {
			t.Errorf("%d revoked", len(got))
		}
	}
	theirs, err := smx509.ParseRevocationList(der)
	o.must(err)
	o.must(theirs.CheckSignatureFrom(o.root))
	if len(theirs.RevokedCertificateEntries) != 4 || theirs.Number.Int64() != 9 {
		t.Errorf("another implementation reads %d entries", len(theirs.RevokedCertificateEntries))
	}
	theirs2, err := smx509.CreateRevocationList(o.rand, &smx509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: testNow, NextUpdate: testNow.AddDate(0, 0, 7),
		RevokedCertificateEntries: []smx509.RevocationListEntry{{SerialNumber: big.NewInt(77), RevocationTime: testNow, ReasonCode: 1}},
	}, o.root, o.key)
	o.must(err)
	c, err := ParseCRL(theirs2, o.root.Raw)
	o.must(err)
	if r, ok := c.Find(big.NewInt(77)); !ok || r.Reason != "key_compromise" {
		t.Errorf("of another implementation: %v %+v", ok, r)
	}
}

// TestCRLOrder: a CRL may not be replaced by an older one of its issuer, nor
// come from the future.
func TestCRLOrder(t *testing.T) {
	o := newOutside(t, "crl")
	parse := func(der []byte) *CRL {
		c, err := ParseCRL(der, o.root.Raw)
		o.must(err)
		return c
	}
	seven, eight := parse(o.crl(7)), parse(o.crl(8))
	wantCode(t, eight.Replaces(seven), "")
	wantCode(t, eight.Replaces(nil), "")
	wantCode(t, eight.Replaces(eight), "")
	wantCode(t, seven.Replaces(eight), codeCRLRollback)
	wantCode(t, eight.CheckTime(testNow), "")
	wantCode(t, eight.CheckTime(testNow.AddDate(0, 0, -1)), codeCRL)
}

// TestEffective: an invalidityDate counts when it is the earlier one.
func TestEffective(t *testing.T) {
	o := newOutside(t, "effective")
	for name, c := range map[string]struct{ invalidity, want time.Time }{
		"earlier": {testNow.Add(-time.Hour), testNow.Add(-time.Hour)},
		"later":   {testNow.Add(time.Hour), testNow},
	} {
		der := o.signDER(o.crlWith(func(b *cryptobyte.Builder) {
			addExtension(b, oidInvalidity, false, func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(c.invalidity) })
		}, nil), o.key)
		list, err := ParseCRL(der, o.root.Raw)
		o.must(err)
		if r, ok := list.Find(big.NewInt(300)); !ok || !r.Effective.Equal(c.want) {
			t.Errorf("%s: effective %s, want %s", name, r.Effective, c.want)
		}
	}
}

// crlCases are CRLs that must not be taken, with their failure class.
func crlCases(f *outside) []derCase {
	good := f.crl(9, revokedSerial(300, testNow.Add(-time.Hour), "key_compromise"), revokedSerial(200, testNow, "unspecified"))
	stranger := newOutside(f.t, "crl stranger")
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	change := func(old, replacement []byte) []byte { return f.resign(good, old, replacement, f.key) }
	reason := func(n byte) []byte { return []byte{0x55, 0x1d, 0x15, 0x04, 0x03, 0x0a, 0x01, n} }
	with := func(critical bool, id ...int) []byte {
		return f.signDER(f.crlWith(nil, func(b *cryptobyte.Builder) {
			addExtension(b, id, critical, func(b *cryptobyte.Builder) { b.AddASN1Int64(1) })
		}), f.key)
	}
	entry := func(write func(*cryptobyte.Builder)) []byte { return f.signDER(f.crlWith(write, nil), f.key) }
	return []derCase{
		{"good", good, ""},
		{"empty list", f.crl(1), ""},
		{"unknown extension that is not critical", with(false, 2, 5, 29, 99), ""},
		{"trailing byte", append(bytes.Clone(good), 0), codeCRL},
		{"signature changed", flipped, codeCRLSignature},
		{"another issuer", stranger.crl(9), codeCRLSignature},
		{"another issuer's name", f.signDER(readTBS(f.forge, stranger.crl(9)).tbs, f.key), codeCRL},
		{"version 1", change([]byte{2, 1, 1, 0x30}, []byte{2, 1, 0, 0x30}), codeCRL},
		{"delta CRL", with(true, 2, 5, 29, 27), codeCRL},
		{"for some reasons only", with(true, 2, 5, 29, 28), codeCRL},
		{"no number", f.signDER(bytes.Replace(readTBS(f.forge, good).tbs, []byte{0x55, 0x1d, 0x14}, []byte{0x55, 0x1d, 0x63}, 1), f.key), codeCRL},
		{"removeFromCRL", change(reason(1), reason(8)), codeCRL},
		{"reason 7", change(reason(1), reason(7)), codeCRL},
		{"time with offset", change([]byte("261123080000Z0"), []byte("26112308+0800\x30")), codeCRL},
		{"nextUpdate before thisUpdate", change([]byte("261130080000Z"), []byte("261122080000Z")), codeCRL},
		{"serial twice", f.crl(9, revokedSerial(300, testNow, "unspecified"), revokedSerial(300, testNow, "unspecified")), codeCRL},
		{"negative serial", f.crl(9, revokedSerial(-300, testNow, "unspecified")), codeCRL},
		{"serial zero", f.crl(9, revokedSerial(0, testNow, "unspecified")), codeCRL},
		{"serial of 21 bytes", f.crl(9, RevokedSerial{new(big.Int).Lsh(big.NewInt(1), 8*maxSerial), testNow, "unspecified"}), codeCRL},
		{"indirect entry", entry(func(b *cryptobyte.Builder) {
			addExtension(b, []int{2, 5, 29, 29}, true, func(b *cryptobyte.Builder) { b.AddASN1NULL() })
		}), codeCRL},
		{"critical given as false", entry(func(b *cryptobyte.Builder) {
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidReason)
				b.AddASN1Boolean(false)
				b.AddASN1OctetString([]byte{0x0a, 1, 1})
			})
		}), codeCRL},
		{"too long", make([]byte, MaxCRL+1), codeCRL},
		{"PEM of another type", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good}), codeCRL},
		{"the issuer's certificate", f.root.Raw, codeCRL},
		{"empty", nil, codeCRL},
	}
}

// crlWith is a CRL with one entry, whose extensions and those of the list the
// test may write.
func (o *outside) crlWith(entry, list func(*cryptobyte.Builder)) []byte {
	return o.built(func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(1)
			addSM2WithSM3(b)
			b.AddBytes(o.root.RawSubject)
			addTime(b, testNow)
			addTime(b, testNow.AddDate(0, 0, 7))
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1Int64(300)
					addTime(b, testNow)
					if entry != nil {
						b.AddASN1(tag.SEQUENCE, entry)
					}
				})
			})
			b.AddASN1(explicit0, func(b *cryptobyte.Builder) {
				b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
					addExtension(b, oidCRLNumber, false, func(b *cryptobyte.Builder) { b.AddASN1Int64(9) })
					if list != nil {
						list(b)
					}
				})
			})
		})
	})
}

func TestCRLRefusals(t *testing.T) {
	for word, want := range map[string]int{"": 0, "unspecified": 0, "no such": 0, "key_compromise": 1, "certificate_hold": 6, "privilege_withdrawn": 9} {
		if got := reasonNumber(word); got != want {
			t.Errorf("reason %q is %d, want %d", word, got, want)
		}
	}
	o := newOutside(t, "crl refusals")
	for _, c := range crlCases(o) {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseCRL(c.der, o.root.Raw)
			wantCode(t, err, c.code)
		})
	}
	t.Run("issuer without cRLSign", func(t *testing.T) {
		_, err := ParseCRL(o.crl(1), newForge(t, "no cRLSign").root.Raw)
		wantCode(t, err, codeUsage)
	})
	t.Run("issuer that is no CA", func(t *testing.T) {
		_, err := ParseCRL(o.crl(1), o.cert(&o.newKey().PublicKey, signUsage, nil))
		wantCode(t, err, codeUsage)
	})
	t.Run("no issuer", func(t *testing.T) {
		_, err := ParseCRL(o.crl(1), nil)
		wantCode(t, err, codeChain)
	})
}

// TestLargeCRL: what stays in memory of a long list is its bytes and 16 bytes
// for each entry.
func TestLargeCRL(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds a CRL of 100,000 entries; scripts/test runs it")
	}
	o := newOutside(t, "large crl")
	list := make([]RevokedSerial, 100_000)
	for i := range list {
		list[i] = revokedSerial(int64(len(list)-i)*7, testNow.Add(-time.Hour), "superseded")
	}
	der := o.crl(1, list...)
	held := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what lies in pools goes at the second
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := held()
	c, err := ParseCRL(der, o.root.Raw)
	o.must(err)
	grown := int64(held() - before)
	if _, ok := c.Find(big.NewInt(7 * 99_999)); !ok || c.Len() != len(list) {
		t.Fatal("an entry is missing")
	}
	t.Logf("%d bytes of DER, %d held", len(der), grown)
	if most := int64(len(der)+16*len(list)) + 1<<20; grown > most {
		t.Errorf("%d bytes are held, at most %d are expected", grown, most)
	}
	runtime.KeepAlive(list)
	runtime.KeepAlive(der)
}

func FuzzParseCRL(f *testing.F) {
	o := newOutside(f, "crl refusals")
	for _, c := range crlCases(o) {
		if len(c.der) < 4<<10 {
			f.Add(c.der)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ParseCRL(b, o.root.Raw); err != nil {
			wantSome(t, err)
		}
		// Behind the signature, which a mutation never passes.
		c := &CRL{raw: b}
		if err := c.read(o.root); err != nil {
			wantSome(t, err)
			return
		}
		for _, r := range c.Revoked() {
			if got, ok := c.Find(r.Serial); !ok || got.Reason != r.Reason || !got.Effective.Equal(r.Effective) {
				t.Errorf("%x is listed and not found", r.Serial)
			}
		}
	})
}

// TestCRLWithOpenSSL: OpenSSL verifies what is made here.
func TestCRLWithOpenSSL(t *testing.T) {
	o := newOutside(t, "openssl")
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		o.must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	ca := write("ca.pem", "CERTIFICATE", o.root.Raw)
	crl := write("crl.pem", "X509 CRL", o.crl(9, revokedSerial(300, testNow.Add(-time.Hour), "key_compromise")))
	out, err := openssl(t, "crl", "-in", crl, "-noout", "-text", "-CAfile", ca)
	for _, want := range []string{"Serial Number: 012C", "Key Compromise", "Invalidity Date", "X509v3 CRL Number"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("openssl crl: %v: %q is missing in\n%s", err, want, out)
		}
	}
	csr := write("csr.pem", "CERTIFICATE REQUEST", o.csr(o.newKey(), UseSign))
	out, err = openssl(t, "req", "-in", csr, "-noout", "-verify", "-vfyopt", "distid:1234567812345678")
	if err != nil || !strings.Contains(out, "verify OK") {
		t.Errorf("openssl req: %v\n%s", err, fmt.Sprint(out))
	}
}
