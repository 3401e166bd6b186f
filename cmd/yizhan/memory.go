package main

import (
	"context"
	"runtime"

	"github.com/yizhan-gateway/yizhan/adapters/control"
)

const memoryRoute = "/v1/memory"

// liveMemory is what a node holds, garbage and free memory apart.
type liveMemory struct {
	Bytes uint64 `json:"live_bytes"`
}

// memoryRoutes measure what a running node holds: each question costs it a
// collection.
func (g *gateway) memoryRoutes(s *control.Server) {
	s.Handle("GET "+memoryRoute, func(context.Context, *control.Request) (any, error) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return liveMemory{m.HeapAlloc + m.StackInuse}, nil
	})
}

func memoryOf(ctx context.Context, d dataDir) (int64, error) {
	c, err := control.Dial(ctx, string(d))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var m liveMemory
	err = c.Call(ctx, "GET", memoryRoute, nil, &m, nil)
	return int64(m.Bytes), err
}
