package segnotest

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

type (
	phase string
	steps = segno.Steps[phase, int]
)

// work is a workflow with something to undo, and a wait.
func work(wait time.Duration) segno.Workflow[phase, int] {
	return segno.Workflow[phase, int]{Initial: "a", Steps: steps{
		"a": {Do: func(ctx context.Context, n *int) (phase, error) {
			*n++
			return "b", segno.SaveMemo(ctx, "k", *n)
		}, Undo: func(context.Context, int) error { return nil }},
		"b":    {Do: segno.Sleep[int](wait, phase("done"))},
		"done": {Final: true},
	}}
}

// sample makes a file with a run that completed, one that was cancelled, one
// that is parked, and one of a slot.
func sample(t *testing.T, path string) {
	t.Helper()
	r := OpenFile(t, path, segno.Options{}, func(s *segno.Scheduler) error {
		return errors.Join(
			s.Every("slots", work(0), time.Hour),
			s.Manual("quick", work(0)),
			s.Add(segno.Flow{ID: "slow", Workflow: work(time.Hour), Overlap: segno.Allow(0)}),
		)
	})
	ctx := context.Background()
	var cancelled segno.RunID
	for _, flow := range []string{"quick", "slow", "slow"} {
		id, err := r.Trigger(ctx, flow, segno.Trigger{})
		if err != nil {
			t.Fatal(err)
		}
		cancelled = id
	}
	if err := r.CancelRun(ctx, cancelled); err != nil {
		t.Fatal(err)
	}
	_, _ = r.WaitRun(ctx, cancelled)
	synctest.Wait()
	Check(t, path) // beside the process that writes
}

// Every rule is broken in its turn, and the fault is named.
func TestCheckFindsFaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "segno.db")
	synctest.Test(t, func(t *testing.T) { sample(t, path) })
	if err := check(path); err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct{ name, damage, want string }{
		{"counter", "UPDATE _segno_flow SET active = active + 1 WHERE id = 'slow'", "counts 2 active"},
		{"later", "UPDATE _segno_flow SET later = 1 WHERE id = 'quick'", "1 later"},
		{"memo", "INSERT INTO _segno_memo SELECT run, visit + 1, 'x', 'y' FROM _segno_run LIMIT 1", "belongs to visit"},
		{"memo of no run", "INSERT INTO _segno_memo VALUES (999, 1, 'x', 'y')", "the run is in visit none"},
		{"held", "UPDATE _segno_run SET held = 1 WHERE status = 'completed'", "is held and completed"},
		{"wake", "UPDATE _segno_run SET wake = NULL WHERE status = 'parked'", "nothing will wake it"},
		{"ended", "UPDATE _segno_run SET ended = NULL WHERE status = 'cancelled'", "is cancelled and has ended at no time"},
		{"open", "UPDATE _segno_run SET ended = 1 WHERE status = 'parked'", "is parked and has ended"},
		{"chain", "UPDATE _segno_journal SET prev = 1 WHERE kind = 'undone'", "prev is 1"},
		{"undo chain", "UPDATE _segno_journal SET prev_undo = 77 WHERE undo IS NOT NULL", "prev_undo is 77"},
		{"last", "UPDATE _segno_run SET last = last - 1 WHERE status = 'cancelled'", "the run says"},
		{"no end", "UPDATE _segno_journal SET kind = 'enter' WHERE kind = 'end'", "last entry is enter"},
		{"two ends", "UPDATE _segno_journal SET kind = 'end', visit = 1 WHERE kind = 'enter' AND visit = 1", "follows the end"},
		{"visits", "UPDATE _segno_journal SET visit = visit + 1 WHERE kind = 'enter' AND visit = 2", "has visit 3, want 2 to 2"},
		{"orphan", "INSERT INTO _segno_journal SELECT 9999, 9999, visit, kind, state, attempt, version, at, data, cause, error, uncertain, undo, prev, prev_undo FROM _segno_journal LIMIT 1", "which does not exist"},
		{"off the chain, last", "INSERT INTO _segno_journal SELECT 9999, run, visit, kind, state, attempt, version, at, data, cause, error, uncertain, undo, prev, prev_undo FROM _segno_journal WHERE id = (SELECT last FROM _segno_run WHERE status = 'parked')", "entry 9999: prev is"},
		{"off the chain, first", "UPDATE _segno_journal SET prev = NULL WHERE prev = (SELECT first FROM _segno_run WHERE status = 'completed')", "prev is 0, the entry before is"},
		{"off the chain, between", "UPDATE _segno_journal AS j SET prev = (SELECT b.prev FROM _segno_journal b WHERE b.id = j.prev) WHERE id = (SELECT last FROM _segno_run WHERE status = 'completed')", "the entry before is"},
		{"of another run", "UPDATE _segno_journal SET run = (SELECT run FROM _segno_run WHERE status = 'parked') WHERE id = (SELECT last FROM _segno_run WHERE status = 'cancelled')", "the entry before is"},
		{"no history", "DELETE FROM _segno_journal WHERE run = 1", "has no history"},
		{"slot gone", "DELETE FROM _segno_ledger", "has 0 firings"},
		{"slot twice", "INSERT INTO _segno_ledger (flow, first, last, count, outcome, reason, at) SELECT flow, first - 1, last, 2, 'skipped', 'paused', at FROM _segno_ledger", "has two outcomes"},
		{"gap", "INSERT INTO _segno_ledger (flow, first, last, count, outcome, reason, at) SELECT flow, first + 7200000000, last + 7200000000, 1, 'skipped', 'paused', at FROM _segno_ledger", "has no outcome"},
		{"count", "INSERT INTO _segno_ledger (flow, first, last, count, outcome, reason, at) SELECT flow, first + 3600000000, last + 7200000000, 3, 'skipped', 'paused', at FROM _segno_ledger", "are not 3"},
		{"cursor", "UPDATE _segno_flow SET cursor = cursor + 3600000000 WHERE id = 'slots'", "the cursor stands at"},
		{"missed", "UPDATE _segno_run SET missed = 3 WHERE slot IS NOT NULL", "stands for 3 missed slots"},
		{"fired", "UPDATE _segno_flow SET fired = 9 WHERE id = 'slots'", "counts 9 slots that fired"},
		{"grid", "UPDATE _segno_flow SET anchor = anchor + 3600000007, registered = anchor WHERE id = 'slots'", "its grid begins at"},
		{"foreign key", "UPDATE _segno_ledger SET flow = 999", "foreign_key_check"},
	} {
		t.Run(f.name, func(t *testing.T) {
			text := "nothing"
			if err := damaged(t, path, f.damage); err != nil {
				text = err.Error()
			}
			if !strings.Contains(text, f.want) {
				t.Errorf("faults: got = %s, want = %s", text, f.want)
			}
		})
	}
}

// damaged checks a copy of the file with something changed.
func damaged(t *testing.T, path, damage string) error {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "copy.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("VACUUM INTO ?", copied); err != nil {
		t.Fatal(err)
	}
	other, err := sql.Open("sqlite", copied)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Exec(damage); err != nil {
		t.Fatal(err)
	}
	return check(copied)
}
