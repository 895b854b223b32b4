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
)

// killer is a step that notes its call and then takes the process with it, as
// long as the test plays the process: it waits for the end.
func killer(said *tally, word string, alive *bool) do {
	return func(ctx context.Context, c *cargo) (leg, error) {
		said.add("%s", word)
		if *alive {
			return done, nil
		}
		return hold(ctx, c)
	}
}

func TestAnInterruptedRunGoesOnFromItsLastTransition(t *testing.T) {
	for name, stop := range map[string]func(*bed){"stop": (*bed).hurry, "kill": (*bed).kill} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var calls tally
				ok := false
				f := flowOf("f", route{Initial: legA, Steps: legs{
					legA: {Do: func(_ context.Context, c *cargo) (leg, error) { calls.add("a"); c.N = 1; return legB, nil }},
					legB: {Do: func(ctx context.Context, c *cargo) (leg, error) {
						calls.add("b%d", c.N)
						c.N = 99
						if !ok {
							return hold(ctx, c)
						}
						c.N = 2
						return legC, nil
					}},
					legC: {Do: func(_ context.Context, c *cargo) (leg, error) { calls.add("c%d", c.N); return done, nil }},
					done: {Final: true},
				}})
				r := b.start(f)
				id := r.trigger("f", cargo{})
				synctest.Wait()
				stop(b)
				ok = true
				r = b.start(f)
				r.completed(id)
				expect(t, "calls", calls.String(), "a b1 b1 c2")
				expect(t, "run count", r.status("f").RunCount, 1)
			})
		})
	}
}

// hurry stops the scheduler without patience.
func (b *bed) hurry() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.run.Stop(ctx); err != nil {
		b.t.Errorf("Stop: got error %v, want none", err)
	}
	b.run = nil
}

func TestAKeyIsTheSameOnEveryRetryAndResume(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		f := flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: func(ctx context.Context, c *cargo) (leg, error) {
				switch s.note(ctx); s.calls() {
				case 1:
					return "", errTest
				case 2, 3:
					return hold(ctx, c)
				}
				return done, nil
			},
			Retry: segno.Fixed(2, time.Millisecond),
		}))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		time.Sleep(time.Second)
		b.kill()
		b.start(f)
		synctest.Wait()
		b.hurry()
		r = b.start(f)
		r.completed(id)
		expect(t, "calls", s.calls(), 4)
		expect(t, "keys", len(s.keys), 1)
		for key := range s.keys {
			expect(t, "form of the key", strings.HasSuffix(key, "/1/a") && len(key) == 32+len("/1/a"), true)
		}
		r.completed(r.trigger("f", cargo{}))
		expect(t, "keys of two runs", len(s.keys), 2)
	})
}

func TestACrashIsJournalledAndClearedByTheEndOfItsVisit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		alive := false
		f := flowOf("f", route{Initial: legA, Steps: legs{
			legA: {Do: func(ctx context.Context, c *cargo) (leg, error) {
				if next, err := killer(&said, "a", &alive)(ctx, c); err != nil {
					return next, err
				}
				alive = false
				return legB, nil
			}},
			legB: {Do: killer(&said, "b", &alive)},
			done: {Final: true},
		}})
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.restart(f)
		synctest.Wait()
		r = b.restart(f)
		synctest.Wait()
		expect(t, "crashes", r.info(id).Crashes, 2)
		expect(t, "uncertain", r.info(id).Uncertain, true)
		b.kill()
		alive = true
		r = b.start(f)
		synctest.Wait()
		info := r.info(id)
		expect(t, "state", info.State, "b")
		expect(t, "crashes in the next visit", info.Crashes, 0)
		expect(t, "uncertain in the next visit", info.Uncertain, false)
		b.kill()
		alive = true
		r = b.start(f)
		r.completed(id)
		expect(t, "log", r.log(id), "enter a, crash a, crash a, crash a, enter b, crash b, end done")
		expect(t, "calls", said.String(), "a a a a b b")
		expect(t, "a crash's entry is uncertain", r.entries(id)[1].Uncertain, true)
		lines, err := queryLines(r.DB(), "SELECT count(*) FROM segno_events WHERE kind = 'takeover'")
		expect(t, "takeovers on record", fmt.Sprint(lines, err), "[4] <nil>")
	})
}

func TestACleanStopCountsNoCrash(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		alive := false
		f := flowOf("f", one(killer(&said, "a", &alive)))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		for range 10 {
			synctest.Wait()
			b.hurry()
			b.start(f)
		}
		synctest.Wait()
		b.hurry()
		alive = true
		r = b.start(f)
		r.completed(id)
		expect(t, "log", r.log(id), "enter a, end done")
		expect(t, "calls", said.len(), 12)
	})
}

func TestAVisitThatKillsTheProcessTooOftenFailsItsRun(t *testing.T) {
	for _, undoUncertain := range []bool{true, false} {
		t.Run(fmt.Sprint(undoUncertain), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t).with(segno.Options{MaxCrashes: 4})
				var said, undone tally
				alive := false
				w := uncertain(&undone, killer(&said, "x", &alive), undoUncertain, 0)
				r := b.start(flowOf("f", w))
				id := r.trigger("f", cargo{})
				for range 4 {
					time.Sleep(10 * time.Second)
					r = b.restart(flowOf("f", w))
				}
				e := r.ended(id, segno.RunFailed)
				expectError(t, "the run", e, segno.ErrCrashLoop)
				expect(t, "calls", said.len(), 4)
				expect(t, "State", e.State, "s2")
				want := "s1:1"
				if undoUncertain {
					want = "s2:1:true:2 s1:1"
				}
				expect(t, "undone", undone.String(), want)
				expect(t, "streak", r.status("f").FailureStreak, 1)
				r = b.restart(flowOf("f", w))
				expectError(t, "the run after a restart", r.ended(id, segno.RunFailed), segno.ErrCrashLoop)
			})
		})
	}
}

func TestAnUndoThatKillsTheProcessTooOftenIsAFailedUndo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{MaxCrashes: 3})
		var said, undone tally
		w := change(saga(3, &undone, fail), "s2", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(ctx context.Context, _ cargo) error { said.add("x"); <-ctx.Done(); return ctx.Err() }
		})
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		for range 3 {
			time.Sleep(10 * time.Second)
			r = b.restart(flowOf("f", w))
		}
		e := r.ended(id, segno.RunUndoFailed)
		expect(t, "undos that killed", said.len(), 3)
		expect(t, "undone", undone.String(), "s3:3 s1:1")
		expect(t, "failed undos", len(e.Undo), 1)
		expectError(t, "the failed undo", e.Undo[0], segno.ErrCrashLoop)
		expect(t, "Err", e.Err.Error(), errTest.Error())
	})
}

func TestRunsThatNeverStartedAgainAreNotCountedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{MaxConcurrent: 1})
		var said tally
		alive := false
		f := segno.Flow{ID: "f", Workflow: one(killer(&said, "x", &alive)), Overlap: segno.Allow(0)}
		b.opts.MaxConcurrent = 3
		r := b.start(f)
		ids := []segno.RunID{r.trigger("f", cargo{}), r.trigger("f", cargo{}), r.trigger("f", cargo{})}
		synctest.Wait()
		b.opts.MaxConcurrent = 1
		b.restart(f)
		synctest.Wait()
		r = b.restart(f) // only the oldest had started again
		synctest.Wait()
		for i, want := range []int{2, 1, 1} {
			expect(t, fmt.Sprintf("crashes of run %d", i+1), r.info(ids[i]).Crashes, want)
		}
	})
}

func TestSuspectsAreResumedLastAndOneByOne(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{MaxCrashes: 9})
		var said tally
		f := segno.Flow{ID: "f", Overlap: segno.Allow(0), Workflow: one(func(ctx context.Context, c *cargo) (leg, error) {
			said.add("%s@%v", c.Text, time.Now().Second())
			return hold(ctx, c)
		})}
		r := b.start(f)
		s1, s2 := r.trigger("f", cargo{Text: "s1"}), r.trigger("f", cargo{Text: "s2"})
		synctest.Wait()
		for range 3 {
			r = b.restart(f)
			synctest.Wait()
		}
		// Both have died three times with the process: suspects.
		innocent := r.trigger("f", cargo{Text: "i"})
		synctest.Wait()
		expect(t, "crashes of s1", r.info(s1).Crashes, 3)
		expect(t, "crashes of s2", r.info(s2).Crashes, 3)
		time.Sleep(2 * time.Second)
		said.take()
		time.Sleep(time.Minute - time.Duration(time.Now().Second())*time.Second)
		r = b.restart(f) // both are in flight as suspects: neither is blamed, i is counted, and the watch is doubled
		time.Sleep(10 * time.Second)
		expect(t, "who began when", said.take(), "i@0 s1@0 s2@2")
		expect(t, "crashes of s1", r.info(s1).Crashes, 3)
		expect(t, "crashes of s2", r.info(s2).Crashes, 3)
		expect(t, "crashes of i", r.info(innocent).Crashes, 1)
		time.Sleep(time.Minute - time.Duration(time.Now().Second())*time.Second)
		b.restart(f)
		time.Sleep(1500 * time.Millisecond)
		expect(t, "who began when, the watch doubled again", said.take(), "i@0 s1@0")
		r = b.restart(f) // now s1 alone was in flight as a suspect: it is blamed, and i is counted
		synctest.Wait()
		expect(t, "crashes of s1", r.info(s1).Crashes, 4)
		expect(t, "crashes of s2", r.info(s2).Crashes, 3)
		expect(t, "crashes of i", r.info(innocent).Crashes, 3)
		said.take()
		time.Sleep(10 * time.Second)
		b.hurry()
		lines := b.rows("SELECT suspect_for / 1000000 FROM _segno_owner")
		expect(t, "the watch in force", lines[0], "4")
		b.opts.SuspectFor = 0
		r = b.start(f) // a clean stop takes it back
		synctest.Wait()
		lines, err := queryLines(r.DB(), "SELECT suspect_for / 1000000 FROM _segno_owner")
		expect(t, "the watch after a clean stop", fmt.Sprint(lines, err), "[1] <nil>")
	})
}

func TestTheNextSuspectFollowsWhenTheOneBeforeHasFinishedItsVisit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{MaxCrashes: 9, SuspectFor: time.Hour})
		var said tally
		alive := false
		f := segno.Flow{ID: "f", Overlap: segno.Allow(0), Workflow: route{Initial: legA, Steps: legs{
			legA: {Do: func(ctx context.Context, c *cargo) (leg, error) {
				said.add("%s", c.Text)
				if !alive {
					return hold(ctx, c)
				}
				time.Sleep(time.Second)
				return legB, nil
			}},
			legB: {Do: segno.Sleep[cargo](10*time.Hour, done)},
			done: {Final: true},
		}}}
		r := b.start(f)
		for _, name := range []string{"s1", "s2", "s3"} {
			r.trigger("f", cargo{Text: name})
		}
		synctest.Wait()
		for range 2 {
			b.restart(f)
			synctest.Wait()
		}
		b.kill()
		said.take()
		alive = true
		b.start(f)
		synctest.Wait()
		expect(t, "at once", said.String(), "s1")
		time.Sleep(1500 * time.Millisecond)
		expect(t, "when its visit has ended", said.String(), "s1 s2")
		time.Sleep(time.Second)
		expect(t, "when the next has ended", said.String(), "s1 s2 s3")
		b.hurry()
	})
}

func TestASuspectThatWaitsForItsRetryIsNotForgotten(t *testing.T) {
	for name, undoing := range map[string]bool{"do": false, "undo": true} {
		for when, restart := range map[string]bool{"same process": false, "next process": true} {
			t.Run(name+" "+when, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					b := newBed(t).with(segno.Options{MaxCrashes: 9})
					var s tries
					alive := false
					unit := func(ctx context.Context) error {
						s.note(ctx)
						if !alive {
							<-ctx.Done()
							return ctx.Err()
						}
						if segno.InfoFrom(ctx).Attempt == 1 {
							return errTest
						}
						return nil
					}
					policy := plain(3, 10*time.Minute)
					step := segno.Step[leg, cargo]{Do: func(ctx context.Context, _ *cargo) (leg, error) { return done, unit(ctx) }, Retry: policy}
					w := oneStep(step)
					if undoing {
						w = route{Initial: legA, Steps: legs{
							legA: {Do: to(legB), Undo: func(ctx context.Context, _ cargo) error { return unit(ctx) }, UndoRetry: policy, Timeout: time.Minute},
							legB: {Do: fail},
							done: {Final: true},
						}}
					}
					f := flowOf("f", w)
					r := b.start(f)
					id := r.trigger("f", cargo{})
					for range 3 {
						synctest.Wait()
						b.restart(f)
					}
					b.kill()
					alive = true
					r = b.start(f)
					time.Sleep(2 * time.Second)
					synctest.Wait()
					expect(t, "attempt", r.info(id).Attempt, 2)
					if restart {
						b.stop()
						r = b.start(f)
					}
					time.Sleep(11 * time.Minute)
					synctest.Wait()
					info, _ := r.Run(context.Background(), id)
					expect(t, "ended", info.Status.Ended(), true)
				})
			})
		}
	}
}

func TestManyInterruptedRunsAreResumedOldestFirstUnderMaxConcurrent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var order tally
		running, most := 0, 0
		alive := false
		f := segno.Flow{ID: "f", Overlap: segno.Allow(0), Workflow: one(func(ctx context.Context, c *cargo) (leg, error) {
			if !alive {
				return hold(ctx, c)
			}
			order.mu.Lock()
			running++
			most = max(most, running)
			order.mu.Unlock()
			order.add("%d", c.N)
			time.Sleep(time.Second)
			order.mu.Lock()
			running--
			order.mu.Unlock()
			return done, nil
		})}
		r := b.start(f)
		var ids []segno.RunID
		for n := range 20 {
			ids = append(ids, r.trigger("f", cargo{N: n}))
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		b.kill()
		alive = true
		b.opts.MaxConcurrent = 3
		r = b.start(f)
		begin := time.Now()
		for _, id := range ids {
			r.completed(id)
		}
		expect(t, "most at a time", most, 3)
		expect(t, "took", time.Since(begin), 7*time.Second)
		words := strings.Fields(order.String())
		for i := range 20 { // three at a time, in order but for those three
			var n int
			_, _ = fmt.Sscan(words[i], &n)
			if n/3 != i/3 {
				t.Errorf("order of resumption: got = %v, want the oldest first", words)
				break
			}
		}
	})
}

func TestFlowsThatAreNotRegisteredAnyMoreAreKeptAsOrphans(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		ctx := context.Background()
		var said tally
		alive := false
		f := flowOf("f", one(to(done)))
		gone := segno.Flow{
			ID: "gone", Overlap: segno.Allow(0), Schedule: segno.Every(time.Hour), SkipFirst: true,
			Workflow: saga(1, &said, func(ctx context.Context, c *cargo) (leg, error) {
				switch {
				case c.Text == "late" && segno.InfoFrom(ctx).Visit == 2:
					c.Text = "woken"
					return "", segno.Snooze(time.Hour)
				case c.Text == "dirty":
					return "", errTest
				case c.Text == "hang" && !alive:
					return hold(ctx, c)
				}
				return done, nil
			}),
		}
		change(gone.Workflow.(route), "s1", func(s *segno.Step[leg, cargo]) {
			s.UndoRetry = plain(2, 2*time.Hour)
			s.Undo = func(ctx context.Context, _ cargo) error {
				if segno.InfoFrom(ctx).Attempt == 1 {
					return errTest
				}
				said.add("undone")
				return nil
			}
		})
		r := b.start(f, gone)
		inFlight, parked, undoing := r.trigger("gone", cargo{Text: "hang"}), r.trigger("gone", cargo{Text: "late"}), r.trigger("gone", cargo{Text: "dirty"})
		later := r.triggerWith("gone", segno.Trigger{At: time.Now().Add(3 * time.Hour)})
		synctest.Wait()
		b.kill()

		r = b.start(f)
		synctest.Wait()
		info := r.status("gone")
		expect(t, "Orphaned", info.Orphaned, true)
		expect(t, "OrphanedSince", info.OrphanedSince, time.Now().UTC())
		expect(t, "NextRun", info.NextRun, time.Time{})
		list, err := r.List(ctx)
		if err != nil || len(list) != 2 || list[0].ID != "f" || list[1].ID != "gone" {
			t.Errorf("List: got = %v, %v, want f and gone", list, err)
		}
		_, err = r.Trigger(ctx, "gone", segno.Trigger{})
		expectError(t, "Trigger", err, segno.ErrNotFound)
		expect(t, "the run in flight at its turn", r.info(inFlight).Status, segno.RunStuck)
		expect(t, "its reason", r.info(inFlight).StuckReason, "orphaned")
		expect(t, "the parked run before its turn", r.info(parked).Status, segno.RunParked)
		_, err = r.WaitRun(ctx, inFlight)
		expectError(t, "WaitRun", err, segno.ErrStuck)

		waited := make(chan error, 1)
		go func() { _, err := r.WaitRun(ctx, parked); waited <- err }()
		time.Sleep(time.Hour)
		synctest.Wait()
		expect(t, "the parked run at its turn", r.info(parked).Status, segno.RunStuck)
		expectError(t, "WaitRun of who waited for it", <-waited, segno.ErrStuck)
		time.Sleep(time.Hour)
		synctest.Wait()
		expect(t, "the rollback at its turn", r.info(undoing).Status, segno.RunStuck)
		expect(t, "the pending run before its turn", r.info(later).Status, segno.RunPending)
		expect(t, "stuck runs of the flow", r.status("gone").Stuck, 3)
		b.stop()
		time.Sleep(time.Hour)

		alive = true
		r = b.start(f, gone) // it is back
		for _, id := range []segno.RunID{inFlight, parked, later} {
			r.completed(id)
		}
		r.ended(undoing, segno.RunFailed)
		expect(t, "undone", said.String(), "undone")
		expect(t, "log of the rollback", r.log(undoing), "enter s1, enter s2, rollback s2, retry s1, stuck s2, undone s1, end s2")
		info = r.status("gone")
		expect(t, "Orphaned", info.Orphaned, false)
		expect(t, "Stuck", info.Stuck, 0)
		expect(t, "slots meanwhile", r.slots("gone"), "skipped 3 orphaned")
	})
}

func TestEverythingKnownOfAFlowOutlivesARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		f := segno.Flow{ID: "f", Workflow: flaky(&s, "fff"), Schedule: segno.Every(time.Hour), Backoff: segno.BackoffPolicy{Initial: 5 * time.Hour}}
		r := b.start(f)
		time.Sleep(time.Second)
		r.pause("f", segno.Pause{Note: "note", Actor: "ann", Until: time.Now().Add(100 * time.Hour)})
		before := r.status("f")
		r = b.restart(f)
		expect(t, "Status after a kill", fmt.Sprintf("%+v", r.status("f")), fmt.Sprintf("%+v", before))
		b.stop()
		r = b.start(f)
		expect(t, "Status after a stop", fmt.Sprintf("%+v", r.status("f")), fmt.Sprintf("%+v", before))
	})
}

func TestACommitThatFailsIsTheEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var causes tally
		f := flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
			<-ctx.Done()
			causes.add("%v", errors.Is(context.Cause(ctx), segno.ErrStoreFailed))
			return "", ctx.Err()
		}))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.kill()
		expect(t, "cause of the step's context is the failure", causes.String(), "true")
		_, err := r.Trigger(context.Background(), "f", segno.Trigger{})
		expectError(t, "Trigger", err, segno.ErrStoreFailed)
		_, err = r.Status(context.Background(), "f")
		expectError(t, "Status", err, segno.ErrStoreFailed)
		_, err = r.WaitRun(context.Background(), id)
		expectError(t, "WaitRun", err, segno.ErrStoreFailed)
		expectError(t, "Wait", r.Wait(), segno.ErrStoreFailed)
		expectError(t, "Stop", r.Stop(context.Background()), segno.ErrStoreFailed)
		expect(t, "Health", r.Health(context.Background()), segno.Unhealthy)
		r = b.start(f)
		synctest.Wait()
		expect(t, "status after a new start", r.info(id).Status, segno.RunRunning)
		b.hurry()
	})
}
