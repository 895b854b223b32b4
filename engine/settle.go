package engine

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// An outcome is what an attempt came to.
type outcome struct {
	next     string
	data     []byte
	err      error
	why      error // what interrupted it: nil, a timeout, a cancel, a stop
	unknown  bool  // nobody can say whether its effects happened
	panicked bool
	onCommit []func(Tx) error
	memos    map[string][]byte
}

// visit makes one attempt of the current state's step.
func (r *Run) visit() (*Change, error) {
	step := r.machine.Steps[r.head.State]
	if step.Final {
		return r.enter(r.head.State, outcome{data: r.head.Data}, 0), nil
	}
	o, err := r.attempt(step)
	if err != nil {
		return nil, err
	}
	return r.judge(o), nil
}

// judge turns an attempt's outcome into the change to commit; nil: nothing to
// write, look again.
func (r *Run) judge(o outcome) *Change {
	step := r.machine.Steps[r.head.State]
	if o.err == nil {
		return r.advance(step, o)
	}
	var steer *Steer
	errors.As(o.err, &steer)
	switch {
	case steer != nil && steer.Snooze:
		return r.snooze(o, steer)
	case errors.Is(o.err, ErrUndecodable):
		return r.stuck(o.err)
	case r.stopped(o):
		return r.suspend()
	case o.why == ErrCancelledRun, o.why == errRunTimeout:
		return r.rollback(because(o), o.unknown, false)
	case r.mayRetry(step.Retry, o, steer):
		return r.retry(r.head.State, r.head.Visit, step.Retry, o, steer)
	}
	return r.rollback(o.err, o.unknown, false)
}

// stopped reports whether the attempt ended by the stop: interrupted by it, or
// refused by a scheduler that stops. A step that stops is not a step that failed.
func (r *Run) stopped(o outcome) bool {
	return o.why == ErrStopping || o.why == nil && errors.Is(o.err, ErrStopping) && r.suspended()
}

// because is what interrupted the attempt, and whether its goroutine was lost.
func because(o outcome) error {
	if errors.Is(o.err, ErrAbandoned) {
		return fmt.Errorf("%w; %v", o.why, o.err)
	}
	return o.why
}

// advance checks where a successful attempt wants to go.
func (r *Run) advance(step *Step, o outcome) *Change {
	_, known := r.machine.Steps[o.next]
	switch {
	case !known:
		err := fmt.Errorf("%w: state %q returned %q, which is no state of the workflow", ErrUnknownState, r.head.State, o.next)
		return r.misroute(err, o)
	case !step.allows(o.next):
		err := fmt.Errorf("%w: from %q to %q, Next allows %q", ErrTransition, r.head.State, o.next, step.Next)
		return r.misroute(err, o)
	case len(o.data) > r.eng.MaxData:
		return r.rollback(tooLarge(len(o.data), r.eng.MaxData), false, false)
	}
	return r.enter(o.next, o, 1)
}

// enter is the transition: it closes the current visit and enters the next
// state, or ends the run there. opens is 0 for a run whose first state is final.
func (r *Run) enter(next string, o outcome, opens int) *Change {
	now := r.eng.Now()
	c := r.change()
	c.OnCommit, c.Memos, c.DropMemos = o.onCommit, nil, r.memos.some || !r.memos.known
	h := &c.After
	h.State, h.Visit, h.Data, h.Entered = next, h.Visit+opens, o.data, now
	h.resetVisit()
	e := Entry{Kind: KindEnter, State: next, Visit: h.Visit, Attempt: 1, At: now}
	if r.machine.Steps[next].Final {
		e.Kind, c.Yields = KindEnd, true
		h.end(Completed, now)
	} else if step := r.machine.Steps[r.head.State]; step.Undo != nil {
		e.Undo = r.head.State
	}
	e.Data = r.entryData(&e, o.data)
	c.Entries = append(c.Entries, e)
	return c
}

// entryData says what data an entry must carry: all that an undo will need,
// the last of a run, and otherwise only what differs.
func (r *Run) entryData(e *Entry, data []byte) []byte {
	switch {
	case e.Undo != "", e.Kind == KindEnd:
		return data
	case r.machine.KeepData, r.kept && !bytes.Equal(data, r.head.Data):
		return data
	}
	return nil
}

// snooze keeps the visit and goes on later. A short one that changed nothing is
// written only once per ParkAfter.
func (r *Run) snooze(o outcome, s *Steer) *Change {
	now := r.eng.Now()
	c := r.change()
	c.OnCommit, c.Memos = o.onCommit, o.memos
	h := &c.After
	if o.data != nil {
		h.Data = o.data
	}
	if !s.Keep {
		h.Attempt = 1
	}
	if !s.Unbegun {
		h.Uncertain = false
		h.Polls++
	}
	if s.Progress {
		h.Crashes, h.Suspect = 0, false // those before were of another unit
	}
	if len(h.Data) > r.eng.MaxData {
		return r.rollback(tooLarge(len(h.Data), r.eng.MaxData), false, false)
	}
	if s.Awaits != "" || s.Call != nil || s.Called {
		return r.await(c, s)
	}
	h.wait(s, now)
	if r.park(h, now) || r.mustWrite(c, now) {
		return c
	}
	r.head = *h
	return nil
}

// mustWrite reports whether a short snooze has something that must not be lost,
// or was not written for so long that a crash would repeat too much.
func (r *Run) mustWrite(c *Change, now time.Time) bool {
	return len(c.OnCommit) > 0 || len(c.Memos) > 0 || c.Before.Attempt != c.After.Attempt || c.Before.Uncertain != c.After.Uncertain ||
		!bytes.Equal(c.After.Data, r.head.Data) || now.Sub(r.settledAt) >= r.eng.ParkAfter
}

// wait sets the due time that a steer asks for.
func (h *Head) wait(s *Steer, now time.Time) { h.Due, h.Delay = s.Due(now) }

// park gives up the goroutine if the wait is long enough to be worth it.
func (r *Run) park(h *Head, now time.Time) bool {
	if h.Due.Sub(now) < r.eng.ParkAfter {
		return false
	}
	if h.Status == Running {
		h.Status = Parked
	}
	h.Held, h.Suspect = false, false
	if h.Wake = h.Due; h.Status != Undoing { // a rollback has no deadline while it waits
		h.Wake = earliest(h.Due, h.Deadline, h.VisitDue)
	}
	return true
}

// mayRetry reports whether the policy allows another attempt after o.
func (r *Run) mayRetry(p Retry, o outcome, s *Steer) bool {
	switch {
	case s != nil && s.Permanent, r.head.Attempt >= p.Attempts, o.why == errVisitDue:
		return false
	}
	return p.Panics || !o.panicked
}

// retry records a failed attempt and when the next one is due.
func (r *Run) retry(state string, visit int, p Retry, o outcome, s *Steer) *Change {
	now := r.eng.Now()
	c := r.change()
	h := &c.After
	e := r.entry(KindRetry, now)
	e.State, e.Visit, e.Uncertain = state, visit, o.unknown
	e.Cause, e.Error = CauseOf(o.err), o.err.Error()
	c.Entries, c.Why = []Entry{e}, o.err
	delay := p.Delay(h.Attempt)
	if s != nil && s.After > 0 {
		delay = s.After
	}
	h.Attempt++
	h.Uncertain = o.unknown
	h.wait(&Steer{After: delay}, now)
	r.park(h, now)
	return c
}

// suspend leaves the run in the file for the next start. Nothing is undone,
// nothing counts as failed.
func (r *Run) suspend() *Change {
	c := r.change()
	c.Yields = true
	h := &c.After
	if h.Status == Running {
		h.Status = Pending
	}
	h.Held, h.Suspect, h.Wake = false, false, r.eng.Now()
	return c
}

// stuck sets the run aside for a person, before any more of its code runs.
func (r *Run) stuck(reason error) *Change {
	now := r.eng.Now()
	c := r.change()
	c.Yields = true
	h := &c.After
	h.Status, h.StuckReason = Stuck, reason.Error()
	h.Held, h.Suspect, h.Wake = false, false, time.Time{}
	e := r.entry(KindStuck, now)
	e.Cause, e.Error = CauseOf(reason), reason.Error()
	c.Entries, c.Why = []Entry{e}, reason
	return c
}

// admit checks that the workflow still knows the run, translating the head of
// another version, before any of its code runs.
func (r *Run) admit() (*Change, error) {
	r.admitted = true
	h := &r.head
	if h.Version == r.machine.Version {
		if _, known := r.machine.Steps[h.State]; !known && h.Status != Undoing {
			return r.stuck(fmt.Errorf("%w: %q is no state of the workflow", ErrUnknownState, h.State)), nil
		}
		return nil, nil
	}
	if r.machine.Migrate == nil {
		return r.stuck(fmt.Errorf("%w: the run has version %d, the workflow %d, and there is no Migrate", ErrVersion, h.Version, r.machine.Version)), nil
	}
	if h.Status == Undoing {
		return nil, nil // each entry is translated when its turn comes
	}
	return r.migrate(), nil
}

// migrate commits the translated head before any body sees it.
func (r *Run) migrate() *Change {
	state, data, err := r.translate(r.head.Version, r.head.State, r.head.Data)
	if err != nil {
		return r.stuck(fmt.Errorf("%w: migrating from version %d: %w", ErrVersion, r.head.Version, err))
	}
	if _, known := r.machine.Steps[state]; !known {
		return r.stuck(fmt.Errorf("%w: Migrate returned %q", ErrUnknownState, state))
	}
	c := r.change()
	c.After.State, c.After.Data, c.After.Version = state, data, r.machine.Version
	return c
}

// translate calls the user's Migrate, whose panic is an error like any other.
func (r *Run) translate(from int, state string, data []byte) (s string, d []byte, err error) {
	defer recovered(&err)
	return r.machine.Migrate(from, state, data)
}

// change starts a change from the current head.
func (r *Run) change() *Change {
	return &Change{Before: &r.head, After: r.head}
}

// entry starts an entry of the current visit.
func (r *Run) entry(k Kind, now time.Time) Entry {
	return Entry{Kind: k, State: r.head.State, Visit: r.head.Visit, Attempt: r.head.Attempt, At: now}
}

// resetVisit clears what belongs to one visit only.
func (h *Head) resetVisit() {
	h.Attempt, h.Polls, h.Crashes = 1, 0, 0
	h.Uncertain, h.Suspect = false, false
	h.Due, h.Delay, h.VisitDue = time.Time{}, 0, time.Time{}
	h.Awaits, h.Child = "", 0
}

// end closes the run.
func (h *Head) end(s Status, now time.Time) {
	h.Status, h.Ended = s, now
	h.Held, h.Suspect, h.Wake = false, false, time.Time{}
	h.Due, h.Delay = time.Time{}, 0
}

func tooLarge(n, limit int) error {
	return fmt.Errorf("%w: %d bytes, Options.MaxData is %d", ErrTooLarge, n, limit)
}

func crashLoop(h *Head) error {
	return fmt.Errorf("%w: the process died %d times in state %q", ErrCrashLoop, h.Crashes, h.State)
}

func visitTimeout(h *Head) error {
	return fmt.Errorf("%w: state %q was not left in time", errVisitDue, h.State)
}
