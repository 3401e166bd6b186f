package ferry

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/ferry/badgate"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/link"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

var (
	volumeSeeds     = flag.Int("ferryseeds", 1, "how many seeds TestVolume runs of each luck")
	volumeFirst     = flag.Uint64("ferryfirst", 1, "the first seed")
	volumeDocuments = flag.Int("ferrydocuments", 300, "documents of 10 KB that cross in each run of TestVolume")
)

// mostAgain is the largest ratio of bytes that left to bytes that had to, with a fifth
// of the files lost.
const mostAgain = 1.5

// TestVolume: many documents cross a gate that loses, doubles, cuts and delays files,
// in both directions, so that answers are lost as well. All arrive, none twice, and not
// much more leaves than there is; with half of the files lost all still arrive.
func TestVolume(t *testing.T) {
	for name, luck := range map[string]badgate.Luck{
		"a fifth lost": {Lost: 4, Doubled: 2, Truncated: 1, Late: 3},
		"half lost":    {Lost: 10, Doubled: 2, Truncated: 1, Late: 2},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range *volumeSeeds {
				seed := *volumeFirst + uint64(i)
				v := &volume{T: t, documents: *volumeDocuments, gate: badgate.New(seed, luck)}
				v.run()
				ratio := float64(v.sent) / float64(v.kept)
				t.Logf("seed %d: %d documents, 1 crossings, %d rounds, files %+v, bytes %.2f of what there is; %d lost, %d duplicated, %d receipts verified",
					seed, v.documents, v.rounds, v.gate.Losses(), ratio, v.documents-v.arrived, v.doubled, v.proven)
				if v.arrived != v.documents || v.doubled != 0 || v.proven != v.documents {
					t.Errorf("seed %d: %d of %d arrived, %d twice, %d proven", seed, v.arrived, v.documents, v.doubled, v.proven)
				}
				if luck.Lost == 4 && ratio > mostAgain {
					t.Errorf("seed %d: %.2f times the bytes left", seed, ratio)
				}
			}
		})
	}
}

// volume is one run.
type volume struct {
	*testing.T
	documents int
	gate      *badgate.Gate
	jia, yi   *pier

	ids                      []string
	sent, kept               int64 // bytes
	rounds                   int
	arrived, doubled, proven int
}

// volumeFile is so small that some hundred files are needed, and many of them lost.
func (v *volume) volumeFile() int64 { return max(128<<10, int64(v.documents)*volumeBody/200) }

const volumeBody = 10_000

func (v *volume) run() {
	v.jia, v.yi = piers(v.T)
	for _, p := range []*pier{v.jia, v.yi} {
		p.openWith(link.Limits{FileBytes: v.volumeFile(), Files: 1000}, &v.kept)
	}
	const batches = 8 // they are accepted while others cross
	for i := range batches {
		v.submit(v.documents*(i+1)/batches - v.documents*i/batches)
		v.round()
	}
	for v.outstanding() > 0 {
		if v.round(); v.rounds > 200 {
			v.Fatalf("after %d rounds %d bundles are outstanding", v.rounds, v.outstanding())
		}
	}
	v.count()
}

// submit hands documents in side by side.
func (v *volume) submit(n int) {
	v.Helper()
	ids, failed := make([]string, n), atomic.Pointer[error]{}
	var wait sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range n {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			body := bytes.Repeat(fmt.Appendf(nil, "正文%6d", len(v.ids)+i), volumeBody/12)
			got, err := v.jia.node.Submit(v.Context(), node.Submission{
				Agency: v.jia.agency,
				Document: exchange.Document{
					Label: exchange.Internal, Kind: exchange.Official, Urgency: []exchange.Urgency{exchange.Normal, exchange.Urgent}[i%2], Title: "关于摆渡的通知",
					To: []exchange.Addressee{{Agency: v.yi.agency}},
				},
				Files: func(yield func(envelope.File, error) bool) {
					yield(envelope.File{Role: envelope.RoleBody, Name: "正文.ofd", Type: "application/ofd", Content: bytes.NewReader(body)}, nil)
				},
			})
			if err != nil {
				failed.Store(&err)
				return
			}
			ids[i] = got.ID
		})
	}
	wait.Wait()
	if err := failed.Load(); err != nil {
		v.Fatal(*err)
	}
	v.ids = append(v.ids, ids...)
}

// round lets both sides write, and the gate carry. A file that was cut stands still
// until the next.
func (v *volume) round() {
	v.Helper()
	v.rounds++
	*v.jia.clock = v.jia.clock.Add(2 * patience)
	for _, way := range [][2]*pier{{v.jia, v.yi}, {v.yi, v.jia}} {
		from, to := way[0], way[1]
		from.workAll()
		got, err := from.spool.Export(v.Context(), true)
		check(v.T, err)
		v.sent += got.Bytes
		check(v.T, v.gate.Carry(from.at(outFolder, ""), to.at(inFolder, "")))
		_, err = to.spool.Import(v.Context())
		check(v.T, err)
	}
}

func (v *volume) outstanding() (n int) {
	v.Helper()
	for _, p := range []*pier{v.jia, v.yi} {
		p.workAll()
		st, err := p.spool.Status(v.Context())
		check(v.T, err)
		q, err := p.node.Queues(v.Context(), "jia-yi")
		check(v.T, err)
		n += st.Outstanding + int(q.Links[0].Waiting)
	}
	return n
}

// count compares what was accepted with the inbox and with what is proven.
func (v *volume) count() {
	v.Helper()
	seen, after := map[string]int{}, uint64(0)
	for {
		items, err := v.yi.node.Inbox(v.Context(), v.yi.agency, after, 500)
		check(v.T, err)
		if len(items) == 0 {
			break
		}
		for _, item := range items {
			seen[item.ID]++
			after = item.Seq
		}
	}
	for _, id := range v.ids {
		if seen[id] > 0 {
			v.arrived++
		}
		v.doubled += max(0, seen[id]-1)
		tr, err := v.jia.node.Trace(v.Context(), v.jia.agency, id)
		check(v.T, err)
		delivered := 0
		for _, e := range tr.Events {
			if e.Stage == exchange.StageDelivered {
				delivered++
			}
		}
		v.doubled += max(0, delivered-1)
		if delivered == 1 && tr.ReceiptsVerified && tr.LedgerVerified {
			v.proven++
		}
	}
	v.doubled += len(seen) - v.arrived
}

// sideBySide runs steps as a serving node does.
func sideBySide(n int, do func(int)) {
	var next atomic.Int64
	var wait sync.WaitGroup
	for range min(n, 64) {
		wait.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				do(int(i))
			}
		})
	}
	wait.Wait()
}

// workAll lets a node do what there is to do.
func (p *pier) workAll() {
	p.Helper()
	for {
		did, err := p.node.Work(p.Context())
		check(p.T, err)
		if !did {
			return
		}
	}
}

// openWith opens the spool with other limits, and sums the bytes of the bundles that
// are made.
func (p *pier) openWith(limits link.Limits, kept *int64) {
	p.Helper()
	keep, err := OpenKept(p.T.TempDir())
	check(p.T, err)
	p.Cleanup(func() { keep.Close() })
	f, err := link.NewFerry(p.Context(), p.node, "jia-yi", &summed{keep, kept})
	check(p.T, err)
	p.spool, err = Open(Config{
		Ferry: f, Dir: p.dir, Work: p.T.TempDir(), Lists: p.T.TempDir(), From: p.id, To: "another", Limits: limits,
		Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return *p.clock },
	})
	check(p.T, err)
	p.Cleanup(func() { p.spool.Close() })
}

type counter struct{ n *int64 }

func (c counter) Write(p []byte) (int, error) {
	*c.n += int64(len(p))
	return len(p), nil
}

type summed struct {
	link.Keeper
	bytes *int64
}

func (s *summed) Put(name string, write func(io.Writer) error) error {
	return s.Keeper.Put(name, func(w io.Writer) error { return write(io.MultiWriter(w, counter{s.bytes})) })
}
