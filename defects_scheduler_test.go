package segno_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// holdsAt1 completes at once, unless the run's input says otherwise: 1 holds, 2
// fails.
func holdsAt1(ctx context.Context, c *cargo) (leg, error) {
	switch c.N {
	case 1:
		return hold(ctx, c)
	case 2:
		return fail(ctx, c)
	}
	return done, nil
}

func defectsOfTheScheduler() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"scheduler_2_stop_between_reserve_and_start": inRow(func(t *testing.T, b *bed) {
			f := many("f", one(hold))
			for range 5 {
				r := b.start(f)
				for range 3 {
					r.trigger("f", cargo{})
				}
				begin := time.Now()
				b.hurry() // no run is waited for
				expect(t, "the stop took", time.Since(begin), 0)
			}
			expect(t, "runs suspended", strings.Join(b.rows("SELECT status, crashes, count(*) FROM _segno_run GROUP BY 1, 2"), " "), "pending|0|15")
		}),
		"scheduler_5_no_run_stands_in_the_next_ones_way": inRow(func(t *testing.T, b *bed) {
			var said tally
			f := segno.Flow{ID: "f", Schedule: segno.Every(time.Minute), Backoff: segno.BackoffPolicy{Initial: -1}, Workflow: one(func(ctx context.Context, c *cargo) (leg, error) {
				switch said.add("x") {
				case 1: // fails with nothing to undo
					return "", errTest
				case 2, 3: // is cancelled, is stopped
					return hold(ctx, c)
				}
				return done, nil
			})}
			r := b.start(f)
			time.Sleep(90 * time.Second)
			if err := r.CancelFlow(context.Background(), "f"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			b.hurry()
			r = b.start(f)
			time.Sleep(time.Minute)
			synctest.Wait()
			expect(t, "slots", r.slots("f"), "fired 1, fired 1, fired 1, fired 1")
			var ends []string
			for _, run := range r.runs("f") {
				ends = append(ends, string(run.Status))
			}
			expect(t, "runs", strings.Join(ends, " "), "failed cancelled completed completed")
		}),
		"scheduler_7_status_behind_a_cancel_tells_of_the_window": inRow(func(t *testing.T, b *bed) {
			r := b.start(segno.Flow{ID: "f", Workflow: one(holdsAt1), Backoff: segno.BackoffPolicy{Initial: time.Hour, Jitter: -1}})
			r.ended(r.trigger("f", cargo{N: 2}), segno.RunFailed)
			before := r.status("f")
			id := r.trigger("f", cargo{N: 1})
			r.cancel(id)
			r.ended(id, segno.RunCancelled)
			after := r.status("f")
			expect(t, "status", after.Status, segno.StatusBackoff)
			expect(t, "streak", after.FailureStreak, 1)
			expect(t, "next eligible", after.NextEligible, before.NextEligible)
		}),
		"scheduler_8_idle_and_completed": inRow(func(t *testing.T, b *bed) {
			r := b.start(flowOf("f", one(holdsAt1)))
			expect(t, "of a new flow", r.status("f").Status, segno.StatusIdle)
			id := r.trigger("f", cargo{N: 1})
			r.cancel(id)
			r.ended(id, segno.RunCancelled)
			expect(t, "behind a cancelled first run", r.status("f").Status, segno.StatusIdle)
			r.completed(r.trigger("f", cargo{}))
			expect(t, "behind a clean end", r.status("f").Status, segno.StatusCompleted)
		}),
		"scheduler_10_clock_set_forward": inRow(func(t *testing.T, b *bed) {
			r := b.start(segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.Cron("0 9 * * *")})
			time.Sleep(time.Minute)
			expect(t, "runs before", len(r.runs("f")), 0)
			b.stepClock(9 * time.Hour)
			time.Sleep(10 * time.Second)
			synctest.Wait()
			expect(t, "runs within ten seconds", len(r.runs("f")), 1)
		}),
		"scheduler_11_extreme_policies": inRow(func(t *testing.T, b *bed) {
			for _, p := range []segno.BackoffPolicy{{Multiplier: math.NaN()}, {Multiplier: -1}, {Jitter: math.NaN()}} {
				f := flowOf("g", one(fail))
				f.Backoff = p
				expectError(t, "a policy that says nothing", segno.New("never-opened.db", segno.Options{}).Add(f), segno.ErrConfig)
			}
			for _, streak := range []int{2, 1 << 31, math.MaxInt} {
				p := segno.BackoffPolicy{Multiplier: math.Inf(1), MaxDelay: time.Hour, Jitter: -1}
				expect(t, fmt.Sprint("delay of streak ", streak), p.Delay(streak), time.Hour)
			}
			r := b.start(segno.Flow{ID: "f", Workflow: one(holdsAt1), Backoff: segno.BackoffPolicy{
				Initial: math.MaxInt64, MaxDelay: math.MaxInt64, Multiplier: math.MaxFloat64,
			}})
			for range 3 {
				r.ended(r.trigger("f", cargo{N: 2}), segno.RunFailed)
				expect(t, "status", r.status("f").Status, segno.StatusBackoff)
				expect(t, "the window is in the future", r.status("f").NextEligible.After(time.Now()), true)
			}
			r.completed(r.trigger("f", cargo{}))
		}),
		"scheduler_12_many_stops_at_once": inRow(func(t *testing.T, b *bed) {
			r := b.start(flowOf("f", one(func(context.Context, *cargo) (leg, error) { time.Sleep(time.Second); return done, nil })))
			r.trigger("f", cargo{})
			synctest.Wait()
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					if err := r.Stop(context.Background()); err != nil {
						t.Errorf("Stop: got error %v, want none", err)
					}
				})
			}
			all.Wait()
			b.run = nil
			expect(t, "the run", strings.Join(b.rows("SELECT status FROM _segno_run"), " "), "completed")
		}),
		"scheduler_14_a_stuck_step_hides_no_other": inRow(func(t *testing.T, b *bed) {
			release := make(chan struct{})
			r := b.start(many("f", one(func(ctx context.Context, c *cargo) (leg, error) {
				if c.N == 1 {
					<-release
				}
				time.Sleep(time.Second)
				return done, nil
			})))
			for _, n := range []int{1, 2, 1} {
				r.trigger("f", cargo{N: n})
			}
			synctest.Wait()
			stopped := make(chan error, 1)
			go func() { stopped <- r.Stop(context.Background()) }()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			expect(t, "runs while it stops", strings.Join(b.rows("SELECT status FROM _segno_run ORDER BY run"), " "), "running completed running")
			close(release)
			expectError(t, "Stop", <-stopped, nil)
			b.run = nil
		}),
	}
}

func defectsOfWorkflows() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"workflow_1_a_fault_is_not_remembered": inRow(func(t *testing.T, b *bed) {
			s := segno.New(b.path, b.opts)
			w := route{Initial: legA, Steps: legs{legA: {Do: to(done)}}}
			expectError(t, "without a final state", s.Manual("f", w), segno.ErrConfig)
			expectError(t, "another one", s.Manual("g", one(to(done))), nil)
			w.Steps[done] = segno.Step[leg, cargo]{Final: true}
			expectError(t, "the same one with it", s.Manual("f", w), nil)
			expectError(t, "once more", s.Manual("f", w), segno.ErrExists)
			run, err := s.Start(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			b.run = run
			r := &live{run, t}
			r.completed(r.trigger("f", cargo{}))
			list, err := r.List(context.Background())
			expect(t, "flows, in the order of their first registration", fmt.Sprintf("%d %s %s %v", len(list), list[0].ID, list[1].ID, err), "2 f g <nil>")
		}),
		"workflow_2_a_caller_that_leaves_changes_nothing": inRow(func(t *testing.T, b *bed) {
			var said tally
			r := b.start(flowOf("f", saga(2, &said, func(context.Context, *cargo) (leg, error) {
				time.Sleep(time.Minute)
				return "", errTest
			})))
			id := r.trigger("f", cargo{})
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_, err := r.WaitRun(ctx, id)
			expectError(t, "WaitRun", err, context.DeadlineExceeded)
			r.ended(id, segno.RunFailed)
			expect(t, "undone", said.String(), "s2:2 s1:1")
		}),
		"workflow_7_extreme_timeouts": inRow(func(t *testing.T, b *bed) {
			var said tally
			w := saga(1, &said, fail)
			w.Timeout, w.UndoTimeout = math.MaxInt64, math.MaxInt64
			change(w, "s1", func(s *segno.Step[leg, cargo]) { s.Timeout = math.MaxInt64 })
			r := b.start(flowOf("f", w))
			r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expect(t, "undone", said.String(), "s1:1")
		}),
	}
}
