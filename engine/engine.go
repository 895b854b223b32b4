package engine

import (
	"context"
	"errors"
	"sync"
	"time"
)

// An Engine drives runs. Its fields are set once, before the first Begin.
type Engine struct {
	Journal      Journal
	Now          func() time.Time
	Grace        time.Duration // an interrupted attempt may still succeed for so long
	AbandonAfter time.Duration // and is waited for so much longer
	ParkAfter    time.Duration // waits from this length on give up their goroutine
	MaxData      int           // bytes of a run's data
	MaxCrashes   int           // deaths in one visit
	// HandOver receives the continuation of a run whose goroutine is lost in
	// its step; the old Drive returns an error once the step comes back.
	HandOver func(old, next *Run)
	// Cleared, if set, is told when a suspect has come to the end of its visit.
	Cleared func(run int64)
	// Recalled, if set, is told when a run was asked to cancel for its parent's sake.
	Recalled func(run int64)
	// Observe, if set, is told what happens to the runs, each in its goroutine.
	Observe func(Event)

	undoLeft sync.Map // by run: what a parked rollback has left of its time
}

// protectedFor bounds a step with an Undo that must not be interrupted, and an
// undo, where the step has no timeout of its own.
const protectedFor = 30 * time.Second

// A Run is one run in the hands of a goroutine.
type Run struct {
	eng     *Engine
	machine *Machine
	base    context.Context
	id      int64
	flow    string
	head    Head
	kept    bool // the journal keeps data between the steps
	called  bool // by another run

	admitted  bool
	left      *outcome     // what an attempt that never returned is taken for
	memos     memos        // of the visit
	settledAt time.Time    // of the last commit
	undoUntil time.Time    // end of the rollback's budget in this process
	repaid    map[int]bool // visits undone by earlier rollbacks
	attached  *attachment  // what the visit keeps open between its units
	watch     watch        // what the observer has been told
	telling   sync.Mutex   // held while it is told something: units have goroutines of their own

	mu       sync.Mutex // guards what follows
	unit     *unit
	stopping bool
	cancel   bool
	aborted  error
	nudge    chan struct{}
}

// Begin takes a held head. Step contexts descend from ctx.
func (e *Engine) Begin(ctx context.Context, m *Machine, h Head) *Run {
	return &Run{
		eng: e, machine: m, base: ctx, id: h.Run, flow: h.Flow, head: h, kept: m.KeepData || m.undoable(), called: h.Parent != 0,
		cancel: h.Cancel, nudge: make(chan struct{}, 1), settledAt: e.Now(),
		memos: memos{known: h.Seq == 1}, // nobody can have written any before the first visit
	}
}

// Remembers gives a run the memos of its visit, all that the journal has, so
// that they need not be read. nil: they are not known. It is called before Drive.
func (r *Run) Remembers(values map[string][]byte) *Run {
	if values != nil {
		r.memos = memos{known: true, some: len(values) > 0, values: values}
	}
	return r
}

// Drive runs until the run ends, parks, is stuck, or is suspended, and returns
// the head as it was committed last. Any error means that the run is no longer
// ours: the journal refused, or another goroutine has it.
func (r *Run) Drive() (Head, error) {
	defer r.detach()
	for r.opens(); r.head.Status.Executing() && r.head.Held; r.opens() {
		c, err := r.settle()
		if err == nil && c != nil {
			err = r.commit(c)
		}
		if err != nil {
			return r.head, r.gone(err)
		}
	}
	return r.head, nil
}

// HandedOver reports whether Drive ended because another goroutine has the run.
func HandedOver(err error) bool { return err == errHandedOver }

// ID returns the run's id.
func (r *Run) ID() int64 { return r.id }

// Flow returns the id of the run's flow.
func (r *Run) Flow() string { return r.flow }

// Called reports whether another run has called this one.
func (r *Run) Called() bool { return r.called }

// settle does the next thing of the run and says what to commit; nil: look again.
func (r *Run) settle() (*Change, error) {
	now := r.eng.Now()
	switch {
	case r.left != nil:
		return r.settleLeft()
	case r.suspended():
		return r.suspend(), nil
	case !r.admitted:
		return r.admit()
	case r.head.Child != 0 && r.leaving(now):
		return r.recall(now)
	case r.head.Status == Undoing:
		return r.undo(now)
	case r.cancelled():
		return r.rollback(ErrCancelledRun, r.head.Uncertain, false), nil
	case expired(r.head.Deadline, now):
		return r.rollback(errRunTimeout, r.head.Uncertain, false), nil
	case r.head.Crashes >= r.eng.MaxCrashes:
		return r.rollback(crashLoop(&r.head), true, false), nil
	case expired(r.head.VisitDue, now):
		return r.rollback(visitTimeout(&r.head), r.head.Uncertain, false), nil
	case r.head.rest(now) > 0:
		r.sleep(r.head.rest(now))
		return nil, nil
	}
	return r.visit()
}

// settleLeft judges the attempt that another goroutine was lost in.
func (r *Run) settleLeft() (*Change, error) {
	o := *r.left
	r.left, r.admitted = nil, true
	if r.head.Status == Undoing {
		p, err := r.undoPoint()
		if err != nil {
			return nil, err
		}
		return r.judgeUndo(p, r.machine.Steps[p.Undo], o), nil
	}
	return r.judge(o), nil
}

// commit makes a change durable and takes its head. A cancel that came first
// turns the change into a rollback; a failed OnCommit into a failed attempt.
func (r *Run) commit(c *Change) error {
	err := r.eng.Journal.Commit(context.Background(), c)
	switch e := err.(type) {
	case nil:
		r.take(c)
		return nil
	case *OnCommitError:
		r.left = &outcome{err: e, panicked: errors.Is(e, ErrPanic)} // judged by the next settle
		return nil
	}
	if err == ErrCancelRequested {
		r.Cancel()
		return r.commit(r.yield(c))
	}
	return err
}

// take makes the committed head the current one.
func (r *Run) take(c *Change) {
	r.tell(c)
	if c.After.Visit != r.head.Visit || c.After.Status == Undoing && r.head.Status != Undoing {
		r.memos = memos{known: true} // a visit entered here has none yet, and a rollback closes the visit
	}
	for key, value := range c.Memos {
		r.memos.put(key, value)
	}
	if c.After.Visit != r.head.Visit || c.After.Status != Running || c.Why != nil {
		r.detach() // after a failure, too: it is not where the file is
	}
	cleared := r.head.Suspect && !c.After.Suspect
	r.head = c.After
	r.settledAt = r.eng.Now()
	if cleared && r.eng.Cleared != nil {
		r.eng.Cleared(r.head.Run)
	}
	if c.Recall && r.eng.Recalled != nil {
		r.eng.Recalled(r.head.Child)
	}
	r.flush()
}

// Cancel tells the run that its cancel flag is set. The unit in flight is
// interrupted, unless its step has an Undo.
func (r *Run) Cancel() {
	r.mu.Lock()
	r.cancel = true
	r.mu.Unlock()
	r.interrupt(ErrCancelledRun)
}

// Suspend asks the run to stop behind the unit in flight.
func (r *Run) Suspend() {
	r.mu.Lock()
	if r.stopping = true; r.unit != nil {
		r.unit.ask(ErrStopping)
	}
	r.mu.Unlock()
	r.wakeUp()
}

// Abort ends the context of the unit in flight, whatever it is.
func (r *Run) Abort(cause error) {
	r.mu.Lock()
	r.stopping, r.aborted = true, cause
	if r.unit != nil {
		r.unit.interrupt(r, cause)
	}
	r.mu.Unlock()
	r.wakeUp()
}

func (r *Run) suspended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopping
}

func (r *Run) cancelled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cancel
}

func (r *Run) wakeUp() {
	select {
	case r.nudge <- struct{}{}:
	default:
	}
}

// sleep waits in memory, no longer than to the nearest deadline, or until woken.
func (r *Run) sleep(d time.Duration) {
	now := r.eng.Now()
	if next := earliest(r.head.Deadline, r.head.VisitDue); !next.IsZero() {
		d = min(d, max(next.Sub(now), 0))
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		// The clock the wait was measured with may have been stepped meanwhile;
		// the wait is over all the same.
		if !expired(r.head.Deadline, now.Add(d)) && !expired(r.head.VisitDue, now.Add(d)) {
			r.head.Due, r.head.Delay = time.Time{}, 0
		}
	case <-r.nudge:
	}
}
