package segnotest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

type State string

const (
	Charge State = "charge"
	Ship   State = "ship"
	Done   State = "done"
)

type Order struct{ ID, Txn string }

var t testing.TB = new(testing.T) // in a test it is the test function's own

// charge is the step that the examples test.
func charge(_ context.Context, o *Order) (State, error) {
	o.Txn = "txn-" + o.ID
	return Ship, nil
}

// fulfil is the workflow that they test, with charge as one of its steps.
func fulfil(charge segno.DoFunc[State, Order]) segno.Workflow[State, Order] {
	return segno.Workflow[State, Order]{Initial: Charge, Steps: segno.Steps[State, Order]{
		Charge: {Do: charge, Retry: segno.Retry{Attempts: 3, Initial: time.Millisecond, Panics: true}},
		Ship:   {Do: func(context.Context, *Order) (State, error) { return Done, nil }},
		Done:   {Final: true},
	}}
}

func ExampleRun() {
	run, err := segnotest.Run(t, fulfil(charge), Order{ID: "42"})
	fmt.Println(run.State, run.Data.Txn, err)
	// Output: done txn-42 <nil>
}

func ExampleRecorder() {
	var rec segnotest.Recorder
	_, err := segnotest.Run(t, fulfil(charge), Order{ID: "42"}, segno.Options{Observers: []segno.Observer{&rec}})
	fmt.Println(rec.States(), err)
	segnotest.CompletedWith(t, &rec, Done)
	segnotest.Path(t, &rec, Charge, Ship, Done)
	segnotest.Covered(t, &rec, fulfil(charge))
	segnotest.Balanced(t, &rec)
	// Output: [charge ship done] <nil>
}

func ExampleFailTimes() {
	var rec segnotest.Recorder
	flaky := segnotest.FailTimes(2, errors.New("the bank does not answer"), charge)
	run, err := segnotest.Run(t, fulfil(flaky), Order{ID: "42"}, segno.Options{Observers: []segno.Observer{&rec}})
	for _, e := range rec.Kind(segno.EventRetry) {
		fmt.Println("attempt", e.Attempt, "of", e.State, "failed:", e.Err)
	}
	fmt.Println(run.State, err)
	// Output:
	// attempt 1 of charge failed: the bank does not answer
	// attempt 2 of charge failed: the bank does not answer
	// done <nil>
}

func ExamplePanicTimes() {
	run, err := segnotest.Run(t, fulfil(segnotest.PanicTimes(1, charge)), Order{ID: "42"})
	fmt.Println(run.State, err)
	// Output: done <nil>
}

// The example of CrashSweep in the package's documentation.
func TestOrdersSurviveCrashes(t *testing.T) {
	segnotest.CrashSweep(t, segnotest.Scenario{
		Register: func(s *segno.Scheduler, fx *segnotest.Effects) error {
			fulfil := segno.Workflow[State, Order]{Initial: Charge, Steps: segno.Steps[State, Order]{
				Charge: {Do: func(ctx context.Context, o *Order) (State, error) {
					fx.Do(ctx, "charge "+o.ID)
					return Ship, nil
				}},
				Ship: {Do: segno.Sleep[Order](time.Hour, Done)},
				Done: {Final: true},
			}}
			return s.Manual("orders", fulfil)
		},
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			_, err := r.Trigger(ctx, "orders", segno.Trigger{Key: "42", Input: Order{ID: "42"}})
			return err
		},
	})
}
