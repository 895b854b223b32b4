package segno_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

func TestDelayGrowsUpToMaxDelay(t *testing.T) {
	for name, c := range map[string]struct {
		p    segno.BackoffPolicy
		want string
	}{
		"the zero value":       {segno.BackoffPolicy{Jitter: -1}, "1s 1s 2s 4s 8s 16s 32s 1m4s 2m8s 4m16s 5m0s 5m0s"},
		"a tenth of a second":  {segno.BackoffPolicy{Initial: 100 * time.Millisecond, Jitter: -1}, "100ms 100ms 200ms 400ms 800ms"},
		"a cap":                {segno.BackoffPolicy{Initial: 150 * time.Millisecond, MaxDelay: 600 * time.Millisecond, Jitter: -1}, "150ms 150ms 300ms 600ms 600ms"},
		"a multiplier":         {segno.BackoffPolicy{Initial: time.Second, Multiplier: 1.5, Jitter: -1}, "1s 1s 1.5s 2.25s"},
		"longer than 5 min":    {segno.BackoffPolicy{Initial: 10 * time.Minute, Jitter: -1}, "10m0s 10m0s 10m0s"},
		"no window at all":     {segno.BackoffPolicy{Initial: -1}, "0s 0s 0s"},
		"shorter than initial": {segno.BackoffPolicy{Initial: time.Minute, MaxDelay: time.Second, Jitter: -1}, "1s 1s 1s"},
	} {
		var got []string
		for streak := range strings.Fields(c.want) {
			got = append(got, c.p.Delay(streak).String())
		}
		expect(t, "delays for "+name+", streaks from 0", strings.Join(got, " "), c.want)
	}
}

func TestJitterStaysWithinItsFractionAndBelowTheCap(t *testing.T) {
	p := segno.BackoffPolicy{Initial: time.Second, MaxDelay: 1200 * time.Millisecond, Jitter: 0.5}
	least, most := time.Hour, time.Duration(0)
	for range 10_000 {
		d := p.Delay(1)
		least, most = min(least, d), max(most, d)
	}
	if least < 500*time.Millisecond || least > 510*time.Millisecond {
		t.Errorf("the shortest of 10,000: got = %v, want about 500ms", least)
	}
	expect(t, "the longest of 10,000, cut at the cap", most, p.MaxDelay)
}

// flaky fails as long as the script has an f for the call, and then completes.
func flaky(calls *tries, script string) route {
	return one(func(ctx context.Context, _ *cargo) (leg, error) {
		calls.note(ctx)
		if n := calls.calls(); n <= len(script) && script[n-1] == 'f' {
			return "", errTest
		}
		return done, nil
	})
}

func TestAnIntervalFlowIsSlowedByItsFailures(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(segno.Flow{
			ID: "f", Workflow: flaky(&s, "fffff"), Schedule: segno.Every(50 * time.Millisecond),
			Backoff: segno.BackoffPolicy{Initial: 140 * time.Millisecond, MaxDelay: 560 * time.Millisecond, Jitter: -1},
		})
		time.Sleep(2500 * time.Millisecond)
		synctest.Wait()
		gaps := strings.Fields(s.gaps())
		expect(t, "gaps: the first slot behind each window", strings.Join(gaps[:6], " "), "150ms 300ms 600ms 600ms 600ms 50ms")
		expect(t, "slots", r.slots("f")[:95], "fired 1, skipped 2 backoff, fired 1, skipped 5 backoff, fired 1, skipped 11 backoff, fired 1, s")
		info := r.status("f")
		expect(t, "streak after success", info.FailureStreak, 0)
		expect(t, "window after success", info.NextEligible, time.Time{})
		expect(t, "status", info.Status, segno.StatusCompleted)
	})
}

func TestASlotAtTheVeryEndOfTheWindowFires(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		newBed(t).start(segno.Flow{
			ID: "f", Workflow: flaky(&s, "f"), Schedule: segno.Every(time.Second), Backoff: segno.BackoffPolicy{Initial: 3 * time.Second, Jitter: -1},
		})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		expect(t, "gaps", s.gaps(), "3s")
	})
}

func TestAFailureWithoutAPolicyClosesTheGateForASecond(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(fail)))
		id := r.trigger("f", cargo{})
		r.ended(id, segno.RunFailed)
		info := r.status("f")
		expect(t, "status", info.Status, segno.StatusBackoff)
		expect(t, "streak", info.FailureStreak, 1)
		expect(t, "last error", info.LastError, errTest.Error())
		if d := info.NextEligible.Sub(r.info(id).Ended); d < 900*time.Millisecond || d > 1100*time.Millisecond {
			t.Errorf("window: got = %v, want 1s ± 10 %%", d)
		}
	})
}

func TestAFlowTripsAtItsStreakLimitAndStaysSilent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		ctx := context.Background()
		var s tries
		f := segno.Flow{
			ID: "f", Workflow: flaky(&s, "ffffff"), Schedule: segno.Every(time.Second),
			Backoff: segno.BackoffPolicy{Initial: 100 * time.Millisecond, StreakLimit: 3},
		}
		r := b.start(f)
		time.Sleep(30500 * time.Millisecond)
		for _, when := range []string{"before", "after"} {
			info := r.status("f")
			expect(t, "calls "+when+" a restart", s.calls(), 3)
			expect(t, "status "+when+" a restart", info.Status, segno.StatusTripped)
			expect(t, "streak "+when+" a restart", info.FailureStreak, 3)
			expect(t, "window "+when+" a restart", info.NextEligible, time.Time{})
			expect(t, "next run "+when+" a restart", info.NextRun, time.Time{})
			_, err := r.Trigger(ctx, "f", segno.Trigger{})
			expectError(t, "a trigger "+when+" a restart", err, segno.ErrTripped)
			r = b.restart(f)
			time.Sleep(30 * time.Second)
		}
		if err := r.ResetFlow(ctx, "f"); err != nil {
			t.Fatalf("ResetFlow: got error %v, want none", err)
		}
		info := r.status("f")
		expect(t, "status after the reset", info.Status, segno.StatusIdle)
		expect(t, "streak after the reset", info.FailureStreak, 0)
		expect(t, "next run after the reset: the next slot", info.NextRun, time.Now().Add(500*time.Millisecond).UTC())
		expect(t, "slots up to the reset", r.slots("f"), "fired 1, fired 1, fired 1, skipped 88 tripped")
		time.Sleep(10 * time.Second)
		expect(t, "calls: it trips again at the limit", s.calls(), 6)
		expect(t, "status", r.status("f").Status, segno.StatusTripped)
	})
}

func TestAStreakLimitOfOneTripsAtTheFirstFailure(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(
			segno.Flow{ID: "one", Workflow: one(fail), Backoff: segno.BackoffPolicy{StreakLimit: 1}},
			segno.Flow{ID: "zero", Workflow: one(fail), Backoff: segno.BackoffPolicy{Initial: -1}},
		)
		r.ended(r.trigger("one", cargo{}), segno.RunFailed)
		expect(t, "status with limit 1", r.status("one").Status, segno.StatusTripped)
		for range 30 {
			r.ended(r.trigger("zero", cargo{}), segno.RunFailed)
		}
		info := r.status("zero")
		expect(t, "streak with limit 0 and no window", info.FailureStreak, 30)
		expect(t, "window", info.NextEligible, time.Time{})
		expect(t, "tripped", info.Status == segno.StatusTripped, false)
	})
}

func TestSuccessClearsStreakAndWindow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		b := newBed(t)
		f := segno.Flow{ID: "f", Workflow: flaky(&s, "ff"), Backoff: segno.BackoffPolicy{Initial: time.Hour}}
		r := b.start(f)
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "streak", r.status("f").FailureStreak, 2)
		r.completed(r.trigger("f", cargo{}))
		r = b.restart(f)
		info := r.status("f")
		expect(t, "streak after success", info.FailureStreak, 0)
		expect(t, "window after success", info.NextEligible, time.Time{})
		expect(t, "last error after success", info.LastError, "")
		expect(t, "status", info.Status, segno.StatusCompleted)
		expect(t, "run count", info.RunCount, 3)
	})
}

func TestAResetCountsFromOneAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		r := newBed(t).start(flowOf("f", one(fail)))
		for range 3 {
			r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		}
		expect(t, "streak", r.status("f").FailureStreak, 3)
		if err := r.ResetFlow(ctx, "f"); err != nil {
			t.Fatal(err)
		}
		info := r.status("f")
		expect(t, "status after the reset", info.Status, segno.StatusIdle)
		expect(t, "window after the reset", info.NextEligible, time.Time{})
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "streak after another failure", r.status("f").FailureStreak, 1)
		expectError(t, "ResetFlow of an unknown flow", r.ResetFlow(ctx, "x"), segno.ErrNotFound)
	})
}

func TestAResetDuringARunThatFailsEndsWithStreakOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(deaf(time.Second, "", errTest))))
		for range 2 {
			r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		}
		id := r.trigger("f", cargo{})
		synctest.Wait()
		if err := r.ResetFlow(context.Background(), "f"); err != nil {
			t.Fatal(err)
		}
		r.ended(id, segno.RunFailed)
		expect(t, "streak", r.status("f").FailureStreak, 1)
	})
}

func TestAResetTakesEffectAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(segno.Flow{
			ID: "f", Workflow: flaky(&s, "f"), Schedule: segno.Every(time.Minute), Backoff: segno.BackoffPolicy{Initial: 24 * time.Hour},
		})
		time.Sleep(90 * time.Second)
		if err := r.ResetFlow(context.Background(), "f"); err != nil {
			t.Fatal(err)
		}
		expect(t, "next run", r.status("f").NextRun, time.Now().Add(30*time.Second).UTC())
		time.Sleep(30 * time.Second)
		synctest.Wait()
		expect(t, "gaps", s.gaps(), "2m0s")
		expect(t, "slots", r.slots("f"), "fired 1, skipped 1 backoff, fired 1")
	})
}

func TestAWindowOpenedByAManualRunHoldsTheNextSlot(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(segno.Flow{
			ID: "f", Workflow: flaky(&s, ".f"), Schedule: segno.Every(time.Minute), Backoff: segno.BackoffPolicy{Initial: 150 * time.Second, Jitter: -1},
		})
		time.Sleep(30 * time.Second)
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "next run", r.status("f").NextRun, time.Now().Add(150*time.Second).UTC())
		time.Sleep(150 * time.Second)
		synctest.Wait()
		expect(t, "gaps", s.gaps(), "30s 2m30s")
		expect(t, "slots", r.slots("f"), "fired 1, skipped 2 backoff, fired 1")
	})
}

func TestAManualSuccessOpensTheGateForTheNextSlot(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(segno.Flow{
			ID: "f", Workflow: flaky(&s, "f"), Schedule: segno.Every(time.Minute), Backoff: segno.BackoffPolicy{Initial: 24 * time.Hour},
		})
		time.Sleep(30 * time.Second)
		r.completed(r.trigger("f", cargo{}))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		expect(t, "gaps", s.gaps(), "30s 30s")
	})
}

func TestCronSlotsInsideTheWindowAreNotDispatched(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(segno.Flow{
			ID: "f", Workflow: flaky(&s, "f"), Schedule: segno.Cron("* * * * * *"), Backoff: segno.BackoffPolicy{Initial: time.Minute, Jitter: -1},
		})
		time.Sleep(40 * time.Second)
		expect(t, "calls", s.calls(), 1)
		time.Sleep(22 * time.Second)
		synctest.Wait()
		expect(t, "the first gap", s.gap(1), time.Minute)
		expect(t, "slots", r.slots("f")[:39], "fired 1, skipped 59 backoff, fired 1, f")
	})
}

func TestAOneTimeSlotWaitsForTheGate(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		b := newBed(t)
		begin := time.Now()
		f := segno.Flow{ID: "f", Workflow: flaky(&s, "f"), Schedule: segno.At(begin.Add(time.Minute)), Backoff: segno.BackoffPolicy{Initial: 5 * time.Minute, Jitter: -1}}
		r := b.start(f)
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		time.Sleep(2 * time.Minute)
		r = b.restart(f)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		expect(t, "gaps", s.gaps(), "5m0s")
		expect(t, "slots", r.slots("f"), "fired 1")
	})
}

// The fourth criterion of issue 2.
func TestStreakAndWindowOutliveARestart(t *testing.T) {
	for name, stop := range map[string]func(*bed){"stop": (*bed).stop, "kill": (*bed).kill} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var s tries
				f := segno.Flow{
					ID: "f", Workflow: flaky(&s, "fffff"), Schedule: segno.Every(time.Second),
					Backoff: segno.BackoffPolicy{Initial: 150 * time.Second, Jitter: -1, MaxDelay: 10 * time.Minute, StreakLimit: 4},
				}
				r := b.start(f)
				synctest.Wait()
				r.ended(r.runs("f")[0].ID, segno.RunFailed)
				r.ended(r.trigger("f", cargo{}), segno.RunFailed)
				r.ended(r.trigger("f", cargo{}), segno.RunFailed)
				before := r.status("f")
				expect(t, "streak", before.FailureStreak, 3)
				expect(t, "window: ten minutes left", before.NextEligible, time.Now().Add(10*time.Minute).UTC())
				stop(b)
				time.Sleep(5 * time.Minute)
				r = b.start(f)
				synctest.Wait()
				after := r.status("f")
				expect(t, "streak after the restart", after.FailureStreak, before.FailureStreak)
				expect(t, "window after the restart", after.NextEligible, before.NextEligible)
				expect(t, "status after the restart", after.Status, segno.StatusBackoff)
				expect(t, "last error after the restart", after.LastError, before.LastError)
				expect(t, "last run after the restart", after.LastRun, before.LastRun)
				time.Sleep(5*time.Minute - time.Millisecond)
				synctest.Wait()
				expect(t, "calls a millisecond before the window's end", s.calls(), 3)
				time.Sleep(time.Millisecond)
				synctest.Wait()
				expect(t, "calls at the window's end", s.calls(), 4)
				expect(t, "status: the fourth failure trips it", r.status("f").Status, segno.StatusTripped)
				stop(b)
				time.Sleep(24 * time.Hour)
				r = b.start(f)
				time.Sleep(15 * time.Second)
				expect(t, "status after another restart", r.status("f").Status, segno.StatusTripped)
				expect(t, "streak after another restart", r.status("f").FailureStreak, 4)
				expect(t, "calls after another restart", s.calls(), 4)
			})
		})
	}
}

func TestAWindowNeverLastsLongerThanItWasSetFor(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		f := segno.Flow{ID: "f", Workflow: flaky(&s, "f"), Backoff: segno.BackoffPolicy{Initial: time.Minute, Jitter: -1}}
		b.stepClock(24 * time.Hour) // the first start's clock is a day ahead
		r := b.start(f)
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		b.stepClock(0)
		r = b.restart(f)
		expect(t, "NextEligible by the right clock", r.status("f").NextEligible, time.Now().Add(time.Minute).UTC())
	})
}

func TestTheEndOfARunThatBeganBeforeTheGateClosedMovesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		w := one(func(_ context.Context, c *cargo) (leg, error) {
			time.Sleep(time.Duration(c.N) * time.Second)
			if c.Text == "ok" {
				return done, nil
			}
			return "", errTest
		})
		r := b.start(segno.Flow{ID: "f", Workflow: w, Overlap: segno.Allow(0), Backoff: segno.BackoffPolicy{Initial: 10 * time.Second, Jitter: -1}})
		begin := time.Now().UTC()
		check := func(what string, id segno.RunID, status segno.RunStatus, streak int, until time.Duration) {
			t.Helper()
			info, _ := r.WaitRun(context.Background(), id)
			expect(t, what+": status of the run", info.Status, status)
			flow := r.status("f")
			expect(t, what+": streak", flow.FailureStreak, streak)
			want := time.Time{}
			if until > 0 {
				want = begin.Add(until)
			}
			expect(t, what+": window", flow.NextEligible, want)
		}
		first := r.trigger("f", cargo{N: 1})
		second := r.trigger("f", cargo{N: 2})
		third := r.trigger("f", cargo{N: 3, Text: "ok"})
		slow := r.trigger("f", cargo{N: 30})
		check("the first failure", first, segno.RunFailed, 1, 11*time.Second)
		inside := r.trigger("f", cargo{N: 4}) // begins in the window, at 1 s
		check("a failure that began before", second, segno.RunFailed, 1, 11*time.Second)
		check("a success that began before", third, segno.RunCompleted, 1, 11*time.Second)
		expect(t, "the flow's status meanwhile", r.status("f").Status, segno.StatusRunning)
		check("a failure that began in the window", inside, segno.RunFailed, 2, 25*time.Second)
		// At 30 s the gate is open again: the end of a run that began before counts.
		check("a failure behind the window", slow, segno.RunFailed, 3, 70*time.Second)
		last := r.trigger("f", cargo{Text: "ok"})
		check("a success that began in the window", last, segno.RunCompleted, 0, 0)
	})
}

func TestConcurrentFailuresWithoutAWindowAllCount(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		r := b.start(segno.Flow{ID: "f", Workflow: one(deaf(time.Second, "", errTest)), Overlap: segno.Allow(0), Backoff: segno.BackoffPolicy{Initial: -1, StreakLimit: 3}})
		var ids []segno.RunID
		for range 3 {
			ids = append(ids, r.trigger("f", cargo{}))
		}
		for _, id := range ids {
			r.ended(id, segno.RunFailed)
		}
		expect(t, "streak", r.status("f").FailureStreak, 3)
		expect(t, "status", r.status("f").Status, segno.StatusTripped)
	})
}

func TestASuccessDoesNotLeaveTheTrippedState(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		w := one(func(_ context.Context, c *cargo) (leg, error) {
			time.Sleep(time.Duration(c.N) * time.Second)
			if c.N == 1 {
				return "", errTest
			}
			return done, nil
		})
		r := b.start(segno.Flow{ID: "f", Workflow: w, Overlap: segno.Allow(0), Backoff: segno.BackoffPolicy{StreakLimit: 1}})
		bad, good := r.trigger("f", cargo{N: 1}), r.trigger("f", cargo{N: 2})
		r.ended(bad, segno.RunFailed)
		r.completed(good)
		expect(t, "status", r.status("f").Status, segno.StatusTripped)
	})
}

func TestATrippedFlowsOpenRunsGoOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		w := one(func(_ context.Context, c *cargo) (leg, error) {
			switch c.N {
			case 0:
				return "", errTest
			case 1:
				c.N++
				return "", segno.Snooze(time.Minute)
			}
			return done, nil
		})
		r := b.start(segno.Flow{ID: "f", Workflow: w, Overlap: segno.Allow(1), Backoff: segno.BackoffPolicy{StreakLimit: 1}})
		parked := r.trigger("f", cargo{N: 1})
		synctest.Wait()
		bad := r.trigger("f", cargo{})
		r.ended(bad, segno.RunFailed)
		expect(t, "status", r.status("f").Status, segno.StatusTripped)
		r.completed(parked)
		expect(t, "status", fmt.Sprint(r.status("f").Status), "tripped")
	})
}
