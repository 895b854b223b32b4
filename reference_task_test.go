package segno_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// referenceTask are the rows of the tasks' groups A and X: what a step is.
func referenceTask() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"A01_task_no_method": func(t *testing.T) {
			t.Parallel()
			err := segno.New("never-opened.db", segno.Options{}).Manual("f", oneStep(segno.Step[leg, cargo]{Retry: segno.Fixed(2, 0)}))
			expectError(t, "Manual", err, segno.ErrConfig)
			expect(t, "the text names the state", strings.Contains(fmt.Sprint(err), `state "a" has no Do`), true)
		},
		"A03_task_panic_string": inRow(func(t *testing.T, b *bed) {
			e := panicked(b, "boom goes the step", segno.Retry{})
			expect(t, "Err begins with", strings.HasPrefix(e.Err.Error(), "segno: panic: boom goes the step\n"), true)
		}),
		"A04_task_panic_odd_payload": inRow(func(t *testing.T, b *bed) { // any value is printed
			e := panicked(b, 42, segno.Retry{})
			expect(t, "Err begins with", strings.HasPrefix(e.Err.Error(), "segno: panic: 42\n"), true)
		}),
		"A05_task_panic_not_retried": inRow(func(t *testing.T, b *bed) {
			e := panicked(b, "boom", segno.Fixed(6, time.Millisecond))
			expect(t, "Attempt", e.Attempt, 1)
			b.stop()
			kinds := strings.Join(b.rows("SELECT kind FROM segno_history WHERE run = ?", e.Run), " ")
			expect(t, "history", kinds, "enter end")
		}),
		"A07_task_self_loop": inRow(func(t *testing.T, b *bed) {
			r := b.start(flowOf("f", one(func(_ context.Context, c *cargo) (leg, error) {
				if c.N++; c.N < 5 {
					return legA, nil
				}
				return done, nil
			})))
			id := r.trigger("f", cargo{})
			expect(t, "data", string(r.completed(id).Data), `{"n":5}`)
			expect(t, "log", r.log(id), "enter a, enter a, enter a, enter a, enter a, end done")
		}),
		"A08_exit_beats_handler": func(t *testing.T) { // it is refused
			t.Parallel()
			w := route{Initial: legA, Steps: legs{legA: {Do: to(done)}, done: {Final: true, Do: to(legA)}}}
			err := segno.New("never-opened.db", segno.Options{}).Manual("f", w)
			expectError(t, "Manual", err, segno.ErrConfig)
			expect(t, "the text names the state", strings.Contains(fmt.Sprint(err), `"done" is final`), true)
		},
		"A09_handler_replaced": inRow(func(t *testing.T, b *bed) { // before it is registered; afterwards the table is its own
			var said tally
			w := one(says(&said, "first", to(done)))
			w.Steps[legA] = segno.Step[leg, cargo]{Do: says(&said, "second", to(done))}
			s := segno.New(b.path, b.opts)
			expectError(t, "Manual", s.Manual("f", w), nil)
			w.Steps[legA] = segno.Step[leg, cargo]{Do: says(&said, "third", to(done))}
			run, err := s.Start(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			b.run = run
			r := &live{run, t}
			r.completed(r.trigger("f", cargo{}))
			expect(t, "called", said.String(), "second")
		}),
		"A10_name_default_override": inRow(func(t *testing.T, b *bed) { // a step's name is the text of its state
			const written leg = "Ship it (v2)"
			var name string
			r := b.start(flowOf("f", route{Initial: written, Steps: legs{
				written: {Do: func(ctx context.Context, _ *cargo) (leg, error) { name = segno.InfoFrom(ctx).State; return done, nil }},
				done:    {Final: true},
			}}))
			id := r.trigger("f", cargo{})
			r.completed(id)
			expect(t, "State in the step", name, "Ship it (v2)")
			expect(t, "log", r.log(id), "enter Ship it (v2), end done")
		}),
		"X01_router_no_row": inRow(func(t *testing.T, b *bed) { // a router has a row like any other step
			r := b.start(flowOf("f", routed(new(tally), to(done))))
			id := r.trigger("f", cargo{N: 1})
			r.completed(id)
			expect(t, "log", r.log(id), "enter work, enter route, enter a, end done")
			for i, e := range r.entries(id) {
				expect(t, "visit", e.Visit, i+1)
			}
		}),
		"X02_router_in_path": inRow(func(t *testing.T, b *bed) {
			r := b.start(flowOf("f", routed(new(tally), fail)))
			e := r.ended(r.trigger("f", cargo{N: 1}), segno.RunFailed)
			expect(t, "Path", strings.Join(e.Path, " "), "work route a")
		}),
		"X03_router_crash": inRow(func(t *testing.T, b *bed) {
			var said tally
			w := routed(&said, to(done))
			decide := w.Steps["route"].Do
			change(w, "route", func(s *segno.Step[leg, cargo]) { s.Do = says(&said, "dies", hold) })
			r := b.start(flowOf("f", w))
			id := r.trigger("f", cargo{N: 1})
			synctest.Wait()
			b.kill()
			change(w, "route", func(s *segno.Step[leg, cargo]) { s.Do = decide })
			r = b.start(flowOf("f", w))
			r.completed(id)
			expect(t, "steps called", said.String(), "work dies route a")
		}),
	}
}

// panicked runs a step that panics with v, and returns the run's error.
func panicked(b *bed, v any, retry segno.Retry) *segno.RunError {
	b.t.Helper()
	calls := 0
	r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
		Do:    func(context.Context, *cargo) (leg, error) { calls++; panic(v) },
		Retry: retry,
	})))
	e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
	expectError(b.t, "the run", e, segno.ErrPanic)
	expect(b.t, "calls", calls, 1)
	return e
}

// routed is a workflow whose step "work" has effects and whose step "route"
// only decides, by the data, that a is next.
func routed(said *tally, a do) route {
	return route{Initial: "work", Steps: legs{
		"work":  {Do: says(said, "work", to("route"))},
		"route": {Do: says(said, "route", func(_ context.Context, c *cargo) (leg, error) { return []leg{legB, legA}[c.N], nil })},
		legA:    {Do: says(said, "a", a)},
		legB:    {Do: says(said, "b", to(done))},
		done:    {Final: true},
	}}
}
