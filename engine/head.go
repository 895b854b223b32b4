package engine

import (
	"strconv"
	"time"
)

// A Head is the current row of a run: all that is needed to go on with it.
// Times are UTC with microsecond precision; the zero time is "none".
type Head struct {
	Run     int64
	Flow    string
	Seq     int64 // commits on this run: the compare-and-set
	Status  Status
	Version int
	Nonce   string
	Key     string

	State     string
	Visit     int
	Attempt   int // of the next or current attempt, from 1
	Polls     int // snoozes of this visit
	Crashes   int // deaths of the process in this visit or undo
	Uncertain bool
	Entered   time.Time     // of this visit
	VisitDue  time.Time     // deadline of this visit, set by models that own their timeout
	Due       time.Time     // next attempt or wake-up; zero: now
	Delay     time.Duration // what Due was made from; 0: Due is an instant of the user's
	Data      []byte

	Held     bool
	Suspect  bool
	Cancel   bool
	Wake     time.Time // when the dispatcher must look; zero: never
	Deadline time.Time // of the run; wall clock

	Cause       Cause // why the run failed or rolls back
	Error       string
	StuckReason string // why a stuck run is stuck

	Awaits      string // name of the signal that a waiting run waits for
	Child       int64  // run that this visit has called
	Parent      int64  // run that has called this one
	ParentVisit int
	Depth       int // of calls above it

	First, Last int64 // journal entries
	UndoAt      int64 // entry that closes the next visit to undo; 0: none
	UndoErrors  int   // undos that failed
	Redo        bool  // this rollback repeats failed undos only

	Slot        time.Time // nominal firing time; zero: triggered
	Try         int       // of the slot, from 0
	Backfill    int64     // that made this run
	Missed      int       // slots coalesced into this run
	FirstMissed time.Time
	Created     time.Time
	Started     time.Time
	Ended       time.Time
	Note        string // of an acknowledged run
}

// visitKeyOf is the idempotency key of a visit.
func visitKeyOf(nonce string, visit int, state string) string {
	return nonce + "/" + strconv.Itoa(visit) + "/" + state
}

// Err returns the stored failure of the run, or nil.
func (h *Head) Err() error {
	if h.Cause == "" {
		return nil
	}
	return &Failure{Cause: h.Cause, Text: h.Error}
}

// rest returns how long a wait still lasts. One that began as a duration never
// lasts longer than that duration, whatever the wall clock did meanwhile.
func (h *Head) rest(now time.Time) time.Duration {
	if h.Due.IsZero() {
		return 0
	}
	d := h.Due.Sub(now)
	if h.Delay > 0 {
		d = min(d, h.Delay)
	}
	return max(d, 0)
}

// expired reports whether a deadline has passed.
func expired(deadline, now time.Time) bool {
	return !deadline.IsZero() && !now.Before(deadline)
}

// earliest returns the first of the given times that is set.
func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
