package segno_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// cancel asks for the end of a run.
func (l *live) cancel(id segno.RunID) {
	l.t.Helper()
	if err := l.CancelRun(context.Background(), id); err != nil {
		l.t.Fatalf("CancelRun(%d): got error %v, want none", id, err)
	}
}

func TestACancelledRunRollsBackAndLeavesTheStreakAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		f := segno.Flow{ID: "f", Workflow: saga(2, &said, hold), Backoff: segno.BackoffPolicy{StreakLimit: 1}}
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		begin := time.Now()
		r.cancel(id)
		e := r.ended(id, segno.RunCancelled)
		expect(t, "took", time.Since(begin), 0)
		expectError(t, "the run", e, context.Canceled)
		expect(t, "State", e.State, "s3")
		expect(t, "undone", said.String(), "s2:2 s1:1")
		expect(t, "log", r.log(id), "enter s1, enter s2, enter s3, rollback s3, undone s2, undone s1, end s3")
		expect(t, "streak", r.status("f").FailureStreak, 0)
		expect(t, "status", r.status("f").Status, segno.StatusIdle)
		expectError(t, "a cancel of an ended run", r.CancelRun(context.Background(), id), segno.ErrEnded)
		expectError(t, "a cancel of an unknown run", r.CancelRun(context.Background(), 999), segno.ErrNotFound)
		r = b.restart(f)
		expectError(t, "the run after a restart", r.ended(id, segno.RunCancelled), context.Canceled)
		if e := r.ended(id, segno.RunCancelled); errors.Is(e, context.DeadlineExceeded) {
			t.Errorf("the run after a restart: got %v, want it not to be %v", e, context.DeadlineExceeded)
		}
	})
}

func TestACancelRightAfterTheTriggerIsNotLost(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		r := b.start(segno.Flow{ID: "f", Workflow: one(hold), Overlap: segno.Allow(0)})
		for range 50 {
			id := r.trigger("f", cargo{})
			r.cancel(id)
			r.ended(id, segno.RunCancelled)
		}
	})
}

func TestASecondCancelIsTheFirst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		r := newBed(t).start(flowOf("f", change(saga(1, &said, hold), "s1", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(ctx context.Context, _ cargo) error {
				time.Sleep(5 * time.Second)
				said.add("undone %v", ctx.Err())
				return nil
			}
		})))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r.cancel(id)
		r.cancel(id)
		synctest.Wait()
		r.cancel(id) // the rollback itself cannot be cancelled
		expect(t, "the cancel is seen", r.info(id).Cancel, true)
		r.ended(id, segno.RunCancelled)
		expect(t, "undos", said.String(), "undone <nil>")
	})
}

func TestADirtyCancelIsAFailure(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		f := flowOf("f", change(saga(1, &said, hold), "s1", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(context.Context, cargo) error { return errTest }
		}))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r.cancel(id)
		e := r.ended(id, segno.RunUndoFailed)
		expectError(t, "the run", e, context.Canceled)
		expect(t, "failed undos", len(e.Undo), 1)
		expect(t, "status", r.status("f").Status, segno.StatusBackoff)
		expect(t, "streak", r.status("f").FailureStreak, 1)
	})
}

func TestACancelFindsARunWhereverItIs(t *testing.T) {
	poll := segno.Poll(func(context.Context, *cargo) (leg, time.Duration, error) { return "", time.Hour, nil })
	quick := segno.Poll(func(context.Context, *cargo) (leg, time.Duration, error) { return "", 10 * time.Millisecond, nil })
	for name, c := range map[string]struct {
		w      route
		status segno.RunStatus
	}{
		"in its step":          {one(hold), segno.RunRunning},
		"in a long retry wait": {oneStep(segno.Step[leg, cargo]{Do: fail, Retry: plain(2, time.Hour)}), segno.RunParked},
		"in a short retry wait": {oneStep(segno.Step[leg, cargo]{
			Do: fail, Retry: plain(2, time.Second-time.Millisecond),
		}), segno.RunRunning},
		"snoozing":      {one(func(context.Context, *cargo) (leg, error) { return "", segno.Snooze(time.Hour) }), segno.RunParked},
		"polling":       {one(poll), segno.RunParked},
		"polling often": {one(quick), segno.RunRunning},
		"sleeping":      {one(segno.Sleep[cargo](time.Hour, done)), segno.RunParked},
		"on a timer": {one(segno.Timer(func(context.Context, *cargo) (time.Time, error) {
			return time.Now().Add(time.Hour), nil
		}, to(done))), segno.RunParked},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var said tally
				w := saga(1, &said, nil)
				w.Steps["s2"] = c.w.Steps[legA]
				r := newBed(t).start(flowOf("f", w))
				id := r.trigger("f", cargo{})
				time.Sleep(500 * time.Millisecond)
				synctest.Wait()
				expect(t, "status", r.info(id).Status, c.status)
				begin := time.Now()
				r.cancel(id)
				r.ended(id, segno.RunCancelled)
				expect(t, "took", time.Since(begin), 0)
				expect(t, "undone", said.String(), "s1:1")
				expect(t, "streak", r.status("f").FailureStreak, 0)
			})
		})
	}
}

func TestACancelledPendingRunNeverStarts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var calls tally
		w := one(func(ctx context.Context, c *cargo) (leg, error) { calls.add("%d", c.N); return hold(ctx, c) })
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: w, Overlap: segno.Allow(1)}, flowOf("g", w))
		first, second := r.trigger("f", cargo{N: 1}), r.trigger("f", cargo{N: 2})
		later := r.triggerWith("g", segno.Trigger{At: time.Now().Add(time.Hour), Input: cargo{N: 3}})
		synctest.Wait()
		expect(t, "status of the second", r.info(second).Status, segno.RunPending)
		r.cancel(later)
		r.ended(later, segno.RunCancelled)
		r.cancel(second)
		r.cancel(first)
		r.ended(first, segno.RunCancelled)
		r.ended(second, segno.RunCancelled)
		expect(t, "calls", calls.String(), "1")
		expect(t, "log of the second", r.log(second), "enter a, end a")
	})
}

func TestCancelFlowCancelsEveryOpenRunOfIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		w := one(func(ctx context.Context, c *cargo) (leg, error) {
			if c.N == 1 {
				return "", segno.Snooze(time.Hour)
			}
			return hold(ctx, c)
		})
		b := newBed(t)
		r := b.start(segno.Flow{ID: "f", Workflow: w, Overlap: segno.Allow(2)}, flowOf("g", w))
		var ids []segno.RunID
		for n := range 5 {
			ids = append(ids, r.trigger("f", cargo{N: n}))
		}
		ids = append(ids, r.triggerWith("f", segno.Trigger{At: time.Now().Add(time.Hour)}))
		other := r.trigger("g", cargo{})
		synctest.Wait()
		if err := r.CancelFlow(ctx, "f"); err != nil {
			t.Fatalf("CancelFlow: got error %v, want none", err)
		}
		for _, id := range ids {
			r.ended(id, segno.RunCancelled)
		}
		expect(t, "status of another flow's run", r.info(other).Status, segno.RunRunning)
		expect(t, "status of the flow", r.status("f").Status, segno.StatusIdle)
		if err := r.CancelFlow(ctx, "f"); err != nil {
			t.Errorf("CancelFlow of an idle flow: got error %v, want none", err)
		}
		expectError(t, "CancelFlow of an unknown flow", r.CancelFlow(ctx, "x"), segno.ErrNotFound)
		r.cancel(other)
		r.ended(other, segno.RunCancelled)
	})
}

func TestATransitionToAFinalStateWinsOverACancel(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ready := make(chan struct{})
		r := newBed(t).start(flowOf("f", one(func(context.Context, *cargo) (leg, error) { <-ready; return done, nil })))
		id := r.trigger("f", cargo{})
		synctest.Wait() // until its step waits
		r.cancel(id)
		close(ready) // within the grace
		r.completed(id)
	})
}

func TestATransitionThatMeetsACancelFinishesItsVisitAndRollsBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		b.opts.Schema = func(tx segno.Tx) error {
			_, err := tx.Exec("CREATE TABLE IF NOT EXISTS told (what TEXT)")
			return err
		}
		var said tally
		ready := make(chan struct{})
		w := saga(2, &said, to(done))
		change(w, "s2", func(s *segno.Step[leg, cargo]) {
			s.Do = func(ctx context.Context, c *cargo) (leg, error) {
				<-ready
				c.N = 7
				return "s3", segno.OnCommit(ctx, func(tx segno.Tx) error {
					_, err := tx.Exec("INSERT INTO told VALUES ('s2')")
					return err
				})
			}
		})
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r.cancel(id)
		close(ready)
		e := r.ended(id, segno.RunCancelled)
		expect(t, "undone: the finished visit first", said.String(), "s2:7 s1:1")
		expect(t, "State", e.State, "s2")
		expect(t, "log", r.log(id), "enter s1, enter s2, rollback s2, undone s2, undone s1, end s2")
		expect(t, "uncertain", r.entries(id)[2].Uncertain, false)
		lines, err := queryLines(r.DB(), "SELECT count(*) FROM told")
		if err != nil || lines[0] != "1" {
			t.Errorf("rows of the finished visit's OnCommit: got = %v, %v, want 1", lines, err)
		}
	})
}

func TestAStepWithAnUndoIsNotInterruptedByACancel(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		w := saga(1, &said, to(done))
		work := func(ctx context.Context, d time.Duration) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(d):
				return nil
			}
		}
		change(w, "s1", func(s *segno.Step[leg, cargo]) {
			s.Do = func(ctx context.Context, c *cargo) (leg, error) {
				err := work(ctx, time.Duration(c.N)*time.Second)
				c.N++
				return "s2", err
			}
		})
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: w, Overlap: segno.Allow(0)})
		for _, c := range []struct {
			seconds int
			took    time.Duration
			undone  string
		}{
			{10, 10 * time.Second, "s1:11"},
			{3600, 35 * time.Second, ""}, // half a minute from the cancel, without a Timeout
		} {
			begin := time.Now()
			id := r.trigger("f", cargo{N: c.seconds})
			time.Sleep(5 * time.Second)
			r.cancel(id)
			r.ended(id, segno.RunCancelled)
			expect(t, "took", time.Since(begin), c.took)
			expect(t, "undone", said.take(), c.undone)
		}
	})
}

func TestAStepThatFailsAfterACancelIsPutDownToTheCancel(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
			<-ctx.Done()
			return "", errTest
		})))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r.cancel(id)
		expectError(t, "the run", r.ended(id, segno.RunCancelled), context.Canceled)
		expect(t, "streak", r.status("f").FailureStreak, 0)
	})
}

func TestACancelOutlivesARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var calls, said tally
		w := saga(1, &said, func(ctx context.Context, c *cargo) (leg, error) {
			calls.add("call")
			time.Sleep(time.Second) // does not notice the cancel in time
			return "", ctx.Err()
		})
		f := flowOf("f", w)
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r.cancel(id)
		b.kill()
		r = b.start(f)
		e := r.ended(id, segno.RunCancelled)
		expectError(t, "the run", e, context.Canceled)
		expect(t, "calls", calls.String(), "call")
		expect(t, "undone", said.String(), "s1:1")
	})
}

func TestAStepThatIgnoresACancelIsAbandoned(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		w := saga(1, &said, deaf(10*time.Minute, done, nil))
		r := b.start(segno.Flow{ID: "f", Workflow: w, Overlap: segno.Allow(0)}, flowOf("g", one(to(done))))
		begin := time.Now()
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r.cancel(id)
		time.Sleep(time.Minute)
		expect(t, "undone before the goroutine is given up", said.String(), "")
		e := r.ended(id, segno.RunCancelled)
		expect(t, "took: 5 s grace and 1 min", time.Since(begin), 65*time.Second)
		expectError(t, "the run", e, context.Canceled)
		expect(t, "undone", said.String(), "s1:1")
		entry := r.entries(id)[2]
		expect(t, "kind", entry.Kind, "rollback")
		expect(t, "the journal says abandoned", strings.Contains(entry.Error, "abandoned"), true)
		expect(t, "uncertain", entry.Uncertain, true)

		synctest.Wait()
		expect(t, "goroutines in runs: the lost one", r.InHand(), 1)
		r.completed(r.trigger("g", cargo{})) // the others go on
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		expect(t, "goroutines in runs, when it is back", r.InHand(), 0)
		expect(t, "the late result is dropped", r.info(id).Status, segno.RunCancelled)
	})
}

func TestAnAbandonedGoroutineKeepsItsPlace(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{MaxConcurrent: 2})
		w := one(deaf(10*time.Minute, done, nil))
		r := b.start(segno.Flow{ID: "f", Workflow: w, Overlap: segno.Allow(0)}, segno.Flow{ID: "g", Workflow: one(hold), Overlap: segno.Allow(0)})
		lost := r.trigger("f", cargo{})
		r.cancel(lost)
		r.ended(lost, segno.RunCancelled)
		first, second := r.trigger("g", cargo{}), r.trigger("g", cargo{})
		synctest.Wait()
		expect(t, "status of the first", r.info(first).Status, segno.RunRunning)
		expect(t, "status of the second", r.info(second).Status, segno.RunPending)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		expect(t, "status of the second when it is back", r.info(second).Status, segno.RunRunning)
		r.cancel(first)
		r.cancel(second)
		r.ended(first, segno.RunCancelled)
		r.ended(second, segno.RunCancelled)
	})
}

func TestACancelKeepsTheSchedule(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(hold), Schedule: segno.Every(80 * time.Millisecond)})
		synctest.Wait()
		first := r.runs("f")[0].ID
		r.cancel(first)
		r.ended(first, segno.RunCancelled)
		time.Sleep(80 * time.Millisecond)
		synctest.Wait()
		expect(t, "runs", len(r.runs("f")), 2)
		expect(t, "status", r.status("f").Status, segno.StatusRunning)
		r.cancel(r.runs("f")[1].ID)
		r.ended(r.runs("f")[1].ID, segno.RunCancelled)
	})
}

func TestACancelBeatsTheDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := one(func(ctx context.Context, _ *cargo) (leg, error) {
			<-ctx.Done()
			time.Sleep(2 * time.Second)
			return "", ctx.Err()
		})
		w.Timeout = 2 * time.Second
		r := newBed(t).start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		time.Sleep(time.Second)
		r.cancel(id)
		expectError(t, "the run", r.ended(id, segno.RunCancelled), context.Canceled)
	})
}

func TestACancelledStuckRunRollsBackWhenItIsResumed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		f := flowOf("f", saga(1, &said, hold))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r, _ = stuck(b, f)
		expect(t, "status", r.info(id).Status, segno.RunStuck)
		r.cancel(id)
		synctest.Wait()
		expect(t, "status: its code is not there to roll back", r.info(id).Status, segno.RunStuck)
		r = b.restart(f)
		if err := r.ResumeRun(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		r.ended(id, segno.RunCancelled)
		expect(t, "undone", said.String(), "s1:1")
	})
}

func TestAStepMayCancelItsOwnRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var r *live
		r = newBed(t).start(flowOf("f", one(func(ctx context.Context, c *cargo) (leg, error) {
			if err := r.CancelRun(context.Background(), segno.InfoFrom(ctx).Run); err != nil {
				return "", err
			}
			return hold(ctx, c)
		})))
		r.ended(r.trigger("f", cargo{}), segno.RunCancelled)
	})
}
