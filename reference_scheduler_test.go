package segno_test

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// referenceScheduler are the rows of the engine's table about registering,
// starting, firing and backing off.
func referenceScheduler() scenarios {
	return scenarios{
		"S01_empty_builder":              atOnce(engineS01),
		"S02_duplicate_id":               inTime(engineS02),
		"S03_bad_cron":                   atOnce(engineS03),
		"S04_five_field_cron":            inTime(engineS04),
		"S05_dow_numbering":              inTime(engineS05),
		"S06_dom_and_dow":                inTime(engineS06),
		"S07_never_fires":                atOnce(engineS07),
		"S08_start_validates":            inTime(engineS08),
		"S09_start_bad_initial":          atOnce(engineS09),
		"S10_start_setup_rollback":       inTime(engineS10),
		"S11_fresh_status":               inTime(engineS11),
		"S12_unknown_status":             inTime(engineS12),
		"S13_interval_first_run":         inTime(engineS13),
		"S14_interval_fixed_delay":       inTime(engineS14),
		"S15_cron_no_initial_run":        inTime(engineS15),
		"S16_cron_missed_ticks":          inTime(engineS16),
		"S17_trigger_runs":               inTime(engineS17),
		"S18_trigger_any_kind":           inTime(engineS18),
		"S19_trigger_unknown":            inTime(engineS19),
		"S20_trigger_overlap":            inTime(engineS20),
		"S21_tick_overlap":               inTime(engineS21),
		"S22_clones_share":               inTime(engineS22),
		"S23_handle_reaping":             inTime(engineS23),
		"S24_backoff_growth":             inTime(engineS24),
		"S25_backoff_default":            inTime(engineS25),
		"S26_backoff_formula":            atOnce(engineS26),
		"S27_backoff_cap_jitter":         atOnce(engineS27),
		"S28_trip_at_limit":              inTime(engineS28),
		"S29_trip_zero":                  inTime(engineS29),
		"S30_trip_blocks_trigger":        inTime(engineS30),
		"S31_reset_resumes":              inTime(engineS31),
		"S32_reset_unknown":              inTime(engineS32),
		"S33_reset_during_run":           inTime(engineS33),
		"S34_trip_reset_trip":            inTime(engineS34),
		"S35_success_clears":             inTime(engineS35),
		"S36_trigger_bypasses_backoff":   inTime(engineS36),
		"S37_cron_suppressed":            inTime(engineS37),
		"S38_window_opened_during_sleep": inTime(engineS38),
		"S39_reset_wakes_loop":           inTime(engineS39),
	}
}

func engineS01(t *testing.T) {
	s := builder()
	expect(t, "Len", s.Len(), 0)
	expect(t, "IsEmpty", s.IsEmpty(), true)
}

func engineS02(t *testing.T) {
	b := newBed(t)
	s := segno.New(b.path, b.opts)
	if err := s.Manual("f", one(to(done))); err != nil {
		t.Fatal(err)
	}
	expectError(t, "the second registration", s.Manual("f", one(fail)), segno.ErrExists)
	expect(t, "Len", s.Len(), 1)
	run, err := s.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	b.run = run
	r := &live{run, t}
	r.completed(r.trigger("f", cargo{})) // the first one stands
}

func engineS03(t *testing.T) {
	s := builder()
	expectError(t, "Cron", s.Cron("f", one(to(done)), "every now and then"), segno.ErrSchedule)
	expect(t, "it is registered", s.Contains("f"), false)
}

func engineS04(t *testing.T) {
	var s tries
	startAt(t, one(s.failing(0)), segno.Cron("* * * * *"))
	after(3 * time.Minute)
	expect(t, "gaps", s.gaps(), "1m0s 1m0s")
}

func engineS05(t *testing.T) { // it is Saturday, 1 January
	next := func(expr string) time.Weekday {
		return startAt(t, one(to(done)), segno.Cron(expr)).status("f").NextRun.Weekday()
	}
	expect(t, "day 1", next("0 0 12 ? * 1"), time.Monday)
	expect(t, "days 0 and 7", next("0 0 12 ? * 0,7"), time.Sunday)
	var s tries
	startAt(t, one(s.failing(0)), segno.Cron("0 30 0 ? * 6"))
	after(time.Hour)
	expect(t, "runs on Saturday of day 6", s.calls(), 1)
}

func engineS06(t *testing.T) { // it is Saturday, 1 January
	r := startAt(t, one(to(done)), segno.Cron("30 0 1 * MON"))
	after(time.Hour)
	expect(t, "runs on the first of the month", len(r.runs("f")), 1)
	expect(t, "then", r.status("f").NextRun.Format("Mon 2"), "Mon 3")
}

func engineS07(t *testing.T) {
	s := builder()
	expectError(t, "30 February", s.Cron("f", one(to(done)), "0 0 30 2 *"), segno.ErrNeverFires)
	expect(t, "it is registered", s.Contains("f"), false)
}

func engineS08(t *testing.T) {
	var said tally
	s := segno.New("never-opened.db", segno.Options{Resources: []segno.Resource{resource("r", &said)}})
	w := route{Initial: legA, Steps: legs{legA: {Do: to(legA)}}}
	expectError(t, "Manual", s.Manual("f", w), segno.ErrConfig)
	_, err := s.Start(context.Background())
	expectError(t, "Start", err, segno.ErrConfig)
	expect(t, "what was set up", said.String(), "")
	_, err = os.Stat("never-opened.db")
	expectError(t, "the file", err, os.ErrNotExist)
}

func engineS09(t *testing.T) {
	s := builder()
	w := one(to(done))
	w.Initial = legB
	expectError(t, "Manual", s.Manual("f", w), segno.ErrConfig)
	_, err := s.Start(context.Background())
	expectError(t, "Start", err, segno.ErrConfig)
}

func engineS10(t *testing.T) {
	var said tally
	b := newBed(t)
	bad := segno.Resource{Key: "3", Setup: func(context.Context) (any, error) { return nil, errTest }}
	b.opts.Resources = []segno.Resource{resource("1", &said), resource("2", &said), bad, resource("4", &said)}
	step := func(context.Context, *cargo) (leg, error) { said.add("run"); return done, nil }
	f := segno.Flow{ID: "f", Workflow: one(step), Schedule: segno.Every(time.Second)}
	_, err := b.tryStart(context.Background(), f)
	expectError(t, "Start", err, errTest)
	after(time.Minute)
	expect(t, "said", said.String(), "+1 +2 -2(value of 2) -1(value of 1)")
}

func engineS11(t *testing.T) {
	r := startOne(t, one(to(done)))
	r.stands(segno.StatusIdle, 0, 0)
	expect(t, "last run", r.status("f").LastRun, time.Time{})
}

func engineS12(t *testing.T) {
	_, err := startOne(t, one(to(done))).Status(context.Background(), "x")
	expectError(t, "Status", err, segno.ErrNotFound)
}

func engineS13(t *testing.T) {
	begin := time.Now().UTC()
	r := startAt(t, one(to(done)), segno.Every(time.Hour))
	after(59 * time.Minute)
	r.stands(segno.StatusCompleted, 1, 0)
	expect(t, "last run", r.status("f").LastRun, begin)
}

func engineS14(t *testing.T) {
	var delay, grid tries
	startAt(t, one(delay.counting(deaf(200*time.Millisecond, done, nil))), segno.FixedDelay(300*time.Millisecond))
	startAt(t, one(grid.counting(deaf(200*time.Millisecond, done, nil))), segno.Every(300*time.Millisecond))
	after(1400 * time.Millisecond)
	expect(t, "gaps of a fixed delay", delay.gaps(), "500ms 500ms")
	expect(t, "gaps of an interval", grid.gaps(), "300ms 300ms 300ms 300ms")
}

func engineS15(t *testing.T) {
	time.Sleep(10 * time.Second)
	r := startAt(t, one(to(done)), segno.Cron("* * * * *"))
	after(50*time.Second - time.Millisecond)
	expect(t, "runs before the first firing", len(r.runs("f")), 0)
	after(time.Millisecond)
	expect(t, "runs at the first firing", len(r.runs("f")), 1)
}

func engineS16(t *testing.T) {
	var s tries
	r := startAt(t, one(s.counting(deaf(3500*time.Millisecond, done, nil))), segno.Cron("* * * * * *"))
	after(6 * time.Second)
	expect(t, "gaps", s.gaps(), "4s")
	expect(t, "slots", r.slots("f"), "fired 1, skipped 3 overlap, fired 1, skipped 1 overlap")
}

func engineS17(t *testing.T) {
	r := startOne(t, one(to(done)))
	r.completed(r.trigger("f", cargo{}))
	r.stands(segno.StatusCompleted, 1, 0)
}

func engineS18(t *testing.T) {
	var s tries
	r := startAt(t, one(s.failing(0)), segno.Every(time.Minute))
	after(20 * time.Second)
	r.completed(r.trigger("f", cargo{}))
	r.stands(segno.StatusCompleted, 2, 0)
	after(40 * time.Second)
	expect(t, "gaps", s.gaps(), "20s 40s")
}

func engineS19(t *testing.T) {
	_, err := startOne(t, one(to(done))).Trigger(context.Background(), "x", segno.Trigger{})
	expectError(t, "Trigger", err, segno.ErrNotFound)
}

func engineS20(t *testing.T) {
	r := startOne(t, one(deaf(time.Second, done, nil)))
	id := r.trigger("f", cargo{})
	_, err := r.Trigger(context.Background(), "f", segno.Trigger{})
	expectError(t, "the second trigger", err, segno.ErrRunning)
	r.stands(segno.StatusRunning, 1, 0)
	r.completed(id)
	r.completed(r.trigger("f", cargo{}))
}

func engineS21(t *testing.T) {
	var c crowd
	r := startAt(t, c.work(30*time.Second), segno.Every(time.Minute))
	after(45 * time.Second)
	id := r.trigger("f", cargo{})
	after(20 * time.Second) // behind the slot
	r.stands(segno.StatusRunning, 2, 0)
	r.completed(id)
	_, most := c.said()
	expect(t, "runs at a time", most, 1)
	expect(t, "slots", r.slots("f"), "fired 1, skipped 1 overlap")
}

func engineS22(t *testing.T) {
	b := newBed(t)
	r := b.start(flowOf("f", one(to(done))))
	bound, err := segno.Bind(r.RunningScheduler, "f", one(to(done)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := bound.Trigger(context.Background(), cargo{})
	if err != nil {
		t.Fatal(err)
	}
	r.completed(id)
	reader, err := segno.OpenReader(context.Background(), b.path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	r.stands(segno.StatusCompleted, 1, 0)
	info, err := reader.Status(context.Background(), "f")
	expect(t, "run count for a reader", info.RunCount, 1)
	expectError(t, "Status", err, nil)
}

func engineS23(t *testing.T) {
	r := startOne(t, one(to(done)))
	for range 20 {
		r.completed(r.trigger("f", cargo{}))
	}
	synctest.Wait()
	expect(t, "goroutines in runs", r.InHand(), 0)
	r.stands(segno.StatusCompleted, 20, 0)
}

func engineS24(t *testing.T) {
	var s tries
	p := segno.BackoffPolicy{Initial: 150 * time.Millisecond, MaxDelay: 600 * time.Millisecond, Jitter: -1}
	newBed(t).start(segno.Flow{ID: "f", Workflow: one(s.counting(fail)), Schedule: segno.FixedDelay(50 * time.Millisecond), Backoff: p})
	after(1700 * time.Millisecond)
	expect(t, "gaps", s.gaps(), "150ms 300ms 600ms 600ms")
}

func engineS25(t *testing.T) {
	r := startOne(t, one(fail))
	r.fails()
	r.stands(segno.StatusBackoff, 1, 1)
	if d := time.Until(r.status("f").NextEligible); d < 900*time.Millisecond || d > 1100*time.Millisecond {
		t.Errorf("the window: got = %v, want 1s ± 10 %%", d)
	}
}

func engineS26(t *testing.T) {
	p := segno.BackoffPolicy{Initial: 100 * time.Millisecond, Jitter: -1}
	var got tally
	for streak := range 5 {
		got.add("%v", p.Delay(streak))
	}
	expect(t, "delays of the streaks 0 to 4", got.String(), "100ms 100ms 200ms 400ms 800ms")
}

func engineS27(t *testing.T) {
	p := segno.BackoffPolicy{Initial: time.Second, Jitter: 0.5, MaxDelay: 1200 * time.Millisecond}
	least, most := time.Hour, time.Duration(0)
	for range 2000 {
		least, most = min(least, p.Delay(1)), max(most, p.Delay(1))
	}
	if least < 500*time.Millisecond || least > 600*time.Millisecond || most != p.MaxDelay {
		t.Errorf("shortest and longest of many: got = %v, %v, want about 500ms and the cap of %v", least, most, p.MaxDelay)
	}
}

// tripping starts an interval flow that trips at its third failure.
func tripping(t *testing.T, s *tries, script string) *live {
	return newBed(t).start(segno.Flow{
		ID: "f", Workflow: flaky(s, script), Schedule: segno.Every(time.Second),
		Backoff: segno.BackoffPolicy{Initial: 100 * time.Millisecond, StreakLimit: 3},
	})
}

func engineS28(t *testing.T) {
	var s tries
	r := tripping(t, &s, "ffffffffff")
	after(10 * time.Minute)
	r.stands(segno.StatusTripped, 3, 3)
	expect(t, "gaps", s.gaps(), "1s 1s")
}

func engineS29(t *testing.T) {
	r := startPolicy(t, one(fail), segno.BackoffPolicy{StreakLimit: 0})
	for range 10 {
		r.fails()
	}
	r.stands(segno.StatusBackoff, 10, 10)
	r = startPolicy(t, one(fail), segno.BackoffPolicy{StreakLimit: 1})
	r.fails()
	r.stands(segno.StatusTripped, 1, 1)
}

func engineS30(t *testing.T) {
	r := startPolicy(t, one(fail), segno.BackoffPolicy{StreakLimit: 1})
	r.fails()
	_, err := r.Trigger(context.Background(), "f", segno.Trigger{})
	expectError(t, "Trigger", err, segno.ErrTripped)
	r.reset()
	r.fails() // it is accepted again
}

func engineS31(t *testing.T) {
	var s tries
	r := tripping(t, &s, "fff")
	after(10*time.Second + 500*time.Millisecond)
	r.stands(segno.StatusTripped, 3, 3)
	r.reset()
	r.stands(segno.StatusIdle, 3, 0)
	expect(t, "window", r.status("f").NextEligible, time.Time{})
	after(500 * time.Millisecond)
	r.stands(segno.StatusCompleted, 4, 0)
}

func engineS32(t *testing.T) {
	expectError(t, "ResetFlow", startOne(t, one(to(done))).ResetFlow(context.Background(), "x"), segno.ErrNotFound)
}

func engineS33(t *testing.T) {
	r := startOne(t, one(deaf(time.Second, "", errTest)))
	r.fails()
	r.fails()
	id := r.begun()
	r.reset()
	r.stands(segno.StatusRunning, 3, 0)
	r.ended(id, segno.RunFailed)
	r.stands(segno.StatusBackoff, 3, 1)
}

func engineS34(t *testing.T) {
	var s tries
	r := tripping(t, &s, "ffffffffff")
	for cycle := range int64(2) {
		after(10 * time.Second)
		r.stands(segno.StatusTripped, 3*(cycle+1), 3)
		r.reset()
	}
}

func engineS35(t *testing.T) {
	var s tries
	r := startOne(t, flaky(&s, "ff"))
	r.fails()
	r.fails()
	r.stands(segno.StatusBackoff, 2, 2)
	r.completed(r.trigger("f", cargo{}))
	r.stands(segno.StatusCompleted, 3, 0)
	expect(t, "window", r.status("f").NextEligible, time.Time{})
}

func engineS36(t *testing.T) {
	var s tries
	r := startPolicy(t, flaky(&s, "f"), segno.BackoffPolicy{Initial: time.Minute, Jitter: -1})
	r.fails()
	expect(t, "window", r.status("f").NextEligible, time.Now().Add(time.Minute).UTC())
	r.completed(r.trigger("f", cargo{}))
	expect(t, "window after success", r.status("f").NextEligible, time.Time{})
}

// window is a backoff of a minute.
func window(w route, s segno.Schedule) segno.Flow {
	return segno.Flow{ID: "f", Workflow: w, Schedule: s, Backoff: segno.BackoffPolicy{Initial: time.Minute, Jitter: -1}}
}

func engineS37(t *testing.T) {
	var s tries
	r := newBed(t).start(window(flaky(&s, "f"), segno.Cron("* * * * * *")))
	after(61*time.Second - time.Millisecond) // the first slot is a second from now
	r.stands(segno.StatusBackoff, 1, 1)
	after(time.Millisecond)
	r.stands(segno.StatusCompleted, 2, 0)
}

func engineS38(t *testing.T) {
	var s tries
	r := newBed(t).start(window(flaky(&s, ".f"), segno.Every(10*time.Second)))
	after(5 * time.Second)
	r.fails()
	after(55 * time.Second) // the slots of 10 s to 60 s lie inside the window
	r.stands(segno.StatusBackoff, 2, 1)
	after(10 * time.Second)
	expect(t, "gaps", s.gaps(), "5s 1m5s")
}

func engineS39(t *testing.T) {
	var s tries
	r := newBed(t).start(window(flaky(&s, "f"), segno.Every(10*time.Second)))
	after(15 * time.Second)
	r.reset()
	after(5 * time.Second)
	expect(t, "gaps", s.gaps(), "20s")
	r.stands(segno.StatusCompleted, 2, 0)
}
