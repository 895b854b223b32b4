package segno_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// sweepFlowOf registers "f" with one step, which does its work by slot.
func sweepFlowOf(f segno.Flow, do func(ctx context.Context, fx *sweepFX, slot time.Duration) error) func(*segno.Scheduler, *sweepFX) error {
	return func(s *segno.Scheduler, fx *sweepFX) error {
		f := f
		f.ID = "f"
		f.Workflow = sweepFlow{Initial: sA, Steps: sweepTable{
			sA: {Do: func(ctx context.Context, _ *sweepData) (sweepAt, error) {
				return sDone, do(ctx, fx, segno.InfoFrom(ctx).Slot.Sub(segnotest.Epoch))
			}},
			sDone: {Final: true},
		}}
		return s.Add(f)
	}
}

// sweepTick does its work and succeeds.
func sweepTick(ctx context.Context, fx *sweepFX, slot time.Duration) error {
	in := segno.InfoFrom(ctx)
	fx.Do(ctx, fmt.Sprintf("slot %v at %v, missed %d", slot, segnotest.Now(), in.Missed))
	return nil
}

// sweepUntil drives nothing for so long.
func sweepUntil(d time.Duration) func(context.Context, *segno.RunningScheduler) error {
	return func(ctx context.Context, _ *segno.RunningScheduler) error { return segnotest.At(ctx, d) }
}

// sweepSlots checks the ledger of "f".
func sweepSlots(want ...string) func(*segnotest.Outcome) error {
	return func(o *segnotest.Outcome) error {
		if got := o.Flows[0].Slots; !slices.Equal(got, want) {
			return fmt.Errorf("slots:\n got = %s\nwant = %s", strings.Join(got, " | "), strings.Join(want, " | "))
		}
		return nil
	}
}

func TestSweepCadence(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times:    true,
		Register: sweepFlowOf(segno.Flow{Schedule: segno.Every(time.Minute)}, sweepTick),
		Drive:    sweepUntil(150 * time.Second),
		Check: sweepAll(sweepSlots("0s..0s ×1 fired", "1m0s..1m0s ×1 fired", "2m0s..2m0s ×1 fired"),
			sweepDid("slot 0s at 0s, missed 0", "slot 1m0s at 1m0s, missed 0", "slot 2m0s at 2m0s, missed 0")),
	})
}

// A restart keeps the phase and makes up for what passed meanwhile, once.
func TestSweepCadenceOverDowntime(t *testing.T) {
	register := sweepFlowOf(segno.Flow{Schedule: segno.Every(time.Minute)}, sweepTick)
	sweepAtLength(t, segnotest.Scenario{
		Times:     true,
		Register:  register,
		Drive:     sweepUntil(30 * time.Second),
		LeaveOpen: true,
		Then: []segnotest.Phase{{
			Register: func(s *segno.Scheduler, fx *sweepFX) error {
				return errors.Join(segnotest.At(context.Background(), 210*time.Second), register(s, fx))
			},
			Drive: sweepUntil(250 * time.Second),
		}},
		Check: sweepAll(sweepSlots("0s..0s ×1 fired", "1m0s..2m0s ×2 coalesced", "3m0s..3m0s ×1 fired", "4m0s..4m0s ×1 fired"),
			sweepDid("slot 3m0s at 3m30s, missed 2", "slot 4m0s at 4m0s, missed 0")),
	})
}

func TestSweepCron(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times:    true,
		Register: sweepFlowOf(segno.Flow{Schedule: segno.Cron("5,25 * * * *")}, sweepTick),
		Drive:    sweepUntil(66 * time.Minute),
		Check: sweepAll(sweepSlots("5m0s..5m0s ×1 fired", "25m0s..25m0s ×1 fired", "1h5m0s..1h5m0s ×1 fired"),
			sweepDid("slot 1h5m0s at 1h5m0s, missed 0")),
	})
}

func TestSweepOnce(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times:    true,
		Register: sweepFlowOf(segno.Flow{Schedule: segno.At(segnotest.Epoch.Add(time.Minute))}, sweepTick),
		Drive:    sweepUntil(2 * time.Minute),
		Check:    sweepAll(sweepSlots("1m0s..1m0s ×1 fired"), sweepDid("slot 1m0s at 1m0s, missed 0")),
	})
}

// The next run is due a delay after the end of the last, whether it completed,
// failed or was triggered.
func TestSweepFixedDelay(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepFlowOf(segno.Flow{Schedule: segno.FixedDelay(time.Minute), Backoff: segno.BackoffPolicy{Jitter: -1}},
			func(ctx context.Context, fx *sweepFX, slot time.Duration) error {
				switch now := segnotest.Now(); {
				case slot == time.Minute:
					fx.Do(ctx, "fail")
					return errSweep
				case now >= 150*time.Second && now < 160*time.Second: // the triggered one takes its time
					return segno.Snooze(10 * time.Second)
				}
				return sweepTick(ctx, fx, slot)
			}),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			if err := segnotest.At(ctx, 150*time.Second); err != nil {
				return err
			}
			if _, err := r.Trigger(ctx, "f", segno.Trigger{Key: "hand"}); err != nil {
				return err
			}
			return segnotest.At(ctx, 240*time.Second)
		},
		Normalize: func(o *segnotest.Outcome) {
			for name := range o.Effects {
				if strings.HasPrefix(name, "slot -") { // the triggered run has none
					delete(o.Effects, name)
				}
			}
		},
		Check: sweepSlots("0s..0s ×1 fired", "1m0s..1m0s ×1 fired", "2m0s..2m0s ×1 fired", "3m40s..3m40s ×1 fired"),
	})
}

// A pause that is ended before the slot that fell into it was put on record.
func TestSweepFixedDelayPaused(t *testing.T) {
	register := sweepFlowOf(segno.Flow{Schedule: segno.FixedDelay(time.Minute)}, sweepTick)
	sweep(t, segnotest.Scenario{
		Times:    true,
		Register: register,
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			return errors.Join(segnotest.At(ctx, 30*time.Second), r.PauseFlow(ctx, "f", segno.Pause{}))
		},
		LeaveOpen: true,
		Then: []segnotest.Phase{{
			Register: func(s *segno.Scheduler, fx *sweepFX) error {
				return errors.Join(segnotest.At(context.Background(), 90*time.Second), register(s, fx))
			},
			Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
				return errors.Join(r.ResumeFlow(ctx, "f"), segnotest.At(ctx, 170*time.Second))
			},
		}},
		Check: sweepSlots("0s..0s ×1 fired", "1m0s..1m0s ×1 skipped paused", "2m30s..2m30s ×1 fired"),
	})
}

// A run that is open, parked here, keeps slots from firing under Skip.
func TestSweepOverlap(t *testing.T) {
	sweepAtLength(t, segnotest.Scenario{
		Times: true,
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			return s.Every("f", sweepFlow{Initial: sA, Steps: sweepTable{
				sA:    {Do: sweepDo(fx, "a", sB)},
				sB:    {Do: segno.Sleep[sweepData](150*time.Second, sC)},
				sC:    {Do: sweepDo(fx, "c", sDone)},
				sDone: {Final: true},
			}}, time.Minute)
		},
		Drive: sweepUntil(190 * time.Second),
		Check: sweepSlots("0s..0s ×1 fired", "1m0s..2m0s ×2 skipped overlap", "3m0s..3m0s ×1 fired", "4m0s..5m0s ×2 skipped overlap"),
	})
}

// Two failures, each with its window; then a success clears the streak.
func TestSweepBackoff(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepFlowOf(segno.Flow{
			Schedule: segno.Every(time.Minute),
			Backoff:  segno.BackoffPolicy{Initial: 90 * time.Second, Jitter: -1, StreakLimit: 3},
		}, func(ctx context.Context, fx *sweepFX, slot time.Duration) error {
			_ = sweepTick(ctx, fx, slot)
			if slot < 5*time.Minute {
				return errSweep
			}
			return nil
		}),
		Drive: sweepUntil(6*time.Minute + time.Second),
		Check: sweepAll(sweepSlots("0s..0s ×1 fired", "1m0s..1m0s ×1 skipped backoff", "2m0s..2m0s ×1 fired",
			"3m0s..4m0s ×2 skipped backoff", "5m0s..5m0s ×1 fired", "6m0s..6m0s ×1 fired"), sweepStands("completed", 0)),
	})
}

// sweepStands checks flow "f".
func sweepStands(outcome string, streak int) func(*segnotest.Outcome) error {
	return func(o *segnotest.Outcome) error {
		if f := o.Flows[0]; f.Outcome != outcome || f.Streak != streak {
			return fmt.Errorf("flow: got = %s, streak %d, want = %s, streak %d", f.Outcome, f.Streak, outcome, streak)
		}
		return nil
	}
}

// Two failures trip the flow; a reset lets the next slot fire.
func TestSweepTripAndReset(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepFlowOf(segno.Flow{
			Schedule: segno.Every(time.Minute),
			Backoff:  segno.BackoffPolicy{Initial: -1, StreakLimit: 2},
		}, func(ctx context.Context, fx *sweepFX, slot time.Duration) error {
			_ = sweepTick(ctx, fx, slot)
			if slot < 3*time.Minute {
				return errSweep
			}
			return nil
		}),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			if err := segnotest.At(ctx, 150*time.Second); err != nil {
				return err
			}
			if segnotest.Now() < 170*time.Second {
				if _, err := r.Trigger(ctx, "f", segno.Trigger{Key: "refused"}); err != nil && !errors.Is(err, segno.ErrTripped) && ctx.Err() == nil {
					return fmt.Errorf("a tripped flow: got = %w, want = %w", err, segno.ErrTripped)
				}
			}
			if err := segnotest.At(ctx, 170*time.Second); err != nil {
				return err
			}
			if err := r.ResetFlow(ctx, "f"); err != nil {
				return err
			}
			return segnotest.At(ctx, 190*time.Second)
		},
		Check: sweepAll(sweepSlots("0s..0s ×1 fired", "1m0s..1m0s ×1 fired", "2m0s..2m0s ×1 skipped tripped", "3m0s..3m0s ×1 fired"),
			sweepStands("completed", 0)),
	})
}

// A tripped flow is reset by the trigger that asks for it, in one commit.
func TestSweepTriggerWithReset(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepFlowOf(segno.Flow{Backoff: segno.BackoffPolicy{StreakLimit: 1}}, func(ctx context.Context, fx *sweepFX, _ time.Duration) error {
			fx.Do(ctx, fmt.Sprint("run at ", segnotest.Now()))
			if segnotest.Now() < time.Second {
				return errSweep
			}
			return nil
		}),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			id, err := r.Trigger(ctx, "f", segno.Trigger{Key: "1"})
			if err != nil {
				return err
			}
			_, _ = r.WaitRun(ctx, id)
			if err := segnotest.At(ctx, time.Second); err != nil {
				return err
			}
			_, err = r.Trigger(ctx, "f", segno.Trigger{Key: "2", Reset: true})
			return err
		},
		Check: sweepAll(sweepRun("f", "1", "failed", ""), sweepRun("f", "2", "completed", ""), sweepStands("completed", 0)),
	})
}

// sweepPause pauses "f" from 90 s to 210 s: a drive that comes later finds it done.
func sweepPause(p segno.Pause, o segno.Resume) func(context.Context, *segno.RunningScheduler) error {
	return func(ctx context.Context, r *segno.RunningScheduler) error {
		if segnotest.Now() < 210*time.Second {
			if err := errors.Join(segnotest.At(ctx, 90*time.Second), r.PauseFlow(ctx, "f", p)); err != nil {
				return err
			}
		}
		if err := segnotest.At(ctx, 210*time.Second); err != nil {
			return err
		}
		if err := r.ResumeFlow(ctx, "f", o); err != nil {
			return err
		}
		return segnotest.At(ctx, 250*time.Second)
	}
}

func TestSweepPauseAndResume(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times:    true,
		Register: sweepFlowOf(segno.Flow{Schedule: segno.Every(time.Minute)}, sweepTick),
		Drive:    sweepPause(segno.Pause{Note: "night", Actor: "ada"}, segno.Resume{}),
		Check: sweepSlots("0s..0s ×1 fired", "1m0s..1m0s ×1 fired", "2m0s..3m0s ×2 skipped paused",
			"4m0s..4m0s ×1 fired"),
	})
}

func TestSweepPauseAndCatchUp(t *testing.T) {
	sweepAtLength(t, segnotest.Scenario{
		Times:    true,
		Register: sweepFlowOf(segno.Flow{Schedule: segno.Every(time.Minute)}, sweepTick),
		Drive:    sweepPause(segno.Pause{Note: "night"}, segno.Resume{CatchUp: true}),
		Check:    sweepDid("slot 0s at 0s, missed 0", "slot 1m0s at 1m0s, missed 0", "slot 4m0s at 4m0s, missed 0"),
	})
}

// A pause that ends by itself.
func TestSweepPauseUntil(t *testing.T) {
	sweepAtLength(t, segnotest.Scenario{
		Times:    true,
		Register: sweepFlowOf(segno.Flow{Schedule: segno.Every(time.Minute)}, sweepTick),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			until := 200 * time.Second
			if segnotest.Now() < until {
				if err := errors.Join(segnotest.At(ctx, 90*time.Second), r.PauseFlow(ctx, "f", segno.Pause{Until: segnotest.Epoch.Add(until)})); err != nil {
					return err
				}
			}
			return segnotest.At(ctx, 250*time.Second)
		},
		Check: sweepSlots("0s..0s ×1 fired", "1m0s..1m0s ×1 fired", "2m0s..3m0s ×2 skipped paused", "4m0s..4m0s ×1 fired"),
	})
}
