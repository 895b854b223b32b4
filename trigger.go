package segno

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// A Trigger says how to start a run by hand.
type Trigger struct {
	// Input is what the run starts with: a value of the workflow's data type, or
	// anything whose JSON fits it; nil means Flow.Input.
	Input any
	// Key makes the trigger idempotent: while a run of the flow with this key is
	// in the file, whatever its status, it is returned instead of a new one, or
	// ErrKeyReused if the input differs.
	Key string
	// At starts the run at a later time. Until then it is pending and counts for
	// nothing.
	At time.Time
	// Reset clears streak, backoff and trip in the same commit.
	Reset bool
}

// Trigger starts a run of a flow, whatever its schedule, backoff or pause, and
// returns its id once the run is durable. It returns ErrNotFound for an unknown
// flow, ErrTripped for a tripped one, ErrRunning under Skip while a run is
// open, ErrBusy beyond Flow.MaxPending, ErrKeyReused, ErrConfig for an input
// that does not fit, and ErrStopped.
func (r *RunningScheduler) Trigger(ctx context.Context, id string, t Trigger) (RunID, error) {
	f, err := r.flow(id)
	if err != nil {
		return 0, err
	}
	input, err := f.inputOf(t)
	if err != nil {
		return 0, f.named(err)
	}
	var run RunID
	update := r.store.UpdatePlain
	if t.Reset || t.Key != "" {
		update = r.store.Update
	}
	err = update(ctx, func(tx *store.Tx) (err error) {
		if r.isStopping() {
			return ErrStopped
		}
		run, err = r.trigger(tx, f, t, input)
		return err
	})
	return run, f.named(err)
}

// triggerIn is Trigger inside a transaction.
func (r *RunningScheduler) triggerIn(tx *store.Tx, id string, t Trigger) (RunID, error) {
	f, err := r.flow(id)
	if err != nil {
		return 0, err
	}
	input, err := f.inputOf(t)
	if err != nil {
		return 0, f.named(err)
	}
	run, err := r.trigger(tx, f, t, input)
	return run, f.named(err)
}

// inputOf is the stored form of a trigger's input.
func (f *flow) inputOf(t Trigger) ([]byte, error) {
	if t.Input == nil {
		return f.input, nil
	}
	return f.def.encode(t.Input)
}

// trigger checks what may refuse the run, and creates it.
func (r *RunningScheduler) trigger(tx *store.Tx, f *flow, t Trigger, input []byte) (RunID, error) {
	if len(input) > r.opts.MaxData {
		return 0, fmt.Errorf("%w: the input has %d bytes, Options.MaxData is %d", ErrConfig, len(input), r.opts.MaxData)
	}
	now := r.now()
	row := tx.Flow(f.ID)
	if run, err := existing(tx, f, t, input); run != 0 || err != nil {
		return run, err
	}
	if row.Outcome == string(StatusTripped) && !t.Reset {
		return 0, fmt.Errorf("%w after %d failures; ResetFlow it, or set Trigger.Reset (last error: %s)", ErrTripped, row.Streak, row.LastError)
	}
	h := f.head(input, now)
	h.Key = t.Key
	if at := instant(t.At); at.After(now) {
		h.Due, h.Wake = at, at
		if !h.Deadline.IsZero() {
			h.Deadline = at.Add(f.def.machine.Timeout)
		}
	} else if busy, err := r.overlaps(tx, f, row, now); err != nil {
		return 0, err
	} else if busy {
		return 0, ErrRunning
	}
	if f.MaxPending > 0 && row.Queued+row.Later >= f.MaxPending {
		return 0, fmt.Errorf("%w: %d wait, Flow.MaxPending is %d", ErrBusy, row.Queued+row.Later, f.MaxPending)
	}
	if t.Reset {
		if err := r.reset(tx, f, row, now); err != nil {
			return 0, err
		}
	}
	err := r.create(tx, f, row, &h, now)
	if t.Reset { // the gate may have held back a slot
		f.plan(row, now)
		next := row.Next
		tx.After(func() { r.planned(next) })
	}
	return RunID(h.Run), err
}

// existing returns the run that has the trigger's key, 0 if there is none.
func existing(tx *store.Tx, f *flow, t Trigger, input []byte) (RunID, error) {
	if t.Key == "" {
		return 0, nil
	}
	h, found, err := tx.ByKey(f.ID, t.Key)
	if err != nil || !found {
		return 0, err
	}
	first, err := tx.Entry(h.First)
	if errors.Is(err, sql.ErrNoRows) { // of a long history; there is nothing to compare with any more
		return RunID(h.Run), nil
	}
	if err != nil {
		return 0, err
	}
	if !bytes.Equal(first.Data, input) {
		return RunID(h.Run), fmt.Errorf("%w: key %q is that of run %d", ErrKeyReused, t.Key, h.Run)
	}
	return RunID(h.Run), nil
}

// head starts the head of a new run.
func (f *flow) head(input []byte, now time.Time) engine.Head {
	m := f.def.machine
	h := engine.Head{
		Flow: f.ID, Status: engine.Pending, Version: m.Version, Nonce: nonce(), State: m.Initial, Data: input,
		Created: now, Entered: now, Wake: now,
	}
	if m.Timeout > 0 {
		h.Deadline = now.Add(m.Timeout)
	}
	return h
}

// nonce is what makes a run's idempotency keys its own: 128 random bits.
func nonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// create inserts a run. If there is a place for it, it is held from the start
// and executes as soon as the commit is through; h must not change any more.
func (r *RunningScheduler) create(tx *store.Tx, f *flow, row *store.Flow, h *engine.Head, now time.Time) error {
	row.Runs++
	place := f.seat(false)
	waits := row.Queued > 0 || f.Overlap == Replace && row.Active > 0
	if h.Due.IsZero() && !waits && r.places.take(place) { // nobody overtakes those that wait
		h.Status, h.Held, h.Started, h.Wake = engine.Running, true, now, h.Deadline
		row.LastRun = now
		tx.Else(func() { r.places.give(place) })
	}
	if err := tx.Insert(h); err != nil {
		return err
	}
	if f.Schedule.kind == fixedDelay && h.Due.IsZero() {
		row.Next = time.Time{} // the end of this run sets it
	}
	if !h.Held {
		wake := h.Wake
		tx.After(func() { r.alarm.before(wake) })
		return nil
	}
	tx.After(func() { r.launch(f, *h, engine.EventRunStarted) })
	return nil
}
