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

// tries records when a step was called and with which attempt number.
type tries struct {
	mu       sync.Mutex
	at       []time.Time
	attempts []int
	keys     map[string]bool
}

// note is called at the beginning of a step.
func (s *tries) note(ctx context.Context) int {
	in := segno.InfoFrom(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = map[string]bool{}
	}
	s.at, s.attempts, s.keys[in.Key] = append(s.at, time.Now().UTC()), append(s.attempts, in.Attempt), true
	return in.Attempt
}

func (s *tries) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}

// numbers returns the attempt numbers of the calls.
func (s *tries) numbers() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.attempts)
}

// call returns when the nth call was, counted from 1.
func (s *tries) call(n int) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[n-1]
}

// gap returns the time between the nth call and the next.
func (s *tries) gap(n int) time.Duration { return s.call(n + 1).Sub(s.call(n)) }

// gaps returns all times between calls.
func (s *tries) gaps() string {
	var gaps []string
	for n := 1; n < s.calls(); n++ {
		gaps = append(gaps, s.gap(n).String())
	}
	return strings.Join(gaps, " ")
}

// failing is a step that notes its attempts and fails the first n of them.
func (s *tries) failing(n int) do {
	return func(ctx context.Context, _ *cargo) (leg, error) {
		if attempt := s.note(ctx); attempt <= n {
			return "", fmt.Errorf("%w in attempt %d", errTest, attempt)
		}
		return done, nil
	}
}

// plain is an exponential policy without jitter.
func plain(n int, initial time.Duration) segno.Retry {
	return segno.Retry{Attempts: n, Initial: initial, Jitter: -1}
}

func TestAStepTriesOnceUnlessAsked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(flowOf("f", one(s.failing(9))))
		id := r.trigger("f", cargo{})
		e := r.ended(id, segno.RunFailed)
		expect(t, "calls", s.calls(), 1)
		expect(t, "Attempt", e.Attempt, 1)
		expect(t, "log", r.log(id), "enter a, end a")
	})
}

func TestFixedWaitsTheSameEachTime(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		policy := segno.Fixed(4, 200*time.Millisecond)
		policy.Jitter = -1
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: s.failing(3), Retry: policy})))
		id := r.trigger("f", cargo{})
		r.completed(id)
		expect(t, "waits", s.gaps(), "200ms 200ms 200ms")
		expect(t, "attempts", s.numbers(), "[1 2 3 4]")
		expect(t, "different keys", len(s.keys), 1)
		expect(t, "log", r.log(id), "enter a, retry a, retry a, retry a, end done")
	})
}

func TestExponentialDoublesUpToItsCap(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		policy := plain(6, 100*time.Millisecond)
		policy.MaxDelay = 500 * time.Millisecond
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: s.failing(9), Retry: policy})))
		id := r.trigger("f", cargo{})
		e := r.ended(id, segno.RunFailed)
		expect(t, "waits", s.gaps(), "100ms 200ms 400ms 500ms 500ms")
		expect(t, "Attempt", e.Attempt, 6)
		expect(t, "Err", e.Err.Error(), "test: went wrong in attempt 6")
		entries := r.entries(id)
		expect(t, "error of the second retry", entries[2].Error, "test: went wrong in attempt 2")
		expect(t, "attempt of the second retry", entries[2].Attempt, 2)
	})
}

func TestTheNumberOfAttemptsIsTheTotal(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var exponential, fixed, single tries
		r := newBed(t).start(
			flowOf("exponential", oneStep(segno.Step[leg, cargo]{Do: exponential.failing(9), Retry: segno.Exponential(3)})),
			flowOf("fixed", oneStep(segno.Step[leg, cargo]{Do: fixed.failing(9), Retry: segno.Fixed(2, time.Millisecond)})),
			flowOf("single", oneStep(segno.Step[leg, cargo]{Do: single.failing(9), Retry: segno.Exponential(1)})),
		)
		for _, id := range []string{"exponential", "fixed", "single"} {
			r.ended(r.trigger(id, cargo{}), segno.RunFailed)
		}
		expect(t, "calls of Exponential(3)", exponential.calls(), 3)
		expect(t, "calls of Fixed(2, …)", fixed.calls(), 2)
		expect(t, "calls of Exponential(1)", single.calls(), 1)
	})
}

func TestTheDefaultWaitsStartAtATenthOfASecondWithATenthOfJitter(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: s.failing(3), Retry: segno.Exponential(4)})))
		r.completed(r.trigger("f", cargo{}))
		for i, want := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond} {
			got := s.gap(i + 1)
			if got < want*9/10 || got > want*11/10 {
				t.Errorf("wait %d: got = %v, want %v ± 10 %%", i+1, got, want)
			}
		}
	})
}

func TestPermanentIsNotRetried(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		calls := 0
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: func(context.Context, *cargo) (leg, error) {
				calls++
				return "", fmt.Errorf("wrapped: %w", segno.Permanent(errTest))
			},
			Retry: segno.Exponential(5),
		})))
		id := r.trigger("f", cargo{})
		e := r.ended(id, segno.RunFailed)
		expect(t, "calls", calls, 1)
		expect(t, "Err", e.Err.Error(), "wrapped: test: went wrong")
		expect(t, "log", r.log(id), "enter a, end a")
		expect(t, "Permanent(nil) is an error", segno.Permanent(nil) != nil, true)
		expectError(t, "Permanent unwrapped", segno.Permanent(errTest), errTest)
	})
}

func TestRetryAfterReplacesThePolicysWait(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		waits := []time.Duration{300 * time.Millisecond, 0, time.Hour}
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: func(ctx context.Context, _ *cargo) (leg, error) {
				if n := s.note(ctx); n <= len(waits) {
					return "", segno.RetryAfter(errTest, waits[n-1])
				}
				return done, nil
			},
			Retry: plain(4, 10*time.Second),
		})))
		r.completed(r.trigger("f", cargo{}))
		for i, want := range waits {
			if got := s.gap(i + 1); got < want || got > want+time.Millisecond {
				t.Errorf("wait %d: got = %v, want %v", i+1, got, want)
			}
		}
	})
}

func TestRetryAfterUsesUpAnAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		calls := 0
		again := func(context.Context, *cargo) (leg, error) {
			calls++
			return "", segno.RetryAfter(errTest, time.Millisecond)
		}
		r := newBed(t).start(flowOf("three", oneStep(segno.Step[leg, cargo]{Do: again, Retry: segno.Exponential(3)})), flowOf("one", one(again)))
		r.ended(r.trigger("three", cargo{}), segno.RunFailed)
		expect(t, "calls with three attempts", calls, 3)
		calls = 0
		r.ended(r.trigger("one", cargo{}), segno.RunFailed)
		expect(t, "calls without a retry policy", calls, 1)
	})
}

func TestAPanicIsAnErrorWithItsStackAndNotRetried(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		calls := 0
		w := oneStep(segno.Step[leg, cargo]{
			Do:    func(context.Context, *cargo) (leg, error) { calls++; panic("boom goes the step") },
			Retry: segno.Exponential(5),
		})
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		e := r.ended(id, segno.RunFailed)
		expectError(t, "the run", e, segno.ErrPanic)
		expect(t, "calls", calls, 1)
		for _, want := range []string{"boom goes the step", "retry_test.go"} {
			expect(t, "the text has "+want, strings.Contains(e.Error(), want), true)
		}
		expect(t, "the outcome is unknown", r.entries(id)[1].Uncertain, true)
		r = b.restart(flowOf("f", w))
		expectError(t, "the run after a restart", r.ended(id, segno.RunFailed), segno.ErrPanic)
	})
}

func TestAPanicIsRetriedIfThePolicySaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		policy := segno.Exponential(3)
		policy.Panics = true
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: func(ctx context.Context, _ *cargo) (leg, error) {
				if s.note(ctx) < 3 {
					panic(errTest)
				}
				return done, nil
			},
			Retry: policy,
		})))
		id := r.trigger("f", cargo{})
		r.completed(id)
		expect(t, "calls", s.calls(), 3)
		entries := r.entries(id)
		expect(t, "the retry's entry is uncertain", entries[1].Uncertain, true)
		expect(t, "the retry's cause", entries[1].Cause, "panic")
	})
}

func TestGoexitInAStepLosesTheGoroutineButNotTheRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		policy := segno.Exponential(3)
		policy.Panics = true
		var s tries
		exit := func(ctx context.Context, _ *cargo) (leg, error) {
			if s.note(ctx) < 3 {
				runtime.Goexit()
			}
			return done, nil
		}
		r := newBed(t).start(flowOf("once", one(exit)), flowOf("again", oneStep(segno.Step[leg, cargo]{Do: exit, Retry: policy})))
		once := r.trigger("once", cargo{})
		expectError(t, "without Retry.Panics", r.ended(once, segno.RunFailed), segno.ErrPanic)
		expect(t, "the text names it", strings.Contains(r.info(once).Error, "Goexit"), true)
		before := s.calls()
		r.completed(r.trigger("again", cargo{}))
		expect(t, "calls", s.calls()-before, 3)
		synctest.Wait()
		expect(t, "runs in hand afterwards", r.InHand(), 0)
		r.completed(r.trigger("again", cargo{}))
	})
}

func TestARetrysDueTimeOutlivesARestart(t *testing.T) {
	for name, stop := range map[string]func(*bed){"stop": (*bed).stop, "kill": (*bed).kill} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var s tries
				f := flowOf("f", oneStep(segno.Step[leg, cargo]{Do: s.failing(2), Retry: plain(3, time.Hour)}))
				r := b.start(f)
				id := r.trigger("f", cargo{})
				synctest.Wait()
				info := r.info(id)
				expect(t, "status while waiting", info.Status, segno.RunParked)
				expect(t, "attempt while waiting", info.Attempt, 2)
				expect(t, "due", info.Due, s.call(1).Add(time.Hour))
				expect(t, "goroutines in runs", r.InHand(), 0)

				stop(b)
				time.Sleep(20 * time.Minute)
				r = b.start(f)
				expect(t, "due after the restart", r.info(id).Due, info.Due)
				time.Sleep(40*time.Minute - time.Second)
				synctest.Wait()
				expect(t, "calls a second before", s.calls(), 1)
				time.Sleep(time.Second)
				synctest.Wait()
				expect(t, "calls when due", s.calls(), 2)

				stop(b) // the second wait is over before the next start
				time.Sleep(5 * time.Hour)
				r = b.start(f)
				r.completed(id)
				expect(t, "waits", s.gaps(), "1h0m0s 5h0m0s")
				expect(t, "attempts", s.numbers(), "[1 2 3]")
				expect(t, "crashes counted", strings.Contains(r.log(id), "crash"), false)
			})
		})
	}
}

func TestAShortRetryWaitOutlivesARestart(t *testing.T) {
	for name, stop := range map[string]func(*bed){"stop": (*bed).stop, "kill": (*bed).kill} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var s tries
				f := flowOf("f", oneStep(segno.Step[leg, cargo]{Do: s.failing(1), Retry: plain(2, 900*time.Millisecond)}))
				r := b.start(f)
				id := r.trigger("f", cargo{})
				time.Sleep(300 * time.Millisecond)
				synctest.Wait()
				expect(t, "status in a short wait", r.info(id).Status, segno.RunRunning)
				stop(b)
				r = b.start(f)
				r.completed(id)
				expect(t, "waits", s.gaps(), "900ms")
				expect(t, "attempts", s.numbers(), "[1 2]")
				expect(t, "log, where a sleeping run is innocent of the crash", r.log(id), "enter a, retry a, end done")
			})
		})
	}
}

func TestACrashUsesUpNoAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		f := flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: func(ctx context.Context, _ *cargo) (leg, error) {
				switch n := s.note(ctx); {
				case s.calls() == 1, n == 3:
					<-ctx.Done()
					return "", ctx.Err()
				case n < 4:
					return "", errTest
				}
				return done, nil
			},
			Retry: plain(4, time.Millisecond),
		}))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r = b.restart(f) // dies in attempt 1
		time.Sleep(time.Second)
		synctest.Wait()
		expect(t, "attempts up to the second crash", s.numbers(), "[1 1 2 3]")
		expect(t, "crashes", r.info(id).Crashes, 1)
		expect(t, "attempt", r.info(id).Attempt, 3)
		r = b.restart(f) // dies in attempt 3
		synctest.Wait()
		expect(t, "crashes in one visit add up over its attempts", r.info(id).Crashes, 2)
		b.restart(f)
		synctest.Wait()
		expect(t, "attempts", s.numbers(), "[1 1 2 3 3 3]")
		b.kill()
	})
}

func TestRetryDelaysNeverExceedTheirCap(t *testing.T) {
	for _, p := range []segno.BackoffPolicy{
		{},
		{Initial: 150 * time.Millisecond, MaxDelay: 600 * time.Millisecond},
		{Initial: time.Second, MaxDelay: 1200 * time.Millisecond, Jitter: 0.5},
		{Initial: time.Minute, MaxDelay: time.Second, Jitter: 1},
		{Initial: time.Hour, Multiplier: 1e300, Jitter: 0.3},
	} {
		limit := p.MaxDelay
		if limit == 0 {
			limit = max(300*time.Second, p.Initial)
		}
		for streak := -1; streak < 200; streak++ {
			if d := p.Delay(streak); d < 0 || d > limit {
				t.Fatalf("%+v.Delay(%d): got = %v, want at most %v", p, streak, d, limit)
			}
		}
	}
}

func TestAStepsOwnCanceledErrorIsAFailure(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
			own, cancel := context.WithCancel(ctx)
			cancel()
			return "", fmt.Errorf("asking the bank: %w", own.Err())
		}))
		r := newBed(t).start(f)
		e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "Err", e.Err.Error(), "asking the bank: context canceled")
		expect(t, "streak", r.status("f").FailureStreak, 1)
		expect(t, "status", r.status("f").Status, segno.StatusBackoff)
	})
}

func TestTheErrorOfAnotherRunIsAnOrdinaryError(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		b.opts.MaxConcurrent = 10
		var r *live
		calls := 0
		r = b.start(
			flowOf("inner", one(func(context.Context, *cargo) (leg, error) { panic("inner") })),
			flowOf("outer", oneStep(segno.Step[leg, cargo]{
				Do: func(ctx context.Context, _ *cargo) (leg, error) {
					calls++
					id, err := r.Trigger(ctx, "inner", segno.Trigger{Reset: true})
					if err == nil {
						_, err = r.WaitRun(ctx, id)
					}
					return "", err
				},
				Retry: segno.Exponential(3),
			})),
		)
		e := r.ended(r.trigger("outer", cargo{}), segno.RunFailed)
		expect(t, "calls: the outer step did not panic", calls, 3)
		expect(t, "the outer error is a RunError of the outer run", e.Flow, "outer")
		var inner *segno.RunError
		expect(t, "the stored error is text", errors.As(e.Err, &inner), false)
	})
}
