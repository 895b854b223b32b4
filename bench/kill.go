package main

import (
	"cmp"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// never is the time of what did not happen.
const never = time.Duration(math.MaxInt64)

// patience is how long a subject has to finish after its restart.
const patience = 30 * time.Second

// A victim is a subject to be killed.
type victim struct {
	subject
	release bool
}

// victims are the subjects that go on after a restart. What River and backlite
// had claimed when they died is theirs for an hour and for 10 minutes, so they are
// there once more with 5 s.
func victims() (all []victim) {
	for _, s := range subjects {
		if s.left != "" {
			all = append(all, victim{subject: s})
		}
		if s.name == "river" || s.name == "backlite" {
			all = append(all, victim{subject: s, release: true})
		}
	}
	return all
}

func (v victim) title() string {
	if v.release {
		return v.name + ", 5 s"
	}
	return v.name
}

// aftermath is what came of a kill.
type aftermath struct {
	open     int           // workflows that had not ended at the kill
	first    time.Duration // from the start of the new process to the first step
	all      time.Duration // to the end of the last workflow
	stuck    int           // workflows that had not ended after all patience
	repeated int           // steps that ran once more
}

// kill kills each subject with -9, with many workflows in it, and starts it again.
func kill(args []string) error {
	flags := flag.NewFlagSet("kill", flag.ExitOnError)
	flight := flags.Int("flight", 200, "workflows in flight")
	rounds := flags.Int("rounds", 3, "rounds; the median is reported")
	dir := flags.String("dir", "", "where the databases go; a temporary folder by default")
	_ = flags.Parse(args) // exits
	fmt.Printf("%s, %d CPUs, synchronous=FULL; killed with %d workflows in flight, median of %d rounds\n%s\n\n",
		runtime.Version(), runtime.NumCPU(), *flight, *rounds, versions(subjects))
	all := map[string][]aftermath{}
	for range *rounds {
		for _, v := range victims() {
			a, err := v.once(*dir, *flight)
			if err != nil {
				return fmt.Errorf("%s: %w", v.title(), err)
			}
			all[v.title()] = append(all[v.title()], a)
		}
	}
	fmt.Printf("%-14s %14s %14s %14s %14s %14s\n", "", "open at kill", "first step", "all done", "not in 30 s", "steps repeated")
	for _, v := range victims() {
		figs := all[v.title()]
		fmt.Printf("%-14s %14d %14s %14s %14d %14d\n", v.title(),
			middle(figs, func(a aftermath) int { return a.open }),
			seconds(middle(figs, func(a aftermath) time.Duration { return a.first })),
			seconds(middle(figs, func(a aftermath) time.Duration { return a.all })),
			middle(figs, func(a aftermath) int { return a.stuck }),
			middle(figs, func(a aftermath) int { return a.repeated }))
	}
	return nil
}

func middle[T cmp.Ordered](figs []aftermath, of func(aftermath) T) T {
	var v []T
	for _, a := range figs {
		v = append(v, of(a))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

func seconds(d time.Duration) string {
	if d == never {
		return "never"
	}
	return fmt.Sprintf("%.3f s", d.Seconds())
}

// once kills a victim once.
func (v victim) once(dir string, flight int) (a aftermath, err error) {
	tmp, err := os.MkdirTemp(dir, "segno-bench")
	if err != nil {
		return a, err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	d := doomed{victim: v, path: filepath.Join(tmp, "bench.db"), journal: filepath.Join(tmp, "journal"), flight: flight}
	if err = d.command(false).Run(); !wasKilled(err) {
		return a, fmt.Errorf("it ended by itself: %w", cmp.Or(err, errors.New("no error")))
	}
	if a.open, err = d.leftInCopy(filepath.Join(tmp, "copy.db")); err != nil {
		return a, err
	}
	again, start := d.command(true), time.Now()
	stdin, err := again.StdinPipe()
	if err == nil {
		err = again.Start()
	}
	if err != nil {
		return a, err
	}
	defer func() {
		_ = stdin.Close()
		_ = again.Wait()
	}()
	err = d.watch(&a, start)
	return a, err
}

func wasKilled(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signal() == syscall.SIGKILL
}

// watch follows the new process by what it leaves behind.
func (d doomed) watch(a *aftermath, start time.Time) error {
	a.first, a.all = never, never
	db, err := sql.Open("sqlite", "file:"+d.path+"?mode=ro&_busy_timeout=5000")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	for now := range time.Tick(2 * time.Millisecond) {
		if a.first == never {
			if a.first, err = d.firstSince(start); err != nil {
				return err
			}
		}
		late := now.Sub(start) > patience
		if a.first == never && !late { // nothing is in its way while it opens the file
			continue
		}
		if err = db.QueryRow(d.left).Scan(&a.stuck); err != nil {
			return err
		}
		if a.stuck == 0 {
			a.all = time.Since(start)
		}
		if a.stuck == 0 || late {
			break
		}
	}
	a.repeated, err = d.repeated(a.stuck == 0)
	return err
}

// leftInCopy counts in a copy: to open the file itself would be to recover it.
func (d doomed) leftInCopy(path string) (n int, err error) {
	for _, end := range []string{"", "-wal"} {
		data, err := os.ReadFile(d.path + end)
		if err == nil {
			err = os.WriteFile(path+end, data, 0o600)
		}
		if err != nil {
			return 0, err
		}
	}
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = db.Close() }()
	err = db.QueryRow(d.left).Scan(&n)
	return n, err
}

// command is the process to be killed, or the one behind it.
func (d doomed) command(resumed bool) *exec.Cmd {
	self, err := os.Executable()
	check(err)
	c := exec.Command(self, "kill-child", d.name, d.path, d.journal, strconv.Itoa(d.flight), strconv.FormatBool(d.release), strconv.FormatBool(resumed))
	c.Stderr = os.Stderr
	return c
}
