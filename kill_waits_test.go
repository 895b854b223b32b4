//go:build unix

package segno_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// killWaitKinds are the ways to wait in a visit.
var killWaitKinds = []string{"retry", "snooze", "sleep", "timer", "poll"}

// waitStep is a step that waits for c.Nap, in one of the ways.
func (c *killChild) waitStep(kind string) killStep {
	did := func(ctx context.Context, d *killData) bool {
		c.did("do", ctx, kind)
		d.Trail = append(d.Trail, kind)
		return len(d.Trail) > 1
	}
	switch kind {
	case "retry":
		return killStep{Retry: segno.Retry{Attempts: 3, Initial: c.Nap, MaxDelay: c.Nap, Jitter: -1},
			Do: func(ctx context.Context, d *killData) (killState, error) {
				if did(ctx, d); segno.InfoFrom(ctx).Attempt == 1 {
					return "", errors.New("no answer")
				}
				return "done", nil
			}}
	case "snooze":
		return killStep{Do: func(ctx context.Context, d *killData) (killState, error) {
			if !did(ctx, d) {
				return "", segno.Snooze(c.Nap)
			}
			return "done", nil
		}}
	case "sleep":
		return killStep{Do: segno.Sleep[killData](c.Nap, killState("done"))}
	case "timer":
		return killStep{Do: segno.Timer(func(ctx context.Context, _ *killData) (time.Time, error) {
			c.did("until", ctx, kind)
			return time.Now().Add(c.Nap), nil
		}, func(ctx context.Context, d *killData) (killState, error) {
			did(ctx, d)
			return "done", nil
		})}
	}
	return killStep{Do: segno.Poll(func(ctx context.Context, d *killData) (killState, time.Duration, error) {
		if !did(ctx, d) {
			return "", c.Nap, nil
		}
		return "done", 0, nil
	})}
}

// killWaits has one run of each kind. In a first life, or with long waits, it
// only waits until all of them do.
func killWaits(c *killChild) {
	opts := c.options()
	opts.ParkAfter = 2 * c.Nap
	waiting := segno.RunRunning
	if c.Mode == "parked" {
		opts.ParkAfter, waiting = c.Nap/2, segno.RunParked
	}
	s := segno.New(c.Path, opts)
	for _, kind := range killWaitKinds {
		c.check(s.Manual(kind, segno.Workflow[killState, killData]{Initial: "wait", Steps: killSteps{
			"wait": c.waitStep(kind), "done": {Final: true},
		}}))
	}
	r := c.start(s)
	if c.Life == 1 {
		for _, kind := range killWaitKinds {
			id, err := r.Trigger(context.Background(), kind, segno.Trigger{})
			c.check(err)
			c.say(killEvent{What: "ack", Run: id, Text: kind})
		}
	}
	if c.Life == 1 || c.Nap >= time.Minute {
		c.until(func() bool {
			runs := c.open(r)
			for _, run := range runs {
				if run.Due.IsZero() || run.Status != waiting {
					return false
				}
			}
			return len(runs) == len(killWaitKinds)
		})
		c.say(killEvent{What: "waiting"})
		select {}
	}
	c.finish(r)
}

// TestKillWhileWaiting kills the program while runs wait for long: what they
// wait for, and how far they are, stays as it is, and nobody is blamed.
func TestKillWhileWaiting(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"in memory", "parked"} {
		t.Run(mode, func(t *testing.T) {
			rig := newKillRig(t, killPlan{Scenario: "waits", Mode: mode, Nap: time.Hour})
			var first map[segno.RunID]killHead
			for life := range 3 {
				l := rig.start()
				l.until("waiting", 1)
				l.kill()
				if life == 0 {
					first = maps.Clone(rig.left)
				}
			}
			for id, h := range rig.left {
				was := first[id]
				if h.due != was.due || h.attempt != was.attempt || h.polls != was.polls || h.data != was.data || h.visit != 1 {
					t.Errorf("%s: got %+v, want as before the restarts: %+v", h.flow, h, was)
				}
				if wantAttempt := map[bool]int{true: 2, false: 1}[h.flow == "retry"]; h.attempt != wantAttempt {
					t.Errorf("%s: got attempt %d, want %d", h.flow, h.attempt, wantAttempt)
				}
				if h.crashes != 0 || h.has("crash") != 0 {
					t.Errorf("%s: got %d crashes (%s), want none", h.flow, h.crashes, h.kinds())
				}
			}
			if got := rig.count("do", 2) + rig.count("do", 3) + rig.count("until", 2) + rig.count("until", 3); got != 0 {
				t.Errorf("got %d calls after the first life, want none before the time has come", got)
			}
		})
	}
}

// TestKillThenWake kills the program while runs wait, and lets the next one
// wake them: not before their time, and with what they had.
func TestKillThenWake(t *testing.T) {
	t.Parallel()
	for _, plan := range []killPlan{{Mode: "in memory", Nap: 2 * time.Second}, {Mode: "parked", Nap: time.Second}} {
		t.Run(plan.Mode, func(t *testing.T) {
			t.Parallel()
			plan.Scenario = "waits"
			rig := newKillRig(t, plan)
			l := rig.start()
			l.until("waiting", 1)
			l.kill()
			due := maps.Clone(rig.left)
			rig.start().ends()
			for id, h := range rig.left {
				if h.status != "completed" || h.visit != 2 {
					t.Errorf("%s: got %s in visit %d, want completed in 2 (%s)", h.flow, h.status, h.visit, h.kinds())
				}
				if plan.Mode == "parked" && h.has("crash") != 0 {
					t.Errorf("%s: got %q, want no crash: it was parked", h.flow, h.kinds())
				}
				calls := slices.DeleteFunc(slices.Clone(rig.events), func(e killEvent) bool {
					return e.Run != id || e.What != "do" || e.Life == 1
				})
				want := 1
				if h.flow == "sleep" {
					want = 0
				}
				if len(calls) != want {
					t.Errorf("%s: got %d calls after the restart, want %d", h.flow, len(calls), want)
				}
				for _, e := range calls {
					if at := e.At.UnixMicro(); at < killMicros(t, due[id].due) {
						t.Errorf("%s: got a call at %d, want none before %s", h.flow, at, due[id].due)
					}
					if want := due[id].attempt; e.Attempt != want {
						t.Errorf("%s: got attempt %d, want %d", h.flow, e.Attempt, want)
					}
				}
			}
			if got := rig.count("until", 0); got != 1 {
				t.Errorf("timer: got %d calls of until, want 1", got)
			}
		})
	}
}
