package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/inspect"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// inspectSettings is section [inspect] of config.toml: how this node looks into
// documents where the directory names it an inspection point (docs/inspection.md).
type inspectSettings struct {
	ClamAV  string   `toml:"clamav,omitempty" comment:"unix:/run/clamav/clamd.ctl or tcp:HOST:PORT; empty: no scanner is asked"`
	Timeout duration `toml:"clamav_timeout,omitempty" comment:"how long it may take for one answer; empty: 2m"`
	Kinds   []string `toml:"kinds,omitempty" comment:"kinds of files that may pass, of ofd pdf ooxml png jpeg tiff ole legacy text xml; empty: all"`

	FileMiB     int64 `toml:"file_mib,omitempty" comment:"MiB of one file; 0: 16384"`
	UnpackedMiB int64 `toml:"unpacked_mib,omitempty" comment:"MiB to which a file may unfold; 0: 2048"`
	Entries     int   `toml:"entries,omitempty" comment:"entries of a package; 0: 10000"`
}

func (s *inspectSettings) check(file string) error {
	for _, k := range s.Kinds {
		if !slices.Contains(inspect.Kinds(), k) {
			return exchange.Fail(exchange.CodeBadRequest, "%s: [inspect] kinds: %.40q is none of %s", file, k, strings.Join(inspect.Kinds(), ", "))
		}
	}
	if s.FileMiB < 0 || s.FileMiB >= 1<<40 || s.UnpackedMiB < 0 || s.UnpackedMiB >= 1<<40 || s.Entries < 0 || s.Timeout < 0 {
		return exchange.Fail(exchange.CodeBadRequest, "%s: a value in [inspect] is negative or too large", file)
	}
	if s.ClamAV == "" {
		return nil
	}
	_, err := s.scanner()
	return err
}

func (s *inspectSettings) scanner() (*inspect.Clamd, error) {
	return inspect.NewClamd(s.ClamAV, time.Duration(s.Timeout))
}

// inspector looks into a few files at a time, whatever the node asks at once.
func (s *inspectSettings) inspector() (*inspect.Inspector, error) {
	i := &inspect.Inspector{
		Kinds: s.Kinds, AtOnce: inspectAtOnce,
		Limits: inspect.Limits{Size: s.FileMiB << 20, Unpacked: s.UnpackedMiB << 20, Entries: s.Entries},
	}
	if s.ClamAV == "" {
		return i, nil
	}
	scanner, err := s.scanner()
	if err == nil {
		i.Scanner = scanner
	}
	return i, err
}

// inspectAtOnce bounds the memory of the looks, and what a scanner has to do.
const inspectAtOnce = 4

// checkInspection says whether this node looks into documents, and whether its
// scanner answers.
func (d *doctor) checkInspection(ctx context.Context) {
	var links []string
	for _, one := range d.directory.Inspections() {
		if one.Node == d.settings.Node {
			links = append(links, or(one.Link, "*"))
		}
	}
	if len(links) == 0 {
		return
	}
	const name = "inspection"
	where := strings.Join(links, ", ")
	if d.settings.Inspect.ClamAV == "" {
		d.ok(name, both("looks into what passes %s; no virus scanner is configured", "检查经过 %s 的公文；未配置病毒扫描", where))
		return
	}
	scanner, err := d.settings.Inspect.scanner()
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		err = scanner.Ping(ctx)
	}
	if err != nil {
		d.fail(name, both("the virus scanner does not answer; documents over %s wait: %v", "病毒扫描服务无应答，经过 %s 的公文在等待：%v", where, err),
			both("start clamd, or correct clamav in [inspect] of config.toml", "请启动 clamd，或更正 config.toml [inspect] 中的 clamav"))
		return
	}
	d.ok(name, both("looks into what passes %s; the virus scanner answers", "检查经过 %s 的公文；病毒扫描服务正常", where))
}
