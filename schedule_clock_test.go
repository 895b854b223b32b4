package segno_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

func TestScheduleS6(t *testing.T) {
	inTimes(t, map[string]func(t *testing.T){
		"forward: by the flow's own catch-up": func(t *testing.T) {
			b := checkedBed(t)
			var none, all slotNotes
			begin := time.Now()
			r := b.start(
				segno.Flow{ID: "none", Workflow: none.flow(begin), Schedule: segno.Every(time.Hour), CatchUp: segno.CatchUpSkip},
				segno.Flow{ID: "all", Workflow: all.flow(begin), Schedule: segno.Every(time.Hour), CatchUp: segno.CatchUpAll(0)},
			)
			after(65 * time.Second)
			b.stepClock(3 * time.Hour)
			after(10 * time.Second)
			expect(t, "none", r.book("none"), "0s fired, 1h0m0s×3 skipped missed")
			expect(t, "all", r.book("all"), "0s fired, 1h0m0s fired, 2h0m0s fired, 3h0m0s fired")
			expect(t, "runs", none.len()+all.len(), 5)
		},
		"back by more than two intervals: begins anew": func(t *testing.T) {
			b := checkedBed(t)
			var n slotNotes
			f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(time.Minute)}
			r := b.start(f)
			after(10*time.Minute + 5*time.Second)
			n.take()
			b.stepClock(-5 * time.Minute) // noticed at 10:10, which is 5:10 now
			after(3 * time.Minute)
			expect(t, "runs", n.String(), "6m10.000001s@11m10.000001s 7m10.000001s@12m10.000001s")
			expect(t, "events", r.events("reanchored"), "f: next at 2000-01-01T00:06:10.000001Z")
			expect(t, "steps", r.events("clock_step"), "back by 5m0s, to 2000-01-01T00:05:10Z: what was decided stays so; 1 intervals begin anew")
			r = b.restart(f)
			expect(t, "events after a restart", strings.Count(r.events("reanchored"), ";"), 0)
			after(7 * time.Minute)
			expect(t, "slots fired, none twice", len(r.runs("f")), 11+9)
			b.stepClock(-20 * time.Minute)
			after(90 * time.Second)
			expect(t, "events of another step", strings.Count(r.events("reanchored"), ";"), 1)
		},
		"back by less: waits for the clock": func(t *testing.T) {
			b := checkedBed(t)
			var n slotNotes
			r := b.start(segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(time.Minute)})
			after(2*time.Minute + 5*time.Second)
			b.stepClock(-50 * time.Second)
			after(2 * time.Minute)
			expect(t, "runs", n.String(), "0s@0s 1m0s@1m0s 2m0s@2m0s 3m0s@3m50s")
			expect(t, "events", r.events("reanchored"), "")
		},
		"back, before StartAt: the anchor stays": func(t *testing.T) {
			b := checkedBed(t)
			var n slotNotes
			f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(time.Minute), StartAt: segnotest.Epoch.Add(10 * time.Minute)}
			r := b.start(f)
			after(5 * time.Minute)
			b.stepClock(-time.Minute)
			after(6 * time.Minute)
			expect(t, "runs", n.String(), "10m0s@11m0s")
			expect(t, "events", r.events("reanchored"), "")
		},
		"back: a FixedDelay waits for its delay, also over a restart": func(t *testing.T) {
			b := checkedBed(t)
			var n slotNotes
			f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.FixedDelay(time.Minute)}
			b.start(f)
			after(65 * time.Second)
			b.stepClock(-time.Hour) // noticed at 1:10
			after(65 * time.Second)
			expect(t, "runs", n.take(), "0s@0s 1m0s@1m0s -57m50s@2m10s")
			b.kill()
			b.stepClock(-3 * time.Hour)
			b.start(f)
			after(time.Minute)
			expect(t, "runs after a restart", n.take(), "-2h56m50s@3m10s")
		},
		"a wrong clock's skips are decided anew, what fired is not": func(t *testing.T) {
			b := checkedBed(t)
			var n slotNotes
			f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Cron("0 * * * *")}
			b.start(f)
			b.kill()
			b.stepClock(50*time.Hour + time.Minute)
			b.start(f)
			after(time.Minute)
			b.kill()
			b.stepClock(0)
			r := b.start(f)
			after(61 * time.Minute)
			b.kill()
			time.Sleep(50 * time.Hour)
			r = b.start(f)
			after(time.Minute)
			expect(t, "runs", n.String(), "50h0m0s+49(1h0m0s)@0s 1h0m0s@1h0m0s 51h0m0s+48(2h0m0s)@51h2m0s")
			expect(t, "ledger", r.book("f"), "1h0m0s fired, 2h0m0s×48 coalesced, 50h0m0s fired, 51h0m0s fired")
		},
		"a clock that cannot be right: nothing is dispatched until it is": func(t *testing.T) {
			b := checkedBed(t)
			var every, extra slotNotes
			known := segno.Flow{ID: "known", Workflow: every.flow(time.Now()), Schedule: segno.Every(time.Hour)}
			b.start(known)
			after(time.Minute)
			b.stop()
			b.built = segnotest.Epoch
			b.stepClock(-20 * 365 * 24 * time.Hour)
			fresh := segno.Flow{ID: "fresh", Workflow: extra.flow(time.Now()), Schedule: segno.Every(time.Hour), RunOnStart: true}
			hand := segno.Flow{ID: "hand", Workflow: extra.flow(time.Now()), RunOnStart: true}
			r := b.start(known, fresh, hand)
			after(time.Minute)
			expect(t, "runs by the wrong clock", every.String()+extra.String(), "0s@0s")
			expect(t, "event", strings.HasPrefix(r.events("clock_not_sane"), "it shows 1980-01-06T00:01:00Z, the program was built at 2000-01-01T00:00:00Z"), true)
			b.stepClock(0)
			after(5 * time.Second)
			expect(t, "event", r.events("clock_sane"), "dispatching goes on")
			expect(t, "runs by the right clock", strings.Count(extra.String(), "@"), 2)
			expect(t, "the known one is where it was", r.next("known"), time.Hour)
			expect(t, "it was not rolled back", r.events("clock_rollback"), "")
			expect(t, "the new one begins now", strings.HasPrefix(r.book("fresh"), "2m"), true)
		},
	})
}

// Deadlines that began as a duration never last longer, whatever the clock does.
func TestScheduleS7(t *testing.T) {
	inTimes(t, map[string]func(t *testing.T){
		"a window, in one go": func(t *testing.T) { gateAfterStepBack(t, func(*bed, ...segno.Flow) {}) },
		"a window, restarted": func(t *testing.T) { gateAfterStepBack(t, func(b *bed, f ...segno.Flow) { b.restart(f...) }) },
		"a Sleep": func(t *testing.T) {
			b := checkedBed(t)
			r := b.start(flowOf("f", one(segno.Sleep[cargo](10*time.Minute, done))))
			id := r.trigger("f", cargo{})
			after(5*time.Minute + 5*time.Second)
			b.stepClock(-24 * time.Hour)
			after(10*time.Minute + 5*time.Second)
			expect(t, "status", r.info(id).Status, segno.RunCompleted)
		},
		"a Timer waits for its instant": func(t *testing.T) {
			b := checkedBed(t)
			at := segnotest.Epoch.Add(10 * time.Minute)
			r := b.start(flowOf("f", one(segno.Timer(func(context.Context, *cargo) (time.Time, error) { return at, nil }, to(done)))))
			id := r.trigger("f", cargo{})
			after(5 * time.Minute)
			b.stepClock(-time.Hour)
			after(time.Hour)
			expect(t, "status an hour later", r.info(id).Status, segno.RunParked)
			after(5*time.Minute + 5*time.Second)
			expect(t, "status at its instant", r.info(id).Status, segno.RunCompleted)
		},
		"a pause ends at its instant": func(t *testing.T) {
			b := checkedBed(t)
			r := b.start(segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.Every(time.Minute)})
			after(5 * time.Second)
			r.pause("f", segno.Pause{Until: segnotest.Epoch.Add(10 * time.Minute)})
			b.stepClock(-time.Hour)
			after(65 * time.Minute)
			expect(t, "paused", r.status("f").Paused, true)
			after(6 * time.Minute)
			expect(t, "paused behind its end", r.status("f").Paused, false)
		},
		"forward, a window ends early": func(t *testing.T) {
			b := checkedBed(t)
			var s tries
			b.start(segno.Flow{ID: "f", Workflow: flaky(&s, "f"), Schedule: segno.Every(time.Minute), Backoff: closedFor(time.Hour)})
			after(65 * time.Second)
			b.stepClock(time.Hour)
			after(5 * time.Second)
			expect(t, "calls", s.calls(), 2)
		},
	})
}

// gateAfterStepBack checks that a window of ten minutes is over ten minutes after
// the clock was set back by two hours.
func gateAfterStepBack(t *testing.T, then func(*bed, ...segno.Flow)) {
	b := checkedBed(t)
	var s tries
	f := segno.Flow{ID: "f", Workflow: flaky(&s, "f"), Schedule: segno.Every(time.Minute), Backoff: closedFor(10 * time.Minute)}
	b.start(f)
	after(5 * time.Second)
	b.stepClock(-2 * time.Hour) // noticed at 10 s
	then(b, f)
	r := &live{b.run, t}
	after(15 * time.Second)
	expect(t, "window", r.status("f").NextEligible.Sub(segnotest.Epoch) <= -2*time.Hour+10*time.Minute+10*time.Second, true)
	after(10 * time.Minute)
	expect(t, "it has ended", r.status("f").NextEligible.Before(time.Now().Add(-2*time.Hour)), true)
}
