package segno_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// The signal is there before anybody waits for it.
func TestSweepSignalBeforeTheWait(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Options: sweepSchema,
		Times:   true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: segno.Sleep[sweepData](time.Minute, sB)},
				sB: {Timeout: time.Hour, Do: segno.Await("go", func(ctx context.Context, d *sweepData, n int) (sweepAt, error) {
					d.N = n
					return sDone, sweepPaid(ctx, "go")
				})},
				sDone: {Final: true},
			}}
		}),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			id, err := r.Trigger(ctx, "f", segno.Trigger{Key: "1"})
			if err != nil {
				return err
			}
			return r.Signal(ctx, segno.Target{Run: id}, segno.Message{Name: "go", ID: "1", Payload: 3})
		},
		Check: sweepAll(sweepRun("f", "1", "completed", `{"N":3}`), sweepOnce("go"), sweepEnded("f", "1", time.Minute)),
	})
}

// The child fails and rolls back; that is what then sees.
func TestSweepCallOfAChildThatFails(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepParent(func(*sweepStep) {}, func(fx *sweepFX) sweepTable {
			return sweepTable{
				sA:    {Do: sweepDo(fx, "child", sB), Undo: sweepUndo(fx, "child")},
				sB:    {Do: sweepFail(fx)},
				sDone: {Final: true},
			}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["a","failed 20","c"]}`), sweepDid("undo child of [child]")),
	})
}

// Each visit of the state that calls has one child.
func TestSweepCallInALoop(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			g := sweepFlow{Initial: sA, Steps: sweepTable{sA: {Do: sweepDo(fx, "child", sDone)}, sDone: {Final: true}}}
			call := segno.Call("g", g, func(d sweepData) sweepData { return sweepData{N: d.N} },
				func(ctx context.Context, d *sweepData, run segno.Run[sweepAt, sweepData]) (sweepAt, error) {
					fx.Do(ctx, fmt.Sprint("then ", run.Data.N))
					if d.N++; d.N < 3 {
						return sA, nil
					}
					return sDone, nil
				})
			if err := s.Manual("f", sweepFlow{Initial: sA, Steps: sweepTable{sA: {Do: call}, sDone: {Final: true}}}); err != nil {
				return err
			}
			return s.Manual("g", g)
		},
		Drive: sweepTrigger("1"),
		Check: func(o *segnotest.Outcome) error {
			if len(o.Runs) != 4 {
				return fmt.Errorf("runs: got = %d, want = 4", len(o.Runs))
			}
			return sweepAll(sweepRun("f", "1", "completed", `{"N":3}`), sweepDid("then 0", "then 1", "then 2"))(o)
		},
	})
}

// Windows by time, of a source that goes on while the program is down.
func TestSweepStreamByTime(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Options: sweepSchema,
		Register: sweepModel(func(fx *sweepFX) sweepStep {
			return sweepStep{Do: segno.Stream(segno.Source[sweepAt, sweepData, int, int, int]{
				Open:  sweepNumbers(fx, 4, 4*time.Second),
				Every: 6 * time.Second,
				Item:  func(_ context.Context, i int) (int, int, error) { return i, i, nil },
				Flush: func(ctx context.Context, d *sweepData, window []int) (sweepAt, bool, error) {
					d.N += len(window)
					for _, i := range window {
						if err := sweepPaid(ctx, fmt.Sprint("item ", i)); err != nil {
							return "", false, err
						}
					}
					return "", false, nil
				},
				Close: func(ctx context.Context, _ *sweepData) (sweepAt, error) { return sB, sweepPaid(ctx, "close") },
			})}
		}),
		Drive: sweepTrigger("1"),
		// A crash begins a window anew, so the windows, and their keys, are others.
		Normalize: func(o *segnotest.Outcome) { delete(o.Tables, "paid") },
		Check:     sweepAll(sweepRun("f", "1", "completed", `{"Log":["b"],"N":4}`), sweepOnce("item 1", "item 2", "item 3", "item 4", "close")),
	})
}

// A step in the middle fails and waits for its retry in the file.
func TestSweepSteppedParkedRetry(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Options: sweepSchema,
		Times:   true,
		Register: sweepModel(func(fx *sweepFX) sweepStep {
			return sweepStep{Retry: segno.Retry{Attempts: 2, Initial: time.Hour, MaxDelay: time.Hour, Jitter: -1}, Do: segno.Stepped(func(ctx context.Context, d *sweepData, at *int) (sweepAt, bool, error) {
				if *at == 1 && segno.InfoFrom(ctx).Attempt == 1 {
					return "", false, errSweep
				}
				err := sweepPaid(ctx, fmt.Sprint("step ", *at))
				*at++
				return sB, *at < 3, err
			})}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", ""), sweepOnce("step 0", "step 1", "step 2"), sweepEnded("f", "1", time.Hour)),
	})
}
