package ferry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A probe finds out what a gate lets pass before a document depends on it: files of
// graded sizes, kinds and names that say themselves what they are to be. Their bytes
// follow from what each of them begins with, so that the other side needs no list.

// Probe is what all files of a run follow from.
type Probe struct {
	Run   string    `json:"run"`
	Sizes []int64   `json:"sizes"` // of what is in the files of the series
	Made  time.Time `json:"made"`
}

// ProbeFile is one file of a run.
type ProbeFile struct {
	File         string `json:"file"`
	Tries        string `json:"tries"` // size, type or name
	Size         int64  `json:"size"`  // of what is in it, without its wrapping
	Extension    string `json:"extension"`
	Wrap         string `json:"wrap"`
	Compressible bool   `json:"compressible,omitempty"`
}

const (
	probeMagic    = "YZPROBE1\n"
	probeHead     = 512 // bytes in which a file says what it is
	maxProbeSizes = 16
	MinProbe      = 1024       // bytes in the smallest file
	MaxProbe      = 2000 << 20 // bytes in the largest: base64 makes a third more of it
	probeTypes    = 64 << 10   // bytes of those that try a type
)

// kinds are the ways in which files can be sent, the one that costs least first.
var kinds = []struct{ extension, wrap string }{{ownExtension, WrapNone}, {"dat", WrapNone}, {"zip", WrapZip}, {"xml", WrapXML}, {"txt", WrapText}}

var probeRun = regexp.MustCompile(`^[0-9a-f]{8}$`)

func (p *Probe) check() error {
	if !probeRun.MatchString(p.Run) || len(p.Sizes) == 0 || len(p.Sizes) > maxProbeSizes {
		return errors.New("ferry: a probe without a run, or with too many sizes")
	}
	for _, n := range p.Sizes {
		if n < MinProbe || n > MaxProbe {
			return fmt.Errorf("ferry: a probe of %d bytes; they are from %d to %d", n, MinProbe, MaxProbe)
		}
	}
	return nil
}

// Files are all files of a run.
func (p *Probe) Files() (list []ProbeFile) {
	add := func(name string, f ProbeFile) {
		f.File = fmt.Sprintf(name, fmt.Sprintf("yzp%s-%03d", p.Run, len(list)), f.Extension)
		list = append(list, f)
	}
	for _, k := range kinds {
		for _, compressible := range []bool{false, true} {
			add("%s.%s", ProbeFile{Tries: "type", Size: probeTypes, Extension: k.extension, Wrap: k.wrap, Compressible: compressible})
		}
	}
	for _, name := range []string{"%s-" + strings.Repeat("n", 40) + ".%s", "%s-" + strings.Repeat("n", 180) + ".%s", "UPPER-%s.%s", "dots.%s.2026.11.%s", "no-extension-%s%.0s"} {
		add(name, ProbeFile{Tries: "name", Size: MinProbe, Extension: ownExtension, Wrap: WrapNone})
	}
	for _, size := range p.Sizes {
		for _, k := range kinds {
			add("%s.%s", ProbeFile{Tries: "size", Size: size, Extension: k.extension, Wrap: k.wrap})
		}
	}
	return list
}

// content writes what is in the file of a number, without its wrapping.
func (p *Probe) content(n int, f *ProbeFile, w io.Writer) error {
	head, err := json.Marshal(probeHeader{*p, n})
	if err != nil {
		return err
	}
	sum := sha256.New()
	w2 := io.MultiWriter(w, sum)
	if len(probeMagic)+len(head) >= probeHead {
		return fmt.Errorf("ferry: a probe that says too much of itself: %d bytes", len(head))
	}
	start := append([]byte(probeMagic), head...)
	start = append(start, bytes.Repeat([]byte{' '}, probeHead-1-len(start))...)
	if _, err := w2.Write(append(start, '\n')); err != nil {
		return err
	}
	if _, err := io.CopyN(w2, p.body(n, f), f.Size-probeHead-sha256.Size); err != nil {
		return err
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

type probeHeader struct {
	Probe
	N int `json:"n"`
}

// body is noise, or a text that any scanner can press together.
func (p *Probe) body(n int, f *ProbeFile) io.Reader {
	if f.Compressible {
		return repeated("摆渡测试 ferry probe 0123456789\n")
	}
	return rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%s %d", p.Run, n)))
}

type repeated string

func (r repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		n += copy(p[n:], r)
	}
	return n, nil
}

// write gives a whole file, with its wrapping.
func (p *Probe) write(n int, f *ProbeFile) func(io.Writer) error {
	return wrapped(f.Wrap, "probe."+ownExtension, func(w io.Writer) error { return p.content(n, f, w) })
}

// Send writes the files of a run into a directory.
func (p *Probe) Send(ctx context.Context, dir string) ([]ProbeFile, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("ferry: the probe's directory: %w", err)
	}
	defer root.Close()
	at := folder{root, dir, "."}
	list := p.Files()
	for n := range list {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := (berth{at, at, hidden}).place(list[n].File, p.write(n, &list[n])); err != nil {
			return list[:n], noRoom(err, dir)
		}
	}
	return list, nil
}

// ParseProbe reads of which run a file is, and which of it.
func ParseProbe(head []byte) (*Probe, int, error) {
	bad := errors.New("ferry: not a file of a probe")
	if len(head) < probeHead || !bytes.HasPrefix(head, []byte(probeMagic)) {
		return nil, 0, bad
	}
	var h probeHeader
	if err := json.Unmarshal(bytes.TrimSpace(head[len(probeMagic):probeHead]), &h); err != nil {
		return nil, 0, bad
	}
	if err := h.check(); err != nil {
		return nil, 0, err
	}
	if h.N < 0 || h.N >= len(h.Files()) {
		return nil, 0, bad
	}
	return &h.Probe, h.N, nil
}

// The fates of a probe's file.
const (
	ProbeIdentical = "identical"
	ProbeRenamed   = "renamed" // otherwise identical
	ProbeChanged   = "changed"
	ProbeTruncated = "truncated"
	ProbeMissing   = "missing"
)

// ProbeResult is what became of one file.
type ProbeResult struct {
	ProbeFile
	Fate    string  `json:"fate"`
	As      string  `json:"as,omitempty"` // its name now, when it is another one
	Copies  int     `json:"copies,omitempty"`
	Seconds float64 `json:"seconds,omitempty"` // from when the run was made, by the clocks of both sides
}

func (r *ProbeResult) passed() bool { return r.Fate == ProbeIdentical || r.Fate == ProbeRenamed }

// ProbeReport is what became of a run. Rate is in bytes a second.
type ProbeReport struct {
	Probe
	Files   []ProbeResult  `json:"files"`
	Fates   map[string]int `json:"fates"`
	Largest int64          `json:"largest"`
	Rate    float64        `json:"rate,omitempty"`
	Foreign int            `json:"foreign"` // files that are of no run, or of an older one
	Advice  []string       `json:"advice"`
	TOML    string         `json:"toml"` // what [[ferry]] is to say; empty when nothing can
}

// arrivedProbe is a file of a run as it came.
type arrivedProbe struct {
	found
	probe *Probe
	n     int
}

// ProbeWatch looks at a directory again and again; it reads no file twice that has not
// changed.
type ProbeWatch struct {
	looked bool
	run    string
	first  map[string]time.Time // paths that came after the first look
	known  map[string]string    // fates of files as they were
	sums   map[int]*sums
}

// Look says what came out of a gate until now.
func (w *ProbeWatch) Look(dir string, now time.Time) (*ProbeReport, error) {
	if w.first == nil {
		w.first = map[string]time.Time{}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("ferry: the probe's directory: %w", err)
	}
	defer root.Close()
	files, _, err := folder{root, dir, "."}.files("", maxNames)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if _, old := w.first[f.path]; w.looked && !old && w.known[stateOf(f)] == "" {
			w.first[f.path] = now
		}
	}
	w.looked = true
	var came []arrivedProbe
	var newest *Probe
	for _, f := range files {
		if !f.info.Mode().IsRegular() || f.info.Size() > MaxFile {
			continue
		}
		a := arrivedProbe{found: f}
		if a.probe, a.n, err = identify(root, f); err != nil {
			return nil, err
		}
		if a.probe != nil && (newest == nil || a.probe.Made.After(newest.Made)) {
			newest = a.probe
		}
		came = append(came, a)
	}
	if newest == nil {
		return nil, errors.New("ferry: nothing of a probe came; either nothing passes, or this is another directory")
	}
	return w.judge(newest, root, came)
}

// seen gives when a file came, as far as anybody knows.
func (w *ProbeWatch) seen(f found) time.Time {
	if at, watched := w.first[f.path]; watched {
		return at
	}
	return f.info.ModTime()
}

// identify gives no probe for a file that says nothing of itself.
func identify(root *os.Root, f found) (*Probe, int, error) {
	in, err := root.Open(f.path)
	if err != nil {
		return nil, 0, err
	}
	defer in.Close()
	u, err := parseWrapping(in, f.info.Size())
	if errors.Is(err, ErrWrapping) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	from := u.inside
	if from == nil {
		from = in
	}
	head := make([]byte, probeHead)
	n, _ := io.ReadFull(from, head)
	p, at, err := ParseProbe(head[:n])
	if err != nil {
		return nil, 0, nil // something else
	}
	return p, at, nil
}

func stateOf(f found) string {
	return fmt.Sprintf("%s %d %d", f.path, f.info.Size(), f.info.ModTime().UnixNano())
}

func (w *ProbeWatch) judge(p *Probe, root *os.Root, came []arrivedProbe) (*ProbeReport, error) {
	r := &ProbeReport{Probe: *p, Fates: map[string]int{}, Advice: []string{}}
	if w.run != p.Run {
		w.run, w.known, w.sums = p.Run, map[string]string{}, map[int]*sums{}
	}
	plan := p.Files()
	for _, f := range plan {
		r.Files = append(r.Files, ProbeResult{ProbeFile: f, Fate: ProbeMissing})
	}
	for _, a := range came {
		n, base := a.n, filepath.Base(a.path)
		switch {
		case a.probe != nil && a.probe.Run == p.Run:
		case a.probe == nil:
			n = slices.IndexFunc(plan, func(f ProbeFile) bool { return strings.EqualFold(f.File, base) })
		default:
			n = -1
		}
		if n < 0 {
			r.Foreign++
			continue
		}
		one := &r.Files[n]
		if one.Copies++; one.Fate == ProbeIdentical {
			continue
		}
		fate := w.known[stateOf(a.found)]
		if fate == "" {
			var err error
			if fate, err = p.fate(root, n, &plan[n], a.found, w.sums); err != nil {
				return nil, err
			}
			w.known[stateOf(a.found)] = fate
		}
		if one.passed() && fate != ProbeIdentical {
			continue
		}
		if one.Fate, one.As = fate, ""; base != plan[n].File {
			one.As = base
		}
		one.Seconds = max(0, w.seen(a.found).Sub(p.Made).Seconds())
	}
	r.sum()
	return r, nil
}

// fate compares a file with what it was. expected is what was found out about others:
// each is made once, however many come that say they are it.
func (p *Probe) fate(root *os.Root, n int, want *ProbeFile, f found, expected map[int]*sums) (string, error) {
	if f.info.Size() < want.Size {
		return ProbeTruncated, nil
	}
	whole, got := expected[n], newSums()
	if whole == nil {
		whole = newSums()
		if err := p.write(n, want)(whole); err != nil {
			return "", err
		}
		expected[n] = whole
	}
	in, err := root.Open(f.path)
	if err != nil {
		return "", err
	}
	defer in.Close()
	if _, err := io.Copy(got, io.LimitReader(in, MaxFile)); err != nil {
		return "", err
	}
	switch {
	case got.n < whole.n:
		return ProbeTruncated, nil
	case !bytes.Equal(got.sha.Sum(nil), whole.sha.Sum(nil)):
		return ProbeChanged, nil
	case filepath.Base(f.path) != want.File:
		return ProbeRenamed, nil
	}
	return ProbeIdentical, nil
}

func (r *ProbeReport) sum() {
	bytes, last := int64(0), 0.0
	for i := range r.Files {
		f := &r.Files[i]
		r.Fates[f.Fate]++
		if f.passed() {
			r.Largest = max(r.Largest, f.Size)
			bytes, last = bytes+f.Size, max(last, f.Seconds)
		}
	}
	if last > 0 {
		r.Rate = float64(bytes) / last
	}
	r.advise()
}

// largest is the largest of a kind that passed, with all below it; 0 for none.
func (r *ProbeReport) largest(extension, wrap string) (size int64) {
	var all []*ProbeResult
	for i := range r.Files {
		if f := &r.Files[i]; f.Wrap == wrap && f.Tries == "size" && f.Extension == extension {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b *ProbeResult) int { return int(a.Size - b.Size) })
	for _, f := range all {
		if !f.passed() {
			break
		}
		size = f.Size
	}
	return size
}

func (r *ProbeReport) typePasses(extension, wrap string) bool {
	return !slices.ContainsFunc(r.Files, func(f ProbeResult) bool {
		return f.Tries == "type" && f.Extension == extension && f.Wrap == wrap && !f.passed()
	})
}

// LeastFile is what a file may have however small it is configured: a bundle is never
// cut, and may have 12 MiB and its frame, and what a wrapping adds.
const LeastFile = 18 << 20

// advise finds the cheapest kind that passes in every size that is needed, or else the
// one of which the most does.
func (r *ProbeReport) advise() {
	best, most := -1, int64(0)
	for i, k := range kinds {
		if !r.typePasses(k.extension, k.wrap) {
			continue
		}
		if size := r.largest(k.extension, k.wrap); size > most && most < LeastFile {
			best, most = i, size
		}
	}
	if best < 0 {
		r.Advice = append(r.Advice, both("no kind of file passes unchanged; the gate must let one pass", "没有任何一种文件原样通过，网闸须放行其中一种"))
		return
	}
	k := kinds[best]
	mib := most >> 20
	r.TOML = fmt.Sprintf("extension = %q\nwrap = %q\nfile_mib = %d\n", k.extension, k.wrap, max(1, mib))
	if most < LeastFile {
		r.Advice = append(r.Advice, both("files of 18 MiB do not pass, or were not tried; a large document's bundle may need as much", "18 MiB 的文件未通过或未测试；大型公文的驿包可能达到该大小"))
	}
	if r.Fates[ProbeRenamed] > 0 {
		r.Advice = append(r.Advice, both("names are changed, which does no harm", "文件名被更改，不影响使用"))
	}
	if slices.ContainsFunc(r.Files, func(f ProbeResult) bool { return f.Copies > 1 }) {
		r.Advice = append(r.Advice, both("files come more than once, which does no harm", "部分文件重复送达，不影响使用"))
	}
}

func both(en, zh string) string { return en + " · " + zh }
