package segno_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// hear waits for a number by name, says it, and goes on to next.
func hear(said *tally, name string, next leg, o ...segno.AwaitOptions[leg, cargo]) do {
	return segno.Await(name, func(_ context.Context, c *cargo, n int) (leg, error) {
		said.add("%s%d", name, n)
		c.N += n
		return next, nil
	}, o...)
}

// hears visits the states in order, each of which waits for a signal.
func hears(said *tally, names ...string) route {
	w := route{Initial: "s0", Steps: legs{done: {Final: true}}}
	for i, name := range names {
		next := leg(fmt.Sprint("s", i+1))
		if i == len(names)-1 {
			next = done
		}
		w.Steps[leg(fmt.Sprint("s", i))] = segno.Step[leg, cargo]{Do: hear(said, name, next)}
	}
	return w
}

// send sends a signal that must be taken.
func (l *live) send(id segno.RunID, name, message string, payload any) {
	l.t.Helper()
	if err := l.trySend(id, name, message, payload); err != nil {
		l.t.Fatalf("Signal: got error %v, want none", err)
	}
}

func (l *live) trySend(id segno.RunID, name, message string, payload any) error {
	return l.Signal(context.Background(), segno.Target{Run: id}, segno.Message{Name: name, ID: message, Payload: payload})
}

// signals returns what the view says of the signals of a run.
func (l *live) signals(id segno.RunID) string {
	l.t.Helper()
	lines, err := queryLines(l.DB(), "SELECT name, message, status, visit, payload FROM segno_signals WHERE run = ? ORDER BY id", id)
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.Join(lines, " ")
}

func TestARunWaitsForASignalWithoutAGoroutine(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		r := b.start(flowOf("f", hears(&said, "go")))
		id := r.trigger("f", cargo{N: 1})
		time.Sleep(time.Hour)
		info := r.info(id)
		expect(t, "status", info.Status, segno.RunWaiting)
		expect(t, "Awaits", info.Awaits, "go")
		expect(t, "goroutines in runs", b.run.InHand(), 0)
		before := b.commits.Load()
		r.send(id, "go", "m1", 2)
		r.completed(id)
		expect(t, "commits: the signal, the claim, the taking, the end", b.commits.Load()-before, 4)
		expect(t, "data", string(r.info(id).Data), `{"n":3}`)
		expect(t, "Awaits of an ended run", r.info(id).Awaits, "")
		expect(t, "signals", r.signals(id), "go|m1|consumed|1|2")
	})
}

func TestASignalThatComesEarlyIsKept(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		w := hears(&said, "go")
		w.Steps["s0"] = segno.Step[leg, cargo]{Do: segno.Sleep[cargo](time.Hour, leg("s1"))}
		w.Steps["s1"] = segno.Step[leg, cargo]{Do: hear(&said, "go", done)}
		r := newBed(t).start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		begin := time.Now()
		r.send(id, "go", "", 1)
		r.send(id, "other", "", 2)
		expect(t, "signals", r.signals(id), "go||queued||1 other||queued||2")
		r.completed(id)
		expect(t, "took: it did not wait for it again", time.Since(begin), time.Hour)
		expect(t, "signals at the end", r.signals(id), "go||consumed|2|1 other||queued||2")
	})
}

func TestSignalsOfOneNameAreTakenInTheirOrder(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		r := newBed(t).start(flowOf("f", hears(&said, "a", "b", "a", "a", "b")))
		id := r.trigger("f", cargo{})
		for n, name := range []string{"b", "a", "a", "b", "b"} {
			r.send(id, name, "", n)
		}
		synctest.Wait()
		expect(t, "taken", said.String(), "a1 b0 a2")
		r.send(id, "a", "", 5)
		r.completed(id)
		expect(t, "taken", said.String(), "a1 b0 a2 a5 b3")
	})
}

func TestASignalIsTakenOncePerID(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		f := flowOf("f", hears(&said, "a", "a", "a", "a"))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		r.send(id, "a", "x", 1)
		r.send(id, "a", "x", 2) // while it is fresh
		synctest.Wait()
		r.send(id, "a", "x", 3) // after it was taken
		r.send(id, "b", "x", 4) // the ID is the sender's, whatever the name
		synctest.Wait()
		expect(t, "taken", said.String(), "a1")
		r = b.restart(f)
		r.send(id, "a", "x", 5)
		r.send(id, "a", "", 6)
		r.send(id, "a", "", 6) // without an ID it is another one

		r.send(id, "a", "y", 7)
		r.completed(id)
		expect(t, "taken", said.String(), "a1 a6 a6 a7")
		expect(t, "the same after the end", fmt.Sprint(r.trySend(id, "a", "x", 8)), "<nil>")
		expectError(t, "another after the end", r.trySend(id, "a", "z", 9), segno.ErrEnded)
		expectError(t, "one without an ID after the end", r.trySend(id, "a", "", 9), segno.ErrEnded)
	})
}

func TestTheTargetOfASignal(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		ctx := context.Background()
		var said tally
		r := newBed(t).start(flowOf("f", hears(&said, "a", "a", "a")), flowOf("g", one(hold)))
		id := r.triggerWith("f", segno.Trigger{Key: "order 1"})
		m := segno.Message{Name: "a", Payload: 1}
		for name, c := range map[string]struct {
			to   segno.Target
			want error
		}{
			"nothing":                {segno.Target{}, segno.ErrConfig},
			"a flow without key":     {segno.Target{Flow: "f"}, segno.ErrConfig},
			"a key without flow":     {segno.Target{Key: "order 1"}, segno.ErrConfig},
			"an unknown run":         {segno.Target{Run: 99}, segno.ErrNotFound},
			"an unknown key":         {segno.Target{Flow: "f", Key: "order 2"}, segno.ErrNotFound},
			"another flow's key":     {segno.Target{Flow: "g", Key: "order 1"}, segno.ErrNotFound},
			"an unknown flow":        {segno.Target{Flow: "h", Key: "order 1"}, segno.ErrNotFound},
			"a run of another flow":  {segno.Target{Run: id, Flow: "g"}, segno.ErrNotFound},
			"the run":                {segno.Target{Run: id}, nil},
			"the run, with its flow": {segno.Target{Run: id, Flow: "f"}, nil},
			"the flow and its key":   {segno.Target{Flow: "f", Key: "order 1"}, nil},
		} {
			expectError(t, name, r.Signal(ctx, c.to, m), c.want)
		}
		r.completed(id)
		expect(t, "taken", said.String(), "a1 a1 a1")
		expectError(t, "no name", r.Signal(ctx, segno.Target{Run: id}, segno.Message{}), segno.ErrConfig)
		expectError(t, "a payload that is no JSON", r.trySend(id, "a", "", func() {}), segno.ErrConfig)
		expectError(t, "a payload that is too large", r.trySend(id, "a", "", strings.Repeat("x", 1<<20)), segno.ErrConfig)
	})
}

func TestAPayloadThatDoesNotFitFailsTheVisit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		w := hears(&said, "a")
		change(w, "s0", func(s *segno.Step[leg, cargo]) { s.Retry = segno.Fixed(3, time.Second) })
		r := newBed(t).start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		r.send(id, "a", "", "many")
		expectText(t, "the run", r.failed(id), `signal "a"`, "int")
		expect(t, "log: it is not tried again", r.log(id), "enter s0, end s0")
		expect(t, "taken", said.String(), "")
	})
}

func TestARetryAndARestartSeeTheSamePayload(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		fails := 3
		f := flowOf("f", oneStep(segno.Step[leg, cargo]{Retry: segno.Fixed(4, time.Hour), Do: segno.Await("a", func(ctx context.Context, c *cargo, n int) (leg, error) {
			said.add("%d:%d", segno.InfoFrom(ctx).Attempt, n)
			if fails--; fails >= 0 {
				return "", errTest
			}
			return done, nil
		})}))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		r.send(id, "a", "", 1)
		r.send(id, "a", "", 2)
		synctest.Wait()
		expect(t, "signals between attempts", r.signals(id), "a||taken|1|1 a||queued||2")
		time.Sleep(90 * time.Minute)
		b.stop()
		r = b.start(f)
		time.Sleep(time.Hour)
		r = b.restart(f)
		r.completed(id)
		expect(t, "attempts", said.String(), "1:1 2:1 3:1 4:1")
		expect(t, "signals", r.signals(id), "a||consumed|1|1 a||queued||2")
	})
}

func TestAnAwaitThatIsVisitedAgainTakesTheNextSignal(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		r := newBed(t).start(flowOf("f", one(segno.Await("a", func(_ context.Context, c *cargo, n int) (leg, error) {
			said.add("%d", n)
			if n == 3 {
				return done, nil
			}
			return legA, nil
		}))))
		id := r.trigger("f", cargo{})
		for n := 1; n <= 3; n++ {
			r.send(id, "a", "", n)
			time.Sleep(time.Duration(n-1) * time.Hour)
		}
		r.completed(id)
		expect(t, "taken", said.String(), "1 2 3")
	})
}

// late is a workflow that waits an hour for a signal, and then goes another way.
func late(said *tally, o ...segno.AwaitOptions[leg, cargo]) route {
	return oneStep(segno.Step[leg, cargo]{Timeout: time.Hour, Do: hear(said, "a", done, o...)})
}

func TestAWaitThatTakesTooLong(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		r := newBed(t).start(flowOf("fails", late(&said)), flowOf("goes on", late(&said, segno.AwaitOptions[leg, cargo]{
			OnTimeout: func(ctx context.Context, c *cargo) (leg, error) { said.add("late"); c.Text = "late"; return done, nil },
		})))
		begin := time.Now()
		id := r.trigger("fails", cargo{})
		err := r.failed(id)
		expectError(t, "the run", err, context.DeadlineExceeded)
		expectText(t, "the run", err, `"a"`)
		expect(t, "took", time.Since(begin), time.Hour)
		begin = time.Now()
		id = r.trigger("goes on", cargo{})
		expect(t, "data", string(r.completed(id).Data), `{"text":"late"}`)
		expect(t, "took", time.Since(begin), time.Hour)
	})
}

func TestADeadlineOfAWaitRunsOnWhileTheProgramIsDown(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		f := flowOf("f", late(&said))
		id := b.start(f).trigger("f", cargo{})
		time.Sleep(20 * time.Minute)
		b.kill()
		time.Sleep(20 * time.Minute)
		b.start(f)
		time.Sleep(19 * time.Minute)
		r := &live{b.run, t}
		expect(t, "status", r.info(id).Status, segno.RunWaiting)
		b.stop()
		time.Sleep(time.Hour)
		begin := time.Now()
		r = b.start(f)
		expectError(t, "the run", r.failed(id), context.DeadlineExceeded)
		expect(t, "took", time.Since(begin), 0)
	})
}

// The signal was there before the program went down, or before anybody looked.
func TestASignalThatIsThereWinsOverADeadlineThatHasPassed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		w := late(&said)

		w.Initial, w.Steps[legB] = legB, segno.Step[leg, cargo]{Do: to(legA)}
		f := flowOf("f", w)
		r := b.start(f)
		id := r.trigger("f", cargo{})
		synctest.Wait()

		r.send(id, "a", "", 1) // its commit wakes the run: kill before it is claimed
		b.kill()
		time.Sleep(2 * time.Hour)
		r = b.start(f)
		r.completed(id)
		expect(t, "taken", said.String(), "a1")
	})
}

func TestFnHasTheTimeoutForEachAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var s tries
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Timeout: time.Hour, Retry: segno.Retry{Attempts: 3, Initial: time.Minute, Multiplier: 1, Jitter: -1},
			Do: segno.Await("a", func(ctx context.Context, c *cargo, n int) (leg, error) {
				if s.note(ctx) == 3 {
					return done, nil
				}
				return hold(ctx, c)
			}),
		})))
		id := r.trigger("f", cargo{})
		time.Sleep(50 * time.Minute)
		r.send(id, "a", "", 1)
		r.completed(id)
		expect(t, "attempts", s.numbers(), "[1 2 3]")
		expect(t, "between them", s.gaps(), "1h1m0s 1h1m0s")
	})
}

func TestAWaitingRunIsCancelledAndTimedOut(t *testing.T) {
	for name, want := range map[string]segno.RunStatus{"cancel": segno.RunCancelled, "timeout": segno.RunFailed} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var said, undone tally
				w := saga(1, &undone, hear(&said, "a", done))
				w.Timeout = time.Hour
				r := newBed(t).start(flowOf("f", w))
				id := r.trigger("f", cargo{})
				begin := time.Now()
				if name == "cancel" {
					time.Sleep(time.Hour / 2)
					begin = begin.Add(-time.Hour / 2)
					r.cancel(id)
				}
				r.ended(id, want)
				expect(t, "took", time.Since(begin), time.Hour)
				expect(t, "undone", undone.String(), "s1:1")
				expectError(t, "a signal afterwards", r.trySend(id, "a", "", 1), segno.ErrEnded)
			})
		})
	}
}

func TestASignalWaitsForAStuckRunToBeResumed(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		w := hears(&said, "a")
		change(w, "s0", func(s *segno.Step[leg, cargo]) { s.Timeout = time.Minute })
		f := flowOf("f", w)
		id := b.start(f).trigger("f", cargo{})
		synctest.Wait()
		r, _ := stuck(b, f)
		time.Sleep(2 * time.Minute) // its wait is over: it would be resumed, and cannot
		expect(t, "status", r.info(id).Status, segno.RunStuck)
		r.send(id, "a", "", 1)

		b.stop()
		r = b.start(f)
		if err := r.ResumeRun(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		r.completed(id)
		expect(t, "taken: it wins over the deadline", said.String(), "a1")
	})
}

func TestManyRunsWait(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{MaxConcurrent: 3})
		var said tally
		f := segno.Flow{ID: "f", Workflow: hears(&said, "a", "b"), Overlap: segno.Allow(2)}
		r := b.start(f)
		var ids []segno.RunID
		for range 20 {
			ids = append(ids, r.trigger("f", cargo{}))
		}
		synctest.Wait()
		expect(t, "goroutines in runs", b.run.InHand(), 0)
		for i, id := range ids {
			r.send(id, "b", "", i)
			r.send(id, "a", "", i)
		}
		for i, id := range ids {
			expect(t, "data", string(r.completed(id).Data) == fmt.Sprintf(`{"n":%d}`, 2*i) || i == 0, true)
		}
		expect(t, "taken", said.len(), 2*len(ids))
	})
}

func TestASignalFromInsideAStep(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var r *live
		var said tally
		r = newBed(t).start(flowOf("waits", hears(&said, "a")), flowOf("sends", one(func(ctx context.Context, c *cargo) (leg, error) {
			return done, r.Signal(ctx, segno.Target{Run: segno.RunID(c.N)}, segno.Message{Name: "a", ID: segno.InfoFrom(ctx).Key, Payload: 3})
		})), flowOf("to itself", one(func(ctx context.Context, c *cargo) (leg, error) {
			in := segno.InfoFrom(ctx)
			if err := r.Signal(ctx, segno.Target{Run: in.Run}, segno.Message{Name: "a", Payload: 4}); err != nil {
				return "", err
			}
			return hear(&said, "a", done)(ctx, c)
		})))
		id := r.trigger("waits", cargo{})
		r.completed(r.trigger("sends", cargo{N: int(id)}))
		r.completed(id)
		r.completed(r.trigger("to itself", cargo{}))
		expect(t, "taken", said.String(), "a3 a4")
	})
}

func TestASignalFromInsideATransactionIsErrTx(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var r *live
		var said tally
		var inCommit error
		r = newBed(t).start(flowOf("f", hears(&said, "a")), flowOf("g", one(func(ctx context.Context, _ *cargo) (leg, error) {
			return done, segno.OnCommit(ctx, func(segno.Tx) error {
				inCommit = r.trySend(1, "a", "", 1)
				return nil
			})
		})))
		id := r.trigger("f", cargo{})
		err := r.Write(context.Background(), func(segno.Tx) error { return r.trySend(id, "a", "", 1) })
		expectError(t, "Write", err, segno.ErrTx)
		r.completed(r.trigger("g", cargo{}))
		expectError(t, "OnCommit", inCommit, segno.ErrTx)
		expect(t, "signals", r.signals(id), "")
	})
}

// A Signal that has returned nil is in the file: no stop loses it.
func TestSignalsBesideAStop(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		f := flowOf("f", one(segno.Await("a", func(_ context.Context, c *cargo, n int) (leg, error) {
			if n < 0 {
				return done, nil
			}
			c.N++
			return legA, nil
		})))
		r := b.start(f)
		id := r.trigger("f", cargo{})
		sent := make(chan int)
		go func() {
			n := 0
			for ; ; n++ {
				if err := r.trySend(id, "a", "", n); err != nil {
					if !errors.Is(err, segno.ErrStopped) {
						t.Errorf("Signal: got error %v, want %v", err, segno.ErrStopped)
					}
					break
				}
				time.Sleep(time.Microsecond)
			}
			sent <- n
		}()
		time.Sleep(20 * time.Microsecond)
		b.stop()
		n := <-sent
		r = b.start(f)
		r.send(id, "a", "", -1)
		expect(t, "taken", string(r.completed(id).Data), fmt.Sprintf(`{"n":%d}`, n))

	})
}
