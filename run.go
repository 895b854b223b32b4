package segno

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/segnodev/segno/engine"
)

// RunID names a run within its file. It is never handed out twice.
type RunID int64

// RunStatus says where a run stands; the words are the same in SQL and the CLI.
type RunStatus string

// The closed set of run statuses. The first six are open, the rest are ended.
const (
	RunPending    RunStatus = "pending"     // may run, holds nothing
	RunRunning    RunStatus = "running"     // its code is executing
	RunParked     RunStatus = "parked"      // waits for a due time
	RunWaiting    RunStatus = "waiting"     // waits for a signal or a child
	RunUndoing    RunStatus = "undoing"     // rolls back
	RunStuck      RunStatus = "stuck"       // needs a person
	RunCompleted  RunStatus = "completed"   // reached a final state
	RunFailed     RunStatus = "failed"      // failed, and everything was undone
	RunCancelled  RunStatus = "cancelled"   // cancelled, and everything was undone
	RunUndoFailed RunStatus = "undo_failed" // failed or cancelled, and an undo failed too
)

// Ended reports whether a run of this status is over.
func (s RunStatus) Ended() bool { return engine.Status(s).Ended() }

// RunInfo is what is known of a run, its data as JSON.
type RunInfo struct {
	ID          RunID           `json:"id"`
	Flow        string          `json:"flow"`
	Status      RunStatus       `json:"status"`
	State       string          `json:"state"`
	Visit       int             `json:"visit"`
	Attempt     int             `json:"attempt"`
	Data        json.RawMessage `json:"data"`
	Key         string          `json:"key,omitempty"`
	Slot        time.Time       `json:"slot,omitzero"`
	Try         int             `json:"try,omitempty"`      // of its slot, from 0: see Flow.SlotRetries
	Backfill    int64           `json:"backfill,omitempty"` // id of the backfill that made it
	Missed      int             `json:"missed,omitempty"`
	Due         time.Time       `json:"due,omitzero"` // of a wait
	Deadline    time.Time       `json:"deadline,omitzero"`
	Created     time.Time       `json:"created"`
	Started     time.Time       `json:"started,omitzero"`
	Ended       time.Time       `json:"ended,omitzero"`
	Crashes     int             `json:"crashes,omitempty"` // deaths of the process in the current visit
	Uncertain   bool            `json:"uncertain,omitempty"`
	Cancel      bool            `json:"cancel,omitempty"` // a cancel was asked for
	Version     int             `json:"version"`
	Error       string          `json:"error,omitempty"` // why it failed or rolls back
	Cause       string          `json:"cause,omitempty"` // its class
	StuckReason string          `json:"stuck_reason,omitempty"`
	Note        string          `json:"note,omitempty"`   // of AckRun
	Awaits      string          `json:"awaits,omitempty"` // name of the signal that a waiting run waits for
	Child       RunID           `json:"child,omitempty"`  // run that the current visit has called
	Parent      RunID           `json:"parent,omitempty"` // run that has called this one
}

// Run is a run with its types.
type Run[S State, D any] struct {
	RunInfo
	State S
	Data  D
}

// Entry is one line of a run's history.
type Entry struct {
	ID        int64           `json:"id"`
	At        time.Time       `json:"at"`
	Visit     int             `json:"visit"`
	Kind      string          `json:"kind"` // enter, retry, crash, rollback, undone, undo_failed, stuck, end
	State     string          `json:"state"`
	Attempt   int             `json:"attempt"`
	Version   int             `json:"version"`
	Uncertain bool            `json:"uncertain,omitempty"`
	Cause     string          `json:"cause,omitempty"`
	Error     string          `json:"error,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
}

func runInfo(h *engine.Head) RunInfo {
	info := RunInfo{
		ID: RunID(h.Run), Flow: h.Flow, Status: RunStatus(h.Status), State: h.State, Visit: h.Visit, Attempt: h.Attempt,
		Data: json.RawMessage(h.Data), Key: h.Key, Slot: h.Slot, Try: h.Try, Backfill: h.Backfill,
		Missed: h.Missed, Due: h.Due, Deadline: h.Deadline,
		Created: h.Created, Started: h.Started, Ended: h.Ended, Crashes: h.Crashes, Uncertain: h.Uncertain, Cancel: h.Cancel,
		Version: h.Version, Error: h.Error, Cause: string(h.Cause), Note: h.Note,
		Child: RunID(h.Child), Parent: RunID(h.Parent),
	}
	if h.Status == engine.Waiting {
		info.Awaits = h.Awaits
	}
	if h.Status == engine.Stuck {
		info.StuckReason = h.StuckReason
	}
	return info
}

func entryInfo(e *engine.Entry) Entry {
	return Entry{
		ID: e.ID, At: e.At, Visit: e.Visit, Kind: string(e.Kind), State: e.State, Attempt: e.Attempt, Version: e.Version,
		Uncertain: e.Uncertain, Cause: string(e.Cause), Error: e.Error, Data: json.RawMessage(e.Data),
	}
}

// runError makes the error of a run that ended other than completed, from its
// head and its history.
func runError(h *engine.Head, history []engine.Entry) error {
	if h.Status == engine.Completed {
		return nil
	}
	e := &RunError{Flow: h.Flow, Run: RunID(h.Run), State: h.State, Attempt: h.Attempt, Err: h.Err()}
	undo := map[int]error{}
	var order []int
	var unknown *engine.Entry
	rolled := false
	for i := range history {
		entry := &history[i]
		if entry.Uncertain && entry.Undo == "" && (entry.Kind == engine.KindRollback || entry.Kind == engine.KindEnd) {
			unknown = entry
		}
		switch entry.Kind {
		case engine.KindEnter:
			e.Path = append(e.Path, entry.State)
		case engine.KindRollback:
			if !rolled { // a repeated one knows nothing of the attempt
				e.Attempt, rolled = entry.Attempt, true
			}
		case engine.KindUndoFailed:
			undo[entry.Visit] = &engine.Failure{Cause: entry.Cause, Text: "undo of " + entry.State + ": " + entry.Error}
			order = append(order, entry.Visit)
		case engine.KindUndone:
			delete(undo, entry.Visit)
		}
	}
	for _, visit := range order {
		if err, failed := undo[visit]; failed {
			e.Undo = append(e.Undo, err)
			delete(undo, visit)
		}
	}
	if e.Err == nil {
		e.Err = errors.New("segno: run " + string(h.Status))
	}
	if unknown != nil {
		e.Err = fmt.Errorf("%w; the outcome of %s, visit %d, is unknown, and it was not undone", e.Err, unknown.State, unknown.Visit)
	}
	return e
}
