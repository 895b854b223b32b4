package segno_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// referenceControl are the rows of the engine's table about cancelling flows,
// stopping, and what is still there afterwards.
func referenceControl() scenarios {
	return scenarios{
		"S40_cancel_inflight":            inTime(engineS40),
		"S41_cancel_idle_unknown":        inTime(engineS41),
		"S42_cancel_dirty":               inTime(engineS42),
		"S43_cancel_keeps_schedule":      inTime(engineS43),
		"S45_cancel_race_reserve":        inTime(engineS45),
		"S46_stop_interrupts_sleep":      inTime(engineS46),
		"S47_stop_no_extra_run":          inTime(engineS47),
		"S48_stop_cancels_runs":          inTime(engineS48),
		"S49_stop_idempotent":            inTime(engineS49),
		"S50_post_stop_calls":            inTime(engineS50),
		"S51_stop_teardown_order":        inTime(engineS51),
		"S52_stop_bounded":               inTime(engineS52),
		"S53_wait_without_stop":          inTime(engineS53),
		"S54_drop_without_stop":          inTime(engineS54),
		"S55_escaped_panic":              inTime(engineS55),
		"S56_cancelled_error_from_task":  inTime(engineS56),
		"S57_queue_full":                 inTime(engineS57),
		"S58_durable_status":             inTime(engineS58),
		"S59_misfire_catch_up":           inTime(engineS59),
		"S60_checkpointed_interval_flow": inTime(engineS60),
		"S61_zero_interval":              atOnce(engineS61),
		"S62_run_history":                inTime(engineS62),
	}
}

func engineS40(t *testing.T) {
	var said tally
	r := startOne(t, one(resting(&said, time.Minute)))
	id := r.begun()
	begin := time.Now()
	r.cancelFlow()
	r.ended(id, segno.RunCancelled)
	expect(t, "took", time.Since(begin), 0)
	r.stands(segno.StatusIdle, 1, 0)
	after(2 * time.Minute)
	expect(t, "said", said.String(), "begin")
}

func engineS41(t *testing.T) {
	r := startOne(t, one(to(done)))
	r.cancelFlow()
	r.stands(segno.StatusIdle, 0, 0)
	expectError(t, "CancelFlow", r.CancelFlow(context.Background(), "x"), segno.ErrNotFound)
}

func engineS42(t *testing.T) {
	r := startOne(t, dirty(saga(1, new(tally), hold), "s1"))
	id := r.begun()
	r.cancelFlow()
	r.ended(id, segno.RunUndoFailed)
	r.stands(segno.StatusBackoff, 1, 1)
}

func engineS43(t *testing.T) {
	r := startAt(t, one(hold), segno.Every(80*time.Millisecond))
	synctest.Wait()
	r.cancelFlow()
	r.ended(r.runs("f")[0].ID, segno.RunCancelled)
	after(80 * time.Millisecond)
	r.stands(segno.StatusRunning, 2, 0)
	r.cancelFlow()
}

func engineS45(t *testing.T) {
	r := startOne(t, one(hold))
	for range 30 {
		id := r.trigger("f", cargo{})
		r.cancelFlow()
		r.ended(id, segno.RunCancelled)
	}
}

func engineS46(t *testing.T) {
	b := newBed(t)
	b.start(
		segno.Flow{ID: "interval", Workflow: one(to(done)), Schedule: segno.Every(time.Hour)},
		segno.Flow{ID: "daily", Workflow: one(to(done)), Schedule: segno.Cron("@daily")},
		window(one(fail), segno.Every(time.Second)),
	)
	after(1500 * time.Millisecond)
	begin := time.Now()
	b.stop()
	expect(t, "took", time.Since(begin), 0)
}

func engineS47(t *testing.T) {
	b := newBed(t)
	var s tries
	b.start(segno.Flow{ID: "f", Workflow: one(s.counting(deaf(1500*time.Millisecond, done, nil))), Schedule: segno.Every(time.Second), Overlap: segno.Allow(0)})
	after(500 * time.Millisecond)
	b.stop() // it waits for the run in flight, and a slot comes meanwhile
	after(time.Minute)
	expect(t, "calls", s.calls(), 1)
}

func engineS48(t *testing.T) {
	b := newBed(t)
	var said, undone tally
	f := flowOf("f", saga(2, &undone, resting(&said, 30*time.Second)))
	r := b.start(f)
	id := r.begun()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	begin := time.Now()
	expectError(t, "Stop", r.Stop(ctx), nil)
	b.run = nil
	expect(t, "took", time.Since(begin), 4*time.Second)
	expect(t, "said, undone", said.take()+", "+undone.String(), "begin, ")
	r = b.start(f)
	r.completed(id)
	expect(t, "said after a start, undone", said.String()+", "+undone.String(), "begin end, ")
	r.stands(segno.StatusCompleted, 1, 0)
}

func engineS49(t *testing.T) {
	b := newBed(t)
	r := b.start(flowOf("f", one(deaf(20*time.Second, done, nil))))
	r.begun()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	first := r.Stop(ctx) // it has to leave the step behind
	again := b.run.Stop(context.Background())
	b.run = nil
	if first == nil || again != first {
		t.Errorf("the second Stop: got error %v, want that of the first, %v", again, first)
	}
	after(time.Minute)
}

func engineS50(t *testing.T) {
	b := newBed(t)
	ctx := context.Background()
	r := b.start(flowOf("f", one(to(done))))
	id := r.begun()
	b.stop()
	_, trigger := r.Trigger(ctx, "f", segno.Trigger{})
	for name, err := range map[string]error{
		"Trigger": trigger, "ResetFlow": r.ResetFlow(ctx, "f"), "CancelFlow": r.CancelFlow(ctx, "f"), "CancelRun": r.CancelRun(ctx, id),
	} {
		expectError(t, name, err, segno.ErrStopped)
	}
}

func engineS51(t *testing.T) {
	var said tally
	b := newBed(t).with(segno.Options{Resources: []segno.Resource{resource("1", &said), resource("2", &said), resource("3", &said)}})
	w := one(to(done))
	b.start(flowOf("f", w), flowOf("g", w), flowOf("h", w))
	said.take()
	b.stop()
	expect(t, "said", said.String(), "-3(value of 3) -2(value of 2) -1(value of 1)")
}

func engineS52(t *testing.T) {
	var said tally
	b := newBed(t).with(segno.Options{Resources: []segno.Resource{resource("1", &said)}})
	w := change(saga(1, new(tally), fail), "s1", func(s *segno.Step[leg, cargo]) {
		s.Undo = func(context.Context, cargo) error { time.Sleep(time.Hour); return nil }
	})
	r := b.start(flowOf("f", w))
	id := r.begun()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	begin := time.Now()
	err := r.Stop(ctx)
	b.run = nil
	expect(t, "took: the context and 5 s grace", time.Since(begin), 15*time.Second)
	expect(t, "the error names the run", strings.Contains(fmt.Sprint(err), fmt.Sprintf("run %d of f", id)), true)
	expect(t, "said", said.String(), "+1 -1(value of 1)")
	after(time.Hour) // the hung undo returns
}

func engineS53(t *testing.T) {
	b := newBed(t)
	r := b.start(flowOf("f", one(to(done))))
	begin := time.Now()
	go func() {
		time.Sleep(time.Hour)
		_ = r.Stop(context.Background())
	}()
	expectError(t, "Wait", r.Wait(), nil)
	expect(t, "took", time.Since(begin), time.Hour)
}

func engineS54(t *testing.T) {
	b := newBed(t)
	var s tries
	ctx, cancel := context.WithCancel(context.Background())
	r, err := b.tryStart(ctx, segno.Flow{ID: "f", Workflow: one(s.failing(0)), Schedule: segno.Every(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	after(2500 * time.Millisecond)
	cancel()
	after(time.Minute)
	expect(t, "calls", s.calls(), 3)
	expectError(t, "Wait", r.Wait(), nil)
}

func engineS55(t *testing.T) {
	r := startOne(t, one(func(ctx context.Context, c *cargo) (leg, error) {
		return done, segno.OnCommit(ctx, func(segno.Tx) error {
			if c.N == 0 {
				panic("in the writer")
			}
			return nil
		})
	}))
	expectError(t, "the run", r.fails(), segno.ErrPanic)
	r.stands(segno.StatusBackoff, 1, 1)
	r.completed(r.trigger("f", cargo{N: 1}))
}

func engineS56(t *testing.T) {
	r := startOne(t, one(func(context.Context, *cargo) (leg, error) { return "", context.Canceled }))
	e := r.fails()
	expect(t, "it counts as a cancel", errors.Is(e, context.Canceled), false)
	r.stands(segno.StatusBackoff, 1, 1)
}

func engineS57(t *testing.T) {
	r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(hold), Overlap: segno.Allow(1), MaxPending: 64})
	ctx := context.Background()
	var all sync.WaitGroup
	free := make(chan struct{})
	all.Go(func() { _ = r.Write(ctx, func(segno.Tx) error { <-free; return nil }) })
	synctest.Wait() // the writer is blocked
	var taken, busy tally
	for range 70 {
		all.Go(func() {
			switch _, err := r.Trigger(ctx, "f", segno.Trigger{}); {
			case err == nil:
				taken.add("taken")
			case errors.Is(err, segno.ErrBusy):
				busy.add("busy")
			}
		})
	}
	synctest.Wait()
	close(free)
	all.Wait()
	expect(t, "taken: one executes and 64 wait", taken.len(), 65)
	expect(t, "refused", busy.len(), 5)
	expect(t, "runs", len(r.runs("f")), 65)
	r.cancelFlow()
}

func engineS58(t *testing.T) {
	b := newBed(t)
	p := segno.BackoffPolicy{Initial: time.Hour, Jitter: -1, StreakLimit: 3}
	f := segno.Flow{ID: "f", Workflow: one(fail), Backoff: p}
	r := b.start(f)
	r.fails()
	until := r.status("f").NextEligible
	after(time.Minute)
	r = b.restart(f)
	expect(t, "window after a restart", r.status("f").NextEligible, until)
	r.stands(segno.StatusBackoff, 1, 1)
	r.fails()
	r.fails()
	r = b.restart(f)
	r.stands(segno.StatusTripped, 3, 3)
	expect(t, "last error", r.status("f").LastError, errTest.Error())
}

// Missed slots are left out, run once for all, or run one by one.
func engineS59(t *testing.T) {
	flows := make([]segno.Flow, 0, 3)
	var skip, once, all slotNotes
	for _, f := range []struct {
		id      string
		n       *slotNotes
		catchUp segno.CatchUp
	}{{"skip", &skip, segno.CatchUpSkip}, {"once", &once, segno.CatchUpLatest}, {"all", &all, segno.CatchUpAll(0)}} {
		flows = append(flows, segno.Flow{ID: f.id, Workflow: f.n.flow(time.Now()), Schedule: segno.Every(time.Minute), CatchUp: f.catchUp})
	}
	b := newBed(t)
	r := b.start(flows...)
	after(time.Second)
	b.kill()
	time.Sleep(3*time.Minute + 2*time.Second)
	r = b.start(flows...)
	synctest.Wait()
	expect(t, "runs, skip", skip.String(), "0s@0s")
	expect(t, "runs, once", once.String(), "0s@0s 3m0s+2(1m0s)@3m3s")
	expect(t, "runs, all", all.String(), "0s@0s 1m0s@3m3s 2m0s@3m3s 3m0s@3m3s")
	expect(t, "slots, skip", r.slots("skip"), "fired 1, skipped 3 missed")
	expect(t, "slots, once", r.slots("once"), "fired 1, coalesced 2, fired 1")
	expect(t, "slots, all", r.slots("all"), "fired 1, fired 1, fired 1, fired 1")
}

func engineS60(t *testing.T) {
	var s tries
	r := startAt(t, route{Initial: legA, Steps: legs{legA: {Do: to(legB)}, legB: {Do: flaky(&s, "f").Steps[legA].Do}, done: {Final: true}}}, segno.Every(time.Minute))
	after(time.Minute)
	runs := r.runs("f")
	expect(t, "log of the first", r.log(runs[0].ID), "enter a, enter b, end b")
	expect(t, "log of the second", r.log(runs[1].ID), "enter a, enter b, end done")
	r.stands(segno.StatusCompleted, 2, 0)
}

func engineS61(t *testing.T) {
	s := builder()
	expectError(t, "Every", s.Every("f", one(to(done)), 0), segno.ErrSchedule)
	expectError(t, "a fixed delay", scheduled(segno.FixedDelay(0)), segno.ErrSchedule)
	expect(t, "IsEmpty", s.IsEmpty(), true)
}

func engineS62(t *testing.T) {
	b := newBed(t)
	var s tries
	f := flowOf("f", one(func(ctx context.Context, c *cargo) (leg, error) {
		time.Sleep(time.Second)
		return flaky(&s, ".f.").Steps[legA].Do(ctx, c)
	}))
	r := b.start(f)
	begin := time.Now()
	for range 3 {
		_, _ = r.WaitRun(context.Background(), r.trigger("f", cargo{}))
	}
	var got tally
	for _, run := range b.restart(f).runs("f") {
		got.add("%d:%s:%v-%v:%s", run.ID, run.Status, run.Started.Sub(begin), run.Ended.Sub(begin), run.Error)
	}
	expect(t, "runs after a restart", got.String(), "1:completed:0s-1s: 2:failed:1s-2s:"+errTest.Error()+" 3:completed:2s-3s:")
}
