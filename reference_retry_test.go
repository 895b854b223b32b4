package segno_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// referenceRetry are the rows of the tasks' group R: failed attempts.
func referenceRetry() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"R01_retry_none": inRow(func(t *testing.T, b *bed) {
			s, e := retried(b, segno.Retry{}, 9)
			expect(t, "calls", s.numbers(), "[1]")
			expect(t, "Err", e.Err.Error(), "test: went wrong in attempt 1")
		}),
		"R02_retry_fixed_recovers": inRow(func(t *testing.T, b *bed) {
			s, e := retried(b, segno.Fixed(3, time.Millisecond), 2)
			expect(t, "calls", s.numbers(), "[1 2 3]")
			expect(t, "completed", e == nil, true)
		}),
		"R03_retry_fixed_exhausts": inRow(func(t *testing.T, b *bed) { // the number counts attempts, not retries
			s, e := retried(b, segno.Fixed(3, time.Millisecond), 9)
			expect(t, "calls", s.numbers(), "[1 2 3]")
			expect(t, "Attempt and Err", fmt.Sprint(e.Attempt, " ", e.Err), "3 test: went wrong in attempt 3")
		}),
		"R04_delay_fixed_table": inRow(func(t *testing.T, b *bed) {
			retry := segno.Fixed(4, 100*time.Millisecond)
			retry.Jitter = -1
			s, _ := retried(b, retry, 9)
			expect(t, "waits", s.gaps(), "100ms 100ms 100ms")
		}),
		"R05_delay_exp_table": inRow(func(t *testing.T, b *bed) {
			s, _ := retried(b, segno.Retry{Attempts: 3, Initial: 50 * time.Millisecond, Multiplier: 3, MaxDelay: 5 * time.Second, Jitter: -1}, 9)
			expect(t, "waits", s.gaps(), "50ms 150ms")
		}),
		"R06_delay_cap": inRow(func(t *testing.T, b *bed) {
			s, _ := retried(b, segno.Retry{Attempts: 4, Initial: 100 * time.Millisecond, Multiplier: 10, MaxDelay: 500 * time.Millisecond, Jitter: -1}, 9)
			expect(t, "waits", s.gaps(), "100ms 500ms 500ms")
		}),
		"R07_delay_jitter_range": inRow(func(t *testing.T, b *bed) {
			s, _ := retried(b, segno.Retry{Attempts: 60, Initial: 100 * time.Millisecond, Multiplier: 1, Jitter: 0.5}, 99)
			low, high := span(s)
			if low < 50*time.Millisecond || high > 150*time.Millisecond || high-low < 50*time.Millisecond {
				t.Errorf("waits: got = %v to %v, want them all over 50ms to 150ms", low, high)
			}
		}),
		"R08_delay_nan_inputs": func(t *testing.T) { // they are refused
			t.Parallel()
			refused(t, segno.Retry{Multiplier: math.NaN()}, segno.Retry{Jitter: math.NaN()})
		},
		"R09_delay_bad_multiplier": inRow(func(t *testing.T, b *bed) { // negative ones are refused, 0 is the default
			refused(t, segno.Retry{Multiplier: -1}, segno.Retry{Multiplier: math.Inf(-1)})
			s, _ := retried(b, segno.Retry{Attempts: 3, Initial: 50 * time.Millisecond, Jitter: -1}, 9)
			expect(t, "waits with multiplier 0", s.gaps(), "50ms 100ms")
		}),
		"R10_delay_huge_attempt": inRow(func(t *testing.T, b *bed) {
			for _, n := range []int{1 << 31, math.MaxInt} {
				p := segno.BackoffPolicy{Initial: time.Second, MaxDelay: time.Minute, Jitter: -1}
				expect(t, fmt.Sprintf("delay %d", n), p.Delay(n), time.Minute)
			}
			s, _ := retried(b, segno.Retry{Attempts: 5, Initial: time.Second, Multiplier: 1e300, MaxDelay: time.Minute, Jitter: -1}, 9)
			expect(t, "waits", s.gaps(), "1s 1m0s 1m0s 1m0s")
		}),
		"R11_delay_full_jitter_floor": func(t *testing.T) { // never negative, and none is a wait too
			t.Parallel()
			p := segno.BackoffPolicy{Initial: 100 * time.Millisecond, Multiplier: 1, Jitter: 1}
			low, high := time.Hour, time.Duration(0)
			for range 4096 {
				d := p.Delay(1)
				low, high = min(low, d), max(high, d)
			}
			if low < 0 || low > 10*time.Millisecond || high > 200*time.Millisecond || high < 190*time.Millisecond {
				t.Errorf("delays: got = %v to %v, want all over 0 to 200ms", low, high)
			}
		},
		"R12_delay_zero_base": inRow(func(t *testing.T, b *bed) { // 0 is the default of 100 ms; RetryAfter(err, 0) is at once
			s, _ := retried(b, segno.Retry{Attempts: 2, Jitter: -1}, 9)
			expect(t, "waits", s.gaps(), "100ms")
			var at tries
			r := b.restart(flowOf("f", oneStep(segno.Step[leg, cargo]{
				Do: func(ctx context.Context, _ *cargo) (leg, error) {
					at.note(ctx)
					return "", segno.RetryAfter(errTest, 0)
				},
				Retry: segno.Retry{Attempts: 2, Initial: time.Hour, Jitter: 1},
			})))
			r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expect(t, "wait of RetryAfter(err, 0) at most a millisecond", at.gap(1) <= time.Millisecond, true)
		}),
		"R13_jitter_over_cap": inRow(func(t *testing.T, b *bed) { // the cap holds with jitter, too
			s, _ := retried(b, segno.Retry{Attempts: 40, Initial: 100 * time.Millisecond, Multiplier: 10, MaxDelay: 500 * time.Millisecond, Jitter: 0.1}, 99)
			_, high := span(s)
			expect(t, "longest wait", high, 500*time.Millisecond)
		}),
		"R14_attempt_timeout_retry": inRow(func(t *testing.T, b *bed) {
			s, after, e := timedOut(b, func(int) bool { return true })
			expect(t, "calls", s.numbers(), "[1 2 3]")
			expect(t, "code behind the sleep", after, 0)
			expect(t, "Attempt", e.Attempt, 3)
			expectError(t, "Err", e.Err, context.DeadlineExceeded)
		}),
		"R15_attempt_timeout_fresh": inRow(func(t *testing.T, b *bed) {
			s, _, e := timedOut(b, func(attempt int) bool { return attempt == 1 })
			expect(t, "calls", s.numbers(), "[1 2]")
			expect(t, "completed", e == nil, true)
		}),
		"R16_attempt_timeout_drop": inRow(func(t *testing.T, b *bed) {
			s, after, _ := timedOut(b, func(attempt int) bool { return attempt == 1 })
			expect(t, "begun, and come behind the sleep", fmt.Sprint(s.calls(), after), "2 1")
		}),
		"R17_fixed_zero": inRow(func(t *testing.T, b *bed) {
			s, e := retried(b, segno.Fixed(0, time.Hour), 9)
			expect(t, "calls", s.calls(), 1)
			expect(t, "Err", e.Err.Error(), "test: went wrong in attempt 1")
		}),
		"R19_durable_backoff_remainder": inRow(func(t *testing.T, b *bed) {
			var s tries
			f := flowOf("f", oneStep(segno.Step[leg, cargo]{Do: s.failing(1), Retry: plain(2, 10*time.Second)}))
			id := b.start(f).trigger("f", cargo{})
			time.Sleep(3 * time.Second)
			b.kill()
			r := b.start(f)
			r.completed(id)
			expect(t, "waits", s.gaps(), "10s")
			expect(t, "attempts", s.numbers(), "[1 2]")
		}),
		"R20_durable_budget_kept": inRow(func(t *testing.T, b *bed) {
			var s tries
			f := flowOf("f", oneStep(segno.Step[leg, cargo]{Do: s.failing(9), Retry: segno.Fixed(5, time.Minute)}))
			id := b.start(f).trigger("f", cargo{})
			time.Sleep(150 * time.Second)
			expect(t, "attempts before the crash", s.numbers(), "[1 2 3]")
			b.kill()
			e := b.start(f).ended(id, segno.RunFailed)
			expect(t, "attempts", s.numbers(), "[1 2 3 4 5]")
			expect(t, "Attempt", e.Attempt, 5)
		}),
		"R21_crashed_attempt_counts": inRow(func(t *testing.T, b *bed) { // against MaxCrashes, not against the attempts
			b.opts.MaxCrashes = 3
			var s tries
			f := flowOf("f", oneStep(segno.Step[leg, cargo]{
				Do:    func(ctx context.Context, c *cargo) (leg, error) { s.note(ctx); return hold(ctx, c) },
				Retry: segno.Fixed(9, time.Millisecond),
			}))
			id := b.start(f).trigger("f", cargo{})
			for range 3 {
				synctest.Wait()
				b.kill()
				b.start(f)
			}
			e := (&live{b.run, t}).ended(id, segno.RunFailed)
			expectError(t, "the run", e, segno.ErrCrashLoop)
			expect(t, "attempts", s.numbers(), "[1 1 1]")
		}),
		"R22_zombie_result": inRow(func(t *testing.T, b *bed) {
			r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
				Do: func(ctx context.Context, c *cargo) (leg, error) {
					if c.N = 2; segno.InfoFrom(ctx).Attempt == 1 {
						time.Sleep(time.Hour) // hears nothing
						c.N = 1
					}
					return done, nil
				},
				Timeout: time.Second, Retry: segno.Fixed(2, time.Millisecond),
			})))
			id := r.trigger("f", cargo{})
			r.completed(id)
			before := fmt.Sprint(r.entries(id), r.info(id))
			time.Sleep(2 * time.Hour)
			expect(t, "run and history when it comes back", fmt.Sprint(r.entries(id), r.info(id)), before)
			expect(t, "data", string(r.info(id).Data), `{"n":2}`)
			expect(t, "the history says abandoned", strings.Contains(before, "abandoned"), true)
		}),
		"R23_permanent_error": inRow(func(t *testing.T, b *bed) {
			calls := 0
			r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
				Do:    func(context.Context, *cargo) (leg, error) { calls++; return "", segno.Permanent(errTest) },
				Retry: segno.Fixed(6, time.Millisecond),
			})))
			e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expect(t, "calls", calls, 1)
			expect(t, "Err", e.Err.Error(), errTest.Error())
		}),
		"R24_retry_after_hint": inRow(func(t *testing.T, b *bed) {
			var s tries
			r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
				Do: func(ctx context.Context, _ *cargo) (leg, error) {
					if s.note(ctx) == 1 {
						return "", segno.RetryAfter(errTest, 2*time.Second)
					}
					return done, nil
				},
				Retry: segno.Fixed(2, time.Millisecond),
			})))
			r.completed(r.trigger("f", cargo{}))
			expect(t, "waits", s.gaps(), "2s")
		}),
	}
}

// retried runs a step that fails the first n attempts, and returns them with
// the run's error, nil if it completed.
func retried(b *bed, retry segno.Retry, n int) (*tries, *segno.RunError) {
	b.t.Helper()
	s := new(tries)
	r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: s.failing(n), Retry: retry})))
	id := r.trigger("f", cargo{})
	if n < retry.Attempts {
		r.completed(id)
		return s, nil
	}
	return s, r.ended(id, segno.RunFailed)
}

// timedOut runs a step of at most 3 attempts with 20 ms each, which sleeps
// 200 ms in the slow ones. It counts how often it came behind the sleep.
func timedOut(b *bed, slow func(attempt int) bool) (s *tries, after int, e *segno.RunError) {
	b.t.Helper()
	s = new(tries)
	r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
		Do: func(ctx context.Context, _ *cargo) (leg, error) {
			if slow(s.note(ctx)) {
				select {
				case <-ctx.Done():
					return "", ctx.Err()
				case <-time.After(200 * time.Millisecond):
				}
			}
			after++
			return done, nil
		},
		Timeout: 20 * time.Millisecond, Retry: segno.Fixed(3, time.Millisecond),
	})))
	id := r.trigger("f", cargo{})
	if slow(3) {
		e = r.ended(id, segno.RunFailed)
	} else {
		r.completed(id)
	}
	return s, after, e
}

// span returns the shortest and the longest wait between calls.
func span(s *tries) (low, high time.Duration) {
	low = time.Hour
	for n := 1; n < s.calls(); n++ {
		low, high = min(low, s.gap(n)), max(high, s.gap(n))
	}
	return low, high
}

// refused asserts that the policies cannot be registered.
func refused(t *testing.T, policies ...segno.Retry) {
	t.Helper()
	for _, p := range policies {
		err := segno.New("never-opened.db", segno.Options{}).Manual("f", oneStep(segno.Step[leg, cargo]{Do: to(done), Retry: p}))
		expectError(t, fmt.Sprintf("%+v", p), err, segno.ErrConfig)
	}
}
