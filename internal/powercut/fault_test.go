package powercut_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/internal/powercut"
	"github.com/segnodev/segno/segnotest"
)

// A fault is what goes wrong with the disk.
type fault struct {
	kind  powercut.Kind // of the calls that fail
	code  int32
	at    int           // the first of them, counted from 1; 0: none
	lasts time.Duration // all calls for so long; 0: that one only

	mu    sync.Mutex // guards what follows
	calls int
	until time.Time
	hit   string // the file, if it came to it
	quiet bool   // the test itself looks at the file
	alive bool   // the scheduler has started, and is not stopping
	dirty bool   // something was written to the WAL, and not synced
	fatal bool   // what it hit was a commit
}

// hook makes calls fail, or lets them be recorded.
func (f *fault) hook(rec *powercut.Recorder) powercut.Hook {
	return func(op *powercut.Op, do func() int32) int32 {
		if f.fails(op) {
			if op.Kind == powercut.Sync {
				rec.Forget(op.Name)
			}
			return f.code
		}
		return rec.Record(op, do)
	}
}

func (f *fault) fails(op *powercut.Op) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	log := strings.HasSuffix(op.Name, "-wal")
	if f.dirty = f.dirty || log && op.Kind == powercut.Write; op.Kind != f.kind || f.quiet {
		f.dirty = f.dirty && !(log && op.Kind == powercut.Sync)
		return false
	}
	if f.calls++; f.calls == f.at {
		f.hit, f.until, f.fatal = op.Name, time.Now().Add(f.lasts), log && f.dirty && f.alive
		return true
	}
	f.dirty = f.dirty && !(log && op.Kind == powercut.Sync)
	return time.Now().Before(f.until)
}

// live says whether the scheduler lives.
func (f *fault) live(is bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alive = is
}

// silence keeps the fault from the test's own calls.
func (f *fault) silence(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quiet = on
}

// A trial is one errand on a disk with a fault.
type trial struct {
	*errand
	fault *fault
	rec   *powercut.Recorder

	refused error // Start's first answer, if it was an error
	failed  error // why the first life ended early
	outcome string
	kept    bool // behind a failure only what was synced is there
}

// try goes on an errand, and if the fault ends it, starts again and goes on with
// it.
func try(t *testing.T, f *fault, kept bool) (*trial, error) {
	t.Helper()
	v := &trial{fault: f, kept: kept}
	var err error
	synctest.Test(t, func(t *testing.T) {
		v.rec = &powercut.Recorder{Dir: folder(t)}
		remove, errInstall := powercut.Install(v.rec.Dir, f.hook(v.rec))
		if errInstall != nil {
			t.Fatal(errInstall)
		}
		defer remove()
		v.errand = newErrand(filepath.Join(v.rec.Dir, "a.db"), func(c claim) {
			c.at = time.Now()
			v.rec.Acknowledge(c)
		})
		err = v.live()
		f.silence(true)
		if err == nil {
			v.outcome, err = v.errand.outcome()
		}
		segnotest.Check(t, v.path)
	})
	return v, err
}

// live is the errand's lives.
func (v *trial) live() error {
	r, err := v.start()
	if err == nil {
		v.fault.live(true)
		v.failed = v.errand.run(r)
		v.fault.live(false)
		v.failed = errors.Join(v.failed, stopped(r))
		if v.failed == nil {
			return v.bears(v.path)
		}
	}
	v.refused = err
	if err := v.powerOff(); err != nil {
		return err
	}
	time.Sleep(11 * time.Second) // the fault is over
	if r, err = v.start(); err != nil {
		return fmt.Errorf("the next Start: %w", err)
	}
	if err := errors.Join(v.errand.run(r), stopped(r)); err != nil {
		return fmt.Errorf("the next life: %w", err)
	}
	return v.bears(v.path)
}

func stopped(r *segno.RunningScheduler) error { return r.Stop(context.Background()) }

// powerOff leaves of the folder only what was synced, if that is asked for, and
// looks whether what was promised is there.
func (v *trial) powerOff() error {
	replay := powercut.NewReplay(v.rec.Ops())
	replay.To(len(v.rec.Ops()))
	if v.kept {
		for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
			_ = os.Remove(v.path + suffix)
		}
		for name, b := range replay.Synced() {
			if err := os.WriteFile(filepath.Join(v.rec.Dir, name), b, 0o600); err != nil {
				return err
			}
		}
	}
	if len(replay.Claims()) == 0 {
		return nil // it may not be a file of SQLite's yet
	}
	return v.bears(v.path)
}

// bears says what of the promises the file does not bear out.
func (v *trial) bears(path string) error {
	v.fault.silence(true)
	defer v.fault.silence(false)
	replay := powercut.NewReplay(v.rec.Ops())
	replay.To(len(v.rec.Ops()))
	got, err := read(path)
	if err != nil {
		return err
	}
	if torn := got.torn(); len(torn) > 0 {
		return errors.New(strings.Join(torn, "; "))
	}
	if lost := got.lost(replay.Claims()); len(lost) > 0 {
		return fmt.Errorf("lost %v", lost)
	}
	return nil
}

// sweep tries a fault at its first call, its second, and so on to the last, or
// at every so manyth of them.
func sweep(t *testing.T, at func(k int) *fault, stride int, judge func(v, base *trial) error) {
	t.Helper()
	base, err := try(t, at(0), false)
	if err = errors.Join(err, base.failed, base.refused); err != nil {
		t.Fatalf("without a fault: %v", err)
	}
	tried, broken, refused, failed := 0, 0, 0, 0 // the last two are how it went
	for k := 1; broken < 3; k += stride {
		f := at(k)
		v, err := try(t, f, tried%2 == 1)
		if f.hit == "" {
			break // behind the last one
		}
		tried++
		if v.refused != nil {
			refused++
		} else if v.failed != nil {
			failed++
		}
		if err == nil {
			err = judge(v, base)
		}
		if err == nil && v.outcome != base.outcome {
			err = fmt.Errorf("outcome:\n got = %s\nwant = %s", v.outcome, base.outcome)
		}
		if err != nil {
			t.Errorf("%s %d, to %s: %v", f.kind, k, f.hit, err)
			broken++
		}
	}
	t.Logf("%d of about %d tried: Start refused %d times, and failed later %d times", tried, base.fault.calls, refused, failed)
}

// variant skips what differs little from its neighbours in a short test.
func variant(t *testing.T, is bool) {
	t.Helper()
	if testing.Short() && is {
		t.Skip("a variant, for a longer test")
	}
}

// says checks that an error is ErrStoreFailed, and tells what is wrong.
func says(what string, err error, part string) error {
	if !errors.Is(err, segno.ErrStoreFailed) || !strings.Contains(err.Error(), part) {
		return fmt.Errorf("%s: got = %w, want ErrStoreFailed that says %q", what, err, part)
	}
	return nil
}

// stride is how far apart the places of a sweep are.
func stride(usual, long int) int {
	switch {
	case os.Getenv("SEGNO_LONG") != "":
		return long
	case testing.Short():
		return 8 * usual
	}
	return usual
}

// Whichever write finds the disk full: nobody is told of it, nothing is done
// twice, and when there is space again all ends as if there had always been.
func TestSweepFullDisk(t *testing.T) {
	for name, tt := range map[string]struct {
		lasts time.Duration
		long  int
	}{"once": {0, 3}, "for a while": {10 * time.Second, 1}} {
		t.Run(name, func(t *testing.T) {
			variant(t, tt.lasts == 0)
			full := func(k int) *fault {
				return &fault{kind: powercut.Write, code: sqlite3.SQLITE_FULL, lasts: tt.lasts, at: k}
			}
			sweep(t, full, stride(41, tt.long), func(v, base *trial) error {
				if v.refused != nil {
					return says("Start", v.refused, "full")
				}
				if v.failed != nil {
					return fmt.Errorf("got = %v, want no error", v.failed)
				}
				if got, want := v.began.Load(), base.began.Load(); got != want {
					return fmt.Errorf("bodies of steps: got = %d, want %d", got, want)
				}
				return nil
			})
		})
	}
}

// Whichever write or sync fails: if it could be the end of a promise, the
// scheduler ends and says so to everybody; the next one finds all that was
// promised, also if nothing is left of what was not synced, and goes on.
func TestSweepFailingDisk(t *testing.T) {
	for name, tt := range map[string]struct {
		kind  powercut.Kind
		code  int32
		lasts time.Duration
		usual int
		long  int
	}{
		"write":              {powercut.Write, sqlite3.SQLITE_IOERR_WRITE, 0, 41, 1},
		"writes for a while": {powercut.Write, sqlite3.SQLITE_IOERR_WRITE, 10 * time.Second, 41, 3},
		"sync":               {powercut.Sync, sqlite3.SQLITE_IOERR_FSYNC, 0, 5, 1},
		"syncs for a while":  {powercut.Sync, sqlite3.SQLITE_IOERR_FSYNC, 10 * time.Second, 5, 1},
	} {
		t.Run(name, func(t *testing.T) {
			variant(t, tt.lasts > 0)
			broken := func(k int) *fault { return &fault{kind: tt.kind, code: tt.code, lasts: tt.lasts, at: k} }
			sweep(t, broken, stride(tt.usual, tt.long), func(v, _ *trial) error {
				switch {
				case v.refused != nil:
					return says("Start", v.refused, "disk I/O error")
				case v.failed != nil:
					return says("a call", v.failed, "disk I/O error")
				case v.fault.fatal:
					return errors.New("got no error at a commit, want ErrStoreFailed")
				default: // a copy of the WAL into the database failed; it is made again
					c := cutter{t: t, rec: &recording{ops: v.rec.Ops()}, seed: uint64(v.fault.at)}
					if w := c.cut(6); w.corrupt+w.torn+w.lost > 0 {
						return fmt.Errorf("going on: %v\n%s", w, strings.Join(w.faults, "\n"))
					}
				}
				return nil
			})
		})
	}
}

// Whichever read fails: whoever needed it is told, or the scheduler ends, and
// nothing else comes of it.
func TestSweepFailingRead(t *testing.T) {
	for name, lasts := range map[string]time.Duration{"once": 0, "for a while": 10 * time.Second} {
		t.Run(name, func(t *testing.T) {
			variant(t, lasts > 0)
			broken := func(k int) *fault {
				return &fault{kind: powercut.Read, code: sqlite3.SQLITE_IOERR_READ, lasts: lasts, at: k}
			}
			sweep(t, broken, stride(29, 1), func(v, _ *trial) error {
				if v.refused != nil {
					return says("Start", v.refused, "disk I/O error")
				}
				if err := v.failed; err != nil && !strings.Contains(err.Error(), "disk I/O error") {
					return fmt.Errorf("got = %v, want it to say what is wrong", err)
				}
				return nil
			})
		})
	}
}
