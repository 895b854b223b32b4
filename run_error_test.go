package segno_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// What a run comes to depends on why it stops, and on what its undos come to.
func TestHowARunEndsByItsCauseAndItsUndos(t *testing.T) {
	causes := []struct {
		name   string
		do     do
		err    error
		status segno.RunStatus // if every undo succeeds
	}{
		{"error", fail, nil, segno.RunFailed},
		{"panic", func(context.Context, *cargo) (leg, error) { panic("no") }, segno.ErrPanic, segno.RunFailed},
		{"unknown state", to("mars"), segno.ErrUnknownState, segno.RunFailed},
		{"transition", to(legA), segno.ErrTransition, segno.RunFailed},
		{"run timeout", hold, context.DeadlineExceeded, segno.RunFailed},
		{"cancel", hold, context.Canceled, segno.RunCancelled},
	}
	undos := []struct {
		name   string
		undo   func(context.Context, cargo) error
		failed int
	}{
		{"nothing to undo", nil, 0},
		{"a good undo", func(context.Context, cargo) error { return nil }, 0},
		{"a bad undo", func(context.Context, cargo) error { return errTest }, 1},
	}
	for _, cause := range causes {
		for _, undo := range undos {
			t.Run(cause.name+", "+undo.name, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					w := route{Initial: legA, Timeout: time.Hour, Steps: legs{
						legA: {Do: to(legB), Undo: undo.undo},
						legB: {Do: cause.do},
						done: {Final: true},
					}}
					if cause.name == "transition" {
						change(w, legB, func(s *segno.Step[leg, cargo]) { s.Next = []leg{done} })
					}
					b := newBed(t)
					r := b.start(flowOf("f", w))
					id := r.trigger("f", cargo{})
					synctest.Wait()
					if cause.name == "cancel" {
						expectError(t, "CancelRun", r.CancelRun(context.Background(), id), nil)
					}
					want, flow, streak := cause.status, segno.StatusBackoff, 1
					if undo.failed > 0 {
						want = segno.RunUndoFailed
					}
					if want == segno.RunCancelled {
						flow, streak = segno.StatusIdle, 0
					}
					for range 2 { // before and behind a restart
						e := r.ended(id, want)
						expect(t, "failed undos", len(e.Undo), undo.failed)
						expect(t, "State, Path and Attempt", fmt.Sprint(e.State, e.Path, e.Attempt), "b[a b] 1")
						if cause.err != nil {
							expectError(t, "Err", e.Err, cause.err)
						}
						expect(t, "flow", fmt.Sprint(r.status("f").Status, r.status("f").FailureStreak), fmt.Sprint(flow, streak))
						r = b.restart(flowOf("f", w))
					}
				})
			})
		}
	}
}

func TestARepeatedRollbackLeavesTheErrorAsItWas(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		broken := true
		w := change(saga(2, &said, fail), "s2", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(context.Context, cargo) error {
				if broken {
					return errTest
				}
				return nil
			}
		})
		change(w, "s3", func(s *segno.Step[leg, cargo]) { s.Retry = segno.Fixed(4, time.Millisecond) })
		r := newBed(t).start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		for _, status := range []segno.RunStatus{segno.RunUndoFailed, segno.RunFailed} {
			e := r.ended(id, status)
			expect(t, "State, Path, Attempt and Err", fmt.Sprint(e.State, e.Path, e.Attempt, e.Err), "s3[s1 s2 s3] 4 test: went wrong")
			if broken = false; status == segno.RunUndoFailed {
				expectError(t, "UndoRun", r.UndoRun(context.Background(), id), nil)
			}
		}
	})
}

func TestTheTextOfALongLoopsErrorIsShort(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := one(func(_ context.Context, c *cargo) (leg, error) {
			if c.N++; c.N == 100 {
				return "", errTest
			}
			return legA, nil
		})
		r := newBed(t).start(flowOf("f", w))
		e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "Path", len(e.Path), 100)
		expect(t, "states in the text", strings.Count(e.Error(), "→"), 16)
		expect(t, "the text says so", strings.Contains(e.Error(), "… 84 more …"), true)
		short := &segno.RunError{Path: []string{"a", "b", "c"}, Err: errTest}
		expect(t, "the text has a short path", strings.Contains(short.Error(), "path a → b → c)"), true)
	})
}

// misrouted is a saga whose second step succeeds and returns what the workflow
// does not allow.
func misrouted(said *tally, next leg) route {
	return change(change(saga(2, said, fail), "s2", func(s *segno.Step[leg, cargo]) {
		s.Next = []leg{"s3"}
		s.Do = func(ctx context.Context, c *cargo) (leg, error) { c.N++; return next, tell(ctx, "did") }
	}), "s3", func(s *segno.Step[leg, cargo]) { s.Undo = nil })
}

func TestAStepThatMayNotGoWhereItWantsIsUndone(t *testing.T) {
	for name, next := range map[string]leg{"unknown state": "mars", "not in Next": "s1", "final, not in Next": done} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var said tally
				r := newBed(t).with(segno.Options{Schema: toldSchema}).start(flowOf("f", misrouted(&said, next)))
				id := r.trigger("f", cargo{})
				e := r.ended(id, segno.RunFailed)
				expect(t, "undone, with the data that Do left", said.String(), "s2:2 s1:1")
				expect(t, "its OnCommit", r.told(), "did")
				expect(t, "State", e.State, "s2")
				expect(t, "the error names an uncertain visit", strings.Contains(e.Error(), "unknown, and"), false)
				expect(t, "log", r.log(id), "enter s1, enter s2, rollback s2, undone s2, undone s1, end s2")
			})
		})
	}
}

func TestAnOnCommitThatFailsWithAWrongTransitionFailsTheAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		w := change(misrouted(&said, "mars"), "s2", func(s *segno.Step[leg, cargo]) {
			s.Do = func(ctx context.Context, c *cargo) (leg, error) {
				c.N = 99
				return "mars", segno.OnCommit(ctx, func(segno.Tx) error { return errTest })
			}
		})
		r := newBed(t).start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		e := r.ended(id, segno.RunFailed)
		expect(t, "Err", e.Err.Error(), "on commit: test: went wrong")
		expect(t, "undone", said.String(), "s1:1")
		expect(t, "data", string(r.info(id).Data), `{"n":1}`)
	})
}

func TestAStepWhoseDataCannotBeKeptIsUncertain(t *testing.T) {
	for name, c := range map[string]struct {
		do  do
		err string
	}{
		"too large":         {func(_ context.Context, c *cargo) (leg, error) { c.Text = strings.Repeat("x", 200); return done, nil }, "MaxData"},
		"too large, astray": {func(_ context.Context, c *cargo) (leg, error) { c.Text = strings.Repeat("x", 200); return "mars", nil }, "MaxData"},
		"too large, snooze": {func(_ context.Context, c *cargo) (leg, error) {
			c.Text = strings.Repeat("x", 200)
			return "", segno.Snooze(time.Hour)
		}, "MaxData"},
	} {
		for _, undoUncertain := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s %v", name, undoUncertain), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					var said tally
					b := newBed(t).with(segno.Options{MaxData: 100})
					r := b.start(flowOf("f", uncertain(&said, c.do, undoUncertain, 0)))
					e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
					want := "s1:1"
					if undoUncertain {
						want = "s2:1:true:2 s1:1"
					}
					expect(t, "undone, with the data at the visit's entry", said.String(), want)
					expect(t, "the text says why", strings.Contains(e.Error(), c.err), true)
					expect(t, "the error names the visit", strings.Contains(e.Error(), "s2, visit 2"), !undoUncertain)
				})
			})
		}
	}
}

func TestUndoTimeoutAddsUpOverTheWaitsOfARollback(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		var said tally
		w := change(saga(2, &said, fail), "s2", func(step *segno.Step[leg, cargo]) {
			step.UndoRetry = plain(9, time.Hour) // parked in between
			step.UndoRetry.Multiplier = 1
			step.Undo = func(ctx context.Context, _ cargo) error {
				s.note(ctx)
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(20 * time.Second):
					return errTest
				}
			}
		})
		w.UndoTimeout = 50 * time.Second
		r := newBed(t).start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		e := r.ended(id, segno.RunUndoFailed)
		expect(t, "attempts: 20 s, 20 s, 10 s", s.numbers(), "[1 2 3]")
		expect(t, "failed undos", len(e.Undo), 2)
		for _, undo := range e.Undo {
			expectError(t, "the failed undo", undo, context.DeadlineExceeded)
		}
		again := time.Now()
		expectError(t, "UndoRun", r.UndoRun(context.Background(), id), nil)
		r.ended(id, segno.RunUndoFailed)
		expect(t, "a repeated rollback has its own time", time.Since(again) > 2*time.Hour, true)
	})
}

func TestAnOrphanedUndoHasItsDataInTheHistory(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		b := newBed(t)
		alive := true
		id := interrupted(b, saga(2, &said, hold))
		w := saga(2, &said, fail)
		delete(w.Steps, "s2")
		r := b.start(flowOf("f", w))
		for range 2 {
			e := r.ended(id, segno.RunUndoFailed)
			if len(e.Undo) != 1 || !errors.Is(e.Undo[0], segno.ErrOrphanedUndo) {
				t.Fatalf("failed undos: got = %v, want that of s2", e.Undo)
			}
			expect(t, "it names state and visit", contains(e.Undo[0].Error(), `"s2"`, "visit 2"), true)
			for _, entry := range r.entries(id) {
				if entry.Kind == "undo_failed" {
					expect(t, "state and data", entry.State+string(entry.Data), `s2{"n":2}`)
				}
			}
			if alive {
				alive = false
				expectError(t, "UndoRun", r.UndoRun(context.Background(), id), nil)
			}
		}
		r = b.restart(flowOf("f", saga(2, &said, fail)))
		expectError(t, "UndoRun with the code back", r.UndoRun(context.Background(), id), nil)
		r.ended(id, segno.RunFailed)
		expect(t, "undone", said.String(), "s1:1 s2:2")
	})
}
