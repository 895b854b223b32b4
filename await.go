package segno

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// AwaitOptions are the options of Await.
type AwaitOptions[S State, D any] struct {
	// OnTimeout says where to go when Step.Timeout passes without a signal; nil:
	// the visit fails.
	OnTimeout DoFunc[S, D]
}

const (
	awaitPayload = "segno.await.payload"
	awaitUntil   = "segno.await.until"
)

// Await waits for a signal of the given name, without a goroutine, and calls fn
// with its payload. A signal that came before the wait is taken at once, the
// oldest first. Once taken it is this visit's: fn gets the same payload on every
// retry and after a crash. Step.Timeout bounds the wait, from the visit's entry;
// it runs on while the program is down, but a signal that is there wins. fn then
// has Step.Timeout anew for each attempt. A payload that is no P fails the visit.
func Await[S State, D, P any](name string, fn func(context.Context, *D, P) (S, error), o ...AwaitOptions[S, D]) DoFunc[S, D] {
	opts := first(o)
	return func(ctx context.Context, d *D) (S, error) {
		v, _, err := visitFrom(ctx)
		if err != nil {
			return "", err
		}
		raw, taken, err := LoadMemo[json.RawMessage](ctx, awaitPayload)
		if err == nil && !taken {
			raw, taken, err = v.Take(name, awaitPayload)
		}
		if err != nil {
			return "", err
		}
		if taken {
			var p P
			if err := json.Unmarshal(raw, &p); err != nil {
				return "", Permanent(fmt.Errorf("signal %q: its payload is no %T: %w", name, p, err))
			}
			return fn(ctx, d, p)
		}
		until, err := awaitDeadline(ctx, v)
		switch {
		case err != nil:
			return "", err
		case until.IsZero() || v.Now().Before(until):
			return "", &engine.Steer{Snooze: true, Keep: true, Awaits: name, Until: until}
		case opts.OnTimeout != nil:
			return opts.OnTimeout(ctx, d)
		}
		return "", Permanent(fmt.Errorf("%w: no signal %q came in time", context.DeadlineExceeded, name))
	}
}

// awaitDeadline returns when the wait is over, the zero time for never. It is
// kept from the first wait on.
func awaitDeadline(ctx context.Context, v *engine.Visit) (until time.Time, err error) {
	until, found, err := LoadMemo[time.Time](ctx, awaitUntil)
	if err != nil || found {
		return until, err
	}
	d := v.Timeout()
	if d <= 0 {
		return until, nil
	}
	until = v.Entered().Add(d)
	return until, joinMemo(v, awaitUntil, until)
}

// A Target is the run that a signal is for: Run, or the run of Flow that was
// triggered with Key.
type Target struct {
	Run  RunID
	Flow string
	Key  string
}

// A Message is a signal to a run.
type Message struct {
	// Name is the one that an Await waits for.
	Name string
	// ID, if set, is the sender's: a second message to the run with the same ID is
	// ignored. Without it no message is a duplicate.
	ID string
	// Payload is what fn of Await gets, by way of JSON.
	Payload any
}

// Signal sends a message to a run. It returns nil once the message is durable;
// it is kept until a visit of the run awaits its name, first in, first out, and
// taken exactly once. It returns ErrNotFound if there is no such run, ErrEnded if
// the run has ended, and ErrConfig for a message without a name, or with a
// payload that JSON cannot carry.
func (r *RunningScheduler) Signal(ctx context.Context, to Target, m Message) error {
	payload, err := json.Marshal(m.Payload)
	switch {
	case m.Name == "":
		err = fmt.Errorf("%w: the message has no Name", ErrConfig)
	case err != nil:
		err = fmt.Errorf("%w: the payload: %w", ErrConfig, err)
	case len(payload) > r.opts.MaxData:
		err = fmt.Errorf("%w: the payload has %d bytes, Options.MaxData is %d", ErrConfig, len(payload), r.opts.MaxData)
	case to.Run == 0 && (to.Flow == "" || to.Key == ""):
		err = fmt.Errorf("%w: the Target needs Run, or Flow and Key", ErrConfig)
	}
	if err == nil {
		s := store.Signal{Name: m.Name, Message: m.ID, Payload: payload}
		err = r.update(ctx, func(tx *store.Tx) error { return r.signal(tx, to, s) })
	}
	if err != nil {
		return fmt.Errorf("signal %q to %s: %w", m.Name, to, err)
	}
	return nil
}

// String names the target.
func (t Target) String() string {
	if t.Run != 0 {
		return fmt.Sprintf("run %d", t.Run)
	}
	return fmt.Sprintf("the run of %q with key %q", t.Flow, t.Key)
}

// signal queues a message for the target.
func (r *RunningScheduler) signal(tx *store.Tx, to Target, s store.Signal) error {
	h, err := target(tx, to)
	if err != nil {
		return err
	}
	if known, err := tx.Known(h.Run, s.Message); err != nil || known {
		return err
	}
	if h.Status.Ended() {
		return fmt.Errorf("%w: it is %s", ErrEnded, h.Status)
	}
	now := r.now()
	tx.After(func() { r.alarm.before(now) })
	return tx.Signal(h.Run, s, now)
}

// target returns the run that a signal is for.
func target(tx *store.Tx, to Target) (h engine.Head, err error) {
	if to.Run != 0 {
		if h, err = tx.Head(int64(to.Run)); err == nil && to.Flow != "" && to.Flow != h.Flow {
			err = fmt.Errorf("%w: it is a run of flow %q", ErrNotFound, h.Flow)
		}
		return h, err
	}
	h, found, err := tx.ByKey(to.Flow, to.Key)
	if err == nil && !found {
		err = ErrNotFound
	}
	return h, err
}
