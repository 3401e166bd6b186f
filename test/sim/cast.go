package sim

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// cast is who takes part: one authority, nodes with the agencies they serve,
// their keys, and the directories that the authority publishes one after the
// other. It is made once from a fixed seed, so that every process replays a
// run with the same keys.
type cast struct {
	start    time.Time
	nodes    []string
	agencies map[string][]string // by node
	all      []string
	keys     map[string]*keystore.Store

	files     [][]byte         // the versions of the directory, oldest first
	deltas    [][]byte         // from each version to the next
	rogue     []byte           // a whole directory, as a delta, of somebody who is no authority
	directory *certs.Directory // the newest of them
	tsa       *tsatest.Key     // the timestamp authority that all of them name

	// From version 4 on the directories name old certificates of some agencies as
	// revoked from this time on, by the SM3 of the certificate.
	effective time.Time
	revoked   map[sm.Digest]bool
	stolen    map[string]*certs.Certificate // the same, by agency
	renewed   map[sm.Digest]bool            // signing keys that came with a renewal
}

// The versions of the directory, in the order of their publication.
const (
	versionFirst   = 1 + iota
	versionJia     // all keys of node jia and its agencies are renewed
	versionYi      // and those of yi
	versionRevoked // an old signing certificate of one agency each is revoked
	versionLink    // something else changes
	versionLast    = versionLink
	versionRogue   = versionLast + 3
)

// spread is how much the runs' beginnings differ, so that the revocation takes
// effect at any moment of a storm, or after it.
const spread = 25 * time.Second

var theCast = sync.OnceValues(newCast)

func newCast() (_ *cast, err error) {
	dir, err := os.MkdirTemp("", "yizhan-sim-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	random := rand.NewChaCha8(sha256.Sum256([]byte("the cast")))
	start := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	c := &cast{
		start: start, nodes: []string{"jia", "yi"}, effective: start.Add(spread),
		agencies: map[string][]string{}, keys: map[string]*keystore.Store{},
		revoked: map[sm.Digest]bool{}, stolen: map[string]*certs.Certificate{}, renewed: map[sm.Digest]bool{},
	}
	pass := []byte("simulation")
	p := &publisher{c: c, dir: filepath.Join(dir, "ca"), random: random, at: start.AddDate(0, -1, 0)}
	if p.authority, err = certs.InitAuthority(p.dir, "sim", pass, random, p.at); err != nil {
		return nil, err
	}
	for i, id := range c.nodes {
		if c.keys[id], err = keystore.Create(filepath.Join(dir, id), pass, random); err != nil {
			return nil, err
		}
		for k := range 2 {
			code, err := certs.MakeAgencyCode(fmt.Sprintf("115200000000%02d0%02d", i, k))
			if err != nil {
				return nil, err
			}
			c.agencies[id] = append(c.agencies[id], string(code))
			c.all = append(c.all, string(code))
		}
	}
	if err := p.versions(); err != nil {
		return nil, err
	}
	if err := c.makeDeltas(filepath.Join(dir, "shelf")); err != nil {
		return nil, err
	}
	return c, p.makeRogue(dir)
}

// makeRogue is what somebody gets who makes an authority of the same name: a
// directory of the same nodes, agencies and links with keys of his own, newer
// than all others.
func (p *publisher) makeRogue(dir string) error {
	r := &publisher{c: &cast{nodes: p.c.nodes, agencies: p.c.agencies, keys: map[string]*keystore.Store{}}, random: p.random, at: p.at}
	var err error
	if r.authority, err = certs.InitAuthority(filepath.Join(dir, "rogue"), "sim", []byte("rogue"), p.random, p.at); err != nil {
		return err
	}
	for _, id := range p.c.nodes {
		if r.c.keys[id], err = keystore.Create(filepath.Join(dir, "rogue-"+id), []byte("rogue"), p.random); err != nil {
			return err
		}
		if err := r.admit(id); err != nil {
			return err
		}
	}
	if err := r.link("jia-yi"); err != nil {
		return err
	}
	var file []byte
	for range versionRogue {
		if file, err = r.authority.Publish(p.at); err != nil {
			return err
		}
	}
	p.c.rogue, err = wholeDelta(filepath.Join(dir, "rogue-shelf"), r.authority.Certificate(), file, p.at)
	return err
}

func wholeDelta(dir string, authority, file []byte, at time.Time) ([]byte, error) {
	if err := durable.OS.MkdirAll(dir); err != nil {
		return nil, err
	}
	shelf, err := certs.OpenShelf(durable.OS, dir, func() time.Time { return at })
	if err != nil {
		return nil, err
	}
	if _, err := shelf.Trust(authority, file); err != nil {
		return nil, err
	}
	return shelf.Delta(0)
}

func (c *cast) makeDeltas(dir string) error {
	if err := durable.OS.MkdirAll(dir); err != nil {
		return err
	}
	shelf, err := certs.OpenShelf(durable.OS, dir, func() time.Time { return c.start })
	if err != nil {
		return err
	}
	if _, err := shelf.Trust(c.directory.Authority(), c.files[0]); err != nil {
		return err
	}
	for _, file := range c.files[1:] {
		before := shelf.Current().Version()
		if _, err := shelf.Install(file); err != nil {
			return err
		}
		delta, err := shelf.Delta(before)
		if err != nil {
			return err
		}
		c.deltas = append(c.deltas, delta)
	}
	return nil
}

// publisher is the authority at work.
type publisher struct {
	c         *cast
	dir       string
	authority *certs.Authority
	random    *rand.ChaCha8
	at        time.Time
	renewals  []string // nodes renewed since the last publication
}

// versions publishes one directory after the other, a day apart.
func (p *publisher) versions() error {
	first := func() error {
		for _, id := range p.c.nodes {
			if err := p.admit(id); err != nil {
				return err
			}
		}
		if err := p.nameTSA(); err != nil {
			return err
		}
		return p.link("jia-yi")
	}
	for _, change := range []func() error{
		first,
		func() error { return p.renew("jia") },
		func() error { return p.renew("yi") },
		p.revoke,
		func() error { return p.link("jia-yi-2") },
	} {
		if err := change(); err != nil {
			return err
		}
		file, err := p.authority.Publish(p.at)
		if err != nil {
			return err
		}
		p.c.files = append(p.c.files, file)
		if p.c.directory, err = certs.LoadDirectory(file, p.authority.Certificate(), 0, p.at); err != nil {
			return err
		}
		p.noteRenewed()
		p.at = p.at.AddDate(0, 0, 1)
	}
	return nil
}

func (p *publisher) nameTSA() (err error) {
	if p.c.tsa, err = tsatest.NewKey(p.random, tsatest.Template(p.at)); err != nil {
		return err
	}
	return p.authority.AddTSA(p.c.tsa.DER, "")
}

func (p *publisher) link(id string) error {
	return p.authority.AddLink(certs.Link{ID: id, A: "jia", B: "yi", Dialer: "jia", Kind: "https", Ceiling: "work_secret"})
}

// admit makes keys for a node and its agencies and has them certified; renewed
// ones, too, as if an operator had made sure whose they are.
func (p *publisher) admit(id string) error {
	var specs []certs.AgencySpec
	for k, code := range p.c.agencies[id] {
		specs = append(specs, certs.AgencySpec{Code: certs.AgencyCode(code), Name: fmt.Sprintf("示范单位%s%d", id, k)})
	}
	spec := certs.NodeSpec{ID: id, Zone: "政务外网", URL: "https://127.0.0.1:1"}
	request, err := certs.NewRequest(p.c.keys[id], "sim", spec, specs, p.at)
	if err != nil {
		return err
	}
	parsed, err := certs.ParseRequest(request)
	if err != nil {
		return err
	}
	admission, err := p.authority.Admission(p.at)
	if err != nil {
		return err
	}
	admission.Replace = true
	if err := admission.Add(parsed); err != nil {
		return err
	}
	return admission.Commit()
}

// renew gives a node and its agencies new keys.
func (p *publisher) renew(id string) error {
	if err := p.admit(id); err != nil {
		return err
	}
	p.renewals = append(p.renewals, id)
	return nil
}

// noteRenewed remembers which signing keys came with a renewal.
func (p *publisher) noteRenewed() {
	for _, id := range p.renewals {
		node, _ := p.c.directory.Node(id)
		holders := []certs.Holder{node.Holder}
		for _, code := range p.c.agencies[id] {
			agency, _ := p.c.directory.Agency(code)
			holders = append(holders, agency.Holder)
		}
		for _, h := range holders {
			if newest, err := h.Current(certs.UseSign, p.at); err == nil {
				p.c.renewed[newest.KeyID] = true
			}
		}
	}
	p.renewals = nil
}

// revoke ends the first signing certificate of one agency of each node.
func (p *publisher) revoke() error {
	for _, id := range p.c.nodes {
		code := p.c.agencies[id][0]
		agency, _ := p.c.directory.Agency(code)
		var old certs.Certificate
		for _, one := range agency.Certificates {
			if one.Use == certs.UseSign {
				old = one // they are newest first
			}
		}
		p.c.revoked[sm.Sum(old.DER)], p.c.stolen[code] = true, &old
		if err := p.authority.Revoke(old.DER, p.c.effective, certs.ReasonKeyCompromise); err != nil {
			return err
		}
	}
	return nil
}
