package segno_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// New York set its clocks forward on 2000-04-02 at 02:00 EST, 07:00 UTC, and
// back on 2000-10-29 at 02:00 EDT, 06:00 UTC.
var (
	newYorkForward = time.Date(2000, 4, 2, 7, 0, 0, 0, time.UTC)
	newYorkBack    = time.Date(2000, 10, 29, 6, 0, 0, 0, time.UTC)
)

// A ruled flow has a cron expression in New York, and a rule.
type ruled struct {
	name, expr string
	rule       segno.DST
	want       string // its slots, and when they fired, seen from the change
}

// aroundChange runs flows from 90 minutes before a change of the clock to 90
// minutes behind it.
func aroundChange(t *testing.T, change time.Time, tests ...ruled) {
	inBubble(t, func(t *testing.T) {
		time.Sleep(time.Until(change.Add(-90 * time.Minute)))
		notes := make([]slotNotes, len(tests))
		var flows []segno.Flow
		for i, tt := range tests {
			sc := segno.Cron("CRON_TZ=America/New_York " + tt.expr)
			flows = append(flows, segno.Flow{ID: tt.name, Workflow: notes[i].flow(change), Schedule: sc, DST: tt.rule})
		}
		newBed(t).start(flows...)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		for i, tt := range tests {
			expect(t, tt.name, notes[i].String(), tt.want)
		}
	})
}

func TestAFlowKeepsItsRuleWhereTheClockIsSetForward(t *testing.T) {
	skip := segno.DST{Gap: segno.GapSkip}
	aroundChange(t, newYorkForward,
		ruled{"run after", "30 2 * * *", segno.DST{}, "0s@0s"},
		ruled{"skip", "30 2 * * *", skip, ""},
		ruled{"skip one of two", "30 2,3 * * *", skip, "30m0s@30m0s"},
		ruled{"real time", "*/30 2,3 * * *", segno.DST{}, "0s@0s 30m0s@30m0s"},
	)
}

func TestAFlowKeepsItsRuleWhereTheClockIsSetBack(t *testing.T) {
	second, both := segno.DST{Repeat: segno.RepeatSecond}, segno.DST{Repeat: segno.RepeatBoth}
	aroundChange(t, newYorkBack,
		ruled{"first", "30 1 * * *", segno.DST{}, "-30m0s@-30m0s"},
		ruled{"second", "30 1 * * *", second, "30m0s@30m0s"},
		ruled{"both", "30 1 * * *", both, "-30m0s@-30m0s 30m0s@30m0s"},
		ruled{"real time", "45 */1 * * *", second, "-1h15m0s@-1h15m0s -15m0s@-15m0s 45m0s@45m0s"},
	)
}

// Slots that were missed are found by the same rule, and each has its line in
// the ledger.
func TestMissedSlotsFollowTheRule(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		time.Sleep(time.Until(newYorkBack.Add(-time.Hour - time.Minute)))
		b := newBed(t)
		var n slotNotes
		f := segno.Flow{
			ID: "f", Workflow: n.flow(newYorkBack), Schedule: segno.Cron("CRON_TZ=America/New_York 15,45 1 * * *"),
			DST: segno.DST{Repeat: segno.RepeatBoth}, CatchUp: segno.CatchUpAll(10),
		}
		b.start(f)
		b.stop()
		time.Sleep(24 * time.Hour)
		r := b.start(f)
		synctest.Wait()
		expect(t, "runs", n.String(), "-45m0s@22h59m0s -15m0s@22h59m0s 15m0s@22h59m0s 45m0s@22h59m0s")
		expect(t, "ledger", r.slots("f"), "fired 1, fired 1, fired 1, fired 1")
		expect(t, "next run", r.status("f").NextRun, time.Date(2000, 10, 30, 6, 15, 0, 0, time.UTC))
	})
}

// A new rule is a changed schedule; the same one again is not.
func TestANewRuleIsAChangedSchedule(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		time.Sleep(time.Until(newYorkBack.Add(-time.Hour)))
		b := newBed(t)
		var n slotNotes
		f := segno.Flow{ID: "f", Workflow: n.flow(newYorkBack), Schedule: segno.Cron("CRON_TZ=America/New_York 30 1 * * *")}
		b.start(f)
		f.DST.Repeat = segno.RepeatSecond
		r := b.restart(f)
		expect(t, "schedule", r.status("f").Schedule, "cron CRON_TZ=America/New_York 30 1 * * * repeat=second")
		expect(t, "next run", r.status("f").NextRun, newYorkBack.Add(30*time.Minute))
		b.restart(f)
		expect(t, "changes", len(b.rows("SELECT 1 FROM _segno_event WHERE kind = 'schedule_changed'")), 1)
	})
}

func TestABadRuleIsErrConfig(t *testing.T) {
	s := segno.New("never-opened.db", segno.Options{})
	err := s.Add(segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.Cron("@daily"), DST: segno.DST{Gap: 7}})
	expectError(t, "DST.Gap 7", err, segno.ErrConfig)
}

// The bounds hold one slot, and the rule skips it.
func TestARuleThatLeavesNoSlotIsErrNeverFires(t *testing.T) {
	s := segno.New("never-opened.db", segno.Options{})
	f := segno.Flow{
		ID: "f", Workflow: one(to(done)), Schedule: segno.Cron("CRON_TZ=America/New_York 30 2 * * *"),
		StartAt: newYorkForward.Add(-time.Hour), EndAt: newYorkForward.Add(time.Hour), DST: segno.DST{Gap: segno.GapSkip},
	}
	expectError(t, "with GapSkip", s.Add(f), segno.ErrNeverFires)
	f.DST = segno.DST{}
	if err := s.Add(f); err != nil {
		t.Errorf("with GapRunAfter: got error %v, want none", err)
	}
}
