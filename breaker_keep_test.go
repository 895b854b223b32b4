package segno_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

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

// A Stop is not held up by a state that cannot be written, nor is the breaker
// lost to the next scheduler.
func TestStopOnAFullDiskIsNotHeldUpByABreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := faultInjectedSpace(t)
		path := filepath.Join(disk.dir, "a.db")
		br := kept()
		w := &segno.Window{Name: "quota", Limit: 5, Per: time.Hour}
		o := segno.Options{Breakers: []*segno.Breaker{br}, Limiters: []segno.Limiter{w}}
		r := faultMustStart(t, path, o, faultWorkflow(segno.Step[faultState, faultData]{}))
		synctest.Wait()
		disk.take()
		told := make(chan struct{})
		go func() { allow(t, br).Done(errTest); close(told) }()
		take(t, "on a full disk", w, 1)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		begin := time.Now()
		expect(t, "Stop says what was not written", contains(fmt.Sprint(r.Stop(ctx)), "limiters", "full"), true)
		if took := time.Since(begin); took > 20*time.Second {
			t.Errorf("Stop: got = an answer after %v, want one after its context and the grace", took)
		}
		<-told
		expectBreaker(t, "in memory", br, segno.BreakerOpen)
		disk.give()
		r = faultMustStart(t, path, o, faultWorkflow(segno.Step[faultState, faultData]{}))
		expectBreaker(t, "from the file", br, segno.BreakerClosed)
		faultStop(t, r, path)
	})
}
