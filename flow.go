package segno

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/segnodev/segno/store"
)

// A Flow is a workflow registered with a scheduler under an id and a schedule.
type Flow struct {
	// ID names the flow, in the program and in the file.
	ID string
	// Workflow is the definition, a Workflow by value.
	Workflow Definition
	// Schedule says when the flow is due; the zero value is manual.
	Schedule Schedule
	// DST says what a cron schedule at fixed times does where its zone changes the
	// clock; the zero value runs once for each date. Another schedule has no use for
	// it, and ignores it.
	DST DST
	// Backoff says what failed runs cost; the zero value is a ready policy.
	Backoff BackoffPolicy
	// Overlap says what happens while a run is open; the zero value is Skip.
	Overlap Overlap
	// Input is what scheduled runs start with, and triggered ones that bring
	// none; nil means the zero value of the data type.
	Input any
	// MaxPending refuses triggers with ErrBusy while so many runs wait for their
	// turn; 0: no limit.
	MaxPending int
	// Serial counts stuck runs as open, so that one blocks the flow under Skip.
	Serial bool
	// SkipFirst leaves out the run at the first registration of an interval.
	SkipFirst bool
	// CatchUp says what becomes of slots that were missed, for whatever reason;
	// the zero value is CatchUpLatest.
	CatchUp CatchUp
	// MaxLateness skips slots that could be dispatched only so much later, as
	// too_late; Jitter does not count. 0: no limit.
	MaxLateness time.Duration
	// SlotRetries is how often a slot whose run failed is tried again, when the
	// backoff window ends: as another run of the same slot. If a newer slot has
	// come by then, that one fires instead. A pause, a reset and a trip end it.
	// 0: never; the flow waits for its next slot behind the window.
	SlotRetries int
	// Jitter delays each slot by a part of this, drawn from the flow's id and the
	// slot, and so the same on every start; less than half of the way to the next
	// slot. 0: none.
	Jitter time.Duration
	// StartAt and EndAt bound the slots, both inclusive; zero: no bound. StartAt is
	// the anchor of an interval that is new to the file; of a known one it bounds
	// the slots, but does not move their grid, unless the interval changes, too.
	StartAt, EndAt time.Time
	// MaxRuns is how many slots may fire in all; 0: no limit. Triggers, slots that
	// were skipped, and retries do not count.
	MaxRuns int
	// RunOnStart makes one extra run at every Start, unless a slot is due then
	// anyway, the flow is tripped, paused or in a backoff window, or its Overlap
	// forbids it.
	RunOnStart bool
}

// CatchUp says what becomes of slots that were missed: while the program was
// down, suspended or busy. A slot that is up to 1 s late is not missed.
type CatchUp int

const (
	// CatchUpLatest makes one run for the newest slot; the others are coalesced
	// into it, and counted.
	CatchUpLatest CatchUp = 0
	// CatchUpSkip makes none: the flow waits for its next slot. That of At fires
	// all the same.
	CatchUpSkip CatchUp = 1
)

// catchUpBase is CatchUpAll of none.
const catchUpBase = 2

// CatchUpAll makes a run for each slot, in their order, for the newest max ones;
// 0 means 100. Where runs must not overlap, one waits for the end of the other.
func CatchUpAll(max int) CatchUp { return CatchUp(catchUpBase + max) }

// limit returns how many slots are caught up with one by one, 0 for none.
func (c CatchUp) limit() int {
	switch {
	case c == catchUpBase:
		return 100
	case c > catchUpBase:
		return int(c) - catchUpBase
	}
	return 0
}

// Overlap says what becomes of a slot or a trigger while a run of the flow is open.
type Overlap int

// Skip allows one open run: a trigger then gets ErrRunning, a slot is
// recorded as skipped for overlap.
const Skip Overlap = 0

// Replace cancels the open runs of the flow for the sake of a new one, which
// begins when they have rolled back.
const Replace Overlap = 1

// allowBase is Allow(0).
const allowBase = 2

// Allow lets n runs execute at the same time; 0 means no limit of the flow's
// own. Runs that are parked, waiting or pending hold nothing; a trigger beyond
// n is pending until its turn comes.
func Allow(n int) Overlap { return Overlap(allowBase + n) }

// limit returns how many places the flow's runs may have at once; 0: no limit.
// Under Skip it is the count of open runs that decides: a place may belong to a
// goroutine whose run has long gone on without it.
func (o Overlap) limit() int {
	if o < allowBase {
		return 0
	}
	return int(o) - allowBase
}

// Status says how a flow stands.
type Status string

// The closed set of flow statuses.
const (
	StatusIdle      Status = "idle"      // never run, or cancelled last and no window open
	StatusRunning   Status = "running"   // a run is open
	StatusCompleted Status = "completed" // the last run completed
	StatusBackoff   Status = "backoff"   // the last run that was not cancelled failed
	StatusTripped   Status = "tripped"   // failed too often in a row; needs ResetFlow
)

// FlowInfo is what is known of a flow. All of it is read from the file.
type FlowInfo struct {
	ID            string    `json:"id"`
	Status        Status    `json:"status"`
	Schedule      string    `json:"schedule"`                // "" is manual
	RunCount      int64     `json:"run_count"`               // runs ever begun
	LastRun       time.Time `json:"last_run,omitzero"`       // start of the latest run
	FailureStreak int       `json:"failure_streak"`          // failed runs in a row
	NextEligible  time.Time `json:"next_eligible,omitzero"`  // when the backoff window ends
	NextRun       time.Time `json:"next_run,omitzero"`       // the next slot that may be dispatched
	LastError     string    `json:"last_error,omitempty"`    // of the last failed run
	Open          int       `json:"open"`                    // open runs, stuck ones not counted
	Stuck         int       `json:"stuck"`                   // runs that need a person
	Paused        bool      `json:"paused"`                  // by PauseFlow
	PauseNote     string    `json:"pause_note,omitempty"`    //
	PauseActor    string    `json:"pause_actor,omitempty"`   //
	PauseUntil    time.Time `json:"pause_until,omitzero"`    // when it ends by itself
	Orphaned      bool      `json:"orphaned"`                // in the file, but not registered
	OrphanedSince time.Time `json:"orphaned_since,omitzero"` //
}

// flowInfo describes a stored flow.
func flowInfo(f *store.Flow, now time.Time) FlowInfo {
	info := FlowInfo{
		ID: f.ID, Status: Status(f.Outcome), Schedule: f.Schedule, RunCount: f.Runs, LastRun: f.LastRun,
		FailureStreak: f.Streak, NextRun: f.Next, LastError: f.LastError, Open: f.Open(false), Stuck: f.Stuck,
		Orphaned: !f.Orphaned.IsZero(), OrphanedSince: f.Orphaned,
	}
	if !f.Paused.IsZero() && (f.PauseUntil.IsZero() || f.PauseUntil.After(now)) { // the row learns of its end with the next slot
		info.Paused, info.PauseNote, info.PauseActor, info.PauseUntil = true, f.PauseNote, f.PauseActor, f.PauseUntil
	}
	if !f.GateUntil.IsZero() {
		info.NextEligible = f.Gate(now)
	}
	switch {
	case info.Status == StatusTripped, info.Paused:
		info.NextRun = time.Time{}
	}
	if info.Status != StatusTripped && info.Open > 0 {
		info.Status = StatusRunning
	}
	return info
}

// flow is a registered Flow, checked.
type flow struct {
	Flow
	position int
	def      *definition
	input    []byte
	fault    error // what is wrong with the workflow
}

// newFlow checks a registration.
func newFlow(f Flow, position int) (*flow, error) {
	errs := []error{f.Schedule.validate(), f.DST.validate(), f.Backoff.validate()}
	f.Schedule = f.Schedule.withDST(f.DST)
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
	}
	if strings.TrimSpace(f.ID) == "" {
		fault("the id is empty")
	}
	if f.Workflow == nil || reflect.ValueOf(f.Workflow).Kind() == reflect.Pointer {
		fault("Workflow must be a segno.Workflow, by value")
	}
	if f.Overlap < 0 {
		fault("Overlap %d is none of Skip, Replace and Allow(n)", f.Overlap)
	}
	if f.CatchUp < 0 {
		fault("CatchUp %d is none of CatchUpLatest, CatchUpSkip and CatchUpAll(n)", f.CatchUp)
	}
	for _, n := range []struct {
		name string
		n    int64
	}{
		{"MaxPending", int64(f.MaxPending)}, {"MaxLateness", int64(f.MaxLateness)}, {"SlotRetries", int64(f.SlotRetries)},
		{"Jitter", int64(f.Jitter)}, {"MaxRuns", int64(f.MaxRuns)},
	} {
		if n.n < 0 {
			fault("%s is negative", n.name)
		}
	}
	f.StartAt, f.EndAt = instant(f.StartAt), instant(f.EndAt)
	if !f.EndAt.IsZero() && f.EndAt.Before(f.StartAt) || f.Schedule.validate() == nil && f.neverFires() {
		errs = append(errs, fmt.Errorf("%w: no slot lies between StartAt and EndAt", ErrNeverFires))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	fl := &flow{Flow: f, position: position}
	fl.def, fl.fault = f.Workflow.compile()
	if fl.fault == nil {
		fl.input = fl.def.zero
		if f.Input != nil {
			fl.input, fl.fault = fl.def.encode(f.Input)
		}
	}
	return fl, nil
}

// named prefixes an error with the flow it is about.
func (f *flow) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("flow %q: %w", f.ID, err)
}

// neverFires reports whether the bounds leave the schedule no slot.
func (f *Flow) neverFires() bool {
	if f.Schedule.kind != once && (f.Schedule.kind != cronKind || f.EndAt.IsZero()) {
		return false
	}
	from := time.Time{}
	if !f.StartAt.IsZero() {
		from = f.StartAt.Add(-tick)
	}
	next := f.Schedule.next(time.Time{}, from)
	return next.IsZero() || !f.EndAt.IsZero() && next.After(f.EndAt)
}

// instant is a time of the user's as it is stored: UTC, to the microsecond.
func instant(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Round(0).UTC().Truncate(time.Microsecond)
}
