package engine

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// rollback enters the rollback, with its cause, or ends the run if there is
// nothing to undo. closes says that the current visit counts as finished. What
// fails after a cancel is put down to the cancel.
func (r *Run) rollback(cause error, unknown, closes bool) *Change {
	now := r.eng.Now()
	c := r.change()
	c.Yields, c.DropMemos = r.cancelled(), r.memos.some || !r.memos.known
	if c.Yields && !errors.Is(cause, ErrCancelledRun) {
		cause = fmt.Errorf("%w; %v", ErrCancelledRun, cause)
	}
	h := &c.After
	step := r.machine.Steps[h.State]
	undoable := step != nil && step.Undo != nil
	if undoable && (errors.Is(cause, ErrTooLarge) || errors.Is(cause, ErrUnencodable)) {
		unknown = true // its effects are there, what it left for the undo is not
	}
	h.Cause, h.Error = CauseOf(cause), cause.Error()
	if h.Cause == CauseCancelled && !c.Yields {
		h.Cause = CauseError // an error of the step's own: nobody cancelled the run
	}
	e := r.entry(KindRollback, now)
	e.Cause, e.Error, e.Uncertain = h.Cause, h.Error, unknown && !closes
	if undoable && (closes || unknown && step.UndoUncertain) {
		e.Undo, e.Data = h.State, h.Data
	}
	attempt := h.Attempt
	h.resetVisit()
	if e.Undo == "" && h.UndoAt == 0 {
		h.Attempt = attempt
		e.Kind, e.Data = KindEnd, h.Data
		h.end(endStatus(h), now)
	} else {
		h.Status = Undoing
	}
	c.Entries, c.Why, c.Closed = []Entry{e}, cause, closes
	return c
}

// yield gives way to a cancel that was committed before c: a transition's
// visit counts as finished, anything else ends the visit as not finished.
func (r *Run) yield(c *Change) *Change {
	cause, closes, unknown := ErrCancelledRun, c.Closed, c.After.Uncertain
	if len(c.Entries) > 0 {
		switch e := c.Entries[0]; e.Kind {
		case KindEnter:
			closes, unknown = true, false
		case KindRollback, KindEnd:
			cause, unknown = fmt.Errorf("%w; %s", cause, e.Error), e.Uncertain
		}
	}
	y := r.rollback(cause, unknown, closes)
	if c.After.Version != r.head.Version {
		return y // a rollback translates what it needs, from what was stored
	}
	return y.carry(c.After.Data, c.OnCommit)
}

// misroute rolls back behind a step that succeeded but may not go where it
// wants to. If it can be undone its visit counts as finished: what it did is done.
func (r *Run) misroute(cause error, o outcome) *Change {
	if r.machine.Steps[r.head.State].Undo == nil {
		return r.rollback(cause, false, false)
	}
	if len(o.data) > r.eng.MaxData {
		return r.rollback(fmt.Errorf("%w; %w", cause, tooLarge(len(o.data), r.eng.MaxData)), false, false)
	}
	return r.rollback(cause, false, true).carry(o.data, o.onCommit)
}

// carry makes what the visit's last unit has left part of the change.
func (c *Change) carry(data []byte, onCommit []func(Tx) error) *Change {
	c.After.Data, c.OnCommit = data, onCommit
	if e := &c.Entries[0]; e.Data != nil {
		e.Data = data
	}
	return c
}

// endStatus is the status a run ends in that did not complete.
func endStatus(h *Head) Status {
	switch {
	case h.UndoErrors > 0:
		return UndoFailed
	case h.Cause == CauseCancelled:
		return Cancelled
	}
	return Failed
}

// undo runs one undo, last visit first.
func (r *Run) undo(now time.Time) (*Change, error) {
	if d := r.head.rest(now); d > 0 {
		r.sleep(d)
		return nil, nil
	}
	p, err := r.undoPoint()
	if err != nil {
		return nil, err
	}
	if p == nil {
		return r.undone(r.change(), now), nil
	}
	if r.undoUntil.IsZero() && r.machine.UndoTimeout > 0 {
		r.undoUntil = now.Add(r.eng.undoTime(r.id, r.machine.UndoTimeout))
	}
	if r.head.Crashes >= r.eng.MaxCrashes {
		return r.undoFailed(p, fmt.Errorf("%w: the process died %d times in this undo", ErrCrashLoop, r.head.Crashes)), nil
	}
	if expired(r.undoUntil, now) {
		return r.undoFailed(p, fmt.Errorf("%w: the rollback's time is up", context.DeadlineExceeded)), nil
	}
	return r.undoOnce(p)
}

// undoOnce makes one attempt of an undo.
func (r *Run) undoOnce(p *Entry) (*Change, error) {
	state, data, err := p.Undo, p.Data, error(nil)
	if p.Version != r.machine.Version && r.machine.Migrate != nil {
		state, data, err = r.translate(p.Version, state, data)
	}
	step := r.machine.Steps[state]
	if err != nil || step == nil || step.Undo == nil {
		return r.undoFailed(p, fmt.Errorf("%w: state %q of visit %d", ErrOrphanedUndo, p.Undo, p.UndoVisit())), nil
	}
	o, err := r.attemptUndo(p, step, data)
	if err != nil {
		return nil, err
	}
	return r.judgeUndo(p, step, o), nil
}

// judgeUndo turns the outcome of an undo into the change to commit.
func (r *Run) judgeUndo(p *Entry, step *Step, o outcome) *Change {
	var steer *Steer
	if errors.As(o.err, &steer) && steer.Snooze {
		steer = nil // an undo cannot be put off: a failed attempt like any other
	}
	switch {
	case o.err == nil:
		now := r.eng.Now()
		c := r.change()
		c.OnCommit = o.onCommit
		c.Entries = []Entry{r.undoEntry(KindUndone, p, now)}
		return r.undone(r.past(c, p), now)
	case r.stopped(o):
		return r.suspend()
	case step != nil && r.mayRetry(step.UndoRetry, o, steer):
		c := r.retry(p.Undo, p.UndoVisit(), step.UndoRetry, o, steer)
		c.Yields = true
		if !c.After.Held && !r.undoUntil.IsZero() { // parked: what is left of the time is for the next goroutine
			r.eng.undoLeft.Store(r.id, r.undoUntil.Sub(r.eng.Now()))
		}
		return c
	}
	return r.undoFailed(p, o.err)
}

// undoFailed records an undo that will not be tried again by itself.
func (r *Run) undoFailed(p *Entry, err error) *Change {
	now := r.eng.Now()
	c := r.change()
	e := r.undoEntry(KindUndoFailed, p, now)
	e.Cause, e.Error = CauseOf(err), err.Error()
	if e.Cause == CauseOrphaned {
		e.Data = p.Data // for whoever has to undo it by hand
	}
	c.Entries, c.Why = []Entry{e}, err
	c.After.UndoErrors++
	return r.undone(r.past(c, p), now)
}

// past moves the rollback to the visit before p's.
func (r *Run) past(c *Change, p *Entry) *Change {
	c.After.UndoAt = p.PrevUndo
	c.After.resetVisit()
	return c
}

// undone ends the run with the change if no undo is left.
func (r *Run) undone(c *Change, now time.Time) *Change {
	c.Yields = true
	h := &c.After
	if h.UndoAt == 0 {
		e := r.entry(KindEnd, now)
		e.Cause, e.Error, e.Data = h.Cause, h.Error, h.Data
		c.Entries = append(c.Entries, e)
		h.end(endStatus(h), now)
		r.eng.undoLeft.Delete(r.id)
	}
	return c
}

// undoTime is the time that a rollback has in this process, less what it has
// used up before it was parked.
func (e *Engine) undoTime(run int64, limit time.Duration) time.Duration {
	if left, ok := e.undoLeft.LoadAndDelete(run); ok {
		return left.(time.Duration)
	}
	return limit
}

func (r *Run) undoEntry(k Kind, p *Entry, now time.Time) Entry {
	e := r.entry(k, now)
	e.State, e.Visit = p.Undo, p.UndoVisit()
	return e
}

// undoPoint returns the entry that closes the next visit to undo, nil if there
// is none. A repeated rollback passes over what an earlier one has undone.
func (r *Run) undoPoint() (*Entry, error) {
	ctx := context.Background()
	if r.head.Redo && r.repaid == nil {
		done, err := r.eng.Journal.Undone(ctx, &r.head)
		if err != nil {
			return nil, err
		}
		r.repaid = done
	}
	for r.head.UndoAt != 0 {
		p, err := r.eng.Journal.Entry(ctx, r.head.UndoAt)
		if err != nil {
			return nil, err
		}
		if !r.repaid[p.UndoVisit()] {
			return &p, nil
		}
		r.head.UndoAt = p.PrevUndo
	}
	return nil, nil
}
