package segnotest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/segnodev/segno"
)

// A Recorder is a segno.Observer that keeps every event, for a test to look at:
// put it into Options.Observers. The zero value is ready. All that a run has to
// tell is recorded when a Wait for it returns.
type Recorder struct {
	mu     sync.Mutex // guards what follows
	events []segno.Event
}

// Observe records an event.
func (r *Recorder) Observe(_ context.Context, e segno.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// Events returns what is recorded, in the order in which it came.
func (r *Recorder) Events() []segno.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Take returns what is recorded, and forgets it.
func (r *Recorder) Take() []segno.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.events
	r.events = nil
	return taken
}

// Clear forgets what is recorded.
func (r *Recorder) Clear() { r.Take() }

// Of returns a recorder of its own with what is recorded of one run.
func (r *Recorder) Of(run segno.RunID) *Recorder {
	return r.only(func(e *segno.Event) bool { return e.Run == run })
}

// Kind returns the events of one kind.
func (r *Recorder) Kind(kind segno.EventKind) []segno.Event {
	return r.only(func(e *segno.Event) bool { return e.Kind == kind }).events
}

func (r *Recorder) only(wanted func(*segno.Event) bool) *Recorder {
	some := new(Recorder)
	for _, e := range r.Events() {
		if wanted(&e) {
			some.events = append(some.events, e)
		}
	}
	return some
}

// States returns the states that were entered, in order, the final one included.
func (r *Recorder) States() []string {
	var states []string
	for _, e := range r.Kind(segno.EventStateEntered) {
		states = append(states, e.State)
	}
	return states
}

// CompletedWith fails the test unless a run has completed in the given state,
// and no run has ended in another way.
func CompletedWith[S segno.State](t testing.TB, r *Recorder, state S) {
	t.Helper()
	ends := r.Kind(segno.EventRunFinished)
	if len(ends) == 0 {
		t.Errorf("no run has ended, want one completed in %q", state)
	}
	for _, e := range ends {
		if e.Status != segno.RunCompleted || e.State != string(state) {
			t.Errorf("the end of run %d: got = %s in %q (%v), want completed in %q", e.Run, e.Status, e.State, e.Err, state)
		}
	}
}

// Path fails the test unless exactly these states were entered, in this order,
// the final one included. If more than one run is recorded, use Recorder.Of.
func Path[S segno.State](t testing.TB, r *Recorder, states ...S) {
	t.Helper()
	var want []string
	for _, s := range states {
		want = append(want, string(s))
	}
	if got := r.States(); !slices.Equal(got, want) {
		t.Errorf("path: got = %q, want %q", got, want)
	}
}

// Entered fails the test unless each of the states was entered at least once.
func Entered[S segno.State](t testing.TB, r *Recorder, states ...S) {
	t.Helper()
	if missing := missing(r, states); len(missing) > 0 {
		t.Errorf("states never entered: got = %q, want none", missing)
	}
}

// missing returns the states that were never entered, in the order given.
func missing[S segno.State](r *Recorder, states []S) []S {
	entered := r.States()
	var missing []S
	for _, s := range states {
		if !slices.Contains(entered, string(s)) && !slices.Contains(missing, s) {
			missing = append(missing, s)
		}
	}
	return missing
}

// Covered fails the test unless each state of the workflow that is not final
// was entered at least once, by whichever run.
func Covered[S segno.State, D any](t testing.TB, r *Recorder, w segno.Workflow[S, D]) {
	t.Helper()
	var states []S
	for s, step := range w.Steps {
		if !step.Final {
			states = append(states, s)
		}
	}
	slices.Sort(states)
	if missing := missing(r, states); len(missing) > 0 {
		t.Errorf("states of the workflow never entered: got = %q, want none", missing)
	}
}
