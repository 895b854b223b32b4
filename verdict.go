package segno

import (
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// stale reports whether the flow has changed since the verdict was made: a run
// may have failed and closed the gate, or somebody may have paused the flow.
func (v *verdict) stale(row *store.Flow) bool {
	was := &v.of
	return row.Outcome != was.Outcome || !row.Cursor.Equal(was.Cursor) || !row.Next.Equal(was.Next) ||
		!row.GateUntil.Equal(was.GateUntil) || !row.Paused.Equal(was.Paused) || !row.PauseUntil.Equal(was.PauseUntil) ||
		row.Fired != was.Fired || !row.RetrySlot.Equal(was.RetrySlot) || row.Skips != was.Skips ||
		v.f.CatchUp.limit() > 0 && row.Open(v.f.Serial) != was.Open(v.f.Serial)
}

// apply records a verdict and starts the runs it asks for, in one commit with
// the cursor. It does nothing if the verdict is stale.
func (r *RunningScheduler) apply(tx *store.Tx, v *verdict, row *store.Flow, now time.Time) error {
	f := v.f
	if v.stale(row) {
		f.plan(row, now)
		return nil
	}
	if v.resume {
		row.EndPause()
	}
	if !v.upto.Equal(row.Cursor) { // a newer slot has come
		row.RetrySlot, row.RetryTry = time.Time{}, 0
	}
	row.Cursor = v.upto
	if f.Schedule.kind == fixedDelay && len(v.decisions) > 0 {
		row.Next = time.Time{} // the end of a run sets the next one
	}
	if err := r.record(tx, v, row, now); err != nil {
		return err
	}
	if v.retry {
		if err := r.again(tx, f, row, now); err != nil {
			return err
		}
	}
	f.plan(row, now)
	return nil
}

// record puts the decisions on record, and starts the runs of those that fire.
func (r *RunningScheduler) record(tx *store.Tx, v *verdict, row *store.Flow, now time.Time) error {
	var missed []decision // that the next run stands for
	for _, d := range v.decisions {
		var err error
		switch {
		case d.outcome == coalesced:
			missed = append(missed, d)
			continue
		case d.outcome == fired:
			err = r.fire(tx, v.f, row, firing{d, missed, now})
			missed = nil
		default:
			err = enter(tx, row, d, 0, now)
		}
		if err != nil {
			return err
		}
	}
	return unmark(tx, row)
}

// unmark forgets the slots that a person marked and that are decided by now, or
// are none any more.
func unmark(tx *store.Tx, row *store.Flow) error {
	if row.Skips == 0 {
		return nil
	}
	return tx.Skipped(row, row.Cursor)
}

// enter puts one decision on record.
func enter(tx *store.Tx, row *store.Flow, d decision, run int64, now time.Time) error {
	return tx.Ledger(row, store.Slots{
		First: d.first, Last: d.last, Count: d.count, Outcome: d.outcome, Reason: d.reason, Note: d.note, Run: run,
	}, now)
}

// A firing is a slot that fires, for itself and for those that were missed.
type firing struct {
	slot   decision
	missed []decision
	now    time.Time
}

// fire starts the run of a slot, or records why it cannot.
func (r *RunningScheduler) fire(tx *store.Tx, f *flow, row *store.Flow, s firing) error {
	if known, err := tx.Fired(row, s.slot.last); err != nil {
		return err
	} else if known { // by a clock that has been set back since
		return enterAll(tx, row, s.missed, "missed", s.now)
	}
	busy, err := r.overlaps(tx, f, row, s.now)
	if err != nil {
		return err
	}
	all := append(s.missed, s.slot)
	if busy {
		return enterAll(tx, row, all, "overlap", s.now)
	}
	h := f.head(f.input, s.now)
	h.Slot = s.slot.last
	for i, d := range s.missed {
		if h.Missed += d.count; i == 0 {
			h.FirstMissed = d.first
		}
	}
	row.Fired++
	if err := r.create(tx, f, row, &h, s.now); err != nil {
		return err
	}
	for _, d := range all {
		if err := enter(tx, row, d, h.Run, s.now); err != nil {
			return err
		}
	}
	return nil
}

// enterAll puts slots on record that are skipped after all.
func enterAll(tx *store.Tx, row *store.Flow, slots []decision, reason string, now time.Time) error {
	for _, d := range slots {
		d.outcome, d.reason = skipped, reason
		if err := enter(tx, row, d, 0, now); err != nil {
			return err
		}
	}
	return nil
}

// again starts another run for the slot whose last one failed.
func (r *RunningScheduler) again(tx *store.Tx, f *flow, row *store.Flow, now time.Time) error {
	slot, try := row.RetrySlot, row.RetryTry
	row.RetrySlot, row.RetryTry = time.Time{}, 0
	if f.Schedule.kind == fixedDelay {
		row.Next = time.Time{} // the end of a run sets it
	}
	busy, err := r.overlaps(tx, f, row, now)
	if err != nil || busy {
		return err
	}
	h := f.head(f.input, now)
	h.Slot, h.Try = slot, try
	if h.Backfill, err = tx.BackfillOf(row, slot); err != nil {
		return err
	}
	return r.create(tx, f, row, &h, now)
}

// overlaps reports whether the flow's open runs forbid another one. Under
// Replace they are asked to cancel, and the new one waits for their end.
func (r *RunningScheduler) overlaps(tx *store.Tx, f *flow, row *store.Flow, now time.Time) (bool, error) {
	switch {
	case f.Overlap == Replace && row.Open(f.Serial) > 0:
		return false, r.replace(tx, f)
	case f.Overlap != Skip:
		return false, nil
	case row.Open(f.Serial) > 0 || row.Later == 0:
		return row.Open(f.Serial) > 0, nil
	}
	// A run triggered for a time that has come meanwhile counts, too.
	due, err := tx.OpenRuns(f.ID, engine.Pending, now)
	for i := range due {
		if due[i].Parent == 0 {
			return true, err
		}
	}
	return false, err
}

// replace cancels the open runs of a flow.
func (r *RunningScheduler) replace(tx *store.Tx, f *flow) error {
	open, err := tx.OpenRuns(f.ID, "", time.Time{})
	if err != nil {
		return err
	}
	for i := range open {
		if h := &open[i]; h.Parent == 0 && (h.Due.IsZero() || !h.Started.IsZero()) {
			if err := r.cancel(tx, h); err != nil {
				return err
			}
		}
	}
	return nil
}
