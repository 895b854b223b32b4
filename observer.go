package segno

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/segnodev/segno/engine"
)

// An Observer is told what happens to runs, each time after the commit that
// made it true: for logs, metrics and tests. What must not be missed in a crash
// is in the history, not here.
//
// Observe is called in the goroutine of the run, which waits for it; the events
// of one run come in order and one at a time, those of different runs at the
// same time. A panic is logged once for each kind of event, and otherwise
// ignored. Observe must not wait for its own run or stop the scheduler. ctx
// carries nothing of the run and does not end with it.
type Observer interface {
	Observe(ctx context.Context, e Event)
}

// ObserverFunc is a function as an Observer.
type ObserverFunc func(ctx context.Context, e Event)

// Observe calls the function.
func (f ObserverFunc) Observe(ctx context.Context, e Event) { f(ctx, e) }

// EventKind says what an event tells of.
type EventKind string

// The closed set of kinds. One visit goes StateEntered, Checkpoint, TaskStarted,
// any number of Retry and CircuitOpen, TaskSucceeded or TaskFailed. Within one
// process each TaskStarted is followed by exactly one of TaskSucceeded,
// TaskFailed and Parked, each UndoStarted by one of UndoSucceeded, UndoFailed
// and Parked; a run that goes on behind a Parked starts anew what was cut off.
// RunStarted and RunFinished, RollbackStarted and RollbackFinished are told once
// over all of them.
const (
	// EventRunStarted says that a new run begins to execute.
	EventRunStarted EventKind = "run_started"
	// EventRunResumed says that a run goes on which a death of the process, a
	// Stop or a stuck state had interrupted, or whose undos are repeated. Seq is
	// that of its last commit. The visit it is in is not entered again.
	EventRunResumed EventKind = "run_resumed"
	// EventStateEntered says that a visit has begun, or the run is in its final state.
	EventStateEntered EventKind = "state_entered"
	// EventCheckpoint says that a visit's begin, a memo with a wait, or the end
	// of the run is durable, with the commit's number in Seq.
	EventCheckpoint EventKind = "checkpoint"
	// EventTaskStarted says that a goroutine begins to work on a visit, or on
	// one Unit of it.
	EventTaskStarted EventKind = "task_started"
	// EventTaskSucceeded says that the visit, or the unit, has succeeded.
	EventTaskSucceeded EventKind = "task_succeeded"
	// EventTaskFailed says that the visit, or the unit, has failed for good, with Err.
	EventTaskFailed EventKind = "task_failed"
	// EventRetry says that an attempt, with its number and Err, has failed and
	// is repeated at Due. In a rollback it is one of an undo.
	EventRetry EventKind = "retry"
	// EventCircuitOpen says that a breaker has refused an attempt.
	EventCircuitOpen EventKind = "circuit_open"
	// EventRunTimedOut says that the run's Timeout has passed: Elapsed of Limit.
	EventRunTimedOut EventKind = "run_timed_out"
	// EventRunCancelled says that the run was cancelled; its rollback follows.
	EventRunCancelled EventKind = "run_cancelled"
	// EventParked says that a run has given up its goroutine before its end.
	// Status says why: parked and waiting wait, until Due if that is set; pending
	// was suspended by a Stop; undoing is either of these in a rollback; stuck
	// needs a person, for the reason in Err. Whatever the status, another Err is
	// what cut the run off: a store that failed, say. With a Unit it is the end of
	// that unit only.
	EventParked EventKind = "parked"
	// EventWoken says that a run which waited without a goroutine goes on.
	EventWoken EventKind = "woken"
	// EventRollbackStarted says that a run begins to undo its visits.
	EventRollbackStarted EventKind = "rollback_started"
	// EventUndoStarted says that a goroutine begins to undo a visit.
	EventUndoStarted EventKind = "undo_started"
	// EventUndoSucceeded says that the visit was undone.
	EventUndoSucceeded EventKind = "undo_succeeded"
	// EventUndoFailed says that the visit was not undone, and why: Err.
	EventUndoFailed EventKind = "undo_failed"
	// EventRollbackFinished says that no undo is left.
	EventRollbackFinished EventKind = "rollback_finished"
	// EventRunFinished says that the run has ended, with Status, and with Err
	// unless it completed.
	EventRunFinished EventKind = "run_finished"
	// EventUnknownState says that the workflow does not know the state or the
	// version of a stored run, which then is stuck, or of a visit to be undone.
	EventUnknownState EventKind = "unknown_state"
	// EventCleanupFailed says that the memos of closed visits, or what is older
	// than Options.Retention keeps it, could not be deleted, with Err. It concerns
	// no run, and is tried again: memos by the next start, the rest in a minute.
	EventCleanupFailed EventKind = "cleanup_failed"
)

// An Event is something that has happened. Fields that its kind has no use for
// are zero. It never holds a run's data.
type Event struct {
	Kind    EventKind
	At      time.Time
	Flow    string
	Run     RunID
	State   string
	Visit   int // counts the run's visits, from 1
	Attempt int // counts the attempts of the visit, or of the undo, from 1
	// Unit names a part of the visit, an item of a Batch or a branch of a Split,
	// that the event is about; "": the visit.
	Unit string
	// Seq counts the commits of the run.
	Seq int64
	// Status is that of the run, as committed last.
	Status RunStatus
	// Err is what has failed. It matches what the step returned, and the same
	// sentinels as the error of a run: see RunError.
	Err error
	// Due is when a retry or a wait is over.
	Due time.Time
	// Elapsed and Limit are the run's time and its Timeout, when that has passed.
	Elapsed, Limit time.Duration
}

// observers are the program's observers, guarded.
type observers struct {
	list []Observer
	warn func(observer int, kind EventKind, panicked any)

	mu   sync.Mutex
	told map[complaint]bool
}

// complaint is what is logged once only.
type complaint struct {
	observer int
	kind     EventKind
}

// validate finds what is no observer.
func (o *observers) validate() []error {
	var errs []error
	for i, ob := range o.list {
		if ob == nil {
			errs = append(errs, fmt.Errorf("%w: Options.Observers[%d] is nil", ErrConfig, i))
		}
	}
	return errs
}

// tell calls every observer in order.
func (o *observers) tell(ctx context.Context, e Event) {
	for i := range o.list {
		o.call(ctx, i, e)
	}
}

func (o *observers) call(ctx context.Context, i int, e Event) {
	defer func() {
		if p := recover(); p != nil {
			o.complain(complaint{i, e.Kind}, p)
		}
	}()
	o.list[i].Observe(ctx, e)
}

// complain logs a panic, unless it did so before.
func (o *observers) complain(c complaint, panicked any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.told[c] {
		return
	}
	if o.told == nil {
		o.told = map[complaint]bool{}
	}
	o.told[c] = true
	o.warn(c.observer, c.kind, panicked)
}

// observing returns what the engine tells of its runs, nil if nobody listens.
func (r *RunningScheduler) observing() func(engine.Event) {
	if len(r.observers.list) == 0 {
		return nil
	}
	r.observers.warn = func(observer int, kind EventKind, panicked any) {
		r.log.Error("segno: an observer panicked, which is ignored from now on", "observer", observer, "event", string(kind),
			"panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
	}
	return func(e engine.Event) { r.observers.tell(r.base, event(e)) }
}

// event is an engine's event as the program sees it.
func event(e engine.Event) Event {
	return Event{
		Kind: EventKind(e.Kind), At: e.At, Flow: e.Flow, Run: RunID(e.Run), State: e.State, Visit: e.Visit,
		Attempt: e.Attempt, Unit: e.Unit, Seq: e.Seq, Status: RunStatus(e.Status), Err: withCause(e.Err), Due: e.Due,
		Elapsed: e.Elapsed, Limit: e.Limit,
	}
}

// caused is an error that matches, beside what it wraps, the sentinel of its
// cause: as it will when it is read back from the file.
type caused struct {
	error
	cause *engine.Failure
}

// Unwrap returns the error and its cause.
func (e *caused) Unwrap() []error { return []error{e.error, e.cause} }

func withCause(err error) error {
	if err == nil {
		return nil
	}
	cause := engine.CauseOf(err)
	if cause == engine.CauseError {
		return err
	}
	return &caused{err, &engine.Failure{Cause: cause, Text: err.Error()}}
}

// cleanupFailed tells of something that could not be deleted.
func (r *RunningScheduler) cleanupFailed(what string, err error) {
	if r.store.Err() != nil || r.isStopping() {
		return
	}
	r.log.Warn("segno: "+what, "error", err)
	done := make(chan struct{})
	go func() { // one that calls runtime.Goexit must not end the dispatcher
		defer close(done)
		r.observers.tell(r.base, Event{Kind: EventCleanupFailed, At: r.now(), Err: err})
	}()
	<-done
}
