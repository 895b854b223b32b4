package segno

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/internal/crashpoint"
	"github.com/segnodev/segno/store"
)

// start does, in this order, what has to happen before the loops: lock, check
// and migrate the file; the application's schema; reconcile the registrations;
// set up resources; let go of what the last owner held.
func start(ctx context.Context, s *Scheduler) (*RunningScheduler, error) {
	r := newRunning(s)
	st, err := store.Open(ctx, store.Config{
		Path: s.path, Standby: s.opts.Standby, SmallWAL: s.opts.SmallWAL, Logger: s.opts.Logger,
		MaxVisits: s.opts.Retention.withDefaults().visits(), Settle: r.settle, Now: r.now,
		Gate: crashpoint.From(ctx), Pragmas: crashpoint.Pragmas(ctx),
	})
	if err != nil {
		return nil, err
	}
	r.use(st)
	if err := r.recover(ctx); err != nil {
		closed := st.Close()
		r.guards.leave(r)
		return nil, errors.Join(st.Opening(err), closed, st.Release())
	}
	r.run(ctx)
	return r, nil
}

// recover brings the file and the program together.
func (r *RunningScheduler) recover(ctx context.Context) error {
	if err := r.applySchema(ctx); err != nil {
		return err
	}
	if err := r.store.Update(ctx, r.reconcile); err != nil {
		return err
	}
	if err := r.guards.join(ctx, r); err != nil {
		return err
	}
	if err := r.resources.setUp(ctx); err != nil {
		return err
	}
	err := r.letGo(ctx)
	if r.owing = r.wrongClock(r.now()); err == nil && !r.owing {
		err = r.runOnStart(ctx)
	}
	if err != nil {
		return errors.Join(err, r.resources.tearDown(context.WithoutCancel(ctx)))
	}
	return nil
}

// applySchema runs the application's own DDL.
func (r *RunningScheduler) applySchema(ctx context.Context) error {
	if r.opts.Schema == nil {
		return nil
	}
	err := r.store.Update(ctx, func(tx *store.Tx) error {
		return tx.User("Options.Schema", func() error { return lend(tx, nil, r.opts.Schema) })
	})
	if err != nil {
		return fmt.Errorf("Options.Schema: %w", err)
	}
	return nil
}

// reconcile matches the registered flows with those in the file. A flow that
// exists only in the file is kept, as orphaned.
func (r *RunningScheduler) reconcile(tx *store.Tx) error {
	now := r.now()
	for _, f := range r.order {
		if err := r.reconcileFlow(tx, f, now); err != nil {
			return err
		}
	}
	for _, id := range tx.Flows() {
		if r.flows[id] != nil {
			continue
		}
		row := tx.Flow(id)
		if row.Orphaned.IsZero() {
			row.Orphaned = now
			if err := tx.Event("orphaned", id, "not registered any more", now); err != nil {
				return err
			}
		}
		row.Next = time.Time{}
		r.log.Warn("segno: flow is in the file but not registered", "flow", id, "since", row.Orphaned)
	}
	return nil
}

// reconcileFlow matches one registered flow.
func (r *RunningScheduler) reconcileFlow(tx *store.Tx, f *flow, now time.Time) error {
	row := tx.Flow(f.ID)
	if row == nil {
		fresh := store.Flow{ID: f.ID, Position: f.position, Outcome: string(StatusIdle), Schedule: f.Schedule.String(), Registered: now}
		f.firstSlot(&fresh, now)
		f.plan(&fresh, now)
		return tx.AddFlow(fresh)
	}
	if err := f.reconcile(tx, row, now); err != nil {
		return err
	}
	row.Position = f.position
	if !r.wrongClock(now) && f.astray(row, now) {
		if err := r.reanchor(tx, f, now); err != nil {
			return err
		}
	}
	row.ClampGate(now)
	f.plan(row, now)
	return nil
}

// firstSlot sets anchor and cursor of a flow that is new to the file.
func (f *flow) firstSlot(row *store.Flow, now time.Time) {
	row.Anchor, row.Cursor = now, now
	if !f.StartAt.IsZero() {
		row.Anchor = f.StartAt
	}
	if f.SkipFirst || f.StartAt.Before(now) && !f.StartAt.IsZero() && f.Schedule.kind == interval {
		return
	}
	switch f.Schedule.kind {
	case interval: // the anchor itself is a slot
		row.Cursor = now.Add(-time.Microsecond)
	case fixedDelay: // due at once: its only slot lies behind the cursor
		row.Cursor, row.Next = now.Add(-time.Microsecond), now
	case once: // one that has passed is due at once
		if !f.Schedule.at.After(now) {
			row.Cursor = f.Schedule.at.Add(-time.Microsecond)
		}
	}
}

// reconcile brings a known flow up to date: streak, gate, trip, pause and
// history stay as they are, whatever changed.
func (f *flow) reconcile(tx *store.Tx, row *store.Flow, now time.Time) error {
	if !row.Orphaned.IsZero() {
		if err := f.revive(tx, row, now); err != nil {
			return err
		}
	}
	schedule := f.Schedule.String()
	if row.Schedule == schedule && !f.extended(row) {
		return nil
	}
	change := row.Schedule + " → " + schedule
	if row.Schedule == schedule {
		change = "it had no slot any more, and has now"
	}
	if err := tx.Event("schedule_changed", f.ID, change, now); err != nil {
		return err
	}
	phase := row.Cursor
	if err := f.drop(tx, row, "schedule_changed", now); err != nil {
		return err
	}
	f.takeOver(row, phase, now)
	return nil
}

// takeOver lets the flow's schedule go on where another one stood: an interval
// keeps its phase, the last slot that was decided before the change.
func (f *flow) takeOver(row *store.Flow, phase, now time.Time) {
	schedule := f.Schedule.String()
	if f.Schedule.kind == interval && row.Schedule != schedule {
		if row.Anchor = phase; !f.StartAt.IsZero() {
			row.Anchor = f.StartAt
		}
	}
	row.Schedule, row.Next = schedule, time.Time{}
	upto := now
	if f.Schedule.kind == fixedDelay { // due at once: its only slot lies behind the cursor
		upto, row.Next = now.Add(-time.Microsecond), now
	}
	if row.Cursor.Before(upto) {
		row.Cursor = upto
	}
}

// extended reports whether a flow that had no slot any more has one now, by
// bounds of it that were changed. What passed meanwhile was not missed.
func (f *flow) extended(row *store.Flow) bool {
	return row.Next.IsZero() && !(f.inTurn() && row.Open(f.Serial) > 0) && !f.next(row, row.Cursor).IsZero()
}

// drop puts the slots of the schedule that the file knows, as far as they have
// passed, on record as skipped.
func (f *flow) drop(tx *store.Tx, row *store.Flow, reason string, now time.Time) error {
	old := *f
	old.Schedule = storedSchedule(row.Schedule)
	st := old.slots(row, row.Cursor, now)
	if st.count == 0 {
		return nil
	}
	row.Cursor = st.last
	return tx.Ledger(row, store.Slots{First: st.first, Last: st.last, Count: st.count, Outcome: skipped, Reason: reason}, now)
}

// revive takes back a flow that was orphaned, with the runs that were set
// aside for it. Slots that passed meanwhile are not made up for.
func (f *flow) revive(tx *store.Tx, row *store.Flow, now time.Time) error {
	if err := f.drop(tx, row, "orphaned", now); err != nil {
		return err
	}
	row.Orphaned = time.Time{}
	f.plan(row, now)
	stuck, err := tx.OpenRuns(f.ID, engine.Stuck, time.Time{})
	if err != nil {
		return err
	}
	for _, h := range stuck {
		if h.StuckReason != orphanedReason {
			continue
		}
		if err := unstick(tx, h, now); err != nil {
			return err
		}
	}
	return tx.Event("revived", f.ID, fmt.Sprintf("%d runs go on", len(stuck)), now)
}

// orphanedReason is the reason of runs whose flow is not registered.
const orphanedReason = "orphaned"

// unstick lets a stuck run try again, in the direction it went.
func unstick(tx *store.Tx, h engine.Head, now time.Time) error {
	after := h
	after.Status, after.StuckReason, after.Wake, after.Held = engine.Pending, "", now, false
	if h.Cause != "" {
		after.Status = engine.Undoing
	}
	if after.Started.IsZero() {
		after.Started = now
	}
	return tx.Replace(h, after)
}

// letGo counts crashes and makes every run that was held wait for its turn.
func (r *RunningScheduler) letGo(ctx context.Context) error {
	var rec store.Recovery
	err := r.store.Update(ctx, func(tx *store.Tx) (err error) {
		rec, err = tx.Recover(r.now(), r.opts.SuspectFor)
		if err == nil && !rec.Clean {
			err = tx.Event("takeover", "", fmt.Sprintf("%d runs interrupted, %d crashes counted", rec.Interrupted, rec.Counted), r.now())
		}
		return err
	})
	if err != nil {
		return err
	}
	r.suspectFor = rec.SuspectFor
	r.suspects.Store(rec.Suspects > 0)
	r.log.Info("segno: started", "path", r.store.Path(), "clean", rec.Clean, "interrupted", rec.Interrupted,
		"crashes", rec.Counted, "past_deadline", rec.Overdue)
	return nil
}

// runOnStart makes the extra runs of flows that ask for one at every Start.
func (r *RunningScheduler) runOnStart(ctx context.Context) error {
	var asked []*flow
	for _, f := range r.order {
		if f.RunOnStart {
			asked = append(asked, f)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	return r.update(ctx, func(tx *store.Tx) error {
		for _, f := range asked {
			if err := r.runOnce(tx, f, r.now()); err != nil {
				return f.named(err)
			}
		}
		return nil
	})
}

// runOnce makes a run of a flow that may run now, and of which no slot is due anyway.
func (r *RunningScheduler) runOnce(tx *store.Tx, f *flow, now time.Time) error {
	row := tx.Flow(f.ID)
	skips, err := tx.SkipsOf(row)
	if err != nil {
		return err
	}
	reason, _ := blockedBy(row, now)
	v := f.verdict(row, skips, now)
	if reason != "" || v.fires() || v.retry || !row.GateUntil.IsZero() && row.Gate(now).After(now) {
		return nil
	}
	if busy, err := r.overlaps(tx, f, row, now); err != nil || busy {
		return err
	}
	h := f.head(f.input, now)
	return r.create(tx, f, row, &h, now)
}
