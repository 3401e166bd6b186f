package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/fileshare"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/config"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
)

// importProfile is the file that says how one share is imported.
type importProfile struct {
	Share    string `toml:"share" comment:"共享目录 the share's directory"`
	Sentinel string `toml:"sentinel" comment:"共享目录中必有的文件，缺少即报警 a file of the share that must be there, else nothing is done and an alarm given"`
	ReadOnly bool   `toml:"read_only" comment:"true: 不改动共享目录，只记台账 nothing on the share is changed"`
	Node     string `toml:"node" comment:"节点接口地址 URL of the node's REST interface"`
	KeyFile  string `toml:"key_file" comment:"本单位接口密钥文件，权限范围需含 send file with the agency's API key, of scope send"`
	State    string `toml:"state" comment:"导入台账所在的本地目录 a local directory for the import's ledger"`

	Archive    string `toml:"archive,omitempty" comment:"已提交文件移入此处（共享目录之内）; empty: .yizhan/archive"`
	Quarantine string `toml:"quarantine,omitempty" comment:"隔离文件移入此处; empty: .yizhan/quarantine"`

	Depth     int      `toml:"depth" comment:"进入几层子文件夹 how many folders in one another are looked into; 0: none"`
	Include   []string `toml:"include,omitempty" comment:"只看这些文件，如 *.ofd only files of these names; empty: all"`
	Exclude   []string `toml:"exclude,omitempty" comment:"不看这些文件 files of these names are left out, besides Thumbs.db, ~$*, *.tmp and the like"`
	Manifests []string `toml:"manifest,omitempty" comment:"清单文件名 names of lists; empty: 清单.*, *公文清单.*, *发文清单.*, *交换清单.*, *导入清单.*, manifest.*; csv, txt, xlsx, xml"`

	Stable string   `toml:"stable,omitempty" comment:"如何判断文件已写完 quiet, size, marker or rename; empty: quiet"`
	Quiet  duration `toml:"quiet,omitempty" comment:"静默多久算写完 how long a file stands still until it is whole; empty: 10s"`
	Marker string   `toml:"marker,omitempty" comment:"完成标志，如 *.ok 或 done for stable = marker: *.ok beside a file, or one name for a folder"`
	Atomic string   `toml:"atomic,omitempty" comment:"一处有误时：row 只停该行，file 停整份清单，batch 停整批; empty: row"`

	Parallel int      `toml:"parallel,omitempty" comment:"同时提交的份数 documents that are submitted side by side; 0: 128"`
	Patience duration `toml:"patience,omitempty" comment:"节点无应答多久后放弃本次 how long the node may be away until a run gives up; empty: 5m"`
	Every    duration `toml:"every,omitempty" comment:"run --watch 的间隔 how often run --watch looks; empty: 30s"`

	Defaults importDefaults `toml:"defaults" comment:"清单没有写明时 for what a list does not say"`
	Rules    importRules    `toml:"rules" comment:"没有清单的文件夹 for folders that never had a list"`
	Pull     importPull     `toml:"pull" comment:"先从 SFTP 或 FTP 服务器取到 share；url 为空则不用 fetch from an SFTP or FTP server into share first; url empty: no"`
}

type importDefaults struct {
	Label   string   `toml:"label" comment:"公开、内部、工作秘密"`
	Urgency string   `toml:"urgency,omitempty" comment:"加急、特急; empty: 平件"`
	Kind    string   `toml:"kind,omitempty" comment:"公文、政务信息、通知、资料; empty: 公文"`
	To      []string `toml:"to,omitempty" comment:"主送：单位名称、别名或代码 names, aliases or codes"`
	Cc      []string `toml:"cc,omitempty" comment:"抄送"`
}

type importRules struct {
	On      bool   `toml:"on" comment:"true: 按文件名成文，正文加“附件N” files become documents by their names"`
	Folder  bool   `toml:"folder,omitempty" comment:"true: 第一层文件夹名即主送单位 the first folder names the recipient"`
	Pattern string `toml:"pattern,omitempty" comment:"正则表达式，命名组 title number to label urgency"`
}

const importLedger = "ledger"

// loadProfile reads a profile; paths in it are from where it lies.
func loadProfile(path string) (*importProfile, error) {
	p := &importProfile{}
	if err := config.Load(path, p); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, exchange.Fail(exchange.CodeNotFound, "%s; yizhan import init writes one", path)
		}
		return nil, err
	}
	for _, one := range []*string{&p.Share, &p.KeyFile, &p.State, &p.Pull.Identity, &p.Pull.PasswordFile} {
		if *one != "" && !filepath.IsAbs(*one) {
			*one = filepath.Join(filepath.Dir(path), *one)
		}
	}
	if p.State == "" {
		return nil, usage("%s: state is missing: a local directory for the import's ledger", path)
	}
	return p, nil
}

func (p *importProfile) config(log *slog.Logger, now nowFunc) fileshare.Config {
	return fileshare.Config{
		Share: p.Share, Sentinel: p.Sentinel, State: p.State, ReadOnly: p.ReadOnly, Archive: p.Archive, Quarantine: p.Quarantine,
		Depth: p.Depth, Include: p.Include, Exclude: p.Exclude, Manifests: p.Manifests,
		Stable: fileshare.Stability(p.Stable), Quiet: time.Duration(p.Quiet), Mark: p.Marker, Atomic: fileshare.Atomicity(p.Atomic),
		Defaults: fileshare.Defaults(p.Defaults), Rules: fileshare.Rules(p.Rules),
		Parallel: p.Parallel, Patience: time.Duration(p.Patience), Logger: log, Now: now,
	}
}

// node is the node that the profile names.
func (p *importProfile) node() (importNode, error) {
	b, err := durable.ReadFile(durable.OS, p.KeyFile, 4096)
	if err != nil {
		return importNode{}, err
	}
	return newImportNode(p.Node, strings.TrimSpace(string(b)), cmp.Or(p.Parallel, fileshare.DefaultParallel)), nil
}

// ledger opens the store of an import. A second process that has it is refused.
func (p *importProfile) ledger(log *slog.Logger) (*badgerstore.Store, error) {
	if err := os.MkdirAll(p.State, 0o700); err != nil {
		return nil, err
	}
	kind, err := fileSystemOf(p.State)
	if err != nil {
		return nil, err
	}
	if name := unsafeFileSystems[kind]; name != "" {
		return nil, exchange.Fail(exchange.CodeFileSystem, "%s is on %s", p.State, name)
	}
	return badgerstore.Open(filepath.Join(p.State, importLedger), badgerstore.Options{Logger: log})
}

func (a *app) importInitCommand(profile *string) *cobra.Command {
	p := &importProfile{Node: "http://127.0.0.1:8080", KeyFile: "import.key", State: "import-state", Depth: 3, Defaults: importDefaults{Label: "内部"}}
	c := &cobra.Command{
		Use: "init --share DIR", Short: "Write a profile for a share · 生成导入配置", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if p.Share == "" || p.ReadOnly && p.Sentinel == "" {
				return usage("--share is needed, and --sentinel for a share that is not to be changed: a file of it that is always there")
			}
			made, err := p.create(*profile)
			if err != nil {
				return err
			}
			return a.print(map[string]any{"profile": *profile, "sentinel": p.Sentinel, "sentinel_made": made}, "%s\n", *profile)
		},
	}
	c.Flags().StringVar(&p.Share, "share", "", "the share's directory")
	c.Flags().StringVar(&p.Sentinel, "sentinel", "", "a file of the share that must be there (default: one is made)")
	c.Flags().BoolVar(&p.ReadOnly, "read-only", false, "change nothing on the share")
	c.Flags().DurationVar((*time.Duration)(&p.Quiet), "quiet", 10*time.Second, "how long a file stands still until it is whole")
	c.Flags().StringVar(&p.Node, "server", p.Node, "URL of the node's REST interface")
	c.Flags().StringVar(&p.KeyFile, "key-file", p.KeyFile, "file with the agency's API key")
	return c
}

// create writes the profile, and the sentinel unless one is named.
func (p *importProfile) create(path string) (made bool, err error) {
	if p.Share, err = filepath.Abs(p.Share); err != nil {
		return false, err
	}
	if _, err := os.Lstat(path); err == nil {
		return false, exchange.Fail(exchange.CodeSetupConflict, "%s is there already", path)
	}
	if made = p.Sentinel == ""; made {
		p.Sentinel = ".yizhan-share"
		root, err := os.OpenRoot(p.Share)
		if err != nil {
			return false, err
		}
		defer root.Close()
		f, err := root.OpenFile(p.Sentinel, os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return false, err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return false, err
		}
	} else if _, err := os.Lstat(filepath.Join(p.Share, p.Sentinel)); err != nil {
		return false, fmt.Errorf("the sentinel: %w", err)
	}
	b, err := config.Encode(p)
	if err != nil {
		return false, err
	}
	return made, durable.WriteFile(durable.OS, path, b)
}
