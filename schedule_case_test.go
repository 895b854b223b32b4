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

// checkedBed is a bed whose file goes through segnotest.Check in the end.
func checkedBed(t *testing.T) *bed {
	t.Helper()
	b := newBed(t)
	t.Cleanup(func() {
		b.stop()
		segnotest.Check(t, b.path)
	})
	return b
}

// book is a flow's ledger in short, with the first slot of each row as an offset
// from the bubble's begin: "0s fired, 1h0m0s×3 coalesced".
func (l *live) book(flow string) string {
	l.t.Helper()
	lines, err := queryLines(l.DB(), `SELECT l.first, l.count, trim(l.outcome || ' ' || coalesce(l.reason, ''))
FROM _segno_ledger l JOIN _segno_flow f USING (flow) WHERE f.id = ? ORDER BY l.first`, flow)
	if err != nil {
		l.t.Fatalf("ledger of %q: %v", flow, err)
	}
	for i, line := range lines {
		var first, count int64
		cells := strings.Split(line, "|")
		_, _ = fmt.Sscan(cells[0]+" "+cells[1], &first, &count)
		lines[i] = time.UnixMicro(first).Sub(segnotest.Epoch).String()
		if count > 1 {
			lines[i] += fmt.Sprintf("×%d", count)
		}
		lines[i] += " " + cells[2]
	}
	return strings.Join(lines, ", ")
}

// events lists the events of a kind, "flow: note" each.
func (l *live) events(kind string) string {
	l.t.Helper()
	lines, err := queryLines(l.DB(), "SELECT coalesce(flow || ': ', '') || coalesce(note, '') FROM segno_events WHERE kind = ? ORDER BY id", kind)
	if err != nil {
		l.t.Fatalf("events: %v", err)
	}
	return strings.Join(lines, "; ")
}

// next is when a flow is due, from the bubble's begin; -1: never.
func (l *live) next(flow string) time.Duration {
	l.t.Helper()
	if next := l.status(flow).NextRun; !next.IsZero() {
		return next.Sub(segnotest.Epoch)
	}
	return -1
}

// outage is what becomes of a flow's slots when the program is down.
type outage struct {
	flow     segno.Flow
	up, down time.Duration // how long it runs, and does not
	runs     string        // what slotNotes says
	book     string
	next     time.Duration
}

// play lets the outage happen, by a stop and by a kill.
func (o outage) play(t *testing.T) {
	t.Helper()
	for name, end := range map[string]func(*bed){"stop": (*bed).stop, "kill": (*bed).kill} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := checkedBed(t)
				var n slotNotes
				f := o.flow
				if f.ID = "f"; f.Workflow == nil {
					f.Workflow = n.flow(time.Now())
				}
				b.start(f)
				after(o.up)
				end(b)
				time.Sleep(o.down)
				r := b.start(f)
				synctest.Wait()
				expect(t, "runs", n.String(), o.runs)
				expect(t, "ledger", r.book("f"), o.book)
				expect(t, "next", r.next("f"), o.next)
			})
		})
	}
}

func hourly() segno.Flow { return segno.Flow{Schedule: segno.Every(time.Hour)} }

// Down for a minute between two slots: nothing happens, and the phase stays.
func TestScheduleCaseA(t *testing.T) {
	outage{hourly(), 40 * time.Minute, time.Minute, "0s@0s", "0s fired", time.Hour}.play(t)
}

// Down over one slot: it runs at once.
func TestScheduleCaseB(t *testing.T) {
	outage{hourly(), 40 * time.Minute, 30 * time.Minute, "0s@0s 1h0m0s@1h10m0s", "0s fired, 1h0m0s fired", 2 * time.Hour}.play(t)
}

// Down over four: one run for the newest, and three are coalesced into it.
func TestScheduleCaseC(t *testing.T) {
	outage{
		hourly(), 40 * time.Minute, 210 * time.Minute, "0s@0s 4h0m0s+3(1h0m0s)@4h10m0s",
		"0s fired, 1h0m0s×3 coalesced, 4h0m0s fired", 5 * time.Hour,
	}.play(t)
}

// Down over four, of which none is made up for.
func TestScheduleCaseD(t *testing.T) {
	f := hourly()
	f.CatchUp = segno.CatchUpSkip
	outage{f, 40 * time.Minute, 210 * time.Minute, "0s@0s", "0s fired, 1h0m0s×4 skipped missed", 5 * time.Hour}.play(t)
}

// Down over four, of which the newest two are made up for, one by one.
func TestScheduleCaseE(t *testing.T) {
	f := hourly()
	f.CatchUp = segno.CatchUpAll(2)
	outage{
		f, 40 * time.Minute, 210 * time.Minute, "0s@0s 3h0m0s@4h10m0s 4h0m0s@4h10m0s",
		"0s fired, 1h0m0s×2 skipped catchup_cap, 3h0m0s fired, 4h0m0s fired", 5 * time.Hour,
	}.play(t)
}

// A slot that could be dispatched only too late is given up.
func TestScheduleCaseF(t *testing.T) {
	f := hourly()
	f.MaxLateness = 10*time.Minute - time.Microsecond
	t.Run("the newest, too", func(t *testing.T) {
		outage{f, 40 * time.Minute, 210 * time.Minute, "0s@0s", "0s fired, 1h0m0s×4 skipped too_late", 5 * time.Hour}.play(t)
	})
	f.MaxLateness = 10 * time.Minute
	t.Run("but not the newest", func(t *testing.T) {
		outage{
			f, 40 * time.Minute, 210 * time.Minute, "0s@0s 4h0m0s@4h10m0s",
			"0s fired, 1h0m0s×3 skipped too_late, 4h0m0s fired", 5 * time.Hour,
		}.play(t)
	})
}

// Down behind a failure: slots inside the window are lost to it, those behind it
// are coalesced.
func TestScheduleCaseG(t *testing.T) {
	f := hourly()
	f.Backoff = segno.BackoffPolicy{Initial: 90 * time.Minute, Jitter: -1}
	var s tries
	f.Workflow = one(func(c context.Context, _ *cargo) (leg, error) {
		if s.note(c); segno.InfoFrom(c).Slot.Equal(segnotest.Epoch) {
			return "", errTest
		}
		return done, nil
	})
	outage{f, 40 * time.Minute, 210 * time.Minute, "", "0s fired, 1h0m0s skipped backoff, 2h0m0s×2 coalesced, 4h0m0s fired", 5 * time.Hour}.play(t)
}

// Suspended over three slots, or the clock set forward: noticed within ten
// seconds, and treated like any downtime.
func TestScheduleCaseH(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := checkedBed(t)
		var n slotNotes
		r := b.start(segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(time.Hour)})
		after(65 * time.Second)
		b.stepClock(3 * time.Hour)
		after(5 * time.Second)
		expect(t, "runs", n.String(), "0s@0s 3h0m0s+2(1h0m0s)@1m10s")
		expect(t, "ledger", r.book("f"), "0s fired, 1h0m0s×2 coalesced, 3h0m0s fired")
		expect(t, "event", r.events("clock_step"), "forward by 3h0m0s, to 2000-01-01T03:01:10Z: slots that have passed are caught up with")
	})
}

// A slot that was decided does not fire again when the clock comes by a second
// time, in the same process or in the next.
func TestScheduleCaseI(t *testing.T) {
	for name, between := range map[string]func(*bed, ...segno.Flow) *live{
		"in one go": func(b *bed, _ ...segno.Flow) *live { return &live{b.run, b.t} },
		"restarted": (*bed).restart,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := checkedBed(t)
				var n slotNotes
				f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Cron("30 0 * * *")}
				b.start(f)
				after(31 * time.Minute)
				b.stepClock(-2 * time.Minute)
				r := between(b, f)
				after(10 * time.Minute)
				expect(t, "runs", n.String(), "30m0s@30m0s")
				expect(t, "next", r.next("f"), 24*time.Hour+30*time.Minute)
				expect(t, "ledger", r.book("f"), "30m0s fired")
			})
		})
	}
}

// A first start by a clock that is years ahead does not silence a flow for years.
func TestScheduleCaseJ(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := checkedBed(t)
		var every, cron, delay, byHand slotNotes
		begin := time.Now()
		flows := []segno.Flow{
			{ID: "every", Workflow: every.flow(begin), Schedule: segno.Every(time.Minute)},
			{ID: "cron", Workflow: cron.flow(begin), Schedule: segno.Cron("* * * * *")},
			{ID: "delay", Workflow: delay.flow(begin), Schedule: segno.FixedDelay(time.Minute)},
			{ID: "hand", Workflow: byHand.flow(begin)},
		}
		b.stepClock(3 * 365 * 24 * time.Hour)
		r := b.start(flows...)
		r.completed(r.trigger("hand", cargo{}))
		after(90 * time.Second)
		b.kill()
		b.stepClock(0)
		for _, n := range []*slotNotes{&every, &cron, &delay, &byHand} {
			n.take()
		}
		r = b.start(flows...)
		expect(t, "last run", r.status("hand").LastRun, time.Now().UTC())
		after(3 * time.Minute)
		expect(t, "runs of the interval, on a grid of its own", every.String(), "2m30.000001s@2m30.000001s 3m30.000001s@3m30.000001s")
		expect(t, "runs of the cron", cron.String(), "2m0s@2m0s 3m0s@3m0s 4m0s@4m0s")
		expect(t, "runs of the delay", delay.String(), "2m30s@2m30s 3m30s@3m30s 4m30s@4m30s")
		for _, f := range flows {
			expect(t, "event of "+f.ID, strings.Count(r.events("clock_rollback"), f.ID+": "), 1)
		}
		r = b.restart(flows...)
		expect(t, "events after another start", strings.Count(r.events("clock_rollback"), ";"), 3)
	})
}

// Two weeks of an interval of five seconds are one run and one row.
func TestScheduleCaseK(t *testing.T) {
	outage{
		segno.Flow{Schedule: segno.Every(5 * time.Second)}, 0, 14 * 24 * time.Hour, "0s@0s 336h0m0s+241919(5s)@336h0m0s",
		"0s fired, 5s×241919 coalesced, 336h0m0s fired", 336*time.Hour + 5*time.Second,
	}.play(t)
}
