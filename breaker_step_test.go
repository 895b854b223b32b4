package segno_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// guardedStep fails with the breaker before it as often as said.
func guardedStep(b *segno.Breaker, s *tries, retry segno.Retry) route {
	return oneStep(segno.Step[leg, cargo]{Do: s.failing(99), Breaker: b, Retry: retry})
}

func TestAnOpenBreakerFailsTheVisitAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		b := newBed(t)
		br := &segno.Breaker{Failures: 2}
		f := flowOf("f", guardedStep(br, &s, plain(5, 100*time.Millisecond)))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		for _, when := range []string{"before", "after"} {
			e := r.ended(id, segno.RunFailed)
			expectError(t, "the run "+when+" the restart", e, segno.ErrCircuitOpen)
			expect(t, "the text "+when+" the restart names what opened it", contains(e.Error(), "until 2000-01-01T00:00:30.1Z", "in attempt 2"), true)
			expect(t, "cause "+when+" the restart", r.info(id).Cause, "circuit_open")
			r = b.restart(f)
		}
		expect(t, "calls", s.calls(), 2)
		expect(t, "log", r.log(id), "enter a, retry a, retry a, end a")
	})
}

func TestABreakerClosesThroughTheStep(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		br := &segno.Breaker{Failures: 2, Reset: time.Second}
		step := segno.Step[leg, cargo]{Do: s.failing(2), Breaker: br, Retry: segno.Fixed(5, 10*time.Second)}
		r := newBed(t).start(flowOf("f", oneStep(step)))
		r.completed(r.trigger("f", cargo{}))
		expect(t, "calls", s.calls(), 3)
		expectBreaker(t, "after the probe has succeeded", br, segno.BreakerClosed)
	})
}

func TestASharedBreakerStopsTheOthers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		br := &segno.Breaker{Failures: 1}
		called := false
		r := newBed(t).start(
			flowOf("f", oneStep(segno.Step[leg, cargo]{Do: fail, Breaker: br})),
			flowOf("g", oneStep(segno.Step[leg, cargo]{Breaker: br, Do: func(context.Context, *cargo) (leg, error) { called = true; return done, nil }})),
		)
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expectError(t, "the run of g", r.ended(r.trigger("g", cargo{}), segno.RunFailed), segno.ErrCircuitOpen)
		expect(t, "g was called", called, false)
	})
}

func TestTimeoutsAreFailuresForTheBreaker(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		br := &segno.Breaker{Failures: 2}
		calls := 0
		step := segno.Step[leg, cargo]{Breaker: br, Timeout: time.Second, Retry: plain(5, time.Millisecond), Do: func(ctx context.Context, c *cargo) (leg, error) {
			calls++
			return hold(ctx, c)
		}}
		r := newBed(t).start(flowOf("f", oneStep(step)))
		e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expectError(t, "the run", e, segno.ErrCircuitOpen)
		expect(t, "calls", calls, 2)
		expect(t, "the text names the timeout", contains(e.Error(), "attempt timed out"), true)
	})
}

// An attempt that outlives its timeout is a failure at that moment, not when its
// goroutine comes back, if it ever does.
func TestAHangingAttemptIsAFailureWhenItsTimeIsUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		br := &segno.Breaker{Failures: 1}
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Breaker: br, Timeout: time.Second, Do: deaf(20*time.Second, done, nil)})))
		id := r.trigger("f", cargo{})
		time.Sleep(time.Second - time.Nanosecond)
		expectBreaker(t, "before the timeout", br, segno.BreakerClosed)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		expectBreaker(t, "at the timeout", br, segno.BreakerOpen)
		r.ended(id, segno.RunFailed)
	})
}

func TestPanicsAreFailuresForTheBreakerAndKeepTheirStack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		br := &segno.Breaker{Failures: 1}
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Breaker: br, Do: func(context.Context, *cargo) (leg, error) { panic("boom") }})))
		e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expectError(t, "the run", e, segno.ErrPanic)
		expect(t, "the stack leads to the step", contains(e.Error(), "boom", "breaker_step_test.go"), true)
		expectBreaker(t, "after the panic", br, segno.BreakerOpen)
	})
}

// Whatever ends an attempt from outside says nothing about the other side.
func TestAnInterruptedAttemptIsNoFailureForTheBreaker(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		br := &segno.Breaker{Failures: 1, Reset: time.Second}
		w := oneStep(segno.Step[leg, cargo]{Do: hold, Breaker: br})
		short := w
		short.Timeout = time.Minute
		b := newBed(t)
		flows := []segno.Flow{flowOf("f", w), flowOf("short", short)}
		r := b.start(flows...)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		if err := r.CancelRun(ctx, id); err != nil {
			t.Fatal(err)
		}
		r.ended(id, segno.RunCancelled)
		expectBreaker(t, "after a cancel", br, segno.BreakerClosed)
		r.ended(r.trigger("short", cargo{}), segno.RunFailed)
		expectBreaker(t, "after the run's timeout", br, segno.BreakerClosed)

		_ = br.Do(ctx, func(context.Context) error { return errTest })
		time.Sleep(time.Second)
		id = r.trigger("f", cargo{}) // a probe
		synctest.Wait()
		expectBreaker(t, "with the probe at work", br, segno.BreakerHalfOpen)
		if err := r.CancelRun(ctx, id); err != nil {
			t.Fatal(err)
		}
		r.ended(id, segno.RunCancelled)
		expectBreaker(t, "after the probe was cancelled", br, segno.BreakerHalfOpen)
		feed(t, br, "S")
		expectBreaker(t, "after another probe", br, segno.BreakerClosed)

		r.trigger("f", cargo{})
		synctest.Wait()
		b.hurry()
		expectBreaker(t, "after a stop", br, segno.BreakerClosed)
		b.start(flows...)
	})
}

func TestASnoozeIsASuccessForTheBreaker(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		br := &segno.Breaker{Failures: 2}
		polls := 0
		poll := segno.Poll(func(context.Context, *cargo) (leg, time.Duration, error) {
			if polls++; polls%2 == 0 {
				return "", time.Minute, nil
			}
			if polls > 6 {
				return done, 0, nil
			}
			return "", 0, errTest
		})
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: poll, Breaker: br, Retry: plain(3, time.Second)})))
		r.completed(r.trigger("f", cargo{}))
		expect(t, "polls", polls, 7)
	})
}
