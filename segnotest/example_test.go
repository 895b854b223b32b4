package segnotest_test

import (
	"context"
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

type Order struct{ ID string }

// The example of the package's documentation.
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
