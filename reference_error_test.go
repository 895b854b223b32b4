package segno_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// referenceError are the rows of the tasks' groups E and K: errors of runs, and
// what outlives a process.
func referenceError() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"E01_err_wrap": inRow(func(t *testing.T, b *bed) {
			r := b.start(flowOf("f", line(new(tally), fail, to(done))))
			id := r.trigger("f", cargo{})
			e := r.ended(id, segno.RunFailed)
			expect(t, "Flow, Run, State, Attempt, Path", fmt.Sprint(e.Flow, e.Run, e.State, e.Attempt, e.Path), fmt.Sprint("f", id, "b", 1, []string{"a", "b"}))
			expect(t, "Err", e.Err.Error(), errTest.Error())
			expect(t, "the text", contains(e.Error(), "run 1 of f", "in b", "attempt 1", "a → b", errTest.Error()), true)
		}),
		"E02_err_nested": inRow(func(t *testing.T, b *bed) { // the inner error is kept as text, the outer one has its own context
			var r *live
			r = b.start(
				flowOf("inner", line(new(tally), fail, to(done))),
				flowOf("outer", one(func(ctx context.Context, _ *cargo) (leg, error) {
					id, err := r.Trigger(ctx, "inner", segno.Trigger{})
					if err == nil {
						_, err = r.WaitRun(ctx, id)
					}
					return "", err
				})),
			)
			e := r.ended(r.trigger("outer", cargo{}), segno.RunFailed)
			expect(t, "outer", fmt.Sprint(e.Flow, e.State, e.Path), "outera[a]")
			expect(t, "Err has the inner context", contains(e.Err.Error(), "of inner", "in b", "a → b", errTest.Error()), true)
			expect(t, "wrapped once", strings.Count(e.Error(), "of outer"), 1)
		}),
		"E03_err_comp_failed": inRow(func(t *testing.T, b *bed) {
			bad := func(context.Context, cargo) error { return fmt.Errorf("refused: %w", context.DeadlineExceeded) }
			w := saga(3, new(tally), fail)
			for _, name := range []leg{"s1", "s3"} {
				change(w, name, func(s *segno.Step[leg, cargo]) { s.Undo = bad })
			}
			r := b.start(flowOf("f", w))
			id := r.trigger("f", cargo{})
			e := r.ended(id, segno.RunUndoFailed)
			list := e.Unwrap()
			expect(t, "errors: the cause, then the undos in their order", fmt.Sprint(list[0], "|", list[1], "|", list[2]),
				"test: went wrong|undo of s3: refused: context deadline exceeded|undo of s1: refused: context deadline exceeded")
			expectError(t, "an undo's error is found", e, context.DeadlineExceeded)
		}),
		"E04_err_category": inRow(func(t *testing.T, b *bed) {
			r := b.start(flowOf("cancelled", one(hold)), flowOf("exhausted", oneStep(segno.Step[leg, cargo]{Do: fail, Retry: segno.Fixed(3, time.Millisecond)})))
			id := r.trigger("cancelled", cargo{})
			synctest.Wait()
			expectError(t, "CancelRun", r.CancelRun(context.Background(), id), nil)
			info, err := r.WaitRun(context.Background(), id)
			expectError(t, "WaitRun", err, context.Canceled)
			expect(t, "Cause of a cancelled run", info.Cause, "cancelled")
			var e *segno.RunError
			expect(t, "the outer error is a RunError", errors.As(err, &e), true)
			e = r.ended(r.trigger("exhausted", cargo{}), segno.RunFailed)
			expect(t, "Attempt of an exhausted one", e.Attempt, 3)
			expect(t, "Cause of an exhausted one", r.info(e.Run).Cause, "error")
			if errors.Is(e, context.Canceled) {
				t.Errorf("the exhausted run: got %v, want it not to be %v", e, context.Canceled)
			}
		}),
		"E05_err_roundtrip": inRow(referenceRoundTrip),
		"K02_lease_fence": inRow(func(t *testing.T, b *bed) { // the lock is deleted under a process that is paused
			var said tally
			gate := make(chan struct{})
			f := flowOf("f", line(&said, func(ctx context.Context, _ *cargo) (leg, error) {
				if said.len() == 2 {
					<-gate
				}
				return legC, nil
			}, to(done)))
			first := b.start(f)
			id := first.trigger("f", cargo{})
			synctest.Wait()
			expectError(t, "deleting the lock", os.Remove(b.path+".lock"), nil)
			second := b.start(f)
			second.completed(id)
			before := fmt.Sprint(second.entries(id), second.info(id))
			close(gate) // the paused process comes back, and its step succeeds
			expectError(t, "Wait of the first", first.Wait(), segno.ErrFenced)
			_, err := first.Trigger(context.Background(), "f", segno.Trigger{})
			expectError(t, "Trigger of the first", err, segno.ErrFenced)
			expect(t, "run and history", fmt.Sprint(second.entries(id), second.info(id)), before)
			expect(t, "log", second.log(id), "enter a, enter b, crash b, enter c, end done")
			expect(t, "steps called", said.String(), "a b b c")
		}),
		"K03_deadline_restart": inRow(func(t *testing.T, b *bed) {
			w := change(saga(1, new(tally), hold), "s1", func(s *segno.Step[leg, cargo]) {
				s.Undo = func(ctx context.Context, _ cargo) error { <-ctx.Done(); return ctx.Err() }
			})
			w.Timeout, w.UndoTimeout = time.Minute, 5*time.Second
			begin := time.Now()
			id := b.start(flowOf("f", w)).trigger("f", cargo{})
			time.Sleep(50 * time.Second)
			b.kill()
			r := b.start(flowOf("f", w))
			e := r.ended(id, segno.RunUndoFailed)
			expectError(t, "Err", e.Err, context.DeadlineExceeded)
			expect(t, "took: the rest of the minute, and 5 s for the rollback", time.Since(begin), 65*time.Second)
		}),
		"K04_cancel_persisted": inRow(func(t *testing.T, b *bed) {
			var said tally
			id := interrupted(b, line(&said, hold, to(done)))
			said.take()
			b.exec("UPDATE _segno_run SET cancel = 1 WHERE run = ?", id) // what a request from outside leaves
			r := b.start(flowOf("f", line(&said, to(legC), to(done))))
			r.ended(id, segno.RunCancelled)
			expect(t, "steps called", said.String(), "")
			expect(t, "log", r.log(id), "enter a, enter b, crash b, end b")
		}),
		"K05_resume_precancelled": inRow(func(t *testing.T, b *bed) {
			var said tally
			f := flowOf("f", line(&said, deaf(time.Second, legC, nil), to(done)))
			r := b.start(f)
			id := r.trigger("f", cargo{})
			synctest.Wait()
			expectError(t, "CancelRun", r.CancelRun(context.Background(), id), nil)
			b.kill() // before the step has heard of it
			r = b.start(f)
			e := r.ended(id, segno.RunCancelled)
			expectError(t, "Err", e.Err, context.Canceled)
			expect(t, "steps called", said.String(), "a b")
			expect(t, "log", r.log(id), "enter a, enter b, crash b, end b")
		}),
	}
}

// referenceRoundTrip makes a run fail in every way, and compares its error with
// the one that is read back after a restart.
func referenceRoundTrip(t *testing.T, b *bed) {
	b.opts.MaxData, b.opts.MaxCrashes = 1000, 1
	loud := func(_ context.Context, c *cargo) (leg, error) { c.Text = strings.Repeat("x", 1001); return done, nil }
	refund := saga(1, new(tally), fail)
	change(refund, "s1", func(s *segno.Step[leg, cargo]) { s.Undo = func(context.Context, cargo) error { panic("refund") } })
	late := one(hold)
	late.Timeout = time.Second
	ways := map[string]route{
		"error":   line(new(tally), fail, to(done)),
		"panic":   one(func(context.Context, *cargo) (leg, error) { panic("boom") }),
		"unknown": one(to("mars")), "route": oneStep(segno.Step[leg, cargo]{Do: to(legA), Next: []leg{done}}),
		"attempt timeout": oneStep(segno.Step[leg, cargo]{Do: hold, Timeout: time.Second}), "run timeout": late,
		"too large": one(loud), "undo": refund, "cancel": one(segno.Sleep[cargo](time.Hour, done)), "crash": one(hold),
	}
	want := map[string]error{
		"panic": segno.ErrPanic, "unknown": segno.ErrUnknownState, "route": segno.ErrTransition, "attempt timeout": context.DeadlineExceeded,
		"run timeout": context.DeadlineExceeded, "undo": segno.ErrPanic, "cancel": context.Canceled, "crash": segno.ErrCrashLoop,
	}
	var flows []segno.Flow
	for name, w := range ways {
		flows = append(flows, flowOf(name, w))
	}
	ids := map[string]segno.RunID{}
	r := b.start(flows...)
	for name := range ways {
		ids[name] = r.trigger(name, cargo{})
	}
	expectError(t, "CancelRun", r.CancelRun(context.Background(), ids["cancel"]), nil)
	time.Sleep(10 * time.Second)
	before := map[string]error{}
	for name, id := range ids {
		if name != "crash" {
			_, before[name] = r.WaitRun(context.Background(), id)
		}
	}
	r = b.restart(flows...) // the one that still runs dies with the process
	_, before["crash"] = r.WaitRun(context.Background(), ids["crash"])
	b.stop()
	r = b.start(flows...)
	for name, id := range ids {
		_, after := r.WaitRun(context.Background(), id)
		expect(t, name+": the text", after.Error(), before[name].Error())
		expect(t, name+": all fields", fmt.Sprintf("%+v", after), fmt.Sprintf("%+v", before[name]))
		for _, kind := range want {
			expect(t, fmt.Sprintf("%s: is it %q", name, kind), errors.Is(after, kind), kind == want[name])
		}
	}
}
