// Cron: a nightly report. The program is down for some nights; when it comes up,
// one report makes up for all of them, and knows how many. The ledger has every
// slot, with what became of it. So that it can be watched, a night is two seconds
// here, an expression of six fields; in earnest it would be
// "CRON_TZ=Europe/Berlin 0 2 * * *". To read on:
//
//	go run ./examples/cron -db cron.db
//	sqlite3 -box cron.db 'SELECT first, last, count, outcome, reason, run FROM segno_slots'
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/segnodev/segno"
)

const (
	nightly = "*/2 * * * * *"
	night   = 2 * time.Second
)

type State string

const Write, Done State = "write", "done"

// workflow is what runs each night. A scheduled run begins with the zero data,
// or Flow.Input; when it should have run is in its Info.
func workflow(written chan<- time.Time) segno.Workflow[State, struct{}] {
	write := func(ctx context.Context, _ *struct{}) (State, error) {
		in := segno.InfoFrom(ctx)
		fmt.Printf("report %d is written; it stands for %d earlier nights, too\n", in.Run, in.Missed)
		written <- in.Slot
		return Done, nil
	}
	return segno.Workflow[State, struct{}]{Initial: Write, Steps: segno.Steps[State, struct{}]{
		Write: {Do: write, Retry: segno.Exponential(3)},
		Done:  {Final: true},
	}}
}

// up runs the program until n reports are written, and returns the last slot.
func up(ctx context.Context, db string, n int) (slot time.Time, err error) {
	written := make(chan time.Time, n+1)
	s := segno.New(db, segno.Options{})
	if err := s.Cron("report", workflow(written), nightly); err != nil {
		return slot, err
	}
	running, err := s.Start(ctx)
	if err != nil {
		return slot, err
	}
	for range n {
		slot = <-written
	}
	return slot, running.Stop(ctx)
}

// ledger prints what has become of each slot. A stretch of slots with the same
// outcome is one row.
func ledger(ctx context.Context, db string) error {
	r, err := segno.OpenReader(ctx, db)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	rows, err := r.DB().QueryContext(ctx, "SELECT first, count, outcome, run FROM segno_slots ORDER BY first")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	fmt.Println("the ledger")
	for begin := (time.Time{}); rows.Next(); {
		var first, outcome string
		var count, run int
		if err := rows.Scan(&first, &count, &outcome, &run); err != nil {
			return err
		}
		from, err := time.Parse(time.RFC3339, first)
		if err != nil {
			return err
		}
		if begin.IsZero() {
			begin = from.Add(-night)
		}
		fmt.Printf("  %d from night %d: %s, by report %d\n", count, from.Sub(begin)/night, outcome, run)
	}
	return rows.Err()
}

func run(ctx context.Context, db string) error {
	if db == "" {
		dir, err := os.MkdirTemp("", "segno-cron-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		db = filepath.Join(dir, "cron.db")
	}
	slot, err := up(ctx, db, 1)
	if err != nil {
		return err
	}
	fmt.Println("the program is down for three nights")
	time.Sleep(time.Until(slot.Add(3*night + night/10)))
	if _, err := up(ctx, db, 2); err != nil {
		return err
	}
	return ledger(ctx, db)
}

func main() {
	db := flag.String("db", "", "the database `file`; none: a temporary one")
	flag.Parse()
	if err := run(context.Background(), *db); err != nil {
		log.Fatalln("cron:", err)
	}
}
