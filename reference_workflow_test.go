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

// referenceWorkflow are the rows of the engine's table about the state machine.
func referenceWorkflow() scenarios {
	return scenarios{
		"W01_linear":                   inTime(engineW01),
		"W02_no_handlers":              atOnce(engineW02),
		"W03_unknown_initial":          atOnce(engineW03),
		"W04_exit_as_initial":          inTime(engineW04),
		"W05_exit_beats_handler":       atOnce(engineW05),
		"W06_dangling_route":           inTime(engineW06),
		"W07_replace_handler":          inTime(engineW07),
		"W08_self_loop":                inTime(engineW08),
		"W11_retry_count":              inTime(engineW11),
		"W12_error_context":            inTime(engineW12),
		"W13_nested_context":           inTime(engineW13),
		"W14_router_in_path":           inTime(engineW14),
		"W15_panic_single":             inTime(engineW15),
		"W16_panic_not_retried":        inTime(engineW16),
		"W17_panic_runs_saga":          inTime(engineW17),
		"W19_total_timeout":            inTime(engineW19),
		"W20_timeout_compensates":      inTime(engineW20),
		"W21_timeout_spares_saga_step": inTime(engineW21),
		"W22_timeout_inner_error":      inTime(engineW22),
		"W23_comp_budget_default":      inTime(engineW23),
		"W24_comp_budget_alone":        inTime(engineW24),
		"W25_attempt_timeout_cut":      inTime(engineW25),
		"W26_setup_failure":            inTime(engineW26),
		"W27_teardown_always":          inTime(engineW27),
		"W30_clone_settings":           inTime(engineW30),
		"W31_stale_validation":         inTime(engineW31),
		"W32_concurrent_runs":          inTime(engineW32),
	}
}

// twoSteps is a workflow of the states a and b.
func twoSteps(a, b do) route {
	return route{Initial: legA, Steps: legs{legA: {Do: a}, legB: {Do: b}, done: {Final: true}}}
}

func engineW01(t *testing.T) {
	r := startOne(t, twoSteps(
		func(_ context.Context, c *cargo) (leg, error) { c.N = 1; return legB, nil },
		func(_ context.Context, c *cargo) (leg, error) { c.Text = fmt.Sprint("after ", c.N); return done, nil },
	))
	id := r.trigger("f", cargo{})
	info := r.completed(id)
	expect(t, "state", info.State, "done")
	expect(t, "data", string(info.Data), `{"n":1,"text":"after 1"}`)
	expect(t, "log", r.log(id), "enter a, enter b, end done")
}

func engineW02(t *testing.T) {
	for name, c := range map[string]struct {
		w    route
		want string
	}{
		"an empty one":              {route{Initial: legA}, "no steps"},
		"one without a final state": {route{Initial: legA, Steps: legs{legA: {Do: to(legA)}}}, "no final state"},
	} {
		err := builder().Manual("f", c.w)
		expectError(t, name, err, segno.ErrConfig)
		expect(t, name+" has the text", contains(fmt.Sprint(err), c.want), true)
	}
}

func engineW03(t *testing.T) {
	w := one(to(done))
	w.Initial = "nowhere"
	err := builder().Manual("f", w)
	expectError(t, "Manual", err, segno.ErrConfig)
	expect(t, "the text names it", contains(fmt.Sprint(err), `"nowhere"`, "no state of the workflow"), true)
}

func engineW04(t *testing.T) {
	var s tries
	w := one(s.failing(0))
	w.Initial = done
	r := startOne(t, w)
	id := r.trigger("f", cargo{})
	expect(t, "state", r.completed(id).State, "done")
	expect(t, "calls", s.calls(), 0)
}

func engineW05(t *testing.T) {
	w := one(to(done))
	w.Steps[done] = segno.Step[leg, cargo]{Final: true, Do: to(done)}
	err := builder().Manual("f", w)
	expectError(t, "Manual", err, segno.ErrConfig)
	expect(t, "the text says why", contains(fmt.Sprint(err), `"done" is final`, "never be used"), true)
}

func engineW06(t *testing.T) {
	r := startOne(t, twoSteps(to(legB), to("nowhere")))
	e := r.fails()
	expectError(t, "the run", e, segno.ErrUnknownState)
	expect(t, "state", e.State, "b")
	expect(t, "path", strings.Join(e.Path, " "), "a b")
	expect(t, "the text names it", contains(e.Error(), "nowhere"), true)
}

func engineW07(t *testing.T) {
	var first, second tries
	w := one(first.failing(0))
	w.Steps[legA] = segno.Step[leg, cargo]{Do: second.failing(0)}
	r := startOne(t, w)
	r.completed(r.trigger("f", cargo{}))
	expect(t, "calls of the first and of the second", fmt.Sprint(first.calls(), second.calls()), "0 1")
}

func engineW08(t *testing.T) {
	var s tries
	r := startOne(t, one(func(ctx context.Context, c *cargo) (leg, error) {
		s.note(ctx)
		if c.N++; c.N < 5 {
			return legA, nil
		}
		return done, nil
	}))
	id := r.trigger("f", cargo{})
	expect(t, "visits", r.completed(id).Visit, 6)
	expect(t, "calls", s.calls(), 5)
}

func engineW11(t *testing.T) {
	var s tries
	r := startOne(t, oneStep(segno.Step[leg, cargo]{Do: s.counting(fail), Retry: segno.Fixed(3, time.Second)}))
	e := r.fails()
	expect(t, "calls", s.calls(), 3)
	expect(t, "attempt", e.Attempt, 3)
	expect(t, "cause", e.Err.Error(), errTest.Error())
}

func engineW12(t *testing.T) {
	e := startOne(t, twoSteps(to(legB), fail)).fails()
	expect(t, "state", e.State, "b")
	expect(t, "attempt", e.Attempt, 1)
	expect(t, "path", strings.Join(e.Path, " "), "a b")
	expect(t, "cause", e.Err.Error(), errTest.Error())
}

func engineW13(t *testing.T) {
	var r *live
	outer := twoSteps(to(legB), func(ctx context.Context, _ *cargo) (leg, error) {
		id, err := r.Trigger(ctx, "inner", segno.Trigger{})
		if err == nil {
			_, err = r.WaitRun(ctx, id)
		}
		return done, err
	})
	inner := route{Initial: legC, Steps: legs{legC: {Do: to(legD)}, legD: {Do: fail}, done: {Final: true}}}
	r = newBed(t).start(flowOf("f", outer), flowOf("inner", inner))
	e := r.fails()
	expect(t, "state", e.State, "b")
	expect(t, "path", strings.Join(e.Path, " "), "a b")
	expect(t, "the text has the inner state, path and cause", contains(e.Err.Error(), "of inner failed in d", "c → d", errTest.Error()), true)
}

func engineW14(t *testing.T) {
	r := startOne(t, twoSteps(to(legB), fail))
	id := r.trigger("f", cargo{})
	e := r.ended(id, segno.RunFailed)
	expect(t, "path", strings.Join(e.Path, " "), "a b")
	expect(t, "log", r.log(id), "enter a, enter b, end b")
}

// panics is a step that panics.
func panics(context.Context, *cargo) (leg, error) { panic("the sky is falling") }

func engineW15(t *testing.T) {
	r := newBed(t).start(flowOf("f", one(panics)), flowOf("g", one(to(done))))
	e := r.fails()
	expectError(t, "the run", e, segno.ErrPanic)
	expect(t, "the text has the panic's", contains(e.Error(), "the sky is falling"), true)
	r.completed(r.trigger("g", cargo{}))
}

func engineW16(t *testing.T) {
	var s tries
	r := startOne(t, oneStep(segno.Step[leg, cargo]{Do: s.counting(panics), Retry: segno.Exponential(5)}))
	id := r.trigger("f", cargo{})
	r.ended(id, segno.RunFailed)
	expect(t, "calls", s.calls(), 1)
	expect(t, "log", r.log(id), "enter a, end a")
}

func engineW17(t *testing.T) {
	var undone tally
	e := startOne(t, saga(1, &undone, panics)).fails()
	expectError(t, "the run", e, segno.ErrPanic)
	expect(t, "state", e.State, "s2")
	expect(t, "undone", undone.String(), "s1:1")
}

// within gives a workflow a timeout.
func within(d time.Duration, w route) route {
	w.Timeout = d
	return w
}

func engineW19(t *testing.T) {
	var said tally
	r := startOne(t, within(20*time.Millisecond, one(resting(&said, 200*time.Millisecond))))
	begin := time.Now()
	id := r.trigger("f", cargo{})
	e := r.ended(id, segno.RunFailed)
	expectError(t, "the run", e, context.DeadlineExceeded)
	expect(t, "attempt", e.Attempt, 1)
	expect(t, "took", time.Since(begin), 20*time.Millisecond)
	after(time.Second)
	expect(t, "said", said.String(), "begin")
	expect(t, "log", r.log(id), "enter a, end a")
	expect(t, "cause", r.info(id).Cause, "timeout")
}

func engineW20(t *testing.T) {
	var undone tally
	e := startOne(t, within(time.Second, saga(2, &undone, hold))).fails()
	expectError(t, "the run", e, context.DeadlineExceeded)
	expect(t, "undone", undone.String(), "s2:2 s1:1")
}

func engineW21(t *testing.T) {
	var undone tally
	w := change(saga(1, &undone, fail), "s1", func(s *segno.Step[leg, cargo]) { s.Do = resting(new(tally), 80*time.Millisecond) })
	r := startOne(t, within(20*time.Millisecond, w))
	begin := time.Now()
	r.completed(r.trigger("f", cargo{}))
	expect(t, "took", time.Since(begin), 80*time.Millisecond)
	expect(t, "undone", undone.String(), "")
}

func engineW22(t *testing.T) {
	e := startOne(t, within(time.Second, one(deaf(999*time.Millisecond, "", errTest)))).fails()
	expect(t, "cause", e.Err.Error(), errTest.Error())
	expect(t, "it is a timeout", errors.Is(e, context.DeadlineExceeded), false)
}

// rollback returns how long the rollback of a run takes whose undo lasts as long
// as it may, ten minutes at most.
func rollback(t *testing.T, w route) time.Duration {
	w.Initial, w.Steps = legA, legs{
		legA: {Do: to(legB), Timeout: 10 * time.Minute, Undo: func(ctx context.Context, _ cargo) error { <-ctx.Done(); return ctx.Err() }},
		legB: {Do: fail},
		done: {Final: true},
	}
	r := startOne(t, w)
	begin := time.Now()
	e := r.ended(r.trigger("f", cargo{}), segno.RunUndoFailed)
	expect(t, "failed undos", len(e.Undo), 1)
	return time.Since(begin)
}

func engineW23(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		10 * time.Second:  5 * time.Second,
		120 * time.Second: 30 * time.Second,
		0:                 10 * time.Minute,
	} {
		expect(t, fmt.Sprintf("the rollback with a Timeout of %v", timeout), rollback(t, route{Timeout: timeout}), want)
	}
}

func engineW24(t *testing.T) {
	expect(t, "the rollback", rollback(t, route{UndoTimeout: 7 * time.Second}), 7*time.Second)
}

func engineW25(t *testing.T) {
	var said tally
	r := startOne(t, oneStep(segno.Step[leg, cargo]{Do: resting(&said, time.Minute), Timeout: time.Second}))
	begin := time.Now()
	expectError(t, "the run", r.fails(), context.DeadlineExceeded)
	expect(t, "took", time.Since(begin), time.Second)
	after(time.Hour)
	expect(t, "said", said.String(), "begin")
}

func engineW26(t *testing.T) {
	var said tally
	b := newBed(t)
	b.opts.Resources = []segno.Resource{resource("1", &said), {Key: "2", Setup: func(context.Context) (any, error) { return nil, errTest }}}
	f := segno.Flow{ID: "f", Workflow: one(resting(&said, 0)), Schedule: segno.Every(time.Second)}
	_, err := b.tryStart(context.Background(), f)
	expectError(t, "Start", err, errTest)
	after(time.Minute)
	expect(t, "said", said.String(), "+1 -1(value of 1)")
}

func engineW27(t *testing.T) {
	var said tally
	b := newBed(t).with(segno.Options{Resources: []segno.Resource{resource("1", &said), resource("2", &said)}})
	r := b.start(flowOf("f", one(fail)), flowOf("late", within(time.Second, one(hold))), flowOf("cancelled", one(hold)))
	r.fails()
	r.ended(r.trigger("late", cargo{}), segno.RunFailed)
	id := r.trigger("cancelled", cargo{})
	r.cancel(id)
	r.ended(id, segno.RunCancelled)
	expect(t, "said before Stop", said.take(), "+1 +2")
	b.stop()
	expect(t, "said by Stop", said.String(), "-2(value of 2) -1(value of 1)")
}

func engineW30(t *testing.T) {
	w := within(time.Hour, twoSteps(to(legB), to(done)))
	w.Version, w.UndoTimeout = 7, time.Second
	variant := w
	variant.Initial = legB
	r := newBed(t).start(flowOf("f", w), flowOf("g", variant))
	for flow, log := range map[string]string{"f": "enter a, enter b, end done", "g": "enter b, end done"} {
		id := r.trigger(flow, cargo{})
		info := r.completed(id)
		expect(t, "version", info.Version, 7)
		expect(t, "deadline", info.Deadline, info.Created.Add(time.Hour))
		expect(t, "log of "+flow, r.log(id), log)
	}
}

func engineW31(t *testing.T) {
	w := route{Initial: legA, Steps: legs{legA: {Do: to(done)}}}
	expectError(t, "Manual", builder().Manual("f", w), segno.ErrConfig)
	w.Steps[done] = segno.Step[leg, cargo]{Final: true}
	r := startOne(t, w)
	r.completed(r.trigger("f", cargo{}))
}

func engineW32(t *testing.T) {
	var said tally
	b := newBed(t).with(segno.Options{Resources: []segno.Resource{resource("1", &said)}})
	r := b.start(segno.Flow{ID: "f", Overlap: segno.Allow(2), Workflow: one(func(ctx context.Context, c *cargo) (leg, error) {
		time.Sleep(time.Duration(c.N) * time.Second)
		v, err := segno.ResourceFrom[string](ctx, "1")
		said.add("%d:%s", c.N, strings.ReplaceAll(v, " ", "_"))
		return done, err
	})})
	short, long := r.trigger("f", cargo{N: 1}), r.trigger("f", cargo{N: 2})
	synctest.Wait()
	expect(t, "open runs", r.status("f").Open, 2)
	r.completed(short)
	r.completed(long)
	b.stop()
	expect(t, "said", said.String(), "+1 1:value_of_1 2:value_of_1 -1(value of 1)")
}
