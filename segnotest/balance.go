package segnotest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/segnodev/segno"
)

// Balanced fails the test unless each start that is recorded has its one end:
// tasks and their units, undos, rollbacks and runs. A run that is parked when
// the test looks has its end in that. Events of a scheduler in full swing are
// not balanced: stop it first, or wait for its runs.
func Balanced(t testing.TB, r *Recorder) {
	t.Helper()
	b := balance{runs: map[segno.RunID]*openings{}}
	for _, e := range r.Events() {
		if e.Run != 0 {
			b.add(&e)
		}
	}
	for run, o := range b.runs {
		if o.executing {
			b.fault("run %d has no end", run)
		}
		for name := range o.work {
			b.fault("run %d: %s has no end", run, name)
		}
	}
	slices.Sort(b.faults)
	for _, fault := range b.faults {
		t.Error(fault)
	}
}

// balance keeps account of what has begun.
type balance struct {
	runs   map[segno.RunID]*openings
	faults []string
}

// openings are what has begun in a run, and has no end yet.
type openings struct {
	executing bool
	rollback  bool
	carried   bool // the rollback may have begun before the recorder came
	work      map[string]bool
}

func (b *balance) fault(format string, args ...any) {
	b.faults = append(b.faults, fmt.Sprintf(format, args...))
}

// add takes account of one event.
func (b *balance) add(e *segno.Event) {
	o := b.runs[e.Run]
	if o == nil {
		o = &openings{work: map[string]bool{}}
		b.runs[e.Run] = o
	}
	switch e.Kind {
	case segno.EventRunStarted, segno.EventRunResumed, segno.EventWoken:
		b.check(e, !o.executing)
		o.executing, o.carried = true, e.Status == segno.RunUndoing
		o.rollback = o.rollback || o.carried
	case segno.EventTaskStarted, segno.EventUndoStarted:
		b.check(e, o.executing && !o.work[workOf(e)])
		o.work[workOf(e)] = true
	case segno.EventTaskSucceeded, segno.EventTaskFailed, segno.EventUndoSucceeded, segno.EventUndoFailed:
		b.check(e, o.work[workOf(e)])
		delete(o.work, workOf(e))
	case segno.EventRollbackStarted:
		b.check(e, o.executing && (!o.rollback || o.carried))
		o.rollback, o.carried = true, false
	case segno.EventRollbackFinished:
		b.check(e, o.rollback)
		o.rollback = false
	case segno.EventParked:
		o.park(e)
	case segno.EventRunFinished:
		b.check(e, o.executing && !o.rollback && len(o.work) == 0)
		o.executing = false
	}
}

// workOf names what has begun: a task or an undo.
func workOf(e *segno.Event) string {
	what := "task"
	switch e.Kind {
	case segno.EventUndoStarted, segno.EventUndoSucceeded, segno.EventUndoFailed:
		what = "undo"
	}
	return fmt.Sprintf("%s %s, visit %d%s", what, e.State, e.Visit, unitOf(e))
}

func unitOf(e *segno.Event) string {
	if e.Unit == "" {
		return ""
	}
	return ", unit " + e.Unit
}

// park ends what was being worked on: one unit, or all there is. A run that is
// stuck before it goes on has not begun anything.
func (o *openings) park(e *segno.Event) {
	if e.Unit != "" {
		delete(o.work, workOf(e))
		return
	}
	o.executing = false
	for name := range o.work {
		if !strings.Contains(name, ", unit ") {
			delete(o.work, name)
		}
	}
}

// check notes an event that must not be where it is.
func (b *balance) check(e *segno.Event, ok bool) {
	if !ok {
		b.fault("run %d: %s of %s, visit %d%s, is out of place", e.Run, e.Kind, e.State, e.Visit, unitOf(e))
	}
}
