package segno

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// Errors of registering flows. They are returned by the builder and by Start.
var (
	// ErrExists says that the id is registered already.
	ErrExists = errors.New("segno: already registered")
	// ErrNotFound says that there is no flow or run of that id, or no file to read.
	ErrNotFound = store.ErrNotFound
	// ErrConfig says that a workflow, a flow or an option is not usable as given.
	ErrConfig = errors.New("segno: bad configuration")
	// ErrSchedule says that a schedule cannot be read.
	ErrSchedule = errors.New("segno: bad schedule")
	// ErrNeverFires says that a schedule can be read but never comes due.
	ErrNeverFires = errors.New("segno: schedule never fires")
)

// Errors of starting, stopping and the file.
var (
	// ErrStarted is returned by whatever must happen before Start.
	ErrStarted = errors.New("segno: already started")
	// ErrStopped is returned once the scheduler stops or has stopped. It is also
	// the context.Cause of a step whose context ends for that reason.
	ErrStopped = store.ErrClosed
	// ErrLocked says that another process, or another scheduler of this one, owns the file.
	ErrLocked = store.ErrLocked
	// ErrFenced says that a newer owner took the file over, or that the file was
	// replaced; nothing more is written.
	ErrFenced = store.ErrFenced
	// ErrStoreFailed says that the file cannot be trusted until it is opened
	// anew: the last commit may or may not have happened. Start returns it if the
	// disk fails or is full.
	ErrStoreFailed = store.ErrStoreFailed
	// ErrForeign says that the file belongs to another application.
	ErrForeign = store.ErrForeign
	// ErrNewer says that the file was written by a newer segno.
	ErrNewer = store.ErrNewer
	// ErrCorrupt says that SQLite finds the file damaged.
	ErrCorrupt = store.ErrCorrupt
	// ErrReadOnly says that the file or its folder cannot be written.
	ErrReadOnly = store.ErrReadOnly
	// ErrTx says that a statement or a call is not allowed in a shared transaction.
	ErrTx = store.ErrTx
)

// Errors of triggering and steering runs.
var (
	// ErrRunning says that the flow has an open run and its overlap is Skip.
	ErrRunning = errors.New("segno: flow is running")
	// ErrTripped says that the flow failed too often in a row and must be reset.
	ErrTripped = errors.New("segno: flow is tripped")
	// ErrBusy says that Flow.MaxPending runs wait already.
	ErrBusy = errors.New("segno: too many pending runs")
	// ErrEnded says that the run, or the attempt that a context belongs to, is over.
	ErrEnded = engine.ErrEnded
	// ErrKeyReused says that the key belongs to a run with another input.
	ErrKeyReused = errors.New("segno: key was used with another input")
	// ErrStuck says that the run needs a person: see RunInfo.StuckReason.
	ErrStuck = errors.New("segno: run is stuck")
)

// Errors of runs, found in a RunError with errors.Is, after a restart too.
var (
	// ErrTransition says that a step returned a state that its Next does not allow.
	ErrTransition = engine.ErrTransition
	// ErrUnknownState says that a step returned, or a stored run is in, a state
	// that the workflow does not have.
	ErrUnknownState = engine.ErrUnknownState
	// ErrVersion says that the run was begun by another version of the workflow.
	ErrVersion = engine.ErrVersion
	// ErrCrashLoop says that the process died Options.MaxCrashes times in one visit.
	ErrCrashLoop = engine.ErrCrashLoop
	// ErrOrphanedUndo says that a visit has to be undone whose state, or whose
	// Undo, is gone from the workflow.
	ErrOrphanedUndo = engine.ErrOrphanedUndo
	// ErrJoin says that the branches of a Split did not do what its Join asks for.
	ErrJoin = engine.ErrJoin
	// ErrPanic says that a step panicked; the text has the stack.
	ErrPanic = engine.ErrPanic
	// ErrCircuitOpen says that a Breaker did not let a call through: see CircuitOpen.
	ErrCircuitOpen = engine.ErrCircuitOpen
	// ErrRateLimited says that a Limiter refused: see RateLimited.
	ErrRateLimited = engine.ErrRateLimited
)

// A RunError tells how a run ended that did not complete. Errors of the step
// itself are kept as text: after the run has ended they can be read, and
// matched only with the sentinels of this package, with
// context.DeadlineExceeded for a timeout and context.Canceled for a cancel.
type RunError struct {
	Flow    string
	Run     RunID
	State   string   // in which it failed
	Attempt int      // of the last visit, when it failed
	Path    []string // states visited, in order
	Err     error    // why it failed
	Undo    []error  // undos that failed, in the order they were tried
}

// Error names the run, the state and the path to it, and what failed.
func (e *RunError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "segno: run %d of %s failed in %s (attempt %d, path %s): %v",
		e.Run, e.Flow, e.State, e.Attempt, shortPath(e.Path), e.Err)
	for i, err := range e.Undo {
		fmt.Fprintf(&b, "; undo %d: %v", i+1, err)
	}
	return b.String()
}

// shortPath joins a path, leaving out the middle of that of a long loop.
func shortPath(path []string) string {
	const most, ends = 20, 8
	if n := len(path); n > most {
		middle := fmt.Sprintf("… %d more …", n-2*ends)
		path = slices.Concat(path[:ends], []string{middle}, path[n-ends:])
	}
	return strings.Join(path, " → ")
}

// Unwrap returns the cause and the errors of the rollback.
func (e *RunError) Unwrap() []error { return append([]error{e.Err}, e.Undo...) }

// configFault makes an ErrConfig.
func configFault(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...)
}
