package main

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// subjects are all that is measured; segno is the first.
var subjects = []subject{
	{name: "segno", open: openSegno, left: "SELECT count(*) FROM _segno_run WHERE ended IS NULL"},
	{name: "raw group", open: openRawGroup},
	{name: "raw single", open: openRawSingle},
	{name: "dbos", open: openDBOS, peer: "github.com/dbos-inc/dbos-transact-golang", left: "SELECT count(*) FROM workflow_status WHERE status <> 'SUCCESS'"},
	{name: "river", open: openRiver, peer: "github.com/riverqueue/river", left: "SELECT count(*) FROM river_job WHERE state <> 'completed'"},
	{name: "goqite", open: openGoqite, peer: "maragu.dev/goqite", left: "SELECT count(*) FROM goqite"},
	{name: "backlite", open: openBacklite, peer: "github.com/mikestefanello/backlite", left: "SELECT count(DISTINCT CAST(task AS TEXT) ->> '$.Data.ID') FROM backlite_tasks"},
}

// A comparison is how the subjects are compared.
type comparison struct {
	subjects       []subject
	rounds         int
	length, warmup time.Duration
	dir, profile   string
}

// compare runs the same 3-step workflow on every subject, on the same disk, with
// the same durability, interleaved in one run.
func compare(args []string) error {
	c := comparison{}
	flags := flag.NewFlagSet("compare", flag.ExitOnError)
	flags.IntVar(&c.rounds, "rounds", 5, "rounds; the median is reported")
	flags.DurationVar(&c.length, "for", 1500*time.Millisecond, "length of one measurement")
	flags.DurationVar(&c.warmup, "warmup", 300*time.Millisecond, "not counted, before each")
	flights := flags.String("flight", "1,16,128,1024", "workflows in flight")
	peers := flags.Bool("peers", true, "measure the other engines, too")
	flags.StringVar(&c.dir, "dir", "", "where the databases go; a temporary folder by default")
	flags.StringVar(&c.profile, "cpuprofile", "", "write a CPU profile of the segno measurements")
	_ = flags.Parse(args) // exits
	c.subjects = chosen(*peers)
	fmt.Printf("%s, %d CPUs, synchronous=FULL; medians of %d rounds of %v\n%s\n", runtime.Version(), runtime.NumCPU(), c.rounds, c.length, versions(c.subjects))
	fmt.Println("Per step: microseconds of CPU, transactions, bytes that stay in the file, bytes written.")
	for _, text := range strings.Split(*flights, ",") {
		flight, err := strconv.Atoi(text)
		if err == nil {
			err = c.measure(flight)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// chosen returns the subjects, with the peers or without.
func chosen(peers bool) []subject {
	return slices.DeleteFunc(slices.Clone(subjects), func(s subject) bool { return s.peer != "" && !peers })
}

// versions says which modules are measured.
func versions(of []subject) string {
	info, _ := debug.ReadBuildInfo()
	var words []string
	for _, m := range info.Deps {
		if m.Path == "modernc.org/sqlite" || slices.ContainsFunc(of, func(s subject) bool { return s.peer == m.Path }) {
			words = append(words, m.Path+" "+m.Version)
		}
	}
	return strings.Join(words, ", ")
}

// measure prints the table of so many workflows in flight.
func (c comparison) measure(flight int) error {
	all := map[string][]figure{}
	for range c.rounds {
		for _, s := range c.subjects {
			fig, err := c.one(s, flight)
			if err != nil {
				return fmt.Errorf("%s at %d: %w", s.name, flight, err)
			}
			all[s.name] = append(all[s.name], fig)
		}
	}
	fmt.Printf("\n%-12s %10s %10s %10s %10s %10s %10s\n", fmt.Sprintf("%d in flight", flight),
		"steps/s", "segno is", "CPU", "commits", "kept", "written")
	segno := medians(all["segno"])
	for _, s := range c.subjects {
		m := medians(all[s.name])
		fmt.Printf("%-12s %10.0f %9.2fx %10.0f %10.2f %10.0f %10.0f\n", s.name, m.rate, segno.rate/m.rate, m.cpu, m.commits, m.kept, m.written)
	}
	return nil
}
