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

// sweepSettled puts what has become of the units into the data.
func sweepSettled(d *sweepData, all []segno.Settled[int]) {
	for _, s := range all {
		word := fmt.Sprint(s.Value)
		if s.Skipped {
			word = "-"
		}
		d.Log = append(d.Log, word)
	}
}

// A cancel meets the second of three items: the visit is not finished, and what
// lies before it is undone.
func TestSweepBatchCancelled(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: sweepDo(fx, "a", sB), Undo: sweepUndo(fx, "a")},
				sB: {Undo: sweepUndo(fx, "b"), Do: segno.Batch(
					func(context.Context, sweepData) ([]int, error) { return []int{1, 2, 3}, nil },
					func(ctx context.Context, i int) (int, error) {
						fx.Do(ctx, fmt.Sprint("item ", i))
						return i, sweepRest(ctx, time.Minute)
					},
					func(context.Context, *sweepData, []segno.Settled[int]) (sweepAt, error) { return sC, nil })},
				sC:    {Do: sweepDo(fx, "c", sDone)},
				sDone: {Final: true},
			}}
		}),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			id, err := r.Trigger(ctx, "f", segno.Trigger{Key: "1"})
			if err == nil {
				err = segnotest.At(ctx, 90*time.Second)
			}
			if err == nil {
				err = r.CancelRun(ctx, id)
			}
			if errors.Is(err, segno.ErrEnded) { // cancelled before the kill
				err = nil
			}
			return err
		},
		// An item repeated behind a kill may leave no time for the second.
		Normalize: func(o *segnotest.Outcome) { delete(o.Effects, "item 2") },
		Check: sweepAll(sweepRun("f", "1", "cancelled", `{"Log":["a"]}`), sweepDid("undo a of [a]", "item 1"), func(o *segnotest.Outcome) error {
			if o.Effects["item 3"] > 0 {
				return fmt.Errorf("item 3: got = %d times, want it never to begin", o.Effects["item 3"])
			}
			return nil
		}),
	})
}

func TestSweepKeepSettled(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Options: sweepSchema,
		Times:   true,
		Register: sweepModel(func(fx *sweepFX) sweepStep {
			return sweepStep{Retry: segno.Retry{Attempts: 2, Initial: 2 * time.Second, Jitter: -1}, Do: segno.Batch(
				func(ctx context.Context, _ sweepData) ([]int, error) {
					fx.Do(ctx, "load")
					return []int{1, 2}, sweepPaid(ctx, "load")
				},
				func(ctx context.Context, i int) (int, error) {
					fx.Do(ctx, fmt.Sprint("item ", i))
					return i, sweepPaid(ctx, fmt.Sprint("item ", i))
				},
				func(ctx context.Context, d *sweepData, all []segno.Settled[int]) (sweepAt, error) {
					fx.Do(ctx, fmt.Sprint("finish, attempt ", segno.InfoFrom(ctx).Attempt))
					if segno.InfoFrom(ctx).Attempt == 1 {
						return "", errSweep
					}
					sweepSettled(d, all)
					return sB, sweepPaid(ctx, "finish")
				}, segno.BatchOptions{KeepSettled: true})}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["1","2","b"]}`), sweepEnded("f", "1", 2*time.Second),
			sweepOnce("load", "item 1", "item 2", "finish")),
	})
}

// The time of a join runs on over a crash, and what had ended by then is joined.
func TestSweepJoinTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		mode         segno.JoinMode
		status, data string
	}{
		"All":            {segno.All, "failed", ""},
		"PartialTimeout": {segno.PartialTimeout, "completed", `{"Log":["1","-","b"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			sweep(t, segnotest.Scenario{
				Options: sweepSchema,
				Side:    2,
				Register: sweepModel(func(fx *sweepFX) sweepStep {
					return sweepStep{Do: segno.Split(segno.Join{Mode: c.mode, Timeout: 10 * time.Second},
						func(_ context.Context, d *sweepData, all []segno.Settled[int]) (sweepAt, error) {
							sweepSettled(d, all)
							return sB, nil
						},
						func(ctx context.Context, _ sweepData) (int, error) {
							fx.Do(ctx, "quick")
							return 1, sweepPaid(ctx, "quick")
						},
						func(ctx context.Context, _ sweepData) (int, error) {
							fx.Do(ctx, "slow")
							return 2, sweepRest(ctx, time.Hour)
						})}
				}),
				Drive:     sweepTrigger("1"),
				Normalize: sweepJitter,
				Check: sweepAll(sweepRun("f", "1", c.status, c.data), sweepEnded("f", "1", 10*time.Second),
					sweepOnce("quick")),
			})
		})
	}
}

// The first round fails in merge; in the second, merge snoozes, and is given the
// same when it is called again.
func TestSweepSplitRounds(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: sweepModel(func(fx *sweepFX) sweepStep {
			return sweepStep{Retry: segno.Retry{Attempts: 2, Initial: 2 * time.Second, Jitter: -1}, Do: segno.Split(segno.Join{},
				func(ctx context.Context, d *sweepData, all []segno.Settled[int]) (sweepAt, error) {
					n := segno.InfoFrom(ctx).Attempt
					fx.Do(ctx, fmt.Sprintf("merge, attempt %d, %v", n, d.Log))
					switch {
					case d.N == 0 && n == 1:
						return "", errSweep
					case d.N == 0:
						d.N = 1
						sweepSettled(d, all)
						return "", segno.Snooze(time.Minute)
					}
					sweepSettled(d, all)
					return sB, nil
				},
				func(ctx context.Context, _ sweepData) (int, error) {
					at := int(segnotest.Now() / time.Second) // each round has its own
					fx.Do(ctx, fmt.Sprint("branch of ", at))
					return at, nil
				})}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["2","2","b"],"N":1}`), sweepEnded("f", "1", time.Minute+2*time.Second)),
	})
}
