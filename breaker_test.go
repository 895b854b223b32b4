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
		expect(t, "Until", open.Until.Sub(time.Now()), time.Minute)
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
		expect(t, "Until is as it was", open.Until.Sub(time.Now()), time.Minute)
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
		expect(t, "the stack leads to the step", contains(e.Error(), "boom", "breaker_test.go"), true)
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

// kept is a breaker in the file.
func kept() *segno.Breaker { return &segno.Breaker{Name: "bank", Failures: 1, Reset: time.Minute} }

func TestAnOpenBreakerStaysOpenOverARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		start := func(br *segno.Breaker) *live {
			return b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: fail, Breaker: br})))
		}
		r := start(kept())
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		for _, end := range []func(){b.kill, b.stop} {
			time.Sleep(20 * time.Second)
			end()
			br := kept()
			r = start(br)
			open := expectRefused(t, "after the restart", br)
			expect(t, "Until", open.Until, time.Date(2000, 1, 1, 0, 1, 0, 0, time.UTC))
			expect(t, "the text", open.Error(), `segno: circuit open: breaker "bank": until 2000-01-01T00:01:00Z; opened by: `+errTest.Error())
			e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expectError(t, "a run after the restart", e, segno.ErrCircuitOpen)
		}
		expect(t, "view", fmt.Sprint(b.rows("SELECT name, state, until, failures, error FROM segno_breakers")),
			"[bank|open|2000-01-01T00:01:00.000Z|1|"+errTest.Error()+"]")
	})
}

func TestAHalfOpenBreakerHasToProbeAgainAfterARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		br := kept()
		b.with(segno.Options{Breakers: []*segno.Breaker{br}}).start()
		feed(t, br, "F")
		time.Sleep(time.Minute)
		allow(t, br) // dies with the process
		expect(t, "state in the file", fmt.Sprint(b.rows("SELECT state FROM segno_breakers")), "[half_open]")
		b.kill()
		br = kept()
		b.with(segno.Options{Breakers: []*segno.Breaker{br}}).start()
		expectBreaker(t, "after the restart", br, segno.BreakerOpen)
		feed(t, br, "S")
		expectBreaker(t, "after the probe", br, segno.BreakerClosed)
		b.kill()
		br = kept()
		b.with(segno.Options{Breakers: []*segno.Breaker{br}}).start()
		expectBreaker(t, "closed, after a restart", br, segno.BreakerClosed)
	})
}

func TestABreakerIsWrittenOncePerTransition(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		br := &segno.Breaker{Name: "bank", Failures: 3, Reset: time.Minute, Probes: 2}
		b.with(segno.Options{Breakers: []*segno.Breaker{br}}).start()
		synctest.Wait()
		commits := func(what string, want int64, fn func()) {
			t.Helper()
			before := b.commits.Load()
			fn()
			expect(t, "commits: "+what, b.commits.Load()-before, want)
		}
		commits("calls that change nothing", 0, func() { feed(t, br, "SSFFSCFF") })
		commits("opening", 1, func() { feed(t, br, "F") })
		commits("refusing", 0, func() { expectRefused(t, "when open", br) })
		time.Sleep(time.Minute)
		commits("the first probe", 1, func() { feed(t, br, "S") })
		commits("closing", 1, func() { feed(t, br, "S") })
	})
}

// What a breaker has decided is in the file before anybody is told.
func TestATransitionIsDurableBeforeItHasAnEffect(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		br := kept()
		r := b.with(segno.Options{Breakers: []*segno.Breaker{br}}).start()
		synctest.Wait()
		first, second := allow(t, br), allow(t, br)
		busy, free := make(chan struct{}), make(chan struct{})
		go func() {
			_ = r.Write(context.Background(), func(segno.Tx) error { close(busy); <-free; return nil })
		}()
		<-busy // the writer is held up
		told, asked := make(chan struct{}), make(chan error, 1)
		go func() { first.Done(errTest); close(told) }()
		synctest.Wait()
		expectBreaker(t, "before the commit", br, segno.BreakerClosed)
		go func() { second.Done(nil); _, err := br.Allow(); asked <- err }()
		synctest.Wait()
		select {
		case <-told:
			t.Error("Done returned before the commit")
		case err := <-asked:
			t.Errorf("Allow returned %v before the commit", err)
		default:
		}
		close(free)
		<-told
		expectError(t, "Allow", <-asked, segno.ErrCircuitOpen)
		expect(t, "state in the file", fmt.Sprint(b.rows("SELECT state FROM segno_breakers")), "[open]")
	})
}

func TestAClockSetBackDoesNotKeepABreakerOpenLonger(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		br := kept()
		b.with(segno.Options{Breakers: []*segno.Breaker{br}}).start()
		feed(t, br, "F")
		b.stepClock(-time.Hour)
		open := expectRefused(t, "with the clock set back", br)
		expect(t, "Until", open.Until, time.Now().UTC().Add(-time.Hour+time.Minute))
		time.Sleep(time.Minute)
		feed(t, br, "F") // a probe, by the new clock
		b.stepClock(-24 * time.Hour)
		b.kill()
		br = kept()
		b.with(segno.Options{Breakers: []*segno.Breaker{br}}).start()
		expectRefused(t, "after a restart with the clock set back", br)
		time.Sleep(time.Minute)
		feed(t, br, "S")
		expectBreaker(t, "in the end", br, segno.BreakerClosed)
	})
}

func TestABreakersNameIsItsOwn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		b := newBed(t)
		br := kept()
		guard := func(br *segno.Breaker) segno.Flow {
			return flowOf("f", oneStep(segno.Step[leg, cargo]{Do: to(done), Breaker: br}))
		}
		b.opts.Breakers = []*segno.Breaker{kept()}
		_, err := b.tryStart(ctx, guard(br))
		expectError(t, "two of one name", err, segno.ErrConfig)
		b.opts.Breakers = []*segno.Breaker{br, br, {}, {}}
		b.start(guard(br))

		other := newBed(t)
		_, err = other.tryStart(ctx, guard(br))
		expectError(t, "one for two schedulers", err, segno.ErrConfig)
		expect(t, "the text names it", contains(fmt.Sprint(err), `"bank"`, "another running scheduler"), true)
		feed(t, br, "F")
		expect(t, "the first one keeps it", fmt.Sprint(b.rows("SELECT state FROM segno_breakers")), "[open]")
		b.stop()
		other.start(guard(br))
		expectBreaker(t, "on a file that does not know it", br, segno.BreakerClosed)
		feed(t, br, "F")
		other.stop()
		other.start(guard(br))
		expectBreaker(t, "on the file that knows it", br, segno.BreakerOpen)
	})
}

// Without a name nothing is kept, and any number of schedulers may share it.
func TestABreakerWithoutANameLivesInMemory(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		br := &segno.Breaker{Failures: 1}
		f := flowOf("f", oneStep(segno.Step[leg, cargo]{Do: fail, Breaker: br}))
		b, other := newBed(t), newBed(t)
		r, s := b.start(f), other.start(f)
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expectError(t, "a run of the other scheduler", s.ended(s.trigger("f", cargo{}), segno.RunFailed), segno.ErrCircuitOpen)
		expect(t, "rows", len(b.rows("SELECT 1 FROM segno_breakers")), 0)
		r = b.restart(f)
		expectBreaker(t, "after a restart of one, in the same process", br, segno.BreakerOpen)
	})
}
