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

// Short snoozes are slept in memory, long ones park the run.
func TestSweepSnooze(t *testing.T) {
	waits := []time.Duration{300 * time.Millisecond, 999 * time.Millisecond, time.Second, time.Hour}
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					fx.Do(ctx, fmt.Sprint("round ", d.N))
					if d.N < len(waits) {
						d.N++
						return "", segno.Snooze(waits[d.N-1])
					}
					return sB, nil
				}},
				sB:    {Do: sweepDo(fx, "b", sDone)},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["b"],"N":4}`), sweepEnded("f", "1", time.Hour+2299*time.Millisecond)),
	})
}

// A snooze gives the attempts back, and the instant it names holds over restarts.
func TestSweepSnoozeAndRetry(t *testing.T) {
	sweepAtLength(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			retry := segno.Retry{Attempts: 2, Initial: 3 * time.Second, Multiplier: 1, Jitter: -1}
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Retry: retry, Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
					n := segno.InfoFrom(ctx).Attempt
					fx.Do(ctx, fmt.Sprintf("round %d, try %d", d.N, n))
					switch d.N++; {
					case n == 1:
						return "", errSweep
					case d.N < 3:
						return "", segno.SnoozeUntil(segnotest.Epoch.Add(time.Duration(d.N) * time.Minute))
					}
					return sDone, nil
				}},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", `{"N":3}`), sweepEnded("f", "1", 2*time.Minute+3*time.Second)),
	})
}

// A clean stop while runs wait in every way: nothing is repeated, no time lost.
func TestSweepStopAndStart(t *testing.T) {
	register := func(s *segno.Scheduler, fx *sweepFX) error {
		retry := segno.Retry{Attempts: 3, Initial: 900 * time.Millisecond, Jitter: -1}
		return s.Add(segno.Flow{ID: "f", Overlap: segno.Allow(0), Workflow: sweepFlow{Initial: sA, Steps: sweepTable{
			sA:    {Do: sweepTry(fx, 3, errSweep, sB), Retry: retry, Undo: sweepUndo(fx, "a")},
			sB:    {Do: segno.Sleep[sweepData](700*time.Millisecond, sC)},
			sC:    {Do: segno.Sleep[sweepData](time.Minute, sD)},
			sD:    {Do: sweepDo(fx, "d", sDone)},
			sDone: {Final: true},
		}}})
	}
	until := func(d time.Duration) func(context.Context, *segno.RunningScheduler) error {
		return func(ctx context.Context, r *segno.RunningScheduler) error {
			_, err := r.Trigger(ctx, "f", segno.Trigger{Key: "1"})
			return errors.Join(err, segnotest.At(ctx, d))
		}
	}
	sweepAtLength(t, segnotest.Scenario{
		Times:     true,
		Register:  register,
		Drive:     until(500 * time.Millisecond),
		LeaveOpen: true,
		Then: []segnotest.Phase{
			{Register: register, Drive: until(1500 * time.Millisecond), LeaveOpen: true},
			{Register: register, Drive: until(3 * time.Second), LeaveOpen: true},
			{Register: register, Drive: until(20 * time.Second), LeaveOpen: true},
			{Register: register},
		},
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["try 3","d"]}`), sweepEnded("f", "1", time.Minute+3400*time.Millisecond)),
	})
}

// A stop finds a step at work: it ends and is committed, or stops when hurried.
func TestSweepStopInStep(t *testing.T) {
	register := sweepManual(func(fx *sweepFX) sweepFlow {
		return sweepFlow{Initial: sA, Steps: sweepTable{
			sA: {Do: func(ctx context.Context, d *sweepData) (sweepAt, error) {
				fx.Do(ctx, "a")
				if err := sweepRest(ctx, 10*time.Second); err != nil {
					return "", err
				}
				return sB, nil
			}},
			sB:    {Do: sweepDo(fx, "b", sDone)},
			sDone: {Final: true},
		}}
	})
	sweep(t, segnotest.Scenario{
		Register: register,
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			return errors.Join(sweepTrigger("1")(ctx, r), sweepRest(ctx, time.Second))
		},
		LeaveOpen: true,
		Then:      []segnotest.Phase{{Register: register}},
		Check:     sweepRun("f", "1", "completed", `{"Log":["b"]}`),
	})
}

// A stop in a hurry ends the step's context. That is no failure of the step:
// its attempt is made again.
func TestSweepHurriedStop(t *testing.T) {
	register := sweepManual(func(fx *sweepFX) sweepFlow {
		return sweepFlow{Initial: sA, Steps: sweepTable{
			sA: {Do: func(ctx context.Context, _ *sweepData) (sweepAt, error) {
				if segnotest.Now() < time.Minute {
					fx.Do(ctx, "cut short")
					return "", sweepRest(ctx, time.Hour)
				}
				fx.Do(ctx, "a")
				return sDone, nil
			}},
			sDone: {Final: true},
		}}
	})
	sweep(t, segnotest.Scenario{
		Register: register,
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			if err := errors.Join(sweepTrigger("1")(ctx, r), segnotest.At(ctx, time.Second)); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			return r.Stop(ctx)
		},
		LeaveOpen: true,
		Then: []segnotest.Phase{{Register: func(s *segno.Scheduler, fx *sweepFX) error {
			return errors.Join(segnotest.At(context.Background(), time.Minute), register(s, fx))
		}}},
		Check: sweepAll(sweepRun("f", "1", "completed", ""), sweepDid("a")),
	})
}

// Polls a second and more apart are exact; n counts them in the data.
func TestSweepPoll(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Timeout: time.Hour, Do: segno.Poll(func(ctx context.Context, d *sweepData) (sweepAt, time.Duration, error) {
					fx.Do(ctx, fmt.Sprint("poll ", d.N))
					if d.N++; d.N < 5 {
						return "", time.Duration(d.N) * time.Second, nil
					}
					return sB, 0, nil
				})},
				sB:    {Do: sweepDo(fx, "b", sDone)},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepRun("f", "1", "completed", `{"Log":["b"],"N":5}`), sweepEnded("f", "1", 10*time.Second)),
	})
}

// A faster poll that changes nothing is written at most once per ParkAfter, and
// may be repeated for so long.
func TestSweepFastPoll(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: segno.Poll(func(ctx context.Context, d *sweepData) (sweepAt, time.Duration, error) {
					fx.Repeat(ctx, "poll")
					if segnotest.Now() < 3*time.Second {
						return "", 150 * time.Millisecond, nil
					}
					return sDone, 0, nil
				})},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepRun("f", "1", "completed", `{}`),
	})
}

// Errors in a row are counted in the file; one more than tolerated is the step's.
func TestSweepPollTolerates(t *testing.T) {
	sweepAtLength(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Retry: segno.Retry{Attempts: 2, Initial: 5 * time.Second, Jitter: -1}, Do: segno.Poll(func(ctx context.Context, d *sweepData) (sweepAt, time.Duration, error) {
					now := segnotest.Now()
					fx.Do(ctx, fmt.Sprint("poll at ", now))
					switch {
					case now < 2*time.Second, now >= 3*time.Second && now < 6*time.Second:
						return "", 0, errSweep // two, forgiven; then three, of which the last is not
					case now < 20*time.Second:
						return "", time.Second, nil
					}
					return sDone, 0, nil
				}, segno.PollOptions{Tolerate: 2})},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: func(o *segnotest.Outcome) error {
			if got := len(o.Effects); got != 17 { // six, a retry 5 s behind the last, and eleven more
				return fmt.Errorf("polls: got = %d, want = 17", got)
			}
			return sweepRun("f", "1", "completed", `{}`)(o)
		},
	})
}

// The visit's timeout counts from its entry, over all polls and crashes.
func TestSweepPollTimeout(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA: {Do: sweepDo(fx, "a", sB), Undo: sweepUndo(fx, "a")},
				sB: {Timeout: 10 * time.Second, Retry: segno.Fixed(5, time.Second), Do: segno.Poll(func(ctx context.Context, d *sweepData) (sweepAt, time.Duration, error) {
					fx.Do(ctx, fmt.Sprint("poll at ", segnotest.Now()))
					return "", 4 * time.Second, nil
				})},
				sDone: {Final: true},
			}}
		}),
		Drive:     sweepTrigger("1"),
		Normalize: sweepJitter,
		Check:     sweepAll(sweepRun("f", "1", "failed", `{"Log":["a"]}`), sweepEnded("f", "1", 10*time.Second)),
	})
}

// The instant is asked for once per visit.
func TestSweepTimer(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			timer := func(d time.Duration, next sweepAt) segno.DoFunc[sweepAt, sweepData] {
				return segno.Timer(func(ctx context.Context, data *sweepData) (time.Time, error) {
					fx.Do(ctx, fmt.Sprint("until ", next))
					data.Log = append(data.Log, fmt.Sprint(segnotest.Now()))
					return time.Now().Add(d), nil
				}, sweepDo(fx, fmt.Sprint("then ", next), next))
			}
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA:    {Do: timer(300*time.Millisecond, sB)},
				sB:    {Do: timer(time.Hour, sC)},
				sC:    {Do: timer(-time.Minute, sDone)},
				sDone: {Final: true},
			}}
		}),
		Drive: sweepTrigger("1"),
		Check: sweepAll(sweepEnded("f", "1", time.Hour+300*time.Millisecond),
			sweepRun("f", "1", "completed", `{"Log":["0s","then b","300ms","then c","1h0m0.3s","then done"]}`)),
	})
}

func TestSweepSleep(t *testing.T) {
	sweep(t, segnotest.Scenario{
		Times: true,
		Register: sweepManual(func(fx *sweepFX) sweepFlow {
			return sweepFlow{Initial: sA, Steps: sweepTable{
				sA:    {Do: segno.Sleep[sweepData](400*time.Millisecond, sB)},
				sB:    {Do: segno.Sleep[sweepData](time.Minute, sC)},
				sC:    {Do: segno.Sleep[sweepData](0, sD)},
				sD:    {Do: segno.Sleep[sweepData](time.Hour, sDone), Timeout: 30 * time.Second},
				sDone: {Final: true},
			}}
		}),
		Drive:     sweepTrigger("1"),
		Normalize: sweepJitter,
		Check:     sweepAll(sweepRun("f", "1", "failed", `{}`), sweepEnded("f", "1", 90*time.Second+400*time.Millisecond)),
	})
}
