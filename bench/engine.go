package main

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
)

// order is the data that all subjects carry: about 60 bytes of JSON.
type order struct {
	ID, Hold, Txn string
	Cents         int64
}

// steps are those of the workflow, in order.
var steps = []string{"reserve", "charge", "ship"}

// step does what the named step does, the same for every subject. There is no
// work in it but what the setup asks for.
func (s setup) step(name string, o *order) {
	switch name {
	case "reserve":
		o.Hold = "h-0001"
	case "charge":
		o.Txn = "t-0001"
	case "ship":
		o.Cents++
	}
	if s.work != nil {
		s.work(o.ID, name)
	}
}

// after is the step behind the named one, and whether there is one.
func after(name string) (string, bool) {
	for i, s := range steps[1:] {
		if steps[i] == name {
			return s, true
		}
	}
	return "", false
}

// A subject is an engine that can run the workflow.
type subject struct {
	name string
	open func(path string, s setup) (*engine, error)
	peer string // the module of somebody else
	left string // SQL: how many workflows of its file have not ended; none: it does not recover
}

// setup is what a subject is opened with.
type setup struct {
	flight  int                   // workflows in flight
	work    func(id, step string) // called by each step, if set
	release bool                  // what was claimed is free again after 5 s, where the default is longer
}

// engine is a subject that is open.
type engine struct {
	// start accepts a workflow durably; wait returns when it has ended.
	start func(id string) (wait func() error, err error)
	close func() error
}

// run keeps so many workflows in flight until the context ends, and returns how
// many have finished.
func (e *engine) run(ctx context.Context, flight int) int64 {
	var id, count atomic.Int64
	var all sync.WaitGroup
	for range flight {
		all.Go(func() {
			for ctx.Err() == nil {
				wait, err := e.start("o-" + strconv.FormatInt(id.Add(1), 10))
				check(err)
				check(wait())
				count.Add(1)
			}
		})
	}
	all.Wait()
	return count.Load()
}

// check ends the program: a subject that fails has no figure.
func check(err error) {
	if err != nil {
		panic(err)
	}
}
