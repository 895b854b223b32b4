package segno_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

func TestStopSuspendsAndNothingIsUndone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var calls, said tally
		w := saga(2, &said, func(ctx context.Context, c *cargo) (leg, error) {
			if calls.add("call") == 1 {
				return hold(ctx, c)
			}
			return done, nil
		})
		f := segno.Flow{ID: "f", Workflow: w, Backoff: segno.BackoffPolicy{StreakLimit: 1}}
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		if err := r.Stop(ctx); err != nil {
			t.Errorf("Stop: got error %v, want none", err)
		}
		b.run = nil
		expect(t, "took: as long as Stop's context", time.Since(begin), 3*time.Second)
		expect(t, "undone", said.String(), "")
		expect(t, "status, held, crashes, attempt in the file", strings.Join(b.rows("SELECT status, held, crashes, attempt FROM _segno_run"), ""), "pending|0|0|1")

		r = b.start(f)
		r.completed(id)
		expect(t, "calls", calls.String(), "call call")
		expect(t, "log", r.log(id), "enter s1, enter s2, enter s3, end done")
		expect(t, "streak", r.status("f").FailureStreak, 0)
	})
}

func TestStopLetsTheUnitInFlightEndAndCommitsIt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var calls tally
		w := route{Initial: legA, Steps: legs{
			legA: {Do: func(ctx context.Context, _ *cargo) (leg, error) {
				calls.add("a")
				time.Sleep(20 * time.Second)
				return legB, ctx.Err()
			}},
			legB: {Do: func(context.Context, *cargo) (leg, error) { calls.add("b"); return done, nil }},
			done: {Final: true},
		}}
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		begin := time.Now()
		b.stop()
		expect(t, "took", time.Since(begin), 20*time.Second)
		expect(t, "calls", calls.String(), "a")
		expect(t, "state and status in the file", strings.Join(b.rows("SELECT state, status FROM _segno_run"), ""), "b|pending")
		r = b.start(flowOf("f", w))
		r.completed(id)
		expect(t, "calls", calls.String(), "a b")
	})
}

func TestStopAtATransitionToAFinalStateCompletesTheRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		r := b.start(flowOf("f", one(deaf(time.Second, done, nil))))
		r.trigger("f", cargo{})
		synctest.Wait()
		b.stop()
		expect(t, "status in the file", strings.Join(b.rows("SELECT status FROM _segno_run"), ""), "completed")
	})
}

func TestAStepThatStopsIsNotAStepThatFailed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var calls tally
		f := flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
			if calls.add("call") == 1 {
				<-ctx.Done()
				return "", fmt.Errorf("the bank hung up: %w", errTest)
			}
			return done, nil
		}))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.Stop(ctx); err != nil {
			t.Errorf("Stop: got error %v, want none", err)
		}
		r = b.start(f)
		r.completed(id)
		expect(t, "log", r.log(id), "enter a, end done")
	})
}

func TestSuccessWithinTheGraceOfAStopIsCommitted(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		r := b.start(flowOf("f", one(func(ctx context.Context, c *cargo) (leg, error) {
			<-ctx.Done()
			time.Sleep(4 * time.Second)
			c.N = 5
			return done, nil
		})))
		r.trigger("f", cargo{})
		synctest.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.Stop(ctx); err != nil {
			t.Errorf("Stop: got error %v, want none", err)
		}
		b.run = nil
		expect(t, "status and data in the file", strings.Join(b.rows("SELECT status, data FROM _segno_run"), ""), `completed|{"n":5}`)
	})
}

func TestStopInterruptsEveryWait(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		r := b.start(
			segno.Flow{ID: "interval", Workflow: one(to(done)), Schedule: segno.Every(time.Hour)},
			segno.Flow{ID: "daily", Workflow: one(to(done)), Schedule: segno.Cron("@daily")},
			segno.Flow{ID: "backoff", Workflow: one(fail), Schedule: segno.Every(time.Second), Backoff: segno.BackoffPolicy{Initial: time.Minute}},
			flowOf("snooze", one(func(context.Context, *cargo) (leg, error) { return "", segno.Snooze(time.Hour) })),
			flowOf("short", oneStep(segno.Step[leg, cargo]{Do: fail, Retry: plain(99, 999*time.Millisecond)})),
		)
		r.trigger("snooze", cargo{})
		r.trigger("short", cargo{})
		time.Sleep(1500 * time.Millisecond)
		begin := time.Now()
		b.stop()
		expect(t, "took", time.Since(begin), 0)
	})
}

func TestStopDispatchesNothingMore(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var calls tally
		b.start(segno.Flow{ID: "f", Workflow: one(func(context.Context, *cargo) (leg, error) {
			calls.add("call")
			time.Sleep(1500 * time.Millisecond)
			return done, nil
		}), Schedule: segno.Every(time.Second), Overlap: segno.Allow(0)})
		time.Sleep(time.Second / 2)
		b.stop() // a slot comes while it waits for the run in flight
		expect(t, "calls", calls.String(), "call")
		expect(t, "runs in the file", strings.Join(b.rows("SELECT count(*) FROM _segno_run"), ""), "1")
	})
}

func TestStopMayBeCalledAgainAndAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		r := b.start(flowOf("f", one(deaf(time.Second, done, nil))))
		r.trigger("f", cargo{})
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if err := r.Stop(context.Background()); err != nil {
					t.Errorf("Stop: got error %v, want none", err)
				}
			})
		}
		all.Wait()
		b.stop()
		if err := r.Wait(); err != nil {
			t.Errorf("Wait: got error %v, want none", err)
		}
	})
}

func TestEveryCallAfterStopIsErrStopped(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		ctx := context.Background()
		r := b.start(flowOf("f", one(to(done))))
		id := r.trigger("f", cargo{})
		r.completed(id)
		b.stop()
		_, trigger := r.Trigger(ctx, "f", segno.Trigger{})
		_, rerun := r.Rerun(ctx, id)
		_, status := r.Status(ctx, "f")
		_, list := r.List(ctx)
		_, run := r.Run(ctx, id)
		_, runs := r.Runs(ctx, segno.RunFilter{})
		_, find := r.FindRun(ctx, "f", "k")
		_, history := r.History(ctx, id)
		_, wait := r.WaitRun(ctx, id)
		for name, err := range map[string]error{
			"Trigger": trigger, "Rerun": rerun, "Status": status, "List": list, "Run": run, "Runs": runs, "FindRun": find, "History": history, "WaitRun": wait,
			"ResetFlow": r.ResetFlow(ctx, "f"), "CancelFlow": r.CancelFlow(ctx, "f"), "PauseFlow": r.PauseFlow(ctx, "f", segno.Pause{}), "ResumeFlow": r.ResumeFlow(ctx, "f"),
			"CancelRun": r.CancelRun(ctx, id), "UndoRun": r.UndoRun(ctx, id), "ResumeRun": r.ResumeRun(ctx, id), "AckRun": r.AckRun(ctx, id, ""),
			"Write": r.Write(ctx, func(segno.Tx) error { return nil }),
		} {
			expectError(t, name, err, segno.ErrStopped)
		}
		expect(t, "Health", r.Health(ctx), segno.Unhealthy)
		expect(t, "HasRunningFlows", r.HasRunningFlows(), false)
	})
}

func TestATriggerWhileStoppingIsErrStopped(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		r := b.start(flowOf("f", one(deaf(10*time.Second, done, nil))), flowOf("g", one(to(done))))
		r.trigger("f", cargo{})
		synctest.Wait()
		go b.run.Stop(context.Background())
		time.Sleep(time.Second)
		_, err := r.Trigger(context.Background(), "g", segno.Trigger{})
		expectError(t, "Trigger", err, segno.ErrStopped)
		b.stop()
		expect(t, "runs of g in the file", strings.Join(b.rows("SELECT count(*) FROM segno_runs WHERE flow = 'g'"), ""), "0")
	})
}

func TestTheEndOfStartsContextIsAStop(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{StopTimeout: 10 * time.Second})
		ctx, cancel := context.WithCancel(context.Background())
		var causes tally
		r, err := b.tryStart(ctx, flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
			<-ctx.Done()
			causes.add("%v", context.Cause(ctx))
			return "", ctx.Err()
		})))
		if err != nil {
			t.Fatal(err)
		}
		r.trigger("f", cargo{})
		synctest.Wait()
		begin := time.Now()
		cancel()
		if err := r.Wait(); err != nil {
			t.Errorf("Wait: got error %v, want none", err)
		}
		expect(t, "took: Options.StopTimeout", time.Since(begin), 10*time.Second)
		expect(t, "cause of the step's context", causes.String(), segno.ErrStopped.Error())
		_, err = r.Trigger(context.Background(), "f", segno.Trigger{})
		expectError(t, "Trigger", err, segno.ErrStopped)
		b.stop()
		expect(t, "status in the file", strings.Join(b.rows("SELECT status FROM _segno_run"), ""), "pending")
	})
}

func TestStopNamesTheStepsItHadToAbandonAndKeepsTheLockForThem(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		f := flowOf("stubborn", one(deaf(10*time.Minute, done, nil)))
		r := b.start(f)
		id := r.trigger("stubborn", cargo{})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		begin := time.Now()
		err := r.Stop(ctx)
		b.run = nil
		expect(t, "took: the context and 5 s grace", time.Since(begin), 6*time.Second)
		if want := fmt.Sprintf("run %d of stubborn", id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Stop: got error %v, want one with %q", err, want)
		}
		again := r.Stop(context.Background())
		expect(t, "a second Stop", fmt.Sprint(again), fmt.Sprint(err))

		_, err = b.tryStart(context.Background(), f)
		expectError(t, "Start while the step is out", err, segno.ErrLocked)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		r = b.start(f) // the step is back
		synctest.Wait()
		expect(t, "status", r.info(id).Status, segno.RunRunning)
		expect(t, "crashes", r.info(id).Crashes, 0)
		r.completed(id)
	})
}

func TestStopWaitsForAnAbandonedGoroutineNoLongerThanItMay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		f := segno.Flow{ID: "f", Workflow: one(deaf(time.Hour, done, nil)), Overlap: segno.Allow(0)}
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r.cancel(id)
		r.ended(id, segno.RunCancelled) // abandoned
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := r.Stop(ctx)
		b.run = nil
		if want := fmt.Sprintf("run %d of f", id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Stop: got error %v, want one with %q", err, want)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		b.start(f)
	})
}

func TestAFileHasOneOwner(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		f := flowOf("f", one(to(done)))
		b.start(f)
		first := b.run
		_, err := b.tryStart(context.Background(), f)
		expectError(t, "the second Start", err, segno.ErrLocked)
		for _, want := range []string{"process", "since", "Standby"} {
			expect(t, "the text has "+want, strings.Contains(err.Error(), want), true)
		}
		b.run = first
	})
}

func TestAStandbyTakesOverWhenTheOwnerEnds(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		f := flowOf("f", one(to(done)))
		b.start(f)
		first := b.run
		b.opts.Standby = true
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := b.tryStart(ctx, f)
		expectError(t, "a Standby whose context ends", err, context.DeadlineExceeded)
		time.AfterFunc(time.Minute, func() { _ = first.Stop(context.Background()) })
		begin := time.Now()
		r := b.start(f)
		if d := time.Since(begin); d < time.Minute || d > time.Minute+100*time.Millisecond {
			t.Errorf("the takeover took: got = %v, want 1m0s and a little", d)
		}
		r.completed(r.trigger("f", cargo{}))
	})
}

func TestAStepThatIsRefusedByTheStopIsNoFailure(t *testing.T) {
	for _, undoing := range []bool{false, true} {
		t.Run(fmt.Sprint(undoing), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var r *live
				var said tally
				ask := func(ctx context.Context) error {
					if said.add("call") == 1 {
						time.Sleep(time.Second) // the stop comes
					}
					id, err := r.Trigger(ctx, "g", segno.Trigger{})
					if err != nil {
						return fmt.Errorf("starting g: %w", err)
					}
					_, err = r.WaitRun(ctx, id)
					return err
				}
				w := one(func(ctx context.Context, _ *cargo) (leg, error) { return done, ask(ctx) })
				want := segno.RunCompleted
				if undoing {
					w = route{Initial: legA, Steps: legs{
						legA: {Do: to(legB), Undo: func(ctx context.Context, _ cargo) error { return ask(ctx) }},
						legB: {Do: fail}, done: {Final: true},
					}}
					want = segno.RunFailed
				}
				flows := []segno.Flow{flowOf("f", w), flowOf("g", one(to(done)))}
				r = b.start(flows...)
				id := r.trigger("f", cargo{})
				synctest.Wait()
				b.stop()
				r = b.start(flows...)
				info, _ := r.WaitRun(context.Background(), id)
				expect(t, "status", info.Status, want)
				expect(t, "calls", said.String(), "call call")
			})
		})
	}
}
