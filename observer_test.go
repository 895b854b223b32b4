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

// watcher is an observer that keeps what it is told.
type watcher struct {
	mu     sync.Mutex
	events []segno.Event
}

func (w *watcher) Observe(_ context.Context, e segno.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

func (w *watcher) all() []segno.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]segno.Event(nil), w.events...)
}

// of returns the events of one kind.
func (w *watcher) of(kind segno.EventKind) (found []segno.Event) {
	for _, e := range w.all() {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

// take returns the events so far in short, one word each, and forgets them.
// What is not of a visit stands without its state.
func (w *watcher) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var words []string
	for _, e := range w.events {
		words = append(words, short(e))
	}
	w.events = nil
	return strings.Join(words, " ")
}

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

// watched is a bed with an observer.
func watched(t *testing.T, more ...segno.Observer) (*bed, *watcher) {
	w := new(watcher)
	return newBed(t).with(segno.Options{Observers: append(more, w)}), w
}

// wantEvents compares what was told with what is wanted, one line or many.
func (w *watcher) want(t *testing.T, what, want string) {
	t.Helper()
	if got := w.take(); got != strings.Join(strings.Fields(want), " ") {
		t.Errorf("%s:\n got = %s\nwant = %s", what, got, strings.Join(strings.Fields(want), " "))
	}
}

func TestEventsOfASuccess(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		r := b.start(flowOf("f", route{Initial: legA, Steps: legs{legA: {Do: to(legB)}, legB: {Do: to(done)}, done: {Final: true}}}))
		id := r.trigger("f", cargo{})
		r.completed(id)
		for _, e := range w.all() {
			if e.Flow != "f" || e.Run != id || e.At.IsZero() || e.Seq == 0 || e.Visit == 0 || e.Err != nil {
				t.Errorf("event: got = %+v, want flow, run, time, seq and visit, and no error", e)
			}
		}
		w.want(t, "events", `run_started state_entered:a checkpoint1 task_started:a task_succeeded:a
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
		w.want(t, "events", "run_started state_entered:done checkpoint1 checkpoint2 run_finished:completed")
	})
}

func TestEventsOfRetries(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		var s tries
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: s.failing(2), Retry: plain(3, 100*time.Millisecond)})))
		begin := time.Now()
		r.completed(r.trigger("f", cargo{}))
		retries := w.of(segno.EventRetry)
		expect(t, "retries", len(retries), 2)
		expectError(t, "Err of a retry", retries[0].Err, errTest)
		expect(t, "Due of the second", retries[1].Due.Sub(begin), 300*time.Millisecond)
		expect(t, "At of the second", retries[1].At.Sub(begin), 100*time.Millisecond)
		w.want(t, "events", `run_started state_entered:a checkpoint1 task_started:a retry:a1 retry:a2 task_succeeded:a
			state_entered:done checkpoint4 run_finished:completed`)
	})
}

func TestEventsOfAFailure(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		r := b.start(flowOf("f", one(fail)))
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expectError(t, "Err of the task", w.of(segno.EventTaskFailed)[0].Err, errTest)
		expect(t, "Err of the run", fmt.Sprint(w.of(segno.EventRunFinished)[0].Err), errTest.Error())
		w.want(t, "events", "run_started state_entered:a checkpoint1 task_started:a task_failed:a checkpoint2 run_finished:failed")
	})
}

func TestEventsOfAParkedRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		r := b.start(flowOf("f", one(segno.Sleep[cargo](time.Hour, done))))
		begin := time.Now()
		id := r.trigger("f", cargo{})
		synctest.Wait()
		parked := w.of(segno.EventParked)
		expect(t, "Due", parked[0].Due.Sub(begin), time.Hour)
		w.want(t, "events before the wait", "run_started state_entered:a checkpoint1 task_started:a checkpoint2 parked:parked")
		r.completed(id)
		w.want(t, "events behind it", "woken task_started:a task_succeeded:a state_entered:done checkpoint4 run_finished:completed")
	})
}

func TestEventsOfACancel(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		r := b.start(flowOf("f", one(hold)))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r.cancel(id)
		r.cancel(id)
		r.ended(id, segno.RunCancelled)
		w.want(t, "events", "run_started state_entered:a checkpoint1 task_started:a task_failed:a run_cancelled checkpoint2 run_finished:cancelled")
	})
}
