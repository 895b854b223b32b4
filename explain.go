package segno

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/segnodev/segno/store"
)

// An Explanation is the one reason why a flow, or a run, is not running now.
type Explanation struct {
	Flow   string `json:"flow"`
	Run    RunID  `json:"run,omitempty"` // that is explained; 0: the flow is
	Reason string `json:"reason"`        // one of the constants, of which the first that holds is given
	Text   string `json:"text"`          // for people: one sentence
	// Until is when the reason ends by itself; zero: never, or nobody knows.
	Until time.Time `json:"until,omitzero"`
	// Blocker is the run that it waits for.
	Blocker RunID `json:"blocker,omitempty"`
}

// The closed set of reasons why a flow is not running, in the order in which a
// slot meets them: an earlier one is given before a later one.
const (
	ReasonOrphaned      = "orphaned"       // it is in the file, but not registered
	ReasonTripped       = "tripped"        // it failed too often in a row
	ReasonPaused        = "paused"         // by PauseFlow; not given for a manual flow
	ReasonBackoff       = "backoff"        // it failed lately; not given for a manual flow
	ReasonBacklog       = "backlog"        // slots that were missed wait for an open run: see CatchUpAll
	ReasonMaxConcurrent = "max_concurrent" // Options.MaxConcurrent runs execute
	ReasonOverlap       = "overlap"        // its Overlap has it wait for open runs
	ReasonManual        = "manual"         // nobody has triggered it
	ReasonDue           = "due"            // its turn has come: it begins as soon as the program gets to it
	ReasonNextSlot      = "next_slot"      // its next slot is still to come
	ReasonNoSlot        = "no_slot"        // it has no slot any more
)

// The reasons why a run is not running, in their order. One whose time has come
// may be orphaned, max_concurrent, overlap or due as well; these come last.
const (
	ReasonEnded       = "ended"        // it is over
	ReasonStuck       = "stuck"        // it needs a person
	ReasonRollingBack = "rolling_back" // it failed or was cancelled, and undoes what it did
	ReasonCancelled   = "cancelled"    // a cancel was asked for, and has not been noticed yet
	ReasonExecuting   = "executing"    // it is running
	ReasonParked      = "parked"       // it waits for a time
	ReasonSignal      = "signal"       // it waits for a signal
	ReasonChild       = "child"        // it waits for a run that it called
	ReasonNotBefore   = "not_before"   // it was triggered for a time to come
	ReasonSuspect     = "suspect"      // it died with the process before, and is resumed alone, behind all others
)

// Explain says why a flow is not running now: the first of the reasons, in the
// order of the constants, that holds. A Reader, and a program that does not
// register the flow, go by what is stored: they take its Overlap for Skip, and
// see neither bounds nor MaxConcurrent. It returns ErrNotFound.
func (q *queries) Explain(ctx context.Context, id string) (Explanation, error) {
	f, row, err := q.stored(ctx, id)
	if err != nil {
		return Explanation{}, err
	}
	now := q.at()
	e := Explanation{Flow: id}
	if f.shut(&e, &row, now) {
		return e, nil
	}
	held, err := q.overlapped(ctx, &e, f, &row)
	if err != nil || held {
		return e, q.explaining("flow "+id, err)
	}
	skips, err := q.from.Skips(ctx, id)
	if err != nil {
		return e, q.explaining("flow "+id, err)
	}
	f.waits(&e, &row, skips, now)
	return e, nil
}

func (q *queries) explaining(what string, err error) error {
	if err == nil {
		return nil
	}
	return q.named(what, err)
}

// say sets the reason.
func (e *Explanation) say(reason string, until time.Time, format string, args ...any) bool {
	e.Reason, e.Until, e.Text = reason, until, fmt.Sprintf(format, args...)
	return true
}

// shut explains a flow of which no slot would fire now.
func (f *flow) shut(e *Explanation, row *store.Flow, now time.Time) bool {
	gate := row.Gate(now)
	switch {
	case !row.Orphaned.IsZero():
		return e.say(ReasonOrphaned, time.Time{}, "orphaned: no program has registered it since %s", when(row.Orphaned, now))
	case row.Outcome == string(StatusTripped):
		return e.say(ReasonTripped, time.Time{}, "tripped after %s in a row, until ResetFlow%s", many(row.Streak, "failure"), because(row.LastError))
	case f.Schedule.kind == manual:
		return false
	case paused(row, now):
		return e.say(ReasonPaused, row.PauseUntil, "%s", pausedText(row, now))
	case gate.After(now):
		text := fmt.Sprintf("backoff until %s after %s in a row%s", when(gate, now), many(row.Streak, "failure"), because(row.LastError))
		if !row.RetrySlot.IsZero() {
			text += "; then the slot " + clock(row.RetrySlot) + " is tried again"
		}
		return e.say(ReasonBackoff, gate, "%s", text)
	}
	return false
}

func pausedText(row *store.Flow, now time.Time) string {
	text := "paused"
	if row.PauseActor != "" {
		text += " by " + row.PauseActor
	}
	if row.PauseUntil.IsZero() {
		text += " until ResumeFlow"
	} else {
		text += " until " + when(row.PauseUntil, now)
	}
	return text + because(row.PauseNote)
}

// overlapped explains a flow that an open run holds up.
func (q *queries) overlapped(ctx context.Context, e *Explanation, f *flow, row *store.Flow) (bool, error) {
	now := q.at()
	shares := f.Overlap >= allowBase
	if row.Open(f.Serial) == 0 || shares && row.Queued == 0 {
		return false, nil
	}
	h, found, err := q.from.Blocker(ctx, f.ID)
	if err != nil || !found { // it has ended meanwhile
		return false, err
	}
	run, err := q.explainHead(ctx, &h)
	if err != nil {
		return false, err
	}
	e.Blocker = RunID(h.Run)
	switch lack := q.lacks(f, false); {
	case lack == ReasonMaxConcurrent && row.Queued > 0:
		return e.say(lack, time.Time{}, "%s pending: as many runs execute, over all flows, as Options.MaxConcurrent allows", are(row.Queued, "run")), nil
	case f.backlog(row, now):
		return e.say(ReasonBacklog, time.Time{}, "slots that were missed, from %s on, wait for run %d, which is open: %s",
			clock(f.next(row, row.Cursor)), h.Run, run.Text), nil
	case shares && lack == "":
		e.Blocker = 0
		return false, nil
	case shares:
		return e.say(ReasonOverlap, time.Time{}, "as many runs execute as Allow(%d) lets, and %d wait; run %d is the oldest: %s",
			f.Overlap.limit(), row.Queued, h.Run, run.Text), nil
	}
	return e.say(ReasonOverlap, time.Time{}, "run %d is open: %s", h.Run, run.Text), nil
}

// lacks says which place a run of the flow would not get now, "" if it would.
// A Reader does not know.
func (q *queries) lacks(f *flow, called bool) string {
	if q.seats == nil || f == nil {
		return ""
	}
	return q.seats.lack(f.seat(called))
}

// waits explains a flow that waits for a slot, or for nothing.
func (f *flow) waits(e *Explanation, row *store.Flow, skips []store.Skip, now time.Time) {
	if f.Schedule.kind == manual {
		text := "manual: it runs when it is triggered"
		if row.Schedule != "" {
			text = "this program cannot read its schedule, " + row.Schedule
		} else if paused(row, now) {
			text += ", a pause does not keep it from that"
		}
		e.say(ReasonManual, time.Time{}, "%s", text)
		return
	}
	if slot := f.undecided(row); !slot.IsZero() && !f.dueAt(row, slot, now).After(now) {
		e.say(ReasonDue, time.Time{}, "the slot %s has come: it is decided as soon as the program gets to it", when(slot, now))
		return
	}
	list := f.preview(row, skips, len(skips)+1, now)
	for i, p := range list {
		if p.Skipped {
			continue
		}
		e.say(ReasonNextSlot, p.Due, "next slot %s%s", when(p.Slot, now), nextText(&p, i, now))
		if n := row.Open(f.Serial); n > 0 {
			e.Text += fmt.Sprintf("; %s open", are(n, "run"))
		}
		return
	}
	e.say(ReasonNoSlot, time.Time{}, "no slot any more: %s", f.exhausted(row, len(list)))
}

// undecided returns the first slot that is not decided yet.
func (f *flow) undecided(row *store.Flow) time.Time {
	if f.Schedule.kind == fixedDelay {
		return row.Next
	}
	return f.next(row, row.Cursor)
}

// nextText is what there is to say of the next slot that fires.
func nextText(p *SlotPreview, marked int, now time.Time) string {
	text := ""
	if !p.Due.Equal(p.Slot) {
		text += ", due " + when(p.Due, now) + " with its jitter"
	}
	if marked > 0 {
		text += ", behind " + many(marked, "slot") + " marked to be skipped"
	}
	return text + because(p.Note)
}

// exhausted says why no slot will fire.
func (f *flow) exhausted(row *store.Flow, marked int) string {
	switch {
	case marked > 0:
		return "those to come are marked to be skipped"
	case f.MaxRuns > 0 && row.Fired >= f.MaxRuns:
		return fmt.Sprintf("as many have fired as Flow.MaxRuns allows, %d", row.Fired)
	case f.Schedule.kind == once:
		return "the only one, " + clock(f.Schedule.at) + ", is past"
	case f.Schedule.kind == fixedDelay && f.EndAt.IsZero():
		return "the next follows from the end of an open run"
	case !f.EndAt.IsZero():
		return "the last before Flow.EndAt, " + clock(f.EndAt) + ", is past"
	}
	return "the schedule has no more"
}

// when is a time with how far away it is.
func when(t, now time.Time) string {
	d := t.Sub(now)
	step := time.Second
	if d.Abs() < time.Second {
		step = time.Millisecond
	}
	text := clock(t.Round(time.Millisecond))
	switch d = d.Round(step); {
	case d > 0:
		return fmt.Sprintf("%s (in %v)", text, d)
	case d < 0:
		return fmt.Sprintf("%s (%v ago)", text, -d)
	}
	return text + " (now)"
}

// limit is until when a wait lasts.
func limit(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ", at most until " + when(t, now)
}

// because is the text that tells why, if there is one.
func because(text string) string {
	if text == "" {
		return ""
	}
	return ": " + firstLine(text)
}

// firstLine is the first line of a text.
func firstLine(text string) string {
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return first
}

// many counts things.
func many(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func are(n int, thing string) string {
	if n == 1 {
		return many(n, thing) + " is"
	}
	return many(n, thing) + " are"
}
