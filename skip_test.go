package segno_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

func (l *live) skipNext(id, note string) {
	l.t.Helper()
	if err := l.SkipNext(context.Background(), id, note); err != nil {
		l.t.Fatalf("SkipNext(%q): got error %v, want none", id, err)
	}
}

func (l *live) skipSlot(id string, slot time.Time, note string) {
	l.t.Helper()
	if err := l.SkipSlot(context.Background(), id, slot, note); err != nil {
		l.t.Fatalf("SkipSlot(%q, %v): got error %v, want none", id, slot, err)
	}
}

// notes returns a flow's ledger with the notes.
func (b *bed) notes(flow string) string {
	return strings.Join(b.rows(`SELECT outcome || ' ' || count || coalesce(' ' || reason, '') || coalesce(': ' || note, '')
FROM segno_slots WHERE flow = ? ORDER BY first`, flow), ", ")
}

func TestASlotThatIsMarkedIsSkippedWithItsNote(t *testing.T) {
	for name, between := range goingOn() {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var n slotNotes
				begin := time.Now()
				f := segno.Flow{ID: "f", Workflow: n.flow(begin), Schedule: segno.Every(time.Minute)}
				r := b.start(f)
				time.Sleep(30 * time.Second)
				r.skipNext("f", "the bank is closed")
				r.skipNext("f", "and so it is") // the next but one: 2 min
				r.skipSlot("f", begin.Add(4*time.Minute), "first")
				r = between(b, f)
				r.skipSlot("f", begin.Add(4*time.Minute), "audit")
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				expect(t, "runs", n.String(), "0s@0s 3m0s@3m0s 5m0s@5m0s")
				expect(t, "ledger", b.notes("f"), "fired 1, skipped 1 skipped_by_user: the bank is closed, "+
					"skipped 1 skipped_by_user: and so it is, fired 1, skipped 1 skipped_by_user: audit, fired 1")
				expect(t, "marks left", strings.Join(b.rows("SELECT slot FROM _segno_skip"), " "), "")
				expect(t, "marks counted", strings.Join(b.rows("SELECT skips FROM _segno_flow"), " "), "0")
			})
		})
	}
}

func TestAMarkHoldsWhileTheProcessIsDownAndInAPause(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		begin := time.Now()
		f := segno.Flow{ID: "f", Workflow: n.flow(begin), Schedule: segno.Every(time.Hour)}
		r := b.start(f)
		synctest.Wait()
		r.skipSlot("f", begin.Add(2*time.Hour), "holiday")
		r.skipSlot("f", begin.Add(5*time.Hour), "again")
		b.stop()
		time.Sleep(150 * time.Minute)
		r = b.start(f)
		synctest.Wait()
		expect(t, "runs: the slot before the marked one", n.take(), "0s@0s 1h0m0s@2h30m0s")
		r.pause("f", segno.Pause{})
		time.Sleep(3 * time.Hour)
		r.resume("f")
		expect(t, "ledger", b.notes("f"), "fired 1, fired 1, skipped 1 skipped_by_user: holiday, skipped 2 paused, skipped 1 skipped_by_user: again")
		expect(t, "marks counted", strings.Join(b.rows("SELECT skips FROM _segno_flow"), " "), "0")
	})
}

func TestASkippedSlotCountsForNoBound(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(time.Minute), MaxRuns: 2}
		r := b.start(f)
		synctest.Wait()
		r.skipNext("f", "")
		time.Sleep(10 * time.Minute)
		expect(t, "runs", n.String(), "0s@0s 2m0s@2m0s")
		expectError(t, "SkipNext behind MaxRuns", r.SkipNext(context.Background(), "f", ""), segno.ErrConfig)
	})
}

func TestAJitteredSlotMayBeSkippedUntilItIsDue(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		begin := time.Now()
		f := segno.Flow{ID: "f", Workflow: n.flow(begin), Schedule: segno.Cron("0 * * * *"), Jitter: 20 * time.Minute}
		r := b.start(f)
		synctest.Wait()
		due := r.status("f").NextRun
		slot := due.Truncate(time.Hour)
		time.Sleep(time.Until(due) - time.Second)
		if !time.Now().After(slot) {
			t.Fatalf("the slot's jitter is %v: choose another flow id", due.Sub(slot))
		}
		r.skipNext("f", "late")
		time.Sleep(10 * time.Minute)
		expect(t, "ledger", b.notes("f"), "skipped 1 skipped_by_user: late")
	})
}

func TestTheMarkOfAFixedDelayGoesWithItsSlot(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.FixedDelay(time.Minute)}
		r := b.start(f)
		time.Sleep(30 * time.Second)
		r.skipNext("f", "once")
		expectError(t, "SkipNext of the only slot", r.SkipNext(context.Background(), "f", ""), segno.ErrConfig)
		r.completed(r.trigger("f", cargo{})) // moves the slot from 60 s to 90 s
		b.restart(f)
		time.Sleep(130 * time.Second)
		synctest.Wait()
		expect(t, "runs", n.String(), "0s@0s manual@30s 2m30s@2m30s")
		expect(t, "ledger", b.notes("f"), "fired 1, skipped 1 skipped_by_user: once, fired 1")
	})
}

func TestWhatCannotBeSkippedIsErrConfig(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		begin := time.Now().UTC()
		r := newBed(t).start(
			flowOf("manual", one(to(done))),
			segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.Every(time.Hour), EndAt: begin.Add(10 * time.Hour)},
			segno.Flow{ID: "cron", Workflow: one(to(done)), Schedule: segno.Cron("0 3 29 2 *")},
		)
		time.Sleep(90 * time.Minute)
		for _, c := range []struct {
			what, flow string
			slot       time.Duration
			says       string
		}{
			{"a manual flow", "manual", time.Hour, "no slot to come"},
			{"a slot that is decided", "f", time.Hour, "decided; the nearest to come is 2000-01-01T02:00:00Z"},
			{"a time that is no slot", "f", 2*time.Hour + time.Second, "no slot at 2000-01-01T02:00:01Z; the nearest is 2000-01-01T02:00:00Z"},
			{"a time near the slot behind it", "f", 3*time.Hour - time.Second, "the nearest is 2000-01-01T03:00:00Z"},
			{"a time behind EndAt", "f", 100 * time.Hour, "the nearest is 2000-01-01T10:00:00Z"},
			{"a time years from any slot", "cron", 3 * 366 * 24 * time.Hour, "the nearest is 2004-02-29T03:00:00Z"},
		} {
			err := r.SkipSlot(ctx, c.flow, begin.Add(c.slot), "")
			expectError(t, c.what, err, segno.ErrConfig)
			if err != nil && !contains(err.Error(), c.flow, c.says) {
				t.Errorf("%s: got error %v, want one with %q", c.what, err, c.says)
			}
		}
		expectError(t, "SkipNext of a manual flow", r.SkipNext(ctx, "manual", ""), segno.ErrConfig)
		expectError(t, "SkipNext of an unknown flow", r.SkipNext(ctx, "x", ""), segno.ErrNotFound)
		expectError(t, "SkipSlot of an unknown flow", r.SkipSlot(ctx, "x", begin, ""), segno.ErrNotFound)
	})
}
