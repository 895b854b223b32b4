package segno_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

func (l *live) pause(id string, p segno.Pause) {
	l.t.Helper()
	if err := l.PauseFlow(context.Background(), id, p); err != nil {
		l.t.Fatalf("PauseFlow(%q): got error %v, want none", id, err)
	}
}

func (l *live) resume(id string, o ...segno.Resume) {
	l.t.Helper()
	if err := l.ResumeFlow(context.Background(), id, o...); err != nil {
		l.t.Fatalf("ResumeFlow(%q): got error %v, want none", id, err)
	}
}

// goingOn are the ways in which a program goes on with what it was told: what
// was said to it must hold in each.
func goingOn() map[string]func(*bed, segno.Flow) *live {
	return map[string]func(*bed, segno.Flow) *live{
		"in one go": func(b *bed, _ segno.Flow) *live { return &live{b.run, b.t} },
		"stop":      func(b *bed, f segno.Flow) *live { b.stop(); return b.start(f) },
		"kill":      func(b *bed, f segno.Flow) *live { return b.restart(f) },
	}
}

func TestAPausedFlowsSlotsAreSkippedUntilItIsResumed(t *testing.T) {
	for name, between := range goingOn() {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var n slotNotes
				f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(time.Minute)}
				r := b.start(f)
				time.Sleep(90 * time.Second)
				r.pause("f", segno.Pause{Note: "for the audit", Actor: "ann"})
				info := r.status("f")
				expect(t, "Paused", info.Paused, true)
				expect(t, "PauseNote", info.PauseNote, "for the audit")
				expect(t, "PauseActor", info.PauseActor, "ann")
				expect(t, "NextRun", info.NextRun, time.Time{})
				between(b, f)
				time.Sleep(2 * time.Minute)
				r = between(b, f)
				expect(t, "Paused", r.status("f").Paused, true)
				expect(t, "PauseNote", r.status("f").PauseNote, "for the audit")
				time.Sleep(2 * time.Minute)
				r.resume("f")
				synctest.Wait()
				expect(t, "runs up to the resume: none at once", n.String(), "0s@0s 1m0s@1m0s")
				expect(t, "Paused after the resume", r.status("f").Paused, false)
				expect(t, "PauseNote after the resume", r.status("f").PauseNote, "")
				expect(t, "NextRun after the resume", r.status("f").NextRun, time.Now().Add(30*time.Second).UTC())
				time.Sleep(time.Minute)
				expect(t, "runs", n.String(), "0s@0s 1m0s@1m0s 6m0s@6m0s")
				expect(t, "ledger", r.slots("f"), "fired 1, fired 1, skipped 4 paused, fired 1")
			})
		})
	}
}

func TestAResumeWithCatchUpRunsOnceForAllThatPassed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		f := segno.Flow{ID: "f", Workflow: n.flow(time.Now()), Schedule: segno.Every(time.Hour)}
		r := b.start(f)
		synctest.Wait()
		r.pause("f", segno.Pause{})
		b.stop()
		time.Sleep(210 * time.Minute)
		r = b.start(f)
		r.resume("f", segno.Resume{CatchUp: true})
		synctest.Wait()
		expect(t, "runs", n.String(), "0s@0s 3h0m0s+2(1h0m0s)@3h30m0s")
		expect(t, "ledger", r.slots("f"), "fired 1, coalesced 2, fired 1")
	})
}

func TestAPauseEndsByItself(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		begin := time.Now()
		f := segno.Flow{ID: "f", Workflow: n.flow(begin), Schedule: segno.Every(time.Minute)}
		r := b.start(f)
		synctest.Wait()
		until := begin.Add(210 * time.Second)
		r.pause("f", segno.Pause{Until: until})
		expect(t, "PauseUntil", r.status("f").PauseUntil, until.UTC())
		expect(t, "NextRun", r.status("f").NextRun, time.Time{})
		time.Sleep(3 * time.Minute)
		expect(t, "Paused a moment before", r.status("f").Paused, true)
		time.Sleep(31 * time.Second)
		expect(t, "Paused a moment behind", r.status("f").Paused, false)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		expect(t, "runs", n.String(), "0s@0s 4m0s@4m0s")
		expect(t, "ledger", r.slots("f"), "fired 1, skipped 3 paused, fired 1")
		expect(t, "Paused", r.status("f").Paused, false)
		expect(t, "PauseUntil", r.status("f").PauseUntil, time.Time{})
	})
}

func TestAPauseEndsByItselfWhileTheProcessIsDown(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var n slotNotes
		begin := time.Now()
		f := segno.Flow{ID: "f", Workflow: n.flow(begin), Schedule: segno.Every(time.Hour)}
		r := b.start(f)
		synctest.Wait()
		r.pause("f", segno.Pause{Until: begin.Add(150 * time.Minute)})
		b.stop()
		time.Sleep(270 * time.Minute)
		r = b.start(f)
		synctest.Wait()
		expect(t, "runs: the slots in the pause do not count", n.String(), "0s@0s 4h0m0s+1(3h0m0s)@4h30m0s")
		expect(t, "ledger", r.slots("f"), "fired 1, skipped 2 paused, coalesced 1, fired 1")
	})
}

func TestAManualFlowsPauseEndsByItself(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(to(done))))
		r.pause("f", segno.Pause{Until: time.Now().Add(time.Minute)})
		expect(t, "Paused", r.status("f").Paused, true)
		time.Sleep(time.Minute)
		expect(t, "Paused behind its end", r.status("f").Paused, false)
	})
}

func TestASecondPauseReplacesTheFirst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(to(done)), Schedule: segno.Every(time.Minute)})
		r.pause("f", segno.Pause{Note: "first", Actor: "ann", Until: time.Now().Add(time.Hour)})
		r.pause("f", segno.Pause{Note: "second"})
		info := r.status("f")
		expect(t, "PauseNote", info.PauseNote, "second")
		expect(t, "PauseActor", info.PauseActor, "")
		expect(t, "PauseUntil", info.PauseUntil, time.Time{})
	})
}

func TestAPauseLeavesTheRunInFlightAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: s.failing(2), Retry: plain(3, time.Minute)})))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r.pause("f", segno.Pause{})
		r.completed(id)
		expect(t, "attempts: its retries go on", s.numbers(), "[1 2 3]")
	})
}

func TestAPauseCanCancelTheOpenRuns(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(hold), Overlap: segno.Allow(1)})
		running, pending := r.trigger("f", cargo{}), r.trigger("f", cargo{})
		r.pause("f", segno.Pause{CancelRuns: true})
		r.ended(running, segno.RunCancelled)
		r.ended(pending, segno.RunCancelled)
		expect(t, "Paused", r.status("f").Paused, true)
	})
}

func TestPausingUnknownFlowsIsErrNotFound(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		r := newBed(t).start(flowOf("f", one(to(done))))
		expectError(t, "PauseFlow", r.PauseFlow(ctx, "x", segno.Pause{}), segno.ErrNotFound)
		expectError(t, "ResumeFlow", r.ResumeFlow(ctx, "x"), segno.ErrNotFound)
		if err := r.ResumeFlow(ctx, "f"); err != nil {
			t.Errorf("ResumeFlow of a flow that is not paused: got error %v, want none", err)
		}
	})
}

func TestAPauseKeepsTheBackoffWindow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(segno.Flow{
			ID: "f", Workflow: flaky(&s, "f"), Schedule: segno.Every(time.Second), Backoff: segno.BackoffPolicy{Initial: time.Minute, Jitter: -1},
		})
		time.Sleep(1500 * time.Millisecond)
		r.pause("f", segno.Pause{})
		time.Sleep(10 * time.Second)
		r.resume("f")
		expect(t, "NextRun", r.status("f").NextRun, s.call(1).Add(time.Minute))
		time.Sleep(time.Minute)
		expect(t, "first gap", s.gap(1), time.Minute)
	})
}

func TestAPausedFixedDelayGoesOnWhenItIsResumed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: flaky(&s, ""), Schedule: segno.FixedDelay(time.Minute)})
		time.Sleep(30 * time.Second)
		r.pause("f", segno.Pause{})
		time.Sleep(10 * time.Minute)
		expect(t, "calls while paused", s.calls(), 1)
		r.resume("f")
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, "calls a minute behind the resume", s.calls(), 2)
	})
}

func TestAResumeAtTheVeryMomentOfASlotSkipsIt(t *testing.T) {
	for name, sc := range map[string]segno.Schedule{"every": segno.Every(time.Minute), "fixed delay": segno.FixedDelay(time.Minute)} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var s tries
				r := newBed(t).start(segno.Flow{ID: "f", Workflow: flaky(&s, ""), Schedule: sc})
				time.Sleep(30 * time.Second)
				r.pause("f", segno.Pause{})
				// The writer is busy when the slot comes, and finds the resume first.
				go func() {
					_ = r.Write(context.Background(), func(segno.Tx) error { time.Sleep(31 * time.Second); return nil })
				}()
				synctest.Wait()
				resumed := make(chan struct{})
				go func() { r.resume("f"); close(resumed) }()
				<-resumed
				time.Sleep(2 * time.Second)
				synctest.Wait()
				expect(t, "calls", s.calls(), 1)
				expect(t, "ledger", r.slots("f"), "fired 1, skipped 1 paused")
				time.Sleep(time.Minute)
				synctest.Wait()
				expect(t, "calls a minute later", s.calls(), 2)
			})
		})
	}
}
