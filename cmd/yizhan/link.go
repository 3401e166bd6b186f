package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/adapters/peer"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// linkStatus is what yizhan link status shows. A node that does not run knows
// nothing of connections.
type linkStatus struct {
	Running bool      `json:"running"`
	Links   []oneLink `json:"links"`
}

// oneLink is a link's state with how it fares. LastContact is when the neighbour
// was last heard: of a running node over https exactly, else by its last status.
type oneLink struct {
	node.LinkState
	Connected   *bool      `json:"connected,omitempty"` // absent of a ferry, and while the node does not run
	LastContact *time.Time `json:"last_contact,omitempty"`
	LastError   string     `json:"last_error,omitempty"`
}

// linkStatusOf puts together the books and the connections; status is nil of a
// node that does not run.
func linkStatusOf(ctx context.Context, n *node.Node, only string, status []peer.Status) (*linkStatus, error) {
	states, err := n.LinkStates(ctx, only)
	if err != nil {
		return nil, err
	}
	if only != "" && len(states) == 0 {
		return nil, exchange.Fail(exchange.CodeNotFound, "link %q: the directory names no such link of this node, and nothing waits for one", only)
	}
	out := &linkStatus{Running: status != nil, Links: make([]oneLink, len(states))}
	for i, s := range states {
		l := &out.Links[i]
		l.LinkState = s
		if s.Ferry != nil && s.Ferry.Heard != 0 {
			at := s.Ferry.Heard.Time()
			l.LastContact = &at
		}
		if s.Status != nil && (l.LastContact == nil || l.LastContact.Before(s.Status.Heard.Time())) {
			at := s.Status.Heard.Time()
			l.LastContact = &at
		}
		for k := range status {
			if status[k].Link == s.Link {
				l.connection(&status[k])
			}
		}
	}
	return out, nil
}

func (l *oneLink) connection(s *peer.Status) {
	connected := s.Connected
	l.Connected, l.LastError = &connected, s.LastError
	if !s.LastSuccess.IsZero() && (l.LastContact == nil || l.LastContact.Before(s.LastSuccess)) {
		at := s.LastSuccess
		l.LastContact = &at
	}
}

func (g *gateway) linkRoutes(s *control.Server) {
	s.Handle("GET /links", func(ctx context.Context, q *control.Request) (any, error) {
		return linkStatusOf(ctx, g.node, q.Query.Get("link"), append([]peer.Status{}, g.peer.Status()...))
	})
}

// linkStatus asks a node, running or not.
func (a *app) linkStatus(ctx context.Context, d dataDir, only string) (out *linkStatus, err error) {
	err = a.withNode(ctx, d, withoutKeys,
		func(running *control.Client) error {
			out = new(linkStatus)
			return running.Call(ctx, http.MethodGet, "/links?link="+url.QueryEscape(only), nil, out, nil)
		},
		func(stopped *stoppedNode) (err error) {
			out, err = linkStatusOf(ctx, stopped.node, only, nil)
			return err
		})
	return out, err
}

func (a *app) linkCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "link", Short: "See how each link stands · 链路", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.linkStatusCommand())
	return c
}

func (a *app) linkStatusCommand() *cobra.Command {
	f, link := new(queueFlags), ""
	c := &cobra.Command{
		Use: "status --data DIR [--link LINK]", Short: "Show the books of each link, and what is missing · 链路账目", Args: cobra.NoArgs,
		Long: `Shows for each link what arrived and what became of it, what was given to it and what of
that is still outstanding, whether the two balance, and of a ferry the bundles on their way
and the gaps. Works on a running node through its control socket, and on a stopped one.`,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := f.dir()
			if err != nil {
				return err
			}
			s, err := a.linkStatus(c.Context(), dir, link)
			if err != nil {
				return err
			}
			return a.print(s, "%s", s.text(a.now()))
		},
	}
	f.add(c)
	c.Flags().StringVar(&link, "link", "", "only this link")
	return c
}

// text is a status for a person, in English and Chinese.
func (s *linkStatus) text(now time.Time) string {
	var out strings.Builder
	if !s.Running {
		out.WriteString(both("the node is not running", "节点未运行") + "\n")
	}
	for i := range s.Links {
		s.Links[i].text(&out, now)
	}
	return out.String()
}

func (l *oneLink) text(out *strings.Builder, now time.Time) {
	line := func(en, zh string, args ...any) { fmt.Fprintf(out, "  %s\n", both(en, zh, args...)) }
	fmt.Fprintf(out, "%s (%s) → %s, %s\n", l.Link, or(l.Kind, "?"), or(l.Neighbour, "?"), or(l.Zone, "?"))
	line("arrived %d: accepted %d, duplicate %d, refused %d, deferred %d, damaged %d", "收到 %d：接受 %d，重复 %d，拒绝 %d，暂存 %d，损坏 %d",
		l.Arrived, l.Accepted, l.Duplicate, l.Refused, l.Deferred, l.Damaged)
	line("exported %d: acknowledged %d, outstanding %d (%d dead letters), ended %d", "发出 %d：已确认 %d，未结 %d（死信 %d），已终结 %d",
		l.Exported, l.Acked, l.Outstanding, l.Parked, l.Ended)
	switch {
	case l.Unreadable:
		line("a row of the books cannot be read; run yizhan fsck", "账目记录不可读，请运行 yizhan fsck")
	case !l.Balanced:
		line("THE BOOKS DO NOT BALANCE; run yizhan fsck", "账目不平，请运行 yizhan fsck")
	}
	if l.OldestOutstanding != 0 {
		line("the oldest has waited %s", "最早的已等待 %s", now.Sub(l.OldestOutstanding.Time()).Round(time.Second))
	}
	if h := l.Hold; h != nil {
		line("held since %s by %s: %s", "%s 起由 %s 暂停：%s", h.At.Time().Local().Format(time.DateTime), h.By, h.Reason)
	}
	l.ferryText(line, now)
	switch {
	case l.LastContact != nil:
		line("last contact %s", "最近联系 %s", l.LastContact.Local().Format(time.DateTime))
	case l.Connected != nil:
		line("not connected since the start", "启动以来未连通")
	}
	l.neighbourText(line, now)
	if l.LastError != "" {
		line("last trouble: %s", "最近故障：%s", l.LastError)
	}
}

// neighbourText is what the neighbour says of itself.
func (l *oneLink) neighbourText(line func(en, zh string, args ...any), now time.Time) {
	s := l.Status
	if s == nil {
		return
	}
	line("%[1]s says of itself (%[2]s ago): %[3]s, version %[4]s, directory %[5]d; %[6]d waiting (%[7]d for this link), %[8]d dead letters", "%[1]s 自述（%[2]s 前）：%[3]s，版本 %[4]s，名录第 %[5]d 版；等待 %[6]d 件（本链路 %[7]d 件），死信 %[8]d 件",
		l.Neighbour, now.Sub(s.Heard.Time()).Round(time.Second), strings.Join(append([]string{s.Health}, s.Warnings...), " "), or(s.Program, "?"), s.Directory, s.Backlog.Waiting, s.Here.Waiting, s.Backlog.Parked)
	if skewed(s) {
		line("its clock is %d seconds ahead of ours", "其时钟比本机快 %d 秒", s.Skew)
	}
}

// maxSkew is how far two clocks may be apart, seconds.
const maxSkew = 60

func skewed(s *node.NeighbourState) bool { return s.Skew > maxSkew || s.Skew < -maxSkew }

func (l *oneLink) ferryText(line func(en, zh string, args ...any), now time.Time) {
	f := l.Ferry
	if f == nil {
		return
	}
	line("%d bundles (%d bytes) not acknowledged, %d of them lost and to leave again", "未确认驿包 %d 个（%d 字节），其中丢失待重发 %d 个", f.Bundles, f.Bytes, f.Lost)
	if f.Oldest != 0 {
		line("the oldest bundle was made %s ago", "最早的驿包已有 %s", now.Sub(f.Oldest.Time()).Round(time.Second))
	}
	for _, g := range l.Gaps {
		line("of the neighbour's bundles %d to %d are missing", "对方第 %d 至 %d 号驿包缺失", g.From, g.To)
	}
	if f.Lacks > 0 {
		line("%d bundles came without some item", "%d 个驿包缺少条目", f.Lacks)
	}
}
