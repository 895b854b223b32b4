package segno_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

func TestABoundFlowHasItsTypes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		w := one(func(_ context.Context, c *cargo) (leg, error) {
			if c.N < 0 {
				return "", errTest
			}
			c.N *= 2
			return done, nil
		})
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: w, Overlap: segno.Allow(0)}, flowOf("g", w))
		f, err := segno.Bind(r.RunningScheduler, "f", w)
		if err != nil {
			t.Fatalf("Bind: got error %v, want none", err)
		}
		id, err := f.Trigger(ctx, cargo{N: 21})
		if err != nil {
			t.Fatalf("Trigger: got error %v, want none", err)
		}
		run, err := f.Wait(ctx, id)
		if err != nil || run.State != done || run.Data.N != 42 || run.Status != segno.RunCompleted {
			t.Errorf("Wait: got = %+v, %v, want it done with 42", run, err)
		}
		run, err = f.Get(ctx, id)
		if err != nil || run.State != done || run.Data.N != 42 {
			t.Errorf("Get: got = %+v, %v, want it done with 42", run, err)
		}

		bad, err := f.Trigger(ctx, cargo{N: -1})
		if err != nil {
			t.Fatal(err)
		}
		run, err = f.Wait(ctx, bad)
		var e *segno.RunError
		if !errors.As(err, &e) || run.State != legA || run.Data.N != -1 || run.Status != segno.RunFailed {
			t.Errorf("Wait: got = %+v, %v, want its RunError and it in a with -1", run, err)
		}

		keyed, err := f.Trigger(ctx, cargo{N: 1}, segno.Trigger{Key: "k", At: time.Now().Add(time.Hour), Input: "the data wins over this"})
		if err != nil {
			t.Fatal(err)
		}
		run, err = f.Get(ctx, keyed)
		if err != nil || run.Key != "k" || run.Status != segno.RunPending || run.Data.N != 1 {
			t.Errorf("Get: got = %+v, %v, want it pending with key k and 1", run, err)
		}

		other := r.trigger("g", cargo{})
		_, err = f.Get(ctx, other)
		expectError(t, "Get of a run of another flow", err, segno.ErrConfig)
		_, err = f.Wait(ctx, other)
		expectError(t, "Wait for a run of another flow", err, segno.ErrConfig)
		_, err = f.Get(ctx, 999)
		expectError(t, "Get of an unknown run", err, segno.ErrNotFound)
		r.completed(other)
	})
}

func TestBindRefusesAnotherWorkflow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		type other string
		type freight struct{ N int }
		w := one(to(done))
		r := newBed(t).start(flowOf("f", w)).RunningScheduler
		refused := func(name string, err error, want error) {
			t.Helper()
			expectError(t, name, err, want)
		}
		version, states, renamed, empty := w, w, w, route{}
		version.Version = 1
		states.Steps = legs{legA: {Do: to(done)}, legB: {Do: to(done)}, done: {Final: true}}
		renamed.Steps = legs{legB: {Do: to(done)}, done: {Final: true}}
		_, err := segno.Bind(r, "f", version)
		refused("another version", err, segno.ErrConfig)
		_, err = segno.Bind(r, "f", states)
		refused("more states", err, segno.ErrConfig)
		_, err = segno.Bind(r, "f", renamed)
		refused("other states", err, segno.ErrConfig)
		_, err = segno.Bind(r, "f", segno.Workflow[other, cargo]{})
		refused("another state type", err, segno.ErrConfig)
		_, err = segno.Bind(r, "f", segno.Workflow[leg, freight]{})
		refused("another data type", err, segno.ErrConfig)
		_, err = segno.Bind(r, "x", w)
		refused("an unknown flow", err, segno.ErrNotFound)
		if _, err = segno.Bind(r, "f", empty); err != nil {
			t.Errorf("an empty workflow, which checks the types only: got error %v, want none", err)
		}
	})
}
