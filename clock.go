package segno

import (
	"context"
	"flag"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/segnodev/segno/store"
)

const (
	maxDrift  = 2 * time.Second // between wall and monotonic clock, until it is called a step
	wrongBy   = 24 * time.Hour  // something past that lies so far ahead was written by a wrong clock
	insaneFor = time.Second     // how often a clock that cannot be right is looked at
)

// clockWatch is what the dispatcher knows of the clocks: what they showed when
// it looked last.
type clockWatch struct {
	wall, mono time.Time // mono has the monotonic reading
	insane     bool      // it has been said
}

// step returns by how much the wall clock has moved beside the monotonic one
// since the last look: by a step, or because the machine was suspended.
func (c *clockWatch) step(now time.Time) (from time.Time, d time.Duration) {
	mono := time.Now()
	from = c.wall
	if !from.IsZero() {
		if d = now.Sub(from) - mono.Sub(c.mono); d.Abs() <= maxDrift {
			d = 0
		}
	}
	c.wall, c.mono = now, mono
	return from, d
}

// lookAtClock puts a step of the clock on record, with what follows from it.
// What lies in the past by a clock set forward is dispatched like anything that
// was missed.
func (r *RunningScheduler) lookAtClock(ctx context.Context, now time.Time) {
	from, d := r.clock.step(now)
	if d == 0 {
		return
	}
	r.log.Warn("segno: the clock was stepped", "by", d, "from", from, "to", now)
	err := r.update(ctx, func(tx *store.Tx) error {
		if d > 0 {
			return tx.Event("clock_step", "", fmt.Sprintf("forward by %v, to %s: slots that have passed are caught up with", d, now.Format(time.RFC3339)), now)
		}
		anew, err := r.reanchorAll(tx, now)
		if err != nil {
			return err
		}
		return tx.Event("clock_step", "", fmt.Sprintf("back by %v, to %s: what was decided stays so; %d intervals begin anew", -d, now.Format(time.RFC3339), anew), now)
	})
	if err != nil && r.store.Err() == nil && !r.isStopping() {
		r.log.Error("segno: after a step of the clock", "error", err)
	}
}

// reanchorAll lets all flows go on after the clock was set back, and returns
// how many begin anew.
func (r *RunningScheduler) reanchorAll(tx *store.Tx, now time.Time) (anew int, err error) {
	for _, f := range r.order {
		row := tx.Flow(f.ID)
		if f.wrong(row, now) || f.tooFar(row, now) {
			if f.adrift(row, now) {
				anew++
			}
			if err := r.reanchor(tx, f, now); err != nil {
				return 0, err
			}
		}
		row.ClampGate(now)
		f.plan(row, now)
	}
	return anew, nil
}

// wrong reports whether a flow's past lies a day or more ahead: it was run by a
// wrong clock.
func (f *flow) wrong(row *store.Flow, now time.Time) bool {
	return row.Cursor.Sub(now) > wrongBy || row.LastRun.Sub(now) > wrongBy
}

// tooFar reports whether a clock that was set back has moved the flow's next
// slot out of reach: more than two intervals away, or more than the delay.
func (f *flow) tooFar(row *store.Flow, now time.Time) bool {
	switch f.Schedule.kind {
	case interval:
		next := f.next(row, row.Cursor)
		return !next.IsZero() && next.Sub(later(now, f.StartAt)) > 2*f.Schedule.d
	case fixedDelay:
		return row.RetrySlot.IsZero() && row.Next.After(later(later(now.Add(f.Schedule.d), row.Gate(now)), f.StartAt))
	}
	return false
}

// adrift reports whether a flow that is to be set right has to begin anew: not an
// interval whose decided slots have all passed by the clock as it is now. Those
// behind them still wait for their turn.
func (f *flow) adrift(row *store.Flow, now time.Time) bool {
	return f.tooFar(row, now) || f.Schedule.kind == interval && row.Cursor.After(now)
}

// astray reports whether a flow that is found in the file has to be set right:
// an interval waits for the clock, if that is not a day behind.
func (f *flow) astray(row *store.Flow, now time.Time) bool {
	return f.wrong(row, now) || f.Schedule.kind == fixedDelay && f.tooFar(row, now)
}

// reanchor lets a flow go on after its clock was set back: anew, if it is adrift.
// If it was run by a wrong clock, its cursor is set back, with what was decided
// of slots to come: none that fired does so a second time all the same.
func (r *RunningScheduler) reanchor(tx *store.Tx, f *flow, now time.Time) error {
	row := tx.Flow(f.ID)
	adrift := f.adrift(row, now)
	if f.wrong(row, now) {
		if err := r.rollBack(tx, f, row, now); err != nil {
			return err
		}
	}
	if !adrift {
		return nil
	}
	n, err := tx.Events("reanchored", f.ID)
	if err != nil {
		return err
	}
	return tx.Event("reanchored", f.ID, "next at "+clock(f.anew(row, now, n)), now)
}

// anew lets an interval or a FixedDelay begin anew, for the nth time from 0, and
// returns its next slot. An interval gets a grid of its own: none of its slots
// was on another one.
func (f *flow) anew(row *store.Flow, now time.Time, n int) time.Time {
	if f.Schedule.kind == fixedDelay {
		row.Cursor, row.Next = earlier(row.Cursor, now), now.Add(f.Schedule.d)
		return row.Next
	}
	row.Anchor = later(now.Add(f.Schedule.d), f.StartAt).Add(time.Duration(n+1) * tick)
	row.Cursor = now
	return row.Anchor
}

// rollBack takes a flow out of the past that a wrong clock gave it.
func (r *RunningScheduler) rollBack(tx *store.Tx, f *flow, row *store.Flow, now time.Time) error {
	err := tx.Undecide(row, now, func(first time.Time) (time.Time, int) {
		st := f.Schedule.between(row.Anchor, first.Add(-tick), now)
		return st.last, st.count
	})
	if err != nil {
		return err
	}
	if f.Schedule.kind == cronKind || f.Schedule.kind == once { // the others have new slots
		err = tx.SkipFired(row, "it fired by a wrong clock", now)
	}
	if err != nil {
		return err
	}
	row.Cursor, row.LastRun = earlier(row.Cursor, now), earlier(row.LastRun, now)
	return tx.Event("clock_rollback", f.ID, "its past lay more than a day ahead: it was run by a wrong clock", now)
}

// sane reports whether the clock can be right: it cannot show a time before the
// program was built. While it does, nothing is dispatched.
func (r *RunningScheduler) sane(ctx context.Context, now time.Time) bool {
	bad := r.wrongClock(now)
	if bad == r.clock.insane {
		return !bad
	}
	r.clock.insane = bad
	kind, note := "clock_sane", "dispatching goes on"
	if bad {
		kind, note = "clock_not_sane", fmt.Sprintf("it shows %s, the program was built at %s: nothing is dispatched; set the clock",
			now.Format(time.RFC3339), r.built.Format(time.RFC3339))
	}
	r.log.Error("segno: clock", "kind", kind, "note", note)
	err := r.update(ctx, func(tx *store.Tx) error {
		if err := tx.Event(kind, "", note, now); err != nil || bad {
			return err
		}
		return r.setRight(tx, now)
	})
	if err != nil && r.store.Err() == nil && !r.isStopping() {
		r.log.Error("segno: the clock", "error", err)
	}
	return !bad
}

// wrongClock reports whether the time is one that cannot be.
func (r *RunningScheduler) wrongClock(now time.Time) bool {
	return !r.built.IsZero() && r.built.Sub(now) > wrongBy
}

// setRight does what Start has left for a clock that can be right: a flow that
// was registered before begins now.
func (r *RunningScheduler) setRight(tx *store.Tx, now time.Time) error {
	for _, f := range r.order {
		row := tx.Flow(f.ID)
		if r.wrongClock(row.Registered) {
			row.Registered, row.Next = now, time.Time{}
			f.firstSlot(row, now)
		}
		if f.astray(row, now) {
			if err := r.reanchor(tx, f, now); err != nil {
				return err
			}
		}
		row.ClampGate(now)
		f.plan(row, now)
	}
	return nil
}

// payRuns makes the runs of RunOnStart that Start has left for a right clock.
func (r *RunningScheduler) payRuns(ctx context.Context) {
	if !r.owing {
		return
	}
	r.owing = false
	if err := r.runOnStart(ctx); err != nil && r.store.Err() == nil && !r.isStopping() {
		r.log.Error("segno: runs at the start", "error", err)
	}
}

// buildTime returns when the program's commit was made, the zero time if it
// does not know. A test binary does not: in a bubble it is the year 2000.
func buildTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok || flag.Lookup("test.v") != nil {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			t, _ := time.Parse(time.RFC3339, s.Value)
			return t
		}
	}
	return time.Time{}
}
