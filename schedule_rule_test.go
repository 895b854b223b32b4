package segno_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/segnotest"
)

// A trigger, whatever the flow's status. It moves neither cursor nor grid.
func TestScheduleS8(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		flow segno.Flow
		do   func(*live)
		want error
	}{
		"idle":               {segno.Flow{Workflow: one(to(done))}, func(*live) {}, nil},
		"running, Skip":      {segno.Flow{Workflow: one(hold)}, func(r *live) { r.begun() }, segno.ErrRunning},
		"running, Allow":     {segno.Flow{Workflow: one(hold), Overlap: segno.Allow(2)}, func(r *live) { r.begun() }, nil},
		"running, Replace":   {segno.Flow{Workflow: one(hold), Overlap: segno.Replace}, func(r *live) { r.begun() }, nil},
		"backoff":            {segno.Flow{Workflow: one(fail), Backoff: closedFor(time.Hour)}, func(r *live) { r.fails() }, nil},
		"tripped":            {segno.Flow{Workflow: one(fail), Backoff: segno.BackoffPolicy{StreakLimit: 1}}, func(r *live) { r.fails() }, segno.ErrTripped},
		"paused":             {segno.Flow{Workflow: one(to(done))}, func(r *live) { r.pause("f", segno.Pause{}) }, nil},
		"the last slot gone": {segno.Flow{Workflow: one(to(done)), MaxRuns: 1}, func(*live) {}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := checkedBed(t)
				f := c.flow
				f.ID, f.Schedule = "f", segno.Cron("0 * * * *")
				r := b.start(f)
				c.do(r)
				paused, count := r.status("f").Paused, len(r.runs("f"))
				_, err := r.Trigger(ctx, "f", segno.Trigger{})
				if !errors.Is(err, c.want) {
					t.Errorf("Trigger: got error %v, want %v", err, c.want)
				}
				if after(time.Minute); c.want == nil {
					count++
				}
				expect(t, "runs", len(r.runs("f")), count)
				expect(t, "paused as before", r.status("f").Paused, paused)
				expect(t, "ledger", r.book("f"), "")
			})
		})
	}
	t.Run("closing", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			b := checkedBed(t)
			r := b.start(flowOf("f", one(to(done))))
			b.stop()
			_, err := r.Trigger(ctx, "f", segno.Trigger{})
			expectError(t, "Trigger", err, segno.ErrStopped)
			b.start(flowOf("f", one(to(done))))
		})
	})
}

func TestScheduleS9(t *testing.T) {
	paused := func(t *testing.T, between func(*bed, segno.Flow) *live, o ...segno.Resume) (*live, *slotNotes) {
		b := checkedBed(t)
		n := new(slotNotes)
		f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(time.Hour), CatchUp: segno.CatchUpAll(0)}
		r := b.start(f)
		after(30 * time.Minute)
		r.pause("f", segno.Pause{Note: "audit"})
		r = between(b, f)
		after(2 * time.Hour)
		r.resume("f", o...)
		after(time.Minute)
		return r, n
	}
	stay := func(b *bed, _ segno.Flow) *live { return &live{b.run, b.t} }
	inTimes(t, map[string]func(t *testing.T){
		"no run at once behind it": func(t *testing.T) {
			r, n := paused(t, stay)
			expect(t, "runs", n.String(), "0s@0s")
			expect(t, "ledger", r.book("f"), "0s fired, 1h0m0s×2 skipped paused")
			expect(t, "next", r.next("f"), 3*time.Hour)
		},
		"outlives a change of the schedule": func(t *testing.T) {
			r, _ := paused(t, func(b *bed, f segno.Flow) *live {
				f.Schedule = segno.Cron("30 * * * *")
				r := b.restart(f)
				expect(t, "note", r.status("f").PauseNote, "audit")
				return r
			})
			expect(t, "next", r.next("f"), 3*time.Hour+30*time.Minute)
		},
	})
}

// replaced is a flow whose runs do something, take ten minutes and undo in one.
func replaced(said *tally) segno.Flow {
	note := func(ctx context.Context, what string) {
		said.add("%s%d@%v", what, segno.InfoFrom(ctx).Run, segnotest.Now())
	}
	return segno.Flow{ID: "f", Overlap: segno.Replace, Workflow: route{Initial: legA, Steps: legs{
		legA: {
			Do: func(ctx context.Context, _ *cargo) (leg, error) { note(ctx, "do"); return legB, nil },
			Undo: func(ctx context.Context, _ cargo) error {
				note(ctx, "undo")
				return sweepRest(ctx, 20*time.Second)
			},
		},
		legB: {Do: func(ctx context.Context, _ *cargo) (leg, error) { return done, sweepRest(ctx, 10*time.Minute) }},
		done: {Final: true},
	}}}
}

func TestScheduleS10(t *testing.T) {
	inTimes(t, map[string]func(t *testing.T){
		"a slot replaces the open run, behind its rollback": func(t *testing.T) {
			b := checkedBed(t)
			var said tally
			f := replaced(&said)
			f.Schedule = segno.Every(5 * time.Minute)
			r := b.start(f)
			after(7 * time.Minute)
			expect(t, "said", said.String(), "do1@0s undo1@5m0s do2@5m20s")
			expect(t, "tries", r.slotTries("f"), "0s#0 cancelled, 5m0s#0 running")
			expect(t, "ledger", r.book("f"), "0s fired, 5m0s fired")
			expect(t, "streak", r.status("f").FailureStreak, 0)
		},
		"the newest of several wins": func(t *testing.T) {
			b := checkedBed(t)
			var said tally
			r := b.start(replaced(&said))
			first := r.begun()
			second, third, fourth := r.trigger("f", cargo{}), r.trigger("f", cargo{}), r.trigger("f", cargo{})
			r.completed(fourth)
			for _, id := range []segno.RunID{first, second, third} {
				r.ended(id, segno.RunCancelled)
			}
			expect(t, "said", said.String(), fmt.Sprintf("do1@0s undo1@0s do%d@20s", fourth))
		},
		"over a restart": func(t *testing.T) {
			b := checkedBed(t)
			var said tally
			f := replaced(&said)
			r := b.start(f)
			first := r.begun()
			second := r.trigger("f", cargo{})
			after(10 * time.Second)
			r = b.restart(f)
			r.ended(first, segno.RunCancelled)
			r.completed(second)
			expect(t, "said", said.String(), "do1@0s undo1@0s undo1@10s do2@30s")
		},
		"MaxPending holds, and then nothing is cancelled": func(t *testing.T) {
			b := checkedBed(t)
			var said tally
			f := replaced(&said)
			f.MaxPending = 1
			r := b.start(f)
			r.begun()
			second := r.trigger("f", cargo{})
			_, err := r.Trigger(context.Background(), "f", segno.Trigger{})
			expectError(t, "Trigger", err, segno.ErrBusy)
			r.completed(second)
		},
	})
}

func TestScheduleS11(t *testing.T) {
	start := func(t *testing.T, f segno.Flow, down time.Duration, change func(*segno.Flow)) *live {
		b := checkedBed(t)
		f.ID, f.Workflow = "f", one(to(done))
		b.start(f)
		after(time.Minute)
		b.stop()
		time.Sleep(down)
		change(&f)
		r := b.start(f)
		after(0)
		return r
	}
	inTimes(t, map[string]func(t *testing.T){
		"missed slots of the old one are dropped": func(t *testing.T) {
			r := start(t, hourly(), 3*time.Hour, func(f *segno.Flow) { f.Schedule = segno.Cron("30 * * * *") })
			expect(t, "ledger", r.book("f"), "0s fired, 1h0m0s×3 skipped schedule_changed")
			expect(t, "next", r.next("f"), 3*time.Hour+30*time.Minute)
		},
		"an interval keeps its phase": func(t *testing.T) {
			r := start(t, hourly(), 89*time.Minute, func(f *segno.Flow) { f.Schedule = segno.Every(25 * time.Minute) })
			expect(t, "next", r.next("f"), 100*time.Minute)
		},
		"what is no business of the schedule changes nothing": func(t *testing.T) {
			r := start(t, hourly(), 3*time.Hour, func(f *segno.Flow) {
				f.CatchUp, f.Overlap, f.Backoff, f.SlotRetries, f.Jitter = segno.CatchUpAll(1), segno.Allow(1), closedFor(time.Hour), 1, time.Nanosecond
			})
			expect(t, "events", r.events("schedule_changed"), "")
			expect(t, "ledger", r.book("f"), "0s fired, 1h0m0s×2 skipped catchup_cap, 3h0m0s fired")
		},
		"an end that is put off has missed nothing": func(t *testing.T) {
			f := hourly()
			f.EndAt = segnotest.Epoch.Add(time.Second)
			r := start(t, f, 3*time.Hour, func(f *segno.Flow) { f.EndAt = time.Time{} })
			expect(t, "ledger", r.book("f"), "0s fired, 1h0m0s×3 skipped schedule_changed")
		},
		"nor has a raised MaxRuns": func(t *testing.T) {
			f := hourly()
			f.MaxRuns = 1
			r := start(t, f, 3*time.Hour, func(f *segno.Flow) { f.MaxRuns = 2 })
			expect(t, "ledger", r.book("f"), "0s fired, 1h0m0s×3 skipped schedule_changed")
			expect(t, "next", r.next("f"), 4*time.Hour)
		},
	})
}

func TestScheduleS12(t *testing.T) {
	inTimes(t, map[string]func(t *testing.T){
		"slots of an orphan are its own schedule's, up to its end": func(t *testing.T) {
			b := checkedBed(t)
			f := segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.Every(time.Hour), EndAt: segnotest.Epoch.Add(3 * time.Hour)}
			b.start(f)
			after(time.Minute)
			r := b.restart(flowOf("other", one(to(done))))
			expect(t, "orphaned", r.status("f").Orphaned, true)
			b.stop()
			time.Sleep(5 * time.Hour)
			f.Schedule, f.RunOnStart = segno.Cron("0 12 * * *"), true
			f.EndAt = segnotest.Epoch.Add(36 * time.Hour)
			r = b.start(f)
			after(0)
			expect(t, "orphaned", r.status("f").Orphaned, false)
			expect(t, "ledger", r.book("f"), "0s fired, 1h0m0s×5 skipped orphaned")
			expect(t, "next", r.next("f"), 12*time.Hour)
		},
	})
}

// A run whose state is unknown, or whose version, is stuck; the flow goes on.
func TestScheduleS13(t *testing.T) {
	goesOnBesideStuck(t, func(w *route) { delete(w.Steps, legA); w.Initial = legB })
}

func TestScheduleS14(t *testing.T) { goesOnBesideStuck(t, func(w *route) { w.Version++ }) }

func goesOnBesideStuck(t *testing.T, change func(w *route)) {
	for _, serial := range []bool{false, true} {
		t.Run(fmt.Sprint("Serial ", serial), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := checkedBed(t)
				f := segno.Flow{ID: "f", Workflow: one(hold), Schedule: segno.Every(time.Hour), Serial: serial, CatchUp: segno.CatchUpAll(0)}
				b.start(f)
				after(time.Minute)
				b.kill()
				w := route{Initial: legA, Steps: legs{legA: {Do: to(done)}, legB: {Do: to(done)}, done: {Final: true}}}
				change(&w)
				f.Workflow = w
				r := b.start(f)
				after(time.Hour)
				want := "0s#0 stuck, 1h0m0s#0 completed"
				if serial {
					want = "0s#0 stuck"
				}
				expect(t, "tries", r.slotTries("f"), want)
			})
		})
	}
}

func TestScheduleS15(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := checkedBed(t)
		var n slotNotes
		f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(time.Hour)}
		b.start(f)
		after(time.Minute)
		_, err := segno.New(b.path, segno.Options{}).Start(context.Background())
		expectError(t, "a second owner", err, segno.ErrLocked)
		b.stepClock(48 * time.Hour) // the lock needs no clock
		_, err = segno.New(b.path, segno.Options{}).Start(context.Background())
		expectError(t, "a second owner, behind a step", err, segno.ErrLocked)
		b.stepClock(0)
		after(11 * time.Second)
		expect(t, "each slot fired once", strings.Count(n.String(), " 1h0m0s@"), 0)
	})
}

// jittered says when slots of a flow with jitter ran, over restarts if asked to.
func jittered(t *testing.T, id string, restarts bool) (said string) {
	synctest.Test(t, func(t *testing.T) {
		b := checkedBed(t)
		var n tally
		f := segno.Flow{ID: id, Jitter: time.Hour, Schedule: segno.Every(10 * time.Minute), Workflow: one(func(ctx context.Context, _ *cargo) (leg, error) {
			slot := segno.InfoFrom(ctx).Slot.Sub(segnotest.Epoch)
			late := segnotest.Now() - slot
			if n.add("%v+%v", slot, late); late >= 5*time.Minute {
				t.Errorf("slot %v: got %v late, want less than half of the way to the next", slot, late)
			}
			return done, nil
		})}
		b.start(f)
		for range 5 {
			if after(9 * time.Minute); restarts {
				b.restart(f)
			}
		}
		said = n.String()
	})
	return said
}

func TestScheduleS16Jitter(t *testing.T) {
	t.Parallel()
	said := jittered(t, "f", false)
	for i, line := range strings.Fields(said) {
		if want := fmt.Sprintf("%v+", time.Duration(i)*10*time.Minute); !strings.HasPrefix(line, want) || line == want+"0s" {
			t.Errorf("slot %d: got = %s, want %s and some jitter", i, line, want)
		}
	}
	expect(t, "slots", len(strings.Fields(said)), 5)
	expect(t, "over restarts", jittered(t, "f", true), said)
	expect(t, "another flow has the same", jittered(t, "g", false) == said, false)
}

func TestScheduleS16(t *testing.T) {
	inTimes(t, map[string]func(t *testing.T){
		"jitter counts neither as lateness nor as a miss": func(t *testing.T) {
			b := checkedBed(t)
			var n slotNotes
			r := b.start(segno.Flow{
				ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(time.Hour), Jitter: time.Hour, MaxLateness: time.Microsecond, CatchUp: segno.CatchUpSkip,
			})
			after(5 * time.Hour)
			expect(t, "skipped", strings.Count(r.book("f"), "skipped"), 0)
			expect(t, "fired", strings.Count(r.book("f"), "fired") >= 5, true)
		},
		"a slot beyond its jitter is missed": func(t *testing.T) {
			b := checkedBed(t)
			f := segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.Every(time.Hour), Jitter: 2 * time.Minute, CatchUp: segno.CatchUpSkip, SkipFirst: true}
			r := b.start(f)
			at := r.next("f")
			b.stop()
			time.Sleep(at + 1500*time.Millisecond)
			r = b.start(f)
			after(0)
			expect(t, "ledger", r.book("f"), "1h0m0s skipped missed")
		},
		"bounds are inclusive": func(t *testing.T) {
			b := checkedBed(t)
			var every, cron slotNotes
			begin := time.Now()
			first, last := begin.Add(10*time.Minute), begin.Add(30*time.Minute)
			r := b.start(
				segno.Flow{ID: "every", Workflow: every.flow(begin), Schedule: segno.Every(10 * time.Minute), StartAt: first, EndAt: last},
				segno.Flow{ID: "cron", Workflow: cron.flow(begin), Schedule: segno.Cron("*/10 * * * *"), StartAt: first, EndAt: last},
			)
			after(time.Hour)
			expect(t, "every", every.String(), "10m0s@10m0s 20m0s@20m0s 30m0s@30m0s")
			expect(t, "cron", cron.String(), "10m0s@10m0s 20m0s@20m0s 30m0s@30m0s")
			expect(t, "next", r.next("every"), -1)
		},
		"bounds that leave no slot": func(t *testing.T) {
			s := builder()
			for _, f := range []segno.Flow{
				{Schedule: segno.At(day(2, 0)), StartAt: day(3, 0)}, {Schedule: segno.At(day(2, 0)), EndAt: day(1, 0)},
				{Schedule: segno.Cron("0 9 * * *"), StartAt: day(2, 10), EndAt: day(3, 8)},
			} {
				f.ID, f.Workflow = "f", one(to(done))
				expectError(t, "Add", s.Add(f), segno.ErrNeverFires)
			}
		},
		"MaxRuns counts slots that fired, and nothing else": func(t *testing.T) {
			b := checkedBed(t)
			var n slotNotes
			f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(10 * time.Minute), MaxRuns: 3}
			r := b.start(f)
			after(time.Minute)
			r.completed(r.trigger("f", cargo{}))
			r.pause("f", segno.Pause{})
			after(20 * time.Minute)
			r.resume("f")
			r = b.restart(f)
			after(time.Hour)
			expect(t, "runs", n.String(), "0s@0s manual@1m0s 30m0s@30m0s 40m0s@40m0s")
			expect(t, "next", r.next("f"), -1)
		},
	})
}
