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

// Of the slots between the bounds one comes too late, and one nearly; none comes
// behind the last.
func TestSweepBounds(t *testing.T) {
	s := sweepOutage(sweepFlowOf(segno.Flow{
		Schedule: segno.Every(time.Minute), StartAt: segnotest.Epoch.Add(time.Minute), EndAt: segnotest.Epoch.Add(3 * time.Minute),
		MaxLateness: 10 * time.Second,
	}, sweepTick), 90*time.Second, 185*time.Second, 250*time.Second)
	s.Check = sweepAll(
		sweepSlots("1m0s..1m0s ×1 fired", "2m0s..2m0s ×1 skipped too_late", "3m0s..3m0s ×1 fired"),
		sweepDid("slot 1m0s at 1m0s, missed 0", "slot 3m0s at 3m5s, missed 0"))
	sweep(t, s)
}

// The first slot is left out for good, whenever the first Start was killed.
func TestSweepSkipFirst(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times:    true,
		Register: sweepFlowOf(segno.Flow{Schedule: segno.Every(time.Minute), SkipFirst: true}, sweepTick),
		Drive:    sweepUntil(90 * time.Second),
		Check:    sweepAll(sweepSlots("1m0s..1m0s ×1 fired"), sweepDid("slot 1m0s at 1m0s, missed 0")),
	})
}

// One slot is marked, once: the mark is looked for before it is made.
func TestSweepSkipNext(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times:    true,
		Register: sweepFlowOf(segno.Flow{Schedule: segno.Every(time.Minute)}, sweepTick),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			if err := segnotest.At(ctx, 30*time.Second); err != nil {
				return err
			}
			next, err := r.Next(ctx, "f", 1)
			if err == nil && segnotest.Now() < time.Minute && !next[0].Skipped {
				err = r.SkipNext(ctx, "f", "closed")
			}
			return errors.Join(err, segnotest.At(ctx, 130*time.Second))
		},
		Check: sweepSlots("0s..0s ×1 fired", "1m0s..1m0s ×1 skipped skipped_by_user", "2m0s..2m0s ×1 fired"),
	})
}

// The first run is of a version that nobody knows any more, and so stuck: under
// Serial it keeps the others back, until it is resumed.
func TestSweepSerial(t *testing.T) {
	program := func(version int, first sweepAt) func(*segno.Scheduler, *sweepFX) error {
		return func(s *segno.Scheduler, fx *sweepFX) error {
			return s.Add(segno.Flow{ID: "f", Schedule: segno.Every(time.Minute), Serial: true, Workflow: sweepFlow{
				Version: version, Initial: first, Steps: sweepTable{
					first: {Do: segno.Sleep[sweepData](10*time.Second, sDone)},
					sDone: {Final: true},
				},
			}})
		}
	}
	sweep(t, segnotest.Scenario{
		Times:    true,
		Register: program(1, sA), Drive: sweepUntil(5 * time.Second), LeaveOpen: true,
		Then: []segnotest.Phase{
			{Register: program(2, sB), Drive: sweepUntil(70 * time.Second), LeaveOpen: true},
			{Register: program(1, sA), Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
				runs, err := r.Runs(ctx, segno.RunFilter{Flow: "f", Status: []segno.RunStatus{segno.RunStuck}})
				for _, run := range runs {
					err = errors.Join(err, r.ResumeRun(ctx, run.ID))
				}
				return errors.Join(err, segnotest.At(ctx, 130*time.Second))
			}},
		},
		Check: sweepAll(sweepSlots("0s..0s ×1 fired", "1m0s..1m0s ×1 skipped overlap", "2m0s..2m0s ×1 fired"),
			sweepRun("f", "0s", "completed", "")),
	})
}

// One run executes, one waits for its turn, and a third is refused.
func TestSweepMaxPending(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			return s.Add(segno.Flow{ID: "f", Overlap: segno.Allow(1), MaxPending: 1, Workflow: sweepFlow{
				Initial: sA, Steps: sweepTable{
					sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
						err := sweepRest(ctx, time.Minute)
						return sDone, err
					}},
					sDone: {Final: true},
				},
			}})
		},
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			for _, key := range []string{"executes", "waits"} {
				// The one before has its place by then, in this life, too.
				if err := errors.Join(sweepTrigger(key)(ctx, r), sweepRest(ctx, time.Second)); err != nil {
					return err
				}
			}
			if _, err := r.Trigger(ctx, "f", segno.Trigger{Key: "is refused"}); segnotest.Now() < 30*time.Second && !errors.Is(err, segno.ErrBusy) {
				return fmt.Errorf("a third trigger: got = %w, want ErrBusy", err)
			}
			return nil
		},
		Normalize: func(o *segnotest.Outcome) {
			for i, run := range o.Runs {
				if run.Key == "is refused" { // by a life that came late it is not
					o.Runs, o.Flows[0].Runs = append(o.Runs[:i:i], o.Runs[i+1:]...), 2
					return
				}
			}
		},
		Check: sweepAll(sweepRun("f", "executes", "completed", ""), sweepRun("f", "waits", "completed", "")),
	})
}

// Both open runs are cancelled, each with its undo.
func TestSweepCancelsOfAFlow(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			return s.Add(segno.Flow{ID: "f", Overlap: segno.Allow(0), Workflow: sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: segno.Sleep[sweepData](time.Second, sB), Undo: func(ctx context.Context, _ sweepData) error {
					fx.Do(ctx, fmt.Sprint("undo of run ", segno.InfoFrom(ctx).Run))
					return nil
				}},
				sB:    {Do: segno.Sleep[sweepData](time.Hour, sDone)},
				sDone: {Final: true},
			}}})
		},
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			return errors.Join(sweepTrigger("1")(ctx, r), sweepTrigger("2")(ctx, r), segnotest.At(ctx, time.Minute), r.CancelFlow(ctx, "f"))
		},
		Check: sweepAll(sweepRun("f", "1", "cancelled", ""), sweepRun("f", "2", "cancelled", ""), sweepDid("undo of run 1", "undo of run 2")),
	})
}

// A rollback that cannot be done within its time is given up, acknowledged, and
// its run started again with the same input.
func TestSweepAckAndRerun(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, UndoTimeout: time.Minute, Steps: sweepTable{
				sA: {Do: sweepDo(fx, "a", sB), Undo: func(ctx context.Context, _ sweepData) error {
					if sweepLate() {
						return nil
					}
					return errors.Join(sweepRest(ctx, 2*time.Minute), errSweep)
				}},
				sB: {Do: func(context.Context, *sweepData) (sweepAt, error) {
					if sweepLate() {
						return sDone, nil
					}
					return "", segno.Permanent(errSweep)
				}},
				sDone: {Final: true},
			}}
		}),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			if err := sweepThrough(ctx, r, "1"); err != nil {
				return err
			}
			run, err := r.FindRun(ctx, "f", "1")
			if err == nil {
				err = errors.Join(segnotest.At(ctx, time.Hour), r.AckRun(ctx, run.ID, "paid back by hand"))
			}
			if runs, listed := r.Runs(ctx, segno.RunFilter{Flow: "f"}); err == nil && listed == nil && len(runs) == 1 {
				_, err = r.Rerun(ctx, run.ID)
			}
			return err
		},
		Normalize: sweepJitter,
		Check:     sweepAll(sweepRun("f", "1", "undo_failed", ""), sweepRun("f", "", "completed", "")),
	})
}

// sweepLate reports whether the trouble is over.
func sweepLate() bool { return segnotest.Now() >= time.Hour }
