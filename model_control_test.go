package segno

import (
	"reflect"
	"slices"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

func (w *modelWorld) trigger(reset bool) {
	if w.row.Outcome == string(StatusTripped) && !reset || w.overlaps() {
		return
	}
	if reset {
		w.reset()
	}
	w.create(engine.Head{})
	if reset {
		w.plan()
	}
}

func (w *modelWorld) reset() {
	w.passOver()
	if row := &w.row; w.spec.kind == fixedDelay && !row.GateUntil.IsZero() && row.Next.Equal(row.GateUntil) {
		row.Next = later(row.GateSet.Add(w.spec.d), w.now)
	}
	clearStreak(&w.row)
	if w.row.Outcome == string(StatusTripped) || w.row.Outcome == string(StatusBackoff) {
		w.row.Outcome = string(StatusIdle)
	}
	w.stand = modelStand{}
}

// passOver does what its namesake does.
func (w *modelWorld) passOver() {
	if !w.row.RetrySlot.IsZero() {
		w.row.RetrySlot, w.row.RetryTry = time.Time{}, 0
		if w.spec.kind == fixedDelay {
			w.row.Next = time.Time{}
		}
	}
	for _, d := range w.verdict().decisions {
		if d.outcome != skipped {
			break
		}
		w.record(d)
		w.row.Cursor = d.last
		if w.spec.kind == fixedDelay {
			w.row.Next = time.Time{}
		}
	}
	w.unmark()
}

func (w *modelWorld) pause(ends bool, span time.Duration) {
	w.passOver()
	if w.row.Paused.IsZero() {
		w.row.Paused = w.now
	}
	w.row.PauseUntil = time.Time{}
	if ends {
		w.row.PauseUntil = w.now.Add(span)
	}
	w.plan()
}

func (w *modelWorld) resume(catchUp bool) {
	if !w.row.Paused.IsZero() {
		if !catchUp {
			w.passOver()
		}
		w.row.EndPause()
	}
	w.plan()
}

// skip marks the nth slot that is not decided yet.
func (w *modelWorld) skip(n int) {
	slot := w.row.Cursor
	if w.spec.kind == fixedDelay {
		slot, n = w.row.Next, 0
	}
	for ; n > 0 && !slot.IsZero(); n-- {
		slot = w.after(slot)
	}
	if slot.IsZero() {
		return
	}
	at, marked := slices.BinarySearchFunc(w.skips, slot, func(s store.Skip, slot time.Time) int { return s.Slot.Compare(slot) })
	if !marked {
		w.skips = slices.Insert(w.skips, at, store.Skip{Slot: slot})
		w.row.Skips = len(w.skips)
	}
	w.plan()
}

// unmark forgets the marks on slots that are decided.
func (w *modelWorld) unmark() {
	w.skips = slices.DeleteFunc(w.skips, func(s store.Skip) bool { return !s.Slot.After(w.row.Cursor) })
	w.row.Skips = len(w.skips)
}

// restart starts the flow after a crash, with another schedule perhaps.
func (w *modelWorld) restart(spec modelSpec) {
	g := w.f.Flow
	g.Schedule = spec.Schedule
	f, err := newFlow(g, 0)
	if err != nil {
		return // it never fires between the bounds
	}
	w.row = onDisk(w.row)
	phase := w.row.Cursor
	switch changed := w.row.Schedule != spec.String(); {
	case changed:
		w.dropSlots()
	case f.extended(&w.row):
		w.wrong("a slot has appeared at %v: the cursor is %v", f.next(&w.row, w.row.Cursor), w.row.Cursor)
	}
	if w.row.Schedule != spec.String() {
		f.takeOver(&w.row, phase, w.now)
		w.cursor = w.row.Cursor
	}
	w.f, w.spec = f, spec
	w.setBack(f.astray(&w.row, w.now))
	for _, r := range w.runs {
		if r.active {
			r.active, r.Status = false, engine.Pending
			w.row.Active--
			w.row.Queued++
		}
	}
	w.claim()
}

// onDisk is a row as the file has it: times to the microsecond, in UTC.
func onDisk(row store.Flow) store.Flow {
	v := reflect.ValueOf(&row).Elem()
	for i := range v.NumField() {
		if !v.Field(i).CanSet() { // the store's own
			continue
		}
		switch t := v.Field(i).Interface().(type) {
		case time.Time:
			if !t.IsZero() {
				v.Field(i).Set(reflect.ValueOf(time.UnixMicro(t.UnixMicro()).UTC()))
			}
		case time.Duration:
			v.Field(i).Set(reflect.ValueOf(t.Truncate(tick)))
		}
	}
	return row
}

// dropSlots puts the slots of the old schedule that have passed on record.
func (w *modelWorld) dropSlots() {
	st := w.f.slots(&w.row, w.row.Cursor, w.now)
	if st.count == 0 {
		return
	}
	w.record(decision{st, skipped, "schedule_changed", ""})
	w.row.Cursor = st.last
}

// step sets the clock, and does what follows from it: a small step is not noticed.
func (w *modelWorld) step(d time.Duration) {
	w.now = w.now.Add(d)
	if d < 0 && d >= -maxDrift {
		w.unseen -= d
	}
	if d < -maxDrift {
		w.setBack(w.f.wrong(&w.row, w.now) || w.f.tooFar(&w.row, w.now))
	}
}

// setBack lets the flow go on after its clock was set back.
func (w *modelWorld) setBack(astray bool) {
	w.unseen = 0
	if astray {
		w.reanchor()
	}
	w.row.ClampGate(w.now)
	if gate := w.gate(); gate.Before(w.stand.until) {
		w.stand.set, w.stand.until = w.now, gate
	}
	w.plan()
}

func (w *modelWorld) reanchor() {
	row, adrift := &w.row, w.f.adrift(&w.row, w.now)
	if w.f.wrong(row, w.now) {
		w.rollBack()
	}
	if adrift {
		if missed := w.after(w.cursor); w.spec.kind == interval && !missed.IsZero() && !missed.After(w.now) {
			w.wrong("slot %v is lost: the grid begins anew, and it was not decided", missed)
		}
		w.f.anew(row, w.now, w.anews)
		w.anews++
	}
	w.cursor, w.highest, w.back = row.Cursor, time.Time{}, true
}

// rollBack takes the flow out of the past that a wrong clock gave it. Slots that
// fired in it are not to fire again.
func (w *modelWorld) rollBack() {
	if w.spec.kind == cronKind || w.spec.kind == once {
		for slot := range w.known {
			if slot.After(w.now) && !slices.ContainsFunc(w.skips, func(s store.Skip) bool { return s.Slot.Equal(slot) }) {
				w.skips = append(w.skips, store.Skip{Slot: slot})
			}
		}
		slices.SortFunc(w.skips, func(a, b store.Skip) int { return a.Slot.Compare(b.Slot) })
		w.row.Skips = len(w.skips)
	}
	w.row.Cursor, w.row.LastRun = earlier(w.row.Cursor, w.now), earlier(w.row.LastRun, w.now)
	w.cursor = w.row.Cursor
}
