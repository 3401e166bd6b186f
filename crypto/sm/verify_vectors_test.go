package sm

import (
	"math/big"
	"testing"

	"github.com/emmansun/gmsm/sm2"
)

type verifyVector struct {
	Name      string `json:"name"`
	Comment   string `json:"comment"`
	PublicKey string `json:"public_key"`
	Message   string `json:"message"`
	// Digest stands in place of SM3(Z ‖ message) where the case needs a
	// number that no message is known for.
	Digest    string `json:"digest,omitempty"`
	Signature string `json:"signature"`
	verdict
}

// verifyMaker collects vectors for one key.
type verifyMaker struct {
	d    *big.Int
	pub  *point
	list []verifyVector
}

func newVerifyMaker(d *big.Int) *verifyMaker { return &verifyMaker{d: d, pub: baseG.mul(d)} }

// message adds a signature over a message; class is empty when it is valid.
func (m *verifyMaker) message(name, comment, class string, msg, sig []byte, only bool) {
	v := verifyVector{
		Name: name, Comment: comment, PublicKey: hexOf(m.pub.uncompressed()),
		Message: hexOf(msg), Signature: hexOf(sig), verdict: accepted(),
	}
	if class != "" {
		v.verdict = refused(class, only)
	}
	m.list = append(m.list, v)
}

// numbers adds a signature as numbers over a message; whether only the named
// check refuses it is computed.
func (m *verifyMaker) numbers(name, comment, class string, msg []byte, g signature) {
	m.message(name, comment, class, msg, sequence(integer(g.r), integer(g.s)), holds(m.pub, hashE(m.pub, msg), g))
}

// digest does so over the 32 bytes in place of SM3(Z ‖ message).
func (m *verifyMaker) digest(name, comment, class string, e *big.Int, g signature) {
	m.numbers(name, comment, class, nil, g)
	v := &m.list[len(m.list)-1]
	v.Digest = hexOf(bytes32(e))
	v.OnlyCheck = class != "" && holds(m.pub, e, g)
}

// from adds the signature (r, s) of this sum of points over the e that fits.
func (m *verifyMaker) from(name, comment, class string, g signature) {
	x := numberOf(sumOf(m.pub, g).coordinates()[:32])
	m.digest(name, comment, class, modN(minus(g.r, x)), g)
}

func verifyVectors() vectorFile[verifyVector] {
	standard := newVerifyMaker(standardKey)
	msg := []byte("message digest")
	standard.numbers("example of GB/T 32918.5", "annex A.2", "", msg, signE(standardKey, standardNonce, hashE(standard.pub, msg)))
	m := newVerifyMaker(fixed("signing key"))
	m.valid()
	m.validOverDigests()
	m.outOfRange()
	m.outOfRangeOverDigests()
	m.infinity()
	m.otherHashes()
	m.wrong()
	m.encodings()
	list := append(standard.list, m.list...)
	list = append(list, unusualKeys()...)
	return vectorFile[verifyVector]{
		About:   "SM2 signatures (GB/T 32918.2), DER: see README.md. Byte strings are hexadecimal.",
		UserID:  hexOf(userID),
		Vectors: list,
	}
}

var ordinary = []byte("关于印发示范文件的通知")

// sign gives a signature of the maker's key over msg with a fixed nonce.
func (m *verifyMaker) sign(msg []byte) signature {
	return signE(m.d, fixed("nonce"), hashE(m.pub, msg))
}

func (m *verifyMaker) valid() {
	m.numbers("ordinary", "UTF-8 text", "", ordinary, m.sign(ordinary))
	m.numbers("empty message", "only Z is hashed", "", nil, m.sign(nil))
	long := make([]byte, 1000)
	for i := range long {
		long[i] = byte(i % 251)
	}
	m.numbers("message of 1000 bytes", "byte i is i mod 251", "", long, m.sign(long))
	m.search("r and s of 33 octets", "both need a leading zero: 72 bytes, the longest", func(g signature) bool {
		return g.r.Bit(255) == 1 && g.s.Bit(255) == 1
	})
	m.search("r and s of 32 octets", "neither needs a leading zero", func(g signature) bool {
		return g.r.BitLen() == 255 && g.s.BitLen() == 255
	})
	m.search("r of 31 octets", "r is written shorter than the field", func(g signature) bool { return g.r.BitLen() < 248 })
	m.search("s of 31 octets", "s is written shorter than the field", func(g signature) bool { return g.s.BitLen() < 248 })
}

// search adds the first signature that has a property, over short messages.
func (m *verifyMaker) search(name, comment string, want func(signature) bool) {
	k := fixed("nonce")
	x := baseG.mul(k).x
	inv := inverse(plus(m.d, number(1)), orderN)
	for i := int64(0); ; i++ {
		msg := []byte("message " + number(i).String())
		r := modN(plus(hashE(m.pub, msg), x))
		g := signature{r, modN(times(inv, minus(k, times(r, m.d))))}
		if want(g) {
			m.numbers(name, comment, "", msg, g)
			return
		}
	}
}

func (m *verifyMaker) validOverDigests() {
	one, last, k := number(1), minus(orderN, number(1)), fixed("digest s")
	m.from("r is 1", "the smallest", "", signature{one, k})
	m.from("s is 1", "the smallest", "", signature{k, one})
	m.from("r is n-1", "the largest", "", signature{last, k})
	m.from("s is n-1", "the largest", "", signature{k, last})
	m.from("r+s is n+1", "t is 1", "", signature{minus(plus(orderN, one), k), k})
	m.from("r+s is n-1", "t is n-1", "", signature{minus(last, k), k})
	t := fixed("digest t")
	s := modN(times(t, m.d))
	m.from("both points are equal", "[s]G = [t]P: the sum is a doubling", "", signature{modN(minus(t, s)), s})
	zero := number(0)
	m.digest("digest of zeros", "e is 0", "", zero, signE(m.d, k, zero))
	m.digest("digest is n", "e is reduced to 0", "", orderN, signE(m.d, k, orderN))
	all := minus(new(big.Int).Lsh(one, 256), one)
	m.digest("digest of ones", "e is reduced modulo n, not cut", "", all, signE(m.d, k, all))
}

func (m *verifyMaker) outOfRange() {
	g, zero := m.sign(ordinary), number(0)
	m.numbers("r is 0", "", "R_ZERO", ordinary, signature{zero, g.s})
	m.numbers("s is 0", "", "S_ZERO", ordinary, signature{g.r, zero})
	m.numbers("r and s are 0", "", "R_ZERO", ordinary, signature{zero, zero})
	m.numbers("r is n", "", "R_IS_N", ordinary, signature{orderN, g.s})
	m.numbers("s is n", "", "S_IS_N", ordinary, signature{g.r, orderN})
	m.numbers("r and s are n", "", "R_IS_N", ordinary, signature{orderN, orderN})
	m.numbers("r+n", "equal modulo n", "R_TOO_LARGE", ordinary, signature{plus(g.r, orderN), g.s})
	m.numbers("s+n", "equal modulo n", "S_TOO_LARGE", ordinary, signature{g.r, plus(g.s, orderN)})
	huge := new(big.Int).Lsh(orderN, 256)
	m.numbers("r+n*2^256", "equal modulo n, twice as long", "R_TOO_LARGE", ordinary, signature{plus(g.r, huge), g.s})
	m.numbers("s+n*2^256", "equal modulo n, twice as long", "S_TOO_LARGE", ordinary, signature{g.r, plus(g.s, huge)})
	cut := new(big.Int).Lsh(number(1), 256)
	m.numbers("r+2^256", "equal when cut to 32 bytes", "R_TOO_LARGE", ordinary, signature{plus(g.r, cut), g.s})
	m.numbers("s+2^256", "equal when cut to 32 bytes", "S_TOO_LARGE", ordinary, signature{g.r, plus(g.s, cut)})
	m.numbers("r-n", "negative, equal modulo n", "NEGATIVE_INTEGER", ordinary, signature{minus(g.r, orderN), g.s})
	m.numbers("s-n", "negative, equal modulo n", "NEGATIVE_INTEGER", ordinary, signature{g.r, minus(g.s, orderN)})
	m.numbers("-r", "", "NEGATIVE_INTEGER", ordinary, signature{minus(zero, g.r), g.s})
	m.numbers("-s", "", "NEGATIVE_INTEGER", ordinary, signature{g.r, minus(zero, g.s)})
	m.numbers("r+s is n", "t is 0; the equation fails as well", "R_PLUS_S_IS_N", ordinary, signature{minus(orderN, g.s), g.s})
}

// outOfRangeOverDigests: the equation holds, so that the check alone refuses.
func (m *verifyMaker) outOfRangeOverDigests() {
	zero, k := number(0), fixed("digest s")
	m.from("r is 0, equation holds", "", "R_ZERO", signature{zero, k})
	m.from("s is 0, equation holds", "", "S_ZERO", signature{k, zero})
	m.from("r is n, equation holds", "", "R_IS_N", signature{orderN, k})
	m.from("s is n, equation holds", "", "S_IS_N", signature{k, orderN})
	m.from("r is n+1, equation holds", "fits in 32 bytes", "R_TOO_LARGE", signature{plus(orderN, number(1)), k})
	m.from("s is n+1, equation holds", "fits in 32 bytes", "S_TOO_LARGE", signature{k, plus(orderN, number(1))})
	m.from("r+s is n, equation holds", "t is 0 and [s]G alone gives r", "R_PLUS_S_IS_N", signature{minus(orderN, k), k})
	m.from("r is 1, s is n-1, equation holds", "t is 0", "R_PLUS_S_IS_N", signature{number(1), minus(orderN, number(1))})
}

// infinity: [s]G + [t]P has no x; with 0 in its place the equation holds.
func (m *verifyMaker) infinity() {
	e := hashE(m.pub, ordinary)
	t := modN(times(e, inverse(plus(m.d, number(1)), orderN)))
	g := signature{modN(e), modN(minus(number(0), times(t, m.d)))}
	m.numbers("sum is infinity", "r = e, s = -t·d with t = e/(1+d)", "INFINITY", ordinary, g)
}

func (m *verifyMaker) otherHashes() {
	k := fixed("nonce")
	over := func(name, comment, class string, e Digest) {
		m.numbers(name, comment, class, ordinary, signE(m.d, k, numberOf(e[:])))
	}
	z := func(entl int, uid string) []byte {
		d := hashZ(m.pub, entl, []byte(uid))
		return d[:]
	}
	over("another user id", "ALICE123@YAHOO.COM", "WRONG_USER_ID", Sum(z(144, "ALICE123@YAHOO.COM"), ordinary))
	over("user id without its last digit", "", "WRONG_USER_ID", Sum(z(120, "123456781234567"), ordinary))
	over("empty user id", "ENTL is 0", "EMPTY_USER_ID", Sum(z(0, ""), ordinary))
	over("ENTL in bytes", "16 in place of 128", "WRONG_USER_ID", Sum(z(16, string(userID)), ordinary))
	over("no Z", "e = SM3(message)", "NO_Z", Sum(ordinary))
	d := Sum(ordinary)
	over("message hashed before", "e = SM3(Z ‖ SM3(message))", "NO_Z", Sum(z(128, string(userID)), d[:]))
	other := newVerifyMaker(fixed("another key"))
	zOther := hashZ(other.pub, 128, userID)
	over("Z of another key", "", "WRONG_USER_ID", Sum(zOther[:], ordinary))
}

func (m *verifyMaker) wrong() {
	g, other := m.sign(ordinary), newVerifyMaker(fixed("another key"))
	m.numbers("another key signed", "", "WRONG_SIGNATURE", ordinary, other.sign(ordinary))
	m.numbers("another message was signed", "", "WRONG_SIGNATURE", append([]byte("x"), ordinary...), g)
	m.numbers("r and s swapped", "", "WRONG_SIGNATURE", ordinary, signature{g.s, g.r})
	m.numbers("r+1", "", "WRONG_SIGNATURE", ordinary, signature{plus(g.r, number(1)), g.s})
	m.numbers("s+1", "", "WRONG_SIGNATURE", ordinary, signature{g.r, plus(g.s, number(1))})
	m.numbers("n-s", "the other half in ECDSA", "WRONG_SIGNATURE", ordinary, signature{g.r, minus(orderN, g.s)})
	k, e := fixed("nonce"), hashE(m.pub, ordinary)
	r := modN(baseG.mul(k).x)
	ecdsa := modN(times(inverse(k, orderN), plus(e, times(r, m.d))))
	m.numbers("ECDSA over the same e", "another scheme on this curve", "WRONG_SIGNATURE", ordinary, signature{r, ecdsa})
}

// encodings: the numbers are those of a valid signature.
func (m *verifyMaker) encodings() {
	var g signature // of 32 octets both, so that every form below is a change
	for i := int64(0); g.r == nil || g.r.BitLen() != 256 || g.s.BitLen() != 256; i++ {
		g = signE(m.d, plus(fixed("nonce"), number(i)), hashE(m.pub, ordinary))
	}
	r, s := integer(g.r), integer(g.s)
	good := sequence(r, s)
	add := func(name, class string, sig []byte) {
		m.message(name, "the numbers of a valid signature", class, ordinary, sig, true)
	}
	raw := func(n *big.Int) []byte { return tlv(0x02, bytes32(n)) }
	m.message("the signature of the encodings", "", "", ordinary, good, false)
	add("r without leading zero", "NEGATIVE_INTEGER", sequence(raw(g.r), s))
	add("s without leading zero", "NEGATIVE_INTEGER", sequence(r, raw(g.s)))
	add("leading zero too many in r", "NON_CANONICAL_DER", sequence(tlv(0x02, []byte{0, 0}, bytes32(g.r)), s))
	add("leading zero too many in s", "NON_CANONICAL_DER", sequence(r, tlv(0x02, []byte{0, 0}, bytes32(g.s))))
	add("length of the sequence in long form", "NON_CANONICAL_DER", longLength(good))
	add("length of r in long form", "NON_CANONICAL_DER", sequence(longLength(r), s))
	add("length of s in long form", "NON_CANONICAL_DER", sequence(r, longLength(s)))
	add("indefinite length", "NON_CANONICAL_DER", indefinite(joined(r, s)))
	add("SET in place of SEQUENCE", "WRONG_TAG", tlv(0x31, r, s))
	add("OCTET STRING in place of r", "WRONG_TAG", sequence(octets(r[2:]), s))
	add("ENUMERATED in place of s", "WRONG_TAG", sequence(r, tlv(0x0a, s[2:])))
	add("64 raw bytes", "NOT_DER", joined(bytes32(g.r), bytes32(g.s)))
	add("byte behind", "TRAILING_BYTES", append(good[:len(good):len(good)], 0))
	add("signature twice", "TRAILING_BYTES", joined(good, good))
	add("NULL behind s", "TRAILING_BYTES", sequence(r, s, []byte{5, 0}))
	add("third number", "TRAILING_BYTES", sequence(r, s, integer(number(1))))
	add("byte before", "NOT_DER", joined([]byte{0}, good))
	m.message("last byte missing", "", "TRUNCATED", ordinary, good[:len(good)-1], false)
	m.message("s missing", "", "TRUNCATED", ordinary, sequence(r), false)
	m.message("only tag and length", "", "TRUNCATED", ordinary, good[:2], false)
	m.message("only a tag", "", "TRUNCATED", ordinary, good[:1], false)
	m.message("nothing", "no byte at all", "EMPTY", ordinary, nil, false)
	m.message("empty sequence", "", "EMPTY", ordinary, sequence(), false)
	m.message("empty integers", "", "EMPTY", ordinary, sequence(tlv(2), tlv(2)), false)
	m.message("length of 4 GiB", "nothing may be allocated by it", "TRUNCATED", ordinary, []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, false)
}

// unusualKeys: points whose private key is unusual or known to nobody.
func unusualKeys() (list []verifyVector) {
	for _, c := range []struct {
		name string
		d    *big.Int
	}{{"key 1", number(1)}, {"key n-2", minus(orderN, number(2))}} {
		m := newVerifyMaker(c.d)
		m.numbers(c.name, "the edge of the range of keys", "", ordinary, m.sign(ordinary))
		list = append(list, m.list...)
	}
	g := signature{fixed("chosen r"), fixed("chosen s")}
	high := onCurveFrom(orderN)
	for _, c := range []struct {
		name, comment string
		sum           *point
	}{
		{"x of the sum is above n", "x is reduced modulo n before it is added to e", high},
		{"x of the sum is 0", "a point of the curve, unlike infinity", atX(number(0))},
	} {
		// The key for which this signature gives just this sum.
		t := inverse(modN(plus(g.r, g.s)), orderN)
		m := &verifyMaker{pub: c.sum.add(baseG.mul(g.s).negative()).mul(t)}
		m.from(c.name, c.comment, "", g)
		list = append(list, m.list...)
	}
	return list
}

func TestVerifyGivesWhatTheVectorsSay(t *testing.T) {
	f := committed(t, verifyFile, verifyVectors())
	var verdicts []verdict
	var names []string
	for _, v := range f.Vectors {
		verdicts, names = append(verdicts, v.verdict), append(names, v.Name)
		pub, err := ParsePublicKey(unhex(t, v.PublicKey))
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		sig := unhex(t, v.Signature)
		if v.Digest == "" {
			if got := Verify(pub, unhex(t, v.Message), sig); got != v.valid() {
				t.Errorf("%s: verifies: %v, want %s %s", v.Name, got, v.Result, v.Class)
			}
			continue
		}
		// No message is known for this digest: what lies under Verify is asked.
		if got := strictSignature(sig) && sm2.VerifyASN1(pub, unhex(t, v.Digest), sig); got != v.valid() {
			t.Errorf("%s: verifies over the digest: %v, want %s %s", v.Name, got, v.Result, v.Class)
		}
		if Verify(pub, unhex(t, v.Digest), sig) || Verify(pub, nil, sig) {
			t.Errorf("%s: verifies over something else than the digest", v.Name)
		}
	}
	unique(t, names)
	covers(t, verdicts, "!R_ZERO", "!S_ZERO", "!R_IS_N", "!S_IS_N", "!R_TOO_LARGE", "!S_TOO_LARGE", "!R_PLUS_S_IS_N",
		"!INFINITY", "!NEGATIVE_INTEGER", "!NON_CANONICAL_DER", "!TRAILING_BYTES", "!WRONG_TAG", "!NOT_DER",
		"WRONG_USER_ID", "EMPTY_USER_ID", "NO_Z", "WRONG_SIGNATURE", "TRUNCATED", "EMPTY")
}
