package engine

// Status says where a run stands. The words are the same in Go, SQL and the CLI.
type Status string

// The closed set of run statuses. The first six are open, the rest are ended.
const (
	Pending    Status = "pending"     // may run, holds nothing
	Running    Status = "running"     // a goroutine executes it
	Parked     Status = "parked"      // waits for a due time, without a goroutine
	Waiting    Status = "waiting"     // waits for a signal or a child
	Undoing    Status = "undoing"     // rolls back
	Stuck      Status = "stuck"       // needs a person
	Completed  Status = "completed"   // reached a final state
	Failed     Status = "failed"      // failed, rolled back cleanly
	Cancelled  Status = "cancelled"   // cancelled, rolled back cleanly
	UndoFailed Status = "undo_failed" // at least one undo failed
)

// Ended reports whether a run of this status is over.
func (s Status) Ended() bool {
	switch s {
	case Completed, Failed, Cancelled, UndoFailed:
		return true
	}
	return false
}

// Executing reports whether the loop has work to do in this status.
func (s Status) Executing() bool { return s == Running || s == Undoing }

// Kind says what a journal entry records.
type Kind string

// The closed set of journal entry kinds.
const (
	KindEnter      Kind = "enter"       // a visit was entered, and the one before it closed
	KindRetry      Kind = "retry"       // an attempt failed and will be repeated
	KindCrash      Kind = "crash"       // the process died in this visit
	KindRollback   Kind = "rollback"    // a rollback began
	KindUndone     Kind = "undone"      // an undo succeeded
	KindUndoFailed Kind = "undo_failed" // an undo failed for good
	KindStuck      Kind = "stuck"       // the run needs a person
	KindEnd        Kind = "end"         // the run is over
)
