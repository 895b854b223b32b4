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

// sweepFail makes a step that fails for good.
func sweepFail(fx *sweepFX) segno.DoFunc[sweepAt, sweepData] {
	return func(ctx context.Context, _ *sweepData) (sweepAt, error) {
		fx.Do(ctx, "fail")
		return "", errSweep
	}
}

func TestSweepRollback(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA:    {Do: sweepDo(fx, "a", sB), Undo: sweepUndo(fx, "a")},
				sB:    {Do: sweepDo(fx, "b", sC)}, // nothing to undo
				sC:    {Do: sweepDo(fx, "c", sD), Undo: sweepUndo(fx, "c")},
				sD:    {Do: sweepFail(fx), Undo: sweepUndo(fx, "d")},
				sDone: {Final: true},
			}}
		}),
		Drive:     sweepTrigger("1"),
		Normalize: sweepJitter,
		Check: sweepAll(sweepRun("f", "1", "failed", `{"Log":["a","b","c"]}`),
			sweepDid("undo a of [a]", "undo c of [a b c]")),
	})
}

// A step that succeeds and may not go where it wants to is undone with what it left.
func TestSweepAstray(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times:   true,
		Options: sweepSchema,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			astray := sweepDo(fx, "b", "mars")
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: sweepDo(fx, "a", sB), Undo: sweepUndo(fx, "a")},
				sB: {Undo: sweepUndo(fx, "b"), Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					if err := sweepPaid(ctx, "b"); err != nil {
						return "", err
					}
					return astray(ctx, d)
				}},
				sDone: {Final: true},
			}}
		}),
		Drive:     sweepTrigger("1"),
		Normalize: sweepJitter,
		Check: sweepAll(sweepRun("f", "1", "failed", `{"Log":["a","b"]}`),
			sweepDid("undo a of [a]", "undo b of [a b]")),
	})
}

// sweepDid checks that effects have happened.
func sweepDid(names ...string) func(*segnotest.Outcome) error {
	return func(o *segnotest.Outcome) error {
		for _, name := range names {
			if o.Effects[name] == 0 {
				return fmt.Errorf("effect %q: got none; there are %v", name, o.Effects)
			}
		}
		return nil
	}
}

// A rollback with an undo that is retried and one that fails goes on to its
// end, and says what is left.
func TestSweepDirtyRollback(t *testing.T) {
	sweepAtLength(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			flaky := func(name string, good int) func(context.Context, sweepData) error {
				return func(ctx context.Context, d sweepData) error {
					n := segno.InfoFrom(ctx).Attempt
					fx.Do(ctx, fmt.Sprintf("undo %s, try %d", name, n))
					if n < good {
						return errSweep
					}
					return nil
				}
			}
			retry := segno.Retry{Attempts: 3, Initial: 800 * time.Millisecond, Jitter: -1}
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: sweepDo(fx, "a", sB), Undo: flaky("a", 3), UndoRetry: retry},
				sB: {Do: sweepDo(fx, "b", sC), Undo: flaky("b", 9), UndoRetry: retry},
				sC: {Do: sweepDo(fx, "c", sD), Undo: func(ctx context.Context, _ sweepData) error {
					fx.Do(ctx, "undo c")
					panic(errSweep)
				}},
				sD:    {Do: sweepFail(fx)},
				sDone: {Final: true},
			}}
		}),
		Drive:     sweepTrigger("1"),
		Normalize: sweepJitter,
		Check:     sweepAll(sweepRun("f", "1", "undo_failed", ""), sweepDid("undo a, try 3", "undo b, try 3"), sweepEnded("f", "1", 4800*time.Millisecond)),
	})
}

// UndoRun repeats what failed, and no more.
func TestSweepUndoRun(t *testing.T) {
	const fixed = 10 * time.Second
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			down := func(name string) func(context.Context, sweepData) error {
				return func(ctx context.Context, d sweepData) error {
					if segnotest.Now() < fixed {
						fx.Do(ctx, "undo "+name)
						return errSweep
					}
					fx.Do(ctx, "undo "+name+" at last")
					return nil
				}
			}
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA:    {Do: sweepDo(fx, "a", sB), Undo: down("a")},
				sB:    {Do: sweepDo(fx, "b", sC), Undo: sweepUndo(fx, "b")},
				sC:    {Do: sweepDo(fx, "c", sD), Undo: down("c")},
				sD:    {Do: sweepFail(fx)},
				sDone: {Final: true},
			}}
		}),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			id, err := r.Trigger(ctx, "f", segno.Trigger{Key: "1"})
			if err != nil {
				return err
			}
			var failed *segno.RunError
			if _, err := r.WaitRun(ctx, id); !errors.As(err, &failed) {
				return err
			}
			if err := segnotest.At(ctx, fixed); err != nil || len(failed.Undo) == 0 {
				return err
			}
			if err := r.UndoRun(ctx, id); err != nil && !errors.Is(err, segno.ErrConfig) { // it is undoing already
				return err
			}
			return nil
		},
		Normalize: sweepJitter,
		Check:     sweepAll(sweepRun("f", "1", "failed", ""), sweepDid("undo a", "undo a at last", "undo c", "undo c at last"), sweepEnded("f", "1", fixed)),
	})
}

// A visit whose outcome nobody knows is undone, too, if its step asks for that:
// here because its attempt timed out, and where the crash fell into it.
func TestSweepUndoUncertain(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: sweepDo(fx, "a", sB), Undo: sweepUndo(fx, "a"), UndoUncertain: true},
				sB: {
					Timeout: time.Second, UndoUncertain: true,
					Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
						fx.Do(ctx, "b")
						return "", sweepRest(ctx, time.Minute)
					},
					Undo: func(ctx context.Context, d sweepData) error {
						fx.Do(ctx, fmt.Sprintf("undo b, uncertain: %v", segno.InfoFrom(ctx).Uncertain))
						return nil
					},
				},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "failed", `{"Log":["a"]}`), sweepDid("undo b, uncertain: true", "undo a of [a]")),
	})
}

// That an attempt's outcome is unknown is not forgotten while the next one waits.
func TestSweepUncertainIsKept(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {
					Timeout: time.Second, Retry: segno.Retry{Attempts: 2, Initial: time.Hour, MaxDelay: time.Hour}, UndoUncertain: true,
					Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
						fx.Do(ctx, "a")
						return "", sweepRest(ctx, time.Minute)
					},
					Undo: func(ctx context.Context, d sweepData) error {
						fx.Do(ctx, fmt.Sprintf("undo a, uncertain: %v", segno.InfoFrom(ctx).Uncertain))
						return nil
					},
				},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepCancel(10*time.Second, segno.Trigger{}),
		Check: sweepAll(sweepRun("f", "1", "cancelled", `{}`), sweepDid("undo a, uncertain: true")),
	})
}

// The run's deadline is an instant: crashes and waits do not move it.
func TestSweepRunTimeout(t *testing.T) {
	for name, wait := range map[string]segno.DoFunc[sweepAt, sweepData]{
		"InStep":   func(ctx context.Context, _ *sweepData) (sweepAt, error) { return "", sweepRest(ctx, time.Hour) },
		"Parked":   segno.Sleep[sweepData](time.Hour, sDone),
		"Retrying": func(context.Context, *sweepData) (sweepAt, error) { return "", segno.RetryAfter(errSweep, time.Hour) },
		"Polling": segno.Poll(func(context.Context, *sweepData) (sweepAt, time.Duration, error) {
			return "", 7 * time.Second, nil
		}),
	} {
		t.Run(name, func(t *testing.T) {
			sweep(t, segnotest.Scenario{
				Times: true,
				Register: sweepManual(func(fx *sweepFX) sweepFlow {
					return sweepFlow{Initial: sA, Timeout: 20 * time.Second, Steps: sweepTable{
						sA:    {Do: sweepDo(fx, "a", sB), Undo: sweepUndo(fx, "a")},
						sB:    {Do: wait, Retry: segno.Fixed(3, time.Second)},
						sDone: {Final: true},
					}}
				}),
				Drive:     sweepTrigger("1"),
				Normalize: sweepJitter,
				Check: sweepAll(sweepRun("f", "1", "failed", `{"Log":["a"]}`), sweepEnded("f", "1", 20*time.Second),
					sweepDid("undo a of [a]")),
			})
		})
	}
}

// The deadline passes while the program is down.
func TestSweepRunTimeoutWhileDown(t *testing.T) {
	register := sweepManual(func(fx *sweepFX) sweepFlow {
		return sweepFlow{Initial: sA, Timeout: 20 * time.Second, Steps: sweepTable{
			sA:    {Do: sweepDo(fx, "a", sB), Undo: sweepUndo(fx, "a")},
			sB:    {Do: segno.Sleep[sweepData](10*time.Second, sC)},
			sC:    {Do: sweepDo(fx, "c", sDone)},
			sDone: {Final: true},
		}}
	})
	sweepAtLength(t, segnotest.Scenario{
		Times:    true,
		Register: register,
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			return errors.Join(sweepTrigger("1")(ctx, r), segnotest.At(ctx, time.Second))
		},
		LeaveOpen: true,
		Then: []segnotest.Phase{{Register: func(s *segno.Scheduler, fx *sweepFX) error {
			return errors.Join(segnotest.At(context.Background(), time.Minute), register(s, fx))
		}}},
		Normalize: sweepJitter,
		Check:     sweepAll(sweepRun("f", "1", "failed", `{"Log":["a"]}`), sweepDid("undo a of [a]"), sweepEnded("f", "1", time.Minute)),
	})
}

// sweepCancel triggers a run and cancels it at the given time.
func sweepCancel(at time.Duration, t segno.Trigger) func(context.Context, *segno.RunningScheduler) error {
	return func(ctx context.Context, r *segno.RunningScheduler) error {
		t.Key = "1"
		id, err := r.Trigger(ctx, "f", t)
		if err != nil {
			return err
		}
		if err := segnotest.At(ctx, at); err != nil {
			return err
		}
		if err := r.CancelRun(ctx, id); err != nil && !errors.Is(err, segno.ErrEnded) {
			return err
		}
		_, _ = r.WaitRun(ctx, id)
		return ctx.Err()
	}
}

// Wherever a cancel meets a run, what was done is undone.
func TestSweepCancel(t *testing.T) {
	for name, wait := range map[string]sweepStep{
		"InStep":   {Do: func(ctx context.Context, _ *sweepData) (sweepAt, error) { return "", sweepRest(ctx, time.Hour) }},
		"Parked":   {Do: segno.Sleep[sweepData](time.Hour, sDone)},
		"Retrying": {Do: func(context.Context, *sweepData) (sweepAt, error) { return "", errSweep }, Retry: segno.Fixed(3, time.Hour)},
		"Napping":  {Do: segno.Sleep[sweepData](900*time.Millisecond, sB)},
	} {
		t.Run(name, func(t *testing.T) {
			sweep(t, segnotest.Scenario{
				Times: name != "Retrying",
				Register: sweepManual(func(fx *sweepFX) sweepFlow {
					return sweepFlow{Initial: sA, Steps: sweepTable{
						sA:    {Do: sweepDo(fx, "a", sB), Undo: sweepUndo(fx, "a")},
						sB:    wait,
						sDone: {Final: true},
					}}
				}),
				Drive: sweepCancel(500*time.Millisecond, segno.Trigger{}),
				Check: sweepAll(sweepRun("f", "1", "cancelled", `{"Log":["a"]}`), sweepDid("undo a of [a]"), sweepEnded("f", "1", 500*time.Millisecond)),
			})
		})
	}
}

// A run that has not begun is cancelled without any of its code.
func TestSweepCancelPending(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{sA: {Do: sweepDo(fx, "a", sDone)}, sDone: {Final: true}}}
		}),
		Drive: sweepCancel(time.Second, segno.Trigger{At: segnotest.Epoch.Add(time.Hour)}),
		Check: func(o *segnotest.Outcome) error {
			if o.Effects["a"] > 0 {
				return fmt.Errorf("effects: got = %v, want none", o.Effects)
			}
			return sweepRun("f", "1", "cancelled", `{}`)(o)
		},
	})
}

// A step with an Undo is not interrupted: its visit counts as finished, and is
// undone. The crash may find it at work, so it does its work anew.
func TestSweepCancelProtected(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					fx.Do(ctx, "a")
					d.Log = append(d.Log, "a")
					if segnotest.Now() < 2*time.Second {
						return sB, sweepRest(ctx, 2*time.Second)
					}
					return sB, nil
				}, Undo: sweepUndo(fx, "a")},
				sB:    {Do: sweepDo(fx, "b", sDone)},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepCancel(time.Second, segno.Trigger{}),
		// Killed after the cancel, the run is resumed with the flag set, and its
		// visit is not begun again: then there is nothing to undo.
		Normalize: sweepCutShort,
		Check:     sweepRun("f", "1", "cancelled", ""),
	})
}

// A rollback cannot be cancelled: the run has failed, and that it stays.
func TestSweepCancelInRollback(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: sweepDo(fx, "a", sB), UndoRetry: segno.Retry{Attempts: 3, Initial: 5 * time.Second, Jitter: -1},
					Undo: func(ctx context.Context, _ sweepData) error {
						n := segno.InfoFrom(ctx).Attempt
						fx.Do(ctx, fmt.Sprint("undo try ", n))
						if n < 3 {
							return errSweep
						}
						return nil
					}},
				sB:    {Do: sweepFail(fx)},
				sDone: {Final: true},
			}}
		}),
		Drive:     sweepCancel(2*time.Second, segno.Trigger{}),
		Normalize: sweepJitter,
		Check:     sweepAll(sweepRun("f", "1", "failed", `{"Log":["a"]}`), sweepDid("undo try 3")),
	})
}

// sweepCutShort leaves out what depends on how far the step came.
func sweepCutShort(o *segnotest.Outcome) {
	for i := range o.Runs {
		o.Runs[i].Data, o.Runs[i].History = "", nil
	}
	delete(o.Effects, "undo a of [a]")
}

// CancelFlow takes all of a flow's runs, and the pause keeps its slots away.
func TestSweepCancelFlow(t *testing.T) {
	sweepAtLength(t, segnotest.Scenario{
		Times: true,
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			return s.Add(segno.Flow{ID: "f", Overlap: segno.Allow(1), Schedule: segno.Every(time.Minute), Workflow: sweepFlow{Initial: sA, Steps: sweepTable{
				sA:    {Do: sweepDo(fx, "a", sB), Undo: sweepUndo(fx, "a")},
				sB:    {Do: segno.Sleep[sweepData](time.Hour, sDone)},
				sDone: {Final: true},
			}}})
		},
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			if err := segnotest.At(ctx, 90*time.Second); err != nil {
				return err
			}
			if err := r.PauseFlow(ctx, "f", segno.Pause{Note: "halt", CancelRuns: true}); err != nil {
				return err
			}
			return segnotest.At(ctx, 200*time.Second)
		},
		Check: sweepAll(sweepRun("f", "0s", "cancelled", ""), sweepRun("f", "1m0s", "cancelled", "")),
	})
}
