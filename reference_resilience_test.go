package segno_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// referenceResilience has the reference's scenarios of circuit breakers and rate
// limiters, by id and name.
var referenceResilience = map[string]func(*testing.T){
	"C01_breaker_trip":             refBreakerTrip,
	"C02_breaker_reset_on_success": refBreakerResetOnSuccess,
	"C03_breaker_lazy_halfopen":    refBreakerLazyHalfOpen,
	"C04_breaker_probe_cap":        refBreakerProbeCap,
	"C05_breaker_reopen":           refBreakerReopen,
	"C06_breaker_stale":            refBreakerStale,
	"C07_breaker_drop":             refBreakerDrop,
	"C08_breaker_loop_midtrip":     refBreakerLoopMidTrip,
	"C09_breaker_timeout_counts":   refBreakerTimeoutCounts,
	"C10_breaker_shared":           refBreakerShared,
	"C11_breaker_bad_policy":       refBreakerBadPolicy,
	"C12_breaker_concurrent":       refBreakerConcurrent,
	"C13_breaker_cancel_neutral":   refBreakerCancelNeutral,
	"C14_breaker_restart":          refBreakerRestart,
	"L01_bucket_burst":             refBucketBurst,
	"L02_bucket_wait":              refBucketWait,
	"L03_bucket_weights":           refBucketWeights,
	"L04_reservation":              refReservation,
	"L05_window_reset":             refWindowReset,
	"L06_window_stale_refund":      refWindowStaleRefund,
	"L07_never_satisfiable":        refNeverSatisfiable,
	"L08_multi_atomic":             refMultiAtomic,
	"L09_multi_subset":             refMultiSubset,
	"L10_multi_concurrent":         refMultiConcurrent,
	"L11_window_restart":           refWindowRestart,
	"L12_reservation_crash":        refReservationCrash,
}

// onBreaker runs a test with a breaker that is kept in a file, and looks at the
// state in the end: in memory, and in the file, if it was ever another.
func onBreaker(t *testing.T, want segno.BreakerState, make func() *segno.Breaker, test func(t *testing.T, b *bed, br *segno.Breaker)) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		breaker := make()
		breaker.Name = "reference"
		b.with(segno.Options{Breakers: []*segno.Breaker{breaker}}).start()
		test(t, b, breaker)
		expectBreaker(t, "in the end", breaker, want)
		if rows := b.rows("SELECT state FROM segno_breakers"); len(rows) > 0 {
			expect(t, "state in the file", rows[0], string(want))
		}
	})
}

func refBreakerTrip(t *testing.T) {
	onBreaker(t, segno.BreakerOpen, func() *segno.Breaker { return &segno.Breaker{Failures: 3} }, func(t *testing.T, _ *bed, br *segno.Breaker) {
		feed(t, br, "FF")
		expectBreaker(t, "below the threshold", br, segno.BreakerClosed)
		feed(t, br, "F")
		expectRefused(t, "at the threshold", br)
	})
}

func refBreakerResetOnSuccess(t *testing.T) {
	onBreaker(t, segno.BreakerClosed, func() *segno.Breaker { return &segno.Breaker{Failures: 3} }, func(t *testing.T, _ *bed, br *segno.Breaker) {
		feed(t, br, "FFSFF")
	})
}

func refBreakerLazyHalfOpen(t *testing.T) {
	onBreaker(t, segno.BreakerHalfOpen, func() *segno.Breaker { return &segno.Breaker{Failures: 1, Reset: time.Minute} }, func(t *testing.T, b *bed, br *segno.Breaker) {
		feed(t, br, "F")
		time.Sleep(2 * time.Minute)
		expectBreaker(t, "past its time", br, segno.BreakerOpen)
		expect(t, "state in the file", fmt.Sprint(b.rows("SELECT state FROM segno_breakers")), "[open]")
		allow(t, br)
	})
}

func refBreakerProbeCap(t *testing.T) {
	onBreaker(t, segno.BreakerHalfOpen, func() *segno.Breaker { return &segno.Breaker{Failures: 1, Probes: 2} }, func(t *testing.T, _ *bed, br *segno.Breaker) {
		feed(t, br, "F")
		time.Sleep(30 * time.Second)
		first, _ := allow(t, br), allow(t, br)
		expectRefused(t, "the third", br)
		first.Done(nil)
		allow(t, br)
	})
}

func refBreakerReopen(t *testing.T) {
	onBreaker(t, segno.BreakerHalfOpen, func() *segno.Breaker { return &segno.Breaker{Failures: 1, Probes: 2} }, func(t *testing.T, _ *bed, br *segno.Breaker) {
		feed(t, br, "F")
		time.Sleep(time.Minute)
		feed(t, br, "SF")
		expect(t, "the new deadline", time.Until(expectRefused(t, "after the probe", br).Until), 30*time.Second)
		time.Sleep(30 * time.Second)
		feed(t, br, "S") // the success before is forgotten
	})
}

func refBreakerStale(t *testing.T) {
	onBreaker(t, segno.BreakerOpen, func() *segno.Breaker { return &segno.Breaker{Failures: 1} }, func(t *testing.T, _ *bed, br *segno.Breaker) {
		closed, late := allow(t, br), allow(t, br)
		feed(t, br, "F")
		late.Done(errTest)
		expectBreaker(t, "open, after a stale failure", br, segno.BreakerOpen)
		time.Sleep(30 * time.Second)
		probe := allow(t, br)
		closed.Done(nil)
		expectBreaker(t, "half-open, after a stale success", br, segno.BreakerHalfOpen)
		probe.Done(errTest)
	})
}

// A permit is dropped where a call does not return: by a panic.
func refBreakerDrop(t *testing.T) {
	onBreaker(t, segno.BreakerOpen, func() *segno.Breaker { return &segno.Breaker{Failures: 2} }, func(t *testing.T, _ *bed, br *segno.Breaker) {
		drop := func() {
			defer func() { _ = recover() }()
			_ = br.Do(context.Background(), func(context.Context) error { panic("dropped") })
		}
		drop()
		expectBreaker(t, "after one", br, segno.BreakerClosed)
		drop()
		expectRefused(t, "after two", br)
		time.Sleep(30 * time.Second)
		drop() // a probe
	})
}

func refBreakerLoopMidTrip(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		br := &segno.Breaker{Name: "reference", Failures: 2}
		r := newBed(t).start(flowOf("f", guardedStep(br, &s, plain(6, time.Millisecond))))
		e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expectError(t, "the error", e.Err, segno.ErrCircuitOpen)
		expect(t, "calls", s.calls(), 2)
	})
}

func refBreakerTimeoutCounts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		br := &segno.Breaker{Name: "reference", Failures: 2}
		step := segno.Step[leg, cargo]{Do: hold, Breaker: br, Timeout: time.Second, Retry: segno.Fixed(2, time.Millisecond)}
		r := newBed(t).start(flowOf("f", oneStep(step)))
		expectError(t, "the run", r.ended(r.trigger("f", cargo{}), segno.RunFailed), context.DeadlineExceeded)
		expectBreaker(t, "after two timeouts", br, segno.BreakerOpen)
	})
}

func refBreakerShared(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		br := &segno.Breaker{Name: "reference", Failures: 1}
		var s tries
		r := newBed(t).start(
			flowOf("A", oneStep(segno.Step[leg, cargo]{Do: fail, Breaker: br})), flowOf("B", guardedStep(br, &s, segno.Retry{})),
		)
		r.ended(r.trigger("A", cargo{}), segno.RunFailed)
		expectError(t, "B", r.ended(r.trigger("B", cargo{}), segno.RunFailed), segno.ErrCircuitOpen)
		expect(t, "calls of B", s.calls(), 0)
	})
}

// Zero is the default and a huge value saturates; what is impossible is refused.
func refBreakerBadPolicy(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		for _, bad := range []*segno.Breaker{{Failures: -1}, {Reset: -1}, {Probes: -1}} {
			b.opts.Breakers = []*segno.Breaker{bad}
			_, err := b.tryStart(context.Background())
			expectError(t, "Start", err, segno.ErrConfig)
		}
		zero, huge := &segno.Breaker{Name: "zero"}, &segno.Breaker{Name: "huge", Failures: 1, Reset: math.MaxInt64, Probes: math.MaxInt}
		b.opts.Breakers = []*segno.Breaker{zero, huge}
		b.start()
		feed(t, zero, "FFFFF")
		feed(t, huge, "F")
		expect(t, "open by default", time.Until(expectRefused(t, "zero", zero).Until), 30*time.Second)
		expectRefused(t, "huge", huge)
	})
}

func refBreakerConcurrent(t *testing.T) {
	onBreaker(t, segno.BreakerOpen, func() *segno.Breaker { return &segno.Breaker{Failures: 180} }, func(t *testing.T, _ *bed, br *segno.Breaker) {
		var calls sync.WaitGroup
		for range 6 {
			calls.Go(func() { feed(t, br, "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFF") })
		}
		calls.Wait()
	})
}

func refBreakerCancelNeutral(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		br := &segno.Breaker{Name: "reference", Failures: 1}
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: hold, Breaker: br})))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		if err := r.CancelRun(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		r.ended(id, segno.RunCancelled)
		expectBreaker(t, "after the cancel", br, segno.BreakerClosed)
	})
}

func refBreakerRestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		start := func() *segno.Breaker {
			br := &segno.Breaker{Name: "reference", Failures: 1, Reset: time.Minute}
			b.with(segno.Options{Breakers: []*segno.Breaker{br}}).start()
			return br
		}
		feed(t, start(), "F")
		time.Sleep(20 * time.Second)
		b.kill()
		br := start()
		expect(t, "rejects for", time.Until(expectRefused(t, "after the restart", br).Until), 40*time.Second)
		time.Sleep(40*time.Second - time.Microsecond)
		expectRefused(t, "just before the end", br)
		time.Sleep(time.Microsecond)
		feed(t, br, "S")
		expectBreaker(t, "after the probe", br, segno.BreakerClosed)
	})
}

// onLimiter starts runs through a step with a limiter, and returns how many
// were served at once.
func onLimiter(t *testing.T, l segno.Limiter, runs int) (served int, b *bed, s *tries) {
	b, s = newBed(t), new(tries)
	r := b.start(limited(l, segno.Step[leg, cargo]{Do: s.failing(0)}))
	for range runs {
		r.trigger("f", cargo{})
	}
	synctest.Wait()
	return s.calls(), b, s
}

func refBucketBurst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		served, _, s := onLimiter(t, &segno.Bucket{Limit: 2, Per: time.Minute, Burst: 5}, 10)
		expect(t, "served at once", served, 7)
		time.Sleep(time.Hour)
		expect(t, "served in the end", s.calls(), 10)
	})
}

func refBucketWait(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		_, _, s := onLimiter(t, &segno.Bucket{Limit: 1, Per: 10 * time.Millisecond}, 2)
		time.Sleep(time.Second)
		expect(t, "the second waits", s.gaps(), "10ms")
	})
}

func refBucketWeights(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		bucket := &segno.Bucket{Limit: 10, Per: time.Hour}
		r := newBed(t).start(limited(segno.Tiers{{Limiter: bucket, Cost: 3}}, segno.Step[leg, cargo]{Do: to(done)}))
		r.completed(r.trigger("f", cargo{}))
		expect(t, "left after 3", bucket.Remaining(), 7)
		take(t, "0", bucket, 0)
		expectLimited(t, "above the capacity", bucket, 11)
		expect(t, "left after 0 and 11", bucket.Remaining(), 7)
		take(t, "7", bucket, 7)
		expect(t, "left after 7", bucket.Remaining(), 0)
	})
}

func refReservation(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, bucket := &segno.Window{Name: "reference", Limit: 10, Per: time.Hour}, &segno.Bucket{Limit: 10}
		b := newBed(t)
		b.with(segno.Options{Limiters: []segno.Limiter{w, bucket}}).start()
		setAside(t, w, 4).Refund()
		expect(t, "left after a refund", w.Remaining(), 10)
		setAside(t, w, 4).Commit()
		expect(t, "left after a commit", w.Remaining(), 6)
		res := setAside(t, bucket, 4)
		time.Sleep(time.Second)
		res.Refund()
		expect(t, "taken from a bucket that was full already", takeAll(bucket), 10)
		expect(t, "in the file", fmt.Sprint(b.rows("SELECT used FROM segno_limiters")), "[4]")
	})
}

func refWindowReset(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		served, _, s := onLimiter(t, &segno.Window{Limit: 2, Per: 50 * time.Millisecond}, 4)
		expect(t, "served at once", served, 2)
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		expect(t, "served after the reset", s.calls(), 4)
	})
}

func refWindowStaleRefund(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := &segno.Window{Name: "reference", Limit: 10, Per: time.Hour}
		newBed(t).with(segno.Options{Limiters: []segno.Limiter{w}}).start()
		res := setAside(t, w, 5)
		time.Sleep(time.Hour)
		take(t, "in the next window", w, 3)
		res.Refund()
		expect(t, "used of the next window", w.Used(), 3)
	})
}

func refNeverSatisfiable(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := &segno.Window{Name: "reference", Limit: 10, Per: time.Hour}
		r := newBed(t).start(limited(segno.Tiers{{Limiter: w, Cost: math.MaxInt}}, segno.Step[leg, cargo]{Do: to(done), Retry: segno.Exponential(9)}))
		begin := time.Now()
		expectError(t, "the run", r.ended(r.trigger("f", cargo{}), segno.RunFailed), segno.ErrRateLimited)
		expect(t, "took", time.Since(begin), 0)
		expect(t, "RetryAfter", expectLimited(t, "from code", w, 11).RetryAfter, forever)
	})
}

func refMultiAtomic(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		first := &segno.Window{Name: "first", Limit: 100, Per: time.Hour}
		second := &segno.Window{Name: "second", Limit: 1, Per: time.Hour}
		tiers := segno.Tiers{{Name: "1st", Limiter: first}, {Name: "2nd", Limiter: second}}
		b := newBed(t)
		b.with(segno.Options{Limiters: []segno.Limiter{tiers}}).start()
		take(t, "all of the second", second, 1)
		for range 10 {
			expect(t, "Tier", expectLimited(t, "with an empty tier", tiers, 1).Tier, "2nd")
		}
		expect(t, "used of the first", first.Used(), 0)
		time.Sleep(2 * time.Second)
		expect(t, "in the file", fmt.Sprint(b.rows("SELECT name, used FROM segno_limiters")), "[second|1]")
	})
}

func refMultiSubset(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		first := &segno.Window{Name: "first", Limit: 1, Per: time.Hour}
		second := &segno.Window{Name: "second", Limit: 5, Per: time.Hour}
		tiers := segno.Tiers{{Name: "1st", Limiter: first}, {Name: "2nd", Limiter: second}}
		newBed(t).with(segno.Options{Limiters: []segno.Limiter{tiers}}).start()
		take(t, "a tier by name", tiers.Only("2nd"), 2)
		take(t, "a name that no tier has", tiers.Only("3rd"), 1000)
		take(t, "no tiers", segno.Tiers{}, 1000)
		expect(t, "used", fmt.Sprint(first.Used(), second.Used()), "0 2")
	})
}

func refMultiConcurrent(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		scarce := &segno.Window{Name: "scarce", Limit: 5, Per: time.Hour}
		tiers := segno.Tiers{{Limiter: &segno.Bucket{Limit: 100}}, {Limiter: scarce}}
		served, _, _ := onLimiter(t, tiers, 24)
		expect(t, "runs served at once", served, 5)
		time.Sleep(10 * time.Hour)
		var admitted atomic.Int64
		var tries sync.WaitGroup
		for range 24 {
			tries.Go(func() {
				if tiers.TryTake(1) == nil {
					admitted.Add(1)
				}
			})
		}
		tries.Wait()
		expect(t, "calls admitted", admitted.Load(), 5)
	})
}

func refWindowRestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		start := func() *segno.Window {
			w := &segno.Window{Name: "reference", Limit: 100, Per: 5 * time.Hour}
			b.with(segno.Options{Limiters: []segno.Limiter{w}}).start()
			return w
		}
		w := start()
		take(t, "half", w, 50)
		end := w.ResetsAt()
		time.Sleep(2 * time.Hour)
		for _, stop := range []func(){b.stop, b.kill} {
			stop()
			w = start()
			expect(t, "used", w.Used(), 50)
			expect(t, "reset time", w.ResetsAt(), end)
		}
		time.Sleep(3 * time.Hour)
		expect(t, "used behind the reset time", w.Used(), 0)
	})
}

// The reservation's expiry is the end of the process that held it.
func refReservationCrash(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		start := func() *segno.Window {
			w := &segno.Window{Name: "reference", Limit: 10, Per: time.Hour}
			b.with(segno.Options{Limiters: []segno.Limiter{w}}).start()
			return w
		}
		w := start()
		take(t, "used", w, 2)
		setAside(t, w, 5)
		time.Sleep(2 * time.Second)
		b.kill()
		expect(t, "used after the crash", start().Used(), 2)
	})
}
