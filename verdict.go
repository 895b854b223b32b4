package segno

import (
	"time"

	"github.com/segnodev/segno/store"
)

// idleDecide is how often slots are put on record that cannot fire anyway.
const idleDecide = 10 * time.Second

// A verdict says what becomes of the slots that have come: a pure function of
// the flow's row and the time.
type verdict struct {
	of      store.Flow    // the row it was made from
	skipped []store.Slots // with their reasons
	fire    time.Time     // the slot to run for; zero: none
	missed  stretch       // older slots that the run stands for
	upto    time.Time     // the new cursor
	resume  bool          // the pause has ended by itself
}

// verdict decides the slots in (cursor, now].
func (f *flow) verdict(row *store.Flow, now time.Time) verdict {
	v := verdict{of: *row, upto: row.Cursor}
	from := row.Cursor
	if reason, until := blockedBy(row, now); reason != "" {
		from = v.skip(f, row, from, until, reason)
		if until.Equal(now) {
			return v
		}
		v.resume = true
	}
	if gate := row.Gate(now); !row.GateUntil.IsZero() {
		if f.Schedule.kind == once && gate.After(now) {
			return v // its only slot waits for the gate
		}
		end := now
		if !gate.After(now) {
			end = gate.Add(-time.Microsecond)
		}
		if f.Schedule.kind != once {
			from = v.skip(f, row, from, end, "backoff")
		}
		if gate.After(now) {
			return v
		}
	}
	v.fireNewest(f, row, from, now)
	return v
}

// blockedBy says why no slot up to the returned time can fire.
func blockedBy(row *store.Flow, now time.Time) (reason string, until time.Time) {
	switch {
	case row.Outcome == string(StatusTripped):
		return "tripped", now
	case row.Paused.IsZero():
		return "", now
	case !row.PauseUntil.IsZero() && !row.PauseUntil.After(now):
		return "paused", row.PauseUntil.Add(-time.Microsecond)
	}
	return "paused", now
}

// skip records the slots in (from, upto] with a reason and returns the last.
func (v *verdict) skip(f *flow, row *store.Flow, from, upto time.Time, reason string) time.Time {
	st := f.slots(row, from, upto)
	if st.count == 0 {
		return from
	}
	v.skipped = append(v.skipped, store.Slots{First: st.first, Last: st.last, Count: st.count, Outcome: "skipped", Reason: reason})
	v.upto = st.last
	return st.last
}

// fireNewest lets the newest slot in (from, now] fire, for itself and for the
// others.
func (v *verdict) fireNewest(f *flow, row *store.Flow, from, now time.Time) {
	st := f.slots(row, from, now)
	if st.count == 0 {
		return
	}
	v.fire, v.upto = st.last, st.last
	if st.count > 1 {
		v.missed = stretch{first: st.first, last: f.before(row, st), count: st.count - 1}
	}
}

// slots returns the slots in (from, upto]. The only slot of a FixedDelay is
// the one that its last run left.
func (f *flow) slots(row *store.Flow, from, upto time.Time) stretch {
	if f.Schedule.kind != fixedDelay {
		return f.Schedule.between(row.Anchor, from, upto)
	}
	if row.Next.IsZero() || row.Next.After(upto) || !row.Next.After(from) {
		return stretch{}
	}
	return stretch{first: row.Next, last: row.Next, count: 1}
}

// before returns the slot before the last of a stretch.
func (f *flow) before(row *store.Flow, st stretch) time.Time {
	if f.Schedule.kind == interval {
		return st.last.Add(-f.Schedule.d)
	}
	prev := st.first
	for t := prev; t.Before(st.last); t = f.Schedule.next(row.Anchor, t) {
		prev = t
	}
	return prev
}

// stale reports whether the flow has changed since the verdict was made: a run
// may have failed and closed the gate, or somebody may have paused the flow.
func (v *verdict) stale(row *store.Flow) bool {
	was := &v.of
	return row.Outcome != was.Outcome || !row.Cursor.Equal(was.Cursor) || !row.Next.Equal(was.Next) ||
		!row.GateUntil.Equal(was.GateUntil) || !row.Paused.Equal(was.Paused) || !row.PauseUntil.Equal(was.PauseUntil)
}

// apply records a verdict and starts the run it asks for, in one commit with
// the cursor. It does nothing if the verdict is stale.
func (r *RunningScheduler) apply(tx *store.Tx, f *flow, row *store.Flow, v verdict, now time.Time) error {
	if v.stale(row) {
		f.plan(row, now)
		return nil
	}
	for _, s := range v.skipped {
		if err := tx.Ledger(row, s, now); err != nil {
			return err
		}
	}
	if v.resume {
		row.Paused, row.PauseUntil, row.PauseNote, row.PauseActor = time.Time{}, time.Time{}, "", ""
	}
	row.Cursor = v.upto
	if f.Schedule.kind == fixedDelay && (!v.fire.IsZero() || len(v.skipped) > 0) {
		row.Next = time.Time{} // the end of a run sets the next one
	}
	if !v.fire.IsZero() {
		if err := r.fire(tx, f, row, v, now); err != nil {
			return err
		}
	}
	f.plan(row, now)
	return nil
}

// fire starts the run of a slot, or records why it cannot.
func (r *RunningScheduler) fire(tx *store.Tx, f *flow, row *store.Flow, v verdict, now time.Time) error {
	slots := store.Slots{First: v.fire, Last: v.fire, Count: 1, Outcome: "fired"}
	missed := store.Slots{First: v.missed.first, Last: v.missed.last, Count: v.missed.count, Outcome: "coalesced"}
	if busy, err := r.overlaps(tx, f, row, now); err != nil {
		return err
	} else if busy {
		slots.Outcome, slots.Reason = "skipped", "overlap"
		missed.Outcome, missed.Reason = "skipped", "overlap"
	} else {
		h := f.head(f.input, now)
		h.Slot, h.Missed, h.FirstMissed = v.fire, v.missed.count, v.missed.first
		if err := r.create(tx, f, row, &h, now); err != nil {
			return err
		}
		slots.Run, missed.Run = h.Run, h.Run
	}
	if missed.Count > 0 {
		if err := tx.Ledger(row, missed, now); err != nil {
			return err
		}
	}
	return tx.Ledger(row, slots, now)
}

// plan sets when the dispatcher must look at the flow next.
func (f *flow) plan(row *store.Flow, now time.Time) {
	if f.Schedule.kind == fixedDelay {
		if !row.Next.IsZero() && !row.GateUntil.IsZero() {
			row.Next = later(row.Next, row.Gate(now))
		}
		if row.Next.IsZero() && row.Open(f.Serial) == 0 {
			row.Next = later(now.Add(f.Schedule.d), row.Gate(now))
		}
		if !row.Next.IsZero() { // a slot that is not behind the cursor, after a step of the clock, would never be decided
			row.Next = later(row.Next, row.Cursor.Add(time.Microsecond))
		}
		return
	}
	row.Next = f.Schedule.next(row.Anchor, row.Cursor)
	if row.Next.IsZero() {
		return
	}
	if reason, _ := blockedBy(row, now); reason != "" {
		at := later(row.Next, now.Add(idleDecide))
		if end := row.PauseUntil; reason == "paused" && !end.IsZero() && end.Before(at) {
			at = later(end, row.Next)
		}
		row.Next = at
		return
	}
	if gate := row.Gate(now); !row.GateUntil.IsZero() && gate.After(row.Next) {
		if row.Next = gate; f.Schedule.kind != once {
			row.Next = f.Schedule.next(row.Anchor, gate.Add(-time.Microsecond))
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
