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

// backfill asks for the slots from, to behind begin.
func (l *live) backfill(id string, begin time.Time, from, to time.Duration, want int) {
	l.t.Helper()
	n, err := l.Backfill(context.Background(), id, begin.Add(from), begin.Add(to))
	if err != nil || n != want {
		l.t.Fatalf("Backfill(%q): got %d, %v, want %d", id, n, err, want)
	}
}

// backfills returns how far the backfills of the file are.
func (b *bed) backfills() string {
	return strings.Join(b.rows("SELECT runs || '/' || count || iif(done IS NULL, '', ' done') FROM segno_backfills ORDER BY id"), ", ")
}

// slowNotes notes its slot, and then takes d.
func (n *slotNotes) slow(begin time.Time, d time.Duration) route {
	return one(func(ctx context.Context, _ *cargo) (leg, error) {
		n.add("%v@%v", segno.InfoFrom(ctx).Slot.Sub(begin), time.Since(begin))
		time.Sleep(d)
		return done, nil
	})
}

func TestABackfillRunsForTheSlotsThatHaveNoRun(t *testing.T) {
	for _, overlap := range []segno.Overlap{segno.Skip, segno.Replace} {
		t.Run(fmt.Sprint(overlap), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var n slotNotes
				begin := time.Now()
				f := segno.Flow{ID: "f", Workflow: n.slow(begin, time.Minute), Schedule: segno.Every(time.Hour), Overlap: overlap}
				r := b.start(f)
				time.Sleep(90 * time.Minute)
				b.stop()
				time.Sleep(4 * time.Hour)
				r = b.start(f) // 5 h 30 min: one run for three slots
				time.Sleep(5 * time.Minute)
				expect(t, "runs before", n.take(), "0s@0s 1h0m0s@1h0m0s 5h0m0s@5h30m0s")
				books := r.slots("f")
				r.backfill("f", begin, -time.Hour, 99*time.Hour, 3) // slots to come are left to the schedule
				r.backfill("f", begin, 0, 5*time.Hour, 0)           // and those of the first one to it
				time.Sleep(10 * time.Minute)
				expect(t, "runs: one after the other, in order", n.take(), "2h0m0s@5h35m0s 3h0m0s@5h36m0s 4h0m0s@5h37m0s")
				expect(t, "ledger", r.slots("f"), books)
				expect(t, "backfills", b.backfills(), "3/3 done")
				run := r.runs("f")[3]
				expect(t, "run's slot", run.Slot, begin.Add(2*time.Hour).UTC())
				expect(t, "run's backfill", run.Backfill, 1)
				expect(t, "backfill of a scheduled run", r.runs("f")[2].Backfill, 0)
				r.backfill("f", begin, 0, 5*time.Hour, 0)
				time.Sleep(16 * time.Minute)
				expect(t, "the schedule goes on", n.take(), "6h0m0s@6h0m0s")
			})
		})
	}
}

func TestABackfillReachesBehindTheFlowsFirstDay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		begin := time.Now()
		r := b.start(segno.Flow{
			ID: "f", Workflow: n.flow(begin), Schedule: segno.Cron("0 3 * * *"), StartAt: begin.Add(-50 * time.Hour), MaxRuns: 1,
		})
		synctest.Wait()
		r.backfill("f", begin, -100*time.Hour, 0, 2) // both ends inclusive, and StartAt is kept to
		synctest.Wait()
		expect(t, "runs", n.take(), "-45h0m0s@0s -21h0m0s@0s")
		time.Sleep(27 * time.Hour)
		expect(t, "MaxRuns does not count them", n.take(), "3h0m0s@3h0m0s")
		r.backfill("f", begin, 27*time.Hour, 27*time.Hour, 0) // no slot was left by MaxRuns that was decided
	})
}

func TestABackfillGoesOnAfterARestart(t *testing.T) {
	for name, c := range map[string]struct {
		again func(*bed, segno.Flow) *live
		want  string
	}{
		"stop": {func(b *bed, f segno.Flow) *live { b.stop(); return b.start(f) }, "1h0m0s begin end 2h0m0s begin end 3h0m0s begin end 4h0m0s begin end"},
		"kill": {func(b *bed, f segno.Flow) *live { return b.restart(f) }, "1h0m0s begin end 2h0m0s begin 2h0m0s begin end 3h0m0s begin end 4h0m0s begin end"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var n slotNotes
				begin := time.Now()
				f := segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.Every(time.Hour)}
				r := b.start(f)
				synctest.Wait()
				r.pause("f", segno.Pause{})
				time.Sleep(270 * time.Minute)
				r.resume("f")
				f.Workflow = one(func(ctx context.Context, _ *cargo) (leg, error) {
					n.add("%v", segno.InfoFrom(ctx).Slot.Sub(begin))
					return done, rest(ctx, &n.tally, time.Minute)
				})
				r = c.again(b, f)
				r.backfill("f", begin, 0, 5*time.Hour, 4)
				time.Sleep(90 * time.Second) // within the second
				expect(t, "backfills before", b.backfills(), "2/4")
				f.Schedule = segno.Every(7 * time.Minute) // the job keeps to the slots it took on
				r = c.again(b, f)
				r.pause("f", segno.Pause{})
				time.Sleep(10 * time.Minute)
				expect(t, "backfills in a pause", b.backfills(), "2/4")
				r = c.again(b, f)
				time.Sleep(10 * time.Minute)
				expect(t, "backfills in a pause, after a restart", b.backfills(), "2/4")
				r.resume("f")
				time.Sleep(3 * time.Minute)
				expect(t, "backfills after the pause", b.backfills(), "4/4 done")
				expect(t, "runs", n.String(), c.want)
			})
		})
	}
}

func TestScheduledSlotsAndTriggersGoBeforeABackfill(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		begin := time.Now()
		f := segno.Flow{ID: "f", Workflow: n.slow(begin, 40*time.Second), Schedule: segno.Every(time.Minute), Overlap: segno.Allow(1), SkipFirst: true}
		r := b.start(f)
		r.pause("f", segno.Pause{})
		time.Sleep(210 * time.Second)
		r.resume("f")
		r.backfill("f", begin, 0, time.Hour, 3)
		r.backfill("f", begin, -time.Hour, 2*time.Minute, 0)
		synctest.Wait()
		expect(t, "at once", n.take(), "1m0s@3m30s")
		r.triggerWith("f", segno.Trigger{At: begin.Add(4*time.Minute + 5*time.Second)})
		time.Sleep(3 * time.Minute) // the slots of 4, 5 and 6 min come, and the trigger
		synctest.Wait()
		got := n.take()
		if !contains(got, "4m0s@4m10s", "5m0s@5m30s", "6m0s@6m10s") || strings.Contains(got, " 2m0s@") {
			t.Errorf("runs: got = %s, want the slots of 4, 5 and 6 min first", got)
		}
	})
}

func TestABackfillTakesThePlacesThatAllowLeaves(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var c crowd
		begin := time.Now()
		r := b.start(segno.Flow{ID: "f", Workflow: c.work(time.Minute), Schedule: segno.Cron("0 0 * * *"), Overlap: segno.Allow(3)})
		r.trigger("f", cargo{})
		synctest.Wait()
		r.backfill("f", begin, -9*24*time.Hour, -24*time.Hour, 9)
		time.Sleep(30 * time.Second)
		expect(t, "backfills: one place is the trigger's", b.backfills(), "2/9")
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		expect(t, "backfills", b.backfills(), "9/9 done")
		_, most := c.said()
		expect(t, "most at a time", most, 3)
	})
}

func TestAFailureHoldsABackfillUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		begin := time.Now()
		f := segno.Flow{
			ID: "f", Workflow: flaky(&s, "fsffs"), Schedule: segno.Cron("0 0 * * *"),
			Backoff: segno.BackoffPolicy{Initial: 10 * time.Minute, Jitter: -1, StreakLimit: 2},
		}
		r := b.start(f)
		synctest.Wait()
		r.backfill("f", begin, -6*24*time.Hour, -24*time.Hour, 6)
		time.Sleep(time.Minute)
		expect(t, "streak", r.status("f").FailureStreak, 1)
		expect(t, "backfills in the window", b.backfills(), "1/6")
		r = b.restart(f)
		time.Sleep(8 * time.Minute)
		expect(t, "backfills in the window, after a restart", b.backfills(), "1/6")
		time.Sleep(2 * time.Minute)
		expect(t, "wait for the window", s.gap(1), 10*time.Minute)
		expect(t, "no wait after a success", s.gap(2), 0)
		time.Sleep(time.Hour)
		expect(t, "status", r.status("f").Status, segno.StatusTripped)
		expect(t, "backfills when tripped", b.backfills(), "4/6")
		r.reset()
		synctest.Wait()
		expect(t, "backfills after the reset", b.backfills(), "6/6 done")
		expect(t, "ledger", r.slots("f"), "")
	})
}

func TestASlotOfABackfillIsTriedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		begin := time.Now()
		r := b.start(segno.Flow{
			ID: "f", Workflow: flaky(&s, "f"), Schedule: segno.Cron("0 0 * * *"), SlotRetries: 1,
			Backoff: segno.BackoffPolicy{Initial: time.Minute, Jitter: -1},
		})
		synctest.Wait()
		r.backfill("f", begin, -2*24*time.Hour, -24*time.Hour, 2)
		time.Sleep(2 * time.Minute)
		var got []string
		for _, run := range r.runs("f") {
			got = append(got, fmt.Sprintf("%v try %d of backfill %d %s", run.Slot.Sub(begin), run.Try, run.Backfill, run.Status))
		}
		expect(t, "runs", strings.Join(got, ", "), "-48h0m0s try 0 of backfill 1 failed, -48h0m0s try 1 of backfill 1 completed, -24h0m0s try 0 of backfill 1 completed")
		expect(t, "backfills", b.backfills(), "2/2 done")
	})
}

func TestWhatCannotBeBackfilledIsErrConfig(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		begin := time.Now()
		r := newBed(t).start(
			flowOf("manual", one(to(done))),
			segno.Flow{ID: "delay", Workflow: one(to(done)), Schedule: segno.FixedDelay(time.Hour)},
			segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.Cron("* * * * *")},
		)
		for _, c := range []struct {
			what, flow string
			from       time.Duration
			says       string
		}{
			{"a manual flow", "manual", -time.Hour, "trigger it"},
			{"a FixedDelay", "delay", -time.Hour, "trigger it"},
			{"a range that ends before it begins", "f", time.Hour, "before it begins"},
			{"a range of more than 100,000 slots", "f", -100_000 * time.Minute, "more than 100000 slots; take a shorter one, its end before 2000-01-01T00:00:00Z"},
		} {
			n, err := r.Backfill(ctx, c.flow, begin.Add(c.from), begin)
			expectError(t, c.what, err, segno.ErrConfig)
			if n != 0 || err != nil && !contains(err.Error(), c.flow, c.says) {
				t.Errorf("%s: got %d, %v, want an error with %q", c.what, n, err, c.says)
			}
		}
		_, err := r.Backfill(ctx, "x", begin, begin)
		expectError(t, "an unknown flow", err, segno.ErrNotFound)
		r.backfill("f", begin, -50*time.Second, -10*time.Second, 0)
	})
}
