package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// ferryLongWait is how long a ferry's bundle may be on its way before it is warned
// of it: media travel by the day.
const ferryLongWait = 72 * time.Hour

// checkLinks looks at the books of the links.
func (d *doctor) checkLinks(ctx context.Context) {
	if !d.wasStarted() {
		return
	}
	s, err := d.app.linkStatus(ctx, d.dir, "")
	if err != nil {
		d.warn("links", both("not looked at: %v", "未检查：%v", err), both("look at the node's log; if it does not run, start it", "请查看节点日志；如未运行请启动"))
		return
	}
	d.judgeLinks(s)
}

func (d *doctor) isFerry(link string) bool {
	if d.directory == nil {
		return false
	}
	l, ok := d.directory.Link(link)
	return ok && l.Kind == "ferry"
}

// waited is how long the oldest thing has waited that a ferry is to carry.
func (d *doctor) waited(l *oneLink) (age time.Duration) {
	if at := l.OldestOutstanding; at != 0 {
		age = d.now.Sub(at.Time())
	}
	if at := l.Ferry.Oldest; at != 0 {
		age = max(age, d.now.Sub(at.Time()))
	}
	return age
}

func (d *doctor) judgeLinks(s *linkStatus) {
	var wrong, late, gaps, unwell, apart []string
	for i := range s.Links {
		l := &s.Links[i]
		if !l.Balanced {
			wrong = append(wrong, l.Link)
		}
		if l.Ferry != nil && d.waited(l) > ferryLongWait {
			late = append(late, l.Link)
		}
		if len(l.Gaps) > 0 {
			gaps = append(gaps, l.Link)
		}
		if l.Status != nil && l.Status.Health != "ok" {
			unwell = append(unwell, l.Neighbour+" ("+strings.Join(l.Status.Warnings, " ")+")")
		}
		if l.Status != nil && skewed(l.Status) {
			apart = append(apart, fmt.Sprintf("%s (%+d s)", l.Neighbour, l.Status.Skew))
		}
	}
	if len(wrong) > 0 {
		d.fail("links", both("the books do not balance: %s", "账目不平：%s", strings.Join(wrong, ", ")), both("run yizhan fsck, and look at the disk", "请运行 yizhan fsck，并检查磁盘"))
	} else {
		d.ok("links", both("the books of %d links balance", "%d 条链路账目相符", len(s.Links)))
	}
	if len(unwell) > 0 {
		d.warn("what neighbours say", both("they warn of themselves: %s", "邻居自报异常：%s", strings.Join(unwell, ", ")), both("tell their operator; yizhan link status", "请通知对方运维；执行 yizhan link status 查看"))
	}
	if len(apart) > 0 {
		d.warn("clocks", both("more than %[1]d seconds apart from ours: %[2]s", "与本机时钟相差超过 %[1]d 秒：%[2]s", maxSkew, strings.Join(apart, ", ")), both("synchronise both clocks (NTP): signatures are judged by them", "请校准两端时钟（NTP）：签名依此判断"))
	}
	if len(late) > 0 {
		d.warn("ferries", both("something has waited longer than %[1]s for an acknowledgement: %[2]s", "超过 %[1]s 未获确认：%[2]s", ferryLongWait, strings.Join(late, ", ")),
			both("ask for the medium, or look at the gate; yizhan link status", "请查问介质去向或检查闸机；执行 yizhan link status 查看"))
	}
	if len(gaps) > 0 {
		d.warn("ferries", both("bundles of the neighbour are missing: %s", "对方驿包有缺号：%s", strings.Join(gaps, ", ")),
			both("import the file that is late, or export a note: the neighbour sends them again", "请导入迟到的文件，或导出一次回执文件，对方将重发"))
	}
}
