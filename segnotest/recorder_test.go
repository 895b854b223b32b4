package segnotest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segnodev/segno"
)

// complaints is a test that keeps what it is failed with.
type complaints struct {
	testing.TB
	said []string
}

func (c *complaints) Helper()                   {}
func (c *complaints) Error(args ...any)         { c.said = append(c.said, fmt.Sprint(args...)) }
func (c *complaints) Errorf(f string, a ...any) { c.said = append(c.said, fmt.Sprintf(f, a...)) }

// events makes a recorder of events such as "1 task_started a/1".
func events(words ...string) *Recorder {
	r := new(Recorder)
	for _, w := range words {
		var e segno.Event
		var kind, rest string
		_, _ = fmt.Sscan(w, &e.Run, &kind, &rest)
		parts := strings.Split(rest, "/")
		e.Kind, e.State, e.Visit, e.Status = segno.EventKind(kind), parts[0], 1, segno.RunRunning
		if e.Kind == segno.EventRunResumed || e.Kind == segno.EventWoken {
			e.Status = segno.RunUndoing
		}
		if len(parts) > 1 {
			e.Unit = parts[1]
		}
		r.Observe(context.Background(), e)
	}
	return r
}

func TestBalancedFindsWhatHasNoEnd(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []string
		want   string
	}{
		{"nothing", nil, ""},
		{"a run", []string{"1 run_started", "1 task_started a", "1 task_succeeded a", "1 run_finished"}, ""},
		{"two runs", []string{"1 run_started", "2 run_started", "1 run_finished", "2 run_finished"}, ""},
		{"a parked task", []string{"1 run_started", "1 task_started a", "1 parked", "1 woken", "1 task_started a", "1 task_failed a", "1 parked"}, ""},
		{"stuck before it went on", []string{"1 unknown_state a", "1 parked a"}, ""},
		{"a rollback begun before", []string{"1 run_resumed", "1 undo_started a", "1 undo_failed a", "1 rollback_finished", "1 run_finished"}, ""},
		{"a rollback repeated", []string{"1 run_resumed", "1 rollback_started", "1 rollback_finished", "1 run_finished"}, ""},
		{"units", []string{"1 run_started", "1 task_started a", "1 task_started a/x", "1 task_started a/y", "1 parked a/x", "1 task_failed a/y", "1 parked a"}, ""},
		{"no end of the run", []string{"1 run_started"}, "run 1 has no end"},
		{"no end of a task", []string{"1 run_started", "1 task_started a", "1 run_finished"}, "run 1: run_finished of , visit 1, is out of place; run 1: task a, visit 1 has no end"},
		{"no end of a unit", []string{"1 run_started", "1 task_started a/x", "1 parked a"}, "run 1: task a, visit 1, unit x has no end"},
		{"no end of a rollback", []string{"1 run_started", "1 rollback_started", "1 run_finished"}, "run 1: run_finished of , visit 1, is out of place"},
		{"two ends of a task", []string{"1 run_started", "1 task_started a", "1 task_failed a", "1 task_succeeded a", "1 run_finished"}, "run 1: task_succeeded of a, visit 1, is out of place"},
		{"two starts of an undo", []string{"1 run_started", "1 undo_started a", "1 undo_started a", "1 parked"}, "run 1: undo_started of a, visit 1, is out of place"},
		{"two ends of the run", []string{"1 run_started", "1 run_finished", "1 run_finished"}, "run 1: run_finished of , visit 1, is out of place"},
		{"an end of another run", []string{"1 run_started", "1 task_started a", "2 task_failed a", "1 parked"}, "run 2: task_failed of a, visit 1, is out of place"},
	} {
		said := new(complaints)
		Balanced(said, events(c.events...))
		if got := strings.Join(said.said, "; "); got != c.want {
			t.Errorf("%s: got = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestTheRecorderOfARun(t *testing.T) {
	r := events("1 state_entered a", "2 state_entered b", "1 state_entered c")
	if got, want := r.Of(1).States(), []string{"a", "c"}; !slices.Equal(got, want) {
		t.Errorf("States of run 1: got = %q, want %q", got, want)
	}
	if got, want := len(r.Take()), 3; got != want {
		t.Errorf("Take: got = %d, want %d", got, want)
	}
	if got := len(r.Events()); got != 0 {
		t.Errorf("Events behind it: got = %d, want 0", got)
	}
}

// Times are those of a bubble, or real ones.
func TestRunRunsAWorkflowLikeAFunction(t *testing.T) {
	test := func(wait time.Duration) func(t *testing.T) {
		return func(t *testing.T) {
			begin := time.Now()
			var rec Recorder
			run, err := Run(t, work(wait), 41, segno.Options{Observers: []segno.Observer{&rec}})
			if err != nil || run.State != "done" || run.Data != 42 || run.Status != segno.RunCompleted {
				t.Errorf("run: got = %s in %s with %d (%v), want completed in done with 42", run.Status, run.State, run.Data, err)
			}
			if took := time.Since(begin); took < wait {
				t.Errorf("took: got = %v, want %v or more", took, wait)
			}
			CompletedWith(t, &rec, phase("done"))
			Balanced(t, &rec)
		}
	}
	t.Run("bubble", func(t *testing.T) { synctest.Test(t, test(time.Hour)) })
	t.Run("real", test(10*time.Millisecond))
}

func TestRunReturnsWhatWentWrong(t *testing.T) {
	failure := errors.New("test: went wrong")
	do := func(context.Context, *int) (phase, error) { return "done", nil }
	flow := func(step segno.Step[phase, int]) segno.Workflow[phase, int] {
		return segno.Workflow[phase, int]{Initial: "a", Steps: steps{"a": step, "done": {Final: true}}}
	}
	retry := segno.Fixed(3, time.Millisecond)
	for _, c := range []struct {
		name string
		w    segno.Workflow[phase, int]
		want string
	}{
		{"a workflow without steps", segno.Workflow[phase, int]{}, "has no steps"},
		{"a step that fails", flow(segno.Step[phase, int]{Do: FailTimes(3, failure, do), Retry: retry}), "failed in a (attempt 3, path a): test: went wrong"},
		{"one that fails less often", flow(segno.Step[phase, int]{Do: FailTimes(2, failure, do), Retry: retry}), "<nil>"},
		{"a step that panics", flow(segno.Step[phase, int]{Do: PanicTimes(1, do), Retry: retry}), "attempt 1 of 1 that panic"},
		{"one whose panics are repeated", flow(segno.Step[phase, int]{Do: PanicTimes(2, do), Retry: segno.Retry{Attempts: 3, Initial: time.Millisecond, Panics: true}}), "<nil>"},
	} {
		synctest.Test(t, func(t *testing.T) {
			if _, err := Run(t, c.w, 0); !strings.Contains(fmt.Sprint(err), c.want) {
				t.Errorf("%s: got error %v, want %s", c.name, err, c.want)
			}
		})
	}
}

// The attempts are those of the file: a kill between them does not count anew.
func TestFailTimesHoldsOverCrashes(t *testing.T) {
	CrashSweep(t, Scenario{
		Register: func(s *segno.Scheduler, fx *Effects) error {
			do := func(ctx context.Context, n *int) (phase, error) {
				fx.Do(ctx, fmt.Sprint("attempt ", segno.InfoFrom(ctx).Attempt))
				return "done", nil
			}
			return s.Manual("f", segno.Workflow[phase, int]{Initial: "a", Steps: steps{
				"a":    {Do: FailTimes(2, errors.New("test: not yet"), do), Retry: segno.Retry{Attempts: 3, Initial: time.Second, Jitter: -1}},
				"done": {Final: true},
			}})
		},
		Drive: func(ctx context.Context, r *segno.RunningScheduler) error {
			_, err := r.Trigger(ctx, "f", segno.Trigger{Key: "k"})
			return err
		},
		Check: func(o *Outcome) error {
			if o.Effects["attempt 3"] == 0 || len(o.Effects) != 1 {
				return fmt.Errorf("effects: got = %v, want those of attempt 3", o.Effects)
			}
			return nil
		},
	})
}
