package segno_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// inTime makes a row of the reference that runs in fake time.
func inTime(test func(t *testing.T)) func(*testing.T) {
	return func(t *testing.T) { inBubble(t, test) }
}

// allInTime makes rows that run in fake time of all of them.
func allInTime(rows scenarios) scenarios {
	all := scenarios{}
	for name, test := range rows {
		all[name] = inTime(test)
	}
	return all
}

// atOnce makes a row of the reference that needs no time and no file.
func atOnce(test func(t *testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		t.Parallel()
		test(t)
	}
}

// builder is a scheduler that is never started.
func builder() *segno.Scheduler { return segno.New("never-opened.db", segno.Options{}) }

// startOne starts one flow f, which is manual, on a file of its own.
func startOne(t *testing.T, w segno.Definition) *live {
	t.Helper()
	return newBed(t).start(flowOf("f", w))
}

// startPolicy starts one manual flow f with a backoff policy.
func startPolicy(t *testing.T, w segno.Definition, p segno.BackoffPolicy) *live {
	t.Helper()
	return newBed(t).start(segno.Flow{ID: "f", Workflow: w, Backoff: p})
}

// startAt starts one flow f with a schedule.
func startAt(t *testing.T, w segno.Definition, s segno.Schedule) *live {
	t.Helper()
	return newBed(t).start(segno.Flow{ID: "f", Workflow: w, Schedule: s})
}

// after lets time pass, and everything come to rest.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// begun triggers flow f and returns when its run has come to rest.
func (l *live) begun() segno.RunID {
	l.t.Helper()
	id := l.trigger("f", cargo{})
	synctest.Wait()
	return id
}

// fails runs flow f, which must fail.
func (l *live) fails() *segno.RunError {
	l.t.Helper()
	return l.ended(l.trigger("f", cargo{}), segno.RunFailed)
}

// reset resets flow f.
func (l *live) reset() {
	l.t.Helper()
	if err := l.ResetFlow(context.Background(), "f"); err != nil {
		l.t.Fatalf("ResetFlow: got error %v, want none", err)
	}
}

// cancelFlow cancels flow f.
func (l *live) cancelFlow() {
	l.t.Helper()
	if err := l.CancelFlow(context.Background(), "f"); err != nil {
		l.t.Fatalf("CancelFlow: got error %v, want none", err)
	}
}

// stands asserts how flow f stands.
func (l *live) stands(want segno.Status, runs int64, streak int) {
	l.t.Helper()
	info := l.status("f")
	expect(l.t, "status", info.Status, want)
	expect(l.t, "run count", info.RunCount, runs)
	expect(l.t, "streak", info.FailureStreak, streak)
}

// counting is a step that notes its calls and does what do does.
func (s *tries) counting(f do) do {
	return func(ctx context.Context, c *cargo) (leg, error) {
		s.note(ctx)
		return f(ctx, c)
	}
}

// rest takes d, unless its context ends, and tells of its beginning and its end.
func rest(ctx context.Context, said *tally, d time.Duration) error {
	said.add("begin")
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		said.add("end")
		return nil
	}
}

// resting is a step that rests for d.
func resting(said *tally, d time.Duration) do {
	return func(ctx context.Context, _ *cargo) (leg, error) { return done, rest(ctx, said, d) }
}

// dirty makes the undo of a step fail.
func dirty(w route, name leg) route {
	return change(w, name, func(s *segno.Step[leg, cargo]) {
		s.Undo = func(context.Context, cargo) error { return errTest }
	})
}
