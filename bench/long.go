package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// long measures the workflow's rate on a new file and on one with a long journal,
// by turns. Retention is as it is by default: it begins a minute after Start, when
// a measurement is over.
func long(args []string) error {
	c := comparison{}
	flags := flag.NewFlagSet("long", flag.ExitOnError)
	rows := flags.Int("rows", 10_000_000, "rows of the journal")
	flight := flags.Int("flight", 128, "workflows in flight")
	flags.IntVar(&c.rounds, "rounds", 3, "rounds; the median is reported")
	flags.DurationVar(&c.length, "for", 2*time.Second, "length of one measurement")
	flags.DurationVar(&c.warmup, "warmup", 500*time.Millisecond, "not counted, before each")
	flags.StringVar(&c.dir, "dir", "", "where the databases go; a temporary folder by default")
	flags.StringVar(&c.profile, "cpuprofile", "", "write a CPU profile of the last measurement, of the long file")
	_ = flags.Parse(args) // exits
	fmt.Printf("%s, %d CPUs, synchronous=FULL; medians of %d rounds of %v, %d in flight\n", runtime.Version(), runtime.NumCPU(), c.rounds, c.length, *flight)
	tmp, err := os.MkdirTemp(c.dir, "segno-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	path := filepath.Join(tmp, "long.db")
	size, err := crowd{finished: *rows / rowsOver}.make(path)
	if err != nil {
		return err
	}
	if err := warm(path); err != nil {
		return err
	}
	fmt.Printf("%d rows in the journal, of %d runs: %d MB\n", *rows, *rows/rowsOver, size>>20)
	return c.both(path, *flight)
}

// rowsOver is how many rows of the journal a run of the crowd's has that is over.
const rowsOver = 3

// both measures a new file and the one at path by turns.
func (c comparison) both(path string, flight int) error {
	var empty, long []figure
	var rates, cpus []float64 // the long file's by the new one's, in each round
	for range c.rounds {
		fig, err := c.one(subjects[0], flight)
		if err != nil {
			return err
		}
		empty = append(empty, fig)
		fig = figure{}
		if _, err := c.on(path, &fig, subjects[0], flight); err != nil {
			return err
		}
		long = append(long, fig)
		last := empty[len(empty)-1]
		rates, cpus = append(rates, fig.rate/last.rate), append(cpus, fig.cpu/last.cpu)
	}
	e, l := medians(empty), medians(long)
	fmt.Printf("%-12s %10s %10s %10s %10s\n", "", "steps/s", "CPU", "commits", "written")
	fmt.Printf("%-12s %10.0f %10.1f %10.3f %10.0f\n", "new file", e.rate, e.cpu, e.commits, e.written)
	fmt.Printf("%-12s %10.0f %10.1f %10.3f %10.0f\n", "long file", l.rate, l.cpu, l.commits, l.written)
	for _, r := range []struct {
		name string
		of   []float64
	}{{"rate", rates}, {"CPU", cpus}} {
		fmt.Printf("the long file's %s is %.2f of the new one's (rounds from %.2f to %.2f)\n", r.name, quantile(r.of, 0.5), quantile(r.of, 0), quantile(r.of, 1))
	}
	return nil
}
