package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

func TestErrLockedNamesTheOwner(t *testing.T) {
	s := fresh(t)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	since := one(t, s.DB(), "SELECT since FROM segno_owner")
	if at, err := time.Parse(time.RFC3339, since); err != nil || time.Since(at) > time.Minute {
		t.Errorf("since: got = %s (%v), want the time of Open", since, err)
	}
	_, err = tryOpen(s.path)
	says(t, err, ErrLocked, s.path, "process "+strconv.Itoa(os.Getpid()), host, since, "stop it", "Options.Standby")
	must(t, s, "CREATE TABLE t (x)") // the attempt has not disturbed the owner
}

// The lock may be taken before there is anything to read in the file.
func TestErrLockedWithoutAnOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	l := flock.New(path + ".lock")
	if ok, err := l.TryLock(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	_, err := tryOpen(path)
	says(t, err, ErrLocked, path, "stop it", "Options.Standby")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file: got = %v, want it not to be made without the lock", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

func TestLockFileStays(t *testing.T) {
	s := fresh(t)
	shut(t, s)
	if _, err := os.Stat(s.path + ".lock"); err != nil {
		t.Errorf("after Release: got = %v, want the lock file left where it is", err)
	}
}

func TestStandbyWaitsForTheLock(t *testing.T) {
	first := fresh(t)
	must(t, first, "CREATE TABLE t (x)")
	type answer struct {
		s   *Store
		err error
	}
	second := make(chan answer)
	go func() {
		s, err := tryOpen(first.path, func(c *Config) { c.Standby = true })
		second <- answer{s, err}
	}()
	must(t, first, "INSERT INTO t VALUES (1)")
	select {
	case a := <-second:
		t.Fatalf("beside the owner: got = %v, want it to wait", a.err)
	default:
	}
	shut(t, first)
	a := <-second
	if a.err != nil {
		t.Fatal(a.err)
	}
	must(t, a.s, "INSERT INTO t VALUES (2)")
	shut(t, a.s)
}

func TestStandbyEndsWithItsContext(t *testing.T) {
	s := fresh(t)
	limited, cancel := context.WithTimeout(ctx, 3*lockPoll)
	defer cancel()
	_, err := Open(limited, Config{Path: s.path, Standby: true, Now: time.Now})
	says(t, err, context.DeadlineExceeded, s.path)
	shut(t, s)
	open(t, s.path) // the standby has left no lock behind
}

// What happens to lock and file under a running owner is noticed.
func TestErrFencedByTheFiles(t *testing.T) {
	for _, tt := range []struct {
		name    string
		happens func(path string) error
		says    string
	}{
		{"lock deleted", func(path string) error { return os.Remove(path + ".lock") }, ".lock was removed or replaced"},
		{"lock replaced", func(path string) error {
			return errors.Join(os.Remove(path+".lock"), os.WriteFile(path+".lock", nil, 0o600))
		}, ".lock was removed or replaced"},
		{"file deleted", func(path string) error { return os.Remove(path) }, "a.db was removed or replaced"},
		{"file replaced", func(path string) error {
			b, err := os.ReadFile(path)
			return errors.Join(err, os.Remove(path), os.WriteFile(path, b, 0o600))
		}, "a.db was removed or replaced"},
		{"log deleted", func(path string) error { return os.Remove(path + "-wal") }, "a.db-wal was removed or replaced"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := tryOpen(filepath.Join(t.TempDir(), "a.db"))
			if err != nil {
				t.Fatal(err)
			}
			must(t, s, "CREATE TABLE t (x)")
			if err := s.Check(ctx); err != nil {
				t.Fatalf("before: got = %v, want nil", err)
			}
			if err := tt.happens(s.path); err != nil {
				t.Fatal(err)
			}
			says(t, s.Check(ctx), ErrFenced, tt.says)
			says(t, insert(s, "t", "1")(), ErrFenced, tt.says)
			<-s.Failed
			shut(t, s)
		})
	}
}

// What was committed into a log that was deleted is in the file when its owner
// has ended.
func TestDeletedLogIsSaved(t *testing.T) {
	s, err := tryOpen(filepath.Join(t.TempDir(), "a.db"))
	if err != nil {
		t.Fatal(err)
	}
	must(t, s, "CREATE TABLE t (x)", "INSERT INTO t VALUES ('before')")
	if err := os.Remove(s.path + "-wal"); err != nil {
		t.Fatal(err)
	}
	must(t, s, "INSERT INTO t VALUES ('behind')")
	says(t, s.Check(ctx), ErrFenced, "a.db-wal")
	shut(t, s)
	if got := ask(t, s.path, "SELECT group_concat(x) FROM t"); got != "before,behind" {
		t.Errorf("rows: got = %s, want before,behind", got)
	}
}

// The owner of a file that was replaced has nothing to do with the new one,
// nor with what lies beside it.
func TestFencedOwnerLeavesTheNewFileAlone(t *testing.T) {
	s, err := tryOpen(filepath.Join(t.TempDir(), "a.db"))
	if err != nil {
		t.Fatal(err)
	}
	must(t, s, "CREATE TABLE t (x)", "INSERT INTO t VALUES ('old')")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(s.path+suffix, s.path+".old"+suffix); err != nil {
			t.Fatal(err)
		}
	}
	successor := raw(t, s.path)
	defer successor.Close()
	for _, q := range []string{"PRAGMA journal_mode = WAL", "CREATE TABLE t (x)", "INSERT INTO t VALUES ('new')"} {
		if _, err := successor.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.Stat(s.path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	says(t, s.Check(ctx), ErrFenced, s.path)
	shut(t, s)
	after, err := os.Stat(s.path + "-wal")
	if err != nil || !os.SameFile(before, after) || after.Size() != before.Size() {
		t.Errorf("the new file's WAL: got = %v, want it as it was", err)
	}
	if got := ask(t, s.path, "SELECT group_concat(x) FROM t"); got != "new" {
		t.Errorf("the new file: got = %s, want new", got)
	}
}
