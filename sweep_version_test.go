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

// sweepOld and sweepNew are two versions of one workflow: state "b" of the old
// is "c" of the new, and its data counts on.
func sweepOld(fx *sweepFX) sweepFlow {
	return sweepFlow{Version: 1, Initial: sA, Steps: sweepTable{
		sA:    {Do: sweepDo(fx, "a", sB), Undo: sweepUndo(fx, "a")},
		sB:    {Do: segno.Sleep[sweepData](time.Minute, sD)},
		sD:    {Do: sweepDo(fx, "old d", sDone)},
		sDone: {Final: true},
	}}
}

func sweepNew(fx *sweepFX, last sweepStep) sweepFlow {
	return sweepFlow{
		Version: 2, Initial: sA,
		Migrate: func(from int, state string, data []byte) (sweepAt, sweepData, error) {
			if sweepAt(state) == sA {
				return sA, sweepData{Log: []string{"a, migrated"}}, nil
			}
			return sC, sweepData{N: from}, nil
		},
		Steps: sweepTable{
			sA:    {Do: sweepDo(fx, "new a", sC), Undo: sweepUndo(fx, "a")},
			sC:    {Do: segno.Sleep[sweepData](10*time.Second, sD)},
			sD:    last,
			sDone: {Final: true},
		},
	}
}

// sweepUpgrade is a scenario of two versions. The run is parked in between.
func sweepUpgrade(last func(fx *sweepFX) sweepStep) segnotest.Scenario {
	return segnotest.Scenario{
		Times:    true,
		Register: sweepManual(sweepOld),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			return errors.Join(sweepTrigger("1")(ctx, r), segnotest.At(ctx, 20*time.Second))
		},
		LeaveOpen: true,
		Then:      []segnotest.Phase{{Register: sweepManual(func(fx *sweepFX) sweepFlow { return sweepNew(fx, last(fx)) })}},
	}
}

// The migrated head is committed before any body of the new version runs.
func TestSweepMigrate(t *testing.T) {
	s := sweepUpgrade(func(fx *sweepFX) sweepStep { return sweepStep{Do: sweepDo(fx, "new d", sDone)} })
	s.Check = sweepAll(sweepRun("f", "1", "completed", `{"Log":["new d"],"N":1}`), sweepDid("a", "new d"))
	sweep(t, s)
}

// In a rollback each entry of the old version is translated.
func TestSweepMigrateAndRollBack(t *testing.T) {
	s := sweepUpgrade(func(fx *sweepFX) sweepStep { return sweepStep{Do: sweepFail(fx)} })
	s.Normalize = sweepJitter
	s.Check = sweepAll(sweepRun("f", "1", "failed", `{"N":1}`), sweepDid("undo a of [a, migrated]"))
	sweepAtLength(t, s)
}

// The crash itself brings the new version: the run goes on there from wherever
// the old one was killed.
func TestSweepMigrateAfterCrash(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			if fx.Incarnation() == 1 {
				return s.Manual("f", sweepOld(fx))
			}
			return s.Manual("f", sweepNew(fx, sweepStep{Do: sweepDo(fx, "d", sDone)}))
		},
		Drive: sweepTrigger("1"),
		Normalize: func(o *segnotest.Outcome) {
			for i := range o.Runs { // all that is the same for either is that it is over
				o.Runs[i] = segnotest.EndedRun{Flow: o.Runs[i].Flow, Key: o.Runs[i].Key, Status: o.Runs[i].Status, State: o.Runs[i].State}
			}
			o.Effects = nil
		},
		Check: sweepRun("f", "1", "completed", ""),
	})
}

// A run of a version that nobody can read is stuck until somebody can.
func TestSweepStuckAndResume(t *testing.T) {
	blind := sweepManual(func(fx *sweepFX) sweepFlow {
		w := sweepNew(fx, sweepStep{Do: sweepDo(fx, "d", sDone)})
		w.Migrate = nil
		return w
	})
	s := sweepUpgrade(func(fx *sweepFX) sweepStep { return sweepStep{Do: sweepDo(fx, "d", sDone)} })
	s.Then[0].Drive = func(ctx context.Context, r *segno.RunningScheduler) error {
		run, err := r.FindRun(ctx, "f", "1")
		if err == nil && run.Status == segno.RunStuck {
			err = r.ResumeRun(ctx, run.ID)
		}
		return err
	}
	s.Then = append([]segnotest.Phase{{Register: blind}}, s.Then...)
	s.Check = sweepAll(sweepRun("f", "1", "completed", `{"Log":["d"],"N":1}`), sweepDid("a", "d"))
	sweepAtLength(t, s)
}

// A flow that is not registered any more keeps its runs, for when it is again.
func TestSweepOrphan(t *testing.T) {
	register := sweepManual(sweepOld)
	sweepAtLength(t, segnotest.Scenario{
		Times:    true,
		Register: register,
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			return errors.Join(sweepTrigger("1")(ctx, r), segnotest.At(ctx, 20*time.Second))
		},
		LeaveOpen: true,
		Then: []segnotest.Phase{
			{Register: func(s *segno.Scheduler, fx *sweepFX) error {
				return s.Manual("other", sweepFlow{Initial: sDone, Steps: sweepTable{sDone: {Final: true}}})
			}, Drive: sweepUntil(100 * time.Second), LeaveOpen: true},
			{Register: register},
		},
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["a","old d"]}`), sweepEnded("f", "1", 100*time.Second)),
	})
}

// A changed schedule keeps streak and history and plans anew.
func TestSweepScheduleChange(t *testing.T) {
	every := func(d time.Duration) func(*segno.Scheduler, *sweepFX) error {
		return sweepFlowOf(segno.Flow{Schedule: segno.Every(d), Backoff: segno.BackoffPolicy{Initial: -1}}, func(ctx context.Context, fx *sweepFX, slot time.Duration) error {
			fx.Do(ctx, fmt.Sprint("at ", segnotest.Now()))
			return errSweep
		})
	}
	sweepAtLength(t, segnotest.Scenario{
		Times:     true,
		Register:  every(time.Minute),
		Drive:     sweepUntil(70 * time.Second),
		LeaveOpen: true,
		Then:      []segnotest.Phase{{Register: every(20 * time.Second), Drive: sweepUntil(115 * time.Second)}},
		Check: func(o *segnotest.Outcome) error {
			return errors.Join(sweepStands("idle", len(o.Runs))(o), sweepDid("at 0s", "at 1m0s", "at 1m20s", "at 1m40s")(o))
		},
	})
}
