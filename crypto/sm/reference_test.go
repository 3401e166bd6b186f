package sm

import (
	"encoding/binary"
	"math/big"
	"testing"
)

// SM2 once more, by the formulas of GB/T 32918 with big integers: slow, not
// constant in time, and with no check that the standard's steps would not need
// to compute. What these functions accept and the package refuses is refused by
// a check and by nothing else.

var (
	fieldP = Curve().Params().P
	orderN = Curve().Params().N
	baseG  = &point{Curve().Params().Gx, Curve().Params().Gy}
)

// point is affine; nil is the point at infinity. No formula here uses the
// curve's b, so that points of other curves compute, too.
type point struct{ x, y *big.Int }

func number(v int64) *big.Int { return big.NewInt(v) }

func hexNumber(s string) *big.Int {
	n, ok := new(big.Int).SetString(s, 16)
	if !ok {
		panic("not a number: " + s)
	}
	return n
}

func plus(a, b *big.Int) *big.Int     { return new(big.Int).Add(a, b) }
func minus(a, b *big.Int) *big.Int    { return new(big.Int).Sub(a, b) }
func times(a, b *big.Int) *big.Int    { return new(big.Int).Mul(a, b) }
func modN(a *big.Int) *big.Int        { return new(big.Int).Mod(a, orderN) }
func modP(a *big.Int) *big.Int        { return new(big.Int).Mod(a, fieldP) }
func inverse(a, m *big.Int) *big.Int  { return new(big.Int).ModInverse(a, m) }
func bytes32(a *big.Int) []byte       { return a.FillBytes(make([]byte, 32)) }
func numberOf(b []byte) *big.Int      { return new(big.Int).SetBytes(b) }
func same(a, b *big.Int) bool         { return a.Cmp(b) == 0 }
func (a *point) negative() *point     { return &point{a.x, modP(minus(fieldP, a.y))} }
func (a *point) uncompressed() []byte { return append([]byte{4}, a.coordinates()...) }

// coordinates gives x ‖ y; infinity is written as zeros, as software that does
// not check for it would find them.
func (a *point) coordinates() []byte {
	if a == nil {
		return make([]byte, 64)
	}
	return append(bytes32(a.x), bytes32(a.y)...)
}

func (a *point) add(b *point) *point {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case !same(a.x, b.x):
		return a.third(b, times(minus(b.y, a.y), inverse(modP(minus(b.x, a.x)), fieldP)))
	case !same(a.y, b.y) || a.y.Sign() == 0:
		return nil
	}
	slope := minus(times(number(3), times(a.x, a.x)), number(3))
	return a.third(b, times(slope, inverse(modP(times(number(2), a.y)), fieldP)))
}

// third is the sum: the line through both points with this slope, reflected.
func (a *point) third(b *point, slope *big.Int) *point {
	slope = modP(slope)
	x := modP(minus(minus(times(slope, slope), a.x), b.x))
	return &point{x, modP(minus(times(slope, minus(a.x, x)), a.y))}
}

func (a *point) mul(k *big.Int) *point {
	var sum *point
	for i := k.BitLen() - 1; i >= 0; i-- {
		sum = sum.add(sum)
		if k.Bit(i) == 1 {
			sum = sum.add(a)
		}
	}
	return sum
}

// atX is a point of the curve with this x, or nil.
func atX(x *big.Int) *point {
	y2 := plus(minus(times(times(x, x), x), times(number(3), x)), Curve().Params().B)
	y := new(big.Int).ModSqrt(modP(y2), fieldP)
	if y == nil {
		return nil
	}
	return &point{x, y}
}

// onCurveFrom is the first point of the curve with x not below from.
func onCurveFrom(from *big.Int) *point {
	for x := from; ; x = plus(x, number(1)) {
		if p := atX(x); p != nil {
			return p
		}
	}
}

// hashZ is Z for a user id whose length is stated as entl bits.
func hashZ(pub *point, entl int, uid []byte) Digest {
	c := Curve().Params()
	a := minus(fieldP, number(3))
	return Sum(binary.BigEndian.AppendUint16(nil, uint16(entl)), uid,
		bytes32(a), bytes32(c.B), baseG.coordinates(), pub.coordinates())
}

var userID = []byte("1234567812345678")

// hashE is the number e of a message for the default user id.
func hashE(pub *point, msg []byte) *big.Int {
	z := hashZ(pub, 8*len(userID), userID)
	e := Sum(z[:], msg)
	return numberOf(e[:])
}

// signature is r and s before any encoding.
type signature struct{ r, s *big.Int }

// signE signs the number e with nonce k.
func signE(d, k, e *big.Int) signature {
	r := modN(plus(e, baseG.mul(k).x))
	s := times(inverse(plus(d, number(1)), orderN), minus(k, times(r, d)))
	return signature{r, modN(s)}
}

// sumOf is the point [s]G + [r+s]P of verification.
func sumOf(pub *point, g signature) *point {
	return baseG.mul(modN(g.s)).add(pub.mul(modN(plus(g.r, g.s))))
}

// holds says whether the equation of verification does, modulo n and without
// any check before it.
func holds(pub *point, e *big.Int, g signature) bool {
	x := numberOf(sumOf(pub, g).coordinates()[:32])
	return modN(minus(plus(e, x), g.r)).Sign() == 0
}

// mask is KDF(x2 ‖ y2, n).
func mask(shared *point, n int) []byte {
	var out []byte
	for i := uint32(1); len(out) < n; i++ {
		d := Sum(shared.coordinates(), binary.BigEndian.AppendUint32(nil, i))
		out = append(out, d[:]...)
	}
	return out[:n]
}

func xor(a, b []byte) []byte {
	out := make([]byte, len(a))
	for i := range a {
		out[i] = a[i] ^ b[i]
	}
	return out
}

// ciphertext is what SM2 encryption makes, before any encoding.
type ciphertext struct {
	x, y   *big.Int
	c2, c3 []byte
}

// sealTo encrypts with C1 and the point that both sides compute.
func sealTo(c1, shared *point, plain []byte) ciphertext {
	xy := shared.coordinates()
	c3 := Sum(xy[:32], plain, xy[32:])
	return ciphertext{c1.x, c1.y, xor(plain, mask(shared, len(plain))), c3[:]}
}

// encryptK encrypts with nonce k.
func encryptK(pub *point, k *big.Int, plain []byte) ciphertext {
	return sealTo(baseG.mul(k), pub.mul(k), plain)
}

// opens says whether decryption without any check but C3 gives this plaintext.
func (c *ciphertext) opens(d *big.Int, plain []byte) bool {
	shared := (&point{modP(c.x), modP(c.y)}).mul(d)
	xy := shared.coordinates()
	got := xor(c.c2, mask(shared, len(c.c2)))
	c3 := Sum(xy[:32], got, xy[32:])
	return string(c3[:]) == string(c.c3) && string(got) == string(plain)
}

// The keys and examples of GB/T 32918.5-2017, annexes A.2 and C.2.
var (
	standardKey   = hexNumber("3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8")
	standardNonce = hexNumber("59276e27d506861a16680f3ad9c02dccef3cc1fa3cdbe4ce6d54b80deac1bc21")
)

func TestTheReferenceGivesTheExamplesOfTheStandard(t *testing.T) {
	pub := baseG.mul(standardKey)
	g := signE(standardKey, standardNonce, hashE(pub, []byte("message digest")))
	if !same(g.r, hexNumber("f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3")) ||
		!same(g.s, hexNumber("b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa")) {
		t.Errorf("signature %x, %x", g.r, g.s)
	}
	c := encryptK(pub, standardNonce, []byte("encryption standard"))
	if !same(c.x, hexNumber("04ebfc718e8d1798620432268e77feb6415e2ede0e073c0f4f640ecd2e149a73")) ||
		!same(c.y, hexNumber("e858f9d81e5430a57b36daab8f950a3c64e6ee6a63094d99283aff767e124df0")) ||
		string(c.c2) != string(unhex(t, "21886ca989ca9c7d58087307ca93092d651efa")) ||
		string(c.c3) != string(unhex(t, "59983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766")) {
		t.Errorf("ciphertext %x %x %x %x", c.x, c.y, c.c2, c.c3)
	}
	if !holds(pub, hashE(pub, []byte("message digest")), g) || !c.opens(standardKey, []byte("encryption standard")) {
		t.Error("the reference refuses its own")
	}
}
