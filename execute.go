package segno

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// launch gives a held run, whose place is taken, to a goroutine. came says
// what it was before: new, interrupted or waiting.
func (r *RunningScheduler) launch(f *flow, h engine.Head, came engine.EventKind) {
	r.start(f, r.eng.Begin(r.base, f.def.machine, h).Came(came))
}

func (r *RunningScheduler) start(f *flow, run *engine.Run) {
	r.mu.Lock()
	r.live[run] = f
	r.byRun[run.ID()] = run
	r.mu.Unlock()
	if r.isStopping() {
		run.Suspend()
	}
	go r.drive(f, run)
}

// drive is the goroutine of a run.
func (r *RunningScheduler) drive(f *flow, run *engine.Run) {
	var h engine.Head
	defer func() { r.leave(f, run, &h) }() // a step that calls runtime.Goexit comes this way
	var err error
	h, err = run.Drive()
	switch {
	case err == nil:
		r.report(&h)
	case r.store.Err() == nil && !engine.HandedOver(err):
		r.log.Error("segno: a run was left to the next start", "flow", f.ID, "run", h.Run, "error", err)
	}
}

// leave gives up a run's goroutine and place, and hands the run to whoever
// waits for it: in one step, so that a waiter who finds it executing is told.
func (r *RunningScheduler) leave(f *flow, run *engine.Run, h *engine.Head) {
	wanted := r.places.give(f.seat(run.Called()))
	r.mu.Lock()
	if settled(h) {
		r.notify(h)
	}
	delete(r.live, run)
	delete(r.lost, run)
	if r.byRun[run.ID()] == run {
		delete(r.byRun, run.ID())
	}
	r.checkIdle()
	r.mu.Unlock()
	r.cleared(run.ID())
	if wanted {
		r.alarm.wake()
	}
}

// report tells whoever is interested how far a run has come.
func (r *RunningScheduler) report(h *engine.Head) {
	if settled(h) {
		r.logEnd(h)
		return
	}
	if h.Crashes >= store.SuspectAfter {
		r.suspects.Store(true) // it comes back
	}
	if h.Child != 0 { // the run it has called waits for its turn
		r.alarm.wake()
	}
	r.alarm.before(h.Wake)
}

func (r *RunningScheduler) logEnd(h *engine.Head) {
	if h.Status == engine.Completed && !r.log.Enabled(context.Background(), slog.LevelDebug) {
		return // most runs end so, and few programs want to read it
	}
	attrs := []any{"flow", h.Flow, "run", h.Run, "state", h.State, "visit", h.Visit, "status", string(h.Status)}
	switch h.Status {
	case engine.Completed:
		r.log.Debug("segno: run ended", attrs...)
	case engine.Stuck:
		r.log.Error("segno: run is stuck", append(attrs, "reason", h.StuckReason)...)
	default:
		r.log.Warn("segno: run ended", append(attrs, "error", h.Error)...)
	}
}

// handOver goes on with a run whose goroutine is lost in its step, which keeps
// its place until it comes back.
func (r *RunningScheduler) handOver(old, next *engine.Run) {
	f := r.flows[old.Flow()]
	r.places.force(f.seat(old.Called()))
	r.mu.Lock()
	delete(r.live, old)
	r.lost[old] = fmt.Sprintf("run %d of %s", old.ID(), f.ID)
	r.mu.Unlock()
	r.log.Error("segno: a step does not return; the run goes on without its goroutine", "flow", f.ID, "run", old.ID())
	r.start(f, next)
}

// settle brings a flow's state up to date when a run of it ends or is stuck, in the same
// commit. It is called on the writer.
func (r *RunningScheduler) settle(tx *store.Tx, row *store.Flow, h *engine.Head) {
	f := r.flows[row.ID]
	if h.Parent != 0 { // its end is its parent's affair
		tx.After(r.alarm.wake)
		return
	}
	if f == nil || h.Redo {
		return
	}
	now := r.now()
	if h.Status.Ended() {
		now = h.Ended
		f.outcome(row, h)
	}
	if f.Schedule.kind == fixedDelay {
		row.Next = now.Add(f.Schedule.d)
	}
	f.plan(row, now)
	next := row.Next
	tx.After(func() { r.planned(next) })
}

// outcome applies a run's end to streak, gate and trip. The end of a run that
// began before the gate closed moves neither; nor does a cancel.
func (f *flow) outcome(row *store.Flow, h *engine.Head) {
	tripped := row.Outcome == string(StatusTripped)
	gated := !row.GateUntil.IsZero() && h.Ended.Before(row.Gate(h.Ended))
	switch {
	case gated && h.Started.Before(row.GateSet):
	case h.Status == engine.Cancelled:
		if !tripped && !gated {
			row.Outcome = string(StatusIdle)
		}
	case h.Status == engine.Completed && !tripped:
		clearStreak(row)
		row.Outcome, row.LastError = string(StatusCompleted), ""
	case h.Status != engine.Completed:
		f.failed(row, h)
	}
}

// failed counts a failure and closes the gate, or trips the flow.
func (f *flow) failed(row *store.Flow, h *engine.Head) {
	row.Streak++
	row.LastError = h.Error
	row.GateSet, row.GateDelay, row.GateUntil = time.Time{}, 0, time.Time{}
	if f.Backoff.trips(row.Streak) || row.Outcome == string(StatusTripped) {
		row.Outcome = string(StatusTripped)
		row.RetrySlot, row.RetryTry = time.Time{}, 0
		return
	}
	if f.triesAgain(row, h) {
		row.RetrySlot, row.RetryTry = h.Slot, h.Try+1
	}
	row.Outcome = string(StatusIdle)
	if delay := f.Backoff.Delay(row.Streak).Truncate(time.Microsecond); delay > 0 {
		row.Outcome = string(StatusBackoff)
		row.GateSet, row.GateDelay, row.GateUntil = h.Ended, delay, h.Ended.Add(delay)
	}
}

// triesAgain reports whether the slot of a failed run gets another one: not if
// a newer slot was decided meanwhile, unless it is one of a backfill, and not
// while the flow is paused.
func (f *flow) triesAgain(row *store.Flow, h *engine.Head) bool {
	reason, until := blockedBy(row, h.Ended)
	paused := reason != "" && until.Equal(h.Ended)
	newer := h.Slot.Before(row.Cursor) && h.Backfill == 0
	return !h.Slot.IsZero() && h.Try < f.SlotRetries && !newer && !paused
}

func clearStreak(row *store.Flow) {
	row.RetrySlot, row.RetryTry = time.Time{}, 0
	row.Streak = 0
	row.GateSet, row.GateDelay, row.GateUntil = time.Time{}, 0, time.Time{}
}

// alone reports whether a run may begin only while no other of its flow is
// active. One that is active itself, and parked, must not wait for it.
func (r *RunningScheduler) alone(h *engine.Head) bool {
	f := r.flows[h.Flow]
	return f != nil && f.alone(h)
}

func (f *flow) alone(h *engine.Head) bool {
	return (f.Overlap == Skip || f.Overlap == Replace) && h.Status == engine.Pending && !h.Cancel && h.Parent == 0
}

// claiming is what is known of a run that is claimed, beside its head.
type claiming struct {
	suspect bool
	memos   map[string][]byte // of its visit; nil: they were not read
}

// claim takes a run that waits in the file, if its flow has room for it, and
// launches it once that is durable. It reports whether the flow is full.
func (r *RunningScheduler) claim(tx *store.Tx, h engine.Head, c claiming) (full bool, err error) {
	f, row := r.flows[h.Flow], tx.Flow(h.Flow)
	if f == nil || row == nil {
		return false, r.setAside(tx, h, r.now())
	}
	if r.alone(&h) && row.Active > 0 {
		r.places.miss()
		return true, nil
	}
	place := f.seat(h.Parent != 0)
	if !r.places.take(place) {
		return true, nil
	}
	fresh, came := h.Started.IsZero(), engine.CameFrom(&h)
	held, err := tx.Hold(&h, r.now(), c.suspect)
	if err != nil || !held {
		r.places.give(place)
		return false, err
	}
	if fresh {
		row.LastRun = h.Started
	}
	tx.Else(func() { r.places.give(place) })
	tx.After(func() { r.start(f, r.eng.Begin(r.base, f.def.machine, h).Came(came).Remembers(c.memos)) })
	return false, nil
}

// settleElsewhere tells of a run that was settled without executing.
func (r *RunningScheduler) settleElsewhere(h engine.Head) {
	r.mu.Lock()
	r.notify(&h)
	r.mu.Unlock()
	r.alarm.wake()
}

// setAside makes a run stuck whose flow nobody registers.
func (r *RunningScheduler) setAside(tx *store.Tx, h engine.Head, now time.Time) error {
	after := h
	after.Status, after.StuckReason, after.Held, after.Wake = engine.Stuck, orphanedReason, false, time.Time{}
	tx.After(func() { r.settleElsewhere(after) })
	err := tx.Replace(h, after, engine.Entry{
		Kind: engine.KindStuck, State: h.State, Visit: h.Visit, Attempt: h.Attempt, At: now,
		Cause: engine.CauseOrphaned, Error: "the flow is not registered",
	})
	if errors.Is(err, store.ErrConflict) {
		return nil // it has moved on meanwhile
	}
	return err
}
