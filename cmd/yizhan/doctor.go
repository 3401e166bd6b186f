package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/trust"
	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
)

func (a *app) doctorCommand() *cobra.Command {
	var data, passFile string
	c := &cobra.Command{
		Use: "doctor --data DIR", Short: "Look for what is wrong with a node, or soon will be · 体检", Args: cobra.NoArgs,
		Long: `Looks at a node's data directory, also beside the running node; run it as the node's
user. Each check says ok, warning or error, the cause, and what to do. Exit codes: 0 all
is well, 9 warnings, 1 errors. docs/operations.md explains each check.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if data == "" {
				return usage("--data DIR is needed")
			}
			d := &doctor{app: a, dir: dataDir(data), passFile: passFile, now: a.now()}
			d.examine(c.Context())
			return d.report()
		},
	}
	c.Flags().StringVar(&data, "data", "", "the node's data directory")
	c.Flags().StringVar(&passFile, "passphrase-file", "", "file with the keystore's passphrase (or set "+passphraseEnv+")")
	return c
}

// The results of a check.
const (
	resultOK      = "ok"
	resultWarning = "warning"
	resultError   = "error"
)

// finding is what one check found. Cause and remedy are in English and Chinese,
// one beside the other; there is no remedy where none is needed.
type finding struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	Cause  string `json:"cause"`
	Remedy string `json:"remedy"`
}

// doctor is one examination. What a check has opened, later ones look at; nil
// when it could not be had.
type doctor struct {
	app      *app
	dir      dataDir
	passFile string
	now      time.Time

	settings  *settings
	keys      *keystore.Store
	directory *certs.Directory
	sources   []trust.Status
	list      []finding
}

// both puts a text in English and Chinese side by side; the arguments are for
// both.
func both(en, zh string, args ...any) string {
	return fmt.Sprintf(en, args...) + " · " + fmt.Sprintf(zh, args...)
}

func (d *doctor) ok(name, cause string) {
	d.list = append(d.list, finding{name, resultOK, cause, ""})
}

func (d *doctor) warn(name, cause, remedy string) {
	d.list = append(d.list, finding{name, resultWarning, cause, remedy})
}

func (d *doctor) fail(name, cause, remedy string) {
	d.list = append(d.list, finding{name, resultError, cause, remedy})
}

// report prints the findings and gives the exit code that they call for.
func (d *doctor) report() error {
	code := exitOK
	var text strings.Builder
	for _, f := range d.list {
		mark := "✓"
		switch f.Result {
		case resultError:
			code, mark = exitError, "✗"
		case resultWarning:
			mark = "!"
			if code == exitOK {
				code = exitWarnings
			}
		}
		fmt.Fprintf(&text, "%s %s: %s\n", mark, f.Name, f.Cause)
		if f.Remedy != "" {
			fmt.Fprintf(&text, "  → %s\n", f.Remedy)
		}
	}
	if err := d.app.print(map[string]any{"checks": d.list}, "%s", text.String()); err != nil {
		return err
	}
	if code != exitOK {
		return verdictError(code)
	}
	return nil
}
