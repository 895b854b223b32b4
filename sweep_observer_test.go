package segno_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// In each life of the program every start that is told has its end, wherever
// the life ends; and an observer that panics changes nothing.
func TestSweepObserved(t *testing.T) {
	lives := map[*segnotest.Recorder]bool{}
	harmful := segno.ObserverFunc(func(context.Context, segno.Event) { panic("observer") })
	sweep(t, segnotest.Scenario{
		Options: func(*sweepFX) segno.Options {
			rec := new(segnotest.Recorder)
			lives[rec] = true
			return segno.Options{Observers: []segno.Observer{harmful, rec}}
		},
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			flaky := segnotest.FailTimes(1, errSweep, sweepDo(fx, "a", sB))
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: flaky, Undo: sweepUndo(fx, "a"), Retry: segno.Retry{Attempts: 2, Initial: 100 * time.Millisecond, Jitter: -1}},
				sB: {Do: segno.Sleep[sweepData](time.Hour, sC)},
				sC: {Do: sweepFail(fx), Undo: sweepUndo(fx, "c")}, sDone: {Final: true},
			}}
		}),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			id, err := r.Trigger(ctx, "f", segno.Trigger{Key: "1"})
			if err != nil {
				return err
			}
			var failed *segno.RunError
			if _, err = r.WaitRun(ctx, id); errors.As(err, &failed) {
				return nil
			}
			return err
		},
		Normalize: sweepJitter,
		Check:     sweepAll(sweepRun("f", "1", "failed", `{"Log":["a"]}`), sweepDid("undo a of [a]")),
	})
	told := 0
	for rec := range lives {
		segnotest.Balanced(t, rec)
		told += len(rec.Kind(segno.EventRollbackFinished))
	}
	if told == 0 {
		t.Error("rollbacks told in all lives: got = 0, want > 0")
	}
}
