package segno

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// A Pause says why and how long a flow is paused.
type Pause struct {
	Note  string
	Actor string    // who asks for it
	Until time.Time // when it ends by itself; zero: with ResumeFlow
	// CancelRuns cancels the flow's open runs, too.
	CancelRuns bool
}

// Resume says how a paused flow goes on.
type Resume struct {
	// CatchUp runs once for the slots that passed during the pause. Without it
	// the flow waits for its next slot.
	CatchUp bool
}

// change runs fn on a flow's row, and plans its next slot anew.
func (r *RunningScheduler) change(ctx context.Context, id string, fn func(tx *store.Tx, f *flow, row *store.Flow, now time.Time) error) error {
	f, err := r.flow(id)
	if err != nil {
		return err
	}
	err = r.update(ctx, func(tx *store.Tx) error {
		now := r.now()
		row := tx.Flow(id)
		if err := fn(tx, f, row, now); err != nil {
			return err
		}
		f.plan(row, now)
		next := row.Next
		tx.After(func() { r.planned(next) })
		return nil
	})
	return f.named(err)
}

// ResetFlow clears a flow's failure streak, backoff window and trip. Slots that
// passed meanwhile are not made up for.
func (r *RunningScheduler) ResetFlow(ctx context.Context, id string) error {
	return r.change(ctx, id, r.reset)
}

func (r *RunningScheduler) reset(tx *store.Tx, f *flow, row *store.Flow, now time.Time) error {
	if err := r.passOver(tx, f, row, now); err != nil {
		return err
	}
	was := fmt.Sprintf("streak %d, %s", row.Streak, row.Outcome)
	if f.Schedule.kind == fixedDelay && !row.GateUntil.IsZero() && row.Next.Equal(row.GateUntil) {
		row.Next = later(row.GateSet.Add(f.Schedule.d), now) // it waited for the gate only
	}
	clearStreak(row)
	if row.Outcome == string(StatusTripped) || row.Outcome == string(StatusBackoff) {
		row.Outcome = string(StatusIdle)
	}
	return tx.Event("reset", f.ID, was, now)
}

// passOver puts the slots that could not fire so far on record.
func (r *RunningScheduler) passOver(tx *store.Tx, f *flow, row *store.Flow, now time.Time) error {
	skips, err := tx.SkipsOf(row)
	if err != nil {
		return err
	}
	if !row.RetrySlot.IsZero() {
		row.RetrySlot, row.RetryTry = time.Time{}, 0
		if f.Schedule.kind == fixedDelay {
			row.Next = time.Time{} // it was that of the retry
		}
	}
	v := f.verdict(row, skips, now)
	for _, d := range v.decisions {
		if d.outcome != skipped {
			break
		}
		if err := enter(tx, row, d, 0, now); err != nil {
			return err
		}
		row.Cursor = d.last
		if f.Schedule.kind == fixedDelay {
			row.Next = time.Time{} // it was the only one; plan makes another
		}
	}
	return unmark(tx, row)
}

// PauseFlow keeps a flow's slots from firing. It does not touch runs in flight,
// unless asked to, and triggers still work. A second PauseFlow replaces the
// first one's note and end.
func (r *RunningScheduler) PauseFlow(ctx context.Context, id string, p Pause) error {
	err := r.change(ctx, id, func(tx *store.Tx, f *flow, row *store.Flow, now time.Time) error {
		if err := r.passOver(tx, f, row, now); err != nil {
			return err
		}
		if row.Paused.IsZero() {
			row.Paused = now
		}
		row.PauseNote, row.PauseActor, row.PauseUntil = p.Note, p.Actor, instant(p.Until)
		return tx.Event("paused", id, p.Note, now)
	})
	if err != nil || !p.CancelRuns {
		return err
	}
	return r.CancelFlow(ctx, id)
}

// ResumeFlow ends a pause. The flow waits for its next slot, unless Resume.CatchUp is set.
func (r *RunningScheduler) ResumeFlow(ctx context.Context, id string, o ...Resume) error {
	return r.change(ctx, id, func(tx *store.Tx, f *flow, row *store.Flow, now time.Time) error {
		if row.Paused.IsZero() {
			return nil
		}
		if len(o) == 0 || !o[0].CatchUp {
			if err := r.passOver(tx, f, row, now); err != nil {
				return err
			}
		}
		row.EndPause()
		return tx.Event("resumed", id, "", now)
	})
}

// CancelFlow cancels every open run of a flow: those executing, and those that
// are parked, waiting or pending. It returns when that is durable, not when
// they have rolled back.
func (r *RunningScheduler) CancelFlow(ctx context.Context, id string) error {
	f, err := r.flow(id)
	if err != nil {
		return err
	}
	err = r.update(ctx, func(tx *store.Tx) error {
		open, err := tx.OpenRuns(id, "", time.Time{})
		if err != nil {
			return err
		}
		for i := range open {
			if err := r.cancel(tx, &open[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return f.named(err)
}

// CancelRun asks for a run to be cancelled: it stops, and what it did is
// undone. A step that fails meanwhile is put down to the cancel, one that leads
// to a final state completes the run. It returns nil when the request is
// durable, and again when asked again; ErrEnded if the run has ended,
// ErrNotFound if there is none.
func (r *RunningScheduler) CancelRun(ctx context.Context, id RunID) error {
	return r.onRun(ctx, id, func(tx *store.Tx, h engine.Head, _ time.Time) error {
		if h.Status.Ended() {
			return fmt.Errorf("%w: it is %s", ErrEnded, h.Status)
		}
		return r.cancel(tx, &h)
	})
}

// cancel sets the flag, and tells whoever executes the run.
func (r *RunningScheduler) cancel(tx *store.Tx, h *engine.Head) error {
	now := r.now()
	if err := tx.SetCancel(h.Run, now); err != nil {
		return err
	}
	id := h.Run
	tx.After(func() { r.recalled(id) })
	return nil
}

// recalled tells whoever executes a run that its cancel flag is set, or wakes
// the dispatcher for it.
func (r *RunningScheduler) recalled(id int64) {
	r.mu.Lock()
	run := r.byRun[id]
	r.mu.Unlock()
	if run != nil {
		go run.Cancel() // the writer must not wait for the run's lock
	}
	r.alarm.wake()
}

// onRun runs fn on a run's head.
func (r *RunningScheduler) onRun(ctx context.Context, id RunID, fn func(tx *store.Tx, h engine.Head, now time.Time) error) error {
	err := r.update(ctx, func(tx *store.Tx) error {
		h, err := tx.Head(int64(id))
		if err != nil {
			return err
		}
		return fn(tx, h, r.now())
	})
	if err != nil {
		return fmt.Errorf("run %d: %w", id, err)
	}
	return nil
}

// ResumeRun lets a stuck run try again, after the fix. It returns ErrConfig for
// a run that is not stuck.
func (r *RunningScheduler) ResumeRun(ctx context.Context, id RunID) error {
	return r.onRun(ctx, id, func(tx *store.Tx, h engine.Head, now time.Time) error {
		if h.Status != engine.Stuck {
			return fmt.Errorf("%w: it is %s, not stuck", ErrConfig, h.Status)
		}
		tx.After(func() {
			if h.Crashes >= store.SuspectAfter {
				r.suspects.Store(true)
			}
			r.alarm.before(now)
		})
		return unstick(tx, h, now)
	})
}

// UndoRun repeats the failed undos of a run, last visit first, and no others.
// It returns ErrConfig for a run that is not undo_failed.
func (r *RunningScheduler) UndoRun(ctx context.Context, id RunID) error {
	history, err := r.store.History(ctx, int64(id))
	if err != nil {
		return r.reading(fmt.Sprintf("run %d", id), err)
	}
	var newest int64
	for _, e := range history {
		if e.Undo != "" {
			newest = e.ID
		}
	}
	return r.onRun(ctx, id, func(tx *store.Tx, h engine.Head, now time.Time) error {
		if h.Status != engine.UndoFailed || newest == 0 {
			return fmt.Errorf("%w: it is %s, not undo_failed", ErrConfig, h.Status)
		}
		after := h
		after.Status, after.Ended, after.Wake, after.Redo = engine.Undoing, time.Time{}, now, true
		after.UndoAt, after.UndoErrors, after.Attempt, after.Crashes = newest, 0, 1, 0
		if err := tx.SetNote(h.Run, ""); err != nil { // of an AckRun: it would let the run be deleted
			return err
		}
		err := tx.Replace(h, after, engine.Entry{
			Kind: engine.KindRollback, State: h.State, Visit: h.Visit, Attempt: h.Attempt, At: now,
			Cause: h.Cause, Error: "failed undos are repeated; " + h.Error,
		})
		tx.After(func() { r.alarm.before(now) })
		return err
	})
}

// AckRun accepts an undo_failed run as it is, with a note. It returns ErrConfig
// for a run that is not undo_failed.
func (r *RunningScheduler) AckRun(ctx context.Context, id RunID, note string) error {
	return r.onRun(ctx, id, func(tx *store.Tx, h engine.Head, now time.Time) error {
		if h.Status != engine.UndoFailed {
			return fmt.Errorf("%w: it is %s, not undo_failed", ErrConfig, h.Status)
		}
		if note == "" {
			note = "acknowledged"
		}
		return tx.SetNote(h.Run, note)
	})
}

// Rerun starts a new run of the same flow with the first input of a run.
func (r *RunningScheduler) Rerun(ctx context.Context, id RunID) (RunID, error) {
	history, err := r.store.History(ctx, int64(id))
	if err != nil {
		return 0, r.reading(fmt.Sprintf("run %d", id), err)
	}
	h, err := r.store.Run(ctx, int64(id))
	if err != nil {
		return 0, r.reading(fmt.Sprintf("run %d", id), err)
	}
	if len(history) == 0 || history[0].ID != h.First {
		return 0, fmt.Errorf("run %d: %w: its first input was pruned", id, ErrNotFound)
	}
	return r.Trigger(ctx, h.Flow, Trigger{Input: json.RawMessage(history[0].Data)})
}
