package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
)

// Each certificate is spoken of once for each threshold, and a node that was
// off for weeks hears of the nearest threshold alone.
func TestExpiryIsToldOnceForEachThreshold(t *testing.T) {
	end := time.Date(2031, 11, 25, 0, 0, 0, 0, time.UTC)
	list := []held{
		{kind: "agency", id: "a", use: certs.UseSign, cert: &certs.Certificate{DER: []byte("one"), NotAfter: end}},
		{kind: "agency", id: "b", use: certs.UseSign, cert: &certs.Certificate{DER: []byte("two"), NotAfter: end.AddDate(1, 0, 0)}},
		{kind: "agency", id: "c", use: certs.UseSign},
	}
	seen, got := expiryWatch{}, []string{}
	for at := end.AddDate(0, 0, -90); at.Before(end.AddDate(0, 0, 5)); at = at.Add(7 * time.Hour) {
		seen.warn(list, at, func(h *held, threshold int) { got = append(got, fmt.Sprint(h.id, threshold)) })
	}
	if want := []string{"a60", "a30", "a14", "a7", "a1", "a0"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	late := expiryWatch{}
	got = nil
	late.warn(list, end.AddDate(0, 0, -10), func(h *held, threshold int) { got = append(got, fmt.Sprint(h.id, threshold)) })
	if !slices.Equal(got, []string{"a14"}) {
		t.Errorf("told %v after a long absence", got)
	}
	days := soonest(list, end.AddDate(0, 0, -2))
	if len(days) != 1 || days[kindAndUse{"agency", certs.UseSign}] != 2 {
		t.Errorf("%v", days)
	}
}
