package segno_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// inTimes runs subtests in fake time.
func inTimes(t *testing.T, tests map[string]func(t *testing.T)) {
	t.Helper()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { inBubble(t, test) })
	}
}

// failingUntil fails for slots before the given offset, and notes each call.
func failingUntil(n *tally, good time.Duration) route {
	return one(func(ctx context.Context, _ *cargo) (leg, error) {
		slot := segno.InfoFrom(ctx).Slot.Sub(segnotest.Epoch)
		n.add("%v@%v", slot, segnotest.Now())
		if slot < good {
			return "", errTest
		}
		return done, nil
	})
}

// closedFor is a backoff window of fixed length.
func closedFor(d time.Duration) segno.BackoffPolicy {
	return segno.BackoffPolicy{Initial: d, Multiplier: 1, Jitter: -1}
}

// Every slot has one outcome, whatever happens to the flow.
func TestScheduleS0(t *testing.T) {
	inTimes(t, map[string]func(t *testing.T){
		"each slot has one outcome": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			f := segno.Flow{ID: "f", Schedule: segno.Every(time.Minute), Backoff: closedFor(150 * time.Second), Workflow: one(func(ctx context.Context, _ *cargo) (leg, error) {
				switch n.add("x"); n.len() {
				case 1:
					return "", errTest
				case 2:
					time.Sleep(90 * time.Second)
				}
				return done, nil
			})}
			r := b.start(f)
			after(5*time.Minute + 30*time.Second)
			r.pause("f", segno.Pause{})
			after(2 * time.Minute)
			r.resume("f")
			after(time.Minute)
			b.kill()
			time.Sleep(5 * time.Minute)
			r = b.start(f)
			synctest.Wait()
			expect(t, "ledger", r.book("f"), "0s fired, 1m0s×2 skipped backoff, 3m0s fired, 4m0s skipped overlap, 5m0s fired, "+
				"6m0s×2 skipped paused, 8m0s fired, 9m0s×4 coalesced, 13m0s fired")
		},
		"a slot is decided in one commit with its run": func(t *testing.T) {
			b := checkedBed(t)
			b.start(segno.Flow{ID: "f", Schedule: segno.Every(time.Minute), Workflow: one(hold), SkipFirst: true})
			synctest.Wait()
			before := b.commits.Load()
			after(time.Minute)
			expect(t, "commits", b.commits.Load()-before, 1)
			b.kill()
			expect(t, "slot, cursor and run", strings.Join(b.rows(`SELECT l.first = f.cursor, r.slot = f.cursor FROM _segno_flow f
JOIN _segno_ledger l USING (flow) JOIN _segno_run r USING (run)`), " "), "1|1")
		},
	})
}

func TestScheduleS1(t *testing.T) {
	at := func(d time.Duration) time.Time { return segnotest.Epoch.Add(d) }
	for name, o := range map[string]outage{
		"StartAt to come is the first slot": {
			segno.Flow{Schedule: segno.Every(time.Hour), StartAt: at(25 * time.Minute)}, 90 * time.Minute, time.Minute,
			"25m0s@25m0s 1h25m0s@1h25m0s", "25m0s fired, 1h25m0s fired", 145 * time.Minute,
		},
		"StartAt that has passed is the phase": {
			segno.Flow{Schedule: segno.Every(time.Hour), StartAt: at(-25 * time.Minute)}, 40 * time.Minute, time.Minute,
			"35m0s@35m0s", "35m0s fired", 95 * time.Minute,
		},
		"nothing is due at the start if StartAt has passed": {
			segno.Flow{Schedule: segno.Every(time.Hour), StartAt: at(-25 * time.Minute)}, time.Minute, time.Minute, "", "", 35 * time.Minute,
		},
		"SkipFirst": {
			segno.Flow{Schedule: segno.Every(time.Hour), SkipFirst: true}, 0, 90 * time.Minute, "1h0m0s@1h30m0s", "1h0m0s fired", 2 * time.Hour,
		},
		"a FixedDelay that ended 40 min ago waits 20 min": {
			segno.Flow{Schedule: segno.FixedDelay(time.Hour)}, 0, 40 * time.Minute, "0s@0s", "0s fired", time.Hour,
		},
		"a FixedDelay has one slot, however long it was down": {
			segno.Flow{Schedule: segno.FixedDelay(time.Hour)}, 0, 5 * time.Hour, "0s@0s 1h0m0s@5h0m0s", "0s fired, 1h0m0s fired", 6 * time.Hour,
		},
		"a FixedDelay with StartAt": {
			segno.Flow{Schedule: segno.FixedDelay(time.Hour), StartAt: at(5 * time.Minute)}, 10 * time.Minute, time.Minute,
			"5m0s@5m0s", "5m0s fired", 65 * time.Minute,
		},
		"RunOnStart runs at every start": {
			segno.Flow{Schedule: segno.Every(time.Hour), RunOnStart: true}, time.Minute, time.Minute, "0s@0s manual@2m0s", "0s fired", time.Hour,
		},
		"RunOnStart makes way for a slot that is due": {
			segno.Flow{Schedule: segno.Every(time.Hour), RunOnStart: true}, time.Minute, time.Hour, "0s@0s 1h0m0s@1h1m0s", "0s fired, 1h0m0s fired", 2 * time.Hour,
		},
		"RunOnStart does not make way for one that is not made up for": {
			segno.Flow{Schedule: segno.Every(time.Hour), RunOnStart: true, CatchUp: segno.CatchUpSkip}, time.Minute, time.Hour,
			"0s@0s manual@1h1m0s", "0s fired, 1h0m0s skipped missed", 2 * time.Hour,
		},
		"a FixedDelay with RunOnStart is cano's Every": {
			segno.Flow{Schedule: segno.FixedDelay(time.Hour), RunOnStart: true}, time.Minute, time.Minute, "0s@0s manual@2m0s", "0s fired", 62 * time.Minute,
		},
	} {
		t.Run(strings.ReplaceAll(name, "cano's", "the reference's"), func(t *testing.T) { o.play(t) })
	}
	t.Run("RunOnStart keeps to window, trip and pause", func(t *testing.T) {
		inTimes(t, map[string]func(t *testing.T){
			"window": func(t *testing.T) { runOnStartIsHeld(t, closedFor(time.Hour), func(*live) {}) },
			"trip":   func(t *testing.T) { runOnStartIsHeld(t, segno.BackoffPolicy{StreakLimit: 1}, func(*live) {}) },
			"pause": func(t *testing.T) {
				runOnStartIsHeld(t, segno.BackoffPolicy{Initial: -1}, func(r *live) { r.pause("f", segno.Pause{}) })
			},
		})
	})
}

// runOnStartIsHeld checks that a flow with RunOnStart runs at its first start only.
func runOnStartIsHeld(t *testing.T, p segno.BackoffPolicy, held func(*live)) {
	b := checkedBed(t)
	f := segno.Flow{ID: "f", Workflow: one(fail), RunOnStart: true, Backoff: p}
	r := b.start(f)
	synctest.Wait()
	held(r)
	r = b.restart(f)
	after(time.Minute)
	expect(t, "runs", len(r.runs("f")), 1)
}

func TestScheduleS2(t *testing.T) {
	cron := func(c segno.CatchUp) segno.Flow { return segno.Flow{Schedule: segno.Cron("0 * * * *"), CatchUp: c} }
	once := segno.Flow{Schedule: segno.At(segnotest.Epoch.Add(time.Hour))}
	skipped, late := once, once
	skipped.CatchUp, late.MaxLateness = segno.CatchUpSkip, 30*time.Minute
	onTime := hourly()
	onTime.CatchUp = segno.CatchUpSkip
	for name, o := range map[string]outage{
		"cron, latest": {
			cron(segno.CatchUpLatest), 0, 210 * time.Minute, "3h0m0s+2(1h0m0s)@3h30m0s", "1h0m0s×2 coalesced, 3h0m0s fired", 4 * time.Hour,
		},
		"cron, none": {cron(segno.CatchUpSkip), 0, 210 * time.Minute, "", "1h0m0s×3 skipped missed", 4 * time.Hour},
		"cron, all": {
			cron(segno.CatchUpAll(0)), 0, 210 * time.Minute, "1h0m0s@3h30m0s 2h0m0s@3h30m0s 3h0m0s@3h30m0s",
			"1h0m0s fired, 2h0m0s fired, 3h0m0s fired", 4 * time.Hour,
		},
		"a second late is not missed": {onTime, 0, time.Hour + time.Second, "0s@0s 1h0m0s@1h0m1s", "0s fired, 1h0m0s fired", 2 * time.Hour},
		"more is":                     {onTime, 0, time.Hour + time.Second + time.Microsecond, "0s@0s", "0s fired, 1h0m0s skipped missed", 2 * time.Hour},
		"one that comes once":         {once, 0, 3 * time.Hour, "1h0m0s@3h0m0s", "1h0m0s fired", -1},
		"even if none is made up for": {skipped, 0, 3 * time.Hour, "1h0m0s@3h0m0s", "1h0m0s fired", -1},
		"but not too late":            {late, 0, 3 * time.Hour, "", "1h0m0s skipped too_late", -1},
		"a FixedDelay is never missed": {
			segno.Flow{Schedule: segno.FixedDelay(time.Hour), CatchUp: segno.CatchUpSkip}, 0, 3 * time.Hour, "0s@0s 1h0m0s@3h0m0s", "0s fired, 1h0m0s fired", 4 * time.Hour,
		},
		"a FixedDelay that is too late begins anew": {
			segno.Flow{Schedule: segno.FixedDelay(time.Hour), MaxLateness: time.Hour}, 0, 3 * time.Hour, "0s@0s", "0s fired, 1h0m0s skipped too_late", 4 * time.Hour,
		},
		"more than a million are counted up to there": {
			segno.Flow{Schedule: segno.Cron("* * * * * *")}, 0, 300 * time.Hour, "300h0m0s+999999(1s)@300h0m0s",
			"1s×999999 coalesced, 300h0m0s fired", 300*time.Hour + time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) { o.play(t) })
	}
	t.Run("how they run", func(t *testing.T) {
		inTimes(t, map[string]func(t *testing.T){
			"Skip":     func(t *testing.T) { runsInTurn(t, segno.Skip) },
			"Replace":  func(t *testing.T) { runsInTurn(t, segno.Replace) },
			"Allow(2)": runsSideBySide,
			"over a failure": func(t *testing.T) {
				b := checkedBed(t)
				var n tally
				f := segno.Flow{ID: "f", Schedule: segno.Every(time.Hour), CatchUp: segno.CatchUpAll(0), Backoff: closedFor(5 * time.Minute), SkipFirst: true, Workflow: failingUntil(&n, 90*time.Minute)}
				b.start(f)
				b.stop()
				time.Sleep(210 * time.Minute)
				r := b.start(f)
				after(10 * time.Minute)
				expect(t, "runs", n.String(), "1h0m0s@3h30m0s 2h0m0s@3h35m0s 3h0m0s@3h35m0s")
				expect(t, "ledger", r.book("f"), "1h0m0s fired, 2h0m0s fired, 3h0m0s fired")
			},
		})
	})
}

// runsInTurn checks that three slots that were missed run one after the other,
// also over a kill.
func runsInTurn(t *testing.T, o segno.Overlap) {
	b := checkedBed(t)
	var n tally
	f := segno.Flow{ID: "f", Schedule: segno.Every(time.Hour), CatchUp: segno.CatchUpAll(0), Overlap: o, SkipFirst: true, Workflow: one(func(ctx context.Context, _ *cargo) (leg, error) {
		n.add("%v@%v", segno.InfoFrom(ctx).Slot.Sub(segnotest.Epoch), segnotest.Now())
		return done, sweepRest(ctx, 10*time.Minute)
	})}
	b.start(f)
	b.stop()
	time.Sleep(190 * time.Minute)
	b.start(f)
	after(15 * time.Minute)
	expect(t, "runs", n.take(), "1h0m0s@3h10m0s 2h0m0s@3h20m0s")
	r := b.restart(f)
	after(time.Hour)
	expect(t, "runs after the kill", n.String(), "2h0m0s@3h25m0s 3h0m0s@3h35m0s 4h0m0s@4h0m0s")
	expect(t, "ledger", r.book("f"), "1h0m0s fired, 2h0m0s fired, 3h0m0s fired, 4h0m0s fired")
}

func runsSideBySide(t *testing.T) {
	b := checkedBed(t)
	var c crowd
	f := segno.Flow{ID: "f", Schedule: segno.Every(time.Hour), CatchUp: segno.CatchUpAll(3), Overlap: segno.Allow(2), SkipFirst: true, Workflow: c.work(10 * time.Minute)}
	b.start(f)
	b.stop()
	time.Sleep(310 * time.Minute)
	r := b.start(f)
	after(15 * time.Minute)
	order, most := c.said()
	expect(t, "most at a time", fmt.Sprint(most, len(order)+1), "2 3")
	expect(t, "ledger", r.book("f"), "1h0m0s×2 skipped catchup_cap, 3h0m0s fired, 4h0m0s fired, 5h0m0s fired")
	after(10 * time.Minute)
}

// A gap and an overlap of the wall clock, by the dispatcher.
func TestScheduleS3(t *testing.T) {
	for name, c := range map[string]struct {
		day  time.Time
		runs string
	}{
		"gap":     {time.Date(2000, 3, 26, 0, 0, 0, 0, time.UTC), "2000-03-26T03:00:00+02:00"},
		"overlap": {time.Date(2000, 10, 29, 0, 0, 0, 0, time.UTC), "2000-10-29T02:30:00+02:00"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := checkedBed(t)
				berlin, err := time.LoadLocation("Europe/Berlin")
				if err != nil {
					t.Skip(err)
				}
				var n tally
				f := segno.Flow{ID: "f", Schedule: segno.Cron("CRON_TZ=Europe/Berlin 30 2 * * *"), Workflow: one(func(ctx context.Context, _ *cargo) (leg, error) {
					n.add("%s", segno.InfoFrom(ctx).Slot.In(berlin).Format(time.RFC3339))
					return done, nil
				})}
				time.Sleep(time.Until(c.day))
				b.start(f)
				after(3 * time.Hour)
				expect(t, "runs", n.String(), c.runs)
			})
		})
	}
}
