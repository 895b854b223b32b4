package segno_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/internal/crashpoint"
	"github.com/segnodev/segno/internal/powercut"
	"github.com/segnodev/segno/segnotest"
)

// These tests take the disk, the lock or the file itself away from a running
// scheduler.

type (
	faultState string
	faultData  struct{ Blob string }
	faultSteps = segno.Steps[faultState, faultData]
)

// faultWorkflow is a first state with the given step, then one that does
// nothing, then the end.
func faultWorkflow(first segno.Step[faultState, faultData]) segno.Workflow[faultState, faultData] {
	next := func(s faultState) segno.DoFunc[faultState, faultData] {
		return func(context.Context, *faultData) (faultState, error) { return s, nil }
	}
	if first.Do == nil {
		first.Do = next("second")
	}
	return segno.Workflow[faultState, faultData]{
		Initial: "first",
		Steps:   faultSteps{"first": first, "second": {Do: next("done")}, "done": {Final: true}},
	}
}

// faultStart starts one flow, "f", on the file at path.
func faultStart(ctx context.Context, path string, o segno.Options, w segno.Definition) (*segno.RunningScheduler, error) {
	o.SmallWAL = true
	o.Schema = func(tx segno.Tx) error {
		_, err := tx.Exec("CREATE TABLE IF NOT EXISTS t (x TEXT UNIQUE)")
		return err
	}
	s := segno.New(path, o)
	if err := s.Add(segno.Flow{ID: "f", Workflow: w, Overlap: segno.Allow(0)}); err != nil {
		return nil, err
	}
	return s.Start(ctx)
}

func faultMustStart(t *testing.T, path string, o segno.Options, w segno.Definition) *segno.RunningScheduler {
	t.Helper()
	r, err := faultStart(context.Background(), path, o, w)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func faultTrigger(t *testing.T, r *segno.RunningScheduler) segno.RunID {
	t.Helper()
	id, err := r.Trigger(context.Background(), "f", segno.Trigger{})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func faultComplete(t *testing.T, r *segno.RunningScheduler, id segno.RunID) segno.RunInfo {
	t.Helper()
	ctx, cancel := patient()
	defer cancel()
	info, err := r.WaitRun(ctx, id)
	if err != nil || info.Status != segno.RunCompleted {
		t.Errorf("run %d: got = %s (%v), want completed", id, info.Status, err)
	}
	return info
}

// faultStop stops a scheduler and checks the file.
func faultStop(t *testing.T, r *segno.RunningScheduler, path string) {
	t.Helper()
	if err := r.Stop(context.Background()); err != nil {
		t.Errorf("Stop: got = %v, want nil", err)
	}
	segnotest.Check(t, path)
}

// faultWrite inserts a value into t.
func faultWrite(ctx context.Context, r *segno.RunningScheduler, value string) error {
	return r.Write(ctx, func(tx segno.Tx) error {
		_, err := tx.Exec("INSERT INTO t VALUES (?)", value)
		return err
	})
}

// faultRows returns what is in t.
func faultRows(t *testing.T, db *sql.DB) string {
	t.Helper()
	var all sql.NullString
	if err := db.QueryRow("SELECT group_concat(x) FROM (SELECT x FROM t ORDER BY x)").Scan(&all); err != nil {
		t.Fatal(err)
	}
	return all.String
}

// faultSays checks an error: its identity, and that its text has the given parts.
func faultSays(t *testing.T, what string, err, is error, parts ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("%s: got = %v, want %v", what, err, is)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: got = %q, want it to say %q", what, err, part)
		}
	}
}

// faultCalls is every call that a scheduler whose work is over must answer with
// the reason.
func faultCalls(r *segno.RunningScheduler, run segno.RunID, dir string) map[string]error {
	ctx := context.Background()
	only := func(_ any, err error) error { return err }
	return map[string]error{
		"Trigger":    only(r.Trigger(ctx, "f", segno.Trigger{})),
		"Write":      r.Write(ctx, func(segno.Tx) error { return nil }),
		"CancelRun":  r.CancelRun(ctx, run),
		"CancelFlow": r.CancelFlow(ctx, "f"),
		"PauseFlow":  r.PauseFlow(ctx, "f", segno.Pause{}),
		"ResumeFlow": r.ResumeFlow(ctx, "f"),
		"ResetFlow":  r.ResetFlow(ctx, "f"),
		"ResumeRun":  r.ResumeRun(ctx, run),
		"UndoRun":    r.UndoRun(ctx, run),
		"AckRun":     r.AckRun(ctx, run, ""),
		"Rerun":      only(r.Rerun(ctx, run)),
		"Status":     only(r.Status(ctx, "f")),
		"List":       only(r.List(ctx)),
		"Run":        only(r.Run(ctx, run)),
		"Runs":       only(r.Runs(ctx, segno.RunFilter{})),
		"FindRun":    only(r.FindRun(ctx, "f", "k")),
		"History":    only(r.History(ctx, run)),
		"WaitRun":    only(r.WaitRun(ctx, run)),
		"Backup":     r.Backup(ctx, filepath.Join(dir, "copy.db")),
		"Wait":       r.Wait(),
		"Stop":       r.Stop(ctx),
	}
}

// A faultDisk stands between SQLite and the files of one folder.
type faultDisk struct {
	dir    string
	full   atomic.Bool  // writes find no space
	broken atomic.Bool  // syncs of the WAL fail
	writes atomic.Int64 // to the WAL and to the database
}

// newFaultDisk is one until the end of the test.
func newFaultDisk(t *testing.T) *faultDisk {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := &faultDisk{dir: dir}
	remove, err := powercut.Install(dir, d.call)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	return d
}

func (d *faultDisk) call(op *powercut.Op, do func() int32) int32 {
	switch {
	case op.Kind == powercut.Write && d.full.Load():
		return sqlite3.SQLITE_FULL
	case op.Kind == powercut.Write:
		d.writes.Add(1)
	case op.Kind == powercut.Sync && d.broken.Load() && strings.HasSuffix(op.Name, "-wal"):
		return sqlite3.SQLITE_IOERR_FSYNC
	}
	return do()
}

// faultSpace is a folder whose space can be taken and given back.
type faultSpace struct {
	dir        string
	take, give func()
}

func faultInjectedSpace(t *testing.T) faultSpace {
	d := newFaultDisk(t)
	return faultSpace{d.dir, func() { d.full.Store(true) }, func() { d.full.Store(false) }}
}

// faultSmallDisk mounts a disk of so many bytes, and skips the test, loudly,
// where that is not permitted.
func faultSmallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: mounting a small disk is not permitted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

func faultRealSpace(t *testing.T) faultSpace {
	dir := faultSmallDisk(t, "4m")
	filler := filepath.Join(dir, "filler")
	return faultSpace{dir, func() {
		f, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
	}, func() {
		if err := os.Remove(filler); err != nil {
			t.Error(err)
		}
	}}
}

// A full disk refuses nobody and loses nothing: what hits it waits, and goes on
// by itself when there is space.
func TestAFullDiskIsWaitedOut(t *testing.T) {
	for name, space := range map[string]func(*testing.T) faultSpace{"on a small disk": faultRealSpace, "injected": faultInjectedSpace} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testFullDisk(t, space(t)) })
		})
	}
}

func testFullDisk(t *testing.T, disk faultSpace) {
	ctx := context.Background()
	path := filepath.Join(disk.dir, "a.db")
	entered, leave := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	r := faultMustStart(t, path, segno.Options{}, faultWorkflow(segno.Step[faultState, faultData]{
		Do: func(_ context.Context, d *faultData) (faultState, error) {
			calls.Add(1)
			entered <- struct{}{}
			<-leave
			d.Blob = strings.Repeat("x", 300_000)
			return "second", nil
		},
	}))
	if err := faultWrite(ctx, r, "acknowledged"); err != nil {
		t.Fatal(err)
	}
	id := faultTrigger(t, r)
	<-entered
	if got := r.Health(ctx); got != segno.Healthy {
		t.Errorf("Health before: got = %v, want Healthy", got)
	}
	disk.take()
	close(leave)
	time.Sleep(time.Minute)

	if got := r.Health(ctx); got != segno.Degraded {
		t.Errorf("Health: got = %v, want Degraded", got)
	}
	info, err := r.Run(ctx, id)
	if err != nil || info.Status != segno.RunRunning || info.State != "first" {
		t.Errorf("the run that hit it: got = %s in %s (%v), want it running in first", info.Status, info.State, err)
	}
	if got := faultRows(t, r.DB()); got != "acknowledged" {
		t.Errorf("rows: got = %q, want what was acknowledged", got)
	}
	limited, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	faultSays(t, "a write that gives up", faultWrite(limited, r, "abandoned"), context.DeadlineExceeded, "outcome is unknown")
	patient := make(chan error, 1)
	go func() { patient <- faultWrite(ctx, r, "patient") }()
	time.Sleep(time.Minute)
	select {
	case err := <-patient:
		t.Errorf("a write that waits: got = %v, want it to go on waiting", err)
	default:
	}

	disk.give()
	if info := faultComplete(t, r, id); len(info.Data) < 300_000 {
		t.Errorf("data: got = %d bytes, want all", len(info.Data))
	}
	if err := <-patient; err != nil {
		t.Errorf("a write that waits: got = %v, want nil", err)
	}
	if got := faultRows(t, r.DB()); got != "abandoned,acknowledged,patient" {
		t.Errorf("rows in the end: got = %q, want all three", got)
	}
	if got := r.Health(ctx); got != segno.Healthy {
		t.Errorf("Health in the end: got = %v, want Healthy", got)
	}
	if got := calls.Load(); got != 1 {
		t.Errorf("calls of the step: got = %d, want 1: its commit is repeated, not the step", got)
	}
	faultStop(t, r, path)
}

// Stop does not wait for space for ever; what could not be written is done
// again by the next start.
func TestStopOnAFullDiskEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		disk := faultInjectedSpace(t)
		path := filepath.Join(disk.dir, "a.db")
		leave := make(chan struct{})
		var calls atomic.Int64
		w := faultWorkflow(segno.Step[faultState, faultData]{
			Do: func(context.Context, *faultData) (faultState, error) {
				calls.Add(1)
				<-leave
				return "second", nil
			},
		})
		r := faultMustStart(t, path, segno.Options{}, w)
		id := faultTrigger(t, r)
		synctest.Wait()
		disk.take()
		close(leave)
		time.Sleep(time.Second)
		limited, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		begin := time.Now()
		err := r.Stop(limited)
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("Stop: got = an answer after %v, want one after its context and the grace", took)
		}
		if err == nil || !strings.Contains(err.Error(), "full") {
			t.Errorf("Stop: got = %v, want an error that says the disk is full", err)
		}
		disk.give()
		r = faultMustStart(t, path, segno.Options{}, w)
		faultComplete(t, r, id)
		if got := calls.Load(); got != 2 {
			t.Errorf("calls of the step: got = %d, want 2", got)
		}
		faultStop(t, r, path)
	})
}

// What the log takes ahead at the start is not the last of the space.
func TestASmallDiskIsNotFilledAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		dir := faultSmallDisk(t, "8m")
		path := filepath.Join(dir, "a.db")
		s := segno.New(path, segno.Options{})
		if err := s.Manual("f", faultWorkflow(segno.Step[faultState, faultData]{})); err != nil {
			t.Fatal(err)
		}
		r, err := s.Start(ctx)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // until it has taken what it wants
		if err := os.WriteFile(filepath.Join(dir, "another program's"), make([]byte, 64<<10), 0o600); err != nil {
			t.Errorf("another program on the disk: got = %v, want space for it", err)
		}
		faultComplete(t, r, faultTrigger(t, r))
		if got := r.Health(ctx); got != segno.Healthy {
			t.Errorf("Health: got = %v, want Healthy", got)
		}
		faultStop(t, r, path)
	})
}

// If it is the log that fills the disk, it is used again.
func TestALogThatFillsTheDiskIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		path := filepath.Join(faultSmallDisk(t, "4m"), "a.db")
		w := faultWorkflow(segno.Step[faultState, faultData]{})
		faultStop(t, faultMustStart(t, path, segno.Options{}, w), path) // the database has its size
		r := faultMustStart(t, path, segno.Options{}, w)
		limited, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		if err := faultWrite(limited, r, "row"); err != nil {
			t.Fatal(err)
		}
		const pages = 1200 // of 4 kB, at the least: the disk has 1,024
		for i := range pages {
			err := r.Write(limited, func(tx segno.Tx) error {
				_, err := tx.Exec("UPDATE t SET x = ?", fmt.Sprint(i))
				return err
			})
			if err != nil {
				t.Fatalf("write %d: got = %v, want nil (%v)", i, err, r.Health(ctx))
			}
		}
		if got := faultRows(t, r.DB()); got != fmt.Sprint(pages-1) {
			t.Errorf("rows: got = %s, want %d", got, pages-1)
		}
		faultStop(t, r, path)
	})
}

// An error of the disk at a commit is the end: what is in the file is known
// only when it is opened anew.
func TestErrStoreFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		disk := newFaultDisk(t)
		path := filepath.Join(disk.dir, "a.db")
		var calls atomic.Int64
		var cause error
		w := faultWorkflow(segno.Step[faultState, faultData]{
			Do: func(ctx context.Context, _ *faultData) (faultState, error) {
				if calls.Add(1) > 1 {
					return "second", nil
				}
				<-ctx.Done()
				cause = context.Cause(ctx)
				return "second", nil // success or not: nothing is written any more
			},
		})
		r := faultMustStart(t, path, segno.Options{}, w)
		if err := faultWrite(ctx, r, "acknowledged"); err != nil {
			t.Fatal(err)
		}
		id := faultTrigger(t, r)
		synctest.Wait()
		disk.broken.Store(true)
		errs := make(chan error, 3)
		for i := range cap(errs) {
			go func() { errs <- faultWrite(ctx, r, fmt.Sprint("unknown ", i)) }()
		}
		for range cap(errs) {
			faultSays(t, "the write whose sync failed", <-errs, segno.ErrStoreFailed, "disk I/O error")
		}
		wrote := disk.writes.Load()
		faultSays(t, "a write after it", faultWrite(ctx, r, "late"), segno.ErrStoreFailed)
		synctest.Wait()
		faultSays(t, "the cause of the step's context", cause, segno.ErrStoreFailed)
		faultSays(t, "Wait", r.Wait(), segno.ErrStoreFailed, "disk I/O error")
		for call, err := range faultCalls(r, id, disk.dir) {
			faultSays(t, call, err, segno.ErrStoreFailed, "disk I/O error")
		}
		if r.HasRunningFlows() {
			t.Error("HasRunningFlows: got = true, want false")
		}
		if got := r.Health(ctx); got != segno.Unhealthy {
			t.Errorf("Health: got = %v, want Unhealthy", got)
		}
		if got := disk.writes.Load(); got != wrote {
			t.Errorf("writes after the failure: got = %d, want 0", got-wrote)
		}

		disk.broken.Store(false)
		r = faultMustStart(t, path, segno.Options{}, w)
		faultComplete(t, r, id)
		rows := strings.Split(faultRows(t, r.DB()), ",")
		if !slices.Contains(rows, "acknowledged") || slices.Contains(rows, "late") {
			t.Errorf("rows after opening again: got = %v, want what was acknowledged, and not what was refused", rows)
		}
		if err := faultWrite(ctx, r, "new"); err != nil {
			t.Errorf("a write after opening again: got = %v, want nil", err)
		}
		faultStop(t, r, path)
	})
}

// The same, whether the commit happened or not: the run goes on exactly once.
func TestErrStoreFailedAtATransition(t *testing.T) {
	for _, happens := range []bool{true, false} {
		t.Run(fmt.Sprint("commit happens: ", happens), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				path := filepath.Join(t.TempDir(), "a.db")
				var fail, calls atomic.Int64
				gated := crashpoint.With(ctx, func(commit func() error) error {
					switch fail.Load() {
					case 0:
						return commit()
					case 1:
						fail.Store(2)
						if happens {
							if err := commit(); err != nil {
								return err
							}
						}
					}
					return errors.New("disk I/O error (5)")
				})
				w := faultWorkflow(segno.Step[faultState, faultData]{
					Do: func(ctx context.Context, _ *faultData) (faultState, error) {
						if calls.Add(1) == 1 {
							fail.Store(1)
						}
						return "second", segno.OnCommit(ctx, func(tx segno.Tx) error {
							_, err := tx.Exec("INSERT INTO t VALUES ('joined')")
							return err
						})
					},
				})
				r, err := faultStart(gated, path, segno.Options{}, w)
				if err != nil {
					t.Fatal(err)
				}
				id := faultTrigger(t, r)
				faultSays(t, "Wait", r.Wait(), segno.ErrStoreFailed, "disk I/O error")
				r = faultMustStart(t, path, segno.Options{}, w)
				faultComplete(t, r, id)
				if got := faultRows(t, r.DB()); got != "joined" {
					t.Errorf("rows: got = %q, want joined, once", got)
				}
				if got, want := calls.Load(), map[bool]int64{true: 1, false: 2}[happens]; got != want {
					t.Errorf("calls of the step: got = %d, want %d", got, want)
				}
				faultStop(t, r, path)
			})
		})
	}
}

// A second owner comes because the lock was deleted. The first one's writes
// fail, and it ends within seconds; the second one goes on with all runs.
func TestErrFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		path := filepath.Join(t.TempDir(), "a.db")
		var calls atomic.Int64
		causes := make(chan error, 1)
		w := faultWorkflow(segno.Step[faultState, faultData]{
			Do: func(ctx context.Context, _ *faultData) (faultState, error) {
				if calls.Add(1) == 1 {
					<-ctx.Done()
					causes <- context.Cause(ctx)
				}
				return "second", nil
			},
		})
		first := faultMustStart(t, path, segno.Options{}, w)
		id := faultTrigger(t, first)
		synctest.Wait()
		_, err := faultStart(ctx, path, segno.Options{}, w)
		faultSays(t, "a second owner", err, segno.ErrLocked, path, fmt.Sprint("process ", os.Getpid()), "Options.Standby")
		if err := os.Remove(path + ".lock"); err != nil {
			t.Fatal(err)
		}
		second := faultMustStart(t, path, segno.Options{}, w)
		begin := time.Now()
		err = first.Write(ctx, func(tx segno.Tx) error {
			_, err := tx.Exec("INSERT INTO t VALUES ('of the first'), ('owner')")
			return err
		})
		faultSays(t, "a write of the first", err, segno.ErrFenced)
		if errors.Is(err, segno.ErrStoreFailed) {
			t.Errorf("a write of the first: got = %v, want ErrFenced only: there is nothing wrong with the file", err)
		}
		faultSays(t, "Wait of the first", first.Wait(), segno.ErrFenced)
		faultSays(t, "the cause of its step's context", <-causes, segno.ErrFenced)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the first ended: got = after %v, want at once", took)
		}
		for call, err := range faultCalls(first, id, t.TempDir()) {
			faultSays(t, call, err, segno.ErrFenced)
		}
		faultComplete(t, second, id)
		if err := faultWrite(ctx, second, "second"); err != nil {
			t.Error(err)
		}
		if got := faultRows(t, second.DB()); got != "second" {
			t.Errorf("rows: got = %q, want those of the second owner only", got)
		}
		faultStop(t, second, path)
	})
}

// An owner that writes nothing notices, too, what happened to its files.
func TestErrFencedWhileIdle(t *testing.T) {
	for name, happens := range map[string]func(path string) error{
		"lock deleted": func(path string) error { return os.Remove(path + ".lock") },
		"lock replaced": func(path string) error {
			return errors.Join(os.Remove(path+".lock"), os.WriteFile(path+".lock", nil, 0o600))
		},
		"database deleted":  os.Remove,
		"log deleted":       func(path string) error { return os.Remove(path + "-wal") },
		"database replaced": func(path string) error { return os.Rename(path+".other", path) },
		"epoch raised": func(path string) error {
			db, err := sql.Open("sqlite", "file:"+path)
			if err != nil {
				return err
			}
			_, err = db.Exec("UPDATE _segno_owner SET epoch = epoch + 1")
			return errors.Join(err, db.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "a.db")
				if err := os.WriteFile(path+".other", nil, 0o600); err != nil {
					t.Fatal(err)
				}
				r := faultMustStart(t, path, segno.Options{}, faultWorkflow(segno.Step[faultState, faultData]{}))
				faultComplete(t, r, faultTrigger(t, r))
				time.Sleep(time.Minute)
				if err := happens(path); err != nil {
					t.Fatal(err)
				}
				before, _ := os.ReadFile(path)
				begin := time.Now()
				faultSays(t, "Wait", r.Wait(), segno.ErrFenced)
				if took := time.Since(begin); took > 10*time.Second {
					t.Errorf("noticed: got = after %v, want within 10 s", took)
				}
				faultSays(t, "Write", faultWrite(context.Background(), r, "late"), segno.ErrFenced)
				if after, _ := os.ReadFile(path); name == "database replaced" && string(after) != string(before) {
					t.Errorf("the new file: got = %d bytes, want it untouched", len(after))
				}
			})
		})
	}
}

// A standby takes over in milliseconds, not when some lease has run out.
func TestAStandbyTakesOverInMilliseconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		path := filepath.Join(t.TempDir(), "a.db")
		var calls atomic.Int64
		w := faultWorkflow(segno.Step[faultState, faultData]{
			Do: func(ctx context.Context, _ *faultData) (faultState, error) {
				if calls.Add(1) == 1 {
					return "", segno.Snooze(time.Hour)
				}
				return "second", nil
			},
		})
		first := faultMustStart(t, path, segno.Options{}, w)
		id := faultTrigger(t, first)

		impatient, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		_, err := faultStart(impatient, path, segno.Options{Standby: true}, w)
		faultSays(t, "a standby whose context ends", err, context.DeadlineExceeded)

		type answer struct {
			r   *segno.RunningScheduler
			err error
			at  time.Time
		}
		answers := make(chan answer)
		go func() {
			r, err := faultStart(ctx, path, segno.Options{Standby: true}, w)
			answers <- answer{r, err, time.Now()}
		}()
		time.Sleep(time.Minute)
		select {
		case a := <-answers:
			t.Fatalf("beside the owner: got = %v, want the standby to wait", a.err)
		default:
		}
		if err := first.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		stopped := time.Now()
		second := <-answers
		if second.err != nil {
			t.Fatal(second.err)
		}
		if took := second.at.Sub(stopped); took > 50*time.Millisecond {
			t.Errorf("took over: got = after %v, want within milliseconds", took)
		}
		faultComplete(t, second.r, id)
		faultStop(t, second.r, path)
	})
}

// A function joined to a commit that goes wrong, in whatever way, fails its
// attempt: the step's Retry decides, and no other run notices.
func TestOnCommitThatGoesWrongFailsItsAttempt(t *testing.T) {
	exec := func(tx segno.Tx, query string) error { _, err := tx.Exec(query); return err }
	for name, wrong := range map[string]func(tx segno.Tx) error{
		"error":             func(segno.Tx) error { return errors.New("no") },
		"panic":             func(segno.Tx) error { panic("boom") },
		"Goexit":            func(segno.Tx) error { runtime.Goexit(); return nil },
		"constraint":        func(tx segno.Tx) error { return exec(tx, "INSERT INTO t VALUES ('taken')") },
		"rollback":          func(tx segno.Tx) error { return exec(tx, "INSERT OR ROLLBACK INTO t VALUES ('taken')") },
		"rollback, ignored": func(tx segno.Tx) error { _ = exec(tx, "INSERT OR ROLLBACK INTO t VALUES ('taken')"); return nil },
		"deferred constraint": func(tx segno.Tx) error {
			return exec(tx, "CREATE TABLE child (x REFERENCES t (x) DEFERRABLE INITIALLY DEFERRED); INSERT INTO child VALUES ('no parent')")
		},
		"refused":                 func(tx segno.Tx) error { return exec(tx, "COMMIT") },
		"trigger of an unknown":   func(tx segno.Tx) error { _, err := tx.Trigger("unknown", segno.Trigger{}); return err },
		"trigger that is no JSON": func(tx segno.Tx) error { _, err := tx.Trigger("f", segno.Trigger{Input: make(chan int)}); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "a.db")
				var attempts atomic.Int64
				r := faultMustStart(t, path, segno.Options{}, faultWorkflow(segno.Step[faultState, faultData]{
					Retry: segno.Retry{Attempts: 3, Panics: true},
					Do: func(ctx context.Context, d *faultData) (faultState, error) {
						if d.Blob == "neighbour" {
							return "second", segno.OnCommit(ctx, func(tx segno.Tx) error {
								return exec(tx, fmt.Sprintf("INSERT INTO t VALUES ('neighbour %02d')", segno.InfoFrom(ctx).Run))
							})
						}
						good := attempts.Add(1) == 3
						return "second", errors.Join(
							segno.OnCommit(ctx, func(tx segno.Tx) error { return exec(tx, "INSERT INTO t VALUES ('own')") }),
							segno.OnCommit(ctx, func(tx segno.Tx) error {
								if good {
									return nil
								}
								return wrong(tx)
							}),
							segno.OnCommit(ctx, func(tx segno.Tx) error { return exec(tx, "INSERT INTO t VALUES ('behind')") }),
						)
					},
				}))
				if err := faultWrite(context.Background(), r, "taken"); err != nil {
					t.Fatal(err)
				}
				var ids []segno.RunID
				for i := range 9 {
					input := faultData{Blob: "neighbour"}
					if i == 4 {
						input.Blob = ""
					}
					id, err := r.Trigger(context.Background(), "f", segno.Trigger{Input: input})
					if err != nil {
						t.Fatal(err)
					}
					ids = append(ids, id)
				}
				for _, id := range ids {
					faultComplete(t, r, id)
				}
				if got := attempts.Load(); got != 3 {
					t.Errorf("attempts: got = %d, want 3", got)
				}
				want := "behind,"
				for _, id := range append(ids[:4:4], ids[5:]...) {
					want += fmt.Sprintf("neighbour %02d,", id)
				}
				if got := faultRows(t, r.DB()); got != want+"own,taken" {
					t.Errorf("rows: got = %s, want %sown,taken", got, want)
				}
				faultStop(t, r, path)
			})
		})
	}
}

// A claim that is rolled back for a neighbour's sake, and made again, takes one
// place.
func TestAClaimThatIsRepeatedTakesOnePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a.db")
		r := faultMustStart(t, path, segno.Options{MaxConcurrent: 1}, faultWorkflow(segno.Step[faultState, faultData]{
			Do: segno.Sleep[faultData](time.Hour, faultState("second")),
		}))
		if err := faultWrite(context.Background(), r, "taken"); err != nil {
			t.Fatal(err)
		}
		id := faultTrigger(t, r)
		time.Sleep(time.Hour - time.Second)

		entered, leave, answers := make(chan struct{}), make(chan struct{}), make(chan error, 2)
		write := func(fn func(segno.Tx) error) { answers <- r.Write(context.Background(), fn) }
		go write(func(segno.Tx) error { close(entered); <-leave; return nil })
		<-entered
		time.Sleep(time.Minute) // the claim is queued, and behind it what ends its transaction
		go write(func(tx segno.Tx) error { _, err := tx.Exec("INSERT OR ROLLBACK INTO t VALUES ('taken')"); return err })
		synctest.Wait()
		close(leave)
		if err := <-answers; err != nil {
			t.Errorf("the write in front: got = %v, want nil", err)
		}
		faultSays(t, "the write behind", <-answers, segno.ErrTx)
		faultComplete(t, r, id)
		faultStop(t, r, path)
	})
}

// faultLog keeps the attributes of what is logged.
type faultLog struct {
	slog.Handler
	mu      sync.Mutex
	records []map[string]any
}

func (l *faultLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *faultLog) Handle(_ context.Context, r slog.Record) error {
	attrs := map[string]any{"msg": r.Message, "level": r.Level}
	r.Attrs(func(a slog.Attr) bool { attrs[a.Key] = a.Value.Any(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, attrs)
	return nil
}

// with returns the records whose message has the given part.
func (l *faultLog) with(part string) (found []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		if strings.Contains(r["msg"].(string), part) {
			found = append(found, maps.Clone(r))
		}
	}
	return found
}

// Every run waits for a function inside a commit, so a slow one is named.
func TestASlowOnCommitIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := &faultLog{}
		path := filepath.Join(t.TempDir(), "a.db")
		took := 50 * time.Millisecond
		r := faultMustStart(t, path, segno.Options{Logger: slog.New(logged)}, faultWorkflow(segno.Step[faultState, faultData]{
			Do: func(ctx context.Context, _ *faultData) (faultState, error) {
				return "second", segno.OnCommit(ctx, func(segno.Tx) error { time.Sleep(took); return nil })
			},
		}))
		faultComplete(t, r, faultTrigger(t, r))
		if got := logged.with("slow"); len(got) != 0 {
			t.Errorf("after %v: got = %v, want nothing logged", took, got)
		}
		took += time.Millisecond
		id := faultTrigger(t, r)
		faultComplete(t, r, id)
		got := logged.with("slow")
		if len(got) != 1 {
			t.Fatalf("after %v: got = %d records, want 1", took, len(got))
		}
		for key, want := range map[string]any{"level": slog.LevelWarn, "flow": "f", "run": int64(id), "state": "first", "took": took} {
			if got[0][key] != want {
				t.Errorf("%s: got = %v, want %v", key, got[0][key], want)
			}
		}
		if err := r.Write(context.Background(), func(segno.Tx) error { time.Sleep(took); return nil }); err != nil {
			t.Fatal(err)
		}
		if got := logged.with("slow"); len(got) != 2 || got[1]["of"] != "Write" {
			t.Errorf("a slow Write: got = %v, want it logged as Write", got)
		}
		faultStop(t, r, path)
	})
}

// A copy made while runs are in flight is a database like any other: its runs
// go on where they were.
func TestABackupGoesOnWhereItWasMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		dir := t.TempDir()
		path, target := filepath.Join(dir, "a.db"), filepath.Join(dir, "copy.db")
		leave := make(chan struct{})
		w := faultWorkflow(segno.Step[faultState, faultData]{
			Do: func(context.Context, *faultData) (faultState, error) { <-leave; return "second", nil },
		})
		r := faultMustStart(t, path, segno.Options{}, w)
		id := faultTrigger(t, r)
		synctest.Wait()
		if err := faultWrite(ctx, r, "before"); err != nil {
			t.Fatal(err)
		}
		if err := r.Backup(ctx, target); err != nil {
			t.Fatal(err)
		}
		faultSays(t, "a second Backup", r.Backup(ctx, target), os.ErrExist, target, "name of a new file")
		if err := faultWrite(ctx, r, "behind"); err != nil {
			t.Fatal(err)
		}
		close(leave)
		faultComplete(t, r, id)
		copied := faultMustStart(t, target, segno.Options{}, w)
		faultComplete(t, copied, id)
		if got := faultRows(t, copied.DB()); got != "before" {
			t.Errorf("rows of the copy: got = %q, want before", got)
		}
		faultStop(t, copied, target)
		faultStop(t, r, path)
		faultSays(t, "Backup after Stop", r.Backup(ctx, filepath.Join(dir, "late.db")), segno.ErrStopped)
	})
}

// After Stop the one file is everything: a plain copy of it can be started.
func TestStopLeavesOneFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "a.db")
		var calls atomic.Int64
		w := faultWorkflow(segno.Step[faultState, faultData]{
			Do: func(ctx context.Context, _ *faultData) (faultState, error) {
				if calls.Add(1) == 1 {
					<-ctx.Done() // until Stop has no more patience
					return "", ctx.Err()
				}
				return "second", nil
			},
		})
		r := faultMustStart(t, path, segno.Options{}, w)
		id := faultTrigger(t, r)
		synctest.Wait()
		limited, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := r.Stop(limited); err != nil {
			t.Errorf("Stop: got = %v, want nil", err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if want := []string{path, path + ".lock"}; err != nil || !slices.Equal(files, want) {
			t.Errorf("files: got = %v, want %v", files, want)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(t.TempDir(), "b.db")
		if err := os.WriteFile(copied, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r = faultMustStart(t, copied, segno.Options{}, w)
		if info := faultComplete(t, r, id); info.Crashes != 0 {
			t.Errorf("crashes: got = %d, want 0 after a Stop", info.Crashes)
		}
		faultStop(t, r, copied)
	})
}
