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

// referenceCancel are the rows of the engine's table about cancelling a run.
func referenceCancel() scenarios {
	return scenarios{
		"C01_mid_task":                          inTime(engineC01),
		"C02_pre_cancelled":                     inTime(engineC02),
		"C03_saga_rollback":                     inTime(engineC03),
		"C04_dirty_cancel":                      inTime(engineC04),
		"C05_saga_step_completes":               inTime(engineC05),
		"C06_saga_step_fails_after_cancel":      inTime(engineC06),
		"C07_cancel_before_exit":                inTime(engineC07),
		"C10_beats_timeout":                     inTime(engineC10),
		"C11_drain_uncancellable":               inTime(engineC11),
		"C12_teardown":                          inTime(engineC12),
		"C15_token_clones":                      inTime(engineC15),
		"C16_handle_dropped":                    inTime(engineC16),
		"C18_resume_pre_cancelled":              inTime(engineC18),
		"C19_cancel_then_resume_empty_stack":    inTime(engineC19),
		"C20_cancel_then_resume_after_rollback": inTime(engineC20),
		"C21_retry_sleep":                       inTime(engineC21),
		"C22_durable_cancel":                    inTime(engineC22),
		"C23_task_ignores_context":              inTime(engineC23),
	}
}

// cancelled cancels a run and waits for its end.
func (l *live) cancelled(id segno.RunID) *segno.RunError {
	l.t.Helper()
	l.cancel(id)
	return l.ended(id, segno.RunCancelled)
}

// sagaStep replaces what a step of a saga does.
func sagaStep(w route, name leg, f do) route {
	return change(w, name, func(s *segno.Step[leg, cargo]) { s.Do = f })
}

func engineC01(t *testing.T) {
	var said tally
	r := startOne(t, one(resting(&said, 10*time.Second)))
	id := r.begun()
	begin := time.Now()
	expectError(t, "the run", r.cancelled(id), context.Canceled)
	expect(t, "took", time.Since(begin), 0)
	after(time.Minute)
	expect(t, "said", said.String(), "begin")
}

func engineC02(t *testing.T) {
	var s tries
	r := startOne(t, one(s.failing(0)))
	id := r.triggerWith("f", segno.Trigger{At: time.Now().Add(time.Minute)})
	expectError(t, "the run", r.cancelled(id), context.Canceled)
	after(2 * time.Minute)
	expect(t, "calls", s.calls(), 0)
	expect(t, "log: one end", r.log(id), "enter a, end a")
}

func engineC03(t *testing.T) {
	var undone tally
	r := startOne(t, saga(2, &undone, hold))
	e := r.cancelled(r.begun())
	expectError(t, "the run", e, context.Canceled)
	expect(t, "state", e.State, "s3")
	expect(t, "undone", undone.String(), "s2:2 s1:1")
}

func engineC04(t *testing.T) {
	var undone tally
	r := startOne(t, dirty(saga(2, &undone, hold), "s2"))
	id := r.begun()
	r.cancel(id)
	e := r.ended(id, segno.RunUndoFailed)
	expectError(t, "the first error", e.Err, context.Canceled)
	expect(t, "failed undos", len(e.Undo), 1)
	expect(t, "undone", undone.String(), "s1:1")
}

func engineC05(t *testing.T) {
	var said, undone tally
	w := sagaStep(saga(2, &undone, to(done)), "s1", func(ctx context.Context, c *cargo) (leg, error) {
		_, err := resting(&said, 150*time.Millisecond)(ctx, c)
		return "s2", err
	})
	w = sagaStep(w, "s2", func(context.Context, *cargo) (leg, error) { said.add("next"); return "s3", nil })
	r := startOne(t, w)
	id := r.begun()
	begin := time.Now()
	r.cancelled(id)
	expect(t, "took", time.Since(begin), 150*time.Millisecond)
	expect(t, "said", said.String(), "begin end")
	expect(t, "undone", undone.String(), "s1:0")
}

func engineC06(t *testing.T) {
	var undone tally
	r := startOne(t, sagaStep(saga(2, &undone, to(done)), "s2", deaf(time.Second, "", errTest)))
	e := r.cancelled(r.begun())
	expectError(t, "the run", e, context.Canceled)
	expect(t, "the text has the step's error", contains(e.Error(), errTest.Error()), true)
	expect(t, "undone", undone.String(), "s1:1")
	r.stands(segno.StatusIdle, 1, 0)
}

func engineC07(t *testing.T) {
	var undone tally
	r := startOne(t, sagaStep(saga(1, &undone, fail), "s1", deaf(time.Second, done, nil)))
	id := r.begun()
	r.cancel(id)
	r.completed(id)
	expect(t, "undone", undone.String(), "")
}

func engineC10(t *testing.T) {
	r := startOne(t, within(time.Second, one(deaf(2*time.Second, "", errTest))))
	id := r.begun()
	after(999 * time.Millisecond)
	expectError(t, "the run", r.cancelled(id), context.Canceled)
}

func engineC11(t *testing.T) {
	var said tally
	w := saga(3, new(tally), hold)
	for name := range w.Steps {
		if w.Steps[name].Undo != nil {
			w = change(w, name, func(s *segno.Step[leg, cargo]) {
				s.Undo = func(ctx context.Context, c cargo) error {
					time.Sleep(5 * time.Second)
					said.add("%d:%v", c.N, ctx.Err())
					return nil
				}
			})
		}
	}
	r := startOne(t, w)
	id := r.begun()
	r.cancel(id)
	after(6 * time.Second)
	r.cancelled(id) // again, in the middle
	expect(t, "undone", said.String(), "3:<nil> 2:<nil> 1:<nil>")
}

func engineC12(t *testing.T) {
	var said tally
	b := newBed(t).with(segno.Options{Resources: []segno.Resource{resource("1", &said)}})
	r := b.start(flowOf("f", one(hold)))
	r.cancelled(r.begun())
	expect(t, "said before Stop", said.take(), "+1")
	b.stop()
	expect(t, "said by Stop", said.String(), "-1(value of 1)")
}

func engineC15(t *testing.T) {
	var seen tally
	r := startOne(t, one(func(ctx context.Context, _ *cargo) (leg, error) {
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				clone, stop := context.WithTimeout(ctx, time.Hour)
				defer stop()
				<-clone.Done()
				seen.add("%v", context.Cause(clone) == context.Cause(ctx))
			})
		}
		all.Wait()
		late, stop := context.WithCancel(ctx)
		defer stop()
		seen.add("%v", late.Err())
		return "", ctx.Err()
	}))
	r.cancelled(r.begun())
	expect(t, "seen", seen.String(), strings.Repeat("true ", 10)+"context canceled")
}

func engineC16(t *testing.T) {
	r := startOne(t, one(resting(new(tally), time.Minute)))
	ctx, drop := context.WithCancel(context.Background())
	id, err := r.Trigger(ctx, "f", segno.Trigger{})
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error)
	go func() { _, err := r.WaitRun(ctx, id); waited <- err }()
	after(time.Second)
	drop()
	expectError(t, "WaitRun", <-waited, context.Canceled)
	r.completed(id)
}

func engineC18(t *testing.T) {
	var said, undone tally
	b := newBed(t)
	step := func(context.Context, *cargo) (leg, error) {
		said.add("call")
		time.Sleep(time.Second) // does not look at its context
		return "", errTest
	}
	f := flowOf("f", saga(2, &undone, step))
	r := b.start(f)
	id := r.begun()
	r.cancel(id)
	r = b.restart(f)
	r.ended(id, segno.RunCancelled)
	expect(t, "calls", said.String(), "call")
	expect(t, "undone", undone.String(), "s2:2 s1:1")
}

func engineC19(t *testing.T) {
	var s tries
	b := newBed(t)
	f := flowOf("f", one(s.counting(hold)))
	r := b.start(f)
	id := r.begun()
	r.cancelled(id)
	r = b.restart(f)
	expectError(t, "ResumeRun", r.ResumeRun(context.Background(), id), segno.ErrConfig)
	r.ended(id, segno.RunCancelled)
	expect(t, "calls", s.calls(), 1)
	again, err := r.Rerun(context.Background(), id)
	expectError(t, "Rerun", err, nil)
	synctest.Wait()
	expect(t, "calls", s.calls(), 2)
	expect(t, "another run", again != id, true)
	r.cancelled(again)
}

func engineC20(t *testing.T) {
	var undone tally
	b := newBed(t)
	f := flowOf("f", saga(2, &undone, hold))
	r := b.start(f)
	id := r.begun()
	r.cancelled(id)
	r = b.restart(f)
	synctest.Wait()
	expectError(t, "ResumeRun", r.ResumeRun(context.Background(), id), segno.ErrConfig)
	expectError(t, "UndoRun", r.UndoRun(context.Background(), id), segno.ErrConfig)
	expectError(t, "the run", r.ended(id, segno.RunCancelled), context.Canceled)
	expect(t, "undone", undone.String(), "s2:2 s1:1")
	expect(t, "log", r.log(id), "enter s1, enter s2, enter s3, rollback s3, undone s2, undone s1, end s3")
}

func engineC21(t *testing.T) {
	for _, wait := range []time.Duration{500 * time.Millisecond, time.Hour} {
		plain, withUndo := saga(1, new(tally), nil), saga(2, new(tally), to(done))
		retry := segno.Fixed(2, wait)
		plain.Steps["s2"] = segno.Step[leg, cargo]{Do: fail, Retry: retry}
		change(withUndo, "s2", func(s *segno.Step[leg, cargo]) { s.Do, s.Retry = fail, retry })
		for name, w := range map[string]route{"plain": plain, "with an undo": withUndo} {
			r := startOne(t, w)
			id := r.begun()
			begin := time.Now()
			e := r.cancelled(id)
			expect(t, fmt.Sprintf("%s, in a wait of %v: took", name, wait), time.Since(begin), 0)
			expect(t, "state", e.State, "s2")
		}
	}
}

func engineC22(t *testing.T) {
	for name, stop := range map[string]func(*bed){"stop": (*bed).stop, "kill": (*bed).kill} {
		var said, undone tally
		b := newBed(t)
		w := sagaStep(saga(2, &undone, to(done)), "s2", deaf(time.Second, "s3", nil))
		w = sagaStep(w, "s3", func(context.Context, *cargo) (leg, error) { said.add("next"); return done, nil })
		f := flowOf("f", w)
		r := b.start(f)
		id := r.begun()
		r.cancel(id)
		stop(b)
		r = b.start(f)
		expectError(t, "the run after a "+name, r.ended(id, segno.RunCancelled), context.Canceled)
		expect(t, "said after a "+name, said.String(), "")
		expect(t, "s1 was undone after a "+name, contains(undone.String(), "s1:1"), true)
	}
}

func engineC23(t *testing.T) {
	var undone tally
	r := startOne(t, saga(1, &undone, deaf(10*time.Minute, done, nil)))
	id := r.begun()
	r.cancel(id)
	after(64 * time.Second)
	expect(t, "undone while the step may still run", undone.String(), "")
	r.ended(id, segno.RunCancelled)
	expect(t, "undone when it is given up", undone.String(), "s1:1")
	expect(t, "the journal says abandoned", contains(r.entries(id)[2].Error, "abandoned"), true)
	after(10 * time.Minute)
	expect(t, "status when it is back", r.info(id).Status, segno.RunCancelled)
}
