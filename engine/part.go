package engine

import (
	"context"
	"errors"
	"time"
)

// Unit names the unit in flight, for its key.
func (v *Visit) Unit(name string) error {
	return v.alive(func() { v.info.Unit = name })
}

// Part opens a part of the unit in flight that is settled by itself, such as an
// item of a batch: it has a key, memos and joined functions of its own. Parts
// may run side by side.
func (v *Visit) Part(ctx context.Context, name, scope string, attempt int) (context.Context, *Visit) {
	p := &Visit{run: v.run, unit: v.unit, info: v.info, scope: scope}
	p.info.Unit, p.info.Attempt = name, attempt
	return visitContext{ctx, p}, p
}

// Guard calls fn, whose panic is an error.
func Guard(fn func() error) (err error) {
	defer recovered(&err)
	return fn()
}

// Close ends the part without a commit: what joined it is dropped.
func (v *Visit) Close() {
	v.run.mu.Lock()
	defer v.run.mu.Unlock()
	v.closed = true
}

// Drop takes back what has joined the part so far: it has failed.
func (v *Visit) Drop() {
	v.run.mu.Lock()
	defer v.run.mu.Unlock()
	v.joined, v.onCommit = nil, nil
}

// Settle ends the part: the memo, those that joined it, and its functions are
// one commit. After an *OnCommitError, a failure of the part's, it is still open.
func (v *Visit) Settle(key string, value []byte) error {
	memos := map[string][]byte{key: value}
	var h Head
	var onCommit []func(Tx) error
	err := v.alive(func() {
		v.closed, h, onCommit = true, v.run.head, v.onCommit
		for k, value := range v.joined {
			memos[k] = value
		}
	})
	if err != nil {
		return err
	}
	if err := v.run.eng.Journal.Save(context.Background(), &h, memos, onCommit); err != nil {
		v.run.mu.Lock()
		defer v.run.mu.Unlock()
		v.closed = v.unit.closed
		return err
	}
	v.run.mu.Lock()
	defer v.run.mu.Unlock()
	if !v.unit.closed {
		for k, value := range memos {
			v.run.memos.put(k, value)
		}
	}
	return nil
}

// Halt returns a channel that is closed when the unit should come to its end
// behind the parts in flight: because of a stop, or of a cancel or timeout that
// does not interrupt it. Why then says which; the model returns it.
func (v *Visit) Halt() <-chan struct{} {
	v.run.mu.Lock()
	defer v.run.mu.Unlock()
	u := v.unit
	if u.halt == nil {
		if u.halt = make(chan struct{}); u.asked != nil {
			close(u.halt)
		}
	}
	return u.halt
}

// Why returns why the unit should come to its end, nil if it need not.
func (v *Visit) Why() error {
	v.run.mu.Lock()
	defer v.run.mu.Unlock()
	return v.unit.asked
}

// Disarm takes the step's timeout off the attempt and returns it, 0 for none:
// for models that apply it to something else.
func (v *Visit) Disarm() (d time.Duration) {
	_ = v.alive(func() {
		if v.timeout != nil {
			v.timeout.Stop()
			d = v.run.machine.Steps[v.run.head.State].Timeout
		}
	})
	return d
}

// Timeout returns the step's timeout, 0 for none.
func (v *Visit) Timeout() (d time.Duration) {
	_ = v.alive(func() { d = v.run.machine.Steps[v.run.head.State].Timeout })
	return d
}

// Timed reports whether the attempt has a timeout of its own.
func (v *Visit) Timed() bool { return v.timeout != nil }

// Bound interrupts the unit, as its timeout would, unless stop is called within d.
func (v *Visit) Bound(d time.Duration) (stop func() bool) {
	return v.run.after(v.unit, d, errTimeout).Stop
}

// Grace is how long what was interrupted may still succeed.
func (v *Visit) Grace() time.Duration { return v.run.eng.Grace }

// Entered returns when the visit began.
func (v *Visit) Entered() time.Time { return v.run.head.Entered }

// Interrupted reports whether err is no outcome of the part's own: the unit was
// interrupted, or the scheduler stops.
func (v *Visit) Interrupted(err error) bool {
	v.run.mu.Lock()
	defer v.run.mu.Unlock()
	u := v.unit
	return u.closed || u.why != nil || u.asked != nil && errors.Is(err, u.asked)
}

// MayRetry reports whether the policy allows another attempt of a part.
func (p Retry) MayRetry(attempt int, err error) bool {
	var s *Steer
	if errors.As(err, &s) && s.Permanent || attempt >= p.Attempts {
		return false
	}
	return p.Panics || !errors.Is(err, ErrPanic)
}
