package engine

import (
	"context"
	"time"
)

// await leaves the run in the file until a signal comes, or until the run it
// calls has ended: without a goroutine, and without a due time but deadlines.
func (r *Run) await(c *Change, s *Steer) *Change {
	h := &c.After
	h.Status, h.Held, h.Suspect = Waiting, false, false
	h.Due, h.Delay, h.Awaits = time.Time{}, 0, s.Awaits
	h.Wake = earliest(s.Until, h.Deadline, h.VisitDue)
	c.Call = s.Call
	return c
}

// leaving reports whether the visit must end whatever its child does.
func (r *Run) leaving(now time.Time) bool {
	return r.cancelled() || expired(r.head.Deadline, now) || expired(r.head.VisitDue, now)
}

// recall asks the run that was called to cancel, and waits until it has rolled
// back: only then the caller may go on to its own end. A child that ended before
// the visit's deadline has won.
func (r *Run) recall(now time.Time) (*Change, error) {
	child, err := r.eng.Journal.Run(context.Background(), r.head.Child)
	if err != nil {
		return nil, err
	}
	if !child.Status.Ended() {
		c := r.change()
		c.Yields, c.Recall = true, true
		r.await(c, &Steer{})
		c.After.Wake = time.Time{} // its deadlines have passed; the child's end will wake it
		return c, nil
	}
	r.head.Child = 0
	if due := r.head.VisitDue; child.Ended.Before(due) || child.Status == Completed && child.Ended.Equal(due) {
		r.head.VisitDue, r.head.Child = time.Time{}, child.Run
		if r.leaving(now) {
			r.head.Child = 0
		}
	}
	return nil, nil
}

// Called returns the run that this visit has called, and whether it has.
func (v *Visit) Called(ctx context.Context) (h Head, called bool, err error) {
	var id int64
	if err := v.alive(func() { id = v.run.head.Child }); err != nil || id == 0 {
		return h, false, err
	}
	h, err = v.run.eng.Journal.Run(ctx, id)
	return h, true, err
}

// Depth counts the calls above the run.
func (v *Visit) Depth() int { return v.run.head.Depth }

// Take gives the visit the oldest signal of a name: its payload is the given
// memo from then on. It reports false if there is none.
func (v *Visit) Take(name, memo string) (payload []byte, found bool, err error) {
	var h Head
	if err := v.alive(func() { h = v.run.head }); err != nil {
		return nil, false, err
	}
	payload, found, err = v.run.eng.Journal.Take(context.Background(), &h, name, memo)
	if err != nil || !found {
		return nil, false, err
	}
	return payload, true, v.alive(func() { v.run.memos.put(memo, payload) })
}

// An attachment is what a visit keeps open between its units, in memory.
type attachment struct {
	value any
	close func()
}

// Attach keeps a value for the next unit of the visit. close is called when the
// visit ends, an attempt of it fails, or this goroutine's work on it ends.
func (v *Visit) Attach(value any, close func()) error {
	return v.alive(func() { v.run.attached = &attachment{value, close} })
}

// Attached returns the value that Attach has kept, nil if there is none.
func (v *Visit) Attached() (value any) {
	_ = v.alive(func() {
		if a := v.run.attached; a != nil {
			value = a.value
		}
	})
	return value
}

// detach closes what the visit has kept open.
func (r *Run) detach() {
	if a := r.attached; a != nil {
		r.attached = nil
		a.close()
	}
}

// Scope returns a context with the visit that outlives the unit in flight: for
// what is attached.
func (v *Visit) Scope() context.Context { return visitContext{v.run.base, v} }
