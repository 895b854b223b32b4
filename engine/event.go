package engine

import (
	"context"
	"errors"
	"slices"
	"time"
)

// EventKind says what an event tells of. Package segno documents the kinds.
type EventKind string

// The closed set of event kinds.
const (
	EventRunStarted       EventKind = "run_started"
	EventRunResumed       EventKind = "run_resumed"
	EventStateEntered     EventKind = "state_entered"
	EventCheckpoint       EventKind = "checkpoint"
	EventTaskStarted      EventKind = "task_started"
	EventTaskSucceeded    EventKind = "task_succeeded"
	EventTaskFailed       EventKind = "task_failed"
	EventRetry            EventKind = "retry"
	EventCircuitOpen      EventKind = "circuit_open"
	EventRunTimedOut      EventKind = "run_timed_out"
	EventRunCancelled     EventKind = "run_cancelled"
	EventParked           EventKind = "parked"
	EventWoken            EventKind = "woken"
	EventRollbackStarted  EventKind = "rollback_started"
	EventUndoStarted      EventKind = "undo_started"
	EventUndoSucceeded    EventKind = "undo_succeeded"
	EventUndoFailed       EventKind = "undo_failed"
	EventRollbackFinished EventKind = "rollback_finished"
	EventRunFinished      EventKind = "run_finished"
	EventUnknownState     EventKind = "unknown_state"
	EventCleanupFailed    EventKind = "cleanup_failed"
)

// An Event tells that something has happened to a run, after the commit that
// made it true.
type Event struct {
	Kind    EventKind
	At      time.Time
	Flow    string
	Run     int64
	State   string
	Visit   int
	Attempt int
	Unit    string
	Seq     int64
	Status  Status
	Err     error
	Due     time.Time
	Elapsed time.Duration
	Limit   time.Duration
}

// causeCircuitOpen is the cause of an attempt that a breaker refused.
const causeCircuitOpen Cause = "circuit_open"

// watch is what a run has told so far, as far as an end must follow. Without
// an observer it stays empty.
type watch struct {
	came  EventKind // how the run came to this goroutine; "": its head says it
	told  bool      // that it came
	task  bool      // a TaskStarted has no end yet
	undo  int       // visit whose UndoStarted has no end yet
	over  bool      // the run is not ours any more
	queue []Event   // to be told
	units []Event   // TaskStarted of units that have no end yet; guarded by Run.mu
}

// Came says how the run came here: started, resumed or woken. It is called
// before Drive.
func (r *Run) Came(kind EventKind) *Run {
	r.watch.came = kind
	return r
}

// CameFrom tells how a run that waits in the file, as in h, is about to go on.
func CameFrom(h *Head) EventKind {
	parkedUndo := h.Status == Undoing && !h.Due.IsZero() && h.Wake.Equal(h.Due)
	switch {
	case h.Started.IsZero():
		return EventRunStarted
	case h.Status == Parked, h.Status == Waiting, parkedUndo:
		return EventWoken
	}
	return EventRunResumed
}

// Observe tells of a unit of the visit: that its work began, succeeded or
// failed. A start told twice is told once, an end without a start not at all,
// and units that have no end when the attempt is over get that of the visit.
// It may be called from several goroutines; once the attempt is over it does
// nothing.
func (v *Visit) Observe(kind EventKind, unit string, err error) {
	r := v.run
	if r.eng.Observe == nil {
		return
	}
	r.telling.Lock()
	defer r.telling.Unlock()
	var e Event
	pairs := false
	_ = v.alive(func() {
		e = r.event(kind, &r.head)
		e.Unit, e.Err = unit, err
		pairs = r.watch.pair(e)
	})
	if pairs {
		r.eng.Observe(e)
	}
}

// pair keeps the units without an end, and reports whether the event is to be told.
func (w *watch) pair(e Event) bool {
	i := slices.IndexFunc(w.units, func(open Event) bool { return open.Unit == e.Unit })
	switch e.Kind {
	case EventTaskStarted:
		if i < 0 {
			w.units = append(w.units, e)
		}
		return i < 0
	case EventTaskSucceeded, EventTaskFailed:
		if i >= 0 {
			w.units = slices.Delete(w.units, i, i+1)
		}
		return i >= 0
	}
	return true
}

// event starts an event of the visit that h is in.
func (r *Run) event(kind EventKind, h *Head) Event {
	return Event{
		Kind: kind, At: r.eng.Now(), Flow: r.flow, Run: r.id, State: h.State, Visit: h.Visit, Attempt: h.Attempt,
		Seq: h.Seq, Status: h.Status,
	}
}

// note queues an event.
func (r *Run) note(e Event) { r.watch.queue = append(r.watch.queue, e) }

// flush tells what is queued. An observer that calls runtime.Goexit takes the
// goroutine with it, but not the run.
func (r *Run) flush() {
	if len(r.watch.queue) == 0 {
		return
	}
	r.telling.Lock()
	returned := false
	defer func() {
		r.telling.Unlock()
		if !returned && !r.watch.over {
			r.outlive()
		}
	}()
	for len(r.watch.queue) > 0 {
		e := r.watch.queue[0]
		r.watch.queue = r.watch.queue[1:]
		r.eng.Observe(e)
	}
	returned = true
}

// outlive goes on with the run between two units in another goroutine.
func (r *Run) outlive() {
	r.mu.Lock()
	next := r.eng.Begin(r.base, r.machine, r.head)
	next.admitted, next.left, next.undoUntil, next.repaid = r.admitted, r.left, r.undoUntil, r.repaid
	next.cancel, next.stopping, next.aborted = r.cancel, r.stopping, r.aborted
	next.watch = r.watch
	r.mu.Unlock()
	r.eng.HandOver(r, next)
}

// opens tells how the run came here: of a new one at once, of any other when
// it is certain to go on.
func (r *Run) opens() {
	w := &r.watch
	if r.eng.Observe == nil {
		return
	}
	if w.came == "" {
		w.came = EventRunResumed
		if r.head.Seq == 1 {
			w.came = EventRunStarted
		}
	}
	certain := r.admitted || w.came == EventRunStarted
	if !w.told && certain && r.head.Held && r.head.Status.Executing() {
		w.told = true
		r.note(r.event(w.came, &r.head))
		if w.came == EventRunStarted {
			r.entered(&r.head, 1)
		} else if r.head.Redo && r.repeats() {
			r.note(r.event(EventRollbackStarted, &r.head))
		}
	}
	r.flush()
}

// repeats reports whether a rollback that repeats undos is at its beginning.
func (r *Run) repeats() bool {
	e, err := r.eng.Journal.Entry(context.Background(), r.head.Last)
	return err == nil && e.Kind == KindRollback
}

// starts tells that the goroutine begins to work on the visit.
func (r *Run) starts() {
	if r.eng.Observe == nil || r.watch.task {
		return
	}
	r.watch.task = true
	r.note(r.event(EventTaskStarted, &r.head))
	r.flush()
}

// startsUndo tells that the goroutine begins to undo the visit that p closes.
func (r *Run) startsUndo(p *Entry) {
	if r.eng.Observe == nil || r.watch.undo == p.UndoVisit() {
		return
	}
	r.undoOpen(p.Undo, p.UndoVisit())
	r.flush()
}

func (r *Run) undoOpen(state string, visit int) {
	r.watch.undo = visit
	e := r.event(EventUndoStarted, &r.head)
	e.State, e.Visit = state, visit
	r.note(e)
}

// gone tells that the run is left as it is, since err ended its Drive: unless
// somebody else goes on with it.
func (r *Run) gone(err error) error {
	if r.eng.Observe != nil && r.watch.told && !HandedOver(err) {
		r.parks(&r.head, err)
		r.watch.over = true
		r.flush()
	}
	return err
}

// tell derives from a committed change what is to be told, in order.
func (r *Run) tell(c *Change) {
	if r.eng.Observe == nil {
		return
	}
	for i := range c.Entries {
		r.tellEntry(c, &c.Entries[i])
	}
	after := &c.After
	if len(c.Entries) == 0 && len(c.Memos) > 0 {
		r.note(r.event(EventCheckpoint, after))
	}
	if !after.Held && !after.Status.Ended() && (r.watch.told || after.Status == Stuck) {
		r.parks(after, c.Why)
	}
}

// tellEntry derives what one entry of the journal tells.
func (r *Run) tellEntry(c *Change, e *Entry) {
	after := &c.After
	switch e.Kind {
	case KindEnter:
		r.ends(c, EventTaskSucceeded, nil)
		r.entered(after, after.Seq)
	case KindRollback:
		r.fails(c)
		r.note(r.event(EventRollbackStarted, after))
	case KindRetry:
		r.retries(c, e)
	case KindUndone, KindUndoFailed:
		r.undid(c, e)
	case KindStuck:
		if e.Cause == CauseUnknown || e.Cause == CauseVersion {
			unknown := r.event(EventUnknownState, after)
			unknown.Err = c.Why
			r.note(unknown)
		}
	case KindEnd:
		r.finishes(c)
	}
}

// entered tells of a state that was entered by the commit of that seq.
func (r *Run) entered(h *Head, seq int64) {
	for _, kind := range []EventKind{EventStateEntered, EventCheckpoint} {
		e := r.event(kind, h)
		e.Seq = seq
		r.note(e)
	}
}

// ends tells how the visit's task ended, and the units that it has left.
func (r *Run) ends(c *Change, kind EventKind, err error) {
	r.endUnits(&c.After, EventTaskFailed, errorOr(err, ErrEnded))
	if !r.watch.task {
		return
	}
	r.watch.task = false
	e := r.event(kind, c.Before)
	e.Seq, e.Status, e.Err = c.After.Seq, c.After.Status, err
	r.note(e)
}

// endUnits ends the units that have no end yet, with the commit that made h.
func (r *Run) endUnits(h *Head, kind EventKind, err error) {
	r.telling.Lock() // what a unit is telling comes first
	r.mu.Lock()
	units := r.watch.units
	r.watch.units = nil
	r.mu.Unlock()
	r.telling.Unlock()
	for _, e := range units {
		e.Kind, e.At, e.Seq, e.Status, e.Err = kind, r.eng.Now(), h.Seq, h.Status, err
		r.note(e)
	}
}

// fails tells of a visit that ended the run, and why. One that was given up
// before its code ran has failed, too, unless it was the run that was ended.
func (r *Run) fails(c *Change) {
	cancelled, timedOut := c.After.Cause == CauseCancelled, errors.Is(c.Why, errRunTimeout)
	if c.Closed {
		r.ends(c, EventTaskSucceeded, nil)
	} else {
		if !cancelled && !timedOut && !r.watch.task {
			r.watch.task = true
			r.note(r.event(EventTaskStarted, c.Before))
		}
		r.refused(c, c.After.Cause)
		r.ends(c, EventTaskFailed, c.Why)
	}
	e := r.event(EventRunCancelled, &c.After)
	e.Err = c.Why
	if timedOut {
		e.Kind = EventRunTimedOut
		e.Elapsed, e.Limit = r.spent(e.At)
	}
	if cancelled || timedOut {
		r.note(e)
	}
}

// spent returns how much of the run's time has passed, and how much it had.
func (r *Run) spent(now time.Time) (elapsed, limit time.Duration) {
	deadline := r.head.Deadline
	limit = r.machine.Timeout
	if limit == 0 { // it had one when the run was created
		limit = deadline.Sub(r.head.Created)
	}
	return limit + now.Sub(deadline), limit
}

// refused tells that a breaker let nothing through, if that was the cause.
func (r *Run) refused(c *Change, cause Cause) {
	if cause != causeCircuitOpen {
		return
	}
	e := r.event(EventCircuitOpen, c.Before)
	e.Err = c.Why
	r.note(e)
}

// retries tells of an attempt that failed and will be repeated.
func (r *Run) retries(c *Change, entry *Entry) {
	r.endUnits(&c.After, EventTaskFailed, c.Why)
	r.refused(c, entry.Cause)
	e := r.event(EventRetry, &c.After)
	e.State, e.Visit, e.Attempt, e.Err, e.Due = entry.State, entry.Visit, entry.Attempt, c.Why, c.After.Due
	r.note(e)
}

// undid tells how an undo ended.
func (r *Run) undid(c *Change, entry *Entry) {
	if r.watch.undo != entry.Visit {
		r.undoOpen(entry.State, entry.Visit)
	}
	r.watch.undo = 0
	e := r.event(EventUndoSucceeded, &c.After)
	e.State, e.Visit, e.Attempt, e.Err = entry.State, entry.Visit, entry.Attempt, c.Why
	if entry.Kind == KindUndoFailed {
		e.Kind = EventUndoFailed
		if entry.Cause == CauseOrphaned && r.machine.Steps[entry.State] == nil {
			unknown := e
			unknown.Kind = EventUnknownState
			r.note(unknown)
		}
	}
	r.note(e)
}

// finishes tells of the end of the run.
func (r *Run) finishes(c *Change) {
	after := &c.After
	switch {
	case after.Status == Completed:
		r.ends(c, EventTaskSucceeded, nil)
		if after.Visit != c.Before.Visit {
			r.note(r.event(EventStateEntered, after))
		}
	case c.Before.Status == Undoing:
		r.note(r.event(EventRollbackFinished, after))
	default:
		r.fails(c)
	}
	r.note(r.event(EventCheckpoint, after))
	e := r.event(EventRunFinished, after)
	e.Err = after.Err()
	r.note(e)
}

// parks tells that the goroutine leaves the run, which ends what it worked on.
func (r *Run) parks(h *Head, err error) {
	r.endUnits(h, EventParked, err)
	r.watch.task, r.watch.undo = false, 0
	e := r.event(EventParked, h)
	e.Err = err
	if h.Status == Parked || h.Status == Waiting || h.Status == Undoing {
		e.Due = h.Due
	}
	r.note(e)
}

// errorOr returns the first error if there is one, else the second.
func errorOr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}
