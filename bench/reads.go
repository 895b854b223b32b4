package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/segnodev/segno"
)

// pace is the time between two calls of the same kind, if they are usual.
const pace = 50 * time.Millisecond

// A call is one kind of question that is asked at a modest pace.
type call struct {
	name  string
	every time.Duration
	ask   func() error
	took  []time.Duration
}

// reads measures the calls that a person or a page would make, in a file with a
// past, first while nothing is written and then while the workflow saturates the
// writer.
func reads(args []string) error {
	flags := flag.NewFlagSet("reads", flag.ExitOnError)
	runs := flags.Int("runs", 100_000, "runs that are over")
	flows := flags.Int("flows", 100, "flows")
	length := flags.Duration("for", 10*time.Second, "how long the calls are measured")
	flight := flags.Int("flight", 128, "workflows in flight")
	dir := flags.String("dir", "", "where the database goes; a temporary folder by default")
	profile := flags.String("cpuprofile", "", "write a CPU profile of it")
	_ = flags.Parse(args) // exits
	path, done, err := begin(*dir, "")
	if err != nil {
		return err
	}
	defer done()
	if _, err := (crowd{finished: *runs}).make(path); err != nil {
		return err
	}
	if err := warm(path); err != nil {
		return err
	}
	r, e, err := beside(path, *flight, *flows)
	if err != nil {
		return err
	}
	fmt.Printf("%d runs that are over, %d flows; a call of each kind every %v\n", *runs, *flows, pace)
	calls := questions(r, *runs)
	ask(calls, *length)
	report("nothing is written", calls)
	stop, err := profiling(*profile)
	if err != nil {
		return err
	}
	calls = questions(r, *runs)
	rate := loaded(e, *flight, *length, func() { ask(calls, *length) })
	stop()
	report(fmt.Sprintf("%d in flight, %.0f steps/s", *flight, rate), calls)
	return e.close()
}

// beside opens the file with the flow "three" and others that do nothing, and with
// a table of the application's.
func beside(path string, flight, flows int) (*segno.RunningScheduler, *engine, error) {
	s := segno.New(path, segno.Options{MaxConcurrent: flight + 8, Schema: func(tx segno.Tx) error {
		_, err := tx.Exec("CREATE TABLE probe AS SELECT 1 AS one, 0 AS n")
		return err
	}})
	w := three(setup{})
	for i := range flows {
		id := "three"
		if i > 0 {
			id = fmt.Sprintf("other-%03d", i)
		}
		if err := s.Add(segno.Flow{ID: id, Workflow: w, Overlap: segno.Allow(0)}); err != nil {
			return nil, nil, err
		}
	}
	r, err := s.Start(context.Background())
	if err != nil {
		return nil, nil, err
	}
	e, err := drive(r, w)
	return r, e, err
}

// loaded keeps workflows in flight while fn runs, and returns the steps per second.
func loaded(e *engine, flight int, length time.Duration, fn func()) float64 {
	var all sync.WaitGroup
	start, n := time.Now(), int64(0)
	if flight > 0 {
		all.Go(func() { n = during(e, flight, length) })
	}
	fn()
	all.Wait()
	return float64(3*n) / time.Since(start).Seconds()
}

// questions are the kinds of calls, about a file with so many runs.
func questions(r *segno.RunningScheduler, runs int) []*call {
	ctx := context.Background()
	some := func() segno.RunID { return segno.RunID(1 + rand.IntN(runs)) }
	list := func(f segno.RunFilter) func() error {
		return func() error { _, err := r.Runs(ctx, f); return err }
	}
	turn := func() error {
		done := make(chan struct{})
		go close(done)
		<-done
		return nil
	}
	return []*call{
		{"no call: a goroutine begins, and is waited for", pace, turn, nil},
		{"Run", pace, func() error { _, err := r.Run(ctx, some()); return err }, nil},
		{"History", pace, func() error { _, err := r.History(ctx, some()); return err }, nil},
		{"Status", pace, func() error { _, err := r.Status(ctx, "three"); return err }, nil},
		{"List", pace, func() error { _, err := r.List(ctx); return err }, nil},
		{"Runs, newest", pace, list(segno.RunFilter{}), nil},
		{"Runs, a page", pace, func() error { return list(segno.RunFilter{Flow: "crowd", Before: some()})() }, nil},
		{"Runs, running", pace, list(segno.RunFilter{Status: []segno.RunStatus{segno.RunRunning}}), nil},
		{"Runs, failed, of which there are none", pace, list(segno.RunFilter{Status: []segno.RunStatus{segno.RunFailed}}), nil},
	}
}

// ask makes each kind of call at its pace, each in a goroutine of its own.
func ask(calls []*call, length time.Duration) {
	var all sync.WaitGroup
	for i, c := range calls {
		all.Go(func() {
			time.Sleep(c.every * time.Duration(i) / time.Duration(len(calls)))
			c.repeat(length)
		})
	}
	all.Wait()
}

// repeat makes the call at its pace.
func (c *call) repeat(length time.Duration) {
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	for until := time.Now().Add(length); time.Now().Before(until); <-tick.C {
		start := time.Now()
		check(c.ask())
		c.took = append(c.took, time.Since(start))
	}
}

// report prints how long the calls took.
func report(what string, calls []*call) {
	fmt.Printf("\n%-52s %6s %10s %10s %10s %10s\n", what, "calls", "p50", "p90", "p99", "worst")
	for _, c := range calls {
		ms := func(q float64) float64 { return float64(quantile(c.took, q).Microseconds()) / 1000 }
		fmt.Printf("%-52s %6d %7.2f ms %7.2f ms %7.2f ms %7.2f ms\n", c.name, len(c.took), ms(0.5), ms(0.9), ms(0.99), ms(1))
	}
}
