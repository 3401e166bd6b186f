package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// examine makes the checks in the order in which one needs the other. Without
// a configuration there is no node to look at.
func (d *doctor) examine(ctx context.Context) {
	var err error
	if d.settings, err = d.dir.settings(); err != nil {
		d.fail("configuration", both("%v", "配置无法读取：%v", err), both("correct config.toml, or make a node with yizhan init", "请更正 config.toml，或用 yizhan init 初始化节点"))
		return
	}
	d.ok("configuration", both("config.toml is readable", "config.toml 可读取"))
	if !d.checkOwner() {
		return
	}
	d.checkPermissions()
	d.checkFileSystem()
	d.checkDisk()
	d.checkBallast()
	d.checkSync()
	d.checkKeystore()
	if d.checkDirectory() {
		d.checkClock()
		d.checkListing()
		d.checkCertificates()
		d.checkApprovals()
		d.checkGuard()
		d.checkSources()
		d.checkTimestamps(ctx)
		d.checkInspection(ctx)
		d.checkQueues(ctx)
		d.checkLinks(ctx)
	}
	if d.keys != nil {
		_ = d.keys.Close() // nothing was written
	}
}

// checkOwner refuses to look as another user than the node's, for the cache of
// revocations as well.
func (d *doctor) checkOwner() bool {
	err := d.dir.checkOwner()
	if err != nil {
		d.fail("permissions", both("%v", "用户不符：%v", err), both("run this as the node's user", "请以节点的运行用户执行"))
	}
	return err == nil
}

// checkPermissions: nobody but the node's user may read keys or write anything.
func (d *doctor) checkPermissions() {
	for _, c := range []struct {
		path string
		open os.FileMode // bits that may not be set
	}{{string(d.dir), 0o022}, {d.dir.path(keysDir), 0o077}, {d.dir.path(tlsKeyFile), 0o077}, {d.dir.path(apiKeysFile), 0o077}} {
		info, err := os.Stat(c.path)
		if errors.Is(err, os.ErrNotExist) {
			continue // API keys come with the first one; others are missed by the checks below
		}
		if err != nil {
			d.fail("permissions", both("%v", "无法检查权限：%v", err), both("run this as the node's user", "请以节点的运行用户执行"))
			return
		}
		if mode := info.Mode().Perm(); mode&c.open != 0 {
			d.fail("permissions", both("%[1]s has mode %[2]o: others than the node's user have access", "%[1]s 的权限为 %[2]o：节点运行用户以外的用户可以访问", c.path, mode),
				both("chmod go-rwx %s", "执行 chmod go-rwx %s", c.path))
			return
		}
	}
	d.ok("permissions", both("only the node's user has access to keys", "只有节点运行用户可以访问密钥"))
}

// lowDisk is the free space below which it is warned.
const lowDisk = 4 << 30

func (d *doctor) checkKeystore() {
	secret, err := keystore.Passphrase(d.passFile, passphraseEnv)
	if err != nil {
		d.warn("keystore", both("not checked: %v", "未检查：%v", err), both("give --passphrase-file, or set %s", "请用 --passphrase-file 指定，或设置 %s", passphraseEnv))
		return
	}
	keys, err := d.settings.Keystore.open(d.dir.path(keysDir), secret)
	if err != nil {
		remedy := both("check the passphrase and the folder keys", "请核对口令与 keys 目录")
		if d.settings.Keystore.mode() != modeFile {
			remedy = both("check that the HSM is reachable and the PIN right; docs/hsm.md", "请检查密码机是否可达、PIN 是否正确，参见 docs/hsm.md")
		}
		d.fail("keystore", both("the keystore does not open: %v", "密钥库无法打开：%v", err), remedy)
		return
	}
	if err := keys.SelfTest(); err != nil {
		d.fail("keystore", both("the self-test fails: %v", "自检未通过：%v", err), both("do not start the node; restore the key, or replace the HSM or machine", "请勿启动节点；请恢复密钥，或更换密码机、主机"))
		_ = keys.Close()
		return
	}
	d.keys = keys
	d.ok("keystore", both("%[1]d keys, mode %[2]s, self-test passed", "密钥 %[1]d 个，模式 %[2]s，自检通过", len(keys.IDs()), d.settings.Keystore.mode()))
}

// checkDirectory says whether there is a directory that later checks can use.
func (d *doctor) checkDirectory() bool {
	var err error
	d.directory, d.sources, err = d.dir.revocations(d.settings, func() time.Time { return d.now })
	if err != nil {
		d.fail("directory", both("%v", "名录不可用：%v", err), both("install the authority's newest directory with yizhan join or yizhan init --directory", "请用 yizhan join 或 yizhan init --directory 安装名录机构的最新名录"))
		return false
	}
	next := d.directory.NextUpdate().UTC().Format(time.DateOnly)
	if d.directory.Stale(d.now) {
		d.warn("directory", both("version %[1]d should have been replaced by %[2]s", "第 %[1]d 版本应在 %[2]s 前更新", d.directory.Version(), next),
			both("ask the authority to publish; documents go on meanwhile", "请联系名录机构发布新版本；期间公文照常收发"))
		return true
	}
	d.ok("directory", both("version %[1]d is in force, the next is due by %[2]s", "第 %[1]d 版本有效，应于 %[2]s 前更新", d.directory.Version(), next))
	return true
}

// clockSlack is how far the clock may be behind what is known to have passed.
const clockSlack = time.Hour

// checkClock compares the clock with times that were signed by others.
func (d *doctor) checkClock() {
	issued := d.directory.Issued()
	remedy := both("synchronise the clock (NTP): signatures are judged by it", "请校准系统时钟（NTP）：签名依此时钟判断")
	if d.now.Before(issued.Add(-clockSlack)) {
		d.fail("clock", both("the clock says %[1]s, and the directory was signed at %[2]s", "系统时钟为 %[1]s，而名录签发于 %[2]s", d.now.UTC().Format(time.RFC3339), issued.UTC().Format(time.RFC3339)), remedy)
		return
	}
	for _, s := range d.sources {
		if d.now.Before(s.ThisUpdate.Add(-clockSlack)) {
			d.fail("clock", both("the clock says %[1]s, and a revocation list was signed at %[2]s", "系统时钟为 %[1]s，而吊销列表签发于 %[2]s", d.now.UTC().Format(time.RFC3339), s.ThisUpdate.UTC().Format(time.RFC3339)), remedy)
			return
		}
	}
	d.ok("clock", both("not behind anything that was signed by others", "不早于任何已知签发时间"))
}

// checkListing: the directory names this node and its agencies, and the keys of
// the certificates in use are here.
func (d *doctor) checkListing() {
	if _, listed := d.directory.Node(d.settings.Node); !listed {
		d.fail("listing", both("the directory does not name node %s", "名录中没有节点 %s", d.settings.Node), both("have the authority admit request.json and publish", "请名录机构登记 request.json 并发布"))
		return
	}
	agencies := 0
	for _, h := range heldBy(d.directory, d.settings.Node, d.now) {
		if h.kind == "agency" && h.use == certs.UseSign {
			agencies++
		}
		if h.cert == nil || d.keys == nil || d.keys.Has(h.cert.KeyID) {
			continue // without a certificate: see below
		}
		d.fail("listing", both("the key of the newest certificate to %[3]s with of %[1]s %[2]s is not in this keystore", "%[1]s %[2]s 最新的 %[3]s 证书所对应的密钥不在本密钥库中", h.kind, h.id, h.use),
			both("restore the keystore that made the request, or renew with yizhan cert renew", "请恢复产生该请求的密钥库，或用 yizhan cert renew 更新"))
		return
	}
	if agencies == 0 && d.settings.RestListen != "" { // one without that door stands between others
		d.warn("listing", both("node %s serves no agency", "节点 %s 没有服务的单位", d.settings.Node), both("have the authority admit one, or empty rest_listen in config.toml of a node that only passes documents on", "请名录机构登记单位；仅作中转的节点，请将 config.toml 的 rest_listen 置空"))
		return
	}
	if d.keys == nil {
		d.warn("listing", both("node %[1]s and %[2]d agencies are named; their keys were not checked", "名录中有节点 %[1]s 和 %[2]d 个单位；未检查密钥", d.settings.Node, agencies), both("see keystore above", "见上文密钥库一项"))
		return
	}
	d.ok("listing", both("node %[1]s and %[2]d agencies are named, their keys are here", "名录中有节点 %[1]s 和 %[2]d 个单位，密钥均在本机", d.settings.Node, agencies))
}

// checkCertificates: one finding for each certificate that ended, was revoked
// without a successor, or ends within a threshold.
func (d *doctor) checkCertificates() {
	list := watched(d.directory, d.settings.Node, d.now)
	before := len(d.list)
	soonest := 0.0
	for i := range list {
		h := &list[i]
		name := fmt.Sprintf("certificate %s %s %s", h.kind, h.id, h.use)
		ended := d.fail
		if !h.stops() {
			ended = d.warn
		}
		if h.cert == nil {
			ended(name, both("there is none that is not revoked%[1]s", "没有未吊销的证书%[1]s", h.of()), h.remedy())
			continue
		}
		if days := h.days(d.now); i == 0 || days < soonest {
			soonest = days
		}
		end := h.cert.NotAfter.UTC().Format(time.DateOnly)
		switch t, crossed := h.threshold(d.now); {
		case d.now.Before(h.cert.NotBefore):
			ended(name, both("it is not valid before %[1]s%[2]s", "证书自 %[1]s 起生效%[2]s", h.cert.NotBefore.UTC().Format(time.DateOnly), h.of()), both("check the clock", "请核对系统时钟"))
		case crossed && t == 0:
			ended(name, both("it expired on %[1]s%[2]s", "已于 %[1]s 到期%[2]s", end, h.of()), h.remedy())
		case crossed:
			d.warn(name, both("it expires on %[1]s, within %[2]d days%[3]s", "将于 %[1]s 到期，不足 %[2]d 天%[3]s", end, t, h.of()), h.remedy())
		}
	}
	if len(d.list) == before {
		d.ok("certificates", both("%[1]d in use; the first ends in %[2]d days", "在用 %[1]d 张，最早的 %[2]d 天后到期", len(list), int(soonest)))
	}
}

// checkApprovals: so few administrators may be left that no next version would
// be taken here.
func (d *doctor) checkApprovals() {
	const name = "approvals"
	q := d.directory.Quorum(d.now)
	if q.Missing() == 0 {
		d.ok(name, both("the policy asks for %[1]d, and %[2]d administrators can approve", "批准策略要求 %[1]d 名，可批准的管理员 %[2]d 名", q.Needed, len(q.Able)))
		return
	}
	d.fail(name, both("the policy asks for %[1]d, and %[2]d administrators have a certificate that is valid and not revoked (not: %[3]s): no next directory can be approved", "批准策略要求 %[1]d 名，仅 %[2]d 名管理员的证书有效且未吊销（无效：%[3]s）：无法批准下一版名录", q.Needed, len(q.Able), strings.Join(q.Unable, ", ")),
		both("check the clock; if it is right, the domain begins anew with another authority: docs/operations.md, \"Two pairs of eyes\"", "请核对系统时钟；如时钟无误，须以新的名录机构重建信任域，参见 docs/operations.md"))
}

// checkSources looks at what the node keeps of revocation lists and OCSP.
func (d *doctor) checkSources() {
	if len(d.sources) == 0 {
		d.ok("revocation lists", both("the directory names no outside source", "名录未列出外部吊销来源"))
		return
	}
	before := len(d.list)
	var oldest time.Duration
	for _, s := range d.sources {
		remedy := both("check the way to %s; what is known stays in force meanwhile", "请检查到 %s 的网络；期间沿用已知的吊销信息", s.URL)
		switch age := d.now.Sub(s.Fetched); {
		case s.Fetched.IsZero():
			d.warn("revocation lists", both("%[1]s of %[2]s was never fetched", "从未取得 %[2]s 的 %[1]s", s.Source, s.Issuer), remedy)
		case s.Stale:
			d.warn("revocation lists", both("%[1]s of %[2]s is %[3]s old, the next was due on %[4]s", "%[2]s 的 %[1]s 已有 %[3]s，应于 %[4]s 更新", s.Source, s.Issuer, age.Round(time.Minute), s.NextUpdate.UTC().Format(time.DateOnly)), remedy)
		default:
			oldest = max(oldest, age)
		}
	}
	if len(d.list) == before {
		d.ok("revocation lists", both("%[1]d sources, the oldest answer is %[2]s old", "来源 %[1]d 个，最旧的为 %[2]s 之前", len(d.sources), oldest.Round(time.Minute)))
	}
}

// manyWaiting is how many checkpoints may wait before it is warned of it: at
// the usual interval, about half a day.
const manyWaiting = 72

// checkTimestamps counts the checkpoints that wait.
func (d *doctor) checkTimestamps(ctx context.Context) {
	const name = "timestamps"
	if len(d.directory.TSAs()) == 0 {
		if d.settings.Timestamp.URL != "" {
			d.warn(name, both("a timestamp authority is configured, and the directory names none: its tokens would not be accepted", "配置了时间戳机构，但名录中没有列出：其时间戳不会被采信"),
				both("have the domain's authority name it and publish", "请名录机构将其列入名录并发布"))
			return
		}
		d.ok(name, both("the directory names no timestamp authority", "名录未列出时间戳机构"))
		return
	}
	if len(d.settings.Timestamp.authorities(d.directory)) == 0 {
		d.warn(name, both("the directory names a timestamp authority without a URL", "名录中的时间戳机构没有地址"), both("set url in [timestamp] of config.toml", "请在 config.toml 的 [timestamp] 中设置 url"))
		return
	}
	waiting, err := d.waiting(ctx)
	switch {
	case err != nil:
		d.ok(name, both("not counted: %v", "未统计：%v", err))
	case waiting > manyWaiting:
		d.warn(name, both("%d checkpoints wait for a timestamp", "%d 个检查点等待时间戳", waiting), both("check the way to the timestamp authority; documents go on, and it is caught up", "请检查到时间戳机构的网络；公文照常收发，恢复后自动补齐"))
	default:
		d.ok(name, both("%d checkpoints wait for a timestamp", "%d 个检查点等待时间戳", waiting))
	}
}

// waiting reads the count from the store when no node is running over it, else
// from the running node's metrics.
func (d *doctor) waiting(ctx context.Context) (int, error) {
	if _, err := os.Stat(d.dir.path(storeDir)); err != nil {
		return 0, nil // never started
	}
	store, err := d.dir.openStore(slog.New(slog.DiscardHandler))
	if err != nil {
		return d.waitingByMetrics(ctx)
	}
	defer store.Close()
	waiting := 0
	err = store.View(ctx, func(tx queue.Tx) error {
		id, err := records.Identity.Get(tx)
		if err != nil || id == nil {
			return err
		}
		book, err := records.StampBook.Get(tx, id.Ledger)
		if err == nil && book != nil {
			waiting = book.Waiting
		}
		return err
	})
	return waiting, err
}

func (d *doctor) waitingByMetrics(ctx context.Context) (int, error) {
	listen := d.settings.Metrics.Listen
	if listen == "" {
		return 0, errors.New("the store is in use by a running node that serves no metrics ([metrics] listen)")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(io.LimitReader(res.Body, 1<<20))
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "yizhan_checkpoints_time_pending "); ok {
			return strconv.Atoi(strings.TrimSpace(text))
		}
	}
	return 0, exchange.Fail(exchange.CodeTemporary, "the running node's metrics do not say it")
}
