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
	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/segnotest"
)

// short is an event as one word, with what sets it apart.
func short(e segno.Event) string {
	word := string(e.Kind)
	switch e.Kind {
	case segno.EventStateEntered, segno.EventTaskStarted, segno.EventTaskSucceeded, segno.EventTaskFailed,
		segno.EventUndoStarted, segno.EventUndoSucceeded, segno.EventUndoFailed, segno.EventUnknownState:
		word += ":" + e.State
		if e.Unit != "" {
			word += "/" + e.Unit
		}
	case segno.EventRetry:
		word += ":" + e.State + fmt.Sprint(e.Attempt)
	case segno.EventParked, segno.EventRunFinished:
		word += ":" + string(e.Status)
	case segno.EventCheckpoint, segno.EventRunResumed:
		word += fmt.Sprint(e.Seq)
	}
	return word
}

// watched is a bed with observers, the last of them a recorder. When the test
// ends, each start must have had its end.
func watched(t *testing.T, more ...segno.Observer) (*bed, *segnotest.Recorder) {
	w := new(segnotest.Recorder)
	all := new(segnotest.Recorder)
	t.Cleanup(func() { segnotest.Balanced(t, all) }) // behind the end of the bed
	return newBed(t).with(segno.Options{Observers: append(more, all, w)}), w
}

// told returns the events so far in short, one word each, and forgets them.
func told(w *segnotest.Recorder) string {
	var words []string
	for _, e := range w.Take() {
		words = append(words, short(e))
	}
	return strings.Join(words, " ")
}

// wantEvents compares what was told since the last time with one or more lines.
func wantEvents(t *testing.T, what string, w *segnotest.Recorder, want string) {
	t.Helper()
	want = strings.Join(strings.Fields(want), " ")
	if got := told(w); got != want {
		t.Errorf("%s:\n got = %s\nwant = %s", what, got, want)
	}
}

func TestEventsOfASuccess(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		r := b.start(flowOf("f", route{Initial: legA, Steps: legs{legA: {Do: to(legB)}, legB: {Do: to(done)}, done: {Final: true}}}))
		id := r.trigger("f", cargo{})
		r.completed(id)
		for _, e := range w.Events() {
			if e.Flow != "f" || e.Run != id || e.At.IsZero() || e.Seq == 0 || e.Visit == 0 || e.Err != nil {
				t.Errorf("event: got = %+v, want flow, run, time, seq and visit, and no error", e)
			}
		}
		wantEvents(t, "events", w, `run_started state_entered:a checkpoint1 task_started:a task_succeeded:a
			state_entered:b checkpoint2 task_started:b task_succeeded:b
			state_entered:done checkpoint3 run_finished:completed`)
	})
}

func TestEventsOfARunWithoutAStep(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		w1 := one(to(done))
		w1.Initial = done
		r := b.start(flowOf("f", w1))
		r.completed(r.trigger("f", cargo{}))
		wantEvents(t, "events", w, "run_started state_entered:done checkpoint1 checkpoint2 run_finished:completed")
	})
}

func TestEventsOfRetries(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		var s tries
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: s.failing(2), Retry: plain(3, 100*time.Millisecond)})))
		begin := time.Now()
		r.completed(r.trigger("f", cargo{}))
		retries := w.Kind(segno.EventRetry)
		expect(t, "retries", len(retries), 2)
		expectError(t, "Err of a retry", retries[0].Err, errTest)
		expect(t, "Due of the second", retries[1].Due.Sub(begin), 300*time.Millisecond)
		expect(t, "At of the second", retries[1].At.Sub(begin), 100*time.Millisecond)
		wantEvents(t, "events", w, `run_started state_entered:a checkpoint1 task_started:a retry:a1 retry:a2 task_succeeded:a
			state_entered:done checkpoint4 run_finished:completed`)
	})
}

// A breaker is told of wherever the cause of a failed attempt is one.
func TestEventsOfAnOpenCircuit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: func(context.Context, *cargo) (leg, error) {
				return "", &engine.Failure{Cause: "circuit_open", Text: "test: open"}
			},
			Retry: plain(2, 100*time.Millisecond),
		})))
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		wantEvents(t, "events", w, `run_started state_entered:a checkpoint1 task_started:a circuit_open retry:a1 circuit_open task_failed:a
			checkpoint3 run_finished:failed`)
	})
}

func TestEventsOfAFailure(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		r := b.start(flowOf("f", one(fail)))
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expectError(t, "Err of the task", w.Kind(segno.EventTaskFailed)[0].Err, errTest)
		expect(t, "Err of the run", fmt.Sprint(w.Kind(segno.EventRunFinished)[0].Err), errTest.Error())
		wantEvents(t, "events", w, "run_started state_entered:a checkpoint1 task_started:a task_failed:a checkpoint2 run_finished:failed")
	})
}

func TestEventsOfAParkedRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		r := b.start(flowOf("f", one(segno.Sleep[cargo](time.Hour, done))))
		begin := time.Now()
		id := r.trigger("f", cargo{})
		synctest.Wait()
		parked := w.Kind(segno.EventParked)
		expect(t, "Due", parked[0].Due.Sub(begin), time.Hour)
		wantEvents(t, "events before the wait", w, "run_started state_entered:a checkpoint1 task_started:a checkpoint2 parked:parked")
		r.completed(id)
		wantEvents(t, "events behind it", w, "woken task_started:a task_succeeded:a state_entered:done checkpoint4 run_finished:completed")
	})
}

func TestEventsOfACancel(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		r := b.start(flowOf("f", one(hold)))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r.cancel(id)
		if err := r.CancelRun(context.Background(), id); err != nil && !errors.Is(err, segno.ErrEnded) { // it may be over by now
			t.Errorf("a second cancel: got error %v, want none or ErrEnded", err)
		}
		r.ended(id, segno.RunCancelled)
		wantEvents(t, "events", w, "run_started state_entered:a checkpoint1 task_started:a task_failed:a run_cancelled checkpoint2 run_finished:cancelled")
	})
}

func TestEventsOfACancelThatMeetsASuccess(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		var said tally
		wf := change(saga(1, &said, to(done)), "s1", func(s *segno.Step[leg, cargo]) { s.Do = deaf(time.Second, "s2", nil) })
		r := b.start(flowOf("f", wf))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r.cancel(id)
		r.ended(id, segno.RunCancelled)
		wantEvents(t, "events", w, `run_started state_entered:s1 checkpoint1 task_started:s1 task_succeeded:s1 run_cancelled
			rollback_started undo_started:s1 undo_succeeded:s1 rollback_finished checkpoint3 run_finished:cancelled`)
	})
}

func TestEventsOfACancelOfARunThatWaits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		r := b.start(flowOf("f", one(segno.Sleep[cargo](time.Hour, done))))
		parked, later := r.trigger("f", cargo{}), segno.RunID(0)
		synctest.Wait()
		r.cancel(parked)
		r.ended(parked, segno.RunCancelled)
		wantEvents(t, "events of a parked run", w, `run_started state_entered:a checkpoint1 task_started:a checkpoint2 parked:parked
			woken run_cancelled checkpoint4 run_finished:cancelled`)
		later = r.triggerWith("f", segno.Trigger{At: time.Now().Add(time.Hour)})
		synctest.Wait()
		wantEvents(t, "events of one for later", w, "")
		r.cancel(later)
		r.ended(later, segno.RunCancelled)
		wantEvents(t, "events of a run that never began", w, "run_started state_entered:a checkpoint1 run_cancelled checkpoint3 run_finished:cancelled")
	})
}

func TestEventsOfATimeout(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		wf := one(hold)
		wf.Timeout = time.Minute
		r := b.start(flowOf("f", wf))
		id := r.trigger("f", cargo{})
		r.ended(id, segno.RunFailed)
		e := w.Kind(segno.EventRunTimedOut)[0]
		expect(t, "Elapsed", e.Elapsed, time.Minute)
		expect(t, "Limit", e.Limit, time.Minute)
		expectError(t, "Err of the task", w.Kind(segno.EventTaskFailed)[0].Err, context.DeadlineExceeded)
		wantEvents(t, "events", w, "run_started state_entered:a checkpoint1 task_started:a task_failed:a run_timed_out checkpoint2 run_finished:failed")
	})
}

// A visit that fails before its code is called again has failed all the same.
func TestEventsOfAWaitBeyondItsTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: segno.Sleep[cargo](time.Hour, done), Timeout: time.Minute})))
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		wantEvents(t, "events", w, `run_started state_entered:a checkpoint1 task_started:a checkpoint2 parked:parked
			woken task_started:a task_failed:a checkpoint4 run_finished:failed`)
	})
}

func TestEventsOfARollback(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		var said tally
		wf := change(saga(2, &said, fail), "s1", func(s *segno.Step[leg, cargo]) {
			s.UndoRetry = plain(2, 100*time.Millisecond)
			s.Undo = func(ctx context.Context, _ cargo) error {
				if segno.InfoFrom(ctx).Attempt == 1 {
					return errTest
				}
				return nil
			}
		})
		wf = change(wf, "s2", func(s *segno.Step[leg, cargo]) { s.Undo = func(context.Context, cargo) error { return errTest } })
		r := b.start(flowOf("f", wf))
		id := r.trigger("f", cargo{})
		r.ended(id, segno.RunUndoFailed)
		for _, e := range append(w.Kind(segno.EventUndoFailed), w.Kind(segno.EventRetry)...) {
			expectError(t, "Err of "+string(e.Kind), e.Err, errTest)
			expect(t, "Status", e.Status, segno.RunUndoing)
		}
		wantEvents(t, "events", w, `run_started state_entered:s1 checkpoint1 task_started:s1 task_succeeded:s1
			state_entered:s2 checkpoint2 task_started:s2 task_succeeded:s2 state_entered:s3 checkpoint3 task_started:s3 task_failed:s3
			rollback_started undo_started:s2 undo_failed:s2 undo_started:s1 retry:s11 undo_succeeded:s1
			rollback_finished checkpoint7 run_finished:undo_failed`)
		if err := r.UndoRun(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		r.ended(id, segno.RunUndoFailed)
		wantEvents(t, "events of UndoRun", w, `run_resumed9 rollback_started undo_started:s2 undo_failed:s2
			rollback_finished checkpoint11 run_finished:undo_failed`)
	})
}

func TestEventsOfAnUndoThatParks(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		var said tally
		wf := change(saga(1, &said, fail), "s1", func(s *segno.Step[leg, cargo]) {
			s.UndoRetry = segno.Retry{Attempts: 2, Initial: time.Hour, Jitter: -1}
			s.Undo = func(ctx context.Context, _ cargo) error {
				if segno.InfoFrom(ctx).Attempt == 1 {
					return errTest
				}
				return nil
			}
		})
		r := b.start(flowOf("f", wf))
		begin := time.Now()
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		parked := w.Kind(segno.EventParked)[0]
		expect(t, "Err of parked", parked.Err, nil)
		expect(t, "Due", parked.Due.Sub(begin), time.Hour)
		wantEvents(t, "events", w, `run_started state_entered:s1 checkpoint1 task_started:s1 task_succeeded:s1
			state_entered:s2 checkpoint2 task_started:s2 task_failed:s2 rollback_started undo_started:s1 retry:s11 parked:undoing
			woken undo_started:s1 undo_succeeded:s1 rollback_finished checkpoint6 run_finished:failed`)
	})
}
