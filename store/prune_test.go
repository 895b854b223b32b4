package store

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/segnodev/segno/engine"
)

// endRun creates a run and ends it.
func endRun(t *testing.T, s *Store, flow string, status engine.Status) engine.Head {
	t.Helper()
	c := ending(addRun(t, s, flow), status)
	if err := s.Commit(ctx, c); err != nil {
		t.Fatal(err)
	}
	return c.After
}

// longAgo has every run of the file end long ago.
func longAgo(t *testing.T, s *Store) {
	t.Helper()
	must(t, s, "UPDATE _segno_run SET created = 1, ended = CASE WHEN ended IS NOT NULL THEN 2 END", "UPDATE _segno_flow SET runs = 1000")
}

// surplus returns which runs of a flow go.
func surplus(t *testing.T, s *Store, keep Keep) (all []Surplus, goes []int64) {
	t.Helper()
	all, err := s.Surplus(ctx, 1, 0, keep, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.Goes {
			goes = append(goes, r.Run)
		}
	}
	return all, goes
}

// pruneAll deletes all that goes, and returns what is left.
func pruneAll(t *testing.T, s *Store, keep Keep) (left string) {
	t.Helper()
	all, _ := surplus(t, s, keep)
	var doomed []Doomed
	for _, r := range all {
		if !r.Goes {
			continue
		}
		links, err := s.Links(ctx, r.Last, 0)
		if err != nil {
			t.Fatal(err)
		}
		doomed = append(doomed, Doomed{r.Run, r.Seq, links})
	}
	if err := s.Update(ctx, func(tx *Tx) error { return tx.Prune(doomed) }); err != nil {
		t.Fatal(err)
	}
	return one(t, s.DB(), "SELECT group_concat(run) FROM (SELECT run FROM _segno_run ORDER BY run)")
}

func TestSurplusByStatus(t *testing.T) {
	s := fresh(t)
	for _, status := range []engine.Status{engine.Completed, engine.Cancelled, engine.Failed, engine.UndoFailed, engine.UndoFailed} {
		endRun(t, s, "f", status)
	}
	if err := s.Update(ctx, func(tx *Tx) error { return tx.SetNote(5, "as it is") }); err != nil {
		t.Fatal(err)
	}
	addRun(t, s, "f")           // 6, open
	parent := addRun(t, s, "f") // 7
	child := endRun(t, s, "f", engine.Completed)
	newest := endRun(t, s, "f", engine.Completed)
	must(t, s, fmt.Sprintf("UPDATE _segno_run SET parent = %d, parent_visit = 1 WHERE run = %d", parent.Run, child.Run))
	longAgo(t, s)
	late, early := time.UnixMicro(1000), time.UnixMicro(2)
	for _, c := range []struct {
		name string
		keep Keep
		want []int64
	}{
		{"all that is old", Keep{1, late, late}, []int64{1, 2, 3, 5}},
		{"completed only", Keep{1, late, early}, []int64{1, 2}},
		{"failed only", Keep{1, early, late}, []int64{3, 5}},
		{"failed for ever", Keep{1, late, time.Time{}}, []int64{1, 2}},
		{"completed for ever", Keep{1, time.Time{}, late}, []int64{3, 5}},
		{"the newest eight", Keep{8, late, late}, []int64{1}},
		{"the newest nine", Keep{9, late, late}, nil},
	} {
		if _, got := surplus(t, s, c.keep); !slices.Equal(got, c.want) {
			t.Errorf("%s: got = %v, want %v", c.name, got, c.want)
		}
	}
	if got, want := pruneAll(t, s, Keep{1, late, late}), "4,6,7,8,9"; got != want {
		t.Errorf("runs left: got = %s, want %s", got, want)
	}
	if newest.Run != 9 {
		t.Fatalf("newest: got = %d, want 9", newest.Run)
	}
}

// A run goes with all there is of it, and nothing else does.
func TestPruneTakesTheWholeRun(t *testing.T) {
	s := fresh(t)
	gone, kept := endRun(t, s, "f", engine.Completed), endRun(t, s, "f", engine.Completed)
	err := s.Update(ctx, func(tx *Tx) error {
		for _, run := range []int64{gone.Run, kept.Run} {
			if err := tx.putMemos(run, 1, map[string][]byte{"k": []byte("1")}); err != nil {
				return err
			}
			if err := tx.Signal(run, Signal{Name: "n", Payload: []byte("1")}, time.Now()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	longAgo(t, s)
	pruneAll(t, s, Keep{1, time.Now(), time.Now()})
	for _, table := range []string{"run", "journal", "memo", "signal"} {
		got := one(t, s.DB(), "SELECT group_concat(DISTINCT run) FROM _segno_"+table)
		if want := fmt.Sprint(kept.Run); got != want {
			t.Errorf("runs in _segno_%s: got = %s, want %s", table, got, want)
		}
	}
}

// A run that has changed since it was read stays, and so does the one with the
// newest entry.
func TestPruneLooksAgain(t *testing.T) {
	s := fresh(t)
	late := Keep{1, time.Now(), time.Now()}
	first := addRun(t, s, "f")
	endRun(t, s, "f", engine.Completed)
	if err := s.Commit(ctx, ending(first, engine.Completed)); err != nil { // its entry is the newest of all
		t.Fatal(err)
	}
	longAgo(t, s)
	if got, want := pruneAll(t, s, late), "1,2"; got != want {
		t.Errorf("with the newest entry: got = %s, want %s", got, want)
	}
	all, _ := surplus(t, s, late)
	addRun(t, s, "f") // now it is not
	err := s.Update(ctx, func(tx *Tx) error { return tx.Prune([]Doomed{{Run: 1, Seq: all[0].Seq - 1}}) })
	if err != nil {
		t.Fatal(err)
	}
	if got := one(t, s.DB(), "SELECT count(*) FROM _segno_run WHERE run = 1"); got != "1" {
		t.Errorf("one that has changed: got = %s, want 1", got)
	}
	if got, want := pruneAll(t, s, late), "3"; got != want {
		t.Errorf("afterwards: got = %s, want %s", got, want)
	}
}

func TestIDsAreNotUsedAgainAfterPrune(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	var run, entry int64
	for range 3 {
		s := open(t, path)
		h := endRun(t, s, "f", engine.Completed)
		if h.Run <= run || h.Last <= entry {
			t.Errorf("got = run %d and entry %d, want them beyond %d and %d", h.Run, h.Last, run, entry)
		}
		for range 3 {
			h = endRun(t, s, "f", engine.Completed)
		}
		run, entry = h.Run, h.Last
		longAgo(t, s)
		if got, want := pruneAll(t, s, Keep{1, time.Now(), time.Now()}), fmt.Sprint(h.Run); got != want {
			t.Errorf("left: got = %s, want %s", got, want)
		}
		shut(t, s)
		do(t, path, "DELETE FROM _segno_run", "DELETE FROM _segno_journal") // the marks alone have to do
	}
}

// What is thinned out can be walked before and after each cut.
func TestThin(t *testing.T) {
	s := fresh(t)
	h := addRun(t, s, "f")
	for i := range 700 {
		c := transition(h, "a")
		if i%100 == 50 {
			c.Entries[0].Undo, c.Entries[0].Data = "a", []byte("{}")
		}
		if err := s.Commit(ctx, c); err != nil {
			t.Fatal(err)
		}
		h = c.After
	}
	links, err := s.Links(ctx, h.Last, 0)
	if err != nil || len(links) != 701 {
		t.Fatalf("links: got = %d (%v), want 701", len(links), err)
	}
	cuts, kept := Thin(links, 0, int64(h.Visit)-100)
	if len(cuts) != 7 {
		t.Fatalf("cuts of at most %d rows: got = %d, want 7", PruneRows, len(cuts))
	}
	left := len(links)
	for _, c := range cuts {
		if rows := len(c.Entries) + len(c.Relink); rows > PruneRows {
			t.Errorf("rows of a cut: got = %d, want at most %d", rows, PruneRows)
		}
		if err := s.Update(ctx, func(tx *Tx) error { return tx.Thin(h.Run, c) }); err != nil {
			t.Fatal(err)
		}
		left -= len(c.Entries)
		history, err := s.History(ctx, h.Run)
		if err != nil || len(history) != left || history[0].Prev != 0 {
			t.Fatalf("history: got = %d entries (%v), want %d, and nothing before the first", len(history), err, left)
		}
	}
	if want := 100 + 6; left != want { // 6 of the 7 undos are older
		t.Errorf("entries left: got = %d, want %d", left, want)
	}
	for id, undos := h.UndoAt, 0; ; undos++ {
		if id == 0 {
			if undos != 7 {
				t.Errorf("undos in their chain: got = %d, want 7", undos)
			}
			break
		}
		e, err := s.Entry(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		id = e.PrevUndo
	}
	rest, err := s.Links(ctx, h.Last, kept)
	if again, _ := Thin(rest, kept, int64(h.Visit)-100); err != nil || len(rest) != 100 || len(again) != 0 {
		t.Errorf("the next time: got = %d links and %d cuts (%v), want 100 and none", len(rest), len(again), err)
	}
}

// A run too long for one request loses its oldest entries first, and cannot be
// undone any more.
func TestBehead(t *testing.T) {
	s := fresh(t)
	h := addRun(t, s, "f")
	for range 2 * PruneRows {
		c := transition(h, "a")
		c.Entries[0].Undo, c.Entries[0].Data = "a", []byte("{}")
		if err := s.Commit(ctx, c); err != nil {
			t.Fatal(err)
		}
		h = c.After
	}
	if err := s.Commit(ctx, ending(h, engine.UndoFailed)); err != nil {
		t.Fatal(err)
	}
	endRun(t, s, "f", engine.Completed)
	all, _ := surplus(t, s, Keep{Runs: 1})
	links, err := s.Links(ctx, all[0].Last, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := Doomed{h.Run, all[0].Seq, links}
	for want := len(links); len(d.Entries) >= PruneRows; {
		if err := s.Update(ctx, func(tx *Tx) (err error) { d, err = tx.Behead(d); return err }); err != nil {
			t.Fatal(err)
		}
		want -= PruneRows - 3
		history, err := s.History(ctx, h.Run)
		if err != nil || len(history) != want || history[0].Prev != 0 || history[0].PrevUndo != 0 {
			t.Fatalf("history: got = %d entries (%v), want %d, and nothing before the first", len(history), err, want)
		}
	}
	if now, err := s.Run(ctx, h.Run); err != nil || now.Status != engine.Failed {
		t.Errorf("status: got = %s (%v), want failed", now.Status, err)
	}
	if err := s.Update(ctx, func(tx *Tx) error { return tx.Prune([]Doomed{d}) }); err != nil {
		t.Fatal(err)
	}
	if got := one(t, s.DB(), "SELECT count(*) FROM _segno_journal WHERE run = ?", h.Run); got != "0" {
		t.Errorf("entries left: got = %s, want 0", got)
	}
}

// The ledger's rows go by their age, but for those of runs that are kept and
// the last of a flow, which may become longer.
func TestAgedSlots(t *testing.T) {
	s := fresh(t)
	h := endRun(t, s, "f", engine.Completed)
	slot := func(n int64, outcome string, run int64, decided time.Time) {
		t.Helper()
		err := s.Update(ctx, func(tx *Tx) error {
			at, reason := time.UnixMicro(n), ""
			if outcome == "skipped" {
				reason = fmt.Sprint("reason ", n)
			}
			return tx.Ledger(tx.Flow("f"), Slots{First: at, Last: at, Count: 1, Outcome: outcome, Reason: reason, Run: run}, decided)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	old := time.UnixMicro(100)
	slot(1, "skipped", 0, old)
	slot(2, "fired", h.Run, old)
	slot(3, "fired", 999, old) // its run was pruned
	slot(4, "skipped", 0, time.UnixMicro(300))
	slot(5, "skipped", 0, old)
	page, err := s.AgedSlots(ctx, 0, time.UnixMicro(200), 100)
	want := []Aged{{1, true, true}, {2, true, false}, {3, true, true}, {4, false, false}, {5, true, false}}
	if err != nil || !slices.Equal(page, want) {
		t.Fatalf("got = %v (%v), want %v", page, err, want)
	}
	if err := s.Update(ctx, func(tx *Tx) error { return tx.PruneSlots([]int64{1, 3}) }); err != nil {
		t.Fatal(err)
	}
	if got := one(t, s.DB(), "SELECT (SELECT group_concat(id) FROM _segno_ledger) || ' ' || pruned FROM _segno_flow"); got != "2,4,5 3" {
		t.Errorf("rows left, and up to where it may have gaps: got = %s, want 2,4,5 3", got)
	}
}

// Nothing reads the finished runs as a whole, or looks for rows of a run.
func TestPlansOfPruning(t *testing.T) {
	s := fresh(t)
	inhabit(t, s)
	now := time.Now().UnixMicro()
	scan := regexp.MustCompile(`SCAN (r|n|j|l|m|g|p|_segno_\w+)\b|AUTOMATIC|TEMP B-TREE`)
	for _, c := range []struct {
		query string
		args  []any
		has   string
	}{
		{selectSurplus, []any{1, 0, 1, 10, now, now}, `SEARCH r USING INDEX _segno_run_flow \(flow=\? AND rowid>\? AND rowid<\?\)(.|\n)*SEARCH n USING COVERING INDEX _segno_run_flow`},
		{selectCrowded, []any{0, 1, 10}, `SEARCH _segno_flow USING INTEGER PRIMARY KEY`},
		{selectLinks, []any{1, 0}, `SEARCH j USING INTEGER PRIMARY KEY`},
		{selectStanding, []any{"[[1,1]]"}, `SEARCH r USING INTEGER PRIMARY KEY`},
		{selectAgedSlots, []any{0, now, 10}, `SEARCH l USING INTEGER PRIMARY KEY`},
		{selectAgedEvents, []any{0, now, 10}, `SEARCH e USING INTEGER PRIMARY KEY`},
		{"DELETE FROM _segno_signal WHERE run IN (SELECT value FROM json_each('[1]'))", nil, `SEARCH _segno_signal USING .*INDEX _segno_signal_queue \(run=\?\)`},
		{"DELETE FROM _segno_memo WHERE run IN (SELECT value FROM json_each('[1]'))", nil, `SEARCH _segno_memo USING PRIMARY KEY \(run=\?\)`},
		{"DELETE FROM _segno_journal WHERE id IN (SELECT value FROM json_each('[1]'))", nil, `SEARCH _segno_journal USING INTEGER PRIMARY KEY`},
	} {
		pin{regexp.MustCompile(c.has), scan}.check(t, c.query, plan(t, s.DB(), c.query, c.args...))
	}
}

// Free pages are given back, as many at a time as asked for.
func TestVacuum(t *testing.T) {
	s := fresh(t)
	must(t, s, "CREATE TABLE t (x)", "INSERT INTO t VALUES (zeroblob(1000000))", "DELETE FROM t")
	before, pages, err := s.Free(ctx)
	if ok, mode := s.Vacuums(ctx); err != nil || mode != nil || !ok || before < 200 {
		t.Fatalf("got = %d free pages (%v, %v), a file that vacuums: %v; want 200 and more, true", before, err, mode, ok)
	}
	if err := s.Update(ctx, func(tx *Tx) error { return tx.Vacuum(50) }); err != nil {
		t.Fatal(err)
	}
	after, fewer, err := s.Free(ctx)
	if err != nil || before-after != 50 || pages-fewer < 50 {
		t.Errorf("given back: got = %d free of %d pages, then %d of %d (%v), want 50 fewer", before, pages, after, fewer, err)
	}
}
