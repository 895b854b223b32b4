package engine

import (
	"context"
	"time"
)

// Info is what a step may know of its visit.
type Info struct {
	Flow        string
	Run         int64
	State       string
	Visit       int
	Attempt     int
	Polls       int
	Slot        time.Time
	Missed      int
	FirstMissed time.Time
	Key         string
	UndoOf      string
	Uncertain   bool
	Unit        string // of a part: its name within the visit

	nonce string
}

// info describes the current visit.
func (r *Run) info() Info {
	h := &r.head
	return Info{
		Flow: h.Flow, Run: h.Run, State: h.State, Visit: h.Visit, Attempt: h.Attempt, Polls: h.Polls,
		Slot: h.Slot, Missed: h.Missed, FirstMissed: h.FirstMissed,
		Uncertain: h.Uncertain, nonce: h.Nonce,
	}
}

// A Visit is what a step's context leads to: its handle on the run. Every
// method returns ErrEnded once the attempt is over.
type Visit struct {
	run      *Run
	unit     *unit
	info     Info
	scope    string      // before the keys of a part's memos
	closed   bool        // of a part: it is settled
	timeout  *time.Timer // of the attempt
	onCommit []func(Tx) error
	joined   map[string][]byte // memos that join the unit's commit
}

type visitKey struct{}

// visitContext carries a visit without a second allocation.
type visitContext struct {
	context.Context
	visit *Visit
}

// Value returns the visit for the package's own key.
func (c visitContext) Value(key any) any {
	if key == (visitKey{}) {
		return c.visit
	}
	return c.Context.Value(key)
}

// VisitFrom returns the visit that ctx belongs to, or nil.
func VisitFrom(ctx context.Context) *Visit {
	v, _ := ctx.Value(visitKey{}).(*Visit)
	return v
}

// Info returns what the step may know.
func (v *Visit) Info() Info {
	in := v.info
	in.Key = visitKeyOf(in.nonce, in.Visit, in.State)
	if in.Unit != "" {
		in.Key += "/" + in.Unit
	}
	if v.unit.undoing {
		in.Key, in.UndoOf = in.Key+"/undo", in.Key
	}
	return in
}

// alive runs fn while the attempt is certain to be in flight.
func (v *Visit) alive(fn func()) error {
	v.run.mu.Lock()
	defer v.run.mu.Unlock()
	if v.unit.closed || v.closed {
		return ErrEnded
	}
	fn()
	return nil
}

// OnCommit joins fn to the commit that settles the unit.
func (v *Visit) OnCommit(fn func(Tx) error) error {
	return v.alive(func() { v.onCommit = append(v.onCommit, fn) })
}

// JoinMemo writes a memo with the commit that settles the unit.
func (v *Visit) JoinMemo(key string, value []byte) error {
	return v.alive(func() {
		if v.joined == nil {
			v.joined = map[string][]byte{}
		}
		v.joined[v.scope+key] = value
	})
}

// SaveMemo writes a memo at once.
func (v *Visit) SaveMemo(ctx context.Context, key string, value []byte) error {
	var h Head
	if err := v.alive(func() { h = v.run.head }); err != nil {
		return err
	}
	if err := v.run.eng.Journal.Save(ctx, &h, map[string][]byte{v.scope + key: value}, nil); err != nil {
		return err
	}
	return v.alive(func() { v.run.memos.put(v.scope+key, value) })
}

// LoadMemo returns a memo of the visit.
func (v *Visit) LoadMemo(ctx context.Context, key string) (value []byte, found bool, err error) {
	key = v.scope + key
	var h Head
	known := false
	err = v.alive(func() {
		h, known = v.run.head, v.run.memos.known
		value, found = v.run.memos.values[key]
		if joined, ok := v.joined[key]; ok {
			value, found = joined, true
		}
	})
	if err != nil || known || found {
		return value, found, err
	}
	values, err := v.run.eng.Journal.Memos(ctx, &h)
	if err != nil {
		return nil, false, err
	}
	err = v.alive(func() {
		m := &v.run.memos
		for k, value := range values {
			if _, newer := m.values[k]; !newer {
				m.put(k, value)
			}
		}
		m.known = true
		value, found = m.values[key]
	})
	return value, found, err
}

// memos are those of the current visit, as far as they are known here.
type memos struct {
	known  bool // values are all there are
	some   bool // there are some in the file
	values map[string][]byte
}

// put notes a memo that was written.
func (m *memos) put(key string, value []byte) {
	if m.values == nil {
		m.values = map[string][]byte{}
	}
	m.values[key], m.some = value, true
}

// OwnTimeout makes the step's timeout that of the whole visit, as an absolute
// deadline: for steps that wait.
func (v *Visit) OwnTimeout() error {
	return v.alive(func() {
		r := v.run
		step := r.machine.Steps[r.head.State]
		if step == nil || step.Timeout <= 0 || v.timeout == nil {
			return
		}
		v.timeout.Stop()
		if r.head.VisitDue.IsZero() {
			r.head.VisitDue = r.head.Entered.Add(step.Timeout)
		}
		u := v.unit
		u.timers = append(u.timers, time.AfterFunc(r.head.VisitDue.Sub(r.eng.Now()), func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.offer(u, errVisitDue)
		}))
	})
}

// Now returns the time by the engine's clock.
func (v *Visit) Now() time.Time { return v.run.eng.Now() }
