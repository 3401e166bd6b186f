package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// checkFileSystem says what serve would refuse.
func (d *doctor) checkFileSystem() {
	const name = "file system"
	if err := d.dir.checkFileSystem(fileSystemOf); err != nil {
		d.fail(name, both("%v", "数据目录不在本地磁盘上：%v", err), both("move the data directory to a local disk with ext4 or XFS; the node does not start here", "请将数据目录迁移到本地 ext4 或 XFS 磁盘；节点不会在此启动"))
		return
	}
	d.ok(name, both("a local disk", "本地磁盘"))
}

// checkDisk looks at the free space and its marks.
func (d *doctor) checkDisk() {
	const name = "disk"
	w := d.dir.watermark(d.settings, nil)
	at, _, err := w.least()
	if err != nil {
		d.fail(name, both("%v", "无法检查磁盘：%v", err), both("check the file system of the data directory, and mount the disks that yizhan blobs ls names", "请检查数据目录所在文件系统，并挂载 yizhan blobs ls 所列的数据盘"))
		return
	}
	m, free := w.marks, at.free
	cause := both("%[1]d MiB are free at %[3]s; new documents are refused below %[2]d MiB", "%[3]s 可用空间 %[1]d MiB；低于 %[2]d MiB 时不接收新公文", free>>20, m.refuse>>20, at.path)
	remedy := both("make room, move the data directory to a larger disk, or, for payloads, add one with yizhan blobs add", "请清理空间或迁移到更大的磁盘；存放密文的空间可用 yizhan blobs add 增加数据盘")
	switch {
	case free < m.refuse:
		d.fail(name, cause, remedy)
	case free < max(lowDisk, m.accept):
		d.warn(name, cause, remedy)
	default:
		d.ok(name, cause)
	}
}

// checkBallast: a node that was started has one, unless the disk was full.
func (d *doctor) checkBallast() {
	const name = "ballast"
	w := d.dir.watermark(d.settings, nil)
	held, err := ballastSize(w.path)
	switch {
	case err != nil:
		d.warn(name, both("%v", "无法检查预留文件：%v", err), both("remove what lies there and run yizhan ballast", "请移除该位置的内容并执行 yizhan ballast"))
	case held >= w.ballast:
		d.ok(name, both("%d MiB are kept aside for a full disk", "已为磁盘写满预留 %d MiB", held>>20))
	case !d.wasStarted():
		d.ok(name, both("the first start makes it", "首次启动时建立"))
	default:
		d.warn(name, both("it is missing: the disk was full once, or had too little room", "预留文件缺失：磁盘曾写满，或空间不足"), both("make room and run yizhan ballast", "请清理空间后执行 yizhan ballast"))
	}
}

func (d *doctor) wasStarted() bool {
	_, err := os.Stat(d.dir.path(storeDir))
	return !errors.Is(err, fs.ErrNotExist)
}

// A sync that takes longer than slowSync makes every commit wait.
const (
	slowSync   = 50 * time.Millisecond
	syncsTried = 5
)

// checkSync measures what one durable write costs beside whatever runs: the
// middle of a few, in a file that is removed.
func (d *doctor) checkSync() {
	const name = "sync"
	took, err := d.measureSync()
	switch {
	case err != nil:
		d.fail(name, both("a durable write fails: %v", "落盘失败：%v", err), both("look at the disk and the system's log", "请检查磁盘与系统日志"))
	case took > slowSync:
		d.warn(name, both("a durable write takes %s", "一次落盘耗时 %s", took), both("the disk is slow or busy: every document waits for it", "磁盘缓慢或繁忙：每件公文都要等待落盘"))
	default:
		d.ok(name, both("a durable write takes %s", "一次落盘耗时 %s", took))
	}
}

func (d *doctor) measureSync() (_ time.Duration, err error) {
	f, err := os.CreateTemp(string(d.dir), ".doctor-*")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	took := make([]time.Duration, syncsTried)
	for i := range took {
		began := time.Now()
		if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took[i] = time.Since(began).Round(10 * time.Microsecond)
	}
	slices.Sort(took)
	return took[syncsTried/2], nil
}

// checkQueues looks at what waits, on a running node or a stopped one, and of a
// running one at its neighbours.
func (d *doctor) checkQueues(ctx context.Context) {
	if !d.wasStarted() {
		d.ok("queue", both("the node was never started", "节点尚未启动过"))
		return
	}
	var b backlog
	w := wish{limit: 1}
	err := d.app.withNode(ctx, d.dir, withoutKeys,
		func(running *control.Client) (err error) {
			b, err = remoteQueues{running}.backlog(ctx, w)
			return err
		},
		func(stopped *stoppedNode) (err error) {
			b, err = backlogOf(ctx, stopped.node, w, nil)
			return err
		})
	if err != nil {
		remedy := both("look at the node's log; if it does not run, start it", "请查看节点日志；如未运行请启动")
		if isBusy(err) || exchange.IsTemporary(err) {
			d.warn("queue", both("not looked at: %v", "未检查：%v", err), remedy)
		} else {
			d.fail("queue", both("the store cannot be read: %v", "存储无法读取：%v", err), remedy)
		}
		return
	}
	d.judgeBacklog(&b)
	d.judgeNeighbours(&b)
}

// longWait is how long the first of a lane may wait before it is warned of it.
const longWait = time.Hour

// longUnconfirmed leaves some days to call the other side of a link without a way
// back, before nothing can be confirmed any more.
const longUnconfirmed = node.Unconfirmed - 9*24*time.Hour

// judgeUnconfirmed: over such a link things wait for a person.
func (d *doctor) judgeUnconfirmed(q *node.LinkQueues) {
	for _, one := range q.Queues {
		if one.Oldest != 0 && d.now.Sub(one.Oldest.Time()) > longUnconfirmed {
			d.warn("unconfirmed", both("link %s has no way back, and the first of what waits there came on %s", "链路 %s 无回执通道，最早的待确认件始于 %s", q.Link, one.Oldest.Time().Format(time.DateOnly)),
				both("have the other side run yizhan ferry code, and enter what it reads with yizhan ferry confirm", "请对方运行 yizhan ferry code，并用 yizhan ferry confirm 输入其读出的确认码"))
			return
		}
	}
}

func (d *doctor) judgeBacklog(b *backlog) {
	var waiting, dead uint64
	var oldest time.Duration
	where := ""
	for _, q := range b.Links {
		waiting, dead = waiting+q.Waiting, dead+q.Parked
		if q.OneWay == "out" {
			d.judgeUnconfirmed(&q)
			continue
		}
		if d.isFerry(q.Link) {
			continue // judgeLinks measures it by days
		}
		for _, one := range q.Queues {
			waitsForHours := q.ClosedUntil != 0 && slices.Contains([]string{"normal", "urgent", "very_urgent"}, one.Rank)
			if one.Oldest != 0 && !waitsForHours {
				if age := d.now.Sub(one.Oldest.Time()); age > oldest {
					oldest, where = age, q.Link
				}
			}
		}
	}
	oldest = oldest.Round(time.Second)
	if oldest > longWait {
		d.warn("queue", both("%[1]d items wait, the oldest for %[2]s, for link %[3]s", "共 %[1]d 件等待，最早的已等待 %[2]s（链路 %[3]s）", waiting, oldest, where), both("see yizhan queue ls: is the neighbour away, or the link held?", "请执行 yizhan queue ls 查看：邻居是否离线，或链路被暂停"))
	} else {
		d.ok("queue", both("%[1]d items wait, the oldest for %[2]s", "共 %[1]d 件等待，最早的已等待 %[2]s", waiting, oldest))
	}
	if dead > 0 {
		d.warn("dead letters", both("%d deliveries are parked", "死信 %d 件", dead), both("see yizhan queue ls, mend the cause, then yizhan queue retry", "请执行 yizhan queue ls 查看，排除原因后执行 yizhan queue retry"))
	} else {
		d.ok("dead letters", both("none", "无"))
	}
	if b.Quarantined > 0 {
		d.warn("quarantine", both("%d things could not be used", "隔离区有 %d 项", b.Quarantined), both("see yizhan queue ls --quarantine; what is stored here and unreadable means a failing disk", "请执行 yizhan queue ls --quarantine 查看；本机存储不可读意味着磁盘故障"))
	} else {
		d.ok("quarantine", both("empty", "空"))
	}
}

func (d *doctor) judgeNeighbours(b *backlog) {
	const name = "neighbours"
	if !b.Running {
		d.ok(name, both("not looked at: the node does not run", "未检查：节点未运行"))
		return
	}
	down := 0
	first, why := "", ""
	for _, s := range b.Status {
		if !s.Connected {
			if down++; down == 1 {
				first, why = s.Link, strings.ReplaceAll(s.LastError, "\n", ": ")
			}
		}
	}
	if down == 0 {
		d.ok(name, both("all %d links are connected", "全部 %d 条链路已连通", len(b.Status)))
		return
	}
	d.warn(name, both("%[1]d of %[2]d links are not connected; %[3]s: %[4]s", "%[2]d 条链路中有 %[1]d 条未连通；%[3]s：%[4]s", down, len(b.Status), first, or(why, "no call came yet · 尚无来访")),
		both("check the network and the neighbour; documents wait and go on by themselves", "请检查网络与邻居节点；公文会等待并自动续传"))
}
