package segnotest

import (
	"context"
	"time"

	"github.com/segnodev/segno"
)

// A Scenario is a program to be killed, and what is known of its end.
type Scenario struct {
	// Options are those of every incarnation, with SmallWAL set; nil: the zero
	// Options. A jitter, of backoff and retries, is the scenario's own affair.
	Options func(fx *Effects) segno.Options
	// Register adds the flows to the scheduler of a new incarnation. Effects of
	// steps on anything but the file go through fx.
	Register func(s *segno.Scheduler, fx *Effects) error
	// Drive does what the program does while it runs: it triggers, waits,
	// cancels. It is called in every incarnation, so it must be idempotent. ctx
	// ends with the incarnation. nil does nothing.
	Drive func(ctx context.Context, r *segno.RunningScheduler) error
	// LeaveOpen ends the scenario when Drive returns. Without it the harness
	// then waits until no run is open, stuck ones aside.
	LeaveOpen bool
	// Then are further lives of the program, each after a clean Stop: a new
	// version of it, say. A crash repeats the life it falls into.
	Then []Phase
	// Times compares times, too: for scenarios without jitter, whose steps take
	// no time. A crash must then not cost any.
	Times bool
	// Crashes is the number of kills in one go; 0 means 1. Those behind the
	// first fall early in the following incarnations, where recovery is.
	Crashes int
	// Side is how many units of one run may be in work side by side, and so be
	// repeated behind a kill: of a Batch or a Split; 0 means 1.
	Side int
	// Limit is the longest that one incarnation may take in fake time; 0 means
	// 24 hours.
	Limit time.Duration
	// Stride kills only at every so manyth commit: for a quick look. 0 means each.
	Stride int
	// Normalize, if set, takes out of an outcome what a crash may change.
	Normalize func(o *Outcome)
	// Check, if set, says what is wrong with an outcome, whichever way it came
	// about. Without it a scenario may fail to do what it is meant to do, each
	// time in the same way.
	Check func(o *Outcome) error

	empty []byte // the file to begin with
}

// A Phase is one life of the program.
type Phase struct {
	Register  func(s *segno.Scheduler, fx *Effects) error                // see Scenario.Register
	Drive     func(ctx context.Context, r *segno.RunningScheduler) error // see Scenario.Drive
	LeaveOpen bool                                                       // see Scenario.LeaveOpen
}

// phases lists the lives of the program.
func (s *Scenario) phases() []Phase {
	return append([]Phase{{s.Register, s.Drive, s.LeaveOpen}}, s.Then...)
}

// Epoch is when the fake time of every bubble begins.
var Epoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

// Now returns how much fake time has passed in the bubble: over all
// incarnations, in a sweep.
func Now() time.Duration { return time.Since(Epoch) }

// At waits until so much fake time has passed in the bubble, and returns at
// once if it has.
func At(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d - Now())
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
