package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/adapters/peer"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

func (a *app) queueListCommand() *cobra.Command {
	f, w, quarantine := new(queueFlags), wish{}, false
	c := &cobra.Command{
		Use: "ls --data DIR", Short: "Show what waits · 查看队列", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := f.dir()
			if err == nil && w.limit < 1 {
				err = usage("--limit must be above 0")
			}
			if err != nil {
				return err
			}
			if quarantine {
				return a.listQuarantine(c.Context(), dir, w)
			}
			var b backlog
			err = a.withNode(c.Context(), dir, withoutKeys,
				func(running *control.Client) (err error) {
					b, err = remoteQueues{running}.backlog(c.Context(), w)
					return err
				},
				func(stopped *stoppedNode) (err error) {
					b, err = backlogOf(c.Context(), stopped.node, w, nil)
					return err
				})
			if err != nil {
				return err
			}
			return a.print(b, "%s", b.text(a.now()))
		},
	}
	f.add(c)
	c.Flags().StringVar(&w.link, "link", "", "only this link")
	c.Flags().BoolVar(&quarantine, "quarantine", false, "list what could not be used instead: it arrived damaged, was refused, or cannot be read here")
	c.Flags().BoolVar(&w.items, "items", false, "list single entries that wait, too; dead letters are always listed")
	c.Flags().IntVar(&w.limit, "limit", 100, fmt.Sprintf("entries to list, at most %d", node.MaxQueueItems))
	return c
}

// text is a backlog for a person, in English and Chinese.
func (b *backlog) text(now time.Time) string {
	var out strings.Builder
	if !b.Running {
		out.WriteString(both("the node is not running", "节点未运行") + "\n")
	}
	for i := range b.Links {
		b.linkText(&out, &b.Links[i], now)
	}
	for i := range b.Items {
		itemText(&out, &b.Items[i], now)
	}
	if b.Undone > 0 {
		out.WriteString(both("to be distributed: %d", "待分发：%d", b.Undone) + "\n")
	}
	if b.Quarantined > 0 {
		out.WriteString(both("in quarantine: %d", "隔离区：%d", b.Quarantined) + "\n")
	}
	return out.String()
}

func (b *backlog) linkText(out *strings.Builder, q *node.LinkQueues, now time.Time) {
	fmt.Fprintf(out, "%s → %s: %s\n", q.Link, or(q.Neighbour, "?"), both("%d waiting", "%d 件等待", q.Waiting))
	for _, one := range q.Queues {
		if one.Waiting == 0 {
			continue
		}
		age := ""
		if one.Oldest != 0 {
			age = both("oldest %s", "最早 %s", now.Sub(one.Oldest.Time()).Round(time.Second))
		}
		fmt.Fprintf(out, "  %-12s %8d  %s\n", one.Rank, one.Waiting, age)
	}
	if h := q.Hold; h != nil {
		fmt.Fprintf(out, "  %s\n", both("held since %s by %s: %s", "%s 起由 %s 暂停：%s", h.At.Time().Local().Format(time.DateTime), h.By, h.Reason))
	}
	if q.ClosedUntil != 0 {
		en, zh := "documents", "公文"
		if q.ClosedBelow != "" {
			en, zh = "documents below "+q.ClosedBelow, q.ClosedBelow+" 以下的公文"
		}
		until := q.ClosedUntil.Time().Local().Format(time.DateTime)
		fmt.Fprintf(out, "  %s · %s\n", "outside its hours: "+en+" wait until "+until, "不在放行时段："+zh+"等待至 "+until)
	}
	if q.Guarded > 0 {
		fmt.Fprintf(out, "  %s\n", both("%d wait for approval; yizhan guard ls shows them", "%d 件待批准；可用 yizhan guard ls 查看", q.Guarded))
	}
	if q.Parked > 0 {
		fmt.Fprintf(out, "  %s\n", both("%d dead letters; yizhan queue retry requeues them", "%d 件死信；可用 yizhan queue retry 重新投递", q.Parked))
	}
	if q.Paused > 0 {
		fmt.Fprintf(out, "  %s\n", both("%d held back after trouble", "%d 件因故障暂缓", q.Paused))
	}
	if s := b.statusOf(q.Link); s != nil {
		statusText(out, s, now)
	}
}

// itemText is one entry on a line.
func itemText(out *strings.Builder, q *node.QueueItem, now time.Time) {
	fmt.Fprintf(out, "%s  %s %s %s  %s", q.ID, q.State, q.Rank, q.Kind, q.Document)
	if q.Sender != "" {
		fmt.Fprintf(out, "  %s → %s", q.Sender, strings.Join(q.Recipients, " "))
	}
	if more := q.Count - len(q.Recipients); more > 0 {
		fmt.Fprintf(out, " +%d", more)
	}
	if q.Since != 0 {
		fmt.Fprintf(out, "  %s", now.Sub(q.Since.Time()).Round(time.Second))
	}
	if q.Reason != "" {
		fmt.Fprintf(out, "  %s", q.Reason)
	}
	out.WriteString("\n")
}

func (b *backlog) statusOf(link string) *peer.Status {
	for i := range b.Status {
		if b.Status[i].Link == link {
			return &b.Status[i]
		}
	}
	return nil
}

func statusText(out *strings.Builder, s *peer.Status, now time.Time) {
	switch {
	case s.Connected:
		fmt.Fprintf(out, "  %s\n", both("connected", "已连接"))
	case s.LastSuccess.IsZero():
		fmt.Fprintf(out, "  %s\n", both("not connected since the start", "启动以来未连通"))
	default:
		fmt.Fprintf(out, "  %s\n", both("not connected since %s", "%s 起未连通", s.LastSuccess.Local().Format(time.DateTime)))
	}
	if s.LastError != "" {
		wait := max(0, s.RetryAt.Sub(now)).Round(time.Second)
		fmt.Fprintf(out, "  %s: %s\n", both("%d failures, next try in %s", "连续失败 %d 次，%s 后重试", s.Failures, wait), s.LastError)
	}
}
