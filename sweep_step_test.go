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

func TestSweepPlainSteps(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA:    {Do: sweepDo(fx, "a", sB)},
				sB:    {Do: sweepDo(fx, "b", sC)},
				sC:    {Do: sweepDo(fx, "c", sDone)},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepRun("f", "1", "completed", `{"Log":["a","b","c"]}`),
	})
}

// A loop visits a state again: what a visit keeps must not be found by the next.
func TestSweepLoop(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, KeepData: true, Steps: sweepTable{
				sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					seen, found, err := segno.LoadMemo[int](ctx, "n")
					if err != nil || found {
						return "", fmt.Errorf("memo of visit %d: %w", seen, errors.Join(err, errSweep))
					}
					d.N++
					fx.Do(ctx, fmt.Sprint("round ", d.N))
					return sB, nil
				}},
				sB: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					if err := segno.SaveMemo(ctx, "n", d.N); err != nil {
						return "", err
					}
					if d.N < 3 {
						return sA, nil
					}
					return sDone, nil
				}},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepRun("f", "1", "completed", `{"N":3}`),
	})
}

// sweepTry fails until the given attempt, which the file must remember.
func sweepTry(fx *sweepFX, good int, err error, next sweepAt) segno.DoFunc[sweepAt, sweepData] {
	return func(ctx context.Context, d *sweepData) (sweepAt, error) {
		n := segno.InfoFrom(ctx).Attempt
		fx.Do(ctx, fmt.Sprint("try ", n))
		d.Log = append(d.Log, fmt.Sprint("try ", n))
		if n < good {
			return "", err
		}
		return next, nil
	}
}

// The waits are 400 ms, slept in memory, 800 ms, and 1.6 s and 3.2 s, parked.
func TestSweepRetry(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			retry := segno.Retry{Attempts: 5, Initial: 400 * time.Millisecond, Jitter: -1}
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA:    {Do: sweepTry(fx, 5, errSweep, sB), Retry: retry},
				sB:    {Do: sweepDo(fx, "b", sDone)},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["try 5","b"]}`), sweepEnded("f", "1", 6*time.Second)),
	})
}

func TestSweepRetryGivesUp(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: func(s *segno.Scheduler, fx *sweepFX) error {
			return s.Add(segno.Flow{ID: "f", Backoff: segno.BackoffPolicy{Jitter: -1}, Workflow: sweepFlow{Initial: sA, Steps: sweepTable{
				sA:    {Do: sweepTry(fx, 9, errSweep, sDone), Retry: segno.Retry{Attempts: 3, Initial: time.Second, Jitter: -1}},
				sDone: {Final: true},
			}}})
		},
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "failed", `{}`), sweepEnded("f", "1", 3*time.Second)),
	})
}

func TestSweepRetryAfterAndPanic(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Retry: segno.Retry{Attempts: 4, Panics: true, Jitter: -1}, Do: func(ctx context.Context, _ *sweepData) (sweepAt, error) {
					n := segno.InfoFrom(ctx).Attempt
					fx.Do(ctx, fmt.Sprint("try ", n))
					switch n {
					case 1:
						return "", segno.RetryAfter(errSweep, time.Minute)
					case 2:
						panic(errSweep)
					case 3:
						return "", segno.RetryAfter(nil, 10*time.Millisecond)
					}
					return sB, nil
				}},
				sB: {Retry: segno.Fixed(9, time.Second), Do: func(ctx context.Context, _ *sweepData) (sweepAt, error) {
					fx.Do(ctx, "b")
					return "", segno.Permanent(errSweep)
				}},
				sDone: {Final: true},
			}}
		}),
		Drive:     sweepTrigger("1"),
		Normalize: sweepJitter,
		Check:     sweepRun("f", "1", "failed", `{}`),
	})
}

// An attempt that outlives its timeout is of unknown outcome, and repeated.
func TestSweepAttemptTimeout(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {
					Timeout: 2 * time.Second, Retry: segno.Fixed(2, time.Second),
					Do: func(ctx context.Context, _ *sweepData) (sweepAt, error) {
						n := segno.InfoFrom(ctx).Attempt
						fx.Do(ctx, fmt.Sprint("try ", n))
						if n == 1 {
							return "", sweepRest(ctx, time.Hour)
						}
						return sDone, nil
					},
				},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepRun("f", "1", "completed", `{}`),
	})
}

// Each memo is a commit of its own, so that no item is done again behind it.
func TestSweepMemos(t *testing.T) {
	const items = 4
	repeats := func(o *segnotest.Outcome) error {
		n := -items
		for _, count := range o.Effects {
			n += count
		}
		if n > o.Crashes {
			return fmt.Errorf("items repeated: got = %d, want at most %d", n, o.Crashes)
		}
		return nil
	}
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					at, _, err := segno.LoadMemo[int](ctx, "at")
					for ; err == nil && at < items; at++ {
						fx.Do(ctx, fmt.Sprint("item ", at))
						if at%2 == 0 { // the others are lost in a crash, and done again
							err = segno.SaveMemo(ctx, "at", at+1)
						} else {
							err = errors.Join(segno.SaveMemo(ctx, "at", at+1), segno.SaveMemo(ctx, fmt.Sprint(at), "x"))
						}
					}
					d.N = at
					return sDone, err
				}},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", `{"N":4}`), repeats),
	})
}

// A failed attempt keeps the memos of its visit.
func TestSweepMemosOfFailedAttempts(t *testing.T) {
	sweepAtLength(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Retry: segno.Retry{Attempts: 3, Initial: 2 * time.Second, Multiplier: 1, Jitter: -1}, Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					n := segno.InfoFrom(ctx).Attempt
					last, _, err := segno.LoadMemo[int](ctx, "last")
					if err != nil || last != n-1 && last != n { // n: saved, and the process died before the attempt was over
						return "", segno.Permanent(fmt.Errorf("attempt %d finds %d: %w", n, last, errSweep))
					}
					fx.Do(ctx, fmt.Sprint("try ", n))
					if err := segno.SaveMemo(ctx, "last", n); err != nil || n < 3 {
						return "", errors.Join(err, errSweep)
					}
					d.N = n
					return sDone, nil
				}},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepRun("f", "1", "completed", `{"N":3}`),
	})
}

// sweepPaid writes a row to a table of the application's, in the unit's commit.
func sweepPaid(ctx context.Context, name string) error {
	return segno.OnCommit(ctx, func(tx segno.Tx) error {
		if err := segnotest.Once(tx, name); err != nil {
			return err
		}
		_, err := tx.Exec("INSERT INTO paid (name, key) VALUES (?, ?)", name, segno.InfoFrom(ctx).Key)
		return err
	})
}

func sweepSchema(*sweepFX) segno.Options {
	return segno.Options{Schema: func(tx segno.Tx) error {
		_, err := tx.Exec("CREATE TABLE IF NOT EXISTS paid (name TEXT PRIMARY KEY, key TEXT)")
		return err
	}}
}

// What joins a commit happens exactly once: with a transition, a snooze, a
// transition to the end, and an undo.
func TestSweepOnCommit(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times:   true,
		Options: sweepSchema,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					fx.Do(ctx, fmt.Sprint("a ", d.N))
					if d.N++; d.N < 3 {
						return "", errors.Join(sweepPaid(ctx, fmt.Sprint("snooze ", d.N)), segno.Snooze(time.Duration(d.N)*700*time.Millisecond))
					}
					return sB, sweepPaid(ctx, "a")
				}, Undo: func(ctx context.Context, _ sweepData) error {
					fx.Do(ctx, "undo a")
					return sweepPaid(ctx, "undo a")
				}},
				sB: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					fx.Do(ctx, "b")
					return sC, sweepPaid(ctx, "b")
				}},
				sC: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					fx.Do(ctx, "c")
					return "", errors.Join(sweepPaid(ctx, "never"), errSweep)
				}},
				sDone: {Final: true},
			}}
		}),
		Drive:     sweepTrigger("1"),
		Normalize: sweepJitter,
		Check:     sweepAll(sweepRun("f", "1", "failed", `{"N":3}`), sweepOnce("snooze 1", "snooze 2", "a", "b", "undo a")),
	})
}

// A function that fails in its commit fails the attempt; nothing of it stands.
func TestSweepOnCommitFails(t *testing.T) {
	sweepAtLength(t, segnotest.Scenario{
		Times:   true,
		Options: sweepSchema,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					return sB, sweepPaid(ctx, "a")
				}},
				sB: {Retry: segno.Retry{Attempts: 3, Initial: 2 * time.Second, Multiplier: 1, Jitter: -1, Panics: true}, Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					n := segno.InfoFrom(ctx).Attempt
					fx.Do(ctx, fmt.Sprint("try ", n))
					d.N = n
					err := sweepPaid(ctx, "b")
					if n == 1 {
						err = errors.Join(err, sweepPaid(ctx, "a")) // a row with that key is there
					} else if n == 2 {
						err = errors.Join(err, segno.OnCommit(ctx, func(segno.Tx) error { panic(errSweep) }))
					}
					return sDone, err
				}},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", `{"N":3}`), sweepOnce("a", "b")),
	})
}
