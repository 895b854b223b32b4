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

// deaf returns next after d, whatever becomes of its context.
func deaf(d time.Duration, next leg, err error) do {
	return func(context.Context, *cargo) (leg, error) {
		time.Sleep(d)
		return next, err
	}
}

func TestAnAttemptBeyondItsTimeoutFails(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var after tally
		f := flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: func(ctx context.Context, _ *cargo) (leg, error) {
				select {
				case <-ctx.Done():
					return "", ctx.Err()
				case <-time.After(time.Minute):
					after.add("slept")
				}
				return done, nil
			},
			Timeout: 3 * time.Second,
		}))
		r := b.start(f)
		begin := time.Now()
		id := r.trigger("f", cargo{})
		e := r.ended(id, segno.RunFailed)
		expect(t, "took", time.Since(begin), 3*time.Second)
		expectError(t, "the run", e, context.DeadlineExceeded)
		expect(t, "code after the sleep", after.String(), "")
		entries := r.entries(id)
		expect(t, "cause", entries[1].Cause, "timeout")
		expect(t, "the outcome is unknown", entries[1].Uncertain, true)
		r = b.restart(f)
		expectError(t, "the run after a restart", r.ended(id, segno.RunFailed), context.DeadlineExceeded)
		if e := r.ended(id, segno.RunFailed); errors.Is(e, context.Canceled) {
			t.Errorf("the run after a restart: got %v, want it not to be %v", e, context.Canceled)
		}
	})
}

func TestAnAttemptThatTimedOutIsRetried(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: func(ctx context.Context, c *cargo) (leg, error) {
				if s.note(ctx) < 3 {
					return hold(ctx, c)
				}
				return done, nil
			},
			Timeout: time.Second, Retry: plain(3, 100*time.Millisecond),
		})))
		id := r.trigger("f", cargo{})
		r.completed(id)
		expect(t, "gaps", s.gaps(), "1.1s 1.2s")
		expect(t, "log", r.log(id), "enter a, retry a, retry a, end done")
		expect(t, "the retry is uncertain", r.entries(id)[1].Uncertain, true)
	})
}

func TestSuccessWithinTheGraceOfATimeoutIsSuccess(t *testing.T) {
	for _, c := range []struct {
		late time.Duration // after the timeout
		want segno.RunStatus
	}{{0, segno.RunCompleted}, {4 * time.Second, segno.RunCompleted}, {5 * time.Second, segno.RunCompleted}, {5*time.Second + time.Millisecond, segno.RunFailed}, {time.Minute, segno.RunFailed}} {
		t.Run(c.late.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: deaf(time.Second+c.late, done, nil), Timeout: time.Second})))
				id := r.trigger("f", cargo{})
				info, err := r.WaitRun(context.Background(), id)
				expect(t, "status", info.Status, c.want)
				if c.want == segno.RunFailed {
					expectError(t, "the run", err, context.DeadlineExceeded)
				}
			})
		})
	}
}

func TestASnoozeAfterTheGraceIsAFailedAttempt(t *testing.T) {
	for _, c := range []struct {
		late time.Duration
		want segno.RunStatus
	}{{time.Second, segno.RunCompleted}, {10 * time.Second, segno.RunFailed}} {
		t.Run(c.late.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var s tries
				r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
					Do: func(ctx context.Context, _ *cargo) (leg, error) {
						if s.note(ctx); s.calls() > 1 {
							return done, nil
						}
						time.Sleep(time.Second + c.late)
						return "", segno.Snooze(time.Minute)
					},
					Timeout: time.Second,
				})))
				info, _ := r.WaitRun(context.Background(), r.trigger("f", cargo{}))
				expect(t, "status", info.Status, c.want)
			})
		})
	}
}

func TestAStepThatIgnoresItsTimeoutIsAbandonedAndRetried(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		stray := make(chan error, 1)
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: func(ctx context.Context, c *cargo) (leg, error) {
				if s.note(ctx) == 1 {
					time.Sleep(10 * time.Minute)
					c.N = 99
					stray <- errors.Join(
						segno.SaveMemo(ctx, "k", 1),
						segno.OnCommit(ctx, func(segno.Tx) error { return nil }),
					)
					return done, nil
				}
				return done, nil
			},
			Timeout: time.Second, Retry: plain(2, 500*time.Millisecond),
		})))
		id := r.trigger("f", cargo{N: 1})
		info := r.completed(id)
		expect(t, "gaps: timeout, 5 s grace, 1 min, the wait", s.gaps(), "1m6.5s")
		expect(t, "data", string(info.Data), `{"n":1}`)
		entry := r.entries(id)[1]
		expect(t, "kind", entry.Kind, "retry")
		expect(t, "the journal says abandoned", strings.Contains(entry.Error, "abandoned"), true)
		expect(t, "cause", entry.Cause, "abandoned")
		expect(t, "uncertain", entry.Uncertain, true)
		synctest.Wait()
		expect(t, "goroutines in runs: the lost one", r.InHand(), 1)
		expectError(t, "a handle of the dead attempt", <-stray, segno.ErrEnded)
		synctest.Wait()
		expect(t, "goroutines in runs, when it is back", r.InHand(), 0)
		expect(t, "data when it is back", string(r.info(id).Data), `{"n":1}`)
	})
}

func TestARunBeyondItsTimeoutIsRolledBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var undone tally
		w := route{Initial: legA, Timeout: 10 * time.Second, Steps: legs{
			legA: {Do: to(legB), Undo: func(context.Context, cargo) error { undone.add("a"); return nil }},
			legB: {Do: hold, Retry: segno.Exponential(5)},
			done: {Final: true},
		}}
		r := b.start(flowOf("f", w))
		begin := time.Now()
		id := r.trigger("f", cargo{})
		expect(t, "deadline", r.info(id).Deadline, begin.Add(10*time.Second).UTC())
		e := r.ended(id, segno.RunFailed)
		expect(t, "took", time.Since(begin), 10*time.Second)
		expectError(t, "the run", e, context.DeadlineExceeded)
		expect(t, "State", e.State, "b")
		expect(t, "undone", undone.String(), "a")
		expect(t, "log", r.log(id), "enter a, enter b, rollback b, undone a, end b")
		r = b.restart(flowOf("f", w))
		expectError(t, "the run after a restart", r.ended(id, segno.RunFailed), context.DeadlineExceeded)
		expect(t, "streak", r.status("f").FailureStreak, 1)
	})
}

func TestARunsDeadlineGoesOnWhileTheProcessIsDown(t *testing.T) {
	for name, stop := range map[string]func(*bed){"stop": (*bed).stop, "kill": (*bed).kill} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var calls, undone tally
				w := route{Initial: legA, Timeout: time.Hour, Steps: legs{
					legA: {Do: to(legB), Undo: func(context.Context, cargo) error { undone.add("a"); return nil }},
					legB: {Do: func(ctx context.Context, c *cargo) (leg, error) { calls.add("b"); return hold(ctx, c) }},
					done: {Final: true},
				}}
				r := b.start(flowOf("f", w))
				id := r.trigger("f", cargo{})
				deadline := r.info(id).Deadline
				synctest.Wait()
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				if name == "stop" {
					_ = b.run.Stop(ctx)
					b.run = nil
				} else {
					stop(b)
				}
				time.Sleep(30 * time.Minute)
				r = b.start(flowOf("f", w)) // half of the time is left
				synctest.Wait()
				expect(t, "deadline", r.info(id).Deadline, deadline)
				expect(t, "calls", calls.String(), "b b")
				if name == "stop" {
					_ = b.run.Stop(ctx)
					b.run = nil
				} else {
					stop(b)
				}
				time.Sleep(31 * time.Minute)
				r = b.start(flowOf("f", w)) // none is left: no body starts
				e := r.ended(id, segno.RunFailed)
				expectError(t, "the run", e, context.DeadlineExceeded)
				expect(t, "calls", calls.String(), "b b")
				expect(t, "undone", undone.String(), "a")
			})
		})
	}
}

func TestADeadlineEndsAParkedRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		w := one(func(context.Context, *cargo) (leg, error) { return "", segno.Snooze(time.Hour) })
		w.Timeout = time.Minute
		retrying := oneStep(segno.Step[leg, cargo]{Do: fail, Retry: plain(2, time.Hour)})
		retrying.Timeout = time.Minute
		short := oneStep(segno.Step[leg, cargo]{Do: fail, Retry: plain(2, time.Second-time.Millisecond)})
		short.Timeout = time.Millisecond
		r := b.start(flowOf("snooze", w), flowOf("retry", retrying), flowOf("short", short))
		begin := time.Now()
		for id, want := range map[string]time.Duration{"short": time.Millisecond, "snooze": time.Minute, "retry": time.Minute} {
			e := r.ended(r.trigger(id, cargo{}), segno.RunFailed)
			expectError(t, id, e, context.DeadlineExceeded)
			expect(t, id+" took", time.Since(begin), want)
			begin = time.Now()
		}
	})
}

func TestATransitionToAFinalStateWinsOverTheDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := route{Initial: legA, Timeout: time.Second, Steps: legs{
			legA: {Do: deaf(3*time.Second, done, nil)},
			done: {Final: true},
		}}
		longer := route{Initial: legA, Timeout: time.Second, Steps: legs{
			legA: {Do: deaf(3*time.Second, legB, nil)}, legB: {Do: to(done)}, done: {Final: true},
		}}
		r := newBed(t).start(flowOf("f", w), flowOf("g", longer))
		r.completed(r.trigger("f", cargo{}))
		e := r.ended(r.trigger("g", cargo{}), segno.RunFailed)
		expectError(t, "a transition to another state", e, context.DeadlineExceeded)
		expect(t, "its path: the late success has finished the visit", strings.Join(e.Path, " "), "a b")
	})
}

func TestAStepWithAnUndoIsNotInterruptedByTheDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var undone tally
		undo := func(_ context.Context, c cargo) error { undone.add("a%d", c.N); return nil }
		step := func(d, timeout time.Duration) route {
			return route{Initial: legA, Timeout: time.Second, Steps: legs{
				legA: {Undo: undo, Timeout: timeout, Do: func(ctx context.Context, c *cargo) (leg, error) {
					select {
					case <-ctx.Done():
						return "", ctx.Err()
					case <-time.After(d):
						c.N = 5
						return legB, nil
					}
				}},
				legB: {Do: to(done)},
				done: {Final: true},
			}}
		}
		final := step(10*time.Second, 0)
		a := final.Steps[legA]
		a.Do = func(ctx context.Context, _ *cargo) (leg, error) {
			time.Sleep(10 * time.Second)
			return done, ctx.Err()
		}
		final.Steps[legA] = a
		r := newBed(t).start(flowOf("ends", step(10*time.Second, 0)), flowOf("bounded", step(time.Hour, 0)), flowOf("own", step(time.Hour, 7*time.Second)), flowOf("final", final))
		for _, c := range []struct {
			id     string
			took   time.Duration
			undone string
		}{
			{"ends", 10 * time.Second, "a5"}, // it finishes and is undone first
			{"bounded", 31 * time.Second, ""},
			{"own", 7 * time.Second, ""},
		} {
			begin := time.Now()
			e := r.ended(r.trigger(c.id, cargo{}), segno.RunFailed)
			expectError(t, c.id, e, context.DeadlineExceeded)
			expect(t, c.id+" took", time.Since(begin), c.took)
			expect(t, c.id+" undone", undone.take(), c.undone)
		}
		r.completed(r.trigger("final", cargo{}))
		expect(t, "undone of a run that completed", undone.take(), "")
	})
}

func TestAnErrorBeforeTheDeadlineIsItsOwn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := one(deaf(time.Second, "", errTest))
		w.Timeout = 2 * time.Second
		r := newBed(t).start(flowOf("f", w))
		e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "Err", e.Err.Error(), errTest.Error())
		expect(t, "it is a timeout", errors.Is(e, context.DeadlineExceeded), false)
	})
}

func TestARunTriggeredForLaterHasItsTimeoutFromThen(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := one(deaf(time.Second, done, nil))
		w.Timeout = time.Minute
		r := newBed(t).start(flowOf("f", w))
		at := time.Now().Add(10 * time.Minute)
		id := r.triggerWith("f", segno.Trigger{At: at})
		expect(t, "deadline", r.info(id).Deadline, at.Add(time.Minute).UTC())
		r.completed(id)
	})
}

func TestTheCauseOfAStepsContextSaysWhyItEnds(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var causes tally
		note := func(ctx context.Context, _ *cargo) (leg, error) {
			<-ctx.Done()
			cause := context.Cause(ctx)
			causes.add("%v", cause)
			if errors.Is(cause, segno.ErrStopped) {
				causes.take()
				causes.add("stopped")
			}
			return "", ctx.Err()
		}
		total := one(note)
		total.Timeout = time.Second
		b := newBed(t)
		r := b.start(flowOf("attempt", oneStep(segno.Step[leg, cargo]{Do: note, Timeout: time.Second})), flowOf("run", total), flowOf("cancel", one(note)), flowOf("stop", one(note)))
		r.ended(r.trigger("attempt", cargo{}), segno.RunFailed)
		expect(t, "attempt timeout", causes.take(), "segno: attempt timed out")
		r.ended(r.trigger("run", cargo{}), segno.RunFailed)
		expect(t, "run timeout", causes.take(), "segno: run timed out")
		id := r.trigger("cancel", cargo{})
		if err := r.CancelRun(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		r.ended(id, segno.RunCancelled)
		expect(t, "cancel", causes.take(), "segno: run cancelled")
		r.trigger("stop", cargo{})
		synctest.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.Stop(ctx); err != nil {
			t.Errorf("Stop: got error %v, want none", err)
		}
		b.run = nil
		expect(t, "stop", causes.take(), "stopped")
	})
}

func TestAPollsTimeoutIsThatOfTheWholeVisit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var polls tally
		f := flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: segno.Poll(func(context.Context, *cargo) (leg, time.Duration, error) {
				polls.add("poll")
				return "", 10 * time.Second, nil
			}),
			Timeout: time.Minute, Retry: segno.Exponential(5),
		}))
		r := b.start(f)
		begin := time.Now()
		id := r.trigger("f", cargo{})
		time.Sleep(25 * time.Second)
		r = b.restart(f)
		e := r.ended(id, segno.RunFailed)
		expectError(t, "the run", e, context.DeadlineExceeded)
		expect(t, "took", time.Since(begin), time.Minute)
		expect(t, "polls", polls.len(), 6)
		expect(t, "retries", strings.Contains(r.log(id), "retry"), false)
	})
}

func TestATimeoutTextSaysWhatTheStepSaid(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: deaf(2*time.Second, "", fmt.Errorf("half way")), Timeout: time.Second})))
		e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expectError(t, "the run", e, context.DeadlineExceeded)
		expect(t, "the text has both", strings.Contains(e.Error(), "timed out") && strings.Contains(e.Error(), "half way"), true)
	})
}
