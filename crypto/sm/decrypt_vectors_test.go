package sm

import (
	"errors"
	"math/big"
	"testing"

	"github.com/emmansun/gmsm/sm2"
)

type decryptVector struct {
	Name       string `json:"name"`
	Comment    string `json:"comment"`
	PrivateKey string `json:"private_key"`
	Ciphertext string `json:"ciphertext"`
	Plaintext  string `json:"plaintext,omitempty"`
	verdict
}

// decryptMaker collects vectors for one key.
type decryptMaker struct {
	d    *big.Int
	pub  *point
	list []decryptVector
}

func newDecryptMaker(d *big.Int) *decryptMaker { return &decryptMaker{d: d, pub: baseG.mul(d)} }

func (c *ciphertext) der() []byte {
	return sequence(integer(c.x), integer(c.y), octets(c.c3), octets(c.c2))
}

func (m *decryptMaker) good(name, comment string, c ciphertext, plain []byte) {
	m.list = append(m.list, decryptVector{
		Name: name, Comment: comment, PrivateKey: hexOf(bytes32(m.d)),
		Ciphertext: hexOf(c.der()), Plaintext: hexOf(plain), verdict: accepted(),
	})
}

// bad adds bytes that must be refused.
func (m *decryptMaker) bad(name, comment, class string, sealed []byte, only bool) {
	m.list = append(m.list, decryptVector{
		Name: name, Comment: comment, PrivateKey: hexOf(bytes32(m.d)),
		Ciphertext: hexOf(sealed), verdict: refused(class, only),
	})
}

// numbers adds a ciphertext by its parts; whether only the named check refuses
// it is computed.
func (m *decryptMaker) numbers(name, comment, class string, c ciphertext, plain []byte) {
	m.bad(name, comment, class, c.der(), c.opens(m.d, plain))
}

// fileKey is a plaintext as the envelope wraps it.
var fileKey = bytes32(fixed("file key"))

func decryptVectors() vectorFile[decryptVector] {
	standard := newDecryptMaker(standardKey)
	plain := []byte("encryption standard")
	standard.good("example of GB/T 32918.5", "annex C.2", encryptK(standard.pub, standardNonce, plain), plain)
	m := newDecryptMaker(fixed("decryption key"))
	m.lengths()
	m.unusualC1()
	m.shortShared()
	m.unusualKeys()
	m.badPoints()
	m.foreignCurve()
	m.allZeroMask()
	m.tampered()
	m.orders()
	m.encodings()
	return vectorFile[decryptVector]{
		About:   "SM2 ciphertexts (GB/T 32918.4) as SM2Cipher in DER (GB/T 35276): see README.md. Byte strings are hexadecimal.",
		Vectors: append(standard.list, m.list...),
	}
}

func (m *decryptMaker) seal(plain []byte) ciphertext { return encryptK(m.pub, fixed("C1"), plain) }

func (m *decryptMaker) lengths() {
	m.good("32 bytes", "a file key", m.seal(fileKey), fileKey)
	for _, c := range []struct {
		name string
		n    int
	}{{"1 byte", 1}, {"31 bytes", 31}, {"33 bytes", 33}, {"64 bytes", 64}, {"255 bytes", 255}, {"4096 bytes", 4096}} {
		plain := make([]byte, c.n)
		for i := range plain {
			plain[i] = byte(i % 251)
		}
		m.good(c.name, "byte i is i mod 251", m.seal(plain), plain)
	}
	zeros := make([]byte, 32)
	m.good("32 bytes of zero", "C2 is the mask itself", m.seal(zeros), zeros)
	m.bad("no plaintext", "C2 is empty, C3 fits", "EMPTY_PLAINTEXT", ptr(m.seal(nil)).der(), true)
	long := make([]byte, 5000)
	m.bad("5000 bytes", "above the limit of 4 KiB that this profile sets", "TOO_LONG", ptr(m.seal(long)).der(), true)
}

func ptr(c ciphertext) *ciphertext { return &c }

// at seals with a C1 whose nonce need not be known.
func (m *decryptMaker) at(c1 *point, plain []byte) ciphertext {
	return sealTo(c1, c1.mul(m.d), plain)
}

// smallY is the point of the curve with the smallest y; finding it means
// solving a cubic equation, verifying it does not.
var smallY = &point{hexNumber("9c17043effe1a805a74a9a5e70b9d659705d3242094a566dc016f49311178d1f"), number(1)}

func (m *decryptMaker) unusualC1() {
	short := baseG
	for short.x.BitLen() > 248 {
		short = short.add(baseG)
	}
	for _, c := range []struct {
		name, comment string
		c1            *point
	}{
		{"C1 is G", "nonce 1", baseG},
		{"C1 is -G", "nonce n-1", baseG.negative()},
		{"C1 with x of 31 octets", "an INTEGER shorter than the field", short},
		{"C1 with x of 0", "a point of the curve", atX(number(0))},
		{"C1 with y of 1", "a point of the curve", smallY},
		{"C1 with x above n", "x is below p, which is what counts", onCurveFrom(orderN)},
	} {
		m.good(c.name, c.comment, m.at(c.c1, fileKey), fileKey)
	}
}

// shortShared: x2 and y2 enter KDF and C3 with 32 bytes whatever their size.
func (m *decryptMaker) shortShared() {
	first := func(want func(*point) bool) *point {
		c1, shared := baseG.mul(fixed("C1")), m.pub.mul(fixed("C1"))
		for !want(shared) {
			c1, shared = c1.add(baseG), shared.add(m.pub)
		}
		return c1
	}
	x := first(func(p *point) bool { return p.x.BitLen() <= 248 })
	m.good("x2 of 31 octets", "hashed with its leading zero", m.at(x, fileKey), fileKey)
	y := first(func(p *point) bool { return p.y.BitLen() <= 248 })
	m.good("y2 of 31 octets", "hashed with its leading zero", m.at(y, fileKey), fileKey)
	zero := first(func(p *point) bool { return mask(p, 2)[0] == 0 && mask(p, 2)[1] != 0 })
	plain := []byte{0x41, 0x42}
	m.good("mask begins with 0", "only a mask of nothing but zeros is refused", m.at(zero, plain), plain)
}

func (m *decryptMaker) unusualKeys() {
	for _, c := range []struct {
		name string
		d    *big.Int
	}{{"key 1", number(1)}, {"key n-2", minus(orderN, number(2))}} {
		k := newDecryptMaker(c.d)
		k.good(c.name, "the edge of the range of keys", k.seal(fileKey), fileKey)
		m.list = append(m.list, k.list...)
	}
}

func (m *decryptMaker) badPoints() {
	c := m.seal(fileKey)
	moved := func(name, comment, class string, x, y *big.Int, from ciphertext) {
		from.x, from.y = x, y
		m.numbers(name, comment, class, from, fileKey)
	}
	origin := &point{number(0), number(0)}
	moved("C1 is 0,0", "the form in which some write infinity; anybody can make it", "INFINITY", origin.x, origin.y, m.at(origin, fileKey))
	low := onCurveFrom(number(1))
	moved("x of C1 is p larger", "fits in 32 bytes, equal modulo p", "COORDINATE_TOO_LARGE", plus(low.x, fieldP), low.y, m.at(low, fileKey))
	moved("y of C1 is p larger", "fits in 32 bytes, equal modulo p", "COORDINATE_TOO_LARGE", smallY.x, plus(smallY.y, fieldP), m.at(smallY, fileKey))
	moved("x of C1 is p larger, 33 octets", "equal modulo p", "COORDINATE_TOO_LARGE", plus(c.x, fieldP), c.y, c)
	zeroX := atX(number(0))
	moved("x of C1 is p", "equal modulo p to the point with x of 0", "COORDINATE_TOO_LARGE", fieldP, zeroX.y, m.at(zeroX, fileKey))
	cut := new(big.Int).Lsh(number(1), 256)
	moved("x of C1 is 2^256 larger", "equal when cut to 32 bytes", "COORDINATE_TOO_LARGE", plus(c.x, cut), c.y, c)
	moved("x of C1 is p smaller", "negative, equal modulo p", "NEGATIVE_INTEGER", minus(c.x, fieldP), c.y, c)
	moved("y of C1 is p smaller", "negative, equal modulo p", "NEGATIVE_INTEGER", c.x, minus(c.y, fieldP), c)
	moved("C1 reflected", "-C1 is on the curve", "C1_TAMPERED", c.x, minus(fieldP, c.y), c)
	other := baseG.mul(fixed("another C1"))
	moved("another C1", "a point of the curve", "C1_TAMPERED", other.x, other.y, c)
	moved("x and y of C1 swapped", "", "C1_OFF_CURVE", c.y, c.x, c)
	moved("y of C1 plus 1", "", "C1_OFF_CURVE", c.x, plus(c.y, number(1)), c)
}

// foreignCurve: the points lie on curves with another b, some with a small
// order; whoever computes with them gives away the key modulo that order.
func (m *decryptMaker) foreignCurve() {
	at := func(name, comment string, c1 *point) {
		m.numbers(name, comment, "C1_OFF_CURVE", m.at(c1, fileKey), fileKey)
	}
	at("C1 of another curve", "x and y of any size, b is wrong", &point{fixed("x"), fixed("y")})
	at("C1 of order 2", "y is 0", &point{number(2), number(0)})
	at("C1 of order 3", "the tangent meets the curve only here", ofOrderThree())
}

// ofOrderThree: 2C = -C where the slope of the tangent squared is 3x, hence
// y = (3x²-3) / (2·sqrt(3x)).
func ofOrderThree() *point {
	for x := int64(2); ; x++ {
		if root := new(big.Int).ModSqrt(number(3*x), fieldP); root != nil {
			y := times(number(3*x*x-3), inverse(modP(times(number(2), root)), fieldP))
			return &point{number(x), modP(y)}
		}
	}
}

// allZeroMask: step B4 of the standard ends the decryption.
func (m *decryptMaker) allZeroMask() {
	c1, shared := baseG.mul(fixed("C1")), m.pub.mul(fixed("C1"))
	for mask(shared, 1)[0] != 0 {
		c1, shared = c1.add(baseG), shared.add(m.pub)
	}
	m.numbers("mask of zeros", "KDF gives 0 for one byte: C2 is the plaintext, C3 fits", "KDF_ALL_ZERO", sealTo(c1, shared, []byte("A")), []byte("A"))
}

func (m *decryptMaker) tampered() {
	change := func(name, class string, edit func(*ciphertext)) {
		c := m.seal(fileKey)
		edit(&c)
		m.numbers(name, "", class, c, fileKey)
	}
	change("first bit of C2", "C2_TAMPERED", func(c *ciphertext) { c.c2[0] ^= 0x80 })
	change("last bit of C2", "C2_TAMPERED", func(c *ciphertext) { c.c2[31] ^= 1 })
	change("C2 one byte shorter", "C2_TAMPERED", func(c *ciphertext) { c.c2 = c.c2[:31] })
	change("C2 one byte longer", "C2_TAMPERED", func(c *ciphertext) { c.c2 = append(c.c2, 0) })
	change("first bit of C3", "C3_TAMPERED", func(c *ciphertext) { c.c3[0] ^= 0x80 })
	change("last bit of C3", "C3_TAMPERED", func(c *ciphertext) { c.c3[31] ^= 1 })
	change("C3 of zeros", "C3_TAMPERED", func(c *ciphertext) { clear(c.c3) })
	change("C3 one byte shorter", "C3_LENGTH", func(c *ciphertext) { c.c3 = c.c3[:31] })
	change("C3 one byte longer", "C3_LENGTH", func(c *ciphertext) { c.c3 = append(c.c3, 0) })
	change("no C3", "C3_LENGTH", func(c *ciphertext) { c.c3 = nil })
	plain := Sum(fileKey)
	change("C3 is the digest of the plaintext alone", "C3_TAMPERED", func(c *ciphertext) { c.c3 = plain[:] })
	m.bad("made for another key", "", "WRONG_KEY", ptr(newDecryptMaker(fixed("another key")).seal(fileKey)).der(), false)
}

func (m *decryptMaker) orders() {
	c := m.seal(fileKey)
	c1 := (&point{c.x, c.y}).uncompressed()
	x, y := integer(c.x), integer(c.y)
	m.bad("C2 before C3", "both have 32 bytes, so that only C3 shows it", "ORDER_C1C2C3", sequence(x, y, octets(c.c2), octets(c.c3)), true)
	short := m.seal([]byte("short"))
	m.bad("C2 before C3, of another length", "", "ORDER_C1C2C3", sequence(x, y, octets(short.c2), octets(short.c3)), true)
	m.bad("raw C1C2C3", "04 ‖ x ‖ y ‖ C2 ‖ C3, the order of 2010", "ORDER_C1C2C3", joined(c1, c.c2, c.c3), true)
	m.bad("raw C1C3C2", "04 ‖ x ‖ y ‖ C3 ‖ C2, as tokens give it", "NOT_DER", joined(c1, c.c3, c.c2), true)
	compressed := joined([]byte{2 + byte(c.y.Bit(0))}, bytes32(c.x))
	m.bad("raw C1C3C2, compressed", "", "NOT_DER", joined(compressed, c.c3, c.c2), true)
	m.bad("C1 as one string", "the point in an OCTET STRING", "WRONG_TAG", sequence(octets(c1), octets(c.c3), octets(c.c2)), true)
}

// encodings: the parts are those of a valid ciphertext.
func (m *decryptMaker) encodings() {
	var c ciphertext // x and y of 32 octets both, so that every form is a change
	for i := int64(0); c.x == nil || c.x.BitLen() != 256 || c.y.BitLen() != 256; i++ {
		c = encryptK(m.pub, plus(fixed("C1"), number(i)), fileKey)
	}
	x, y, c3, c2 := integer(c.x), integer(c.y), octets(c.c3), octets(c.c2)
	good := sequence(x, y, c3, c2)
	m.good("the ciphertext of the encodings", "", c, fileKey)
	add := func(name, class string, sealed []byte) {
		m.bad(name, "the parts of a valid ciphertext", class, sealed, true)
	}
	add("x without leading zero", "NEGATIVE_INTEGER", sequence(tlv(2, bytes32(c.x)), y, c3, c2))
	add("y without leading zero", "NEGATIVE_INTEGER", sequence(x, tlv(2, bytes32(c.y)), c3, c2))
	add("leading zero too many in x", "NON_CANONICAL_DER", sequence(tlv(2, []byte{0, 0}, bytes32(c.x)), y, c3, c2))
	add("leading zero too many in y", "NON_CANONICAL_DER", sequence(x, tlv(2, []byte{0, 0}, bytes32(c.y)), c3, c2))
	add("length of the sequence in long form", "NON_CANONICAL_DER", longLength(good))
	add("length of x in long form", "NON_CANONICAL_DER", sequence(longLength(x), y, c3, c2))
	add("length of C3 in long form", "NON_CANONICAL_DER", sequence(x, y, longLength(c3), c2))
	add("length of C2 in long form", "NON_CANONICAL_DER", sequence(x, y, c3, longLength(c2)))
	add("indefinite length", "NON_CANONICAL_DER", indefinite(joined(x, y, c3, c2)))
	add("C2 in two pieces", "NON_CANONICAL_DER", sequence(x, y, c3, tlv(0x24, octets(c.c2[:16]), octets(c.c2[16:]))))
	add("SET in place of SEQUENCE", "WRONG_TAG", tlv(0x31, x, y, c3, c2))
	add("BIT STRING in place of C2", "WRONG_TAG", sequence(x, y, c3, tlv(3, []byte{0}, c.c2)))
	add("INTEGER in place of C3", "WRONG_TAG", sequence(x, y, tlv(2, c.c3), c2))
	add("byte behind", "TRAILING_BYTES", joined(good, []byte{0}))
	add("ciphertext twice", "TRAILING_BYTES", joined(good, good))
	add("NULL behind C2", "TRAILING_BYTES", sequence(x, y, c3, c2, []byte{5, 0}))
	add("byte before", "NOT_DER", joined([]byte{0}, good))
	cut := func(name string, b []byte) { m.bad(name, "", "TRUNCATED", b, false) }
	cut("last byte missing", good[:len(good)-1])
	cut("cut in half", good[:len(good)/2])
	cut("C2 missing", sequence(x, y, c3))
	cut("C1 alone", sequence(x, y))
	cut("only tag and length", good[:2])
	cut("length of 4 GiB", []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	m.bad("nothing", "no byte at all", "EMPTY", nil, false)
	m.bad("empty sequence", "", "EMPTY", sequence(), false)
	m.bad("four empty elements", "", "EMPTY", sequence(tlv(2), tlv(2), tlv(4), tlv(4)), false)
}

func TestThePointsOfSmallOrderAreWhatTheyAreCalled(t *testing.T) {
	if p := ofOrderThree(); p.add(p) == nil || p.mul(number(3)) != nil {
		t.Errorf("%x is not of order 3", p.coordinates())
	}
	if p := (&point{number(2), number(0)}); p.mul(number(2)) != nil {
		t.Errorf("%x is not of order 2", p.coordinates())
	}
}

func TestDecryptGivesWhatTheVectorsSay(t *testing.T) {
	f := committed(t, decryptFile, decryptVectors())
	var verdicts []verdict
	var names []string
	for _, v := range f.Vectors {
		verdicts, names = append(verdicts, v.verdict), append(names, v.Name)
		key, err := sm2.NewPrivateKey(unhex(t, v.PrivateKey))
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		plain, err := Decrypt(key, unhex(t, v.Ciphertext))
		switch {
		case v.valid() && (err != nil || hexOf(plain) != v.Plaintext):
			t.Errorf("%s: %x, %v", v.Name, plain, err)
		case !v.valid() && err == nil:
			t.Errorf("%s: decrypts, want %s", v.Name, v.Class)
		case !v.valid() && (!errors.Is(err, ErrDecrypt) || err.Error() != ErrDecrypt.Error() || plain != nil):
			t.Errorf("%s: %x, %v: not the one error", v.Name, plain, err)
		}
	}
	unique(t, names)
	covers(t, verdicts, "!C1_OFF_CURVE", "!INFINITY", "!COORDINATE_TOO_LARGE", "!NEGATIVE_INTEGER", "!KDF_ALL_ZERO",
		"!NON_CANONICAL_DER", "!TRAILING_BYTES", "!WRONG_TAG", "!NOT_DER", "!ORDER_C1C2C3", "!EMPTY_PLAINTEXT", "!TOO_LONG",
		"C1_TAMPERED", "C2_TAMPERED", "C3_TAMPERED", "C3_LENGTH", "WRONG_KEY", "TRUNCATED", "EMPTY")
}
