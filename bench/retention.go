package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/segnodev/segno"
)

// prunesAfter is when retention begins after a Start.
const prunesAfter = time.Minute

// A probe measures what writes take that others want to make.
type probe struct {
	r      *segno.RunningScheduler
	e      *engine
	length time.Duration
}

// retention measures how long others wait for the writer while old runs are
// deleted: beside what they take before, with a writer that has nothing else to
// do and with one that is saturated. A write that changes nothing needs no sync,
// so on the idle writer all that it waits for is a request for deleting.
func retention(args []string) error {
	flags := flag.NewFlagSet("retention", flag.ExitOnError)
	runs := flags.Int("runs", 200_000, "runs that are over, and old")
	length := flags.Duration("for", 10*time.Second, "length of one measurement; there are four")
	flight := flags.Int("flight", 128, "workflows in flight")
	dir := flags.String("dir", "", "where the database goes; a temporary folder by default")
	profile := flags.String("cpuprofile", "", "write a CPU profile of what happens beside the deleting")
	_ = flags.Parse(args) // exits
	path, done, err := begin(*dir, "")
	if err != nil {
		return err
	}
	defer done()
	if _, err := (crowd{finished: *runs, age: 100 * 24 * time.Hour}).make(path); err != nil {
		return err
	}
	if err := warm(path); err != nil {
		return err
	}
	r, e, err := beside(path, *flight, 1)
	if err != nil {
		return err
	}
	p := probe{r, e, *length}
	begins := time.Now().Add(prunesAfter + time.Second)
	if err := p.both(*flight); err != nil {
		return err
	}
	time.Sleep(time.Until(begins))
	stop, err := profiling(*profile)
	if err != nil {
		return err
	}
	defer stop()
	if err := p.both(*flight); err != nil {
		return err
	}
	return e.close()
}

// both measures the idle writer and the saturated one.
func (p probe) both(flight int) error {
	for _, flight := range []int{0, flight} {
		if err := p.measure(flight); err != nil {
			return err
		}
	}
	return nil
}

// measure prints what writes take.
func (p probe) measure(flight int) error {
	ctx := context.Background()
	write := func(query string) func() error {
		return func() error {
			return p.r.Write(ctx, func(tx segno.Tx) error {
				_, err := tx.Exec(query)
				return err
			})
		}
	}
	calls := []*call{
		{"a write that changes nothing", pace / 10, write("UPDATE probe SET n = 0 WHERE one = 2"), nil},
		{"a write of one row", pace / 10, write("UPDATE probe SET n = n + 1"), nil},
	}
	before, err := p.left()
	if err != nil {
		return err
	}
	rate := loaded(p.e, flight, p.length, func() { ask(calls, p.length) })
	after, err := p.left()
	report(fmt.Sprintf("%d in flight, %.0f steps/s, %.0f runs deleted/s", flight, rate, float64(before-after)/p.length.Seconds()), calls)
	return err
}

// left counts the old runs.
func (p probe) left() (n int, err error) {
	err = p.r.DB().QueryRow("SELECT count(*) FROM _segno_run WHERE flow = (SELECT flow FROM _segno_flow WHERE id = 'crowd')").Scan(&n)
	return n, err
}
