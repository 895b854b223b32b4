package segno

import (
	"hash/fnv"
	"time"

	"github.com/segnodev/segno/store"
)

const (
	onTime     = time.Second      // a slot decided so late has not been missed
	idleDecide = 10 * time.Second // how often slots are put on record that cannot fire anyway
	tick       = time.Microsecond // the resolution of stored times
)

// A decision says what becomes of a stretch of slots. Coalesced ones belong to
// the run of the next that fires.
type decision struct {
	stretch
	outcome, reason, note string
}

// The outcomes of a slot.
const (
	fired     = "fired"
	coalesced = "coalesced"
	skipped   = "skipped"
)

// A verdict says what becomes of the slots that have come: a pure function of
// the flow's row, the slots that are to be skipped, and the time. It is what the
// dispatcher acts on, and what Simulate plays with.
type verdict struct {
	f     *flow
	of    store.Flow // the row it was made from
	skips []store.Skip

	decisions []decision // in the order of the slots
	upto      time.Time  // the new cursor
	resume    bool       // the pause has ended by itself
	retry     bool       // the slot that failed is due again
}

// verdict decides the slots in (cursor, now].
func (f *flow) verdict(row *store.Flow, skips []store.Skip, now time.Time) verdict {
	v := verdict{f: f, of: *row, skips: f.moved(row, skips), upto: row.Cursor}
	end := f.ripe(row, now)
	if reason, until := blockedBy(row, now); reason != "" {
		v.pass(earlier(until, end), reason)
		if until.Equal(now) {
			return v
		}
		v.resume = true
	}
	if gate := row.Gate(now); !row.GateUntil.IsZero() {
		v.pass(earlier(f.gated(row, gate, now), end), "backoff")
		if gate.After(now) {
			return v
		}
	}
	if f.MaxLateness > 0 {
		v.pass(earlier(f.ripe(row, now.Add(-f.MaxLateness-tick)), end), "too_late")
	}
	if f.CatchUp == CatchUpSkip && f.Schedule.kind != fixedDelay && f.Schedule.kind != once {
		v.pass(earlier(f.ripe(row, now.Add(-onTime-tick)), end), "missed")
	}
	v.fire(end, now)
	v.retry = v.upto.Equal(row.Cursor) && !row.RetrySlot.IsZero()
	return v
}

// keepsForGate reports whether the slots that have come wait for the gate: the
// only one of At, and those that run in turn and were missed before it closed.
func (f *flow) keepsForGate(row *store.Flow) bool {
	return f.Schedule.kind == once || f.inTurn() && f.slots(row, row.Cursor, row.GateSet).count > 0
}

// gated returns up to which time slots are lost to the gate. Where the one that
// failed would be tried again at the gate's end, the newest that has come by
// then fires instead.
func (f *flow) gated(row *store.Flow, gate, now time.Time) time.Time {
	lost, come := gate.Add(-tick), f.ripe(row, now)
	switch {
	case f.keepsForGate(row):
		return row.Cursor
	case row.RetrySlot.IsZero() || f.CatchUp == CatchUpSkip:
		return lost
	case gate.After(now):
		return row.Cursor
	case f.slots(row, later(row.Cursor, lost), come).count > 0:
		return lost
	}
	if st := f.slots(row, row.Cursor, earlier(lost, come)); st.count > 0 {
		return st.last.Add(-tick)
	}
	return lost
}

// inTurn reports whether missed slots run one after the other.
func (f *flow) inTurn() bool {
	return f.CatchUp.limit() > 0 && (f.Overlap == Skip || f.Overlap == Replace)
}

// blockedBy says why no slot up to the returned time can fire.
func blockedBy(row *store.Flow, now time.Time) (reason string, until time.Time) {
	switch {
	case row.Outcome == string(StatusTripped):
		return "tripped", now
	case row.Paused.IsZero():
		return "", now
	case !row.PauseUntil.IsZero() && !row.PauseUntil.After(now):
		return "paused", row.PauseUntil.Add(-tick)
	}
	return "paused", now
}

// add records a stretch.
func (v *verdict) add(st stretch, outcome, reason, note string) {
	if st.count == 0 {
		return
	}
	v.decisions = append(v.decisions, decision{st, outcome, reason, note})
	v.upto = st.last
}

// cut calls fn with the stretches up to the given time, between those slots
// that are to be skipped, which it records as such.
func (v *verdict) cut(upto time.Time, fn func(stretch)) {
	for _, s := range v.skips {
		if !s.Slot.After(v.upto) || s.Slot.After(upto) {
			continue
		}
		fn(v.f.slots(&v.of, v.upto, s.Slot.Add(-tick)))
		if v.f.slots(&v.of, s.Slot.Add(-tick), s.Slot).count == 1 {
			v.add(stretch{first: s.Slot, last: s.Slot, count: 1}, skipped, "skipped_by_user", s.Note)
		}
	}
	fn(v.f.slots(&v.of, v.upto, upto))
}

// pass records the slots up to the given time as skipped for a reason.
func (v *verdict) pass(upto time.Time, reason string) {
	v.cut(upto, func(st stretch) { v.add(st, skipped, reason, "") })
}

// fire lets the slots up to the given time fire as the catch-up says: the
// newest for all of them, or each.
func (v *verdict) fire(upto, now time.Time) {
	if limit := v.f.CatchUp.limit(); limit > 0 && v.f.Schedule.kind != fixedDelay {
		v.fireAll(upto, now, limit)
		return
	}
	v.cut(upto, func(st stretch) { v.add(st, coalesced, "", "") })
	for i := len(v.decisions) - 1; i >= 0; i-- {
		if d := v.decisions[i]; d.outcome == coalesced {
			newest := stretch{first: d.last, last: d.last, count: 1}
			rest := []decision{{newest, fired, "", ""}}
			if d.count > 1 {
				before := stretch{first: d.first, last: v.f.before(&v.of, d.stretch), count: d.count - 1}
				rest = append([]decision{{before, coalesced, "", ""}}, rest...)
			}
			v.decisions = append(append(v.decisions[:i:i], rest...), v.decisions[i+1:]...)
			return
		}
	}
}

// fireAll lets each slot fire, the newest ones if there are more than limit.
// Where runs must not overlap, only the first of them does, and those behind it
// wait for its end.
func (v *verdict) fireAll(upto, now time.Time, limit int) {
	if v.f.MaxRuns > 0 {
		limit = min(limit, v.f.MaxRuns-v.of.Fired)
	}
	total := 0
	probe := *v
	probe.cut(upto, func(st stretch) {
		if total += st.count; st.count > 0 {
			probe.upto = st.last
		}
	})
	serial := v.f.inTurn()
	if serial && total > 0 && v.of.Open(v.f.Serial) > 0 && v.f.late(&v.of, now) {
		return
	}
	excess := total - limit
	v.cut(upto, func(st stretch) {
		if n := min(excess, st.count); n > 0 {
			excess -= n
			last := v.f.nth(&v.of, st, n)
			v.add(stretch{first: st.first, last: last, count: n}, skipped, "catchup_cap", "")
			st = v.f.slots(&v.of, last, st.last)
		}
		for slot := st.first; st.count > 0; st.count-- {
			if serial && v.fires() {
				break
			}
			v.add(stretch{first: slot, last: slot, count: 1}, fired, "", "")
			slot = v.f.next(&v.of, slot)
		}
	})
	v.trim(serial)
}

// fires reports whether a slot fires.
func (v *verdict) fires() bool {
	for i := range v.decisions {
		if v.decisions[i].outcome == fired {
			return true
		}
	}
	return false
}

// trim drops what was decided behind the first slot that fires: it comes when
// that one's run has ended.
func (v *verdict) trim(serial bool) {
	for i := range v.decisions {
		if d := v.decisions[i]; serial && d.outcome == fired {
			v.decisions, v.upto = v.decisions[:i+1], d.last
			return
		}
	}
}

// late reports whether the flow's next slot was missed.
func (f *flow) late(row *store.Flow, now time.Time) bool {
	next := f.next(row, row.Cursor)
	return !next.IsZero() && now.Sub(f.due(row, next)) > onTime
}

// next returns the first slot after t that lies within the flow's bounds.
func (f *flow) next(row *store.Flow, t time.Time) time.Time {
	if f.MaxRuns > 0 && row.Fired >= f.MaxRuns {
		return time.Time{}
	}
	if t.Before(f.StartAt) {
		t = f.StartAt.Add(-tick)
	}
	next := f.Schedule.next(row.Anchor, t)
	if !f.EndAt.IsZero() && next.After(f.EndAt) {
		return time.Time{}
	}
	return next
}

// slots returns the slots in (from, upto]. The only slot of a FixedDelay is
// the one that its last run left, and none while one is to be tried again.
func (f *flow) slots(row *store.Flow, from, upto time.Time) stretch {
	if f.MaxRuns > 0 && row.Fired >= f.MaxRuns {
		return stretch{}
	}
	if from.Before(f.StartAt) {
		from = f.StartAt.Add(-tick)
	}
	if !f.EndAt.IsZero() && upto.After(f.EndAt) {
		upto = f.EndAt
	}
	if f.Schedule.kind != fixedDelay {
		return f.Schedule.between(row.Anchor, from, upto)
	}
	if row.Next.IsZero() || row.Next.After(upto) || !row.Next.After(from) || !row.RetrySlot.IsZero() {
		return stretch{}
	}
	return stretch{first: row.Next, last: row.Next, count: 1}
}

// before returns the slot before the last of a stretch.
func (f *flow) before(row *store.Flow, st stretch) time.Time {
	for back := time.Second; st.last.Add(-back).After(st.first); back *= 2 {
		near := f.slots(row, st.last.Add(-back), st.last.Add(-tick))
		if near.count > 0 {
			return near.last
		}
	}
	return later(st.first, f.slots(row, st.first, st.last.Add(-tick)).last)
}

// nth returns the nth slot of a stretch, from 1.
func (f *flow) nth(row *store.Flow, st stretch, n int) time.Time {
	if f.Schedule.kind == interval {
		return st.first.Add(time.Duration(n-1) * f.Schedule.d)
	}
	t := st.first
	for ; n > 1; n-- {
		t = f.next(row, t)
	}
	return t
}

// ripe returns the time up to which slots are due at now: the newest may have
// to wait for its jitter, those before it have not.
func (f *flow) ripe(row *store.Flow, now time.Time) time.Time {
	if f.Jitter == 0 || f.Schedule.kind == fixedDelay {
		return now
	}
	last := f.slots(row, later(row.Cursor, now.Add(-f.Jitter-tick)), now)
	if last.count > 0 && f.due(row, last.last).After(now) {
		return last.last.Add(-tick)
	}
	return now
}

// due returns when a slot is due: its time and the jitter, which is drawn from
// the flow's id and the slot, and less than half of the way to the next one.
func (f *flow) due(row *store.Flow, slot time.Time) time.Time {
	limit := f.Jitter
	if limit == 0 || slot.IsZero() || f.Schedule.kind == fixedDelay {
		return slot
	}
	if next := f.Schedule.next(row.Anchor, slot); !next.IsZero() {
		limit = min(limit, next.Sub(slot)/2)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(f.ID + "\x00" + slot.Format(time.RFC3339Nano)))
	if limit /= tick; limit <= 0 {
		return slot
	}
	return slot.Add(time.Duration(h.Sum64()%uint64(limit)) * tick)
}

// plan sets when the dispatcher must look at the flow next.
func (f *flow) plan(row *store.Flow, now time.Time) {
	if f.Schedule.kind == fixedDelay {
		f.planDelay(row, now)
		return
	}
	slot := f.next(row, row.Cursor)
	row.Next = f.due(row, slot)
	if reason, until := blockedBy(row, now); reason != "" && until.Equal(now) { // not by a pause that has ended
		f.planBlocked(row, now, reason)
		return
	}
	if f.backlog(row, now) {
		row.Next = time.Time{} // the end of the open run plans anew
		return
	}
	gate := row.Gate(now)
	if !row.GateUntil.IsZero() && gate.After(row.Next) && !row.Next.IsZero() {
		row.Next = gate
		if beyond := f.next(row, gate.Add(-tick)); !f.keepsForGate(row) && !beyond.IsZero() {
			row.Next = f.due(row, beyond)
		} // else those that are lost are the last ones, and go on record then
	}
	if retry := later(gate, now); !row.RetrySlot.IsZero() && (row.Next.IsZero() || retry.Before(row.Next)) {
		row.Next = retry
	}
}

// backlog reports whether slots that were missed wait for an open run to end.
func (f *flow) backlog(row *store.Flow, now time.Time) bool {
	return f.inTurn() && row.Open(f.Serial) > 0 && f.late(row, now)
}

// planBlocked plans a flow of which nothing can fire: its slots are put on
// record from time to time.
func (f *flow) planBlocked(row *store.Flow, now time.Time, reason string) {
	if row.Next.IsZero() {
		return
	}
	at := later(row.Next, now.Add(idleDecide))
	if end := row.PauseUntil; reason == "paused" && !end.IsZero() && end.Before(at) {
		at = later(end, row.Next)
	}
	row.Next = at
}

// planDelay plans a FixedDelay, whose only slot follows from the end of a run.
func (f *flow) planDelay(row *store.Flow, now time.Time) {
	if !row.RetrySlot.IsZero() {
		row.Next = later(row.Gate(now), now)
		return
	}
	if !row.Next.IsZero() && !row.GateUntil.IsZero() {
		row.Next = later(row.Next, row.Gate(now))
	}
	if row.Next.IsZero() && row.Open(f.Serial) == 0 {
		row.Next = later(now.Add(f.Schedule.d), row.Gate(now))
	}
	if row.Next.IsZero() {
		return
	}
	// A slot that is not behind the cursor, after a step of the clock, would never be decided.
	row.Next = later(later(row.Next, row.Cursor.Add(tick)), f.StartAt)
	if f.MaxRuns > 0 && row.Fired >= f.MaxRuns || !f.EndAt.IsZero() && row.Next.After(f.EndAt) {
		row.Next = time.Time{}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
