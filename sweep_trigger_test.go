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

// One run is triggered for later, one at once with a key, and both again.
func TestSweepTriggerAtAndKey(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Timeout: time.Hour, Steps: sweepTable{
				sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					fx.Do(ctx, fmt.Sprintf("%d at %v", d.N, segnotest.Now()))
					return sDone, nil
				}},
				sDone: {Final: true},
			}}
		}),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			later := segno.Trigger{Key: "later", Input: sweepData{N: 1}, At: segnotest.Epoch.Add(30 * time.Second)}
			first, err := r.Trigger(ctx, "f", later)
			if err != nil {
				return err
			}
			if _, err := r.Trigger(ctx, "f", segno.Trigger{Key: "now", Input: sweepData{N: 2}}); err != nil {
				return err
			}
			again, err := r.Trigger(ctx, "f", later)
			if err == nil && again != first {
				err = fmt.Errorf("run of the same key: got = %d, want = %d", again, first)
			}
			if _, reused := r.Trigger(ctx, "f", segno.Trigger{Key: "now", Input: sweepData{N: 3}}); ctx.Err() == nil && !errors.Is(reused, segno.ErrKeyReused) {
				err = errors.Join(err, fmt.Errorf("key with another input: got = %w, want = %w", reused, segno.ErrKeyReused))
			}
			return err
		},
		Check: sweepAll(sweepRun("f", "later", "completed", `{"N":1}`), sweepRun("f", "now", "completed", `{"N":2}`),
			sweepDid("1 at 30s", "2 at 0s")),
	})
}

// Five runs, two at a time: the rest is pending, in the order they came.
func TestSweepPending(t *testing.T) {
	sweepAtLength(t, segnotest.Scenario{
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			return s.Add(segno.Flow{ID: "f", Overlap: segno.Allow(2), Workflow: sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					fx.Do(ctx, fmt.Sprint("a ", d.N))
					return sB, sweepRest(ctx, time.Second)
				}},
				sB: {Do: segno.Sleep[sweepData](3*time.Second, sC)}, // parked, it holds no place
				sC: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					fx.Do(ctx, fmt.Sprint("c ", d.N))
					return sDone, nil
				}},
				sDone: {Final: true},
			}}})
		},
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			for n := range 5 {
				if _, err := r.Trigger(ctx, "f", segno.Trigger{Key: fmt.Sprint(n), Input: sweepData{N: n}}); err != nil {
					return err
				}
			}
			return nil
		},
		Check: sweepAll(sweepRun("f", "0", "completed", `{}`), sweepRun("f", "4", "completed", `{"N":4}`)),
	})
}

// sweepChild registers "child", a flow of one step.
func sweepChild(s *segno.Scheduler, fx *sweepFX) error {
	return s.Add(segno.Flow{ID: "child", Overlap: segno.Allow(0), Workflow: sweepFlow{Initial: sA, Steps: sweepTable{
		sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
			fx.Do(ctx, fmt.Sprint("child ", d.N))
			return sDone, sweepPaid(ctx, fmt.Sprint("child ", d.N))
		}},
		sDone: {Final: true},
	}}})
}

// A run that is triggered in the commit of a transition is there with it, once,
// though it has no key; with a failed one it is not.
func TestSweepTriggerOnCommit(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times:   true,
		Options: sweepSchema,
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			start := func(ctx context.Context, n int) error {
				return segno.OnCommit(ctx, func(tx segno.Tx) error {
					_, err := tx.Trigger("child", segno.Trigger{Input: sweepData{N: n}})
					return err
				})
			}
			return errors.Join(sweepChild(s, fx), s.Manual("f", sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Retry: segno.Retry{Attempts: 2, Jitter: -1}, Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					n := segno.InfoFrom(ctx).Attempt
					fx.Do(ctx, fmt.Sprint("try ", n))
					if n == 1 {
						return "", errors.Join(start(ctx, -1), errSweep)
					}
					return sB, start(ctx, 1)
				}},
				sB:    {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) { return sDone, start(ctx, 2) }},
				sDone: {Final: true},
			}}))
		},
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", ""), sweepOnce("child 1", "child 2")),
	})
}

// Order and run come with one Write, or neither; the order's key makes it
// happen once.
func TestSweepTriggerInWrite(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times:    true,
		Options:  sweepSchema,
		Register: sweepChild,
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			for n := range 3 {
				err := r.Write(ctx, func(tx segno.Tx) error {
					name := fmt.Sprint("order ", n)
					res, err := tx.Exec("INSERT INTO paid (name) VALUES (?) ON CONFLICT DO NOTHING", name)
					if err != nil {
						return err
					}
					if fresh, err := res.RowsAffected(); fresh == 0 {
						return err
					}
					_, err = tx.Trigger("child", segno.Trigger{Input: sweepData{N: n}})
					return errors.Join(err, segnotest.Once(tx, name))
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
		Check: sweepOnce("order 0", "order 1", "order 2", "child 0", "child 1", "child 2"),
	})
}

// Many runs of many kinds at once: the order of commits is left to chance.
func TestSweepCrowd(t *testing.T) {
	sweepAtLength(t, segnotest.Scenario{
		Options: sweepSchema,
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			named := func(ctx context.Context, d *sweepData, what string) { fx.Do(ctx, fmt.Sprintf("%s %d", what, d.N)) }
			return s.Add(segno.Flow{ID: "f", Overlap: segno.Allow(3), Workflow: sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					named(ctx, d, "a")
					return sB, sweepPaid(ctx, fmt.Sprint("a ", d.N))
				}, Undo: func(ctx context.Context, d sweepData) error {
					named(ctx, &d, "undo a")
					return sweepPaid(ctx, fmt.Sprint("undo a ", d.N))
				}},
				sB: {Retry: segno.Retry{Attempts: 2, Initial: time.Second, Jitter: -1}, Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					n := segno.InfoFrom(ctx).Attempt
					named(ctx, d, fmt.Sprintf("b try %d of", n))
					switch {
					case d.N%3 == 0, d.N%3 == 1 && n == 1:
						return "", errSweep
					}
					return sC, nil
				}},
				sC:    {Do: segno.Sleep[sweepData](2*time.Second, sDone)},
				sDone: {Final: true},
			}}})
		},
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			for n := range 6 {
				if _, err := r.Trigger(ctx, "f", segno.Trigger{Key: fmt.Sprint(n), Input: sweepData{N: n}}); err != nil {
					return err
				}
			}
			return nil
		},
		// Which of them ended last is left to chance, too.
		Normalize: func(o *segnotest.Outcome) { o.Flows[0].Outcome, o.Flows[0].Streak, o.Flows[0].Error = "", 0, "" },
		Check:     sweepAll(sweepRun("f", "0", "failed", ""), sweepRun("f", "1", "completed", ""), sweepRun("f", "5", "completed", "")),
	})
}
