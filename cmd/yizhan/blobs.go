package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/adapters/control"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// rootsView is where a node's payloads lie.
type rootsView struct {
	Roots []blob.Root `json:"roots"`
}

// rootOrder names a directory to be added.
type rootOrder struct {
	Path string `json:"path"`
}

func viewRoots(blobs *blob.Store) (rootsView, error) {
	list, err := blobs.Roots()
	return rootsView{list}, err
}

// addRoot takes a directory on a disk that keeps promises.
func addRoot(blobs *blob.Store, path string) (rootsView, error) {
	kind, err := fileSystemOf(path)
	if err != nil {
		return rootsView{}, &exchange.Error{Code: exchange.CodeBadRequest, Detail: path, Err: err}
	}
	if name := unsafeFileSystems[kind]; name != "" {
		return rootsView{}, exchange.Fail(exchange.CodeFileSystem, "%s is on %s", path, name)
	}
	err = blobs.Add(path)
	if errors.Is(err, blob.ErrUnfit) {
		return rootsView{}, &exchange.Error{Code: exchange.CodeSetupConflict, Err: err}
	}
	if err != nil {
		return rootsView{}, err
	}
	return viewRoots(blobs)
}

func (g *gateway) rootRoutes(s *control.Server) {
	s.Handle("GET /roots", func(context.Context, *control.Request) (any, error) { return viewRoots(g.blobs) })
	s.Handle("POST /roots", func(_ context.Context, q *control.Request) (any, error) {
		var o rootOrder
		if err := q.Decode(&o); err != nil {
			return nil, err
		}
		return addRoot(g.blobs, o.Path)
	})
}

func (a *app) blobsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "blobs", Short: "Where payloads lie; add another disk · 数据盘", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.blobsListCommand(), a.blobsAddCommand())
	return c
}

func (a *app) blobsListCommand() *cobra.Command {
	f := new(queueFlags)
	c := &cobra.Command{
		Use: "ls --data DIR", Short: "List the directories of payloads · 列出数据盘", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.onRoots(c.Context(), f, func(r *control.Client, v *rootsView) error {
				return r.Call(c.Context(), http.MethodGet, "/roots", nil, v, nil)
			}, viewRoots)
		},
	}
	f.add(c)
	return c
}

func (a *app) blobsAddCommand() *cobra.Command {
	f := new(queueFlags)
	c := &cobra.Command{
		Use: "add PATH --data DIR", Short: "Add a directory on another disk, while the node runs · 增加数据盘", Args: cobra.ExactArgs(1),
		Long: `PATH is an empty directory, such as that of a new file system. New payloads go where most
room is; those that are there stay. A directory that was added must be there at every
start: it is known by a mark, so that a disk that is not mounted is no empty one.`,
		RunE: func(c *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			return a.onRoots(c.Context(), f, func(r *control.Client, v *rootsView) error {
				return r.Call(c.Context(), http.MethodPost, "/roots", rootOrder{path}, v, nil)
			}, func(blobs *blob.Store) (rootsView, error) { return addRoot(blobs, path) })
		},
	}
	f.add(c)
	return c
}

// onRoots does something with the directories of a node, running or not, and
// shows them.
func (a *app) onRoots(ctx context.Context, f *queueFlags, running func(*control.Client, *rootsView) error, stopped func(*blob.Store) (rootsView, error)) error {
	dir, err := f.dir()
	if err != nil {
		return err
	}
	var v rootsView
	err = a.withNode(ctx, dir, withoutKeys,
		func(c *control.Client) error { return running(c, &v) },
		func(s *stoppedNode) (err error) {
			v, err = stopped(s.blobs)
			return err
		})
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, r := range v.Roots {
		fmt.Fprintf(&b, "%s  可用 free %d MiB  %s\n", r.Path, r.Free>>20, r.Missing)
	}
	return a.print(v, "%s", b.String())
}
