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

// slotNotes collects what scheduled runs know of their slots.
type slotNotes struct{ tally }

// flow completes at once, having noted its slot as an offset from begin.
func (n *slotNotes) flow(begin time.Time) route {
	return one(func(ctx context.Context, _ *cargo) (leg, error) {
		in := segno.InfoFrom(ctx)
		switch {
		case in.Slot.IsZero():
			n.add("manual@%v", time.Since(begin))
		case in.Missed > 0:
			n.add("%v+%d(%v)@%v", in.Slot.Sub(begin), in.Missed, in.FirstMissed.Sub(begin), time.Since(begin))
		default:
			n.add("%v@%v", in.Slot.Sub(begin), time.Since(begin))
		}
		return done, nil
	})
}

func TestAnIntervalRunsAtOnceAndOnItsGrid(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var n slotNotes
		r := newBed(t).start(
			segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(time.Minute)},
			segno.Flow{ID: "later", Workflow: one(to(done)), Schedule: segno.Every(time.Minute), SkipFirst: true},
		)
		time.Sleep(150 * time.Second)
		synctest.Wait()
		expect(t, "slots", n.String(), "0s@0s 1m0s@1m0s 2m0s@2m0s")
		expect(t, "next run", r.status("f").NextRun, time.Now().Add(30*time.Second).UTC())
		expect(t, "schedule", r.status("f").Schedule, "every 1m0s")
		expect(t, "runs with SkipFirst", len(r.runs("later")), 2)
		expect(t, "ledger", r.slots("f"), "fired 1, fired 1, fired 1")
		expect(t, "run info's slot", r.runs("f")[1].Slot, time.Now().Add(-90*time.Second).UTC())
	})
}

// An interval keeps its phase over a restart, on time, late, and very late.
func TestAnIntervalKeepsItsGridOverARestart(t *testing.T) {
	for _, c := range []struct {
		name  string
		up    time.Duration // after the crash 40 min behind a slot
		slots string
		next  time.Duration // from the start
		books string
	}{
		{"A: up before the next slot", time.Minute, "0s@0s", time.Hour, "fired 1"},
		{"B: up behind one slot", 30 * time.Minute, "0s@0s 1h0m0s@1h10m0s", 2 * time.Hour, "fired 1, fired 1"},
		{"C: up behind several", 210 * time.Minute, "0s@0s 4h0m0s+3(1h0m0s)@4h10m0s", 5 * time.Hour, "fired 1, coalesced 3, fired 1"},
	} {
		for name, stop := range map[string]func(*bed){"stop": (*bed).stop, "kill": (*bed).kill} {
			t.Run(c.name+" "+name, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					b := newBed(t)
					var n slotNotes
					begin := time.Now()
					f := segno.Flow{ID: "f", Workflow: n.flow(begin), Schedule: segno.Every(time.Hour)}
					b.start(f)
					synctest.Wait()
					stop(b)
					time.Sleep(40*time.Minute + c.up)
					r := b.start(f)
					synctest.Wait()
					expect(t, "slots", n.String(), c.slots)
					expect(t, "next run", r.status("f").NextRun, begin.Add(c.next).UTC())
					expect(t, "ledger", r.slots("f"), c.books)
					if c.name[0] == 'C' {
						run := r.runs("f")[1]
						expect(t, "missed slots of the run", run.Missed, 3)
						lines, err := queryLines(r.DB(), "SELECT first, last, run FROM segno_slots WHERE outcome = 'coalesced'")
						expect(t, "the ledger's row of the missed", fmt.Sprint(lines, err), fmt.Sprintf("[2000-01-01T01:00:00.000Z|2000-01-01T03:00:00.000Z|%d] <nil>", run.ID))
					}
				})
			})
		}
	}
}

func TestTwoWeeksOfMissedSlotsAreOneRunAndOneRow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(5 * time.Second)}
		b.start(f)
		synctest.Wait()
		b.stop()
		time.Sleep(14 * 24 * time.Hour)
		r := b.start(f)
		synctest.Wait()
		expect(t, "ledger", r.slots("f"), "fired 1, coalesced 241919, fired 1")
		expect(t, "runs", len(r.runs("f")), 2)
	})
}

func TestManyShortRestartsDoNotStarveAnInterval(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(time.Hour)}
		for range 12 {
			b.start(f)
			synctest.Wait()
			b.kill()
			time.Sleep(20 * time.Minute)
		}
		expect(t, "slots", n.String(), "0s@0s 1h0m0s@1h0m0s 2h0m0s@2h0m0s 3h0m0s@3h0m0s")
	})
}

func TestASlotWhileARunIsOpenIsSkippedForOverlap(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var calls tally
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(func(context.Context, *cargo) (leg, error) {
			calls.add("x")
			time.Sleep(150 * time.Second)
			return done, nil
		}), Schedule: segno.Every(time.Minute)})
		time.Sleep(200 * time.Second)
		synctest.Wait()
		expect(t, "calls", calls.len(), 2)
		expect(t, "ledger", r.slots("f"), "fired 1, skipped 2 overlap, fired 1")
		lines, err := queryLines(r.DB(), "SELECT first, last, count FROM segno_slots WHERE reason = 'overlap'")
		expect(t, "the skipped stretch", fmt.Sprint(lines, err), "[2000-01-01T00:01:00.000Z|2000-01-01T00:02:00.000Z|2] <nil>")
		time.Sleep(100 * time.Second)
		synctest.Wait()
	})
}

func TestMissedSlotsBehindAnOpenRunAreSkippedForOverlap(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		f := segno.Flow{ID: "f", Workflow: one(segno.Sleep[cargo](10*time.Hour, done)), Schedule: segno.Every(time.Hour)}
		b.start(f)
		synctest.Wait()
		b.stop()
		time.Sleep(210 * time.Minute)
		r := b.start(f)
		synctest.Wait()
		expect(t, "ledger", r.slots("f"), "fired 1, skipped 3 overlap")
		expect(t, "runs", len(r.runs("f")), 1)
	})
}

func TestATriggerBetweenSlotsLeavesTheGridAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var n slotNotes
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(time.Minute)})
		time.Sleep(30 * time.Second)
		r.completed(r.trigger("f", cargo{}))
		time.Sleep(40 * time.Second)
		synctest.Wait()
		expect(t, "runs", n.String(), "0s@0s manual@30s 1m0s@1m0s")
		expect(t, "run count", r.status("f").RunCount, 3)
	})
}

func TestAFixedDelayCountsFromTheEndOfTheLastRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(func(ctx context.Context, _ *cargo) (leg, error) {
			s.note(ctx)
			time.Sleep(200 * time.Millisecond)
			return done, nil
		}), Schedule: segno.FixedDelay(300 * time.Millisecond)})
		time.Sleep(1750 * time.Millisecond)
		synctest.Wait()
		expect(t, "gaps", s.gaps(), "500ms 500ms 500ms")
		expect(t, "schedule", r.status("f").Schedule, "fixed delay 300ms")
		r.trigger("f", cargo{}) // ends 200 ms from now: the next is 300 ms behind that
		time.Sleep(600 * time.Millisecond)
		synctest.Wait()
		expect(t, "gaps", s.gaps(), "500ms 500ms 500ms 250ms 500ms")
		time.Sleep(time.Second)
	})
}

func TestAFixedDelayGoesOnOverARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		f := segno.Flow{ID: "f", Workflow: flaky(&s, ""), Schedule: segno.FixedDelay(time.Hour)}
		b.start(f)
		synctest.Wait()
		b.kill()
		time.Sleep(40 * time.Minute)
		r := b.start(f)
		expect(t, "next run", r.status("f").NextRun, s.call(1).Add(time.Hour))
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		b.stop()
		time.Sleep(5 * time.Hour)
		b.start(f)
		synctest.Wait()
		expect(t, "gaps", s.gaps(), "1h0m0s 5h0m0s")
	})
}

func TestAFixedDelayWaitsForAnInterruptedRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		f := segno.Flow{ID: "f", Workflow: one(func(ctx context.Context, c *cargo) (leg, error) {
			if s.note(ctx); s.calls() == 1 {
				return hold(ctx, c)
			}
			time.Sleep(10 * time.Minute)
			return done, nil
		}), Schedule: segno.FixedDelay(time.Hour)}
		b.start(f)
		synctest.Wait()
		b.kill()
		time.Sleep(3 * time.Hour)
		r := b.start(f)
		time.Sleep(80*time.Minute + time.Second)
		synctest.Wait()
		expect(t, "gaps: the interrupted run goes on, and the next is behind its end", s.gaps(), "3h0m0s 1h10m0s")
		expect(t, "runs", len(r.runs("f")), 2)
	})
}

func TestARunTriggeredForLaterLeavesAFixedDelayAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: flaky(&s, ""), Schedule: segno.FixedDelay(time.Minute)})
		synctest.Wait()
		r.triggerWith("f", segno.Trigger{At: time.Now().Add(time.Hour)})
		time.Sleep(150 * time.Second)
		synctest.Wait()
		expect(t, "gaps", s.gaps(), "1m0s 1m0s")
	})
}

func TestAFixedDelayWaitsForTheGate(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(segno.Flow{
			ID: "f", Workflow: flaky(&s, "ff"), Schedule: segno.FixedDelay(time.Minute), Backoff: segno.BackoffPolicy{Initial: 45 * time.Second, Jitter: -1, Multiplier: 4},
		})
		time.Sleep(310 * time.Second)
		synctest.Wait()
		expect(t, "gaps", s.gaps(), "1m0s 3m0s 1m0s")
		expect(t, "streak", r.status("f").FailureStreak, 0)
	})
}

func TestACronHasNoInitialRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		time.Sleep(30 * time.Second)
		begin := time.Now()
		f := segno.Flow{ID: "f", Workflow: n.flow(begin), Schedule: segno.Cron("*/10 * * * *")}
		r := b.start(f)
		expect(t, "next run", r.status("f").NextRun, begin.Add(570*time.Second).UTC())
		time.Sleep(570 * time.Second)
		synctest.Wait()
		expect(t, "runs", n.String(), "9m30s@9m30s")
		b.kill()
		time.Sleep(35 * time.Minute) // it is 00:45: 00:20, 00:30 and 00:40 were missed
		r = b.start(f)
		synctest.Wait()
		expect(t, "runs", n.String(), "9m30s@9m30s 39m30s+2(19m30s)@44m30s")
		expect(t, "next run", r.status("f").NextRun, begin.Add(2970*time.Second).UTC())
		expect(t, "ledger", r.slots("f"), "fired 1, coalesced 2, fired 1")
	})
}

func TestALongRunOfASecondlyCronLeavesNoBurst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(func(ctx context.Context, _ *cargo) (leg, error) {
			if s.note(ctx); s.calls() == 1 {
				time.Sleep(3500 * time.Millisecond)
			}
			return done, nil
		}), Schedule: segno.Cron("* * * * * *")})
		time.Sleep(6500 * time.Millisecond)
		synctest.Wait()
		expect(t, "gaps", s.gaps(), "4s 1s")
		expect(t, "ledger", r.slots("f"), "fired 1, skipped 3 overlap, fired 1, fired 1")
	})
}

func TestAtFiresOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		begin := time.Now()
		soon := segno.Flow{ID: "soon", Workflow: n.flow(begin), Schedule: segno.At(begin.Add(time.Minute))}
		past := segno.Flow{ID: "past", Workflow: n.flow(begin), Schedule: segno.At(begin.Add(-time.Minute))}
		down := segno.Flow{ID: "down", Workflow: n.flow(begin), Schedule: segno.At(begin.Add(time.Hour))}
		b.start(soon, past, down)
		synctest.Wait()
		expect(t, "at the start", n.take(), "-1m0s@0s")
		time.Sleep(2 * time.Minute)
		expect(t, "a minute later", n.take(), "1m0s@1m0s")
		b.stop()
		time.Sleep(3 * time.Hour)
		b.start(soon, past, down)
		synctest.Wait()
		expect(t, "behind the downtime", n.take(), "1h0m0s@3h2m0s")
		r := b.restart(soon, past, down)
		time.Sleep(time.Minute)
		expect(t, "after another restart", n.take(), "")
		expect(t, "next run", r.status("soon").NextRun, time.Time{})
	})
}

func TestAChangedScheduleKeepsWhatIsKnownOfTheFlow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		flow := func(sc segno.Schedule) segno.Flow {
			return segno.Flow{ID: "f", Workflow: flaky(&s, "ff"), Schedule: sc, Backoff: segno.BackoffPolicy{Initial: 10 * time.Minute, Jitter: -1}}
		}
		begin := time.Now().UTC()
		b.start(flow(segno.Every(time.Hour)))
		synctest.Wait()
		b.stop()
		time.Sleep(2*time.Hour + time.Minute)

		// Slots at 1 h and 2 h were missed; the changed schedule drops them.
		r := b.start(flow(segno.Every(40 * time.Minute)))
		synctest.Wait()
		info := r.status("f")
		expect(t, "streak", info.FailureStreak, 1)
		expect(t, "window", info.NextEligible, begin.Add(10*time.Minute))
		expect(t, "run count", info.RunCount, 1)
		expect(t, "next run: the phase stays", info.NextRun, begin.Add(160*time.Minute))
		lines, err := queryLines(r.DB(), "SELECT flow, note FROM segno_events WHERE kind = 'schedule_changed'")
		expect(t, "event", fmt.Sprint(lines, err), "[f|every 1h0m0s → every 40m0s] <nil>")

		if err := r.PauseFlow(context.Background(), "f", segno.Pause{Note: "why"}); err != nil {
			t.Fatal(err)
		}
		r = b.restart(flow(segno.Cron("0 12 * * *")))
		info = r.status("f")
		expect(t, "streak", info.FailureStreak, 1)
		expect(t, "pause", info.PauseNote, "why")
		expect(t, "schedule", info.Schedule, "cron 0 12 * * *")
		r = b.restart(flow(segno.Schedule{}))
		expect(t, "next run of a manual flow", r.status("f").NextRun, time.Time{})
		expect(t, "streak", r.status("f").FailureStreak, 1)
		expect(t, "calls", s.calls(), 1)
	})
}

func TestAnUnchangedScheduleIsNotTouched(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		begin := time.Now().UTC()
		f := segno.Flow{ID: "f", Workflow: flaky(&s, ""), Schedule: segno.Every(time.Hour)}
		b.start(f)
		synctest.Wait()
		for i := range 5 {
			f.Backoff.StreakLimit, f.MaxPending = i, i // none of the schedule's business
			b.stop()
			time.Sleep(7 * time.Minute)
			r := b.start(f)
			expect(t, "next run", r.status("f").NextRun, begin.Add(time.Hour))
			lines, err := queryLines(r.DB(), "SELECT count(*) FROM segno_events WHERE kind = 'schedule_changed'")
			expect(t, "events", fmt.Sprint(lines, err), "[0] <nil>")
		}
	})
}

func TestAManualFlowThatBecomesAnIntervalStartsOnItsGrid(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		begin := time.Now()
		f := segno.Flow{ID: "f", Workflow: n.flow(begin)}
		b.start(f)
		b.stop()
		time.Sleep(90 * time.Minute)
		f.Schedule = segno.Every(time.Hour)
		b.start(f)
		time.Sleep(31 * time.Minute)
		expect(t, "runs", n.String(), "2h0m0s@2h0m0s")
	})
}

func TestAnIntervalOfAMillisecondKeepsUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: flaky(&s, ""), Schedule: segno.Every(time.Millisecond)})
		time.Sleep(40*time.Millisecond - time.Microsecond)
		synctest.Wait()
		expect(t, "calls", s.calls(), 40)
		expect(t, "run count", r.status("f").RunCount, 40)
	})
}

func TestManyFlowsShareOneDispatcher(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var calls tally
		var flows []segno.Flow
		for i := range 20 {
			flows = append(flows, segno.Flow{
				ID: fmt.Sprintf("f%02d", i), Schedule: segno.Every(time.Duration(i+1) * time.Second),
				Workflow: one(func(context.Context, *cargo) (leg, error) { calls.add("%d", i); return done, nil }),
			})
		}
		r := newBed(t).start(flows...)
		time.Sleep(10500 * time.Millisecond)
		synctest.Wait()
		said := " " + strings.Join(strings.Fields(calls.String()), "  ") + " "
		for i := range 20 {
			expect(t, fmt.Sprintf("runs of f%02d", i), strings.Count(said, fmt.Sprintf(" %d ", i)), 1+10/(i+1))
		}
		list, err := r.List(context.Background())
		if err != nil || len(list) != 20 || list[0].ID != "f00" || list[19].ID != "f19" {
			t.Errorf("List: got = %d flows, %v, want 20 in the order of registration", len(list), err)
		}
	})
}

func TestASlotNeverFiresAgainWhenTheClockIsSetBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		f := segno.Flow{ID: "f", Workflow: flaky(&s, ""), Schedule: segno.Every(time.Minute)}
		r := b.start(f)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		expect(t, "calls", s.calls(), 4)
		b.stepClock(-50 * time.Second)
		time.Sleep(90 * time.Second)
		synctest.Wait()
		expect(t, "calls while the clock repeats itself", s.calls(), 4)
		time.Sleep(90 * time.Second)
		synctest.Wait()
		expect(t, "calls when it is past the last slot", s.calls(), 6)
		expect(t, "ledger", r.slots("f"), "fired 1, fired 1, fired 1, fired 1, fired 1, fired 1")
	})
}

// An anchor may lie further back than a time.Duration reaches.
func TestAnIntervalKeepsItsGridOverCenturies(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		start := time.Date(1600, 1, 1, 0, 0, 30, 0, time.UTC)
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.Every(time.Minute), StartAt: start})
		begin := time.Now().UTC()
		time.Sleep(150 * time.Second)
		synctest.Wait()
		expect(t, "runs", len(r.runs("f")), 3)
		expect(t, "next run", r.status("f").NextRun, begin.Add(210*time.Second))
	})
}
