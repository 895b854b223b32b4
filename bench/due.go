package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/segnodev/segno"
)

// due measures very many flows in one file that are all due within each minute:
// how late their runs begin.
func due(args []string) error {
	flags := flag.NewFlagSet("due", flag.ExitOnError)
	n := flags.Int("flows", 100_000, "flows: half of them intervals, half cron")
	spread := flags.Bool("spread", false, "intervals only, so that no two are due at the same time")
	length := flags.Duration("for", 3*time.Minute, "how long lateness is measured, after the first minute")
	dir := flags.String("dir", "", "where the database goes; a temporary folder by default")
	profile := flags.String("cpuprofile", "", "write a CPU profile of it")
	_ = flags.Parse(args) // exits
	path, done, err := begin(*dir, *profile)
	if err != nil {
		return err
	}
	defer done()
	fmt.Printf("%d flows, due each minute\n", *n)
	return busy(path, *n, *spread, *length)
}

// idle measures very many flows that are not due for a long time: what Start
// takes, at first and with all of them in the file, and what they cost.
func idle(args []string) error {
	flags := flag.NewFlagSet("idle", flag.ExitOnError)
	n := flags.Int("flows", 100_000, "flows: half of them intervals, half cron")
	dir := flags.String("dir", "", "where the database goes; a temporary folder by default")
	profile := flags.String("cpuprofile", "", "write a CPU profile of it")
	_ = flags.Parse(args) // exits
	path, done, err := begin(*dir, *profile)
	if err != nil {
		return err
	}
	defer done()
	fmt.Printf("%d flows, none due\n", *n)
	for _, what := range []string{"first start, registering all", "start with all in the file"} {
		if err := rest(path, what, *n); err != nil {
			return err
		}
	}
	return nil
}

// rest starts flows that are not due for a long time, and watches them for a while.
func rest(path, what string, n int) error {
	before, w := heap(), three(setup{})
	s := segno.New(path, segno.Options{})
	for i := range n {
		f := segno.Flow{ID: fmt.Sprintf("flow-%06d", i), Workflow: w, Schedule: segno.Every(10_000 * time.Hour), SkipFirst: true}
		if i%2 == 1 {
			f.Schedule = segno.Cron("0 0 29 2 *")
		}
		if err := s.Add(f); err != nil {
			return err
		}
	}
	began := time.Now()
	r, err := s.Start(context.Background())
	if err != nil {
		return err
	}
	took := time.Since(began)
	time.Sleep(2 * time.Second)
	cpu := cpuTime()
	time.Sleep(10 * time.Second)
	cpu = cpuTime() - cpu
	fmt.Printf("%s: %v; idle CPU %.2f %% of a core; heap per flow %d bytes\n", what, took.Round(time.Millisecond), cpu.Seconds()*10, (heap()-before)/int64(n))
	return r.Stop(context.Background())
}

// heap returns the bytes in use, after a collection.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// lateness collects how much after its slot each run began.
type lateness struct {
	mu   sync.Mutex
	from time.Time
	late map[string][]time.Duration // by kind of schedule
}

// flow is the workflow of one step that measures.
func (l *lateness) flow() segno.Workflow[state, struct{}] {
	return segno.Workflow[state, struct{}]{
		Initial: "look",
		Steps: segno.Steps[state, struct{}]{
			"look": {Do: func(ctx context.Context, _ *struct{}) (state, error) {
				now, info := time.Now(), segno.InfoFrom(ctx)
				l.mu.Lock()
				defer l.mu.Unlock()
				if info.Slot.After(l.from) {
					kind, _, _ := strings.Cut(info.Flow, "-")
					l.late[kind] = append(l.late[kind], now.Sub(info.Slot))
				}
				return "done", nil
			}},
			"done": {Final: true},
		},
	}
}

// busy starts flows that are all due within a minute. The intervals are spread
// over it, a slot after the other; of the cron flows each second has its share,
// all at once.
func busy(path string, n int, spread bool, length time.Duration) error {
	l := &lateness{late: map[string][]time.Duration{}}
	s := segno.New(path, segno.Options{})
	start := time.Now().Truncate(time.Minute).Add(-24 * time.Hour)
	w := l.flow()
	for i := range n {
		f := segno.Flow{Workflow: w, SkipFirst: true}
		if spread || i%2 == 0 {
			f.ID = fmt.Sprintf("interval-%06d", i)
			f.Schedule, f.StartAt = segno.Every(time.Minute), start.Add(time.Minute*time.Duration(i)/time.Duration(n))
		} else {
			f.ID = fmt.Sprintf("cron-%06d", i)
			f.Schedule = segno.Cron(fmt.Sprintf("%d * * * * *", i/2%60))
		}
		if err := s.Add(f); err != nil {
			return err
		}
	}
	r, err := s.Start(context.Background())
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.from = time.Now().Add(time.Minute)
	l.mu.Unlock()
	time.Sleep(time.Minute)
	cpu := cpuTime()
	time.Sleep(length)
	fmt.Printf("CPU while all are due each minute: %.0f %% of a core\n", 100*(cpuTime()-cpu).Seconds()/length.Seconds())
	if err := r.Stop(context.Background()); err != nil {
		return err
	}
	for kind, late := range l.late {
		fmt.Printf("%s: %d runs, lateness p50 %v, p99 %v, p99.9 %v, worst %v\n", kind, len(late),
			quantile(late, 0.5).Round(10*time.Microsecond), quantile(late, 0.99).Round(10*time.Microsecond),
			quantile(late, 0.999).Round(10*time.Microsecond), quantile(late, 1).Round(10*time.Microsecond))
	}
	return nil
}
