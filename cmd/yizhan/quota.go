package main

import (
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/rest"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// quotaSettings is section [quota] of config.toml: what each agency may hand in
// within a window.
type quotaSettings struct {
	Documents int      `toml:"documents,omitempty" comment:"documents of one agency in a window; 0: any number"`
	MiB       int64    `toml:"mib,omitempty" comment:"MiB of one agency in a window; 0: any number"`
	Window    duration `toml:"window,omitempty" comment:"its length; empty: 1h"`
	Requests  int      `toml:"requests,omitempty" comment:"requests of one API key in a minute; 0: any number"`
}

func (s *quotaSettings) check(file string) error {
	if s.Documents < 0 || s.MiB < 0 || s.MiB >= 1<<40 || s.Requests < 0 || s.Window < 0 {
		return exchange.Fail(exchange.CodeBadRequest, "%s: a value in [quota] is negative or too large", file)
	}
	return nil
}

func (s *quotaSettings) quota() rest.Quota {
	q := rest.Quota{Documents: s.Documents, Bytes: s.MiB << 20, Window: time.Duration(s.Window)}
	if q.Window == 0 {
		q.Window = time.Hour
	}
	return q
}

func (s *quotaSettings) rate() rest.Rate { return rest.Rate{Requests: s.Requests, Window: time.Minute} }
