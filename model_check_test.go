package segno

import (
	"fmt"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// checkVerdict holds a verdict against what the model expects, slot by slot.
func (w *modelWorld) checkVerdict(v *verdict) {
	want := w.expect()
	for _, d := range v.decisions {
		for slot, n := d.first, 1; n <= d.count; n++ {
			switch {
			case len(want) == 0:
				w.wrong("%v was decided %s %s, and should not yet", slot, d.outcome, d.reason)
				return
			case !want[0].first.Equal(slot) || want[0].outcome != d.outcome || want[0].reason != d.reason || n == d.count && !slot.Equal(d.last):
				w.wrong("got %v %s %s, want %v %s %s (of %v to %v, %d)",
					slot, d.outcome, d.reason, want[0].first, want[0].outcome, want[0].reason, d.first, d.last, d.count)
				return
			case d.outcome == fired && d.count != 1:
				w.wrong("%d slots fire at once", d.count)
			}
			want = want[1:]
			slot = w.after(slot)
		}
	}
	if len(want) > 0 {
		w.wrong("%v was not decided, want %s %s and %d more", want[0].first, want[0].outcome, want[0].reason, len(want)-1)
	}
	idle := len(v.decisions) == 0 && !w.stand.tripped && !w.paused() && !w.gate().After(w.now)
	if retry := idle && !w.row.RetrySlot.IsZero(); v.retry != retry {
		w.wrong("the slot that failed is tried again: got %v, want %v", v.retry, retry)
	}
}

// record puts a decision on record: it goes on where the last one ended.
func (w *modelWorld) record(d decision) {
	slot := d.first
	if w.spec.kind != fixedDelay {
		slot = w.after(w.cursor)
	}
	for n := 1; n <= d.count; n++ {
		if n == 1 && !slot.Equal(d.first) || n == d.count && !slot.Equal(d.last) || !slot.After(w.cursor) {
			w.wrong("the record has %v to %v, %d slots; the next is %v, behind %v", d.first, d.last, d.count, slot, w.cursor)
			return
		}
		w.cursor = slot
		slot = w.after(slot)
	}
	if d.outcome != fired {
		return
	}
	if w.fired++; w.f.MaxRuns > 0 && w.fired > w.f.MaxRuns {
		w.wrong("%d slots have fired", w.fired)
	}
	if !d.last.After(w.highest) {
		w.wrong("slot %v fires after %v", d.last, w.highest)
	}
	w.highest = d.last
}

// checkRecord checks the ledger's invariant. Each slot went on record where the
// one before it ended, so that none has two outcomes; as none up to the cursor
// is left, each has one.
func (w *modelWorld) checkRecord() {
	if !w.row.Cursor.Equal(w.cursor) {
		w.wrong("the cursor is %v, the record ends at %v", w.row.Cursor, w.cursor)
	}
	if w.row.Fired != w.fired {
		w.wrong("%d slots fired, the flow has %d", w.fired, w.row.Fired)
	}
	open := 0
	for _, r := range w.runs {
		if r.Status != engine.Stuck {
			open++
		}
	}
	if w.row.Open(false) != open {
		w.wrong("%d runs are open, the flow has %d", open, w.row.Open(false))
	}
}

// checkRun checks that a new run is alone where it must be, and the only one of
// its slot's try.
func (w *modelWorld) checkRun(h *engine.Head) {
	if w.f.Overlap == Skip && w.row.Open(w.f.Serial) > 0 {
		w.wrong("a run begins while one is open")
	}
	if h.Slot.IsZero() {
		return
	}
	name := fmt.Sprint(h.Slot.UnixMicro(), "/", h.Try)
	switch {
	case w.tries[name]:
		w.wrong("try %d of slot %v is there already", h.Try, h.Slot)
	case h.Try > w.f.SlotRetries:
		w.wrong("slot %v is tried for the %d. time", h.Slot, h.Try+1)
	}
	w.tries[name] = true
}

// checkPlan checks when the flow is to be looked at next.
func (w *modelWorld) checkPlan() {
	next := w.row.Next
	if !next.IsZero() && !next.After(w.row.Cursor) && w.row.RetrySlot.IsZero() {
		w.wrong("next %v is not behind the cursor %v", next, w.row.Cursor)
	}
	if w.spec.kind == fixedDelay {
		w.checkDelay(next)
		return
	}
	waits := next.After(w.now) || next.IsZero()
	if want := w.expectNext(); !next.Equal(want) && (waits || want.After(w.now) || want.IsZero()) {
		w.wrong("next is %v, want %v (cursor %v, gate %v, retry %v)", next, want, w.row.Cursor, w.gate(), w.row.RetrySlot)
	}
}

// checkDelay checks the next slot of a FixedDelay, which must come in time.
func (w *modelWorld) checkDelay(next time.Time) {
	if !w.row.RetrySlot.IsZero() {
		if want := later(w.gate(), w.now); !next.Equal(want) {
			w.wrong("the slot is tried again at %v, want %v", next, want)
		}
		return
	}
	switch most := later(later(w.now.Add(w.spec.d), w.gate()).Add(w.unseen), later(w.row.Cursor.Add(tick), w.f.StartAt)); {
	case next.IsZero() && !w.over() && w.row.Open(w.f.Serial) == 0 && (w.f.EndAt.IsZero() || most.Before(w.f.EndAt)):
		w.wrong("nothing is due, and no run is open")
	case next.IsZero():
	case w.over() || next.Before(w.f.StartAt) || !w.f.EndAt.IsZero() && next.After(w.f.EndAt):
		w.wrong("next is %v, out of bounds", next)
	case next.After(most):
		w.wrong("next is %v, not before %v", next, most)
	}
}

// checkOutcome plays a run's end on streak, gate and trip.
func (w *modelWorld) checkOutcome(before *store.Flow, h *engine.Head) {
	s := &w.stand
	window := !s.until.IsZero() && w.now.Before(w.gate())
	switch {
	case window && h.Started.Before(s.set), h.Status == engine.Cancelled:
	case h.Status != engine.Completed:
		s.streak++
		s.tripped = s.tripped || w.f.Backoff.StreakLimit > 0 && s.streak >= w.f.Backoff.StreakLimit
		s.set, s.until, s.delay = time.Time{}, time.Time{}, 0
		if d := w.delay(s.streak); d > 0 && !s.tripped {
			s.set, s.until, s.delay = w.now, w.now.Add(d), d
		}
	case !s.tripped:
		*s = modelStand{}
	}
	got := modelStand{w.row.Streak, w.row.Outcome == string(StatusTripped), w.row.GateSet, w.row.GateUntil, w.row.GateDelay}
	if got != *s {
		w.wrong("after a %s run: got %+v, want %+v (before %+v)", h.Status, got, *s, *before)
	}
}
