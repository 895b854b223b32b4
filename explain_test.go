package segno_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// explainer is what can be asked why: a running scheduler, and a Reader.
type explainer interface {
	Explain(ctx context.Context, flow string) (segno.Explanation, error)
	ExplainRun(ctx context.Context, run segno.RunID) (segno.Explanation, error)
}

// why asserts why a flow is not running, and until when.
func why(t *testing.T, r explainer, flow string, want segno.Explanation) {
	t.Helper()
	got, err := r.Explain(context.Background(), flow)
	want.Flow, want.Until = flow, want.Until.UTC()
	if got.Until = got.Until.UTC(); err != nil || got != want {
		t.Errorf("Explain(%q):\n got = %+v, %v\nwant = %+v", flow, got, err, want)
	}
}

// whyRun asserts the same of a run.
func whyRun(t *testing.T, r explainer, flow string, id segno.RunID, want segno.Explanation) {
	t.Helper()
	got, err := r.ExplainRun(context.Background(), id)
	want.Flow, want.Run, want.Until = flow, id, want.Until.UTC()
	if got.Until = got.Until.UTC(); err != nil || got != want {
		t.Errorf("ExplainRun(%d):\n got = %+v, %v\nwant = %+v", id, got, err, want)
	}
}

func TestExplainGivesTheOneReason(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		begin := time.Now()
		ctx := context.Background()
		flow := func(id string, w segno.Definition, s segno.Schedule) segno.Flow {
			return segno.Flow{ID: id, Workflow: w, Schedule: s, Backoff: segno.BackoffPolicy{Initial: 10 * time.Minute, Jitter: -1}}
		}
		minutely, hourly := segno.Every(time.Minute), segno.Every(time.Hour)
		bounded := flow("bounded", one(to(done)), minutely)
		bounded.EndAt = begin.Add(30 * time.Second)
		max := flow("max", one(to(done)), minutely)
		max.MaxRuns = 1
		trips := flow("trips", one(fail), hourly)
		trips.Backoff.StreakLimit = 1
		replaced := flow("replaced", one(hold), hourly)
		replaced.Overlap = segno.Replace
		flows := []segno.Flow{
			flow("next", one(to(done)), hourly), flow("fails", one(fail), minutely), trips, flow("busy", one(hold), hourly), replaced,
			flow("manual", one(to(done)), segno.Schedule{}), bounded, max, flow("once", one(to(done)), segno.At(begin)),
		}
		r := b.start(flows...)
		time.Sleep(time.Minute / 2)
		r.pause("next", segno.Pause{Note: "audit", Actor: "ada", Until: begin.Add(50 * time.Minute)})
		busy, other := r.runs("busy")[0].ID, r.runs("replaced")[0].ID
		executing := "is open: executing a, visit 1, attempt 1, entered at 2000-01-01T00:00:00Z (30s ago)"
		checks := func(r explainer, live bool) {
			t.Helper()
			why(t, r, "next", segno.Explanation{
				Reason: segno.ReasonPaused, Until: begin.Add(50 * time.Minute),
				Text: "paused by ada until 2000-01-01T00:50:00Z (in 49m30s): audit",
			})
			why(t, r, "fails", segno.Explanation{
				Reason: segno.ReasonBackoff, Until: begin.Add(10 * time.Minute),
				Text: "backoff until 2000-01-01T00:10:00Z (in 9m30s) after 1 failure in a row: test: went wrong",
			})
			why(t, r, "trips", segno.Explanation{
				Reason: segno.ReasonTripped, Text: "tripped after 1 failure in a row, until ResetFlow: test: went wrong",
			})
			why(t, r, "busy", segno.Explanation{Reason: segno.ReasonOverlap, Blocker: busy, Text: fmt.Sprintf("run %d ", busy) + executing})
			why(t, r, "replaced", segno.Explanation{Reason: segno.ReasonOverlap, Blocker: other, Text: fmt.Sprintf("run %d ", other) + executing})
			why(t, r, "manual", segno.Explanation{Reason: segno.ReasonManual, Text: "manual: it runs when it is triggered"})
			why(t, r, "once", segno.Explanation{
				Reason: segno.ReasonNoSlot, Text: "no slot any more: the only one, 2000-01-01T00:00:00Z, is past",
			})
			if !live {
				return
			}
			why(t, r, "bounded", segno.Explanation{
				Reason: segno.ReasonNoSlot, Text: "no slot any more: the last before Flow.EndAt, 2000-01-01T00:00:30Z, is past",
			})
			why(t, r, "max", segno.Explanation{Reason: segno.ReasonNoSlot, Text: "no slot any more: as many have fired as Flow.MaxRuns allows, 1"})
		}
		checks(r, true)
		checks(b.reader(), false)
		r = b.restart(flows...)
		r.resume("next")
		r.skipNext("next", "closed")
		why(t, r, "next", segno.Explanation{
			Reason: segno.ReasonNextSlot, Until: begin.Add(2 * time.Hour),
			Text: "next slot 2000-01-01T02:00:00Z (in 1h59m30s), behind 1 slot marked to be skipped",
		})
		r = b.restart(flows[1:]...)
		why(t, r, "next", segno.Explanation{
			Reason: segno.ReasonOrphaned, Text: "orphaned: no program has registered it since 2000-01-01T00:00:30Z (now)",
		})
		_, err := r.Explain(ctx, "x")
		expectError(t, "Explain of an unknown flow", err, segno.ErrNotFound)
		_, err = r.ExplainRun(ctx, 4711)
		expectError(t, "ExplainRun of an unknown run", err, segno.ErrNotFound)
	})
}

func TestExplainFollowsABacklogAndItsSlots(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		begin := time.Now()
		var n slotNotes
		f := segno.Flow{ID: "f", Workflow: n.slow(begin, 30*time.Second), Schedule: segno.Every(time.Minute), CatchUp: segno.CatchUpAll(0)}
		b.start(f)
		time.Sleep(50 * time.Second)
		b.stop()
		time.Sleep(3 * time.Minute)
		why(t, b.reader(), "f", segno.Explanation{
			Reason: segno.ReasonDue, Text: "the slot 2000-01-01T00:01:00Z (2m50s ago) has come: it is decided as soon as the program gets to it",
		})
		r := b.start(f)
		synctest.Wait()
		run := r.runs("f")[1].ID
		why(t, r, "f", segno.Explanation{
			Reason: segno.ReasonBacklog, Blocker: run,
			Text: "slots that were missed, from 2000-01-01T00:02:00Z on, wait for run 2, which is open: executing a, visit 1, attempt 1, entered at 2000-01-01T00:03:50Z (now)",
		})
	})
}

func TestExplainKnowsThePlaces(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{MaxConcurrent: 2})
		r := b.start(
			segno.Flow{ID: "pair", Workflow: one(hold), Overlap: segno.Allow(1)}, flowOf("alone", one(hold)), flowOf("last", one(hold)),
		)
		first, second := r.trigger("pair", cargo{}), r.trigger("pair", cargo{})
		synctest.Wait()
		why(t, r, "pair", segno.Explanation{
			Reason: segno.ReasonOverlap, Blocker: first,
			Text: "as many runs execute as Allow(1) lets, and 1 wait; run 1 is the oldest: executing a, visit 1, attempt 1, entered at 2000-01-01T00:00:00Z (now)",
		})
		whyRun(t, r, "pair", second, segno.Explanation{Reason: segno.ReasonOverlap, Text: "as many runs of the flow execute as Allow(1) lets"})
		r.trigger("alone", cargo{})
		last := r.trigger("last", cargo{})
		const full = "as many runs execute, over all flows, as Options.MaxConcurrent allows"
		why(t, r, "last", segno.Explanation{Reason: segno.ReasonMaxConcurrent, Blocker: last, Text: "1 run is pending: " + full})
		whyRun(t, r, "last", last, segno.Explanation{Reason: segno.ReasonMaxConcurrent, Text: full})
		whyRun(t, b.reader(), "last", last, segno.Explanation{
			Reason: segno.ReasonDue, Text: "its turn has come: it goes on in a as soon as the program gets to it",
		})
	})
}

func TestExplainRunSaysWhereARunStands(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		begin := time.Now()
		child := one(segno.Sleep[cargo](time.Hour, done))
		undo := func(ctx context.Context, _ cargo) error { time.Sleep(time.Minute); return errTest }
		undone := route{Initial: legA, Steps: legs{legA: {Do: to(legB), Undo: undo, UndoRetry: plain(2, time.Hour)}, legB: {Do: fail}, done: {Final: true}}}
		flows := []segno.Flow{
			flowOf("parked", child),
			flowOf("signal", oneStep(segno.Step[leg, cargo]{
				Do: segno.Await("go", func(context.Context, *cargo, string) (leg, error) { return done, nil }), Timeout: time.Hour,
			})),
			flowOf("child", child),
			flowOf("parent", oneStep(segno.Step[leg, cargo]{
				Do: segno.Call("child", child, func(cargo) cargo { return cargo{} }, func(context.Context, *cargo, segno.Run[leg, cargo]) (leg, error) { return done, nil }),
			})),
			flowOf("later", one(to(done))), flowOf("good", one(to(done))), flowOf("bad", one(fail)), flowOf("undone", undone),
			{ID: "replaced", Workflow: one(deaf(time.Hour, done, nil)), Overlap: segno.Replace},
		}
		r := b.start(flows...)
		ids := map[string]segno.RunID{}
		for _, f := range flows {
			if f.ID != "child" && f.ID != "later" {
				ids[f.ID] = r.trigger(f.ID, cargo{})
			}
		}
		ids["later"] = r.triggerWith("later", segno.Trigger{At: begin.Add(time.Hour)})
		synctest.Wait()
		called := r.runs("child")[0].ID
		inAnHour := "2000-01-01T01:00:00Z (in 1h0m0s)"
		for flow, want := range map[string]segno.Explanation{
			"parked": {Reason: segno.ReasonParked, Until: begin.Add(time.Hour), Text: "parked in a, visit 1, until " + inAnHour},
			"signal": {Reason: segno.ReasonSignal, Until: begin.Add(time.Hour), Text: `waits in a for the signal "go", at most until ` + inAnHour},
			"parent": {Reason: segno.ReasonChild, Blocker: called, Text: fmt.Sprintf("waits in a for run %d, which it called", called)},
			"later":  {Reason: segno.ReasonNotBefore, Until: begin.Add(time.Hour), Text: "triggered for " + inAnHour},
			"good":   {Reason: segno.ReasonEnded, Text: "completed in done at 2000-01-01T00:00:00Z (now)"},
			"bad":    {Reason: segno.ReasonEnded, Text: "failed in a at 2000-01-01T00:00:00Z (now): test: went wrong"},
			"undone": {Reason: segno.ReasonRollingBack, Text: "rolling back: test: went wrong"},
		} {
			whyRun(t, r, flow, ids[flow], want)
			whyRun(t, b.reader(), flow, ids[flow], want)
		}
		second := r.trigger("replaced", cargo{})
		whyRun(t, r, "replaced", ids["replaced"], segno.Explanation{
			Reason: segno.ReasonCancelled, Text: "a cancel was asked for: it rolls back as soon as a lets it",
		})
		whyRun(t, r, "replaced", second, segno.Explanation{
			Reason: segno.ReasonOverlap, Blocker: ids["replaced"], Text: fmt.Sprintf("behind run %d, which is running in a", ids["replaced"]),
		})
		time.Sleep(2 * time.Minute)
		whyRun(t, r, "undone", ids["undone"], segno.Explanation{
			Reason: segno.ReasonRollingBack, Until: begin.Add(61 * time.Minute),
			Text: "rolling back: test: went wrong; the next undo is tried at 2000-01-01T01:01:00Z (in 59m0s)",
		})
		time.Sleep(2 * time.Hour)
		whyRun(t, r, "undone", ids["undone"], segno.Explanation{
			Reason: segno.ReasonEnded,
			Text:   "undo_failed in b at 2000-01-01T01:02:00Z (1h0m0s ago): test: went wrong; UndoRun repeats the undos that failed, AckRun accepts it",
		})
	})
}
