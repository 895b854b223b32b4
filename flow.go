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
}

// Overlap says what becomes of a slot or a trigger while a run of the flow is open.
type Overlap int

// Skip allows one open run: a trigger then gets ErrRunning, a slot is
// recorded as skipped for overlap.
const Skip Overlap = 0

// allowBase is Allow(0); 1 is left for Replace.
const allowBase = 2

// Allow lets n runs execute at the same time; 0 means no limit of the flow's
// own. Runs that are parked, waiting or pending hold nothing; a trigger beyond
// n is pending until its turn comes.
func Allow(n int) Overlap { return Overlap(allowBase + n) }

// limit returns how many places the flow's runs may have at once; 0: no limit.
// Under Skip it is the count of open runs that decides: a place may belong to a
// goroutine whose run has long gone on without it.
func (o Overlap) limit() int {
	if o == Skip {
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
	errs := []error{f.Schedule.validate(), f.Backoff.validate()}
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...))
	}
	if strings.TrimSpace(f.ID) == "" {
		fault("the id is empty")
	}
	if f.Workflow == nil || reflect.ValueOf(f.Workflow).Kind() == reflect.Pointer {
		fault("Workflow must be a segno.Workflow, by value")
	}
	if f.Overlap < 0 || f.Overlap == allowBase-1 {
		fault("Overlap %d is none of Skip and Allow(n)", f.Overlap)
	}
	if f.MaxPending < 0 {
		fault("MaxPending is %d", f.MaxPending)
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
