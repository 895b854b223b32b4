package segno_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// limited is a flow of many runs through one step with a limiter.
func limited(l segno.Limiter, step segno.Step[leg, cargo]) segno.Flow {
	step.Limiter = l
	return segno.Flow{ID: "f", Overlap: segno.Allow(0), Workflow: oneStep(step)}
}

func TestARefusedAttemptWaitsWithoutBeingUsedUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		w := &segno.Window{Limit: 1, Per: time.Minute}
		r := newBed(t).start(limited(w, segno.Step[leg, cargo]{Do: s.failing(2), Retry: segno.Fixed(3, time.Second)}))
		id := r.trigger("f", cargo{})
		time.Sleep(30 * time.Second)
		expect(t, "status while it waits", r.info(id).Status, segno.RunParked)
		expect(t, "goroutines", r.InHand(), 0)
		r.completed(id)
		expect(t, "attempts", s.numbers(), "[1 2 3]")
		expect(t, "waits", s.gaps(), "1m0s 1m0s")
		expect(t, "log", r.log(id), "enter a, retry a, retry a, end done")
	})
}

func TestALimiterSpreadsRuns(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(limited(&segno.Bucket{Limit: 1, Per: 10 * time.Second}, segno.Step[leg, cargo]{Do: s.failing(0)}))
		var ids []segno.RunID
		for range 4 {
			ids = append(ids, r.trigger("f", cargo{}))
			synctest.Wait()
		}
		for _, id := range ids {
			r.completed(id)
		}
		expect(t, "waits", s.gaps(), "10s 10s 10s")
	})
}

// Runs that are sent away do not all come back for what one of them can have.
func TestManyWaitingRunsDoNotWakeAllAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		l       segno.Limiter
		seconds int
	}{
		"bucket": {&segno.Bucket{Limit: 1, Per: 10 * time.Second}, 490},
		"window": {&segno.Window{Limit: 5, Per: time.Minute}, 540},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var s tries
				b := newBed(t)
				r := b.start(limited(c.l, segno.Step[leg, cargo]{Do: s.failing(0)}))
				for range 50 {
					r.trigger("f", cargo{})
				}
				synctest.Wait()
				before := b.commits.Load()
				begin := time.Now()
				time.Sleep(time.Hour)
				expect(t, "calls", s.calls(), 50)
				expect(t, "the last call after", s.call(50).Sub(begin), time.Duration(c.seconds)*time.Second)
				if got := b.commits.Load() - before; got > 50*3 {
					t.Errorf("commits: got = %d, want about two for each run", got)
				}
			})
		})
	}
}

func TestShortWaitsAreSleptInMemory(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		b := newBed(t)
		r := b.start(limited(&segno.Bucket{Limit: 1, Per: 300 * time.Millisecond}, segno.Step[leg, cargo]{Do: s.failing(0)}))
		r.completed(r.trigger("f", cargo{}))
		synctest.Wait()
		before := b.commits.Load()
		r.completed(r.trigger("f", cargo{}))
		expect(t, "waits", s.gaps(), "300ms")
		expect(t, "commits of a run that waits shortly", b.commits.Load()-before, 2)
	})
}

func TestWhatALimiterCanNeverGiveFailsTheVisit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		f := limited(segno.Tiers{{Name: "heavy", Limiter: &segno.Bucket{Limit: 2}, Cost: 3}}, segno.Step[leg, cargo]{Do: to(done), Retry: segno.Exponential(5)})
		r := b.start(f)
		id := r.trigger("f", cargo{})
		for _, when := range []string{"before", "after"} {
			e := r.ended(id, segno.RunFailed)
			expectError(t, "the run "+when+" the restart", e, segno.ErrRateLimited)
			expect(t, "the text", contains(e.Error(), `"heavy"`, "never be had"), true)
			expect(t, "cause", r.info(id).Cause, "rate_limited")
			r = b.restart(f)
		}
		expect(t, "log", r.log(id), "enter a, end a")
	})
}

// The limiter is asked first, and what it gave for a call that the breaker
// refuses goes back.
func TestARefusalOfTheBreakerCostsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := &segno.Window{Limit: 3, Per: time.Hour}
		br := &segno.Breaker{Failures: 1}
		r := newBed(t).start(limited(w, segno.Step[leg, cargo]{Do: fail, Breaker: br}))
		for range 5 {
			r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		}
		expect(t, "used", w.Used(), 1)
		take(t, "the rest", w, 2)
		time.Sleep(time.Minute) // the breaker would let a probe through
		id := r.trigger("f", cargo{})
		synctest.Wait()
		expect(t, "status with an empty limiter", r.info(id).Status, segno.RunParked)
		expectBreaker(t, "not asked", br, segno.BreakerOpen)
		time.Sleep(time.Hour)
		r.ended(id, segno.RunFailed)
	})
}

// A wait for the limiter is no attempt: what the one before left uncertain is
// uncertain still.
func TestAWaitForTheLimiterKeepsAnUncertainVisitUncertain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var undone tally
		w := &segno.Window{Limit: 1, Per: time.Hour}
		r := newBed(t).start(limited(w, segno.Step[leg, cargo]{
			Do: hold, Timeout: time.Second, Retry: segno.Fixed(3, time.Second), UndoUncertain: true,
			Undo: func(ctx context.Context, _ cargo) error {
				undone.add("uncertain=%v", segno.InfoFrom(ctx).Uncertain)
				return nil
			},
		}))
		id := r.trigger("f", cargo{})
		time.Sleep(time.Minute)
		expect(t, "status", r.info(id).Status, segno.RunParked)
		if err := r.CancelRun(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		r.ended(id, segno.RunCancelled)
		expect(t, "undone", undone.String(), "uncertain=true")
	})
}

func TestAWaitForTheLimiterOutlivesARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		b := newBed(t)
		f := func() segno.Flow {
			return limited(&segno.Window{Name: "w", Limit: 1, Per: time.Hour}, segno.Step[leg, cargo]{Do: s.failing(0)})
		}
		r := b.start(f())
		r.completed(r.trigger("f", cargo{}))
		id := r.trigger("f", cargo{})
		time.Sleep(30 * time.Minute)
		r = b.restart(f())
		r.completed(id)
		expect(t, "waits", s.gaps(), "1h0m0s")
	})
}

func TestAWindowIsKeptOverARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		start := func() *segno.Window {
			w := &segno.Window{Name: "tokens", Limit: 100, Per: 5 * time.Hour}
			b.with(segno.Options{Limiters: []segno.Limiter{segno.Tiers{{Name: "five hours", Limiter: w}}}}).start()
			return w
		}
		w := start()
		begin := time.Now().UTC()
		take(t, "at first", w, 30)
		time.Sleep(time.Hour)
		take(t, "an hour later", w, 20)
		b.stop() // with the last use
		time.Sleep(time.Hour)
		w = start()
		expect(t, "Used after a stop", w.Used(), 50)
		expect(t, "ResetsAt after a stop", w.ResetsAt(), begin.Add(5*time.Hour))
		take(t, "after a stop", w, 5)
		time.Sleep(time.Second)
		b.kill()
		w = start()
		expect(t, "Used after a crash, a second behind the last use", w.Used(), 55)
		expect(t, "view", fmt.Sprint(b.rows("SELECT name, start, until, used, quota FROM segno_limiters")),
			"[tokens|2000-01-01T00:00:00.000Z|2000-01-01T05:00:00.000Z|55|100]")
		time.Sleep(3 * time.Hour)
		expect(t, "Used behind the end", w.Used(), 0)
		take(t, "the quota of the next window", w, 100)
	})
}

func TestAWindowIsWrittenOnceASecondAtMost(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		w := &segno.Window{Name: "tokens", Limit: 1000, Per: time.Hour}
		other := &segno.Window{Name: "others", Limit: 1000, Per: time.Hour}
		b.with(segno.Options{Limiters: []segno.Limiter{w, other, &segno.Window{Name: "short", Limit: 1000, Per: time.Minute}}}).start()
		synctest.Wait()
		before := b.commits.Load()
		for range 100 {
			take(t, "steadily", w, 1)
			take(t, "of the other, too", other, 1)
			time.Sleep(100 * time.Millisecond)
		}
		if got := b.commits.Load() - before; got < 10 || got > 11 {
			t.Errorf("commits in ten seconds: got = %d, want 10 or 11", got)
		}
		time.Sleep(time.Minute)
		before = b.commits.Load()
		time.Sleep(time.Hour)
		expectLimited(t, "too much", w, 1001)
		setAside(t, w, 10).Refund()
		time.Sleep(time.Minute)
		expect(t, "commits without use", b.commits.Load()-before, 0)
		expect(t, "rows", fmt.Sprint(b.rows("SELECT name, used FROM segno_limiters")), "[others|100 tokens|100]")
	})
}

// A reservation dies with its process: what was not committed is refunded.
func TestAReservationIsRefundedByACrash(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		start := func() *segno.Window {
			w := &segno.Window{Name: "tokens", Limit: 10, Per: time.Hour}
			b.with(segno.Options{Limiters: []segno.Limiter{w}}).start()
			return w
		}
		w := start()
		take(t, "used", w, 2)
		setAside(t, w, 5)
		setAside(t, w, 1).Commit()
		time.Sleep(2 * time.Second)
		expect(t, "Used before the crash", w.Used(), 8)
		b.kill()
		expect(t, "Used after the crash", start().Used(), 3)
	})
}

func TestAClockStepDoesNotMakeAWindowLonger(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		start := func() *segno.Window {
			w := &segno.Window{Name: "tokens", Limit: 10, Per: time.Hour}
			b.with(segno.Options{Limiters: []segno.Limiter{w}}).start()
			return w
		}
		w := start()
		take(t, "all", w, 10)
		synctest.Wait()
		b.stepClock(-24 * time.Hour)
		now := func() time.Time { return time.Now().UTC().Add(-24 * time.Hour) }
		expect(t, "ResetsAt with the clock set back", w.ResetsAt(), now().Add(time.Hour))
		expect(t, "RetryAfter", expectLimited(t, "still full", w, 1).RetryAfter, time.Hour)
		time.Sleep(2 * time.Second)
		b.kill()
		w = start()
		expect(t, "Used after a restart", w.Used(), 10)
		expect(t, "RetryAfter after a restart", expectLimited(t, "still full", w, 1).RetryAfter, time.Hour-2*time.Second)
		time.Sleep(time.Hour - 2*time.Second)
		take(t, "an hour later", w, 10)
		b.stepClock(0)
		take(t, "with the clock set forward", w, 10)
	})
}

func TestAWindowsNameIsItsOwn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		b := newBed(t)
		window := func() *segno.Window { return &segno.Window{Name: "w", Limit: 1, Per: time.Hour} }
		w := window()
		b.opts.Limiters = []segno.Limiter{w, window()}
		_, err := b.tryStart(ctx)
		expectError(t, "two of one name", err, segno.ErrConfig)
		b.opts.Limiters = []segno.Limiter{w, segno.Tiers{{Limiter: w}}}
		b.start(limited(w, segno.Step[leg, cargo]{Do: to(done)}))
		other := newBed(t)
		other.opts.Limiters = []segno.Limiter{w}
		_, err = other.tryStart(ctx)
		expectError(t, "one for two schedulers", err, segno.ErrConfig)
		take(t, "of the first", w, 1)
		b.stop()
		other.start()
		take(t, "on a file that does not know it", w, 1)
	})
}
