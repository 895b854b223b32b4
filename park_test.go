package segno_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// toldSchema makes the table that the OnCommit tests write to.
func toldSchema(tx segno.Tx) error {
	_, err := tx.Exec("CREATE TABLE IF NOT EXISTS told (what TEXT)")
	return err
}

// tell writes a row with the commit of the unit in flight.
func tell(ctx context.Context, what string) error {
	return segno.OnCommit(ctx, func(tx segno.Tx) error {
		_, err := tx.Exec("INSERT INTO told VALUES (?)", what)
		return err
	})
}

// told returns what was written so far.
func (l *live) told() string {
	l.t.Helper()
	lines, err := queryLines(l.DB(), "SELECT what FROM told ORDER BY rowid")
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.Join(lines, " ")
}

func TestOnCommitJoinsTheTransition(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		r := b.start(flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
			return done, errors.Join(tell(ctx, "first"), tell(ctx, "second"))
		})))
		synctest.Wait()
		before := b.commits.Load()
		r.completed(r.trigger("f", cargo{}))
		expect(t, "commits", b.commits.Load()-before, 2)
		expect(t, "rows", r.told(), "first second")
	})
}

func TestOnCommitIsDroppedWithAFailedAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: func(ctx context.Context, _ *cargo) (leg, error) {
				attempt := segno.InfoFrom(ctx).Attempt
				if err := tell(ctx, fmt.Sprintf("attempt-%d", attempt)); err != nil {
					return "", err
				}
				switch attempt {
				case 1:
					return "", errTest
				case 2:
					panic("no")
				case 3:
					<-ctx.Done()
					return "", ctx.Err()
				}
				return done, nil
			},
			Timeout: time.Second, Retry: segno.Retry{Attempts: 4, Initial: time.Millisecond, Panics: true},
		})))
		r.completed(r.trigger("f", cargo{}))
		expect(t, "rows", r.told(), "attempt-4")
	})
}

func TestOnCommitIsDroppedWithAWrongTransition(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		r := b.start(flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) { return "mars", tell(ctx, "x") })))
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "rows", r.told(), "")
	})
}

func TestAFailedOnCommitFailsTheAttempt(t *testing.T) {
	for name, fault := range map[string]func(segno.Tx) error{
		"error":      func(segno.Tx) error { return errTest },
		"panic":      func(segno.Tx) error { panic(errTest) },
		"goexit":     func(segno.Tx) error { runtime.Goexit(); return nil },
		"constraint": func(tx segno.Tx) error { _, err := tx.Exec("INSERT INTO told VALUES (1 / 0, 2)"); return err },
		"commit":     func(tx segno.Tx) error { _, err := tx.Exec("COMMIT"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t).with(segno.Options{Schema: toldSchema})
				step := segno.Step[leg, cargo]{
					Do: func(ctx context.Context, c *cargo) (leg, error) {
						c.N = segno.InfoFrom(ctx).Attempt
						if err := tell(ctx, fmt.Sprintf("attempt-%d", c.N)); err != nil {
							return "", err
						}
						if c.N < 3 {
							return done, segno.OnCommit(ctx, fault)
						}
						return done, nil
					},
					Retry: segno.Retry{Attempts: 3, Initial: time.Millisecond, Panics: true},
				}
				r := b.start(flowOf("retried", oneStep(step)), flowOf("once", oneStep(segno.Step[leg, cargo]{Do: step.Do})))
				id := r.trigger("retried", cargo{})
				expect(t, "data", string(r.completed(id).Data), `{"n":3}`)
				expect(t, "log", r.log(id), "enter a, retry a, retry a, end done")
				expect(t, "rows", r.told(), "attempt-3")
				id = r.trigger("once", cargo{})
				e := r.ended(id, segno.RunFailed)
				expect(t, "the text says where", strings.Contains(e.Error(), "on commit"), true)
				expect(t, "rows", r.told(), "attempt-3")
				expect(t, "data", string(r.info(id).Data), `{}`)
				if name == "panic" || name == "goexit" {
					expectError(t, "the run", e, segno.ErrPanic)
				}
				if name == "commit" {
					expect(t, "the text names the statement", strings.Contains(e.Error(), "COMMIT"), true)
				}
			})
		})
	}
}

func TestAPanicInOnCommitIsNotRetriedUnlessAsked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: func(ctx context.Context, _ *cargo) (leg, error) {
				s.note(ctx)
				return done, segno.OnCommit(ctx, func(segno.Tx) error { panic("on the writer") })
			},
			Retry: segno.Exponential(3),
		})))
		expectError(t, "the run", r.ended(r.trigger("f", cargo{}), segno.RunFailed), segno.ErrPanic)
		expect(t, "calls", s.calls(), 1)
	})
}

func TestOnCommitHappensOnceHoweverOftenTheProcessDies(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		var calls tally
		f := flowOf("f", route{Initial: legA, Steps: legs{
			legA: {Do: func(ctx context.Context, _ *cargo) (leg, error) {
				if err := tell(ctx, "a"); err != nil {
					return "", err
				}
				if calls.add("a") < 3 {
					<-ctx.Done()
				}
				return legB, nil
			}},
			legB: {Do: func(ctx context.Context, _ *cargo) (leg, error) { return done, tell(ctx, "b") }},
			done: {Final: true},
		}})
		r := b.start(f)
		id := r.trigger("f", cargo{})
		for range 2 {
			synctest.Wait()
			b.dead.Store(true)
			r = b.restart(f)
		}
		r.completed(id)
		expect(t, "calls", calls.String(), "a a a")
		expect(t, "rows", r.told(), "a b")
	})
}

func TestTriggerInOnCommitIsOfTheSameCommit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var ids []segno.RunID
		spawn := func(ctx context.Context, fails bool) error {
			return segno.OnCommit(ctx, func(tx segno.Tx) error {
				id, err := tx.Trigger("g", segno.Trigger{Input: cargo{N: 7}})
				ids = append(ids, id)
				if fails {
					return errTest
				}
				return err
			})
		}
		r := b.start(
			flowOf("f", oneStep(segno.Step[leg, cargo]{
				Do: func(ctx context.Context, _ *cargo) (leg, error) {
					return done, spawn(ctx, segno.InfoFrom(ctx).Attempt == 1)
				},
				Retry: segno.Fixed(2, time.Millisecond),
			})),
			segno.Flow{ID: "g", Workflow: one(to(done)), Overlap: segno.Allow(0)},
		)
		synctest.Wait()
		before := b.commits.Load()
		r.completed(r.trigger("f", cargo{}))
		runs := r.runs("g")
		if len(runs) != 1 || len(ids) != 2 || runs[0].ID != ids[1] {
			t.Fatalf("runs of g: got = %v from triggers %v, want the second alone", runs, ids)
		}
		expect(t, "data of g's run", string(r.completed(ids[1]).Data), `{"n":7}`)
		expect(t, "commits: begin, the failed one, the retry, the end with g's begin, g's end", b.commits.Load()-before, 5)
		expect(t, "run count of g", r.status("g").RunCount, 1)
	})
}

func TestTheErrorsOfTriggerInATxAreThoseOfTrigger(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(hold)))
		id := r.trigger("f", cargo{})
		var kept segno.Tx
		err := r.Write(context.Background(), func(tx segno.Tx) error {
			kept = tx
			_, unknown := tx.Trigger("x", segno.Trigger{})
			expectError(t, "an unknown flow", unknown, segno.ErrNotFound)
			_, running := tx.Trigger("f", segno.Trigger{})
			expectError(t, "a running flow", running, segno.ErrRunning)
			_, input := tx.Trigger("f", segno.Trigger{Input: "text"})
			expectError(t, "a wrong input", input, segno.ErrConfig)
			return nil
		})
		if err != nil {
			t.Errorf("Write: got error %v, want none", err)
		}
		_, err = kept.Trigger("f", segno.Trigger{})
		expectError(t, "a Tx after its function", err, segno.ErrTx)
		r.cancel(id)
		r.ended(id, segno.RunCancelled)
	})
}

func TestMemosOutliveAttemptsAndCrashesButNotTheVisit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		crash := true
		f := flowOf("f", route{Initial: legA, Steps: legs{
			legA: {
				Do: func(ctx context.Context, _ *cargo) (leg, error) {
					n, found, err := segno.LoadMemo[int](ctx, "n")
					said.add("%d:%v", n, found)
					if err = errors.Join(err, segno.SaveMemo(ctx, "n", n+1)); err != nil {
						return "", err
					}
					if again, _, _ := segno.LoadMemo[int](ctx, "n"); again != n+1 {
						return "", fmt.Errorf("read %d behind writing %d", again, n+1)
					}
					switch {
					case n == 0:
						return "", errTest
					case n == 1 && crash:
						<-ctx.Done()
						return "", ctx.Err()
					case n == 2:
						return "", segno.Snooze(time.Minute)
					}
					return legB, nil
				},
				Retry: segno.Fixed(2, time.Millisecond),
			},
			legB: {Do: func(ctx context.Context, _ *cargo) (leg, error) {
				n, found, err := segno.LoadMemo[int](ctx, "n")
				said.add("b:%d:%v", n, found)
				return done, err
			}},
			done: {Final: true},
		}})
		r := b.start(f)
		id := r.trigger("f", cargo{})
		time.Sleep(time.Second)
		synctest.Wait()
		crash = false
		r = b.restart(f)
		r.completed(id)
		expect(t, "memos found", said.String(), "0:false 1:true 2:true 3:true b:0:false")
		lines, err := queryLines(r.DB(), "SELECT count(*) FROM _segno_memo")
		expect(t, "memos left in the file", fmt.Sprint(lines, err), "[0] <nil>")
	})
}

// However much runs that wake together have in their memos, each finds its own.
func TestRunsThatWakeTogetherFindTheirMemos(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		f := flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
			size := 1 << (4 * (segno.InfoFrom(ctx).Run % 6)) // up to 1 MiB
			kept, found, err := segno.LoadMemo[string](ctx, "k")
			if err == nil && !found {
				err = errors.Join(segno.SaveMemo(ctx, "k", strings.Repeat("x", size)), segno.Snooze(time.Hour))
			} else if err == nil && len(kept) != size {
				err = fmt.Errorf("found %d bytes, want %d", len(kept), size)
			}
			return done, err
		}))
		f.Overlap = segno.Allow(0)
		r := newBed(t).start(f)
		var ids []segno.RunID
		for range 12 {
			ids = append(ids, r.trigger("f", cargo{}))
		}
		for _, id := range ids {
			r.completed(id)
		}
		lines, err := queryLines(r.DB(), "SELECT count(*) FROM _segno_memo")
		expect(t, "memos left in the file", fmt.Sprint(lines, err), "[0] <nil>")
	})
}

func TestAMemoOfAnotherTypeIsAnError(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
			if err := segno.SaveMemo(ctx, "k", "text"); err != nil {
				return "", err
			}
			if _, _, err := segno.LoadMemo[int](ctx, "k"); err == nil {
				return "", errors.New("a text was read as a number")
			}
			if err := segno.SaveMemo(ctx, "f", func() {}); !errors.Is(err, segno.ErrConfig) {
				return "", fmt.Errorf("a function was saved: %v", err)
			}
			return done, nil
		})))
		r.completed(r.trigger("f", cargo{}))
	})
}

func TestMemosOfAClosedVisitAreNotSeenInItsUndo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		w := saga(1, &said, nil)
		look := func(ctx context.Context, _ cargo) error {
			_, found, err := segno.LoadMemo[int](ctx, "k")
			said.add("%v", found)
			return err
		}
		change(w, "s1", func(s *segno.Step[leg, cargo]) { s.Undo = look })
		w.Steps["s2"] = segno.Step[leg, cargo]{
			Do: func(ctx context.Context, _ *cargo) (leg, error) {
				return "", errors.Join(segno.SaveMemo(ctx, "k", 1), errTest)
			},
		}
		r := newBed(t).start(flowOf("f", w))
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "found in the undo", said.String(), "false")
	})
}

func TestSnoozeIsASuccessThatStays(t *testing.T) {
	for _, d := range []time.Duration{500 * time.Millisecond, time.Hour} {
		t.Run(d.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t).with(segno.Options{Schema: toldSchema})
				var s tries
				r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
					Do: func(ctx context.Context, c *cargo) (leg, error) {
						switch s.note(ctx); s.calls() {
						case 1, 3:
							return "", errTest
						case 2, 4:
							c.N++
							return "", errors.Join(tell(ctx, fmt.Sprint(c.N)), segno.Snooze(d))
						}
						return done, nil
					},
					Retry: plain(2, time.Millisecond),
				})))
				id := r.trigger("f", cargo{})
				info := r.completed(id)
				expect(t, "attempt numbers: a snooze returns to 1", s.numbers(), "[1 2 1 2 1]")
				expect(t, "gaps", s.gaps(), fmt.Sprintf("1ms %v 1ms %v", d, d))
				expect(t, "data", string(info.Data), `{"n":2}`)
				expect(t, "rows", r.told(), "1 2")
				expect(t, "log: no entry for a snooze", r.log(id), "enter a, retry a, retry a, end done")
				expect(t, "visit", r.entries(id)[2].Visit, 1)
			})
		})
	}
}

func TestALongSnoozeGivesUpItsGoroutine(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{ParkAfter: 10 * time.Second})
		snooze := func(d time.Duration) route {
			return one(func(context.Context, *cargo) (leg, error) { return "", segno.Snooze(d) })
		}
		r := b.start(flowOf("short", snooze(10*time.Second-time.Millisecond)), flowOf("long", snooze(10*time.Second)))
		short, long := r.trigger("short", cargo{}), r.trigger("long", cargo{})
		synctest.Wait()
		expect(t, "status of the short one", r.info(short).Status, segno.RunRunning)
		expect(t, "status of the long one", r.info(long).Status, segno.RunParked)
		expect(t, "goroutines in runs", r.InHand(), 1)
		expect(t, "due", r.info(long).Due, time.Now().Add(10*time.Second).UTC())
	})
}

func TestSnoozeUntilWaitsForAnInstant(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		at := time.Now().Add(90 * time.Minute)
		var s tries
		f := flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
			if s.note(ctx); s.calls() == 1 {
				return "", segno.SnoozeUntil(at)
			}
			return done, nil
		}))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.kill()
		time.Sleep(80 * time.Minute)
		r = b.start(f)
		r.completed(id)
		expect(t, "woken", s.call(2), at.UTC())
	})
}

func TestASnoozeToThePastGoesOnAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
			switch s.note(ctx); s.calls() {
			case 1:
				return "", segno.SnoozeUntil(time.Now().Add(-time.Hour))
			case 2:
				return "", segno.Snooze(-time.Hour)
			}
			return done, nil
		})))
		r.completed(r.trigger("f", cargo{}))
		expect(t, "calls", s.calls(), 3)
		expect(t, "the last wait", s.gap(2), time.Millisecond)
	})
}

func TestShortSnoozesWithoutChangesAreCommittedOncePerParkAfter(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var calls tally
		change := false
		r := b.start(flowOf("f", one(func(_ context.Context, c *cargo) (leg, error) {
			if calls.add("x") == 500 {
				return done, nil
			}
			if change {
				c.N++
			}
			return "", segno.Snooze(10 * time.Millisecond)
		})))
		synctest.Wait()
		before := b.commits.Load()
		r.completed(r.trigger("f", cargo{}))
		n := b.commits.Load() - before
		if n < 2+4 || n > 2+5 {
			t.Errorf("commits in 5 s of 10 ms snoozes: got = %d, want begin, end and at most one per second", n)
		}
		calls.take()
		for range 400 {
			calls.add("x")
		}
		change = true
		synctest.Wait()
		before = b.commits.Load()
		r.completed(r.trigger("f", cargo{}))
		expect(t, "commits if each changes the data", b.commits.Load()-before, 2+99)
	})
}

func TestACrashRepeatsAtMostParkAfterOfUnchangedSnoozes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var calls tally
		f := flowOf("f", one(segno.Poll(func(ctx context.Context, _ *cargo) (leg, time.Duration, error) {
			if calls.add("x") == 1200 {
				return done, 0, nil
			}
			return "", 10 * time.Millisecond, nil
		})))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		time.Sleep(5555 * time.Millisecond)
		synctest.Wait()
		before := calls.len()
		r = b.restart(f)
		synctest.Wait()
		lines, err := queryLines(r.DB(), "SELECT polls FROM _segno_run WHERE run = ?", id)
		if err != nil || len(lines) != 1 {
			t.Fatal(lines, err)
		}
		var polls int
		_, _ = fmt.Sscan(lines[0], &polls)
		if lost := before - polls; lost < 0 || lost > 101 {
			t.Errorf("polls lost by the crash: got = %d of %d, want at most a second's", lost, before)
		}
		r.completed(id)
	})
}

func TestPollAsksUntilItIsReady(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		waits := []time.Duration{time.Nanosecond, 300 * time.Millisecond, time.Minute, 0}
		r := newBed(t).start(flowOf("f", one(segno.Poll(func(ctx context.Context, c *cargo) (leg, time.Duration, error) {
			s.note(ctx)
			c.N++
			return done, waits[s.calls()-1], nil
		}))))
		info := r.completed(r.trigger("f", cargo{}))
		expect(t, "gaps: never below 1 ms", s.gaps(), "1ms 300ms 1m0s")
		expect(t, "data", string(info.Data), `{"n":4}`)
		expect(t, "attempt numbers", s.numbers(), "[1 1 1 1]")
	})
}

func TestPollToleratesErrorsInARow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var calls tally
		script := "eeoeeeeo" // of two tolerated: the seventh is one too many
		f := flowOf("f", oneStep(segno.Step[leg, cargo]{Do: segno.Poll(func(context.Context, *cargo) (leg, time.Duration, error) {
			n := calls.add("x")
			if script[n-1] == 'e' {
				return "", 0, fmt.Errorf("%w in poll %d", errTest, n)
			}
			return "", time.Minute, nil
		}, segno.PollOptions{Tolerate: 2})}))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		time.Sleep(61 * time.Second)
		synctest.Wait()
		r = b.restart(f) // the count of errors goes on
		e := r.ended(id, segno.RunFailed)
		expect(t, "polls", calls.len(), 6)
		expect(t, "Err", e.Err.Error(), "test: went wrong in poll 6")
	})
}

func TestAPollThatFailsIsRetriedByItsStep(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: segno.Poll(func(ctx context.Context, _ *cargo) (leg, time.Duration, error) {
				if n := s.note(ctx); n < 3 {
					return "", 0, errTest
				}
				return done, 0, nil
			}),
			Retry: plain(3, time.Second),
		})))
		r.completed(r.trigger("f", cargo{}))
		expect(t, "gaps", s.gaps(), "1s 2s")
	})
}

func TestATimersInstantIsAskedForOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		at := time.Now().Add(2 * time.Hour).Add(123 * time.Nanosecond)
		f := flowOf("f", one(segno.Timer(
			func(_ context.Context, c *cargo) (time.Time, error) {
				said.add("until")
				c.N++
				return at, nil
			},
			func(_ context.Context, c *cargo) (leg, error) {
				said.add("%v", time.Now().Before(at))
				c.N *= 10
				return done, nil
			})))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		for range 3 {
			b.kill()
			time.Sleep(30 * time.Minute)
			r = b.start(f)
			synctest.Wait()
		}
		info := r.completed(id)
		expect(t, "said", said.String(), "until false")
		expect(t, "data", string(info.Data), `{"n":10}`)
		if late := time.Since(at); late < 0 || late > time.Millisecond {
			t.Errorf("late: got = %v, want less than a millisecond", late)
		}
	})
}

func TestATimerThatFailsToAskIsRetried(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: segno.Timer(func(ctx context.Context, _ *cargo) (time.Time, error) {
				if s.note(ctx) == 1 {
					return time.Time{}, errTest
				}
				return time.Now().Add(time.Minute), nil
			}, to(done)),
			Retry: plain(2, time.Second),
		})))
		begin := time.Now()
		r.completed(r.trigger("f", cargo{}))
		expect(t, "took", time.Since(begin), 61*time.Second)
	})
}

func TestASleepGoesOnOverRestarts(t *testing.T) {
	for _, d := range []time.Duration{700 * time.Millisecond, time.Hour} {
		t.Run(d.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				f := flowOf("f", route{Initial: legA, Steps: legs{
					legA: {Do: segno.Sleep[cargo](d, legB)},
					legB: {Do: segno.Sleep[cargo](0, done)},
					done: {Final: true},
				}})
				begin := time.Now()
				r := b.start(f)
				id := r.trigger("f", cargo{})
				time.Sleep(d / 2)
				synctest.Wait()
				b.kill()
				time.Sleep(d / 4)
				r = b.start(f)
				r.completed(id)
				expect(t, "took", time.Since(begin), d)
			})
		})
	}
}

func TestASleepIsNeverLongerThanItSays(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		f := flowOf("f", one(segno.Sleep[cargo](900*time.Millisecond, done)))
		b.stepClock(24 * time.Hour) // the first start's clock is a day ahead
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.stepClock(0)
		r = b.restart(f)
		begin := time.Now()
		r.completed(id)
		expect(t, "took", time.Since(begin), 900*time.Millisecond)
	})
}

// A run that a Stop has suspended goes on at once, whatever the clock shows then.
func TestASuspendedRunDoesNotWaitForTheClock(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		stopped := true
		f := flowOf("f", one(func(ctx context.Context, _ *cargo) (leg, error) {
			if !stopped {
				return done, nil
			}
			<-ctx.Done()
			return "", context.Cause(ctx)
		}))
		b.stepClock(24 * time.Hour) // the first start's clock is a day ahead
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		expectError(t, "Stop", r.Stop(ctx), nil)
		stopped = false
		b.stepClock(0)
		r = b.start(f)
		begin := time.Now()
		r.completed(id)
		expect(t, "took", time.Since(begin), 0)
	})
}

func TestAParkedWaitIsNoLongerThanItWasMeantToBe(t *testing.T) {
	for _, restart := range []bool{true, false} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var s tries
				undo := change(saga(1, new(tally), fail), "s1", func(step *segno.Step[leg, cargo]) {
					step.UndoRetry = plain(2, time.Hour)
					step.Undo = func(ctx context.Context, _ cargo) error {
						if s.note(ctx) == 1 {
							return errTest
						}
						return nil
					}
				})
				flows := []segno.Flow{
					flowOf("sleep", one(segno.Sleep[cargo](time.Hour, done))),
					flowOf("retry", oneStep(segno.Step[leg, cargo]{Do: new(tries).failing(1), Retry: plain(2, time.Hour)})),
					flowOf("undo", undo),
				}
				r := b.start(flows...)
				sleep, retry, back := r.trigger("sleep", cargo{}), r.trigger("retry", cargo{}), r.trigger("undo", cargo{})
				synctest.Wait()
				b.stepClock(-24 * time.Hour)
				if restart {
					r = b.restart(flows...)
				}
				begin := time.Now()
				r.completed(sleep)
				r.completed(retry)
				r.ended(back, segno.RunFailed)
				if d := time.Since(begin); d < time.Hour || d > time.Hour+10*time.Second { // a step is noticed within 10 s
					t.Errorf("took: got = %v, want 1h0m0s", d)
				}
			})
		})
	}
}

func TestAWaitLetsOthersExecute(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{MaxConcurrent: 1})
		r := b.start(segno.Flow{ID: "f", Workflow: one(segno.Sleep[cargo](time.Minute, done)), Overlap: segno.Allow(1)})
		var ids []segno.RunID
		for range 20 {
			ids = append(ids, r.trigger("f", cargo{}))
		}
		begin := time.Now()
		for _, id := range ids {
			r.completed(id)
		}
		expect(t, "twenty sleeps of a minute took", time.Since(begin), time.Minute)
	})
}

func TestAParkedRunNoticesAClockThatWasSetForward(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		r := b.start(flowOf("f", one(segno.Sleep[cargo](time.Hour, done))))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.stepClock(2 * time.Hour) // a suspend looks the same
		begin := time.Now()
		r.completed(id)
		if d := time.Since(begin); d > 10*time.Second {
			t.Errorf("noticed after: got = %v, want at most 10s", d)
		}
	})
}

func TestAWaitBeyondItsStepsTimeoutFails(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		timer := segno.Timer(func(context.Context, *cargo) (time.Time, error) { return time.Now().Add(time.Hour), nil }, to(done))
		flows := []segno.Flow{
			flowOf("sleep", oneStep(segno.Step[leg, cargo]{Do: segno.Sleep[cargo](time.Hour, done), Timeout: time.Minute, Retry: segno.Exponential(5)})),
			flowOf("timer", oneStep(segno.Step[leg, cargo]{Do: timer, Timeout: time.Minute, Retry: segno.Exponential(5)})),
		}
		r := b.start(flows...)
		begin := time.Now()
		ids := []segno.RunID{r.trigger("sleep", cargo{}), r.trigger("timer", cargo{})}
		time.Sleep(30 * time.Second)
		r = b.restart(flows...)
		for _, id := range ids {
			expectError(t, r.info(id).Flow, r.ended(id, segno.RunFailed), context.DeadlineExceeded)
			expect(t, "took", time.Since(begin), time.Minute)
		}
	})
}

func TestAKeyTriggeredTwiceInOneTxIsOneRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(segno.Flow{ID: "f", Workflow: one(to(done)), Overlap: segno.Allow(0)})
		var first, second segno.RunID
		err := r.Write(context.Background(), func(tx segno.Tx) error {
			var one, two error
			first, one = tx.Trigger("f", segno.Trigger{Key: "k", Input: cargo{N: 1}})
			second, two = tx.Trigger("f", segno.Trigger{Key: "k", Input: cargo{N: 1}})
			_, reused := tx.Trigger("f", segno.Trigger{Key: "k", Input: cargo{N: 2}})
			expectError(t, "the third", reused, segno.ErrKeyReused)
			return errors.Join(one, two)
		})
		if err != nil || first != second {
			t.Errorf("runs: got = %d and %d, %v, want one", first, second, err)
		}
		r.completed(first)
		expect(t, "runs", len(r.runs("f")), 1)
	})
}
