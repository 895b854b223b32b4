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

// sweepThrough runs "f" once for each key, one after the other.
func sweepThrough(ctx context.Context, r *segno.RunningScheduler, keys ...string) error {
	for _, key := range keys {
		id, err := r.Trigger(ctx, "f", segno.Trigger{Key: key})
		if err != nil {
			return err
		}
		var failed *segno.RunError
		if _, err = r.WaitRun(ctx, id); err != nil && !errors.As(err, &failed) {
			return err
		}
	}
	return nil
}

// A breaker that has opened stays so over a kill, lets one probe through when
// its time has come, and closes. Whoever was killed between the breaker's commit
// and its own failure meets the open breaker instead.
func TestSweepBreaker(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {
					Breaker: &segno.Breaker{Name: "bank", Failures: 1, Reset: time.Hour, Probes: 2},
					Do: func(ctx context.Context, _ *sweepData) (sweepAt, error) {
						fx.Do(ctx, fmt.Sprint("call of run ", segno.InfoFrom(ctx).Run))
						if segnotest.Now() < time.Hour {
							return "", errSweep
						}
						return sDone, nil
					},
				},
				sDone: {Final: true},
			}}
		}),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			return errors.Join(
				sweepThrough(ctx, r, "fails", "is refused"), segnotest.At(ctx, 2*time.Hour),
				sweepThrough(ctx, r, "probes", "goes on"),
			)
		},
		Normalize: func(o *segnotest.Outcome) {
			sweepJitter(o)
			for i := range o.Runs {
				if run := &o.Runs[i]; run.Key == "fails" {
					run.Cause, run.Error, run.History = "", "", nil
				}
			}
		},
		Check: sweepAll(
			sweepRun("f", "fails", "failed", ""), sweepRefused("is refused"),
			sweepRun("f", "probes", "completed", ""), sweepRun("f", "goes on", "completed", ""),
		),
	})
}

// sweepRefused checks that a run met an open breaker, which says why.
func sweepRefused(key string) func(o *segnotest.Outcome) error {
	return func(o *segnotest.Outcome) error {
		for _, r := range o.Runs {
			if r.Key == key && r.Cause == "circuit_open" && strings.HasSuffix(r.Error, "opened by: "+errSweep.Error()) {
				return nil
			}
		}
		return fmt.Errorf("run f/%s: got none that was refused, in %+v", key, o.Runs)
	}
}

// Runs that wait for a limiter lose nothing by a kill, and use up no attempt.
func TestSweepLimiter(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			return s.Add(segno.Flow{ID: "f", Overlap: segno.Allow(0), Workflow: sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {
					Limiter: &segno.Window{Name: "quota", Limit: 2, Per: time.Hour},
					Retry:   segno.Retry{Attempts: 2, Initial: time.Second, Jitter: -1},
					Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
						n := segno.InfoFrom(ctx).Attempt
						fx.Do(ctx, fmt.Sprintf("run %d, try %d", segno.InfoFrom(ctx).Run, n))
						if d.N = n; n == 1 {
							return "", errSweep
						}
						return sDone, nil
					},
				},
				sDone: {Final: true},
			}}})
		},
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			for _, key := range []string{"1", "2", "3"} {
				if err := sweepTrigger(key)(ctx, r); err != nil {
					return err
				}
			}
			return nil
		},
		Check: sweepAll(
			sweepRun("f", "1", "completed", `{"N":2}`), sweepRun("f", "2", "completed", `{"N":2}`), sweepRun("f", "3", "completed", `{"N":2}`),
		),
	})
}

// What is used of a window is there after a clean stop, wherever the lives
// before it were killed: the second life adds to the first one's use.
func TestSweepLimiterStop(t *testing.T) {
	register := func(n int) func(s *segno.Scheduler, fx *sweepFX) error {
		return func(s *segno.Scheduler, fx *sweepFX) error {
			return s.Add(segno.Flow{ID: "f", Overlap: segno.Allow(0), Workflow: sweepFlow{Initial: sA, Steps: sweepTable{
				sA:    {Do: sweepDo(fx, fmt.Sprint("life ", n), sDone), Limiter: &segno.Window{Name: "quota", Limit: 2, Per: time.Hour}},
				sDone: {Final: true},
			}}})
		}
	}
	sweep(t, segnotest.Scenario{
		Register:  register(1),
		Drive:     func(ctx context.Context, r *segno.RunningScheduler) error { return sweepThrough(ctx, r, "1") },
		LeaveOpen: true,
		Then: []segnotest.Phase{{Register: register(2), Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			return sweepThrough(ctx, r, "2", "3")
		}}},
		Check: sweepAll(
			sweepRun("f", "1", "completed", ""), sweepRun("f", "2", "completed", ""), sweepRun("f", "3", "completed", ""),
			func(o *segnotest.Outcome) error {
				if o.Crashes > 0 { // the last second before a crash may be forgotten
					return nil
				}
				return sweepEnded("f", "3", time.Hour)(o)
			},
		),
	})
}
