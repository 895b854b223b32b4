package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/segnodev/segno"
)

// crowd is a file with very many runs: some over, some asleep, some that were
// executing when the process died. One run of each kind is made by segno, and
// multiplied by SQL, since a million of them take their time.
type crowd struct {
	finished, parked, held int
	wake                   time.Time     // when the parked runs wake; zero: late
	age                    time.Duration // how long ago all of them began
}

// sleeper is the workflow of all of them.
func sleeper(hold chan struct{}, did func()) segno.Workflow[state, order] {
	return segno.Workflow[state, order]{
		Initial: "fork",
		Steps: segno.Steps[state, order]{
			"fork":  {Do: func(_ context.Context, o *order) (state, error) { return state(o.Hold), nil }},
			"sleep": {Do: segno.Sleep[order](10_000*time.Hour, state("work"))},
			"work": {Do: func(ctx context.Context, o *order) (state, error) {
				if o.ID == "held" && hold != nil {
					<-hold
				}
				did()
				return "done", nil
			}},
			"done": {Final: true},
		},
	}
}

// make writes the file, and returns its size.
func (c crowd) make(path string) (int64, error) {
	hold := make(chan struct{})
	s := segno.New(path+".model", segno.Options{SmallWAL: true})
	if err := s.Add(segno.Flow{ID: "crowd", Workflow: sleeper(hold, func() {}), Overlap: segno.Allow(0)}); err != nil {
		return 0, err
	}
	ctx := context.Background()
	r, err := s.Start(ctx)
	if err != nil {
		return 0, err
	}
	for _, o := range []order{{ID: "over", Hold: "work"}, {ID: "asleep", Hold: "sleep"}, {ID: "held", Hold: "work"}} {
		if _, err := r.Trigger(ctx, "crowd", segno.Trigger{Input: o}); err != nil {
			return 0, err
		}
	}
	for want := []segno.RunStatus{segno.RunRunning, segno.RunParked, segno.RunCompleted}; ; time.Sleep(time.Millisecond) {
		runs, err := r.Runs(ctx, segno.RunFilter{})
		if err != nil {
			return 0, err
		}
		if runs[0].Status == want[0] && runs[0].State == "work" && runs[1].Status == want[1] && runs[2].Status == want[2] {
			break
		}
	}
	if err := r.Backup(ctx, path); err != nil {
		return 0, err
	}
	close(hold)
	if err := r.Stop(ctx); err != nil {
		return 0, err
	}
	return c.multiply(path)
}

// multiply makes the three runs of the file many.
func (c crowd) multiply(path string) (int64, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=synchronous(OFF)&_pragma=journal_mode(OFF)&_pragma=cache_size(-262144)")
	if err != nil {
		return 0, err
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	tx, err := db.Begin()
	if err != nil {
		return 0, err
	}
	m := &multiplier{tx: tx, run: 4, entry: 100, wake: c.wake}
	for run, n := range []int{c.finished, c.parked, c.held} {
		if err := m.copies(int64(run+1), int64(n)); err != nil {
			return 0, err
		}
	}
	const older = "UPDATE _segno_run SET created = created - ?1, started = started - ?1, ended = ended - ?1 WHERE ?1 > 0"
	if _, err = tx.Exec(older, c.age.Microseconds()); err != nil {
		return 0, err
	}
	_, err = tx.Exec("UPDATE _segno_flow SET runs = ?, active = ?", 3+c.finished+c.parked+c.held, 2+c.parked+c.held)
	if err != nil {
		return 0, err
	}
	if err := tx.Commit(); err != nil {
		return 0, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// multiplier copies runs with their entries and memos, under new numbers.
type multiplier struct {
	tx         *sql.Tx
	run, entry int64 // the next numbers
	wake       time.Time
}

// copies makes n copies of a run.
func (m *multiplier) copies(run, n int64) error {
	var entries int64
	if err := m.tx.QueryRow("SELECT count(*) FROM _segno_journal WHERE run = ?", run).Scan(&entries); err != nil {
		return err
	}
	head := map[string]string{"run": "?1 + i", "nonce": "'copy' || (?1 + i)", "first": "?2 + i * ?3", "last": "?2 + (i + 1) * ?3 - 1"}
	if !m.wake.IsZero() {
		head["wake"] = fmt.Sprintf("iif(m.status = 'parked', %d, m.wake)", m.wake.UnixMicro())
		head["due"] = fmt.Sprintf("iif(m.status = 'parked', %d, m.due)", m.wake.UnixMicro())
	}
	entry := map[string]string{"run": "?1 + i", "id": "?2 + i * ?3 + m.rowid - 1", "prev": "iif(m.rowid > 1, ?2 + i * ?3 + m.rowid - 2, NULL)"}
	for _, t := range []struct {
		name string
		with map[string]string // what is different in the ith copy, by column
	}{{"_segno_run", head}, {"_segno_journal", entry}, {"_segno_memo", map[string]string{"run": "?1 + i"}}} {
		if err := m.rows(t.name, t.with, run, []any{m.run, m.entry, entries, n}); err != nil {
			return err
		}
	}
	m.run, m.entry = m.run+n, m.entry+n*entries
	return nil
}

// rows copies the rows of a run in one table.
func (m *multiplier) rows(table string, with map[string]string, run int64, args []any) error {
	if _, err := m.tx.Exec("CREATE TEMP TABLE model AS SELECT * FROM "+table+" WHERE run = ? ORDER BY 1", run); err != nil {
		return err
	}
	var columns string
	if err := m.tx.QueryRow("SELECT group_concat(name) FROM pragma_table_info(?)", table).Scan(&columns); err != nil {
		return err
	}
	values := strings.Split(columns, ",")
	for i, c := range values {
		if values[i] = "m." + c; with[c] != "" {
			values[i] = with[c]
		}
	}
	_, err := m.tx.Exec("INSERT INTO main."+table+" ("+columns+`)
WITH RECURSIVE n (i) AS (SELECT 0 WHERE ?4 > 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?4)
SELECT `+strings.Join(values, ", ")+" FROM n CROSS JOIN model m WHERE ?1 + ?2 + ?3 > 0", args...)
	if err == nil {
		_, err = m.tx.Exec("DROP TABLE model")
	}
	return err
}

// restart measures what Start takes on a file with a long past, and how soon
// what was interrupted goes on.
func restart(args []string) error {
	flags := flag.NewFlagSet("restart", flag.ExitOnError)
	c := crowd{}
	flags.IntVar(&c.finished, "finished", 1_000_000, "runs that are over")
	flags.IntVar(&c.parked, "parked", 10_000, "runs that wait")
	flags.IntVar(&c.held, "interrupted", 1000, "runs that were executing")
	dir := flags.String("dir", "", "where the database goes; a temporary folder by default")
	profile := flags.String("cpuprofile", "", "write a CPU profile of it")
	_ = flags.Parse(args) // exits
	path, done, err := begin(*dir, "")
	if err != nil {
		return err
	}
	defer done()
	size, err := c.make(path)
	if err != nil {
		return err
	}
	fmt.Printf("%d runs over, %d parked, %d interrupted: %d MB\n", c.finished, c.parked, c.held, size>>20)
	return again("restart-child", path, *profile, strconv.Itoa(c.held))
}

// again runs another command of this program in a process of its own, which has
// nothing in memory of what it took to make the file.
func again(args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.Command(self, args...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c.Run()
}

// restartChild is the process that starts: see restart.
func restartChild(args []string) error {
	path, profile := args[0], args[1]
	held, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	stop, err := profiling(profile)
	if err != nil {
		return err
	}
	defer stop()
	var n atomic.Int64
	began, all, first := time.Now(), make(chan struct{}), time.Duration(0)
	r, err := resume(path, &began, func() {
		switch n.Add(1) {
		case 1:
			first = time.Since(began)
		case held + 1: // with the model's own
			close(all)
		}
	})
	if err != nil {
		return err
	}
	started := time.Since(began)
	<-all
	fmt.Printf("Start returns after %v; first resumed step after %v, the last of them after %v\n",
		started.Round(100*time.Microsecond), first.Round(100*time.Microsecond), time.Since(began).Round(time.Millisecond))
	return r.Stop(context.Background())
}

// warm reads the pages of a file, and writes them to the disk.
func warm(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return errors.Join(err, f.Sync(), f.Close())
}

// resume starts a scheduler on the file of a crowd, warm.
func resume(path string, began *time.Time, did func()) (*segno.RunningScheduler, error) {
	s := segno.New(path, segno.Options{})
	if err := s.Add(segno.Flow{ID: "crowd", Workflow: sleeper(nil, did), Overlap: segno.Allow(0)}); err != nil {
		return nil, err
	}
	if err := warm(path); err != nil {
		return nil, err
	}
	*began = time.Now()
	return s.Start(context.Background())
}

// parked measures very many runs that wait: what they take while they do, and
// how long it takes when many of them are due at once.
func parked(args []string) error {
	flags := flag.NewFlagSet("parked", flag.ExitOnError)
	runs := flags.Int("runs", 1_000_000, "runs that wait")
	atOnce := flags.Int("at-once", 100_000, "of them, due at the same time")
	in := flags.Duration("in", 25*time.Second, "when they are due")
	dir := flags.String("dir", "", "where the database goes; a temporary folder by default")
	profile := flags.String("cpuprofile", "", "write a CPU profile of it")
	_ = flags.Parse(args) // exits
	path, done, err := begin(*dir, "")
	if err != nil {
		return err
	}
	defer done()
	due := time.Now().Add(10_000 * time.Hour)
	c := crowd{parked: *runs, wake: due}
	size, err := c.make(path)
	if err != nil {
		return err
	}
	at := time.Now().Add(*in)
	if err := wakeAll(path, *atOnce, at); err != nil {
		return err
	}
	fmt.Printf("%d runs parked: %d MB\n", *runs, size>>20)
	return again("parked-child", path, *profile, strconv.Itoa(*atOnce), at.Format(time.RFC3339Nano))
}

// wakeAll lets the first of the runs be due at an instant.
func wakeAll(path string, n int, due time.Time) error {
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	_, err = db.Exec("UPDATE _segno_run SET wake = ?1, due = ?1 WHERE run IN (SELECT run FROM _segno_run WHERE status = 'parked' ORDER BY run DESC LIMIT ?2)", due.UnixMicro(), n)
	return err
}

// parkedChild is the process that is measured: see parked.
func parkedChild(args []string) error {
	atOnce, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	due, err := time.Parse(time.RFC3339Nano, args[3])
	if err != nil {
		return err
	}
	return watch(args[0], args[1], atOnce, due)
}

// watch starts the scheduler, looks at it while nothing is due, and then at what is.
func watch(path, profile string, atOnce int64, due time.Time) error {
	var n atomic.Int64
	var began time.Time
	all := make(chan struct{})
	r, err := resume(path, &began, func() {
		if n.Add(1) == atOnce+1 { // with the model's interrupted one
			close(all)
		}
	})
	if err != nil {
		return err
	}
	started, first := time.Since(began), cpuTime()
	time.Sleep(5 * time.Second)
	cpu, from := cpuTime(), time.Now()
	first = cpu - first
	time.Sleep(time.Until(due.Add(-3 * time.Second)))
	cpu = cpuTime() - cpu
	fmt.Printf("Start returns after %v; CPU of the 5 s behind it %v, then idle CPU %.2f %% of a core; resident %d MB, heap %d MB\n",
		started.Round(100*time.Microsecond), first.Round(time.Millisecond), 100*cpu.Seconds()/time.Since(from).Seconds(), resident()>>20, heap()>>20)
	stop, err := profiling(profile)
	if err != nil {
		return err
	}
	cpu = cpuTime()
	<-all
	cpu = cpuTime() - cpu
	fmt.Printf("%d due at once: all done %v later; %d microseconds of CPU each; resident %d MB\n", atOnce, time.Since(due).Round(time.Millisecond),
		cpu.Microseconds()/atOnce, resident()>>20)
	stop()
	return r.Stop(context.Background())
}

// resident returns the bytes of memory that the process has, where the system says so.
func resident() int64 {
	var pages int64
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	_, _ = fmt.Sscan(string(text), new(int64), &pages)
	return pages * int64(os.Getpagesize())
}
