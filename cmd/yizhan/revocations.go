package main

import (
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/trust"
	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// trustDir is where answers about revocations are kept in a data directory.
const trustDir = "trust"

// trustSettings is section [trust] of config.toml.
type trustSettings struct {
	AllowLocal bool `toml:"allow_local,omitempty" comment:"permits CRL and OCSP sources on this machine and its link"`
}

// openRevocations applies what is known of revocations by other issuers than
// the authority, from disk, before the first document is judged. That a source
// cannot be reached keeps nothing from starting.
func (g *gateway) openRevocations() (err error) {
	g.revocations, err = trust.New(trust.Config{
		Sources: func() []trust.Source { return trust.SourcesOf(g.shelf.Current(), time.Now()) },
		Apply:   g.takeRevocations,
		FS:      durable.OS, Dir: g.dir.path(trustDir), AllowLocal: g.settings.Trust.AllowLocal, Logger: g.log,
	})
	return err
}

// takeRevocations lets the node judge by the lists of the issuers from now on.
func (g *gateway) takeRevocations(list []*certs.CRL) {
	g.shelf.Know(list)
	g.adopting.Lock()
	defer g.adopting.Unlock()
	g.crls = list
	g.putInForce(g.base)
	if g.node != nil {
		g.node.Wake()
	}
}

// putInForce lets the node judge by a directory and the lists of its issuers.
// The caller holds adopting.
func (g *gateway) putInForce(d *certs.Directory) {
	g.base = d
	if len(g.crls) > 0 {
		d = d.WithCRLs(g.crls)
	}
	g.directory.Store(d)
}

// revocations gives the directory in force with the lists that the node keeps,
// and what is known of their sources, for commands beside a running node.
func (d dataDir) revocations(s *settings, now nowFunc) (*certs.Directory, []trust.Status, error) {
	dir, err := d.directory(now)
	if err != nil {
		return nil, nil, err
	}
	with := dir
	w, err := d.watcher(dir, s, now, func(list []*certs.CRL) { with = dir.WithCRLs(list) })
	if err != nil {
		return nil, nil, err
	}
	return with, w.Status(), nil
}

// watcher reads what the node keeps of revocations; it asks nobody.
func (d dataDir) watcher(dir *certs.Directory, s *settings, now nowFunc, apply func([]*certs.CRL)) (*trust.Watcher, error) {
	return trust.New(trust.Config{
		Sources: func() []trust.Source { return trust.SourcesOf(dir, now()) },
		Now:     now, Apply: apply,
		FS: durable.OS, Dir: d.path(trustDir), AllowLocal: s.Trust.AllowLocal,
	})
}
