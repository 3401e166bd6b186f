package main

import (
	"io"
	"log/slog"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// logSettings is section [log] of config.toml.
type logSettings struct {
	Format string `toml:"format,omitempty" comment:"text, or json: one object a line; empty: text"`
	Syslog string `toml:"syslog,omitempty" comment:"local, unixgram:///PATH, udp://HOST:PORT or tcp://HOST:PORT, beside standard error; empty: none"`
}

func (s *logSettings) check(file string) error {
	if s.Format != "" && s.Format != "text" && s.Format != "json" {
		return exchange.Fail(exchange.CodeBadRequest, "%s: [log] format is neither text nor json", file)
	}
	if _, _, err := syslogAddress(s.Syslog); err != nil {
		return exchange.Fail(exchange.CodeBadRequest, "%s: [log] syslog: %v", file, err)
	}
	return nil
}

// handler writes lines in the form that is set.
func (s *logSettings) handler(w io.Writer, o *slog.HandlerOptions) slog.Handler {
	if s.Format == "json" {
		return slog.NewJSONHandler(w, o)
	}
	return slog.NewTextHandler(w, o)
}

// open gives the node's log. Standard error always has it, since that is where
// a supervisor looks; a syslog that cannot be reached never stops the node.
func (s *logSettings) open(stderr io.Writer, level slog.Level) (log *slog.Logger, end func()) {
	plain := s.handler(stderr, &slog.HandlerOptions{Level: level})
	if s.Syslog == "" {
		return slog.New(plain), func() {}
	}
	sink := newSyslogSink(s.Syslog)
	return slog.New(slog.NewMultiHandler(plain, newSyslogHandler(sink, s, level))), sink.close
}
