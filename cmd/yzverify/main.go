// Command yzverify is the auditor's tool: it verifies an evidence file, and
// received files against it, offline. It links no store and no HTTP.
//
//	yzverify [-authority CERT.pem] [-relabel DIR] EVIDENCE [FILE...]
//
// With -relabel it also writes the signed objects as RFC 5652 CMS into a new
// folder, for other tools (docs/verify-with-other-tools.md).
// It prints the report as JSON and exits 0 when nothing is wrong, 6 when
// something does not verify, 2 on wrong usage, 1 otherwise.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/evidence"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	fl := flag.NewFlagSet("yzverify", flag.ContinueOnError)
	fl.SetOutput(stderr)
	authority := fl.String("authority", "", "the authority's certificate, PEM, from a source you trust")
	relabel := fl.String("relabel", "", "also write the signed objects as RFC 5652 CMS into this new `folder`, for other tools")
	if err := fl.Parse(args); err != nil || fl.NArg() == 0 {
		fmt.Fprintln(stderr, "usage: yzverify [-authority CERT.pem] [-relabel DIR] EVIDENCE [FILE...]")
		return 2
	}
	report, err := verify(fl.Arg(0), *authority, *relabel, fl.Args()[1:])
	if err != nil {
		fmt.Fprintln(stderr, "yzverify:", err)
		return 1
	}
	if err := json.NewEncoder(stdout).Encode(report); err != nil {
		return 1
	}
	if !report.OK() {
		return 6
	}
	return 0
}

func verify(path, authority, relabel string, files []string) (*evidence.Report, error) {
	b, err := durable.ReadFile(durable.OS, path, evidence.MaxFile)
	if err != nil {
		return nil, err
	}
	var trusted []byte
	if authority != "" {
		if trusted, err = certs.ReadCertificate(authority); err != nil {
			return nil, err
		}
	}
	var delivered []evidence.Delivered
	for _, name := range files {
		d, err := sum(name)
		if err != nil {
			return nil, err
		}
		delivered = append(delivered, d)
	}
	if relabel != "" {
		if err := export(b, trusted, relabel); err != nil {
			return nil, err
		}
	}
	return evidence.Verify(b, trusted, delivered)
}

func export(b, trusted []byte, dir string) error {
	f, err := evidence.Parse(b)
	if err != nil {
		return err
	}
	_, err = f.WriteRelabelled(dir, trusted)
	return err
}

func sum(name string) (evidence.Delivered, error) {
	f, err := durable.OpenRegular(name)
	if err != nil {
		return evidence.Delivered{}, err
	}
	defer f.Close()
	h := sm.New()
	n, err := io.Copy(h, f)
	return evidence.Delivered{Name: name, Size: n, SM3: sm.Digest(h.Sum(nil))}, err
}
