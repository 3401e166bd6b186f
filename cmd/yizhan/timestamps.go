package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/trust"
	"github.com/yizhan-gateway/yizhan/certs"
)

// timestampSettings is section [timestamp] of config.toml.
type timestampSettings struct {
	URL      string   `toml:"url,omitempty" comment:"URL of a timestamp authority, asked before those that the directory names"`
	Interval duration `toml:"interval,omitempty" comment:"time between two stamped checkpoints; empty: 10m"`
}

// duration is a length of time like "10m".
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

// The shortest and longest time between two stamped checkpoints.
const (
	shortestStamp = time.Second
	longestStamp  = 24 * time.Hour
)

func (t *timestampSettings) check() error {
	if d := time.Duration(t.Interval); d != 0 && (d < shortestStamp || d > longestStamp) {
		return fmt.Errorf("timestamp: interval %s: %s to %s is expected", d, shortestStamp, longestStamp)
	}
	return nil
}

// authorities gives the URLs to ask. A directory that names no timestamp
// authority accepts no token: then nobody is asked.
func (t *timestampSettings) authorities(d *certs.Directory) []string {
	tsas := d.TSAs()
	if len(tsas) == 0 {
		return nil
	}
	var list []string
	if t.URL != "" {
		list = append(list, t.URL)
	}
	for _, tsa := range tsas {
		if tsa.URL != "" && !slices.Contains(list, tsa.URL) {
			list = append(list, tsa.URL)
		}
	}
	return list
}

// openStamper makes the loop that has checkpoints stamped.
func (g *gateway) openStamper() error {
	if err := g.settings.Timestamp.check(); err != nil {
		return err
	}
	g.stamper = trust.NewStamper(trust.StampConfig{
		Node: g.node, URLs: func() []string { return g.settings.Timestamp.authorities(g.directory.Load()) },
		AllowLocal: g.settings.Trust.AllowLocal, Interval: time.Duration(g.settings.Timestamp.Interval), Logger: g.log,
	})
	return nil
}

// crlFiles gives the revocation lists that the directory in force was made
// with, for evidence.
func (g *gateway) crlFiles() [][]byte {
	g.adopting.Lock()
	defer g.adopting.Unlock()
	var list [][]byte
	for _, crl := range g.crls {
		if der := crl.DER(); der != nil {
			list = append(list, der)
		}
	}
	return list
}
