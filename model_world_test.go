package segno

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/store"
)

// A modelWorld does with decisions what the scheduler does, in memory, and holds
// each of them against a model that knows one slot at a time. What the file
// would have is row, skips and runs; a crash leaves nothing else.
type modelWorld struct {
	f     *flow
	spec  modelSpec
	specs []modelSpec // to change to
	now   time.Time
	fault error // the first contradiction

	row   store.Flow
	skips []store.Skip
	runs  []*modelRun // that have not ended

	// The rest is what the model knows.
	stand   modelStand
	cursor  time.Time          // the last slot on record
	highest time.Time          // slot that fired
	known   map[time.Time]bool // slots that fired, by whatever clock
	tries   map[string]bool    // slots and tries that have a run
	fired   int
	anews   int           // how often it began anew
	back    bool          // the cursor was set back once
	unseen  time.Duration // by which the clock was set back without anybody noticing
}

// A modelStand is streak, gate and trip.
type modelStand struct {
	streak     int
	tripped    bool
	set, until time.Time
	delay      time.Duration
}

var errModel = errors.New("model")

// wrong notes a contradiction.
func (w *modelWorld) wrong(format string, args ...any) {
	if w.fault == nil {
		w.fault = fmt.Errorf("%w at %s: "+format, append([]any{errModel, w.now.Format(time.RFC3339Nano)}, args...)...)
	}
}

// newModelWorld registers a flow.
func newModelWorld(f Flow, specs []modelSpec, now time.Time) (*modelWorld, error) {
	f.Schedule = specs[0].Schedule
	f.Workflow = Workflow[string, struct{}]{Initial: "done", Steps: Steps[string, struct{}]{"done": {Final: true}}}
	fl, err := newFlow(f, 0)
	if err != nil {
		return nil, err
	}
	w := &modelWorld{f: fl, spec: specs[0], specs: specs, now: now, known: map[time.Time]bool{}, tries: map[string]bool{}}
	w.row = store.Flow{ID: f.ID, Outcome: string(StatusIdle), Schedule: f.Schedule.String(), Registered: now}
	fl.firstSlot(&w.row, now)
	w.cursor = w.row.Cursor
	w.plan()
	w.settleDown()
	return w, nil
}

// plan plans the flow, and checks when it is to be looked at.
func (w *modelWorld) plan() {
	w.f.plan(&w.row, w.now)
	w.checkPlan()
}

// settleDown decides until nothing more is due.
func (w *modelWorld) settleDown() {
	for n := 0; w.fault == nil && !w.row.Next.IsZero() && !w.row.Next.After(w.now); n++ {
		retry := w.row.RetrySlot
		moved := w.apply(w.verdict())
		switch {
		case n > 0 && !moved && retry.Equal(w.row.RetrySlot):
			w.wrong("decided nothing, and is due all the same: next %v, cursor %v", w.row.Next, w.row.Cursor)
		case n > 5000:
			w.wrong("it does not come to rest")
		}
	}
}

// do performs an operation, and lets everything happen that is due then.
func (w *modelWorld) do(o modelOp) {
	if o.kind == opRace {
		w.race(modelOp{racing[o.n%len(racing)], o.n / len(racing)})
	} else {
		w.operate(o)
	}
	w.checkRecord()
	w.settleDown()
	w.checkRecord()
}

func (w *modelWorld) operate(o modelOp) {
	span := w.span(o.n)
	switch o.kind {
	case opNext:
		if w.row.Next.After(w.now) && w.row.Next.Sub(w.now) < min(400*time.Hour, 2500*w.spec.period()) {
			w.now = w.row.Next
		}
	case opTime:
		w.now = w.now.Add(span)
	case opCrash:
		w.now = w.now.Add(span)
		w.restart(w.spec)
	case opLost:
		w.verdict() // which is not committed
		w.restart(w.spec)
	case opSpec:
		w.restart(w.specs[o.n%len(w.specs)])
	case opEnd:
		w.end(o.n, engine.Completed)
	case opFails:
		w.end(o.n/8, failures[o.n%len(failures)])
	case opTrigger:
		w.trigger(o.n%3 == 0)
	case opCancel:
		w.cancel()
	case opPause:
		w.pause(o.n%2 == 0, span)
	case opResume:
		w.resume(o.n%2 == 0)
	case opReset:
		w.reset()
		w.plan()
	case opSkip:
		w.skip(1 + o.n%4)
	case opClock:
		w.step([]time.Duration{-time.Second, -3 * time.Second, -time.Hour, -30 * time.Hour, 5 * time.Minute, 30 * time.Hour}[o.n%6])
	case opUnstick:
		w.unstick(o.n)
	}
}

// span returns a time that may pass: one in which the schedule has no more
// slots than can be looked at one by one.
func (w *modelWorld) span(n int) time.Duration {
	spans := []time.Duration{
		time.Microsecond, time.Millisecond, time.Second, time.Second + time.Microsecond, 3 * time.Second,
		time.Minute, 100 * time.Minute, 26 * time.Hour, 100 * time.Hour,
	}
	return min(spans[n%len(spans)], 2500*w.spec.period())
}

// race lets something happen between a verdict and its commit.
func (w *modelWorld) race(o modelOp) {
	v := w.verdict()
	w.operate(o)
	if v.stale(&w.row) {
		w.plan()
		return
	}
	w.checkVerdict(&v) // it must be right for the row as it is now
	w.apply(v)
}

// verdict is what the dispatcher would act on now.
func (w *modelWorld) verdict() verdict {
	v := w.f.verdict(&w.row, w.skips, w.now)
	w.checkVerdict(&v)
	return v
}

// apply does what its namesake does. It reports whether the cursor has moved.
func (w *modelWorld) apply(v verdict) (moved bool) {
	if v.resume {
		w.row.EndPause()
	}
	if moved = !v.upto.Equal(w.row.Cursor); moved {
		w.row.RetrySlot, w.row.RetryTry = time.Time{}, 0
	}
	w.row.Cursor = v.upto
	if w.spec.kind == fixedDelay && len(v.decisions) > 0 {
		w.row.Next = time.Time{}
	}
	var batch, missed []decision
	for _, d := range v.decisions {
		switch d.outcome {
		case coalesced:
			missed = append(missed, d)
		case fired:
			batch = append(batch, w.fire(d, missed)...)
			missed = nil
		default:
			batch = append(batch, d)
		}
	}
	if len(missed) > 0 {
		w.wrong("coalesced slots belong to no run: %v", missed)
	}
	slices.SortFunc(batch, func(a, b decision) int { return a.first.Compare(b.first) })
	for _, d := range batch {
		w.record(d)
	}
	w.unmark()
	if v.retry {
		w.again()
	}
	w.plan()
	return moved
}
