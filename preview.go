package segno

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/segnodev/segno/store"
)

// maxPreview is the largest n of Next.
const maxPreview = 10_000

// A SlotPreview is a slot to come, and what will become of it as things stand.
type SlotPreview struct {
	Slot    time.Time `json:"slot"`
	Due     time.Time `json:"due"`     // when it is dispatched: the slot and its jitter
	Skipped bool      `json:"skipped"` // it will not fire
	// Reason says why it is skipped, in the ledger's words: skipped_by_user,
	// tripped, paused, backoff, orphaned.
	Reason string `json:"reason,omitempty"`
	// Note is that of whoever marked the slot or paused the flow, and what
	// daylight saving time does to the slot.
	Note string `json:"note,omitempty"`
}

// Next returns the next n slots of a flow, n from 1 to 10,000, fewer if it has
// no more: none for a manual flow, at most one of a FixedDelay, which has none
// while its run is open. It changes nothing, and cannot know of runs that will
// still be open, fail or be cancelled. A Reader, and a program that does not
// register the flow, know its stored schedule only: they see no bounds, and no
// jitter but that of the very next slot. It returns ErrConfig and ErrNotFound.
func (q *queries) Next(ctx context.Context, id string, n int) ([]SlotPreview, error) {
	if n < 1 || n > maxPreview {
		return nil, q.named("flow "+id, fmt.Errorf("%w: %d slots; ask for 1 to %d", ErrConfig, n, maxPreview))
	}
	f, row, err := q.stored(ctx, id)
	if err != nil {
		return nil, err
	}
	skips, err := q.from.Skips(ctx, id)
	if err != nil {
		return nil, q.named("flow "+id, err)
	}
	return f.preview(&row, skips, n, q.at()), nil
}

// stored returns a flow and its row. One that this program has not registered
// is made from the row.
func (q *queries) stored(ctx context.Context, id string) (*flow, store.Flow, error) {
	row, err := q.from.Flow(ctx, id)
	if err != nil {
		return nil, row, q.named("flow "+id, err)
	}
	if f := q.flows[id]; f != nil {
		return f, row, nil
	}
	return &flow{Flow: Flow{ID: id, Schedule: storedSchedule(row.Schedule)}}, row, nil
}

// preview says what will become of the next n slots: a pure function of the
// flow's row, the slots that are to be skipped, and the time.
func (f *flow) preview(row *store.Flow, skips []store.Skip, n int, now time.Time) (list []SlotPreview) {
	marks := map[int64]store.Skip{}
	for _, s := range f.moved(row, skips) {
		marks[s.Slot.UnixMicro()] = s
	}
	fires := row.Fired
	for slot := f.upcoming(row, time.Time{}, now); !slot.IsZero() && len(list) < n; slot = f.upcoming(row, slot, now) {
		p := SlotPreview{Slot: slot, Due: f.dueAt(row, slot, now)}
		note := ""
		if mark, marked := marks[slot.UnixMicro()]; marked {
			p.Reason, note = "skipped_by_user", mark.Note
		} else {
			p.Reason, note = f.barred(row, slot, now)
		}
		p.Skipped = p.Reason != ""
		p.Note = joinNotes(note, f.Schedule.note(slot))
		list = append(list, p)
		if !p.Skipped {
			fires++
		}
		if f.MaxRuns > 0 && fires >= f.MaxRuns {
			return list
		}
	}
	return list
}

// dueAt is when a slot to come will be dispatched. What the row has planned is
// better known there than here.
func (f *flow) dueAt(row *store.Flow, slot, now time.Time) time.Time {
	due := f.due(row, slot)
	if f.Workflow == nil && row.Next.After(slot) && row.Next.Before(f.Schedule.next(row.Anchor, slot)) {
		due = row.Next // its jitter
	}
	if f.Schedule.kind == once {
		due = later(due, row.Gate(now))
	}
	return due
}

// barred says why a slot to come will be skipped, "" if it will not.
func (f *flow) barred(row *store.Flow, slot, now time.Time) (reason, note string) {
	switch {
	case !row.Orphaned.IsZero():
		return "orphaned", ""
	case row.Outcome == string(StatusTripped):
		return "tripped", ""
	case paused(row, slot):
		return "paused", row.PauseNote
	case f.Schedule.kind != once && slot.Before(row.Gate(now)):
		return "backoff", ""
	}
	return "", ""
}

// paused reports whether the flow's pause, if nobody ends it, holds at t.
func paused(row *store.Flow, t time.Time) bool {
	return !row.Paused.IsZero() && (row.PauseUntil.IsZero() || t.Before(row.PauseUntil))
}

// joinNotes joins what there is of the notes.
func joinNotes(notes ...string) string {
	var some []string
	for _, n := range notes {
		if n != "" {
			some = append(some, n)
		}
	}
	return strings.Join(some, "; ")
}
