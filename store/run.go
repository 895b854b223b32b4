package store

import (
	"time"

	"github.com/segnodev/segno/engine"
)

// runColumns are the columns of a head, in the order of scanHead and of the
// INSERT; the flow's number comes before them.
const runColumns = `run, seq, status, version, nonce, key, state, visit, attempt, polls, crashes, uncertain,
	entered, visit_due, due, delay, data, held, suspect, cancel, wake, deadline, cause, error, stuck_reason,
	first, last, undo_at, undo_errors, redo, slot, missed, first_missed, created, started, ended, note`

// scanHead reads the flow's number and the columns of runColumns.
func scanHead(row interface{ Scan(...any) error }, flow *int64, h *engine.Head) error {
	return row.Scan(flow,
		&h.Run, &h.Seq, &h.Status, &h.Version, &h.Nonce, str{&h.Key}, &h.State, &h.Visit, &h.Attempt, &h.Polls,
		&h.Crashes, &h.Uncertain, at{&h.Entered}, at{&h.VisitDue}, at{&h.Due}, dur{&h.Delay}, blob{&h.Data},
		&h.Held, &h.Suspect, &h.Cancel, at{&h.Wake}, at{&h.Deadline}, str{(*string)(&h.Cause)}, str{&h.Error},
		str{&h.StuckReason}, &h.First, &h.Last, &h.UndoAt, &h.UndoErrors, &h.Redo, at{&h.Slot}, &h.Missed,
		at{&h.FirstMissed}, at{&h.Created}, at{&h.Started}, at{&h.Ended}, str{&h.Note})
}

func headValues(flow int64, h *engine.Head) []any {
	return []any{
		flow,
		h.Run, h.Seq, h.Status, h.Version, h.Nonce, text(h.Key), h.State, h.Visit, h.Attempt, h.Polls,
		h.Crashes, h.Uncertain, micros(h.Entered), micros(h.VisitDue), micros(h.Due), span(h.Delay), string(h.Data),
		h.Held, h.Suspect, h.Cancel, micros(h.Wake), micros(h.Deadline), text(string(h.Cause)), text(h.Error),
		text(h.StuckReason), h.First, h.Last, h.UndoAt, h.UndoErrors, h.Redo, micros(h.Slot), h.Missed,
		micros(h.FirstMissed), micros(h.Created), micros(h.Started), micros(h.Ended), text(h.Note),
	}
}

// The two ways to replace a head. The first is the hot one: a transition of a
// running run touches no indexed column.
const (
	advanceSQL = `UPDATE _segno_run SET seq = seq + 1, state = ?, visit = ?, attempt = 1, polls = 0, crashes = 0,
	uncertain = 0, suspect = 0, entered = ?, visit_due = NULL, due = NULL, delay = NULL, data = ?, last = ?, undo_at = ?
WHERE run = ? AND seq = ? AND cancel = 0`

	replaceSQL = `UPDATE _segno_run SET seq = seq + 1, status = ?, version = ?, state = ?, visit = ?, attempt = ?, polls = ?,
	crashes = ?, uncertain = ?, entered = ?, visit_due = ?, due = ?, delay = ?, data = ?, held = ?, suspect = ?,
	wake = ?, cause = ?, error = ?, stuck_reason = ?, last = ?, undo_at = ?, undo_errors = ?, redo = ?, started = ?, ended = ?
WHERE run = ? AND seq = ? AND (cancel = 0 OR ?)`

	entrySQL = `INSERT INTO _segno_journal (id, run, visit, kind, state, attempt, version, at, data, cause, error, uncertain, undo, prev, prev_undo)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
)

// commit applies a change of the engine's.
func (tx *Tx) commit(c *engine.Change) error {
	h := &c.After
	h.Last = c.Before.Last
	first := tx.w.nextEntry
	for i := range c.Entries {
		e := &c.Entries[i]
		e.ID, e.Run, e.Version = first+int64(i), h.Run, h.Version
		e.Prev, h.Last = h.Last, e.ID
		if e.Undo != "" {
			e.PrevUndo, h.UndoAt = h.UndoAt, e.ID
		}
	}
	if err := tx.replace(c); err != nil {
		return err
	}
	for i := range c.Entries {
		if err := tx.appendEntry(&c.Entries[i]); err != nil {
			return err
		}
	}
	if err := tx.putMemos(h.Run, h.Visit, c.Memos); err != nil {
		return err
	}
	if c.DropMemos {
		if _, err := tx.exec(tx.w.dropMemos, h.Run, c.Before.Visit, sweepPage); err != nil {
			return err
		}
	}
	h.Seq = c.Before.Seq + 1
	tx.counted(&c.Before, h)
	for _, fn := range c.OnCommit {
		if err := tx.User(h.Flow+" "+c.Before.State, func() error { return fn(tx) }); err != nil {
			return &engine.OnCommitError{Err: err}
		}
	}
	return nil
}

// replace is the compare-and-set.
func (tx *Tx) replace(c *engine.Change) error {
	h := &c.After
	hot := c.Before.Status == engine.Running && h.Status == engine.Running && len(c.Entries) == 1 && c.Entries[0].Kind == engine.KindEnter
	var n int64
	var err error
	if hot {
		n, err = tx.exec(tx.w.advance, h.State, h.Visit, micros(h.Entered), string(h.Data), h.Last, h.UndoAt, h.Run, c.Before.Seq)
	} else {
		n, err = tx.exec(tx.w.replace, h.Status, h.Version, h.State, h.Visit, h.Attempt, h.Polls, h.Crashes, h.Uncertain,
			micros(h.Entered), micros(h.VisitDue), micros(h.Due), span(h.Delay), string(h.Data), h.Held, h.Suspect,
			micros(h.Wake), text(string(h.Cause)), text(h.Error), text(h.StuckReason), h.Last, h.UndoAt, h.UndoErrors, h.Redo,
			micros(h.Started), micros(h.Ended), h.Run, c.Before.Seq, c.Yields)
	}
	if err != nil || n == 1 {
		return err
	}
	return tx.refusal(h.Run, c.Before.Seq)
}

// refusal says why a compare-and-set found no row.
func (tx *Tx) refusal(run, seq int64) error {
	var now int64
	err := tx.w.conn.QueryRowContext(background, "SELECT seq FROM _segno_run WHERE run = ?", run).Scan(&now)
	if err == nil && now == seq {
		return engine.ErrCancelRequested
	}
	if err != nil {
		return err
	}
	return ErrConflict
}

func (tx *Tx) appendEntry(e *engine.Entry) error {
	tx.w.nextEntry = e.ID + 1
	var data any
	if e.Data != nil {
		data = string(e.Data)
	}
	var uncertain any
	if e.Uncertain {
		uncertain = 1
	}
	_, err := tx.exec(tx.w.entry, e.ID, e.Run, e.Visit, e.Kind, e.State, e.Attempt, e.Version, micros(e.At), data,
		text(string(e.Cause)), text(e.Error), uncertain, text(e.Undo), number(e.Prev), number(e.PrevUndo))
	return err
}

// counted keeps the flow's counters of open runs, and tells the scheduler of
// an end.
func (tx *Tx) counted(before, after *engine.Head) {
	if before.Status == after.Status {
		return
	}
	f := tx.Flow(before.Flow)
	if f == nil {
		return
	}
	tx.count(f, before, -1)
	tx.count(f, after, +1)
	if (after.Status.Ended() || after.Status == engine.Stuck) && tx.w.settle != nil {
		tx.w.settle(tx, f, after)
	}
}

// count adds n to the counter that the head belongs to.
func (tx *Tx) count(f *Flow, h *engine.Head, n int) {
	switch h.Status {
	case engine.Running, engine.Parked, engine.Waiting, engine.Undoing:
		f.Active += n
	case engine.Stuck:
		f.Stuck += n
	case engine.Pending:
		if h.Started.IsZero() && !h.Due.IsZero() {
			f.Later += n
		} else {
			f.Queued += n
		}
	}
}

// Insert creates a run: its head and its first entry. The writer hands out the id.
func (tx *Tx) Insert(h *engine.Head) error {
	f := tx.Flow(h.Flow)
	if f == nil {
		return ErrNotFound
	}
	h.Run, h.Seq, h.Visit, h.Attempt = tx.w.nextRun, 1, 1, 1
	h.First, h.Last = tx.w.nextEntry, tx.w.nextEntry
	tx.w.nextRun++
	if _, err := tx.exec(tx.w.insert, headValues(f.num, h)...); err != nil {
		return err
	}
	tx.count(f, h, +1)
	return tx.appendEntry(&engine.Entry{
		ID: h.First, Run: h.Run, Visit: 1, Kind: engine.KindEnter, State: h.State, Attempt: 1,
		Version: h.Version, At: h.Created, Data: h.Data,
	})
}

// Head returns a run's head as the transaction sees it.
func (tx *Tx) Head(run int64) (h engine.Head, err error) {
	rows, err := tx.Heads("WHERE run = ?", run)
	if err != nil || len(rows) == 0 {
		return h, notFound(err)
	}
	return rows[0], nil
}

// Heads returns the heads that a WHERE clause selects.
func (tx *Tx) Heads(where string, args ...any) (heads []engine.Head, err error) {
	rows, err := tx.w.conn.QueryContext(background, "SELECT flow, "+runColumns+" FROM _segno_run "+where, args...)
	if err != nil {
		return nil, tx.note(err)
	}
	defer rows.Close()
	for rows.Next() {
		var h engine.Head
		var flow int64
		if err := scanHead(rows, &flow, &h); err != nil {
			return nil, err
		}
		if f := tx.w.flows[flow]; f != nil {
			h.Flow = f.ID
		}
		heads = append(heads, h)
	}
	return heads, tx.note(rows.Err())
}

// Replace writes a head that the scheduler changed, with the entries that go
// with it. The run's cancel flag does not matter to it.
func (tx *Tx) Replace(before, after engine.Head, entries ...engine.Entry) (engine.Head, error) {
	c := &engine.Change{Before: before, After: after, Entries: entries, Yields: true}
	err := tx.commit(c)
	return c.After, err
}

// OpenRuns returns the open runs of a flow, of one status or of all, whose time
// has come at now; the zero time asks for all.
func (tx *Tx) OpenRuns(flow string, status engine.Status, now time.Time) ([]engine.Head, error) {
	f := tx.w.byID[flow]
	if f == nil {
		return nil, ErrNotFound
	}
	where, args := openRuns+"flow = ?", []any{f.num}
	if status != "" {
		where, args = where+" AND status = ?", append(args, status)
	}
	if !now.IsZero() {
		where, args = where+" AND wake <= ?", append(args, micros(now))
	}
	return tx.Heads(where, args...)
}

// SetCancel sets a run's cancel flag, without moving its seq: the transition in
// flight must meet it. A run that nobody holds is woken.
func (tx *Tx) SetCancel(run int64, now time.Time) error {
	_, err := tx.do(`UPDATE _segno_run SET cancel = 1, wake = CASE held WHEN 1 THEN wake ELSE ? END
WHERE run = ? AND ended IS NULL`, micros(now), run)
	return err
}

// Hold takes a run that waits in the file: from now on its code may execute.
// It reports false if the run is no longer there to be taken.
func (tx *Tx) Hold(h *engine.Head, now time.Time, suspect bool) (bool, error) {
	before := *h
	if h.Status != engine.Undoing {
		h.Status = engine.Running
	}
	h.Held, h.Suspect, h.Wake = true, suspect, h.Deadline
	if h.Started.IsZero() {
		h.Started = now
		h.Due = time.Time{}
	}
	n, err := tx.exec(tx.w.hold, h.Status, suspect, micros(h.Wake), micros(h.Started), micros(h.Due), h.Run, h.Seq)
	if err != nil || n == 0 {
		return false, err
	}
	h.Seq++
	tx.counted(&before, h)
	return true, nil
}

const holdSQL = `UPDATE _segno_run SET seq = seq + 1, status = ?, held = 1, suspect = ?, wake = ?, started = ?, due = ?
WHERE run = ? AND seq = ? AND held = 0`

// SetNote keeps a person's note on a run.
func (tx *Tx) SetNote(run int64, note string) error {
	_, err := tx.do("UPDATE _segno_run SET note = ? WHERE run = ?", note, run)
	return err
}

// Entry returns an entry of the journal as the transaction sees it.
func (tx *Tx) Entry(id int64) (engine.Entry, error) {
	e, err := scanEntry(tx.w.conn.QueryRowContext(background, selectEntry, id))
	return e, tx.note(err)
}
