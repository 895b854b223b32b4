package segno_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// sweepOutage is a flow that runs for up, is down until back, and then runs until end.
func sweepOutage(register func(*segno.Scheduler, *sweepFX) error, up, back, end time.Duration) segnotest.Scenario {
	return segnotest.Scenario{
		Times:     true,
		Register:  register,
		Drive:     sweepUntil(up),
		LeaveOpen: true,
		Then: []segnotest.Phase{{
			Register: func(s *segno.Scheduler, fx *sweepFX) error {
				return errors.Join(segnotest.At(context.Background(), back), register(s, fx))
			},
			Drive: sweepUntil(end),
		}},
	}
}

// Slots that were missed run one after the other, and the oldest is given up.
func TestSweepCatchUpAll(t *testing.T) {
	s := sweepOutage(sweepFlowOf(segno.Flow{Schedule: segno.Every(time.Minute), CatchUp: segno.CatchUpAll(2)}, sweepTick),
		30*time.Second, 210*time.Second, 220*time.Second)
	s.Check = sweepAll(
		sweepSlots("0s..0s ×1 fired", "1m0s..1m0s ×1 skipped catchup_cap", "2m0s..2m0s ×1 fired", "3m0s..3m0s ×1 fired"),
		sweepDid("slot 0s at 0s, missed 0", "slot 2m0s at 3m30s, missed 0", "slot 3m0s at 3m30s, missed 0"))
	sweep(t, s)
}

// A slot fails, and does again at the end of its window; the third run completes.
func TestSweepSlotRetries(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepFlowOf(segno.Flow{
			Schedule: segno.Every(time.Hour), SlotRetries: 2, Backoff: segno.BackoffPolicy{Initial: time.Minute, Jitter: -1},
		}, func(ctx context.Context, fx *sweepFX, slot time.Duration) error {
			_ = sweepTick(ctx, fx, slot)
			if segnotest.Now() < 2*time.Minute {
				return errSweep
			}
			return nil
		}),
		Drive: sweepUntil(5 * time.Minute),
		Check: sweepAll(sweepSlots("0s..0s ×1 fired"), sweepStands("completed", 0),
			sweepDid("slot 0s at 0s, missed 0", "slot 0s at 1m0s, missed 0", "slot 0s at 3m0s, missed 0")),
	})
}

// A slot cancels the run of the one before, whose undo comes first.
func TestSweepReplace(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			return s.Add(segno.Flow{
				ID: "f", Schedule: segno.Every(time.Minute), Overlap: segno.Replace, MaxRuns: 2,
				Workflow: sweepFlow{Initial: sA, Steps: sweepTable{
					sA:    {Do: sweepDo(fx, "a", sB), Undo: sweepUndo(fx, "a")},
					sB:    {Do: segno.Sleep[sweepData](90*time.Second, sC)},
					sC:    {Do: sweepDo(fx, "c", sDone)},
					sDone: {Final: true},
				}},
			})
		},
		Drive: sweepUntil(3 * time.Minute),
		Check: sweepAll(sweepSlots("0s..0s ×1 fired", "1m0s..1m0s ×1 fired"), sweepRun("f", "0s", "cancelled", ""),
			sweepRun("f", "1m0s", "completed", ""), sweepStands("completed", 0)),
	})
}

// Each Start makes one run, and a kill behind it makes the next Start one more.
func TestSweepRunOnStart(t *testing.T) {
	extra := func(o *segnotest.Outcome) error {
		if got := len(o.Runs); got < 1 || got > 1+o.Crashes {
			return fmt.Errorf("runs: got = %d, want = 1 to %d", got, 1+o.Crashes)
		}
		for _, r := range o.Runs {
			if r.Status != "completed" || !r.Slot.IsZero() {
				return fmt.Errorf("run: got = %s of %v, want = completed, of no slot", r.Status, r.Slot)
			}
		}
		return nil
	}
	sweep(t, segnotest.Scenario{
		Register: sweepFlowOf(segno.Flow{RunOnStart: true}, func(context.Context, *sweepFX, time.Duration) error { return nil }),
		Drive:    sweepUntil(time.Second),
		Normalize: func(o *segnotest.Outcome) {
			if err := extra(o); err == nil {
				o.Runs = o.Runs[:1]
				o.Flows[0].Runs = 1
			}
		},
		Check: extra,
	})
}

// The last of its runs fires once, and none behind it.
func TestSweepMaxRuns(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times:    true,
		Register: sweepFlowOf(segno.Flow{Schedule: segno.Every(time.Minute), MaxRuns: 2}, sweepTick),
		Drive:    sweepUntil(150 * time.Second),
		Check: sweepAll(sweepSlots("0s..0s ×1 fired", "1m0s..1m0s ×1 fired"),
			sweepDid("slot 0s at 0s, missed 0", "slot 1m0s at 1m0s, missed 0")),
	})
}
