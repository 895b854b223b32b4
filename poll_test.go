package segno_test

import (
	"context"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

func TestToleratedErrorsMayAskForTheirOwnWait(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		answers := []error{errTest, segno.RetryAfter(errTest, time.Minute), segno.Snooze(time.Hour),
			segno.RetryAfter(errTest, 0), segno.RetryAfter(errTest, 2*time.Second), nil}
		r := newBed(t).start(flowOf("f", one(segno.Poll(func(ctx context.Context, _ *cargo) (leg, time.Duration, error) {
			s.note(ctx)
			return done, 0, answers[s.calls()-1]
		}, segno.PollOptions{Tolerate: 2}))))
		r.completed(r.trigger("f", cargo{}))
		expect(t, "gaps: a snooze is no error, and forgives those before it", s.gaps(), "1s 1m0s 1h0m0s 1ms 2s")
	})
}

func TestAPermanentErrorIsNotTolerated(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: segno.Poll(func(ctx context.Context, _ *cargo) (leg, time.Duration, error) {
				s.note(ctx)
				return "", 0, segno.Permanent(errTest)
			}, segno.PollOptions{Tolerate: 2}),
			Retry: plain(3, time.Second),
		})))
		e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "polls", s.calls(), 1)
		expect(t, "Err", e.Err.Error(), errTest.Error())
	})
}
