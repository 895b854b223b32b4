package segno_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
	"github.com/segnodev/segno/engine"
	"github.com/segnodev/segno/segnotest"
)

// referenceObserver are the acceptance scenarios about observers and about what
// tests are helped with; each runs in a bubble of its own.
var referenceObserver = map[string]func(*testing.T){
	"O01_obs_order":         refObsOrder,
	"O02_obs_panic":         refObsPanic,
	"O03_obs_split_cancel":  refObsSplitCancel,
	"O04_obs_split_timeout": refObsSplitTimeout,
	"O05_obs_clear_failed":  refObsClearFailed,
	"O06_obs_unknown_state": refObsUnknownState,
	"K01_test_recorder":     refTestRecorder,
	"W18_observer_panics":   refObserverPanics,
	"W28_event_order":       refEventOrder,
	"W29_event_order_timeout": func(t *testing.T) {
		w := one(hold)
		w.Timeout = time.Minute
		refWantTold(t, w, nil, "task_started:a task_failed:a run_timed_out")
	},
	"W33_retry_hook_panics": refRetryHookPanics,
	"C09_event_once":        refEventOnce,
	"R35_resume_events":     refResumeEvents,
	"R18_retry_event_order": func(t *testing.T) {
		w := oneStep(segno.Step[leg, cargo]{Do: fail, Retry: segno.Fixed(3, 100*time.Millisecond)})
		refWantTold(t, w, nil, "task_started:a retry:a1 retry:a2 task_failed:a")
	},
}

// refWantTold runs a workflow and wants these events of it in one piece.
func refWantTold(t *testing.T, wf route, more []segno.Observer, want string) {
	t.Helper()
	b, w := watched(t, more...)
	r := b.start(flowOf("f", wf))
	_, _ = r.WaitRun(context.Background(), r.trigger("f", cargo{}))
	if got := told(w); !strings.Contains(got, want) {
		t.Errorf("events: got = %s, want %s among them", got, want)
	}
}

func refObsOrder(t *testing.T) {
	refWantTold(t, one(to(done)), nil, "state_entered:a checkpoint1 task_started:a task_succeeded:a state_entered:done checkpoint2")
}

func refEventOrder(t *testing.T) {
	refWantTold(t, one(to(done)), nil, "state_entered:a checkpoint1 task_started:a task_succeeded:a")
}

// refHarm is an observer that panics, at one kind of event or at each.
func refHarm(only segno.EventKind, times *tally) segno.Observer {
	return segno.ObserverFunc(func(_ context.Context, e segno.Event) {
		if only == "" || e.Kind == only {
			times.add("%s", e.Kind)
			panic("observer")
		}
	})
}

func refObsPanic(t *testing.T) {
	var times tally
	var s tries
	w := oneStep(segno.Step[leg, cargo]{Do: s.failing(2), Retry: segno.Fixed(3, 100*time.Millisecond)})
	refWantTold(t, w, []segno.Observer{refHarm("", &times)},
		"task_started:a retry:a1 retry:a2 task_succeeded:a state_entered:done checkpoint4 run_finished:completed")
	expect(t, "attempts", s.calls(), 3)
	expect(t, "panics", times.len(), 10)
}

func refObserverPanics(t *testing.T) {
	var times tally
	w := route{Initial: legA, Steps: legs{legA: {Do: to(legB)}, legB: {Do: to(done)}, done: {Final: true}}}
	refWantTold(t, w, []segno.Observer{refHarm(segno.EventStateEntered, &times)}, "state_entered:done checkpoint3 run_finished:completed")
	expect(t, "entries told", times.len(), 3)
}

func refRetryHookPanics(t *testing.T) {
	var times tally
	var s tries
	w := oneStep(segno.Step[leg, cargo]{Do: s.failing(2), Retry: segno.Fixed(3, 100*time.Millisecond)})
	refWantTold(t, w, []segno.Observer{refHarm(segno.EventRetry, &times)}, "run_finished:completed")
	expect(t, "retries told", times.len(), 2)
	expect(t, "attempts", s.calls(), 3)
}

// refFanOut has three branches, which wait for their context in goroutines of
// their own; those that are not waited for have no end of their own.
func refFanOut(wait bool) do {
	return func(ctx context.Context, _ *cargo) (leg, error) {
		v := engine.VisitFrom(ctx)
		var branches sync.WaitGroup
		for i := range 3 {
			name := fmt.Sprint(i)
			v.Observe(engine.EventTaskStarted, name, nil)
			branches.Go(func() {
				<-ctx.Done()
				if wait || i == 0 {
					v.Observe(engine.EventTaskFailed, name, context.Cause(ctx))
				}
			})
		}
		<-ctx.Done()
		if wait {
			branches.Wait()
		}
		return "", ctx.Err()
	}
}

// refPaired wants as many failed tasks as started ones: three branches and the visit.
func refPaired(t *testing.T, w *segnotest.Recorder) {
	t.Helper()
	expect(t, "starts", len(w.Kind(segno.EventTaskStarted)), 4)
	expect(t, "failures", len(w.Kind(segno.EventTaskFailed)), 4)
	segnotest.Balanced(t, w)
}

func refObsSplitCancel(t *testing.T) {
	for _, wait := range []bool{true, false} {
		b, w := watched(t)
		r := b.start(flowOf("f", one(refFanOut(wait))))
		id := r.trigger("f", cargo{})
		synctest.Wait()
		r.cancel(id)
		r.ended(id, segno.RunCancelled)
		refPaired(t, w)
	}
}

func refObsSplitTimeout(t *testing.T) {
	for _, wait := range []bool{true, false} {
		b, w := watched(t)
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{Do: refFanOut(wait), Timeout: time.Minute})))
		r.ended(r.trigger("f", cargo{}), segno.RunFailed)
		refPaired(t, w)
	}
}

func refObsClearFailed(t *testing.T) {
	b, w := watched(t)
	f := flowOf("f", one(to(done)))
	b.start(f)
	b.stop()
	b.exec("INSERT INTO _segno_memo (run, visit, key, value) VALUES (999, 1, 'x', '1')")
	b.exec("CREATE TRIGGER stubborn BEFORE DELETE ON _segno_memo BEGIN SELECT RAISE(ABORT, 'it stays'); END")
	r := b.start(f)
	id := r.trigger("f", cargo{})
	synctest.Wait()
	r.completed(id)
	failed := w.Kind(segno.EventCleanupFailed)
	expect(t, "times told", len(failed), 1)
	expect(t, "Err", contains(fmt.Sprint(failed[0].Err), "it stays"), true)
	b.stop()
	b.exec("DROP TRIGGER stubborn")
	b.exec("DELETE FROM _segno_memo")
}

// A run in a state that is gone is set aside, not continued without it: it goes
// on when the state is back.
func refObsUnknownState(t *testing.T) {
	b, w := watched(t)
	old := route{Initial: legA, Steps: legs{legA: {Do: to(legB)}, legB: {Do: segno.Sleep[cargo](time.Hour, done)}, done: {Final: true}}}
	id := b.start(flowOf("f", old)).trigger("f", cargo{})
	synctest.Wait()
	b.stop()
	told(w)
	r := b.start(flowOf("f", one(to(done))))
	time.Sleep(2 * time.Hour)
	r.completed(r.trigger("f", cargo{})) // the flow goes on
	expect(t, "unknown states told", len(w.Of(id).Kind(segno.EventUnknownState)), 1)
	b.stop()
	r = b.start(flowOf("f", old))
	if err := r.ResumeRun(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	r.completed(id)
	wantEvents(t, "events", w.Of(id), "unknown_state:b parked:stuck run_resumed7 task_started:b task_succeeded:b state_entered:done checkpoint8 run_finished:completed")
}

func refEventOnce(t *testing.T) {
	b, w := watched(t)
	slow := func(ctx context.Context, _ *cargo) (leg, error) { // to return, so that the second cancel finds it open
		<-ctx.Done()
		time.Sleep(time.Second)
		return "", ctx.Err()
	}
	r := b.start(flowOf("f", route{Initial: legA, Steps: legs{legA: {Do: to(legB)}, legB: {Do: slow}, done: {Final: true}}}), flowOf("g", one(to(done))))
	id := r.trigger("f", cargo{})
	synctest.Wait()
	r.cancel(id)
	r.cancel(id)
	r.ended(id, segno.RunCancelled)
	r.completed(r.trigger("g", cargo{}))
	cancelled := w.Kind(segno.EventRunCancelled)
	expect(t, "cancels told, of both runs", len(cancelled), 1)
	expect(t, "State", cancelled[0].State, "b")
	expectError(t, "Err", cancelled[0].Err, context.Canceled)
}

func refResumeEvents(t *testing.T) {
	b, w := watched(t)
	at := func(do do) segno.Flow {
		return flowOf("f", route{Initial: legA, Steps: legs{legA: {Do: to(legB)}, legB: {Do: do}, legC: {Do: to(done)}, done: {Final: true}}})
	}
	id := b.start(at(hold)).trigger("f", cargo{})
	synctest.Wait()
	b.kill()
	synctest.Wait()
	w.Clear()
	b.start(at(to(legC))).completed(id)
	resumed := w.Kind(segno.EventRunResumed)
	expect(t, "times told", len(resumed), 1)
	expect(t, "Run", resumed[0].Run, id)
	expect(t, "it comes first", w.Events()[0].Kind, segno.EventRunResumed)
	seq := resumed[0].Seq
	for _, e := range w.Kind(segno.EventCheckpoint) {
		seq++
		expect(t, "Seq of a checkpoint", e.Seq, seq)
	}
	expect(t, "checkpoints", int(seq-resumed[0].Seq), 2)
}

// complaints is a test that keeps what it is failed with.
type complaints struct {
	testing.TB
	said []string
}

func (c *complaints) Helper()                   {}
func (c *complaints) Error(args ...any)         { c.said = append(c.said, fmt.Sprint(args...)) }
func (c *complaints) Errorf(f string, a ...any) { c.said = append(c.said, fmt.Sprintf(f, a...)) }

// refComplains runs a check and returns what it fails the test with.
func refComplains(check func(t testing.TB)) string {
	c := new(complaints)
	check(c)
	return strings.Join(c.said, "\n")
}

func refTestRecorder(t *testing.T) {
	b, w := watched(t)
	wf := route{Initial: legA, Steps: legs{legA: {Do: to(legB)}, legB: {Do: to(done)}, legC: {Do: to(done)}, done: {Final: true}, legD: {Final: true}}}
	r := b.start(flowOf("f", wf), flowOf("panics", oneStep(segno.Step[leg, cargo]{
		Do: segnotest.PanicTimes(1, to(done)), Retry: segno.Fixed(5, time.Millisecond),
	})), flowOf("calm", one(segnotest.PanicTimes(0, to(done)))))
	r.completed(r.trigger("f", cargo{}))
	for what, check := range map[string]struct {
		check func(testing.TB)
		want  string
	}{
		"completed":           {func(t testing.TB) { segnotest.CompletedWith(t, w, done) }, ""},
		"completed elsewhere": {func(t testing.TB) { segnotest.CompletedWith(t, w, legD) }, `the end of run 1: got = completed in "done" (<nil>), want completed in "d"`},
		"path":                {func(t testing.TB) { segnotest.Path(t, w, legA, legB, done) }, ""},
		"another path":        {func(t testing.TB) { segnotest.Path(t, w, legA, done) }, `path: got = ["a" "b" "done"], want ["a" "done"]`},
		"entered":             {func(t testing.TB) { segnotest.Entered(t, w, legB, legA) }, ""},
		"not entered":         {func(t testing.TB) { segnotest.Entered(t, w, legD, legA, legC, legD) }, `states never entered: got = ["d" "c"], want none`},
		"a dead state":        {func(t testing.TB) { segnotest.Covered(t, w, wf) }, `states of the workflow never entered: got = ["c"], want none`},
	} {
		expect(t, what, refComplains(check.check), check.want)
	}
	w.Clear()
	expect(t, "events behind Clear", len(w.Events()), 0)
	expect(t, "completed, with nothing recorded", refComplains(func(t testing.TB) { segnotest.CompletedWith(t, w, done) }),
		`no run has ended, want one completed in "done"`)
	expectError(t, "a step that panics", r.ended(r.trigger("panics", cargo{}), segno.RunFailed), segno.ErrPanic)
	expect(t, "retries of it", len(w.Kind(segno.EventRetry)), 0)
	r.completed(r.trigger("calm", cargo{}))
}
