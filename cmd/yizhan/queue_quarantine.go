package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// quarantine is what queue ls --quarantine shows, newest first.
type quarantine struct {
	Quarantined uint64        `json:"quarantined"`
	Items       []quarantined `json:"items"`
}

// quarantined is one thing that could not be used. Of what had arrived there is
// a sample, which stays in the store: it may be anything.
type quarantined struct {
	At     strictjson.Time `json:"at,omitzero"`
	Link   string          `json:"link,omitempty"` // none: it was stored here
	What   string          `json:"what"`
	Reason string          `json:"reason"`
	Sample int             `json:"sample_bytes"`
	SM3    string          `json:"sample_sm3,omitempty"`
}

func (r remoteQueues) quarantine(ctx context.Context, w wish) (q quarantine, err error) {
	err = r.Call(ctx, http.MethodGet, "/quarantine?"+w.query(), nil, &q, nil)
	return q, err
}

func quarantineOf(ctx context.Context, n *node.Node, w wish) (q quarantine, err error) {
	rows, err := n.Quarantined(ctx, records.QuarantineSize)
	if err != nil {
		return q, err
	}
	q.Items = []quarantined{}
	for i := range rows {
		row := &rows[i]
		if w.link != "" && row.Link != w.link {
			continue
		}
		if q.Quarantined++; len(q.Items) == w.limit {
			continue
		}
		one := quarantined{At: row.At, Link: row.Link, What: row.What, Reason: row.Reason, Sample: len(row.Sample)}
		if len(row.Sample) > 0 {
			one.SM3 = sm.Sum(row.Sample).String()
		}
		q.Items = append(q.Items, one)
	}
	return q, nil
}

func (a *app) listQuarantine(ctx context.Context, dir dataDir, w wish) error {
	var q quarantine
	err := a.withNode(ctx, dir, withoutKeys,
		func(running *control.Client) (err error) {
			q, err = remoteQueues{running}.quarantine(ctx, w)
			return err
		},
		func(stopped *stoppedNode) (err error) {
			q, err = quarantineOf(ctx, stopped.node, w)
			return err
		})
	if err != nil {
		return err
	}
	return a.print(q, "%s", q.text())
}

func (q *quarantine) text() string {
	var out strings.Builder
	out.WriteString(both("in quarantine: %d", "隔离区：%d", q.Quarantined) + "\n")
	for i := range q.Items {
		one := &q.Items[i]
		at := "?"
		if one.At != 0 {
			at = one.At.Time().Local().Format(time.DateTime)
		}
		fmt.Fprintf(&out, "%s  %s  %s: %s\n", at, or(one.Link, "-"), one.What, one.Reason)
	}
	return out.String()
}
