//go:build unix

package segno_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// gateFlow has one step that fails or not.
func (c *killChild) gateFlow(id string, fails bool) segno.Workflow[killState, killData] {
	return segno.Workflow[killState, killData]{Initial: "print", Steps: killSteps{
		"print": {Do: func(ctx context.Context, _ *killData) (killState, error) {
			c.did("do", ctx, id)
			if fails {
				return "", errors.New("no paper")
			}
			return "done", nil
		}},
		"done": {Final: true},
	}}
}

const killGateFor = 10 * time.Minute

// killGate has a flow in backoff, one with a short backoff, a tripped and a
// paused one, and one that only shows that the dispatcher is alive.
func killGate(c *killChild) {
	const often = 20 * time.Millisecond
	s := segno.New(c.Path, c.options())
	long := segno.BackoffPolicy{Initial: killGateFor, Multiplier: 1, MaxDelay: killGateFor, Jitter: -1}
	for _, f := range []segno.Flow{
		{ID: "flaky", Workflow: c.gateFlow("flaky", true), Schedule: segno.Every(often), Backoff: long},
		{ID: "short", Workflow: c.gateFlow("short", c.Life == 1), Schedule: segno.Every(often), Backoff: segno.BackoffPolicy{Initial: c.Nap, Jitter: -1}},
		{ID: "tripped", Workflow: c.gateFlow("tripped", true), Backoff: segno.BackoffPolicy{Initial: -1, StreakLimit: 3}},
		{ID: "paused", Workflow: c.gateFlow("paused", false), Schedule: segno.Every(often)},
		{ID: "probe", Workflow: c.gateFlow("probe", false)},
	} {
		c.check(s.Add(f))
	}
	r := c.start(s)
	if c.Life == 1 {
		c.closeGates(r)
	}
	c.status(r)
	if c.Life < 3 {
		select {}
	}
	if _, err := r.Trigger(context.Background(), "tripped", segno.Trigger{}); !errors.Is(err, segno.ErrTripped) {
		c.check(errors.Join(errors.New("triggering a tripped flow: want ErrTripped"), err))
	}
	id, err := r.Trigger(context.Background(), "probe", segno.Trigger{})
	c.check(err)
	_, err = r.WaitRun(context.Background(), id)
	c.check(err)
	c.until(func() bool { // its gate opens in this life
		info, err := r.Status(context.Background(), "short")
		c.check(err)
		return info.Status == segno.StatusCompleted
	})
	c.status(r)
	c.check(r.Stop(context.Background()))
}

// closeGates brings the flows into the states they are to keep.
func (c *killChild) closeGates(r *segno.RunningScheduler) {
	ctx := context.Background()
	ended := func(id string) func() bool {
		return func() bool {
			info, err := r.Status(ctx, id)
			c.check(err)
			return info.Open == 0 && info.RunCount > 0
		}
	}
	fail := func(id string, n int) {
		for range n {
			run, err := r.Trigger(ctx, id, segno.Trigger{})
			c.check(err)
			if _, err := r.WaitRun(ctx, run); err == nil {
				c.check(errors.New(id + " did not fail"))
			}
		}
	}
	c.until(ended("flaky"))
	c.until(ended("short"))
	fail("flaky", 2) // a trigger does not mind the gate
	fail("tripped", 3)
	c.check(r.PauseFlow(ctx, "paused", segno.Pause{Note: "stocktaking", Actor: "ops"}))
	c.until(ended("paused"))
}

// status reports what is known of the flows.
func (c *killChild) status(r *segno.RunningScheduler) {
	list, err := r.List(context.Background())
	c.check(err)
	text, err := json.Marshal(list)
	c.check(err)
	c.say(killEvent{What: "status", Text: string(text)})
}

// flows reads a report of status.
func (r *killRig) flows(e killEvent) map[string]segno.FlowInfo {
	r.t.Helper()
	var list []segno.FlowInfo
	if err := json.Unmarshal([]byte(e.Text), &list); err != nil {
		r.t.Fatal(err)
	}
	flows := map[string]segno.FlowInfo{}
	for _, info := range list {
		flows[info.ID] = info
	}
	return flows
}

// TestKillKeepsGates kills the program with a backoff window open, a flow
// tripped and a flow paused: all of that is the same afterwards.
func TestKillKeepsGates(t *testing.T) {
	t.Parallel()
	rig := newKillRig(t, killPlan{Scenario: "gate", Nap: 1200 * time.Millisecond})
	l := rig.start()
	before := rig.flows(l.until("status", 1))
	l.kill()
	if f := before["flaky"]; f.FailureStreak != 3 || f.Status != segno.StatusBackoff || time.Until(f.NextEligible) < killGateFor-killLimit {
		t.Fatalf("flaky: got %+v, want a streak of 3 and ten minutes of backoff", f)
	}
	if f := before["tripped"]; f.Status != segno.StatusTripped || f.FailureStreak != 3 {
		t.Fatalf("tripped: got %+v, want it tripped after 3", f)
	}
	l = rig.start()
	second := rig.flows(l.until("status", 1))
	l.kill()
	l = rig.start()
	third := rig.flows(l.until("status", 1))
	last := rig.flows(l.until("status", 1))
	l.ends()
	for name, after := range map[string]map[string]segno.FlowInfo{"second": second, "third": third, "last": last} {
		for _, id := range []string{"flaky", "tripped", "paused"} {
			got, want := after[id], before[id]
			got.NextRun, want.NextRun = time.Time{}, time.Time{}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s life, %s: got %+v, want as before the kill: %+v", name, id, got, want)
			}
		}
		if f := after["flaky"]; f.NextRun.Before(f.NextEligible) {
			t.Errorf("%s life, flaky: got next run at %v, want it not before %v", name, f.NextRun, f.NextEligible)
		}
	}
	eligible := before["short"].NextEligible
	for _, e := range rig.events {
		switch {
		case e.What != "do" || e.Life == 1:
		case e.Text == "short" && e.At.Before(eligible):
			t.Errorf("short: got a run at %v, want none before %v", e.At, eligible)
		case e.Text != "short" && e.Text != "probe":
			t.Errorf("%s: got a run after the kill, want none", e.Text)
		}
	}
	if got := rig.count("do", 3); got < 2 {
		t.Errorf("got %d runs in the last life, want those of short and probe", got)
	}
}

// killCancel cancels runs that stand in every possible way, and dies as soon
// as that is durable.
func killCancel(c *killChild) {
	s := segno.New(c.Path, c.options())
	undo := func(ctx context.Context, d killData) error {
		text := d.Name
		if segno.InfoFrom(ctx).Uncertain {
			text += " uncertain"
		}
		c.did("undo", ctx, text)
		return nil
	}
	hang := func(ctx context.Context, _ *killData) (killState, error) {
		c.did("do", ctx)
		select {} // and takes no notice of its context
	}
	park := func(ctx context.Context, _ *killData) (killState, error) {
		c.did("do", ctx)
		return "", segno.Snooze(time.Hour)
	}
	fail := func(ctx context.Context, _ *killData) (killState, error) {
		c.did("do", ctx)
		return "", segno.RetryAfter(errors.New("busy"), time.Hour)
	}
	c.check(s.Add(segno.Flow{ID: "jobs", Overlap: segno.Allow(0), Workflow: segno.Workflow[killState, killData]{
		Initial: "a", Steps: killSteps{
			"a": {Do: func(ctx context.Context, d *killData) (killState, error) {
				c.did("do", ctx)
				return killState(d.Name), nil
			}, Undo: undo},
			"protected": {Do: hang, Undo: undo},
			"uncertain": {Do: hang, Undo: undo, UndoUncertain: true},
			"plain":     {Do: hang},
			"parked":    {Do: park, Undo: undo},
			"retrying":  {Do: fail, Retry: segno.Fixed(2, time.Second)},
			"done":      {Final: true},
		},
	}}))
	r := c.start(s)
	if c.Life > 1 {
		c.finish(r)
		return
	}
	names := []string{"protected", "uncertain", "plain", "parked", "retrying"}
	c.trigger(r, "jobs", len(names), func(i int) string { return names[i] })
	id, err := r.Trigger(context.Background(), "jobs", segno.Trigger{Input: killData{Name: "plain"}, At: time.Now().Add(time.Hour)})
	c.check(err)
	c.say(killEvent{What: "ack", Run: id})
	c.until(func() bool {
		for _, run := range c.open(r) {
			name := run.State
			waits := name == "parked" || name == "retrying"
			if run.ID != id && (name == "a" || waits && run.Status != segno.RunParked) {
				return false
			}
		}
		return true
	})
	c.arm()
	c.check(r.CancelFlow(context.Background(), "jobs"))
	c.check(errors.New("still alive after the cancel"))
}

// TestKillAfterCancel kills the program right after a cancel is durable, before
// anything has come of it.
func TestKillAfterCancel(t *testing.T) {
	t.Parallel()
	rig := newKillRig(t, killPlan{Scenario: "cancel", At: 1})
	if !rig.start().died() {
		t.Fatal("the program ended by itself, want it to die")
	}
	was := rig.left
	for id, h := range was {
		if !h.cancel || h.ended {
			t.Errorf("run %d in %s: got cancel %v, ended %v, want it cancelled and open", id, h.state, h.cancel, h.ended)
		}
	}
	rig.start().ends()
	if got := rig.count("do", 2); got != 0 {
		t.Errorf("got %d steps begun after the cancel, want none", got)
	}
	for id, h := range rig.left {
		if h.status != "cancelled" {
			t.Errorf("run %d in %s: got %s, want cancelled (%s)", id, h.state, h.status, h.kinds())
		}
		want := map[string]map[int]bool{"a": {}, "uncertain": {1: true, 2: true}}[was[id].state]
		if want == nil {
			want = map[int]bool{1: true}
		}
		if !reflect.DeepEqual(h.undone, want) {
			t.Errorf("run %d in %s: got visits %v undone, want %v", id, h.state, h.undone, want)
		}
		inFlight := strings.Contains("protected uncertain plain", was[id].state) && was[id].state != "a"
		marked := false
		for _, e := range h.entries {
			marked = marked || e.uncertain
		}
		if marked != inFlight {
			t.Errorf("run %d in %s: got uncertain %v, want %v (%s)", id, was[id].state, marked, inFlight, h.kinds())
		}
	}
	for _, e := range rig.events {
		if uncertain := e.What == "undo" && strings.HasSuffix(e.Text, " uncertain"); uncertain != (e.What == "undo" && e.State == "uncertain") {
			t.Errorf("undo of %s: got uncertain %v", e.State, uncertain)
		}
	}
}

// killStop stops with runs in flight, and dies at some commit of it.
func killStop(c *killChild) {
	s := segno.New(c.Path, c.options())
	c.check(s.Add(segno.Flow{ID: "jobs", Overlap: segno.Allow(0), Workflow: segno.Workflow[killState, killData]{
		Initial: "a", Steps: killSteps{
			"a": c.step("b", c.Nap), "b": c.step("c", c.Nap), "c": c.step("done", c.Nap), "done": {Final: true},
		},
	}}))
	r := c.start(s)
	if c.Life > 1 {
		c.finish(r)
		return
	}
	c.trigger(r, "jobs", c.Runs, func(int) string { return "" })
	c.arm()
	c.check(r.Stop(context.Background()))
	c.check(errors.New("still alive after the stop"))
}

// TestKillInStop kills the program while it stops: whoever had stopped by then
// has, and nobody is blamed for the death.
func TestKillInStop(t *testing.T) {
	t.Parallel()
	held := 0
	for _, at := range []int{3, 20, 50, 75} {
		rig := newKillRig(t, killPlan{Scenario: "stop", Runs: 40, Nap: 20 * time.Millisecond, At: at})
		if !rig.start().died() {
			t.Fatal("the program ended by itself, want it to die")
		}
		clean := killValue[bool](t, rig.plan.Path, "SELECT clean FROM segno_owner")
		for _, h := range rig.left {
			if h.held {
				held++
			}
		}
		rig.start().ends()
		rig.allCompleted([]string{"a", "b", "c"})
		for id, h := range rig.left {
			if clean && h.has("crash") > 0 {
				t.Errorf("run %d: got %q, want no crash counted: the owner had begun to stop", id, h.kinds())
			}
		}
		if !clean {
			t.Logf("killed at commit %d, before the stop was on record", at)
		}
	}
	if held == 0 {
		t.Error("got no run that was executing when the stop was killed")
	}
}
