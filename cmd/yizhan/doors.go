package main

import (
	"errors"
	"fmt"
	"net"
)

// doors are where a node is reached over the network. One that config.toml leaves
// empty is not there: a node at a boundary serves no agency, and one that only dials
// out serves no neighbour.
type doors struct{ rest, peer, metrics net.Listener }

func (g *gateway) listen(f *serveFlags) (*doors, error) {
	d := new(doors)
	for _, one := range []struct {
		at            *net.Listener
		name, address string
	}{
		{&d.rest, "rest_listen", or(f.rest, g.settings.RestListen)},
		{&d.peer, "peer_listen", or(f.peer, g.settings.PeerListen)},
		{&d.metrics, "[metrics] listen", g.settings.Metrics.Listen},
	} {
		if one.address == "" {
			continue
		}
		l, err := net.Listen("tcp", one.address)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", one.name, err), d.close())
		}
		*one.at = l
	}
	return d, nil
}

func (d *doors) close() (err error) {
	for _, l := range []net.Listener{d.rest, d.peer, d.metrics} {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	return err
}

// addressOf is the URL of a door, empty when there is none.
func addressOf(scheme string, l net.Listener) string {
	if l == nil {
		return ""
	}
	return scheme + "://" + l.Addr().String()
}
