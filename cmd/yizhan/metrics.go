package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/yizhan-gateway/yizhan/certs"
)

// metricsSettings is section [metrics] of config.toml. Metrics have a listener
// of their own, and none unless it is named: behind a proxy on the same
// machine every request for agency systems comes from loopback, so no address
// of the REST listener could tell the monitoring from the world.
type metricsSettings struct {
	Listen string `toml:"listen,omitempty" comment:"host:port of /metrics, plain HTTP without ids or titles; empty: none"`
}

// The metrics (docs/operations.md). Labels hold no ids: agency codes are ids.
var (
	metricExpiry = describe("yizhan_certificate_expiry_days",
		"Days until the first certificate of a kind of holder and a use ends; negative when one has.", "holder_kind", "use")
	metricVersion  = describe("yizhan_directory_version", "Version of the directory in force.")
	metricStale    = describe("yizhan_directory_stale", "1 when the next directory is overdue.")
	metricCRLAge   = describe("yizhan_crl_age_seconds", "Time since the source of revocations that was reached longest ago was reached; absent without sources or before the first answer.")
	metricCRLStale = describe("yizhan_crl_sources_stale", "Sources of revocations whose next answer is overdue, or that never answered.")
	metricPending  = describe("yizhan_checkpoints_time_pending", "Checkpoints that wait for a timestamp.")
	metricStamped  = describe("yizhan_timestamp_failures", "Attempts to get a timestamp that failed, in a row.")
	metricKeys     = describe("yizhan_keystore_available", "1 when the node's signing key signs.")
	metricBuild    = describe("yizhan_build_info", "1; the labels say what runs.", "version", "commit", "go")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// collector looks at the node when it is asked, and keeps nothing.
type collector struct {
	g   *gateway
	now nowFunc
}

func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range append([]*prometheus.Desc{
		metricExpiry, metricVersion, metricStale, metricCRLAge, metricCRLStale, metricPending, metricStamped, metricKeys, metricBuild,
	}, append(queueMetrics, linkMetricDescs...)...) {
		out <- d
	}
}

func (c collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	now, d := c.now(), c.g.directory.Load()
	for key, days := range soonest(watched(d, c.g.settings.Node, now), now) {
		gauge(metricExpiry, days, key.kind, key.use)
	}
	gauge(metricVersion, float64(d.Version()))
	gauge(metricStale, one(d.Stale(now)))
	age, stale := c.revocations(now)
	if age >= 0 {
		gauge(metricCRLAge, age.Seconds())
	}
	gauge(metricCRLStale, float64(stale))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if waiting, _, err := c.g.node.Waiting(ctx); err == nil {
		gauge(metricPending, float64(waiting))
	}
	gauge(metricStamped, float64(c.g.stamper.Status().Failed))
	gauge(metricKeys, one(c.keysSign(now)))
	c.queues(ctx, now, gauge)
	c.links(ctx, now, gauge)
	c.disk(gauge)
	v := versionInfo()
	gauge(metricBuild, 1, v.Version, v.Commit, v.Go)
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

type kindAndUse struct{ kind, use string }

// soonest gives the shortest time that any holder of a kind has left.
func soonest(list []held, now time.Time) map[kindAndUse]float64 {
	out := map[kindAndUse]float64{}
	for i := range list {
		h := &list[i]
		if h.cert == nil {
			continue
		}
		key := kindAndUse{h.kind, h.use}
		if had, ok := out[key]; !ok || h.days(now) < had {
			out[key] = h.days(now)
		}
	}
	return out
}

// revocations gives the age of the oldest answer, negative when there is none,
// and how many sources are overdue.
func (c collector) revocations(now time.Time) (age time.Duration, stale int) {
	age = -1
	for _, s := range c.g.revocations.Status() {
		if !s.Fetched.IsZero() {
			age = max(age, now.Sub(s.Fetched))
		}
		if s.Stale {
			stale++
		}
	}
	return age, stale
}

// keysSign says whether the node's signing key works: an HSM can be away.
func (c collector) keysSign(now time.Time) bool {
	n, ok := c.g.directory.Load().Node(c.g.settings.Node)
	if !ok {
		return false
	}
	cert, err := n.Current(certs.UseSign, now)
	if err != nil {
		return false
	}
	_, err = c.g.keys.Sign(cert.KeyID, []byte("yizhan self-test"))
	return err == nil
}

// serveMetrics answers GET /metrics until the context ends. That it fails does
// not stop the node.
func (g *gateway) serveMetrics(ctx context.Context, l net.Listener) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{g, time.Now})
	mux := http.NewServeMux()
	// An HSM that hangs must not pile up requests.
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 30 * time.Second}))
	server := &http.Server{
		Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // what it answers is asked again
	defer stop()
	g.log.Info("metrics are served", "listen", l.Addr().String())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		g.log.Error("metrics are not served any more", "error", err)
	}
}
