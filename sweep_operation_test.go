package segno_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// Two marks: whether they came before the kill or behind it, the same slots are
// skipped.
func TestSweepSkipSlot(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times:    true,
		Register: sweepFlowOf(segno.Flow{Schedule: segno.Every(time.Minute)}, sweepTick),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			if err := segnotest.At(ctx, 30*time.Second); err != nil {
				return err
			}
			for _, slot := range []time.Duration{time.Minute, 3 * time.Minute} {
				if segnotest.Now() < slot {
					if err := r.SkipSlot(ctx, "f", segnotest.Epoch.Add(slot), "closed"); err != nil {
						return err
					}
				}
			}
			return segnotest.At(ctx, 190*time.Second)
		},
		Check: sweepSlots("0s..0s ×1 fired", "1m0s..1m0s ×1 skipped skipped_by_user", "2m0s..2m0s ×1 fired", "3m0s..3m0s ×1 skipped skipped_by_user"),
	})
}

// A backfill takes on the slots of a pause, each once, in their order, and does
// not touch the ledger.
func TestSweepBackfill(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times:    true,
		Register: sweepFlowOf(segno.Flow{Schedule: segno.Every(time.Minute)}, sweepTick),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			if segnotest.Now() < 150*time.Second {
				err := errors.Join(segnotest.At(ctx, 30*time.Second), r.PauseFlow(ctx, "f", segno.Pause{}),
					segnotest.At(ctx, 150*time.Second), r.ResumeFlow(ctx, "f"))
				if err != nil {
					return err
				}
			}
			if err := errors.Join(r.ResumeFlow(ctx, "f"), segnotest.At(ctx, 160*time.Second)); err != nil {
				return err
			}
			if segnotest.Now() < 170*time.Second {
				if _, err := r.Backfill(ctx, "f", segnotest.Epoch, segnotest.Epoch.Add(time.Hour)); err != nil {
					return err
				}
			}
			return segnotest.At(ctx, 190*time.Second)
		},
		Check: sweepAll(
			sweepSlots("0s..0s ×1 fired", "1m0s..2m0s ×2 skipped paused", "3m0s..3m0s ×1 fired"),
			sweepDid("slot 0s at 0s, missed 0", "slot 1m0s at 2m40s, missed 0", "slot 2m0s at 2m40s, missed 0", "slot 3m0s at 3m0s, missed 0"),
			func(o *segnotest.Outcome) error {
				var order []string
				for _, r := range o.Runs {
					order = append(order, r.Slot.Sub(segnotest.Epoch).String())
				}
				if got, want := strings.Join(order, " "), "0s 1m0s 2m0s 3m0s"; got != want {
					return fmt.Errorf("runs: got = %s, want = %s", got, want)
				}
				return nil
			}),
	})
}
