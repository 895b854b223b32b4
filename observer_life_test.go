package segno_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/engine"
)

func TestEventsOfAStopAndARestart(t *testing.T) {
	for name, stop := range map[string]func(*bed){"stop": (*bed).hurry, "kill": (*bed).kill} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b, w := watched(t)
				f := flowOf("f", route{Initial: legA, Steps: legs{legA: {Do: to(legB)}, legB: {Do: hold}, done: {Final: true}}})
				r := b.start(f)
				id := r.trigger("f", cargo{})
				synctest.Wait()
				stop(b)
				synctest.Wait()
				status := map[string]string{"stop": "pending", "kill": "running"}[name]
				err := w.Kind(segno.EventParked)[0].Err
				if killed := errors.Is(err, segno.ErrStoreFailed); killed != (name == "kill") {
					t.Errorf("Err of parked: got = %v", err)
				}
				wantEvents(t, "events of the first life", w, `run_started state_entered:a checkpoint1 task_started:a task_succeeded:a
					state_entered:b checkpoint2 task_started:b parked:`+status)
				f.Workflow = route{Initial: legA, Steps: legs{legA: {Do: to(legB)}, legB: {Do: to(done)}, done: {Final: true}}}
				r = b.start(f)
				r.completed(id)
				wantEvents(t, "events of the second", w, "run_resumed4 task_started:b task_succeeded:b state_entered:done checkpoint5 run_finished:completed")
			})
		})
	}
}

func TestEventsOfAWaitOverARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		f := flowOf("f", one(segno.Sleep[cargo](time.Hour, done)))
		id := b.start(f).trigger("f", cargo{})
		synctest.Wait()
		r := b.restart(f)
		told(w)
		r.completed(id)
		wantEvents(t, "events of the second life", w, "woken task_started:a task_succeeded:a state_entered:done checkpoint4 run_finished:completed")
	})
}

func TestEventsOfARollbackOverARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		var said tally
		wf := change(saga(2, &said, fail), "s1", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(ctx context.Context, _ cargo) error { <-ctx.Done(); return ctx.Err() }
		})
		r := b.start(flowOf("f", wf))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.kill()
		r = b.start(flowOf("f", saga(2, &said, fail)))
		r.ended(id, segno.RunFailed)
		got := told(w)
		_, got, _ = strings.Cut(got, "task_failed:s3 ")
		expect(t, "events of the rollback", got, "rollback_started undo_started:s2 undo_succeeded:s2 undo_started:s1 parked:undoing "+
			"run_resumed7 undo_started:s1 undo_succeeded:s1 rollback_finished checkpoint8 run_finished:failed")
	})
}

func TestEventsOfAStateThatIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		old := route{Initial: legA, Steps: legs{legA: {Do: to(legB)}, legB: {Do: segno.Sleep[cargo](time.Hour, done)}, done: {Final: true}}}
		id := b.start(flowOf("f", old)).trigger("f", cargo{})
		synctest.Wait()
		b.stop()
		told(w)
		r := b.start(flowOf("f", one(to(done))))
		_, err := r.WaitRun(context.Background(), id)
		expectError(t, "WaitRun", err, segno.ErrStuck)
		for _, e := range w.Events() {
			expect(t, "State", e.State, "b")
			expectError(t, "Err", e.Err, segno.ErrUnknownState)
		}
		wantEvents(t, "events", w, "unknown_state:b parked:stuck")
		b.stop()
		r = b.start(flowOf("f", old))
		if err := r.ResumeRun(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		r.completed(id)
		wantEvents(t, "events after the fix", w, "run_resumed7 task_started:b task_succeeded:b state_entered:done checkpoint8 run_finished:completed")
	})
}

func TestEventsOfAVisitToBeUndoneWhoseStateIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		var said tally
		end := func(do do) route {
			return change(saga(2, &said, nil), "s3", func(s *segno.Step[leg, cargo]) { s.Do = do })
		}
		id := b.start(flowOf("f", end(segno.Sleep[cargo](time.Hour, done)))).trigger("f", cargo{})
		synctest.Wait()
		b.stop()
		without := end(fail)
		delete(without.Steps, "s1")
		without.Initial = "s2"
		r := b.start(flowOf("f", without))
		r.ended(id, segno.RunUndoFailed)
		expectError(t, "Err", w.Kind(segno.EventUnknownState)[0].Err, segno.ErrOrphanedUndo)
		_, got, _ := strings.Cut(told(w), "woken ")
		expect(t, "events", got, "task_started:s3 task_failed:s3 rollback_started undo_started:s2 undo_succeeded:s2 "+
			"undo_started:s1 unknown_state:s1 undo_failed:s1 rollback_finished checkpoint8 run_finished:undo_failed")
	})
}

// The goroutine is lost, the run goes on in another one, and is told of once.
func TestEventsOfAStepWhoseGoroutineIsLost(t *testing.T) {
	for name, do := range map[string]do{
		"abandoned": deaf(time.Hour, done, nil),
		"goexit":    func(context.Context, *cargo) (leg, error) { runtime.Goexit(); return done, nil },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b, w := watched(t)
				first := func(ctx context.Context, c *cargo) (leg, error) {
					if segno.InfoFrom(ctx).Attempt == 1 {
						return do(ctx, c)
					}
					return done, nil
				}
				retry := plain(2, 100*time.Millisecond)
				retry.Panics = true
				r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: first, Timeout: time.Second, Retry: retry})))
				r.completed(r.trigger("f", cargo{}))
				time.Sleep(2 * time.Hour) // until it comes back
				wantEvents(t, "events", w, `run_started state_entered:a checkpoint1 task_started:a retry:a1 task_succeeded:a
					state_entered:done checkpoint3 run_finished:completed`)
			})
		})
	}
}

// eventful are workflows whose runs bring about every kind of event but the
// ones of the file.
func eventful(said *tally) map[string]route {
	undo := change(saga(2, said, fail), "s1", func(s *segno.Step[leg, cargo]) {
		s.UndoRetry = segno.Fixed(2, 2*time.Second)
		s.Undo = func(context.Context, cargo) error { return errTest }
	})
	late := one(hold)
	late.Timeout = time.Minute
	return map[string]route{
		"sleep": one(segno.Sleep[cargo](time.Hour, done)),
		"retry": oneStep(segno.Step[leg, cargo]{
			Do: func(ctx context.Context, _ *cargo) (leg, error) {
				if segno.InfoFrom(ctx).Attempt < 3 {
					return "", errTest
				}
				return done, nil
			}, Retry: segno.Fixed(3, 100*time.Millisecond),
		}),
		"undo": undo, "late": late, "hold": one(hold),
	}
}

// eventfulLog runs them all, a cancel included, and returns their histories.
func eventfulLog(t *testing.T, r *live) string {
	var ids []segno.RunID
	var logs []string
	for _, id := range []string{"sleep", "retry", "undo", "late", "hold"} {
		run := r.trigger(id, cargo{})
		synctest.Wait()
		if id == "hold" {
			r.cancel(run)
		}
		ids = append(ids, run)
	}
	for _, id := range ids {
		_, _ = r.WaitRun(context.Background(), id)
		logs = append(logs, string(r.info(id).Status)+": "+r.log(id))
	}
	return strings.Join(logs, "\n")
}

func eventfulFlows() (flows []segno.Flow) {
	for id, w := range eventful(new(tally)) {
		flows = append(flows, flowOf(id, w))
	}
	return flows
}

// An observer that panics, or takes its goroutine with it, changes nothing for
// the runs and for the observer behind it.
func TestAnObserverCannotHarmARun(t *testing.T) {
	for name, harm := range map[string]func(){"panic": func() { panic("observer") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b, w := watched(t)
				want := eventfulLog(t, b.start(eventfulFlows()...))
				quiet := len(w.Take())
				b.stop()
				logged := &faultLog{}
				kinds := map[segno.EventKind]bool{}
				harmful := segno.ObserverFunc(func(_ context.Context, e segno.Event) { harm() })
				b.opts.Logger, b.opts.Observers = slog.New(logged), append(b.opts.Observers, harmful, w)
				expect(t, "histories", eventfulLog(t, b.start(eventfulFlows()...)), want)
				heard := len(w.Events())
				for _, e := range w.Take() {
					kinds[e.Kind] = true
				}
				b.stop()
				expect(t, "kinds told", len(kinds), 17)
				if name == "panic" {
					expect(t, "events heard in front of it and behind", heard, 2*quiet)
					expect(t, "panics logged", len(logged.with("observer panicked")), len(kinds))
				} else {
					expect(t, "events heard in front of it", heard, quiet)
				}
			})
		})
	}
}

// units plays a model whose units have goroutines of their own.
func units(names []string, play func(v *engine.Visit, name string), end func(context.Context) (leg, error)) do {
	return func(ctx context.Context, _ *cargo) (leg, error) {
		v := engine.VisitFrom(ctx)
		for _, name := range names {
			v.Observe(engine.EventTaskStarted, name, nil)
		}
		for _, name := range names {
			play(v, name)
		}
		return end(ctx)
	}
}

func TestEventsOfUnits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		var late *engine.Visit
		play := func(v *engine.Visit, name string) {
			late = v
			v.Observe(engine.EventTaskSucceeded, "none", nil) // has never begun
			switch name {
			case "1":
				v.Observe(engine.EventTaskSucceeded, name, nil)
				v.Observe(engine.EventTaskFailed, name, errTest) // has its end
			case "2":
				v.Observe(engine.EventTaskStarted, name, nil) // has begun
				v.Observe(engine.EventTaskFailed, name, errTest)
			}
		}
		flow := func(end func(context.Context) (leg, error)) segno.Flow {
			return flowOf("f", one(units([]string{"1", "2", "3"}, play, end)))
		}
		r := b.start(flow(func(context.Context) (leg, error) { return done, nil }))
		r.completed(r.trigger("f", cargo{}))
		late.Observe(engine.EventTaskStarted, "late", nil)
		begun := "run_started state_entered:a checkpoint1 task_started:a task_started:a/1 task_started:a/2 task_started:a/3 " +
			"task_succeeded:a/1 task_failed:a/2"
		wantEvents(t, "events", w, begun+" task_failed:a/3 task_succeeded:a state_entered:done checkpoint2 run_finished:completed")
		b.stop()
		r = b.start(flow(func(ctx context.Context) (leg, error) { return hold(ctx, nil) }))
		r.trigger("f", cargo{})
		synctest.Wait()
		b.hurry()
		for _, e := range w.Events() {
			expect(t, "Unit of "+short(e), strings.Contains(short(e), "/"), e.Unit != "" && e.Kind != segno.EventParked)
		}
		wantEvents(t, "events of a stop", w, begun+" parked:pending parked:pending")
	})
}

func TestSlogObserver(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		logged := &faultLog{}
		b, _ := watched(t, segno.SlogObserver(slog.New(logged)))
		r := b.start(eventfulFlows()...)
		eventfulLog(t, r)
		for message, want := range map[string]string{
			"segno: run started":    "DEBUG sleep 1 a 1 1",
			"segno: state entered":  "DEBUG sleep 1 a 1 1",
			"segno: task succeeded": "INFO retry 2 a 1 3",
			"segno: retry":          "WARN retry 2 a 1 1",
			"segno: task failed":    "ERROR undo 3 s3 3 1",
			"segno: undo failed":    "ERROR undo 3 s1 1 2",
			"segno: run timed out":  "WARN late 4 a 1 1",
			"segno: run cancelled":  "WARN hold 5 a 1 1",
			"segno: run finished":   "INFO retry 2 done 2 1",
			"segno: parked":         "DEBUG sleep 1 a 1 1",
		} {
			var got []string
			for _, a := range logged.with(message) {
				got = append(got, fmt.Sprint(a["level"], " ", a["flow"], " ", a["run"], " ", a["state"], " ", a["visit"], " ", a["attempt"]))
			}
			if !slices.Contains(got, want) {
				t.Errorf("%s: got = %q, want %q among them", message, got, want)
			}
		}
		expect(t, "the limit", logged.with("timed out")[0]["limit"], any(time.Minute))
		expect(t, "the error", logged.with("undo failed")[0]["error"], any(errTest.Error()))
	})
}

func TestANilObserverIsRefused(t *testing.T) {
	_, err := segno.New("never.db", segno.Options{Observers: []segno.Observer{nil}}).Start(context.Background())
	expectError(t, "Start", err, segno.ErrConfig)
}
