package certs

import (
	"bytes"
	"cmp"
	"math/big"
	"slices"
	"time"
)

// MaxPast bounds what is remembered of an issuer's earlier lists, entries.
const MaxPast = 500_000

// certificateHold is the one reason that may be taken back, by not being there
// in the next list.
const certificateHold = 6

// Lost lists what an issuer's earlier list, nil for none, revoked and this one
// does not, or later only, or as a hold: revocations add up, and leaving one
// out takes nothing back. Authorities do leave entries out, of certificates
// that have ended; a signature from before that end is judged for decades.
func (c *CRL) Lost(before *CRL) []RevokedSerial {
	if before == nil || before.by != c.by {
		return nil
	}
	var out []RevokedSerial
	i := 0
	for _, had := range before.entries {
		serial := before.serial(had)
		for i < len(c.entries) && bytes.Compare(c.serial(c.entries[i]), serial) < 0 {
			i++
		}
		there := i < len(c.entries) && bytes.Equal(c.serial(c.entries[i]), serial)
		if had.reason == certificateHold || there && c.entries[i].reason != certificateHold && c.entries[i].effective <= had.effective {
			continue
		}
		out = append(out, before.revoked(had))
	}
	return out
}

// PastOf gathers what earlier lists of an issuer (DER) revoked and the newest
// does not, in the form in which a directory takes revocations,
// [Directory.WithCRLs]; of one serial number the earliest counts. More than can
// be remembered is an error: then the newest list is not to be taken, because
// it would take revocations back.
func PastOf(issuer []byte, list []RevokedSerial) (*CRL, error) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b RevokedSerial) int {
		return cmp.Or(bytes.Compare(a.Serial.Bytes(), b.Serial.Bytes()), a.Effective.Compare(b.Effective))
	})
	list = slices.CompactFunc(list, func(a, b RevokedSerial) bool { return a.Serial.Cmp(b.Serial) == 0 })
	if len(list) > MaxPast {
		return nil, fail(codeCRL, "the issuer's lists left out %d revocations by and by, at most %d are remembered", len(list), MaxPast)
	}
	return gathered(issuer, SourceCRL, time.Time{}, list), nil
}

// gathered makes a list that nobody signed as such.
func gathered(issuer []byte, source string, this time.Time, list []RevokedSerial) *CRL {
	c := &CRL{Issuer: bytes.Clone(issuer), ThisUpdate: this, source: source}
	c.by, _ = IssuerOf(issuer) // of what is no issuer's certificate nothing is revoked
	for _, r := range list {
		if !fits(r.Serial) {
			continue
		}
		b := r.Serial.Bytes()
		e := crlEntry{
			offset: uint32(len(c.raw)), length: uint8(len(b)),
			effective: r.Effective.Unix(), reason: uint8(reasonNumber(r.Reason)),
		}
		if e.reason == 0 { // unspecified: whether that was said is not known here
			e.reason = noReason
		}
		c.entries = append(c.entries, e)
		c.raw = append(c.raw, b...)
	}
	slices.SortFunc(c.entries, func(a, b crlEntry) int { return bytes.Compare(c.serial(a), c.serial(b)) })
	return c
}

func fits(serial *big.Int) bool { return serial.Sign() > 0 && serial.BitLen() <= 8*maxSerial }
