package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/rest"
	"github.com/yizhan-gateway/yizhan/certs"
)

// pair is a throwaway authority and two nodes in two zones with a link, run as
// processes of their own on loopback.
type pair struct {
	app      *app
	say      func(format string, args ...any)
	dir      string
	passFile string
	nodes    []*pairNode
	jia, yi  *pairNode
}

// pairNode is one node of a pair: its data, its process, its agency.
type pairNode struct {
	id, zone, agencyName string
	agency               certs.AgencyCode
	data, peerAddr       string
	initArgs             []string // more of its init
	key                  string
	process              *exec.Cmd
	url                  string
	client               *apiClient
}

// prepare makes authority, nodes and directory in dir, with the same commands a
// person would use.
func (d *pair) prepare() error {
	d.introduce()
	if err := d.begin(d.jia, d.yi); err != nil {
		return err
	}
	d.say("建立名录机构和两个节点 made an authority and two nodes\n")
	return d.publish([]string{"link", "jia", "yi", "--dialer", "jia", "--ceiling", "work_secret"})
}

// introduce names the two nodes with agencies.
func (d *pair) introduce() {
	d.jia = &pairNode{id: "jia", zone: "政务外网", agencyName: "示范单位甲"}
	d.yi = &pairNode{id: "yi", zone: "专网", agencyName: "示范单位乙"}
}

// begin makes the authority and the nodes.
func (d *pair) begin(nodes ...*pairNode) error {
	d.nodes = nodes
	d.passFile = filepath.Join(d.dir, "passphrase")
	if err := os.WriteFile(d.passFile, []byte(rand.Text()+"\n"), 0o600); err != nil {
		return err
	}
	if err := d.command("ca", "init", d.ca(), "--domain", "示范域", "--passphrase-file", d.passFile); err != nil {
		return err
	}
	for i, n := range nodes {
		if err := d.prepareNode(n, i+1); err != nil {
			return err
		}
	}
	return nil
}

func (d *pair) ca() string { return filepath.Join(d.dir, "ca") }

// publish notes what the directory is to say, publishes it and installs it. Each
// entry is a command of ca without the authority's directory.
func (d *pair) publish(entries ...[]string) error {
	directory := filepath.Join(d.dir, "directory.yzd")
	for _, e := range append(entries, []string{"publish", "-o", directory}) {
		args := append([]string{"ca", e[0], d.ca()}, e[1:]...)
		if err := d.command(append(args, "--passphrase-file", d.passFile)...); err != nil {
			return err
		}
	}
	for _, n := range d.nodes {
		if err := d.command("init", "--data", n.data, "--directory", directory, "--authority", filepath.Join(d.ca(), authorityFile)); err != nil {
			return err
		}
	}
	return nil
}

// prepareNode makes a node, one at a boundary if it has no agency.
func (d *pair) prepareNode(n *pairNode, number int) (err error) {
	if n.agency, err = certs.MakeAgencyCode(fmt.Sprintf("1152000000000%03dX", number)); err != nil {
		return err
	}
	if n.peerAddr, err = freeAddress(); err != nil {
		return err
	}
	n.data = filepath.Join(d.dir, n.id)
	args := []string{"init", "--data", n.data, "--node", n.id, "--zone", n.zone, "--domain", "示范域",
		"--peer-url", "https://" + n.peerAddr, "--peer-listen", n.peerAddr, "--passphrase-file", d.passFile}
	if n.agencyName != "" {
		args = append(args, "--rest-listen", "127.0.0.1:0", "--agency", string(n.agency)+"="+n.agencyName)
	}
	if err := d.command(append(args, n.initArgs...)...); err != nil {
		return err
	}
	if err := d.command("ca", "admit", d.ca(), filepath.Join(n.data, requestFile), "--passphrase-file", d.passFile); err != nil {
		return err
	}
	if n.agencyName == "" {
		return nil
	}
	ring, err := rest.OpenKeyRing(filepath.Join(n.data, apiKeysFile))
	if err != nil {
		return err
	}
	n.key, _, err = ring.Create(rand.Reader, n.agency, rest.Scopes, nil, "demo", time.Now())
	return err
}

// command runs one of our own commands inside this process, quietly.
func (d *pair) command(args ...string) error {
	quiet := &app{out: io.Discard, err: d.app.err, now: d.app.now, lang: d.app.lang}
	root := quiet.root()
	root.SetArgs(args)
	root.SetOut(io.Discard)
	return root.Execute()
}

// freeAddress asks the system for a port; should another process take it
// before the node does, the node's start fails and says so.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start runs a node as a process of its own, which ends with this one.
func (d *pair) start(ctx context.Context, n *pairNode) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(d.dir, n.id+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	n.process = exec.Command(self, "serve", "--data", n.data, "--passphrase-file", d.passFile, "--json")
	n.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	n.process.Stderr = log
	out, err := n.process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := n.process.Start(); err != nil {
		return err
	}
	line := make(chan ready, 1)
	go func() {
		var r ready
		if b, err := bufio.NewReader(out).ReadBytes('\n'); err == nil && json.Unmarshal(b, &r) == nil {
			line <- r
		}
		close(line)
	}()
	select {
	case r, ok := <-line:
		if !ok || !r.Ready {
			text, _ := os.ReadFile(log.Name()) // only for the message
			return fmt.Errorf("node %s did not start:\n%s", n.id, text)
		}
		n.url = r.REST
	case <-time.After(demoPatience):
		return fmt.Errorf("node %s did not become ready within %s", n.id, demoPatience)
	case <-ctx.Done():
		return ctx.Err()
	}
	n.client = newAPIClient(n.url, n.key)
	d.say("节点 node %s（%s）: 进程 process %d%s\n", n.id, strings.Trim(n.agencyName+"，"+n.zone, "，"), n.process.Process.Pid, n.address())
	return nil
}

// address is where the node's REST interface is, if it has one.
func (n *pairNode) address() string {
	if n.url == "" {
		return ""
	}
	return ", " + n.url
}

// end sends a node's process a signal and waits for it; one that does not run
// is none.
func (n *pairNode) end(how syscall.Signal) {
	if n == nil || n.process == nil || n.process.Process == nil {
		return
	}
	_ = n.process.Process.Signal(how) // it may be gone already
	_ = n.process.Wait()              // its exit code says nothing new here
	n.process = nil
}
