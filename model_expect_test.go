package segno

import "time"

// after returns the first slot behind t within the bounds.
func (w *modelWorld) after(t time.Time) time.Time {
	f := w.f
	if f.MaxRuns > 0 && w.fired >= f.MaxRuns {
		return time.Time{}
	}
	slot := w.spec.after(w.row.Anchor, later(t, f.StartAt.Add(-tick)))
	if !f.EndAt.IsZero() && slot.After(f.EndAt) {
		return time.Time{}
	}
	return slot
}

// due returns when a slot is due: in the first half of the way to the next one.
func (w *modelWorld) due(slot time.Time) time.Time {
	if slot.IsZero() || w.spec.kind == fixedDelay {
		return slot
	}
	due := w.f.due(&w.row, slot)
	late := due.Sub(slot)
	if next := w.after(slot); late < 0 || late > w.f.Jitter || !next.IsZero() && 2*late > next.Sub(slot) {
		w.wrong("slot %v is due at %v", slot, due)
	}
	return due
}

// come returns the first slot behind t that is due.
func (w *modelWorld) come(t time.Time) time.Time {
	slot := w.row.Next
	if w.spec.kind != fixedDelay {
		slot = w.after(t)
	} else if !slot.After(t) || slot.Before(w.f.StartAt) || !w.row.RetrySlot.IsZero() || w.over() {
		return time.Time{}
	}
	if slot.After(w.now) || w.due(slot).After(w.now) {
		return time.Time{}
	}
	return slot
}

// over reports whether as many slots have fired as may.
func (w *modelWorld) over() bool { return w.f.MaxRuns > 0 && w.fired >= w.f.MaxRuns }

// gate returns when the gate opens, zero if it is open.
func (w *modelWorld) gate() time.Time { return earlier(w.stand.until, w.now.Add(w.stand.delay)) }

// paused reports whether a pause holds now.
func (w *modelWorld) paused() bool {
	until := w.row.PauseUntil
	return !w.row.Paused.IsZero() && (until.IsZero() || until.After(w.now))
}

// inTurn reports whether slots that were missed run one after the other.
func (w *modelWorld) inTurn() bool { return w.f.CatchUp.limit() > 0 && w.f.Overlap < allowBase }

// keeps reports whether slots wait for the gate instead of being lost to it.
func (w *modelWorld) keeps() bool {
	first := w.after(w.row.Cursor)
	return w.spec.kind == once || w.inTurn() && w.spec.kind != fixedDelay && !first.IsZero() && !first.After(w.stand.set)
}

// waitsForTurn reports whether slots were missed that run in turn, while a run is open.
func (w *modelWorld) waitsForTurn() bool {
	first := w.after(w.row.Cursor)
	return w.inTurn() && w.row.Open(w.f.Serial) > 0 && !first.IsZero() && w.now.Sub(w.due(first)) > onTime
}

// outcome says what becomes of a slot by itself: nothing if it waits, fired if it may.
func (w *modelWorld) outcome(slot time.Time) (outcome, reason string) {
	outcome, reason = w.standing(slot)
	if outcome == fired && w.marked(slot) {
		return skipped, "skipped_by_user"
	}
	if outcome == skipped && w.marked(slot) {
		return skipped, "skipped_by_user"
	}
	return outcome, reason
}

// marked reports whether a person wants a slot skipped. The mark on the slot of
// a FixedDelay moves with it.
func (w *modelWorld) marked(slot time.Time) bool {
	for _, s := range w.skips {
		if s.Slot.Equal(slot) || w.spec.kind == fixedDelay && s.Slot.Before(slot) {
			return true
		}
	}
	return false
}

// standing says what becomes of a slot that nobody has marked.
func (w *modelWorld) standing(slot time.Time) (outcome, reason string) {
	gate, late := w.gate(), w.now.Sub(w.due(slot))
	waits := !w.row.RetrySlot.IsZero() && w.f.CatchUp != CatchUpSkip // for the gate, and the newest fires
	switch {
	case w.stand.tripped:
		return skipped, "tripped"
	case w.paused() || !w.row.Paused.IsZero() && slot.Before(w.row.PauseUntil):
		return skipped, "paused"
	case gate.After(w.now) && (w.keeps() || waits):
		return "", ""
	case w.keeps():
	case slot.Before(gate) && (!waits || !w.come(slot).IsZero()):
		return skipped, "backoff"
	}
	switch {
	case w.f.MaxLateness > 0 && late > w.f.MaxLateness:
		return skipped, "too_late"
	case w.f.CatchUp == CatchUpSkip && w.spec.kind != fixedDelay && w.spec.kind != once && late > onTime:
		return skipped, "missed"
	}
	return fired, ""
}

// expect says, slot by slot, what a verdict must be.
func (w *modelWorld) expect() (want []decision) {
	var may []int // of want, those that can fire
	for slot := w.come(w.row.Cursor); !slot.IsZero(); slot = w.come(slot) {
		outcome, reason := w.outcome(slot)
		if outcome == "" {
			break
		}
		want = append(want, decision{stretch{slot, slot, 1}, outcome, reason, ""})
		if outcome == fired {
			may = append(may, len(want)-1)
		}
	}
	switch limit := w.f.CatchUp.limit(); {
	case len(may) == 0:
	case limit == 0 || w.spec.kind == fixedDelay:
		for _, n := range may[:len(may)-1] {
			want[n].outcome = coalesced
		}
	case w.waitsForTurn():
		return w.before(want, may[0])
	default:
		return w.eachFires(want, may, limit)
	}
	return want
}

// eachFires lets the newest of the slots fire, in turn only the first of these.
func (w *modelWorld) eachFires(want []decision, may []int, limit int) []decision {
	if w.f.MaxRuns > 0 {
		limit = min(limit, w.f.MaxRuns-w.fired)
	}
	for i, n := range may {
		if i < len(may)-limit {
			want[n].outcome, want[n].reason = skipped, "catchup_cap"
		} else if w.inTurn() {
			return want[:n+1]
		}
	}
	return want
}

// before returns what is decided although a run is open that slots wait for:
// nothing from the first of them on, nor what a person skips right before it.
func (w *modelWorld) before(want []decision, n int) []decision {
	for want = want[:n]; len(want) > 0 && want[len(want)-1].reason == "skipped_by_user"; want = want[:len(want)-1] {
		if outcome, _ := w.standing(want[len(want)-1].first); outcome == skipped {
			return want
		}
	}
	return want
}

// expectNext returns when something can happen next.
func (w *modelWorld) expectNext() time.Time {
	slot, gate := w.after(w.row.Cursor), w.gate()
	due, retry := w.due(slot), time.Time{}
	if !w.row.RetrySlot.IsZero() {
		retry = later(gate, w.now)
	}
	switch {
	case w.stand.tripped || w.paused():
		return w.expectBlocked(due)
	case w.waitsForTurn():
		return time.Time{} // the end of that run
	case w.keeps() && !slot.IsZero():
		due = later(due, gate)
	case !slot.IsZero() && due.Before(gate):
		for !slot.IsZero() && slot.Before(gate) {
			slot = w.after(slot)
		}
		if due = w.due(slot); slot.IsZero() { // those that are lost are the last ones
			due = gate
		}
	}
	if !retry.IsZero() && (due.IsZero() || retry.Before(due)) {
		return retry
	}
	return due
}

// expectBlocked returns when slots that cannot fire are put on record.
func (w *modelWorld) expectBlocked(due time.Time) time.Time {
	at := later(due, w.now.Add(idleDecide))
	if until := w.row.PauseUntil; !w.stand.tripped && !until.IsZero() && until.Before(at) {
		at = later(due, until)
	}
	if due.IsZero() {
		return due
	}
	return at
}

// delay is what a streak costs: it doubles, from the first delay to the longest.
func (w *modelWorld) delay(streak int) time.Duration {
	d := w.f.Backoff.Initial
	switch {
	case d < 0:
		return 0
	case d == 0:
		d = time.Second
	}
	for ; streak > 1 && d < w.f.Backoff.MaxDelay; streak-- {
		d *= 2
	}
	return min(d, w.f.Backoff.MaxDelay)
}
