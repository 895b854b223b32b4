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
		anew := 0
		for _, f := range r.order {
			was := tx.Flow(f.ID).Anchor
			if err := r.reanchor(tx, f, now); err != nil {
				return err
			}
			if !tx.Flow(f.ID).Anchor.Equal(was) {
				anew++
			}
		}
		return tx.Event("clock_step", "", fmt.Sprintf("back by %v, to %s: what was decided stays so; %d intervals begin anew", -d, now.Format(time.RFC3339), anew), now)
	})
	if err != nil && r.store.Err() == nil && !r.isStopping() {
		r.log.Error("segno: after a step of the clock", "error", err)
	}
}

// reanchor lets a flow go on after its clock was set back. An interval whose
// next slot is more than two of them away begins anew; a flow whose past lies a
// day or more ahead was run by a wrong clock, and its cursor is set back: no
// slot of that past fires a second time all the same.
func (r *RunningScheduler) reanchor(tx *store.Tx, f *flow, now time.Time) error {
	row := tx.Flow(f.ID)
	wrong := row.Cursor.Sub(now) > wrongBy || row.LastRun.Sub(now) > wrongBy
	every := f.Schedule.kind == interval
	next := f.next(row, row.Cursor)
	switch {
	case every && (wrong || !next.IsZero() && next.Sub(now) > 2*f.Schedule.d):
		n, err := tx.Events("reanchored", f.ID)
		if err != nil {
			return err
		}
		// A grid of its own: none of its slots was on another one.
		row.Anchor = now.Add(f.Schedule.d + time.Duration(n+1)*tick)
		row.Cursor = now
		if err := tx.Event("reanchored", f.ID, "next at "+row.Anchor.Format(time.RFC3339Nano), now); err != nil {
			return err
		}
	case wrong && row.Cursor.After(now):
		row.Cursor = now
	}
	if wrong {
		if row.LastRun.After(now) {
			row.LastRun = now
		}
		if err := tx.Event("clock_rollback", f.ID, "its past lay more than a day ahead: it was run by a wrong clock", now); err != nil {
			return err
		}
	}
	f.plan(row, now)
	return nil
}

// sane reports whether the clock can be right: it cannot show a time before the
// program was built. While it does, nothing is dispatched.
func (r *RunningScheduler) sane(ctx context.Context, now time.Time) bool {
	bad := !r.built.IsZero() && r.built.Sub(now) > wrongBy
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
	_ = r.update(ctx, func(tx *store.Tx) error { return tx.Event(kind, "", note, now) })
	return !bad
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
