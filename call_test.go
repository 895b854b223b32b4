package segno_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// A parcel is the data of the flows that are called.
type parcel struct {
	N int `json:"n,omitempty"`
}

type (
	hop   string
	hops  = segno.Steps[hop, parcel]
	child = segno.Workflow[hop, parcel]
	trip  = segno.Run[hop, parcel]
)

// errand is a workflow of one state to be called.
func errand(do segno.DoFunc[hop, parcel]) child {
	return child{Initial: "go", Steps: hops{"go": {Do: do}, "back": {Final: true}}}
}

// double is what most children do, after a while.
func double(after time.Duration) child {
	return errand(func(ctx context.Context, p *parcel) (hop, error) {
		if err := sweepRest(ctx, after); err != nil {
			return "", err
		}
		p.N *= 2
		return "back", nil
	})
}

// callOf calls the flow "g", says how it ended, and goes on to next.
func callOf(said *tally, w child, next leg) do {
	return segno.Call("g", w, func(c cargo) parcel { return parcel{c.N} }, func(_ context.Context, c *cargo, run trip) (leg, error) {
		said.add("%s:%s:%d", run.Status, run.State, run.Data.N)
		c.N = run.Data.N
		return next, nil
	})
}

// calling is a flow "f" that can be undone in its first state and calls in its
// second, and the flow "g" that it calls.
func calling(said *tally, w child, more ...func(*segno.Step[leg, cargo])) []segno.Flow {
	f := saga(1, said, callOf(said, w, done))
	for _, fn := range more {
		change(f, "s2", fn)
	}
	return []segno.Flow{flowOf("f", f), flowOf("g", w)}
}

// childOf returns the run that a run has called.
func (l *live) childOf(id segno.RunID) segno.RunInfo {
	l.t.Helper()
	for _, run := range l.runs("g") {
		if run.Parent == id {
			return run
		}
	}
	l.t.Fatalf("run %d has no child", id)
	return segno.RunInfo{}
}

func TestACallHasTheChildsDataAsItsResult(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		r := b.start(calling(&said, double(time.Hour))...)
		begin := time.Now()
		id := r.trigger("f", cargo{N: 6})
		synctest.Wait()
		parent, ch := r.info(id), r.childOf(id)
		expect(t, "status", parent.Status, segno.RunWaiting)
		expect(t, "Child", parent.Child, ch.ID)
		expect(t, "the child's status", ch.Status, segno.RunRunning)
		expect(t, "goroutines in runs: the child's", b.run.InHand(), 1)
		lines, err := queryLines(r.DB(), "SELECT flow, child, parent FROM segno_runs ORDER BY run")
		expect(t, "segno_runs", fmt.Sprint(lines, err), fmt.Sprintf("[f|%d| g||%d] <nil>", ch.ID, id))
		r.completed(ch.ID)
		r.completed(id)
		expect(t, "took", time.Since(begin), time.Hour)
		expect(t, "said", said.String(), "completed:back:14")
		expect(t, "data", string(r.info(id).Data), `{"n":14}`)
		expect(t, "log", r.log(id), "enter s1, enter s2, end done")
		expect(t, "runs of g", r.status("g").RunCount, 1)
	})
}

func TestThenSeesAChildThatWentWrong(t *testing.T) {
	saved := func(err, undo error) child {
		return child{Initial: "go", Steps: hops{
			"go":   {Do: func(_ context.Context, p *parcel) (hop, error) { p.N++; return "on", nil }, Undo: func(context.Context, parcel) error { return undo }},
			"on":   {Do: func(context.Context, *parcel) (hop, error) { return "", err }},
			"back": {Final: true},
		}}
	}
	for name, c := range map[string]struct {
		w      child
		cancel bool
		want   string
	}{
		"failed":      {saved(errTest, nil), false, "failed:on:2"},
		"undo failed": {saved(errTest, errTest), false, "undo_failed:on:2"},
		"cancelled":   {double(time.Hour), true, "cancelled:go:1"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var said tally
				r := newBed(t).start(flowOf("f", one(callOf(&said, c.w, done))), flowOf("g", c.w))
				id := r.trigger("f", cargo{N: 1})
				synctest.Wait()
				if c.cancel {
					r.cancel(r.childOf(id).ID)
				}
				r.completed(id)
				expect(t, "said", said.String(), c.want)
				expect(t, "streak of the child's flow", r.status("g").FailureStreak, 0)
			})
		})
	}
}

func TestAVisitHasOneChildOverRetriesAndRestarts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		w := double(time.Hour)
		fails := 2
		f := flowOf("f", oneStep(segno.Step[leg, cargo]{Retry: segno.Fixed(3, time.Hour), Do: segno.Call("g", w,
			func(cargo) parcel { said.add("in"); return parcel{1} },
			func(ctx context.Context, _ *cargo, run trip) (leg, error) {
				said.add("%d", segno.InfoFrom(ctx).Attempt)
				if fails--; fails >= 0 {
					return "", errTest
				}
				return done, nil
			})}))
		r := b.start(f, flowOf("g", w))
		id := r.trigger("f", cargo{})
		time.Sleep(time.Minute)
		r = b.restart(f, flowOf("g", w))
		time.Sleep(90 * time.Minute)
		r = b.restart(f, flowOf("g", w))
		r.completed(id)
		expect(t, "said", said.String(), "in 1 2 3")
		expect(t, "runs of g", len(r.runs("g")), 1)
	})
}

func TestAParentThatIsCutShortCancelsItsChildAndWaitsForItsRollback(t *testing.T) {
	for name, c := range map[string]struct {
		cut  func(*route)
		want segno.RunStatus
	}{
		"cancel":       {func(*route) {}, segno.RunCancelled},
		"run timeout":  {func(w *route) { w.Timeout = time.Minute }, segno.RunFailed},
		"step timeout": {func(w *route) { change(*w, "s2", func(s *segno.Step[leg, cargo]) { s.Timeout = time.Minute }) }, segno.RunFailed},
	} {
		for _, how := range []string{"", " over a restart"} {
			t.Run(name+how, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					b := newBed(t)
					var said tally
					w := child{Initial: "go", Steps: hops{
						"go": {
							Do:   func(context.Context, *parcel) (hop, error) { return "on", nil },
							Undo: func(ctx context.Context, p parcel) error { said.add("child"); return sweepRest(ctx, 10*time.Second) },
						},
						"on":   {Do: segno.Sleep[parcel](time.Hour, hop("back"))},
						"back": {Final: true},
					}}
					f := saga(1, &said, callOf(&said, w, done))
					c.cut(&f)
					flows := []segno.Flow{flowOf("f", f), flowOf("g", w)}
					r := b.start(flows...)
					begin := time.Now()
					id := r.trigger("f", cargo{})
					if name == "cancel" {
						time.Sleep(time.Minute)
						r.cancel(id)
					}
					if how != "" {
						time.Sleep(time.Until(begin.Add(65 * time.Second)))
						expect(t, "status in the middle", r.info(id).Status, segno.RunWaiting)
						b.stop()
						r = b.start(flows...)
					}
					synctest.Wait()
					ch := r.childOf(id)
					r.ended(id, c.want)
					r.ended(ch.ID, segno.RunCancelled)
					expect(t, "took", time.Since(begin), 70*time.Second)
					expect(t, "undone", said.String(), "child s1:1")
				})
			})
		}
	}
}

// Only the program was down when the visit's time was up.
func TestAChildThatEndedInTimeWins(t *testing.T) {
	for name, w := range map[string]child{"completed": double(time.Minute), "failed": errand(func(ctx context.Context, _ *parcel) (hop, error) {
		if err := sweepRest(ctx, time.Minute); err != nil {
			return "", err
		}
		return "", errTest
	})} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				var said tally
				fails := true
				f := flowOf("f", oneStep(segno.Step[leg, cargo]{Timeout: time.Hour, Retry: segno.Fixed(2, 2*time.Hour), Do: segno.Call("g", w,
					func(cargo) parcel { return parcel{1} },
					func(_ context.Context, _ *cargo, run trip) (leg, error) {
						said.add("%s", run.Status)
						if fails {
							fails = false
							return "", errTest
						}
						return done, nil
					})}))
				r := b.start(f, flowOf("g", w))
				id := r.trigger("f", cargo{})
				time.Sleep(2 * time.Minute)
				b.kill()
				time.Sleep(24 * time.Hour)
				r = b.start(f, flowOf("g", w))
				r.completed(id)
				expect(t, "said", said.String(), name+" "+name)
			})
		})
	}
}

// The policies of the child's flow are for its own runs.
func TestAChildIsNotGovernedByItsFlowsPolicies(t *testing.T) {
	ctx := context.Background()
	for name, prepare := range map[string]func(r *live){
		"open run": func(r *live) { r.trigger("g", parcelOf(0)) },
		"paused":   func(r *live) { r.pause("g", segno.Pause{Note: "lunch"}) },
		"tripped":  func(r *live) { r.ended(r.trigger("g", parcelOf(-1)), segno.RunFailed) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var said tally
				w := errand(func(ctx context.Context, p *parcel) (hop, error) {
					if p.N < 0 {
						return "", errTest
					}
					return "back", sweepRest(ctx, time.Hour)
				})
				r := newBed(t).start(flowOf("f", one(callOf(&said, w, done))),
					segno.Flow{ID: "g", Workflow: w, Backoff: segno.BackoffPolicy{StreakLimit: 1}})
				prepare(r)
				before := r.status("g")
				begin := time.Now()
				r.completed(r.trigger("f", cargo{N: 1}))
				expect(t, "took", time.Since(begin), time.Hour)
				_, err := r.WaitRun(ctx, r.trigger("f", cargo{N: -1}))
				expect(t, "the parent of one that failed", err, nil)
				after := r.status("g")
				expect(t, "streak", after.FailureStreak, before.FailureStreak)
				expect(t, "NextEligible", after.NextEligible, before.NextEligible)
				expect(t, "said", said.String(), "completed:back:1 failed:go:-1")
			})
		})
	}
}

// parcelOf is an input of the flow "g" as cargo has it.
func parcelOf(n int) cargo { return cargo{N: n} }

func TestAChildDoesNotCountForTheOverlapOfItsFlow(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		var said tally
		flows := calling(&said, double(time.Hour))
		r := b.start(flows...)
		parent := r.trigger("f", cargo{N: 1})
		synctest.Wait()
		own := r.trigger("g", cargo{N: 5}) // Skip: only runs of its own would refuse it
		_, err := r.Trigger(context.Background(), "g", segno.Trigger{})
		expectError(t, "a second one", err, segno.ErrRunning)
		r = b.restart(flows...)
		r.completed(own)
		r.completed(parent)
		expect(t, "Open", r.status("g").Open, 0)
	})
}

func TestCallsDoNotDeadlockOnTheirPlaces(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{MaxConcurrent: 1})
		var said tally
		flows := calling(&said, double(time.Minute))
		flows[0].Overlap = segno.Allow(0)
		r := b.start(flows...)
		var ids []segno.RunID
		for n := range 3 {
			ids = append(ids, r.trigger("f", cargo{N: n}))
		}
		begin := time.Now()
		for _, id := range ids {
			r.completed(id)
		}
		expect(t, "took: one after the other", time.Since(begin), 3*time.Minute)
	})
}

// russian is a workflow that calls itself until its number is 0.
func russian() route {
	call := segno.Call("f", route{}, func(c cargo) cargo { return cargo{N: c.N - 1} },
		func(_ context.Context, c *cargo, run segno.Run[leg, cargo]) (leg, error) {
			if run.Status != segno.RunCompleted {
				return "", fmt.Errorf("depth below: %s", run.Error)
			}
			c.Text = run.Data.Text + "o"
			return done, nil
		})
	return one(func(ctx context.Context, c *cargo) (leg, error) {
		if c.N == 0 {
			c.Text = "!"
			return done, nil
		}
		return call(ctx, c)
	})
}

func TestAWorkflowMayCallItself32Deep(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", russian()))
		info := r.completed(r.trigger("f", cargo{N: 32}))
		expect(t, "data", string(info.Data), `{"n":32,"text":"!oooooooooooooooooooooooooooooooo"}`)
		err := r.failed(r.trigger("f", cargo{N: 33}))
		expectText(t, "33 deep", err, "more than 32 deep", "bad configuration")
		expect(t, "runs", len(r.runs("f")), 33+33)
	})
}

// ended takes no notice of how a child has ended.
func ended[C any](context.Context, *cargo, segno.Run[hop, C]) (leg, error) { return done, nil }

func TestACallThatCannotBeMadeFailsTheVisitAtOnce(t *testing.T) {
	type stranger struct{ Name string }
	other := segno.Workflow[hop, stranger]{Initial: "go", Steps: segno.Steps[hop, stranger]{"go": {Final: true}}}
	newer := double(0)
	newer.Version = 2
	more := double(0)
	more.Steps = hops{"go": more.Steps["go"], "back": {Final: true}, "extra": {Final: true}}
	for name, c := range map[string]struct {
		call do
		want error
	}{
		"unknown flow":     {segno.Call("h", double(0), func(cargo) parcel { return parcel{} }, ended[parcel]), segno.ErrNotFound},
		"other data":       {segno.Call("g", other, func(cargo) stranger { return stranger{} }, ended[stranger]), segno.ErrConfig},
		"other data, bare": {segno.Call("g", segno.Workflow[hop, stranger]{}, func(cargo) stranger { return stranger{} }, ended[stranger]), segno.ErrConfig},
		"other version":    {callOf(nil, newer, done), segno.ErrConfig},
		"other states":     {callOf(nil, more, done), segno.ErrConfig},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: c.call, Retry: segno.Fixed(3, time.Second)})), flowOf("g", double(0)))
				id := r.trigger("f", cargo{})
				err := r.failed(id)
				expectText(t, "the run", err, c.want.Error(), "calling flow")
				expect(t, "log", r.log(id), "enter a, end a")
				expect(t, "runs of g", len(r.runs("g")), 0)
			})
		})
	}
}

func TestCancelFlowOfTheChildsFlowCancelsChildren(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		r := newBed(t).start(calling(&said, double(time.Hour))...)
		id := r.trigger("f", cargo{})
		synctest.Wait()
		if err := r.CancelFlow(context.Background(), "g"); err != nil {
			t.Fatal(err)
		}
		r.completed(id)
		expect(t, "said", said.String(), "cancelled:go:1")
	})
}

func TestEachVisitOfACallHasAChildOfItsOwn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var said tally
		w := double(time.Minute)
		r := newBed(t).start(flowOf("f", one(segno.Call("g", w, func(c cargo) parcel { return parcel{c.N} },
			func(_ context.Context, c *cargo, run trip) (leg, error) {
				said.add("%d", run.Data.N)
				if c.N = run.Data.N; c.N >= 8 {
					return done, nil
				}
				return legA, nil
			}))), flowOf("g", w))
		id := r.trigger("f", cargo{N: 1})
		r.completed(id)
		expect(t, "said", said.String(), "2 4 8")
		expect(t, "runs of g", len(r.runs("g")), 3)
		expect(t, "log", r.log(id), "enter a, enter a, enter a, end done")
	})
}

func TestAChildThatIsStuckIsWaitedFor(t *testing.T) {
	for name, cancel := range map[string]bool{"and resumed": false, "though its parent is cancelled": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := newBed(t)
				ctx := context.Background()
				var said tally
				w := errand(segno.Sleep[parcel](time.Hour, hop("back")))
				flows := calling(&said, w)
				r := b.start(flows...)
				id := r.trigger("f", cargo{})
				synctest.Wait()
				b.kill()
				time.Sleep(2 * time.Hour)
				r = b.start(flows[0]) // nobody registers the child's flow any more
				synctest.Wait()
				ch := r.childOf(id)
				expect(t, "the child's status", ch.Status, segno.RunStuck)
				expect(t, "the parent's status", r.info(id).Status, segno.RunWaiting)
				if cancel {
					r.cancel(id)
					synctest.Wait()
					expect(t, "the parent's status: the child has yet to roll back", r.info(id).Status, segno.RunWaiting)
				}
				b.stop()
				r = b.start(flows...)
				if cancel {
					r.ended(id, segno.RunCancelled)
					_, err := r.WaitRun(ctx, ch.ID)
					expectError(t, "the child", err, context.Canceled)
					expect(t, "said", said.String(), "s1:1")
				} else {
					r.completed(id)
					expect(t, "said", said.String(), "completed:back:1")
				}
			})
		})
	}
}
