//go:build unix

package segno_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/segnodev/segno"
)

// stormWays are the ways a run of the storm may go, each with its own models, and
// how many deeds each leaves behind: rows that its commits have joined.
var stormWays = []struct {
	name   string
	status string // at the end
	deeds  int
}{
	{"plain", "completed", 2},
	{"retry", "completed", 2},
	{"timer", "completed", 1},
	{"poll", "completed", 4},
	{"batch", "completed", 6},
	{"stepped", "completed", 5},
	{"split", "completed", 5},
	{"await", "completed", 2},
	{"call", "completed", 1},
	{"saga", "failed", 1},
}

// deed joins a row to the commit of a unit: as often as the unit counts.
func (c *killChild) deed(ctx context.Context, format string, args ...any) error {
	in, what := segno.InfoFrom(ctx), fmt.Sprintf(format, args...)
	return segno.OnCommit(ctx, func(tx segno.Tx) error {
		_, err := tx.Exec("INSERT INTO deeds (run, visit, what) VALUES (?, ?, ?)", in.Run, in.Visit, what)
		return err
	})
}

// plain is a step that works for a moment.
func (c *killChild) plain(next killState) killStep {
	return killStep{Do: func(ctx context.Context, d *killData) (killState, error) {
		if err := killWork(ctx, time.Millisecond); err != nil {
			return "", err
		}
		return next, c.deed(ctx, "plain")
	}}
}

// stormFlow begins with a step that sends each run its way.
func (c *killChild) stormFlow() killRoute {
	last := c.plain("done")
	return killRoute{Initial: "fork", Steps: killSteps{
		"fork": {
			Do:   func(_ context.Context, d *killData) (killState, error) { return killState(d.Name), nil },
			Undo: func(ctx context.Context, _ killData) error { return c.deed(ctx, "undo") },
		},
		"plain": c.plain("last"),
		"retry": {Retry: segno.Retry{Attempts: 3, Initial: 3 * time.Millisecond, Jitter: -1}, Do: func(ctx context.Context, d *killData) (killState, error) {
			if segno.InfoFrom(ctx).Attempt < 3 {
				return "", errors.New("not yet")
			}
			return "last", c.deed(ctx, "third")
		}},
		"timer": {Do: segno.Sleep[killData](20*time.Millisecond, killState("last"))},
		"poll": {Do: segno.Poll(func(ctx context.Context, d *killData) (killState, time.Duration, error) {
			d.Trail = append(d.Trail, "poll")
			again := 5 * time.Millisecond
			if len(d.Trail) == 3 {
				again = 0
			}
			return "last", again, c.deed(ctx, "poll %d", len(d.Trail))
		})},
		"batch": {Do: segno.Batch(
			func(context.Context, killData) ([]int, error) { return []int{1, 2, 3, 4}, nil },
			func(ctx context.Context, i int) (int, error) { return i, c.deed(ctx, "item %d", i) },
			func(ctx context.Context, _ *killData, _ []segno.Settled[int]) (killState, error) {
				return "last", c.deed(ctx, "finish")
			}, segno.BatchOptions{Concurrency: 2})},
		"stepped": {Do: segno.Stepped(func(ctx context.Context, _ *killData, at *int) (killState, bool, error) {
			*at++
			return "last", *at < 4, c.deed(ctx, "step %d", *at)
		})},
		"split": {Do: c.stormSplit()},
		"await": {Timeout: time.Hour, Do: segno.Await("go", func(ctx context.Context, d *killData, n int) (killState, error) {
			return "last", c.deed(ctx, "signal %d", n)
		})},
		"call": {Do: segno.Call("child", c.stormChild(), func(d killData) killData { return d },
			func(context.Context, *killData, segno.Run[killState, killData]) (killState, error) {
				return "last", nil
			})},
		"saga": {Do: func(context.Context, *killData) (killState, error) { return "", segno.Permanent(errors.New("no good")) }},
		"last": last, "done": {Final: true},
	}}
}

// stormChild has one step: it is what slots and calls run.
func (c *killChild) stormChild() killRoute {
	return killRoute{Initial: "slot", Steps: killSteps{"slot": c.plain("done"), "done": {Final: true}}}
}

func (c *killChild) stormSplit() segno.DoFunc[killState, killData] {
	branch := func(i int) func(context.Context, killData) (int, error) {
		return func(ctx context.Context, _ killData) (int, error) { return i, c.deed(ctx, "branch %d", i) }
	}
	return segno.Split(segno.Join{Timeout: time.Minute}, func(ctx context.Context, _ *killData, _ []segno.Settled[int]) (killState, error) {
		return "last", c.deed(ctx, "merge")
	}, branch(1), branch(2), branch(3))
}

// killStorm works on whatever is open, and takes on more, until it is killed. The
// life whose mode is "finish" brings all of it to its end.
func killStorm(c *killChild) {
	ctx, opts := context.Background(), c.options()
	opts.ParkAfter, opts.MaxCrashes = 2*time.Millisecond, 1<<30 // every death here is an accident
	opts.Schema = func(tx segno.Tx) error {
		_, err := tx.Exec("CREATE TABLE IF NOT EXISTS deeds (run INTEGER NOT NULL, visit INTEGER NOT NULL, what TEXT NOT NULL)")
		return err
	}
	s := segno.New(c.Path, opts)
	slot := c.stormChild()
	c.check(errors.Join(
		s.Add(segno.Flow{ID: "storm", Workflow: c.stormFlow(), Overlap: segno.Allow(0)}),
		s.Add(segno.Flow{ID: "child", Workflow: slot, Overlap: segno.Allow(0)}),
		s.Add(segno.Flow{ID: "tick", Workflow: slot, Schedule: segno.Every(20 * time.Millisecond)}),
		s.Add(segno.Flow{ID: "all", Workflow: slot, Schedule: segno.Every(50 * time.Millisecond), CatchUp: segno.CatchUpAll(5), Overlap: segno.Allow(0)}),
		s.Add(segno.Flow{ID: "drip", Workflow: slot, Schedule: segno.FixedDelay(10 * time.Millisecond)}),
		s.Add(segno.Flow{ID: "second", Workflow: slot, Schedule: segno.Cron("* * * * * *")}),
	))
	c.say(killEvent{What: "starting"})
	r := c.start(s)
	if c.Mode == "finish" {
		c.calm(r)
		return
	}
	for i := range c.Runs {
		c.stormTrigger(r, i)
	}
	<-ctx.Done()
}

// stormTrigger takes on a run. One that is to wait for a signal gets it at once,
// or from a later life.
func (c *killChild) stormTrigger(r *segno.RunningScheduler, i int) {
	ctx, way := context.Background(), stormWays[i%len(stormWays)].name
	key := fmt.Sprintf("%s-%d-%d", way, c.Life, i)
	id, err := r.Trigger(ctx, "storm", segno.Trigger{Key: key, Input: killData{Name: way}})
	c.check(err)
	c.say(killEvent{What: "ack", Run: id, Text: key})
	if way == "await" {
		c.stormSignal(r, id)
	}
}

func (c *killChild) stormSignal(r *segno.RunningScheduler, id segno.RunID) {
	err := r.Signal(context.Background(), segno.Target{Run: id}, segno.Message{Name: "go", ID: "the one", Payload: 7})
	if !errors.Is(err, segno.ErrEnded) {
		c.check(err)
	}
}

// calm ends the storm: nothing more is due, and whatever is open ends.
func (c *killChild) calm(r *segno.RunningScheduler) {
	for _, id := range []string{"tick", "all", "drip", "second"} {
		c.check(r.PauseFlow(context.Background(), id, segno.Pause{}))
	}
	for _, run := range c.open(r) {
		if strings.HasPrefix(run.Key, "await") {
			c.stormSignal(r, run.ID)
		}
	}
	c.finish(r)
}
