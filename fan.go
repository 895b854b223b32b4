package segno

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segnodev/segno/engine"
)

// Settled is what has become of an item of a Batch or a branch of a Split. Err
// is as it is read back from the file: its text, and its class for errors.Is.
// Skipped says that it was not needed any more: nothing is known of it.
type Settled[T any] struct {
	Value   T
	Err     error
	Skipped bool
}

// A fan runs units side by side: the items of a Batch, the branches of a Split.
// What has become of each is a memo, so that only those in flight are repeated
// after a crash. A failed attempt of the step begins a new round, with memos of
// its own.
type fan[T any] struct {
	visit   *engine.Visit
	memo    string // begins the keys of the round
	limit   int    // how many at the same time; 0: no limit
	retry   engine.Retry
	do      func(ctx context.Context, i int) (T, error)
	decided func(*fan[T]) bool // enough is known; nil: all must be
	until   time.Time          // no longer than this; zero: no limit
	late    bool               // until has passed

	units  []unitState
	parts  []*engine.Visit // of the units in flight, else nil
	first  int             // those before it are done
	busy   int
	done   chan result
	failed error // an outcome could not be kept
}

// A result is what an attempt has made of a unit; nil: nothing is known, or err
// says why it could not be kept.
type result struct {
	i     int
	after *unitState
	err   error
}

// unitState is what is kept of a unit.
type unitState struct {
	Done    bool            `json:"done,omitempty"`
	Value   json.RawMessage `json:"value,omitempty"`
	Error   string          `json:"error,omitempty"` // of the last attempt
	Cause   engine.Cause    `json:"cause,omitempty"`
	Attempt int             `json:"attempt,omitempty"` // the next one; 0: the first
	Due     time.Time       `json:"due,omitzero"`
	Delay   time.Duration   `json:"delay,omitempty"` // what Due was made from

	moved bool // Due is another than the one that is kept
}

// A round is what an attempt of the step has made of its units, over as many
// lives and waits as it takes.
type round struct {
	visit   *engine.Visit
	memo    string // begins the keys
	model   string
	attempt int
	before  int // rounds that lie before the one of the first attempt
}

// roundOf returns the round of the attempt in flight; keep: there is only one.
func roundOf(ctx context.Context, v *engine.Visit, model string, keep bool) (round, error) {
	r := round{visit: v, memo: model, model: model, attempt: InfoFrom(ctx).Attempt}
	if keep {
		return r, nil
	}
	var err error
	r.before, _, err = LoadMemo[int](ctx, model+".before")
	r.memo += "." + strconv.Itoa(r.before+r.attempt)
	return r, err
}

// goOn passes on what the user's code has returned: behind a snooze the attempts
// are counted from 1 again, but it is the same round.
func (r round) goOn(err error) error {
	if !isSnooze(err) || r.attempt == 1 {
		return err
	}
	return errorOr(joinMemo(r.visit, r.model+".before", r.before+r.attempt-1), err)
}

// run brings n units to their end, or to the point where enough is known. A
// snooze that it returns parks the visit until the next unit is due.
func (f *fan[T]) run(ctx context.Context, n int) error {
	if err := f.load(ctx, n); err != nil {
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	f.done = make(chan result, n)
	if err := f.work(ctx, inner); err != nil {
		cancel()
		for f.busy > 0 { // it is the engine that gives up the goroutines of an attempt
			f.ended(<-f.done)
		}
		return err
	}
	cancel()
	f.collect()
	return errorOr(f.failed, context.Cause(ctx))
}

// work has the units done until the outcome is decided. ctx is that of the
// step, inner that of the units.
func (f *fan[T]) work(ctx, inner context.Context) error {
	for !f.enough() {
		due := f.launch(inner)
		if f.busy == 0 && f.open() == 0 {
			break
		}
		if f.busy == 0 {
			if why := f.visit.Why(); why != nil {
				return why
			}
			if !f.visit.Timed() {
				return f.rest(due)
			}
		}
		if err := errorOr(f.wait(ctx, due), f.failed); err != nil {
			return err
		}
	}
	return nil
}

// load reads what earlier lives of this round have settled.
func (f *fan[T]) load(ctx context.Context, n int) error {
	f.units, f.parts = make([]unitState, n), make([]*engine.Visit, n)
	for i := range f.units {
		u, found, err := LoadMemo[unitState](ctx, f.key(i))
		if err != nil {
			return err
		}
		if found {
			f.units[i] = u
		}
	}
	return nil
}

func (f *fan[T]) key(i int) string { return f.memo + "/" + strconv.Itoa(i) }

// enough reports whether the outcome is decided.
func (f *fan[T]) enough() bool {
	f.late = f.late || !f.until.IsZero() && !f.visit.Now().Before(f.until)
	return f.late || f.decided != nil && f.decided(f)
}

// open counts the units whose outcome is not known.
func (f *fan[T]) open() (n int) {
	for i := range f.units {
		if !f.units[i].Done {
			n++
		}
	}
	return n
}

// launch starts what is due, as far as there is room, unless the visit is to
// end. It returns when the next unit comes due, zero if none waits, or if there
// is no room for it.
func (f *fan[T]) launch(ctx context.Context) (next time.Time) {
	if f.visit.Why() != nil {
		return next
	}
	now := f.visit.Now()
	for ; f.first < len(f.units) && f.units[f.first].Done; f.first++ {
	}
	for i := f.first; i < len(f.units); i++ {
		if f.limit > 0 && f.busy >= f.limit {
			return time.Time{}
		}
		u := &f.units[i]
		if u.Done || f.parts[i] != nil {
			continue
		}
		if u.rebase(now); u.Due.After(now) {
			if next.IsZero() || u.Due.Before(next) {
				next = u.Due
			}
			continue
		}
		f.start(ctx, i)
	}
	return next
}

// rebase sees to it that a unit waits no longer from now than its delay, however
// far back the clock was stepped.
func (u *unitState) rebase(now time.Time) {
	if limit := now.Add(u.Delay); u.Delay > 0 && u.Due.After(limit) {
		u.Due, u.moved = limit, true
	}
}

// start makes one attempt of a unit in a goroutine of its own.
func (f *fan[T]) start(ctx context.Context, i int) {
	u := f.units[i]
	u.Attempt = max(u.Attempt, 1)
	ctx, f.parts[i] = f.visit.Part(ctx, strconv.Itoa(i), f.key(i)+"/", u.Attempt)
	f.busy++
	f.tell(engine.EventTaskStarted, i, nil)
	go func() {
		var value T
		err := fmt.Errorf("%w: the function called runtime.Goexit", ErrPanic)
		defer func() {
			after, failed := f.settle(ctx, i, u, value, err)
			f.done <- result{i, after, failed}
		}()
		err = engine.Guard(func() (err error) {
			value, err = f.do(ctx, i)
			return err
		})
	}()
}

// settle makes the outcome of an attempt durable and returns it; nil: there is
// none, and the next life of the visit repeats the attempt.
func (f *fan[T]) settle(ctx context.Context, i int, u unitState, value T, err error) (*unitState, error) {
	part := f.parts[i]
	if err == nil {
		u.Value, err = encodeResult(value)
	}
	if err != nil && (ctx.Err() != nil || part.Interrupted(err)) {
		part.Close()
		return nil, nil
	}
	after, failed := f.record(i, u, err)
	var joined *engine.OnCommitError
	if errors.As(failed, &joined) {
		after, failed = f.record(i, u, failed)
	}
	if failed != nil {
		part.Close()
		return nil, failed
	}
	return after, nil
}

// encodeResult makes the stored form of a result, certain to be read back.
func encodeResult[T any](value T) (json.RawMessage, error) {
	raw, err := json.Marshal(value)
	if err == nil {
		var back T
		err = json.Unmarshal(raw, &back)
	}
	if err != nil {
		return nil, Permanent(fmt.Errorf("a value of type %T cannot be stored: %w", value, err))
	}
	return raw, nil
}

// record writes what the outcome makes of the unit.
func (f *fan[T]) record(i int, u unitState, err error) (*unitState, error) {
	part := f.parts[i]
	if err != nil && !isSnooze(err) {
		part.Drop()
		u.Value = nil
	}
	after := f.judge(u, err)
	raw, failed := json.Marshal(after)
	if failed == nil {
		failed = part.Settle(f.key(i), raw)
	}
	return &after, failed
}

// judge says what an attempt makes of a unit.
func (f *fan[T]) judge(u unitState, err error) unitState {
	now := f.visit.Now()
	u.Due, u.Delay = time.Time{}, 0
	if err == nil {
		u.Done, u.Error, u.Cause = true, "", ""
		return u
	}
	var s *engine.Steer
	errors.As(err, &s)
	if s != nil && s.Snooze {
		u.Due, u.Delay = s.Due(now)
		u.Attempt, u.Value, u.Error, u.Cause = 1, nil, "", ""
		return u
	}
	u.Error, u.Cause = err.Error(), engine.CauseOf(err)
	if !f.retry.MayRetry(u.Attempt, err) {
		u.Done = true
		return u
	}
	u.Delay = f.retry.Delay(u.Attempt)
	if s != nil && s.After > 0 {
		u.Delay = s.After
	}
	u.Due = now.Add(u.Delay)
	u.Attempt++
	return u
}

// wait waits until something happens: a unit ends or comes due, the time is up,
// or the visit has to end.
func (f *fan[T]) wait(ctx context.Context, due time.Time) error {
	var halt <-chan struct{}
	if f.visit.Why() == nil { // else it is known, and only units in flight are waited for
		halt = f.visit.Halt()
	}
	if due.IsZero() || !f.until.IsZero() && f.until.Before(due) {
		due = f.until
	}
	var timer <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(due.Sub(f.visit.Now()))
		defer t.Stop()
		timer = t.C
	}
	select {
	case r := <-f.done:
		f.ended(r)
	case <-timer:
		f.passed(due)
	case <-halt:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// passed ends the waits that were to last to due: the clock they were measured
// with may have been stepped meanwhile. An instant of the user's stays what it is.
func (f *fan[T]) passed(due time.Time) {
	f.late = f.late || !f.until.IsZero() && !f.until.After(due)
	for i := range f.units {
		if u := &f.units[i]; u.Delay > 0 && !u.Due.After(due) {
			u.Due = time.Time{}
		}
	}
}

// ended takes what has become of a unit.
func (f *fan[T]) ended(r result) {
	f.parts[r.i] = nil
	f.busy--
	f.failed = errorOr(f.failed, r.err)
	if r.after == nil {
		return
	}
	u := r.after
	f.units[r.i] = *u
	switch {
	case u.Cause == "" && u.Done:
		f.tell(engine.EventTaskSucceeded, r.i, nil)
	case u.Done:
		f.tell(engine.EventTaskFailed, r.i, u.failure())
	case u.Cause != "":
		f.tell(engine.EventRetry, r.i, u.failure())
	}
}

// tell tells the observers of a unit.
func (f *fan[T]) tell(kind engine.EventKind, i int, err error) {
	f.visit.Observe(kind, strconv.Itoa(i), err)
}

// failure is the error of a unit's last attempt, as it is kept.
func (u *unitState) failure() error { return &engine.Failure{Cause: u.Cause, Text: u.Error} }

// collect waits for the units in flight that are not needed any more, and whose
// context has ended, but no longer than the grace: what comes later is not wanted.
func (f *fan[T]) collect() {
	t := time.NewTimer(f.visit.Grace())
	defer t.Stop()
	for f.busy > 0 {
		select {
		case r := <-f.done:
			f.ended(r)
		case <-t.C:
			for _, part := range f.parts {
				if part != nil {
					part.Close()
				}
			}
			return
		}
	}
}

// rest parks the visit until the next unit is due, or the time is up.
func (f *fan[T]) rest(due time.Time) error {
	if !f.until.IsZero() && (due.IsZero() || f.until.Before(due)) {
		due = f.until
	}
	for i := range f.units {
		if u := &f.units[i]; u.moved {
			if err := joinMemo(f.visit, f.key(i), u); err != nil {
				return err
			}
		}
	}
	return &engine.Steer{Snooze: true, Keep: true, After: max(due.Sub(f.visit.Now()), time.Millisecond)}
}

// settled returns what has become of every unit.
func (f *fan[T]) settled() ([]Settled[T], error) {
	out := make([]Settled[T], len(f.units))
	for i := range f.units {
		u := &f.units[i]
		switch {
		case !u.Done:
			out[i].Skipped = true
		case u.Cause != "":
			out[i].Err = u.failure()
		default:
			if err := json.Unmarshal(u.Value, &out[i].Value); err != nil {
				return nil, fmt.Errorf("%w: result %d is no %T: %w", engine.ErrUndecodable, i, out[i].Value, err)
			}
		}
	}
	return out, nil
}
