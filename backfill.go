package segno

import (
	"context"
	"fmt"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// maxBackfill is the largest number of slots in a backfill's range.
const maxBackfill = 100_000

// Backfill makes runs for slots that are past and have none: those that were
// skipped or coalesced, and those before the flow was there. It takes on the
// slots in [from, to], both inclusive, that the flow's present schedule and
// bounds have, and returns how many: 0, if each has its run, or is to have it by
// another backfill. Slots that are not decided yet are left to the schedule.
//
// The job is durable, and goes on after a restart. Its runs are made in the
// order of the slots, when nothing of the flow that is scheduled or triggered
// waits: one at a time under Skip and Replace, where it waits for open runs and
// replaces none, otherwise as many as Allow and Options.MaxConcurrent have
// places for. A slot that comes while one of them is open meets it as it would
// any other run: Skip skips the slot, Replace cancels the run. A pause, a trip
// and the backoff window hold the job up; its failures count for them as those of
// other runs. Flow.MaxRuns does not count its runs, and the ledger keeps what
// became of the slots. segno_backfills tells how far it is.
//
// It returns ErrConfig for a flow that is manual or a FixedDelay, for a range
// that ends before it begins or has more than 100,000 slots, and ErrNotFound.
func (r *RunningScheduler) Backfill(ctx context.Context, id string, from, to time.Time) (int, error) {
	f, err := r.flow(id)
	if err != nil {
		return 0, err
	}
	row, err := r.store.Flow(ctx, id)
	if err != nil {
		return 0, r.reading("flow "+id, err)
	}
	slots, err := f.past(&row, instant(from), instant(to)) // outside of the transaction: it may take a while
	if err != nil || len(slots) == 0 {
		return 0, f.named(err)
	}
	taken := 0
	err = r.update(ctx, func(tx *store.Tx) error {
		row := tx.Flow(id)
		due, err := without(tx, row, slots)
		if taken = len(due); err != nil || taken == 0 {
			return err
		}
		return r.takeOn(tx, row, due)
	})
	return taken, f.named(err)
}

// past returns the decided slots in [from, to].
func (f *flow) past(row *store.Flow, from, to time.Time) (slots []time.Time, err error) {
	switch {
	case f.Schedule.kind == manual || f.Schedule.kind == fixedDelay:
		return nil, fmt.Errorf("%w: it has no slots but the next; trigger it instead", ErrConfig)
	case to.Before(from):
		return nil, fmt.Errorf("%w: the range ends at %s, before it begins at %s", ErrConfig, clock(to), clock(from))
	}
	to = earlier(to, row.Cursor)
	if !f.EndAt.IsZero() {
		to = earlier(to, f.EndAt)
	}
	slot := f.Schedule.next(row.Anchor, later(from, f.StartAt).Add(-tick))
	for ; !slot.IsZero() && !slot.After(to); slot = f.Schedule.next(row.Anchor, slot) {
		if f.SkipFirst && slot.Equal(row.Registered) { // left out, and so no slot
			continue
		}
		if len(slots) == maxBackfill {
			return nil, fmt.Errorf("%w: the range has more than %d slots; take a shorter one, its end before %s", ErrConfig, maxBackfill, clock(slot))
		}
		slots = append(slots, slot)
	}
	return slots, nil
}

// without leaves out the slots that have a run, and those that another backfill
// will make one for.
func without(tx *store.Tx, row *store.Flow, slots []time.Time) (due []time.Time, err error) {
	run, err := tx.SlotsRun(row, slots[0], slots[len(slots)-1])
	if err != nil {
		return nil, err
	}
	others, err := tx.BackfillsOf(row)
	if err != nil {
		return nil, err
	}
	for _, slot := range slots {
		taken := run[slot.UnixMicro()]
		for i := range others {
			taken = taken || slot.After(others[i].Cursor) && !slot.After(others[i].Last)
		}
		if !taken {
			due = append(due, slot)
		}
	}
	return due, nil
}

// takeOn writes the job down.
func (r *RunningScheduler) takeOn(tx *store.Tx, row *store.Flow, slots []time.Time) error {
	now := r.now()
	first, last := slots[0], slots[len(slots)-1]
	tx.After(func() {
		r.backfills.Store(true)
		r.alarm.wake()
	})
	err := tx.AddBackfill(row, store.Backfill{
		Schedule: row.Schedule, Anchor: row.Anchor, First: first, Last: last, Cursor: first.Add(-tick), Count: len(slots), At: now,
	})
	if err != nil {
		return err
	}
	return tx.Event("backfill", row.ID, fmt.Sprintf("%d slots from %s to %s", len(slots), clock(first), clock(last)), now)
}

// dispatchBackfills makes the runs of backfills that there is room for, behind
// everything else, and returns when to look again.
func (r *RunningScheduler) dispatchBackfills(ctx context.Context, now time.Time) (again time.Time, err error) {
	if !r.backfills.Load() || r.isStopping() {
		return time.Time{}, nil
	}
	r.backfills.Store(false) // before reading: one that comes meanwhile sets it again
	list, err := r.store.Backfills(ctx)
	if err != nil || len(list) > 0 {
		r.backfills.Store(true)
	}
	seen := map[string]bool{}
	for i := range list {
		f := r.flows[list[i].Flow]
		if f == nil || seen[f.ID] { // the flow's older one goes first
			continue
		}
		seen[f.ID] = true
		at, err := r.backfill(ctx, f, list[i], now)
		if err != nil {
			return again, err
		}
		if !at.IsZero() && (again.IsZero() || at.Before(again)) {
			again = at
		}
	}
	return again, err
}

// backfill goes on with one job.
func (r *RunningScheduler) backfill(ctx context.Context, f *flow, job store.Backfill, now time.Time) (again time.Time, err error) {
	row, err := r.store.Flow(ctx, f.ID)
	if err != nil {
		return again, err
	}
	slots := pageOf(f, &job)
	if open, again := r.roomFor(f, &row, now); !open && len(slots) > 0 { // not worth a commit
		return again, nil
	}
	err = r.update(ctx, func(tx *store.Tx) (err error) {
		b := job // the function may be called again
		again, err = r.fill(tx, f, &b, slots)
		return err
	})
	return again, err
}

// pageOf returns the next slots of a job.
func pageOf(f *flow, b *store.Backfill) (slots []time.Time) {
	schedule := f.Schedule
	if schedule.String() != b.Schedule {
		schedule = storedSchedule(b.Schedule)
	}
	slot := schedule.next(b.Anchor, b.Cursor)
	for ; !slot.IsZero() && !slot.After(b.Last) && len(slots) < claimPage; slot = schedule.next(b.Anchor, slot) {
		slots = append(slots, slot)
	}
	return slots
}

// fill makes runs for slots as long as there is room, and returns when there
// may be room again, zero if something else will tell.
func (r *RunningScheduler) fill(tx *store.Tx, f *flow, b *store.Backfill, slots []time.Time) (again time.Time, err error) {
	now, row := r.now(), tx.Flow(f.ID)
	var run map[int64]bool
	if len(slots) > 0 {
		if run, err = tx.SlotsRun(row, slots[0], slots[len(slots)-1]); err != nil {
			return again, err
		}
	}
	was := *b
	for _, slot := range slots {
		if run[slot.UnixMicro()] {
			b.Cursor = slot
			continue
		}
		open, at := r.roomFor(f, row, now)
		if open {
			open, err = r.nobodyDue(tx, f, row, now)
		}
		if err != nil || !open {
			again = at
			break
		}
		h := f.head(f.input, now)
		h.Slot, h.Backfill = slot, b.ID
		if err := r.create(tx, f, row, &h, now); err != nil {
			return again, err
		}
		b.Cursor = slot
		b.Runs++
	}
	switch {
	case err != nil:
		return again, err
	case len(slots) == 0 || !b.Cursor.Before(b.Last):
		b.Cursor, b.Done, again = b.Last, now, now // another one may wait for it
	case b.Cursor.Equal(slots[len(slots)-1]):
		again = now
	}
	if *b == was {
		return again, nil
	}
	return again, tx.MoveBackfill(b)
}

// roomFor reports whether a backfill may make a run of the flow now, and if not
// when it may, zero if somebody will ring: whatever else waits goes first.
func (r *RunningScheduler) roomFor(f *flow, row *store.Flow, now time.Time) (open bool, again time.Time) {
	switch reason, until := blockedBy(row, now); {
	case reason == "tripped":
		return false, again
	case reason == "paused" && until.Equal(now):
		return false, row.PauseUntil
	}
	if gate := row.Gate(now); gate.After(now) {
		return false, gate
	}
	busy := row.Queued > 0 || !row.Next.IsZero() && !row.Next.After(now)
	if f.Overlap == Skip || f.Overlap == Replace {
		busy = busy || row.Open(f.Serial) > 0
	}
	if busy {
		r.places.miss()
		return false, again
	}
	return r.places.room(f.seat(false)), again
}

// nobodyDue reports whether no run waits that was triggered for a time which
// has come meanwhile.
func (r *RunningScheduler) nobodyDue(tx *store.Tx, f *flow, row *store.Flow, now time.Time) (bool, error) {
	if row.Later == 0 {
		return true, nil
	}
	due, err := tx.OpenRuns(f.ID, engine.Pending, now)
	if len(due) > 0 {
		r.places.miss()
	}
	return len(due) == 0, err
}

// planned rings in time for what was planned. An open backfill may have waited
// for the change that planned it.
func (r *RunningScheduler) planned(next time.Time) {
	r.alarm.before(next)
	if r.backfills.Load() {
		r.alarm.wake()
	}
}
