package main

import (
	"context"
	"database/sql"
	"fmt"
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

// ended tells those who wait for workflows, where an engine has nothing for it.
type ended struct {
	waiting sync.Map // of channels, by id
}

// expect returns what waits for the workflow.
func (e *ended) expect(id string) func() error {
	c := make(chan struct{})
	e.waiting.Store(id, c)
	return func() error { <-c; return nil }
}

// done says that the workflow has ended. After a restart nobody may wait for it.
func (e *ended) done(id string) {
	if c, ok := e.waiting.LoadAndDelete(id); ok {
		close(c.(chan struct{}))
	}
}

// peerDSN sets what all subjects have in common, and nothing else.
const peerDSN = "file:%s?_busy_timeout=5000&_journal_mode=WAL&_synchronous=FULL&_txlock=immediate"

// openFile opens a peer's file, with so many connections, and makes sure of the
// durability.
func openFile(path string, conns int) (*sql.DB, error) {
	db, err := sql.Open("sqlite", fmt.Sprintf(peerDSN, path))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	var mode string
	var sync int
	if err = db.QueryRow("PRAGMA journal_mode").Scan(&mode); err == nil {
		err = db.QueryRow("PRAGMA synchronous").Scan(&sync)
	}
	if err == nil && (mode != "wal" || sync != 2) {
		err = fmt.Errorf("journal_mode is %s, synchronous %d", mode, sync)
	}
	return db, err
}
