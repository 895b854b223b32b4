package segno_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

func TestATriggerTakesAnythingThatFitsTheData(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(to(done)), Input: cargo{N: 1}})
		for name, c := range map[string]struct {
			input any
			want  string
		}{
			"nothing: Flow.Input": {nil, `{"n":1}`},
			"a value":             {cargo{N: 2}, `{"n":2}`},
			"a pointer":           {&cargo{N: 3}, `{"n":3}`},
			"JSON":                {json.RawMessage(`{"text":"x","n":4}`), `{"n":4,"text":"x"}`},
			"a map":               {map[string]any{"n": 5}, `{"n":5}`},
			"another struct":      {struct{ N int }{6}, `{"n":6}`},
		} {
			expect(t, name, string(r.completed(r.triggerWith("f", segno.Trigger{Input: c.input})).Data), c.want)
		}
	})
}

func TestAnInputThatDoesNotFitIsErrConfig(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(to(done))))
		for name, input := range map[string]any{
			"a text":           "text",
			"a wrong field":    struct{ N string }{"x"},
			"an unknown field": map[string]any{"unknown": 1},
			"a function":       func() {},
			"broken JSON":      json.RawMessage(`{"n":`),
		} {
			_, err := r.Trigger(context.Background(), "f", segno.Trigger{Input: input})
			expectError(t, name, err, segno.ErrConfig)
		}
		expect(t, "runs", len(r.runs("f")), 0)
		expect(t, "run count", r.status("f").RunCount, 0)
	})
}

func TestATriggerOfAnUnknownFlowIsErrNotFound(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(to(done))))
		_, err := r.Trigger(context.Background(), "x", segno.Trigger{})
		expectError(t, "Trigger", err, segno.ErrNotFound)
	})
}

func TestATriggeredRunIsDurableWhenTriggerReturns(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		f := flowOf("f", one(to(done)))
		r := b.start(f)
		id := r.trigger("f", cargo{N: 4})
		r = b.restart(f)
		expect(t, "data", string(r.completed(id).Data), `{"n":4}`)
	})
}

func TestAKeyMakesATriggerIdempotent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		b := newBed(t)
		f, g := flowOf("f", one(fail)), flowOf("g", one(to(done)))
		r := b.start(f, g)
		first := segno.Trigger{Input: cargo{N: 1}, Key: "k"}
		id := r.triggerWith("f", first)
		expect(t, "while it runs", r.triggerWith("f", first), id)
		r.ended(id, segno.RunFailed)
		for _, when := range []string{"before", "after"} {
			expect(t, "when it has failed, "+when+" a restart", r.triggerWith("f", first), id)
			other, err := r.Trigger(ctx, "f", segno.Trigger{Input: cargo{N: 2}, Key: "k"})
			expectError(t, "with another input, "+when+" a restart", err, segno.ErrKeyReused)
			expect(t, "the run it names", other, id)
			found, err := r.FindRun(ctx, "f", "k")
			if err != nil || found.ID != id || found.Key != "k" {
				t.Errorf("FindRun: got = %+v, %v, want run %d", found, err, id)
			}
			r = b.restart(f, g)
		}
		expect(t, "run count", r.status("f").RunCount, 1)
		other := r.triggerWith("g", segno.Trigger{Input: cargo{N: 2}, Key: "k"})
		expect(t, "the same key of another flow is another run", other != id, true)
		_, err := r.FindRun(ctx, "f", "x")
		expectError(t, "FindRun with an unknown key", err, segno.ErrNotFound)
		r.completed(other)
	})
}

func TestAKeyIsLookedUpBeforeAnythingRefusesTheTrigger(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(fail), Backoff: segno.BackoffPolicy{StreakLimit: 1}}, flowOf("g", one(hold)))
		id := r.triggerWith("f", segno.Trigger{Key: "k"})
		r.ended(id, segno.RunFailed)
		expect(t, "status", r.status("f").Status, segno.StatusTripped)
		expect(t, "a trigger of the tripped flow", r.triggerWith("f", segno.Trigger{Key: "k"}), id)
		running := r.triggerWith("g", segno.Trigger{Key: "k"})
		expect(t, "a trigger of the running flow", r.triggerWith("g", segno.Trigger{Key: "k"}), running)
		r.cancel(running)
		r.ended(running, segno.RunCancelled)
	})
}

func TestManyTriggersWithOneKeyMakeOneRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(to(done)), Overlap: segno.Allow(0)})
		got := make(chan segno.RunID)
		for range 50 {
			go func() {
				id, err := r.Trigger(context.Background(), "f", segno.Trigger{Key: "k"})
				if err != nil {
					t.Errorf("Trigger: got error %v, want none", err)
				}
				got <- id
			}()
		}
		first := <-got
		for range 49 {
			expect(t, "run", <-got, first)
		}
		r.completed(first)
		expect(t, "runs", len(r.runs("f")), 1)
	})
}

func TestATriggerOfARunningFlowIsErrRunningUnderSkip(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		b := newBed(t)
		wait := one(func(context.Context, *cargo) (leg, error) { return "", segno.Snooze(time.Hour) })
		f, g := flowOf("f", one(hold)), flowOf("g", wait)
		r := b.start(f, g)
		running, parked := r.trigger("f", cargo{}), r.trigger("g", cargo{})
		synctest.Wait()
		for _, id := range []string{"f", "g"} {
			_, err := r.Trigger(ctx, id, segno.Trigger{})
			expectError(t, "trigger of "+id, err, segno.ErrRunning)
			expect(t, "run count of "+id, r.status(id).RunCount, 1)
			expect(t, "status of "+id, r.status(id).Status, segno.StatusRunning)
		}
		r = b.restart(f, g)
		for _, id := range []string{"f", "g"} {
			_, err := r.Trigger(ctx, id, segno.Trigger{})
			expectError(t, "trigger of "+id+" after a restart", err, segno.ErrRunning)
		}
		r.cancel(running)
		r.cancel(parked)
		r.ended(running, segno.RunCancelled)
		r.ended(parked, segno.RunCancelled)
	})
}

func TestTwentyTriggersInARowAllRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(to(done))))
		for range 20 {
			r.completed(r.trigger("f", cargo{}))
		}
		expect(t, "run count", r.status("f").RunCount, 20)
		synctest.Wait()
		expect(t, "goroutines in runs", r.InHand(), 0)
	})
}

func TestATriggerForLaterIsPendingUntilThen(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		b := newBed(t)
		var s tries
		f := flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) { s.note(ctx); return done, nil }))
		r := b.start(f)
		at := time.Now().Add(time.Hour)
		id := r.triggerWith("f", segno.Trigger{At: at})
		synctest.Wait()
		info := r.info(id)
		expect(t, "status", info.Status, segno.RunPending)
		expect(t, "due", info.Due, at.UTC())
		expect(t, "the flow's status", r.status("f").Status, segno.StatusIdle)
		expect(t, "the flow's open runs", r.status("f").Open, 0)
		now := r.trigger("f", cargo{}) // it does not count yet
		r.completed(now)
		b.stop()
		time.Sleep(59 * time.Minute)
		r = b.start(f)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		expect(t, "calls before", s.calls(), 1)
		r.completed(id)
		expect(t, "began", s.call(2), at.UTC())
		expect(t, "Started", r.info(id).Started, at.UTC())
		_, err := r.Trigger(ctx, "f", segno.Trigger{At: time.Now().Add(-time.Hour)})
		if err != nil {
			t.Errorf("a trigger for the past: got error %v, want none", err)
		}
		expect(t, "a run triggered for the past", r.completed(3).Started, time.Now().UTC())
	})
}

func TestARunTriggeredForLaterWaitsForTheOpenOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		r := newBed(t).start(flowOf("f", one(deaf(time.Minute, done, nil))))
		begin := time.Now().UTC()
		first := r.trigger("f", cargo{})
		second := r.triggerWith("f", segno.Trigger{At: begin.Add(10 * time.Second)})
		third := r.triggerWith("f", segno.Trigger{At: begin.Add(20 * time.Second)})
		time.Sleep(30 * time.Second)
		expect(t, "the flow's status", r.status("f").Status, segno.StatusRunning)
		r.completed(first)
		r.completed(second)
		_, err := r.Trigger(ctx, "f", segno.Trigger{})
		expectError(t, "a trigger while the third is due", err, segno.ErrRunning)
		r.completed(third)
		expect(t, "the second began", r.info(second).Started, begin.Add(time.Minute))
		expect(t, "the third began", r.info(third).Started, begin.Add(2*time.Minute))
	})
}

func TestMaxPendingRefusesWithErrBusy(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		b := newBed(t)
		ready := make(chan struct{})
		w := one(func(context.Context, *cargo) (leg, error) { <-ready; return done, nil })
		f := segno.Flow{ID: "f", Workflow: w, Overlap: segno.Allow(2), MaxPending: 3}
		r := b.start(f)
		var ids []segno.RunID
		for range 5 {
			ids = append(ids, r.trigger("f", cargo{}))
		}
		_, err := r.Trigger(ctx, "f", segno.Trigger{})
		expectError(t, "the sixth trigger", err, segno.ErrBusy)
		expect(t, "run count", r.status("f").RunCount, 5)
		close(ready)
		for _, id := range ids {
			r.completed(id)
		}
		synctest.Wait()
		r.completed(r.trigger("f", cargo{}))
	})
}

func TestResetInATriggerClearsTheTripInTheSameCommit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		b := newBed(t)
		f := segno.Flow{ID: "f", Workflow: one(func(_ context.Context, c *cargo) (leg, error) {
			if c.N == 0 {
				return "", errTest
			}
			return done, nil
		}), Backoff: segno.BackoffPolicy{StreakLimit: 1}}
		r := b.start(f)
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		_, err := r.Trigger(ctx, "f", segno.Trigger{})
		expectError(t, "without Reset", err, segno.ErrTripped)
		if err == nil || !errors.Is(err, segno.ErrTripped) || !contains(err.Error(), "ResetFlow", "went wrong") {
			t.Errorf("text: got = %v, want the way out and the last error", err)
		}
		synctest.Wait()
		before := b.commits.Load()
		id := r.triggerWith("f", segno.Trigger{Reset: true, Input: cargo{N: 1}})
		r.completed(id)
		expect(t, "commits", b.commits.Load()-before, 2)
		info := r.status("f")
		expect(t, "status", info.Status, segno.StatusCompleted)
		expect(t, "streak", info.FailureStreak, 0)
	})
}

func TestResetInATriggerForLaterFreesTheScheduleAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var calls tally
		f := segno.Flow{ID: "f", Workflow: one(func(context.Context, *cargo) (leg, error) {
			if calls.add("x") == 1 {
				return "", errTest
			}
			return done, nil
		}), Schedule: segno.Every(time.Second), Backoff: segno.BackoffPolicy{Initial: time.Hour, Jitter: -1}}
		r := b.start(f)
		time.Sleep(10500 * time.Millisecond)
		expect(t, "calls in the window", calls.len(), 1)
		r.triggerWith("f", segno.Trigger{Reset: true, At: time.Now().Add(time.Hour)})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		expect(t, "calls two seconds later", calls.len(), 3)
		expect(t, "slots", r.slots("f"), "fired 1, skipped 10 backoff, fired 1, fired 1")
	})
}

func TestATriggerBypassesBackoffAndPause(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ok := false
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(func(context.Context, *cargo) (leg, error) {
			if !ok {
				return "", errTest
			}
			return done, nil
		}), Backoff: segno.BackoffPolicy{Initial: time.Minute, Jitter: -1}})
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		first := r.status("f")
		time.Sleep(time.Second)
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		second := r.status("f")
		expect(t, "streak", second.FailureStreak, 2)
		expect(t, "the new window ends later", second.NextEligible.After(first.NextEligible), true)
		if err := r.PauseFlow(context.Background(), "f", segno.Pause{}); err != nil {
			t.Fatal(err)
		}
		ok = true
		r.completed(r.trigger("f", cargo{}))
		info := r.status("f")
		expect(t, "streak after success", info.FailureStreak, 0)
		expect(t, "window after success", info.NextEligible, time.Time{})
		expect(t, "paused", info.Paused, true)
		expect(t, "status", info.Status, segno.StatusCompleted)
	})
}

func TestAGivenUpTriggerIsNotHalfDone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(to(done))))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		release := make(chan struct{})
		go func() {
			_ = r.Write(context.Background(), func(segno.Tx) error { <-release; return nil })
		}()
		synctest.Wait()
		_, err := r.Trigger(ctx, "f", segno.Trigger{})
		expectError(t, "Trigger", err, context.DeadlineExceeded)
		close(release)
		synctest.Wait()
		for _, run := range r.runs("f") {
			r.completed(run.ID) // its outcome was unknown to the caller; it is whole in any case
		}
		expect(t, "runs and the count of them", fmt.Sprint(len(r.runs("f"))), fmt.Sprint(r.status("f").RunCount))
	})
}

func TestAnInputBeyondMaxDataIsErrConfig(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{MaxData: 100})
		r := b.start(flowOf("f", one(to(done))))
		_, err := r.Trigger(context.Background(), "f", segno.Trigger{Input: cargo{Text: strings.Repeat("x", 200)}})
		expectError(t, "Trigger", err, segno.ErrConfig)
		expect(t, "runs", len(r.runs("f")), 0)
	})
}
