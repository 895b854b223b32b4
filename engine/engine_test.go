package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno/engine"
)

// single is a machine of one step.
func single(s engine.Step) *engine.Machine {
	return &engine.Machine{Initial: "a", Steps: map[string]*engine.Step{"a": &s, "end": {Final: true}}}
}

func TestAConflictEndsTheDriveWithoutAnotherCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := new(effects)
		m := scenarios(world)["plain"]
		s := begin(m, "")
		run := machinery(s).Begin(context.Background(), m, s.head)
		s.head.Seq++ // somebody else has moved it
		_, err := run.Drive()
		if !errors.Is(err, errConflict) {
			t.Errorf("Drive: got error %v, want %v", err, errConflict)
		}
		expect(t, "commits", s.commits, 0)
		expect(t, "steps", fmt.Sprint(world.n), "map[a:1]")
	})
}

func TestARunThatIsNotHeldIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := new(effects)
		m := scenarios(world)["plain"]
		s := begin(m, "")
		for _, h := range []engine.Head{{Status: engine.Running}, {Status: engine.Parked, Held: true}, {Status: engine.Completed}} {
			if _, err := machinery(s).Begin(context.Background(), m, h).Drive(); err != nil {
				t.Errorf("Drive: got error %v, want none", err)
			}
		}
		expect(t, "steps", len(world.n), 0)
	})
}

func TestAnEntryCarriesDataOnlyWhereItIsNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := func(m *engine.Machine) string {
			s := begin(m, "in")
			if _, err := drive(t, s, m); err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, e := range s.entries {
				words = append(words, fmt.Sprintf("%s:%s", e.State, e.Data))
			}
			return strings.Join(words, " ")
		}
		same := func(next string) func(context.Context, []byte) (string, []byte, error) {
			return func(_ context.Context, data []byte) (string, []byte, error) { return next, data, nil }
		}
		world := new(effects)
		build := func() *engine.Machine {
			return &engine.Machine{Initial: "a", Steps: map[string]*engine.Step{
				"a": {Do: goTo(world, "a", "b")}, "b": {Do: same("c")}, "c": {Do: goTo(world, "c", "d")}, "d": {Do: same("end")}, "end": {Final: true},
			}}
		}
		expect(t, "without an Undo", data(build()), "a:in b: c: d: end:inac")
		keep := build()
		keep.KeepData = true
		expect(t, "with KeepData", data(keep), "a:in b:ina c:ina d:inac end:inac")
		undo := build()
		undo.Steps["b"].Undo = func(context.Context, []byte) error { return nil }
		expect(t, "with an Undo of b", data(undo), "a:in b:ina c:ina d:inac end:inac")
		undo.Steps["b"].Undo, undo.Steps["d"].Undo = nil, func(context.Context, []byte) error { return nil }
		expect(t, "with an Undo of d", data(undo), "a:in b:ina c: d:inac end:inac")
	})
}

func TestACancelThatCameFirstTurnsATransitionIntoARollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := new(effects)
		m := scenarios(world)["rollback"]
		s := begin(m, "")
		s.cancel = true // nobody told the run
		h, err := drive(t, s, m)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "status", h.Status, engine.Cancelled)
		expect(t, "log", s.log(), "enter a, rollback a, undone a, end a")
		expect(t, "effects", fmt.Sprint(world.n), "map[a:1 undo a:a:1]")
	})
}

func TestSuspendStopsBehindTheUnitInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := new(effects)
		m := scenarios(world)["plain"]
		slow := m.Steps["b"].Do
		m.Steps["b"].Do = func(ctx context.Context, data []byte) (string, []byte, error) {
			time.Sleep(time.Minute)
			return slow(ctx, data)
		}
		s := begin(m, "")
		run := machinery(s).Begin(context.Background(), m, s.head)
		time.AfterFunc(time.Second, run.Suspend)
		h, err := run.Drive()
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "status", h.Status, engine.Pending)
		expect(t, "held", h.Held, false)
		expect(t, "state", h.State, "c")
		s.resume()
		h, err = drive(t, s, m)
		expect(t, "status in the end", h.Status, engine.Completed)
		expect(t, "data", fmt.Sprint(string(h.Data), err), "abc<nil>")
	})
}

func TestAnAbortedUnitIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := begin(single(engine.Step{}), "in")
		calls := 0
		m := single(engine.Step{Do: func(ctx context.Context, data []byte) (string, []byte, error) {
			if calls++; calls == 1 {
				<-ctx.Done()
				return "", nil, errStep
			}
			return "end", data, nil
		}})
		run := machinery(s).Begin(context.Background(), m, s.head)
		time.AfterFunc(time.Second, func() { run.Abort(engine.ErrStopping) })
		h, err := run.Drive()
		expect(t, "status", fmt.Sprint(h.Status, err), "pending<nil>")
		expect(t, "attempt", h.Attempt, 1)
		s.resume()
		h, err = drive(t, s, m)
		expect(t, "status in the end", fmt.Sprint(h.Status, err), "completed<nil>")
	})
}

func TestALostGoroutineHandsItsRunOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := new(effects)
		m := single(engine.Step{
			Do: func(_ context.Context, data []byte) (string, []byte, error) {
				if world.happen("a") == 1 {
					time.Sleep(time.Hour)
					return "end", []byte("late"), nil
				}
				return "end", []byte("good"), nil
			},
			Timeout: time.Second, Retry: engine.Retry{Attempts: 2, Initial: time.Millisecond},
		})
		s := begin(m, "in")
		e := machinery(s)
		ended := make(chan engine.Head, 1)
		begin := clock()
		e.HandOver = func(_, next *engine.Run) {
			expect(t, "handed over after", clock().Sub(begin), 66*time.Second)
			go func() {
				h, err := next.Drive()
				if err != nil {
					t.Errorf("the next Drive: got error %v, want none", err)
				}
				ended <- h
			}()
		}
		_, err := e.Begin(context.Background(), m, s.head).Drive()
		expect(t, "the lost Drive returns when its step does", clock().Sub(begin), time.Hour)
		expect(t, "it says why", engine.HandedOver(err), true)
		h := <-ended
		expect(t, "data", string(h.Data), "good")
		expect(t, "log", s.log(), "enter a, retry a, end end")
		expect(t, "cause of the retry", s.entries[1].Cause, engine.CauseAbandoned)
	})
}

func TestTheUndosOfOneRollbackShareItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := new(effects)
		m := scenarios(world)["rollback"]
		m.UndoTimeout = 10 * time.Second
		m.Steps["b"].Undo = func(ctx context.Context, _ []byte) error { time.Sleep(7 * time.Second); return ctx.Err() }
		m.Steps["a"].Undo = func(ctx context.Context, _ []byte) error {
			at := clock()
			<-ctx.Done()
			expect(t, "left for the second", clock().Sub(at), 3*time.Second)
			return ctx.Err()
		}
		s := begin(m, "")
		h, err := drive(t, s, m)
		expect(t, "status", fmt.Sprint(h.Status, err), "undo_failed<nil>")
		expect(t, "log", s.log(), "enter a, enter b, enter c, rollback c, undone b, undo_failed a, end c")
	})
}

func TestAVisitOfAnEndedAttemptIsOfNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept *engine.Visit
		m := single(engine.Step{Do: func(ctx context.Context, data []byte) (string, []byte, error) {
			kept = engine.VisitFrom(ctx)
			return "end", data, nil
		}})
		s := begin(m, "")
		if _, err := drive(t, s, m); err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		_, _, load := kept.LoadMemo(ctx, "k")
		for name, err := range map[string]error{
			"OnCommit": kept.OnCommit(func(engine.Tx) error { return nil }), "JoinMemo": kept.JoinMemo("k", nil), "SaveMemo": kept.SaveMemo(ctx, "k", nil),
			"LoadMemo": load, "OwnTimeout": kept.OwnTimeout(),
		} {
			if !errors.Is(err, engine.ErrEnded) {
				t.Errorf("%s: got error %v, want %v", name, err, engine.ErrEnded)
			}
		}
		expect(t, "VisitFrom outside a step is nil", engine.VisitFrom(ctx) == nil, true)
	})
}

// Memos that came with the head are not read again; without them they are.
func TestARunRemembersTheMemosItIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var found string
		m := single(engine.Step{Do: func(ctx context.Context, data []byte) (string, []byte, error) {
			value, known, err := engine.VisitFrom(ctx).LoadMemo(ctx, "k")
			found = fmt.Sprintf("%s %v", value, known)
			return "end", data, err
		}})
		for _, c := range []struct {
			given map[string][]byte
			want  string
		}{{nil, "filed true"}, {map[string][]byte{"k": []byte("given")}, "given true"}, {map[string][]byte{}, " false"}} {
			s := begin(m, "")
			s.head.Seq, s.memos["1/k"] = 2, "filed"
			if _, err := machinery(s).Begin(context.Background(), m, s.head).Remembers(c.given).Drive(); err != nil {
				t.Fatal(err)
			}
			expect(t, fmt.Sprintf("found by a run that was given %q", c.given), found, c.want)
			expect(t, "memos left", len(s.memos) == 0, c.given == nil || len(c.given) > 0)
		}
	})
}

func TestACurveStaysWithinItsBounds(t *testing.T) {
	for _, c := range []engine.Curve{
		{Initial: time.Second, MaxDelay: time.Minute},
		{Initial: time.Second, MaxDelay: time.Minute, Jitter: 1},
		{Initial: time.Second, MaxDelay: time.Minute, Jitter: 5},
		{Initial: time.Second, MaxDelay: time.Minute, Multiplier: 1e308},
		{Initial: time.Second, MaxDelay: time.Minute, Multiplier: 1e-308},
		{Initial: 1 << 62, MaxDelay: 1<<63 - 1, Multiplier: 10},
		{Initial: time.Hour, MaxDelay: time.Second},
		{},
	} {
		for n := -2; n < 2000; n++ {
			if d := c.Delay(n); d < 0 || d > c.MaxDelay {
				t.Fatalf("%+v.Delay(%d): got = %v, want 0 to %v", c, n, d, c.MaxDelay)
			}
		}
	}
	exact := engine.Curve{Initial: 100 * time.Millisecond, MaxDelay: time.Second, Jitter: -1}
	for n, want := range []time.Duration{100, 100, 200, 400, 800, 1000, 1000} {
		expect(t, fmt.Sprintf("Delay(%d)", n), exact.Delay(n), want*time.Millisecond)
	}
	expect(t, "a retry's cap is not below its first wait", engine.Retry{Initial: time.Hour, Jitter: -1}.Delay(3), time.Hour)
	expect(t, "a retry's default wait", engine.Retry{Jitter: -1}.Delay(1), 100*time.Millisecond)
	expect(t, "a retry's default cap", engine.Retry{Jitter: -1}.Delay(30), 30*time.Second)
}

func TestAFailureReadBackIsWhatItWas(t *testing.T) {
	for _, c := range []struct {
		err   error
		cause engine.Cause
		is    error
	}{
		{errStep, engine.CauseError, nil},
		{engine.ErrTransition, engine.CauseRoute, engine.ErrTransition},
		{engine.ErrUnknownState, engine.CauseUnknown, engine.ErrUnknownState},
		{engine.ErrVersion, engine.CauseVersion, engine.ErrVersion},
		{engine.ErrCrashLoop, engine.CauseCrashLoop, engine.ErrCrashLoop},
		{engine.ErrOrphanedUndo, engine.CauseOrphaned, engine.ErrOrphanedUndo},
		{engine.ErrUndecodable, engine.CauseData, engine.ErrUndecodable},
		{engine.ErrTooLarge, engine.CauseTooLarge, engine.ErrTooLarge},
		{engine.ErrPanic, engine.CausePanic, engine.ErrPanic},
		{engine.ErrAbandoned, engine.CauseAbandoned, engine.ErrAbandoned},
		{context.DeadlineExceeded, engine.CauseTimeout, context.DeadlineExceeded},
		{context.Canceled, engine.CauseCancelled, context.Canceled},
		{engine.ErrCancelledRun, engine.CauseCancelled, context.Canceled},
	} {
		wrapped := fmt.Errorf("state %q: %w", "a", c.err)
		expect(t, fmt.Sprintf("CauseOf(%v)", wrapped), engine.CauseOf(wrapped), c.cause)
		back := (&engine.Head{Cause: c.cause, Error: wrapped.Error()}).Err()
		expect(t, "its text", back.Error(), wrapped.Error())
		if c.is != nil && !errors.Is(back, c.is) {
			t.Errorf("read back: got %v, want it to be %v", back, c.is)
		}
		for _, other := range []error{engine.ErrTransition, context.Canceled, context.DeadlineExceeded} {
			if other != c.is && errors.Is(back, other) {
				t.Errorf("read back: got %v, want it not to be %v", back, other)
			}
		}
		expect(t, "its cause again", engine.CauseOf(fmt.Errorf("again: %w", back)), c.cause)
	}
	expect(t, "a run without a cause has no error", (&engine.Head{}).Err() == nil, true)
}

func TestStatusesAreOpenOrEnded(t *testing.T) {
	for status, want := range map[engine.Status][2]bool{
		engine.Pending: {false, false}, engine.Running: {false, true}, engine.Parked: {false, false}, engine.Waiting: {false, false},
		engine.Undoing: {false, true}, engine.Stuck: {false, false},
		engine.Completed: {true, false}, engine.Failed: {true, false}, engine.Cancelled: {true, false}, engine.UndoFailed: {true, false},
	} {
		expect(t, string(status)+" is ended, executes", [2]bool{status.Ended(), status.Executing()}, want)
	}
}

func TestTheVisitAnUndoIsOf(t *testing.T) {
	enter := engine.Entry{Kind: engine.KindEnter, Visit: 4, Undo: "a"}
	rollback := engine.Entry{Kind: engine.KindRollback, Visit: 4, Undo: "a"}
	expect(t, "of the entry that enters visit 4", enter.UndoVisit(), 3)
	expect(t, "of the rollback's own", rollback.UndoVisit(), 4)
}

func TestAFailureThatMeetsACancelIsPutDownToTheCancel(t *testing.T) {
	for name, told := range map[string]bool{"the run was told": true, "the run was not told": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s *slice
				var run *engine.Run
				m := single(engine.Step{
					Do: func(context.Context, []byte) (string, []byte, error) {
						if s.cancel = true; told {
							run.Cancel()
						}
						return "", nil, errors.New("declined")
					},
					Undo: func(context.Context, []byte) error { return nil },
				})
				s = begin(m, "")
				run = machinery(s).Begin(context.Background(), m, s.head)
				h, err := run.Drive()
				if err != nil {
					t.Fatal(err)
				}
				expect(t, "status", h.Status, engine.Cancelled)
				expect(t, "error", h.Error, "segno: run cancelled; declined")
			})
		})
	}
}
