package segno

import (
	"context"
	"fmt"
	"time"

	"github.com/segnodev/segno/store"
)

// SkipNext marks a flow's next slot, the first to come that is not marked yet,
// to be skipped: asked twice, it takes the next two. The ledger will say
// skipped_by_user, with the note. Slots that wait already for their turn are
// not the next; see SkipSlot. The slot of a FixedDelay may still move, and its
// mark goes with it. It returns ErrConfig if no slot is to come, and ErrNotFound.
func (r *RunningScheduler) SkipNext(ctx context.Context, id, note string) error {
	return r.change(ctx, id, func(tx *store.Tx, f *flow, row *store.Flow, now time.Time) error {
		skips, err := tx.SkipsOf(row)
		if err != nil {
			return err
		}
		slot := f.unmarked(row, skips, now)
		if slot.IsZero() {
			return fmt.Errorf("%w: it has no slot to come that could be skipped", ErrConfig)
		}
		return skipSlot(tx, row, store.Skip{Slot: slot, Note: note}, now)
	})
}

// SkipSlot marks one slot to be skipped, as SkipNext does; asked again, it
// replaces the note. It may be any slot that is not decided yet. ErrConfig says
// that it is decided, or that the flow has no such slot and which is the nearest.
func (r *RunningScheduler) SkipSlot(ctx context.Context, id string, slot time.Time, note string) error {
	slot = instant(slot)
	return r.change(ctx, id, func(tx *store.Tx, f *flow, row *store.Flow, now time.Time) error {
		switch near := f.nearest(row, slot); {
		case near.Equal(slot) && !near.IsZero():
			return skipSlot(tx, row, store.Skip{Slot: slot, Note: note}, now)
		case near.IsZero():
			return fmt.Errorf("%w: it has no slot to come", ErrConfig)
		case !slot.After(row.Cursor):
			return fmt.Errorf("%w: the slots up to %s are decided; the nearest to come is %s", ErrConfig, clock(row.Cursor), clock(near))
		default:
			return fmt.Errorf("%w: it has no slot at %s; the nearest is %s", ErrConfig, clock(slot), clock(near))
		}
	})
}

func skipSlot(tx *store.Tx, row *store.Flow, k store.Skip, now time.Time) error {
	if err := tx.Skip(row, k, now); err != nil {
		return err
	}
	text := clock(k.Slot)
	if k.Note != "" {
		text += ": " + k.Note
	}
	return tx.Event("skip", row.ID, text, now)
}

// clock is a time as messages have it.
func clock(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// upcoming returns the first slot after t that is still to come at now: one
// that has come may yet wait for its jitter.
func (f *flow) upcoming(row *store.Flow, t, now time.Time) time.Time {
	t = later(t, later(row.Cursor, now.Add(-f.Jitter-tick)))
	if f.Schedule.kind == fixedDelay {
		if row.Next.After(t) {
			return row.Next
		}
		return time.Time{}
	}
	slot := f.next(row, t)
	for !slot.IsZero() && !f.due(row, slot).After(now) {
		slot = f.next(row, slot)
	}
	return slot
}

// unmarked returns the first slot to come that nobody has marked.
func (f *flow) unmarked(row *store.Flow, skips []store.Skip, now time.Time) time.Time {
	slot := f.upcoming(row, time.Time{}, now)
	for _, s := range f.moved(row, skips) {
		if s.Slot.Equal(slot) {
			slot = f.upcoming(row, slot, now)
		}
	}
	return slot
}

// moved lets the mark on the only slot of a FixedDelay go with it.
func (f *flow) moved(row *store.Flow, skips []store.Skip) []store.Skip {
	if f.Schedule.kind != fixedDelay || len(skips) == 0 || row.Next.IsZero() || skips[0].Slot.After(row.Next) {
		return skips
	}
	return []store.Skip{{Slot: row.Next, Note: skips[0].Note}}
}

// nearest returns the slot nearest to t that is not decided yet.
func (f *flow) nearest(row *store.Flow, t time.Time) time.Time {
	if f.Schedule.kind == fixedDelay {
		return row.Next
	}
	after := f.next(row, later(row.Cursor, t.Add(-tick)))
	if after.Equal(t) || !t.After(row.Cursor) {
		return after
	}
	before := f.last(row, t)
	if before.IsZero() || !after.IsZero() && after.Sub(t) < t.Sub(before) {
		return after
	}
	return before
}

// last returns the last slot before t that is not decided yet: it looks back
// further and further.
func (f *flow) last(row *store.Flow, t time.Time) time.Time {
	for back := time.Minute; ; back *= 4 {
		from := later(row.Cursor, t.Add(-back))
		st := f.slots(row, from, t.Add(-tick))
		if st.count > 0 || from.Equal(row.Cursor) || back > maxBack {
			return st.last
		}
	}
}

// maxBack is far enough: no cron expression rests longer than eight years.
const maxBack = 10 * 366 * 24 * time.Hour
