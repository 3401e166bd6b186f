package trust

import (
	"encoding/binary"
	"errors"
	"math/big"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
)

// pastKind is the file of what an issuer's earlier lists revoked and the newest
// does not: for each, the serial number and the reason, a length byte before
// each, and the seconds since 1970 between them, eight bytes, big-endian.
const pastKind = "PAST"

// addUp gives what is to be remembered of the lists before a newer one.
func (st *state) addUp(c *certs.CRL) (*certs.CRL, error) {
	list := append(c.Lost(st.crl), c.Lost(st.past)...)
	if len(list) == 0 {
		return nil, nil
	}
	return certs.PastOf(c.Issuer, list)
}

// keepPast makes it durable before the newer list is. A crash between the two
// leaves entries twice, which changes nothing.
func (w *Watcher) keepPast(issuer certs.IssuerID, past *certs.CRL) error {
	var b []byte
	if past != nil {
		for _, r := range past.Revoked() {
			serial := r.Serial.Bytes()
			b = append(append(b, byte(len(serial))), serial...)
			b = binary.BigEndian.AppendUint64(b, uint64(r.Effective.Unix()))
			b = append(append(b, byte(len(r.Reason))), r.Reason...)
		}
	}
	return w.toDisk(key{issuer, pastKind}, b)
}

// readPast gives nil when nothing is remembered.
func (w *Watcher) readPast(s Source) (*certs.CRL, error) {
	b, _, err := w.readCache(key{s.id(), pastKind})
	if err != nil || len(b) == 0 {
		return nil, err
	}
	var list []certs.RevokedSerial
	for len(b) > 0 {
		serial, rest, ok := counted(b)
		if !ok || len(rest) < 8 || len(list) == certs.MaxPast {
			return nil, errPast
		}
		at := int64(binary.BigEndian.Uint64(rest))
		reason, rest, ok := counted(rest[8:])
		if !ok {
			return nil, errPast
		}
		list = append(list, certs.RevokedSerial{Serial: new(big.Int).SetBytes(serial), Effective: time.Unix(at, 0).UTC(), Reason: string(reason)})
		b = rest
	}
	return certs.PastOf(s.Issuer, list)
}

var errPast = errors.New("what earlier lists revoked is not all there")

// counted takes bytes with their length before them.
func counted(b []byte) (value, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return nil, nil, false
	}
	return b[1 : 1+b[0]], b[1+int(b[0]):], true
}
