package segno_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// Each of these was found by the model of the decisions, and shrunk.

func TestTheLastSlotsOfAFlowThatAreLostToItsGateGoOnRecord(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := checkedBed(t)
		f := segno.Flow{
			ID: "f", Workflow: one(fail), Schedule: segno.Every(time.Minute), EndAt: time.Now().Add(10 * time.Minute),
			Backoff: segno.BackoffPolicy{Initial: 20 * time.Minute, MaxDelay: time.Hour, Jitter: -1},
		}
		b.start(f)
		after(5 * time.Minute)
		r := b.restart(f)
		expect(t, "events of a restart", r.events("schedule_changed"), "")
		after(20 * time.Minute)
		expect(t, "ledger", r.book("f"), "0s fired, 1m0s×10 skipped backoff")
		expect(t, "next", r.status("f").NextRun, time.Time{})
	})
}

func TestASlotIsTriedAgainBehindAPauseThatHasEnded(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := checkedBed(t)
		slow := func(context.Context, *cargo) (leg, error) {
			time.Sleep(time.Minute)
			return "", errTest
		}
		r := b.start(segno.Flow{
			ID: "f", Workflow: one(slow), Schedule: segno.At(time.Now()), SlotRetries: 1, Backoff: segno.BackoffPolicy{Initial: time.Minute, Jitter: -1},
		})
		after(time.Second)
		if err := r.PauseFlow(context.Background(), "f", segno.Pause{Until: time.Now().Add(30 * time.Second)}); err != nil {
			t.Fatal(err)
		}
		after(65 * time.Second)
		expect(t, "streak", r.status("f").FailureStreak, 1)
		after(2 * time.Minute)
		expect(t, "streak after the gate", r.status("f").FailureStreak, 2)
	})
}

// At the gate's end the newest slot may still have to wait for its jitter: then
// the one before it fires instead of the one that failed.
func TestJitterKeepsNoSlotFromBeingTriedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := checkedBed(t)
		var flows []segno.Flow
		var calls [8]tries // of as many jitters
		for i := range calls {
			flows = append(flows, segno.Flow{
				ID: fmt.Sprint(i), Workflow: flaky(&calls[i], "f"), Schedule: segno.Every(time.Minute), Jitter: 25 * time.Second, SlotRetries: 1,
				Backoff: segno.BackoffPolicy{Initial: 2 * time.Minute, Jitter: -1},
			})
		}
		b.start(flows...)
		after(2*time.Minute + 25*time.Second)
		for i := range calls {
			if calls[i].calls() < 2 {
				t.Errorf("calls of %d: got = 1, want another one at the gate's end", i)
			}
		}
	})
}

func TestSlotsThatWaitForTheirTurnAreKeptWhenTheClockIsSetBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := checkedBed(t)
		f := segno.Flow{ID: "f", Workflow: one(hold), Schedule: segno.Every(time.Hour), Overlap: segno.Replace, CatchUp: segno.CatchUpAll(0)}
		b.start(f)
		after(5 * time.Minute)
		b.stop()
		after(3 * time.Hour)
		b.stepClock(30 * time.Hour)
		r := b.start(f) // slots wait for the run of the first one
		after(time.Second)
		r.trigger("f", cargo{}) // and for this one, which takes its place by the wrong clock
		after(time.Second)
		b.stepClock(0)
		after(15 * time.Second)
		expect(t, "ledger", r.book("f"), "0s fired")
		if err := r.CancelFlow(context.Background(), "f"); err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		expect(t, "ledger", r.book("f"), "0s fired, 1h0m0s fired")
	})
}
