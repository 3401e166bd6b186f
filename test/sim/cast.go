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
)

// cast is who takes part: one authority, nodes with the agencies they serve,
// and their keys. It is made once from a fixed seed, so that every process
// replays a run with the same keys.
type cast struct {
	start     time.Time
	nodes     []string
	agencies  map[string][]string // by node
	all       []string
	keys      map[string]*keystore.File
	directory *certs.Directory
}

func (c *cast) current() *certs.Directory { return c.directory }

var theCast = sync.OnceValues(newCast)

func newCast() (_ *cast, err error) {
	dir, err := os.MkdirTemp("", "yizhan-sim-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	random := rand.NewChaCha8(sha256.Sum256([]byte("the cast")))
	c := &cast{
		start: time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC), nodes: []string{"jia", "yi"},
		agencies: map[string][]string{}, keys: map[string]*keystore.File{},
	}
	pass := []byte("simulation")
	authority, err := certs.InitAuthority(filepath.Join(dir, "ca"), "sim", pass, random, c.start.AddDate(0, -1, 0))
	if err != nil {
		return nil, err
	}
	for i, id := range c.nodes {
		if err := c.admit(authority, dir, i, id, pass, random); err != nil {
			return nil, err
		}
	}
	link := certs.Link{ID: "jia-yi", A: "jia", B: "yi", Dialer: "jia", Kind: "https", Ceiling: "work_secret"}
	if err := authority.AddLink(link); err != nil {
		return nil, err
	}
	file, err := authority.Publish(c.start.AddDate(0, -1, 0))
	if err != nil {
		return nil, err
	}
	c.directory, err = certs.LoadDirectory(file, authority.Certificate(), 0, c.start)
	return c, err
}

func (c *cast) admit(authority *certs.Authority, dir string, i int, id string, pass []byte, random *rand.ChaCha8) error {
	keys, err := keystore.Create(filepath.Join(dir, id), pass, random)
	if err != nil {
		return err
	}
	c.keys[id] = keys
	var specs []certs.AgencySpec
	for k := range 2 {
		code, err := certs.MakeAgencyCode(fmt.Sprintf("115200000000%02d0%02d", i, k))
		if err != nil {
			return err
		}
		specs = append(specs, certs.AgencySpec{Code: code, Name: fmt.Sprintf("示范单位%s%d", id, k)})
		c.agencies[id] = append(c.agencies[id], string(code))
		c.all = append(c.all, string(code))
	}
	spec := certs.NodeSpec{ID: id, Zone: "政务外网", URL: "https://127.0.0.1:1"}
	request, err := certs.NewRequest(keys, "sim", spec, specs, c.start)
	if err != nil {
		return err
	}
	parsed, err := certs.ParseRequest(request)
	if err != nil {
		return err
	}
	return authority.Admit(parsed, c.start.AddDate(0, -1, 0))
}
