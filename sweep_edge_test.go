package segno_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// A cancel meets the transition itself: the visit is finished, with what joins
// its commit, and undone, or it is neither.
func TestSweepCancelMeetsTransition(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Options: sweepSchema,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					d.N = 7
					return sB, errors.Join(sweepRest(ctx, 2*time.Second), sweepPaid(ctx, "a"))
				}, Undo: func(ctx context.Context, d sweepData) error {
					return sweepPaid(ctx, fmt.Sprint("undo a of ", d.N))
				}},
				sB:    {Do: sweepDo(fx, "b", sDone)},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepCancel(time.Second, segno.Trigger{}),
		Check: func(o *segnotest.Outcome) error {
			once := o.Tables["segnotest_once"]
			if both := []string{"name=a", "name=undo a of 7"}; len(once) > 0 && !slices.Equal(once, both) || len(once) == 0 && o.Crashes == 0 {
				return fmt.Errorf("once: got = %q, want = %q or, behind a crash, nothing", once, both)
			}
			o.Runs[0].Data, o.Runs[0].History, o.Tables = "", nil, nil
			return sweepRun("f", "1", "cancelled", "")(o)
		},
	})
}

// From the third death in a visit on a run is resumed behind all others, alone:
// nothing is lost by that.
func TestSweepManyCrashes(t *testing.T) {
	sweepAtLength(t, segnotest.Scenario{
		Options: func(*sweepFX) segno.Options { return segno.Options{MaxCrashes: 100} },
		Crashes: 7,
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			did := func(ctx context.Context, d *sweepData, what string) { fx.Do(ctx, fmt.Sprintf("%s %d", what, d.N)) }
			return s.Add(segno.Flow{ID: "f", Overlap: segno.Allow(0), Workflow: sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) { did(ctx, d, "a"); return sB, nil }},
				sB: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					did(ctx, d, "b")
					return sC, sweepRest(ctx, 300*time.Millisecond)
				}, Undo: func(ctx context.Context, d sweepData) error { did(ctx, &d, "undo b"); return nil }},
				sC: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					did(ctx, d, "c")
					if d.N == 2 {
						return "", errSweep
					}
					return sDone, nil
				}},
				sDone: {Final: true},
			}}})
		},
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			for n := range 3 {
				if _, err := r.Trigger(ctx, "f", segno.Trigger{Key: fmt.Sprint(n), Input: sweepData{N: n}}); err != nil {
					return err
				}
			}
			return nil
		},
		Normalize: func(o *segnotest.Outcome) { o.Flows[0].Outcome, o.Flows[0].Streak, o.Flows[0].Error = "", 0, "" },
		Check:     sweepAll(sweepRun("f", "0", "completed", ""), sweepRun("f", "2", "failed", "")),
	})
}

// A step that does not return is given up: its run goes on without it.
func TestSweepAbandonedStep(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Timeout: time.Second, Retry: segno.Fixed(2, 2*time.Second), Do: func(ctx context.Context, _ *sweepData) (sweepAt, error) {
					n := segno.InfoFrom(ctx).Attempt
					fx.Do(ctx, fmt.Sprint("try ", n))
					if n == 1 {
						time.Sleep(3 * time.Minute)
					}
					return sB, nil
				}},
				sB:    {Do: sweepDo(fx, "b", sDone)},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["b"]}`), sweepDid("try 1", "try 2")),
	})
}

// A step that succeeds within the grace has succeeded, whatever ended its context.
func TestSweepSuccessInGrace(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Timeout: time.Second, Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					fx.Do(ctx, "a")
					_ = sweepRest(ctx, time.Hour)
					d.N++
					return sB, nil
				}},
				sB:    {Do: sweepDo(fx, "b", sDone)},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepRun("f", "1", "completed", `{"Log":["b"],"N":1}`),
	})
}

// The new version has lost what would undo the visit: that is a failed undo,
// until a version comes that has it again.
func TestSweepOrphanedUndo(t *testing.T) {
	version := func(undo bool) func(*segno.Scheduler, *sweepFX) error {
		return sweepManual(func(fx *sweepFX) sweepFlow {
			a := sweepStep{Do: sweepDo(fx, "a", sB)}
			if undo {
				a.Undo = sweepUndo(fx, "a")
			}
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA:    a,
				sB:    {Do: segno.Sleep[sweepData](time.Minute, sC)},
				sC:    {Do: sweepFail(fx)},
				sDone: {Final: true},
			}}
		})
	}
	sweep(t, segnotest.Scenario{
		Times:    true,
		Register: version(true),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			return errors.Join(sweepTrigger("1")(ctx, r), segnotest.At(ctx, 10*time.Second))
		},
		LeaveOpen: true,
		Then: []segnotest.Phase{{Register: version(false)}, {
			Register: version(true),
			Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
				run, err := r.FindRun(ctx, "f", "1")
				if err == nil && run.Status == segno.RunUndoFailed {
					err = r.UndoRun(ctx, run.ID)
				}
				return err
			},
		}},
		Normalize: sweepJitter,
		Check:     sweepAll(sweepRun("f", "1", "failed", `{"Log":["a"]}`), sweepDid("undo a of [a]")),
	})
}

// A run for later comes due while another is open, and waits for its end.
func TestSweepTriggerAtWaits(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					fx.Do(ctx, fmt.Sprintf("%d at %v", d.N, segnotest.Now()))
					return sB, nil
				}},
				sB:    {Do: segno.Sleep[sweepData](time.Minute, sDone)},
				sDone: {Final: true},
			}}
		}),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			_, err := r.Trigger(ctx, "f", segno.Trigger{Key: "now"})
			_, later := r.Trigger(ctx, "f", segno.Trigger{Key: "later", Input: sweepData{N: 1}, At: segnotest.Epoch.Add(30 * time.Second)})
			return errors.Join(err, later)
		},
		Check: sweepAll(sweepRun("f", "now", "completed", ""), sweepRun("f", "later", "completed", ""), sweepDid("0 at 0s", "1 at 1m0s")),
	})
}

// A run for later does not hold up the slots before it.
func TestSweepTriggerAtBesideSlots(t *testing.T) {
	for name, schedule := range map[string]segno.Schedule{"FixedDelay": segno.FixedDelay(time.Minute), "Every": segno.Every(time.Minute)} {
		t.Run(name, func(t *testing.T) {
			sweep(t, segnotest.Scenario{
				Times: true,
				Register: sweepFlowOf(segno.Flow{Schedule: schedule}, func(ctx context.Context, fx *sweepFX, _ time.Duration) error {
					fx.Do(ctx, fmt.Sprint("at ", segnotest.Now()))
					return nil
				}),
				Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
					_, err := r.Trigger(ctx, "f", segno.Trigger{Key: "later", At: segnotest.Epoch.Add(150 * time.Second)})
					return errors.Join(err, segnotest.At(ctx, 170*time.Second))
				},
				Check: sweepDid("at 0s", "at 1m0s", "at 2m0s", "at 2m30s"),
			})
		})
	}
}

// One place for all flows: runs of two flows take turns, the cancelled one
// among them.
func TestSweepOnePlace(t *testing.T) {
	sweepAtLength(t, segnotest.Scenario{
		Options: func(*sweepFX) segno.Options { return segno.Options{MaxConcurrent: 1} },
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			w := func(id string) sweepFlow {
				return sweepFlow{Initial: sA, Steps: sweepTable{
					sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
						fx.Do(ctx, fmt.Sprintf("%s a %d", id, d.N))
						return sB, sweepRest(ctx, 500*time.Millisecond)
					}},
					sB: {Do: segno.Sleep[sweepData](2*time.Second, sC)},
					sC: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
						fx.Do(ctx, fmt.Sprintf("%s c %d", id, d.N))
						return sDone, nil
					}},
					sDone: {Final: true},
				}}
			}
			return errors.Join(s.Add(segno.Flow{ID: "f", Overlap: segno.Allow(0), Workflow: w("f")}),
				s.Add(segno.Flow{ID: "g", Overlap: segno.Allow(2), Workflow: w("g")}))
		},
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			for n := range 2 {
				for _, flow := range []string{"f", "g"} {
					if _, err := r.Trigger(ctx, flow, segno.Trigger{Key: fmt.Sprint(n), Input: sweepData{N: n}}); err != nil {
						return err
					}
				}
			}
			return nil
		},
		Check: sweepAll(sweepRun("f", "1", "completed", ""), sweepRun("g", "1", "completed", "")),
	})
}
