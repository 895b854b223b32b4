package segno_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

func TestABuilderKnowsWhatWasRegistered(t *testing.T) {
	s := segno.New("never-opened.db", segno.Options{})
	expect(t, "Len of a new builder", s.Len(), 0)
	expect(t, "IsEmpty of a new builder", s.IsEmpty(), true)
	err := errors.Join(
		s.Every("every", one(to(done)), time.Minute),
		s.EverySeconds("seconds", one(to(done)), 10),
		s.EveryMinutes("minutes", one(to(done)), 10),
		s.EveryHours("hours", one(to(done)), 10),
		s.Cron("cron", one(to(done)), "0 9 * * MON-FRI"),
		s.Manual("manual", one(to(done))),
		s.Add(segno.Flow{ID: "add", Workflow: one(to(done))}),
		s.SetBackoff("add", segno.BackoffPolicy{StreakLimit: 2}),
	)
	if err != nil {
		t.Fatalf("registering: got error %v, want none", err)
	}
	expect(t, "Len", s.Len(), 7)
	expect(t, "IsEmpty", s.IsEmpty(), false)
	expect(t, "Contains(cron)", s.Contains("cron"), true)
	expect(t, "Contains(other)", s.Contains("other"), false)
}

func TestAnIDIsRegisteredOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		s := segno.New(b.path, b.opts)
		if err := s.Manual("f", one(func(_ context.Context, c *cargo) (leg, error) { c.Text = "first"; return done, nil })); err != nil {
			t.Fatal(err)
		}
		expectError(t, "the second registration", s.Every("f", one(to(done)), time.Hour), segno.ErrExists)
		expect(t, "Len", s.Len(), 1)
		run, err := s.Start(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		b.run = run
		r := &live{run, t}
		expect(t, "data", string(r.completed(r.trigger("f", cargo{})).Data), `{"text":"first"}`)
		expect(t, "schedule", r.status("f").Schedule, "")
	})
}

func TestEveryFaultOfAWorkflowIsReportedInOrder(t *testing.T) {
	w := route{
		Initial: "nowhere", Timeout: -1,
		Steps: legs{
			legA: {},
			legB: {Do: to(done), Next: []leg{"gone"}, Timeout: -time.Second},
			legC: {Do: to(done), Retry: segno.Retry{Attempts: -1}, UndoRetry: segno.Retry{Jitter: 2}},
			legD: {Do: to(done), UndoUncertain: true},
			"e":  {Final: true, Do: to(done)},
			"":   {Do: to(done)},
		},
	}
	err := segno.New("never-opened.db", segno.Options{}).Manual("f", w)
	expectError(t, "Manual", err, segno.ErrConfig)
	at := -1
	for _, want := range []string{
		`flow "f"`, `Initial is "nowhere"`, "timeouts cannot be negative", "name is empty", `"a" has no Do`, `"gone" in Next`, `"b" has a negative Timeout`,
		`"c" has an impossible retry policy {Attempts:-1`, `"c" has an impossible retry policy {Attempts:0`, `"d" has UndoUncertain but no Undo`, `"e" is final and has other fields`,
	} {
		next := strings.Index(fmt.Sprint(err), want)
		if next <= at {
			t.Errorf("error text: %q stands at %d, want it behind %d in:\n%v", want, next, at, err)
		}
		at = next
	}
}

func TestBadWorkflowsAreRefused(t *testing.T) {
	undo := func(context.Context, cargo) error { return nil }
	for name, w := range map[string]segno.Definition{
		"no steps":                      route{Initial: legA},
		"no final state":                route{Initial: legA, Steps: legs{legA: {Do: to(legA)}}},
		"unknown initial":               route{Initial: legB, Steps: legs{legA: {Do: to(done)}, done: {Final: true}}},
		"no Do":                         oneStep(segno.Step[leg, cargo]{}),
		"final with Undo":               route{Initial: legA, Steps: legs{legA: {Do: to(done)}, done: {Final: true, Undo: undo}}},
		"final with Retry":              route{Initial: legA, Steps: legs{legA: {Do: to(done)}, done: {Final: true, Retry: segno.Exponential(2)}}},
		"negative timeout":              oneStep(segno.Step[leg, cargo]{Do: to(done), Timeout: -1}),
		"negative attempts":             oneStep(segno.Step[leg, cargo]{Do: to(done), Retry: segno.Retry{Attempts: -1}}),
		"negative initial wait":         oneStep(segno.Step[leg, cargo]{Do: to(done), Retry: segno.Retry{Initial: -1}}),
		"negative cap":                  oneStep(segno.Step[leg, cargo]{Do: to(done), Retry: segno.Retry{MaxDelay: -1}}),
		"negative multiplier":           oneStep(segno.Step[leg, cargo]{Do: to(done), Retry: segno.Retry{Multiplier: -1}}),
		"jitter above 1":                oneStep(segno.Step[leg, cargo]{Do: to(done), Retry: segno.Retry{Jitter: 1.1}}),
		"bad undo retry":                oneStep(segno.Step[leg, cargo]{Do: to(done), Undo: undo, UndoRetry: segno.Retry{Attempts: -1}}),
		"UndoUncertain without an Undo": oneStep(segno.Step[leg, cargo]{Do: to(done), UndoUncertain: true}),
		"a pointer":                     &route{Initial: legA, Steps: legs{legA: {Do: to(done)}, done: {Final: true}}},
		"nil":                           nil,
	} {
		expectError(t, name, segno.New("never-opened.db", segno.Options{}).Manual("f", w), segno.ErrConfig)
	}
}

func TestBadFlowsAreRefused(t *testing.T) {
	ok := one(to(done))
	for name, f := range map[string]segno.Flow{
		"empty id":              {Workflow: ok},
		"blank id":              {ID: " \t", Workflow: ok},
		"unknown overlap":       {ID: "f", Workflow: ok, Overlap: -1},
		"negative overlap":      {ID: "f", Workflow: ok, Overlap: segno.Allow(-3)},
		"unknown catch-up":      {ID: "f", Workflow: ok, CatchUp: -1},
		"negative catch-up":     {ID: "f", Workflow: ok, CatchUp: segno.CatchUpAll(-3)},
		"negative MaxLateness":  {ID: "f", Workflow: ok, MaxLateness: -1},
		"negative SlotRetries":  {ID: "f", Workflow: ok, SlotRetries: -1},
		"negative Jitter":       {ID: "f", Workflow: ok, Jitter: -1},
		"negative MaxRuns":      {ID: "f", Workflow: ok, MaxRuns: -1},
		"negative MaxPending":   {ID: "f", Workflow: ok, MaxPending: -1},
		"input of another type": {ID: "f", Workflow: ok, Input: "text"},
		"input with more fields": {ID: "f", Workflow: ok, Input: map[string]any{
			"n": 1, "unknown": 2,
		}},
		"backoff Initial":     {ID: "f", Workflow: ok, Backoff: segno.BackoffPolicy{Initial: -2}},
		"backoff Multiplier":  {ID: "f", Workflow: ok, Backoff: segno.BackoffPolicy{Multiplier: -1}},
		"backoff MaxDelay":    {ID: "f", Workflow: ok, Backoff: segno.BackoffPolicy{MaxDelay: -1}},
		"backoff Jitter":      {ID: "f", Workflow: ok, Backoff: segno.BackoffPolicy{Jitter: 1.5}},
		"backoff StreakLimit": {ID: "f", Workflow: ok, Backoff: segno.BackoffPolicy{StreakLimit: -1}},
	} {
		expectError(t, name, segno.New("never-opened.db", segno.Options{}).Add(f), segno.ErrConfig)
	}
}

func TestSetBackoffOfAnUnknownFlowIsErrNotFound(t *testing.T) {
	s := segno.New("never-opened.db", segno.Options{})
	expectError(t, "SetBackoff", s.SetBackoff("f", segno.BackoffPolicy{}), segno.ErrNotFound)
	if err := s.Manual("f", one(to(done))); err != nil {
		t.Fatal(err)
	}
	expectError(t, "SetBackoff with a bad policy", s.SetBackoff("f", segno.BackoffPolicy{Jitter: 2}), segno.ErrConfig)
}

type (
	private   struct{ _ int }
	marshaled struct{ hidden int }
	inner     struct{ C chan int }
	tree      struct{ Left, Right *tree }
)

func (m marshaled) MarshalJSON() ([]byte, error)  { return json.Marshal(m.hidden) }
func (m *marshaled) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &m.hidden) }

// jsonFault registers a workflow with data of type D.
func jsonFault[D any]() error {
	return segno.New("never-opened.db", segno.Options{}).Manual("f", segno.Workflow[leg, D]{
		Initial: legA, Steps: segno.Steps[leg, D]{legA: {Final: true}},
	})
}

func TestDataThatJSONWouldLoseIsRefused(t *testing.T) {
	for name, fault := range map[string]error{
		"a func":                    jsonFault[struct{ F func() }](),
		"a channel":                 jsonFault[chan int](),
		"a channel in a slice":      jsonFault[[]inner](),
		"a channel behind pointers": jsonFault[struct{ P **inner }](),
		"an unexported field":       jsonFault[private](),
		"an unexported field in a map's values": jsonFault[map[string]struct {
			V private
		}](),
		"a complex number":         jsonFault[complex128](),
		"an interface with method": jsonFault[struct{ E error }](),
		"a map with struct keys":   jsonFault[map[struct{ A int }]int](),
	} {
		expectError(t, name, fault, segno.ErrConfig)
	}
	for name, fault := range map[string]error{
		"a struct":        jsonFault[cargo](),
		"nothing":         jsonFault[struct{}](),
		"a number":        jsonFault[int](),
		"a time":          jsonFault[time.Time](),
		"a pointer":       jsonFault[*cargo](),
		"a map":           jsonFault[map[int]cargo](),
		"anything":        jsonFault[any](),
		"a recursive one": jsonFault[tree](),
		"its own marshaller": jsonFault[struct {
			M marshaled
		}](),
		"an ignored field": jsonFault[struct {
			F func() `json:"-"`
			h int    `json:"-"`
		}](),
	} {
		if fault != nil {
			t.Errorf("%s: got error %v, want none", name, fault)
		}
	}
}

func TestStartChecksAllFlowsBeforeAnythingIsSetUp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		setUp := false
		b.opts.Resources = []segno.Resource{{Key: "r", Setup: func(context.Context) (any, error) { setUp = true; return nil, nil }}}
		s := segno.New(b.path, b.opts)
		bad := route{Initial: legA, Steps: legs{legA: {Do: to(legA)}}}
		if err := s.Manual("good", one(to(done))); err != nil {
			t.Fatal(err)
		}
		expectError(t, "Manual", s.Manual("bad", bad), segno.ErrConfig)
		_, err := s.Start(context.Background())
		expectError(t, "Start", err, segno.ErrConfig)
		expect(t, "the error names the flow", strings.Contains(fmt.Sprint(err), `flow "bad"`), true)
		expect(t, "a resource was set up", setUp, false)
		_, err = os.Stat(b.path)
		expectError(t, "the file", err, os.ErrNotExist)
		b.start(flowOf("good", one(to(done)))) // so that there is a file to check
	})
}

func TestEveryFaultOfTheOptionsIsReportedInOrder(t *testing.T) {
	for range 20 {
		_, err := segno.New("never-opened.db", segno.Options{
			MaxConcurrent: -1, MaxData: -1, MaxCrashes: -1, SuspectFor: -1, ParkAfter: -1, Grace: -1, AbandonAfter: -1, StopTimeout: -1,
			Resources: []segno.Resource{{}, {Key: "x"}},
		}).Start(context.Background())
		expectError(t, "Start", err, segno.ErrConfig)
		at := -1
		for _, want := range []string{"MaxConcurrent", "MaxData", "MaxCrashes", "SuspectFor", "ParkAfter", "Grace", "AbandonAfter", "StopTimeout", "resource 0", `resource "x"`} {
			next := strings.Index(fmt.Sprint(err), want)
			if next <= at {
				t.Fatalf("error text: %q stands at %d, want it behind %d in:\n%v", want, next, at, err)
			}
			at = next
		}
	}
}

func TestNothingCanBeRegisteredOrStartedAfterStart(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		s := segno.New(b.path, b.opts)
		if err := s.Manual("f", one(to(done))); err != nil {
			t.Fatal(err)
		}
		run, err := s.Start(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		b.run = run
		expectError(t, "Manual", s.Manual("g", one(to(done))), segno.ErrStarted)
		expectError(t, "Cron", s.Cron("g", one(to(done)), "@daily"), segno.ErrStarted)
		expectError(t, "SetBackoff", s.SetBackoff("f", segno.BackoffPolicy{}), segno.ErrStarted)
		_, err = s.Start(context.Background())
		expectError(t, "Start", err, segno.ErrStarted)
	})
}

func TestALinearRunIsOneCommitPerTransition(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		w := route{Initial: legA, Steps: legs{
			legA: {Do: func(_ context.Context, c *cargo) (leg, error) { c.N++; return legB, nil }},
			legB: {Do: func(_ context.Context, c *cargo) (leg, error) { c.N *= 10; return legC, nil }},
			legC: {Do: func(_ context.Context, c *cargo) (leg, error) { c.N += 3; return done, nil }},
			done: {Final: true},
		}}
		r := b.start(flowOf("f", w))
		synctest.Wait()
		before := b.commits.Load()
		id := r.trigger("f", cargo{N: 1})
		info := r.completed(id)
		expect(t, "commits of a 3-step run", b.commits.Load()-before, 4)
		expect(t, "data", string(info.Data), `{"n":23}`)
		expect(t, "state", info.State, "done")
		expect(t, "visit", info.Visit, 4)
		expect(t, "log", r.log(id), "enter a, enter b, enter c, end done")
		entries := r.entries(id)
		expect(t, "data of the first entry", string(entries[0].Data), `{"n":1}`)
		expect(t, "data of the second entry, without an Undo anywhere", string(entries[1].Data), "")
		expect(t, "data of the last entry", string(entries[3].Data), `{"n":23}`)
		expect(t, "flow status", r.status("f").Status, segno.StatusCompleted)
	})
}

func TestKeepDataKeepsTheDataOfEveryVisit(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		w := route{Initial: legA, KeepData: true, Steps: legs{
			legA: {Do: func(_ context.Context, c *cargo) (leg, error) { c.N++; return legB, nil }},
			legB: {Do: to(done)},
			done: {Final: true},
		}}
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{N: 1})
		r.completed(id)
		for i, want := range []string{`{"n":1}`, `{"n":2}`, `{"n":2}`} {
			expect(t, fmt.Sprintf("data of entry %d", i), string(r.entries(id)[i].Data), want)
		}
	})
}

func TestARunThatBeginsInAFinalStateCompletesAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", route{Initial: done, Steps: legs{done: {Final: true}}}))
		id := r.trigger("f", cargo{N: 7})
		info := r.completed(id)
		expect(t, "data", string(info.Data), `{"n":7}`)
		expect(t, "log", r.log(id), "enter done, end done")
	})
}

func TestALoopOpensANewVisitEachTime(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		keys := map[string]bool{}
		r := newBed(t).start(flowOf("f", one(func(ctx context.Context, c *cargo) (leg, error) {
			in := segno.InfoFrom(ctx)
			keys[in.Key] = true
			c.N++
			if in.Visit != c.N || in.State != "a" || in.Attempt != 1 || in.Flow != "f" {
				return "", fmt.Errorf("info is %+v in visit %d", in, c.N)
			}
			if c.N < 5 {
				return legA, nil
			}
			return done, nil
		})))
		id := r.trigger("f", cargo{})
		expect(t, "visit of the end", r.completed(id).Visit, 6)
		expect(t, "different keys", len(keys), 5)
		expect(t, "log", r.log(id), "enter a, enter a, enter a, enter a, enter a, end done")
	})
}

func TestAStateThatNextDoesNotAllowFailsTheRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		calls := 0
		w := route{Initial: legA, Steps: legs{
			legA: {Do: func(context.Context, *cargo) (leg, error) { calls++; return legC, nil }, Next: []leg{legB, done}, Retry: segno.Exponential(5)},
			legB: {Do: to(done)},
			legC: {Do: to(done)},
			done: {Final: true},
		}}
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		e := r.ended(id, segno.RunFailed)
		expectError(t, "the run", e, segno.ErrTransition)
		expect(t, "calls, a wrong transition is not retried", calls, 1)
		for _, want := range []string{`from "a" to "c"`, "b", "done"} {
			expect(t, "the text has "+want, strings.Contains(e.Error(), want), true)
		}
		r = b.restart(flowOf("f", w))
		expectError(t, "the run after a restart", r.ended(id, segno.RunFailed), segno.ErrTransition)
	})
}

func TestAStateOutsideTheTableFailsTheRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		r := b.start(flowOf("f", one(to("mars"))), flowOf("g", one(to(""))))
		id, empty := r.trigger("f", cargo{}), r.trigger("g", cargo{})
		expectError(t, "the run", r.ended(id, segno.RunFailed), segno.ErrUnknownState)
		expectError(t, "the run with the empty state", r.ended(empty, segno.RunFailed), segno.ErrUnknownState)
		r = b.restart(flowOf("f", one(to("mars"))), flowOf("g", one(to(""))))
		expectError(t, "the run after a restart", r.ended(id, segno.RunFailed), segno.ErrUnknownState)
	})
}

func TestARunErrorTellsStateAttemptAndPath(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t)
		w := route{Initial: legA, Steps: legs{
			legA: {Do: to(legB)},
			legB: {Do: fail, Retry: segno.Fixed(3, time.Millisecond)},
			done: {Final: true},
		}}
		r := b.start(flowOf("f", w))
		id := r.trigger("f", cargo{})
		for _, when := range []string{"before", "after"} {
			e := r.ended(id, segno.RunFailed)
			expect(t, "Flow "+when+" the restart", e.Flow, "f")
			expect(t, "Run "+when+" the restart", e.Run, id)
			expect(t, "State "+when+" the restart", e.State, "b")
			expect(t, "Attempt "+when+" the restart", e.Attempt, 3)
			expect(t, "Path "+when+" the restart", strings.Join(e.Path, " "), "a b")
			expect(t, "Err "+when+" the restart", e.Err.Error(), errTest.Error())
			expect(t, "Undo "+when+" the restart", len(e.Undo), 0)
			r = b.restart(flowOf("f", w))
		}
	})
}

func TestWhatAFailedAttemptChangedIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := newBed(t).start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: func(ctx context.Context, c *cargo) (leg, error) {
				if c.N++; segno.InfoFrom(ctx).Attempt < 3 {
					return "", errTest
				}
				return done, nil
			},
			Retry: segno.Fixed(3, time.Millisecond),
		})))
		expect(t, "data", string(r.completed(r.trigger("f", cargo{N: 1})).Data), `{"n":2}`)
	})
}

func TestOneWorkflowRunsUnderSeveralIDs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := route{Initial: legA, Steps: legs{
			legA: {Do: func(_ context.Context, c *cargo) (leg, error) { c.Text += "a"; return legB, nil }},
			legB: {Do: func(_ context.Context, c *cargo) (leg, error) { c.Text += "b"; return done, nil }},
			done: {Final: true},
		}}
		variant := w
		variant.Initial = legB
		numbers := segno.Workflow[string, int]{Initial: "x", Steps: segno.Steps[string, int]{
			"x": {Do: func(_ context.Context, n *int) (string, error) { *n++; return "y", nil }}, "y": {Final: true},
		}}
		r := newBed(t).start(flowOf("f", w), flowOf("g", w), flowOf("h", variant), flowOf("n", numbers))
		f, g, h := r.trigger("f", cargo{}), r.trigger("g", cargo{}), r.trigger("h", cargo{})
		n := r.triggerWith("n", segno.Trigger{Input: 41})
		expect(t, "data of f", string(r.completed(f).Data), `{"text":"ab"}`)
		expect(t, "data of g", string(r.completed(g).Data), `{"text":"ab"}`)
		expect(t, "data of h", string(r.completed(h).Data), `{"text":"b"}`)
		expect(t, "data of n", string(r.completed(n).Data), `42`)
	})
}

func TestDataBeyondMaxDataFailsTheRunUnwritten(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := newBed(t).with(segno.Options{MaxData: 100})
		calls := 0
		r := b.start(flowOf("f", oneStep(segno.Step[leg, cargo]{
			Do: func(_ context.Context, c *cargo) (leg, error) {
				calls++
				c.Text = strings.Repeat("x", 200)
				return done, nil
			},
			Retry: segno.Exponential(3),
		})))
		id := r.trigger("f", cargo{N: 5})
		e := r.ended(id, segno.RunFailed)
		expect(t, "the text names the option", strings.Contains(e.Error(), "MaxData is 100"), true)
		expect(t, "calls, since a permanent error is not retried", calls, 1)
		expect(t, "data", string(r.info(id).Data), `{"n":5}`)
	})
}

func TestDataThatCannotBeEncodedFailsTheRun(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		calls := 0
		w := segno.Workflow[leg, any]{Initial: legA, Steps: segno.Steps[leg, any]{
			legA: {Do: func(_ context.Context, d *any) (leg, error) { calls++; *d = func() {}; return done, nil }, Retry: segno.Exponential(3)},
			done: {Final: true},
		}}
		r := newBed(t).start(flowOf("f", w))
		e := r.ended(r.triggerWith("f", segno.Trigger{}), segno.RunFailed)
		expect(t, "the text says so", strings.Contains(e.Error(), "encoding the data"), true)
		expect(t, "calls", calls, 1)
	})
}

func TestAScheduledRunStartsWithTheZeroValueOrTheInput(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := one(to(done))
		r := newBed(t).start(
			segno.Flow{ID: "zero", Workflow: w, Schedule: segno.Every(time.Hour)},
			segno.Flow{ID: "value", Workflow: w, Schedule: segno.Every(time.Hour), Input: cargo{N: 9}},
			segno.Flow{ID: "pointer", Workflow: w, Schedule: segno.Every(time.Hour), Input: &cargo{N: 8}},
			segno.Flow{ID: "json", Workflow: w, Schedule: segno.Every(time.Hour), Input: json.RawMessage(`{"n":7}`)},
		)
		synctest.Wait()
		for id, want := range map[string]string{"zero": `{}`, "value": `{"n":9}`, "pointer": `{"n":8}`, "json": `{"n":7}`} {
			expect(t, "data of "+id, string(r.runs(id)[0].Data), want)
		}
	})
}

func TestInfoOutsideAStepIsZero(t *testing.T) {
	ctx := context.Background()
	expect(t, "InfoFrom", segno.InfoFrom(ctx), segno.Info{})
	expectError(t, "OnCommit", segno.OnCommit(ctx, func(segno.Tx) error { return nil }), segno.ErrConfig)
	expectError(t, "SaveMemo", segno.SaveMemo(ctx, "k", 1), segno.ErrConfig)
	_, _, err := segno.LoadMemo[int](ctx, "k")
	expectError(t, "LoadMemo", err, segno.ErrConfig)
	_, err = segno.ResourceFrom[int](ctx, "k")
	expectError(t, "ResourceFrom", err, segno.ErrConfig)
}
