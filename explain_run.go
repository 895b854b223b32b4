package segno

import (
	"context"
	"fmt"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// ExplainRun says why a run is not running now, or that it is: the first of the
// reasons, in the order of the constants, that holds. It returns ErrNotFound.
func (q *queries) ExplainRun(ctx context.Context, id RunID) (Explanation, error) {
	what := fmt.Sprintf("run %d", id)
	h, err := q.from.Run(ctx, int64(id))
	if err != nil {
		return Explanation{}, q.named(what, err)
	}
	e, err := q.explainHead(ctx, &h)
	return e, q.explaining(what, err)
}

func (q *queries) explainHead(ctx context.Context, h *engine.Head) (Explanation, error) {
	now := q.at()
	e := Explanation{Flow: h.Flow, Run: RunID(h.Run)}
	if settledText(&e, h, now) || engaged(&e, h, now) || resting(&e, h, now) {
		return e, nil
	}
	return e, q.turn(ctx, &e, h)
}

// settledText explains a run that does not go on by itself.
func settledText(e *Explanation, h *engine.Head, now time.Time) bool {
	switch h.Status {
	case engine.Stuck:
		if h.StuckReason == orphanedReason {
			return e.say(ReasonStuck, time.Time{}, "stuck in %s, orphaned: it goes on when a program registers its flow again", h.State)
		}
		return e.say(ReasonStuck, time.Time{}, "stuck in %s: %s; ResumeRun lets it try again, after the fix", h.State, firstLine(h.StuckReason))
	case engine.UndoFailed:
		text := "; UndoRun repeats the undos that failed, AckRun accepts it"
		if h.Note != "" {
			text = "; accepted: " + firstLine(h.Note)
		}
		return e.say(ReasonEnded, time.Time{}, "undo_failed in %s at %s%s%s", h.State, when(h.Ended, now), because(h.Error), text)
	}
	if !h.Status.Ended() {
		return false
	}
	return e.say(ReasonEnded, time.Time{}, "%s in %s at %s%s", h.Status, h.State, when(h.Ended, now), because(h.Error))
}

// engaged explains a run that is executing, or is to be rolled back.
func engaged(e *Explanation, h *engine.Head, now time.Time) bool {
	waits := h.Due.After(now)
	switch {
	case h.Status == engine.Undoing && waits:
		return e.say(ReasonRollingBack, h.Due, "rolling back%s; the next undo is tried at %s", because(h.Error), when(h.Due, now))
	case h.Status == engine.Undoing:
		return e.say(ReasonRollingBack, time.Time{}, "rolling back%s", because(h.Error))
	case h.Cancel:
		return e.say(ReasonCancelled, time.Time{}, "a cancel was asked for: it rolls back as soon as %s lets it", h.State)
	case h.Held && !waits:
		return e.say(ReasonExecuting, time.Time{}, "executing %s, visit %d, attempt %d, entered at %s", h.State, h.Visit, h.Attempt, when(h.Entered, now))
	}
	return false
}

// resting explains a run whose time is still to come: wake is that, or the
// deadline of its wait or its own.
func resting(e *Explanation, h *engine.Head, now time.Time) bool {
	come := !h.Wake.IsZero() && !h.Wake.After(now)
	switch {
	case h.Held:
		return e.say(ReasonParked, h.Due, "waits in %s, visit %d, until %s", h.State, h.Visit, when(h.Due, now))
	case come:
		return false
	case h.Status == engine.Pending && h.Due.After(now):
		return e.say(ReasonNotBefore, h.Due, "triggered for %s", when(h.Due, now))
	case h.Status == engine.Parked:
		return e.say(ReasonParked, h.Wake, "parked in %s, visit %d, until %s", h.State, h.Visit, when(h.Wake, now))
	case h.Status == engine.Waiting && h.Child != 0:
		e.Blocker = RunID(h.Child)
		return e.say(ReasonChild, h.Wake, "waits in %s for run %d, which it called%s", h.State, h.Child, limit(h.Wake, now))
	case h.Status == engine.Waiting:
		return e.say(ReasonSignal, h.Wake, "waits in %s for the signal %q%s", h.State, h.Awaits, limit(h.Wake, now))
	}
	return false
}

// turn explains a run whose time has come.
func (q *queries) turn(ctx context.Context, e *Explanation, h *engine.Head) error {
	row, err := q.from.Flow(ctx, h.Flow)
	if err != nil {
		return err
	}
	f := q.flows[h.Flow]
	lack := q.lacks(f, h.Parent != 0)
	switch {
	case !row.Orphaned.IsZero():
		e.say(ReasonOrphaned, time.Time{}, "its flow is not registered by any program")
	case h.Status == engine.Pending && h.Crashes >= store.SuspectAfter:
		e.say(ReasonSuspect, time.Time{}, "it died with the process %d times in %s: it is resumed alone, behind all others", h.Crashes, h.State)
	case lack == ReasonMaxConcurrent:
		e.say(lack, time.Time{}, "as many runs execute, over all flows, as Options.MaxConcurrent allows")
	case lack != "":
		e.say(lack, time.Time{}, "as many runs of the flow execute as Allow(%d) lets", f.Overlap.limit())
	case f != nil && f.alone(h) && row.Active > 0:
		return q.behind(ctx, e, h)
	default:
		e.say(ReasonDue, time.Time{}, "its turn has come: it goes on in %s as soon as the program gets to it", h.State)
	}
	return nil
}

// behind explains a run that waits for another of its flow.
func (q *queries) behind(ctx context.Context, e *Explanation, h *engine.Head) error {
	other, found, err := q.from.Blocker(ctx, h.Flow)
	if err != nil {
		return err
	}
	if !found || other.Run == h.Run { // it has ended meanwhile
		e.say(ReasonDue, time.Time{}, "its turn has come")
		return nil
	}
	e.Blocker = RunID(other.Run)
	e.say(ReasonOverlap, time.Time{}, "behind run %d, which is %s in %s", other.Run, other.Status, other.State)
	return nil
}
