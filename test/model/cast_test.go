package model

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

var start = time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)

// wire is the one link.
const wire = "jia-yi"

// cast is who takes part: node jia with a sender and a recipient, and its neighbour.
type cast struct {
	directory             *certs.Directory
	keys                  *keystore.Store // of jia
	sender, local, remote string
}

var theCast = sync.OnceValues(newCast)

func newCast() (_ *cast, err error) {
	dir, err := os.MkdirTemp("", "yizhan-model-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	random, pass, begin := rand.NewChaCha8(sha256.Sum256([]byte("model"))), []byte("model"), start.AddDate(0, -1, 0)
	authority, err := certs.InitAuthority(filepath.Join(dir, "ca"), "model", pass, random, begin)
	if err != nil {
		return nil, err
	}
	c := new(cast)
	for _, one := range []struct {
		id       string
		agencies []*string
	}{{"jia", []*string{&c.sender, &c.local}}, {"yi", []*string{&c.remote}}} {
		keys, err := keystore.Create(filepath.Join(dir, one.id), pass, random)
		if err != nil {
			return nil, err
		}
		if c.keys == nil {
			c.keys = keys
		}
		var specs []certs.AgencySpec
		for k, at := range one.agencies {
			code, err := certs.MakeAgencyCode(fmt.Sprintf("115200000000%02d0%02d", len(one.id), k))
			if err != nil {
				return nil, err
			}
			*at = string(code)
			specs = append(specs, certs.AgencySpec{Code: code, Name: fmt.Sprintf("示范单位%s%d", one.id, k)})
		}
		spec := certs.NodeSpec{ID: one.id, Zone: "政务外网", URL: "https://127.0.0.1:1"}
		request, err := certs.NewRequest(keys, "model", spec, specs, begin)
		if err != nil {
			return nil, err
		}
		parsed, err := certs.ParseRequest(request)
		if err == nil {
			err = authority.Admit(parsed, begin)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := authority.AddLink(certs.Link{ID: wire, A: "jia", B: "yi", Dialer: "jia", Kind: "https", Ceiling: "work_secret"}); err != nil {
		return nil, err
	}
	file, err := authority.Publish(begin)
	if err != nil {
		return nil, err
	}
	c.directory, err = certs.LoadDirectory(file, authority.Certificate(), 0, start)
	return c, err
}
