package sm

import (
	"math/big"
	"testing"
)

type publicKeyVector struct {
	Name      string `json:"name"`
	Comment   string `json:"comment"`
	PublicKey string `json:"public_key"`
	KeyID     string `json:"key_id,omitempty"`
	verdict
}

type publicKeyMaker struct{ list []publicKeyVector }

func (m *publicKeyMaker) good(name, comment string, p *point) {
	b := p.uncompressed()
	m.list = append(m.list, publicKeyVector{name, comment, hexOf(b), Sum(b).String(), accepted()})
}

func (m *publicKeyMaker) bad(name, comment, class string, only bool, parts ...[]byte) {
	m.list = append(m.list, publicKeyVector{name, comment, hexOf(joined(parts...)), "", refused(class, only)})
}

func publicKeyVectors() vectorFile[publicKeyVector] {
	var m publicKeyMaker
	m.points()
	m.badPoints()
	m.encodings()
	return vectorFile[publicKeyVector]{
		About:   "SM2 public keys, 65 bytes 04 ‖ x ‖ y: see README.md. Byte strings are hexadecimal.",
		Vectors: m.list,
	}
}

func shortest(coordinate func(*point) *big.Int) *point {
	p := baseG
	for coordinate(p).BitLen() > 248 {
		p = p.add(baseG)
	}
	return p
}

func (m *publicKeyMaker) points() {
	m.good("example of GB/T 32918.5", "annex A.2", baseG.mul(standardKey))
	m.good("ordinary", "", baseG.mul(fixed("signing key")))
	m.good("G", "private key 1", baseG)
	m.good("-2G", "private key n-2, the largest", baseG.mul(minus(orderN, number(2))))
	m.good("-G", "a point of the curve; no private key that may sign belongs to it", baseG.negative())
	m.good("x of 31 octets", "written with its leading zero", shortest(func(p *point) *big.Int { return p.x }))
	m.good("y of 31 octets", "written with its leading zero", shortest(func(p *point) *big.Int { return p.y }))
	m.good("x is 0", "a point of the curve, unlike 0,0", atX(number(0)))
	m.good("y is 1", "", smallY)
	m.good("y is p-1", "", smallY.negative())
	m.good("x above n", "the bound is p", onCurveFrom(orderN))
}

func (m *publicKeyMaker) badPoints() {
	four, zero, p := []byte{4}, make([]byte, 32), bytes32(fieldP)
	g := baseG.mul(fixed("signing key"))
	x, y := bytes32(g.x), bytes32(g.y)
	m.bad("y plus 1", "", "OFF_CURVE", true, four, x, bytes32(plus(g.y, number(1))))
	m.bad("x and y swapped", "", "OFF_CURVE", true, four, y, x)
	m.bad("y is 0", "of order 2 on another curve", "OFF_CURVE", true, four, bytes32(number(2)), zero)
	off := number(1)
	for atX(off) != nil {
		off = plus(off, number(1))
	}
	m.bad("x of no point", "only the twist has this x", "OFF_CURVE", true, four, bytes32(off), bytes32(number(1)))
	c := hexNumber("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")
	d := hexNumber("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")
	m.bad("the base point of NIST P-256", "a key of another curve", "OFF_CURVE", true, four, bytes32(c), bytes32(d))
	m.bad("one byte 00", "infinity as SEC 1 writes it", "INFINITY", true, []byte{0})
	m.bad("0,0", "infinity as some write it", "INFINITY", true, four, zero, zero)
	m.bad("65 bytes of zero", "", "INFINITY", true, make([]byte, 65))
	low := onCurveFrom(number(1))
	m.bad("x is p larger", "equal modulo p", "COORDINATE_TOO_LARGE", true, four, bytes32(plus(low.x, fieldP)), bytes32(low.y))
	m.bad("y is p larger", "equal modulo p", "COORDINATE_TOO_LARGE", true, four, bytes32(smallY.x), bytes32(plus(smallY.y, fieldP)))
	m.bad("x is p", "equal modulo p to the point with x of 0", "COORDINATE_TOO_LARGE", true, four, p, bytes32(atX(number(0)).y))
	m.bad("x and y are p", "equal modulo p to 0,0", "COORDINATE_TOO_LARGE", true, four, p, p)
	all := bytes32(minus(new(big.Int).Lsh(number(1), 256), number(1)))
	m.bad("ones", "", "COORDINATE_TOO_LARGE", false, four, all, all)
}

// encodings: the point is a good one.
func (m *publicKeyMaker) encodings() {
	g := baseG.mul(fixed("signing key"))
	x, y, odd := bytes32(g.x), bytes32(g.y), byte(g.y.Bit(0))
	good := g.uncompressed()
	m.bad("compressed", "33 bytes", "COMPRESSED", true, []byte{2 + odd}, x)
	m.bad("compressed, 65 bytes", "02 or 03 before x ‖ y", "COMPRESSED", true, []byte{2 + odd}, x, y)
	m.bad("hybrid", "06 or 07 before x ‖ y", "HYBRID", true, []byte{6 + odd}, x, y)
	m.bad("without 04", "64 bytes", "WRONG_LENGTH", true, x, y)
	m.bad("another first byte", "05", "WRONG_FIRST_BYTE", true, []byte{5}, x, y)
	m.bad("byte behind", "", "TRAILING_BYTES", true, good, []byte{0})
	m.bad("byte before", "", "WRONG_LENGTH", true, []byte{0}, good)
	m.bad("key twice", "", "TRAILING_BYTES", true, good, good)
	m.bad("last byte missing", "", "TRUNCATED", false, good[:64])
	m.bad("04 alone", "", "TRUNCATED", false, []byte{4})
	m.bad("nothing", "no byte at all", "EMPTY", false)
	m.bad("in an OCTET STRING", "DER", "WRONG_LENGTH", true, octets(good))
	m.bad("in a BIT STRING", "DER, as in a certificate", "WRONG_LENGTH", true, tlv(3, []byte{0}, good))
	m.bad("in hexadecimal", "130 digits", "WRONG_LENGTH", true, []byte(hexOf(good)))
}

func TestParsePublicKeyGivesWhatTheVectorsSay(t *testing.T) {
	f := committed(t, publicKeyFile, publicKeyVectors())
	var verdicts []verdict
	var names []string
	for _, v := range f.Vectors {
		verdicts, names = append(verdicts, v.verdict), append(names, v.Name)
		pub, err := ParsePublicKey(unhex(t, v.PublicKey))
		if (err == nil) != v.valid() {
			t.Errorf("%s: %v, want %s %s", v.Name, err, v.Result, v.Class)
		}
		if err == nil && (hexOf(PublicKeyBytes(pub)) != v.PublicKey || KeyID(pub).String() != v.KeyID) {
			t.Errorf("%s: becomes another key", v.Name)
		}
	}
	unique(t, names)
	covers(t, verdicts, "!OFF_CURVE", "!INFINITY", "!COORDINATE_TOO_LARGE", "!COMPRESSED", "!HYBRID", "!WRONG_FIRST_BYTE",
		"!WRONG_LENGTH", "!TRAILING_BYTES", "TRUNCATED", "EMPTY")
}
