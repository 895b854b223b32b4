package store

import (
	"time"

	"github.com/segnodev/segno/engine"
)

// openRuns begins a condition on open runs: it keeps SQLite to the index of those,
// however many have ended.
const openRuns = "INDEXED BY _segno_run_open WHERE ended IS NULL AND "

// SuspectAfter is the number of deaths from which on a visit is a suspect:
// resumed last, alone, and under watch.
const SuspectAfter = 3

// Recovery is what the last owner left behind.
type Recovery struct {
	Clean       bool          // it stopped by itself
	Interrupted int           // runs that were executing
	Counted     int           // of these, blamed for the death
	Overdue     int           // runs past their deadline
	Suspects    int           // runs to be resumed last and alone
	SuspectFor  time.Duration // how long a suspect must live before the next
}

// Recover lets go of every run that the last owner held, and counts a crash on
// those that may have killed it. A run that slept a short wait is innocent. A
// suspect is blamed only if it was the only one executing; if several were, none
// of them is, and the next start watches each for twice as long. What is no
// suspect yet is counted in any case: it may be the one, and until it is watched,
// too, suspects would be blamed for what it does.
func (tx *Tx) Recover(now time.Time, suspectFor time.Duration) (rec Recovery, err error) {
	var was int64
	row := tx.row("SELECT clean, suspect_for FROM _segno_owner")
	if err := row.Scan(&rec.Clean, &was); err != nil {
		return rec, tx.note(err)
	}
	held, err := tx.Heads(openRuns + "status IN ('running', 'undoing') AND held = 1 ORDER BY run")
	if err != nil {
		return rec, err
	}
	suspects := 0
	for i := range held {
		if held[i].Suspect && executing(&held[i], now) {
			suspects++
		}
	}
	rec.SuspectFor = max(suspectFor, time.Duration(was)*time.Microsecond)
	if suspects > 1 {
		rec.SuspectFor *= 2
	} else if rec.Clean {
		rec.SuspectFor = suspectFor
	}
	for i := range held {
		blamed := !rec.Clean && executing(&held[i], now) && (!held[i].Suspect || suspects == 1)
		if err := tx.letGo(held[i], now, blamed); err != nil {
			return rec, err
		}
		rec.Interrupted++
		if blamed {
			rec.Counted++
		}
		if d := held[i].Deadline; !d.IsZero() && d.Before(now) {
			rec.Overdue++
		}
	}
	// What a stop has suspended may go on at once, also if the clock was set back since.
	if _, err := tx.do("UPDATE _segno_run SET wake = ?1 WHERE run IN (SELECT run FROM _segno_run "+openRuns+"status IN ('pending', 'undoing') AND wake > ?1 AND (due IS NULL OR status = 'pending' AND started IS NOT NULL))", micros(now)); err != nil {
		return rec, err
	}
	row = tx.row("SELECT count(*) FROM _segno_run "+openRuns+"status IN ('pending', 'undoing') AND crashes >= ?", SuspectAfter)
	if err := row.Scan(&rec.Suspects); err != nil {
		return rec, tx.note(err)
	}
	_, err = tx.do("UPDATE _segno_owner SET clean = 0, suspect_for = ?", rec.SuspectFor.Microseconds())
	return rec, err
}

// executing reports whether a held run was in its code, not in a short wait.
func executing(h *engine.Head, now time.Time) bool {
	return h.Due.IsZero() || !h.Due.After(now)
}

// letGo makes a held run one that waits for its turn.
func (tx *Tx) letGo(h engine.Head, now time.Time, blamed bool) error {
	after := h
	after.Held, after.Suspect, after.Wake = false, false, h.Started
	if after.Wake.After(now) { // the clock was stepped back
		after.Wake = now
	}
	died := "the process died in an undo"
	if h.Status == engine.Running {
		after.Status, died = engine.Pending, "the process died in this visit"
		after.Uncertain = h.Uncertain || executing(&h, now)
	}
	if blamed {
		after.Crashes++
		e := engine.Entry{
			ID: tx.w.nextEntry, Run: h.Run, Kind: engine.KindCrash, State: h.State, Visit: h.Visit, Attempt: h.Attempt, Version: h.Version,
			At: now, Error: died, Uncertain: after.Uncertain, Prev: h.Last,
		}
		tx.append(e)
		after.Last = e.ID
	}
	n, err := tx.exec(tx.w.letGo, after.Status, micros(after.Wake), after.Uncertain, after.Crashes, after.Last, h.Run, h.Seq)
	if err == nil && n != 1 {
		err = ErrConflict
	}
	tx.counted(&h, &after)
	return err
}

// letGoSQL binds little: a start has to let go of every run in flight before
// the first of them is resumed.
const letGoSQL = `UPDATE _segno_run SET seq = seq + 1, status = ?, held = 0, suspect = 0, wake = ?, uncertain = ?, crashes = ?, last = ?
WHERE run = ? AND seq = ?`

// MarkClean says that the owner stops by itself, so that no crash is counted,
// and keeps the high-water marks of the ids.
func (tx *Tx) MarkClean() error {
	_, err := tx.do("UPDATE _segno_owner SET clean = 1, run_high = ?, journal_high = ?", tx.w.nextRun-1, tx.w.nextEntry-1)
	return err
}

// keepMarks keeps the high-water marks of ids handed out since MarkClean, by
// units that were in flight. If it cannot, the rows that have the ids still do.
func (w *writer) keepMarks() {
	_, _ = w.conn.ExecContext(background, `UPDATE _segno_owner SET run_high = ?1, journal_high = ?2
WHERE epoch = ?3 AND (run_high < ?1 OR journal_high < ?2)`, w.nextRun-1, w.nextEntry-1, w.epoch)
}
