package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// errVisitDue interrupts an attempt because the visit's own deadline passed.
var errVisitDue = fmt.Errorf("%w: visit", errTimeout)

// A unit is one call of the user's code, with what may interrupt it.
type unit struct {
	cancel    context.CancelCauseFunc
	protected bool  // cancel and the run's deadline do not interrupt it
	undoing   bool  // nor bound it
	bounded   bool  // it has a timeout of its own
	why       error // what interrupted it
	whyAt     time.Time
	asked     error         // why it should come to its end, if it is made of smaller ones
	halt      chan struct{} // closed then, if somebody listens
	timers    []*time.Timer
	visit     *Visit
	closed    bool // its result was taken, or is not wanted any more
}

// attempt calls the step's Do once.
func (r *Run) attempt(step *Step) (outcome, error) {
	r.starts()
	u := &unit{protected: step.Undo != nil, bounded: step.Timeout > 0}
	ctx := r.open(u, r.info())
	if step.Timeout > 0 {
		u.visit.timeout = r.after(u, step.Timeout, errTimeout)
	}
	if d := r.head.Deadline; !d.IsZero() {
		r.after(u, d.Sub(r.eng.Now()), errRunTimeout)
	}
	data := r.head.Data
	return r.run(u, func(o *outcome) { o.next, o.data, o.err = step.Do(ctx, data) })
}

// attemptUndo calls the step's Undo once for the visit that p closes.
func (r *Run) attemptUndo(p *Entry, step *Step, data []byte) (outcome, error) {
	r.startsUndo(p)
	u := &unit{protected: true, undoing: true, bounded: true}
	in := r.info()
	in.Visit, in.State, in.Uncertain = p.UndoVisit(), p.Undo, p.Uncertain
	ctx := r.open(u, in)
	limit := step.Timeout
	if limit == 0 {
		limit = protectedFor
	}
	if !r.undoUntil.IsZero() {
		limit = min(limit, r.undoUntil.Sub(r.eng.Now()))
	}
	r.after(u, limit, errTimeout)
	return r.run(u, func(o *outcome) { o.err = step.Undo(ctx, data) })
}

// open makes u the unit in flight and returns its context.
func (r *Run) open(u *unit, in Info) context.Context {
	ctx, cancel := context.WithCancelCause(r.base)
	u.cancel = cancel
	u.visit = &Visit{run: r, unit: u, info: in}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unit = u
	if r.stopping {
		u.ask(ErrStopping)
	}
	if r.aborted != nil {
		u.interrupt(r, r.aborted)
	} else if r.cancel {
		r.offer(u, ErrCancelledRun)
	}
	return visitContext{ctx, u.visit}
}

// after interrupts u after d, unless it has ended.
func (r *Run) after(u *unit, d time.Duration, why error) *time.Timer {
	t := time.AfterFunc(d, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.offer(u, why)
	})
	r.mu.Lock()
	u.timers = append(u.timers, t)
	r.mu.Unlock()
	return t
}

// run calls the user's code in this goroutine and takes its outcome. If the
// code comes back only after the run was handed over, its result is dropped.
func (r *Run) run(u *unit, body func(*outcome)) (outcome, error) {
	var o outcome
	returned := false
	defer func() {
		if !returned { // runtime.Goexit: this goroutine is lost, the run is not
			r.handOver(u, outcome{err: fmt.Errorf("%w: the step called runtime.Goexit", ErrPanic), unknown: true, panicked: true})
		}
	}()
	guard(&o, body)
	returned = true
	if !r.close(u) {
		return o, errHandedOver
	}
	o.onCommit, o.memos = u.visit.onCommit, u.visit.joined
	return r.weigh(u, o), nil
}

// guard turns a panic of the body into an error.
func guard(o *outcome, body func(*outcome)) {
	var panicked error
	defer func() {
		if panicked != nil {
			o.err, o.panicked = panicked, true
		}
	}()
	defer recovered(&panicked)
	body(o)
}

// recovered is deferred: it makes a panic an error with its stack.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack())
	}
}

// weigh decides what an interrupted attempt has come to: success within the
// grace counts, anything else is put down to what interrupted it.
func (r *Run) weigh(u *unit, o outcome) outcome {
	o.unknown = o.panicked
	if u.why == nil {
		if u.asked != nil && errors.Is(o.err, u.asked) {
			o.why = u.asked // it gave way between two of its parts
		}
		return o
	}
	late := r.eng.Now().Sub(u.whyAt) > r.eng.Grace
	var steer *Steer
	if errors.As(o.err, &steer) && steer.Snooze && late {
		o.err = nil // a success that came too late, like any other
	} else if (o.err == nil || steer != nil && steer.Snooze) && !late {
		return o
	}
	o.why = u.why
	timeout := errors.Is(u.why, errTimeout)
	o.unknown = o.unknown || late || timeout
	if o.err == nil || timeout {
		o.err = interrupted(u.why, o.err, late)
	}
	return o
}

// interrupted names what cut the attempt short, and what the step said to it.
func interrupted(why, err error, late bool) error {
	switch {
	case late && err == nil:
		return fmt.Errorf("%w (the step returned after the grace; its result was dropped)", why)
	case err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return why
	}
	return fmt.Errorf("%w: %w", why, err)
}

// close ends the unit; false: somebody else did.
func (r *Run) close(u *unit) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range u.timers {
		t.Stop()
	}
	u.cancel(nil)
	if u.closed {
		return false
	}
	u.closed, r.unit = true, nil
	return true
}

// interrupt offers a reason to the unit in flight, and wakes a sleeping run.
func (r *Run) interrupt(why error) {
	r.mu.Lock()
	if r.unit != nil {
		r.offer(r.unit, why)
	}
	r.mu.Unlock()
	r.wakeUp()
}

// offer interrupts u for the given reason if its kind allows it: what can be
// undone is not cut short by a cancel or by the run's deadline, only bounded.
func (r *Run) offer(u *unit, why error) {
	outside := why == ErrCancelledRun || why == errRunTimeout
	switch {
	case u.closed || outside && u.undoing:
	case outside && u.protected:
		u.ask(why)
		if !u.bounded {
			u.bounded = true
			u.timers = append(u.timers, time.AfterFunc(protectedFor, func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				u.interrupt(r, why)
			}))
		}
	default:
		u.interrupt(r, why)
	}
}

// interrupt ends the unit's context and arms the watchdog that gives the
// goroutine up. A stop has its own patience.
func (u *unit) interrupt(r *Run, why error) {
	if u.closed || u.why != nil {
		return
	}
	u.why, u.whyAt = why, r.eng.Now()
	u.ask(why)
	u.cancel(why)
	if why == ErrStopping || r.aborted != nil {
		return
	}
	wait := r.eng.Grace + r.eng.AbandonAfter
	u.timers = append(u.timers, time.AfterFunc(wait, func() {
		err := fmt.Errorf("%w: the step did not return %v after %w", ErrAbandoned, wait, why)
		r.handOver(u, outcome{err: err, why: why, unknown: true})
	}))
}

// ask tells a unit that is made of smaller ones to end behind those in flight.
func (u *unit) ask(why error) {
	if u.asked != nil {
		return
	}
	if u.asked = why; u.halt != nil {
		close(u.halt)
	}
}

// handOver closes the unit for its lost goroutine and lets another one go on
// with the given outcome.
func (r *Run) handOver(u *unit, o outcome) {
	r.mu.Lock()
	if u.closed || r.aborted != nil { // after an abort the next start goes on with it
		r.mu.Unlock()
		return
	}
	u.closed, r.unit = true, nil
	next := r.eng.Begin(r.base, r.machine, r.head)
	next.left, next.undoUntil, next.repaid = &o, r.undoUntil, r.repaid
	next.cancel, next.stopping, next.watch = r.cancel, r.stopping, r.watch
	r.mu.Unlock()
	r.eng.HandOver(r, next)
}
