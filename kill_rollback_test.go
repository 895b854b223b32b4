//go:build unix

package segno_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segnodev/segno"
)

// rollbackFlow has five states to undo and fails in the sixth. The name of a
// run says what its undos do: in "dirty" ones that of visit 2 fails, in "flaky"
// ones that of visit 4 fails once, in "hang" ones that of visit 3 never returns
// in the first life.
func (c *killChild) rollbackFlow() segno.Workflow[killState, killData] {
	steps := killSteps{"done": {Final: true}}
	for i := range 5 {
		step := c.step(killState(fmt.Sprintf("r%d", i+2)), 0)
		step.UndoRetry = segno.Fixed(2, time.Millisecond)
		step.Undo = func(ctx context.Context, d killData) error {
			c.did("undo", ctx, d.Trail...)
			in := segno.InfoFrom(ctx)
			switch {
			case d.Name == "hang" && in.Visit == 3 && c.Life == 1:
				select {}
			case d.Name == "dirty" && in.Visit == 2:
				return segno.Permanent(errors.New("it is gone"))
			case d.Name == "flaky" && in.Visit == 4 && in.Attempt == 1:
				return errors.New("not now")
			}
			return killWork(ctx, c.Nap)
		}
		steps[killState(fmt.Sprintf("r%d", i+1))] = step
	}
	steps["r6"] = killStep{Do: func(context.Context, *killData) (killState, error) { return "", errors.New("out of stock") }}
	return segno.Workflow[killState, killData]{Initial: "r1", Steps: steps}
}

func killRollback(c *killChild) {
	names := strings.Split(c.Mode, " ")
	s := segno.New(c.Path, c.options())
	c.check(s.Add(segno.Flow{ID: "jobs", Workflow: c.rollbackFlow(), Overlap: segno.Allow(0)}))
	r := c.start(s)
	if c.Life == 1 {
		c.trigger(r, "jobs", c.Runs, func(i int) string { return names[i%len(names)] })
	}
	c.finish(r)
}

// checkRollback checks that a run has rolled back as it should, whatever
// happened to the process meanwhile.
func (r *killRig) checkRollback(id segno.RunID) {
	r.t.Helper()
	h := r.left[id]
	undone, failed := []int{5, 4, 3, 2, 1}, []int(nil)
	want, retries := "failed", 0
	switch {
	case strings.Contains(h.data, "dirty"):
		want, undone, failed = "undo_failed", []int{5, 4, 3, 1}, []int{2}
	case strings.Contains(h.data, "flaky"):
		retries = 1
	}
	visits := func(kind string) (v []int) {
		for _, e := range h.entries {
			if e.kind == kind {
				v = append(v, e.visit)
			}
		}
		return v
	}
	if h.status != want || h.err != "out of stock" {
		r.t.Errorf("run %d: got %s (%s), want %s (out of stock)", id, h.status, h.err, want)
	}
	if got := visits("undone"); !slices.Equal(got, undone) {
		r.t.Errorf("run %d: got visits %v undone, want %v (%s)", id, got, undone, h.kinds())
	}
	if got := visits("undo_failed"); !slices.Equal(got, failed) {
		r.t.Errorf("run %d: got undos of visits %v failed, want %v (%s)", id, got, failed, h.kinds())
	}
	if h.has("retry") != retries || h.has("rollback") != 1 {
		r.t.Errorf("run %d: got %q, want one rollback and %d retries", id, h.kinds(), retries)
	}
}

// checkUndoData checks that each undo got the data as its Do had left it.
func (r *killRig) checkUndoData() {
	r.t.Helper()
	for _, e := range r.events {
		trail := []string{"r1", "r2", "r3", "r4", "r5"}
		if want := strings.Join(trail[:e.Visit], ","); e.What == "undo" && e.Text != want {
			r.t.Errorf("undo of visit %d of run %d: got data %q, want %q", e.Visit, e.Run, e.Text, want)
		}
	}
}

// TestKillInRollback kills the program at random while thirty runs roll back.
func TestKillInRollback(t *testing.T) {
	t.Parallel()
	rounds := 2
	if killLong {
		rounds = 20
	}
	for range rounds {
		rig := newKillRig(t, killPlan{Scenario: "rollback", Mode: "clean dirty flaky", Runs: 30, Nap: 4 * time.Millisecond})
		for range 2 {
			rig.start().strike("undo", 1+rig.rand.IntN(50))
		}
		rig.start().ends()
		for id := range rig.left {
			rig.checkRollback(id)
		}
		rig.checkUndoData()
		if len(rig.left) != rig.plan.Runs {
			t.Errorf("got %d runs, want %d", len(rig.left), rig.plan.Runs)
		}
	}
}

// TestKillInUndo kills the program in the middle of the undo of visit 3.
func TestKillInUndo(t *testing.T) {
	t.Parallel()
	rig := newKillRig(t, killPlan{Scenario: "rollback", Mode: "hang", Runs: 1})
	l := rig.start()
	l.until("undo", 3)
	l.kill()
	for id, h := range rig.left {
		if h.status != "undoing" || !h.held || h.ended || !h.undone[5] || !h.undone[4] || h.undone[3] {
			t.Errorf("run %d: got %s, held %v, undone %v, want it undoing, held, 5 and 4 undone", id, h.status, h.held, h.undone)
		}
	}
	l = rig.start()
	if e := l.until("undo", 1); e.Visit != 3 {
		t.Errorf("got undo of visit %d first after the restart, want 3", e.Visit)
	}
	l.ends()
	if got := rig.count("undo", 2); got != 3 {
		t.Errorf("got %d undos after the restart, want 3", got)
	}
	for id, h := range rig.left {
		rig.checkRollback(id)
		if h.has("crash") != 1 {
			t.Errorf("run %d: got %q, want one crash", id, h.kinds())
		}
	}
	rig.checkUndoData()
}
