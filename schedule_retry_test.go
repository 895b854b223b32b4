package segno_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// slotTries lists a flow's runs that have a slot: slot, try and status of each.
func (l *live) slotTries(flow string) string {
	l.t.Helper()
	lines, err := queryLines(l.DB(), `SELECT r.slot, r.try, r.status FROM _segno_run r JOIN _segno_flow f USING (flow)
WHERE f.id = ? AND r.slot IS NOT NULL ORDER BY r.run`, flow)
	if err != nil {
		l.t.Fatalf("runs of %q: %v", flow, err)
	}
	for i, line := range lines {
		var slot int64
		var try int
		var status string
		_, _ = fmt.Sscan(strings.ReplaceAll(line, "|", " "), &slot, &try, &status)
		lines[i] = fmt.Sprintf("%v#%d %s", time.UnixMicro(slot).Sub(segnotest.Epoch), try, status)
	}
	return strings.Join(lines, ", ")
}

// slotRetried is a flow that fails until the given moment, and tries slots again.
func slotRetried(n *tally, sc segno.Schedule, gate, good time.Duration) segno.Flow {
	return segno.Flow{ID: "f", Schedule: sc, Backoff: closedFor(gate), SlotRetries: 2, Workflow: one(func(ctx context.Context, _ *cargo) (leg, error) {
		n.add("%v@%v", segno.InfoFrom(ctx).Slot.Sub(segnotest.Epoch), segnotest.Now())
		if segnotest.Now() < good {
			return "", errTest
		}
		return done, nil
	})}
}

// slotOfATrippedFlow fails a slot, which is to be tried again, and then a run
// without one, by which the flow trips.
func slotOfATrippedFlow(sc segno.Schedule) func(t *testing.T) {
	return func(t *testing.T) {
		b := checkedBed(t)
		var n tally
		f := slotRetried(&n, sc, 10*time.Minute, 9*time.Hour)
		f.Backoff.StreakLimit = 2
		r := b.start(f)
		after(5 * time.Minute)
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		soon := b.rows("SELECT next_run FROM segno_flows WHERE next_run < strftime('%Y-%m-%dT%H:%M:%fZ', ? / 1e6, 'unixepoch')",
			time.Now().Add(30*time.Minute).UnixMicro())
		if len(soon) > 0 { // it would be looked at all the time
			t.Fatalf("next run: got = %v, want none so soon", soon)
		}
		after(30 * time.Minute)
		expect(t, "tries", r.slotTries("f"), "0s#0 failed")
	}
}

func TestScheduleS4(t *testing.T) {
	hour, min := time.Hour, time.Minute
	inTimes(t, map[string]func(t *testing.T){
		"the gate alone: a failed slot is not tried again": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			f := slotRetried(&n, segno.Every(hour), 10*min, min)
			f.SlotRetries = 0
			r := b.start(f)
			after(2*hour + min)
			expect(t, "runs", n.String(), "0s@0s 1h0m0s@1h0m0s 2h0m0s@2h0m0s")
			expect(t, "streak", r.status("f").FailureStreak, 0)
		},
		"a failed slot is tried again at the gate's end": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			r := b.start(slotRetried(&n, segno.Every(hour), 10*min, 15*min))
			after(hour + min)
			expect(t, "runs", n.String(), "0s@0s 0s@10m0s 0s@20m0s 1h0m0s@1h0m0s")
			expect(t, "tries", r.slotTries("f"), "0s#0 failed, 0s#1 failed, 0s#2 completed, 1h0m0s#0 completed")
			expect(t, "ledger", r.book("f"), "0s fired, 1h0m0s fired")
		},
		"not once the flow has tripped":              slotOfATrippedFlow(segno.Every(hour)),
		"not once the flow with a delay has tripped": slotOfATrippedFlow(segno.FixedDelay(hour)),
		"only so often": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			r := b.start(slotRetried(&n, segno.Every(hour), 10*min, 9*hour))
			after(59 * min)
			expect(t, "tries", r.slotTries("f"), "0s#0 failed, 0s#1 failed, 0s#2 failed")
			expect(t, "next", r.next("f"), hour)
			expect(t, "streak", r.status("f").FailureStreak, 3)
		},
		"a newer slot fires instead": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			r := b.start(slotRetried(&n, segno.Every(min), 210*time.Second, min))
			after(4 * min)
			expect(t, "runs", n.String(), "0s@0s 3m0s@3m30s 4m0s@4m0s")
			expect(t, "ledger", r.book("f"), "0s fired, 1m0s×2 skipped backoff, 3m0s fired, 4m0s fired")
		},
		"one that comes as the gate opens fires alone": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			r := b.start(slotRetried(&n, segno.Every(min), 3*min, min))
			after(4 * min)
			expect(t, "runs", n.String(), "0s@0s 3m0s@3m0s 4m0s@4m0s")
			expect(t, "ledger", r.book("f"), "0s fired, 1m0s×2 skipped backoff, 3m0s fired, 4m0s fired")
		},
		"one that came while it ran": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			f := slotRetried(&n, segno.Every(min), 5*time.Second, 2*min)
			f.Workflow = one(func(ctx context.Context, _ *cargo) (leg, error) {
				if n.add("%v@%v", segno.InfoFrom(ctx).Slot.Sub(segnotest.Epoch), segnotest.Now()); n.len() > 1 {
					return done, nil
				}
				time.Sleep(90 * time.Second)
				return "", errTest
			})
			r := b.start(f)
			after(2 * min)
			expect(t, "runs", n.String(), "0s@0s 2m0s@2m0s")
			expect(t, "ledger", r.book("f"), "0s fired, 1m0s skipped overlap, 2m0s fired")
		},
		"over a restart": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			f := slotRetried(&n, segno.Every(hour), 10*min, 5*min)
			b.start(f)
			after(min)
			b.restart(f)
			after(10 * min)
			expect(t, "runs", n.String(), "0s@0s 0s@10m0s")
		},
		"over downtime, unless a newer slot has passed": func(t *testing.T) {
			for down, want := range map[time.Duration]string{30 * min: "0s@0s 0s@31m0s", 90 * min: "0s@0s 1h0m0s@1h31m0s"} {
				var n tally
				f := slotRetried(&n, segno.Every(hour), 10*min, 5*min)
				f.Workflow = one(func(ctx context.Context, _ *cargo) (leg, error) {
					n.add("%v", segno.InfoFrom(ctx).Slot)
					if n.len() == 1 {
						return "", errTest
					}
					return done, nil
				})
				b := checkedBed(t)
				begin := time.Now()
				b.start(f)
				after(min)
				b.stop()
				time.Sleep(down)
				r := b.start(f)
				after(0)
				newest := r.runs("f")[1]
				got := fmt.Sprintf("0s@0s %v@%v", newest.Slot.Sub(begin), newest.Started.Sub(begin))
				expect(t, "runs", got, want)
			}
		},
		"not while the flow is paused, nor behind it": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			r := b.start(slotRetried(&n, segno.Every(hour), 10*min, 5*min))
			after(min)
			r.pause("f", segno.Pause{})
			after(20 * min)
			r.resume("f")
			after(30 * min)
			expect(t, "runs", n.String(), "0s@0s")
			after(10 * min)
			expect(t, "runs", n.String(), "0s@0s 1h0m0s@1h0m0s")
		},
		"not if it fails in a pause": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			f := slotRetried(&n, segno.FixedDelay(hour), 10*min, 0)
			f.Workflow = one(func(context.Context, *cargo) (leg, error) { n.add("x"); time.Sleep(2 * min); return "", errTest })
			r := b.start(f)
			after(min)
			r.pause("f", segno.Pause{})
			after(30 * min)
			expect(t, "runs", n.String(), "x")
		},
		"not behind a trip or a reset": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			f := slotRetried(&n, segno.Every(hour), 10*min, 9*hour)
			f.Backoff.StreakLimit = 2
			r := b.start(f)
			after(min)
			r.reset()
			after(30 * min)
			expect(t, "runs behind a reset", n.String(), "0s@0s")
			after(90 * min)
			expect(t, "runs up to the trip", n.String(), "0s@0s 1h0m0s@1h0m0s 1h0m0s@1h10m0s")
			expect(t, "status", r.status("f").Status, segno.StatusTripped)
		},
		"a cron, once, and the last one of MaxRuns": func(t *testing.T) {
			b := checkedBed(t)
			var cron, once, last tally
			flows := []segno.Flow{
				slotRetried(&cron, segno.Cron("30 0 * * *"), 10*min, 35*min), slotRetried(&once, segno.At(segnotest.Epoch.Add(30*min)), 10*min, 35*min),
				slotRetried(&last, segno.Every(hour), 10*min, 5*min),
			}
			flows[0].ID, flows[1].ID, flows[2].MaxRuns = "cron", "once", 1
			b.start(flows...)
			after(2 * hour)
			expect(t, "cron", cron.String(), "30m0s@30m0s 30m0s@40m0s")
			expect(t, "once", once.String(), "30m0s@30m0s 30m0s@40m0s")
			expect(t, "the last", last.String(), "0s@0s 0s@10m0s")
		},
		"a FixedDelay is helped by it": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			r := b.start(slotRetried(&n, segno.FixedDelay(hour), 10*min, 5*min))
			after(80 * min)
			expect(t, "runs", n.String(), "0s@0s 0s@10m0s 1h10m0s@1h10m0s")
			expect(t, "tries", r.slotTries("f"), "0s#0 failed, 0s#1 completed, 1h10m0s#0 completed")
		},
		"a triggered run's failure is nobody's slot": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			f := slotRetried(&n, segno.Schedule{}, min, hour)
			r := b.start(f)
			r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			after(30 * min)
			expect(t, "runs", n.len(), 1)
		},
		"a reset frees a FixedDelay from its window": func(t *testing.T) {
			b := checkedBed(t)
			var n tally
			f := slotRetried(&n, segno.FixedDelay(min), hour, 30*time.Second)
			f.SlotRetries = 0
			r := b.start(f)
			after(5 * min)
			r.reset()
			after(min / 2)
			expect(t, "runs", n.String(), "0s@0s 5m0s@5m0s")
		},
	})
}

// The loop looks at the clock at least every ten seconds, however far the next slot.
func TestScheduleS5(t *testing.T) {
	inTimes(t, map[string]func(t *testing.T){
		"a slot in reach by a step is not slept over": func(t *testing.T) {
			b := checkedBed(t)
			var n slotNotes
			r := b.start(segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Cron("0 12 * * *")})
			after(5 * time.Second)
			b.stepClock(12 * time.Hour)
			after(5 * time.Second)
			expect(t, "runs", n.String(), "12h0m0s@10s")
			expect(t, "next", r.next("f"), 36*time.Hour)
		},
		"a step of less than two seconds is none": func(t *testing.T) {
			b := checkedBed(t)
			r := b.start(segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.Every(time.Minute)})
			for _, ahead := range []time.Duration{2 * time.Second, 0, 1999 * time.Millisecond} {
				b.stepClock(ahead)
				after(15 * time.Second)
			}
			expect(t, "events", r.events("clock_step"), "")
			after(30 * time.Second)
			expect(t, "ledger", r.book("f"), "0s fired, 1m0s fired")
		},
	})
}
