package segno_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// sweepModel registers one manual flow whose first state is the given step.
func sweepModel(step func(fx *sweepFX) sweepStep) func(*segno.Scheduler, *sweepFX) error {
	return sweepManual(func(fx *sweepFX) sweepFlow {
		return sweepFlow{Initial: sA, Steps: sweepTable{
			sA:    step(fx),
			sB:    {Do: sweepDo(fx, "b", sDone)},
			sDone: {Final: true},
		}}
	})
}

func TestSweepStepped(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Options: sweepSchema,
		Times:   true,
		Register: sweepModel(func(fx *sweepFX) sweepStep {
			return sweepStep{Retry: segno.Retry{Attempts: 2, Initial: time.Second, Jitter: -1}, Do: segno.Stepped(func(ctx context.Context, d *sweepData, at *int) (sweepAt, bool, error) {
				fx.Do(ctx, fmt.Sprintf("step %d, attempt %d", *at, segno.InfoFrom(ctx).Attempt))
				if *at == 2 && segno.InfoFrom(ctx).Attempt == 1 {
					return "", false, errSweep
				}
				d.N += *at
				err := sweepPaid(ctx, fmt.Sprint("step ", *at))
				if *at++; *at <= 4 {
					return "", true, err
				}
				return sB, false, err
			})}
		}),
		Drive:     sweepTrigger("1"),
		Normalize: sweepJitter,
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["b"],"N":10}`),
			sweepOnce("step 0", "step 1", "step 2", "step 3", "step 4")),
	})
}

// sweepItem works on an item of a batch: number 2 fails once, number 3 always.
func sweepItem(fx *sweepFX) func(context.Context, int) (int, error) {
	return func(ctx context.Context, i int) (int, error) {
		n := segno.InfoFrom(ctx).Attempt
		fx.Do(ctx, fmt.Sprintf("item %d, attempt %d", i, n))
		if i == 2 && n == 1 || i == 3 {
			return 0, errSweep
		}
		return 10 * i, sweepPaid(ctx, fmt.Sprint("item ", i))
	}
}

func TestSweepBatch(t *testing.T) {
	for _, concurrency := range []int{1, 3} {
		t.Run(fmt.Sprint(concurrency), func(t *testing.T) {
			sweep(t, segnotest.Scenario{
				Options: sweepSchema,
				Side:    concurrency,
				Register: sweepModel(func(fx *sweepFX) sweepStep {
					return sweepStep{Do: segno.Batch(func(ctx context.Context, _ sweepData) ([]int, error) {
						fx.Do(ctx, "load")
						return []int{1, 2, 3, 4}, sweepPaid(ctx, "load")
					}, sweepItem(fx), func(ctx context.Context, d *sweepData, all []segno.Settled[int]) (sweepAt, error) {
						fx.Do(ctx, "finish")
						for _, s := range all {
							d.N += s.Value
							d.Log = append(d.Log, fmt.Sprint(s.Value, s.Err))
						}
						return sB, sweepPaid(ctx, "finish")
					}, segno.BatchOptions{Concurrency: concurrency, Retry: segno.Retry{Attempts: 2, Initial: 2 * time.Second, Jitter: -1}})}
				}),
				Drive: sweepTrigger("1"),
				Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["10 \u003cnil\u003e","20 \u003cnil\u003e","0 broken","40 \u003cnil\u003e","b"],"N":70}`),
					sweepEnded("f", "1", 2*time.Second),
					sweepOnce("load", "item 1", "item 2", "item 4", "finish")),
			})
		})
	}
}

func TestSweepSplit(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Options: sweepSchema,
		Side:    3,
		Register: sweepModel(func(fx *sweepFX) sweepStep {
			branch := func(ctx context.Context, d sweepData, name string, bad int) (string, error) {
				n := segno.InfoFrom(ctx).Attempt
				fx.Do(ctx, fmt.Sprintf("%s, attempt %d", name, n))
				if n <= bad {
					return "", errSweep
				}
				return name, sweepPaid(ctx, name)
			}
			return sweepStep{Undo: sweepUndo(fx, "a"), Do: segno.Split(segno.Join{Mode: segno.Quorum, N: 2, Retry: segno.Retry{Attempts: 3, Initial: 3 * time.Second, Jitter: -1}},
				func(ctx context.Context, d *sweepData, all []segno.Settled[string]) (sweepAt, error) {
					for _, s := range all {
						d.Log = append(d.Log, fmt.Sprint(s.Value, s.Err, s.Skipped))
					}
					return sB, nil
				},
				func(ctx context.Context, d sweepData) (string, error) { return branch(ctx, d, "x", 0) },
				func(ctx context.Context, d sweepData) (string, error) { return branch(ctx, d, "y", 1) },
				func(ctx context.Context, d sweepData) (string, error) { return branch(ctx, d, "z", 9) })}
		}),
		Drive: sweepTrigger("1"),
		// The third branch is on its second attempt when the other two have made
		// the quorum, or has not begun it yet.
		Normalize: func(o *segnotest.Outcome) { delete(o.Effects, "z, attempt 2") },
		Check:     sweepAll(sweepRun("f", "1", "completed", ""), sweepOnce("x", "y"), sweepEnded("f", "1", 3*time.Second)),
	})
}

// sweepNumbers are the numbers behind the cursor up to n, one every d.
func sweepNumbers(fx *sweepFX, n int, d time.Duration) func(context.Context, sweepData, *int) (iter.Seq2[int, error], error) {
	return func(ctx context.Context, _ sweepData, from *int) (iter.Seq2[int, error], error) {
		i := 0
		if from != nil {
			i = *from
		}
		fx.Repeat(ctx, "open")
		return func(yield func(int, error) bool) {
			for i++; i <= n; i++ {
				if sweepRest(ctx, d) != nil || !yield(i, nil) {
					return
				}
			}
		}, nil
	}
}

func TestSweepStream(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Options: sweepSchema,
		Register: sweepModel(func(fx *sweepFX) sweepStep {
			return sweepStep{Do: segno.Stream(segno.Source[sweepAt, sweepData, int, int, int]{
				Open:    sweepNumbers(fx, 7, 0),
				Count:   2,
				OnError: segno.SkipItem,
				Item: func(ctx context.Context, i int) (int, int, error) {
					fx.Do(ctx, fmt.Sprint("item ", i))
					if i == 5 {
						return 0, 0, errSweep
					}
					return i, i, nil
				},
				Flush: func(ctx context.Context, d *sweepData, window []int) (sweepAt, bool, error) {
					d.Log = append(d.Log, fmt.Sprint(window))
					return "", false, sweepPaid(ctx, fmt.Sprint(window))
				},
				Close: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					fx.Do(ctx, "close")
					return sB, sweepPaid(ctx, "close")
				},
			})}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["[1 2]","[3 4]","[6 7]","b"]}`),
			sweepOnce("[1 2]", "[3 4]", "[6 7]", "close")),
	})
}

func TestSweepAwait(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Options: sweepSchema,
		Times:   true,
		Register: sweepModel(func(fx *sweepFX) sweepStep {
			return sweepStep{Timeout: time.Hour, Retry: segno.Retry{Attempts: 2, Jitter: -1}, Do: segno.Await("go", func(ctx context.Context, d *sweepData, n int) (sweepAt, error) {
				fx.Do(ctx, fmt.Sprintf("got %d, attempt %d", n, segno.InfoFrom(ctx).Attempt))
				if segno.InfoFrom(ctx).Attempt == 1 {
					return "", errSweep
				}
				d.N += n
				if d.N < 7 {
					return sA, nil
				}
				return sB, sweepPaid(ctx, "go")
			})}
		}),
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			id, err := r.Trigger(ctx, "f", segno.Trigger{Key: "1"})
			for i, n := range []int{2, 5} {
				if err == nil {
					err = segnotest.At(ctx, time.Duration(i)*time.Minute)
				}
				if err == nil {
					err = r.Signal(ctx, segno.Target{Run: id}, segno.Message{Name: "go", ID: fmt.Sprint(n), Payload: n})
				}
			}
			return err
		},
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["b"],"N":7}`), sweepOnce("go"), sweepEnded("f", "1", time.Minute+100*time.Millisecond)),
	})
}

func TestSweepAwaitTimeout(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepModel(func(fx *sweepFX) sweepStep {
			return sweepStep{Timeout: time.Hour, Do: segno.Await("go", func(context.Context, *sweepData, int) (sweepAt, error) {
				return "", errSweep
			}, segno.AwaitOptions[sweepAt, sweepData]{OnTimeout: sweepDo(fx, "late", sB)})}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["late","b"]}`), sweepEnded("f", "1", time.Hour)),
	})
}

// sweepParent registers a flow "f" that calls "g".
func sweepParent(parent func(w *sweepStep), child func(fx *sweepFX) sweepTable) func(*segno.Scheduler, *sweepFX) error {
	return func(s *segno.Scheduler, fx *sweepFX) error {
		g := sweepFlow{Initial: sA, Steps: child(fx)}
		call := sweepStep{Do: segno.Call("g", g, func(d sweepData) sweepData { return sweepData{N: 20} },
			func(ctx context.Context, d *sweepData, run segno.Run[sweepAt, sweepData]) (sweepAt, error) {
				fx.Do(ctx, "then")
				d.Log = append(d.Log, fmt.Sprint(run.Status, " ", run.Data.N))
				return sC, nil
			})}
		parent(&call)
		f := sweepFlow{Initial: sA, Steps: sweepTable{
			sA:    {Do: sweepDo(fx, "a", sB), Undo: sweepUndo(fx, "a")},
			sB:    call,
			sC:    {Do: sweepDo(fx, "c", sDone)},
			sDone: {Final: true},
		}}
		if err := s.Manual("f", f); err != nil {
			return err
		}
		return s.Manual("g", g)
	}
}

func TestSweepCall(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepParent(func(*sweepStep) {}, func(fx *sweepFX) sweepTable {
			return sweepTable{
				sA:    {Do: sweepDo(fx, "child", sB)},
				sB:    {Do: segno.Sleep[sweepData](time.Minute, sDone)},
				sDone: {Final: true},
			}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["a","completed 20","c"]}`), sweepEnded("f", "1", time.Minute)),
	})
}

// The parent is cancelled while the child sleeps: first the child rolls back.
func TestSweepCallCancelled(t *testing.T) {
	for name, drive := range map[string]func(context.Context, *segno.RunningScheduler) error{
		"Cancel": func(ctx context.Context, r *segno.RunningScheduler) error {
			id, err := r.Trigger(ctx, "f", segno.Trigger{Key: "1"})
			if err == nil {
				err = segnotest.At(ctx, 10*time.Second)
			}
			if err == nil {
				err = r.CancelRun(ctx, id)
			}
			if errors.Is(err, segno.ErrEnded) { // by the cancel of an incarnation before
				err = nil
			}
			return err
		},
		"Timeout": sweepTrigger("1"),
	} {
		t.Run(name, func(t *testing.T) {
			sweep(t, segnotest.Scenario{
				Register: sweepParent(func(s *sweepStep) {
					if name == "Timeout" {
						s.Timeout = 10 * time.Second
					}
				}, func(fx *sweepFX) sweepTable {
					return sweepTable{
						sA:    {Do: sweepDo(fx, "child", sB), Undo: sweepUndo(fx, "child")},
						sB:    {Do: segno.Sleep[sweepData](time.Minute, sDone)},
						sDone: {Final: true},
					}
				}),
				Drive:     drive,
				Normalize: sweepJitter,
				Check: func(o *segnotest.Outcome) error {
					want := map[string]string{"Cancel": "cancelled", "Timeout": "failed"}[name]
					return sweepAll(sweepRun("f", "1", want, ""), sweepDid("undo child of [child]", "undo a of [a]"))(o)
				},
			})
		})
	}
}
