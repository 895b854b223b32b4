//go:build unix

package segno_test

import (
	"database/sql"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// killHead is what a file says about a run, for the tests.
type killHead struct {
	flow, status, state            string
	visit, attempt, polls, crashes int
	held, suspect, cancel, ended   bool
	due, data, cause, err          string
	undone                         map[int]bool
	first, last                    int64
	entries                        []killEntry // first to last, by the chain
}

// killEntry is a line of the journal.
type killEntry struct {
	id, prev    int64
	visit       int
	kind, state string
	attempt     int
	uncertain   bool
	err         string
}

// killOpenFile opens a file that nobody owns, to look at it.
func killOpenFile(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_busy_timeout=5000")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// killQuery runs a query and calls each for every row.
func killQuery(t *testing.T, db *sql.DB, query string, each func(scan func(...any)), args ...any) {
	t.Helper()
	rows, err := db.Query(query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		each(func(dest ...any) {
			if err := rows.Scan(dest...); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
		})
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// killValue returns the one value of a query.
func killValue[T any](t *testing.T, path, query string, args ...any) (v T) {
	t.Helper()
	db := killOpenFile(t, path)
	defer db.Close()
	n := 0
	killQuery(t, db, query, func(scan func(...any)) { scan(&v); n++ }, args...)
	if n != 1 {
		t.Fatalf("%s: got %d rows, want 1", query, n)
	}
	return v
}

// killHeads reads all runs with their journals.
func killHeads(t *testing.T, path string) map[segno.RunID]killHead {
	t.Helper()
	db := killOpenFile(t, path)
	defer db.Close()
	heads := map[segno.RunID]killHead{}
	if killValue[int](t, path, "SELECT count(*) FROM sqlite_master WHERE name = '_segno_run'") == 0 {
		return heads // killed before it was made
	}
	journal := map[segno.RunID]map[int64]killEntry{}
	killQuery(t, db, `SELECT run, id, coalesce(prev, 0), visit, kind, state, attempt, coalesce(uncertain, 0), coalesce(error, '')
FROM _segno_journal`, func(scan func(...any)) {
		var run segno.RunID
		var e killEntry
		scan(&run, &e.id, &e.prev, &e.visit, &e.kind, &e.state, &e.attempt, &e.uncertain, &e.err)
		if journal[run] == nil {
			journal[run] = map[int64]killEntry{}
		}
		journal[run][e.id] = e
	})
	killQuery(t, db, `SELECT r.run, f.id, status, state, visit, attempt, polls, crashes, held, suspect, cancel, ended IS NOT NULL,
	coalesce(due, ''), data, coalesce(cause, ''), coalesce(error, ''), first, last
FROM _segno_run r JOIN _segno_flow f ON f.flow = r.flow`, func(scan func(...any)) {
		var run segno.RunID
		h := killHead{undone: map[int]bool{}}
		scan(&run, &h.flow, &h.status, &h.state, &h.visit, &h.attempt, &h.polls, &h.crashes, &h.held, &h.suspect, &h.cancel, &h.ended,
			&h.due, &h.data, &h.cause, &h.err, &h.first, &h.last)
		h.walk(t, run, journal[run])
		heads[run] = h
	})
	return heads
}

// walk follows the chain of a run, which must have all of its entries.
func (h *killHead) walk(t *testing.T, run segno.RunID, journal map[int64]killEntry) {
	t.Helper()
	for id := h.last; id != 0; {
		e, ok := journal[id]
		if !ok {
			t.Errorf("run %d: the chain leads to entry %d, which is not there", run, id)
			return
		}
		delete(journal, id)
		h.entries = append(h.entries, e)
		if e.kind == "undone" {
			h.undone[e.visit] = true
		}
		id = e.prev
	}
	slices.Reverse(h.entries)
	if h.entries[0].id != h.first {
		t.Errorf("run %d: the chain ends at entry %d, want %d", run, h.entries[0].id, h.first)
	}
	if len(journal) > 0 {
		t.Errorf("run %d: %d entries are not in its chain", run, len(journal))
	}
}

// kinds are the kinds of a run's entries, in order.
func (h *killHead) kinds() string {
	var kinds []string
	for _, e := range h.entries {
		kinds = append(kinds, e.kind)
	}
	return strings.Join(kinds, " ")
}

// has counts a run's entries of a kind.
func (h *killHead) has(kind string) (n int) {
	for _, e := range h.entries {
		if e.kind == kind {
			n++
		}
	}
	return n
}

// killCheckFile checks what must hold for every file between two lives.
func killCheckFile(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		return // the test did not come so far
	}
	if got := killValue[string](t, path, "PRAGMA integrity_check"); got != "ok" {
		t.Errorf("integrity_check: got %q, want ok", got)
	}
	db := killOpenFile(t, path)
	defer db.Close()
	killQuery(t, db, "PRAGMA foreign_key_check", func(func(...any)) { t.Errorf("foreign_key_check: got a row, want none") })
	killQuery(t, db, "SELECT m.run, m.visit, r.visit FROM _segno_memo m JOIN _segno_run r USING (run) WHERE m.visit > r.visit",
		func(scan func(...any)) {
			var run, memo, visit int
			scan(&run, &memo, &visit)
			t.Errorf("run %d: a memo belongs to visit %d, the run is at %d", run, memo, visit)
		})
	for run, h := range killHeads(t, path) {
		h.checkJournal(t, run)
	}
	killCheckLedger(t, db)
}

// checkJournal checks the order of a run's entries, and that it ended once.
func (h *killHead) checkJournal(t *testing.T, run segno.RunID) {
	t.Helper()
	ends := h.has("end")
	if h.ended != (ends == 1) || ends > 1 || h.ended && (h.held || h.entries[len(h.entries)-1].kind != "end") {
		t.Errorf("run %d: got status %s, held %v, entries %q, want one end, and only of an ended run", run, h.status, h.held, h.kinds())
	}
	visit, undo := 0, 0
	for _, e := range h.entries {
		switch {
		case undo > 0 && (e.kind == "undone" || e.kind == "undo_failed"):
			if e.visit > visit || e.visit >= undo {
				t.Errorf("run %d: got undo of visit %d after %d, want them to fall (%s)", run, e.visit, undo, h.kinds())
			}
			undo = e.visit
			continue
		case undo > 0 && e.kind == "retry": // of an undo
			continue
		case e.kind == "rollback":
			undo = e.visit + 1
		}
		step := e.visit - visit
		if step < 0 || step > 1 || e.kind == "enter" && step != 1 || e.kind != "enter" && e.kind != "end" && step != 0 {
			t.Errorf("run %d: got visit %d after %d by %q, want it to rise by 0 or 1 (%s)", run, e.visit, visit, e.kind, h.kinds())
		}
		visit = e.visit
	}
	if visit != h.visit {
		t.Errorf("run %d: got visit %d in its row, want %d as in the journal", run, h.visit, visit)
	}
}

// killCheckLedger checks that the slots of every interval up to its cursor are
// in the ledger, each once.
func killCheckLedger(t *testing.T, db *sql.DB) {
	t.Helper()
	type row struct {
		flow, schedule                     string
		anchor, cursor, first, last, count int64
	}
	next := map[string]int64{}
	killQuery(t, db, `SELECT f.id, f.schedule, f.anchor, f.cursor, l.first, l.last, l.count
FROM _segno_flow f JOIN _segno_ledger l ON l.flow = f.flow WHERE f.schedule LIKE 'every %' ORDER BY f.flow, l.first`, func(scan func(...any)) {
		var r row
		scan(&r.flow, &r.schedule, &r.anchor, &r.cursor, &r.first, &r.last, &r.count)
		d, err := time.ParseDuration(strings.TrimPrefix(r.schedule, "every "))
		if err != nil {
			t.Fatal(err)
		}
		want, ok := next[r.flow]
		if !ok {
			want = r.anchor
		}
		step := d.Microseconds()
		if r.first != want || r.last != r.first+(r.count-1)*step || r.last > r.cursor {
			t.Errorf("ledger of %s: got %+v, want a stretch from %d", r.flow, r, want)
		}
		next[r.flow] = r.last + step
	})
	killQuery(t, db, "SELECT id, cursor FROM _segno_flow WHERE schedule LIKE 'every %'", func(scan func(...any)) {
		var id string
		var cursor int64
		scan(&id, &cursor)
		if want, ok := next[id]; ok && cursor >= want {
			t.Errorf("ledger of %s: got nothing from %d on, want it up to the cursor %d", id, want, cursor)
		}
	})
}

// killMicros reads a stored time.
func killMicros(t *testing.T, stored string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(stored, 10, 64)
	if err != nil {
		t.Fatalf("got %q, want a time in microseconds", stored)
	}
	return n
}

// killSQLite3 asks the sqlite3 shell, as a user would.
func killSQLite3(t *testing.T, path, query string) string {
	t.Helper()
	shell, err := exec.LookPath("sqlite3")
	if err != nil {
		if os.Getenv("SEGNO_REQUIRE_SQLITE3") == "1" {
			t.Fatal("the sqlite3 shell is missing, and SEGNO_REQUIRE_SQLITE3 is set")
		}
		t.Skip("needs the sqlite3 shell")
	}
	out, err := exec.Command(shell, path, query).CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 %s: %v\n%s", query, err, out)
	}
	return string(out)
}
