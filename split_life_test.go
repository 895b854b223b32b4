package segno_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// undoable is a split of branches of a second each that can be undone.
func undoable(said *tally, j segno.Join, n int) route {
	var branches []branch
	for i := range n {
		branches = append(branches, func(ctx context.Context, c cargo) (string, error) {
			said.add("begin%d", i)
			word, err := takes(time.Second, nil)(ctx, c)
			said.add("end%d:%v", i, err)
			return word, err
		})
	}
	return route{Initial: legA, Steps: legs{
		legA: {
			Do: func(ctx context.Context, c *cargo) (leg, error) {
				_, err := fork(j, branches...)(ctx, c)
				return legB, err
			},
			Undo: func(_ context.Context, c cargo) error {
				said.add("undo%s", strings.ReplaceAll(c.Text, " ", "_"))
				return nil
			},
		},
		legB: {Do: to(done)}, done: {Final: true},
	}}
}

// What can be undone is not interrupted: branches in flight end, and no more
// begin. If that decides the join, the visit is finished, and undone.
func TestACancelOfASplitWithAnUndo(t *testing.T) {
	for bulkhead, want := range map[int]string{
		1: "begin0 end0:<nil> begin1 end1:<nil>",
		3: "begin0 end0:<nil> begin1 end1:<nil> begin2 end2:<nil> undo[1s_1s_1s]",
	} {
		t.Run(fmt.Sprint(bulkhead), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b, _ := watched(t)
				var said tally
				r := b.start(flowOf("f", undoable(&said, segno.Join{Bulkhead: bulkhead}, 3)))
				id := r.trigger("f", cargo{})
				time.Sleep(500 * milli)
				if bulkhead == 1 {
					time.Sleep(time.Second)
				}
				r.cancel(id)
				r.ended(id, segno.RunCancelled)
				words := strings.Fields(said.String())
				expect(t, "steps taken", len(words), len(strings.Fields(want)))
				for _, word := range strings.Fields(want) {
					expect(t, word, strings.Contains(said.String(), word), true)
				}
				for _, e := range r.entries(id) {
					expect(t, "uncertain", e.Uncertain, false)
				}
			})
		})
	}
}

func TestACancelOfASplitThatIsParked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, _ := watched(t)
		var s tries
		r := b.start(flowOf("f", one(fork(segno.Join{Retry: plain(3, time.Hour)}, func(ctx context.Context, _ cargo) (string, error) {
			s.note(ctx)
			return "", errTest
		}, func(ctx context.Context, _ cargo) (string, error) { return "", segno.Snooze(2 * time.Hour) }))))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		expect(t, "Status", r.info(id).Status, segno.RunParked)
		expect(t, "goroutines in runs", r.InHand(), 0)
		time.Sleep(30 * time.Minute)
		r.cancel(id)
		r.ended(id, segno.RunCancelled)
		expect(t, "calls", s.calls(), 1)
	})
}

func TestAStopComesBetweenBranches(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, _ := watched(t)
		var said tally
		f := flowOf("f", undoable(&said, segno.Join{Bulkhead: 2}, 5))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		time.Sleep(500 * milli)
		begin := time.Now()
		b.stop()
		expect(t, "the stop took", time.Since(begin), 500*milli)
		expect(t, "begun and ended", said.len(), 4)
		r = b.start(f)
		expect(t, "joined", text(t, r.completed(id)), "[1s 1s 1s 1s 1s]")
		expect(t, "begun and ended", said.len(), 10)
		expect(t, "log", r.log(id), "enter a, enter b, end done")
	})
}

// A stop without patience leaves the branches in flight to the next start.
func TestAHurriedStopRepeatsTheBranchesInFlight(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, _ := watched(t)
		var said tally
		f := flowOf("f", undoable(&said, segno.Join{Bulkhead: 2}, 3))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		time.Sleep(1500 * milli)
		b.hurry()
		r = b.start(f)
		expect(t, "joined", text(t, r.completed(id)), "[1s 1s 1s]")
		expect(t, "begun", strings.Count(said.String(), "begin"), 4)
		expect(t, "log", r.log(id), "enter a, enter b, end done")
	})
}

func TestMemosOfBranchesAreTheirOwn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		alive := false
		own := func(i int) branch {
			return func(ctx context.Context, c cargo) (string, error) {
				if !alive {
					if err := segno.SaveMemo(ctx, "0/k", i); err != nil {
						return "", err
					}
					return takes(time.Hour, nil)(ctx, c)
				}
				n, found, err := segno.LoadMemo[int](ctx, "0/k")
				return fmt.Sprint(n, found), err
			}
		}
		f := flowOf("f", one(fork(segno.Join{}, own(1), own(2), own(3))))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.kill()
		alive = true
		r = b.start(f)
		expect(t, "joined", text(t, r.completed(id)), "[1 true 2 true 3 true]")
		synctest.Wait()
		expect(t, "memos left", len(b.rows("SELECT key FROM _segno_memo")), 0)
	})
}

// A branch finds its memos in the life that has saved them, too.
func TestABranchFindsTheMemoItHasSaved(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		own := func(i int) branch {
			return func(ctx context.Context, _ cargo) (string, error) {
				if err := segno.SaveMemo(ctx, "k", i); err != nil {
					return "", err
				}
				n, found, err := segno.LoadMemo[int](ctx, "k")
				return fmt.Sprint(n, found), err
			}
		}
		r := newBed(t).start(flowOf("f", one(fork(segno.Join{}, own(1), own(2)))))
		expect(t, "joined", text(t, r.completed(r.trigger("f", cargo{}))), "[1 true 2 true]")
	})
}

// A state that is entered again splits again.
func TestASplitInALoopBeginsAnew(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var calls atomic.Int64
		count := func(context.Context, cargo) (int64, error) { return calls.Add(1), nil }
		r := newBed(t).start(flowOf("f", one(segno.Split(segno.Join{Bulkhead: 1}, func(_ context.Context, c *cargo, all []segno.Settled[int64]) (leg, error) {
			if c.Text += "[" + settled(all) + "]"; len(c.Text) < 15 {
				return legA, nil
			}
			return done, nil
		}, count, count))))
		expect(t, "joined", text(t, r.completed(r.trigger("f", cargo{}))), "[1 2][3 4][5 6]")
	})
}

// Finished branches are not repeated, whichever way the join was decided.
func TestADecidedSplitIsNotDecidedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var calls tally
		alive := false
		word := func(name string) branch {
			return func(context.Context, cargo) (string, error) { calls.add("%s", name); return name, nil }
		}
		f := flowOf("f", one(segno.Split(segno.Join{Mode: segno.Any, Bulkhead: 1}, func(ctx context.Context, c *cargo, all []segno.Settled[string]) (leg, error) {
			if calls.add("merge"); !alive {
				return hold(ctx, c)
			}
			c.Text = settled(all)
			return done, nil
		}, word("x"), word("y"))))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.kill()
		alive = true
		expect(t, "joined", text(t, b.start(f).completed(id)), "x -")
		expect(t, "calls", calls.String(), "x merge merge")
	})
}

// A cancel is told of to a branch as a cancel, a stop as a stop.
func TestABranchLearnsWhyItEnds(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		causes := make(chan error, 1)
		f := flowOf("f", one(fork(segno.Join{}, func(ctx context.Context, _ cargo) (string, error) {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return "", ctx.Err()
		})))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		b.hurry()
		expectError(t, "cause of a stop", <-causes, segno.ErrStopped)
		r = b.start(f)
		synctest.Wait()
		r.cancel(id)
		if err := <-causes; errors.Is(err, segno.ErrStopped) || !contains(err.Error(), "cancelled") {
			t.Errorf("cause of a cancel: got = %v, want that the run was cancelled", err)
		}
		r.ended(id, segno.RunCancelled)
	})
}

// Branches that wait for longer than the join has time do not hold it up.
func TestAJoinsTimeoutComesWhileItsBranchesWait(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, _ := watched(t)
		var rest branch = func(context.Context, cargo) (string, error) { return "", segno.Snooze(time.Hour) }
		r := b.start(flowOf("f", one(fork(segno.Join{Timeout: 10 * time.Second}, rest, rest))))
		begin := time.Now()
		id := r.trigger("f", cargo{})
		synctest.Wait()
		expect(t, "Status", r.info(id).Status, segno.RunParked)
		expectError(t, "the run", r.ended(id, segno.RunFailed), segno.ErrJoin)
		expect(t, "took", time.Since(begin), 10*time.Second)
	})
}

// A stop does not wait for branches that wait, and what a branch has to say
// about a stop is no failure of its own.
func TestAStopOfBranchesThatWaitOrStop(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, _ := watched(t)
		var s tries
		f := flowOf("f", oneStep(segno.Step[leg, cargo]{Timeout: time.Hour, Do: fork(segno.Join{Retry: plain(2, time.Minute)},
			func(ctx context.Context, _ cargo) (string, error) {
				if s.note(ctx) == 1 {
					return "", errTest
				}
				return "x", nil
			}, func(ctx context.Context, c cargo) (string, error) {
				if s.calls() > 1 {
					return "y", nil
				}
				time.Sleep(2 * time.Second)
				return "", segno.ErrStopped // of a call of the scheduler's
			})}))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		time.Sleep(time.Second)
		begin := time.Now()
		b.stop()
		expect(t, "the stop took", time.Since(begin), time.Second)
		time.Sleep(18 * time.Second)
		s.note(context.Background())
		r = b.start(f)
		expect(t, "joined", text(t, r.completed(id)), "[x y]")
		expect(t, "took", time.Since(begin), 59*time.Second)
	})
}
