package segno

import (
	"time"

	"github.com/segnodev/segno/engine"
)

// A modelRun is a run without its code.
type modelRun struct {
	engine.Head
	active, cancelled bool
}

// known is the outcome of a slot that is on record already.
const known = "known"

// fire starts the run of a slot, or says why it cannot. It returns what goes on
// record.
func (w *modelWorld) fire(d decision, missed []decision) (all []decision) {
	all = append(missed, d)
	switch {
	case w.known[d.last]: // by a clock that has been set back since
		if !w.back {
			w.wrong("slot %v has fired before, and the cursor was never set back", d.last)
		}
		all = append(as(missed, skipped, "missed"), as([]decision{d}, known, "")...)
	case w.overlaps():
		all = as(all, skipped, "overlap")
	default:
		w.row.Fired++
		w.known[d.last] = true
		w.create(engine.Head{Slot: d.last})
	}
	return all
}

// as gives slots an outcome.
func as(list []decision, outcome, reason string) (all []decision) {
	for _, d := range list {
		d.outcome, d.reason = outcome, reason
		all = append(all, d)
	}
	return all
}

// again starts another run of the slot whose last one failed.
func (w *modelWorld) again() {
	slot, try := w.row.RetrySlot, w.row.RetryTry
	w.row.RetrySlot, w.row.RetryTry = time.Time{}, 0
	if w.spec.kind == fixedDelay {
		w.row.Next = time.Time{}
	}
	if !w.overlaps() {
		w.create(engine.Head{Slot: slot, Try: try})
	}
}

// overlaps reports whether open runs forbid another one; Replace cancels them.
func (w *modelWorld) overlaps() bool {
	if w.f.Overlap == Replace && w.row.Open(w.f.Serial) > 0 {
		w.cancel()
	}
	return w.f.Overlap == Skip && w.row.Open(w.f.Serial) > 0
}

// create begins a run, which waits for those that it replaces.
func (w *modelWorld) create(h engine.Head) {
	w.checkRun(&h)
	w.row.Runs++
	w.row.Queued++
	h.Status = engine.Pending
	w.runs = append(w.runs, &modelRun{Head: h})
	if w.spec.kind == fixedDelay {
		w.row.Next = time.Time{}
	}
	w.claim()
}

// claim lets the runs begin that need not wait.
func (w *modelWorld) claim() {
	for _, r := range w.runs {
		alone := w.f.Overlap == Skip || w.f.Overlap == Replace
		if r.Status != engine.Pending || alone && !r.cancelled && w.row.Active > 0 {
			continue
		}
		if r.Started.IsZero() {
			r.Started, w.row.LastRun = w.now, w.now
		}
		r.active, r.Status = true, engine.Running
		w.row.Queued--
		w.row.Active++
	}
}

// failures are the ends of a run that does not complete.
var failures = []engine.Status{
	engine.Stuck, engine.Cancelled, engine.Failed, engine.Failed, engine.Failed, engine.Failed, engine.Failed, engine.UndoFailed,
}

// end settles a run.
func (w *modelWorld) end(n int, status engine.Status) {
	r := w.pick(n, func(r *modelRun) bool { return r.active })
	if r == nil {
		return
	}
	if r.cancelled && status != engine.Completed {
		status = engine.Cancelled
	}
	w.row.Active--
	r.active, r.Status = false, status
	if status == engine.Stuck {
		w.row.Stuck++
	} else {
		w.drop(r)
		r.Ended, r.Error = w.now, "it failed"
		before := w.row
		w.f.outcome(&w.row, &r.Head)
		w.checkOutcome(&before, &r.Head)
	}
	if w.spec.kind == fixedDelay {
		w.row.Next = w.now.Add(w.spec.d)
	}
	w.plan()
	w.claim()
}

// drop forgets a run.
func (w *modelWorld) drop(gone *modelRun) {
	var left []*modelRun
	for _, r := range w.runs {
		if r != gone {
			left = append(left, r)
		}
	}
	w.runs = left
}

// unstick lets a stuck run go on.
func (w *modelWorld) unstick(n int) {
	r := w.pick(n, func(r *modelRun) bool { return r.Status == engine.Stuck })
	if r == nil {
		return
	}
	r.Status = engine.Pending
	w.row.Stuck--
	w.row.Queued++
	w.claim()
}

// cancel cancels the runs that are open.
func (w *modelWorld) cancel() {
	for _, r := range w.runs {
		r.cancelled = r.Status != engine.Stuck || r.cancelled
	}
	w.claim()
}

// pick returns one of the runs.
func (w *modelWorld) pick(n int, which func(*modelRun) bool) *modelRun {
	var found []*modelRun
	for _, r := range w.runs {
		if which(r) {
			found = append(found, r)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return found[n%len(found)]
}
