//go:build unix

package segno_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

type killState string

// killData is the data of most runs.
type killData struct {
	Name  string   `json:",omitempty"`
	Trail []string `json:",omitempty"` // states finished
}

type (
	killSteps = segno.Steps[killState, killData]
	killStep  = segno.Step[killState, killData]
)

// step is a step that works for a while.
func (c *killChild) step(next killState, work time.Duration) killStep {
	return killStep{Do: func(ctx context.Context, d *killData) (killState, error) {
		c.did("do", ctx)
		if err := killWork(ctx, work); err != nil {
			return "", err
		}
		d.Trail = append(d.Trail, segno.InfoFrom(ctx).State)
		return next, nil
	}}
}

// trigger triggers n runs at the same time, and reports each.
func (c *killChild) trigger(r *segno.RunningScheduler, flow string, n int, name func(i int) string) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			id, err := r.Trigger(context.Background(), flow, segno.Trigger{Input: killData{Name: name(i)}})
			c.check(err)
			c.say(killEvent{What: "ack", Run: id})
		})
	}
	wg.Wait()
}

func killFlight(c *killChild) {
	var first sync.Once
	began := time.Time{}
	flow := segno.Workflow[killState, killData]{Initial: "a", Steps: killSteps{
		"a": c.step("b", c.Nap), "b": c.step("c", c.Nap), "c": c.step("done", c.Nap), "done": {Final: true},
	}}
	for name, step := range flow.Steps {
		if do := step.Do; do != nil {
			step.Do = func(ctx context.Context, d *killData) (killState, error) {
				since := time.Since(began)
				first.Do(func() { c.say(killEvent{What: "first", Text: since.String()}) })
				return do(ctx, d)
			}
			flow.Steps[name] = step
		}
	}
	opts := c.options()
	opts.SmallWAL = false
	s := segno.New(c.Path, opts)
	overlap := segno.Allow(0)
	if c.Mode == "queue" {
		overlap = segno.Allow(20)
	}
	c.check(s.Add(segno.Flow{ID: "jobs", Workflow: flow, Overlap: overlap}))
	c.say(killEvent{What: "starting"})
	began = time.Now()
	r, err := s.Start(context.Background())
	c.check(err)
	c.say(killEvent{What: "started", Text: time.Since(began).String()})
	if c.Life == c.Triggers {
		c.trigger(r, "jobs", c.Runs, func(i int) string { return fmt.Sprint(i) })
		c.say(killEvent{What: "ready"})
	}
	c.finish(r)
}

// TestKillInFlight kills the program with 200 runs in flight.
func TestKillInFlight(t *testing.T) {
	rounds := 3
	if killLong {
		rounds = 25
	}
	var first, start []time.Duration
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			rig := newKillRig(t, killPlan{Scenario: "flight", Triggers: 1, Runs: 200, Nap: 20 * time.Millisecond})
			f, s := rig.flight(2)
			first, start = append(first, f...), append(start, s...)
		})
	}
	t.Logf("first resumed step after Start: median %v, %v; Start returned after: median %v",
		killMedian(first), first, killMedian(start))
}

// TestKillQueued kills a program most of whose runs wait for a place.
func TestKillQueued(t *testing.T) {
	rig := newKillRig(t, killPlan{Scenario: "flight", Triggers: 1, Mode: "queue", Runs: 100, Nap: 10 * time.Millisecond})
	rig.flight(3)
}

// TestKillInStart kills the program while it makes a new file: the next one
// finds a file that it can go on with, or none.
func TestKillInStart(t *testing.T) {
	t.Parallel()
	rounds := 8
	if killLong {
		rounds = 150
	}
	for range rounds {
		rig := newKillRig(t, killPlan{Scenario: "flight", Triggers: 3, Runs: 3})
		for range 2 {
			rig.start().nip(12 * time.Millisecond)
		}
		rig.start().ends()
		rig.allCompleted([]string{"a", "b", "c"})
		if got := killValue[int](t, rig.plan.Path, "PRAGMA application_id"); got != 0x7365676e {
			t.Errorf("application_id: got %#x, want that of segno: the program made the file", got)
		}
	}
}

// TestKillInRecovery kills the program while it takes up what an earlier kill
// has interrupted, again and again.
func TestKillInRecovery(t *testing.T) {
	t.Parallel()
	rounds := 1
	if killLong {
		rounds = 20
	}
	for range rounds {
		rig := newKillRig(t, killPlan{Scenario: "flight", Triggers: 1, Runs: 60, Nap: 10 * time.Millisecond})
		l := rig.start()
		l.until("ready", 1)
		l.strike("do", 1+rig.rand.IntN(60))
		for range 6 {
			rig.start().nip(20 * time.Millisecond)
		}
		rig.start().ends()
		rig.allCompleted([]string{"a", "b", "c"})
	}
}

// nip kills the life within a time of the call of Start. It does not look at
// the file: that is for the next life.
func (l *killLife) nip(within time.Duration) {
	l.rig.t.Helper()
	l.until("starting", 1)
	time.Sleep(time.Duration(l.rig.rand.Int64N(int64(within))))
	_ = l.cmd.Process.Signal(syscall.SIGKILL)
	for {
		if _, ok := l.next(); !ok {
			break
		}
	}
	if l.wait() {
		l.rig.deaths++
	}
}

// flight lets the program be killed a number of times at random, and checks
// that all of its runs complete. It returns the times to the first resumed
// step, and to the return of Start.
func (r *killRig) flight(kills int) (first, start []time.Duration) {
	l := r.start()
	l.until("ready", 1)
	left := 3*r.plan.Runs - r.count("do", 1)
	for range kills {
		if !l.strike("do", 1+r.rand.IntN(max(left*2/3, 1))) {
			break
		}
		open := 0
		left = 0
		for _, h := range r.left {
			if !h.ended {
				open++
				left += 4 - h.visit
			}
		}
		r.t.Logf("killed with %d of %d runs in flight", open, len(r.left))
		l = r.start()
	}
	if !l.over {
		l.ends()
	}
	r.allCompleted([]string{"a", "b", "c"})
	return r.durations("first"), r.durations("started")
}

// durations returns what the restarted lives have measured.
func (r *killRig) durations(what string) (all []time.Duration) {
	for _, e := range r.events {
		if d, err := time.ParseDuration(e.Text); err == nil && e.What == what && e.Life > 1 {
			all = append(all, d)
		}
	}
	return all
}

// allCompleted checks that every promised run, and no other, has completed by
// passing each state once.
func (r *killRig) allCompleted(states []string) {
	r.t.Helper()
	if got, want := len(r.left), r.plan.Runs; got != want {
		r.t.Errorf("got %d runs in the file, want %d", got, want)
	}
	trail := `"Trail":["` + strings.Join(states, `","`) + `"]`
	for id, h := range r.left {
		if h.status != "completed" || !strings.Contains(h.data, trail) {
			r.t.Errorf("run %d: got %s with %s, want completed with %s", id, h.status, h.data, trail)
		}
		if got, want := h.has("enter"), len(states); got != want {
			r.t.Errorf("run %d: got %d visits, want %d (%s)", id, got, want, h.kinds())
		}
		if got := h.has("crash"); got > r.deaths {
			r.t.Errorf("run %d: got %d crashes counted, want at most %d", id, got, r.deaths)
		}
	}
}

func killMedian(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2]
}
