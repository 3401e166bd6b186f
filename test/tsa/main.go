// Command tsa is a small timestamp authority for trying things out: real
// RFC 3161 tokens with SM2 and SM3 under a key made at the start. It prints one
// JSON line with its URL, and writes its certificate where -certificate says.
// With -fault it does wrong in one of the ways that tests use.
//
//	go run ./test/tsa -listen 127.0.0.1:3161 -certificate tsa.crt
package main

import (
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "host:port")
	path := flag.String("certificate", "", "file to write the certificate to, PEM")
	fault := flag.String("fault", "", "down, slow, refuses, garbage, huge, wrong-nonce, other-imprint, other-key or far-off")
	flag.Parse()
	if err := run(*listen, *path, tsatest.Fault(*fault)); err != nil {
		log.Fatal(err)
	}
}

func run(listen, path string, fault tsatest.Fault) error {
	t, err := tsatest.New(rand.Reader, time.Now)
	if err != nil {
		return err
	}
	t.Fail(fault)
	if path != "" {
		b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: t.Certificate()})
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"url": "http://" + l.Addr().String()}); err != nil {
		return err
	}
	server := &http.Server{Handler: t, ReadHeaderTimeout: 10 * time.Second}
	return server.Serve(l)
}
