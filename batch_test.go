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

// slowly is an item that takes a second, and says what it does.
func slowly(said *tally) func(context.Context, int) (int, error) {
	return func(ctx context.Context, i int) (int, error) {
		said.add("begin%d", i)
		err := sweepRest(ctx, time.Second)
		said.add("end%d:%v", i, err)
		return 10 * i, err
	}
}

func TestEventsOfABatch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, w := watched(t)
		r := b.start(flowOf("f", one(segno.Batch(numbers(3), func(ctx context.Context, i int) (int, error) {
			if n := segno.InfoFrom(ctx).Attempt; i == 2 && n == 1 || i == 3 {
				return 0, errTest
			}
			return i, nil
		}, report, segno.BatchOptions{Retry: plain(2, 100*milli)}))))
		expect(t, "settled", text(t, r.completed(r.trigger("f", cargo{}))), "1 2 !")
		wantEvents(t, "events", w, `run_started state_entered:a checkpoint1 task_started:a task_started:a/0 task_succeeded:a/0
			task_started:a/1 retry:a1 task_started:a/2 retry:a1 task_succeeded:a/1 task_failed:a/2
			task_succeeded:a state_entered:done checkpoint2 run_finished:completed`)
	})
}

func TestKeepSettledKeepsTheItems(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		wantBatch(t, "10 20", refBatchCycle(&said, 1, segno.BatchOptions{KeepSettled: true}))
		expect(t, "calls", said.String(), "load 1 2 finish finish")
	})
}

// Items that failed are kept, too: what is settled is settled.
func TestKeepSettledKeepsFailures(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var p per
		f := flowOf("f", oneStep(segno.Step[leg, cargo]{Retry: plain(2, time.Hour), Do: segno.Batch(numbers(2), func(_ context.Context, i int) (int, error) {
			if n := p.call(i); i == 1 {
				return 0, fmt.Errorf("%w, call %d", errTest, n)
			}
			return 10 * i, nil
		}, func(ctx context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
			if segno.InfoFrom(ctx).Attempt == 1 {
				return "", errTest
			}
			c.Text = settled(all) + " " + all[0].Err.Error()
			return done, nil
		}, segno.BatchOptions{KeepSettled: true})}))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.kill()
		expect(t, "settled", text(t, b.start(f).completed(id)), "! 20 test: went wrong, call 1")
		expect(t, "calls", p.String(), "map[1:1 2:1]")
	})
}

// With KeepSettled a step that timed out goes on where it was.
func TestKeepSettledGoesOnBehindATimeout(t *testing.T) {
	for keep, want := range map[bool]struct {
		status segno.RunStatus
		begun  int
	}{true: {segno.RunCompleted, 6}, false: {segno.RunFailed, 8}} {
		t.Run(fmt.Sprint(keep), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var said tally
				b, _ := watched(t)
				r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
					Timeout: 3500 * milli, Retry: plain(2, time.Second),
					Do: segno.Batch(numbers(5), slowly(&said), report, segno.BatchOptions{KeepSettled: keep}),
				})))
				info, _ := r.WaitRun(context.Background(), r.trigger("f", cargo{}))
				expect(t, "Status", info.Status, want.status)
				expect(t, "items begun", strings.Count(said.String(), "begin"), want.begun)
			})
		})
	}
}

func TestLoadedItemsAreDurable(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		loads := 0
		alive := false
		f := flowOf("f", one(segno.Batch(func(ctx context.Context, _ cargo) ([]string, error) {
			loads++
			in := segno.InfoFrom(ctx)
			return []string{in.Key[strings.Index(in.Key, "/"):]}, errors.Join(tell(ctx, "load"), segno.SaveMemo(ctx, "k", 1))
		}, func(ctx context.Context, s string) (string, error) {
			if !alive {
				return "", sweepRest(ctx, time.Hour)
			}
			_, found, err := segno.LoadMemo[int](ctx, "k") // of load, not of the item
			in := segno.InfoFrom(ctx)
			return fmt.Sprint(s, " ", in.Key[strings.Index(in.Key, "/"):], " ", found), err
		}, func(_ context.Context, c *cargo, all []segno.Settled[string]) (leg, error) {
			c.Text = settled(all)
			return done, nil
		})))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.kill()
		alive = true
		r = b.start(f)
		expect(t, "settled", text(t, r.completed(id)), "/1/a/load /1/a/0 false")
		expect(t, "loads", loads, 1)
		expect(t, "rows", r.told(), "load")
	})
}

// What joins a load that failed, or items that failed, is dropped.
func TestOnCommitOfABatch(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{Schema: toldSchema})
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Retry: plain(2, time.Second), Do: segno.Batch(func(ctx context.Context, c cargo) ([]int, error) {
			n := segno.InfoFrom(ctx).Attempt
			if err := tell(ctx, fmt.Sprint("load", n)); err != nil || n == 1 {
				return nil, errors.Join(err, errTest)
			}
			return numbers(3)(ctx, c)
		}, func(ctx context.Context, i int) (int, error) {
			if err := tell(ctx, fmt.Sprint("item", i)); err != nil || i == 2 {
				return 0, errors.Join(err, errTest)
			}
			return i, nil
		}, func(ctx context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
			_ = tell(ctx, "finish")
			return report(ctx, c, all)
		})})))
		expect(t, "settled", text(t, r.completed(r.trigger("f", cargo{}))), "1 ! 3")
		expect(t, "rows", r.told(), "load2 item1 item3 finish")
	})
}

// An OnCommit function of load that fails fails the attempt.
func TestAFailedOnCommitOfLoadFailsTheAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Retry: plain(2, time.Second), Do: segno.Batch(func(ctx context.Context, c cargo) ([]int, error) {
			if s.note(ctx) == 1 {
				return nil, segno.OnCommit(ctx, func(segno.Tx) error { return errTest })
			}
			return numbers(1)(ctx, c)
		}, tenfold, report)})))
		expect(t, "settled", text(t, r.completed(r.trigger("f", cargo{}))), "10")
		expect(t, "attempts", s.numbers(), "[1 2]")
	})
}

func TestABatchParksWhileAllItsItemsWait(t *testing.T) {
	for name, c := range map[string]struct {
		o       segno.Options
		timeout time.Duration
		want    segno.RunStatus
		inHand  int
	}{
		"parked":             {segno.Options{}, 0, segno.RunParked, 0},
		"below ParkAfter":    {segno.Options{ParkAfter: time.Hour}, 0, segno.RunRunning, 1},
		"with Step.Timeout":  {segno.Options{}, time.Hour, segno.RunRunning, 1},
		"at ParkAfter, just": {segno.Options{ParkAfter: 10 * time.Second}, 0, segno.RunParked, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t).with(c.o)
				var s tries
				r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Timeout: c.timeout, Do: segno.Batch(numbers(2), func(ctx context.Context, i int) (int, error) {
					if s.note(ctx) < 3 {
						return 0, errTest
					}
					return 10 * i, nil
				}, report, segno.BatchOptions{Concurrency: 2, Retry: plain(3, 10*time.Second)})})))
				id := r.trigger("f", cargo{})
				synctest.Wait()
				info := r.info(id)
				expect(t, "Status", info.Status, c.want)
				expect(t, "goroutines in runs", r.InHand(), c.inHand)
				expect(t, "Attempt of the step", info.Attempt, 1)
				begin := time.Now()
				expect(t, "settled", text(t, r.completed(id)), "10 20")
				expect(t, "took", time.Since(begin), 30*time.Second)
				expect(t, "attempts", s.numbers(), "[1 1 2 2 3 3]")
				expect(t, "log", r.log(id), "enter a, end done")
			})
		})
	}
}

// While one item works, the batch does not park for another that waits, which
// comes on in time.
func TestABatchWorksOnWhileAnItemWaits(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		b, _ := watched(t)
		r := b.start(flowOf("f", one(segno.Batch(numbers(4), func(ctx context.Context, i int) (int, error) {
			if i == 1 && s.note(ctx) == 1 {
				return 0, errTest
			}
			return 10 * i, sweepRest(ctx, 4*time.Second)
		}, report, segno.BatchOptions{Retry: plain(2, 6*time.Second)}))))
		id := r.trigger("f", cargo{})
		time.Sleep(time.Second)
		expect(t, "Status", r.info(id).Status, segno.RunRunning)
		expect(t, "settled", text(t, r.completed(id)), "10 20 30 40")
		expect(t, "the wait ends when there is room", s.gaps(), "8s")
	})
}

// A stop in the middle of many items waits for those in work, and no item that
// has ended is worked on again.
func TestAStopInTheMiddleOfAThousandItems(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const n = 1000
		b := newBed(t)
		var p per
		f := flowOf("f", one(segno.Batch(numbers(n), func(ctx context.Context, i int) (int, error) {
			p.call(i)
			return 10 * i, sweepRest(ctx, time.Second)
		}, func(_ context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
			for _, s := range all {
				c.N += s.Value
			}
			return done, nil
		}, segno.BatchOptions{Concurrency: 20})))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		time.Sleep(25500 * milli)
		begin := time.Now()
		b.stop()
		expect(t, "the stop took", time.Since(begin), 500*milli)
		expect(t, "items begun", len(p.calls), 520)
		begin = time.Now()
		r = b.start(f)
		expect(t, "data", string(r.completed(id).Data), fmt.Sprintf(`{"n":%d}`, 10*n*(n+1)/2))
		expect(t, "the rest took", time.Since(begin), 24*time.Second)
		for i, calls := range p.calls {
			if calls != 1 {
				t.Errorf("calls of item %d: got = %d, want 1", i, calls)
			}
		}
	})
}

// fivefold is a batch of five items that can be undone.
func fivefold(said *tally, s segno.Step[leg, cargo]) route {
	s.Do = segno.Batch(numbers(5), slowly(said), func(_ context.Context, c *cargo, _ []segno.Settled[int]) (leg, error) {
		said.add("finish")
		return legB, nil
	})
	s.Undo = func(ctx context.Context, _ cargo) error {
		said.add("undo,%v", segno.InfoFrom(ctx).Uncertain)
		return nil
	}
	return route{Initial: legA, Steps: legs{legA: s, legB: {Do: to(done)}, done: {Final: true}}}
}

func TestACancelComesBetweenItems(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, _ := watched(t)
		var said tally
		r := b.start(flowOf("f", fivefold(&said, segno.Step[leg, cargo]{UndoUncertain: true})))
		id := r.trigger("f", cargo{})
		time.Sleep(1500 * milli)
		r.cancel(id)
		begin := time.Now()
		r.ended(id, segno.RunCancelled)
		expect(t, "took", time.Since(begin), 500*milli)
		expect(t, "calls", said.String(), "begin1 end1:<nil> begin2 end2:<nil>")
	})
}

// The timeout of the run comes between items as a cancel does.
func TestTheRunsTimeoutComesBetweenItems(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, _ := watched(t)
		var said tally
		w := fivefold(&said, segno.Step[leg, cargo]{UndoUncertain: true})
		w.Timeout = 1500 * milli
		r := b.start(flowOf("f", w))
		expectError(t, "the run", r.ended(r.trigger("f", cargo{}), segno.RunFailed), context.DeadlineExceeded)
		expect(t, "calls", said.String(), "begin1 end1:<nil> begin2 end2:<nil>")
	})
}

// An item that a timeout or a crash met has no known outcome.
func TestAnInterruptedItemLeavesItsVisitUncertain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, _ := watched(t)
		var said tally
		timed := flowOf("timed", fivefold(&said, segno.Step[leg, cargo]{UndoUncertain: true, Timeout: 1500 * milli}))
		b.start(timed)
		l := &live{b.run, t}
		expectError(t, "the run", l.ended(l.trigger("timed", cargo{}), segno.RunFailed), context.DeadlineExceeded)
		expect(t, "calls", said.take(), "begin1 end1:<nil> begin2 end2:segno: attempt timed out undo,true")
		id := l.trigger("timed", cargo{})
		time.Sleep(500 * milli)
		b.kill()
		synctest.Wait()
		said.take()
		b.exec("UPDATE _segno_run SET cancel = 1 WHERE run = ?", int64(id))
		r := b.start(timed)
		r.ended(id, segno.RunCancelled)
		expect(t, "calls behind a crash", said.String(), "undo,true")
	})
}

// An item that kills the process does so MaxCrashes times, and takes none of
// the others with it.
func TestAnItemThatKillsTheProcess(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{MaxCrashes: 3, SuspectFor: time.Second})
		var p per
		f := flowOf("f", one(segno.Batch(numbers(3), func(ctx context.Context, i int) (int, error) {
			if p.call(i); i == 2 {
				return 0, sweepRest(ctx, time.Hour)
			}
			return 10 * i, nil
		}, report)))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		for range 3 {
			synctest.Wait()
			r = b.restart(f)
		}
		expectError(t, "the run", r.ended(id, segno.RunFailed), segno.ErrCrashLoop)
		expect(t, "calls", p.String(), "map[1:1 2:3]")
	})
}

func TestAnItemsOwnWays(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, _ := watched(t)
		var s [6]tries
		r := b.start(flowOf("f", one(segno.Batch(numbers(5), func(ctx context.Context, i int) (int, error) {
			switch n := s[i].note(ctx); {
			case i == 1:
				runtime.Goexit()
			case i == 2:
				return 0, segno.Permanent(errTest)
			case i == 3 && s[i].calls() == 1:
				return 0, segno.Snooze(time.Hour)
			case i == 4 && n == 1:
				return 0, segno.RetryAfter(errTest, time.Minute)
			}
			return 10 * i, nil
		}, report, segno.BatchOptions{Retry: plain(2, time.Second)}))))
		expect(t, "settled", text(t, r.completed(r.trigger("f", cargo{}))), "! ! 30 40 50")
		for i, want := range map[int]string{1: "[1]", 2: "[1]", 3: "[1 1]", 4: "[1 2]", 5: "[1]"} {
			expect(t, fmt.Sprint("attempts of item ", i), s[i].numbers(), want)
		}
		expect(t, "a snooze", s[3].gaps(), "1h0m0s")
		expect(t, "a wait of its own", s[4].gaps(), "1m0s")
	})
}

// A batch that is retried loads again, and what its items had found out is of
// the round before.
func TestARetriedBatchBeginsAnew(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Retry: plain(2, time.Second), Do: segno.Batch(func(ctx context.Context, _ cargo) ([]int, error) {
			return []int{segno.InfoFrom(ctx).Attempt}, nil
		}, func(ctx context.Context, i int) (int, error) {
			_, found, err := segno.LoadMemo[int](ctx, "k")
			said.add("%d,%v", i, found)
			return i, errors.Join(err, segno.SaveMemo(ctx, "k", i))
		}, func(ctx context.Context, c *cargo, all []segno.Settled[int]) (leg, error) {
			if all[0].Value == 1 {
				return "", errTest
			}
			return report(ctx, c, all)
		})})))
		expect(t, "settled", text(t, r.completed(r.trigger("f", cargo{}))), "2")
		expect(t, "items and whether they found a memo", said.String(), "1,false 2,false")
	})
}

func TestAPanicOfLoadIsThatOfTheStep(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Retry: plain(3, time.Second), Do: segno.Batch(
			func(context.Context, cargo) ([]int, error) { panic("odd") }, tenfold, report)})))
		id := r.trigger("f", cargo{})
		expectError(t, "the run", r.ended(id, segno.RunFailed), segno.ErrPanic)
		expect(t, "log", r.log(id), "enter a, end a")
	})
}
