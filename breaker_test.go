package segno_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// allow takes a permit that must be given.
func allow(t *testing.T, b *segno.Breaker) *segno.Permit {
	t.Helper()
	p, err := b.Allow()
	if err != nil {
		t.Fatalf("Allow: got error %v, want none", err)
	}
	return p
}

// feed makes calls that end as the letters say: F fails, S succeeds, C is cancelled.
func feed(t *testing.T, b *segno.Breaker, calls string) {
	t.Helper()
	for _, c := range calls {
		p := allow(t, b)
		p.Done(map[rune]error{'F': errTest, 'S': nil, 'C': context.Canceled}[c])
	}
}

// expectBreaker asserts a breaker's state.
func expectBreaker(t *testing.T, when string, b *segno.Breaker, want segno.BreakerState) {
	t.Helper()
	got, _ := b.State()
	expect(t, "state "+when, got, want)
}

// expectRefused asserts that the breaker lets nobody through.
func expectRefused(t *testing.T, when string, b *segno.Breaker) *segno.CircuitOpen {
	t.Helper()
	_, err := b.Allow()
	expectError(t, "Allow "+when, err, segno.ErrCircuitOpen)
	var open *segno.CircuitOpen
	if !errors.As(err, &open) {
		t.Fatalf("Allow %s: got %v, want a *CircuitOpen", when, err)
	}
	return open
}

func TestABreakerOpensAfterFailuresInARow(t *testing.T) {
	for _, c := range []struct {
		b     *segno.Breaker
		calls string
		want  segno.BreakerState
	}{
		{&segno.Breaker{}, "", segno.BreakerClosed},
		{&segno.Breaker{}, "FFFF", segno.BreakerClosed},
		{&segno.Breaker{}, "FFFFF", segno.BreakerOpen},
		{&segno.Breaker{Failures: 3}, "FFSFF", segno.BreakerClosed},
		{&segno.Breaker{Failures: 3}, "FFSFFF", segno.BreakerOpen},
		{&segno.Breaker{Failures: 1}, "F", segno.BreakerOpen},
		{&segno.Breaker{Failures: 1}, "CCC", segno.BreakerClosed},
		{&segno.Breaker{Failures: 2}, "FCF", segno.BreakerOpen}, // a cancel is no success either
	} {
		b := c.b
		feed(t, b, c.calls)
		expectBreaker(t, "after "+c.calls, b, c.want)
		if c.want == segno.BreakerOpen {
			expectRefused(t, "after "+c.calls, b)
		}
	}
}

func TestAnOpenBreakerSaysUntilWhenAndWhy(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := &segno.Breaker{Failures: 1}
		allow(t, b).Done(fmt.Errorf("first: %w", errors.New("one\ntwo")))
		open := expectRefused(t, "when open", b)
		until := time.Now().Add(30 * time.Second)
		expect(t, "Until", open.Until.Equal(until), true)
		expect(t, "Cause", open.Cause, "first: one")
		_, at := b.State()
		expect(t, "State's until", at.Equal(until), true)
		expect(t, "text", open.Error(), "segno: circuit open: until 2000-01-01T00:00:30Z; opened by: first: one")
	})
}

func TestAnOpenBreakerTurnsHalfOpenOnlyWhenAsked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := &segno.Breaker{Failures: 1, Reset: time.Minute}
		feed(t, b, "F")
		time.Sleep(time.Minute - time.Nanosecond)
		expectRefused(t, "just before the end", b)
		time.Sleep(time.Nanosecond)
		expectBreaker(t, "after Reset, nobody having asked", b, segno.BreakerOpen)
		p := allow(t, b)
		expectBreaker(t, "with a probe out", b, segno.BreakerHalfOpen)
		open := expectRefused(t, "while the probe is out", b)
		expect(t, "Until", open.Until.IsZero(), true)
		expect(t, "the text names what opened it", contains(open.Error(), "half-open", errTest.Error()), true)
		p.Done(nil)
		expectBreaker(t, "after the success", b, segno.BreakerClosed)
		feed(t, b, "S")
	})
}

// halfOpen is a breaker that lets probes through.
func halfOpen(t *testing.T, probes int) *segno.Breaker {
	t.Helper()
	b := &segno.Breaker{Failures: 1, Reset: time.Minute, Probes: probes}
	feed(t, b, "F")
	time.Sleep(time.Minute)
	return b
}

func TestAHalfOpenBreakerLetsSoManyProbesThrough(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := halfOpen(t, 2)
		first, second := allow(t, b), allow(t, b)
		expectRefused(t, "with two probes out", b)
		first.Done(nil)
		third := allow(t, b)
		expectRefused(t, "with two probes out again", b)
		third.Done(context.Canceled) // frees its place and counts for nothing
		expectBreaker(t, "after one success", b, segno.BreakerHalfOpen)
		second.Done(nil)
		expectBreaker(t, "after two successes", b, segno.BreakerClosed)
	})
}

func TestAFailedProbeOpensAnew(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := halfOpen(t, 2)
		feed(t, b, "SF")
		open := expectRefused(t, "after the failed probe", b)
		expect(t, "Until", time.Until(open.Until), time.Minute)
		time.Sleep(time.Minute)
		feed(t, b, "S")
		expectBreaker(t, "after one success: the one before does not count", b, segno.BreakerHalfOpen)
		feed(t, b, "S")
		expectBreaker(t, "after two", b, segno.BreakerClosed)
	})
}

func TestABreakerGoesRoundAndCountsAfresh(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := &segno.Breaker{Failures: 2, Reset: time.Minute}
		feed(t, b, "FF")
		time.Sleep(time.Minute)
		feed(t, b, "F")
		expectRefused(t, "open again", b)
		time.Sleep(time.Minute)
		feed(t, b, "S")
		feed(t, b, "F")
		expectBreaker(t, "after one failure of two", b, segno.BreakerClosed)
		feed(t, b, "F")
		expectBreaker(t, "after both", b, segno.BreakerOpen)
	})
}

func TestOutcomesOfAnEarlierStateAreIgnored(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := &segno.Breaker{Failures: 1, Reset: time.Minute}
		early, late, more := allow(t, b), allow(t, b), allow(t, b)
		feed(t, b, "F")
		late.Done(errTest)
		open := expectRefused(t, "after a stale failure", b)
		expect(t, "Until is as it was", time.Until(open.Until), time.Minute)
		time.Sleep(time.Minute)
		probe := allow(t, b)
		early.Done(nil)
		expectBreaker(t, "after a stale success", b, segno.BreakerHalfOpen)
		probe.Done(errTest)
		time.Sleep(time.Minute)
		next := allow(t, b)
		more.Done(errTest)
		expectBreaker(t, "after a stale failure", b, segno.BreakerHalfOpen)
		probe.Done(nil) // once more, and of an earlier half-open
		expectBreaker(t, "after a second outcome of an old probe", b, segno.BreakerHalfOpen)
		next.Done(nil)
		expectBreaker(t, "in the end", b, segno.BreakerClosed)
	})
}

func TestAPermitIsDoneOnce(t *testing.T) {
	b := &segno.Breaker{Failures: 2}
	p := allow(t, b)
	p.Done(errTest)
	p.Done(errTest)
	expectBreaker(t, "after one failure told twice", b, segno.BreakerClosed)
	var none *segno.Permit
	none.Done(nil) // of a refused Allow
}

func TestALostProbeGivesItsPlaceToAnother(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := halfOpen(t, 1)
		lost := allow(t, b)
		time.Sleep(time.Minute - time.Nanosecond)
		expectRefused(t, "while the probe may come back", b)
		time.Sleep(time.Nanosecond)
		allow(t, b)
		expectRefused(t, "with the other probe out", b)
		lost.Done(nil) // late, but still in the same state
		expectBreaker(t, "after its success", b, segno.BreakerClosed)
	})
}

func TestBreakerDoTellsTheOutcome(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		call := func(b *segno.Breaker, ctx context.Context, fn func(context.Context) error) (err error) {
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("panic: %v", p)
				}
			}()
			return b.Do(ctx, fn)
		}
		cancelled, cancel := context.WithCancel(context.Background())
		late, end := context.WithTimeout(context.Background(), time.Second)
		defer end()
		for name, c := range map[string]struct {
			ctx  context.Context
			fn   func(context.Context) error
			want segno.BreakerState
		}{
			"success": {context.Background(), func(context.Context) error { return nil }, segno.BreakerClosed},
			"failure": {context.Background(), func(context.Context) error { return errTest }, segno.BreakerOpen},
			"panic":   {context.Background(), func(context.Context) error { panic("boom") }, segno.BreakerOpen},
			"goexit": {context.Background(), func(context.Context) error {
				ended := make(chan struct{})
				go func() { // the test's own goroutine must go on
					defer close(ended)
					b := &segno.Breaker{Failures: 1}
					defer func() { expectBreaker(t, "after Goexit", b, segno.BreakerOpen) }()
					_ = b.Do(context.Background(), func(context.Context) error { runtime.Goexit(); return nil })
				}()
				<-ended
				return nil
			}, segno.BreakerClosed},
			"deadline": {late, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, segno.BreakerOpen},
			"cancel": {cancelled, func(ctx context.Context) error { cancel(); return fmt.Errorf("%w, by way of %w", errTest, ctx.Err()) },
				segno.BreakerClosed},
			"cancel, and a panic": {cancelled, func(ctx context.Context) error { cancel(); synctest.Wait(); panic("boom") }, segno.BreakerClosed},
		} {
			b := &segno.Breaker{Failures: 1}
			_ = call(b, c.ctx, c.fn)
			expectBreaker(t, "after "+name, b, c.want)
			if c.want == segno.BreakerOpen {
				err := call(b, context.Background(), func(context.Context) error { t.Errorf("%s: an open breaker has called", name); return nil })
				expectError(t, "Do after "+name, err, segno.ErrCircuitOpen)
			}
		}
	})
}

func TestABreakerIsSharedByGoroutines(t *testing.T) {
	b := &segno.Breaker{Failures: 100}
	var calls sync.WaitGroup
	refused := make(chan error, 180)
	for range 6 {
		calls.Go(func() {
			for range 30 {
				if err := b.Do(context.Background(), func(context.Context) error { return errTest }); !errors.Is(err, errTest) {
					refused <- err
				}
			}
		})
	}
	calls.Wait()
	expectBreaker(t, "after 180 failures", b, segno.BreakerOpen)
	expect(t, "some were refused", len(refused) > 0, true)
}

func TestABreakerOfBadConfigurationIsRefused(t *testing.T) {
	for name, b := range map[string]*segno.Breaker{
		"Failures": {Failures: -1}, "Reset": {Reset: -1}, "Probes": {Probes: -1}, "nil": nil,
	} {
		_, err := b.Allow()
		expectError(t, name+": Allow", err, segno.ErrConfig)
		if b != nil {
			s := segno.New("never-opened.db", segno.Options{})
			err = s.Manual("f", oneStep(segno.Step[leg, cargo]{Do: to(done), Breaker: b}))
			expectError(t, name+": Manual", err, segno.ErrConfig)
			expect(t, name+": the text names the state", strings.Contains(fmt.Sprint(err), `state "a"`), true)
		}
		_, err = segno.New("never-opened.db", segno.Options{Breakers: []*segno.Breaker{b}}).Start(context.Background())
		expectError(t, name+": Start", err, segno.ErrConfig)
	}
	final := route{Initial: legA, Steps: legs{legA: {Do: to(done)}, done: {Final: true, Breaker: &segno.Breaker{}}}}
	expectError(t, "a final state with a Breaker", segno.New("never-opened.db", segno.Options{}).Manual("f", final), segno.ErrConfig)
}

// A Reset of 292 years neither overflows nor panics.
func TestAnExtremeBreakerSaturates(t *testing.T) {
	b := &segno.Breaker{Failures: 1, Reset: 1<<63 - 1, Probes: 1<<63 - 1}
	feed(t, b, "F")
	expectRefused(t, "after the failure", b)
}
