// Command yizhan is a node of the document exchange, the authority's tool, the
// clerk's client and the demonstration, in one binary.
//
// Exit codes: 0 ok, 1 error, 2 usage, 4 not found, 5 not authorised,
// 6 signature invalid, 7 temporary (try again), 9 done, with warnings.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program.
func run(args []string, stdout, stderr io.Writer) int {
	return (&app{out: stdout, err: stderr, now: time.Now}).run(args)
}

// run is the whole program with what tests may exchange.
func (a *app) run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Whoever asks twice does not want to wait for what is under way.
	defer context.AfterFunc(ctx, stop)()
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var found verdictError
	if errors.As(err, &found) {
		return int(found) // all is said
	}
	a.report(err)
	return exitCode(err)
}

// The exit codes.
const (
	exitOK        = 0
	exitError     = 1
	exitUsage     = 2
	exitNotFound  = 4
	exitAuth      = 5
	exitSignature = 6
	exitTemporary = 7
	exitWarnings  = 9
)

// verdictError is the exit code of a command that has said what it found.
type verdictError int

func (e verdictError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// app is what all commands share.
type app struct {
	out, err io.Writer
	now      nowFunc
	json     bool
	lang     string
}

// usageError marks a mistake on the command line.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func exitCode(err error) int {
	var bad usageError
	if errors.As(err, &bad) || strings.HasPrefix(err.Error(), "unknown command") {
		return exitUsage
	}
	code := exchange.CodeOf(err)
	var judged *certs.Error
	if exchange.Known(err) == nil && errors.As(err, &judged) {
		code = judged.Code
	}
	switch code {
	case exchange.CodeNotFound:
		return exitNotFound
	case exchange.CodeUnauthenticated, exchange.CodeForbidden, exchange.CodeApproval, exchange.CodeRequestUnproven, exchange.CodeDirectoryList, exchange.CodeGuardApproval,
		exchange.CodeKeystorePIN, exchange.CodeKeystorePassphrase, exchange.CodeFerryOperator:
		return exitAuth
	case exchange.CodeSignatureInvalid, exchange.CodeFingerprint, exchange.CodeDirectorySignature:
		return exitSignature
	case exchange.CodeTemporary, exchange.CodeNoSpace, exchange.CodeMediumFull, exchange.CodeQuota, exchange.CodeTooSlow, exchange.CodeFerryCodePause:
		return exitTemporary
	}
	return exitError
}

// report prints an error: cause and next step in the user's language, or one
// JSON object on standard error with --json.
func (a *app) report(err error) {
	known := exchange.Known(err)
	var bad usageError
	var judged *certs.Error
	code, detail := "error", err.Error()
	switch {
	case errors.As(err, &bad):
		code = "usage"
	case known != nil:
		code, detail = known.Code, strings.TrimPrefix(known.Error(), known.Code+": ")
	case errors.As(err, &judged):
		code = judged.Code
	}
	text := exchange.Explain(code, a.language())
	if a.json {
		_ = json.NewEncoder(a.err).Encode(map[string]any{"error": map[string]any{
			"code": code, "detail": detail, "exit": exitCode(err),
			"title_en": exchange.Explain(code, "en").Title, "fix_en": exchange.Explain(code, "en").Fix,
			"title_zh": exchange.Explain(code, "zh").Title, "fix_zh": exchange.Explain(code, "zh").Fix,
		}})
		return
	}
	word, next := "error", "next"
	if a.language() == "zh" {
		word, next = "错误", "处理"
	}
	if known == nil && text == exchange.Explain(exchange.CodeInternal, a.language()) {
		fmt.Fprintf(a.err, "yizhan: %s: %s\n", word, detail)
		if code == "usage" {
			fmt.Fprintln(a.err, "yizhan: see --help")
		}
		return
	}
	fmt.Fprintf(a.err, "yizhan: %s: %s (%s)\n", word, text.Title, detail)
	fmt.Fprintf(a.err, "yizhan: %s: %s\n", next, text.Fix)
}

func (a *app) language() string {
	lang := a.lang
	if lang == "" {
		lang = os.Getenv("LC_ALL") + os.Getenv("LANG")
	}
	if strings.HasPrefix(lang, "zh") {
		return "zh"
	}
	return "en"
}

// print writes the result of a command: v as one JSON object with --json,
// else the text.
func (a *app) print(v any, text string, args ...any) error {
	if a.json {
		return json.NewEncoder(a.out).Encode(v)
	}
	_, err := fmt.Fprintf(a.out, text, args...)
	return err
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "yizhan",
		Short: "Carry official documents between agencies, sealed with SM2/SM3/SM4 and proven by receipts · 公文交换",
		// Errors are printed by report, once and with their next step.
		SilenceErrors: true, SilenceUsage: true,
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print one JSON object instead of text")
	root.PersistentFlags().StringVar(&a.lang, "lang", "", "language of messages: zh or en (default: from LANG)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		a.initCommand(), a.joinCommand(), a.caCommand(), a.directoryCommand(), a.serveCommand(), a.keyCommand(), a.certCommand(),
		a.sendCommand(), a.inboxCommand(), a.collectCommand(), a.exportCommand(), a.webhookCommand(), a.signForCommand(), a.returnCommand(),
		a.recallCommand(), a.remindCommand(), a.resendCommand(), a.supplementCommand(),
		a.importCommand(), a.traceCommand(), a.verifyCommand(), a.demoCommand(), a.benchCommand(), a.doctorCommand(), a.queueCommand(), a.guardCommand(), a.linkCommand(), a.ferryCommand(), a.backupCommand(), a.fsckCommand(), a.blobsCommand(), a.ballastCommand(), a.versionCommand(),
	)
	for _, c := range root.Commands() {
		usageOfArgs(c)
	}
	return root
}

// usageOfArgs makes wrong arguments of a command a usage error.
func usageOfArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usageOfArgs(sub)
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo()
			return a.print(v, "yizhan %s %s %s\n", v.Version, v.Commit, v.Go)
		},
	}
}

// version says what runs.
type version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
}

func versionInfo() version {
	v := version{Version: "dev"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Go = info.GoVersion
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Commit = s.Value
		}
	}
	return v
}
