package link

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// The code that one person reads to another over the telephone, for a link from which
// nothing comes back: digits alone, which read the same in every language.
//
//	17-4821-5530-9276-0481
//	^^ the number N of the last bundle of the prefix, without leading zeros
//	   ^^ link, nodes and epoch
//	     ^^ ^^^^ ^^^^ ^^ twelve digits out of the chain of secrets up to N
//	                    ^^ check: ISO 7064 MOD 97-10 over all digits before
//
// The check finds every single wrong digit and every two that changed places. Twelve
// digits are 39.8 bits: whoever guesses needs the order of an operator for each, and
// after five wrong ones in a row a pause that doubles to an hour, so that a year of
// guessing finds it with a chance of one in a hundred million.

// codeDigits are those behind N: mark, secret, check.
const (
	markDigits   = 2
	secretDigits = 12
	codeDigits   = markDigits + secretDigits + 2
	maxCodeText  = 128 // bytes as typed
	maxCodeN     = 12  // digits
)

// secretSize is the length of a bundle's secret, and of the chain.
const secretSize = sm.Size

// course is what a chain of secrets belongs to.
type course struct{ domain, link, from, to, epoch string }

// context names it; none of the names holds a zero byte.
func (c course) context(what string) []byte {
	return []byte(strings.Join([]string{"yizhan/v1/" + what, c.domain, c.link, c.from, c.to, c.epoch}, "\x00"))
}

// next is the chain behind bundle n; prev is nil before the first one. Without any of
// the secrets up to n nobody knows it.
func (c course) next(prev []byte, n uint64, secret []byte) []byte {
	if prev == nil {
		begin := sm.Sum(c.context("ferry-chain"))
		prev = begin[:]
	}
	d := sm.HMAC(prev, binary.BigEndian.AppendUint64(nil, n), secret)
	return d[:]
}

// code is what a person reads of a chain behind bundle n.
func (c course) code(chain []byte, n uint64) Code {
	info := binary.BigEndian.AppendUint64(c.context("ferry-code"), n)
	secret := decimal(sm.HKDF(chain, nil, info, 16), 1_000_000_000_000)
	return Code{N: n, mark: c.mark(), secret: fmt.Sprintf("%0*d", secretDigits, secret)}
}

func (c course) mark() string {
	d := sm.Sum(c.context("ferry-mark"))
	return fmt.Sprintf("%0*d", markDigits, decimal(d[:16], 100))
}

// decimal is a number of 16 bytes, modulo m.
func decimal(b []byte, m uint64) uint64 {
	return bits.Rem64(binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), m)
}

// Code is one that was read or is to be read.
type Code struct {
	N            uint64
	mark, secret string
}

// String is how it is shown.
func (c Code) String() string {
	head := strconv.FormatUint(c.N, 10)
	body := head + c.mark + c.secret
	body = body[len(head):] + fmt.Sprintf("%02d", check(body))
	return strings.Join([]string{head, body[:4], body[4:8], body[8:12], body[12:]}, "-")
}

// check gives the two digits that make a text of digits, with them behind it, 1 modulo
// 97.
func check(digits string) int { return (98 - mod97(digits+"00")) % 97 }

func mod97(digits string) (m int) {
	for _, d := range digits {
		m = (10*m + int(d-'0')) % 97
	}
	return m
}

// same compares the secret digits in constant time.
func (c Code) same(other Code) bool {
	return c.N == other.N && subtle.ConstantTimeCompare([]byte(c.secret), []byte(other.secret)) == 1
}

// ParseCode reads a code as a person types it: the digits count, full-width ones too,
// and blanks and hyphens between them do not.
func ParseCode(text string) (c Code, err error) {
	if len(text) > maxCodeText {
		return c, exchange.Fail(exchange.CodeFerryCode, "a code has at most %d bytes", maxCodeText)
	}
	var digits []byte
	for _, r := range text {
		switch {
		case r >= '0' && r <= '9':
			digits = append(digits, byte(r))
		case r >= '０' && r <= '９':
			digits = append(digits, byte(r-'０'+'0'))
		case !strings.ContainsRune(" \t-－—·　", r):
			return c, exchange.Fail(exchange.CodeFerryCode, "a code has digits, and blanks or hyphens between them")
		}
	}
	n := len(digits) - codeDigits
	if n < 1 || n > maxCodeN {
		return c, exchange.Fail(exchange.CodeFerryCode, "a code is a number and %d digits; have it read again", codeDigits)
	}
	all := string(digits)
	if digits[0] == '0' || mod97(all) != 1 || fmt.Sprintf("%02d", check(all[:len(all)-2])) != all[len(all)-2:] {
		return c, exchange.Fail(exchange.CodeFerryCode, "its check digits do not fit: something was misheard or mistyped; have it read again")
	}
	if c.N, err = strconv.ParseUint(all[:n], 10, 64); err != nil {
		return c, err
	}
	c.mark, c.secret = all[n:n+markDigits], all[n+markDigits:len(all)-2]
	return c, nil
}
