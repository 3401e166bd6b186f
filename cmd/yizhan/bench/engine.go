package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// engineSizes are those of a run of Engine. They stand in bound_is.
type engineSizes struct {
	slice     time.Duration // for each primitive
	documents int           // of accept and exchange
	rounds    int           // of accept, exchange, committer
	large     int64         // bytes
	waiting   int           // deliveries
	probe     int           // documents by which a rate with waiting ones is measured
	files     int           // of a share that is imported
}

var (
	quickEngine = engineSizes{150 * time.Millisecond, 2000, 1, 64 << 20, 5_000, 1000, 4000}
	fullEngine  = engineSizes{500 * time.Millisecond, 20_000, 3, 2 << 30, 1_000_000, 20_000, 100_000}
)

// engine is one run.
type engine struct {
	sizes  engineSizes
	dir    string
	site   Site
	say    func(format string, args ...any)
	prims  map[string]primitive
	raw    *rawFile
	server *http.Server
	report *Report
}

// Names of the figures, in the order in which they are measured.
var Names = []string{"committer", "idle_links", "accept", "exchange", "large", "backlog", "restart", "import"}

// Engine measures the figures named in only, or all. What it says on the way
// is for a person.
func Engine(ctx context.Context, o Options, site Site, only []string, say func(string, ...any)) (report *Report, err error) {
	for _, name := range only {
		if !slices.Contains(Names, name) {
			return nil, fmt.Errorf("%q is not a figure; there are %s", name, strings.Join(Names, ", "))
		}
	}
	e, end, err := newEngine(o, site, say)
	if err != nil {
		return nil, err
	}
	defer end(&err)
	return e.report, e.measure(ctx, only)
}

// newEngine makes what every run needs. What end meets is the run's error, unless
// there was another.
func newEngine(o Options, site Site, say func(string, ...any)) (e *engine, end func(*error), err error) {
	e = &engine{sizes: fullEngine, dir: o.Dir, site: site, say: say, report: &Report{Results: []Result{}}}
	if o.Quick {
		e.sizes = quickEngine
	}
	if o.Bulk > 0 {
		e.sizes.large = o.Bulk << 20
	}
	if o.Waiting > 0 {
		e.sizes.waiting = o.Waiting
	}
	if o.Documents > 0 {
		e.sizes.documents, e.sizes.probe, e.sizes.files = o.Documents, min(e.sizes.probe, o.Documents), max(o.Documents, smallShare)
	}
	if e.prims, err = primitives(); err != nil {
		return nil, nil, err
	}
	if e.raw, err = newRawFile(o.Dir); err != nil {
		return nil, nil, err
	}
	if err := e.serveNothing(); err != nil {
		return nil, nil, errors.Join(err, e.raw.close())
	}
	return e, func(err *error) {
		_ = e.server.Close() // nothing is under way
		if closing := e.raw.close(); *err == nil {
			*err = closing
		}
	}, nil
}

func (e *engine) measure(ctx context.Context, only []string) error {
	want := func(name string) bool { return len(only) == 0 || slices.Contains(only, name) }
	steps := []struct {
		names []string
		run   func(context.Context) error
	}{
		{Names[0:1], e.committer}, {Names[1:2], e.idleLinks}, {Names[2:3], e.accept}, {Names[3:4], e.exchange},
		{Names[4:5], e.largeDocument}, {Names[5:7], e.backlog}, {Names[7:8], e.imports},
	}
	for _, s := range steps {
		if !slices.ContainsFunc(s.names, want) {
			continue
		}
		e.say("%s …\n", strings.Join(s.names, ", "))
		if err := s.run(ctx); err != nil {
			return fmt.Errorf("bench: %s: %w", s.names[0], err)
		}
	}
	return nil
}

func (e *engine) add(r Result) { e.report.Results = append(e.report.Results, r) }

// many runs fn from a number of callers for about d and gives calls a second.
func many(d time.Duration, callers int, fn func() error) (float64, error) {
	var wait sync.WaitGroup
	var mu sync.Mutex
	var calls int
	var failed error
	begin := time.Now()
	for range callers {
		wait.Go(func() {
			n := 0
			var err error
			for err == nil && time.Since(begin) < d {
				err = fn()
				n++
			}
			mu.Lock()
			defer mu.Unlock()
			calls += n
			if err != nil {
				failed = err
			}
		})
	}
	wait.Wait()
	return float64(calls) / time.Since(begin).Seconds(), failed
}

// Primitives of the engine beside those of the algorithms.
const (
	opRequest = "empty HTTP request with the body, 256 clients"
	opBlob    = "durable 10 KB, 256 callers"
	opRecord  = "durable 4 KB, 256 callers"
)

// serveNothing adds an HTTP server that reads a submission and answers, and
// the raw file, to the primitives.
func (e *engine) serveNothing() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	e.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"document":"x"}`)
	})}
	go func() { _ = e.server.Serve(l) }() // ends with Close
	o := newOffice(&Node{URL: "http://" + l.Addr().String()})
	f, err := newForm("91110000600037341L")
	if err != nil {
		return err
	}
	e.prims[opRequest] = primitive{1, func() error {
		_, err := o.submit(context.Background(), f, strings.NewReader(emptyBody), smallDocument)
		return err
	}}
	blob, record := make([]byte, 10<<10+512), make([]byte, 4<<10)
	e.prims[opBlob] = primitive{1, func() error { return e.raw.append(blob) }}
	e.prims[opRecord] = primitive{1, func() error { return e.raw.append(record) }}
	return nil
}

var emptyBody = strings.Repeat("x", smallDocument)

// speeds measures the primitives that passes name, those with callers from as
// many as they say.
func (e *engine) speeds(passes []pass) (map[string]float64, error) {
	out := map[string]float64{}
	for _, p := range passes {
		if _, done := out[p.of]; done {
			continue
		}
		one := e.prims[p.of]
		var n float64
		var err error
		switch p.of {
		case opRequest, opBlob, opRecord:
			n, err = many(e.sizes.slice, clients, one.fn)
		default:
			n, err = rate(e.sizes.slice, one.fn)
		}
		if err != nil {
			return nil, err
		}
		out[p.of] = n * one.unit
	}
	return out, nil
}

// against gives a figure beside the bound of its passes: the mean of their
// speeds before and after, in the same seconds.
func (e *engine) against(name, unit, sizes string, passes []pass, fn func() (float64, error)) (Result, error) {
	before, err := e.speeds(passes)
	if err != nil {
		return Result{}, err
	}
	value, err := fn()
	if err != nil {
		return Result{}, err
	}
	after, err := e.speeds(passes)
	if err != nil {
		return Result{}, err
	}
	for op := range before {
		before[op] = (before[op] + after[op]) / 2
	}
	most, is := bound(passes, before)
	return Result{name, value, unit, most, is + sizes, value / most}, nil
}

// spread gives the 99th percentile and the mean.
func spread(took []time.Duration) (p99, mean time.Duration) {
	slices.Sort(took)
	for _, d := range took {
		mean += d
	}
	return took[len(took)*99/100], mean / time.Duration(len(took))
}
