package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// typed says whether an error names its class to a program.
func typed(err error) bool {
	var known *exchange.Error
	return errors.As(err, &known) || errors.Is(err, strictjson.ErrEncoding) || errors.Is(err, strictjson.ErrCritical) || errors.Is(err, cms.ErrMalformed)
}

// FuzzParseConsignment: one encoding, slots in rising order.
func FuzzParseConsignment(f *testing.F) {
	good := &ConsignmentItem{
		Envelope: sm.Sum([]byte("header")), Parts: []sm.Digest{sm.Sum([]byte("part"))},
		Slots: []SlotItem{{I: 0, Slot: []byte{1}}, {I: 3, Slot: []byte{2}}},
	}
	b, err := good.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(bytes.Replace(b, []byte(`"i":3`), []byte(`"i":0`), 1))
	f.Add(bytes.Replace(b, []byte(`"i":3`), []byte(`"i":-1`), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConsignment(b)
		if err != nil {
			if !typed(err) {
				t.Fatalf("an error without a class: %v", err)
			}
			return
		}
		if again, err := c.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("parse then marshal gives %q, %v", again, err)
		}
		last := -1
		for _, s := range c.Slots {
			if s.I <= last {
				t.Fatal("slots out of order")
			}
			last = s.I
		}
	})
}

// FuzzParseRestoreNotice: one encoding, and at least one ledger to go on from.
func FuzzParseRestoreNotice(f *testing.F) {
	end := LedgerEnd{Ledger: "01M83PPH002YTM2KNSQ5VBQFG2", Size: 7, Root: sm.Sum([]byte("root"))}
	good := &RestoreNotice{
		Type: restoreNoticeType, V: 1, Domain: "示范域", Node: "jia", Link: "jia-yi", Ledger: "01M83PQ4H08BA3N2H5J04GT4MD",
		Old: []LedgerEnd{end}, Have: &end, Time: 1795420800000,
	}
	b, err := strictjson.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(bytes.Replace(b, []byte(`"size":7`), []byte(`"size":-7`), 1))
	f.Add(bytes.Replace(b, []byte(`"old":[`), []byte(`"old":[],"x":[`), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRestoreNotice(b)
		if err != nil {
			if !typed(err) {
				t.Fatalf("an error without a class: %v", err)
			}
			return
		}
		if again, err := strictjson.Marshal(r); err != nil || !bytes.Equal(again, b) || len(r.Old) == 0 {
			t.Fatalf("parse then marshal gives %q, %v", again, err)
		}
	})
}

// FuzzParseReceiptItem: the item has one encoding and holds a receipt in its
// own; a detail is the one the receipt was signed over.
func FuzzParseReceiptItem(f *testing.F) {
	for _, receipt := range signedReceipts(f) {
		for _, detail := range [][]byte{nil, []byte("detail")} {
			item := ReceiptItem{Receipt: receipt, Detail: detail}
			b, err := item.Marshal()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, signed, err := parseReceiptItem(b)
		if err != nil {
			if !typed(err) {
				t.Fatalf("an error without a class: %v", err)
			}
			return
		}
		if r.id != signed.ID() || len(r.detail) > maxDetail || r.body.Detail != digestText(r.detail) {
			t.Fatal("not what was signed")
		}
		var item ReceiptItem
		if err := strictjson.Unmarshal(b, &item); err != nil {
			t.Fatal(err)
		}
		if again, err := item.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("parse then marshal gives other bytes, %v", err)
		}
	})
}

func digestText(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return sm.Sum(b).String()
}

// signedReceipts are those of the vectors: no key has to be made for them,
// which would take longer than a short run of this target.
func signedReceipts(f *testing.F) [][]byte {
	b, err := os.ReadFile(filepath.Join("..", "evidence", "testdata", "receipt-v1.json"))
	if err != nil {
		f.Fatal(err)
	}
	var file struct{ Vectors []struct{ Receipt []byte } }
	if err := json.Unmarshal(b, &file); err != nil {
		f.Fatal(err)
	}
	var out [][]byte
	for _, v := range file.Vectors {
		out = append(out, v.Receipt)
	}
	return out
}

// FuzzParsePartID: an id has one text.
func FuzzParsePartID(f *testing.F) {
	f.Add(partID(sm.Sum(nil), 0))
	f.Add(partID(sm.Sum(nil), 999999))
	f.Add(strings.Repeat("0", 64) + "/00")
	f.Fuzz(func(t *testing.T, id string) {
		hh, i, err := parsePartID(id)
		if err == nil && (partID(hh, i) != id || i < 0) {
			t.Fatalf("%q is read as part %d of %s", id, i, hh)
		}
	})
}

// FuzzParseStatus: one encoding, short words, and what a person may be shown.
func FuzzParseStatus(f *testing.F) {
	good := &Status{
		Type: statusType, V: 1, Domain: "示范域", Link: "jia-yi", Node: "jia", Time: 1764000000000, Clock: "system", Program: "v0.5.0",
		Formats: spoken, Directory: 3, Backlog: StatusBacklog{Waiting: 4, Parked: 1, Oldest: 1763000000000}, Disk: DiskLow, Warnings: []string{"disk_low"},
	}
	b, err := strictjson.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(bytes.Replace(b, []byte(`"v":1`), []byte(`"v":2`), 1))
	f.Add(bytes.Replace(b, []byte(`"v":1,`), []byte(`"v":1,"crit":["moon"],`), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseStatus(b)
		if err != nil {
			if !typed(err) && !errors.Is(err, errNewerStatus) {
				t.Fatalf("an error without a class: %v", err)
			}
			return
		}
		if again, err := strictjson.Marshal(s); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("parse then marshal gives %q, %v", again, err)
		}
		for _, w := range append(append([]string{s.Clock, s.Program, s.Disk}, s.Warnings...), s.Formats...) {
			if len(w) > maxWord || !printable(w) {
				t.Fatalf("the word %q passes", w)
			}
		}
	})
}

// FuzzParsePosition: what is read is written the same way again.
func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"", "01M83PPH00JCQXT4JKA68V4BDD-17", "-0", "x-18446744073709551615", "x-18446744073709551616", "x--1", "x-01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePosition(s)
		if err != nil {
			if !typed(err) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		again, err := ParsePosition(p.String())
		if err != nil || again != p {
			t.Fatalf("%q became %v and %v: %v", s, p, again, err)
		}
	})
}
