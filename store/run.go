package store

import (
	"errors"
	"time"

	"github.com/segnodev/segno/engine"
)

// runColumns are the columns of a head, in the order of headInto.
const runColumns = `run, seq, status, version, nonce, key, state, visit, attempt, polls, crashes, uncertain,
	entered, visit_due, due, delay, data, held, suspect, cancel, wake, deadline, cause, error, stuck_reason,
	first, last, undo_at, undo_errors, redo, slot, missed, first_missed, created, started, ended, note,
	awaits, child, parent, parent_visit, depth, try, backfill`

// headInto returns where the flow's number and the columns of runColumns are
// scanned to. It serves many rows, if the head is empty before each: a NULL leaves a
// field as it is.
func headInto(flow *int64, h *engine.Head) []any {
	return []any{
		flow,
		&h.Run, &h.Seq, &h.Status, &h.Version, &h.Nonce, str{&h.Key}, &h.State, &h.Visit, &h.Attempt, &h.Polls,
		&h.Crashes, &h.Uncertain, at{&h.Entered}, at{&h.VisitDue}, at{&h.Due}, dur{&h.Delay}, blob{&h.Data},
		&h.Held, &h.Suspect, &h.Cancel, at{&h.Wake}, at{&h.Deadline}, str{(*string)(&h.Cause)}, str{&h.Error},
		str{&h.StuckReason}, &h.First, &h.Last, &h.UndoAt, &h.UndoErrors, &h.Redo, at{&h.Slot}, &h.Missed,
		at{&h.FirstMissed}, at{&h.Created}, at{&h.Started}, at{&h.Ended}, str{&h.Note},
		str{&h.Awaits}, num{&h.Child}, num{&h.Parent}, count{&h.ParentVisit}, &h.Depth, &h.Try, num{&h.Backfill},
	}
}

// The ways to write a head. A new one has values in few columns. A transition
// of a running run touches no indexed column, and it and the completion bind
// no more than they must: binding is a good part of their cost, and a numbered
// parameter takes twice as long to bind as one without a name.
const (
	insertSQL = `INSERT INTO _segno_run (flow, run, seq, status, version, nonce, key, state, visit, attempt, entered, due, data,
	held, wake, deadline, first, last, slot, missed, first_missed, created, started, parent, parent_visit, depth, try, backfill)
VALUES (?, ?, 1, ?, ?, ?, ?, ?, 1, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	completeSQL = `UPDATE _segno_run SET seq = seq + 1, status = 'completed', state = ?, visit = ?, attempt = 1, polls = 0, crashes = 0,
	uncertain = 0, suspect = 0, held = 0, entered = ?, visit_due = NULL, due = NULL, delay = NULL, wake = NULL, data = ?, last = ?, ended = ?
WHERE run = ? AND seq = ?`

	advanceSQL = `UPDATE _segno_run SET seq = seq + 1, state = ?, visit = ?, attempt = 1, polls = 0, crashes = 0,
	uncertain = 0, suspect = 0, entered = ?, visit_due = NULL, due = NULL, delay = NULL, data = ?, last = ?, undo_at = ?
WHERE run = ? AND seq = ? AND cancel = 0`

	replaceSQL = `UPDATE _segno_run SET seq = seq + 1, status = ?, version = ?, state = ?, visit = ?, attempt = ?, polls = ?,
	crashes = ?, uncertain = ?, entered = ?, visit_due = ?, due = ?, delay = ?, data = ?, held = ?, suspect = ?,
	wake = ?, cause = ?, error = ?, stuck_reason = ?, last = ?, undo_at = ?, undo_errors = ?, redo = ?, started = ?, ended = ?,
	awaits = ?, child = ?
WHERE run = ? AND seq = ? AND (cancel = 0 OR ?)`
)

// commit applies a change of the engine's. c itself is completed only once the
// batch is through: it may have to be applied again.
func (tx *Tx) commit(c *engine.Change) error {
	last, undoAt := c.Before.Last, c.After.UndoAt
	first := tx.w.nextEntry
	for i := range c.Entries {
		e := &c.Entries[i]
		e.ID, e.Run, e.Version = first+int64(i), c.After.Run, c.After.Version
		e.Prev, last = last, e.ID
		if e.Undo != "" {
			e.PrevUndo, undoAt = undoAt, e.ID
		}
	}
	child := c.After.Child
	if c.Call != nil {
		child = tx.w.nextRun // Insert hands it out, below
	}
	if err := tx.replace(c, links{last, undoAt, child}); err != nil {
		return err
	}
	tx.append(c.Entries...)
	if err := tx.memos(c); err != nil {
		return err
	}
	if err := tx.related(c, child); err != nil {
		return err
	}
	tx.counted(c.Before, &c.After)
	tx.markLong(c)
	if err := tx.join(c.OnCommit, c.Before); err != nil {
		return err
	}
	tx.After(func() { c.After.Seq, c.After.Last, c.After.UndoAt, c.After.Child = c.Before.Seq+1, last, undoAt, child })
	return nil
}

// join calls the functions of the user's that join a commit.
func (tx *Tx) join(fns []func(engine.Tx) error, h *engine.Head) error {
	for _, fn := range fns {
		err := tx.User("OnCommit", func() error { return fn(tx) }, "flow", h.Flow, "run", h.Run, "state", h.State)
		if err != nil {
			return &engine.OnCommitError{Err: err}
		}
	}
	return nil
}

// memos writes what the change wants remembered, and drops what it is done with.
func (tx *Tx) memos(c *engine.Change) error {
	if err := tx.putMemos(c.After.Run, c.After.Visit, c.Memos); err != nil || !c.DropMemos {
		return err
	}
	_, err := tx.exec(tx.w.dropMemos, c.After.Run, c.Before.Visit, sweepPage)
	return err
}

// links are what a head points to: its last entry, the next visit to undo, the
// run it has called.
type links struct{ last, undoAt, child int64 }

// replace is the compare-and-set.
func (tx *Tx) replace(c *engine.Change, links links) error {
	h := &c.After
	last, undoAt, child := links.last, links.undoAt, links.child
	var n int64
	var err error
	switch shapeOf(c) {
	case advances:
		n, err = tx.exec(tx.w.advance, h.State, h.Visit, micros(h.Entered), string(h.Data), last, undoAt, h.Run, c.Before.Seq)
	case completes:
		n, err = tx.exec(tx.w.complete, h.State, h.Visit, micros(h.Ended), string(h.Data), last, micros(h.Ended), h.Run, c.Before.Seq)
	default:
		n, err = tx.exec(tx.w.replace, h.Status, h.Version, h.State, h.Visit, h.Attempt, h.Polls, h.Crashes, h.Uncertain,
			micros(h.Entered), micros(h.VisitDue), micros(h.Due), span(h.Delay), string(h.Data), h.Held, h.Suspect,
			micros(h.Wake), text(string(h.Cause)), text(h.Error), text(h.StuckReason), last, undoAt, h.UndoErrors, h.Redo,
			micros(h.Started), micros(h.Ended), text(h.Awaits), number(child), h.Run, c.Before.Seq, c.Yields)
	}
	if err != nil || n == 1 {
		return err
	}
	return tx.refusal(h.Run, c.Before.Seq)
}

// shape tells the changes apart that have a statement of their own.
type shape int

const (
	other shape = iota
	advances
	completes
)

func shapeOf(c *engine.Change) shape {
	if c.Before.Status != engine.Running || len(c.Entries) != 1 || c.Before.Child != 0 || c.Before.Awaits != "" {
		return other
	}
	switch kind := c.Entries[0].Kind; {
	case kind == engine.KindEnter && c.After.Status == engine.Running:
		return advances
	case kind == engine.KindEnd && c.After.Status == engine.Completed:
		return completes
	}
	return other
}

const seqSQL = "SELECT seq FROM _segno_run WHERE run = ?"

// refusal says why a compare-and-set found no row.
func (tx *Tx) refusal(run, seq int64) error {
	var now int64
	err := tx.row(seqSQL, run).Scan(&now)
	if err == nil && now == seq {
		return engine.ErrCancelRequested
	}
	if err != nil {
		return err
	}
	return ErrConflict
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
	if h.Parent != 0 {
		return // its flow's policies do not govern it
	}
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
	_, err := tx.exec(tx.w.insert, f.num, h.Run, h.Status, h.Version, h.Nonce, text(h.Key), h.State, micros(h.Created), micros(h.Due),
		string(h.Data), h.Held, micros(h.Wake), micros(h.Deadline), h.First, h.Last, micros(h.Slot), h.Missed, micros(h.FirstMissed), micros(h.Created), micros(h.Started),
		number(h.Parent), number(int64(h.ParentVisit)), h.Depth, h.Try, number(h.Backfill))
	if err != nil {
		return err
	}
	tx.count(f, h, +1)
	tx.append(engine.Entry{
		ID: h.First, Run: h.Run, Visit: 1, Kind: engine.KindEnter, State: h.State, Attempt: 1,
		Version: h.Version, At: h.Created, Data: h.Data,
	})
	return nil
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
	rows, err := tx.rows("SELECT flow, "+runColumns+" FROM _segno_run "+where, args...)
	if err != nil {
		return nil, tx.note(err)
	}
	defer rows.Close()
	var h engine.Head
	var flow int64
	into := headInto(&flow, &h)
	for rows.Next() {
		h = engine.Head{}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		if f := tx.w.flows[flow]; f != nil {
			h.Flow = f.ID
		}
		heads = append(heads, h)
	}
	return heads, tx.note(rows.Err())
}

// ByKey returns the run of a flow that was triggered with the given key.
func (tx *Tx) ByKey(flow, key string) (h engine.Head, found bool, err error) {
	heads, err := tx.Heads("WHERE flow = (SELECT flow FROM _segno_flow WHERE id = ?) AND key = ?", flow, key)
	if err != nil || len(heads) == 0 {
		return h, false, err
	}
	return heads[0], true, nil
}

// Replace writes a head that the scheduler changed, with the entries that go
// with it. The run's cancel flag does not matter to it.
func (tx *Tx) Replace(before, after engine.Head, entries ...engine.Entry) error {
	return tx.commit(&engine.Change{Before: &before, After: after, Entries: entries, Yields: true})
}

// Shorten lets a waiting run wait no longer than its delay from now on.
func (tx *Tx) Shorten(h engine.Head, now time.Time) error {
	after := h
	after.Due = now.Add(h.Delay)
	if after.Wake.After(after.Due) {
		after.Wake = after.Due
	}
	err := tx.Replace(h, after)
	if errors.Is(err, ErrConflict) {
		return nil // it has moved on meanwhile
	}
	return err
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
	held, err := tx.hold(h, suspect)
	if err == nil && !held && !h.Cancel {
		h.Cancel = true // a cancel does not move seq, so the head at hand may not know of it yet
		held, err = tx.hold(h, suspect)
	}
	if err != nil || !held {
		return false, err
	}
	h.Seq++
	tx.counted(&before, h)
	return true, nil
}

const holdSQL = `UPDATE _segno_run SET seq = seq + 1, status = ?, held = 1, suspect = ?, wake = ?, started = ?, due = ?
WHERE run = ? AND seq = ? AND held = 0 AND cancel = ?`

// hold is the compare-and-set of Hold. It does not ask for the row it has changed:
// that takes twice as long.
func (tx *Tx) hold(h *engine.Head, suspect bool) (bool, error) {
	n, err := tx.do(holdSQL, h.Status, suspect, micros(h.Wake), micros(h.Started), micros(h.Due), h.Run, h.Seq, h.Cancel)
	return n == 1, err
}

// SetNote keeps a person's note on a run; "" takes it back.
func (tx *Tx) SetNote(run int64, note string) error {
	_, err := tx.do("UPDATE _segno_run SET note = ? WHERE run = ?", text(note), run)
	return err
}
