package store

import (
	"context"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segnodev/segno/engine"
)

// What is kept in the file, and comes out of it again: copies, ids, memos.

func TestBackupBesideWriting(t *testing.T) {
	s := fresh(t)
	must(t, s, "CREATE TABLE t (x INTEGER PRIMARY KEY, y)")
	h := addRun(t, s, "f")
	var acked atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := s.write(func(tx *Tx) error {
					_, err := tx.Exec("INSERT INTO t (y) VALUES (zeroblob(2000))")
					return err
				}); err != nil {
					t.Error(err)
					return
				}
				acked.Add(1)
			}
		})
	}
	for acked.Load() < 20 {
		time.Sleep(time.Millisecond)
	}
	target := filepath.Join(t.TempDir(), "copy.db")
	before := acked.Load()
	if err := s.Backup(ctx, target); err != nil {
		t.Fatal(err)
	}
	close(stop)
	wg.Wait()
	files, err := os.ReadDir(filepath.Dir(target))
	if err != nil || len(files) != 1 {
		t.Errorf("files beside the copy: got = %v (%v), want only the copy", files, err)
	}
	if st, err := os.Stat(target); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode of the copy: got = %v (%v), want 0600", st.Mode().Perm(), err)
	}
	c := open(t, target)
	rows, err := strconv.ParseInt(one(t, c.DB(), "SELECT count(*) FROM t"), 10, 64)
	if err != nil || rows < before || rows > acked.Load() {
		t.Errorf("rows in the copy: got = %d (%v), want from %d to %d", rows, err, before, acked.Load())
	}
	if c.Adopted {
		t.Error("the copy: got = an adopted file, want one of ours")
	}
	if err := c.Commit(ctx, transition(h, "b")); err != nil {
		t.Errorf("going on with a run in the copy: got = %v, want nil", err)
	}
}

func TestBackupRefusesWhatIsThere(t *testing.T) {
	s := fresh(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "precious")
	if err := os.WriteFile(file, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{file, dir, s.path} {
		says(t, s.Backup(ctx, target), fs.ErrExist, "name of a new file")
	}
	if b, err := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file: got = %q (%v), want it untouched", b, err)
	}
}

func TestBackupThatFailsLeavesNothing(t *testing.T) {
	s := fresh(t)
	dir := t.TempDir()
	missing := filepath.Join(dir, "no such folder", "copy.db")
	if err := s.Backup(ctx, missing); err == nil {
		t.Error("into a missing folder: got = nil, want an error")
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	says(t, s.Backup(gone, filepath.Join(dir, "copy.db")), context.Canceled)
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("left behind: got = %v, want nothing", files)
	}
	addRun(t, s, "f") // and all goes on
}

// After Close the one file is everything.
func TestCloseLeavesOneFile(t *testing.T) {
	for _, small := range []bool{true, false} {
		t.Run(fmt.Sprint("small WAL: ", small), func(t *testing.T) {
			s := fresh(t, func(c *Config) { c.SmallWAL = small })
			must(t, s, "CREATE TABLE t (x)")
			for i := range 100 {
				if err := insert(s, "t", fmt.Sprint(i))(); err != nil {
					t.Fatal(err)
				}
			}
			h := addRun(t, s, "f")
			// Readers of all kinds have statements, and have been busy.
			if _, err := s.History(ctx, h.Run); err != nil {
				t.Fatal(err)
			}
			stmt, err := s.DB().Prepare("SELECT count(*) FROM t")
			if err != nil {
				t.Fatal(err)
			}
			defer stmt.Close()
			if err := stmt.QueryRow().Scan(new(int)); err != nil {
				t.Fatal(err)
			}
			shut(t, s)
			for _, suffix := range []string{"-wal", "-shm", "-journal"} {
				if _, err := os.Stat(s.path + suffix); err == nil {
					t.Errorf("%s was left behind", suffix)
				}
			}
			b, err := os.ReadFile(s.path)
			if err != nil {
				t.Fatal(err)
			}
			copied := filepath.Join(t.TempDir(), "copy.db")
			if err := os.WriteFile(copied, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := ask(t, copied, "SELECT count(*) FROM t"); got != "100" {
				t.Errorf("rows in a plain copy: got = %s, want 100", got)
			}
		})
	}
}

// The WAL is made large while there is nothing to do, and that harms neither
// what is in it nor what is written meanwhile.
func TestWALIsGrownAhead(t *testing.T) {
	s := fresh(t, func(c *Config) { c.SmallWAL = false })
	must(t, s, "CREATE TABLE t (x)")
	rows := 0
	for { // the writer grows it in its idle moments
		st, err := os.Stat(s.path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() >= growTo {
			break
		}
		must(t, s, "INSERT INTO t VALUES ('meanwhile')")
		rows++
	}
	must(t, s, "INSERT INTO t VALUES ('afterwards')")
	if got, want := one(t, s.DB(), "SELECT count(*) FROM t"), fmt.Sprint(rows+1); got != want {
		t.Errorf("rows: got = %s, want %s", got, want)
	}
	// A copy of file and WAL as they are now is what a kill would leave.
	dir := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(s.path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "a.db"+suffix), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	after := open(t, filepath.Join(dir, "a.db"))
	if got, want := one(t, after.DB(), "SELECT count(*) FROM t"), fmt.Sprint(rows+1); got != want {
		t.Errorf("rows after a kill: got = %s, want %s", got, want)
	}
}

// Ids are never handed out twice, even if the rows that had the highest are
// deleted while nobody looks.
func TestIDsAreNotUsedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	var run, entry int64
	for range 3 {
		s := open(t, path)
		var h engine.Head
		for range 3 {
			h = addRun(t, s, "f")
			if h.Run <= run || h.Last <= entry {
				t.Errorf("got = run %d and entry %d, want them beyond %d and %d", h.Run, h.Last, run, entry)
			}
			run, entry = h.Run, h.Last
		}
		if err := s.Update(ctx, (*Tx).MarkClean); err != nil {
			t.Fatal(err)
		}
		// Units in flight end after the first commit of a stop.
		c := transition(h, "b")
		if err := s.Commit(ctx, c); err != nil {
			t.Fatal(err)
		}
		entry = c.After.Last
		shut(t, s)
		do(t, path, "DELETE FROM _segno_run", "DELETE FROM _segno_journal")
	}
}

func TestMemosOfClosedVisitsAreSweptInPages(t *testing.T) {
	s := fresh(t)
	opened, ended, moved := addRun(t, s, "f"), addRun(t, s, "f"), addRun(t, s, "f")
	save := func(h engine.Head, n int) {
		t.Helper()
		err := s.Update(ctx, func(tx *Tx) error {
			for i := range n {
				if err := tx.putMemos(h.Run, h.Visit, map[string][]byte{fmt.Sprint(i): []byte("1")}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	save(opened, 3)
	save(ended, 3)
	save(moved, sweepPage+200)
	if err := s.Commit(ctx, ending(ended, engine.Failed)); err != nil {
		t.Fatal(err)
	}
	c := transition(moved, "b")
	c.DropMemos = true // a page of them at once, the rest is left to the sweep
	if err := s.Commit(ctx, c); err != nil {
		t.Fatal(err)
	}
	moved = c.After
	if err := s.Save(ctx, &moved, map[string][]byte{"new": []byte("2")}, nil); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"before", "after"} {
		memos, err := s.Memos(ctx, &moved)
		if err != nil || len(memos) != 1 || string(memos["new"]) != "2" {
			t.Errorf("memos of the visit %s the sweep: got = %v (%v), want only the new one", when, memos, err)
		}
		if memos, err := s.Memos(ctx, &opened); err != nil || len(memos) != 3 {
			t.Errorf("memos of the open visit %s the sweep: got = %v (%v), want 3", when, memos, err)
		}
		dropClosed(t, s)
	}
	if got := one(t, s.DB(), "SELECT count(*) FROM _segno_memo"); got != "4" {
		t.Errorf("memos left: got = %s, want 4", got)
	}
}

// The memos of runs that are claimed together are read together: those of their
// visits, and all that a run has or nothing.
func TestMemosOfSeveralRuns(t *testing.T) {
	s := fresh(t)
	var heads []engine.Head
	for _, flow := range []string{"none", "two", "moved", "large", "behind"} {
		heads = append(heads, addRun(t, s, flow))
	}
	save := func(i int, memos map[string][]byte) {
		t.Helper()
		if err := s.Save(ctx, &heads[i], memos, nil); err != nil {
			t.Fatal(err)
		}
	}
	save(1, map[string][]byte{"a": []byte("1"), "b": []byte("2")})
	save(2, map[string][]byte{"a": []byte("old")})
	c := transition(heads[2], "b") // leaves it
	if err := s.Commit(ctx, c); err != nil {
		t.Fatal(err)
	}
	heads[2] = c.After
	save(2, map[string][]byte{"b": []byte("new")})
	save(3, map[string][]byte{"a": []byte("1"), "b": make([]byte, memosAtOnce)})
	save(4, map[string][]byte{"a": []byte("1")})
	got, err := s.MemosOf(ctx, heads)
	want := map[int64]map[string][]byte{
		heads[0].Run: {}, heads[1].Run: {"a": []byte("1"), "b": []byte("2")}, heads[2].Run: {"b": []byte("new")},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got = %v (%v), want = %v", got, err, want)
	}
}

// dropClosed drops the memos of every closed visit, reading few at a time.
func dropClosed(t *testing.T, s *Store) {
	t.Helper()
	for after := int64(0); after < math.MaxInt64; {
		visits, upto, err := s.ClosedVisits(ctx, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range visits {
			for more := true; more; {
				if err := s.Update(ctx, func(tx *Tx) (err error) { more, err = tx.DropMemos(v); return err }); err != nil {
					t.Fatal(err)
				}
			}
		}
		after = upto
	}
}

func TestSweepDeletesAPageAtATime(t *testing.T) {
	s := fresh(t)
	err := s.Update(ctx, func(tx *Tx) error {
		for i := range 2*sweepPage + 1 {
			if err := tx.putMemos(99, 1, map[string][]byte{fmt.Sprint(i): []byte("1")}); err != nil { // of a run that was pruned
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		more bool
		left string
	}{{true, "501"}, {true, "1"}, {false, "0"}} {
		var more bool
		if err := s.Update(ctx, func(tx *Tx) (err error) { more, err = tx.DropMemos(MemoVisit{Run: 99, Visit: 1}); return err }); err != nil {
			t.Fatal(err)
		}
		if left := one(t, s.DB(), "SELECT count(*) FROM _segno_memo"); more != want.more || left != want.left {
			t.Errorf("got = more: %v, %s left, want %v, %s", more, left, want.more, want.left)
		}
	}
}

// A memo of an attempt that has lost its visit is refused.
func TestMemoOfAnotherAttemptIsRefused(t *testing.T) {
	s := fresh(t)
	stale := addRun(t, s, "f")
	if err := s.Commit(ctx, transition(stale, "b")); err != nil {
		t.Fatal(err)
	}
	says(t, s.Save(ctx, &stale, map[string][]byte{"k": []byte("1")}, nil), engine.ErrEnded)
	if got := one(t, s.DB(), "SELECT count(*) FROM _segno_memo"); got != "0" {
		t.Errorf("memos: got = %s, want 0", got)
	}
}
