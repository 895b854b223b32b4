package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/segnodev/segno"
)

// A check looks at one thing.
type check func(ctx context.Context, r *segno.Reader) []finding

// checks are all checks, those of the file first.
var checks = []check{
	checkIntegrity, checkForeignKeys, checkSchema, checkJournalMode, checkWAL, checkOwner,
	checkStuck, checkUndo, checkCrashes, checkTripped, checkOrphaned, checkOverdue,
}

const (
	walLimit   = 256 << 20        // from here on the owner itself would have truncated it
	overdueFor = 30 * time.Second // what a loaded owner may be late
	suspectAt  = 3                // deaths from which on a run is resumed alone
)

// one is a check's only finding.
func one(name string, s severity, evidence, fix string) []finding {
	return []finding{{name, s, evidence, fix}}
}

// unread is the finding of a check that could not look.
func unread(name string, err error) []finding {
	return one(name, serious, "cannot be read: "+plain(err.Error()), "stop the program and restore a backup, or save what can be read with sqlite3's .recover")
}

func checkIntegrity(ctx context.Context, r *segno.Reader) []finding {
	const name = "integrity"
	lines, err := strs(ctx, r.DB(), "PRAGMA integrity_check(5)")
	if err != nil {
		return unread(name, err)
	}
	if len(lines) == 1 && lines[0] == "ok" {
		return one(name, fine, "SQLite finds no damage", "")
	}
	return one(name, serious, strings.Join(lines, "; "),
		"stop the program and restore a backup, or save what can be read with sqlite3's .recover")
}

func checkForeignKeys(ctx context.Context, r *segno.Reader) []finding {
	const name = "foreign keys"
	tables, err := strs(ctx, r.DB(), `SELECT "table" || ' row ' || coalesce(rowid, '?') FROM pragma_foreign_key_check LIMIT 5`)
	if err != nil {
		return unread(name, err)
	}
	if len(tables) == 0 {
		return one(name, fine, "every reference leads somewhere", "")
	}
	return one(name, serious, "dangling: "+strings.Join(tables, ", "), "somebody wrote with foreign keys off; restore the rows they lead to, or remove these")
}

// checkSchema has nothing left to refuse: OpenReader has compared the versions.
func checkSchema(ctx context.Context, r *segno.Reader) []finding {
	const name = "schema"
	var version int64
	if err := r.DB().QueryRowContext(ctx, "SELECT max(version_id) FROM _segno_schema").Scan(&version); err != nil {
		return unread(name, err)
	}
	return one(name, fine, fmt.Sprintf("version %d, as this binary knows it", version), "")
}

// checkJournalMode reads the mode from the file's header: a connection to a
// file at rest does not tell.
func checkJournalMode(_ context.Context, r *segno.Reader) []finding {
	const name = "journal mode"
	f, err := os.Open(r.Path())
	if err != nil {
		return unread(name, err)
	}
	defer func() { _ = f.Close() }()
	var header [100]byte
	if _, err := io.ReadFull(f, header[:]); err != nil {
		return unread(name, err)
	}
	if header[18] == 2 && header[19] == 2 {
		return one(name, fine, "WAL", "")
	}
	return one(name, serious, "not WAL: somebody has changed it", "restart the program that owns the file: it sets WAL again")
}

func checkWAL(_ context.Context, r *segno.Reader) []finding {
	const name = "WAL"
	st, err := os.Stat(r.Path() + "-wal")
	switch {
	case os.IsNotExist(err):
		return one(name, fine, "none: all is in the file itself", "")
	case err != nil:
		return unread(name, err)
	case st.Size() > walLimit:
		return one(name, warning, fmt.Sprintf("%d MB", st.Size()>>20), "find the reader that keeps a transaction open; no checkpoint gets past it")
	}
	return one(name, fine, fmt.Sprintf("%.1f MB", float64(st.Size())/(1<<20)), "")
}

func checkOwner(ctx context.Context, r *segno.Reader) []finding {
	const name = "owner"
	o, err := r.Owner(ctx)
	if err != nil {
		return one(name, warning, "cannot be told: "+plain(err.Error()), "run this as the user who owns the file")
	}
	who := fmt.Sprintf("process %d on %s, since %s", o.PID, o.Host, o.Since.Format(time.RFC3339))
	switch {
	case o.Alive:
		return one(name, fine, "alive: "+who, "")
	case o.Clean:
		return one(name, fine, "none; the last one stopped by itself: "+who, "")
	}
	return one(name, warning, "none; the last one died: "+who, "start the program: it resumes every open run at once")
}

func checkStuck(ctx context.Context, r *segno.Reader) []finding {
	return runFindings(ctx, r, "stuck runs", segno.RunStuck, "no run needs a person", func(run *segno.RunInfo) finding {
		f := finding{
			Severity: serious,
			Evidence: fmt.Sprintf("run %d of %s in %s: %s", run.ID, run.Flow, run.State, brief(plain(run.StuckReason), 100)),
			Fix:      fmt.Sprintf("remove the cause, then ResumeRun(ctx, %d) in the program", run.ID),
		}
		if run.StuckReason == "orphaned" {
			f.Fix = fmt.Sprintf("register the flow %q again: then it goes on", run.Flow)
		}
		return f
	})
}

func checkUndo(ctx context.Context, r *segno.Reader) []finding {
	return runFindings(ctx, r, "failed undos", segno.RunUndoFailed, "every rollback is complete", func(run *segno.RunInfo) finding {
		f := finding{
			Severity: serious,
			Evidence: fmt.Sprintf("run %d of %s: rolled back in part only, after: %s", run.ID, run.Flow, brief(run.Error, 100)),
			Fix:      fmt.Sprintf("see segno runs history %d, then UndoRun(ctx, %d) or AckRun in the program", run.ID, run.ID),
		}
		if run.Note != "" {
			f = finding{Severity: fine, Evidence: fmt.Sprintf("run %d of %s is accepted as it is: %s", run.ID, run.Flow, brief(run.Note, 100))}
		}
		return f
	})
}

// listed is how many runs of one kind are named.
const listed = 10

// runFindings is a finding for each run of a status.
func runFindings(ctx context.Context, r *segno.Reader, name string, s segno.RunStatus, none string, describe func(*segno.RunInfo) finding) []finding {
	runs, err := r.Runs(ctx, segno.RunFilter{Status: []segno.RunStatus{s}, Limit: listed + 1})
	if err != nil {
		return unread(name, err)
	}
	if len(runs) == 0 {
		return one(name, fine, none, "")
	}
	var out []finding
	for i := range runs[:min(listed, len(runs))] {
		f := describe(&runs[i])
		f.Check = name
		out = append(out, f)
	}
	if len(runs) > listed {
		out = append(out, finding{name, serious, fmt.Sprintf("and more than these %d", listed), "list them: segno runs list --status " + string(s)})
	}
	return out
}

func checkCrashes(ctx context.Context, r *segno.Reader) []finding {
	const name = "crashes"
	lines, err := strs(ctx, r.DB(), `SELECT 'run ' || run || ' of ' || flow || ' in ' || state || ': ' || crashes
FROM segno_runs WHERE ended IS NULL AND crashes > 0 ORDER BY crashes DESC, run LIMIT ?`, listed)
	if err != nil {
		return unread(name, err)
	}
	if len(lines) == 0 {
		return one(name, fine, "no open run has seen the process die in its visit", "")
	}
	return one(name, warning, "deaths of the process in the current visit: "+strings.Join(lines, ", "),
		fmt.Sprintf("look into the step's code; from %d on a run is resumed alone, at Options.MaxCrashes it fails", suspectAt))
}

func checkTripped(ctx context.Context, r *segno.Reader) []finding {
	return flowFindings(ctx, r, "tripped flows", "no flow has failed too often in a row", func(f *segno.FlowInfo) *finding {
		if f.Status != segno.StatusTripped {
			return nil
		}
		return &finding{
			Severity: warning,
			Evidence: fmt.Sprintf("%s does not run any more after %d failures, the last: %s", f.ID, f.FailureStreak, brief(f.LastError, 100)),
			Fix:      fmt.Sprintf("remove the cause, then ResetFlow(ctx, %q) in the program", f.ID),
		}
	})
}

func checkOrphaned(ctx context.Context, r *segno.Reader) []finding {
	return flowFindings(ctx, r, "orphaned", "every flow of the file was registered at the last start", func(f *segno.FlowInfo) *finding {
		if !f.Orphaned {
			return nil
		}
		return &finding{
			Severity: warning,
			Evidence: fmt.Sprintf("%s is in the file but not registered since %s; open runs: %d", f.ID, f.OrphanedSince.Format(time.RFC3339), f.Open+f.Stuck),
			Fix:      "register it again, if that was a mistake: its runs go on",
		}
	})
}

// flowFindings is a finding for each flow that the function has something to say about.
func flowFindings(ctx context.Context, r *segno.Reader, name, none string, about func(*segno.FlowInfo) *finding) []finding {
	flows, err := r.List(ctx)
	if err != nil {
		return unread(name, err)
	}
	var out []finding
	for i := range flows {
		if f := about(&flows[i]); f != nil {
			f.Check = name
			out = append(out, *f)
		}
	}
	if len(out) == 0 {
		return one(name, fine, none, "")
	}
	return out
}

func checkOverdue(ctx context.Context, r *segno.Reader) []finding {
	const name = "overdue"
	before := time.Now().Add(-overdueFor).UTC().Format("2006-01-02T15:04:05.000Z")
	lines, err := strs(ctx, r.DB(), `SELECT d.what || coalesce(' ' || d.run, '') || ' of ' || d.flow || ' since ' || d.due
FROM segno_due d JOIN segno_flows f ON f.flow = d.flow
WHERE d.due < ? AND f.status <> 'tripped' AND f.paused IS NULL AND f.orphaned IS NULL ORDER BY d.due LIMIT ?`, before, listed)
	if err != nil {
		return unread(name, err)
	}
	if len(lines) == 0 {
		return one(name, fine, fmt.Sprintf("nothing is late by more than %v", overdueFor), "")
	}
	return one(name, warning, strings.Join(lines, ", "),
		"start the program if it is down; if it is up, raise Options.MaxConcurrent or Overlap, or see why commits are slow")
}

// strs returns the rows of a query for one text.
func strs(ctx context.Context, db *sql.DB, query string, args ...any) (out []string, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}
