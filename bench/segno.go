package main

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/segnodev/segno"
)

// order is the data that all subjects carry: about 60 bytes of JSON.
type order struct {
	ID, Hold, Txn string
	Cents         int64
}

type state string

// three is the 3-step workflow without work.
var three = segno.Workflow[state, order]{
	Initial: "reserve",
	Steps: segno.Steps[state, order]{
		"reserve": {Do: func(_ context.Context, o *order) (state, error) { o.Hold = "h-0001"; return "charge", nil }},
		"charge":  {Do: func(_ context.Context, o *order) (state, error) { o.Txn = "t-0001"; return "ship", nil }},
		"ship":    {Do: func(_ context.Context, o *order) (state, error) { o.Cents++; return "done", nil }},
		"done":    {Final: true},
	},
}

func openSegno(path string, flight int) (func(context.Context) int64, func() error, error) {
	s := segno.New(path, segno.Options{MaxConcurrent: flight + 8})
	if err := s.Add(segno.Flow{ID: "three", Workflow: three, Overlap: segno.Allow(0)}); err != nil {
		return nil, nil, err
	}
	r, err := s.Start(context.Background())
	if err != nil {
		return nil, nil, err
	}
	bound, err := segno.Bind(r, "three", three)
	if err != nil {
		return nil, nil, err
	}
	run := func(ctx context.Context) int64 {
		return clients(flight, func(n *atomic.Int64) {
			for ctx.Err() == nil {
				id, err := bound.Trigger(context.Background(), order{ID: "o-4711", Cents: 1250})
				if err != nil {
					panic(err)
				}
				if _, err := bound.Wait(context.Background(), id); err != nil {
					panic(err)
				}
				n.Add(1)
			}
		})
	}
	return run, func() error { return r.Stop(context.Background()) }, nil
}

// clients runs n loops at once and returns what they counted.
func clients(n int, loop func(*atomic.Int64)) int64 {
	var count atomic.Int64
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { loop(&count) })
	}
	wg.Wait()
	return count.Load()
}
