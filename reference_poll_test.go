package segno_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// referencePoll are the rows of the tasks' groups P and M: polls and timers.
func referencePoll() map[string]func(*testing.T) {
	return map[string]func(*testing.T){
		"P01_poll_immediate":       polls("R", 0, ""),
		"P02_poll_counts":          polls("PPR", 0, ""),
		"P03_poll_failfast":        polls("E", 0, "poll 1: test: went wrong"),
		"P04_poll_budget_ok":       polls("EER", 2, ""),
		"P05_poll_budget_exceeded": polls("EEE", 2, "poll 3: test: went wrong"),
		"P06_poll_pending_resets":  polls("EPER", 1, ""),
		"P07_poll_two_bursts":      polls("EEPEER", 2, ""),
		"P08_poll_loop_timeout": inRow(func(t *testing.T, b *bed) {
			n := 0
			r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
				Do: segno.Poll(func(context.Context, *cargo) (leg, time.Duration, error) {
					n++
					return "", 30 * time.Millisecond, nil
				}),
				Timeout: 200 * time.Millisecond, Retry: segno.Fixed(3, time.Millisecond),
			})))
			begin := time.Now()
			e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expectError(t, "Err", e.Err, context.DeadlineExceeded)
			expect(t, "took", time.Since(begin), 200*time.Millisecond)
			expect(t, "polls", n, 7)
		}),
		"P09_poll_cancel": inRow(func(t *testing.T, b *bed) {
			r := b.start(flowOf("f", one(segno.Poll(func(context.Context, *cargo) (leg, time.Duration, error) {
				return "", time.Hour, nil
			}))))
			id := r.trigger("f", cargo{})
			time.Sleep(time.Minute)
			cancelledAtOnce(r, id)
		}),
		"P10_poll_zero_delay_cancellable": inRow(func(t *testing.T, b *bed) {
			n := 0
			r := b.start(flowOf("f", one(segno.Poll(func(context.Context, *cargo) (leg, time.Duration, error) {
				n++
				return "", time.Nanosecond, nil
			}))))
			id := r.trigger("f", cargo{})
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
			if n < 400 || n > 501 {
				t.Errorf("polls in half a second: got = %d, want one a millisecond", n)
			}
			cancelledAtOnce(r, id)
		}),
		"P11_poll_restart_due": inRow(func(t *testing.T, b *bed) {
			var s tries
			f := flowOf("f", one(segno.Poll(func(ctx context.Context, _ *cargo) (leg, time.Duration, error) {
				s.note(ctx)
				return done, time.Duration(2-s.calls()) * 10 * time.Second, nil
			})))
			id := b.start(f).trigger("f", cargo{})
			time.Sleep(5 * time.Second)
			b.kill()
			b.start(f).completed(id)
			expect(t, "waits", s.gaps(), "10s")
		}),
		"P12_poll_error_count_kept": inRow(func(t *testing.T, b *bed) {
			n := 0
			f := flowOf("f", one(segno.Poll(func(context.Context, *cargo) (leg, time.Duration, error) {
				n++
				return "", 0, errTest
			}, segno.PollOptions{Tolerate: 2})))
			id := b.start(f).trigger("f", cargo{})
			time.Sleep(1500 * time.Millisecond)
			expect(t, "polls before the crash", n, 2)
			b.kill()
			b.start(f).ended(id, segno.RunFailed)
			expect(t, "polls", n, 3)
		}),
		"P13_poll_deadline_absolute": inRow(func(t *testing.T, b *bed) {
			f := flowOf("f", oneStep(segno.Step[leg, cargo]{
				Do:      segno.Poll(func(context.Context, *cargo) (leg, time.Duration, error) { return "", 2 * time.Second, nil }),
				Timeout: time.Minute,
			}))
			begin := time.Now()
			id := b.start(f).trigger("f", cargo{})
			time.Sleep(50 * time.Second)
			b.kill()
			time.Sleep(5 * time.Second)
			expectError(t, "Err", b.start(f).ended(id, segno.RunFailed).Err, context.DeadlineExceeded)
			expect(t, "took, with the time down", time.Since(begin), time.Minute)
		}),
		"M01_timer_zero": inRow(func(t *testing.T, b *bed) {
			s := new(tally)
			r := b.start(flowOf("f", one(timer(s, func() time.Time { return time.Now() }, to(done)))), flowOf("sleep", one(segno.Sleep[cargo](0, done))))
			begin := time.Now()
			r.completed(r.trigger("f", cargo{}))
			r.completed(r.trigger("sleep", cargo{}))
			expect(t, "took", time.Since(begin), 0)
			expect(t, "called", s.String(), "until then")
		}),
		"M02_timer_past": inRow(func(t *testing.T, b *bed) {
			s := new(tally)
			r := b.start(flowOf("f", one(timer(s, func() time.Time { return time.Now().Add(-time.Hour) }, to(done)))))
			begin := time.Now()
			r.completed(r.trigger("f", cargo{}))
			expect(t, "took", time.Since(begin), 0)
			expect(t, "called", s.String(), "until then")
		}),
		"M03_timer_single_wake": inRow(func(t *testing.T, b *bed) {
			s := new(tally)
			r := b.start(flowOf("f", one(timer(s, in(30*time.Second), to(done)))))
			begin := time.Now()
			id := r.trigger("f", cargo{})
			synctest.Wait()
			expect(t, "goroutines in runs", r.InHand(), 0)
			parked := b.commits.Load()
			time.Sleep(29 * time.Second)
			expect(t, "commits while it waits", b.commits.Load()-parked, 0)
			r.completed(id)
			expect(t, "took", time.Since(begin), 30*time.Second)
			expect(t, "called", s.String(), "until then")
		}),
		"M04_timer_wait_error": inRow(func(t *testing.T, b *bed) {
			s := new(tally)
			r := b.start(flowOf("f", one(segno.Timer(func(context.Context, *cargo) (time.Time, error) {
				return time.Now().Add(time.Hour), errTest
			}, says(s, "then", to(done))))))
			begin := time.Now()
			e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expect(t, "Err", e.Err.Error(), errTest.Error())
			expect(t, "took", time.Since(begin), 0)
			expect(t, "called", s.String(), "")
		}),
		"M05_timer_after_error": inRow(func(t *testing.T, b *bed) {
			s := new(tally)
			r := b.start(flowOf("f", one(timer(s, in(time.Minute), fail))))
			e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expect(t, "Err", e.Err.Error(), errTest.Error())
			expect(t, "called", s.String(), "until then")
		}),
		"M06_timer_timeout": inRow(func(t *testing.T, b *bed) {
			s := new(tally)
			r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: timer(s, in(time.Hour), to(done)), Timeout: 50 * time.Millisecond})))
			begin := time.Now()
			e := r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			expectError(t, "Err", e.Err, context.DeadlineExceeded)
			expect(t, "took", time.Since(begin), 50*time.Millisecond)
			expect(t, "called", s.String(), "until")
		}),
		"M07_timer_cancel": inRow(func(t *testing.T, b *bed) {
			s := new(tally)
			r := b.start(flowOf("f", one(timer(s, in(time.Hour), to(done)))))
			id := r.trigger("f", cargo{})
			time.Sleep(time.Minute)
			cancelledAtOnce(r, id)
			expect(t, "called", s.String(), "until")
		}),
		"M08_timer_restart": inRow(func(t *testing.T, b *bed) {
			s := new(tally)
			f := flowOf("f", one(timer(s, in(30*time.Minute), to(done))))
			begin := time.Now()
			id := b.start(f).trigger("f", cargo{})
			time.Sleep(29 * time.Minute)
			b.kill()
			b.start(f).completed(id)
			expect(t, "took", time.Since(begin), 30*time.Minute)
			expect(t, "called", s.String(), "until then")
		}),
		"M09_timer_elapsed_down": inRow(func(t *testing.T, b *bed) {
			s := new(tally)
			f := flowOf("f", one(timer(s, in(30*time.Minute), to(done))))
			id := b.start(f).trigger("f", cargo{})
			time.Sleep(time.Minute)
			b.kill()
			time.Sleep(24 * time.Hour)
			begin := time.Now()
			b.start(f).completed(id)
			expect(t, "took behind the start", time.Since(begin), 0)
			expect(t, "called", s.String(), "until then")
		}),
		"M10_timer_clock_back": inRow(func(t *testing.T, b *bed) { // a Sleep is a duration; a Timer's instant is wall time
			s := new(tally)
			flows := []segno.Flow{flowOf("sleep", one(segno.Sleep[cargo](30*time.Minute, done))), flowOf("timer", one(timer(s, in(30*time.Minute), to(done))))}
			r := b.start(flows...)
			sleep, until := r.trigger("sleep", cargo{}), r.trigger("timer", cargo{})
			time.Sleep(10 * time.Minute)
			b.kill()
			b.stepClock(-time.Hour)
			r = b.start(flows...)
			begin := time.Now()
			r.completed(sleep)
			expect(t, "the Sleep goes on for", time.Since(begin), 30*time.Minute)
			r.completed(until)
			expect(t, "the Timer goes on for", time.Since(begin), 80*time.Minute)
		}),
		"M11_timer_fired_phase": inRow(func(t *testing.T, b *bed) {
			s := new(tally)
			alive := false
			f := flowOf("f", one(timer(s, in(time.Hour), unless(&alive, done))))
			id := b.start(f).trigger("f", cargo{})
			time.Sleep(time.Hour)
			synctest.Wait()
			b.kill()
			alive = true
			begin := time.Now()
			b.start(f).completed(id)
			expect(t, "took behind the start", time.Since(begin), 0)
			expect(t, "called", s.String(), "until then then")
		}),
	}
}

// polls makes a row of a poll that follows a script: E is an error, P is
// pending, R is ready. It must come to the end of the script, and fail with the
// given text if there is one. The step's own Retry is left alone.
func polls(script string, tolerate int, text string) func(*testing.T) {
	return inRow(func(t *testing.T, b *bed) {
		n := 0
		r := b.start(flowOf("f", one(segno.Poll(func(context.Context, *cargo) (leg, time.Duration, error) {
			n++
			switch script[n-1] {
			case 'E':
				return "", 0, fmt.Errorf("poll %d: %w", n, errTest)
			case 'P':
				return "", 20 * time.Millisecond, nil
			}
			return done, 0, nil
		}, segno.PollOptions{Tolerate: tolerate}))))
		id := r.trigger("f", cargo{})
		if text == "" {
			r.completed(id)
		} else {
			expect(t, "Err", r.ended(id, segno.RunFailed).Err.Error(), text)
		}
		expect(t, "polls", n, len(script))
	})
}

// timer is a Timer that notes its calls.
func timer(said *tally, at func() time.Time, then do) do {
	return segno.Timer(func(context.Context, *cargo) (time.Time, error) {
		said.add("until")
		return at(), nil
	}, says(said, "then", then))
}

// in is an instant that is d away.
func in(d time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(d) }
}

// cancelledAtOnce cancels a run, which must end without any time passing.
func cancelledAtOnce(r *live, id segno.RunID) {
	r.t.Helper()
	begin := time.Now()
	expectError(r.t, "CancelRun", r.CancelRun(context.Background(), id), nil)
	e := r.ended(id, segno.RunCancelled)
	expect(r.t, "it is a cancel", errors.Is(e, context.Canceled), true)
	expect(r.t, "took", time.Since(begin) <= time.Millisecond, true)
}
