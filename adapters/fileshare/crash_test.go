package fileshare

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/queue"
)

// ending is a process that ends at the n-th durable step: all that it does from there
// on fails.
type ending struct {
	mu   sync.Mutex
	at   int // 0 is never
	step int
	over bool
	what string
}

func (e *ending) hit(what string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.step++; e.step == e.at {
		e.over, e.what = true, what
	}
	if e.over {
		return errCrash
	}
	return nil
}

// fragile is a store whose process ends before a commit, or after it.
type fragile struct {
	queue.Store
	e *ending
}

func (f fragile) Update(ctx context.Context, fn func(queue.Tx) error) error {
	if err := f.e.hit("before a commit"); err != nil {
		return err
	}
	if err := f.Store.Update(ctx, fn); err != nil {
		return err
	}
	return f.e.hit("after a commit")
}

// oldShare is a tree of real names in GBK with all that may be wrong in it.
func oldShare(t *testing.T) *office {
	o := newOffice(t)
	o.c.Rules, o.c.Defaults.To = Rules{On: true, Folder: true}, nil
	list := lines(
		"标题,文号,主送,密级,正文,附件",
		"关于加强档案管理的通知,遵示办发〔2026〕1号,示范单位乙,内部,通知正文.wps,附件1-名单.xls；附件2-表.xls",
		"关于召开会议的函,遵示办函〔2026〕2号,示范单位乙；示范单位丙,公开,函.doc,",
		"关于没有正文的事,,示范单位乙,内部,不存在.doc,",
		"关于涉密的事,,示范单位乙,机密,密件.doc,",
		"节点不收的事,,示范单位乙,内部,不收.doc,不收附件.doc",
		"关于召开会议的函（又一份）,遵示办函〔2026〕2号,示范单位丙；示范单位乙,公开,函（副本）.doc,",
	)
	o.write(gbk(t, "收发室/发文清单.csv"), gbk(t, list))
	for name, content := range map[string]string{
		"通知正文.wps": "一", "附件1-名单.xls": "二", "附件2-表.xls": "三", "函.doc": "四", "密件.doc": "五",
		"不收.doc": "六", "不收附件.doc": "七", "函（副本）.doc": "四", "无人认领.txt": "八",
	} {
		o.write(gbk(t, "收发室/"+name), content)
	}
	o.write(gbk(t, "示范单位丁/遵示办发〔2026〕9号 关于值班的通知.doc"), "九")
	o.write(gbk(t, "示范单位丁/遵示办发〔2026〕9号 关于值班的通知-附件1.doc"), "十")
	o.desk.before = func(_ string, d *exchange.Document) error {
		if d.Title == "节点不收的事" {
			return &Refused{exchange.CodeClassificationMark, "title"}
		}
		return nil
	}
	return o
}

// TestACrashAtEveryStep: whatever the step at which the process ends, the next one goes
// on, each document is accepted once, and the share ends up the same.
func TestACrashAtEveryStep(t *testing.T) {
	want := []string{"关于值班的通知", "关于加强档案管理的通知", "关于召开会议的函"}
	var whole []string
	for _, readOnly := range []bool{false, true} {
		for n := 0; ; n++ {
			o := oldShare(t)
			o.c.ReadOnly, o.c.Parallel = readOnly, 1
			e := &ending{at: n}
			real := o.store
			o.store = fragile{real, e}
			o.desk.after = func() error {
				if e.hit("the node has it") != nil {
					return errors.New("the answer is lost")
				}
				return nil
			}
			o.open().crash = e.hit
			_, err := o.imp.Run(t.Context())
			if n > 0 && !e.over {
				t.Logf("read-only %t: %d steps", readOnly, n-1)
				break
			}
			if n > 0 && err == nil {
				t.Errorf("step %d, %s: the run did not notice its end", n, e.what)
			}
			o.store, o.desk.after, o.imp = real, nil, nil
			o.run()
			s := o.run()
			if got := o.desk.titles(); !slices.Equal(got, want) {
				t.Fatalf("read-only %t, step %d, %s: accepted are %q", readOnly, n, e.what, got)
			}
			if s.Submitted != 0 || s.Quarantined != 3 || s.Waiting != 0 || s.Unmatched != 1 {
				t.Fatalf("read-only %t, step %d, %s: %+v", readOnly, n, e.what, s)
			}
			tree := o.tree()
			if n == 0 {
				whole = tree
			}
			if !slices.Equal(tree, whole) {
				t.Fatalf("read-only %t, step %d, %s: the share is\n%s", readOnly, n, e.what, strings.Join(tree, "\n"))
			}
			for _, at := range reasons(o) {
				if strings.Contains(at, "密件") != strings.Contains(at, exchange.CodeStateSecret) {
					t.Fatalf("step %d, %s: %s", n, e.what, at)
				}
			}
		}
	}
}

// reasons are the files of the quarantine with their codes.
func reasons(o *office) (out []string) {
	for _, e := range o.entries {
		if e.Outcome == Quarantined {
			out = append(out, fmt.Sprint(e.Files, e.Code))
		}
	}
	return out
}
