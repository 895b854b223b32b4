package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segnodev/segno/engine"
)

// ctx is for calls whose context is not what is tested.
var ctx = context.Background()

// open opens a store on path, closes it at the end of the test, and then
// checks the file.
func open(t *testing.T, path string, edit ...func(*Config)) *Store {
	t.Helper()
	s, err := tryOpen(path, edit...)
	if err != nil {
		t.Fatalf("Open(%s): %v", path, err)
	}
	t.Cleanup(func() {
		shut(t, s)
		check(t, s.path)
	})
	return s
}

// fresh opens a store on a file that holds nothing yet.
func fresh(t *testing.T, edit ...func(*Config)) *Store {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	if err := os.WriteFile(path, empty(), 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, path, edit...)
}

// empty is such a file. To migrate one is slow under the race detector.
var empty = sync.OnceValue(func() []byte {
	dir, err := os.MkdirTemp("", "segno")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	s, err := tryOpen(filepath.Join(dir, "a.db"))
	if err != nil {
		panic(err)
	}
	if err := errors.Join(s.Close(), s.Release()); err != nil {
		panic(err)
	}
	b, err := os.ReadFile(s.path)
	if err != nil {
		panic(err)
	}
	return b
})

func tryOpen(path string, edit ...func(*Config)) (*Store, error) {
	cfg := Config{Path: path, SmallWAL: true, Logger: slog.New(slog.DiscardHandler), Now: time.Now}
	for _, f := range edit {
		f(&cfg)
	}
	return Open(ctx, cfg)
}

// shut closes a store and gives the lock back; a second time does nothing.
func shut(t *testing.T, s *Store) {
	t.Helper()
	select {
	case <-s.closing:
		return
	default:
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := s.Release(); err != nil {
		t.Errorf("Release: %v", err)
	}
}

// raw opens a file the way another program would.
func raw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, nil))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	return db
}

// do runs statements on a file by a connection of its own.
func do(t *testing.T, path string, statements ...string) {
	t.Helper()
	db := raw(t, path)
	defer db.Close()
	for _, q := range statements {
		if _, err := db.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// one returns the only value of a query, as text.
func one(t *testing.T, db interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, query string, args ...any) string {
	t.Helper()
	var v sql.NullString
	if err := db.QueryRowContext(ctx, query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v.String
}

// ask is one, on a file.
func ask(t *testing.T, path, query string, args ...any) string {
	t.Helper()
	db := raw(t, path)
	defer db.Close()
	return one(t, db, query, args...)
}

// check runs what must hold for every file after every test.
func check(t *testing.T, path string) {
	t.Helper()
	db := raw(t, path)
	defer db.Close()
	if got := one(t, db, "PRAGMA integrity_check"); got != "ok" {
		t.Errorf("integrity_check: got = %s, want ok", got)
	}
	if got := one(t, db, "SELECT count(*) FROM pragma_foreign_key_check"); got != "0" {
		t.Errorf("foreign_key_check: got = %s rows, want 0", got)
	}
	for what, query := range map[string]string{
		"ended runs that are held": `SELECT count(*) FROM _segno_run WHERE ended IS NOT NULL AND held`,
		"memos of later visits":    `SELECT count(*) FROM _segno_memo m JOIN _segno_run r USING (run) WHERE m.visit > r.visit`,
		"chains that do not lead from last to first": `WITH RECURSIVE chain (run, id, visit, n) AS (
	SELECT r.run, r.last, r.visit, 0 FROM _segno_run r
	UNION ALL
	SELECT c.run, j.prev, j.visit, n + 1 FROM chain c JOIN _segno_journal j ON j.id = c.id AND j.run = c.run
	WHERE j.prev IS NOT NULL AND j.visit BETWEEN c.visit - 1 AND c.visit)
SELECT count(*) FROM _segno_run r WHERE NOT EXISTS (SELECT 1 FROM chain c WHERE c.run = r.run AND c.id = r.first)
	AND EXISTS (SELECT 1 FROM _segno_journal WHERE id = r.first) -- else its oldest entries were pruned`,
		"ends that are not the ends of ended runs": `SELECT count(*) FROM _segno_run r
WHERE (SELECT count(*) FROM _segno_journal j WHERE j.run = r.run AND j.kind = 'end') <> (r.ended IS NOT NULL)`,
	} {
		if got := one(t, db, query); got != "0" {
			t.Errorf("%s: got = %s, want 0", what, got)
		}
	}
}

// says checks an error: its identity, and that its text has the given parts.
func says(t *testing.T, err, is error, parts ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("error: got = %v, want %v", err, is)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("text of the error: got = %q, want it to say %q", err, part)
		}
	}
}

// write is what package segno's Write does.
func (s *Store) write(fn func(tx *Tx) error) error {
	return s.Update(ctx, func(tx *Tx) error {
		return tx.User("Write", func() error { return fn(tx) })
	})
}

// must runs user SQL that has to succeed.
func must(t *testing.T, s *Store, statements ...string) {
	t.Helper()
	err := s.write(func(tx *Tx) error {
		for _, q := range statements {
			if _, err := tx.Exec(q); err != nil {
				return fmt.Errorf("%s: %w", q, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// addRun creates a held, running run in state "a", and its flow if need be.
func addRun(t *testing.T, s *Store, flow string) engine.Head {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	h := engine.Head{
		Flow: flow, Status: engine.Running, Version: 1, Nonce: "nonce", State: "a", Data: []byte(`{}`),
		Held: true, Created: now, Started: now, Entered: now,
	}
	err := s.Update(ctx, func(tx *Tx) error {
		if tx.Flow(flow) == nil {
			if err := tx.AddFlow(Flow{ID: flow, Outcome: "idle", Registered: now}); err != nil {
				return err
			}
		}
		return tx.Insert(&h)
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// transition is the hot commit: from h's state into another.
func transition(h engine.Head, state string) *engine.Change {
	c := &engine.Change{Before: &h, After: h}
	c.After.State, c.After.Visit, c.After.Attempt = state, h.Visit+1, 1
	c.Entries = []engine.Entry{{Kind: engine.KindEnter, State: state, Visit: c.After.Visit, Attempt: 1, At: h.Created}}
	return c
}

// ending is the last commit of a run.
func ending(h engine.Head, status engine.Status) *engine.Change {
	c := transition(h, "z")
	c.After.Status, c.After.Held, c.After.Ended, c.After.Wake = status, false, h.Created, time.Time{}
	if status != engine.Completed {
		c.After.Cause, c.After.Error = engine.CauseError, "it failed"
	}
	c.Entries[0].Kind, c.Entries[0].Data = engine.KindEnd, h.Data
	c.Yields = true
	return c
}

// logs records what is logged.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// mount mounts something on dir until the end of the test, and skips the test,
// loudly, where that is not permitted.
func mount(t *testing.T, dir string, args ...string) {
	t.Helper()
	if out, err := exec.Command("mount", append(args, dir)...).CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: mount %v %s is not permitted here: %v: %s", args, dir, err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
}

// readOnly makes a file or a folder one that cannot be written, until the end
// of the test. Permissions do not bind root, a read-only mount does.
func readOnly(t *testing.T, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, st.Mode()&^0o222); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(path, st.Mode()) })
		return
	}
	mount(t, path, "--bind", path)
	if out, err := exec.Command("mount", "-o", "remount,bind,ro", path).CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: a read-only mount is not permitted here: %v: %s", err, out)
	}
}
