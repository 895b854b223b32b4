package engine

import (
	"context"
	"errors"
	"time"
)

// Errors of the machine. Package segno re-exports and documents them.
var (
	ErrTransition   = errors.New("segno: transition not allowed")
	ErrUnknownState = errors.New("segno: unknown state")
	ErrVersion      = errors.New("segno: run of another workflow version")
	ErrCrashLoop    = errors.New("segno: crash loop")
	ErrOrphanedUndo = errors.New("segno: no undo for this state any more")
	ErrEnded        = errors.New("segno: ended")
	ErrUndecodable  = errors.New("segno: data cannot be decoded")
	ErrTooLarge     = errors.New("segno: data too large")
	ErrPanic        = errors.New("segno: panic")
	ErrAbandoned    = errors.New("segno: abandoned")
	ErrJoin         = errors.New("segno: split not joined")

	// ErrCancelRequested answers a Commit whose run is to be cancelled: nothing
	// was written, and the run must roll back instead.
	ErrCancelRequested = errors.New("segno: cancel requested")
	// ErrStopping is the cause of a step context that ends because the
	// scheduler stops. A step that stops is not a step that failed.
	ErrStopping = errors.New("segno: stopped")
	// ErrCancelledRun is the cause of a step context that ends by a cancel.
	ErrCancelledRun = errors.New("segno: run cancelled")
	errTimeout      = errors.New("segno: attempt timed out")
	errRunTimeout   = errors.New("segno: run timed out")
	errHandedOver   = errors.New("segno: run goes on in another goroutine")
)

// Cause is the stored class of a failure: what is left of an error's identity
// after a restart.
type Cause string

// The closed set of causes.
const (
	CauseError     Cause = "error"
	CausePanic     Cause = "panic"
	CauseTimeout   Cause = "timeout"
	CauseCancelled Cause = "cancelled"
	CauseCrashLoop Cause = "crash_loop"
	CauseRoute     Cause = "transition"
	CauseUnknown   Cause = "unknown_state"
	CauseVersion   Cause = "version"
	CauseOrphaned  Cause = "orphaned"
	CauseTooLarge  Cause = "too_large"
	CauseData      Cause = "undecodable"
	CauseAbandoned Cause = "abandoned"
	CauseJoin      Cause = "join"
)

var sentinels = []struct {
	cause Cause
	err   error
}{
	{CauseRoute, ErrTransition}, {CauseUnknown, ErrUnknownState}, {CauseVersion, ErrVersion},
	{CauseCrashLoop, ErrCrashLoop}, {CauseOrphaned, ErrOrphanedUndo}, {CauseData, ErrUndecodable},
	{CauseTooLarge, ErrTooLarge}, {CauseJoin, ErrJoin}, {CausePanic, ErrPanic}, {CauseAbandoned, ErrAbandoned},
	{CauseTimeout, errTimeout}, {CauseTimeout, errRunTimeout}, {CauseTimeout, context.DeadlineExceeded},
	{CauseCancelled, ErrCancelledRun}, {CauseCancelled, context.Canceled},
}

// CauseOf returns the stored class of err: "error" for whatever the user's code returned.
func CauseOf(err error) Cause {
	var f *Failure
	if errors.As(err, &f) {
		return f.Cause
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.cause
		}
	}
	return CauseError
}

// A Failure is an error as it is read back from the file: its text and its
// cause. It matches the sentinel of its cause with errors.Is.
type Failure struct {
	Cause Cause
	Text  string
}

// Error returns the text of the failure as it was stored.
func (f *Failure) Error() string { return f.Text }

// Is reports whether target is the sentinel of the failure's cause.
func (f *Failure) Is(target error) bool {
	for _, s := range sentinels {
		if s.cause == f.Cause && s.err == target {
			return true
		}
	}
	return false
}

// A Steer is an error by which a step steers its visit instead of failing it.
type Steer struct {
	Err       error         // what the step reports; nil for a snooze
	Permanent bool          // never retried
	Snooze    bool          // a success that stays in its state
	Keep      bool          // of a snooze: the attempt goes on, with its number
	Progress  bool          // of a snooze: the unit is done and the next one is another
	Awaits    string        // of a snooze: wait for a signal of this name, to Until at the latest
	Call      *Head         // of a snooze: create this run and wait for its end
	Called    bool          // of a snooze: wait for the run called before
	After     time.Duration // delay of the next attempt, or of the snooze
	Until     time.Time     // instant of the snooze, instead of After
}

// Error returns the step's own text.
func (s *Steer) Error() string {
	if s.Snooze {
		return "segno: snooze"
	}
	return s.Err.Error()
}

// Due returns the due time that the steer asks for, and the delay it is made
// from, 0 for an instant.
func (s *Steer) Due(now time.Time) (time.Time, time.Duration) {
	if !s.Until.IsZero() {
		return s.Until.Round(0), 0
	}
	return now.Add(s.After), s.After
}

// Unwrap returns the step's own error.
func (s *Steer) Unwrap() error { return s.Err }
