//go:build unix

package segno_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// killStarts is how often a poisoned program may have to be started.
const killStarts = 12

// poisonFlow is the workflow of innocent and poison runs alike. In its first
// life the program does not die before all of its runs are in flight.
func (c *killChild) poisonFlow(all <-chan struct{}) segno.Workflow[killState, killData] {
	work := func(next killState) killStep {
		step := c.step(next, c.Nap)
		do := step.Do
		step.Do = func(ctx context.Context, d *killData) (killState, error) {
			if d.Name == "poison "+segno.InfoFrom(ctx).State {
				c.did("do", ctx)
				if c.Life == 1 {
					<-all
				}
				c.check(killWork(ctx, c.life()))
				c.die()
			}
			return do(ctx, d)
		}
		step.Undo = func(ctx context.Context, d killData) error {
			c.did("undo", ctx, d.Trail...)
			if d.Name == "poison undo "+segno.InfoFrom(ctx).State {
				c.die()
			}
			return nil
		}
		return step
	}
	last := work("done")
	do := last.Do
	last.Undo = nil
	last.Do = func(ctx context.Context, d *killData) (killState, error) {
		if strings.HasPrefix(d.Name, "poison undo") {
			return "", errors.New("out of stock")
		}
		return do(ctx, d)
	}
	return segno.Workflow[killState, killData]{Initial: "a", Steps: killSteps{
		"a": work("b"), "b": work("c"), "c": last, "done": {Final: true},
	}}
}

// life is how long the process lives after a poison step has begun.
func (c *killChild) life() time.Duration {
	if c.Mode == "slow" {
		return c.Nap / 2
	}
	return 5 * time.Millisecond
}

func killPoison(c *killChild) {
	all := make(chan struct{})
	s := segno.New(c.Path, c.options())
	c.check(s.Add(segno.Flow{ID: "jobs", Workflow: c.poisonFlow(all), Overlap: segno.Allow(0)}))
	r := c.start(s)
	if c.Life == 1 {
		poison := strings.Split(c.Mode, ",")
		c.trigger(r, "jobs", c.Runs, func(i int) string {
			if at := i - c.Runs/3; at >= 0 && at < len(poison) {
				return "poison " + strings.TrimPrefix(poison[at], "slow")
			}
			return fmt.Sprint(i)
		})
		close(all)
	}
	c.finish(r)
}

// outlive starts the program until it ends by itself, and returns the number
// of starts.
func (r *killRig) outlive() (starts int) {
	r.t.Helper()
	for starts = 1; r.start().died(); starts++ {
		if starts > killStarts {
			r.t.Fatalf("the program died %d times, want at most %d", starts, killStarts)
		}
	}
	r.t.Logf("%d starts, SuspectFor in force at the end %v", starts,
		time.Duration(killValue[int64](r.t, r.plan.Path, "SELECT suspect_for FROM _segno_owner"))*time.Microsecond)
	if starts > killStarts {
		r.t.Errorf("got %d starts, want at most %d", starts, killStarts)
	}
	return starts
}

// judge checks that every innocent run has completed and the others have not,
// and returns these.
func (r *killRig) judge(poison int) (bad []segno.RunID) {
	r.t.Helper()
	for id, h := range r.left {
		innocent := !strings.Contains(h.data, "poison")
		if !innocent {
			bad = append(bad, id)
		} else if h.status != "completed" {
			r.t.Errorf("innocent run %d: got %s (%s), want completed; %s", id, h.status, h.err, h.kinds())
		}
	}
	if got, want := len(r.left), r.plan.Runs; got != want || len(bad) != poison {
		r.t.Errorf("got %d runs, %d of them poison, want %d and %d", got, len(bad), want, poison)
	}
	return bad
}

// waitRun asks a scheduler of the test's own how a run ended.
func (r *killRig) waitRun(id segno.RunID) (segno.RunInfo, error) {
	r.t.Helper()
	s := segno.New(r.plan.Path, segno.Options{SmallWAL: true})
	if err := s.Add(segno.Flow{ID: "jobs", Workflow: new(killChild).poisonFlow(nil), Overlap: segno.Allow(0)}); err != nil {
		r.t.Fatal(err)
	}
	running, err := s.Start(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() {
		if err := running.Stop(context.Background()); err != nil {
			r.t.Error(err)
		}
	}()
	return running.WaitRun(r.t.Context(), id)
}

// crashLooped checks that a poison run has failed for what it is.
func (r *killRig) crashLooped(id segno.RunID) {
	r.t.Helper()
	h := r.left[id]
	info, err := r.waitRun(id)
	var runErr *segno.RunError
	if !errors.Is(err, segno.ErrCrashLoop) || !errors.As(err, &runErr) || info.Status != segno.RunFailed {
		r.t.Errorf("poison run %d: got %s with %v, want failed with ErrCrashLoop", id, info.Status, err)
	}
	crashes := 0
	for _, e := range h.entries {
		if e.kind == "crash" && e.visit == h.visit {
			crashes++
		}
	}
	if crashes != 5 {
		r.t.Errorf("poison run %d: got %d crashes counted in its last visit, want 5 (%s)", id, crashes, h.kinds())
	}
}

// TestKillPoisonRun has one run that kills the process, among fifty innocent
// ones in flight.
func TestKillPoisonRun(t *testing.T) {
	t.Parallel()
	for name, plan := range map[string]killPlan{
		"FirstVisit":       {Mode: "a"},
		"LaterVisit":       {Mode: "b"}, // with a finished visit to undo
		"TwoInOneState":    {Mode: "a,a"},
		"TwoInOtherStates": {Mode: "a,b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plan.Scenario, plan.Runs, plan.Nap = "poison", 50+len(strings.Split(plan.Mode, ",")), 50*time.Millisecond
			rig := newKillRig(t, plan)
			rig.outlive()
			for _, id := range rig.judge(plan.Runs - 50) {
				rig.crashLooped(id)
				if h := rig.left[id]; h.has("undone") != h.visit-1 {
					t.Errorf("poison run %d: got %q, want every visit before the last undone", id, h.kinds())
				}
			}
		})
	}
}

// TestKillSlowPoisonRun has a run that kills the process when it has lived for
// longer than SuspectFor, so that others are running by then.
func TestKillSlowPoisonRun(t *testing.T) {
	t.Parallel()
	rig := newKillRig(t, killPlan{
		Scenario: "poison", Mode: "slowa", Runs: 11, Nap: 160 * time.Millisecond, Suspect: 15 * time.Millisecond,
	})
	rig.outlive()
	for _, id := range rig.judge(1) {
		rig.crashLooped(id)
	}
	if got := killValue[int64](t, rig.plan.Path, "SELECT suspect_for FROM _segno_owner"); got <= rig.plan.Suspect.Microseconds() {
		t.Errorf("got SuspectFor of %d µs, want it to have doubled from %v", got, rig.plan.Suspect)
	}
}

// TestKillPoisonUndo has a run whose undo kills the process: that undo has
// failed in the end, and the rollback goes on behind it.
func TestKillPoisonUndo(t *testing.T) {
	t.Parallel()
	rig := newKillRig(t, killPlan{Scenario: "poison", Mode: "undo b", Runs: 21, Nap: 30 * time.Millisecond})
	rig.outlive()
	for _, id := range rig.judge(1) {
		h := rig.left[id]
		if h.status != "undo_failed" || h.has("undo_failed") != 1 || !h.undone[1] || h.has("crash") != 5 {
			t.Errorf("got %s with %q, want undo_failed: five crashes, visit 2 failed, visit 1 undone", h.status, h.kinds())
		}
		_, err := rig.waitRun(id)
		var runErr *segno.RunError
		if !errors.As(err, &runErr) || len(runErr.Undo) != 1 || !errors.Is(runErr.Undo[0], segno.ErrCrashLoop) {
			t.Errorf("got %v, want a RunError with one undo failed by ErrCrashLoop", err)
		}
		if err != nil && (!strings.Contains(runErr.Err.Error(), "out of stock") || errors.Is(runErr.Err, segno.ErrCrashLoop)) {
			t.Errorf("got %v, want the original error to be kept", runErr.Err)
		}
	}
}

// TestKillPoisonCrowd has a run whose step kills the process and one whose undo
// does, among two hundred innocent ones.
func TestKillPoisonCrowd(t *testing.T) {
	t.Parallel()
	const innocent = 200
	rig := newKillRig(t, killPlan{Scenario: "poison", Mode: "a,undo b", Runs: innocent + 2, Nap: 15 * time.Millisecond, Suspect: 200 * time.Millisecond})
	rig.outlive()
	for _, id := range rig.judge(2) {
		h := rig.left[id]
		if strings.Contains(h.data, "undo") {
			if h.status != "undo_failed" || h.has("undo_failed") != 1 || !h.undone[1] {
				t.Errorf("got %s with %q, want undo_failed: visit 2 failed, visit 1 undone", h.status, h.kinds())
			}
			continue
		}
		rig.crashLooped(id)
	}
}

// killRelay has suspects that wait for one another: the second visit of the
// one lasts until the first visit of the other has begun.
func killRelay(c *killChild) {
	var begun atomic.Int32
	both := make(chan struct{})
	flow := segno.Workflow[killState, killData]{Initial: "a", Steps: killSteps{
		"a": {Do: func(ctx context.Context, _ *killData) (killState, error) {
			c.did("do", ctx)
			if begun.Add(1) == int32(c.Runs) {
				close(both)
			}
			if c.Life <= 3 {
				<-both
				c.die()
			}
			return "b", nil
		}},
		"b": {Do: func(ctx context.Context, _ *killData) (killState, error) {
			<-both
			return "done", nil
		}},
		"done": {Final: true},
	}}
	s := segno.New(c.Path, c.options())
	c.check(s.Add(segno.Flow{ID: "jobs", Workflow: flow, Overlap: segno.Allow(0)}))
	r := c.start(s)
	if c.Life == 1 {
		c.trigger(r, "jobs", c.Runs, func(i int) string { return fmt.Sprint(i) })
	}
	c.finish(r)
}

// TestKillSuspectsFollowVisits checks that the next suspect is resumed as soon
// as the visit of the one before has ended, however long SuspectFor is.
func TestKillSuspectsFollowVisits(t *testing.T) {
	t.Parallel()
	rig := newKillRig(t, killPlan{Scenario: "relay", Runs: 3, Suspect: time.Hour})
	for range 3 {
		if !rig.start().died() {
			t.Fatal("the program ended by itself, want it to die")
		}
	}
	for id, h := range rig.left {
		if h.crashes != 2 { // the third is counted by the next start
			t.Errorf("run %d: got %d crashes, want 2", id, h.crashes)
		}
	}
	rig.start().ends()
	for id, h := range rig.left {
		if h.status != "completed" || h.has("crash") != 3 {
			t.Errorf("run %d: got %s with %q, want completed after 3 crashes", id, h.status, h.kinds())
		}
	}
}

// killParkedSuspect has a run that becomes a suspect and then has to wait for
// its next attempt.
func killParkedSuspect(c *killChild) {
	opts := c.options()
	opts.ParkAfter = time.Millisecond
	s := segno.New(c.Path, opts)
	c.check(s.Add(segno.Flow{ID: "jobs", Workflow: segno.Workflow[killState, killData]{Initial: "a", Steps: killSteps{
		"a": {Retry: segno.Fixed(2, 20*time.Millisecond), Do: func(ctx context.Context, _ *killData) (killState, error) {
			c.did("do", ctx)
			if c.Life <= 3 {
				c.die()
			}
			if segno.InfoFrom(ctx).Attempt == 1 {
				return "", errors.New("no answer")
			}
			return "done", nil
		}},
		"done": {Final: true},
	}}}))
	r := c.start(s)
	if c.Life == 1 {
		c.trigger(r, "jobs", 1, func(int) string { return "" })
	}
	c.finish(r)
}

// TestKillSuspectWaits checks that a suspect that has parked is woken.
func TestKillSuspectWaits(t *testing.T) {
	t.Parallel()
	rig := newKillRig(t, killPlan{Scenario: "suspect parks"})
	for range 3 {
		if !rig.start().died() {
			t.Fatal("the program ended by itself, want it to die")
		}
	}
	rig.start().ends()
	for id, h := range rig.left {
		if h.status != "completed" || h.kinds() != "enter crash crash crash retry end" {
			t.Errorf("run %d: got %s with %q, want completed by a second attempt", id, h.status, h.kinds())
		}
	}
}
