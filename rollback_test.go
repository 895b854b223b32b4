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

// saga is a workflow of n states s1, s2, …, each of which counts N up and can
// be undone; end is what happens behind them.
func saga(n int, said *tally, end do) route {
	w := route{Initial: "s1", Steps: legs{leg("s" + fmt.Sprint(n+1)): {Do: end}, done: {Final: true}}}
	for i := 1; i <= n; i++ {
		next := leg(fmt.Sprintf("s%d", i+1))
		w.Steps[leg(fmt.Sprintf("s%d", i))] = segno.Step[leg, cargo]{
			Do: func(_ context.Context, c *cargo) (leg, error) { c.N++; return next, nil },
			Undo: func(ctx context.Context, c cargo) error {
				said.add("%s:%d", segno.InfoFrom(ctx).State, c.N)
				return nil
			},
		}
	}
	return w
}

// change replaces fields of a step in place.
func change(w route, name leg, fn func(*segno.Step[leg, cargo])) route {
	s := w.Steps[name]
	fn(&s)
	w.Steps[name] = s
	return w
}

func TestAFailedRunUndoesItsFinishedVisitsLastFirst(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		r := newBed(t).start(flowOf("f", saga(3, &said, fail)))
		id := r.trigger("f", cargo{})
		e := r.ended(id, segno.RunFailed)
		expect(t, "undone, with the data as Do left it", said.String(), "s3:3 s2:2 s1:1")
		expect(t, "Err", e.Err.Error(), errTest.Error())
		expect(t, "State", e.State, "s4")
		expect(t, "Undo", len(e.Undo), 0)
		expect(t, "log", r.log(id), "enter s1, enter s2, enter s3, enter s4, rollback s4, undone s3, undone s2, undone s1, end s4")
		expect(t, "data of the run", string(r.info(id).Data), `{"n":3}`)
		expect(t, "streak", r.status("f").FailureStreak, 1)
	})
}

func TestARollbackIsOneCommitPerUndoAndOneForItsStart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		r := b.start(flowOf("f", saga(3, &said, fail)))
		synctest.Wait()
		before := b.commits.Load()
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "commits: begin, 3 transitions, rollback, 3 undos with the end in the last", b.commits.Load()-before, 8)
	})
}

func TestOnlyFinishedVisitsAreUndone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		for n := range 5 {
			var said tally
			w := change(saga(5, &said, to(done)), leg(fmt.Sprintf("s%d", n+1)), func(s *segno.Step[leg, cargo]) { s.Do = fail })
			b := newBed(t)
			r := b.start(flowOf("f", w))
			r.ended(r.trigger("f", cargo{}), segno.RunFailed)
			var want []string
			for i := n; i > 0; i-- {
				want = append(want, fmt.Sprintf("s%d:%d", i, i))
			}
			expect(t, fmt.Sprintf("undone when s%d fails", n+1), said.String(), strings.Join(want, " "))
			b.stop()
		}
	})
}

func TestACompletedRunUndoesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		r := newBed(t).start(flowOf("f", saga(3, &said, to(done))))
		r.completed(r.trigger("f", cargo{}))
		expect(t, "undone", said.String(), "")
	})
}

func TestStepsWithoutAnUndoArePassedOver(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		w := change(saga(3, &said, fail), "s2", func(s *segno.Step[leg, cargo]) { s.Undo = nil })
		r := newBed(t).start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		r.ended(id, segno.RunFailed)
		expect(t, "undone", said.String(), "s3:3 s1:1")
		expect(t, "log", r.log(id), "enter s1, enter s2, enter s3, enter s4, rollback s4, undone s3, undone s1, end s4")
	})
}

func TestEachVisitOfALoopIsUndone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		w := route{Initial: legA, Steps: legs{
			legA: {
				Do: func(_ context.Context, c *cargo) (leg, error) {
					if c.N++; c.N < 4 {
						return legA, nil
					}
					return legB, nil
				},
				Undo: func(ctx context.Context, c cargo) error {
					said.add("%d:%d", segno.InfoFrom(ctx).Visit, c.N)
					return nil
				},
			},
			legB: {Do: fail},
			done: {Final: true},
		}}
		r := newBed(t).start(flowOf("f", w))
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "undone visits with their data", said.String(), "4:4 3:3 2:2 1:1")
	})
}

func TestADeepStackIsUndoneInReverse(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const depth = 60
		var said tally
		r := newBed(t).start(flowOf("f", saga(depth, &said, fail)))
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		var want []string
		for i := depth; i > 0; i-- {
			want = append(want, fmt.Sprintf("s%d:%d", i, i))
		}
		expect(t, "undone", said.String(), strings.Join(want, " "))
	})
}

func TestAnUndoHasTheKeyOfItsVisit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var did, undid segno.Info
		w := route{Initial: legA, Steps: legs{
			legA: {Do: to(legB)},
			legB: {
				Do:   func(ctx context.Context, _ *cargo) (leg, error) { did = segno.InfoFrom(ctx); return legC, nil },
				Undo: func(ctx context.Context, _ cargo) error { undid = segno.InfoFrom(ctx); return nil },
			},
			legC: {Do: fail},
			done: {Final: true},
		}}
		r := newBed(t).start(flowOf("f", w))
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "key of Undo", undid.Key, did.Key+"/undo")
		expect(t, "UndoOf", undid.UndoOf, did.Key)
		expect(t, "visit", undid.Visit, 2)
		expect(t, "state", undid.State, "b")
		expect(t, "UndoOf in Do", did.UndoOf, "")
		expect(t, "uncertain", undid.Uncertain, false)
	})
}

func TestADirtyRollbackGoesOnAndNamesWhatFailed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		w := saga(4, &said, fail)
		change(w, "s2", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(context.Context, cargo) error { said.add("s2"); return errors.New("refund refused") }
		})
		change(w, "s3", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(context.Context, cargo) error { said.add("s3"); panic("refund panics") }
		})
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		for _, when := range []string{"before", "after"} {
			e := r.ended(id, segno.RunUndoFailed)
			expect(t, "Err "+when+" the restart", e.Err.Error(), errTest.Error())
			if len(e.Undo) != 2 {
				t.Fatalf("Undo %s the restart: got = %v, want two errors", when, e.Undo)
			}
			expect(t, "the first, "+when, strings.HasPrefix(e.Undo[0].Error(), "undo of s3: segno: panic: refund panics"), true)
			expect(t, "the second, "+when, e.Undo[1].Error(), "undo of s2: refund refused")
			expectError(t, "the panic, "+when, e.Undo[0], segno.ErrPanic)
			for _, want := range []string{"refund refused", "refund panics", "went wrong"} {
				expect(t, "the text has "+want, strings.Contains(e.Error(), want), true)
			}
			r = b.restart(flowOf("f", w))
		}
		expect(t, "undos called", said.String(), "s4:4 s3 s2 s1:1")
		expect(t, "log", r.log(id), "enter s1, enter s2, enter s3, enter s4, enter s5, rollback s5, undone s4, undo_failed s3, undo_failed s2, undone s1, end s5")
		expect(t, "streak", r.status("f").FailureStreak, 1)
	})
}

func TestAFailedUndoIsNotRepeatedUnlessAsked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		undo := func(ctx context.Context, _ cargo) error {
			if s.note(ctx) < 3 {
				return errTest
			}
			return nil
		}
		var said tally
		once := change(saga(1, &said, fail), "s1", func(s *segno.Step[leg, cargo]) { s.Undo = undo })
		again := change(saga(2, &said, fail), "s2", func(s *segno.Step[leg, cargo]) {
			s.Undo, s.UndoRetry, s.Retry = undo, plain(3, time.Second), segno.Exponential(9)
		})
		r := newBed(t).start(flowOf("once", once), flowOf("again", again))
		r.ended(r.trigger("once", cargo{}), segno.RunUndoFailed)
		expect(t, "undos without UndoRetry", s.calls(), 1)
		id := r.trigger("again", cargo{})
		r.ended(id, segno.RunFailed)
		expect(t, "attempt numbers", s.numbers(), "[1 1 2 3]")
		expect(t, "first wait", s.gap(2), time.Second)
		expect(t, "second wait", s.gap(3), 2*time.Second)
		expect(t, "log", r.log(id), "enter s1, enter s2, enter s3, rollback s3, retry s2, retry s2, undone s2, undone s1, end s3")
	})
}

func TestAnUndosRetryOutlivesARestart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var s tries
		var said tally
		w := change(saga(2, &said, fail), "s2", func(step *segno.Step[leg, cargo]) {
			step.UndoRetry = plain(3, time.Hour)
			step.Undo = func(ctx context.Context, _ cargo) error {
				if s.note(ctx) < 3 {
					return errTest
				}
				return nil
			}
		})
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		expect(t, "status while waiting", r.info(id).Status, segno.RunUndoing)
		expect(t, "goroutines in runs", r.InHand(), 0)
		b.kill()
		time.Sleep(30 * time.Minute)
		b.start(flowOf("f", w))
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		expect(t, "attempts", s.numbers(), "[1 2]")
		b.stop()
		time.Sleep(3 * time.Hour)
		r = b.start(flowOf("f", w))
		r.ended(id, segno.RunFailed)
		expect(t, "attempts", s.numbers(), "[1 2 3]")
		expect(t, "first wait", s.gap(1), time.Hour)
		expect(t, "undone behind it", said.String(), "s1:1")
	})
}

func TestPermanentEndsTheRetriesOfAnUndo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		var said tally
		w := change(saga(1, &said, fail), "s1", func(step *segno.Step[leg, cargo]) {
			step.UndoRetry = segno.Exponential(5)
			step.Undo = func(ctx context.Context, _ cargo) error {
				if s.note(ctx) == 1 {
					return segno.RetryAfter(errTest, time.Minute)
				}
				return segno.Permanent(errTest)
			}
		})
		r := newBed(t).start(flowOf("f", w))
		r.ended(r.trigger("f", cargo{}), segno.RunUndoFailed)
		expect(t, "waits", s.gaps(), "1m0s")
	})
}

func TestAnUndoIsBoundedByItsTimeoutOrHalfAMinute(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		hang := func(ctx context.Context, _ cargo) error { <-ctx.Done(); return ctx.Err() }
		own := change(saga(2, &said, fail), "s2", func(s *segno.Step[leg, cargo]) { s.Undo, s.Timeout = hang, 3*time.Second })
		none := change(saga(2, &said, fail), "s2", func(s *segno.Step[leg, cargo]) { s.Undo = hang })
		r := newBed(t).start(flowOf("own", own), flowOf("none", none))
		for id, want := range map[string]time.Duration{"own": 3 * time.Second, "none": 30 * time.Second} {
			begin := time.Now()
			e := r.ended(r.trigger(id, cargo{}), segno.RunUndoFailed)
			expect(t, id+" took", time.Since(begin), want)
			expectError(t, id, e.Undo[0], context.DeadlineExceeded)
			expect(t, id+": the other undo", said.take(), "s1:1")
		}
	})
}

func TestUndoTimeoutBoundsTheWholeRollback(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		slow := func(ctx context.Context, c cargo) error {
			said.add("%s", segno.InfoFrom(ctx).State)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Second):
				return nil
			}
		}
		build := func(timeout, undoTimeout time.Duration) route {
			w := saga(4, &said, fail)
			w.Timeout, w.UndoTimeout = timeout, undoTimeout
			for _, name := range []leg{"s1", "s2", "s3", "s4"} {
				change(w, name, func(s *segno.Step[leg, cargo]) { s.Undo = slow })
			}
			return w
		}
		b := newBed(t)
		r := b.start(
			flowOf("own", build(0, 50*time.Second)),
			flowOf("half", build(30*time.Second, 0)),
			flowOf("most", build(time.Hour, 0)),
			flowOf("none", build(0, 0)),
		)
		for _, c := range []struct {
			id     string
			took   time.Duration
			called string
			failed int
		}{
			{"own", 50 * time.Second, "s4 s3 s2", 2},
			{"half", 15 * time.Second, "s4", 4},
			{"most", 30 * time.Second, "s4 s3", 3},
			{"none", 80 * time.Second, "s4 s3 s2 s1", 0},
		} {
			begin := time.Now()
			id := r.trigger(c.id, cargo{})
			info, err := r.WaitRun(context.Background(), id)
			var e *segno.RunError
			if !errors.As(err, &e) {
				t.Fatalf("%s: got error %v, want a RunError", c.id, err)
			}
			expect(t, c.id+" took", time.Since(begin), c.took)
			expect(t, c.id+": undos called", said.take(), c.called)
			expect(t, c.id+": undos failed", len(e.Undo), c.failed)
			for _, undo := range e.Undo {
				expectError(t, c.id, undo, context.DeadlineExceeded)
			}
			expect(t, c.id+": dirty", info.Status == segno.RunUndoFailed, c.failed > 0)
		}
	})
}

func TestUndoTimeoutBeginsAnewWithEachStart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		w := saga(2, &said, fail)
		w.UndoTimeout = 30 * time.Second
		for _, name := range []leg{"s1", "s2"} {
			change(w, name, func(s *segno.Step[leg, cargo]) {
				s.Undo = func(ctx context.Context, _ cargo) error {
					time.Sleep(20 * time.Second)
					return ctx.Err()
				}
			})
		}
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		time.Sleep(19 * time.Second)
		b.kill()
		time.Sleep(time.Hour)
		r = b.start(flowOf("f", w)) // 20 s of 30 s for s2, 10 s are too little for s1
		e := r.ended(id, segno.RunUndoFailed)
		expect(t, "failed undos", fmt.Sprint(len(e.Undo)), "1")
		expect(t, "log", r.log(id), "enter s1, enter s2, enter s3, rollback s3, crash s3, undone s2, undo_failed s1, end s3")
	})
}

func TestAnUndoGetsNothingOfTheRunsOwnTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		w := change(saga(1, &said, hold), "s1", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(ctx context.Context, _ cargo) error {
				time.Sleep(3 * time.Second)
				said.add("%v", ctx.Err())
				return ctx.Err()
			}
		})
		w.Timeout = 10 * time.Second
		r := newBed(t).start(flowOf("f", w))
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "the undo's context", said.String(), "<nil>")
	})
}

func TestARollbackGoesOnAfterACrash(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		block := true
		w := change(saga(3, &said, fail), "s2", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(ctx context.Context, c cargo) error {
				said.add("s2:%d", c.N)
				if block {
					<-ctx.Done()
				}
				return ctx.Err()
			}
		})
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		expect(t, "status", r.info(id).Status, segno.RunUndoing)
		b.kill()
		block = false
		r = b.start(flowOf("f", w))
		e := r.ended(id, segno.RunFailed)
		expect(t, "Err", e.Err.Error(), errTest.Error())
		expect(t, "State", e.State, "s4")
		expect(t, "undos: the interrupted one runs again, the finished one does not", said.String(), "s3:3 s2:2 s2:2 s1:1")
		expect(t, "log", r.log(id), "enter s1, enter s2, enter s3, enter s4, rollback s4, undone s3, crash s4, undone s2, undone s1, end s4")
	})
}

func TestUndoRunRepeatsOnlyTheFailedUndos(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		broken := map[string]bool{"s2": true, "s3": true, "s5": true}
		w := saga(5, &said, fail)
		for i := 1; i <= 5; i++ {
			change(w, leg(fmt.Sprintf("s%d", i)), func(s *segno.Step[leg, cargo]) {
				s.Undo = func(ctx context.Context, c cargo) error {
					name := segno.InfoFrom(ctx).State
					said.add("%s:%d", name, c.N)
					if broken[name] {
						return fmt.Errorf("%s is broken", name)
					}
					return nil
				}
			})
		}
		ctx := context.Background()
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		expect(t, "failed undos", len(r.ended(id, segno.RunUndoFailed).Undo), 3)
		said.take()
		streak := r.status("f").FailureStreak

		delete(broken, "s3")
		r = b.restart(flowOf("f", w))
		if err := r.UndoRun(ctx, id); err != nil {
			t.Fatalf("UndoRun: got error %v, want none", err)
		}
		e := r.ended(id, segno.RunUndoFailed)
		expect(t, "undos of the first repetition", said.take(), "s5:5 s3:3 s2:2")
		expect(t, "failed undos after it", fmt.Sprint(e.Undo), "[undo of s5: s5 is broken undo of s2: s2 is broken]")

		clear(broken)
		if err := r.UndoRun(ctx, id); err != nil {
			t.Fatalf("UndoRun: got error %v, want none", err)
		}
		e = r.ended(id, segno.RunFailed)
		expect(t, "undos of the second repetition", said.take(), "s5:5 s2:2")
		expect(t, "failed undos after it", len(e.Undo), 0)
		expect(t, "Err", e.Err.Error(), errTest.Error())
		expect(t, "the flow's streak is not moved by it", r.status("f").FailureStreak, streak)
		expectError(t, "UndoRun of a clean run", r.UndoRun(ctx, id), segno.ErrConfig)
		expectError(t, "UndoRun of an unknown run", r.UndoRun(ctx, 999), segno.ErrNotFound)
	})
}

func TestARepeatedRollbackGoesOnAfterACrash(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		mode := "fail"
		w := saga(4, &said, fail)
		for _, name := range []leg{"s1", "s2", "s4"} {
			change(w, name, func(s *segno.Step[leg, cargo]) {
				s.Undo = func(ctx context.Context, _ cargo) error {
					said.add("%s", segno.InfoFrom(ctx).State)
					switch {
					case mode == "fail":
						return errTest
					case mode == "hang" && name == "s2":
						<-ctx.Done()
					}
					return ctx.Err()
				}
			})
		}
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		r.ended(id, segno.RunUndoFailed)
		mode = "hang"
		if err := r.UndoRun(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		said.take()
		b.kill()
		mode = "work"
		r = b.start(flowOf("f", w))
		r.ended(id, segno.RunFailed)
		expect(t, "undos after the crash", said.String(), "s2 s1")
	})
}

func TestAckRunAcceptsADirtyRollback(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		w := change(saga(1, &said, fail), "s1", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(context.Context, cargo) error { return errTest }
		})
		ctx := context.Background()
		r := b.start(flowOf("f", w), flowOf("g", one(to(done))))
		id, ok := r.trigger("f", cargo{}), r.trigger("g", cargo{})
		r.ended(id, segno.RunUndoFailed)
		r.completed(ok)
		if err := r.AckRun(ctx, id, "refunded by hand"); err != nil {
			t.Fatalf("AckRun: got error %v, want none", err)
		}
		r = b.restart(flowOf("f", w), flowOf("g", one(to(done))))
		expect(t, "note", r.info(id).Note, "refunded by hand")
		expect(t, "status", r.info(id).Status, segno.RunUndoFailed)
		expectError(t, "AckRun of a completed run", r.AckRun(ctx, ok, ""), segno.ErrConfig)
		expectError(t, "AckRun of an unknown run", r.AckRun(ctx, 999, ""), segno.ErrNotFound)
	})
}

func TestRerunStartsWithTheFirstInput(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		f := flowOf("f", saga(2, &said, fail))
		r := b.start(f)
		id := r.trigger("f", cargo{N: 40, Text: "x"})
		r.ended(id, segno.RunFailed)
		r = b.restart(f)
		again, err := r.Rerun(context.Background(), id)
		if err != nil || again == id {
			t.Fatalf("Rerun: got = %d, %v, want a new run", again, err)
		}
		r.ended(again, segno.RunFailed)
		expect(t, "input of the new run", string(r.entries(again)[0].Data), `{"n":40,"text":"x"}`)
		expect(t, "data of the new run at its end", string(r.info(again).Data), `{"n":42,"text":"x"}`)
		_, err = r.Rerun(context.Background(), 999)
		expectError(t, "Rerun of an unknown run", err, segno.ErrNotFound)
	})
}

func TestAnUndoWhoseStateIsGoneIsAFailedUndo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		wait := saga(3, &said, func(context.Context, *cargo) (leg, error) { return "", segno.Snooze(time.Hour) })
		r := b.start(flowOf("f", wait))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.stop()

		fewer := saga(3, &said, fail)
		delete(fewer.Steps, "s3")
		fewer.Steps["s2"] = segno.Step[leg, cargo]{Do: to(done)} // its Undo is gone
		r = b.start(flowOf("f", fewer))
		time.Sleep(time.Hour)
		for _, when := range []string{"before", "after"} {
			e := r.ended(id, segno.RunUndoFailed)
			expect(t, "failed undos "+when+" the restart", len(e.Undo), 2)
			for _, undo := range e.Undo {
				expectError(t, "an undo "+when+" the restart", undo, segno.ErrOrphanedUndo)
			}
			r = b.restart(flowOf("f", fewer))
		}
		expect(t, "undone", said.String(), "s1:1")

		r = b.restart(flowOf("f", saga(3, &said, fail))) // they are back
		if err := r.UndoRun(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		r.ended(id, segno.RunFailed)
		expect(t, "undone, with their data", said.String(), "s1:1 s3:3 s2:2")
	})
}

func TestDataThatAnUndoCannotReadIsAFailedUndo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		f := flowOf("f", saga(2, &said, func(context.Context, *cargo) (leg, error) {
			if said.len() == 0 {
				said.add("wait")
				return "", segno.Snooze(time.Hour)
			}
			return "", errTest
		}))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.stop()
		b.exec(`UPDATE _segno_journal SET data = '{"n":"many"}' WHERE undo = 's2'`)
		r = b.start(f)
		time.Sleep(time.Hour)
		e := r.ended(id, segno.RunUndoFailed)
		expect(t, "failed undos", len(e.Undo), 1)
		expect(t, "undone", said.String(), "wait s1:1")
	})
}

// uncertain is a saga whose second step ends in a way that leaves its outcome
// unknown.
func uncertain(said *tally, do do, undoUncertain bool, timeout time.Duration) route {
	w := saga(1, said, nil)
	w.Steps["s2"] = segno.Step[leg, cargo]{
		Do: do, Timeout: timeout, UndoUncertain: undoUncertain,
		Undo: func(ctx context.Context, c cargo) error {
			in := segno.InfoFrom(ctx)
			said.add("%s:%d:%v:%d", in.State, c.N, in.Uncertain, in.Visit)
			return nil
		},
	}
	return w
}

func TestAnUncertainVisitIsUndoneIfItsStepSaysSo(t *testing.T) {
	change := func(next do) do {
		return func(ctx context.Context, c *cargo) (leg, error) {
			c.N = 99 // never saved
			return next(ctx, c)
		}
	}
	cases := []struct {
		name    string
		do      do
		timeout time.Duration
		text    string
	}{
		{"panic", change(func(context.Context, *cargo) (leg, error) { panic("half way") }), 0, "half way"},
		{"attempt timeout", change(hold), time.Second, "timed out"},
		{"late success", change(deaf(10*time.Second, done, nil)), time.Second, "timed out"},
		{"abandoned", change(deaf(10*time.Minute, done, nil)), time.Second, "abandoned"},
	}
	for _, c := range cases {
		for _, undoUncertain := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s %v", c.name, undoUncertain), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					b := newBed(t)
					var said tally
					r := b.start(flowOf("f", uncertain(&said, c.do, undoUncertain, c.timeout)))
					id := r.trigger("f", cargo{})
					e := r.ended(id, segno.RunFailed)
					want := "s1:1"
					if undoUncertain {
						want = "s2:1:true:2 s1:1"
					}
					expect(t, "undone, with the data at the visit's entry", said.String(), want)
					expect(t, "the text names the cause", strings.Contains(e.Error(), c.text), true)
					expect(t, "the error names the uncertain visit", strings.Contains(e.Error(), "s2, visit 2"), !undoUncertain)
					entry := r.entries(id)[2]
					expect(t, "the rollback's entry", fmt.Sprintf("%s %s %v", entry.Kind, entry.State, entry.Uncertain), "rollback s2 true")
					lines, err := queryLines(r.DB(), "SELECT kind, uncertain FROM segno_history WHERE run = ? AND uncertain IS NOT NULL", id)
					expect(t, "segno_history", fmt.Sprint(lines, err), "[rollback|uncertain] <nil>")
					time.Sleep(10 * time.Minute) // until the abandoned goroutine is back
				})
			})
		}
	}
}

func TestAVisitThatFailedWithAKnownOutcomeIsNotUndone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		r := newBed(t).start(flowOf("f", uncertain(&said, fail, true, 0)))
		id := r.trigger("f", cargo{})
		e := r.ended(id, segno.RunFailed)
		expect(t, "undone", said.String(), "s1:1")
		expect(t, "the error names an uncertain visit", strings.Contains(e.Error(), "visit 2"), false)
	})
}

func TestAVisitIsUncertainByItsLastAttemptOnly(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		policy := segno.Fixed(2, time.Millisecond)
		policy.Panics = true
		w := uncertain(&said, func(ctx context.Context, _ *cargo) (leg, error) {
			said.add("%v", segno.InfoFrom(ctx).Uncertain)
			if segno.InfoFrom(ctx).Attempt == 1 {
				panic("first")
			}
			return "", errTest
		}, true, 0)
		change(w, "s2", func(s *segno.Step[leg, cargo]) { s.Retry = policy })
		r := newBed(t).start(flowOf("f", w))
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		expect(t, "Info.Uncertain of the attempts, and what was undone", said.String(), "false true s1:1")
	})
}

func TestACrashedVisitIsUncertainUntilAnAttemptEnds(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		f := flowOf("f", uncertain(&said, hold, true, 0))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.kill()
		b.dead.Store(false)
		// Cancelled before any attempt ended: the crashed one's effects are undone.
		b.exec("UPDATE _segno_run SET cancel = 1")
		r = b.start(f)
		e := r.ended(id, segno.RunCancelled)
		expectError(t, "the run", e, context.Canceled)
		expect(t, "undone", said.String(), "s2:1:true:2 s1:1")
		expect(t, "log", r.log(id), "enter s1, enter s2, crash s2, rollback s2, undone s2, undone s1, end s2")
	})
}

func TestManySagasWithFailuresAnywhereBalanceToZero(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		b.opts.Schema = func(tx segno.Tx) error {
			_, err := tx.Exec("CREATE TABLE IF NOT EXISTS ledger (run INTEGER, amount INTEGER)")
			return err
		}
		book := func(ctx context.Context, amount int) error {
			return segno.OnCommit(ctx, func(tx segno.Tx) error {
				_, err := tx.Exec("INSERT INTO ledger VALUES (?, ?)", segno.InfoFrom(ctx).Run, amount)
				return err
			})
		}
		const steps = 5
		w := route{Initial: "s1", Steps: legs{done: {Final: true}}}
		for i := 1; i <= steps; i++ {
			next := leg(fmt.Sprintf("s%d", i+1))
			if i == steps {
				next = done
			}
			w.Steps[leg(fmt.Sprintf("s%d", i))] = segno.Step[leg, cargo]{
				Do: func(ctx context.Context, c *cargo) (leg, error) {
					if err := book(ctx, i); err != nil || c.N == i {
						return "", errors.Join(err, errTest)
					}
					return next, nil
				},
				Undo: func(ctx context.Context, _ cargo) error { return book(ctx, -i) },
			}
		}
		r := b.start(segno.Flow{ID: "f", Workflow: w, Overlap: segno.Allow(0), Backoff: segno.BackoffPolicy{Initial: -1}})
		var ids []segno.RunID
		for i := range 40 {
			ids = append(ids, r.trigger("f", cargo{N: i % (steps + 2)}))
		}
		for i, id := range ids {
			info, _ := r.WaitRun(context.Background(), id)
			failed := i%(steps+2) >= 1 && i%(steps+2) <= steps
			expect(t, fmt.Sprintf("run %d failed", id), info.Status == segno.RunFailed, failed)
			lines, err := queryLines(r.DB(), "SELECT coalesce(sum(amount), 0) FROM ledger WHERE run = ?", id)
			want := "[15] <nil>"
			if failed {
				want = "[0] <nil>"
			}
			expect(t, fmt.Sprintf("balance of run %d", id), fmt.Sprint(lines, err), want)
		}
	})
}

func TestAnUndoThatIgnoresItsContextIsAbandoned(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		w := change(saga(3, &said, fail), "s2", func(s *segno.Step[leg, cargo]) {
			s.Timeout = time.Second
			s.Undo = func(context.Context, cargo) error { time.Sleep(10 * time.Minute); return nil }
		})
		r := b.start(flowOf("f", w))
		begin := time.Now()
		id := r.trigger("f", cargo{})
		e := r.ended(id, segno.RunUndoFailed)
		expect(t, "took: 1 s, 5 s grace and 1 min", time.Since(begin), 66*time.Second)
		expect(t, "undone", said.String(), "s3:3 s1:1")
		expect(t, "failed undos", len(e.Undo), 1)
		expect(t, "the journal says abandoned", strings.Contains(e.Undo[0].Error(), "abandoned"), true)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		expect(t, "goroutines in runs when it is back", r.InHand(), 0)
		expect(t, "the late result is dropped", r.info(id).Status, segno.RunUndoFailed)
	})
}

func TestGoexitInAnUndoIsAFailedUndo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		w := change(saga(2, &said, fail), "s2", func(s *segno.Step[leg, cargo]) {
			s.Undo = func(context.Context, cargo) error { runtime.Goexit(); return nil }
		})
		r := newBed(t).start(flowOf("f", w))
		e := r.ended(r.trigger("f", cargo{}), segno.RunUndoFailed)
		expectError(t, "the failed undo", e.Undo[0], segno.ErrPanic)
		expect(t, "undone", said.String(), "s1:1")
	})
}

func TestOnCommitInAnUndoJoinsItsCommit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		var said tally
		undo := func(ctx context.Context, _ cargo) error {
			attempt := segno.InfoFrom(ctx).Attempt
			err := tell(ctx, fmt.Sprintf("attempt-%d", attempt))
			if attempt < 3 {
				err = errors.Join(err, segno.OnCommit(ctx, func(segno.Tx) error { return errTest }))
			}
			return err
		}
		retried := change(saga(2, &said, fail), "s2", func(s *segno.Step[leg, cargo]) { s.Undo, s.UndoRetry = undo, plain(3, time.Millisecond) })
		once := change(saga(2, &said, fail), "s2", func(s *segno.Step[leg, cargo]) { s.Undo = undo })
		r := b.start(flowOf("retried", retried), flowOf("once", once))
		id := r.trigger("retried", cargo{})
		r.ended(id, segno.RunFailed)
		expect(t, "rows", r.told(), "attempt-3")
		expect(t, "log", r.log(id), "enter s1, enter s2, enter s3, rollback s3, retry s2, retry s2, undone s2, undone s1, end s3")
		e := r.ended(r.trigger("once", cargo{}), segno.RunUndoFailed)
		expect(t, "the failed undo", e.Undo[0].Error(), "undo of s2: on commit: test: went wrong")
		expect(t, "rows", r.told(), "attempt-3")
	})
}
